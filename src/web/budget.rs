//! How much memory the bodies of all requests together may take. Pure.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::head::{LONGEST_BODY, Refusal, too_large};

/// What every connection has without asking, so that whoever fills the memory with large bodies
/// does not keep out the small ones.
const FREE: usize = 16 * 1024;

/// The bytes that are left for all.
pub struct Budget(AtomicUsize);

/// A body that grows at the expense of a budget, and gives back when it is dropped.
pub struct Body<'a> {
    budget: &'a Budget,
    bytes: Vec<u8>,
    taken: usize,
}

impl Budget {
    /// So many bytes beyond what every connection has.
    pub const fn new(bytes: usize) -> Budget {
        Budget(AtomicUsize::new(bytes))
    }

    /// An empty body.
    pub fn body(&self) -> Body<'_> {
        Body { budget: self, bytes: Vec::new(), taken: 0 }
    }

    fn take(&self, bytes: usize) -> bool {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

impl Body<'_> {
    /// Appends what has arrived. What is taken from the budget is the memory, not the length.
    pub fn push(&mut self, more: &[u8]) -> Result<(), Refusal> {
        let wanted = self.bytes.len() + more.len();
        if wanted > LONGEST_BODY {
            return Err(too_large());
        }
        if wanted > self.bytes.capacity() {
            let capacity = wanted.max(self.bytes.capacity() * 2).min(LONGEST_BODY);
            let share = capacity.saturating_sub(FREE);
            if !self.budget.take(share - self.taken) {
                return Err(Refusal::new(503, "too many large requests at once"));
            }
            self.taken = share;
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// What has arrived.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Body<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.taken, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(body: &mut Body, bytes: usize) -> Result<(), u16> {
        (0..bytes / 1024)
            .try_for_each(|_| body.push(&[b'x'; 1024]))
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn large_bodies_share_the_budget_and_small_ones_need_none() {
        let budget = Budget::new(1 << 20);
        let mut first = budget.body();
        assert_eq!(fill(&mut first, 600 << 10), Ok(()));
        let mut second = budget.body();
        assert_eq!(fill(&mut second, 600 << 10), Err(503));
        assert_eq!(fill(&mut budget.body(), 8 << 10), Ok(()));
        drop((first, second));
        assert_eq!(fill(&mut budget.body(), 600 << 10), Ok(()));
        assert_eq!(budget.0.into_inner(), 1 << 20);
    }

    #[test]
    fn a_body_may_have_4_mib_and_no_more() {
        let budget = Budget::new(16 << 20);
        let mut body = budget.body();
        assert_eq!(fill(&mut body, LONGEST_BODY), Ok(()));
        assert_eq!(body.push(b"x").unwrap_err().status, 413);
    }
}
