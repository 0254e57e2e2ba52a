//! What services and devices that keep keys say of them: public keys and signatures, in the forms of X.509 and PKCS #11.

use alloy_primitives::{Address, B256};
use secp256k1::PublicKey;
use secp256k1::ecdsa;

use crate::signature::{Signature, address_of};

/// What stands before the point of an uncompressed key of this curve.
///
/// Spec: RFC 5280, 4.1.2.7 and RFC 5480, 2.1.1: `SEQUENCE { SEQUENCE { id-ecPublicKey, secp256k1 }, BIT STRING }`.
const KEY_PREFIX: [u8; 23] = [
    0x30, 0x56, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
    0x04, 0x00, 0x0a, 0x03, 0x42, 0x00,
];

/// The curve's name.
///
/// Spec: SEC 2, A.2.1: 1.3.132.0.10, as an OBJECT IDENTIFIER.
const CURVE: [u8; 7] = [0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];

/// What stands before an uncompressed point in an OCTET STRING.
const POINT_PREFIX: [u8; 2] = [0x04, 65];

/// Why bytes are not what somebody who keeps keys should have said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DerError {
    #[error("not a public key of secp256k1")]
    NotAKey,
    #[error("not a signature")]
    NotASignature,
    #[error("the signature is not of the key, or not over what was to be signed")]
    OfSomethingElse,
}

/// The account of a public key, which is a `SubjectPublicKeyInfo` with an uncompressed point.
///
/// # Errors
/// [`DerError::NotAKey`] for any other curve or form.
pub fn account_of(spki: &[u8]) -> Result<Address, DerError> {
    uncompressed(spki.strip_prefix(&KEY_PREFIX).ok_or(DerError::NotAKey)?)
}

/// The account of a public key, by its curve and its point as PKCS #11 has them: the point is in an OCTET STRING, which
/// some devices leave out.
///
/// # Errors
/// [`DerError::NotAKey`] for any other curve or form.
///
/// Spec: PKCS #11 3.1, 6.3.3, `CKA_EC_PARAMS` and `CKA_EC_POINT`.
pub fn account_of_point(params: &[u8], point: &[u8]) -> Result<Address, DerError> {
    if params != CURVE {
        return Err(DerError::NotAKey);
    }
    uncompressed(match point.len() {
        65 => point,
        _ => point.strip_prefix(&POINT_PREFIX).ok_or(DerError::NotAKey)?,
    })
}

fn uncompressed(point: &[u8]) -> Result<Address, DerError> {
    // Another form of a point has another length.
    let point: &[u8; 65] = point.try_into().map_err(|_| DerError::NotAKey)?;
    Ok(address_of(&PublicKey::from_slice(point).map_err(|_| DerError::NotAKey)?))
}

/// Reads `SEQUENCE { r INTEGER, s INTEGER }`, a signature by `account` over `digest`, and gives it the one form that
/// contracts accept: the lower `s`, and the recovery bit that leads to the account.
///
/// # Errors
/// [`DerError::OfSomethingElse`] if no recovery bit does: then it is no signature of that account over that digest.
///
/// Spec: RFC 3279, 2.2.3; EIP-2.
pub fn signature_of(der: &[u8], digest: B256, account: Address) -> Result<Signature, DerError> {
    canonical(ecdsa::Signature::from_der(der), digest, account)
}

/// The same for `r ‖ s`.
///
/// # Errors
/// As [`signature_of`].
///
/// Spec: PKCS #11 3.1, 6.3.1.
pub fn signature_of_plain(rs: &[u8], digest: B256, account: Address) -> Result<Signature, DerError> {
    canonical(ecdsa::Signature::from_compact(rs), digest, account)
}

