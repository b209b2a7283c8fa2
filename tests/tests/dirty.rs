//! What has changed since a snapshot, as backup programs ask for it over NBD, against the bytes of
//! two exported images.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::{Place, Server, have, pattern, run_ok};
use serde_json::Value;

const BLOCK: usize = 4096;
const BLOCKS: usize = (64 << 20) / BLOCK;

/// Which blocks differ.
fn byte_diff(place: &Place, a: &str, b: &str) -> Vec<bool> {
    let (a, b) = (place.content(a), place.content(b));
    assert_eq!(a.len(), b.len());
    a.chunks(BLOCK).zip(b.chunks(BLOCK)).map(|(a, b)| a != b).collect()
}

/// Blocks of a map of extents for which `dirty` says so; the extents must cover everything.
fn blocks(map: &str, keys: (&str, &str), dirty: impl Fn(&Value) -> bool) -> Vec<bool> {
    let map: Value = serde_json::from_str(map).unwrap();
    let (mut found, mut end) = (vec![false; BLOCKS], 0);
    for extent in map.as_array().unwrap() {
        let of = |key: &str| extent[key].as_u64().unwrap() as usize;
        let (offset, length) = (of(keys.0), of(keys.1));
        assert_eq!((offset, offset % BLOCK, length % BLOCK), (end, 0, 0));
        end = offset + length;
        found[offset / BLOCK..end / BLOCK].fill(dirty(extent));
    }
    assert_eq!(end, BLOCKS * BLOCK);
    found
}

fn libnbd_says(server: &Server, export: &str, snapshot: &str) -> Vec<bool> {
    let context = format!("--map=qemu:dirty-bitmap:{snapshot}");
    let map = run_ok(&["nbdinfo", &context, "--json", &server.uri(export)]);
    blocks(&map, ("offset", "length"), |extent| extent["type"] == 1)
}

fn qemu_says(server: &Server, export: &str, snapshot: &str) -> Vec<bool> {
    let options = format!(
        "driver=nbd,server.type=unix,server.path={},export={export},\
         x-dirty-bitmap=qemu:dirty-bitmap:{snapshot}",
        server.socket().display()
    );
    let map = run_ok(&["qemu-img", "map", "--output=json", "--image-opts", &options]);
    // QEMU shows the bit of the bitmap as that of a hole.
    blocks(&map, ("start", "length"), |extent| extent["data"] == false)
}

fn cowctl_says(place: &Place, words: &[&str]) -> Vec<bool> {
    let words: Vec<&str> = ["diff"].iter().chain(words).copied().collect();
    let mut found = vec![false; BLOCKS];
    let rows = place.ok(&words);
    for row in rows.lines() {
        let (offset, length) = row.split_once(' ').unwrap();
        let (offset, length): (usize, usize) = (offset.parse().unwrap(), length.parse().unwrap());
        found[offset / BLOCK..(offset + length) / BLOCK].fill(true);
    }
    let json = place.json("diff", &words);
    assert_eq!(json["extents"].as_array().unwrap().len(), rows.lines().count());
    found
}

/// Random blocks, whose bytes are never equal, and discards.
struct Writer {
    state: u64,
}

impl Writer {
    fn next(&mut self, below: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % below
    }

