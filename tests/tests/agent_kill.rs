//! Kill -9 at every step of what the agent does, and hooks that do not do what they should.
//!
//! `COW_AGENT_STOP_AT` stops the agent at a step, having created the file `COW_AGENT_STOP_FILE`; it
//! is killed there and started again without.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Agent, Client, Place, configure, pattern, quickstart, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::thread;
use std::time::Duration;

const BLOCK: usize = 4096;
const VOLUMES: [&str; 2] = ["root", "data"];

/// Hooks that note their name, and then do what is said, if anything is.
fn hooks(place: &Place, special: &[(&str, &str)], more: &str) {
    let log = place.text("log");
    let mut text = format!("[hooks.test]\n{more}\n");
    for hook in ["stop", "start", "freeze", "thaw"] {
        let rest = special.iter().find(|(name, _)| *name == hook).map_or("true", |(_, rest)| rest);
        let script = format!("echo $COW_HOOK $COW_SERVER_ID >> {log}; {rest}");
        text += &format!("{hook} = {:?}\n", ["sh", "-c", &script]);
    }
    configure(place, &text);
}

/// The hooks that were run, in order; begins anew.
fn called(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.path("log")).unwrap_or_default();
    let _ = fs::remove_file(place.path("log"));
    text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect()
}

/// A server of two volumes that runs, by the hooks.
fn running_server(agent: &Agent) -> u64 {
    let volumes: Vec<Value> =
        VOLUMES.iter().map(|name| json!({"name": name, "size_bytes": 1 << 30})).collect();
    let driver = json!({"type": "command", "hooks": "test"});
    let body = json!({"name": "db", "volumes": volumes, "driver": driver}).to_string();
    let id = agent.ask("POST", "servers/", &body).expect(201)["id"].as_u64().unwrap();
    let started = agent.ask("POST", &format!("servers/{id}/start/"), "").expect(200);
    assert_eq!(started["status"], "running");
    id
}

fn write(agent: &Agent, server: u64, seed: u64) {
    for volume in VOLUMES {
        let name = format!("{server}-{volume}");
        let mut client = Client::connect(&agent.socket(), &name).unwrap();
        client.write(0, &pattern(seed, BLOCK)).unwrap();
        client.flush().unwrap();
        client.leave().unwrap();
    }
}

/// Whose content the volumes have: all of the same.
fn content(agent: &Agent, server: u64, seeds: &[u64]) -> u64 {
    let read = |volume: &&str| {
        let name = format!("{server}-{volume}");
        let mut client = Client::connect(&agent.socket(), &name).unwrap();
        let bytes = client.read(0, BLOCK as u32).unwrap();
        client.leave().unwrap();
        bytes
    };
    let found: Vec<Vec<u8>> = VOLUMES.iter().map(read).collect();
    let of = |seed: &&u64| found.iter().all(|bytes| *bytes == pattern(**seed, BLOCK));
    *seeds.iter().find(of).expect("all volumes have the content of one moment")
}

