//! `cow-agent quickstart` as a child.

use crate::http::{Answer, ask};
use crate::place::{Place, cowctl};
use crate::tools::{signal, wait_until};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// An agent, killed when dropped.
pub struct Agent {
    child: Child,
    /// What it said when it was ready.
    pub ready: Value,
}

/// The command that starts an agent in `place`, whose pool is the agent's from then on.
pub fn quickstart(place: &mut Place) -> Command {
    place.set_pool(place.path("agent/pool.cow"));
    let program = cowctl().with_file_name("cow-agent");
    assert!(program.is_file(), "{}: build it first", program.display());
    let mut command = Command::new(program);
    command.args(["quickstart", "--listen", "127.0.0.1:0", "--dir"]).arg(place.path("agent"));
    let config = place.path("agent.toml");
    if config.exists() {
        command.arg("--config").arg(config);
    }
    command.env("COW_RUNTIME_DIR", place.path("run")).stdin(Stdio::null());
    command
}

impl Agent {
    /// Starts one, with the configuration `agent.toml` of the place if there is one.
    #[track_caller]
    pub fn start(place: &mut Place) -> Self {
        Self::spawn(&mut quickstart(place))
    }

    /// Starts a command that becomes an agent.
    #[track_caller]
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the agent starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        match serde_json::from_str(&line) {
            Ok(ready) => Self { child, ready },
            Err(e) => panic!("{e}: {line:?}, and then {:?}", child.wait()),
        }
    }

    fn word(&self, key: &str) -> &str {
        self.ready[key].as_str().unwrap_or_else(|| panic!("{key}: {}", self.ready))
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.word("url")
    }

    /// Who may ask.
    pub fn token(&self) -> &str {
        self.word("token")
    }

    /// The unix socket of its NBD server.
    pub fn socket(&self) -> PathBuf {
        self.word("nbd").split_once("socket=").expect("a unix socket").1.into()
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Asks, with the token, a path below `/api/v1/`.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        self.ask_with(method, path, &[], body)
    }

    /// The same, with further headers.
    #[track_caller]
    pub fn ask_with(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> Answer {
        let bearer = format!("Bearer {}", self.token());
        let mut headers = vec![("Authorization", bearer.as_str())];
        headers.extend(more);
        ask(self.url(), method, &format!("/api/v1/{path}"), &headers, body)
    }

    /// The NBD address of a volume.
    #[track_caller]
    pub fn nbd(&self, server: u64, volume: &str) -> String {
        let found = self.ask("GET", &format!("servers/{server}/"), "").expect(200);
        let volumes = found["volumes"].as_array().expect("volumes");
        let volume = volumes.iter().find(|v| v["name"] == volume).expect("the volume");
        volume["nbd"].as_str().expect("an address").to_owned()
    }

    /// Takes a snapshot and waits until it is completed.
    #[track_caller]
    pub fn snapshot(&self, server: u64, name: &str, description: &str) -> Value {
        let body = serde_json::json!({
            "server_id": server, "name": name, "description": description,
        });
        let wait = [("Prefer", "wait=30")];
        let taken = self.ask_with("POST", "snapshots/", &wait, &body.to_string()).expect(201);
        assert_eq!(taken["status"], "completed", "{taken}");
        taken
    }

    /// Waits until a server has this status.
    #[track_caller]
    pub fn wait_status(&self, server: u64, status: &str) {
        wait_until(&format!("server {server} to be {status}"), || {
            self.ask("GET", &format!("servers/{server}/"), "").expect(200)["status"] == status
        });
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = self.child.wait().expect("it ends");
        assert_eq!(status.code(), Some(0), "the agent ends well");
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Compares an answer with one that was printed: every key of `printed` is there, at every level,
/// with a value of its kind; the values of what a document can foretell are equal. More keys are
/// allowed.
#[track_caller]
pub fn resembles(printed: &Value, answer: &Value) {
    match (printed, answer) {
        (Value::Object(printed), Value::Object(answer)) => {
            for (key, value) in printed {
                let found = answer.get(key).unwrap_or_else(|| panic!("no {key}: {answer:?}"));
                match (key.as_str(), value, found) {
                    ("created_at", _, Value::String(time)) => assert!(is_time(time), "{time}"),
                    ("size_mb" | "referenced_mb", Value::Number(_), found) => {
                        assert!(found.is_u64(), "{key}: {found}");
                    }
                    ("referenced_mb", Value::Null, found) => {
                        assert!(found.is_u64() || found.is_null(), "{key}: {found}");
                    }
                    ("exact", Value::Bool(_), found) => assert!(found.is_boolean(), "{found}"),
                    ("message", Value::String(printed), Value::String(found)) => {
                        assert_eq!(first_sentence(printed), first_sentence(found));
                    }
                    _ => resembles(value, found),
                }
            }
        }
        (Value::Array(printed), Value::Array(answer)) => {
            assert_eq!(printed.len(), answer.len(), "{answer:?}");
            printed.iter().zip(answer).for_each(|(printed, answer)| resembles(printed, answer));
        }
        _ => assert_eq!(printed, answer),
    }
}

fn first_sentence(text: &str) -> &str {
    text.split_inclusive('.').next().unwrap_or_default()
}

/// Whether this is a time as `2025-01-15T18:30:00Z`.
fn is_time(text: &str) -> bool {
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    shape == "9999-99-99T99:99:99Z"
}

/// Writes `agent.toml`.
pub fn configure(place: &Place, text: &str) {
    fs::write(place.path("agent.toml"), text).expect("a configuration");
}
