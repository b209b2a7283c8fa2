//! Seeds from pools that hold every structure.

use super::{trimmed, write as write_seed};
use cow_sim::corruption::specimen::Specimen;
use cow_sim::corruption::verdict::kind_of;
use std::collections::BTreeMap;
use std::io;

/// Of each kind of structure so many.
const MOST: usize = 4;
/// Bytes of a frame that the target `journal` takes, and of a node entry.
const FRAME: usize = 160;
const ENTRY: usize = 256;

pub fn write() -> io::Result<()> {
    let whole = Specimen::whole().map_err(|stop| io::Error::other(format!("{stop:?}")))?;
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut ring = vec![0];
    for block in whole.used() {
        let page = whole.disk.peek(block);
        let (target, bytes) = match kind_of(&whole, block) {
            "leaf" | "inner map node" => ("map_node", page.to_vec()),
            "kill row" | "properties" => ("blob", page.to_vec()),
            "checkpoint" if page[..8] == *b"COWCHKP1" => {
                ("checkpoint", [&page[..ENTRY], &whole.disk.peek(block + 1)].concat())
            }
            "frame" => {
                ring.extend(&page[..FRAME]);
                continue;
            }
            "node table" => {
                let pairs = page.chunks_exact(ENTRY).map(|entry| [entry, &[0; ENTRY]].concat());
                ("node_table", pairs.collect::<Vec<_>>().concat())
            }
            _ => continue,
        };
        let count = counts.entry(target).or_default();
        *count += 1;
        if *count <= MOST {
            write_seed(target, &format!("pool{count}"), trimmed(&bytes))?;
        }
    }
    write_seed("journal", "ring", &ring)?;
    for (index, first) in (0..16_u8).enumerate() {
        let edits: Vec<u8> =
            (0..24_u8).map(|i| i.wrapping_mul(37).wrapping_add(first * 11)).collect();
        write_seed("image", &format!("edits{index}"), &[&[first][..], &edits].concat())?;
    }
    Ok(())
}
