//! Mechanisms of cloud providers other than AWS.

use crate::config::http::HttpClientConfig;
use crate::config::values::{ConfigUrl, FilePath, PromDuration, Secret};
use crate::config::yaml::section::section;
use crate::config::yaml::{Context, Node};

/// Notes an error for a text that is not one of the known words.
pub(super) fn check_word(
    value: &str,
    known: &[&str],
    key: &str,
    message: &str,
    node: &Node,
    cx: &mut Context,
) {
    if !known.contains(&value) {
        cx.error(node.place_of(key), message);
    }
}

/// Exactly one of two must be given.
fn check_secret_pair(secret: &Secret, file: &FilePath, node: &Node, cx: &mut Context) {
    if secret.is_empty() && file.is_empty() {
        cx.error(node.at, "one of secret_key & secret_key_file must be configured");
    }
    if !secret.is_empty() && !file.is_empty() {
        cx.error(
            node.place_of("secret_key"),
            "at most one of secret_key & secret_key_file must be configured",
        );
    }
}

section! {
    /// An item of `azure_sd_configs`.
    pub struct AzureSdConfig("azure_sd_config") check check_azure {
        /// Cloud.
        environment: String = "AzurePublicCloud".into(),
        /// Port of targets.
        port: u16 = 80; always,
        /// Subscription.
        subscription_id: String; always,
        /// Tenant.
        tenant_id: String,
        /// Identity.
        client_id: String,
        /// Secret.
        client_secret: Secret,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(300),
        /// `OAuth`, `ManagedIdentity`, `SDK` or `WorkloadIdentity`.
        authentication_method: String = "OAuth".into(),
        /// Resource group; all when empty.
        resource_group: String,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_azure(config: &mut AzureSdConfig, node: &Node, cx: &mut Context) {
    let require = |value: &str, name: &str, cx: &mut Context| {
        if value.is_empty() {
            cx.error(node.place_of(name), format!("azure SD configuration requires a {name}"));
        }
    };
    require(&config.subscription_id, "subscription_id", cx);
    match config.authentication_method.as_str() {
        "OAuth" => {
            require(&config.tenant_id, "tenant_id", cx);
            require(&config.client_id, "client_id", cx);
            require(config.client_secret.expose(), "client_secret", cx);
        }
        "ManagedIdentity" | "SDK" | "WorkloadIdentity" => {}
        other => {
            let message = format!(
                "unknown authentication_type {other:?}. Supported types are \"OAuth\", \"ManagedIdentity\", \"SDK\" or \
                 \"WorkloadIdentity\""
            );
            cx.error(node.place_of("authentication_method"), message);
        }
    }
}

section! {
    /// An item of `gce_sd_configs`.
    pub struct GceSdConfig("gce_sd_config") check check_gce {
        /// Project.
        project: String; always,
        /// Zone.
        zone: String; always,
        /// Filter.
        filter: String,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// What joins tags.
        tag_separator: String = ",".into(),
    }
}

fn check_gce(config: &mut GceSdConfig, node: &Node, cx: &mut Context) {
    if config.project.is_empty() {
        cx.error(node.at, "GCE SD configuration requires a project");
    }
    if config.zone.is_empty() {
        cx.error(node.at, "GCE SD configuration requires a zone");
    }
}

section! {
    /// An item of `openstack_sd_configs`.
    pub struct OpenstackSdConfig("openstack_sd_config") check check_openstack {
        /// Address of the identity service.
        identity_endpoint: String,
        /// User name.
        username: String,
        /// User.
        userid: String,
        /// Password.
        password: Secret,
        /// Name of the project.
        project_name: String,
        /// Project.
        project_id: String,
        /// Name of the domain.
        domain_name: String,
        /// Domain.
        domain_id: String,
        /// Name of the application credential.
        application_credential_name: String,
        /// Application credential.
        application_credential_id: String,
        /// Its secret.
        application_credential_secret: Secret,
        /// `instance`, `hypervisor` or `loadbalancer`.
        role: String; always,
        /// Region.
        region: String; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Whether all projects are asked.
        all_tenants: bool,
        /// TLS of the API.
        tls_config: crate::config::TlsConfig,
        /// `public`, `admin` or `internal`.
        availability: String = "public".into(),
    }
}

fn check_openstack(config: &mut OpenstackSdConfig, node: &Node, cx: &mut Context) {
    match config.role.as_str() {
        "instance" | "hypervisor" | "loadbalancer" => {}
        "" => cx.error(node.at, "role missing (one of: instance, hypervisor, loadbalancer)"),
        other => cx.error(node.place_of("role"), format!("unknown OpenStack SD role {other:?}")),
    }
    let known = ["public", "internal", "admin"];
    let message =
        format!("unknown availability {}, must be one of admin, internal or public", config.availability);
    check_word(&config.availability, &known, "availability", &message, node, cx);
    if config.region.is_empty() {
        cx.error(node.at, "openstack SD configuration requires a region");
    }
}

section! {
    /// An item of `digitalocean_sd_configs`.
    pub struct DigitalOceanSdConfig("digitalocean_sd_config") check check_digitalocean {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// `droplets` or `databases`.
        role: String = "droplets".into(),
    }
}

fn check_digitalocean(config: &mut DigitalOceanSdConfig, node: &Node, cx: &mut Context) {
    let message = format!("unknown role {:?}", config.role);
    check_word(&config.role, &["droplets", "databases"], "role", &message, node, cx);
}

section! {
    /// An item of `hetzner_sd_configs`.
    pub struct HetznerSdConfig("hetzner_sd_config") check check_hetzner {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// `robot` or `hcloud`.
        role: String; always,
        /// Selector over labels of servers.
        label_selector: String,
    }
}

fn check_hetzner(config: &mut HetznerSdConfig, node: &Node, cx: &mut Context) {
    if config.role.is_empty() {
        cx.error(node.at, "role missing (one of: robot, hcloud)");
    } else {
        let message = format!("unknown role {:?}", config.role);
        check_word(&config.role, &["robot", "hcloud"], "role", &message, node, cx);
    }
}

section! {
    /// An item of `linode_sd_configs`.
    pub struct LinodeSdConfig("linode_sd_config") {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// What joins tags.
        tag_separator: String = ",".into(),
        /// Region; all when empty.
        region: String,
    }
}

section! {
    /// An item of `vultr_sd_configs`.
    pub struct VultrSdConfig("vultr_sd_config") {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
    }
}

section! {
    /// An item of `scaleway_sd_configs`.
    pub struct ScalewaySdConfig("scaleway_sd_config") check check_scaleway {
        /// Project.
        project_id: String; always,
        /// Address of the API.
        api_url: String = "https://api.scaleway.com".into(); always,
        /// Zone.
        zone: String = "fr-par-1".into(); always,
        /// Access key.
        access_key: String; always,
        /// Secret key.
        secret_key: Secret,
        /// File with the secret key.
        secret_key_file: FilePath,
        /// Part of the name of instances.
        name_filter: String,
        /// Tags that instances must have.
        tags_filter: Vec<String>,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// `instance` or `baremetal`.
        role: String; always,
    }
}

fn check_scaleway(config: &mut ScalewaySdConfig, node: &Node, cx: &mut Context) {
    if config.role.is_empty() {
        cx.error(node.at, "role missing (one of: instance, baremetal)");
    } else {
        let message = format!("unknown role {:?}", config.role);
        check_word(&config.role, &["instance", "baremetal"], "role", &message, node, cx);
    }
    if config.project_id.is_empty() {
        cx.error(node.at, "project_id is mandatory");
    }
    check_secret_pair(&config.secret_key, &config.secret_key_file, node, cx);
    if config.access_key.is_empty() {
        cx.error(node.at, "access_key is mandatory");
    }
}

section! {
    /// An item of `ovhcloud_sd_configs`.
    pub struct OvhcloudSdConfig("ovhcloud_sd_config") check check_ovhcloud {
        /// Address of the API or its short name.
        endpoint: String = "ovh-eu".into(); always,
        /// Key of the application.
        application_key: String; always,
        /// Secret of the application.
        application_secret: Secret; always,
        /// Key of the consumer.
        consumer_key: Secret; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// `vps` or `dedicated_server`.
        service: String; always,
    }
}

fn check_ovhcloud(config: &mut OvhcloudSdConfig, node: &Node, cx: &mut Context) {
    for (missing, name) in [
        (config.endpoint.is_empty(), "endpoint"),
        (config.application_key.is_empty(), "application_key"),
        (config.application_secret.is_empty(), "application_secret"),
        (config.consumer_key.is_empty(), "consumer_key"),
    ] {
        if missing {
            cx.error(node.at, format!("{name} can not be empty"));
        }
    }
    let message = format!("unknown service: {}", config.service);
    check_word(&config.service, &["vps", "dedicated_server"], "service", &message, node, cx);
}

section! {
    /// An item of `ionos_sd_configs`.
    pub struct IonosSdConfig("ionos_sd_config") check check_ionos {
        /// Datacenter.
        datacenter_id: String; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Address of the API.
        ionos_endpoint: String,
    }
}

fn check_ionos(config: &mut IonosSdConfig, node: &Node, cx: &mut Context) {
    if config.datacenter_id.is_empty() {
        cx.error(node.place_of("datacenter_id"), "datacenter id can't be empty");
    }
}

section! {
    /// An item of `oci_sd_configs`.
    pub struct OciSdConfig("oci_sd_config") check check_oci {
        /// `api_key` or `instance_principal`.
        auth_method: String = "api_key".into(),
        /// Tenancy.
        tenancy: String,
        /// User.
        user: String,
        /// Fingerprint of the key.
        fingerprint: String,
        /// File with the key.
        key_file: FilePath,
        /// Password of the key.
        key_passphrase: Secret,
        /// Region.
        region: String,
        /// Compartments; the whole tenancy when empty.
        compartments: Vec<String>,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_oci(config: &mut OciSdConfig, node: &Node, cx: &mut Context) {
    let message = format!("unknown auth_method {:?}", config.auth_method);
    check_word(&config.auth_method, &["api_key", "instance_principal"], "auth_method", &message, node, cx);
}

section! {
    /// An item of `outscale_sd_configs`.
    pub struct OutscaleSdConfig("outscale_sd_config") check check_outscale {
        /// Region.
        region: String; always,
        /// Address of the API; that of the region when empty.
        endpoint: String,
        /// Access key.
        access_key: String; always,
        /// Secret key.
        secret_key: Secret,
        /// File with the secret key.
        secret_key_file: FilePath,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
    }
}

fn check_outscale(config: &mut OutscaleSdConfig, node: &Node, cx: &mut Context) {
    if config.region.is_empty() {
        cx.error(node.at, "outscale SD configuration requires a region");
    }
    if config.access_key.is_empty() {
        cx.error(node.at, "outscale SD configuration requires access_key");
    }
    check_secret_pair(&config.secret_key, &config.secret_key_file, node, cx);
    if config.endpoint.is_empty() {
        config.endpoint = format!("https://api.{}.outscale.com/api/v1", config.region);
    }
}

section! {
    /// An item of `stackit_sd_configs`.
    pub struct StackitSdConfig("stackit_sd_config") check check_stackit {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Port of targets.
        port: u16 = 80; always,
        /// Region.
        region: String = "eu01".into(); always,
        /// Address of the API; that of the region when empty.
        endpoint: String; always,
        /// Project.
        project: String; always,
        /// Key of the service account.
        service_account_key: Secret; always,
        /// Private key.
        private_key: Secret; always,
        /// File with the key of the service account.
        service_account_key_path: String; always,
        /// File with the private key.
        private_key_path: String; always,
        /// File with credentials.
        credentials_file_path: String; always,
    }
}

fn check_stackit(config: &mut StackitSdConfig, node: &Node, cx: &mut Context) {
    if config.endpoint.is_empty() && config.region.is_empty() {
        cx.error(node.at, "endpoint or region missing");
    }
    if let Err(reason) = ConfigUrl::parse(&config.endpoint) {
        cx.error(node.place_of("endpoint"), format!("invalid endpoint {:?}: {reason}", config.endpoint));
    }
}
