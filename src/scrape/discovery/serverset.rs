//! Targets from ZooKeeper: members of serversets as Finagle keeps them, or of services as Nerve announces them.

use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::fields::{Fields, Meta};
use super::zookeeper::Zookeeper;
use super::{LabelMap, Updates, join_host_port};
use crate::model::target_group::TargetGroup;

/// Nodes below one path that are read at most.
const MAX_NODES: usize = 1_000_000;
/// Wait after a lost session.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What the nodes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MemberKind {
    /// Finagle's.
    Serverset,
    /// Nerve's.
    Nerve,
}

pub(super) struct MemberDiscovery {
    pub(super) kind: MemberKind,
    pub(super) servers: Vec<String>,
    pub(super) paths: Vec<String>,
    pub(super) timeout: Duration,
}

/// The target a node describes; none if it holds something else.
fn member(kind: MemberKind, path: &str, data: &[u8]) -> Option<LabelMap> {
    let json: Value = serde_json::from_slice(data).ok().filter(Value::is_object)?;
    let fields = Fields(&json);
    // Names of fields are written in either case.
    let get = |lower: &str, upper: &str| fields.at(if fields.has(lower) { lower } else { upper });
    match kind {
        MemberKind::Nerve => {
            let mut meta = Meta::new("__meta_nerve_");
            let (host, port) = (fields.text("/host"), fields.number("/port"));
            meta.set("path", path);
            meta.set("endpoint_host", host.as_str());
            meta.set("endpoint_port", port.to_string());
            meta.set("endpoint_name", fields.text("/name"));
            Some(meta.at(join_host_port(&host, port)))
        }
        MemberKind::Serverset => {
            let mut meta = Meta::new("__meta_serverset_");
            let endpoint = |of: Fields<'_>| {
                let host = of.some("/host").unwrap_or_else(|| of.text("/Host"));
                let port = if of.has("/port") { of.number("/port") } else { of.number("/Port") };
                (host, port)
            };
            let (host, port) = endpoint(get("/serviceEndpoint", "/ServiceEndpoint"));
            meta.set("path", path);
            meta.set("endpoint_host", host.as_str());
            meta.set("endpoint_port", port.to_string());
            for (name, other) in get("/additionalEndpoints", "/AdditionalEndpoints").members("") {
                let (name, (host, port)) = (super::sanitize(name), endpoint(other));
                meta.set(&format!("endpoint_host_{name}"), host);
                meta.set(&format!("endpoint_port_{name}"), port.to_string());
            }
            meta.set("status", fields.text("/status"));
            meta.set("shard", fields.number("/shard").to_string());
            Some(meta.at(join_host_port(&host, port)))
        }
    }
}

impl MemberDiscovery {
    /// All members below the paths.
    async fn read(&self, session: &mut Zookeeper) -> Result<Vec<TargetGroup>, String> {
        let mut out = Vec::new();
        for root in &self.paths {
            let mut open = vec![root.clone()];
            let mut read = 0;
            while let Some(path) = open.pop() {
                read += 1;
                if read > MAX_NODES {
                    return Err(format!("{root} has more than {MAX_NODES} nodes"));
                }
                // The watch on the children comes first: a child that appears meanwhile is then noticed.
                let Some(children) = session.children(&path).await? else { continue };
                let base = path.trim_end_matches('/');
                open.extend(children.iter().map(|child| format!("{base}/{child}")));
                let Some(data) = session.data(&path).await? else { continue };
                if let Some(target) = member(self.kind, &path, &data) {
                    out.push(TargetGroup { source: path, targets: vec![target], labels: LabelMap::new() });
                }
            }
        }
        Ok(out)
    }

    async fn follow(&self, updates: &Updates) -> Result<(), String> {
        let server = &self.servers[fastrand::usize(..self.servers.len())];
        let mut session = Zookeeper::connect(server, self.timeout).await?;
        loop {
            updates.replace(self.read(&mut session).await?);
            session.wait().await?;
        }
    }

    /// Follows the tree until cancelled; a lost session is opened anew and the targets stay meanwhile.
    pub(super) async fn run(self, updates: Updates, cancel: CancellationToken) {
        let mut pause = RETRY;
        loop {
            let started = std::time::Instant::now();
            let error = tokio::select! {
                () = cancel.cancelled() => return,
                ended = self.follow(&updates) => ended.err().unwrap_or_default(),
            };
            tracing::error!(discovery = "zookeeper", error, "the session is lost");
            // A session that lasted shows that the server is there.
            pause = if started.elapsed() > MAX_RETRY { RETRY } else { (pause * 2).min(MAX_RETRY) };
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const MEMBER: &str = r#"{"serviceEndpoint":{"host":"h1","port":80},"additionalEndpoints":{"admin-x":{"host":"h2","port":9}},
        "status":"ALIVE","shard":3}"#;

    async fn frame(stream: &mut tokio::net::TcpStream) -> Option<Vec<u8>> {
        let length = stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize];
        stream.read_exact(&mut body).await.ok()?;
        Some(body)
    }

