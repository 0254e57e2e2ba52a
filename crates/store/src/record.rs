//! Stored records and their versions. Domain types do not serialize themselves: what is on disk is decided here.
//!
//! What is queried has a column; the rest of a payment is two blobs, `terms` (fixed by the claim) and `detail`
//! (what the state holds). Each blob starts with the version of its encoding, and ends with a seal over itself and
//! the columns that belong to it: SQLite's pages have no checksums, and a bit that rots is to be an error, not money.

use std::borrow::Cow;

use farthing_engine::{StoreError, StoredResponse};
use farthing_payment::{
    Binding, Bound, ConsumptionKey, Delivery, Dialect, Fault, Flow, Instruction, Payment, Proof, Reason,
    Role, Slot, SlotState, State, Terms, TxRef, Variant, Witness,
};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RefundId, RequestHash, Timestamp,
};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSql, ToSqlOutput, ValueRef};
use sha2::{Digest, Sha256};

use crate::codec::{Decoder, Encoder, Malformed};
use crate::pack::{pack, unpack};

/// The version of every encoding below. A change of any of them gets a new number, and the old one stays readable.
const VERSION: u8 = 3;

/// The version that was not packed.
const PLAIN: u8 = 2;

/// The version that had no seals.
const UNSEALED: u8 = 1;

/// The bytes of a seal: the first of a SHA-256. It guards against accidents, not against somebody who can write the
/// file.
const SEAL_LEN: usize = 8;

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

/// A transaction in a column: 32 bytes where it is `0x` and 64 lower-case digits, else its text.
#[derive(Debug)]
pub(crate) enum TxColumn<'a> {
    Hash([u8; 32]),
    Other(&'a str),
}

impl<'a> TxColumn<'a> {
    pub(crate) fn of(tx: &'a str) -> Self {
        hash_bytes(tx).map_or(Self::Other(tx), Self::Hash)
    }
}

