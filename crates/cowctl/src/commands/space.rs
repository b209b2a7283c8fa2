//! `space`.

use crate::args::Space;
use crate::commands::list::{columns, listed, order, row, sort, table};
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use crate::units::human_size;
use cowstore::Verb;
use serde_json::{Value, json};
use std::path::Path;

pub fn space(path: &Path, args: &Space) -> Result<(), Failure> {
    let listing = &args.listing;
    let columns = columns(listing, &["name", "referenced", "unique", "metadata", "exact"])?;
    let order = order(listing)?;
    let (nodes, together, info) = session::with(path, Access::Look, |pool| {
        let nodes = listed(pool, &args.names)?;
        let names = args.names.clone();
        let together = match names.is_empty() {
            true => None,
            false => Some(pool.set_size(Verb::SetSize { names })?),
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
