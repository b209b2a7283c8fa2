//! Volumes as block devices of this machine, for tests.

use crate::mounted::have_fuse;
use crate::place::Place;
use crate::tools::{run, run_ok};
use std::path::Path;

/// Whether volumes can be attached here; as [`have_fuse`].
#[must_use]
pub fn have_loops() -> bool {
    if !have_fuse() || Path::new("/dev/loop-control").exists() {
        return have_fuse();
    }
    assert!(std::env::var_os("CI").is_none(), "there is no /dev/loop-control, and this is the CI");
    eprintln!("skipped: there is no /dev/loop-control");
    false
}

/// A volume or snapshot that is attached; detached when dropped.
pub struct Attached<'a> {
    place: &'a Place,
    name: String,
    /// The path of the device.
    pub device: String,
}

impl<'a> Attached<'a> {
    /// Attaches it.
    #[track_caller]
    pub fn new(place: &'a Place, name: &str) -> Self {
        let device = place.ok(&["attach", name]);
        let device = device.strip_suffix('\n').expect("a line").to_owned();
        assert!(device.starts_with("/dev/loop") && !device.contains('\n'), "{device:?}");
        Self { place, name: name.into(), device }
    }

    /// What `blockdev` says.
    #[track_caller]
    pub fn ask(&self, flag: &str) -> u64 {
        run_ok(&["blockdev", flag, &self.device]).trim().parse().expect("a number")
    }

    /// Detaches it in good order.
    #[track_caller]
    pub fn detach(self) {
        self.place.ok(&["detach", &self.name]);
    }
}

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        // It is not there any more after a good end.
        let _ = self.place.run(&["detach", &self.name]);
    }
}

/// A mounted file system; unmounted when dropped.
pub struct MountedFs {
    dir: String,
}

impl MountedFs {
    /// Mounts `device` at a new directory of the place.
    #[track_caller]
    pub fn new(place: &Place, device: &str, name: &str, options: &str) -> Self {
        let dir = place.text(name);
        std::fs::create_dir_all(&dir).expect("a directory");
        run_ok(&["mount", "-o", options, device, &dir]);
        Self { dir }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.dir)
    }

    /// Where it is.
    pub fn dir(&self) -> &str {
        &self.dir
    }

    /// Unmounts it in good order.
    #[track_caller]
    pub fn unmount(self) {
        run_ok(&["umount", &self.dir]);
    }
}

impl Drop for MountedFs {
    fn drop(&mut self) {
        // One that a failed test has left frozen would stay so, and hang whoever looks into it.
        let _ = run(&["fsfreeze", "--unfreeze", &self.dir]);
        let _ = run(&["umount", &self.dir]);
    }
}
