//! The agent as a process: its contract, its limits, and what it does to those who use its volumes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::http::ask;
use cow_tests::{Agent, Client, Place, configure, pattern, quickstart, wait_until};
use serde_json::{Value, json};
use std::process::Stdio;
use std::thread;
use std::time::Instant;

const SERVER: u64 = 12345;
const BLOCK: usize = 4096;

fn create(agent: &Agent, server: u64, name: &str) -> cow_tests::http::Answer {
    let body = json!({"server_id": server, "name": name}).to_string();
    agent.ask("POST", "snapshots/", &body)
}

fn ids(agent: &Agent) -> Vec<u64> {
    let listed = agent.ask("GET", "snapshots/", "").expect(200);
    let results = listed["results"].as_array().unwrap();
    assert_eq!(listed["count"], results.len());
    results.iter().map(|snapshot| snapshot["id"].as_u64().unwrap()).collect()
}

fn server(agent: &Agent, volumes: &[(&str, u64)]) -> u64 {
    let volumes: Vec<Value> =
        volumes.iter().map(|(name, size)| json!({"name": name, "size_bytes": size})).collect();
    let body = json!({"name": "db", "volumes": volumes}).to_string();
    agent.ask("POST", "servers/", &body).expect(201)["id"].as_u64().unwrap()
}

#[test]
fn it_goes_on_where_it_was_with_a_fresh_token() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let found = agent.ask("GET", "servers/", "").expect(200);
    assert_eq!(found["results"][0]["id"], SERVER);
    assert_eq!(found["results"][0]["name"], "web-server-01");
    assert_eq!(found["results"][0]["volumes"][0]["size_bytes"], 10_u64 << 30);
    Client::connect(&agent.socket(), "12345-root").unwrap().write(0, &pattern(1, BLOCK)).unwrap();
    let kept = agent.snapshot(SERVER, "kept", "a description");
    let old = agent.token().to_owned();
    let mut second = quickstart(&mut place);
    let refused = second.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("in use"), "{text}");
    agent.stop();
    place.ok(&["check"]);

    let agent = Agent::start(&mut place);
    assert_ne!(agent.token(), old);
    let bearer = format!("Bearer {old}");
    let headers = [("Authorization", bearer.as_str())];
    ask(agent.url(), "GET", "/api/v1/snapshots/", &headers, "").problem(401);
    assert_eq!(agent.ask("GET", "servers/", "").expect(200)["count"], 1);
    let listed = agent.ask("GET", "snapshots/", "").expect(200);
    assert_eq!(listed["results"][0]["id"], kept["id"]);
    assert_eq!(listed["results"][0]["description"], "a description");
    assert_eq!(place.row("12345-root@1")["description"], "a description");
    agent.kill();
    let again = Agent::start(&mut place);
    assert_eq!(ids(&again), [kept["id"].as_u64().unwrap()]);
    again.stop();
}

#[test]
fn nobody_is_answered_without_the_token() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let wrong = format!("Bearer {}", "0".repeat(64));
    let basic = format!("Basic {}", agent.token());
    for headers in [&[][..], &[("Authorization", wrong.as_str())], &[("Authorization", &basic)]] {
        for (method, path) in [
            ("GET", "/api/v1/snapshots/"),
            ("GET", "/api/v1/openapi.json"),
            ("DELETE", "/api/v1/snapshots/1/"),
            ("PATCH", "/api/v1/snapshots/"),
            ("GET", "/api/nothing"),
        ] {
            let answer = ask(agent.url(), method, path, headers, "");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            answer.problem(401);
        }
    }
    for (path, code) in [("snapshots/x/", 404), ("snapshots/9007199254740993/", 404)] {
        agent.ask("GET", path, "").problem(code);
    }
    let large = json!({"server_id": SERVER, "name": "n", "description": "x".repeat(1 << 20)});
    agent.ask("POST", "snapshots/", &large.to_string()).problem(413);
    assert!(ids(&agent).is_empty());
    agent.stop();
}

