//! A host agent with its own pool: it protects a machine's disk before an upgrade, takes it back
//! when the upgrade fails, and can be managed with `cowctl` all the while.
//!
//! `cargo run -p cowstore --example embed -- POOL`

use cowstore::control::{ControlServer, Host};
use cowstore::{CreateOptions, Error, OpenOptions, Pool, RollbackOptions, SnapshotOptions};
use std::sync::Arc;

fn open_or_create(path: &str) -> Result<Pool, Error> {
    let open = OpenOptions { program: Some("embed".into()), ..OpenOptions::default() };
    match Pool::open(path, &open) {
        Err(Error::NotFound(_)) => {
            Pool::create(path, &CreateOptions { open, ..CreateOptions::with_size(1 << 30) })
        }
        result => result,
    }
}

/// What an upgrade does to the disk of its machine.
fn upgrade(pool: &Pool) -> Result<(), Error> {
    let disk = pool.volume("vm")?;
    disk.write_at(b"half-installed", 1 << 20)?;
    disk.flush()?;
    Err(Error::Invalid("the new kernel does not boot".into()))
}

fn main() -> Result<(), Error> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "embed.cow".into());
    let pool = Arc::new(open_or_create(&path)?);
    let control = ControlServer::start(pool.clone(), Host::default())?;
    match pool.create_volume("vm", 100 << 30, &[]) {
        Ok(_) => pool.volume("vm")?.write_at(b"version 1     ", 1 << 20)?,
        Err(Error::Exists(_)) => {}
        Err(error) => return Err(error),
    }

    let snapshot = format!("vm@before-{}", pool.list(false)?.len());
    pool.snapshot(&[&snapshot], SnapshotOptions::default())?;
    if let Err(error) = upgrade(&pool) {
        let kept = pool.rollback(&[&snapshot], RollbackOptions::default())?;
        let kept = kept.into_iter().flatten().next().map_or("nothing".into(), |kept| kept.name);
        println!("{error}: back at {snapshot}; the broken state is {kept}");
    }
    let mut version = [0; 14];
    pool.volume("vm")?.read_at(&mut version, 1 << 20)?;
    println!("the disk holds {:?}", String::from_utf8_lossy(&version));
    for node in pool.list(true)? {
        println!("{:<20} {:?} bytes of its own", node.name, node.unique_bytes.unwrap_or(0));
    }

    control.stop();
    pool.shutdown()
}
