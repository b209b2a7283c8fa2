//! A directory with a pool in it, and `cowctl` at work there.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The program under test: from `COW_BIN_DIR`, else from where this test was built.
pub fn cowctl() -> PathBuf {
    let dir = std::env::var_os("COW_BIN_DIR").map(PathBuf::from).unwrap_or_else(|| {
        let exe = std::env::current_exe().expect("this test has a path");
        exe.parent().and_then(Path::parent).expect("target/debug/deps").to_owned()
    });
    let program = dir.join("cowctl");
    assert!(program.is_file(), "{}: build it first: cargo build -p cowctl", program.display());
    program
}

/// What became of a command.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; -1 after a signal.
    pub code: i32,
    /// What it wrote.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

/// A directory with a pool in it.
pub struct Place {
    dir: TempDir,
    pool: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

/// What a failed test has left attached would stay, and so would its server.
impl Drop for Place {
    fn drop(&mut self) {
        let entries = std::fs::read_dir(self.path("run/cow")).into_iter().flatten();
        let mut names = entries.filter_map(Result::ok).map(|entry| entry.file_name());
        if !names.any(|name| name.to_string_lossy().contains(".mnt.")) {
            return;
        }
        for line in self.run(&["attachments", "-H"]).stdout.lines() {
            let name = line.split('\t').next().unwrap_or_default();
            let _ = self.run(&["detach", name]);
        }
    }
}

impl Place {
    /// An empty one.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("cow-e2e-").tempdir().expect("a directory");
        let pool = dir.path().join("pool.cow");
        Self { dir, pool }
    }

    /// With a pool of 512 MiB.
    pub fn with_pool() -> Self {
        let place = Self::new();
        place.ok(&["pool", "create", "--size", "512M"]);
        place
    }

    /// The same directory, and another pool.
    pub fn set_pool(&mut self, pool: impl Into<PathBuf>) {
        self.pool = pool.into();
    }

    /// The pool's path.
    pub fn pool(&self) -> &Path {
        &self.pool
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path in the directory, as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// `cowctl` with these words, on this pool.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(cowctl());
        command
            .args(words)
            .env("COWCTL_POOL", &self.pool)
            .env("COW_RUNTIME_DIR", self.path("run"))
            .env("COWCTL_DEVICE_DIR", self.path("dev"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs `cowctl` to its end.
    pub fn run(&self, words: &[&str]) -> Outcome {
        let output = self.command(words).output().expect("cowctl starts");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `cowctl`, which must succeed; returns what it wrote.
    #[track_caller]
    pub fn ok(&self, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(outcome.code, 0, "cowctl {words:?}: {outcome:?}");
        outcome.stdout
    }

    /// Runs `cowctl`, which must end with `code` and say why; returns what it said.
    #[track_caller]
    pub fn fails(&self, code: i32, words: &[&str]) -> String {
        let outcome = self.run(words);
        assert_eq!(outcome.code, code, "cowctl {words:?}: {outcome:?}");
        assert!(!outcome.stderr.trim().is_empty(), "cowctl {words:?} says nothing");
        outcome.stderr
    }

    /// Runs `cowctl ... --json`, which must answer by the schema `cowctl.SCHEMA/1`.
    #[track_caller]
    pub fn json(&self, schema: &str, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let text = self.ok(&words);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(value["schema"], format!("cowctl.{schema}/1"), "{text}");
        value
    }

    /// A field of `pool info`.
    #[track_caller]
    pub fn info(&self, key: &str) -> u64 {
        let info = self.json("pool", &["pool", "info"]);
        info[key].as_u64().unwrap_or_else(|| panic!("{key}: {info}"))
    }

    /// One row of `list`.
    #[track_caller]
    pub fn row(&self, name: &str) -> Value {
        let list = self.json("list", &["list", name]);
        let rows = list["items"].as_array().expect("items");
        rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("{list}")).clone()
    }

    /// The names of `list`, in its order.
    #[track_caller]
    pub fn names(&self) -> Vec<String> {
        let text = self.ok(&["list", "-H", "-o", "name"]);
        text.lines().map(str::to_owned).collect()
    }

    /// The content of a volume or snapshot.
    #[track_caller]
    pub fn content(&self, name: &str) -> Vec<u8> {
        let output = self.command(&["export", name, "-"]).output().expect("cowctl starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }
}
