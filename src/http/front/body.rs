//! Bodies of requests, and the memory that they take together and each client's.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Mutex;

use super::limits::{CLIENT_BODY_BYTES, FREE_BODY_BYTES, MAX_BODY};
use crate::http::client_address::network;
use crate::thread::lock;

/// How many bytes the bodies of all requests may still take together, and each client takes.
pub struct BodyMemory(Mutex<BodyBytes>);

struct BodyBytes {
    left: usize,
    by_client: HashMap<IpAddr, usize>,
}

/// A body that takes its memory out of a [`BodyMemory`], and gives it back when it is dropped.
pub struct BodyBuffer<'a> {
    memory: &'a BodyMemory,
    client: IpAddr,
    bytes: Vec<u8>,
    taken: usize,
}

/// Why a body cannot grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is larger than any may be.
    TooLarge,
    /// Those of all clients have used the memory up, or those of this one its share.
    NoMemory {
        /// Whose bodies these are; none is all.
        of: Option<IpAddr>,
    },
}

impl BodyMemory {
    /// So many bytes, beyond 16 KiB for each body.
    pub fn new(bytes: usize) -> BodyMemory {
        BodyMemory(Mutex::new(BodyBytes { left: bytes, by_client: HashMap::new() }))
    }

    /// An empty body of a client.
    pub fn body(&self, client: IpAddr) -> BodyBuffer<'_> {
        BodyBuffer { memory: self, client: network(client), bytes: Vec::new(), taken: 0 }
    }

    fn acquire(&self, client: IpAddr, bytes: usize) -> Result<(), BodyError> {
        let mut memory = lock(&self.0);
        let own = memory.by_client.get(&client).copied().unwrap_or_default() + bytes;
        if own > CLIENT_BODY_BYTES {
            return Err(BodyError::NoMemory { of: Some(client) });
        }
        let left = memory.left.checked_sub(bytes).ok_or(BodyError::NoMemory { of: None })?;
        memory.left = left;
        memory.by_client.insert(client, own);
        Ok(())
    }

    fn release(&self, client: IpAddr, bytes: usize) {
        let mut memory = lock(&self.0);
        memory.left += bytes;
        if let Some(own) = memory.by_client.get_mut(&client) {
            *own -= bytes;
        }
        memory.by_client.retain(|_, own| *own > 0);
    }
}

impl BodyBuffer<'_> {
    /// Appends bytes. What counts is the memory that is taken, not the length.
    ///
    /// # Errors
    /// When the body is too large, or the memory is used up: it is as it was.
    pub fn push(&mut self, more: &[u8]) -> Result<(), BodyError> {
        let wanted = self.bytes.len() + more.len();
        if wanted > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        if wanted > self.bytes.capacity() {
            let capacity = wanted.max(self.bytes.capacity() * 2).min(MAX_BODY);
            let share = capacity.saturating_sub(FREE_BODY_BYTES);
            if share > self.taken {
                self.memory.acquire(self.client, share - self.taken)?;
                self.taken = share;
            }
            self.bytes.reserve_exact(capacity - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Whose it is.
    pub fn client(&self) -> IpAddr {
        self.client
    }

    /// The bytes so far.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for BodyBuffer<'_> {
    fn drop(&mut self) {
        if self.taken > 0 {
            self.memory.release(self.client, self.taken);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::ALL_BODY_BYTES;
    use super::*;

    fn fill(body: &mut BodyBuffer, bytes: usize) -> Result<(), BodyError> {
        (0..bytes / 1024).try_for_each(|_| body.push(&[b'x'; 1024]))
    }

    fn client(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    #[test]
    fn large_bodies_share_the_memory_and_small_ones_need_none() {
        let memory = BodyMemory::new(1 << 20);
        let mut first = memory.body(client(1));
        assert_eq!(fill(&mut first, 600 << 10), Ok(()));
        let mut second = memory.body(client(2));
        assert_eq!(fill(&mut second, 600 << 10), Err(BodyError::NoMemory { of: None }));
        assert_eq!(fill(&mut memory.body(client(2)), 8 << 10), Ok(()));
        drop((first, second));
        assert_eq!(fill(&mut memory.body(client(2)), 600 << 10), Ok(()));
        let BodyBytes { left, by_client } = memory.0.into_inner().unwrap();
        assert_eq!((left, by_client.len()), (1 << 20, 0));
    }

    #[test]
    fn one_client_used_up_the_memory_of_all() {
        let memory = BodyMemory::new(ALL_BODY_BYTES);
        let mut bodies: Vec<_> = (0..4).map(|_| memory.body(client(1))).collect();
        let filled = bodies.iter_mut().filter_map(|body| fill(body, MAX_BODY).err());
        let refused = BodyError::NoMemory { of: Some(client(1)) };
        assert!(filled.last() == Some(refused), "its share");
        assert_eq!(fill(&mut memory.body(client(2)), MAX_BODY), Ok(()));
        let [first, second] = ["2001:db8::1", "2001:db8::2"].map(|text| text.parse().unwrap());
        assert_eq!(memory.body(first).client, memory.body(second).client, "one network");
    }

    #[test]
    fn a_body_may_have_4_mib_and_no_more() {
        let memory = BodyMemory::new(16 << 20);
        let mut body = memory.body(client(1));
        assert_eq!(fill(&mut body, MAX_BODY), Ok(()));
        assert_eq!(body.push(b"x"), Err(BodyError::TooLarge));
    }
}
