//! Sockets, the handle, fencing and stopping.

use crate::client::{Answer, eventually, limits, rig};
use crate::mem::{MemExports, MemVolume};
use cow_nbd::wire::cmd;
use cow_nbd::{Server, ServerError};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MIB: usize = 1 << 20;

fn exports() -> (Arc<MemVolume>, Arc<MemExports>) {
    let volume = MemVolume::new(MIB, false);
    let exports = MemExports::new(&[("vol", &volume)]);
    (volume, exports)
}

#[test]
fn a_unix_socket_is_private_from_the_start_and_removed_at_the_end() {
    let (_, exports) = exports();
    let rig = rig(exports);
    let mode = std::fs::metadata(&rig.socket).expect("socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let files: Vec<_> = std::fs::read_dir(rig.dir.path()).expect("directory").collect();
    assert_eq!(files.len(), 1, "nothing but the socket is left");
    let path = rig.socket.display();
    assert_eq!(rig.server.uris("vol@s 1"), [format!("nbd+unix:///vol@s%201?socket={path}")]);
    rig.server.shutdown();
    rig.server.shutdown();
    assert!(!rig.socket.exists());
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let (_, exports) = exports();
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    drop(UnixListener::bind(&path).expect("bind"));
    assert!(path.exists(), "a dead socket is left");
    let first = Server::builder().unix(&path).start(exports.clone()).expect("replaced");
    let second = Server::builder().unix(&path).start(exports.clone());
    assert!(matches!(second, Err(ServerError::InUse { .. })));
    UnixStream::connect(&path).expect("the first one is unharmed");
    drop(first);
    assert!(!path.exists());

    std::fs::write(&path, "precious").expect("file");
    let on_file = Server::builder().unix(&path).start(exports.clone());
    assert!(matches!(on_file, Err(ServerError::NotASocket { .. })));
    assert_eq!(std::fs::read(&path).expect("file"), b"precious");

    let nowhere = Server::builder().unix(dir.path().join("no/s")).start(exports.clone());
    assert!(matches!(nowhere, Err(ServerError::Bind { .. })));
    assert!(matches!(Server::builder().start(exports), Err(ServerError::NoListener)));
}

#[test]
fn a_successors_socket_is_left_alone() {
    let (_, exports) = exports();
    let rig = rig(exports);
    std::fs::remove_file(&rig.socket).expect("remove");
    let successor = UnixListener::bind(&rig.socket).expect("bind");
    rig.server.shutdown();
    assert!(rig.socket.exists());
    drop(successor);
}

#[test]
fn the_network_must_be_permitted() {
    let (_, exports) = exports();
    let any = "0.0.0.0:0".parse().expect("address");
    let refused = Server::builder().tcp(any).start(exports.clone());
    assert!(matches!(refused, Err(ServerError::Insecure { .. })));
    let inherited = TcpListener::bind(any).expect("bind");
    let refused = Server::builder().fd(inherited).start(exports.clone());
    assert!(matches!(refused, Err(ServerError::Insecure { .. })));
    let server = Server::builder().tcp(any).insecure(true).start(exports).expect("permitted");
    assert_ne!(server.tcp_addresses()[0].port(), 0);
}

#[test]
fn several_sockets_serve_the_same_exports() {
    let (_, exports) = exports();
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    let inherited = TcpListener::bind("127.0.0.1:0").expect("bind");
    let server = Server::builder()
        .unix(&path)
        .tcp("127.0.0.1:0".parse().expect("address"))
        .fd(inherited)
        .limits(limits())
        .start(exports)
        .expect("start");
    assert_eq!(server.uris("vol").len(), 3);
    for address in server.tcp_addresses() {
        let mut greeting = [0; 18];
        let mut stream = TcpStream::connect(address).expect("connect");
        stream.read_exact(&mut greeting).expect("greeting");
    }
    UnixStream::connect(&path).expect("connect");
}

#[test]
fn connections_are_told_apart() {
    let (_, exports) = exports();
    let rig = rig(exports);
    let _negotiating = rig.greeted();
    let _open = rig.open("vol");
    eventually("both there", || rig.server.connections().len() == 2);
    let infos = rig.server.connections();
    assert_eq!(infos[0].export, None);
    assert_eq!(infos[1].export.as_deref(), Some("vol"));
    assert_eq!(infos[1].read_only, Some(false));
    let pid = format!("unix:pid={},", std::process::id());
    assert!(infos[1].client.starts_with(&pid), "{}", infos[1].client);
}

#[test]
fn fencing_ends_the_clients_of_one_export() {
    let (volume, other) = (MemVolume::new(MIB, false), MemVolume::new(MIB, false));
    let exports = MemExports::new(&[("vol", &volume), ("other", &other)]);
    let rig = rig(exports.clone());
    let mut fenced: Vec<_> = (0..3).map(|_| rig.open("vol")).collect();
    let mut witness = rig.open("other");
    volume.hold();
    fenced[0].request(cmd::READ, 0, 0, 4096, &[]);
    // Half a write, which must not arrive after the fence.
    fenced[1].request(cmd::WRITE, 0, 0, 4096, &[1; 2048]);
    eventually("in flight", || volume.held_count() == 1);
    exports.remove("vol");
    let released = {
        let volume = Arc::clone(&volume);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            volume.release_reversed();
        })
    };
    assert_eq!(rig.server.disconnect_export("vol"), 3);
    assert_eq!(volume.opens.load(Ordering::SeqCst), 0, "dropped when the fence is up");
    assert_eq!(volume.writes.load(Ordering::SeqCst), 0);
    released.join().expect("release");
    fenced.iter_mut().for_each(|client| client.assert_closed());
    witness.assert_alive();
    assert_eq!(rig.server.disconnect_export("vol"), 0);
}

