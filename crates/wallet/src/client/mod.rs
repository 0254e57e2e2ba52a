//! An HTTP client that pays when it is asked to, within what its wallet's owner allows.

mod challenge;
mod exchange;
mod last_id;
mod pay;
mod plan;
mod recover;
mod session;
mod socket;
mod transport;

#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use farthing_approval::GrantAsk;
use farthing_channel::ChannelId;
use farthing_engine::World;
use farthing_policy::{Decision, OriginError};
use farthing_primitives::{Money, Network, PurchaseId};
use farthing_rails::exact_evm::Tokens;
use farthing_wire::mpp::sse::Event;

pub use challenge::{Challenge, ChallengeError, Mismatch, tx_hash};
pub use exchange::{
    Answer, Body, Conversation, Exchange, Heard, HttpRequest, Opened, Pieces, Reach, SendError, SocketOpened,
    printable, shown,
};
pub(crate) use plan::compare;
pub use plan::{Asked, AskedAnswer, Considered, MAX_SELLERS, Objection, Plan, request_hash};
pub use recover::{Recovered, Sights};
pub use session::Sessions;
pub use transport::{MAX_HEADER_LIST_BYTES, MAX_HEADERS, Transport, socket_config};

use crate::authorizer::{Authorization, Authorizer, Denied};
use crate::chain_view::ChainView;
use crate::journal::{Header, Purchase};
use crate::world::TokioWorld;

/// How many redirects are followed.
pub const MAX_REDIRECTS: usize = 10;

/// How long the client waits for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For one answer. A seller settles before it answers, and blocks take their time.
    pub answer: Duration,
    /// For everything that one call does.
    pub total: Duration,
    /// Before a payment is shown again; doubles each time.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// How often a payment is shown at most.
    pub presentations: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            total: Duration::from_secs(180),
            first_pause: Duration::from_millis(250),
            longest_pause: Duration::from_secs(8),
            presentations: 12,
        }
    }
}

/// Somebody who is told what happens, as it happens.
pub type Watch = Arc<dyn Fn(&Step) + Send + Sync>;

/// What one call may do.
#[derive(Clone, Default)]
pub struct Options {
    /// The most that it may cost, in whole units of what is asked for; `$` in front for dollars only.
    pub max: Option<String>,
    /// Pay on this network only.
    pub only: Option<Network>,
    /// The tool on whose behalf this call is paid, for limits by tool.
    pub tool: Option<String>,
    /// Ask people where a rule wants their approval and nothing else stands in the way.
    pub ask_people: bool,
    /// Ask them for this grant, and not for one payment.
    pub grant: Option<GrantAsk>,
    /// Follow redirects. A payment goes to its own origin only.
    pub follow: bool,
    /// Reach this machine's own network also where the owner did not allow it. It is still not paid there.
    pub allow_private: bool,
    /// Whether, and when, a session is paid for through a channel.
    pub sessions: Sessions,
    /// What a channel that this call opens gets, in whole units; otherwise what the seller suggests, within `max` and
    /// the rules.
    pub deposit: Option<String>,
    /// Say what would be paid, and pay nothing.
    pub dry_run: bool,
    /// The caller says with [`Client::received`] when it has put the answer where it belongs. Should its process end
    /// before, nothing was delivered, and [`Client::fetch_once`] shows the same payment again instead of buying anew.
    /// Without it, an answer is delivered once it is handed out.
    pub acknowledged: bool,
    /// Is told what happens, as it happens.
    pub watch: Option<Watch>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("max", &self.max)
            .field("only", &self.only)
            .field("tool", &self.tool)
            .field("ask_people", &self.ask_people)
            .field("grant", &self.grant)
            .field("follow", &self.follow)
            .field("allow_private", &self.allow_private)
            .field("sessions", &self.sessions)
            .field("deposit", &self.deposit)
            .field("dry_run", &self.dry_run)
            .field("acknowledged", &self.acknowledged)
            .finish_non_exhaustive()
    }
}

impl Options {
    fn tell(&self, step: &Step) {
        if let Some(watch) = &self.watch {
            watch(step);
        }
    }
}

