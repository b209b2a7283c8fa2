//! What is answered when all is well.

use super::*;
use serde_json::json;

const SNAPSHOT_KEYS: [&str; 11] = [
    "consistency",
    "created_at",
    "description",
    "exact",
    "id",
    "logical_mb",
    "name",
    "referenced_mb",
    "server",
    "size_mb",
    "status",
];

fn assert_time(value: &Value) {
    let text = value.as_str().unwrap();
    assert!(text.len() == 20 && text.ends_with('Z'), "{text}");
    let time: jiff::Timestamp = text.parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!((0..60).contains(&age.as_secs()), "{text}");
}

#[tokio::test]
async fn the_four_calls_of_the_seed_have_its_shapes() {
    let place = Place::new();
    assert_eq!(place.get(SNAPSHOTS).await.json(), json!({"count": 0, "results": []}));
    let body = r#"{"server_id": 12345, "name": "before-update-snapshot",
        "description": "Snapshot before system update"}"#;
    let answer = place.post(SNAPSHOTS, body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.header("location"), "/api/v1/snapshots/798/");
    assert_eq!(answer.header("preference-applied"), "");
    let mut created = answer.json();
    let server = json!({"id": 12345, "name": "web-server-01"});
    let message = created.as_object_mut().unwrap().remove("message").unwrap();
    assert!(message.as_str().unwrap().starts_with("Snapshot is being created."));
    assert!(!message.as_str().unwrap().contains("minutes"));
    assert_eq!(keys(&created), SNAPSHOT_KEYS);
    assert_eq!((&created["id"], &created["server"]), (&json!(798), &server));
    assert_eq!((&created["status"], &created["size_mb"]), (&json!("in_progress"), &Value::Null));
    assert_eq!(created["description"], "Snapshot before system update");
    assert_time(&created["created_at"]);
    place.agent.finish(Duration::from_secs(30));

    place.write(0);
    assert_eq!(place.snap().await, 799);
    let list = place.get("/api/v1/snapshots/?server_id=12345&_=1732795200").await.json();
    assert_eq!((&list["count"], keys(&list)), (&json!(2), vec!["count", "results"]));
    let ids: Vec<_> = list["results"].as_array().unwrap().iter().map(|s| &s["id"]).collect();
    assert_eq!(ids, [799, 798], "newest first");
    assert_eq!(keys(&list["results"][0]), SNAPSHOT_KEYS);
    assert_eq!(list["results"][1]["created_at"], created["created_at"]);
    assert_eq!(list["results"][0]["description"], "");

    let path = format!("{SNAPSHOTS}798/restore/");
    let request = place.request("POST", &path).header(CONTENT_TYPE, "application/json");
    let answer = place.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.status, StatusCode::OK);
    let restored = answer.json();
    assert_eq!(keys(&restored), ["message", "server", "snapshot", "status"]);
    assert_eq!(restored["status"], "success");
    let message = restored["message"].as_str().unwrap();
    assert!(message.starts_with("Server is being restored from snapshot. "), "{message}");
    let snapshot = json!({
        "id": 798, "name": "before-update-snapshot", "created_at": created["created_at"],
    });
    assert_eq!(restored["snapshot"], snapshot);
    let server = json!({"id": 12345, "name": "web-server-01", "status": "restoring"});
    assert_eq!(restored["server"], server);

    let answer = place.delete(&format!("{SNAPSHOTS}798/")).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NO_CONTENT, ""));
    place.delete(&format!("{SNAPSHOTS}798/")).await.assert_problem(404, "snapshot 798");
    place.get(&format!("{SNAPSHOTS}798/")).await.assert_problem(404, "snapshot 798");
    assert_eq!(place.get("/api/v1/snapshots/?server_id=7").await.json()["count"], 0);
}

