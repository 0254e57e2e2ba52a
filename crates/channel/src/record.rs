//! Records of channels for a store, and their version. What a record says of itself is checked; whether its bytes
//! rotted is for the store, which seals what it keeps.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use farthing_payment::{Fault, Instruction, Reason, TxRef};
use farthing_primitives::{Address, AssetId, AttemptId, Network, PaymentId, RequestHash, Timestamp};

use crate::codec::{Decoder, Encoder};
use crate::{
    Attempt, Budget, Capture, ChannelId, Charge, ChargeState, Claim, Exact, Funding, Limits, Overclaim,
    Payee, PayeeState, Payer, PayerAction, PayerState, Price, Taking, Terms, Unit, Voucher, Why,
};

/// The version of every encoding below. A change of any of them gets a new number, and the old one stays readable.
pub const VERSION: u8 = 1;

const PAYEE: u8 = 1;
const PAYER: u8 = 2;
const CHARGE: u8 = 3;

/// Why bytes are not a record of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("the record is of version {0}, which this program does not know")]
    UnknownVersion(u8),
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record is malformed: {0}")]
pub struct Malformed(pub &'static str);

type Got<T> = Result<T, Malformed>;

pub fn encode_payee(payee: &Payee) -> Vec<u8> {
    let mut out = begin(PAYEE);
    out.fixed(&payee.book.to_bytes());
    out.text(payee.tenant.as_str());
    out.number(payee.version);
    put_terms(&mut out, &payee.terms);
    put_limits(&mut out, &payee.limits);
    put_payee_state(&mut out, &payee.state);
    out.wide(payee.deposit);
    out.wide(payee.settled);
    out.option(payee.best.as_ref(), put_voucher);
    out.option(payee.last.as_ref(), put_voucher);
    put_exact(&mut out, payee.spent);
    out.wide(payee.units);
    out.number(payee.charges.len() as u64);
    for charge in payee.charges.values() {
        put_charge(&mut out, charge);
    }
    out.option(payee.stream, |out, id| out.fixed(&id.to_bytes()));
    out.option(payee.need, Encoder::wide);
    out.option(payee.funding.as_ref(), |out, attempt| {
        put_attempt(out, attempt, |out, action| match action {
            Funding::Open => out.byte(0),
            Funding::TopUp { amount } => {
                out.byte(1);
                out.wide(*amount);
            }
        });
    });
    out.option(payee.taking.as_ref(), |out, attempt| {
        put_attempt(out, attempt, |out, action| {
            let (kind, claim) = match action {
                Taking::Settle(claim) => (0, claim),
                Taking::Close(claim) => (1, claim),
            };
            out.byte(kind);
            out.wide(claim.amount);
            out.option(claim.voucher.as_ref(), put_voucher);
        });
    });
    out.number(u64::from(payee.round));
    for at in [payee.active, payee.created, payee.updated] {
        out.number(at.millis());
    }
    out.finish()
}

pub fn decode_payee(bytes: &[u8]) -> Result<Payee, RecordError> {
    let mut from = open(bytes, PAYEE)?;
    let payee = payee(&mut from)?;
    from.finish()?;
    Ok(payee)
}

fn payee(from: &mut Decoder<'_>) -> Got<Payee> {
    Ok(Payee {
        book: payment(from)?,
        tenant: from.text()?.parse().map_err(|_| Malformed("not a tenant"))?,
        version: from.number()?,
        terms: terms(from)?,
        limits: limits(from)?,
        state: payee_state(from)?,
        deposit: from.wide()?,
        settled: from.wide()?,
        best: from.option(voucher)?,
        last: from.option(voucher)?,
        spent: exact(from)?,
        units: from.wide()?,
        charges: charges(from)?,
        stream: from.option(payment)?,
        need: from.option(Decoder::wide)?,
        funding: from.option(|from| {
            attempt(from, |from| match from.byte()? {
                0 => Ok(Funding::Open),
                1 => Ok(Funding::TopUp { amount: from.wide()? }),
                _ => Err(Malformed("an unknown way to fund")),
            })
        })?,
        taking: from.option(|from| {
            attempt(from, |from| {
                let kind = from.byte()?;
                let claim = Claim { amount: from.wide()?, voucher: from.option(voucher)? };
                match kind {
                    0 => Ok(Taking::Settle(claim)),
                    1 => Ok(Taking::Close(claim)),
                    _ => Err(Malformed("an unknown way to take")),
                }
            })
        })?,
        round: u16::try_from(from.number()?).map_err(|_| Malformed("too many rounds"))?,
        active: time(from)?,
        created: time(from)?,
        updated: time(from)?,
    })
}

pub fn encode_payer(payer: &Payer) -> Vec<u8> {
    let mut out = begin(PAYER);
    out.number(payer.version);
    put_terms(&mut out, &payer.terms);
    let Budget { most_deposit, most_price, ahead, trust, patience, slack } = &payer.budget;
    out.wide(*most_deposit);
    put_price(&mut out, most_price);
    out.wide(*ahead);
    out.wide(*trust);
    put_duration(&mut out, *patience);
    put_duration(&mut out, *slack);
    put_payer_state(&mut out, &payer.state);
    out.wide(payer.deposit);
    out.wide(payer.settled);
    out.wide(payer.signed);
    out.byte(u8::from(payer.forgot));
    put_exact(&mut out, payer.used);
    out.wide(payer.units);
    out.wide(payer.told);
    out.option(payer.overclaim, |out, overclaim| {
        let (kind, a, b) = match overclaim {
            Overclaim::Accepted { said, signed } => (0, said, signed),
            Overclaim::Spent { said, ours } => (1, said, ours),
            Overclaim::Taken { settled, signed } => (2, settled, signed),
        };
        out.byte(kind);
        out.wide(a);
        out.wide(b);
    });
    out.option(payer.pending.as_ref(), |out, attempt| {
        put_attempt(out, attempt, |out, action| match action {
            PayerAction::Open { deposit } => {
                out.byte(0);
                out.wide(*deposit);
            }
            PayerAction::TopUp { amount, reaches } => {
                out.byte(1);
                out.wide(*amount);
                out.wide(*reaches);
            }
            PayerAction::RequestClose => out.byte(2),
            PayerAction::Withdraw => out.byte(3),
        });
    });
    out.number(payer.created.millis());
    out.number(payer.updated.millis());
    out.finish()
}

pub fn decode_payer(bytes: &[u8]) -> Result<Payer, RecordError> {
    let mut from = open(bytes, PAYER)?;
    let payer = payer(&mut from)?;
    from.finish()?;
    Ok(payer)
}

fn payer(from: &mut Decoder<'_>) -> Got<Payer> {
    Ok(Payer {
        version: from.number()?,
        terms: terms(from)?,
        budget: Budget {
            most_deposit: from.wide()?,
            most_price: price(from)?,
            ahead: from.wide()?,
            trust: from.wide()?,
            patience: duration(from)?,
            slack: duration(from)?,
        },
        state: payer_state(from)?,
        deposit: from.wide()?,
        settled: from.wide()?,
        signed: from.wide()?,
        forgot: match from.byte()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("neither yes nor no")),
        },
        used: exact(from)?,
        units: from.wide()?,
        told: from.wide()?,
        overclaim: from.option(|from| {
            let (kind, a, b) = (from.byte()?, from.wide()?, from.wide()?);
            match kind {
                0 => Ok(Overclaim::Accepted { said: a, signed: b }),
                1 => Ok(Overclaim::Spent { said: a, ours: b }),
                2 => Ok(Overclaim::Taken { settled: a, signed: b }),
                _ => Err(Malformed("an unknown overclaim")),
            }
        })?,
        pending: from.option(|from| {
            attempt(from, |from| match from.byte()? {
                0 => Ok(PayerAction::Open { deposit: from.wide()? }),
                1 => Ok(PayerAction::TopUp { amount: from.wide()?, reaches: from.wide()? }),
                2 => Ok(PayerAction::RequestClose),
                3 => Ok(PayerAction::Withdraw),
                _ => Err(Malformed("an unknown action")),
            })
        })?,
        created: time(from)?,
        updated: time(from)?,
    })
}

