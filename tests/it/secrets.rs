//! Secrets stay secret: canaries stand in every secret field of a configuration, and no endpoint, log line at debug
//! level, metric or error text may show one.

use super::server::Server;
use super::world::{PATIENCE, request, until};

/// What every canary contains.
const CANARY: &str = "cAnArY";

fn config(dead: &str) -> String {
    let canary = |name: &str| format!("{CANARY}-{name}");
    let http = |name: &str, kind: &str| match kind {
        "basic" => format!("basic_auth: {{username: u, password: {}}}", canary(name)),
        "bearer" => format!("authorization: {{credentials: {}}}", canary(name)),
        "token" => format!("bearer_token: {}", canary(name)),
        "oauth" => format!(
            "oauth2: {{client_id: c, client_secret: {}, token_url: 'http://u:{}@{dead}/token'}}",
            canary(name),
            canary(&format!("{name}-url"))
        ),
        "headers" => format!("http_headers: {{X-Key: {{secrets: [{}]}}}}", canary(name)),
        "proxy" => format!(
            "proxy_url: 'http://u:{}@{dead}'\n    proxy_connect_header: {{Proxy-Authorization: [{}]}}",
            canary(name),
            canary(&format!("{name}-header"))
        ),
        other => unreachable!("{other}"),
    };
    let kinds = ["basic", "bearer", "token", "oauth", "headers", "proxy"];
    let mut out = String::from("global: {scrape_interval: 1s, scrape_timeout: 1s}\nscrape_configs:\n");
    for kind in kinds {
        let auth = http(&format!("scrape-{kind}"), kind);
        out.push_str(&format!(
            "  - job_name: {kind}\n    {auth}\n    static_configs: [{{targets: ['{dead}']}}]\n"
        ));
    }
    out.push_str(&format!(
        "  - job_name: tls\n    scheme: https\n    tls_config: {{insecure_skip_verify: true}}\n    \
         static_configs: [{{targets: ['{dead}']}}]\n"
    ));
    out.push_str(&format!(
        "  - job_name: discovered\n    http_sd_configs: [{{url: 'http://u:{}@{dead}/sd', {}}}]\n    \
         consul_sd_configs: [{{server: '{dead}', token: {}}}]\n",
        canary("sd-url"),
        http("sd", "bearer"),
        canary("consul")
    ));
    out.push_str(&format!(
        "alerting:\n  alertmanagers:\n  - {}\n    static_configs: [{{targets: ['{dead}']}}]\n",
        http("alerting", "basic")
    ));
    out.push_str(&format!(
        "remote_write:\n  - url: 'http://u:{}@{dead}/w?token=1'\n    {}\n    headers: {{X-Scope: a}}\n  \
         - url: 'http://{dead}/w2'\n    sigv4: {{region: r, access_key: a, secret_key: {}}}\n",
        canary("write-url"),
        http("write", "bearer"),
        canary("sigv4")
    ));
    out.push_str(&format!(
        "remote_read:\n  - url: 'http://u:{}@{dead}/r'\n    {}\n",
        canary("read-url"),
        http("read", "oauth")
    ));
    out
}

/// Every path that answers GET, with parameters that make it say much.
const PATHS: &[&str] = &[
    "/",
    "/metrics",
    "/version",
    "/-/healthy",
    "/-/ready",
    "/federate?match[]={__name__!=\"\"}",
    "/api/v1/status/config",
    "/api/v1/status/flags",
    "/api/v1/status/runtimeinfo",
    "/api/v1/status/buildinfo",
    "/api/v1/status/tsdb",
    "/api/v1/status/tsdb/blocks",
    "/api/v1/status/walreplay",
    "/api/v1/status/self_metrics",
    "/api/v1/features",
    "/api/v1/notifications",
    "/api/v1/openapi.yaml",
    "/api/v1/targets",
    "/api/v1/targets/metadata",
    "/api/v1/targets/relabel_steps?scrapePool=basic&labels={}",
    "/api/v1/scrape_pools",
    "/api/v1/scrape_pools/config?scrapePool=basic",
    "/api/v1/scrape_pools/config?scrapePool=bearer",
    "/api/v1/scrape_pools/config?scrapePool=token",
    "/api/v1/scrape_pools/config?scrapePool=oauth",
    "/api/v1/scrape_pools/config?scrapePool=headers",
    "/api/v1/scrape_pools/config?scrapePool=proxy",
    "/api/v1/scrape_pools/config?scrapePool=discovered",
    "/api/v1/rules",
    "/api/v1/alerts",
    "/api/v1/alertmanagers",
    "/api/v1/metadata",
    "/api/v1/labels",
    "/api/v1/series?match[]={__name__!=\"\"}",
    "/api/v1/label/url/values",
    "/api/v1/label/config/values",
    "/api/v1/query?query={__name__=~\".%2B\"}",
];

#[test]
fn no_endpoint_log_or_metric_shows_one() {
    // A port where nobody listens: all of it fails, and failures talk most.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let dead = free.local_addr().expect("an address").to_string();
    drop(free);
    let text = config(&dead);
    let planted = text.matches(CANARY).count();
    assert!(planted >= 18, "only {planted} canaries");
    let server =
        Server::start(&text, &["--log.level=debug", "--web.enable-lifecycle", "--web.enable-admin-api"]);
    until("every job has failed once", PATIENCE, || {
        let answer =
            request(&server.address, "GET", "/api/v1/targets", &[], b"").map_err(|e| e.to_string())?;
        let unknown = answer.text().matches("\"health\":\"unknown\"").count();
        if unknown == 0 { Ok(()) } else { Err(format!("{unknown} not scraped yet")) }
    });
    let mut leaks = Vec::new();
    let mut look = |place: &str, text: &str| {
        if let Some(at) = text.find(CANARY) {
            let part: String = text.get(at.saturating_sub(80)..).unwrap_or(text).chars().take(160).collect();
            leaks.push(format!("{place}: …{part}…"));
        }
    };
    for path in PATHS {
        let answer = server.get(path);
        assert_ne!(answer.status, 404, "{path}");
        look(path, &answer.text());
        look(path, &format!("{:?}", answer.headers));
    }
    // A reload that fails, and one that works.
    let file = server.path().join("prometheus.yml");
    std::fs::write(
        &file,
        format!("{text}nonsense: {CANARY}-x\n").replace("nonsense: cAnArY-x", "nonsense: 1"),
    )
    .expect("written");
    let answer = server.send("POST", "/-/reload", &[], b"");
    assert_eq!(answer.status, 500, "{}", answer.text());
    look("failed reload", &answer.text());
    std::fs::write(&file, &text).expect("written");
    assert_eq!(server.send("POST", "/-/reload", &[], b"").status, 200);
    server.signal("TERM");
    for line in server.rest_of_log() {
        look("log", &line);
    }
    assert!(leaks.is_empty(), "{} leaks:\n{}", leaks.len(), leaks.join("\n"));
}
