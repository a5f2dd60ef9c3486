//! How do Kubernetes objects become target groups? One group for each object of the role, with labels of what it
//! belongs to.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::kubernetes_objects::{Container, ContainerPort, Meta, Object, TargetRef};
use super::{LabelMap, join_host_port, sanitize};
use crate::config::sd::cluster::{AttachMetadata, KubernetesRole};
use crate::model::target_group::TargetGroup;

const PREFIX: &str = "__meta_kubernetes_";

/// Objects of one kind by namespace and name.
pub(super) type Store = BTreeMap<(String, String), Arc<Object>>;

/// The stores of one kind: one, or one for each namespace.
#[derive(Debug, Default)]
pub(super) struct Stores(pub(super) Vec<Arc<Store>>);

impl Stores {
    fn get(&self, key: &(String, String)) -> Option<&Object> {
        self.0.iter().find_map(|store| store.get(key)).map(|object| &**object)
    }

    fn values(&self) -> impl Iterator<Item = &Object> {
        self.0.iter().flat_map(|store| store.values()).map(|object| &**object)
    }
}

/// Everything that is known of a cluster.
#[derive(Debug, Default)]
pub(super) struct Cluster {
    pub(super) main: Stores,
    pub(super) pods: Stores,
    pub(super) services: Stores,
    pub(super) nodes: Stores,
    pub(super) namespaces: Stores,
}

struct Labels(LabelMap);

impl Labels {
    fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(format!("{PREFIX}{name}"), value.into());
    }

    fn address(&mut self, address: String) {
        self.0.insert("__address__".into(), address);
    }

    /// Labels and annotations of an object, each with a mark that it is present.
    fn object(&mut self, meta: &Meta, role: &str) {
        for (name, value) in &meta.labels {
            let name = sanitize(name);
            self.set(&format!("{role}_label_{name}"), value);
            self.set(&format!("{role}_labelpresent_{name}"), "true");
        }
        for (name, value) in &meta.annotations {
            let name = sanitize(name);
            self.set(&format!("{role}_annotation_{name}"), value);
            self.set(&format!("{role}_annotationpresent_{name}"), "true");
        }
    }
}

fn group(kind: &str, meta: &Meta, targets: Vec<LabelMap>, labels: LabelMap) -> TargetGroup {
    let source = if meta.namespace.is_empty() {
        format!("{kind}/{}", meta.name)
    } else {
        format!("{kind}/{}/{}", meta.namespace, meta.name)
    };
    TargetGroup { source, targets, labels }
}

impl Cluster {
    /// The groups of all objects of the role.
    pub(super) fn groups(&self, role: KubernetesRole, attach: &AttachMetadata) -> Vec<TargetGroup> {
        self.main
            .values()
            .map(|object| match role {
                KubernetesRole::Pod => self.pod(object, attach),
                KubernetesRole::Service => self.service(object, attach),
                KubernetesRole::Endpoints => self.endpoints(object, attach),
                KubernetesRole::EndpointSlice => self.endpoint_slice(object, attach),
                KubernetesRole::Node => node(object),
                KubernetesRole::Ingress => self.ingress(object, attach),
            })
            .collect()
    }

    fn namespace_labels(&self, namespace: &str, attach: &AttachMetadata, labels: &mut Labels) {
        labels.set("namespace", namespace);
        if attach.namespace
            && let Some(object) = self.namespaces.get(&(String::new(), namespace.to_owned()))
        {
            labels.object(&object.metadata, "namespace");
        }
    }

    fn node_labels(&self, name: &str, attach: &AttachMetadata, labels: &mut Labels) {
        if !attach.node || name.is_empty() {
            return;
        }
        if let Some(object) = self.nodes.get(&(String::new(), name.to_owned())) {
            labels.set("node_name", name);
            labels.object(&object.metadata, "node");
        }
    }

    /// Labels of a pod itself.
    fn pod_labels(&self, pod: &Object, attach: &AttachMetadata, labels: &mut Labels) {
        let Object { metadata: meta, status, spec, .. } = pod;
        labels.object(meta, "pod");
        let ready = status.conditions.iter().find(|c| c.kind == "Ready").map_or("unknown", |c| &c.status);
        labels.set("pod_name", &meta.name);
        labels.set("pod_ip", &status.pod_ip);
        labels.set("pod_ready", ready.to_ascii_lowercase());
        labels.set("pod_phase", &status.phase);
        labels.set("pod_node_name", &spec.node_name);
        labels.set("pod_host_ip", &status.host_ip);
        labels.set("pod_uid", &meta.uid);
        if let Some(owner) = meta.owner_references.iter().find(|o| o.controller) {
            labels.set("pod_controller_kind", &owner.kind);
            labels.set("pod_controller_name", &owner.name);
            // The names of what owns the owner are part of its name by Kubernetes's own convention.
            let stem = owner.name.rsplit_once('-').map(|(stem, _)| stem);
            match (owner.kind.as_str(), stem) {
                ("ReplicaSet", Some(stem)) if attach.deployment => labels.set("pod_deployment_name", stem),
                ("Job", stem) => {
                    if attach.job {
                        labels.set("pod_job_name", &owner.name);
                    }
                    if let Some(stem) = stem
                        && attach.cronjob
                        && owner.name.len() - stem.len() > 8
                    {
                        labels.set("pod_cronjob_name", stem);
                    }
                }
                _ => {}
            }
        }
    }

