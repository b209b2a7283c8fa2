//! `pool create`, `pool info`, `pool grow`, `pool trim`.

use crate::args::{PoolCreate, PoolGrow, PoolInfo, PoolSet, PoolTrim};
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access, open_options};
use crate::units::{human_size, human_time};
use cowstore::{CreateOptions, Pool, PoolInfo as Info, Verb};
use serde_json::{Value, json};
use std::path::Path;

/// Events that are shown to people; JSON has all.
const RECENT_EVENTS: usize = 5;

pub fn create(path: &Path, args: &PoolCreate) -> Result<(), Failure> {
    let options = CreateOptions {
        size_bytes: args.size,
        preallocate: args.preallocate,
        force: args.force,
        open: open_options(false),
        ..CreateOptions::default()
    };
    let fail = Failure::of(path);
    let pool = Pool::create(path, &options).map_err(&fail)?;
    let info = pool.info(false);
    pool.close().map_err(&fail)?;
    show_if(args.json.json, &info.map_err(&fail)?)
}

pub fn info(path: &Path, args: &PoolInfo) -> Result<(), Failure> {
    let info = session::with(path, Access::Look, |pool| pool.info(true))?;
    if args.json.json {
        return output::json("pool", body(&info));
    }
    let size = |bytes| if args.exact { bytes_text(bytes) } else { human_size(bytes) };
    let mut lines = vec![
        ("pool", info.path.clone()),
        ("uuid", info.uuid.clone()),
        ("format", format!("version {}", info.version)),
        ("size", format!("{} (can grow to {})", size(info.size_bytes), size(info.limit_bytes))),
        (
            "used",
            format!(
                "{}: data {}, metadata {}",
                size(info.used_bytes),
                size(info.data_bytes),
                size(info.metadata_bytes)
            ),
        ),
        ("free", format!("{} ({} % used)", size(info.free_bytes), info.used_percent)),
        ("reserved", size(info.reserved_bytes)),
        ("reclaiming", size(info.reclaiming_bytes)),
        (
            "journal",
            format!("{}, {} in use", size(info.journal_bytes), size(info.journal_used_bytes)),
        ),
        ("volumes", info.volumes.to_string()),
        ("snapshots", info.snapshots.to_string()),
        (
            "driver",
            format!(
                "{}, {}{} I/O",
                info.driver,
                if info.fixed_buffers { "fixed buffers, " } else { "" },
                if info.direct_io { "direct" } else { "buffered" }
            ),
        ),
        ("health", health(&info)),
    ];
    let recent = info.events.iter().rev().take(RECENT_EVENTS).rev();
    lines.extend(recent.map(|event| {
        let at = human_time(event.at_ns).unwrap_or_default();
        ("event", format!("{at} {}", event.text))
    }));
    lines.extend(info.notes.iter().map(|note| ("note", note.clone())));
    lines.iter().try_for_each(|(key, value)| output::line(format!("{key:<11} {value}")))
}

pub fn grow(path: &Path, args: &PoolGrow) -> Result<(), Failure> {
    let info = session::with(path, Access::Change, |pool| {
        pool.done(Verb::Grow { size_bytes: args.size })?;
        pool.info(false)
    })?;
    show_if(args.json.json, &info)
}

pub fn trim(path: &Path, args: &PoolTrim) -> Result<(), Failure> {
    let bytes = session::with(path, Access::Change, session::Session::trim)?;
    if args.json.json {
        return output::json("trim", json!({ "trimmed_bytes": bytes }));
    }
    output::line(format!("{} free below", human_size(bytes)))
}

pub fn set(path: &Path, args: PoolSet) -> Result<(), Failure> {
    let verb = Verb::SetProps { name: String::new(), changes: args.changes };
    session::with(path, Access::Change, |pool| pool.done(verb))
}

fn show_if(wanted: bool, info: &Info) -> Result<(), Failure> {
    if wanted { output::json("pool", body(info)) } else { Ok(()) }
}

fn bytes_text(bytes: u64) -> String {
    bytes.to_string()
}

/// In one word, or in the words of what went wrong.
fn health(info: &Info) -> String {
    match &info.poisoned {
        Some(reason) => format!("stopped: {reason}"),
        None if info.damage > 0 => {
            format!("damaged: {} blocks of metadata cannot be read", info.damage)
        }
        None if info.stats.checksum_failures > 0 => {
            format!("damaged: {} checksums failed", info.stats.checksum_failures)
        }
        None => info.stalled.as_ref().map_or("ok".into(), |reason| format!("waiting: {reason}")),
    }
}

fn body(info: &Info) -> Value {
    let mut body = serde_json::to_value(info).unwrap_or_else(|_| json!({}));
    body["health"] = json!(health(info));
    body
}
