//! Targets from the brokers and controllers of Amazon's managed Kafka clusters.

use serde_json::Value;

use super::aws::{AwsClient, MAX_PAGES, aws_section};
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::rest::query;
use super::{LabelMap, join_host_port};
use crate::config::sd::aws::MskSdConfig;
use crate::model::target_group::TargetGroup;

pub(super) struct MskDiscovery {
    config: MskSdConfig,
    client: AwsClient,
}

/// Only clusters of this kind have nodes.
const PROVISIONED: &str = "PROVISIONED";

impl MskDiscovery {
    pub(super) fn new(config: &MskSdConfig) -> Result<Self, String> {
        let client = AwsClient::new(&aws_section!(config), "kafka", "kafka")?;
        Ok(Self { config: config.clone(), client })
    }

    async fn list(&mut self, path: &str, key: &str, pairs: &[(&str, &str)]) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let next = [("nextToken", token.as_str())];
            let next = if token.is_empty() { &[][..] } else { &next[..] };
            let pairs = pairs.iter().chain(&[("maxResults", "100")]).chain(next).copied();
            let answer = self.client.get(&format!("{path}?{}", query(pairs))).await?;
            out.extend(Fields(&answer).items(&format!("/{key}")).map(|i| i.0.clone()));
            token = Fields(&answer).text("/nextToken");
            if token.is_empty() {
                break;
            }
        }
        Ok(out)
    }

    async fn clusters(&mut self) -> Result<Vec<Value>, String> {
        if self.config.clusters.is_empty() {
            let filter = [("clusterTypeFilter", PROVISIONED)];
            return self.list("/api/v2/clusters", "clusterInfoList", &filter).await;
        }
        let mut out = Vec::new();
        for arn in self.config.clusters.clone() {
            let mut answer = self.client.get(&format!("/api/v2/clusters/{}", escaped(&arn))).await?;
            let cluster = answer["clusterInfo"].take();
            if Fields(&cluster).text("/clusterType") == PROVISIONED {
                out.push(cluster);
            } else {
                tracing::warn!(cluster = arn, "only provisioned clusters have nodes, this one is skipped");
            }
        }
        Ok(out)
    }
}

/// A name as one segment of a path.
fn escaped(arn: &str) -> String {
    arn.replace('%', "%25").replace('/', "%2F").replace(':', "%3A")
}

fn targets(cluster: Fields<'_>, node: Fields<'_>, port: u16) -> Vec<LabelMap> {
    let mut meta = Meta::new("__meta_msk_");
    meta.copy(
        cluster,
        &[
            ("cluster_name", "/clusterName"),
            ("cluster_arn", "/clusterArn"),
            ("cluster_state", "/state"),
            ("cluster_type", "/clusterType"),
            ("cluster_version", "/currentVersion"),
            ("cluster_kafka_version", "/provisioned/currentBrokerSoftwareInfo/kafkaVersion"),
        ],
    );
    meta.copy_some(
        cluster,
        &[
            ("cluster_configuration_arn", "/provisioned/currentBrokerSoftwareInfo/configurationArn"),
            (
                "cluster_configuration_revision",
                "/provisioned/currentBrokerSoftwareInfo/configurationRevision",
            ),
            (
                "cluster_jmx_exporter_enabled",
                "/provisioned/openMonitoring/prometheus/jmxExporter/enabledInBroker",
            ),
        ],
    );
    meta.set_tags("cluster_tag_", cluster.members("/tags").map(|(n, v)| (n.to_owned(), v.text(""))));
    meta.copy(
        node,
        &[
            ("node_arn", "/nodeARN"),
            ("node_added_time", "/addedToClusterTime"),
            ("node_instance_type", "/instanceType"),
        ],
    );
    let (kind, list) = if node.has("/brokerNodeInfo") {
        meta.set("node_type", "BROKER");
        meta.copy(
            node,
            &[
                ("node_attached_eni", "/brokerNodeInfo/attachedENIId"),
                ("broker_client_subnet", "/brokerNodeInfo/clientSubnet"),
                ("broker_client_vpc_ip", "/brokerNodeInfo/clientVpcIpAddress"),
            ],
        );
        let id = node.at("/brokerNodeInfo/brokerId").0.as_f64().unwrap_or_default();
        meta.set("broker_id", format!("{id:.0}"));
        let exporter = "/provisioned/openMonitoring/prometheus/nodeExporter/enabledInBroker";
        meta.set_some("broker_node_exporter_enabled", cluster.some(exporter));
        ("broker", "/brokerNodeInfo/endpoints")
    } else if node.has("/controllerNodeInfo") {
        meta.set("node_type", "CONTROLLER");
        ("controller", "/controllerNodeInfo/endpoints")
    } else {
        return Vec::new();
    };
    let target = |(i, endpoint): (usize, String)| {
        let mut meta = meta.clone();
        meta.set(&format!("{kind}_endpoint_index"), i.to_string());
        meta.at(join_host_port(&endpoint, port))
    };
    node.texts(list).into_iter().enumerate().map(target).collect()
}

impl Refresher for MskDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let region = self.client.region().await?;
        let mut found = Vec::new();
        for cluster in self.clusters().await? {
            let cluster = Fields(&cluster);
            let path = format!("/v1/clusters/{}/nodes", escaped(&cluster.text("/clusterArn")));
            for node in self.list(&path, "nodeInfoList", &[]).await? {
                found.extend(targets(cluster, Fields(&node), self.config.port));
            }
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets: found, labels: LabelMap::new() }])
    }
}
