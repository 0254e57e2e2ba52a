//! Limits that follow prices, spending and an index.

use super::*;

const FOLLOWS: &str = r#"
version: 1
owner: acme
indexes:
  gpu: {least: $0.10, most: $3, stale_after: 24h}
budgets:
  acme:
    per_payment: {follow: price, last: 30d, percent: 150, floor: $0.05, ceiling: $1}
    rolling:
      24h: {follow: spend, last: 7d, percent: 200, floor: $0.50, ceiling: $10}
    per_host:
      1h: {follow: index, index: gpu, percent: 50, floor: $0.20, ceiling: $1}
allow:
  - {name: weather, hosts: [api.weather.example]}
"#;

const DAY: u64 = 86_400;

fn read(text: &str) -> Policy {
    Policy::parse(text).unwrap()
}

fn set_to(micros: u128, ago: u64) -> History {
    let value = IndexValue {
        bucket: Bucket::Dollar,
        value: micros * MICRO,
        set: NOW.minus(Duration::from_secs(ago)),
    };
    History { indexes: [("gpu".to_owned(), value)].into(), ..known(Vec::new()) }
}

/// What each limit is in a decision, in millionths of a dollar, with what it was made from.
fn limits(history: &History) -> Vec<(String, u128, Basis)> {
    let decision = read(FOLLOWS).decide(false, history, &request("acme", WEATHER, 1000), NOW);
    let follows = decision.findings.iter().filter_map(|fact| match fact {
        Fact::LimitFollows { limit, basis, .. } => {
            Some((limit.to_string(), limit.most / MICRO, basis.clone()))
        }
        _ => None,
    });
    follows.collect()
}

fn most(history: &History, which: usize) -> u128 {
    limits(history)[which].1
}

#[test]
fn without_a_past_a_limit_is_its_floor() {
    let bases: Vec<_> =
        limits(&known(Vec::new())).into_iter().map(|(_, most, basis)| (most, basis)).collect();
    let unset = Basis::Unset("gpu".to_owned());
    assert_eq!(bases, [(50_000, Basis::NoHistory), (500_000, Basis::NoHistory), (200_000, unset)]);
    let asked =
        |micros| read(FOLLOWS).decide(false, &known(Vec::new()), &request("acme", WEATHER, micros), NOW);
    assert!(asked(50_000).is_allowed());
    assert_eq!(denials(&asked(50_001)), ["over_budget"]);
}

#[test]
fn a_limit_per_payment_is_a_part_of_the_mean_price() {
    let old =
        [paid("acme", 100_000, 2 * DAY), paid("acme", 200_000, 3 * DAY), paid("acme", 1, 4 * DAY)].concat();
    // 300,001 in three payments: a half more than the mean is 150,000.5, rounded down.
    assert_eq!(most(&known(old.clone()), 0), 150_000);
    // What was paid to others, by another tree, lately or too long ago is no price here.
    let mut elsewhere = paid("acme", 900_000, 2 * DAY);
    for movement in &mut elsewhere {
        Arc::make_mut(&mut movement.of).authority = "other.example:443".to_owned();
    }
    let others = [
        elsewhere,
        paid("other", 900_000, 2 * DAY),
        paid("acme", 900_000, DAY - 1),
        paid("acme", 900_000, 32 * DAY),
    ];
    assert_eq!(most(&known([old, others.concat()].concat()), 0), 150_000);
}

#[test]
fn the_edges_of_what_counts_are_exact() {
    let one = |ago| most(&known(paid("acme", 100_000, ago)), 0);
    // `(now - 31d, now - 1d]`
    assert_eq!(
        (one(DAY - 1), one(DAY), one(31 * DAY - 1), one(31 * DAY)),
        (50_000, 150_000, 150_000, 50_000)
    );
}

