//! People who answer with a passkey instead of a key in a file: their browser asks their device, which asks for a finger
//! or a word.
//!
//! Spec: Web Authentication Level 3; the steps at the checks are those of sections 7.1 and 7.2. Attestation is not asked
//! for: who has which passkey is the owner's to say, as it is with other keys.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_policy::Host;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ED25519, UnparsedPublicKey};
use sha2::{Digest, Sha256};

mod authenticator;
mod cbor;
mod client_data;

#[cfg(test)]
mod tests;

use authenticator::AuthenticatorData;
use cbor::Reader;

/// The longest id of a credential, in bytes. Spec: WebAuthn Level 3 section 6.5.1.
pub const MAX_CREDENTIAL_BYTES: usize = 1023;
/// The longest authenticator data or attestation object, in bytes: an id, a key, and extensions that nobody asked for.
const MAX_AUTHENTICATOR_BYTES: usize = 16 * 1024;
/// The longest signature, in bytes: ES256 in DER has at most 72.
const MAX_SIGNATURE_BYTES: usize = 128;
/// The longest name of a site, in bytes.
const MAX_SITE_BYTES: usize = 255;

/// Why what a passkey says is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasskeyError {
    #[error("the passkey's {0} cannot be read")]
    Malformed(&'static str),
    #[error("what the passkey says is longer than anything it may have to say")]
    TooLong,
    #[error("the passkey was asked for something else")]
    Kind,
    #[error("the passkey answers another question")]
    Challenge,
    #[error("the passkey was asked by another page than the one it is for")]
    Origin,
    #[error("the passkey was asked by a page within another's")]
    Embedded,
    #[error("the passkey is for another site")]
    Site,
    #[error("the passkey saw nobody")]
    NobodyPresent,
    #[error("the passkey does not know who was there")]
    NobodyVerified,
    #[error("the passkey says that it is backed up, and that it cannot be")]
    Backup,
    #[error("the passkey signs neither with ES256 nor with Ed25519")]
    Algorithm,
    #[error("the passkey comes with an attestation, which nobody asked for")]
    Attestation,
    #[error("no passkey was made")]
    NothingMade,
    #[error("the signature is not the passkey's")]
    Signature,
    #[error("the passkey has counted backwards: there may be a copy of it")]
    Counter,
    #[error("an answer of a passkey, from somebody who has a key; or the other way round")]
    OtherKind,
    #[error("a page for passkeys has an https origin, or one on http://localhost, and a domain for its name")]
    BadSite,
}

impl PasskeyError {
    /// A stable name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed(_) => "passkey_malformed",
            Self::TooLong => "passkey_too_long",
            Self::Kind => "passkey_type",
            Self::Challenge => "passkey_challenge",
            Self::Origin => "passkey_origin",
            Self::Embedded => "passkey_embedded",
            Self::Site => "passkey_rp_id",
            Self::NobodyPresent => "passkey_nobody_present",
            Self::NobodyVerified => "passkey_nobody_verified",
            Self::Backup => "passkey_backup_state",
            Self::Algorithm => "passkey_algorithm",
            Self::Attestation => "passkey_attestation",
            Self::NothingMade => "passkey_not_made",
            Self::Signature => "passkey_bad_signature",
            Self::Counter => "passkey_counter",
            Self::OtherKind => "passkey_or_key",
            Self::BadSite => "passkey_site",
        }
    }
}

/// The page that asks passkeys, and the name that it asks them by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    rp_id: String,
    origin: String,
}

