//! `bench`: load on a scratch volume, and the same on a plain file, in turns.
//!
//! ```text
//!   spec       what is wanted                    load   which request comes next, and what was seen
//!   ground     the pool and the volume in it     meter  processor time and bytes of the device
//!   pool_side, raw_side                          the load on the one and on the other
//!   plain                                        a file without a name
//!   report     what is said of it
//! ```

mod ground;
mod load;
mod meter;
mod plain;
mod pool_side;
mod raw_side;
mod report;
mod spec;
#[cfg(test)]
mod tests;

use crate::args::Bench;
use crate::failure::Failure;
use crate::signals;
use cowstore::{DriverOptions, Volume};
use ground::Ground;
use load::Load;
use plain::Plain;
use report::{Report, Round, Side};
use spec::Spec;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Does what was asked for.
pub fn run(pool: Option<&Path>, args: &Bench) -> Result<(), Failure> {
    let spec = Spec::new(args)?;
    let driver = driver_options(&spec);
    // Whatever was made is removed after a signal, too.
    let stop = signals::hold(false)?;
    let mut ground = match (&args.dir, pool.filter(|path| !path.as_os_str().is_empty())) {
        (Some(dir), _) => Ground::in_directory(dir, &spec, &driver, &stop)?,
        (None, Some(pool)) => Ground::in_pool(pool, &spec, &driver)?,
        (None, None) => {
            let text = "where? Name a directory for a temporary pool, or a pool with -p PATH";
            return Err(Failure::Usage(text.into()));
        }
    };
    let result = measure(&mut ground, &spec, &driver, &stop);
    let closed = ground.close();
    let report = result.and_then(|report| closed.map(|()| report))?;
    if args.json { report.print_json(&spec) } else { report.print_table(&spec) }
}

/// Both sides have the same, with a ring as large as the load is deep.
fn driver_options(spec: &Spec) -> DriverOptions {
    let options = DriverOptions::default();
    let lanes = u32::try_from(spec.lanes()).unwrap_or(options.ring_entries);
    DriverOptions { ring_entries: options.ring_entries.max(lanes), ..options }
}

fn measure(
    ground: &mut Ground,
    spec: &Spec,
    driver: &DriverOptions,
    stop: &Arc<AtomicBool>,
) -> Result<Report, Failure> {
    let mut raw = match spec.vs_raw {
        true => Some(Plain::new(ground.dir(), spec.size_bytes(), driver)?),
        false => None,
    };
    let mut report = Report::new(ground, raw.as_ref())?;
    raw.as_mut().map_or(Ok(()), |raw| raw.fill(stop))?;
    let mut sides = vec![Side::Pool];
    sides.extend(spec.vs_raw.then_some(Side::Raw));
    sides.extend(spec.snapshot.then_some(Side::Snapshot));
    let mut volume = None;
    for number in 0..spec.rounds {
        // Another one begins each time: what drifts meets all of them.
        let first = number as usize % sides.len();
        for turn in 0..sides.len() {
            let side = sides[(first + turn) % sides.len()];
            must_go_on(stop)?;
            let load = Load::new(spec, u64::from(number), stop.clone())?;
            let round = match (side, &mut raw) {
                (Side::Raw, Some(raw)) => {
                    let (tally, used) = raw_side::run(raw, load, spec)?;
                    Round::new(tally, used)
                }
                _ => {
                    let fresh = volume.take().filter(|_| !spec.fresh);
                    let fresh = fresh.map_or_else(|| ground.new_volume(spec, stop), Ok)?;
                    must_go_on(stop)?;
                    let round = on_pool(ground, &fresh, load, spec, side)?;
                    volume = Some(fresh);
                    round
                }
            };
            must_go_on(stop)?;
            report.add(side, round);
        }
    }
    Ok(report)
}

fn must_go_on(stop: &AtomicBool) -> Result<(), Failure> {
    if stop.load(Ordering::Relaxed) {
        return Err(Failure::Failed(
            "interrupted; what was made for the measurement is gone".into(),
        ));
    }
    Ok(())
}

fn on_pool(
    ground: &Ground,
    volume: &Volume,
    load: Load,
    spec: &Spec,
    side: Side,
) -> Result<Round, Failure> {
    let stats = || {
        let info = ground.pool().info(false).map_err(Failure::of(ground.path()))?;
        Ok::<_, Failure>(info.stats)
    };
    let is_snapshot = side == Side::Snapshot;
    let mut before = stats()?;
    let at_start = || {
        before = stats()?;
        if is_snapshot { ground.snapshot() } else { Ok(()) }
    };
    // What writes leave to the background is part of what they cost, and must not run into the turn of another side.
    let at_end = || if spec.writes() { ground.settle() } else { Ok(()) };
    let (tally, used, settling) =
        pool_side::run(ground.path(), volume, load, spec, at_start, at_end)?;
    let after = stats()?;
    if is_snapshot {
        ground.delete_snapshot()?;
    }
    Ok(Round::new(tally, used).with_pool(settling, &before, &after))
}
