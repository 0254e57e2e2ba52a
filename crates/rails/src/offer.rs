//! The seal on an offer: it lets a server that stores nothing recognise its own offer when a payer echoes it.
//!
//! In x402 v2 a payer repeats the requirement it accepted, `extra` and all. A sealed offer is therefore bound to one
//! tenant, route, method, price, payee, asset and network, until it ends: paying for `/a` does not buy `/b` at the same
//! price. In v1 nothing is echoed, and nothing is sealed.

#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_primitives::{Address, Money, PullMethod, TenantId, Timestamp};
use farthing_wire::mpp::{ChallengeSecret, ChallengeSecrets};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

/// The key of `extra` that carries the seal.
pub const SEAL_KEY: &str = "farthing";

/// The longest seal that is read, in bytes.
pub const MAX_SEAL_LEN: usize = 96;

/// Keeps this use of a secret apart from any other, and names the format.
const CONTEXT: &[u8] = b"farthing offer seal v1";
/// The same for the secrets of challenges.
const CHALLENGE_CONTEXT: &[u8] = b"farthing mpp challenge secret v1";
/// The same for keys of other tills.
const TILL_CONTEXT: &[u8] = b"farthing till key v1";

/// What the seal's text starts with.
const PREFIX: &str = "1.";

/// The secret behind the seals. Offers sealed with the one before still hold, so that it can be changed at any time.
pub struct BindingKey {
    current: [u8; 32],
    previous: Option<[u8; 32]>,
}

impl BindingKey {
    pub fn new(current: [u8; 32], previous: Option<[u8; 32]>) -> Self {
        Self { current, previous }
    }

    /// The secrets that bind the ids of MPP's challenges: others, but only as secret as these.
    pub fn challenge_secrets(&self) -> ChallengeSecrets {
        let derived = |key: &[u8; 32]| {
            let mut mac = keyed(key);
            mac.update(CHALLENGE_CONTEXT);
            let secret = zeroize::Zeroizing::new(<[u8; 32]>::from(mac.finalize().into_bytes()));
            ChallengeSecret::new(&*secret)
        };
        let secrets = derived(&self.current).and_then(|current| {
            let previous = self.previous.iter().map(derived).collect::<Result<Vec<_>, _>>()?;
            ChallengeSecrets::with_previous(current, previous)
        });
        // INVARIANT: a derived secret has as many bytes as a secret must have, and one previous is not too many.
        #[allow(clippy::expect_used)]
        secrets.expect("derived secrets are long enough")
    }

    /// Another key, only as secret as this one: of two tills of one shop, neither takes the other's offers for its own.
    pub fn for_till(&self, name: &str) -> Self {
        let derived = |key: &[u8; 32]| {
            let mut mac = keyed(key);
            mac.update(TILL_CONTEXT);
            mac.update(name.as_bytes());
            <[u8; 32]>::from(mac.finalize().into_bytes())
        };
        Self { current: derived(&self.current), previous: self.previous.as_ref().map(derived) }
    }

    /// The same with a new secret in front, and what was in front behind it.
    pub fn rotated(&self, next: [u8; 32]) -> Self {
        Self { current: next, previous: Some(self.current) }
    }
}

impl Drop for BindingKey {
    fn drop(&mut self) {
        self.current.zeroize();
        self.previous.zeroize();
    }
}

impl fmt::Debug for BindingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BindingKey")
    }
}

/// All that an offer promises.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoundOffer<'a> {
    pub tenant: &'a TenantId,
    /// The route as our configuration names it.
    pub route: &'a str,
    /// What the price depends on beyond the route, e.g. a hook's quote; empty if on nothing.
    pub context: &'a [u8],
    pub method: &'a str,
    pub price: Money,
    pub pay_to: Address,
    pub pull: PullMethod,
    pub max_timeout_secs: u64,
}

/// Why a seal does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("the offer's seal cannot be read")]
    Malformed,
    #[error("the offer ended at {0}")]
    Ended(Timestamp),
    #[error("the seal is not ours, or belongs to another offer")]
    NotOurs,
}

/// Seals an offer that holds until `ends`, in whole seconds.
///
/// `salt` is unpredictable and used once, so that a seal is known to nobody but whoever was made the offer: after
/// settlement everything else of a payment is public on the chain.
pub fn bind(key: &BindingKey, offer: &BoundOffer<'_>, ends: Timestamp, salt: Salt) -> String {
    let ends = ends.secs();
    let tag = URL_SAFE_NO_PAD.encode(mac(&key.current, offer, ends, &salt.0).finalize().into_bytes());
    format!("{PREFIX}{ends}.{}.{tag}", URL_SAFE_NO_PAD.encode(salt.0))
}

/// What makes each seal another.
#[derive(Debug, Clone, Copy)]
pub struct Salt(pub [u8; 9]);

/// Whether `seal` is ours, on exactly this offer, and still holds at `now`; says until when.
///
/// The comparison takes the same time wherever the difference is.
pub fn verify(
    key: &BindingKey,
    offer: &BoundOffer<'_>,
    seal: &str,
    now: Timestamp,
) -> Result<Timestamp, SealError> {
    if seal.len() > MAX_SEAL_LEN {
        return Err(SealError::Malformed);
    }
    let (ends, rest) =
        seal.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(SealError::Malformed)?;
    let (salt, tag) = rest.split_once('.').ok_or(SealError::Malformed)?;
    let salt: [u8; 9] = URL_SAFE_NO_PAD
        .decode(salt)
        .ok()
        .and_then(|salt| salt.try_into().ok())
        .ok_or(SealError::Malformed)?;
    // One moment has one spelling.
    let digits = ends.bytes().all(|b| b.is_ascii_digit()) && (ends == "0" || !ends.starts_with('0'));
    let ends: u64 = Some(ends).filter(|_| digits).and_then(|e| e.parse().ok()).ok_or(SealError::Malformed)?;
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| SealError::Malformed)?;
    let holds = |secret: &[u8; 32]| mac(secret, offer, ends, &salt).verify_slice(&tag).is_ok();
    if !holds(&key.current) && !key.previous.as_ref().is_some_and(holds) {
        return Err(SealError::NotOurs);
    }
    let ends = Timestamp::from_secs(ends);
    if now >= ends {
        return Err(SealError::Ended(ends));
    }
    Ok(ends)
}

fn keyed(secret: &[u8; 32]) -> Hmac<Sha256> {
    // INVARIANT: HMAC takes a key of any length, so 32 bytes never fail.
    #[allow(clippy::expect_used)]
    Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes 32 bytes")
}

fn mac(secret: &[u8; 32], offer: &BoundOffer<'_>, ends: u64, salt: &[u8; 9]) -> Hmac<Sha256> {
    let mut mac = keyed(secret);
    let pull: &[u8] = match offer.pull {
        PullMethod::Eip3009 => b"eip3009",
        PullMethod::Permit2 => b"permit2",
    };
    let asset = offer.price.asset();
    // Each field goes in after its length, so that no two offers make the same bytes.
    for field in [
        CONTEXT,
        offer.tenant.as_str().as_bytes(),
        offer.route.as_bytes(),
        offer.context,
        offer.method.as_bytes(),
        asset.network().as_str().as_bytes(),
        asset.address().as_str().as_bytes(),
        &offer.price.atoms().to_be_bytes(),
        offer.pay_to.as_str().as_bytes(),
        pull,
        &offer.max_timeout_secs.to_be_bytes(),
        &ends.to_be_bytes(),
        salt,
    ] {
        mac.update(&(field.len() as u64).to_be_bytes());
        mac.update(field);
    }
    mac
}
