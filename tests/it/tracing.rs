//! Traces as a collector sees them, over HTTP and over gRPC: which spans come, what they belong to, and what is left out.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message as _;

use super::server::Server;
use super::web_security::Authority;
use super::world::{Exporter, PATIENCE, answer_text, until};

#[derive(Clone, PartialEq, prost::Message)]
struct Export {
    #[prost(message, repeated, tag = "1")]
    resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(int64, optional, tag = "3")]
    int: Option<i64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

impl Span {
    fn attribute(&self, key: &str) -> String {
        let value = self.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone());
        let value = value.unwrap_or_default();
        value.text.unwrap_or_else(|| value.int.map(|v| v.to_string()).unwrap_or_default())
    }
}

/// What came in one request.
#[derive(Clone)]
struct Received {
    path: String,
    headers: http::HeaderMap,
    body: Vec<u8>,
}

/// Takes spans, over HTTP/1 and HTTP/2; the first requests are told to come again later.
struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _runtime: tokio::runtime::Runtime,
}

/// TLS that speaks what a collector speaks, with a certificate for its address.
fn tls_of(authority: &Authority) -> tokio_rustls::TlsAcceptor {
    let signed = authority.sign("127.0.0.1");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signed.key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![signed.chain.clone()], key)
        .expect("a pair");
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

impl Collector {
    fn start() -> Self {
        Self::start_with(None)
    }

    fn start_with(tls: Option<tokio_rustls::TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let all = Arc::clone(&received);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let all = Arc::clone(&all);
                let service = hyper::service::service_fn(move |request| take(request, Arc::clone(&all)));
                let tls = tls.clone();
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    // The server hangs up at its end; one that does not trust the certificate does so earlier.
                    let Some(tls) = tls else {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                        return;
                    };
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { address, received, _runtime: runtime }
    }

    fn requests(&self) -> Vec<Received> {
        self.received.lock().expect("whole").clone()
    }

    /// All spans, and the resources they came with.
    fn spans(&self) -> (Vec<Span>, BTreeMap<String, String>) {
        let (mut spans, mut resource) = (Vec::new(), BTreeMap::new());
        for request in self.requests() {
            let export = Export::decode(&*unpacked(&request)).expect("a message");
            for part in export.resources {
                for a in part.resource.unwrap_or_default().attributes {
                    resource.insert(a.key, a.value.unwrap_or_default().text.unwrap_or_default());
                }
                spans.extend(part.scopes.into_iter().flat_map(|s| s.spans));
            }
        }
        (spans, resource)
    }

    fn wait_for(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        until(what, PATIENCE, || {
            let (spans, _) = self.spans();
            let names: Vec<&str> = spans.iter().map(|s| s.name.as_str()).collect();
            spans.iter().find(|s| wanted(s)).cloned().ok_or_else(|| format!("{names:?}"))
        })
    }
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut out).expect("gzip");
    out
}

fn unpacked(request: &Received) -> Vec<u8> {
    let header = |name: &str| request.headers.get(name).map(|v| v.to_str().expect("text"));
    if header("content-type") == Some("application/grpc") {
        let (frame, message) = request.body.split_at(5);
        assert_eq!(u32::from_be_bytes(frame[1..].try_into().expect("four bytes")) as usize, message.len());
        return if frame[0] == 1 { gunzip(message) } else { message.to_vec() };
    }
    assert_eq!(header("content-type"), Some("application/x-protobuf"));
    if header("content-encoding") == Some("gzip") { gunzip(&request.body) } else { request.body.clone() }
}

type Answered = http::Response<http_body_util::combinators::BoxBody<Bytes, Infallible>>;

async fn take(
    request: http::Request<Incoming>,
    all: Arc<Mutex<Vec<Received>>>,
) -> Result<Answered, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes().to_vec();
    all.lock().expect("whole").push(Received {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body,
    });
    let mut frames: Vec<Result<Frame<Bytes>, Infallible>> = Vec::new();
    if parts.version == http::Version::HTTP_2 {
        frames.push(Ok(Frame::data(Bytes::from_static(&[0; 5]))));
        let status = http::HeaderMap::from_iter([(
            http::HeaderName::from_static("grpc-status"),
            http::HeaderValue::from_static("0"),
        )]);
        frames.push(Ok(Frame::trailers(status)));
    }
    let body = StreamBody::new(futures_util::stream::iter(frames));
    Ok(http::Response::new(http_body_util::combinators::BoxBody::new(body)))
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn start(collector: &Collector, options: &str, exporter: &Exporter) -> Server {
    start_in(
        tempfile::tempdir().expect("a folder"),
        collector,
        &format!("insecure: true, {options}"),
        exporter,
    )
}

fn start_in(folder: tempfile::TempDir, collector: &Collector, options: &str, exporter: &Exporter) -> Server {
    let config = format!(
        "global: {{scrape_interval: 200ms, evaluation_interval: 200ms}}\n\
         rule_files: [rules.yml]\n\
         scrape_configs: [{{job_name: e, static_configs: [{{targets: ['{}']}}]}}]\n\
         tracing: {{endpoint: '{}', {options}}}\n",
        exporter.address, collector.address
    );
    std::fs::write(folder.path().join("prometheus.yml"), config).expect("a file");
    let rules = "groups: [{name: g, rules: [{record: 'a:b', expr: 'sum(up)'}]}]";
    std::fs::write(folder.path().join("rules.yml"), rules).expect("a file");
    Server::start_in(folder, &[])
}

