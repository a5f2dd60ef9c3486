//! How is the client beneath made from the settings of a block: TLS, proxies, pools?

use std::error::Error as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::dialer::RoundRobin;
use super::error::NetError;
use super::kept::chain;
use super::request::ClientOptions;
use super::secrets::Fingerprint;
use super::tls;
use crate::config::{ProxyConfig, TlsConfig};

/// The useful texts of an error chain: what is behind the library's own words.
pub(super) fn cause(error: &reqwest::Error) -> String {
    error.source().map_or_else(|| error.to_string(), chain)
}

/// The certificate files of a block as they are now.
pub(super) fn files_of(tls: &TlsConfig) -> Vec<Option<Fingerprint>> {
    [&tls.ca_file, &tls.cert_file, &tls.key_file]
        .into_iter()
        .map(|file| if file.is_empty() { None } else { Fingerprint::of(file.as_path()) })
        .collect()
}

fn proxies(proxy: &ProxyConfig) -> Result<Option<reqwest::Proxy>, NetError> {
    if proxy.proxy_url.is_empty() {
        return Ok(None);
    }
    let fail = |e: reqwest::Error| NetError::Build { reason: format!("proxy_url: {}", cause(&e)) };
    let mut out = reqwest::Proxy::all(proxy.proxy_url.expose()).map_err(fail)?;
    if !proxy.no_proxy.is_empty() {
        out = out.no_proxy(reqwest::NoProxy::from_string(&proxy.no_proxy));
    }
    let mut headers = HeaderMap::new();
    for (name, values) in &proxy.proxy_connect_header {
        for value in values {
            headers.append(header_name(name)?, header_value(name, value.expose())?);
        }
    }
    Ok(Some(if headers.is_empty() { out } else { out.headers(headers) }))
}

/// The name of a header.
pub(super) fn header_name(name: &str) -> Result<HeaderName, NetError> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| NetError::Header { name: name.into() })
}

/// The value of a header that must not be printed.
pub(super) fn header_value(name: &str, value: &str) -> Result<HeaderValue, NetError> {
    let mut value = HeaderValue::from_str(value).map_err(|_| NetError::Header { name: name.into() })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A client that connects, encrypts and pools as the settings say, and follows no redirects by itself.
pub(super) fn build(
    tls_config: &TlsConfig,
    proxy: &ProxyConfig,
    enable_http2: bool,
    options: &ClientOptions,
) -> Result<reqwest::Client, NetError> {
    let mut builder = reqwest::Client::builder()
        .tls_backend_preconfigured(tls::client_config(tls_config, enable_http2)?)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .pool_idle_timeout(options.pool_idle_timeout)
        .pool_max_idle_per_host(options.max_idle_per_host)
        .tcp_nodelay(true);
    if !enable_http2 {
        builder = builder.http1_only();
    }
    if let Some(dialer) = &options.dialer {
        builder = builder.connector_layer(dialer.clone());
    }
    if options.round_robin_dns {
        builder = builder.dns_resolver(Arc::new(RoundRobin));
    }
    if options.http2_only {
        builder = builder.http2_prior_knowledge();
    }
    if let Some(limit) = options.connect_timeout {
        builder = builder.connect_timeout(limit);
    }
    if let Some(proxy) = proxies(proxy)? {
        builder = builder.proxy(proxy);
    } else if !proxy.proxy_from_environment {
        builder = builder.no_proxy();
    }
    if let Some(path) = &options.unix_socket {
        builder = builder.unix_socket(path.clone());
    }
    builder.build().map_err(|e| NetError::Build { reason: cause(&e) })
}
