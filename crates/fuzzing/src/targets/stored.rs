//! What a disk gives back: stored records, signed transactions, and a wallet's rules. Damaged bytes are an error, and whole ones are what
//! they were.

use std::time::Duration;

use alloy_rlp::{Encodable, Header};
use bytes::Bytes;
use farthing_engine::StoredResponse;
use farthing_payment::{
    Binding, Bound, ConsumptionKey, Dialect, Fault, Flow, Instruction, NewPayment, Payment, Proof, Reason,
    Role, Slot, SlotState, State, Terms, TxRef, Variant, Witness,
};
use farthing_policy::{Bucket, Caps, HostRule, Rules};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RefundId, RequestHash, SlotId, TenantId,
    Timestamp,
};

use super::is_short;
use crate::input::Input;
use crate::record::{
    TermsColumns, asset, asset_column, check_slot, check_state, check_terms, decode_response, decode_slot,
    decode_state, decode_terms, delivery, encode_head, encode_slot, encode_state, encode_terms,
};
use crate::slot_call::call_in;
use crate::wallet_record::{print_mark, print_rules, read_mark, read_rules};

const STATES: &[&str] = &[
    "claimed",
    "funded",
    "settling",
    "unknown",
    "confirming",
    "settled",
    "refused",
    "failed",
    "lapsing",
    "refunding",
    "refunded",
    "",
];
const SLOT_STATES: &[&str] = &["open", "included", "final", "lost", "?"];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 12 {
        0 => damaged_terms(input.rest()),
        1 => whole_terms(&mut input),
        2 => {
            let name = *input.pick(STATES);
            damaged_state(name, input.rest());
        }
        3 => whole_state(&mut input),
        4 => {
            let name = *input.pick(SLOT_STATES);
            damaged_slot(name, input.rest());
        }
        5 => whole_slot(&mut input),
        6 => damaged_response(input.rest()),
        7 => whole_response(&mut input),
        8 => transaction(input.rest()),
        9 => whole_transaction(&mut input),
        10 => rules(input.rest()),
        _ => whole_rules(&mut input),
    }
}

fn money(input: &mut Input<'_>) -> Money {
    let network = Network::eip155(input.u64());
    Money::new(AssetId::new(network, Address::from_evm_bytes(input.array())), input.u128())
}

fn columns(payment: &Payment) -> TermsColumns {
    TermsColumns {
        payer: payment.terms.payer.clone(),
        payee: payment.terms.payee.clone(),
        money: payment.terms.money.clone(),
    }
}

fn damaged_terms(bytes: &[u8]) {
    let columns = |seed: u8| TermsColumns {
        payer: Address::from_evm_bytes([seed; 20]),
        payee: Address::from_evm_bytes([seed ^ 1; 20]),
        money: money(&mut Input::new(&[seed])),
    };
    match decode_terms(bytes, columns(1)) {
        Ok((key, role, flow, terms, binding)) => {
            let (id, tenant) = (PaymentId::from_bytes([1; 16]), TenantId::local());
            let new = NewPayment { id, tenant, key, role, flow, terms, binding };
            let (payment, _) = Payment::claim(new, Timestamp::from_secs(1));
            terms_survive(&payment);
        }
        Err(error) => is_short(&error),
    }
}

fn whole_terms(input: &mut Input<'_>) {
    let new = NewPayment {
        id: PaymentId::from_bytes(input.array()),
        tenant: TenantId::local(),
        key: ConsumptionKey::new(input.text()),
        role: *input.pick(&[Role::Seller, Role::Facilitator]),
        flow: *input.pick(&[Flow::Authorization, Flow::Upfront, Flow::Background]),
        terms: Terms {
            payer: Address::from_evm_bytes(input.array()),
            payee: Address::from_evm_bytes(input.array()),
            money: money(input),
            expires: Timestamp::from_millis(input.u64()),
            dialect: *input.pick(&[Dialect::X402V1, Dialect::X402V2, Dialect::Mpp]),
            instruction: Instruction::new(input.blob()),
        },
        binding: Binding {
            method: input.text(),
            resource: input.text(),
            request: RequestHash(input.array()),
            bound: *input.pick(&[Bound::ByOffer, Bound::ByFirstUse]),
            repeatable: input.flag(),
        },
    };
    let payment = Payment::claim(new, Timestamp::from_secs(1)).0;
    terms_survive(&payment);
    let bytes = encode_terms(&payment);
    assert!(check_terms(&payment, &rotten(&bytes, input)).is_err());
    // The columns beside the blob are sealed with it.
    let mut other = payment;
    other.created = Timestamp::from_secs(2);
    assert!(check_terms(&other, &bytes).is_err());
}

