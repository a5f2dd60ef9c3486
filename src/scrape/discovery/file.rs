//! Targets from files, JSON or YAML, read again when they change. A file that cannot be read or parsed keeps its
//! last good targets.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::Watcher as _;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Updates;
use crate::config::{FilePath, FileSdConfig, expand_pattern};
use crate::model::target_group::TargetGroup;
use crate::telemetry::{Counter, Gauge, Registry};

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 256 << 20;
/// Changes that come within this time are read together.
const SETTLE: Duration = Duration::from_millis(50);

/// A group as files and HTTP endpoints write it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenGroup {
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

fn to_groups(
    written: Vec<Option<WrittenGroup>>,
    source: &str,
    extra: &[(String, String)],
) -> Result<Vec<TargetGroup>, String> {
    let mut out = Vec::with_capacity(written.len());
    for (i, group) in written.into_iter().enumerate() {
        let Some(WrittenGroup { targets, mut labels }) = group else {
            return Err(format!("nil target group item found (index {i})"));
        };
        if let Some(name) = labels.keys().find(|name| name.is_empty()) {
            return Err(format!("{name:?} is not a valid label name"));
        }
        labels.extend(extra.iter().cloned());
        let targets =
            targets.into_iter().map(|t| std::iter::once(("__address__".to_owned(), t)).collect()).collect();
        out.push(TargetGroup { source: format!("{source}:{i}"), targets, labels });
    }
    Ok(out)
}

/// The groups of a JSON list.
pub(super) fn parse_json_groups(
    text: &[u8],
    source: &str,
    extra: &[(String, String)],
) -> Result<Vec<TargetGroup>, String> {
    let written: Vec<Option<WrittenGroup>> =
        serde_json::from_slice(text).map_err(|e| format!("cannot decode target groups: {e}"))?;
    to_groups(written, source, extra)
}

fn read_groups(path: &Path) -> Result<Vec<TargetGroup>, String> {
    let size = std::fs::metadata(path).map_err(|e| e.to_string())?.len();
    if size > MAX_FILE {
        return Err(format!("the file has {size} bytes, more than the limit of {MAX_FILE}"));
    }
    let text = std::fs::read(path).map_err(|e| e.to_string())?;
    let source = path.display().to_string();
    let extra = [("__meta_filepath".to_owned(), source.clone())];
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
    if extension.eq_ignore_ascii_case("json") {
        return parse_json_groups(&text, &source, &extra);
    }
    let text = std::str::from_utf8(&text).map_err(|e| e.to_string())?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let written: Option<Vec<Option<WrittenGroup>>> =
        serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    to_groups(written.unwrap_or_default(), &source, &extra)
}

pub(super) struct FileDiscovery {
    patterns: Vec<FilePath>,
    interval: Duration,
    read_errors: Counter,
    watcher_errors: Counter,
    registry: Arc<Registry>,
    /// Sources that each file gave last time.
    known: BTreeMap<PathBuf, BTreeSet<String>>,
    /// When each file changed last.
    times: HashMap<PathBuf, Gauge>,
}

impl FileDiscovery {
    pub(super) fn new(config: &FileSdConfig, registry: &Arc<Registry>) -> Self {
        Self {
            patterns: config.files.clone(),
            interval: config.refresh_interval.as_std().max(Duration::from_millis(10)),
            read_errors: registry.counter(
                "prometheus_sd_file_read_errors_total",
                "The number of File-SD read errors.",
                &[],
            ),
            watcher_errors: registry.counter(
                "prometheus_sd_file_watcher_errors_total",
                "The number of File-SD errors caused by filesystem watch failures.",
                &[],
            ),
            registry: Arc::clone(registry),
            known: BTreeMap::new(),
            times: HashMap::new(),
        }
    }

