//! What each operation does to the state.

use super::{Props, Snap, State, UNDO_KEPT, Volume};
use crate::cmd::{Cmd, SnapHow, Target};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Why an operation has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it names is not there.
    NotFound,
    /// What it would make is there.
    Exists,
    /// It does not go together with what is there.
    Conflict,
    /// A rollback that keeps nothing would lose what the head holds.
    WouldLose,
    /// More snapshots than the property `limit` of a volume or a group allows.
    Limit,
}

/// For each target of a rollback: whether what it replaced was kept, and its name if known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// As the engine said.
    Known(Vec<Option<String>>),
    /// Bit `i`: target `i` kept nothing, as the head had not changed. For the unacknowledged.
    Guess(u32),
}

impl Kept {
    fn name(&self, index: usize) -> Option<String> {
        match self {
            Self::Known(names) => names.get(index).cloned().flatten(),
            Self::Guess(_) => None,
        }
    }

    fn drops(&self, index: usize) -> bool {
        match self {
            Self::Known(names) => names.get(index).is_some_and(Option::is_none),
            Self::Guess(mask) => mask >> index & 1 == 1,
        }
    }
}

type Applied = Result<(), Refusal>;

/// What a discard of bytes `from .. to` clears: whole blocks only, of which the last of a volume
/// is one, however short.
fn whole_blocks(from: u64, to: u64, size: u64) -> (u64, u64) {
    let to = if to == size { to } else { to / 4096 * 4096 };
    (from.next_multiple_of(4096), to)
}

fn split(name: &str) -> (&str, Option<&str>) {
    name.split_once('@').map_or((name, None), |(volume, snap)| (volume, Some(snap)))
}

fn tagged(tag: u64) -> Props {
    Arc::new(BTreeMap::from([("n".to_owned(), tag.to_string())]))
}

impl State {
    /// Applies `cmd`, wholly or not at all.
    ///
    /// # Errors
    /// Why it has no effect.
    pub fn apply(&mut self, cmd: &Cmd, kept: &Kept) -> Applied {
        match cmd {
            Cmd::Write { volume, offset, len, token, .. } => {
                self.head(volume, offset + len)?.content.write(*offset, *len, *token);
            }
            Cmd::Zero { volume, offset, len, discard, .. } => {
                let head = self.head(volume, offset + len)?;
                let (from, to) = if *discard {
                    whole_blocks(*offset, offset + len, head.size)
                } else {
                    (*offset, offset + len)
                };
                head.content.zero(from, to.saturating_sub(from));
            }
            Cmd::Create { name, size } => {
                let head = Snap { size: *size, ..Snap::default() };
                self.add(name, Volume { head, ..Volume::default() })?;
            }
            Cmd::Snapshot { targets, tag, how } => self.snapshot(targets, *tag, *how)?,
            Cmd::Rollback { targets, discard_current, .. } => {
                self.rollback(targets, *discard_current, kept)?;
            }
            Cmd::Undo { volume, .. } => {
                let undos = &self.volumes.get(volume).ok_or(Refusal::NotFound)?.undos;
                let newest = undos.last().ok_or(Refusal::NotFound)?.0.clone();
                self.rollback(&[(volume.clone(), newest)], false, kept)?;
            }
            Cmd::Clone { source, name } => {
                let from = self.volumes.get(&source.0).ok_or(Refusal::NotFound)?;
                let snap = from.snap(&source.1).ok_or(Refusal::NotFound)?;
                let head = Snap { props: Props::default(), ..snap.bare() };
                self.add(name, Volume { head, ..Volume::default() })?;
            }
            Cmd::Delete { names, recursive } => self.delete(names, *recursive)?,
            Cmd::Rename { name, to } => self.rename(name, to)?,
            Cmd::Resize { volume, size, shrink } => {
                let head = self.head(volume, 0)?;
                if *size < head.size {
                    if !shrink {
                        return Err(Refusal::Conflict);
                    }
                    let tail = head.size.next_multiple_of(4096) - size;
                    head.content.zero(*size, tail);
                }
                head.size = *size;
            }
            Cmd::Prune { volumes } => self.prune(volumes)?,
            Cmd::Hold { name, tag, set } => {
                let holds = &mut self.node_mut(name)?.holds;
                match set {
                    true if !holds.insert(tag.clone()) => return Err(Refusal::Exists),
                    false if !holds.remove(tag) => return Err(Refusal::NotFound),
                    _ => {}
                }
            }
            Cmd::SetProp { name, key, value } => {
                let props = match name.as_str() {
                    "" => &mut self.props,
                    _ => &mut self.node_mut(name)?.props,
                };
                let props = Arc::make_mut(props);
                match value {
                    Some(value) => props.insert(key.clone(), value.clone()),
                    None => props.remove(key),
                };
            }
            Cmd::Read { .. } | Cmd::Flush { .. } | Cmd::Checkpoint | Cmd::WaitReclaim => {}
        }
        Ok(())
    }

