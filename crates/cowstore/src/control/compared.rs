//! What a client compares page by page stays until it has seen the last one, asks for something
//! else, or leaves.

use crate::error::Error;
use crate::manage::Verb;
use crate::pool::Pool;
use crate::volume::Export;

/// The two states that a client compares, open.
#[derive(Default)]
pub(super) struct Compared(pub(super) Option<((String, String), [Export; 2])>);

impl Compared {
    /// Opens what `verb` compares, unless it is open already, and lets go of everything else.
    pub(super) fn hold(&mut self, pool: &Pool, verb: &Verb) -> Result<(), Error> {
        let Verb::Diff { from, to, .. } = verb else {
            self.0 = None;
            return Ok(());
        };
        let same = |((a, b), _): &((String, String), [Export; 2])| a == from && b == to;
        if !self.0.as_ref().is_some_and(same) {
            self.0 = None;
            let open = [pool.open_export(from, false)?, pool.open_export(to, false)?];
            self.0 = Some(((from.clone(), to.clone()), open));
        }
        Ok(())
    }
}
