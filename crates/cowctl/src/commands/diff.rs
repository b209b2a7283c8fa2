//! `diff`.

use crate::args::Diff;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use crate::units::same_family;
use serde_json::json;
use std::path::Path;

pub fn diff(path: &Path, args: &Diff) -> Result<(), Failure> {
    let to = same_family(&args.from, &args.to)?;
    session::with(path, Access::Look, |pool| {
        let mut extents = Vec::new();
        let mut offset = Some(0);
        while let Some(from) = offset {
            let page = pool.diff(&args.from, &to, from)?;
            offset = page.next;
            for (offset, length) in page.extents {
                if args.json.json {
                    extents.push(json!({"offset": offset, "length": length}));
                } else {
                    output::line(format!("{offset} {length}"))?;
                }
            }
        }
        if args.json.json {
            return output::json("diff", json!({"from": args.from, "to": to, "extents": extents}));
        }
        Ok(())
    })
}
