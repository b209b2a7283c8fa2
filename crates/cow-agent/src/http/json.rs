//! Bodies of requests, read strictly.
//!
//! Nothing is guessed: a field that is unknown, missing, given twice or of another type is refused
//! by its name, and all of them at once. Deriving a deserializer would name some of them, one at
//! a time, and would take the last of two equal keys where it is not told otherwise.

use super::problem::{FieldError, Problem, echo};
use crate::domain::ID_LIMIT;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use std::fmt;
use std::ops::RangeInclusive;

/// A value with nothing lost: objects keep all their keys.
#[derive(Debug)]
pub(super) enum Json {
    Null,
    Bool,
    Number(Number),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// What it is, in a sentence.
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "a string",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Builder)
    }
}

struct Builder;

impl<'de> Visitor<'de> for Builder {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Json, E> {
        Ok(Json::Bool)
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = seq.next_element()? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}

/// The body of a request: an object.
pub(super) struct Body(Vec<(String, Json)>);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_type(request.headers())?;
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| Problem::bad_request(error.to_string()))?;
        Self::parse(&bytes)
    }
}

impl Body {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Problem> {
        if bytes.trim_ascii().is_empty() {
            return Err(Problem::bad_request("the body is empty: it must be a JSON object"));
        }
        match serde_json::from_slice(bytes) {
            Ok(Json::Object(members)) => Ok(Self(members)),
            Ok(other) => {
                let kind = other.kind();
                Err(Problem::bad_request(format!("the body must be a JSON object, not {kind}")))
            }
            Err(error) => Err(Problem::bad_request(format!("the body is not JSON: {error}"))),
        }
    }

    /// Reads the fields; what is wrong with any of them, unless nothing is.
    pub(super) fn read<T>(
        self,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Result<T, Problem> {
        let mut errors = Vec::new();
        let value = within(String::new(), self.0, &mut errors, read);
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(Problem::of_fields(errors)),
        }
    }
}

/// The types that are read: JSON, or what does not say.
fn check_type(headers: &HeaderMap) -> Result<(), Problem> {
    for value in headers.get_all(CONTENT_TYPE) {
        let text = String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase();
        let essence = text.split(';').next().unwrap_or_default().trim();
        if essence != "application/json" && !essence.ends_with("+json") {
            let text = echo(&text);
            let detail = format!("Content-Type: {text} is not read; send application/json");
            return Err(Problem::bad_request(detail));
        }
    }
    Ok(())
}

/// Reads an object at `path`; every key that is left afterwards is one too many.
fn within<T>(
    path: String,
    members: Vec<(String, Json)>,
    errors: &mut Vec<FieldError>,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<T> {
    let mut fields = Fields { path, members, errors };
    let value = read(&mut fields);
    fields.end();
    value
}

/// The fields of an object. Each reader takes one out of it, and notes what is wrong with it.
pub(super) struct Fields<'a> {
    path: String,
    members: Vec<(String, Json)>,
    errors: &'a mut Vec<FieldError>,
}

impl Fields<'_> {
    fn at(&self, name: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        format!("{}{dot}{name}", self.path)
    }

    /// Notes that a field is wrong.
    pub(super) fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        self.errors.push(FieldError::new(self.at(name), detail));
    }

    fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.members.iter().position(|(key, _)| key == name)?;
        let (_, value) = self.members.remove(at);
        if self.members.iter().any(|(key, _)| key == name) {
            self.members.retain(|(key, _)| key != name);
            self.refuse(name, "is given more than once");
        }
        Some(value)
    }

    fn require(&mut self, name: &str) -> Option<Json> {
        let value = self.take(name);
        if value.is_none() {
            self.refuse(name, "is missing");
        }
        value
    }

    fn wrong<T>(&mut self, name: &str, wanted: &str, found: &Json) -> Option<T> {
        self.refuse(name, format!("must be {wanted}, not {}", found.kind()));
        None
    }

    /// An integer that must be there.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let (least, most) = (range.start(), range.end());
        let wanted = format!("an integer from {least} to {most}");
        match self.require(name)? {
            Json::Number(number) => {
                let value = number.as_u64().filter(|value| range.contains(value));
                if value.is_none() {
                    self.refuse(name, format!("must be {wanted}, not {number}"));
                }
                value
            }
            other => self.wrong(name, &wanted, &other),
        }
    }

    /// The identity of something, which must be there.
    pub(super) fn identity(&mut self, name: &str) -> Option<u64> {
        self.integer(name, 0..=ID_LIMIT - 1)
    }

    /// A string that must be there.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        let value = self.require(name)?;
        self.as_text(name, value)
    }

    /// A string that may be missing, which is the same as empty.
    pub(super) fn text_or_empty(&mut self, name: &str) -> Option<String> {
        match self.take(name) {
            Some(value) => self.as_text(name, value),
            None => Some(String::new()),
        }
    }

    fn as_text(&mut self, name: &str, value: Json) -> Option<String> {
        match value {
            Json::Text(text) => Some(text),
            other => self.wrong(name, "a string", &other),
        }
    }

    /// An object that may be missing; `None` inside of `Some` when it is.
    pub(super) fn object<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            None => Some(None),
            Some(Json::Object(members)) => {
                within(self.at(name), members, self.errors, read).map(Some)
            }
            Some(other) => self.wrong(name, "an object", &other),
        }
    }

    /// A list of objects that must be there.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = match self.require(name)? {
            Json::List(list) => list,
            other => return self.wrong(name, "a list", &other),
        };
        let mut values = Some(Vec::new());
        for (index, item) in list.into_iter().enumerate() {
            let entry = format!("{name}[{index}]");
            let value = match item {
                Json::Object(members) => within(self.at(&entry), members, self.errors, &read),
                other => self.wrong(&entry, "an object", &other),
            };
            values = values.zip(value).map(|(mut values, value)| {
                values.push(value);
                values
            });
        }
        values
    }

    /// Whatever has not been read is not known here.
    fn end(mut self) {
        for (name, _) in std::mem::take(&mut self.members) {
            self.refuse(&echo(&name), "is not a known field");
        }
    }
}
