//! The outgoing HTTP client against local servers: credentials, redirects, TLS, proxies, tokens, and servers that
//! mean harm.

use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meerkat::config::yaml::{Context, FromYaml as _};
use meerkat::config::{HttpClientConfig, HttpSdConfig};
use meerkat::net::{BodyBuffer, ClientOptions, HttpClient, NetError, Request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;

const LONG: Duration = Duration::from_secs(60);

/// Reads a client block as it stands in a configuration.
fn block(yaml: &str) -> HttpClientConfig {
    let mut cx = Context::new("", Path::new("/"), yaml);
    let root = cx.document().root;
    // A block is always part of another section, whose checks include its own.
    let outer = HttpSdConfig::from_yaml(&root, &mut cx).expect("a mapping");
    let errors = cx.finish().err().map(|e| e.to_string()).unwrap_or_default();
    assert!(errors.is_empty() || errors.contains("URL is missing"), "{errors}");
    outer.http
}

fn client(yaml: &str) -> HttpClient {
    HttpClient::from_config(&block(yaml), ClientOptions::default()).expect("the client is built")
}

type Seen = Arc<Mutex<Vec<String>>>;

/// Reads one request, head and body.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut got = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok()?;
        got.extend_from_slice(chunk.get(..n)?);
        let text = String::from_utf8_lossy(&got).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text
                .lines()
                .find_map(|l| {
                    l.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse::<usize>().ok()
                })
                .unwrap_or(0);
            if got.len() >= end + 4 + length {
                return Some(text);
            }
        }
        if n == 0 {
            return None;
        }
    }
}

async fn answer_one(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), seen: &Seen, answer: &[u8]) {
    if let Some(request) = read_request(stream).await {
        seen.lock().expect("not poisoned").push(request);
        let _ = stream.write_all(answer).await;
        let _ = stream.shutdown().await;
    }
}

/// A server that gives every connection the same answer and remembers what it was asked.
async fn server(answer: Vec<u8>) -> (u16, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (log, answer) = (log.clone(), answer.clone());
            tokio::spawn(async move { answer_one(&mut stream, &log, &answer).await });
        }
    });
    (port, seen)
}

fn response(head: &str, body: &[u8]) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len())
        .into_bytes();
    out.extend_from_slice(body);
    out
}

fn last(seen: &Seen) -> String {
    seen.lock().expect("not poisoned").last().cloned().unwrap_or_default().to_ascii_lowercase()
}

async fn get(client: &HttpClient, url: &str) -> Result<(u16, String), NetError> {
    let mut body = BodyBuffer::new();
    let fetched = client.fetch(Request::get(url, LONG), &mut body).await?;
    Ok((fetched.status.as_u16(), String::from_utf8_lossy(body.bytes()).into_owned()))
}

#[tokio::test]
async fn a_block_becomes_headers_and_a_gzip_body_is_counted() {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(&b"up 1\n".repeat(1000)).expect("in memory");
    let wire = gzip.finish().expect("in memory");
    let (port, seen) = server(response(
        "200 OK\r\ncontent-type: text/plain; version=0.0.4\r\ncontent-encoding: gzip",
        &wire,
    ))
    .await;
    let client = client(
        "basic_auth: {username: me, password: hidden}\nhttp_headers: {X-Scope: {values: [a], secrets: [topsecret]}}",
    );
    let mut body = BodyBuffer::new();
    let mut request_url = format!("http://127.0.0.1:{port}/metrics");
    for _ in 0..2 {
        let fetched = client.fetch(Request::get(&request_url, LONG), &mut body).await.expect("an answer");
        assert_eq!(fetched.status, 200);
        assert_eq!(fetched.content_type(), "text/plain; version=0.0.4");
        assert_eq!((fetched.wire_bytes, fetched.body_bytes), (wire.len() as u64, 5000));
        assert!(body.bytes().starts_with(b"up 1\nup 1\n"));
        request_url.push_str("?a=b");
    }
    let request = last(&seen);
    assert!(request.starts_with("get /metrics?a=b http/1.1\r\n"), "{request}");
    assert!(request.contains("authorization: basic bwu6aglkzgvu"), "{request}");
    assert!(request.contains("x-scope: a\r\n") && request.contains("x-scope: topsecret\r\n"), "{request}");
    let shown = format!("{client:?}");
    assert!(!shown.contains("hidden") && !shown.contains("topsecret"), "{shown}");
}

