//! Signed JSON, as far as AP2 needs it: compact JWS, ES256, keys of P-256.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_wire::json::parse;
use farthing_wire::{Json, Limits, Object};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

use crate::MAX_CHAIN_BYTES;
use crate::refusal::Refusal;

/// What any one piece of JSON in a chain may cost.
const LIMITS: Limits = Limits { bytes: MAX_CHAIN_BYTES, values: 8192, members: 128 };

/// Spec: RFC 7515 section 2: base64url without padding; one text for each sequence of bytes.
pub(crate) fn decode(text: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| Refusal::Base64)
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Names that occur twice are refused: two readers would take different ones.
pub(crate) fn json(text: &str) -> Result<Json, Refusal> {
    parse(&decode(text)?, LIMITS).map_err(Refusal::Json)
}

fn object(text: &str) -> Result<Object, Refusal> {
    match json(text)? {
        Json::Object(object) => Ok(object),
        _ => Err(Refusal::Form),
    }
}

/// A public key for ES256: a point of P-256, as SEC 1 section 2.3.3 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 65]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no JWK of a public key of P-256 for ES256: kty EC, crv P-256, x and y of 43 characters, and no d")]
pub struct KeyError;

impl PublicKey {
    /// Reads a JWK.
    ///
    /// # Errors
    /// [`KeyError`], also for a private key: who shows one has lost it.
    pub fn from_jwk_text(text: &[u8]) -> Result<(Self, Option<String>), KeyError> {
        let jwk = parse(text, LIMITS).map_err(|_| KeyError)?;
        let jwk = jwk.as_object().ok_or(KeyError)?;
        let kid = match jwk.get("kid") {
            None => None,
            Some(kid) => Some(kid.as_str().ok_or(KeyError)?.to_owned()),
        };
        Ok((Self::from_jwk(jwk)?, kid))
    }

    /// Spec: RFC 7517 section 4, RFC 7518 section 6.2.1; AP2 `types/jwk.json`: EC, P-256, ES256.
    pub(crate) fn from_jwk(jwk: &Object) -> Result<Self, KeyError> {
        let says = |name: &str, value: &str| jwk.get_str(name) == Some(value);
        let may_say = |name: &str, value: &str| !jwk.contains_key(name) || says(name, value);
        let verifies = match jwk.get("key_ops") {
            None => true,
            Some(ops) => ops.as_array().is_some_and(|ops| ops.iter().any(|op| op.as_str() == Some("verify"))),
        };
        let fits =
            says("kty", "EC") && says("crv", "P-256") && may_say("alg", "ES256") && may_say("use", "sig");
        if !fits || !verifies || jwk.contains_key("d") {
            return Err(KeyError);
        }
        let coordinate = |name: &str| -> Result<[u8; 32], KeyError> {
            let text = jwk.get_str(name).ok_or(KeyError)?;
            decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or(KeyError)
        };
        let mut point = [4; 65];
        point[1..33].copy_from_slice(&coordinate("x")?);
        point[33..].copy_from_slice(&coordinate("y")?);
        Ok(Self(point))
    }

    /// Whether this key made the signature. A point that is not on the curve made none.
    ///
    /// Spec: RFC 7518 section 3.4: R and S, 32 bytes each.
    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        signature.len() == 64
            && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.0).verify(message, signature).is_ok()
    }
}

/// A compact JWS whose payload is a JSON object. Nothing about it is true before [`Jwt::is_signed_by`] says so.
#[derive(Debug)]
pub(crate) struct Jwt<'a> {
    pub text: &'a str,
    /// What is signed: header and payload as they were received. It names the token: the signature beside it can be
    /// changed by anybody into another that fits (s into n - s), and this cannot.
    pub signed: &'a str,
    pub header: Object,
    pub payload: Object,
    signature: Vec<u8>,
}

impl<'a> Jwt<'a> {
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Form);
        };
        let signed = text.get(..header.len() + 1 + payload.len()).ok_or(Refusal::Form)?;
        let header = object(header)?;
        // Spec: RFC 7515 section 4.1.1; RFC 9901 section 7.1: "none" never, and here one algorithm only.
        if header.get_str("alg") != Some("ES256") {
            return Err(Refusal::Algorithm);
        }
        // Spec: RFC 7515 section 4.1.11: what is critical and not understood is refused; nothing is understood here.
        if header.contains_key("crit") {
            return Err(Refusal::Header("crit"));
        }
        for name in ["typ", "kid"] {
            if header.get(name).is_some_and(|value| value.as_str().is_none()) {
                return Err(Refusal::Header(name));
            }
        }
        Ok(Self { text, signed, header, payload: object(payload)?, signature: decode(signature)? })
    }

    pub fn typ(&self) -> Option<&str> {
        self.header.get_str("typ")
    }

    pub fn kid(&self) -> Option<&str> {
        self.header.get_str("kid")
    }

    pub fn is_signed_by(&self, key: &PublicKey) -> bool {
        key.verifies(self.signed.as_bytes(), &self.signature)
    }

    /// Whether the header may mean the key of that name. A name is a hint: the signature decides.
    pub fn may_mean(&self, kid: Option<&str>) -> bool {
        match (self.kid(), kid) {
            (Some(asked), Some(kid)) => asked == kid,
            _ => true,
        }
    }
}
