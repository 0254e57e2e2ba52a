//! Stored records and their versions. Domain types do not serialize themselves: what is on disk is decided here.
//!
//! What is queried has a column; the rest of a payment is two blobs, `terms` (fixed by the claim) and `detail`
//! (what the state holds). Each blob starts with the version of its encoding.

use farthing_engine::{StoreError, StoredResponse};
use farthing_payment::{
    Binding, Bound, ConsumptionKey, Delivery, Dialect, Fault, Flow, Instruction, Payment, Proof, Reason,
    Role, Slot, SlotState, State, Terms, TxRef, Variant, Witness,
};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RefundId, RequestHash, Timestamp,
};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::codec::{Decoder, Encoder, Malformed};

/// The version of every encoding below. A change of any of them gets a new number, and the old one stays readable.
const VERSION: u8 = 1;

impl From<Malformed> for StoreError {
    fn from(malformed: Malformed) -> Self {
        Self::Corrupt(malformed.to_string())
    }
}

/// A number as SQLite has them. Those that do not fit 63 bits are refused rather than bent.
pub(crate) fn int(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|_| StoreError::Books(format!("{number} does not fit 63 bits")))
}

pub(crate) fn uint(number: i64) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt("a negative number".to_owned()))
}

/// An address in a column: 20 bytes on EVM chains, else its text.
#[derive(Debug)]
pub(crate) enum AddressColumn {
    Evm([u8; 20]),
    Other(Address),
}

impl AddressColumn {
    pub(crate) fn of(address: &Address) -> Self {
        address.evm_bytes().map_or_else(|| Self::Other(address.clone()), Self::Evm)
    }
}

impl ToSql for AddressColumn {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Evm(bytes) => ValueRef::Blob(bytes),
            Self::Other(address) => ValueRef::Text(address.as_str().as_bytes()),
        }))
    }
}

pub(crate) struct OwnedAddress(pub Address);

