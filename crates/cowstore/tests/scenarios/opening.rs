//! Creating, opening, and who has a pool.

use super::{Backend, Place};
use cowstore::{CreateOptions, Error, Identity, OpenOptions, Pool};
use std::fs;

fn read_only() -> OpenOptions {
    OpenOptions { read_only: true, ..OpenOptions::default() }
}

pub fn create_refuses(backend: &dyn Backend) {
    let place = Place::new();
    let path = place.path("p");
    let create = |options: &CreateOptions| backend.create(&path, options).map(Pool::close);
    for size in [0, 1, 1 << 20, 1 << 53, 1 << 63, u64::MAX] {
        let result = create(&CreateOptions::with_size(size));
        assert!(matches!(result, Err(Error::Invalid(_))), "{size}: {result:?}");
        assert!(!path.exists(), "{size}");
    }
    assert!(matches!(create(&CreateOptions::default()), Err(Error::Invalid(_))));
    fs::write(&path, "precious").unwrap();
    let options = CreateOptions::with_size(128 << 20);
    assert!(matches!(create(&options), Err(Error::Exists(_))));
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    create(&CreateOptions { force: true, ..options.clone() }).unwrap().unwrap();
    assert!(matches!(create(&options), Err(Error::Exists(_))), "a pool is not empty either");
    let result = backend.create(&place.path("no/p"), &options);
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
}

pub fn no_pool_at_all(backend: &dyn Backend) {
    let place = Place::new();
    let open = |name: &str| backend.open(&place.path(name), &OpenOptions::default());
    let result = open("nothing");
    assert!(matches!(result, Err(Error::NotFound(_))), "{result:?}");
    for (name, content) in [("empty", vec![]), ("text", vec![b'x'; 100_000])] {
        fs::write(place.path(name), content).unwrap();
        let result = open(name);
        assert!(matches!(result, Err(Error::Unsupported(_))), "{name}: {result:?}");
    }
    assert!(matches!(open("."), Err(Error::Unsupported(_))), "a directory");
    // Damage is told from what never was a pool.
    place.pool(backend).close().unwrap();
    let path = place.path("pool.cow");
    let mut bytes = fs::read(&path).unwrap();
    for copy in [0, 8192, 1024, 16384] {
        bytes[copy * 4096 + 100] ^= 1;
    }
    fs::write(&path, &bytes).unwrap();
    let result = open("pool.cow");
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

pub fn twice_is_busy(backend: &dyn Backend) {
    let place = Place::new();
    let path = place.path("pool.cow");
    let program = Some("test program".to_owned());
    let open = OpenOptions { program, ..OpenOptions::default() };
    let options = CreateOptions { open, ..CreateOptions::with_size(128 << 20) };
    let pool = backend.create(&path, &options).unwrap();
    for options in [OpenOptions::default(), read_only()] {
        let result = backend.open(&path, &options);
        let Err(Error::Busy(text)) = result else { panic!("{result:?}") };
        let want = format!("in use by test program (pid {})", std::process::id());
        assert!(text.contains(&want), "{text}");
    }
    drop(pool);
    place.reopen(backend).close().unwrap();
}

pub fn readers_share(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 1 << 20, &[]).unwrap();
    pool.volume("v").unwrap().write_at(b"text", 5).unwrap();
    pool.close().unwrap();
    let path = place.path("pool.cow");
    let before = fs::read(&path).unwrap();
    {
        let one = backend.open(&path, &read_only()).unwrap();
        let two = backend.open(&path, &read_only()).unwrap();
        let mut bytes = [0; 4];
        for pool in [&one, &two] {
            pool.open_export("v", false).unwrap().read_at(&mut bytes, 5).unwrap();
            assert_eq!(&bytes, b"text");
            let result = pool.create_volume("w", 1 << 20, &[]);
            assert!(matches!(result, Err(Error::ReadOnly(_))), "{result:?}");
        }
        let result = backend.open(&path, &OpenOptions::default());
        assert!(matches!(result, Err(Error::Busy(_))), "{result:?}");
    }
    assert!(fs::read(&path).unwrap() == before, "readers write nothing");
}

pub fn a_copy_opens_beside(backend: &dyn Backend) {
    let place = Place::new();
    place.pool(backend).close().unwrap();
    let (path, copy) = (place.path("pool.cow"), place.path("copy.cow"));
    fs::copy(&path, &copy).unwrap();
    let link = place.path("link.cow");
    fs::hard_link(&path, &link).unwrap();
    let identity = |path| Identity::read(path).unwrap();
    assert_eq!(identity(&path).uuid, identity(&copy).uuid);
    assert_ne!(identity(&path).key, identity(&copy).key);
    assert_eq!(identity(&path), identity(&link), "another name of the same file");
    let one = place.reopen(backend);
    let two = backend.open(&copy, &OpenOptions::default()).unwrap();
    assert!(one.info(false).unwrap().notes.iter().all(|note| !note.contains("registry")));
    assert!(two.info(false).unwrap().notes.iter().all(|note| !note.contains("registry")));
    two.close().unwrap();
    let result = backend.open(&link, &OpenOptions::default());
    let Err(Error::Busy(text)) = result else { panic!("{result:?}") };
    assert!(text.contains("pid"), "the entry of the original is untouched: {text}");
    one.close().unwrap();
}

pub fn what_is_closed_is_there(backend: &dyn Backend) {
    let place = Place::new();
    let pool = place.pool(backend);
    pool.create_volume("v", 1 << 30, &[]).unwrap();
    let volume = pool.volume("v").unwrap();
    volume.write_at(b"text", (1 << 30) - 4).unwrap();
    drop(volume);
    pool.shutdown().unwrap();
    pool.shutdown().unwrap();
    drop(pool);
    let pool = place.reopen(backend);
    let mut bytes = [0; 4];
    pool.volume("v").unwrap().read_at(&mut bytes, (1 << 30) - 4).unwrap();
    assert_eq!(&bytes, b"text");
    pool.close().unwrap();
}