    fn head(&mut self, volume: &str, end: u64) -> Result<&mut Snap, Refusal> {
        let head = &mut self.volumes.get_mut(volume).ok_or(Refusal::NotFound)?.head;
        if end > head.size { Err(Refusal::Conflict) } else { Ok(head) }
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Snap, Refusal> {
        let (volume, snap) = split(name);
        let volume = self.volumes.get_mut(volume).ok_or(Refusal::NotFound)?;
        let Some(snap) = snap else { return Ok(&mut volume.head) };
        if let Some(at) = volume.undos.iter().position(|(own, _)| own == snap) {
            return Ok(&mut volume.undos[at].1);
        }
        volume.snaps.get_mut(snap).ok_or(Refusal::NotFound)
    }

    fn add(&mut self, name: &str, volume: Volume) -> Applied {
        if self.volumes.contains_key(name) {
            return Err(Refusal::Exists);
        }
        self.volumes.insert(name.to_owned(), volume);
        Ok(())
    }

    fn snapshot(&mut self, targets: &[Target], tag: u64, how: SnapHow) -> Applied {
        for (volume, name) in targets {
            let volume = self.volumes.get(volume).ok_or(Refusal::NotFound)?;
            if volume.snap(name).is_some() {
                return Err(Refusal::Exists);
            }
        }
        if !how.auto {
            self.check_limits(targets)?;
        }
        for (volume, name) in targets {
            let volume = self.volumes.get_mut(volume).ok_or(Refusal::NotFound)?;
            let snap = Snap { props: tagged(tag), how, ..volume.head.clone() };
            volume.snaps.insert(name.clone(), snap);
            volume.taken.push(name.clone());
        }
        Ok(())
    }

    fn rollback(&mut self, targets: &[Target], discard_current: bool, kept: &Kept) -> Applied {
        for (index, (volume, name)) in targets.iter().enumerate() {
            let volume = self.volumes.get(volume).ok_or(Refusal::NotFound)?;
            volume.snap(name).ok_or(Refusal::NotFound)?;
            if !discard_current && kept.drops(index) && !volume.head_is_in_a_snapshot() {
                return Err(Refusal::WouldLose);
            }
        }
        for (index, (volume, name)) in targets.iter().enumerate() {
            let volume = self.volumes.get_mut(volume).ok_or(Refusal::NotFound)?;
            let snap = volume.snap(name).ok_or(Refusal::NotFound)?.bare();
            let old = std::mem::replace(&mut volume.head, snap);
            volume.head.props = old.props.clone();
            volume.rollbacks += 1;
            if discard_current || kept.drops(index) {
                continue;
            }
            let guess = || format!("undo.{}", volume.rollbacks);
            volume.undos.push((kept.name(index).unwrap_or_else(guess), old));
            // The oldest go, but not the one that was gone back to.
            let mut extra = volume.undos.len().saturating_sub(UNDO_KEPT);
            volume.undos.retain(|(undo, _)| {
                let goes = extra > 0 && undo != name;
                extra -= usize::from(goes);
                !goes
            });
        }
        Ok(())
    }

    fn delete(&mut self, names: &[String], recursive: bool) -> Applied {
        for name in names {
            let (volume, snap) = split(name);
            let volume = self.volumes.get(volume).ok_or(Refusal::NotFound)?;
            match snap {
                Some(snap) if volume.snap(snap).is_none() => return Err(Refusal::NotFound),
                None if !recursive && volume.snap_names().next().is_some() => {
                    return Err(Refusal::Conflict);
                }
                None if volume.snaps.values().any(|snap| !snap.holds.is_empty()) => {
                    return Err(Refusal::Conflict);
                }
                Some(snap) if volume.snap(snap).is_some_and(|snap| !snap.holds.is_empty()) => {
                    return Err(Refusal::Conflict);
                }
                _ => {}
            }
        }
        for name in names {
            match split(name) {
                (volume, None) => drop(self.volumes.remove(volume)),
                (volume, Some(snap)) => {
                    if let Some(volume) = self.volumes.get_mut(volume) {
                        volume.remove_snap(snap);
                        volume.undos.retain(|(name, _)| name != snap);
                    }
                }
            }
        }
        Ok(())
    }

    fn rename(&mut self, name: &str, to: &str) -> Applied {
        let (volume, snap) = split(name);
        let Some(snap) = snap else {
            if self.volumes.contains_key(to) {
                return Err(Refusal::Exists);
            }
            let moved = self.volumes.remove(volume).ok_or(Refusal::NotFound)?;
            return self.add(to, moved);
        };
        let volume = self.volumes.get_mut(volume).ok_or(Refusal::NotFound)?;
        if volume.snap(to).is_some() {
            return Err(Refusal::Exists);
        }
        let moved = volume.snaps.remove(snap).ok_or(Refusal::NotFound)?;
        volume.snaps.insert(to.to_owned(), moved);
        volume.taken.iter_mut().filter(|own| *own == snap).for_each(|own| *own = to.to_owned());
        Ok(())
    }
}

impl Snap {
    /// Its content, as the begin of something new.
    fn bare(&self) -> Self {
        Self { how: SnapHow::default(), holds: Default::default(), ..self.clone() }
    }
}

impl Volume {
    fn head_is_in_a_snapshot(&self) -> bool {
        let same = |snap: &Snap| {
            snap.size == self.head.size && snap.content.digest() == self.head.content.digest()
        };
        self.snaps.values().any(same) || self.undos.iter().any(|(_, snap)| same(snap))
    }
}
