//! Opened volumes and snapshots. An export remembers the rollback generation of its volume: once
//! that was raised, its requests fail with `Stale` instead of mixing into the restored volume.

use crate::api::{ExportId, Reply};
use crate::core::{Core, OpResult};
use crate::error::Error;
use crate::opened::Export;
use cow_format::entry::NodeKind;
use cow_format::{NodeId, VolumeId};

/// Where a request goes right now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    pub(crate) node: NodeId,
    pub(crate) volume: VolumeId,
    pub(crate) size_bytes: u64,
}

impl Core {
    pub(crate) fn open_export(&mut self, name: &str, write: bool) -> OpResult {
        let pool = self.pool()?;
        if write && pool.read_only {
            return Err(Error::ReadOnly("the pool".into()));
        }
        let id = pool.tree.resolve(name)?;
        let node = pool.tree.node(id).ok_or_else(|| Error::NotFound(name.into()))?;
        let entry = &node.entry;
        let is_head = entry.kind == NodeKind::Head;
        if write && !is_head {
            return Err(Error::ReadOnly(format!("snapshot {name}")));
        }
        let export = Export {
            name: name.to_owned(),
            volume: entry.volume,
            snapshot: (!is_head).then_some(id),
            write,
            rollback_gen: entry.rollback_gen,
        };
        let (size_bytes, rollback_gen) = (entry.size_bytes, entry.rollback_gen);
        let handle = ExportId(self.next_export);
        self.next_export += 1;
        self.exports.insert(handle, export);
        Ok(Reply::Export { export: handle, size_bytes, node: id, read_only: !write, rollback_gen })
    }

    /// Where a request through `export` goes; `write` asks for the right to change.
    pub(crate) fn target(&mut self, export: ExportId, write: bool) -> Result<Target, Error> {
        let unknown = || Error::Invalid(format!("export {} is not open", export.0));
        let opened = self.exports.get(&export).ok_or_else(unknown)?;
        if write && !opened.write {
            return Err(Error::ReadOnly(format!("export {}", opened.name)));
        }
        let (volume, snapshot) = (opened.volume, opened.snapshot);
        let rollback_gen = opened.rollback_gen;
        let pool = if write { self.writable()? } else { self.pool()? };
        let entry = snapshot.or_else(|| pool.head(volume)).and_then(|id| pool.tree.node(id));
        match entry.map(|node| &node.entry) {
            Some(entry) if snapshot.is_some() || entry.rollback_gen == rollback_gen => {
                Ok(Target { node: entry.id, volume, size_bytes: entry.size_bytes })
            }
            _ => {
                let name = self.exports.get(&export).map(|opened| opened.name.clone());
                Err(Error::Stale(name.unwrap_or_default()))
            }
        }
    }

    /// Lets `export` go on as if there had been no rollback: a fault to plant.
    pub(crate) fn unfence(&mut self, export: ExportId) {
        let Some(volume) = self.exports.get(&export).map(|export| export.volume) else { return };
        let head = self.pool.as_ref().and_then(|pool| pool.tree.node(pool.head(volume)?));
        let Some(rollback_gen) = head.map(|node| node.entry.rollback_gen) else { return };
        if let Some(export) = self.exports.get_mut(&export) {
            export.rollback_gen = rollback_gen;
        }
    }

    /// How many exports read and write a snapshot or, without one, the volume itself. One that
    /// was fenced by a rollback is nobody's any more.
    pub(crate) fn users(&self, volume: VolumeId, snapshot: Option<NodeId>) -> (u32, u32) {
        let head = self.pool.as_ref().and_then(|pool| pool.tree.node(pool.head(volume)?));
        let rollback_gen = head.map_or(0, |node| node.entry.rollback_gen);
        let counts = |e: &&Export| {
            e.volume == volume
                && e.snapshot == snapshot
                && (snapshot.is_some() || e.rollback_gen == rollback_gen)
        };
        let of = |write| {
            self.exports.values().filter(counts).filter(|e| e.write == write).count() as u32
        };
        (of(false), of(true))
    }
}

/// Checks that `[offset, offset + len)` lies in a volume of `size_bytes`.
pub(crate) fn check_range(offset: u64, len: u64, size_bytes: u64) -> Result<(), Error> {
    match offset.checked_add(len) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(Error::Invalid(format!(
            "bytes {offset}+{len} lie outside of the volume ({size_bytes} bytes)"
        ))),
    }
}
