//! How does a configuration file become a [`Config`]? Compose, decode `global`, decode the jobs over it, pull in
//! the files of `scrape_config_files`, check what spans sections, and report every error found on the way.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::remote::{RemoteReadConfig, RemoteWriteConfig};
use super::scrape::{GlobalConfig, ScrapeConfig};
use super::sd::SdConfig;
use super::sd::basic::is_glob_in_last_segment;
use super::sections::{AlertingConfig, OtlpConfig, RuntimeConfig, StorageConfig, TracingConfig};
use super::yaml::{Context, FromYaml, Node, NodeKind, ToYaml, Value};
use super::{ConfigErrors, FilePath};

/// Largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 << 20;

/// What changes how a file is read.
#[derive(Debug, Clone, Copy)]
pub struct LoadOptions {
    /// Agent mode: no rules, alerting or remote read.
    pub agent: bool,
    /// Ask for protobuf first by default (features `created-timestamp-zero-ingestion` and `st-storage`).
    pub protobuf_first: bool,
    /// Looks up environment variables for external labels.
    pub env: fn(&str) -> Option<String>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { agent: false, protobuf_first: false, env: |name| std::env::var(name).ok() }
    }
}

/// A whole configuration, all values effective.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Config {
    /// `global`.
    pub global: GlobalConfig,
    /// `rule_files`: patterns, resolved against the file.
    pub rule_files: Vec<FilePath>,
    /// `scrape_config_files`: patterns, resolved against the file.
    pub scrape_config_files: Vec<FilePath>,
    /// `scrape_configs`, followed by those of the files.
    pub scrape_configs: Vec<ScrapeConfig>,
    /// `alerting`.
    pub alerting: AlertingConfig,
    /// `remote_write`.
    pub remote_write: Vec<RemoteWriteConfig>,
    /// `remote_read`.
    pub remote_read: Vec<RemoteReadConfig>,
    /// `otlp`.
    pub otlp: OtlpConfig,
    /// `storage`.
    pub storage: StorageConfig,
    /// `tracing`.
    pub tracing: Option<TracingConfig>,
    /// `runtime`.
    pub runtime: RuntimeConfig,
    /// How many of `scrape_configs` stand in the main file.
    own_jobs: usize,
    /// Remarks that did not refuse the file.
    pub warnings: Vec<String>,
}

const TOP_FIELDS: [&str; 11] = [
    "global",
    "runtime",
    "alerting",
    "rule_files",
    "scrape_config_files",
    "scrape_configs",
    "storage",
    "tracing",
    "remote_write",
    "remote_read",
    "otlp",
];

