//! What must hold: after each block, and when everything is over.

use std::collections::BTreeMap;

use farthing_engine::{PaymentFilter, RelayerKey as _};
use farthing_evm::{B256, U256, to_alloy};
use farthing_ledger::{AccountKind, Phase, Purpose};
use farthing_payment::{Flow, Next, Payment, State};

use crate::chain::{Chain, Used};
use crate::channels;
use crate::escrow::ESCROW;
use crate::exec::lock;
use crate::facilitators::{houses, taken_at_their_word};
use crate::facts::Ledger;
use crate::payer::End;
use crate::refunds::{self, settlement};
use crate::run::{Counts, GAS, Stage};
use crate::wait;
use farthing_wallet::journal::State as Purchased;

/// No atom and no wei is made or lost, whatever the fork.
pub fn block(chain: &Chain, token_total: u128, wei_total: u128, ledger: &Ledger) {
    let state = &chain.tip().state;
    let tokens: u128 = state.token.values().sum();
    let wei = state.wei.values().sum::<u128>() + state.spent_wei;
    if tokens != token_total || wei != wei_total {
        ledger.broken(format!("the chain has {tokens} atoms of {token_total} and {wei} wei of {wei_total}"));
    }
    channels::block(chain, ledger);
}

/// Whether this is the payment of the authorization with this nonce.
pub fn is_of(payment: &Payment, nonce: &B256) -> bool {
    let key = payment.key.as_str();
    // Permit2's nonces are numbers.
    key.contains(&nonce.to_string()) || key.ends_with(&format!(":{}", U256::from_be_bytes(nonce.0)))
}

/// Everything, at the end.
pub(crate) fn all(stage: &Stage) -> Counts {
    let store = &stage.gateway.platter;
    let filter = PaymentFilter { limit: 1000, ..PaymentFilter::default() };
    let payments = wait(store.payments(filter)).unwrap_or_default();
    let mut counts = count(stage, &payments);
    if stage.ledger.violation().is_some() {
        return counts;
    }
    let broken = |what: String| stage.ledger.broken(what);
    match wait(store.check_books()) {
        Ok(books) if books.problems.is_empty() => {}
        other => broken(format!("the books are not in order: {other:?}")),
    }
    match stage.gateway.remotes.as_deref() {
        Some(remotes) if !remotes.chain_read => taken_at_their_word(stage, remotes, &payments),
        _ => {
            for payment in &payments {
                at_rest(stage, payment);
            }
            authorizations(stage, &payments);
            refunds::all(stage, &payments);
        }
    }
    if let Some(remotes) = &stage.gateway.remotes {
        houses(stage, remotes);
    }
    counts.losses = books(stage, &payments);
    deliveries(stage, &payments);
    journals(stage);
    channels::in_the_end(stage, &mut counts);
    if stage.plan.is_fair() {
        everybody_served(stage);
    }
    if let Some(platter) = &stage.gateway.sqlite {
        platter.last_look();
    }
    counts
}

fn count(stage: &Stage, payments: &[Payment]) -> Counts {
    let facts = lock(&stage.ledger.facts);
    let chain = lock(&stage.tip.chain);
    let number = |test: &dyn Fn(&Payment) -> bool| payments.iter().filter(|p| test(p)).count() as u64;
    Counts {
        payments: payments.len() as u64,
        settled: number(&|p| matches!(p.state, State::Settled { .. })),
        failed: number(&|p| matches!(p.state, State::Failed { .. })),
        goods: facts.received.len() as u64,
        services: facts.services.len() as u64,
        restarts: facts.restarts,
        reorganized: chain.reorganized,
        losses: 0,
        remote: stage.gateway.remotes.as_ref().map_or(0, |remotes| remotes.settlements()),
        held: number(&|p| p.next() == Next::Watch),
        believed: number(&|p| is_believed(p, &chain)),
        polls: stage.exec.polls(),
        virtual_secs: stage.exec.micros() / 1_000_000,
        ..Counts::default()
    }
}

/// Whether a payment is settled by a word that the chain knows nothing of.
fn is_believed(payment: &Payment, chain: &Chain) -> bool {
    let State::Settled { proof, .. } = &payment.state else { return false };
    let mut used = chain.tip().state.used.iter();
    !used.any(|((_, nonce), used)| {
        is_of(payment, nonce) && matches!(used, Used::Paid { tx, .. } if proof.tx.as_str() == tx.to_string())
    })
}

/// Every unknown is resolved once the world heals, and nothing is left half done.
fn at_rest(stage: &Stage, payment: &Payment) {
    let rests = match payment.next() {
        Next::Rest => true,
        // Paid, and owed: until its buyer comes back.
        Next::CallUpstream => matches!(payment.state, State::Settled { .. }),
        _ => false,
    };
    if !rests {
        let (state, delivery) = (payment.state.name(), payment.delivery.name());
        stage.ledger.broken(format!("{} never came to rest: {state}, delivery {delivery}", payment.id));
    }
}