#[tokio::test]
async fn credentials_stay_with_their_host() {
    let (other, other_seen) = server(response("200 OK", b"other")).await;
    let to_other = format!("302 Found\r\nlocation: http://localhost:{other}/x");
    let (first, first_seen) = server(response(&to_other, b"")).await;
    let client = client("authorization: {credentials: s3cret}\nhttp_headers: {X-Key: {secrets: [k3y]}}");
    let url = format!("http://127.0.0.1:{first}/");
    assert_eq!(get(&client, &url).await.expect("an answer"), (200, "other".into()));
    assert!(
        last(&first_seen).contains("authorization: bearer s3cret")
            && last(&first_seen).contains("x-key: k3y")
    );
    let leaked = last(&other_seen);
    assert!(
        leaked.starts_with("get /x") && !leaked.contains("s3cret") && !leaked.contains("k3y"),
        "{leaked}"
    );

    let to_same = format!("307 Temporary Redirect\r\nlocation: http://127.0.0.1:{other}/same");
    let (first, _) = server(response(&to_same, b"")).await;
    get(&client, &format!("http://127.0.0.1:{first}/")).await.expect("an answer");
    assert!(last(&other_seen).contains("authorization: bearer s3cret"), "same host: {}", last(&other_seen));
}

#[tokio::test]
async fn redirects_end_and_can_be_refused() {
    let (port, seen) = server(response("302 Found\r\nlocation: /again", b"")).await;
    let url = format!("http://127.0.0.1:{port}/");
    let error = get(&client("{}"), &url).await.expect_err("a loop");
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");
    assert_eq!(seen.lock().expect("not poisoned").len(), 11);
    let (status, _) = get(&client("follow_redirects: false"), &url).await.expect("the redirect itself");
    assert_eq!(status, 302);
    let (port, _) = server(response("302 Found\r\nlocation: file:///etc/passwd", b"")).await;
    let error = get(&client("{}"), &format!("http://127.0.0.1:{port}/")).await.expect_err("no file");
    assert!(error.to_string().contains("unsupported protocol scheme"), "{error}");
}

#[tokio::test]
async fn a_post_keeps_its_body_over_307_and_becomes_a_get_over_302() {
    let (last_stop, seen) = server(response("204 No Content", b"")).await;
    for (status, method, has_body) in [("307 Temporary Redirect", "post", true), ("302 Found", "get", false)]
    {
        let (port, _) =
            server(response(&format!("{status}\r\nlocation: http://127.0.0.1:{last_stop}/"), b"")).await;
        let url = format!("http://127.0.0.1:{port}/");
        let mut body = BodyBuffer::new();
        let request = Request::post(&url, bytes::Bytes::from_static(b"payload"), LONG);
        client("{}").fetch(request, &mut body).await.expect("an answer");
        let request = last(&seen);
        assert!(
            request.starts_with(method) && request.contains("payload") == has_body,
            "{status}: {request}"
        );
    }
}

#[tokio::test]
async fn hostile_bodies_stop_at_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = read_request(&mut stream).await;
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
            });
        }
    });
    let url = format!("http://127.0.0.1:{port}/");
    let mut body = BodyBuffer::new();
    let request = Request { max_body: 100_000, ..Request::get(&url, LONG) };
    let error = client("{}").fetch(request, &mut body).await.expect_err("endless");
    assert!(matches!(error, NetError::BodyTooLarge { limit: 100_000 }), "{error}");
    assert!(body.wire_len() < 100_000);

    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(&vec![0; 32 << 20]).expect("in memory");
    let bomb = gzip.finish().expect("in memory");
    let (port, _) = server(response("200 OK\r\ncontent-encoding: gzip", &bomb)).await;
    let url = format!("http://127.0.0.1:{port}/");
    let request = Request { max_body: 1 << 20, ..Request::get(&url, LONG) };
    let error = client("{}").fetch(request, &mut body).await.expect_err("a bomb");
    assert!(matches!(error, NetError::BodyTooLarge { .. }), "{error}");
}

