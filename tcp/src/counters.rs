//! What happened, counted: plain `u64`s of one core, read by snapshot.
//!
//! Names are Linux's MIB names (`nstat`) where one exists, byway's own otherwise. Every discarded
//! frame or segment raises exactly one [`DropReason`].

use crate::tcb::state::States;

macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// Counters of one stack, all from its start.
        #[derive(Clone, Debug, Default)]
        pub struct Counters {
            $(
                #[doc = concat!("`", $name, "`. ")]
                $(#[$doc])*
                pub $field: u64,
            )*
            drops: Drops,
            latest: Option<DropReason>,
        }

        impl Counters {
            /// Every counter with its name, drop reasons last.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
                [$(($name, self.$field)),*]
                    .into_iter()
                    .chain(DropReason::ALL.iter().map(|&r| (r.name(), self.drops.0[r as usize])))
            }

            /// Adds another core's counters.
            pub fn merge(&mut self, other: &Self) {
                $(self.$field += other.$field;)*
                for (mine, theirs) in self.drops.0.iter_mut().zip(other.drops.0) {
                    *mine += theirs;
                }
            }
        }
    };
}

counters! {
    /// Frames taken from the port.
    frames_in = "BywayFramesIn",
    /// Frames given to the port.
    frames_out = "BywayFramesOut",
    /// Octets in those frames.
    octets_in = "BywayOctetsIn",
    octets_out = "BywayOctetsOut",
    /// TCP segments with a valid checksum.
    tcp_in_segs = "TcpInSegs",
    /// TCP segments sent, retransmissions included.
    tcp_out_segs = "TcpOutSegs",
    tcp_retrans_segs = "TcpRetransSegs",
    tcp_active_opens = "TcpActiveOpens",
    tcp_passive_opens = "TcpPassiveOpens",
    /// Opens that failed: SYN-SENT or SYN-RECEIVED to CLOSED.
    tcp_attempt_fails = "TcpAttemptFails",
    /// Established connections reset, by either side.
    tcp_estab_resets = "TcpEstabResets",
    tcp_out_rsts = "TcpOutRsts",
    /// Segments that arrived ahead of a hole and were kept.
    tcp_ofo_queue = "TcpExtTCPOFOQueue",
    /// Retransmission timer expiries.
    tcp_timeouts = "TcpExtTCPTimeouts",
    /// Fast recoveries begun.
    tcp_fast_retrans = "TcpExtTCPFastRetrans",
    /// Retransmissions that were lost again.
    tcp_lost_retransmit = "TcpExtTCPLostRetransmit",
    /// Tail loss probes sent (RFC 8985 §7), and losses that one mended unseen.
    tcp_loss_probes = "TcpExtTCPLossProbes",
    tcp_loss_probe_recovery = "TcpExtTCPLossProbeRecovery",
    /// Timeouts that were mistakes (RFC 5682, RFC 4015).
    tcp_spurious_rtos = "TcpExtTCPSpuriousRTOs",
    /// Fast recoveries undone by a timestamp, and by duplicates that arrived.
    tcp_full_undo = "TcpExtTCPFullUndo",
    tcp_dsack_undo = "TcpExtTCPDSACKUndo",
    /// Octets that arrived twice, by what peers say (RFC 2883), and as told to them.
    tcp_dsack_recv = "TcpExtTCPDSACKRecv",
    tcp_dsack_sent = "TcpExtTCPDSACKOldSent",
    /// Peers that dropped what they had SACKed (RFC 2018 §8).
    tcp_sack_reneging = "TcpExtTCPSACKReneging",
    tcp_delayed_acks = "TcpExtDelayedACKs",
    /// ACKs that carry nothing new from an attack's or a duplicate's point of view (RFC 5961).
    tcp_challenge_acks = "TcpExtTCPChallengeACK",
    tcp_win_probes = "TcpExtTCPWinProbe",
    tcp_keepalives = "TcpExtTCPKeepAlive",
    /// Connections reset because they held memory and didn't move, while others needed it (T3).
    tcp_abort_on_memory = "TcpExtTCPAbortOnMemory",
    /// Times that octets ahead of a hole were given up, because others needed the memory.
    tcp_ofo_pruned = "TcpExtOfoPruned",
    /// Connections ended because the peer stopped answering.
    tcp_abort_on_timeout = "TcpExtTCPAbortOnTimeout",
    /// SYNs answered by a cookie (RFC 4987 §3.6).
    syncookies_sent = "TcpExtSyncookiesSent",
    /// Cookies that came back and opened a connection.
    syncookies_recv = "TcpExtSyncookiesRecv",
    /// ACKs that might have brought a cookie, and didn't.
    syncookies_failed = "TcpExtSyncookiesFailed",
    /// Connections reset because the peer hadn't acknowledged everything when `Conn::set_linger`'s time was over.
    tcp_abort_on_linger = "TcpExtTCPAbortOnLinger",
    /// Segments with text that the network had marked (RFC 3168), on connections with ECN.
    ip_in_ce_pkts = "IpExtInCEPkts",
    /// Windows reduced because the peer echoed such a mark.
    ecn_reductions = "BywayEcnReductions",
    /// Connections that entered TIME-WAIT.
    tcp_time_waits = "TcpExtTW",
    /// A SYN re-used a TIME-WAIT pair (RFC 6191).
    tcp_time_wait_recycled = "TcpExtTWRecycled",
    /// Path MTUs that a router's word made smaller (RFC 1191, RFC 8201).
    tcp_mtu_reductions = "BywayTcpMtuReductions",
    /// Path MTUs taken for smaller because full segments timed out (RFC 4821 §7.7).
    tcp_mtu_black_holes = "BywayTcpMtuBlackHoles",
    /// Larger segments tried on a path, and lost or acknowledged.
    tcp_mtup_fail = "TcpExtTCPMTUPFail",
    tcp_mtup_success = "TcpExtTCPMTUPSuccess",
    /// Fragments received, datagrams put together from them, and datagrams of which the rest didn't come in time.
    ip_reasm_reqds = "IpReasmReqds",
    ip_reasm_oks = "IpReasmOKs",
    ip_reasm_timeout = "IpReasmTimeout",
    /// Datagrams given up because newer ones needed their place.
    ip_reasm_evicted = "BywayReasmEvicted",
    /// Datagrams sent in fragments, and the fragments.
    ip_frag_oks = "IpFragOKs",
    ip_frag_creates = "IpFragCreates",
    arp_in = "BywayArpIn",
    arp_out = "BywayArpOut",
    ndp_in = "BywayNdpIn",
    ndp_out = "BywayNdpOut",
    icmp_in_echos = "IcmpInEchos",
    icmp_out_echo_reps = "IcmpOutEchoReps",
    icmp_in_dest_unreachs = "IcmpInDestUnreachs",
    icmp_in_time_excds = "IcmpInTimeExcds",
    icmp_in_parm_probs = "IcmpInParmProbs",
    icmp6_in_dest_unreachs = "Icmp6InDestUnreachs",
    icmp6_in_pkt_too_bigs = "Icmp6InPktTooBigs",
    icmp6_in_time_excds = "Icmp6InTimeExcds",
    icmp6_in_parm_problems = "Icmp6InParmProblems",
    icmp6_in_echos = "Icmp6InEchos",
    icmp6_out_echo_reps = "Icmp6OutEchoReplies",
    /// TLS handshakes completed, and those among them that a ticket made short.
    tls_handshakes = "BywayTlsHandshakes",
    tls_handshakes_resumed = "BywayTlsHandshakesResumed",
    /// Those that weren't: malformed, nothing in common, given up by the peer; plain HTTP, too.
    tls_handshakes_failed = "BywayTlsHandshakesFailed",
    /// Those that took too long.
    tls_handshake_timeouts = "BywayTlsHandshakeTimeouts",
    /// Connections ended because of a record: not authentic, malformed, or not allowed there.
    tls_broken = "BywayTlsBroken",
    /// Connections ended because the peer sent an alert.
    tls_alerts_in = "BywayTlsAlertsIn",
    /// Connections that a peer closed without close_notify (RFC 8446 §6.1): their end may have been cut off.
    tls_truncated = "BywayTlsTruncated",
    /// Octets of records that were moved, to be contiguous or to have room around them.
    tls_bytes_copied = "BywayTlsBytesCopied",
    /// What the application has answered, as it counts it itself: HTTP requests and WebSocket messages.
    app_answered = "BywayAnswered",
    /// Payload octets copied by user space: 0 on the zero-copy paths.
    payload_bytes_copied = "BywayPayloadBytesCopied",
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// Why a frame or segment was discarded.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        pub enum DropReason {
            $(
                #[doc = concat!("`", $name, "`. ")]
                $(#[$doc])*
                $variant,
            )*
        }

        impl DropReason {
            /// All reasons, in the order of their discriminants.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// Number of reasons.
            pub const COUNT: usize = Self::ALL.len();

            /// The counter's name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

drop_reasons! {
    /// Shorter than its headers say.
    Truncated = "BywayDropTruncated",
    /// An Ethernet type, IP protocol or ICMP type that byway doesn't speak.
    Unsupported = "BywayDropUnsupported",
    /// More than two VLAN tags.
    VlanDepth = "BywayDropVlanDepth",
    /// Destination MAC isn't ours and isn't a group we listen to.
    WrongMac = "BywayDropWrongMac",
    /// IP version, header length or total length contradict each other.
    IpHeader = "IpInHdrErrors",
    IpChecksum = "IpExtInCsumErrors",
    /// Destination isn't one of our addresses.
    IpNotOurs = "IpInAddrErrors",
    /// Source that can't be answered: multicast, broadcast, loopback, unspecified, our own (L6).
    Martian = "BywayDropMartian",
    /// IPv4 source routing (L5).
    SourceRoute = "BywayDropSourceRoute",
    /// A datagram that came in fragments and can't be taken: larger than a frame, no frame, or too late.
    Fragment = "IpReasmFails",
    /// A packet in several frames (jumbo, or merged on the way) that is neither a TCP segment nor an echo request.
    Scattered = "BywayDropScattered",
    /// A fragment that no sender makes: empty, tiny, not in units of eight octets, beyond 64 KiB (L4).
    FragmentHeader = "BywayDropFragmentHeader",
    /// A fragment that contradicts another, or belongs to a datagram in which one did (RFC 5722).
    FragmentOverlap = "IpExtReasmOverlaps",
    /// IPv6 extension headers beyond the bound, or a routing header type 0 (L10).
    ExtensionHeaders = "BywayDropExtensionHeaders",
    /// TCP header contradicts itself: data offset, options.
    TcpHeader = "TcpInErrs",
    TcpChecksum = "TcpInCsumErrors",
    /// Flag combination no TCP sends (T16).
    TcpFlags = "BywayDropTcpFlags",
    IcmpChecksum = "IcmpInCsumErrors",
    /// An ICMP error about a connection that we don't have.
    IcmpNoConnection = "IcmpInErrors",
    /// An ICMP error that quotes nothing in flight (RFC 5927 §4).
    IcmpOutOfWindow = "TcpExtOutOfWindowIcmps",
    /// A path MTU that is no smaller than what is sent, or impossible.
    IcmpMtu = "BywayDropIcmpMtu",
    /// Malformed ARP, NDP or ICMP body.
    ControlBody = "BywayDropControlBody",
    /// No listener and no connection; answered with RST (S1.5).
    NoListener = "BywayDropNoListener",
    /// Listener's backlog of half-open connections is full.
    ListenOverflow = "TcpExtListenOverflows",
    /// Connection table is full.
    TableFull = "BywayDropTableFull",
    /// Outside the receive window (RFC 9293 §3.10.7.4, first step).
    OutOfWindow = "BywayDropOutOfWindow",
    /// All its octets were received before.
    Duplicate = "BywayDropDuplicate",
    /// Timestamp older than the last one (RFC 7323 §5).
    Paws = "TcpExtPAWSEstab",
    /// ACK missing or not acceptable.
    BadAck = "BywayDropBadAck",
    /// A segment for a TIME-WAIT pair that changes nothing.
    TimeWait = "BywayDropTimeWait",
    /// RST or SYN that doesn't hit the exact sequence number (RFC 5961).
    BlindReset = "BywayDropBlindReset",
    /// Data after the application has gone, answered with RST.
    AfterClose = "TcpExtTCPAbortOnData",
    /// Too many holes or frames out of order (T12).
    OutOfOrderLimit = "TcpExtTCPOFODrop",
    /// No frame to spare (D2).
    MemoryPressure = "TcpExtTCPRcvQDrop",
    /// An answer that the rate limit held back (T25).
    RateLimited = "BywayDropRateLimited",
    /// Waiting for a neighbour that doesn't answer.
    NoNeighbor = "BywayDropNoNeighbor",
}

/// One counter for each reason: the standard library has defaults for arrays of up to 32.
#[derive(Clone, Debug)]
struct Drops([u64; DropReason::COUNT]);

impl Default for Drops {
    fn default() -> Self {
        Self([0; DropReason::COUNT])
    }
}

/// Counters and connections, of one core or of several.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The counters.
    pub counters: Counters,
    /// Connections in each state, and the moves between them.
    pub states: States,
}

impl Totals {
    /// Adds another core's.
    pub fn merge(&mut self, other: &Self) {
        self.counters.merge(&other.counters);
        self.states.merge(&other.states);
    }
}

impl Counters {
    /// Counts a discarded frame or segment.
    #[inline]
    pub fn drop(&mut self, reason: DropReason) {
        self.drops.0[reason as usize] += 1;
        self.latest = Some(reason);
    }

    /// The reason of the last discard since this was asked.
    pub(crate) fn take_latest(&mut self) -> Option<DropReason> {
        self.latest.take()
    }

    /// How many were discarded for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize]
    }

    /// How many were discarded in all.
    pub fn dropped_total(&self) -> u64 {
        self.drops.0.iter().sum()
    }
}
