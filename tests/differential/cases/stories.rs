//! Stories of more than one segment that matters.

use super::{Case, pause};
use crate::segment::{ACK, FIN, PSH, Seg, ack, data, fin, rst, seg, syn};
use crate::services::{CLOSER, DISCARD, ECHO, GREETER, HOLD};

/// SYN and ACK, then a step for each of the segments.
fn open(port: u16, name: &str, segments: &[Seg]) -> Case {
    let steps = [syn(), ack(1, 1)].into_iter().chain(segments.iter().cloned()).map(|seg| vec![seg]);
    Case::new(name, port, steps.collect())
}

/// The same with SACK, scaling and timestamps.
fn open_modern(port: u16, name: &str, segments: &[Seg]) -> Case {
    let syn = modern_syn().timestamp(1000);
    let steps = [syn, ack(1, 1).timestamp(1001)].into_iter().chain(segments.iter().cloned());
    Case::new(name, port, steps.map(|seg| vec![seg]).collect())
}

/// MSS 1460, SACK permitted, a window scale of 7.
fn modern_syn() -> Seg {
    syn().options(&[2, 4, 5, 0xb4, 4, 2, 3, 3, 7, 0]).window(60_000)
}

pub(crate) fn stories() -> Vec<Case> {
    [handshakes(), data_in_order_and_not(), closing(), windows(), timestamps(), oddities()].concat()
}

fn handshakes() -> Vec<Case> {
    let one = |name: &str, steps: &[Seg]| {
        Case::new(name, HOLD, steps.iter().map(|seg| vec![seg.clone()]).collect())
    };
    let bare = |options: &[u8]| seg(crate::segment::SYN, 0, 0).options(options);
    vec![
        one("s1_1 open", &[syn(), ack(1, 1), ack(1, 1)]),
        one("s1_4 the SYN comes twice", &[syn(), syn(), ack(1, 1), data(1, 1, 5)]),
        one("s1_4 data completes the handshake", &[syn(), data(1, 1, 20)]),
        one("s1_4 FIN completes the handshake", &[syn(), fin(1, 1)]),
        one("s1_4 data and FIN complete the handshake", &[syn(), fin(1, 1).len(9)]),
        one("s1_2 RST answers an unexpected SYN-ACK", &[syn(), rst(1), ack(1, 1)]),
        one("s1_3 the handshake's ACK is wrong", &[syn(), ack(1, 2), ack(1, 1), data(1, 1, 1)]),
        one("s1_3 the handshake's ACK is old", &[syn(), ack(1, 0), ack(1, 1), data(1, 1, 1)]),
        one("s1_2 another SYN in SYN-RECEIVED", &[syn(), seg(crate::segment::SYN, 5000, 0), ack(1, 1)]),
        one("data in the SYN", &[syn().len(10), ack(1, 1), data(1, 1, 10)]),
        one("t17 no options", &[bare(&[]), ack(1, 1), data(1, 1, 5)]),
        one("t11 MSS 0", &[bare(&[2, 4, 0, 0]), ack(1, 1)]),
        one("s6_1 MSS, SACK and window scale", &[modern_syn(), ack(1, 1)]),
        one("s6_1 everything", &[modern_syn().timestamp(77), ack(1, 1).timestamp(78)]),
        one("t14 window scale 15", &[bare(&[3, 3, 15, 1]), ack(1, 1)]),
        one("t17 an option of length 0", &[bare(&[2, 4, 5, 0xb4, 99, 0, 0, 0]), ack(1, 1)]),
        one("t17 an option of length 1", &[bare(&[2, 4, 5, 0xb4, 99, 1, 0, 0]), ack(1, 1)]),
        one("t17 an option beyond the header", &[bare(&[2, 4, 5, 0xb4, 99, 40, 0, 0]), ack(1, 1)]),
        one("t17 an unknown option", &[bare(&[99, 4, 1, 2, 2, 4, 5, 0xb4]), ack(1, 1)]),
        one("t17 forty octets of NOP", &[bare(&[1; 40]), ack(1, 1)]),
        one("t17 MSS twice", &[bare(&[2, 4, 5, 0xb4, 2, 4, 1, 0]), ack(1, 1)]),
        one("t17 data offset below 5", &[syn().data_offset(4), syn()]),
        one("t17 data offset beyond the segment", &[syn().data_offset(15), syn()]),
        one("s4_5 a SYN with a wrong checksum", &[syn().with_bad_checksum(), syn()]),
        one("s1_5 an ACK to a listener", &[ack(1, 77_777)]),
    ]
}

