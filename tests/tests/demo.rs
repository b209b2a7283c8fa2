//! The demo, as root and as somebody else.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, cowctl, have, is_root};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

fn check(mut demo: Command) {
    let start = Instant::now();
    let output = demo.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{text}{errors}");
    assert!(start.elapsed() < Duration::from_secs(60));
    for word in ["broken", "clean", "same hash", "undo", "vm@clean", "snapshot vm@clean", "delete"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn the_demo_does_what_it_says() {
    if !have(&["mkfs.ext4", "e2fsck"]) {
        return;
    }
    let place = Place::new();
    check(place.command(&["demo", "--dir", &place.text("")]));
    assert_eq!(
        fs::read_dir(place.path("")).unwrap().count(),
        1,
        "only the runtime directory is left"
    );
}

#[test]
fn the_demo_needs_no_privilege() {
    if !is_root() || !have(&["mkfs.ext4", "e2fsck", "setpriv"]) {
        return;
    }
    // Where nobody may read, not even the program: a copy in a directory for all.
    let place = Place::new();
    let open = |path: &std::path::Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&place.path(""), 0o777);
    fs::copy(cowctl(), place.path("cowctl")).unwrap();
    open(&place.path("cowctl"), 0o755);
    let mut demo = Command::new("setpriv");
    demo.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(place.path("cowctl"));
    demo.args(["demo", "--dir", &place.text("")]).current_dir("/");
    demo.env("COW_RUNTIME_DIR", place.path("run-nobody")).env_remove("XDG_RUNTIME_DIR");
    check(demo);
}

#[test]
fn a_missing_tool_is_named_with_its_package() {
    let place = Place::new();
    let outcome = place.run(&["demo", "--dir", "no-such-directory"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("no-such-directory") || outcome.stderr.contains("e2fsprogs"));
}
