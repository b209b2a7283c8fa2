//! A mounted pool: volumes and snapshots as files, for the tools that everybody has.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Mounted, Place, Server, have, have_fuse, pattern, run, run_ok, wait_until};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};

const MIB: u64 = 1 << 20;
const EROFS: i32 = 30;
const EFBIG: i32 = 27;
const ENXIO: i32 = 6;

fn open(path: &str) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn place() -> Place {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "16M"]);
    place
}

#[test]
fn files_hold_what_volumes_do_at_any_alignment() {
    if !have_fuse() {
        return;
    }
    let place = place();
    let mounted = Mounted::new(&place);
    let (image, file) = (place.text("image"), mounted.file("vm"));
    fs::write(&image, pattern(1, 16 << 20)).unwrap();
    run_ok(&["dd", &format!("if={image}"), &format!("of={file}"), "bs=1M", "conv=notrunc,fsync"]);
    run_ok(&["cmp", &image, &file]);
    // O_TRUNC cuts off nothing, as on a disk.
    run_ok(&["dd", &format!("if={image}"), &format!("of={file}"), "bs=64k", "count=1"]);
    run_ok(&["cmp", &image, &file]);

    let mut content = fs::read(&image).unwrap();
    let vm = open(&file);
    for (at, len) in [(0, 1), (4095, 2), (12_345, 70_001), (MIB - 1, 1 << 20), (16 * MIB - 3, 3)] {
        let bytes = pattern(at, len);
        vm.write_all_at(&bytes, at).unwrap();
        content[at as usize..][..len].copy_from_slice(&bytes);
    }
    assert!(fs::read(&file).unwrap() == content, "unaligned writes");
    // What does not fit is not written; behind the end there is nothing.
    assert_eq!(vm.write_at(b"xyz", 16 * MIB - 2).unwrap(), 2);
    assert_eq!(vm.write_at(b"xyz", 16 * MIB).unwrap_err().raw_os_error(), Some(EFBIG));
    assert_eq!(vm.read_at(&mut [0; 10], 16 * MIB - 4).unwrap(), 4);
    assert_eq!(vm.read_at(&mut [0; 10], 20 * MIB).unwrap(), 0);
    content[16 * MIB as usize - 2..].copy_from_slice(b"xy");
    assert!(vm.set_len(MIB).is_err(), "the size is that of the volume");
    drop(vm);
    mounted.unmount();
    assert!(place.content("vm") == content, "after the end");
    place.ok(&["check"]);
}

#[test]
fn holes_are_made_and_found() {
    if !have_fuse() {
        return;
    }
    let place = place();
    let mounted = Mounted::new(&place);
    let file = mounted.file("vm");
    let seek = |from: u64, data: bool| -> Result<u64, i32> {
        let whence = if data { "os.SEEK_DATA" } else { "os.SEEK_HOLE" };
        let code = format!(
            "import os\nf=os.open('{file}',os.O_RDONLY)\ntry: print(os.lseek(f,{from},{whence}))\n\
             except OSError as e: print(-e.errno)"
        );
        let found: i64 = run_ok(&["python3", "-c", &code]).trim().parse().unwrap();
        u64::try_from(found).map_err(|_| -found as i32)
    };
    assert_eq!(seek(0, true), Err(ENXIO), "nothing is written yet");
    let vm = open(&file);
    vm.write_all_at(&pattern(2, 4 << 20), 0).unwrap();
    vm.write_all_at(&pattern(3, 1 << 20), 10 * MIB).unwrap();
    run_ok(&["fallocate", "-p", "-o", "1M", "-l", "1M", &file]);
    run_ok(&["fallocate", "-z", "-n", "-o", "2097153", "-l", "4096", &file]);
    assert_eq!((seek(0, true), seek(0, false)), (Ok(0), Ok(MIB)));
    assert_eq!((seek(MIB, true), seek(4 * MIB, true)), (Ok(2 * MIB), Ok(10 * MIB)));
    assert_eq!((seek(10 * MIB, false), seek(11 * MIB, true)), (Ok(11 * MIB), Err(ENXIO)));
    let mut bytes = vec![1; 4098];
    vm.read_exact_at(&mut bytes, 2 * MIB).unwrap();
    let whole = pattern(2, 4 << 20);
    assert_eq!((bytes[0], bytes[4097]), (whole[2 << 20], whole[(2 << 20) + 4097]));
    assert!(bytes[1..4097].iter().all(|byte| *byte == 0), "zeros at any offset");
    // Space is not reserved in a thin pool.
    assert!(!run(&["fallocate", "-l", "16M", &file]).status.success());

    let copy = place.text("copy");
    run_ok(&["cp", "--sparse=auto", &file, &copy]);
    run_ok(&["cmp", &file, &copy]);
    assert!(fs::metadata(&copy).unwrap().blocks() * 512 < 6 * MIB, "the copy is sparse, too");
    drop(vm);
    mounted.unmount();
}