fn data_in_order_and_not() -> Vec<Case> {
    let mut two = open(HOLD, "s5_5 two segments at once", &[]);
    two.steps.push(vec![data(1, 1, 100), data(101, 1, 100)]);
    let mut swapped = open(HOLD, "s5_5 two segments swapped", &[]);
    swapped.steps.push(vec![data(101, 1, 100), data(1, 1, 100)]);
    vec![
        two,
        swapped,
        open(
            HOLD,
            "s5_1 one segment after the other",
            &[data(1, 1, 100), data(101, 1, 1460), data(1561, 1, 1)],
        ),
        open(HOLD, "s5_5 a hole, and its filling", &[data(101, 1, 100), data(1, 1, 100)]),
        open(
            HOLD,
            "s5_5 two holes, and their filling",
            &[data(101, 1, 100), data(301, 1, 100), data(201, 1, 100), data(1, 1, 100)],
        ),
        open(HOLD, "s5_5 an exact duplicate", &[data(1, 1, 100), data(1, 1, 100)]),
        open(HOLD, "t13 an overlap at the front", &[data(1, 1, 100), data(51, 1, 100)]),
        open(HOLD, "t13 an overlap at the back", &[data(101, 1, 100), data(1, 1, 150)]),
        open(HOLD, "t13 a segment around another", &[data(51, 1, 50), data(1, 1, 300)]),
        open(HOLD, "t13 a segment within another", &[data(1, 1, 300), data(51, 1, 50)]),
        open(HOLD, "s5_5 FIN before the data", &[fin(101, 1), data(1, 1, 100)]),
        open(HOLD, "s5_5 FIN within the data", &[data(1, 1, 100), fin(51, 1).len(50)]),
        open(ECHO, "s5_1 echo", &[data(1, 1, 100), ack(101, 101), data(101, 101, 200), ack(301, 301)]),
        open(ECHO, "s5_5 echo of what came late", &[data(51, 1, 50), data(1, 1, 50), ack(101, 101)]),
        open(ECHO, "s2_2 echo and FIN at once", &[fin(1, 1).len(100), ack(102, 102)]),
        open(HOLD, "s4_5 data with a wrong checksum", &[data(1, 1, 10).with_bad_checksum(), data(1, 1, 10)]),
        open(HOLD, "s5_4 data across the window's edge", &[data(1 + (1 << 25), 1, 10), data(1, 1, 10)]),
        open_modern(
            HOLD,
            "s5_7 SACK of one hole",
            &[data(101, 1, 100).timestamp(1002), data(1, 1, 100).timestamp(1003)],
        ),
        open_modern(
            HOLD,
            "s5_7 SACK of two holes",
            &[
                data(101, 1, 100).timestamp(1002),
                data(301, 1, 100).timestamp(1003),
                data(501, 1, 100).timestamp(1004),
            ],
        ),
        open_modern(
            HOLD,
            "s5_7 DSACK of a duplicate",
            &[data(1, 1, 100).timestamp(1002), data(1, 1, 100).timestamp(1003)],
        ),
        open_modern(
            HOLD,
            "s5_7 DSACK above a hole",
            &[data(201, 1, 100).timestamp(1002), data(201, 1, 100).timestamp(1003)],
        ),
    ]
}

fn closing() -> Vec<Case> {
    vec![
        open(DISCARD, "s2_1 passive close", &[fin(1, 1), ack(2, 2), ack(2, 2)]),
        open(DISCARD, "s2_1 passive close, FIN again", &[fin(1, 1), fin(1, 1), ack(2, 2)]),
        open(CLOSER, "s2_1 active close", &[data(1, 1, 1), ack(2, 2), fin(2, 2), fin(2, 2)]),
        open(CLOSER, "s2_1 active close, FIN with the ACK", &[data(1, 1, 1), fin(2, 2), fin(2, 2)]),
        open(CLOSER, "s2_1 simultaneous close", &[data(1, 1, 1), fin(2, 1), ack(3, 2), ack(3, 2)]),
        open(CLOSER, "s2_2 data after the close", &[data(1, 1, 1), ack(2, 2), data(2, 2, 500), fin(502, 2)]),
        open(
            CLOSER,
            "s2_2 data before the FIN's ACK",
            &[data(1, 1, 1), data(2, 1, 500), data(502, 2, 1), fin(503, 2)],
        ),
        open(HOLD, "data after a FIN", &[fin(1, 1), data(2, 1, 10), data(1, 1, 10)]),
        open(HOLD, "s3_1 RST closes", &[rst(1), ack(1, 1)]),
        open(HOLD, "s3_1 RST with ACK closes", &[seg(crate::segment::RST | ACK, 1, 1), ack(1, 1)]),
        open(
            CLOSER,
            "s2_4 a new SYN in TIME-WAIT",
            &[data(1, 1, 1), ack(2, 2), fin(2, 2), syn_at(1_000_000)],
        ),
        open(CLOSER, "s2_4 an old SYN in TIME-WAIT", &[data(1, 1, 1), ack(2, 2), fin(2, 2), syn_at(-5)]),
    ]
}