impl FromSql for OwnedAddress {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => {
                let bytes = bytes.try_into().map_err(|_| FromSqlError::InvalidType)?;
                Ok(Self(Address::from_evm_bytes(bytes)))
            }
            ValueRef::Text(_) => other_address(value.as_str()?).map(Self).ok_or(FromSqlError::InvalidType),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// An address that is not of an EVM chain, as [`Address::parse`] takes it for any other.
fn other_address(text: &str) -> Option<Address> {
    let any_other: Network = "other:0".parse().ok()?;
    Address::parse(&any_other, text).ok()
}

/// An asset in a column: `network/address`, because not every network has a CAIP-19 kind that we know.
pub(crate) fn asset_column(asset: &AssetId) -> String {
    let (network, address) = (asset.network().as_str(), asset.address().as_str());
    let mut text = String::with_capacity(network.len() + 1 + address.len());
    text.push_str(network);
    text.push('/');
    text.push_str(address);
    text
}

pub(crate) fn asset(column: &str) -> Result<AssetId, StoreError> {
    let corrupt = || StoreError::Corrupt(format!("not an asset: {column:?}"));
    let (network, address) = column.split_once('/').ok_or_else(corrupt)?;
    let network: Network = network.parse().map_err(|_| corrupt())?;
    let address = Address::parse(&network, address).map_err(|_| corrupt())?;
    Ok(AssetId::new(network, address))
}

/// What a claim fixes for ever.
pub(crate) fn encode_terms(payment: &Payment) -> Vec<u8> {
    let Payment { key, role, flow, terms, binding, .. } = payment;
    let mut out = Encoder::with_capacity(256 + terms.instruction.as_bytes().len());
    out.byte(VERSION);
    out.byte(match role {
        Role::Seller => 0,
        Role::Facilitator => 1,
    });
    out.byte(match flow {
        Flow::Authorization => 0,
        Flow::Upfront => 1,
        Flow::Background => 2,
    });
    out.byte(match terms.dialect {
        Dialect::X402V1 => 0,
        Dialect::X402V2 => 1,
    });
    out.byte(match binding.bound {
        Bound::ByOffer => 0,
        Bound::ByFirstUse => 1,
    });
    out.byte(u8::from(binding.repeatable));
    out.number(terms.expires.millis());
    out.fixed(&binding.request.0);
    out.text(key.as_str());
    out.text(&binding.method);
    out.text(&binding.resource);
    out.sized(terms.instruction.as_bytes());
    out.finish()
}

/// What columns say of a payment's terms.
pub(crate) struct TermsColumns {
    pub payer: Address,
    pub payee: Address,
    pub money: Money,
}

pub(crate) type Fixed = (ConsumptionKey, Role, Flow, Terms, Binding);

pub(crate) fn decode_terms(bytes: &[u8], columns: TermsColumns) -> Result<Fixed, Malformed> {
    let mut from = Decoder::new(bytes);
    version(&mut from)?;
    let role = match from.byte()? {
        0 => Role::Seller,
        1 => Role::Facilitator,
        _ => return Err(Malformed("no such role")),
    };
    let flow = match from.byte()? {
        0 => Flow::Authorization,
        1 => Flow::Upfront,
        2 => Flow::Background,
        _ => return Err(Malformed("no such flow")),
    };
    let dialect = match from.byte()? {
        0 => Dialect::X402V1,
        1 => Dialect::X402V2,
        _ => return Err(Malformed("no such dialect")),
    };
    let bound = match from.byte()? {
        0 => Bound::ByOffer,
        1 => Bound::ByFirstUse,
        _ => return Err(Malformed("no such bound")),
    };
    let repeatable = flag(&mut from)?;
    let expires = Timestamp::from_millis(from.number()?);
    let request = RequestHash(from.fixed()?);
    let key = ConsumptionKey::new(from.text()?);
    let method = from.text()?.to_owned();
    let resource = from.text()?.to_owned();
    let instruction = Instruction::new(from.sized()?);
    from.finish()?;
    let TermsColumns { payer, payee, money } = columns;
    let terms = Terms { payer, payee, money, expires, dialect, instruction };
    Ok((key, role, flow, terms, Binding { method, resource, request, bound, repeatable }))
}

/// What the state holds besides its name, which has a column.
pub(crate) fn encode_state(state: &State) -> Vec<u8> {
    let mut out = Encoder::with_capacity(160);
    out.byte(VERSION);
    match state {
        State::Claimed | State::Funded => {}
        State::Settling { attempt, since, tx } | State::Unknown { attempt, since, tx } => {
            out.fixed(&attempt.to_bytes());
            out.number(since.millis());
            put_option(&mut out, tx.as_ref(), put_tx);
        }
        State::Confirming { attempt, proof } | State::Settled { attempt, proof } => {
            out.fixed(&attempt.to_bytes());
            put_proof(&mut out, proof);
        }
        State::Refused { reason } | State::Failed { reason } => put_reason(&mut out, reason),
        State::Lapsing { attempt, reason, tx } => {
            out.fixed(&attempt.to_bytes());
            put_reason(&mut out, reason);
            put_option(&mut out, tx.as_ref(), put_tx);
        }
        State::Refunding { attempt, proof, refund, tx } => {
            out.fixed(&attempt.to_bytes());
            put_proof(&mut out, proof);
            out.fixed(&refund.to_bytes());
            put_option(&mut out, tx.as_ref(), put_tx);
        }
        State::Refunded { proof, refund, refund_proof } => {
            put_proof(&mut out, proof);
            out.fixed(&refund.to_bytes());
            put_proof(&mut out, refund_proof);
        }
    }
    out.finish()
}

pub(crate) fn decode_state(name: &str, bytes: &[u8]) -> Result<State, Malformed> {
    let from = &mut Decoder::new(bytes);
    version(from)?;
    let state = match name {
        "claimed" => State::Claimed,
        "funded" => State::Funded,
        "settling" => {
            State::Settling { attempt: attempt(from)?, since: moment(from)?, tx: option(from, tx)? }
        }
        "unknown" => State::Unknown { attempt: attempt(from)?, since: moment(from)?, tx: option(from, tx)? },
        "confirming" => State::Confirming { attempt: attempt(from)?, proof: proof(from)? },
        "settled" => State::Settled { attempt: attempt(from)?, proof: proof(from)? },
        "refused" => State::Refused { reason: reason(from)? },
        "failed" => State::Failed { reason: reason(from)? },
        "lapsing" => State::Lapsing { attempt: attempt(from)?, reason: reason(from)?, tx: option(from, tx)? },
        "refunding" => State::Refunding {
            attempt: attempt(from)?,
            proof: proof(from)?,
            refund: refund(from)?,
            tx: option(from, tx)?,
        },
        "refunded" => {
            State::Refunded { proof: proof(from)?, refund: refund(from)?, refund_proof: proof(from)? }
        }
        _ => return Err(Malformed("no such state")),
    };
    if !from.is_empty() {
        return Err(Malformed("too long"));
    }
    Ok(state)
}

pub(crate) fn delivery(name: &str) -> Result<Delivery, Malformed> {
    [Delivery::None, Delivery::Called, Delivery::Stored, Delivery::Sent, Delivery::Failed]
        .into_iter()
        .find(|delivery| delivery.name() == name)
        .ok_or(Malformed("no such delivery"))
}

/// All of a slot that has no column.
pub(crate) fn encode_slot(slot: &Slot) -> Vec<u8> {
    let mut out = Encoder::with_capacity(512);
    out.byte(VERSION);
    out.fixed(&slot.attempt.to_bytes());
    out.number(slot.payments.len() as u64);
    slot.payments.iter().for_each(|id| out.fixed(&id.to_bytes()));
    out.number(slot.variants.len() as u64);
    for variant in &slot.variants {
        put_tx(&mut out, &variant.tx);
        out.sized(&variant.raw);
        out.wide(variant.max_fee);
        out.wide(variant.priority_fee);
        out.number(variant.signed.millis());
    }
    match &slot.state {
        SlotState::Open | SlotState::Lost => {}
        SlotState::Included { tx, block, block_hash } => {
            put_tx(&mut out, tx);
            out.number(*block);
            out.fixed(block_hash);
        }
        SlotState::Final { tx } => put_tx(&mut out, tx),
    }
    out.finish()
}

/// Fills in what the columns of a slot do not say.
pub(crate) fn decode_slot(mut slot: Slot, state: &str, bytes: &[u8]) -> Result<Slot, Malformed> {
    let from = &mut Decoder::new(bytes);
    version(from)?;
    slot.attempt = attempt(from)?;
    for _ in 0..from.count()? {
        slot.payments.push(PaymentId::from_bytes(from.fixed()?));
    }
    for _ in 0..from.count()? {
        slot.variants.push(Variant {
            tx: tx(from)?,
            raw: from.sized()?.into(),
            max_fee: from.wide()?,
            priority_fee: from.wide()?,
            signed: moment(from)?,
        });
    }
    slot.state = match state {
        "open" => SlotState::Open,
        "included" => SlotState::Included { tx: tx(from)?, block: from.number()?, block_hash: from.fixed()? },
        "final" => SlotState::Final { tx: tx(from)? },
        "lost" => SlotState::Lost,
        _ => return Err(Malformed("no such state of a slot")),
    };
    if !from.is_empty() {
        return Err(Malformed("too long"));
    }
    Ok(slot)
}

/// All of an answer but its body, which has a column of its own.
pub(crate) fn encode_head(response: &StoredResponse) -> Vec<u8> {
    let mut out = Encoder::with_capacity(256);
    out.byte(VERSION);
    out.number(u64::from(response.status));
    for lines in [&response.headers, &response.trailers] {
        out.number(lines.len() as u64);
        for (name, value) in lines {
            out.text(name);
            out.sized(value);
        }
    }
    out.finish()
}

pub(crate) fn decode_response(head: &[u8], body: Vec<u8>) -> Result<StoredResponse, Malformed> {
    let from = &mut Decoder::new(head);
    version(from)?;
    let status = u16::try_from(from.number()?).map_err(|_| Malformed("no such status"))?;
    let headers = lines(from)?;
    let trailers = lines(from)?;
    if !from.is_empty() {
        return Err(Malformed("too long"));
    }
    Ok(StoredResponse { status, headers, body: body.into(), trailers })
}

fn lines(from: &mut Decoder<'_>) -> Result<Vec<(String, Vec<u8>)>, Malformed> {
    (0..from.count()?).map(|_| Ok((from.text()?.to_owned(), from.sized()?.to_vec()))).collect()
}

fn version(from: &mut Decoder<'_>) -> Result<(), Malformed> {
    if from.byte()? == VERSION {
        Ok(())
    } else {
        Err(Malformed("an encoding that is newer than this version"))
    }
}

fn flag(from: &mut Decoder<'_>) -> Result<bool, Malformed> {
    match from.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("neither yes nor no")),
    }
}

