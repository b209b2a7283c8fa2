//! The four checkpoint areas.
//!
//! Checkpoints are written to area `seq mod 4`, one after the other. With `m` the newest intact
//! one, only the area of `m + 1` can hold something newer, torn by a crash or damaged; what is
//! wrong in the others is past and costs nothing.

use crate::context::Cx;
use crate::flip::{Flip, one_byte};
use crate::report::{OpenError, Severity, Structure};
use cow_format::checkpoint::{Checkpoint, FLAG_NO_FALLBACK};
use cow_format::checksum::{Salt, salted};
use cow_format::geometry::{CHUNK_PAGES, Geometry};
use cow_format::page::{bitmap_crc, table_crc};
use cow_format::superblock::Superblock;
use cow_format::{BLOCK_SIZE, Buf, Phys};

const HEADER_CRC_AT: usize = 12;
const SEQ_AT: usize = 16;

/// What stands in an area.
pub(crate) enum Area {
    /// Nothing was ever written.
    Empty,
    Valid(Box<Checkpoint>),
    /// The header is no valid one; its block, if it could be read.
    BadHeader(String, Option<Buf>),
    /// The header is valid, the rest is not.
    BadBody {
        seq: u64,
        what: String,
        /// One byte is wrong: no torn write.
        flipped: bool,
    },
}

/// For what belongs into another area.
const NO_SEQ: u64 = u64::MAX;

impl Area {
    /// Whether a checkpoint after `seq` was begun here and is not intact.
    fn is_of_after(&self, seq: u64) -> bool {
        matches!(self, Self::BadBody { seq: own, .. } if *own > seq && *own != NO_SEQ)
    }

    /// Why nobody can say that checkpoint `seq` was never complete here, if that is so.
    pub(crate) fn may_hold(&self, seq: u64) -> Option<&str> {
        match self {
            Self::BadHeader(what, _) => Some(what),
            Self::BadBody { seq: own, what, .. } if *own >= seq => Some(what),
            _ => None,
        }
    }
}

/// Reads all areas; the newest checkpoint.
pub(crate) fn read(cx: &mut Cx<'_>, sb: &Superblock) -> Result<(Checkpoint, Vec<Area>), OpenError> {
    let areas: Vec<Area> =
        (0..4).map(|area| read_area(cx, sb, area)).collect::<Result<_, OpenError>>()?;
    let valid = areas.iter().filter_map(|area| match area {
        Area::Valid(cp) => Some(cp),
        _ => None,
    });
    let Some(newest) = valid.max_by_key(|cp| cp.seq).map(|cp| (**cp).clone()) else {
        let what = areas.iter().find_map(|area| match area {
            Area::BadHeader(what, _) | Area::BadBody { what, .. } => Some(what.clone()),
            _ => None,
        });
        let what = what.unwrap_or_else(|| "all areas are empty".to_owned());
        return Err(OpenError::Damaged { structure: Structure::Checkpoint, what });
    };
    let (image_blocks, pool_blocks) = (cx.block_count(), newest.pool_blocks);
    if image_blocks < pool_blocks {
        return Err(OpenError::Truncated { image_blocks, pool_blocks });
    }
    cx.report.stats.checkpoint_seq = newest.seq;
    Ok((newest, areas))
}

