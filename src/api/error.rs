//! How do failures reach a client? As Prometheus's error envelope: a type, a text, a status code.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};

use super::json;
use crate::query::QueryError;
use crate::tsdb::StorageError;

/// The error types of the API with their status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Bad parameter or unparsable expression, 400.
    BadData,
    /// Evaluation failed, 422.
    Execution,
    /// The client went away, 499.
    Canceled,
    /// Out of time, 503.
    Timeout,
    /// Storage failed, 500.
    Internal,
    /// Switched off or not ready, 500.
    Unavailable,
    /// No such thing, 404.
    NotFound,
    /// No acceptable representation, 406.
    NotAcceptable,
}

impl ErrorKind {
    /// The `errorType` text.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::BadData => "bad_data",
            ErrorKind::Execution => "execution",
            ErrorKind::Canceled => "canceled",
            ErrorKind::Timeout => "timeout",
            ErrorKind::Internal => "internal",
            ErrorKind::Unavailable => "unavailable",
            ErrorKind::NotFound => "not_found",
            ErrorKind::NotAcceptable => "not_acceptable",
        }
    }

    /// The HTTP status code.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            ErrorKind::BadData => 400,
            ErrorKind::Execution => 422,
            ErrorKind::Canceled => 499,
            ErrorKind::Timeout => 503,
            ErrorKind::Internal | ErrorKind::Unavailable => 500,
            ErrorKind::NotFound => 404,
            ErrorKind::NotAcceptable => 406,
        }
    }
}

/// A failed API request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Kind.
    pub kind: ErrorKind,
    /// What went wrong.
    pub message: String,
}

impl ApiError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A `bad_data` error as it stands.
    pub fn bad_data(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::BadData, message)
    }

    /// A `bad_data` error about one parameter.
    pub fn parameter(name: &str, message: impl std::fmt::Display) -> Self {
        Self::bad_data(format!("invalid parameter {name:?}: {message}"))
    }

    /// An `internal` error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }

    /// The body of the response.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(96 + self.message.len());
        let mut object = json::Object::open(&mut out);
        object.text("status", "error").text("errorType", self.kind.as_str()).text("error", &self.message);
        object.close();
        out
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Canceled => Self::new(ErrorKind::Canceled, "context canceled"),
            StorageError::Limit(_) => Self::new(ErrorKind::Execution, error.to_string()),
            StorageError::NotReady(_) => Self::new(ErrorKind::Unavailable, error.to_string()),
            error => Self::internal(error.to_string()),
        }
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let kind = match &error {
            QueryError::Parse(_) | QueryError::RangeType(_) => return Self::parameter("query", &error),
            QueryError::Timeout(_) => ErrorKind::Timeout,
            QueryError::Canceled(_) => ErrorKind::Canceled,
            QueryError::Storage(_) => ErrorKind::Internal,
            _ => ErrorKind::Execution,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() =
            StatusCode::from_u16(self.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        if self.kind == ErrorKind::Timeout {
            response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        }
        response
    }
}
