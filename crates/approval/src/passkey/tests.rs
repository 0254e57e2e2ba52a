use farthing_primitives::Timestamp;
use proptest::prelude::*;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

use super::*;
use crate::{ApprovalRequest, ApproverKey, Ballot, Credential, Proof, Verdict};

const CHALLENGE: &[u8] = b"what is asked";
const ORIGIN: &str = "http://localhost:8405";

const UP: u8 = 0x01;
const UV: u8 = 0x04;
const BE: u8 = 0x08;
const BS: u8 = 0x10;
const AT: u8 = 0x40;
const ED: u8 = 0x80;

fn site() -> Site {
    Site::of(ORIGIN).unwrap()
}

/// A device that makes passkeys and signs with them, well or badly, as a test has it.
enum Device {
    Es256(EcdsaKeyPair),
    Ed25519(ApproverKey),
}

impl Device {
    fn es256() -> Self {
        let random = SystemRandom::new();
        let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        Self::Es256(
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, made.as_ref(), &random).unwrap(),
        )
    }

    fn ed25519() -> Self {
        Self::Ed25519(ApproverKey::from_seed([5; 32]).unwrap())
    }

    fn cose(&self) -> Vec<u8> {
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let mut cose = vec![0xa5, 1, 2, 3, 0x26, 0x20, 1, 0x21, 0x58, 32];
                cose.extend_from_slice(&point[1..33]);
                cose.extend_from_slice(&[0x22, 0x58, 32]);
                cose.extend_from_slice(&point[33..]);
                cose
            }
            Self::Ed25519(key) => {
                let mut cose = vec![0xa4, 1, 1, 3, 0x27, 0x20, 6, 0x21, 0x58, 32];
                cose.extend_from_slice(&key.public().0);
                cose
            }
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Es256(pair) => pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(message),
        }
    }

    fn made(&self) -> Vec<u8> {
        let id = [9; 16];
        [&[0; 16][..], &[0, 16], &id, &self.cose()].concat()
    }

    fn register(&self) -> Registration {
        Registration {
            attestation_object: object("none", &data("localhost", UP | UV | AT, 0, &self.made())),
            client_data: client("webauthn.create", CHALLENGE, ORIGIN, ""),
        }
    }

    fn assert(&self, authenticator_data: Vec<u8>, client_data: Vec<u8>) -> Assertion {
        let signed = [&authenticator_data[..], &Sha256::digest(&client_data)].concat();
        Assertion { signature: self.sign(&signed), authenticator_data, client_data }
    }

    fn answer(&self, count: u32) -> Assertion {
        self.assert(
            data("localhost", UP | UV, count, &[]),
            client("webauthn.get", CHALLENGE, ORIGIN, r#","crossOrigin":false"#),
        )
    }

    fn passkey(&self) -> Passkey {
        self.register().check(CHALLENGE, &site(), &site()).unwrap()
    }
}

fn data(rp_id: &str, flags: u8, count: u32, rest: &[u8]) -> Vec<u8> {
    [&Sha256::digest(rp_id.as_bytes())[..], &[flags], &count.to_be_bytes(), rest].concat()
}

fn client(kind: &str, challenge: &[u8], origin: &str, more: &str) -> Vec<u8> {
    let challenge = URL_SAFE_NO_PAD.encode(challenge);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{origin}"{more}}}"#).into_bytes()
}

fn object(format: &str, data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    let name = 0x60 + u8::try_from(format.len()).unwrap();
    let head = [&[0xa3, 0x63][..], b"fmt", &[name], format.as_bytes(), &[0x67], b"attStmt", &[0xa0]].concat();
    [&head[..], &[0x68], b"authData", &[0x58, length], data].concat()
}

#[test]
fn what_a_device_makes_is_what_it_signs_with() {
    for device in [Device::es256(), Device::ed25519()] {
        let passkey = device.passkey();
        assert_eq!(passkey.id.as_bytes(), [9; 16]);
        assert_eq!(passkey.key.to_string().parse(), Ok(passkey.key));
        assert_eq!(device.answer(0).check(&passkey, CHALLENGE), Ok(0));
        assert_eq!(device.answer(7).check(&passkey, CHALLENGE), Ok(7));
    }
}

