//! MPP's `evm/charge`, to and from the scheme: what a server asks for as a challenge, and what a client sends as a
//! payment that the scheme can check.
//!
//! A credential of type `authorization` is the very EIP-3009 transfer that x402's `exact` carries; only its nonce is not
//! random, but names the challenge. So such a payment is checked, claimed and settled as any other, and the same
//! authorization shown in two dialects is one payment.
//!
//! One of type `transaction` or `hash` is a transfer that its payer makes itself ([`crate::pushed_evm`]), which x402 does
//! not know. It names no challenge, so that what it can be shown for is bound by time and price alone.
//!
//! Spec: draft-httpauth-payment-00, draft-evm-charge-00.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_evm::{challenge_hash, eip55, to_alloy};
use farthing_primitives::{Network, PullMethod, TenantId, Timestamp};
use farthing_wire::mpp::evm::{Charge, ChargePayload, CredentialType};
use farthing_wire::mpp::{
    BodyDigest, Challenge, ChallengeSecrets, Credential, EncodedRequest, IntentName, MethodName, MppError,
    Payload, ProblemType, Receipt, Source, Terms, WireTime, header,
};
use farthing_wire::x402::exact_evm::Payload as ExactPayload;
use sha2::{Digest, Sha256};

use crate::exact_evm::buy::Nonce;
use crate::exact_evm::{Presented, Requirement, Tokens};
use crate::method::MethodOffer;
use crate::offer::Salt;
use crate::pushed_evm::{Pushed, Unfit};
use crate::x402::{OfferError, checksummed, exact_payload, presented as presented_exact};

/// The members of `opaque`.
const SCOPE: &str = "scope";
const SALT: &str = "salt";
/// In whole seconds, where a transfer may be shown that was made before: an older one paid for something else.
const ISSUED: &str = "issued";

/// Keeps this use of a hash apart from any other, and names the format.
const SCOPE_CONTEXT: &[u8] = b"farthing mpp scope v1";

/// What binds a challenge to one place of ours: nothing else is bought with it, whatever it costs there.
///
/// Spec: draft-httpauth-payment-00, "Challenge Binding"; the id alone does not say for which route it was made.
#[derive(Debug, Clone, Copy)]
pub struct Scope<'a> {
    pub tenant: &'a TenantId,
    /// The route as our configuration names it.
    pub route: &'a str,
    /// What the price depends on beyond the route; empty if on nothing.
    pub context: &'a [u8],
    pub http_method: &'a str,
}

impl Scope<'_> {
    fn text(&self) -> String {
        let mut hash = Sha256::new();
        // Each field goes in after its length, so that no two places make the same bytes.
        for field in [
            SCOPE_CONTEXT,
            self.tenant.as_str().as_bytes(),
            self.route.as_bytes(),
            self.context,
            self.http_method.as_bytes(),
        ] {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        URL_SAFE_NO_PAD.encode(hash.finalize())
    }
}

/// The body of a paid request.
#[derive(Debug, Clone, Copy)]
pub enum Body<'a> {
    /// The challenge must have been made for it: one without a digest was made for none.
    Bound(&'a [u8]),
    /// The route binds no bodies: only a challenge that has a digest is held to it.
    Any(&'a [u8]),
}

/// What is said of an offer beside what it asks for.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    pub realm: &'a str,
    pub description: Option<&'a str>,
    /// Of the body that the paid request must have.
    pub digest: Option<BodyDigest>,
    /// Whether the client needs `Authorization` for something else.
    pub own_header: bool,
}

// ---------------------------------------------------------------------------------------------------------------------
// Our challenges.

