//! Reads while writes are in flight: a block may hold what was acknowledged before the read
//! began, or what any operation that overlapped it in time made of it.

use super::Oracle;
use crate::cmd::Cmd;
use crate::model::{Kept, Snap};
use crate::value::{Value, blocks_of};
use cow_engine::OpId;
use cow_format::BLOCK_SIZE;
use std::collections::BTreeMap;

/// A read on its way.
pub struct ReadTicket {
    id: OpId,
    name: String,
    offset: u64,
    len: u64,
    legal: BTreeMap<u64, Vec<Value>>,
    /// Something happened that makes it impossible to say.
    void: bool,
}

impl ReadTicket {
    fn allow(&mut self, node: &Snap) {
        for (lba, values) in &mut self.legal {
            let value = node.content.get(*lba);
            if !values.contains(&value) {
                values.push(value);
            }
        }
    }
}

impl Oracle {
    /// A read was handed to the machine.
    pub fn begin_read(&mut self, id: OpId, name: &str, offset: u64, len: u64) {
        let legal = blocks_of(offset, len).map(|lba| (lba, Vec::new())).collect();
        let (name, void) = (name.to_owned(), self.ambiguous);
        let mut ticket = ReadTicket { id, name, offset, len, legal, void };
        match self.live.node(&ticket.name) {
            Some(node) => ticket.allow(node),
            None => ticket.void = true,
        }
        let pending = self.log.iter().filter(|entry| entry.acked_at().is_none());
        let pending: Vec<Cmd> = pending.map(|entry| entry.cmd.clone()).collect();
        self.tickets.push(ticket);
        for cmd in pending {
            self.note_for_reads(&cmd);
        }
    }

    /// Adds what an operation that is in flight may make of the blocks being read.
    pub(super) fn note_for_reads(&mut self, cmd: &Cmd) {
        if self.tickets.is_empty() || !cmd.mutates() {
            return;
        }
        for ticket in &mut self.tickets {
            let (volume, snap) = match ticket.name.split_once('@') {
                Some((volume, snap)) => (volume, Some(snap)),
                None => (ticket.name.as_str(), None),
            };
            if !cmd.volumes().contains(&volume) {
                continue;
            }
            ticket.void |= match cmd {
                Cmd::Snapshot { .. }
                | Cmd::Clone { .. }
                | Cmd::SetProp { .. }
                | Cmd::Hold { .. } => false,
                _ => cmd.is_verb(),
            };
            if cmd.changed_blocks().is_none() || snap.is_some() || ticket.void {
                continue;
            }
            let mut after = self.live.clone();
            if after.apply(cmd, &Kept::Guess(0)).is_ok()
                && let Some(node) = after.node(volume)
            {
                ticket.allow(node);
            }
        }
    }

    /// A read was answered with `bytes`.
    ///
    /// # Errors
    /// When a block holds what it cannot hold.
    pub fn finish_read(&mut self, id: OpId, bytes: Option<&[u8]>) -> Result<(), String> {
        let Some(at) = self.tickets.iter().position(|ticket| ticket.id == id) else {
            return Ok(());
        };
        let ticket = self.tickets.swap_remove(at);
        let Some(bytes) = bytes else { return Ok(()) };
        if ticket.void || self.ambiguous {
            return Ok(());
        }
        if bytes.len() as u64 != ticket.len {
            return Err(format!("a read of {} bytes gave {}", ticket.len, bytes.len()));
        }
        for (&lba, legal) in &ticket.legal {
            let block = lba * BLOCK_SIZE as u64;
            let from = ticket.offset.max(block);
            let to = (ticket.offset + ticket.len).min(block + BLOCK_SIZE as u64);
            let got = &bytes[(from - ticket.offset) as usize..(to - ticket.offset) as usize];
            let (from, to) = ((from - block) as usize, (to - block) as usize);
            if !legal.iter().any(|value| value.page()[from..to] == *got) {
                let found = Value::Zero.overlaid(from, got);
                let name = &ticket.name;
                return Err(format!(
                    "read of {name}: block {lba} holds {found:?}, which is none of {legal:?}"
                ));
            }
        }
        Ok(())
    }
}
