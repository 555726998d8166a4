//! A station without a stack: what it sends and answers is up to a test.

use std::time::Duration;

use anyhow::Result;

use crate::namespace::Namespace;
use crate::socket::{self, PacketSocket, Received};

/// Sends frames out by an interface as they are, and sees those that come in by it. The kernel beside it has no
/// address there, so it answers nothing.
#[derive(Debug)]
pub struct Station {
    socket: PacketSocket,
}

impl Station {
    /// Takes an interface of a namespace.
    ///
    /// # Errors
    /// The interface doesn't exist, or packet sockets aren't allowed.
    pub fn open(namespace: &Namespace, interface: &str) -> Result<Self> {
        Ok(Self { socket: namespace.enter(|| PacketSocket::open(interface, false))? })
    }

    /// Sends frames in order: how many the kernel took.
    pub fn send(&self, frames: &mut [Vec<u8>]) -> usize {
        frames.chunks_mut(socket::BATCH).map(|batch| self.socket.send(batch)).sum()
    }

    /// Hands on what has come in; waits for it, but not longer than `timeout`.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn receive(&mut self, timeout: Duration, mut each: impl FnMut(Vec<u8>)) -> Result<()> {
        socket::wait([&self.socket], timeout)?;
        let mut hand_on = |received| {
            if let Received::Frame(frame) = received {
                each(frame);
            }
        };
        while self.socket.receive(&mut hand_on)? == socket::BATCH {}
        Ok(())
    }
}
