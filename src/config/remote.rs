//! Where do samples go to and come from? `remote_write` and `remote_read`, with the cloud providers' ways to sign.

use std::collections::BTreeMap;

use super::http::HttpClientConfig;
use super::relabel::{RelabelConfig, check_rules};
use super::values::{ConfigUrl, FilePath, LabelMap, PromDuration, Secret};
use super::yaml::section::{section, words};
use super::yaml::{Context, Node};
use crate::model::relabel::NameScheme;

section! {
    /// `sigv4`: requests signed for AWS.
    pub struct SigV4Config("sigv4") check check_sigv4 {
        /// Region; found out when empty.
        region: String,
        /// Access key.
        access_key: String,
        /// Secret key.
        secret_key: Secret,
        /// Profile of the shared credentials.
        profile: String,
        /// Role to assume.
        role_arn: String,
        /// External identity for assuming the role.
        external_id: String,
        /// Whether the token service is asked at its FIPS endpoint.
        use_fips_sts_endpoint: bool,
    }
}

fn check_sigv4(sigv4: &mut SigV4Config, node: &Node, cx: &mut Context) {
    if sigv4.access_key.is_empty() != sigv4.secret_key.is_empty() {
        let message = "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 config";
        cx.error(node.at, message);
    }
}

section! {
    /// `azuread.managed_identity`.
    pub struct AzureManagedIdentity("managed_identity") {
        /// Identity; that of the machine when empty.
        client_id: String,
    }
}

section! {
    /// `azuread.workload_identity`.
    pub struct AzureWorkloadIdentity("workload_identity") {
        /// Identity.
        client_id: String,
        /// Tenant.
        tenant_id: String,
        /// File with the token to exchange.
        token_file_path: FilePath = FilePath("/var/run/secrets/azure/tokens/azure-identity-token".into()),
    }
}

section! {
    /// `azuread.oauth`.
    pub struct AzureOAuth("oauth") {
        /// Identity.
        client_id: String,
        /// Secret.
        client_secret: Secret,
        /// Tenant.
        tenant_id: String,
    }
}

section! {
    /// `azuread.certificate`.
    pub struct AzureCertificate("certificate") {
        /// Identity.
        client_id: String,
        /// Tenant.
        tenant_id: String,
        /// File with certificate and key.
        certificate_path: FilePath,
        /// Password of that file.
        certificate_password: Secret,
        /// Whether the chain is sent along.
        send_certificate_chain: bool,
    }
}

section! {
    /// `azuread.sdk`.
    pub struct AzureSdk("sdk") {
        /// Tenant.
        tenant_id: String,
    }
}

section! {
    /// `azuread`: tokens from Microsoft's directory.
    pub struct AzureAdConfig("azuread") check check_azuread {
        /// Identity of a machine.
        managed_identity: Option<AzureManagedIdentity>,
        /// Identity of a Kubernetes workload.
        workload_identity: Option<AzureWorkloadIdentity>,
        /// Identity of an application.
        oauth: Option<AzureOAuth>,
        /// Identity of an application by certificate.
        certificate: Option<AzureCertificate>,
        /// Whatever identity the machine offers.
        sdk: Option<AzureSdk>,
        /// `AzurePublic`, `AzureChina` or `AzureGovernment`.
        cloud: String = "AzurePublic".into(),
        /// Scope to ask for; that of the cloud when empty.
        scope: String,
    }
}

