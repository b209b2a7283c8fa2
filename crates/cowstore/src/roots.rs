//! Content roots: equal for equal content, whichever pool and history it has; and what differs
//! where two roots do.

use crate::error::{Error, unexpected};
use crate::manage::{Answer, Manage, Verb};
use crate::pool::Pool;
use crate::transfer::Progress;
use crate::types::ContentRoot;
use cow_engine::{Op, Reply};
use cow_format::BLOCK_SIZE;
use cow_merkle::{CompareError, Digest, Page, Pages, Side, compare};
use std::cell::RefCell;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// What [`verify`] compares: a volume or snapshot, of a pool here or in another process.
#[derive(Clone, Copy)]
pub struct Compared<'a> {
    /// Its pool.
    pub pool: &'a dyn Manage,
    /// `VOL` or `VOL@SNAP`.
    pub name: &'a str,
}

impl Pool {
    /// The content root of `VOL@SNAP`, or of `VOL` at a moment after the call. What was computed
    /// for a snapshot is stored and not computed again.
    ///
    /// # Errors
    /// `Corrupt` when a block cannot be read as it was written; `Busy` for a volume that is
    /// written to when what it gives up is needed: a snapshot of it has no such trouble.
    pub fn root(&self, name: &str) -> Result<ContentRoot, Error> {
        root_answer(self.call(Op::Root { name: name.into() })?)
    }

    /// A page of the digests that a root is made of: 4096 bytes. Level 1 is over blocks.
    pub fn merkle_page(&self, name: &str, level: u8, index: u64) -> Result<Vec<u8>, Error> {
        let reply = self.call(Op::MerklePage { name: name.into(), level, index })?;
        let Reply::MerklePage(bytes) = reply else { return Err(unexpected(&reply)) };
        Ok(bytes)
    }

    /// Compares two volumes or snapshots of this pool: the runs of whole blocks that differ, as
    /// `(offset, length)` in bytes. Of equal content with stored roots nothing is read.
    pub fn verify(&self, a: &str, b: &str) -> Result<Vec<(u64, u64)>, Error> {
        let mut found = Vec::new();
        let side = |name| Compared { pool: self, name };
        verify(side(a), side(b), &mut |_| {}, &mut |offset, len| found.push((offset, len)))?;
        Ok(found)
    }
}

/// The answer to [`Op::Root`].
pub(crate) fn root_answer(reply: Reply) -> Result<ContentRoot, Error> {
    let Reply::Root { root, size_bytes } = reply else { return Err(unexpected(&reply)) };
    Ok(ContentRoot { root: to_hex(&root), size_bytes })
}

/// Compares two volumes or snapshots, perhaps of two pools: roots first, then the pages below
/// unequal digests alone. Calls `differs` with the offset and length in bytes of each run of blocks
/// that differ, ascending; behind the smaller of two sizes a volume counts as zeros. The two roots.
///
/// # Errors
/// Those of [`Pool::root`]; `Busy` when a volume was written to meanwhile.
pub fn verify(
    a: Compared<'_>,
    b: Compared<'_>,
    progress: &mut dyn FnMut(Progress),
    differs: &mut dyn FnMut(u64, u64),
) -> Result<(ContentRoot, ContentRoot), Error> {
    let progress = RefCell::new(progress);
    let (root_a, root_b) = (root_of(a, &progress)?, root_of(b, &progress)?);
    if root_a == root_b {
        return Ok((root_a, root_b));
    }
    let mut pages = (Remote { of: a, progress: &progress }, Remote { of: b, progress: &progress });
    let end = root_a.size_bytes.max(root_b.size_bytes);
    let (mut first, mut next) = (0, 0);
    let mut run = |block: u64, differs: &mut dyn FnMut(u64, u64)| {
        if block != next {
            if first < next {
                differs(first * BLOCK, (next * BLOCK).min(end) - first * BLOCK);
            }
            first = block;
        }
        next = block.saturating_add(1);
    };
    let compared = compare(
        Side { pages: &mut pages.0, size_bytes: root_a.size_bytes, root: digest(&root_a)? },
        Side { pages: &mut pages.1, size_bytes: root_b.size_bytes, root: digest(&root_b)? },
        |block| run(block, differs),
    );
    run(u64::MAX, differs);
    match compared {
        Ok(()) => Ok((root_a, root_b)),
        Err(CompareError::Pages(error)) => Err(error),
        Err(error @ CompareError::TooLarge { .. }) => Err(Error::Unsupported(error.to_string())),
        Err(error @ CompareError::Damaged { .. }) => {
            Err(match [a.name, b.name].iter().find(|name| !name.contains('@')) {
                Some(name) => Error::Busy(format!(
                    "{name} was written to meanwhile; take a snapshot and compare that"
                )),
                None => Error::Corrupt(format!("{} and {}: {error}", a.name, b.name)),
            })
        }
    }
}

fn digest(root: &ContentRoot) -> Result<Digest, Error> {
    let bytes = from_hex(&root.root).and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.ok_or_else(|| Error::Invalid(format!("{}: not a content root", root.root)));
    bytes.map(Digest)
}

type Told<'a, 'b> = &'a RefCell<&'b mut dyn FnMut(Progress)>;

fn ask(of: Compared<'_>, verb: Verb, progress: Told<'_, '_>) -> Result<Answer, Error> {
    of.pool.call(verb, &mut |told| (progress.borrow_mut())(told))
}

fn misfit(answer: &Answer) -> Error {
    Error::Unsupported(format!("unexpected answer {answer:?}"))
}

fn root_of(of: Compared<'_>, progress: Told<'_, '_>) -> Result<ContentRoot, Error> {
    match ask(of, Verb::Root { name: of.name.into() }, progress)? {
        Answer::Root(root) => Ok(root),
        other => Err(misfit(&other)),
    }
}

/// The pages of one side, fetched one by one.
struct Remote<'a, 'b> {
    of: Compared<'a>,
    progress: Told<'a, 'b>,
}

impl Pages for Remote<'_, '_> {
    type Error = Error;

    fn load(&mut self, level: u8, index: u64) -> Result<Option<Page>, Error> {
        let verb = Verb::MerklePage { name: self.of.name.into(), level, index };
        let answer = ask(self.of, verb, self.progress)?;
        let Answer::MerklePage(text) = &answer else { return Err(misfit(&answer)) };
        let bytes: Option<[u8; BLOCK_SIZE]> = from_hex(text).and_then(|b| b.try_into().ok());
        let bytes = bytes.ok_or_else(|| Error::Invalid("a page of another length".into()))?;
        Ok(Some(Page::from_bytes(level, index, &bytes)))
    }
}

/// Two hexadecimal digits for each byte.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect())
}
