//! The one door between a program that wants to pay and a key that can.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_approval::{ApprovalId, GrantAsk, Status, Uses};
use farthing_engine::World;
use farthing_evm::{Key, U256};
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{AgentName, Caller, Charge, ChargeError, Clock, Decision, Origin, Request, Steady};
use farthing_primitives::{
    Address, Asset, Money, Network, PullMethod, PurchaseId, Registry, RequestHash, Timestamp,
};
use farthing_rails::exact_evm::buy::{self, BuyError, Nonce};
use farthing_rails::exact_evm::{self, MIN_REMAINING, Requirement, Tokens};
use farthing_rails::x402::OfferError;
use tokio::sync::Semaphore;

use crate::clock::{ClockFault, Witnesses};
use crate::journal::approvals::{ApprovalError, KeptApproval};
use crate::journal::session_keys::{SessionKeyFault, Standing};
use crate::journal::{AT_ONE_COMMIT, Draft, Header, Journal, JournalError, Outcome, Proof, Purchase, Terms};
use crate::mentions::Mentions;
use crate::offer::{EchoError, Offer};
use crate::purse::{Purse, SessionDenied, channel_code};
use crate::screen::{Ask, Counts, Desk, For, Heard};
use crate::signer::{SignError, Signer, ToSign};
use crate::system_clock;
use crate::unshown::Unshown;

/// A payment that a program wants to make. It says what it would buy and where, never what to sign.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    pub offer: Offer,
    /// Who is really asked, after all redirects.
    pub origin: Origin,
    /// The connection goes to an address of this machine or its network.
    pub private: bool,
    pub method: String,
    pub url: String,
    pub request_hash: RequestHash,
    /// The SHA-256 of the request's body, where it is known: what people approve is bound to it.
    pub body: Option<[u8; 32]>,
    /// The tool on whose behalf it is paid, by the name that its server gives it.
    pub tool: Option<String>,
    /// The most that this call may cost, in whole units of whatever asset is asked for, e.g. `0.02`.
    pub max: Option<String>,
    /// This call may be paid on this network only.
    pub only: Option<Network>,
    /// The chain says that it is one for development.
    pub devnet: bool,
    /// When the chain's latest block was made, if a chain can be asked.
    pub chain_time: Option<Timestamp>,
    /// The token's next EIP-2612 nonce, if Permit2 needs an allowance first.
    pub permit_nonce: Option<U256>,
    /// What a channel that is opened for this call gets as its deposit, as [`Intent::max`] is written; otherwise what
    /// the seller suggests, within `max` and the rules.
    pub deposit: Option<String>,
}

impl Intent {
    /// Who asks for what, as the rules know it. Whose wallet it is, is not for the intent to say.
    pub(crate) fn caller(&self, payer: &Address) -> Caller {
        let path = url::Url::parse(&self.url).map_or_else(|_| String::new(), |url| url.path().to_owned());
        Caller {
            agent: None,
            payer: Some(payer.clone()),
            tool: self.tool.clone(),
            method: self.method.clone(),
            url: self.url.clone(),
            path,
            body: self.body,
        }
    }
}

/// Leave to show one signed payment, as often as it takes. The payment itself comes from [`Authorizer::present`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    pub id: PurchaseId,
    pub decision: Decision,
    pub money: Money,
    pub payee: Address,
    pub payer: Address,
    /// From when on it can move no money.
    pub expires: Timestamp,
}

/// What came of asking people whether a payment may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub id: ApprovalId,
    pub status: Status,
    /// How many people have to say yes.
    pub quorum: u32,
    pub expires: Timestamp,
    /// The payment that it is for was made.
    pub used: bool,
    /// What exactly they are asked.
    pub text: String,
    /// What is left of a grant; `None` if it is for one payment.
    pub left: Option<Uses>,
}

