//! Repairs as workloads: a pool that a workload leaves is damaged, and its repair dies at every
//! device operation, or has every n-th one fail.
//!
//! Each disk that a crash leaves reads as the damaged pool does, or as the plan says; repaired
//! again, perhaps with a second crash at every operation of that, it is in order, opens, and all
//! that the plan did not call lost reads as before the damage. Repaired without a crash, and now and
//! then after one, it lives on: see `live`.

mod device;
mod live;
mod look;

use crate::checked::View;
use crate::crashes::Depth;
use crate::disk::{Class, Crash, Faults, NthFault, SimDisk, holds_data};
use crate::rng::{Rng, mix};
use crate::run::caught;
use crate::sim::Stop;
use crate::workloads::{Workload, named};
use cow_check::repair::{Action, Plan, RepairError, apply, plan};
use cow_check::{Options, Severity, Structure, check};
use cow_engine::Engine;
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use device::Device;
use live::live;
use look::{Places, Seen, look};
use std::collections::HashSet;
use std::ops::{AddAssign, Range};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;
/// Choices of damage that are tried until there is one to be repaired.
const TRIES: u64 = 40;
/// Of so many pools that were repaired after a crash, one lives on.
const LIVES: u64 = 12;

/// What explorations of repairs came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Repairs that were explored.
    pub repairs: u64,
    /// Damaged pools that were refused.
    pub refused: u64,
    /// Crashed disks that were read and repaired again, no two of a repair equal.
    pub states: u64,
    /// Those of them that a crash inside of a second repair left.
    pub second: u64,
    /// Crashed disks that a second repair refuses, since two checkpoints are damaged then.
    pub refused_again: u64,
    /// Repairs that met a failing operation.
    pub failures: u64,
    /// Repaired pools that were written to.
    pub lives: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.repairs += more.repairs;
        self.refused += more.refused;
        self.states += more.states;
        self.second += more.second;
        self.refused_again += more.refused_again;
        self.failures += more.failures;
        self.lives += more.lives;
    }
}

fn plan_of(disk: &SimDisk) -> Result<Plan, RepairError> {
    plan(&mut View(disk), &Options::default())
}

/// Damages what a workload leaves, in a way that `seed` chooses, and explores its repair.
///
/// # Errors
/// What cannot be.
pub fn explore(depth: Depth, seed: u64) -> Result<Tally, String> {
    let mut rng = Rng::new(seed ^ 0x4e9a);
    let named = named();
    let workload = &named[rng.index(named.len())];
    let failed = |text| format!("repair after \"{}\": {text}", workload.name);
    caught(|| of_workload(workload, depth, &mut rng)).map_err(failed)
}

fn of_workload(workload: &Workload, depth: Depth, rng: &mut Rng) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let (disk, places) = left_by(workload, rng)?;
    for _ in 0..TRIES {
        let broken = damage(&disk, rng)?;
        let plan = match caught(|| Ok::<_, String>(plan_of(&broken.disk)))? {
            Ok(plan) if plan.is_empty() => continue,
            Ok(plan) => plan,
            Err(RepairError::Refused(_) | RepairError::NoSpace | RepairError::Open(_)) => {
                tally.refused += 1;
                continue;
            }
            Err(error) => return Err(format!("{}: {error}", broken.how)),
        };
        let at = |text| format!("{}, {:?}: {text}", broken.how, plan.actions);
        let before =
            look(&broken.cut, &places).map_err(at)?.ok_or("a repair of a damaged journal")?;
        let mut case = Case {
            as_was: look(&broken.disk, &places).map_err(at)?,
            places: &places,
            before,
            plan: &plan,
            known: HashSet::new(),
            found: Tally { repairs: 1, ..Tally::default() },
        };
        case.crashes(&broken.disk, depth, rng).map_err(at)?;
        case.failures(&broken.disk, rng).map_err(at)?;
        tally += case.found;
        break;
    }
    Ok(tally)
}

/// The disk that a workload leaves, closed or not, and where it has ever written.
fn left_by(workload: &Workload, rng: &mut Rng) -> Result<(SimDisk, Places), String> {
    let seed = rng.word();
    let stopped = |stop| match stop {
        Stop::Bug(text) => text,
        Stop::Crashed => "it has crashed".to_owned(),
    };
    let mut sim = workload.begin::<Engine>(&workload.config(seed), seed).map_err(stopped)?;
    let mut places = Places::default();
    places.note(sim.oracle.live());
    workload.run(&mut sim).map_err(stopped)?;
    places.note(sim.oracle.live());
    sim.world.run_until_idle()?;
    let disk = sim.world.disk().crash(Crash::KeepAll);
    Ok((disk, places))
}

