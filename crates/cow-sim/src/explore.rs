//! Crashes at every device operation of a script.
//!
//! The script runs once. Between any two of its steps the disk is copied as each of several
//! crashes would leave it, and every copy is recovered and judged. The run itself goes on
//! unharmed, so the cost is that of the recoveries.

use crate::cmd::Cmd;
use crate::disk::{Crash, SimDisk};
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::run::{caught, tail};
use crate::sim::{Probe, Sim, Stop, examine};
use crate::world::Machine;
use cow_engine::Config;
use std::cell::RefCell;
use std::rc::Rc;

/// A named sequence of commands.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its name.
    pub name: &'static str,
    /// What comes before, without crashes: commands one after the other.
    pub setup: Vec<Cmd>,
    /// Commands in groups; those of a group are in progress together.
    pub groups: Vec<Vec<Cmd>>,
}

/// What an exploration came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Explored {
    /// States of the disk between steps at which the machine died.
    pub points: u64,
    /// Crashed disks that were recovered and judged.
    pub crashes: u64,
    /// Device operations of the script.
    pub device_ops: u64,
}

impl std::iter::Sum for Explored {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            points: sum.points + one.points,
            crashes: sum.crashes + one.crashes,
            device_ops: sum.device_ops + one.device_ops,
        })
    }
}

/// Runs `script` on `disk` and kills the machine at every point of it, in `outcomes` ways.
///
/// # Errors
/// What cannot be.
pub fn explore<M: Machine + 'static>(
    script: &Script,
    disk: SimDisk,
    config: &Config,
    outcomes: usize,
    seed: u64,
) -> Result<Explored, String> {
    let mut rng = Rng::new(seed);
    let mut sim = Sim::<M>::new(disk, Oracle::new(config.ack), config, rng.word());
    let found = Rc::new(RefCell::new(Explored::default()));
    let ended = caught(|| run(&mut sim, script, config, outcomes, &mut rng, &found));
    match ended {
        Ok(()) | Err(Stop::Crashed) => {}
        Err(Stop::Bug(text)) => {
            return Err(format!("script {}: {text}{}", script.name, tail(sim.trace())));
        }
    }
    let found = *found.borrow();
    Ok(found)
}

fn run<M: Machine + 'static>(
    sim: &mut Sim<M>,
    script: &Script,
    config: &Config,
    outcomes: usize,
    rng: &mut Rng,
    found: &Rc<RefCell<Explored>>,
) -> Result<(), Stop> {
    sim.open(false)?;
    for cmd in &script.setup {
        sim.run(cmd.clone())?;
    }
    sim.reconcile()?;
    let before = sim.world.disk().done();
    sim.set_probe(Some(prober::<M>(config, outcomes, rng.fork(), found)));
    for group in &script.groups {
        for cmd in group {
            sim.submit(cmd.clone())?;
        }
        sim.drain()?;
    }
    found.borrow_mut().device_ops = sim.world.disk().done() - before;
    sim.set_probe(None);
    sim.reconcile()
}

fn prober<M: Machine>(
    config: &Config,
    outcomes: usize,
    mut rng: Rng,
    found: &Rc<RefCell<Explored>>,
) -> Probe {
    let (config, found) = (config.clone(), found.clone());
    let mut last = (u64::MAX, u64::MAX);
    Box::new(move |disk, oracle| {
        // Reads and ticks change nothing that a crash could find.
        if std::mem::replace(&mut last, (disk.changes(), oracle.clock()))
            == (disk.changes(), oracle.clock())
        {
            return Ok(());
        }
        found.borrow_mut().points += 1;
        for how in Crash::plan(disk.pending_writes(), outcomes, &mut rng) {
            let point = disk.done();
            let crashed = disk.crash(how);
            let kill = how.is_kill();
            let count = caught(|| examine::<M>(&crashed, kill, oracle, &config, &mut rng))
                .map_err(|text| format!("crash after device operation {point}, {how:?}: {text}"))?;
            found.borrow_mut().crashes += count;
        }
        Ok(())
    })
}
