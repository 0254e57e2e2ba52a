//! Sellers that send money back: which payments and when is drawn from a stream of its own, so that worlds without
//! refunds play as they did.

use std::sync::Arc;
use std::time::Duration;

use farthing_engine::{PaymentFilter, RefundError, Refunded};
use farthing_evm::{Address, B256, Key, to_alloy};
use farthing_payment::{Payment, Proof, State};
use farthing_primitives::PaymentId;
use futures_channel::oneshot;

use crate::chain::Used;
use crate::exec::lock;
use crate::gateway::{Machine, short};
use crate::plan::{Act, Line};
use crate::rng::Rng;
use crate::run::{Stage, key};
use crate::wait;

/// How many worlds in a thousand have refunds.
const WORLDS: u64 = 250;
/// How long after the troubles a seller may still begin a refund, in milliseconds.
const AFTERWARDS: u64 = 60_000;
/// How often a seller asks again, and how long after each answer that is none.
const ASKS: u32 = 60;
const ASKS_AGAIN: Duration = Duration::from_secs(3);
/// What the nonce of each refund begins with.
const NONCE: &[u8; 16] = b"farthing refund\0";

/// The refunds of a world: none in most.
pub fn draw(seed: u64, heals_at: u64) -> Vec<Line> {
    let mut rng = Rng::stream(seed, "refunds");
    if !rng.per_mille(WORLDS) {
        return Vec::new();
    }
    let lines = (0..rng.between(1, 6)).map(|_| Line {
        at: rng.below(heals_at + AFTERWARDS),
        act: Act::Refund { which: rng.below(1 << 20), at_once: if rng.per_mille(200) { 3 } else { 1 } },
    });
    lines.collect()
}

/// The payment that is paid, and by what.
pub fn settlement(payment: &Payment) -> Option<&Proof> {
    match &payment.state {
        State::Settled { proof, .. } | State::Refunding { proof, .. } | State::Refunded { proof, .. } => {
            Some(proof)
        }
        _ => None,
    }
}

/// A seller wants to send one of its settled payments back, and asks until it is told how that ended: `at_once` times
/// at the same time.
pub async fn want(gateway: &Arc<Machine>, which: u64, at_once: u32) {
    let all = PaymentFilter { limit: 1000, ..PaymentFilter::default() };
    let payments = wait(gateway.platter.payments(all)).unwrap_or_default();
    let settled: Vec<_> = payments.iter().filter(|payment| settlement(payment).is_some()).collect();
    let Some(chosen) =
        usize::try_from(which).ok().and_then(|which| settled.get(which % settled.len().max(1)))
    else {
        return;
    };
    let id = chosen.id;
    gateway.ledger.note(|| format!("a seller wants to refund {id}"));
    lock(&gateway.ledger.facts).refunds.insert(id);
    for _ in 0..at_once {
        let gateway = gateway.clone();
        gateway.exec.clone().spawn(crate::exec::WORLD, Box::pin(async move { insist(&gateway, id).await }));
    }
}

async fn insist(gateway: &Arc<Machine>, id: PaymentId) {
    for _ in 0..ASKS {
        match ask(gateway, id).await {
            Some(Ok(Refunded::Done { proof, .. })) => {
                gateway.ledger.note(|| format!("{id} is refunded by {}", short(proof.tx.as_str())));
                return;
            }
            // It was taken back by a reorganization, or failed: it may be settled again.
            Some(Err(error @ (RefundError::WrongKey { .. } | RefundError::NoPayment(_)))) => {
                return gateway.ledger.broken(format!("{id} cannot be refunded: {error}"));
            }
            Some(said) => gateway.ledger.note(|| format!("{id} is not refunded yet: {said:?}")),
            // The process died, or is down.
            None => {}
        }
        gateway.exec.sleep(ASKS_AGAIN).await;
    }
}

/// Asks the gateway's process, as its operator would. `None`: it does not answer.
async fn ask(gateway: &Arc<Machine>, id: PaymentId) -> Option<Result<Refunded, RefundError>> {
    let engine = lock(&gateway.engine).clone()?;
    let process = (*lock(&gateway.process))?;
    let payee: Key = key(gateway.seed, "payee");
    let (tell, told) = oneshot::channel();
    let asked = async move {
        let _ = tell.send(engine.refund(id, &payee).await);
    };
    gateway.exec.spawn(process, Box::pin(asked));
    told.await.ok()
}

/// The payment that the authorization with this nonce sends back.
fn refunded_by(nonce: &B256) -> Option<PaymentId> {
    let (prefix, id) = nonce.0.split_first_chunk::<16>()?;
    (prefix == NONCE).then(|| Some(PaymentId::from_bytes(id.try_into().ok()?))).flatten()
}

/// When all is over: what the payee sent is a refund that somebody asked for, of a payment that was paid before, of as
/// much as was paid, to who had paid it; and the payment says so. The token takes the nonce of each payment once.
pub(crate) fn all(stage: &Stage, payments: &[Payment]) {
    let broken = |what: String| stage.ledger.broken(what);
    let chain = lock(&stage.tip.chain);
    let tip = chain.tip();
    let facts = lock(&stage.ledger.facts);
    let payee = to_alloy(&stage.gateway.payee).unwrap_or_default();
    let block_of = |tx: &B256| {
        chain
            .blocks
            .iter()
            .find(|block| block.txs.iter().any(|sent| sent.hash == tx.0))
            .map(|b| (b.number, b.hash))
    };
    for ((from, nonce), used) in &tip.state.used {
        if *from != payee {
            continue;
        }
        let payment = refunded_by(nonce).and_then(|id| payments.iter().find(|payment| payment.id == id));
        let (Some(payment), Used::Paid { to, value, tx }) = (payment, used) else {
            broken(format!("the payee used {nonce}, and that is no refund: {used:?}"));
            continue;
        };
        let (id, terms) = (payment.id, &payment.terms);
        if Some(*to) != to_alloy(&terms.payer) || *value != terms.money.atoms() {
            broken(format!("{id} was of {:?}, and {value} went back to {to}", terms.money));
        }
        if !facts.refunds.contains(&id) {
            broken(format!("{id} was refunded, and nobody wanted that"));
        }
        let State::Refunded { proof, refund_proof, .. } = &payment.state else {
            broken(format!("{id} was refunded on chain, and is {}", payment.state.name()));
            continue;
        };
        let Some((number, hash)) = block_of(tx) else { continue };
        if refund_proof.tx.as_str() != tx.to_string()
            || (refund_proof.block, refund_proof.block_hash) != (number, hash)
        {
            broken(format!("{id} is refunded by {}, but the chain says {tx}", refund_proof.tx));
        }
        if proof.block > number {
            broken(format!("{id} was refunded in block {number}, and paid in {}", proof.block));
        }
    }
    let went_back = |payment: &Payment| {
        let of_it =
            |(from, nonce): &(Address, B256)| *from == payee && refunded_by(nonce) == Some(payment.id);
        tip.state.used.keys().any(of_it)
    };
    for payment in payments {
        if matches!(payment.state, State::Refunded { .. }) && !went_back(payment) {
            broken(format!("{} is refunded, and the chain does not show it", payment.id));
        }
    }
}
