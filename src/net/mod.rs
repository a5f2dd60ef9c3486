//! Outgoing HTTP: how does a configuration block become requests? [`client`] builds one client for each block,
//! [`tls`] is the only place where TLS configurations are made, [`secrets`] reads credentials again when their
//! files change, [`oauth2`] fetches tokens, [`body`] reads and decompresses bodies under a hard cap,
//! [`cloud`] finds the credentials of cloud providers and signs with them.

/// Reading and decompressing bodies under a cap.
pub mod body;
/// The client beneath.
mod builder;
/// The client.
pub mod client;
/// Credentials of cloud providers.
pub mod cloud;
/// Connections: counted, and spread over the addresses of a host.
pub mod dialer;
/// What can go wrong.
mod error;
/// Gzip under a cap.
mod gzip;
/// Signed JSON web tokens.
mod jwt;
/// A connection of its own for who asks one server again and again.
mod kept;
/// Answers that are read line by line.
mod lines;
/// Tokens by client credentials or signed assertion.
pub mod oauth2;
/// What is asked and what came back.
mod request;
/// Memory that bodies share.
mod room;
/// Credentials and their files.
pub mod secrets;
/// Signing for AWS.
pub mod sigv4;
/// TLS configurations.
pub mod tls;

pub use body::BodyBuffer;
pub use client::HttpClient;
pub(crate) use client::beside_others;
pub use dialer::Dialer;
pub use error::NetError;
pub use kept::Kept;
pub use lines::Lines;
pub use request::{ClientOptions, Fetched, Request};
pub use room::BodyRoom;
pub use tls::install_crypto_provider;