impl Site {
    /// A page by its origin, e.g. `http://localhost:8405`; its passkeys are for its host.
    ///
    /// # Errors
    /// [`PasskeyError::BadSite`] if browsers would let no page of that origin ask.
    ///
    /// Spec: WebAuthn Level 3 sections 4 (a relying party's id is a domain, never an address) and 13.4.9 (which origins
    /// to expect).
    pub fn of(origin: &str) -> Result<Self, PasskeyError> {
        let (secure, authority) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
            (Some(authority), _) => (true, authority),
            (None, Some(authority)) => (false, authority),
            (None, None) => return Err(PasskeyError::BadSite),
        };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        let label = |label: &str| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            !label.is_empty() && label.bytes().all(plain)
        };
        // What browsers read as an address is none, however it is spelled: `0x7f.1`, `a.1`.
        let is_name = host.parse::<Host>().is_ok_and(|read| read.as_str() == host && read.ip().is_none());
        let is_domain = host.len() <= MAX_SITE_BYTES && host.split('.').all(label) && is_name;
        // A port is written as browsers write it: without the default, and without zeros before it.
        let default = if secure { 443 } else { 80 };
        let is_port = |text: &str| {
            text.parse::<u16>().is_ok_and(|port| port != 0 && port != default && port.to_string() == text)
        };
        if !is_domain || !port.is_none_or(is_port) || !(secure || host == "localhost") {
            return Err(PasskeyError::BadSite);
        }
        Ok(Self { rp_id: host.to_owned(), origin: origin.to_owned() })
    }

    pub fn origin(&self) -> &str {
        &self.origin
    }

    pub fn rp_id(&self) -> &str {
        &self.rp_id
    }
}

/// How a device finds the passkey that is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialId(Vec<u8>);

impl CredentialId {
    /// `None` if there is none of that length.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=MAX_CREDENTIAL_BYTES).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The public half of a passkey, written `passkey-es256:` or `passkey-ed25519:` and base64url without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PasskeyKey {
    /// A point of P-256: 4, x, y. Spec: SEC 1 section 2.3.3.
    Es256([u8; 65]),
    Ed25519([u8; 32]),
}

impl PasskeyKey {
    /// Spec: RFC 9053 section 2.1.
    pub const ES256: i64 = -7;
    /// Spec: RFC 9053 section 2.2.
    pub const EDDSA: i64 = -8;

    fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            // Spec: WebAuthn Level 3 section 6.5.5: ES256 signatures are in ASN.1 DER.
            Self::Es256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
        }
    }
}

const ES256: &str = "passkey-es256:";
const EDDSA: &str = "passkey-ed25519:";

impl fmt::Display for PasskeyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Es256(point) => write!(f, "{ES256}{}", URL_SAFE_NO_PAD.encode(point)),
            Self::Ed25519(key) => write!(f, "{EDDSA}{}", URL_SAFE_NO_PAD.encode(key)),
        }
    }
}

impl FromStr for PasskeyKey {
    type Err = PasskeyError;

    fn from_str(text: &str) -> Result<Self, PasskeyError> {
        let read = |rest: &str| URL_SAFE_NO_PAD.decode(rest).ok();
        let key = match (text.strip_prefix(ES256), text.strip_prefix(EDDSA)) {
            (Some(rest), _) => read(rest)
                .and_then(|bytes| bytes.try_into().ok())
                .filter(|point: &[u8; 65]| point[0] == 4)
                .map(Self::Es256),
            (None, Some(rest)) => read(rest).and_then(|bytes| bytes.try_into().ok()).map(Self::Ed25519),
            (None, None) => None,
        };
        key.ok_or(PasskeyError::Malformed("public key"))
    }
}

/// A passkey whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passkey {
    pub id: CredentialId,
    pub key: PasskeyKey,
    /// Where it is asked. No other page's question counts.
    pub site: Site,
    /// How often it has signed, as it says; 0 if it does not count.
    pub count: u32,
}

/// What a device gives back when it was asked to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    pub authenticator_data: Vec<u8>,
    /// JSON, as the browser wrote it.
    pub client_data: Vec<u8>,
    pub signature: Vec<u8>,
}

