//! `list`, and the columns that listings have.

use crate::args::{List, Listing, Type};
use crate::commands::snapshot::DESCRIPTION;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::session::{self, Access, Session};
use crate::units::{human_size, human_time, rfc3339};
use cowstore::transfer::IMPORTING;
use cowstore::{NodeInfo, NodeKind};
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::path::Path;

/// The columns: short name, key in JSON, whether it stands to the right.
const COLUMNS: &[(&str, &str, bool)] = &[
    ("name", "name", false),
    ("type", "type", false),
    ("kind", "kind", false),
    ("size", "size_bytes", true),
    ("referenced", "referenced_bytes", true),
    ("unique", "unique_bytes", true),
    ("metadata", "metadata_bytes", true),
    ("created", "created_at", false),
    ("expires", "expires_at", false),
    ("origin", "origin", false),
    ("state", "state", false),
    ("description", "description", false),
    ("exact", "exact", false),
    ("consistency", "consistency", false),
    ("frozen", "freeze_ms", true),
    ("holds", "holds", true),
    ("clients", "clients", true),
    ("writers", "writers", true),
    ("id", "id", true),
    ("parent", "parent", true),
    ("group", "group", true),
];

pub fn list(path: &Path, args: &List) -> Result<(), Failure> {
    let columns =
        columns(&args.listing, &["name", "type", "size", "referenced", "unique", "created"])?;
    let order = order(&args.listing)?;
    let (mut nodes, deleted) = session::with(path, Access::Look, |pool| {
        let (nodes, deleted) = pool.list_all(true)?;
        named(pool, &nodes, &args.names)?;
        Ok((nodes, deleted))
    })?;
    let wanted = |node: &NodeInfo| {
        let of = |name: &String| {
            node.name == *name
                || node.name.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('@'))
        };
        let of_type = if node.is_volume() { Type::Volume } else { Type::Snapshot };
        (args.names.is_empty() || args.names.iter().any(of))
            && (args.types.is_empty() || args.types.contains(&of_type))
    };
    nodes.retain(wanted);
    let mut rows: Vec<Value> = nodes.iter().map(row).collect();
    sort(&mut rows, &order);
    if args.listing.json {
        let reclaiming: Vec<Value> = deleted.iter().map(reclaiming_row).collect();
        return output::json("list", json!({"items": rows, "reclaiming": reclaiming}));
    }
    table(&rows, &columns, args.listing.exact).print(args.listing.scripts)?;
    match reclaiming(&deleted).filter(|_| !args.listing.scripts) {
        Some(line) => output::line(line),
        None => Ok(()),
    }
}

/// What was deleted and is not gone yet, as JSON.
fn reclaiming_row(node: &NodeInfo) -> Value {
    json!({"id": node.node, "percent": node.reclaimed_percent, "branch_point": node.reclaimed_percent.is_none()})
}

/// The same in words; `None` if there is nothing to wait for. A branch point is not: it stays until
/// one branch is left.
fn reclaiming(deleted: &[NodeInfo]) -> Option<String> {
    let percents: Vec<u64> =
        deleted.iter().filter_map(|node| node.reclaimed_percent.map(u64::from)).collect();
    let count = percents.len() as u64;
    let mean = percents.iter().sum::<u64>().checked_div(count)?;
    let what = if count == 1 {
        "one deleted snapshot".into()
    } else {
        format!("{count} deleted snapshots")
    };
    Some(format!("reclaiming {mean}%: {what}"))
}

/// A volume or snapshot as JSON.
pub fn row(node: &NodeInfo) -> Value {
    let is_volume = node.is_volume();
    let kind = match node.kind {
        NodeKind::Head | NodeKind::User => "user",
        NodeKind::Undo => "undo",
        NodeKind::Auto => "auto",
    };
    json!({
        "name": node.name,
        "type": if is_volume { "volume" } else { "snapshot" },
        "kind": kind,
        "size_bytes": node.size_bytes,
        "referenced_bytes": node.referenced_bytes,
        "unique_bytes": node.unique_bytes,
        "unique_bytes_max": node.unique_bytes_max,
        "metadata_bytes": node.unique_metadata_bytes,
        "exact": node.exact,
        "created_at": rfc3339(node.created_ns),
        "expires_at": rfc3339(node.expiry_ns),
        "origin": node.origin,
        "state": state(node),
        "description": node.prop(DESCRIPTION),
        "consistency": if is_volume { Value::Null } else { json!(node.consistency) },
        "freeze_ms": Some(node.freeze_ms).filter(|&ms| ms != 0),
        "holds": node.holds,
        "clients": node.open_readers + node.open_writers,
        "writers": node.open_writers,
        "id": node.node,
        "parent": node.parent,
        "group": Some(node.group).filter(|&group| group != 0),
    })
}

