//! Voucher channels: what happens to them in a world, and what must hold of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farthing_channel::{ChannelId, Payee, PayeeState, PayerState, Why};
use farthing_engine::{ChannelFilter, ChannelStore, RelayerKey as _};
use farthing_evm::{Address, B256, escrow, to_alloy};
use farthing_ledger::AccountKind;
use farthing_primitives::{PaymentId, PurchaseId};
use farthing_wallet::force::SLACK;

use crate::chain::Chain;
use crate::escrow::{ESCROW, GRACE, Record};
use crate::exec::lock;
use crate::facts::Ledger;
use crate::gateway::{BLOCK_TIME, Machine};
use crate::meters::{MARGIN, METERS, Sessions};
use crate::patron::Patron;
use crate::plan::{Act, Line, MOST_SKEW, skew};
use crate::rng::Rng;
use crate::run::{Counts, Stage};
use crate::wait;
use crate::world::EPOCH_SECS;

/// How many worlds in a thousand sell by the unit, too.
const BY_THE_UNIT: u64 = 200;
/// For how long something happens to channels, and when all of that is over, in milliseconds.
const BUSY: u64 = 800_000;
pub const HEALS_AT: u64 = 900_000;
/// After how long a wallet withdraws what it asked the escrow for, by its clock, in milliseconds.
const FORCED: u64 = (GRACE + SLACK.as_secs()) * 1000;
/// How often the seller looks at a channel at least ([`farthing_channel::Limits::look_every`]), in milliseconds.
const LOOKS: u64 = (GRACE - MARGIN.as_secs()) * 1000 / 3;
/// In so many blocks the transactions of two forced closes are included and too deep to be taken back.
const BLOCKS: u64 = 30;
/// How long after that everything must be over. Longest takes a forced close that was asked for at the end of what goes on,
/// by a clock that was wrong, and that a reorganization took back: the wallet comes to withdraw, finds that it has to ask
/// once more, and waits once more; then the seller looks. It is 2,200 seconds.
pub const PEACE: u64 =
    BUSY + MOST_SKEW + 2 * FORCED + LOOKS + BLOCKS * BLOCK_TIME.as_secs() * 1000 - HEALS_AT;
/// A forced close is answered by a seller that is there for so long in one piece while it may be: it looks every 200
/// seconds, and needs some blocks, in whatever weather.
const ANSWERS_WITHIN: Duration = Duration::from_secs(400);

/// What really happened with channels.
#[derive(Debug, Default)]
pub struct Facts {
    /// The highest voucher that left a wallet, by channel.
    pub vouchers: BTreeMap<B256, u128>,
    /// How many left it that were higher than all before.
    pub signed: u64,
    /// The nonces of what was signed for deposits.
    pub deposits: BTreeSet<B256>,
    /// For which purchase of whom a charge was delivered.
    pub goods: BTreeMap<PaymentId, (usize, PurchaseId)>,
    pub services: u64,
    /// Requests to close that were in a block: of which channel, and since when.
    pub forced: BTreeSet<(B256, u64)>,
    seen: BTreeMap<ChannelId, Seen>,
}

/// What a channel was when it was looked at last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    deposit: u128,
    settled: u128,
    accepted: u128,
    spent: u128,
    is_open: bool,
}

