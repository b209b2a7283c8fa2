//! What clients see of a pool that may be damaged.

use crate::disk::{Crash, SimDisk};
use crate::model::{Snap, State};
use crate::small_config;
use crate::value::{Page, Value};
use crate::world::World;
use cow_engine::{AckMode, Config, Engine, Error, Op, Reply};
use cow_format::BLOCK_SIZE;
use cow_format::entry::NodeKind;
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// The blocks that are read, of every volume and snapshot: where anything was ever written, and the
/// neighbours.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeSet<u64>);

impl Places {
    /// Adds what holds something in `state`.
    pub fn note(&mut self, state: &State) {
        let mut add = |snap: &Snap| {
            for (lba, _) in snap.content.iter() {
                self.0.extend([lba.saturating_sub(1), lba, lba + 1]);
            }
        };
        for volume in state.volumes.values() {
            add(&volume.head);
            volume.snaps.values().for_each(&mut add);
            volume.undos.iter().for_each(|(_, snap)| add(snap));
        }
    }
}

/// What was read, by name and block; nothing where that fails, because of damage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen(BTreeMap<String, BTreeMap<u64, Option<u64>>>);

impl Seen {
    /// The same, with the blocks unreadable of which `lost` says so.
    pub fn without(&self, lost: impl Fn(&str, u64) -> bool) -> Self {
        let mut all = self.clone();
        for (name, blocks) in &mut all.0 {
            for (lba, value) in blocks.iter_mut().filter(|(lba, _)| lost(name, **lba)) {
                let _ = lba;
                *value = None;
            }
        }
        all
    }

    /// The first thing in which `found` differs.
    pub fn difference(&self, found: &Self) -> String {
        let names = |seen: &Self| seen.0.keys().cloned().collect::<Vec<_>>();
        if names(self) != names(found) {
            return format!("there are {:?}, not {:?}", names(found), names(self));
        }
        for (name, blocks) in &self.0 {
            for (lba, value) in blocks {
                let other = found.0.get(name).and_then(|blocks| blocks.get(lba));
                if other != Some(value) {
                    return format!("{name}, block {lba} is {other:?}, not {value:?}");
                }
            }
        }
        "nothing differs".to_owned()
    }
}

/// Reads a copy of the disk; none when the pool does not open.
///
/// # Errors
/// When something fails that is not damage.
pub fn look(disk: &SimDisk, places: &Places) -> Result<Option<Seen>, String> {
    let config = Config { layer_bytes: 1 << 20, ..small_config(AckMode::Writethrough) };
    let mut world = World::<Engine>::new(disk.crash(Crash::KeepAll), &config, 1);
    match world.run_op(Op::Open { read_only: true })? {
        Ok(_) => {}
        Err(Error::Corrupt(_) | Error::Unsupported(_)) => return Ok(None),
        Err(error) => return Err(format!("open failed: {error}")),
    }
    let nodes = match world.run_op(Op::List { exact: false })? {
        Ok(Reply::List(nodes)) => nodes,
        other => return Err(format!("list answered {other:?}")),
    };
    let mut seen = Seen::default();
    for node in nodes.into_iter().filter(|node| node.live && node.kind != NodeKind::Pool) {
        let open = Op::OpenExport { name: node.name.clone(), write: false };
        let blocks = seen.0.entry(node.name.clone()).or_default();
        let (export, size) = match world.run_op(open)? {
            Ok(Reply::Export { export, size_bytes, .. }) => (export, size_bytes),
            Err(Error::Corrupt(_)) => continue,
            other => return Err(format!("opening {} answered {other:?}", node.name)),
        };
        for &lba in places.0.range(..size / BLOCK) {
            let read = world.run_op(Op::Read { export, offset: lba * BLOCK, len: BLOCK })?;
            let value = match read {
                Ok(Reply::Data { buf, skip }) => {
                    let bytes = buf.get(skip..skip + BLOCK_SIZE).ok_or("a short read")?;
                    let mut page: Page = [0; BLOCK_SIZE];
                    page.copy_from_slice(bytes);
                    Some(Value::of(&page).digest())
                }
                Err(Error::Corrupt(_)) => None,
                other => return Err(format!("{}, block {lba}: {other:?}", node.name)),
            };
            blocks.insert(lba, value);
        }
        drop(world.run_op(Op::CloseExport { export })?);
    }
    Ok(Some(seen))
}