#[test]
fn the_directory_follows_the_pool() {
    if !have_fuse() {
        return;
    }
    let place = place();
    let mounted = Mounted::new(&place);
    let names = || {
        let mut names: Vec<String> = fs::read_dir(mounted.dir())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["vm"]);
    let vm = open(&mounted.file("vm"));
    vm.write_all_at(b"before", 0).unwrap();
    let (inode, len) = (vm.metadata().unwrap().ino(), vm.metadata().unwrap().len());
    assert_eq!(len, 16 * MIB);
    place.ok(&["snapshot", "vm@a"]);
    vm.write_all_at(b"after!", 0).unwrap();
    assert_eq!(names(), ["vm", "vm@a"]);

    // A snapshot cannot be changed, and not be deleted while it is open.
    let snapshot = File::open(mounted.file("vm@a")).unwrap();
    assert_eq!(snapshot.metadata().unwrap().mode() & 0o7777, 0o400);
    let mut bytes = [0; 6];
    snapshot.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"before");
    let refused = File::options().write(true).open(mounted.file("vm@a")).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(EROFS));
    assert!(place.fails(4, &["delete", "vm@a"]).contains("vm@a"));
    drop(snapshot);
    // The kernel tells of a close a moment later.
    wait_until("the snapshot is closed", || place.run(&["delete", "vm@a"]).code == 0);
    assert_eq!(names(), ["vm"]);

    // A volume that is open for writing is not rolled back, and seen to grow.
    place.ok(&["snapshot", "vm@b"]);
    vm.write_all_at(b"later!", 0).unwrap();
    assert!(place.fails(4, &["rollback", "vm@b"]).contains("vm"));
    place.ok(&["resize", "vm", "--size", "24M"]);
    assert_eq!(vm.metadata().unwrap().len(), 24 * MIB);
    vm.write_all_at(b"end", 24 * MIB - 3).unwrap();
    place.ok(&["rename", "vm", "other"]);
    assert_eq!(names(), ["other", "other@b"]);
    vm.write_all_at(b"still", 100).unwrap();
    assert_eq!(fs::metadata(mounted.file("other")).unwrap().ino(), inode, "it is the same file");
    assert!(fs::metadata(mounted.file("vm")).is_err());

    let free = run_ok(&["stat", "-f", "-c", "%S %b %a", mounted.dir()]);
    let free: Vec<u64> = free.split_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(free[0] * free[1], 512 * MIB);
    assert!(free[2] > 0 && free[2] < free[1], "{free:?}");

    // Nothing is made or removed here.
    assert!(File::create(mounted.file("new")).is_err());
    assert!(fs::remove_file(mounted.file("other")).is_err());
    let text = place.fails(4, &["umount", mounted.dir()]);
    assert!(text.contains("open"), "{text}");
    drop(vm);
    mounted.unmount();
    place.ok(&["check"]);
}

