//! What can go wrong on the way out? Every message says what was attempted and against what; none shows secrets.

use std::time::Duration;

/// An outgoing request, or the building of a client, that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetError {
    /// The URL cannot be requested.
    #[error("invalid URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL without its password.
        url: String,
        /// Why.
        reason: String,
    },
    /// TLS cannot be set up.
    #[error("TLS: {what}: {reason}")]
    Tls {
        /// What was attempted.
        what: String,
        /// Why it failed.
        reason: String,
    },
    /// A file with a secret cannot be read.
    #[error("unable to read {what} {path}: {reason}")]
    SecretFile {
        /// What the file holds.
        what: &'static str,
        /// Its path.
        path: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// Credentials of a cloud provider cannot be had.
    #[error("no {provider} credentials: {reason}")]
    Credentials {
        /// Whose.
        provider: &'static str,
        /// Which places were asked and what they said.
        reason: String,
    },
    /// A header cannot be sent.
    #[error("header {name:?} has a name or value that HTTP does not allow")]
    Header {
        /// Its name.
        name: String,
    },
    /// The client cannot be built.
    #[error("cannot build the HTTP client: {reason}")]
    Build {
        /// Why.
        reason: String,
    },
    /// The deadline passed.
    #[error("{method} {url:?}: context deadline exceeded (after {after:?})")]
    Timeout {
        /// Method as Go writes it, such as `Get`.
        method: &'static str,
        /// The URL without its password.
        url: String,
        /// The time allowed.
        after: Duration,
    },
    /// Connecting, sending or receiving failed.
    #[error("{method} {url:?}: {reason}")]
    Request {
        /// Method as Go writes it.
        method: &'static str,
        /// The URL without its password.
        url: String,
        /// The chain of causes.
        reason: String,
        /// Whether the request certainly did not reach the server.
        not_sent: bool,
    },
    /// Too many redirects, or one that leads nowhere.
    #[error("{method} {url:?}: {reason}")]
    Redirect {
        /// Method as Go writes it.
        method: &'static str,
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The body is too large.
    #[error("body size limit exceeded: the body has {limit} bytes or more")]
    BodyTooLarge {
        /// The limit in bytes, after decompression.
        limit: u64,
    },
    /// The body takes more memory than there is for bodies without a limit.
    #[error(
        "body size limit exceeded: all bodies without a body_size_limit share a bounded memory, and {bytes} bytes for \
         this one are too much; give it a limit of its own"
    )]
    NoRoom {
        /// Bytes of the buffers it wanted.
        bytes: u64,
    },
    /// The body does not decompress.
    #[error("cannot decode the {encoding} body: {reason}")]
    Decode {
        /// The content encoding.
        encoding: String,
        /// What is wrong.
        reason: String,
    },
    /// No token was given.
    #[error("oauth2: cannot fetch token from {url:?}: {reason}")]
    OAuth2 {
        /// The token endpoint.
        url: String,
        /// Why.
        reason: String,
    },
}
