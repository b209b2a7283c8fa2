//! The pool is a sparse file on a small file system that others fill: writers learn it, everything
//! else works, and what is freed in the pool is free below.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Client, Place, Server, have, is_root, pattern, run, run_ok, wait_until};
use cowstore::{Error, Memory, OpenOptions, Pool, SpaceKind};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

const MIB: u64 = 1 << 20;
const ENOSPC: i32 = 28;

/// Runs `test` with a directory on a file system of its own of 300 MiB.
fn on_file_system(kind: &str, test: impl FnOnce(&mut Place, &str)) {
    if !is_root() || !have(&["mount"]) {
        return;
    }
    let make = format!("mkfs.{kind}");
    if kind == "ext4" {
        if !have(&[&make]) {
            return;
        }
    } else if !run(&["sh", "-c", &format!("command -v {make}")]).status.success() {
        eprintln!("skipped: there is no {make}");
        return;
    }
    let mut place = Place::new();
    let (image, mount) = (place.text("below.img"), place.text("below"));
    File::create(&image).unwrap().set_len(300 * MIB).unwrap();
    let quiet: &[&str] = if kind == "ext4" { &["-q", "-F", "-m", "0"] } else { &["-q"] };
    run_ok(&[&[make.as_str()], quiet, &[image.as_str()]].concat());
    fs::create_dir(&mount).unwrap();
    if !run(&["mount", "-o", "loop", &image, &mount]).status.success() {
        eprintln!("skipped: this container may not mount {kind}");
        return;
    }
    place.set_pool(format!("{mount}/pool.cow"));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        test(&mut place, &mount);
    }));
    run_ok(&["umount", &mount]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Fills the file system to the last block; the file that did.
fn fill(mount: &str, name: &str) -> String {
    let path = format!("{mount}/{name}");
    let mut file = File::create(&path).unwrap();
    for len in [MIB as usize, 64 << 10, 4096] {
        let bytes = pattern(7, len);
        // The page cache takes more than there is room for.
        while file.write_all(&bytes).and_then(|()| file.sync_data()).is_ok() {}
    }
    path
}

fn is_full(result: &std::io::Result<()>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(ENOSPC))
}

/// Bytes that the image takes below.
fn allocated(place: &Place) -> u64 {
    fs::metadata(place.pool()).unwrap().blocks() * 512
}

/// The pool is not poisoned, and no checkpoint waits.
#[track_caller]
fn is_well(place: &Place) {
    assert_eq!(place.json("pool", &["pool", "info"])["health"], "ok");
}

