use std::time::Duration;

use super::*;

const POLICY: &str = "
version: 1
owner: acme
indexes:
  gpu: {least: $0.10, most: $3, stale_after: 24h}
budgets:
  acme: {per_payment: {follow: index, index: gpu, percent: 50, floor: $0.05, ceiling: $1}}
allow:
  - {hosts: [seller.example]}
";

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const CENT: u128 = 10_000_000_000_000_000;

fn at(secs: u64) -> Clock {
    Clock { wall: NOW.plus(Duration::from_secs(secs)), steady: None }
}

/// What one payment may be, in cents.
fn most(journal: &Journal, secs: u64) -> u128 {
    journal.standing(&at(secs)).unwrap().unwrap()[0].limit.most / CENT
}

#[test]
fn an_index_moves_a_limit_within_its_bounds_and_for_its_time() {
    let journal = Journal::in_memory().unwrap();
    assert!(matches!(journal.set_index("gpu", 100 * CENT, &at(0)), Err(IndexError::Unknown(_))));
    journal.apply_policy(POLICY, false).unwrap();
    assert_eq!(most(&journal, 0), 5);
    journal.set_index("gpu", 100 * CENT, &at(10)).unwrap();
    assert_eq!(most(&journal, 10), 50);
    for value in [9 * CENT, 301 * CENT, u128::MAX] {
        assert!(matches!(journal.set_index("gpu", value, &at(11)), Err(IndexError::OutOfBounds { .. })));
    }
    assert!(matches!(journal.set_index("cpu", CENT, &at(11)), Err(IndexError::Unknown(_))));
    let known = journal.indexes(&at(12)).unwrap();
    assert_eq!((known.len(), known[0].counts), (1, true));
    assert_eq!(most(&journal, 10 + 86_399), 50);
    assert_eq!(most(&journal, 10 + 86_400), 5);
    assert!(!journal.indexes(&at(10 + 86_400)).unwrap()[0].counts);
}

#[test]
fn what_was_set_is_in_the_audit_log() {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    let before = journal.audit_count().unwrap();
    journal.set_index("gpu", 100 * CENT, &at(10)).unwrap();
    let leaves = journal.audit_leaves(before, 10).unwrap();
    assert_eq!(leaves.len(), 1);
    assert_eq!(leaves[0].leaf.text("change"), Some("index"));
    assert_eq!(leaves[0].leaf.text("value"), Some("gpu 1000000000000000000 dollar"));
    // What is refused leaves nothing.
    journal.set_index("gpu", 301 * CENT, &at(11)).unwrap_err();
    assert_eq!(journal.audit_count().unwrap(), before + 1);
}

#[test]
fn an_agent_does_not_set_what_limits_it() {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    let agent = journal.for_agent("acme/a".parse().unwrap(), None);
    assert!(matches!(agent.set_index("gpu", 100 * CENT, &at(10)), Err(IndexError::NotOwner)));
    assert_eq!(most(&journal, 10), 5);
}

#[test]
fn a_value_that_cannot_be_read_denies() {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    journal.within(|tx| put(tx, "index:gpu", "{}")).unwrap();
    assert!(matches!(journal.standing(&at(0)), Err(JournalError::Corrupt("index"))));
}
