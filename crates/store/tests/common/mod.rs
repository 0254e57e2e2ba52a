//! Samples and walks that the suites share.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use farthing_engine::{Claim, Claimed, Commit, Credit, ExposureLimit, Store, StoredResponse};
use farthing_payment::{
    Binding, Bound, ConsumptionKey, Dialect, Event, Fault, Flow, Instruction, NewPayment, Payment, Proof,
    Reason, Role, Slot, SlotState, Terms, TxRef, Variant, Witness,
};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RefundId, RequestHash, SlotId, TenantId,
    Timestamp,
};

pub const START: Timestamp = Timestamp::from_secs(1_700_000_000);

pub fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + secs)
}

pub fn network() -> Network {
    Network::eip155(84532)
}

pub fn usdc() -> AssetId {
    AssetId::new(network(), address(0xaa))
}

pub fn gas() -> AssetId {
    AssetId::new(network(), address(0xee))
}

pub fn address(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

pub fn payment_id(n: u64) -> PaymentId {
    PaymentId::new(START, random(n))
}

pub fn slot_id(n: u64) -> SlotId {
    SlotId::new(START, random(n))
}

pub fn attempt(n: u64) -> AttemptId {
    AttemptId::new(START, random(n))
}

pub fn refund(n: u64) -> RefundId {
    RefundId::new(START, random(n))
}

pub fn random(n: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[2..].copy_from_slice(&n.to_be_bytes());
    bytes
}

pub fn reason() -> Reason {
    Reason::new("sample", Fault::Chain)
}

/// What a sample payment may differ in.
#[derive(Debug, Clone)]
pub struct Like {
    pub id: u64,
    pub key: u64,
    pub payer: u8,
    pub atoms: u128,
    pub flow: Flow,
    pub role: Role,
    pub tenant: TenantId,
}

pub fn like(id: u64) -> Like {
    Like {
        id,
        key: id,
        payer: 1,
        atoms: 1000,
        flow: Flow::Authorization,
        role: Role::Seller,
        tenant: TenantId::local(),
    }
}

pub fn new_claim(like: &Like, exposure: Option<ExposureLimit>) -> Claim {
    let new = NewPayment {
        id: payment_id(like.id),
        tenant: like.tenant.clone(),
        key: key(like.key),
        role: like.role,
        flow: like.flow,
        terms: Terms {
            payer: address(like.payer),
            payee: address(0xbb),
            money: Money::new(usdc(), like.atoms),
            expires: at(60),
            dialect: Dialect::X402V2,
            instruction: Instruction::new(vec![7; 200]),
        },
        binding: Binding {
            method: "GET".to_owned(),
            resource: "/weather?in=Lisbon".to_owned(),
            request: RequestHash([3; 32]),
            bound: Bound::ByOffer,
            repeatable: true,
        },
    };
    let (payment, entries) = Payment::claim(new, START);
    Claim { payment, entries, exposure, name: None }
}

pub fn key(n: u64) -> ConsumptionKey {
    ConsumptionKey::new(format!("eip3009/eip155:84532/{}/{}/0x{n:064x}", address(0xaa), address(1)))
}

/// One event of every kind; those with a proof name the log `n` of a block of `n`.
pub fn event(name: &str, n: u64) -> Event {
    let proof = |index| Proof {
        tx: TxRef::new(format!("0x{n:064x}")),
        witness: Witness::Chain,
        block: 100 + n,
        block_hash: [9; 32],
        log_index: index,
        fee: Some(Money::new(gas(), 21_000)),
    };
    let tx = || Some(TxRef::new(format!("0x{n:064x}")));
    match name {
        "funds_confirmed" => Event::FundsConfirmed,
        "funds_refused" => Event::FundsRefused(reason()),
        "call_started" => Event::CallStarted,
        "call_stored" => Event::CallStored,
        "sent" => Event::Sent,
        "call_failed" => Event::CallFailed(reason()),
        "call_lost" => Event::CallLost(reason()),
        "represented" => Event::Represented { request: RequestHash([3; 32]) },
        "attempt_started" => Event::AttemptStarted { attempt: attempt(n), tx: tx() },
        "attempt_dropped" => Event::AttemptDropped { attempt: attempt(n) },
        "included" => Event::Included { proof: proof(1), deep: false },
        "included_deep" => Event::Included { proof: proof(1), deep: true },
        "reverted" => Event::Reverted { reason: reason(), tx: tx() },
        "unclear" => Event::Unclear { tx: tx() },
        "reorged" => Event::Reorged,
        "dead" => Event::Dead(reason()),
        "refund_started" => Event::RefundStarted { refund: refund(n), tx: None },
        "refund_included" => Event::RefundIncluded { proof: proof(2) },
        "refund_dropped" => Event::RefundDropped,
        other => panic!("no event {other}"),
    }
}

pub const EVENTS: [&str; 19] = [
    "funds_confirmed",
    "funds_refused",
    "call_started",
    "call_stored",
    "sent",
    "call_failed",
    "call_lost",
    "represented",
    "attempt_started",
    "attempt_dropped",
    "included",
    "included_deep",
    "reverted",
    "unclear",
    "reorged",
    "dead",
    "refund_started",
    "refund_included",
    "refund_dropped",
];

pub fn commit_of(payment: &Payment, name: &str, n: u64, now: Timestamp) -> Commit {
    let event = event(name, n);
    let name = event.name();
    let step = payment.step(event, now).unwrap_or_else(|error| panic!("{name}: {error}"));
    let credit = match name {
        "included" | "included_deep" => Some(paid_by(n)),
        "reorged" => Some(Credit::Free),
        _ => None,
    };
    Commit { credit, ..Commit::new(step, name) }
}

/// The log that the proof of [`event`] names.
pub fn paid_by(n: u64) -> Credit {
    Credit::Take { network: network(), tx: format!("0x{n:064x}"), log_index: 1 }
}

/// Claims a payment and takes it through the events, one second each.
pub async fn walk(store: &dyn Store, like: &Like, names: &[&str]) -> Payment {
    let claim = new_claim(like, None);
    let mut payment = claim.payment.clone();
    assert_eq!(store.claim(claim).await, Ok(Claimed::New));
    for (second, name) in (1..).zip(names) {
        let mut commit = commit_of(&payment, name, like.id, at(second));
        if *name == "call_stored" {
            commit.response = Some(response(b"sunny"));
        }
        payment = commit.step.next.clone();
        assert_eq!(store.commit(commit).await, Ok(()), "{name}");
    }
    payment
}

pub fn response(body: &[u8]) -> StoredResponse {
    StoredResponse {
        status: 200,
        headers: vec![("content-type".to_owned(), b"text/plain".to_vec()), ("x".to_owned(), vec![0xff])],
        body: body.to_vec().into(),
        trailers: vec![("checksum".to_owned(), b"1".to_vec())],
    }
}

pub fn slot(id: u64, nonce: u64, payments: &[u64]) -> Slot {
    Slot {
        id: slot_id(id),
        network: network(),
        relayer: address(0xcc),
        nonce,
        attempt: attempt(id),
        payments: payments.iter().map(|n| payment_id(*n)).collect(),
        variants: vec![Variant {
            tx: TxRef::new(format!("0x{id:064x}")),
            raw: vec![2; 150].into(),
            max_fee: u128::from(u64::MAX) + 5,
            priority_fee: 1,
            signed: START,
        }],
        state: SlotState::Open,
        updated: START,
    }
}
