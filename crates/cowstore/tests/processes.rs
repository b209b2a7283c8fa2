//! Two processes and one pool. The other process is this very test program, started again.
#![allow(clippy::unwrap_used)]

use cowstore::control::{ControlServer, Host};
use cowstore::{Answer, CreateOptions, Error, OpenOptions, Pool, Verb, open_manage};
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const POOL: &str = "COWSTORE_TEST_POOL";
const ROLE: &str = "COWSTORE_TEST_ROLE";

/// What the other process does; nothing when the tests are run.
#[test]
fn other_process() {
    let (Ok(path), Ok(role)) = (env::var(POOL), env::var(ROLE)) else { return };
    let program = Some("holder".to_owned());
    let pool = Pool::open(path, &OpenOptions { program, ..OpenOptions::default() }).unwrap();
    let pool = Arc::new(pool);
    if role == "hold briefly" {
        println!("\nready");
        thread::sleep(Duration::from_millis(500));
        pool.shutdown().unwrap();
        return;
    }
    let _server = ControlServer::start(pool.clone(), Host::default()).unwrap();
    pool.volume("v").unwrap().write_at(b"not flushed", 0).unwrap();
    println!("\nready");
    thread::sleep(Duration::from_secs(60));
}

/// Starts it, and waits until it is ready.
fn start(path: &Path, role: &str) -> Child {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "other_process", "--nocapture"])
        .env(POOL, path)
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut lines = lines.map(|line| line.unwrap());
    assert!(lines.any(|line| line == "ready"), "the other process failed");
    // Its end would be a broken pipe otherwise.
    thread::spawn(move || lines.for_each(drop));
    child
}

#[test]
fn a_killed_holder_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.cow");
    let pool = Pool::create(&path, &CreateOptions::with_size(256 << 20)).unwrap();
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    pool.close().unwrap();
    let mut child = start(&path, "serve");
    let Err(Error::Busy(text)) = Pool::open(&path, &OpenOptions::default()) else { panic!() };
    let want = format!("in use by holder (pid {})", child.id());
    assert!(text.contains(&want), "{text}");
    let manage = open_manage(&path, &OpenOptions::default()).unwrap();
    assert!(manage.is_remote());
    let verb = Verb::CreateVolume { name: "w".into(), size_bytes: 1 << 20, props: Vec::new() };
    manage.call(verb, &mut |_| {}).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    let result = manage.call(Verb::Checkpoint, &mut |_| {});
    assert!(matches!(result, Err(Error::Io { .. })), "{result:?}");
    let manage = open_manage(&path, &OpenOptions::default()).unwrap();
    assert!(!manage.is_remote());
    let Ok(Answer::List(list)) = manage.call(Verb::List { exact: true }, &mut |_| {}) else {
        panic!()
    };
    assert_eq!(list.len(), 2, "what was acknowledged is there");
    manage.close().unwrap();
}

#[test]
fn a_holder_that_is_about_to_end_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pool.cow");
    Pool::create(&path, &CreateOptions::with_size(256 << 20)).unwrap().close().unwrap();
    let mut child = start(&path, "hold briefly");
    let manage = open_manage(&path, &OpenOptions::default()).unwrap();
    assert!(!manage.is_remote());
    manage.close().unwrap();
    assert!(child.wait().unwrap().success());
}
