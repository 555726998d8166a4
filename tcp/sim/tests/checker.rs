//! The checker finds what is wrong: each fault, put in on purpose, is reported as what it is.

use byway_sim::fault::Fault;
use byway_sim::{Options, one};

/// What `fault` is reported as, over some seeds.
fn reports(fault: Fault) -> Vec<String> {
    let options = Options { fault: Some(fault), ..Options::default() };
    (0..40).filter_map(|seed| one(seed, &options, &mut ()).err()).map(|failure| failure.why).collect()
}

/// Most seeds show the fault, and every one that does calls it by its name.
fn assert_found(fault: Fault, least: usize, words: &[&str]) {
    let reports = reports(fault);
    assert!(reports.len() >= least, "{fault:?} was found in {} of 40 seeds: {reports:#?}", reports.len());
    for why in reports {
        assert!(words.iter().any(|word| why.contains(word)), "{fault:?} was reported as {why}");
    }
}

/// S5.5: a single wrong octet.
#[test]
fn s5_5_a_flipped_octet_is_found() {
    assert_found(Fault::FlipOctet, 36, &["octet 0 is not what was sent"]);
}

/// P3: one frame that doesn't come back.
#[test]
fn p3_a_leaked_frame_is_found() {
    assert_found(Fault::LeakFrame, 40, &["frames are TxRing's, which has", "frames not free at the end"]);
}

/// L1: one frame that nobody counted.
#[test]
fn l1_an_uncounted_discard_is_found() {
    assert_found(Fault::UncountedDiscard, 40, &["frames and octets in and out"]);
}

/// S3.2: ACKs that never arrive any more end connections that should have finished.
#[test]
fn s3_2_lost_acknowledgements_are_found() {
    assert_found(Fault::DropAcks, 4, &["ended wrongly", "stuck", "longer in its state"]);
}

/// S2.3: a connection that nobody closes.
#[test]
fn s2_3_a_connection_that_is_held_is_found() {
    assert_found(Fault::HoldConnection, 36, &["stuck", "ended wrongly"]);
}

/// T9: too much is said for what there is to say.
#[test]
fn t9_an_ack_storm_is_found() {
    assert_found(Fault::AckStorm, 10, &["livelock", "times what was needed", "pure ACKs, and"]);
}

/// S5.1: an acknowledgement of what isn't there.
#[test]
fn s5_1_an_acknowledgement_too_far_is_found() {
    assert_found(Fault::AckUnseen, 36, &["acknowledgement of what has not arrived"]);
}

/// S5.1 S5.2: numbers that nobody granted.
#[test]
fn s5_2_text_beyond_the_window_is_found() {
    assert_found(Fault::Overrun, 36, &["beyond the window", "leaves a gap"]);
}

/// S5.2, RFC 9293 §3.8.6 (SHLD-14).
#[test]
fn s5_2_a_window_that_shrinks_is_found() {
    assert_found(Fault::ShrinkWindow, 36, &["right edge moves left"]);
}

/// P1: a panic is a seed's result, not the end of the program.
#[test]
fn p1_a_panic_is_found() {
    assert_found(Fault::Panic, 40, &["panic: "]);
}
