//! Mechanisms of cluster managers and registries: Kubernetes, Consul, Nomad, Docker, Eureka, Kuma, Marathon, Nerve,
//! serversets, Triton, Uyuni, PuppetDB.

use std::collections::{BTreeMap, HashSet};

use super::selector::check_label_selector;
use crate::config::http::HttpClientConfig;
use crate::config::values::{ConfigUrl, FilePath, PromDuration, Secret};
use crate::config::yaml::section::{section, words};
use crate::config::yaml::{Context, Node};

words! {
    /// What Kubernetes discovery turns into targets.
    pub enum KubernetesRole {
        /// Pods and their ports.
        Pod = "pod",
        /// Services and their ports.
        Service = "service",
        /// Endpoints of services.
        Endpoints = "endpoints",
        /// Slices of endpoints.
        EndpointSlice = "endpointslice",
        /// Nodes.
        Node = "node",
        /// Ingresses and their paths.
        Ingress = "ingress",
    } else |text| format!("unknown Kubernetes SD role {text:?}")
}

section! {
    /// `namespaces` of Kubernetes discovery.
    pub struct NamespaceDiscovery("namespaces") {
        /// Whether the namespace of the server's own pod is included.
        own_namespace: bool; always,
        /// Namespaces; all when empty.
        names: Vec<String>; always,
    }
}

section! {
    /// One of `selectors` of Kubernetes discovery.
    pub struct SelectorConfig("selectors") {
        /// Kind of object it applies to.
        role: Option<KubernetesRole>,
        /// Label selector.
        label: String,
        /// Field selector.
        field: String,
    }
}

section! {
    /// `attach_metadata` of Kubernetes discovery.
    pub struct AttachMetadata("attach_metadata") {
        /// Labels of the node.
        node: bool; always,
        /// Labels of the namespace.
        namespace: bool,
        /// Name of the deployment.
        deployment: bool,
        /// Name of the job.
        job: bool,
        /// Name of the cron job.
        cronjob: bool,
    }
}

section! {
    /// An item of `kubernetes_sd_configs`.
    pub struct KubernetesSdConfig("kubernetes_sd_config") check check_kubernetes {
        /// The API server; that of the cluster the server runs in when empty.
        api_server: ConfigUrl,
        /// What becomes a target.
        role: Option<KubernetesRole>,
        /// A kubeconfig file instead of the fields here.
        kubeconfig_file: FilePath,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Namespaces.
        namespaces: NamespaceDiscovery,
        /// Selectors.
        selectors: Vec<SelectorConfig>,
        /// What else becomes labels.
        attach_metadata: AttachMetadata,
    }
}

fn check_kubernetes(config: &mut KubernetesSdConfig, node: &Node, cx: &mut Context) {
    use KubernetesRole as R;
    let has_file = !config.kubeconfig_file.is_empty();
    let has_server = !config.api_server.is_empty();
    let own_http = config.http != HttpClientConfig::default();
    if has_server && has_file {
        cx.error(
            node.place_of("kubeconfig_file"),
            "cannot use 'kubeconfig_file' and 'api_server' simultaneously",
        );
    }
    if has_file && own_http {
        let message = "cannot use a custom HTTP client configuration together with 'kubeconfig_file'";
        cx.error(node.at, message);
    }
    if !has_server && !has_file && own_http {
        let message =
            "to use custom HTTP client configuration please provide the 'api_server' URL explicitly";
        cx.error(node.at, message);
    }
    if has_server && config.namespaces.own_namespace {
        let message = "cannot use 'api_server' and 'namespaces.own_namespace' simultaneously";
        cx.error(node.place_of("namespaces"), message);
    }
    if has_file && config.namespaces.own_namespace {
        let message = "cannot use 'kubeconfig_file' and 'namespaces.own_namespace' simultaneously";
        cx.error(node.place_of("namespaces"), message);
    }
    let Some(role) = config.role else {
        if node.get("role").is_none_or(Node::is_null) {
            let message = "role missing (one of: pod, service, endpoints, endpointslice, node, ingress)";
            cx.error(node.at, message);
        }
        return;
    };
    let allowed: &[R] = match role {
        R::Pod => &[R::Pod, R::Node],
        R::Service => &[R::Service],
        R::EndpointSlice => &[R::Pod, R::Service, R::EndpointSlice],
        R::Endpoints => &[R::Pod, R::Service, R::Endpoints],
        R::Node => &[R::Node],
        R::Ingress => &[R::Ingress],
    };
    let mut seen = HashSet::new();
    let items = node.get("selectors").map_or(&[][..], Node::items);
    for (selector, item) in config.selectors.iter().zip(items) {
        let Some(kind) = selector.role else { continue };
        if !seen.insert(kind) {
            cx.error(item.at, format!("duplicated selector role: {kind}"));
        }
        if !allowed.contains(&kind) {
            let names: Vec<&str> = allowed.iter().map(|r| r.as_str()).collect();
            cx.error(item.at, format!("{role} role supports only {} selectors", names.join(", ")));
        }
        if let Err(message) = check_label_selector(&selector.label) {
            cx.error(item.place_of("label"), message);
        }
        for part in selector.field.split(',').filter(|p| !p.is_empty()) {
            if !part.contains('=') {
                let message = format!("invalid selector: '{}'; can't understand '{part}'", selector.field);
                cx.error(item.place_of("field"), message);
            }
        }
    }
}

