//! Where do alerts go? Alertmanagers are discovered like targets; what is found feeds the notifier.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::alert::alertmanager::AlertmanagerSection;
use crate::alert::silences::SilenceDoor;
use crate::alert::{AlertmanagerNotifier, NotifierOptions};
use crate::config::Config;
use crate::model::Labels;
use crate::model::clock::Clock;
use crate::model::target_group::TargetGroup;
use crate::scrape::discovery::{DiscoveryManager, DiscoveryOptions, TargetSets};
use crate::telemetry::Registry;

/// Delivery of alerts.
pub struct AlertDelivery {
    /// Queues and sends.
    pub notifier: Arc<AlertmanagerNotifier>,
    discovery: DiscoveryManager,
    /// By name of their discovery set.
    sections: Mutex<BTreeMap<String, AlertmanagerSection>>,
    dropped: Mutex<Vec<String>>,
    registry: Arc<Registry>,
    /// By URL of the active Alertmanagers.
    silences: Mutex<BTreeMap<String, SilenceDoor>>,
}

impl AlertDelivery {
    /// Delivery without Alertmanagers. Must be called inside a tokio runtime.
    pub fn start(
        options: NotifierOptions,
        discovery_interval_ms: u64,
        registry: &Arc<Registry>,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        let discovery_options =
            DiscoveryOptions { name: "notify".into(), interval_ms: discovery_interval_ms };
        let delivery = Arc::new(Self {
            notifier: AlertmanagerNotifier::new(options, registry),
            discovery: DiscoveryManager::new(discovery_options, registry, clock),
            sections: Mutex::default(),
            dropped: Mutex::default(),
            registry: Arc::clone(registry),
            silences: Mutex::default(),
        });
        let mut updates = delivery.discovery.subscribe();
        let weak = Arc::downgrade(&delivery);
        tokio::spawn(async move {
            while updates.changed().await.is_ok() {
                let Some(delivery) = weak.upgrade() else { return };
                let sets = Arc::clone(&updates.borrow_and_update());
                delivery.take(&sets);
            }
        });
        delivery
    }

    fn take(&self, sets: &TargetSets) {
        let sections = self.sections.lock();
        let (mut active, mut dropped) = (Vec::new(), Vec::new());
        let mut silences = BTreeMap::new();
        for (name, section) in sections.iter() {
            let groups: Vec<TargetGroup> =
                sets.get(name).into_iter().flatten().map(|group| (**group).clone()).collect();
            let mut resolved = section.resolve(&groups);
            dropped.append(&mut resolved.dropped);
            silences.extend(resolved.set.urls.iter().map(|url| (url.clone(), section.silences(url))));
            active.push(resolved.set);
        }
        self.notifier.set_alertmanagers(&active);
        *self.dropped.lock() = dropped;
        *self.silences.lock() = silences;
    }

    /// Takes over a configuration.
    pub fn apply(&self, config: &Config) -> Result<(), String> {
        let mut sections = BTreeMap::new();
        let mut sets = BTreeMap::new();
        for (i, section) in config.alerting.alertmanagers.iter().enumerate() {
            let name = format!("config-{i}");
            let made = AlertmanagerSection::new(section, &self.registry)
                .map_err(|e| format!("alertmanager {i}: {e}"))?;
            sections.insert(name.clone(), made);
            sets.insert(name, section.sd.clone());
        }
        let external = Labels::from_pairs(&config.global.external_labels.0);
        self.notifier.set_rewriting(external, Arc::from(config.alerting.alert_relabel_configs.clone()));
        *self.sections.lock() = sections;
        self.discovery.apply(sets);
        let current = Arc::clone(&self.discovery.subscribe().borrow());
        self.take(&current);
        Ok(())
    }

    /// URLs of the active and of the dropped Alertmanagers.
    #[must_use]
    pub fn urls(&self) -> (Vec<String>, Vec<String>) {
        (self.notifier.urls(), self.dropped.lock().clone())
    }

    /// The silences of an active Alertmanager.
    #[must_use]
    pub fn silences(&self, url: &str) -> Option<SilenceDoor> {
        self.silences.lock().get(url).cloned()
    }

    /// Stops discovery and sends what waits, as far as the options say.
    pub async fn stop(&self, deadline: Duration) {
        self.discovery.stop().await;
        self.notifier.stop(deadline).await;
    }
}
