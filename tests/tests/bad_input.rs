//! What people do by mistake, and what disks do: a clear word, the right exit code, and nothing
//! lost that was in the pool.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{
    Outcome, Place, Server, file_hash, have, is_root, pattern, run, run_ok, signal, sparse_image,
    wait_until,
};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::process::{Child, Stdio};

const MIB: u64 = 1 << 20;

/// A pool with a volume in it, and its content.
fn filled() -> (Place, Vec<u8>) {
    let place = Place::with_pool();
    let content = sparse_image(&place.path("disk.raw"), 3, 8 << 20);
    place.ok(&["import", "disk.raw", "vm"]);
    place.ok(&["snapshot", "vm@a"]);
    (place, content)
}

#[test]
fn files_that_are_no_pool() {
    let mut place = Place::new();
    for (name, content) in
        [("text", b"hello".repeat(100)), ("noise", pattern(9, 1 << 20)), ("empty", Vec::new())]
    {
        fs::write(place.path(name), content).unwrap();
        place.set_pool(place.path(name));
        for words in [&["list"][..], &["snapshot", "vm@a"], &["serve"], &["check"], &["dump"]] {
            let text = place.fails(1, words);
            assert!(text.contains(name), "{text}");
        }
    }
    place.set_pool(place.path(""));
    place.fails(1, &["list"]);
    place.set_pool(place.path("missing"));
    for words in [&["list"][..], &["create", "vm", "--size", "1G"], &["serve"], &["check"]] {
        assert!(place.fails(3, words).contains("missing"));
    }
    place.set_pool("");
    place.fails(2, &["list"]);
}

#[test]
fn pools_that_were_cut_or_overwritten() {
    let (mut place, content) = filled();
    let whole = place.pool().to_owned();
    let damaged = place.path("damaged.cow");
    let mut with_copy = |change: &dyn Fn(&File)| {
        run_ok(&["cp", "--sparse=always", whole.to_str().unwrap(), damaged.to_str().unwrap()]);
        change(&File::options().write(true).open(&damaged).unwrap());
        place.set_pool(&damaged);
        let (list, check) = (place.run(&["list"]), place.run(&["check"]));
        place.set_pool(&whole);
        (list, check)
    };
    let refused = |outcome: &Outcome, codes: &[i32]| {
        assert!(codes.contains(&outcome.code), "{outcome:?}");
        assert!(outcome.stderr.contains("damaged.cow"), "{outcome:?}");
    };
    let (list, check) = with_copy(&|file| file.set_len(100 * MIB).unwrap());
    refused(&list, &[1, 5]);
    refused(&check, &[5]);
    // All superblocks gone: it is no pool any more.
    let (list, check) = with_copy(&|file| file.write_all_at(&vec![0; 80 << 20], 0).unwrap());
    refused(&list, &[1]);
    refused(&check, &[1]);
    // The magic of every copy is wrong.
    let (list, _) = with_copy(&|file| {
        for block in [0, 1024, 8192, 16384] {
            file.write_all_at(b"FOREIGN!", block * 4096).unwrap();
        }
    });
    refused(&list, &[1]);
    // Everything after the superblock is noise.
    let (list, check) = with_copy(&|file| {
        file.write_all_at(&pattern(5, 3 << 20), 4096).unwrap();
        file.write_all_at(&pattern(6, 8 << 20), 5 << 20).unwrap();
    });
    assert_ne!(list.code, 0);
    refused(&check, &[5]);
    assert!(place.content("vm") == content, "the original is as it was");
}

