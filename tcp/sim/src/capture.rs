//! Everything that the NICs saw, as a pcapng file for Wireshark and tshark. S4.6
//!
//! Three block types of the format (draft-ietf-opsawg-pcapng §4.1 to 4.3) are all it takes; one interface a
//! host, times in nanoseconds, and the direction in each packet's flags. A library would be more code than this.

use std::io::{self, Write};

use byway_tcp::time::Instant;

use crate::world::Observer;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;
/// Options: `if_name`, `if_tsresol`, `epb_flags`.
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Writes a capture, as an observer.
#[derive(Debug)]
pub struct Capture<W> {
    to: W,
    block: Vec<u8>,
    error: Option<io::Error>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture of so many hosts.
    pub fn new(to: W, hosts: usize) -> Self {
        let mut capture = Self { to, block: Vec::new(), error: None };
        capture.begin(SECTION_HEADER);
        capture.u32(0x1a2b_3c4d);
        capture.block.extend_from_slice(&[1, 0, 0, 0]);
        // Section length: not told.
        capture.block.extend_from_slice(&[0xff; 8]);
        capture.end();
        for host in 0..hosts {
            capture.begin(INTERFACE);
            capture.u16(LINKTYPE_ETHERNET);
            capture.u16(0);
            // No limit to a packet's length.
            capture.u32(0);
            capture.option(IF_NAME, format!("host{host}").as_bytes());
            // Ten to the minus nine seconds.
            capture.option(IF_TSRESOL, &[9]);
            capture.option(0, &[]);
            capture.end();
        }
        capture
    }

    /// The end of it.
    ///
    /// # Errors
    /// The first error in writing.
    pub fn finish(mut self) -> io::Result<W> {
        self.to.flush()?;
        self.error.map_or(Ok(self.to), Err)
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.u32(kind);
        self.u32(0);
    }

    /// Closes the block: its length stands at both its ends.
    fn end(&mut self) {
        let len = self.block.len() as u32 + 4;
        self.u32(len);
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        if self.error.is_none()
            && let Err(error) = self.to.write_all(&self.block)
        {
            self.error = Some(error);
        }
    }

    fn u16(&mut self, value: u16) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.block.extend_from_slice(&value.to_le_bytes());
    }

    fn padded(&mut self, octets: &[u8]) {
        self.block.extend_from_slice(octets);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(value.len() as u16);
        self.padded(value);
    }
}

impl<W: Write> Observer for Capture<W> {
    fn frame(&mut self, at: Instant, host: usize, outbound: bool, frame: &[u8]) {
        let nanos = at.as_nanos();
        self.begin(ENHANCED_PACKET);
        self.u32(host as u32);
        self.u32((nanos >> 32) as u32);
        self.u32(nanos as u32);
        self.u32(frame.len() as u32);
        self.u32(frame.len() as u32);
        self.padded(frame);
        self.option(EPB_FLAGS, &if outbound { 2u32 } else { 1 }.to_le_bytes());
        self.option(0, &[]);
        self.end();
    }
}
