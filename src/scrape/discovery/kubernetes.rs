//! Targets from Kubernetes: lists the objects of a role and what belongs to them, then watches for changes.
//!
//! A watch is a request that the API server answers for a few seconds with one JSON object a line; the
//! resource version of the last one is where the next watch begins. A version that is too old starts over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Updates;
use super::kubernetes_objects::{Event, List, Object};
use super::kubernetes_targets::{Cluster, Store};
use super::rest::{Rest, query};
use crate::config::sd::cluster::{KubernetesRole, KubernetesSdConfig};
use crate::config::{Authorization, FilePath, HttpClientConfig, Secret};
use crate::telemetry::{Counter, Registry};

/// How long the API server answers one watch.
const WATCH_SECONDS: &str = "5";
/// Objects in one answer to a list request.
const PAGE: &str = "500";
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(10);
/// Where a pod finds its credentials.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Which store of the cluster a resource fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Main,
    Pods,
    Services,
    Nodes,
    Namespaces,
}

fn slot(cluster: &mut Cluster, slot: Slot) -> &mut Store {
    match slot {
        Slot::Main => &mut cluster.main,
        Slot::Pods => &mut cluster.pods,
        Slot::Services => &mut cluster.services,
        Slot::Nodes => &mut cluster.nodes,
        Slot::Namespaces => &mut cluster.namespaces,
    }
}

/// The path of a resource and whether it lives in namespaces.
fn resource(role: KubernetesRole) -> (&'static str, &'static str, bool) {
    match role {
        KubernetesRole::Pod => ("/api/v1", "pods", true),
        KubernetesRole::Service => ("/api/v1", "services", true),
        KubernetesRole::Endpoints => ("/api/v1", "endpoints", true),
        KubernetesRole::EndpointSlice => ("/apis/discovery.k8s.io/v1", "endpointslices", true),
        KubernetesRole::Node => ("/api/v1", "nodes", false),
        KubernetesRole::Ingress => ("/apis/networking.k8s.io/v1", "ingresses", true),
    }
}

/// One thing to list and watch.
struct Watch {
    path: String,
    slot: Slot,
    /// Namespace it is restricted to, empty for all; its objects are replaced by a new list.
    namespace: String,
    label_selector: String,
    field_selector: String,
}

pub(super) struct KubernetesDiscovery {
    config: KubernetesSdConfig,
    role: KubernetesRole,
    server: String,
    http: HttpClientConfig,
    own_namespace: String,
    failures: Counter,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Kubeconfig {
    #[serde(rename = "current-context")]
    current: String,
    clusters: Vec<Named>,
    users: Vec<Named>,
    contexts: Vec<Named>,
}

/// An entry of a kubeconfig; one of the parts is filled.
#[derive(Debug, Deserialize, Default, Clone)]
#[serde(default)]
struct Named {
    name: String,
    cluster: BTreeMap<String, serde_json::Value>,
    user: BTreeMap<String, serde_json::Value>,
    context: BTreeMap<String, serde_json::Value>,
}

/// The server and credentials of the current context of a kubeconfig file.
fn read_kubeconfig(path: &FilePath) -> Result<(String, HttpClientConfig), String> {
    let fail = |what: &str| format!("kubeconfig {}: {what}", path.0);
    let text = std::fs::read_to_string(path.as_path()).map_err(|e| fail(&e.to_string()))?;
    let config: Kubeconfig = serde_saphyr::from_str(&text).map_err(|e| fail(&e.to_string()))?;
    let find = |list: &[Named], name: &str| list.iter().find(|n| n.name == name).cloned();
    let text_of = |map: &BTreeMap<String, serde_json::Value>, key: &str| {
        map.get(key).and_then(|v| v.as_str()).unwrap_or_default().to_owned()
    };
    let decoded = |map: &BTreeMap<String, serde_json::Value>, key: &str| {
        use base64::Engine as _;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text_of(map, key)).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    let context = find(&config.contexts, &config.current).ok_or_else(|| fail("no current context"))?.context;
    let cluster = find(&config.clusters, &text_of(&context, "cluster"))
        .ok_or_else(|| fail("the cluster of the context is missing"))?
        .cluster;
    let user = find(&config.users, &text_of(&context, "user")).map(|n| n.user).unwrap_or_default();
    let mut http = HttpClientConfig::default();
    let tls = &mut http.tls_config;
    tls.ca_file = FilePath(text_of(&cluster, "certificate-authority"));
    tls.ca = decoded(&cluster, "certificate-authority-data");
    tls.insecure_skip_verify =
        cluster.get("insecure-skip-tls-verify").and_then(serde_json::Value::as_bool).unwrap_or(false);
    tls.server_name = text_of(&cluster, "tls-server-name");
    tls.cert_file = FilePath(text_of(&user, "client-certificate"));
    tls.key_file = FilePath(text_of(&user, "client-key"));
    tls.cert = decoded(&user, "client-certificate-data");
    tls.key = Secret::new(decoded(&user, "client-key-data"));
    let (token, file) = (text_of(&user, "token"), text_of(&user, "tokenFile"));
    if !token.is_empty() || !file.is_empty() {
        http.authorization = Some(Authorization {
            kind: "Bearer".into(),
            credentials: Secret::new(token),
            credentials_file: FilePath(file),
        });
    }
    Ok((text_of(&cluster, "server"), http))
}

fn in_cluster() -> Result<(String, HttpClientConfig), String> {
    let variable =
        |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set; not inside a cluster"));
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let mut http = HttpClientConfig::default();
    http.tls_config.ca_file = FilePath(format!("{ACCOUNT}/ca.crt"));
    http.authorization = Some(Authorization {
        kind: "Bearer".into(),
        credentials: Secret::default(),
        credentials_file: FilePath(format!("{ACCOUNT}/token")),
    });
    Ok((format!("https://{}", super::join_host_port(&host, port)), http))
}

impl KubernetesDiscovery {
    pub(super) fn new(config: &KubernetesSdConfig, registry: &Registry) -> Result<Self, String> {
        let (server, http) = if !config.kubeconfig_file.is_empty() {
            read_kubeconfig(&config.kubeconfig_file)?
        } else if config.api_server.is_empty() {
            in_cluster()?
        } else {
            (config.api_server.expose().to_owned(), config.http.clone())
        };
        let own_namespace = match config.namespaces.own_namespace {
            true => std::fs::read_to_string(format!("{ACCOUNT}/namespace"))
                .map_err(|e| format!("cannot read the own namespace: {e}"))?
                .trim()
                .to_owned(),
            false => String::new(),
        };
        Ok(Self {
            role: config.role.ok_or("no role")?,
            config: config.clone(),
            server,
            http,
            own_namespace,
            failures: registry.counter(
                "prometheus_sd_kubernetes_failures_total",
                "The number of failed WATCH/LIST requests.",
                &[],
            ),
        })
    }

