//! `set`, `get`, `hold`, `release`.

use crate::args::{Get, Hold, Set};
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use cowstore::Verb;
use serde_json::{Map, json};
use std::path::Path;

pub fn set(path: &Path, args: Set) -> Result<(), Failure> {
    let Set { name, changes } = args;
    session::with(path, Access::Change, |pool| pool.done(Verb::SetProps { name, changes }))
}

pub fn get(path: &Path, args: &Get) -> Result<(), Failure> {
    let found = session::with(path, Access::Look, |pool| pool.props(&args.name))?;
    let mut props = found.props;
    if let Some(key) = &args.key {
        props.retain(|(known, _)| known == key);
        if props.is_empty() {
            let text = format!("{}: {} has no property {key}", path.display(), args.name);
            return Err(Failure::Failed(text));
        }
    }
    if args.json.json {
        let props: Map<_, _> = props.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let body = json!({"name": args.name, "properties": props, "holds": found.holds});
        return output::json("get", body);
    }
    for (key, value) in &props {
        output::line(if args.key.is_some() { value.clone() } else { format!("{key}={value}") })?;
    }
    Ok(())
}

pub fn hold(path: &Path, args: Hold, set: bool) -> Result<(), Failure> {
    let Hold { name, tag } = args;
    session::with(path, Access::Change, |pool| pool.done(Verb::Hold { name, tag, set }))
}
