//! What each crate's sources must say, and must not do.

use super::Report;
use super::files::Tree;
use super::lex::{lex, without_tests};
use super::modules::source_dir;
use crate::metadata::Metadata;

/// Crates that may use `unsafe`, each with its reason.
const UNSAFE_ALLOWED: &[(&str, &str)] = &[
    ("cow-io", "io_uring submissions and the system calls around them"),
    ("cow-fuse", "system calls on mounts and devices, all in sys.rs"),
    ("cow-nbd", "system calls on sockets, and the descriptors that systemd passes"),
    ("cowstore", "the system calls that std does not offer, all in sys.rs"),
];

/// Macros by which a library would write to its user's standard output.
const PRINTING: &[&str] = &["println", "print", "dbg"];

pub fn check(metadata: &Metadata, tree: &Tree, report: &mut Report) {
    forbid_unsafe(metadata, tree, report);
    no_printing(metadata, tree, report);
}

fn forbid_unsafe(metadata: &Metadata, tree: &Tree, report: &mut Report) {
    for package in metadata.members() {
        let allowed = UNSAFE_ALLOWED.iter().any(|(name, _)| *name == package.name);
        for target in package.targets.iter().filter(|target| target.is_lib() || target.is_bin()) {
            let Ok(path) = target.root_file.strip_prefix(&metadata.root) else { continue };
            let Some(text) = path.to_str().and_then(|path| tree.text(path)) else { continue };
            let forbids = text
                .lines()
                .any(|line| line.starts_with("#![forbid(") && line.contains("unsafe_code"));
            if !forbids && !allowed {
                report.error(format!("{}: no #![forbid(unsafe_code)]", path.display()));
            }
        }
    }
}

/// The helpers of the test and bench packages may print; the libraries below crates/ may not.
fn no_printing(metadata: &Metadata, tree: &Tree, report: &mut Report) {
    for package in metadata.members() {
        let library = package.targets.iter().any(|target| target.is_lib());
        let Some(dir) = source_dir(package, &metadata.root) else { continue };
        if !library || !dir.starts_with("crates/") {
            continue;
        }
        for (path, text) in tree.rust_files(&dir) {
            let inside = &path[dir.len() + 1..];
            if inside == "main.rs" || inside.starts_with("bin/") || inside.contains("tests") {
                continue;
            }
            for pair in without_tests(&lex(text)).tokens.windows(2) {
                let name = pair[0].ident().unwrap_or_default();
                if PRINTING.contains(&name) && pair[1].is_sign('!') {
                    report.error(format!("{path}:{}: `{name}!` in a library", pair[0].line));
                }
            }
        }
    }
}