impl From<KeptApproval> for Ticket {
    fn from(kept: KeptApproval) -> Self {
        let left = kept.left();
        let KeptApproval { id, request, quorum, used, status, .. } = kept;
        Self { id, status, quorum, expires: request.expires(), used, text: request.text(), left }
    }
}

/// Why nothing was signed, or is shown.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    #[error("{0}")]
    Policy(Box<Decision>),
    #[error("the offer cannot be taken: {0}")]
    Offer(#[from] OfferError),
    #[error("the offer cannot be taken: {0}")]
    Charge(#[from] ChargeError),
    #[error("the maximum {0:?} is not an amount of the asset that is asked for")]
    Max(String),
    #[error(transparent)]
    Clock(#[from] ClockFault),
    #[error("there is nothing to sign: {0}")]
    Buy(#[from] BuyError),
    #[error("the payment cannot be written: {0}")]
    Echo(#[from] EchoError),
    #[error("on a chain for development only the built-in development keys sign, and {0} is none of them")]
    NotADevKey(Address),
    #[error("nothing was signed: {0}")]
    Sign(#[from] SignError),
    #[error("what was signed does not pass our own checks: {0}")]
    SelfCheck(String),
    #[error(transparent)]
    Session(#[from] SessionDenied),
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// What a policy names as its screener has to be asked first, which the authorizer does. Were it to be seen, it denies.
    #[error("the policy's screener was not asked")]
    Unscreened(Box<Ask>),
    #[error("this authorizer asks nobody")]
    NoPeople,
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("the authorizer cannot be asked")]
    Unavailable,
    /// Said by an authorizer in another process, whose codes are the same and some of its own.
    #[error("{text}")]
    Told { code: String, text: String },
}

impl Denied {
    /// A stable name for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Told { code, .. } => code,
            Self::Policy(decision) => decision.denials().next().map_or("denied", |fact| fact.code()),
            Self::Offer(_) => "offer_unsupported",
            Self::Charge(ChargeError::UnknownAsset(_)) => "asset_unknown",
            Self::Charge(ChargeError::TooLarge(_)) => "amount_too_large",
            Self::Max(_) => "max_not_an_amount",
            Self::Clock(fault) => fault.code(),
            Self::Buy(_) => "offer_unpayable",
            Self::Echo(_) => "offer_unanswerable",
            Self::NotADevKey(_) => "not_a_development_key",
            Self::Sign(error) => error.code(),
            Self::SelfCheck(_) => "self_check_failed",
            Self::Session(denied) => denied.code(),
            Self::Approval(error) => error.code(),
            Self::Unscreened(_) => "screen_not_asked",
            Self::NoPeople => "approval_unavailable",
            Self::Journal(JournalError::Channel(error)) => channel_code(error),
            Self::Journal(JournalError::OverMax { .. }) => "over_max",
            Self::Journal(JournalError::Frozen) => "frozen",
            Self::Journal(JournalError::Revoked(_)) => "token_revoked",
            Self::Journal(JournalError::SessionKey(fault)) => fault.code(),
            Self::Journal(_) | Self::Unavailable => "authorizer_unavailable",
        }
    }
}

/// What an intent asks for, and by how much the chain's clock may be behind ours.
struct Weighed {
    requirement: Requirement,
    request: Request,
    lag: Duration,
}

/// Decides, reserves, writes down and signs. It may live in another process than the program that wants to pay.
#[async_trait]
pub trait Authorizer: Mentions + Send + Sync {
    /// Whose money is spent.
    fn payer(&self) -> &Address;

    /// The tokens by which offers are read.
    fn registry(&self) -> &Registry;

    /// What [`Authorizer::authorize`] would decide. Signs and reserves nothing.
    async fn preview(&self, intent: &Intent) -> Result<Decision, Denied>;

    /// Evaluates the policy, reserves the amount and writes the intent down, durably; then signs. Nobody has what was
    /// signed before [`Authorizer::present`], and if this process ends before that, nobody ever will.
    async fn authorize(&self, intent: Intent) -> Result<Authorization, Denied>;

    /// Asks people whether this may be paid, if they are all that stands in the way. Whoever asks for the same again gets
    /// the same ticket; once they agree, the same intent is allowed, once.
    async fn ask_people(&self, intent: &Intent) -> Result<Ticket, Denied> {
        let _ = intent;
        Err(Denied::NoPeople)
    }

    /// Asks people for a grant that this would be the first use of, if they are all that stands in the way of it. To ask is
    /// all that a machine can do: what comes of it is for people to say.
    async fn ask_for_grant(&self, intent: &Intent, ask: &GrantAsk) -> Result<Ticket, Denied> {
        let _ = (intent, ask);
        Err(Denied::NoPeople)
    }

    /// How far people are with a request.
    async fn ticket(&self, id: &ApprovalId) -> Result<Ticket, Denied> {
        let _ = id;
        Err(Denied::NoPeople)
    }

    /// Writes down the payment and that it is about to be shown, durably; then gives it out.
    async fn present(&self, id: &PurchaseId) -> Result<Header, Denied>;

    /// Writes down what became of it.
    async fn conclude(&self, id: &PurchaseId, outcome: Outcome) -> Result<(), Denied>;

    /// Frees the reservation, on proof that no money moved nor can.
    async fn release(&self, id: &PurchaseId, proof: Proof) -> Result<(), Denied>;

    /// Writes down that the answer of a purchase is where whoever paid wanted it.
    async fn received(&self, id: &PurchaseId) -> Result<(), Denied>;

    /// Writes down that the chain's word for a settlement is final.
    async fn finalize(&self, id: &PurchaseId) -> Result<(), Denied>;

    async fn purchase(&self, id: &PurchaseId) -> Result<Purchase, Denied>;

    /// Gives up what processes that are gone left unsigned, and what was never shown and has lapsed. Returns how many
    /// that were.
    async fn recover(&self) -> Result<usize, Denied>;

    /// Purchases that are not proven for good to have moved their money or not, oldest first.
    async fn open(&self) -> Result<Vec<Purchase>, Denied>;

    /// Purchases that brought nothing yet, whose goods may still come, and whose process is gone, oldest first; of one
    /// request or of all. See [`Journal::abandoned`].
    async fn abandoned(&self, request: Option<&RequestHash>) -> Result<Vec<Purchase>, Denied>;

    /// Who keeps this wallet's channels; `None` if it has none.
    fn purse(&self) -> Option<&dyn Purse> {
        None
    }

    /// Whether the owner lets this machine's own network be reached at `origin`.
    async fn may_reach_private(&self, origin: &Origin) -> Result<bool, Denied>;
}

/// How many threads want the journal's disk at a time: two full commits, one that is written and one that gathers. More of
/// them would only wake each other.
const AT_THE_DISK: usize = 2 * AT_ONE_COMMIT;

/// In place of a header's name, for payments that another program makes.
const COUNTED: &str = "counted";

/// Tells whether an address is that of a built-in development key.
pub type IsDevKey = fn(&Address) -> bool;

/// An authorizer in this process, over a key and a journal.
///
/// It goes by the system's clocks, takes nonces from the operating system, and waits for the journal's disk beside the
/// tasks of a tokio runtime, all of which [`LocalAuthorizer::in_world`] replaces at once.
#[derive(Clone)]
pub struct LocalAuthorizer {
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) payer: Address,
    pub(crate) journal: Arc<Journal>,
    pub(crate) registry: Arc<Registry>,
    tokens: Arc<Tokens>,
    pub(crate) is_dev_key: IsDevKey,
    pub(crate) clock: Arc<dyn Fn() -> Clock + Send + Sync>,
    /// Of all that share the key.
    unshown: Arc<Unshown>,
    pub(crate) desk: Arc<Desk>,
    /// Whoever wants the journal's disk, in the order in which they came.
    places: Arc<Semaphore>,
    /// `None` is the real one.
    world: Option<Arc<dyn World>>,
}

impl fmt::Debug for LocalAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalAuthorizer of {}", self.payer)
    }
}

