//! Targets from the instances of Amazon's database clusters.

use serde_json::Value;

use super::aws::{AwsClient, MAX_PAGES, aws_section, plain_members, tags};
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::{LabelMap, join_host_port};
use crate::config::sd::aws::RdsSdConfig;
use crate::model::target_group::TargetGroup;

const VERSION: &str = "2014-10-31";

pub(super) struct RdsDiscovery {
    config: RdsSdConfig,
    client: AwsClient,
}

impl RdsDiscovery {
    pub(super) fn new(config: &RdsSdConfig) -> Result<Self, String> {
        let client = AwsClient::new(&aws_section!(config), "rds", "rds")?;
        Ok(Self { config: config.clone(), client })
    }

    /// All pages of `action`, whose answers hold a list `key`.
    async fn all(&mut self, action: &str, key: &str, own: &[(String, String)]) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        let mut marker = String::new();
        for _ in 0..MAX_PAGES {
            let mut pairs = vec![
                ("Action".to_owned(), action.to_owned()),
                ("Version".to_owned(), VERSION.to_owned()),
                ("MaxRecords".to_owned(), "100".to_owned()),
            ];
            pairs.extend_from_slice(own);
            if !marker.is_empty() {
                pairs.push(("Marker".to_owned(), marker.clone()));
            }
            let answer = self.client.form(&pairs).await?;
            let result = Fields(&answer).at(&format!("/{action}Result"));
            out.extend(result.items(&format!("/{key}")).map(|item| item.0.clone()));
            marker = result.text("/Marker");
            if marker.is_empty() {
                break;
            }
        }
        Ok(out)
    }

    async fn clusters(&mut self) -> Result<Vec<Value>, String> {
        if self.config.clusters.is_empty() {
            return self.all("DescribeDBClusters", "DBClusters", &[]).await;
        }
        let mut out = Vec::new();
        for name in self.config.clusters.clone() {
            let own = [("DBClusterIdentifier".to_owned(), name.clone())];
            let found = self.all("DescribeDBClusters", "DBClusters", &own).await?;
            if found.is_empty() {
                return Err(format!("no DB cluster found for ARN {name}"));
            }
            out.extend(found);
        }
        Ok(out)
    }
}

fn cluster_labels(cluster: Fields<'_>) -> Meta {
    let renamed = [
        ("DBClusterArn", "arn"),
        ("DBClusterIdentifier", "identifier"),
        ("DBClusterInstanceClass", "instance_class"),
        ("DBClusterParameterGroup", "parameter_group"),
        ("DBSubnetGroup", "subnet_group"),
        ("DbClusterResourceId", "resource_id"),
    ];
    let mut meta = Meta::new("__meta_rds_");
    meta.set_tags("cluster_", plain_members(cluster, &renamed));
    meta.set_tags("cluster_tag_", tags(cluster, "/TagList", "/Key", "/Value"));
    meta
}

fn target(instance: Fields<'_>, cluster: Fields<'_>, port: u16) -> LabelMap {
    let renamed = [
        ("DBInstanceArn", "arn"),
        ("DBInstanceClass", "class"),
        ("DBInstanceIdentifier", "identifier"),
        ("DBInstanceStatus", "status"),
        ("DbInstancePort", "port"),
        ("DbiResourceId", "resource_id"),
    ];
    let mut meta = cluster_labels(cluster);
    meta.set_tags("instance_", plain_members(instance, &renamed));
    for (name, pointer) in [("endpoint", "/Endpoint"), ("listener_endpoint", "/ListenerEndpoint")] {
        meta.set_tags(&format!("instance_{name}_"), plain_members(instance.at(pointer), &[]));
    }
    meta.set_some("instance_subnet_group", instance.some("/DBSubnetGroup/DBSubnetGroupName"));
    let id = instance.text("/DBInstanceIdentifier");
    let member = cluster.items("/DBClusterMembers").find(|m| m.text("/DBInstanceIdentifier") == id);
    meta.set_some("instance_is_cluster_writer", member.and_then(|m| m.some("/IsClusterWriter")));
    meta.set_tags("instance_tag_", tags(instance, "/TagList", "/Key", "/Value"));
    match instance.some("/Endpoint/Address").filter(|_| instance.has("/Endpoint/Port")) {
        Some(address) => meta.at(join_host_port(&address, port)),
        None => meta.labels(),
    }
}

impl Refresher for RdsDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let region = self.client.region().await?;
        let mut targets = Vec::new();
        for cluster in self.clusters().await? {
            let cluster = Fields(&cluster);
            let mut filters = vec![("db-cluster-id".to_owned(), vec![cluster.text("/DBClusterArn")])];
            filters.extend(self.config.filters.iter().map(|f| (f.name.clone(), f.values.clone())));
            let mut own = Vec::new();
            for (i, (name, values)) in (1..).zip(filters) {
                own.push((format!("Filters.Filter.{i}.Name"), name));
                let values = (1..).zip(values);
                own.extend(values.map(|(k, value)| (format!("Filters.Filter.{i}.Values.Value.{k}"), value)));
            }
            let instances = self.all("DescribeDBInstances", "DBInstances", &own).await?;
            targets.extend(instances.iter().map(|i| target(Fields(i), cluster, self.config.port)));
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets, labels: LabelMap::new() }])
    }
}
