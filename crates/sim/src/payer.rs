//! A buyer that is not ours: it pays x402 by hand, retries as it likes, and sometimes tries what it should not.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farthing_evm::{B256, Key, from_alloy, to_alloy};
use farthing_primitives::{PullMethod, Registry};
use farthing_rails::exact_evm::{Presented, Requirement, Tokens, buy};
use farthing_rails::x402;
use farthing_wire::x402::{Message as _, v1, v2};
use http::{HeaderMap, HeaderValue, Method};

use crate::exec::{Exec, ProcessId, lock};
use crate::facts::{Ledger, Signed};
use crate::gateway::{MAX_TIMEOUT, Machine, Shelf, short};
use crate::net::{Answer, Message, Net, NoAnswer};
use crate::rng::Rng;
use crate::world::{Skew, true_time};

/// How a buyer shows its payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Once, and again when no answer came.
    Plain,
    /// In so many copies at once.
    Copies(u32),
    /// Also where another thing is sold at the same price.
    Elsewhere,
}

/// In what words a buyer pays, and how its money is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pays {
    /// x402 v2, by EIP-3009.
    #[default]
    V2,
    /// x402 v1: it reads the body, and its payment is for whatever it is shown for first.
    V1,
    /// x402 v2, through Permit2 and the x402 proxy.
    Permit2,
}

/// What a buyer wants, and what it wrote down about it. It survives the buyer's process.
#[derive(Debug, Clone)]
pub struct Intent {
    pub shelf: Shelf,
    pub style: Style,
    pub header: Option<String>,
    pub nonce: Option<B256>,
    pub end: Option<End>,
}

/// How a purchase ended for its buyer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Goods,
    /// A clear no, after the payment was shown.
    Refused(String),
    /// Used up, or for another request.
    Conflict(String),
    /// It was never challenged, or gave up before it signed.
    Nothing,
}

pub struct Buyer {
    pub number: usize,
    pub exec: Exec,
    pub seed: u64,
    pub ledger: Arc<Ledger>,
    pub net: Net,
    pub gateway: Arc<Machine>,
    pub key: Key,
    pub pays: Pays,
    pub skew: Skew,
    pub intents: Mutex<Vec<Intent>>,
    pub process: Mutex<ProcessId>,
    pub lives: AtomicU64,
}

impl std::fmt::Debug for Buyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buyer {}", self.number)
    }
}

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(25);

impl Buyer {
    pub fn kill(&self) {
        self.ledger.note(|| format!("buyer {} is killed", self.number));
        self.exec.kill(*lock(&self.process));
        lock(&self.ledger.facts).restarts += 1;
    }

    /// Starts a process that takes up all purchases that are not over.
    pub fn boot(self: &Arc<Self>) {
        self.lives.fetch_add(1, Ordering::Relaxed);
        *lock(&self.process) = self.exec.new_process();
        let open: Vec<usize> = {
            let intents = lock(&self.intents);
            (0..intents.len()).filter(|n| intents[*n].end.is_none()).collect()
        };
        open.into_iter().for_each(|intent| self.pursue(intent));
    }

    pub fn want(self: &Arc<Self>, shelf: Shelf, style: Style) {
        let intent = {
            let mut intents = lock(&self.intents);
            intents.push(Intent { shelf, style, header: None, nonce: None, end: None });
            intents.len() - 1
        };
        self.ledger.note(|| format!("buyer {} wants {} ({style:?}), #{intent}", self.number, shelf.path));
        self.pursue(intent);
    }

    fn pursue(self: &Arc<Self>, intent: usize) {
        let this = self.clone();
        let process = *lock(&self.process);
        self.exec.spawn(process, Box::pin(async move { this.buy(intent).await }));
    }

