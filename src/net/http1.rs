//! What does the head of an HTTP/1 answer say, and where does its body end? Bytes in, bytes out: nothing here reads or
//! waits.

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

/// Most headers of an answer.
const MAX_HEADERS: usize = 100;
/// Longest head of an answer, bytes.
pub(super) const MAX_HEAD: usize = 256 << 10;
/// Most bytes of chunk extensions and trailers, which nobody reads.
const MAX_IGNORED: usize = 64 << 10;

/// How the end of a body is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes follow.
    Length(u64),
    /// Chunks follow, the last of which is empty.
    Chunks(Chunks),
    /// It ends with the connection.
    UntilClose,
}

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Head {
    /// Status.
    pub(super) status: StatusCode,
    /// Headers.
    pub(super) headers: HeaderMap,
    /// Where the body ends.
    pub(super) framing: Framing,
    /// Whether the connection can take another request.
    pub(super) keeps_open: bool,
}

/// Where the head ends that begins at the start of `bytes`; what lies before `from` has been searched.
pub(super) fn head_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The empty line may have begun before.
    let from = from.saturating_sub(2);
    memchr::memchr_iter(b'\n', bytes.get(from..)?).map(|at| from + at).find_map(|at| {
        match bytes.get(at + 1..)? {
            [b'\n', ..] => Some(at + 2),
            [b'\r', b'\n', ..] => Some(at + 3),
            _ => None,
        }
    })
}

/// Reads a whole head.
pub(super) fn parse_head(bytes: &[u8]) -> Result<Head, String> {
    let mut found = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut answer = httparse::Response::new(&mut found);
    match answer.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err("the answer is no HTTP: its head ends early".into()),
        Err(error) => return Err(format!("the answer is no HTTP: {error}")),
    }
    let status = answer.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or("the answer is no HTTP: its status is no number from 100 to 999")?;
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for header in answer.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|e| e.to_string())?;
        headers.append(name, HeaderValue::from_bytes(header.value).map_err(|e| e.to_string())?);
    }
    let framing = framing(status, &headers)?;
    let says = |word: &str| {
        let values = headers.get_all(CONNECTION).into_iter().filter_map(|v| v.to_str().ok());
        values.flat_map(|v| v.split(',')).any(|v| v.trim().eq_ignore_ascii_case(word))
    };
    let persistent = if answer.version == Some(1) { !says("close") } else { says("keep-alive") };
    // Both framings at once are a sign that somebody in between misunderstands.
    let clear = !(headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH));
    let keeps_open = persistent && clear && framing != Framing::UntilClose;
    Ok(Head { status, headers, framing, keeps_open })
}

fn framing(status: StatusCode, headers: &HeaderMap) -> Result<Framing, String> {
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return Ok(Framing::Length(0));
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    if let Some(coding) = codings.next() {
        if codings.next().is_some() || !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") {
            return Err(format!("unsupported transfer encoding {coding:?}"));
        }
        return Ok(Framing::Chunks(Chunks::default()));
    }
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().unwrap_or_default().trim();
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let parsed: Option<u64> = if digits { text.parse().ok() } else { None };
        if parsed.is_none() || (length.is_some() && length != parsed) {
            return Err(format!("bad Content-Length {value:?}"));
        }
        length = parsed;
    }
    Ok(length.map_or(Framing::UntilClose, Framing::Length))
}

/// Where in a chunked body the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum At {
    /// Within the length of a chunk.
    #[default]
    Size,
    /// Behind the length, before the line feed.
    Extension,
    Data,
    /// Behind the data, before the line feed.
    DataEnd,
    /// At the start of a line of the trailer.
    Trailer,
    /// Behind the carriage return of the last line.
    TrailerEnd,
    TrailerLine,
    End,
}

/// Reads a chunked body.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Chunks {
    at: At,
    /// Bytes of the chunk that are left, or its length as far as it is known.
    left: u64,
    digits: u8,
    ignored: usize,
}

impl Chunks {
    /// Whether the body is complete.
    pub(super) fn is_complete(&self) -> bool {
        self.at == At::End
    }

