//! A campaign: explorations, failure loops and swarm runs, one seed after the other, for as long
//! as there is time.
//!
//! A seed chooses what is done with it, so that each can be run again alone.

mod progress;
mod runner;

pub use progress::Progress;
pub use runner::{Options, run_for};

use crate::rng::Rng;
use crate::run::caught;
use crate::workloads::Workload;
use crate::{crashes, failures, repairs, swarm, workloads};
use cow_engine::Engine;
use std::fmt;
use std::ops::AddAssign;

/// How much is done for a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// As in the test suite.
    Slice,
    /// All there is.
    Long,
}

/// What a campaign came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seeds.
    pub seeds: u64,
    /// Crashes at every operation of workloads.
    pub crashes: crashes::Tally,
    /// Loops over the n-th failure.
    pub failures: failures::Tally,
    /// Repairs that die and fail.
    pub repairs: repairs::Tally,
    /// Random histories.
    pub histories: u64,
    /// Crashed disks that were recovered in them.
    pub history_states: u64,
    /// Histories on devices that lie.
    pub lying: u64,
    /// What those came to.
    pub lies: swarm::Lies,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.seeds += more.seeds;
        self.crashes += more.crashes;
        self.failures += more.failures;
        self.repairs += more.repairs;
        self.histories += more.histories;
        self.history_states += more.history_states;
        self.lying += more.lying;
        self.lies += more.lies;
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

impl Tally {
    /// Crashed disks that were recovered and judged.
    #[must_use]
    pub fn states(&self) -> u64 {
        self.crashes.states + self.failures.states + self.repairs.states + self.history_states
    }

    /// Histories of all kinds.
    #[must_use]
    pub fn histories(&self) -> u64 {
        self.histories + self.lying
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seeds, crashes, failures, repairs, histories, history_states, lying, lies } =
            self;
        writeln!(
            f,
            "{seeds} seeds, {} crash states, {} histories",
            self.states(),
            self.histories()
        )?;
        writeln!(f, "  crashes: {crashes:?}")?;
        writeln!(f, "  failures: {failures:?}")?;
        writeln!(f, "  repairs: {repairs:?}")?;
        writeln!(f, "  swarm: {histories} histories, {history_states} crash states")?;
        write!(f, "  devices that lie: {lying} histories, {lies:?}")
    }
}

/// Does what `seed` says: of sixteen seeds two explore a workload that has a name and two a pair of
/// verbs, one of which in every fourth turn loops over failures instead, and in another is about a
/// repair; one is a history on a device
/// that lies, and the others are histories.
///
/// # Errors
/// What cannot be.
pub fn run(seed: u64, size: Size) -> Result<Tally, String> {
    let mut found = Tally { seeds: 1, ..Tally::default() };
    let mut rng = Rng::new(seed ^ 0xca3b);
    let depth = match size {
        Size::Slice => crashes::Depth::slice(),
        Size::Long => crashes::Depth::long(),
    };
    let explore = |all: &[Workload], rng: &mut Rng| {
        crashes::explore::<Engine>(&all[rng.index(all.len())], depth, rng.word())
    };
    match seed % 16 {
        0 | 1 => found.crashes = explore(&workloads::named(), &mut rng)?,
        2 if seed % 64 == 2 => {
            let named = workloads::named();
            let workload = &named[rng.index(named.len())];
            found.failures = failures::explore::<Engine>(workload, 3, rng.word())?;
        }
        2 if seed % 64 == 18 => found.repairs = repairs::explore(depth, rng.word())?,
        2 | 3 => found.crashes = explore(&workloads::pairs(), &mut rng)?,
        4 => {
            found.lying = 1;
            found.lies = caught(|| swarm::lying(seed))?;
        }
        _ => {
            found.histories = 1;
            found.history_states = caught(|| swarm::history(seed))?.crashes;
        }
    }
    Ok(found)
}
