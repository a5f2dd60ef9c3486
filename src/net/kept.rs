//! How is one server asked the same again and again, as scraping does? Over a connection of its own, which stays with
//! whoever asks: no pool to look through, no task beside the asking one, and bytes go from the socket to the buffer of
//! the body. Plain HTTP/1.1 and `GET` alone; everything else goes through the client's pool.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, StatusCode, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::{BoxError, Layer as _, Service};
use url::Url;

use super::body::{BodyBuffer, Limit};
use super::dialer::Dialer;
use super::error::NetError;
use super::http1::{Framing, Head, MAX_HEAD, head_end, parse_head};

/// Bytes that are read at a time.
const READ: usize = 64 << 10;
/// How long a connection may be silent before the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where one target is asked, and the connection to it.
#[derive(Debug, Default)]
pub struct Kept {
    place: Option<Place>,
    stream: Option<TcpStream>,
}

/// What requests to one URL have in common.
#[derive(Debug)]
struct Place {
    text: String,
    url: Url,
    uri: Uri,
    /// The URL can be asked here, and so far did not redirect.
    is_plain: bool,
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let uri: Uri = url.as_str().parse().ok()?;
        // Whoever puts a password into the URL gets it as a header, which the pool's client does.
        let is_plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        Some(Self { text: text.to_owned(), url, uri, is_plain })
    }
}

/// The answer to a request.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

/// Why there is no answer.
pub(super) enum Fault {
    /// The limit of the body, or the like.
    Net(NetError),
    /// Connecting, sending or receiving failed.
    Broken {
        reason: String,
        /// The request certainly did not reach the server.
        not_sent: bool,
    },
    /// The connection was gone before anything came back: the server may have closed it before the request came.
    Gone(String),
}

impl From<NetError> for Fault {
    fn from(error: NetError) -> Self {
        Fault::Net(error)
    }
}

fn broken(reason: impl Into<String>) -> Fault {
    Fault::Broken { reason: reason.into(), not_sent: false }
}

/// An error and what caused it, each text once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|t| t.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

impl Kept {
    /// The URL, if it can be asked over a connection of its own.
    pub(super) fn url(&mut self, text: &str) -> Option<&Url> {
        if self.place.as_ref().is_none_or(|place| place.text != text) {
            *self = Self { place: Place::of(text), stream: None };
        }
        self.place.as_ref().filter(|place| place.is_plain).map(|place| &place.url)
    }

    /// From now on the URL is asked through the pool, because it leads elsewhere.
    pub(super) fn give_up(&mut self) {
        self.stream = None;
        if let Some(place) = &mut self.place {
            place.is_plain = false;
        }
    }

    /// Asks the URL that [`Kept::url`] was last asked for, and reads the whole answer; the body is not decompressed yet.
    pub(super) async fn get(
        &mut self,
        headers: &HeaderMap,
        dialer: Option<&Dialer>,
        body: &mut BodyBuffer,
        limit: Limit,
    ) -> Result<Answered, Fault> {
        let Some(place) = &self.place else { return Err(broken("no URL")) };
        let mut idle = self.stream.take().filter(is_idle);
        let mut buffer = std::mem::take(&mut body.incoming);
        loop {
            let is_used = idle.is_some();
            let mut stream = match idle.take() {
                Some(stream) => stream,
                None => connect(place.uri.clone(), dialer).await?,
            };
            buffer.clear();
            put_request(&mut buffer, &place.url, headers);
            match exchange(&mut stream, &mut buffer, body, limit).await {
                // What is asked changes nothing, so asking again is harmless.
                Err(Fault::Gone(_)) if is_used => {}
                Err(Fault::Gone(reason)) => return Err(broken(reason)),
                Err(other) => return Err(other),
                Ok((head, keeps_open)) => {
                    self.stream = keeps_open.then_some(stream);
                    body.incoming = buffer;
                    return Ok(Answered { status: head.status, headers: head.headers });
                }
            }
        }
    }
}

/// Whether nothing came over a connection since the last answer, not even its end.
fn is_idle(stream: &TcpStream) -> bool {
    let nothing = stream.try_read(&mut [0]);
    matches!(nothing, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// The future of a connection.
type Connecting = Pin<Box<dyn Future<Output = Result<TokioIo<TcpStream>, BoxError>> + Send>>;

/// Connects without TLS, to whichever address of the host answers.
struct Connector(HttpConnector);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx).map_err(BoxError::from)
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let connecting = self.0.call(uri);
        Box::pin(async move { connecting.await.map_err(BoxError::from) })
    }
}

async fn connect(uri: Uri, dialer: Option<&Dialer>) -> Result<TcpStream, Fault> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_keepalive(Some(KEEPALIVE));
    // It resolves names in threads of the runtime and is ready at any time.
    let mut connector = Connector(connector);
    let connecting = match dialer {
        Some(dialer) => dialer.layer(connector).call(uri),
        None => connector.call(uri),
    };
    match connecting.await {
        Ok(io) => Ok(io.into_inner()),
        Err(error) => Err(Fault::Broken { reason: chain(&*error), not_sent: true }),
    }
}

/// Writes header names as Go does, since there are servers that look for those.
fn put_name(out: &mut Vec<u8>, name: &str) {
    let mut starts = true;
    out.extend(name.bytes().map(|b| {
        let upper = std::mem::replace(&mut starts, b == b'-');
        if upper { b.to_ascii_uppercase() } else { b }
    }));
}

