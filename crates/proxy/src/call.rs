//! One request of a program: asked for as it is, and paid for if it has a price that the wallet's owner allows.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use farthing_listener::{Departures, Inbound};
use farthing_policy::{HostPattern, Origin};
use farthing_primitives::{PurchaseId, RequestHash};
use farthing_wallet::client::{
    Answer, Body as Came, Client, Exchange, FetchError, HttpRequest, Opened, Options, Outcome, Pieces, Reach,
    Sessions, Transport, request_hash,
};
use farthing_wallet::journal::{Purchase, State};
use farthing_wallet::system_clock;
use http::{Method, Request, Response, StatusCode, header};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use url::Url;

use crate::answer::{self, Body, Unpaid};
use crate::desk::unavailable;
use crate::headers::{likeness, of_request, pays_itself};
use crate::left::{Bought, Found, Left, Wait};
use crate::room::{BODY_MEMORY, Place, Room};
use crate::turns::{Turn, Turns};
use crate::{Customer, Problem};

/// The longest body of a request, in bytes. It is held, so that it can be shown again with a payment.
pub const MAX_REQUEST_BYTES: usize = 8 * 1024 * 1024;
/// The longest answer that is bought, in bytes. What is free has no such limit: it is passed on as it comes.
pub const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;
/// The longest 402 that is read, in bytes.
const MAX_PRICE_BYTES: usize = 256 * 1024;
/// How many requests are asked at once; others wait. A body that is passed on does not count.
const MAX_ASKED: usize = 256;
/// How many purchases are under way at once; others wait.
const MAX_PURCHASES: u32 = 64;
/// How long a seller may take until its answer begins, and a price until it is read. What thinks for long is often free
/// here and paid elsewhere.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
const PRICE_WITHIN: Duration = Duration::from_secs(30);
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Whose request it is, and which.
type Key = (Arc<str>, RequestHash);

/// The same, and the headers by which an answer usually differs: what was made for one program is none for another.
type Alike = (Key, [u8; 32]);

/// What a purchase came to.
type Done = Result<Outcome, FetchError>;

impl Bought for Done {
    type Id = PurchaseId;

    /// What is unknown or refused is in the journal, where the next same request looks first.
    fn id(&self) -> Option<PurchaseId> {
        if let Ok(Outcome::Paid { payment, .. }) = self { Some(payment.id) } else { None }
    }
}

/// Whether the owner's rules name this host. `*` names nobody: nothing is opened that was not named.
pub(crate) fn is_named(hosts: &[HostPattern], origin: &Origin) -> bool {
    hosts.iter().any(|pattern| *pattern != HostPattern::Any && pattern.matches(origin))
}

/// How far a request to `origin` may go.
pub(crate) async fn reach(customer: &Customer, origin: &Origin) -> Result<Reach, Problem> {
    let private = customer.client.authorizer().may_reach_private(origin).await;
    let private = private.map_err(|error| {
        tracing::warn!(%error, "the wallet's rules cannot be read");
        Problem::WalletUnavailable
    })?;
    Ok(if private { Reach::Anywhere } else { Reach::Public })
}

/// Makes calls, for all customers.
pub(crate) struct Calls {
    transport: Transport,
    max: Option<String>,
    only_allowed: bool,
    room: Room,
    asked: Semaphore,
    purchases: Arc<Semaphore>,
    turns: Turns<Key>,
    left: Left<Alike, Done>,
}

/// What is asked, by whom.
struct Call {
    customer: Customer,
    request: HttpRequest,
    key: Key,
    alike: Alike,
    reach: Reach,
    /// Of its body.
    place: Place,
    /// The connection on which it came.
    exit: Option<Departures>,
}

/// What is done about a price.
enum Work {
    /// Pays it.
    Pay(Box<Answer>),
    /// Shows what was paid earlier, again.
    Resume(PurchaseId),
}

/// What an unpaid request came to.
enum Asked {
    Passed(Response<Body>),
    Priced(Answer),
}

