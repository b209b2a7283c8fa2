//! Hooks that hang, fail or flood their output where agent_kill.rs does not look: thawing and
//! starting, all that is asked of a server meanwhile, and servers that have no hooks at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::hooked::{Hooked, agreement};
use cow_tests::http::ask;
use cow_tests::{Agent, quickstart, wait_until};
use serde_json::{Value, json};
use std::{fs, panic, thread};

const HANGS: &str = "sleep 600";
const FAILS: &str = "echo no such domain >&2; exit 3";
/// Megabytes, more than any pipe holds.
const FLOODS: &str = "head -c 4000000 /dev/zero; head -c 4000000 /dev/zero >&2";

/// A snapshot that is completed, with all that its hooks do wrong, within so many seconds.
fn snapshot(agent: &Agent, server: u64) -> Value {
    let body = json!({"server_id": server, "name": "s"}).to_string();
    let wait = [("Prefer", "wait=20")];
    let taken = agent.ask_with("POST", "snapshots/", &wait, &body).expect(201);
    assert_eq!(taken["status"], "completed", "{taken}");
    taken
}

#[test]
fn a_server_at_its_limit_is_not_frozen_for_nothing() {
    let (hooked, agent) = Hooked::running(&[]);
    for _ in 0..5 {
        snapshot(&agent, hooked.id);
        hooked.called(&["freeze", "thaw"]);
    }
    let body = json!({"server_id": hooked.id, "name": "s"}).to_string();
    let text = agent.ask("POST", "snapshots/", &body).problem(400);
    assert!(text.contains("limit") && text.contains(&hooked.id.to_string()), "{text}");
    assert_eq!(agreement(&agent, &hooked.place).len(), 5);
    agent.stop();
    hooked.called(&[]);
}

#[test]
fn a_server_that_could_not_be_thawed_is_thawed_at_the_next_start() {
    let (mut hooked, agent) = Hooked::running(&[]);
    hooked.behave("thaw", FAILS);
    let taken = snapshot(&agent, hooked.id);
    assert_eq!(taken["consistency"], "frozen", "{taken}");
    hooked.called(&["freeze", "thaw", "thaw", "thaw"]);
    agent.stop();
    hooked.behave("thaw", "");
    let agent = Agent::start(&mut hooked.place);
    hooked.called(&["thaw"]);
    agent.stop();
    let agent = Agent::start(&mut hooked.place);
    agent.wait_status(hooked.id, "running");
    assert_eq!(agreement(&agent, &hooked.place).len(), 1);
    agent.stop();
    hooked.called(&[]);
}

#[test]
fn a_thaw_that_hangs_or_floods_is_tried_again() {
    let (hooked, agent) = Hooked::running(&[("thaw", 3)]);
    let once = |rest: &str| {
        let tried = format!("\"$dir/tried-{}\"", rest.len());
        format!("if ! [ -e {tried} ]; then : > {tried}; {rest}; fi")
    };
    for script in [once(HANGS), once(&format!("{FLOODS}; exit 1"))] {
        hooked.behave("thaw", &script);
        snapshot(&agent, hooked.id);
        hooked.called(&["freeze", "thaw", "thaw"]);
    }
    agent.stop();
}

#[test]
fn a_server_that_does_not_stop_is_not_called_stopped() {
    let (hooked, agent) = Hooked::running(&[]);
    hooked.behave("stop", FAILS);
    let stop = format!("servers/{}/stop/", hooked.id);
    let text = agent.ask("POST", &stop, "").problem(400);
    assert!(text.contains("hook stop") && text.contains("no such domain"), "{text}");
    hooked.called(&["stop"]);
    agent.wait_status(hooked.id, "running");
    agent.ask("DELETE", &format!("servers/{}/", hooked.id), "").problem(400);
    // A flood alone is no failure.
    hooked.behave("stop", FLOODS);
    assert_eq!(agent.ask("POST", &stop, "").expect(200)["status"], "stopped");
    hooked.called(&["stop"]);
    agent.ask("DELETE", &format!("servers/{}/", hooked.id), "").expect(204);
    assert!(agreement(&agent, &hooked.place).is_empty());
    agent.stop();
}

#[test]
fn a_server_that_does_not_start_again_is_stopped_and_restored() {
    let (hooked, agent) = Hooked::running(&[("start", 3)]);
    hooked.write(&agent, 1);
    let taken = snapshot(&agent, hooked.id);
    hooked.write(&agent, 2);
    hooked.called(&["freeze", "thaw"]);
    hooked.behave("start", HANGS);
    let restored = agent.ask("POST", &format!("snapshots/{}/restore/", taken["id"]), "");
    assert_eq!(restored.expect(200)["server"]["status"], "restoring");
    hooked.called(&["stop", "start"]);
    agent.wait_status(hooked.id, "stopped");
    hooked.holds(&agent, "", 1);
    hooked.behave("start", "");
    agent.ask("POST", &format!("servers/{}/start/", hooked.id), "").expect(200);
    // A server that is stopped is not frozen, and a restore leaves it so.
    agent.ask("POST", &format!("servers/{}/stop/", hooked.id), "").expect(200);
    hooked.called(&["start", "stop"]);
    assert_eq!(snapshot(&agent, hooked.id)["consistency"], "stopped");
    agent.ask("POST", &format!("snapshots/{}/undo/", taken["id"]), "").expect(200);
    hooked.holds(&agent, "", 2);
    agent.wait_status(hooked.id, "stopped");
    agent.stop();
    hooked.called(&[]);
}

