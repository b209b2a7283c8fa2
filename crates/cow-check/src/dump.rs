//! Shows what stands in a pool, damaged or not, as far as it can be read.

mod map;
mod nodes;
mod records;

use crate::blocks::Blocks;
use crate::context::{Cx, Options};
use crate::report::{OpenError, Structure};
use crate::value::Value;
use crate::{checkpoint, superblock, table};
use crate::{checkpoint::Area, reach::Reach, superblock::Copy};
use cow_format::checkpoint::Checkpoint;
use cow_format::superblock::{COPY_BLOCKS, Superblock};
use cow_snaptree::Tree;

/// What to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// All copies of the superblock.
    Superblock,
    /// All checkpoint areas.
    Checkpoint,
    /// The frames after the newest checkpoint, with their records.
    Journal,
    /// The node table.
    Nodes,
    /// The map of `VOL` or `VOL@SNAP`, as of the newest checkpoint.
    Map(String),
}

/// Reads and shows `what`. Long lists are cut, and say so in a field `truncated`.
///
/// # Errors
/// When the pool does not open, or has no such volume or snapshot.
pub fn dump(blocks: &mut dyn Blocks, what: &What) -> Result<Value, OpenError> {
    let options = Options { data: false, ..Options::default() };
    let mut cx = Cx::new(blocks, &options);
    let (sb, copies) = superblock::read(&mut cx)?;
    if *what == What::Superblock {
        return Ok(superblocks(&sb, &copies));
    }
    let (cp, areas) = checkpoint::read(&mut cx, &sb)?;
    match what {
        What::Superblock | What::Checkpoint => Ok(checkpoints(&sb, &cp, &areas)),
        What::Journal => Ok(records::journal(&mut cx, &sb, &cp)),
        What::Nodes => Ok(nodes::nodes(&tree(&mut cx, &sb, &cp)?)),
        What::Map(name) => {
            let tree = tree(&mut cx, &sb, &cp)?;
            map::map(&mut cx, &tree, name)
        }
    }
}

fn tree(cx: &mut Cx<'_>, sb: &Superblock, cp: &Checkpoint) -> Result<Tree, OpenError> {
    let mut reach = Reach::new(sb.geometry.clone(), cp.pool_blocks);
    table::read(cx, cp, &mut reach).ok_or_else(|| {
        let what = cx.report.findings.iter().map(ToString::to_string).next();
        OpenError::Damaged {
            structure: Structure::TablePage,
            what: what.unwrap_or_else(|| "the node table cannot be read".to_owned()),
        }
    })
}

fn superblocks(newest: &Superblock, copies: &[Copy]) -> Value {
    let g = &newest.geometry;
    let layout = Value::Object(vec![
        ("mkfs_blocks", g.mkfs_blocks.into()),
        ("limit_blocks", g.limit_blocks.into()),
        ("checkpoint_areas", g.cp_start.iter().map(|&s| s.into()).collect::<Vec<_>>().into()),
        ("checkpoint_blocks", g.cp_blocks.into()),
        ("homes_start", g.homes_start.into()),
        ("journal_start", g.journal_start.into()),
        ("journal_blocks", g.journal_blocks.into()),
        ("max_chunks", g.max_chunks.into()),
        ("preallocated", g.preallocated.into()),
    ]);
    let copies: Vec<Value> = copies
        .iter()
        .zip(COPY_BLOCKS)
        .map(|(copy, block)| {
            let mut fields = vec![("block", block.into())];
            match copy {
                Copy::Valid(sb) => fields.extend(superblock_fields(sb)),
                Copy::Bad(what, _) => fields.push(("error", what.as_str().into())),
            }
            Value::Object(fields)
        })
        .collect();
    let uuid: String = newest.uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    Value::Object(vec![
        ("uuid", uuid.into()),
        ("compat", newest.compat.into()),
        ("ro_compat", newest.ro_compat.into()),
        ("incompat", newest.incompat.into()),
        ("layout", layout),
        ("copies", copies.into()),
    ])
}