    fn run(&mut self, server: &Server, place: &Place, ops: u64) {
        let file = place.path("data");
        let mut script = vec!["qemu-io".to_owned(), "-f".into(), "raw".into()];
        std::fs::write(&file, pattern(self.next(u64::MAX), 64 * BLOCK)).unwrap();
        for _ in 0..ops {
            let count = 1 + self.next(32);
            let at = self.next(BLOCKS as u64 - count) * BLOCK as u64;
            let len = count * BLOCK as u64;
            script.push("-c".into());
            script.push(match self.next(4) {
                0 => format!("discard {at} {len}"),
                _ => format!("write -s {} {at} {len}", file.display()),
            });
        }
        script.push(server.uri("vm"));
        run_ok(&script.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn agree(place: &Place, server: &Server, export: &str, snapshots: &[&str]) {
    for snapshot in snapshots {
        let base = format!("vm@{snapshot}");
        let want = byte_diff(place, &base, export);
        let what = format!("{base} {export}");
        assert_eq!(libnbd_says(server, export, snapshot), want, "nbdinfo, {what}");
        assert_eq!(qemu_says(server, export, snapshot), want, "qemu-img, {what}");
        assert_eq!(cowctl_says(place, &[&base, export]), want, "cowctl, {what}");
        assert_eq!(cowctl_says(place, &[&base, export, "--exact"]), want, "exact, {what}");
        assert_eq!(cowctl_says(place, &[export, &base]), want, "the other way round, {what}");
    }
}

#[test]
fn dirty_bitmaps_are_what_differs() {
    if !have(&["nbdinfo", "qemu-img", "qemu-io"]) {
        return;
    }
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "64M"]);
    let server = Server::start(&place, &[]);
    let mut writer = Writer { state: 88_172_645_463_325_252 };
    writer.run(&server, &place, 40);
    place.ok(&["snapshot", "vm@a"]);
    agree(&place, &server, "vm", &["a"]);
    writer.run(&server, &place, 40);
    agree(&place, &server, "vm", &["a"]);
    place.ok(&["snapshot", "vm@b"]);
    writer.run(&server, &place, 40);
    agree(&place, &server, "vm", &["a", "b"]);
    agree(&place, &server, "vm@b", &["a"]);
    place.ok(&["rollback", "vm@a"]);
    agree(&place, &server, "vm", &["a", "b", "undo.1"]);
    writer.run(&server, &place, 10);
    agree(&place, &server, "vm", &["a", "b", "undo.1"]);

    let list = run_ok(&["nbdinfo", "--json", &server.uri("vm")]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let contexts = list["exports"][0]["contexts"].to_string();
    for context in ["base:allocation", "qemu:dirty-bitmap:a", "qemu:dirty-bitmap:undo.1"] {
        assert!(contexts.contains(&format!("{context}\"")), "{contexts}");
    }
    assert!(!contexts.contains("vm@"), "{contexts}");

    place.fails(3, &["diff", "vm@nothing", "vm"]);
    place.fails(3, &["diff", "vm@a", "vm@nothing", "--json"]);
    place.fails(2, &["diff", "vm@a", "@"]);
    place.ok(&["create", "other", "--size", "64M"]);
    place.fails(2, &["diff", "vm@a", "other"]);
    // The volume itself is what a snapshot is compared with if nothing else is said.
    assert_eq!(cowctl_says(&place, &["vm@a"]), cowctl_says(&place, &["vm@a", "vm"]));
    server.stop();
    assert_eq!(place.json("check", &["check"])["clean"], true);
    assert_eq!(cowctl_says(&place, &["vm@a", "@b"]), byte_diff(&place, "vm@a", "vm@b"));
}

/// One comparison reads so many nodes and no more; whoever wants it all goes on where it ended.
#[test]
fn a_comparison_of_many_nodes_goes_on_to_the_end() {
    if !have(&["nbdinfo", "qemu-io"]) {
        return;
    }
    const STRIDE: u64 = 2 << 20;
    const COUNT: u64 = 1500;
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", &format!("{}", STRIDE * COUNT)]);
    place.ok(&["snapshot", "vm@a"]);
    let server = Server::start(&place, &[]);
    let at = |n: u64| n * STRIDE + (n * 7 % 512) * BLOCK as u64;
    let writes = (0..COUNT).flat_map(|n| ["-c".into(), format!("write -P 7 {} {BLOCK}", at(n))]);
    let head = ["qemu-io".to_owned(), "-f".into(), "raw".into()];
    let script: Vec<_> = head.into_iter().chain(writes).chain([server.uri("vm")]).collect();
    run_ok(&script.iter().map(String::as_str).collect::<Vec<_>>());
    // Folds what was written.
    place.ok(&["pool", "trim"]);

    let map = run_ok(&["nbdinfo", "--map=qemu:dirty-bitmap:a", "--json", &server.uri("vm")]);
    let map: Value = serde_json::from_str(&map).unwrap();
    let of = |extent: &Value, key: &str| extent[key].as_u64().unwrap();
    let dirty = map.as_array().unwrap().iter().filter(|extent| extent["type"] == 1);
    let found: Vec<_> = dirty.map(|extent| (of(extent, "offset"), of(extent, "length"))).collect();
    let want: Vec<_> = (0..COUNT).map(|n| (at(n), BLOCK as u64)).collect();
    assert!(found == want, "nbdinfo: {} extents", found.len());
    let rows: String = want.iter().map(|(at, len)| format!("{at} {len}\n")).collect();
    assert!(place.ok(&["diff", "vm@a"]) == rows, "cowctl");
    server.stop();
}

/// The commands of the README, as printed.
#[test]
fn the_backup_of_the_readme_works() {
    if !have(&["qemu-io", "dd", "cmp"]) {
        return;
    }
    let readme = include_str!("../../README.md");
    let (_, text) = readme.split_once("<!-- incremental -->").unwrap();
    let script = text.split("```sh").nth(1).unwrap().split("```").next().unwrap();
    let place = Place::with_pool();
    place.ok(&["create", "vm", "--size", "64M"]);
    let server = Server::start(&place, &[]);
    let mut writer = Writer { state: 362_436_069 };
    writer.run(&server, &place, 20);
    let (first, second) = script.split_once("# ... the machine works ...").unwrap();
    let mut said = String::new();
    for part in [first, second] {
        let mut path = cow_tests::cowctl().parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", part]).current_dir(place.path("")).env("PATH", path);
        command.env("COWCTL_POOL", place.pool()).env("COW_RUNTIME_DIR", place.path("run"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said = String::from_utf8(output.stdout).unwrap();
        writer.run(&server, &place, 20);
    }
    assert!(said.ends_with("equal\n"), "{said}");
    server.stop();
}
