//! The other end: a wallet in another process, as programs that pay see it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use farthing_approval::{ApprovalId, GrantAsk};
use farthing_channel::{ChannelId, Need, Receipt};
use farthing_policy::{AgentName, Decision, HostPattern, Names, Origin};
use farthing_primitives::{Address, AttemptId, PurchaseId, Registry, RequestHash};
use farthing_wallet::journal::channels::KeptChannel;
use farthing_wallet::journal::{Header, Outcome, Proof, Purchase};
use farthing_wallet::{
    Answered as Raised, Authorization, Authorizer, Books, Brought, Budget, ChannelSight, Denied, Deposit,
    EscrowFacts, Intent, Mentions, Offer, OfferSession, Purse, Quote, Spent, Ticket,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use crate::lines::Lines;
use crate::protocol::{
    self, Answered, AnsweredRecord, Asking, AuthorizationRecord, Bound, BroughtRecord, BudgetRecord,
    Candidate, ChannelRecord, Channels, DecisionRecord, DepositRecord, Done, GrantRecord, HeaderRecord,
    Hello, Hosts, IntentRecord, LINE_PATIENCE, MAX_LINE_BYTES, May, MaybeChannel, MaybeDeposit,
    MaybePurchase, NeedRecord, Nothing, OfferRecord, OutcomeRecord, PATIENCE, PurchaseRecord, Purchases,
    QuoteRecord, ReceiptRecord, Refusal, Secret, SpentRecord, TicketRecord, VERSION, Welcome, WithBrought,
    WithChannel, WithGrant, WithHash, WithHistory, WithId, WithIntent, WithIntentAndChannel, WithIntentFrom,
    WithName, WithNames, WithNeed, WithOffer, WithOutcome, WithReceipt, WithRequest, WithTopUp, WithUrl,
    print_channel, print_hash,
};

/// How many requests wait to be written at once.
const QUEUE: usize = 64;

/// A stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Whoever connects to a guard.
#[async_trait]
pub trait Dial: Send + Sync + fmt::Debug {
    async fn dial(&self) -> io::Result<Box<dyn Stream>>;
}

/// A guard's socket on this machine.
#[derive(Debug, Clone)]
pub struct UnixDial(pub PathBuf);

#[async_trait]
impl Dial for UnixDial {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(tokio::net::UnixStream::connect(&self.0).await?))
    }
}

/// Why there is no wallet to ask.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the guard cannot be reached: {0}")]
    Io(#[from] io::Error),
    #[error("the guard does not answer within {} seconds", PATIENCE.as_secs())]
    Silent,
    #[error("the guard refuses: {0}")]
    Refused(Refusal),
    #[error("the guard answers what cannot be read")]
    Unreadable,
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

/// A wallet in another process. It holds no key; where the guard does not answer in time, nothing is paid.
#[derive(Clone)]
pub struct RemoteAuthorizer {
    payer: Address,
    agent: AgentName,
    registry: Arc<Registry>,
    link: Arc<Link>,
}

impl fmt::Debug for RemoteAuthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteAuthorizer of {} as {}", self.payer, self.agent)
    }
}

struct Link {
    dial: Arc<dyn Dial>,
    token: Option<Zeroizing<String>>,
    front: String,
    patience: Duration,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// Whom the guard said at first to be, and to be for.
    known: Mutex<Option<(String, String)>>,
}

/// An answer that somebody waits for.
type Waiting = oneshot::Sender<Result<Box<RawValue>, Refusal>>;

struct Connection {
    to: mpsc::Sender<Vec<u8>>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    next: AtomicU64,
    over: AtomicBool,
}

/// Why there was no answer.
enum NoAnswer {
    /// The guard refused.
    Refused(Refusal),
    /// The connection was lost. The request may have been heard.
    Lost,
    Dial(io::Error),
    Unreadable,
}

