use super::*;

const MS: Duration = Duration::from_millis(1);

fn frame(number: u32) -> Frame {
    let mut frame = vec![0; 60];
    frame[20..24].copy_from_slice(&number.to_be_bytes());
    frame
}

fn number(frame: &Frame) -> u32 {
    u32::from_be_bytes(*frame[20..].first_chunk().unwrap())
}

/// Sends frames numbered from 0 one per millisecond: the numbers that came out, with the time of each.
fn send(lane: &mut Lane, frames: u32) -> Vec<(Duration, u32)> {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let mut release = |lane: &mut Lane, now| {
        lane.release(now, &mut seen);
        out.extend(seen.drain(..).map(|frame| (now, number(&frame))));
    };
    for at in 0..frames {
        while let Some(next) = lane.next().filter(|next| *next < MS * at) {
            release(lane, next);
        }
        lane.accept(frame(at), MS * at);
        release(lane, MS * at);
    }
    while let Some(next) = lane.next() {
        release(lane, next);
    }
    out
}

fn numbers(out: &[(Duration, u32)]) -> Vec<u32> {
    out.iter().map(|(_, number)| *number).collect()
}

#[test]
fn by_default_frames_pass_at_once_and_in_order() {
    let mut lane = Lane::new(&ImpairOptions::default(), 0);
    let expected: Vec<_> = (0..100).map(|at| (MS * at, at)).collect();
    assert_eq!(send(&mut lane, 100), expected);
    assert_eq!(lane.counts, Counts { received: 100, ..Counts::default() });
}

#[test]
fn the_same_seed_does_the_same_and_directions_differ() {
    let options = ImpairOptions {
        loss: 0.1,
        duplicate: 0.1,
        reorder: 0.1,
        corrupt: 0.1,
        delay: 20 * MS,
        jitter: 5 * MS,
        ..ImpairOptions::default()
    };
    let run = |options: &ImpairOptions, direction| send(&mut Lane::new(options, direction), 1000);
    assert_eq!(run(&options, 0), run(&options, 0));
    assert_ne!(run(&options, 0), run(&options, 1));
    assert_ne!(run(&options, 0), run(&ImpairOptions { seed: 2, ..options }, 0));
}

#[test]
fn each_chance_comes_as_often_as_asked_for() {
    let options = ImpairOptions {
        loss: 0.05,
        duplicate: 0.04,
        reorder: 0.03,
        corrupt: 0.02,
        ..ImpairOptions::default()
    };
    let mut lane = Lane::new(&options, 0);
    send(&mut lane, 100_000);
    let Counts { lost, duplicated, reordered, corrupted, .. } = lane.counts;
    // Of 100,000, less those lost; five standard deviations are below 350.
    for (count, expected) in [(lost, 5000), (duplicated, 3800), (reordered, 2850), (corrupted, 1900)] {
        assert!(count.abs_diff(expected) < 350, "{count} for {expected}: {}", lane.counts);
    }
}

#[test]
fn more_loss_loses_the_same_frames_and_more() {
    let run =
        |loss| numbers(&send(&mut Lane::new(&ImpairOptions { loss, ..ImpairOptions::default() }, 0), 1000));
    let (little, much) = (run(0.05), run(0.3));
    assert!(much.iter().all(|number| little.contains(number)));
    assert!(much.len() < little.len());
}

#[test]
fn certain_loss_lets_nothing_pass() {
    let mut lane = Lane::new(&ImpairOptions { loss: 1.0, ..ImpairOptions::default() }, 0);
    assert_eq!(send(&mut lane, 100), []);
    assert_eq!(lane.counts.lost, 100);
}

#[test]
fn a_duplicate_arrives_twice() {
    let mut lane = Lane::new(&ImpairOptions { duplicate: 1.0, ..ImpairOptions::default() }, 0);
    assert_eq!(numbers(&send(&mut lane, 3)), [0, 0, 1, 1, 2, 2]);
}

#[test]
fn a_reordered_frame_is_overtaken_by_three() {
    let mut lane = Lane::new(&ImpairOptions::default(), 0);
    let mut out = Vec::new();
    lane.options.reorder = 1.0;
    lane.accept(frame(0), Duration::ZERO);
    lane.options.reorder = 0.0;
    for at in 1..=4 {
        lane.accept(frame(at), Duration::ZERO);
    }
    lane.release(Duration::ZERO, &mut out);
    assert_eq!(out.iter().map(number).collect::<Vec<_>>(), [1, 2, 3, 0, 4]);
}

#[test]
fn a_reordered_frame_that_nothing_follows_is_not_lost() {
    let mut lane = Lane::new(&ImpairOptions { reorder: 1.0, ..ImpairOptions::default() }, 0);
    assert_eq!(send(&mut lane, 1), [(HELD_AT_MOST, 0)]);
    assert_eq!(lane.next(), None);
}

