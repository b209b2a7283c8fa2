//! The check, from the superblock to the journal.

use crate::blocks::Blocks;
use crate::context::{Cx, Options, Phase};
use crate::journal::Journal;
use crate::reach::Reach;
use crate::report::{OpenError, Report, Structure};
use crate::tally::Sums;
use crate::{bitmap, checkpoint, superblock, table, walking};
use cow_format::checkpoint::{Checkpoint, FLAG_LEAKS};
use cow_format::geometry::CHUNK_BLOCKS;
use cow_format::mapnode::MAX_LEVEL;

/// Checks a pool that nobody writes to. See the crate's documentation for what it proves.
///
/// # Errors
/// When there is no pool, not a whole one, or one that this program does not know; and when no
/// copy of superblock or checkpoint is intact, so that there is nothing to begin with.
pub fn check(blocks: &mut dyn Blocks, options: &Options<'_>) -> Result<Report, OpenError> {
    let mut cx = Cx::new(blocks, options);
    cx.progress(Phase::Tables, 0, 0);
    let (sb, copies) = superblock::read(&mut cx)?;
    superblock::check(&mut cx, &sb, &copies);
    let (cp, areas) = checkpoint::read(&mut cx, &sb)?;
    checkpoint::check(&mut cx, &sb, &cp, &areas);

    let mut journal = Journal::scan(&mut cx, &sb, &cp);
    let mut reach = Reach::new(sb.geometry.clone(), cp.pool_blocks);
    let Some(tree) = table::read(&mut cx, &cp, &mut reach) else {
        // Nothing can be said of what the table would have led to.
        journal.verify(&mut cx, None);
        bitmap::check(&mut cx, &sb, &cp, None);
        return Ok(cx.report);
    };
    let exact = cp.damage.is_empty() && cp.damage_overflow == 0 && cp.flags & FLAG_LEAKS == 0;
    known_damage(&mut cx, &cp, &tree);
    let sums = walking::walk_all(&mut cx, &tree, &mut reach, &cp, exact);
    bitmap::check(&mut cx, &sb, &cp, Some(&reach));
    if exact && !cx.incomplete {
        counters(&mut cx, &cp, &sums);
    }
    journal.verify(&mut cx, Some(&tree));
    journal.apply(&mut cx, &cp, &tree, &mut reach);
    cx.progress(Phase::Journal, cx.report.stats.frames, cx.report.stats.frames);
    Ok(cx.report)
}

/// What folds have met and noted.
fn known_damage(cx: &mut Cx<'_>, cp: &Checkpoint, tree: &cow_snaptree::Tree) {
    for damage in &cp.damage {
        let name = crate::tree::name_of(tree, damage.node);
        if damage.level > MAX_LEVEL {
            let what = "a fold could not read its kill row or its properties";
            cx.corrupt(Structure::KnownDamage, name, what);
            continue;
        }
        let place = format!("{name}, level {} index {}", damage.level, damage.index);
        cx.corrupt(Structure::KnownDamage, place, "a fold could not read this map node");
    }
    if cp.damage_overflow > 0 {
        let what = format!(
            "{} more map nodes, kill rows and properties that folds could not read",
            cp.damage_overflow
        );
        cx.corrupt(Structure::KnownDamage, format!("checkpoint {}", cp.seq), what);
    }
}

/// The counters of the checkpoint.
fn counters(cx: &mut Cx<'_>, cp: &Checkpoint, sums: &Sums) {
    let chunks = cp.chunks.len() as u64 * CHUNK_BLOCKS;
    let meta = sums.total.map + cx.report.stats.blob_blocks + chunks;
    let pairs = [("data", cp.data_blocks, sums.total.data), ("metadata", cp.meta_blocks, meta)];
    for (name, stored, found) in pairs {
        if stored != found {
            let what = format!("{stored} {name} blocks, a walk finds {found}");
            cx.corrupt(Structure::Counter, format!("checkpoint {}", cp.seq), what);
        }
    }
}
