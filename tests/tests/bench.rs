//! `cowctl bench`: what it says adds up, and what it made is gone, however it ends.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, pattern, signal, wait_until};
use serde_json::Value;
use std::process::{Child, Stdio};

const MIB: usize = 1 << 20;

/// A pool with user data in it: a volume, a snapshot, and what was written since.
fn place() -> Place {
    let place = Place::with_pool();
    for (name, seed) in [("older", 3), ("newer", 4)] {
        std::fs::write(place.path(name), pattern(seed, 6 * MIB)).unwrap();
    }
    place.ok(&["import", &place.text("older"), "vm"]);
    place.ok(&["snapshot", "vm@a"]);
    place.ok(&["import", &place.text("newer"), "vm", "--into"]);
    place
}

#[track_caller]
fn must_be_as_before(place: &Place) {
    // A scratch volume that stayed would go when the next one opens the pool, with a word on it.
    let said = place.run(&["set", "vm", "seen=1"]).stderr;
    assert_eq!(said, "", "nothing is left to be removed");
    assert_eq!(place.names(), ["vm", "vm@a"]);
    assert!(place.content("vm") == pattern(4, 6 * MIB));
    assert!(place.content("vm@a") == pattern(3, 6 * MIB));
    place.ok(&["check"]);
}

fn entries(place: &Place) -> Vec<String> {
    let entries = std::fs::read_dir(place.path("")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// What one side's rounds say adds up to what the side says.
fn adds_up(answer: &Value, side: &str, ops: u64, rounds: usize) {
    let all = &answer["sides"][side];
    let each = answer["rounds"][side].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(each.len(), rounds, "{answer}");
    for round in each {
        assert_eq!(round["ops"], ops, "{round}");
        assert_eq!(round["latency_us"]["count"], ops, "every one has a latency: {round}");
        let sum = round["reads"].as_u64().unwrap() + round["writes"].as_u64().unwrap();
        assert_eq!(sum, ops, "{round}");
    }
    assert_eq!(all["ops"], ops * rounds as u64, "{all}");
    assert_eq!(all["latency_us"]["count"], ops * rounds as u64, "{all}");
    let quantile = |key: &str| all["latency_us"][key].as_f64().unwrap();
    assert!(quantile("p50") <= quantile("p99") && quantile("p99") <= quantile("max"), "{all}");
}

#[test]
fn a_pool_of_its_own_comes_and_goes() {
    let place = Place::new();
    std::fs::create_dir(place.path("scratch")).unwrap();
    let dir = place.text("scratch");
    let words = ["bench", &dir, "--size", "4M", "--ops", "500", "--qd", "4", "--vs-raw"];
    for (load, reads, writes) in [("randwrite", false, true), ("randread", true, false)] {
        let words = [&words[..], &["--rw", load, "--rounds", "2"]].concat();
        let answer = place.json("bench", &words);
        for side in ["pool", "raw"] {
            adds_up(&answer, side, 500, 2);
            let all = &answer["sides"][side];
            assert_eq!(all["reads"].as_u64() > Some(0), reads, "{all}");
            assert_eq!(all["writes"].as_u64() > Some(0), writes, "{all}");
        }
        let ratio = answer["ratio"].as_f64().unwrap();
        assert!(ratio.is_finite() && ratio > 0.0, "{answer}");
        assert_eq!(answer["pool"]["temporary"], true);
        for round in answer["rounds"]["pool"].as_array().unwrap() {
            let folded = round["engine"]["map_bytes_written"].as_u64() > Some(0);
            assert_eq!(folded, writes, "what writes leave to the background counts: {round}");
        }
    }
    let outcome = place.run(&[&words[..], &["--rw", "randrw", "--rounds", "1"]].concat());
    assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "no word of a full pool");
    assert!(outcome.stdout.contains("pool / raw:"), "{}", outcome.stdout);
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "all of it is gone");
}

#[test]
fn user_data_is_as_before() {
    let place = place();
    let files = entries(&place);
    let words = ["bench", "--size", "4M", "--ops", "300", "--snapshot", "--vs-raw"];
    let answer =
        place.json("bench", &[&words[..], &["--rounds", "2", "--fdatasync", "3"]].concat());
    for side in ["pool", "raw", "snapshot"] {
        adds_up(&answer, side, 300, 2);
        assert!(answer["sides"][side]["flushes"].as_u64() > Some(0), "{answer}");
    }
    assert_eq!(answer["pool"]["temporary"], false);
    place.json("bench", &["bench", "--size", "4M", "--fresh", "--rw", "write", "--bs", "64k"]);
    must_be_as_before(&place);
    assert_eq!(entries(&place), files, "no file stays beside the pool");
}

#[test]
fn a_temporary_pool_has_no_name_that_could_stay() {
    let place = Place::new();
    std::fs::create_dir(place.path("scratch")).unwrap();
    let words = [
        "bench",
        &place.text("scratch"),
        "--size",
        "4M",
        "--ops",
        "9999",
        "--rounds",
        "999",
        "--vs-raw",
    ];
    let mut command = place.command(&words);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let nameless = || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        let targets = open.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        let ours = targets.filter(|target| target.to_string_lossy().ends_with("raw (deleted)"));
        ours.count() > 0
    };
    wait_until("both files are there", nameless);
    signal(&child, "KILL");
    child.wait().unwrap();
    assert_eq!(std::fs::read_dir(place.path("scratch")).unwrap().count(), 0);
}

/// A load that would go on for long, when its volume is there.
fn going_on(place: &Place) -> Child {
    let words = ["bench", "--size", "8M", "--runtime", "600"];
    let child = place.command(&words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The file grows with the scratch volume; nobody else may open the pool and ask.
    let blocks = || {
        use std::os::unix::fs::MetadataExt;
        std::fs::metadata(place.pool()).unwrap().blocks() * 512
    };
    let before = blocks();
    wait_until("the scratch volume is written", || blocks() >= before + 8 * MIB as u64);
    child
}

#[test]
fn an_end_by_a_signal_leaves_nothing() {
    let place = place();
    // INT is ignored in what a shell has started in the background, and so in its tests.
    let mut child = going_on(&place);
    assert!(place.fails(4, &["bench", "--size", "4M", "--ops", "1"]).contains("pool.cow"));
    signal(&child, "TERM");
    assert!(!child.wait().unwrap().success());
    must_be_as_before(&place);

    let mut child = going_on(&place);
    signal(&child, "KILL");
    child.wait().unwrap();
    // The next that opens the pool for writing removes it.
    place.ok(&["snapshot", "vm@b"]);
    place.ok(&["delete", "vm@b", "--wait"]);
    must_be_as_before(&place);
}

#[test]
fn what_cannot_be_is_said() {
    let place = place();
    let says = |code, words: &[&str], what: &str| {
        let said = place.fails(code, &[&["bench"], words].concat());
        assert!(said.contains(what), "{words:?}: {said}");
    };
    says(6, &["--size", "1G", "--ops", "1"], "would be needed in the pool");
    says(2, &["--bs", "5000"], "4096");
    says(2, &["--rw", "sideways"], "sideways");
    says(2, &["--qd", "0"], "--qd");
    says(3, &["no-such-directory"], "no-such-directory");
    says(2, &["pool.cow", "--ops", "1"], "not a directory");
    place.ok(&["pool", "set", "undo-for-space=90"]);
    says(4, &["--size", "4M", "--ops", "1"], "undo-for-space=90");
    place.ok(&["pool", "set", "undo-for-space=off"]);
    place.json("bench", &["bench", "--size", "4M", "--ops", "1"]);
    must_be_as_before(&place);
}
