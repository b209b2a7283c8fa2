//! `cowctl scrub`: offline and beside a server, what it names, and that it goes on after a kill.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Client, Place, Server, leaf_of, pattern, wait_until};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BLOCK: usize = 4096;
const MIB: usize = 1 << 20;

/// A pool with a volume of 24 MiB of data, a snapshot of it, and some that is newer.
fn place() -> (Place, Vec<u8>) {
    let place = Place::with_pool();
    let data = pattern(3, 24 * MIB);
    std::fs::write(place.path("image"), &data).unwrap();
    place.ok(&["import", &place.text("image"), "vm"]);
    place.ok(&["snapshot", "vm@a"]);
    std::fs::write(place.path("newer"), pattern(4, 2 * MIB)).unwrap();
    place.ok(&["import", &place.text("newer"), "vm", "--into"]);
    (place, data)
}

/// The block of the pool's file that has these bytes.
fn block_with(place: &Place, bytes: &[u8]) -> u64 {
    let pool = std::fs::read(place.pool()).unwrap();
    let mut blocks = pool.chunks(BLOCK).enumerate();
    blocks.find(|(_, block)| *block == bytes).expect("the block").0 as u64
}

fn flip(place: &Place, block: u64) {
    let file = File::options().read(true).write(true).open(place.pool()).unwrap();
    let at = block * BLOCK as u64 + 1234;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
    file.sync_all().unwrap();
}

