//! What comes in a path, a query or a preference.

use super::problem::{Problem, echo};
use crate::domain::{ID_LIMIT, MAX_WAIT};
use axum::extract::{FromRequestParts, Path, Query as Pairs};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use std::time::Duration;

/// Most snapshots whose space is asked for at once.
pub(super) const MAX_IDS: usize = 256;

/// An identity as text: decimal digits and nothing else, so that each thing has one name.
fn identity(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    // Text that is empty, or too long for a number, does not parse.
    text.parse().ok().filter(|id| is_plain && !is_padded && *id < ID_LIMIT)
}

/// The identity in a path. One that is none names nothing: 404.
pub(super) struct Id(pub(super) u64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, state).await;
        let id = text.ok().and_then(|Path(text)| identity(&text));
        id.map(Self).ok_or_else(|| Problem::no_resource(parts.uri.path()))
    }
}

/// The parameters of a query. Unknown ones are nobody's business: clients add some against caches.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Pairs::try_from_uri(&parts.uri)
            .map(|Pairs(pairs)| Self(pairs))
            .map_err(|error| Problem::bad_request(error.to_string()))
    }
}

impl Query {
    /// A parameter, which must not be there twice.
    fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        let value = values.next().map(|(_, value)| value.as_str());
        match values.next() {
            Some(_) => Err(Problem::invalid(name, "is given more than once")),
            None => Ok(value),
        }
    }

    /// An identity that may be missing.
    pub(super) fn id(&self, name: &str) -> Result<Option<u64>, Problem> {
        self.one(name)?.map(|text| named_identity(name, text)).transpose()
    }

    /// Identities with commas between, of which there must be one at least.
    pub(super) fn ids(&self, name: &str) -> Result<Vec<u64>, Problem> {
        let Some(text) = self.one(name)? else {
            return Err(Problem::invalid(name, "is missing"));
        };
        let words: Vec<&str> = text.split(',').collect();
        if words.len() > MAX_IDS {
            let count = words.len();
            return Err(Problem::invalid(
                name,
                format!("has {count} entries; at most {MAX_IDS} are read"),
            ));
        }
        words.into_iter().map(|word| named_identity(name, word)).collect()
    }
}

fn named_identity(name: &str, text: &str) -> Result<u64, Problem> {
    identity(text).ok_or_else(|| {
        let (most, text) = (ID_LIMIT - 1, echo(text));
        Problem::invalid(name, format!("must be an integer from 0 to {most}, not {text:?}"))
    })
}

/// How long a client would like to wait (RFC 7240), in whole seconds, as far as it may.
pub(super) fn preferred_wait(headers: &HeaderMap) -> Option<Duration> {
    let lines = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    // What is said twice counts as said the first time.
    let value = lines.flat_map(|line| split(line, ',')).find_map(|preference| {
        let preference = split(&preference, ';').into_iter().next().unwrap_or_default();
        let (name, value) = match preference.split_once('=') {
            Some((name, value)) => (name, unquote(value.trim())),
            None => (preference.as_str(), String::new()),
        };
        name.trim().eq_ignore_ascii_case("wait").then_some(value)
    })?;
    let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than fit are more seconds than there are.
    let seconds = is_number.then(|| value.parse().unwrap_or(u64::MAX))?;
    Some(Duration::from_secs(seconds).min(MAX_WAIT))
}

/// Splits where `separator` stands outside of quotes.
fn split(text: &str, separator: char) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut is_quoted, mut is_escaped) = (false, false);
    for c in text.chars() {
        if c == separator && !is_quoted {
            parts.push(String::new());
            continue;
        }
        if c == '"' && !is_escaped {
            is_quoted = !is_quoted;
        }
        is_escaped = is_quoted && c == '\\' && !is_escaped;
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn unquote(text: &str) -> String {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let Some(inner) = inner else { return text.to_owned() };
    let mut plain = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    plain
}