fn ask(server: &Server, flags: &str) {
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-{flags}");
    let answer = server.send("GET", "/api/v1/query?query=up", &[("traceparent", &parent)], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// What is expected of either way to send.
fn check(collector: &Collector, server: &Server) {
    ask(server, "01");
    let of_trace = |name: &'static str| {
        move |s: &Span| {
            s.name == name && s.trace_id[..] == 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()
        }
    };
    let request = collector.wait_for("the request", of_trace("GET /api/v1/query"));
    assert_eq!((request.kind, &request.parent[..]), (2, &0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()[..]));
    assert_eq!(request.attribute("http.response.status_code"), "200");
    assert_eq!(request.attribute("url.path"), "/api/v1/query");
    assert!(request.start > 1 << 60 && request.end >= request.start);
    let query = collector.wait_for("the query", of_trace("promqlExec"));
    assert_eq!((query.kind, &query.parent), (1, &request.span_id));
    assert_eq!(query.attribute("query"), "up");
    let eval = collector.wait_for("its evaluation", of_trace("promqlEval"));
    assert_eq!(eval.parent, query.span_id);
    for name in ["promqlPrepare", "promqlInnerEval", "promqlSort"] {
        assert_eq!(collector.wait_for(name, of_trace(name)).parent, eval.span_id, "{name}");
    }
    let rule = collector.wait_for("a rule", |s| s.name == "rule");
    assert_eq!((rule.attribute("name").as_str(), rule.parent.len()), ("a:b", 0));
    collector.wait_for("the rule's query", |s| s.name == "promqlExec" && s.parent == rule.span_id);
    let scrape = collector.wait_for("a scrape", |s| s.name == "HTTP GET");
    assert_eq!((scrape.kind, scrape.attribute("http.response.status_code").as_str()), (3, "200"));
    let (spans, resource) = collector.spans();
    assert_eq!(resource.get("service.name").map(String::as_str), Some("prometheus"));
    let mut ids: Vec<&[u8]> = spans.iter().map(|s| &s.span_id[..]).collect();
    ids.sort_unstable();
    assert!(ids.windows(2).all(|two| two[0] != two[1]), "a span came twice");
}

#[test]
fn spans_go_to_a_collector_over_http() {
    let exporter = Exporter::text(|| "m 1\n".into());
    let collector = Collector::start();
    let options = "client_type: http, sampling_fraction: 1, compression: gzip, headers: {x-tenant: abc}";
    let server = start(&collector, options, &exporter);
    check(&collector, &server);
    let requests = collector.requests();
    assert!(requests.iter().all(|r| r.path == "/v1/traces" && r.headers["x-tenant"] == "abc"));
}

#[test]
fn spans_go_to_a_collector_over_grpc() {
    for compression in ["", "compression: gzip, "] {
        let exporter = Exporter::text(|| "m 1\n".into());
        let collector = Collector::start();
        let server = start(&collector, &format!("{compression}sampling_fraction: 1"), &exporter);
        check(&collector, &server);
        let path = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
        assert!(collector.requests().iter().all(|r| r.path == path && r.headers["te"] == "trailers"));
    }
}

#[test]
fn only_traces_of_others_are_recorded_without_a_fraction() {
    let exporter = Exporter::text(|| "m 1\n".into());
    let collector = Collector::start();
    let server = start(&collector, "client_type: http", &exporter);
    ask(&server, "00");
    ask(&server, "01");
    collector.wait_for("the recorded request", |s| s.name == "GET /api/v1/query");
    let (spans, _) = collector.spans();
    assert!(spans.iter().all(|s| s.trace_id[0] == 0x4b), "{spans:?}");
    assert_eq!(spans.iter().filter(|s| s.name == "GET /api/v1/query").count(), 1);
    // What waits is sent before the process ends.
    ask(&server, "01");
    server.stop();
    let (spans, _) = collector.spans();
    assert_eq!(spans.iter().filter(|s| s.name == "GET /api/v1/query").count(), 2);
}

#[test]
fn collectors_are_reached_through_tls() {
    for client in ["http", "grpc"] {
        let exporter = Exporter::text(|| "m 1\n".into());
        let (authority, stranger) = (Authority::new(), Authority::new());
        for (trusted, signer) in [(true, &authority), (false, &stranger)] {
            let collector = Collector::start_with(Some(tls_of(signer)));
            let folder = tempfile::tempdir().expect("a folder");
            std::fs::write(folder.path().join("ca.crt"), authority.certificate.pem()).expect("written");
            let options =
                format!("client_type: {client}, sampling_fraction: 1, tls_config: {{ca_file: ca.crt}}");
            let server = start_in(folder, &collector, &options, &exporter);
            if trusted {
                check(&collector, &server);
                continue;
            }
            ask(&server, "01");
            server.stop();
            assert!(collector.requests().is_empty(), "{client}: spans went to somebody else");
        }
    }
}

#[test]
fn targets_are_told_their_trace() {
    let told = Arc::new(Mutex::new(Vec::<String>::new()));
    let heard = Arc::clone(&told);
    let exporter = Exporter::start(move |stream, head| {
        let header = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("traceparent").then(|| value.to_owned())
        });
        heard.lock().expect("whole").push(header.unwrap_or_default());
        answer_text(stream, "m 1\n");
    });
    let collector = Collector::start();
    let _server = start(&collector, "client_type: http, sampling_fraction: 1", &exporter);
    let scrape = collector.wait_for("a scrape", |s| s.name == "HTTP GET");
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let want = format!("00-{}-{}-01", hex(&scrape.trace_id), hex(&scrape.span_id));
    let told = told.lock().expect("whole").clone();
    assert!(told.contains(&want), "{want} in {told:?}");
}
