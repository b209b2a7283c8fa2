//! Databases on an attached volume: a snapshot under load, a rollback, and all is there that had
//! been committed before the snapshot.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use cow_tests::postgres::{Postgres, have_postgres};
use cow_tests::{Attached, MountedFs, Place, have, have_loops, run, run_ok, wait_until};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Long enough for checkpoints and some thousand commits.
const UNDER_LOAD: Duration = Duration::from_millis(1500);

fn place() -> Place {
    let place = Place::new();
    place.ok(&["pool", "create", "--size", "2G"]);
    place.ok(&["create", "vm", "--size", "1G"]);
    place
}

/// A client that commits 1, 2, 3 and so on, one after the other.
struct Committer {
    child: Child,
    /// The last that was begun, and the last that was acknowledged.
    numbers: Arc<[AtomicU64; 2]>,
    thread: JoinHandle<()>,
}

impl Committer {
    /// A program that commits the number of each line that it reads, and then writes that number.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut orders = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let numbers = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let shared = numbers.clone();
        let thread = std::thread::spawn(move || {
            let mut answers = answers.lines();
            for number in 1.. {
                shared[0].store(number, Ordering::SeqCst);
                let is_written = writeln!(orders, "{number}").is_ok();
                let Some(Ok(answer)) = answers.next().filter(|_| is_written) else { return };
                assert_eq!(answer, number.to_string());
                shared[1].store(number, Ordering::SeqCst);
            }
        });
        let started = Self { child, numbers, thread };
        wait_until("the first commits", || started.acknowledged() > 20);
        started
    }

    fn begun(&self) -> u64 {
        self.numbers[0].load(Ordering::SeqCst)
    }

    fn acknowledged(&self) -> u64 {
        self.numbers[1].load(Ordering::SeqCst)
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.thread.join().unwrap();
    }
}

/// Takes a snapshot under load; how many commits it must have, and may have.
fn snapshot(place: &Place, client: &Committer) -> (u64, u64) {
    std::thread::sleep(UNDER_LOAD);
    let before = client.acknowledged();
    place.ok(&["snapshot", "vm@live"]);
    let bounds = (before, client.begun());
    std::thread::sleep(UNDER_LOAD / 3);
    assert!(client.acknowledged() > bounds.1, "it goes on");
    bounds
}

/// Everybody who used it is dead: takes the volume back, and mounts it again.
fn roll_back<'a>(place: &'a Place, fs: MountedFs, vm: Attached<'a>) -> (MountedFs, Attached<'a>) {
    wait_until("it to be unmounted", || run(&["umount", fs.dir()]).status.success());
    drop(fs);
    assert!(place.fails(4, &["rollback", "vm@live"]).contains("vm"), "it is attached");
    vm.detach();
    place.ok(&["rollback", "vm@live"]);
    let vm = Attached::new(place, "vm");
    (MountedFs::new(place, &vm.device, "fs", "rw"), vm)
}

fn in_order(place: &Place, fs: MountedFs, vm: Attached<'_>) {
    fs.unmount();
    run_ok(&["e2fsck", "-fn", &vm.device]);
    vm.detach();
    place.ok(&["check"]);
}

#[track_caller]
fn within(count: u64, (least, most): (u64, u64)) {
    assert!((least..=most).contains(&count), "{count} commits of {least} to {most}");
}

#[test]
fn a_postgresql_comes_back_with_all_that_was_committed() {
    if !have_loops() || !have(&["mkfs.ext4", "e2fsck", "setpriv"]) || !have_postgres() {
        return;
    }
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    let mut server = Postgres::create(&place, &fs.path("data"));
    server.start();
    server.run_ok("pgbench", &["--initialize", "--quiet", "--scale=2"]);
    server.query("create table numbers (n bigint primary key)");
    let load = ["--client=4", "--time=600", "--no-vacuum"];
    let mut load = server.command("pgbench", &load);
    let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // The shell is there for the quotes: psql reads one statement a line.
    let mut client = server.shell(
        "while read -r n; do echo \"insert into numbers values ($n) returning n;\"; done | \
         \"$BIN\"/psql --no-psqlrc --quiet --tuples-only --no-align",
    );
    // It complains when the server is killed.
    let client = Committer::start(client.stderr(Stdio::null()));
    let bounds = snapshot(&place, &client);
    server.kill();
    client.kill();
    let _ = load.wait();

    let (fs, vm) = roll_back(&place, fs, vm);
    // If this fails: the server ends before what it uses.
    let mut server = server;
    server.start();
    let count = server.query("select count(*) from numbers").parse().unwrap();
    assert_eq!(
        server.query("select max(n) from numbers"),
        u64::to_string(&count),
        "none is left out"
    );
    within(count, bounds);
    // Each of the other transactions is there, or is not.
    let sums = server.query(
        "select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches), \
         (select sum(tbalance) from pgbench_tellers), (select sum(delta) from pgbench_history)",
    );
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(
        sums.len() == 4 && sums.iter().all(|sum| *sum == sums[0] && !sum.is_empty()),
        "{sums:?}"
    );
    assert_ne!(server.query("select count(*) from pgbench_history"), "0");
    server.stop();
    server.run_ok("pg_checksums", &["--check", "--pgdata", &fs.path("data")]);
    in_order(&place, fs, vm);
}

/// Commits what it reads: a row, and a sum over all rows.
const SQLITE_CLIENT: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], isolation_level=None)
assert db.execute('pragma journal_mode = wal').fetchone() == ('wal',)
db.execute('pragma synchronous = full')
db.execute('pragma wal_autocheckpoint = 200')
db.execute('create table numbers (n integer primary key, filler blob)')
db.execute('create table total (sum integer)')
db.execute('insert into total values (0)')
for line in iter(sys.stdin.readline, ''):
    n = int(line)
    db.execute('begin immediate')
    db.execute('insert into numbers values (?, randomblob(?))', (n, n * 37 % 5000))
    db.execute('update total set sum = sum + ?', (n,))
    db.execute('delete from numbers where n = ? and n % 7 = 0', (n - 300,))
    db.execute('commit')
    print(n, flush=True)
";

const SQLITE_CHECK: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
assert db.execute('pragma integrity_check').fetchall() == [('ok',)]
last = db.execute('select max(n) from numbers').fetchone()[0]
assert db.execute('select sum from total').fetchone() == (last * (last + 1) // 2,)
kept = [n for n in range(1, last + 1) if n % 7 or n + 300 > last]
assert [n for (n,) in db.execute('select n from numbers order by n')] == kept
print(last)
";

#[test]
fn an_sqlite_comes_back_with_all_that_was_committed() {
    if !have_loops() || !have(&["mkfs.ext4", "e2fsck", "python3"]) {
        return;
    }
    let place = place();
    let vm = Attached::new(&place, "vm");
    run_ok(&["mkfs.ext4", "-q", &vm.device]);
    let fs = MountedFs::new(&place, &vm.device, "fs", "rw");
    let file = fs.path("db.sqlite");
    let client = Committer::start(Command::new("python3").args(["-c", SQLITE_CLIENT, &file]));
    let bounds = snapshot(&place, &client);
    client.kill();

    let (fs, vm) = roll_back(&place, fs, vm);
    assert!(std::fs::metadata(fs.path("db.sqlite-wal")).unwrap().len() > 0, "there is a log");
    let last = run_ok(&["python3", "-c", SQLITE_CHECK, &file]);
    within(last.trim().parse().unwrap(), bounds);
    in_order(&place, fs, vm);
}
