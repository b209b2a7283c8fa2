use super::*;

fn holder() -> Holder {
    let (program, path) = ("test".into(), "pool.cow".into());
    Holder { pid: std::process::id(), program, socket: None, path }
}

fn registration(directory: &Path, key: &str) -> Registration {
    Registration {
        directory: directory.into(),
        key: key.into(),
        state: Mutex::new(State { holder: holder(), removed: false }),
    }
}

#[test]
fn an_entry_comes_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let one = registration(dir.path(), "one");
    one.write(&holder()).unwrap();
    let entry = dir.path().join("one.json");
    assert_eq!(read_entry(&entry), Some(holder()));
    assert_eq!(fs::metadata(&entry).unwrap().mode() & 0o777, 0o600);
    one.set_socket(Some(one.socket_path())).unwrap();
    assert_eq!(read_entry(&entry).unwrap().socket, Some(dir.path().join("one.sock")));
    drop(one);
    assert!(!entry.exists());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no temporary file is left");
}

#[test]
fn a_removed_entry_is_not_removed_again() {
    let dir = tempfile::tempdir().unwrap();
    let one = registration(dir.path(), "k");
    one.write(&holder()).unwrap();
    one.remove();
    let next = registration(dir.path(), "k");
    next.write(&holder()).unwrap();
    drop(one);
    assert!(dir.path().join("k.json").exists(), "the next holder's entry stays");
}

#[test]
fn what_is_no_entry_is_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.json");
    assert_eq!(read_entry(&path), None);
    for text in ["", "{", "[]", "{\"pid\":-1,\"program\":\"x\"}", "{\"pid\":1}"] {
        fs::write(&path, text).unwrap();
        assert_eq!(read_entry(&path), None, "{text}");
    }
    fs::write(&path, "{\"pid\":7,\"program\":\"p\",\"later\":[1,2]}").unwrap();
    let holder = read_entry(&path).unwrap();
    assert_eq!((holder.pid, holder.socket), (7, None), "unknown fields are ignored");
}

#[test]
fn a_foreign_or_open_directory_is_refused() {
    let uid = effective_uid();
    let dir = tempfile::tempdir().unwrap();
    let made = directory_in(Some(dir.path().join("a/b")), None, uid).unwrap();
    assert_eq!(made, dir.path().join("a/b/cow"));
    fs::set_permissions(&made, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(directory_in(Some(dir.path().join("a/b")), None, uid).is_err(), "open to others");
    assert!(check_private(dir.path(), uid + 1).is_err(), "of somebody else");
    std::os::unix::fs::symlink(dir.path(), dir.path().join("link")).unwrap();
    assert!(check_private(&dir.path().join("link"), uid).is_err(), "a symbolic link");
}

#[test]
fn the_dead_are_known() {
    let me = holder();
    assert!(me.is_alive());
    assert!(!Holder { pid: u32::MAX - 7, ..me }.is_alive());
}

#[test]
fn sockets_may_have_long_paths() {
    let dir = tempfile::tempdir().unwrap();
    let mut long = dir.path().to_owned();
    for _ in 0..5 {
        long = long.join("a".repeat(40));
    }
    fs::create_dir_all(&long).unwrap();
    for path in [dir.path().join("s.sock"), long.join("s.sock")] {
        let listener = bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let thread = std::thread::spawn(move || listener.accept().map(|_| ()));
        connect(&path).unwrap();
        thread.join().unwrap().unwrap();
    }
}
