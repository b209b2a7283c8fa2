//! `check --repair`.
//!
//! The exit code is that of the check that ends it: 0 when nothing is wrong any more, 5 while data is not what was
//! written, or blocks of volumes are lost.

use super::check::{json_of, show_progress, show_text, verdict};
use crate::args::Check;
use crate::failure::Failure;
use crate::image::{PoolImage, refused};
use crate::output;
use crate::progress::Bar;
use cow_check::repair::{Action, Lost, Plan, RepairError, apply, plan};
use cow_check::{Options, Progress, check};
use cow_format::BLOCK_SIZE;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::path::Path;

/// Repairs the pool, or says what that would do.
pub fn repair(path: &Path, args: &Check) -> Result<(), Failure> {
    let mut image = PoolImage::open_alone(path)?;
    let bar = RefCell::new(Bar::new());
    let tell = |told: Progress| show_progress(&bar, told);
    let options =
        Options { data: !args.metadata_only, progress: Some(&tell), ..Options::default() };
    let plan = plan(&mut image, &options).map_err(failed(path))?;
    let mut report = plan.before.clone();
    if !args.dry_run {
        apply(&plan, &mut image).map_err(failed(path))?;
    }
    if !args.dry_run && !plan.is_empty() {
        report = check(&mut image, &options).map_err(refused(path))?;
    }
    drop(bar);
    let wrote = !args.dry_run && !plan.is_empty();
    if args.json.json {
        let mut body = json_of(&report, false);
        if let Value::Object(fields) = &mut body {
            fields.insert("repair".into(), describe(&plan, wrote));
        }
        output::json("check", body)?;
    } else {
        show(&plan, wrote)?;
        show_text(&report)?;
    }
    verdict(path, &report)
}

fn show(plan: &Plan, wrote: bool) -> Result<(), Failure> {
    let (done, lost) = if wrote { ("repaired", "lost") } else { ("would repair", "would be lost") };
    for action in &plan.actions {
        output::line(format!("{done}: {action}"))?;
    }
    for range in &plan.lost {
        output::line(format!("{lost}: {range}"))?;
    }
    if plan.is_empty() {
        output::line("nothing to repair, nothing was written")?;
    }
    Ok(())
}

fn describe(plan: &Plan, wrote: bool) -> Value {
    json!({
        "wrote": wrote,
        "corruptions_before": plan.before.corruptions,
        "actions": plan.actions.iter().map(action).collect::<Vec<_>>(),
        "lost": plan.lost.iter().map(lost).collect::<Vec<_>>(),
    })
}

fn action(action: &Action) -> Value {
    json!({ "action": action.name(), "what": action.to_string() })
}

fn lost(lost: &Lost) -> Value {
    let block = BLOCK_SIZE as u64;
    json!({
        "name": lost.name,
        "lba": lost.lba,
        "blocks": lost.blocks,
        "offset": lost.lba.saturating_mul(block),
        "length": lost.blocks.saturating_mul(block),
        "block": lost.block,
    })
}

fn failed(path: &Path) -> impl Fn(RepairError) -> Failure + use<> {
    let path = path.to_owned();
    move |error| {
        let text = format!("{}: {error}", path.display());
        match error {
            RepairError::Open(error) => refused(&path)(error),
            RepairError::Refused(_) => Failure::Corrupt(text),
            RepairError::NoSpace => Failure::NoSpace(text),
            RepairError::ReadsAgain { .. } | RepairError::Write { .. } => Failure::Failed(text),
        }
    }
}
