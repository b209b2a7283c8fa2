//! The load on a volume. The answer to one request begins the next, on the thread that answers: no other thread is
//! woken for it, as with a server of this process.

use super::load::{Ask, Load, Pattern, Tally};
use super::meter::{Meter, Used};
use super::spec::Spec;
use crate::failure::Failure;
use cowstore::{Error, Request, Response, Volume};
use parking_lot::{Condvar, Mutex};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

struct State {
    load: Load,
    pattern: Pattern,
    active: usize,
    failed: Option<Error>,
}

struct Shared {
    volume: Volume,
    bs: u64,
    state: Mutex<State>,
    left: Condvar,
}

/// Puts `load` on the volume. `at_start` is called when it begins to count, `at_end` at the end, which is after a flush
/// where there were writes. Both are in what was used; the time that the last took is named besides.
///
/// # Errors
/// The first of a request.
pub fn run(
    pool: &Path,
    volume: &Volume,
    load: Load,
    spec: &Spec,
    at_start: impl FnOnce() -> Result<(), Failure>,
    at_end: impl FnOnce() -> Result<(), Failure>,
) -> Result<(Tally, Used, Duration), Failure> {
    let lanes = spec.lanes();
    let (ramp, bs) = (load.ramp(), spec.bs);
    let pattern = Pattern::new(usize::try_from(bs).unwrap_or(0));
    let state = Mutex::new(State { load, pattern, active: lanes, failed: None });
    let shared = Arc::new(Shared { volume: volume.clone(), bs, state, left: Condvar::new() });
    let mut at_start = Some(at_start);
    let mut meter = Meter::now();
    if ramp.is_none() {
        at_start.take().map_or(Ok(()), |call| call())?;
    }
    for lane in 0..lanes {
        turn(&shared, lane);
    }
    if let Some(ramp) = ramp {
        let until = Instant::now() + ramp;
        let mut state = shared.state.lock();
        while state.active > 0 && !shared.left.wait_until(&mut state, until).timed_out() {}
        meter = Meter::now();
        state.load.count_from(Instant::now());
    }
    let started = at_start.map_or(Ok(()), |call| call());
    let mut state = shared.state.lock();
    if started.is_err() {
        state.load.stop_now();
    }
    while state.active > 0 {
        shared.left.wait(&mut state);
    }
    let failed = state.failed.take();
    drop(state);
    started?;
    let ended = failed.map_or(Ok(()), Err);
    let flushed = ended.and_then(|()| if spec.writes() { volume.flush() } else { Ok(()) });
    flushed.map_err(Failure::of(pool))?;
    let ended = Instant::now();
    at_end()?;
    let (used, took) = (meter.used(), ended.elapsed());
    let state = shared.state.lock();
    Ok((state.load.tally().clone(), used, took))
}

fn turn(shared: &Arc<Shared>, lane: usize) {
    let mut state = shared.state.lock();
    let ask = match state.failed {
        Some(_) => None,
        None => state.load.turn(lane, Instant::now()),
    };
    let len = shared.bs;
    let request = match ask {
        None => {
            state.active -= 1;
            if state.active == 0 {
                shared.left.notify_one();
            }
            return;
        }
        Some(Ask::Flush) => Request::Flush,
        Some(Ask::Read(offset)) => Request::Read { offset, len },
        Some(Ask::Write(offset)) => {
            let mut data = shared.volume.buffer(usize::try_from(len).unwrap_or(0));
            state.pattern.fill(&mut data);
            Request::Write { offset, len, data, fua: false }
        }
    };
    // The answer may come at once, when the pool has ended.
    drop(state);
    let next = shared.clone();
    let answered = move |result: Result<Response, Error>| {
        if let Err(error) = result {
            next.state.lock().failed.get_or_insert(error);
        }
        turn(&next, lane);
    };
    shared.volume.submit(request, answered);
}
