//! Who runs the mechanisms? The manager: one provider for each distinct configuration however many sets use it,
//! restarted only when its configuration changes; updates are gathered and published at most once in an interval.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::refresh::RefreshMetrics;
use super::{Groups, Updates};
use crate::config::{SdConfig, SdConfigs};
use crate::model::clock::Clock;
use crate::model::target_group::TargetGroup;
use crate::telemetry::{Counter, Gauge, Registry};

/// Target groups by name of the set.
pub type TargetSets = BTreeMap<String, Vec<Arc<TargetGroup>>>;

/// How a manager behaves.
#[derive(Debug, Clone)]
pub struct DiscoveryOptions {
    /// `scrape` or `notify`, for metrics and logs.
    pub name: String,
    /// Least time between two publications, milliseconds.
    pub interval_ms: u64,
}

/// Equal configurations are in the same bucket; static ones, of which there can be thousands, mostly in one of their own.
fn bucket(config: &SdConfig) -> u64 {
    let mut hash = xxhash_rust::xxh3::Xxh3::new();
    hash.update(config.key().as_bytes());
    if let SdConfig::Static(entry) = config {
        let texts = entry.labels.0.iter().flat_map(|(name, value)| [name, value]);
        for text in entry.targets.iter().chain(texts) {
            hash.update(text.as_bytes());
            hash.update(&[0xff]);
        }
    }
    hash.digest()
}

struct Provider {
    config: SdConfig,
    groups: Arc<Mutex<Groups>>,
    cancel: CancellationToken,
    sets: Vec<String>,
}

pub(super) struct Inner {
    options: DiscoveryOptions,
    registry: Arc<Registry>,
    clock: Arc<dyn Clock>,
    providers: Mutex<Vec<Provider>>,
    set_names: Mutex<Vec<String>>,
    dirty: Arc<Notify>,
    publish: watch::Sender<Arc<TargetSets>>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    runtime: Handle,
    /// Watches of Kubernetes objects, shared by all sections.
    pub(super) kubernetes: Arc<super::kubernetes_watch::WatchPool>,
    failed_configs: Gauge,
    received: Counter,
    updates: Counter,
    delayed: Counter,
}

/// Runs mechanisms and publishes what they find.
pub struct DiscoveryManager(pub(super) Arc<Inner>);

impl DiscoveryManager {
    /// A manager without sets. Must be called inside a tokio runtime.
    #[must_use]
    pub fn new(options: DiscoveryOptions, registry: &Arc<Registry>, clock: Arc<dyn Clock>) -> Self {
        let labels = [("name", options.name.as_str())];
        let c = |name: &str, help: &str| registry.counter(name, help, &labels);
        let inner = Arc::new(Inner {
            failed_configs: registry.gauge(
                "prometheus_sd_failed_configs",
                "Current number of service discovery configurations that failed to load.",
                &labels,
            ),
            received: c(
                "prometheus_sd_received_updates_total",
                "Total number of update events received from the SD providers.",
            ),
            updates: c(
                "prometheus_sd_updates_total",
                "Total number of update events sent to the SD consumers.",
            ),
            delayed: c(
                "prometheus_sd_updates_delayed_total",
                "Total number of update events that couldn't be sent immediately.",
            ),
            options,
            registry: Arc::clone(registry),
            clock,
            providers: Mutex::default(),
            set_names: Mutex::default(),
            dirty: Arc::new(Notify::new()),
            publish: watch::Sender::new(Arc::default()),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
            kubernetes: super::kubernetes_watch::WatchPool::new(registry),
        });
        inner.tasks.spawn(publish(Arc::clone(&inner)));
        Self(inner)
    }