impl LocalAuthorizer {
    /// An authorizer over a key in this process, which it takes for no development key.
    pub fn new(key: Key, journal: Arc<Journal>, registry: Registry) -> Self {
        Self::by(Arc::new(key), journal, registry)
    }

    /// The same over a key wherever it is.
    pub fn by(signer: Arc<dyn Signer>, journal: Arc<Journal>, registry: Registry) -> Self {
        Self {
            payer: signer.address(),
            signer,
            journal,
            tokens: Arc::new(Tokens::new(&registry)),
            registry: Arc::new(registry),
            is_dev_key: |_| false,
            clock: Arc::new(system_clock),
            unshown: Arc::default(),
            desk: Arc::default(),
            places: Arc::new(Semaphore::new(AT_THE_DISK)),
            world: None,
        }
    }

    /// The same over another key: its own limits are none, those of the wallet hold for all of its keys.
    #[must_use]
    pub fn with_signer(&self, signer: Arc<dyn Signer>) -> Self {
        Self { payer: signer.address(), signer, ..self.clone() }
    }

    /// Names the keys that may sign on a chain for development.
    #[must_use]
    pub fn with_dev_keys(mut self, is_dev_key: IsDevKey) -> Self {
        self.is_dev_key = is_dev_key;
        self
    }

