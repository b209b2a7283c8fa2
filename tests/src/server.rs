//! `cowctl serve` as a child.

use crate::place::Place;
use crate::tools::{signal, wait_until};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};

/// A server, killed when dropped.
pub struct Server {
    child: Child,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Server {
    /// Starts `cowctl serve` with these further words and waits until it is ready.
    #[track_caller]
    pub fn start(place: &Place, words: &[&str]) -> Self {
        let words: Vec<&str> = ["serve"].into_iter().chain(words.iter().copied()).collect();
        let mut command = place.command(&words);
        Self::spawn(command.stdout(Stdio::piped()))
    }

    /// Starts a command that becomes a server.
    #[track_caller]
    pub fn spawn(command: &mut std::process::Command) -> Self {
        let mut child = command.spawn().expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let ready: Value = match serde_json::from_str(&line) {
            Ok(ready) => ready,
            Err(e) => panic!("{e}: {line:?}, and then {:?}", child.wait()),
        };
        assert_eq!(ready["schema"], "cowctl.serve/1");
        Self { child, ready }
    }

    /// The URI of an export, also of one that came later.
    pub fn uri(&self, name: &str) -> String {
        let base = self.ready["uri"].as_str().expect("a URI");
        base.replacen(":///", &format!(":///{name}"), 1)
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        let uri = self.ready["uri"].as_str().expect("a URI");
        uri.split_once("socket=").expect("a unix socket").1.into()
    }

    /// Its process.
    pub fn child(&self) -> &Child {
        &self.child
    }

    /// Ends it in good order.
    #[track_caller]
    pub fn stop(mut self) {
        signal(&self.child, "TERM");
        let status = self.exited();
        assert_eq!(status.code(), Some(0), "the server ends well");
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it ends");
    }

    /// Waits for its end.
    #[track_caller]
    pub fn exited(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of the server", || {
            status = self.child.try_wait().expect("it can be waited for");
            status.is_some()
        });
        status.expect("it has ended")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
