//! A server with two volumes whose hooks write down that they were called.

use crate::agent::{Agent, configure};
use crate::images::pattern;
use crate::nbd::Client;
use crate::place::Place;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

const VOLUMES: [&str; 2] = ["root", "data"];
const BLOCK: usize = 4096;
const WRITTEN: usize = 16 * BLOCK;

/// One script for all hooks: it notes the name of the hook, and then does what a test has put into
/// the file of that name.
const SCRIPT: &str = r#"dir=${0%/*}
echo "$COW_HOOK $COW_SERVER_ID" >> "$dir/called"
if [ -e "$dir/$COW_HOOK.sh" ]; then . "$dir/$COW_HOOK.sh"; fi
"#;

/// The server; its agent is started by whoever needs one.
pub struct Hooked {
    /// Where everything is.
    pub place: Place,
    /// Identity of the server.
    pub id: u64,
}

impl Hooked {
    /// A server that runs, made by an agent that serves still. These hooks may take so many seconds;
    /// the others as long as they like, or nearly.
    pub fn running(limits: &[(&str, u32)]) -> (Self, Agent) {
        let mut place = Place::new();
        let script = place.text("hook");
        fs::write(&script, SCRIPT).expect("a script");
        let mut config = String::from("[hooks.test]\n");
        for (hook, most) in [("stop", 120), ("start", 120), ("freeze", 8), ("thaw", 120)] {
            let limit = limits.iter().find(|(name, _)| *name == hook).map_or(most, |limit| limit.1);
            config += &format!("{hook} = [\"sh\", \"{script}\"]\n");
            config += &format!("{hook}_timeout_seconds = {limit}\n");
        }
        configure(&place, &config);
        let agent = Agent::start(&mut place);
        let volumes = VOLUMES.map(|name| json!({"name": name, "size_bytes": 64_u64 << 20}));
        let driver = json!({"type": "command", "hooks": "test"});
        let body = json!({"name": "db", "volumes": volumes, "driver": driver}).to_string();
        let made = agent.ask("POST", "servers/", &body).expect(201);
        assert_eq!(made["status"], "stopped", "{made}");
        let hooked = Self { place, id: made["id"].as_u64().expect("an identity") };
        let started = agent.ask("POST", &format!("servers/{}/start/", hooked.id), "").expect(200);
        assert_eq!(started["status"], "running", "{started}");
        hooked.called(&["start"]);
        (hooked, agent)
    }

    /// What a hook does from now on, beside noting that it was called; nothing for no `script`.
    pub fn behave(&self, hook: &str, script: &str) {
        fs::write(self.place.path(&format!("{hook}.sh")), script).expect("a script");
    }

    /// Waits until exactly these hooks have been called, in this order, since this was asked last.
    #[track_caller]
    pub fn called(&self, hooks: &[&str]) {
        let log = self.place.path("called");
        let want: Vec<String> = hooks.iter().map(|hook| format!("{hook} {}", self.id)).collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let found: Vec<&str> = text.lines().collect();
            if found == want {
                break;
            }
            let is_over = found.len() > want.len() || Instant::now() > deadline;
            assert!(!is_over, "called {found:?} instead of {want:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        fs::write(&log, "").expect("a log");
    }

    /// Writes to both volumes.
    pub fn write(&self, agent: &Agent, seed: u64) {
        for volume in VOLUMES {
            let mut client = self.client(agent, volume);
            client.write(0, &pattern(seed, WRITTEN)).expect("a write");
            client.flush().expect("a flush");
            client.leave().expect("the end");
        }
    }

    /// Holds that both volumes, or a snapshot of both (`@ID`), have what was written with `seed`.
    #[track_caller]
    pub fn holds(&self, agent: &Agent, snapshot: &str, seed: u64) {
        for volume in VOLUMES {
            let mut client = self.client(agent, &format!("{volume}{snapshot}"));
            let found = client.read(0, WRITTEN as u32).expect("a read");
            assert!(found == pattern(seed, WRITTEN), "{volume}{snapshot} has not {seed}");
            client.leave().expect("the end");
        }
    }

    #[track_caller]
    fn client(&self, agent: &Agent, volume: &str) -> Client {
        let export = format!("{}-{volume}", self.id);
        Client::connect(&agent.socket(), &export).unwrap_or_else(|e| panic!("{export}: {e}"))
    }
}

/// Holds what an agent says against what `cowctl` finds in its pool: each server has its volumes,
/// each snapshot is there of every volume of its server, and there is nothing else. Returns the
/// identities of the snapshots, newest first.
#[track_caller]
pub fn agreement(agent: &Agent, place: &Place) -> Vec<u64> {
    let (mut want, mut volumes_of) = (BTreeSet::new(), BTreeMap::new());
    let servers = agent.ask("GET", "servers/", "").expect(200);
    for server in servers["results"].as_array().expect("servers") {
        let id = server["id"].as_u64().expect("an identity");
        let volumes = server["volumes"].as_array().expect("volumes");
        let names: Vec<String> = volumes
            .iter()
            .map(|volume| format!("{id}-{}", volume["name"].as_str().expect("a name")))
            .collect();
        want.extend(names.iter().cloned());
        volumes_of.insert(id, names);
    }
    let mut ids = Vec::new();
    let snapshots = agent.ask("GET", "snapshots/", "").expect(200);
    for snapshot in snapshots["results"].as_array().expect("snapshots") {
        let (id, server) = (snapshot["id"].as_u64(), snapshot["server"]["id"].as_u64());
        let (id, server) = id.zip(server).expect("identities");
        want.extend(volumes_of[&server].iter().map(|volume| format!("{volume}@{id}")));
        ids.push(id);
    }
    let list = place.json("list", &["list"]);
    let is_ours = |row: &&serde_json::Value| row["state"] == "ready" && row["kind"] == "user";
    let rows = list["items"].as_array().expect("items").iter().filter(is_ours);
    let found: BTreeSet<String> =
        rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect();
    assert_eq!(found, want, "the pool (left) and the agent (right)");
    ids
}
