//! Arguments for QEMU, quoted for a shell.
//!
//! What a disk is stands in JSON: QEMU's other form has no way to write some paths, and takes a comma
//! twice for one.

use super::{Disk, RECONNECT_SECONDS};
use crate::attach::place::Place;
use serde_json::json;

/// Bytes of the name of a node of QEMU's.
const NODE_NAME_MAX: usize = 31;
const HASH_DIGITS: usize = 8;

/// The arguments, each option on a line.
pub fn arguments(disk: &Disk) -> String {
    let server = match &disk.place {
        Place::Unix(path) => json!({"type": "unix", "path": path}),
        Place::Tcp(host, port) => json!({"type": "inet", "host": host, "port": port}),
    };
    let node = node_name(disk.name);
    let mut blockdev = json!({
        "driver": "nbd",
        "node-name": node,
        "server": server,
        "export": disk.name,
        "reconnect-delay": RECONNECT_SECONDS,
        "cache": {"direct": true, "no-flush": false},
    });
    if disk.read_only {
        blockdev["read-only"] = json!(true);
    } else {
        // What the machine discards, or fills with zeros, takes no space.
        blockdev["discard"] = json!("unmap");
        blockdev["detect-zeroes"] = json!("unmap");
    }
    // Partition tables and boot loaders are made for sectors of 512 bytes; the block of a pool is
    // what writes should be aligned to.
    let device =
        format!("virtio-blk-pci,drive={node},logical_block_size=512,physical_block_size=4096");
    format!("-blockdev {} \\\n-device {}", quote(&blockdev.to_string()), quote(&device))
}

/// A name for QEMU: letters, digits and `-._`. Where the volume's cannot stay as it is, a part of its
/// hash tells it from others.
fn node_name(name: &str) -> String {
    let node: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '.' })
        .collect();
    let plain = format!("cow-{node}");
    if node == name && plain.len() <= NODE_NAME_MAX {
        return plain;
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    let front: String = plain.chars().take(NODE_NAME_MAX - 1 - HASH_DIGITS).collect();
    format!("{front}.{}", hash.chars().take(HASH_DIGITS).collect::<String>())
}

/// One word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        assert_eq!(node_name("vm-1.root"), "cow-vm-1.root");
        assert_eq!(node_name(&"x".repeat(27)).len(), NODE_NAME_MAX);
        let long = node_name(&"x".repeat(28));
        assert_eq!(long.len(), NODE_NAME_MAX);
        assert_ne!(long, node_name(&"x".repeat(29)));
        assert_ne!(node_name("vm@a"), node_name("vm.a"));
        assert!(!node_name("vm@a").contains('@'));
    }

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quote("it's"), r"'it'\''s'");
    }
}
