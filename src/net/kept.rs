//! How is one server asked the same again and again, as scraping does? Over a connection of its own, which stays with
//! whoever asks: no pool to look through, no task beside the asking one. Plain HTTP/1.1 and `GET` alone; everything else
//! goes through the client's pool.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tower::{BoxError, Layer as _, Service};
use url::Url;

use super::body::{BodyBuffer, Limit};
use super::dialer::{Dialer, Open};
use super::error::NetError;

/// Longest head of an answer, and most of a body that is read at a time, bytes.
const MAX_READ: usize = 256 << 10;
/// How long a connection may be silent before the system asks whether the other side is still there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// Where one target is asked, and the connection to it.
#[derive(Debug, Default)]
pub struct Kept {
    place: Option<Place>,
    link: Option<Link>,
}

/// What requests to one URL have in common.
#[derive(Debug)]
struct Place {
    text: String,
    url: Url,
    uri: Uri,
    /// What the request line names.
    target: Uri,
    host: HeaderValue,
    /// The URL can be asked here.
    is_plain: bool,
}

impl Place {
    fn of(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let uri: Uri = url.as_str().parse().ok()?;
        // Whoever puts a password into the URL gets it as a header, which the pool's client does.
        let target = &url[url::Position::BeforePath..url::Position::AfterQuery];
        let target = if target.is_empty() { Uri::from_static("/") } else { target.parse().ok()? };
        let host = HeaderValue::from_str(&url[url::Position::BeforeHost..url::Position::AfterPort]).ok()?;
        let is_plain = url.scheme() == "http" && url.username().is_empty() && url.password().is_none();
        Some(Self { text: text.to_owned(), url, uri, target, host, is_plain })
    }
}

impl Place {
    fn request(&self, headers: &HeaderMap) -> http::Request<Empty<Bytes>> {
        let mut request = http::Request::new(Empty::new());
        *request.uri_mut() = self.target.clone();
        if !headers.contains_key(http::header::HOST) {
            request.headers_mut().insert(http::header::HOST, self.host.clone());
        }
        request.headers_mut().extend(headers.clone());
        request
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
            *self = Self { place: Place::of(text), link: None };
        }
        self.place.as_ref().filter(|place| place.is_plain).map(|place| &place.url)
    }

    /// Lets a connection go that the server closed while nothing is asked; wakes when that happens.
    pub(crate) fn tend(&mut self, cx: &mut Context<'_>) {
        if self.link.as_mut().is_some_and(|link| !link.is_open(cx)) {
            self.link = None;
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
        let mut idle = self.link.take();
        if let Some(link) = &mut idle
            && !poll_fn(|cx| Poll::Ready(link.is_open(cx))).await
        {
            idle = None;
        }
        loop {
            let is_used = idle.is_some();
            let mut link = match idle.take() {
                Some(link) => link,
                None => {
                    let stream = connect(place.uri.clone(), dialer).await?;
                    Link::over(stream, dialer.and_then(Dialer::opened)).await?
                }
            };
            match link.exchange(place.request(headers), body, limit).await {
                // What is asked changes nothing, so asking again is harmless.
                Err(Fault::Gone(_)) if is_used => {}
                Err(Fault::Gone(reason)) => return Err(broken(reason)),
                Err(other) => return Err(other),
                Ok(answered) => {
                    self.link = poll_fn(|cx| Poll::Ready(link.is_open(cx))).await.then_some(link);
                    return Ok(answered);
                }
            }
        }
    }
}

/// An open connection.
#[derive(Debug)]
struct Link {
    sender: SendRequest<Empty<Bytes>>,
    connection: Connection<TokioIo<TcpStream>, Empty<Bytes>>,
    ended: bool,
    _counted: Option<Open>,
}

impl Link {
    async fn over(stream: TcpStream, counted: Option<Open>) -> Result<Self, Fault> {
        let mut builder = Builder::new();
        // There are servers that look for header names as Go writes them.
        builder.title_case_headers(true).max_buf_size(MAX_READ);
        match builder.handshake(TokioIo::new(stream)).await {
            Ok((sender, connection)) => Ok(Self { sender, connection, ended: false, _counted: counted }),
            Err(error) => Err(broken(chain(&error))),
        }
    }

    /// Whether the connection can take another request: nothing came since the last answer, not even its end.
    fn is_open(&mut self, cx: &mut Context<'_>) -> bool {
        self.ended = self.ended || Pin::new(&mut self.connection).poll(cx).is_ready();
        !self.ended && !self.sender.is_closed()
    }

    async fn exchange(
        &mut self,
        request: http::Request<Empty<Bytes>>,
        body: &mut BodyBuffer,
        limit: Limit,
    ) -> Result<Answered, Fault> {
        let Self { sender, connection, ended, .. } = self;
        let mut asking = pin!(ask(sender, request, body, limit));
        poll_fn(|cx| {
            // The request goes from here to the connection and the answer comes back: both are looked at twice, so that
            // neither has to wait to be woken by the other.
            for _ in 0..2 {
                if let Poll::Ready(answered) = asking.as_mut().poll(cx) {
                    return Poll::Ready(answered);
                }
                *ended = *ended || Pin::new(&mut *connection).poll(cx).is_ready();
            }
            asking.as_mut().poll(cx)
        })
        .await
    }
}

async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: http::Request<Empty<Bytes>>,
    body: &mut BodyBuffer,
    limit: Limit,
) -> Result<Answered, Fault> {
    let fault = |error: hyper::Error| {
        let reason = chain(&error);
        if error.is_parse() {
            broken(format!("the answer is no HTTP: {reason}"))
        } else {
            Fault::Gone(reason)
        }
    };
    sender.ready().await.map_err(fault)?;
    let (head, mut incoming) = sender.send_request(request).await.map_err(fault)?.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(broken("the server wants to switch protocols"));
    }
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|error| broken(format!("reading the body: {}", chain(&error))))?;
        if let Some(data) = frame.data_ref() {
            body.push_wire(data, limit)?;
        }
    }
    Ok(Answered { status: head.status, headers: head.headers })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_name_path_and_host() {
        let asked = |url: &str, headers: &HeaderMap| {
            let request = Place::of(url).expect("a URL").request(headers);
            (request.uri().to_string(), request.headers()["host"].to_str().expect("text").to_owned())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let mut headers = HeaderMap::new();
        assert_eq!(
            asked("http://[::1]:9100/metrics?a=b&c=%20d#x", &headers),
            pair("/metrics?a=b&c=%20d", "[::1]:9100")
        );
        assert_eq!(asked("http://a.b:80/x", &headers), pair("/x", "a.b"));
        headers.insert("host", HeaderValue::from_static("other"));
        assert_eq!(asked("http://a.b:80", &headers), pair("/", "other"));
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
    }
}
