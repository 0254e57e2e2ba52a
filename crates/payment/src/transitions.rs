use std::collections::BTreeSet;

use farthing_primitives::{
    Address, AttemptId, Money, Network, PaymentId, RefundId, Registry, RequestHash, TenantId, Timestamp,
};

use crate::{
    Binding, Bound, ConsumptionKey, Dialect, Event, Fault, Flow, Instruction, NewPayment, Payment, Proof,
    Reason, Role, Terms, TxRef, Witness,
};

/// One arrow of the diagram: names of states, deliveries and events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Transition {
    pub from: &'static str,
    pub from_delivery: &'static str,
    pub event: &'static str,
    pub to: &'static str,
    pub to_delivery: &'static str,
}

/// Every transition that the machine can make for this role and flow, found by walking it from the claim.
///
/// The diagram in the docs is printed from this, so that it cannot disagree with the code.
pub fn transitions(role: Role, flow: Flow) -> BTreeSet<Transition> {
    let (start, _) = Payment::claim(sample(role, flow), Timestamp::from_secs(1));
    let mut seen = BTreeSet::new();
    let mut found = BTreeSet::new();
    let mut open = vec![start];
    while let Some(payment) = open.pop() {
        // What a payment may do depends on its former rounds too: a claim is given back in the first one only.
        if !seen.insert((payment.state.name(), payment.delivery.name(), payment.round.min(1))) {
            continue;
        }
        for event in events() {
            let name = event.name();
            if let Ok(step) = payment.step(event, Timestamp::from_secs(2)) {
                found.insert(Transition {
                    from: payment.state.name(),
                    from_delivery: payment.delivery.name(),
                    event: name,
                    to: step.next.state.name(),
                    to_delivery: step.next.delivery.name(),
                });
                open.push(step.next);
            }
        }
    }
    found
}

/// One event of every kind, as they fit a sample payment.
pub(crate) fn events() -> Vec<Event> {
    let now = Timestamp::from_secs(1);
    let attempt = AttemptId::new(now, [1; 10]);
    let refund = RefundId::new(now, [1; 10]);
    let reason = || Reason::new("sample", Fault::Chain);
    let tx = || Some(TxRef::new("0x01"));
    let proof = || Proof {
        tx: TxRef::new("0x01"),
        witness: Witness::Chain,
        block: 1,
        block_hash: [1; 32],
        log_index: 0,
        fee: None,
    };
    vec![
        Event::FundsConfirmed,
        Event::FundsRefused(reason()),
        Event::CallStarted,
        Event::CallStored,
        Event::Sent,
        Event::CallFailed(reason()),
        Event::CallLost(reason()),
        Event::Represented { request: RequestHash([0; 32]) },
        Event::AttemptStarted { attempt, tx: tx() },
        Event::AttemptReplaced { dropped: attempt, attempt, tx: tx() },
        Event::AttemptDropped { attempt },
        Event::Included { proof: proof(), deep: false },
        Event::Included { proof: proof(), deep: true },
        Event::Reverted { reason: reason(), tx: tx() },
        Event::Unclear { tx: tx() },
        Event::Reorged,
        Event::Dead(reason()),
        Event::RefundStarted { refund, tx: tx() },
        Event::RefundIncluded { proof: proof() },
        Event::RefundReplaced { tx: tx() },
        Event::RefundDropped,
    ]
}

pub(crate) fn sample(role: Role, flow: Flow) -> NewPayment {
    let registry = Registry::builtin();
    let network = Network::eip155(84532);
    let money: Money = registry
        .dollar(&network)
        .map_or_else(|| Money::new(native(&network), 1000), |asset| asset.atoms(1000));
    NewPayment {
        id: PaymentId::new(Timestamp::from_secs(1), [1; 10]),
        tenant: TenantId::local(),
        key: ConsumptionKey::new("sample"),
        role,
        flow,
        terms: Terms {
            payer: Address::from_evm_bytes([1; 20]),
            payee: Address::from_evm_bytes([2; 20]),
            money,
            expires: Timestamp::from_secs(60),
            dialect: Dialect::X402V2,
            instruction: Instruction::new(Vec::new()),
        },
        binding: Binding {
            method: "GET".to_owned(),
            resource: "/".to_owned(),
            request: RequestHash([0; 32]),
            bound: Bound::ByOffer,
            repeatable: true,
        },
    }
}

fn native(network: &Network) -> farthing_primitives::AssetId {
    farthing_primitives::AssetId::new(network.clone(), Address::from_evm_bytes([0xee; 20]))
}
