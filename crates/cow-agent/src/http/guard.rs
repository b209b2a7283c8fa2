//! What stands before every handler.
//!
//! ```text
//!  path outside of /api/ (404) ─ token (401) ─ size of the head (431) ─ body (408, 413) ─ handler
//! ```
//!
//! Nobody without the token learns anything but that there is an `/api/`. The body is read here,
//! whole, within its limits, and for every request, so that no handler has to think of it and the
//! next request on the connection begins where it should.

use super::limits::Limits;
use super::problem::{Problem, echo};
use super::state::AppState;
use super::wire::Linger;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use std::sync::Arc;

/// What requests are measured by.
#[derive(Clone)]
pub(super) struct Guard {
    pub(super) state: AppState,
    pub(super) limits: Arc<Limits>,
}

/// Lets a request through, or answers it.
pub(super) async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let mut response = match guard.admit(&parts, body).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(refusal) => refusal.into_response(&parts),
    };
    // Answers are of this moment.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A problem of a request whose body may not have been read.
struct Refusal {
    problem: Problem,
    is_read: bool,
}

impl Refusal {
    fn into_response(self, parts: &Parts) -> Response {
        let mut response = if self.is_read {
            self.problem.into_response()
        } else {
            // The client hears of it only if it may go on sending for a while.
            if let Some(linger) = parts.extensions.get::<Linger>() {
                linger.set();
            }
            self.problem.closing()
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

impl Guard {
    async fn admit(&self, parts: &Parts, body: Body) -> Result<Bytes, Refusal> {
        let is_read = body.is_end_stream();
        self.check_head(parts).map_err(|problem| Refusal { problem, is_read })?;
        self.read(body).await.map_err(|problem| Refusal { problem, is_read: false })
    }

    fn check_head(&self, parts: &Parts) -> Result<(), Problem> {
        let path = parts.uri.path();
        if !path.starts_with("/api/") {
            return Err(Problem::no_resource(path));
        }
        if !token(&parts.headers).is_some_and(|token| self.state.agent.accepts(token)) {
            let detail = "the token is missing or wrong: send Authorization: Bearer TOKEN";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, detail));
        }
        let (bytes, fields) = (head_bytes(parts), parts.headers.len());
        let (most_bytes, most_fields) = (self.limits.head_bytes, self.limits.head_fields);
        if bytes > most_bytes || fields > most_fields {
            let detail = format!(
                "the head has {bytes} bytes in {fields} fields; at most {most_bytes} in \
                 {most_fields} are read"
            );
            return Err(Problem::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, detail));
        }
        Ok(())
    }

    async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let most = self.limits.body_bytes;
        let too_large = || {
            let detail = format!("the body is too large: at most {most} bytes are read");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
        };
        if body.size_hint().lower() > most as u64 {
            return Err(too_large());
        }
        let whole = Limited::new(body, most).collect();
        match tokio::time::timeout(self.limits.body_time, whole).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => {
                Err(Problem::bad_request(format!("the body cannot be read: {error}")))
            }
            Err(_) => {
                let seconds = self.limits.body_time.as_secs();
                let detail = format!("the body did not arrive within {seconds} seconds");
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
            }
        }
    }
}

/// The token of a request; none where there are two.
fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (value, more) = (values.next()?, values.next());
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer") && more.is_none();
    is_bearer.then_some(token.trim_matches(' '))
}

/// Bytes of a head, as it came over the wire.
fn head_bytes(parts: &Parts) -> usize {
    let fields: usize = parts
        .headers
        .iter()
        .map(|(name, value)| name.as_str().len() + ": \r\n".len() + value.len())
        .sum();
    parts.method.as_str().len() + parts.uri.to_string().len() + "  HTTP/1.1\r\n\r\n".len() + fields
}

/// What is answered where nothing stands.
pub(super) async fn no_resource(uri: Uri) -> Problem {
    Problem::no_resource(uri.path())
}

/// What is answered to a method that a path does not have.
pub(super) async fn no_method(method: Method, uri: Uri) -> Problem {
    let (method, path) = (echo(method.as_str()), echo(uri.path()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, format!("{path} has no {method}"))
}
