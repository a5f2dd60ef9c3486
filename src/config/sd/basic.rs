//! The mechanisms that need no other product: static lists, files, HTTP endpoints, DNS.

use std::path::Path;

use crate::config::http::HttpClientConfig;
use crate::config::values::{ConfigUrl, FilePath, LabelMap, PromDuration};
use crate::config::yaml::section::{section, words};
use crate::config::yaml::{Context, Node};
use crate::model::target_group::TargetGroup;

section! {
    /// An item of `static_configs`: targets that share labels.
    pub struct StaticConfig("static_config") {
        /// Addresses, host and port.
        targets: Vec<String>; always,
        /// Labels of all of them.
        labels: LabelMap,
    }
}

impl StaticConfig {
    /// As the group that discovery hands out; the source is the index of the entry, as in Prometheus.
    #[must_use]
    pub fn to_group(&self, index: usize) -> TargetGroup {
        TargetGroup {
            source: index.to_string(),
            targets: self
                .targets
                .iter()
                .map(|t| std::iter::once(("__address__".to_owned(), t.clone())).collect())
                .collect(),
            labels: self.labels.0.clone(),
        }
    }
}

section! {
    /// An item of `file_sd_configs`.
    pub struct FileSdConfig("file_sd_config") check check_file {
        /// Files, or patterns with one `*` in the last segment.
        files: Vec<FilePath>; always,
        /// How often files are read again besides being watched.
        refresh_interval: PromDuration = PromDuration::seconds(300),
    }
}

/// Whether a path is one that file discovery and rule files accept: `*` once, and only in the last segment.
pub(in crate::config) fn is_glob_in_last_segment(path: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    !folder.contains('*') && name.matches('*').count() <= 1
}

fn check_file(file: &mut FileSdConfig, node: &Node, cx: &mut Context) {
    if file.files.is_empty() {
        cx.error(node.at, "file service discovery config must contain at least one path name");
    }
    for (path, item) in file.files.iter().zip(node.get("files").map_or(&[][..], Node::items)) {
        let extension = Path::new(&path.0).extension().and_then(|e| e.to_str()).unwrap_or_default();
        let name = path.0.rsplit('/').next().unwrap_or_default();
        let known = matches!(extension.to_ascii_lowercase().as_str(), "json" | "yml" | "yaml")
            && !name.starts_with('.');
        if !known || !is_glob_in_last_segment(&path.0) {
            let shown = item.text().unwrap_or_default();
            cx.error(item.at, format!("path name {shown:?} is not valid for file discovery"));
        }
    }
}

section! {
    /// An item of `http_sd_configs`.
    pub struct HttpSdConfig("http_sd_config") check check_http_sd {
        /// Authentication, TLS, proxy.
        http: HttpClientConfig; inline,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(60),
        /// Where the list of target groups is.
        url: ConfigUrl; always,
    }
}

fn check_http_sd(http: &mut HttpSdConfig, node: &Node, cx: &mut Context) {
    let at = node.place_of("url");
    if http.url.is_empty() {
        cx.error(at, "URL is missing");
    } else if !matches!(http.url.scheme(), "http" | "https") {
        cx.error(at, "URL scheme must be 'http' or 'https'");
    } else if http.url.host().is_empty() {
        cx.error(at, "host is missing in URL");
    }
}

words! {
    /// Kind of DNS record to ask for.
    pub enum DnsType {
        /// Host and port.
        Srv = "SRV",
        /// IPv4 addresses.
        A = "A",
        /// IPv6 addresses.
        Aaaa = "AAAA",
        /// Mail servers.
        Mx = "MX",
        /// Name servers.
        Ns = "NS",
    } else |text| format!("invalid DNS-SD records type {text}")
}

section! {
    /// An item of `dns_sd_configs`.
    pub struct DnsSdConfig("dns_sd_config") check check_dns {
        /// Names to look up.
        names: Vec<String>; always,
        /// How often to ask.
        refresh_interval: PromDuration = PromDuration::seconds(30),
        /// Kind of record.
        record_type as "type": DnsType = DnsType::Srv,
        /// Port of the targets, needed unless the records have one.
        port: u16; always,
    }
}

fn check_dns(dns: &mut DnsSdConfig, node: &Node, cx: &mut Context) {
    if dns.names.is_empty() {
        cx.error(node.at, "DNS-SD config must contain at least one SRV record name");
    }
    if dns.port == 0 && dns.record_type != DnsType::Srv {
        let message = format!("a port is required in DNS-SD configs for record type {}", dns.record_type);
        cx.error(node.at, message);
    }
}
