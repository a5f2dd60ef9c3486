//! The connection that a scrape loop keeps to its target: used again, opened again when the server closed it, and
//! left for the client's pool where a redirect leads elsewhere.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meerkat::config::yaml::{Context, FromYaml as _};
use meerkat::config::{HttpClientConfig, HttpSdConfig};
use meerkat::net::{BodyBuffer, ClientOptions, Dialer, HttpClient, Kept, NetError, Request};
use meerkat::telemetry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

fn client(yaml: &str) -> HttpClient {
    let mut cx = Context::new("", Path::new("/"), yaml);
    let root = cx.document().root;
    let outer = HttpSdConfig::from_yaml(&root, &mut cx).expect("a mapping");
    HttpClient::from_config(&outer.http, ClientOptions::default()).expect("the client is built")
}

/// Which connection a request came over, and its head.
type Asked = Arc<Mutex<Vec<(usize, String)>>>;

/// A server that takes the answers in turn, over whichever connection; an empty one closes instead of answering, and
/// one that ends in `!` closes after it.
async fn server(answers: &[&str]) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let asked = Asked::default();
    let left: Arc<Mutex<Vec<String>>> =
        Arc::new(Mutex::new(answers.iter().rev().map(|a| (*a).to_owned()).collect()));
    let log = Arc::clone(&asked);
    tokio::spawn(async move {
        let mut number = 0;
        while let Ok((stream, _)) = listener.accept().await {
            number += 1;
            tokio::spawn(serve(stream, number, Arc::clone(&log), Arc::clone(&left)));
        }
    });
    (address, asked)
}

async fn serve(mut stream: TcpStream, number: usize, asked: Asked, left: Arc<Mutex<Vec<String>>>) {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if !matches!(stream.read_buf(&mut head).await, Ok(1..)) {
                return;
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        asked.lock().expect("no panic").push((number, text));
        let answer = left.lock().expect("no panic").pop().unwrap_or_default();
        let (answer, closes) = match answer.strip_suffix('!') {
            Some(answer) => (answer, true),
            None => (answer.as_str(), answer.is_empty()),
        };
        // In pieces, as networks deliver.
        for piece in answer.as_bytes().chunks(7) {
            let _ = stream.write_all(piece).await;
            tokio::task::yield_now().await;
        }
        if closes {
            return;
        }
    }
}

async fn get(client: &HttpClient, kept: &mut Kept, url: &str) -> Result<(u16, String), NetError> {
    let mut body = BodyBuffer::new();
    let fetched = client.fetch_kept(Request::get(url, LONG), kept, &mut body).await?;
    assert_eq!(fetched.body_bytes as usize, body.bytes().len());
    Ok((fetched.status.as_u16(), String::from_utf8_lossy(body.bytes()).into_owned()))
}

