//! What is done to a pool as a whole: volumes, snapshots, properties, sizes.

use crate::error::{Error, unexpected};
use crate::events::PoolEvent;
use crate::pool::Pool;
use crate::scrub_page::{ScrubPage, cursor_of};
use crate::types::{
    DeleteOptions, EXPORT_PREFIX, IMPORTING, Kept, NodeInfo, PoolInfo, Props, RollbackOptions,
    SetSize, SnapshotOptions,
};
use cow_engine::{NewVolume, Op, PropEdit, Reply, SnapTarget};
use cow_format::{BLOCK_SIZE, NodeId};
use std::sync::atomic::Ordering;

/// Takes the answer that fits, or complains.
macro_rules! expect {
    ($reply:expr, $pattern:pat => $value:expr) => {
        match $reply? {
            $pattern => Ok($value),
            other => Err(unexpected(&other)),
        }
    };
}

impl Pool {
    /// Creates a thin volume: it takes space only for what is written.
    pub fn create_volume(
        &self,
        name: &str,
        size_bytes: u64,
        props: &[(String, String)],
    ) -> Result<NodeId, Error> {
        let new = NewVolume { name: name.into(), size_bytes, props: props.to_vec() };
        let nodes = self.create_volumes(vec![new], Vec::new())?;
        nodes.first().copied().ok_or_else(|| unexpected(&Reply::Nodes(Vec::new())))
    }

    /// Creates thin volumes, all or none, and commits `edits` of properties with them. Durable.
    pub fn create_volumes(
        &self,
        volumes: Vec<NewVolume>,
        edits: Vec<PropEdit>,
    ) -> Result<Vec<NodeId>, Error> {
        expect!(self.call(Op::CreateVolumes { volumes, edits }), Reply::Nodes(nodes) => nodes)
    }

    /// Takes snapshots, each named `VOL@SNAP`, all at one instant. Durable. What is written
    /// later is not in them, whatever was acknowledged before is.
    ///
    /// # Errors
    /// `Limit` when a volume has as many snapshots as its property `limit` says: the text names
    /// it, and no volume gets one.
    pub fn snapshot(
        &self,
        names: &[impl AsRef<str>],
        options: SnapshotOptions,
    ) -> Result<Vec<NodeId>, Error> {
        let op = Op::Snapshot { targets: targets(names)?, options: options.into() };
        expect!(self.call(op), Reply::Nodes(nodes) => nodes)
    }

    /// Takes volumes back to snapshots, each named `VOL@SNAP`, atomically. Newer snapshots stay.
    /// The answer says, for each, which snapshot keeps what was replaced; none does when nothing
    /// had changed.
    ///
    /// # Errors
    /// `Busy` while a volume is open for writing, unless `force` is set; then its clients are
    /// fenced.
    pub fn rollback(
        &self,
        names: &[impl AsRef<str>],
        options: RollbackOptions,
    ) -> Result<Vec<Option<Kept>>, Error> {
        let RollbackOptions { discard_current, force, edits } = options;
        let op = Op::Rollback { targets: targets(names)?, discard_current, force, edits };
        expect!(self.call(op), Reply::RolledBack(kept) => kept.into_iter().map(named).collect())
    }

    /// Brings back what the last rollback of a volume replaced. A second `undo` is a redo.
    pub fn undo(&self, volume: &str, force: bool) -> Result<Option<Kept>, Error> {
        let op = Op::Undo { volume: volume.into(), force };
        expect!(self.call(op), Reply::RolledBack(kept) => kept.into_iter().next().and_then(named))
    }

    /// Makes a volume that begins as the snapshot `source`, in constant time.
    pub fn clone_volume(
        &self,
        source: &str,
        name: &str,
        props: &[(String, String)],
    ) -> Result<NodeId, Error> {
        let source = target(source)?;
        let op = Op::Clone { source, name: name.into(), props: props.to_vec() };
        expect!(self.call(op), Reply::Node(node) => node)
    }

    /// Deletes volumes and snapshots, in any order; or says what that would free. Their space
    /// comes back in the background.
    ///
    /// # Errors
    /// `Busy` when one is open, is held, or has snapshots and `recursive` is not set: the text
    /// says which.
    pub fn delete(
        &self,
        names: &[impl AsRef<str>],
        options: DeleteOptions,
    ) -> Result<SetSize, Error> {
        let DeleteOptions { recursive, dry_run } = options;
        let op = Op::Delete { names: strings(names), recursive, dry_run };
        expect!(self.call(op), Reply::Deleted(size) => size.into())
    }

