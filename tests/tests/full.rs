//! A pool that is filled to the last byte over NBD: one volume gets ENOSPC and nothing else, and one
//! with a reserve beside it gets no error at all.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, have};
use std::ffi::OsStr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

fn fio<W: AsRef<OsStr>>(place: &Place, uri: &str, words: &[W]) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=v", "--ioengine=nbd", &format!("--uri={uri}")]);
    fio.args(["--verify=crc32c", "--verify_fatal=1", "--output-format=json"]);
    fio.args(["--iodepth=8", "--verify_state_save=0"]);
    fio.args(words).current_dir(place.path(""));
    fio
}

/// Runs to its end without an error; how many bytes it wrote.
#[track_caller]
fn clean(mut fio: Command) -> u64 {
    let output = fio.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    // Warnings may stand before it.
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
    let job = &json["jobs"][0];
    assert_eq!(job["error"], 0, "{job}");
    job["write"]["io_bytes"].as_u64().unwrap()
}

/// Writes and verifies until it is told to stop; how often.
fn rewrite(place: &Place, uri: &str, stop: &AtomicBool) -> u64 {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        let seed = format!("--randseed={rounds}");
        let words = ["--rw=randwrite", "--bsrange=4k-64k", "--size=24M", "--fsync=100", &seed];
        clean(fio(place, uri, &words));
        rounds += 1;
    }
    rounds
}

#[test]
fn a_full_pool_over_nbd() {
    if !have(&["fio"]) {
        return;
    }
    let place = Arc::new(Place::new());
    place.ok(&["pool", "create", "--size", "192M"]);
    place.ok(&["create", "big", "--size", "256M"]);
    place.ok(&["create", "safe", "--size", "24M"]);
    assert!(place.fails(2, &["set", "safe", "reserve=much"]).contains("reserve"));
    place.ok(&["set", "safe", "reserve=full"]);
    assert!(place.info("reserved_bytes") > 40 << 20);
    let server = Server::start(&place, &[]);
    let stop = Arc::new(AtomicBool::new(false));
    let safe = {
        let (place, uri, stop) = (Arc::clone(&place), server.uri("safe"), Arc::clone(&stop));
        std::thread::spawn(move || rewrite(&place, &uri, &stop))
    };

    let uri = server.uri("big");
    clean(fio(&place, &uri, &["--rw=write", "--bs=64k", "--size=20M"]));
    place.ok(&["snapshot", "big@a"]);
    let before = place.content("big");
    // It ends with ENOSPC; any other error would be one. The last writes are in no order.
    let mut at = 20 << 20;
    for (depth, bs) in [(8, 64 << 10), (1, 4 << 10)] {
        let words = |size: u64| {
            [("rw", "write".into()), ("bs", bs.to_string()), ("iodepth", depth.to_string())]
                .into_iter()
                .chain([("offset", at.to_string()), ("size", size.to_string())])
                .map(|(key, value): (&str, String)| format!("--{key}={value}"))
                .collect::<Vec<String>>()
        };
        let fill =
            [words((256 << 20) - at), vec!["--fill_device=1".into(), "--do_verify=0".into()]];
        let written = clean(fio(&place, &uri, &fill.concat()));
        assert!(depth == 1 || written > 60 << 20, "{written}");
        let sure = written.saturating_sub(depth * bs);
        if sure > 0 {
            clean(fio(&place, &uri, &[words(sure), vec!["--verify_only=1".into()]].concat()));
        }
        at += written + depth * bs;
    }
    assert!(place.info("used_percent") >= 98);
    let info = place.json("pool", &["pool", "info"]);
    assert!(info["events"].to_string().contains("space_low"), "{info}");
    place.ok(&["create", "thick", "--size", "1M"]);
    let refused = place.fails(6, &["set", "thick", "reserve=full"]);
    assert!(refused.contains("missing"), "{refused}");
    place.ok(&["delete", "thick"]);

    let full = place.content("big");
    assert!(full != before);
    place.ok(&["rollback", "big@a"]);
    assert!(place.content("big") == before, "back");
    place.ok(&["undo", "big"]);
    assert!(place.content("big") == full, "and forth");
    place.ok(&["rollback", "big@a"]);
    place.ok(&["snapshot", "big@b"]);
    place.ok(&["delete", "big@b"]);
    // With what was replaced gone there is room again, and after growing there is more.
    let undo: Vec<String> = place.names().into_iter().filter(|n| n.contains("@undo.")).collect();
    let words: Vec<&str> =
        ["delete", "--wait"].into_iter().chain(undo.iter().map(|n| n.as_str())).collect();
    place.ok(&words);
    let again = ["--rw=randwrite", "--bs=16k", "--offset=20M", "--size=40M"];
    clean(fio(&place, &uri, &again));
    place.ok(&["pool", "grow", "--size", "384M"]);
    assert_eq!(place.info("space_level"), 0);
    clean(fio(&place, &uri, &["--rw=write", "--bs=64k", "--size=200M"]));

    stop.store(true, Ordering::Relaxed);
    assert!(safe.join().expect("no error at all") > 1, "it wrote all the time");
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
}
