//! Mechanisms of AWS: one section for each service, and one that names the service as its role.

use super::cloud::check_word;
use crate::config::http::HttpClientConfig;
use crate::config::values::{PromDuration, Secret};
use crate::config::yaml::section::section;
use crate::config::yaml::{Context, Node};

section! {
    /// A filter of AWS.
    pub struct Ec2Filter("filters") {
        /// Name.
        name: String; always,
        /// Values of which one must fit.
        values: Vec<String>; always,
    }
}

fn check_filters(filters: &[Ec2Filter], node: &Node, cx: &mut Context) {
    let items = node.get("filters").map_or(&[][..], Node::items);
    for (filter, item) in filters.iter().zip(items) {
        if filter.values.is_empty() {
            cx.error(item.at, "EC2 SD configuration filter values cannot be empty");
        }
    }
}

/// A section of a service: where it is, whose credentials ask it, and what else it has.
macro_rules! service {
    ($(#[$doc:meta])* pub struct $name:ident($label:literal) $(check $check:ident)? { $($rest:tt)* }) => {
        section! {
            $(#[$doc])*
            pub struct $name($label) $(check $check)? {
                /// Region; found out when empty.
                region: String; always,
                /// Address of the API; that of the region when empty.
                endpoint: String; always,
                /// Access key.
                access_key: String,
                /// Secret key.
                secret_key: Secret,
                /// Profile of the shared credentials.
                profile: String,
                /// Role to assume.
                role_arn: String,
                /// External identity for assuming the role.
                external_id: String,
                $($rest)*
            }
        }
    };
}

service! {
    /// An item of `ec2_sd_configs`.
    pub struct Ec2SdConfig("ec2_sd_config") check check_ec2 {
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Filters.
        filters: Vec<Ec2Filter>,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_ec2(config: &mut Ec2SdConfig, node: &Node, cx: &mut Context) {
    check_filters(&config.filters, node, cx);
}

service! {
    /// An item of `aws_sd_configs`.
    pub struct AwsSdConfig("aws_sd_config") check check_aws {
        /// `ec2`, `ecs`, `elasticache`, `lightsail`, `msk` or `rds`.
        role: String; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets; that of the role when 0.
        port: u16,
        /// Filters.
        filters: Vec<Ec2Filter>,
        /// Clusters; all when empty.
        clusters: Vec<String>,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_aws(config: &mut AwsSdConfig, node: &Node, cx: &mut Context) {
    let known = ["ec2", "ecs", "elasticache", "lightsail", "msk", "rds"];
    check_word(&config.role, &known, "role", &format!("unknown AWS SD role {:?}", config.role), node, cx);
    check_filters(&config.filters, node, cx);
}

/// Copies the fields that all AWS sections have.
macro_rules! of_role {
    ($from:expr, $kind:ident { $($field:ident),* }) => {{
        let mut out = $kind {
            region: $from.region.clone(),
            endpoint: $from.endpoint.clone(),
            access_key: $from.access_key.clone(),
            secret_key: $from.secret_key.clone(),
            profile: $from.profile.clone(),
            role_arn: $from.role_arn.clone(),
            external_id: $from.external_id.clone(),
            refresh_interval: $from.refresh_interval,
            http: $from.http.clone(),
            $($field: $from.$field.clone(),)*
            ..$kind::default()
        };
        if $from.port != 0 {
            out.port = $from.port;
        }
        Box::new(out)
    }};
}

impl AwsSdConfig {
    /// The section of the role's own that means the same; none for a role that does not exist.
    #[must_use]
    pub fn of_role(&self) -> Option<super::SdConfig> {
        use super::SdConfig;
        Some(match self.role.as_str() {
            "ec2" => SdConfig::Ec2(of_role!(self, Ec2SdConfig { filters })),
            "ecs" => SdConfig::Ecs(of_role!(self, EcsSdConfig { clusters })),
            "lightsail" => SdConfig::Lightsail(of_role!(self, LightsailSdConfig {})),
            "msk" => SdConfig::Msk(of_role!(self, MskSdConfig { clusters })),
            "rds" => SdConfig::Rds(of_role!(self, RdsSdConfig { clusters, filters })),
            "elasticache" => SdConfig::Elasticache(of_role!(self, ElasticacheSdConfig { clusters })),
            _ => return None,
        })
    }
}

service! {
    /// An item of `ecs_sd_configs`.
    pub struct EcsSdConfig("ecs_sd_config") {
        /// Clusters; all when empty.
        clusters: Vec<String>,
        /// Port of targets.
        port: u16 = 80; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Most requests at once.
        request_concurrency: i64 = 20,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

service! {
    /// An item of `lightsail_sd_configs`.
    pub struct LightsailSdConfig("lightsail_sd_config") {
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

service! {
    /// An item of `msk_sd_configs`.
    pub struct MskSdConfig("msk_sd_config") {
        /// Clusters; all when empty.
        clusters: Vec<String>,
        /// Port of targets.
        port: u16 = 80; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Most requests at once.
        request_concurrency: i64 = 10,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

service! {
    /// An item of `elasticache_sd_configs`.
    pub struct ElasticacheSdConfig("elasticache_sd_config") {
        /// Clusters; all when empty.
        clusters: Vec<String>,
        /// Port of targets.
        port: u16 = 80; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Most requests at once.
        request_concurrency: i64 = 10,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

service! {
    /// An item of `rds_sd_configs`.
    pub struct RdsSdConfig("rds_sd_config") {
        /// Clusters; all when empty.
        clusters: Vec<String>,
        /// Port of targets.
        port: u16 = 80; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Filters of instances.
        filters: Vec<Ec2Filter>,
        /// Most requests at once.
        request_concurrency: i64 = 10,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}
