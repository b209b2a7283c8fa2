//! Kill rows and properties on demand: what a listing or a verb needs is read into the tree.

use crate::error::Error;
use crate::fold::read_chain;
use crate::task::Cx;
use cow_format::NodeId;
use cow_format::blob::BlobKind;

/// Brings the properties of a node into memory.
pub(crate) async fn load_props(cx: &Cx, id: NodeId) -> Result<(), Error> {
    loop {
        let (owner, blob) = {
            let mut core = cx.core();
            let tree = &mut core.pool()?.tree;
            if tree.is_props_loaded(id) {
                return Ok(());
            }
            tree.props_blob(id)
        };
        let payload = read_chain(cx, BlobKind::Props, owner, blob).await;
        let mut core = cx.core();
        let tree = &mut core.pool()?.tree;
        // A fold may have written them anew meanwhile; then this answer is of no use.
        if !tree.is_props_loaded(id) && tree.props_blob(id) == (owner, blob) {
            tree.load_props(id, &payload?.0)?;
        }
    }
}

/// Brings the kill row of a node into memory.
pub(crate) async fn load_row(cx: &Cx, id: NodeId) -> Result<(), Error> {
    loop {
        let blob = {
            let mut core = cx.core();
            let tree = &core.pool()?.tree;
            if tree.is_row_loaded(id) {
                return Ok(());
            }
            tree.row_blob(id)
        };
        let payload = read_chain(cx, BlobKind::Row, id, blob).await;
        let mut core = cx.core();
        let tree = &mut core.pool()?.tree;
        // A fold may have written it anew meanwhile; then this answer is of no use.
        if !tree.is_row_loaded(id) && tree.row_blob(id) == blob {
            tree.load_row(id, &payload?.0)?;
        }
    }
}