    /// Deletes what has expired, and what no rule in the property `keep` of its volume keeps, of
    /// these volumes, or of all if none is named; or says what that would free. What is held or
    /// open stays. An open pool does the same by itself, at most once a minute.
    ///
    /// # Errors
    /// `NotFound` for a volume that is not there.
    pub fn prune(&self, volumes: &[impl AsRef<str>], dry_run: bool) -> Result<SetSize, Error> {
        let op = Op::Prune { volumes: strings(volumes), dry_run };
        expect!(self.call(op), Reply::Deleted(size) => size.into())
    }

    /// Renames `VOL`, or `VOL@SNAP` (whose new name may be given with its volume or without).
    pub fn rename(&self, name: &str, to: &str) -> Result<(), Error> {
        let mut bare = to;
        if let Some((volume, _)) = name.split_once('@')
            && let Some((other, snapshot)) = to.split_once('@')
        {
            if other != volume {
                return Err(Error::Invalid(format!("{to}: a snapshot stays with its volume")));
            }
            bare = snapshot;
        }
        self.done(Op::Rename { name: name.into(), to: bare.into() })
    }

    /// Changes the size of a volume. `shrink` allows it to become smaller: what lies beyond is
    /// lost.
    pub fn resize(&self, volume: &str, size_bytes: u64, shrink: bool) -> Result<(), Error> {
        self.done(Op::Resize { volume: volume.into(), size_bytes, shrink })
    }

    /// Sets (or, with `None`, removes) properties of `VOL`, `VOL@SNAP`, or, with an empty name,
    /// the pool.
    pub fn set_props(&self, name: &str, changes: &[(String, Option<String>)]) -> Result<(), Error> {
        self.done(Op::SetProps { name: name.into(), changes: changes.to_vec() })
    }

    /// The properties and holds of `VOL`, `VOL@SNAP`, or, with an empty name, the pool.
    pub fn props(&self, name: &str) -> Result<Props, Error> {
        let reply = self.call(Op::GetProps { name: name.into() });
        expect!(reply, Reply::Props { props, holds } => Props { props, holds })
    }

    /// Holds a snapshot: it cannot be deleted until `tag` is released.
    pub fn hold(&self, name: &str, tag: &str) -> Result<(), Error> {
        self.done(Op::Hold { name: name.into(), tag: tag.into(), set: true })
    }

    /// Releases a hold.
    pub fn release(&self, name: &str, tag: &str) -> Result<(), Error> {
        self.done(Op::Hold { name: name.into(), tag: tag.into(), set: false })
    }

    /// All volumes and snapshots. `exact` folds first what is pending, so that sizes are those
    /// of now.
    pub fn list(&self, exact: bool) -> Result<Vec<NodeInfo>, Error> {
        let reply = self.call(Op::List { exact });
        expect!(reply, Reply::List(nodes) => nodes.into_iter().map(NodeInfo::from).collect())
    }

    /// Those of `names` that there are, in the same order. `exact` as for [`Pool::list`].
    pub fn describe(&self, names: &[impl AsRef<str>], exact: bool) -> Result<Vec<NodeInfo>, Error> {
        let reply = self.call(Op::Describe { names: strings(names), exact });
        expect!(reply, Reply::List(nodes) => nodes.into_iter().map(NodeInfo::from).collect())
    }

    /// What deleting exactly these together would free, at once: where branches leave bounds, those.
    pub fn set_size(&self, names: &[impl AsRef<str>]) -> Result<SetSize, Error> {
        let reply = self.call(Op::SetSize { names: strings(names), wait: false });
        expect!(reply, Reply::SetSize(size) => size.into())
    }

    /// The same, and exact: reads what differs between the branches where counts leave bounds. Not
    /// exact only where a map is damaged, or while others wait for space.
    pub fn exact_size(&self, names: &[impl AsRef<str>]) -> Result<SetSize, Error> {
        let reply = self.call(Op::SetSize { names: strings(names), wait: true });
        expect!(reply, Reply::SetSize(size) => size.into())
    }

    /// Names snapshots whose deletion together frees so many bytes of data, and says how many it
    /// really is. They are taken in the order expired, undo, auto, user, the oldest first, as few
    /// as that takes, and each is needed; none that is held or open. All that there are if even they
    /// free less.
    pub fn free_up(&self, bytes: u64) -> Result<SetSize, Error> {
        let reply = self.call(Op::FreeUp { bytes });
        expect!(reply, Reply::SetSize(size) => size.into())
    }

