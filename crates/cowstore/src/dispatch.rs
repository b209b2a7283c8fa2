//! Carries a [`Verb`] out on a pool of this process.

use crate::completion::Inbox;
use crate::error::{Error, unexpected};
use crate::manage::{Answer, ExportInfo, Manage, MountHost, Verb};
use crate::pool::Pool;
use crate::roots;
use crate::transfer::{self, ExportOptions, Progress, Watch};
use crate::types::{DeleteOptions, RollbackOptions};
use cow_engine::{DiffQuery, Op, Reply};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Most extents of one page of a diff.
const DIFF_LIMIT: usize = 100_000;
/// How often progress of a wait is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// What the process around the pool adds to it.
#[derive(Clone, Default)]
pub struct Host {
    /// Lists what it serves.
    pub exports: Option<Arc<dyn Fn() -> Vec<ExportInfo> + Send + Sync>>,
    /// Begins its end. Must not wait for it.
    pub shutdown: Option<Arc<dyn Fn() + Send + Sync>>,
    /// Mounts it.
    pub mounts: Option<Arc<dyn MountHost>>,
}

impl Manage for Pool {
    fn call(&self, verb: Verb, progress: &mut dyn FnMut(Progress)) -> Result<Answer, Error> {
        perform(self, &Host::default(), verb, progress, &|| false)
    }

    fn close(self: Box<Self>) -> Result<(), Error> {
        Pool::close(*self)
    }

    fn is_remote(&self) -> bool {
        false
    }
}

/// Does `verb`; `cancelled` ends what takes long.
pub(crate) fn perform(
    pool: &Pool,
    host: &Host,
    verb: Verb,
    progress: &mut dyn FnMut(Progress),
    cancelled: &dyn Fn() -> bool,
) -> Result<Answer, Error> {
    let mut watch = Watch { progress, cancelled };
    match verb {
        Verb::WaitReclaim => wait_reclaim(pool, &mut watch),
        Verb::Trim => match wait_for(pool, Op::TrimPool, "trim", &mut watch)? {
            Reply::Trimmed { bytes } => Ok(Answer::Trimmed { bytes }),
            other => Err(unexpected(&other)),
        },
        Verb::Root { name } => {
            roots::root_answer(wait_for(pool, Op::Root { name }, "hash", &mut watch)?)
                .map(Answer::Root)
        }
        Verb::MerklePage { name, level, index } => {
            match wait_for(pool, Op::MerklePage { name, level, index }, "hash", &mut watch)? {
                Reply::MerklePage(bytes) => Ok(Answer::MerklePage(roots::to_hex(&bytes))),
                other => Err(unexpected(&other)),
            }
        }
        Verb::Import { options, file } => {
            let moved = transfer::import(pool, &*needed(file)?, &options, &mut watch)?;
            Ok(Answer::Transferred(moved))
        }
        Verb::Export { name, file } => {
            let options = ExportOptions { name };
            let moved = transfer::export(pool, &*needed(file)?, &options, &mut watch)?;
            Ok(Answer::Transferred(moved))
        }
        Verb::Exports => {
            Ok(Answer::Exports(host.exports.as_ref().map_or_else(Vec::new, |list| list())))
        }
        Verb::Mount { dir } => {
            let dir = mounts(host)?.mount(dir.as_deref())?;
            Ok(Answer::Mounted { dir, pid: std::process::id() })
        }
        Verb::Keep => mounts(host)?.keep().map(|()| Answer::Done),
        Verb::Unmount { dir } => {
            mounts(host)?.unmount(dir.as_deref()).map(|ends| Answer::Unmounted { ends })
        }
        Verb::Shutdown => {
            let shutdown = host.shutdown.as_ref();
            let unable = || Error::Unsupported("this process cannot be ended so".into());
            (shutdown.ok_or_else(unable)?)();
            Ok(Answer::Done)
        }
        other => change(pool, other),
    }
}

fn mounts(host: &Host) -> Result<&dyn MountHost, Error> {
    let text = "the process that has the pool can neither mount nor attach it";
    let unable = || Error::Unsupported(text.into());
    host.mounts.as_deref().ok_or_else(unable)
}

fn needed(file: Option<Arc<File>>) -> Result<Arc<File>, Error> {
    file.ok_or_else(|| Error::Invalid("a file must come with this".into()))
}

