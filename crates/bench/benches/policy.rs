//! What a decision costs: a thousand rules, an agent four levels deep in the tree of budgets, and more or less of a past.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use farthing_policy::{
    Bucket, Caller, Charge, History, Law, Meters, Movement, Origin, Policy, Request, Source,
};
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
        screened: None,
        caller: Caller {
            agent: AGENT.parse().ok(),
            method: "GET".to_owned(),
            path: "/v1/now".to_owned(),
            ..Caller::default()
        },
    }
}

fn meters(law: &Law, payments: u64) -> Meters {
    let mut meters = Meters::default();
    for i in 0..payments {
        let movement = Movement {
            bucket: Bucket::Dollar,
            amount: 1_000_000_000_000,
            until: NOW.minus(Duration::from_secs(120 + i % 80_000)),
            of: Arc::new(Source {
                agent: AGENT.parse().ok(),
                authority: "seller-1.example:443".to_owned(),
                payee: Some(Address::from_evm_bytes([1; 20])),
                tool: None,
            }),
        };
        meters.add(law, &movement);
    }
    meters
}

/// What a wallet does for a decision but for its books: what was spent is read, and all rules are held against it.
fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    for rules in [10, 1000] {
        let law = Law::Policy { frozen: false, policy: Arc::new(policy(rules)) };
        let (request, pinned) = (request(rules - 1), vec![Address::from_evm_bytes([1; 20])]);
        for past in [0, 1_000, 100_000] {
            let mut meters = meters(&law, past);
            let mut decide = || {
                let sums = meters.read(&law, &Source::of(black_box(&request)), NOW);
                let history = History { sums, pinned: pinned.clone(), ..History::default() };
                law.decide(&history, black_box(&request), NOW)
            };
            let allowed = decide();
            assert!(allowed.is_allowed(), "{allowed}");
            group.bench_function(format!("{rules} rules, {past} payments"), |bencher| {
                bencher.iter(&mut decide)
            });
        }
    }
    group.finish();
}

criterion_group!(benches, decisions);
criterion_main!(benches);