    fn watches(&self) -> Vec<Watch> {
        let mut wanted = vec![(self.role, Slot::Main)];
        if matches!(self.role, KubernetesRole::Endpoints | KubernetesRole::EndpointSlice) {
            wanted.push((KubernetesRole::Pod, Slot::Pods));
            wanted.push((KubernetesRole::Service, Slot::Services));
        }
        let attach = &self.config.attach_metadata;
        if attach.node && self.role != KubernetesRole::Node {
            wanted.push((KubernetesRole::Node, Slot::Nodes));
        }
        let mut namespaces = self.config.namespaces.names.clone();
        if !self.own_namespace.is_empty() {
            namespaces.push(self.own_namespace.clone());
        }
        if namespaces.is_empty() {
            namespaces.push(String::new());
        }
        let mut out = Vec::new();
        for (role, slot) in wanted {
            let (api, plural, namespaced) = resource(role);
            let selector = self.config.selectors.iter().find(|s| s.role == Some(role));
            let all = [String::new()];
            for namespace in if namespaced { &namespaces[..] } else { &all } {
                let path = match namespace.as_str() {
                    "" => format!("{api}/{plural}"),
                    namespace => format!("{api}/namespaces/{namespace}/{plural}"),
                };
                out.push(Watch {
                    path,
                    slot,
                    namespace: namespace.clone(),
                    label_selector: selector.map(|s| s.label.clone()).unwrap_or_default(),
                    field_selector: selector.map(|s| s.field.clone()).unwrap_or_default(),
                });
            }
        }
        if attach.namespace {
            out.push(Watch {
                path: "/api/v1/namespaces".into(),
                slot: Slot::Namespaces,
                namespace: String::new(),
                label_selector: String::new(),
                field_selector: String::new(),
            });
        }
        out
    }

    /// Lists and watches until cancelled.
    pub(super) async fn run(self, updates: Updates, cancel: CancellationToken) {
        let cluster = Arc::new(Mutex::new(Cluster::default()));
        let changed = Arc::new(Notify::new());
        let watches = self.watches();
        let pending = Arc::new(std::sync::atomic::AtomicUsize::new(watches.len()));
        for watch in watches {
            let rest = match Rest::new(&self.http, &self.server) {
                Ok(rest) => rest,
                Err(error) => return tracing::error!(discovery = "kubernetes", error, "no client"),
            };
            let follow = Follow {
                rest,
                watch,
                cluster: Arc::clone(&cluster),
                changed: Arc::clone(&changed),
                pending: Arc::clone(&pending),
                listed: false,
                failures: self.failures.clone(),
            };
            tokio::spawn(follow.run(cancel.clone()));
        }
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = changed.notified() => {}
            }
            // Half a picture would lack labels; wait until everything was listed once.
            if pending.load(std::sync::atomic::Ordering::Acquire) == 0 {
                let groups = cluster.lock().groups(self.role, &self.config.attach_metadata);
                updates.replace(groups);
            }
        }
    }
}

