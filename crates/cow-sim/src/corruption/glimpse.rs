//! All that clients can see of a pool that may be damaged: of every block what it holds, or that it
//! cannot be read.

use crate::model::{Snap, State};
use crate::value::Value;
use crate::world::{Machine, World};
use cow_engine::{Error, ExportId, Op, Reply};
use cow_format::BLOCK_SIZE;
use cow_format::entry::NodeKind;
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Blocks that are read at once.
const RUN: u64 = 64;

/// The tag of holds whose own cannot be read; docs/crash-consistency.md.
const LOST_HOLD: &str = "damaged";

/// What is seen of one volume or snapshot.
struct Node {
    size: u64,
    /// `None`: not readable.
    props: Option<BTreeMap<String, String>>,
    holds: Option<BTreeSet<String>>,
    expiry_ns: u64,
    kind: NodeKind,
    /// `None`: it cannot be read.
    blocks: BTreeMap<u64, Option<Value>>,
}

/// See the module.
pub struct Glimpse {
    nodes: BTreeMap<String, Node>,
    /// Properties of the pool; `None`: not readable.
    props: Option<BTreeMap<String, String>>,
    /// What folds have met and noted.
    damage: u64,
}

/// An error that says that something is damaged; any other cannot be.
fn is_honest(error: &Error) -> bool {
    matches!(error, Error::Corrupt(_) | Error::Io { .. } | Error::Poisoned(_))
}

fn ask<M: Machine>(world: &mut World<M>, op: Op) -> Result<Option<Reply>, String> {
    let what = format!("{op:?}");
    match world.run_op(op)? {
        Ok(reply) => Ok(Some(reply)),
        Err(error) if is_honest(&error) => Ok(None),
        Err(error) => Err(format!("{what} failed: {error:?}")),
    }
}

/// Looks at all volumes and snapshots, and of each at the blocks that `reads` names for it.
///
/// # Errors
/// When an answer contradicts itself, or fails with an error that does not say that something is
/// damaged; or when there is none.
pub fn glimpse<M: Machine>(
    world: &mut World<M>,
    reads: &BTreeMap<String, BTreeSet<u64>>,
) -> Result<Glimpse, String> {
    let none = BTreeSet::new();
    let list = ask(world, Op::List { exact: false })?;
    let Some(Reply::List(list)) = list else { return Err(format!("list answered {list:?}")) };
    let mut nodes = BTreeMap::new();
    for info in list.iter().filter(|node| node.live && node.kind != NodeKind::Pool) {
        let (props, holds) = props(world, &info.name)?;
        let open = Op::OpenExport { name: info.name.clone(), write: false };
        let mut blocks = BTreeMap::new();
        if let Some(Reply::Export { export, size_bytes, .. }) = ask(world, open)? {
            if size_bytes != info.size_bytes {
                return Err(format!("{} is {size_bytes} bytes long to its reader", info.name));
            }
            let lbas = reads.get(&info.name).unwrap_or(&none);
            read_all(world, export, size_bytes, lbas, &mut blocks)
                .map_err(|text| format!("{}: {text}", info.name))?;
            ask(world, Op::CloseExport { export })?;
        }
        let (size, expiry_ns, kind) = (info.size_bytes, info.expiry_ns, info.kind);
        let node = Node { size, props, holds, expiry_ns, kind, blocks };
        if nodes.insert(info.name.clone(), node).is_some() {
            return Err(format!("{} is listed twice", info.name));
        }
    }
    let props = props(world, "")?.0;
    let damage = match ask(world, Op::Info { exact: false })? {
        Some(Reply::Info(info)) => info.damage,
        other => return Err(format!("info answered {other:?}")),
    };
    Ok(Glimpse { nodes, props, damage })
}

type Marks = (Option<BTreeMap<String, String>>, Option<BTreeSet<String>>);

fn props<M: Machine>(world: &mut World<M>, name: &str) -> Result<Marks, String> {
    match ask(world, Op::GetProps { name: name.to_owned() })? {
        Some(Reply::Props { props, holds }) => {
            Ok((Some(props.into_iter().collect()), Some(holds.into_iter().collect())))
        }
        Some(other) => Err(format!("the properties of {name:?} are {other:?}")),
        None => Ok((None, None)),
    }
}