#[test]
fn shutdown_finishes_what_is_in_flight() {
    let (volume, exports) = exports();
    let rig = rig(exports);
    let mut busy = rig.open("vol");
    let mut idle = rig.open("vol");
    let mut negotiating = rig.greeted();
    volume.hold();
    for index in 0..10 {
        busy.request(cmd::WRITE, 0, index * 4096, 4096, &[3; 4096]);
    }
    eventually("in flight", || volume.held_count() == 10);
    let volume_of_thread = Arc::clone(&volume);
    let released = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        volume_of_thread.release_reversed();
    });
    rig.server.shutdown();
    released.join().expect("release");
    assert_eq!(volume.opens.load(Ordering::SeqCst), 0);
    assert!(rig.server.connections().is_empty());
    for _ in 0..10 {
        assert_eq!(busy.answer(0).1, Answer::Ok);
    }
    busy.assert_closed();
    idle.assert_closed();
    negotiating.assert_closed();
    assert_eq!(volume.bytes()[..40_960], [3; 40_960]);
    assert!(UnixStream::connect(&rig.socket).is_err());
}

#[test]
fn shutdown_does_not_wait_for_a_client_that_does_not_read() {
    let (volume, exports) = exports();
    volume.write(0, &[1; MIB]);
    let rig = rig(exports);
    let mut staller = rig.open("vol");
    for _ in 0..30 {
        staller.request(cmd::READ, 0, 0, MIB as u32, &[]);
    }
    std::thread::sleep(Duration::from_millis(50));
    // A server that waited for it would not come back from here: the client is there until the end.
    rig.server.shutdown();
    assert_eq!(volume.opens.load(Ordering::SeqCst), 0);
    drop(staller);
}

#[test]
fn no_inherited_sockets_without_the_variables() {
    assert!(cow_nbd::inherited_listeners().expect("none").is_empty());
}

/// Half of the next test: run by itself in a process that has been passed a socket.
#[test]
#[ignore = "run by inherited_sockets_are_served"]
fn inherited_child() {
    let mut listeners = cow_nbd::inherited_listeners().expect("inherited");
    assert_eq!(listeners.len(), 1);
    assert!(cow_nbd::inherited_listeners().expect("taken").is_empty());
    let (volume, exports) = exports();
    let listener = listeners.remove(0);
    let server = Server::builder().fd(listener).start(exports).expect("start");
    assert_eq!(server.uris("vol").len(), 1);
    eventually("a client", || volume.writes.load(Ordering::SeqCst) == 1);
    eventually("no client", || volume.opens.load(Ordering::SeqCst) == 0);
}

#[test]
fn inherited_sockets_are_served() {
    let dir = tempfile::tempdir().expect("directory");
    let path = dir.path().join("s");
    let listener = UnixListener::bind(&path).expect("bind");
    let mut child = std::process::Command::new("sh")
        .args(["-c", "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0"])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "server::inherited_child", "--ignored", "--nocapture"])
        .stdin(std::os::fd::OwnedFd::from(listener))
        .spawn()
        .expect("child");
    let mut client = crate::client::Client::connect(&path);
    client.greet();
    client.go("vol");
    assert_eq!(client.write(0, &[1]), Answer::Ok);
    drop(client);
    assert!(child.wait().expect("child").success());
    assert!(path.exists(), "not ours to remove");
}