/// The row of a charge, beside the channel's own record.
pub fn encode_charge(charge: &Charge) -> Vec<u8> {
    let mut out = begin(CHARGE);
    put_charge(&mut out, charge);
    out.finish()
}

pub fn decode_charge(bytes: &[u8]) -> Result<Charge, RecordError> {
    let mut from = open(bytes, CHARGE)?;
    let charge = charge(&mut from)?;
    from.finish()?;
    Ok(charge)
}

fn begin(kind: u8) -> Encoder {
    let mut out = Encoder::default();
    out.byte(VERSION);
    out.byte(kind);
    out
}

fn open(bytes: &[u8], kind: u8) -> Result<Decoder<'_>, RecordError> {
    let mut from = Decoder::new(bytes);
    match from.byte()? {
        VERSION => {}
        other => return Err(RecordError::UnknownVersion(other)),
    }
    if from.byte()? != kind {
        return Err(Malformed("a record of another kind").into());
    }
    Ok(from)
}

// ---- Parts. Each `put_` has its reader below it.

fn put_terms(out: &mut Encoder, terms: &Terms) {
    out.fixed(&terms.id.0);
    out.text(terms.asset.network().as_str());
    for address in [terms.asset.address(), &terms.payer, &terms.payee, &terms.signer, &terms.escrow] {
        out.text(address.as_str());
    }
    put_duration(out, terms.grace);
    out.byte(match terms.capture {
        Capture::Signed => 0,
        Capture::UpTo => 1,
    });
    out.sized(terms.instruction.as_bytes());
}

