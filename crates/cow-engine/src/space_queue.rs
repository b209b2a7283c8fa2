//! The order in which writes get room in a full pool: as they came. Else those that come later
//! take what a fold has just brought back, and one that waits is refused though nothing is wrong
//! with it.

use crate::wait::WaitList;
use std::collections::VecDeque;

/// Who waits, the next one first.
#[derive(Default)]
pub(crate) struct SpaceQueue {
    tickets: VecDeque<u64>,
    last: u64,
    /// Those that are not the first wait here.
    pub(crate) wait: WaitList,
}

impl SpaceQueue {
    /// A place at the end.
    pub(crate) fn join(&mut self) -> u64 {
        self.last += 1;
        self.tickets.push_back(self.last);
        self.last
    }

    pub(crate) fn leave(&mut self, ticket: u64) {
        self.tickets.retain(|other| *other != ticket);
    }

    /// Whether nobody stands before the holder of `ticket`, or before one who comes now.
    pub(crate) fn is_next(&self, ticket: Option<u64>) -> bool {
        self.tickets.front().is_none_or(|first| Some(*first) == ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_comes_first() {
        let mut queue = SpaceQueue::default();
        assert!(queue.is_next(None));
        let (a, b) = (queue.join(), queue.join());
        assert!(queue.is_next(Some(a)) && !queue.is_next(Some(b)) && !queue.is_next(None));
        queue.leave(b);
        let c = queue.join();
        queue.leave(a);
        assert!(queue.is_next(Some(c)) && !queue.is_next(None));
        queue.leave(c);
        assert!(queue.is_next(None));
    }
}
