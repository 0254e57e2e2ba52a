//! What the store says when the disk below it fails, fills up, rots or loses power, and what is true afterwards.
//!
//! The rule: what was answered is there, and stays there; what was refused as `Down` is not, and never comes; what
//! was `Unknown` is whole or absent. The books always balance.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::*;
use farthing_engine::{Claimed, Commit, Store, StoreError};
use farthing_faultdisk::{Crash, Disk, Fault, Kind, Rng};
use farthing_payment::Payment;
use farthing_primitives::PaymentId;
use farthing_store::{OpenError, SqliteStore};

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
}

fn open(disk: &Disk) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(&disk.path("books.db"))
}

/// What we were told of each payment.
#[derive(Debug, Default)]
struct Told {
    payments: BTreeMap<PaymentId, Line>,
    refused: u32,
    unknown: u32,
}

#[derive(Debug, Default)]
struct Line {
    n: u64,
    /// The last change that was answered.
    answered: Option<Payment>,
    /// What the store may have instead: changes whose answer was `Unknown`.
    maybe: Vec<Payment>,
}

const WALKS: [&[&str]; 6] = [
    &["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep", "sent"],
    &[
        "funds_confirmed",
        "call_started",
        "call_stored",
        "attempt_started",
        "included",
        "included_deep",
        "sent",
    ],
    &["funds_confirmed", "call_started", "call_failed", "represented", "funds_refused"],
    &["funds_confirmed", "call_started", "call_stored", "attempt_started", "unclear", "dead"],
    &[
        "funds_confirmed",
        "call_started",
        "call_stored",
        "attempt_started",
        "included_deep",
        "reorged",
        "included_deep",
    ],
    &["funds_refused"],
];

/// Claims payments and walks them, a few at a time, until enough is done or the store refuses too often.
async fn work(store: &SqliteStore, told: &mut Told, rng: &mut Rng, first: u64, changes: usize) {
    let mut open: Vec<(u64, usize, usize)> = Vec::new();
    let mut next = first;
    let mut refusals = 0;
    for _ in 0..changes {
        if refusals > 3 {
            return;
        }
        if open.len() < 3 || rng.chance(1, 3) {
            let like = Like { atoms: u128::from(rng.below(9000)), ..like(next) };
            let claim = new_claim(&like, None);
            let payment = claim.payment.clone();
            let result = store.claim(claim).await.map(|claimed| assert_eq!(claimed, Claimed::New));
            if told.hear(next, payment, result) {
                open.push((next, usize::try_from(rng.below(WALKS.len() as u64)).unwrap(), 0));
            } else {
                refusals += 1;
            }
            next += 1;
            continue;
        }
        let at_index = usize::try_from(rng.below(open.len() as u64)).unwrap();
        let (n, walk, done) = open[at_index];
        let Some(name) = WALKS[walk].get(done) else {
            open.swap_remove(at_index);
            continue;
        };
        let line = &told.payments[&payment_id(n)];
        let payment = line.answered.clone().unwrap();
        let mut commit: Commit = commit_of(&payment, name, n, at(1 + done as u64));
        if *name == "call_stored" {
            commit.response = Some(response(&vec![u8::try_from(n % 256).unwrap(); 2000]));
        }
        if *name == "attempt_started" {
            commit.slots = vec![(None, slot(n, n, &[n]))];
        }
        let stepped = commit.step.next.clone();
        let result = store.commit(commit).await;
        if told.hear(n, stepped, result) {
            open[at_index].2 += 1;
        } else {
            refusals += 1;
            open.swap_remove(at_index);
        }
    }
}

