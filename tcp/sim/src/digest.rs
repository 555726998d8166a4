//! Same seed, same octets (P7): a sum over everything that any NIC saw.

use std::hash::{DefaultHasher, Hasher};

use byway_tcp::time::Instant;

use crate::world::Observer;

/// Every frame at both its ends, with its time.
#[derive(Clone, Debug, Default)]
pub struct Digest {
    hasher: DefaultHasher,
    /// Frames seen.
    pub frames: u64,
}

impl Digest {
    /// So far.
    pub fn value(&self) -> u64 {
        self.hasher.finish()
    }
}

impl Observer for Digest {
    fn frame(&mut self, at: Instant, host: usize, outbound: bool, frame: &[u8]) {
        self.frames += 1;
        self.hasher.write_u64(at.as_nanos());
        self.hasher.write_usize(2 * host + usize::from(outbound));
        self.hasher.write_usize(frame.len());
        self.hasher.write(frame);
    }
}
