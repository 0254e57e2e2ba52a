//! Channels, as whoever wants to pay through them sees it: deposits, vouchers, and what their sellers say.
//!
//! The key signs for escrows that this wallet knows by their code, and nothing leaves here that is not durable before:
//! the intent to open, the high-water mark, a close.

use std::time::Duration;

use async_trait::async_trait;
use farthing_channel::{
    Budget, Capture, ChannelId, Need, Payer, PayerError, PayerEvent, PayerState, Price, Receipt, Terms, Unit,
    View,
};
use farthing_engine::channel_view;
use farthing_evm::escrow::OnChain;
use farthing_evm::voucher::{self, ChannelParts, escrow_domain};
use farthing_evm::{B256, Domain, TransferAuthorization, U256, keccak256, to_alloy};
use farthing_payment::{ConsumptionKey, Fault, Instruction, Reason};
use farthing_policy::{Charge, Clock, Decision, Law, Request};
use farthing_primitives::{Address, Asset, AttemptId, Money, PullMethod, PurchaseId, Timestamp};
use farthing_rails::exact_evm::MIN_REMAINING;
use farthing_wire::Uint256;
use farthing_wire::mpp::evm::{Funding, Open, SessionPayload, TopUp, Voucher};
use farthing_wire::x402::exact_evm::Authorization as WireAuthorization;

use crate::authorizer::{Authorization, Denied, Intent, LocalAuthorizer};
use crate::chain_view::{ChannelSight, EscrowFacts, REORG_MARGIN};
use crate::clock::Witnesses;
use crate::escrows;
use crate::force::SLACK;
use crate::journal::channels::{Begun, Got, KeptChannel, NewChannel, NewSpend, Parties, Raised, Step};
use crate::journal::{Draft, Header, JournalError, Outcome, law};
use crate::offer::{Offer, OfferSession, SESSION};
use crate::screen::{Counts, For, Heard};
use crate::signer::ToSign;

/// How many units a deposit is for if the seller suggests none.
const UNITS_OF_A_DEPOSIT: u128 = 100;
/// How many units at least vouchers may run ahead of what was received, within the deposit: as many requests may be on
/// their way at once.
const UNITS_AHEAD: u128 = 64;
/// How long a payee may take to close before the escrow is asked to.
const PATIENCE: Duration = Duration::from_secs(60);
/// The shortest grace period of an escrow that keeps to the specification.
///
/// Spec: draft-evm-session-00, "Forced Close": not shorter than ten minutes.
const LEAST_GRACE: Duration = Duration::from_secs(600);

/// Keeps the salts of our channels apart from any other hash, and names the way they are made.
const SALT_CONTEXT: &[u8] = b"farthing channel salt v1";

/// Why a session is not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionDenied {
    #[error("the escrow {0} is none that this wallet knows")]
    UnknownEscrow(Address),
    #[error("what is at the escrow's address {0} is not the escrow")]
    EscrowCode(Address),
    #[error("the escrow's time to answer is {} seconds, less than may be", .0.as_secs())]
    Grace(Duration),
    #[error("no chain can be asked about the channel: name a node with --rpc or \"farthing wallet allow\"")]
    NoChain,
    #[error("a channel needs a token that is pulled by EIP-3009")]
    Token,
    #[error("the seller submits no deposit that is signed by EIP-3009")]
    NotRelayed,
    #[error("the price is zero")]
    ZeroPrice,
    #[error("the challenge ends too soon to answer it")]
    Ended,
    #[error("the channel is {0}")]
    NotUsable(&'static str),
    #[error("an address is not one of an EVM chain")]
    NotEvm,
    #[error("the payment was made for no session")]
    NoSession,
    #[error("this wallet's key is where it can open no channel: its salt could not be found again")]
    Signer,
    /// A channel's rest can be asked back for longer than such a key signs.
    #[error("a session key pays through no channel: it may have ended before the channel is closed")]
    SessionKey,
}

impl SessionDenied {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownEscrow(_) => "escrow_unknown",
            Self::EscrowCode(_) => "escrow_code_differs",
            Self::Grace(_) => "escrow_grace_too_short",
            Self::NoChain => "chain_required",
            Self::Token => "token_not_by_authorization",
            Self::NotRelayed => "deposit_not_relayed",
            Self::ZeroPrice => "zero_price",
            Self::Ended => "challenge_expired",
            Self::NotUsable(_) => "channel_not_usable",
            Self::NotEvm => "not_an_evm_address",
            Self::NoSession => "not_a_session",
            Self::Signer => "signer_without_channels",
            Self::SessionKey => "session_key_without_channels",
        }
    }
}

/// A stable name for why a channel is not moved.
pub(crate) fn channel_code(error: &PayerError) -> &'static str {
    match error {
        PayerError::DoesNotFit { .. } => "channel_not_usable",
        PayerError::NotConfirmed => "deposit_not_confirmed",
        PayerError::AboveDeposit(_) => "deposit_too_small",
        PayerError::TooFarAhead { .. } => "too_far_ahead",
        PayerError::TooDear => "price_over_cap",
        PayerError::OverBudget { .. } => "over_max",
        PayerError::Disputed(_) => "seller_overclaims",
        PayerError::Pending(_) => "channel_busy",
        PayerError::Unsound => "chain_unsound",
        PayerError::Meter(_) => "amount_too_large",
    }
}

