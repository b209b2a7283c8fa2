//! The scrub: everything that the last checkpoint has is read and compared with its checksums, at a
//! rate that one chooses, also while the pool is in use, by this process or another.
//!
//! It is a row of short steps ([`Verb::Scrub`]); what there is between two of them is a cursor, and
//! what was found. Both are kept in a property of the pool, [`SCRUB`], so that a scrub goes on
//! where it was whatever becomes of the process, and by whichever process has the pool then. Of damage
//! the property has as much as fits in; what comes behind that is found once more by whoever goes
//! on, since the cursor kept stays there.

use crate::error::Error;
use crate::manage::{Answer, Manage, Verb};
use crate::scrub_page::{Damage, KINDS, Scrubbed};
use crate::transfer::{Progress, Watch};
use cow_format::BLOCK_SIZE;
use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

/// The property of a pool that keeps a scrub that is not at its end.
pub const SCRUB: &str = "cow.scrub";

const BLOCK: u64 = BLOCK_SIZE as u64;
/// How often the cursor is kept.
const KEEP_EVERY: Duration = Duration::from_secs(2);
/// Blocks of a step.
const STEP_BLOCKS: u64 = 2048;
/// The property is no longer than this: others need room, too.
const KEPT_MAX_BYTES: usize = 1500;
/// Longest sleep before somebody looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// How to scrub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// At most so many bytes a second; `None` for as many as there are.
    pub rate_bytes: Option<u64>,
    /// From the beginning, whatever an earlier one has left.
    pub restart: bool,
}

/// Scrubs a pool to the end, or until it is cancelled; then the answer is not complete, and the next
/// scrub goes on from there.
///
/// # Errors
/// When the pool cannot be asked. Damage is none.
pub fn scrub(
    pool: &dyn Manage,
    options: &ScrubOptions,
    watch: &mut Watch<'_>,
) -> Result<Scrubbed, Error> {
    let total_bytes = match ask(pool, Verb::Info { exact: false })? {
        Answer::Info(info) => info.data_bytes,
        other => return Err(misfit(&other)),
    };
    let mut kept = Kept::default();
    if !options.restart
        && let Some(found) = kept_by(pool)?
    {
        kept = found;
    }
    let mut state = kept.resumed(pool)?;
    let mut cursor = kept.cursor;
    let (begun, mut last_kept, mut read_bytes) = (Instant::now(), Instant::now(), 0);
    loop {
        let page = match ask(pool, Verb::Scrub { cursor, blocks: STEP_BLOCKS })? {
            Answer::Scrubbed(page) => page,
            other => return Err(misfit(&other)),
        };
        read_bytes += (page.data_blocks + page.map_nodes) * BLOCK;
        state.data_blocks += page.data_blocks;
        state.map_nodes += page.map_nodes;
        state.damage.extend(page.damage);
        let Some(next) = page.next else { break };
        cursor = next;
        kept.advance(cursor, &state);
        (watch.progress)(Progress {
            phase: "scrub".into(),
            done_bytes: state.data_blocks * BLOCK,
            total_bytes: Some(total_bytes.max(state.data_blocks * BLOCK)),
            is_last: false,
        });
        let due = options
            .rate_bytes
            .map(|rate| Duration::from_secs_f64(read_bytes as f64 / rate.max(1) as f64));
        let cancelled = rest(due, begun, watch.cancelled);
        if cancelled || last_kept.elapsed() >= KEEP_EVERY {
            state.kept = keep(pool, Some(&kept))?;
            last_kept = Instant::now();
        }
        if cancelled {
            return Ok(state);
        }
    }
    if kept_by(pool)?.is_some() {
        keep(pool, None)?;
    }
    (state.complete, state.kept) = (true, false);
    Ok(state)
}

/// What a scrub that is not at its end has found until its cursor was kept last, by which
/// process ever; `None` if there is none.
///
/// # Errors
/// When the pool cannot be asked.
pub fn scrub_kept(pool: &dyn Manage) -> Result<Option<Scrubbed>, Error> {
    kept_by(pool)?.map(|kept| kept.resumed(pool)).transpose()
}

/// Waits until `due` is over since `begun`; whether it is to end.
fn rest(due: Option<Duration>, begun: Instant, cancelled: &dyn Fn() -> bool) -> bool {
    loop {
        if cancelled() {
            return true;
        }
        let left = due.unwrap_or_default().saturating_sub(begun.elapsed());
        if left.is_zero() {
            return false;
        }
        thread::sleep(left.min(NAP));
    }
}

fn ask(pool: &dyn Manage, verb: Verb) -> Result<Answer, Error> {
    pool.call(verb, &mut |_| {})
}

fn misfit(answer: &Answer) -> Error {
    Error::Unsupported(format!("unexpected answer {answer:?}"))
}

