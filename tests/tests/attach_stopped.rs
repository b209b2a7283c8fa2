//! A server that answers nothing, as it is stopped: commands say so and end, and when it goes on, so
//! does everything. In a program of its own, as its devices answer nobody who looks at all of them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Attached, Mounted, MountedFs, Place, cowctl, have, have_fuse, have_loops, pattern, run, run_ok,
    wait_until, write_synced,
};
use serde_json::Value;
use std::fs;
use std::process::{Child, Command, Stdio};

/// The server of a place, stopped until this is dropped.
struct Stopped(u64);

impl Stopped {
    fn new(place: &Place) -> Self {
        let entries = fs::read_dir(place.path("run/cow")).unwrap().map(|e| e.unwrap().path());
        let mut holders = entries.filter(|path| path.extension().is_some_and(|e| e == "json"));
        let text = fs::read(holders.next().expect("a holder")).unwrap();
        let pid = serde_json::from_slice::<Value>(&text).unwrap()["pid"].as_u64().unwrap();
        run_ok(&["kill", "-STOP", &pid.to_string()]);
        wait_until("it has stopped", || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.starts_with(" T")
        });
        Self(pid)
    }

    /// These words of `cowctl` end with an error that says what there is to do.
    #[track_caller]
    fn refuses(&self, place: &Place, words: &[&str]) {
        let program = cowctl();
        let limited =
            [&["timeout", "-s", "KILL", "100", program.to_str().unwrap()], words].concat();
        let (pool, runtime) = (place.pool().display(), place.text("run"));
        let (pool, runtime) = (format!("COWCTL_POOL={pool}"), format!("COW_RUNTIME_DIR={runtime}"));
        let output = run(&[&["env", &pool, &runtime], &limited[..]].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(4), "{words:?}: {output:?}");
        for part in ["is stopped", &format!("kill -CONT {}", self.0), place.text("pool").as_str()] {
            assert!(text.contains(part), "{words:?} does not say {part}: {text}");
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        run(&["kill", "-CONT", &self.0.to_string()]);
    }
}

/// A reader of what a stopped server serves, who waits for it.
struct Reader(Child);

impl Reader {
    fn new(file: &str) -> Self {
        let mut dd = Command::new("dd");
        dd.arg(format!("if={file}")).args(["of=/dev/null", "bs=4096", "count=1", "iflag=direct"]);
        Self(dd.stderr(Stdio::null()).spawn().unwrap())
    }

    /// It has waited until now, and goes on when the server does.
    #[track_caller]
    fn goes_on(mut self, stopped: Stopped) {
        assert_eq!(self.0.try_wait().unwrap(), None, "it could read");
        drop(stopped);
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn who_detaches_from_a_stopped_server_is_told() {
    if !have_loops() || !have(&["mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = Place::with_pool();
    for name in ["vm", "idle"] {
        place.ok(&["create", name, "--size", "64M"]);
    }
    let (vm, idle) = (Attached::new(&place, "vm"), Attached::new(&place, "idle"));
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    write_synced(&fs.path("kept"), &pattern(1, 1 << 20));
    let stopped = Stopped::new(&place);
    let reader = Reader::new(&vm.device);
    for words in [
        &["detach", "vm"][..],
        &["detach", "idle"],
        &["attach", "other"],
        &["attachments"],
        &["snapshot", "vm@a", "--freeze"],
    ] {
        stopped.refuses(&place, words);
    }
    reader.goes_on(stopped);
    // Nothing of that has left a trace.
    idle.detach();
    write_synced(&fs.path("after"), &pattern(2, 1 << 20));
    assert!(fs::read(fs.path("kept")).unwrap() == pattern(1, 1 << 20));
    fs.unmount();
    run_ok(&["e2fsck", "-fn", &vm.device]);
    vm.detach();
    place.ok(&["check"]);
}

#[test]
fn who_unmounts_from_a_stopped_server_is_told() {
    if !have_fuse() {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "64M"]);
    let mounted = Mounted::new(&place);
    let dir = mounted.dir().to_owned();
    let stopped = Stopped::new(&place);
    let reader = Reader::new(&mounted.file("vm"));
    stopped.refuses(&place, &["umount", &dir]);
    stopped.refuses(&place, &["mount", "--background", &place.text("dir")]);
    stopped.refuses(&place, &["list"]);
    reader.goes_on(stopped);
    mounted.unmount();
    place.ok(&["check"]);
}
