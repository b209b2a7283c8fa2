//! Pruning: what has expired and what no `keep` rule of its volume keeps is deleted, when somebody
//! asks, and the latter also by itself, at most once a minute.
//!
//! The rules of a volume say the same until something about its snapshots changes. So a pool that
//! prunes by itself looks only at volumes about which something was sequenced, and an idle one at
//! none.

use crate::api::Reply;
use crate::core::{Core, OpResult};
use crate::error::Error;
use crate::events::{EventKind, listed};
use crate::expiry::{REST_NS, STEP};
use crate::fold::fold_if_writable;
use crate::loading::load_props;
use crate::sizes::set_size;
use crate::task::Cx;
use crate::verbs::commit;
use cow_format::record::Record;
use cow_format::{NodeId, VolumeId};
use cow_journal::Reserve;
use cow_snaptree::TreeError;
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Volumes that are looked at between two ticks.
const VOLUMES: usize = 64;

/// What a prune looks at.
struct Scope {
    volumes: Vec<VolumeId>,
    /// Volumes whose rules cannot be read: nothing of theirs goes by them.
    unreadable: BTreeSet<VolumeId>,
    /// What has expired goes too.
    expired: bool,
}

fn nothing() -> TreeError {
    TreeError::NotFound("a snapshot to be pruned".into())
}

impl Core {
    /// What goes now, by ascending id. What is held or open does not.
    fn prunable(&self, scope: &Scope) -> Result<BTreeSet<NodeId>, TreeError> {
        let Some(pool) = &self.pool else { return Ok(BTreeSet::new()) };
        let (tree, mut found) = (&pool.tree, BTreeSet::new());
        // The clock may be suspect.
        let wall_ns = self.expiry.clock.trusted_wall_ns(self.now_ns, self.wall_ns);
        let has_expired = |id: &NodeId| {
            tree.node(*id).is_some_and(|node| {
                let expiry_ns = node.entry.expiry_ns;
                expiry_ns != 0 && expiry_ns <= wall_ns && node.entry.holds == 0
            })
        };
        for &volume in &scope.volumes {
            if !scope.unreadable.contains(&volume) {
                found.extend(tree.not_kept(volume)?);
            }
            if scope.expired {
                found.extend(tree.snapshots_of(volume).into_iter().filter(has_expired));
            }
        }
        if !found.is_empty() {
            let open = self.open_snapshots();
            found.retain(|id| !open.contains(id));
        }
        Ok(found)
    }

    /// Plans the deletion of the first few of what goes and is in `among` (by ascending id), if that says.
    fn plan_prune(
        &mut self,
        scope: &Scope,
        among: Option<&[NodeId]>,
    ) -> Result<(Vec<Record>, Vec<String>), TreeError> {
        let mut step: Vec<NodeId> = self.prunable(scope)?.into_iter().collect();
        step.retain(|id| among.is_none_or(|among| among.binary_search(id).is_ok()));
        step.truncate(STEP);
        let pool = self.pool.as_ref().filter(|_| !step.is_empty()).ok_or_else(nothing)?;
        let names = step.iter().filter_map(|&id| pool.tree.full_name(id)).collect();
        Ok((pool.tree.plan_delete_nodes(&step)?, names))
    }

    /// Whether volumes are to be looked at now; then that counts as begun.
    pub(crate) fn prune_due(&mut self) -> bool {
        let (now_ns, expiry) = (self.now_ns, &self.expiry);
        let rests = expiry.running || now_ns < expiry.rest_until_ns || now_ns < expiry.prune_at_ns;
        let begins = !expiry.unpruned.is_empty() && !rests && self.may_expire();
        self.expiry.running |= begins;
        begins
    }
}

/// The volumes of these names, or all.
fn volumes(cx: &Cx, names: &[String]) -> Result<Vec<VolumeId>, Error> {
    let mut core = cx.core();
    let tree = &core.pool()?.tree;
    if names.is_empty() {
        return Ok(tree.volumes().map(|(id, _)| id).collect());
    }
    let found = names.iter().map(|name| {
        tree.volume_by_name(name).ok_or_else(|| match name.contains('@') {
            true => Error::Invalid(format!("{name}: a volume's name has no @")),
            false => Error::NotFound(name.clone()),
        })
    });
    found.collect::<Result<BTreeSet<_>, _>>().map(|found| found.into_iter().collect())
}