#[test]
fn nothing_else_is_done_with_a_server_that_is_being_restored() {
    let (hooked, agent) = Hooked::running(&[]);
    hooked.write(&agent, 1);
    let taken = snapshot(&agent, hooked.id);
    hooked.write(&agent, 2);
    hooked.called(&["freeze", "thaw"]);
    hooked.behave("stop", "while ! [ -e \"$dir/go\" ]; do sleep 0.05; done");
    let (path, this) = (format!("snapshots/{}/", taken["id"]), hooked.id);
    let restore = format!("{path}restore/");
    thread::scope(|scope| {
        let restored = scope.spawn(|| agent.ask("POST", &restore, "").expect(200));
        agent.wait_status(this, "restoring");
        let body = json!({"server_id": this, "name": "s"}).to_string();
        let asked = [
            ("POST", restore.as_str(), ""),
            ("POST", "snapshots/", &body),
            ("DELETE", &path, ""),
            ("POST", &format!("{path}undo/"), ""),
            ("POST", &format!("servers/{this}/stop/"), ""),
            ("DELETE", &format!("servers/{this}/"), ""),
        ];
        let answers = asked.map(|(method, path, body)| (path, agent.ask(method, path, body)));
        // Others go on.
        let other =
            agent.ask("POST", "snapshots/", &json!({"server_id": 12345, "name": "o"}).to_string());
        fs::write(hooked.place.path("go"), "").unwrap();
        for (path, answer) in answers {
            let text = answer.problem(400);
            assert!(text.contains(&format!("server {this} is being restored")), "{path}: {text}");
        }
        other.expect(201);
        assert_eq!(restored.join().unwrap()["status"], "success");
    });
    hooked.called(&["stop", "start"]);
    agent.wait_status(this, "running");
    hooked.holds(&agent, "", 1);
    assert_eq!(agreement(&agent, &hooked.place).len(), 2);
    agent.stop();
}

/// Kills an agent that stops at `step` of a request; returns the one that comes after it.
fn killed_at(hooked: &mut Hooked, step: &str, method: &str, path: &str, body: &str) -> Agent {
    let mark = hooked.place.path("stopped");
    let _ = fs::remove_file(&mark);
    let mut command = quickstart(&mut hooked.place);
    command.env("COW_AGENT_STOP_AT", step).env("COW_AGENT_STOP_FILE", &mark);
    let agent = Agent::spawn(&mut command);
    let bearer = format!("Bearer {}", agent.token());
    let (url, path) = (agent.url().to_owned(), format!("/api/v1/{path}"));
    let headers = [("Authorization", bearer.as_str())];
    thread::scope(|scope| {
        // It is not answered.
        scope.spawn(|| panic::catch_unwind(|| ask(&url, method, &path, &headers, body)).is_err());
        wait_until(step, || mark.exists());
        agent.kill();
    });
    Agent::start(&mut hooked.place)
}

/// Of what is done with a server without hooks, the commit alone is left to die at.
#[test]
fn a_server_without_hooks_survives_a_kill_as_well() {
    let (mut hooked, agent) = Hooked::running(&[]);
    agent.stop();
    let body = json!({"server_id": 12345, "name": "s"}).to_string();
    let agent = killed_at(&mut hooked, "create.committed", "POST", "snapshots/", &body);
    let [id] = agreement(&agent, &hooked.place)[..] else { panic!("it was durable") };
    let next = agent.snapshot(12345, "next", "");
    assert!(next["id"].as_u64() > Some(id), "{next}");
    agent.stop();

    let path = format!("snapshots/{id}/restore/");
    let agent = killed_at(&mut hooked, "restore.committed", "POST", &path, "");
    assert_eq!(agreement(&agent, &hooked.place).len(), 2);
    assert_eq!(agent.ask("GET", "servers/12345/", "").expect(200)["status"], "stopped");
    // The restore has happened, and is undone.
    agent.ask("POST", &format!("snapshots/{id}/undo/"), "").expect(200);
    agent.ask("POST", &format!("snapshots/{}/undo/", next["id"]), "").problem(400);
    agent.stop();
    hooked.called(&[]);
    hooked.place.ok(&["check"]);
}
