//! The server: sockets, real clients, fencing, and its end, good or bad.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Client, Place, Server, file_hash, have, is_root, pattern, run, run_ok, signal, wait_until,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;

#[test]
fn it_says_where_it_is_and_ends_well() {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    place.ok(&["snapshot", "vm@a"]);
    let server = Server::start(&place, &[]);
    let exports = server.ready["exports"].as_array().unwrap();
    assert_eq!(exports.len(), 2);
    assert_eq!((&exports[1]["name"], &exports[1]["read_only"]), (&"vm@a".into(), &true.into()));
    assert_eq!(exports[0]["uri"], server.uri("vm"));
    assert_eq!(server.socket(), place.path("pool.cow.nbd.sock"), "beside the pool");
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.socket()), 0o600);
    assert_eq!(mode(server.ready["control"].as_str().unwrap().as_ref()), 0o600);
    assert!(place.fails(4, &["serve"]).contains("in use"), "one process has a pool");

    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    client.write(8192, &pattern(1, BLOCK)).unwrap();
    let socket = server.socket();
    server.stop();
    assert!(!socket.exists());
    assert!(place.content("vm")[8192..8192 + BLOCK] == pattern(1, BLOCK), "SIGTERM flushes");
    let mut snapshot = Server::start(&place, &["--read-only"]);
    let mut client = Client::connect(&snapshot.socket(), "vm").unwrap();
    assert!(client.read_only && client.read(8192, 10).unwrap() == pattern(1, 10));
    place.fails(1, &["snapshot", "vm@b"]);
    signal(snapshot.child(), "INT");
    assert!(snapshot.exited().success());
}

#[test]
fn tcp_is_for_this_host_unless_told_otherwise() {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    place.fails(2, &["serve", "--nbd", "tcp:0.0.0.0:0"]);
    place.fails(2, &["serve", "--nbd", "http://x"]);
    let server = Server::start(&place, &["--nbd", "tcp:127.0.0.1:0"]);
    assert!(server.ready["uri"].as_str().unwrap().starts_with("nbd://127.0.0.1:"));
    assert!(!place.path("pool.cow.nbd.sock").exists(), "only where it was told to");
    server.stop();
    let both = ["--nbd", "tcp:0.0.0.0:0", "--insecure", "--nbd", "unix:own.sock"];
    let server = Server::start(&place, &both);
    assert_eq!(server.ready["uris"].as_array().unwrap().len(), 2);
    assert!(place.path("own.sock").exists());
    server.stop();
}

#[test]
fn a_path_too_long_for_a_socket_is_gone_round() {
    let mut place = Place::new();
    let deep = place.path(&"d".repeat(90));
    fs::create_dir(&deep).unwrap();
    place.set_pool(deep.join("pool.cow"));
    place.ok(&["pool", "create", "--size", "128M"]);
    place.ok(&["create", "vm", "--size", "1M"]);
    let server = Server::start(&place, &[]);
    assert!(server.ready["notes"][0].as_str().unwrap().contains("too long"));
    Client::connect(&server.socket(), "vm").unwrap();
    place.ok(&["snapshot", "vm@a"]);
    server.stop();
}