/// Whether it could be kept.
fn keep(pool: &dyn Manage, kept: Option<&Kept>) -> Result<bool, Error> {
    let changes = vec![(SCRUB.to_owned(), kept.map(Kept::encode))];
    match ask(pool, Verb::SetProps { name: String::new(), changes }) {
        Ok(_) => Ok(true),
        // A pool that is full, or open for reading only, can be scrubbed, too.
        Err(Error::NoSpace(_) | Error::Limit(_) | Error::ReadOnly(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

fn kept_by(pool: &dyn Manage) -> Result<Option<Kept>, Error> {
    let props = match ask(pool, Verb::GetProps { name: String::new() })? {
        Answer::Props(props) => props,
        other => return Err(misfit(&other)),
    };
    let found = props.props.iter().find(|(key, _)| key == SCRUB);
    // What cannot be understood is of a later version, or of nobody: from the beginning.
    Ok(found.and_then(|(_, value)| Kept::decode(value)))
}

/// What the property has: `1 node block end data_blocks map_nodes`, and for each damage
/// `kind:node:first:blocks:phys` behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Kept {
    cursor: (u64, u64, u64),
    data_blocks: u64,
    map_nodes: u64,
    /// Kind, node, first block, blocks, place; 0 for none.
    damage: Vec<(usize, u64, u64, u64, u64)>,
}

impl Kept {
    /// Takes over how far it is, unless what was found does not fit in.
    fn advance(&mut self, cursor: (u64, u64, u64), state: &Scrubbed) {
        let of = |damage: &Damage| {
            let kind = KINDS.iter().position(|kind| *kind == damage.kind).unwrap_or(0);
            let (first, blocks) = (damage.offset / BLOCK, damage.length / BLOCK);
            (kind, damage.node, first, blocks, damage.block.unwrap_or(0))
        };
        let damage = state.damage.iter().map(of).collect();
        let next =
            Self { cursor, data_blocks: state.data_blocks, map_nodes: state.map_nodes, damage };
        if next.encode().len() <= KEPT_MAX_BYTES {
            *self = next;
        }
    }

    fn encode(&self) -> String {
        let (node, block, end) = self.cursor;
        let mut text = format!("1 {node} {block} {end} {} {}", self.data_blocks, self.map_nodes);
        for (kind, node, first, blocks, phys) in &self.damage {
            text += &format!(" {kind}:{node}:{first}:{blocks}:{phys}");
        }
        text
    }

    fn decode(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some("1") {
            return None;
        }
        let mut number = || words.next()?.parse::<u64>().ok();
        let cursor = (number()?, number()?, number()?);
        let (data_blocks, map_nodes) = (number()?, number()?);
        let damage = |word: &str| {
            let numbers: Vec<u64> =
                word.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
            let [kind, node, first, blocks, phys] = numbers.try_into().ok()?;
            let kind = usize::try_from(kind).ok().filter(|kind| *kind < KINDS.len())?;
            Some((kind, node, first, blocks, phys))
        };
        let damage = words.map(damage).collect::<Option<_>>()?;
        Some(Self { cursor, data_blocks, map_nodes, damage })
    }

    /// What had been found, with the names of now. What is gone is no damage any more.
    fn resumed(&self, pool: &dyn Manage) -> Result<Scrubbed, Error> {
        let mut state = Scrubbed {
            data_blocks: self.data_blocks,
            map_nodes: self.map_nodes,
            resumed_blocks: self.data_blocks + self.map_nodes,
            kept: true,
            ..Scrubbed::default()
        };
        if self.damage.is_empty() {
            return Ok(state);
        }
        let nodes = match ask(pool, Verb::List { exact: false })? {
            Answer::List(nodes) => nodes,
            other => return Err(misfit(&other)),
        };
        let live = nodes.into_iter().filter(|node| node.live);
        let names: BTreeMap<u64, String> = live.map(|node| (node.node, node.name)).collect();
        for &(kind, node, first, blocks, phys) in &self.damage {
            let Some(name) = names.get(&node) else { continue };
            state.damage.push(Damage {
                name: name.clone(),
                node,
                kind: KINDS.get(kind).copied().unwrap_or_default().into(),
                offset: first.saturating_mul(BLOCK),
                length: blocks.saturating_mul(BLOCK),
                block: (phys != 0).then_some(phys),
                what: "found before the scrub was interrupted".into(),
            });
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back() {
        let kept = Kept {
            cursor: (3, 1 << 40, 9),
            data_blocks: 7,
            map_nodes: 2,
            damage: vec![(0, 3, 12, 2, 777), (3, 4, 0, 1, 0)],
        };
        assert_eq!(Kept::decode(&kept.encode()), Some(kept.clone()));
        for bad in ["", "1", "2 3 4 5 6 7", "1 3 4 5 6", "1 3 4 5 6 x", "1 3 4 5 6 7 9:1:1:1:1"] {
            assert_eq!(Kept::decode(bad), None, "{bad}");
        }
    }

    /// More damage than fits in: the cursor stays before it.
    #[test]
    fn the_cursor_does_not_pass_what_cannot_be_kept() {
        let damage = |n: u64| Damage {
            name: "v".into(),
            node: 1,
            kind: "data".into(),
            offset: n << 20,
            length: 4096,
            block: Some(n + 100),
            what: String::new(),
        };
        let mut kept = Kept::default();
        let mut state = Scrubbed::default();
        for n in 0..1000 {
            state.damage.push(damage(n));
            kept.advance((1, n, 1), &state);
        }
        let (_, block, _) = kept.cursor;
        assert!(block > 40 && block < 999, "{block}");
        assert_eq!(kept.damage.len() as u64, block + 1);
        assert!(kept.encode().len() <= KEPT_MAX_BYTES);
    }
}