/// Whether a world sells by the unit, and what happens then. From a stream of its own.
pub fn draw(seed: u64, fair: bool, depth: u64) -> Option<(Sessions, Vec<Line>)> {
    let mut rng = Rng::stream(seed, "channels");
    if !rng.per_mille(BY_THE_UNIT) {
        return None;
    }
    let sessions = Sessions::draw(&mut rng);
    let mut lines = Vec::new();
    let patrons = sessions.patrons as u64;
    let patron = |rng: &mut Rng| usize::try_from(rng.below(patrons)).unwrap_or(0);
    for _ in 0..rng.between(4, 24) {
        let meter = usize::try_from(rng.below(METERS.len() as u64)).unwrap_or(0);
        let units = if meter == 2 { rng.between(1, 30) } else { rng.between(1, 5) };
        let at_once = if rng.per_mille(150) { rng.between(2, 5) } else { 1 };
        let at_once = u32::try_from(at_once).unwrap_or(1);
        let act = Act::Meter { patron: patron(&mut rng), meter, units, at_once };
        lines.push(Line { at: rng.below(BUSY * 9 / 10), act });
    }
    let mut some = |most: u64, act: &mut dyn FnMut(&mut Rng) -> Act| {
        for _ in 0..rng.below(most + 1) {
            let act = act(&mut rng);
            lines.push(Line { at: rng.below(BUSY), act });
        }
    };
    some(2, &mut |rng| Act::TopUp { patron: patron(rng) });
    some(2, &mut |rng| Act::Leave { patron: patron(rng) });
    some(1, &mut |rng| Act::Force { patron: patron(rng) });
    if fair {
        return Some((sessions, lines));
    }
    some(1, &mut |rng| Act::Cheat { patron: patron(rng) });
    some(1, &mut |rng| Act::CloseStale { patron: patron(rng) });
    some(2, &mut |rng| Act::KillPatron { patron: patron(rng), down_for: rng.between(50, 60_000) });
    some(3, &mut |rng| Act::KillGateway { down_for: rng.between(50, 20_000) });
    some(1, &mut |rng| Act::KillGateway { down_for: rng.between(20_000, 700_000) });
    some(2, &mut |_| Act::FrontRunEscrow);
    some(1, &mut |rng| Act::CancelDeposit { patron: patron(rng) });
    some(3, &mut |rng| Act::reorg(rng, depth));
    some(2, &mut |rng| Act::Net {
        ailments: crate::net::Ailments::draw(rng),
        lasts: rng.between(1_000, 90_000),
    });
    some(1, &mut |rng| Act::Disk {
        ailments: crate::disk::Ailments {
            latency: rng.below(1000),
            refused: rng.below(200),
            in_doubt: rng.below(100),
        },
        lasts: rng.between(1_000, 60_000),
    });
    some(1, &mut |rng| Act::Mood {
        mood: crate::gateway::Mood {
            latency: rng.below(9_000),
            fails: rng.below(400),
            breaks_off: rng.below(400),
            hangs: rng.below(150),
        },
        lasts: rng.between(1_000, 90_000),
    });
    some(1, &mut |rng| Act::Clock {
        gateway: rng.per_mille(500),
        by: skew(rng),
        lasts: rng.between(1_000, 90_000),
    });
    if rng.per_mille(200) {
        let act = Act::Vanish { patron: patron(&mut rng) };
        lines.push(Line { at: rng.below(BUSY), act });
    }
    Some((sessions, lines))
}

fn all(store: &dyn ChannelStore) -> Vec<Payee> {
    wait(store.channels(ChannelFilter { limit: 1000, ..ChannelFilter::default() })).unwrap_or_default()
}

