//! How is ZooKeeper asked? A connection reads nodes and leaves watches on them, with the part of its protocol that
//! reading takes: frames of a big-endian length and a body, integers big-endian, texts with their length before them.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Largest answer that is read.
const MAX_FRAME: usize = 64 << 20;
/// Request identifiers that are no numbers of requests.
const XID_WATCH: i32 = -1;
const XID_PING: i32 = -2;
const OP_GET_DATA: i32 = 4;
const OP_PING: i32 = 11;
const OP_GET_CHILDREN: i32 = 8;
/// The node does not exist.
const NO_NODE: i32 = -101;

/// A session with one server.
pub(super) struct Zookeeper {
    stream: TcpStream,
    /// What has arrived and is not yet a whole frame.
    pending: Vec<u8>,
    xid: i32,
    timeout: Duration,
    /// Whether a watch fired since the tree was read.
    changed: bool,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as i32).to_be_bytes());
    out.extend(text.as_bytes());
}

/// Reads what ZooKeeper writes; every read is checked.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (head, rest) = self.0.split_at_checked(length).ok_or("an answer is too short")?;
        self.0 = rest;
        Ok(head)
    }

    fn int(&mut self) -> Result<i32, String> {
        let bytes = self.take(4)?;
        Ok(i32::from_be_bytes(bytes.try_into().map_err(|_| "an answer is too short")?))
    }

    /// Bytes with their length before them; −1 means none.
    fn bytes(&mut self) -> Result<&'a [u8], String> {
        match self.int()? {
            length @ 0.. => self.take(length as usize),
            _ => Ok(&[]),
        }
    }
}

impl Zookeeper {
    /// Opens a session with `host:port`.
    pub(super) async fn connect(address: &str, timeout: Duration) -> Result<Self, String> {
        let address = if address.contains(':') { address.to_owned() } else { format!("{address}:2181") };
        let connecting = async {
            let stream = TcpStream::connect(&address).await.map_err(|e| format!("{address}: {e}"))?;
            let xid = 0;
            let mut session = Self { stream, pending: Vec::new(), xid, timeout, changed: false };
            let mut body = Vec::new();
            body.extend(0i32.to_be_bytes());
            body.extend(0i64.to_be_bytes());
            let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
            body.extend(millis.to_be_bytes());
            body.extend(0i64.to_be_bytes());
            body.extend(16i32.to_be_bytes());
            body.extend([0; 16]);
            session.write(&body).await?;
            let answer = session.frame().await?;
            let mut reader = Reader(&answer);
            reader.int()?;
            let granted = reader.int()?;
            if granted <= 0 {
                return Err(format!("{address}: the session was refused"));
            }
            session.timeout = timeout.min(Duration::from_millis(granted as u64));
            Ok(session)
        };
        let limited = tokio::time::timeout(timeout, connecting).await;
        limited.map_err(|_| format!("{address}: no session within {timeout:?}"))?
    }

    async fn write(&mut self, body: &[u8]) -> Result<(), String> {
        let mut frame = Vec::with_capacity(body.len() + 4);
        frame.extend((body.len() as i32).to_be_bytes());
        frame.extend(body);
        self.stream.write_all(&frame).await.map_err(|e| e.to_string())
    }

    /// The next frame. Can be cancelled: what has arrived is kept.
    async fn frame(&mut self) -> Result<Vec<u8>, String> {
        loop {
            if let Some(head) = self.pending.first_chunk::<4>() {
                let length = u32::from_be_bytes(*head) as usize;
                if length > MAX_FRAME {
                    return Err(format!("an answer of {length} bytes is more than {MAX_FRAME}"));
                }
                if self.pending.len() >= 4 + length {
                    let rest = self.pending.split_off(4 + length);
                    let mut frame = std::mem::replace(&mut self.pending, rest);
                    frame.drain(..4);
                    return Ok(frame);
                }
            }
            let read = self.stream.read_buf(&mut self.pending).await.map_err(|e| e.to_string())?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
        }
    }

    /// Asks about a node and leaves a watch there; none if the node does not exist.
    async fn ask(&mut self, operation: i32, path: &str) -> Result<Option<Vec<u8>>, String> {
        self.xid = self.xid.wrapping_add(1).max(1);
        let mut body = Vec::new();
        body.extend(self.xid.to_be_bytes());
        body.extend(operation.to_be_bytes());
        text(&mut body, path);
        body.push(1);
        self.write(&body).await?;
        let timeout = self.timeout;
        let answering = async {
            loop {
                let frame = self.frame().await?;
                let mut reader = Reader(&frame);
                let xid = reader.int()?;
                reader.take(8)?;
                let error = reader.int()?;
                match xid {
                    XID_WATCH => self.changed = true,
                    XID_PING => {}
                    xid if xid == self.xid => {
                        return match error {
                            0 => Ok(Some(reader.0.to_vec())),
                            NO_NODE => Ok(None),
                            other => Err(format!("{path}: error {other}")),
                        };
                    }
                    _ => return Err("answers are out of order".into()),
                }
            }
        };
        tokio::time::timeout(timeout, answering)
            .await
            .map_err(|_| format!("{path}: no answer in {timeout:?}"))?
    }

    /// Names of the children of a node; none if it does not exist.
    pub(super) async fn children(&mut self, path: &str) -> Result<Option<Vec<String>>, String> {
        let Some(answer) = self.ask(OP_GET_CHILDREN, path).await? else { return Ok(None) };
        let mut reader = Reader(&answer);
        let count = reader.int()?;
        let mut out = Vec::new();
        for _ in 0..count {
            out.push(String::from_utf8_lossy(reader.bytes()?).into_owned());
        }
        Ok(Some(out))
    }

    /// What a node holds; none if it does not exist.
    pub(super) async fn data(&mut self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(answer) = self.ask(OP_GET_DATA, path).await? else { return Ok(None) };
        Ok(Some(Reader(&answer).bytes()?.to_vec()))
    }

    /// Waits until a watch fires, keeping the session alive meanwhile.
    pub(super) async fn wait(&mut self) -> Result<(), String> {
        let mut silent = false;
        while !self.changed {
            match tokio::time::timeout(self.timeout / 3, self.frame()).await {
                Ok(frame) => {
                    silent = false;
                    let frame = frame?;
                    self.changed = Reader(&frame).int()? == XID_WATCH;
                }
                Err(_) if silent => return Err("the server does not answer".into()),
                Err(_) => {
                    silent = true;
                    let mut ping = Vec::new();
                    ping.extend(XID_PING.to_be_bytes());
                    ping.extend(OP_PING.to_be_bytes());
                    self.write(&ping).await?;
                }
            }
        }
        self.changed = false;
        Ok(())
    }
}