#[test]
fn a_window_follows_what_was_spent_before_it() {
    // $7 in the seven days before the last one is a dollar a day.
    let spent: Vec<_> = (1..=7).flat_map(|day| paid("acme", 1_000_000, day * DAY + 5)).collect();
    assert_eq!(most(&known(spent.clone()), 1), 2_000_000);
    let today = paid("acme", 1_900_000, 60);
    assert_eq!(most(&known([spent, today].concat()), 1), 2_000_000);
}

#[test]
fn an_index_counts_while_it_is_fresh_and_within_its_bounds() {
    assert_eq!(most(&set_to(1_000_000, 0), 2), 500_000);
    assert_eq!(most(&set_to(1_000_000, DAY - 1), 2), 500_000);
    let [old, ahead, high, low] = [(1_000_000, DAY), (1_000_000, 0), (3_000_001, 0), (99_999, 0)]
        .map(|(value, ago)| set_to(value, ago));
    let mut ahead = ahead;
    ahead.indexes.get_mut("gpu").unwrap().set = NOW.plus(Duration::from_millis(1));
    for (history, basis) in [(old, "Stale"), (ahead, "Stale"), (high, "Outside"), (low, "Outside")] {
        let (_, most, found) = limits(&history).remove(2);
        assert_eq!(most, 200_000);
        assert!(format!("{found:?}").starts_with(basis), "{found:?}");
    }
    // Half of $3 is more than the ceiling.
    assert_eq!(most(&set_to(3_000_000, 0), 2), 1_000_000);
    let other = Bucket::Asset(Registry::builtin().dollar(&Network::eip155(8453)).unwrap().id.clone());
    let mut history = set_to(1_000_000, 0);
    history.indexes.get_mut("gpu").unwrap().bucket = other;
    assert_eq!(most(&history, 2), 200_000);
}

#[test]
fn what_cannot_be_counted_denies() {
    let mut history = known(paid("acme", 1, 2 * DAY));
    history.movements[1].amount = u128::MAX / 100;
    let decision = read(FOLLOWS).decide(false, &history, &request("acme", WEATHER, 1000), NOW);
    assert!(denials(&decision).contains(&"limit_unknown"), "{decision}");
    // Sums that should be there are not.
    let lost = History { sums: Some(Sums::default()), ..known(Vec::new()) };
    let decision = read(FOLLOWS).decide(false, &lost, &request("acme", WEATHER, 1000), NOW);
    assert!(denials(&decision).contains(&"limit_unknown"), "{decision}");
}

/// Each day a seller asks for all that may be paid.
#[test]
fn a_seller_that_raises_its_price_is_held_to_a_part_a_day_and_to_the_ceiling() {
    let policy = read(FOLLOWS);
    let law = Law::Policy { frozen: false, policy: Arc::new(policy) };
    let mut moved: Vec<Movement> = Vec::new();
    let mut highest = 50_000u128;
    for hour in 0..24 * 12u64 {
        let now = NOW.plus(Duration::from_secs(hour * 3600));
        let history = known(moved.clone());
        let asked = law.room(Some(&history), &request("acme", WEATHER, 1), now);
        assert!(asked <= 1_000_000, "{asked}");
        if asked == 0 {
            continue;
        }
        assert!(law.decide(&history, &request("acme", WEATHER, asked), now).is_allowed());
        let mut paid = paid("acme", asked, 0);
        paid.iter_mut().for_each(|movement| movement.until = now);
        moved.extend(paid);
        // What was dearest a day ago, and a half more, is all that a price can be.
        let old = moved.iter().filter(|m| m.bucket != Bucket::Dollar && now.since(m.until).as_secs() >= DAY);
        highest = old.map(|m| m.amount).max().map_or(highest, |old| highest.max(old * 3 / 2));
        assert!(asked <= highest, "{asked} > {highest}");
    }
    assert!(!moved.is_empty());
}