/// Whenever the books changed: what the seller has is signed, what it served is covered, and nothing is forgotten.
pub(crate) fn step(machine: &Machine, patrons: &[std::sync::Arc<Patron>]) {
    for payee in all(&*machine.platter) {
        let id = payee.terms().id;
        let broken = |what: String| machine.ledger.broken(format!("channel {id}: {what}"));
        let now = Seen {
            deposit: payee.deposit(),
            settled: payee.settled(),
            accepted: payee.accepted(),
            spent: payee.spent(),
            is_open: matches!(payee.state(), PayeeState::Open | PayeeState::Closing { .. }),
        };
        let before = lock(&machine.ledger.facts).channels.seen.insert(id, now);
        if before == Some(now) {
            continue;
        }
        if payee.exposure() > payee.limits().credit {
            broken(format!("{} atoms are served beyond what vouchers cover", payee.exposure()));
        }
        if now.is_open && now.accepted > now.deposit {
            broken(format!("a voucher for {} is accepted on a deposit of {}", now.accepted, now.deposit));
        }
        let signed = lock(&machine.ledger.facts).channels.vouchers.get(&B256::from(id.0)).copied();
        if now.accepted > signed.unwrap_or(0) {
            broken(format!("a voucher for {} is accepted, and {signed:?} was signed", now.accepted));
        }
        let before = before.filter(|before| before.is_open);
        if before.is_none_or(|before| before.accepted != now.accepted) {
            let whose = patrons.iter().find(|p| to_alloy(&payee.terms().payer) == Some(p.address()));
            let mark =
                whose.and_then(|patron| patron.journal.channel(&id).ok()).map(|kept| kept.payer.signed());
            if mark.is_none_or(|mark| mark < now.accepted) {
                broken(format!(
                    "the seller has a voucher for {}, and the buyer's mark is {mark:?}",
                    now.accepted
                ));
            }
        }
        if before.is_none_or(|before| before.spent != now.spent) {
            let charges = wait(machine.platter.charges(id, None, 1000)).unwrap_or_default();
            let sum: u128 = charges.iter().map(|charge| charge.atoms).sum();
            if sum != now.spent {
                broken(format!("{} atoms are spent, and all charges together are {sum}", now.spent));
            }
        }
        if let Some(before) = before
            && (before.deposit > now.deposit
                || before.settled > now.settled
                || before.accepted > now.accepted && now.is_open
                || before.spent > now.spent)
        {
            broken(format!("it was {before:?}, and is {now:?}"));
        }
    }
}

/// After each block, on whichever fork: the escrow has what its channels hold, and no payee took more than was signed.
pub(crate) fn block(chain: &Chain, ledger: &Ledger) {
    let state = &chain.tip().state;
    let has = state.token.get(&ESCROW).copied().unwrap_or_default();
    let books = &state.escrow;
    let held: u128 = books.records.values().map(Record::held).sum();
    if has != held || books.deposited != books.paid + books.refunded + held {
        let (deposited, paid, refunded) = (books.deposited, books.paid, books.refunded);
        ledger.broken(format!(
            "the escrow has {has} atoms of {held}; {deposited} came in, {paid} and {refunded} went out"
        ));
    }
    let mut facts = lock(&ledger.facts);
    for (id, record) in &books.records {
        if record.close_requested_at > 0 && facts.channels.forced.insert((*id, record.close_requested_at)) {
            drop(facts);
            ledger.note(|| format!("the escrow is asked to close {id}"));
            facts = lock(&ledger.facts);
        }
        let signed = facts.channels.vouchers.get(id).copied().unwrap_or_default();
        if record.settled > signed || record.settled > record.deposit {
            let (settled, deposit) = (record.settled, record.deposit);
            drop(facts);
            return ledger.broken(format!("{id} paid {settled} of {deposit}, and vouchers are for {signed}"));
        }
    }
}

/// What the books of channels still have to receive in the end: it is owed, or paid ahead.
pub(crate) fn receivable(stage: &Stage) -> i128 {
    let signed = |atoms: u128| i128::try_from(atoms).unwrap_or(i128::MAX);
    all(&*stage.gateway.platter).iter().fold(0, |sum, payee| {
        let lost = match payee.state() {
            PayeeState::Finalized => payee.spent().saturating_sub(payee.settled()),
            _ => 0,
        };
        sum + signed(payee.spent()) - signed(payee.settled()) - signed(lost)
    })
}

/// In the end: seller's books, buyers' journals and the escrow say the same, and nobody lost what he need not.
pub(crate) fn in_the_end(stage: &Stage, counts: &mut Counts) {
    if stage.plan.sessions.is_none() {
        return;
    }
    let chain = lock(&stage.tip.chain);
    let records = &chain.tip().state.escrow.records;
    let payees: BTreeMap<B256, Payee> = all(&*stage.gateway.platter)
        .into_iter()
        .map(|payee| (B256::from(payee.terms().id.0), payee))
        .collect();
    for (id, payee) in &payees {
        seller(stage, &chain, payee, records.get(id));
    }
    for id in records.keys().filter(|id| !payees.contains_key(*id)) {
        stage.ledger.broken(format!("the escrow has {id}, and the seller does not know it"));
    }
    for patron in &stage.patrons {
        buyer(stage, patron, records, &payees);
    }
    ledger(stage, &payees);
    let facts = lock(&stage.ledger.facts);
    let forced: BTreeSet<&B256> = facts.channels.forced.iter().map(|(id, _)| id).collect();
    let withdrawn = withdrawals(&chain);
    counts.channels = records.len() as u64;
    counts.vouchers = facts.channels.signed;
    counts.forced = forced.len() as u64;
    let answered = |id: &&&B256| {
        !withdrawn.contains_key(**id) && records.get(**id).is_some_and(|record| record.finalized)
    };
    counts.answered = forced.iter().filter(answered).count() as u64;
    counts.channels_reorganized = chain.uprooted_from_escrow;
    counts.by_the_unit = facts.channels.services;
}

