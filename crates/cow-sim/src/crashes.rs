//! Crashes at every device operation of a workload, in every subset of what was not flushed.
//!
//! The workload runs once. Between any two of its steps the disk is copied as each of many crashes
//! would leave it; every copy is recovered, read and judged. Copies that are equal are recovered
//! once and judged each time, since what must be there changes from step to step. For some copies
//! the machine dies again at every operation of their recovery, for some the offline checker reads
//! the recovered disk, and some are examined as [`crate::sim::examine`] does.

mod revive;

pub use revive::{excused, revive};

use crate::disk::{Crash, SimDisk};
use crate::model::State;
use crate::oracle::Oracle;
use crate::rng::{Rng, mix};
use crate::run::{caught, tail};
use crate::sim::{Probe, Stop, examine};
use crate::workloads::{Room, Workload};
use crate::world::{Machine, World};
use cow_engine::{Config, Op};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::AddAssign;
use std::rc::Rc;

/// How deep an exploration goes.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    /// Subsets of the unflushed writes at a point, at most; beyond, so many by chance.
    pub subsets: u64,
    /// Of so many recovered disks one has its recovery cut short, at every operation.
    pub second: u64,
    /// Subsets at a point of a recovery, likewise.
    pub second_subsets: u64,
    /// Of so many recovered disks one is read by the checker.
    pub check: u64,
    /// Of so many recovered disks one is examined: recovered twice, written to, crashed again.
    pub examine: u64,
    /// From so many recovered disks on each point is visited in a few ways only.
    pub most: u64,
}

impl Depth {
    /// What a slice of the test suite does.
    #[must_use]
    pub fn slice() -> Self {
        Self { subsets: 16, second: 16, second_subsets: 4, check: 16, examine: 64, most: 1500 }
    }

    /// All there is.
    #[must_use]
    pub fn long() -> Self {
        Self { subsets: 4096, second: 8, second_subsets: 16, check: 1, examine: 16, most: 20_000 }
    }
}

/// What an exploration came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// States between device operations at which the machine died.
    pub points: u64,
    /// Crashed disks that were recovered, read and judged, no two of a workload equal.
    pub states: u64,
    /// Those of them that a crash inside of a recovery left.
    pub second: u64,
    /// Verdicts: a state is judged again at each point at which it can be found.
    pub judged: u64,
    /// Recovered disks that the checker has read.
    pub checked: u64,
    /// Device operations of the workloads.
    pub device_ops: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.points += more.points;
        self.states += more.states;
        self.second += more.second;
        self.judged += more.judged;
        self.checked += more.checked;
        self.device_ops += more.device_ops;
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}

/// Runs `workload` and kills the machine at every point of it.
///
/// # Errors
/// What cannot be, and what was asked until then.
pub fn explore<M: Machine + 'static>(
    workload: &Workload,
    depth: Depth,
    seed: u64,
) -> Result<Tally, String> {
    let config = workload.config(seed);
    let failed = |text: &str| format!("workload \"{}\": {text}", workload.name);
    let mut sim = match caught(|| workload.begin::<M>(&config, seed)) {
        Ok(sim) => sim,
        Err(stop) => return Err(failed(&format!("while it was set up: {stop:?}"))),
    };
    let before = sim.world.disk().done();
    let inspector = Rc::new(RefCell::new(Inspector::new(workload, &config, depth, seed)));
    sim.set_probe(Some(prober::<M>(&inspector)));
    let ended = caught(|| {
        workload.run(&mut sim)?;
        sim.set_probe(None);
        if workload.closes() || workload.lets_go { Ok(()) } else { sim.reconcile() }
    });
    sim.set_probe(None);
    if let Err(Stop::Bug(text)) = ended {
        return Err(failed(&format!("{text}{}", tail(sim.trace()))));
    }
    let mut found = inspector.borrow().found;
    found.device_ops = sim.world.disk().done() - before;
    Ok(found)
}

fn prober<M: Machine>(inspector: &Rc<RefCell<Inspector>>) -> Probe {
    let inspector = inspector.clone();
    let mut last = (u64::MAX, u64::MAX);
    Box::new(move |disk, oracle| {
        // Reads and ticks change nothing that a crash could find.
        let now = (disk.changes(), oracle.clock());
        if std::mem::replace(&mut last, now) == now {
            return Ok(());
        }
        inspector.borrow_mut().visit::<M>(disk, oracle)
    })
}