/// A damaged disk, and what was done to it.
struct Broken {
    disk: SimDisk,
    /// With the damage to the journal alone. Frames at its end that nothing calls durable are cut
    /// then, as if they had never been written: no repair brings them back. If there is such damage, with
    /// that to checkpoint areas too: a newest checkpoint that looks torn, beside frames that only the one
    /// before it needs, is what a crash leaves of a checkpoint that never was.
    cut: SimDisk,
    how: String,
}

/// Where the journal is, and the checkpoint areas.
fn fixed(disk: &SimDisk) -> Result<(Range<u64>, [Range<u64>; 4]), String> {
    let mut copies = (0..).zip(COPY_BLOCKS);
    let sb = copies.find_map(|(copy, block)| Superblock::decode(&disk.peek(block), copy).ok());
    let geometry = sb.ok_or("no superblock")?.geometry;
    let ring = geometry.journal_start..geometry.journal_start + geometry.journal_blocks;
    Ok((ring, geometry.cp_start.map(|start| start..start + geometry.cp_blocks)))
}

/// One to three blocks of metadata hold something else.
fn damage(disk: &SimDisk, rng: &mut Rng) -> Result<Broken, String> {
    let (ring, areas) = fixed(disk)?;
    let (mut in_ring, mut in_areas) = (Vec::new(), Vec::new());
    let mut cut = disk.crash(Crash::KeepAll);
    let mut disk = disk.crash(Crash::KeepAll);
    let mut blocks = disk.occupied();
    // A repair does nothing about data.
    blocks.retain(|block| {
        let page = disk.peek(*block);
        page.iter().any(|byte| *byte != 0) && !holds_data(&page)
    });
    blocks.sort_unstable();
    let mut how = "damage".to_owned();
    for _ in 0..rng.range(1, 4) {
        let Some(&block) = rng.pick(&blocks) else { break };
        let mut page = disk.peek(block);
        let kind = rng.below(3);
        match kind {
            0 => page.fill(0),
            1 => page.fill(0x77),
            _ => page[rng.index(page.len())] ^= 1 << rng.below(8),
        }
        disk.poke(block, page);
        if ring.contains(&block) {
            in_ring.push((block, page));
        } else if areas.iter().any(|area| area.contains(&block)) {
            in_areas.push((block, page));
        }
        how += &format!(" {} at {block}", ["zeros", "garbage", "a bit"][kind as usize]);
    }
    let in_areas = in_areas.into_iter().filter(|_| !in_ring.is_empty());
    in_ring.iter().copied().chain(in_areas).for_each(|(block, page)| cut.poke(block, page));
    Ok(Broken { disk, cut, how })
}

/// One repair.
struct Case<'a> {
    as_was: Option<Seen>,
    places: &'a Places,
    before: Seen,
    plan: &'a Plan,
    /// What was looked at, by digest.
    known: HashSet<u64>,
    found: Tally,
}