    #[must_use]
    pub fn with_clock(mut self, clock: impl Fn() -> Clock + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Lives in a simulated world: time and chance are the world's, and calls to the journal are done at once, where
    /// they are made, so that no runtime is needed and one seed replays exactly.
    ///
    /// The world's monotonic time counts as the steady clock of one boot, so it has to go on where a process is
    /// started again. Whoever can foretell the world's randomness can foretell nonces and ids.
    #[must_use]
    pub fn in_world(mut self, world: Arc<dyn World>) -> Self {
        let clock = world.clone();
        self.world = Some(world);
        self.with_clock(move || Clock {
            wall: clock.now(),
            steady: Some(Steady { boot: "world".to_owned(), elapsed: clock.monotonic() }),
        })
    }

    /// The same key for one agent: what is bought through it is that agent's, and it sees nothing else.
    #[must_use]
    pub fn for_agent(&self, agent: AgentName) -> Self {
        self.over(Arc::new(self.journal.for_agent(agent, None)))
    }

    /// The same key over another view of its journal.
    #[must_use]
    pub fn over(&self, journal: Arc<Journal>) -> Self {
        Self { journal, ..self.clone() }
    }

    pub(crate) fn is_simulated(&self) -> bool {
        self.world.is_some()
    }

    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// Everything that is checked before the policy, and the question for it.
    fn weigh(&self, intent: &Intent, clock: &Clock, heard: &Heard) -> Result<Weighed, Denied> {
        let Terms { law, devnet, time, key } = self.journal.terms(&self.payer, clock)?;
        // Signatures for the chain id of a public testnet are valid there too.
        if (intent.devnet || devnet) && !(self.is_dev_key)(&self.payer) {
            return Err(Denied::NotADevKey(self.payer.clone()));
        }
        let charge = Charge::of(&self.registry, intent.offer.money())?;
        let requirement = intent.offer.requirement(&self.tokens)?;
        let asset = requirement.token().asset();
        let max = intent.max.as_deref().map(|text| self.atoms_of(text, asset)).transpose()?;
        // The seller's word can shorten the life of a payment, never lengthen it.
        let validity = intent.offer.max_timeout().min(law.max_validity());
        // Nor does a payment outlive its key.
        let validity = match key {
            // It signs for so short a while that nobody could settle what it signs now.
            Some(Standing { key, left }) if left <= MIN_REMAINING => {
                return Err(JournalError::from(SessionKeyFault::Ended { name: key.terms.name }).into());
            }
            Some(Standing { left, .. }) => validity.min(left),
            None => validity,
        };
        let witnesses =
            Witnesses { wall: clock.wall, books: time, chain: intent.chain_time, devnet: intent.devnet };
        let lag = witnesses.agree(validity)?;
        let request = Request {
            scheme: intent.offer.scheme().to_owned(),
            charge,
            price: None,
            payee: requirement.pay_to(),
            origin: intent.origin.clone(),
            private: intent.private,
            max,
            only: intent.only.clone(),
            validity,
            screened: None,
            caller: intent.caller(&self.payer),
        };
        let request = self.with_screening(&law, request, heard, Counts::All, clock)?;
        Ok(Weighed { requirement, request, lag })
    }

    /// Reads an amount that a caller gave, in whole units of whatever asset it is about.
    pub(crate) fn atoms_of(&self, text: &str, asset: &Asset) -> Result<u128, Denied> {
        let digits = text.strip_prefix('$').unwrap_or(text);
        // Dollars are dollars: "$1" is no limit for what costs euros.
        if digits.len() != text.len() && !self.registry.is_dollar(&asset.id) {
            return Err(Denied::Max(text.to_owned()));
        }
        let money = asset.parse(digits).map_err(|_| Denied::Max(text.to_owned()))?;
        Ok(money.atoms())
    }

    fn authorize_now(&self, intent: &Intent, heard: &Heard) -> Result<Authorization, Denied> {
        let clock = (self.clock)();
        let Weighed { requirement, request, lag } = self.weigh(intent, &clock, heard)?;
        let nonce = intent.offer.nonce(Nonce(self.random()?));
        let id = PurchaseId::new(clock.wall, self.random()?);
        let unsigned = match buy::authorize(&requirement, &self.payer, nonce, request.validity, clock.wall) {
            Ok(unsigned) => unsigned,
            // A wallet that permits hardly any validity denies by its policy, which says so.
            Err(error) => {
                let decision = self.journal.preview(&request, &clock)?;
                return Err(if decision.is_allowed() {
                    error.into()
                } else {
                    Denied::Policy(Box::new(decision))
                });
            }
        };
        let draft = Draft {
            id,
            method: intent.method.clone(),
            url: intent.url.clone(),
            request_hash: intent.request_hash,
            payer: self.payer.clone(),
            consumption: unsigned.key().clone(),
            expires: unsigned.expires(),
            lag,
            said: intent.offer.said(),
        };
        let decision = self.journal.reserve(&request, &draft, &clock)?.decision;
        if !decision.is_allowed() {
            return Err(Denied::Policy(Box::new(decision)));
        }
        // INVARIANT: the intent is on the disk. From here on the amount counts, whatever happens to this process.
        let kept = self.sign(intent, &requirement, &unsigned, &clock, &id).and_then(|signed| {
            // It is shown from memory, so that the disk is waited for once before a signature and once after it.
            match self.unshown.keep(id, signed, unsigned.expires(), clock.wall) {
                Ok(()) => Ok(()),
                Err((header, instruction)) => {
                    Ok(self.journal.signed(&id, &header, &instruction, &(self.clock)())?)
                }
            }
        });
        if let Err(error) = kept {
            self.give_up(&id);
            return Err(error);
        }
        Ok(Authorization {
            id,
            decision,
            money: unsigned.money().clone(),
            payee: request.payee,
            payer: self.payer.clone(),
            expires: unsigned.expires(),
        })
    }

    fn sign(
        &self,
        intent: &Intent,
        requirement: &Requirement,
        unsigned: &buy::Unsigned,
        clock: &Clock,
        id: &PurchaseId,
    ) -> Result<(Header, Instruction), Denied> {
        let approval = match intent.permit_nonce {
            Some(nonce)
                if requirement.method() == PullMethod::Permit2 && intent.offer.sponsors_approval() =>
            {
                let approval = buy::approve(requirement, unsigned, nonce)?;
                Some(approval.signed(&self.signer.sign(&ToSign::allowance(&approval))?))
            }
            _ => None,
        };
        let presented = unsigned.signed(&self.signer.sign(&ToSign::payment(unsigned))?, approval);
        // What leaves here is what a facilitator would accept; and the check leaves behind what the chain is asked by.
        let checked = exact_evm::check(requirement, &presented, clock.wall, &exact_evm::Policy::default())
            .map_err(|refusal| Denied::SelfCheck(format!("{refusal:?}")))?;
        let header = intent.offer.header(&presented, &id.to_string())?;
        Ok((header, checked.instruction()))
    }

    pub(crate) fn random<const N: usize>(&self) -> Result<[u8; N], Denied> {
        let mut bytes = [0; N];
        match &self.world {
            None => getrandom::fill(&mut bytes).map_err(|_| Denied::Unavailable)?,
            Some(world) => world.random(&mut bytes),
        }
        Ok(bytes)
    }

    /// Runs a call to the journal, which waits for a disk, beside the tasks that wait for sockets. Once begun it ends,
    /// also when nobody waits for it any more.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, Denied> + Send + 'static,
    ) -> Result<T, Denied> {
        if self.world.is_some() {
            return work(self);
        }
        let place = self.places.clone().acquire_owned().await.map_err(|_| Denied::Unavailable)?;
        let this = self.clone();
        let work = move || {
            let done = work(&this);
            drop(place);
            done
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Denied::Unavailable))
    }

    /// Counts a payment that another program makes: decides and, if it is allowed, writes it down as one that was shown.
    /// Nothing is signed.
    pub(crate) async fn count(&self, intent: &Intent) -> Result<Decision, Denied> {
        let intent = intent.clone();
        self.screened(For::Payment, move |this, heard| {
            let clock = (this.clock)();
            let Weighed { request, lag, .. } = this.weigh(&intent, &clock, heard)?;
            let id = PurchaseId::new(clock.wall, this.random()?);
            let draft = Draft {
                id,
                method: intent.method.clone(),
                url: intent.url.clone(),
                request_hash: intent.request_hash,
                payer: this.payer.clone(),
                consumption: ConsumptionKey::new(format!("counted:{id}")),
                expires: clock.wall.plus(request.validity),
                lag,
                said: intent.offer.said(),
            };
            let decision = this.journal.reserve(&request, &draft, &clock)?.decision;
            if decision.is_allowed() {
                // What was shown never lapses: it may have been paid.
                let nothing = Header { name: COUNTED.to_owned(), value: String::new() };
                this.journal.present_signed(&id, &nothing, &Instruction::new(Vec::new()), &clock)?;
            }
            Ok(decision)
        })
        .await
    }

    /// What nobody saw is given up at once; if even that fails, it lapses.
    fn give_up(&self, id: &PurchaseId) {
        if let Err(error) = self.journal.drop_unsigned(id, &(self.clock)()) {
            tracing::warn!(%id, %error, "an unsigned purchase stays reserved until it lapses");
        }
    }
}