#[test]
fn what_was_synced_outlives_a_killed_server() {
    if !have_fuse() {
        return;
    }
    let place = place();
    let mounted = Mounted::new(&place);
    let vm = open(&mounted.file("vm"));
    vm.write_all_at(&pattern(5, 1 << 20), 0).unwrap();
    let flushes = || place.json("pool", &["pool", "info"])["stats"]["flushes"].as_u64().unwrap();
    let before = flushes();
    vm.sync_all().unwrap();
    assert_eq!(flushes(), before + 1, "fsync is a flush of the pool");
    mounted.kill();
    wait_until("the end of the mount", || vm.read_at(&mut [0; 1], 0).is_err());
    assert!(fs::read_dir(mounted.dir()).is_err());
    // Still open, and gone all the same.
    let outcome = place.run(&["umount", mounted.dir()]);
    assert!(outcome.code == 0 && outcome.stderr.contains("had died"), "{outcome:?}");
    assert_eq!(fs::read_dir(mounted.dir()).unwrap().count(), 0);
    assert!(place.fails(3, &["umount", mounted.dir()]).contains("nothing is mounted"));
    assert!(place.content("vm")[..1 << 20] == pattern(5, 1 << 20), "the synced bytes");

    // The next mount finds the remains of the last, and takes them away.
    let again = Mounted::new(&place);
    again.kill();
    wait_until("the end of the mount", || fs::read_dir(again.dir()).is_err());
    let third = Mounted::new(&place);
    assert_eq!(fs::read(third.file("vm")).unwrap()[..1 << 20], pattern(5, 1 << 20));
    third.unmount();
    drop(again);
    drop(vm);
    drop(mounted);
    place.ok(&["check"]);
}

#[test]
fn a_server_mounts_what_it_serves() {
    if !have_fuse() {
        return;
    }
    let place = place();
    let server = Server::start(&place, &[]);
    let mounted = Mounted::new(&place);
    assert_eq!(mounted.pid, u64::from(server.child().id()), "no second process");
    open(&mounted.file("vm")).write_all_at(b"hello", 0).unwrap();
    assert!(place.fails(4, &["mount", mounted.dir()]).contains("mounted there already"));
    mounted.unmount();
    assert_eq!(&place.content("vm")[..5], b"hello");
    let again = Mounted::new(&place);
    // A server that ends takes its mounts along.
    server.stop();
    assert!(fs::read_dir(again.dir()).unwrap().next().is_none());
    drop(again);
    place.ok(&["check"]);
}

#[test]
fn an_ordinary_user_mounts_with_the_setuid_helper() {
    if !have_fuse() || !have(&["fusermount3", "setpriv"]) {
        return;
    }
    let place = place();
    place.ok(&["snapshot", "vm@a"]);
    let dir = place.text("mnt");
    fs::create_dir(&dir).unwrap();
    let root = place.text("");
    run_ok(&["chown", "-R", "65534:65534", &root]);
    run_ok(&["chmod", "755", &root]);
    // As distributions have it; a bare container may not.
    run_ok(&["chmod", "666", "/dev/fuse"]);
    // Where it was built others may not go.
    let program = place.text("cowctl");
    fs::copy(cow_tests::cowctl(), &program).unwrap();
    let as_nobody = |words: &[&str]| {
        let start = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "env"];
        let pool = format!("COWCTL_POOL={}", place.pool().display());
        let runtime = format!("COW_RUNTIME_DIR={}", place.text("run"));
        let fixed = [pool.as_str(), runtime.as_str(), program.as_str()];
        run(&[&start[..], &fixed, words].concat())
    };
    let output = as_nobody(&["mount", "--background", &dir]);
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        panic!("{text}");
    }
    let copy = place.text("copy");
    let shell = format!("cat {dir}/vm@a > {copy}");
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"];
    run_ok(&[&nobody[..], &[shell.as_str()]].concat());
    assert_eq!(fs::metadata(&copy).unwrap().len(), 16 * MIB);
    let output = as_nobody(&["umount", &dir]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_dir(&dir).unwrap().next().is_none());
}
