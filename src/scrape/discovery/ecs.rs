//! Targets from the tasks of Amazon's container service.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::aws::{AwsClient, AwsSection, MAX_PAGES, aws_section, tags};
use super::ec2::VERSION;
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::{LabelMap, join_host_port};
use crate::config::sd::aws::EcsSdConfig;
use crate::model::target_group::TargetGroup;

const SERVICE: &str = "AmazonEC2ContainerServiceV20141113";

pub(super) struct EcsDiscovery {
    config: EcsSdConfig,
    ecs: AwsClient,
    ec2: AwsClient,
}

impl EcsDiscovery {
    pub(super) fn new(config: &EcsSdConfig) -> Result<Self, String> {
        // The endpoint of the section is that of ECS; instances are asked at EC2's usual one.
        Self::at(config, "")
    }

    /// With another address of EC2.
    pub(super) fn at(config: &EcsSdConfig, ec2: &str) -> Result<Self, String> {
        let section = aws_section!(config);
        let ecs = AwsClient::new(&section, "ecs", "ecs")?;
        let ec2 = AwsClient::new(&AwsSection { endpoint: ec2, ..section }, "ec2", "ec2")?;
        Ok(Self { config: config.clone(), ecs, ec2 })
    }

    /// All pages of a list.
    async fn list(&mut self, action: &str, key: &str, mut body: Value) -> Result<Vec<String>, String> {
        let mut out = Vec::new();
        for _ in 0..MAX_PAGES {
            let answer = self.ecs.target(&format!("{SERVICE}.{action}"), &body).await?;
            out.extend(Fields(&answer).texts(&format!("/{key}")));
            match Fields(&answer).some("/nextToken").filter(|t| !t.is_empty()) {
                Some(token) => body["nextToken"] = token.into(),
                None => break,
            }
        }
        Ok(out)
    }

    /// Describes things in batches as large as the API allows.
    async fn describe(
        &mut self,
        action: &str,
        (plural, names, batch): (&str, &[String], usize),
        common: &Value,
    ) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        for names in names.chunks(batch) {
            let mut body = common.clone();
            body[plural] = json!(names);
            let answer = self.ecs.target(&format!("{SERVICE}.{action}"), &body).await?;
            out.extend(Fields(&answer).items(&format!("/{plural}")).map(|item| item.0.clone()));
        }
        Ok(out)
    }

    /// Asks EC2 about these identities; what cannot be had is left out.
    async fn ask_ec2(&mut self, action: &str, parameter: &str, ids: &[String]) -> Value {
        if ids.is_empty() {
            return Value::Null;
        }
        let mut pairs =
            vec![("Action".to_owned(), action.to_owned()), ("Version".to_owned(), VERSION.to_owned())];
        pairs.extend((1..).zip(ids).map(|(i, id)| (format!("{parameter}.{i}"), id.clone())));
        match self.ec2.form(&pairs).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(error, "cannot ask EC2 about container instances");
                Value::Null
            }
        }
    }

    async fn cluster(&mut self, cluster: &Value, region: &str) -> Result<Vec<LabelMap>, String> {
        let arn = Fields(cluster).text("/clusterArn");
        let in_cluster = json!({ "cluster": arn, "include": ["TAGS"] });
        let services = self.list("ListServices", "serviceArns", json!({ "cluster": arn })).await?;
        let services = self.describe("DescribeServices", ("services", &services, 10), &in_cluster).await?;
        let mut out = Vec::new();
        for service in &services {
            let name = Fields(service).text("/serviceName");
            let listed = json!({ "cluster": arn, "serviceName": name });
            let tasks = self.list("ListTasks", "taskArns", listed).await?;
            let tasks = self.describe("DescribeTasks", ("tasks", &tasks, 100), &in_cluster).await?;
            let machines = self.machines(&arn, &tasks).await?;
            let parts =
                Parts { cluster: Fields(cluster), service: Fields(service), region, machines: &machines };
            out.extend(tasks.iter().filter_map(|task| target(Fields(task), &parts, self.config.port)));
        }
        Ok(out)
    }

    async fn machines(&mut self, cluster: &str, tasks: &[Value]) -> Result<Machines, String> {
        let mut arns: Vec<String> =
            tasks.iter().filter_map(|t| Fields(t).some("/containerInstanceArn")).collect();
        arns.sort();
        arns.dedup();
        let common = json!({ "cluster": cluster });
        let containers =
            self.describe("DescribeContainerInstances", ("containerInstances", &arns, 100), &common).await?;
        let ids: HashMap<String, String> = containers
            .iter()
            .map(Fields)
            .filter_map(|c| Some((c.some("/containerInstanceArn")?, c.some("/ec2InstanceId")?)))
            .collect();
        let mut wanted: Vec<String> = ids.values().cloned().collect();
        wanted.sort();
        wanted.dedup();
        let interfaces: Vec<String> =
            tasks.iter().filter_map(|t| interface(Fields(t), "networkInterfaceId")).collect();
        let instances = self.ask_ec2("DescribeInstances", "InstanceId", &wanted).await;
        let interfaces = self.ask_ec2("DescribeNetworkInterfaces", "NetworkInterfaceId", &interfaces).await;
        let instances = Fields(&instances)
            .items("/reservationSet")
            .flat_map(|r| r.items("/instancesSet"))
            .filter(|i| i.has("/privateIpAddress"))
            .map(|i| (i.text("/instanceId"), i.0.clone()))
            .collect();
        let public = Fields(&interfaces)
            .items("/networkInterfaceSet")
            .filter_map(|i| Some((i.some("/networkInterfaceId")?, i.some("/association/publicIp")?)))
            .collect();
        Ok(Machines { ids, instances, public })
    }
}