    fn pod(&self, pod: &Object, attach: &AttachMetadata) -> TargetGroup {
        let mut common = Labels(LabelMap::new());
        self.pod_labels(pod, attach, &mut common);
        self.namespace_labels(&pod.metadata.namespace, attach, &mut common);
        self.node_labels(&pod.spec.node_name, attach, &mut common);
        let mut targets = Vec::new();
        // A pod without an address cannot be scraped yet.
        if !pod.status.pod_ip.is_empty() {
            for (container, init) in containers(pod) {
                if container.ports.is_empty() {
                    let mut labels = Labels(LabelMap::new());
                    // A host without a port, so that relabelling can add one.
                    labels.address(match pod.status.pod_ip.contains(':') {
                        true => format!("[{}]", pod.status.pod_ip),
                        false => pod.status.pod_ip.clone(),
                    });
                    container_labels(pod, container, init, None, &mut labels);
                    targets.push(labels.0);
                }
                for port in &container.ports {
                    let mut labels = Labels(LabelMap::new());
                    labels.address(join_host_port(&pod.status.pod_ip, port.container_port));
                    container_labels(pod, container, init, Some(port), &mut labels);
                    targets.push(labels.0);
                }
            }
        }
        group("pod", &pod.metadata, targets, common.0)
    }

    fn service_labels(&self, namespace: &str, name: &str, labels: &mut Labels) {
        if let Some(service) = self.services.get(&(namespace.to_owned(), name.to_owned())) {
            labels.set("service_name", name);
            labels.object(&service.metadata, "service");
        }
    }

    fn service(&self, service: &Object, attach: &AttachMetadata) -> TargetGroup {
        let Object { metadata: meta, spec, .. } = service;
        let mut common = Labels(LabelMap::new());
        self.namespace_labels(&meta.namespace, attach, &mut common);
        common.set("service_name", &meta.name);
        common.object(meta, "service");
        let targets = spec
            .ports
            .iter()
            .map(|port| {
                let mut labels = Labels(LabelMap::new());
                labels.address(join_host_port(&format!("{}.{}.svc", meta.name, meta.namespace), port.port));
                labels.set("service_port_name", &port.name);
                labels.set("service_port_number", port.port.to_string());
                labels.set("service_port_protocol", &port.protocol);
                labels.set("service_type", &spec.kind);
                match spec.kind.as_str() {
                    "ExternalName" => labels.set("service_external_name", &spec.external_name),
                    _ => labels.set("service_cluster_ip", &spec.cluster_ip),
                }
                if spec.kind == "LoadBalancer" {
                    labels.set("service_loadbalancer_ip", &spec.load_balancer_ip);
                }
                labels.0
            })
            .collect();
        group("svc", meta, targets, common.0)
    }

    /// Adds the labels of the pod behind an endpoint; remembers which of its ports are covered.
    fn add_pod(
        &self,
        reference: Option<&TargetRef>,
        namespace: &str,
        port: Option<u32>,
        attach: &AttachMetadata,
        seen: &mut Covered,
        labels: &mut Labels,
    ) {
        let Some(reference) = reference.filter(|r| r.kind == "Pod") else { return };
        let namespace = if reference.namespace.is_empty() { namespace } else { &reference.namespace };
        let key = (namespace.to_owned(), reference.name.clone());
        let Some(pod) = self.pods.get(&key) else { return };
        self.pod_labels(pod, attach, labels);
        self.node_labels(&pod.spec.node_name, attach, labels);
        let covered = seen.entry(key).or_default();
        for (container, init) in containers(pod) {
            if let Some(found) = container.ports.iter().find(|p| Some(p.container_port) == port) {
                container_labels(pod, container, init, Some(found), labels);
                covered.insert(found.container_port);
                break;
            }
        }
        covered.extend(port);
    }