    async fn buy(self: Arc<Self>, n: usize) {
        let life = self.lives.load(Ordering::Relaxed);
        let mut rng = Rng::stream(self.seed, &format!("buyer-{}-{n}-{life}", self.number));
        let mut pause = Duration::from_millis(300);
        let mut tries = 0;
        let header = loop {
            let intent = lock(&self.intents)[n].clone();
            if let Some(header) = intent.header {
                break header;
            }
            match self.ask(intent.shelf, None).await {
                Ok(answer) if answer.status == 402 => {
                    if self.sign(n, &answer, &mut rng).is_none() {
                        self.ledger.note(|| format!("buyer {} cannot pay for #{n}", self.number));
                        return self.end(n, End::Nothing);
                    }
                }
                Ok(answer) if answer.status == 200 => {
                    return self.ledger.broken(format!("buyer {} has #{n} for nothing", self.number));
                }
                _ if tries > 8 => return self.end(n, End::Nothing),
                _ => {
                    tries += 1;
                    self.exec.sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(8));
                }
            }
        };
        let intent = lock(&self.intents)[n].clone();
        if let Style::Copies(copies) = intent.style {
            for _ in 1..copies {
                let (this, header) = (self.clone(), header.clone());
                let copy = async move {
                    if let Ok(answer) = this.ask(intent.shelf, Some(&header)).await
                        && this.look(n, &answer) == Some(End::Goods)
                    {
                        this.end(n, End::Goods);
                    }
                };
                self.exec.spawn(*lock(&self.process), Box::pin(copy));
            }
        }
        if intent.style == Style::Elsewhere {
            let (this, header) = (self.clone(), header.clone());
            let other = intent.elsewhere();
            let elsewhere = async move {
                let Ok(answer) = this.ask(other, Some(&header)).await else { return };
                if this.pays == Pays::V1 {
                    // Spec: x402 v1 section 5.2: nothing in the payment says for what it is.
                    if this.look(n, &answer) == Some(End::Goods) {
                        this.end(n, End::Goods);
                    }
                } else if answer.status == 200 {
                    let path = intent.shelf.path;
                    this.ledger.broken(format!("a payment for {path} bought {}", other.path));
                }
            };
            self.exec.spawn(*lock(&self.process), Box::pin(elsewhere));
        }
        let mut pause = Duration::from_millis(500);
        loop {
            if let Ok(answer) = self.ask(intent.shelf, Some(&header)).await
                && let Some(end) = self.look(n, &answer)
            {
                return self.end(n, end);
            }
            self.exec.sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(8));
        }
    }

    fn end(&self, n: usize, end: End) {
        self.ledger.note(|| format!("buyer {} ends #{n}: {end:?}", self.number));
        let known = &mut lock(&self.intents)[n].end;
        if end == End::Goods || known.is_none() {
            *known = Some(end);
        }
    }

    /// What an answer to a payment means to whoever takes it at its word. `None`: ask again.
    pub fn look(&self, n: usize, answer: &Answer) -> Option<End> {
        let status = answer.status.as_u16();
        if status == 200 {
            let body = String::from_utf8_lossy(&answer.body).into_owned();
            let Some(id) = body.strip_prefix("goods for ").and_then(|id| id.parse().ok()) else {
                self.ledger.broken(format!("buyer {} was given something else: {body:?}", self.number));
                return None;
            };
            let copies = {
                let mut facts = lock(&self.ledger.facts);
                let copies = facts.received.entry(id).or_default();
                *copies += 1;
                *copies
            };
            self.ledger.note(|| format!("buyer {} has #{n}: goods for {id}, time {copies}", self.number));
            return Some(End::Goods);
        }
        let code = code_of(answer);
        self.ledger.note(|| format!("buyer {} is told {status} {code} for #{n}", self.number));
        match status {
            // Spec: x402 exact on EVM: 412 where Permit2 may not take that much.
            402 | 412 => Some(End::Refused(code)),
            409 if code == "payment_in_progress" => None,
            409 => Some(End::Conflict(code)),
            // Spec: `settlement_pending`, time-outs and broken gateways: ask again with the identical payment.
            _ => None,
        }
    }

    pub async fn ask(&self, shelf: Shelf, header: Option<&str>) -> Result<Answer, NoAnswer> {
        let mut headers = HeaderMap::new();
        headers.insert("host", HeaderValue::from_static("api.example"));
        if let Some(value) = header.and_then(|header| HeaderValue::from_str(header).ok()) {
            headers.insert(if self.pays == Pays::V1 { "x-payment" } else { "payment-signature" }, value);
        }
        let body = if shelf.method == "POST" { Bytes::from_static(b"one, please") } else { Bytes::new() };
        let method = if shelf.method == "POST" { Method::POST } else { Method::GET };
        let message = Message { method, path: shelf.path.to_owned(), headers, body };
        let listener = self.gateway.listener.clone();
        self.net.ask(move || lock(&listener).clone(), message, PATIENCE).await
    }

    /// Signs what the challenge asks for, and writes it down before anybody sees it.
    fn sign(&self, n: usize, answer: &Answer, rng: &mut Rng) -> Option<()> {
        let challenge = Challenge::read(self.pays, answer)?;
        let asked = challenge.asked()?;
        let mut nonce = [0; 32];
        rng.fill(&mut nonce);
        let payer = from_alloy(self.key.address());
        let now = true_time(&self.exec).millis().saturating_add_signed(self.skew.load(Ordering::Relaxed));
        let now = farthing_primitives::Timestamp::from_millis(now);
        // Some sign for less time than they have.
        let validity = Duration::from_secs(rng.between(12, MAX_TIMEOUT.as_secs()));
        let unsigned = buy::authorize(&asked, &payer, buy::Nonce(nonce), validity, now).ok()?;
        let presented: Presented = unsigned.signed(&self.key.sign(unsigned.digest()), None);
        let header = challenge.header(&presented)?;
        let nonce = B256::new(nonce);
        let mut intents = lock(&self.intents);
        let intent = intents.get_mut(n)?;
        let signed = Signed {
            buyer: self.number,
            intent: n,
            path: intent.shelf.path,
            url: String::new(),
            from: self.key.address(),
            to: to_alloy(&asked.pay_to())?,
            value: asked.price().atoms(),
            expires_secs: unsigned.expires().secs(),
            at: self.exec.micros(),
        };
        self.ledger.note(|| {
            let nonce = nonce.to_string();
            format!("buyer {} signs {} for #{n}, valid {validity:?}", self.number, short(&nonce))
        });
        lock(&self.ledger.facts).signed.insert(nonce, signed);
        intent.header = Some(header);
        intent.nonce = Some(nonce);
        Some(())
    }
}