/// What a session would take.
#[derive(Debug, Clone)]
pub struct Quote {
    pub decision: Decision,
    /// The channel that pays, if there is one already.
    pub channel: Option<ChannelId>,
    /// What would be deposited first, if there is none.
    pub deposit: Option<Money>,
}

/// A deposit that is signed, or is signed again: its header comes from [`Purse::show_deposit`].
#[derive(Debug, Clone)]
pub struct Deposit {
    pub channel: ChannelId,
    pub attempt: AttemptId,
    /// `None` for one that was allowed earlier.
    pub decision: Option<Decision>,
}

/// What came of a wish to pay for a request.
#[derive(Debug, Clone)]
pub enum Spent {
    /// A voucher is signed for it.
    Ready(Box<Authorization>),
    /// The deposit has to grow first, by so many atoms at least.
    NeedsTopUp { missing: u128 },
}

/// What came of a stream's need.
#[derive(Debug, Clone)]
pub enum Answered {
    /// Show this.
    Voucher(Header),
    NeedsTopUp {
        missing: u128,
    },
}

/// What the purchase of a session brought.
#[derive(Debug, Clone)]
pub struct Brought {
    pub outcome: Outcome,
    /// What the seller says of its channel, and the same as JSON.
    pub receipt: Option<(Receipt, String)>,
    /// Whether the goods came.
    pub served: bool,
    /// Whether they came as a stream, whose units are counted by the seller's word.
    pub streamed: bool,
    /// Whether nothing came after the receipt, so that what it says is what the purchase cost.
    pub is_whole: bool,
}

/// Who keeps channels: decides about deposits, signs vouchers, and remembers both. It may live in another process than
/// the program that wants to pay.
#[async_trait]
pub trait Purse: Send + Sync {
    /// What a session would take. Signs and reserves nothing. `funds` is what the wallet has, if a chain can say.
    async fn quote(&self, intent: &Intent, funds: Option<u128>) -> Result<Quote, Denied>;

    /// The channel that is open for this offer, or is being opened.
    async fn usable(&self, intent: &Intent) -> Result<Option<KeptChannel>, Denied>;

    /// The channel that would be opened next, from this number on.
    async fn candidate(&self, intent: &Intent, from: u64) -> Result<(u64, ChannelId), Denied>;

    /// Decides about a deposit, writes it down and signs it, each step durable before the next. `None`: by now there is
    /// a channel.
    async fn open(
        &self,
        intent: &Intent,
        number: u64,
        escrow: EscrowFacts,
        funds: Option<u128>,
    ) -> Result<Option<Deposit>, Denied>;

    /// The same for more money in a channel, of which `missing` atoms are needed.
    async fn top_up(&self, intent: &Intent, channel: &ChannelId, missing: u128) -> Result<Deposit, Denied>;

    /// Writes down that a deposit is about to be shown, and gives it out.
    async fn show_deposit(&self, attempt: &AttemptId) -> Result<Header, Denied>;

    /// Decides about a purchase, raises the channel's mark, and signs, each step durable before the next.
    async fn spend(&self, intent: &Intent, channel: &ChannelId) -> Result<Spent, Denied>;

    /// Vouches for more where a purchase needs it: a stream that `went_on` has used up what it got, or a request costs
    /// more than its first unit. `most` is what the purchase may cost, in whole units; `None` is what a single payment
    /// may.
    async fn raise(
        &self,
        id: &PurchaseId,
        need: &Need,
        went_on: bool,
        most: Option<&str>,
    ) -> Result<Answered, Denied>;

    /// Writes down what became of a purchase, and what its seller says.
    async fn conclude(&self, id: &PurchaseId, brought: Brought) -> Result<KeptChannel, Denied>;

    /// Writes down what the escrow says.
    async fn saw(&self, channel: &ChannelId, sight: ChannelSight) -> Result<KeptChannel, Denied>;

    /// Writes down what a receipt says that belongs to no purchase.
    async fn told(&self, channel: &ChannelId, receipt: Receipt, json: &str) -> Result<KeptChannel, Denied>;

    /// Wants the rest of a channel back: no voucher is signed any more but the one that this returns, which its payee is
    /// asked to close with.
    async fn leave(&self, channel: &ChannelId, offer: &OfferSession) -> Result<Header, Denied>;

    /// Gives up what processes that are gone left unsigned, and what was never shown and has lapsed.
    async fn lapse(&self) -> Result<usize, Denied>;

    async fn channel(&self, channel: &ChannelId) -> Result<KeptChannel, Denied>;

    async fn channels(&self) -> Result<Vec<KeptChannel>, Denied>;

    /// Takes up a channel that the journal lost, from what the escrow says of it. Returns whether it was one of ours
    /// and new.
    async fn adopt(
        &self,
        intent: &Intent,
        number: u64,
        sight: ChannelSight,
        grace: Duration,
    ) -> Result<bool, Denied>;
}

/// What an intent for a session asks for.
struct Weighed<'a> {
    law: Law,
    offer: &'a OfferSession,
    asset: Asset,
    parties: Parties,
    price: u128,
    /// What the call may cost.
    max: Option<u128>,
    validity: Duration,
    lag: Duration,
}

