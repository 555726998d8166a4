//! Every maximum of the application, with the argument for its value.

use byway_tcp::time::Duration;

/// What the application takes from one peer. All sizes are octets unless the name says otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections of one IPv4 address or IPv6 /64 on one core, on all ports together; a further one is reset as it
    /// opens. `None`, the default: no limit, as many people may share an address (RFC 6888), and a load generator has
    /// one. H1
    pub connections_per_peer: Option<u32>,
    /// Request line and header lines together, line ends included. nginx gives 4 × 8 KiB and
    /// Apache 8 KiB a line; 16 KiB holds the largest cookie a browser keeps (4 KiB) four times. H2
    pub header_block: usize,
    /// The request line alone. RFC 9112 §3 recommends at least 8,000 octets. H2
    pub request_line: usize,
    /// Header lines. Browsers send about 20; Apache's limit is 100. H2
    pub headers: usize,
    /// `Content-Type` that is copied into the answer. RFC 6838 §4.2 holds type and subtype to 127
    /// octets each; 256 is that and a parameter's worth. A longer one is answered 431.
    pub content_type: usize,
    /// One request's body, however it is framed: 1 TiB, a day at 100 Mbit/s. Bodies pass through in bounded memory, so
    /// this bounds only what can be meant; what says more is answered 413. H3
    pub body: u64,
    /// One chunk-size line with its extensions; nobody sends extensions, so this is generous. H4
    pub chunk_line: usize,
    /// All chunk extensions of one body: otherwise 1-octet chunks multiply the work. H4
    pub chunk_extensions: usize,
    /// All trailer lines of one body; as much as a header block could hold in one frame or two.
    pub trailer_block: usize,
    /// N of `/bytes/N`: 1 GiB, a minute at 140 Mbit/s.
    pub generated: u64,
    /// One WebSocket message, all its fragments. Autobahn's largest is 16 MiB.
    pub message: u64,
    /// Fragments of one message: 16 MiB in Autobahn's 64-octet fragments; a bomb of 2^20 isn't
    /// taken. W4
    pub fragments: u32,
    /// WebSockets of one core that may have agreed on permessage-deflate, at 440 KiB each from their first compressed
    /// message on: 55 MiB; to others the extension is declined. Less than the 128 MiB of frames a core has. W5
    pub deflaters: usize,
    /// Text held back until its frame is complete, in octets and in frames: beyond it the text is
    /// echoed in fragments of this size. A bound on what one peer can pin down.
    pub held_octets: usize,
    /// See `held_octets`: 64 KiB in full-size segments are 45 frames.
    pub held_chunks: usize,
    /// How long text is held back at most: a peer that falls silent in mid-frame mustn't keep its frames from
    /// the others. A frame that takes longer comes back as fragments.
    pub held_time: Duration,
    /// From a TLS connection's opening to its handshake's end: the header deadline again, for two round trips and what
    /// the core's other handshakes take. H1
    pub handshake: Duration,
    /// From a request's first octet (or the connection's opening) to its header block's end; more
    /// octets don't prolong it. Apache: 10–20 s. H1
    pub header_deadline: Duration,
    /// Without a request on a kept-alive connection: nginx's 75 s.
    pub idle: Duration,
    /// How often a request body's progress is looked at. H1
    pub body_check: Duration,
    /// Octets of body that must have arrived between two looks, or the connection is closed:
    /// 500 a second, Apache's `RequestReadTimeout body=20,MinRate=500`. H1
    pub body_progress: u64,
    /// After an error or a close: how long the peer's octets are still taken and discarded so that
    /// it can read the answer (RFC 9112 §9.6) before the connection is reset.
    pub linger: Duration,
    /// Between two messages of `/ticker`.
    pub tick: Duration,
    /// Between two messages of `/feed`: short enough for a line to be seen moving; some 12 KB/s for each.
    pub feed: Duration,
    /// Connections of one core that may be on `/feed` at once; to more it is refused (503). 32 are 128 messages of 3 KB a
    /// second, from a text made at most 8 times a second: little beside the hundreds of thousands a core can.
    pub feeds: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_per_peer: None,
            header_block: 16 << 10,
            request_line: 8 << 10,
            headers: 100,
            content_type: 256,
            body: 1 << 40,
            chunk_line: 256,
            chunk_extensions: 16 << 10,
            trailer_block: 4 << 10,
            generated: 1 << 30,
            message: 16 << 20,
            fragments: 1 << 18,
            deflaters: 128,
            held_octets: 64 << 10,
            held_chunks: 48,
            held_time: Duration::from_secs(2),
            handshake: Duration::from_secs(10),
            header_deadline: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body_check: Duration::from_secs(20),
            body_progress: 10_000,
            linger: Duration::from_secs(5),
            tick: Duration::from_secs(1),
            feed: Duration::from_millis(250),
            feeds: 32,
        }
    }
}
