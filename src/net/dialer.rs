//! How do connections come about? Counted under Prometheus's names, and, where it is asked for, to an address that is
//! picked by lot among those of the host.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tower::{Layer, Service};

use crate::telemetry::{Counter, Registry};

type BoxError = Box<dyn Error + Send + Sync>;

/// Counts the connections that clients of one name open. When they are closed is known of kept ones
/// ([`Kept`](super::Kept)), not of those of a pool.
#[derive(Debug, Clone)]
pub struct Dialer {
    attempted: Counter,
    established: Counter,
    failed: Arc<[(&'static str, Counter); 4]>,
    closed: Option<Arc<Closed>>,
}

/// Counts ends, from the first connection on whose end will be known: no number is better than a wrong one.
#[derive(Debug)]
struct Closed {
    counter: OnceLock<Counter>,
    registry: Arc<Registry>,
    name: String,
}

/// An open connection, which counts as closed when it is dropped.
#[derive(Debug)]
pub(super) struct Open(Counter);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.inc();
    }
}

impl Dialer {
    /// The counters of a name: a job, or what Prometheus calls its other clients.
    #[must_use]
    pub fn new(registry: &Registry, name: &str) -> Self {
        let labels = [("dialer_name", name)];
        let failed = |reason: &'static str| {
            let counter = registry.counter(
                "net_conntrack_dialer_conn_failed_total",
                "Total number of connections failed to dial by the dialer a given name.",
                &[("dialer_name", name), ("reason", reason)],
            );
            (reason, counter)
        };
        Self {
            attempted: registry.counter(
                "net_conntrack_dialer_conn_attempted_total",
                "Total number of connections attempted by the given dialer a given name.",
                &labels,
            ),
            established: registry.counter(
                "net_conntrack_dialer_conn_established_total",
                "Total number of connections successfully established by the given dialer a given name.",
                &labels,
            ),
            failed: Arc::new(["resolution", "refused", "timeout", "unknown"].map(failed)),
            closed: None,
        }
    }

    /// The counters of a name whose clients keep connections.
    #[must_use]
    pub fn keeping(registry: &Arc<Registry>, name: &str) -> Self {
        let closed =
            Closed { counter: OnceLock::new(), registry: Arc::clone(registry), name: name.to_owned() };
        Self { closed: Some(Arc::new(closed)), ..Self::new(registry, name) }
    }

    /// Holds a connection whose end counts.
    pub(super) fn opened(&self) -> Option<Open> {
        let Closed { counter, registry, name } = &**self.closed.as_ref()?;
        let counter = counter.get_or_init(|| {
            registry.counter(
                "net_conntrack_dialer_conn_closed_total",
                "Total number of connections closed which originated from the dialer of a given name.",
                &[("dialer_name", name)],
            )
        });
        Some(Open(counter.clone()))
    }

    fn fail(&self, reason: &str) {
        if let Some((_, counter)) = self.failed.iter().find(|(name, _)| *name == reason) {
            counter.inc();
        }
    }
}

/// Why a connection did not come about, in Prometheus's words.
fn reason(error: &BoxError) -> &'static str {
    let mut source: Option<&(dyn Error + 'static)> = Some(error.as_ref());
    while let Some(e) = source {
        if let Some(e) = e.downcast_ref::<io::Error>() {
            match e.kind() {
                io::ErrorKind::ConnectionRefused => return "refused",
                io::ErrorKind::TimedOut => return "timeout",
                _ => {}
            }
        }
        if e.to_string().contains("dns error") {
            return "resolution";
        }
        source = e.source();
    }
    "unknown"
}

/// An attempt that was given up counts as one that took too long.
struct Attempt(Option<Dialer>);

impl Drop for Attempt {
    fn drop(&mut self) {
        if let Some(dialer) = &self.0 {
            dialer.fail("timeout");
        }
    }
}

impl<S> Layer<S> for Dialer {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, dialer: self.clone() }
    }
}

/// A connector whose connections are counted.
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    dialer: Dialer,
}

impl<S, R> Service<R> for Counted<S>
where
    S: Service<R, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        self.dialer.attempted.inc();
        let connecting = self.inner.call(request);
        let mut attempt = Attempt(Some(self.dialer.clone()));
        Box::pin(async move {
            let outcome = connecting.await;
            if let Some(dialer) = attempt.0.take() {
                match &outcome {
                    Ok(_) => dialer.established.inc(),
                    Err(error) => dialer.fail(reason(error)),
                }
            }
            outcome
        })
    }
}

/// Finds the addresses of a host and hands them out in an order that chance decides, anew for each connection.
#[derive(Debug)]
pub struct RoundRobin;

impl Resolve for RoundRobin {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(by_lot(found.collect()).into_iter()) as Addrs)
        })
    }
}

fn by_lot(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    fastrand::shuffle(&mut addresses);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_comes_first_some_time() {
        let all: Vec<SocketAddr> = (1..=3).map(|i| SocketAddr::from(([10, 0, 0, i], 0))).collect();
        let mut first: Vec<SocketAddr> =
            (0..200).filter_map(|_| by_lot(all.clone()).first().copied()).collect();
        first.sort_unstable();
        first.dedup();
        assert_eq!(first, all);
    }

    #[tokio::test]
    async fn attempts_are_counted_by_their_end() {
        let registry = Registry::new();
        let dialer = Dialer::new(&registry, "job");
        let refused = || -> BoxError { Box::new(io::Error::from(io::ErrorKind::ConnectionRefused)) };
        let mut good = dialer.layer(tower::service_fn(|_: ()| async { Ok::<_, BoxError>(()) }));
        let mut bad = dialer.layer(tower::service_fn(move |_: ()| async move { Err::<(), _>(refused()) }));
        let mut endless =
            dialer.layer(tower::service_fn(|_: ()| std::future::pending::<Result<(), BoxError>>()));
        good.call(()).await.expect("a connection");
        assert!(bad.call(()).await.is_err());
        drop(endless.call(()));
        let text = registry.render_text();
        for want in [
            "net_conntrack_dialer_conn_attempted_total{dialer_name=\"job\"} 3",
            "net_conntrack_dialer_conn_established_total{dialer_name=\"job\"} 1",
            "net_conntrack_dialer_conn_failed_total{dialer_name=\"job\",reason=\"refused\"} 1",
            "net_conntrack_dialer_conn_failed_total{dialer_name=\"job\",reason=\"timeout\"} 1",
            "net_conntrack_dialer_conn_failed_total{dialer_name=\"job\",reason=\"unknown\"} 0",
        ] {
            assert!(text.contains(want), "{want} in {text}");
        }
    }
}
