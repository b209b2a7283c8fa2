//! Saying what happens to a pool by itself.

use crate::api::Action;
use crate::core::Core;
use crate::events::EventKind;

impl Core {
    /// Notes what happened now, and tells whoever drives the engine.
    pub(crate) fn tell(&mut self, kind: EventKind) {
        let event = self.events.push(self.wall_ns, kind);
        self.io.out.push(Action::Tell(event));
    }
}