fn check_azuread(azure: &mut AzureAdConfig, node: &Node, cx: &mut Context) {
    if !matches!(azure.cloud.as_str(), "AzurePublic" | "AzureChina" | "AzureGovernment") {
        cx.error(node.place_of("cloud"), "must provide a cloud in the Azure AD config");
    }
    let given = [
        azure.managed_identity.is_some(),
        azure.workload_identity.is_some(),
        azure.oauth.is_some(),
        azure.certificate.is_some(),
        azure.sdk.is_some(),
    ];
    match given.iter().filter(|g| **g).count() {
        0 => cx.error(
            node.at,
            "must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth, Azure certificate or Azure \
             SDK in the Azure AD config",
        ),
        1 => {}
        _ => cx.error(node.at, "cannot provide multiple authentication methods in the Azure AD config"),
    }
    if let Some(oauth) = &azure.oauth {
        for (value, name) in [(&oauth.client_id, "client_id"), (&oauth.tenant_id, "tenant_id")] {
            if value.is_empty() {
                cx.error(
                    node.place_of("oauth"),
                    format!("must provide an Azure OAuth {name} in the Azure AD config"),
                );
            }
        }
        if oauth.client_secret.is_empty() {
            cx.error(
                node.place_of("oauth"),
                "must provide an Azure OAuth client_secret in the Azure AD config",
            );
        }
    }
}

section! {
    /// `google_iam`.
    pub struct GoogleIamConfig("google_iam") {
        /// File with credentials; those of the machine when empty.
        credentials_file: FilePath,
    }
}

words! {
    /// Which protobuf message is sent.
    pub enum RemoteWriteMessage {
        /// Remote write 1.0.
        V1 = "prometheus.WriteRequest",
        /// Remote write 2.0.
        V2 = "io.prometheus.write.v2.Request",
    } else |text| format!(
        "invalid protobuf_message value: unknown type for remote write protobuf message {text}, supported: \
         prometheus.WriteRequest, io.prometheus.write.v2.Request"
    )
}

section! {
    /// `queue_config` of a remote write.
    pub struct QueueConfig("queue_config") check check_queue {
        /// Samples that a shard buffers.
        capacity: i64 = 10_000,
        /// Most shards.
        max_shards: i64 = 50,
        /// Fewest shards.
        min_shards: i64 = 1,
        /// Most samples of a request.
        max_samples_per_send: i64 = 2000,
        /// How long a sample waits for a full request.
        batch_send_deadline: PromDuration = PromDuration::seconds(5),
        /// First wait before a retry.
        min_backoff: PromDuration = PromDuration(30),
        /// Longest wait before a retry.
        max_backoff: PromDuration = PromDuration::seconds(5),
        /// Whether status 429 is retried.
        retry_on_http_429: bool,
        /// Samples older than this are dropped; 0 keeps all.
        sample_age_limit: PromDuration,
    }
}

fn check_queue(queue: &mut QueueConfig, node: &Node, cx: &mut Context) {
    for (value, name) in [
        (queue.capacity, "capacity"),
        (queue.max_shards, "max_shards"),
        (queue.min_shards, "min_shards"),
        (queue.max_samples_per_send, "max_samples_per_send"),
        (queue.batch_send_deadline.0, "batch_send_deadline"),
        (queue.min_backoff.0, "min_backoff"),
        (queue.max_backoff.0, "max_backoff"),
    ] {
        if value <= 0 {
            cx.error(node.place_of(name), format!("remote write queue {name} must be positive"));
        }
    }
    if queue.min_shards > queue.max_shards {
        let message = "remote write queue min_shards must be less than or equal to max_shards";
        cx.error(node.place_of("min_shards"), message);
    }
    if queue.min_backoff > queue.max_backoff {
        let message = "remote write queue min_backoff must be less than or equal to max_backoff";
        cx.error(node.place_of("min_backoff"), message);
    }
}

section! {
    /// `metadata_config` of a remote write, for messages of version 1.
    pub struct MetadataConfig("metadata_config") {
        /// Whether metadata is sent.
        send: bool = true; always,
        /// How often.
        send_interval: PromDuration = PromDuration::seconds(60),
        /// Most entries of a request.
        max_samples_per_send: i64 = 2000,
    }
}