/// What happens during a call.
#[derive(Debug)]
pub enum Step<'a> {
    Asking(&'a HttpRequest),
    Answered(&'a Answer),
    Redirected {
        to: String,
        credentials_dropped: bool,
    },
    Challenged(&'a Plan),
    /// An earlier payment is shown again, and none is made.
    Resuming(&'a Purchase),
    Authorized(&'a Authorization),
    Presenting {
        id: PurchaseId,
        time: u32,
    },
    Paid(&'a Answer),
    /// A channel's deposit is shown to the seller, or shown again.
    Depositing {
        channel: ChannelId,
        time: u32,
    },
    /// A stream asked for a voucher, and gets it.
    Vouching {
        id: PurchaseId,
        required: u128,
    },
    /// The seller did not take that voucher, and there is no newer one.
    NotTaken {
        id: PurchaseId,
        why: &'a str,
    },
    /// An event of a stream that is paid as it goes on.
    Streamed(&'a Event),
    /// A message of a socket that is paid as it goes on.
    Said(&'a [u8]),
    NoAnswer(&'a SendError),
    Pausing {
        why: &'a str,
        pause: Duration,
    },
}

/// How a call ended.
#[derive(Debug)]
pub enum Outcome {
    /// Nothing was asked, and nothing paid.
    Free(Answer),
    /// A dry run: this is what would be paid.
    Planned(Plan),
    /// Paid, and answered with success.
    Paid { answer: Answer, payment: Payment },
    /// Nothing was signed. [`Plan::ticket`] says whether people are asked.
    Denied { plan: Plan, denied: Option<Denied> },
    /// A payment was shown, and the seller says that it takes it not: by a refusal, or by an error that says in a
    /// receipt that nothing was charged. It is not made again, and its amount stays reserved until the chain proves
    /// that it did not move.
    Refused { answer: Answer, payment: Payment, reason: String },
    /// A payment was shown, and nothing tells what became of it. Ask again with [`Client::resume`]; never pay again.
    Unknown { answer: Option<Answer>, payment: Payment, why: String },
}

/// A payment that left this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    pub id: PurchaseId,
    pub money: Money,
    pub payee: farthing_primitives::Address,
    pub payer: farthing_primitives::Address,
    pub expires: farthing_primitives::Timestamp,
    /// When it was bought, if that was by an earlier call, and this one only asked for it again.
    pub earlier: Option<farthing_primitives::Timestamp>,
    /// The reasons for which it was allowed; `None` for one that was allowed earlier.
    pub decision: Option<Decision>,
    pub settlement: Settlement,
    /// The transaction, by the chain or by the seller's word.
    pub tx: Option<String>,
    /// The seller's receipt, as JSON.
    pub receipt: Option<String>,
    /// How often it was shown.
    pub shown: u32,
    /// The answer came as a stream that was paid as it went on: see [`Step::Streamed`].
    pub streamed: bool,
    /// How a stream went on that broke off.
    pub resumed: Resumed,
    pub note: Option<String>,
}

/// How a stream went on that broke off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resumed {
    /// How often.
    pub times: u32,
    /// How many events came again, for nothing, by the seller's word.
    pub replayed: u64,
}

/// How much is known about the movement of the money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// The chain shows exactly this payment.
    Confirmed,
    /// The seller says so, and what it says fits.
    Claimed,
    /// Nobody says anything.
    Unproven,
    /// What the seller says does not fit the payment or the chain.
    Contradicted(String),
}

impl Settlement {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed on chain",
            Self::Claimed => "claimed by the seller",
            Self::Unproven => "not proven",
            Self::Contradicted(_) => "contradicted",
        }
    }
}

/// Why a call came to nothing before a payment was shown to anybody.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Url(#[from] OriginError),
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("{error}")]
    Challenge { error: ChallengeError, answer: Box<Answer> },
    #[error("redirected more than {MAX_REDIRECTS} times")]
    Redirects,
    #[error("redirected to another origin with a body, which may hold secrets")]
    BodyElsewhere,
    #[error("redirected to what is no address")]
    BadRedirect,
    #[error("the answer has more than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the answer broke off")]
    Truncated,
    #[error("no seller was named, or more than {MAX_SELLERS}")]
    Sellers,
    #[error("the purchase was made for another request")]
    OtherRequest,
    /// Ask again: the same deposit is shown. It is in the channel, or it lapses.
    #[error("the deposit for channel {channel} is not there yet: {why}")]
    Deposit { channel: ChannelId, why: String },
    #[error("the seller does not take the voucher: {0}")]
    Voucher(String),
    #[error("the purchase is {0} and has nothing to show")]
    NothingToShow(crate::journal::State),
    #[error(transparent)]
    Denied(#[from] Denied),
}

/// An HTTP client that pays.
///
/// ```no_run
/// use std::sync::Arc;
/// use farthing_primitives::Registry;
/// use farthing_wallet::client::{Client, HttpRequest, Options, Outcome};
/// use farthing_wallet::{Home, LocalAuthorizer, keystore::Passphrase};
///
/// # async fn buy() -> Result<(), Box<dyn std::error::Error>> {
/// let home = Home::from_env()?;
/// let key = home.keystore().load("agent", &Passphrase::from_file("passphrase".as_ref())?)?;
/// let wallet = LocalAuthorizer::new(key, Arc::new(home.journal()?), Registry::builtin());
/// let client = Client::builder().wallet(wallet).build()?;
///
/// let request = HttpRequest::get("https://api.weather.example/forecast".parse()?);
/// let options = Options { max: Some("0.02".to_owned()), ..Options::default() };
/// match client.fetch(request, &options).await? {
///     Outcome::Free(answer) | Outcome::Paid { answer, .. } => println!("{:?}", answer.body.complete()),
///     Outcome::Unknown { payment, .. } => println!("ask again for {}", payment.id),
///     other => println!("not bought: {other:?}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    exchange: Arc<dyn Exchange>,
    world: Arc<dyn World>,
    authorizer: Arc<dyn Authorizer>,
    tokens: Tokens,
    views: Vec<Arc<dyn ChainView>>,
    patience: Patience,
    max_body: usize,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client of {}", self.inner.authorizer.payer())
    }
}