fn canonical(
    parsed: Result<ecdsa::Signature, secp256k1::Error>,
    digest: B256,
    account: Address,
) -> Result<Signature, DerError> {
    let mut parsed = parsed.map_err(|_| DerError::NotASignature)?;
    // With `s`, its negative signs the same message.
    parsed.normalize_s();
    let mut bytes = [0u8; 65];
    bytes[..64].copy_from_slice(&parsed.serialize_compact());
    let mut forms = [0, 1].into_iter().filter_map(|bit| {
        bytes[64] = bit;
        Signature::parse(&bytes).ok()
    });
    forms.find(|form| form.recover(digest) == Ok(account)).ok_or(DerError::OfSomethingElse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, keccak256};
    use alloy_primitives::hex;

    /// The order of the curve.
    const ORDER: [u8; 32] = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");

    fn key() -> Key {
        Key::from_hex("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80").unwrap()
    }

    /// Made by `cryptography` for Python (OpenSSL) from the first of the development keys that everybody knows.
    const SPKI: [u8; 88] = hex!(
        "3056301006072a8648ce3d020106052b8104000a034200048318535b54105d4a7aae60c08fc45f9687181b4fdfc625bd1a753fa7397fed753547f11ca8696646f2f3acb08e31016afac23e630c5d11f59f61fef57b0d2aa5"
    );
    /// The same for a signature over Keccak-256 of `hello`, with the higher `s`.
    const HIGH: &[u8] = &hex!(
        "3046022100c85110d30e2b06064c8692d14625072f795595af1b36c882b59ce2357b19ef1b022100f5bce1ddf970622815032ada0ba62f05ea85fedfcdd5d8ea86a4e784a78135e3"
    );

    fn integer(bytes: &[u8]) -> Vec<u8> {
        let digits: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
        let sign = digits.first().is_none_or(|first| *first >= 0x80);
        let mut out = vec![2, u8::try_from(digits.len() + usize::from(sign)).unwrap()];
        out.extend(sign.then_some(0));
        out.extend(digits);
        out
    }

    fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
        let body = [integer(r), integer(s)].concat();
        [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
    }

    fn negated(s: &[u8]) -> [u8; 32] {
        let s = alloy_primitives::U256::from_be_slice(s);
        (alloy_primitives::U256::from_be_bytes(ORDER) - s).to_be_bytes()
    }

    #[test]
    fn a_public_key_of_openssl_is_its_account() {
        assert_eq!(account_of(&SPKI), Ok(key().address()));
        for cut in 0..SPKI.len() {
            assert_eq!(account_of(&SPKI[..cut]), Err(DerError::NotAKey));
        }
        assert_eq!(account_of(&[&SPKI[..], &[0]].concat()), Err(DerError::NotAKey));
        // Another curve (P-256), and a point that is none.
        let mut other = SPKI;
        other[19] = 0x07;
        assert_eq!(account_of(&other), Err(DerError::NotAKey));
        let mut off = SPKI;
        off[87] ^= 1;
        assert_eq!(account_of(&off), Err(DerError::NotAKey));
    }

    #[test]
    fn a_point_of_pkcs11_is_its_account_with_and_without_its_wrapping() {
        let (params, point) = (&SPKI[13..20], &SPKI[23..]);
        assert_eq!(params, CURVE);
        let wrapped = [&POINT_PREFIX, point].concat();
        assert_eq!(account_of_point(params, point), Ok(key().address()));
        assert_eq!(account_of_point(params, &wrapped), Ok(key().address()));
        // P-256, by its name.
        let other = hex!("06082a8648ce3d030107");
        for (params, point) in [
            (&other[..], point),
            (&[], point),
            (params, &point[1..]),
            (params, &wrapped[..66]),
            (params, &[&wrapped[..], &[0]].concat()),
            (params, &[0; 65]),
            (params, &[]),
        ] {
            assert_eq!(account_of_point(params, point), Err(DerError::NotAKey));
        }
    }

    #[test]
    fn a_signature_of_openssl_gets_the_form_that_contracts_take() {
        let digest = keccak256(b"hello");
        let signature = signature_of(HIGH, digest, key().address()).unwrap();
        assert_eq!(signature.recover(digest), Ok(key().address()));
        assert_eq!(Signature::parse(&signature.to_bytes()), Ok(signature));
        assert_eq!(signature_of(HIGH, keccak256(b"hallo"), key().address()), Err(DerError::OfSomethingElse));
        let other = Key::from_bytes([7; 32]).unwrap().address();
        assert_eq!(signature_of(HIGH, digest, other), Err(DerError::OfSomethingElse));
        for cut in 0..HIGH.len() {
            assert_eq!(signature_of(&HIGH[..cut], digest, key().address()), Err(DerError::NotASignature));
        }
    }

    #[test]
    fn both_values_of_s_and_both_recovery_bits_are_found() {
        let (key, mut odd) = (key(), 0);
        for n in 0..32u8 {
            let digest = keccak256([n]);
            let own = key.sign(digest);
            odd += usize::from(own.y_is_odd());
            for s in [own.s().0, negated(&own.s().0)] {
                assert_eq!(signature_of(&der(&own.r().0, &s), digest, key.address()), Ok(own));
                let plain = [own.r().0, s].concat();
                assert_eq!(signature_of_plain(&plain, digest, key.address()), Ok(own));
                assert!(signature_of_plain(&plain[..63], digest, key.address()).is_err());
                assert!(signature_of_plain(&[&plain[..], &[0]].concat(), digest, key.address()).is_err());
            }
        }
        assert!((1..32).contains(&odd), "both parities occur");
    }

    #[test]
    fn numbers_that_are_in_no_signature_are_refused() {
        let (digest, account) = (keccak256(b"hello"), key().address());
        let one = [&[0u8; 31][..], &[1]].concat();
        for (r, s) in [(&ORDER[..], &one[..]), (&one, &ORDER), (&[0; 32], &one), (&one, &[0; 32])] {
            assert!(signature_of(&der(r, s), digest, account).is_err());
        }
        assert!(signature_of(&[], digest, account).is_err());
    }
}