/// The same with one bit rotten, anywhere but in the first byte, which says how to read the rest.
fn rotten(bytes: &[u8], input: &mut Input<'_>) -> Vec<u8> {
    let mut rotten = bytes.to_vec();
    let at = 1 + usize::from(input.u16()) % (bytes.len() - 1);
    rotten[at] ^= 1 << (input.byte() % 8);
    rotten
}

fn terms_survive(payment: &Payment) {
    let bytes = encode_terms(payment);
    assert!(check_terms(payment, &bytes).is_ok());
    let Ok((key, role, flow, terms, binding)) = decode_terms(&bytes, columns(payment)) else {
        panic!("our own record is damaged");
    };
    assert_eq!((&key, role, flow), (&payment.key, payment.role, payment.flow));
    assert_eq!((&terms, &binding), (&payment.terms, &payment.binding));
    // No part of a record is a record.
    assert!(decode_terms(&bytes[..bytes.len() - 1], columns(payment)).is_err());
    assert!(decode_terms(&[&bytes[..], &[0]].concat(), columns(payment)).is_err());
    let column = asset_column(payment.terms.money.asset());
    assert_eq!(asset(&column).as_ref(), Ok(payment.terms.money.asset()));
}

/// A payment in this state, with nothing else of interest.
fn in_state(state: State) -> Payment {
    let new = NewPayment {
        id: PaymentId::from_bytes([1; 16]),
        tenant: TenantId::local(),
        key: ConsumptionKey::new("key"),
        role: Role::Seller,
        flow: Flow::Authorization,
        terms: Terms {
            payer: Address::from_evm_bytes([1; 20]),
            payee: Address::from_evm_bytes([2; 20]),
            money: money(&mut Input::new(&[])),
            expires: Timestamp::from_secs(1),
            dialect: Dialect::X402V2,
            instruction: Instruction::new([]),
        },
        binding: Binding {
            method: "GET".into(),
            resource: "/".into(),
            request: RequestHash([0; 32]),
            bound: Bound::ByOffer,
            repeatable: false,
        },
    };
    Payment { state, ..Payment::claim(new, Timestamp::from_secs(1)).0 }
}

fn damaged_state(name: &str, bytes: &[u8]) {
    let _ = delivery(name);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(found) = asset(text)
    {
        assert_eq!(asset(&asset_column(&found)).as_ref(), Ok(&found));
    }
    let network = in_state(State::Claimed).terms.money.asset().network().clone();
    match decode_state(name, bytes, &network) {
        Ok(state) => state_survives(&in_state(state)),
        Err(error) => is_short(&error),
    }
}

fn tx(input: &mut Input<'_>) -> TxRef {
    if input.flag() {
        TxRef::new(format!("0x{}", hex::encode(input.array::<32>())))
    } else {
        TxRef::new(input.text())
    }
}

fn proof(input: &mut Input<'_>) -> Proof {
    Proof {
        tx: tx(input),
        witness: *input.pick(&[Witness::Chain, Witness::Facilitator]),
        block: input.u64(),
        block_hash: input.array(),
        log_index: input.u64(),
        fee: input.flag().then(|| money(input)),
    }
}

fn reason(input: &mut Input<'_>) -> Reason {
    let fault = *input.pick(&[Fault::Payer, Fault::Payee, Fault::Us, Fault::Chain]);
    Reason::new(&input.text(), fault)
}