impl LocalAuthorizer {
    fn session<'a>(&self, intent: &'a Intent, clock: &Clock) -> Result<Weighed<'a>, Denied> {
        let Offer::Session(offer) = &intent.offer else { return Err(SessionDenied::NoSession.into()) };
        let crate::journal::Terms { law, devnet, time, key } = self.journal.terms(&self.payer, clock)?;
        if key.is_some() {
            return Err(SessionDenied::SessionKey.into());
        }
        // Signatures for the chain id of a public testnet are valid there too.
        if (intent.devnet || devnet) && !(self.is_dev_key)(&self.payer) {
            return Err(Denied::NotADevKey(self.payer.clone()));
        }
        let asked = offer.session();
        if asked.amount == 0 {
            return Err(SessionDenied::ZeroPrice.into());
        }
        let unit = asked.unit_price();
        Charge::of(&self.registry, unit.clone())?;
        let asset = self.registry.get(unit.asset()).cloned();
        let asset = asset.filter(|asset| asset.pull == PullMethod::Eip3009).ok_or(SessionDenied::Token)?;
        let max = intent.max.as_deref().map(|text| self.atoms_of(text, &asset)).transpose()?;
        let validity = offer.left().min(law.max_validity());
        if validity <= MIN_REMAINING {
            return Err(SessionDenied::Ended.into());
        }
        let witnesses =
            Witnesses { wall: clock.wall, books: time, chain: intent.chain_time, devnet: intent.devnet };
        let lag = witnesses.agree(validity)?;
        let parties = Parties {
            payer: self.payer.clone(),
            payee: asked.recipient.address().clone(),
            asset: asset.id.clone(),
            escrow: asked.escrow.address().clone(),
        };
        escrows::known(&parties.escrow)
            .ok_or_else(|| SessionDenied::UnknownEscrow(parties.escrow.clone()))?;
        Ok(Weighed { law, offer, asset, parties, price: asked.amount, max, validity, lag })
    }

    /// The question for the policy: may so much be paid, or deposited?
    fn question(&self, intent: &Intent, weighed: &Weighed<'_>, atoms: u128) -> Result<Request, Denied> {
        Ok(Request {
            scheme: SESSION.to_owned(),
            charge: Charge::of(&self.registry, Money::new(weighed.asset.id.clone(), atoms))?,
            price: Some(weighed.price),
            payee: weighed.parties.payee.clone(),
            origin: intent.origin.clone(),
            private: intent.private,
            max: weighed.max,
            only: intent.only.clone(),
            validity: weighed.validity,
            screened: None,
            caller: intent.caller(&self.payer),
        })
    }

    /// What a channel would get: what the caller says; else what the seller suggests, within what the caller may spend,
    /// the rules allow and the wallet has.
    fn deposit(
        &self,
        intent: &Intent,
        weighed: &Weighed<'_>,
        funds: Option<u128>,
        clock: &Clock,
    ) -> Result<u128, Denied> {
        if let Some(text) = &intent.deposit {
            return self.atoms_of(text, &weighed.asset);
        }
        let session = weighed.offer.session();
        let least = weighed.price.max(session.min_voucher_delta);
        let wanted =
            session.suggested_deposit.unwrap_or(weighed.price.saturating_mul(UNITS_OF_A_DEPOSIT)).max(least);
        let room = self.journal.room(&self.atom(intent, weighed)?, true, clock)?;
        let most = [weighed.max, Some(room), funds].into_iter().flatten().min().unwrap_or(0);
        // What is too little to pay anything with is asked for all the same: the rules then say why it is denied.
        Ok(wanted.min(most).max(least))
    }

    /// The question for as little as there is, by which room is measured.
    fn atom(&self, intent: &Intent, weighed: &Weighed<'_>) -> Result<Request, Denied> {
        self.question(intent, weighed, 1)
    }

    /// The salt of a channel, which only this key can foretell and which it finds again without any memory.
    fn salt(&self, parties: &Parties, number: u64) -> Result<[u8; 32], SessionDenied> {
        let secret = self.signer.secret(SALT_CONTEXT).ok_or(SessionDenied::Signer)?;
        let mut input = SALT_CONTEXT.to_vec();
        input.extend_from_slice(secret.as_slice());
        for part in [parties.payee.as_str(), &parties.asset.to_string(), parties.escrow.as_str()] {
            input.extend_from_slice(&(part.len() as u64).to_be_bytes());
            input.extend_from_slice(part.as_bytes());
        }
        input.extend_from_slice(&number.to_be_bytes());
        Ok(keccak256(input).0)
    }

    /// Spec: draft-evm-session-00, "Channel State". Vouchers are signed by the payer's own key.
    fn parts(&self, parties: &Parties, number: u64) -> Result<ChannelParts, SessionDenied> {
        let evm = |address: &Address| to_alloy(address).ok_or(SessionDenied::NotEvm);
        Ok(ChannelParts {
            payer: evm(&parties.payer)?,
            payee: evm(&parties.payee)?,
            token: evm(parties.asset.address())?,
            salt: B256::from(self.salt(parties, number)?),
            authorized_signer: Default::default(),
            escrow: evm(&parties.escrow)?,
            chain_id: parties.asset.network().evm_chain_id().ok_or(SessionDenied::NotEvm)?,
        })
    }

    fn channel_terms(parts: &ChannelParts, parties: &Parties, grace: Duration) -> Terms {
        Terms {
            id: ChannelId(parts.id().0),
            payer: parties.payer.clone(),
            payee: parties.payee.clone(),
            signer: parties.payer.clone(),
            asset: parties.asset.clone(),
            escrow: parties.escrow.clone(),
            grace,
            // Spec: draft-evm-session-00, `settle` and `close`: the amount that the signature covers.
            capture: Capture::Signed,
            instruction: Instruction::new(
                [parts.salt.as_slice(), parts.authorized_signer.as_slice()].concat(),
            ),
        }
    }

    fn budget(
        &self,
        intent: &Intent,
        weighed: &Weighed<'_>,
        deposit: u128,
        clock: &Clock,
    ) -> Result<Budget, Denied> {
        let largest = self.journal.room(&self.atom(intent, weighed)?, false, clock)?;
        // One purchase may always be vouched for, also one from a dearer route of the same seller's.
        let delta = weighed.offer.session().min_voucher_delta;
        let ahead = weighed.price.saturating_mul(UNITS_AHEAD).max(delta).max(largest).min(deposit);
        Ok(Budget {
            // Each deposit is decided about by the rules.
            most_deposit: u128::MAX,
            most_price: Price::each(largest.max(weighed.price), Unit::Request),
            ahead,
            trust: ahead,
            patience: PATIENCE,
            slack: SLACK,
        })
    }

    /// What a voucher is signed for: it can be signed again at any time, and is the same.
    fn voucher(&self, terms: &Terms, cumulative: u128) -> Result<Vec<u8>, Denied> {
        let chain = terms.asset.network().evm_chain_id().ok_or(SessionDenied::NotEvm)?;
        let escrow = to_alloy(&terms.escrow).ok_or(SessionDenied::NotEvm)?;
        let domain = escrow_domain(chain, escrow);
        let voucher = voucher::Voucher { channel: B256::from(terms.id.0), cumulative };
        let signature = self.signer.sign(&ToSign::voucher(&voucher, &domain))?.to_bytes();
        let signer = to_alloy(&terms.signer).ok_or(SessionDenied::NotEvm)?;
        // What leaves here is what the escrow would accept.
        voucher
            .check(&domain, &signature, signer)
            .map_err(|error| Denied::SelfCheck(format!("a voucher: {error}")))?;
        Ok(signature.to_vec())
    }

    /// Signs a transfer that the escrow alone can take, for the purpose that `nonce` names.
    ///
    /// Spec: draft-evm-session-00, "Front-Running Protection".
    fn pull(
        &self,
        asset: &Asset,
        escrow: &Address,
        value: u128,
        nonce: B256,
        expires: Timestamp,
    ) -> Result<Funding, Denied> {
        let named = asset.domain.as_ref().ok_or(SessionDenied::Token)?;
        let chain = asset.id.network().evm_chain_id().ok_or(SessionDenied::NotEvm)?;
        let evm = |address: &Address| to_alloy(address).ok_or(SessionDenied::NotEvm);
        let domain = Domain::new(&named.name, &named.version, chain, evm(asset.id.address())?);
        let transfer = TransferAuthorization {
            from: evm(&self.payer)?,
            to: evm(escrow)?,
            value: U256::from(value),
            valid_after: U256::ZERO,
            valid_before: U256::from(expires.secs()),
            nonce,
        };
        let signature = self.signer.sign(&ToSign::deposit(&transfer, &domain))?.to_bytes().to_vec();
        let authorization = WireAuthorization {
            from: self.payer.clone(),
            to: escrow.clone(),
            value,
            valid_after: Uint256::from(0u128),
            valid_before: Uint256::from(u128::from(expires.secs())),
            nonce: nonce.0,
        };
        Ok(Funding::Authorization { authorization, signature })
    }

    fn quote_now(&self, intent: &Intent, funds: Option<u128>, heard: &Heard) -> Result<Quote, Denied> {
        let clock = (self.clock)();
        let weighed = self.session(intent, &clock)?;
        let open = self.journal.channel_between(&weighed.parties)?;
        // What was vouched and not used pays first; only what is vouched anew goes by the seller's least step.
        let spare = open.as_ref().map_or(0, |open| open.payer.signed().saturating_sub(open.payer.used()));
        let step = weighed.offer.session().min_voucher_delta;
        if let Some(most) = weighed.max.filter(|most| spare < weighed.price && step > *most) {
            return Err(JournalError::OverMax { most }.into());
        }
        // One that is being opened counts already.
        if let Some(open) = open {
            let request = self.spend_question(intent, &weighed, heard, &clock)?;
            let decision = self.journal.preview_spend(&request, &clock)?;
            return Ok(Quote { decision, channel: Some(open.id()), deposit: None });
        }
        if !weighed.offer.takes_authorizations() {
            return Err(SessionDenied::NotRelayed.into());
        }
        let atoms = self.deposit(intent, &weighed, funds, &clock)?;
        let request = self.deposit_question(intent, &weighed, atoms, heard, &clock)?;
        let decision = self.journal.preview(&request, &clock)?;
        let deposit = Some(Money::new(weighed.asset.id.clone(), atoms));
        Ok(Quote { decision, channel: None, deposit })
    }

    /// What is asked of the rules first for a session: its price if there is a channel, else the deposit.
    pub(crate) fn session_question(
        &self,
        intent: &Intent,
        clock: &Clock,
        heard: &Heard,
    ) -> Result<Request, Denied> {
        let weighed = self.session(intent, clock)?;
        if self.journal.channel_between(&weighed.parties)?.is_some() {
            return self.spend_question(intent, &weighed, heard, clock);
        }
        let atoms = self.deposit(intent, &weighed, None, clock)?;
        self.deposit_question(intent, &weighed, atoms, heard, clock)
    }

    /// May a voucher be signed for what is asked for?
    fn spend_question(
        &self,
        intent: &Intent,
        weighed: &Weighed<'_>,
        heard: &Heard,
        clock: &Clock,
    ) -> Result<Request, Denied> {
        let request = self.question(intent, weighed, weighed.price)?;
        self.with_screening(&weighed.law, request, heard, Counts::InDeposit, clock)
    }

    /// Who names a deposit means it also where it is more than this one call may cost.
    fn deposit_question(
        &self,
        intent: &Intent,
        weighed: &Weighed<'_>,
        atoms: u128,
        heard: &Heard,
        clock: &Clock,
    ) -> Result<Request, Denied> {
        let request = self.question(intent, weighed, atoms)?;
        let request = match intent.deposit {
            Some(_) => Request { max: None, ..request },
            None => request,
        };
        self.with_screening(&weighed.law, request, heard, Counts::All, clock)
    }

    fn open_now(
        &self,
        intent: &Intent,
        number: u64,
        facts: EscrowFacts,
        funds: Option<u128>,
        heard: &Heard,
    ) -> Result<Option<Deposit>, Denied> {
        let clock = (self.clock)();
        let weighed = self.session(intent, &clock)?;
        if !weighed.offer.takes_authorizations() {
            return Err(SessionDenied::NotRelayed.into());
        }
        let escrow = weighed.parties.escrow.clone();
        if escrows::known(&escrow) != Some(facts.code_hash) {
            return Err(SessionDenied::EscrowCode(escrow).into());
        }
        if facts.grace < LEAST_GRACE {
            return Err(SessionDenied::Grace(facts.grace).into());
        }
        let deposit = self.deposit(intent, &weighed, funds, &clock)?;
        let request = self.deposit_question(intent, &weighed, deposit, heard, &clock)?;
        let parts = self.parts(&weighed.parties, number)?;
        let terms = Self::channel_terms(&parts, &weighed.parties, facts.grace);
        let attempt = AttemptId::new(clock.wall, self.random()?);
        let now = clock.wall;
        let payer = Payer::open(
            terms.clone(),
            self.budget(intent, &weighed, deposit, &clock)?,
            attempt,
            deposit,
            now,
        )
        .map_err(JournalError::from)?;
        let expires = now.plus(weighed.validity);
        let new = self.new_channel(intent, &weighed, payer, number, expires.plus(weighed.lag))?;
        let decision = match self.journal.begin_channel(&request, &new, &clock)? {
            Begun::New(decision) => decision,
            Begun::Denied(decision) => return Err(Denied::Policy(Box::new(decision))),
            Begun::Exists(_) => return Ok(None),
        };
        // INVARIANT: the intent is on the disk. From here on the deposit counts, whatever happens to this process.
        let signed = (|| -> Result<(), Denied> {
            let open = Open {
                channel_id: terms.id.0,
                funding: self.pull(&weighed.asset, &escrow, deposit, parts.open_nonce(), expires)?,
                // Spec: draft-evm-session-00, "Open Payload": the first voucher is typically for nothing.
                cumulative: 0,
                voucher_signature: self.voucher(&terms, 0)?,
                authorized_signer: None,
                salt: parts.salt.0,
            };
            let header = weighed.offer.header(&SessionPayload::Open(open))?;
            Ok(self.journal.attempt_signed(&attempt, &header, &intent.url, &(self.clock)())?)
        })();
        self.or_give_up(attempt, signed)?;
        Ok(Some(Deposit { channel: terms.id, attempt, decision: Some(decision) }))
    }

    fn new_channel(
        &self,
        intent: &Intent,
        weighed: &Weighed<'_>,
        payer: Payer,
        number: u64,
        expires: Timestamp,
    ) -> Result<NewChannel, Denied> {
        let atom = Charge::of(&self.registry, Money::new(weighed.asset.id.clone(), 1))?;
        Ok(NewChannel {
            payer,
            number,
            expires,
            dollar: atom.dollars().map(|dollars| dollars.0),
            authority: intent.origin.authority(),
            method: intent.method.clone(),
            url: intent.url.clone(),
        })
    }

    /// What nobody saw is given up at once; if even that fails, it lapses.
    fn or_give_up(&self, attempt: AttemptId, done: Result<(), Denied>) -> Result<(), Denied> {
        done.inspect_err(|_| {
            if let Err(error) = self.journal.drop_attempt(&attempt, &(self.clock)()) {
                tracing::warn!(%attempt, %error, "an unsigned deposit stays reserved until it lapses");
            }
        })
    }

    fn top_up_now(
        &self,
        intent: &Intent,
        id: &ChannelId,
        missing: u128,
        heard: &Heard,
    ) -> Result<Deposit, Denied> {
        let clock = (self.clock)();
        let weighed = self.session(intent, &clock)?;
        if !weighed.offer.takes_authorizations() {
            return Err(SessionDenied::NotRelayed.into());
        }
        let kept = self.journal.channel(id)?;
        let terms = kept.payer.terms().clone();
        if let Some(pending) = kept.payer.pending() {
            // One that was shown, or never will be by whoever began it, is shown again.
            return Ok(Deposit { channel: *id, attempt: pending.id, decision: None });
        }
        let amount = self.deposit(intent, &weighed, None, &clock)?.max(missing);
        let request = self.deposit_question(intent, &weighed, amount, heard, &clock)?;
        let attempt = AttemptId::new(clock.wall, self.random()?);
        let expires = clock.wall.plus(weighed.validity);
        let decision = self.journal.begin_top_up(&request, id, attempt, expires.plus(weighed.lag), &clock)?;
        if !decision.is_allowed() {
            return Err(Denied::Policy(Box::new(decision)));
        }
        // INVARIANT: the intent is on the disk, as for an opening.
        let signed = (|| -> Result<(), Denied> {
            let salt: [u8; 32] = self.random()?;
            let from = to_alloy(&self.payer).ok_or(SessionDenied::NotEvm)?;
            let nonce = voucher::top_up_nonce(B256::from(id.0), amount, from, B256::from(salt));
            let top_up = TopUp {
                channel_id: id.0,
                funding: self.pull(&weighed.asset, &terms.escrow, amount, nonce, expires)?,
                additional_deposit: amount,
                salt: Some(salt),
            };
            let header = weighed.offer.header(&SessionPayload::TopUp(top_up))?;
            Ok(self.journal.attempt_signed(&attempt, &header, &intent.url, &(self.clock)())?)
        })();
        self.or_give_up(attempt, signed)?;
        Ok(Deposit { channel: *id, attempt, decision: Some(decision) })
    }

    fn spend_now(&self, intent: &Intent, channel: &ChannelId, heard: &Heard) -> Result<Spent, Denied> {
        let clock = (self.clock)();
        let weighed = self.session(intent, &clock)?;
        let request = self.spend_question(intent, &weighed, heard, &clock)?;
        let id = PurchaseId::new(clock.wall, self.random()?);
        let expires = clock.wall.plus(weighed.validity);
        let draft = Draft {
            id,
            method: intent.method.clone(),
            url: intent.url.clone(),
            request_hash: intent.request_hash,
            payer: self.payer.clone(),
            // An increment is consumed by the purchase that was promised it.
            consumption: ConsumptionKey::new(format!("voucher:{channel}:{id}")),
            expires,
            lag: weighed.lag,
            said: intent.offer.said(),
        };
        let spend = NewSpend {
            channel: *channel,
            price: weighed.price,
            min_delta: weighed.offer.session().min_voucher_delta,
        };
        let (cumulative, decision) = match self.journal.spend(&request, &draft, &spend, &clock)? {
            Raised::To { cumulative, decision: Some(decision) } => (cumulative, decision),
            Raised::To { decision: None, .. } => return Err(Denied::Unavailable),
            Raised::Denied(decision) => return Err(Denied::Policy(Box::new(decision))),
            Raised::NeedsTopUp { missing } => return Ok(Spent::NeedsTopUp { missing }),
        };
        // INVARIANT: the mark is on the disk. A voucher for it, and for no more, may exist from here on.
        let signed = (|| {
            let terms = self.journal.channel(channel)?.payer.terms().clone();
            let header = weighed.offer.header(&self.voucher_payload(&terms, cumulative)?)?;
            Ok::<_, Denied>(self.journal.voucher_signed(&id, &header, &clock)?)
        })();
        if let Err(error) = signed {
            if let Err(error) = self.journal.drop_unsigned(&id, &(self.clock)()) {
                tracing::warn!(%id, %error, "an unsigned purchase stays reserved until it lapses");
            }
            return Err(error);
        }
        Ok(Spent::Ready(Box::new(Authorization {
            id,
            decision,
            money: Money::new(weighed.asset.id.clone(), weighed.price),
            payee: weighed.parties.payee.clone(),
            payer: self.payer.clone(),
            expires,
        })))
    }

    fn voucher_payload(&self, terms: &Terms, cumulative: u128) -> Result<SessionPayload, Denied> {
        let signature = self.voucher(terms, cumulative)?;
        Ok(SessionPayload::Voucher(Voucher { channel_id: terms.id.0, cumulative, signature, deposit: None }))
    }

    fn raise_now(
        &self,
        id: &PurchaseId,
        need: &Need,
        went_on: bool,
        most: Option<&str>,
    ) -> Result<Answered, Denied> {
        let clock = (self.clock)();
        let purchase = self.journal.get(id)?;
        let offer = offer_of(purchase.header.as_ref(), clock.wall).ok_or(SessionDenied::NoSession)?;
        let channel = purchase.channel.ok_or(SessionDenied::NoSession)?;
        let asset = self.registry.get(purchase.money.asset()).ok_or(SessionDenied::Token)?;
        let atom = law::request_of(&purchase, SESSION, Money::new(asset.id.clone(), 1), &self.registry)?;
        let mut largest = self.journal.room(&atom, false, &clock)?;
        // A rule may say of more what it does not say of this much, and nobody asks it again: it stays what it was.
        let now = self.journal.terms(&self.payer, &clock)?;
        if now.law.minds_growth(&self.journal.as_own(&atom), now.time) {
            largest = largest.min(purchase.money.atoms());
        }
        let most = match most {
            Some(text) => self.atoms_of(text, asset)?.min(largest),
            None => largest,
        };
        let step = Step { min_delta: offer.session().min_voucher_delta, most };
        match self.journal.raise(id, need, went_on, step, &clock)? {
            Raised::To { cumulative, .. } => {
                // INVARIANT: the mark is on the disk.
                let terms = self.journal.channel(&channel)?.payer.terms().clone();
                let header = offer.header(&self.voucher_payload(&terms, cumulative)?)?;
                // Whoever shows the purchase again shows what covers it.
                self.journal.reheader(id, &header)?;
                Ok(Answered::Voucher(header))
            }
            Raised::NeedsTopUp { missing } => Ok(Answered::NeedsTopUp { missing }),
            Raised::Denied(decision) => Err(Denied::Policy(Box::new(decision))),
        }
    }

    fn conclude_now(&self, id: &PurchaseId, brought: &Brought) -> Result<KeptChannel, Denied> {
        let clock = (self.clock)();
        let purchase = self.journal.get(id)?;
        let offer = offer_of(purchase.header.as_ref(), clock.wall);
        let by_request = offer.as_ref().is_some_and(OfferSession::is_by_request);
        let got = Got {
            receipt: brought.receipt.as_ref().map(|(receipt, _)| *receipt),
            atoms: (by_request && brought.served && !brought.streamed).then(|| purchase.money.atoms()),
            price: offer.map_or(0, |offer| offer.session().amount),
            is_whole: brought.is_whole,
        };
        let got = (brought.served || got.receipt.is_some()).then_some(got);
        let json = brought.receipt.as_ref().map(|(_, json)| json.as_str());
        Ok(self.journal.conclude_spend(id, &brought.outcome, got.as_ref(), json, &clock)?)
    }

    fn saw_now(&self, id: &ChannelId, sight: ChannelSight) -> Result<KeptChannel, Denied> {
        let clock = (self.clock)();
        let wall = clock.wall;
        Ok(self.journal.step_channel(id, &clock, |kept, now| {
            let terms = kept.payer.terms();
            let view = |found: Option<OnChain>, block| found.map(|found| view_of(terms, &found, block));
            let latest = view(sight.latest, sight.block).transpose()?;
            let deep = view(sight.deep, sight.deep_block).transpose()?;
            // Of money that comes in or goes out by what we signed the newest word is good enough: without it a voucher
            // is worth nothing. That the channel is over has to be deep.
            let last_word = latest.is_some_and(|view| !view.finalized);
            let mut step = kept.payer.step(PayerEvent::Seen { view: latest, deep: last_word }, now)?;
            if let Some(deep) = deep.filter(|view| view.finalized) {
                step = step.and(PayerEvent::Seen { view: Some(deep), deep: true }, now)?;
            }
            // Spec: EIP-3009, both edges of the window are excluded: after `validBefore` it can move nothing. It was not
            // used by a block that is later than that, and deep.
            let lapsed = kept.attempt.as_ref().filter(|attempt| {
                attempt.header.is_some()
                    && sight.deep_time >= attempt.expires.plus(REORG_MARGIN)
                    && wall >= attempt.expires
            });
            if let (Some(lapsed), Some(pending)) = (lapsed, step.next.pending())
                && pending.id == lapsed.id
            {
                let reason = Reason::new("deposit_lapsed", Fault::Payee);
                step = step.and(PayerEvent::Failed { attempt: lapsed.id, reason }, now)?;
            }
            Ok(step)
        })?)
    }

    fn leave_now(&self, id: &ChannelId, offer: &OfferSession) -> Result<Header, Denied> {
        let clock = (self.clock)();
        let kept = self.journal.step_channel(id, &clock, |kept, now| {
            let payer = &kept.payer;
            let step = farthing_channel::PayerStep { expected: payer.version(), next: payer.clone() };
            Ok(match payer.state() {
                PayerState::Open => {
                    step.and(PayerEvent::LeaveDecided, now)?.and(PayerEvent::CloseAsked, now)?
                }
                PayerState::Leaving { asked: None, .. } => step.and(PayerEvent::CloseAsked, now)?,
                PayerState::Leaving { asked: Some(_), .. } | PayerState::Requested { .. } => step,
                state => {
                    return Err(PayerError::DoesNotFit { event: "close_asked", state: state.name() });
                }
            })
        })?;
        let terms = kept.payer.terms();
        let cumulative = kept.payer.closing_amount();
        let signature = self.voucher(terms, cumulative)?;
        let close = SessionPayload::Close { channel_id: terms.id.0, cumulative, signature };
        Ok(offer.header(&close)?)
    }

    fn adopt_now(
        &self,
        intent: &Intent,
        number: u64,
        sight: ChannelSight,
        grace: Duration,
    ) -> Result<bool, Denied> {
        let clock = (self.clock)();
        let weighed = self.session(intent, &clock)?;
        let Some(found) = sight.latest else { return Ok(false) };
        let parts = self.parts(&weighed.parties, number)?;
        let terms = Self::channel_terms(&parts, &weighed.parties, grace);
        let view = view_of(&terms, &found, sight.block).map_err(JournalError::from)?;
        let budget = self.budget(intent, &weighed, found.deposit, &clock)?;
        let payer = Payer::recover(terms, budget, &view, None, None, clock.wall);
        let payer = payer.map_err(JournalError::from)?;
        let new = self.new_channel(intent, &weighed, payer, number, clock.wall)?;
        Ok(self.journal.adopt_channel(&new, &clock)?)
    }
}

