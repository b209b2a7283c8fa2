//! What clients see of a pool, in lines that can be compared.

use cowstore::{Consistency, Export, NodeInfo, Pool};
use std::collections::BTreeMap;
use std::fmt::Write;

const BLOCK: u64 = 4096;
/// A leaf of the map: what is read at once.
const PIECE: u64 = 256 * BLOCK;

/// For each volume and snapshot that is not deleted, by name: hash of the content, and what else is
/// known of it that no later version may lose.
pub fn contents(pool: &Pool) -> BTreeMap<String, String> {
    let nodes = pool.list(false).unwrap();
    nodes.iter().filter(|node| node.live).map(|node| line(pool, node)).collect()
}

fn line(pool: &Pool, node: &NodeInfo) -> (String, String) {
    let export = pool.open_export(&node.name, false).unwrap();
    assert_eq!(export.size_bytes(), node.size_bytes, "{}", node.name);
    let mut props = blake3::Hasher::new();
    for (key, value) in &node.props {
        for text in [key, value] {
            props.update(&(text.len() as u64).to_le_bytes()).update(text.as_bytes());
        }
    }
    let mut text = format!(
        "{} size {} kind {:?} node {} group {} expiry {} holds {} rollbacks {} props {}",
        hash(&export),
        node.size_bytes,
        node.kind,
        node.node,
        node.group,
        node.expiry_ns,
        node.holds,
        node.rollback_gen,
        &props.finalize().to_hex()[..16],
    );
    // Nothing of most.
    if node.consistency != Consistency::Crash || node.freeze_ms != 0 {
        let _ = write!(text, " {:?} {} ms", node.consistency, node.freeze_ms);
    }
    (node.name.clone(), text)
}

/// BLAKE3 of all blocks that are not zeros, each behind its offset (8 bytes, little-endian). For a
/// block that cannot be read the offset stands alone.
fn hash(export: &Export) -> String {
    let mut hasher = blake3::Hasher::new();
    let (size, mut at) = (export.size_bytes(), 0);
    while at < size {
        // In pieces of the size of a leaf where something is mapped; holes as they come.
        let Ok(extents) = export.extents(at, size - at) else {
            at = by_leaves(export, at, &mut hasher);
            continue;
        };
        for extent in extents {
            let end = at + extent.len;
            if extent.mapped {
                for from in (at..end).step_by(PIECE as usize) {
                    blocks(export, from, end.min(from + PIECE), &mut hasher);
                }
            } else {
                // What is called a hole reads as zeros.
                let mut page = vec![1; extent.len.min(BLOCK) as usize];
                export.read_at(&mut page, at).unwrap();
                assert!(page.iter().all(|byte| *byte == 0), "{}: {at}", export.name());
            }
            at = end;
        }
    }
    hasher.finalize().to_string()
}

/// Where the map does not tell what is there: block by block, up to the next leaf. Returns where that is.
fn by_leaves(export: &Export, at: u64, hasher: &mut blake3::Hasher) -> u64 {
    let end = ((at / PIECE + 1) * PIECE).min(export.size_bytes());
    blocks(export, at, end, hasher);
    end
}

fn blocks(export: &Export, from: u64, end: u64, hasher: &mut blake3::Hasher) {
    for at in (from..end).step_by(BLOCK as usize) {
        let mut page = vec![0; (end - at).min(BLOCK) as usize];
        match export.read_at(&mut page, at) {
            Ok(()) if page.iter().all(|byte| *byte == 0) => {}
            Ok(()) => drop(hasher.update(&at.to_le_bytes()).update(&page)),
            Err(_) => drop(hasher.update(&at.to_le_bytes())),
        }
    }
}
