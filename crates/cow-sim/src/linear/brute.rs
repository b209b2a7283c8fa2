//! The definition, word by word: all subsets of what was not answered, and all permutations. For tiny
//! histories, to check [`super::search`] against.

use super::op::Op;
use super::state::State;

/// Whether there is a linearization.
#[must_use]
pub fn is_linearizable(initial: &State, ops: &[Op]) -> bool {
    let pending: Vec<usize> = (0..ops.len()).filter(|&i| ops[i].answered.is_none()).collect();
    (0..1_usize << pending.len()).any(|subset| {
        let taken = |i: usize| match pending.iter().position(|&p| p == i) {
            Some(bit) => subset >> bit & 1 == 1,
            None => true,
        };
        let mut order: Vec<usize> = (0..ops.len()).filter(|&i| taken(i)).collect();
        let len = order.len();
        permutations(&mut order, len, &mut |order| is_right(initial, ops, order))
    })
}

fn is_right(initial: &State, ops: &[Op], order: &[usize]) -> bool {
    for (at, &later) in order.iter().enumerate() {
        // Nothing that comes later was answered before this was asked, and the other way round.
        let wrong = |&earlier: &usize| {
            ops[later].answered.is_some_and(|answered| answered < ops[earlier].asked)
        };
        if order[..at].iter().any(wrong) {
            return false;
        }
    }
    let mut state = initial.clone();
    for &i in order {
        match state.after(&ops[i].call) {
            Some(next) => state = next,
            None => return false,
        }
    }
    true
}

/// Heap's algorithm. Whether `found` is true of any permutation.
fn permutations(order: &mut [usize], len: usize, found: &mut impl FnMut(&[usize]) -> bool) -> bool {
    if len <= 1 {
        return found(order);
    }
    for i in 0..len {
        if permutations(order, len - 1, found) {
            return true;
        }
        let swapped = if len.is_multiple_of(2) { i } else { 0 };
        order.swap(swapped, len - 1);
    }
    false
}
