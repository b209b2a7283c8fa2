//! Volumes and snapshots as block devices of this machine, under real file systems.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Attached, Load, MountedFs, Place, Server, have, have_loops, pattern, run, run_ok, signal,
    wait_until, write_synced,
};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::sync::{PoisonError, RwLock};

const MIB: u64 = 1 << 20;

/// A device whose server has died fails in the hands of all that look at every device of the machine,
/// as `mkfs.btrfs` does: such a test is alone.
static ALONE: RwLock<()> = RwLock::new(());

struct Kind {
    make: &'static [&'static str],
    check: &'static [&'static str],
    /// Options to mount a second one of the same identity.
    twin: &'static str,
    grow: &'static [&'static str],
    programs: &'static [&'static str],
}

const EXT4: Kind = Kind {
    make: &["mkfs.ext4", "-q"],
    check: &["e2fsck", "-fn"],
    twin: "rw",
    // Growing a mounted one takes CAP_SYS_RESOURCE, which a container may lack.
    grow: &[],
    programs: &["mkfs.ext4", "e2fsck", "resize2fs"],
};
const XFS: Kind = Kind {
    make: &["mkfs.xfs", "-q"],
    check: &["xfs_repair", "-n"],
    twin: "nouuid",
    grow: &["xfs_growfs"],
    programs: &["mkfs.xfs", "xfs_repair", "xfs_growfs"],
};
const BTRFS: Kind = Kind {
    make: &["mkfs.btrfs", "-q"],
    check: &["btrfs", "check", "--readonly"],
    twin: "rw",
    grow: &["btrfs", "filesystem", "resize", "max"],
    programs: &["mkfs.btrfs", "btrfs"],
};

fn place() -> Place {
    let place = Place::new();
    place.ok(&["pool", "create", "--size", "1G"]);
    place.ok(&["create", "vm", "--size", "384M"]);
    place
}

/// The files of a tree and what is in them; the first `count`.
fn content(fs: &MountedFs, count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|n| fs::read(fs.path(&format!("file{n}"))).unwrap_or_default()).collect()
}