#[tokio::test]
async fn sizes_are_what_a_deletion_frees_and_a_restore_can_be_undone() {
    let place = Place::new();
    place.write(0);
    let first = place.snap().await;
    place.write(0);
    let second = place.snap().await;
    place.write(1);
    let snapshot = place.get(&format!("{SNAPSHOTS}{first}/")).await.json();
    assert_eq!((&snapshot["size_mb"], &snapshot["referenced_mb"]), (&json!(1), &json!(1)));
    assert_eq!((&snapshot["logical_mb"], &snapshot["exact"]), (&json!(3), &json!(true)));
    assert_eq!(snapshot["consistency"], "stopped");
    let reclaim = place.get(&format!("{SNAPSHOTS}reclaim/?ids={second},{first}")).await;
    let reclaim = reclaim.json();
    assert_eq!((&reclaim["ids"], &reclaim["exact"]), (&json!([second, first]), &json!(true)));
    assert_eq!((&reclaim["freed_bytes"], &reclaim["freed_mb"]), (&json!(1 << 20), &json!(1)));
    assert_eq!(reclaim["freed_bytes_max"], reclaim["freed_bytes"]);
    assert!(reclaim["freed_metadata_bytes"].is_u64());

    let undo = format!("{SNAPSHOTS}{first}/undo/");
    place.post(&undo, "").await.assert_problem(400, &format!("restore of snapshot {first}"));
    // Whatever is in a body that nobody asked for, nobody reads it.
    let answer = place.post(&format!("{SNAPSHOTS}{first}/restore/"), "[nonsense").await;
    assert_eq!(answer.status, StatusCode::OK);
    let undone = place.post(&undo, &" ".repeat(64 << 10)).await;
    assert_eq!((undone.status, &undone.json()["status"]), (StatusCode::OK, &json!("success")));
    assert_eq!(keys(&undone.json()), ["message", "server", "snapshot", "status"]);
}

#[tokio::test]
async fn a_client_may_prefer_to_wait() {
    let place = Place::new();
    let body = r#"{"server_id": 12345, "name": "s"}"#;
    for (preference, applied) in [
        ("wait=20", "wait=20"),
        ("respond-async, WAIT = \"7\"; a=b, wait=9", "wait=7"),
        ("wait=99999999999999999999", "wait=60"),
        ("wait=soon", ""),
        ("handling=\"\\\", wait=4, x\"", ""),
    ] {
        let request = place.request("POST", SNAPSHOTS).header("Prefer", preference);
        let answer = place.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::CREATED);
        assert_eq!(answer.header("preference-applied"), applied, "{preference}");
        let snapshot = answer.json();
        let is_done = snapshot["status"] == "completed" && snapshot["size_mb"].is_u64();
        assert_eq!(is_done, !applied.is_empty(), "{preference}");
        assert!(snapshot["message"].is_string());
    }
}

#[tokio::test]
async fn servers_are_made_switched_and_deleted() {
    let place = Place::new();
    let body = r#"{"name": "db.example", "volumes": [{"name": "root", "size_bytes": 1048576},
        {"name": "data", "size_bytes": 512}]}"#;
    let answer = place.post(SERVERS, body).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let server = answer.json();
    let path = format!("{SERVERS}{}/", server["id"]);
    assert_eq!(answer.header("location"), path);
    assert_eq!(keys(&server), ["created_at", "driver", "id", "name", "status", "volumes"]);
    assert_eq!(
        (&server["status"], &server["driver"]),
        (&json!("stopped"), &json!({"type": "none"}))
    );
    assert_time(&server["created_at"]);
    let nbd = format!("nbd://host/{}-data", server["id"]);
    assert_eq!(server["volumes"][1], json!({"name": "data", "size_bytes": 512, "nbd": nbd}));
    assert_eq!(place.get(&path).await.json(), server);
    assert_eq!(place.get(SERVERS).await.json()["count"], 2);

    assert_eq!(place.post(&format!("{path}start/"), "").await.json()["status"], "running");
    assert_eq!(place.post(&format!("{path}stop/"), "").await.json()["status"], "stopped");
    assert_eq!(place.delete(&path).await.status, StatusCode::NO_CONTENT);
    place.get(&path).await.assert_problem(404, "server");
    assert_eq!(place.get(SERVERS).await.json()["results"][0]["id"], 12345);
}

#[tokio::test]
async fn heads_are_answered_where_things_can_be_got() {
    let place = Place::new();
    for path in [SNAPSHOTS, SERVERS, "/api/v1/openapi.json", "/api/v1/servers/12345/"] {
        let got = place.get(path).await;
        let head = place.send(place.request("HEAD", path).body(Body::empty()).unwrap()).await;
        assert_eq!((head.status, head.text.as_str()), (got.status, ""));
        assert_eq!(head.header("content-length"), got.text.len().to_string());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_holds_against_many_at_once() {
    let place = Arc::new(Place::new());
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let place = place.clone();
        calls.spawn(async move {
            let body = r#"{"server_id": 12345, "name": "s"}"#;
            let answer = place.post(SNAPSHOTS, body).await;
            if answer.status != StatusCode::CREATED {
                answer.assert_problem(400, "limit");
            }
            answer.status.as_u16()
        });
    }
    let statuses = calls.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 5);
}
