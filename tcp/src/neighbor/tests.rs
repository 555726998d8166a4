//! A test for each rule of the table. L7.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::LearnedBy::{Answer, OtherCore, Request};
use super::Resolution::{Ask, Known, Unreachable, Wait};
use super::*;

const MAC: Station = Station { mac: MacAddr([2, 0, 0, 0, 0, 1]), vlan: VlanTags::NONE };
const OTHER: Station = Station { mac: MacAddr([2, 0, 0, 0, 0, 2]), vlan: VlanTags::NONE };

fn table(capacity: u32) -> NeighborTable {
    NeighborTable::new(capacity, [7; 16])
}

fn ip(host: u16) -> IpAddr {
    let [high, low] = host.to_be_bytes();
    IpAddr::from([10, 0, high, low])
}

fn s(seconds: u64) -> Instant {
    Instant::from_millis(seconds * 1000)
}

fn questions(table: &mut NeighborTable, now: Instant) -> Vec<Question> {
    let mut out = Vec::new();
    table.advance(now, |question| out.push(question));
    out
}

fn woken(table: &mut NeighborTable) -> Vec<u32> {
    let mut out = Vec::new();
    table.take_woken(&mut out);
    out
}

/// A table that asked for neighbour 1 at 0 s and had its answer.
fn resolved() -> NeighborTable {
    let mut table = table(32);
    assert_eq!(table.lookup(ip(1), None, s(0)), Ask);
    assert!(table.learned(ip(1), MAC, s(0), Answer));
    table
}

#[test]
fn a_question_its_answer_and_who_waited() {
    let mut table = table(32);
    assert_eq!(table.lookup(ip(1), None, s(0)), Ask);
    assert_eq!(table.lookup(ip(1), None, s(0)), Wait);
    assert!(table.wait(ip(1), 40) && table.wait(ip(1), 41) && table.wait(ip(1), 40));
    assert!(!table.wait(ip(2), 42), "nothing is being asked");
    assert_eq!(woken(&mut table), []);
    assert!(table.learned(ip(1), MAC, s(0), Answer));
    assert_eq!(woken(&mut table), [40, 41]);
    assert_eq!(woken(&mut table), []);
    assert_eq!(table.lookup(ip(1), None, s(0)), Known(MAC));
    assert!(!table.wait(ip(1), 43), "known");
}

#[test]
fn nine_wait_and_eight_are_woken() {
    let mut table = table(32);
    table.lookup(ip(1), None, s(0));
    let accepted: Vec<u32> = (0..9).filter(|&conn| table.wait(ip(1), conn)).collect();
    table.learned(ip(1), MAC, s(0), Answer);
    assert_eq!(woken(&mut table), accepted);
    assert_eq!(accepted.len(), MAX_WAITERS);
}

#[test]
fn three_questions_a_second_apart_then_unreachable_for_a_while() {
    let mut table = table(32);
    let question = [Question { ip: ip(1), probe: None, vlan: VlanTags::NONE }];
    assert_eq!(table.lookup(ip(1), None, s(0)), Ask);
    assert!(table.wait(ip(1), 5));
    assert_eq!(table.next_deadline(), s(1));
    assert_eq!(questions(&mut table, Instant::from_millis(999)), []);
    assert_eq!(questions(&mut table, s(1)), question);
    assert_eq!(questions(&mut table, Instant::from_millis(1500)), []);
    assert_eq!(questions(&mut table, s(2)), question);
    assert_eq!(woken(&mut table), []);
    assert_eq!(questions(&mut table, s(3)), []);
    assert_eq!(woken(&mut table), [5]);
    assert_eq!(table.next_deadline(), Instant::NEVER);
    assert_eq!(table.lookup(ip(1), None, s(3)), Unreachable);
    assert!(!table.wait(ip(1), 5));
    assert_eq!(table.lookup(ip(1), None, s(6)), Ask);

    // A late answer is one all the same.
    questions(&mut table, s(7));
    questions(&mut table, s(8));
    questions(&mut table, s(9));
    assert_eq!(table.lookup(ip(1), None, s(9)), Unreachable);
    assert!(table.learned(ip(1), MAC, s(9), Answer));
    assert_eq!(table.lookup(ip(1), None, s(9)), Known(MAC));
}