fn full_below(place: &mut Place, mount: &str) {
    place.ok(&["pool", "create", "--size", "1G"]);
    place.ok(&["create", "vm", "--size", "8G"]);
    let server = Server::start(place, &[]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    let content = |at: u64| pattern(at + 1, 64 << 10);
    let mut kept = Vec::new();
    // Far apart, so that each write takes map nodes too.
    for at in (0..400).map(|i| i * 20 * MIB) {
        client.write(at, &content(at)).unwrap();
        kept.push(at);
    }
    client.flush().unwrap();
    place.ok(&["snapshot", "vm@first"]);
    // Something to undo to.
    client.write(19 * MIB, &content(19 * MIB)).unwrap();
    kept.push(19 * MIB);
    let ballast = fill(mount, "ballast");
    // Writers learn it, sooner or later, and nobody else.
    let mut refused = 0;
    for i in 0..2000 {
        let at = (i % 400) * 20 * MIB + MIB * (1 + i / 400);
        match client.write(at, &content(at)) {
            Ok(()) => kept.push(at),
            result => {
                assert!(is_full(&result), "{result:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 1000, "{refused} writes were refused");
    client.flush().unwrap();
    is_well(place);
    for at in kept.iter().step_by(7) {
        assert!(client.read(*at, 64 << 10).unwrap() == content(*at), "at {at}");
    }
    for round in 0..5 {
        place.ok(&["snapshot", "vm@again"]);
        place.ok(&["clone", "vm@again", "other"]);
        is_well(place);
        place.ok(&["delete", "other", "-r"]);
        place.ok(&["delete", "vm@again", "--wait"]);
        is_well(place);
        if round == 2 {
            client.leave().unwrap();
            place.ok(&["rollback", "vm@first"]);
            place.ok(&["undo", "vm"]);
            is_well(place);
            client = Client::connect(&server.socket(), "vm").unwrap();
        }
    }
    for at in kept.iter().step_by(11) {
        assert!(client.read(*at, 64 << 10).unwrap() == content(*at), "at {at}");
    }
    client.leave().unwrap();
    // Opened anew, still full.
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
    // There may be no room for a socket beside the pool.
    let socket = format!("unix:{}", place.text("nbd.sock"));
    let server = Server::start(place, &["--nbd", &socket]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    assert!(client.read(0, 64 << 10).unwrap() == content(0));
    is_well(place);
    // Somebody makes room, and writers go on.
    fs::remove_file(&ballast).unwrap();
    wait_until("room below", || client.write(7 * MIB, &content(1)).is_ok());
    client.flush().unwrap();
    client.leave().unwrap();
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
}

fn comes_back(place: &mut Place, mount: &str) {
    place.ok(&["pool", "create", "--size", "1G"]);
    let empty = allocated(place);
    fs::write(place.path("a.raw"), pattern(1, 60 << 20)).unwrap();
    place.ok(&["import", "a.raw", "vm"]);
    let server = Server::start(place, &[]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    for round in 0..2_u64 {
        place.ok(&["snapshot", &format!("vm@s{round}")]);
        for i in 0..40 {
            client.write(i * MIB, &pattern(round * 100 + i, MIB as usize)).unwrap();
        }
    }
    client.flush().unwrap();
    let before = allocated(place);
    assert!(before > empty + 138 * MIB, "{before} {empty}");
    place.ok(&["delete", "vm@s0", "vm@s1", "--wait"]);
    let after = allocated(place);
    assert!(after + 75 * MIB < before, "of {before} bytes {after} are left");
    // As much as the volume has, and little more.
    assert!(after < empty + 75 * MIB, "{after} {empty}");
    client.leave().unwrap();
    place.ok(&["delete", "vm", "--wait"]);
    let after = allocated(place);
    assert!(after < empty + 15 * MIB, "{after} {empty}");
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
    // What came back is there for others.
    let used = fs::metadata(fill(mount, "ballast")).unwrap().blocks() * 512;
    assert!(used > 150 * MIB, "{used}");
}

/// Killed with a journal that holds more than the next opening has memory for: that one has to fold.
fn opened_on_a_full(place: &mut Place, mount: &str) {
    place.ok(&["pool", "create", "--size", "1G"]);
    place.ok(&["create", "vm", "--size", "8G"]);
    let server = Server::start(place, &[]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    let content = |at: u64| pattern(at + 1, 4096);
    let places = || (0..400).map(|i| i * 20 * MIB);
    for at in places() {
        client.write(at, &content(at)).unwrap();
    }
    client.flush().unwrap();
    server.kill();
    // Without what it had set aside below, which the next one might come upon.
    let copy = format!("{mount}/copy.cow");
    let pool = place.pool().to_str().unwrap().to_owned();
    run_ok(&["cp", "--reflink=never", "--sparse=always", &pool, &copy]);
    fs::remove_file(&pool).unwrap();
    // The copies of the superblock have their room from creation.
    for block in [1024, 8192, 16384] {
        run_ok(&["fallocate", "-o", &(block * 4096).to_string(), "-l", "4096", &copy]);
    }
    place.set_pool(&copy);
    let ballast = fill(mount, "ballast");
    let memory = Memory { layer_bytes: 4000, ..Memory::default() };
    let small = OpenOptions { memory, ..OpenOptions::default() };
    for _ in 0..2 {
        let refused = Pool::open(place.pool(), &small).map(drop);
        assert_eq!(refused, Err(Error::NoSpace(SpaceKind::Below)));
    }
    let verify = |pool: &Pool| {
        let volume = pool.open_export("vm", false).unwrap();
        for at in places() {
            let mut block = vec![0; 4096];
            volume.read_at(&mut block, at).unwrap();
            assert!(block == content(at), "at {at}");
        }
    };
    let reader = OpenOptions { read_only: true, ..OpenOptions::default() };
    let pool = Pool::open(place.pool(), &reader).unwrap();
    verify(&pool);
    pool.close().unwrap();
    fs::remove_file(ballast).unwrap();
    let pool = Pool::open(place.pool(), &small).unwrap();
    verify(&pool);
    pool.close().unwrap();
    assert_eq!(place.json("check", &["check"])["clean"], true);
}

#[test]
fn an_opening_on_a_full_ext4_ends() {
    on_file_system("ext4", opened_on_a_full);
}

#[test]
fn an_opening_on_a_full_xfs_ends() {
    on_file_system("xfs", opened_on_a_full);
}

#[test]
fn a_full_ext4_below_refuses_writes_and_nothing_else() {
    on_file_system("ext4", full_below);
}

#[test]
fn a_full_xfs_below_refuses_writes_and_nothing_else() {
    on_file_system("xfs", full_below);
}

#[test]
fn freed_space_is_free_on_ext4() {
    on_file_system("ext4", comes_back);
}

#[test]
fn freed_space_is_free_on_xfs() {
    on_file_system("xfs", comes_back);
}

#[test]
fn a_preallocated_pool_keeps_its_space() {
    let mut place = Place::new();
    place.set_pool(place.path("pool.cow"));
    place.ok(&["pool", "create", "--size", "256M", "--preallocate"]);
    let before = allocated(&place);
    fs::write(place.path("a.raw"), pattern(1, 20 << 20)).unwrap();
    place.ok(&["import", "a.raw", "vm"]);
    place.ok(&["delete", "vm", "--wait"]);
    assert!(before >= 256 * MIB && allocated(&place) >= before);
}
