//! Every verb, with the pool at rest, and once more on a pool that is served and written to.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Client, Place, Server, have, sparse_image, wait_until};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

const MIB: u64 = 1 << 20;

#[test]
fn every_verb_at_rest() {
    let place = Place::with_pool();
    story(&place);
    inspections(&place, false);
    space_comes_back(&place);
}

#[test]
fn every_verb_while_clients_write() {
    let place = Place::with_pool();
    place.ok(&["create", "busy", "--size", "32M"]);
    let server = Server::start(&place, &[]);
    let mut writer = Writer::start(&server, "busy");
    story(&place);
    inspections(&place, true);
    assert!(writer.is_running(), "the writer was not disturbed");
    place.fails(4, &["delete", "busy"]);
    drop(writer);
    wait_until("the writer to be gone", || place.row("busy")["writers"] == 0);
    space_comes_back(&place);
    server.stop();
}

/// Somebody who writes all the time.
enum Writer {
    Fio(Child),
    Own(Arc<AtomicBool>, JoinHandle<()>),
}

impl Writer {
    fn start(server: &Server, volume: &str) -> Self {
        if have(&["fio"]) {
            let uri = format!("--uri={}", server.uri(volume));
            let mut command = Command::new("fio");
            command.args(["--name=w", "--thread", "--ioengine=nbd", &uri, "--rw=randwrite"]);
            command.args(["--bs=4k", "--iodepth=8", "--rate_iops=2000", "--fsync=64"]);
            command.args(["--time_based", "--runtime=120"]);
            return Self::Fio(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        let mut client = Client::connect(&server.socket(), volume).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let write = move || {
            for at in (0..4096_u64).cycle().take_while(|_| !stopped.load(Ordering::Relaxed)) {
                client.write(at * 2477 % 8192 * 4096, &[7; 4096]).unwrap();
            }
        };
        Self::Own(stop, thread::spawn(write))
    }

    fn is_running(&mut self) -> bool {
        match self {
            Self::Fio(child) => child.try_wait().unwrap().is_none(),
            Self::Own(_, thread) => !thread.is_finished(),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        match self {
            Self::Fio(child) => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Own(stop, _) => stop.store(true, Ordering::Relaxed),
        }
    }
}

/// `check` and `dump`, which read the disk itself.
fn inspections(place: &Place, live: bool) {
    let report = place.json("check", &["check"]);
    assert_eq!((&report["clean"], &report["live"]), (&true.into(), &live.into()), "{report}");
    assert!(report["nodes"].as_u64().unwrap() >= 5 && report["corruptions"] == 0);
    assert!(place.ok(&["check", "--metadata-only"]).contains("clean"));
    let dump = place.json("dump", &["dump"]);
    for part in ["superblock", "checkpoint", "journal", "nodes"] {
        assert!(dump[part].is_object(), "{part}: {dump}");
        assert!(place.ok(&["dump", part]).starts_with(part));
    }
    assert!(place.json("dump", &["dump", "map", "vm@a"])["map"].is_object());
    place.fails(2, &["dump", "map"]);
    place.fails(2, &["dump", "cloud"]);
    place.fails(3, &["dump", "map", "nobody"]);
}

fn story(place: &Place) {
    let a = create_and_fill(place);
    listings(place);
    changes(place);
    there_and_back(place, &a);
    clones_and_names(place, &a);
    properties(place);
}

fn create_and_fill(place: &Place) -> Vec<u8> {
    let created = place.json("create", &["create", "thin", "--size", "1T"]);
    assert_eq!(created["size_bytes"], 1_u64 << 40);
    place.fails(4, &["create", "thin", "--size", "1G"]);
    place.fails(2, &["create", "thin"]);
    place.fails(2, &["create", "undo.x@y", "--size", "1G"]);

    let a = sparse_image(&place.path("a.raw"), 1, 12 << 20);
    let b = sparse_image(&place.path("b.raw"), 1000, 12 << 20);
    let moved = place.json("import", &["import", "a.raw", "vm", "--description", "a disk"]);
    assert_eq!((moved["bytes"].as_u64(), moved["name"].as_str()), (Some(12 * MIB), Some("vm")));
    assert!(moved["data_bytes"].as_u64().unwrap() < 6 * MIB, "{moved}");
    place.fails(4, &["import", "a.raw", "vm"]);

    let taken = place.json("snapshot", &["snapshot", "vm@a", "--description", "the first"]);
    assert_eq!(taken["snapshots"][0]["name"], "vm@a");
    place.fails(4, &["snapshot", "vm@a"]);
    place.fails(3, &["snapshot", "nobody@a"]);
    place.fails(2, &["snapshot", "vm"]);
    place.fails(2, &["snapshot", "vm@undo.7"]);
    place.fails(3, &["snapshot", "vm@group", "nobody@group"]);
    assert!(!place.names().contains(&"vm@group".into()), "all of a group, or nothing");

    place.ok(&["import", "b.raw", "vm", "--into"]);
    place.fails(3, &["import", "b.raw", "nobody", "--into"]);
    place.ok(&["snapshot", "vm@b", "thin@b"]);
    let (one, two) = (place.row("vm@b"), place.row("thin@b"));
    assert!(one["group"].is_u64() && one["group"] == two["group"], "{one} {two}");
    assert!(place.content("vm@a") == a && place.content("vm") == b);
    a
}

fn listings(place: &Place) {
    let list = place.json("list", &["list"]);
    for row in list["items"].as_array().unwrap() {
        for key in [
            "name",
            "type",
            "kind",
            "size_bytes",
            "referenced_bytes",
            "unique_bytes",
            "created_at",
            "origin",
            "state",
            "description",
        ] {
            assert!(row.get(key).is_some(), "{key}: {row}");
        }
        assert!(row["created_at"].as_str().unwrap().ends_with('Z'));
    }
    let row = place.row("vm@a");
    assert_eq!((&row["type"], &row["kind"]), (&"snapshot".into(), &"user".into()));
    assert_eq!(
        (&row["description"], &row["size_bytes"]),
        (&"the first".into(), &(12 * MIB).into())
    );
    assert_eq!(place.row("vm")["type"], "volume");
    let names = place.ok(&["list", "-H", "-t", "snapshot", "-o", "name,type", "vm", "-S", "name"]);
    assert_eq!(names, "vm@b\tsnapshot\nvm@a\tsnapshot\n");
    let sizes = place.ok(&["ls", "-H", "--exact", "-o", "size", "-s", "size", "vm", "thin"]);
    assert_eq!(sizes.lines().next().unwrap(), (12 * MIB).to_string());
    assert!(place.ok(&["list"]).starts_with("NAME"));
    place.fails(2, &["list", "-o", "colour"]);
    place.fails(2, &["list", "-t", "cloud"]);
    place.fails(3, &["list", "nobody"]);
    place.fails(3, &["list", "vm@nothing"]);

    assert!(place.ok(&["tree"]).contains("vm@a"));
    let tree = place.json("tree", &["tree"]);
    assert!(tree["items"].as_array().unwrap().iter().any(|item| item["name"] == "vm@b"));

    let space = place.json("space", &["space", "vm@a", "vm@b"]);
    assert_eq!(space["items"].as_array().unwrap().len(), 2);
    assert!(space["freed_if_deleted_together_bytes"].is_u64() && space["exact"].is_boolean());
    assert!(place.ok(&["space", "vm@a"]).contains("together"));
    place.ok(&["space"]);
    place.fails(3, &["space", "nobody"]);

    let info = place.json("pool", &["pool", "info"]);
    for key in [
        "size_bytes",
        "used_bytes",
        "free_bytes",
        "data_bytes",
        "metadata_bytes",
        "reclaiming_bytes",
    ] {
        assert!(info[key].is_u64(), "{key}: {info}");
    }
    let of = |key: &str| info[key].as_u64().unwrap();
    assert_eq!(of("used_bytes"), of("data_bytes") + of("metadata_bytes"));
    assert!(["io_uring", "threads"].contains(&info["driver"].as_str().unwrap()));
    assert_eq!(info["health"], "ok");
}

/// `diff` lists what two images differ in.
fn changes(place: &Place) {
    let (a, b) = (place.content("vm@a"), place.content("vm@b"));
    let diff = place.json("diff", &["diff", "vm@a", "vm@b"]);
    let mut same = vec![true; a.len() / 4096];
    for extent in diff["extents"].as_array().unwrap() {
        let of = |key: &str| extent[key].as_u64().unwrap() as usize / 4096;
        same[of("offset")..of("offset") + of("length")].fill(false);
    }
    for (block, same) in same.into_iter().enumerate() {
        let at = block * 4096..(block + 1) * 4096;
        assert_eq!(a[at.clone()] == b[at], same, "block {block}");
    }
    let rows = place.ok(&["diff", "vm@a", "@b"]);
    let first: Vec<u64> =
        rows.lines().next().unwrap().split(' ').map(|word| word.parse().unwrap()).collect();
    assert_eq!(first[0], diff["extents"][0]["offset"].as_u64().unwrap());
    assert_eq!(place.ok(&["diff", "vm@b", "vm"]), "");
    place.fails(3, &["diff", "vm@a", "vm@zz"]);
    place.fails(2, &["diff", "vm@a", "v/m"]);
}

fn there_and_back(place: &Place, a: &[u8]) {
    // What a snapshot has already is not kept a second time.
    assert_eq!(place.ok(&["rollback", "vm@a"]), "");
    let c = sparse_image(&place.path("c.raw"), 2000, 12 << 20);
    place.ok(&["import", "c.raw", "vm", "--into"]);
    let would = place.json("rollback", &["rollback", "-n", "vm@a"]);
    let row = &would["would_roll_back"][0];
    assert!(row["changed_bytes"].as_u64().unwrap() > MIB, "{would}");
    assert!(place.content("vm") == c, "-n does nothing");
    let kept = place.ok(&["rollback", "vm@a"]);
    let kept = kept.trim();
    assert!(kept.starts_with("vm@undo."), "{kept}");
    assert_eq!(place.row(kept)["kind"], "undo");
    assert!(place.content("vm") == a);
    assert!(place.names().contains(&"vm@b".into()), "newer snapshots stay");
    assert_eq!(place.ok(&["rollback", "vm@a"]), "", "nothing had changed");

    place.ok(&["undo", "vm"]);
    assert!(place.content("vm") == c);
    let back = place.json("rollback", &["rollback", "vm@a", "thin@b"]);
    assert_eq!(back["rolled_back"].as_array().unwrap().len(), 2);
    assert!(place.content("vm") == a);
    place.ok(&["import", "b.raw", "vm", "--into"]);
    let gone = place.json("rollback", &["rollback", "vm@a", "--discard-current"]);
    assert_eq!(gone["rolled_back"][0]["undo"], Value::Null);
    assert!(place.content("vm") == a);

    place.fails(3, &["rollback", "vm@nothing"]);
    place.fails(3, &["rollback", "-n", "vm@nothing"]);
    place.fails(2, &["rollback", "vm"]);
    place.fails(3, &["undo", "nobody"]);
}

fn clones_and_names(place: &Place, a: &[u8]) {
    place.json("clone", &["clone", "vm@a", "copy", "--description", "a clone"]);
    assert!(place.content("copy") == a);
    let row = place.row("copy");
    assert_eq!((&row["origin"], &row["description"]), (&"vm@a".into(), &"a clone".into()));
    place.fails(4, &["clone", "vm@a", "copy"]);
    place.fails(3, &["clone", "vm@nothing", "copy2"]);

    place.ok(&["rename", "copy", "moved"]);
    place.ok(&["rename", "vm@b", "vm@bb"]);
    assert!(place.names().contains(&"moved".into()) && place.names().contains(&"vm@bb".into()));
    place.fails(4, &["rename", "moved", "vm"]);
    place.fails(3, &["rename", "nobody", "somebody"]);
    place.fails(2, &["rename", "vm@bb", "moved@bb"]);

    place.ok(&["resize", "moved", "--size", "20M"]);
    assert_eq!(place.row("moved")["size_bytes"], 20 * MIB);
    let mut longer = a.to_vec();
    longer.resize(20 << 20, 0);
    assert!(place.content("moved") == longer);
    place.fails(4, &["resize", "moved", "--size", "5000001"]);
    place.ok(&["resize", "moved", "--size", "5000001", "--force"]);
    assert!(place.content("moved") == a[..5_000_001]);
    place.ok(&["resize", "moved", "--size", "5001000"]);
    let grown = place.content("moved");
    assert!(grown[5_000_001..].iter().all(|&byte| byte == 0), "what was cut off is gone");
    place.fails(3, &["resize", "nobody", "--size", "1G"]);
}

fn properties(place: &Place) {
    place.ok(&["set", "vm@a", "owner=me", "ticket=42"]);
    assert_eq!(place.ok(&["get", "vm@a", "owner"]), "me\n");
    let got = place.json("get", &["get", "vm@a"]);
    assert_eq!((&got["properties"]["ticket"], &got["name"]), (&"42".into(), &"vm@a".into()));
    place.ok(&["set", "vm@a", "owner="]);
    place.fails(1, &["get", "vm@a", "owner"]);
    place.fails(2, &["set", "vm@a", "owner"]);
    place.fails(3, &["get", "nobody"]);
    place.fails(3, &["set", "nobody", "a=b"]);

    place.ok(&["hold", "vm@a", "--tag", "backup"]);
    assert_eq!(place.json("get", &["get", "vm@a"])["holds"][0], "backup");
    assert!(place.fails(4, &["delete", "vm@a"]).contains("vm@a"));
    place.fails(3, &["release", "vm@a", "--tag", "other"]);
    place.ok(&["release", "vm@a", "--tag", "backup"]);
    place.fails(3, &["hold", "vm@nothing", "--tag", "x"]);
}

/// What `delete -n` foretells is what comes back.
fn space_comes_back(place: &Place) {
    let refusal = place.fails(4, &["delete", "vm"]);
    assert!(refusal.contains("vm@a") && refusal.contains("vm@bb"), "{refusal}");
    place.fails(3, &["delete", "nobody"]);
    for names in
        [&["delete", "vm@bb"][..], &["delete", "-r", "vm", "moved"], &["delete", "-r", "thin"]]
    {
        let before = place.info("data_bytes");
        let dry_run = [names, &["-n"]].concat();
        let foretold = place.json("delete", &dry_run);
        assert_eq!(foretold["exact"], true, "{names:?}: {foretold}");
        assert!(place.ok(&dry_run).contains("would"));
        place.json("delete", &[names, &["--wait"]].concat());
        let freed = before - place.info("data_bytes");
        assert_eq!(foretold["freed_bytes"].as_u64(), Some(freed), "{names:?}");
        assert_eq!(place.info("reclaiming_bytes"), 0);
    }
    let size = place.info("size_bytes");
    place.ok(&["pool", "grow", "--size", "768M"]);
    assert!(place.info("size_bytes") > size);
    place.fails(2, &["pool", "grow", "--size", "128M"]);
}
