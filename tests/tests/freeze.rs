//! Snapshots while the file system on a volume is frozen: they need no repair, and whatever happens to
//! those who freeze, it is thawed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Attached, Load, MountedFs, Place, children, have, have_loops, pattern, run, run_ok, wait_until,
    write_synced,
};
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Output, Stdio};

struct Kind {
    make: &'static [&'static str],
    /// Mounts it as it lies there, without a look at its journal.
    as_it_lies: &'static str,
    /// Finds nothing wrong, and does not look at the journal either.
    check: &'static [&'static str],
    /// What it may complain about, beside the lines that it prints in any case.
    complaints: Option<&'static [&'static str]>,
    /// Says whether the journal is needed, by this text; some cannot say it.
    asks_for_replay: Option<(&'static [&'static str], &'static str)>,
    programs: &'static [&'static str],
}

const EXT4: Kind = Kind {
    make: &["mkfs.ext4", "-q"],
    as_it_lies: "ro,noload",
    check: &["e2fsck", "-fn"],
    complaints: None,
    asks_for_replay: Some((&["dumpe2fs", "-h"], "needs_recovery")),
    programs: &["mkfs.ext4", "e2fsck", "dumpe2fs", "fsfreeze"],
};
const XFS: Kind = Kind {
    make: &["mkfs.xfs", "-q"],
    as_it_lies: "ro,norecovery",
    check: &["xfs_repair", "-n"],
    // A frozen one has a record in its log on purpose, so that a mount looks for what was deleted and
    // still open: the counters of the superblock.
    complaints: Some(&[
        "Phase ",
        " ",
        "No modify flag",
        "ALERT: ",
        "ignored because",
        "which may be",
        "sb_",
    ]),
    asks_for_replay: None,
    programs: &["mkfs.xfs", "xfs_repair"],
};
const BTRFS: Kind = Kind {
    make: &["mkfs.btrfs", "-q"],
    as_it_lies: "ro,rescue=nologreplay",
    check: &["btrfs", "check", "--readonly"],
    complaints: None,
    asks_for_replay: None,
    programs: &["mkfs.btrfs", "btrfs"],
};

fn place() -> Place {
    let place = Place::new();
    place.ok(&["pool", "create", "--size", "1G"]);
    place.ok(&["create", "vm", "--size", "384M"]);
    place
}

fn needs_no_replay(kind: &Kind) {
    if !have_loops() || !have(kind.programs) {
        return;
    }
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&[kind.make, &[vm.device.as_str()]].concat());
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    for n in 0..20 {
        fs::write(fs.path(&format!("file{n}")), pattern(n, 20_000)).unwrap();
    }
    run_ok(&["sync", "-f", fs.dir()]);
    write_synced(&fs.path("fresh"), &pattern(50, 50_000));
    place.ok(&["snapshot", "vm@plain"]);

    let load = Load::start(fs.dir());
    std::thread::sleep(std::time::Duration::from_millis(300));
    fs::write(fs.path("dirty"), pattern(51, 500_000)).unwrap();
    let taken = place.json("snapshot", &["snapshot", "vm@frozen", "--freeze"]);
    let label = |row: &serde_json::Value| {
        (row["consistency"].as_str().unwrap().to_owned(), row["freeze_ms"].as_u64())
    };
    let (consistency, freeze_ms) = label(&taken["snapshots"][0]);
    assert!(consistency == "frozen" && freeze_ms >= Some(1), "{taken}");
    assert_eq!(label(&place.row("vm@frozen")), (consistency, freeze_ms));
    assert_eq!(label(&place.row("vm@plain")), ("crash".into(), None));
    // It is thawed again.
    write_synced(&fs.path("later"), b"later");
    load.stop(fs.dir());
    // Two btrfs of one identity may not be seen at once.
    fs.unmount();
    vm.detach();

    let asks_for_replay = |device: &str| {
        let (words, text) = kind.asks_for_replay?;
        Some(run_ok(&[words, &[device]].concat()).contains(text))
    };
    let snapshot = Attached::new(&place, "vm@plain");
    assert_ne!(asks_for_replay(&snapshot.device), Some(false));
    let fs = MountedFs::new(&place, &snapshot.device, "fs", kind.as_it_lies);
    let fresh = fs::read(fs.path("fresh")).unwrap_or_default();
    assert!(fresh != pattern(50, 50_000), "it is in the journal alone: this test can see that");
    fs.unmount();
    snapshot.detach();

    let snapshot = Attached::new(&place, "vm@frozen");
    assert_ne!(asks_for_replay(&snapshot.device), Some(true));
    let fs = MountedFs::new(&place, &snapshot.device, "fs", kind.as_it_lies);
    for n in 0..20 {
        assert!(fs::read(fs.path(&format!("file{n}"))).unwrap() == pattern(n, 20_000), "{n}");
    }
    assert!(fs::read(fs.path("fresh")).unwrap() == pattern(50, 50_000));
    assert!(
        fs::read(fs.path("dirty")).unwrap() == pattern(51, 500_000),
        "also what was not synced"
    );
    assert!(!fs::exists(fs.path("later")).unwrap());
    for n in 0..7 {
        let path = fs.path(&format!("moved{n}"));
        let bytes = fs::read(path).map_or(0, |bytes| bytes.len());
        assert!(bytes.is_multiple_of(300_000), "{n}");
    }
    fs.unmount();
    let words = [kind.check, &[snapshot.device.as_str()]].concat();
    match kind.complaints {
        None => drop(run_ok(&words)),
        Some(expected) => {
            let output = run(&words);
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            let strange =
                |line: &&str| !line.is_empty() && !expected.iter().any(|e| line.starts_with(e));
            assert_eq!(text.lines().find(strange), None, "{text}");
        }
    }
    snapshot.detach();
    place.ok(&["check"]);
}

