//! Writes the seeds again, from real structures: `cargo run --example seeds`, here in fuzz/. To be
//! done when the format changes.

use cow_format::entry::{Consistency, NodeKind};
use cow_format::frame::{FLAG_MORE, FLAG_PAD, Frame};
use cow_format::geometry::{Geometry, LayoutOptions, MIN_POOL_BLOCKS};
use cow_format::record::{Record, Replaced, RollbackMember, SnapMember};
use cow_format::superblock::{Fence, Superblock};
use cow_format::wire::Writer;
use cow_format::{Epoch, FrameSeq, Gen, Lba, NodeId, Phys, VolumeId};
use cow_nbd::wire::{OPTION_MAGIC, REQUEST_MAGIC, cmd, opt};
use std::{fs, io};

mod pool;

const POOL_TAG: u64 = 0x0123_4567_89ab_cdef;

fn main() -> io::Result<()> {
    superblocks()?;
    frames()?;
    requests()?;
    control()?;
    write("import", "qcow2", b"QFI\xfb\0\0\0\x03")?;
    write("import", "vhd", b"conectix")?;
    write("import", "raw", &[0; 16])?;
    pool::write()
}

fn control() -> io::Result<()> {
    let verbs = [
        r#"{"verb":"list"}"#,
        r#"{"verb":"snapshot","targets":[{"volume":"v","snapshot":"s"}]}"#,
        r#"{"verb":"create_volume","name":"v","size_bytes":1073741824}"#,
        r#"{"verb":"delete","names":["v@s"],"recursive":false,"dry_run":true}"#,
        r#"{"verb":"nonsense","names":[]}"#,
        r#"{"hello":{"protocol":1,"uuid":"00"}}"#,
    ];
    for (index, text) in verbs.into_iter().enumerate() {
        write("control", &format!("verb{index}"), text.as_bytes())?;
        let frame = [&(text.len() as u32).to_le_bytes(), text.as_bytes()].concat();
        write("control", &format!("frame{index}"), &frame)?;
    }
    Ok(())
}

