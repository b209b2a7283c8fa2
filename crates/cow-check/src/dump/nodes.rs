//! The node table.

use crate::tree::name_of;
use crate::value::Value;
use cow_format::blob::BlobRef;
use cow_format::entry::{Count, NodeEntry};
use cow_snaptree::Tree;

pub(super) fn nodes(tree: &Tree) -> Value {
    let nodes: Vec<Value> = tree.iter().map(|node| entry(tree, &node.entry)).collect();
    Value::Object(vec![("nodes", nodes.into())])
}

fn entry(tree: &Tree, e: &NodeEntry) -> Value {
    let root = Value::Object(vec![
        ("block", e.root.phys.0.into()),
        ("birth", e.root.birth.0.into()),
        ("level", u32::from(e.root.level).into()),
        ("crc", e.root.crc.into()),
    ]);
    Value::Object(vec![
        ("id", e.id.0.into()),
        ("name", name_of(tree, e.id).into()),
        ("volume", e.volume.0.into()),
        ("family", e.family.0.into()),
        ("parent", e.parent.0.into()),
        ("gen", e.label_gen.0.into()),
        ("kind", format!("{:?}", e.kind).to_lowercase().into()),
        ("state", format!("{:?}", e.state).to_lowercase().into()),
        ("consistency", format!("{:?}", e.consistency).to_lowercase().into()),
        ("freeze_ms", e.freeze_ms.into()),
        ("root", root),
        ("size_bytes", e.size_bytes.into()),
        ("cursor", e.cursor.into()),
        ("born", count(e.born)),
        ("own", count(e.own)),
        ("mapped", count(e.mapped)),
        ("unique", if e.unique.data == u64::MAX { "unknown".into() } else { count(e.unique) }),
        ("inexact", e.inexact.into()),
        ("row", blob(e.row)),
        ("props", blob(e.props)),
        ("holds", e.holds.into()),
        ("group", e.group.into()),
        ("expiry_ns", e.expiry_ns.into()),
        ("created_ns", e.created_ns.into()),
        ("rollback_gen", e.rollback_gen.into()),
        ("stands_on", e.stands_on.into()),
        ("origin", e.origin.0.into()),
    ])
}

fn count(count: Count) -> Value {
    Value::Object(vec![("data", count.data.into()), ("map", count.map.into())])
}

fn blob(blob: BlobRef) -> Value {
    Value::Object(vec![("block", blob.phys.0.into()), ("bytes", blob.len.into())])
}