#[test]
fn what_is_no_such_limit_is_refused() {
    let price = "{follow: price, last: 30d, percent: 150, floor: $0.05, ceiling: $1}";
    let index = "{follow: index, index: gpu, percent: 50, floor: $0.20, ceiling: $1}";
    for (from, to) in [
        ("percent: 150, ", ""),
        ("percent: 150", "percent: 0"),
        ("percent: 150", "percent: 10001"),
        (", ceiling: $1}\n    rolling", "}\n    rolling"),
        ("floor: $0.05, ", ""),
        ("floor: $0.05", "floor: $2"),
        ("floor: $0.05", "floor: {\"eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913\": 5}"),
        ("last: 30d, ", ""),
        ("follow: price", "follow: median"),
        ("follow: price", "per: world, follow: price"),
        ("follow: price", "after: 59m, follow: price"),
        ("follow: price", "index: gpu, follow: price"),
        ("last: 7d", "last: 23h"),
        ("last: 7d", "last: 25h"),
        ("index: gpu, ", ""),
        ("index: gpu", "index: cpu"),
        ("follow: price", "percent: 5, follow: price"),
        (
            "follow: price",
            "\"eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913\": 5, follow: price",
        ),
        (price, "{follow: spend, last: 7d, percent: 5, floor: $0, ceiling: $1}"),
        ("24h: {follow: spend", "24h: {follow: price"),
        (index, "{index: gpu}"),
        ("least: $0.10", "least: $4"),
        ("  gpu: {", "  GPU: {"),
        (", stale_after: 24h", ""),
        (
            "owner: acme",
            "owner: acme\ndeny: [{over: {follow: index, index: gpu, percent: 5, floor: $0, ceiling: $1}}]",
        ),
    ] {
        let text = FOLLOWS.replacen(from, to, 1);
        assert_ne!(text, FOLLOWS, "{from}");
        assert!(Policy::parse(&text).is_err(), "{from} -> {to}");
    }
    // A ceiling is what a part of the budget may not be wider than.
    let child = |most: &str| {
        Policy::parse(&FOLLOWS.replace("allow:", &format!("  acme/a: {{per_payment: {most}}}\nallow:")))
    };
    assert!(child("$1").is_ok());
    assert!(matches!(child("$1.01"), Err(PolicyError::ChildWider { .. })));
    assert!(matches!(
        child(&price.replace("ceiling: $1", "ceiling: $2")),
        Err(PolicyError::ChildWider { .. })
    ));
}

/// Edits, and whether each is looser than what it edits.
const EDITS: [(&str, &str, bool); 19] = [
    ("percent: 150", "percent: 151", true),
    ("percent: 150", "percent: 100", false),
    ("percent: 200", "percent: 199", false),
    ("floor: $0.05", "floor: $0.06", true),
    ("floor: $0.05", "floor: $0.01", false),
    ("ceiling: $1}\n    rolling", "ceiling: $1.01}\n    rolling", true),
    ("ceiling: $10", "ceiling: $2", false),
    ("last: 30d", "last: 29d", true),
    ("last: 30d, percent", "last: 30d, after: 2d, percent", true),
    ("last: 30d, percent", "last: 30d, per: payee, percent", true),
    ("{follow: price, last: 30d, percent: 150, floor: $0.05, ceiling: $1}", "$0.05", false),
    ("{follow: price, last: 30d, percent: 150, floor: $0.05, ceiling: $1}", "$0.06", true),
    (
        "{follow: spend, last: 7d, percent: 200, floor: $0.50, ceiling: $10}",
        "{follow: spend, last: 9d, percent: 900, floor: $0, ceiling: $0.50}",
        false,
    ),
    ("most: $3", "most: $4", true),
    ("most: $3", "most: $2", false),
    ("least: $0.10", "least: $0.09", true),
    ("stale_after: 24h", "stale_after: 25h", true),
    ("stale_after: 24h", "stale_after: 1h", false),
    ("percent: 50, floor: $0.20", "percent: 40, floor: $0.10", false),
];

