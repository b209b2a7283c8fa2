//! Instructions of the engine in a snapshot, counted by valgrind's callgrind: the test runs itself
//! below it. What they do is the same every time, so no clock and no other load has a part in it.

use crate::pool::{COUNTS, ask, export, large_pool, snapshot, take, write};
use cow_engine::{Action, Config, Engine, Event, Op};
use cow_sim::world::Machine;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Snapshots that are counted together.
const TAKEN: u64 = 16;
/// The test that is run below callgrind.
const COUNTED: &str = "instructions::counted";
/// Most instructions at any number of snapshots, of 100 at one.
const MOST_PERCENT: u64 = 110;

/// Whether what the engine does now counts.
static COUNTS_NOW: AtomicBool = AtomicBool::new(false);

/// The engine, whose work is told from that of the simulated world.
struct Counted(Engine);

impl Machine for Counted {
    fn start(config: Config) -> Self {
        Self(Engine::new(config))
    }

    fn step(&mut self, event: Event, actions: &mut Vec<Action>) {
        if COUNTS_NOW.load(Ordering::Relaxed) {
            counted_step(&mut self.0, event, actions);
        } else {
            self.0.step(event, actions);
        }
    }

    fn wants_tick(&self) -> bool {
        self.0.wants_tick()
    }
}

/// What callgrind counts.
#[inline(never)]
fn counted_step(engine: &mut Engine, event: Event, actions: &mut Vec<Action>) {
    engine.step(event, actions);
    black_box(engine);
}

/// Where callgrind writes down what it has counted, and begins anew.
#[inline(never)]
fn stage_ends(count: u64) {
    black_box(count);
}

#[test]
#[ignore = "run below callgrind by the other test"]
fn counted() {
    let mut pool = large_pool::<Counted>();
    let export = export(&mut pool);
    let mut taken = 0;
    for count in COUNTS {
        take(&mut pool, export, taken, count);
        for index in count..count + TAKEN {
            // No fold is due meanwhile.
            ask(&mut pool, Op::Checkpoint);
            write(&mut pool, export, index);
            pool.run_until_idle().unwrap();
            COUNTS_NOW.store(true, Ordering::Relaxed);
            snapshot(&mut pool, index);
            COUNTS_NOW.store(false, Ordering::Relaxed);
        }
        taken = count + TAKEN;
        stage_ends(count);
    }
}

/// Instructions of one snapshot, in a file that callgrind has written.
fn instructions(out: &Path) -> u64 {
    let text = fs::read_to_string(out).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("summary: "));
    line.unwrap().trim().parse::<u64>().unwrap() / TAKEN
}

/// Whether valgrind is there. Its absence fails the test unless that has been permitted.
fn have_valgrind() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    if version.is_ok() {
        return true;
    }
    let text = "valgrind is missing: the Debian package valgrind brings it";
    assert!(std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some(), "{text}");
    eprintln!("skipped: {text}");
    false
}

#[test]
fn a_snapshot_takes_the_same_instructions_among_ten_thousand() {
    if !have_valgrind() {
        return;
    }
    let dir = std::env::temp_dir().join(format!("cow-instructions-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let out = dir.join("out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=*counted_step*"])
        .args(["--dump-before=*stage_ends*", "--combine-dumps=no"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", COUNTED, "--ignored", "--test-threads=1"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stage = |at: usize| instructions(&dir.join(format!("out.{}", at + 1)));
    let found: Vec<u64> = (0..COUNTS.len()).map(stage).collect();
    fs::remove_dir_all(&dir).unwrap();
    for (count, found) in COUNTS.iter().zip(&found) {
        println!("{count} snapshots: {found} instructions for one more");
    }
    let most = found[0] * MOST_PERCENT / 100;
    assert!(found[0] > 10_000, "{found:?}: nothing was counted");
    assert!(found.iter().all(|found| *found <= most), "{found:?}: more than {most}");
}
