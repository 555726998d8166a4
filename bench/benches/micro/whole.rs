//! The whole stack with an application, in ns: per request echoed with 1 connection to a million established,
//! per connection opened, used and closed, and per full segment of a bulk transfer. How each is measured stands
//! in `bench/src`.

use byway_bench::bulk::{Receiving, SEGMENT, Sending};
use byway_bench::connections::Connections;
use byway_bench::exchange::Exchanges;
use criterion::{BenchmarkId, Criterion, Throughput};

pub(crate) fn bench_echo(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo/byway");
    group.throughput(Throughput::Elements(1));
    for connections in [1, 1_000, 100_000, 1_000_000] {
        let mut echoes = None;
        for batch in [1, 64] {
            let id = BenchmarkId::new(format!("{connections} connections"), format!("batch {batch}"));
            group.bench_function(id, |b| {
                let echoes = echoes.get_or_insert_with(|| Exchanges::echo(connections));
                b.iter_custom(|requests| echoes.run(batch, requests));
            });
        }
    }
    group.finish();
}

pub(crate) fn bench_hello(c: &mut Criterion) {
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    let mut exchanges = None;
    group.bench_function("64 connections/batch 64", |b| {
        let exchanges = exchanges.get_or_insert_with(|| Exchanges::hello(64));
        b.iter_custom(|requests| exchanges.run(64, requests));
    });
    group.finish();
}

pub(crate) fn bench_connections(c: &mut Criterion) {
    let mut group = c.benchmark_group("connection");
    group.throughput(Throughput::Elements(1));
    let mut connections = None;
    group.bench_function("open, request and response, close", |b| {
        let connections = connections.get_or_insert_with(Connections::default);
        b.iter_custom(|count| connections.run(count));
    });
    group.finish();
}

pub(crate) fn bench_bulk(c: &mut Criterion) {
    let mut group = c.benchmark_group("bulk");
    group.throughput(Throughput::Bytes(SEGMENT as u64));
    let (mut receiving, mut sending) = (None, None);
    group.bench_function("receive", |b| {
        let receiving = receiving.get_or_insert_with(Receiving::default);
        b.iter_custom(|segments| receiving.run(segments));
    });
    group.bench_function("send", |b| {
        let sending = sending.get_or_insert_with(Sending::default);
        b.iter_custom(|segments| sending.run(segments));
    });
    group.finish();
}
