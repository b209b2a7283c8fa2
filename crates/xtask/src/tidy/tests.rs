//! Each rule against a small tree that breaks it, and one tree that breaks none.

use super::lex::{lex, without_tests};
use super::{check, licences};
use tempfile::TempDir;

const LIB: &str = "//! A crate.\n#![forbid(unsafe_code)]\n";

/// A workspace of two crates, `upper` on `lower`.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        fixture.write("Cargo.toml", "[workspace]\nresolver = \"3\"\nmembers = [\"crates/*\"]\n");
        fixture.manifest("lower", "MIT OR Apache-2.0", "");
        fixture.manifest("upper", "MIT", "[dependencies]\nlower = { path = \"../lower\" }\n");
        fixture.write("crates/lower/src/lib.rs", LIB);
        fixture.write("crates/upper/src/lib.rs", LIB);
        fixture.arrows("upper -> lower");
        fixture
    }

    fn write(&self, path: &str, text: &str) {
        let file = self.dir.path().join(path);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, text).unwrap();
    }

    fn manifest(&self, name: &str, license: &str, rest: &str) {
        let head =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        let text = format!("{head}license = \"{license}\"\n{rest}");
        self.write(&format!("crates/{name}/Cargo.toml"), &text);
    }

    fn arrows(&self, lines: &str) {
        self.write("docs/ARCHITECTURE.md", &format!("# Map\n\n```arrows\n{lines}\n```\n"));
    }

    #[track_caller]
    fn errors(&self) -> Vec<String> {
        check(self.dir.path()).unwrap().errors
    }

    /// Exactly one error, with all of `parts` in it.
    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let errors = self.errors();
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(parts.iter().all(|part| errors[0].contains(part)), "{errors:#?}");
    }
}

#[test]
fn a_clean_tree_passes() {
    assert_eq!(Fixture::new().errors(), Vec::<String>::new());
}

#[test]
fn a_turned_round_arrow_is_refused() {
    let fixture = Fixture::new();
    fixture.manifest("upper", "MIT", "");
    fixture.manifest("lower", "MIT", "[dependencies]\nupper = { path = \"../upper\" }\n");
    let errors = fixture.errors();
    assert_eq!(errors.len(), 2, "{errors:#?}");
    assert!(errors[0].starts_with("lower -> upper: not among the `arrows`"), "{errors:#?}");
    assert!(
        errors[1].contains("upper -> lower is listed in `arrows` but no longer"),
        "{errors:#?}"
    );
}

#[test]
fn an_arrow_that_is_gone_is_refused() {
    let fixture = Fixture::new();
    fixture.manifest("upper", "MIT", "");
    fixture.refused(&["upper -> lower is listed", "no longer exists"]);
}

#[test]
fn a_build_dependency_is_an_arrow_too() {
    let fixture = Fixture::new();
    fixture.arrows("");
    fixture.manifest("upper", "MIT", "[build-dependencies]\nlower = { path = \"../lower\" }\n");
    fixture.refused(&["upper -> lower: not among the `arrows`"]);
}

#[test]
fn a_cycle_among_the_listed_arrows_is_refused() {
    let fixture = Fixture::new();
    fixture.arrows("upper -> lower\nlower -> upper");
    let errors = fixture.errors();
    assert!(
        errors.iter().any(|e| e.contains("in a circle: lower -> upper -> lower")),
        "{errors:#?}"
    );
}

#[test]
fn dev_dependencies_have_their_own_list() {
    let fixture = Fixture::new();
    fixture.manifest("lower", "MIT", "[dev-dependencies]\nupper = { path = \"../upper\" }\n");
    fixture.refused(&["lower -> upper: not among the `dev-arrows`"]);
    let map = "```arrows\nupper -> lower\n```\n\n```dev-arrows\nlower -> upper # the oracle\n```\n";
    fixture.write("docs/ARCHITECTURE.md", map);
    assert_eq!(fixture.errors(), Vec::<String>::new());
}

#[test]
fn an_unknown_crate_or_line_on_the_map_is_refused() {
    let fixture = Fixture::new();
    fixture.arrows("upper -> lower\nupper on lower");
    fixture.refused(&["docs/ARCHITECTURE.md:5", "not of the form"]);
    fixture.arrows("upper -> lower attic");
    let errors = fixture.errors();
    assert!(errors.iter().any(|e| e.contains("`attic` is no crate")), "{errors:#?}");
}

#[test]
fn an_unknown_licence_is_refused() {
    let fixture = Fixture::new();
    fixture.manifest("lower", "GPL-3.0-only", "");
    fixture.refused(&["lower 0.1.0", "`GPL-3.0-only`"]);
}

#[test]
fn licence_expressions() {
    for good in [
        "MIT",
        "MIT/Apache-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "MIT OR Apache-2.0 OR LGPL-2.1-or-later",
        "CC0-1.0 OR Apache-2.0 OR Apache-2.0 WITH LLVM-exception",
        "GPL-2.0-only AND MIT OR ISC",
    ] {
        assert!(licences::is_allowed(good), "{good}");
    }
    for bad in [
        "",
        "AGPL-3.0-only",
        "MIT AND GPL-2.0-only",
        "(MIT OR GPL-2.0-only) AND LGPL-2.1-or-later",
        "GPL-2.0-only WITH Classpath-exception-2.0",
        "MIT WITH Some-exception",
        "MIT OR",
        "(MIT",
        "MIT Apache-2.0",
    ] {
        assert!(!licences::is_allowed(bad), "{bad}");
    }
}

