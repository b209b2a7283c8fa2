//! What scrubs answer on a disk that keeps what it is given.

use cow_engine::{Error, Reply};

/// Blocks that a step of a scrub has read, if it is one.
///
/// # Errors
/// When it calls anything damaged.
pub(super) fn judge(answer: &Result<Reply, Error>) -> Result<u64, String> {
    let Ok(Reply::Scrubbed(step)) = answer else { return Ok(0) };
    match step.faults.first() {
        None => Ok(step.data_blocks + step.map_nodes),
        Some(fault) => Err(format!("a scrub calls something damaged that is not: {fault:?}")),
    }
}
