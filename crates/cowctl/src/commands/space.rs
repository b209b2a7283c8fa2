//! `space`.

use crate::args::Space;
use crate::commands::list::{columns, listed, order, row, sort, table};
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access, Session};
use crate::units::human_size;
use cowstore::{NodeInfo, Verb};
use serde_json::{Value, json};
use std::path::Path;

pub fn space(path: &Path, args: &Space) -> Result<(), Failure> {
    let listing = &args.listing;
    let columns = columns(listing, &["name", "referenced", "unique", "metadata", "exact"])?;
    let order = order(listing)?;
    if let Some(bytes) = args.free_up {
        return free_up(path, args, bytes);
    }
    let (nodes, together, info) = session::with(path, Access::Look, |pool| {
        let nodes = match args.wait {
            true => settled(pool, &args.names)?,
            false => listed(pool, &args.names)?,
        };
        let (names, wait) = (args.names.clone(), args.wait);
        let together = match names.is_empty() {
            true => None,
            false => Some(pool.set_size(Verb::SetSize { names, wait })?),
        };
        Ok((nodes, together, pool.info(false)?))
    })?;
    let wanted = nodes.iter().filter(|n| args.names.is_empty() || args.names.contains(&n.name));
    let mut rows: Vec<Value> = wanted.map(row).collect();
    sort(&mut rows, &order);
    if listing.json {
        let mut body = json!({
            "items": rows,
            "data_bytes": info.data_bytes,
            "reclaiming_bytes": info.reclaiming_bytes,
        });
        if let Some(size) = &together {
            body["freed_if_deleted_together_bytes"] = json!(size.data_bytes);
            body["freed_if_deleted_together_bytes_max"] = json!(size.data_bytes_max);
            body["freed_metadata_bytes"] = json!(size.metadata_bytes);
            body["exact"] = json!(size.exact);
            body["as_of_seq"] = json!(size.as_of_seq);
        }
        return output::json("space", body);
    }
    table(&rows, &columns, listing.exact).print(listing.scripts)?;
    let Some(size) = together.filter(|_| !listing.scripts) else { return Ok(()) };
    let show = |bytes: u64| if listing.exact { bytes.to_string() } else { human_size(bytes) };
    output::line(match size.exact {
        true => format!("deleted together they free {}", show(size.data_bytes)),
        false => format!(
            "deleted together they free at least {}, at most {} (computing)",
            show(size.data_bytes),
            show(size.data_bytes_max)
        ),
    })
}

/// The listing once every size in it is exact, or cannot be made so.
fn settled(pool: &Session, names: &[String]) -> Result<Vec<NodeInfo>, Failure> {
    let nodes = listed(pool, names)?;
    let wanted = |node: &&NodeInfo| names.is_empty() || names.contains(&node.name);
    for node in nodes.iter().filter(wanted).filter(|node| !node.exact) {
        pool.set_size(Verb::SetSize { names: vec![node.name.clone()], wait: true })?;
    }
    listed(pool, names)
}

/// Names snapshots whose deletion frees so many bytes.
fn free_up(path: &Path, args: &Space, bytes: u64) -> Result<(), Failure> {
    let size = session::with(path, Access::Look, |pool| pool.set_size(Verb::FreeUp { bytes }))?;
    let show = |bytes: u64| match args.listing.exact {
        true => bytes.to_string(),
        false => human_size(bytes),
    };
    let is_enough = size.data_bytes >= bytes;
    if args.listing.json {
        output::json(
            "free_up",
            json!({
                "names": size.names,
                "wanted_bytes": bytes,
                "freed_bytes": size.data_bytes,
                "freed_bytes_max": size.data_bytes_max,
                "exact": size.exact,
                "enough": is_enough,
            }),
        )?;
    } else if is_enough {
        for name in &size.names {
            output::line(name)?;
        }
        if !args.listing.scripts {
            output::line(format!("deleted together they free {}", show(size.data_bytes)))?;
        }
    }
    if is_enough {
        return Ok(());
    }
    Err(Failure::NoSpace(format!(
        "{}: deleting every snapshot that is neither held nor open would free {}, not {}",
        path.display(),
        show(size.data_bytes),
        show(bytes)
    )))
}
