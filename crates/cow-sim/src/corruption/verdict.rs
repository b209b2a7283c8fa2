//! What becomes of one damaged pool.

use super::glimpse::{Glimpse, glimpse};
use super::harm::Harm;
use super::specimen::Specimen;
use crate::checked::View;
use crate::disk::SimDisk;
use crate::model::{Content, State};
use crate::rng::mix;
use crate::run::caught;
use crate::value::Value;
use crate::world::World;
use cow_check::Options;
use cow_engine::{Engine, Error, Op, Reply};
use cow_format::geometry::{AG_ZONES, CHUNK_BLOCKS};
use cow_format::mapnode::{self, span_blocks};
use cow_format::{BLOCK_SIZE, Buf};

const BLOCK: u64 = BLOCK_SIZE as u64;
/// Token of what is written after the damage.
const TOKEN: u64 = 1 << 40;

/// How it ended, nothing being wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// It opens for writing.
    pub opens: bool,
    /// And for reading.
    pub opens_read_only: bool,
    /// Blocks of volumes and snapshots that cannot be read.
    pub unreadable: u64,
    /// The last group is gone.
    pub cut: bool,
    /// The checker calls it corrupt.
    pub reported: bool,
}

/// How much is done with a damaged pool that opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// It is opened and read.
    Look,
    /// It is written to and folded as well.
    Fold,
}

/// Damages a copy and looks at it in every way.
///
/// # Errors
/// Wrong data, a panic, no end, damage that nobody notices, or more of it than there is.
pub fn judge(specimen: &Specimen, harm: &Harm, depth: Depth) -> Result<Outcome, String> {
    let Some(page) = harm.page(specimen) else { return Err("nothing is damaged".to_owned()) };
    let mut disk = specimen.disk.fork_durable();
    disk.poke(harm.block, page);
    let seed = mix(harm.block);
    let outcome = caught(|| for_writing(specimen, harm, &disk, seed, depth))?;
    let (opens_read_only, lost) =
        caught(|| for_reading(specimen, harm, &disk, seed)).map_err(at("read-only"))?;
    let found = caught(|| check(&disk)).map_err(at("checker"))?;
    let reported = found > specimen.findings;
    if !reported && (lost || !outcome.opens || outcome.unreadable > 0) {
        return Err("the checker finds nothing, but it does not open or read".to_owned());
    }
    Ok(Outcome { opens_read_only, reported, ..outcome })
}

fn at(place: &'static str) -> impl Fn(String) -> String {
    move |text| format!("{place}: {text}")
}

fn open(
    disk: SimDisk,
    specimen: &Specimen,
    seed: u64,
    read_only: bool,
) -> Result<Option<World<Engine>>, String> {
    let mut world = World::<Engine>::new(disk, &specimen.config, seed);
    match world.run_op(Op::Open { read_only })? {
        Ok(_) => Ok(Some(world)),
        Err(Error::Corrupt(_) | Error::Io { .. }) => Ok(None),
        Err(other) => Err(format!("open failed: {other:?}")),
    }
}

fn bugs(world: &mut World<Engine>) -> Result<(), String> {
    world.disk_mut().take_bugs().pop().map_or(Ok(()), Err)
}

/// Which of the legal states it is.
fn fits(seen: &Glimpse, legal: &[State], noted: u64) -> Result<usize, String> {
    let mut texts = Vec::new();
    for (index, state) in legal.iter().enumerate().rev() {
        match seen.fits(state, noted) {
            Ok(()) => return Ok(index),
            Err(text) => texts.push(format!("not state {index}, as {text}")),
        }
    }
    Err(texts.join("; "))
}

fn for_writing(
    specimen: &Specimen,
    harm: &Harm,
    disk: &SimDisk,
    seed: u64,
    depth: Depth,
) -> Result<Outcome, String> {
    let Some(mut world) = open(disk.fork_durable(), specimen, seed, false)? else {
        return Ok(Outcome::default());
    };
    let seen = glimpse(&mut world, &specimen.reads)?;
    let index = fits(&seen, &specimen.legal, specimen.noted)?;
    contained(specimen, harm, &seen)?;
    bugs(&mut world)?;
    if depth == Depth::Fold {
        let mut state = specimen.legal[index].clone();
        go_on(&mut world, &mut state).map_err(at("after writes and folds"))?;
        let seen = glimpse(&mut world, &specimen.reads).map_err(at("after folds"))?;
        fits(&seen, &[state], specimen.noted).map_err(at("after writes and folds"))?;
        contained(specimen, harm, &seen).map_err(at("after writes and folds"))?;
        bugs(&mut world)?;
        check(world.disk()).map_err(at("checker after folds"))?;
    }
    let unreadable = seen.unreadable().count() as u64;
    let cut = index + 1 < specimen.legal.len();
    Ok(Outcome { opens: true, unreadable, cut, ..Outcome::default() })
}

