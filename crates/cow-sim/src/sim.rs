//! Clients, a machine and the judge together.
//!
//! [`Sim`] hands commands to the machine, keeps the exports open that they need, tells the
//! oracle of everything submitted and answered, and stops at the first thing that cannot be.

mod compare;
mod convert;
mod observe;
mod recover;
mod roots;
mod rot;
mod scrubs;
mod shares;

pub use observe::{observe, observe_roots};
pub use recover::{Recovered, examine, interrupted, recover};
pub use roots::root_of;
pub use rot::examine_rot;

use crate::cmd::Cmd;
use crate::disk::{Crash, SimDisk};
use crate::model::Refusal;
use crate::oracle::Oracle;
use crate::world::{Machine, World};
use convert::{bytes_of, op_of};
use cow_engine::{Config, Error, ExportId, Op, OpId, Reply};
use std::collections::BTreeMap;

/// Why a run does not go on.
#[derive(Debug)]
pub enum Stop {
    /// The fuse has burnt down: the machine dies here.
    Crashed,
    /// Something that cannot be.
    Bug(String),
}

impl From<String> for Stop {
    fn from(text: String) -> Self {
        Self::Bug(text)
    }
}

/// Looks at the disk between two steps.
pub type Probe = Box<dyn FnMut(&SimDisk, &Oracle) -> Result<(), String>>;

/// Errors that are no fault, as the run provokes them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tolerance {
    /// I/O errors, a poisoned pool.
    pub io: bool,
    /// A full pool.
    pub no_space: bool,
    /// What is not what was written, and is said to be so.
    pub corrupt: bool,
}

struct InProgress {
    cmd: Cmd,
    expected: Option<Refusal>,
    /// Others in flight decide how it ends.
    unsure: bool,
}

/// See the module.
pub struct Sim<M> {
    /// The machine and its disk.
    pub world: World<M>,
    /// The judge.
    pub oracle: Oracle,
    exports: BTreeMap<String, ExportId>,
    /// Exports that a rollback fenced; their clients close them before they ask for more.
    fenced: Vec<ExportId>,
    pending: BTreeMap<OpId, InProgress>,
    /// Blocks that scrubs have read.
    pub scrubbed: u64,
    answers: BTreeMap<OpId, Result<Reply, Error>>,
    probe: Option<Probe>,
    fuse: Option<u64>,
    tolerance: Tolerance,
    refused: u64,
    trace: Vec<Cmd>,
}

impl<M: Machine> Sim<M> {
    /// A machine that begins on `disk`; next comes [`Self::open`].
    #[must_use]
    pub fn new(disk: SimDisk, oracle: Oracle, config: &Config, seed: u64) -> Self {
        Self::resume(World::new(disk, config, seed), oracle)
    }

    /// Clients of a machine that is open, and whose state the oracle knows.
    #[must_use]
    pub fn resume(world: World<M>, oracle: Oracle) -> Self {
        Self {
            world,
            oracle,
            exports: BTreeMap::new(),
            fenced: Vec::new(),
            pending: BTreeMap::new(),
            scrubbed: 0,
            answers: BTreeMap::new(),
            probe: None,
            fuse: None,
            tolerance: Tolerance::default(),
            refused: 0,
            trace: Vec::new(),
        }
    }

    /// Sets which errors are no fault.
    pub fn tolerate(&mut self, tolerance: Tolerance) {
        self.tolerance = tolerance;
    }

    /// Whether I/O errors are no fault.
    #[must_use]
    pub fn tolerates_io(&self) -> bool {
        self.tolerance.io
    }

    /// Stops with [`Stop::Crashed`] when `ops` more device operations have completed.
    pub fn set_fuse(&mut self, ops: Option<u64>) {
        self.fuse = ops.map(|ops| self.world.disk().done() + ops);
    }

    /// Calls `probe` after every step.
    pub fn set_probe(&mut self, probe: Option<Probe>) {
        self.probe = probe;
    }

    /// What was asked so far, newest last.
    #[must_use]
    pub fn trace(&self) -> &[Cmd] {
        &self.trace
    }

    /// How many commands were refused for want of space.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// How many commands are in progress.
    #[must_use]
    pub fn in_progress(&self) -> usize {
        self.pending.len()
    }