fn state(node: &NodeInfo) -> &'static str {
    if node.prop(IMPORTING).is_some() {
        return "importing";
    }
    match node.unique_bytes {
        Some(_) if node.exact => "ready",
        _ => "computing",
    }
}

/// The column of this name, short or as in JSON.
fn column(name: &str) -> Result<usize, Failure> {
    let found = COLUMNS.iter().position(|(short, key, _)| *short == name || *key == name);
    found.ok_or_else(|| {
        let known: Vec<_> = COLUMNS.iter().map(|column| column.0).collect();
        Failure::Usage(format!("no column {name:?}; there are {}", known.join(", ")))
    })
}

/// The columns that a listing asks for.
pub fn columns(listing: &Listing, usual: &[&str]) -> Result<Vec<usize>, Failure> {
    if listing.columns.is_empty() {
        return usual.iter().map(|name| column(name)).collect();
    }
    listing.columns.iter().map(|name| column(name)).collect()
}

/// What to sort by: keys, and whether downwards.
pub fn order(listing: &Listing) -> Result<Vec<(&'static str, bool)>, Failure> {
    let ascending = listing.ascending.iter().map(|name| (name, false));
    let descending = listing.descending.iter().map(|name| (name, true));
    let key = |(name, down): (&String, bool)| column(name).map(|index| (COLUMNS[index].1, down));
    ascending.chain(descending).map(key).collect()
}

/// Sorts by the first key, ties by the next. Without one the order stays.
pub fn sort(rows: &mut [Value], order: &[(&str, bool)]) {
    rows.sort_by(|a, b| {
        let by = |&(key, down): &(&str, bool)| {
            let ordering = compare(&a[key], &b[key]);
            if down { ordering.reverse() } else { ordering }
        };
        order.iter().map(by).find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
    });
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_u64(), b.as_u64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        (None, None) => text(a).cmp(&text(b)),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Rows as a table.
pub fn table(rows: &[Value], columns: &[usize], exact: bool) -> Table {
    let cell = |row: &Value, column: usize| {
        let (short, key, _) = COLUMNS[column];
        let value = &row[key];
        match (value.as_u64(), value.as_str()) {
            (Some(bytes), _) if key.ends_with("_bytes") && !exact => human_size(bytes),
            (_, Some(time)) if key.ends_with("_at") && !exact => to_the_second(time),
            // One line for each row, whatever somebody has put in there.
            _ if short == "description" => text(value).replace(char::is_control, " "),
            _ => text(value),
        }
    };
    Table {
        heads: columns.iter().map(|&column| COLUMNS[column].0.to_uppercase()).collect(),
        right: columns.iter().map(|&column| COLUMNS[column].2).collect(),
        rows: rows
            .iter()
            .map(|row| columns.iter().map(|&column| cell(row, column)).collect())
            .collect(),
    }
}

fn to_the_second(time: &str) -> String {
    let ns = time.parse().ok().map(|time: jiff::Timestamp| time.as_nanosecond());
    let shown = ns.and_then(|ns| u64::try_from(ns).ok()).and_then(human_time);
    shown.unwrap_or_else(|| time.to_owned())
}

/// All nodes, sizes exact, with each of `names` sure to be among them.
pub fn listed(pool: &Session, names: &[String]) -> Result<Vec<NodeInfo>, Failure> {
    let nodes = pool.list(true)?;
    named(pool, &nodes, names)?;
    Ok(nodes)
}

fn named(pool: &Session, nodes: &[NodeInfo], names: &[String]) -> Result<(), Failure> {
    names.iter().try_for_each(|name| pool.find(nodes, name).map(|_| ()))
}