fn read_area(cx: &mut Cx<'_>, sb: &Superblock, area: usize) -> Result<Area, OpenError> {
    let at = Phys(sb.geometry.cp_start[area]);
    let head = match cx.read(at, 1) {
        Ok(head) => head,
        Err(cause) => return Ok(Area::BadHeader(cause, None)),
    };
    if head.iter().all(|&byte| byte == 0) {
        return Ok(Area::Empty);
    }
    let blocks = match Checkpoint::decode_len(&head, cx.tag, at) {
        Ok(blocks) if blocks <= sb.geometry.cp_blocks => blocks as usize,
        Ok(_) => return Ok(Area::BadHeader("is longer than its area".to_owned(), Some(head))),
        // It may be the newest, and nobody here can say what it says.
        Err(cause) if cause.is_unknown() => return Err(OpenError::Unsupported(cause)),
        Err(cause) => return Ok(Area::BadHeader(cause.to_string(), Some(head))),
    };
    let seq = raw_seq(&head);
    let whole = match cx.read(at, blocks) {
        Ok(whole) => whole,
        Err(what) => return Ok(Area::BadBody { seq, what, flipped: true }),
    };
    Ok(match Checkpoint::decode(&whole, cx.tag, at) {
        Ok(cp) if Checkpoint::area(cp.seq) != area => {
            let what = format!("checkpoint {} does not belong into this area", cp.seq);
            Area::BadBody { seq: NO_SEQ, what, flipped: true }
        }
        Ok(cp) => match cp.validate(&sb.geometry) {
            Ok(()) => Area::Valid(Box::new(cp)),
            Err(field) => {
                let what = format!("{field} cannot be, in a pool of {} blocks", cp.pool_blocks);
                Area::BadBody { seq, what, flipped: true }
            }
        },
        Err(cause) if cause.is_unknown() => return Err(OpenError::Unsupported(cause)),
        Err(cause) => {
            let flipped = is_flipped(cx, sb, whole, seq);
            Area::BadBody { seq, what: cause.to_string(), flipped }
        }
    })
}

fn raw_seq(head: &Buf) -> u64 {
    head[SEQ_AT..SEQ_AT + 8].iter().rev().fold(0, |acc, &byte| acc << 8 | u64::from(byte))
}

fn word(bytes: &[u8]) -> u32 {
    bytes[..4].iter().rev().fold(0, |acc, &byte| acc << 8 | u32::from(byte))
}

/// Whether one wrong byte in body or footer explains that the whole is not valid. The pages that
/// the corrected checkpoint describes were durable before it was written: they must be there.
fn is_flipped(cx: &mut Cx<'_>, sb: &Superblock, mut whole: Buf, seq: u64) -> bool {
    let footer_at = whole.len() - BLOCK_SIZE;
    let computed = salted(Salt::CheckpointBody, cx.tag, seq, &[&whole[..footer_at]]);
    let mut footer = *b"COWCPEND............";
    footer[8..16].copy_from_slice(&seq.to_le_bytes());
    let wrong = (0..16).filter(|&i| whole[footer_at + i] != footer[i]).count();
    let stored = word(&whole[footer_at + 16..]);
    let flip = match wrong {
        0 => one_byte(stored, computed, footer_at - BLOCK_SIZE),
        1 if stored == computed => Some(Flip::Stored),
        _ => None,
    };
    let Some(flip) = flip else { return false };
    flip.correct(&mut whole[..footer_at]);
    let crc = salted(Salt::CheckpointBody, cx.tag, seq, &[&whole[..footer_at]]);
    footer[16..].copy_from_slice(&crc.to_le_bytes());
    whole[footer_at..footer_at + footer.len()].copy_from_slice(&footer);
    let at = Phys(sb.geometry.cp_start[Checkpoint::area(seq)]);
    Checkpoint::decode(&whole, cx.tag, at).is_ok_and(|cp| has_its_pages(cx, sb, &cp))
}

/// Whether the pages of bitmap and node table are those that the checkpoint describes.
fn has_its_pages(cx: &mut Cx<'_>, sb: &Superblock, cp: &Checkpoint) -> bool {
    let tag = cx.tag;
    let mut matches = |at: Phys, crc: u32, sum: fn(&[u8], u64, Phys) -> u32| {
        cx.read(at, 1).is_ok_and(|page| sum(&page, tag, at) == crc)
    };
    let zones = (0..).zip(&cp.zones).filter(|(_, desc)| !desc.fresh).all(|(zone, desc)| {
        matches(sb.geometry.bitmap_home(zone, desc.home), desc.crc, bitmap_crc)
    });
    zones
        && (0..).zip(&cp.pages).filter(|(_, desc)| !desc.fresh).all(|(page, desc)| {
            let chunk = cp.chunks.get((page / CHUNK_PAGES) as usize);
            chunk.filter(|chunk| chunk.0 < cp.pool_blocks).is_some_and(|&chunk| {
                let at = Geometry::table_home(chunk, page % CHUNK_PAGES, desc.home);
                matches(at, desc.crc, table_crc)
            })
        })
}

