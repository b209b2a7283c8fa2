//! What is refused, and with which words.

use super::*;
use crate::domain::AgentError;
use crate::http::problem::Problem;
use axum::response::IntoResponse;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

const GOOD: &str = r#"{"server_id": 12345, "name": "s"}"#;

#[tokio::test]
async fn nothing_comes_before_the_token() {
    let place = Place::new();
    let token = &place.token;
    let wrong = [
        String::new(),
        "Bearer".into(),
        "Bearer ".into(),
        "Bearer wrong".into(),
        format!("Basic {token}"),
        format!("Bearer{token}"),
        format!("Bearer {token}x"),
        format!("Bearer {}", token.to_uppercase()),
        token.clone(),
        "Bearer \u{e9}".into(),
    ];
    let calls = [
        ("GET", "/api/v1/snapshots/", ""),
        ("POST", "/api/v1/snapshots/", "{broken"),
        ("PUT", "/api/v1/snapshots/", ""),
        ("GET", "/api/v1/snapshots/x/", ""),
        ("GET", "/api/v1/openapi.json", ""),
        ("GET", "/api/", ""),
        ("OPTIONS", "/api/v1/nothing", ""),
        ("POST", "/api/v1/servers/", &"x".repeat(1 << 20)),
    ];
    for (method, path, body) in calls {
        for header in &wrong {
            let mut request = Request::builder().method(method).uri(path);
            if !header.is_empty() {
                request = request.header(AUTHORIZATION, header.as_bytes());
            }
            let request = request.body(Body::from(body.to_owned())).unwrap();
            let answer = place.send(request).await;
            answer.assert_problem(401, "token");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
            assert!(!answer.text.contains(&token[..8]));
        }
    }
    // Two are no better than none.
    let twice = place.request("GET", SNAPSHOTS).header(AUTHORIZATION, format!("Bearer {token}"));
    place.send(twice.body(Body::empty()).unwrap()).await.assert_problem(401, "token");
    for scheme in ["bearer", "BEARER"] {
        let request = Request::builder().uri(SNAPSHOTS);
        let request = request.header(AUTHORIZATION, format!("{scheme} {token}"));
        assert_eq!(place.send(request.body(Body::empty()).unwrap()).await.status, StatusCode::OK);
    }
    for path in ["/", "/api", "/index.html", "/../etc/passwd", "//api/v1/snapshots/", "/%61pi/"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        place.send(request).await.assert_problem(404, path);
    }
}

#[tokio::test]
async fn paths_and_identities_are_exact() {
    let place = Place::new();
    let id = place.snap().await;
    for path in [
        "/api/v1/snapshots",
        "/api/v1/servers",
        &format!("/api/v1/snapshots/{id}"),
        &format!("/api/v1/snapshots/{id}/restore"),
        "/api/v1/snapshots//",
        "/api/v1/openapi.json/",
        "/api/v2/snapshots/",
        "/api/v1/../v1/snapshots/",
    ] {
        place.get(path).await.assert_problem(404, path);
    }
    for id in [
        "x",
        "-1",
        "+798",
        "798.0",
        "7e2",
        "0798",
        "٧٩٨",
        "9007199254740992",
        "",
        "%00",
        "%ff",
        "99999999999999999999999",
        "798%20",
        "..%2f798",
        "798%2f",
        "0x31e",
        "1_0",
    ] {
        let id: String =
            id.chars().map(|c| if c.is_ascii() { c.into() } else { "%D9%A7".to_owned() }).collect();
        for path in [format!("{SNAPSHOTS}{id}/"), format!("{SERVERS}{id}/")] {
            place.get(&path).await.assert_problem(404, "does not exist");
            place.delete(&path).await.assert_problem(404, "does not exist");
        }
        place.post(&format!("{SNAPSHOTS}{id}/restore/"), "").await.assert_problem(404, "not exist");
    }
    for (method, path) in
        [("restore", SNAPSHOTS), ("undo", SNAPSHOTS), ("start", SERVERS), ("stop", SERVERS)]
    {
        place
            .post(&format!("{path}9007199254740991/{method}/"), "")
            .await
            .assert_problem(404, "9007199254740991");
        let answer = place.get(&format!("{path}1/{method}/")).await;
        answer.assert_problem(405, "GET");
        assert_eq!(answer.header("allow"), "POST");
    }
    for method in ["PUT", "PATCH", "OPTIONS", "TRACE", "DELETE", "BREW"] {
        let answer =
            place.send(place.request(method, SNAPSHOTS).body(Body::empty()).unwrap()).await;
        answer.assert_problem(405, method);
        assert_eq!(answer.header("allow"), "GET,HEAD,POST");
    }
    assert_eq!(place.get(SNAPSHOTS).await.json()["count"], 1, "nothing has happened to it");
}

