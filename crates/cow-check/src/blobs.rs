//! Kill rows and properties: chains of blocks.

use crate::context::Cx;
use crate::reach::{Mark, Reach};
use crate::report::Structure;
use crate::tree::name_of;
use cow_format::NodeId;
use cow_format::blob::{BlobKind, BlobRef, decode_block};
use cow_format::entry::MAX_PROPS;
use cow_snaptree::{Props, Row, Tree};

/// Longest kill row that is read: a cell for each of 2^20 nodes, several times over.
const MAX_ROW: u32 = 64 << 20;

/// The kill row of a node; `None` when it cannot be read.
pub(crate) fn row(cx: &mut Cx<'_>, tree: &Tree, reach: &mut Reach, id: NodeId) -> Option<Row> {
    let blob = tree.node(id)?.entry.row;
    let payload = chain(cx, tree, reach, (BlobKind::Row, id, blob));
    let row = payload.and_then(|payload| match Row::decode(&payload) {
        Ok(row) => Some(row),
        Err(error) => {
            cx.corrupt(Structure::KillRow, name_of(tree, id), error);
            None
        }
    });
    if row.is_none()
        && let Some(unread) = &mut cx.unread
    {
        unread.rows.insert(id);
    }
    row
}

/// Checks the properties of a node.
pub(crate) fn props(cx: &mut Cx<'_>, tree: &Tree, reach: &mut Reach, id: NodeId) {
    let Some(node) = tree.node(id) else { return };
    let (blob, holds) = (node.entry.props, node.entry.holds);
    let props =
        chain(cx, tree, reach, (BlobKind::Props, id, blob)).map(|bytes| Props::decode(&bytes));
    if !matches!(props, Some(Ok(_)))
        && let Some(unread) = &mut cx.unread
    {
        unread.props.insert(id);
    }
    let Some(props) = props else { return };
    match props {
        Ok(props) if props.holds.len() as u64 == u64::from(holds) => {}
        Ok(props) => {
            let what = format!("{} hold tags, its entry says {holds}", props.holds.len());
            cx.corrupt(Structure::Properties, name_of(tree, id), what);
        }
        Err(error) => cx.corrupt(Structure::Properties, name_of(tree, id), error),
    }
}

/// The payload of a chain, all of whose blocks are marked.
fn chain(
    cx: &mut Cx<'_>,
    tree: &Tree,
    reach: &mut Reach,
    (kind, id, blob): (BlobKind, NodeId, BlobRef),
) -> Option<Vec<u8>> {
    let (structure, most) = match kind {
        BlobKind::Row => (Structure::KillRow, MAX_ROW),
        BlobKind::Props => (Structure::Properties, MAX_PROPS as u32),
    };
    if blob.len > most {
        cx.corrupt(structure, name_of(tree, id), "longer than it can be");
        cx.incomplete = true;
        return None;
    }
    let (mut payload, mut at) = (Vec::new(), (blob.phys, blob.crc));
    for _ in 0..blob.blocks() {
        if at.0.is_none() {
            break;
        }
        let place = format!("{}, block {}", name_of(tree, id), at.0);
        match reach.mark(at.0) {
            Mark::New => cx.report.stats.blob_blocks += 1,
            Mark::Again => cx.corrupt(Structure::SharedBlock, &place, "used elsewhere too"),
            Mark::NoData => {
                cx.corrupt(structure, place, "no block that may hold data");
                cx.incomplete = true;
                return None;
            }
        }
        let decoded = cx.read(at.0, 1).and_then(|buf| {
            decode_block(&buf, kind, id, cx.tag, at).map_err(|error| error.to_string())
        });
        match decoded {
            Ok(block) => {
                payload.extend_from_slice(&block.payload);
                at = block.next;
            }
            Err(error) => {
                cx.corrupt(structure, place, error);
                cx.incomplete = true;
                return None;
            }
        }
    }
    if !at.0.is_none() && blob.len > 0 || payload.len() != blob.len as usize {
        cx.corrupt(
            structure,
            name_of(tree, id),
            "its chain has another length than its entry says",
        );
        return None;
    }
    Some(payload)
}