#[test]
fn a_stale_neighbor_is_used_then_probed_alone_then_asked_for_everywhere() {
    let mut table = resolved();
    let probe = [Question { ip: ip(1), probe: Some(MAC.mac), vlan: VlanTags::NONE }];
    assert_eq!(table.lookup(ip(1), None, s(29)), Known(MAC));
    assert_eq!(questions(&mut table, s(29)), []);
    assert_eq!(table.next_deadline(), Instant::NEVER, "reachable: nothing to do");
    assert_eq!(questions(&mut table, s(100)), [], "stale and unused: nothing to do");
    assert_eq!(table.lookup(ip(1), None, s(100)), Known(MAC));
    assert_eq!(table.next_deadline(), s(105));
    assert_eq!(questions(&mut table, s(104)), []);
    for second in [105, 106, 107] {
        assert_eq!(questions(&mut table, s(second)), probe);
        assert_eq!(table.lookup(ip(1), None, s(second)), Known(MAC));
    }
    assert_eq!(questions(&mut table, s(108)), [Question { ip: ip(1), probe: None, vlan: VlanTags::NONE }]);
    assert_eq!(table.lookup(ip(1), None, s(108)), Wait);
    // It has moved.
    assert!(table.learned(ip(1), OTHER, s(108), Answer));
    assert_eq!(table.lookup(ip(1), None, s(108)), Known(OTHER));
}

#[test]
fn a_probe_answered_ends_the_doubt() {
    let mut table = resolved();
    table.lookup(ip(1), None, s(31));
    assert_eq!(questions(&mut table, s(36)).len(), 1);
    assert!(table.learned(ip(1), MAC, s(36), Answer));
    assert_eq!(questions(&mut table, s(37)), []);
    assert_eq!(table.next_deadline(), Instant::NEVER);
}

#[test]
fn progress_of_a_connection_saves_the_probes() {
    let mut table = resolved();
    table.lookup(ip(1), None, s(31));
    table.confirm(ip(1), MAC.mac, s(32));
    table.confirm(ip(9), MAC.mac, s(32));
    assert_eq!(questions(&mut table, s(37)), []);
    assert_eq!(table.lookup(ip(1), None, s(61)), Known(MAC));
    assert_eq!(table.next_deadline(), Instant::NEVER, "reachable until 62 s");
    assert_eq!(table.len(), 1);
    // What isn't known can't be confirmed.
    assert_eq!(table.lookup(ip(2), None, s(61)), Ask);
    table.confirm(ip(2), MAC.mac, s(61));
    assert_eq!(table.lookup(ip(2), None, s(61)), Wait);
}

#[test]
fn l7_progress_with_one_station_confirms_no_other() {
    let mut table = resolved();
    assert!(table.learned(ip(1), OTHER, s(31), Answer), "stale, so the claim is taken");
    table.lookup(ip(1), None, s(31));
    table.confirm(ip(1), MAC.mac, s(32));
    assert_eq!(questions(&mut table, s(36)).len(), 1, "it is still in doubt");
}

#[test]
fn l7_an_unsolicited_answer_makes_no_entry() {
    let mut table = table(32);
    assert!(table.learned(ip(1), MAC, s(0), Answer), "another core may have asked");
    assert!(!table.learned(ip(1), MAC, s(0), OtherCore));
    assert!(table.is_empty());
}

#[test]
fn l7_an_unsolicited_answer_does_not_replace_a_fresh_entry_but_raises_a_question() {
    for by in [Answer, Request, OtherCore] {
        let mut table = resolved();
        table.learned(ip(1), OTHER, s(10), by);
        assert_eq!(table.lookup(ip(1), None, s(10)), Known(MAC), "{by:?}");
        assert_eq!(
            questions(&mut table, s(10)),
            [Question { ip: ip(1), probe: Some(MAC.mac), vlan: VlanTags::NONE }],
            "{by:?}"
        );
        assert!(table.learned(ip(1), MAC, s(10), Answer));
        // However many claims: no more than a question a second.
        for _ in 0..100 {
            table.learned(ip(1), OTHER, s(10), by);
            assert_eq!(questions(&mut table, s(10)), []);
        }
        assert_eq!(table.lookup(ip(1), None, s(10)), Known(MAC));
    }
}

#[test]
fn a_stale_entry_follows_a_neighbor_that_announces_its_move() {
    for by in [Answer, Request] {
        let mut table = resolved();
        assert!(table.learned(ip(1), OTHER, s(31), by));
        assert_eq!(table.lookup(ip(1), None, s(31)), Known(OTHER));
        // Not believed to be reachable: it is probed.
        assert_eq!(
            questions(&mut table, s(36)),
            [Question { ip: ip(1), probe: Some(OTHER.mac), vlan: VlanTags::NONE }]
        );
    }
}