impl From<NoAnswer> for Denied {
    fn from(no: NoAnswer) -> Self {
        match no {
            NoAnswer::Refused(refusal) => refusal.into(),
            NoAnswer::Lost | NoAnswer::Dial(_) | NoAnswer::Unreadable => Self::Unavailable,
        }
    }
}

impl RemoteAuthorizer {
    /// Connects, and says who it is. `token` may be left out where the connection's certificate says it.
    ///
    /// # Errors
    /// [`ConnectError`] if there is no guard, or if it does not let this front in.
    pub async fn connect(dial: Arc<dyn Dial>, token: Option<&str>) -> Result<Self, ConnectError> {
        Self::connect_within(dial, token, PATIENCE).await
    }

    /// The same, with another patience than [`PATIENCE`] for each answer.
    pub async fn connect_within(
        dial: Arc<dyn Dial>,
        token: Option<&str>,
        patience: Duration,
    ) -> Result<Self, ConnectError> {
        let mut front = [0u8; 16];
        getrandom::fill(&mut front).map_err(|_| ConnectError::NoRandomness)?;
        let link = Arc::new(Link {
            dial,
            token: token.map(|token| Zeroizing::new(token.trim().to_owned())),
            front: hex::encode(front),
            patience,
            connection: tokio::sync::Mutex::default(),
            known: Mutex::default(),
        });
        match tokio::time::timeout(patience, link.connected()).await {
            Err(_) => return Err(ConnectError::Silent),
            Ok(Err(NoAnswer::Refused(refusal))) => return Err(ConnectError::Refused(refusal)),
            Ok(Err(NoAnswer::Dial(error))) => return Err(ConnectError::Io(error)),
            Ok(Err(NoAnswer::Lost | NoAnswer::Unreadable)) => return Err(ConnectError::Unreadable),
            Ok(Ok(_)) => {}
        }
        let known = link.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (agent, payer) = known.ok_or(ConnectError::Unreadable)?;
        Ok(Self {
            payer: Address::evm(&payer).map_err(|_| ConnectError::Unreadable)?,
            agent: agent.parse().map_err(|_| ConnectError::Unreadable)?,
            registry: Arc::new(Registry::builtin()),
            link,
        })
    }

    /// As whom the guard knows this front.
    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// Asks for what may be asked for twice: on a new connection, if the first was lost.
    async fn ask<T: DeserializeOwned>(&self, what: &str, with: &impl Say) -> Result<T, Denied> {
        self.call(what, with, true).await
    }

    /// Asks for what must not be done twice: what is lost is a denial, and the purchase, if there is one, lapses.
    async fn ask_once<T: DeserializeOwned>(&self, what: &str, with: &impl Say) -> Result<T, Denied> {
        self.call(what, with, false).await
    }

    async fn call<T: DeserializeOwned>(&self, what: &str, with: &impl Say, again: bool) -> Result<T, Denied> {
        let with = serde_json::value::to_raw_value(with).map_err(|_| Denied::Unavailable)?;
        let asking = async {
            match self.link.call(what, &with).await {
                Err(NoAnswer::Lost) if again => self.link.call(what, &with).await,
                done => done,
            }
        };
        let answer =
            tokio::time::timeout(self.link.patience, asking).await.map_err(|_| Denied::Unavailable)?;
        let answer = answer.map_err(Denied::from)?;
        serde_json::from_str(answer.get()).map_err(|_| Denied::Unavailable)
    }

    /// All pages of a list.
    async fn all(&self, what: &str, request_hash: Option<String>) -> Result<Vec<Purchase>, Denied> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let with = WithRequest { request_hash: request_hash.clone(), after: after.take() };
            let page: Purchases = self.ask(what, &with).await?;
            after = page.purchases.last().map(|purchase| purchase.id.clone());
            for purchase in page.purchases {
                all.push(purchase.read(&self.agent)?);
            }
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }
}

/// What a request says.
trait Say: Serialize + Sync {}
impl<T: Serialize + Sync> Say for T {}

