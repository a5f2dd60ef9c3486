//! Targets from Kubernetes: which objects a section needs, and where the API server is. The objects come from watches
//! that all sections share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Updates;
use super::kubernetes_targets::{Cluster, Stores};
use super::kubernetes_watch::{WatchKey, WatchPool};
use crate::config::sd::cluster::{KubernetesRole, KubernetesSdConfig};
use crate::config::{Authorization, FilePath, HttpClientConfig, Secret};

/// How long changes are gathered before targets are made of them, at least and at most.
const GATHER: Duration = Duration::from_millis(50);
const MAX_GATHER: Duration = Duration::from_secs(10);
/// Where a pod finds its credentials.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Which stores of the cluster a resource fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Main,
    Pods,
    Services,
    Nodes,
    Namespaces,
}

fn slot(cluster: &mut Cluster, slot: Slot) -> &mut Stores {
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

pub(super) struct KubernetesDiscovery {
    config: KubernetesSdConfig,
    role: KubernetesRole,
    server: String,
    http: HttpClientConfig,
    own_namespace: String,
    pool: Arc<WatchPool>,
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
    pub(super) fn new(config: &KubernetesSdConfig, pool: &Arc<WatchPool>) -> Result<Self, String> {
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
            pool: Arc::clone(pool),
        })
    }

    fn watches(&self) -> Vec<(Slot, WatchKey)> {
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
                let label = selector.map(|s| s.label.clone()).unwrap_or_default();
                let field = selector.map(|s| s.field.clone()).unwrap_or_default();
                out.push((slot, self.key(path, label, field)));
            }
        }
        if attach.namespace {
            let key = self.key("/api/v1/namespaces".into(), String::new(), String::new());
            out.push((Slot::Namespaces, key));
        }
        out
    }

    fn key(&self, path: String, label_selector: String, field_selector: String) -> WatchKey {
        let (server, http) = (self.server.clone(), self.http.clone());
        WatchKey { server, http, path, label_selector, field_selector }
    }

    /// Follows the watches until cancelled.
    pub(super) async fn run(self, updates: Updates, cancel: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let mut stores = Vec::new();
        for (slot, key) in self.watches() {
            match self.pool.follow(key, &changed) {
                Ok(store) => stores.push((slot, store)),
                Err(error) => return tracing::error!(discovery = "kubernetes", error, "no client"),
            }
        }
        changed.notify_one();
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = changed.notified() => {}
            }
            let mut cluster = Cluster::default();
            let mut complete = true;
            for (kind, store) in &stores {
                match store.objects() {
                    Some(objects) => slot(&mut cluster, *kind).0.push(objects),
                    None => complete = false,
                }
            }
            // Half a picture would lack labels; wait until everything was listed once.
            if !complete {
                continue;
            }
            let started = std::time::Instant::now();
            updates.replace(cluster.groups(self.role, &self.config.attach_metadata));
            // A large cluster changes all the time: spend no more than a tenth of a core on it.
            let pause = (started.elapsed() * 9).clamp(GATHER, MAX_GATHER);
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}