fn attempt(from: &mut Decoder<'_>) -> Result<AttemptId, Malformed> {
    Ok(AttemptId::from_bytes(from.fixed()?))
}

fn refund(from: &mut Decoder<'_>) -> Result<RefundId, Malformed> {
    Ok(RefundId::from_bytes(from.fixed()?))
}

fn moment(from: &mut Decoder<'_>) -> Result<Timestamp, Malformed> {
    Ok(Timestamp::from_millis(from.number()?))
}

fn put_option<T>(out: &mut Encoder, value: Option<&T>, put: impl FnOnce(&mut Encoder, &T)) {
    out.byte(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

fn option<T>(
    from: &mut Decoder<'_>,
    read: impl FnOnce(&mut Decoder<'_>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if flag(from)? { read(from).map(Some) } else { Ok(None) }
}

/// A transaction's name: 32 bytes where it is `0x` and 64 lower-case digits, else its text.
fn put_tx(out: &mut Encoder, tx: &TxRef) {
    match hash_bytes(tx.as_str()) {
        Some(bytes) => {
            out.byte(1);
            out.fixed(&bytes);
        }
        None => {
            out.byte(0);
            out.text(tx.as_str());
        }
    }
}

fn tx(from: &mut Decoder<'_>) -> Result<TxRef, Malformed> {
    match from.byte()? {
        0 => Ok(TxRef::new(from.text()?)),
        1 => Ok(TxRef::new(hash_text(&from.fixed()?))),
        _ => Err(Malformed("no such form of a transaction")),
    }
}

fn hash_bytes(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    let mut bytes = [0; 32];
    if digits.len() != 64 {
        return None;
    }
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn hash_text(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(66);
    text.push_str("0x");
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

fn put_reason(out: &mut Encoder, reason: &Reason) {
    out.byte(match reason.fault() {
        Fault::Payer => 0,
        Fault::Payee => 1,
        Fault::Us => 2,
        Fault::Chain => 3,
    });
    out.text(reason.code());
}

fn reason(from: &mut Decoder<'_>) -> Result<Reason, Malformed> {
    let fault = match from.byte()? {
        0 => Fault::Payer,
        1 => Fault::Payee,
        2 => Fault::Us,
        3 => Fault::Chain,
        _ => return Err(Malformed("nobody's fault")),
    };
    Ok(Reason::new(from.text()?, fault))
}

fn put_proof(out: &mut Encoder, proof: &Proof) {
    put_tx(out, &proof.tx);
    out.byte(match proof.witness {
        Witness::Chain => 0,
        Witness::Facilitator => 1,
    });
    out.number(proof.block);
    out.fixed(&proof.block_hash);
    out.number(proof.log_index);
    put_option(out, proof.fee.as_ref(), |out, fee: &Money| {
        out.text(&asset_column(fee.asset()));
        out.wide(fee.atoms());
    });
}

fn proof(from: &mut Decoder<'_>) -> Result<Proof, Malformed> {
    Ok(Proof {
        tx: tx(from)?,
        witness: match from.byte()? {
            0 => Witness::Chain,
            1 => Witness::Facilitator,
            _ => return Err(Malformed("no such witness")),
        },
        block: from.number()?,
        block_hash: from.fixed()?,
        log_index: from.number()?,
        fee: option(from, |from| {
            let asset = asset(from.text()?).map_err(|_| Malformed("not an asset"))?;
            Ok(Money::new(asset, from.wide()?))
        })?,
    })
}