/// Reads a text file with a bound on its size.
pub(super) fn read_file(path: &Path) -> Result<String, ConfigErrors> {
    let shown = path.display().to_string();
    let fail = |message: String| ConfigErrors::without_place(&shown, message);
    let size = std::fs::metadata(path).map_err(|e| fail(format!("cannot open the file: {e}")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(fail(format!("the file has {size} bytes, more than the limit of {MAX_FILE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|e| fail(format!("cannot read the file: {e}")))
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Config {
    /// Reads a file and the files it names under `scrape_config_files`.
    pub fn load(path: &Path, options: &LoadOptions) -> Result<Self, ConfigErrors> {
        Self::parse(&read_file(path)?, path, options)
    }

    /// Reads text as if it stood in `origin`, against whose folder relative paths resolve.
    pub fn parse(text: &str, origin: &Path, options: &LoadOptions) -> Result<Self, ConfigErrors> {
        let mut cx = Context::new(&origin.display().to_string(), parent_of(origin), text);
        let root = cx.document().root;
        let mut config = Self::default();
        config.read_root(&root, options, &mut cx);
        config.own_jobs = config.scrape_configs.len();
        config.check_job_names(&root, &mut cx);
        let mut errors = match cx.finish() {
            Ok(warnings) => {
                config.warnings = warnings;
                Vec::new()
            }
            Err(ConfigErrors(errors)) => errors,
        };
        let included = config.include_scrape_files(options);
        errors.extend(included);
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }

    fn read_root(&mut self, root: &Node, options: &LoadOptions, cx: &mut Context) {
        match &root.kind {
            NodeKind::Mapping(_) => {}
            NodeKind::Null => {
                // Defaults that a check fills in.
                if let Some(global) = GlobalConfig::from_yaml(root, cx) {
                    self.global = global;
                }
                return;
            }
            _ => return cx.mismatch(root, "config"),
        }
        let null = Node::null(root.at);
        if let Some(global) = GlobalConfig::from_yaml(root.get("global").unwrap_or(&null), cx) {
            self.global = global;
        }
        for value in self.global.external_labels.0.values_mut() {
            *value = expand_env(value, options.env);
        }
        for (key, value) in root.entries() {
            match key.text().unwrap_or_default() {
                "global" => {}
                "rule_files" => self.rule_files = read_patterns(value, "rule file", cx),
                "scrape_config_files" => {
                    self.scrape_config_files = read_patterns(value, "scrape config file", cx);
                }
                "scrape_configs" => self.scrape_configs = read_jobs(value, &self.global, options, cx),
                "runtime" => cx.decode_into(&mut self.runtime, value),
                "alerting" => cx.decode_into(&mut self.alerting, value),
                "storage" => cx.decode_into(&mut self.storage, value),
                "tracing" => cx.decode_into(&mut self.tracing, value),
                "remote_write" => cx.decode_into(&mut self.remote_write, value),
                "remote_read" => cx.decode_into(&mut self.remote_read, value),
                "otlp" => {
                    cx.decode_into(&mut self.otlp, value);
                    self.otlp.check_names(self.global.metric_name_validation_scheme, value, cx);
                }
                _ => cx.unknown_field(key, "config", &TOP_FIELDS),
            }
        }
        self.check_remote(root, cx);
        if options.agent {
            self.check_agent(root, cx);
        }
    }

    fn check_remote(&self, root: &Node, cx: &mut Context) {
        for (section, what) in [("remote_write", "remote write"), ("remote_read", "remote read")] {
            cx.no_nulls(root, section, &format!("empty or null {what} config section"));
            let mut seen = HashSet::new();
            for item in root.get(section).map_or(&[][..], Node::items) {
                if let Some(name) = item.get("name").and_then(Node::text)
                    && !name.is_empty()
                    && !seen.insert(name)
                {
                    let message = format!("found multiple {what} configs with job name {name:?}");
                    cx.error(item.place_of("name"), message);
                }
            }
        }
    }

    fn check_agent(&self, root: &Node, cx: &mut Context) {
        let alerting =
            !self.alerting.alertmanagers.is_empty() || !self.alerting.alert_relabel_configs.is_empty();
        for (used, field) in [
            (!self.rule_files.is_empty(), "rule_files"),
            (alerting, "alerting"),
            (!self.remote_read.is_empty(), "remote_read"),
        ] {
            if used {
                cx.error(root.place_of(field), format!("field {field} is not allowed in agent mode"));
            }
        }
    }

    /// Names of the sections that the configuration uses, discovery mechanisms included, sorted: what a server
    /// must implement to do all that is asked of it.
    #[must_use]
    pub fn used_sections(&self) -> Vec<&'static str> {
        let jobs = self.scrape_configs.iter().map(|j| &j.sd);
        let managers = self.alerting.alertmanagers.iter().map(|a| &a.sd);
        let mut used: BTreeSet<&'static str> =
            jobs.chain(managers).flat_map(|sd| &sd.0).map(SdConfig::key).collect();
        let sections = [
            (!self.rule_files.is_empty(), "rule_files"),
            (!self.scrape_configs.is_empty(), "scrape_configs"),
            (!self.alerting.alertmanagers.is_empty(), "alerting"),
            (!self.remote_write.is_empty(), "remote_write"),
            (self.remote_write.iter().any(|w| w.sigv4.is_some()), "remote_write.sigv4"),
            (self.remote_write.iter().any(|w| w.azuread.is_some()), "remote_write.azuread"),
            (self.remote_write.iter().any(|w| w.google_iam.is_some()), "remote_write.google_iam"),
            (!self.remote_read.is_empty(), "remote_read"),
            (self.alerting.alertmanagers.iter().any(|a| a.sigv4.is_some()), "alerting.sigv4"),
            (self.otlp != OtlpConfig::default(), "otlp"),
            (self.storage.tsdb.is_some(), "storage.tsdb"),
            (self.storage.exemplars.is_some(), "storage.exemplars"),
            (self.tracing.is_some(), "tracing"),
        ];
        used.extend(sections.into_iter().filter(|(is_used, _)| *is_used).map(|(_, name)| name));
        used.into_iter().collect()
    }

    fn check_job_names(&self, root: &Node, cx: &mut Context) {
        let mut seen = HashSet::new();
        for item in root.get("scrape_configs").map_or(&[][..], Node::items) {
            if let Some(name) = item.get("job_name").and_then(Node::text)
                && !seen.insert(name)
            {
                let message = format!("found multiple scrape configs with job name {name:?}");
                cx.error(item.place_of("job_name"), message);
            }
        }
    }

    fn include_scrape_files(&mut self, options: &LoadOptions) -> Vec<super::ConfigError> {
        let mut errors = Vec::new();
        let mut seen: HashSet<String> = self.scrape_configs.iter().map(|j| j.job_name.clone()).collect();
        for pattern in &self.scrape_config_files {
            for path in expand_pattern(&pattern.0) {
                let text = match read_file(Path::new(&path)) {
                    Ok(text) => text,
                    Err(ConfigErrors(list)) => {
                        errors.extend(list);
                        continue;
                    }
                };
                let mut cx = Context::new(&path, parent_of(Path::new(&path)), &text);
                let root = cx.document().root;
                if !matches!(root.kind, NodeKind::Mapping(_) | NodeKind::Null) {
                    cx.mismatch(&root, "scrape config file");
                }
                for (key, value) in root.entries() {
                    if key.text() != Some("scrape_configs") {
                        cx.unknown_field(key, "scrape config file", &["scrape_configs"]);
                        continue;
                    }
                    for (i, job) in read_jobs(value, &self.global, options, &mut cx).into_iter().enumerate() {
                        if !seen.insert(job.job_name.clone()) {
                            let message =
                                format!("found multiple scrape configs with job name {:?}", job.job_name);
                            let at = value.items().get(i).map_or(value.at, |item| item.place_of("job_name"));
                            cx.error(at, message);
                        }
                        self.scrape_configs.push(job);
                    }
                }
                match cx.finish() {
                    Ok(warnings) => self.warnings.extend(warnings),
                    Err(ConfigErrors(list)) => errors.extend(list),
                }
            }
        }
        errors
    }

    /// The effective configuration as `/api/v1/status/config` prints it: defaults filled in, secrets blanked out.
    #[must_use]
    pub fn to_yaml(&self) -> String {
        self.to_value().print()
    }

    /// The effective configuration as a value.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut out = vec![("global".to_owned(), self.global.to_value())];
        let mut push = |key: &str, value: Value, empty: bool| {
            if !empty {
                out.push((key.to_owned(), value));
            }
        };
        push("runtime", self.runtime.to_value(), false);
        push("alerting", self.alerting.to_value(), ToYaml::is_empty(&self.alerting));
        push("rule_files", self.rule_files.to_value(), self.rule_files.is_empty());
        push("scrape_config_files", self.scrape_config_files.to_value(), self.scrape_config_files.is_empty());
        let own = self.scrape_configs.get(..self.own_jobs).unwrap_or_default().to_vec();
        push("scrape_configs", own.to_value(), own.is_empty());
        push("storage", self.storage.to_value(), ToYaml::is_empty(&self.storage));
        push("tracing", self.tracing.to_value(), self.tracing.is_none());
        push("remote_write", self.remote_write.to_value(), self.remote_write.is_empty());
        push("remote_read", self.remote_read.to_value(), self.remote_read.is_empty());
        push("otlp", self.otlp.to_value(), false);
        Value::Map(out)
    }
}

fn read_patterns(node: &Node, what: &str, cx: &mut Context) -> Vec<FilePath> {
    let mut patterns: Vec<FilePath> = Vec::new();
    cx.decode_into(&mut patterns, node);
    for item in node.items() {
        let text = item.text().unwrap_or_default();
        if !is_glob_in_last_segment(text) || text.is_empty() {
            cx.error(item.at, format!("invalid {what} path {text:?}"));
        } else if !is_well_formed(text.as_bytes()) {
            cx.error(item.at, format!("error retrieving {what}s for {text:?}: syntax error in pattern"));
        }
    }
    patterns
}

fn read_jobs(
    node: &Node,
    global: &GlobalConfig,
    options: &LoadOptions,
    cx: &mut Context,
) -> Vec<ScrapeConfig> {
    if !matches!(node.kind, NodeKind::Sequence(_) | NodeKind::Null) {
        cx.mismatch(node, "list");
    }
    let mut jobs = Vec::new();
    for item in node.items() {
        if item.is_null() {
            cx.error(item.at, "empty or null scrape config section");
        } else {
            jobs.extend(ScrapeConfig::resolve(item, global, options.protobuf_first, cx));
        }
    }
    jobs
}

/// Replaces `$NAME` and `${NAME}`; `$$` is a dollar sign. Names follow Go's `os.Expand`.
fn expand_env(text: &str, env: fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        out.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(tail) = rest.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix('{') {
            let Some((name, after)) = tail.split_once('}') else {
                // Go swallows a brace that is never closed.
                rest = tail;
                continue;
            };
            out.push_str(&env(name).unwrap_or_default());
            rest = after;
        } else {
            let len = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
            if len == 0 {
                out.push('$');
            }
            out.push_str(&env(&rest[..len]).unwrap_or_default());
            rest = &rest[len..];
        }
    }
    out.push_str(rest);
    out
}

/// The files that a pattern with `*`, `?` or `[…]` in its last segment names, sorted. A path without any of them
/// stands for itself when it exists.
#[must_use]
pub fn expand_pattern(pattern: &str) -> Vec<String> {
    let (folder, name) = match pattern.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => ("", pattern),
    };
    if folder.contains(META) {
        let folders = expand_pattern(folder);
        return folders.iter().flat_map(|folder| expand_pattern(&format!("{folder}/{name}"))).collect();
    }
    if !name.contains(META) {
        return if Path::new(pattern).exists() { vec![pattern.to_owned()] } else { Vec::new() };
    }
    let Ok(entries) = std::fs::read_dir(if folder.is_empty() { "." } else { folder }) else {
        return Vec::new();
    };
    let mut found: Vec<String> = entries
        .filter_map(|e| e.ok()?.file_name().into_string().ok())
        .filter(|file| matches_pattern(name.as_bytes(), file.as_bytes()))
        .map(|file| match folder {
            "" => file,
            "/" => format!("/{file}"),
            _ => format!("{folder}/{file}"),
        })
        .collect();
    found.sort();
    found
}

/// What makes a path a pattern.
const META: [char; 3] = ['*', '?', '['];

/// Whether each class of a pattern has an end and content, and no escape is the last thing.
fn is_well_formed(pattern: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = pattern.get(at) {
        match byte {
            b'\\' if at + 1 == pattern.len() => return false,
            b'\\' => at += 2,
            b'[' => {
                let negated = usize::from(matches!(pattern.get(at + 1), Some(b'^')));
                let begin = at + 1 + negated;
                match memchr::memchr(b']', pattern.get(begin..).unwrap_or_default()) {
                    None | Some(0) => return false,
                    Some(len) => at = begin + len + 1,
                }
            }
            _ => at += 1,
        }
    }
    true
}

/// Matching of Go's `path/filepath.Match` within one segment.
fn matches_pattern(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
                continue;
            }
            Some(b'?') => Some(1),
            Some(b'[') => class(&pattern[p..], name[n]),
            Some(b'\\') if pattern.get(p + 1) == Some(&name[n]) => Some(2),
            Some(c) if *c == name[n] => Some(1),
            _ => None,
        };
        match (step, star) {
            (Some(len), _) => {
                p += len;
                n += 1;
            }
            (None, Some((at, from))) => {
                star = Some((at, from + 1));
                p = at + 1;
                n = from + 1;
            }
            (None, None) => return false,
        }
    }
    pattern.get(p..).is_none_or(|rest| rest.iter().all(|c| *c == b'*'))
}

/// Length of the class at the start of `pattern` when it contains `byte`.
fn class(pattern: &[u8], byte: u8) -> Option<usize> {
    let end = pattern.iter().skip(2).position(|c| *c == b']')? + 2;
    let negated = pattern.get(1) == Some(&b'^');
    let mut members = &pattern[1 + usize::from(negated)..end];
    let mut found = false;
    while let Some((first, rest)) = members.split_first() {
        members = rest;
        if let [b'-', last, tail @ ..] = rest {
            found |= (*first..=*last).contains(&byte);
            members = tail;
        } else {
            found |= *first == byte;
        }
    }
    (found != negated).then_some(end + 1)
}
