//! Which request lines are accepted that the HTTP library refuses? `"`, `<` and `>` standing raw in a URL, as people
//! type them into `curl -g '…?query=up{job="x"}'` and as Go's server takes them. They are percent-encoded on the way
//! to the parser.
//!
//! Only the first line of an HTTP/1 request is touched, and only where its begin is certain: at the start of a
//! connection, and after an answer as long as no request on the connection had a body. So bytes of a body are never
//! rewritten, and where one request ends and the next begins stays the parser's decision alone.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guarded::ConnectionState;

/// Bytes read at once while a request line is awaited.
const LINE_READ: usize = 4096;

/// A stream whose request lines are made acceptable.
#[derive(Debug)]
pub struct Lenient<S> {
    stream: S,
    state: Arc<ConnectionState>,
    /// Requests begun when this was last looked at.
    seen: usize,
    in_line: bool,
    /// Bytes of the line that were read so far; an empty line before a request does not count.
    line_bytes: usize,
    /// Rewritten bytes that the parser has not taken yet.
    pending: Vec<u8>,
    taken: usize,
}

impl<S> Lenient<S> {
    /// Wraps a fresh connection.
    pub fn new(stream: S, state: Arc<ConnectionState>) -> Self {
        let in_line = state.is_between_bodiless_requests();
        Self { stream, state, seen: 0, in_line, line_bytes: 0, pending: Vec::new(), taken: 0 }
    }

    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = &self.pending[self.taken..];
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.taken += n;
        if self.taken == self.pending.len() {
            self.pending.clear();
            self.taken = 0;
        }
    }

    fn rewrite(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let escaped: &[u8] = match byte {
                b'"' if self.in_line => b"%22",
                b'<' if self.in_line => b"%3C",
                b'>' if self.in_line => b"%3E",
                b'\n' if self.in_line && self.line_bytes > 0 => {
                    self.in_line = false;
                    b"\n"
                }
                _ => std::slice::from_ref(&byte),
            };
            if !matches!(byte, b'\r' | b'\n') {
                self.line_bytes += 1;
            }
            self.pending.extend_from_slice(escaped);
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lenient<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.taken < this.pending.len() {
            this.hand_out(buf);
            return Poll::Ready(Ok(()));
        }
        let begun = this.state.begun();
        if begun != this.seen && this.state.is_between_bodiless_requests() {
            this.seen = begun;
            this.in_line = true;
            this.line_bytes = 0;
        }
        if !this.in_line {
            return Pin::new(&mut this.stream).poll_read(cx, buf);
        }
        let mut space = [0; LINE_READ];
        let room = buf.remaining().min(LINE_READ);
        let mut read = ReadBuf::new(&mut space[..room]);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut read))?;
        // The preface of HTTP/2 is such a line too, and the frames after it are left alone.
        this.rewrite(read.filled());
        this.hand_out(buf);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Lenient<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::api::guarded::InFlight;

    async fn through(input: &[u8], chunk: usize) -> Vec<u8> {
        let (mut near, far) = tokio::io::duplex(chunk);
        let sent = input.to_vec();
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut near, &sent).await.expect("written");
        });
        let mut lenient = Lenient::new(far, ConnectionState::new());
        let mut out = Vec::new();
        lenient.read_to_end(&mut out).await.expect("read");
        writer.await.expect("no panic");
        out
    }

    #[tokio::test]
    async fn only_the_request_line_changes() {
        for chunk in [1, 3, 1000] {
            let got =
                through(b"\r\nGET /q?a=\"<b>\" HTTP/1.1\r\nIf-None-Match: \"x\"\r\n\r\n\"body\"", chunk);
            let want = b"\r\nGET /q?a=%22%3Cb%3E%22 HTTP/1.1\r\nIf-None-Match: \"x\"\r\n\r\n\"body\"";
            assert_eq!(got.await, want, "chunks of {chunk}");
        }
        let frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\"<>\"";
        assert_eq!(through(frames, 1000).await, frames);
    }

    #[tokio::test]
    async fn after_a_body_nothing_changes() {
        for (has_body, want) in [(false, b"G%22\n".to_vec()), (true, b"G\"\n".to_vec())] {
            let state = ConnectionState::new();
            let (mut near, far) = tokio::io::duplex(100);
            let mut lenient = Lenient::new(far, Arc::clone(&state));
            let mut buffer = [0; 100];
            tokio::io::AsyncWriteExt::write_all(&mut near, b"A\n").await.expect("written");
            let mut line = [0; 2];
            lenient.read_exact(&mut line).await.expect("read");
            drop(InFlight::begin(&state, has_body));
            tokio::io::AsyncWriteExt::write_all(&mut near, b"G\"\n").await.expect("written");
            let n = lenient.read(&mut buffer).await.expect("read");
            assert_eq!(buffer[..n], want);
        }
    }
}
