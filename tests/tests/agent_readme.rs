//! What the README says of the snapshot API: its very lines, run, with the answers that it prints.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Agent, Place, have, resembles, wait_until};
use serde_json::Value;
use std::process::{Command, Stdio};

/// The blocks of the tour, each with its kind: `sh`, `json`, `toml`.
fn blocks() -> Vec<(String, String)> {
    let readme = include_str!("../../README.md");
    let (_, tour) = readme.split_once("<!-- agent-tour -->").expect("the tour");
    let (tour, _) = tour.split_once("\n## ").expect("its end");
    let mut blocks = Vec::new();
    let mut rest = tour;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (kind, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("\n```").unwrap();
        blocks.push((kind.to_owned(), text.to_owned()));
        rest = after;
    }
    blocks
}

#[test]
fn the_tour_is_as_printed() {
    if !have(&["bash", "curl"]) {
        return;
    }
    let blocks = blocks();
    let kinds: Vec<&str> = blocks.iter().map(|(kind, _)| kind.as_str()).collect();
    let pairs = ["sh", "json", "sh", "json", "sh", "json", "sh", "json", "sh", "json", "toml"];
    assert_eq!(kinds, pairs);
    assert_eq!(blocks[0].1, "cargo run --release -p cow-agent -- quickstart");
    let mut place = Place::new();
    let agent = Agent::start(&mut place);
    let printed: Value = serde_json::from_str(&blocks[1].1).unwrap();
    for key in ["url", "token", "nbd"] {
        assert!(printed[key].is_string() && agent.ready[key].is_string(), "{key}");
    }
    for pair in blocks[2..10].chunks(2) {
        let output = Command::new("bash")
            .args(["-c", &pair[0].1])
            .env("URL", agent.url())
            .env("TOKEN", agent.token())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: {output:?}", pair[0].1);
        let answer: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|e| panic!("{}: {e}: {output:?}", pair[0].1));
        resembles(&serde_json::from_str(&pair[1].1).unwrap(), &answer);
        // What is listed next is completed: a person types slower than that.
        wait_until("snapshots to be completed", || {
            let list = agent.ask("GET", "snapshots/", "").expect(200);
            let mut results = list["results"].as_array().unwrap().iter();
            results.all(|snapshot| snapshot["status"] == "completed")
        });
    }
    agent.stop();
    // The configuration is one.
    let config = blocks.into_iter().next_back().unwrap().1;
    cow_tests::configure(&place, &config);
    Agent::start(&mut place).stop();
}
