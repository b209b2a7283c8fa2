//! Errors as clients see them: problem details, RFC 9457.
//!
//! `type` is always `about:blank`: the code says what kind it is, `detail` names the thing, and
//! `errors` names the fields of a body or query that cannot be.

use crate::domain::AgentError;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The media type of all errors.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";

/// Fields that one answer names; a body may have thousands of wrong ones.
const MOST_FIELDS: usize = 16;
/// Characters of a client's own text that an answer repeats.
const MOST_ECHO: usize = 100;

/// A field of a request, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// Which field.
    #[schema(example = "server_id")]
    pub(super) field: String,
    /// What is wrong with it.
    #[schema(example = "must be an integer from 0 to 9007199254740991")]
    pub(super) detail: String,
}

impl FieldError {
    pub(super) fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// Why a request was not carried out (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    #[schema(value_type = String, example = "about:blank")]
    kind: &'static str,
    /// The words of the status.
    #[schema(value_type = String, example = "Bad Request")]
    title: &'static str,
    /// The status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    status: u16,
    /// What happened, in a sentence for people.
    #[schema(example = "server_id: must be an integer from 0 to 9007199254740991")]
    detail: String,
    /// The fields that are wrong, where fields are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    errors: Vec<FieldError>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            errors: Vec::new(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// Nothing stands at this path.
    pub(super) fn no_resource(path: &str) -> Self {
        let hint = if path.ends_with('/') { "" } else { " (paths end in /)" };
        let path = echo(path);
        Self::new(StatusCode::NOT_FOUND, format!("{path} does not exist{hint}"))
    }

    /// One field is wrong.
    pub(super) fn invalid(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::of_fields(vec![FieldError::new(field, detail)])
    }

    /// Some fields are wrong.
    pub(super) fn of_fields(mut errors: Vec<FieldError>) -> Self {
        let more = errors.len().saturating_sub(MOST_FIELDS);
        errors.truncate(MOST_FIELDS);
        let sentence = |error: &FieldError| format!("{}: {}", error.field, error.detail);
        let mut detail = errors.iter().map(sentence).collect::<Vec<_>>().join("; ");
        if more > 0 {
            detail.push_str(&format!("; and {more} more"));
        }
        Self { errors, ..Self::bad_request(detail) }
    }

    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Its JSON text.
    pub(super) fn text(&self) -> String {
        // Strings and a number: this does not fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The answer to a request whose body has not been read: what follows it on the connection
    /// cannot be told from the rest of that body.
    pub(super) fn closing(&self) -> Response {
        let mut response = self.clone().into_response();
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        response
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let media_type = HeaderValue::from_static(MEDIA_TYPE);
        (self.status(), [(CONTENT_TYPE, media_type)], self.text()).into_response()
    }
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        let text = error.to_string();
        let status = match error {
            AgentError::Invalid { field, detail } => return Self::invalid(field, detail),
            AgentError::NotFound(_) => StatusCode::NOT_FOUND,
            AgentError::Limit(_) | AgentError::State(_) => StatusCode::BAD_REQUEST,
            AgentError::Busy(_) => StatusCode::CONFLICT,
            AgentError::NoSpace(_) => StatusCode::INSUFFICIENT_STORAGE,
            AgentError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            AgentError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() {
            tracing::error!(
                status = status.as_u16(),
                error = text,
                "a request was not carried out"
            );
        }
        Self::new(status, text)
    }
}

/// A client's own words, short enough to be repeated to it.
pub(super) fn echo(text: &str) -> String {
    match text.char_indices().nth(MOST_ECHO) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
