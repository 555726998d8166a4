//! Everything that the NICs saw, as a pcapng file for Wireshark and tshark: one interface a host. S4.6

use std::io::{self, Write};

use byway_pcapng::Writer;
use byway_tcp::time::Instant;

use crate::world::Observer;

/// Writes a capture, as an observer.
#[derive(Debug)]
pub struct Capture<W> {
    to: Writer<W>,
    error: Option<io::Error>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture of so many hosts.
    ///
    /// # Errors
    /// Writing fails.
    pub fn new(to: W, hosts: usize) -> io::Result<Self> {
        let mut to = Writer::new(to, "byway-sim")?;
        for host in 0..hosts {
            to.interface(&format!("host{host}"), None, 0, None)?;
        }
        Ok(Self { to, error: None })
    }

    /// The end of it.
    ///
    /// # Errors
    /// The first error in writing.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        self.error.map_or_else(|| Ok(self.to.into_inner()), Err)
    }
}

impl<W: Write> Observer for Capture<W> {
    fn frame(&mut self, at: Instant, host: usize, outbound: bool, frame: &[u8]) {
        let whole = (frame, frame.len() as u32);
        let written = self.to.packet(host as u32, at.as_nanos(), outbound, whole, None);
        self.error = self.error.take().or(written.err());
    }
}