    /// What happened since opening after the event `after`, oldest first; 0 for all that is known.
    /// The newest 64 are kept.
    pub fn events(&self, after: u64) -> Result<Vec<PoolEvent>, Error> {
        let mut events = self.info(false)?.events;
        events.retain(|event| event.seq > after);
        Ok(events)
    }

    /// The state of the pool. `exact` folds first what is pending.
    pub fn info(&self, exact: bool) -> Result<PoolInfo, Error> {
        let mut info = expect!(self.call(Op::Info { exact }), Reply::Info(info) => {
            PoolInfo::from(*info)
        })?;
        let facts = &self.core.facts;
        info.uuid = facts.identity.uuid_text();
        info.path = facts.path.display().to_string();
        info.driver = facts.driver.into();
        info.direct_io = facts.direct;
        info.fixed_buffers = facts.fixed_transfers.is_some();
        let count = facts.fixed_transfers.as_ref();
        info.fixed_transfers = count.map_or(0, |count| count.load(Ordering::Relaxed));
        info.notes.extend(facts.notes.iter().cloned());
        Ok(info)
    }

    /// Makes the pool larger; its file grows with it.
    pub fn grow(&self, size_bytes: u64) -> Result<(), Error> {
        self.done(Op::GrowPool { blocks: size_bytes / BLOCK_SIZE as u64 })
    }

    /// Folds what is pending and returns when it is durable.
    pub fn checkpoint(&self) -> Result<(), Error> {
        self.done(Op::Checkpoint)
    }

    /// Waits until the space of all that was deleted has come back.
    pub fn wait_reclaim(&self) -> Result<(), Error> {
        self.done(Op::WaitReclaim)
    }

    /// Waits for the same, and gives all that is free then back to the file system or device below. Bytes
    /// of it, those included that were given back before.
    ///
    /// # Errors
    /// `Unsupported` for a pool that was preallocated, and where the layer below cannot take it.
    pub fn trim(&self) -> Result<u64, Error> {
        expect!(self.call(Op::TrimPool), Reply::Trimmed { bytes } => bytes)
    }

    /// A step of [`crate::scrub()`]: reads on from a cursor, some `blocks` blocks.
    pub(crate) fn scrub_step(
        &self,
        cursor: (u64, u64, u64),
        blocks: u64,
    ) -> Result<ScrubPage, Error> {
        let op = Op::Scrub { cursor: cursor_of(cursor), blocks };
        expect!(self.call(op), Reply::Scrubbed(step) => step.into())
    }

    /// Deletes what imports left behind when this pool's last process died.
    pub(crate) fn delete_unfinished(&self) -> Result<(), Error> {
        let op = Op::ListMarked { prop: IMPORTING.into(), prefix: EXPORT_PREFIX.into() };
        let marked: Vec<NodeInfo> = expect!(self.call(op), Reply::List(nodes) => {
            nodes.into_iter().map(NodeInfo::from).collect()
        })?;
        for node in marked {
            let name = &node.name;
            tracing::warn!(%name, "deleting what an interrupted import, export or bench left behind");
            let options = DeleteOptions { recursive: node.is_volume(), dry_run: false };
            match self.delete(&[name], options) {
                // A snapshot may have gone with its volume.
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => tracing::warn!(%name, %error, "that failed; it stays for now"),
            }
        }
        Ok(())
    }
}

fn named(kept: Option<(String, NodeId)>) -> Option<Kept> {
    kept.map(|(name, node)| Kept { name, node: node.0 })
}

fn strings(names: &[impl AsRef<str>]) -> Vec<String> {
    names.iter().map(|name| name.as_ref().to_owned()).collect()
}

fn targets(names: &[impl AsRef<str>]) -> Result<Vec<SnapTarget>, Error> {
    names.iter().map(|name| target(name.as_ref())).collect()
}

fn target(name: &str) -> Result<SnapTarget, Error> {
    match name.split_once('@') {
        Some((volume, snapshot)) if !volume.is_empty() && !snapshot.is_empty() => {
            Ok(SnapTarget { volume: volume.into(), snapshot: snapshot.into() })
        }
        _ => Err(Error::Invalid(format!("{name}: a snapshot's name is VOL@SNAP"))),
    }
}