fn terms(from: &mut Decoder<'_>) -> Got<Terms> {
    let id = ChannelId(from.fixed()?);
    let network: Network = from.text()?.parse().map_err(|_| Malformed("not a network"))?;
    let mut address = || Address::parse(&network, from.text()?).map_err(|_| Malformed("not an address"));
    let asset = AssetId::new(network.clone(), address()?);
    let (payer, payee, signer, escrow) = (address()?, address()?, address()?, address()?);
    Ok(Terms {
        id,
        payer,
        payee,
        signer,
        asset,
        escrow,
        grace: duration(from)?,
        capture: match from.byte()? {
            0 => Capture::Signed,
            1 => Capture::UpTo,
            _ => return Err(Malformed("an unknown way to capture")),
        },
        instruction: Instruction::new(from.sized()?),
    })
}

fn put_limits(out: &mut Encoder, limits: &Limits) {
    out.wide(limits.credit);
    out.option(limits.most_unsettled, Encoder::wide);
    // The least that a voucher has to add was one for the whole channel.
    out.wide(0);
    out.wide(limits.min_deposit);
    put_duration(out, limits.margin);
    out.number(u64::from(limits.most_in_flight));
    put_duration(out, limits.drain);
    out.option(limits.idle, put_duration);
}

fn limits(from: &mut Decoder<'_>) -> Got<Limits> {
    let (credit, most_unsettled, _min_delta) = (from.wide()?, from.option(Decoder::wide)?, from.wide()?);
    Ok(Limits {
        credit,
        most_unsettled,
        min_deposit: from.wide()?,
        margin: duration(from)?,
        most_in_flight: u16::try_from(from.number()?).map_err(|_| Malformed("too many in flight"))?,
        drain: duration(from)?,
        idle: from.option(duration)?,
    })
}

fn put_payee_state(out: &mut Encoder, state: &PayeeState) {
    match state {
        PayeeState::Opening => out.byte(0),
        PayeeState::Open => out.byte(1),
        PayeeState::Closing { why, since } => {
            out.byte(2);
            out.number(since.millis());
            match why {
                Why::Asked => out.byte(0),
                Why::Decided => out.byte(1),
                Why::Forced { requested, block } => {
                    out.byte(2);
                    out.number(requested.millis());
                    out.number(*block);
                }
                Why::Over { block } => {
                    out.byte(3);
                    out.number(*block);
                }
            }
        }
        PayeeState::Finalized => out.byte(3),
        PayeeState::Void { reason } => {
            out.byte(4);
            put_reason(out, reason);
        }
    }
}

fn payee_state(from: &mut Decoder<'_>) -> Got<PayeeState> {
    Ok(match from.byte()? {
        0 => PayeeState::Opening,
        1 => PayeeState::Open,
        2 => {
            let since = time(from)?;
            let why = match from.byte()? {
                0 => Why::Asked,
                1 => Why::Decided,
                2 => Why::Forced { requested: time(from)?, block: from.number()? },
                3 => Why::Over { block: from.number()? },
                _ => return Err(Malformed("an unknown reason to close")),
            };
            PayeeState::Closing { why, since }
        }
        3 => PayeeState::Finalized,
        4 => PayeeState::Void { reason: reason(from)? },
        _ => return Err(Malformed("an unknown state")),
    })
}

fn put_payer_state(out: &mut Encoder, state: &PayerState) {
    match state {
        PayerState::Opening => out.byte(0),
        PayerState::Open => out.byte(1),
        PayerState::Leaving { since, asked } => {
            out.byte(2);
            out.number(since.millis());
            out.option(*asked, |out, at| out.number(at.millis()));
        }
        PayerState::Requested { at, block } => {
            out.byte(3);
            out.number(at.millis());
            out.number(*block);
        }
        PayerState::Over { block } => {
            out.byte(4);
            out.number(*block);
        }
        PayerState::Finalized => out.byte(5),
        PayerState::Void { reason } => {
            out.byte(6);
            put_reason(out, reason);
        }
    }
}

fn payer_state(from: &mut Decoder<'_>) -> Got<PayerState> {
    Ok(match from.byte()? {
        0 => PayerState::Opening,
        1 => PayerState::Open,
        2 => PayerState::Leaving { since: time(from)?, asked: from.option(time)? },
        3 => PayerState::Requested { at: time(from)?, block: from.number()? },
        4 => PayerState::Over { block: from.number()? },
        5 => PayerState::Finalized,
        6 => PayerState::Void { reason: reason(from)? },
        _ => return Err(Malformed("an unknown state")),
    })
}

