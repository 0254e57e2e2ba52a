//! Worlds that must hold: fresh ones in each run, and those that once did not.

// In a test a panic is the report.
#![allow(clippy::panic, clippy::unwrap_used)]

use std::time::{SystemTime, UNIX_EPOCH};

use farthing_sim::{
    Act, DiskAilments, Line, Mood, NetAilments, NodeAilments, Pays, Plan, Sessions, Style, run,
};

/// How many fresh worlds a run of the tests looks at. `sim 10000` looks at more.
const FRESH: u64 = 150;

fn holds(name: &str, plan: &Plan) {
    let outcome = run(plan, false);
    if let Some((at, what)) = outcome.violation {
        panic!("{name}, seed {}, at {:?}: {what}", plan.seed, std::time::Duration::from_micros(at));
    }
}

/// The seeds are new each time; whoever sees one fail says `sim --seed N --shrink`.
#[test]
fn fresh_worlds_hold() {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let first = match std::env::var("FARTHING_SIM_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => since.as_secs() % 1_000_000_000,
    };
    for seed in first..first + FRESH {
        holds("a fresh world", &Plan::from_seed(seed));
    }
}

#[test]
fn one_seed_is_one_history() {
    for seed in 1..20 {
        let plan = Plan::from_seed(seed);
        assert_eq!(run(&plan, false).fingerprint, run(&plan, false).fingerprint, "seed {seed}");
    }
    let other = run(&Plan::from_seed(2), false).fingerprint;
    assert_ne!(run(&Plan::from_seed(1), false).fingerprint, other);
}

/// The SQLite store has threads, and its disk fails; all the same one seed has one history.
#[test]
fn a_world_on_sqlite_replays_and_its_disk_does_fail() {
    let mut said = Vec::new();
    for seed in [1, 22, 46, 72, 122, 180] {
        let plan = Plan::from_seed(seed);
        assert!(plan.sqlite, "seed {seed}");
        let outcome = run(&plan, true);
        assert_eq!(outcome.violation, None, "seed {seed}");
        let again = run(&plan, true);
        assert_eq!(
            (outcome.fingerprint, &outcome.timeline),
            (again.fingerprint, &again.timeline),
            "seed {seed}"
        );
        said.extend(outcome.timeline.into_iter().map(|(_, line)| line));
    }
    for line in ["the power is off", "the store is in doubt", "an operator starts the gateway anew"] {
        assert!(said.iter().any(|said| said == line), "{line}");
    }
}

/// What happens in these worlds is not nothing.
#[test]
fn worlds_are_eventful() {
    let outcomes: Vec<_> = (1..200).map(|seed| run(&Plan::from_seed(seed), false).counts).collect();
    let sum = |field: fn(&farthing_sim::Counts) -> u64| outcomes.iter().map(field).sum::<u64>();
    assert!(sum(|counts| counts.settled) > 200);
    assert!(sum(|counts| counts.restarts) > 30);
    assert!(sum(|counts| counts.reorganized) > 10);
    assert!(sum(|counts| counts.failed) > 0);
    assert!(sum(|counts| counts.losses) > 0, "credit is lost now and then, and shows");
}

/// In worlds with facilitators settlements come to an end by them, by all of their kinds; and their lies are told.
#[test]
fn facilitators_settle_lie_and_are_not_believed_where_we_see() {
    let mut told = [[0; 4]; 2];
    for seed in 1..400 {
        let plan = Plan::from_seed(seed);
        let Some(remotes) = &plan.remotes else { continue };
        let counts = run(&plan, false).counts;
        let sums = &mut told[usize::from(remotes.chain_read)];
        for (sum, more) in sums.iter_mut().zip([counts.remote, counts.settled, counts.held, counts.believed])
        {
            *sum += more;
        }
    }
    let [[asked, settled, held, believed], [asked_seeing, settled_seeing, held_seeing, believed_seeing]] =
        told;
    assert!(asked > 200 && settled > 150 && asked_seeing > 200 && settled_seeing > 150, "{told:?}");
    assert!(held > 10 && believed > 5, "without a chain of its own it holds what is unclear: {told:?}");
    assert_eq!((held_seeing, believed_seeing), (0, 0), "with one it knows in the end: {told:?}");
}

/// A plan of one buyer, no wallet and depth 1, with these lines.
fn plan(seed: u64, lines: &[(u64, Act)]) -> Plan {
    let lines = lines.iter().map(|(at, act)| Line { at: *at, act: *act }).collect();
    Plan { seed, buyers: 1, owners: 0, depth: 1, heals_at: 125_000, lines, ..Plan::default() }
}

fn buys(shelf: usize) -> Act {
    Act::Buy { buyer: 0, shelf, style: Style::Plain }
}

