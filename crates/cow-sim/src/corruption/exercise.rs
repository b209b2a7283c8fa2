//! Everything that can be asked of a pool that somebody has forged. Any answer will do, data and errors
//! alike: nobody can tell what the truth is. But there is one, and nothing panics.

use crate::checked::View;
use crate::disk::SimDisk;
use crate::world::World;
use cow_check::{Options, What};
use cow_engine::{Config, DiffQuery, Engine, NodeInfo, Op, Reply, SnapOptions, SnapTarget};
use cow_format::{BLOCK_SIZE, Buf};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Volumes and snapshots that are looked at, and extents of each.
const NODES: usize = 24;
const EXTENTS: usize = 64;

/// Has the checker and the dumper read the disk, opens it for reading and for writing, reads what is
/// there, and changes it.
///
/// # Errors
/// When the machine gives no answer, or a fault of it shows.
pub fn exercise(disk: &SimDisk, config: &Config, seed: u64) -> Result<(), String> {
    let options = Options { max_findings: 50, ..Options::default() };
    let _ = cow_check::check(&mut View(disk), &options);
    for what in [What::Superblock, What::Checkpoint, What::Journal, What::Nodes] {
        let _ = cow_check::dump(&mut View(disk), &what);
    }
    for read_only in [true, false] {
        let mut world = World::<Engine>::new(disk.fork_durable(), config, seed);
        if world.run_op(Op::Open { read_only })?.is_err() {
            continue;
        }
        let nodes = look(&mut world)?;
        if !read_only {
            change(&mut world, &nodes)?;
            look(&mut world)?;
        }
        world.run_op(Op::Close)?.ok();
        let _ = cow_check::check(&mut View(world.disk()), &options);
    }
    Ok(())
}

/// Lists and reads.
fn look(world: &mut World<Engine>) -> Result<Vec<NodeInfo>, String> {
    let mut nodes = match world.run_op(Op::List { exact: false })? {
        Ok(Reply::List(nodes)) => nodes,
        _ => Vec::new(),
    };
    nodes.truncate(NODES);
    world.run_op(Op::Info { exact: false })?.ok();
    let mut before: Option<&NodeInfo> = None;
    for node in &nodes {
        let name = node.name.clone();
        world.run_op(Op::GetProps { name: name.clone() })?.ok();
        world.run_op(Op::SetSize { names: vec![name.clone()], wait: true })?.ok();
        if let Some(before) = before.replace(node) {
            world.run_op(Op::Diff(DiffQuery::all(&before.name, &name, 100)))?.ok();
        }
        if let Ok(Reply::Export { export, size_bytes, .. }) =
            world.run_op(Op::OpenExport { name, write: false })?
        {
            read(world, export, size_bytes)?;
            world.run_op(Op::CloseExport { export })?.ok();
        }
    }
    Ok(nodes)
}

fn read(world: &mut World<Engine>, export: cow_engine::ExportId, size: u64) -> Result<(), String> {
    let (mut offset, mut rest) = (0, EXTENTS);
    while offset < size && rest > 0 {
        let found = world.run_op(Op::Extents { export, offset, len: size - offset })?;
        let Ok(Reply::Extents(extents)) = found else { return Ok(()) };
        for extent in extents {
            let len = extent.len.min(16 * BLOCK).min(size - offset);
            if extent.mapped {
                world.run_op(Op::Read { export, offset, len })?.ok();
            }
            rest = rest.saturating_sub(1);
            offset = offset.saturating_add(extent.len.max(512)).min(size);
        }
    }
    Ok(())
}

/// Writes, verbs, folds and reclaim.
fn change(world: &mut World<Engine>, nodes: &[NodeInfo]) -> Result<(), String> {
    let volumes = nodes.iter().filter(|node| !node.name.contains('@') && node.live);
    for (index, node) in volumes.enumerate() {
        let name = node.name.clone();
        if let Ok(Reply::Export { export, .. }) =
            world.run_op(Op::OpenExport { name: name.clone(), write: true })?
        {
            let data = Buf::from_bytes(&[7; BLOCK_SIZE]);
            let write = Op::Write { export, offset: 0, len: BLOCK, data, fua: index == 0 };
            world.run_op(write)?.ok();
            world.run_op(Op::Discard { export, offset: BLOCK, len: 1 << 30, fua: false })?.ok();
            world.run_op(Op::CloseExport { export })?.ok();
        }
        let targets = vec![SnapTarget { volume: name, snapshot: "new".into() }];
        world.run_op(Op::Snapshot { targets, options: SnapOptions::default() })?.ok();
    }
    world.run_op(Op::Checkpoint)?.ok();
    for node in nodes.iter().filter(|node| node.name.contains('@')).step_by(2) {
        let names = vec![node.name.clone()];
        world.run_op(Op::Delete { names, recursive: true, dry_run: false })?.ok();
    }
    for _ in 0..3 {
        world.run_op(Op::Checkpoint)?.ok();
    }
    Ok(())
}