    /// Targets for the ports of the pods that the endpoints do not name.
    fn other_ports(&self, seen: &Covered, attach: &AttachMetadata, targets: &mut Vec<LabelMap>) {
        for (key, covered) in seen {
            let Some(pod) = self.pods.get(key).filter(|pod| !pod.status.pod_ip.is_empty()) else { continue };
            for (container, init) in containers(pod) {
                for port in container.ports.iter().filter(|p| !covered.contains(&p.container_port)) {
                    let mut labels = Labels(LabelMap::new());
                    labels.address(join_host_port(&pod.status.pod_ip, port.container_port));
                    self.pod_labels(pod, attach, &mut labels);
                    self.node_labels(&pod.spec.node_name, attach, &mut labels);
                    container_labels(pod, container, init, Some(port), &mut labels);
                    targets.push(labels.0);
                }
            }
        }
    }

    fn endpoints(&self, object: &Object, attach: &AttachMetadata) -> TargetGroup {
        let meta = &object.metadata;
        let mut common = Labels(LabelMap::new());
        self.namespace_labels(&meta.namespace, attach, &mut common);
        common.set("endpoints_name", &meta.name);
        common.object(meta, "endpoints");
        self.service_labels(&meta.namespace, &meta.name, &mut common);
        let mut targets = Vec::new();
        let mut seen = Covered::new();
        for subset in &object.subsets {
            let ready = subset.addresses.iter().map(|a| (a, true));
            let not_ready = subset.not_ready_addresses.iter().map(|a| (a, false));
            let addresses: Vec<_> = ready.chain(not_ready).collect();
            for port in &subset.ports {
                for (address, ready) in &addresses {
                    let mut labels = Labels(LabelMap::new());
                    labels.address(join_host_port(&address.ip, port.port.unwrap_or(0)));
                    labels.set("endpoint_port_name", port.name.clone().unwrap_or_default());
                    labels.set("endpoint_port_protocol", port.protocol.clone().unwrap_or_default());
                    labels.set("endpoint_ready", ready.to_string());
                    if let Some(reference) = &address.target_ref {
                        labels.set("endpoint_address_target_kind", &reference.kind);
                        labels.set("endpoint_address_target_name", &reference.name);
                    }
                    if !address.node_name.is_empty() {
                        labels.set("endpoint_node_name", &address.node_name);
                    }
                    if !address.hostname.is_empty() {
                        labels.set("endpoint_hostname", &address.hostname);
                    }
                    let reference = address.target_ref.as_ref();
                    self.add_pod(reference, &meta.namespace, port.port, attach, &mut seen, &mut labels);
                    targets.push(labels.0);
                }
            }
        }
        self.other_ports(&seen, attach, &mut targets);
        group("endpoints", meta, targets, common.0)
    }

    fn endpoint_slice(&self, object: &Object, attach: &AttachMetadata) -> TargetGroup {
        let meta = &object.metadata;
        let mut common = Labels(LabelMap::new());
        self.namespace_labels(&meta.namespace, attach, &mut common);
        common.set("endpointslice_name", &meta.name);
        common.set("endpointslice_address_type", &object.address_type);
        common.object(meta, "endpointslice");
        if let Some(service) = meta.labels.get("kubernetes.io/service-name") {
            self.service_labels(&meta.namespace, service, &mut common);
        }
        let mut targets = Vec::new();
        let mut seen = Covered::new();
        for port in &object.ports {
            for endpoint in &object.endpoints {
                for address in &endpoint.addresses {
                    let mut labels = Labels(LabelMap::new());
                    labels.address(match port.port {
                        Some(port) => join_host_port(address, port),
                        None => address.clone(),
                    });
                    for (name, value) in [
                        ("endpointslice_port_name", port.name.clone()),
                        ("endpointslice_port_protocol", port.protocol.clone()),
                        ("endpointslice_port", port.port.map(|p| p.to_string())),
                        ("endpointslice_port_app_protocol", port.app_protocol.clone()),
                        (
                            "endpointslice_endpoint_conditions_ready",
                            endpoint.conditions.ready.map(|b| b.to_string()),
                        ),
                        (
                            "endpointslice_endpoint_conditions_serving",
                            endpoint.conditions.serving.map(|b| b.to_string()),
                        ),
                        (
                            "endpointslice_endpoint_conditions_terminating",
                            endpoint.conditions.terminating.map(|b| b.to_string()),
                        ),
                        ("endpointslice_endpoint_hostname", endpoint.hostname.clone()),
                        ("endpointslice_endpoint_node_name", endpoint.node_name.clone()),
                        ("endpointslice_endpoint_zone", endpoint.zone.clone()),
                        (
                            "endpointslice_address_target_kind",
                            endpoint.target_ref.as_ref().map(|r| r.kind.clone()),
                        ),
                        (
                            "endpointslice_address_target_name",
                            endpoint.target_ref.as_ref().map(|r| r.name.clone()),
                        ),
                    ] {
                        if let Some(value) = value {
                            labels.set(name, value);
                        }
                    }
                    for (name, value) in &endpoint.deprecated_topology {
                        let name = sanitize(name);
                        labels.set(&format!("endpointslice_endpoint_topology_{name}"), value);
                        labels.set(&format!("endpointslice_endpoint_topology_present_{name}"), "true");
                    }
                    let reference = endpoint.target_ref.as_ref();
                    self.add_pod(reference, &meta.namespace, port.port, attach, &mut seen, &mut labels);
                    targets.push(labels.0);
                }
            }
        }
        self.other_ports(&seen, attach, &mut targets);
        group("endpointslice", meta, targets, common.0)
    }

