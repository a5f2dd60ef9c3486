//! Remote read in both directions: this server is asked ([`server`]), and it asks others ([`client`]), whose samples
//! are merged into queries by [`Fanout`]. The messages are in [`messages`].

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::config::Config;
use crate::config::yaml::ToYaml as _;
use crate::model::Labels;
use crate::telemetry::Registry;
use crate::tsdb::merge::MergedQuerier;
use crate::tsdb::{Changes, Querier, Queryable, StorageError};

/// Asking others.
pub mod client;
/// Messages.
pub mod messages;
/// Being asked.
pub mod server;

use client::{RemoteQuerier, RemoteReader};

/// From when on local storage has everything.
pub trait LocalStart: Send + Sync {
    /// The time in milliseconds; the greatest one if there is nothing.
    fn local_from_ms(&self) -> i64;
}

/// Local storage and the servers of `remote_read` as one.
pub struct Fanout {
    local: Arc<dyn Queryable>,
    start: Arc<dyn LocalStart>,
    registry: Arc<Registry>,
    readers: ArcSwap<Vec<Arc<RemoteReader>>>,
}

impl Fanout {
    /// Local storage alone at first.
    #[must_use]
    pub fn new(local: Arc<dyn Queryable>, start: Arc<dyn LocalStart>, registry: &Arc<Registry>) -> Arc<Self> {
        let readers = ArcSwap::default();
        Arc::new(Self { local, start, registry: Arc::clone(registry), readers })
    }

    /// Takes over a configuration. The error names the sections that cannot be used; the others are.
    pub fn apply(&self, config: &Config, runtime: &tokio::runtime::Handle) -> Result<(), String> {
        let external = Labels::from_pairs(&config.global.external_labels.0);
        let (mut readers, mut errors) = (Vec::new(), Vec::new());
        for section in &config.remote_read {
            let name = match section.name.as_str() {
                "" => super::send::short_hash(&section.to_value().print()),
                name => name.to_owned(),
            };
            match RemoteReader::new(section, &external, name, &self.registry, runtime.clone()) {
                Ok(reader) => readers.push(Arc::new(reader)),
                Err(e) => errors.push(format!("remote_read from {}: {e}", section.url)),
            }
        }
        self.readers.store(Arc::new(readers));
        if errors.is_empty() { Ok(()) } else { Err(errors.join("; ")) }
    }
}

impl Queryable for Fanout {
    fn changes(&self) -> Option<Arc<Changes>> {
        // What changes elsewhere cannot be known.
        if self.readers.load().is_empty() { self.local.changes() } else { None }
    }

    fn querier(&self, min_t_ms: i64, max_t_ms: i64) -> Result<Box<dyn Querier>, StorageError> {
        let local = self.local.querier(min_t_ms, max_t_ms)?;
        let readers = self.readers.load();
        if readers.is_empty() {
            return Ok(local);
        }
        let local_from_ms = self.start.local_from_ms();
        let mut sources: Vec<Box<dyn Querier>> = Vec::new();
        for reader in readers.iter() {
            if let Some((min_t_ms, max_t_ms)) = reader.range(min_t_ms, max_t_ms, local_from_ms) {
                let reader = Arc::clone(reader);
                sources.push(Box::new(RemoteQuerier { reader, min_t_ms, max_t_ms }));
            }
        }
        if sources.is_empty() {
            return Ok(local);
        }
        // The last one is preferred where two have a sample of the same time.
        sources.push(local);
        Ok(Box::new(MergedQuerier::new(sources)))
    }
}
