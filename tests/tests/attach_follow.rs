//! Devices over volumes follow them: a new size, a new name, whoever asked for it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Attached, MountedFs, Place, control, have, have_loops, pattern, run_ok, wait_until,
    write_synced,
};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;

fn place() -> Place {
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "128M"]);
    place
}

#[test]
fn a_device_follows_whoever_resizes_its_volume() {
    if !have_loops() {
        return;
    }
    let place = place();
    place.ok(&["create", "other", "--size", "8M"]);
    let (vm, other) = (Attached::new(&place, "vm"), Attached::new(&place, "other"));
    let resize = |volume: &str, size: u64, shrink: bool| {
        let verb =
            json!({"verb": "resize", "volume": volume, "size_bytes": size, "shrink": shrink});
        control::ask(&place, &verb);
    };
    resize("vm", 512 * MIB, false);
    wait_until("it has grown", || vm.ask("--getsize64") == 512 * MIB);
    let last = pattern(1, 4096);
    let device = || File::options().read(true).write(true).open(&vm.device).unwrap();
    device().write_all_at(&last, 512 * MIB - 4096).unwrap();
    device().sync_all().unwrap();
    resize("vm", 64 * MIB, true);
    resize("other", 16 * MIB, false);
    wait_until("both have followed", || {
        (vm.ask("--getsize64"), other.ask("--getsize64")) == (64 * MIB, 16 * MIB)
    });
    assert!(device().write_all_at(&last, 512 * MIB - 4096).is_err(), "that is cut off");
    other.detach();
    vm.detach();
    place.ok(&["check"]);
}

/// What is attached, as `attachments` names it: name, device, link.
fn attached(place: &Place) -> Vec<[String; 3]> {
    let list = place.json("attachments", &["attachments"]);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let row = |row| ["name", "device", "link"].map(|key| text(row, key));
    list["items"].as_array().unwrap().iter().map(row).collect()
}

#[test]
fn a_device_is_called_as_its_volume_is() {
    if !have_loops() || !have(&["mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = place();
    let vm = place.ok(&["attach", "vm"]).trim().to_owned();
    run_ok(&["mkfs.ext4", "-q", &vm]);
    let fs = MountedFs::new(&place, &vm, "fs", "rw");
    write_synced(&fs.path("kept"), &pattern(1, 3 << 20));
    place.ok(&["snapshot", "vm@a", "--freeze"]);
    let old = place.ok(&["attach", "vm@a"]).trim().to_owned();
    let link = |name: &str| place.path("dev/pool").join(name);
    let row =
        |name: &str, device: &str| [name, device, link(name).to_str().unwrap()].map(str::to_owned);
    assert_eq!(attached(&place), [row("vm", &vm), row("vm@a", &old)]);

    // The snapshots of a volume are called after it.
    place.ok(&["rename", "vm", "web"]);
    assert_eq!(attached(&place), [row("web", &vm), row("web@a", &old)]);
    assert_eq!(fs::read_link(link("web")).unwrap().to_str(), Some(vm.as_str()));
    assert!(
        fs::symlink_metadata(link("vm")).is_err() && fs::symlink_metadata(link("vm@a")).is_err()
    );
    // What is open goes on, and by its new name it can be frozen, and is known to be in use.
    write_synced(&fs.path("after"), &pattern(2, 3 << 20));
    place.ok(&["snapshot", "web@b", "--freeze"]);
    assert!(place.fails(4, &["attach", "web"]).contains(&vm));
    assert!(place.fails(4, &["detach", "web"]).contains(fs.dir()));
    assert!(place.fails(3, &["detach", "vm"]).contains("not attached"));

    // Another one takes its old name; and then both change theirs, without `cowctl`.
    place.ok(&["create", "vm", "--size", "8M"]);
    let other = place.ok(&["attach", "vm"]).trim().to_owned();
    assert_ne!(other, vm);
    for (name, to) in [("vm", "x"), ("web", "vm"), ("x", "web"), ("vm@a", "c")] {
        control::ask(&place, &json!({"verb": "rename", "name": name, "to": to}));
    }
    let mut wanted = [row("vm", &vm), row("vm@c", &old), row("web", &other)];
    wanted.sort();
    wait_until("the links have followed", || {
        let mut now = attached(&place);
        now.sort();
        now == wanted
    });
    // So does what is told apart by size.
    place.ok(&["resize", "web", "--size", "12M"]);
    assert_eq!(run_ok(&["blockdev", "--getsize64", &other]).trim(), (12 * MIB).to_string());

    assert!(fs::read(fs.path("kept")).unwrap() == pattern(1, 3 << 20));
    fs.unmount();
    run_ok(&["e2fsck", "-fn", &vm]);
    for name in ["web", "vm@c", "vm"] {
        place.ok(&["detach", name]);
    }
    assert!(!place.path("dev/pool").exists() && attached(&place).is_empty());
    assert!(!run_ok(&["losetup", "-a"]).contains(place.text("").as_str()));
    place.ok(&["check"]);
}