    /// What is published, now and later.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<TargetSets>> {
        let mut receiver = self.0.publish.subscribe();
        receiver.mark_changed();
        receiver
    }

    /// Runs exactly these sets from now on. Providers whose configuration stays go on undisturbed.
    pub fn apply(&self, sets: BTreeMap<String, SdConfigs>) {
        let inner = &self.0;
        let mut providers = inner.providers.lock();
        for provider in providers.iter_mut() {
            provider.sets.clear();
        }
        let mut by_bucket: HashMap<u64, Vec<usize>> = HashMap::new();
        for (at, provider) in providers.iter().enumerate() {
            by_bucket.entry(bucket(&provider.config)).or_default().push(at);
        }
        let mut failed = 0;
        for (set, configs) in &sets {
            for (i, config) in configs.0.iter().enumerate() {
                // Entries of `static_configs` differ by their place, which is their source.
                let alike = by_bucket.entry(bucket(config)).or_default();
                if let Some(same) = alike.iter().find(|at| providers[**at].config == *config) {
                    let sets = &mut providers[*same].sets;
                    if !sets.contains(set) {
                        sets.push(set.clone());
                    }
                    continue;
                }
                alike.push(providers.len());
                let groups = Arc::new(Mutex::new(Groups::default()));
                let cancel = inner.shutdown.child_token();
                let updates = Updates {
                    groups: Arc::clone(&groups),
                    dirty: Arc::clone(&inner.dirty),
                    clock: Arc::clone(&inner.clock),
                };
                if let Err(error) = inner.start(config, set, i, updates, cancel.clone()) {
                    failed += 1;
                    tracing::error!(mechanism = config.key(), set, error, "cannot create service discovery");
                }
                providers.push(Provider { config: config.clone(), groups, cancel, sets: vec![set.clone()] });
            }
        }
        inner.failed_configs.set(f64::from(failed));
        providers.retain(|provider| {
            let used = !provider.sets.is_empty();
            if !used {
                provider.cancel.cancel();
            }
            used
        });
        let old = std::mem::replace(&mut *inner.set_names.lock(), sets.keys().cloned().collect());
        for gone in old.iter().filter(|name| !sets.contains_key(*name)) {
            let labels = [("name", inner.options.name.as_str()), ("config", gone.as_str())];
            inner.registry.remove("prometheus_sd_discovered_targets", &labels);
        }
        drop(providers);
        inner.dirty.notify_one();
    }

    /// Stops all mechanisms.
    pub async fn stop(&self) {
        self.0.shutdown.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }
}

impl Inner {
    fn start(
        &self,
        config: &SdConfig,
        set: &str,
        index: usize,
        updates: Updates,
        cancel: CancellationToken,
    ) -> Result<(), String> {
        use super::serverset::{MemberDiscovery, MemberKind};
        let tasks = (&self.tasks, &self.runtime);
        // Runs a mechanism that asks at intervals.
        macro_rules! ask {
            ($name:literal, $config:ident, $discovery:expr) => {{
                let metrics = RefreshMetrics::new(&self.registry, $name, set);
                let interval = $config.refresh_interval.as_std();
                let run = super::refresh::run($discovery, $name, interval, metrics, updates, cancel);
                tasks.0.spawn_on(run, tasks.1);
            }};
        }
        // Runs a mechanism that listens.
        macro_rules! follow {
            ($discovery:expr) => {{
                tasks.0.spawn_on($discovery.run(updates, cancel), tasks.1);
            }};
        }
        let registry = &self.registry;
        match config {
            SdConfig::Static(c) => updates.replace(vec![c.to_group(index)]),
            SdConfig::File(c) => follow!(super::file::FileDiscovery::new(c, registry)),
            SdConfig::Http(c) => ask!("http", c, super::http::HttpDiscovery::new(c, registry)?),
            SdConfig::Dns(c) => ask!("dns", c, super::dns::DnsDiscovery::new(c, registry)),
            SdConfig::Consul(c) => follow!(super::consul::ConsulDiscovery::new(c, registry)),
            SdConfig::Kubernetes(c) => {
                follow!(super::kubernetes::KubernetesDiscovery::new(c, &self.kubernetes)?)
            }
            SdConfig::Docker(c) => ask!("docker", c, super::docker::DockerDiscovery::new(c)?),
            SdConfig::DockerSwarm(c) => ask!("dockerswarm", c, super::swarm::SwarmDiscovery::new(c)?),
            SdConfig::Ec2(c) => ask!("ec2", c, super::ec2::Ec2Discovery::new(c)?),
            SdConfig::Lightsail(c) => ask!("lightsail", c, super::ec2::LightsailDiscovery::new(c)?),
            SdConfig::Ecs(c) => ask!("ecs", c, super::ecs::EcsDiscovery::new(c)?),
            SdConfig::Msk(c) => ask!("msk", c, super::msk::MskDiscovery::new(c)?),
            SdConfig::Rds(c) => ask!("rds", c, super::rds::RdsDiscovery::new(c)?),
            SdConfig::Elasticache(c) => {
                ask!("elasticache", c, super::elasticache::ElasticacheDiscovery::new(c)?);
            }
            SdConfig::Stackit(c) => ask!("stackit", c, super::stackit::StackitDiscovery::new(c)?),
            SdConfig::Aws(c) => match c.of_role() {
                Some(role) => return self.start(&role, set, index, updates, cancel),
                None => return Err(format!("aws_sd_configs: role {:?} is not implemented", c.role)),
            },
            SdConfig::Azure(c) => ask!("azure", c, super::azure::AzureDiscovery::new(c, registry)?),
            SdConfig::Gce(c) => ask!("gce", c, super::gce::GceDiscovery::new(c)?),
            SdConfig::Openstack(c) => ask!("openstack", c, super::openstack::OpenstackDiscovery::new(c)?),
            SdConfig::Nomad(c) => ask!("nomad", c, super::nomad::NomadDiscovery::new(c)?),
            SdConfig::DigitalOcean(c) => {
                let base = "https://api.digitalocean.com";
                ask!("digitalocean", c, super::digitalocean::DigitalOceanDiscovery::new(c, base)?);
            }
            SdConfig::Hetzner(c) => ask!("hetzner", c, super::hetzner::HetznerDiscovery::new(c)?),
            SdConfig::Linode(c) => {
                ask!("linode", c, super::linode::LinodeDiscovery::new(c, "https://api.linode.com")?);
            }
            SdConfig::Eureka(c) => ask!("eureka", c, super::eureka::EurekaDiscovery::new(c)?),
            SdConfig::PuppetDb(c) => ask!("puppetdb", c, super::puppetdb::PuppetDbDiscovery::new(c)?),
            SdConfig::Marathon(c) => ask!("marathon", c, super::marathon::MarathonDiscovery::new(c)?),
            SdConfig::Serverset(c) => follow!(MemberDiscovery {
                kind: MemberKind::Serverset,
                servers: c.servers.clone(),
                paths: c.paths.clone(),
                timeout: c.timeout.as_std(),
            }),
            SdConfig::Nerve(c) => follow!(MemberDiscovery {
                kind: MemberKind::Nerve,
                servers: c.servers.clone(),
                paths: c.paths.clone(),
                timeout: c.timeout.as_std(),
            }),
            SdConfig::Triton(c) => ask!("triton", c, super::triton::TritonDiscovery::new(c)?),
            SdConfig::Vultr(c) => {
                ask!("vultr", c, super::vultr::VultrDiscovery::new(c, "https://api.vultr.com")?);
            }
            SdConfig::Scaleway(c) => ask!("scaleway", c, super::scaleway::ScalewayDiscovery::new(c)?),
            SdConfig::Uyuni(c) => ask!("uyuni", c, super::uyuni::UyuniDiscovery::new(c)?),
            SdConfig::Ionos(c) => ask!("ionos", c, super::ionos::IonosDiscovery::new(c)?),
            SdConfig::Ovhcloud(c) => ask!("ovhcloud", c, super::ovhcloud::OvhcloudDiscovery::new(c)?),
            SdConfig::Kuma(c) => ask!("kuma", c, super::kuma::KumaDiscovery::new(c)?),
            SdConfig::Outscale(c) => ask!("outscale", c, super::outscale::OutscaleDiscovery::new(c)?),
            other => {
                updates.replace(Vec::new());
                return Err(format!("{} is not implemented in this version", other.key()));
            }
        }
        Ok(())
    }