#[test]
fn an_ext4_needs_no_replay() {
    needs_no_replay(&EXT4);
}

#[test]
fn an_xfs_needs_no_replay() {
    needs_no_replay(&XFS);
}

#[test]
fn a_btrfs_needs_no_replay() {
    needs_no_replay(&BTRFS);
}

/// A `cowctl snapshot --freeze` that is held at a step, in a process group of its own.
struct Halted {
    child: Child,
    /// The process that thaws.
    guard: u32,
    stop: PathBuf,
}

impl Halted {
    #[track_caller]
    fn new(place: &Place, step: &str, words: &[&str]) -> Self {
        let stop = place.path("stop");
        let mut command = place.command(&[&["snapshot", "--freeze"], words].concat());
        command.env("COWCTL_STOP_AT", step).env("COWCTL_STOP_FILE", &stop).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        wait_until("it to be at that step", || stop.exists());
        let guard = *children(child.id()).first().expect("a guard");
        Self { child, guard, stop }
    }

    fn go_on(&self) {
        fs::remove_file(&self.stop).unwrap();
    }

    fn output(mut self) -> Output {
        let (out, err) = (self.child.stdout.take().unwrap(), self.child.stderr.take().unwrap());
        Output {
            status: self.child.wait().unwrap(),
            stdout: std::io::read_to_string(out).unwrap().into(),
            stderr: std::io::read_to_string(err).unwrap().into(),
        }
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.stop);
        let _ = self.child.kill();
        let _ = self.child.wait();
        // After a failure it may hold on still.
        let is_there = |words: Vec<u8>| String::from_utf8_lossy(&words).contains("freeze-guard");
        if fs::read(format!("/proc/{}/cmdline", self.guard)).is_ok_and(is_there) {
            kill(&self.guard.to_string());
        }
    }
}

/// A second freeze is refused; one that is not refused would stay.
fn is_frozen(fs: &MountedFs) -> bool {
    let frozen = !run(&["fsfreeze", "--freeze", fs.dir()]).status.success();
    if !frozen {
        run_ok(&["fsfreeze", "--unfreeze", fs.dir()]);
    }
    frozen
}

fn kill(target: &str) {
    run_ok(&["sh", "-c", &format!("kill -KILL {target}")]);
}

fn label(place: &Place, name: &str) -> String {
    place.row(name)["consistency"].as_str().unwrap().to_owned()
}

#[test]
fn whoever_dies_it_is_thawed() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    let long = ["--freeze-timeout", "600"];
    let thawed = || wait_until("it to be thawed", || !is_frozen(&fs));
    let halted = |step: &str, name: &str| Halted::new(&place, step, &[&[name], &long[..]].concat());

    // Before the snapshot is asked for: there is none.
    let one = halted("frozen", "vm@a");
    assert!(is_frozen(&fs));
    kill(&one.child.id().to_string());
    thawed();
    drop(one);
    let one = halted("frozen", "vm@a");
    assert!(is_frozen(&fs));
    kill(&format!("-{}", one.child.id()));
    thawed();
    drop(one);
    let one = halted("frozen", "vm@a");
    run_ok(&["kill", "-TERM", &one.child.id().to_string()]);
    assert!(is_frozen(&fs), "it ends in good order");
    one.go_on();
    let output = one.output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert!(!is_frozen(&fs), "thawed before it ended");
    assert_eq!(place.names(), ["vm"]);

    // After it was taken.
    let one = halted("taken", "vm@a");
    assert!(is_frozen(&fs));
    kill(&one.child.id().to_string());
    thawed();
    drop(one);
    assert_eq!(label(&place, "vm@a"), "frozen");

    // The guard dies, the other one thaws. It does not know when, and does not say what may be false.
    let one = halted("taken", "vm@b");
    assert!(is_frozen(&fs));
    assert_eq!(label(&place, "vm@b"), "frozen");
    kill(&one.guard.to_string());
    thawed();
    one.go_on();
    let output = one.output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("vm@b: taken, but not frozen: its guard has died"), "{text}");
    assert_eq!(label(&place, "vm@b"), "freeze_failed");

    // So does somebody else.
    let one = halted("frozen", "vm@c");
    run_ok(&["fsfreeze", "--unfreeze", fs.dir()]);
    one.go_on();
    let output = one.output();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && text.contains("somebody else"), "{output:?}");
    assert_eq!(label(&place, "vm@c"), "freeze_failed");
    place.ok(&["snapshot", "vm@d", "--freeze"]);
    assert_eq!(label(&place, "vm@d"), "frozen");
    fs.unmount();
    vm.detach();
    place.ok(&["check"]);
}

