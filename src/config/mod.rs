//! The room `config`: `prometheus.yml`, the files it pulls in, rule files and the web configuration as validated
//! types. Errors name file, line and column, show the line, and are reported all at once.

mod error;
/// The HTTP client block.
pub mod http;
mod load;
/// Relabelling rules from YAML.
pub mod relabel;
/// `remote_write` and `remote_read`.
pub mod remote;
/// Files of rule unit tests.
pub mod rule_tests;
/// Rule files.
pub mod rules;
/// `global` and `scrape_configs`.
pub mod scrape;
/// Discovery sections.
pub mod sd;
/// `alerting`, `otlp`, `storage`, `tracing`, `runtime`.
pub mod sections;
#[cfg(test)]
mod tests;
/// Scalar values: durations, sizes, secrets, paths, URLs.
pub mod values;
/// The web configuration file.
pub mod web;
/// YAML to nodes to values and back.
pub mod yaml;

pub use error::{ConfigError, ConfigErrors};
pub use http::{Authorization, BasicAuth, HttpClientConfig, OAuth2, ProxyConfig, TlsConfig, TlsVersion};
pub use load::{Config, LoadOptions, expand_pattern};
pub use relabel::RelabelConfig;
pub use remote::{
    AzureAdConfig, GoogleIamConfig, MetadataConfig, QueueConfig, RemoteReadConfig, RemoteWriteConfig,
    RemoteWriteMessage, SigV4Config,
};
pub use rules::{Rule, RuleFile, RuleGroup, RuleOptions};
pub use scrape::{EscapingScheme, GlobalConfig, ScrapeConfig, ScrapeProtocol};
pub use sd::{DnsSdConfig, FileSdConfig, HttpSdConfig, SdConfig, SdConfigs, StaticConfig};
pub use sections::{
    AlertingConfig, AlertmanagerConfig, FloatEncoding, OtlpConfig, RetentionConfig, StorageConfig,
    TracingClientType, TracingConfig, TranslationStrategy, TsdbConfig,
};
pub use values::{ByteSize, ConfigUrl, FilePath, LabelMap, PromDuration, Secret};
pub use web::{ClientAuthType, HttpServerConfig, RateLimitConfig, TlsServerConfig, WebConfig};
