//! The differences that may be, each with its reason.

use crate::cases::Case;

/// A difference that may be.
///
/// A star stands for anything; what stands for it in both answers has to be the same.
#[derive(Debug)]
pub(crate) struct Allowed {
    /// Names of cases.
    pub(crate) cases: &'static str,
    /// What byway says, and what the kernel says.
    pub(crate) byway: &'static str,
    pub(crate) kernel: &'static str,
    /// Afterwards both are in different states, and there is nothing to compare.
    pub(crate) parted: bool,
    /// RFC text or configuration.
    pub(crate) why: &'static str,
}

impl Allowed {
    pub(crate) fn covers(&self, case: &Case, byway: &str, kernel: &str) -> bool {
        let captured = (capture(self.byway, byway), capture(self.kernel, kernel));
        let same = match captured {
            (Some(Some(byway)), Some(Some(kernel))) => byway == kernel,
            (Some(_), Some(_)) => true,
            _ => false,
        };
        same && capture(self.cases, &case.name).is_some()
    }
}

/// What stands for the star; none if the text isn't of this pattern.
fn capture<'a>(pattern: &str, text: &'a str) -> Option<Option<&'a str>> {
    match pattern.split_once('*') {
        None => (pattern == text).then_some(None),
        Some((start, end)) => Some(text.strip_prefix(start)?.strip_suffix(end)),
    }
    .filter(|captured| captured.is_some() || !pattern.contains('*'))
}

const fn goes_on(
    cases: &'static str,
    byway: &'static str,
    kernel: &'static str,
    why: &'static str,
) -> Allowed {
    Allowed { cases, byway, kernel, parted: false, why }
}

const fn parts(cases: &'static str, byway: &'static str, kernel: &'static str, why: &'static str) -> Allowed {
    Allowed { cases, byway, kernel, parted: true, why }
}

const TIME_WAIT_WINDOW: Allowed = goes_on(
    "*",
    "[.] seq 2 ack * closed",
    "[.] seq 2 ack *",
    "in TIME-WAIT nothing can be sent to us any more: byway's compact entry keeps no window (S2.5), the kernel's does",
);

const ORDER_IN_SYN_RECEIVED: Allowed = parts(
    "LISTEN [*",
    "[.] seq 1 ack *",
    "[R] seq 0",
    "an old number and a wrong ACK at once: RFC 9293 §3.10.7.4 looks at the number first and answers by an ACK, the kernel at the ACK",
);

const SYN_IN_SYN_RECEIVED: &str = "RFC 9293 §3.10.7.4 returns to LISTEN silently, RFC 5961 §4.2 answers any SYN by a \
     challenge ACK, which keeps a blind SYN from ending a handshake (T7); the kernel resets";

const TEXT_BEHIND_FIN: &str =
    "text behind a FIN is ignored (RFC 9293 §3.10.7.4, seventh): whether with an ACK isn't said";

const TEXT_ACROSS_FIN: &str = "text that begins before a FIN and goes on behind it: \"ignore the segment text\" (RFC 9293 \
     §3.10.7.4, seventh); the kernel resets";

const ACK_OF_OUR_FIN: &str = "an old segment's ACK of our FIN is true all the same: byway's connection is over with it, \
     and owes no answer any more";

const OSX_RST: &str = "the kernel takes a RST one below RCV.NXT for right after a FIN, for the sake of OS X; RFC 5961 \
     §3.2 wants RCV.NXT exactly";

const OLD_ACK: &str = "RFC 5961 §5.2 takes an ACK for possible that is no older than the largest window; the kernel, \
     besides, none of octets that it hasn't sent";

