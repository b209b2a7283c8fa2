//! Requests that do not move data, for `fuser`: it speaks to a socket as it would to the device.
//!
//! ```text
//!   device ─► (channel) ─► cow-fuse-in ─► socket ─► fuser ─► names
//!   device ◄───────────── cow-fuse-out ◄─ socket ◄──┘
//! ```
//!
//! Two threads stand between, as neither the reactor nor `fuser` may have to wait for the other.

use crate::fs::PoolFs;
use crate::{sys, wire};
use fuser::{Config, Session, SessionACL};
use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

/// The largest answer that `fuser` gives here; a directory is asked for in pieces.
const ANSWER_MAX_BYTES: usize = 256 << 10;

/// The threads that serve what does not move data.
pub(crate) struct Bridge {
    threads: Vec<JoinHandle<()>>,
}

impl Bridge {
    /// Starts them. They end, and let go of `files`, when the sender is dropped.
    pub(crate) fn start(files: PoolFs, device: File) -> io::Result<(Self, Sender<Vec<u8>>)> {
        let (mut ours, theirs) = sys::message_pair()?;
        let mut config = Config::default();
        config.n_threads = Some(1);
        config.acl = SessionACL::Owner;
        ours.write_all(&wire::hello())?;
        let session = Session::from_fd(files, theirs, SessionACL::Owner, config)?;
        // What it can is settled with the kernel already.
        let _ = ours.read(&mut [0; 256])?;
        let (others, waiting) = channel();
        let incoming = ours.try_clone()?;
        let mut bridge = Self { threads: Vec::new() };
        bridge.spawn("cow-fuse-in", move || forward(&waiting, incoming))?;
        bridge.spawn("cow-fuse-out", move || answer(ours, &device))?;
        bridge.spawn("cow-fuse-names", move || {
            if let Err(error) = session.run() {
                tracing::error!(%error, "the mount answers nothing but data any more");
            }
        })?;
        Ok((bridge, others))
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).spawn(run)?);
        Ok(())
    }

    /// Waits until all have ended.
    pub(crate) fn join(self) {
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

fn forward(waiting: &Receiver<Vec<u8>>, mut socket: File) {
    for message in waiting {
        if let Err(error) = socket.write_all(&message) {
            return tracing::error!(%error, "a request of the mount is lost");
        }
    }
    let _ = socket.write_all(&wire::goodbye());
}

fn answer(mut socket: File, mut device: &File) {
    let mut buf = vec![0; ANSWER_MAX_BYTES];
    // Nothing at all is the end.
    while let Ok(len) = socket.read(&mut buf)
        && len > 0
    {
        if let Err(error) = device.write_all(&buf[..len]) {
            // Whoever asked has been killed, or the mount is gone.
            tracing::debug!(%error, "the kernel does not take an answer");
        }
    }
}
