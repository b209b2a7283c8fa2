//! Snapshots while the file systems on the volumes are frozen.
//!
//! ```text
//!   cowctl snapshot --freeze                    its guard, a process of its own
//!   targets: which file systems
//!   held: starts it            ---------------> opens them, writes what is dirty: Begin
//!                                               FIFREEZE each; all of them: Frozen
//!   Commit, and the snapshot   ---------------> (goes on holding)
//!   Thaw                       ---------------> FITHAW each: Thawed
//! ```
//!
//! The kernel thaws nothing when a process dies. So two of them watch each other: the guard thaws when
//! the pipe to it closes and when the time is over, the other when the guard dies. What stays frozen
//! for ever needs both of them killed at the same moment.
//!
//! A snapshot is labelled when it is committed, before anybody can know whether the freeze lasted
//! so long. Where it turns out that it did not, the snapshot is replaced by one with a true label.

mod guard;
mod held;
mod targets;
mod words;

pub use guard::run as guard;

use crate::failure::Failure;
use crate::session::Session;
use crate::steps;
use cowstore::{Consistency, Error, SnapshotOptions, Verb};
use held::{Frozen, Held};
use std::path::PathBuf;
use std::time::Duration;

/// Snapshots that were taken.
pub struct Taken {
    /// Their identities.
    pub nodes: Vec<u64>,
    /// How they are labelled.
    pub consistency: Consistency,
    /// The same, in milliseconds.
    pub freeze_ms: u32,
    /// Why they are not frozen though that was asked for.
    pub complaint: Option<String>,
}

/// Takes snapshots, with the file systems frozen that are mounted of their volumes, or else at
/// `dirs`, for at most so long.
///
/// # Errors
/// Where it cannot be done nothing is taken. If it is only too slow, that is a complaint.
pub fn snapshot(
    pool: &Session,
    names: &[String],
    options: &SnapshotOptions,
    dirs: &[PathBuf],
    timeout_seconds: u32,
) -> Result<Taken, Failure> {
    // What the engine would refuse is refused before anybody has to wait for it.
    refuse_early(pool, names)?;
    let targets = match dirs {
        [] => targets::on_volumes(pool.path(), names)?,
        dirs => targets::at_places(pool.path(), dirs)?,
    };
    let take = |consistency, freeze_ms, complaint| {
        let options = SnapshotOptions { consistency, freeze_ms, ..options.clone() };
        let nodes = pool.nodes(Verb::Snapshot { names: names.to_vec(), options })?;
        Ok(Taken { nodes, consistency, freeze_ms, complaint })
    };
    let mut held = Held::start(&targets, timeout_seconds)?;
    let since = match held.frozen()? {
        Frozen::Since(since) => since,
        Frozen::Failed(why) => {
            return take(Consistency::FreezeFailed, 0, Some(why));
        }
    };
    steps::reached("frozen");
    if held.is_interrupted() {
        let _ = held.thaw();
        return Err(Failure::Failed("interrupted: no snapshot was taken".into()));
    }
    held.commit();
    let taken = take(Consistency::Frozen, milliseconds(since.elapsed()), None);
    steps::reached("taken");
    match (taken, held.thaw()) {
        (Ok(taken), Ok(())) => Ok(taken),
        (Ok(_), Err(why)) => {
            let names = names.to_vec();
            pool.call(Verb::Delete { names, recursive: false, dry_run: false })?;
            take(Consistency::FreezeFailed, 0, Some(why))
        }
        (Err(failure), _) => Err(failure),
    }
}

fn refuse_early(pool: &Session, names: &[String]) -> Result<(), Failure> {
    let nodes = pool.list(false)?;
    for name in names {
        pool.find(&nodes, name.split('@').next().unwrap_or_default())?;
        if nodes.iter().any(|node| node.name == *name) {
            return Err(Failure::of(pool.path())(Error::Exists(name.clone())));
        }
    }
    Ok(())
}

/// What the label says of a freeze that has lasted so long; never nothing.
fn milliseconds(lasted: Duration) -> u32 {
    u32::try_from(lasted.as_millis()).unwrap_or(u32::MAX).max(1)
}
