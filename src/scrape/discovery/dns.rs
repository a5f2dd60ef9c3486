//! Targets from DNS records. The servers of `/etc/resolv.conf` are asked directly, every search suffix in turn, as
//! Prometheus does: the system's resolver knows no SRV records.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::dns_message::{Answer, Record, RecordType, UDP_SIZE, answer, question};
use super::join_host_port;
use super::refresh::Refresher;
use crate::config::DnsSdConfig;
use crate::config::sd::basic::DnsType;
use crate::model::target_group::TargetGroup;
use crate::telemetry::{Counter, Registry};

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Names that do not exist.
const NX_DOMAIN: u8 = 3;

/// The part of `resolv.conf` that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Resolver {
    servers: Vec<SocketAddr>,
    search: Vec<String>,
    ndots: usize,
    timeout: Duration,
    attempts: u32,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut out = Self {
            servers: Vec::new(),
            search: Vec::new(),
            ndots: 1,
            timeout: Duration::from_secs(5),
            attempts: 2,
        };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let address = words.next().and_then(|a| a.parse::<IpAddr>().ok());
                    out.servers.extend(address.map(|a| SocketAddr::new(a, 53)));
                }
                Some("domain") => out.search = words.take(1).map(str::to_owned).collect(),
                Some("search") => out.search = words.map(str::to_owned).collect(),
                Some("options") => {
                    for option in words {
                        let Some((name, value)) = option.split_once(':') else { continue };
                        let Ok(value) = value.parse::<u32>() else { continue };
                        match name {
                            "ndots" => out.ndots = value.min(15) as usize,
                            "timeout" => out.timeout = Duration::from_secs(u64::from(value.clamp(1, 30))),
                            "attempts" => out.attempts = value.clamp(1, 5),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// The names to try for `name`, in order.
    fn names(&self, name: &str) -> Vec<String> {
        if name.ends_with('.') {
            return vec![name.to_owned()];
        }
        let own = format!("{name}.");
        let searched = self.search.iter().map(|suffix| format!("{name}.{}.", suffix.trim_end_matches('.')));
        if name.matches('.').count() >= self.ndots {
            std::iter::once(own).chain(searched).collect()
        } else {
            searched.chain(std::iter::once(own)).collect()
        }
    }

    async fn ask(&self, server: SocketAddr, name: &str, record: RecordType) -> Result<Answer, String> {
        let id = fastrand::u16(..);
        let query = question(id, name, record)?;
        let fail = |e: std::io::Error| format!("asking {server} for {name}: {e}");
        let mut last = String::new();
        for _ in 0..self.attempts {
            let exchange = async {
                let local: SocketAddr =
                    if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
                let socket = UdpSocket::bind(local).await.map_err(fail)?;
                socket.connect(server).await.map_err(fail)?;
                socket.send(&query).await.map_err(fail)?;
                let mut buffer = vec![0; usize::from(UDP_SIZE)];
                loop {
                    let len = socket.recv(&mut buffer).await.map_err(fail)?;
                    // Whatever does not answer this question is somebody's noise.
                    if let Some(answer) = answer(id, record, &buffer[..len]) {
                        return Ok::<_, String>(answer);
                    }
                }
            };
            match tokio::time::timeout(self.timeout, exchange).await {
                Ok(Ok(answer)) if answer.truncated => {
                    return self.ask_tcp(server, id, &query, name, record).await;
                }
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => last = error,
                Err(_) => last = format!("asking {server} for {name}: no answer within {:?}", self.timeout),
            }
        }
        Err(last)
    }

    async fn ask_tcp(
        &self,
        server: SocketAddr,
        id: u16,
        query: &[u8],
        name: &str,
        record: RecordType,
    ) -> Result<Answer, String> {
        let exchange = async {
            let mut stream = TcpStream::connect(server).await?;
            let len = query.len() as u16;
            stream.write_all(&[&len.to_be_bytes()[..], query].concat()).await?;
            let len = stream.read_u16().await?;
            let mut message = vec![0; usize::from(len)];
            stream.read_exact(&mut message).await?;
            Ok::<_, std::io::Error>(message)
        };
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(Ok(message)) => answer(id, record, &message)
                .ok_or_else(|| format!("asking {server} for {name} over TCP: malformed answer")),
            Ok(Err(error)) => Err(format!("asking {server} for {name} over TCP: {error}")),
            Err(_) => {
                Err(format!("asking {server} for {name} over TCP: no answer within {:?}", self.timeout))
            }
        }
    }

    /// The records of `name`. A name that exists nowhere has none; silence is an error.
    async fn look_up(&self, name: &str, record: RecordType) -> Result<Vec<Record>, String> {
        if self.servers.is_empty() {
            return Err(format!("no name server in {RESOLV_CONF}"));
        }
        let mut failure = None;
        for candidate in self.names(name) {
            let mut answered = false;
            for server in &self.servers {
                match self.ask(*server, &candidate, record).await {
                    Ok(answer) if answer.code == 0 && !answer.records.is_empty() => return Ok(answer.records),
                    Ok(answer) if answer.code == 0 || answer.code == NX_DOMAIN => {
                        answered = true;
                        break;
                    }
                    Ok(answer) => {
                        failure = Some(format!("{server} answered {candidate} with code {}", answer.code));
                    }
                    Err(error) => failure = Some(error),
                }
            }
            if answered {
                continue;
            }
        }
        failure.map_or_else(|| Ok(Vec::new()), |error| Err(format!("could not resolve {name:?}: {error}")))
    }
}

pub(super) struct DnsDiscovery {
    names: Vec<String>,
    record: RecordType,
    port: u16,
    lookups: Counter,
    failures: Counter,
    /// Instead of the file, for tests.
    resolver: Option<Resolver>,
}

impl DnsDiscovery {
    pub(super) fn new(config: &DnsSdConfig, registry: &Arc<Registry>) -> Self {
        Self {
            names: config.names.clone(),
            record: match config.record_type {
                DnsType::Srv => RecordType::Srv,
                DnsType::A => RecordType::A,
                DnsType::Aaaa => RecordType::Aaaa,
                DnsType::Mx => RecordType::Mx,
                DnsType::Ns => RecordType::Ns,
            },
            port: config.port,
            lookups: registry.counter(
                "prometheus_sd_dns_lookups_total",
                "The number of DNS-SD lookups.",
                &[],
            ),
            failures: registry.counter(
                "prometheus_sd_dns_lookup_failures_total",
                "The number of DNS-SD lookup failures.",
                &[],
            ),
            resolver: None,
        }
    }

    fn group(&self, name: &str, records: Vec<Record>) -> TargetGroup {
        let targets = records
            .into_iter()
            .map(|record| {
                let trimmed = |name: &str| name.trim_end_matches('.').to_owned();
                let mut labels = vec![("__meta_dns_name", name.to_owned())];
                let address = match record {
                    Record::Address(address) => join_host_port(&address.to_string(), self.port),
                    Record::NameServer(server) => {
                        let address = join_host_port(&trimmed(&server), self.port);
                        labels.push(("__meta_dns_ns_record_target", server));
                        address
                    }
                    Record::MailServer(server) => {
                        let address = join_host_port(&trimmed(&server), self.port);
                        labels.push(("__meta_dns_mx_record_target", server));
                        address
                    }
                    Record::Service { target, port } => {
                        let address = join_host_port(&trimmed(&target), port);
                        labels.push(("__meta_dns_srv_record_target", target));
                        labels.push(("__meta_dns_srv_record_port", port.to_string()));
                        address
                    }
                };
                labels.push(("__address__", address));
                labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            })
            .collect();
        TargetGroup { source: name.to_owned(), targets, labels: Default::default() }
    }
}

impl Refresher for DnsDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let resolver = match &self.resolver {
            Some(resolver) => resolver.clone(),
            None => {
                let text = tokio::fs::read_to_string(RESOLV_CONF).await;
                Resolver::parse(&text.map_err(|e| format!("cannot read {RESOLV_CONF}: {e}"))?)
            }
        };
        let mut groups = Vec::new();
        for name in &self.names {
            self.lookups.inc();
            match resolver.look_up(name, self.record).await {
                Ok(records) => groups.push(self.group(name, records)),
                Err(error) => {
                    self.failures.inc();
                    return Err(error);
                }
            }
        }
        Ok(groups)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn search_lists_follow_ndots() {
        let resolver =
            Resolver::parse("nameserver 10.0.0.1\nsearch a.org b.org\noptions ndots:2 timeout:1\n");
        assert_eq!(resolver.names("x"), ["x.a.org.", "x.b.org.", "x."]);
        assert_eq!(resolver.names("x.y.z"), ["x.y.z.", "x.y.z.a.org.", "x.y.z.b.org."]);
        assert_eq!(resolver.names("x.y."), ["x.y."]);
        assert_eq!(resolver.servers, [SocketAddr::from(([10, 0, 0, 1], 53))]);
    }

    #[tokio::test]
    async fn a_records_become_targets() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (len, peer) = server.recv_from(&mut buffer).await.unwrap();
                let mut answer = buffer[..len - 11].to_vec();
                (answer[2], answer[3], answer[7], answer[11]) = (0x81, 0x80, 1, 0);
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
                server.send_to(&answer, peer).await.unwrap();
            }
        });
        let config = DnsSdConfig {
            names: vec!["web.example.org".into()],
            record_type: DnsType::A,
            port: 9100,
            ..DnsSdConfig::default()
        };
        let mut discovery = DnsDiscovery::new(&config, &Registry::new());
        discovery.resolver = Some(Resolver { servers: vec![address], ..Resolver::parse("") });
        let groups = discovery.refresh().await.unwrap();
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].targets[0]["__address__"], "192.0.2.7:9100");
        assert_eq!(groups[0].targets[0]["__meta_dns_name"], "web.example.org");
    }
}
