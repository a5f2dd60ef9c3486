//! Which URLs are alerts posted to? Discovered target groups pass a section's relabelling and become Alertmanager
//! URLs; a client of the section posts to them.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::notifier::{AlertmanagerSet, Poster};
use super::silences::SilenceDoor;
use crate::config::sections::AlertmanagerConfig;
use crate::model::LabelsBuilder;
use crate::model::relabel::process;
use crate::model::target_group::TargetGroup;
use crate::net::{BodyBuffer, ClientOptions, Dialer, HttpClient, NetError, Request};
use crate::telemetry::Registry;
use crate::telemetry::spans::SpanContext;

const ADDRESS: &str = "__address__";
const SCHEME: &str = "__scheme__";
const ALERTS_PATH: &str = "__alerts_path__";

/// Posts with the client of a configuration section.
#[derive(Debug)]
struct HttpPoster {
    client: HttpClient,
    timeout: Duration,
}

impl Poster for HttpPoster {
    fn post(&self, url: String, body: Vec<u8>) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        Box::pin(async move {
            let mut request = Request::post(&url, body.into(), timeout);
            request
                .headers
                .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            request.max_body = 1 << 20;
            request.trace = Some(SpanContext::Outside);
            let mut answer = BodyBuffer::new();
            let fetched = client.fetch(request, &mut answer).await.map_err(|e| e.to_string())?;
            if fetched.status.is_success() {
                return Ok(());
            }
            let reason: String = String::from_utf8_lossy(answer.bytes()).chars().take(200).collect();
            Err(format!("bad response status {}: {}", fetched.status, reason.trim()))
        })
    }
}

/// A section of `alerting.alertmanagers`, ready to turn discovered groups into Alertmanagers.
pub struct AlertmanagerSection {
    config: AlertmanagerConfig,
    client: HttpClient,
    poster: Arc<dyn Poster>,
}

/// Result of [`AlertmanagerSection::resolve`].
pub struct Resolved {
    /// Active Alertmanagers.
    pub set: AlertmanagerSet,
    /// URLs of those that relabelling dropped.
    pub dropped: Vec<String>,
}

impl AlertmanagerSection {
    /// Builds the client of a section.
    pub fn new(config: &AlertmanagerConfig, registry: &Registry) -> Result<Self, NetError> {
        let authenticator = crate::net::cloud::authenticator_for(config.sigv4.as_ref(), "aps", None, None)?;
        let dialer = Some(Dialer::new(registry, "alertmanager"));
        let options = ClientOptions { authenticator, dialer, ..ClientOptions::default() };
        let client = HttpClient::from_config(&config.http, options)?;
        let timeout = config.timeout.as_std();
        let poster = Arc::new(HttpPoster { client: client.clone(), timeout });
        Ok(Self { config: config.clone(), client, poster })
    }

    /// The silences of the Alertmanager that takes alerts at `alerts_url`.
    #[must_use]
    pub fn silences(&self, alerts_url: &str) -> SilenceDoor {
        SilenceDoor {
            alerts_url: alerts_url.to_owned(),
            client: self.client.clone(),
            timeout: self.config.timeout.as_std(),
        }
    }

    /// Applies the section's relabelling to discovered groups.
    #[must_use]
    pub fn resolve(&self, groups: &[TargetGroup]) -> Resolved {
        let prefix = self.config.path_prefix.trim_matches('/');
        let path =
            if prefix.is_empty() { "/api/v2/alerts".into() } else { format!("/{prefix}/api/v2/alerts") };
        let (mut urls, mut dropped) = (BTreeSet::new(), BTreeSet::new());
        for group in groups {
            for target in &group.targets {
                let mut labels = LabelsBuilder::default();
                for (name, value) in group.labels.iter().chain(target) {
                    labels.set(name, value);
                }
                for (name, value) in [(SCHEME, self.config.scheme.as_str()), (ALERTS_PATH, &path)] {
                    if labels.value(name).is_empty() {
                        labels.set(name, value);
                    }
                }
                let before = url_of(&labels);
                if process(&mut labels, &self.config.relabel_configs) {
                    if labels.value(ADDRESS).is_empty() {
                        tracing::warn!("An Alertmanager target without address was left out");
                        continue;
                    }
                    urls.insert(url_of(&labels));
                } else {
                    dropped.insert(before);
                }
            }
        }
        let set = AlertmanagerSet {
            urls: urls.into_iter().collect(),
            relabel: Arc::from(self.config.alert_relabel_configs.clone()),
            poster: Arc::clone(&self.poster),
        };
        Resolved { set, dropped: dropped.into_iter().collect() }
    }
}

fn url_of(labels: &LabelsBuilder) -> String {
    format!("{}://{}{}", labels.value(SCHEME), labels.value(ADDRESS), labels.value(ALERTS_PATH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::relabel::parse_rules;
    use crate::model::relabel::NameScheme;
    use std::collections::BTreeMap;

    #[test]
    fn discovered_targets_become_urls() {
        crate::net::install_crypto_provider();
        let rules = "- {source_labels: [__address__], regex: 'drop.*', action: drop}\n\
                     - {source_labels: [port], regex: '(.+)', target_label: __address__, replacement: 'am:$1'}";
        let config = AlertmanagerConfig {
            path_prefix: "/am/".into(),
            relabel_configs: parse_rules(rules, NameScheme::Utf8).expect("valid rules"),
            ..AlertmanagerConfig::default()
        };
        let section = AlertmanagerSection::new(&config, &Registry::new()).expect("a client");
        let target = |address: &str, port: &str| {
            BTreeMap::from([
                ("__address__".to_owned(), address.to_owned()),
                ("port".to_owned(), port.to_owned()),
            ])
        };
        let group = TargetGroup {
            source: "s".into(),
            targets: vec![target("a:9093", ""), target("b:9093", "1"), target("drop:1", "")],
            labels: BTreeMap::new(),
        };
        let resolved = section.resolve(&[group]);
        assert_eq!(resolved.set.urls, ["http://a:9093/am/api/v2/alerts", "http://am:1/am/api/v2/alerts"]);
        assert_eq!(resolved.dropped, ["http://drop:1/am/api/v2/alerts"]);
    }
}
