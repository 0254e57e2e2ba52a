//! Laws that hold of all inputs: what is printed is read as itself, and nothing that is read is lost.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::{challenge, secrets};
use crate::json::{Json, Object};
use crate::mpp::sse::{Event, Reader};
use crate::mpp::{
    AcceptPayment, Challenge, Challenges, Credential, EncodedRequest, IssuedUnder, MppError, Range, Receipt,
    encoding, jcs,
};

/// Text without controls, with what needs escapes.
fn text() -> impl Strategy<Value = String> {
    vec(
        prop_oneof![
            Just('"'),
            Just('\\'),
            Just('u'),
            Just(','),
            Just('='),
            Just('\u{1f600}'),
            "[ -~\u{a0}-\u{2fff}]".prop_map(|s| s.chars().next().unwrap_or(' '))
        ],
        0..12,
    )
    .prop_map(|chars| chars.into_iter().collect())
}

fn json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::Bool),
        (0..1u64 << 53).prop_map(Json::from),
        any::<String>().prop_map(Json::String),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Json::Array),
            vec((any::<String>(), inner), 0..5)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

fn request() -> impl Strategy<Value = Object> {
    vec((any::<String>(), json()), 0..5).prop_map(|members| members.into_iter().collect())
}

prop_compose! {
    fn challenges()(
        id in "[A-Za-z0-9_-]{1,43}",
        realm in text(),
        method in "[a-z][a-z0-9:_-]{0,8}",
        intent in "[A-Za-z0-9-]{1,8}",
        request in request(),
        description in option::of(text()),
        digest in option::of("sha-256=[!-~]{0,20}"),
        expires in option::of(0u64..4_000_000_000_000),
        header in option::of("X-[a-zA-Z!#$%&'*+.^_`|~-]{1,12}"),
        opaque in option::of(text()),
    ) -> Challenge {
        Challenge {
            id,
            realm,
            method: method.parse().expect("a method"),
            intent: intent.parse().expect("an intent"),
            request: EncodedRequest::new(request).expect("canonical"),
            description,
            digest,
            expires: expires.map(|at| farthing_primitives::Timestamp::from_millis(at).into()),
            header,
            opaque,
        }
    }
}