pub(crate) const FLAGS: &[Allowed] = &[
    TIME_WAIT_WINDOW,
    ORDER_IN_SYN_RECEIVED,
    parts("SYN-RECEIVED [*", "[.] seq 1 ack 1", "[R.] seq zero ack *", SYN_IN_SYN_RECEIVED),
    parts("SYN-RECEIVED [*", "[.] seq 1 ack 1", "[R] seq 1", SYN_IN_SYN_RECEIVED),
    goes_on("CLOSING [* len 10", "[.] seq 2 ack 3", "", TEXT_BEHIND_FIN),
    goes_on("CLOSE-WAIT [* len 10", "[.] seq 1 ack 2", "", TEXT_BEHIND_FIN),
    parts("LAST-ACK [*", "", "[.] seq 2 ack 2", ACK_OF_OUR_FIN),
];

pub(crate) const EDGES: &[Allowed] = &[
    TIME_WAIT_WINDOW,
    ORDER_IN_SYN_RECEIVED,
    parts("TIME-WAIT [S]*", "[.] seq 1 ack *", "[R] seq 2", ORDER_IN_SYN_RECEIVED.why),
    parts("SYN-RECEIVED [S]*", "[.] seq 1 ack 1", "[R.] seq zero ack *", SYN_IN_SYN_RECEIVED),
    parts("ESTABLISHED [* ack old -1", "", "[.] seq 1 ack 1", OLD_ACK),
    parts("ESTABLISHED [* ack old -1", "[.] seq 1 ack 2", "[.] seq 1 ack 1", OLD_ACK),
    goes_on("CLOSE-WAIT [* ack old -1", "", "[.] seq 1 ack 2", OLD_ACK),
    goes_on("CLOSING [*", "[.] seq 2 ack 3", "", TEXT_BEHIND_FIN),
    goes_on("CLOSE-WAIT [.]*", "[.] seq 1 ack 2", "", TEXT_BEHIND_FIN),
    goes_on("LAST-ACK [.]*", "[.] seq 2 ack 2", "", TEXT_BEHIND_FIN),
    parts("CLOSE-WAIT [.] len 100 *", "[.] seq 1 ack 2", "[R] seq 1", TEXT_ACROSS_FIN),
    parts("CLOSING [R* just old -1", "[.] seq 2 ack 3", "[R] seq 2", OSX_RST),
    parts("CLOSE-WAIT [R* just old -1", "[.] seq 1 ack 2", "[R] seq 1", OSX_RST),
    parts("LAST-ACK [R* just old -1", "", "[R] seq 2", OSX_RST),
    parts("LAST-ACK [*", "", "[.] seq 2 ack 2", ACK_OF_OUR_FIN),
];

const MINSHALL: &str = "byway's Nagle holds a small segment while anything is outstanding (RFC 9293 §3.7.4), the kernel's \
     (Minshall's) while another small one is";

pub(crate) const STORIES: &[Allowed] = &[
    TIME_WAIT_WINDOW,
    parts(
        "s1_2 another SYN in SYN-RECEIVED",
        "[.] seq 1 ack 1",
        "[R.] seq zero ack 5001",
        SYN_IN_SYN_RECEIVED,
    ),
    goes_on("data after a FIN", "[.] seq 1 ack 2", "", TEXT_BEHIND_FIN),
    parts("data after a FIN", "[.] seq 1 ack 2", "[R] seq 1", TEXT_ACROSS_FIN),
    goes_on(
        "s2_2 echo and FIN at once",
        "[F.] seq 1 ack 102 len 100",
        "[.] seq 1 ack 102 len 100, [F.] seq 101 ack 102",
        "the kernel's application closes in a second system call, when the data has gone",
    ),
    parts(
        "s8_1 Nagle holds the small rest",
        "[.] seq 1 ack 1 len 1460, [.] seq 1461 ack 1 len 1460",
        "*, [.] seq 2921 ack 1 len 1080",
        MINSHALL,
    ),
    goes_on(
        "s5_3 a closed window is probed",
        "[.] seq 1 ack 1 len 1000",
        "[.] seq 1 ack 1 len 500, [.] seq 501 ack 1 len 500",
        "towards a small window the kernel sends halves of it (RFC 9293 §3.8.6.2.1 lets a part be sent from a half on)",
    ),
    parts("s6_1 an MSS of 536 where none is told", "*", "*, [.] seq 3753 ack 1 len 248", MINSHALL),
];
