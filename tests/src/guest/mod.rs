//! Machines of our own: Debian's kernel in QEMU, with a root in memory that a test puts together, and a
//! shell at the serial console.

mod files;
mod initramfs;

pub use files::GuestFiles;
pub use initramfs::Initramfs;

use crate::tools::{command, wait_until};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Emulated, and on a machine that others use too.
const PATIENCE: Duration = Duration::from_secs(150);
/// What the shell of the guest says when a command is done, and its exit code.
const DONE: &str = "@done ";

/// A machine that runs; killed when dropped.
pub struct Guest {
    qemu: Child,
    console: ChildStdin,
    lines: Receiver<String>,
    /// All that it said.
    log: String,
}

impl Guest {
    /// Boots a machine with two processors, `memory_mib` of memory and these further words for QEMU, and
    /// waits for its shell.
    #[track_caller]
    pub fn boot(files: &GuestFiles, initramfs: &Path, memory_mib: u32, words: &[String]) -> Self {
        let memory = memory_mib.to_string();
        let mut qemu = command(&["qemu-system-x86_64", "-accel", "tcg", "-machine", "q35"]);
        qemu.args(["-cpu", "max", "-smp", "2", "-m", &memory, "-nodefaults", "-no-user-config"]);
        qemu.args(["-display", "none", "-serial", "stdio", "-no-reboot", "-kernel"]);
        qemu.arg(&files.kernel).arg("-initrd").arg(initramfs);
        qemu.args(["-append", "console=ttyS0 quiet panic=-1"]).args(words);
        qemu.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = qemu.spawn().expect("QEMU starts");
        let (send, lines) = channel();
        let pipes: [Option<Box<dyn Read + Send>>; 2] = [
            qemu.stdout.take().map(|pipe| Box::new(pipe) as _),
            qemu.stderr.take().map(|pipe| Box::new(pipe) as _),
        ];
        for pipe in pipes.into_iter().flatten() {
            let send = send.clone();
            thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                    let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).into();
                    if send.send(text).is_err() {
                        return;
                    }
                    line.clear();
                }
            });
        }
        let console = qemu.stdin.take().expect("a pipe");
        let mut guest = Self { qemu, console, lines, log: String::new() };
        assert_eq!(guest.until_done().0, 0, "its devices are there: {}", guest.log);
        guest
    }

    /// Runs a line of shell; its exit code, and what it said.
    #[track_caller]
    pub fn run(&mut self, line: &str) -> (i32, String) {
        assert!(line.len() < 4000 && !line.contains('\n'), "a line of a terminal: {line:?}");
        writeln!(self.console, "{line}").expect("it listens");
        self.until_done()
    }

    /// Runs a line of shell, which must succeed; what it said.
    #[track_caller]
    pub fn ok(&mut self, line: &str) -> String {
        let (code, said) = self.run(line);
        assert_eq!(code, 0, "{line}: {said}\nBefore that:\n{}", self.log);
        said
    }

    #[track_caller]
    fn until_done(&mut self) -> (i32, String) {
        let deadline = Instant::now() + PATIENCE;
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log += &format!("{line}\n");
                    if let Some(code) = line.strip_prefix(DONE) {
                        return (code.parse().expect("an exit code"), said.join("\n"));
                    }
                    said.push(line);
                }
                Err(RecvTimeoutError::Timeout) => panic!("the guest says no more:\n{}", self.log),
                Err(RecvTimeoutError::Disconnected) => panic!("the guest is gone:\n{}", self.log),
            }
        }
    }

    /// Switches it off in good order.
    #[track_caller]
    pub fn power_off(mut self) {
        writeln!(self.console, "poweroff -f").expect("it listens");
        let mut status = None;
        wait_until("the guest to switch itself off", || {
            status = self.qemu.try_wait().expect("it can be waited for");
            status.is_some()
        });
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", self.log);
    }

    /// Pulls its plug.
    pub fn kill(mut self) {
        self.qemu.kill().expect("it can be killed");
        self.qemu.wait().expect("it ends");
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}
