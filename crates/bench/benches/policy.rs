//! What a decision costs: a thousand rules, an agent four levels deep in the tree of budgets, and more or less of a past.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use farthing_policy::{Bucket, Caller, Charge, History, Movement, Origin, Policy, Request, Source};
use farthing_primitives::{Address, Network, Registry, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const AGENT: &str = "acme/research/weather/scout";

/// As many rules as are asked for, each for a host of its own; the last is the one that allows.
fn policy(rules: usize) -> Policy {
    let mut text = "version: 1\nbudgets:\n".to_owned();
    for name in ["acme", "acme/research", "acme/research/weather", AGENT] {
        let limits =
            "{per_payment: $1, rolling: {1h: $5, 24h: $20}, per_host: {24h: $10}, payments: {1m: 1000}}";
        writeln!(text, "  {name}: {limits}").unwrap_or_default();
    }
    text.push_str("allow:\n");
    for i in 0..rules {
        writeln!(
            text,
            "  - {{hosts: [seller-{i}.example], paths: [/v1/*], methods: [GET], schemes: [exact]}}"
        )
        .unwrap_or_default();
    }
    Policy::parse(&text).unwrap_or_else(|error| unreachable!("{error}"))
}

fn request(host: usize) -> Request {
    let registry = Registry::builtin();
    let money = registry.dollar(&Network::eip155(8453)).map(|usdc| usdc.atoms(1000));
    let charge = money.and_then(|money| Charge::of(&registry, money).ok());
    let url: Option<url::Url> = format!("https://seller-{host}.example/v1/now").parse().ok();
    let origin = url.as_ref().and_then(|url| Origin::of(url).ok());
    let (Some(charge), Some(origin)) = (charge, origin) else { unreachable!("all of it is listed") };
    Request {
        scheme: "exact".to_owned(),
        charge,
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin,
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        caller: Caller {
            agent: AGENT.parse().ok(),
            method: "GET".to_owned(),
            path: "/v1/now".to_owned(),
            ..Caller::default()
        },
    }
}

fn history(payments: u64) -> History {
    let movements = (0..payments).map(|i| Movement {
        bucket: Bucket::Dollar,
        amount: 1_000_000_000_000_000,
        until: NOW.minus(Duration::from_secs(120 + i % 80_000)),
        of: Arc::new(Source {
            agent: AGENT.parse().ok(),
            authority: "seller-1.example:443".to_owned(),
            payee: Some(Address::from_evm_bytes([1; 20])),
            tool: None,
        }),
    });
    History {
        movements: movements.collect(),
        pinned: vec![Address::from_evm_bytes([1; 20])],
        ..History::default()
    }
}

fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for rules in [10, 1000] {
        let policy = policy(rules);
        let request = request(rules - 1);
        for past in [0, 100, 1000] {
            let history = history(past);
            let allowed = policy.decide(false, &history, &request, NOW);
            assert!(allowed.is_allowed(), "{allowed}");
            group.bench_function(format!("{rules} rules, {past} payments"), |bencher| {
                bencher.iter(|| policy.decide(false, black_box(&history), black_box(&request), NOW));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