#[tokio::test]
async fn queries_are_read_strictly_where_they_are_known() {
    let place = Place::new();
    place.snap().await;
    for query in [
        "server_id=x",
        "server_id=",
        "server_id",
        "server_id=1.0",
        "server_id=-1",
        "server_id=%D9%A1",
        "server_id=9007199254740992",
        "server_id=1&server_id=1",
        "server_id=1,2",
        "a=b&server_id=true",
    ] {
        let problem =
            place.get(&format!("{SNAPSHOTS}?{query}")).await.assert_problem(400, "server_id");
        assert_eq!(problem["errors"][0]["field"], "server_id", "{query}");
    }
    for (query, count) in
        [("server_id=12345", 1), ("server_id=1", 0), ("", 1), ("Server_Id=1&x&=&%ff", 1)]
    {
        let answer = place.get(&format!("{SNAPSHOTS}?{query}")).await;
        assert_eq!(answer.json()["count"], count, "{query}");
    }
    let many = format!("ids={}", vec!["1"; 257].join(","));
    for query in ["", "ids=", "ids=,", "ids=798,", "ids=x", "ids=798,798", "ids=798&ids=798", &many]
    {
        let problem =
            place.get(&format!("{SNAPSHOTS}reclaim/?{query}")).await.assert_problem(400, "ids");
        assert_eq!(problem["errors"][0]["field"], "ids", "{query}");
    }
    place.get(&format!("{SNAPSHOTS}reclaim/?ids=798,7")).await.assert_problem(404, "snapshot 7 ");
    assert_eq!(place.get(&format!("{SNAPSHOTS}reclaim/?ids=798%2c")).await.status, 400);
}

