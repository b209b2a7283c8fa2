//! `cowctl doctor`: what it sees, and both halves around a power cut that the shim makes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::shim::{Flushes, Rng, Shim};
use cow_tests::{Outcome, Place, have_fuse, is_root, run_ok};
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Stdio};

/// `doctor --before-power-cut` at work.
struct Before {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
    run: String,
}

impl Before {
    fn start(place: &Place, shim: &Shim) -> Self {
        let dir = shim.dir().to_str().unwrap();
        let mut command = place.command(&["doctor", dir, "--before-power-cut"]);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cowctl starts");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().expect("the run").unwrap();
        let run = first.strip_prefix("run ").expect("the run").to_owned();
        Self { child, lines, run }
    }

    /// Takes numbers until there are no more, or `until`; the last.
    fn last(&mut self, until: u64) -> u64 {
        let mut last = 0;
        for line in self.lines.by_ref() {
            let number: u64 = line.unwrap().parse().unwrap();
            assert_eq!(number, last + 1, "each is shown, in order");
            last = number;
            if last == until {
                break;
            }
        }
        last
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `doctor --after-power-cut`.
fn after(place: &Place, shim: &Shim, last: u64, run: &str) -> Outcome {
    let dir = shim.dir().to_str().unwrap();
    place.run(&["doctor", dir, "--after-power-cut", &last.to_string(), "--run", run])
}

fn seeds() -> std::ops::Range<u64> {
    let first = std::env::var("COW_SHIM_SEED").ok().map(|text| text.parse().expect("a seed"));
    let first = first.unwrap_or(1);
    println!("COW_SHIM_SEED={first}");
    first..first + 12
}

/// The power goes at a random operation, with whatever was under way.
#[test]
fn an_honest_disk_passes() {
    if !have_fuse() {
        return;
    }
    for seed in seeds() {
        let place = Place::new();
        let mut rng = Rng::new(seed);
        let mut shim = Shim::mount(&place.path("disk"), &place.path("mnt"), rng.number());
        let mut before = Before::start(&place, &shim);
        // Some cuts come after the places have gone round.
        shim.cut_after(1 + rng.below(if seed % 4 == 0 { 40_000 } else { 600 }));
        let last = before.last(u64::MAX);
        let run = before.run.clone();
        assert_eq!(before.child.wait().unwrap().code(), Some(1), "it meets the cut");
        drop(before);
        println!("seed {seed}: {:?} after record {last}", shim.has_cut().unwrap());
        shim.boot(rng.number());
        if last > 0 {
            let outcome = after(&place, &shim, last, &run);
            assert_eq!(outcome.code, 0, "seed {seed}, {last}: {outcome:?}");
            assert!(outcome.stdout.contains("has lost nothing"), "{outcome:?}");
        }
        // What was never acknowledged is not believed.
        let outcome = after(&place, &shim, last + 2, &run);
        assert_eq!(outcome.code, 5, "seed {seed}, {last}: {outcome:?}");
        assert!(outcome.stderr.contains("is missing"), "{outcome:?}");
    }
}

/// A disk that begins to lie, and one that has always lied.
#[test]
fn a_lying_disk_is_caught() {
    if !have_fuse() {
        return;
    }
    for seed in seeds() {
        let place = Place::new();
        let mut rng = Rng::new(seed);
        let mut shim = Shim::mount(&place.path("disk"), &place.path("mnt"), rng.number());
        let always = seed % 3 == 0;
        if always {
            shim.set_flushes(Flushes::Lie);
        }
        let mut before = Before::start(&place, &shim);
        let honest = if always { 0 } else { before.last(20) };
        shim.set_flushes(Flushes::Lie);
        let mut last = honest;
        for line in before.lines.by_ref().take(200) {
            last = line.unwrap().parse().unwrap();
        }
        shim.cut();
        let run = before.run.clone();
        drop(before);
        shim.boot(rng.number());
        let outcome = after(&place, &shim, last, &run);
        println!("seed {seed}: {}", outcome.stderr);
        assert_eq!(outcome.code, 5, "seed {seed}, {last}: {outcome:?}");
        assert!(
            outcome.stderr.contains("acknowledges flushes of data that it has not made durable")
        );
        if !always {
            // What it had flushed while it was honest is there.
            let text = outcome.stderr.split_once(": record ").expect("a record").1;
            let missing: u64 = text.split_once(' ').unwrap().0.parse().unwrap();
            assert!(honest < missing && missing <= last, "seed {seed}: {honest} {missing} {last}");
        }
    }
}

#[test]
fn it_says_what_it_sees() {
    let place = Place::with_pool();
    let seen = place.json("doctor", &["doctor"]);
    assert_eq!(seen["dir"], std::fs::canonicalize(place.path("")).unwrap().to_str().unwrap());
    assert!(seen["flush_is_honest"].is_null(), "{seen}");
    for key in ["direct_io", "io_uring", "fallocate", "hole_punching", "fuse", "loop_devices"] {
        assert!(seen[key].is_boolean(), "{key}: {seen}");
    }
    for key in ["flush_median_us", "flush_longest_us", "free_bytes", "size_bytes"] {
        assert!(seen[key].is_u64(), "{key}: {seen}");
    }
    // It says the same as a pool that is there.
    let info = place.json("pool", &["pool", "info"]);
    assert_eq!(seen["io_uring"], info["driver"] == "io_uring", "{seen} {info}");
    let text = place.ok(&["doctor", "."]);
    assert!(text.contains("cannot be seen from here"), "{text}");
    let left = std::fs::read_dir(place.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("doctor")).collect();
    assert!(left.is_empty(), "nothing is left: {left:?}");
}

#[test]
fn bad_input_is_refused() {
    let place = Place::new();
    let dir = place.text("");
    assert!(place.fails(3, &["doctor", "nowhere"]).contains("nowhere: no such directory"));
    assert!(place.fails(3, &["doctor", "nowhere", "--before-power-cut"]).contains("nowhere"));
    assert!(place.fails(3, &["doctor", &dir, "--after-power-cut", "7"]).contains("no records"));
    place.fails(2, &["doctor", &dir, "--after-power-cut", "0"]);
    place.fails(2, &["doctor", &dir, "--after-power-cut", "7", "--before-power-cut"]);
    place.fails(2, &["doctor", "--before-power-cut"]);
    std::fs::write(place.path("file"), "x").unwrap();
    assert!(place.fails(2, &["doctor", "file"]).contains("not a directory"));

    let text = place.ok(&["doctor", &dir, "--before-power-cut", "--count", "9"]);
    assert!(text.ends_with("\n8\n9\n"), "{text}");
    let run = text.lines().next().unwrap().strip_prefix("run ").unwrap();
    place.ok(&["doctor", &dir, "--after-power-cut", "9", "--run", run]);
    let json = place.json("doctor-after", &["doctor", &dir, "--after-power-cut", "9"]);
    assert_eq!((&json["lost"], &json["highest_found"]), (&false.into(), &9.into()), "{json}");
    assert_eq!((&json["run"], &json["restarted"]), (&run.into(), &false.into()), "{json}");
    let other = "00000000000000ff";
    let text = place.fails(4, &["doctor", &dir, "--after-power-cut", "9", "--run", other]);
    assert!(text.contains(run) && text.contains(other), "{text}");
    place.fails(2, &["doctor", &dir, "--after-power-cut", "9", "--run", "ff"]);
    assert!(place.fails(5, &["doctor", &dir, "--after-power-cut", "10"]).contains("record 10"));

    // A second run is another run, and its records are none of the first.
    let text = place.ok(&["doctor", &dir, "--before-power-cut", "--count", "3", "--json"]);
    assert!(text.ends_with("{\"number\":3}\n"), "{text}");
    assert!(
        place.fails(4, &["doctor", &dir, "--after-power-cut", "3", "--run", run]).contains(run)
    );
    let text = place.fails(5, &["doctor", &dir, "--after-power-cut", "9"]);
    assert!(text.contains("record 4 is missing"), "{text}");

    // A header that is damaged is not believed.
    let file = place.path("cowctl-doctor.records");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[9] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(place.fails(5, &["doctor", &dir, "--after-power-cut", "3"]).contains("header"));
}

#[test]
fn a_full_and_a_read_only_disk_are_named() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let small = place.text("small");
    std::fs::create_dir(&small).unwrap();
    run_ok(&["mount", "-t", "tmpfs", "-o", "size=8M", "tmpfs", &small]);
    let no_space = place.run(&["doctor", &small, "--before-power-cut"]);
    let seen = place.run(&["doctor", &small, "--json"]);
    run_ok(&["mount", "-o", "remount,ro", &small]);
    let read_only = place.run(&["doctor", &small, "--before-power-cut"]);
    let look = place.run(&["doctor", &small]);
    run_ok(&["umount", &small]);
    assert_eq!(no_space.code, 6, "{no_space:?}");
    assert!(no_space.stderr.contains("small"), "{no_space:?}");
    assert!(seen.stdout.contains("\"file_system\": \"tmpfs\""), "{seen:?}");
    for outcome in [read_only, look] {
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("Read-only"), "{outcome:?}");
    }
}