#[tokio::test]
async fn silent_and_lying_servers_are_errors() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let silent = tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
        }
    });
    let url = format!("http://user:pass@127.0.0.1:{port}/");
    let mut body = BodyBuffer::new();
    let request = Request::get(&url, Duration::from_millis(30));
    let error = client("{}").fetch(request, &mut body).await.expect_err("silence");
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("context deadline exceeded") && !text.contains("pass@"), "{text}");
    silent.abort();

    for answer in [
        &b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nshort"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        b"SSH-2.0-OpenSSH\r\n",
        b"",
    ] {
        let (port, _) = server(answer.to_vec()).await;
        let outcome = get(&client("{}"), &format!("http://127.0.0.1:{port}/")).await;
        assert!(outcome.is_err(), "{}", String::from_utf8_lossy(answer));
    }
    let error = get(&client("{}"), "http://127.0.0.1:1/").await.expect_err("nobody listens");
    assert!(matches!(error, NetError::Request { not_sent: true, .. }), "{error:?}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
}

#[tokio::test]
async fn files_with_secrets_are_read_again_when_they_change() {
    let (port, seen) = server(response("200 OK", b"")).await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").expect("written");
    let client = client(&format!("authorization: {{credentials_file: {}}}", file.display()));
    let url = format!("http://127.0.0.1:{port}/");
    get(&client, &url).await.expect("an answer");
    assert!(last(&seen).contains("authorization: bearer first\r\n"));
    // As a rotation does it: a new file in place of the old one.
    std::fs::write(dir.path().join("new"), "other").expect("written");
    std::fs::rename(dir.path().join("new"), &file).expect("renamed");
    get(&client, &url).await.expect("an answer");
    assert!(last(&seen).contains("authorization: bearer other\r\n"));
    std::fs::remove_file(&file).expect("removed");
    let error = get(&client, &url).await.expect_err("no file");
    assert!(error.to_string().contains("unable to read authorization credentials file"), "{error}");
}

#[tokio::test]
async fn a_token_is_fetched_once_and_sent() {
    let token = br#"{"access_token":"abc","token_type":"bearer","expires_in":3600}"#;
    let (token_port, token_seen) = server(response("200 OK\r\ncontent-type: application/json", token)).await;
    let (port, seen) = server(response("200 OK", b"")).await;
    let client = client(&format!(
        "oauth2: {{client_id: id, client_secret: 's:3', token_url: 'http://127.0.0.1:{token_port}/t', scopes: [a, b], \
         endpoint_params: {{aud: x}}}}"
    ));
    for _ in 0..3 {
        get(&client, &format!("http://127.0.0.1:{port}/")).await.expect("an answer");
    }
    assert!(last(&seen).contains("authorization: bearer abc\r\n"));
    let asked = token_seen.lock().expect("not poisoned").clone();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].ends_with("grant_type=client_credentials&scope=a+b&aud=x"), "{}", asked[0]);
    assert!(asked[0].to_ascii_lowercase().contains("authorization: basic awq6cyuzqtm="), "{}", asked[0]);

    let (bad, _) = server(response("401 Unauthorized", b"{\"error\":\"no\"}")).await;
    let refused = self::client(&format!(
        "oauth2: {{client_id: id, client_secret: s, token_url: 'http://127.0.0.1:{bad}/'}}"
    ));
    let error = get(&refused, &format!("http://127.0.0.1:{port}/")).await.expect_err("no token");
    assert!(error.to_string().contains("401"), "{error}");
}

