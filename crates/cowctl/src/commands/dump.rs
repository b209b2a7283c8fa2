//! `dump`.

use crate::args::{Dump, Part};
use crate::failure::Failure;
use crate::image::{PoolImage, refused};
use crate::output;
use cow_check::{Value, What};
use serde_json::{Map, json};
use std::path::Path;

pub fn dump(path: &Path, args: &Dump) -> Result<(), Failure> {
    let mut image = PoolImage::open(path)?;
    let name = args.name.clone().unwrap_or_default();
    if !name.is_empty() && args.part != Some(Part::Map) {
        return Err(Failure::Usage(format!("{name}: only a map is somebody's")));
    }
    let parts = match args.part {
        Some(Part::Superblock) => vec![("superblock", What::Superblock)],
        Some(Part::Checkpoint) => vec![("checkpoint", What::Checkpoint)],
        Some(Part::Journal) => vec![("journal", What::Journal)],
        Some(Part::Nodes) => vec![("nodes", What::Nodes)],
        Some(Part::Map) => vec![("map", What::Map(name))],
        None => vec![
            ("superblock", What::Superblock),
            ("checkpoint", What::Checkpoint),
            ("journal", What::Journal),
            ("nodes", What::Nodes),
        ],
    };
    let mut found = Vec::new();
    for (part, what) in parts {
        found.push((part, cow_check::dump(&mut image, &what).map_err(refused(path))?));
    }
    if args.json.json {
        let body: Map<_, _> = found.iter().map(|(part, v)| ((*part).into(), to_json(v))).collect();
        return output::json("dump", body.into());
    }
    for (part, value) in &found {
        output::line(format!("{part}:"))?;
        show(value, 1)?;
    }
    Ok(())
}

fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Object(fields) => {
            fields.iter().map(|(key, value)| ((*key).to_owned(), to_json(value))).collect()
        }
        Value::Array(elements) => elements.iter().map(to_json).collect(),
        Value::String(text) => json!(text),
        Value::U64(number) => json!(number),
        Value::Bool(yes) => json!(yes),
    }
}

/// As text: a line for each field, and for each element that has only plain fields.
fn show(value: &Value, depth: usize) -> Result<(), Failure> {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| match plain(value) {
            Some(text) => output::line(format!("{indent}{key}: {text}")),
            None => {
                output::line(format!("{indent}{key}:"))?;
                show(value, depth + 1)
            }
        }),
        Value::Array(elements) => elements.iter().try_for_each(|element| match flat(element) {
            Some(text) => output::line(format!("{indent}- {text}")),
            None => {
                output::line(format!("{indent}-"))?;
                show(element, depth + 1)
            }
        }),
        other => output::line(format!("{indent}{}", plain(other).unwrap_or_default())),
    }
}

/// A value that fits on the line of its key.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::U64(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(yes.to_string()),
        Value::Array(elements) if elements.is_empty() => Some("none".into()),
        Value::Array(elements) => {
            let texts: Option<Vec<String>> = elements.iter().map(plain).collect();
            texts.map(|texts| texts.join(" "))
        }
        Value::Object(_) => None,
    }
}

/// An object that fits on one line.
fn flat(value: &Value) -> Option<String> {
    let Value::Object(fields) = value else { return plain(value) };
    let texts: Option<Vec<String>> = fields
        .iter()
        .map(|(key, value)| plain(value).map(|text| format!("{key} {text}")))
        .collect();
    texts.map(|texts| texts.join(", "))
}
