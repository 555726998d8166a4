//! Finding a segment's connection among 1 to 1,000,000, in an order that no prefetcher guesses.
//!
//! The tuples lie side by side here, 38 octets each. In the stack they lie in the connections, so that a
//! hit there costs the same cache misses, which the connection's other fields then share.

use std::hint::black_box;

use byway_bench::Shuffled;
use byway_bench::client::Client;
use byway_tcp::flow_table::{FlowTable, FourTuple, HashKey};
use criterion::{BenchmarkId, Criterion, Throughput};

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("flow_table");
    group.throughput(Throughput::Elements(1));
    for entries in [1, 1_000, 100_000, 1_000_000] {
        let tuples: Vec<FourTuple> = (0..entries).map(Client::tuple).collect();
        let of = |slot: u32| &tuples[slot as usize];
        let mut table = FlowTable::new(HashKey(*b"sixteen octets ."), entries);
        for (slot, tuple) in tuples.iter().enumerate() {
            assert!(table.insert(tuple, slot as u32, of));
        }

        let mut numbers = Shuffled::new(entries);
        group.bench_function(BenchmarkId::new("hit", entries), |b| {
            b.iter(|| {
                let number = numbers.draw();
                let tuple = Client::tuple(number);
                let found = table.find(table.hash(&tuple), |slot| *of(slot) == tuple);
                assert_eq!(found, Some(number));
            });
        });
        group.bench_function(BenchmarkId::new("miss", entries), |b| {
            b.iter(|| {
                let number = numbers.draw();
                let tuple = Client::tuple(black_box(number) + entries);
                let found = table.find(table.hash(&tuple), |slot| *of(slot) == tuple);
                assert_eq!(found, None);
            });
        });
    }
    group.finish();
}