impl Case<'_> {
    /// The machine dies at every device operation of the repair.
    fn crashes(&mut self, broken: &SimDisk, depth: Depth, rng: &mut Rng) -> Result<(), String> {
        let (seed, plan) = (rng.word(), self.plan);
        let mut device = Device::new(broken.crash(Crash::Kill(0)));
        device.probe(depth.subsets, seed, |crashed, point| {
            self.judge(&crashed, Some(depth), seed)
                .map_err(|text| format!("crash at point {point}: {text}"))
        });
        let applied = apply(plan, &mut device);
        let (bug, disk) = device.end();
        if let Some(text) = bug {
            return Err(text);
        }
        applied.map_err(|error| error.to_string())?;
        let repaired = disk.crash(Crash::LoseAll);
        self.is_repaired(&repaired)?;
        self.lives(&repaired, seed)
    }

    /// What is repaired can be written to, and what was deleted is reclaimed.
    fn lives(&mut self, disk: &SimDisk, seed: u64) -> Result<(), String> {
        self.found.lives += 1;
        live(disk, seed).map_err(|text| format!("repaired, then written to (seed {seed}): {text}"))
    }

    /// The n-th read, write or flush of the repair fails, once or from then on.
    fn failures(&mut self, broken: &SimDisk, rng: &mut Rng) -> Result<(), String> {
        let ways =
            [(Class::Read, EIO), (Class::Write, EIO), (Class::Write, ENOSPC), (Class::Flush, EIO)];
        for (class, errno) in ways {
            for sticky in [false, true] {
                for nth in 0.. {
                    let fault = NthFault { class, nth, sticky, errno };
                    let at = |text| format!("{fault:?}: {text}");
                    let mut device = Device::new(broken.crash(Crash::Kill(0)));
                    let plan = Faults { nth: vec![fault], ..Faults::default() };
                    device.disk.set_faults(plan, nth);
                    let applied = apply(self.plan, &mut device);
                    let (_, disk) = device.end();
                    if disk.struck() == 0 {
                        break;
                    }
                    self.found.failures += 1;
                    // What fails to be read is damaged, as the plan has it.
                    match (&applied, class) {
                        (Ok(()), Class::Read) => self.is_repaired(&disk.crash(Crash::LoseAll)),
                        (Err(RepairError::Write { .. }), Class::Write | Class::Flush) => Ok(()),
                        _ => Err(format!("the repair ended with {applied:?}")),
                    }
                    .map_err(at)?;
                    for how in [Crash::LoseAll, Crash::KeepAll, Crash::Sectors(rng.word())] {
                        let crashed = disk.crash(how);
                        self.judge(&crashed, None, 0)
                            .map_err(|text| at(format!("{how:?}: {text}")))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A crash has left this disk: it is as it was or repaired, and another repair ends it.
    fn judge(&mut self, crashed: &SimDisk, again: Option<Depth>, seed: u64) -> Result<(), String> {
        let digest = crashed.digest();
        if crashed.pending_writes() == 0 && !self.known.insert(digest) {
            return Ok(());
        }
        self.found.states += 1;
        let now = look(crashed, self.places)?;
        if now != self.as_was && now != Some(self.told()) {
            let text = match &now {
                Some(now) => self.told().difference(now),
                None => "it does not open".to_owned(),
            };
            return Err(format!("neither as it was nor repaired: {text}"));
        }
        let plan = match plan_of(crashed) {
            Ok(plan) => plan,
            // One area was damaged before, and the checkpoint that was being written is another.
            Err(RepairError::Refused(_)) if self.lacks_a_checkpoint() => {
                self.found.refused_again += 1;
                return Ok(());
            }
            Err(error) => return Err(format!("repaired again: {error}")),
        };
        let mut device = Device::new(crashed.crash(Crash::Kill(0)));
        let inside = again.filter(|depth| mix(digest ^ seed).is_multiple_of(depth.second));
        if let Some(depth) = inside {
            device.probe(depth.second_subsets, seed, |crashed, point| {
                self.found.second += 1;
                self.judge(&crashed, None, seed)
                    .map_err(|text| format!("and again at point {point}: {text}"))
            });
        }
        let applied = apply(&plan, &mut device);
        let (bug, disk) = device.end();
        if let Some(text) = bug {
            return Err(text);
        }
        applied.map_err(|error| format!("repaired again: {error}"))?;
        // Where there is nothing to be done nothing is flushed either: what a killed process wrote
        // last is still in the cache alone.
        let how = if plan.is_empty() { Crash::KeepAll } else { Crash::LoseAll };
        let repaired = disk.crash(how);
        let twice = |text| format!("repaired again: {text}");
        self.is_repaired(&repaired).map_err(twice)?;
        match mix(digest ^ seed).is_multiple_of(LIVES) {
            true => self.lives(&repaired, seed).map_err(twice),
            false => Ok(()),
        }
    }

    fn lacks_a_checkpoint(&self) -> bool {
        let replaces = |action: &Action| {
            matches!(action, Action::GoBack { .. } | Action::ReplaceCheckpoint { .. })
        };
        self.plan.actions.iter().any(replaces)
    }

    /// All is in order, and reads as the plan says.
    fn is_repaired(&self, disk: &SimDisk) -> Result<(), String> {
        let report = check(&mut View(disk), &Options::default())
            .map_err(|error| format!("the repaired pool cannot be checked: {error}"))?;
        let settled = |kind| matches!(kind, Structure::Data | Structure::KnownDamage);
        let mut corrupt = report.findings.iter().filter(|f| f.severity == Severity::Corruption);
        if let Some(finding) = corrupt.find(|finding| !settled(finding.kind)) {
            return Err(format!("not repaired: {finding}"));
        }
        let found = look(disk, self.places)?.ok_or("the repaired pool does not open")?;
        match found == self.told() {
            true => Ok(()),
            false => Err(format!("repaired, but {}", self.told().difference(&found))),
        }
    }

    /// What there was before the damage, without what the plan calls lost.
    fn told(&self) -> Seen {
        let lost = |name: &str, lba: u64| {
            let covers = |lost: &&cow_check::repair::Lost| {
                lost.name == name && (lost.lba..lost.lba + lost.blocks).contains(&lba)
            };
            self.plan.lost.iter().any(|lost| covers(&lost))
        };
        self.before.without(lost)
    }
}

#[cfg(test)]
mod tests;
