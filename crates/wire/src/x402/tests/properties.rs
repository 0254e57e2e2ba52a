use farthing_primitives::{Address, Network};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::json::tests::any_json;
use crate::x402::exact_evm::{Authorization, Payload, Permit2Authorization};
use crate::x402::facilitator::{PaymentRequest, SupportedKind, SupportedResponse, VerifyResponse};
use crate::x402::v1::NamedNetwork;
use crate::x402::{
    ErrorCode, Extensions, Message, SettlementResponse, WireAddress, requirements_match, v1, v2,
};
use crate::{Json, Object, Uint256};

fn any_object() -> impl Strategy<Value = Object> {
    vec(("[a-z]{1,6}", any_json()), 0..4).prop_map(|members| members.into_iter().collect())
}

/// Members that none of our messages has.
fn unknown() -> impl Strategy<Value = Object> {
    vec(("x-[a-z]{1,4}", any_json()), 0..2).prop_map(|members| members.into_iter().collect())
}

fn wire_address() -> impl Strategy<Value = WireAddress> {
    "0x[0-9a-fA-F]{40}".prop_map(|text| WireAddress::parse(&Network::eip155(1), &text).expect("hex"))
}

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 20]>().prop_map(Address::from_evm_bytes)
}

fn uint256() -> impl Strategy<Value = Uint256> {
    prop_oneof![any::<u64>().prop_map(Uint256::from), any::<[u8; 32]>().prop_map(Uint256::from_be_bytes)]
}

fn code() -> impl Strategy<Value = ErrorCode> {
    prop_oneof![prop::sample::select(ErrorCode::ALL), "\\PC{0,30}".prop_map(ErrorCode::from)]
}

fn payload() -> impl Strategy<Value = Payload> {
    let signature = || vec(any::<u8>(), 1..200);
    let eip3009 = (signature(), address(), address(), any::<u128>(), uint256(), uint256(), any::<[u8; 32]>())
        .prop_map(|(signature, from, to, value, valid_after, valid_before, nonce)| Payload::Eip3009 {
            signature,
            authorization: Authorization { from, to, value, valid_after, valid_before, nonce },
        });
    let permit2 = (signature(), vec(address(), 4), any::<u128>(), vec(uint256(), 3)).prop_map(
        |(signature, addresses, amount, numbers)| Payload::Permit2 {
            signature,
            authorization: Permit2Authorization {
                from: addresses[0].clone(),
                token: addresses[1].clone(),
                amount,
                spender: addresses[2].clone(),
                nonce: numbers[0],
                deadline: numbers[1],
                witness_to: addresses[3].clone(),
                witness_valid_after: numbers[2],
            },
        },
    );
    prop_oneof![eip3009, permit2]
}

fn requirements_v2() -> impl Strategy<Value = v2::PaymentRequirements> {
    (
        "[a-z-]{1,20}",
        any::<u64>(),
        any::<u128>(),
        wire_address(),
        wire_address(),
        1u64..,
        option::of(any_object()),
        unknown(),
    )
        .prop_map(|(scheme, chain, amount, asset, pay_to, max_timeout_seconds, extra, other)| {
            v2::PaymentRequirements {
                scheme,
                network: Network::eip155(chain),
                amount,
                asset,
                pay_to,
                max_timeout_seconds,
                extra,
                other,
            }
        })
}

fn extensions() -> impl Strategy<Value = Option<Extensions>> {
    option::of(any_object().prop_map(|object| Extensions::from_object(object).expect("few")))
}

fn resource() -> impl Strategy<Value = v2::ResourceInfo> {
    (
        "\\PC{1,20}",
        option::of(any::<String>()),
        option::of(any::<String>()),
        option::of("[ -~]{1,32}"),
        option::of(vec("[ -~]{1,32}", 0..=v2::MAX_TAGS)),
        option::of(any::<String>()),
        unknown(),
    )
        .prop_map(|(url, description, mime_type, service_name, tags, icon_url, other)| {
            v2::ResourceInfo { url, description, mime_type, service_name, tags, icon_url, other }
        })
}

fn challenge_v2() -> impl Strategy<Value = v2::PaymentRequired> {
    (option::of(any::<String>()), resource(), vec(requirements_v2(), 1..4), extensions(), unknown()).prop_map(
        |(error, resource, accepts, extensions, other)| v2::PaymentRequired {
            error,
            resource,
            accepts,
            extensions,
            unreadable: vec![],
            other,
        },
    )
}

fn payment_v2() -> impl Strategy<Value = v2::PaymentPayload> {
    (option::of(resource()), requirements_v2(), payload(), extensions(), unknown()).prop_map(
        |(resource, accepted, payload, extensions, other)| v2::PaymentPayload {
            resource,
            accepted,
            payload: payload.to_object(),
            extensions,
            other,
        },
    )
}

fn named_network() -> impl Strategy<Value = NamedNetwork> {
    prop::sample::select(vec!["base", "base-sepolia", "avalanche", "polygon-amoy"])
        .prop_map(|name| NamedNetwork::parse(name).expect(name))
}

fn requirements_v1() -> impl Strategy<Value = v1::PaymentRequirements> {
    (
        (named_network(), any::<u128>(), wire_address(), wire_address(), 1u64..),
        (any::<String>(), any::<String>(), any::<String>()),
        option::of(any_object()),
        option::of(any_object()),
        unknown(),
    )
        .prop_map(|(terms, texts, output_schema, extra, other)| {
            let (network, max_amount_required, asset, pay_to, max_timeout_seconds) = terms;
            let (resource, description, mime_type) = texts;
            v1::PaymentRequirements {
                scheme: "exact".into(),
                network,
                max_amount_required,
                resource,
                description,
                mime_type,
                output_schema,
                pay_to,
                max_timeout_seconds,
                asset,
                extra,
                other,
            }
        })
}