#[test]
fn l7_a_gateway_is_not_replaced_by_a_claim_however_stale() {
    for by in [Answer, Request, OtherCore] {
        let mut table = table(32);
        assert!(table.pin(ip(1)));
        // Nor planted before we have asked.
        table.learned(ip(1), OTHER, s(0), by);
        assert_eq!(table.lookup(ip(1), None, s(0)), Ask);
        assert!(table.learned(ip(1), MAC, s(0), Answer));
        table.learned(ip(1), OTHER, s(500), by);
        assert_eq!(table.lookup(ip(1), None, s(500)), Known(MAC));
        // The old one is asked; when it is gone, everybody, and then the new one is believed.
        for (second, probe) in [(500, Some(MAC.mac)), (501, Some(MAC.mac)), (502, Some(MAC.mac)), (503, None)]
        {
            let question = Question { ip: ip(1), probe, vlan: VlanTags::NONE };
            assert_eq!(questions(&mut table, s(second)), [question]);
        }
        assert!(table.learned(ip(1), OTHER, s(503), Answer));
        assert_eq!(table.lookup(ip(1), None, s(503)), Known(OTHER));
    }
}

/// Whoever contradicts an entry raises a question; that he answers it himself must not help him.
#[test]
fn l7_a_stranger_does_not_answer_the_probe_he_provoked() {
    for pinned in [false, true] {
        let mut table = resolved();
        if pinned {
            table.pin(ip(1));
        }
        let Resolution::Known(station) = table.lookup(ip(1), None, s(5)) else { panic!("resolved") };
        let stranger = Station::new(MacAddr([2, 0x66, 0x66, 0x66, 0x66, 0x66]), VlanTags::NONE);
        // Several in one batch, before the timers run.
        for _ in 0..3 {
            assert!(
                !matches!(table.lookup(ip(1), None, s(5)), Resolution::Known(found) if found == stranger)
            );
            table.learned(ip(1), stranger, s(5), LearnedBy::Answer);
        }
        let question = Question { ip: ip(1), probe: Some(station.mac), vlan: VlanTags::NONE };
        assert_eq!(questions(&mut table, s(5)), [question]);
        for _ in 0..50 {
            table.learned(ip(1), stranger, s(5), LearnedBy::Answer);
        }
        assert_eq!(table.lookup(ip(1), None, s(5)), Resolution::Known(station));
        table.learned(ip(1), station, s(6), LearnedBy::Answer);
        assert_eq!(table.lookup(ip(1), None, s(6)), Resolution::Known(station));
    }
}

#[test]
fn a_request_for_us_makes_an_entry_that_is_probed_when_used() {
    let mut table = table(32);
    assert!(table.learned(ip(1), MAC, s(0), Request));
    assert!(!table.learned(ip(1), MAC, s(0), Request), "nothing new");
    assert_eq!(table.lookup(ip(1), None, s(0)), Known(MAC));
    assert_eq!(
        questions(&mut table, s(5)),
        [Question { ip: ip(1), probe: Some(MAC.mac), vlan: VlanTags::NONE }]
    );

    // It also answers a question of ours.
    assert_eq!(table.lookup(ip(2), None, s(5)), Ask);
    assert!(table.wait(ip(2), 3));
    assert!(table.learned(ip(2), OTHER, s(5), Request));
    assert_eq!(woken(&mut table), [3]);
    assert_eq!(table.lookup(ip(2), None, s(5)), Known(OTHER));
}

#[test]
fn answers_that_another_core_received_count() {
    let mut table = table(32);
    assert_eq!(table.lookup(ip(1), None, s(0)), Ask);
    table.wait(ip(1), 3);
    assert!(!table.learned(ip(1), MAC, s(0), OtherCore), "not to be passed on again");
    assert_eq!(woken(&mut table), [3]);
    assert_eq!(table.lookup(ip(1), None, s(0)), Known(MAC));
}

#[test]
fn l7_a_flood_of_answers_is_not_passed_on_without_bound() {
    let mut table = resolved();
    let told = |table: &mut NeighborTable, now| {
        (0..5000).filter(|&host| table.learned(ip(host), MAC, now, Answer)).count()
    };
    assert_eq!(told(&mut table, s(1)), 256);
    assert_eq!(told(&mut table, s(1)), 0);
    assert_eq!(told(&mut table, s(2)), 256);
    assert_eq!(table.len(), 1);
}

