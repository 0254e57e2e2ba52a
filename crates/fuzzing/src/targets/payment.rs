//! What a stranger shows to a seller: `PAYMENT-SIGNATURE` and `X-PAYMENT`, down to a checked payment.
//!
//! The first byte says how the rest is meant: a header as it stands, its JSON, or changes to a published payment.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_primitives::PullMethod;
use farthing_rails::exact_evm::Requirement;
use farthing_rails::x402::{self, Extras};
use farthing_wire::x402::exact_evm::Payload;
use farthing_wire::x402::extensions::BUILDER_CODE;
use farthing_wire::x402::header::MAX_PAYMENT_HEADER_BYTES;
use farthing_wire::x402::{Extensions, Message, WireError, header, requirements_match, v1, v2};

use super::{is_judged, is_short, is_told, survives};
use crate::edit::edit;
use crate::input::Input;
use crate::money::{NOW, asked, signed, tokens};
use crate::templates::templates;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => {
            let header = input.rest();
            read(header, &mut Input::new(header));
        }
        1 => {
            let text = input.rest();
            read(STANDARD.encode(text).as_bytes(), &mut Input::new(text));
        }
        _ => {
            let template = input.pick(&templates().payments).clone();
            let how = input.clone();
            let message = edit(template, &mut input);
            read(header::encode(&message).as_bytes(), &mut how.clone());
        }
    }
}

/// `how` varies what is tried with a payment that was read.
fn read(header: &[u8], how: &mut Input<'_>) {
    let (v1, v2) = (v1::PaymentPayload::from_header(header), v2::PaymentPayload::from_header(header));
    assert!(v1.is_err() || v2.is_err(), "a payment of two versions at once");
    if header.len() > MAX_PAYMENT_HEADER_BYTES {
        assert_eq!(v1, Err(WireError::HeaderTooLong { limit: MAX_PAYMENT_HEADER_BYTES }));
    }
    match v2 {
        Ok(payment) => version_2(&payment, header.len(), how),
        Err(error) => is_told(&error),
    }
    match v1 {
        Ok(payment) => version_1(&payment, header.len(), how),
        Err(error) => is_told(&error),
    }
}

fn version_2(payment: &v2::PaymentPayload, header_len: usize, how: &mut Input<'_>) {
    survives(payment);
    // A byte of base64 is six bits: what we print of a payment is never longer than what we read.
    assert!(payment.print().len() <= header_len * 3 / 4 + 3);
    assert_eq!(requirements_match(&payment.accepted, &payment.accepted), Ok(()));
    scheme_payload(&payment.payload);
    if let Some(extensions) = &payment.extensions {
        echo(extensions);
    }
    // What the payer says it accepted, as a facilitator would read it; and what we ask ourselves.
    let theirs = x402::requirement_v2(&payment.accepted, tokens());
    if let Err(error) = &theirs {
        is_short(error);
    }
    let ours = asked(*how.pick(&[PullMethod::Eip3009, PullMethod::Permit2]));
    let asked = theirs.as_ref().ok().filter(|_| !how.byte().is_multiple_of(4)).unwrap_or(&ours);
    match x402::presented_v2(asked, payment) {
        Ok(shown) => {
            is_judged(asked, &shown, NOW, how);
            if let Some(shown) = signed(asked, shown, how) {
                is_judged(asked, &shown, NOW, how);
            }
        }
        Err(error) => is_short(&error),
    }
    if let Ok(asked) = &theirs {
        is_offered(asked);
    }
}

fn version_1(payment: &v1::PaymentPayload, header_len: usize, how: &mut Input<'_>) {
    survives(payment);
    assert!(payment.print().len() <= header_len * 3 / 4 + 3);
    scheme_payload(&payment.payload);
    let asked = asked(PullMethod::Eip3009);
    match x402::presented_v1(&asked, payment) {
        Ok(shown) => {
            is_judged(&asked, &shown, NOW, how);
            if let Some(shown) = signed(&asked, shown, how) {
                is_judged(&asked, &shown, NOW, how);
            }
        }
        Err(error) => is_short(&error),
    }
}

fn scheme_payload(object: &farthing_wire::Object) {
    match Payload::parse(object) {
        Ok(payload) => {
            let printed = payload.to_object();
            assert_eq!(Payload::parse(&printed).as_ref(), Ok(&payload));
            assert!(printed.to_string().len() <= object.to_string().len());
        }
        Err(error) => is_told(&error),
    }
}

/// What is echoed unchanged is accepted, and typed extensions are read or refused.
fn echo(extensions: &Extensions) {
    if extensions.get(BUILDER_CODE).is_none() {
        // `builder-code` has a bound on a list that a server might itself exceed.
        assert_eq!(extensions.check_echo(extensions), Ok(()));
    }
    for error in
        [extensions.payment_identifier().err(), extensions.eip2612_gas_sponsoring().err()].iter().flatten()
    {
        is_told(error);
    }
    if let Ok(Some(permit)) = extensions.eip2612_gas_sponsoring() {
        let mut again = Extensions::new();
        again.insert(
            farthing_wire::x402::extensions::EIP2612_GAS_SPONSORING,
            permit.to_info(),
            Default::default(),
        );
        assert_eq!(again.eip2612_gas_sponsoring(), Ok(Some(permit)));
    }
}

/// An offer that we can read we can also make, and it is the same.
pub(super) fn is_offered(asked: &Requirement) {
    let offer = x402::offer_v2(asked, Extras::default());
    let again = v2::PaymentRequirements::from_json(offer.to_json()).expect("our own offer");
    assert_eq!(again, offer);
    assert_eq!(x402::requirement_v2(&again, tokens()).as_ref(), Ok(asked));
    let resource = x402::Resource { url: "https://a.example/", description: "", mime_type: "" };
    if let Some(offer) = x402::offer_v1(asked, resource) {
        let again = v1::PaymentRequirements::from_json(offer.to_json()).expect("our own offer");
        assert_eq!(x402::requirement_v1(&again, tokens()).as_ref(), Ok(asked));
    }
}