/// The longest body that is read unless the builder says otherwise, in bytes.
pub const DEFAULT_MAX_BODY: usize = 64 * 1024 * 1024;

/// Puts a [`Client`] together.
pub struct Builder {
    authorizer: Option<Arc<dyn Authorizer>>,
    views: Vec<Arc<dyn ChainView>>,
    patience: Patience,
    max_body: usize,
    exchange: Option<Arc<dyn Exchange>>,
    world: Option<Arc<dyn World>>,
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Builder")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the client has no wallet")]
    NoWallet,
    #[error("the HTTP client cannot be set up: {0}")]
    Http(String),
}

impl Builder {
    /// Who decides and signs.
    #[must_use]
    pub fn wallet(mut self, authorizer: impl Authorizer + 'static) -> Self {
        self.authorizer = Some(Arc::new(authorizer));
        self
    }

    /// The same, shared.
    #[must_use]
    pub fn authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizer = Some(authorizer);
        self
    }

    /// A chain to confirm payments by. Without one, settlements are the seller's word.
    #[must_use]
    pub fn chain(mut self, view: Arc<dyn ChainView>) -> Self {
        self.views.push(view);
        self
    }

    #[must_use]
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The longest body that the usual exchange reads, in bytes.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// Who carries requests and answers, instead of a [`Transport`] over sockets.
    #[must_use]
    pub fn exchange(mut self, exchange: Arc<dyn Exchange>) -> Self {
        self.exchange = Some(exchange);
        self
    }

    /// Whose time passes while the client waits, instead of tokio's. With an [`Exchange`] and an [`Authorizer`] that
    /// need no tokio either, the client runs on any executor.
    #[must_use]
    pub fn world(mut self, world: Arc<dyn World>) -> Self {
        self.world = Some(world);
        self
    }

    pub fn build(self) -> Result<Client, BuildError> {
        let authorizer = self.authorizer.ok_or(BuildError::NoWallet)?;
        let exchange = match self.exchange {
            Some(exchange) => exchange,
            None => Arc::new(Transport::new(self.max_body).map_err(BuildError::Http)?),
        };
        let world = self.world.unwrap_or_else(|| Arc::new(TokioWorld::new()));
        let tokens = Tokens::new(authorizer.registry());
        let (views, patience, max_body) = (self.views, self.patience, self.max_body);
        let inner = Inner { exchange, world, authorizer, tokens, views, patience, max_body };
        Ok(Client { inner: Arc::new(inner) })
    }
}

impl Client {
    pub fn builder() -> Builder {
        Builder {
            authorizer: None,
            views: Vec::new(),
            patience: Patience::default(),
            max_body: DEFAULT_MAX_BODY,
            exchange: None,
            world: None,
        }
    }

    pub fn authorizer(&self) -> &Arc<dyn Authorizer> {
        &self.inner.authorizer
    }

    fn view(&self, network: &Network) -> Option<&Arc<dyn ChainView>> {
        self.inner.views.iter().find(|view| view.network() == network)
    }

    /// When a call that begins now has had its time, by the world's steady clock.
    fn deadline(&self) -> Duration {
        self.inner.world.monotonic().saturating_add(self.inner.patience.total)
    }

    /// Sends a request, for as long as one answer may take and the whole call has left.
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        reach: Reach,
        deadline: Duration,
    ) -> Result<Answer, SendError> {
        let left = deadline.saturating_sub(self.inner.world.monotonic());
        let within = left.min(self.inner.patience.answer);
        self.inner.exchange.send(request, payment, reach, within).await
    }
}
