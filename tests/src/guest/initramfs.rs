//! The root of a guest, as an archive that the kernel unpacks into memory: cpio in its "new ASCII"
//! form, see Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.

use super::files::{GuestFiles, libraries};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const DEVICE: u32 = 0o020_600;
/// `/dev/console`: major, minor.
const CONSOLE: (u32, u32) = (5, 1);

/// A root in the making: busybox, modules that are loaded at once, and a shell at the console.
#[derive(Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    paths: BTreeSet<PathBuf>,
}

impl Initramfs {
    /// With these modules and those that they need.
    #[track_caller]
    pub fn new(files: &GuestFiles, modules: &[&str]) -> Self {
        let mut root = Self::default();
        for dir in
            ["/dev", "/proc", "/sys", "/mnt", "/run", "/tmp", "/sbin", "/usr/bin", "/usr/sbin"]
        {
            root.dir(Path::new(dir));
        }
        root.entry("/dev/console", DEVICE, &[], CONSOLE);
        root.file("/bin/busybox", &fs::read(&files.busybox).unwrap());
        let mut load = String::new();
        for (name, content) in files.modules(modules) {
            let path = format!("/lib/modules/{name}.ko");
            load += &format!("insmod {path} || code=1\n");
            root.file(&path, &content);
        }
        let init = format!(
            "#!/bin/busybox sh\n\
             export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ code=0\n\
             /bin/busybox --install -s\n\
             mount -t devtmpfs dev /dev && mount -t proc proc /proc && mount -t sysfs sys /sys || code=1\n\
             dmesg -n 1\n\
             stty -echo\n\
             {load}\
             printf '\\n@done %s\\n' $code\n\
             while read -r line; do eval \"$line\" 2>&1; printf '\\n@done %s\\n' $?; done\n"
        );
        root.file("/init", init.as_bytes());
        root
    }

    /// Modules that are there to be loaded, in this order; their paths.
    #[track_caller]
    pub fn carry(&mut self, files: &GuestFiles, modules: &[&str]) -> Vec<String> {
        let mut paths = Vec::new();
        for (name, content) in files.modules(modules) {
            let path = format!("/lib/modules/{name}.ko");
            self.file(&path, &content);
            paths.push(path);
        }
        paths
    }

    /// A program of this machine at another path, with its libraries.
    #[track_caller]
    pub fn program_as(&mut self, path: &Path, at: &str) {
        for library in libraries(path) {
            // The loader finds them by these paths; whatever links lead there here, they are files.
            self.file(library.to_str().expect("UTF-8"), &fs::read(&library).unwrap());
        }
        self.file(at, &fs::read(path).unwrap());
    }

    /// A file that can be run; the first one at a path stays.
    pub fn file(&mut self, path: &str, content: &[u8]) {
        self.entry(path, PROGRAM, content, (0, 0));
    }

    fn dir(&mut self, path: &Path) {
        if let Some(parent) = path.parent()
            && !self.paths.contains(path)
        {
            self.dir(parent);
            self.add(path, DIRECTORY, &[], (0, 0));
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        let path = Path::new(path);
        self.dir(path.parent().expect("a directory"));
        if !self.paths.contains(path) {
            self.add(path, mode, content, device);
        }
    }

    fn add(&mut self, path: &Path, mode: u32, content: &[u8], device: (u32, u32)) {
        self.paths.insert(path.to_owned());
        let name = path.to_str().and_then(|path| path.strip_prefix('/')).expect("absolute");
        let number = self.paths.len() as u32;
        self.record(name, number, mode, content, device);
    }

    /// A header of hexadecimal fields, the name, the content, each padded to four bytes.
    fn record(&mut self, name: &str, number: u32, mode: u32, content: &[u8], device: (u32, u32)) {
        let (size, name_len) = (content.len() as u32, name.len() as u32 + 1);
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_len, 0];
        self.archive.extend_from_slice(b"070701");
        for field in fields {
            self.archive.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.archive.extend_from_slice(name.as_bytes());
        self.archive.push(0);
        self.pad();
        self.archive.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let len = self.archive.len().next_multiple_of(4);
        self.archive.resize(len, 0);
    }

    /// Writes the archive.
    pub fn write(mut self, path: &Path) {
        self.record("TRAILER!!!", 0, 0, &[], (0, 0));
        fs::write(path, self.archive).unwrap();
    }
}
