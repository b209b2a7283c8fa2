//! `attach`, `detach`, `attachments`: a volume as a block device of this machine.
//!
//! The process that has the pool mounts it at a place of its own; this one, which is another, puts
//! a loop device over a file there; or it gives the kernel connections to the NBD server of that
//! process. What is attached is read off the kernel each time, so there is no list that could be
//! wrong after a crash. One such command works on a pool at a time.

mod clean;
mod devices;
mod link;
mod nbd;
mod place;
mod print;
mod sector;

use crate::answers::watch;
use crate::args::{Attach, AttachAs, Attachments, Detach};
use crate::failure::Failure;
use crate::mount::{connect, ensure, wait_for_end};
use crate::output::{self, Table};
use crate::session::must_exist;
use cow_fuse::loops;
use cowstore::{Answer, Error, Identity, Manage, Verb, runtime};
use devices::{Attached, Device};
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use devices::of_pool;

/// The property of a pool that names it in the paths of its devices.
const LABEL: &str = "label";
/// How long the last close of a file is on its way to the process that serves it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The pool, and the right to change what of it is attached, until it is dropped.
fn lock(path: &Path) -> Result<(Identity, File), Failure> {
    must_exist(path)?;
    let fail = Failure::of(path);
    let identity = Identity::read(path).map_err(&fail)?;
    let at = runtime::path_of(&identity, "attach").map_err(&fail)?;
    let file = File::options().create(true).append(true).mode(0o600).open(&at);
    let file = file.and_then(|file| file.lock().map(|()| file)).map_err(Failure::file(&at))?;
    Ok((identity, file))
}

/// The same, for a command: it ends when the process that has the pool does not answer, in which case
/// the lock, too, may never be had.
fn lock_and_watch(path: &Path) -> Result<(Identity, File), Failure> {
    must_exist(path)?;
    watch(path)?;
    lock(path)
}

pub fn attach(path: &Path, args: &Attach) -> Result<(), Failure> {
    if let Some(format) = args.print {
        return print::print(path, args, format);
    }
    let (identity, _lock) = lock_and_watch(path)?;
    clean::clean(path, &identity)?;
    let name = &args.name;
    if let Some(there) = of_pool(path, &identity)?.iter().find(|attached| attached.name == *name) {
        let device = there.device.path();
        if there.device.is_dead() {
            return Err(there.in_use(true));
        }
        return Err(Failure::Refused(format!("{name}: attached already: {}", device.display())));
    }
    let made = match args.kind {
        AttachAs::Loop => {
            ensure(path, None, false).and_then(|(dir, _)| configure(path, &dir, args))
        }
        AttachAs::Nbd => nbd::attach(path, &identity, args),
    };
    let device = made.inspect_err(|_| {
        // A server that was started for this alone ends again.
        let _ = let_go(path, &identity);
    })?;
    if let Err(failure) = follow_names(path, &identity, Some(&device)) {
        eprintln!("cowctl: note: no link: {failure}");
    }
    let shown = link::of(&device).unwrap_or_else(|| device.clone());
    let read_only = if name.contains('@') { "-o ro " } else { "" };
    eprintln!("cowctl: to mount what is on it: mount {read_only}{} DIR", shown.display());
    output::line(device.display().to_string())
}

/// Puts a loop device over the file of a volume.
fn configure(path: &Path, dir: &Path, args: &Attach) -> Result<PathBuf, Failure> {
    let file = dir.join(&args.name);
    let writable = !args.name.contains('@');
    let mut open = File::options();
    let opened = open.read(true).write(writable).open(&file);
    let backing = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            let what = if writable { "volume" } else { "snapshot" };
            Failure::NotFound(format!("{}: no such {what}: {}", path.display(), args.name))
        }
        _ => Failure::file(&file)(error),
    })?;
    let block_bytes = match args.sector_size.as_deref() {
        Some(bytes) => bytes.parse().map_err(|_| Failure::Usage(format!("{bytes}: no size")))?,
        None => {
            let size = backing.metadata().map_err(Failure::file(&file))?.len();
            let mut head = Vec::with_capacity(sector::HEAD_BYTES);
            let mut front = (&backing).take(sector::HEAD_BYTES as u64);
            front.read_to_end(&mut head).map_err(Failure::file(&file))?;
            sector::choose(&head, size)
        }
    };
    loops::attach(&backing, !writable, block_bytes).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => Failure::Failed(format!("{error}: that takes root")),
        io::ErrorKind::NotFound => Failure::Failed(format!("no loop devices here: {error}")),
        _ => Failure::Failed(error.to_string()),
    })
}

/// The label of a pool that is served.
fn label(path: &Path) -> Result<Option<String>, Failure> {
    let Some(client) = connect(path)? else { return Ok(None) };
    let verb = Verb::GetProps { name: String::new() };
    match client.call(verb, &mut |_| {}).map_err(Failure::of(path))? {
        Answer::Props(props) => {
            Ok(props.props.into_iter().find(|(key, _)| key == LABEL).map(|(_, value)| value))
        }
        _ => Ok(None),
    }
}

