//! The file format of Wireshark and tshark (draft-ietf-opsawg-pcapng), as much as it takes: a section, an interface
//! for each queue, packets with direction and comment, statistics.
//!
//! No library: the block types are four, and those at hand either don't write options or keep whole files in memory.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::io::{self, Write};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;

/// Options, named as in the draft (§3.5, §4.1 to §4.4, §4.6).
const OPT_ENDOFOPT: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_OS: u16 = 3;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const ISB_IFDROP: u16 = 5;
const ISB_FILTERACCEPT: u16 = 6;

/// Direction in `epb_flags`.
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// A file that is being written.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    block: Vec<u8>,
}

impl<W: Write> Writer<W> {
    /// Begins a section, in the name of `application`.
    ///
    /// # Errors
    /// Writing fails; so with all that follows.
    pub fn new(to: W, application: &str) -> io::Result<Self> {
        let mut writer = Self { to, block: Vec::new() };
        writer.begin(SECTION_HEADER);
        // Byte order, version 1.0, section length not told.
        writer.u32(0x1a2b_3c4d);
        writer.block.extend([1, 0, 0, 0]);
        writer.block.extend([0xff; 8]);
        writer.option(SHB_OS, b"Linux");
        writer.option(SHB_USERAPPL, application.as_bytes());
        writer.end_options()?;
        Ok(writer)
    }

    /// The next interface; the first one is 0. `snaplen` octets of each packet are kept at most; 0: all. A `filter` is the
    /// text of one.
    ///
    /// # Errors
    /// Writing fails.
    pub fn interface(
        &mut self,
        name: &str,
        description: Option<&str>,
        snaplen: u32,
        filter: Option<&str>,
    ) -> io::Result<()> {
        self.begin(INTERFACE);
        self.u16(LINKTYPE_ETHERNET);
        self.u16(0);
        self.u32(snaplen);
        self.option(IF_NAME, name.as_bytes());
        if let Some(description) = description {
            self.option(IF_DESCRIPTION, description.as_bytes());
        }
        // Ten to the minus nine seconds.
        self.option(IF_TSRESOL, &[9]);
        if let Some(filter) = filter {
            // 0: a text.
            self.option(IF_FILTER, &[&[0], filter.as_bytes()].concat());
        }
        self.end_options()
    }

    /// A packet of `len` octets, of which these were kept, at `at` ns since 1970 (or whenever the clock of the writer began).
    ///
    /// # Errors
    /// Writing fails.
    pub fn packet(
        &mut self,
        interface: u32,
        at: u64,
        outbound: bool,
        (octets, len): (&[u8], u32),
        comment: Option<&str>,
    ) -> io::Result<()> {
        self.begin(ENHANCED_PACKET);
        self.u32(interface);
        self.time(at);
        self.u32(octets.len() as u32);
        self.u32(len);
        self.padded(octets);
        self.option(EPB_FLAGS, &if outbound { OUTBOUND } else { INBOUND }.to_le_bytes());
        if let Some(comment) = comment {
            self.option(OPT_COMMENT, comment.as_bytes());
        }
        self.end_options()
    }

    /// How many packets the filter took on an interface, and how many of them are missing.
    ///
    /// # Errors
    /// Writing fails.
    pub fn statistics(&mut self, interface: u32, at: u64, accepted: u64, dropped: u64) -> io::Result<()> {
        self.begin(STATISTICS);
        self.u32(interface);
        self.time(at);
        self.option(ISB_IFDROP, &dropped.to_le_bytes());
        self.option(ISB_FILTERACCEPT, &accepted.to_le_bytes());
        self.end_options()
    }

    /// Lets readers have all of it so far.
    ///
    /// # Errors
    /// Writing fails.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }

    /// What it was written to.
    pub fn into_inner(self) -> W {
        self.to
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.u32(kind);
        self.u32(0);
    }

    /// Closes the block: its length stands at both its ends.
    fn end_options(&mut self) -> io::Result<()> {
        self.option(OPT_ENDOFOPT, &[]);
        let len = self.block.len() as u32 + 4;
        self.u32(len);
        self.block[4..8].copy_from_slice(&len.to_le_bytes());
        self.to.write_all(&self.block)
    }

    fn time(&mut self, at: u64) {
        self.u32((at >> 32) as u32);
        self.u32(at as u32);
    }

    fn u16(&mut self, value: u16) {
        self.block.extend(value.to_le_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.block.extend(value.to_le_bytes());
    }

    fn padded(&mut self, octets: &[u8]) {
        self.block.extend(octets);
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        self.u16(code);
        self.u16(value.len() as u16);
        self.padded(value);
    }
}
