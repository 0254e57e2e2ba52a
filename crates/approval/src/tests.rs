use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_primitives::{Address, Network, Registry, Timestamp};
use proptest::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::*;

pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

pub(crate) fn request() -> ApprovalRequest {
    ApprovalRequest {
        subject: Subject {
            agent: Some("acme/research".parse().unwrap()),
            payer: Address::from_evm_bytes([1; 20]),
            method: "GET".to_owned(),
            url: "https://api.weather.example/v1/now?city=x".to_owned(),
            body: [7; 32],
            payee: Address::from_evm_bytes([2; 20]),
            asset: Registry::builtin().dollar(&Network::eip155(8453)).unwrap().id.clone(),
        },
        max: 350_000,
        expires: Timestamp::from_millis(1_700_000_900_000),
    }
}

pub(crate) fn key(n: u8) -> ApproverKey {
    ApproverKey::from_seed([n; 32]).unwrap()
}

/// The text and the digest of docs/reference/approvals.md, which others check their own by.
#[test]
fn a_request_has_one_text_and_one_digest() {
    let text = concat!(
        r#"{"agent":"acme/research","asset":"eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913","#,
        r#""body_sha256":"0707070707070707070707070707070707070707070707070707070707070707","#,
        r#""expires_ms":"1700000900000","max_atoms":"350000","method":"GET","#,
        r#""payee":"0x0202020202020202020202020202020202020202","#,
        r#""payer":"0x0101010101010101010101010101010101010101","#,
        r#""type":"farthing.payment-approval.v1","url":"https://api.weather.example/v1/now?city=x"}"#,
    );
    assert_eq!(request().text(), text);
    assert_eq!(ApprovalRequest::read(text), Ok(request()));
    let page = include_str!("../../../docs/reference/approvals.md");
    assert!(page.contains(text), "the page shows another text");
    assert!(page.contains(&request().digest().to_string()), "{}", request().digest());
    let ballot = Ballot::cast(&key(1), &request(), Verdict::Approve);
    assert!(
        page.contains(&hex::encode(ballot.proof.signature())),
        "{}",
        hex::encode(ballot.proof.signature())
    );
    assert!(page.contains(&key(1).public().to_string()), "{}", key(1).public());
}

/// The passkey of that page, and what it says.
#[test]
fn a_passkeys_word_on_it_is_one_that_others_can_check() {
    let origin = "http://localhost:8405";
    let challenge = URL_SAFE_NO_PAD.encode(Verdict::Approve.message(&request().digest()));
    let client_data = format!(
        r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{origin}","crossOrigin":false}}"#
    );
    let mut authenticator_data = Sha256::digest("localhost").to_vec();
    // Present and verified, once.
    authenticator_data.extend_from_slice(&[0b101, 0, 0, 0, 1]);
    let signed = [&authenticator_data[..], &Sha256::digest(&client_data)].concat();
    let signature = key(1).sign(&signed);
    let page = include_str!("../../../docs/reference/approvals.md");
    let passkey = Passkey {
        id: CredentialId::new(&[1; 16]).unwrap(),
        key: PasskeyKey::Ed25519(key(1).public().0),
        site: Site::of(origin).unwrap(),
        count: 0,
    };
    let shown = [
        client_data.clone(),
        hex::encode(&authenticator_data),
        hex::encode(&signature),
        passkey.key.to_string(),
    ];
    for part in &shown {
        assert!(page.contains(part), "the page shows another: {part}");
    }
    let said = Assertion { authenticator_data, client_data: client_data.into_bytes(), signature };
    let ballot = Ballot { verdict: Verdict::Approve, proof: Proof::Passkey(said) };
    let heard = ballot.check(&Credential::Passkey(passkey), &request(), NOW);
    assert_eq!(heard, Ok(Heard { verdict: Verdict::Approve, count: Some(1) }));
}

