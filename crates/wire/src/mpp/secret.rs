use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::encoding::encode;
use super::{Challenge, MppError, WireTime, encoding};

/// The shortest secret that the published packages take, in bytes.
pub const MIN_SECRET_BYTES: usize = 32;
/// How many secrets may precede the current one.
pub const MAX_PREVIOUS_SECRETS: usize = 4;
/// An HMAC-SHA256 in base64url.
const ID_CHARS: usize = 43;

/// A secret that binds ids to challenges.
#[derive(Clone)]
pub struct ChallengeSecret(Zeroizing<Vec<u8>>);

/// The secret that new challenges are bound under, and those of challenges that may still be shown.
///
/// Spec: draft-httpauth-payment-00, "Challenge-Binding Secret Management".
#[derive(Clone)]
pub struct ChallengeSecrets {
    current: ChallengeSecret,
    previous: Vec<ChallengeSecret>,
}

/// Why there is no such set of secrets. Ours; never a peer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    #[error("a challenge secret has fewer than {MIN_SECRET_BYTES} bytes")]
    TooShort,
    #[error("more than {MAX_PREVIOUS_SECRETS} previous challenge secrets")]
    TooMany,
}

/// Under which secret a challenge was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IssuedUnder {
    Current,
    /// Which of the previous ones, the newest being 0.
    Previous(usize),
}

/// The challenge is not one of ours, or not as we made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the challenge's id does not belong to its parameters")]
pub struct NotOurs;

impl ChallengeSecret {
    /// # Errors
    /// [`SecretError::TooShort`].
    pub fn new(bytes: &[u8]) -> Result<Self, SecretError> {
        if bytes.len() < MIN_SECRET_BYTES {
            return Err(SecretError::TooShort);
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    fn mac(&self, slots: &Slots<'_>) -> Hmac<Sha256> {
        // INVARIANT: HMAC takes keys of any length.
        #[allow(clippy::expect_used)]
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(&self.0).expect("a key of any length");
        mac.update(slots.text().as_bytes());
        mac
    }
}

impl ChallengeSecrets {
    pub fn new(current: ChallengeSecret) -> Self {
        Self { current, previous: Vec::new() }
    }

    /// With secrets that new challenges no longer get, the newest first.
    ///
    /// # Errors
    /// [`SecretError::TooMany`].
    pub fn with_previous(
        current: ChallengeSecret,
        previous: Vec<ChallengeSecret>,
    ) -> Result<Self, SecretError> {
        if previous.len() > MAX_PREVIOUS_SECRETS {
            return Err(SecretError::TooMany);
        }
        Ok(Self { current, previous })
    }

    /// The same with a new secret in front; the oldest falls out if there are too many.
    #[must_use]
    pub fn rotated(&self, next: ChallengeSecret) -> Self {
        let before = std::iter::once(&self.current).chain(&self.previous);
        Self { current: next, previous: before.take(MAX_PREVIOUS_SECRETS).cloned().collect() }
    }

    /// The id of a challenge with these parameters: whatever its `id` and `description` say.
    ///
    /// # Errors
    /// [`MppError::Unprintable`] if a parameter has a `|`: two challenges could then have one id.
    pub fn id(&self, challenge: &Challenge) -> Result<String, MppError> {
        let slots = Slots::of(challenge)?;
        Ok(encode(self.current.mac(&slots).finalize().into_bytes()))
    }

    /// Gives the challenge its id.
    ///
    /// # Errors
    /// As [`ChallengeSecrets::id`].
    pub fn bind(&self, mut challenge: Challenge) -> Result<Challenge, MppError> {
        challenge.id = self.id(&challenge)?;
        Ok(challenge)
    }

    /// Whether the id is ours and belongs to these very parameters; in constant time for each secret.
    ///
    /// This says that we made the challenge, and not what for: method, intent, price, payee, realm and resource are for
    /// the caller to compare with the route.
    ///
    /// # Errors
    /// [`NotOurs`].
    pub fn verify(&self, challenge: &Challenge) -> Result<IssuedUnder, NotOurs> {
        let slots = Slots::of(challenge).map_err(|_| NotOurs)?;
        let id = encoding::decode(challenge.id.as_bytes(), ID_CHARS, "id").map_err(|_| NotOurs)?;
        if self.current.mac(&slots).verify_slice(&id).is_ok() {
            return Ok(IssuedUnder::Current);
        }
        let found = self.previous.iter().position(|secret| secret.mac(&slots).verify_slice(&id).is_ok());
        found.map(IssuedUnder::Previous).ok_or(NotOurs)
    }
}

/// What the id binds, in this order.
///
/// Spec: draft-httpauth-payment-00, "Recommended: HMAC-SHA256 Binding": seven slots, empty where there is nothing. A
/// header other than the default adds an eighth before `opaque`, as the published packages have it.
struct Slots<'a> {
    realm: &'a str,
    method: &'a str,
    intent: &'a str,
    request: &'a str,
    expires: &'a str,
    digest: &'a str,
    header: Option<&'a str>,
    opaque: &'a str,
}

impl<'a> Slots<'a> {
    fn of(challenge: &'a Challenge) -> Result<Self, MppError> {
        let slots = Self {
            realm: &challenge.realm,
            method: challenge.method.as_str(),
            intent: challenge.intent.as_str(),
            request: challenge.request.as_str(),
            expires: challenge.expires.as_ref().map_or("", WireTime::as_str),
            digest: challenge.digest.as_deref().unwrap_or(""),
            header: challenge.header.as_deref(),
            opaque: challenge.opaque.as_deref().unwrap_or(""),
        };
        // INVARIANT: no slot has the separator in it, so the bound text has one reading. Otherwise a digest `a|b` without
        // a header would be the same as a digest `a` with a header `b`.
        let free = [
            ("realm", slots.realm),
            ("digest", slots.digest),
            ("header", slots.header.unwrap_or("")),
            ("opaque", slots.opaque),
        ];
        match free.iter().find(|(_, text)| text.contains('|')) {
            Some((field, _)) => Err(MppError::Unprintable { field }),
            None => Ok(slots),
        }
    }

    fn text(&self) -> String {
        let always = [self.method, self.intent, self.request, self.expires, self.digest];
        let slots = || always.into_iter().chain(self.header).chain([self.opaque]);
        let length = slots().map(|slot| slot.len().saturating_add(1)).sum::<usize>();
        let mut text = String::with_capacity(self.realm.len().saturating_add(length));
        text.push_str(self.realm);
        for slot in slots() {
            text.push('|');
            text.push_str(slot);
        }
        text
    }
}

impl fmt::Debug for ChallengeSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChallengeSecret")
    }
}

impl fmt::Debug for ChallengeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChallengeSecrets(and {} previous)", self.previous.len())
    }
}