    fn ingress(&self, object: &Object, attach: &AttachMetadata) -> TargetGroup {
        let Object { metadata: meta, spec, .. } = object;
        let mut common = Labels(LabelMap::new());
        self.namespace_labels(&meta.namespace, attach, &mut common);
        common.set("ingress_name", &meta.name);
        common.object(meta, "ingress");
        if !spec.ingress_class_name.is_empty() {
            common.set("ingress_class_name", &spec.ingress_class_name);
        }
        let secure = |host: &str| {
            spec.tls.iter().flat_map(|tls| &tls.hosts).any(|pattern| matches_host(pattern, host))
        };
        let mut targets = Vec::new();
        for rule in &spec.rules {
            let scheme = if secure(&rule.host) { "https" } else { "http" };
            let root = [super::kubernetes_objects::IngressPath { path: "/".into() }];
            let paths = if rule.http.paths.is_empty() { &root[..] } else { &rule.http.paths };
            for path in paths {
                let path = if path.path.is_empty() { "/" } else { &path.path };
                let mut labels = Labels(LabelMap::new());
                labels.address(rule.host.clone());
                labels.set("ingress_scheme", scheme);
                labels.set("ingress_host", &rule.host);
                labels.set("ingress_path", path);
                targets.push(labels.0);
            }
        }
        group("ingress", meta, targets, common.0)
    }
}

/// Ports of pods that endpoints name already.
type Covered = BTreeMap<(String, String), HashSet<u32>>;

/// Whether a host is covered by a certificate for `pattern`, which may begin with `*.`.
fn matches_host(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => host.split_once('.').is_some_and(|(_, rest)| suffix.strip_prefix('.') == Some(rest)),
        None => pattern == host,
    }
}

fn containers(pod: &Object) -> impl Iterator<Item = (&Container, bool)> {
    let own = pod.spec.containers.iter().map(|c| (c, false));
    own.chain(pod.spec.init_containers.iter().map(|c| (c, true)))
}

fn container_labels(
    pod: &Object,
    container: &Container,
    init: bool,
    port: Option<&ContainerPort>,
    labels: &mut Labels,
) {
    let statuses = if init { &pod.status.init_container_statuses } else { &pod.status.container_statuses };
    let id = statuses.iter().find(|s| s.name == container.name).map_or("", |s| &s.container_id);
    labels.set("pod_container_name", &container.name);
    labels.set("pod_container_id", id);
    labels.set("pod_container_image", &container.image);
    labels.set("pod_container_init", init.to_string());
    if let Some(port) = port {
        labels.set("pod_container_port_name", &port.name);
        labels.set("pod_container_port_number", port.container_port.to_string());
        labels.set("pod_container_port_protocol", &port.protocol);
    }
}

fn node(object: &Object) -> TargetGroup {
    let Object { metadata: meta, status, spec, .. } = object;
    let mut common = Labels(LabelMap::new());
    common.set("node_name", &meta.name);
    common.set("node_provider_id", &spec.provider_id);
    common.object(meta, "node");
    for condition in &status.conditions {
        let name = sanitize(&condition.kind);
        common.set(&format!("node_condition_{name}"), condition.status.to_ascii_lowercase());
    }
    let order = ["InternalIP", "InternalDNS", "ExternalIP", "ExternalDNS", "LegacyHostIP", "Hostname"];
    let of_kind = |kind: &str| status.addresses.iter().find(|a| a.kind == kind);
    let mut targets = Vec::new();
    if let Some(address) = order.iter().find_map(|kind| of_kind(kind)) {
        let mut labels = Labels(LabelMap::new());
        labels.address(join_host_port(&address.address, status.daemon_endpoints.kubelet_endpoint.port));
        labels.0.insert("instance".into(), meta.name.clone());
        for address in status.addresses.iter().rev() {
            labels.set(&format!("node_address_{}", sanitize(&address.kind)), &address.address);
        }
        targets.push(labels.0);
    }
    group("node", meta, targets, common.0)
}
