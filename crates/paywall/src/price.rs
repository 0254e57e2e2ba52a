//! What a route costs: fixed by its owner, or quoted for each request by a hook.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::ExposureLimit;
use farthing_payment::Flow;
use farthing_primitives::{Address, AmountError, Asset, Money, PullMethod, Registry};
use farthing_rails::exact_evm::{Policy, Requirement, RequirementError, Token};
use farthing_rails::method::MethodOffer;
use farthing_wire::mpp::evm::CredentialType;
use http::{HeaderMap, HeaderName, Method};

use crate::session::Session;

/// The most ways to pay for one route. Each makes the challenge about 300 bytes longer, and intermediaries cut
/// headers at 8 KiB or less.
pub const MAX_WAYS: usize = 16;

/// One way to pay: a token, to a payee, pulled by one method. Everything but the amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    token: Arc<Token>,
    pay_to: Address,
    pull: PullMethod,
    dollar: bool,
    sponsored: bool,
}

/// A way to pay, and how much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub way: Arc<Way>,
    pub atoms: u128,
    /// Where a quote names another payee than the way's own.
    pub pay_to: Address,
}

/// Why a price cannot be asked in a way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    #[error("{0} does not stand for dollars: price it in atoms")]
    NotDollars(String),
    #[error(transparent)]
    Amount(#[from] AmountError),
    #[error(transparent)]
    Requirement(#[from] RequirementError),
}

impl Way {
    /// A way to be paid in `asset`. `registry` says whether that stands for dollars.
    ///
    /// # Errors
    /// [`RequirementError`] where the token or the payee is not of an EVM chain, or the token cannot be pulled so.
    pub fn new(
        registry: &Registry,
        asset: &Asset,
        pay_to: Address,
        pull: PullMethod,
    ) -> Result<Self, RequirementError> {
        let token = Arc::new(Token::new(asset)?);
        // Any price shows whether this way can be asked for at all.
        let any = Money::new(asset.id.clone(), 1);
        Requirement::new(token.clone(), &any, &pay_to, pull, Duration::from_secs(1))?;
        Ok(Self { dollar: registry.is_dollar(&asset.id), token, pay_to, pull, sponsored: false })
    }

    /// Announces that an EIP-2612 approval may come with the payment, for our relayer to submit.
    ///
    /// Spec: x402 extension `eip2612GasSponsoring`.
    #[must_use]
    pub fn with_sponsored_approval(mut self, sponsored: bool) -> Self {
        self.sponsored = sponsored && self.pull == PullMethod::Permit2 && self.asset().domain.is_some();
        self
    }

    pub fn asset(&self) -> &Asset {
        self.token.asset()
    }

    pub fn token(&self) -> &Arc<Token> {
        &self.token
    }

    pub fn pay_to(&self) -> &Address {
        &self.pay_to
    }

    pub fn pull(&self) -> PullMethod {
        self.pull
    }

    pub fn sponsors_approval(&self) -> bool {
        self.sponsored
    }

    /// This amount, in this way.
    pub fn offer(self: &Arc<Self>, amount: &Amount) -> Result<Offer, PriceError> {
        let atoms = match amount {
            Amount::Atoms(atoms) => *atoms,
            Amount::Dollars(_) if !self.dollar => {
                return Err(PriceError::NotDollars(self.asset().id.to_string()));
            }
            Amount::Dollars(digits) => self.asset().parse(digits)?.atoms(),
        };
        let offer = Offer { way: self.clone(), atoms, pay_to: self.pay_to.clone() };
        offer.requirement(Duration::from_secs(1))?;
        Ok(offer)
    }
}

impl Offer {
    pub fn money(&self) -> Money {
        self.way.asset().atoms(self.atoms)
    }

    pub(crate) fn requirement(&self, max_timeout: Duration) -> Result<Requirement, RequirementError> {
        Requirement::new(self.way.token.clone(), &self.money(), &self.pay_to, self.way.pull, max_timeout)
    }
}

/// A price as a person writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amount {
    /// Dollars in plain decimals, at par in the assets that stand for dollars.
    Dollars(String),
    Atoms(u128),
}

