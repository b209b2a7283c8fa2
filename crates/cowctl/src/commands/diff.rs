//! `diff`.

use crate::args::Diff;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access, Session};
use crate::units::same_family;
use serde_json::json;
use std::path::Path;

pub fn diff(path: &Path, args: &Diff) -> Result<(), Failure> {
    let to = same_family(&args.from, args.to.as_deref())?;
    session::with(path, Access::Look, |pool| {
        let mut extents = Vec::new();
        each_change(pool, (&args.from, &to), args.exact, |offset, length| {
            if args.json.json {
                extents.push(json!({"offset": offset, "length": length}));
                return Ok(());
            }
            output::line(format!("{offset} {length}"))
        })?;
        if args.json.json {
            return output::json("diff", json!({"from": args.from, "to": to, "extents": extents}));
        }
        Ok(())
    })
}

/// Shows every run of changed bytes, offset and length, as soon as it is known. Pages may end
/// inside of one.
fn each_change(
    pool: &Session,
    sides: (&str, &str),
    exact: bool,
    mut show: impl FnMut(u64, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (mut held, mut next) = (None::<(u64, u64)>, Some(0));
    while let Some(from) = next {
        let page = pool.diff(sides, from, exact)?;
        next = page.next;
        for (offset, length) in page.extents {
            match &mut held {
                Some((start, len)) if *start + *len == offset => *len += length,
                held => {
                    if let Some((offset, length)) = held.replace((offset, length)) {
                        show(offset, length)?;
                    }
                }
            }
        }
    }
    held.map_or(Ok(()), |(offset, length)| show(offset, length))
}