impl Assertion {
    /// Whether this is `passkey`'s signature of `challenge`. Returns its count, which is the passkey's from now on.
    ///
    /// Spec: WebAuthn Level 3 section 7.2.
    pub fn check(&self, passkey: &Passkey, challenge: &[u8]) -> Result<u32, PasskeyError> {
        if self.authenticator_data.len() > MAX_AUTHENTICATOR_BYTES
            || self.signature.len() > MAX_SIGNATURE_BYTES
        {
            return Err(PasskeyError::TooLong);
        }
        client_data::check(&self.client_data, "webauthn.get", challenge, &passkey.site)?;
        let data = AuthenticatorData::read(&self.authenticator_data)?;
        data.check(&passkey.site.rp_id)?;
        // Spec: section 6.1: only what makes a credential has attested credential data.
        if data.made.is_some() {
            return Err(PasskeyError::Malformed("authenticator data"));
        }
        // Spec: section 7.2 steps 20 and 21.
        let mut signed = self.authenticator_data.clone();
        signed.extend_from_slice(&Sha256::digest(&self.client_data));
        if !passkey.key.verifies(&signed, &self.signature) {
            return Err(PasskeyError::Signature);
        }
        // Spec: section 7.2 step 22. It is a signal there, and a no here: a word costs more than a second passkey does.
        let counts = data.count != 0 || passkey.count != 0;
        if counts && data.count <= passkey.count {
            return Err(PasskeyError::Counter);
        }
        Ok(data.count)
    }
}

/// What a device gives back when it was asked to make a passkey.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// CBOR, as the browser wrote it.
    pub attestation_object: Vec<u8>,
    /// JSON, as the browser wrote it.
    pub client_data: Vec<u8>,
}

impl Registration {
    /// The passkey that was made for `challenge`, by the page at `page`; from now on the page at `site` asks it. They
    /// have the same host, and may have another port.
    ///
    /// Spec: WebAuthn Level 3 section 7.1.
    pub fn check(&self, challenge: &[u8], page: &Site, site: &Site) -> Result<Passkey, PasskeyError> {
        if self.attestation_object.len() > MAX_AUTHENTICATOR_BYTES {
            return Err(PasskeyError::TooLong);
        }
        if page.rp_id != site.rp_id {
            return Err(PasskeyError::Site);
        }
        client_data::check(&self.client_data, "webauthn.create", challenge, page)?;
        let data = AuthenticatorData::read(attested(&self.attestation_object)?)?;
        data.check(&page.rp_id)?;
        let (id, key) = data.made.ok_or(PasskeyError::NothingMade)?;
        Ok(Passkey { id, key, site: site.clone(), count: data.count })
    }
}

/// The authenticator data of an attestation object without an attestation.
///
/// Spec: WebAuthn Level 3 sections 6.5.4 and 8.7.
fn attested(object: &[u8]) -> Result<&[u8], PasskeyError> {
    const OBJECT: PasskeyError = PasskeyError::Malformed("attestation object");
    let mut rest = Reader(object);
    if rest.map() != Some(3) {
        return Err(OBJECT);
    }
    let (mut format, mut statement, mut data) = (None, None, None);
    // Browsers write it, each in an order of its own. Three members of three names are each of them once.
    for _ in 0..3 {
        match rest.text().ok_or(OBJECT)? {
            "fmt" => format = Some(rest.text().ok_or(OBJECT)?),
            "attStmt" => {
                let mut ahead = rest;
                statement = Some(ahead.map().ok_or(OBJECT)?);
                rest.skip_map().ok_or(OBJECT)?;
            }
            "authData" => data = Some(rest.bytes().ok_or(OBJECT)?),
            _ => return Err(OBJECT),
        }
    }
    let (Some(format), Some(statement), Some(data), true) = (format, statement, data, rest.is_empty()) else {
        return Err(OBJECT);
    };
    // Spec: section 7.1 step 21, and section 8.7: no statement but the empty one.
    if format != "none" || statement != 0 {
        return Err(PasskeyError::Attestation);
    }
    Ok(data)
}
