use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use farthing_evm::{Key, U256, keccak256};
use serde_json::{Value, json};

use super::*;
use crate::signer::Kind;

const REGION: &str = "eu-central-1";
const KEY: &str = "1234abcd-12ab-34cd-56ef-1234567890ab";
/// Generous: the machine may be busy.
const WITHIN: Duration = Duration::from_secs(20);
/// What stands before the point of a public key, by RFC 5480.
const SPKI: &str = "3056301006072a8648ce3d020106052b8104000a034200";
/// The point of the first of the development keys that everybody knows.
const POINT: &str = "048318535b54105d4a7aae60c08fc45f9687181b4fdfc625bd1a753fa7397fed753547f11ca8696646f2f3acb08e31016afac23e630c5d11f59f61fef57b0d2aa5";

fn key() -> Key {
    Key::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap()
}

fn payment() -> ToSign {
    ToSign { kind: Kind::Payment, digest: keccak256(b"a payment") }
}

fn integer(bytes: &[u8]) -> Vec<u8> {
    let digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    let sign = digits.first().is_none_or(|first| *first >= 0x80);
    let length = u8::try_from(digits.len() + usize::from(sign)).unwrap();
    [vec![2, length], vec![0; usize::from(sign)], digits].concat()
}

/// A signature as KMS writes it, with the higher `s`, of which it makes as many.
fn signed(key: &Key, digest: &[u8]) -> String {
    let order = U256::from_be_bytes(secp256k1_order());
    let signature = key.sign(B256::from_slice(digest));
    let s: [u8; 32] = (order - U256::from_be_bytes(signature.s().0)).to_be_bytes();
    let body = [integer(&signature.r().0), integer(&s)].concat();
    BASE64_STANDARD.encode([vec![0x30, u8::try_from(body.len()).unwrap()], body].concat())
}

fn secp256k1_order() -> [u8; 32] {
    let bytes = hex::decode("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141").unwrap();
    bytes.try_into().unwrap()
}

fn public_key() -> String {
    BASE64_STANDARD.encode(hex::decode(format!("{SPKI}{POINT}")).unwrap())
}

fn said_key() -> Value {
    json!({ "KeyId": KEY, "PublicKey": public_key(), "KeySpec": "ECC_SECG_P256K1", "KeyUsage": "SIGN_VERIFY" })
}

/// What a stand-in answers, to an operation with a body, the how manieth it is.
type Answers = fn(&str, &Value, usize) -> (u16, Value);

fn honest(operation: &str, asked: &Value, _: usize) -> (u16, Value) {
    assert_eq!(asked["KeyId"], KEY);
    if operation == "TrentService.GetPublicKey" {
        return (200, said_key());
    }
    assert_eq!(operation, "TrentService.Sign");
    assert_eq!(
        (&asked["MessageType"], &asked["SigningAlgorithm"]),
        (&json!("DIGEST"), &json!("ECDSA_SHA_256"))
    );
    let digest = BASE64_STANDARD.decode(asked["Message"].as_str().unwrap()).unwrap();
    (200, json!({ "KeyId": KEY, "Signature": signed(&key(), &digest), "SigningAlgorithm": "ECDSA_SHA_256" }))
}

async fn answer(answers: Answers, number: usize, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |name: &str| parts.headers.get(name).unwrap().to_str().unwrap().to_owned();
    let operation = header("x-amz-target");
    assert_eq!(header("content-type"), CONTENT_TYPE);
    let authorization = header("authorization");
    assert!(
        authorization
            .contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target")
    );
    assert_eq!(header("x-amz-security-token"), "token");
    let body = to_bytes(body, 64 * 1024).await.unwrap();
    let (status, said) = answers(&operation, &serde_json::from_slice(&body).unwrap(), number);
    if status == 0 {
        return std::future::pending().await;
    }
    let text = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
    (StatusCode::from_u16(status).unwrap(), text).into_response()
}

/// A stand-in for KMS on a thread of its own, since whoever asks it waits.
fn stand_in(answers: Answers) -> SocketAddr {
    let (address, told) = answers::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            address.send(listener.local_addr().unwrap()).unwrap();
            let count = Arc::new(AtomicUsize::new(0));
            let app = Router::new().fallback(move |request: Request| {
                let number = count.fetch_add(1, Ordering::SeqCst);
                answer(answers, number, request)
            });
            axum::serve(listener, app).await.unwrap();
        });
    });
    told.recv().unwrap()
}

fn access(endpoint: &str) -> Access {
    let access = Access::from_lookup(|name| {
        Some(match name {
            "AWS_ACCESS_KEY_ID" => "AKIDEXAMPLE".to_owned(),
            "AWS_SECRET_ACCESS_KEY" => "secret".to_owned(),
            "AWS_SESSION_TOKEN" => "token".to_owned(),
            "AWS_ENDPOINT_URL_KMS" => endpoint.to_owned(),
            _ => return None,
        })
    });
    access.unwrap().within(WITHIN)
}

fn name() -> KmsRef {
    format!("{REGION}/{KEY}").parse().unwrap()
}