    /// Recovers the pool and compares it with what the oracle allows.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn open(&mut self, kill: bool) -> Result<(), Stop> {
        match self.aux(Op::Open { read_only: false })? {
            Ok(Reply::Done) => {}
            other => return Err(Stop::Bug(format!("open answered {other:?}"))),
        }
        let observed = observe(&mut self.world)?;
        self.oracle.judge(&observed, kill)?;
        self.oracle.settle(observed);
        Ok(())
    }

    /// One step of the world.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn step(&mut self) -> Result<(), Stop> {
        if self.fuse.is_some_and(|fuse| self.world.disk().done() >= fuse) {
            return Err(Stop::Crashed);
        }
        self.world.pump()?;
        self.look()
    }

    /// Collects replies, asks the disk for complaints, and lets the probe look.
    fn look(&mut self) -> Result<(), Stop> {
        while let Some((id, result)) = self.world.take_reply() {
            match self.pending.remove(&id) {
                Some(in_progress) => self.finish(id, &in_progress, &result)?,
                None => {
                    self.scrubbed += scrubs::judge(&result)?;
                    self.answers.insert(id, result);
                }
            }
        }
        if let Some(bug) = self.world.disk_mut().take_bugs().into_iter().next() {
            return Err(Stop::Bug(bug));
        }
        if let Some(probe) = &mut self.probe {
            probe(self.world.disk(), &self.oracle)?;
        }
        Ok(())
    }

    /// Runs an operation that the oracle need not know.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn aux(&mut self, op: Op) -> Result<Result<Reply, Error>, Stop> {
        let id = self.world.start_op(op);
        self.look()?;
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return Ok(answer);
            }
            self.step()?;
        }
    }

    /// Submits a command and returns at once.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn submit(&mut self, cmd: Cmd) -> Result<(), Stop> {
        while let Some(export) = self.fenced.pop() {
            // Whether a fenced export can still be closed is a matter of taste.
            let _ = self.aux(Op::CloseExport { export })?;
        }
        self.prepare(&cmd)?;
        let export = match &cmd {
            Cmd::Write { volume: name, .. }
            | Cmd::Zero { volume: name, .. }
            | Cmd::Read { name, .. }
            | Cmd::Flush { volume: name } => match self.export(name)? {
                Some(export) => export,
                None if self.oracle.expected_refusal(&cmd).is_some() => return Ok(()),
                // A verb that failed may have been applied, and be gone after the restart.
                None if self.tolerance.io => return Ok(()),
                // A verb in progress may have taken the name away.
                None if self.pending.values().any(|other| disturbs(&other.cmd, &cmd)) => {
                    return Ok(());
                }
                None => return Err(Stop::Bug(format!("no export for {cmd:?}"))),
            },
            _ => ExportId(0),
        };
        let disturbed = self.pending.values().any(|other| disturbs(&other.cmd, &cmd));
        let unsure = self.oracle.is_ambiguous() || disturbed;
        let expected = self.oracle.expected_refusal(&cmd);
        let id = self.world.start_op(op_of(&cmd, export));
        self.trace.push(cmd.clone());
        self.oracle.begin(id, &cmd);
        if let Cmd::Read { name, offset, len } = &cmd {
            self.oracle.begin_read(id, name, *offset, *len);
        }
        for other in self.pending.values_mut() {
            other.unsure |= disturbs(&other.cmd, &cmd);
        }
        self.pending.insert(id, InProgress { cmd, expected, unsure });
        self.look()
    }

    /// Submits a command and waits for its answer.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn run(&mut self, cmd: Cmd) -> Result<(), Stop> {
        self.submit(cmd)?;
        self.drain()
    }

    /// Waits until all commands are answered.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn drain(&mut self) -> Result<(), Stop> {
        while !self.pending.is_empty() {
            self.step()?;
        }
        Ok(())
    }

    /// Drains, flushes, and compares everything with the oracle.
    ///
    /// # Errors
    /// Crashed, or something that cannot be.
    pub fn reconcile(&mut self) -> Result<(), Stop> {
        self.drain()?;
        if let Some(volume) = self.oracle.live().volumes.keys().next().cloned() {
            // After something ambiguous the name may be wrong; a checkpoint needs none.
            let flush = Cmd::Flush { volume };
            self.run(if self.oracle.is_ambiguous() { Cmd::Checkpoint } else { flush })?;
        }
        let observed = observe(&mut self.world)?;
        self.look()?;
        self.oracle.judge(&observed, false)?;
        self.oracle.settle(observed);
        Ok(())
    }

    /// The machine dies; what is left is the disk and the judge.
    #[must_use]
    pub fn crash(self, how: Crash) -> (SimDisk, Oracle) {
        (self.world.disk().crash(how), self.oracle)
    }

    /// An open export of `VOL` (for writing) or `VOL@SNAP`.
    fn export(&mut self, name: &str) -> Result<Option<ExportId>, Stop> {
        if let Some(export) = self.exports.get(name) {
            return Ok(Some(*export));
        }
        let write = !name.contains('@');
        match self.aux(Op::OpenExport { name: name.to_owned(), write })? {
            Ok(Reply::Export { export, .. }) => {
                self.exports.insert(name.to_owned(), export);
                Ok(Some(export))
            }
            _ => Ok(None),
        }
    }

    /// Closes what stands in the way of a command that wants nobody to be there.
    fn prepare(&mut self, cmd: &Cmd) -> Result<(), Stop> {
        let names: Vec<String> = match cmd {
            Cmd::Delete { names, .. } => names.clone(),
            Cmd::Undo { volume, .. } => vec![volume.clone()],
            Cmd::Prune { volumes } if volumes.is_empty() => {
                self.oracle.live().volumes.keys().cloned().collect()
            }
            Cmd::Prune { volumes } => volumes.clone(),
            Cmd::Rollback { targets, .. } => {
                targets.iter().map(|(volume, _)| volume.clone()).collect()
            }
            _ => return Ok(()),
        };
        let deletes = matches!(cmd, Cmd::Delete { .. } | Cmd::Prune { .. });
        let force = matches!(
            cmd,
            Cmd::Undo { force: true, .. } | Cmd::Rollback { force: true, .. } | Cmd::Prune { .. }
        );
        let inside = |export: &str, name: &str| {
            // Undo snapshots that a client reads are not thinned out by a rollback: nobody reads.
            let below = if deletes { "@" } else { "@undo." };
            export == name && !force
                || export.strip_prefix(name).is_some_and(|rest| rest.starts_with(below))
        };
        let concerned =
            |export: &String| names.iter().any(|name| inside(export, name)).then(|| export.clone());
        let open: Vec<String> = self.exports.keys().filter_map(concerned).collect();
        for name in open {
            let volume = name.split('@').next().unwrap_or(&name).to_owned();
            while self.pending.values().any(|op| op.cmd.volumes().contains(&volume.as_str())) {
                self.step()?;
            }
            if let Some(export) = self.exports.remove(&name) {
                self.aux(Op::CloseExport { export })?.map_err(|error| {
                    Stop::Bug(format!("closing the export of {name} failed: {error}"))
                })?;
            }
        }
        Ok(())
    }

    fn finish(
        &mut self,
        id: OpId,
        in_progress: &InProgress,
        result: &Result<Reply, Error>,
    ) -> Result<(), Stop> {
        let InProgress { cmd, expected, unsure } = in_progress;
        match result {
            Ok(_) => {
                let lenient = matches!(cmd, Cmd::Delete { recursive: false, .. });
                if let (Some(refusal), false) = (expected, *unsure || lenient) {
                    let text = format!("{cmd:?} was done, but should be refused: {refusal:?}");
                    return Err(Stop::Bug(text));
                }
                self.follow(cmd);
            }
            Err(error) => {
                self.refused += u64::from(matches!(error, Error::NoSpace(_)));
                let legal = match error {
                    Error::Stale(_) => *unsure,
                    Error::NoSpace(_) => {
                        self.tolerance.no_space && !self.breaks_promise(cmd, error)
                    }
                    Error::Io { .. } | Error::Poisoned(_) => self.tolerance.io,
                    Error::Corrupt(_) => self.tolerance.corrupt,
                    _ => expected.is_some() || *unsure,
                };
                if !legal {
                    return Err(Stop::Bug(format!("{cmd:?} failed: {error}")));
                }
                if let (Error::Stale(_), Some(volume)) = (error, cmd.volumes().first()) {
                    self.fence(volume);
                }
            }
        }
        if matches!(cmd, Cmd::Read { .. }) {
            self.oracle.finish_read(id, bytes_of(cmd, result)?)?;
        }
        self.oracle.finish(id, result)?;
        Ok(())
    }

    fn fence(&mut self, volume: &str) {
        self.fenced.extend(self.exports.remove(volume));
    }

    /// Keeps the table of exports in step with what was done.
    fn follow(&mut self, cmd: &Cmd) {
        match cmd {
            Cmd::Rollback { targets, .. } => {
                targets.iter().for_each(|(volume, _)| self.fence(volume));
            }
            Cmd::Undo { volume, .. } => self.fence(volume),
            Cmd::Rename { name, to } => {
                let exports = std::mem::take(&mut self.exports);
                let renamed = |export: String| match (name.split_once('@'), export.split_once('@'))
                {
                    (Some((volume, _)), _) if export == *name => format!("{volume}@{to}"),
                    (None, None) if export == *name => to.clone(),
                    (None, Some((volume, snap))) if volume == name => format!("{to}@{snap}"),
                    _ => export,
                };
                self.exports = exports.into_iter().map(|(name, id)| (renamed(name), id)).collect();
            }
            _ => {}
        }
    }
}

/// Whether how one ends depends on the other.
fn disturbs(one: &Cmd, other: &Cmd) -> bool {
    let verb = one.is_verb() || other.is_verb();
    let shared = || one.volumes().iter().any(|volume| other.volumes().contains(volume));
    one.conflicts(other) || verb && shared()
}