/// The snapshots that the API lists, which are those of the store: of each, all volumes.
fn agreed(place: &Place, agent: &Agent) -> Vec<u64> {
    let listed = agent.ask("GET", "snapshots/", "").expect(200);
    let results = listed["results"].as_array().unwrap();
    let mut ids: Vec<u64> = results.iter().map(|s| s["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    let mut stored: BTreeMap<u64, usize> = BTreeMap::new();
    for name in place.names() {
        if let Some(id) = name.split_once('@').and_then(|(_, snapshot)| snapshot.parse().ok()) {
            *stored.entry(id).or_default() += 1;
        }
    }
    assert!(stored.values().all(|count| *count == VOLUMES.len()), "{stored:?}");
    assert_eq!(stored.into_keys().collect::<Vec<_>>(), ids, "the list and the store agree");
    ids
}

/// Has the agent stopped at a step of `request`, kills it there, and starts it again.
fn killed_at(place: &mut Place, step: &str, request: (&str, &str, &str)) -> Agent {
    let file = place.path("stopped");
    let _ = fs::remove_file(&file);
    let mut command = quickstart(place);
    command.env("COW_AGENT_STOP_AT", step).env("COW_AGENT_STOP_FILE", &file);
    let agent = Agent::spawn(&mut command);
    thread::scope(|scope| {
        let (url, token) = (agent.url().to_owned(), agent.token().to_owned());
        scope.spawn(move || {
            // It is never answered, or it is: that depends on the step.
            let (method, path, body) = request;
            let bearer = format!("Bearer {token}");
            let headers = [("Authorization", bearer.as_str())];
            let path = format!("/api/v1/{path}");
            let _ = std::panic::catch_unwind(|| {
                cow_tests::http::ask(&url, method, &path, &headers, body)
            });
        });
        wait_until(step, || file.exists());
        agent.kill();
    });
    Agent::start(place)
}

#[test]
fn a_create_that_is_killed_is_there_or_is_not() {
    let mut place = Place::new();
    hooks(&place, &[], "");
    let mut agent = Agent::start(&mut place);
    let server = running_server(&agent);
    write(&agent, server, 1);
    let mut last = 0;
    for (step, is_there) in [
        ("create.intent", false),
        ("create.frozen", false),
        ("create.committed", true),
        ("create.thawed", true),
    ] {
        let before = agreed(&place, &agent);
        agent.stop();
        called(&place);
        let body = json!({"server_id": server, "name": "s"}).to_string();
        agent = killed_at(&mut place, step, ("POST", "snapshots/", &body));
        wait_until("the server to be thawed", || {
            let log = fs::read_to_string(place.path("log")).unwrap_or_default();
            log.lines().last().is_some_and(|line| line.starts_with("thaw"))
        });
        agent.wait_status(server, "running");
        let after = agreed(&place, &agent);
        assert_eq!(after.len() - before.len(), usize::from(is_there), "{step}");
        if is_there {
            let path = format!("snapshots/{}/", after[after.len() - 1]);
            let found = agent.ask("GET", &path, "").expect(200);
            assert_eq!((&found["status"], &found["name"]), (&json!("completed"), &json!("s")));
        }
        let next = agent.snapshot(server, "next", "");
        assert_eq!(next["consistency"], "frozen");
        let id = next["id"].as_u64().unwrap();
        assert!(id > last && after.iter().all(|known| *known < id), "{step}: {id} again");
        last = id;
        agent.ask("DELETE", &format!("snapshots/{id}/"), "").expect(204);
    }
    agent.stop();
    place.ok(&["check"]);
}

#[test]
fn a_restore_that_is_killed_is_whole_and_the_server_runs() {
    let mut place = Place::new();
    hooks(&place, &[], "");
    let mut agent = Agent::start(&mut place);
    let server = running_server(&agent);
    write(&agent, server, 1);
    let taken = agent.snapshot(server, "s", "");
    for (step, seed, must_stop) in [
        ("restore.intent", 2, false),
        ("restore.stopped", 2, true),
        ("restore.committed", 1, true),
        ("restore.started", 1, true),
    ] {
        write(&agent, server, 2);
        agent.stop();
        called(&place);
        let path = format!("snapshots/{}/restore/", taken["id"]);
        agent = killed_at(&mut place, step, ("POST", &path, ""));
        agent.wait_status(server, "running");
        let log = called(&place);
        assert_eq!(log.contains(&"stop".to_owned()), must_stop, "{step}: {log:?}");
        assert_eq!(log.last().map(String::as_str), Some("start"), "{step}: {log:?}");
        assert_eq!(content(&agent, server, &[1, 2]), seed, "{step}");
        agreed(&place, &agent);
        // Whatever was replaced is to be had.
        if seed == 1 {
            let undo = format!("snapshots/{}/undo/", taken["id"]);
            agent.ask("POST", &undo, "").expect(200);
            agent.wait_status(server, "running");
            assert_eq!(content(&agent, server, &[1, 2]), 2, "{step}");
        }
    }
    agent.stop();
    place.ok(&["check"]);
}

#[test]
fn a_delete_that_is_killed_has_happened_or_has_not() {
    let mut place = Place::new();
    hooks(&place, &[], "");
    let mut agent = Agent::start(&mut place);
    let server = running_server(&agent);
    write(&agent, server, 1);
    for (step, is_there) in [("delete.begin", true), ("delete.committed", false)] {
        let taken = agent.snapshot(server, "s", "");
        agent.stop();
        let path = format!("snapshots/{}/", taken["id"]);
        agent = killed_at(&mut place, step, ("DELETE", &path, ""));
        agent.wait_status(server, "running");
        let ids = agreed(&place, &agent);
        assert_eq!(ids.contains(&taken["id"].as_u64().unwrap()), is_there, "{step}");
        assert_eq!(agent.ask("GET", &path, "").status, if is_there { 200 } else { 404 });
    }
    agent.stop();
    place.ok(&["check"]);
}

#[test]
fn a_server_that_was_being_made_is_whole() {
    let mut place = Place::new();
    hooks(&place, &[], "");
    Agent::start(&mut place).stop();
    let volumes = json!([{"name": "a", "size_bytes": 512}, {"name": "b", "size_bytes": 512}]);
    let body = json!({"name": "db", "volumes": volumes}).to_string();
    let agent = killed_at(&mut place, "server.committed", ("POST", "servers/", &body));
    let found = agent.ask("GET", "servers/", "").expect(200);
    let made = &found["results"][1];
    assert_eq!((&made["id"], &made["name"]), (&json!(12346), &json!("db")));
    assert_eq!(made["volumes"].as_array().unwrap().len(), 2);
    let next = agent.ask("POST", "servers/", &body).expect(201);
    assert_eq!(next["id"], 12347);
    agent.stop();
}

#[test]
fn a_freeze_that_hangs_fails_or_floods_does_not_stop_the_snapshot() {
    for (rest, label) in [
        ("sleep 600", "freeze_failed"),
        ("exit 7", "freeze_failed"),
        ("head -c 30000000 /dev/zero; true", "frozen"),
    ] {
        let mut place = Place::new();
        let limit = if label == "frozen" { 8 } else { 1 };
        hooks(&place, &[("freeze", rest)], &format!("freeze_timeout_seconds = {limit}"));
        let agent = Agent::start(&mut place);
        let server = running_server(&agent);
        called(&place);
        let taken = agent.snapshot(server, "s", "");
        assert_eq!(taken["consistency"], label, "{rest}");
        assert_eq!(called(&place), ["freeze", "thaw"], "{rest}");
        agreed(&place, &agent);
        agent.stop();
    }
}

#[test]
fn a_server_that_does_not_stop_is_left_as_it_is() {
    for (rest, word) in
        [("echo no such domain >&2; exit 1", "no such domain"), ("sleep 600", "1 s")]
    {
        let mut place = Place::new();
        hooks(&place, &[("stop", rest)], "stop_timeout_seconds = 1");
        let agent = Agent::start(&mut place);
        let server = running_server(&agent);
        write(&agent, server, 1);
        let taken = agent.snapshot(server, "s", "");
        write(&agent, server, 2);
        let path = format!("snapshots/{}/restore/", taken["id"]);
        let text = agent.ask("POST", &path, "").problem(400);
        assert!(text.contains("hook stop") && text.contains(word), "{text}");
        agent.wait_status(server, "running");
        assert_eq!(content(&agent, server, &[1, 2]), 2, "nothing was rolled back");
        agent.stop();
    }
}

#[test]
fn a_restoring_server_is_not_restored_again() {
    let mut place = Place::new();
    let gate = place.text("gate");
    let wait = format!("while ! test -e {gate}; do sleep 0.02; done");
    hooks(&place, &[("stop", &wait)], "");
    let agent = Agent::start(&mut place);
    let server = running_server(&agent);
    write(&agent, server, 1);
    let taken = agent.snapshot(server, "s", "");
    let path = format!("snapshots/{}/restore/", taken["id"]);
    thread::scope(|scope| {
        let first = scope.spawn(|| agent.ask("POST", &path, "").expect(200));
        agent.wait_status(server, "restoring");
        let text = agent.ask("POST", &path, "").problem(400);
        assert!(text.contains("being restored"), "{text}");
        thread::sleep(Duration::from_millis(50));
        fs::write(&gate, "").unwrap();
        first.join().unwrap();
    });
    agent.wait_status(server, "running");
    agent.stop();
}