section! {
    /// An item of `consul_sd_configs`.
    pub struct ConsulSdConfig("consul_sd_config") check check_consul {
        /// Address of the agent.
        server: String = "localhost:8500".into(),
        /// Path before the API.
        path_prefix: String,
        /// ACL token.
        token: Secret,
        /// Datacenter; that of the agent when empty.
        datacenter: String,
        /// Namespace.
        namespace: String,
        /// Partition.
        partition: String,
        /// What joins tags.
        tag_separator: String = ",".into(),
        /// Scheme of the URL.
        scheme: String = "http".into(),
        /// Old spelling of basic authentication.
        username: String,
        /// Old spelling of basic authentication.
        password: Secret,
        /// Whether any server may answer.
        allow_stale: bool = true; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(30),
        /// Services; all when empty.
        services: Vec<String>,
        /// Tags that a service must have.
        tags: Vec<String>,
        /// Metadata that a node must have.
        node_meta: BTreeMap<String, String>,
        /// Filter of the catalog.
        filter: String,
        /// Filter of the health endpoint.
        health_filter: String,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_consul(config: &mut ConsulSdConfig, node: &Node, cx: &mut Context) {
    if config.server.trim().is_empty() {
        cx.error(node.place_of("server"), "consul SD configuration requires a server address");
    }
    let basic = !config.username.is_empty() || !config.password.is_empty();
    if basic && config.http.basic_auth.is_some() {
        let message =
            "at most one of consul SD configuration username and password and basic auth can be configured";
        cx.error(node.place_of("basic_auth"), message);
    }
    if basic && config.http.basic_auth.is_none() {
        config.http.basic_auth = Some(crate::config::BasicAuth {
            username: std::mem::take(&mut config.username),
            password: std::mem::take(&mut config.password),
            ..Default::default()
        });
    }
    if !config.token.is_empty() && (config.http.authorization.is_some() || config.http.oauth2.is_some()) {
        cx.error(
            node.place_of("token"),
            "at most one of consul SD token, authorization, or oauth2 can be configured",
        );
    }
}

section! {
    /// An item of `nomad_sd_configs`.
    pub struct NomadSdConfig("nomad_sd_config") check check_nomad {
        /// Whether any server may answer.
        allow_stale: bool = true; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Namespace.
        namespace: String = "default".into(),
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Region.
        region: String = "global".into(),
        /// Address of the API.
        server: String = "http://localhost:4646".into(),
        /// What joins tags.
        tag_separator: String = ",".into(),
    }
}

fn check_nomad(config: &mut NomadSdConfig, node: &Node, cx: &mut Context) {
    if config.server.trim().is_empty() {
        cx.error(node.place_of("server"), "nomad SD configuration requires a server address");
    }
}

section! {
    /// A filter of Docker's API.
    pub struct DockerFilter("filters") {
        /// Name.
        name: String; always,
        /// Values of which one must fit.
        values: Vec<String>; always,
    }
}

section! {
    /// An item of `docker_sd_configs`.
    pub struct DockerSdConfig("docker_sd_config") check check_docker {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Address of the daemon.
        host: String; always,
        /// Port of containers that publish none.
        port: u16 = 80,
        /// Filters.
        filters: Vec<DockerFilter>,
        /// Host of containers in host networking.
        host_networking_host: String = "localhost".into(),
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Whether only the first network of a container counts.
        match_first_network: bool = true; always,
    }
}

fn check_host(host: &str, node: &Node, cx: &mut Context) {
    if host.is_empty() {
        cx.error(node.at, "host missing");
    } else if let Err(message) = ConfigUrl::parse(host) {
        cx.error(node.place_of("host"), message);
    }
}

fn check_docker(config: &mut DockerSdConfig, node: &Node, cx: &mut Context) {
    check_host(&config.host, node, cx);
}

section! {
    /// An item of `dockerswarm_sd_configs`.
    pub struct DockerSwarmSdConfig("dockerswarm_sd_config") check check_swarm {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Address of the daemon.
        host: String; always,
        /// `services`, `tasks` or `nodes`.
        role: String; always,
        /// Port of nodes, and of tasks and services that publish none.
        port: u16 = 80,
        /// Filters.
        filters: Vec<DockerFilter>,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
    }
}

fn check_swarm(config: &mut DockerSwarmSdConfig, node: &Node, cx: &mut Context) {
    check_host(&config.host, node, cx);
    match config.role.as_str() {
        "services" | "nodes" | "tasks" => {}
        "" => cx.error(node.at, "role missing (one of: tasks, services, nodes)"),
        other => {
            let message = format!("invalid role {other}, expected tasks, services, or nodes");
            cx.error(node.place_of("role"), message);
        }
    }
}

section! {
    /// An item of `eureka_sd_configs`.
    pub struct EurekaSdConfig("eureka_sd_config") check check_eureka {
        /// Address of the registry.
        server: ConfigUrl,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(30),
    }
}

fn check_eureka(config: &mut EurekaSdConfig, node: &Node, cx: &mut Context) {
    if config.server.is_empty() {
        cx.error(node.place_of("server"), "eureka_sd: empty or null eureka server");
    } else if config.server.scheme().is_empty() || config.server.host().is_empty() {
        cx.error(node.place_of("server"), "eureka_sd: invalid eureka server URL");
    }
}

section! {
    /// An item of `kuma_sd_configs`.
    pub struct KumaSdConfig("kuma_sd_config") check check_kuma {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(15),
        /// How long an answer may take.
        fetch_timeout: PromDuration = PromDuration::seconds(120),
        /// Address of the control plane.
        server: String; always,
        /// Identity of this server there.
        client_id: String,
    }
}

fn check_kuma(config: &mut KumaSdConfig, node: &Node, cx: &mut Context) {
    if config.server.is_empty() {
        cx.error(node.place_of("server"), "kuma SD server must not be empty");
    } else if let Err(message) = ConfigUrl::parse(&config.server) {
        cx.error(node.place_of("server"), message);
    }
}

section! {
    /// An item of `marathon_sd_configs`.
    pub struct MarathonSdConfig("marathon_sd_config") check check_marathon {
        /// Addresses of the masters.
        servers: Vec<String>,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(30),
        /// Token of DC/OS.
        auth_token: Secret,
        /// File with that token.
        auth_token_file: FilePath,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_marathon(config: &mut MarathonSdConfig, node: &Node, cx: &mut Context) {
    if config.servers.is_empty() {
        cx.error(node.at, "marathon_sd: must contain at least one Marathon server");
    }
    let (token, file) = (!config.auth_token.is_empty(), !config.auth_token_file.is_empty());
    let at = node.place_of(if token { "auth_token" } else { "auth_token_file" });
    if token && file {
        cx.error(at, "marathon_sd: at most one of auth_token & auth_token_file must be configured");
    }
    if !token && !file {
        return;
    }
    if config.http.basic_auth.is_some() {
        cx.error(
            at,
            "marathon_sd: at most one of basic_auth, auth_token & auth_token_file must be configured",
        );
    }
    if node.get("bearer_token").is_some() || node.get("bearer_token_file").is_some() {
        let message = "marathon_sd: at most one of bearer_token, bearer_token_file, auth_token & auth_token_file must \
                       be configured";
        cx.error(at, message);
    } else if config.http.authorization.is_some() {
        cx.error(
            at,
            "marathon_sd: at most one of auth_token, auth_token_file & authorization must be configured",
        );
    }
}

section! {
    /// An item of `nerve_sd_configs`.
    pub struct NerveSdConfig("nerve_sd_config") check check_nerve {
        /// Addresses of ZooKeeper.
        servers: Vec<String>; always,
        /// Paths of services.
        paths: Vec<String>; always,
        /// How long ZooKeeper may be silent.
        timeout: PromDuration = PromDuration::seconds(10),
    }
}

/// What both mechanisms over ZooKeeper demand.
fn check_zookeeper(name: &str, servers: &[String], paths: &[String], node: &Node, cx: &mut Context) {
    if servers.is_empty() {
        cx.error(node.at, format!("{name} SD config must contain at least one Zookeeper server"));
    }
    if paths.is_empty() {
        cx.error(node.at, format!("{name} SD config must contain at least one path"));
    }
    for path in paths {
        if !path.starts_with('/') {
            cx.error(node.place_of("paths"), format!("{name} SD config paths must begin with '/': {path}"));
        }
    }
}

fn check_nerve(config: &mut NerveSdConfig, node: &Node, cx: &mut Context) {
    check_zookeeper("nerve", &config.servers, &config.paths, node, cx);
}

section! {
    /// An item of `serverset_sd_configs`.
    pub struct ServersetSdConfig("serverset_sd_config") check check_serverset {
        /// Addresses of ZooKeeper.
        servers: Vec<String>; always,
        /// Paths of sets.
        paths: Vec<String>; always,
        /// How long ZooKeeper may be silent.
        timeout: PromDuration = PromDuration::seconds(10),
    }
}

fn check_serverset(config: &mut ServersetSdConfig, node: &Node, cx: &mut Context) {
    check_zookeeper("serverset", &config.servers, &config.paths, node, cx);
}

section! {
    /// An item of `triton_sd_configs`.
    pub struct TritonSdConfig("triton_sd_config") check check_triton {
        /// Account.
        account: String; always,
        /// `container` or `cn`.
        role: String = "container".into(); always,
        /// Suffix of the names of targets.
        dns_suffix: String; always,
        /// Host of the API.
        endpoint: String; always,
        /// Groups; all when empty.
        groups: Vec<String>,
        /// Port of the API and of targets.
        port: u16 = 9163; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// TLS of the API.
        tls_config: crate::config::TlsConfig,
        /// Version of the API.
        version: i64 = 1; always,
    }
}

fn check_triton(config: &mut TritonSdConfig, node: &Node, cx: &mut Context) {
    for (value, what) in [
        (&config.account, "an account"),
        (&config.dns_suffix, "a dns_suffix"),
        (&config.endpoint, "an endpoint"),
    ] {
        if value.is_empty() {
            cx.error(node.at, format!("triton SD configuration requires {what}"));
        }
    }
    if config.refresh_interval.0 <= 0 {
        cx.error(
            node.place_of("refresh_interval"),
            "triton SD configuration requires RefreshInterval to be a positive integer",
        );
    }
    if !matches!(config.role.as_str(), "container" | "cn") {
        cx.error(node.place_of("role"), "triton SD configuration requires role to be 'container' or 'cn'");
    }
}

section! {
    /// An item of `uyuni_sd_configs`.
    pub struct UyuniSdConfig("uyuni_sd_config") check check_uyuni {
        /// Address of the server.
        server: ConfigUrl; always,
        /// User name.
        username: String; always,
        /// Password.
        password: Secret; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Entitlement that a system must have.
        entitlement: String = "monitoring_entitled".into(),
        /// What joins groups.
        separator: String = ",".into(),
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
    }
}

fn check_uyuni(config: &mut UyuniSdConfig, node: &Node, cx: &mut Context) {
    if config.server.is_empty() {
        cx.error(node.place_of("server"), "Uyuni SD configuration requires server host");
    }
    if config.username.is_empty() {
        cx.error(node.place_of("username"), "Uyuni SD configuration requires a username");
    }
    if config.password.is_empty() {
        cx.error(node.place_of("password"), "Uyuni SD configuration requires a password");
    }
}

section! {
    /// An item of `puppetdb_sd_configs`.
    pub struct PuppetDbSdConfig("puppetdb_sd_config") check check_puppetdb {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Address of the API.
        url: ConfigUrl; always,
        /// Query in PQL.
        query: String; always,
        /// Whether parameters become labels.
        include_parameters: bool; always,
        /// Port of targets.
        port: u16 = 80; always,
    }
}

fn check_puppetdb(config: &mut PuppetDbSdConfig, node: &Node, cx: &mut Context) {
    let at = node.place_of("url");
    if config.url.is_empty() {
        cx.error(at, "URL is missing");
    } else if !matches!(config.url.scheme(), "http" | "https") {
        cx.error(at, "URL scheme must be 'http' or 'https'");
    } else if config.url.host().is_empty() {
        cx.error(at, "host is missing in URL");
    }
    if config.query.is_empty() {
        cx.error(node.place_of("query"), "query missing");
    }
}