impl ToSql for TxColumn<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Hash(bytes) => ValueRef::Blob(bytes),
            Self::Other(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

pub(crate) struct OwnedTx(pub String);

impl FromSql for OwnedTx {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(bytes) => {
                let bytes = bytes.try_into().map_err(|_| FromSqlError::InvalidType)?;
                Ok(Self(hash_text(bytes)))
            }
            ValueRef::Text(_) => Ok(Self(value.as_str()?.to_owned())),
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

/// What a seal covers besides the blob.
#[derive(Debug, Default)]
struct Seal(Sha256);

impl Seal {
    fn with(mut self, part: &[u8]) -> Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    fn with_number(self, number: u64) -> Self {
        self.with(&number.to_be_bytes())
    }

    fn with_address(self, address: &Address) -> Self {
        match AddressColumn::of(address) {
            AddressColumn::Evm(bytes) => self.with(&bytes),
            AddressColumn::Other(address) => self.with(address.as_str().as_bytes()),
        }
    }

    fn finish(self, blob: &[u8]) -> [u8; SEAL_LEN] {
        let digest: [u8; 32] = self.with(blob).0.finalize().into();
        let mut seal = [0; SEAL_LEN];
        for (byte, from) in seal.iter_mut().zip(digest) {
            *byte = from;
        }
        seal
    }

    fn put(self, mut blob: Vec<u8>) -> Vec<u8> {
        let seal = self.finish(&blob);
        blob.extend_from_slice(&seal);
        blob
    }

    /// The same of a record that is packed first.
    fn pack(self, known: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut blob = vec![VERSION];
        blob.append(&mut pack(known, plain));
        self.put(blob)
    }

    fn check(self, sealed: &[u8]) -> Result<(), Malformed> {
        match sealed.split_last_chunk::<SEAL_LEN>() {
            _ if sealed.first() == Some(&UNSEALED) => Ok(()),
            Some((blob, seal)) if self.finish(blob) == *seal => Ok(()),
            _ => Err(Malformed("its seal is broken")),
        }
    }
}

fn seal_of_terms(payment: &Payment) -> Seal {
    Seal::default()
        .with(&payment.id.to_bytes())
        .with(payment.tenant.as_str().as_bytes())
        .with_number(payment.created.millis())
        .with_address(&payment.terms.payer)
        .with_address(&payment.terms.payee)
        .with(asset_column(payment.terms.money.asset()).as_bytes())
        .with(&payment.terms.money.atoms().to_be_bytes())
}

fn seal_of_state(payment: &Payment) -> Seal {
    Seal::default()
        .with(&payment.id.to_bytes())
        .with_number(payment.version)
        .with_number(u64::from(payment.round))
        .with(payment.state.name().as_bytes())
        .with(payment.delivery.name().as_bytes())
        .with_number(payment.updated.millis())
}

fn seal_of_slot(version: u64, slot: &Slot) -> Seal {
    Seal::default()
        .with(&slot.id.to_bytes())
        .with_number(version)
        .with(slot.network.as_str().as_bytes())
        .with_address(&slot.relayer)
        .with_number(slot.nonce)
        .with(slot.state.name().as_bytes())
        .with_number(slot.updated.millis())
}

fn seal_of_response(payment: PaymentId, body: &[u8]) -> Seal {
    Seal::default().with(&payment.to_bytes()).with(body)
}

/// Whether what was read of a payment is what was written.
pub(crate) fn check_terms(payment: &Payment, terms: &[u8]) -> Result<(), Malformed> {
    seal_of_terms(payment).check(terms)
}

/// The same for what its state holds, of the payment's own row or of one line of its history.
pub(crate) fn check_state(payment: &Payment, detail: &[u8]) -> Result<(), Malformed> {
    seal_of_state(payment).check(detail)
}

pub(crate) fn check_slot(version: u64, slot: &Slot, body: &[u8]) -> Result<(), Malformed> {
    seal_of_slot(version, slot).check(body)
}

/// The record after its version and before its seal, and whether it was written before records were packed.
fn unsealed<'a>(bytes: &'a [u8], known: &[u8]) -> Result<(Cow<'a, [u8]>, bool), Malformed> {
    match bytes.split_first() {
        Some((&UNSEALED, body)) => Ok((Cow::Borrowed(body), true)),
        Some((&PLAIN, sealed)) => Ok((Cow::Borrowed(body(sealed)?), true)),
        Some((&VERSION, sealed)) => Ok((Cow::Owned(unpack(known, body(sealed)?)?), false)),
        _ => Err(Malformed("an encoding that this version does not know")),
    }
}

fn body(sealed: &[u8]) -> Result<&[u8], Malformed> {
    sealed.split_last_chunk::<SEAL_LEN>().map(|(body, _)| body).ok_or(Malformed("too short"))
}

/// What records say often, whatever their columns are.
const WORDS: &[u8] =
    b"application/json content-type eip3009:permit2:0xeeeeeeeePOST/settleGET/http://https://";

/// What the reader of a payment's terms knows from its columns.
fn known_of_terms(payer: &Address, payee: &Address, money: &Money) -> Vec<u8> {
    let mut known = WORDS.to_vec();
    known.extend_from_slice(asset_column(money.asset()).as_bytes());
    for address in [payer, payee, money.asset().address()] {
        match address.evm_bytes() {
            Some(bytes) => known.extend_from_slice(&bytes),
            None => known.extend_from_slice(address.as_str().as_bytes()),
        }
    }
    known.extend_from_slice(&money.atoms().to_be_bytes());
    known
}

/// What the reader of a state or of a slot knows.
fn known_of_network(network: &Network) -> Vec<u8> {
    [WORDS, network.as_str().as_bytes(), b"/"].concat()
}

/// What a claim fixes for ever.
pub(crate) fn encode_terms(payment: &Payment) -> Vec<u8> {
    let Payment { key, role, flow, terms, binding, .. } = payment;
    let mut out = Encoder::with_capacity(256 + terms.instruction.as_bytes().len());
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
        Dialect::Mpp => 2,
    });
    out.byte(match binding.bound {
        Bound::ByOffer => 0,
        Bound::ByFirstUse => 1,
    });
    out.byte(u8::from(binding.repeatable));
    out.number(terms.expires.millis());
    out.fixed(&binding.request.0);
    out.text(&binding.method);
    out.text(&binding.resource);
    out.sized(terms.instruction.as_bytes());
    // Last, since it spells out what the instruction has.
    out.text(key.as_str());
    let known = known_of_terms(&terms.payer, &terms.payee, &terms.money);
    seal_of_terms(payment).pack(&known, &out.finish())
}