#[test]
fn a_module_circle_is_found() {
    let fixture = Fixture::new();
    let src = |file: &str, text: &str| fixture.write(&format!("crates/lower/src/{file}"), text);
    src("lib.rs", &format!("{LIB}mod a;\nmod b;\nmod c;\n"));
    src("a.rs", "use crate::{b::B, c};\n");
    src("b.rs", "// use crate::a;\nconst TEXT: &str = \"crate::a::X\";\n");
    src("b/inner.rs", "fn f() {\n    super::super::c::g::<u8>();\n}\n");
    src("c.rs", "mod inline {\n    use super::a;\n}\n");
    assert_eq!(fixture.errors(), Vec::<String>::new());
    src("c/deep.rs", "use std::fmt;\nuse crate::{fmt::{self}, a::A as Alias};\n");
    fixture.refused(&[
        "lower: modules in a circle",
        "b -> c (crates/lower/src/b/inner.rs:2)",
        "deep.rs:2",
    ]);
}

#[test]
fn a_module_circle_through_the_root_is_found() {
    let fixture = Fixture::new();
    let src = |file: &str, text: &str| fixture.write(&format!("crates/lower/src/{file}"), text);
    src("lib.rs", &format!("{LIB}mod a;\nmod b;\npub use a::{{A, Error as AError}};\n"));
    src("a.rs", "use super::b::B;\n");
    src("b.rs", "use crate::AError;\n");
    fixture.refused(&["a -> b", "b -> a"]);
}

#[test]
fn tests_close_no_circle() {
    let fixture = Fixture::new();
    let src = |file: &str, text: &str| fixture.write(&format!("crates/lower/src/{file}"), text);
    src("lib.rs", &format!("{LIB}mod a;\nmod b;\n"));
    src("a.rs", "use crate::b;\n#[cfg(test)]\nmod model;\n");
    src("a/model.rs", "use crate::c;\n");
    src("b.rs", "#[cfg(test)]\nuse crate::{a, a::A};\nfn f() {}\n#[cfg(test)]\nmod tests;\n");
    src("b/tests.rs", "use crate::a;\n");
    src("c.rs", "use crate::a;\n#[cfg(test)]\nmod t { fn g() { crate::b::f(); } }\n");
    assert_eq!(fixture.errors(), Vec::<String>::new());
}

#[test]
fn only_shipped_code_is_left() {
    let text = "#[cfg(test)] #[allow(dead_code)] fn gone(a: [u8; 2]) -> u8 { a[0] } fn stays<'a>() \
        { let c = ('{', b'\\'', r#\"}\"#, \"\\\"}\"); } /* /* } */ } */ struct S { #[cfg(test)] x: u8 } fn last() {}";
    let tokens = without_tests(&lex(text)).tokens;
    let names: Vec<_> = tokens.iter().filter_map(|token| token.ident()).collect();
    assert_eq!(names, ["fn", "stays", "let", "c", "struct", "S", "fn", "last"]);
}

#[test]
fn long_files_are_noted_and_longer_ones_refused() {
    let fixture = Fixture::new();
    fixture.write("crates/lower/src/long.rs", &"\n".repeat(401));
    let report = check(fixture.dir.path()).unwrap();
    assert!(report.errors.is_empty() && report.notes.len() == 1, "{:?}", report.notes);
    fixture.write("crates/lower/src/long.rs", &"\n".repeat(701));
    fixture.refused(&["long.rs: 701 lines"]);
}

#[test]
fn an_unknown_top_level_entry_is_refused() {
    let fixture = Fixture::new();
    fixture.write("LICENSE-MIT", "");
    fixture.write(".ci/run", "");
    assert_eq!(fixture.errors(), Vec::<String>::new());
    fixture.write("notes.txt", "");
    fixture.refused(&["notes.txt"]);
}

#[test]
fn machine_paths_and_holes_are_refused() {
    let fixture = Fixture::new();
    fixture
        .write("docs/a.md", concat!("x\nsee `/ho", "me/me/x`\na/ho", "me/x is no machine path\n"));
    fixture.refused(&["docs/a.md:2"]);
    fixture.write("docs/a.md", "");
    fixture.write("crates/lower/src/a.rs", concat!("fn f() {\n    to", "do!()\n}\n"));
    fixture.refused(&["a.rs:2"]);
}

#[test]
fn conflict_markers_are_refused() {
    let fixture = Fixture::new();
    fixture.write("docs/a.md", concat!("x\n<<<<", "<<< HEAD\ny\n=======\nz\n"));
    fixture.refused(&["docs/a.md:2"]);
    fixture.write("docs/a.md", concat!("z\n>>>>", ">>> other\n"));
    fixture.refused(&["docs/a.md:2"]);
    fixture.write("docs/a.md", "Title\n=======\n");
    assert_eq!(fixture.errors(), Vec::<String>::new());
}

#[test]
fn a_crate_that_permits_unsafe_is_refused() {
    let fixture = Fixture::new();
    fixture.write("crates/upper/src/main.rs", "//! #![forbid(unsafe_code)]\nfn main() {}\n");
    fixture.refused(&["crates/upper/src/main.rs: no #![forbid(unsafe_code)]"]);
}

#[test]
fn a_library_that_prints_is_refused() {
    let fixture = Fixture::new();
    let quiet =
        "/// println!()\npub fn f() {}\n#[cfg(test)]\nmod tests {\n    fn g() { println!(); }\n}\n";
    fixture.write("crates/lower/src/a.rs", quiet);
    assert_eq!(fixture.errors(), Vec::<String>::new());
    fixture.write("crates/lower/src/a.rs", "fn f() {\n    println!();\n}\n");
    fixture.refused(&["a.rs:2: `println!` in a library"]);
}