/// What EC2 knows about the machines under a service.
struct Machines {
    /// EC2's identity of each container instance.
    ids: HashMap<String, String>,
    /// Instances by that identity.
    instances: HashMap<String, Value>,
    /// Public addresses of network interfaces.
    public: HashMap<String, String>,
}

/// A detail of the network interface of a task that has one of its own.
fn interface(task: Fields<'_>, detail: &str) -> Option<String> {
    let attachment = task.items("/attachments").find(|a| a.text("/type") == "ElasticNetworkInterface")?;
    attachment.items("/details").find(|d| d.text("/name") == detail)?.some("/value")
}

struct Parts<'a> {
    cluster: Fields<'a>,
    service: Fields<'a>,
    region: &'a str,
    machines: &'a Machines,
}

fn target(task: Fields<'_>, parts: &Parts<'_>, port: u16) -> Option<LabelMap> {
    let machines = parts.machines;
    let own = task.items("/attachments").any(|a| a.text("/type") == "ElasticNetworkInterface");
    let container = task.some("/containerInstanceArn");
    let id = container.as_ref().and_then(|arn| machines.ids.get(arn));
    let nothing = Value::Null;
    let machine = Fields(id.and_then(|id| machines.instances.get(id)).unwrap_or(&nothing));
    let mut meta = Meta::new("__meta_ecs_");
    let (address, subnet, public) = if own {
        meta.set("network_mode", "awsvpc");
        let public = interface(task, "networkInterfaceId").and_then(|i| machines.public.get(&i).cloned());
        (interface(task, "privateIPv4Address"), interface(task, "subnetId"), public)
    } else {
        meta.set("network_mode", if container.is_some() { "bridge" } else { "" });
        (machine.some("/privateIpAddress"), machine.some("/subnetId"), machine.some("/ipAddress"))
    };
    let address = address?;
    meta.set("ip_address", address.as_str());
    meta.set("region", parts.region);
    meta.set_some("subnet_id", subnet);
    meta.set_some("public_ip", public);
    meta.set_some("container_instance_arn", container);
    meta.set_some("ec2_instance_id", id.cloned());
    meta.copy_some(
        machine,
        &[
            ("ec2_instance_type", "/instanceType"),
            ("ec2_instance_private_ip", "/privateIpAddress"),
            ("ec2_instance_public_ip", "/ipAddress"),
        ],
    );
    meta.copy(
        parts.service,
        &[
            ("cluster_arn", "/clusterArn"),
            ("service", "/serviceName"),
            ("service_arn", "/serviceArn"),
            ("service_status", "/status"),
        ],
    );
    meta.set_some("cluster", parts.cluster.some("/clusterName"));
    meta.copy(
        task,
        &[
            ("task_group", "/group"),
            ("task_arn", "/taskArn"),
            ("task_definition", "/taskDefinitionArn"),
            ("launch_type", "/launchType"),
            ("availability_zone", "/availabilityZone"),
            ("desired_status", "/desiredStatus"),
            ("last_status", "/lastStatus"),
            ("health_status", "/healthStatus"),
        ],
    );
    meta.copy_some(task, &[("platform_family", "/platformFamily"), ("platform_version", "/platformVersion")]);
    meta.set_tags("tag_cluster_", tags(parts.cluster, "/tags", "/key", "/value"));
    meta.set_tags("tag_service_", tags(parts.service, "/tags", "/key", "/value"));
    meta.set_tags("tag_task_", tags(task, "/tags", "/key", "/value"));
    meta.set_tags("tag_ec2_", tags(machine, "/tagSet", "/key", "/value"));
    Some(meta.at(join_host_port(&address, port)))
}

impl Refresher for EcsDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let region = self.ecs.region().await?;
        let names = if self.config.clusters.is_empty() {
            self.list("ListClusters", "clusterArns", json!({})).await?
        } else {
            self.config.clusters.clone()
        };
        let include = json!({ "include": ["TAGS"] });
        let clusters = self.describe("DescribeClusters", ("clusters", &names, 100), &include).await?;
        let mut targets = Vec::new();
        for cluster in &clusters {
            targets.extend(self.cluster(cluster, &region).await?);
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets, labels: LabelMap::new() }])
    }
}