impl Calls {
    /// # Errors
    /// If the HTTP client cannot be set up; the text is for people.
    pub fn new(max: Option<String>, only_allowed: bool) -> Result<Self, String> {
        Ok(Self {
            transport: Transport::new(MAX_ANSWER_BYTES)?,
            max,
            only_allowed,
            room: Room::new(BODY_MEMORY),
            asked: Semaphore::new(MAX_ASKED),
            purchases: Arc::new(Semaphore::new(MAX_PURCHASES as usize)),
            turns: Turns::new(),
            left: Left::new(),
        })
    }

    /// Waits until no purchase is under way.
    pub async fn settle_down(&self) {
        // Nobody closes it.
        let _ = self.purchases.acquire_many(MAX_PURCHASES).await;
    }

    #[cfg(test)]
    pub fn left_behind(&self) -> usize {
        self.left.len()
    }

    /// Answers a request for `url`.
    pub async fn answer(
        &self,
        customer: Customer,
        url: Url,
        request: Request<Inbound>,
    ) -> Result<Response<Body>, Problem> {
        let origin = Origin::of(&url).map_err(FetchError::from)?;
        if self.only_allowed {
            let hosts = customer.books.hosts().await.map_err(|denied| unavailable(&denied))?;
            if !hosts.iter().any(|pattern| pattern.matches(&origin)) {
                return Err(Problem::HostNotAllowed(origin.host.to_string()));
            }
        }
        let (mut parts, body) = request.into_parts();
        // Spec: RFC 9110 section 7.8: what else is offered may be ignored.
        let upgrades = parts.headers.get_all(header::UPGRADE).iter();
        if upgrades.map(|value| value.as_bytes()).any(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err(Problem::UpgradeNotSupported);
        }
        let exit = parts.extensions.remove::<Departures>();
        of_request(&mut parts.headers);
        let reach = reach(&customer, &origin).await?;
        let (body, place) = self.room.read(body).await?;
        let (method, headers) = (parts.method, parts.headers);
        let request = HttpRequest { method, url, headers, body, socket: None };
        let key = (customer.name.clone(), request_hash(&request));
        let alike = (key.clone(), likeness(&request.headers));
        let call = Call { customer, request, key, alike, reach, place, exit };
        if pays_itself(&call.request.headers) {
            return self.pass(&call).await;
        }
        match call.is_named() {
            true => self.buy_named(call).await,
            false => self.buy(call).await,
        }
    }

    /// A request that names itself: of one name there is one purchase, until it is proven that its money did not move.
    async fn buy_named(&self, call: Call) -> Result<Response<Body>, Problem> {
        let turn = self.turns.take(call.key.clone()).await;
        let work = match call.earlier_of_name().await? {
            Some(id) => Work::Resume(id),
            None => match self.ask(&call).await? {
                Asked::Passed(answer) => return Ok(answer),
                Asked::Priced(answer) => Work::Pay(Box::new(answer)),
            },
        };
        self.work(call, work, Some(turn)).await
    }

    /// Any other: each is a purchase of its own, but for those that an earlier one left open.
    async fn buy(&self, call: Call) -> Result<Response<Body>, Problem> {
        let work = match self.left.adopt(&call.alike) {
            Some(Found::UnderWay(wait)) => return self.end(call.waiting(), wait).await,
            Some(Found::Done(id)) => Work::Resume(id),
            None => match call.abandoned().await? {
                Some(id) => Work::Resume(id),
                None => match self.ask(&call).await? {
                    Asked::Passed(answer) => return Ok(answer),
                    Asked::Priced(answer) => Work::Pay(Box::new(answer)),
                },
            },
        };
        self.work(call, work, None).await
    }

    /// Asks unpaid, and passes the answer on, whatever it is.
    async fn pass(&self, call: &Call) -> Result<Response<Body>, Problem> {
        let Opened { answer, rest } = self.open(call).await?;
        Ok(answer::passed(answer, rest))
    }

