//! The REST interface on a real agent and pool.

mod calls;
mod document;
mod refusals;
mod wire;

use super::*;
use crate::config::Config;
use crate::domain::{Agent, DriverSpec, ServerId, ServerRequest, VolumeRequest};
use axum::body::Body;
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, Request, StatusCode};
use cowstore::{CreateOptions, Pool};
use http_body_util::BodyExt;
use serde_json::Value;
use std::time::Duration;
use tower::ServiceExt;

const SNAPSHOTS: &str = "/api/v1/snapshots/";
const SERVERS: &str = "/api/v1/servers/";

/// An agent with server 12345, its application, and its document.
struct Place {
    _dir: tempfile::TempDir,
    pool: Arc<Pool>,
    agent: Arc<Agent>,
    app: Router,
    token: String,
    document: Value,
}

/// What was answered.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that it is a problem with this status, whose sentence holds `word`.
    fn assert_problem(&self, status: u16, word: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!((&problem["type"], &problem["status"]), (&"about:blank".into(), &status.into()));
        assert_eq!(problem["title"], self.status.canonical_reason().unwrap());
        assert!(problem["detail"].as_str().unwrap().contains(word), "{word}: {}", self.text);
        problem
    }
}

impl Place {
    fn new() -> Self {
        Self::within(Limits::default())
    }

    fn within(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = CreateOptions::with_size(256 << 20);
        let pool = Arc::new(Pool::create(dir.path().join("pool.cow"), &options).unwrap());
        let mut config = Config::default();
        config.agent.first_snapshot_id = 798;
        let agent = Agent::open(pool.clone(), config).unwrap();
        let volumes = vec![VolumeRequest { name: "root".into(), size_bytes: 3 << 20 }];
        let name = "web-server-01".into();
        let server = ServerRequest { name, volumes, driver: DriverSpec::None };
        agent.create_server_as(Some(ServerId(12345)), &server).unwrap();
        let token = agent.fresh_token().unwrap();
        let export_uri = Arc::new(|name: &str| Some(format!("nbd://host/{name}")));
        let app = app_within(AppState { agent: agent.clone(), export_uri }, limits);
        let document = api::routes().into_openapi().to_json().unwrap();
        let document = serde_json::from_str(&document).unwrap();
        Self { _dir: dir, pool, agent, app, token, document }
    }

    fn request(&self, method: &str, path: &str) -> axum::http::request::Builder {
        let token = format!("Bearer {}", self.token);
        Request::builder().method(method).uri(path).header(AUTHORIZATION, token)
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        let request = self.request("POST", path).header(CONTENT_TYPE, "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(self.request("DELETE", path).body(Body::empty()).unwrap()).await
    }

    /// Sends a request, and checks the answer against the document.
    async fn send(&self, request: Request<Body>) -> Answer {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(text.to_vec()).unwrap();
        let answer = Answer { status: parts.status, headers: parts.headers, text };
        self.check(&method, &path, &answer);
        answer
    }

    /// Whatever an operation answers is in the document, with its media type.
    fn check(&self, method: &Method, path: &str, answer: &Answer) {
        assert_eq!(answer.header("cache-control"), "no-store");
        let method = if method == Method::HEAD { &Method::GET } else { method };
        let Some(operation) = self.operation(method, path) else {
            let status = answer.status.as_u16();
            assert!([401, 404, 405].contains(&status), "{method} {path} answers {status}");
            assert_eq!(status == 405, answer.headers.contains_key(ALLOW));
            return;
        };
        let found = &operation["responses"][answer.status.as_str()];
        assert!(found.is_object(), "{method} {path} answers {}: not documented", answer.status);
        let media_type = answer.header("content-type");
        match found["content"].as_object() {
            Some(content) => assert!(content.contains_key(media_type), "{media_type}"),
            None => assert_eq!((media_type, answer.text.as_str()), ("", "")),
        }
        for (name, _) in found["headers"].as_object().into_iter().flatten() {
            let is_optional = name == "Preference-Applied";
            assert!(is_optional || answer.headers.contains_key(name.as_str()), "no {name}");
        }
    }

    fn operation(&self, method: &Method, path: &str) -> Option<&Value> {
        let fits = |template: &str| {
            let (words, parts) = (template.split('/'), path.split('/'));
            words.clone().count() == parts.clone().count()
                && words.zip(parts).all(|(word, part)| word == part || word == "{id}")
        };
        let paths = self.document["paths"].as_object().unwrap();
        // A template comes after the literal path that it covers.
        let found = paths
            .get(path)
            .or_else(|| paths.iter().find(|(template, _)| fits(template)).map(|(_, item)| item));
        found?.get(method.as_str().to_lowercase())
    }

    /// A snapshot that is completed; its identity.
    async fn snap(&self) -> u64 {
        let request = self.request("POST", SNAPSHOTS).header("Prefer", "wait=30");
        let body = Body::from(r#"{"server_id": 12345, "name": "s"}"#);
        let answer = self.send(request.body(body).unwrap()).await;
        let snapshot = answer.json();
        assert_eq!(
            (answer.status, &snapshot["status"]),
            (StatusCode::CREATED, &"completed".into())
        );
        snapshot["id"].as_u64().unwrap()
    }

    fn write(&self, mib: u64) {
        let volume = self.pool.volume("12345-root").unwrap();
        volume.write_at(&vec![7; 1 << 20], mib << 20).unwrap();
    }
}

/// The keys of an object.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn short() -> Limits {
    Limits {
        head_time: Duration::from_millis(500),
        body_time: Duration::from_millis(500),
        answer_time: Duration::from_millis(500),
        linger_time: Duration::from_millis(500),
        shutdown_time: Duration::from_millis(1500),
        ..Limits::default()
    }
}