proptest! {
    #[test]
    fn parsing_a_challenge_undoes_printing(challenge in challenges()) {
        let header = challenge.to_header().expect("no controls");
        prop_assert!(header.is_ascii());
        let read = Challenge::parse(header.as_bytes());
        prop_assert_eq!(read.as_ref(), Ok(&challenge));
        prop_assert_eq!(Challenge::from_json(challenge.to_echo().into()), Ok(challenge.clone()));
        prop_assert_eq!(Challenge::from_json(challenge.to_native().into()), Ok(challenge));
    }

    #[test]
    fn challenges_in_one_line_or_many_are_the_same(all in vec(challenges(), 1..5), other in 0usize..3) {
        let headers: Vec<String> = all.iter().map(|one| one.to_header().expect("printable")).collect();
        let joint = ["", "Bearer realm=\"x, Payment y\", ", "Basic, Negotiate aGk=, "][other].to_owned() + &headers.join(", ");
        let one = Challenges::parse([joint.as_bytes()]).expect("readable");
        let many = Challenges::parse(headers.iter().map(|line| line.as_bytes())).expect("readable");
        prop_assert_eq!(&one.challenges, &all);
        prop_assert_eq!(one, many);
    }

    #[test]
    fn an_id_holds_for_its_challenge_alone(a in challenges(), b in challenges()) {
        let bind = |challenge: Challenge| secrets().bind(challenge);
        if let (Ok(a), Ok(b)) = (bind(a), bind(b)) {
            prop_assert_eq!(secrets().verify(&a), Ok(IssuedUnder::Current));
            // Only what is bound is compared: two that differ in the description alone are one.
            let same = Challenge { description: None, ..a.clone() } == Challenge { description: None, ..b.clone() };
            prop_assert_eq!(a.id == b.id, same);
            let swapped = Challenge { id: b.id.clone(), ..a };
            prop_assert_eq!(secrets().verify(&swapped).is_ok(), same);
        }
    }

    #[test]
    fn parsing_a_credential_undoes_printing(challenge in challenges(), payload in request()) {
        let credential = Credential::new(challenge, payload, None);
        let header = credential.to_header().expect("short");
        prop_assert_eq!(Credential::parse(header.as_bytes()), Ok(credential.clone()));
        prop_assert_eq!(Credential::from_json(credential.to_native().into()), Ok(credential));
    }

    #[test]
    fn parsing_a_receipt_undoes_printing(other in request(), reference in any::<String>()) {
        let known = ["method", "reference", "externalId", "subscriptionId", "status", "timestamp", "challengeId"];
        let mut receipt = Receipt::new("evm", reference, "2026-11-21T12:00:00Z".parse().expect("a time"));
        receipt.other = other.iter().filter(|(key, _)| !known.contains(key)).map(|(key, value)| (key, value.clone())).collect();
        prop_assert_eq!(Receipt::parse(receipt.to_header().as_bytes()), Ok(receipt));
    }

    #[test]
    fn canonical_json_is_what_was_meant_in_one_spelling(object in request()) {
        let text = jcs::print(&object).expect("whole numbers");
        let again = super::object(&text);
        prop_assert_eq!(&again, &object);
        prop_assert_eq!(jcs::print(&again), Ok(text));
        // Whatever order it came in.
        let mut members: Vec<(String, Json)> = object.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        members.reverse();
        let reversed: Object = members.into_iter().collect();
        prop_assert_eq!(jcs::print(&reversed), jcs::print(&object));
    }

    #[test]
    fn base64url_has_one_spelling(bytes in vec(any::<u8>(), 0..64), text in "[A-Za-z0-9_=-]{0,20}") {
        let encoded = encoding::encode(&bytes);
        prop_assert_eq!(encoding::decode(encoded.as_bytes(), 1024, "x"), Ok(bytes));
        if let Ok(bytes) = encoding::decode(text.as_bytes(), 1024, "x") {
            prop_assert_eq!(encoding::encode(bytes), text);
        }
    }

    #[test]
    fn preferences_print_as_they_read(ranges in vec((option::of("[a-z]{1,4}"), option::of("[a-z]{1,4}"), 0u16..=1000), 1..6)) {
        let ranges = ranges.into_iter().map(|(method, intent, weight)| Range {
            method: method.map(|name| name.parse().expect("a method")),
            intent: intent.map(|name| name.parse().expect("an intent")),
            weight,
        });
        let accept = AcceptPayment::new(ranges.collect());
        prop_assert_eq!(AcceptPayment::parse([accept.to_string().as_bytes()]), Ok(Some(accept)));
    }

    #[test]
    fn a_message_arrives_whole(data in any::<String>(), cut in 1usize..9) {
        let printed = Event::Message(data.clone()).print();
        let mut reader = Reader::new();
        let events: Vec<Result<Event, MppError>> =
            printed.as_bytes().chunks(cut).flat_map(|piece| reader.push(piece).expect("short")).collect();
        let expected = data.replace("\r\n", "\n").replace('\r', "\n");
        prop_assert_eq!(events, vec![Ok(Event::Message(expected))]);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>()) {
        let mut header = challenge().to_header().expect("printable").into_bytes();
        let at = at.index(header.len());
        header.splice(at..at, bytes.iter().copied());
        for line in [&header[..], &bytes] {
            if let Ok(read) = Challenges::parse([line]) {
                for challenge in read.challenges {
                    let printed = challenge.to_header().expect("what is read is printable");
                    prop_assert_eq!(Challenge::parse(printed.as_bytes()), Ok(challenge));
                }
            }
            let _ = Credential::find([line]);
        }
    }
}
