//! The clients that people use.

use crate::client::{Rig, eventually, rig};
use crate::mem::{MemExports, MemVolume};
use cow_nbd::Server;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const MIB: usize = 1 << 20;
const SIZE: usize = 16 * MIB;

/// Whether `program` is there. Its absence fails the test unless that has been permitted.
fn have(program: &str, package: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !found && std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some_and(|value| value == "1") {
        eprintln!("skipped: {program} is missing (Debian package {package})");
        return false;
    }
    assert!(found, "{program} is missing: install the Debian package {package}");
    true
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}\n{text}\n{errors}");
    text
}

/// A volume with data, a hole and an odd piece, and a snapshot like it.
fn volumes() -> (Arc<MemVolume>, Arc<MemVolume>, Rig) {
    let volume = MemVolume::new(SIZE, false);
    let snapshot = MemVolume::new(SIZE, true);
    for target in [&volume, &snapshot] {
        let data: Vec<u8> = (0..3 * MIB).map(|index| (index / 7) as u8).collect();
        target.write(MIB, &data);
        target.write(9 * MIB + 100, b"odd");
    }
    let rig = rig(MemExports::new(&[("vol", &volume), ("vol@snap", &snapshot)]));
    (volume, snapshot, rig)
}

fn closed(volume: &MemVolume) {
    eventually("all exports closed", || volume.opens.load(Ordering::SeqCst) == 0);
}

#[test]
fn nbdinfo_sees_exports_and_maps() {
    if !have("nbdinfo", "libnbd-bin") {
        return;
    }
    let (volume, _, rig) = volumes();
    let info = run("nbdinfo", &[&rig.uri("vol")]);
    for line in [
        "protocol: newstyle-fixed without TLS, using structured packets",
        "export-size: 16777216",
        "base:allocation",
        "is_read_only: false",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
        "block_size_maximum: 33554432",
    ] {
        assert!(info.contains(line), "no {line:?} in\n{info}");
    }
    let snapshot = run("nbdinfo", &[&rig.uri("vol@snap")]);
    assert!(snapshot.contains("is_read_only: true"), "{snapshot}");
    assert!(snapshot.contains("can_multi_conn: true"), "{snapshot}");
    let list = run("nbdinfo", &["--list", &rig.uri("")]);
    assert!(list.contains("export=\"vol\":") && list.contains("export=\"vol@snap\":"), "{list}");
    let map = run("nbdinfo", &["--map", &rig.uri("vol@snap")]);
    let starts: Vec<(&str, &str)> = map
        .lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            (words.next().unwrap_or(""), words.nth(1).unwrap_or(""))
        })
        .collect();
    assert_eq!(
        starts,
        [("0", "3"), ("1048576", "0"), ("4194304", "3"), ("9437184", "0"), ("9441280", "3")]
    );
    closed(&volume);
}

#[test]
fn nbdcopy_uses_four_connections_both_ways() {
    if !have("nbdcopy", "libnbd-bin") {
        return;
    }
    let (volume, _, rig) = volumes();
    let target = MemVolume::new(SIZE, false);
    let other = crate::client::rig(MemExports::new(&[("copy", &target)]));
    let args = ["--connections=4", "--requests=32", "--flush"];
    run("nbdcopy", &[&args[..], &[&rig.uri("vol@snap"), &other.uri("copy")]].concat());
    assert!(target.bytes() == volume.bytes(), "copied");
    assert!(target.flushes.load(Ordering::SeqCst) > 0);
    let file = rig.dir.path().join("image");
    run("nbdcopy", &["--connections=4", &other.uri("copy"), &file.display().to_string()]);
    assert!(std::fs::read(&file).expect("image") == volume.bytes(), "copied to a file");
    closed(&target);
}

fn qemu_image(rig: &Rig, name: &str) -> String {
    format!("nbd+unix:///{name}?socket={}", rig.socket.display())
}

#[test]
fn qemu_img_reads_maps_and_converts() {
    if !have("qemu-img", "qemu-utils") {
        return;
    }
    let (volume, _, rig) = volumes();
    let source = qemu_image(&rig, "vol@snap");
    let info = run("qemu-img", &["info", "-f", "raw", &source]);
    assert!(info.contains("16 MiB (16777216 bytes)"), "{info}");
    let map = run("qemu-img", &["map", "--output=json", "-f", "raw", &source]);
    let data = map.matches("\"data\": true").count();
    assert_eq!(data, 2, "{map}");
    let file = rig.dir.path().join("image.qcow2").display().to_string();
    run("qemu-img", &["convert", "-f", "raw", "-O", "qcow2", &source, &file]);
    let target = MemVolume::new(SIZE, false);
    target.write(0, &[0xee; SIZE]);
    let other = crate::client::rig(MemExports::new(&[("copy", &target)]));
    let copy = qemu_image(&other, "copy");
    run("qemu-img", &["convert", "-n", "-W", "-f", "qcow2", "-O", "raw", &file, &copy]);
    assert!(target.bytes() == volume.bytes(), "converted");
    run("qemu-img", &["compare", "-f", "raw", "-F", "raw", &source, &copy]);
    closed(&target);
}

#[test]
fn qemu_io_writes_discards_and_zeroes() {
    if !have("qemu-io", "qemu-utils") {
        return;
    }
    let (volume, _, rig) = volumes();
    let commands = [
        "write -P 0x11 0 64k",
        "write -P 0x22 -f 5000 777",
        "discard 1M 64k",
        "write -z 2M 64k",
        "write -z -u 3M 64k",
        "flush",
        "read -P 0x11 0 5000",
        "read -P 0x22 5000 777",
        "read -P 0 2M 64k",
    ];
    let mut args = vec!["-f", "raw"];
    for command in commands {
        args.extend(["-c", command]);
    }
    let uri = qemu_image(&rig, "vol");
    args.push(&uri);
    let output = run("qemu-io", &args);
    assert!(!output.contains("failed"), "{output}");
    assert_eq!(volume.bytes()[5000..5777], [0x22; 777]);
    assert!(volume.forced.load(Ordering::SeqCst) > 0);
    assert!(volume.flushes.load(Ordering::SeqCst) > 0);
    let snapshot = Command::new("qemu-io")
        .args(["-f", "raw", "-c", "write 0 4k", &qemu_image(&rig, "vol@snap")])
        .output()
        .expect("run");
    assert!(!snapshot.status.success(), "wrote to a snapshot");
    closed(&volume);
}

fn fio(uri: &str, dir: &Path) {
    run(
        "fio",
        &[
            "--name=verify",
            "--ioengine=nbd",
            &format!("--uri={uri}"),
            "--rw=randwrite",
            "--bsrange=512-64k",
            "--bs_unaligned",
            "--size=16M",
            "--iodepth=64",
            "--verify=crc32c",
            "--do_verify=1",
            "--verify_fatal=1",
            &format!("--aux-path={}", dir.display()),
        ],
    );
}

#[test]
fn fio_verifies_what_it_wrote() {
    if !have("fio", "fio") {
        return;
    }
    let (volume, _, rig) = volumes();
    fio(&rig.uri("vol"), rig.dir.path());
    closed(&volume);
    let tcp = Server::builder()
        .tcp("127.0.0.1:0".parse().expect("address"))
        .start(MemExports::new(&[("vol", &volume)]))
        .expect("start");
    fio(&tcp.uris("vol")[0], rig.dir.path());
    closed(&volume);
}
