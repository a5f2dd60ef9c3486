//! Targets from Amazon's ElastiCache: the nodes of cache clusters, and serverless caches.

use serde_json::Value;

use super::aws::{AwsClient, MAX_PAGES, aws_section, plain_members, tags};
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::{LabelMap, join_host_port};
use crate::config::sd::aws::ElasticacheSdConfig;
use crate::model::target_group::TargetGroup;

const VERSION: &str = "2015-02-02";

pub(super) struct ElasticacheDiscovery {
    config: ElasticacheSdConfig,
    client: AwsClient,
}

impl ElasticacheDiscovery {
    pub(super) fn new(config: &ElasticacheSdConfig) -> Result<Self, String> {
        let client = AwsClient::new(&aws_section!(config), "elasticache", "elasticache")?;
        Ok(Self { config: config.clone(), client })
    }

    /// All pages of `action`, whose answers hold a list `key`; `page` names the token of the next one.
    async fn all(
        &mut self,
        (action, key, page): (&str, &str, &str),
        own: &[(&str, &str)],
    ) -> Result<Vec<Value>, String> {
        let mut out = Vec::new();
        let mut next = String::new();
        for _ in 0..MAX_PAGES {
            let fixed = [("Action", action), ("Version", VERSION)];
            let more = [(page, next.as_str())];
            let more = if next.is_empty() { &[][..] } else { &more[..] };
            let pairs = fixed.iter().chain(own).chain(more);
            let pairs: Vec<_> = pairs.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            let answer = self.client.form(&pairs).await?;
            let result = Fields(&answer).at(&format!("/{action}Result"));
            out.extend(result.items(&format!("/{key}")).map(|item| item.0.clone()));
            next = result.text(&format!("/{page}"));
            if next.is_empty() {
                break;
            }
        }
        Ok(out)
    }

    /// Names of a kind of cache among the ARNs of the configuration, as `…:serverlesscache:name`; none for all.
    fn named(&self, kind: &str) -> Vec<String> {
        let name = |arn: &String| {
            let mut parts = arn.split(':').skip(5);
            (parts.next() == Some(kind)).then(|| parts.next().unwrap_or_default().to_owned())
        };
        self.config.clusters.iter().filter_map(name).collect()
    }

    async fn serverless(&mut self) -> Result<Vec<Value>, String> {
        let list = ("DescribeServerlessCaches", "ServerlessCaches", "NextToken");
        let names = self.named("serverlesscache");
        if names.is_empty() {
            return self.all(list, &[("MaxResults", "50")]).await;
        }
        let mut out = Vec::new();
        for name in names {
            out.extend(self.all(list, &[("ServerlessCacheName", name.as_str())]).await?);
        }
        Ok(out)
    }

    async fn clusters(&mut self) -> Result<Vec<Value>, String> {
        let list = ("DescribeCacheClusters", "CacheClusters", "Marker");
        let names = self.named("replicationgroup");
        let names = if names.is_empty() { vec![String::new()] } else { names };
        let mut out: Vec<Value> = Vec::new();
        for name in &names {
            // Clusters outside replication groups are listed apart.
            for outside in ["false", "true"] {
                let mut own =
                    vec![("ShowCacheNodeInfo", "true"), ("ShowCacheClustersNotInReplicationGroups", outside)];
                if !name.is_empty() {
                    own.push(("CacheClusterId", name.as_str()));
                }
                for cluster in self.all(list, &own).await? {
                    // What is outside of groups comes in both lists.
                    if !out.contains(&cluster) {
                        out.push(cluster);
                    }
                }
            }
        }
        Ok(out)
    }

    async fn tags(&mut self, of: Fields<'_>) -> Result<Vec<(String, String)>, String> {
        let Some(arn) = of.some("/ARN") else { return Ok(Vec::new()) };
        let own = [("ResourceName", arn.as_str())];
        let list = self.all(("ListTagsForResource", "TagList", "Marker"), &own).await?;
        Ok(tags(Fields(&Value::Array(list)), "", "/Key", "/Value"))
    }
}

