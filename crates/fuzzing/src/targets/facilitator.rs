//! What servers ask a facilitator, and what a facilitator answers.

use farthing_rails::x402;
use farthing_wire::x402::exact_evm::Payload;
use farthing_wire::x402::facilitator::{PaymentRequest, SettleResponse, SupportedResponse, VerifyResponse};
use farthing_wire::x402::header::MAX_BODY_BYTES;
use farthing_wire::x402::{ErrorCode, Message, WireError};

use super::{is_judged, is_short, is_told, survives};
use crate::edit::edit;
use crate::input::Input;
use crate::money::{NOW, signed, tokens};
use crate::templates::templates;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 4 {
        0 => {
            let body = input.rest();
            request(body, &mut Input::new(body));
            answers(body);
        }
        1 => {
            let template = input.pick(&templates().answers).clone();
            answers(edit(template, &mut input).to_string().as_bytes());
        }
        _ => {
            let template = input.pick(&templates().requests).clone();
            let how = input.clone();
            let message = edit(template, &mut input);
            request(message.to_string().as_bytes(), &mut how.clone());
        }
    }
}

/// The way of a facilitator, as far as it reads nothing of the chain.
fn request(body: &[u8], how: &mut Input<'_>) {
    let request = match PaymentRequest::parse(body) {
        Ok(request) => request,
        Err(error) => {
            if body.len() > MAX_BODY_BYTES {
                assert!(matches!(error, WireError::Json(_)));
            }
            return is_told(&error);
        }
    };
    survives(&request);
    if let Ok(payload) = Payload::parse(request.scheme_payload()) {
        assert_eq!(Payload::parse(&payload.to_object()), Ok(payload));
    }
    let asked = match &request {
        PaymentRequest::V1 { requirements, .. } => x402::requirement_v1(requirements, tokens()),
        PaymentRequest::V2 { requirements, .. } => x402::requirement_v2(requirements, tokens()),
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(error) => {
            assert!(!matches!(error.code(), ErrorCode::Other(_)));
            return is_short(&error);
        }
    };
    let shown = match &request {
        PaymentRequest::V1 { payload, .. } => x402::presented_v1(&asked, payload),
        PaymentRequest::V2 { payload, .. } => x402::presented_v2(&asked, payload),
    };
    match shown {
        Ok(shown) => {
            is_judged(&asked, &shown, NOW, how);
            if let Some(shown) = signed(&asked, shown, how) {
                is_judged(&asked, &shown, NOW, how);
            }
        }
        Err(error) => {
            assert!(!matches!(error.code(), ErrorCode::Other(_)));
            is_short(&error);
        }
    }
}

fn answers(body: &[u8]) {
    match VerifyResponse::parse(body) {
        Ok(answer) => survives(&answer),
        Err(error) => is_told(&error),
    }
    match SettleResponse::parse(body) {
        Ok(answer) => {
            survives(&answer);
            assert!(!(answer.is_pending() && answer.success));
        }
        Err(error) => is_told(&error),
    }
    match SupportedResponse::parse(body) {
        Ok(answer) => survives(&answer),
        Err(error) => is_told(&error),
    }
}
