//! What is printed to be pasted elsewhere. QEMU itself is started with it in `guest.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, cowctl, have, run, run_ok};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

/// All that some format gives a meaning to.
const ODD: &str = r#"it's "a,b" & <c> %n $x \y"#;

/// A pool with a volume and a snapshot, at an odd path.
fn odd() -> (Place, PathBuf) {
    let mut place = Place::new();
    let dir = place.path(ODD);
    fs::create_dir(&dir).unwrap();
    place.set_pool(dir.join("pool.cow"));
    place.ok(&["pool", "create", "--size", "128M"]);
    place.ok(&["create", "vm", "--size", "16M"]);
    place.ok(&["snapshot", "vm@a"]);
    (place, dir)
}

#[test]
fn nothing_is_attached_and_what_is_not_there_is_named() {
    let (place, _) = odd();
    for format in ["qemu", "libvirt", "systemd"] {
        let text = place.fails(3, &["attach", "--print", format, "nothing"]);
        assert!(text.contains("no such volume: nothing"), "{text}");
        place.ok(&["attach", "--print", format, "vm"]);
        assert!(place.ok(&["attachments", "-H"]).is_empty());
        place.ok(&["check"]);
    }
    place.fails(2, &["attach", "--print", "xen", "vm"]);
    let outcome = place.run(&["attach", "--print", "qemu", "vm"]);
    assert!(outcome.stderr.contains("cowctl serve"), "nobody serves it: {outcome:?}");
    let server = Server::start(&place, &[]);
    assert_eq!(place.run(&["attach", "--print", "qemu", "vm"]).stderr, "");
    server.stop();
}

/// The JSON of `-blockdev`, by way of a shell; and the device.
fn qemu(place: &Place, name: &str) -> (Value, String) {
    let text = place.ok(&["attach", "--print", "qemu", name]);
    let words = run_ok(&["sh", "-c", &format!("printf '%s\n' {text}")]);
    let words: Vec<&str> = words.lines().collect();
    assert_eq!((words.len(), words[0], words[2]), (4, "-blockdev", "-device"), "{words:?}");
    (serde_json::from_str(words[1]).unwrap(), words[3].to_owned())
}

#[test]
fn arguments_for_qemu_survive_a_shell() {
    let (place, dir) = odd();
    let socket = dir.join("pool.cow.nbd.sock");
    let check = || {
        let (blockdev, device) = qemu(&place, "vm");
        assert_eq!(blockdev["server"], json!({"type": "unix", "path": socket}));
        assert_eq!((&blockdev["export"], &blockdev["discard"]), (&json!("vm"), &json!("unmap")));
        assert!(device.contains("drive=cow-vm,"), "{device}");
        let (blockdev, _) = qemu(&place, "vm@a");
        assert_eq!((&blockdev["export"], &blockdev["read-only"]), (&json!("vm@a"), &json!(true)));
    };
    check();
    let server = Server::start(&place, &[]);
    check();
    server.stop();
    let server = Server::start(&place, &["--nbd", "tcp:127.0.0.1:0"]);
    let (blockdev, _) = qemu(&place, "vm");
    let uri = server.ready["uri"].as_str().unwrap();
    let port = uri.trim_end_matches('/').rsplit_once(':').unwrap().1;
    assert_eq!(blockdev["server"], json!({"type": "inet", "host": "127.0.0.1", "port": port}));
    server.stop();
}

#[test]
fn the_disk_for_libvirt_is_xml() {
    if !have(&["python3"]) {
        return;
    }
    let (place, dir) = odd();
    let script = "import sys, json, xml.etree.ElementTree as xml\n\
                  print(json.dumps({e.tag: e.attrib for e in xml.fromstring(sys.argv[1]).iter()}))";
    let of = |name: &str| -> Value {
        let text = place.ok(&["attach", "--print", "libvirt", name]);
        serde_json::from_str(&run_ok(&["python3", "-c", script, &text])).unwrap()
    };
    let disk = of("vm");
    assert_eq!(disk["disk"]["type"], "network");
    assert_eq!(disk["source"], json!({"protocol": "nbd", "name": "vm"}));
    let socket = dir.join("pool.cow.nbd.sock");
    assert_eq!(disk["host"], json!({"transport": "unix", "socket": socket}));
    assert_eq!((&disk["driver"]["discard"], &disk["readonly"]), (&json!("unmap"), &Value::Null));
    let disk = of("vm@a");
    assert_eq!((&disk["source"]["name"], &disk["readonly"]), (&json!("vm@a"), &json!({})));
}

/// What systemd says to a unit.
#[track_caller]
fn verify(place: &Place, name: &str) {
    let output = run(&["systemd-analyze", "verify", "--man=no", &place.text(name)]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // Units of the machine itself may be at fault.
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("cow")).collect();
    assert!(output.status.success() && ours.is_empty(), "{name}: {said}");
}

#[test]
fn units_are_as_systemd_wants_them() {
    if !have(&["systemd-analyze"]) {
        return;
    }
    let (place, dir) = odd();
    // The program is at an odd path too; systemd looks whether it is there, and takes no quotes in it.
    let plain = place.path("a b & <c> %n $x");
    fs::create_dir(&plain).unwrap();
    let mut names = Vec::new();
    for (name, dir) in [("vm", &plain), ("vm@a", &dir)] {
        let program = dir.join("cowctl");
        fs::copy(cowctl(), &program).unwrap();
        let mut command = std::process::Command::new(&program);
        command.args(["attach", "--print", "systemd", name]).env("COWCTL_POOL", place.pool());
        let output = command.env("COW_RUNTIME_DIR", place.path("run")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut parts = text.split("# /etc/systemd/system/");
        assert_eq!(parts.next(), Some(""));
        for part in parts {
            let (name, unit) = part.split_once('\n').unwrap();
            fs::write(place.path(name), unit).unwrap();
            // On its command line a colon has a meaning.
            let plain = name.replace(':', ".");
            fs::write(place.path(&plain), unit).unwrap();
            verify(&place, &plain);
            names.push(name.to_owned());
        }
    }
    assert_eq!(names.iter().filter(|name| *name == "cow-pool.service").count(), 2, "{names:?}");
    let server = fs::read_to_string(place.path("cow-pool.service")).unwrap();
    assert!(server.contains("Type=notify") && server.contains(" serve\n"), "{server}");
    let volume = fs::read_to_string(place.path("cow-pool-vm:a.service")).unwrap();
    assert!(volume.contains("BindsTo=cow-pool.service\nAfter=cow-pool.service\n"), "{volume}");
    assert!(volume.contains(" attach vm@a\n") && volume.contains(" detach vm@a\n"), "{volume}");
}
