//! What the README says of volumes on this machine: its very lines, run, and what they print.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, cowctl, have, have_loops, run};
use std::process::{Command, Stdio};

/// The blocks of the tour: what is typed, and what that prints.
fn blocks() -> Vec<(String, String)> {
    let readme = include_str!("../../README.md");
    let (_, tour) = readme.split_once("<!-- attach-tour -->").expect("the tour");
    let (tour, _) = tour.split_once("\n## ").expect("its end");
    let mut blocks: Vec<(String, String)> = Vec::new();
    let mut rest = tour;
    while let Some((_, after)) = rest.split_once("\n```") {
        let (kind, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```").unwrap();
        match (kind, blocks.last_mut()) {
            ("sh", _) => blocks.push((text.into(), String::new())),
            ("", Some(last)) => last.1 = text.into(),
            _ => panic!("{kind}: {text}"),
        }
        rest = after;
    }
    blocks
}

#[test]
fn the_tour_prints_what_it_says() {
    if !have_loops() || !have(&["bash", "mkfs.ext4"]) {
        return;
    }
    let blocks = blocks();
    assert_eq!(blocks.len(), 5);
    let place = Place::with_pool();
    let mut path = cowctl().parent().unwrap().as_os_str().to_owned();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap());
    path.push(":/usr/sbin:/sbin");
    // One shell, as a person has it.
    let script: String = blocks.iter().map(|(typed, _)| format!("{typed}echo ---\n")).collect();
    let mut bash = Command::new("bash");
    bash.args(["-euc", &script]).current_dir(place.path("")).env("PATH", path);
    bash.env("COWCTL_POOL", place.pool()).env("COW_RUNTIME_DIR", place.path("run"));
    bash.env("COWCTL_DEVICE_DIR", place.path("dev")).stdin(Stdio::null());
    let output = bash.output().unwrap();
    for dir in ["site", "yesterday"] {
        // Nothing is there after a good end.
        let _ = run(&["umount", &place.text(dir)]);
    }
    assert!(output.status.success(), "{output:?}");
    let printed: String = blocks.iter().map(|(_, printed)| format!("{printed}---\n")).collect();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), printed);
    place.ok(&["check"]);
}
