//! The n-th read, write, flush, allocation, growth or discard fails, for every n.
//!
//! A workload runs with the first operation of a class failing, then with the second, until it
//! comes to its end before the fault; each once alone, and once with all that follow failing too.
//! Then the machine dies, and what recovery brings back is judged. And recovery meets the same
//! faults: it may refuse to open, in words, but never bring back what is wrong, nor leave less
//! than there was.

use crate::crashes::{excused, revive};
use crate::disk::{Class, Crash, Faults, NthFault, SimDisk};
use crate::model::State;
use crate::oracle::Oracle;
use crate::rng::Rng;
use crate::run::{caught, tail};
use crate::sim::{Stop, Tolerance, observe};
use crate::workloads::Workload;
use crate::world::{Machine, World};
use cow_engine::{Config, Error, Op, Reply};
use std::ops::AddAssign;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What fails, and with which error.
const WAYS: [(Class, i32); 8] = [
    (Class::Read, EIO),
    (Class::Write, EIO),
    (Class::Write, ENOSPC),
    (Class::Flush, EIO),
    (Class::Discard, EIO),
    (Class::Allocate, EIO),
    (Class::Allocate, ENOSPC),
    (Class::Grow, ENOSPC),
];

/// What a loop came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs of workloads that met their fault.
    pub runs: u64,
    /// Openings that met theirs.
    pub openings: u64,
    /// Openings that were refused.
    pub refused: u64,
    /// Runs that waited for a fault to end that does not.
    pub stalled: u64,
    /// Disks that were recovered and judged.
    pub states: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.runs += more.runs;
        self.openings += more.openings;
        self.refused += more.refused;
        self.stalled += more.stalled;
        self.states += more.states;
    }
}

/// Runs `workload` with every n-th failure. Of those beyond the first eight of a class one in
/// `step` is taken, from a place that `seed` chooses.
///
/// # Errors
/// What cannot be.
pub fn explore<M: Machine>(workload: &Workload, step: u64, seed: u64) -> Result<Tally, String> {
    let mut found = Tally::default();
    for (class, errno) in WAYS {
        for sticky in [false, true] {
            let mut nth = 0;
            loop {
                let fault = NthFault { class, nth, sticky, errno };
                let at = |text| format!("workload \"{}\", {fault:?}: {text}", workload.name);
                let run = || once::<M>(workload, fault, seed, &mut found);
                if !caught(run).map_err(at)? {
                    break;
                }
                nth += if nth < 8 { 1 } else { 1 + (seed ^ nth) % (2 * step - 1) };
            }
        }
    }
    caught(|| openings::<M>(workload, seed, &mut found))
        .map_err(|text| format!("workload \"{}\", while it is opened: {text}", workload.name))?;
    Ok(found)
}

/// One run; whether it met its fault.
fn once<M: Machine>(
    workload: &Workload,
    fault: NthFault,
    seed: u64,
    found: &mut Tally,
) -> Result<bool, String> {
    let config = workload.config(seed);
    let mut rng = Rng::new(seed ^ fault.nth);
    let mut sim = workload.begin::<M>(&config, seed).map_err(|stop| format!("{stop:?}"))?;
    sim.tolerate(Tolerance { io: true, no_space: true, corrupt: false });
    sim.world.disk_mut().set_faults(Faults { nth: vec![fault], ..Faults::default() }, seed);
    match workload.run(&mut sim) {
        Ok(()) | Err(Stop::Crashed) => {}
        // Nobody makes room, so who waits for room waits for ever.
        Err(Stop::Bug(text)) if text.starts_with("stuck") && fault.sticky => found.stalled += 1,
        Err(Stop::Bug(text)) => return Err(format!("{text}{}", tail(sim.trace()))),
    }
    let met = sim.world.disk().struck() > 0;
    if !met {
        return Ok(false);
    }
    found.runs += 1;
    let disk = sim.world.disk();
    let live = sim.oracle.live().clone();
    for how in [Crash::LoseAll, Crash::KeepAll, Crash::Sectors(rng.word())] {
        let after = |text| format!("after {how:?}: {text}{}", tail(sim.trace()));
        let state = match revive::<M>(disk.crash(how), &config, rng.word(), rng.one_in(4)) {
            Ok((_, state)) => state,
            Err(text) => return Err(after(text)),
        };
        judge(&sim.oracle, &state, &live, workload.lets_go).map_err(after)?;
        found.states += 1;
    }
    Ok(true)
}

