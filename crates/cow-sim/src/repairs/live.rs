//! The life of a repaired pool: it is written to, its snapshots come and go, and all that was deleted
//! is reclaimed. What a repair has miscounted shows then, if not before: counts of what is being reclaimed
//! become those of others.

use crate::checked::View;
use crate::disk::{Crash, SimDisk};
use crate::model::Content;
use crate::rng::Rng;
use crate::small_config;
use crate::world::World;
use cow_check::{Options, Severity, Structure, check};
use cow_engine::{AckMode, Config, Engine, Error, NodeInfo, Op, Reply, SnapOptions, SnapTarget};
use cow_format::BLOCK_SIZE;
use cow_format::entry::NodeKind;

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Where writes go: the ends of leaves and of what lies above them, which may be lost.
const SPOTS: [u64; 6] = [0, 1, 255, 256, 65_536, 80_000];

/// A short history on a copy of the disk, from which a check must find nothing but what is lost.
///
/// # Errors
/// What cannot be.
pub fn live(disk: &SimDisk, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed ^ 0x11fe);
    let config = Config { layer_bytes: 64 << 10, ..small_config(AckMode::Writethrough) };
    let mut world = World::<Engine>::new(disk.crash(Crash::KeepAll), &config, rng.word());
    ask(&mut world, Op::Open { read_only: false })?.ok_or("it does not open for writing")?;
    for turn in 0..2 {
        let volumes = list(&mut world)?.into_iter().filter(|node| node.kind == NodeKind::Head);
        for volume in volumes {
            if turn > 0 || rng.one_in(2) {
                change(&mut world, &volume, &mut rng)?;
            }
            let target =
                SnapTarget { volume: volume.name.clone(), snapshot: format!("repaired{turn}") };
            let options = SnapOptions::default();
            ask(&mut world, Op::Snapshot { targets: vec![target], options })?;
            change(&mut world, &volume, &mut rng)?;
        }
        ask(&mut world, Op::Checkpoint)?;
        inspect(world.disk(), "after writes")?;
        for node in list(&mut world)? {
            let name = node.name;
            if name.contains('@') && rng.one_in(2) {
                ask(
                    &mut world,
                    Op::Delete { names: vec![name], recursive: false, dry_run: false },
                )?;
            }
        }
        if rng.one_in(2) {
            ask(&mut world, Op::Checkpoint)?;
            inspect(world.disk(), "while deletes are under way")?;
        }
        ask(&mut world, Op::WaitReclaim)?;
        inspect(world.disk(), "after reclaim")?;
    }
    ask(&mut world, Op::Close)?;
    world.run_until_idle()?;
    inspect(&world.disk().crash(Crash::LoseAll), "closed")
}

fn change(world: &mut World<Engine>, volume: &NodeInfo, rng: &mut Rng) -> Result<(), String> {
    let open = Op::OpenExport { name: volume.name.clone(), write: true };
    let Some(Reply::Export { export, .. }) = ask(world, open)? else { return Ok(()) };
    for lba in SPOTS {
        let blocks = rng.range(1, 4);
        let (offset, len) = (lba * BLOCK, blocks * BLOCK);
        if offset + len > volume.size_bytes || rng.one_in(3) {
            continue;
        }
        let op = if rng.one_in(4) {
            Op::Discard { export, offset, len, fua: false }
        } else {
            let data = Content::payload(offset, len, 1 + rng.below(1 << 20));
            let data = cow_format::Buf::from_bytes(&data);
            Op::Write { export, offset, len, data, fua: false }
        };
        ask(world, op)?;
    }
    ask(world, Op::CloseExport { export })?;
    Ok(())
}

fn list(world: &mut World<Engine>) -> Result<Vec<NodeInfo>, String> {
    match ask(world, Op::List { exact: false })? {
        Some(Reply::List(nodes)) => {
            Ok(nodes.into_iter().filter(|n| n.live && n.kind != NodeKind::Pool).collect())
        }
        other => Err(format!("list answered {other:?}")),
    }
}

/// The answer; none where the state of the pool is a reason to refuse.
fn ask(world: &mut World<Engine>, op: Op) -> Result<Option<Reply>, String> {
    let text = format!("{op:?}");
    match world.run_op(op).map_err(|error| format!("{text}: {error}"))? {
        Ok(reply) => Ok(Some(reply)),
        Err(
            Error::Corrupt(_)
            | Error::NoSpace(_)
            | Error::Busy(_)
            | Error::Exists(_)
            | Error::NotFound(_)
            | Error::Limit(_)
            | Error::Invalid(_),
        ) => Ok(None),
        Err(error) => Err(format!("{text}: {error}")),
    }
}

fn inspect(disk: &SimDisk, when: &str) -> Result<(), String> {
    let report = check(&mut View(disk), &Options::default())
        .map_err(|error| format!("{when} it cannot be checked: {error}"))?;
    // An area that was damaged long ago may be the one that comes next.
    let settled =
        |kind| matches!(kind, Structure::Data | Structure::KnownDamage | Structure::Checkpoint);
    let mut corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
    match corrupt.find(|finding| !settled(finding.kind)) {
        Some(finding) => Err(format!("{when} a check finds: {finding}")),
        None => Ok(()),
    }
}