    /// All sets as they are now; sets none of whose providers has spoken are left out.
    fn gather(&self) -> TargetSets {
        let providers = self.providers.lock();
        let names = self.set_names.lock().clone();
        let mut by_set: HashMap<&str, Vec<&Provider>> = HashMap::new();
        for provider in providers.iter() {
            for set in &provider.sets {
                by_set.entry(set).or_default().push(provider);
            }
        }
        let mut sets: TargetSets = BTreeMap::new();
        for name in names {
            let mut groups = Vec::new();
            let mut ready = true;
            let mut has_provider = false;
            for provider in by_set.get(name.as_str()).into_iter().flatten() {
                has_provider = true;
                let own = provider.groups.lock();
                ready &= own.ready;
                groups.extend(own.by_source.values().cloned());
            }
            let count: usize = groups.iter().map(|g| g.targets.len()).sum();
            let labels = [("name", self.options.name.as_str()), ("config", name.as_str())];
            self.registry
                .gauge("prometheus_sd_discovered_targets", "Current number of discovered targets.", &labels)
                .set(count as f64);
            // Half of the answer is better than none, but an empty one may only mean that nobody has answered.
            if ready || !groups.is_empty() || !has_provider {
                sets.insert(name, groups);
            }
        }
        sets
    }
}

/// Publishes when something changed: at once, then at most once in an interval.
async fn publish(inner: Arc<Inner>) {
    let interval = Duration::from_millis(inner.options.interval_ms);
    // The first updates of a start or reload come in quick succession and should not wait for each other.
    let mut quick = 3u32;
    loop {
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            () = inner.dirty.notified() => {}
        }
        inner.received.inc();
        let sets = Arc::new(inner.gather());
        inner.publish.send_replace(sets);
        inner.updates.inc();
        let pause = if quick > 0 { interval.min(Duration::from_millis(100)) } else { interval };
        quick = quick.saturating_sub(1);
        if quick == 0 {
            inner.delayed.inc();
        }
        tokio::select! {
            () = inner.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}