/// What a real browser gave back, for both algorithms.
#[test]
fn what_chromium_makes_and_signs_is_read() {
    let vectors: serde_json::Value =
        serde_json::from_str(include_str!("../../../../vectors/passkeys/chromium.json")).unwrap();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let bytes = |value: &serde_json::Value| URL_SAFE_NO_PAD.decode(value.as_str().unwrap()).unwrap();
    let request = ApprovalRequest::read(&text(&vectors["request"])).unwrap();
    let now = Timestamp::from_millis(request.expires.millis() - 1);
    let site = Site::of(&text(&vectors["answers_at"])).unwrap();
    let mut read = Vec::new();
    for vector in vectors["passkeys"].as_array().unwrap() {
        let (made, answer) = (&vector["registration"], &vector["answer"]);
        let registration = Registration {
            attestation_object: bytes(&made["attestation_object"]),
            client_data: bytes(&made["client_data"]),
        };
        let page = Site::of(&text(&made["page"])).unwrap();
        let passkey = registration.check(&bytes(&made["challenge"]), &page, &site).unwrap();
        assert_eq!(passkey.count, 1);
        read.push(passkey.key.to_string().split(':').next().unwrap().to_owned());
        let said = Assertion {
            authenticator_data: bytes(&answer["authenticator_data"]),
            client_data: bytes(&answer["client_data"]),
            signature: bytes(&answer["signature"]),
        };
        let credential = Credential::Passkey(passkey);
        let ballot = |verdict| Ballot { verdict, proof: Proof::Passkey(said.clone()) };
        let heard = ballot(Verdict::Approve).check(&credential, &request, now).unwrap();
        assert_eq!(heard.count.map(u64::from), answer["count"].as_u64());
        let turned = ballot(Verdict::Deny).check(&credential, &request, now);
        assert_eq!(turned, Err(PasskeyError::Challenge.into()));
    }
    assert_eq!(read, ["passkey-es256", "passkey-ed25519"]);
}

#[test]
fn attack_66_a_passkey_of_another_or_for_another_question_is_no_word() {
    let device = Device::es256();
    let passkey = device.passkey();
    assert_eq!(Device::es256().answer(0).check(&passkey, CHALLENGE), Err(PasskeyError::Signature));
    assert_eq!(Device::ed25519().answer(0).check(&passkey, CHALLENGE), Err(PasskeyError::Signature));
    assert_eq!(device.answer(0).check(&passkey, b"what is asked else"), Err(PasskeyError::Challenge));
    let mut turned = device.answer(0);
    turned.authenticator_data[36] = 1;
    assert_eq!(turned.check(&passkey, CHALLENGE), Err(PasskeyError::Signature));
}

