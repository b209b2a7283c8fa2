//! The OpenAPI document against the agent: schemathesis makes requests from it, good and bad, and
//! looks for answers that it does not foretell.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Agent, Place};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Good data may be refused, by the contract: a sixth snapshot, two volumes of one name, an undo
/// where nothing is to be undone. A schema cannot say that.
const CONFIG: &str = r#"
[checks]
positive_data_acceptance.expected-statuses = ["2xx", "400", "401", "403", "404", "409"]
"#;

#[test]
fn no_answer_surprises() {
    let Some(venv) = std::env::var_os("COW_TEST_VENV").map(PathBuf::from) else {
        let skip = std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some();
        assert!(skip, "COW_TEST_VENV is not set: run the tests by cargo xtask test");
        eprintln!("skipped: there is no Python environment");
        return;
    };
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    // Something to be found.
    agent.snapshot(12345, "known", "");
    let config = place.path("schemathesis.toml");
    fs::write(&config, CONFIG).unwrap();
    let seed = std::env::var("COW_SCHEMA_SEED").unwrap_or_else(|_| "20261128".into());
    let examples = std::env::var("COW_SCHEMA_EXAMPLES").unwrap_or_else(|_| "40".into());
    println!("seed {seed}, {examples} examples of each operation");
    let mut command = Command::new(venv.join("bin/python3"));
    command.args(["-m", "schemathesis.cli", "--no-color", "--config-file"]).arg(&config);
    command.args(["run", &format!("{}/api/v1/openapi.json", agent.url())]);
    command.args(["--header", &format!("Authorization: Bearer {}", agent.token())]);
    command.args(["--seed", &seed, "--max-examples", &examples, "--workers", "1"]);
    command.args(["--checks", "all", "--generation-database", "none"]);
    let output = command.current_dir(place.path("")).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let tail = text.len().saturating_sub(6000);
    println!("{}", text.get(tail..).unwrap_or(&text));
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "seed {seed}: {}\n{text}{err}", output.status);
    assert!(text.contains("No issues found"), "it has looked at nothing: {text}");
    // It still does its work.
    agent.ask("GET", "snapshots/", "").expect(200);
    agent.stop();
    place.ok(&["check"]);
}