    async fn ask(&self, call: &Call) -> Result<Asked, Problem> {
        let Opened { mut answer, rest } = self.open(call).await?;
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            return Ok(Asked::Passed(answer::passed(answer, rest)));
        }
        if let Some(rest) = rest {
            answer.body = read(rest).await;
        }
        Ok(Asked::Priced(answer))
    }

    async fn open(&self, call: &Call) -> Result<Opened, Problem> {
        // Nobody closes it.
        let _place = self.asked.acquire().await;
        Ok(self.transport.open(&call.request, None, call.reach, ANSWER_WITHIN).await?)
    }

    /// Does it in a task of its own: a program that hangs up cancels nothing that may have been signed.
    async fn work(&self, call: Call, work: Work, turn: Option<Turn<Key>>) -> Result<Response<Body>, Problem> {
        let place = self.purchases.clone().acquire_owned().await.map_err(|_| Problem::WalletUnavailable)?;
        // What has a name is in the journal, where the next of that name finds it.
        let (promise, wait) = self.left.begin((!call.is_named()).then(|| call.alike.clone()));
        let mut waiting = call.waiting();
        if let Work::Pay(asked) = &work {
            waiting.asked = Some(Answer::clone(asked));
        }
        let options = Options {
            max: self.max.clone(),
            // The program follows, and asks us again.
            follow: false,
            // What is paid as it goes on would have to be held until its end.
            sessions: Sessions::Never,
            acknowledged: true,
            ..Options::default()
        };
        tokio::spawn(async move {
            let Call { customer, request, place: body, .. } = call;
            let done = match work {
                Work::Pay(asked) => customer.client.pay_for(request, *asked, &options).await,
                Work::Resume(id) => customer.client.resume(&id, Some(request), &options).await,
            };
            promise.keep(done);
            drop((turn, place, body));
        });
        self.end(waiting, wait).await
    }

    /// Waits for what a purchase comes to, and tells the program.
    async fn end(&self, waiting: Waiting, wait: Wait<Alike, Done>) -> Result<Response<Body>, Problem> {
        // Whoever was at it is gone only when this process ends.
        match wait.end().await.ok_or(Problem::WalletUnavailable)? {
            Ok(Outcome::Free(answer)) => Ok(answer::passed(answer, None)),
            Ok(Outcome::Paid { answer, payment }) => {
                if let Came::TooLarge { limit } = answer.body {
                    return Err(Problem::PaidTooLarge { id: payment.id, limit });
                }
                let Waiting { client, method, alike, exit, is_named, .. } = waiting;
                let told = receiver(client, (!is_named).then(|| (self.left.clone(), alike)), payment.id);
                Ok(answer::bought(answer, &method, &payment, exit, told))
            }
            Ok(Outcome::Refused { answer, payment, reason }) => {
                Ok(answer::refused(answer, &payment, &reason))
            }
            Ok(Outcome::Unknown { payment, why, .. }) => Err(Problem::Unknown { id: payment.id, why }),
            Ok(Outcome::Denied { plan, denied }) => {
                unpaid(waiting.asked, &Unpaid::of(&plan, denied.as_ref()))
            }
            Err(FetchError::Challenge { error, answer }) => {
                unpaid(Some(*answer), &Unpaid::new("challenge_unreadable", error))
            }
            // No dry run is asked for.
            Ok(Outcome::Planned(_)) => Err(Problem::WalletUnavailable),
            Err(error) => Err(error.into()),
        }
    }
}

/// A program that waits for a purchase.
struct Waiting {
    client: Arc<Client>,
    method: Method,
    alike: Alike,
    is_named: bool,
    /// The connection on which it waits.
    exit: Option<Departures>,
    /// The price, as its seller asked it.
    asked: Option<Answer>,
}

