//! The journal after a checkpoint.

use super::hex;
use crate::context::Cx;
use crate::frames::{Frames, Next};
use crate::value::Value;
use cow_format::checkpoint::Checkpoint;
use cow_format::frame::{FLAG_MORE, Frame};
use cow_format::record::{PropChange, Record, Replaced};
use cow_format::superblock::Superblock;
use cow_journal::{Ring, Scanner};

/// Frames that are listed.
const MOST: usize = 1 << 16;

pub(super) fn journal(cx: &mut Cx<'_>, sb: &Superblock, cp: &Checkpoint) -> Value {
    let ring = Ring::of(&sb.geometry);
    let mut reader = Frames::new(ring, Scanner::new(ring, cx.tag, cp.tail, &sb.fences));
    let (mut frames, mut truncated) = (Vec::new(), false);
    let end = loop {
        let at = reader.scanner.next().block;
        match reader.next(cx) {
            Next::Frame(..) if frames.len() >= MOST => truncated = true,
            Next::Frame(frame, _) => frames.push(frame_value(ring.phys(at).0, &frame)),
            Next::End(reason, _) => break reason.to_string(),
            Next::Unreadable(cause) => break cause,
        }
    };
    Value::Object(vec![
        ("tail_seq", cp.tail.seq.0.into()),
        ("frames", frames.into()),
        ("stable_seq", reader.scanner.stable().0.into()),
        ("end", end.into()),
        ("truncated", truncated.into()),
    ])
}

fn frame_value(block: u64, frame: &Frame) -> Value {
    let records = match cow_journal::records_of(frame) {
        Ok(records) => records.iter().map(record).collect::<Vec<_>>().into(),
        Err(error) => error.to_string().into(),
    };
    Value::Object(vec![
        ("block", block.into()),
        ("seq", frame.seq.0.into()),
        ("epoch", frame.epoch.0.into()),
        ("chain", hex(frame.chain)),
        ("durable_seq", frame.durable.0.into()),
        ("blocks", u32::from(frame.blocks).into()),
        ("more", (frame.flags & FLAG_MORE != 0).into()),
        ("records", records),
    ])
}

fn record(record: &Record) -> Value {
    let (kind, mut fields): (&str, Vec<(&'static str, Value)>) = match record {
        Record::MapSet { volume, lba, phys, crcs } => (
            "map_set",
            vec![
                ("volume", volume.0.into()),
                ("lba", lba.0.into()),
                ("block", phys.0.into()),
                ("blocks", (crcs.len() as u64).into()),
            ],
        ),
        Record::MapClear { volume, lba, blocks } => (
            "map_clear",
            vec![("volume", volume.0.into()), ("lba", lba.0.into()), ("blocks", (*blocks).into())],
        ),
        Record::Move { node, lba, old, new, crcs } => (
            "move",
            vec![
                ("node", node.0.into()),
                ("lba", lba.0.into()),
                ("old_block", old.0.into()),
                ("new_block", new.0.into()),
                ("blocks", (crcs.len() as u64).into()),
            ],
        ),
        Record::VolResize { volume, size_bytes } => {
            ("vol_resize", vec![("volume", volume.0.into()), ("size_bytes", (*size_bytes).into())])
        }
        Record::NodeDelete { nodes } => (
            "node_delete",
            vec![("nodes", nodes.iter().map(|id| id.0.into()).collect::<Vec<_>>().into())],
        ),
        Record::Rename { node, name } => {
            ("rename", vec![("node", node.0.into()), ("name", name.as_str().into())])
        }
        Record::SetProps { node, props: changes } => {
            ("set_props", vec![("node", node.0.into()), ("props", props(changes))])
        }
        Record::Hold { node, set, tag } => (
            "hold",
            vec![("node", node.0.into()), ("set", (*set).into()), ("tag", tag.as_str().into())],
        ),
        Record::PoolGrow { blocks } => ("pool_grow", vec![("blocks", (*blocks).into())]),
        Record::Marker => ("marker", Vec::new()),
        other => creation(other),
    };
    fields.insert(0, ("type", kind.into()));
    Value::Object(fields)
}

/// Records that create nodes.
fn creation(record: &Record) -> (&'static str, Vec<(&'static str, Value)>) {
    match record {
        Record::VolCreate {
            label_gen,
            volume,
            node,
            size_bytes,
            time_ns,
            name,
            props: changes,
        } => (
            "vol_create",
            vec![
                ("gen", label_gen.0.into()),
                ("volume", volume.0.into()),
                ("node", node.0.into()),
                ("size_bytes", (*size_bytes).into()),
                ("time_ns", (*time_ns).into()),
                ("name", name.as_str().into()),
                ("props", props(changes)),
            ],
        ),
        Record::Clone { label_gen, volume, node, parent, time_ns, name, props: changes } => (
            "clone",
            vec![
                ("gen", label_gen.0.into()),
                ("volume", volume.0.into()),
                ("node", node.0.into()),
                ("parent", parent.0.into()),
                ("time_ns", (*time_ns).into()),
                ("name", name.as_str().into()),
                ("props", props(changes)),
            ],
        ),
        Record::SnapCreate {
            label_gen,
            time_ns,
            group,
            consistency,
            freeze_ms,
            expiry_ns,
            members,
            props: changes,
            ..
        } => {
            let member = |m: &cow_format::record::SnapMember| {
                Value::Object(vec![
                    ("volume", m.volume.0.into()),
                    ("new_head", m.new_head.0.into()),
                    ("name", m.name.as_str().into()),
                ])
            };
            let fields = vec![
                ("gen", label_gen.0.into()),
                ("time_ns", (*time_ns).into()),
                ("group", (*group).into()),
                ("consistency", format!("{consistency:?}").to_lowercase().into()),
                ("freeze_ms", (*freeze_ms).into()),
                ("expiry_ns", (*expiry_ns).into()),
                ("members", members.iter().map(member).collect::<Vec<_>>().into()),
                ("props", props(changes)),
            ];
            ("snap_create", fields)
        }
        Record::Rollback { label_gen, time_ns, members } => {
            let member = |m: &cow_format::record::RollbackMember| {
                let kept = match &m.replaced {
                    Replaced::Kept { name, .. } => name.as_str().into(),
                    Replaced::Discarded => Value::Bool(false),
                };
                Value::Object(vec![
                    ("volume", m.volume.0.into()),
                    ("new_head", m.new_head.0.into()),
                    ("target", m.target.0.into()),
                    ("rollback_gen", m.rollback_gen.into()),
                    ("kept_as", kept),
                ])
            };
            let fields = vec![
                ("gen", label_gen.0.into()),
                ("time_ns", (*time_ns).into()),
                ("members", members.iter().map(member).collect::<Vec<_>>().into()),
            ];
            ("rollback", fields)
        }
        _ => ("other", Vec::new()),
    }
}

fn props(changes: &[PropChange]) -> Value {
    let change = |(key, value): &PropChange| {
        let value = match value {
            Some(value) => value.as_str().into(),
            None => Value::Bool(false),
        };
        Value::Object(vec![("key", key.as_str().into()), ("value", value)])
    };
    changes.iter().map(change).collect::<Vec<_>>().into()
}