#[test]
fn what_is_not_exactly_a_request_is_none() {
    let text = request().text();
    for (from, to) in [
        ("{\"agent\"", "{ \"agent\""),
        ("\"350000\"", "\"0350000\""),
        ("\"350000\"", "350000"),
        ("\"350000\"", "\"-1\""),
        ("\"350000\"", "\"3.5e5\""),
        ("0x0202", "0x02"),
        ("acme/research", "Acme/research"),
        ("payment-approval.v1", "payment-approval.v2"),
        ("\"method\":\"GET\",", ""),
        ("\"method\":\"GET\"", "\"method\":\"GET\",\"note\":\"x\""),
        ("\"method\":\"GET\"", "\"method\":\"\\u0047ET\""),
        ("0707\"", "07\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(ApprovalRequest::read(&text.replacen(from, to, 1)).is_err(), "{to}");
    }
}

#[test]
fn attack_66_a_word_counts_for_its_request_and_nothing_else() {
    let asked = request();
    let yes = Ballot::cast(&key(1), &asked, Verdict::Approve);
    let has = |n| Credential::Key(key(n).public());
    let check = |ballot: &Ballot, request: &ApprovalRequest, now| {
        ballot.check(&has(1), request, now).map(|heard| heard.verdict)
    };
    assert_eq!(check(&yes, &asked, NOW), Ok(Verdict::Approve));
    // A no cannot be made of a yes, nor the other way round.
    let turned = Ballot { verdict: Verdict::Deny, ..yes.clone() };
    assert_eq!(check(&turned, &asked, NOW), Err(VoteError::Signature));
    assert_eq!(yes.check(&has(2), &asked, NOW), Err(VoteError::Signature));
    for other in others() {
        assert_eq!(check(&yes, &other, NOW), Err(VoteError::Signature), "{other:?}");
        assert_ne!(other.digest(), asked.digest());
    }
    let last = Timestamp::from_millis(asked.expires.millis() - 1);
    assert_eq!(check(&yes, &asked, last), Ok(Verdict::Approve));
    assert_eq!(check(&yes, &asked, asked.expires), Err(VoteError::Expired));
}

/// The same request, with one thing changed.
fn others() -> Vec<ApprovalRequest> {
    let with = |change: fn(&mut ApprovalRequest)| {
        let mut other = request();
        change(&mut other);
        other
    };
    vec![
        with(|r| r.subject.agent = None),
        with(|r| r.subject.agent = Some("acme/sales".parse().unwrap())),
        with(|r| r.subject.payer = Address::from_evm_bytes([9; 20])),
        with(|r| r.subject.payee = Address::from_evm_bytes([9; 20])),
        with(|r| r.subject.method = "POST".to_owned()),
        with(|r| r.subject.url = "https://api.weather.example/v1/now?city=y".to_owned()),
        with(|r| r.subject.body = [8; 32]),
        with(|r| r.subject.asset = Registry::builtin().dollar(&Network::eip155(84532)).unwrap().id.clone()),
        with(|r| r.max += 1),
        with(|r| r.expires = Timestamp::from_millis(r.expires.millis() + 1)),
    ]
}

#[test]
fn attack_66_an_approval_covers_its_subject_up_to_its_amount_in_time() {
    let asked = request();
    assert!(asked.covers(&asked.subject, 350_000, NOW));
    assert!(!asked.covers(&asked.subject, 350_001, NOW));
    assert!(!asked.covers(&asked.subject, 1, asked.expires));
    for other in others().into_iter().filter(|other| other.subject != asked.subject) {
        assert!(!asked.covers(&other.subject, 1, NOW), "{other:?}");
        assert_ne!(other.subject.key(), asked.subject.key());
    }
}

#[test]
fn one_no_is_a_no_and_each_counts_once() {
    let vote = |name: &str, verdict| Vote { approver: name.to_owned(), verdict };
    let yes = |name| vote(name, Verdict::Approve);
    let later = NOW.plus(std::time::Duration::from_secs(60));
    assert_eq!(tally(&[], 0, later, NOW), Status::Pending { voices: 0, quorum: 0 });
    assert_eq!(tally(&[yes("a"), yes("a")], 2, later, NOW), Status::Pending { voices: 1, quorum: 2 });
    assert_eq!(tally(&[yes("a"), yes("b")], 2, later, NOW), Status::Approved { voices: 2 });
    assert_eq!(tally(&[yes("a"), yes("b"), vote("c", Verdict::Deny)], 2, later, NOW), Status::Denied);
    assert_eq!(tally(&[yes("a"), yes("b")], 2, NOW, NOW), Status::Expired);
}

#[test]
fn keys_and_names_have_one_spelling() {
    let key = key(3);
    assert_eq!(ApproverKey::read(&key.secret()).unwrap().public(), key.public());
    assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    assert!(!format!("{key:?}").contains(&key.secret()[15..30]), "a secret is not printed");
    for bad in ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", &key.secret()] {
        assert_eq!(bad.parse::<PublicKey>(), Err(KeyError::Public));
    }
    assert!(ApproverKey::read(&key.public().to_string()).is_err());
    assert!(
        is_name("ada@acme.example") && !is_name("") && !is_name("Ada") && !is_name("аda") && !is_name("a b")
    );
    let id = ApprovalId::of(&request().digest());
    assert_eq!(id.to_string().parse(), Ok(id));
    for bad in ["", "apr_", "apr_00", &id.to_string().to_uppercase(), &id.to_string()[1..]] {
        assert_eq!(bad.parse::<ApprovalId>(), Err(IdError));
    }
}

proptest! {
    #[test]
    fn whatever_is_printed_reads_back(method in "[A-Z]{1,8}", path in "[ -~]{0,40}", max: u128, ms in 0..u64::MAX / 2) {
        let mut asked = request();
        asked.subject.method = method;
        asked.subject.url = format!("https://x.example/{path}");
        asked.max = max;
        asked.expires = Timestamp::from_millis(ms);
        prop_assert_eq!(ApprovalRequest::read(&asked.text()), Ok(asked));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,300}") {
        let _ = ApprovalRequest::read(&text);
        let _ = Asked::read(&text);
        let _ = text.parse::<ApprovalId>();
        let _ = text.parse::<AnyKey>();
        let _ = ApproverKey::read(&text);
    }
}
