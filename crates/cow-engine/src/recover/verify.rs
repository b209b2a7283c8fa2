//! Which prefix of the journal is accepted.

use super::{Journal, Scan, damaged, read_twice};
use crate::error::Error;
use crate::task::{Cx, join_all};
use cow_format::checkpoint::JournalPos;
use cow_format::frame::{FLAG_MORE, Frame};
use cow_format::record::Record;
use cow_format::{BLOCK_SIZE, Phys, checksum, mutant};
use std::collections::HashSet;

/// How far behind the end of the journal a frame is looked for that proves damage.
const LOOK_AHEAD: u64 = 512;

/// The position after the longest acceptable prefix.
pub(super) async fn accept(cx: &Cx, journal: &Journal, scan: &Scan) -> Result<JournalPos, Error> {
    let mut reader = journal.reader(cx);
    let mut accepted = journal.tail;
    let mut bad: HashSet<Phys> = HashSet::new();
    let early =
        if mutant::is("excusecut") { all_moved(cx, journal).await? } else { HashSet::new() };
    loop {
        let before = reader.scanner.next();
        let Some((frame, after)) = reader.next().await? else { break };
        match frame {
            // A pad holds nothing that could fail.
            None if accepted.seq == before.seq => accepted = after,
            None => {}
            Some(frame) => {
                if frame.seq > scan.stable && !mutant::is("noverify") {
                    verify_frame(cx, &frame, &mut bad).await?;
                }
                let whole = frame.flags & FLAG_MORE == 0 || mutant::is("grouppart");
                if whole && (frame.seq <= scan.stable || bad.is_subset(&early)) {
                    accepted = after;
                }
            }
        }
        if after.seq >= scan.end.seq {
            break;
        }
    }
    if accepted.seq <= scan.stable && scan.stable >= journal.tail.seq {
        return Err(damaged(accepted.seq, journal.ring.phys(accepted.block)));
    }
    Ok(accepted)
}

/// The fault that the mutant `excusecut` is: a `Move` counts though it may be cut itself.
async fn all_moved(cx: &Cx, journal: &Journal) -> Result<HashSet<Phys>, Error> {
    let (mut reader, mut moved) = (journal.reader(cx), HashSet::new());
    while let Some((frame, _)) = reader.next().await? {
        let records = frame.map(|frame| cow_journal::records_of(&frame).unwrap_or_default());
        for record in records.into_iter().flatten() {
            if let Record::Move { old, .. } = record {
                moved.insert(old);
            }
        }
    }
    Ok(moved)
}

/// Reads the data that a frame names. `bad` holds the failing blocks that nothing excuses yet.
async fn verify_frame(cx: &Cx, frame: &Frame, bad: &mut HashSet<Phys>) -> Result<(), Error> {
    let records = cow_journal::records_of(frame)
        .map_err(|e| Error::Corrupt(format!("frame {}: {e}", frame.seq)))?;
    for record in &records {
        let (phys, crcs) = match record {
            Record::MapSet { phys, crcs, .. } => (*phys, crcs),
            Record::Move { old, new, crcs, .. } => {
                // A Move excuses earlier records of that block only.
                for i in (0..crcs.len() as u64).filter(|_| !mutant::is("noexcuse")) {
                    bad.remove(&old.offset(i));
                }
                (*new, crcs)
            }
            _ => continue,
        };
        if phys.0 + crcs.len() as u64 > cx.core().config.device_blocks {
            bad.insert(phys);
            continue;
        }
        let buf = read_twice(cx, phys, crcs.len(), false, "read of unverified data").await?;
        let failing: Vec<usize> =
            (0..crcs.len()).filter(|&i| checksum::data(buf.block(i)) != crcs[i]).collect();
        // A failing block is read once more, past every cache, before it is believed.
        let rereads = failing.iter().map(|&i| {
            let at = phys.offset(i as u64);
            async move { (i, read_twice(cx, at, 1, true, "read of unverified data").await) }
        });
        for (i, result) in join_all(rereads).await {
            if mutant::is("noreread") || checksum::data(result?.block(0)) != crcs[i] {
                bad.insert(phys.offset(i as u64));
            }
        }
    }
    Ok(())
}

/// The journal seems to end at `end`. If a later frame stands behind it that calls the frame at
/// `end` durable, then that one was damaged, and nothing may be cut.
pub(super) async fn look_ahead(cx: &Cx, journal: &Journal, end: JournalPos) -> Result<(), Error> {
    let ring = journal.ring;
    let mut at = end.block % ring.blocks;
    let mut left = LOOK_AHEAD.min(ring.blocks);
    while left > 0 {
        let blocks = ring.to_end(at).min(left);
        let what = "read of the journal";
        let buf = read_twice(cx, ring.phys(at), blocks as usize, false, what).await?;
        for i in 0..blocks as usize {
            let place = ring.phys(at + i as u64);
            let frame = Frame::decode(&buf[i * BLOCK_SIZE..], journal.pool_tag, place);
            if frame.is_ok_and(|(frame, _)| frame.seq > end.seq && frame.durable >= end.seq) {
                return Err(damaged(end.seq, ring.phys(end.block)));
            }
        }
        at = ring.advance(at, blocks);
        left -= blocks;
    }
    Ok(())
}
