//! What volumes with a budget or a reserve may be refused.

use super::Sim;
use crate::cmd::Cmd;
use crate::world::Machine;
use cow_engine::{Error, SpaceKind};

impl<M: Machine> Sim<M> {
    /// Whether a lack of space is one that `cmd` may not see: the writes of a volume for all of
    /// which space is kept find it, unless it was rolled back; and a budget stands in nobody's way
    /// who has none.
    pub(super) fn breaks_promise(&self, cmd: &Cmd, error: &Error) -> bool {
        let (Error::NoSpace(kind), false) = (error, self.oracle.is_ambiguous()) else {
            return false;
        };
        let (Cmd::Write { volume, .. } | Cmd::Zero { volume, .. }) = cmd else {
            return matches!(kind, SpaceKind::Budget);
        };
        let Some(volume) = self.oracle.live().volumes.get(volume) else { return false };
        let prop = |key: &str| volume.head.props.get(key).map(String::as_str);
        match kind {
            SpaceKind::Budget => prop("budget").is_none(),
            SpaceKind::Pool => volume.rollbacks == 0 && prop("reserve") == Some("full"),
            _ => false,
        }
    }
}
