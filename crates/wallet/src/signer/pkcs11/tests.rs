use std::sync::Barrier;
use std::sync::{Arc, mpsc};

use farthing_evm::{Key, keccak256};

use super::*;
use crate::signer::Kind;

/// Generous: the machine may be busy.
const WITHIN: Duration = Duration::from_secs(20);

fn key() -> Key {
    Key::from_bytes([7; 32]).unwrap()
}

fn payment() -> ToSign {
    ToSign { kind: Kind::Payment, digest: keccak256(b"a payment") }
}

fn plain(key: &Key, digest: &B256) -> Vec<u8> {
    key.sign(*digest).to_bytes()[..64].to_vec()
}

/// A device that does what a test wants.
impl<F: FnMut(&B256) -> Result<Vec<u8>, String>> Device for F {
    fn sign(&mut self, digest: &B256) -> Result<Vec<u8>, String> {
        self(digest)
    }
}

fn device(sign: impl FnMut(&B256) -> Result<Vec<u8>, String> + Send + 'static) -> Pkcs11Key {
    Pkcs11Key::with("T", WITHIN, || Ok((sign, key().address()))).unwrap()
}

#[test]
fn a_key_in_a_device_signs_what_the_same_key_here_would() {
    let kept = device(|digest| Ok(plain(&key(), digest)));
    assert_eq!(kept.address(), from_alloy(key().address()));
    assert_eq!(kept.sign(&payment()).unwrap(), key().sign(payment().digest()));
    assert_eq!(kept.secret(b"anything"), None);
}

#[test]
fn what_is_no_signature_of_it_is_never_given_out() {
    let check = |said: Result<Vec<u8>, String>, code: &str| {
        let error = device(move |_| said.clone()).sign(&payment()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
    };
    check(Ok(plain(&Key::from_bytes([8; 32]).unwrap(), &payment().digest())), "signer_mismatch");
    check(Ok(plain(&key(), &keccak256(b"another"))), "signer_mismatch");
    check(Ok(Vec::new()), "signer_malformed");
    check(Ok(vec![0xff; 64]), "signer_malformed");
    check(Err("DeviceRemoved".to_owned()), "signer_refused");
}

#[test]
fn a_module_that_hangs_keeps_nobody() {
    let (release, held) = mpsc::channel::<()>();
    let mut kept = device(move |digest| {
        // Until the test is over.
        let _ = held.recv();
        Ok(plain(&key(), digest))
    });
    kept.within = Duration::from_millis(50);
    let error = kept.sign(&payment()).unwrap_err();
    assert_eq!(error, SignError::Late { signer: "the token \"T\"".to_owned(), within: kept.within });
    // It comes too late for whoever asked then; who asks now is served.
    kept.within = WITHIN;
    drop(release);
    assert_eq!(kept.sign(&payment()).unwrap(), key().sign(payment().digest()));

    let never = Pkcs11Key::with("T", Duration::from_millis(50), || {
        thread::park_timeout(WITHIN);
        Ok((|digest: &B256| Ok(plain(&key(), digest)), key().address()))
    });
    assert!(matches!(never, Err(Pkcs11Error::Sign(SignError::Late { .. }))));
}

#[test]
fn more_than_may_wait_are_refused_at_once() {
    let begun = Arc::new(Barrier::new(2));
    let (release, held) = mpsc::channel::<()>();
    let there = begun.clone();
    let mut first = true;
    let kept = Arc::new(device(move |digest| {
        if std::mem::take(&mut first) {
            there.wait();
            let _ = held.recv();
        }
        Ok(plain(&key(), digest))
    }));
    let asking = {
        let kept = kept.clone();
        thread::spawn(move || kept.sign(&payment()))
    };
    begun.wait();
    // As many as may wait, without a thread for each.
    for _ in 0..MAX_WAITING {
        let (answer, _) = sync_channel(1);
        let deadline = Instant::now() + WITHIN;
        kept.jobs.try_send(Job { digest: payment().digest(), deadline, answer }).unwrap();
    }
    assert_eq!(kept.sign(&payment()).unwrap_err().code(), "signer_busy");
    drop(release);
    assert!(asking.join().unwrap().is_ok());
    // A device that is gone for good says so.
    let gone = device(|_| panic!("the module ends its thread"));
    for _ in 0..2 {
        assert_eq!(gone.sign(&payment()).unwrap_err().code(), "signer_unreachable");
    }
}

#[test]
fn keys_are_named_by_uris_without_a_pin() {
    let text = "pkcs11:token=My%20token;object=agent?module-path=/usr/lib/softhsm/libsofthsm2.so";
    let parsed: Pkcs11Ref = text.parse().unwrap();
    assert_eq!((parsed.token.as_str(), parsed.object.as_str()), ("My token", "agent"));
    assert_eq!(parsed.module, Path::new("/usr/lib/softhsm/libsofthsm2.so"));
    assert_eq!(parsed.to_string(), text);
    for bad in [
        "",
        "pkcs11:",
        "pkcs11:token=T;object=O",
        "pkcs11:token=T?module-path=/m",
        "pkcs11:object=O?module-path=/m",
        "pkcs11:token=;object=O?module-path=/m",
        "pkcs11:token=T;token=T;object=O?module-path=/m",
        "pkcs11:token=T;object=O;serial=1?module-path=/m",
        "pkcs11:token=T;object=O?module-path=m.so",
        "pkcs11:token=T;object=O?module-path=/m&pin-value=1234",
        "pkcs11:token=T;object=O?module-path=/m&pin-source=file:/pin",
        "pkcs11:token=%ff;object=O?module-path=/m",
        "pkcs11:token=%0a;object=O?module-path=/m",
        "kms:token=T;object=O?module-path=/m",
    ] {
        assert_eq!(bad.parse::<Pkcs11Ref>(), Err(NotAPkcs11Ref), "{bad}");
    }
    let long = format!("{text}{}", "x".repeat(MAX_URI_CHARS));
    assert_eq!(long.parse::<Pkcs11Ref>(), Err(NotAPkcs11Ref));
}

#[test]
fn what_is_no_module_is_said() {
    let name: Pkcs11Ref = "pkcs11:token=T;object=O?module-path=/dev/null".parse().unwrap();
    let error = Pkcs11Key::open(&name, Passphrase::new("1234".to_owned())).unwrap_err();
    assert!(matches!(error, Pkcs11Error::Module(..)), "{error}");
}
