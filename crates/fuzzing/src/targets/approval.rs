//! What people are asked and what they answer: requests, grants, votes, passkeys. Each has one text, and nobody's word is
//! ever one on anything else than what they were asked.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::{
    AnyKey, ApprovalId, ApprovalRequest, ApproverKey, Asked, Assertion, Ballot, Body, Credential,
    CredentialId, GrantAsk, GrantRequest, Passkey, PasskeyKey, Place, Proof, Question, Registration, Site,
    Status, Subject, Uses, Verdict, Vote, is_name, passkey, tally,
};
use farthing_primitives::{Address, Network, Registry, Timestamp};
use sha2::{Digest, Sha256};

use super::is_short;
use crate::input::Input;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const EXPIRES: Timestamp = Timestamp::from_secs(1_700_000_900);
const ORIGIN: &str = "http://localhost:8405";
const PRESENT_AND_VERIFIED: u8 = 0b101;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 | 1 => text(&mut input),
        2 => names(&String::from_utf8_lossy(input.rest())),
        3 => words(&mut input),
        4 | 5 => vote(&mut input),
        6 => assertion(&mut input),
        _ => registration(&mut input),
    }
}

fn key(n: u8) -> &'static ApproverKey {
    static KEYS: OnceLock<Vec<ApproverKey>> = OnceLock::new();
    let made = || (0..2).map(|n| ApproverKey::from_seed([n + 1; 32]).expect("a key")).collect();
    &KEYS.get_or_init(made)[usize::from(n % 2)]
}

fn request() -> &'static ApprovalRequest {
    static REQUEST: OnceLock<ApprovalRequest> = OnceLock::new();
    REQUEST.get_or_init(|| ApprovalRequest {
        subject: Subject {
            agent: Some("acme/research".parse().expect("a name")),
            payer: Address::from_evm_bytes([1; 20]),
            method: "GET".to_owned(),
            url: "https://api.weather.example/v1/now?city=x".to_owned(),
            body: [7; 32],
            payee: Address::from_evm_bytes([2; 20]),
            asset: Registry::builtin().dollar(&Network::eip155(8453)).expect("listed").id.clone(),
        },
        max: 350_000,
        expires: EXPIRES,
    })
}

fn grant() -> &'static GrantRequest {
    static GRANT: OnceLock<GrantRequest> = OnceLock::new();
    GRANT.get_or_init(|| {
        let ApprovalRequest { subject, .. } = request().clone();
        GrantRequest {
            agent: subject.agent,
            payer: subject.payer,
            method: subject.method,
            place: Place::Below("https://api.weather.example/v1/".to_owned()),
            body: Body::Any,
            payee: subject.payee,
            asset: subject.asset,
            payments: 10,
            max: 350_000,
            total: 1_000_000,
            expires: EXPIRES,
        }
    })
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::of(ORIGIN).expect("a site"))
}

fn device() -> Passkey {
    Passkey {
        id: CredentialId::new(&[9; 16]).expect("an id"),
        key: PasskeyKey::Ed25519(key(0).public().0),
        site: site().clone(),
        count: 0,
    }
}