/// What waits for room below asks again with every tick: it is not stuck, and does not end.
fn waits(fault: NthFault, text: &str) -> bool {
    text.starts_with("stuck") || (fault.errno == ENOSPC && text.starts_with("hung"))
}

fn judge(oracle: &Oracle, state: &State, live: &State, lets_go: bool) -> Result<(), String> {
    match oracle.judge(state, false) {
        Err(_) if lets_go => oracle.judge(&excused(state, live), false),
        verdict => verdict,
    }
}

/// Runs the workload to some point, and opens what is left with every n-th failure.
fn openings<M: Machine>(workload: &Workload, seed: u64, found: &mut Tally) -> Result<(), String> {
    let config = workload.config(seed);
    let mut rng = Rng::new(seed ^ 0x09e2);
    let mut sim = workload.begin::<M>(&config, seed).map_err(|stop| format!("{stop:?}"))?;
    sim.set_fuse(Some(rng.range(1, 60)));
    if let Err(Stop::Bug(text)) = workload.run(&mut sim) {
        return Err(text);
    }
    let live = sim.oracle.live().clone();
    let (disk, oracle) = sim.crash(Crash::random(&mut rng).without_kill());
    for (class, errno) in WAYS {
        for sticky in [false, true] {
            for nth in 0.. {
                let fault = NthFault { class, nth, sticky, errno };
                let met = opening::<M>(disk.crash(Crash::Kill(0)), fault, &config, seed, found);
                let (met, states) = met.map_err(|text| format!("{fault:?}: {text}"))?;
                for state in &states {
                    judge(&oracle, state, &live, workload.lets_go)
                        .map_err(|text| format!("{fault:?}: {text}"))?;
                }
                if !met {
                    break;
                }
                found.openings += 1;
            }
        }
    }
    Ok(())
}

/// Opens `disk` with a fault; then without, after another crash. Whether the fault was met, and
/// what was found.
fn opening<M: Machine>(
    disk: SimDisk,
    fault: NthFault,
    config: &Config,
    seed: u64,
    found: &mut Tally,
) -> Result<(bool, Vec<State>), String> {
    let mut states = Vec::new();
    let mut rng = Rng::new(seed ^ fault.nth);
    let mut world = World::<M>::new(disk, config, seed);
    world.disk_mut().set_faults(Faults { nth: vec![fault], ..Faults::default() }, seed);
    match world.run_op(Op::Open { read_only: false }) {
        Ok(Ok(Reply::Done)) => {
            let met = world.disk().struck() > 0;
            world.disk_mut().set_faults(Faults::default(), seed);
            if !met {
                return Ok((false, states));
            }
            match observe(&mut world) {
                Ok(state) => states.push(state),
                Err(text) => return Err(format!("opened, but: {text}")),
            }
        }
        Ok(Ok(other)) => return Err(format!("open answered {other:?}")),
        Ok(Err(Error::Corrupt(text))) => return Err(format!("a failure is called damage: {text}")),
        Ok(Err(_)) => found.refused += 1,
        // Nobody makes room, and a fold waits for it.
        Err(text) if fault.sticky && waits(fault, &text) => found.stalled += 1,
        Err(text) => return Err(text),
    }
    let how = Crash::random(&mut rng).without_kill();
    let (_, state) = revive::<M>(world.disk().crash(how), config, seed, true)
        .map_err(|text| format!("opened again after {how:?}: {text}"))?;
    found.states += states.len() as u64 + 1;
    if let Some(text) = states.first().and_then(|first| state.difference(first)) {
        return Err(format!("what was opened has changed after {how:?}: {text}"));
    }
    states.push(state);
    Ok((true, states))
}
