//! The control socket.

use super::{Backend, Place, pattern};
use cowstore::control::{ControlClient, ControlServer, FRAME_MAX_BYTES, Host};
use cowstore::transfer::{ExportFile, ImportOptions};
use cowstore::{
    Answer, Error, ExportInfo, Manage, OpenOptions, Pool, SnapshotOptions, Verb, open_manage,
};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: u64 = 1 << 20;

fn serve(place: &Place, backend: &dyn Backend) -> (Arc<Pool>, ControlServer) {
    let pool = Arc::new(place.pool(backend));
    let server = ControlServer::start(pool.clone(), Host::default()).unwrap();
    (pool, server)
}

fn call(manage: &dyn Manage, verb: Verb) -> Result<Answer, Error> {
    manage.call(verb, &mut |_| {})
}

fn create(name: &str) -> Verb {
    Verb::CreateVolume { name: name.into(), size_bytes: MIB, props: Vec::new() }
}

pub fn all_verbs_from_outside(backend: &dyn Backend) {
    let place = Place::new();
    let (pool, server) = serve(&place, backend);
    assert_eq!(fs::metadata(server.socket()).unwrap().mode() & 0o777, 0o600);
    let client = ControlClient::connect(place.path("pool.cow")).unwrap();
    let name = |text: &str| text.to_owned();
    let ok = |verb| call(&client, verb).unwrap();
    assert!(matches!(ok(create("v")), Answer::Node(_)));
    assert!(matches!(call(&client, create("v")), Err(Error::Exists(text)) if text == "v"));
    let (names, options) = (vec![name("v@s")], SnapshotOptions::default());
    let Answer::Nodes(nodes) = ok(Verb::Snapshot { names: names.clone(), options }) else {
        panic!()
    };
    assert_eq!(nodes.len(), 1);
    ok(Verb::Hold { name: name("v@s"), tag: name("t"), set: true });
    ok(Verb::Hold { name: name("v@s"), tag: name("t"), set: false });
    pool.volume("v").unwrap().write_at(b"new", 0).unwrap();
    let rollback = Verb::Rollback { names, discard_current: false, force: false };
    let Answer::RolledBack(kept) = ok(rollback) else { panic!() };
    assert!(kept[0].is_some());
    assert!(matches!(ok(Verb::Undo { volume: name("v"), force: false }), Answer::RolledBack(_)));
    ok(Verb::Clone { source: name("v@s"), name: name("c"), props: Vec::new() });
    ok(Verb::Rename { name: name("c"), to: name("d") });
    ok(Verb::Resize { volume: name("d"), size_bytes: 2 * MIB, shrink: false });
    ok(Verb::SetProps { name: name("d"), changes: vec![(name("k"), Some(name("v")))] });
    let Answer::Props(props) = ok(Verb::GetProps { name: name("d") }) else { panic!() };
    assert_eq!(props.props, [(name("k"), name("v"))]);
    let Answer::List(list) = ok(Verb::List { exact: true }) else { panic!() };
    assert_eq!(list, pool.list(false).unwrap());
    let set = ok(Verb::SetSize { names: vec![name("d")], wait: true });
    assert!(matches!(set, Answer::SetSize(_)));
    assert!(matches!(ok(Verb::FreeUp { bytes: 1 }), Answer::SetSize(_)));
    let Answer::Info(info) = ok(Verb::Info { exact: false }) else { panic!() };
    assert_eq!(info.uuid, pool.identity().uuid_text());
    let diff = |limit| {
        let (from, to) = (name("v@s"), name("v"));
        Verb::Diff { from, to, offset: 0, limit, exact: true }
    };
    let Answer::Diff(page) = ok(diff(10)) else { panic!() };
    assert_eq!((page.extents, page.next), (vec![(0, 4096)], None));
    ok(Verb::Delete { names: vec![name("d")], recursive: false, dry_run: false });
    ok(Verb::Checkpoint);
    ok(Verb::WaitReclaim);
    assert_eq!(ok(Verb::Exports), Answer::Exports(Vec::new()));
    assert!(matches!(call(&client, Verb::Shutdown), Err(Error::Unsupported(_))));
    server.stop();
    Arc::into_inner(pool).unwrap().close().unwrap();
}

pub fn files_go_over(backend: &dyn Backend) {
    let place = Place::new();
    let (pool, server) = serve(&place, backend);
    let client = ControlClient::connect(place.path("pool.cow")).unwrap();
    let mut want = pattern(5, (9 << 20) + 512);
    want[2 << 20..6 << 20].fill(0);
    fs::write(place.path("in"), &want).unwrap();
    let file = Some(Arc::new(File::open(place.path("in")).unwrap()));
    let options = ImportOptions { volume: "v".into(), ..ImportOptions::default() };
    let mut told = Vec::new();
    let verb = Verb::Import { options: options.clone(), file };
    let answer = client.call(verb, &mut |progress| told.push(progress)).unwrap();
    let Answer::Transferred(moved) = answer else { panic!() };
    assert_eq!(moved.bytes, want.len() as u64);
    assert_eq!(told.last().unwrap().done_bytes, want.len() as u64);
    let out = ExportFile::create(place.path("out"), false).unwrap();
    call(&client, Verb::Export { name: "v".into(), file: Some(out.file()) }).unwrap();
    out.commit().unwrap();
    assert!(fs::read(place.path("out")).unwrap() == want);
    let result = call(&client, Verb::Import { options, file: None });
    assert!(matches!(result, Err(Error::Invalid(_))), "{result:?}");
    server.stop();
    drop(pool);
}