#[tokio::test]
async fn a_signed_assertion_stands_for_a_secret() {
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey};
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
    let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key");
    let der = pair.as_der().expect("PKCS #8");
    let der: &[u8] = der.as_ref();
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(der));
    let token = br#"{"access_token":"signed","expires_in":"60"}"#;
    let (token_port, token_seen) = server(response("200 OK", token)).await;
    let (port, seen) = server(response("200 OK", b"")).await;
    let client = client(&format!(
        "oauth2: {{client_id: me, grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer', client_certificate_key: {}, \
         client_certificate_key_id: k1, signature_algorithm: RS384, claims: {{extra: more}}, token_url: \
         'http://127.0.0.1:{token_port}/t'}}",
        serde_json::to_string(&pem).expect("a text")
    ));
    get(&client, &format!("http://127.0.0.1:{port}/")).await.expect("an answer");
    assert!(last(&seen).contains("authorization: bearer signed\r\n"));
    let asked = token_seen.lock().expect("not poisoned")[0].clone();
    let form = asked.rsplit("\r\n\r\n").next().expect("a body");
    let assertion = url::form_urlencoded::parse(form.as_bytes())
        .find_map(|(name, value)| (name == "assertion").then(|| value.into_owned()))
        .expect("an assertion");
    let (signed, signature) = assertion.rsplit_once('.').expect("three parts");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA384, pair.public_key())
        .verify(signed.as_bytes(), &signature)
        .expect("signed with the key");
    let part = |i: usize| -> serde_json::Value {
        let text = URL_SAFE_NO_PAD.decode(signed.split('.').nth(i).expect("a part")).expect("base64url");
        serde_json::from_slice(&text).expect("JSON")
    };
    assert_eq!(part(0), serde_json::json!({"alg": "RS384", "typ": "JWT", "kid": "k1"}));
    let claims = part(1);
    assert_eq!(
        (&claims["iss"], &claims["sub"], &claims["extra"]),
        (&"me".into(), &"me".into(), &"more".into())
    );
    assert_eq!(claims["aud"], format!("http://127.0.0.1:{token_port}/t"));
}

/// One connection for many requests, over IPv6 where the machine has it.
#[tokio::test]
async fn connections_are_used_again() {
    let listener = match TcpListener::bind("[::1]:0").await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind("127.0.0.1:0").await.expect("a port"),
    };
    let address = listener.local_addr().expect("an address");
    let accepted = Arc::new(Mutex::new(0));
    let count = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *count.lock().expect("not poisoned") += 1;
            tokio::spawn(async move {
                while read_request(&mut stream).await.is_some() {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
    let client = client("{}");
    for _ in 0..5 {
        assert_eq!(get(&client, &format!("http://{address}/metrics")).await.expect("an answer").1, "ok");
    }
    assert_eq!(*accepted.lock().expect("not poisoned"), 1);
}

#[tokio::test]
async fn proxies_and_unix_sockets_are_used() {
    let (proxy, seen) = server(response("200 OK", b"via proxy")).await;
    let client = client(&format!("proxy_url: http://127.0.0.1:{proxy}\nno_proxy: 127.0.0.1"));
    let (_, text) = get(&client, "http://target.invalid:9100/metrics").await.expect("an answer");
    assert_eq!(text, "via proxy");
    assert!(last(&seen).starts_with("get http://target.invalid:9100/metrics http/1.1"), "{}", last(&seen));
    let (direct, _) = server(response("200 OK", b"direct")).await;
    assert_eq!(get(&client, &format!("http://127.0.0.1:{direct}/")).await.expect("an answer").1, "direct");

    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("s.sock");
    let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
    let seen = Seen::default();
    let log = seen.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            answer_one(&mut stream, &log, &response("200 OK", b"unix")).await;
        }
    });
    let options = ClientOptions { unix_socket: Some(path), ..ClientOptions::default() };
    let client = HttpClient::from_config(&block("{}"), options).expect("the client is built");
    assert_eq!(get(&client, "http://docker/info").await.expect("an answer").1, "unix");
    assert!(last(&seen).contains("host: docker"), "{}", last(&seen));
}

struct Pki {
    ca: String,
    server: (String, String),
    client: (String, String),
}

fn pki() -> Pki {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).expect("a certificate");
    let issuer = rcgen::Issuer::new(params, ca_key);
    let leaf = |name: &str| {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    };
    Pki { ca: ca.pem(), server: leaf("meerkat.test"), client: leaf("client") }
}