/// Reads runs of blocks, and where that fails each by itself.
fn read_all<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    size: u64,
    lbas: &BTreeSet<u64>,
    blocks: &mut BTreeMap<u64, Option<Value>>,
) -> Result<(), String> {
    let mut rest = lbas.range(..size.div_ceil(BLOCK)).copied().peekable();
    while let Some(first) = rest.next() {
        let mut end = first + 1;
        while end - first < RUN && rest.next_if_eq(&end).is_some() {
            end += 1;
        }
        if !read(world, export, size, (first, end), blocks)? && end - first > 1 {
            for lba in first..end {
                read(world, export, size, (lba, lba + 1), blocks)?;
            }
        }
    }
    Ok(())
}

/// Whether they can be read.
fn read<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    size: u64,
    (first, end): (u64, u64),
    blocks: &mut BTreeMap<u64, Option<Value>>,
) -> Result<bool, String> {
    let offset = first * BLOCK;
    let len = (end * BLOCK).min(size) - offset;
    let Some(reply) = ask(world, Op::Read { export, offset, len })? else {
        (first..end).for_each(|lba| drop(blocks.insert(lba, None)));
        return Ok(false);
    };
    let Reply::Data { buf, skip } = reply else { return Err(format!("read answered {reply:?}")) };
    let bytes = buf.get(skip..skip + len as usize).ok_or("a short read")?;
    for (lba, bytes) in (first..end).zip(bytes.chunks(BLOCK_SIZE)) {
        let mut page = [0; BLOCK_SIZE];
        page[..bytes.len()].copy_from_slice(bytes);
        blocks.insert(lba, Some(Value::of(&page)));
    }
    Ok(true)
}

impl Glimpse {
    /// What is seen and cannot be, were `state` the truth. `noted` is the damage that folds had noted
    /// before: one that notes more may have given up properties, but for holds of the tag `damaged`.
    ///
    /// # Errors
    /// That, in words.
    pub fn fits(&self, state: &State, noted: u64) -> Result<(), String> {
        let known: BTreeSet<String> = state
            .volumes
            .iter()
            .flat_map(|(name, volume)| {
                let snaps = volume.snap_names().map(move |snap| format!("{name}@{snap}"));
                snaps.chain([name.clone()])
            })
            .collect();
        if !known.iter().eq(self.nodes.keys()) {
            let seen: BTreeSet<String> = self.nodes.keys().cloned().collect();
            let differ: Vec<_> = known.symmetric_difference(&seen).collect();
            return Err(format!("these are there or are not: {differ:?}"));
        }
        if self.props.as_ref().is_some_and(|props| *props != *state.props) {
            return Err(format!("the pool has properties {:?}", self.props));
        }
        for (name, node) in &self.nodes {
            let snap = state.node(name).ok_or("names that do not fit")?;
            node.fits(snap, self.damage > noted).map_err(|text| format!("{name}: {text}"))?;
        }
        Ok(())
    }

    /// What cannot be read: volume or snapshot, and block of it.
    pub fn unreadable(&self) -> impl Iterator<Item = (&str, u64)> {
        self.nodes.iter().flat_map(|(name, node)| {
            let lost = node.blocks.iter().filter(|(_, value)| value.is_none());
            lost.map(move |(lba, _)| (name.as_str(), *lba))
        })
    }
}

impl Node {
    fn fits(&self, snap: &Snap, given_up: bool) -> Result<(), String> {
        if self.size != snap.size {
            return Err(format!("is {} bytes long, not {}", self.size, snap.size));
        }
        for (&lba, value) in &self.blocks {
            let should = snap.content.get(lba);
            if value.as_ref().is_some_and(|value| *value != should) {
                return Err(format!("block {lba} holds {value:?}, not {should:?}"));
            }
        }
        // What marks a snapshot that a rollback kept is not compared.
        if self.kind == NodeKind::Undo {
            return Ok(());
        }
        let lost = given_up && self.props.as_ref().is_some_and(BTreeMap::is_empty);
        if !lost && self.props.as_ref().is_some_and(|props| *props != *snap.props) {
            return Err(format!("has properties {:?}, not {:?}", self.props, snap.props));
        }
        let tags = self.holds.iter().flatten();
        let kept =
            tags.clone().all(|tag| tag == LOST_HOLD) && tags.count() == snap.holds.len().min(1);
        if !(lost && kept) && self.holds.as_ref().is_some_and(|holds| *holds != snap.holds) {
            return Err(format!("has holds {:?}, not {:?}", self.holds, snap.holds));
        }
        if self.kind != NodeKind::Head && self.expiry_ns != snap.how.expiry_ns {
            return Err(format!("expires at {}, not {}", self.expiry_ns, snap.how.expiry_ns));
        }
        Ok(())
    }
}