/// The same with one buyer for each way to pay.
fn mixed(seed: u64, lines: &[(u64, Act)]) -> Plan {
    let pays = vec![Pays::V1, Pays::Permit2, Pays::V2];
    Plan { buyers: pays.len(), pays, ..plan(seed, lines) }
}

#[test]
fn whoever_pays_by_v1_or_permit2_is_served_as_all_others_are() {
    let mut lines = Vec::new();
    for buyer in 0..3 {
        lines.extend(
            (0..5).map(|shelf| (1000 + 900 * shelf as u64, Act::Buy { buyer, shelf, style: Style::Plain })),
        );
        lines.push((9000, Act::Buy { buyer, shelf: WEATHER, style: Style::Elsewhere }));
        lines.push((9500, Act::Buy { buyer, shelf: UPFRONT, style: Style::Copies(5) }));
    }
    for seed in 0..4 {
        let plan = mixed(seed, &lines);
        holds("fair weather", &plan);
        assert_eq!(run(&plan, false).counts.settled, 21, "seed {seed}");
    }
}

#[test]
fn an_allowance_that_was_taken_back_settles_nothing_and_shows() {
    for at in [30_700, 31_500, 33_000] {
        let buys = |shelf| Act::Buy { buyer: 1, shelf, style: Style::Plain };
        let lines = [
            (30_000, buys(CREDIT)),
            (30_100, buys(OTHER)),
            (at, Act::Cancel { buyer: 1 }),
            (60_000, buys(OTHER)),
        ];
        let plan = mixed(7, &lines);
        holds("no allowance", &plan);
        let outcome = run(&plan, true);
        let told = |said: &str| outcome.timeline.iter().any(|(_, line)| line.contains(said));
        assert!(told("412 permit2_allowance_required"), "{:?}", outcome.counts);
    }
}

/// The shelves by their numbers.
const WEATHER: usize = 0;
const OTHER: usize = 1;
const UPFRONT: usize = 3;
const CREDIT: usize = 4;

fn disk(latency: u64, refused: u64, in_doubt: u64, lasts: u64) -> Act {
    Act::Disk { ailments: DiskAilments { latency, refused, in_doubt }, lasts }
}

#[test]
fn a_delivery_whose_commit_is_refused_is_settled_all_the_same() {
    for refused in [50, 157, 300] {
        holds("credit", &plan(1, &[(38_178, disk(28, refused, 52, 16_615)), (48_962, buys(CREDIT))]));
    }
}

#[test]
fn a_paid_stream_that_nobody_came_for_is_called_when_somebody_does() {
    let troubles = disk(1448, 101, 101, 23_518);
    let kill = Act::KillGateway { down_for: 3574 };
    holds("upfront", &plan(1408, &[(27_257, troubles), (28_256, kill), (45_063, buys(UPFRONT))]));
}

#[test]
fn a_slot_that_somebody_else_changed_keeps_no_payment_in_conflict() {
    let mood = Mood { latency: 6897, fails: 74, breaks_off: 12, hangs: 87 };
    let weather = Act::Weather { passed_over: 664, forgotten: 31, gas_times: 3, lasts: 29_163 };
    let lines = [
        (54_782, Act::Mood { mood, lasts: 15_382 }),
        (59_342, buys(UPFRONT)),
        (62_162, Act::Reorg { depth: 2, kept: 1000 }),
        (69_719, weather),
    ];
    holds("reorganized while it streams", &plan(529, &lines));
}

#[test]
fn a_nonce_that_died_with_its_process_blocks_no_other() {
    let copies = Act::Buy { buyer: 0, shelf: UPFRONT, style: Style::Copies(5) };
    let kill = Act::KillGateway { down_for: 1390 };
    for seed in 3024..3034 {
        let lines = [(9_472, disk(1299, 12, 107, 24_424)), (23_426, copies), (50_014, kill)];
        holds("a gap", &plan(seed, &lines));
    }
}

#[test]
fn a_lost_block_is_seen_behind_a_newer_settlement() {
    for at in [41_000, 41_277, 41_500, 42_500] {
        let reorg = Act::Reorg { depth: 2, kept: 1000 };
        holds("behind", &plan(2189, &[(36_500, buys(WEATHER)), (40_904, buys(OTHER)), (at, reorg)]));
    }
}

#[test]
fn a_cancelled_authorization_is_watched_to_its_end_and_no_longer() {
    for shelf in [OTHER, CREDIT] {
        holds("cancelled", &plan(33, &[(58_063, buys(shelf)), (58_755, Act::Cancel { buyer: 0 })]));
    }
}

