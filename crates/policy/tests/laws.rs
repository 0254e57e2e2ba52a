//! Laws of the guard: money that was spent only ever narrows what may be spent, and so does each tightening of a rule.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use farthing_policy::{
    Breaker, Bucket, Caps, Charge, History, Host, HostPattern, HostRule, Movement, Origin, Request, Rules,
    Window, decide,
};
use farthing_primitives::{Address, Network, Registry, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOSTS: [&str; 5] = ["a.example", "b.a.example", "127.0.0.1", "localhost", "8.8.8.8"];
const PATTERNS: [&str; 6] = ["*", "*.example", "a.example", "a.example:443", "127.0.0.1", "localhost"];

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}

fn asset(which: u8) -> farthing_primitives::Asset {
    let (chain, symbol) = [(8453, "USDC"), (84532, "USDC"), (8453, "EURC")][usize::from(which % 3)];
    registry().by_symbol(&Network::eip155(chain), symbol).expect("listed").clone()
}

fn bucket() -> impl Strategy<Value = Bucket> {
    prop_oneof![Just(Bucket::Dollar), (0u8..3).prop_map(|which| Bucket::Asset(asset(which).id))]
}

/// Sizes around each other in either unit, so that caps are met from both sides.
fn amount() -> impl Strategy<Value = u128> {
    prop_oneof![4 => 0u128..200, 4 => (0u128..200).prop_map(|n| n * 10u128.pow(12)), 1 => any::<u128>()]
}

fn caps() -> impl Strategy<Value = Caps> {
    // Often wide, so that the other rules decide.
    let cap = || prop_oneof![1 => amount(), 4 => Just(u128::MAX)];
    (cap(), cap(), cap()).prop_map(|(per_payment, hour, day)| Caps { per_payment, hour, day })
}

fn rules() -> impl Strategy<Value = Rules> {
    let pattern = prop_oneof![1 => Just("*"), 1 => prop::sample::select(PATTERNS.to_vec())];
    let hosts = vec((pattern, any::<bool>(), any::<bool>()), 0..6);
    (
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.9),
        vec(prop::sample::select(vec![8453u64, 84532, 1]), 0..8),
        prop::collection::btree_map(bucket(), caps(), 0..6),
        hosts,
        0u64..600,
        option::of((0u32..8, 0u64..1000)),
    )
        .prop_map(|(frozen, exact, networks, caps, hosts, validity, breaker)| Rules {
            frozen,
            schemes: exact.then(|| "exact".to_owned()).into_iter().collect(),
            networks: networks.into_iter().map(Network::eip155).collect(),
            caps,
            hosts: hosts
                .into_iter()
                .map(|(pattern, private, plaintext)| HostRule {
                    pattern: pattern.parse().expect("a pattern"),
                    private,
                    plaintext,
                })
                .collect(),
            max_validity: Duration::from_secs(validity),
            breaker: breaker.map(|(refusals, s)| Breaker { refusals, within: Duration::from_secs(s) }),
        })
}

fn movement() -> impl Strategy<Value = Movement> {
    // From two days ago to an hour ahead, what may still move among it.
    (bucket(), amount(), 0u64..176_400).prop_map(|(bucket, amount, ago)| Movement {
        bucket,
        amount,
        until: NOW.plus(Duration::from_secs(3600)).minus(Duration::from_secs(ago)),
        of: Default::default(),
    })
}