section! {
    /// One of `remote_write`.
    pub struct RemoteWriteConfig("remote_write") check check_write {
        /// Where to.
        url: ConfigUrl; always,
        /// How long a request may take.
        remote_timeout: PromDuration = PromDuration::seconds(30),
        /// Further headers.
        headers: BTreeMap<String, String>,
        /// Rules over samples before they are queued.
        write_relabel_configs: Vec<RelabelConfig>,
        /// Name in metrics; made from the section when empty.
        name: String,
        /// Whether exemplars are sent.
        send_exemplars: bool,
        /// Whether native histograms are sent.
        send_native_histograms: bool,
        /// Whether each connection picks one of the addresses of the host in turn.
        round_robin_dns: bool,
        /// Which message is sent.
        protobuf_message: RemoteWriteMessage = RemoteWriteMessage::V1,
        /// Whether failed requests are logged in full.
        failed_request_logging: bool,
        /// Authentication, TLS, proxy; HTTP/2 is off unless asked for.
        http: HttpClientConfig = HttpClientConfig { enable_http2: false, ..HttpClientConfig::default() }; inline,
        /// How samples wait for sending.
        queue_config: QueueConfig,
        /// How metadata is sent.
        metadata_config: MetadataConfig,
        /// Signing for AWS.
        sigv4: Option<SigV4Config>,
        /// Tokens from Microsoft's directory.
        azuread: Option<AzureAdConfig>,
        /// Tokens from Google.
        google_iam: Option<GoogleIamConfig>,
    }
}

/// Headers that remote storage sets itself.
const RESERVED_HEADERS: [&str; 14] = [
    "host",
    "content-encoding",
    "content-length",
    "content-type",
    "user-agent",
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "www-authenticate",
    "accept-encoding",
    "x-prometheus-remote-write-version",
    "x-prometheus-remote-read-version",
    "x-prometheus-scrape-timeout-seconds",
];

pub(super) fn check_headers<'h>(
    names: impl Iterator<Item = &'h String>,
    authorization: &str,
    node: &Node,
    cx: &mut Context,
) {
    for name in names {
        let at = node.get("headers").and_then(|h| h.get(name)).map_or(node.at, |n| n.at);
        let lower = name.to_ascii_lowercase();
        if lower == "authorization" {
            cx.error(at, authorization);
        } else if RESERVED_HEADERS.contains(&lower.as_str()) {
            cx.error(at, format!("{name} is a reserved header. It must not be changed"));
        }
    }
}

fn check_write(write: &mut RemoteWriteConfig, node: &Node, cx: &mut Context) {
    if write.url.is_empty() {
        cx.error(node.place_of("url"), "url for remote_write is empty");
    }
    let message = "authorization header must be changed via the basic_auth, authorization, oauth2, sigv4, azuread or \
                   google_iam parameter";
    check_headers(write.headers.keys(), message, node, cx);
    let what = "relabeling rule in remote write config";
    check_rules(&mut write.write_relabel_configs, NameScheme::Utf8, node, "write_relabel_configs", what, cx);
    let kinds = [
        write.http.auth_kind().is_some(),
        write.sigv4.is_some(),
        write.azuread.is_some(),
        write.google_iam.is_some(),
    ];
    if kinds.iter().filter(|k| **k).count() > 1 {
        let message = "at most one of basic_auth, authorization, oauth2, sigv4, azuread or google_iam must be configured";
        cx.error(node.at, message);
    }
}

section! {
    /// One of `remote_read`.
    pub struct RemoteReadConfig("remote_read") check check_read {
        /// Where from.
        url: ConfigUrl; always,
        /// How long a request may take.
        remote_timeout: PromDuration = PromDuration::seconds(60),
        /// Largest frame of a streamed answer in bytes.
        chunked_read_limit: u64 = 50_000_000,
        /// Further headers.
        headers: BTreeMap<String, String>,
        /// Whether ranges that local storage has in full are asked for too.
        read_recent: bool,
        /// Name in metrics; made from the section when empty.
        name: String,
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// Matchers that a selector must have for this source to be asked.
        required_matchers: LabelMap,
        /// Whether external labels become matchers and are taken off the answer.
        filter_external_labels: bool = true,
    }
}

fn check_read(read: &mut RemoteReadConfig, node: &Node, cx: &mut Context) {
    if read.url.is_empty() {
        cx.error(node.place_of("url"), "url for remote_read is empty");
    }
    let message =
        "authorization header must be changed via the basic_auth, authorization or oauth2 parameter";
    check_headers(read.headers.keys(), message, node, cx);
}
