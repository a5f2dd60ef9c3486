//! Where do targets come from? Every discovery mechanism of Prometheus as a typed section with its checks,
//! whether or not this server implements it.

/// Services of AWS.
pub mod aws;
/// Files, HTTP endpoints, DNS names and lists in the configuration itself.
pub mod basic;
/// Other cloud providers.
pub mod cloud;
/// Cluster managers and registries.
pub mod cluster;
/// Label selectors of Kubernetes.
mod selector;

pub use basic::{DnsSdConfig, FileSdConfig, HttpSdConfig, StaticConfig};

use aws::*;
use cloud::*;
use cluster::*;

use super::yaml::{Context, FromYaml, Node, Section, ToYaml, Value};

macro_rules! mechanisms {
    ($( $key:literal => $variant:ident($ty:ty) ),* $(,)?) => {
        /// One entry of a discovery section. A `static_configs` list counts as one entry for each of its items.
        #[derive(Debug, Clone, PartialEq)]
        pub enum SdConfig {
            $(
                #[doc = concat!("An item of `", $key, "`.")]
                $variant(Box<$ty>),
            )*
        }

        impl SdConfig {
            /// The key of the section in a job, such as `file_sd_configs`.
            #[must_use]
            pub fn key(&self) -> &'static str {
                match self { $( Self::$variant(_) => $key, )* }
            }

            fn value(&self) -> Value {
                match self { $( Self::$variant(config) => config.to_value(), )* }
            }
        }

        const KEYS: &[&str] = &[$( $key ),*];

        fn decode(key: &str, node: &Node, cx: &mut Context) -> Option<SdConfig> {
            match key {
                $( $key => <$ty>::from_yaml(node, cx).map(|c| SdConfig::$variant(Box::new(c))), )*
                _ => None,
            }
        }
    };
}

mechanisms! {
    "aws_sd_configs" => Aws(AwsSdConfig),
    "azure_sd_configs" => Azure(AzureSdConfig),
    "consul_sd_configs" => Consul(ConsulSdConfig),
    "digitalocean_sd_configs" => DigitalOcean(DigitalOceanSdConfig),
    "dns_sd_configs" => Dns(DnsSdConfig),
    "docker_sd_configs" => Docker(DockerSdConfig),
    "dockerswarm_sd_configs" => DockerSwarm(DockerSwarmSdConfig),
    "ec2_sd_configs" => Ec2(Ec2SdConfig),
    "ecs_sd_configs" => Ecs(EcsSdConfig),
    "elasticache_sd_configs" => Elasticache(ElasticacheSdConfig),
    "eureka_sd_configs" => Eureka(EurekaSdConfig),
    "file_sd_configs" => File(FileSdConfig),
    "gce_sd_configs" => Gce(GceSdConfig),
    "hetzner_sd_configs" => Hetzner(HetznerSdConfig),
    "http_sd_configs" => Http(HttpSdConfig),
    "ionos_sd_configs" => Ionos(IonosSdConfig),
    "kubernetes_sd_configs" => Kubernetes(KubernetesSdConfig),
    "kuma_sd_configs" => Kuma(KumaSdConfig),
    "lightsail_sd_configs" => Lightsail(LightsailSdConfig),
    "linode_sd_configs" => Linode(LinodeSdConfig),
    "marathon_sd_configs" => Marathon(MarathonSdConfig),
    "msk_sd_configs" => Msk(MskSdConfig),
    "nerve_sd_configs" => Nerve(NerveSdConfig),
    "nomad_sd_configs" => Nomad(NomadSdConfig),
    "oci_sd_configs" => Oci(OciSdConfig),
    "openstack_sd_configs" => Openstack(OpenstackSdConfig),
    "outscale_sd_configs" => Outscale(OutscaleSdConfig),
    "ovhcloud_sd_configs" => Ovhcloud(OvhcloudSdConfig),
    "puppetdb_sd_configs" => PuppetDb(PuppetDbSdConfig),
    "rds_sd_configs" => Rds(RdsSdConfig),
    "scaleway_sd_configs" => Scaleway(ScalewaySdConfig),
    "serverset_sd_configs" => Serverset(ServersetSdConfig),
    "stackit_sd_configs" => Stackit(StackitSdConfig),
    "static_configs" => Static(StaticConfig),
    "triton_sd_configs" => Triton(TritonSdConfig),
    "uyuni_sd_configs" => Uyuni(UyuniSdConfig),
    "vultr_sd_configs" => Vultr(VultrSdConfig),
}

/// Names of all mechanisms, such as `file`, but for lists in the configuration itself.
#[must_use]
pub fn mechanisms() -> Vec<&'static str> {
    KEYS.iter().filter_map(|key| key.strip_suffix("_sd_configs")).collect()
}

/// All discovery sections of a job or Alertmanager, in order of their keys.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SdConfigs(pub Vec<SdConfig>);

impl Section for SdConfigs {
    const NAME: &'static str = "service discovery";

    fn keys(out: &mut Vec<&'static str>) {
        out.extend(KEYS);
    }

    fn set(&mut self, key: &str, node: &Node, cx: &mut Context) -> bool {
        if !KEYS.contains(&key) {
            return false;
        }
        if !node.is_null() && !matches!(node.kind, super::yaml::NodeKind::Sequence(_)) {
            cx.mismatch(node, "list");
        }
        for item in node.items() {
            if item.is_null() {
                cx.error(item.at, format!("empty or null section in {key}"));
            } else if let Some(config) = decode(key, item, cx) {
                self.0.push(config);
            }
        }
        true
    }

    fn check(&mut self, _node: &Node, _cx: &mut Context) {
        // One order whatever the file has, so that equal configurations compare as equal.
        self.0.sort_by_key(SdConfig::key);
    }

    fn fields(&self, out: &mut Vec<(String, Value)>) {
        for key in KEYS {
            let items: Vec<Value> = self.0.iter().filter(|c| c.key() == *key).map(SdConfig::value).collect();
            if !items.is_empty() {
                out.push(((*key).to_owned(), Value::List(items)));
            }
        }
    }
}

impl ToYaml for SdConfigs {
    fn to_value(&self) -> Value {
        let mut out = Vec::new();
        self.fields(&mut out);
        Value::Map(out)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl SdConfigs {
    /// The static entries.
    pub fn statics(&self) -> impl Iterator<Item = &StaticConfig> {
        self.0.iter().filter_map(|c| match c {
            SdConfig::Static(config) => Some(&**config),
            _ => None,
        })
    }

    /// Notes static targets that are URLs instead of addresses.
    pub(super) fn check_static_targets(&self, parent: &Node, cx: &mut Context) {
        let entries = parent.get("static_configs").map_or(&[][..], Node::items);
        for target in entries.iter().filter_map(|e| e.get("targets")).flat_map(Node::items) {
            if let Some(text) = target.text()
                && text.contains('/')
            {
                cx.error(target.at, format!("{text:?} is not a valid hostname"));
            }
        }
    }
}