fn whole_state(input: &mut Input<'_>) {
    let which = input.byte();
    let attempt = AttemptId::from_bytes(input.array());
    let refund = RefundId::from_bytes(input.array());
    let since = Timestamp::from_millis(input.u64());
    let some_tx = |input: &mut Input<'_>| input.flag().then(|| tx(input));
    let state = match which % 11 {
        0 => State::Claimed,
        1 => State::Funded,
        2 => State::Settling { attempt, since, tx: some_tx(input) },
        3 => State::Unknown { attempt, since, tx: some_tx(input) },
        4 => State::Confirming { attempt, proof: proof(input) },
        5 => State::Settled { attempt, proof: proof(input) },
        6 => State::Refused { reason: reason(input) },
        7 => State::Failed { reason: reason(input) },
        8 => State::Lapsing { attempt, reason: reason(input), tx: some_tx(input) },
        9 => State::Refunding { attempt, proof: proof(input), refund, tx: some_tx(input) },
        _ => State::Refunded { proof: proof(input), refund, refund_proof: proof(input) },
    };
    let payment = in_state(state);
    state_survives(&payment);
    let bytes = encode_state(&payment);
    assert!(check_state(&payment, &rotten(&bytes, input)).is_err());
}

fn state_survives(payment: &Payment) {
    let (state, bytes) = (&payment.state, encode_state(payment));
    assert!(check_state(payment, &bytes).is_ok());
    let network = payment.terms.money.asset().network();
    assert_eq!(decode_state(state.name(), &bytes, network).as_ref().ok(), Some(state));
    assert!(decode_state(state.name(), &bytes[..bytes.len() - 1], network).is_err());
    assert!(decode_state(state.name(), &[&bytes[..], &[0]].concat(), network).is_err());
}

fn empty_slot() -> Slot {
    Slot {
        id: SlotId::from_bytes([1; 16]),
        network: Network::eip155(84532),
        relayer: Address::from_evm_bytes([2; 20]),
        nonce: 7,
        attempt: AttemptId::from_bytes([0; 16]),
        payments: Vec::new(),
        variants: Vec::new(),
        state: SlotState::Open,
        updated: Timestamp::from_secs(1),
    }
}

fn damaged_slot(name: &str, bytes: &[u8]) {
    match decode_slot(empty_slot(), name, bytes) {
        Ok(slot) => {
            // No amplification: a few bytes cannot stand for many payments.
            assert!(slot.payments.len() * 16 + slot.variants.len() <= bytes.len());
            slot_survives(&slot);
        }
        Err(error) => is_short(&error),
    }
}

fn whole_slot(input: &mut Input<'_>) {
    let mut slot = empty_slot();
    slot.attempt = AttemptId::from_bytes(input.array());
    slot.payments = (0..input.byte() % 4).map(|_| PaymentId::from_bytes(input.array())).collect();
    slot.variants = (0..input.byte() % 4)
        .map(|_| Variant {
            tx: tx(input),
            raw: input.blob().into(),
            max_fee: input.u128(),
            priority_fee: input.u128(),
            signed: Timestamp::from_millis(input.u64()),
        })
        .collect();
    slot.state = match input.byte() % 4 {
        0 => SlotState::Open,
        1 => SlotState::Included { tx: tx(input), block: input.u64(), block_hash: input.array() },
        2 => SlotState::Final { tx: tx(input) },
        _ => SlotState::Lost,
    };
    slot_survives(&slot);
    let bytes = encode_slot(3, &slot);
    assert!(check_slot(3, &slot, &rotten(&bytes, input)).is_err());
    assert!(check_slot(4, &slot, &bytes).is_err());
}

fn slot_survives(slot: &Slot) {
    let bytes = encode_slot(3, slot);
    assert!(check_slot(3, slot, &bytes).is_ok());
    assert_eq!(decode_slot(empty_slot(), slot.state.name(), &bytes).as_ref().ok(), Some(slot));
    assert!(decode_slot(empty_slot(), slot.state.name(), &bytes[..bytes.len() - 1]).is_err());
    assert!(decode_slot(empty_slot(), slot.state.name(), &[&bytes[..], &[0]].concat()).is_err());
}

/// What the wallet's owner allowed is what comes back, or nothing is allowed.
fn rules(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    if let Some(rules) = read_rules(text) {
        rules_survive(&rules);
    }
    if let Some(mark) = read_mark(text) {
        assert_eq!(read_mark(&print_mark(&mark)), Some(mark));
    }
}