fn connections(asked: &Asked) -> Vec<usize> {
    asked.lock().expect("no panic").iter().map(|(number, _)| *number).collect()
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn connections_stay_or_are_opened_again() {
    for (answers, want) in [
        // It stays whatever the status and however the body ends.
        (
            &[
                OK,
                "HTTP/1.1 500 Oh\r\nContent-Length: 1\r\n\r\nx",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                "HTTP/1.1 204 None\r\n\r\n",
                OK,
            ][..],
            &[(1, 200, "ok"), (1, 500, "x"), (1, 200, "ok"), (1, 200, ""), (1, 204, ""), (1, 200, "ok")][..],
        ),
        // It does not when the server says so, closes it, speaks 1.0, or says more than it was asked for.
        (
            &[
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
                "HTTP/1.1 200 OK\r\n\r\nto the end!",
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok HTTP/1.1 200 OK\r\n",
                OK,
            ],
            &[(1, 200, "ok"), (2, 200, "to the end"), (3, 200, "ok"), (4, 200, "ok"), (5, 200, "ok")],
        ),
        // Closed after an answer: the next request goes over a new one, whether or not it was sent over the old one.
        (
            &["HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok!", OK, "", OK],
            &[(1, 200, "ok"), (2, 200, "ok"), (3, 200, "ok")],
        ),
    ] {
        let (address, asked) = server(answers).await;
        let (client, mut kept) = (client("{}"), Kept::default());
        for (number, status, text) in want {
            let got = get(&client, &mut kept, &format!("http://{address}/metrics?a=b")).await;
            assert_eq!(got.expect("an answer"), (*status, (*text).to_owned()), "{answers:?}");
            assert_eq!(connections(&asked).last(), Some(number), "{answers:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let heads = asked.lock().expect("no panic").clone();
        for (_, head) in heads {
            assert!(head.starts_with("GET /metrics?a=b HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
            assert!(head.contains("\r\nUser-Agent: Prometheus/"), "{head}");
        }
    }
}

#[tokio::test]
async fn broken_answers_are_errors_with_a_reason() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "a".repeat(1 << 20));
    for (answer, reason) in [
        ("", "closed before message completed"),
        ("HTTP/1.1 200 OK\r\nConte!", "closed before message completed"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok!", "reading the body"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok!", "reading the body"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "reading the body"),
        ("SSH-2.0-OpenSSH_9.9\r\n\r\n", "no HTTP"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "switch protocols"),
        (&long, "head is too large"),
    ] {
        let (address, _) = server(&[answer, OK]).await;
        let (client, mut kept) = (client("{}"), Kept::default());
        let url = format!("http://{address}/");
        let error = get(&client, &mut kept, &url).await.expect_err(reason).to_string();
        assert!(error.contains(reason) && error.starts_with("Get "), "{error:?} lacks {reason:?}");
        assert_eq!(get(&client, &mut kept, &url).await.expect("the next one works").1, "ok");
    }
    let (client, mut kept) = (client("{}"), Kept::default());
    let error = get(&client, &mut kept, "http://127.0.0.1:1/").await.expect_err("nobody listens");
    assert!(matches!(&error, NetError::Request { not_sent: true, .. }), "{error:?}");
    assert!(error.to_string().contains("onnection refused"), "{error}");
    let error = get(&client, &mut kept, "http://no-such-host.invalid/").await.expect_err("no such host");
    assert!(error.to_string().contains("dns error"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_from_the_answer_at_hand() {
    let go = OK.replace("ok", "go");
    let (other, asked_there) = server(&[go.as_str(); 3]).await;
    let moved = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/x\r\nContent-Length: 5\r\n\r\nmoved");
    let (address, asked) = server(&[OK, &moved, &moved, OK]).await;
    let url = format!("http://{address}/");
    let (following, mut kept) = (client("{}"), Kept::default());
    for text in ["ok", "go", "go", "ok"] {
        assert_eq!(get(&following, &mut kept, &url).await.expect("an answer").1, text);
    }
    // Each redirect is asked for once, over the connection that stays.
    assert_eq!((connections(&asked).as_slice(), connections(&asked_there).len()), (&[1; 4][..], 2));

    let (address, _) = server(&[&moved]).await;
    let (staying, mut kept) = (client("follow_redirects: false"), Kept::default());
    assert_eq!(get(&staying, &mut kept, &format!("http://{address}/")).await.expect("an answer").0, 302);
    let (address, asked) =
        server(&["HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n"; 12]).await;
    let error = get(&following, &mut kept, &format!("http://{address}/")).await.expect_err("a circle");
    assert!(error.to_string().contains("stopped after 10 redirects"), "{error}");
    assert_eq!(asked.lock().expect("no panic").len(), 11);
}

#[tokio::test]
async fn the_ends_of_connections_are_counted() {
    let close = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let (address, _) = server(&[close, OK, OK]).await;
    let registry = Registry::new();
    let dialer = Some(Dialer::keeping(&registry, "job"));
    let options = ClientOptions { dialer, ..ClientOptions::default() };
    let client = HttpClient::from_config(&HttpClientConfig::default(), options).expect("the client is built");
    let counts = || {
        let text = registry.render_text();
        ["established", "closed"].map(|what| {
            let name = format!("net_conntrack_dialer_conn_{what}_total{{dialer_name=\"job\"}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
        })
    };
    let some = |count: &str| Some(count.to_owned());
    assert_eq!(counts(), [some("0"), None]);
    let mut kept = Kept::default();
    for (established, closed) in [("1", "1"), ("2", "1"), ("2", "1")] {
        get(&client, &mut kept, &format!("http://{address}/")).await.expect("an answer");
        assert_eq!(counts(), [some(established), some(closed)]);
    }
    drop(kept);
    assert_eq!(counts(), [some("2"), some("2")]);
}

#[tokio::test]
async fn the_deadline_and_the_limit_hold() {
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf";
    let (address, asked) = server(&[half, OK, OK]).await;
    let (client, mut kept, mut body) = (client("{}"), Kept::default(), BodyBuffer::new());
    let url = format!("http://{address}/");
    let request = Request::get(&url, Duration::from_millis(200));
    let error = client.fetch_kept(request, &mut kept, &mut body).await.map(|_| ()).expect_err("too late");
    assert!(matches!(error, NetError::Timeout { .. }), "{error}");
    // Half an answer must not be taken for that to the next request.
    assert_eq!(get(&client, &mut kept, &url).await.expect("an answer").1, "ok");
    assert_eq!(connections(&asked), [1, 2]);
    let request = Request { max_body: 2, ..Request::get(&url, LONG) };
    let error = client.fetch_kept(request, &mut kept, &mut body).await.map(|_| ()).expect_err("too large");
    assert!(matches!(error, NetError::BodyTooLarge { limit: 2 }), "{error}");
}
