//! `prune`, and what `keep` means to people.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server};

fn snapshots(place: &Place) -> Vec<String> {
    place.names().into_iter().filter(|name| name.contains('@')).collect()
}

#[test]
fn rules_let_go_what_they_do_not_keep() {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "8M"]);
    place.ok(&["create", "other", "--size", "8M"]);
    for name in ["vm@a", "vm@b", "vm@c", "other@x", "other@y"] {
        std::fs::write(place.path("data"), name.repeat(1000)).unwrap();
        let volume = name.split('@').next().unwrap();
        place.ok(&["import", "--into", "--raw", &place.text("data"), volume]);
        place.ok(&["snapshot", name]);
    }
    assert_eq!(place.json("prune", &["prune", "-n"])["names"], serde_json::json!([]));
    for wrong in ["keep=", "keep=7", "keep=last=0", "keep=last=1,last=2", "keep=fortnightly=1"] {
        let set = ["set", "vm", wrong];
        match wrong {
            "keep=" => place.ok(&set),
            _ => place.fails(2, &set),
        };
    }
    assert!(place.fails(2, &["set", "vm", "keep=last=x"]).contains("keep: last"));
    place.ok(&["set", "vm", "keep=last=1,hourly=1"]);
    place.ok(&["set", "other", "keep=yearly=1"]);
    place.ok(&["hold", "vm@b", "--tag", "t"]);

    let would = place.json("prune", &["prune", "-n", "vm"]);
    assert_eq!(would["names"], serde_json::json!(["vm@a"]));
    assert_eq!((&would["exact"], &would["dry_run"]), (&true.into(), &true.into()));
    assert!(place.ok(&["prune", "-n"]).contains("would delete other@x"));
    assert_eq!(snapshots(&place).len(), 5);
    let before = place.info("data_bytes");
    assert_eq!(place.ok(&["prune", "vm"]), "deleted vm@a\n");
    place.ok(&["delete", "--wait", "other@y"]);
    assert_eq!(snapshots(&place), ["other@x", "vm@b", "vm@c"]);
    let freed = would["freed_bytes"].as_u64().unwrap();
    assert!(freed > 0 && before - place.info("data_bytes") >= freed);
    place.fails(3, &["prune", "nobody"]);
    place.fails(2, &["prune", "vm@b"]);

    // And live, where the pool may have done it by itself already.
    place.ok(&["release", "vm@b", "--tag", "t"]);
    let server = Server::start(&place, &[]);
    place.json("prune", &["prune"]);
    assert_eq!(snapshots(&place), ["other@x", "vm@c"]);
    server.stop();
}

#[test]
fn a_group_of_volumes_has_a_limit_of_its_own() {
    let place = Place::with_pool();
    for name in ["a", "b", "c"] {
        place.ok(&["create", name, "--size", "1M"]);
    }
    place.ok(&["set", "a", "group=web"]);
    place.ok(&["set", "b", "group=web"]);
    assert!(place.fails(2, &["pool", "set", "limit:web=few"]).contains("limit:web"));
    place.ok(&["pool", "set", "limit:web=2"]);
    place.ok(&["snapshot", "a@1", "b@1"]);
    assert!(place.fails(4, &["snapshot", "a@2", "c@2"]).contains("group web"));
    assert_eq!(snapshots(&place), ["a@1", "b@1"]);
    place.ok(&["pool", "set", "limit:web="]);
    place.ok(&["snapshot", "a@2", "c@2"]);
}
