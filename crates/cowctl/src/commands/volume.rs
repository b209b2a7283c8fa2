//! `create`, `clone`, `rename`, `resize`, `delete`.

use crate::args::{CloneArgs, Create, Delete, Prune, Rename, Resize};
use crate::attach;
use crate::commands::snapshot::described;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use crate::units::{human_size, object_name};
use cowstore::{SetSize, Verb};
use serde_json::{Value, json};
use std::path::Path;

pub fn create(path: &Path, args: Create) -> Result<(), Failure> {
    let Create { volume: name, size: size_bytes, description, json } = args;
    let props = described(description);
    let verb = Verb::CreateVolume { name: name.clone(), size_bytes, props };
    let node = session::with(path, Access::Change, |pool| pool.nodes(verb))?;
    if json.json {
        let body = json!({"name": name, "id": node.first(), "size_bytes": size_bytes});
        return output::json("create", body);
    }
    Ok(())
}

pub fn clone(path: &Path, args: CloneArgs) -> Result<(), Failure> {
    let CloneArgs { source, volume: name, description, json } = args;
    let origin = source.clone();
    let verb = Verb::Clone { source, name: name.clone(), props: described(description) };
    let node = session::with(path, Access::Change, |pool| pool.nodes(verb))?;
    if json.json {
        let body = json!({"name": name, "id": node.first(), "origin": origin});
        return output::json("clone", body);
    }
    Ok(())
}

pub fn rename(path: &Path, args: Rename) -> Result<(), Failure> {
    let Rename { old: name, new: to } = args;
    if !name.contains('@') && to.contains('@') {
        return Err(Failure::Usage(format!("{to}: the new name of a volume has no @")));
    }
    session::with(path, Access::Change, |pool| pool.done(Verb::Rename { name, to }))?;
    attach::changed(path);
    Ok(())
}

pub fn resize(path: &Path, args: Resize) -> Result<(), Failure> {
    let Resize { volume, size: size_bytes, force } = args;
    session::with(path, Access::Change, |pool| {
        let nodes = pool.list(false)?;
        let current = pool.find(&nodes, &volume)?.size_bytes;
        if size_bytes < current && !force {
            return Err(Failure::Refused(format!(
                "{}: {volume} has {current} bytes; to cut off what lies beyond {size_bytes}, add --force",
                path.display()
            )));
        }
        pool.done(Verb::Resize { volume, size_bytes, shrink: force })
    })?;
    attach::changed(path);
    Ok(())
}

pub fn delete(path: &Path, args: Delete) -> Result<(), Failure> {
    let Delete { names, dry_run, recursive, wait, json } = args;
    debug_assert!(names.iter().all(|name| object_name(name).is_ok()));
    let access = if dry_run { Access::Look } else { Access::Change };
    let size = session::with(path, access, |pool| {
        let size = pool.set_size(Verb::Delete { names, recursive, dry_run })?;
        if wait {
            pool.done(Verb::WaitReclaim)?;
        }
        Ok(size)
    })?;
    if json.json {
        let mut body = freed(&size, dry_run);
        body["reclaimed"] = json!(wait);
        return output::json("delete", body);
    }
    if dry_run { say_what_would_go(&size) } else { Ok(()) }
}

pub fn prune(path: &Path, args: Prune) -> Result<(), Failure> {
    let Prune { volumes, dry_run, json } = args;
    let access = if dry_run { Access::Look } else { Access::Change };
    let (size, info) = session::with(path, access, |pool| {
        let size = pool.set_size(Verb::Prune { volumes, dry_run })?;
        Ok((size, pool.info(false)?))
    })?;
    if info.clock_suspect {
        eprintln!(
            "cowctl: note: the clock is more than a day ahead of the last time that is known; what has expired since \
             then stays for now"
        );
    }
    if json.json {
        let mut body = freed(&size, dry_run);
        body["clock_suspect"] = json!(info.clock_suspect);
        return output::json("prune", body);
    }
    if dry_run {
        return say_what_would_go(&size);
    }
    size.names.iter().try_for_each(|name| output::line(format!("deleted {name}")))
}

/// What a delete frees, as JSON.
fn freed(size: &SetSize, dry_run: bool) -> Value {
    json!({
        "names": size.names,
        "dry_run": dry_run,
        "freed_bytes": size.data_bytes,
        "freed_bytes_max": size.data_bytes_max,
        "freed_metadata_bytes": size.metadata_bytes,
        "exact": size.exact,
        "as_of_seq": size.as_of_seq,
    })
}

fn say_what_would_go(size: &SetSize) -> Result<(), Failure> {
    for name in &size.names {
        output::line(format!("would delete {name}"))?;
    }
    let (data, most) = (size.data_bytes, size.data_bytes_max);
    let metadata = size.metadata_bytes;
    if size.exact {
        return output::line(format!(
            "would free {data} bytes ({}) of data and {metadata} of metadata",
            human_size(data)
        ));
    }
    output::line(format!(
        "would free at least {data} bytes ({}) of data, at most {most} ({})",
        human_size(data),
        human_size(most)
    ))
}