impl Amount {
    /// Reads `"$0.002"`, or a count of atoms. Whether an asset has that many decimal digits shows when it is asked for.
    pub fn parse(text: &str) -> Result<Self, AmountError> {
        match text.strip_prefix('$') {
            Some(digits) => {
                let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
                farthing_primitives::parse_atoms(whole)?;
                if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(AmountError::NotDecimal);
                }
                Ok(Self::Dollars(digits.to_owned()))
            }
            None => farthing_primitives::parse_atoms(text).map(Self::Atoms),
        }
    }
}

/// What a route costs.
#[derive(Clone)]
pub enum Price {
    Fixed(Vec<Offer>),
    Quoted { hook: Arc<dyn PriceHook>, ways: Vec<Arc<Way>> },
}

/// What a hook is told of a request: all that the price may depend on, and so all that the offer is bound to. Not its
/// body, which a challenge must not wait for.
#[derive(Debug, Clone)]
pub struct QuoteRequest {
    /// HEAD is priced as its GET.
    pub method: Method,
    /// The canonical path and, after a `?`, the query as it came.
    pub resource: String,
    /// Those of [`PriceHook::depends_on`], and no others.
    pub headers: HeaderMap,
}

/// A hook's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    pub amount: Amount,
    /// In place of the way's payee.
    pub pay_to: Option<Address>,
    /// How long the offer holds; never longer than the route's `max_timeout`, which is the default.
    pub valid_for: Option<Duration>,
}

/// Why there is no quote. The request is answered with 503, unpaid and unserved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the price hook gave no price: {0}")]
pub struct HookError(pub String);

/// Sets a price for each request: request in; price, payee and expiry out.
///
/// The quote is sealed into the offer together with all that the hook was told, so a v2 payment is accepted for what
/// was quoted without asking again, and for a request that the hook would not tell from that one. A v1 payment carries
/// no offer; for it the hook is asked again and must say the same.
#[async_trait]
pub trait PriceHook: Send + Sync {
    /// The headers that the price may depend on. A buyer must send them alike when it asks and when it pays.
    fn depends_on(&self) -> &[HeaderName] {
        &[]
    }

    async fn quote(&self, request: &QuoteRequest) -> Result<Quote, HookError>;
}

/// A hook from a closure that is told no headers.
pub fn price_fn<F>(quote: F) -> Arc<dyn PriceHook>
where
    F: Fn(&QuoteRequest) -> Result<Quote, HookError> + Send + Sync + 'static,
{
    price_fn_of(Vec::new(), quote)
}

/// A hook from a closure that is told these headers.
pub fn price_fn_of<F>(depends_on: Vec<HeaderName>, quote: F) -> Arc<dyn PriceHook>
where
    F: Fn(&QuoteRequest) -> Result<Quote, HookError> + Send + Sync + 'static,
{
    struct FromFn<F>(F, Vec<HeaderName>);

    #[async_trait]
    impl<F> PriceHook for FromFn<F>
    where
        F: Fn(&QuoteRequest) -> Result<Quote, HookError> + Send + Sync,
    {
        fn depends_on(&self) -> &[HeaderName] {
            &self.1
        }

        async fn quote(&self, request: &QuoteRequest) -> Result<Quote, HookError> {
            (self.0)(request)
        }
    }

    Arc::new(FromFn(quote, depends_on))
}

impl fmt::Debug for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(offers) => f.debug_tuple("Fixed").field(offers).finish(),
            Self::Quoted { ways, .. } => f.debug_struct("Quoted").field("ways", ways).finish_non_exhaustive(),
        }
    }
}