/// Whether the header would be that of checkpoint `seq` but for one byte.
fn header_flipped(head: &Buf, tag: u64, seq: u64) -> bool {
    let parts: [&[u8]; 3] = [&head[..HEADER_CRC_AT], &[0; 4], &head[HEADER_CRC_AT + 4..BLOCK_SIZE]];
    let computed = salted(Salt::CheckpointHeader, tag, seq, &parts);
    one_byte(word(&head[HEADER_CRC_AT..]), computed, BLOCK_SIZE).is_some()
}

/// Judges what is not valid, now that the newest one is known.
pub(crate) fn check(cx: &mut Cx<'_>, sb: &Superblock, newest: &Checkpoint, areas: &[Area]) {
    for (index, area) in areas.iter().enumerate() {
        let place = format!("area {index}, block {}", sb.geometry.cp_start[index]);
        if let Area::Valid(cp) = area {
            check_age(cx, newest, cp, &place);
        } else if let Some((severity, what)) = judge(cx.tag, newest, index, areas) {
            cx.find(Structure::Checkpoint, severity, place, what);
        }
    }
}

/// What is wrong with an area that holds no valid checkpoint.
pub(crate) fn judge(
    tag: u64,
    newest: &Checkpoint,
    index: usize,
    areas: &[Area],
) -> Option<(Severity, String)> {
    let next = newest.seq.saturating_add(1);
    let past = format!("older than checkpoint {}, which is intact", newest.seq);
    Some(match areas.get(index)? {
        Area::Empty | Area::Valid(_) => return None,
        Area::BadHeader(what, head) => {
            let is_next = Checkpoint::area(next) == index;
            // The fields of a header lie in one sector: it is never torn.
            let older = next.checked_sub(4);
            let is_past = head.as_ref().is_some_and(|head| {
                let flipped = |seq| header_flipped(head, tag, seq);
                !flipped(next)
                    && older.is_some_and(|older| flipped(older) || raw_seq(head) == older)
            });
            if is_next && !is_past {
                (Severity::Corruption, format!("{what}; it may be the newest checkpoint"))
            } else {
                (Severity::Warning, format!("{what}; it is {past}"))
            }
        }
        Area::BadBody { seq, what, .. } if *seq < newest.seq => {
            (Severity::Warning, format!("{what}; checkpoint {seq} is {past}"))
        }
        Area::BadBody { seq, what, flipped: true } => {
            (Severity::Corruption, format!("{what}; checkpoint {seq} was the newest"))
        }
        Area::BadBody { seq, what, .. } if areas.iter().any(|area| area.is_of_after(*seq)) => (
            Severity::Corruption,
            format!("{what}; checkpoint {seq} was complete: another was begun after it"),
        ),
        Area::BadBody { seq, what, flipped: false } => {
            (Severity::Warning, format!("{what}; checkpoint {seq} was torn by a crash"))
        }
    })
}

fn check_age(cx: &mut Cx<'_>, newest: &Checkpoint, cp: &Checkpoint, place: &str) {
    if newest.seq - cp.seq >= 4 {
        let what = format!("checkpoint {} should have been replaced", cp.seq);
        cx.corrupt(Structure::Checkpoint, place, what);
    }
    if newest.seq - cp.seq == 1
        && newest.flags & FLAG_NO_FALLBACK == 0
        && cp.tail.seq > newest.tail.seq
    {
        cx.corrupt(Structure::Checkpoint, place, "its journal begins after that of the next one");
    }
}
