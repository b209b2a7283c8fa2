//! `cowctl space`: what branches hide until maps were read, and what to delete for so much room.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, pattern, wait_until};
use std::fs;

const MIB: u64 = 1 << 20;

fn image(place: &Place, name: &str, seed: u64, mib: u64) {
    fs::write(place.path(name), pattern(seed, (mib * MIB) as usize)).unwrap();
}

/// A golden image of 8 MiB and three clones; each has dropped other parts when the image goes.
fn clones(place: &Place) {
    image(place, "gold.img", 1, 8);
    place.ok(&["import", "gold.img", "gold"]);
    place.ok(&["snapshot", "gold@v1"]);
    for (clone, seed) in [("a", 2), ("b", 3), ("c", 4)] {
        place.ok(&["clone", "gold@v1", clone]);
        // The first MiB of each but c is new.
        if clone != "c" {
            image(place, "part.img", seed, 1);
            place.ok(&["import", "--into", "part.img", clone]);
        }
    }
    place.ok(&["delete", "-r", "gold"]);
}

fn branches(place: &Place) {
    clones(place);
    let space = place.json("space", &["space", "c"]);
    let (low, high) = (
        space["freed_if_deleted_together_bytes"].as_u64().unwrap(),
        space["freed_if_deleted_together_bytes_max"].as_u64().unwrap(),
    );
    assert!(low <= MIB && MIB <= high, "{space}");
    let space = place.json("space", &["space", "c", "--wait"]);
    assert_eq!((&space["exact"], &space["items"][0]["exact"]), (&true.into(), &true.into()));
    assert_eq!(space["freed_if_deleted_together_bytes"], MIB);
    assert_eq!(space["items"][0]["unique_bytes"], MIB);
    // A dry run waits by itself, and is right.
    let foretold = place.json("delete", &["delete", "-n", "c"]);
    assert_eq!((&foretold["freed_bytes"], &foretold["exact"]), (&MIB.into(), &true.into()));
    let data = |place: &Place| place.json("pool", &["pool", "info"])["data_bytes"].as_u64();
    let before = data(place).unwrap();
    place.ok(&["delete", "c", "--wait"]);
    assert_eq!(before - data(place).unwrap(), MIB);
    place.ok(&["delete", "a", "b", "--wait"]);
}

#[test]
fn branches_at_rest() {
    let place = Place::with_pool();
    branches(&place);
    assert_eq!(place.json("pool", &["pool", "info"])["data_bytes"], 0);
    place.ok(&["check"]);
}

#[test]
fn branches_while_served() {
    let place = Place::with_pool();
    place.ok(&["create", "other", "--size", "1M"]);
    let server = Server::start(&place, &[]);
    branches(&place);
    // A listing is exact at last without anybody waiting in a command.
    clones(&place);
    let settled = || {
        let list = place.json("list", &["list", "-t", "volume"]);
        list["items"].as_array().unwrap().iter().all(|row| row["state"] == "ready")
    };
    wait_until("all sizes to be exact", settled);
    server.stop();
    place.ok(&["check"]);
}

#[test]
fn snapshots_for_so_much_room() {
    let place = Place::with_pool();
    place.ok(&["create", "v", "--size", "4M"]);
    for (name, seed) in [("v@old", 1), ("v@held", 2), ("v@new", 3)] {
        image(&place, "v.img", seed, 4);
        place.ok(&["import", "--into", "v.img", "v"]);
        place.ok(&["snapshot", name]);
    }
    image(&place, "v.img", 4, 4);
    place.ok(&["import", "--into", "v.img", "v"]);
    place.ok(&["hold", "v@held", "--tag", "t"]);
    let names = |bytes: &str| {
        let answer = place.json("free_up", &["space", "--free-up", bytes]);
        assert_eq!((&answer["enough"], &answer["exact"]), (&true.into(), &true.into()));
        answer["names"].clone()
    };
    assert_eq!(names("1M"), serde_json::json!(["v@old"]));
    assert_eq!(names("4M"), serde_json::json!(["v@old"]));
    assert_eq!(names("4100K"), serde_json::json!(["v@old", "v@new"]));
    assert_eq!(place.ok(&["space", "--free-up", "1M", "-H"]), "v@old\n");
    // Not so much without what is held; and nothing was deleted by asking.
    let text = place.fails(6, &["space", "--free-up", "9M"]);
    assert!(text.contains("8.00M") && text.contains("9.00M"), "{text}");
    place.fails(2, &["space", "--free-up", "much"]);
    place.fails(2, &["space", "--free-up", "1M", "v"]);
    // What a rollback kept goes before what somebody took.
    place.ok(&["rollback", "v@old"]);
    assert_eq!(names("4M"), serde_json::json!(["v@undo.1"]));
}