/// Brings the rules into memory; those that cannot be read are noted.
async fn load_rules(cx: &Cx, scope: &mut Scope) -> Result<(), Error> {
    for &volume in &scope.volumes {
        let ruled = {
            let mut core = cx.core();
            let tree = &core.pool()?.tree;
            tree.head(volume).filter(|&id| tree.node(id).is_some_and(|n| n.entry.policy))
        };
        if let Some(head) = ruled
            && load_props(cx, head).await.is_err()
        {
            scope.unreadable.insert(volume);
        }
    }
    Ok(())
}

pub(crate) async fn prune(cx: &Cx, names: Vec<String>, dry_run: bool) -> OpResult {
    if dry_run {
        fold_if_writable(cx).await?;
    }
    let volumes = volumes(cx, &names)?;
    let mut scope = Scope { volumes, unreadable: BTreeSet::new(), expired: true };
    let ids: Vec<NodeId> = loop {
        load_rules(cx, &mut scope).await?;
        let found = cx.core().prunable(&scope);
        match found {
            Ok(found) => break found.into_iter().collect(),
            // A fold was published meanwhile, and its tree has not read them.
            Err(TreeError::NotLoaded(_)) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // What a preview says is waited for; a delete is not kept waiting.
    let mut size = set_size(cx, &ids, dry_run).await?;
    if dry_run || ids.is_empty() {
        return Ok(Reply::Deleted(size));
    }
    let gone = RefCell::new(Vec::new());
    let mut all = BTreeSet::new();
    for step in ids.chunks(STEP) {
        // In the step in which it goes each is asked once more.
        let done = commit(cx, None, Reserve::Privileged, &|core| {
            let (records, names) = core.plan_prune(&scope, Some(step))?;
            gone.replace(names);
            Ok(records)
        })
        .await;
        match done {
            Ok(_) => all.extend(gone.take()),
            Err(Error::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    size.names.retain(|name| all.contains(name));
    cx.core().fold.soon = true;
    Ok(Reply::Deleted(size))
}

/// Looks at all volumes about which something has changed.
pub(crate) async fn prune_by_itself(cx: Cx) {
    let changed = std::mem::take(&mut cx.core().expiry.unpruned);
    let changed: Vec<VolumeId> = changed.into_iter().collect();
    let mut left = &changed[..];
    while let Some((volumes, rest)) = left.split_at_checked(VOLUMES.min(left.len()))
        && !volumes.is_empty()
        && cx.core().may_expire()
    {
        let scope = Scope { volumes: volumes.into(), unreadable: BTreeSet::new(), expired: false };
        if prune_some(&cx, scope).await.is_err() {
            break;
        }
        left = rest;
        cx.wait(|core| &mut core.tick_wait).await;
    }
    let mut core = cx.core();
    core.expiry.unpruned.extend(left);
    core.expiry.prune_at_ns = core.now_ns.saturating_add(REST_NS);
    core.expiry.running = false;
}

async fn prune_some(cx: &Cx, mut scope: Scope) -> Result<(), Error> {
    load_rules(cx, &mut scope).await?;
    let gone = RefCell::new(Vec::new());
    loop {
        let done = commit(cx, None, Reserve::Privileged, &|core| {
            if !core.may_expire() {
                return Err(nothing());
            }
            let (records, names) = core.plan_prune(&scope, None)?;
            gone.replace(names);
            Ok(records)
        })
        .await;
        let mut core = cx.core();
        match done {
            Ok(_) => {
                let (names, count) = listed(gone.take());
                core.tell(EventKind::Pruned { names, count });
                core.fold.soon = true;
            }
            Err(Error::NotFound(_)) => {
                // What is open now may be closed in a minute.
                let Some(pool) = &core.pool else { return Ok(()) };
                let waits =
                    |id: &VolumeId| pool.tree.not_kept(*id).is_ok_and(|ids| !ids.is_empty());
                let waiting: Vec<_> = scope.volumes.iter().copied().filter(waits).collect();
                core.expiry.unpruned.extend(waiting);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}
