//! `scrub`.

use crate::args::Scrub;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access, Session};
use crate::signals;
use crate::units::human_size;
use cow_format::BLOCK_SIZE;
use cowstore::{Damage, ScrubOptions, Scrubbed, scrub_kept};
use serde_json::json;
use std::path::Path;

pub fn scrub(path: &Path, args: &Scrub) -> Result<(), Failure> {
    if args.status {
        let kept = session::with(path, Access::Look, |pool| {
            scrub_kept(pool.manage()).map_err(Failure::of(path))
        })?;
        return status(kept.as_ref(), args.json.json);
    }
    if args.rate == Some(0) {
        return Err(Failure::Usage("--rate 0: a scrub at this rate has no end".into()));
    }
    let interrupted = signals::hold(false)?;
    let run = |pool: &Session| {
        let options = ScrubOptions { rate_bytes: args.rate, restart: args.restart };
        pool.scrub(options, &interrupted)
    };
    let found = session::with(path, Access::Look, run)?;
    show(&found, args.json.json)?;
    let count = found.damage.len();
    if let Some(first) = found.damage.first() {
        let first = sentence(first);
        return Err(Failure::Corrupt(format!("{}: {count} damaged: {first}", path.display())));
    }
    if !found.complete {
        let text = if found.kept {
            "interrupted; the next scrub goes on from there"
        } else {
            "interrupted; this pool cannot keep how far it was, and the next scrub begins anew"
        };
        return Err(Failure::Failed(format!("{}: {text}", path.display())));
    }
    Ok(())
}

fn status(kept: Option<&Scrubbed>, as_json: bool) -> Result<(), Failure> {
    match kept {
        Some(found) => show(found, as_json),
        None if as_json => output::json("scrub", json!({ "under_way": false })),
        None => output::line("no scrub is under way or interrupted"),
    }
}

fn show(found: &Scrubbed, as_json: bool) -> Result<(), Failure> {
    let block = BLOCK_SIZE as u64;
    if as_json {
        return output::json(
            "scrub",
            json!({
                "under_way": !found.complete,
                "complete": found.complete,
                "clean": found.damage.is_empty(),
                "data_blocks": found.data_blocks,
                "map_nodes": found.map_nodes,
                "read_bytes": (found.data_blocks + found.map_nodes) * block,
                "resumed_bytes": found.resumed_blocks * block,
                "damage": found.damage,
            }),
        );
    }
    for damage in &found.damage {
        output::line(format!("damaged: {}", sentence(damage)))?;
    }
    let state = match (found.complete, found.damage.is_empty()) {
        (true, true) => "clean",
        (true, false) => "DAMAGED",
        (false, _) => "not at the end",
    };
    let resumed = match found.resumed_blocks {
        0 => String::new(),
        blocks => format!(", {} of it before an interruption", human_size(blocks * block)),
    };
    output::line(format!(
        "{state}: {} data blocks and {} map nodes read{resumed}",
        found.data_blocks, found.map_nodes
    ))
}

fn sentence(damage: &Damage) -> String {
    let Damage { name, kind, offset, length, block, what, .. } = damage;
    let place = block.map_or_else(String::new, |block| format!(", block {block}"));
    let first = offset / BLOCK_SIZE as u64;
    let last = (offset + length) / BLOCK_SIZE as u64 - 1;
    let lbas =
        if first == last { format!("lba {first}") } else { format!("lba {first} to {last}") };
    format!("{kind}: {name}, {lbas} (bytes {offset} to {}){place}: {what}", offset + length - 1)
}