/// What the escrow says, if it can be true.
fn view_of(terms: &Terms, found: &OnChain, block: u64) -> Result<View, PayerError> {
    channel_view(terms, found, block).ok_or(PayerError::Unsound)
}

/// The offer that a session's header answers.
pub(crate) fn offer_of(header: Option<&Header>, now: Timestamp) -> Option<OfferSession> {
    let credential = farthing_wire::mpp::Credential::parse(header?.value.as_bytes()).ok()?;
    OfferSession::read(credential.challenge, now).ok()
}

#[async_trait]
impl Purse for LocalAuthorizer {
    async fn quote(&self, intent: &Intent, funds: Option<u128>) -> Result<Quote, Denied> {
        let intent = intent.clone();
        self.screened(For::Sight, move |this, heard| this.quote_now(&intent, funds, heard)).await
    }

    async fn usable(&self, intent: &Intent) -> Result<Option<KeptChannel>, Denied> {
        let intent = intent.clone();
        self.on_disk(move |this| {
            let weighed = this.session(&intent, &(this.clock)())?;
            Ok(this.journal.channel_between(&weighed.parties)?)
        })
        .await
    }

    async fn candidate(&self, intent: &Intent, from: u64) -> Result<(u64, ChannelId), Denied> {
        let intent = intent.clone();
        self.on_disk(move |this| {
            let weighed = this.session(&intent, &(this.clock)())?;
            let number = this.journal.next_channel_number(&weighed.parties)?.max(from);
            Ok((number, ChannelId(this.parts(&weighed.parties, number)?.id().0)))
        })
        .await
    }