#[test]
fn attack_26_a_looser_rule_of_what_is_followed_is_seen() {
    for (from, to, looser) in EDITS {
        let text = FOLLOWS.replacen(from, to, 1);
        assert_ne!(text, FOLLOWS, "{from}");
        assert_eq!(loosens(FOLLOWS, &text), looser, "{from} -> {to}");
    }
    // A fixed limit within which one that follows stays, and one within which it does not.
    let fixed = FOLLOWS.replacen(EDITS[10].0, "$1", 1);
    assert!(!loosens(&fixed, FOLLOWS));
    assert!(loosens(&fixed.replacen("per_payment: $1", "per_payment: $0.99", 1), FOLLOWS));
}

fn any_past() -> impl Strategy<Value = History> {
    let spent = (1u128..3_000_000, 0u64..40 * DAY, any::<bool>()).prop_map(|(micros, ago, elsewhere)| {
        if elsewhere { paid_elsewhere("acme", micros, ago) } else { paid("acme/a", micros, ago) }
    });
    let index = prop::option::of((0u128..4_000_000, 0u64..2 * DAY));
    (prop::collection::vec(spent, 0..8), index).prop_map(|(movements, index)| History {
        movements: movements.concat(),
        ..index.map_or_else(|| known(Vec::new()), |(micros, ago)| set_to(micros, ago))
    })
}

proptest! {
    #[test]
    fn what_loosens_nothing_allows_nothing_new(
        before in prop::sample::select(EDITS.to_vec()), after in prop::sample::select(EDITS.to_vec()),
        history in any_past(), micros in prop_oneof![1u128..400_000, 1u128..1_100_000],
    ) {
        let edit = |(from, to, _): (&str, &str, bool), text: &str| text.replacen(from, to, 1);
        let texts = [FOLLOWS.to_owned(), edit(before, FOLLOWS), edit(after, FOLLOWS), edit(after, &edit(before, FOLLOWS))];
        let read: Vec<Policy> = texts.iter().filter_map(|text| Policy::parse(text).ok()).collect();
        let request = request("acme/a", WEATHER, micros);
        for (old, new) in read.iter().flat_map(|old| read.iter().map(move |new| (old, new))) {
            if new.loosens(old).is_empty() && new.decide(false, &history, &request, NOW).is_allowed() {
                let decision = old.decide(false, &history, &request, NOW);
                prop_assert!(decision.is_allowed(), "{decision}");
            }
        }
    }

    #[test]
    fn a_limit_is_never_below_its_floor_nor_above_its_ceiling(history in any_past()) {
        let bounds = [(50_000, 1_000_000), (500_000, 10_000_000), (200_000, 1_000_000)];
        for ((_, most, _), (floor, ceiling)) in limits(&history).into_iter().zip(bounds) {
            prop_assert!((floor..=ceiling).contains(&most), "{most}");
        }
    }

    /// Sums that were kept up, and partly taken back, make the same limits as looking at everything does.
    #[test]
    fn sums_make_the_limits_that_everything_makes(
        history in any_past(), gone in any_past(), micros in 1u128..1_100_000,
    ) {
        let law = Law::Policy { frozen: false, policy: Arc::new(read(FOLLOWS)) };
        let request = request("acme/a", WEATHER, micros);
        let mut meters = Meters::default();
        for movement in history.movements.iter().chain(&gone.movements) {
            meters.add(&law, movement);
        }
        for movement in &gone.movements {
            meters.take_back(&law, movement);
        }
        let sums = meters.read(&law, &Source::of(&request), NOW);
        prop_assert!(sums.is_some());
        let summed = History { movements: Vec::new(), sums, ..history.clone() };
        prop_assert_eq!(law.decide(&summed, &request, NOW), law.decide(&history, &request, NOW));
        prop_assert_eq!(law.room(Some(&summed), &request, NOW), law.room(Some(&history), &request, NOW));
        prop_assert!(law.room(None, &request, NOW) <= 50_000 * micros.max(1));
    }
}
