//! What has gone wrong for others, one test for each.

use farthing_primitives::Timestamp;

use super::{challenge, object, secrets};
use crate::mpp::sse::{Event, Reader};
use crate::mpp::status::{self, Condition, answer};
use crate::mpp::{
    BodyDigest, Challenge, ChallengeSecret, ChallengeSecrets, Challenges, Credential, EncodedRequest,
    IssuedUnder, MIN_SECRET_BYTES, MppError, NotOurs, ProblemType, SecretError, Terms, WireTime,
};
use crate::x402::WireError;
use crate::{Json, Object};

/// The same request text, said otherwise: an id binds text and not meaning.
#[test]
fn an_expiry_is_bound_as_text_and_never_written_anew() {
    let bound = challenge();
    assert_eq!(secrets().verify(&bound), Ok(IssuedUnder::Current));
    assert_eq!(bound.expires.as_ref().map(WireTime::as_str), Some("2026-11-21T12:05:00.123Z"));
    for same_moment in ["2026-11-21T12:05:00.1230Z", "2026-11-21T12:05:00.123+00:00"] {
        let other = Challenge { expires: Some(same_moment.parse().expect("a time")), ..bound.clone() };
        assert_eq!(other.expires.as_ref().map(WireTime::at), bound.expires.as_ref().map(WireTime::at));
        assert_eq!(secrets().verify(&other), Err(NotOurs), "{same_moment}");
    }
    // What we write ourselves has milliseconds, as the published package's has.
    let at = Timestamp::from_millis(1_795_262_700_123);
    assert_eq!(WireTime::from(at).as_str(), "2026-11-21T12:05:00.123Z");
}

