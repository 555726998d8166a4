//! A ring of octets between a task and its connection.

/// Octets of one. The largest chunk a connection gives (the kernel backend's frames are 16 KiB) fits in while three
/// more wait to be read; and a sender has as much under way in here as Linux's smallest default send buffer (16 KiB)
/// and a megabit's worth beside.
pub(super) const SIZE: usize = 64 << 10;

/// Empty ones that a core keeps: 8 MiB. A connection has one only while octets wait in it.
const SPARE_MAX: usize = 128;

/// Buffers that nobody needs at the moment: in a steady state none is allocated.
#[derive(Debug, Default)]
pub(super) struct Spares(Vec<Box<[u8]>>);

/// Octets in order, at most [`SIZE`].
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// There while it isn't empty.
    octets: Option<Box<[u8]>>,
    start: usize,
    len: usize,
}

impl Ring {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn room(&self) -> usize {
        SIZE - self.len
    }

    /// Appends as much as there is room for; how much that was.
    pub(super) fn write(&mut self, from: &[u8], spares: &mut Spares) -> usize {
        let count = from.len().min(self.room());
        if count == 0 {
            return 0;
        }
        let octets = self
            .octets
            .get_or_insert_with(|| spares.0.pop().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()));
        let end = (self.start + self.len) % SIZE;
        let first = count.min(SIZE - end);
        octets[end..end + first].copy_from_slice(&from[..first]);
        octets[..count - first].copy_from_slice(&from[first..count]);
        self.len += count;
        count
    }

    /// The first octets, as far as they lie in one piece.
    pub(super) fn front(&self) -> &[u8] {
        match &self.octets {
            Some(octets) => &octets[self.start..(self.start + self.len).min(SIZE)],
            None => &[],
        }
    }

    /// Forgets the first `count` octets.
    pub(super) fn consume(&mut self, count: usize, spares: &mut Spares) {
        assert!(count <= self.len, "consumes what isn't there");
        self.start = (self.start + count) % SIZE;
        self.len -= count;
        if self.len == 0 {
            self.start = 0;
            if let Some(octets) = self.octets.take()
                && spares.0.len() < SPARE_MAX
            {
                spares.0.push(octets);
            }
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, spares: &mut Spares) {
        self.consume(self.len, spares);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    proptest! {
        /// Against a plain queue of octets.
        #[test]
        fn a_ring_is_a_queue(steps in proptest::collection::vec((any::<bool>(), 0usize..SIZE + 100), 1..60)) {
            let (mut ring, mut spares, mut model) = (Ring::default(), Spares::default(), VecDeque::new());
            let mut next = 0u8;
            for (write, count) in steps {
                if write {
                    let from: Vec<u8> = (0..count).map(|at| next.wrapping_add((at % 251) as u8)).collect();
                    let taken = ring.write(&from, &mut spares);
                    prop_assert_eq!(taken, count.min(SIZE - model.len()));
                    model.extend(&from[..taken]);
                    next = next.wrapping_add(7);
                } else {
                    let mut left = count;
                    while left > 0 && !ring.is_empty() {
                        let step = ring.front().len().min(left);
                        let front: Vec<u8> = model.drain(..step).collect();
                        prop_assert_eq!(&ring.front()[..step], &front[..]);
                        ring.consume(step, &mut spares);
                        left -= step;
                    }
                }
                prop_assert_eq!(ring.room(), SIZE - model.len());
                prop_assert_eq!(ring.octets.is_some(), !model.is_empty());
            }
        }
    }
}
