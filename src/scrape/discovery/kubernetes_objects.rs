//! The parts of Kubernetes objects that become labels.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::null_as_default;

type Map = BTreeMap<String, String>;

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct OwnerReference {
    pub(super) kind: String,
    pub(super) name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) controller: bool,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Meta {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) uid: String,
    pub(super) resource_version: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) labels: Map,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) annotations: Map,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerPort {
    pub(super) name: String,
    pub(super) container_port: u32,
    pub(super) protocol: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) image: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) ports: Vec<ContainerPort>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    #[serde(rename = "containerID")]
    pub(super) container_id: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
    // Pods.
    pub(super) node_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) containers: Vec<Container>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) init_containers: Vec<Container>,
    // Services.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) ports: Vec<ServicePort>,
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: String,
    #[serde(rename = "loadBalancerIP")]
    pub(super) load_balancer_ip: String,
    pub(super) external_name: String,
    // Nodes.
    #[serde(rename = "providerID")]
    pub(super) provider_id: String,
    // Ingresses.
    pub(super) ingress_class_name: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) rules: Vec<IngressRule>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) tls: Vec<IngressTls>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ServicePort {
    pub(super) name: String,
    pub(super) port: u32,
    pub(super) protocol: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IngressRule {
    pub(super) host: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) http: IngressPaths,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IngressPaths {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) paths: Vec<IngressPath>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IngressPath {
    pub(super) path: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct IngressTls {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) hosts: Vec<String>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct NodeAddress {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) address: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct DaemonEndpoint {
    pub(super) port: u32,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct DaemonEndpoints {
    pub(super) kubelet_endpoint: DaemonEndpoint,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    // Pods.
    #[serde(rename = "podIP")]
    pub(super) pod_ip: String,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: String,
    pub(super) phase: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) container_statuses: Vec<ContainerStatus>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    // Pods and nodes.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) conditions: Vec<Condition>,
    // Nodes.
    #[serde(deserialize_with = "null_as_default")]
    pub(super) addresses: Vec<NodeAddress>,
    pub(super) daemon_endpoints: DaemonEndpoints,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct TargetRef {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) namespace: String,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointAddress {
    pub(super) ip: String,
    pub(super) hostname: String,
    pub(super) node_name: String,
    pub(super) target_ref: Option<TargetRef>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointPort {
    pub(super) name: Option<String>,
    pub(super) port: Option<u32>,
    pub(super) protocol: Option<String>,
    pub(super) app_protocol: Option<String>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Subset {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) not_ready_addresses: Vec<EndpointAddress>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) ports: Vec<EndpointPort>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct EndpointConditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SliceEndpoint {
    #[serde(deserialize_with = "null_as_default")]
    pub(super) addresses: Vec<String>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) conditions: EndpointConditions,
    pub(super) hostname: Option<String>,
    pub(super) node_name: Option<String>,
    pub(super) zone: Option<String>,
    pub(super) target_ref: Option<TargetRef>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) deprecated_topology: Map,
}

/// Any of the kinds; fields of other kinds stay empty.
#[derive(Debug, Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Object {
    pub(super) metadata: Meta,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) spec: Spec,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) status: Status,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) subsets: Vec<Subset>,
    pub(super) address_type: String,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) endpoints: Vec<SliceEndpoint>,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) ports: Vec<EndpointPort>,
}

/// An answer to a list request.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct List {
    pub(super) metadata: ListMeta,
    #[serde(deserialize_with = "null_as_default")]
    pub(super) items: Vec<Object>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ListMeta {
    pub(super) resource_version: String,
    #[serde(rename = "continue")]
    pub(super) next: String,
}

/// One line of a watch.
#[derive(Debug, Deserialize)]
pub(super) struct Event {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) object: serde_json::Value,
}