    async fn open(
        &self,
        intent: &Intent,
        number: u64,
        escrow: EscrowFacts,
        funds: Option<u128>,
    ) -> Result<Option<Deposit>, Denied> {
        let intent = intent.clone();
        self.screened(For::Payment, move |this, heard| {
            this.noting(&intent, this.open_now(&intent, number, escrow, funds, heard))
        })
        .await
    }

    async fn top_up(&self, intent: &Intent, channel: &ChannelId, missing: u128) -> Result<Deposit, Denied> {
        let (intent, channel) = (intent.clone(), *channel);
        self.screened(For::Payment, move |this, heard| {
            this.noting(&intent, this.top_up_now(&intent, &channel, missing, heard))
        })
        .await
    }

    async fn show_deposit(&self, attempt: &AttemptId) -> Result<Header, Denied> {
        let attempt = *attempt;
        self.on_disk(move |this| Ok(this.journal.attempt_shown(&attempt, &(this.clock)())?)).await
    }

    async fn spend(&self, intent: &Intent, channel: &ChannelId) -> Result<Spent, Denied> {
        let (intent, channel) = (intent.clone(), *channel);
        self.screened(For::Payment, move |this, heard| {
            this.noting(&intent, this.spend_now(&intent, &channel, heard))
        })
        .await
    }