/// A file system is made, used, snapshotted under load, grown and trimmed, and is well.
fn live(kind: &Kind) {
    if !have_loops() || !have(kind.programs) {
        return;
    }
    let _alone = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let place = place();
    let vm = Attached::new(&place, "vm");
    assert_eq!((vm.ask("--getss"), vm.ask("--getsize64")), (4096, 384 * MIB));
    let link = place.path("dev/pool/vm");
    assert_eq!(fs::read_link(&link).unwrap().to_str(), Some(vm.device.as_str()));
    run_ok(&[kind.make, &[vm.device.as_str()]].concat());
    let fs = MountedFs::new(&place, link.to_str().unwrap(), "fs", "rw");
    for n in 0..40 {
        write_synced(&fs.path(&format!("file{n}")), &pattern(n, 20_000 + 1000 * n as usize));
    }
    let list = place.json("attachments", &["attachments"]);
    assert_eq!(list["items"][0]["mounted"][0], fs.dir(), "{list}");
    assert!(place.fails(4, &["detach", "vm"]).contains(fs.dir()));
    assert!(place.fails(4, &["attach", "vm"]).contains(&vm.device));

    let load = Load::start(fs.dir());
    let before = content(&fs, 40);
    std::thread::sleep(std::time::Duration::from_millis(300));
    place.ok(&["snapshot", "vm@a"]);
    std::thread::sleep(std::time::Duration::from_millis(100));
    load.stop(fs.dir());
    assert!(place.fails(4, &["rollback", "vm@a"]).contains("vm"), "it is mounted");

    // The snapshot, as after a power cut: a clone replays the journal, and is consistent.
    let snapshot = Attached::new(&place, "vm@a");
    assert_eq!(snapshot.ask("--getro"), 1);
    assert!(
        run(&["dd", "if=/dev/zero", &format!("of={}", snapshot.device), "count=1"]).status.code()
            != Some(0)
    );
    place.ok(&["clone", "vm@a", "twin"]);
    // Two btrfs of one identity may not be seen at once.
    let (fs, vm) = if kind.make[0] == "mkfs.btrfs" {
        fs.unmount();
        snapshot.detach();
        vm.detach();
        let twin = Attached::new(&place, "twin");
        let replayed = MountedFs::new(&place, &twin.device, "twin-fs", kind.twin);
        assert!(content(&replayed, 40) == before, "what was synced before is in the snapshot");
        replayed.unmount();
        run_ok(&[kind.check, &[twin.device.as_str()]].concat());
        twin.detach();
        let vm = Attached::new(&place, "vm");
        (MountedFs::new(&place, &vm.device, "fs", "rw"), vm)
    } else {
        let twin = Attached::new(&place, "twin");
        let replayed = MountedFs::new(&place, &twin.device, "twin-fs", kind.twin);
        assert!(content(&replayed, 40) == before, "what was synced before is in the snapshot");
        replayed.unmount();
        run_ok(&[kind.check, &[twin.device.as_str()]].concat());
        twin.detach();
        snapshot.detach();
        (fs, vm)
    };

    // It grows while it is mounted, where that may be done here.
    place.ok(&["resize", "vm", "--size", "512M"]);
    assert_eq!(vm.ask("--getsize64"), 512 * MIB);
    if !kind.grow.is_empty() {
        run_ok(&[kind.grow, &[fs.dir()]].concat());
        let size = run_ok(&["df", "--output=size", "-B1", fs.dir()]);
        let size: u64 = size.lines().nth(1).unwrap().trim().parse().unwrap();
        assert!(size > 384 * MIB, "{size}");
    }

    // What is deleted and trimmed is free in the pool and in the file below.
    place.ok(&["delete", "twin", "--wait"]);
    place.ok(&["delete", "vm@a", "--wait"]);
    write_synced(&fs.path("large"), &pattern(99, 64 << 20));
    let used = || (place.info("data_bytes"), fs::metadata(place.pool()).unwrap().blocks() * 512);
    place.json("list", &["list"]);
    let full = used();
    fs::remove_file(fs.path("large")).unwrap();
    wait_until("the space comes back", || {
        // Each turn, as a file system may free a file in the background, after the unlink and the
        // sync have returned; XFS does, and its trim passes over what is not free in its log yet.
        run_ok(&["sync", "-f", fs.dir()]);
        run_ok(&["fstrim", fs.dir()]);
        place.json("list", &["list"]);
        let now = used();
        full.0 - now.0.min(full.0) > 48 * MIB && full.1 - now.1.min(full.1) > 48 * MIB
    });
    assert!(content(&fs, 40) == before);
    fs.unmount();
    run_ok(&[kind.check, &[vm.device.as_str()]].concat());
    let device = vm.device.clone();
    vm.detach();
    assert!(!link.exists() && fs::symlink_metadata(&link).is_err());
    assert!(!run_ok(&["losetup", "-a"]).contains(place.text("").as_str()), "{device} is free");
    // The process in the background has ended and has closed the pool.
    place.ok(&["check"]);
    assert!(place.fails(3, &["detach", "vm"]).contains("not attached"));
}

#[test]
fn an_ext4_lives_on_a_volume() {
    live(&EXT4);
}

#[test]
fn an_xfs_lives_on_a_volume() {
    live(&XFS);
}

#[test]
fn a_btrfs_lives_on_a_volume() {
    live(&BTRFS);
}

