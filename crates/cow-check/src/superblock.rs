//! The four copies of the superblock.
//!
//! A write touches one set of two copies. After a crash inside it, that set may be torn or hold
//! one new and one old copy: a warning. A copy that differs by one byte, that is not even the
//! beginning of a superblock, or that is of another pool is corruption.

use crate::context::Cx;
use crate::flip::one_byte;
use crate::report::{OpenError, Severity, Structure};
use cow_format::checksum::{Salt, salted};
use cow_format::superblock::{COPY_BLOCKS, MAGIC, Superblock};
use cow_format::{BLOCK_SIZE, Buf, Phys};

const CRC_AT: usize = 12;
/// Sequence of what mkfs writes, to all four copies.
const MKFS_SEQUENCE: u64 = 1;

/// What stands where a copy should.
pub(crate) enum Copy {
    Valid(Superblock),
    /// Not valid; with the bytes, if they could be read.
    Bad(String, Option<Buf>),
}

/// Reads all copies; the newest one.
pub(crate) fn read(cx: &mut Cx<'_>) -> Result<(Superblock, Vec<Copy>), OpenError> {
    let (mut copies, mut newest): (Vec<Copy>, Option<Superblock>) = (Vec::new(), None);
    let mut bad = None;
    for (copy, &block) in COPY_BLOCKS.iter().enumerate() {
        let buf = match cx.read(Phys(block), 1) {
            Ok(buf) => buf,
            Err(cause) => {
                copies.push(Copy::Bad(cause, None));
                continue;
            }
        };
        match Superblock::decode(&buf, copy) {
            Ok(sb) => {
                if newest.as_ref().is_none_or(|newest| newest.sequence < sb.sequence) {
                    newest = Some(sb.clone());
                }
                copies.push(Copy::Valid(sb));
            }
            Err(cause) if cause.is_unknown() => return Err(OpenError::Unsupported(cause)),
            Err(cause) => {
                if buf[..MAGIC.len()] == MAGIC {
                    bad.get_or_insert(cause.to_string());
                }
                copies.push(Copy::Bad(cause.to_string(), Some(buf)));
            }
        }
    }
    let Some(newest) = newest else {
        return Err(bad.map_or(OpenError::NotAPool, |what| OpenError::Damaged {
            structure: Structure::Superblock,
            what,
        }));
    };
    let (image_blocks, pool_blocks) = (cx.block_count(), newest.geometry.mkfs_blocks);
    if image_blocks < pool_blocks {
        return Err(OpenError::Truncated { image_blocks, pool_blocks });
    }
    cx.tag = newest.pool_tag();
    Ok((newest, copies))
}

/// Compares the copies with the newest.
pub(crate) fn check(cx: &mut Cx<'_>, newest: &Superblock, copies: &[Copy]) {
    for (index, copy) in copies.iter().enumerate() {
        if let Some((severity, what)) = judge(cx.tag, newest, index, copy) {
            let place = format!("copy {index}, block {}", COPY_BLOCKS[index]);
            cx.find(Structure::Superblock, severity, place, what);
        }
    }
}

/// What is wrong with a copy.
pub(crate) fn judge(
    tag: u64,
    newest: &Superblock,
    index: usize,
    copy: &Copy,
) -> Option<(Severity, String)> {
    match copy {
        Copy::Bad(what, buf) => {
            let torn = buf.as_ref().is_some_and(|buf| may_be_torn(buf, index, tag));
            Some(match torn {
                true => (Severity::Warning, format!("{what}: torn by a crash")),
                false => (Severity::Corruption, what.clone()),
            })
        }
        Copy::Valid(sb) => {
            let current = Superblock::copies_of(newest.sequence);
            compare(newest, sb, index, current.contains(&index))
        }
    }
}

fn compare(
    newest: &Superblock,
    sb: &Superblock,
    copy: usize,
    is_current: bool,
) -> Option<(Severity, String)> {
    if sb.uuid != newest.uuid {
        return Some((Severity::Corruption, "belongs to another pool".to_owned()));
    }
    if sb.geometry != newest.geometry {
        return Some((Severity::Corruption, "has another layout than the newest".to_owned()));
    }
    let fresh = sb.sequence == MKFS_SEQUENCE;
    if !fresh && !Superblock::copies_of(sb.sequence).contains(&copy) {
        let what = format!("sequence {} belongs into the other set", sb.sequence);
        return Some((Severity::Corruption, what));
    }
    let expected = if is_current { newest.sequence } else { newest.sequence.saturating_sub(1) };
    if sb.sequence != expected && (is_current || !fresh) {
        let what = format!(
            "sequence {} instead of {expected}: a crash came between the writes of this set",
            sb.sequence
        );
        return Some((Severity::Warning, what));
    }
    let twin = sb.epoch != newest.epoch || sb.fences != newest.fences;
    if sb.sequence == newest.sequence && twin {
        return Some((Severity::Corruption, "differs from its twin".to_owned()));
    }
    None
}

/// Whether a crash in the middle of its write explains a bad copy. Its first sector is then a
/// whole one of this pool, and more than one byte is wrong.
fn may_be_torn(block: &Buf, copy: usize, tag: u64) -> bool {
    let stored = u32::from_le_bytes([
        block[CRC_AT],
        block[CRC_AT + 1],
        block[CRC_AT + 2],
        block[CRC_AT + 3],
    ]);
    let parts: [&[u8]; 3] = [&block[..CRC_AT], &[0; 4], &block[CRC_AT + 4..BLOCK_SIZE]];
    let computed = salted(Salt::Superblock, tag, COPY_BLOCKS[copy], &parts);
    block[..MAGIC.len()] == MAGIC
        && cow_format::superblock::pool_tag(&uuid_of(block)) == tag
        && stored != computed
        && one_byte(stored, computed, BLOCK_SIZE).is_none()
}

fn uuid_of(block: &Buf) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[16..32]);
    uuid
}