/// Verbs that change something.
fn change(pool: &Pool, verb: Verb) -> Result<Answer, Error> {
    let done = |()| Answer::Done;
    match verb {
        Verb::CreateVolume { name, size_bytes, props } => {
            pool.create_volume(&name, size_bytes, &props).map(|node| Answer::Node(node.0))
        }
        Verb::Snapshot { names, options } => {
            let nodes = pool.snapshot(&names, options)?;
            Ok(Answer::Nodes(nodes.into_iter().map(|node| node.0).collect()))
        }
        Verb::Rollback { names, discard_current, force } => {
            let options = RollbackOptions { discard_current, force, edits: Vec::new() };
            pool.rollback(&names, options).map(Answer::RolledBack)
        }
        Verb::Undo { volume, force } => {
            pool.undo(&volume, force).map(|kept| Answer::RolledBack(vec![kept]))
        }
        Verb::Clone { source, name, props } => {
            pool.clone_volume(&source, &name, &props).map(|node| Answer::Node(node.0))
        }
        Verb::Delete { names, recursive, dry_run } => {
            pool.delete(&names, DeleteOptions { recursive, dry_run }).map(Answer::SetSize)
        }
        Verb::Prune { volumes, dry_run } => pool.prune(&volumes, dry_run).map(Answer::SetSize),
        Verb::Rename { name, to } => pool.rename(&name, &to).map(done),
        Verb::Resize { volume, size_bytes, shrink } => {
            pool.resize(&volume, size_bytes, shrink).map(done)
        }
        Verb::SetProps { name, changes } => pool.set_props(&name, &changes).map(done),
        Verb::Hold { name, tag, set: true } => pool.hold(&name, &tag).map(done),
        Verb::Hold { name, tag, set: false } => pool.release(&name, &tag).map(done),
        Verb::Grow { size_bytes } => pool.grow(size_bytes).map(done),
        other => look(pool, other),
    }
}

/// Verbs that change nothing.
fn look(pool: &Pool, verb: Verb) -> Result<Answer, Error> {
    match verb {
        Verb::GetProps { name } => pool.props(&name).map(Answer::Props),
        Verb::List { exact } => pool.list(exact).map(Answer::List),
        Verb::SetSize { names, wait: false } => pool.set_size(&names).map(Answer::SetSize),
        Verb::SetSize { names, wait: true } => pool.exact_size(&names).map(Answer::SetSize),
        Verb::FreeUp { bytes } => pool.free_up(bytes).map(Answer::SetSize),
        Verb::Info { exact } => pool.info(exact).map(|info| Answer::Info(Box::new(info))),
        Verb::Diff { from, to, offset, limit, exact } => {
            let limit = limit.clamp(1, DIFF_LIMIT);
            let query = DiffQuery { offset, exact, ..DiffQuery::all(&from, &to, limit) };
            pool.diff_page(query).map(Answer::Diff)
        }
        Verb::Scrub { cursor, blocks } => pool.scrub_step(cursor, blocks).map(Answer::Scrubbed),
        Verb::Checkpoint => pool.checkpoint().map(|()| Answer::Done),
        other => Err(Error::Unsupported(format!("{other:?}"))),
    }
}

fn wait_reclaim(pool: &Pool, watch: &mut Watch<'_>) -> Result<Answer, Error> {
    let left = |pool: &Pool| pool.info(false).map(|info| info.reclaiming_bytes);
    let mut total_bytes = left(pool)?;
    let inbox = Inbox::default();
    pool.core.queue.push(Op::WaitReclaim, inbox.completion(0));
    loop {
        if let Some((_, outcome)) = inbox.wait_for(LOOK)? {
            return match outcome? {
                Reply::Done => Ok(Answer::Done),
                other => Err(unexpected(&other)),
            };
        }
        let left_bytes = left(pool)?;
        total_bytes = total_bytes.max(left_bytes);
        let done_bytes = total_bytes - left_bytes;
        let phase = "reclaim".to_owned();
        (watch.progress)(Progress {
            phase,
            done_bytes,
            total_bytes: Some(total_bytes),
            is_last: false,
        });
        if (watch.cancelled)() {
            return Err(Error::Io { errno: libc::ECANCELED, op: "reclaim", offset: 0 });
        }
    }
}

/// Waits for what has no end to be foretold: `phase` says what it is.
fn wait_for(
    pool: &Pool,
    op: Op,
    phase: &'static str,
    watch: &mut Watch<'_>,
) -> Result<Reply, Error> {
    let inbox = Inbox::default();
    pool.core.queue.push(op, inbox.completion(0));
    loop {
        if let Some((_, outcome)) = inbox.wait_for(LOOK)? {
            return outcome;
        }
        let told =
            Progress { phase: phase.into(), done_bytes: 0, total_bytes: None, is_last: false };
        (watch.progress)(told);
        if (watch.cancelled)() {
            return Err(Error::Io { errno: libc::ECANCELED, op: phase, offset: 0 });
        }
    }
}