/// Who is told whether what was bought left for the program. `left` is where it is kept else.
fn receiver(
    client: Arc<Client>,
    left: Option<(Left<Alike, Done>, Alike)>,
    id: PurchaseId,
) -> impl FnOnce(bool) + Send + 'static {
    let runtime = Handle::current();
    move |gone| {
        if gone {
            runtime.spawn(async move {
                if let Err(error) = client.received(&id).await {
                    tracing::warn!(%id, %error, "that a purchase is delivered could not be written down");
                }
            });
        } else if let Some((left, alike)) = left {
            left.leave(alike, id);
        }
    }
}

/// The price as its seller wrote it, and why it is not paid.
fn unpaid(asked: Option<Answer>, why: &Unpaid) -> Result<Response<Body>, Problem> {
    match asked {
        Some(asked) if asked.body.complete().is_some() => Ok(answer::unpaid(asked, why)),
        Some(_) => Err(Problem::AnswerTooLarge(MAX_PRICE_BYTES)),
        None => Err(Problem::WalletUnavailable),
    }
}

/// Reads what a seller says beside its price.
async fn read(mut rest: Box<dyn Pieces>) -> Came {
    let deadline = Instant::now() + PRICE_WITHIN;
    let mut read = BytesMut::new();
    loop {
        match rest.next(deadline.saturating_duration_since(Instant::now())).await {
            Ok(Some(piece)) if read.len().saturating_add(piece.len()) > MAX_PRICE_BYTES => {
                return Came::TooLarge { limit: MAX_PRICE_BYTES };
            }
            Ok(Some(piece)) => read.extend_from_slice(&piece),
            Ok(None) => return Came::Complete(read.freeze()),
            Err(_) => return Came::Truncated(read.freeze()),
        }
    }
}

impl Call {
    fn is_named(&self) -> bool {
        self.request.headers.contains_key(IDEMPOTENCY_KEY)
    }

    fn waiting(&self) -> Waiting {
        Waiting {
            client: self.customer.client.clone(),
            method: self.request.method.clone(),
            alike: self.alike.clone(),
            is_named: self.is_named(),
            exit: self.exit.clone(),
            asked: None,
        }
    }

    /// The payment that has to be shown for this name, if there is one.
    async fn earlier_of_name(&self) -> Result<Option<PurchaseId>, Problem> {
        let bought = self.customer.books.latest_for(&self.key.1).await;
        let Some(mut earlier) = bought.map_err(|denied| unavailable(&denied))? else { return Ok(None) };
        // What a process that is gone left unsigned stands in nobody's way.
        if earlier.state == State::Intended {
            let recovered = self.customer.client.authorizer().recover().await;
            recovered.map_err(FetchError::from)?;
            let again = self.customer.client.authorizer().purchase(&earlier.id).await;
            earlier = again.map_err(FetchError::from)?;
        }
        if may_be_proven_unused(&earlier) {
            self.customer.client.reconcile(&earlier.id).await.map_err(FetchError::from)?;
            let again = self.customer.client.authorizer().purchase(&earlier.id).await;
            earlier = again.map_err(FetchError::from)?;
        }
        match earlier.state {
            State::Intended => Err(Problem::InProgress),
            State::Released => Ok(None),
            State::Signed | State::Presented | State::Settled | State::Unknown | State::Refused => {
                Ok(Some(earlier.id))
            }
        }
    }

    /// The payment that an earlier request of exactly this kind left open.
    async fn abandoned(&self) -> Result<Option<PurchaseId>, Problem> {
        let found = self.customer.client.authorizer().abandoned(Some(&self.key.1)).await;
        // The latest: earlier ones were followed by it, so somebody wanted it besides.
        Ok(found.map_err(FetchError::from)?.last().map(|purchase| purchase.id))
    }
}

/// Whether the chain may prove by now that a payment moved nothing.
fn may_be_proven_unused(purchase: &Purchase) -> bool {
    let open = matches!(purchase.state, State::Presented | State::Unknown | State::Refused);
    open && purchase.expires <= system_clock().wall
}