#[test]
fn a_killed_server_costs_nothing_that_was_synced() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    write_synced(&fs.path("kept"), &pattern(1, 3 << 20));
    run_ok(&["sync", "-f", fs.dir()]);
    let mut holder =
        fs::read_dir(place.path("run/cow")).unwrap().map(|entry| entry.unwrap().path());
    let entry = holder.find(|path| path.extension().is_some_and(|e| e == "json")).unwrap();
    let entry: serde_json::Value = serde_json::from_slice(&fs::read(entry).unwrap()).unwrap();
    let load = Load::start(fs.dir());
    run_ok(&["kill", "-KILL", &entry["pid"].to_string()]);
    wait_until("the device is dead", || {
        place.json("attachments", &["attachments"])["items"][0]["state"] == "dead"
    });
    drop(load);

    // Still mounted: nothing can be done, and it says what to do first.
    let text = place.fails(4, &["detach", "vm"]);
    assert!(text.contains("has died") && text.contains(fs.dir()), "{text}");
    let text = place.fails(4, &["attach", "vm"]);
    assert!(text.contains("has died") && text.contains(fs.dir()), "{text}");
    // The pool itself is free, and another volume of it can be attached beside the dead device.
    place.ok(&["create", "other", "--size", "16M"]);
    Attached::new(&place, "other").detach();
    let _ = run(&["umount", fs.dir()]);
    let outcome = place.run(&["detach", "vm"]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stderr.contains("had died") && outcome.stderr.contains("freed"), "{outcome:?}");
    assert_eq!(
        run(&["sh", "-c", &format!("grep -c {} /proc/mounts", place.text("run"))]).stdout,
        b"0\n"
    );

    let vm = Attached::new(&place, "vm");
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    assert!(fs::read(fs.path("kept")).unwrap() == pattern(1, 3 << 20));
    fs.unmount();
    run_ok(&["e2fsck", "-fn", &vm.device]);
    vm.detach();
    place.ok(&["check"]);
}

#[test]
fn a_server_attaches_what_it_serves_and_does_not_leave_it() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    let place = place();
    place.ok(&["pool", "set", "label=prod"]);
    let mut server = Server::start(&place, &[]);
    let vm = Attached::new(&place, "vm");
    assert!(place.path("dev/prod/vm").exists(), "the label names the pool");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    signal(server.child(), "TERM");
    // It refuses to go, and serves on.
    write_synced(&fs.path("after"), b"still here");
    fs.unmount();
    vm.detach();
    // Detached, but the server is there still; asked again, it ends.
    assert!(place.names().contains(&"vm".to_owned()));
    signal(server.child(), "TERM");
    assert_eq!(server.exited().code(), Some(0));
    place.ok(&["check"]);
}

#[test]
fn devices_are_found_without_a_race_and_fit_what_is_there() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    // Of one pool they come one after the other, of several at once.
    let places: Vec<Place> = (0..6).map(|_| Place::new()).collect();
    for place in &places {
        place.ok(&["pool", "create", "--size", "128M"]);
        place.ok(&["create", "v", "--size", "4M"]);
        place.ok(&["create", "kept", "--size", "4M"]);
        // Its server is there already: less happens before a device is chosen.
        place.ok(&["attach", "kept"]);
    }
    for round in 0..3 {
        let start = |place: &Place| {
            let mut command = place.command(&["attach", "v"]);
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
        };
        let children: Vec<_> = places.iter().map(start).collect();
        for (n, child) in children.into_iter().enumerate() {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success());
            let device = String::from_utf8(output.stdout).unwrap();
            let text = format!("{n}{round}");
            run_ok(&[
                "sh",
                "-c",
                &format!("echo {text} | dd of={} conv=notrunc,fsync", device.trim()),
            ]);
        }
        for (n, place) in places.iter().enumerate() {
            let list = place.json("attachments", &["attachments"]);
            assert_eq!(list["items"].as_array().unwrap().len(), 2, "{list}");
            place.ok(&["detach", "v"]);
            assert_eq!(
                place.content("v")[..2],
                *format!("{n}{round}").as_bytes(),
                "its own device"
            );
        }
    }
    for place in &places {
        place.ok(&["detach", "kept"]);
        assert_eq!(place.json("attachments", &["attachments"])["items"], serde_json::json!([]));
    }

    let place = place();
    // A file system of small blocks needs small sectors.
    let image = place.text("image");
    File::create(&image).unwrap().set_len(32 * MIB).unwrap();
    run_ok(&["mkfs.ext4", "-q", "-b", "1024", &image]);
    place.ok(&["import", &image, "small"]);
    let small = Attached::new(&place, "small");
    assert_eq!(small.ask("--getss"), 512);
    MountedFs::new(&place, &small.device, "fs", "rw").unmount();
    small.detach();
    place.fails(3, &["attach", "nothing"]);
    place.fails(3, &["attach", "small@nothing"]);
    // What was started for that has ended again.
    place.ok(&["check"]);
}
