//! A block of data goes bad while the pool is closed.

use super::{Recovered, observe, recover};
use crate::disk::{Crash, SimDisk};
use crate::lose::lose_newest_checkpoint;
use crate::model::State;
use crate::rng::Rng;
use crate::value::Value;
use crate::world::{Machine, World};
use cow_engine::{Config, Op, Reply};
use cow_format::BLOCK_SIZE;
use std::collections::HashSet;

/// Recovers what a crash left on `disk`, crashes again, and damages one block of what clients
/// wrote. If `lost` says which checkpoint was lost last, the newest one goes too where there is a
/// fallback. The recovery has vouched for all that it accepted. So the pool must open, and nothing
/// may be missing without a word: what is read is what was read before, or an error, and an error
/// only where the block that went bad is part of what clients see. Returns how many crashed disks
/// were recovered.
///
/// # Errors
/// What does not hold.
pub fn examine_rot<M: Machine>(
    disk: &SimDisk,
    lost: Option<u64>,
    config: &Config,
    rng: &mut Rng,
) -> Result<u64, String> {
    let Recovered { world, state } = recover::<M>(disk.crash(Crash::Kill(0)), config, rng.word())?;
    let mut disk = world.disk().crash(Crash::random(rng));
    if let Some(mut lost) = lost {
        lose_newest_checkpoint(&mut disk, &mut lost);
    }
    let seen = tokens(&state);
    let held = |disk: &SimDisk, block| match Value::of(&disk.peek(block)) {
        Value::Token(token) => Some((block, token)),
        _ => None,
    };
    let mut blocks: Vec<(u64, u64)> =
        disk.occupied().into_iter().filter_map(|block| held(&disk, block)).collect();
    blocks.sort_unstable();
    // Rather one that was written over: nobody should notice.
    let (live, dead): (Vec<_>, Vec<_>) = blocks.iter().partition(|(_, token)| seen.contains(token));
    let among = if dead.is_empty() || rng.one_in(4) { live } else { dead };
    let Some(&(block, token)) = rng.pick(&among) else { return Ok(1) };
    disk.poke(block, [0xa7; BLOCK_SIZE]);

    let rotten = |text: String| format!("after block {block} (token {token}) went bad: {text}");
    let mut world = World::<M>::new(disk, config, rng.word());
    match world.run_op(Op::Open { read_only: false })? {
        Ok(Reply::Done) => {}
        other => return Err(rotten(format!("open answered {other:?}"))),
    }
    match observe(&mut world) {
        Ok(found) => match found.difference(&state) {
            Some(text) => Err(rotten(text)),
            None => Ok(2),
        },
        Err(_) if seen.contains(&token) => Ok(2),
        Err(text) => Err(rotten(text)),
    }
}

/// What clients see, as the tokens of whole blocks.
fn tokens(state: &State) -> HashSet<u64> {
    let nodes = state.volumes.values().flat_map(|volume| {
        let undos = volume.undos.iter().map(|(_, snap)| snap);
        volume.snaps.values().chain(undos).chain([&volume.head])
    });
    let token = |(_, value): (u64, &Value)| match value {
        Value::Token(token) => Some(*token),
        _ => None,
    };
    nodes.flat_map(|node| node.content.iter().filter_map(token)).collect()
}
