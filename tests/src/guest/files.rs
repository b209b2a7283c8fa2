//! What a guest boots from: packages of Debian that `cargo xtask test` has unpacked.

use crate::tools::{command, have, run_ok};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The unpacked packages.
#[derive(Debug)]
pub struct GuestFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// A shell and everything else, in one program without libraries.
    pub busybox: PathBuf,
    /// Modules by name.
    modules: BTreeMap<String, PathBuf>,
}

impl GuestFiles {
    /// Finds them, with QEMU and `programs`. What is missing fails the test, unless
    /// `COW_SKIP_MISSING_TOOLS` permits to go without.
    #[must_use]
    pub fn find(programs: &[&str]) -> Option<Self> {
        if cfg!(not(target_arch = "x86_64")) {
            eprintln!("skipped: the guest is a PC, and runs what is built here");
            return None;
        }
        if !have(&["qemu-system-x86_64"]) || !have(programs) {
            return None;
        }
        let Some(dir) = std::env::var_os("COW_TEST_GUEST").map(PathBuf::from) else {
            let skip = std::env::var_os("COW_SKIP_MISSING_TOOLS").is_some();
            assert!(skip, "COW_TEST_GUEST is not set: run the tests by cargo xtask test");
            eprintln!("skipped: there is no kernel for a guest");
            return None;
        };
        let boot = fs::read_dir(dir.join("boot")).expect("a kernel").map(|e| e.unwrap().path());
        let is_kernel = |path: &PathBuf| path.to_string_lossy().contains("/vmlinuz-");
        let kernel = boot.into_iter().find(is_kernel).expect("a kernel");
        // Newer packages have all of them below usr.
        let places = ["", "usr/"].map(|place| dir.join(place));
        let busybox = places.iter().map(|place| place.join("bin/busybox"));
        let busybox = busybox.into_iter().find(|path| path.is_file()).expect("a busybox");
        let mut modules = BTreeMap::new();
        for place in &places {
            collect(&place.join("lib/modules"), &mut modules);
        }
        Some(Self { kernel, busybox, modules })
    }

    /// These modules and all that they need, each after what it needs: name and content.
    #[track_caller]
    pub fn modules(&self, names: &[&str]) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        for name in names {
            self.add(name, &mut found);
        }
        found
    }

    fn add(&self, name: &str, found: &mut Vec<(String, Vec<u8>)>) {
        if found.iter().any(|(known, _)| known == name) {
            return;
        }
        // What is no module of its own is part of this kernel.
        let Some(path) = self.modules.get(name) else { return };
        let content = read_module(path);
        for needed in needs(&content) {
            self.add(&needed, found);
        }
        found.push((name.to_owned(), content));
    }
}

/// All modules below `dir`, by the names that the kernel has for them.
fn collect(dir: &Path, modules: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            collect(&path, modules);
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            modules.insert(name.replace('-', "_"), path);
        }
    }
}

fn read_module(path: &Path) -> Vec<u8> {
    if path.extension().is_some_and(|ending| ending == "xz") {
        let unpacked = command(&["xz", "-dc", path.to_str().expect("UTF-8")]).output();
        return unpacked.expect("xz starts").stdout;
    }
    fs::read(path).unwrap()
}

/// What a module says that it needs, in its section of facts: `depends=NAME,NAME`.
fn needs(module: &[u8]) -> Vec<String> {
    let facts = module.split(|byte| *byte == 0);
    let depends = facts.filter_map(|fact| fact.strip_prefix(b"depends="));
    let text = depends.map(|names| String::from_utf8_lossy(names).replace('-', "_")).next();
    let names = text.expect("a module says what it needs");
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The shared libraries of a program, and the loader: what `ldd` finds.
pub fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = run_ok(&["ldd", program.to_str().expect("UTF-8")]);
    let words = text.split_whitespace();
    words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