#[test]
fn a_cancelled_authorization_that_was_served_on_credit_shows_as_a_loss() {
    let way = NodeAilments { latency: 96, down: false, lost: 500, behind: 96, behind_by: 3, swallowed: 64 };
    for seed in 260..270 {
        let troubles = Act::Node { gateway: true, ailments: way, lasts: 26_521 };
        let lines = [(26_731, troubles), (29_582, buys(CREDIT)), (30_877, Act::Cancel { buyer: 0 })];
        holds("cancelled on credit", &plan(seed, &lines));
    }
}

#[test]
fn a_delivery_on_credit_that_a_crash_cut_off_is_charged_and_owed() {
    let mood = Mood { latency: 6479, fails: 0, breaks_off: 0, hangs: 0 };
    for at in [77_500, 79_000, 80_463, 83_000] {
        let kill = Act::KillGateway { down_for: 11_559 };
        let lines = [(77_000, Act::Mood { mood, lasts: 20_208 }), (77_101, buys(CREDIT)), (at, kill)];
        holds("cut off", &plan(19, &lines));
    }
}

#[test]
fn a_wallet_that_asks_again_pays_once() {
    let net = NetAilments {
        latency: 500,
        request_lost: 200,
        answer_lost: 500,
        cut: 200,
        duplicated: 300,
        partitioned: false,
    };
    for seed in 512..522 {
        let mood = Mood { latency: 596, fails: 595, breaks_off: 213, hangs: 30 };
        let lines = [
            (18_372, Act::Mood { mood, lasts: 20_449 }),
            (20_000, Act::Net { ailments: net, lasts: 30_000 }),
            (27_814, Act::Want { owner: 0, shelf: CREDIT }),
            (28_000, Act::Want { owner: 0, shelf: UPFRONT }),
            (33_000, Act::KillWallet { owner: 0, down_for: 4000 }),
        ];
        holds("a wallet", &Plan { owners: 1, ..plan(seed, &lines) });
    }
}

/// A payment whose first facilitator is never reached is given to the second, and its history calls that by its name:
/// else a check of the file finds a change that the machine does not know.
#[test]
fn an_attempt_that_takes_the_place_of_another_is_recorded_as_that() {
    use farthing_sim::{Habits, Remotes, Way, Who};
    let stranger = Who::Stranger(Habits { remembers: true, versions: &[2], patience: 20_000 });
    let way = Way { refused: 500, ..Way::default() };
    for seed in 1..20 {
        let refused = Act::Way { which: 0, way, lasts: 20_000 };
        let remotes = Remotes { chain_read: false, who: vec![stranger, stranger] };
        let lines = [(0, refused), (1000, buys(UPFRONT)), (8000, buys(UPFRONT))];
        let world = plan(seed, &lines);
        holds("replaced", &Plan { remotes: Some(remotes), sqlite: true, ..world });
    }
}

/// By their seeds, as they were found among ten thousand.
#[test]
fn a_settlement_taken_back_in_doubt_or_at_the_last_moment_is_watched_again() {
    for seed in [5399, 7798, 7850] {
        holds("a seed that once broke", &Plan::from_seed(seed));
    }
}

/// A service that says nothing any more keeps no stream running that nobody listens to.
#[test]
fn a_stream_of_which_both_ends_are_gone_comes_to_its_end() {
    holds("a silent service", &Plan::from_seed(549));
}

/// Found where the seller closed on a stale voucher, and where a forced close ended shortly before the world did.
#[test]
fn channels_that_end_in_the_midst_of_something_end_well() {
    for seed in [3233, 3328, 6813, 7583, 795_306_123] {
        holds("an end", &Plan::from_seed(seed));
    }
}

/// A settlement that came too late, and was reverted, is put into an earlier block by a reorganization, where it does not.
/// No log of Permit2 names the payment; the receipt of our own transaction does.
#[test]
fn a_permit2_settlement_that_a_reorganization_brings_back_is_found_by_its_receipt() {
    let net = NetAilments {
        latency: 111,
        request_lost: 293,
        answer_lost: 410,
        cut: 132,
        duplicated: 393,
        partitioned: false,
    };
    let buys = |buyer, shelf, style| Act::Buy { buyer, shelf, style };
    let lines = [
        (524, buys(0, WEATHER, Style::Plain)),
        (5_411, buys(1, WEATHER, Style::Elsewhere)),
        (13_736, Act::Net { ailments: net, lasts: 25_018 }),
        (17_637, Act::KillGateway { down_for: 17_632 }),
        (18_667, buys(0, 2, Style::Plain)),
        (30_150, buys(1, UPFRONT, Style::Plain)),
        (32_897, buys(1, 2, Style::Plain)),
        (33_205, buys(1, WEATHER, Style::Plain)),
        (34_522, buys(1, OTHER, Style::Plain)),
        (69_087, Act::Reorg { depth: 4, kept: 0 }),
        (73_336, Act::Reorg { depth: 3, kept: 1000 }),
    ];
    let pays = vec![Pays::Permit2; 2];
    holds("back again", &Plan { buyers: 2, depth: 4, pays, ..plan(10_923, &lines) });
}