/// When its payer took the rest back, in seconds, by channel.
fn withdrawals(chain: &Chain) -> BTreeMap<B256, u64> {
    let selector = escrow::withdraw(B256::ZERO);
    let mut found = BTreeMap::new();
    for block in &chain.blocks {
        for (tx, receipt) in block.txs.iter().zip(&block.receipts) {
            let withdraws = tx.to == ESCROW && receipt.success && tx.data.get(..4) == selector.get(..4);
            if let Some(id) = tx.data.get(4..36).filter(|_| withdraws) {
                found.insert(B256::from_slice(id), block.time);
            }
        }
    }
    found
}

/// How long in one piece the gateway listened between these seconds.
fn longest_up(machine: &Machine, from: u64, to: u64) -> Duration {
    let micros = |secs: u64| secs.saturating_sub(EPOCH_SECS) * 1_000_000;
    let (from, to) = (micros(from), micros(to));
    let up = lock(&machine.up);
    let pieces = up.iter().map(|(since, until)| {
        let (begin, end) = ((*since).max(from), until.unwrap_or(u64::MAX).min(to));
        Duration::from_micros(end.saturating_sub(begin))
    });
    pieces.max().unwrap_or_default()
}

fn seller(stage: &Stage, chain: &Chain, payee: &Payee, record: Option<&Record>) {
    let id = payee.terms().id;
    let broken = |what: String| stage.ledger.broken(format!("channel {id}: {what}"));
    let uprooted = chain.uprooted_from_escrow > 0;
    if payee.running().next().is_some() {
        broken("a request is still running".to_owned());
    }
    let state = payee.state();
    let rests = match (state, record) {
        (PayeeState::Open, Some(record)) => !record.finalized && record.close_requested_at == 0,
        (PayeeState::Finalized, Some(record)) => record.finalized,
        // All that vouchers cover is taken, and its payer does not come for the rest. What was served on credit cannot be
        // claimed, and is no loss yet: by a top-up the channel would open again.
        (PayeeState::Closing { why: Why::Forced { .. }, .. }, Some(record)) => {
            let covered = payee.spent().min(payee.accepted());
            !record.finalized && record.close_requested_at > 0 && covered <= payee.settled()
        }
        // Its deposit never came, or went away with its block.
        (PayeeState::Opening | PayeeState::Void { .. }, None) => true,
        // It came to be after all, and its payer did not say so.
        (PayeeState::Void { .. }, Some(_)) => true,
        _ => false,
    };
    if !rests {
        broken(format!("it is {state:?} in the end, and the escrow has {record:?}"));
    }
    let Some(record) = record else {
        if payee.spent() > 0 && !uprooted {
            broken(format!("{} atoms are served on a channel that never was", payee.spent()));
        }
        return;
    };
    let same = (payee.deposit(), payee.settled()) == (record.deposit, record.settled);
    if !same && !matches!(state, PayeeState::Void { .. }) {
        let (deposit, settled) = (payee.deposit(), payee.settled());
        broken(format!("the books have {deposit} and {settled}, and the escrow {record:?}"));
    }
    // What was served and cannot be had any more.
    let lost = payee.spent().saturating_sub(record.settled);
    if !record.finalized || lost <= payee.limits().credit {
        return;
    }
    let Some(at) = withdrawals(chain).get(&B256::from(id.0)).copied() else {
        return broken(format!("{lost} atoms more were served than the seller took when it closed"));
    };
    let there = longest_up(&stage.gateway, record.close_requested_at, at);
    if there >= ANSWERS_WITHIN {
        let asked = record.close_requested_at;
        broken(format!(
            "{lost} atoms were served and taken back: asked at {asked}, withdrawn at {at}, and the seller was there for \
             {there:?}"
        ));
    }
    if at < record.close_requested_at + GRACE {
        broken("it was withdrawn before its time".to_owned());
    }
}