#[test]
fn claims_that_no_station_can_make() {
    let mut table = table(32);
    for address in ["0.0.0.0", "224.0.0.1", "::", "ff02::1"] {
        assert!(!table.learned(address.parse().unwrap(), MAC, s(0), Request), "{address}");
    }
    assert!(!table.learned(ip(1), Station::new(MacAddr::BROADCAST, VlanTags::NONE), s(0), Request));
    assert!(table.is_empty());
}

#[test]
fn the_longest_unused_gives_way_and_a_gateway_never() {
    let mut table = table(4);
    assert!(table.pin(ip(100)));
    for host in 1..=3 {
        table.lookup(ip(host), None, s(0));
        table.learned(ip(host), MAC, s(0), Answer);
    }
    for host in [2, 1, 3, 2] {
        table.lookup(ip(host), None, s(10));
    }
    assert_eq!(table.lookup(ip(4), None, s(20)), Ask);
    assert_eq!(table.len(), 4);
    assert_eq!(table.find(ip(1)), None);
    for host in [2, 3, 4, 100] {
        assert!(table.find(ip(host)).is_some(), "{host}");
    }
    for host in 0..1000 {
        table.lookup(ip(1000 + host), None, s(30 + u64::from(host)));
    }
    assert!(table.find(ip(100)).is_some());
    assert_eq!(table.len(), 4);
}

#[test]
fn l7_scans_do_not_push_out_neighbors_in_use() {
    let mut table = table(64);
    for host in 0..32 {
        table.lookup(ip(host), None, s(0));
        table.learned(ip(host), MAC, s(0), Answer);
    }
    // Spoofed sources on the link that never answer, and spoofed requests for us.
    for host in 1000..9000 {
        table.lookup(ip(host), None, s(1));
        table.learned(ip(host.wrapping_add(20_000)), OTHER, s(1), Request);
        assert!(table.len() <= 64);
    }
    let kept = (0..32).filter(|&host| table.find(ip(host)).is_some()).count();
    assert_eq!(kept, 32);
}

#[test]
fn l7_strangers_take_no_place_from_neighbors_in_use() {
    let mut table = table(8);
    for host in 0..8 {
        table.lookup(ip(host), None, s(0));
        table.learned(ip(host), MAC, s(0), Answer);
    }
    assert!(!table.learned(ip(100), OTHER, s(1), Request));
    assert_eq!(table.find(ip(100)), None);
    assert_eq!(table.lookup(ip(100), None, s(1)), Ask, "our own need does");
}

#[test]
fn an_evicted_question_wakes_who_waited() {
    let mut table = table(1);
    table.lookup(ip(1), None, s(0));
    assert!(table.wait(ip(1), 9));
    assert_eq!(table.lookup(ip(2), None, s(1)), Ask);
    assert_eq!(woken(&mut table), [9]);
    assert!(table.pin(ip(2)));
    assert_eq!(table.lookup(ip(3), None, s(2)), Unreachable, "all pinned");
}

#[test]
fn pins_are_bounded() {
    let mut table = table(64);
    assert!((0..16).all(|host| table.pin(ip(host)) && (host > 14 || table.pin(ip(host)))));
    assert!(!table.pin(ip(16)));
}

#[test]
fn both_families_share_the_table() {
    let mut table = table(32);
    let v6: IpAddr = "fe80::1".parse().unwrap();
    assert_eq!((table.lookup(v6, None, s(0)), table.lookup(ip(1), None, s(0))), (Ask, Ask));
    assert!(table.learned(v6, MAC, s(0), Answer) && table.learned(ip(1), OTHER, s(0), Answer));
    assert_eq!((table.lookup(v6, None, s(0)), table.lookup(ip(1), None, s(0))), (Known(MAC), Known(OTHER)));
}