fn payee(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn history() -> impl Strategy<Value = History> {
    (vec(movement(), 0..4), vec(0u8..2, 0..3), 0u32..3).prop_map(|(movements, pinned, refusals)| History {
        movements,
        pinned: pinned.into_iter().map(payee).collect(),
        refusals,
        ..History::default()
    })
}

fn request() -> impl Strategy<Value = Request> {
    (
        (0u8..3, 0u128..200, 0u8..2),
        (prop::sample::select(HOSTS.to_vec()), prop::bool::weighted(0.8), prop::bool::weighted(0.2)),
        option::weighted(0.3, 0u128..300),
        option::weighted(0.3, prop::sample::select(vec![8453u64, 84532])),
        0u64..300,
    )
        .prop_map(|((which, atoms, to), (host, tls, private), max, only, validity)| Request {
            scheme: "exact".to_owned(),
            charge: Charge::of(registry(), asset(which).atoms(atoms)).expect("listed"),
            price: None,
            payee: payee(to),
            origin: Origin { host: host.parse().expect("a host"), port: 443, tls },
            private,
            max,
            only: only.map(Network::eip155),
            validity: Duration::from_secs(validity),
            screened: None,
            caller: Default::default(),
        })
}

/// One way to allow less, chosen by `which`.
fn tightened(rules: &Rules, which: u8, n: usize, less: u128) -> Rules {
    let mut tight = rules.clone();
    let lower = |cap: &mut u128| *cap = (*cap).min(less);
    match which % 10 {
        0 => tight.frozen = true,
        1 => tight.schemes = BTreeSet::new(),
        2 => {
            let gone = tight.networks.iter().nth(n % tight.networks.len().max(1)).cloned();
            tight.networks.retain(|network| Some(network) != gone.as_ref());
        }
        3 => {
            if !tight.hosts.is_empty() {
                let at = n % tight.hosts.len();
                tight.hosts.remove(at);
            }
        }
        4 => tight.hosts.iter_mut().for_each(|rule| rule.private = false),
        5 => tight.hosts.iter_mut().for_each(|rule| rule.plaintext = false),
        6 => tight.max_validity = tight.max_validity.min(Duration::from_secs(n as u64)),
        7 => {
            let refusals = rules.breaker.map_or(u32::MAX, |breaker| breaker.refusals);
            let fewer = refusals.min(u32::try_from(n).unwrap_or(u32::MAX));
            tight.breaker = Some(Breaker { refusals: fewer, within: Duration::from_secs(60) });
        }
        8 => tight.caps.values_mut().for_each(|caps| {
            lower(&mut caps.per_payment);
            lower(&mut caps.hour);
            lower(&mut caps.day);
        }),
        // A cap where there are caps; the first one is a permission.
        _ => {
            if tight.caps.contains_key(&Bucket::Dollar) {
                let cap = Caps { per_payment: less, hour: less, day: less };
                for which in 0..2 {
                    tight.caps.entry(Bucket::Asset(asset(which).id)).or_insert(cap);
                }
            }
        }
    }
    tight
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// Whatever was spent, may still move or was refused on top: a denial stays one.
    #[test]
    fn more_spending_never_allows_more(rules in rules(), history in history(), more in movement(), refusals in 0u32..3, asked in request()) {
        let before = decide(&rules, &history, &asked, NOW);
        let mut later = history;
        later.movements.push(more);
        later.refusals += refusals;
        let after = decide(&rules, &later, &asked, NOW);
        prop_assert!(before.is_allowed() || !after.is_allowed(), "{} then {}", before, after);
    }

    /// The guard's answer to a larger sum is never kinder than to a smaller one.
    #[test]
    fn a_larger_amount_is_never_easier(rules in rules(), history in history(), asked in request(), more in 1u128..200) {
        let small = decide(&rules, &history, &asked, NOW);
        let mut larger = asked.clone();
        let money = asked.charge.money();
        let atoms = money.atoms() + more;
        larger.charge = Charge::of(registry(), farthing_primitives::Money::new(money.asset().clone(), atoms)).expect("listed");
        // Nothing is denied for being nothing, so there the small one is the odd one.
        if money.atoms() > 0 {
            prop_assert!(small.is_allowed() || !decide(&rules, &history, &larger, NOW).is_allowed());
        }
    }

    /// No tightening of a rule, alone or with others, allows what was denied.
    #[test]
    fn a_tighter_rule_never_allows_more(rules in rules(), history in history(), asked in request(), steps in vec((any::<u8>(), 0usize..8, amount()), 1..4)) {
        let loose = decide(&rules, &history, &asked, NOW);
        let tight = steps.iter().fold(rules, |rules, (which, n, less)| tightened(&rules, *which, *n, *less));
        let decision = decide(&tight, &history, &asked, NOW);
        prop_assert!(loose.is_allowed() || !decision.is_allowed(), "{} then {}", loose, decision);
    }

    /// One call can only be narrower than the rules.
    #[test]
    fn a_call_never_widens(rules in rules(), history in history(), asked in request()) {
        let wide = Request { max: None, only: None, ..asked.clone() };
        let narrow = decide(&rules, &history, &asked, NOW).is_allowed();
        prop_assert!(!narrow || decide(&rules, &history, &wide, NOW).is_allowed());
    }

    /// What is allowed says so for each rule, and what is denied names at least one.
    #[test]
    fn a_decision_is_its_findings(rules in rules(), history in history(), asked in request()) {
        let decision = decide(&rules, &history, &asked, NOW);
        prop_assert_eq!(decision.is_allowed(), decision.denials().count() == 0);
        prop_assert_eq!(&decide(&rules, &history, &asked, NOW), &decision);
        prop_assert!(!decision.to_string().is_empty());
    }

    /// What counts against a window only ever leaves it as time goes by.
    #[test]
    fn a_window_only_empties(history in history(), bucket in bucket(), wait in 0u64..200_000) {
        for window in Window::ALL {
            let now = history.spent(&bucket, window, NOW);
            let later = history.spent(&bucket, window, NOW.plus(Duration::from_secs(wait)));
            // What cannot be counted now may be countable later, and not the other way round.
            prop_assert!(now.is_none() || later.is_some_and(|later| Some(later) <= now), "{:?} then {:?}", now, later);
        }
    }

    /// A host, a pattern and an origin have one spelling each, whatever they were spelled as.
    #[test]
    fn hosts_have_one_spelling(text in "[a-zA-Z0-9.:_\\-\\[\\]*%а-яёａ-ｚßİ。/@]{0,24}", port in 1u16..) {
        if let Ok(host) = text.parse::<Host>() {
            prop_assert_eq!(host.to_string().parse::<Host>(), Ok(host.clone()));
            let origin = Origin { host: host.clone(), port, tls: true };
            let again = Origin::of(&origin.to_string().parse().expect("a URL"));
            prop_assert_eq!(again, Ok(origin.clone()));
            prop_assert!(HostPattern::Exact(host, None).matches(&origin));
        }
        if let Ok(pattern) = text.parse::<HostPattern>() {
            prop_assert_eq!(pattern.to_string().parse::<HostPattern>(), Ok(pattern));
        }
        if let Ok(url) = format!("https://{text}:{port}/").parse()
            && let Ok(origin) = Origin::of(&url)
        {
            prop_assert_eq!(Origin::of(&origin.to_string().parse().expect("a URL")), Ok(origin));
        }
    }
}

#[test]
fn the_generators_reach_permissions() {
    // Laws about permissions say little where little is ever permitted.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut allowed = BTreeMap::new();
    for _ in 0..1000 {
        use proptest::strategy::ValueTree;
        let strategy = (rules(), history(), request());
        let (rules, history, asked) = strategy.new_tree(&mut runner).expect("a case").current();
        *allowed.entry(decide(&rules, &history, &asked, NOW).is_allowed()).or_insert(0) += 1;
    }
    assert!(allowed.get(&true).is_some_and(|count| *count >= 50), "{allowed:?}");
}