    /// Watches the folders of the files: editors and configuration tools replace files, which ends a watch on the
    /// file itself.
    fn watch(&self, changes: mpsc::Sender<()>) -> Option<notify::RecommendedWatcher> {
        let on_event = move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|e| !e.kind.is_access()) {
                // A full channel already holds the news.
                let _ = changes.try_send(());
            }
        };
        let mut watcher = match notify::recommended_watcher(on_event) {
            Ok(watcher) => watcher,
            Err(error) => {
                self.watcher_errors.inc();
                tracing::warn!(%error, "files of service discovery cannot be watched, they are read at intervals");
                return None;
            }
        };
        let folders: BTreeSet<&Path> = self
            .patterns
            .iter()
            .map(|p| p.as_path().parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .collect();
        for folder in folders {
            if let Err(error) = watcher.watch(folder, notify::RecursiveMode::NonRecursive) {
                self.watcher_errors.inc();
                tracing::warn!(%error, folder = %folder.display(), "folder cannot be watched");
            }
        }
        Some(watcher)
    }

    /// Reads all files.
    fn read(&mut self) -> Vec<TargetGroup> {
        let mut out = Vec::new();
        let paths: BTreeSet<PathBuf> =
            self.patterns.iter().flat_map(|p| expand_pattern(&p.0)).map(PathBuf::from).collect();
        let gone: Vec<PathBuf> = self.known.keys().filter(|p| !paths.contains(*p)).cloned().collect();
        for path in gone {
            for source in self.known.remove(&path).unwrap_or_default() {
                out.push(TargetGroup { source, ..TargetGroup::default() });
            }
            self.forget_time(&path);
        }
        for path in paths {
            match read_groups(&path) {
                Ok(groups) => {
                    let sources: BTreeSet<String> = groups.iter().map(|g| g.source.clone()).collect();
                    let before = self.known.insert(path.clone(), sources.clone()).unwrap_or_default();
                    for source in before.difference(&sources) {
                        out.push(TargetGroup { source: source.clone(), ..TargetGroup::default() });
                    }
                    out.extend(groups);
                    self.note_time(&path);
                }
                Err(error) => {
                    self.read_errors.inc();
                    tracing::error!(path = %path.display(), error, "error reading file of service discovery");
                }
            }
        }
        out
    }

    fn note_time(&mut self, path: &Path) {
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok();
        let seconds = modified.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok());
        let Some(seconds) = seconds.map(|d| d.as_secs_f64()) else { return };
        let registry = &self.registry;
        let gauge = self.times.entry(path.to_owned()).or_insert_with(|| {
            let filename = path.display().to_string();
            registry.gauge(
                "prometheus_sd_file_mtime_seconds",
                "Timestamp (mtime) of files read by FileSD. Timestamp is set at read time.",
                &[("filename", &filename)],
            )
        });
        gauge.set(seconds);
    }

    fn forget_time(&mut self, path: &Path) {
        if self.times.remove(path).is_some() {
            let filename = path.display().to_string();
            self.registry.remove("prometheus_sd_file_mtime_seconds", &[("filename", &filename)]);
        }
    }

    pub(super) async fn run(mut self, updates: Updates, cancel: CancellationToken) {
        let (sender, mut changes) = mpsc::channel(1);
        let _watcher = self.watch(sender.clone());
        let mut ticker = tokio::time::interval(self.interval);
        ticker.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticker.tick() => {}
                _ = changes.recv() => tokio::time::sleep(SETTLE).await,
            }
            let _ = changes.try_recv();
            let read = tokio::task::spawn_blocking(move || {
                let groups = self.read();
                (self, groups)
            });
            let Ok((this, groups)) = read.await else { return };
            self = this;
            updates.patch(groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_give_groups_and_bad_ones_keep_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yml");
        let pattern = FilePath(dir.path().join("*.yml").display().to_string());
        let config = FileSdConfig { files: vec![pattern], ..FileSdConfig::default() };
        let registry = Registry::new();
        let mut discovery = FileDiscovery::new(&config, &registry);
        std::fs::write(&path, "- targets: ['a:1', 'b:2']\n  labels: {env: x}\n- targets: ['c:3']\n").unwrap();
        let groups = discovery.read();
        assert_eq!(groups.len(), 2);
        assert_eq!(groups[0].targets[1]["__address__"], "b:2");
        assert_eq!(groups[0].labels["env"], "x");
        assert_eq!(groups[0].labels["__meta_filepath"], path.display().to_string());
        std::fs::write(&path, "- targets: ['a:1'").unwrap();
        assert_eq!(discovery.read(), []);
        assert_eq!(discovery.read_errors.get(), 1.0);
        std::fs::write(&path, "- targets: ['a:1']\n").unwrap();
        let groups = discovery.read();
        assert_eq!((groups[0].targets.len(), groups[1].targets.len()), (0, 1));
        std::fs::remove_file(&path).unwrap();
        assert!(discovery.read().iter().all(|g| g.targets.is_empty()));
    }
}