#[derive(Clone, Debug)]
enum Op {
    Lookup(u16),
    Learned(u16, u8, LearnedBy),
    Wait(u16),
    Confirm(u16),
    Advance(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let host = 0_u16..24;
    let by = prop_oneof![Just(Answer), Just(Request), Just(OtherCore)];
    prop_oneof![
        4 => host.clone().prop_map(Op::Lookup),
        3 => (host.clone(), 1_u8..4, by).prop_map(|(host, mac, by)| Op::Learned(host, mac, by)),
        2 => host.clone().prop_map(Op::Wait),
        1 => host.prop_map(Op::Confirm),
        3 => (0_u64..8000).prop_map(Op::Advance),
    ]
}

/// Entries that the lists by rank show, each in the list it belongs to.
fn ranked(table: &NeighborTable) -> usize {
    let mut count = 0;
    for rank in 0..RANKS {
        let (mut index, mut older) = (table.oldest[rank], NONE);
        while index != NONE {
            let entry = &table.entries[index as usize];
            assert_eq!((entry.older, usize::from(entry.rank), entry.worth()), (older, rank, entry.rank));
            (older, index) = (index, entry.younger);
            count += 1;
        }
        assert_eq!(table.youngest[rank], older);
    }
    count
}

proptest! {
    /// Whatever happens: within bounds, gateways kept, nothing asked too often, and everybody who
    /// was told to wait is woken once.
    #[test]
    fn l7_invariants(ops in prop::collection::vec(op(), 1..200)) {
        let mut table = table(8);
        let (mut now, mut conn) = (0_u64, 0_u32);
        let mut waiting = BTreeSet::new();
        prop_assert!(table.pin(ip(0)));
        for op in &ops {
            let at = Instant::from_millis(now);
            match *op {
                Op::Lookup(host) => {
                    let result = table.lookup(ip(host), None, at);
                    prop_assert_eq!(table.lookup(ip(host), None, at), if result == Ask { Wait } else { result });
                }
                Op::Learned(host, mac, by) => {
                    table.learned(ip(host), Station::new(MacAddr([2, 0, 0, 0, 0, mac]), VlanTags::NONE), at, by);
                }
                Op::Wait(host) => {
                    if table.wait(ip(host), conn) {
                        prop_assert_eq!(table.lookup(ip(host), None, at), Wait);
                        waiting.insert(conn);
                    }
                    conn += 1;
                }
                Op::Confirm(host) => table.confirm(ip(host), MacAddr([2, 0, 0, 0, 0, 1]), at),
                Op::Advance(millis) => {
                    now += millis;
                    let at = Instant::from_millis(now);
                    let asked = questions(&mut table, at);
                    prop_assert!(asked.len() <= 8);
                    prop_assert_eq!(questions(&mut table, at), []);
                    prop_assert!(table.next_deadline() > at);
                }
            }
            for conn in woken(&mut table) {
                prop_assert!(waiting.remove(&conn));
            }
            prop_assert!(table.len() <= 8);
            prop_assert!(table.find(ip(0)).is_some());
            let found = (0..24).filter(|&host| table.find(ip(host)).is_some()).count();
            prop_assert_eq!(found, table.len() as usize);
            prop_assert_eq!(ranked(&table), found - 1);
        }
        // Every question is decided in the end.
        for _ in 0..8 {
            now += 1000;
            questions(&mut table, Instant::from_millis(now));
        }
        for conn in woken(&mut table) {
            prop_assert!(waiting.remove(&conn));
        }
        prop_assert!(waiting.is_empty());
    }
}

/// L9: a neighbour stays in its VLAN, whatever the priority of its frames; a move to another is a move.
#[test]
fn l9_a_neighbor_is_asked_and_answered_in_its_vlan() {
    let tagged = |tci: u16| {
        let mut vlan = VlanTags::NONE;
        assert!(vlan.push(crate::wire::ethernet::VlanTag { tpid: 0x8100, tci }));
        vlan
    };
    let mut table = table(32);
    // Asked where the connection is.
    assert_eq!(table.lookup(ip(1), Some(tagged(0xe007)), s(0)), Ask);
    let question = |probe| Question { ip: ip(1), probe, vlan: tagged(7) };
    assert_eq!(table.question(ip(1)), question(None));
    assert_eq!(questions(&mut table, s(1)), [question(None)]);
    let station = Station::new(MAC.mac, tagged(0x6007));
    assert!(table.learned(ip(1), station, s(1), Answer));
    assert_eq!(table.lookup(ip(1), None, s(2)), Known(Station { mac: MAC.mac, vlan: tagged(7) }));
    // The same with another priority is nothing new; in another VLAN it is doubted.
    table.learned(ip(1), Station::new(MAC.mac, tagged(0x0007)), s(3), Request);
    assert_eq!(questions(&mut table, s(3)), []);
    table.learned(ip(1), Station::new(MAC.mac, tagged(8)), s(3), Request);
    assert_eq!(questions(&mut table, s(3)), [question(Some(MAC.mac))]);
    assert_eq!(table.lookup(ip(1), None, s(3)), Known(station));
}