/// Our offer as a challenge that holds until `expires`, to be paid by those of these types that its token allows, in
/// their order. `None` where that is none: an authorization needs EIP-3009, and the Permit2 of MPP names no spender that
/// a client could sign for.
///
/// Spec: draft-evm-charge-00, "Request Schema", "Credential Type Negotiation".
pub fn challenge(
    secrets: &ChallengeSecrets,
    asked: &Requirement,
    takes: &[CredentialType],
    scope: &Scope<'_>,
    words: Words<'_>,
    expires: Timestamp,
    salt: Salt,
) -> Option<Challenge> {
    let possible = |kind: &&CredentialType| match kind {
        CredentialType::Authorization => asked.method() == PullMethod::Eip3009,
        CredentialType::Permit2 => false,
        CredentialType::Transaction | CredentialType::Hash => true,
    };
    let credential_types: Vec<_> = takes.iter().filter(possible).copied().collect();
    if credential_types.is_empty() {
        return None;
    }
    let issued = credential_types.contains(&CredentialType::Hash).then(|| expires.minus(asked.max_timeout()));
    let asset = asked.token().asset();
    let network = asset.id.network();
    let charge = Charge {
        network: network.clone(),
        amount: asked.price().atoms(),
        currency: checksummed(network, asset.id.address()),
        recipient: checksummed(network, &asked.pay_to()),
        description: None,
        external_id: None,
        credential_types,
        permit2: None,
        decimals: Some(asset.decimals),
        splits: Vec::new(),
    };
    let request = EncodedRequest::new(charge.to_request().to_object()).ok()?;
    let name = (MethodName::evm(), IntentName::charge());
    bound(secrets, name, request, scope, words, Times { expires, issued }, salt)
}

/// A charge by a method that is a plug-in, as a challenge that holds until `expires`. `None` where the method does not
/// offer it, or a challenge cannot hold what it says.
pub fn method_challenge(
    secrets: &ChallengeSecrets,
    offer: &MethodOffer,
    scope: &Scope<'_>,
    words: Words<'_>,
    expires: Timestamp,
    salt: Salt,
) -> Option<Challenge> {
    let request = EncodedRequest::new(offer.method.request(offer)?.to_object()).ok()?;
    let name = offer.method.name().clone();
    bound(secrets, (name, IntentName::charge()), request, scope, words, Times::until(expires), salt)
}

/// A session that we sell, as a challenge that holds until `expires`.
///
/// Spec: draft-evm-session-00, "Request Schema".
pub fn session_challenge(
    secrets: &ChallengeSecrets,
    request: &EncodedRequest,
    scope: &Scope<'_>,
    words: Words<'_>,
    expires: Timestamp,
    salt: Salt,
) -> Option<Challenge> {
    let name = (MethodName::evm(), IntentName::session());
    bound(secrets, name, request.clone(), scope, words, Times::until(expires), salt)
}

/// When a challenge holds.
struct Times {
    expires: Timestamp,
    /// Since when, where that matters.
    issued: Option<Timestamp>,
}

impl Times {
    fn until(expires: Timestamp) -> Self {
        Self { expires, issued: None }
    }
}

fn bound(
    secrets: &ChallengeSecrets,
    (method, intent): (MethodName, IntentName),
    request: EncodedRequest,
    scope: &Scope<'_>,
    words: Words<'_>,
    times: Times,
    salt: Salt,
) -> Option<Challenge> {
    let issued = times.issued.map(|issued| (ISSUED, issued.secs().to_string()));
    let opaque = [(SALT, URL_SAFE_NO_PAD.encode(salt.0)), (SCOPE, scope.text())];
    let opaque = opaque.into_iter().chain(issued);
    let challenge = Challenge {
        id: String::new(),
        realm: words.realm.to_owned(),
        method,
        intent,
        request,
        description: words.description.map(str::to_owned),
        digest: words.digest.map(|digest| digest.to_string()),
        expires: Some(WireTime::from(times.expires)),
        header: words.own_header.then(|| header::PAYMENT_AUTHORIZATION_FIELD.to_owned()),
        opaque: Some(Challenge::encode_opaque(opaque).ok()?),
    };
    secrets.bind(challenge).ok()
}