    async fn raise(
        &self,
        id: &PurchaseId,
        need: &Need,
        went_on: bool,
        most: Option<&str>,
    ) -> Result<Answered, Denied> {
        let (id, need, most) = (*id, *need, most.map(str::to_owned));
        self.on_disk(move |this| this.raise_now(&id, &need, went_on, most.as_deref())).await
    }

    async fn conclude(&self, id: &PurchaseId, brought: Brought) -> Result<KeptChannel, Denied> {
        let id = *id;
        self.on_disk(move |this| this.conclude_now(&id, &brought)).await
    }

    async fn saw(&self, channel: &ChannelId, sight: ChannelSight) -> Result<KeptChannel, Denied> {
        let channel = *channel;
        self.on_disk(move |this| this.saw_now(&channel, sight)).await
    }

    async fn told(&self, channel: &ChannelId, receipt: Receipt, json: &str) -> Result<KeptChannel, Denied> {
        let (channel, json) = (*channel, json.to_owned());
        self.on_disk(move |this| Ok(this.journal.told(&channel, receipt, &json, &(this.clock)())?)).await
    }

    async fn leave(&self, channel: &ChannelId, offer: &OfferSession) -> Result<Header, Denied> {
        let (channel, offer) = (*channel, offer.clone());
        self.on_disk(move |this| this.leave_now(&channel, &offer)).await
    }

    async fn lapse(&self) -> Result<usize, Denied> {
        self.on_disk(|this| Ok(this.journal.lapse_attempts(&(this.clock)())?)).await
    }

    async fn channel(&self, channel: &ChannelId) -> Result<KeptChannel, Denied> {
        let channel = *channel;
        self.on_disk(move |this| Ok(this.journal.channel(&channel)?)).await
    }

    async fn channels(&self) -> Result<Vec<KeptChannel>, Denied> {
        self.on_disk(|this| Ok(this.journal.channels()?)).await
    }

    async fn adopt(
        &self,
        intent: &Intent,
        number: u64,
        sight: ChannelSight,
        grace: Duration,
    ) -> Result<bool, Denied> {
        let intent = intent.clone();
        self.on_disk(move |this| this.adopt_now(&intent, number, sight, grace)).await
    }
}