#[test]
fn a_hundred_at_once_make_five() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let codes: Vec<u16> = thread::scope(|scope| {
        let take = |n: usize| {
            let agent = &agent;
            scope.spawn(move || create(agent, SERVER, &format!("s{n}")))
        };
        let threads: Vec<_> = (0..100).map(take).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        let code = |answer: cow_tests::http::Answer| match answer.status {
            201 => 201,
            _ => {
                let text = answer.problem(400);
                assert!(text.contains("limit") && text.contains("12345"), "{text}");
                400
            }
        };
        answers.map(code).collect()
    });
    let count = |code: u16| codes.iter().filter(|found| **found == code).count();
    assert_eq!((count(201), count(400)), (5, 95));
    let ids = ids(&agent);
    assert_eq!(ids.len(), 5);
    let mut names: Vec<String> = ids.iter().map(|id| format!("12345-root@{id}")).collect();
    names.push("12345-root".into());
    names.sort();
    assert_eq!(place.names(), names, "the list and the store agree");
    agent.stop();
}

/// Frames and flushes that `act` costs, those of folds apart, and its milliseconds.
fn cost(place: &Place, act: impl FnOnce()) -> (u64, u64, f64) {
    let stats = || place.json("pool", &["pool", "info"])["stats"].clone();
    let before = stats();
    let begun = Instant::now();
    act();
    let ms = begun.elapsed().as_secs_f64() * 1000.0;
    let after = stats();
    let more = |key: &str| after[key].as_u64().unwrap() - before[key].as_u64().unwrap();
    // Whoever looks at sizes waits for a fold, which flushes twice.
    (more("frames"), more("device_flushes") - 2 * more("folds"), ms)
}

/// The least of several costs: a pool that is idle for a tenth of a second writes a frame of its own,
/// which on a busy machine falls into the measurement now and then.
fn least(costs: &[(u64, u64, f64)]) -> (u64, u64) {
    let of = |pick: fn(&(u64, u64, f64)) -> u64| costs.iter().map(pick).min().unwrap();
    (of(|cost| cost.0), of(|cost| cost.1))
}

#[test]
fn a_server_of_a_tebibyte_costs_what_a_small_one_does() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let mut costs = Vec::new();
    for size in [1_u64 << 30, 1 << 40] {
        let id = server(&agent, &[("root", size)]);
        let name = format!("{id}-root");
        let mut client = Client::connect(&agent.socket(), &name).unwrap();
        // Both ends, and much between: the map has leaves over its whole length.
        for at in 0..64 {
            client.write(at * (size / 64), &pattern(at, BLOCK)).unwrap();
        }
        client.leave().unwrap();
        let (mut creates, mut restores) = (Vec::new(), Vec::new());
        for round in 0..3 {
            place.ok(&["space", &name]);
            let mut taken = Value::Null;
            creates.push(cost(&place, || taken = create(&agent, id, "s").expect(201)));
            let mut client = Client::connect(&agent.socket(), &name).unwrap();
            client.write(0, &pattern(99 + round, BLOCK)).unwrap();
            client.flush().unwrap();
            client.leave().unwrap();
            let path = format!("snapshots/{}/", taken["id"]);
            wait_until("it to be completed", || {
                agent.ask("GET", &path, "").expect(200)["status"] == "completed"
            });
            place.ok(&["space", &name]);
            restores.push(cost(&place, || {
                agent.ask("POST", &format!("{path}restore/"), "").expect(200);
            }));
        }
        println!("{size} bytes: create {creates:?}, restore {restores:?} (frames, flushes, ms)");
        costs.push((least(&creates), least(&restores)));
    }
    let one = (1, 1);
    assert_eq!(costs, [(one, one), (one, one)], "one frame and one flush, whatever the size");
    agent.stop();
}