pub fn a_long_list(backend: &dyn Backend) {
    let place = Place::new();
    let (pool, server) = serve(&place, backend);
    let value = "ä\"\\\n".repeat(400);
    for index in 0..300 {
        let props = vec![("text".to_owned(), value.clone())];
        pool.create_volume(&format!("v{index:03}"), MIB, &props).unwrap();
    }
    let client = ControlClient::connect(place.path("pool.cow")).unwrap();
    let Answer::List(list) = call(&client, Verb::List { exact: false }).unwrap() else { panic!() };
    assert_eq!(list, pool.list(false).unwrap());
    // A request that is too long is refused, and the connection goes on.
    let names = vec!["x".repeat(1000); FRAME_MAX_BYTES / 1000];
    let verb = Verb::Delete { names, recursive: false, dry_run: true };
    assert!(matches!(call(&client, verb), Err(Error::Invalid(_))));
    call(&client, Verb::Checkpoint).unwrap();
    server.stop();
    drop(pool);
}

fn send(stream: &mut UnixStream, text: &str) {
    stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
}

fn receive(stream: &mut UnixStream) -> String {
    let mut len = [0; 4];
    stream.read_exact(&mut len).unwrap();
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

pub fn strange_clients(backend: &dyn Backend) {
    let place = Place::new();
    let (pool, server) = serve(&place, backend);
    let uuid = pool.identity().uuid_text();
    let connect = || UnixStream::connect(server.socket()).unwrap();
    let greeting = |protocol: u32, uuid: &str| {
        format!(
            r#"{{"hello":{{"protocol":{protocol},"version":"9","uuid":"{uuid}","program":"later","new":1}}}}"#
        )
    };
    let mut other = connect();
    send(&mut other, &greeting(7, &uuid));
    let text = receive(&mut other);
    assert!(text.contains("later 9 speaks control protocol 7"), "{text}");
    assert!(text.contains("speaks 1"), "{text}");
    let mut wrong = connect();
    send(&mut wrong, &greeting(1, "another"));
    assert!(receive(&mut wrong).contains("means pool another"));
    for garbage in [&b"\xff\xff\xff\xff"[..], b"\x02\0\0\0{}", b"GET / HTTP/1.1\r\n\r\n", b"\x09"] {
        let mut stream = connect();
        stream.write_all(garbage).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    }
    let mut stream = connect();
    send(&mut stream, &greeting(1, &uuid));
    assert!(receive(&mut stream).contains("hello"));
    for (request, kind) in [
        (r#"{"verb":"teleport","to":"x"}"#, r#""kind":"unsupported""#),
        (r#"{"verb":"list","exact":"x"}"#, r#""kind":"invalid""#),
        (r#"{"verb":5}"#, r#""kind":"invalid""#),
        ("[]", r#""kind":"invalid""#),
        ("nonsense", r#""kind":"invalid""#),
        (r#"{"verb":"list","later":[1,2]}"#, r#""list":[]"#),
    ] {
        send(&mut stream, request);
        let answer = receive(&mut stream);
        assert!(answer.contains(kind), "{request}: {answer}");
    }
    // One that says nothing, and one that is gone in the middle, harm nobody.
    let _silent = connect();
    let client = ControlClient::connect(place.path("pool.cow")).unwrap();
    call(&client, create("v")).unwrap();
    server.stop();
    drop(pool);
}

pub fn stopping(backend: &dyn Backend) {
    let place = Place::new();
    let pool = Arc::new(place.pool(backend));
    let asked = Arc::new(AtomicBool::new(false));
    let (flag, listed) = (asked.clone(), ExportInfo { name: "v".into(), ..Default::default() });
    let exports = vec![listed.clone()];
    let host = Host {
        exports: Some(Arc::new(move || exports.clone())),
        shutdown: Some(Arc::new(move || flag.store(true, Ordering::SeqCst))),
        ..Host::default()
    };
    let server = ControlServer::start(pool.clone(), host).unwrap();
    let client = ControlClient::connect(place.path("pool.cow")).unwrap();
    assert_eq!(call(&client, Verb::Exports).unwrap(), Answer::Exports(vec![listed]));
    assert_eq!(call(&client, Verb::Shutdown).unwrap(), Answer::Done);
    assert!(asked.load(Ordering::SeqCst));
    let socket = server.socket().to_owned();
    server.stop();
    assert!(!socket.exists());
    assert!(matches!(call(&client, Verb::Checkpoint), Err(Error::Io { .. })));
    let result = ControlClient::connect(place.path("pool.cow"));
    assert!(matches!(result, Err(Error::Busy(text)) if text.contains("pid")));
    let pool = Arc::into_inner(pool).expect("the server has let go of it");
    pool.close().unwrap();
}

pub fn served_pools_are_managed(backend: &dyn Backend) {
    let place = Place::new();
    let (pool, server) = serve(&place, backend);
    let path = place.path("pool.cow");
    let manage = open_manage(&path, &OpenOptions::default()).unwrap();
    assert!(manage.is_remote());
    call(&*manage, create("v")).unwrap();
    manage.close().unwrap();
    assert_eq!(pool.list(false).unwrap().len(), 1);
    server.stop();
    // Here, the pool itself is what is managed.
    let here: Box<dyn Manage> = Box::new(Arc::into_inner(pool).unwrap());
    assert!(!here.is_remote());
    let Answer::List(list) = call(&*here, Verb::List { exact: false }).unwrap() else { panic!() };
    assert_eq!(list.len(), 1);
    here.close().unwrap();
}