fn connect_within(answers: Answers, within: Duration) -> Result<KmsKey, KmsError> {
    KmsKey::connect(name(), access(&format!("http://{}", stand_in(answers))).within(within))
}

fn connect(answers: Answers) -> Result<KmsKey, KmsError> {
    connect_within(answers, WITHIN)
}

/// What comes of asking for a signature, if it is not the first thing asked.
fn sign(answers: Answers) -> Result<Signature, SignError> {
    connect(answers).unwrap().sign(&payment())
}

#[test]
fn a_key_in_kms_signs_what_the_same_key_here_would() {
    let kms = connect(honest).unwrap();
    assert_eq!(kms.address(), from_alloy(key().address()));
    assert_eq!(kms.sign(&payment()).unwrap(), key().sign(payment().digest()));
    assert_eq!(kms.name(), &name());
    assert_eq!(kms.secret(b"anything"), None);
}

#[tokio::test]
async fn it_may_be_asked_on_any_thread_by_many_at_once() {
    let kms = Arc::new(connect(honest).unwrap());
    let asking: Vec<_> = (0..2 * MAX_AT_ONCE as u64)
        .map(|n| {
            let kms = kms.clone();
            tokio::task::spawn_blocking(move || {
                let what = ToSign { kind: Kind::Voucher, digest: keccak256(n.to_be_bytes()) };
                assert_eq!(kms.sign(&what).unwrap().recover(what.digest()), Ok(key().address()));
            })
        })
        .collect();
    for asked in asking {
        asked.await.unwrap();
    }
    // Not even a thread that drives other tasks is in its way.
    assert!(kms.sign(&payment()).is_ok());
}

#[test]
fn what_does_not_answer_is_given_up_in_time() {
    let silent: Answers = |operation, asked, number| match operation {
        "TrentService.Sign" => (0, Value::Null),
        _ => honest(operation, asked, number),
    };
    let within = Duration::from_millis(300);
    // The first answer may take a busy machine longer than that.
    let mut kms = connect(silent).unwrap();
    kms.line.within = within;
    let began = std::time::Instant::now();
    let error = kms.sign(&payment()).unwrap_err();
    assert_eq!(error, SignError::Late { signer: format!("AWS KMS in {REGION}"), within });
    assert_eq!(error.code(), "signer_timeout");
    assert!(began.elapsed() >= within);
    assert!(began.elapsed() < WITHIN, "it took {:?}", began.elapsed());
    let never: Answers = |_, _, _| (0, Value::Null);
    let error = connect_within(never, within).unwrap_err();
    assert!(matches!(error, KmsError::Sign(SignError::Late { .. })), "{error}");
}

#[test]
fn what_is_not_there_cannot_be_reached() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = KmsKey::connect(name(), access(&format!("http://{closed}"))).unwrap_err();
    assert!(matches!(error, KmsError::Sign(SignError::Unreachable { .. })), "{error}");
}

#[test]
fn a_refusal_is_named_and_not_asked_about_again() {
    let refusing: Answers = |operation, asked, number| match operation {
        "TrentService.Sign" => {
            assert_eq!(number, 1, "asked again");
            (
                400,
                json!({ "__type": "com.amazonaws.kms#AccessDeniedException", "message": "User arn:aws:iam::1:user/x" }),
            )
        }
        _ => honest(operation, asked, number),
    };
    let error = sign(refusing).unwrap_err();
    assert_eq!(error.code(), "signer_refused");
    assert_eq!(error.to_string(), format!("AWS KMS in {REGION} refuses: AccessDeniedException"));
    let nameless: Answers = |operation, asked, number| match operation {
        "TrentService.Sign" => (403, json!("<html>\u{1b}[2J")),
        _ => honest(operation, asked, number),
    };
    assert_eq!(sign(nameless).unwrap_err().to_string(), format!("AWS KMS in {REGION} refuses: 403"));
}

#[test]
fn what_may_pass_is_asked_again_and_not_for_ever() {
    let slow: Answers = |operation, asked, number| match (operation, number) {
        ("TrentService.Sign", 1) => (500, json!({ "__type": "KMSInternalException" })),
        ("TrentService.Sign", 2) => (400, json!({ "__type": "ThrottlingException" })),
        _ => honest(operation, asked, number),
    };
    assert!(sign(slow).is_ok());
    let never: Answers = |operation, asked, number| match operation {
        "TrentService.Sign" => {
            assert!(number <= MAX_TRIES as usize, "asked too often");
            (503, json!({ "__type": "DependencyTimeoutException" }))
        }
        _ => honest(operation, asked, number),
    };
    assert_eq!(sign(never).unwrap_err().code(), "signer_refused");
}