impl Intent {
    /// The other thing at the same price.
    pub fn elsewhere(&self) -> Shelf {
        crate::gateway::SHELVES[usize::from(self.shelf.path == "/weather")]
    }
}

/// What is asked for, in the words that a buyer reads.
enum Challenge {
    V1(Box<v1::PaymentRequirements>),
    V2 { offer: Box<v2::PaymentRequirements>, challenge: Box<v2::PaymentRequired> },
}

impl Challenge {
    fn read(pays: Pays, answer: &Answer) -> Option<Self> {
        if pays == Pays::V1 {
            let limits = farthing_wire::Limits { bytes: 10_000, values: 500, members: 100 };
            let body = farthing_wire::json::parse(&answer.body, limits).ok()?;
            let asked = v1::PaymentRequired::from_json(body).ok()?;
            return Some(Self::V1(Box::new(asked.accepts.into_iter().next()?)));
        }
        let header = answer.headers.get("payment-required")?;
        let challenge = Box::new(v2::PaymentRequired::from_header(header.as_bytes()).ok()?);
        let registry = Registry::builtin();
        let pull = if pays == Pays::Permit2 { PullMethod::Permit2 } else { PullMethod::Eip3009 };
        let fits = |offer: &&v2::PaymentRequirements| {
            x402::requirement_v2(offer, &Tokens::new(&registry)).is_ok_and(|asked| asked.method() == pull)
        };
        let offer = Box::new(challenge.accepts.iter().find(fits)?.clone());
        Some(Self::V2 { offer, challenge })
    }

    fn asked(&self) -> Option<Requirement> {
        let registry = Registry::builtin();
        let tokens = Tokens::new(&registry);
        match self {
            Self::V1(offer) => x402::requirement_v1(offer, &tokens).ok(),
            Self::V2 { offer, .. } => x402::requirement_v2(offer, &tokens).ok(),
        }
    }

    fn header(&self, presented: &Presented) -> Option<String> {
        Some(match self {
            Self::V1(offer) => x402::payment_v1(offer, presented)?.to_header(),
            Self::V2 { offer, challenge } => {
                let (resource, extensions) = (challenge.resource.clone(), challenge.extensions.clone());
                x402::payment_v2(offer, presented, Some(resource), extensions)?.to_header()
            }
        })
    }
}

fn code_of(answer: &Answer) -> String {
    let header = answer.headers.get("payment-required");
    let challenge = header.and_then(|header| v2::PaymentRequired::from_header(header.as_bytes()).ok());
    if let Some(error) = challenge.and_then(|challenge| challenge.error) {
        return error;
    }
    let limits = farthing_wire::Limits { bytes: 10_000, values: 100, members: 100 };
    let json = farthing_wire::json::parse(&answer.body, limits).ok();
    json.and_then(|json| Some(json.as_object()?.get_str("error")?.to_owned())).unwrap_or_default()
}