impl Told {
    /// Whether the change was made.
    fn hear(&mut self, n: u64, payment: Payment, result: Result<(), StoreError>) -> bool {
        let line = self.payments.entry(payment.id).or_insert_with(|| Line { n, ..Line::default() });
        match result {
            Ok(()) => {
                line.answered = Some(payment);
                return true;
            }
            Err(StoreError::Unknown(_)) => {
                line.maybe.push(payment);
                self.unknown += 1;
            }
            // Nothing was changed, and that is the last word.
            Err(StoreError::Down(_) | StoreError::Corrupt(_)) => self.refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        false
    }

    async fn verify(&mut self, store: &SqliteStore, context: &str) {
        let mut there = 0;
        for (id, line) in &mut self.payments {
            let found = store.payment(*id).await.unwrap_or_else(|error| panic!("{context}: {error}"));
            let maybe = found.as_ref().is_some_and(|found| line.maybe.contains(found));
            assert!(found == line.answered || maybe, "{context}: {found:?} instead of {line:?}");
            // What it is now it stays.
            line.maybe.clear();
            line.answered.clone_from(&found);
            let Some(payment) = found else { continue };
            there += 1;
            assert_eq!(
                store.holder(&payment.key).await.unwrap().is_some(),
                !payment.releases_claim(),
                "{context}"
            );
            let history = store.history(*id).await.unwrap();
            let versions: Vec<u64> = history.iter().map(|(version, ..)| *version).collect();
            assert_eq!(versions, (0..=payment.version).collect::<Vec<_>>(), "{context}");
            let stored = history.iter().any(|(_, event, _)| event == "call_stored");
            assert_eq!(store.response(*id).await.unwrap().is_some(), stored, "{context}");
            let attempted = history.iter().any(|(_, event, _)| event == "attempt_started");
            assert_eq!(store.slot(slot_id(line.n)).await.unwrap().is_some(), attempted, "{context}");
        }
        let check = store.check_books().await.unwrap();
        assert_eq!((check.payments, check.problems), (there, vec![]), "{context}");
    }
}

#[test]
fn a_power_cut_at_every_write_of_a_run_loses_nothing_that_was_answered() {
    let whole = |cut: Option<u64>| {
        let disk = Disk::new(cut.unwrap_or(0));
        if let Some(cut) = cut {
            disk.inject(Fault::power_cut().after(cut));
        }
        let mut told = Told::default();
        run(async {
            // The power may also go while the file is being made.
            let Ok(store) = open(&disk) else { return };
            work(&store, &mut told, &mut Rng::new(1), 0, 45).await;
        });
        (disk, told)
    };
    let (disk, told) = whole(None);
    let changes = disk.counts().changes;
    assert!(changes > 100 && told.refused + told.unknown == 0);
    let (mut unknown, mut kept) = (0, 0);
    for cut in 0..changes {
        let (disk, mut told) = whole(Some(cut));
        assert!(disk.is_cut(), "cut {cut}");
        disk.heal();
        disk.restart(Crash::Power);
        let asked = told.payments.values().filter(|line| !line.maybe.is_empty()).count();
        run(async {
            let store = open(&disk).unwrap_or_else(|error| panic!("cut {cut}: {error}"));
            told.verify(&store, &format!("cut {cut}")).await;
            // And it goes on from there.
            work(&store, &mut told, &mut Rng::new(2), 1000, 10).await;
            told.verify(&store, &format!("after cut {cut}")).await;
        });
        unknown += asked;
        kept += told.payments.values().filter(|line| line.answered.is_some()).count();
    }
    assert!(unknown > 20 && kept > 100, "{unknown} unknown, {kept} kept");
}

/// Something of everything: faults, crashes and restarts, and work before, between and after.
#[test]
fn whatever_fails_what_was_answered_is_true() {
    let (mut refused, mut unknown, mut closed) = (0, 0, 0);
    for seed in 0..150 {
        let disk = Disk::new(seed);
        let mut rng = Rng::new(seed);
        let mut told = Told::default();
        let mut first = 0;
        run(async {
            for life in 0..3 {
                let context = format!("seed {seed}, life {life}");
                let store = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                told.verify(&store, &context).await;
                work(&store, &mut told, &mut rng, first, 15).await;
                let fault = match rng.below(5) {
                    0 => Fault::write_fails(),
                    1 => Fault::sync_fails(),
                    2 => Fault::power_cut(),
                    3 => Fault::write_fails().for_good(),
                    _ => {
                        disk.fill_after(rng.below(60_000));
                        Fault::write_fails().on(Kind::Other)
                    }
                };
                disk.inject(fault.after(rng.below(40)));
                work(&store, &mut told, &mut rng, first + 100, 25).await;
                if rng.chance(1, 2) && !disk.is_cut() {
                    // It gets better while it runs: then it goes on, unless a sync failed.
                    disk.heal();
                    work(&store, &mut told, &mut rng, first + 200, 10).await;
                    let refuses = store.payment(payment_id(0)).await.is_err();
                    closed += u32::from(refuses);
                    if !refuses {
                        told.verify(&store, &context).await;
                    }
                }
                match rng.below(3) {
                    0 => {}
                    1 => {
                        disk.cut();
                        drop(store);
                        disk.restart(Crash::Process);
                    }
                    _ => {
                        disk.cut();
                        drop(store);
                        disk.restart(Crash::Power);
                    }
                }
                if disk.is_cut() {
                    disk.restart(Crash::Power);
                }
                disk.heal();
                first += 1000;
            }
            let store = open(&disk).unwrap();
            told.verify(&store, &format!("seed {seed}, at the end")).await;
        });
        refused += told.refused;
        unknown += told.unknown;
    }
    assert!(
        refused > 50 && unknown > 15 && closed > 3,
        "{refused} refused, {unknown} unknown, {closed} closed"
    );
}

#[test]
fn after_a_failed_sync_nothing_is_answered_until_the_store_is_opened_again() {
    let (mut there, mut gone) = (0, 0);
    for seed in 0..60 {
        for (fault, crash) in [
            (Fault::sync_fails(), Crash::Power),
            (Fault::sync_fails_unseen(), Crash::Power),
            (Fault::sync_fails(), Crash::Process),
            (Fault::sync_fails_unseen(), Crash::Process),
        ] {
            let disk = Disk::new(seed);
            let mut told = Told::default();
            run(async {
                let store = open(&disk).unwrap();
                work(&store, &mut told, &mut Rng::new(seed), 0, 12).await;
                // One failure alone, or a disk that has gone bad.
                let fault = fault.clone().on(Kind::Log);
                disk.inject(if seed % 2 == 0 { fault } else { fault.for_good() });
                let claim = new_claim(&like(500), None);
                let answer = store.claim(claim.clone()).await;
                assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
                told.hear(500, claim.payment.clone(), answer.map(|_| ()));
                // The disk says that all is well now, and is not believed.
                disk.heal();
                let down = |answer: Result<(), StoreError>| {
                    assert!(matches!(answer, Err(StoreError::Down(_))), "{answer:?}");
                };
                down(store.claim(claim).await.map(|_| ()));
                down(store.claim(new_claim(&like(501), None)).await.map(|_| ()));
                down(store.payment(payment_id(500)).await.map(|_| ()));
                down(store.check_books().await.map(|_| ()));
                down(store.erase_responses(at(1)).await.map(|_| ()));
                disk.cut();
                drop(store);
                disk.restart(crash);
                let store = open(&disk).unwrap();
                told.verify(&store, &format!("seed {seed}")).await;
                let is_there = store.payment(payment_id(500)).await.unwrap().is_some();
                (there, gone) = (there + u32::from(is_there), gone + u32::from(!is_there));
                // What it says now survives whatever comes.
                work(&store, &mut told, &mut Rng::new(seed), 1000, 10).await;
                disk.cut();
                drop(store);
                disk.restart(Crash::Power);
                told.verify(&open(&disk).unwrap(), &format!("seed {seed}, later")).await;
            });
        }
    }
    assert!(gone > 20, "{there} there, {gone} gone");
}

/// The process dies before it can settle the doubt: the log has a whole commit that was never synced, and the
/// operating system goes on showing it.
#[test]
fn what_a_store_finds_when_it_is_opened_is_durable_before_it_answers() {
    let mut there = 0;
    for seed in 0..100 {
        let disk = Disk::new(seed);
        let mut told = Told::default();
        run(async {
            let store = open(&disk).unwrap();
            work(&store, &mut told, &mut Rng::new(seed), 0, 12).await;
            let claim = new_claim(&like(500), None);
            disk.inject(Fault::sync_fails_unseen().on(Kind::Log));
            // The next thing that changes anything is the settling of the doubt.
            let written = disk.counts().changes;
            disk.inject(Fault::write_fails().on(Kind::Database).for_good());
            let answer = store.claim(claim.clone()).await;
            assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
            assert!(disk.counts().changes > written);
            told.hear(500, claim.payment, answer.map(|_| ()));
            disk.cut();
            drop(store);
            disk.restart(Crash::Process);
            disk.heal();
            let store = open(&disk).unwrap();
            told.verify(&store, &format!("seed {seed}")).await;
            there += u32::from(store.payment(payment_id(500)).await.unwrap().is_some());
            disk.cut();
            drop(store);
            disk.restart(Crash::Power);
            told.verify(&open(&disk).unwrap(), &format!("seed {seed}, after a power cut")).await;
        });
    }
    assert!(there > 10, "only {there} were there: the test does not test this");
}

#[test]
fn a_full_disk_is_down_for_sure_and_the_store_goes_on_when_there_is_room() {
    for seed in 0..60 {
        let disk = Disk::new(seed);
        let mut told = Told::default();
        run(async {
            let store = open(&disk).unwrap();
            work(&store, &mut told, &mut Rng::new(seed), 0, 10).await;
            disk.fill_after(Rng::new(seed).below(30_000));
            for n in 100.. {
                let claim = new_claim(&like(n), None);
                let payment = claim.payment.clone();
                let answer = store.claim(claim).await.map(|_| ());
                if !told.hear(n, payment, answer) {
                    break;
                }
            }
            // Reading goes on, unless the doubt could not be settled for want of room.
            if told.unknown == 0 {
                told.verify(&store, &format!("seed {seed}, full")).await;
            }
            disk.heal();
            assert_eq!(store.claim(new_claim(&like(7000), None)).await, Ok(Claimed::New), "seed {seed}");
            told.hear(7000, new_claim(&like(7000), None).payment, Ok(()));
            told.verify(&store, &format!("seed {seed}, with room")).await;
        });
    }
}
