//! How is an answer read whose lines come one by one, for hours perhaps?

use http::{Method, StatusCode};
use url::Url;

use super::body::check_size;
use super::client::request_error;
use super::error::NetError;

/// An answer that is read line by line.
#[derive(Debug)]
pub struct Lines {
    /// Status.
    pub status: StatusCode,
    response: reqwest::Response,
    url: Url,
    pending: Vec<u8>,
    /// How much of `pending` has no line feed for certain.
    searched: usize,
    max_line: u64,
}

impl Lines {
    /// Of an answer whose body is unread.
    pub(super) fn new(response: reqwest::Response, url: Url, max_line: u64) -> Self {
        Self { status: response.status(), response, url, pending: Vec::new(), searched: 0, max_line }
    }

    /// The next line without its line feed; none at the end. Can be cancelled without losing anything.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, NetError> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.pending[self.searched..]) {
                let rest = self.pending.split_off(self.searched + found + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.pending.len();
            match self.response.chunk().await.map_err(|e| request_error(&Method::GET, &self.url, &e))? {
                Some(chunk) => {
                    check_size(self.pending.len() + chunk.len(), self.max_line)?;
                    self.pending.extend_from_slice(&chunk);
                }
                None => {
                    self.searched = 0;
                    let last = std::mem::take(&mut self.pending);
                    return Ok((!last.is_empty()).then_some(last));
                }
            }
        }
    }
}
