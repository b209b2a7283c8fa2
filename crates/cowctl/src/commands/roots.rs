//! `root` and `verify`.

use crate::args::{Root, Verify};
use crate::failure::Failure;
use crate::output;
use crate::progress::Bar;
use crate::session::{self, Access, Session};
use crate::units::object_name;
use cowstore::{Compared, ContentRoot};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub fn root(path: &Path, args: &Root) -> Result<(), Failure> {
    let found = session::with(path, Access::Look, |pool| pool.root(&args.name))?;
    if args.json.json {
        return output::json("root", described(&args.name, &found));
    }
    output::line(&found.root)
}

fn described(name: &str, found: &ContentRoot) -> Value {
    json!({"name": name, "root": found.root, "size_bytes": found.size_bytes})
}

/// A pool and what is meant in it.
struct Place {
    pool: PathBuf,
    name: String,
}

/// `POOL/VOL@SNAP`, or a name alone in `pool`.
fn place(text: &str, pool: Option<&Path>) -> Result<Place, Failure> {
    let (pool, name) = match text.rsplit_once('/') {
        Some((path, name)) => (Some(Path::new(path)), name),
        None => (pool, text),
    };
    let which = || Failure::Usage(format!("{text}: in which pool? Say POOL/{name}, or -p POOL"));
    let pool = pool.filter(|path| !path.as_os_str().is_empty()).ok_or_else(which)?;
    let name = object_name(name).map_err(Failure::Usage)?;
    Ok(Place { pool: pool.to_owned(), name })
}

pub fn verify(pool: Option<&Path>, args: &Verify) -> Result<(), Failure> {
    let a = place(&args.a, pool)?;
    let b = place(&args.b, args.other.as_deref().or(pool))?;
    session::with(&a.pool, Access::Look, |first| {
        // One process opens a pool once, whatever it is called.
        let real = |path: &Path| path.canonicalize().ok();
        if real(&a.pool) == real(&b.pool) {
            return compare(first, &a, first, &b, args);
        }
        session::with(&b.pool, Access::Look, |second| compare(first, &a, second, &b, args))
    })
}

fn compare(
    first: &Session,
    a: &Place,
    second: &Session,
    b: &Place,
    args: &Verify,
) -> Result<(), Failure> {
    let mut bar = Bar::new();
    let (mut runs, mut printed) = (Vec::new(), Ok(()));
    let found = cowstore::verify(
        Compared { pool: first.manage(), name: &a.name },
        Compared { pool: second.manage(), name: &b.name },
        &mut |told| bar.tell(&told),
        &mut |offset, length| {
            if args.json.json {
                runs.push(json!({"offset": offset, "length": length}));
            } else if printed.is_ok() {
                printed = output::line(format!("{offset} {length}"));
            }
        },
    );
    printed?;
    let (root_a, root_b) = found.map_err(Failure::of(&both(first, second)))?;
    let equal = root_a == root_b;
    if args.json.json {
        let body = json!({
            "a": described(&args.a, &root_a),
            "b": described(&args.b, &root_b),
            "equal": equal,
            "differences": runs,
        });
        output::json("verify", body)?;
    }
    if equal {
        return Ok(());
    }
    let sizes = match root_a.size_bytes == root_b.size_bytes {
        true => String::new(),
        false => format!(": {} and {} bytes long", root_a.size_bytes, root_b.size_bytes),
    };
    Err(Failure::Failed(format!("{} and {} differ{sizes}", args.a, args.b)))
}

/// Which pools a failure is about.
fn both(first: &Session, second: &Session) -> PathBuf {
    if first.path() == second.path() {
        return first.path().to_owned();
    }
    format!("{} and {}", first.path().display(), second.path().display()).into()
}
