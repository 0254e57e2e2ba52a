//! What a stranger says to a buyer: challenges of both versions, and receipts. Whatever offer is taken, exactly that
//! is paid, in a form that our own seller reads.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use farthing_evm::U256;
use farthing_primitives::Network;
use farthing_rails::exact_evm::buy::{self, Nonce};
use farthing_rails::exact_evm::{Policy, Presented, Requirement, SignatureStatus, check};
use farthing_rails::x402;
use farthing_wire::x402::extensions::{BUILDER_CODE, EIP2612_GAS_SPONSORING, PAYMENT_IDENTIFIER};
use farthing_wire::x402::header::MAX_PAYMENT_HEADER_BYTES;
use farthing_wire::x402::{Extensions, Message, SettlementResponse, header, requirements_match, v1, v2};
use farthing_wire::{Json, Object};

use super::payment::is_offered;
use super::{is_a_limit, is_short, is_told, survives};
use crate::edit::edit;
use crate::input::Input;
use crate::money::{NOW, account, payer, tokens};
use crate::templates::templates;

const VALIDITY: Duration = Duration::from_secs(60);

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 => header_of_version_2(input.rest()),
        1 => header_of_version_2(STANDARD.encode(input.rest()).as_bytes()),
        2 => body_of_version_1(input.rest()),
        3 => receipt(input.rest()),
        4 => receipt(STANDARD.encode(input.rest()).as_bytes()),
        5 => {
            let template = input.pick(&templates().receipts).clone();
            receipt(header::encode(&edit(template, &mut input)).as_bytes());
        }
        _ => {
            let template = input.pick(&templates().challenges).clone();
            let message = edit(template, &mut input);
            header_of_version_2(header::encode(&message).as_bytes());
            body_of_version_1(message.to_string().as_bytes());
        }
    }
}

fn header_of_version_2(value: &[u8]) {
    let challenge = match v2::PaymentRequired::from_header(value) {
        Ok(challenge) => challenge,
        Err(error) => return is_told(&error),
    };
    assert!(!challenge.accepts.is_empty());
    assert!(challenge.accepts.len() + challenge.unreadable.len() <= v2::MAX_ACCEPTS);
    challenge.unreadable.iter().for_each(is_told);
    // What cannot be read is not printed, and then is not there.
    survives(&v2::PaymentRequired { unreadable: Vec::new(), ..challenge.clone() });
    for offer in &challenge.accepts {
        if let Err(error) = x402::flow(offer.extra.as_ref()) {
            is_short(&error);
            continue;
        }
        match x402::requirement_v2(offer, tokens()) {
            Ok(asked) => {
                assert_eq!(asked.price(), offer.money());
                is_offered(&asked);
                pay_version_2(&challenge, offer, &asked);
            }
            Err(error) => is_short(&error),
        }
    }
}

/// The wallet's way: sign, print, and have it read by a seller of our own.
fn pay_version_2(challenge: &v2::PaymentRequired, offer: &v2::PaymentRequirements, asked: &Requirement) {
    let Ok(unsigned) = buy::authorize(asked, &account(), Nonce([7; 32]), VALIDITY, NOW) else { return };
    assert_eq!(unsigned.money(), &offer.money());
    let mut extensions = challenge.extensions.clone();
    let mut approval = None;
    if let Some(all) = &mut extensions {
        answer(all);
        if all.get(EIP2612_GAS_SPONSORING).is_some()
            && let Ok(unsigned) = buy::approve(asked, &unsigned, U256::from(3u8))
        {
            let signed = unsigned.signed(&payer().sign(unsigned.digest()));
            // A seller that has filled in the form itself cannot be answered, and is not paid.
            let Ok(()) = all.answer(EIP2612_GAS_SPONSORING, x402::approval_info(&signed)) else { return };
            approval = Some(signed);
        }
    }
    let approves = approval.is_some();
    let shown = unsigned.signed(&payer().sign(unsigned.digest()), approval);
    let payment = x402::payment_v2(offer, &shown, Some(challenge.resource.clone()), extensions.clone())
        .expect("an amount that was read from the wire");
    let value = payment.to_header();
    if value.len() > MAX_PAYMENT_HEADER_BYTES {
        return;
    }
    let read = match v2::PaymentPayload::from_header(value.as_bytes()) {
        Ok(read) => read,
        // A seller that wants so much echoed will not be paid by anybody.
        Err(error) => return assert!(is_a_limit(&error), "{error:?} for our own payment"),
    };
    assert_eq!(read, payment);
    assert_eq!(requirements_match(offer, &read.accepted), Ok(()));
    let again = match x402::presented_v2(asked, &read) {
        Ok(again) => again,
        // A seller that announces an approval in no form gets it echoed in none.
        Err(error) => {
            let announced = challenge.extensions.as_ref().map(Extensions::eip2612_gas_sponsoring);
            return assert!(announced.is_some_and(|read| read.is_err()), "{error:?} for our own payment");
        }
    };
    // An approval that the seller wrote itself is read as ours, and is worth nothing.
    assert_eq!(without_approval(again.clone(), !approves), without_approval(shown, !approves));
    let checked = check(asked, &again, NOW, &Policy::default()).expect("our own payment");
    if let Presented::Permit2 { approval, .. } = checked.presented() {
        assert_eq!(approval.is_some(), approves, "an approval counts if the payer signed it");
    }
    assert_eq!(checked.signature_status(), SignatureStatus::Proven);
    assert_eq!((checked.money(), &checked.key()), (&offer.money(), unsigned.key()));
    assert_eq!((checked.payer(), checked.expires()), (account(), unsigned.expires()));
    assert_eq!(&checked.pay_to(), offer.pay_to.address());
}