/// Why a credential's challenge does not open what it is shown for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("the challenge is not one of ours, or was changed")]
    NotOurs,
    #[error("the challenge was made for another realm")]
    Realm,
    #[error("the challenge was made for another route or method")]
    Scope,
    #[error("the challenge was made for another body")]
    Body,
    #[error("the challenge ended at {0}")]
    Ended(Timestamp),
}

impl NotOpened {
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotOurs => "challenge_not_ours",
            Self::Realm => "challenge_for_other_realm",
            Self::Scope => "challenge_for_other_route",
            Self::Body => "challenge_for_other_body",
            Self::Ended(_) => "challenge_expired",
        }
    }

    /// Spec: draft-httpauth-payment-00, "Error Codes"; an expired challenge as the published package answers it.
    pub fn problem(&self) -> ProblemType {
        match self {
            Self::Ended(_) => ProblemType::PaymentExpired,
            _ => ProblemType::InvalidChallenge,
        }
    }
}

/// Whether we made this challenge, whatever for and whenever: only then is anything true that it says.
pub fn is_ours(secrets: &ChallengeSecrets, challenge: &Challenge) -> bool {
    secrets.verify(challenge).is_ok()
}

/// Whether a challenge of ours opens this place, for this body, now.
///
/// # Errors
/// [`NotOpened`], the most telling first.
pub fn opens(
    challenge: &Challenge,
    realm: &str,
    scope: &Scope<'_>,
    body: Body<'_>,
    now: Timestamp,
) -> Result<(), NotOpened> {
    if challenge.realm != realm {
        return Err(NotOpened::Realm);
    }
    let opaque = challenge.opaque_map().map_err(|_| NotOpened::Scope)?;
    if !opaque.iter().any(|(key, value)| key == SCOPE && *value == scope.text()) {
        return Err(NotOpened::Scope);
    }
    // Spec: draft-httpauth-payment-00, "Request Body Digest Binding".
    let digest = challenge.body_digest().map_err(|_| NotOpened::NotOurs)?;
    let holds = match (digest, body) {
        (Some(digest), Body::Bound(body) | Body::Any(body)) => digest == BodyDigest::of(body),
        (None, Body::Bound(body)) => body.is_empty(),
        (None, Body::Any(_)) => true,
    };
    if !holds {
        return Err(NotOpened::Body);
    }
    // Ours always end.
    let ends = challenge.expires.as_ref().ok_or(NotOpened::NotOurs)?.at();
    if now >= ends {
        return Err(NotOpened::Ended(ends));
    }
    Ok(())
}

// ---------------------------------------------------------------------------------------------------------------------
// Challenges of anybody.

/// Reads what a challenge asks for, with what *we* know of its token.
///
/// # Errors
/// [`OfferError`] for what is no charge by EIP-3009 that we could sign or settle. `max_timeout` is what is left of its
/// time.
pub fn requirement(
    challenge: &Challenge,
    tokens: &Tokens,
    max_timeout: Duration,
) -> Result<Requirement, OfferError> {
    let charge = charge(challenge)?;
    let money = charge.money();
    let token = tokens.get(money.asset()).ok_or_else(|| OfferError::UnknownAsset(money.asset().clone()))?;
    Ok(Requirement::new(token.clone(), &money, charge.recipient.address(), PullMethod::Eip3009, max_timeout)?)
}

/// The charge on an EVM chain that a challenge asks for, however it may be paid.
pub fn any_charge(challenge: &Challenge) -> Result<Charge, OfferError> {
    let name = || OfferError::Scheme(format!("{}/{}", challenge.method.as_str(), challenge.intent.as_str()));
    let Ok(Terms::EvmCharge(charge)) = challenge.terms() else { return Err(name()) };
    Ok(charge)
}

/// The charge that a challenge asks for, if it may be paid by authorization.
pub fn charge(challenge: &Challenge) -> Result<Charge, OfferError> {
    let charge = any_charge(challenge)?;
    // Spec: draft-evm-charge-00, "Authorization Payload", "Constraints": no splits.
    if !charge.credential_types.contains(&CredentialType::Authorization) || !charge.splits.is_empty() {
        let first = charge.credential_types.first().map_or("", |kind| kind.as_str());
        return Err(OfferError::TransferMethod(first.to_owned()));
    }
    Ok(charge)
}