fn superblock_fields(sb: &Superblock) -> Vec<(&'static str, Value)> {
    let fences: Vec<Value> = sb
        .fences
        .iter()
        .map(|fence| {
            Value::Object(vec![
                ("end", fence.end.0.into()),
                ("chain", hex(fence.chain)),
                ("epoch", fence.epoch.0.into()),
            ])
        })
        .collect();
    vec![("sequence", sb.sequence.into()), ("epoch", sb.epoch.0.into()), ("fences", fences.into())]
}

fn checkpoints(sb: &Superblock, newest: &Checkpoint, areas: &[Area]) -> Value {
    let areas: Vec<Value> = areas
        .iter()
        .zip(sb.geometry.cp_start)
        .map(|(area, start)| {
            let mut fields = vec![("block", start.into())];
            match area {
                Area::Empty => fields.push(("empty", true.into())),
                Area::Valid(cp) => fields.extend(checkpoint_fields(cp)),
                Area::BadHeader(what, _) => fields.push(("error", what.as_str().into())),
                Area::BadBody { seq, what, .. } => {
                    fields.push(("seq", (*seq).into()));
                    fields.push(("error", what.as_str().into()));
                }
            }
            Value::Object(fields)
        })
        .collect();
    Value::Object(vec![("newest", newest.seq.into()), ("areas", areas.into())])
}

fn checkpoint_fields(cp: &Checkpoint) -> Vec<(&'static str, Value)> {
    let used_pages = cp.pages.iter().filter(|page| page.used > 0).count() as u64;
    let fresh = cp.zones.iter().filter(|zone| zone.fresh).count() as u64;
    let free: u64 = cp.zones.iter().map(|zone| u64::from(zone.free)).sum();
    let detached: Vec<Value> = cp
        .detached
        .iter()
        .map(|line| {
            Value::Object(vec![
                ("node", line.node.0.into()),
                ("level", u32::from(line.level).into()),
                ("index", line.index.into()),
                ("block", line.slot.phys.0.into()),
                ("birth", line.slot.birth.0.into()),
                ("cursor", line.cursor.into()),
            ])
        })
        .collect();
    let damage: Vec<Value> = cp
        .damage
        .iter()
        .map(|damage| {
            Value::Object(vec![
                ("node", damage.node.0.into()),
                ("level", u32::from(damage.level).into()),
                ("index", damage.index.into()),
            ])
        })
        .collect();
    vec![
        ("seq", cp.seq.into()),
        ("epoch", cp.epoch.0.into()),
        ("last_gen", cp.last_gen.into()),
        ("last_node", cp.last_node.into()),
        ("last_volume", cp.last_volume.into()),
        ("last_group", cp.last_group.into()),
        ("tail_block", cp.tail.block.into()),
        ("tail_seq", cp.tail.seq.0.into()),
        ("tail_chain", hex(cp.tail.chain)),
        ("pool_blocks", cp.pool_blocks.into()),
        ("flags", cp.flags.into()),
        ("data_blocks", cp.data_blocks.into()),
        ("meta_blocks", cp.meta_blocks.into()),
        ("free_blocks", free.into()),
        ("time_ns", cp.time_ns.into()),
        ("chunks", cp.chunks.iter().map(|p| p.0.into()).collect::<Vec<_>>().into()),
        ("withheld", cp.withheld.iter().map(|p| p.0.into()).collect::<Vec<_>>().into()),
        ("damage", damage.into()),
        ("detached", detached.into()),
        ("damage_overflow", cp.damage_overflow.into()),
        ("zones", (cp.zones.len() as u64).into()),
        ("fresh_zones", fresh.into()),
        ("table_pages", (cp.pages.len() as u64).into()),
        ("used_table_pages", used_pages.into()),
    ]
}

fn hex(value: u64) -> Value {
    format!("{value:016x}").into()
}