fn without_approval(shown: Presented, without: bool) -> Presented {
    match shown {
        Presented::Permit2 { owner, transfer, signature, .. } if without => {
            Presented::Permit2 { owner, transfer, signature, approval: None }
        }
        other => other,
    }
}

/// Answers what the client answers, and checks that the server finds all that it announced.
fn answer(all: &mut Extensions) {
    let announced = all.clone();
    let id = Object::new().with("id", "pay_7d5d747be160e280504c099d984bcfe0");
    let has_info = |json: &Json| json.as_object().is_some_and(|object| object.contains_key("info"));
    let usual = all.get(PAYMENT_IDENTIFIER).is_some_and(has_info);
    if all.answer(PAYMENT_IDENTIFIER, id).is_ok() && usual && all.get(BUILDER_CODE).is_none() {
        assert_eq!(announced.check_echo(all), Ok(()));
    }
}

fn body_of_version_1(body: &[u8]) {
    let challenge = match v1::PaymentRequired::parse(body) {
        Ok(challenge) => challenge,
        Err(error) => return is_told(&error),
    };
    assert!(!challenge.accepts.is_empty());
    assert!(challenge.accepts.len() + challenge.unreadable.len() <= v2::MAX_ACCEPTS);
    challenge.unreadable.iter().for_each(is_told);
    survives(&v1::PaymentRequired { unreadable: Vec::new(), ..challenge.clone() });
    for offer in &challenge.accepts {
        let asked = match x402::requirement_v1(offer, tokens()) {
            Ok(asked) => asked,
            Err(error) => {
                is_short(&error);
                continue;
            }
        };
        assert_eq!(asked.price(), offer.money());
        let Ok(unsigned) = buy::authorize(&asked, &account(), Nonce([7; 32]), VALIDITY, NOW) else {
            continue;
        };
        let shown = unsigned.signed(&payer().sign(unsigned.digest()), None);
        let payment = x402::payment_v1(offer, &shown).expect("an amount that was read from the wire");
        let read = v1::PaymentPayload::from_header(payment.to_header().as_bytes()).expect("our own payment");
        assert_eq!(read, payment);
        let again = x402::presented_v1(&asked, &read).expect("our own payment");
        let checked = check(&asked, &again, NOW, &Policy::default()).expect("our own payment");
        assert_eq!((checked.money(), &checked.key()), (&offer.money(), unsigned.key()));
    }
}

fn receipt(value: &[u8]) {
    match SettlementResponse::from_header(value) {
        Ok(receipt) => {
            survives(&receipt);
            assert!(!(receipt.is_pending() && receipt.success));
            if let Some(network) = receipt.parsed_network() {
                let named = network.v1_name() == Some(receipt.network.as_str());
                assert!(named || network.as_str() == receipt.network);
                assert_eq!(Network::from_name(&receipt.network), Ok(network));
            }
            let _ = receipt.typed_extensions();
        }
        Err(error) => is_told(&error),
    }
}