async fn tls_server(pki: &Pki, want_client: bool) -> u16 {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    meerkat::net::install_crypto_provider();
    let cert = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(pki.server.1.as_bytes()).expect("PEM");
    let builder = rustls::ServerConfig::builder();
    let builder = if want_client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(cert(&pki.ca)).expect("a CA");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).build().expect("a verifier");
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let config = builder.with_single_cert(vec![cert(&pki.server.0)], key).expect("a server");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let version = stream.get_ref().1.protocol_version();
                    answer_one(
                        &mut stream,
                        &Seen::default(),
                        &response("200 OK", format!("{version:?}").as_bytes()),
                    )
                    .await;
                }
            });
        }
    });
    port
}

/// A `tls_config` with PEM texts as JSON strings, which are YAML too.
fn tls(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(k, v)| format!("{k}: {}", serde_json::to_string(v).expect("a text"))).collect();
    format!("tls_config: {{{}}}", fields.join(", "))
}

#[tokio::test]
async fn servers_are_verified_against_ca_and_name() {
    let pki = pki();
    let port = tls_server(&pki, false).await;
    let url = format!("https://127.0.0.1:{port}/");
    let with_ca = [("ca", pki.ca.as_str()), ("server_name", "meerkat.test")];
    assert_eq!(get(&client(&tls(&with_ca)), &url).await.expect("trusted").1, "Some(TLSv1_3)");
    let old = client(&format!(
        "tls_config: {{ca: {}, server_name: meerkat.test, max_version: TLS12}}",
        serde_json::to_string(&pki.ca).expect("a text")
    ));
    assert_eq!(get(&old, &url).await.expect("trusted").1, "Some(TLSv1_2)");
    let wrong_name = [("ca", pki.ca.as_str()), ("server_name", "other.test")];
    for untrusted in [tls(&wrong_name), tls(&[("ca", &pki.ca)]), "{}".to_owned()] {
        let error = get(&client(&untrusted), &url).await.expect_err("not trusted");
        assert!(error.to_string().contains("certificate"), "{error}");
    }
    let blind = client("tls_config: {insecure_skip_verify: true}");
    assert_eq!(get(&blind, &url).await.expect("accepted").0, 200);
}

#[tokio::test]
async fn client_certificates_are_shown_and_files_are_read_again() {
    let pki = pki();
    let port = tls_server(&pki, true).await;
    let url = format!("https://127.0.0.1:{port}/");
    let without = [("ca", pki.ca.as_str()), ("server_name", "meerkat.test")];
    assert!(get(&client(&tls(&without)), &url).await.is_err(), "the server wants a certificate");
    let dir = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let stranger = self::pki();
    let cert = write("cert.pem", &stranger.client.0);
    let key = write("key.pem", &stranger.client.1);
    let fields = [
        ("ca", pki.ca.as_str()),
        ("server_name", "meerkat.test"),
        ("cert_file", cert.as_str()),
        ("key_file", key.as_str()),
    ];
    let client = client(&tls(&fields));
    assert!(get(&client, &url).await.is_err(), "signed by a stranger");
    write("cert.pem", &pki.client.0);
    write("key.pem", &pki.client.1);
    assert_eq!(get(&client, &url).await.expect("the new certificate").0, 200);
    // A file that cannot be used leaves the one that could.
    write("key.pem", "rubbish");
    assert_eq!(get(&client, &url).await.expect("the last good certificate").0, 200);
}

#[test]
fn unusable_blocks_are_refused_with_what_to_look_at() {
    for (yaml, part) in [
        ("tls_config: {ca_file: /nonexistent/ca}", "/nonexistent/ca"),
        ("tls_config: {ca: rubbish}", "CA certificate"),
        ("tls_config: {max_version: TLS11}", "only TLS 1.2 and 1.3"),
        ("tls_config: {server_name: 'a b'}", "server_name"),
        ("http_headers: {'bad name': {values: [x]}}", "bad name"),
    ] {
        let error = HttpClient::from_config(&block(yaml), ClientOptions::default()).expect_err(yaml);
        assert!(error.to_string().contains(part), "{yaml}: {error}");
    }
}