impl Link {
    /// The connection that is open, or a new one on which the guard said welcome.
    async fn connected(&self) -> Result<Arc<Connection>, NoAnswer> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|open| !open.over.load(Ordering::SeqCst)) {
            return Ok(connection.clone());
        }
        *kept = None;
        let stream = self.dial.dial().await.map_err(NoAnswer::Dial)?;
        let connection = Connection::open(stream);
        let hello = Hello {
            version: VERSION,
            token: self.token.as_ref().map(|token| token.to_string()),
            front: self.front.clone(),
        };
        let with = serde_json::value::to_raw_value(&hello).map_err(|_| NoAnswer::Unreadable)?;
        let welcome = connection.call("hello", &with).await?;
        let welcome: Welcome = serde_json::from_str(welcome.get()).map_err(|_| NoAnswer::Unreadable)?;
        let said = (welcome.agent, welcome.payer);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // Another wallet behind the same address is not the one whose purchases are under way here.
        if welcome.version != VERSION || known.get_or_insert_with(|| said.clone()) != &said {
            return Err(NoAnswer::Unreadable);
        }
        drop(known);
        *kept = Some(connection.clone());
        Ok(connection)
    }

    async fn call(&self, what: &str, with: &RawValue) -> Result<Box<RawValue>, NoAnswer> {
        self.connected().await?.call(what, with).await
    }
}

impl Connection {
    fn open(stream: Box<dyn Stream>) -> Arc<Self> {
        let (from, to) = tokio::io::split(stream);
        let (say, said) = mpsc::channel(QUEUE);
        let connection = Arc::new(Self {
            to: say,
            waiting: Mutex::default(),
            next: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        tokio::spawn(Self::listen(Arc::downgrade(&connection), from));
        tokio::spawn(Self::speak(Arc::downgrade(&connection), to, said));
        connection
    }

    async fn listen(this: std::sync::Weak<Self>, from: ReadHalf<Box<dyn Stream>>) {
        let mut lines = Lines::new(from, MAX_LINE_BYTES, LINE_PATIENCE);
        while let Ok(Some(line)) = lines.next().await {
            let Some(connection) = this.upgrade() else { return };
            let Ok(answer) = serde_json::from_slice::<Answered>(&line) else { break };
            let said = match (answer.ok, answer.error) {
                (Some(ok), None) => Ok(ok),
                (None, Some(refusal)) => Err(refusal),
                _ => break,
            };
            match answer.id {
                Some(id) => {
                    if let Some(waiting) = connection.take(id) {
                        let _ = waiting.send(said);
                    }
                }
                // It is about all of them.
                None => {
                    let refusal = said.err().unwrap_or_else(Refusal::unavailable);
                    for (_, waiting) in connection.all() {
                        let _ = waiting.send(Err(refusal.clone()));
                    }
                }
            }
        }
        if let Some(connection) = this.upgrade() {
            connection.end();
        }
    }

    /// Whoever waits hears that nothing comes.
    fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
        drop(self.all());
    }

    /// Writes whole lines, also those that nobody waits for any more: half of one would spoil the next.
    async fn speak(
        this: std::sync::Weak<Self>,
        mut to: WriteHalf<Box<dyn Stream>>,
        mut said: mpsc::Receiver<Vec<u8>>,
    ) {
        while let Some(line) = said.recv().await {
            let written = async {
                to.write_all(&line).await?;
                to.flush().await
            };
            if written.await.is_err() {
                break;
            }
        }
        if let Some(connection) = this.upgrade() {
            connection.end();
        }
    }

    fn take(&self, id: u64) -> Option<Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id)
    }

    fn all(&self) -> HashMap<u64, Waiting> {
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn call(&self, what: &str, with: &RawValue) -> Result<Box<RawValue>, NoAnswer> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Asking { id, what, with }).map_err(|_| NoAnswer::Unreadable)?;
        line.push(b'\n');
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        if self.over.load(Ordering::SeqCst) {
            self.take(id);
            return Err(NoAnswer::Lost);
        }
        if self.to.send(line).await.is_err() {
            self.take(id);
            return Err(NoAnswer::Lost);
        }
        match told.await {
            Ok(Ok(ok)) => Ok(ok),
            Ok(Err(refusal)) => Err(NoAnswer::Refused(refusal)),
            Err(_) => Err(NoAnswer::Lost),
        }
    }
}

