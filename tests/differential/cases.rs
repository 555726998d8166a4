//! What is sent: tables.

mod stories;

use crate::segment::{ACK, FIN, PSH, RST, SYN, Seg, URG, ack, data, fin, flags_text, seg, syn};
use crate::services::{CLOSER, DISCARD, HOLD, NOBODY};

pub(crate) use stories::stories;

/// A connection's story.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// The service.
    pub(crate) port: u16,
    /// The prober's initial number.
    pub(crate) iss: u32,
    /// Segments, all sent at once; then answers are waited for.
    pub(crate) steps: Vec<Vec<Seg>>,
    /// What a timer sends again is compared, too.
    pub(crate) repetitions: bool,
}

impl Case {
    pub(crate) fn new(name: impl Into<String>, port: u16, steps: Vec<Vec<Seg>>) -> Self {
        Self { name: name.into(), port, iss: 0x1234_5678, steps, repetitions: false }
    }

    /// With numbers that wrap soon, or change their sign (T14).
    fn from(self, iss: u32) -> Self {
        Self { iss, ..self }
    }

    /// What the prober says in a step.
    pub(crate) fn said(&self, step: usize) -> String {
        let segments = self.steps.get(step).into_iter().flatten();
        segments.map(Seg::text).collect::<Vec<_>>().join(" + ")
    }
}

/// Nothing is sent.
fn pause(steps: usize) -> Vec<Vec<Seg>> {
    vec![Vec::new(); steps]
}

/// How to get a connection into a state, and the numbers that are right then.
struct Way {
    name: &'static str,
    port: u16,
    steps: Vec<Seg>,
    /// The prober's next number, and the target's.
    next: (i64, i64),
}

/// RFC 9293 §3.3.2: all states that a server gets into.
fn ways() -> Vec<Way> {
    let open = |more: &[Seg]| [&[syn(), ack(1, 1)], more].concat();
    let way = |name, port, steps, next| Way { name, port, steps, next };
    vec![
        way("CLOSED", NOBODY, vec![], (0, 0)),
        way("LISTEN", HOLD, vec![], (0, 0)),
        way("SYN-RECEIVED", HOLD, vec![syn()], (1, 1)),
        way("ESTABLISHED", HOLD, open(&[]), (1, 1)),
        way("FIN-WAIT-1", CLOSER, open(&[data(1, 1, 1)]), (2, 2)),
        way("FIN-WAIT-2", CLOSER, open(&[data(1, 1, 1), ack(2, 2)]), (2, 2)),
        way("CLOSING", CLOSER, open(&[data(1, 1, 1), fin(2, 1)]), (3, 2)),
        way("TIME-WAIT", CLOSER, open(&[data(1, 1, 1), ack(2, 2), fin(2, 2)]), (3, 2)),
        way("CLOSE-WAIT", HOLD, open(&[fin(1, 1)]), (2, 1)),
        way("LAST-ACK", DISCARD, open(&[fin(1, 1)]), (2, 2)),
    ]
}

/// A segment in a state, and afterwards, when answers may be given again (both limit them to one in 500 ms), an old
/// ACK: whether and where the connection still is.
fn probe(way: &Way, name: &str, probe: Seg) -> Case {
    let (seq, ack) = way.next;
    let mut steps: Vec<Vec<Seg>> = way.steps.iter().map(|seg| vec![seg.clone()]).collect();
    steps.push(vec![probe]);
    steps.extend(pause(4));
    steps.push(vec![self::ack(seq - 1, ack)]);
    Case::new(format!("{} {name}", way.name), way.port, steps)
}

/// T16.
pub(crate) fn every_flag_in_every_state() -> Vec<Case> {
    let mut cases = Vec::new();
    for way in ways() {
        for flags in 0..=FIN | SYN | RST | PSH | ACK | URG {
            for len in [0, 10] {
                let (seq, ack) = way.next;
                let name = format!("[{}] len {len}", flags_text(flags));
                cases.push(probe(&way, &name, seg(flags, seq, ack).len(len)));
            }
        }
    }
    cases
}

/// T7 T14: numbers around the edges, with the segments that an attacker or an old connection would send.
pub(crate) fn edges() -> Vec<Case> {
    // Further away than any window that either offers, and still "before" or "after".
    const FAR: i64 = 1 << 30;
    let mut cases = Vec::new();
    for way in ways() {
        let (seq, ack) = way.next;
        for (flags, len) in
            [(ACK, 0), (ACK, 1), (RST, 0), (RST | ACK, 0), (SYN, 0), (FIN | ACK, 0), (ACK, 100)]
        {
            for (at, offset) in [
                ("old", -2),
                ("just old", -1),
                ("next", 0),
                ("in window", 1),
                ("in window", 1000),
                ("far", FAR),
                ("long ago", -FAR),
            ] {
                let name = format!("[{}] len {len} seq {at} {offset}", flags_text(flags));
                let case = probe(&way, &name, seg(flags, seq + offset, ack).len(len));
                cases.push(case);
            }
        }
        for (at, offset) in [("old", -1), ("future", 1), ("future", 1000), ("far", FAR), ("long ago", -FAR)] {
            for (flags, len) in [(ACK, 0), (ACK, 1), (RST | ACK, 0), (FIN | ACK, 0)] {
                let name = format!("[{}] len {len} ack {at} {offset}", flags_text(flags));
                cases.push(probe(&way, &name, seg(flags, seq, ack + offset).len(len)));
            }
        }
    }
    // Numbers that wrap within the case, or change their sign.
    let starts = [0xffff_fffe, 0x7fff_fffe, 0, 0x1234_5678];
    cases.into_iter().zip(starts.into_iter().cycle()).map(|(case, iss)| case.from(iss)).collect()
}
