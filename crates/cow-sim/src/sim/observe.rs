//! Reads back all that clients can see.

use crate::cmd::SnapHow;
use crate::model::{Content, Snap, State, Volume};
use crate::rng::mix;
use crate::sim::roots::check_root;
use crate::value::Value;
use crate::world::{Machine, World};
use cow_engine::{ExportId, NodeInfo, Op, Reply};
use cow_format::BLOCK_SIZE;
use cow_format::entry::NodeKind;
use std::collections::BTreeSet;
use std::sync::Arc;

const READ_BYTES: u64 = 256 << 10;
const BLOCK: u64 = BLOCK_SIZE as u64;

/// Reads every volume and snapshot whole: what is mapped, block by block, and that the rest
/// reads as zeros. Nothing else may be in progress.
///
/// # Errors
/// When something cannot be read, or contradicts itself.
pub fn observe<M: Machine>(world: &mut World<M>) -> Result<State, String> {
    observe_written(world, &BTreeSet::new())
}

/// The same, and compares the content root of one volume or snapshot in `roots`.
///
/// # Errors
/// Likewise.
pub fn observe_roots<M: Machine>(world: &mut World<M>, roots: u64) -> Result<State, String> {
    observe_all(world, &BTreeSet::new(), roots)
}

/// The same, and reads the blocks `written` of every volume and snapshot even where nothing is
/// said to be mapped.
pub(super) fn observe_written<M: Machine>(
    world: &mut World<M>,
    written: &BTreeSet<u64>,
) -> Result<State, String> {
    observe_all(world, written, 3)
}

fn observe_all<M: Machine>(
    world: &mut World<M>,
    written: &BTreeSet<u64>,
    roots: u64,
) -> Result<State, String> {
    let reply = ask(world, Op::List { exact: false })?;
    let Reply::List(nodes) = reply else { return Err(format!("list answered {reply:?}")) };
    let mut state = State::default();
    let mut snaps: Vec<(&NodeInfo, Snap)> = Vec::new();
    for node in nodes.iter().filter(|node| node.live && node.kind != NodeKind::Pool) {
        let snap = read_node(world, node, written, roots)
            .map_err(|text| format!("{}: {text}", node.name))?;
        if node.name.contains('@') {
            snaps.push((node, snap));
            continue;
        }
        let volume = Volume { head: snap, rollbacks: node.rollback_gen, ..Volume::default() };
        if state.volumes.insert(node.name.clone(), volume).is_some() {
            return Err(format!("{} is listed twice", node.name));
        }
    }
    snaps.sort_by_key(|(node, _)| node.name.rsplit('.').next()?.parse::<u64>().ok());
    for (node, snap) in snaps {
        let (volume, name) = node.name.split_once('@').unwrap_or_default();
        let home = state.volumes.get_mut(volume);
        let home = home.ok_or_else(|| format!("{} has no volume", node.name))?;
        home.taken.extend((node.kind != NodeKind::Undo).then(|| name.to_owned()));
        if node.kind == NodeKind::Undo {
            home.undos.push((name.to_owned(), snap));
        } else if home.snaps.insert(name.to_owned(), snap).is_some() {
            return Err(format!("{} is listed twice", node.name));
        }
    }
    let id_of = |volume: &str, snap: &str| {
        let own = format!("{volume}@{snap}");
        nodes.iter().find(|node| node.name == own).map(|node| node.node)
    };
    for (name, volume) in &mut state.volumes {
        volume.taken.sort_by_key(|snap| id_of(name, snap));
    }
    // A machine without policies has none.
    if let Ok(Reply::Props { props, .. }) = world.run_op(Op::GetProps { name: String::new() })? {
        state.props = Arc::new(props.into_iter().collect());
    }
    Ok(state)
}

/// How a snapshot is marked. An undo snapshot is not compared in this, and a head has nothing.
fn marks<M: Machine>(
    world: &mut World<M>,
    node: &NodeInfo,
) -> Result<(SnapHow, BTreeSet<String>), String> {
    let mut holds = Vec::new();
    if node.holds > 0 {
        let reply = ask(world, Op::GetProps { name: node.name.clone() })?;
        let Reply::Props { holds: tags, .. } = reply else {
            return Err(format!("answered {reply:?}"));
        };
        holds = tags;
    }
    if holds.len() != node.holds as usize {
        return Err(format!("has {holds:?}, but {} holds in the list", node.holds));
    }
    let how = match node.kind {
        NodeKind::User | NodeKind::Auto => {
            SnapHow { auto: node.kind == NodeKind::Auto, expiry_ns: node.expiry_ns }
        }
        _ => SnapHow::default(),
    };
    Ok((how, holds.into_iter().collect()))
}