/// Each authorization pays at most one payment, and each payment says of its money what the chain says.
fn authorizations(stage: &Stage, payments: &[Payment]) {
    let broken = |what: String| stage.ledger.broken(what);
    let chain = lock(&stage.tip.chain);
    let tip = chain.tip();
    let facts = lock(&stage.ledger.facts);
    let payee = to_alloy(&stage.gateway.payee).unwrap_or_default();
    for (nonce, signed) in &facts.signed {
        let of_it: Vec<&Payment> = payments.iter().filter(|payment| is_of(payment, nonce)).collect();
        let settled: Vec<&&Payment> = of_it.iter().filter(|payment| settlement(payment).is_some()).collect();
        match tip.state.used.get(&(signed.from, *nonce)) {
            Some(Used::Paid { to, value, tx }) => {
                if *to != payee || *value != signed.value {
                    broken(format!("{nonce} paid {value} to {to}, and was signed for something else"));
                }
                let [one] = settled.as_slice() else {
                    let states: Vec<_> = of_it.iter().map(|p| (p.id, p.state.name())).collect();
                    broken(format!("{nonce} was paid on chain, and its payments are {states:?}"));
                    continue;
                };
                let Some(proof) = settlement(one) else { continue };
                let canonical = chain.blocks.iter().find(|block| block.number == proof.block);
                if proof.tx.as_str() != tx.to_string() {
                    broken(format!("{} is settled by {}, but the chain says {tx}", one.id, proof.tx));
                } else if canonical.is_none_or(|block| block.hash != proof.block_hash) {
                    broken(format!("{} is settled in a block that is not in the chain", one.id));
                }
            }
            Some(Used::Cancelled) | None => {
                for payment in settled {
                    broken(format!("{} is settled, and the chain does not show it", payment.id));
                }
            }
        }
    }
    // Nobody pays but by what he signed.
    for ((from, nonce), used) in &tip.state.used {
        let deposits = matches!(used, Used::Paid { to, .. } if *to == ESCROW) || *used == Used::Cancelled;
        if deposits && facts.channels.deposits.contains(nonce) {
            continue;
        }
        if *from != payee && !facts.signed.contains_key(nonce) {
            broken(format!("{from} used {nonce}, which nobody signed"));
        }
    }
}

/// The ledger says what the chain says, to the atom. Returns how many losses it shows.
fn books(stage: &Stage, payments: &[Payment]) -> u64 {
    let chain = lock(&stage.tip.chain);
    let tip = chain.tip();
    let payee = to_alloy(&stage.gateway.payee).unwrap_or_default();
    let has = tip.state.token.get(&payee).copied().unwrap_or_default();
    let has = has + channels::paid_to_relayer(stage, &chain);
    let relayer = to_alloy(&stage.gateway.relayer.address()).unwrap_or_default();
    let store = &stage.gateway.platter;
    let balances = wait(store.balances(None)).unwrap_or_default();
    let net = |kind: AccountKind| {
        let of_kind = balances.iter().filter(|(account, _)| account.kind == kind);
        of_kind.fold(0i128, |sum, (_, balance)| {
            sum + i128::try_from(balance.debits_posted).unwrap_or(i128::MAX)
                - i128::try_from(balance.credits_posted).unwrap_or(i128::MAX)
        })
    };
    let treasury = net(AccountKind::Treasury);
    // Who has no node of its own has in its books what it was told.
    let told = payments.iter().filter(|payment| matches!(payment.state, State::Settled { .. }));
    let told = told.map(|payment| payment.terms.money.atoms()).sum();
    let has = if stage.gateway.sees() { has } else { told };
    if u128::try_from(treasury) != Ok(has) {
        stage.ledger.broken(format!("the treasury says {treasury} atoms, and the payee has {has}"));
    }
    let by_the_unit = channels::receivable(stage);
    if net(AccountKind::Receivable) != by_the_unit {
        let owed = net(AccountKind::Receivable) - by_the_unit;
        stage.ledger.broken(format!("when all is over, {owed} atoms are still to be received"));
    }
    // Each wei of gas is in the books, and once: also of what reverted, and of what only filled a nonce.
    let gas = net(AccountKind::Gas);
    let left = tip.state.wei.get(&relayer).copied().unwrap_or_default();
    let spent = GAS.saturating_sub(left);
    if u128::try_from(gas) != Ok(spent) {
        stage.ledger.broken(format!("the books have {gas} wei of gas, and {spent} were spent"));
    }
    let mut losses = 0;
    for payment in payments {
        let transfers = wait(store.transfers_of(payment.id)).unwrap_or_default();
        let posted = |purpose: Purpose| {
            transfers.iter().any(|(id, _, phase)| {
                id.purpose == purpose && id.round == payment.round && *phase == Phase::Posted
            })
        };
        if settlement(payment).is_some() != posted(Purpose::Settlement) {
            let state = payment.state.name();
            stage.ledger.broken(format!("{} is {state}, and its books say otherwise", payment.id));
        }
        // Whoever sent it paid for it, and says so.
        if let Some(proof) = settlement(payment) {
            let sent = chain.blocks.iter().flat_map(|block| &block.txs);
            let by_us = sent
                .filter(|tx| tx.from == relayer)
                .any(|tx| farthing_evm::B256::new(tx.hash).to_string() == proof.tx.as_str());
            if by_us && !posted(Purpose::Gas) {
                let (id, tx) = (payment.id, &proof.tx);
                stage.ledger.broken(format!("{id} is settled by our own {tx}, whose gas is not booked"));
            }
        }
        losses += u64::from(posted(Purpose::WriteOff));
    }
    losses
}