    async fn send(stream: &mut tokio::net::TcpStream, body: &[u8]) {
        stream.write_u32(body.len() as u32).await.expect("sent");
        stream.write_all(body).await.expect("sent");
    }

    /// A server with `/set/a`, whose data change when a watch fires right after the first reading.
    async fn serve(mut stream: tokio::net::TcpStream) {
        frame(&mut stream).await.expect("a connect request");
        let mut hello = vec![0, 0, 0, 0];
        hello.extend(4000i32.to_be_bytes());
        hello.extend([0; 12]);
        send(&mut stream, &hello).await;
        let mut rounds = 0;
        while let Some(request) = frame(&mut stream).await {
            let mut reader = Reader2(&request);
            let (xid, operation) = (reader.int(), reader.int());
            let mut answer = Vec::new();
            answer.extend(xid.to_be_bytes());
            answer.extend([0; 8]);
            if operation == 11 {
                answer.extend(0i32.to_be_bytes());
                send(&mut stream, &answer).await;
                continue;
            }
            let path = String::from_utf8_lossy(&request[12..request.len() - 1]).into_owned();
            assert_eq!(request.last(), Some(&1), "a watch is left");
            match (operation, path.as_str()) {
                (8, "/set") => {
                    answer.extend(0i32.to_be_bytes());
                    answer.extend(1i32.to_be_bytes());
                    answer.extend(1i32.to_be_bytes());
                    answer.extend(b"a");
                }
                (8, "/set/a") => {
                    answer.extend(0i32.to_be_bytes());
                    answer.extend(0i32.to_be_bytes());
                }
                (4, "/set/a") => {
                    let data = if rounds == 0 { MEMBER.to_owned() } else { MEMBER.replace("h1", "h3") };
                    answer.extend(0i32.to_be_bytes());
                    answer.extend((data.len() as i32).to_be_bytes());
                    answer.extend(data.as_bytes());
                }
                (4, "/set") => {
                    answer.extend(0i32.to_be_bytes());
                    answer.extend((-1i32).to_be_bytes());
                }
                _ => answer.extend((-101i32).to_be_bytes()),
            }
            send(&mut stream, &answer).await;
            if (operation, path.as_str()) == (4, "/set/a") {
                rounds += 1;
                if rounds == 1 {
                    let mut event = Vec::new();
                    event.extend((-1i32).to_be_bytes());
                    event.extend([0; 12]);
                    send(&mut stream, &event).await;
                }
            }
        }
    }

    struct Reader2<'a>(&'a [u8]);

    impl Reader2<'_> {
        fn int(&mut self) -> i32 {
            let (head, rest) = self.0.split_at(4);
            self.0 = rest;
            i32::from_be_bytes(head.try_into().expect("four bytes"))
        }
    }

    #[tokio::test]
    async fn members_are_read_and_watched() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream));
            }
        });
        let discovery = MemberDiscovery {
            kind: MemberKind::Serverset,
            servers: vec![address.clone()],
            paths: vec!["/set".into(), "/none".into()],
            timeout: Duration::from_secs(10),
        };
        let mut session = Zookeeper::connect(&address, Duration::from_secs(10)).await.expect("a session");
        let groups = discovery.read(&mut session).await.expect("read");
        let labels = &groups[0].targets[0];
        for (name, value) in [
            ("__address__", "h1:80"),
            ("__meta_serverset_path", "/set/a"),
            ("__meta_serverset_endpoint_host_admin_x", "h2"),
            ("__meta_serverset_endpoint_port", "80"),
            ("__meta_serverset_status", "ALIVE"),
            ("__meta_serverset_shard", "3"),
        ] {
            assert_eq!(labels[name], value, "{name}");
        }
        session.wait().await.expect("the watch fires");
        let groups = discovery.read(&mut session).await.expect("read again");
        assert_eq!(groups[0].targets[0]["__address__"], "h3:80");
    }

    #[test]
    fn nerve_members_have_their_own_form() {
        let labels =
            member(MemberKind::Nerve, "/n/i", br#"{"host":"10.0.0.1","port":99,"name":"x"}"#).expect("one");
        assert_eq!(labels["__address__"], "10.0.0.1:99");
        assert_eq!(labels["__meta_nerve_endpoint_name"], "x");
        assert!(member(MemberKind::Nerve, "/n", b"no json").is_none());
    }
}
