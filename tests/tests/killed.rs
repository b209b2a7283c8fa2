//! SIGKILL of the server under fio, and under an ext4 on an attached volume, again and again: nothing that was
//! synced is lost, and everything is consistent. `COW_KILLS` says how often.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Attached, Load, MountedFs, Place, Server, have, have_loops, pattern, run, run_ok, wait_until,
    write_synced,
};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

const SIZE_BYTES: u64 = 24 << 20;

fn kills(usual: u64) -> u64 {
    let text = std::env::var("COW_KILLS").ok();
    text.map_or(usual, |text| text.parse().unwrap_or_else(|e| panic!("COW_KILLS: {e}")))
}

/// How long a server lives under load; the moment of its death need not be known.
fn a_while(round: u64) {
    std::thread::sleep(Duration::from_millis(40 + round * 37 % 260));
}

/// fio with blocks that have a checksum of their own in them.
fn fio(place: &Place, server: &Server, words: &[&str]) -> Command {
    let mut fio = Command::new("fio");
    fio.args(["--name=v", "--ioengine=nbd", &format!("--uri={}", server.uri("vm"))]);
    fio.args(["--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--bs=4k"]);
    fio.args([format!("--size={SIZE_BYTES}"), "--iodepth=8".into()]);
    fio.args(words).current_dir(place.path("")).stdin(Stdio::null());
    fio
}

#[track_caller]
fn clean(mut fio: Command, what: &str) {
    let output = fio.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{what}: {text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_server_is_killed_under_fio() {
    if !have(&["fio"]) {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", &SIZE_BYTES.to_string()]);
    let server = Server::start(&place, &[]);
    clean(fio(&place, &server, &["--rw=write", "--do_verify=0", "--end_fsync=1"]), "fill");
    server.stop();
    let mut died_at_work = 0;
    for round in 0..kills(15) {
        let server = Server::start(&place, &[]);
        clean(fio(&place, &server, &["--rw=read"]), "every block is whole and in its place");
        let seed = format!("--randseed={round}");
        let words = [
            "--rw=randwrite",
            "--norandommap",
            "--time_based",
            "--runtime=60",
            "--do_verify=0",
            "--fdatasync=50",
            &seed,
        ];
        let mut load = fio(&place, &server, &words);
        let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        a_while(round);
        if round % 3 == 1 {
            place.ok(&["snapshot", &format!("vm@{round}")]);
        }
        a_while(round + 3);
        died_at_work += u64::from(load.try_wait().unwrap().is_none());
        server.kill();
        assert!(!load.wait().unwrap().success(), "fio meets the end of its server");
        assert_eq!(place.json("check", &["check"])["clean"], true, "round {round}");
    }
    assert!(died_at_work > 0);
    let server = Server::start(&place, &[]);
    clean(fio(&place, &server, &["--rw=read"]), "the last time");
    server.stop();
}

#[test]
fn a_server_is_killed_under_ext4() {
    if !have_loops() || !have(&["mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "96M"]);
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    vm.detach();
    let rounds = kills(8);
    let file = |round: u64| pattern(round, 100_000 + 7000 * (round % 20) as usize);
    for round in 0..=rounds {
        let vm = Attached::new(&place, "vm");
        // The journal is replayed, and then everything must be in order.
        let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
        for old in round.saturating_sub(5)..round {
            let found = fs::read(fs.path(&format!("kept{old}"))).unwrap();
            assert!(found == file(old), "round {round}: what was synced in round {old}");
        }
        fs.unmount();
        run_ok(&["e2fsck", "-fn", &vm.device]);
        if round == rounds {
            vm.detach();
            break;
        }
        let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
        let load = Load::start(fs.dir());
        a_while(round);
        if round >= 5 {
            fs::remove_file(fs.path(&format!("kept{}", round - 5))).unwrap();
        }
        write_synced(&fs.path(&format!("kept{round}")), &file(round));
        run_ok(&["sync", "-f", fs.dir()]);
        a_while(round + 5);
        run_ok(&["kill", "-KILL", &server_of(&place)]);
        wait_until("the device is dead", || {
            place.json("attachments", &["attachments"])["items"][0]["state"] == "dead"
        });
        drop(load);
        assert_eq!(place.json("check", &["check"])["clean"], true, "round {round}");
        let _ = run(&["umount", fs.dir()]);
        place.ok(&["detach", "vm"]);
    }
    place.ok(&["check"]);
}

/// The process in the background that has the pool.
fn server_of(place: &Place) -> String {
    let entries = fs::read_dir(place.path("run/cow")).unwrap();
    let mut paths = entries.map(|entry| entry.unwrap().path());
    let entry = paths.find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    entry["pid"].to_string()
}