/// Writes to every volume that still takes it, and folds twice. What is refused has not happened.
fn go_on(world: &mut World<Engine>, state: &mut State) -> Result<(), String> {
    let honest =
        |error: &Error| matches!(error, Error::Corrupt(_) | Error::Io { .. } | Error::Poisoned(_));
    for (index, (name, volume)) in state.volumes.iter_mut().enumerate() {
        let open = Op::OpenExport { name: name.clone(), write: true };
        let export = match world.run_op(open)? {
            Ok(Reply::Export { export, .. }) => export,
            Err(error) if honest(&error) => continue,
            other => return Err(format!("{name} cannot be opened: {other:?}")),
        };
        let token = TOKEN + index as u64;
        let data = Buf::from_bytes(&Content::payload(0, BLOCK, token));
        match world.run_op(Op::Write { export, offset: 0, len: BLOCK, data, fua: false })? {
            Ok(_) => volume.head.content.set(0, Value::Token(token)),
            Err(error) if honest(&error) => {}
            Err(error) => return Err(format!("a write to {name}: {error:?}")),
        }
        world.run_op(Op::CloseExport { export })?.map_err(|error| error.to_string())?;
    }
    for _ in 0..2 {
        match world.run_op(Op::Checkpoint)? {
            Ok(_) => {}
            Err(error) if honest(&error) => {}
            Err(error) => return Err(format!("a checkpoint: {error:?}")),
        }
    }
    Ok(())
}

/// A reader writes nothing. Whether it opens, and whether something cannot be read.
fn for_reading(
    specimen: &Specimen,
    harm: &Harm,
    disk: &SimDisk,
    seed: u64,
) -> Result<(bool, bool), String> {
    let Some(mut world) = open(disk.fork_durable(), specimen, seed, true)? else {
        return Ok((false, true));
    };
    let seen = glimpse(&mut world, &specimen.reads)?;
    fits(&seen, &specimen.legal, specimen.noted)?;
    contained(specimen, harm, &seen)?;
    bugs(&mut world)?;
    if world.disk().changes() != 0 {
        return Err("a reader has changed the disk".to_owned());
    }
    Ok((true, seen.unreadable().next().is_some()))
}

/// Whether a block of a volume or snapshot may be lost.
type Owns<'a> = Box<dyn Fn(&str, u64) -> bool + 'a>;

/// A damaged block of data costs what holds it, a map node what lies below it, and anything else
/// nothing that can be read of volumes.
fn contained(specimen: &Specimen, harm: &Harm, seen: &Glimpse) -> Result<(), String> {
    let page = specimen.disk.peek(harm.block);
    let owns: Owns<'_> = match Value::of(&page) {
        value @ Value::Token(_) => Box::new(move |name, lba| {
            let holds =
                |state: &State| state.node(name).is_some_and(|node| node.content.get(lba) == value);
            specimen.legal.iter().any(holds)
        }),
        _ if page[..4] == mapnode::MAGIC.to_le_bytes() => {
            let span = span_blocks(page[6].min(mapnode::MAX_LEVEL));
            let mut index = [0; 8];
            index.copy_from_slice(&page[24..32]);
            let from = u64::from_le_bytes(index).saturating_mul(span);
            Box::new(move |_, lba| (from..from.saturating_add(span)).contains(&lba))
        }
        _ => Box::new(|_, _| false),
    };
    match seen.unreadable().find(|(name, lba)| !owns(name, *lba)) {
        Some((name, lba)) => Err(format!("block {lba} of {name} cannot be read")),
        None => Ok(()),
    }
}

/// How much that is corrupt the checker finds; very much if it cannot begin.
fn check(disk: &SimDisk) -> Result<u64, String> {
    let report = cow_check::check(&mut View(disk), &Options::default());
    Ok(report.map_or(u64::MAX, |report| report.corruptions))
}

/// The kind of structure in a block, as the specimen has it: for tables of what happened.
#[must_use]
pub fn kind_of(specimen: &Specimen, block: u64) -> &'static str {
    let page = specimen.disk.peek(block);
    let layout = &specimen.layout;
    let is_in = |start: u64, blocks: u64| (start..start + blocks).contains(&block);
    let checkpoints = specimen.checkpoints();
    let mut chunks = checkpoints.iter().flat_map(|cp| &cp.chunks);
    match &page[..4] {
        b"COWS" => "superblock",
        _ if is_in(layout.journal_start, layout.journal_blocks) => "frame",
        _ if layout.cp_start.iter().any(|&start| is_in(start, layout.cp_blocks)) => "checkpoint",
        _ if is_in(layout.homes_start, AG_ZONES * 2) => "bitmap",
        _ if chunks.any(|chunk| is_in(chunk.0, CHUNK_BLOCKS)) => "node table",
        b"CMAP" if page[6] == 0 => "leaf",
        b"CMAP" => "inner map node",
        b"CBLB" if page[4] == 1 => "kill row",
        b"CBLB" => "properties",
        _ if matches!(Value::of(&page), Value::Token(_)) => "data",
        _ => "other",
    }
}
