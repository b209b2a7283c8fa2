//! Growth of the pool.

use crate::api::Reply;
use crate::core::{OpResult, SequenceError};
use crate::error::{Error, SpaceKind};
use crate::flush::flush_to;
use crate::fold::fold_now;
use crate::task::Cx;
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, FrameSeq, mutant};
use cow_journal::Reserve;

/// Makes the pool larger: the file below first, durably, then the record, then its use.
pub(crate) async fn grow_pool(cx: &Cx, blocks: u64) -> OpResult {
    {
        let mut core = cx.core();
        let pool = core.writable()?;
        if blocks < pool.pool_blocks {
            return Err(Error::Invalid("size: a pool cannot shrink".into()));
        }
        let limit = pool.sb.geometry.limit_blocks;
        if blocks > limit {
            let bytes = limit * BLOCK_SIZE as u64;
            return Err(Error::Limit(format!("this pool can grow to {bytes} bytes")));
        }
    }
    let late = mutant::is("growlate");
    if !late {
        grow_below(cx, blocks).await?;
    }
    let seq = loop {
        // Not while a fold runs: its checkpoint describes the zones as they were.
        while cx.core().fold.running {
            cx.wait(|core| &mut core.fold_wait).await;
        }
        if let Some(seq) = sequence_growth(cx, blocks)? {
            break seq;
        }
        fold_now(cx).await?;
    };
    flush_to(cx, seq).await?;
    if late {
        grow_below(cx, blocks).await?;
    }
    fold_now(cx).await?;
    Ok(Reply::Done)
}

async fn grow_below(cx: &Cx, blocks: u64) -> Result<(), Error> {
    cx.grow(blocks).await.map_err(|failure| match failure.errno {
        28 | 122 => Error::NoSpace(SpaceKind::Below),
        errno => Error::Io { errno, op: "growing the pool", offset: 0 },
    })
}

/// Sequences a growth and applies it; `None` while the journal has no room.
fn sequence_growth(cx: &Cx, blocks: u64) -> Result<Option<FrameSeq>, Error> {
    let mut core = cx.core();
    core.config.device_blocks = core.config.device_blocks.max(blocks);
    match core.sequence(&[Record::PoolGrow { blocks }], Reserve::Normal) {
        Ok(seq) => {
            core.pool()?.grow_to(blocks);
            Ok(Some(seq))
        }
        Err(SequenceError::Refused(error)) => Err(error),
        Err(SequenceError::RingFull) => Ok(None),
    }
}