fn put_charge(out: &mut Encoder, charge: &Charge) {
    out.fixed(&charge.id.to_bytes());
    out.fixed(&charge.request.0);
    put_price(out, &charge.price);
    out.option(charge.most_units, Encoder::number);
    out.wide(charge.units);
    out.wide(charge.atoms);
    out.byte(match charge.state {
        ChargeState::Running => 0,
        ChargeState::Served => 1,
        ChargeState::Lost => 2,
        ChargeState::Ended => 3,
    });
    out.number(charge.started.millis());
}

fn charge(from: &mut Decoder<'_>) -> Got<Charge> {
    Ok(Charge {
        id: payment(from)?,
        request: RequestHash(from.fixed()?),
        price: price(from)?,
        most_units: from.option(Decoder::number)?,
        units: from.wide()?,
        atoms: from.wide()?,
        state: match from.byte()? {
            0 => ChargeState::Running,
            1 => ChargeState::Served,
            2 => ChargeState::Lost,
            3 => ChargeState::Ended,
            _ => return Err(Malformed("an unknown state of a charge")),
        },
        started: time(from)?,
    })
}

fn charges(from: &mut Decoder<'_>) -> Got<BTreeMap<PaymentId, Charge>> {
    let mut charges = BTreeMap::new();
    for _ in 0..from.count()? {
        let charge = charge(from)?;
        if charge.state != ChargeState::Running || charges.insert(charge.id, charge).is_some() {
            return Err(Malformed("a charge that cannot be running"));
        }
    }
    Ok(charges)
}

fn put_price(out: &mut Encoder, price: &Price) {
    out.wide(price.atoms());
    out.number(price.per().get());
    out.text(price.unit().as_str());
}

fn price(from: &mut Decoder<'_>) -> Got<Price> {
    let atoms = from.wide()?;
    let per = NonZeroU64::new(from.number()?).ok_or(Malformed("a price for nothing"))?;
    let unit = Unit::named(from.text()?).ok_or(Malformed("not a unit"))?;
    Ok(Price::new(atoms, per, unit))
}

fn put_exact(out: &mut Encoder, exact: Exact) {
    let (atoms, numerator, denominator) = exact.parts();
    out.wide(atoms);
    out.number(numerator);
    out.number(denominator);
}

fn exact(from: &mut Decoder<'_>) -> Got<Exact> {
    let (atoms, numerator, denominator) = (from.wide()?, from.number()?, from.number()?);
    Exact::from_parts(atoms, numerator, denominator).ok_or(Malformed("not a fraction in lowest terms"))
}

fn put_voucher(out: &mut Encoder, voucher: &Voucher) {
    out.wide(voucher.cumulative);
    out.sized(&voucher.signature);
}

fn voucher(from: &mut Decoder<'_>) -> Got<Voucher> {
    Ok(Voucher { cumulative: from.wide()?, signature: from.sized()?.into() })
}

fn put_attempt<A>(out: &mut Encoder, attempt: &Attempt<A>, put: impl FnOnce(&mut Encoder, &A)) {
    out.fixed(&attempt.id.to_bytes());
    put(out, &attempt.action);
    out.number(attempt.since.millis());
    out.option(attempt.tx.as_ref(), |out, tx| out.text(tx.as_str()));
}

fn attempt<A>(from: &mut Decoder<'_>, get: impl FnOnce(&mut Decoder<'_>) -> Got<A>) -> Got<Attempt<A>> {
    Ok(Attempt {
        id: AttemptId::from_bytes(from.fixed()?),
        action: get(from)?,
        since: time(from)?,
        tx: from.option(|from| from.text().map(TxRef::new))?,
    })
}

fn put_reason(out: &mut Encoder, reason: &Reason) {
    out.text(reason.code());
    out.byte(match reason.fault() {
        Fault::Payer => 0,
        Fault::Payee => 1,
        Fault::Us => 2,
        Fault::Chain => 3,
    });
}

fn reason(from: &mut Decoder<'_>) -> Got<Reason> {
    let code = from.text()?;
    let fault = match from.byte()? {
        0 => Fault::Payer,
        1 => Fault::Payee,
        2 => Fault::Us,
        3 => Fault::Chain,
        _ => return Err(Malformed("an unknown fault")),
    };
    Ok(Reason::new(code, fault))
}

fn put_duration(out: &mut Encoder, duration: Duration) {
    out.number(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
}

fn duration(from: &mut Decoder<'_>) -> Got<Duration> {
    Ok(Duration::from_millis(from.number()?))
}

fn time(from: &mut Decoder<'_>) -> Got<Timestamp> {
    Ok(Timestamp::from_millis(from.number()?))
}

fn payment(from: &mut Decoder<'_>) -> Got<PaymentId> {
    Ok(PaymentId::from_bytes(from.fixed()?))
}
