//! Filters by what they take and refuse.

use super::*;

/// A TCP segment with room for a tag; ends as `192.0.2.2:4000 192.0.2.1:80`.
fn frame(tags: usize, protocol: u8, ends: &str) -> Vec<u8> {
    let ends: Vec<SocketAddr> = ends.split(' ').map(|end| end.parse().expect("an end")).collect();
    let mut frame = vec![0x02; 12];
    for _ in 0..tags {
        frame.extend([0x81, 0x00, 0x00, 0x07]);
    }
    match (ends[0].ip(), ends[1].ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([0x08, 0x00, 0x46, 0, 0, 60, 0, 0, 0, 0, 64, protocol, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
            frame.extend([1, 1, 1, 1]);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, protocol, 64]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => panic!("one family"),
    }
    frame.extend(ends[0].port().to_be_bytes());
    frame.extend(ends[1].port().to_be_bytes());
    frame.extend([0; 16]);
    frame
}

fn arp(sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![0xff; 12];
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2]);
    frame.extend(sender);
    frame.extend([0; 6]);
    frame.extend(target);
    frame
}

fn filter(text: &str) -> Filter {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn s4_6_filters_take_what_they_say() {
    let to_us = frame(0, TCP, "192.0.2.2:4000 192.0.2.1:80");
    let from_us = frame(1, TCP, "192.0.2.1:80 192.0.2.2:4000");
    let six = frame(2, TCP, "[2001:db8::2]:4000 [2001:db8::1]:443");
    let udp = frame(0, UDP, "192.0.2.9:53 192.0.2.1:5353");
    let ping = frame(0, ICMP, "192.0.2.2:0 192.0.2.1:0");
    let who_has = arp([192, 0, 2, 2], [192, 0, 2, 1]);
    let all = [&to_us, &from_us, &six, &udp, &ping, &who_has];
    for (text, expected) in [
        ("tcp", "111..."),
        ("ip", "11.11."),
        ("ip6", "..1..."),
        ("arp", ".....1"),
        ("icmp", "....1."),
        ("icmp6", "......"),
        ("udp", "...1.."),
        ("port 80", "11...."),
        (":80", "11...."),
        ("src port 80", ".1...."),
        ("sport = :80", ".1...."),
        ("dport eq 80", "1....."),
        ("tcp dst port 80", "1....."),
        ("udp port 80", "......"),
        ("portrange 50-443", "1111.."),
        ("host 192.0.2.2", "11..11"),
        ("192.0.2.2", "11..11"),
        ("src host 192.0.2.2", "1...11"),
        ("dst 192.0.2.2", ".1...."),
        ("dst 192.0.2.2:4000", ".1...."),
        ("192.0.2.2:80", "......"),
        ("192.0.2.2:4000", "11...."),
        ("[2001:db8::1]:443", "..1..."),
        ("host 2001:db8::1", "..1..."),
        ("src net 2001:db8::/32", "..1..."),
        ("net 192.0.2.8/29", "...1.."),
        ("dst 192.0.2.0/30", "11.111"),
        ("net 0.0.0.0/0", "11.111"),
        ("not tcp", "...111"),
        ("!(tcp or arp)", "...11."),
        ("! tcp && ! arp", "...11."),
        ("tcp and port 80 and src host 192.0.2.1", ".1...."),
        ("(port 443 or icmp) and not host 192.0.2.2", "..1..."),
        ("port 443||port 53||arp", "..11.1"),
        ("not (not tcp and not udp)", "1111.."),
        ("arp host 192.0.2.1", ".....1"),
    ] {
        let filter = filter(text);
        let taken: String =
            all.iter().map(|frame| if filter.accepts_frame(frame) { '1' } else { '.' }).collect();
        assert_eq!(taken, expected, "{text}");
    }
}

#[test]
fn s4_6_mistakes_are_placed() {
    for (text, place, words) in [
        ("", 1, "ends where"),
        ("port", 5, "ends where a port"),
        ("port http", 6, "'http' is no port"),
        ("port 65536", 6, "no port"),
        ("tcp and", 8, "ends where"),
        ("tcp or udp and ip", 12, "parentheses"),
        ("(tcp", 5, "')'"),
        ("(tcp udp)", 6, "but ')'"),
        ("tcp )", 5, "not expected"),
        ("tcp 80", 5, "'80' is not expected"),
        ("80", 1, "'port 80'"),
        ("host nosuch", 6, "no IP address"),
        ("net 192.0.2.0/33", 5, "no network"),
        ("net 192.0.2.0", 5, "no network"),
        ("portrange 9-8", 11, "no range"),
        ("tpc", 1, "no primitive"),
        ("tcp & udp", 5, "'&' is not expected"),
        ("src", 4, "ends where"),
        ("hôst 1", 1, "no primitive"),
    ] {
        let error = text.parse::<Filter>().expect_err(text).to_string();
        assert!(error.starts_with(&format!("filter, character {place}: ")), "{text}: {error}");
        assert!(error.contains(words), "{text}: {error}");
    }
}

/// D13: whatever is asked, a frame is judged by a bounded number of tests.
#[test]
fn d13_filters_are_bounded() {
    let many = |n: usize| vec!["port 1"; n].join(" or ");
    assert_eq!(filter(&many(TESTS_MAX)).steps.len(), TESTS_MAX);
    assert!(many(TESTS_MAX + 1).parse::<Filter>().expect_err("long").to_string().contains("64 tests"));
    let deep = |n: usize| "(".repeat(n) + "tcp" + &")".repeat(n);
    filter(&deep(DEPTH_MAX - 1));
    assert!(deep(DEPTH_MAX).parse::<Filter>().expect_err("deep").to_string().contains("deep"));
    assert!(" ".repeat(TEXT_MAX + 1).parse::<Filter>().expect_err("long").to_string().contains("octets"));
    for step in &filter("not ((tcp or udp) and (port 1 or port 2)) or arp").steps {
        let place = filter("not ((tcp or udp) and (port 1 or port 2)) or arp");
        let place = place.steps.iter().position(|other| other == step).expect("itself") as u8;
        assert!([step.yes, step.no].iter().all(|&to| to >= REJECT || to < place), "never back");
    }
}

/// Frames that end anywhere are judged by what there is of them.
#[test]
fn no_frame_is_too_short() {
    let filter = filter("tcp port 80 or host 2001:db8::1 or arp host 192.0.2.1");
    for whole in [
        frame(2, TCP, "192.0.2.2:4000 192.0.2.1:80"),
        frame(0, TCP, "[2001:db8::2]:4000 [2001:db8::1]:443"),
        arp([192, 0, 2, 2], [192, 0, 2, 1]),
    ] {
        let taken = (0..=whole.len()).filter(|&len| filter.accepts_frame(&whole[..len])).count();
        assert!(taken > 0 && taken < whole.len());
    }
    let mut fragment = frame(0, TCP, "192.0.2.2:4000 192.0.2.1:80");
    fragment[21] = 1;
    assert!(!super::Filter::from_str("port 80").expect("parses").accepts_frame(&fragment), "no ports");
}

#[test]
fn connections_are_taken_by_the_same_words() {
    let fields = Fields::of_connection(
        "192.0.2.1:80".parse().expect("an end"),
        "192.0.2.2:4000".parse().expect("an end"),
    );
    for (text, taken) in [
        ("sport = :80", true),
        ("dport = :80", false),
        ("( sport = :80 or sport = :443 ) and dst 192.0.2.0/24", true),
        ("src 192.0.2.2", false),
        ("tcp", true),
        ("ip6", false),
    ] {
        assert_eq!(filter(text).accepts(&fields), taken, "{text}");
    }
}