fn syn_at(seq: i64) -> Seg {
    Seg { seq, ..syn() }
}

fn windows() -> Vec<Case> {
    let greet = |name: &str, first: Seg, more: &[Seg]| {
        let steps = [first, ack(1, 1)].into_iter().chain(more.iter().cloned()).map(|seg| vec![seg]);
        Case::new(name, GREETER, steps.collect())
    };
    // Four whole segments.
    let thousand = || syn().options(&[2, 4, 3, 0xe8]);
    let mut closed = greet("s5_3 a closed window is probed", thousand().window(1000), &[]);
    closed.steps[1] = vec![ack(1, 1).window(1000)];
    closed.steps.push(vec![ack(1, 1001).window(0)]);
    closed.steps.extend(pause(3));
    closed.steps.push(vec![ack(1, 1001).window(2000)]);
    let mut small = greet("s5_2 a small window", thousand().window(500), &[]);
    small.steps[1] = vec![ack(1, 1).window(500)];
    small.steps.push(vec![ack(1, 501).window(500)]);
    small.steps.push(vec![ack(1, 1001).window(60_000)]);
    vec![
        greet("s8_1 Nagle holds the small rest", syn(), &[ack(1, 1461), ack(1, 2921), ack(1, 4001)]),
        greet("s6_1 an MSS of 536 where none is told", seg(crate::segment::SYN, 0, 0), &[ack(1, 537)]),
        greet("s6_1 an MSS of 1000 is honoured", thousand(), &[ack(1, 2001)]),
        greet("s2_2 FIN while there is more to send", thousand(), &[fin(1, 2001), ack(2, 4002)]),
        closed,
        small,
        open(HOLD, "s3_2 a keepalive probe", &[ack(0, 1), data(1, 1, 5)]),
        open(HOLD, "s3_2 a keepalive probe with an octet", &[seg(ACK, 0, 1).len(1), data(1, 1, 5)]),
        open(HOLD, "s5_4 the window shrinks", &[ack(1, 1).window(10), ack(1, 1).window(0)]),
    ]
}

fn timestamps() -> Vec<Case> {
    vec![
        open_modern(
            HOLD,
            "t15 an old timestamp",
            &[data(1, 1, 10).timestamp(1010), data(11, 1, 10).timestamp(900)],
        ),
        open_modern(
            HOLD,
            "t15 an equal timestamp",
            &[data(1, 1, 10).timestamp(1010), data(11, 1, 10).timestamp(1010)],
        ),
        open_modern(HOLD, "t15 no timestamp", &[data(1, 1, 10).timestamp(1010), data(11, 1, 10)]),
        open_modern(
            HOLD,
            "t15 an old timestamp on a RST",
            &[data(1, 1, 10).timestamp(1010), rst(11).timestamp(900), data(11, 1, 1).timestamp(1011)],
        ),
        open_modern(HOLD, "t15 no timestamp on a RST", &[rst(1), data(1, 1, 1).timestamp(1011)]),
        open_modern(
            HOLD,
            "t15 an old timestamp on a FIN",
            &[data(1, 1, 10).timestamp(1010), fin(11, 1).timestamp(900)],
        ),
        open_modern(
            HOLD,
            "t15 timestamps wrap",
            &[data(1, 1, 10).timestamp(1001 + (1 << 30)), data(11, 1, 10).timestamp(1002 + (1 << 31))],
        ),
        open(HOLD, "t15 a timestamp that nobody agreed on", &[data(1, 1, 10).timestamp(1)]),
    ]
}

fn oddities() -> Vec<Case> {
    vec![
        open(HOLD, "s4_3 urgent data", &[data(1, 1, 10).urgent(5), data(11, 1, 10)]),
        open(HOLD, "t18 an urgent pointer of 0", &[data(1, 1, 10).urgent(0), data(11, 1, 10)]),
        open(
            HOLD,
            "t18 an urgent pointer beyond everything",
            &[data(1, 1, 10).urgent(65_535), data(11, 1, 10)],
        ),
        open(HOLD, "t18 an urgent pointer without data", &[ack(1, 1).urgent(3), data(1, 1, 10)]),
        open(ECHO, "t18 the octets stay in line", &[data(1, 1, 10).urgent(5), ack(11, 11)]),
        open(HOLD, "PSH alone", &[seg(PSH | ACK, 1, 1), data(1, 1, 1)]),
        open(HOLD, "t23 an ACK of what was never sent", &[data(1, 1000, 10), data(1, 1, 10)]),
        open(HOLD, "t16 FIN without ACK", &[seg(FIN, 1, 0), data(1, 1, 1)]),
        open(HOLD, "t16 data without ACK", &[seg(PSH, 1, 0).len(10), data(1, 1, 10)]),
        open(HOLD, "s4_1 reserved bits are ignored", &[Seg { data_offset: None, ..data(1, 1, 10) }]),
    ]
}