    /// Takes the next bytes as they came: at most one piece of the body, and how many bytes belong to it and to what is
    /// around it. Nothing is taken any more when the body is complete.
    pub(super) fn take<'b>(&mut self, bytes: &'b [u8]) -> Result<(&'b [u8], usize), String> {
        let fault = |what: &str| Err(format!("malformed chunked encoding: {what}"));
        for (i, byte) in bytes.iter().enumerate() {
            match (self.at, byte) {
                (At::End, _) => return Ok((&[], i)),
                (At::Data, _) => {
                    let rest = &bytes[i..];
                    let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(rest.len());
                    self.left -= n as u64;
                    if self.left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok((&rest[..n], i + n));
                }
                (At::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if self.digits < 16 => {
                    let digit = char::from(*byte).to_digit(16).unwrap_or(0);
                    self.left = self.left << 4 | u64::from(digit);
                    self.digits += 1;
                }
                (At::Size | At::Extension, b'\n') if self.digits > 0 => {
                    self.at = if self.left == 0 { At::Trailer } else { At::Data };
                    self.digits = 0;
                }
                (At::Size, b';' | b' ' | b'\t' | b'\r') if self.digits > 0 => self.at = At::Extension,
                (At::Size, _) => return fault("bad chunk length"),
                (At::DataEnd, b'\r') => {}
                (At::DataEnd, b'\n') => (self.at, self.left) = (At::Size, 0),
                (At::DataEnd, _) => return fault("a chunk is longer than it says"),
                (At::Trailer, b'\r') => self.at = At::TrailerEnd,
                (At::Trailer | At::TrailerEnd, b'\n') => self.at = At::End,
                (At::TrailerEnd, _) => return fault("bad end"),
                (At::TrailerLine, b'\n') => self.at = At::Trailer,
                (At::Trailer | At::TrailerLine, _) => {
                    self.at = At::TrailerLine;
                    self.ignored += 1;
                }
                (At::Extension, _) => self.ignored += 1,
            }
            if self.ignored > MAX_IGNORED {
                return fault("too many extensions or trailers");
            }
        }
        Ok((&[], bytes.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unchunked(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), String> {
        let (mut chunks, mut out, mut rest) = (Chunks::default(), Vec::new(), 0);
        for piece in pieces {
            let mut at = 0;
            while at < piece.len() && !chunks.is_complete() {
                let (data, used) = chunks.take(&piece[at..])?;
                out.extend_from_slice(data);
                at += used;
            }
            rest += piece.len() - at;
        }
        if chunks.is_complete() { Ok((out, rest)) } else { Err("incomplete".into()) }
    }

    #[test]
    fn chunks_are_joined_wherever_they_are_cut() {
        let wire = b"5\r\nhello\r\n1;a=\"b\"\r\n \r\n5\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\nHTTP";
        for cut in 0..wire.len() {
            for second in cut..wire.len() {
                let pieces = [&wire[..cut], &wire[cut..second], &wire[second..]];
                assert_eq!(unchunked(&pieces), Ok((b"hello world".to_vec(), 4)), "cut at {cut} and {second}");
            }
        }
        let bytewise: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(unchunked(&bytewise), Ok((b"hello world".to_vec(), 4)));
    }

    #[test]
    fn bad_chunks_are_refused() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(MAX_IGNORED + 1));
        let trailer = format!("0\r\n{}", "a: b\r\n".repeat(MAX_IGNORED));
        for wire in [
            "\r\n",
            "g\r\n",
            ";\r\n",
            "-1\r\n",
            "11111111111111111\r\n",
            "3\r\nabcd\r\n",
            "0\r\n\rx",
            "3\r\nab",
            "0\r\n",
            &long,
            &trailer,
        ] {
            assert!(unchunked(&[wire.as_bytes()]).is_err(), "{:?}", &wire[..wire.len().min(40)]);
        }
    }

    #[test]
    fn heads_end_at_the_first_empty_line() {
        let wire = b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody\r\n\r\n";
        for searched in 0..24 {
            assert_eq!(head_end(wire, searched), Some(25), "{searched} searched");
        }
        for len in 0..25 {
            assert_eq!(head_end(&wire[..len], 0), None);
        }
        assert_eq!(head_end(b"HTTP/1.0 200 OK\n\nx", 0), Some(17));
    }

    #[test]
    fn heads_say_where_the_body_ends_and_whether_the_connection_stays() {
        let chunks = || Framing::Chunks(Chunks::default());
        for (text, framing, keeps_open) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", Framing::Length(12), true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 12\r\nContent-Length: 12\r\n\r\n",
                Framing::Length(12),
                true,
            ),
            ("HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 0\r\n\r\n", Framing::Length(0), false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", Framing::Length(1), false),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\n",
                Framing::Length(1),
                true,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", chunks(), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", chunks(), false),
            ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
            ("HTTP/1.1 204 No Content\r\n\r\n", Framing::Length(0), true),
            ("HTTP/1.1 100 Continue\r\n\r\n", Framing::Length(0), true),
        ] {
            let head = parse_head(text.as_bytes()).expect(text);
            assert_eq!((head.framing, head.keeps_open), (framing, keeps_open), "{text:?}");
        }
        for text in [
            "SSH-2.0-OpenSSH\r\n\r\n",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nbad header: 1\r\n\r\n",
        ] {
            assert!(parse_head(text.as_bytes()).is_err(), "{text:?}");
        }
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert!(parse_head(many.as_bytes()).is_err());
    }
}