/// What columns say of a payment's terms.
pub(crate) struct TermsColumns {
    pub payer: Address,
    pub payee: Address,
    pub money: Money,
}

pub(crate) type Fixed = (ConsumptionKey, Role, Flow, Terms, Binding);

pub(crate) fn decode_terms(bytes: &[u8], columns: TermsColumns) -> Result<Fixed, Malformed> {
    let known = known_of_terms(&columns.payer, &columns.payee, &columns.money);
    let (record, key_first) = unsealed(bytes, &known)?;
    let mut from = Decoder::new(&record);
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
        2 => Dialect::Mpp,
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
    let before = if key_first { Some(from.text()?) } else { None };
    let method = from.text()?.to_owned();
    let resource = from.text()?.to_owned();
    let instruction = Instruction::new(from.sized()?);
    let key = ConsumptionKey::new(before.map_or_else(|| from.text(), Ok)?);
    from.finish()?;
    let TermsColumns { payer, payee, money } = columns;
    let terms = Terms { payer, payee, money, expires, dialect, instruction };
    Ok((key, role, flow, terms, Binding { method, resource, request, bound, repeatable }))
}

/// What the state holds besides its name, which has a column.
pub(crate) fn encode_state(payment: &Payment) -> Vec<u8> {
    let mut out = Encoder::with_capacity(160);
    match &payment.state {
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
    let known = known_of_network(payment.terms.money.asset().network());
    seal_of_state(payment).pack(&known, &out.finish())
}

pub(crate) fn decode_state(name: &str, bytes: &[u8], network: &Network) -> Result<State, Malformed> {
    let (record, _) = unsealed(bytes, &known_of_network(network))?;
    let from = &mut Decoder::new(&record);
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
pub(crate) fn encode_slot(version: u64, slot: &Slot) -> Vec<u8> {
    let mut out = Encoder::with_capacity(512);
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
    seal_of_slot(version, slot).pack(&known_of_network(&slot.network), &out.finish())
}

/// Fills in what the columns of a slot do not say.
pub(crate) fn decode_slot(mut slot: Slot, state: &str, bytes: &[u8]) -> Result<Slot, Malformed> {
    let (record, _) = unsealed(bytes, &known_of_network(&slot.network))?;
    let from = &mut Decoder::new(&record);
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
pub(crate) fn encode_head(payment: PaymentId, response: &StoredResponse) -> Vec<u8> {
    let mut out = Encoder::with_capacity(256);
    out.number(u64::from(response.status));
    for lines in [&response.headers, &response.trailers] {
        out.number(lines.len() as u64);
        for (name, value) in lines {
            out.text(name);
            out.sized(value);
        }
    }
    seal_of_response(payment, &response.body).pack(WORDS, &out.finish())
}

pub(crate) fn decode_response(
    payment: PaymentId,
    head: &[u8],
    body: Vec<u8>,
) -> Result<StoredResponse, Malformed> {
    seal_of_response(payment, &body).check(head)?;
    let (record, _) = unsealed(head, WORDS)?;
    let from = &mut Decoder::new(&record);
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

/// A record of a channel or a charge, as its own crate prints it, with a seal over it and its columns.
pub(crate) fn seal_channels(of: &[&[u8]], mut record: Vec<u8>) -> Vec<u8> {
    let seal = of.iter().fold(Seal::default(), |seal, part| seal.with(part)).finish(&record);
    record.extend_from_slice(&seal);
    record
}

/// The record without its seal, if that is whole.
pub(crate) fn unseal_channels<'a>(of: &[&[u8]], sealed: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let broken = Malformed("its seal is broken");
    let (record, seal) = sealed.split_last_chunk::<SEAL_LEN>().ok_or(broken)?;
    let expected = of.iter().fold(Seal::default(), |seal, part| seal.with(part)).finish(record);
    if expected == *seal { Ok(record) } else { Err(broken) }
}