/// A request or a grant as a text, after what is spliced into a good one.
fn text(input: &mut Input<'_>) {
    let text = match input.byte() % 3 {
        0 => String::from_utf8_lossy(input.rest()).into_owned(),
        which => {
            let good = if which == 1 { request().text() } else { grant().text() };
            let mut bytes = good.into_bytes();
            while !input.is_empty() {
                let at = usize::from(input.u16()) % (bytes.len() + 1);
                let end = (at + usize::from(input.byte() % 8)).min(bytes.len());
                let with = input.byte() % 8;
                bytes.splice(at..end, input.take(with.into()).iter().copied());
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    let asked = match Asked::read(&text) {
        Ok(asked) => asked,
        Err(error) => return is_short(&error),
    };
    assert_eq!(asked.text(), text, "one request has one text");
    assert_eq!(asked.id().to_string().parse::<ApprovalId>(), Ok(asked.id()));
    assert_eq!(asked.id().is_grant(), asked.grant().is_some());
    // What was said of another is nothing of this one.
    for other in [Asked::from(request().clone()), Asked::from(grant().clone())] {
        assert_eq!(other == asked, other.digest() == asked.digest());
        assert_eq!(other == asked, other.message(Verdict::Approve) == asked.message(Verdict::Approve));
        let ballot = Ballot::cast(key(0), &other, Verdict::Approve);
        let credential = Credential::Key(key(0).public());
        let until = other.expires().min(asked.expires());
        if until.millis() > 0 {
            let now = Timestamp::from_millis(until.millis() - 1);
            assert_eq!(ballot.check(&credential, &asked, now).is_ok(), other == asked);
        }
    }
    match &asked {
        Asked::Payment(one) => {
            assert!(one.covers(&one.subject, one.max, NOW) == (NOW < one.expires));
            assert!(!one.covers(&one.subject, one.max.saturating_add(1), NOW) || one.max == u128::MAX);
        }
        Asked::Grant(one) => granted(one),
    }
}

/// What holds of every grant that was read.
fn granted(grant: &GrantRequest) {
    let most = grant.max.saturating_mul(grant.payments.into());
    assert!(grant.max <= grant.total && grant.total <= most && grant.max > 0 && grant.payments > 0);
    let mut used = Uses::default();
    for atoms in [grant.max, grant.total, grant.total - grant.max, 1] {
        if grant.has_room(&used, atoms) {
            used = Uses { payments: used.payments + 1, atoms: used.atoms + atoms };
        }
        let left = grant.left(&used);
        assert!(used.payments <= grant.payments && used.atoms <= grant.total);
        assert_eq!((left.payments, left.atoms), (grant.payments - used.payments, grant.total - used.atoms));
    }
    let ApprovalRequest { subject, .. } = request();
    if grant.covers(subject, 1, NOW) {
        assert!(NOW < grant.expires && subject.grant_scope() == grant.scope());
        assert!(subject.url.starts_with(grant.place.url()));
        for climbing in ["..", "%2e%2e", "a//b", "a;b", ".", "a\\b"] {
            let url = format!("{}{climbing}", grant.place.url());
            let there = Subject { url, ..subject.clone() };
            assert!(!matches!(grant.place, Place::Below(_)) || !grant.covers(&there, 1, NOW), "{climbing}");
        }
    }
}

/// Ids, keys, names and sites have one spelling each.
fn names(text: &str) {
    if let Ok(id) = text.parse::<ApprovalId>() {
        assert_eq!(id.to_string(), text);
    }
    if let Ok(key) = text.parse::<AnyKey>() {
        assert_eq!(key.to_string(), text);
    }
    match ApproverKey::read(text) {
        Ok(key) => assert_eq!(key.secret(), text.trim()),
        Err(error) => is_short(&error),
    }
    if is_name(text) {
        assert!(text.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase()));
    }
    match Site::of(text) {
        Ok(site) => {
            let url: url::Url = text.parse().expect("an origin is a URL");
            assert_eq!(url.origin().ascii_serialization(), text, "browsers write another origin");
            assert_eq!(url.host_str(), Some(site.rp_id()));
        }
        Err(error) => is_short(&error),
    }
}

/// The bounds of a grant, as somebody writes them.
fn words(input: &mut Input<'_>) {
    let atoms = u128::from(input.u16());
    let text = String::from_utf8_lossy(input.rest());
    let ask = match text.parse::<GrantAsk>() {
        Ok(ask) => ask,
        Err(error) => return is_short(&error),
    };
    let registry = Registry::builtin();
    let asset = registry.get(&request().subject.asset).expect("listed");
    let terms = match ask.terms(asset) {
        Ok(terms) => terms,
        Err(error) => return is_short(&error),
    };
    match GrantRequest::new(&request().subject, atoms, &terms, NOW) {
        Ok(grant) => {
            assert!(grant.covers(&request().subject, atoms, NOW) && atoms <= grant.max);
            assert_eq!(grant.check(NOW), Ok(()));
            assert_eq!(GrantRequest::read(&grant.text()).as_ref(), Ok(&grant));
            granted(&grant);
        }
        Err(error) => is_short(&error),
    }
}

/// A good ballot, and a script of what is changed in it and in what it is shown for.
fn vote(input: &mut Input<'_>) {
    let (by_passkey, on_grant) = (input.flag(), input.flag());
    let verdict = if input.flag() { Verdict::Approve } else { Verdict::Deny };
    let asked: Asked = if on_grant { grant().clone().into() } else { request().clone().into() };
    let cast = if by_passkey {
        let client = client("webauthn.get", &asked.message(verdict), ORIGIN);
        Ballot { verdict, proof: Proof::Passkey(signed(authenticator(PRESENT_AND_VERIFIED, 1), client)) }
    } else {
        Ballot::cast(key(0), &asked, verdict)
    };
    let credential = |n: u8| match by_passkey {
        true => Credential::Passkey(Passkey { key: PasskeyKey::Ed25519(key(n).public().0), ..device() }),
        false => Credential::Key(key(n).public()),
    };
    assert_eq!(cast.check(&credential(0), &asked, NOW).map(|heard| heard.verdict), Ok(verdict));
    let (mut shown, mut question, mut whose, mut now) = (cast.clone(), asked.clone(), 0, NOW);
    for _ in 0..4 {
        if input.is_empty() {
            break;
        }
        match input.byte() % 8 {
            0 => whose = input.byte() % 2,
            1 => shown.verdict = if input.flag() { Verdict::Approve } else { Verdict::Deny },
            2 => now = EXPIRES.minus(std::time::Duration::from_millis(u64::from(input.byte()))),
            3 => question = changed(&question, input),
            _ => flip(&mut shown.proof, input),
        }
    }
    let same = shown == cast && question == asked && whose == 0 && now < EXPIRES;
    let heard = shown.check(&credential(whose), &question, now);
    assert_eq!(heard.is_ok(), same, "{heard:?} of {shown:?} on {question:?}");
    if let Err(error) = heard {
        is_short(&error);
    }
    // However often one says it, it is one voice; and one no is a no.
    let said = |approver: &str, verdict| Vote { approver: approver.to_owned(), verdict };
    let mut votes = vec![said("a", Verdict::Approve); 3];
    assert!(matches!(tally(&votes, 2, EXPIRES, now), Status::Pending { voices: 1, .. } | Status::Expired));
    votes.push(said("b", shown.verdict));
    let approved = matches!(tally(&votes, 2, EXPIRES, now), Status::Approved { .. });
    assert_eq!(approved, shown.verdict == Verdict::Approve && now < EXPIRES);
}

fn changed(asked: &Asked, input: &mut Input<'_>) -> Asked {
    let (which, by) = (input.byte(), input.byte());
    match asked {
        Asked::Payment(one) => {
            let mut one = one.clone();
            let subject = &mut one.subject;
            match which % 8 {
                0 => one.max = one.max.wrapping_add(by.into()),
                1 => one.expires = Timestamp::from_millis(one.expires.millis() + u64::from(by)),
                2 => subject.body[usize::from(by) % 32] ^= by,
                3 => subject.url.push(char::from(by % 0x7f)),
                4 => subject.payee = Address::from_evm_bytes([by; 20]),
                5 => subject.payer = Address::from_evm_bytes([by; 20]),
                6 => subject.method = input.text(),
                _ => subject.agent = None,
            }
            one.into()
        }
        Asked::Grant(one) => {
            let mut one = one.clone();
            match which % 6 {
                0 => one.max = one.max.wrapping_add(by.into()),
                1 => one.expires = Timestamp::from_millis(one.expires.millis() + u64::from(by)),
                2 => one.payments = one.payments.wrapping_add(by.into()),
                3 => one.total = one.total.wrapping_add(by.into()),
                4 => one.body = Body::Exactly([by; 32]),
                _ => one.place = Place::Exactly(one.place.url().to_owned()),
            }
            one.into()
        }
    }
}

fn flip(proof: &mut Proof, input: &mut Input<'_>) {
    let (which, at, with) = (input.byte(), usize::from(input.u16()), input.byte());
    let bytes = match proof {
        Proof::Signature(signature) => signature,
        Proof::Passkey(one) => match which % 3 {
            0 => &mut one.authenticator_data,
            1 => &mut one.client_data,
            _ => &mut one.signature,
        },
    };
    if with == 0 {
        bytes.truncate(at % (bytes.len() + 1));
    } else if let Some(len) = std::num::NonZeroUsize::new(bytes.len()) {
        bytes[at % len] ^= with;
    }
}

fn client(kind: &str, challenge: &[u8], origin: &str) -> Vec<u8> {
    let challenge = URL_SAFE_NO_PAD.encode(challenge);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"}}"#).into_bytes()
}

fn authenticator(flags: u8, count: u32) -> Vec<u8> {
    [&Sha256::digest(site().rp_id())[..], &[flags], &count.to_be_bytes()].concat()
}

fn signed(authenticator_data: Vec<u8>, client_data: Vec<u8>) -> Assertion {
    let signature = key(0).sign(&[&authenticator_data[..], &Sha256::digest(&client_data)].concat());
    Assertion { authenticator_data, client_data, signature }
}

/// Whatever a device signs: it is a word only if a page of ours asked, and a person was there.
fn assertion(input: &mut Input<'_>) {
    const CHALLENGE: &[u8] = b"what is asked";
    let flags = input.byte();
    let count = u32::from(input.byte());
    let mut data = if input.flag() { authenticator(flags, count) } else { Vec::new() };
    data.extend_from_slice(input.blob());
    let mut said = client("webauthn.get", CHALLENGE, ORIGIN);
    match input.byte() % 4 {
        0 => said = input.rest().to_vec(),
        1 => {
            said.pop();
            said.extend_from_slice(input.rest());
        }
        2 => {
            let at = usize::from(input.byte()) % said.len();
            said[at] = input.byte();
        }
        _ => {}
    }
    let assertion = signed(data, said);
    let known = Passkey { count: u32::from(input.byte()), ..device() };
    match assertion.check(&known, CHALLENGE) {
        Ok(now) => {
            let data = &assertion.authenticator_data;
            assert_eq!(data[..32], Sha256::digest(site().rp_id())[..]);
            assert_eq!(data[32] & PRESENT_AND_VERIFIED, PRESENT_AND_VERIFIED);
            assert!(now > known.count || (now == 0 && known.count == 0), "counted backwards");
            let said: serde_json::Value = serde_json::from_slice(&assertion.client_data).expect("JSON");
            assert_eq!(said["type"], "webauthn.get");
            assert_eq!(said["challenge"], URL_SAFE_NO_PAD.encode(CHALLENGE));
            assert_eq!(said["origin"], ORIGIN);
            assert!(said["topOrigin"].is_null() && said["crossOrigin"] != true);
            assert!(assertion.check(&known, b"what is asked else").is_err());
        }
        Err(error) => is_short(&error),
    }
}

/// Whatever a device makes: a key that is read is one, and is written in one way.
fn registration(input: &mut Input<'_>) {
    const CHALLENGE: &[u8] = b"who are you";
    let attestation_object = match input.byte() % 2 {
        0 => input.rest().to_vec(),
        _ => {
            let mut object = object(&authenticator(input.byte() | PRESENT_AND_VERIFIED, 0), input.blob());
            if !input.is_empty() {
                let at = usize::from(input.u16()) % object.len();
                object[at] = input.byte();
            }
            object
        }
    };
    let made = Registration { attestation_object, client_data: client("webauthn.create", CHALLENGE, ORIGIN) };
    match made.check(CHALLENGE, site(), site()) {
        Ok(read) => {
            assert_eq!(read.key.to_string().parse(), Ok(read.key));
            assert!((1..=passkey::MAX_CREDENTIAL_BYTES).contains(&read.id.as_bytes().len()));
            assert_eq!(made.check(CHALLENGE, site(), site()), Ok(read));
            assert!(made.check(b"who else", site(), site()).is_err());
        }
        Err(error) => is_short(&error),
    }
}

/// An attestation object of the format `none`, with authenticator data of so many bytes.
fn object(fixed: &[u8], rest: &[u8]) -> Vec<u8> {
    let data = [fixed, rest].concat();
    let length = u16::try_from(data.len()).expect("short").to_be_bytes();
    let sized: &[u8] = if data.len() < 256 { &[0x58, length[1]] } else { &[0x59, length[0], length[1]] };
    [b"\xa3\x63fmt\x64none\x67attStmt\xa0\x68authData", sized, &data].concat()
}

/// Credential data of a key of Ed25519, as a device makes it.
pub(crate) fn credential_data() -> Vec<u8> {
    let cose = [&[0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32][..], &key(0).public().0].concat();
    [&[0; 16][..], &[0, 16], &[9; 16], &cose].concat()
}

/// The texts of both questions, for seeds.
pub(crate) fn texts() -> [String; 2] {
    [request().text(), grant().text()]
}