fn whole_rules(input: &mut Input<'_>) {
    let network = Network::eip155(input.u64());
    let mut rules = Rules::tight([network.clone()]);
    rules.frozen = input.flag();
    rules.schemes.insert(input.text());
    let caps = Caps { per_payment: input.u128(), hour: input.u128(), day: input.u128() };
    let asset = AssetId::new(network, Address::from_evm_bytes(input.array()));
    rules.caps.insert(if input.flag() { Bucket::Dollar } else { Bucket::Asset(asset) }, caps);
    if let Ok(pattern) = input.text().parse() {
        rules.hosts.push(HostRule { pattern, private: input.flag(), plaintext: input.flag() });
    }
    rules.max_validity = Duration::from_secs(input.u64());
    rules.breaker = None;
    rules_survive(&rules);
}

fn rules_survive(rules: &Rules) {
    let text = print_rules(rules);
    assert_eq!(read_rules(&text).as_ref(), Some(rules), "{text}");
    // Broken off, they allow nothing.
    assert_eq!(read_rules(&text[..text.len() - 1]), None);
}

const OF: [u8; 16] = [5; 16];

fn damaged_response(head: &[u8]) {
    match decode_response(PaymentId::from_bytes(OF), head, vec![1, 2, 3]) {
        Ok(response) => response_survives(&response),
        Err(error) => is_short(&error),
    }
}

fn whole_response(input: &mut Input<'_>) {
    let lines = |input: &mut Input<'_>| {
        (0..input.byte() % 4).map(|_| (input.text(), input.blob().to_vec())).collect::<Vec<_>>()
    };
    let status = input.u16();
    let (headers, trailers) = (lines(input), lines(input));
    let response = StoredResponse { status, headers, trailers, body: Bytes::copy_from_slice(input.blob()) };
    response_survives(&response);
    let (of, head) = (PaymentId::from_bytes(OF), encode_head(PaymentId::from_bytes(OF), &response));
    assert!(decode_response(of, &rotten(&head, input), response.body.to_vec()).is_err());
    // Neither another body nor another payment's answer passes for it.
    assert!(decode_response(of, &head, [&response.body[..], &[0]].concat()).is_err());
    assert!(decode_response(PaymentId::from_bytes([6; 16]), &head, response.body.to_vec()).is_err());
}

fn response_survives(response: &StoredResponse) {
    let of = PaymentId::from_bytes(OF);
    let head = encode_head(of, response);
    assert_eq!(decode_response(of, &head, response.body.to_vec()).as_ref().ok(), Some(response));
    assert!(decode_response(of, &head[..head.len() - 1], response.body.to_vec()).is_err());
}

fn transaction(raw: &[u8]) {
    if let Some(call) = call_in(raw) {
        assert!(call.data.len() <= raw.len());
        assert!(call.to.evm_bytes().is_some());
    }
}

/// The call of a transaction that another encoder wrote is read as it was meant.
///
/// Spec: EIP-1559.
fn whole_transaction(input: &mut Input<'_>) {
    let (chain_id, nonce, gas) = (input.u64(), input.u64(), input.u64());
    let (priority_fee, max_fee, value) = (input.u128(), input.u128(), input.u128());
    let to: [u8; 20] = input.array();
    let list_len = usize::from(input.u16() % 1024);
    let data = [input.rest(), &vec![0x5a; list_len]].concat();
    let mut fields = Vec::new();
    chain_id.encode(&mut fields);
    nonce.encode(&mut fields);
    priority_fee.encode(&mut fields);
    max_fee.encode(&mut fields);
    gas.encode(&mut fields);
    to.encode(&mut fields);
    value.encode(&mut fields);
    data.as_slice().encode(&mut fields);
    Header { list: true, payload_length: 0 }.encode(&mut fields);
    true.encode(&mut fields);
    [7u8; 32].encode(&mut fields);
    [8u8; 32].encode(&mut fields);
    let mut raw = vec![2];
    Header { list: true, payload_length: fields.len() }.encode(&mut raw);
    raw.extend_from_slice(&fields);
    let call = call_in(&raw).expect("a transaction");
    assert_eq!((call.to.evm_bytes(), call.gas, &call.data[..]), (Some(to), gas, &data[..]));
    // Broken off, it is not taken for another.
    for cut in [1, fields.len() / 2, fields.len() - 1] {
        assert!(call_in(&raw[..cut]).is_none());
    }
}
