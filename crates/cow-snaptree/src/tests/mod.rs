//! Tests of the snapshot tree: the accounting against radix trees that are really built, walked
//! and freed (`sim`, `oracle`, `setsize`), the verbs (`verbs`), the table and hostile input (`table`), damage (`damage`).

mod damage;
mod free_up;
mod groups;
mod kills;
mod oracle;
mod policies;
mod retention;
mod setsize;
mod sim;
mod table;
mod trees;
mod verbs;
mod walker;

/// splitmix64: the same numbers in every run.
#[derive(Clone)]
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len())])
    }
}

/// A volume without properties.
fn new_volume(name: &str, size_bytes: u64) -> crate::NewVolume {
    crate::NewVolume { name: name.to_owned(), size_bytes, props: Vec::new() }
}