fn put_request(out: &mut Vec<u8>, url: &Url, headers: &HeaderMap) {
    let mut put = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
    put(&["GET ", &url[url::Position::BeforePath..url::Position::AfterQuery], " HTTP/1.1\r\n"]);
    if !headers.contains_key(http::header::HOST) {
        put(&["Host: ", &url[url::Position::BeforeHost..url::Position::AfterPort], "\r\n"]);
    }
    for (name, value) in headers {
        put_name(out, name.as_str());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

fn io_reason(error: &io::Error) -> String {
    format!("the connection broke: {error}")
}

/// Sends what is in `buffer` and reads the answer by way of it. Says whether the connection can be used again.
async fn exchange(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    body: &mut BodyBuffer,
    limit: Limit,
) -> Result<(Head, bool), Fault> {
    stream.write_all(buffer).await.map_err(|e| Fault::Gone(io_reason(&e)))?;
    buffer.clear();
    buffer.reserve(READ);
    let (mut searched, mut got_any) = (0, false);
    let (mut head, mut at) = loop {
        if let Some(end) = head_end(buffer, searched) {
            let head = parse_head(&buffer[..end]).map_err(broken)?;
            if !head.status.is_informational() {
                break (head, end);
            }
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Err(broken("the server wants to switch protocols"));
            }
            buffer.drain(..end);
            searched = 0;
            continue;
        }
        searched = buffer.len();
        if searched > MAX_HEAD {
            return Err(broken(format!("the head of the answer is longer than {MAX_HEAD} bytes")));
        }
        match stream.read_buf(buffer).await {
            Ok(0) if got_any => return Err(broken("the connection ended within the head of the answer")),
            Ok(0) => return Err(Fault::Gone("the connection ended before an answer came".into())),
            Ok(_) => got_any = true,
            Err(error) if got_any => return Err(broken(io_reason(&error))),
            Err(error) => return Err(Fault::Gone(io_reason(&error))),
        }
    };
    loop {
        at += take_body(&mut head.framing, &buffer[at..], body, limit)?;
        let is_complete = match &head.framing {
            Framing::Length(left) => *left == 0,
            Framing::Chunks(chunks) => chunks.is_complete(),
            Framing::UntilClose => false,
        };
        if is_complete {
            // What came behind the answer was not asked for.
            let keeps_open = head.keeps_open && at == buffer.len();
            return Ok((head, keeps_open));
        }
        buffer.clear();
        at = 0;
        match stream.read_buf(buffer).await {
            Ok(0) if head.framing == Framing::UntilClose => return Ok((head, false)),
            Ok(0) => return Err(broken("the connection ended within the body")),
            Ok(_) => {}
            Err(error) => return Err(broken(io_reason(&error))),
        }
    }
}

/// Moves what came of the body into its buffer, and says how much of `bytes` that was.
fn take_body(
    framing: &mut Framing,
    bytes: &[u8],
    body: &mut BodyBuffer,
    limit: Limit,
) -> Result<usize, Fault> {
    match framing {
        Framing::Length(left) => {
            let n = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            *left -= n as u64;
            body.push_wire(&bytes[..n], limit)?;
            Ok(n)
        }
        Framing::Chunks(chunks) => {
            let mut at = 0;
            while at < bytes.len() && !chunks.is_complete() {
                let (data, used) = chunks.take(&bytes[at..]).map_err(broken)?;
                body.push_wire(data, limit)?;
                at += used;
            }
            Ok(at)
        }
        Framing::UntilClose => {
            body.push_wire(bytes, limit)?;
            Ok(bytes.len())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn requests_look_like_those_of_prometheus() {
        let mut headers = HeaderMap::new();
        headers.insert("x-prometheus-scrape-timeout-seconds", HeaderValue::from_static("10"));
        let asked = |url: &str, headers: &HeaderMap| {
            let mut out = Vec::new();
            put_request(&mut out, &Url::parse(url).expect("a URL"), headers);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(
            asked("http://[::1]:9100/metrics?a=b&c=%20d#x", &headers),
            "GET /metrics?a=b&c=%20d HTTP/1.1\r\nHost: [::1]:9100\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n"
        );
        headers.clear();
        headers.insert("host", HeaderValue::from_static("other"));
        assert_eq!(asked("http://a.b:80", &headers), "GET / HTTP/1.1\r\nHost: other\r\n\r\n");
        headers.clear();
        assert_eq!(asked("http://a.b:80/x", &headers), "GET /x HTTP/1.1\r\nHost: a.b\r\n\r\n");
    }

    #[test]
    fn only_plain_urls_are_asked_here() {
        let mut kept = Kept::default();
        for (text, want) in [
            ("http://a:1/metrics", true),
            ("https://a:1/metrics", false),
            ("http://me@a:1/metrics", false),
            ("http://me:secret@a:1/metrics", false),
            ("no url", false),
        ] {
            assert_eq!(kept.url(text).is_some(), want, "{text}");
        }
        kept.url("http://a/").expect("plain");
        kept.give_up();
        assert!(kept.url("http://a/").is_none());
        assert!(kept.url("http://b/").is_some());
    }
}
