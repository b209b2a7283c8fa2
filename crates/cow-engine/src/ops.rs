//! From an operation to its answer.

use crate::api::{Action, Op, OpId, Reply};
use crate::core::{Core, OpResult, Request};
use crate::error::Error;
use crate::fold::fold_now;
use crate::task::Cx;
use crate::{
    diff, discard, flush, grow, prune, punch, query, read, recover, scrub, seal, trim_pool, verbs,
    write,
};

/// Runs one operation to its end and answers.
pub(crate) async fn run(cx: Cx, request: Request) {
    let id = request.id;
    cx.core().ops_in_progress += 1;
    let result = dispatch(&cx, request.op).await;
    cx.core().finish(id, result);
}

impl Core {
    /// Answers an operation that was in progress.
    pub(crate) fn finish(&mut self, id: OpId, result: OpResult) {
        self.ops_in_progress -= 1;
        self.io.out.push(Action::Reply { id, result });
    }
}

async fn dispatch(cx: &Cx, op: Op) -> OpResult {
    if cx.core().closing {
        return Err(Error::Invalid("the pool is being closed".into()));
    }
    if !cx.core().serving && !matches!(op, Op::Open { .. } | Op::Close) {
        return Err(Error::Invalid("the pool is not open".into()));
    }
    match op {
        Op::Open { read_only } => recover::open(cx, read_only).await.map(|()| Reply::Done),
        Op::Close => close(cx).await,
        Op::OpenExport { name, write } => cx.core().open_export(&name, write),
        Op::CloseExport { export } => {
            cx.core().exports.remove(&export);
            Ok(Reply::Done)
        }
        Op::Read { export, offset, len } => read::read(cx, export, offset, len).await,
        Op::Write { export, offset, len, data, fua } => {
            write::write(cx, export, offset, len, data, fua).await
        }
        Op::Flush { export } => flush_export(cx, export).await,
        Op::Discard { export, offset, len, fua } => {
            discard::discard(cx, export, offset, len, fua).await
        }
        Op::WriteZeroes { export, offset, len, fua } => {
            discard::write_zeroes(cx, export, offset, len, fua).await
        }
        Op::Extents { export, offset, len } => read::extents(cx, export, offset, len).await,
        Op::List { exact } => query::list(cx, exact).await,
        Op::ListMarked { prop, prefix } => query::list_marked(cx, &prop, &prefix).await,
        Op::Describe { names, exact } => query::describe(cx, names, exact).await,
        Op::SetSize { names, wait } => query::set_size_of(cx, names, wait).await,
        Op::FreeUp { bytes } => crate::sizes::free_up(cx, bytes).await,
        Op::Info { exact } => query::info(cx, exact).await,
        Op::Diff(query) => diff::diff(cx, query).await,
        Op::Root { name } => seal::root(cx, name).await,
        Op::MerklePage { name, level, index } => seal::page(cx, name, level, index).await,
        verb => dispatch_verb(cx, verb).await,
    }
}

async fn dispatch_verb(cx: &Cx, op: Op) -> OpResult {
    match op {
        Op::CreateVolumes { volumes, edits } => verbs::create_volumes(cx, volumes, edits).await,
        Op::Snapshot { targets, options } => verbs::snapshot(cx, targets, options).await,
        Op::Rollback { targets, discard_current, force, edits } => {
            verbs::rollback(cx, targets, discard_current, force, edits).await
        }
        Op::Undo { volume, force } => verbs::undo(cx, volume, force).await,
        Op::Clone { source, name, props } => verbs::clone(cx, source, name, props).await,
        Op::Delete { names, recursive, dry_run } => {
            verbs::delete(cx, names, recursive, dry_run).await
        }
        Op::Prune { volumes, dry_run } => prune::prune(cx, volumes, dry_run).await,
        Op::Rename { name, to } => verbs::rename(cx, name, to).await,
        Op::Resize { volume, size_bytes, shrink } => {
            verbs::resize(cx, volume, size_bytes, shrink).await
        }
        Op::SetProps { name, changes } => verbs::set_props(cx, name, changes).await,
        Op::GetProps { name } => verbs::get_props(cx, name).await,
        Op::Hold { name, tag, set } => verbs::hold(cx, name, tag, set).await,
        Op::GrowPool { blocks } => grow::grow_pool(cx, blocks).await,
        Op::Checkpoint => fold_now(cx).await.map(|()| Reply::Done),
        Op::Scrub { cursor, blocks } => scrub::step(cx, cursor, blocks).await,
        Op::TrimPool => trim_pool::trim_pool(cx).await,
        Op::WaitReclaim => verbs::wait_reclaim(cx).await,
        _ => Err(Error::Unsupported("unknown operation".into())),
    }
}

async fn flush_export(cx: &Cx, export: crate::ExportId) -> OpResult {
    {
        let mut core = cx.core();
        core.target(export, false)?;
        core.stats.flushes += 1;
        let pool = core.pool()?;
        if pool.read_only {
            return Ok(Reply::Done);
        }
    }
    flush::flush(cx).await?;
    Ok(Reply::Done)
}

/// Everything durable and folded, then nothing more.
async fn close(cx: &Cx) -> OpResult {
    let (read_only, open) = {
        let core = cx.core();
        (core.pool.as_ref().is_some_and(|pool| pool.read_only), core.serving)
    };
    cx.core().expiry.stopped = true;
    if open && !read_only {
        punch::end(cx).await;
        flush::flush(cx).await?;
        match fold_now(cx).await {
            // The journal holds everything; only opening takes longer.
            Ok(()) | Err(Error::NoSpace(_)) => {}
            Err(error) => return Err(error),
        }
        while cx.core().fold.running && !cx.core().fold.is_stalled() {
            cx.wait(|core| &mut core.fold_wait).await;
        }
    }
    cx.core().closing = true;
    Ok(Reply::Done)
}
