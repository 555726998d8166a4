//! Segment in → application → segment out: 64 octets echoed through `Stack<HeapMemory>`, in ns per
//! request, with 1 connection to a million established, in batches of 1 and 64. What is measured, and what isn't: see
//! [`byway_bench::echo`].

use byway_bench::echo::Bench;
use criterion::{BenchmarkId, Criterion, Throughput};

pub(crate) fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("echo/byway");
    group.throughput(Throughput::Elements(1));
    for connections in [1, 1_000, 100_000, 1_000_000] {
        let mut bench = None;
        for batch in [1, 64] {
            let id = BenchmarkId::new(format!("{connections} connections"), format!("batch {batch}"));
            group.bench_function(id, |b| {
                let bench = bench.get_or_insert_with(|| Bench::new(connections));
                b.iter_custom(|requests| bench.run(batch, requests));
            });
        }
    }
    group.finish();
}