/// `scrub --json`, which ends with `code`.
#[track_caller]
fn scrub(place: &Place, code: i32, words: &[&str]) -> Value {
    let words: Vec<&str> = ["scrub", "--json"].iter().chain(words).copied().collect();
    let outcome = place.run(&words);
    assert_eq!(outcome.code, code, "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn it_names_what_is_damaged_offline_and_live() {
    let (place, data) = place();
    let clean = scrub(&place, 0, &[]);
    assert_eq!((&clean["clean"], &clean["complete"]), (&true.into(), &true.into()), "{clean}");
    let check = place.json("check", &["check"]);
    assert_eq!(clean["data_blocks"], check["data_blocks"], "each once");
    assert_eq!(clean["data_blocks"].as_u64(), Some((24 + 2) * 256));

    // Two blocks behind one another that only the snapshot has, one that both have, and the leaf of another.
    let first = block_with(&place, &data[5 * BLOCK..6 * BLOCK]);
    assert_eq!(first + 1, block_with(&place, &data[6 * BLOCK..7 * BLOCK]), "in one piece");
    let shared = block_with(&place, &data[3000 * BLOCK..3001 * BLOCK]);
    flip(&place, first);
    flip(&place, first + 1);
    flip(&place, shared);
    let damage = |offset: u64, length: u64, block: u64| {
        serde_json::json!({
            "name": "vm@a", "kind": "data", "offset": offset * 4096, "length": length * 4096, "block": block,
            "what": "checksum mismatch",
        })
    };
    let want = [damage(5, 2, first), damage(3000, 1, shared)];
    let stripped = |found: &Value| -> Vec<Value> {
        let list = found["damage"].as_array().unwrap().clone();
        list.into_iter()
            .map(|mut one| {
                one.as_object_mut().unwrap().remove("node");
                one
            })
            .collect()
    };
    assert_eq!(stripped(&scrub(&place, 5, &[])), want);
    let text = place.fails(5, &["scrub"]);
    assert!(text.contains("pool.cow") && text.contains("vm@a, lba 5 to 6"), "{text}");

    let server = Server::start(&place, &[]);
    let live = scrub(&place, 5, &[]);
    assert_eq!(stripped(&live), want);
    assert_eq!(live["data_blocks"], clean["data_blocks"]);
    // What went bad while it was served.
    let third = block_with(&place, &data[4000 * BLOCK..4001 * BLOCK]);
    flip(&place, third);
    let live = stripped(&scrub(&place, 5, &[]));
    assert_eq!(live, [want[0].clone(), want[1].clone(), damage(4000, 1, third)]);
    server.stop();

    // A leaf of the map: all that it covers.
    let dump = place.json("dump", &["dump", "map", "vm@a"]);
    let leaf = leaf_of(&dump, 7).unwrap_or_else(|| panic!("{dump}"));
    flip(&place, leaf);
    let found = stripped(&scrub(&place, 5, &[]));
    let is_leaf = |one: &&Value| one["kind"] == "map leaf";
    let leaves: Vec<&Value> = found.iter().filter(is_leaf).collect();
    assert_eq!(leaves.len(), 1, "{found:?}");
    assert_eq!(
        (leaves[0]["offset"].as_u64(), leaves[0]["length"].as_u64(), leaves[0]["block"].as_u64()),
        (Some(7 << 20), Some(1 << 20), Some(leaf)),
        "{found:?}"
    );
}

#[test]
fn a_killed_scrub_goes_on() {
    let (place, data) = place();
    let first = block_with(&place, &data[9 * BLOCK..10 * BLOCK]);
    flip(&place, first);
    for served in [false, true] {
        let server = served.then(|| Server::start(&place, &[]));
        assert!(place.ok(&["scrub", "--status"]).contains("no scrub"));
        let mut command = place.command(&["scrub", "--rate", "8M"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Offline the pool is in use by the scrub itself, and nobody else can look.
        if served {
            wait_until("a cursor is kept", || {
                place.json("scrub", &["scrub", "--status"])["under_way"] == true
            });
        } else {
            std::thread::sleep(std::time::Duration::from_millis(2500));
        }
        assert!(child.try_wait().unwrap().is_none(), "26 MiB take 3 seconds");
        child.kill().unwrap();
        child.wait().unwrap();
        let kept = place.json("scrub", &["scrub", "--status"]);
        assert_eq!(kept["under_way"], true, "{kept}");
        let found = scrub(&place, 5, &[]);
        let resumed = found["resumed_bytes"].as_u64().unwrap();
        assert!(resumed > 4 << 20, "{found}");
        assert!(found["complete"] == true && found["data_blocks"] == 26 * 256, "{found}");
        assert_eq!(found["damage"].as_array().unwrap().len(), 1, "{found}");
        assert_eq!(found["damage"][0]["block"], first, "what was found before is named still");
        assert!(place.ok(&["scrub", "--status"]).contains("no scrub"));
        if let Some(server) = server {
            server.stop();
        }
    }
}

/// It is told to end, and says that it is not at the end; `--restart` begins anew.
#[test]
fn an_interrupted_scrub_keeps_its_cursor() {
    let (place, _) = place();
    let mut command = place.command(&["scrub", "--rate", "4M"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    cow_tests::signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("goes on from there"));
    let kept = place.json("scrub", &["scrub", "--status"]);
    assert!(kept["under_way"] == true && kept["data_blocks"].as_u64().unwrap() > 0, "{kept}");
    let found = scrub(&place, 0, &["--restart"]);
    assert_eq!((&found["resumed_bytes"], &found["data_blocks"]), (&0.into(), &(26 * 256).into()));

    // A pool that is open for reading only is scrubbed, and keeps nothing.
    let server = Server::start(&place, &["--read-only"]);
    let found = scrub(&place, 0, &[]);
    assert!(found["complete"] == true && found["data_blocks"] == 26 * 256, "{found}");
    let mut command = place.command(&["scrub", "--rate", "4M"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    cow_tests::signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("begins anew"), "{text}");
    server.stop();

    place.fails(2, &["scrub", "--rate", "0"]);
    place.fails(2, &["scrub", "--status", "--restart"]);
    let other = Place::new();
    assert!(other.fails(3, &["scrub"]).contains("no such pool"));
    std::fs::write(other.pool(), vec![7; MIB]).unwrap();
    other.fails(1, &["scrub"]);
}

#[test]
fn under_load_nothing_is_called_damaged() {
    let (place, _) = place();
    let server = Server::start(&place, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (socket, stop) = (server.socket(), stop.clone());
        std::thread::spawn(move || {
            let mut client = Client::connect(&socket, "vm").unwrap();
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let at = n * 7919 % 5000 * BLOCK as u64;
                client.write(at, &pattern(n, 3 * BLOCK)).unwrap();
            }
            n
        })
    };
    for round in 0..8 {
        let name = format!("vm@{round}");
        place.ok(&["snapshot", &name]);
        let found = scrub(&place, 0, &[]);
        assert!(found["clean"] == true && found["complete"] == true, "{found}");
        if round % 2 == 1 {
            place.ok(&["delete", &name]);
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 100);
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
}
