//! The domain on a real pool, with hooks that are shell commands.

use super::*;
use crate::config::{Config, Hooks};
use cowstore::{CreateOptions, NodeKind, OpenOptions, Pool};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn create(&self) -> Arc<Pool> {
        let options = CreateOptions::with_size(256 << 20);
        Arc::new(Pool::create(self.dir.path().join("pool.cow"), &options).unwrap())
    }

    fn open(&self) -> Arc<Pool> {
        Arc::new(Pool::open(self.dir.path().join("pool.cow"), &OpenOptions::default()).unwrap())
    }

    /// A hook that notes that it was called, and then does `rest`.
    fn hook(&self, name: &str, rest: &str) -> Vec<String> {
        let log = self.dir.path().join("log");
        let script = format!("echo {name} >> {}; {rest}", log.display());
        ["sh", "-c", &script].map(String::from).into()
    }

    fn hooks(&self) -> Hooks {
        Hooks {
            stop: self.hook("stop", ""),
            start: self.hook("start", ""),
            freeze: self.hook("freeze", ""),
            thaw: self.hook("thaw", ""),
            ..Hooks::default()
        }
    }

    /// What was called since the last look.
    fn called(&self) -> Vec<String> {
        let log = self.dir.path().join("log");
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(log);
        text.lines().map(String::from).collect()
    }
}

fn config(hooks: Hooks) -> Config {
    let mut config = Config::default();
    config.hooks.insert("test".into(), hooks);
    config
}

fn server(agent: &Agent, volumes: &[&str], driver: DriverSpec) -> Server {
    let volume = |name: &&str| VolumeRequest { name: (*name).into(), size_bytes: 1 << 30 };
    let volumes = volumes.iter().map(volume).collect();
    agent.create_server(&ServerRequest { name: "web".into(), volumes, driver }).unwrap()
}

fn command() -> DriverSpec {
    DriverSpec::Command { hooks: "test".into() }
}

fn request(server: &Server, name: &str) -> SnapshotRequest {
    SnapshotRequest { server: server.id, name: name.into(), description: "why".into() }
}

/// A snapshot that is completed.
fn snap(agent: &Arc<Agent>, server: &Server) -> Snapshot {
    let begun = agent.create_snapshot(&request(server, "s")).unwrap();
    assert_eq!((begun.status, begun.unique_bytes), (SnapshotStatus::InProgress, None));
    let done = agent.wait_completed(begun.id, WAIT).unwrap();
    assert_eq!(done.status, SnapshotStatus::Completed);
    done
}

fn write(pool: &Pool, server: &Server, text: &str) {
    for volume in &server.volumes {
        let volume = pool.volume(&volume.export).unwrap();
        volume.write_at(text.as_bytes(), 4096).unwrap();
    }
}

