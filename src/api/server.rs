//! How are connections accepted and served? An accept loop of our own: a cap on connections over all listeners,
//! deadlines for headers, idling and slow readers, and a stop that lets requests in flight finish.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::response::Response;
use http::StatusCode;
use http::header::{CONNECTION, EXPECT, HeaderValue, RETRY_AFTER};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::connections::Connections;
use super::guarded::{ConnectionState, Guarded, InFlight};
use super::leftover;
use super::lenient::Lenient;
use super::security::Security;
use crate::telemetry::{Counter, Registry};

/// Longest wait for a request's headers once their first byte came.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);
/// Longest time without progress while writing to a client.
const WRITE_STALL: Duration = Duration::from_secs(60);
/// Pause after an accept failed for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that the kernel keeps until they are accepted, if its own limit allows: beyond it clients wait a second.
const BACKLOG: u32 = 4096;
/// Most bytes of request headers.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// Connections, counted under the names of Prometheus.
#[derive(Debug, Clone)]
pub struct ServerMetrics {
    accepted: Counter,
    closed: Counter,
}

impl ServerMetrics {
    /// Registers them.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        let labels = &[("listener_name", "http")];
        let counter = |name: &str, help: &str| registry.counter(name, help, labels);
        Self {
            accepted: counter(
                "net_conntrack_listener_conn_accepted_total",
                "Total number of connections opened to the listener of a given name.",
            ),
            closed: counter(
                "net_conntrack_listener_conn_closed_total",
                "Total number of connections closed that were made to the listener of a given name.",
            ),
        }
    }
}

/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;
/// Most bytes of headers of one HTTP/2 request, counted uncompressed.
const MAX_HEADER_LIST: u32 = 64 << 10;

/// Settings of the server.
#[derive(Clone)]
pub struct ServerOptions {
    /// `--web.max-connections`, over all listeners.
    pub max_connections: usize,
    /// `--web.read-timeout`: longest time without progress while reading or idling.
    pub read_timeout: Duration,
    /// TLS.
    pub security: Arc<Security>,
    /// How long requests in flight may go on after a stop was asked for.
    pub drain: Duration,
    /// Counts connections.
    pub metrics: ServerMetrics,
}

/// Listens on one address; the error says where and what may help.
pub async fn bind(address: &str) -> Result<TcpListener, String> {
    let address = if address.starts_with(':') { format!("[::]{address}") } else { address.to_owned() };
    listen(&address).await.map_err(|e| {
        let help = match e.kind() {
            io::ErrorKind::AddrInUse => {
                "; another process listens there: stop it, or choose another port with --web.listen-address"
            }
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need privileges: choose another port with --web.listen-address"
            }
            _ => "",
        };
        format!("listen tcp {address}: {e}{help}")
    })
}

async fn listen(address: &str) -> io::Result<TcpListener> {
    let mut failed = None;
    for address in tokio::net::lookup_host(address).await? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // A restart must not wait for connections of the process before it.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        match socket.bind(address).and_then(|()| socket.listen(BACKLOG)) {
            Ok(listener) => return Ok(listener),
            Err(e) => failed = Some(e),
        }
    }
    Err(failed.unwrap_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address")))
}

/// Serves `app` on all listeners until `stop` is cancelled, then drains.
pub async fn serve(
    listeners: Vec<TcpListener>,
    app: Router,
    options: ServerOptions,
    stop: CancellationToken,
) {
    let connections = Connections::new(options.max_connections);
    let graceful = Arc::new(GracefulShutdown::new());
    let mut loops = tokio::task::JoinSet::new();
    for listener in listeners {
        let (app, connections, options, stop) =
            (app.clone(), Arc::clone(&connections), options.clone(), stop.clone());
        let watcher = Arc::clone(&graceful);
        loops.spawn(async move {
            accept_loop(listener, app, connections, &options, &stop, watcher).await;
        });
    }
    while loops.join_next().await.is_some() {}
    // The loops are gone, and their clones with them.
    let Some(graceful) = Arc::into_inner(graceful) else { return };
    tokio::select! {
        () = graceful.shutdown() => {}
        () = tokio::time::sleep(options.drain) => {
            tracing::warn!("some HTTP requests did not finish in time and are cut off");
        }
    }
}