struct Follow {
    rest: Rest,
    watch: Watch,
    cluster: Arc<Mutex<Cluster>>,
    changed: Arc<Notify>,
    pending: Arc<std::sync::atomic::AtomicUsize>,
    listed: bool,
    failures: Counter,
}

impl Follow {
    async fn run(mut self, cancel: CancellationToken) {
        loop {
            let result = tokio::select! {
                () = cancel.cancelled() => return,
                result = self.list_and_watch() => result,
            };
            let Err(error) = result;
            self.failures.inc();
            tracing::error!(discovery = "kubernetes", path = self.watch.path, error, "list or watch failed");
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    fn parameters<'p>(&'p self, own: &[(&'p str, &'p str)]) -> String {
        let mut all = own.to_vec();
        for (name, value) in
            [("labelSelector", &self.watch.label_selector), ("fieldSelector", &self.watch.field_selector)]
        {
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        query(all)
    }

    async fn list(&mut self) -> Result<String, String> {
        let mut objects = Vec::new();
        let mut next = String::new();
        loop {
            let mut own = vec![("limit", PAGE)];
            if !next.is_empty() {
                own.push(("continue", &next));
            }
            let path = format!("{}?{}", self.watch.path, self.parameters(&own));
            let list: List = self.rest.get(&path).await?;
            objects.extend(list.items);
            next = list.metadata.next;
            if next.is_empty() {
                self.replace(objects);
                return Ok(list.metadata.resource_version);
            }
        }
    }

    fn replace(&mut self, objects: Vec<Object>) {
        let mut cluster = self.cluster.lock();
        let store = slot(&mut cluster, self.watch.slot);
        let namespace = &self.watch.namespace;
        store.retain(|(own, _), _| !namespace.is_empty() && own != namespace);
        for object in objects {
            store.insert((object.metadata.namespace.clone(), object.metadata.name.clone()), object);
        }
        drop(cluster);
        if !std::mem::replace(&mut self.listed, true) {
            self.pending.fetch_sub(1, std::sync::atomic::Ordering::AcqRel);
        }
        self.changed.notify_one();
    }

    async fn list_and_watch(&mut self) -> Result<std::convert::Infallible, String> {
        let mut version = self.list().await?;
        loop {
            let own = [
                ("watch", "1"),
                ("allowWatchBookmarks", "true"),
                ("resourceVersion", version.as_str()),
                ("timeoutSeconds", WATCH_SECONDS),
            ];
            let path = format!("{}?{}", self.watch.path, self.parameters(&own));
            let started = tokio::time::Instant::now();
            let (bytes, _) = self.rest.get_bytes(&path).await?;
            let events: Vec<Event> = serde_json::Deserializer::from_slice(bytes)
                .into_iter()
                .collect::<Result<_, _>>()
                .map_err(|e| format!("cannot decode a watch: {e}"))?;
            let quick = events.is_empty() && started.elapsed() < Duration::from_secs(1);
            match self.apply(events)? {
                Some(new) => version = new,
                // Version 0 of a list may be anything; an expired one starts over.
                None if version.is_empty() => version = self.list().await?,
                None => {}
            }
            if quick {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }

    /// Applies events; returns the version of the last.
    fn apply(&mut self, events: Vec<Event>) -> Result<Option<String>, String> {
        let mut version = None;
        let mut changed = false;
        let mut cluster = self.cluster.lock();
        let store = slot(&mut cluster, self.watch.slot);
        for event in events {
            if event.kind == "ERROR" {
                let message = event.object.get("message").and_then(|m| m.as_str()).unwrap_or("unknown");
                return Err(format!("watch ended: {message}"));
            }
            let object: Object =
                serde_json::from_value(event.object).map_err(|e| format!("cannot decode an object: {e}"))?;
            version = Some(object.metadata.resource_version.clone());
            let key = (object.metadata.namespace.clone(), object.metadata.name.clone());
            match event.kind.as_str() {
                "ADDED" | "MODIFIED" => {
                    store.insert(key, object);
                    changed = true;
                }
                "DELETED" => changed |= store.remove(&key).is_some(),
                _ => {}
            }
        }
        drop(cluster);
        if changed {
            self.changed.notify_one();
        }
        Ok(version)
    }
}