fn write(target: &str, name: &str, bytes: &[u8]) -> io::Result<()> {
    let dir = format!("{}/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    fs::create_dir_all(&dir)?;
    fs::write(format!("{dir}/{name}"), bytes)
}

/// Without the zeros at the end, which the targets put back.
fn trimmed(block: &[u8]) -> &[u8] {
    let len = block.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    &block[..len]
}

fn superblocks() -> io::Result<()> {
    let sizes = [("smallest", MIN_POOL_BLOCKS), ("large", 1 << 32)];
    for (copy, (name, blocks)) in sizes.into_iter().enumerate() {
        let options = LayoutOptions {
            blocks,
            journal_blocks: None,
            limit_blocks: None,
            max_chunks: None,
            preallocated: copy == 1,
        };
        let geometry = Geometry::plan(&options).map_err(io::Error::other)?;
        let fence = |n: u64| Fence { end: FrameSeq(n * 9), chain: n << 40, epoch: Epoch(n as u32) };
        let superblock = Superblock {
            uuid: *b"a pool for seeds",
            compat: 0,
            ro_compat: 0,
            incompat: 0,
            geometry,
            sequence: 2 + copy as u64,
            epoch: Epoch(3),
            fences: (1..=3 * copy as u64).map(fence).collect(),
        };
        write("superblock", name, trimmed(&superblock.encode(copy)))?;
    }
    Ok(())
}

fn frames() -> io::Result<()> {
    let all = records();
    let (map, verbs) = all.split_at(3);
    frame("map", 0, map)?;
    frame("verbs", 0, verbs)?;
    frame("more", FLAG_MORE, &all[3..4])?;
    frame("pad", FLAG_PAD, &[])?;
    for (index, record) in all.iter().enumerate() {
        frame(&format!("record{index}"), 0, std::slice::from_ref(record))?;
    }
    Ok(())
}

fn frame(name: &str, flags: u16, records: &[Record]) -> io::Result<()> {
    let mut payload = Writer::default();
    records.iter().for_each(|record| record.encode(&mut payload));
    let blocks = if flags & FLAG_PAD == 0 { Frame::blocks_for(payload.bytes.len()) } else { 5 };
    let frame = Frame {
        flags,
        seq: FrameSeq(1000),
        chain: 0xfeed_face_cafe_beef,
        durable: FrameSeq(990),
        epoch: Epoch(2),
        record_count: records.len() as u16,
        blocks,
        payload: payload.bytes,
    };
    write("frame", name, trimmed(&frame.encode(POOL_TAG).0))
}

/// One of each kind; those of the map first.
fn records() -> Vec<Record> {
    let props = vec![("owner".to_owned(), Some("me".to_owned())), ("old".to_owned(), None)];
    let (volume, node, lba) = (VolumeId(1), NodeId(7), Lba(300));
    let member = |replaced| RollbackMember {
        volume,
        new_head: NodeId(9),
        target: NodeId(3),
        replaced,
        rollback_gen: 1,
    };
    let kept = Replaced::Kept { name: "undo.1".into(), expiry_ns: 1 << 60 };
    let (label_gen, time_ns) = (Gen(5), 1 << 60);
    vec![
        Record::MapSet { volume, lba, phys: Phys(70_000), crcs: vec![1, 2, 3] },
        Record::MapClear { volume, lba, blocks: 1000 },
        Record::Move { node, lba, old: Phys(70_000), new: Phys(80_000), crcs: vec![9] },
        Record::VolCreate {
            label_gen,
            volume,
            node,
            size_bytes: 1 << 40,
            time_ns,
            name: "vol".into(),
            props: props.clone(),
        },
        Record::SnapCreate {
            label_gen,
            time_ns,
            group: 4,
            kind: NodeKind::User,
            consistency: Consistency::Crash,
            freeze_ms: 0,
            expiry_ns: 0,
            members: vec![SnapMember { volume, new_head: NodeId(8), name: "snap".into() }],
            props: props.clone(),
        },
        Record::Rollback { label_gen, time_ns, members: vec![member(kept)] },
        Record::Rollback { label_gen, time_ns, members: vec![member(Replaced::Discarded)] },
        Record::Clone {
            label_gen,
            volume: VolumeId(2),
            node,
            parent: NodeId(3),
            time_ns,
            name: "clone".into(),
            props: props.clone(),
        },
        Record::VolResize { volume, size_bytes: 1 << 30 },
        Record::NodeDelete { nodes: vec![node, NodeId(8)] },
        Record::Rename { node, name: "other".into() },
        Record::SetProps { node, props },
        Record::Hold { node, set: true, tag: "backup".into() },
        Record::PoolGrow { blocks: 1 << 20 },
        Record::Marker,
    ]
}

/// The first byte chooses the terms, see the target.
fn requests() -> io::Result<()> {
    let kinds = [cmd::READ, cmd::WRITE, cmd::DISC, cmd::FLUSH, cmd::TRIM, cmd::CACHE];
    let kinds = kinds.into_iter().chain([cmd::WRITE_ZEROES, cmd::BLOCK_STATUS]);
    for kind in kinds {
        let (offset, len) = if kind == cmd::FLUSH { (0, 0) } else { (8192_u64, 4096_u32) };
        let mut bytes = vec![2 << 3 | 6];
        bytes.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&0_u16.to_be_bytes());
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&77_u64.to_be_bytes());
        bytes.extend_from_slice(&offset.to_be_bytes());
        bytes.extend_from_slice(&len.to_be_bytes());
        write("nbd_request", &format!("request{kind}"), &bytes)?;
        bytes[0] = 3;
        bytes.resize(bytes.len() + if kind == cmd::WRITE { len as usize } else { 0 }, 7);
        write("nbd_session", &format!("request{kind}"), &bytes)?;
    }
    let string = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
    let go = [string("vol@snap"), vec![0, 2, 0, 1, 0, 3]].concat();
    let meta = [string("vol"), vec![0, 0, 0, 1], string("base:allocation")].concat();
    let options = [
        (opt::EXPORT_NAME, b"vol".to_vec()),
        (opt::LIST, Vec::new()),
        (opt::GO, go),
        (opt::SET_META_CONTEXT, meta),
    ];
    for (code, data) in options {
        let mut bytes = vec![6];
        bytes.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(&(data.len() as u32).to_be_bytes());
        bytes.extend_from_slice(&data);
        write("nbd_request", &format!("option{code}"), &bytes)?;
        bytes[0] = 1;
        write("nbd_session", &format!("option{code}"), &bytes)?;
    }
    Ok(())
}
