//! The load on a plain file, through the driver that a pool has.

use super::load::{Ask, Load, Pattern, Tally};
use super::meter::{Meter, Used};
use super::plain::Plain;
use super::spec::Spec;
use crate::failure::Failure;
use cow_format::{BLOCK_SIZE, BufSlice};
use cow_io::{IoDone, IoOp, IoRequest};
use std::time::{Duration, Instant};

/// Puts `load` on the file. Ends with a flush where there were writes.
///
/// # Errors
/// The first of a request.
pub fn run(file: &mut Plain, mut load: Load, spec: &Spec) -> Result<(Tally, Used), Failure> {
    let mut pattern = Pattern::new(usize::try_from(spec.bs).unwrap_or(0));
    let mut meter = Meter::now();
    let mut ramp_until = load.ramp().map(|ramp| Instant::now() + ramp);
    let mut failed = None;
    for lane in 0..spec.lanes() {
        let ask = load.turn(lane, Instant::now());
        submit(file, lane as u64, ask, spec, &mut pattern);
    }
    let mut done: Vec<IoDone> = Vec::new();
    while file.driver().in_flight() > 0 {
        file.driver().wait(&mut done, ramp_until.map(|_| Duration::from_millis(10)));
        if ramp_until.is_some_and(|until| Instant::now() >= until) {
            ramp_until = None;
            meter = Meter::now();
            load.count_from(Instant::now());
        }
        for completed in done.drain(..) {
            if let Err(error) = &completed.result {
                failed.get_or_insert(*error);
                load.stop_now();
            }
            let lane = usize::try_from(completed.tag).unwrap_or(usize::MAX);
            drop(completed);
            let ask = load.turn(lane, Instant::now());
            submit(file, lane as u64, ask, spec, &mut pattern);
        }
    }
    if let Some(error) = failed {
        return Err(file.failure(&error));
    }
    if spec.writes() {
        file.flush()?;
    }
    let used = meter.used();
    Ok((load.tally().clone(), used))
}

fn submit(file: &mut Plain, tag: u64, ask: Option<Ask>, spec: &Spec, pattern: &mut Pattern) {
    let blocks = usize::try_from(spec.bs).unwrap_or(0) / BLOCK_SIZE;
    let driver = file.driver();
    let op = match ask {
        None => return,
        Some(Ask::Flush) => IoOp::Flush,
        Some(Ask::Read(offset)) => IoOp::Read { offset, buf: driver.buffers().scratch(blocks) },
        Some(Ask::Write(offset)) => {
            let mut buf = driver.buffers().scratch(blocks);
            pattern.fill(&mut buf);
            IoOp::Write { offset, bufs: vec![BufSlice::whole(buf)] }
        }
    };
    driver.submit(IoRequest { tag, op });
}