/// The default of [`Paid::max_timeout`].
pub const DEFAULT_MAX_TIMEOUT: Duration = Duration::from_secs(120);
/// The default of [`Paid::upstream_timeout`].
pub const DEFAULT_UPSTREAM_TIMEOUT: Duration = Duration::from_secs(30);
/// The default of [`Paid::max_request`], in bytes.
pub const DEFAULT_MAX_REQUEST: usize = 1024 * 1024;
/// The default of [`Paid::max_response`], in bytes.
pub const DEFAULT_MAX_RESPONSE: usize = 8 * 1024 * 1024;

/// A route that costs something.
#[derive(Debug, Clone)]
pub struct Paid {
    pub price: Price,
    pub flow: Flow,
    /// For [`Flow::Background`]: until how much is served before it is settled. `None` is nothing at all.
    pub exposure: Option<ExposureLimit>,
    /// How long a payer has to pay, and its authorization to be settled: `maxTimeoutSeconds`.
    pub max_timeout: Duration,
    /// How long the upstream may take to answer completely (in streaming flows: to begin answering).
    pub upstream_timeout: Duration,
    /// The longest request body, in bytes; above it is 413.
    pub max_request: usize,
    /// The longest answer that is stored before settling, in bytes; above it nothing is charged.
    pub max_response: usize,
    /// Whether the upstream may be called again for the same payment after a crash. `None`: for GET and HEAD.
    pub repeatable: Option<bool>,
    /// Whether a challenge of MPP is bound to the body of the request that asked for it. The unpaid body is then read.
    pub digest: bool,
    /// For people and catalogues.
    pub description: Option<String>,
    pub mime_type: Option<String>,
    /// What is accepted of payers.
    pub policy: Arc<Policy>,
    /// Whether the route is sold by the unit too, from a channel. Without any fixed offer it is sold so alone.
    pub session: Option<Arc<Session>>,
    /// By which types of credentials a charge of MPP in a token may be paid, the most welcome first. By authorization
    /// alone unless said otherwise: what a payer sends itself is bound to nothing but a time and a price.
    pub credential_types: Vec<CredentialType>,
    /// What it costs by methods of MPP that are plug-ins. A route may be sold by these alone.
    pub methods: Vec<MethodOffer>,
}

impl Paid {
    pub fn new(price: Price) -> Self {
        Self {
            price,
            flow: Flow::Authorization,
            exposure: None,
            max_timeout: DEFAULT_MAX_TIMEOUT,
            upstream_timeout: DEFAULT_UPSTREAM_TIMEOUT,
            max_request: DEFAULT_MAX_REQUEST,
            max_response: DEFAULT_MAX_RESPONSE,
            repeatable: None,
            digest: true,
            description: None,
            mime_type: None,
            policy: Arc::new(Policy::default()),
            session: None,
            credential_types: vec![CredentialType::Authorization],
            methods: Vec::new(),
        }
    }

    /// A route that is sold by the unit alone.
    pub fn by_the_unit(session: Session) -> Self {
        Self { session: Some(Arc::new(session)), ..Self::new(Price::Fixed(Vec::new())) }
    }

    /// Whether a single payment buys it.
    pub(crate) fn charges(&self) -> bool {
        !matches!(&self.price, Price::Fixed(offers) if offers.is_empty()) || !self.methods.is_empty()
    }

    pub(crate) fn repeatable(&self, method: &Method) -> bool {
        self.repeatable.unwrap_or(method == Method::GET || method == Method::HEAD)
    }

    pub(crate) fn ways(&self) -> Vec<&Arc<Way>> {
        match &self.price {
            Price::Fixed(offers) => offers.iter().map(|offer| &offer.way).collect(),
            Price::Quoted { ways, .. } => ways.iter().collect(),
        }
    }
}

/// What a route is: free, or for sale.
#[derive(Debug, Clone)]
pub enum Route {
    Free,
    Paid(Arc<Paid>),
}

impl Route {
    pub fn paid(paid: Paid) -> Self {
        Self::Paid(Arc::new(paid))
    }
}