#[test]
fn sockets_of_the_service_manager_are_used() {
    if !have(&["nbdinfo"]) {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    // libnbd passes a listening socket as systemd does.
    let script = "exec nbdinfo --size [ \"$0\" serve ]";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(cow_tests::cowctl());
    command.env("COWCTL_POOL", place.pool()).env("COW_RUNTIME_DIR", place.path("run"));
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.trim().ends_with("16777216"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn rollback_waits_for_clients_or_cuts_them_off() {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    let server = Server::start(&place, &[]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    client.write(0, &pattern(1, BLOCK)).unwrap();
    place.ok(&["snapshot", "vm@a"]);
    client.write(0, &pattern(2, BLOCK)).unwrap();
    place.fails(4, &["rollback", "vm@a"]);
    place.fails(4, &["rollback", "-n", "vm@a"]);
    place.fails(4, &["delete", "-r", "vm"]);
    assert!(client.read(0, BLOCK as u32).unwrap() == pattern(2, BLOCK));
    place.ok(&["rollback", "vm@a", "--force"]);
    let error = client.write(4096, &pattern(3, BLOCK)).expect_err("it is cut off");
    assert!(error.raw_os_error().is_none_or(|errno| errno != 0), "{error}");
    assert!(client.write(4096, &pattern(3, BLOCK)).is_err(), "and stays so");
    drop(client);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    assert!(client.read(0, BLOCK as u32).unwrap() == pattern(1, BLOCK));
    assert!(client.read(4096, BLOCK as u32).unwrap() == [0; BLOCK]);
    client.leave().unwrap();
    wait_until("the server to notice", || place.row("vm")["writers"] == 0);
    place.ok(&["undo", "vm"]);
    let mut client = Client::connect(&server.socket(), "vm").unwrap();
    assert!(client.read(0, BLOCK as u32).unwrap() == pattern(2, BLOCK));
    let mut snapshot = Client::connect(&server.socket(), "vm@a").unwrap();
    assert!(snapshot.read_only && snapshot.read(0, 4096).unwrap() == pattern(1, BLOCK));
    assert_eq!(snapshot.write(0, &[1; BLOCK]).unwrap_err().raw_os_error(), Some(1), "EPERM");
    server.stop();
}

/// Writes until the server is killed; then what is there must be what was written up to some
/// moment, which is not before the last acknowledged flush.
#[test]
fn a_killed_server_loses_nothing_that_was_flushed() {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    let blocks = (16 << 20) / BLOCK as u64;
    let mut history: Vec<u64> = Vec::new();
    for round in 0..3 {
        let server = Server::start(&place, &[]);
        let mut client = Client::connect(&server.socket(), "vm").unwrap();
        let mut flushed = 0;
        let deadline = Instant::now() + Duration::from_millis(700 + 300 * round);
        let mut killer = Some(server);
        let mut state = 88_172_645_463_325_252_u64 + round;
        loop {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let block = state % blocks;
            history.push(block);
            let stamp = history.len() as u64;
            let data = stamp.to_le_bytes().repeat(BLOCK / 8);
            if client.write(block * BLOCK as u64, &data).is_err() {
                break;
            }
            if stamp.is_multiple_of(50) {
                if client.flush().is_err() {
                    break;
                }
                flushed = history.len();
            }
            if Instant::now() > deadline
                && let Some(server) = killer.take()
            {
                server.kill();
            }
        }
        assert!(flushed > 100, "the server was under load");
        assert_eq!(place.json("check", &["check"])["clean"], true, "before recovery");
        let content = place.content("vm");
        check_prefix(&content, &mut history, flushed);
        assert_eq!(place.json("check", &["check"])["clean"], true);
    }
}

/// Cuts `history` to what survived.
fn check_prefix(content: &[u8], history: &mut Vec<u64>, flushed: usize) {
    let found: Vec<u64> = content
        .chunks(BLOCK)
        .map(|block| {
            let stamp = &block[..8];
            assert!(block.chunks(8).all(|part| part == stamp), "a block is torn");
            u64::from_le_bytes(stamp.try_into().unwrap())
        })
        .collect();
    // The newest write that survived has nothing over it.
    let kept = *found.iter().max().unwrap() as usize;
    assert!(kept >= flushed, "write {flushed} was flushed, and {kept} is the last one there");
    let mut want: BTreeMap<u64, u64> = BTreeMap::new();
    for (index, block) in history[..kept].iter().enumerate() {
        want.insert(*block, index as u64 + 1);
    }
    for (block, stamp) in found.iter().enumerate() {
        let want = want.get(&(block as u64)).copied().unwrap_or(0);
        assert_eq!(*stamp, want, "block {block}, of {kept} writes");
    }
    history.truncate(kept);
}

#[test]
fn qemu_and_libnbd_agree_on_every_byte() {
    if !have(&["qemu-img", "nbdcopy", "nbdinfo", "mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = Place::with_pool();
    // The file system of the demo: 256 MiB, more than a thousand files, holes.
    place.ok(&["demo", "--keep", "--dir", &place.text("")]);
    let entries = fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().path());
    let demo = entries.into_iter().find(|path| path.join("disk.raw").exists()).unwrap();
    fs::rename(demo.join("disk.raw"), place.path("source.raw")).unwrap();
    fs::remove_dir_all(demo).unwrap();
    let content = fs::read(place.path("source.raw")).unwrap();
    assert_eq!(content.len(), 256 << 20);
    run_ok(&[
        "qemu-img",
        "convert",
        "-O",
        "qcow2",
        &place.text("source.raw"),
        &place.text("disk.qcow2"),
    ]);
    place.ok(&["create", "vm", "--size", "256M"]);
    let server = Server::start(&place, &[]);
    let uri = server.uri("vm");
    run_ok(&["qemu-img", "convert", "-n", "-O", "raw", &place.text("disk.qcow2"), &uri]);
    place.ok(&["snapshot", "vm@a"]);
    run_ok(&["nbdcopy", &server.uri("vm@a"), &place.text("out.raw")]);
    assert_eq!(file_hash(&place.path("out.raw")), file_hash(&place.path("source.raw")));

    for name in ["vm", "vm@a"] {
        let map = run_ok(&["nbdinfo", "--map", "--json", &server.uri(name)]);
        let map: Value = serde_json::from_str(&map).unwrap();
        let mut is_data = vec![false; content.len() / BLOCK];
        for extent in map.as_array().unwrap() {
            let of = |key: &str| extent[key].as_u64().unwrap() as usize;
            assert_eq!((of("offset") % BLOCK, of("length") % BLOCK), (0, 0));
            let blocks = of("offset") / BLOCK..(of("offset") + of("length")) / BLOCK;
            is_data[blocks].fill(of("type") == 0);
        }
        for (block, is_data) in is_data.into_iter().enumerate() {
            let bytes = &content[block * BLOCK..(block + 1) * BLOCK];
            assert_eq!(bytes.iter().any(|&byte| byte != 0), is_data, "{name}, block {block}");
        }
    }
    let map = run_ok(&["qemu-img", "map", "--output=json", &uri]);
    assert!(map.contains("\"data\": true") && map.contains("\"data\": false"), "{map}");
    let list = run_ok(&["nbdinfo", "--list", &server.uri("")]);
    assert!(list.contains("vm@a") && list.contains("export-size: 268435456"), "{list}");
    server.stop();
}

#[test]
fn a_pool_on_a_block_device() {
    if !is_root() || !have(&["losetup"]) {
        return;
    }
    let mut place = Place::new();
    fs::File::create(place.path("disk.img")).unwrap().set_len(256 << 20).unwrap();
    let attached = run(&["losetup", "--show", "-f", &place.text("disk.img")]);
    if !attached.status.success() {
        eprintln!("skipped: there are no loop devices here");
        return;
    }
    let device = String::from_utf8(attached.stdout).unwrap().trim().to_owned();
    place.set_pool(&device);
    let result = std::panic::catch_unwind(|| {
        assert_eq!(place.run(&["pool", "create"]).code, 0, "a device is used whole");
        assert_eq!(place.info("size_bytes"), 256 << 20);
        place.fails(4, &["pool", "create"]);
        place.ok(&["create", "vm", "--size", "16M"]);
        let server = Server::start(&place, &[]);
        assert!(server.socket().starts_with(place.path("run")), "nothing is made in /dev");
        let mut client = Client::connect(&server.socket(), "vm").unwrap();
        client.write(4096, &pattern(1, BLOCK)).unwrap();
        place.ok(&["snapshot", "vm@a"]);
        server.stop();
        assert!(place.content("vm@a")[4096..8192] == pattern(1, BLOCK));
        assert_eq!(place.json("check", &["check"])["clean"], true);
    });
    run_ok(&["losetup", "-d", &device]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have(&["fio"]) {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "64M"]);
    let server = Server::start(&place, &[]);
    let mut fio = Command::new("fio");
    fio.args(["--name=v", "--ioengine=nbd", &format!("--uri={}", server.uri("vm"))]);
    fio.args(["--rw=randwrite", "--bsrange=512-64k", "--iodepth=16", "--size=64M"]);
    fio.args(["--blockalign=512", "--verify=crc32c", "--verify_fatal=1", "--fsync=200"]);
    let mut child = fio.stdout(Stdio::null()).current_dir(place.path("")).spawn().unwrap();
    for round in 0.. {
        if let Some(status) = child.try_wait().unwrap() {
            assert!(status.success(), "fio: {status}");
            assert!(round > 0, "it wrote while snapshots were taken");
            break;
        }
        if round < 20 {
            place.ok(&["snapshot", &format!("vm@s{round}")]);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    server.stop();
}
