//! The network between buyers and the gateway: it delays, duplicates, loses and cuts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farthing_paywall::PaywallBody;
use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::exec::{Exec, ProcessId, lock};
use crate::rng::Rng;

/// What ails the network. All chances are in a thousand.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ailments {
    /// The most milliseconds that one way takes.
    pub latency: u64,
    pub request_lost: u64,
    pub answer_lost: u64,
    /// The answer breaks off after its head.
    pub cut: u64,
    /// The request arrives twice.
    pub duplicated: u64,
    /// Nothing passes.
    pub partitioned: bool,
}

impl Ailments {
    /// All but a partition.
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            latency: rng.below(3000),
            request_lost: rng.below(400),
            answer_lost: rng.below(500),
            cut: rng.below(300),
            duplicated: rng.below(500),
            partitioned: false,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoAnswer {
    /// Nobody listens.
    Refused,
    Timeout,
    /// It ended before its end.
    Cut,
}

/// Whoever takes a request and answers it, once.
pub type Handler = Arc<
    dyn Fn(Request<Full<Bytes>>) -> futures_util::future::BoxFuture<'static, Response<PaywallBody>>
        + Send
        + Sync,
>;

/// A process that listens.
#[derive(Clone)]
pub struct Listener {
    pub process: ProcessId,
    pub handler: Handler,
}

#[derive(Debug, Clone)]
pub struct Net {
    exec: Exec,
    pub ailments: Arc<Mutex<Ailments>>,
    rng: Arc<Mutex<Rng>>,
}

/// A request that can be sent more than once.
#[derive(Debug, Clone)]
pub struct Message {
    pub method: http::Method,
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Message {
    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.path.parse().unwrap_or_default();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

impl Net {
    pub fn new(exec: Exec, rng: Rng) -> Self {
        Self { exec, ailments: Arc::default(), rng: Arc::new(Mutex::new(rng)) }
    }

    fn send_copy(&self, to: &Listener, message: &Message) {
        let (handler, request) = (to.handler.clone(), message.request());
        let copy = async move {
            // Its answer goes nowhere.
            let _ = read(handler(request).await, false).await;
        };
        self.exec.spawn(to.process, Box::pin(copy));
    }

    /// One exchange, of a process that may die meanwhile with a listener that may die meanwhile.
    pub async fn ask(
        &self,
        listener: impl Fn() -> Option<Listener>,
        message: Message,
        within: Duration,
    ) -> Result<Answer, NoAnswer> {
        let (ailments, there, back, lost, unheard, cut, twice, hangs_up) = {
            let ailments = *lock(&self.ailments);
            let mut rng = lock(&self.rng);
            let mut way = || Duration::from_micros(rng.below(ailments.latency * 1000 + 300));
            let (there, back) = (way(), way());
            let mut chance = |of| rng.per_mille(of);
            let fate = (chance(ailments.request_lost), chance(ailments.answer_lost), chance(ailments.cut));
            (ailments, there, back, fate.0, fate.1, fate.2, chance(ailments.duplicated), chance(500))
        };
        self.exec.sleep(there).await;
        if lost || ailments.partitioned {
            self.exec.sleep(within).await;
            return Err(NoAnswer::Timeout);
        }
        let Some(to) = listener() else { return Err(NoAnswer::Refused) };
        let (hang_up, hung_up) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        if twice {
            self.send_copy(&to, &message);
        }
        let (handler, request) = (to.handler, message.request());
        self.exec.spawn(
            to.process,
            Box::pin(async move {
                let serve = Box::pin(async move { read(handler(request).await, cut).await });
                // A server lets go of a request whose client is gone; some proxies don't tell it.
                match select(serve, hung_up).await {
                    Either::Left((answer, _)) => drop(tell.send(answer)),
                    Either::Right((Ok(()), _)) => {}
                    Either::Right((Err(_), serve)) => drop(tell.send(serve.await)),
                }
            }),
        );
        let answer = match select(told, self.exec.sleep(within)).await {
            Either::Left((Ok(answer), _)) => answer,
            // The process is dead.
            Either::Left((Err(_), _)) => return Err(NoAnswer::Cut),
            Either::Right(_) => {
                if hangs_up {
                    // Nobody may be there any more.
                    let _ = hang_up.send(());
                }
                return Err(NoAnswer::Timeout);
            }
        };
        if unheard {
            self.exec.sleep(within).await;
            return Err(NoAnswer::Timeout);
        }
        self.exec.sleep(back).await;
        answer
    }
}

/// An answer whose body still comes.
pub struct Coming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub pieces: Pieces,
}

/// A body as it comes. Dropping it hangs up.
pub struct Pieces {
    net: Net,
    rest: mpsc::Receiver<Option<Bytes>>,
    /// Is dropped with the rest, so that the other side sees that nobody listens.
    _line: oneshot::Sender<()>,
    over: bool,
}

impl Pieces {
    /// The next piece; `None` is the end. A process that dies ends nothing.
    pub async fn next(&mut self, within: Duration) -> Result<Option<Bytes>, NoAnswer> {
        if self.over {
            return Ok(None);
        }
        let (on_the_way, cut, partitioned) = {
            let ailments = *lock(&self.net.ailments);
            let mut rng = lock(&self.net.rng);
            let wait = Duration::from_micros(rng.below(ailments.latency * 250 + 100));
            (wait, rng.per_mille(ailments.cut / 4), ailments.partitioned)
        };
        let piece = match select(self.rest.next(), self.net.exec.sleep(within)).await {
            Either::Left((Some(piece), _)) => piece,
            Either::Left((None, _)) => return Err(NoAnswer::Cut),
            Either::Right(_) => return Err(NoAnswer::Timeout),
        };
        self.net.exec.sleep(on_the_way).await;
        if cut || partitioned {
            self.rest.close();
            return Err(NoAnswer::Cut);
        }
        self.over = piece.is_none();
        Ok(piece)
    }
}

impl Net {
    /// The same as [`Net::ask`] for whoever takes the body as it comes.
    pub async fn open(
        &self,
        listener: impl Fn() -> Option<Listener>,
        message: Message,
        within: Duration,
    ) -> Result<Coming, NoAnswer> {
        let (ailments, there, back, lost, unheard, twice) = {
            let ailments = *lock(&self.ailments);
            let mut rng = lock(&self.rng);
            let mut way = || Duration::from_micros(rng.below(ailments.latency * 1000 + 300));
            let (there, back) = (way(), way());
            let mut chance = |of| rng.per_mille(of);
            let (lost, unheard) = (chance(ailments.request_lost), chance(ailments.answer_lost));
            (ailments, there, back, lost, unheard, chance(ailments.duplicated))
        };
        self.exec.sleep(there).await;
        if lost || ailments.partitioned {
            self.exec.sleep(within).await;
            return Err(NoAnswer::Timeout);
        }
        let Some(to) = listener() else { return Err(NoAnswer::Refused) };
        if twice {
            self.send_copy(&to, &message);
        }
        let (mut pass, rest) = mpsc::channel(2);
        let (line, mut hung_up) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let (handler, request) = (to.handler.clone(), message.request());
        self.exec.spawn(
            to.process,
            Box::pin(async move {
                let (parts, mut body) = handler(request).await.into_parts();
                if tell.send((parts.status, parts.headers)).is_err() {
                    return;
                }
                loop {
                    let frame = match select(body.frame(), &mut hung_up).await {
                        Either::Left((frame, _)) => frame,
                        Either::Right(_) => return,
                    };
                    let piece = match frame {
                        Some(Ok(frame)) => match frame.into_data() {
                            Ok(data) => Some(data),
                            Err(_) => continue,
                        },
                        Some(Err(_)) => return,
                        None => None,
                    };
                    let over = piece.is_none();
                    // Whoever hung up gets no more, and nobody reads on for it.
                    if std::future::poll_fn(|cx| pass.poll_ready(cx)).await.is_err()
                        || pass.start_send(piece).is_err()
                        || over
                    {
                        return;
                    }
                }
            }),
        );
        let (status, headers) = match select(told, self.exec.sleep(within)).await {
            Either::Left((Ok(head), _)) => head,
            Either::Left((Err(_), _)) => return Err(NoAnswer::Cut),
            Either::Right(_) => return Err(NoAnswer::Timeout),
        };
        if unheard {
            self.exec.sleep(within).await;
            return Err(NoAnswer::Timeout);
        }
        self.exec.sleep(back).await;
        Ok(Coming { status, headers, pieces: Pieces { net: self.clone(), rest, _line: line, over: false } })
    }
}

/// Reads an answer to its end, or breaks off after its head.
async fn read(response: Response<PaywallBody>, cut: bool) -> Result<Answer, NoAnswer> {
    let (parts, body) = response.into_parts();
    if cut {
        drop(body);
        return Err(NoAnswer::Cut);
    }
    match body.collect().await {
        Ok(body) => Ok(Answer { status: parts.status, headers: parts.headers, body: body.to_bytes() }),
        Err(_) => Err(NoAnswer::Cut),
    }
}