#[test]
fn a_freeze_has_a_time_limit() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");

    // The snapshot takes too long: others go on, and it is no frozen one.
    let one = Halted::new(&place, "frozen", &["vm@a", "--freeze-timeout", "1", "--json"]);
    write_synced(&fs.path("waits"), b"until the time is over");
    assert!(one.stop.exists());
    one.go_on();
    let output = one.output();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("vm@a: taken, but not frozen: it was thawed after 1 s"), "{text}");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["snapshots"][0]["consistency"], "freeze_failed");
    let row = place.row("vm@a");
    assert_eq!(
        (&row["consistency"], &row["id"]),
        (&said["snapshots"][0]["consistency"], &said["snapshots"][0]["id"])
    );
    assert!(row["freeze_ms"].is_null(), "{row}");

    // The freeze itself does. Nobody waits for it; when it comes at last it is undone.
    let one = Halted::new(&place, "freezing", &["vm@b", "--freeze-timeout", "1"]);
    let guard = one.guard;
    wait_until("the snapshot", || place.names().contains(&"vm@b".to_owned()));
    assert_eq!(label(&place, "vm@b"), "freeze_failed");
    one.go_on();
    wait_until("the guard to end", || !fs::exists(format!("/proc/{guard}")).unwrap());
    let output = one.output();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("it was not frozen within 1 s"), "{text}");
    assert!(!is_frozen(&fs));
    fs.unmount();
    vm.detach();
}

#[test]
fn what_cannot_be_frozen_is_refused() {
    if !have_loops() || !have(EXT4.programs) {
        return;
    }
    let place = place();
    place.ok(&["create", "db", "--size", "64M"]);
    let refused = |code, words: &[&str]| {
        let before = place.names();
        let text = place.fails(code, &[&["snapshot"], words].concat());
        assert_eq!(place.names(), before, "{words:?}");
        text
    };
    refused(2, &["vm@a", "--freeze-timeout", "3"]);
    refused(2, &["vm@a", "--freeze", "--freeze-timeout", "0"]);
    refused(3, &["nothing@a", "--freeze"]);
    assert!(refused(4, &["vm@a", "--freeze"]).contains("vm: not attached"));
    let vm = Attached::new(&place, "vm");
    let text = refused(4, &["vm@a", "--freeze"]);
    assert!(text.contains("vm: nothing is mounted of /dev/loop"), "{text}");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    assert!(refused(4, &["vm@a", "db@a", "--freeze"]).contains("db: not attached"));

    // Elsewhere: by its directory.
    let dir = place.text("other");
    fs::create_dir(&dir).unwrap();
    let freeze = format!("--freeze={dir}");
    assert!(refused(3, &["vm@a", &freeze]).contains("nothing is mounted there"));
    run_ok(&["mount", "-t", "tmpfs", "none", &dir]);
    let text = refused(4, &["vm@a", &format!("--freeze={}", fs.dir()), &freeze]);
    run_ok(&["umount", &dir]);
    assert!(text.contains(&dir) && text.contains("cannot be frozen"), "{text}");
    assert!(!is_frozen(&fs), "neither is the other");
    let below = run_ok(&["stat", "-c", "%m", place.pool().to_str().unwrap()]);
    let text =
        refused(4, &["vm@a", &format!("--freeze={}", below.trim()), "--freeze-timeout", "1"]);
    assert!(text.contains("itself lies"), "{text}");

    // What somebody else has frozen stays so.
    run_ok(&["fsfreeze", "--freeze", fs.dir()]);
    let text = refused(4, &["vm@a", "--freeze"]);
    assert!(text.contains("somebody else has frozen it"), "{text}");
    run_ok(&["fsfreeze", "--unfreeze", fs.dir()]);

    // Several, of which one is mounted twice.
    let db = Attached::new(&place, "db");
    run_ok(&["mkfs.ext4", "-q", &db.device]);
    let second = MountedFs::new(&place, &db.device, "fs2", "rw");
    run_ok(&["mount", "--bind", second.dir(), &dir]);
    place.ok(&["snapshot", "vm@a", "db@a", "--freeze"]);
    run_ok(&["umount", &dir]);
    let replay = |name: &str| {
        let snapshot = Attached::new(&place, name);
        run_ok(&["dumpe2fs", "-h", &snapshot.device]).contains("needs_recovery")
    };
    assert!(!replay("vm@a") && !replay("db@a"));
    // One alone, by its directory.
    place.ok(&["snapshot", "vm@b", "db@b", &format!("--freeze={}", second.dir())]);
    assert!(replay("vm@b") && !replay("db@b"));
    assert!(refused(4, &["vm@a", "--freeze"]).contains("exists"));
}