fn payment_v1() -> impl Strategy<Value = v1::PaymentPayload> {
    (named_network(), payload(), unknown()).prop_map(|(network, payload, other)| v1::PaymentPayload {
        scheme: "exact".into(),
        network,
        payload: payload.to_object(),
        other,
    })
}

fn settlement() -> impl Strategy<Value = SettlementResponse> {
    (
        any::<bool>(),
        option::of(code()),
        (any::<String>(), any::<String>()),
        vec(option::of(any::<String>()), 3),
        option::of(any_object()),
        option::of(any_object()),
        unknown(),
    )
        .prop_map(|(success, error_reason, (transaction, network), texts, extensions, extra, other)| {
            SettlementResponse {
                success,
                error_reason,
                error_message: texts[0].clone(),
                payer: texts[1].clone(),
                transaction,
                network,
                amount: texts[2].clone(),
                extensions,
                extra,
                other,
            }
        })
}

fn verdict() -> impl Strategy<Value = VerifyResponse> {
    (
        any::<bool>(),
        option::of(code()),
        vec(option::of(any::<String>()), 2),
        option::of(any_object()),
        unknown(),
    )
        .prop_map(|(is_valid, invalid_reason, texts, extra, other)| VerifyResponse {
            is_valid,
            invalid_reason,
            invalid_message: texts[0].clone(),
            payer: texts[1].clone(),
            extensions: None,
            extra,
            other,
        })
}

fn supported() -> impl Strategy<Value = SupportedResponse> {
    let kind = (1u64..4, "\\PC{1,8}", "\\PC{1,8}", option::of(any_object())).prop_map(
        |(x402_version, scheme, network, extra)| SupportedKind {
            x402_version,
            scheme,
            network,
            extra,
            other: Object::new(),
        },
    );
    let signers = prop::collection::btree_map("[a-z0-9:*]{1,9}", vec(any::<String>(), 0..3), 0..3);
    (vec(kind, 0..4), vec(any::<String>(), 0..3), signers, unknown()).prop_map(
        |(kinds, extensions, signers, other)| SupportedResponse {
            kinds,
            extensions,
            signers: signers.into_iter().collect(),
            other,
        },
    )
}

fn request() -> impl Strategy<Value = PaymentRequest> {
    prop_oneof![
        (payment_v1(), requirements_v1())
            .prop_map(|(payload, requirements)| PaymentRequest::V1 { payload, requirements }),
        (payment_v2(), requirements_v2())
            .prop_map(|(payload, requirements)| PaymentRequest::V2 { payload, requirements }),
    ]
}

/// Parsing undoes printing, by every way that a message may take.
fn survives<T: Message + PartialEq + std::fmt::Debug>(message: &T) {
    let printed = message.to_json();
    assert_eq!(&T::from_json(printed.clone()).expect("from its own JSON"), message);
    let again = T::parse(message.print().as_bytes()).expect("from its own body");
    assert_eq!(&again, message);
    assert_eq!(again.print(), printed.to_string());
    assert_eq!(&T::from_header(message.to_header().as_bytes()).expect("from its own header"), message);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn challenges_survive(v2 in challenge_v2(), accepts in vec(requirements_v1(), 1..3), error: Option<String>) {
        survives(&v2);
        survives(&v1::PaymentRequired { error, ..v1::PaymentRequired::new(accepts) });
    }

    #[test]
    fn payments_survive(v1 in payment_v1(), v2 in payment_v2()) {
        survives(&v1);
        survives(&v2);
        // A header without its padding says the same.
        let header = v2.to_header();
        prop_assert_eq!(&v2::PaymentPayload::from_header(header.trim_end_matches('=').as_bytes()).expect("unpadded"), &v2);
    }

    #[test]
    fn answers_survive(settlement in settlement(), verdict in verdict(), supported in supported()) {
        survives(&settlement);
        survives(&verdict);
        survives(&supported);
    }

    #[test]
    fn requests_survive(request in request()) {
        survives(&request);
    }

    #[test]
    fn scheme_payloads_survive(payload in payload()) {
        prop_assert_eq!(Payload::parse(&payload.to_object()), Ok(payload));
    }

    #[test]
    fn an_offer_matches_itself_with_anything_added_to_extra(offer in requirements_v2(), more in any_json()) {
        prop_assert_eq!(requirements_match(&offer, &offer), Ok(()));
        let mut accepted = offer.clone();
        accepted.extra.get_or_insert_default().insert("added by the client", more);
        prop_assert_eq!(requirements_match(&offer, &accepted), Ok(()));
        prop_assert!(requirements_match(&accepted, &offer).is_err());
    }

    #[test]
    fn two_offers_match_only_if_they_are_the_same(a in requirements_v2(), b in requirements_v2()) {
        if requirements_match(&a, &b).is_ok() {
            prop_assert_eq!((a.amount, a.network, a.asset, a.pay_to), (b.amount, b.network, b.asset, b.pay_to));
        }
    }

    #[test]
    fn a_changed_member_changes_what_is_read(request in request(), key in any::<prop::sample::Index>(), with in any_json()) {
        // Whatever replaces a member: it is refused or read, never a panic; and what is read prints itself again.
        let Json::Object(mut json) = request.to_json() else { unreachable!("a request is an object") };
        let name = "paymentRequirements";
        let mut requirements = json.get(name).and_then(Json::as_object).expect("there").clone();
        let keys: Vec<String> = requirements.iter().map(|(key, _)| key.to_owned()).collect();
        requirements.insert(keys[key.index(keys.len())].clone(), with);
        json.insert(name, requirements);
        if let Ok(read) = PaymentRequest::from_json(json.into()) {
            survives(&read);
        }
    }
}