fn read(pool: &Pool, server: &Server) -> Vec<String> {
    let read = |volume: &ServerVolume| {
        let mut bytes = [0; 3];
        pool.volume(&volume.export).unwrap().read_at(&mut bytes, 4096).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    server.volumes.iter().map(read).collect()
}

fn wait_status(agent: &Agent, id: ServerId, status: ServerStatus) {
    for _ in 0..3000 {
        if agent.server(id).unwrap().status == status {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("server {id} never became {status:?}");
}

fn end(agent: Arc<Agent>, pool: Arc<Pool>) {
    agent.finish(WAIT);
    drop(agent);
    pool.shutdown().unwrap();
}

#[test]
fn a_server_goes_back_and_forth_with_all_its_volumes() {
    let place = Place::new();
    let pool = place.create();
    let agent = Agent::open(pool.clone(), Config::default()).unwrap();
    assert!(agent.is_new());
    let web = server(&agent, &["root", "data"], DriverSpec::None);
    assert!(!agent.is_new());
    write(&pool, &web, "one");
    let first = snap(&agent, &web);
    assert_eq!((first.unique_bytes, first.referenced_bytes), (Some(0), Some(8192)));
    assert_eq!((first.logical_bytes, first.consistency), (2 << 30, Consistency::Stopped));
    write(&pool, &web, "two");
    let second = snap(&agent, &web);
    write(&pool, &web, "six");
    assert_eq!(agent.snapshot(first.id).unwrap().unique_bytes, Some(8192));
    let listed: Vec<_> = agent.snapshots(Some(web.id)).unwrap().iter().map(|s| s.id).collect();
    assert_eq!(listed, [second.id, first.id]);

    let restored = agent.restore(first.id).unwrap();
    assert_eq!((restored.snapshot, restored.server.id), (first.id, web.id));
    assert_eq!(read(&pool, &web), ["one", "one"]);
    agent.undo(first.id).unwrap();
    assert_eq!(read(&pool, &web), ["six", "six"]);
    // The undo of an undo; nothing had changed, so the engine has kept nothing.
    agent.undo(first.id).unwrap();
    assert_eq!(read(&pool, &web), ["one", "one"]);
    agent.undo(first.id).unwrap();
    assert_eq!(read(&pool, &web), ["six", "six"]);
    assert!(matches!(agent.undo(second.id), Err(AgentError::State(_))));

    let preview = agent.reclaim(&[second.id]).unwrap();
    let before = pool.info(true).unwrap().data_bytes;
    agent.delete_snapshot(second.id).unwrap();
    pool.wait_reclaim().unwrap();
    assert_eq!(before - pool.info(true).unwrap().data_bytes, preview.freed_bytes);
    assert!(preview.exact && preview.freed_bytes == 8192);
    let gone = AgentError::NotFound(format!("snapshot {}", second.id));
    assert_eq!(agent.restore(second.id).unwrap_err(), gone);
    assert_eq!(agent.reclaim(&[second.id]).unwrap_err(), gone);
    assert!(matches!(agent.reclaim(&[]), Err(AgentError::Invalid { field: "ids", .. })));
    agent.delete_server(web.id).unwrap();
    assert!(agent.servers().is_empty() && agent.snapshots(None).unwrap().is_empty());
    end(agent, pool);
}

#[test]
fn everything_is_there_after_a_restart_and_no_identity_comes_twice() {
    let place = Place::new();
    let pool = place.create();
    let mut config = config(place.hooks());
    config.agent.first_snapshot_id = 798;
    let agent = Agent::open(pool.clone(), config.clone()).unwrap();
    let web = server(&agent, &["root"], command());
    agent.start_server(web.id).unwrap();
    let kept = snap(&agent, &web);
    let last = snap(&agent, &web);
    assert_eq!((kept.id.0, last.id.0), (798, 799));
    agent.delete_snapshot(last.id).unwrap();
    let token = agent.fresh_token().unwrap();
    agent.finish(WAIT);
    drop(agent);
    // Not closed: the journal is replayed.
    drop(pool);
    let pool = place.open();
    let agent = Agent::open(pool.clone(), config).unwrap();
    assert!(agent.accepts(&token) && !agent.accepts("") && !agent.is_new());
    let found = agent.server(web.id).unwrap();
    assert_eq!(found, Server { status: ServerStatus::Running, ..web.clone() });
    assert_eq!(agent.snapshots(None).unwrap(), [agent.snapshot(kept.id).unwrap()]);
    assert_eq!(agent.snapshot(kept.id).unwrap().description, "why");
    assert_eq!(snap(&agent, &web).id.0, 800);
    assert!(server(&agent, &["root"], DriverSpec::None).id > web.id);
    end(agent, pool);
}

#[test]
fn a_running_server_is_frozen_and_thawed_stopped_and_started() {
    let place = Place::new();
    let pool = place.create();
    let agent = Agent::open(pool.clone(), config(place.hooks())).unwrap();
    let web = server(&agent, &["root", "data"], command());
    assert_eq!(snap(&agent, &web).consistency, Consistency::Stopped);
    assert!(place.called().is_empty());
    agent.start_server(web.id).unwrap();
    agent.start_server(web.id).unwrap();
    assert_eq!(place.called(), ["start"]);
    let frozen = snap(&agent, &web);
    assert_eq!(frozen.consistency, Consistency::Frozen);
    let label = |id: SnapshotId| {
        let nodes = pool.list(false).unwrap();
        let of = nodes.into_iter().filter(|node| node.name.ends_with(&format!("@{id}")));
        of.map(|node| (node.consistency, node.freeze_ms > 0)).collect::<Vec<_>>()
    };
    assert_eq!(label(frozen.id), [(Consistency::Frozen, true); 2]);
    assert_eq!(place.called(), ["freeze", "thaw"]);
    agent.restore(frozen.id).unwrap();
    wait_status(&agent, web.id, ServerStatus::Running);
    assert_eq!(place.called(), ["stop", "start"]);
    assert!(matches!(agent.delete_server(web.id), Err(AgentError::State(_))));
    agent.stop_server(web.id).unwrap();
    assert_eq!(place.called(), ["stop"]);
    agent.restore(frozen.id).unwrap();
    assert_eq!(agent.server(web.id).unwrap().status, ServerStatus::Stopped);
    assert!(place.called().is_empty(), "who does not run is neither stopped nor started");
    end(agent, pool);
}

#[test]
fn a_freeze_that_fails_is_thawed_and_told() {
    let place = Place::new();
    let pool = place.create();
    for (rest, limit) in [("exit 1", 5), ("sleep 600", 1)] {
        let hooks = Hooks {
            freeze: place.hook("freeze", rest),
            freeze_timeout_seconds: Some(limit),
            ..place.hooks()
        };
        let agent = Agent::open(pool.clone(), config(hooks)).unwrap();
        let web = server(&agent, &["root"], command());
        agent.start_server(web.id).unwrap();
        place.called();
        assert_eq!(snap(&agent, &web).consistency, Consistency::FreezeFailed);
        assert_eq!(place.called(), ["freeze", "thaw"]);
        agent.finish(WAIT);
    }
    pool.shutdown().unwrap();
}

#[test]
fn a_commit_that_takes_too_long_does_not_keep_the_server_frozen() {
    let place = Place::new();
    let pool = place.create();
    let mut agent = Agent::open(pool.clone(), config(place.hooks())).unwrap();
    Arc::get_mut(&mut agent).unwrap().frozen_limit = Duration::ZERO;
    let web = server(&agent, &["root", "data"], command());
    agent.start_server(web.id).unwrap();
    place.called();
    let taken = snap(&agent, &web);
    assert_eq!(taken.consistency, Consistency::FreezeFailed, "it does not say what may be false");
    assert!(pool.list(false).unwrap().iter().all(|node| node.freeze_ms == 0));
    assert_eq!(place.called(), ["freeze", "thaw", "thaw"]);
    assert_eq!(agent.snapshots(None).unwrap().len(), 1);
    let names = pool.list(false).unwrap().into_iter().filter(|n| n.live && n.name.contains('@'));
    assert_eq!(names.count(), 2, "what said that it was frozen is gone");
    end(agent, pool);
}

#[test]
fn a_server_that_cannot_be_stopped_is_not_restored() {
    let place = Place::new();
    let pool = place.create();
    let hooks = Hooks { stop: place.hook("stop", "echo no >&2; exit 1"), ..place.hooks() };
    let agent = Agent::open(pool.clone(), config(hooks)).unwrap();
    let web = server(&agent, &["root"], command());
    write(&pool, &web, "one");
    let snapshot = snap(&agent, &web);
    agent.start_server(web.id).unwrap();
    write(&pool, &web, "two");
    place.called();
    let refused = agent.restore(snapshot.id).unwrap_err();
    assert!(
        matches!(&refused, AgentError::State(text) if text.contains("hook stop") && text.contains("no"))
    );
    wait_status(&agent, web.id, ServerStatus::Running);
    assert_eq!(place.called(), ["stop", "start"]);
    assert_eq!(read(&pool, &web), ["two"]);
    assert!(matches!(agent.stop_server(web.id), Err(AgentError::State(_))));
    assert_eq!(agent.server(web.id).unwrap().status, ServerStatus::Running);
    end(agent, pool);
}

#[test]
fn a_server_is_restored_once_at_a_time() {
    let place = Place::new();
    let pool = place.create();
    let gate = place.dir.path().join("gate");
    let wait = format!("while ! test -e {}; do sleep 0.01; done", gate.display());
    let hooks = Hooks { stop: place.hook("stop", &wait), ..place.hooks() };
    let agent = Agent::open(pool.clone(), config(hooks)).unwrap();
    let web = server(&agent, &["root"], command());
    let snapshot = snap(&agent, &web);
    agent.start_server(web.id).unwrap();
    let first = {
        let (agent, id) = (agent.clone(), snapshot.id);
        thread::spawn(move || agent.restore(id))
    };
    wait_status(&agent, web.id, ServerStatus::Restoring);
    let refused = |result: Result<(), AgentError>| {
        assert!(matches!(result, Err(AgentError::State(text)) if text.contains("being restored")));
    };
    refused(agent.restore(snapshot.id).map(drop));
    refused(agent.undo(snapshot.id).map(drop));
    refused(agent.create_snapshot(&request(&web, "s")).map(drop));
    refused(agent.delete_snapshot(snapshot.id));
    refused(agent.delete_server(web.id));
    refused(agent.stop_server(web.id).map(drop));
    std::fs::write(&gate, "").unwrap();
    first.join().unwrap().unwrap();
    wait_status(&agent, web.id, ServerStatus::Running);
    end(agent, pool);
}

#[test]
fn the_limit_holds_and_undo_snapshots_do_not_count() {
    let place = Place::new();
    let pool = place.create();
    let agent = Agent::open(pool.clone(), config(place.hooks())).unwrap();
    let web = server(&agent, &["root", "data"], command());
    let first = snap(&agent, &web);
    write(&pool, &web, "one");
    agent.restore(first.id).unwrap();
    let undos = pool.list(false).unwrap().iter().filter(|n| n.kind == NodeKind::Undo).count();
    assert_eq!(undos, 2);
    let results: Vec<_> = thread::scope(|scope| {
        let take = |_| scope.spawn(|| agent.create_snapshot(&request(&web, "s")).map(|s| s.id));
        let threads: Vec<_> = (0..100).map(take).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let over =
        |r: &&Result<_, AgentError>| matches!(r, Err(AgentError::Limit(t)) if t.contains("limit"));
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 4);
    assert_eq!(results.iter().filter(over).count(), 96);
    let mut ids: Vec<_> = results.into_iter().flatten().collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4);
    // Before the server is frozen for nothing.
    agent.start_server(web.id).unwrap();
    place.called();
    assert!(matches!(agent.create_snapshot(&request(&web, "s")), Err(AgentError::Limit(_))));
    assert!(place.called().is_empty());
    end(agent, pool);
}

#[test]
fn clients_of_a_restored_volume_are_fenced() {
    let place = Place::new();
    let pool = place.create();
    let agent = Agent::open(pool.clone(), Config::default()).unwrap();
    let web = server(&agent, &["root"], DriverSpec::None);
    let export = &web.volumes[0].export;
    let client = pool.volume(export).unwrap();
    client.write_at(b"one", 4096).unwrap();
    let snapshot = snap(&agent, &web);
    assert_eq!(snapshot.consistency, Consistency::Crash, "a client has it open");
    client.write_at(b"two", 4096).unwrap();
    agent.restore(snapshot.id).unwrap();
    assert!(matches!(client.write_at(b"six", 4096), Err(cowstore::Error::Stale(_))));
    drop(client);
    assert_eq!(read(&pool, &web), ["one"]);
    // A client that reads a snapshot keeps it.
    let reader = pool.open_snapshot(&format!("{export}@{}", snapshot.id)).unwrap();
    assert!(matches!(agent.delete_snapshot(snapshot.id), Err(AgentError::Busy(_))));
    assert!(matches!(agent.delete_server(web.id), Err(AgentError::Busy(_))));
    drop(reader);
    agent.delete_snapshot(snapshot.id).unwrap();
    end(agent, pool);
}

#[test]
fn drivers_that_the_operator_has_not_named_are_refused() {
    let place = Place::new();
    let pool = place.create();
    let agent = Agent::open(pool.clone(), Config::default()).unwrap();
    let volumes = vec![VolumeRequest { name: "root".into(), size_bytes: 512 }];
    let request = ServerRequest { name: "web".into(), volumes, driver: command() };
    let refused = agent.create_server(&request);
    assert!(matches!(refused, Err(AgentError::Invalid { field: "driver.hooks", .. })));
    assert!(matches!(agent.server(ServerId(9)), Err(AgentError::NotFound(_))));
    assert!(matches!(agent.delete_server(ServerId(9)), Err(AgentError::NotFound(_))));
    let nowhere =
        SnapshotRequest { server: ServerId(9), name: "s".into(), description: String::new() };
    assert!(matches!(agent.create_snapshot(&nowhere), Err(AgentError::NotFound(_))));
    assert_eq!(agent.snapshots(Some(ServerId(9))), Ok(Vec::new()));
    end(agent, pool);
}
