//! Reading the superblock, and writing the fence.

use super::read_twice;
use crate::below::is_full;
use crate::error::{Error, SpaceKind};
use crate::task::{Cx, join_all};
use cow_format::checkpoint::JournalPos;
use cow_format::superblock::{COPY_BLOCKS, Fence, KNOWN_RO_COMPAT, MAX_FENCES, Superblock};
use cow_format::{BufSlice, Epoch, FormatError, FrameSeq, Phys, mutant};

/// The newest intact copy.
pub(super) async fn read(cx: &Cx, read_only: bool) -> Result<Superblock, Error> {
    let device_blocks = cx.core().config.device_blocks;
    let mut newest: Option<Superblock> = None;
    let (mut error, mut any_magic) = (None, false);
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        if block >= device_blocks {
            continue;
        }
        let buf = match read_twice(cx, Phys(block), 1, false, "read of a superblock").await {
            Ok(buf) => buf,
            Err(failure) => {
                error = error.or(Some(failure));
                continue;
            }
        };
        match Superblock::decode(&buf, copy) {
            Ok(sb) if newest.as_ref().is_none_or(|n| n.sequence < sb.sequence) => newest = Some(sb),
            Ok(_) => {}
            // Intact, but of another time: nothing here may be touched.
            Err(cause) if cause.is_unknown() => return Err(cause.into()),
            Err(FormatError::Magic { .. }) => {}
            Err(cause) => {
                any_magic = true;
                error = error.or(Some(Error::Corrupt(cause.to_string())));
            }
        }
    }
    let not_a_pool = || Error::Unsupported("not a Cowstore pool: no superblock found".into());
    let Some(sb) = newest else {
        return Err(error
            .filter(|e| any_magic || matches!(e, Error::Io { .. }))
            .unwrap_or_else(not_a_pool));
    };
    let unknown = sb.ro_compat & !KNOWN_RO_COMPAT;
    if unknown != 0 && !read_only {
        return Err(Error::Unsupported(format!(
            "the pool uses unknown features {unknown:#x} that allow reading only"
        )));
    }
    Ok(sb)
}

/// Writes the accepted end and a new epoch to the older set, durably. `fallback_tail` is the
/// oldest position that a recovery may start from: fences before it are superfluous.
pub(super) async fn fence(
    cx: &Cx,
    sb: &mut Superblock,
    accepted: JournalPos,
    fallback_tail: JournalPos,
) -> Result<(), Error> {
    let end = FrameSeq(accepted.seq.0 - 1);
    let epoch = Epoch(
        sb.epoch
            .0
            .checked_add(1)
            .ok_or_else(|| Error::Limit("the pool was opened 2^32 times".into()))?,
    );
    let floor = fallback_tail.seq.0.saturating_sub(1);
    // The same end and chain as an older fence: that one is replaced.
    sb.fences.retain(|f| f.end.0 >= floor && (f.end != end || f.chain != accepted.chain));
    // A fence is needed only until a frame of its epoch follows it; before the newest accepted end
    // such frames are durable. So where the list is full, the oldest can go.
    if sb.fences.len() >= MAX_FENCES {
        sb.fences.remove(0);
    }
    if mutant::is("nofence") {
        return flush(cx).await;
    }
    sb.fences.push(Fence { end, chain: accepted.chain, epoch });
    sb.epoch = epoch;
    sb.sequence += 1;
    let set = if mutant::is("onesb") { 1 } else { sb.sequence };
    let writes = Superblock::copies_of(set)
        .map(|copy| cx.write(Phys(COPY_BLOCKS[copy]), vec![BufSlice::whole(sb.encode(copy))]));
    for result in join_all(writes).await {
        result.map_err(|failure| match failure.errno {
            errno if is_full(errno) => Error::NoSpace(SpaceKind::Below),
            errno => Error::Io { errno, op: "write of a superblock", offset: 0 },
        })?;
    }
    flush(cx).await
}

pub(super) async fn flush(cx: &Cx) -> Result<(), Error> {
    cx.device_flush().await.map_err(|failure| Error::Io {
        errno: failure.errno,
        op: "flush before serving",
        offset: 0,
    })
}
