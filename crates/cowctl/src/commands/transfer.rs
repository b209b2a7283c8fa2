//! `import` and `export`.

use crate::args::{Export, Import};
use crate::commands::snapshot::described;
use crate::failure::Failure;
use crate::output;
use crate::session::{self, Access};
use cowstore::transfer::{ExportFile, ImportOptions, Transferred};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub fn import(path: &Path, args: Import) -> Result<(), Failure> {
    let Import { file: source, volume, size: size_bytes, into, raw, description, json } = args;
    session::must_exist(path)?;
    let file = open(&source)?;
    let options = ImportOptions {
        volume: volume.clone(),
        size_bytes,
        into,
        raw,
        props: described(description),
        label: source.display().to_string(),
    };
    let moved = session::with(path, Access::Change, |pool| {
        // Another process gives up when we are gone, and no sooner.
        let interrupted = if pool.is_local() { interrupts()? } else { Arc::default() };
        pool.import(file, options, &interrupted)
    })?;
    if json.json {
        return report("import", &volume, &moved);
    }
    Ok(())
}

pub fn export(path: &Path, args: &Export) -> Result<(), Failure> {
    session::must_exist(path)?;
    let fail = Failure::of(path);
    let is_stream = args.file.as_os_str() == "-";
    let target = ExportFile::create(&args.file, args.force).map_err(&fail)?;
    let file = target.file();
    let target = RefCell::new(Some(target));
    let interrupted = interrupts()?;
    let moved = session::with(path, Access::Look, |pool| {
        pool.export(&args.name, file, &interrupted, &mut || drop(target.take()))
    })?;
    if let Some(target) = target.take() {
        target.commit().map_err(&fail)?;
    }
    if args.json.json && !is_stream {
        return report("export", &args.name, &moved);
    }
    Ok(())
}

fn report(verb: &str, name: &str, moved: &Transferred) -> Result<(), Failure> {
    let (bytes, data_bytes) = (moved.bytes, moved.data_bytes);
    output::json(verb, json!({"name": name, "bytes": bytes, "data_bytes": data_bytes}))
}

/// The image, or standard input.
fn open(path: &Path) -> Result<File, Failure> {
    let opened = if path.as_os_str() == "-" {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(path)
    };
    let file = opened.map_err(Failure::file(path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::Usage(format!("{}: is a directory", path.display())));
    }
    Ok(file)
}

/// Becomes true at the first interrupt; the second ends the process.
fn interrupts() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_default(signal, flag.clone())
            .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
            .map_err(|e| Failure::Failed(format!("cannot catch signals: {e}")))?;
    }
    Ok(flag)
}