/// Nobody else makes the relayer look: the doubt about the refund's own commit has to wake it. Once seed 7650.
#[test]
fn a_refund_whose_commit_was_in_doubt_is_sent() {
    for seed in 1..30 {
        let refund = |at| (at, Act::Refund { which: 0, at_once: 1 });
        let lines = [
            (10_000, buys(UPFRONT)),
            (90_000, disk(211, 0, 400, 30_000)),
            refund(95_000),
            refund(100_000),
            refund(105_000),
            refund(110_000),
        ];
        holds("a refund in doubt", &plan(seed, &lines));
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Channels.

/// One wallet that buys by the unit, with these lines.
fn by_the_unit(seed: u64, sessions: Sessions, lines: &[(u64, Act)]) -> Plan {
    Plan { sessions: Some(sessions), heals_at: 900_000, ..plan(seed, lines) }
}

fn sessions() -> Sessions {
    Sessions { patrons: 1, credit: 0, most_unsettled: None, min_delta: 0, idle: None, by_relayer: false }
}

fn meter(meter: usize, units: u64, at_once: u32) -> Act {
    Act::Meter { patron: 0, meter, units, at_once }
}

/// Channels are opened, used, forced closed and answered.
#[test]
fn channels_are_eventful() {
    let plans = (1..100).map(Plan::from_seed).filter(|plan| plan.sessions.is_some());
    let outcomes: Vec<_> = plans.map(|plan| run(&plan, false).counts).collect();
    let sum = |field: fn(&farthing_sim::Counts) -> u64| outcomes.iter().map(field).sum::<u64>();
    assert!(sum(|counts| counts.channels) > 20, "{outcomes:?}");
    assert!(sum(|counts| counts.vouchers) > 200, "{outcomes:?}");
    assert!(sum(|counts| counts.by_the_unit) > 80, "{outcomes:?}");
    let (forced, answered) = (sum(|counts| counts.forced), sum(|counts| counts.answered));
    assert!(forced > 1 && answered > 0, "{forced} forced, {answered} answered");
}

/// One channel pays for requests, for units and for a stream, is closed, and the chain was used twice.
#[test]
fn a_channel_pays_for_all_and_is_closed() {
    for seed in 0..4 {
        let sessions = Sessions { by_relayer: seed % 2 == 1, ..sessions() };
        let lines = [
            (1_000, meter(0, 1, 1)),
            (20_000, meter(0, 1, 4)),
            (30_000, meter(1, 5, 1)),
            (40_000, meter(2, 6, 1)),
            (100_000, Act::Leave { patron: 0 }),
        ];
        let plan = by_the_unit(seed, sessions, &lines);
        holds("a channel", &plan);
        let counts = run(&plan, false).counts;
        assert_eq!((counts.channels, counts.by_the_unit, counts.forced), (1, 7, 0), "seed {seed}");
    }
}

/// A cheat asks the escrow right after it has used the channel, and the seller takes what it is owed: also when it dies in
/// between, and comes back with time left.
#[test]
fn a_forced_close_is_answered_also_by_a_seller_that_was_away() {
    for (seed, down_for) in [(1, 0), (2, 30_000), (3, 300_000)] {
        let mut lines = vec![(1_000, meter(1, 5, 1)), (30_000, Act::Cheat { patron: 0 })];
        if down_for > 0 {
            lines.push((29_000, Act::KillGateway { down_for }));
        }
        let plan = by_the_unit(seed, sessions(), &lines);
        holds("a forced close", &plan);
        let counts = run(&plan, false).counts;
        assert_eq!((counts.channels, counts.forced, counts.answered), (1, 1, 1), "seed {seed}");
    }
}

/// Whoever is away for all of the time that it has to answer loses what it served; the world knows why.
#[test]
fn a_seller_that_is_away_for_the_whole_grace_period_loses_and_its_books_say_so() {
    let lines = [
        (1_000, meter(1, 5, 1)),
        (29_000, Act::KillGateway { down_for: 1_000_000 }),
        (30_000, Act::Cheat { patron: 0 }),
    ];
    let plan = Plan { heals_at: 1_100_000, ..by_the_unit(1, sessions(), &lines) };
    holds("away", &plan);
    let counts = run(&plan, false).counts;
    assert_eq!((counts.forced, counts.answered), (1, 0));
}

/// A request that was asked for a larger voucher, since the seller had charged for what broke off before, was counted for
/// all of what was vouched; the journal had bought more than was sold, and would have left it to the seller in the end.
#[test]
fn a_journal_never_counts_more_than_was_sold() {
    for seed in [52, 354] {
        holds("a seed that once broke", &Plan::from_seed(seed));
    }
}