pub fn detach(path: &Path, args: &Detach) -> Result<(), Failure> {
    let (identity, _lock) = lock_and_watch(path)?;
    let before = of_pool(path, &identity)?;
    clean::clean(path, &identity)?;
    let was_there = before.iter().any(|attached| attached.name == args.name);
    let mut found = was_there;
    for attached in of_pool(path, &identity)?.iter().filter(|attached| attached.name == args.name) {
        found = true;
        let device = attached.device.path();
        match attached.device.release() {
            Ok(()) => link::remove(&device),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Err(attached.in_use(attached.device.is_dead()));
            }
            Err(error) => return Err(Failure::file(&device)(error)),
        }
    }
    clean::clean(path, &identity)?;
    let_go(path, &identity)?;
    if found {
        return Ok(());
    }
    Err(Failure::NotFound(format!("{}: not attached: {}", path.display(), args.name)))
}

/// After the last one the process that has the pool unmounts it, and ends if it was there for that.
fn let_go(path: &Path, identity: &Identity) -> Result<(), Failure> {
    if of_pool(path, identity)?.iter().any(|attached| !attached.device.is_dead()) {
        return Ok(());
    }
    let Some(client) = connect(path)? else { return Ok(()) };
    let deadline = Instant::now() + CLOSE_TIMEOUT;
    loop {
        match client.call(Verb::Unmount { dir: None }, &mut |_| {}) {
            Ok(Answer::Unmounted { ends: true }) => {
                wait_for_end(path);
                return Ok(());
            }
            Ok(_) | Err(Error::NotFound(_) | Error::Unsupported(_)) => return Ok(()),
            Err(Error::Busy(_)) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) => return Err(Failure::of(path)(error)),
        }
    }
}

pub fn list(path: &Path, args: &Attachments) -> Result<(), Failure> {
    must_exist(path)?;
    watch(path)?;
    let identity = Identity::read(path).map_err(Failure::of(path))?;
    let rows: Vec<Value> = of_pool(path, &identity)?.iter().map(row).collect();
    if args.json.json {
        return output::json("attachments", json!({"items": rows}));
    }
    let heads = ["name", "device", "link", "state", "mounted"];
    let cell = |row: &Value, key: &str| match &row[key] {
        Value::String(text) => text.clone(),
        Value::Array(dirs) if !dirs.is_empty() => {
            dirs.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        _ => "-".into(),
    };
    let table = Table {
        heads: heads.iter().map(|head| head.to_uppercase()).collect(),
        right: vec![false; heads.len()],
        rows: rows.iter().map(|row| heads.iter().map(|key| cell(row, key)).collect()).collect(),
    };
    table.print(args.scripts)
}

fn row(attached: &Attached) -> Value {
    let device = attached.device.path();
    let text = |path: PathBuf| path.display().to_string();
    json!({
        "name": attached.name,
        "device": text(device.clone()),
        "link": link::of(&device).map(text),
        "as": attached.device.kind(),
        "read_only": attached.device.is_read_only(),
        "state": if attached.device.is_dead() { "dead" } else { "attached" },
        "mounted": attached.mounts().into_iter().map(text).collect::<Vec<_>>(),
    })
}

/// Volumes may have changed: what is attached of them follows. For who has changed one.
pub fn changed(path: &Path) {
    let is_attached = |identity| of_pool(path, &identity).is_ok_and(|found| !found.is_empty());
    if !Identity::read(path).is_ok_and(is_attached) {
        return;
    }
    if let Err(failure) = follow(path) {
        eprintln!("cowctl: note: what is attached may not have followed: {failure}");
    }
}

/// Has all that is attached follow its volumes.
pub fn follow(path: &Path) -> Result<(), Failure> {
    // Something that is being attached at this moment is waited for.
    let (identity, _lock) = lock(path)?;
    follow_names(path, &identity, None)?;
    follow_sizes(path, &identity)
}

/// Links are called as the volumes are, whose names may have changed; `new` gets its first one.
fn follow_names(path: &Path, identity: &Identity, new: Option<&Path>) -> Result<(), Failure> {
    let pool = link::pool_name(label(path)?.as_deref(), path);
    let mut missing = Vec::new();
    for attached in of_pool(path, identity)? {
        let device = attached.device.path();
        let is_new = new == Some(device.as_path());
        let old = if is_new || attached.device.is_dead() { None } else { link::of(&device) };
        if is_new || old.is_some_and(|old| old != link::path(&pool, &attached.name)) {
            // All that are wrong go first: two volumes may have changed names.
            link::remove(&device);
            missing.push((attached.name, device));
        }
    }
    for (name, device) in missing {
        if let Err(error) = link::make(&pool, &name, &device) {
            eprintln!("cowctl: note: no link: {error}");
        }
    }
    Ok(())
}

fn follow_sizes(path: &Path, identity: &Identity) -> Result<(), Failure> {
    for attached in of_pool(path, identity)? {
        if attached.device.is_dead() {
            continue;
        }
        let failure = match &attached.device {
            Device::Loop(device) => device.refresh_size().err().map(Failure::file(&device.path())),
            Device::Nbd(device, _) => match nbd::size_now(path, &attached) {
                Ok(size) => device.resize(size).err().map(Failure::file(&device.path())),
                Err(failure) => Some(failure),
            },
        };
        if let Some(failure) = failure {
            let device = attached.device.path();
            eprintln!("cowctl: note: {} still has its old size: {failure}", device.display());
        }
    }
    Ok(())
}