#[async_trait]
impl Authorizer for LocalAuthorizer {
    fn payer(&self) -> &Address {
        &self.payer
    }

    fn purse(&self) -> Option<&dyn Purse> {
        Some(self)
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    async fn preview(&self, intent: &Intent) -> Result<Decision, Denied> {
        let intent = intent.clone();
        self.screened(For::Sight, move |this, heard| {
            let clock = (this.clock)();
            let request = this.weigh(&intent, &clock, heard)?.request;
            Ok(this.journal.preview(&request, &clock)?)
        })
        .await
    }

    async fn authorize(&self, intent: Intent) -> Result<Authorization, Denied> {
        self.screened(For::Payment, move |this, heard| {
            this.noting(&intent, this.authorize_now(&intent, heard))
        })
        .await
    }

    async fn ask_people(&self, intent: &Intent) -> Result<Ticket, Denied> {
        let intent = intent.clone();
        self.screened(For::Sight, move |this, heard| {
            let clock = (this.clock)();
            let request = match &intent.offer {
                Offer::Session(_) => this.session_question(&intent, &clock, heard)?,
                _ => this.weigh(&intent, &clock, heard)?.request,
            };
            Ok(this.journal.ask_people(&request, &clock)?.into())
        })
        .await
    }

    async fn ask_for_grant(&self, intent: &Intent, ask: &GrantAsk) -> Result<Ticket, Denied> {
        let (intent, ask) = (intent.clone(), ask.clone());
        self.screened(For::Sight, move |this, heard| {
            let clock = (this.clock)();
            if matches!(intent.offer, Offer::Session(_)) {
                return Err(ApprovalError::NoGrantForChannels.into());
            }
            let request = this.weigh(&intent, &clock, heard)?.request;
            // By our own registry's decimals, never a seller's.
            let money = request.charge.money();
            let asset = this.registry.get(money.asset());
            let asset = asset.ok_or_else(|| ChargeError::UnknownAsset(money.asset().clone()))?;
            let terms = ask.terms(asset).map_err(ApprovalError::from)?;
            Ok(this.journal.ask_for_grant(&request, &terms, &clock)?.into())
        })
        .await
    }

    async fn ticket(&self, id: &ApprovalId) -> Result<Ticket, Denied> {
        let id = *id;
        self.on_disk(move |this| Ok(this.journal.approval(&id, &(this.clock)())?.into())).await
    }

    async fn present(&self, id: &PurchaseId) -> Result<Header, Denied> {
        let id = *id;
        self.on_disk(move |this| {
            let clock = (this.clock)();
            let Some((header, instruction)) = this.unshown.get(&id) else {
                return Ok(this.journal.present(&id, &clock)?);
            };
            let header = this.journal.present_signed(&id, &header, &instruction, &clock)?;
            this.unshown.forget(&id);
            Ok(header)
        })
        .await
    }

    async fn conclude(&self, id: &PurchaseId, outcome: Outcome) -> Result<(), Denied> {
        let id = *id;
        self.on_disk(move |this| Ok(this.journal.conclude(&id, &outcome, &(this.clock)())?)).await
    }

    async fn release(&self, id: &PurchaseId, proof: Proof) -> Result<(), Denied> {
        let id = *id;
        self.on_disk(move |this| {
            this.journal.release(&id, proof, &(this.clock)())?;
            this.unshown.forget(&id);
            Ok(())
        })
        .await
    }

    async fn received(&self, id: &PurchaseId) -> Result<(), Denied> {
        let id = *id;
        self.on_disk(move |this| Ok(this.journal.received(&id)?)).await
    }

    async fn finalize(&self, id: &PurchaseId) -> Result<(), Denied> {
        let id = *id;
        self.on_disk(move |this| Ok(this.journal.finalize(&id)?)).await
    }

    async fn purchase(&self, id: &PurchaseId) -> Result<Purchase, Denied> {
        let id = *id;
        self.on_disk(move |this| Ok(this.journal.get(&id)?)).await
    }

    async fn recover(&self) -> Result<usize, Denied> {
        self.on_disk(|this| Ok(this.journal.recover(&(this.clock)())?)).await
    }

    async fn open(&self) -> Result<Vec<Purchase>, Denied> {
        self.on_disk(|this| Ok(this.journal.open_purchases()?)).await
    }

    async fn abandoned(&self, request: Option<&RequestHash>) -> Result<Vec<Purchase>, Denied> {
        let request = request.copied();
        self.on_disk(move |this| Ok(this.journal.abandoned(request.as_ref(), &(this.clock)())?)).await
    }

    async fn may_reach_private(&self, origin: &Origin) -> Result<bool, Denied> {
        let origin = origin.clone();
        self.on_disk(move |this| Ok(this.journal.law()?.may_reach_private(&origin))).await
    }
}
