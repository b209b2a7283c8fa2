//! A PostgreSQL server of one's own.

use crate::place::Place;
use crate::tools::{children, run_ok, signal, wait_until};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian has the programs of each version in a directory of its own, off everybody's path.
const ROOT: &str = "/usr/lib/postgresql";
/// A server does not run as root; the package makes this user.
const USER: &str = "postgres";

/// Where the programs of the newest version are.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(ROOT).into_iter().flatten().filter_map(Result::ok);
    let of = |dir: PathBuf| {
        let version: u32 = dir.file_name()?.to_str()?.parse().ok()?;
        let bin = dir.join("bin");
        bin.join("postgres").is_file().then_some((version, bin))
    };
    versions.filter_map(|entry| of(entry.path())).max().map(|(_, bin)| bin)
}

/// Whether there is a server; as [`crate::have`].
#[must_use]
pub fn have_postgres() -> bool {
    if programs().is_some() {
        return true;
    }
    let text = "PostgreSQL is missing: the Debian package postgresql brings it";
    assert!(std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some(), "{text}");
    eprintln!("skipped: {text}");
    false
}

/// A server, killed when dropped. It listens on a socket in the directory of its place.
pub struct Postgres {
    bin: PathBuf,
    data: String,
    sockets: String,
    /// The process that all others of it come from: our own child, so that it is gone when it has
    /// been killed, and no other one can be taken for it.
    postmaster: Option<Child>,
}

impl Postgres {
    /// An empty database in a new directory.
    #[track_caller]
    pub fn create(place: &Place, data: &str) -> Self {
        let sockets = place.text("sockets");
        fs::create_dir(&sockets).expect("a directory");
        fs::create_dir(data).expect("a directory");
        run_ok(&["chown", USER, data, &sockets]);
        // Its user must come by.
        let open = fs::Permissions::from_mode(0o711);
        fs::set_permissions(place.path(""), open).expect("permissions");
        let server = Self {
            bin: programs().expect("PostgreSQL"),
            data: data.into(),
            sockets,
            postmaster: None,
        };
        let words = ["--data-checksums", "--auth=trust", "--locale=C", "--pgdata", data];
        server.run_ok("initdb", &words);
        server
    }

    /// A program of its, by its user.
    pub fn command(&self, program: &str, words: &[&str]) -> Command {
        let program = self.bin.join(program);
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups"]).arg(program).args(words);
        self.settle(&mut command);
        command
    }

    /// A shell by its user; `$BIN` is where the programs are.
    pub fn shell(&self, script: &str) -> Command {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", USER, "--regid", USER, "--clear-groups", "sh", "-c", script]);
        self.settle(&mut command);
        command.env("BIN", &self.bin);
        command
    }

    fn settle(&self, command: &mut Command) {
        command.env("PGHOST", &self.sockets).env("PGDATABASE", "postgres").env("LC_ALL", "C");
        command.stdin(Stdio::null()).current_dir("/");
    }

    /// Runs a program of its to the end; what it wrote.
    #[track_caller]
    pub fn run_ok(&self, program: &str, words: &[&str]) -> String {
        let output = self.command(program, words).output().expect("it starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{program} {words:?}: {}\n{out}{err}", output.status);
        out
    }

    /// Starts it, and waits until it takes connections: after a crash, when that is made up for.
    #[track_caller]
    pub fn start(&mut self) {
        let log = Path::new(&self.sockets).join("log");
        let file = fs::File::options().create(true).append(true).open(&log).expect("a log");
        let sockets = format!("unix_socket_directories={}", self.sockets);
        let mut command = self
            .command("postgres", &["-D", &self.data, "-c", "listen_addresses=", "-c", &sockets]);
        self.postmaster = Some(command.stderr(file).spawn().expect("it starts"));
        let mut is_ready = self.command("pg_isready", &["--quiet"]);
        wait_until("the server to be ready", || {
            let ended = self.postmaster.as_mut().and_then(|child| child.try_wait().expect("waits"));
            assert!(ended.is_none(), "{}", fs::read_to_string(&log).unwrap_or_default());
            is_ready.status().expect("it starts").success()
        });
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(&mut self) {
        let mut postmaster = self.postmaster.take().expect("it runs");
        signal(&postmaster, "INT");
        assert!(postmaster.wait().expect("it ends").success());
    }

    /// The answer to a query.
    #[track_caller]
    pub fn query(&self, sql: &str) -> String {
        let words = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", sql];
        self.run_ok("psql", &words).trim().to_owned()
    }

    /// Kills all of its processes.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut postmaster = self.postmaster.take().expect("it runs");
        let others = children(postmaster.id());
        postmaster.kill().expect("it runs");
        for pid in &others {
            // Some have noticed already.
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        postmaster.wait().expect("it ends");
        // Nobody may care for orphans that are dead; they have nothing open.
        let is_dead = |pid: &u32| !Path::new(&format!("/proc/{pid}/exe")).exists();
        wait_until("the server to be dead", || others.iter().all(is_dead));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.postmaster.is_some() {
            self.kill();
        }
    }
}
