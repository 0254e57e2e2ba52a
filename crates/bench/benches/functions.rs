//! The functions of the hot path, by criterion: for looking at one of them closely, and at what a change did to it.
//! Ratios beside their limits come from `farthing-bench functions`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use farthing_bench::functions::{FUNCTIONS, LIMITS, Work};

fn functions(criterion: &mut Criterion) {
    let work = Work::new();
    let mut group = criterion.benchmark_group("functions");
    group.throughput(Throughput::Elements(1));
    let ours = FUNCTIONS.iter().map(|(name, function, _)| (name, function));
    for (name, function) in ours.chain(LIMITS.iter().map(|(name, function)| (name, function))) {
        let mut i = 0usize;
        group.bench_function(*name, |bencher| {
            bencher.iter(|| {
                function(&work, i);
                i = i.wrapping_add(1);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, functions);
criterion_main!(benches);