#[test]
fn a_restore_is_undone_and_its_preview_is_exact() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let id = server(&agent, &[("root", 1 << 30), ("data", 1 << 30)]);
    let write = |seed: u64| {
        for volume in ["root", "data"] {
            let mut client = Client::connect(&agent.socket(), &format!("{id}-{volume}")).unwrap();
            client.write(8192, &pattern(seed, 300 * BLOCK)).unwrap();
            client.leave().unwrap();
        }
    };
    let holds = |seed: u64| {
        ["root", "data"].iter().all(|volume| {
            let mut client = Client::connect(&agent.socket(), &format!("{id}-{volume}")).unwrap();
            client.read(8192, BLOCK as u32).unwrap() == pattern(seed, BLOCK)
        })
    };
    write(1);
    let first = agent.snapshot(id, "first", "");
    write(2);
    let second = agent.snapshot(id, "second", "");
    write(3);
    let restore = format!("snapshots/{}/restore/", first["id"]);
    let undo = format!("snapshots/{}/undo/", first["id"]);
    agent.ask("POST", &undo, "").problem(400);
    agent.ask("POST", &restore, "").expect(200);
    assert!(holds(1));
    let undone = agent.ask("POST", &undo, "").expect(200);
    assert_eq!(undone["status"], "success");
    assert!(holds(3));
    agent.ask("POST", &undo, "").expect(200);
    assert!(holds(1));
    agent.ask("POST", &undo, "").expect(200);
    assert!(holds(3));

    let path = format!("snapshots/reclaim/?ids={}", second["id"]);
    let preview = agent.ask("GET", &path, "").expect(200);
    assert_eq!(preview["exact"], true);
    assert_eq!(preview["freed_bytes"], 2 * 300 * BLOCK);
    let size = agent.ask("GET", &format!("snapshots/{}/", second["id"]), "").expect(200);
    assert_eq!(size["size_mb"], 3, "600 blocks of 4 KiB, rounded up");
    let before = place.info("data_bytes");
    agent.ask("DELETE", &format!("snapshots/{}/", second["id"]), "").expect(204);
    place.ok(&["create", "passing", "--size", "1M"]);
    place.ok(&["delete", "passing", "--wait"]);
    assert_eq!(preview["freed_bytes"], before - place.info("data_bytes"));
    agent.ask("GET", &path, "").problem(404);
    agent.ask("DELETE", &format!("servers/{id}/"), "").expect(204);
    assert_eq!(place.names(), ["12345-root"]);
    agent.stop();
    place.ok(&["check"]);
}

#[test]
fn clients_are_fenced_and_readers_are_not_robbed() {
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let mut writer = Client::connect(&agent.socket(), "12345-root").unwrap();
    writer.write(0, &pattern(1, BLOCK)).unwrap();
    let taken = agent.snapshot(SERVER, "s", "");
    assert_eq!(taken["consistency"], "crash", "a client has it open");
    writer.write(0, &pattern(2, BLOCK)).unwrap();
    let id = taken["id"].as_u64().unwrap();
    agent.ask("POST", &format!("snapshots/{id}/restore/"), "").expect(200);
    assert!(writer.write(0, &pattern(3, BLOCK)).is_err(), "a stale client writes nothing");
    let mut writer = Client::connect(&agent.socket(), "12345-root").unwrap();
    assert!(writer.read(0, BLOCK as u32).unwrap() == pattern(1, BLOCK));
    writer.leave().unwrap();

    let mut reader = Client::connect(&agent.socket(), &format!("12345-root@{id}")).unwrap();
    let text = agent.ask("DELETE", &format!("snapshots/{id}/"), "").problem(409);
    assert!(text.contains(&format!("12345-root@{id}")), "{text}");
    assert!(reader.read(0, BLOCK as u32).unwrap() == pattern(1, BLOCK));
    reader.leave().unwrap();
    agent.ask("DELETE", &format!("snapshots/{id}/"), "").expect(204);
    agent.stop();
}

#[test]
fn a_configuration_is_checked() {
    let mut place = Place::new();
    configure(&place, "[agent]\nsnapshot_limit = 2\n");
    let agent = Agent::start(&mut place);
    // The first server has the limit that was configured when it was made.
    let id = server(&agent, &[("root", 1 << 20)]);
    for (name, code) in [("a", 201), ("b", 201), ("c", 400)] {
        assert_eq!(create(&agent, id, name).status, code, "{name}");
    }
    agent.stop();
    configure(&place, "[agent]\nsnapshots = 2\n");
    let refused = quickstart(&mut place).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success(), "{text}");
    assert!(text.contains("snapshots") && text.contains("agent.toml"), "{text}");
}