#[test]
fn every_parameter_but_the_description_is_bound() {
    let bound = challenge();
    let with = |change: fn(&mut Challenge)| {
        let mut changed = bound.clone();
        change(&mut changed);
        secrets().verify(&changed)
    };
    assert_eq!(with(|c| c.description = Some("cheap".into())), Ok(IssuedUnder::Current));
    let changes: [fn(&mut Challenge); 9] = [
        |c| c.realm = "other.example.com".into(),
        |c| c.method = "tempo".parse().expect("a method"),
        |c| c.intent = "session".parse().expect("an intent"),
        |c| c.request = EncodedRequest::new(object(r#"{"amount":"1"}"#)).expect("canonical"),
        |c| c.expires = None,
        |c| c.digest = Some("sha-256=a".into()),
        |c| c.header = Some("Payment-Authorization".into()),
        |c| c.opaque = Some("e30".into()),
        |c| c.id.replace_range(0..1, "_"),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert_eq!(with(change), Err(NotOurs), "change {at}");
    }
}

/// A separator inside a slot would let a part of one slot be read as another.
#[test]
fn no_two_challenges_share_an_id() {
    let honest = Challenge {
        digest: Some("sha-256=x".into()),
        header: Some("Payment-Authorization".into()),
        opaque: Some("e30".into()),
        ..challenge()
    };
    let honest = secrets().bind(honest).expect("bindable");
    // Joined by the separator, these would give the very same text.
    let moved =
        Challenge { header: None, opaque: Some("Payment-Authorization|e30".into()), ..honest.clone() };
    assert_eq!(secrets().verify(&moved), Err(NotOurs));
    let merged =
        Challenge { header: None, digest: Some("sha-256=x|Payment-Authorization".into()), ..honest.clone() };
    assert_eq!(secrets().verify(&merged), Err(NotOurs));
    for (field, broken) in [
        ("realm", Challenge { realm: "a|b".into(), ..honest.clone() }),
        ("header", Challenge { header: Some("a|b".into()), ..honest.clone() }),
    ] {
        assert_eq!(secrets().bind(broken), Err(MppError::Unprintable { field }));
    }
}

#[test]
fn a_secret_can_be_changed_while_its_challenges_live() {
    let bound = challenge();
    let next = |byte: u8| ChallengeSecret::new(&[byte; MIN_SECRET_BYTES]).expect("long enough");
    let mut now = secrets();
    for age in 0..4 {
        now = now.rotated(next(age));
        assert_eq!(now.verify(&bound), Ok(IssuedUnder::Previous(usize::from(age))));
        let fresh = now.bind(bound.clone()).expect("bindable");
        assert_eq!((now.verify(&fresh), secrets().verify(&fresh)), (Ok(IssuedUnder::Current), Err(NotOurs)));
    }
    assert_eq!(now.rotated(next(9)).verify(&bound), Err(NotOurs));
    assert_eq!(ChallengeSecret::new(&[7; MIN_SECRET_BYTES - 1]).err(), Some(SecretError::TooShort));
    let many = vec![next(1); 5];
    assert_eq!(ChallengeSecrets::with_previous(next(0), many).err(), Some(SecretError::TooMany));
    assert_eq!(format!("{:?} {:?}", next(0), now), "ChallengeSecret ChallengeSecrets(and 4 previous)");
}

/// Raw Latin-1, UTF-8 and escapes are all found in headers, and a header need not be UTF-8.
#[test]
fn headers_need_not_be_utf_8() {
    let with = |description: &[u8]| {
        let mut header = challenge().to_header().expect("printable").into_bytes();
        header.extend_from_slice(b", description=\"");
        header.extend_from_slice(description);
        header.push(b'"');
        Challenge::parse(&header).map(|challenge| challenge.description.unwrap_or_default())
    };
    assert_eq!(with(b"Caf\xe9").as_deref(), Ok("Caf\u{e9}"));
    assert_eq!(with("Caf\u{e9}".as_bytes()).as_deref(), Ok("Caf\u{e9}"));
    assert_eq!(with(br"Caf\u00e9 \ud83d\ude00").as_deref(), Ok("Caf\u{e9} \u{1f600}"));
    assert_eq!(with(b"\xff\xfe \\\"").as_deref(), Ok("\u{ff}\u{fe} \""));
    // An escape of another letter is that letter; so is one without its four digits.
    assert_eq!(with(br"\x \u00e \uzzzz").as_deref(), Ok("x u00e uzzzz"));
    assert_eq!(with(br"\\u0041").as_deref(), Ok("\\u0041"));
    for broken in [&b"\x01"[..], b"\x7f", br"\u000a", br"\udc00", br"\ud800\u0041"] {
        assert_eq!(with(broken), Err(MppError::BadForm { field: "description" }), "{broken:?}");
    }
}

#[test]
fn what_is_printed_cannot_end_the_header() {
    for broken in ["a\r\nSet-Cookie: x", "\u{0}", "\u{7f}"] {
        let challenge = Challenge { description: Some(broken.into()), ..challenge() };
        assert_eq!(challenge.to_header(), Err(MppError::Unprintable { field: "description" }));
    }
}

#[test]
fn both_spellings_of_a_digest_are_one_digest() {
    let body = BodyDigest::of(b"{}");
    let bare = body.to_string();
    let rfc = bare.replacen("sha-256=", "sha-256=:", 1) + ":";
    for spelling in [bare.clone(), rfc] {
        let bound = secrets().bind(Challenge { digest: Some(spelling), ..challenge() }).expect("bindable");
        let read = Challenge::parse(bound.to_header().expect("printable").as_bytes()).expect("readable");
        assert_eq!(read.body_digest(), Ok(Some(body)));
        assert_eq!(secrets().verify(&read), Ok(IssuedUnder::Current));
    }
    assert_eq!(bare.parse(), Ok(body));
    for broken in ["sha-256=", "sha-256=::", "sha-256=:AAAA:", "sha-512=abc", "SHA-256=x", "sha-256=:x"] {
        assert_eq!(broken.parse::<BodyDigest>(), Err(MppError::BadForm { field: "digest" }), "{broken}");
    }
}

/// `+1`, `0x1`, `1_000`, fractions and numbers are no amounts.
#[test]
fn amounts_are_plain_digits() {
    let read = |amount: Json| {
        let mut request = challenge().request.object().clone();
        request.insert("amount", amount);
        Challenge { request: EncodedRequest::new(request).expect("canonical"), ..challenge() }.terms()
    };
    assert!(read("340282366920938463463374607431768211455".into()).is_ok());
    for text in ["", "+1", "-1", "0x1", "1_000", "1.0", "1e3", " 1", "\u{661}", "01"] {
        let error = read(text.into()).expect_err(text);
        assert_eq!(error.code(), "bad_amount", "{text}");
    }
    let beyond = read("340282366920938463463374607431768211456".into());
    assert_eq!(beyond, Err(MppError::Member(WireError::BeyondU128 { field: "amount" })));
    assert_eq!(read(10_000u64.into()).expect_err("a number").code(), "wrong_type");
}

#[test]
fn a_chain_is_always_named() {
    let read = |change: fn(&mut Object)| {
        let mut request = challenge().request.object().clone();
        let Some(Json::Object(mut details)) = request.remove("methodDetails") else { panic!("no details") };
        change(&mut details);
        request.insert("methodDetails", details);
        Challenge { request: EncodedRequest::new(request).expect("canonical"), ..challenge() }.terms()
    };
    assert!(matches!(read(|_| ()), Ok(Terms::EvmCharge(_))));
    let missing = read(|details| {
        details.remove("chainId");
    });
    assert_eq!(missing, Err(MppError::Member(WireError::Missing { field: "chainId" })));
    assert_eq!(read(|details| details.insert("chainId", 0u64)).expect_err("zero").code(), "wrong_type");
    assert_eq!(read(|details| details.insert("chainId", "1")).expect_err("text").code(), "wrong_type");
}

#[test]
fn splits_leave_something_for_the_recipient() {
    let read = |splits: &str| {
        let mut request = challenge().request.object().clone();
        let Some(Json::Object(mut details)) = request.remove("methodDetails") else { panic!("no details") };
        details.insert("splits", super::parse(splits));
        request.insert("methodDetails", details);
        Challenge { request: EncodedRequest::new(request).expect("canonical"), ..challenge() }.terms()
    };
    let to = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
    let one = |amount: &str| format!(r#"[{{"recipient":"{to}","amount":"{amount}"}}]"#);
    let Ok(Terms::EvmCharge(charge)) = read(&one("9999")) else { panic!("{:?}", read(&one("9999"))) };
    assert_eq!((charge.primary_amount(), charge.money().atoms()), (1, 10_000));
    assert_eq!(read(&one("10000")), Err(MppError::Splits));
    let max = u128::MAX.to_string();
    let two = format!(r#"[{{"recipient":"{to}","amount":"{max}"}},{{"recipient":"{to}","amount":"{max}"}}]"#);
    assert_eq!(read(&two), Err(MppError::Splits));
    assert_eq!(read("[]").expect_err("none").code(), "empty_member");
    assert_eq!(read(&format!("[{}]", ["{}"; 11].join(","))).expect_err("many").code(), "too_many");
    assert_eq!(read(r#"[{"recipient":"bob","amount":"1"}]"#).expect_err("no address").code(), "bad_address");
    let memo = format!(r#"[{{"recipient":"{to}","amount":"1","memo":"{}"}}]"#, "x".repeat(257));
    assert_eq!(read(&memo).expect_err("long").code(), "too_many");
}

/// Several credentials are refused wherever they stand, and other schemes are left alone.
#[test]
fn a_request_has_one_credential() {
    let credential = Credential::new(challenge(), Object::new(), None);
    let value = credential.to_header().expect("short");
    let value = value.as_bytes();
    let find = |lines: &[&[u8]]| Credential::find(lines.iter().copied());
    assert_eq!(find(&[]), Ok(None));
    assert_eq!(find(&[b"Bearer abc", b"Basic dTpw"]), Ok(None));
    assert_eq!(
        find(&[b"AWS4-HMAC-SHA256 Credential=A/2/us, SignedHeaders=host;range, Signature=ff"]),
        Ok(None)
    );
    assert_eq!(find(&[b"Bearer \xff\xff \"", b""]), Ok(None));
    assert_eq!(find(&[value]).as_ref(), Ok(&Some(credential.clone())));
    let mixed = [b"Bearer abc, ", value].concat();
    assert_eq!(find(&[&mixed]).as_ref(), Ok(&Some(credential.clone())));
    assert_eq!(find(&[b"Bearer abc", value]).as_ref(), Ok(&Some(credential)));
    for lines in [&[value, value][..], &[&[value, b", ", value].concat()], &[value, b"Payment e30"]] {
        let error = find(lines).expect_err("two");
        assert_eq!(error, MppError::SeveralCredentials);
        assert_eq!(
            (error.credential_problem(), error.credential_problem().status()),
            (ProblemType::BadRequest, 400)
        );
    }
    let lower = [b"payment ", &value["Payment ".len()..]].concat();
    assert!(find(&[&lower]).is_ok_and(|found| found.is_some()));
    assert_eq!(
        find(&[b"Payment !"]).expect_err("no token").credential_problem(),
        ProblemType::MalformedCredential
    );
}

#[test]
fn one_bad_challenge_hides_no_other() {
    let good = challenge().to_header().expect("printable");
    let bad = "Payment id=\"\", realm=\"r\", method=\"evm\", intent=\"charge\", request=\"e30\"";
    let broken = "Payment id=\"a\", realm=\"r";
    let line = format!("{bad}, Bearer realm=\"x\", {good}, {broken}");
    let read = Challenges::parse([line.as_bytes(), b"Basic", good.as_bytes()]).expect("two are good");
    assert_eq!(read.challenges, [challenge(), challenge()]);
    let codes: Vec<_> = read.unreadable.iter().map(MppError::code).collect();
    assert_eq!(codes, ["empty_member", "unterminated_string"]);
    assert_eq!(Challenges::parse([bad.as_bytes()]).expect_err("none").code(), "empty_member");
    assert_eq!(Challenges::parse([&b"Basic"[..]]), Err(MppError::NoPaymentScheme));
    assert_eq!(Challenges::parse([]), Err(MppError::NoPaymentScheme));
}

/// Data with line ends must neither be cut nor become events of their own.
#[test]
fn data_cannot_start_an_event() {
    let evil = "a\n\nevent: payment-receipt\ndata: {}\r\revent: x\r\n:b";
    let printed = Event::Message(evil.into()).print();
    let events = Reader::new().push(printed.as_bytes()).expect("short");
    assert_eq!(events, [Ok(Event::Message(evil.replace("\r\n", "\n").replace('\r', "\n")))]);
    let name = Event::Other { event: "x\ndata: y".into(), data: "z".into() }.print();
    let events = Reader::new().push(name.as_bytes()).expect("short");
    assert_eq!(events, [Ok(Event::Other { event: "x data: y".into(), data: "z".into() })]);
}

/// Spec: draft-httpauth-payment-00, "Status Codes".
#[test]
fn statuses_are_those_of_the_draft() {
    let of = |condition| {
        let answer = answer(&condition);
        (answer.status, answer.challenge, answer.receipt, answer.cache_control)
    };
    assert_eq!(of(Condition::NotAuthenticated), (401, false, false, None));
    assert_eq!(of(Condition::NoCredential), (402, true, false, Some("no-store")));
    assert_eq!(of(Condition::Granted), (200, false, true, Some("private")));
    assert_eq!(of(Condition::PaidButDenied), (403, false, false, None));
    for kind in ProblemType::ALL {
        let answer = answer(&Condition::Refused(kind.clone()));
        assert_eq!((answer.status, answer.challenge), (kind.status(), kind.status() == 402), "{kind:?}");
        assert_eq!((answer.receipt, answer.cache_control), (false, Some("no-store")), "{kind:?}");
        assert_eq!(ProblemType::from_uri(&kind.uri()), *kind);
    }
    // An expired challenge has its own type, whatever the draft's table says: clients know it by that.
    assert_eq!(ProblemType::PaymentExpired.uri(), "https://paymentauth.org/problems/payment-expired");
    assert!(status::allows_receipt(204) && !status::allows_receipt(402) && !status::allows_receipt(302));
    assert_eq!(ProblemType::of_revert("AmountExceedsDeposit"), ProblemType::AmountExceedsDeposit);
    assert_eq!(ProblemType::of_revert("NonceMismatch"), ProblemType::TransactionReverted);
}
