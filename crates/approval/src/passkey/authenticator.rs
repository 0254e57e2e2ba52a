//! What an authenticator says, byte by byte.

use sha2::{Digest, Sha256};

use super::cbor::Reader;
use super::{CredentialId, MAX_CREDENTIAL_BYTES, PasskeyError, PasskeyKey};

// Spec: WebAuthn Level 3 section 6.1, the bits of "flags".
const USER_PRESENT: u8 = 1 << 0;
const USER_VERIFIED: u8 = 1 << 2;
const BACKUP_ELIGIBLE: u8 = 1 << 3;
const BACKED_UP: u8 = 1 << 4;
const ATTESTED: u8 = 1 << 6;
const EXTENDED: u8 = 1 << 7;

const AAGUID_BYTES: usize = 16;

/// Authenticator data that was read to its last byte.
pub(super) struct AuthenticatorData {
    rp_id_hash: [u8; 32],
    flags: u8,
    pub(super) count: u32,
    /// A credential that is made with it.
    pub(super) made: Option<(CredentialId, PasskeyKey)>,
}

const UNREADABLE: PasskeyError = PasskeyError::Malformed("authenticator data");

impl AuthenticatorData {
    /// Spec: WebAuthn Level 3 section 6.1.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, PasskeyError> {
        let mut rest = Reader(bytes);
        let mut fixed = || {
            let rp_id_hash = rest.take(32)?.try_into().ok()?;
            let flags = *rest.take(1)?.first()?;
            let count = u32::from_be_bytes(rest.take(4)?.try_into().ok()?);
            Some((rp_id_hash, flags, count))
        };
        let (rp_id_hash, flags, count) = fixed().ok_or(UNREADABLE)?;
        let made = if flags & ATTESTED == 0 { None } else { Some(credential(&mut rest)?) };
        if flags & EXTENDED != 0 {
            // Nobody asked for extensions. Spec: section 7.2 step 23: what is unsolicited may be ignored.
            rest.skip_map().ok_or(UNREADABLE)?;
        }
        if !rest.is_empty() {
            return Err(UNREADABLE);
        }
        Ok(Self { rp_id_hash, flags, count, made })
    }

    /// That a person was there, and was recognized, for this site.
    pub(super) fn check(&self, rp_id: &str) -> Result<(), PasskeyError> {
        // Spec: WebAuthn Level 3 section 7.2 step 15, and section 7.1 step 14.
        if self.rp_id_hash[..] != Sha256::digest(rp_id.as_bytes())[..] {
            return Err(PasskeyError::Site);
        }
        // Spec: section 7.2 step 16, and section 7.1 step 15.
        if self.flags & USER_PRESENT == 0 {
            return Err(PasskeyError::NobodyPresent);
        }
        // Spec: section 7.2 step 17, and section 7.1 step 16. Whoever finds the authenticator is not its owner.
        if self.flags & USER_VERIFIED == 0 {
            return Err(PasskeyError::NobodyVerified);
        }
        // Spec: section 7.2 step 18, and section 7.1 step 17.
        if self.flags & BACKUP_ELIGIBLE == 0 && self.flags & BACKED_UP != 0 {
            return Err(PasskeyError::Backup);
        }
        Ok(())
    }
}

/// Spec: WebAuthn Level 3 section 6.5.1.
fn credential(rest: &mut Reader<'_>) -> Result<(CredentialId, PasskeyKey), PasskeyError> {
    let mut named = || {
        rest.take(AAGUID_BYTES)?;
        let length = usize::from(u16::from_be_bytes(rest.take(2)?.try_into().ok()?));
        // Spec: section 6.5.1, and section 7.1: an id has at most 1023 bytes.
        if length > MAX_CREDENTIAL_BYTES {
            return None;
        }
        CredentialId::new(rest.take(length)?)
    };
    let id = named().ok_or(UNREADABLE)?;
    Ok((id, cose_key(rest)?))
}

/// Spec: RFC 9052 section 7 and RFC 9053 sections 7.1 and 7.2, in the canonical form and with nothing optional, as
/// WebAuthn Level 3 section 6.5.1 has it: so each key has one spelling, and its parameters come in one order.
fn cose_key(rest: &mut Reader<'_>) -> Result<PasskeyKey, PasskeyError> {
    const KEY: PasskeyError = PasskeyError::Malformed("public key");
    let pairs = rest.map().ok_or(KEY)?;
    let kind = labelled(rest, 1).ok_or(KEY)?;
    let algorithm = labelled(rest, 3).ok_or(KEY)?;
    // Spec: WebAuthn Level 3 section 7.1 step 20: one of those that were asked for.
    let key = match (algorithm, kind, pairs) {
        // Spec: section 5.8.5: ES256 with P-256 and both coordinates. Whether the point is one of the curve is checked
        // with each signature: with another none verifies.
        (PasskeyKey::ES256, 2, 5) => curve(rest, 1).and_then(|()| {
            let mut point = [4; 65];
            point[1..33].copy_from_slice(coordinate(rest, -2)?);
            point[33..].copy_from_slice(coordinate(rest, -3)?);
            Some(PasskeyKey::Es256(point))
        }),
        // Spec: section 5.8.5: EdDSA with Ed25519.
        (PasskeyKey::EDDSA, 1, 4) => {
            curve(rest, 6).and_then(|()| Some(PasskeyKey::Ed25519(coordinate(rest, -2)?.try_into().ok()?)))
        }
        (PasskeyKey::ES256 | PasskeyKey::EDDSA, _, _) => None,
        _ => return Err(PasskeyError::Algorithm),
    };
    key.ok_or(KEY)
}

fn labelled(rest: &mut Reader<'_>, label: i64) -> Option<i64> {
    if rest.int()? == label { rest.int() } else { None }
}

fn curve(rest: &mut Reader<'_>, curve: i64) -> Option<()> {
    (labelled(rest, -1)? == curve).then_some(())
}

fn coordinate<'a>(rest: &mut Reader<'a>, label: i64) -> Option<&'a [u8]> {
    if rest.int()? != label {
        return None;
    }
    rest.bytes().filter(|bytes| bytes.len() == 32)
}