/// Whoever has goods has paid, or shows as a loss that its flow or a reorganization explains; whoever has paid has
/// goods, or may have them.
fn deliveries(stage: &Stage, payments: &[Payment]) {
    let facts = lock(&stage.ledger.facts);
    let by_id: BTreeMap<_, _> = payments.iter().map(|payment| (payment.id, payment)).collect();
    for id in facts.received.keys() {
        let Some(payment) = by_id.get(id) else {
            stage.ledger.broken(format!("somebody has goods for {id}, which nobody claimed"));
            continue;
        };
        if settlement(payment).is_some() {
            continue;
        }
        let history = wait(stage.gateway.platter.history(*id)).unwrap_or_default();
        let undone = history.iter().any(|(_, event, _)| event == "reorged");
        let lost = matches!(payment.state, State::Failed { .. }) && payment.is_on_credit();
        let held = !stage.gateway.sees() && payment.next() == Next::Watch && payment.is_on_credit();
        if !((lost || held) && payment.flow == Flow::Background || undone) {
            let (state, delivery) = (payment.state.name(), payment.delivery.name());
            stage.ledger.broken(format!("{id} was served for nothing: {state}, delivery {delivery}"));
        }
    }
    for payment in payments {
        if !matches!(payment.state, State::Settled { .. }) || facts.received.contains_key(&payment.id) {
            continue;
        }
        // Its buyer asked once more when all was well, so it must have its goods by now; except where the upstream was
        // cut off and may not be called again, or where the buyer never came to know that it may ask.
        let called = facts.services.iter().any(|service| service.payment == payment.id && service.complete);
        let streams = payment.flow != Flow::Authorization;
        if !(streams && called) {
            let (id, delivery) = (payment.id, payment.delivery.name());
            stage.ledger.broken(format!("{id} was paid, and its buyer has nothing: delivery {delivery}"));
        }
    }
}

/// Each wallet's journal says of each purchase what the chain says, and of none that the chain does not know of.
fn journals(stage: &Stage) {
    let chain = lock(&stage.tip.chain);
    let used = &chain.tip().state.used;
    let facts = lock(&stage.ledger.facts);
    for owner in &stage.owners {
        let broken = |what: String| stage.ledger.broken(format!("wallet {}: {what}", owner.number));
        let purchases = match owner.journal.history(1000) {
            Ok(purchases) => purchases,
            Err(error) => return broken(error.to_string()),
        };
        for (nonce, signed) in facts.signed.iter().filter(|(_, signed)| signed.buyer == owner.number) {
            let of_it =
                purchases.iter().find(|purchase| purchase.consumption.as_str().contains(&nonce.to_string()));
            let Some(purchase) = of_it else {
                broken(format!("{nonce} was shown, and the journal does not know it"));
                continue;
            };
            let paid = matches!(used.get(&(signed.from, *nonce)), Some(Used::Paid { .. }));
            let (id, state) = (purchase.id, purchase.state);
            match (paid, state) {
                (true, Purchased::Settled) if purchase.confirmed => {}
                (false, Purchased::Released) => {}
                _ => broken(format!(
                    "{id} is {state}, confirmed {}; paid on chain: {paid}",
                    purchase.confirmed
                )),
            }
        }
    }
}

/// Where nothing goes wrong, everybody has what he wanted.
fn everybody_served(stage: &Stage) {
    for buyer in &stage.buyers {
        for (n, intent) in lock(&buyer.intents).iter().enumerate() {
            let fine = match &intent.end {
                Some(End::Goods) => true,
                // Credit has an end, and an authorization too short for the depth is refused.
                Some(End::Refused(_)) => intent.shelf.flow == Flow::Background || stage.plan.depth > 1,
                _ => false,
            };
            if !fine {
                let (buyer, path) = (buyer.number, intent.shelf.path);
                stage
                    .ledger
                    .broken(format!("in fair weather buyer {buyer} got no {path} (#{n}): {:?}", intent.end));
            }
        }
    }
}
