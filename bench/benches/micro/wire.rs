//! Reading a received TCP frame, checksums included, and the checksum by itself; beside them what etherparse and
//! internet-checksum make of the same octets.

use std::hint::black_box;

use byway_tcp::flow_table::FourTuple;
use byway_tcp::seq::SeqNumber;
use byway_tcp::wire::tcp::{Emit, Flags, Options};
use byway_tcp::wire::{Checksums, MacAddr, checksum, ethernet, ip, parse};
use criterion::{BenchmarkId, Criterion, Throughput};
use etherparse::{NetSlice, SlicedPacket, TransportSlice, checksum::Sum16BitWords};

const HEADROOM: usize = 128;

/// A frame with `payload` octets of data; with timestamps it is what most segments look like.
fn frame(tuple: &FourTuple, payload: usize, timestamps: bool) -> Vec<u8> {
    let end = HEADROOM + payload;
    let mut frame: Vec<u8> = (0..end).map(|at| at as u8).collect();
    let options = Options { timestamps: timestamps.then_some((1, 2)), ..Options::NONE };
    let header = Emit {
        src_port: tuple.remote_port,
        dst_port: tuple.local_port,
        seq: SeqNumber(1),
        ack: SeqNumber(2),
        flags: Flags::ACK | Flags::PSH,
        window: 501,
        urgent: 0,
        options: &options,
    };
    let start = header.emit(&mut frame, HEADROOM..end, tuple.remote_ip, tuple.local_ip);
    let start = ip::emit(&mut frame, start, end, tuple.remote_ip, tuple.local_ip, ip::TCP, 0);
    let link = ethernet::Header {
        dst: MacAddr([2, 0, 0, 0, 0, 1]),
        src: MacAddr([2, 0, 0, 0, 0, 2]),
        vlan: ethernet::VlanTags::NONE,
        ethertype: if tuple.remote_ip.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 },
    };
    let start = link.emit(&mut frame, start);
    frame.split_off(start)
}

/// What `parse` asks of a frame, as far as etherparse knows it: sizes that fit each other, and right checksums.
fn etherparse_accepts(frame: &[u8]) -> bool {
    let Ok(SlicedPacket { net: Some(net), transport: Some(TransportSlice::Tcp(tcp)), .. }) =
        SlicedPacket::from_ethernet(frame)
    else {
        return false;
    };
    let expected = match &net {
        NetSlice::Ipv4(ipv4) => {
            let header = ipv4.header();
            if header.to_header().calc_header_checksum() != header.header_checksum() {
                return false;
            }
            tcp.calc_checksum_ipv4(header.source(), header.destination())
        }
        NetSlice::Ipv6(ipv6) => tcp.calc_checksum_ipv6(ipv6.header().source(), ipv6.header().destination()),
        NetSlice::Arp(_) => return false,
    };
    expected == Ok(tcp.checksum())
}

pub(crate) fn bench(c: &mut Criterion) {
    let tuple = |local: &str, remote: &str| FourTuple {
        local_ip: local.parse().expect("address"),
        remote_ip: remote.parse().expect("address"),
        local_port: 80,
        remote_port: 50_000,
    };
    let v4 = tuple("10.0.0.1", "198.18.0.1");
    let v6 = tuple("2001:db8::1", "2001:db8:7:8:9:a:b:c");

    let mut group = c.benchmark_group("parse");
    // Full frames are without options: with them, 1460 octets don't fit an MTU of 1500 (1440 in IPv6).
    let cases = [
        ("ipv4", v4, 64, true),
        ("ipv4", v4, 1460, false),
        ("ipv6", v6, 64, true),
        ("ipv6", v6, 1440, false),
    ];
    for (family, tuple, payload, timestamps) in cases {
        let frame = frame(&tuple, payload, timestamps);
        assert!(parse(&frame, Checksums::Verify).is_ok());
        group.throughput(Throughput::Elements(1));
        group.bench_with_input(BenchmarkId::new(family, payload), &frame, |b, frame| {
            b.iter(|| parse(black_box(frame), Checksums::Verify));
        });
        assert!(etherparse_accepts(&frame));
        group.bench_with_input(
            BenchmarkId::new(format!("etherparse {family}"), payload),
            &frame,
            |b, frame| {
                b.iter(|| etherparse_accepts(black_box(frame)));
            },
        );
        group.bench_with_input(
            BenchmarkId::new(format!("etherparse {family}, checksums not looked at"), payload),
            &frame,
            |b, frame| b.iter(|| SlicedPacket::from_ethernet(black_box(frame)).is_ok()),
        );
    }
    group.finish();

    let mut group = c.benchmark_group("checksum");
    for len in [64, 1460] {
        let octets: Vec<u8> = (0..len).map(|at| (at * 7) as u8).collect();
        group.throughput(Throughput::Bytes(len));
        group.bench_with_input(BenchmarkId::from_parameter(len), &octets, |b, octets| {
            b.iter(|| checksum::finish(checksum::sum(black_box(octets))));
        });
        let etherparse = |octets: &[u8]| Sum16BitWords::new().add_slice(octets).ones_complement().to_be();
        let ours = checksum::finish(checksum::sum(&octets));
        assert_eq!((etherparse(&octets), internet_checksum::checksum(&octets)), (ours, ours.to_be_bytes()));
        group.bench_with_input(BenchmarkId::new("etherparse", len), &octets, |b, octets| {
            b.iter(|| etherparse(black_box(octets)));
        });
        group.bench_with_input(BenchmarkId::new("internet-checksum", len), &octets, |b, octets| {
            b.iter(|| internet_checksum::checksum(black_box(octets)));
        });
    }
    group.finish();
}
