//! Commands as operations of the engine, and its answers as bytes.

use crate::cmd::Cmd;
use crate::model::Content;
use cow_engine::{Error, ExportId, Op, Reply, SnapOptions, SnapTarget};
use cow_format::Buf;
use cow_format::entry::NodeKind;

/// The bytes that a read gave.
pub(super) fn bytes_of<'a>(
    cmd: &Cmd,
    result: &'a Result<Reply, Error>,
) -> Result<Option<&'a [u8]>, String> {
    let (Cmd::Read { len, .. }, Ok(reply)) = (cmd, result) else { return Ok(None) };
    let Reply::Data { buf, skip } = reply else {
        return Err(format!("{cmd:?} was answered with {reply:?}"));
    };
    match buf.get(*skip..*skip + *len as usize) {
        Some(bytes) => Ok(Some(bytes)),
        None => Err(format!("{cmd:?} was answered with {} bytes after {skip}", buf.len())),
    }
}

/// The operation of the engine that a command means.
pub(super) fn op_of(cmd: &Cmd, export: ExportId) -> Op {
    let target = |(volume, snapshot): &(String, String)| SnapTarget {
        volume: volume.clone(),
        snapshot: snapshot.clone(),
    };
    match cmd.clone() {
        Cmd::Write { offset, len, token, fua, .. } => {
            let data = Buf::from_bytes(&Content::payload(offset, len, token));
            Op::Write { export, offset, len, data, fua }
        }
        Cmd::Zero { offset, len, discard: true, fua, .. } => {
            Op::Discard { export, offset, len, fua }
        }
        Cmd::Zero { offset, len, fua, .. } => Op::WriteZeroes { export, offset, len, fua },
        Cmd::Read { offset, len, .. } => Op::Read { export, offset, len },
        Cmd::Flush { .. } => Op::Flush { export },
        Cmd::Checkpoint => Op::Checkpoint,
        Cmd::WaitReclaim => Op::WaitReclaim,
        Cmd::Create { name, size } => Op::create_volume(name, size, Vec::new()),
        Cmd::Snapshot { targets, tag, how } => Op::Snapshot {
            targets: targets.iter().map(target).collect(),
            options: SnapOptions {
                kind: if how.auto { NodeKind::Auto } else { NodeKind::User },
                expiry_ns: how.expiry_ns,
                props: vec![("n".to_owned(), tag.to_string())],
                ..SnapOptions::default()
            },
        },
        Cmd::Rollback { targets, discard_current, force } => {
            let targets = targets.iter().map(target).collect();
            Op::Rollback { targets, discard_current, force, edits: Vec::new() }
        }
        Cmd::Undo { volume, force } => Op::Undo { volume, force },
        Cmd::Clone { source, name } => {
            Op::Clone { source: target(&source), name, props: Vec::new() }
        }
        Cmd::Delete { names, recursive } => Op::Delete { names, recursive, dry_run: false },
        Cmd::Prune { volumes } => Op::Prune { volumes, dry_run: false },
        Cmd::Hold { name, tag, set } => Op::Hold { name, tag, set },
        Cmd::Rename { name, to } => Op::Rename { name, to },
        Cmd::Resize { volume, size, shrink } => Op::Resize { volume, size_bytes: size, shrink },
        Cmd::SetProp { name, key, value } => Op::SetProps { name, changes: vec![(key, value)] },
    }
}