fn ask<M: Machine>(world: &mut World<M>, op: Op) -> Result<Reply, String> {
    let what = format!("{op:?}");
    world.run_op(op)?.map_err(|error| format!("{what} failed: {error}"))
}

fn read_node<M: Machine>(
    world: &mut World<M>,
    node: &NodeInfo,
    written: &BTreeSet<u64>,
    roots: u64,
) -> Result<Snap, String> {
    let reply = ask(world, Op::OpenExport { name: node.name.clone(), write: false })?;
    let Reply::Export { export, size_bytes: size, .. } = reply else {
        return Err(format!("opening answered {reply:?}"));
    };
    if size != node.size_bytes {
        return Err(format!("is {size} bytes long, but {} in the list", node.size_bytes));
    }
    let mut content = Content::default();
    let mut offset = 0;
    let mut holes = Vec::new();
    while offset < size {
        let reply = ask(world, Op::Extents { export, offset, len: size - offset })?;
        let Reply::Extents(extents) = reply else { return Err(format!("answered {reply:?}")) };
        if extents.iter().map(|extent| extent.len).sum::<u64>() == 0 {
            return Err(format!("the map ends at {offset} of {size}"));
        }
        for extent in extents {
            let end = offset + extent.len;
            if extent.len == 0 || end > size || end < size && end % BLOCK != 0 {
                return Err(format!("an extent of {} bytes at {offset} of {size}", extent.len));
            }
            if extent.mapped {
                read_mapped(world, export, offset, end, &mut content)?;
            } else {
                holes.push((offset, end));
            }
            offset = end;
        }
    }
    read_a_hole(world, export, &holes)?;
    for &(from, to) in &holes {
        for (from, to) in runs_in(written, from, to) {
            read_zeros(world, export, from, to - from)?;
        }
    }
    ask(world, Op::CloseExport { export })?;
    if mix(world.now_ns() ^ size).is_multiple_of(roots) {
        check_root(world, &node.name, size, &content)?;
    }
    let (how, holds) = marks(world, node)?;
    Ok(Snap { size, content, props: Arc::new(node.props.iter().cloned().collect()), how, holds })
}

fn read<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    offset: u64,
    len: u64,
) -> Result<Vec<u8>, String> {
    let reply = ask(world, Op::Read { export, offset, len })?;
    let Reply::Data { buf, skip } = reply else { return Err(format!("read answered {reply:?}")) };
    let bytes = buf.get(skip..skip + len as usize).map(<[u8]>::to_vec);
    bytes.ok_or_else(|| format!("a read of {len} bytes gave {} after {skip}", buf.len()))
}

fn read_mapped<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    mut offset: u64,
    end: u64,
    content: &mut Content,
) -> Result<(), String> {
    while offset < end {
        let len = (end - offset).min(READ_BYTES);
        let bytes = read(world, export, offset, len)?;
        for (lba, block) in (offset / BLOCK..).zip(bytes.chunks(BLOCK_SIZE)) {
            let mut page = [0; BLOCK_SIZE];
            page[..block.len()].copy_from_slice(block);
            let value = Value::of(&page);
            if value.is_zero() {
                return Err(format!("block {lba} is mapped, but all zeros"));
            }
            content.set(lba, value);
        }
        offset += len;
    }
    Ok(())
}

/// Reads somewhere in a hole: the map must not hide data.
fn read_a_hole<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    holes: &[(u64, u64)],
) -> Result<(), String> {
    let chance = mix(world.now_ns());
    let Some(&(from, to)) = holes.get(chance as usize % holes.len().max(1)) else { return Ok(()) };
    let len = (to - from).min(2 * BLOCK);
    let offset = from + (mix(chance) % (to - from - len + 1)) / 512 * 512;
    read_zeros(world, export, offset, len)
}

/// Runs of `blocks`, in bytes, none longer than a read, that lie in `from..to`.
fn runs_in(blocks: &BTreeSet<u64>, from: u64, to: u64) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for lba in blocks.range(from / BLOCK..to.div_ceil(BLOCK)) {
        let (at, end) = (lba * BLOCK, (lba * BLOCK + BLOCK).min(to));
        match runs.last_mut() {
            Some(run) if run.1 == at && end - run.0 <= READ_BYTES => run.1 = end,
            _ => runs.push((at, end)),
        }
    }
    runs
}

fn read_zeros<M: Machine>(
    world: &mut World<M>,
    export: ExportId,
    offset: u64,
    len: u64,
) -> Result<(), String> {
    let bytes = read(world, export, offset, len)?;
    match bytes.iter().position(|&byte| byte != 0) {
        Some(at) => Err(format!("byte {} is not mapped, but not zero", offset + at as u64)),
        None => Ok(()),
    }
}
