//! Content roots against what can be read (I16).

use crate::model::Content;
use crate::world::{Machine, World};
use cow_engine::{Error, Op, Reply};
use cow_merkle::{Builder, Digest, leaf_hash};

/// The root of a volume of `size` bytes, from its blocks alone.
///
/// # Errors
/// When there is none.
pub fn root_of(size: u64, content: &Content) -> Result<Digest, String> {
    let text = |error| format!("no root: {error:?}");
    let mut builder = Builder::new(size).map_err(text)?;
    for (lba, value) in content.iter() {
        builder.push(lba, leaf_hash(lba, &value.page())).map_err(text)?;
    }
    builder.finish().map_err(text)
}

/// Asks for the root of `name`, which must be that of what was read. A machine that knows no
/// roots has none; a head may have none at the moment.
///
/// # Errors
/// When it is another one.
pub(super) fn check_root<M: Machine>(
    world: &mut World<M>,
    name: &str,
    size: u64,
    content: &Content,
) -> Result<(), String> {
    let root = match world.run_op(Op::Root { name: name.to_owned() })? {
        Ok(Reply::Root { root, size_bytes }) if size_bytes == size => Digest(root),
        Err(Error::Unsupported(_) | Error::Busy(_) | Error::NoSpace(_)) => return Ok(()),
        other => return Err(format!("its root: {other:?}")),
    };
    let want = root_of(size, content)?;
    if root == want { Ok(()) } else { Err(format!("its root is {root}, not {want}")) }
}
