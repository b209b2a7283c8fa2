//! Reads all that can be read of a pool that may be damaged.

use crate::model::State;
use crate::sim::observe;
use crate::value::Value;
use crate::world::{Machine, World};
use cow_engine::{Error, NodeInfo, Op, Reply};
use cow_format::BLOCK_SIZE;
use cow_format::entry::NodeKind;
use std::collections::{BTreeMap, HashSet};

const BLOCK: u64 = BLOCK_SIZE as u64;

/// What each block may hold, in whichever volume or snapshot: all that was ever written there, and
/// zeros.
#[derive(Default)]
pub struct Legal {
    values: BTreeMap<u64, HashSet<u64>>,
}

impl Legal {
    /// The block may hold this.
    pub fn note(&mut self, lba: u64, value: &Value) {
        self.values.entry(lba).or_default().insert(value.digest());
    }

    fn allows(&self, lba: u64, value: &Value) -> bool {
        value.is_zero()
            || self.values.get(&lba).is_some_and(|values| values.contains(&value.digest()))
    }
}

/// What was seen.
#[derive(Default)]
pub struct Seen {
    /// Blocks that hold what they may.
    pub right: u64,
    /// Blocks, volumes and snapshots that cannot be read.
    pub unreadable: u64,
    /// All that clients can see, if all of that can be read.
    pub state: Option<State>,
}

/// Reads every block that was ever written, of every volume and snapshot, one by one. An error is
/// fine if it says that something is damaged or failed.
///
/// # Errors
/// When a block holds what was never written there, or an error is of another kind.
pub fn read_leniently<M: Machine>(world: &mut World<M>, legal: &Legal) -> Result<Seen, String> {
    let mut seen = Seen::default();
    let Some(reply) = ask(world, Op::List { exact: false }, &mut seen)? else { return Ok(seen) };
    let Reply::List(nodes) = reply else { return Err(format!("list answered {reply:?}")) };
    for node in nodes.iter().filter(|node| node.live && node.kind != NodeKind::Pool) {
        read_node(world, node, legal, &mut seen)
            .map_err(|text| format!("{}: {text}", node.name))?;
    }
    if seen.unreadable == 0 {
        // What was not asked for, like properties, may still be damaged.
        seen.state = observe(world).ok();
    }
    Ok(seen)
}

fn ask<M: Machine>(world: &mut World<M>, op: Op, seen: &mut Seen) -> Result<Option<Reply>, String> {
    let what = format!("{op:?}");
    match world.run_op(op)? {
        Ok(reply) => Ok(Some(reply)),
        Err(Error::Corrupt(_) | Error::Io { .. } | Error::Poisoned(_)) => {
            seen.unreadable += 1;
            Ok(None)
        }
        Err(error) => Err(format!("{what} failed: {error:?}")),
    }
}

fn read_node<M: Machine>(
    world: &mut World<M>,
    node: &NodeInfo,
    legal: &Legal,
    seen: &mut Seen,
) -> Result<(), String> {
    let open = Op::OpenExport { name: node.name.clone(), write: false };
    let Some(Reply::Export { export, size_bytes, .. }) = ask(world, open, seen)? else {
        return Ok(());
    };
    for &lba in legal.values.keys() {
        let offset = lba * BLOCK;
        if offset >= size_bytes {
            break;
        }
        let len = BLOCK.min(size_bytes - offset);
        let Some(reply) = ask(world, Op::Read { export, offset, len }, seen)? else { continue };
        let Reply::Data { buf, skip } = reply else { return Err(format!("answered {reply:?}")) };
        let bytes = buf.get(skip..skip + len as usize).ok_or("a short read")?;
        let mut page = [0; BLOCK_SIZE];
        page[..bytes.len()].copy_from_slice(bytes);
        let value = Value::of(&page);
        // The last block of a volume may be cut anywhere.
        if len == BLOCK && !legal.allows(lba, &value) {
            return Err(format!("block {lba} holds {value:?}, which was never written there"));
        }
        seen.right += 1;
    }
    ask(world, Op::CloseExport { export }, seen)?;
    Ok(())
}