#[test]
fn what_a_browser_says_has_names() {
    let device = Device::es256();
    let challenge = URL_SAFE_NO_PAD.encode(CHALLENGE);
    let list = format!(r#"["webauthn.get","{challenge}","{ORIGIN}"]"#).into_bytes();
    let said = device.assert(data("localhost", UP | UV, 0, &[]), list);
    assert_eq!(said.check(&device.passkey(), CHALLENGE), Err(PasskeyError::Malformed("client data")));
}

#[test]
fn attack_66_each_thing_that_a_browser_says_is_looked_at() {
    let device = Device::es256();
    let passkey = device.passkey();
    let said = |kind: &str, challenge: &[u8], origin: &str, more: &str| {
        device
            .assert(data("localhost", UP | UV, 0, &[]), client(kind, challenge, origin, more))
            .check(&passkey, CHALLENGE)
    };
    assert_eq!(said("webauthn.get", CHALLENGE, ORIGIN, ""), Ok(0));
    // What browsers may add one day says nothing.
    assert_eq!(said("webauthn.get", CHALLENGE, ORIGIN, r#","extraData":{"a":[1]}"#), Ok(0));
    for (kind, challenge, origin, more, wrong) in [
        ("webauthn.create", CHALLENGE, ORIGIN, "", PasskeyError::Kind),
        ("webauthn.get", &CHALLENGE[1..], ORIGIN, "", PasskeyError::Challenge),
        ("webauthn.get", CHALLENGE, "http://localhost:8044", "", PasskeyError::Origin),
        ("webauthn.get", CHALLENGE, "http://localhost", "", PasskeyError::Origin),
        ("webauthn.get", CHALLENGE, "https://localhost:8405", "", PasskeyError::Origin),
        ("webauthn.get", CHALLENGE, "http://localhost:8405.evil.example", "", PasskeyError::Origin),
        ("webauthn.get", CHALLENGE, ORIGIN, r#","crossOrigin":true"#, PasskeyError::Embedded),
        ("webauthn.get", CHALLENGE, ORIGIN, r#","topOrigin":"https://evil.example""#, PasskeyError::Embedded),
        (
            "webauthn.get",
            CHALLENGE,
            ORIGIN,
            r#","type":"webauthn.get""#,
            PasskeyError::Malformed("client data"),
        ),
        ("webauthn.get", CHALLENGE, ORIGIN, r#","crossOrigin":"no""#, PasskeyError::Malformed("client data")),
    ] {
        assert_eq!(said(kind, challenge, origin, more), Err(wrong), "{kind} {origin} {more}");
    }
}

#[test]
fn attack_66_each_thing_that_a_device_says_is_looked_at() {
    let device = Device::es256();
    let passkey = device.passkey();
    let check = |data: Vec<u8>| {
        device.assert(data, client("webauthn.get", CHALLENGE, ORIGIN, "")).check(&passkey, CHALLENGE)
    };
    let unreadable = Err(PasskeyError::Malformed("authenticator data"));
    assert_eq!(check(data("localhost", UP | UV | BE, 0, &[])), Ok(0));
    assert_eq!(check(data("localhost", UP | UV | BE | BS, 0, &[])), Ok(0));
    // {"appid": false}
    let extension = [&[0xa1, 0x65][..], b"appid", &[0xf4]].concat();
    assert_eq!(check(data("localhost", UP | UV | ED, 0, &extension)), Ok(0));
    assert_eq!(check(data("example.org", UP | UV, 0, &[])), Err(PasskeyError::Site));
    assert_eq!(check(data("localhost", UV, 0, &[])), Err(PasskeyError::NobodyPresent));
    assert_eq!(check(data("localhost", UP, 0, &[])), Err(PasskeyError::NobodyVerified));
    assert_eq!(check(data("localhost", UP | UV | BS, 0, &[])), Err(PasskeyError::Backup));
    assert_eq!(check(data("localhost", UP | UV, 0, &[0])), unreadable, "bytes that no flag names");
    assert_eq!(check(data("localhost", UP | UV, 0, &extension)), unreadable, "bytes that no flag names");
    assert_eq!(check(data("localhost", UP | UV | ED, 0, &[])), unreadable, "an extension that is not there");
    assert_eq!(
        check(data("localhost", UP | UV | AT, 0, &device.made())),
        unreadable,
        "one that is made anew"
    );
    assert_eq!(check(data("localhost", UP | UV, 0, &[])[..36].to_vec()), unreadable);
    let mut long = device.answer(0);
    long.client_data.resize(client_data::MAX_CLIENT_DATA_BYTES + 1, b' ');
    assert_eq!(long.check(&passkey, CHALLENGE), Err(PasskeyError::TooLong));
}

#[test]
fn attack_66_a_passkey_that_counts_backwards_is_refused() {
    let device = Device::es256();
    let at = |count| Passkey { count, ..device.passkey() };
    for (before, now, expected) in [
        (0, 0, Ok(0)),
        (0, 1, Ok(1)),
        (1, 2, Ok(2)),
        (1, 1, Err(PasskeyError::Counter)),
        (2, 1, Err(PasskeyError::Counter)),
        // One that has counted, and does not any more.
        (1, 0, Err(PasskeyError::Counter)),
    ] {
        assert_eq!(device.answer(now).check(&at(before), CHALLENGE), expected, "{before} then {now}");
    }
}

#[test]
fn a_registration_is_looked_at_as_closely() {
    let device = Device::es256();
    let check = |registration: &Registration| registration.check(CHALLENGE, &site(), &site());
    let with = |object: Vec<u8>| check(&Registration { attestation_object: object, ..device.register() });
    let good = device.register();
    assert!(check(&good).is_ok());
    assert_eq!(good.check(b"another", &site(), &site()), Err(PasskeyError::Challenge));
    let elsewhere = Site::of("http://localhost:1").unwrap();
    assert_eq!(good.check(CHALLENGE, &elsewhere, &site()), Err(PasskeyError::Origin));
    assert_eq!(good.check(CHALLENGE, &site(), &elsewhere).map(|made| made.site), Ok(elsewhere));
    let foreign = Site::of("https://approve.example").unwrap();
    assert_eq!(good.check(CHALLENGE, &site(), &foreign), Err(PasskeyError::Site));
    let answer = Registration { client_data: client("webauthn.get", CHALLENGE, ORIGIN, ""), ..good.clone() };
    assert_eq!(check(&answer), Err(PasskeyError::Kind));
    let of = |flags, rest: &[u8]| with(object("none", &data("localhost", flags, 0, rest)));
    let made = device.made();
    assert_eq!(of(UV | AT, &made), Err(PasskeyError::NobodyPresent));
    assert_eq!(of(UP | AT, &made), Err(PasskeyError::NobodyVerified));
    assert_eq!(of(UP | UV, &[]), Err(PasskeyError::NothingMade));
    assert_eq!(
        with(object("packed", &data("localhost", UP | UV | AT, 0, &made))),
        Err(PasskeyError::Attestation)
    );
    assert_eq!(with(object("none", &data("example.org", UP | UV | AT, 0, &made))), Err(PasskeyError::Site));
    let unreadable = |found: Result<Passkey, PasskeyError>| {
        assert!(matches!(found, Err(PasskeyError::Malformed(_))), "{found:?}");
    };
    // Ids of no length, and of more than there may be.
    unreadable(of(UP | UV | AT, &[&[0; 16][..], &[0, 0], &device.cose()].concat()));
    let long = [&[0; 16][..], &[4, 0], &[9; 1024], &device.cose()].concat();
    assert!(AuthenticatorData::read(&data("localhost", UP | UV | AT, 0, &long)).is_err());
    let longest = [&[0; 16][..], &[3, 255], &[9; 1023], &device.cose()].concat();
    assert!(AuthenticatorData::read(&data("localhost", UP | UV | AT, 0, &longest)).is_ok());
    // Members that are missing, twice, or more than three.
    let text = |text: &str| [&[0x60 + u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let (format, statement) = ([text("fmt"), text("none")].concat(), [text("attStmt"), vec![0xa0]].concat());
    unreadable(with([vec![0xa2], format.clone(), statement.clone()].concat()));
    unreadable(with([vec![0xa3], format.clone(), statement.clone(), format.clone()].concat()));
    unreadable(with([good.attestation_object.clone(), vec![0]].concat()));
    unreadable(with(vec![0xbf]));
}

#[test]
fn a_key_has_one_spelling() {
    let at = |n: usize, byte: u8| {
        let mut cose = Device::es256().cose();
        cose[n] = byte;
        let made = [&[0; 16][..], &[0, 1, 9], &cose].concat();
        AuthenticatorData::read(&data("localhost", UP | UV | AT, 0, &made)).map(|_| ())
    };
    let unreadable = Err(PasskeyError::Malformed("public key"));
    assert_eq!(at(2, 2), Ok(()));
    for (n, byte) in [(0, 0xa4), (0, 0xa6), (0, 0xbf), (1, 3), (2, 1), (3, 1), (6, 2), (7, 0x22), (9, 31)] {
        assert_eq!(at(n, byte), unreadable, "{byte:#x} at {n}");
    }
    // ESP256.
    assert_eq!(at(4, 0x28), Err(PasskeyError::Algorithm));
    for bad in ["", "passkey-es256:", "passkey-es256:AAAA", "passkey-ed25519:AA", "ed25519:AAAA"] {
        assert!(bad.parse::<PasskeyKey>().is_err(), "{bad}");
    }
    let compressed = format!("passkey-es256:{}", URL_SAFE_NO_PAD.encode([2; 65]));
    assert!(compressed.parse::<PasskeyKey>().is_err());
}

#[test]
fn a_page_has_an_origin_that_browsers_let_ask() {
    for (origin, rp_id) in [
        ("http://localhost:8405", "localhost"),
        ("http://localhost", "localhost"),
        ("https://approve.acme.example", "approve.acme.example"),
        ("https://approve.acme.example:8443", "approve.acme.example"),
    ] {
        let site = Site::of(origin).unwrap();
        assert_eq!((site.origin(), site.rp_id()), (origin, rp_id));
    }
    for bad in [
        "",
        "localhost:8405",
        "http://127.0.0.1:8405",
        "https://127.0.0.1",
        "http://[::1]:8405",
        "http://approve.acme.example",
        "http://localhost:80",
        "https://a.example:443",
        "http://localhost:08405",
        "http://localhost:0",
        "http://localhost:65536",
        "http://localhost:8405/",
        "https://Approve.example",
        "https://a..example",
        // What browsers take for addresses, and what they do not take.
        "https://a.1",
        "https://0x7f.1",
        "https://xn--a",
        "https://ada@a.example",
        "ftp://localhost",
    ] {
        assert_eq!(Site::of(bad), Err(PasskeyError::BadSite), "{bad}");
    }
}

#[test]
fn cbor_has_one_spelling_and_bounds() {
    let skip = |bytes: &[u8]| {
        let mut rest = Reader(bytes);
        rest.skip_map().is_some() && rest.is_empty()
    };
    assert!(skip(&[0xa0]));
    assert!(skip(&[0xa1, 0x01, 0x82, 0x20, 0x43, 1, 2, 3]));
    assert!(skip(&[0xa1, 0x01, 0x18, 24]));
    for bad in [
        &[][..],
        &[0x80],                     // No map.
        &[0xa1, 0x01],               // Cut short.
        &[0xa1, 0x01, 0x18, 23],     // A longer form than it takes.
        &[0xa1, 0x01, 0x19, 0, 255], // The same.
        &[0xbf, 0xff],               // No definite length.
        &[0xa1, 0x01, 0xc0, 0x00],   // A tag.
        &[0xa1, 0x01, 0xf9, 0, 0],   // A float.
        &[0xa1, 0x01, 0x61, 0xff],   // No UTF-8.
        &[0xa1, 0x01, 0x5b, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0xbb, 255, 255, 255, 255, 255, 255, 255, 255],
        &[0xa1, 0x01, 0x81, 0x81, 0x81, 0x81, 0x00], // Too deep.
    ] {
        assert!(!skip(bad), "{bad:x?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), flags: u8) {
        let _ = AuthenticatorData::read(&bytes);
        let _ = AuthenticatorData::read(&data("localhost", flags, 0, &bytes));
        let _ = attested(&bytes);
        let _ = client_data::check(&bytes, "webauthn.get", CHALLENGE, &site());
        let text = String::from_utf8_lossy(&bytes);
        let _ = Site::of(&text);
        let _ = text.parse::<PasskeyKey>();
    }

    /// Whatever is changed in what a device made: it is refused, or it is a passkey with one spelling.
    #[test]
    fn a_registration_that_is_changed_panics_nobody(
        changes in prop::collection::vec((0_usize..300, any::<u8>()), 1..4),
        end in 0_usize..300,
    ) {
        for device in [Device::es256(), Device::ed25519()] {
            let mut changed = device.register();
            for (at, byte) in &changes {
                let at = at % changed.attestation_object.len();
                changed.attestation_object[at] = *byte;
            }
            if let Ok(made) = changed.check(CHALLENGE, &site(), &site()) {
                prop_assert_eq!(made.key.to_string().parse(), Ok(made.key));
                prop_assert!((1..=MAX_CREDENTIAL_BYTES).contains(&made.id.as_bytes().len()));
                prop_assert_eq!(made.id.as_bytes().len(), 16, "no other length leaves room for the key");
            }
            let cut = device.register();
            let end = end % cut.attestation_object.len();
            let cut = Registration { attestation_object: cut.attestation_object[..end].to_vec(), ..cut };
            prop_assert!(cut.check(CHALLENGE, &site(), &site()).is_err());
        }
    }

    /// What is signed is bytes: no other bytes have the signature.
    #[test]
    fn a_bit_that_turns_is_noticed(at in 0_usize..2000, bit in 0_u8..8) {
        let device = Device::ed25519();
        let passkey = device.passkey();
        let mut turned = device.answer(1);
        let all = [&mut turned.authenticator_data, &mut turned.client_data, &mut turned.signature];
        let mut at = at % all.iter().map(|part| part.len()).sum::<usize>();
        for part in all {
            if let Some(byte) = part.get_mut(at) {
                *byte ^= 1 << bit;
                break;
            }
            at -= part.len();
        }
        prop_assert!(turned.check(&passkey, CHALLENGE).is_err());
    }
}