fn serverless_target(cache: Fields<'_>, own_tags: Vec<(String, String)>) -> LabelMap {
    let mut meta = Meta::new("__meta_elasticache_");
    meta.set("deployment_option", "serverless");
    let renamed = [("ServerlessCacheName", "name")];
    meta.set_tags("serverless_cache_", plain_members(cache, &renamed));
    meta.set_tags("serverless_cache_endpoint_", plain_members(cache.at("/Endpoint"), &[]));
    meta.set_tags("serverless_cache_endpoint_reader_", plain_members(cache.at("/ReaderEndpoint"), &[]));
    for (name, pointer) in [("security_group_id", "/SecurityGroupIds"), ("subnet_id", "/SubnetIds")] {
        for (i, id) in cache.texts(pointer).into_iter().enumerate() {
            meta.set(&format!("serverless_cache_{name}_{i}"), id);
        }
    }
    for (name, pointer) in [("data_storage", "DataStorage"), ("ecpu_per_second", "ECPUPerSecond")] {
        let limits = plain_members(cache.at(&format!("/CacheUsageLimits/{pointer}")), &[]);
        meta.set_tags(&format!("serverless_cache_cache_usage_limit_{name}_"), limits);
    }
    meta.set_tags("serverless_cache_tag_", own_tags);
    match (cache.some("/Endpoint/Address"), cache.some("/Endpoint/Port")) {
        (Some(address), Some(port)) => meta.at(join_host_port(&address, port)),
        _ => meta.labels(),
    }
}

fn cluster_targets(cluster: Fields<'_>, own_tags: Vec<(String, String)>) -> Vec<LabelMap> {
    let mut common = Meta::new("__meta_elasticache_");
    common.set("deployment_option", "node");
    let renamed = [("AuthTokenLastModifiedDate", "auth_token_last_modified")];
    common.set_tags("cache_cluster_", plain_members(cluster, &renamed));
    common.copy_some(
        cluster,
        &[
            ("cache_cluster_cache_parameter_group", "/CacheParameterGroup/CacheParameterGroupName"),
            ("cache_cluster_notification_topic_arn", "/NotificationConfiguration/TopicArn"),
            ("cache_cluster_notification_topic_status", "/NotificationConfiguration/TopicStatus"),
        ],
    );
    let endpoint = plain_members(cluster.at("/ConfigurationEndpoint"), &[]);
    common.set_tags("cache_cluster_configuration_endpoint_", endpoint);
    for (i, delivery) in cluster.items("/LogDeliveryConfigurations").enumerate() {
        for (name, pointer) in [
            ("destination_type", "/DestinationType"),
            ("log_format", "/LogFormat"),
            ("log_type", "/LogType"),
            ("status", "/Status"),
            ("message", "/Message"),
            ("log_group", "/DestinationDetails/CloudWatchLogsDetails/LogGroup"),
            ("delivery_stream", "/DestinationDetails/KinesisFirehoseDetails/DeliveryStream"),
        ] {
            let label = format!("cache_cluster_log_delivery_configuration_{name}_{i}");
            common.set_some(&label, delivery.some(pointer));
        }
    }
    let pending = cluster.at("/PendingModifiedValues");
    common.set_tags("cache_cluster_pending_modified_values_", plain_members(pending, &[]));
    let removed = pending.texts("/CacheNodeIdsToRemove");
    if !removed.is_empty() {
        common.set("cache_cluster_pending_modified_values_cache_node_ids_to_remove", removed.join(","));
    }
    for (i, group) in cluster.items("/SecurityGroups").enumerate() {
        let prefix = "cache_cluster_security_group_membership";
        common.set_some(&format!("{prefix}_id_{i}"), group.some("/SecurityGroupId"));
        common.set_some(&format!("{prefix}_status_{i}"), group.some("/Status"));
    }
    common.set_tags("cache_cluster_tag_", own_tags);
    let target = |node: Fields<'_>| {
        let renamed = [
            ("CacheNodeId", "id"),
            ("CacheNodeStatus", "status"),
            ("CacheNodeCreateTime", "create_time"),
            ("CustomerAvailabilityZone", "availability_zone"),
        ];
        let mut meta = common.clone();
        meta.set_tags("cache_cluster_node_", plain_members(node, &renamed));
        meta.set_tags("cache_cluster_node_endpoint_", plain_members(node.at("/Endpoint"), &[]));
        match (node.some("/Endpoint/Address"), node.some("/Endpoint/Port")) {
            (Some(address), Some(port)) => meta.at(join_host_port(&address, port)),
            _ => meta.labels(),
        }
    };
    cluster.items("/CacheNodes").map(target).collect()
}

impl Refresher for ElasticacheDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let region = self.client.region().await?;
        let mut targets = Vec::new();
        for cache in self.serverless().await? {
            let own = self.tags(Fields(&cache)).await?;
            targets.push(serverless_target(Fields(&cache), own));
        }
        for cluster in self.clusters().await? {
            let own = self.tags(Fields(&cluster)).await?;
            targets.extend(cluster_targets(Fields(&cluster), own));
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets, labels: LabelMap::new() }])
    }
}
