//! A pool that is mounted, for tests.

use crate::place::Place;
use crate::tools::{is_root, run};
use std::path::Path;

/// Whether FUSE can be used here. Where it cannot, the test says so and is left out, unless it is
/// the continuous integration that lacks it.
#[must_use]
pub fn have_fuse() -> bool {
    let reason = if !is_root() {
        "mounting needs root here"
    } else if !Path::new("/dev/fuse").exists() {
        "there is no /dev/fuse"
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none(), "{reason}, and this is the CI");
    eprintln!("skipped: {reason}");
    false
}

/// The pool of a place, mounted by a process in the background; unmounted when dropped.
pub struct Mounted<'a> {
    place: &'a Place,
    dir: String,
    /// That process.
    pub pid: u64,
}

impl<'a> Mounted<'a> {
    /// Mounts it at `mnt` in the directory.
    #[track_caller]
    pub fn new(place: &'a Place) -> Self {
        let dir = place.text("mnt");
        let _ = std::fs::create_dir(&dir);
        let ready: serde_json::Value =
            serde_json::from_str(&place.ok(&["mount", "--background", &dir])).expect("JSON");
        assert_eq!(
            (&ready["schema"], &ready["dir"]),
            (&"cowctl.mount/1".into(), &dir.clone().into())
        );
        Self { place, dir, pid: ready["pid"].as_u64().expect("a process") }
    }

    /// The file of a volume or snapshot.
    pub fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Where it is.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    /// Kills its process.
    pub fn kill(&self) {
        run(&["sh", "-c", &format!("kill -KILL {}", self.pid)]);
    }

    /// Unmounts it in good order.
    #[track_caller]
    pub fn unmount(self) {
        self.place.ok(&["umount", &self.dir]);
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        // Nothing is mounted there any more after a good end.
        let _ = self.place.run(&["umount", &self.dir]);
    }
}
