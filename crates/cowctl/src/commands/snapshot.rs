//! `snapshot`, `rollback`, `undo`.

use crate::args::{Rollback, Snapshot, Undo};
use crate::failure::Failure;
use crate::freeze::{self, Taken};
use crate::output;
use crate::session::{self, Access, Session};
use crate::units::human_size;
use cowstore::{Consistency, Kept, NodeKind, SnapshotOptions, Verb};
use serde_json::{Value, json};
use std::path::Path;

/// The property that a description is kept in.
pub const DESCRIPTION: &str = "description";

/// Properties of something new.
pub fn described(description: Option<String>) -> Vec<(String, String)> {
    description.into_iter().map(|text| (DESCRIPTION.to_owned(), text)).collect()
}

pub fn take(path: &Path, args: Snapshot) -> Result<(), Failure> {
    let Snapshot { names, description, freeze, json } = args;
    let options = SnapshotOptions { props: described(description), ..SnapshotOptions::default() };
    let taken = session::with(path, Access::Change, |pool| match &freeze.freeze {
        Some(dirs) => freeze::snapshot(pool, &names, &options, dirs, freeze.freeze_timeout),
        None => {
            let nodes = pool.nodes(Verb::Snapshot { names: names.clone(), options })?;
            Ok(Taken { nodes, consistency: Consistency::Crash, freeze_ms: 0, complaint: None })
        }
    })?;
    if json.json {
        let row = |(name, id): (&String, &u64)| {
            json!({
                "name": name,
                "id": id,
                "consistency": taken.consistency,
                "freeze_ms": Some(taken.freeze_ms).filter(|&ms| ms != 0),
            })
        };
        let rows: Vec<Value> = names.iter().zip(&taken.nodes).map(row).collect();
        output::json("snapshot", json!({"snapshots": rows}))?;
    }
    let names = names.join(", ");
    let complain = |why| Err(Failure::Failed(format!("{names}: taken, but not frozen: {why}")));
    taken.complaint.map_or(Ok(()), complain)
}

pub fn rollback(path: &Path, args: Rollback) -> Result<(), Failure> {
    let Rollback { names, dry_run, discard_current, force, json } = args;
    if dry_run {
        let rows = session::with(path, Access::Look, |pool| {
            let rows = names.iter().map(|name| foresee(pool, name, discard_current, force));
            rows.collect::<Result<Vec<Value>, Failure>>()
        })?;
        return say_what_would_happen(&rows, json.json);
    }
    let verb = Verb::Rollback { names: names.clone(), discard_current, force };
    let kept = session::with(path, Access::Change, |pool| pool.rolled_back(verb))?;
    report(&names, &kept, json.json)
}

pub fn undo(path: &Path, args: Undo) -> Result<(), Failure> {
    let Undo { volume, force, json } = args;
    let (to, kept) = session::with(path, Access::Change, |pool| {
        let nodes = pool.list(false)?;
        pool.find(&nodes, &volume)?;
        let prefix = format!("{volume}@");
        let undos =
            nodes.iter().filter(|n| n.kind == NodeKind::Undo && n.name.starts_with(&prefix));
        // Its name, for the report; which one it is, is for the engine to decide.
        let newest = undos.max_by_key(|node| node.node).map(|node| node.name.clone());
        let kept = pool.rolled_back(Verb::Undo { volume: volume.clone(), force })?;
        Ok((newest.unwrap_or_else(|| volume.clone()), kept))
    })?;
    report(&[to], &kept, json.json)
}

/// Names the snapshots that keep what was replaced, one a line.
fn report(names: &[String], kept: &[Option<Kept>], as_json: bool) -> Result<(), Failure> {
    if as_json {
        let rows = names.iter().zip(kept).map(|(name, kept)| {
            json!({
                "name": name,
                "volume": name.split('@').next(),
                "undo": kept.as_ref().map(|kept| &kept.name),
            })
        });
        return output::json("rollback", json!({"rolled_back": rows.collect::<Vec<_>>()}));
    }
    kept.iter().flatten().try_for_each(|kept| output::line(&kept.name))
}

/// What a rollback of one volume would do; refused as the real one would be.
fn foresee(
    pool: &Session,
    name: &str,
    discard_current: bool,
    force: bool,
) -> Result<Value, Failure> {
    let nodes = pool.list(false)?;
    let volume = name.split('@').next().unwrap_or_default();
    let head = pool.find(&nodes, volume)?;
    pool.find(&nodes, name)?;
    let writers = head.open_writers;
    if writers > 0 && !force {
        return Err(Failure::Refused(format!(
            "{}: {volume} is open for writing by {writers} client(s); --force would cut them off",
            pool.path().display()
        )));
    }
    let (mut changed, mut offset) = (0, Some(0));
    while let Some(from) = offset {
        let page = pool.diff((name, volume), from, false)?;
        changed += page.extents.iter().map(|(_, len)| len).sum::<u64>();
        offset = page.next;
    }
    Ok(json!({
        "name": name,
        "volume": volume,
        "changed_bytes": changed,
        "keeps_current": !discard_current && changed > 0,
        "clients_cut_off": writers,
    }))
}

fn say_what_would_happen(rows: &[Value], as_json: bool) -> Result<(), Failure> {
    if as_json {
        return output::json("rollback", json!({"dry_run": true, "would_roll_back": rows}));
    }
    for row in rows {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let changed = row["changed_bytes"].as_u64().unwrap_or(0);
        let fate = match (changed, row["keeps_current"].as_bool()) {
            (0, _) => "nothing has changed since".to_owned(),
            (_, Some(true)) => {
                format!("{} of changes would be kept as an undo", human_size(changed))
            }
            _ => format!("{} of changes would be lost", human_size(changed)),
        };
        output::line(format!("would roll {} back to {}: {fate}", text("volume"), text("name")))?;
    }
    Ok(())
}