async fn accept_loop(
    listener: TcpListener,
    app: Router,
    connections: Arc<Connections>,
    options: &ServerOptions,
    stop: &CancellationToken,
    graceful: Arc<GracefulShutdown>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(err = %e, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // While there is no place at all, clients wait in the kernel's queue.
        let place = tokio::select! {
            place = connections.enter() => place,
            () = stop.cancelled() => return,
        };
        options.metrics.accepted.inc();
        let closed = options.metrics.closed.clone();
        // Without it small answers would wait for acknowledgements; failure costs only speed.
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&place.state);
        let guarded =
            Guarded::new(stream, Arc::clone(&state), HEADER_DEADLINE, options.read_timeout, WRITE_STALL);
        let service = connection_service(app.clone(), peer, Arc::clone(&state), place.is_spare);
        let (tls, graceful) = (options.security.tls(), Arc::clone(&graceful));
        tokio::spawn(async move {
            let served = async {
                match tls {
                    None => serve_stream(Lenient::new(guarded, state), service, false, &graceful).await,
                    Some(tls) => {
                        let stream = encrypt(guarded, tls, &state).await?;
                        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve_stream(Lenient::new(stream, state), service, http2, &graceful).await
                    }
                }
            };
            tokio::select! {
                ended = served => {
                    if let Err(e) = ended {
                        tracing::debug!(%peer, err = %e, "connection ended early");
                    }
                }
                () = place.leave.cancelled() => {
                    tracing::debug!(%peer, "connection made room for another");
                }
            }
            closed.inc();
            drop(place);
        });
    }
}

/// Shakes hands within the deadline for headers.
async fn encrypt(
    stream: Guarded<TcpStream>,
    tls: Arc<rustls::ServerConfig>,
    state: &ConnectionState,
) -> io::Result<TlsStream<Guarded<TcpStream>>> {
    let accepting = TlsAcceptor::from(tls).accept(stream);
    let stream =
        tokio::time::timeout(HEADER_DEADLINE, accepting).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        state.set_multiplexed();
    }
    Ok(stream)
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve_stream<S, V>(
    stream: S,
    service: V,
    http2: bool,
    graceful: &GracefulShutdown,
) -> Result<(), Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    V: hyper::service::Service<
            hyper::Request<hyper::body::Incoming>,
            Response = Response,
            Error = Infallible,
        > + Send
        + 'static,
    V::Future: Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    if !http2 {
        builder = builder.http1_only();
    }
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .max_buf_size(MAX_HEADER_BYTES)
        // As Go writes them, for scripts that look for them with their eyes.
        .title_case_headers(true);
    builder.http2().max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_HEADER_LIST);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    graceful.watch(connection).await
}

/// The answer while all connections are busy.
fn busy() -> Response {
    let text = "Too many connections are busy (--web.max-connections); try again later.\n";
    let mut response = super::reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

fn connection_service(
    app: Router,
    peer: SocketAddr,
    state: Arc<ConnectionState>,
    is_spare: bool,
) -> impl hyper::service::Service<
    hyper::Request<hyper::body::Incoming>,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send + 'static,
> + Clone {
    hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        if request.version() == http::Version::HTTP_2 {
            state.set_multiplexed();
        }
        let has_body = !hyper::body::Body::is_end_stream(request.body());
        let in_flight = InFlight::begin(&state, has_body);
        // Streams of HTTP/2 end one by one, and whoever expects to be told to go on has not begun to send.
        let can_be_left =
            has_body && request.version() != http::Version::HTTP_2 && !request.headers().contains_key(EXPECT);
        let (head, body) = request.into_parts();
        let (body, rest) = if can_be_left {
            let (body, rest) = leftover::returning(body);
            (Body::new(body), Some(rest))
        } else {
            (Body::new(body), None)
        };
        let mut request = Request::from_parts(head, body);
        request.extensions_mut().insert(ConnectInfo(peer));
        let (app, state) = (app.clone(), Arc::clone(&state));
        async move {
            let necessary = ["/-/healthy", "/-/ready", "/metrics"];
            let response = if is_spare && !necessary.iter().any(|path| request.uri().path().ends_with(path)) {
                busy()
            } else {
                app.oneshot(request).await?
            };
            if let Some(rest) = rest
                && !rest.discard().await
            {
                state.leave_unread();
            }
            // The request is in flight until its answer is written or thrown away.
            Ok(response.map(|body| in_flight.around(body)))
        }
    })
}