#[tokio::test]
async fn bodies_are_read_strictly_and_fields_named() {
    let place = Place::new();
    let with = |name: &str| format!(r#"{{"server_id": 12345, "name": {name}}}"#);
    let id = |id: &str| format!(r#"{{"server_id": {id}, "name": "s"}}"#);
    let long = format!("\"{}\"", "n".repeat(129));
    for (body, field) in [
        (with("\"\""), "name"),
        (with("\" \""), "name"),
        (with("\"a b\""), "name"),
        (with("\"a/b\""), "name"),
        (with("\"../../etc\""), "name"),
        (with("\"\u{fc}ber\""), "name"),
        (with("\"a\\u0000\""), "name"),
        (with(&long), "name"),
        (with("7"), "name"),
        (with("null"), "name"),
        (with("[\"a\"]"), "name"),
        (id("\"12345\""), "server_id"),
        (id("12345.0"), "server_id"),
        (id("1e400000"), ""),
        (id("1.5e3"), "server_id"),
        (id("-1"), "server_id"),
        (id("true"), "server_id"),
        (id("null"), "server_id"),
        (id("[12345]"), "server_id"),
        (id("{}"), "server_id"),
        (id("9007199254740992"), "server_id"),
        (id("18446744073709551616"), "server_id"),
        (r#"{"name": "s"}"#.into(), "server_id"),
        (r#"{"server_id": 12345}"#.into(), "name"),
        (r#"{"server_id": 12345, "name": "s", "size_mb": 1}"#.into(), "size_mb"),
        (r#"{"server_id": 12345, "name": "s", "name": "s"}"#.into(), "name"),
        (r#"{"server_id": 12345, "name": "s", "description": null}"#.into(), "description"),
        (r#"{"server_id": 12345, "name": "s", "description": 1}"#.into(), "description"),
        (
            format!(
                r#"{{"server_id": 12345, "name": "s", "description": "{}"}}"#,
                "\u{1f600}".repeat(513)
            ),
            "description",
        ),
        ("".into(), ""),
        (" \n".into(), ""),
        ("{".into(), ""),
        ("[]".into(), ""),
        (format!("[{GOOD}]"), ""),
        ("null".into(), ""),
        ("\"x\"".into(), ""),
        (format!("{GOOD} {GOOD}"), ""),
        ("{'server_id': 12345}".into(), ""),
        ("[".repeat(60_000), ""),
        ("\u{feff}{}".into(), ""),
        (r#"{"server_id": 12345, "name": "\ud800"}"#.into(), ""),
    ] {
        let answer = place.post(SNAPSHOTS, &body).await;
        let problem = answer.assert_problem(400, field);
        let fields =
            problem.get("errors").map_or("", |errors| errors[0]["field"].as_str().unwrap());
        assert_eq!(fields, field, "{body}");
        assert_eq!(problem.get("errors").is_some(), !field.is_empty());
    }
    place.post(SNAPSHOTS, &id("7")).await.assert_problem(404, "server 7 ");
    place
        .post(SNAPSHOTS, &id("9007199254740991"))
        .await
        .assert_problem(404, "server 9007199254740991");
    let all = place.post(SNAPSHOTS, r#"{"server_id": "x", "nam": 1, "nbme": 2}"#).await;
    let problem = all.assert_problem(400, "nbme");
    assert_eq!(problem["errors"].as_array().unwrap().len(), 4, "all at once");
    let flood: Vec<String> = (0..5000).map(|n| format!("\"k{n}\":0")).collect();
    let flood = place.post(SNAPSHOTS, &format!("{{{}}}", flood.join(","))).await;
    assert!(flood.text.len() < 4096);
    flood.assert_problem(400, "more");
    assert_eq!(place.get(SNAPSHOTS).await.json()["count"], 0);
    let faces = format!(
        r#"{{"server_id": 12345, "name": "s", "description": "{}"}}"#,
        "\u{1f600}".repeat(512)
    );
    assert_eq!(place.post(SNAPSHOTS, &faces).await.status, StatusCode::CREATED);
}

#[tokio::test]
async fn servers_are_refused_by_field_too() {
    let place = Place::new();
    let volume = r#"{"name": "a", "size_bytes": 512}"#;
    let with = |rest: &str| format!(r#"{{"name": "web", {rest}}}"#);
    let volumes = |list: &str| with(&format!(r#""volumes": {list}"#));
    let driver = |driver: &str| with(&format!(r#""volumes": [{volume}], "driver": {driver}"#));
    for (body, field) in [
        (with(r#""driver": {"type": "none"}"#), "volumes"),
        (volumes("{}"), "volumes"),
        (volumes("[]"), "volumes"),
        (volumes("[7]"), "volumes[0]"),
        (volumes(&format!("[{}]", vec![volume; 17].join(","))), "volumes"),
        (volumes(&format!("[{volume}, {volume}]")), "volumes.name"),
        (
            volumes(&format!(r#"[{volume}, {{"name": "b", "size_bytes": 1.5}}]"#)),
            "volumes[1].size_bytes",
        ),
        (volumes(r#"[{"name": "b", "size_bytes": -512}]"#), "volumes[0].size_bytes"),
        (volumes(r#"[{"name": "b", "size_bytes": 513}]"#), "volumes.size_bytes"),
        (volumes(r#"[{"name": "b", "size_bytes": 512, "nbd": null}]"#), "volumes[0].nbd"),
        (volumes(r#"[{"name": "../b", "size_bytes": 512}]"#), "volumes.name"),
        (driver("\"none\""), "driver"),
        (driver("null"), "driver"),
        (driver("{}"), "driver.type"),
        (driver(r#"{"type": "qemu"}"#), "driver.type"),
        (driver(r#"{"type": "none", "hooks": "x"}"#), "driver.hooks"),
        (driver(r#"{"type": "command"}"#), "driver.hooks"),
        (driver(r#"{"type": "command", "hooks": "unknown"}"#), "driver.hooks"),
        (driver(r#"{"type": "command", "hooks": "x", "x": 1}"#), "driver.x"),
    ] {
        let problem = place.post(SERVERS, &body).await.assert_problem(400, field);
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    assert_eq!(place.get(SERVERS).await.json()["count"], 1);
}

#[tokio::test]
async fn only_json_is_read_as_json() {
    let place = Place::new();
    let post = async |media_type: Option<&str>| {
        let request = place.request("POST", SNAPSHOTS);
        let request = match media_type {
            Some(media_type) => request.header(CONTENT_TYPE, media_type),
            None => request,
        };
        place.send(request.body(Body::from(GOOD)).unwrap()).await
    };
    for bad in ["text/plain", "application/x-www-form-urlencoded", "", "json", "application/jsonx"]
    {
        post(Some(bad)).await.assert_problem(400, "Content-Type");
    }
    for good in [None, Some("application/json; charset=utf-8"), Some("Application/Vnd.x+JSON")] {
        assert_eq!(post(good).await.status, StatusCode::CREATED, "{good:?}");
    }
}

/// A body that never ends, or never comes.
struct Endless(Option<usize>);

impl axum::body::HttpBody for Endless {
    type Data = axum::body::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Self::Data>, Infallible>>> {
        match self.0 {
            Some(size) => Poll::Ready(Some(Ok(hyper::body::Frame::data(vec![b' '; size].into())))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn bodies_and_heads_have_limits() {
    let place = Place::within(short());
    let most = 64 << 10;
    let fits = format!("{GOOD}{}", " ".repeat(most - GOOD.len()));
    assert_eq!(place.post(SNAPSHOTS, &fits).await.status, StatusCode::CREATED);
    let restore = format!("{SNAPSHOTS}798/restore/");
    for path in [SNAPSHOTS, &restore] {
        let answer = place.post(path, &format!("{fits} ")).await;
        answer.assert_problem(413, "65536");
        assert_eq!(answer.header("connection"), "close");
        let chunked = place.request("POST", path).body(Body::new(Endless(Some(1000)))).unwrap();
        place.send(chunked).await.assert_problem(413, "65536");
        let stuck = place.request("POST", path).body(Body::new(Endless(None))).unwrap();
        place.send(stuck).await.assert_problem(408, "body");
    }
    let long = place.request("GET", SNAPSHOTS).header("x", "y".repeat(32 << 10));
    place.send(long.body(Body::empty()).unwrap()).await.assert_problem(431, "32768");
    let mut many = place.request("GET", SNAPSHOTS);
    for n in 0..100 {
        many = many.header(format!("x-{n}"), "y");
    }
    place.send(many.body(Body::empty()).unwrap()).await.assert_problem(431, "101 fields");
}

#[tokio::test]
async fn errors_of_the_agent_have_their_codes() {
    let text = || "volume x is gone".to_owned();
    for (error, status) in [
        (AgentError::NotFound(text()), 404),
        (AgentError::Limit(text()), 400),
        (AgentError::State(text()), 400),
        (AgentError::Busy(text()), 409),
        (AgentError::NoSpace(text()), 507),
        (AgentError::Unavailable(text()), 503),
        (AgentError::Internal(text()), 500),
        (AgentError::invalid("name", text()), 400),
    ] {
        let problem = Problem::from(error);
        assert!(problem.text().contains("volume x is gone"));
        assert_eq!(problem.into_response().status(), status);
    }
    let place = Place::new();
    let export_uri = Arc::new(|_: &str| None);
    let state = AppState { agent: place.agent.clone(), export_uri };
    let answer: Result<(), _> = state.ask(|_| panic!("planted")).await;
    assert_eq!(answer.unwrap_err().into_response().status(), 500);
    assert_eq!(place.get(SERVERS).await.status, StatusCode::OK, "it goes on");
}