fn buyer(stage: &Stage, patron: &Patron, records: &BTreeMap<B256, Record>, payees: &BTreeMap<B256, Payee>) {
    let broken = |what: String| stage.ledger.broken(format!("patron {}: {what}", patron.number));
    let kept = match patron.journal.channels() {
        Ok(kept) => kept,
        Err(error) => return broken(error.to_string()),
    };
    let address: Address = patron.address();
    for (id, _) in records.iter().filter(|(_, record)| record.payer == address) {
        if !kept.iter().any(|kept| kept.id().0 == id.0) {
            broken(format!("the escrow has {id}, and the journal does not know it"));
        }
    }
    let here = !patron.gone.load(std::sync::atomic::Ordering::Relaxed);
    for kept in kept {
        let (id, payer) = (B256::from(kept.id().0), &kept.payer);
        let record = records.get(&id);
        let settled = record.map_or(0, |record| record.settled);
        let payee = payees.get(&id);
        let accepted = payee.map_or(0, Payee::accepted);
        if payer.signed() < settled.max(accepted) {
            let mark = payer.signed();
            broken(format!("{id}: the mark is {mark}, {accepted} was accepted and {settled} paid"));
        }
        if payee.is_none_or(|payee| payer.used() > payee.spent()) && payer.used() > 0 {
            let (used, spent) = (payer.used(), payee.map(Payee::spent));
            broken(format!("{id}: {used} atoms were bought by the journal, and {spent:?} sold"));
        }
        if !here {
            continue;
        }
        let fits = match (payer.state(), record) {
            (PayerState::Opening | PayerState::Void { .. }, None) => true,
            (PayerState::Over { .. } | PayerState::Finalized, Some(record)) => record.finalized,
            (PayerState::Requested { .. }, Some(record)) => {
                !record.finalized && record.close_requested_at > 0
            }
            (PayerState::Open | PayerState::Leaving { .. }, Some(record)) => !record.finalized,
            _ => false,
        };
        if !fits {
            broken(format!("{id} is {:?}, and the escrow has {record:?}", payer.state()));
        }
        if let Some(record) = record
            && (payer.deposit(), payer.settled()) != (record.deposit, record.settled)
        {
            let (deposit, settled) = (payer.deposit(), payer.settled());
            broken(format!("{id}: the journal has {deposit} and {settled}, and the escrow {record:?}"));
        }
    }
}

/// Accounts that only channels have.
fn ledger(stage: &Stage, payees: &BTreeMap<B256, Payee>) {
    let balances = wait(stage.gateway.platter.balances(None)).unwrap_or_default();
    let held: u128 = payees
        .values()
        .filter(|payee| *payee.state() != PayeeState::Finalized)
        .map(|payee| payee.deposit() - payee.settled())
        .sum();
    for kind in [AccountKind::Escrow, AccountKind::Deposits] {
        let of_kind = balances.iter().filter(|(account, _)| account.kind == kind);
        let (debit, credit) =
            of_kind.fold((0, 0), |(d, c), (_, b)| (d + b.debits_posted, c + b.credits_posted));
        if u128::abs_diff(debit, credit) != held {
            stage.ledger.broken(format!("{kind:?} has {debit} and {credit}, and {held} atoms are held"));
        }
    }
}

/// What the relayer itself was paid, where it is the payee of channels.
pub(crate) fn paid_to_relayer(stage: &Stage, chain: &Chain) -> u128 {
    let relayer = to_alloy(&stage.gateway.relayer.address()).unwrap_or_default();
    chain.tip().state.token.get(&relayer).copied().unwrap_or_default()
}