#[test]
fn what_is_no_signature_of_it_is_never_given_out() {
    let check = |answers: Answers, code: &str| assert_eq!(sign(answers).unwrap_err().code(), code);
    // Another key, and another message: MessageType RAW would make KMS hash once more.
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => {
                let other = Key::from_bytes([7; 32]).unwrap();
                (200, json!({ "Signature": signed(&other, payment().digest().as_slice()) }))
            }
            _ => honest(operation, asked, number),
        },
        "signer_mismatch",
    );
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => (200, json!({ "Signature": signed(&key(), &[9; 32]) })),
            _ => honest(operation, asked, number),
        },
        "signer_mismatch",
    );
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => (200, json!({ "Signature": BASE64_STANDARD.encode([0x30, 2, 2, 0]) })),
            _ => honest(operation, asked, number),
        },
        "signer_malformed",
    );
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => (200, json!({ "Signature": "%" })),
            _ => honest(operation, asked, number),
        },
        "signer_malformed",
    );
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => (200, json!("[]")),
            _ => honest(operation, asked, number),
        },
        "signer_malformed",
    );
    check(
        |operation, asked, number| match operation {
            "TrentService.Sign" => (200, json!("x".repeat(MAX_ANSWER_BYTES + 1))),
            _ => honest(operation, asked, number),
        },
        "signer_malformed",
    );
}

#[test]
fn a_redirect_is_not_followed() {
    let elsewhere: Answers = |_, _, number| {
        assert_eq!(number, 0, "asked again");
        (307, json!(""))
    };
    let error = connect(elsewhere).unwrap_err();
    assert_eq!(error.to_string(), format!("AWS KMS in {REGION} refuses: 307"));
}

#[test]
fn keys_of_another_kind_are_refused() {
    let for_encryption: Answers = |_, _, _| {
        let mut said = said_key();
        said["KeyUsage"] = json!("ENCRYPT_DECRYPT");
        (200, said)
    };
    let of_p256: Answers = |_, _, _| {
        let mut said = said_key();
        let other = hex::decode(format!("{SPKI}{POINT}")).unwrap();
        said["PublicKey"] = json!(BASE64_STANDARD.encode(&other[1..]));
        (200, said)
    };
    for answers in [for_encryption, of_p256] {
        let error = connect(answers).unwrap_err();
        assert!(matches!(error, KmsError::Unfit(_)), "{error}");
    }
}

#[test]
fn keys_are_named_by_region_or_arn() {
    let check = |text: &str, region: &str, key: &str, shown: &str| {
        let parsed: KmsRef = text.parse().unwrap();
        assert_eq!((parsed.region.as_str(), parsed.key.as_str()), (region, key));
        assert_eq!(parsed.to_string(), shown);
    };
    check("eu-central-1/mrk-12", "eu-central-1", "mrk-12", "kms:eu-central-1/mrk-12");
    check("us-east-1/alias/hot", "us-east-1", "alias/hot", "kms:us-east-1/alias/hot");
    let arn = format!("arn:aws:kms:us-gov-west-1:111122223333:key/{KEY}");
    check(&arn, "us-gov-west-1", &arn, &format!("kms:{arn}"));
    let long = format!("us-east-1/{}", "k".repeat(MAX_KEY_CHARS + 1));
    for text in [
        "",
        "/",
        "eu-central-1",
        "eu-central-1/",
        "/key",
        "EU/key",
        "a.example/key",
        "eu-central-1/ke y",
        "arn:aws:s3:eu-central-1:1:key/x",
        "arn:aws:kms:eu-central-1:1:grant/x",
        "arn:aws:kms:a.example/:1:key/x",
        "arn:aws:kms::1:key/x",
        &long,
    ] {
        assert_eq!(text.parse::<KmsRef>(), Err(NotAKmsRef), "{text}");
    }
    let endpoint = |text: &str| text.parse::<KmsRef>().unwrap().endpoint();
    assert_eq!(endpoint("eu-central-1/x"), "https://kms.eu-central-1.amazonaws.com/");
    assert_eq!(endpoint("cn-north-1/x"), "https://kms.cn-north-1.amazonaws.com.cn/");
}

#[test]
fn credentials_go_nowhere_but_to_kms() {
    for endpoint in [
        "http://kms.example",
        "http://192.0.2.1",
        "ftp://127.0.0.1",
        "https://kms.example/path",
        "https://kms.example/?a=b",
        "https://user@kms.example",
        "no url",
    ] {
        let error = KmsKey::connect(name(), access(endpoint)).unwrap_err();
        assert!(matches!(error, KmsError::Endpoint(_)), "{endpoint}: {error}");
    }
    let from = |pairs: &'static [(&str, &str)]| {
        Access::from_lookup(|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    };
    assert!(matches!(from(&[]), Err(KmsError::NoCredentials)));
    assert!(matches!(from(&[("AWS_ACCESS_KEY_ID", "AKID")]), Err(KmsError::NoCredentials)));
    let none = &[("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "")];
    assert!(matches!(from(none), Err(KmsError::NoCredentials)));
    let broken = &[("AWS_ACCESS_KEY_ID", "AK\nID"), ("AWS_SECRET_ACCESS_KEY", "s")];
    assert!(matches!(from(broken), Err(KmsError::Credentials)));
    let told = format!("{:?}", access("https://kms.example"));
    assert!(!told.contains("secret") && !told.contains("token"), "{told}");
}