#[test]
fn corruption_flips_one_bit_behind_the_ethernet_header() {
    let mut lane = Lane::new(&ImpairOptions { corrupt: 1.0, ..ImpairOptions::default() }, 0);
    let mut out = Vec::new();
    for _ in 0..10_000 {
        lane.accept(vec![0; 60], Duration::ZERO);
    }
    lane.release(Duration::ZERO, &mut out);
    let mut hit = [0; 60];
    for frame in &out {
        assert_eq!(frame.iter().map(|octet| octet.count_ones()).sum::<u32>(), 1);
        hit[frame.iter().position(|octet| *octet != 0).unwrap()] += 1;
    }
    assert!(hit[..ETHERNET_HEADER].iter().all(|count| *count == 0));
    assert!(hit[ETHERNET_HEADER..].iter().all(|count| *count > 0));
}

#[test]
fn a_frame_of_nothing_but_a_header_is_not_corrupted() {
    assert!(!flip(&mut [0; 14], 0.99));
    assert!(!flip(&mut [0; 3], 0.0));
}

#[test]
fn delay_and_jitter_are_kept_to() {
    let options = ImpairOptions { delay: 20 * MS, jitter: 5 * MS, ..ImpairOptions::default() };
    let out = send(&mut Lane::new(&options, 0), 1000);
    assert_eq!(out.len(), 1000);
    for (at, number) in out {
        let took = at - MS * number;
        assert!((15 * MS..=25 * MS).contains(&took), "{took:?}");
    }
}

#[test]
fn jitter_above_the_delay_never_goes_back_in_time() {
    let options = ImpairOptions { delay: MS, jitter: 5 * MS, ..ImpairOptions::default() };
    assert!(send(&mut Lane::new(&options, 0), 1000).iter().all(|(at, number)| *at >= MS * *number));
}

#[test]
fn the_line_takes_its_time_and_its_queue_overflows() {
    // 60 octets at 48 kbit/s are 10 ms each; frames come every millisecond.
    let options = ImpairOptions { rate_bits: Some(48_000), queue_packets: 5, ..ImpairOptions::default() };
    let mut lane = Lane::new(&options, 0);
    let out = send(&mut lane, 100);
    for pair in out.windows(2) {
        assert_eq!(pair[1].0 - pair[0].0, 10 * MS);
    }
    // Five wait, and nine more have found room when one had left.
    assert_eq!((out.len(), lane.counts.overflowed), (14, 86));
}

#[test]
fn a_queue_of_octets_takes_no_more_of_them() {
    let options =
        ImpairOptions { rate_bits: Some(48_000), queue_octets: Some(200), ..ImpairOptions::default() };
    let mut lane = Lane::new(&options, 0);
    for octets in [60, 60, 100, 80, 20, 60] {
        lane.accept(vec![0; octets], Duration::ZERO);
    }
    // 60 + 60 + 80 are 200.
    assert_eq!((lane.waiting, lane.counts.overflowed), (200, 3));
    let mut out = Vec::new();
    lane.release(Duration::from_secs(1), &mut out);
    assert_eq!(out.iter().map(Vec::len).collect::<Vec<_>>(), [60, 60, 80]);
    lane.accept(vec![0; 200], Duration::from_secs(1));
    assert_eq!((lane.waiting, lane.counts.overflowed), (200, 3), "what has left makes room");
}

/// The sum of all 16-bit words of a header whose checksum is right.
fn folded(octets: &[u8]) -> u32 {
    let sum = octets.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
    (sum & 0xffff) + (sum >> 16)
}

#[test]
fn s4_2_only_packets_of_an_ecn_capable_transport_are_marked() {
    for (codepoint, marked) in [(0, false), (1, true), (2, true), (3, true)] {
        let mut four = vec![0; 14 + 20];
        four[12] = 8;
        four[14..34].copy_from_slice(&[
            0x45, 0xb8, 0, 20, 0x1c, 0x46, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2,
        ]);
        four[15] |= codepoint;
        let checksum = !(folded(&four[14..]) as u16);
        four[24..26].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(mark(&mut four), marked);
        assert_eq!(four[15], 0xb8 | if marked { 3 } else { 0 });
        assert_eq!(folded(&four[14..]), 0xffff);

        let mut six = vec![0; 14 + 40];
        six[12..14].copy_from_slice(&[0x86, 0xdd]);
        six[14..16].copy_from_slice(&[0x6b, 0x8f | codepoint << 4]);
        assert_eq!(mark(&mut six), marked);
        assert_eq!(six[15], 0x8f | if marked { 0x30 } else { 0 });
    }
    for len in [0, 13, 14, 15, 25] {
        let mut short = vec![0xff; len];
        short.iter_mut().skip(12).take(2).zip([8, 0]).for_each(|(to, from)| *to = from);
        assert!(!mark(&mut short), "{len} octets");
    }
}

#[test]
fn s4_2_marks_begin_where_the_queue_is_long() {
    let options =
        ImpairOptions { rate_bits: Some(48_000), mark_octets: Some(150), ..ImpairOptions::default() };
    let mut lane = Lane::new(&options, 0);
    let mut capable = frame(0);
    capable[12..14].copy_from_slice(&[8, 0]);
    capable[15] = 2;
    for _ in 0..5 {
        lane.accept(capable.clone(), Duration::ZERO);
    }
    // The fourth finds 180 octets before it.
    assert_eq!((lane.counts.marked, lane.counts.overflowed), (2, 0));
}