/// The nonce of the authorization that answers a challenge.
///
/// Spec: draft-evm-charge-00, "Challenge Binding": keccak256 of the id and the realm.
pub fn nonce(challenge: &Challenge) -> Nonce {
    Nonce(challenge_hash(&challenge.id, &challenge.realm).0)
}

// ---------------------------------------------------------------------------------------------------------------------
// Credentials.

/// Why a credential does not even pay in the way that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    #[error("the payload cannot be read: {0}")]
    Payload(#[from] MppError),
    #[error("a credential of type {0} is not accepted here")]
    Type(&'static str),
    #[error("the authorization's nonce does not name the challenge")]
    Nonce,
    #[error("the source is not who signed")]
    Source,
    #[error("a hash says nothing of who pays, so the source must")]
    NoSource,
    #[error(transparent)]
    Offer(#[from] OfferError),
    #[error(transparent)]
    Transfer(#[from] Unfit),
}

impl CredentialError {
    pub fn code(&self) -> &'static str {
        match self {
            Self::Payload(_) => "invalid_payload",
            Self::Type(_) => "credential_type_not_accepted",
            Self::Nonce => "authorization_nonce_mismatch",
            Self::Source => "source_mismatch",
            Self::NoSource => "source_missing",
            Self::Offer(_) => "challenge_not_ours",
            Self::Transfer(unfit) => unfit.code(),
        }
    }

    pub fn problem(&self) -> ProblemType {
        match self {
            Self::Payload(error) => error.payload_problem(),
            Self::Type(_) => ProblemType::InvalidPayload,
            Self::Offer(_) => ProblemType::InvalidChallenge,
            Self::Nonce | Self::Source | Self::NoSource | Self::Transfer(_) => {
                ProblemType::VerificationFailed
            }
        }
    }
}

/// Reads what a credential presents for its own challenge.
///
/// Spec: draft-evm-charge-00, "Authorization Verification", step 5; the rest is the scheme's.
pub fn presented(credential: &Credential, network: &Network) -> Result<Presented, CredentialError> {
    let (authorization, signature) = match credential.payload()? {
        Payload::EvmCharge(ChargePayload::Authorization { authorization, signature }) => {
            (authorization, signature)
        }
        Payload::EvmCharge(other) => return Err(CredentialError::Type(other.credential_type().as_str())),
        _ => return Err(CredentialError::Type("")),
    };
    if authorization.nonce != nonce(&credential.challenge).0 {
        return Err(CredentialError::Nonce);
    }
    // Whoever says who pays says it of the signer.
    let pays = |source: &Source| source.account() == Some((network, &authorization.from));
    if !credential.source.as_ref().is_none_or(pays) {
        return Err(CredentialError::Source);
    }
    let payload = ExactPayload::Eip3009 { signature, authorization };
    Ok(presented_exact(payload, None).map_err(MppError::from)?)
}

/// The transfer by its payer that a credential shows for its own challenge; `None` if it shows something else, or what
/// cannot be read.
///
/// # Errors
/// [`CredentialError`]; whether a hash is of the transfer that was asked for, the chain has to say.
///
/// Spec: draft-evm-charge-00, "Verification Procedure", step 5, "Transaction Verification", "Hash Verification". A hash
/// names no payer, so that here the source has to, which the draft leaves open.
pub fn pushed(credential: &Credential, tokens: &Tokens) -> Result<Option<Pushed>, CredentialError> {
    let Ok(Payload::EvmCharge(payload)) = credential.payload() else { return Ok(None) };
    let kind = payload.credential_type();
    if !matches!(kind, CredentialType::Transaction | CredentialType::Hash) {
        return Ok(None);
    }
    let charge = any_charge(&credential.challenge)?;
    if !charge.credential_types.contains(&kind) || !charge.splits.is_empty() {
        return Err(CredentialError::Type(kind.as_str()));
    }
    let money = charge.money();
    let token = tokens.get(money.asset()).ok_or_else(|| OfferError::UnknownAsset(money.asset().clone()))?;
    // Nothing of it is pulled: how the token could be does not matter, nor until when.
    let (pull, payee) = (token.asset().pull, charge.recipient.address());
    let asked = Requirement::new(token.clone(), &money, payee, pull, Duration::from_secs(1))
        .map_err(OfferError::from)?;
    let source = credential.source.as_ref().map(|source| source.account());
    match payload {
        ChargePayload::Transaction(raw) => {
            let pushed = Pushed::signed(&asked, &raw)?;
            if source.is_some_and(|source| source != Some((asked.network(), &pushed.payer()))) {
                return Err(CredentialError::Source);
            }
            Ok(Some(pushed))
        }
        ChargePayload::Hash(hash) => {
            let (network, payer) = source.ok_or(CredentialError::NoSource)?.ok_or(CredentialError::Source)?;
            if network != asked.network() {
                return Err(CredentialError::Source);
            }
            // A challenge of ours that takes a hash says when it was made.
            let issued = issued(&credential.challenge).ok_or(CredentialError::Type(kind.as_str()))?;
            Ok(Some(Pushed::sent(&asked, hash, payer, issued)?))
        }
        ChargePayload::Authorization { .. } | ChargePayload::Permit2 { .. } => Ok(None),
    }
}

fn issued(challenge: &Challenge) -> Option<Timestamp> {
    let opaque = challenge.opaque_map().ok()?;
    let (_, secs) = opaque.into_iter().find(|(key, _)| key == ISSUED)?;
    secs.parse().ok().map(Timestamp::from_secs)
}

/// The credential that shows `presented` for a challenge. `None` if it is no authorization.
pub fn credential(challenge: &Challenge, presented: &Presented, network: &Network) -> Option<Credential> {
    let ExactPayload::Eip3009 { signature, authorization } = exact_payload(presented)? else { return None };
    // The published server compares the text, and writes the address with its checksum.
    let chain = network.evm_chain_id()?;
    let address = eip55(to_alloy(&authorization.from)?);
    let source = Source::parse(&format!("did:pkh:eip155:{chain}:{address}")).ok();
    let payload = ChargePayload::Authorization { authorization, signature };
    Some(Credential::new(challenge.clone(), payload.to_object(), source))
}

/// The receipt of a charge that is settled.
///
/// Spec: draft-evm-charge-00, "Receipt Generation".
pub fn receipt(challenge_id: &str, tx: &str, network: &Network, settled: Timestamp) -> Receipt {
    let mut receipt = Receipt::new(MethodName::EVM, tx, WireTime::from(settled));
    receipt.challenge_id = Some(challenge_id.to_owned());
    if let Some(chain) = network.evm_chain_id() {
        receipt.other.insert("chainId", chain);
    }
    receipt
}

/// The problem that a refusal is told as, by the code that x402 peers know it by.
///
/// Spec: draft-httpauth-payment-00, "Error Codes".
pub fn problem_of(code: &str) -> ProblemType {
    match code {
        "invalid_exact_evm_payload_authorization_valid_before"
        | "permit2_deadline_expired"
        | "challenge_expired" => ProblemType::PaymentExpired,
        "invalid_payload" | "credential_type_not_accepted" => ProblemType::InvalidPayload,
        "payment_action_required" => ProblemType::PaymentActionRequired,
        "challenge_not_ours"
        | "challenge_for_other_realm"
        | "challenge_for_other_route"
        | "challenge_for_other_body"
        | "external_id_mismatch"
        | "payment_identifier_taken"
        | "payment_already_used"
        | "payment_for_other_request" => ProblemType::InvalidChallenge,
        _ => ProblemType::VerificationFailed,
    }
}