fn owner_only() -> Denied {
    Denied::Told { code: "owner_only".to_owned(), text: "only the wallet's owner may do that".to_owned() }
}

fn with_intent(intent: &Intent) -> Result<WithIntent, Denied> {
    Ok(WithIntent { intent: IntentRecord::of(intent)? })
}

fn with_id(id: &PurchaseId) -> WithId {
    WithId { id: id.to_string() }
}

#[async_trait]
impl Mentions for RemoteAuthorizer {
    async fn mention(&self, names: &Names, by: &str) -> Result<(), Denied> {
        for line in WithNames::of(names, by) {
            let _: Done = self.ask("mention", &line).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Authorizer for RemoteAuthorizer {
    fn payer(&self) -> &Address {
        &self.payer
    }

    fn registry(&self) -> &Registry {
        &self.registry
    }

    fn purse(&self) -> Option<&dyn Purse> {
        Some(self)
    }

    async fn preview(&self, intent: &Intent) -> Result<Decision, Denied> {
        let said: DecisionRecord = self.ask("preview", &with_intent(intent)?).await?;
        Ok(said.read()?)
    }

    async fn authorize(&self, intent: Intent) -> Result<Authorization, Denied> {
        let said: AuthorizationRecord = self.ask_once("authorize", &with_intent(&intent)?).await?;
        Ok(said.read()?)
    }

    async fn ask_people(&self, intent: &Intent) -> Result<Ticket, Denied> {
        let said: TicketRecord = self.ask("ask_people", &with_intent(intent)?).await?;
        Ok(said.read()?)
    }

    async fn ask_for_grant(&self, intent: &Intent, ask: &GrantAsk) -> Result<Ticket, Denied> {
        let with = WithGrant { intent: with_intent(intent)?.intent, grant: GrantRecord::of(ask) };
        let said: TicketRecord = self.ask("ask_for_grant", &with).await?;
        Ok(said.read()?)
    }

    async fn ticket(&self, id: &ApprovalId) -> Result<Ticket, Denied> {
        let said: TicketRecord = self.ask("ticket", &WithId { id: id.to_string() }).await?;
        Ok(said.read()?)
    }

    async fn present(&self, id: &PurchaseId) -> Result<Header, Denied> {
        let said: HeaderRecord = self.ask("present", &with_id(id)).await?;
        Ok(said.shown()?)
    }

    async fn conclude(&self, id: &PurchaseId, outcome: Outcome) -> Result<(), Denied> {
        let with = WithOutcome { id: id.to_string(), outcome: OutcomeRecord::of(&outcome) };
        self.ask("conclude", &with).await.map(|Done {}| ())
    }

    /// The guard asks the chain itself: what proof there is here it does not take.
    async fn release(&self, id: &PurchaseId, _proof: Proof) -> Result<(), Denied> {
        self.ask("release", &with_id(id)).await.map(|Done {}| ())
    }

    async fn received(&self, id: &PurchaseId) -> Result<(), Denied> {
        self.ask("received", &with_id(id)).await.map(|Done {}| ())
    }

    async fn finalize(&self, id: &PurchaseId) -> Result<(), Denied> {
        self.ask("finalize", &with_id(id)).await.map(|Done {}| ())
    }

    async fn purchase(&self, id: &PurchaseId) -> Result<Purchase, Denied> {
        let said: PurchaseRecord = self.ask("purchase", &with_id(id)).await?;
        Ok(said.read(&self.agent)?)
    }

    /// The guard does that on its own.
    async fn recover(&self) -> Result<usize, Denied> {
        Ok(0)
    }

    async fn open(&self) -> Result<Vec<Purchase>, Denied> {
        self.all("open_purchases", None).await
    }

    async fn abandoned(&self, request: Option<&RequestHash>) -> Result<Vec<Purchase>, Denied> {
        self.all("abandoned", request.map(print_hash)).await
    }

    async fn may_reach_private(&self, origin: &Origin) -> Result<bool, Denied> {
        let with = WithUrl { url: format!("{origin}/") };
        let May { may } = self.ask("may_reach_private", &with).await?;
        Ok(may)
    }
}

#[async_trait]
impl Books for RemoteAuthorizer {
    async fn hosts(&self) -> Result<Vec<HostPattern>, Denied> {
        let Hosts { hosts } = self.ask("hosts", &Nothing {}).await?;
        hosts.iter().map(|text| text.parse().map_err(|_| Denied::Unavailable)).collect()
    }

    async fn latest_for(&self, request: &RequestHash) -> Result<Option<Purchase>, Denied> {
        let said: MaybePurchase = self.ask("latest", &WithHash { request_hash: print_hash(request) }).await?;
        Ok(said.purchase.map(|purchase| purchase.read(&self.agent)).transpose()?)
    }

    async fn history(&self, limit: u32) -> Result<Vec<Purchase>, Denied> {
        let most = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut all: Vec<Purchase> = Vec::new();
        loop {
            let before = all.last().map(|purchase| purchase.id.to_string());
            let page: Purchases = self.ask("history", &WithHistory { limit, before }).await?;
            let is_end = page.purchases.is_empty() || !page.more;
            for purchase in page.purchases {
                all.push(purchase.read(&self.agent)?);
            }
            if is_end || all.len() >= most {
                all.truncate(most);
                return Ok(all);
            }
        }
    }

    async fn budget(&self) -> Result<Budget, Denied> {
        let said: BudgetRecord = self.ask("budget", &Nothing {}).await?;
        Ok(said.read()?)
    }

    async fn bind_call(&self, name: &str, request: &RequestHash) -> Result<RequestHash, Denied> {
        let with = WithName { name: name.to_owned(), request_hash: print_hash(request) };
        let said: Bound = self.ask("bind_call", &with).await?;
        Ok(protocol::request_hash(&said.request_hash)?)
    }

    /// The guard does that on its own.
    async fn forget_calls(&self) -> Result<(), Denied> {
        Ok(())
    }

    async fn call_secret(&self) -> Result<[u8; 32], Denied> {
        let said: Secret = self.ask("call_secret", &Nothing {}).await?;
        let mut secret = [0u8; 32];
        hex::decode_to_slice(&said.secret, &mut secret).map_err(|_| Denied::Unavailable)?;
        Ok(secret)
    }
}

#[async_trait]
impl Purse for RemoteAuthorizer {
    async fn quote(&self, intent: &Intent, _funds: Option<u128>) -> Result<Quote, Denied> {
        let said: QuoteRecord = self.ask("quote", &with_intent(intent)?).await?;
        Ok(said.read()?)
    }

    async fn usable(&self, intent: &Intent) -> Result<Option<KeptChannel>, Denied> {
        let said: MaybeChannel = self.ask("usable", &with_intent(intent)?).await?;
        Ok(said.channel.map(ChannelRecord::read).transpose()?)
    }

    async fn candidate(&self, intent: &Intent, from: u64) -> Result<(u64, ChannelId), Denied> {
        let with = WithIntentFrom { intent: IntentRecord::of(intent)?, from };
        let said: Candidate = self.ask("candidate", &with).await?;
        Ok((said.number, protocol::channel_id(&said.channel)?))
    }

    async fn open(
        &self,
        intent: &Intent,
        _number: u64,
        _escrow: EscrowFacts,
        _funds: Option<u128>,
    ) -> Result<Option<Deposit>, Denied> {
        let said: MaybeDeposit = self.ask_once("open", &with_intent(intent)?).await?;
        Ok(said.deposit.map(DepositRecord::read).transpose()?)
    }

    async fn top_up(&self, intent: &Intent, channel: &ChannelId, missing: u128) -> Result<Deposit, Denied> {
        let with = WithTopUp {
            intent: IntentRecord::of(intent)?,
            channel: print_channel(channel),
            missing: missing.to_string(),
        };
        let said: DepositRecord = self.ask_once("top_up", &with).await?;
        Ok(said.read()?)
    }

    async fn show_deposit(&self, attempt: &AttemptId) -> Result<Header, Denied> {
        let said: HeaderRecord = self.ask("show_deposit", &WithId { id: attempt.to_string() }).await?;
        Ok(said.shown()?)
    }

    async fn spend(&self, intent: &Intent, channel: &ChannelId) -> Result<Spent, Denied> {
        let with =
            WithIntentAndChannel { intent: IntentRecord::of(intent)?, channel: print_channel(channel) };
        let said: SpentRecord = self.ask_once("spend", &with).await?;
        Ok(said.read()?)
    }

    async fn raise(
        &self,
        id: &PurchaseId,
        need: &Need,
        went_on: bool,
        most: Option<&str>,
    ) -> Result<Raised, Denied> {
        let with = WithNeed {
            id: id.to_string(),
            need: NeedRecord::of(need),
            went_on,
            most: most.map(str::to_owned),
        };
        let said: AnsweredRecord = self.ask_once("raise", &with).await?;
        Ok(said.read()?)
    }

    async fn conclude(&self, id: &PurchaseId, brought: Brought) -> Result<KeptChannel, Denied> {
        let with = WithBrought { id: id.to_string(), brought: BroughtRecord::of(&brought) };
        let said: ChannelRecord = self.ask("conclude_spend", &with).await?;
        Ok(said.read()?)
    }

    /// The guard looks itself: what was seen here it does not take.
    async fn saw(&self, channel: &ChannelId, _sight: ChannelSight) -> Result<KeptChannel, Denied> {
        let said: ChannelRecord = self.ask("look", &WithChannel { channel: print_channel(channel) }).await?;
        Ok(said.read()?)
    }

    async fn told(&self, channel: &ChannelId, receipt: Receipt, json: &str) -> Result<KeptChannel, Denied> {
        let with =
            WithReceipt { channel: print_channel(channel), receipt: ReceiptRecord::of(&receipt, json) };
        let said: ChannelRecord = self.ask("told", &with).await?;
        Ok(said.read()?)
    }

    async fn leave(&self, channel: &ChannelId, offer: &OfferSession) -> Result<Header, Denied> {
        let offer = OfferRecord::of(&Offer::Session(Box::new(offer.clone())))?;
        let with = WithOffer { channel: print_channel(channel), offer };
        let said: HeaderRecord = self.ask("leave", &with).await?;
        Ok(said.shown()?)
    }

    /// The guard does that on its own.
    async fn lapse(&self) -> Result<usize, Denied> {
        Ok(0)
    }

    async fn channel(&self, channel: &ChannelId) -> Result<KeptChannel, Denied> {
        let said: ChannelRecord =
            self.ask("channel", &WithChannel { channel: print_channel(channel) }).await?;
        Ok(said.read()?)
    }

    async fn channels(&self) -> Result<Vec<KeptChannel>, Denied> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page: Channels =
                self.ask("channels", &WithRequest { request_hash: None, after: after.take() }).await?;
            after = page.channels.last().map(|channel| channel.id.clone());
            for channel in page.channels {
                all.push(channel.read()?);
            }
            if !page.more || after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Whose a channel is that the books lost, no agent can say.
    async fn adopt(
        &self,
        _intent: &Intent,
        _number: u64,
        _sight: ChannelSight,
        _grace: Duration,
    ) -> Result<bool, Denied> {
        Err(owner_only())
    }
}