/// What becomes of crashed disks.
struct Inspector {
    config: Config,
    depth: Depth,
    rng: Rng,
    lets_go: bool,
    found: Tally,
    /// What recovery makes of a disk, by the digest of that.
    known: HashMap<u64, Rc<State>>,
    /// States of clients by their digest: few, behind many disks.
    seen: HashMap<u64, Rc<State>>,
    /// What was judged since the oracle last learnt something: state and kind of crash.
    fine: HashSet<(u64, bool)>,
    clock: u64,
}

impl Inspector {
    fn new(workload: &Workload, config: &Config, depth: Depth, seed: u64) -> Self {
        // A pool that is filled takes long to read.
        let most = if workload.room == Room::Little { depth.most / 8 } else { depth.most };
        Self {
            config: config.clone(),
            depth: Depth { most, ..depth },
            rng: Rng::new(seed ^ 0x5eed),
            lets_go: workload.lets_go,
            found: Tally::default(),
            known: HashMap::new(),
            seen: HashMap::new(),
            fine: HashSet::new(),
            clock: u64::MAX,
        }
    }

    /// The machine dies here, in many ways.
    fn visit<M: Machine>(&mut self, disk: &SimDisk, oracle: &Oracle) -> Result<(), String> {
        self.found.points += 1;
        if std::mem::replace(&mut self.clock, oracle.clock()) != oracle.clock() {
            self.fine.clear();
        }
        let full = self.found.states >= self.depth.most;
        let subsets = if full { 2 } else { self.depth.subsets };
        for how in Crash::subsets(disk.pending_writes(), subsets, &mut self.rng) {
            let point = disk.done();
            caught(|| self.look::<M>(&disk.crash(how), how.is_kill(), oracle, false))
                .map_err(|text| format!("crash after device operation {point}, {how:?}: {text}"))?;
        }
        Ok(())
    }

    /// Recovers and judges a crashed disk, or judges what is known to come of it.
    fn look<M: Machine>(
        &mut self,
        crashed: &SimDisk,
        kill: bool,
        oracle: &Oracle,
        inner: bool,
    ) -> Result<(), String> {
        let digest = crashed.digest();
        // What a killed process leaves in the cache below is not part of the digest.
        let known = if crashed.pending_writes() == 0 { self.known.get(&digest) } else { None };
        if let Some(state) = known.cloned() {
            return self.judge(&state, kill, oracle);
        }
        self.found.states += 1;
        self.found.second += u64::from(inner);
        let chance = mix(digest ^ self.found.states);
        let takes_part = |one_of: u64, salt: u64| mix(chance ^ salt).is_multiple_of(one_of);
        let check = takes_part(self.depth.check, 1);
        self.found.checked += u64::from(check);
        let copy = || crashed.crash(Crash::Kill(0));
        let (world, state) = revive::<M>(copy(), &self.config, chance, check)?;
        let state = self.seen.entry(state.digest()).or_insert_with(|| Rc::new(state)).clone();
        if crashed.pending_writes() == 0 {
            self.known.insert(digest, state.clone());
        }
        drop(world);
        self.judge(&state, kill, oracle)?;
        if !inner && takes_part(self.depth.second, 2) {
            self.again::<M>(copy(), kill, oracle, chance)?;
        }
        if !inner && !self.lets_go && takes_part(self.depth.examine, 3) {
            self.found.states += examine::<M>(crashed, kill, oracle, &self.config, &mut self.rng)?;
        }
        Ok(())
    }

    fn judge(&mut self, state: &Rc<State>, kill: bool, oracle: &Oracle) -> Result<(), String> {
        self.found.judged += 1;
        if !self.fine.insert((state.digest(), kill)) {
            return Ok(());
        }
        match oracle.judge(state, kill) {
            Err(_) if self.lets_go => oracle.judge(&excused(state, oracle.live()), kill),
            verdict => verdict,
        }
    }

    /// The machine dies again, at every operation of the recovery.
    fn again<M: Machine>(
        &mut self,
        disk: SimDisk,
        kill: bool,
        oracle: &Oracle,
        seed: u64,
    ) -> Result<(), String> {
        let mut world = World::<M>::new(disk, &self.config, seed);
        world.start_op(Op::Open { read_only: false });
        let mut seen = world.disk().changes();
        while world.take_reply().is_none() {
            world.pump()?;
            let disk = world.disk();
            if std::mem::replace(&mut seen, disk.changes()) == disk.changes() {
                continue;
            }
            let ways =
                Crash::subsets(disk.pending_writes(), self.depth.second_subsets, &mut self.rng);
            for how in ways {
                let kill = kill && how.is_kill();
                self.look::<M>(&disk.crash(how), kill, oracle, true)
                    .map_err(|text| format!("and again inside of recovery, {how:?}: {text}"))?;
            }
        }
        Ok(())
    }
}
