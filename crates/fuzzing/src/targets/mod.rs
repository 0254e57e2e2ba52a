//! The targets, and the laws that several of them share.

pub(crate) mod ap2;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod challenge;
pub(crate) mod documents;
pub(crate) mod events;
pub(crate) mod evm;
pub(crate) mod facilitator;
pub(crate) mod guard;
pub(crate) mod json;
pub(crate) mod mpp;
pub(crate) mod names;
pub(crate) mod path;
pub(crate) mod payment;
pub(crate) mod policy;
pub(crate) mod proxy;
pub(crate) mod recall;
pub(crate) mod rpc;
pub(crate) mod stored;
pub(crate) mod stripe;
pub(crate) mod toolpolicy;

use std::fmt::{Debug, Display};

use farthing_evm::ReadResult;
use farthing_primitives::Timestamp;
use farthing_rails::exact_evm::{Checked, Presented, Requirement, check};
use farthing_rails::x402::refusal_code;
use farthing_wire::x402::{ErrorCode, Message, WireError};

use crate::input::Input;
use crate::money::policies;

/// The longest message that an error of ours may have, however long what caused it is.
const MAX_ERROR_BYTES: usize = 2048;

/// An error says what is wrong, and does not repeat at length what a stranger wrote.
fn is_short(error: &impl Display) {
    let text = error.to_string();
    assert!(!text.is_empty() && text.len() <= MAX_ERROR_BYTES, "an error of {} bytes", text.len());
}

/// An error of reading has a short text and a code with a name.
fn is_told(error: &WireError) {
    is_short(error);
    assert!(!matches!(error.code(), ErrorCode::Other(_)), "{error:?} has no code of its own");
}

/// Parsing undoes printing, by every way that a message may take; and printing again changes nothing.
fn survives<T: Message + PartialEq + Debug>(message: &T) {
    let printed = message.print();
    let header = message.to_header();
    // What was read is within the limits of some reader; printed, it may have a default more than it was read with.
    match T::parse(printed.as_bytes()) {
        Ok(again) => {
            assert_eq!(&again, message);
            assert_eq!(again.print(), printed);
        }
        Err(error) => assert!(is_a_limit(&error), "{error:?} for our own {printed}"),
    }
    // Padding says nothing.
    for header in [header.as_str(), header.trim_end_matches('=')] {
        match T::from_header(header.as_bytes()) {
            Ok(again) => assert_eq!(&again, message),
            Err(error) => assert!(is_a_limit(&error), "{error:?} for our own {printed}"),
        }
    }
}

/// Whether something is only too much of it.
fn is_a_limit(error: &WireError) -> bool {
    use farthing_wire::JsonError as E;
    match error {
        WireError::HeaderTooLong { .. } | WireError::TooMany { .. } => true,
        WireError::Json(error) => {
            matches!(error, E::TooLong { .. } | E::TooManyValues { .. } | E::TooManyMembers { .. })
        }
        _ => false,
    }
}

/// Everything that must hold of a payment that is shown for `asked`, whether it is accepted or not, under the policy
/// that `how` chooses.
fn is_judged(asked: &Requirement, shown: &Presented, now: Timestamp, how: &mut Input<'_>) {
    let policy = how.pick(policies());
    match check(asked, shown, now, policy) {
        Err(refusal) => {
            is_short(&refusal);
            assert!(!matches!(refusal_code(&refusal), ErrorCode::Other(_)), "{refusal:?} has no code");
            assert!(!refusal.reason().code().is_empty());
        }
        Ok(checked) => {
            // What is accepted is exactly what was asked, by whom it says it is, and still usable.
            assert_eq!(checked.money(), &asked.price());
            assert_eq!(checked.pay_to(), asked.pay_to());
            assert_eq!(checked.network(), asked.network());
            assert_eq!(checked.payer(), shown.claimed_payer());
            assert!(checked.expires() > now);
            // It is the same after a restart, and the same when shown again in our spelling.
            assert_eq!(Checked::recall(&checked.instruction()).as_ref(), Ok(&checked));
            let again = check(asked, &checked.presented(), now, policy).expect("checked before");
            assert_eq!(again.key(), checked.key());
            assert_eq!(again.presented(), checked.presented());
            is_settleable(&checked);
        }
    }
}

/// What holds of every payment that was checked, also of one that is recalled.
fn is_settleable(checked: &Checked) {
    let reads = checked.reads();
    assert!((2..=8).contains(&reads.len()), "{} reads", reads.len());
    // Fails closed: neither silence nor too few answers fund a payment.
    let silent = vec![ReadResult::Unavailable; reads.len()];
    assert!(checked.judge(&silent).is_err());
    assert!(checked.judge(&silent[..reads.len() - 1]).is_err());
    assert!(checked.judge(&[]).is_err());
    assert!(checked.consumed(&ReadResult::Unavailable).is_none());
    // Nothing proves nothing.
    assert!(checked.proof(&[]).is_err());
    assert!(checked.key().as_str().len() <= 256);
    let trace = checked.trace();
    assert_eq!(trace.topics.len(), 3);
}