#[test]
fn a_flipped_byte_of_data_is_found_and_never_returned() {
    let (place, content) = filled();
    // Where the image's first data block lies in the pool.
    let pool = fs::read(place.pool()).unwrap();
    let needle = &content[..4096];
    let at = pool.chunks(4096).position(|block| block == needle).unwrap() as u64 * 4096;
    drop(pool);
    let file = File::options().write(true).open(place.pool()).unwrap();
    file.write_all_at(&[content[77] ^ 1], at + 77).unwrap();
    drop(file);
    let outcome = place.run(&["check", "--json"]);
    assert_eq!(outcome.code, 5, "{outcome:?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&report["clean"], &report["corruptions"]), (&false.into(), &1.into()));
    assert_eq!(report["findings"][0]["structure"], "data block");
    assert!(outcome.stderr.contains("data block"), "{}", outcome.stderr);
    place.ok(&["check", "--metadata-only"]);
    place.fails(5, &["export", "vm", "out.raw"]);
    assert!(!place.path("out.raw").exists(), "no half an image");
}

#[test]
fn a_pool_is_opened_once_and_a_copy_beside_it() {
    let (mut place, content) = filled();
    let server = Server::start(&place, &[]);
    assert!(place.fails(4, &["serve"]).contains("in use"));
    place.fails(4, &["pool", "create", "--size", "256M"]);
    place.fails(4, &["pool", "create", "--size", "256M", "--force"]);
    server.stop();
    let (original, copy) = (place.pool().to_owned(), place.path("copy.cow"));
    fs::copy(&original, &copy).unwrap();
    let server = Server::start(&place, &[]);
    place.set_pool(&copy);
    let other = Server::start(&place, &[]);
    assert_ne!(server.socket(), other.socket());
    place.ok(&["snapshot", "vm@only-here"]);
    assert!(place.content("vm") == content);
    place.set_pool(&original);
    assert!(!place.names().contains(&"vm@only-here".into()));
    other.stop();
    server.stop();
}

#[test]
fn sizes_and_names_that_cannot_be() {
    let (mut place, _) = filled();
    let long = "n".repeat(300);
    let at_most = "n".repeat(128);
    for size in ["0", "9223372036854775808", "18446744073709551616", "-1", "1.5G", "big", ""] {
        place.fails(2, &["create", "x", "--size", size]);
        place.fails(2, &["resize", "vm", "--force", "--size", size]);
    }
    for name in ["a/b", "../a", "", ".a", "a b", "a\n", "\u{e4}", &long] {
        place.fails(2, &["create", "--size", "1M", "--", name]);
        place.fails(2, &["import", "--", "disk.raw", name]);
        place.fails(2, &["snapshot", "--", &format!("vm@{name}")]);
        place.fails(2, &["rename", "--", "vm", name]);
        place.fails(2, &["clone", "--", "vm@a", name]);
        place.fails(2, &["delete", "--", name]);
    }
    place.ok(&["create", &at_most, "--size", "1"]);
    place.ok(&["snapshot", &format!("{at_most}@{at_most}")]);
    place.fails(2, &["frobnicate"]);
    place.set_pool(place.path("other.cow"));
    for size in ["0", "1", "1M", "9223372036854775808"] {
        place.fails(2, &["pool", "create", "--size", size]);
        assert!(!place.pool().exists(), "nothing is left of a pool of {size}");
    }
    place.fails(2, &["pool", "create"]);
    fs::write(place.pool(), "precious").unwrap();
    place.fails(4, &["pool", "create", "--size", "128M"]);
    assert_eq!(fs::read(place.pool()).unwrap(), b"precious");
    place.ok(&["pool", "create", "--size", "128M", "--force"]);
}

#[test]
fn images_that_are_not_raw() {
    if !have(&["qemu-img"]) {
        return;
    }
    let (place, _) = filled();
    for format in ["qcow2", "vmdk", "vdi", "vhdx", "vpc"] {
        let file = format!("disk.{format}");
        run_ok(&["qemu-img", "create", "-q", "-f", format, &place.text(&file), "4M"]);
        let text = place.fails(1, &["import", &file, "x"]);
        assert!(text.contains(&format!("qemu-img convert -O raw {file}")), "{text}");
    }
    place.ok(&["import", "--raw", "disk.qcow2", "x"]);
    assert!(place.content("x") == fs::read(place.path("disk.qcow2")).unwrap());
}

#[test]
fn lengths_are_kept_to_the_byte() {
    let place = Place::with_pool();
    for len in [1, 511, 4095, 4097, 1_000_003] {
        let (name, file) = (format!("v{len}"), format!("{len}.raw"));
        fs::write(place.path(&file), pattern(len as u64, len)).unwrap();
        place.ok(&["import", &file, &name]);
        place.ok(&["export", &name, "out.raw", "--force"]);
        assert_eq!(file_hash(&place.path("out.raw")), file_hash(&place.path(&file)), "{len}");
        assert_eq!(place.row(&name)["size_bytes"], len);
    }
    fs::write(place.path("empty.raw"), "").unwrap();
    place.fails(2, &["import", "empty.raw", "none"]);
    assert!(!place.names().contains(&"none".into()));
    let mut pipe = place.command(&["import", "-", "piped"]).stdin(Stdio::piped()).spawn().unwrap();
    pipe.stdin.take().unwrap().write_all(&pattern(1, 3_000_001)).unwrap();
    assert!(pipe.wait().unwrap().success());
    assert!(place.content("piped") == pattern(1, 3_000_001));
}

#[test]
fn imports_and_exports_that_do_not_fit() {
    let (place, content) = filled();
    place.ok(&["create", "small", "--size", "1M"]);
    place.fails(2, &["import", "disk.raw", "small", "--into"]);
    place.fails(2, &["import", "disk.raw", "new", "--size", "1M"]);
    place.fails(1, &["import", "missing.raw", "new"]);
    place.fails(2, &["import", ".", "new"]);
    assert!(place.content("small").iter().all(|&byte| byte == 0));
    assert!(!place.names().contains(&"new".into()));
    place.ok(&["import", "disk.raw", "larger", "--size", "9M"]);
    assert_eq!(place.row("larger")["size_bytes"], 9 * MIB);
    // More than the pool has room for: what was begun is gone again.
    fs::write(place.path("huge.raw"), pattern(4, 600 << 20)).unwrap();
    place.fails(6, &["import", "huge.raw", "huge"]);
    fs::remove_file(place.path("huge.raw")).unwrap();
    assert!(!place.names().contains(&"huge".into()));
    place.ok(&["snapshot", "vm@full"]);
    place.fails(4, &["export", "vm", "disk.raw"]);
    place.fails(3, &["export", "nobody", "x.raw"]);
    assert!(!place.path("x.raw").exists());
    assert!(place.content("vm") == content);
}

/// An import that waits for more of its image.
fn half_an_import(place: &Place) -> Child {
    let mut command = place.command(&["import", "-", "half"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.as_mut().unwrap().write_all(&pattern(8, 20 << 20)).unwrap();
    child
}

#[test]
fn an_interrupted_import_leaves_no_volume() {
    let (place, content) = filled();
    let used = place.info("data_bytes");
    for name in ["KILL", "INT"] {
        let mut child = half_an_import(&place);
        signal(&child, name);
        drop(child.stdin.take());
        assert!(!child.wait().unwrap().success(), "{name}");
        assert!(!place.names().contains(&"half".into()), "{name}");
        place.fails(3, &["delete", "half"]);
    }
    let server = Server::start(&place, &[]);
    // Whoever is started in the background may ignore INT, and here nothing catches it.
    for name in ["KILL", "TERM"] {
        let mut child = half_an_import(&place);
        wait_until("the import to begin", || place.names().contains(&"half".into()));
        assert_eq!(place.row("half")["state"], "importing");
        signal(&child, name);
        drop(child.stdin.take());
        child.wait().unwrap();
        wait_until(&format!("the server to give up after {name}"), || {
            !place.names().contains(&"half".into())
        });
    }
    let mut child = half_an_import(&place);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success(), "a stream that ends by itself is whole");
    assert!(place.content("half") == pattern(8, 20 << 20));
    place.ok(&["delete", "half", "--wait"]);
    assert_eq!(place.info("data_bytes"), used, "and no space");
    assert!(place.content("vm") == content);
    server.stop();
}

#[test]
fn a_read_only_image_can_be_read() {
    if !is_root() || !have(&["mount"]) {
        return;
    }
    let (mut place, content) = filled();
    let original = place.pool().to_owned();
    let mount = place.path("ro");
    fs::create_dir(&mount).unwrap();
    let (from, to) = (place.text(""), mount.to_str().unwrap().to_owned());
    if !run(&["mount", "--bind", &from, &to]).status.success() {
        eprintln!("skipped: this container may not mount");
        return;
    }
    run_ok(&["mount", "-o", "remount,ro,bind", &to]);
    place.set_pool(mount.join("pool.cow"));
    let result = std::panic::catch_unwind(|| {
        assert!(place.names().contains(&"vm@a".into()));
        assert!(place.content("vm") == content);
        place.ok(&["check"]);
        let text = place.fails(1, &["snapshot", "vm@b"]);
        assert!(text.to_lowercase().contains("read-only"), "{text}");
        place.fails(1, &["create", "x", "--size", "1M"]);
    });
    run_ok(&["umount", &to]);
    place.set_pool(original);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
    place.ok(&["snapshot", "vm@b"]);
}

#[test]
fn a_full_file_system_below_poisons_nothing() {
    if !is_root() || !have(&["mkfs.ext4", "mount"]) {
        return;
    }
    let mut place = Place::new();
    let (image, mount) = (place.text("below.img"), place.text("below"));
    File::create(&image).unwrap().set_len(200 * MIB).unwrap();
    run_ok(&["mkfs.ext4", "-q", "-F", "-m", "0", &image]);
    fs::create_dir(&mount).unwrap();
    if !run(&["mount", "-o", "loop", &image, &mount]).status.success() {
        eprintln!("skipped: this container may not mount");
        return;
    }
    place.set_pool(format!("{mount}/pool.cow"));
    let result = std::panic::catch_unwind(|| fill_up(&place, &mount));
    run_ok(&["umount", &mount]);
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

fn fill_up(place: &Place, mount: &str) {
    place.ok(&["pool", "create", "--size", "1G"]);
    fs::write(place.path("a.raw"), pattern(1, 20 << 20)).unwrap();
    fs::write(place.path("b.raw"), pattern(2, 60 << 20)).unwrap();
    place.ok(&["import", "a.raw", "keep"]);
    place.ok(&["import", "a.raw", "gone"]);
    let server = Server::start(place, &[]);
    let ballast = format!("{mount}/ballast");
    // All that is left, but for a little.
    run(&["dd", "if=/dev/zero", &format!("of={ballast}"), "bs=1M", "status=none"]);
    File::options().write(true).open(&ballast).unwrap().set_len(30 * MIB).unwrap();
    run(&["dd", "if=/dev/zero", &format!("of={ballast}2"), "bs=64K", "status=none"]);
    let text = place.fails(6, &["import", "b.raw", "too-much"]);
    assert!(text.contains("file system below"), "{text}");
    assert!(!place.names().contains(&"too-much".into()));
    assert_eq!(place.json("pool", &["pool", "info"])["poisoned"], serde_json::Value::Null);
    assert!(place.content("keep") == pattern(1, 20 << 20));
    place.ok(&["delete", "gone", "--wait"]);
    fs::remove_file(&ballast).unwrap();
    fs::remove_file(format!("{ballast}2")).unwrap();
    place.ok(&["import", "b.raw", "now-it-fits"]);
    assert!(place.content("now-it-fits") == pattern(2, 60 << 20));
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
}
