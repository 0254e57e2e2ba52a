//! Asking a policy's screener about a payment: the one place where it happens, before anything is reserved and outside of
//! every transaction. What decides is [`farthing_policy::Policy::decide`], which gets the answer with the request.

use std::collections::HashMap;
use std::process::Stdio;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use farthing_policy::policy::MAX_REASON_CHARS;
use farthing_policy::{
    AgentName, Asks, Clock, Law, Question, Request, ScreenFault, Screened, Screener, Screening,
};
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::authorizer::{Denied, LocalAuthorizer};

/// The longest answer, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;
/// How many questions of one wallet's process are open at once. Whoever comes then waits, and its deadline runs.
const MAX_OPEN: usize = 64;
/// How many of these may be one agent's, so that one that asks without end leaves room for the others.
const MAX_OPEN_OF_AGENT: usize = 16;
/// How long an answer is kept from the look at a payment to the payment itself, and how many are.
const KEPT_FOR: Duration = Duration::from_secs(10);
const MAX_KEPT: usize = 1024;
/// How often one payment is asked about: a deposit may have become another amount while the first answer was on its way.
const ASKED_AT_MOST: u8 = 2;
/// Where a program finds others. It gets nothing else of our surroundings, which may hold a passphrase.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Somebody who has to be asked, and what about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub screener: Screener,
    pub question: Question,
}

/// What was heard so far about the payment that is being decided about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Heard {
    answer: Option<Screened>,
    asked: u8,
}

/// What a decision is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum For {
    /// To see what would come of it: an answer is kept for the payment that may follow.
    Sight,
    /// A payment: an answer is good for one.
    Payment,
}

/// How much of the past counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    All,
    /// What a channel pays for is in its deposit already.
    InDeposit,
}

impl LocalAuthorizer {
    /// Does `work`, and asks a screener in between if its word is all that is missing.
    ///
    /// INVARIANT: `work` decides anew, by everything that is in force then; an answer is one of the things that it decides by.
    pub(crate) async fn screened<T: Send + 'static>(
        &self,
        what: For,
        work: impl Fn(&Self, &Heard) -> Result<T, Denied> + Send + Sync + 'static,
    ) -> Result<T, Denied> {
        let work = Arc::new(work);
        let mut heard = Heard::default();
        loop {
            let (again, so_far) = (work.clone(), heard.clone());
            let ask = match self.on_disk(move |this| again(this, &so_far)).await {
                Err(Denied::Unscreened(ask)) => ask,
                done => return done,
            };
            let answer = if self.is_simulated() {
                // There is nobody outside of a simulated world.
                unanswered(&ask.screener.asks, &ask.question, ScreenFault::Unavailable)
            } else {
                self.desk.ask(&ask.screener, &ask.question, what).await
            };
            heard = Heard { answer: Some(answer), asked: heard.asked.saturating_add(1) };
        }
    }

    /// Adds to a request what the policy's screener said of it.
    ///
    /// # Errors
    /// [`Denied::Unscreened`] if it has to be asked first. Of what is denied anyway nobody is told.
    pub(crate) fn with_screening(
        &self,
        law: &Law,
        mut request: Request,
        heard: &Heard,
        counts: Counts,
        clock: &Clock,
    ) -> Result<Request, Denied> {
        let Some(screener) = law.screener() else { return Ok(request) };
        let question = Question::of(&self.journal.as_own(&request));
        match &heard.answer {
            Some(answer) if answer.answers(screener, &question) || heard.asked >= ASKED_AT_MOST => {
                request.screened = Some(answer.clone());
                Ok(request)
            }
            _ => {
                let decision = match counts {
                    Counts::All => self.journal.preview(&request, clock)?,
                    Counts::InDeposit => self.journal.preview_spend(&request, clock)?,
                };
                if decision.asks_for_screening() {
                    return Err(Denied::Unscreened(Box::new(Ask { screener: screener.clone(), question })));
                }
                Ok(request)
            }
        }
    }
}

/// Where questions go out, and answers wait for their payment.
#[derive(Debug)]
pub(crate) struct Desk {
    places: Semaphore,
    /// Those of each agent who asks just now, and of the owner.
    of_agents: Mutex<HashMap<Option<AgentName>, Weak<Semaphore>>>,
    http: OnceLock<Option<reqwest::Client>>,
    kept: Mutex<HashMap<(Asks, Question), (Instant, Screened)>>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            places: Semaphore::new(MAX_OPEN),
            of_agents: Mutex::default(),
            http: OnceLock::new(),
            kept: Mutex::default(),
        }
    }
}

impl Desk {
    /// Asks, unless the look at this very payment asked a moment ago. Whatever is no answer in time denies.
    pub(crate) async fn ask(&self, screener: &Screener, question: &Question, what: For) -> Screened {
        if let Some(kept) = self.kept(screener, question, what) {
            return kept;
        }
        let asked = async {
            let own = self.places_of(question.agent.as_ref());
            // The agent's own first: whoever waits for that holds no place of the others.
            let _own = own.acquire().await.map_err(|_| ScreenFault::Unavailable)?;
            let _place = self.places.acquire().await.map_err(|_| ScreenFault::Unavailable)?;
            let asked = serde_json::to_vec(&QuestionRecord::of(question));
            let asked = asked.map_err(|_| ScreenFault::Unavailable)?;
            let said = match &screener.asks {
                Asks::Command(words) => run(words, asked).await?,
                Asks::Url(url) => self.post(url, asked).await?,
            };
            read(&said).ok_or(ScreenFault::Unreadable)
        };
        let answer = tokio::time::timeout(screener.within, asked).await;
        let (said, reason) = match answer.unwrap_or(Err(ScreenFault::Timeout)) {
            Ok(said) => said,
            Err(fault) => {
                tracing::warn!(screener = %screener.asks, code = fault.code(), "a payment is denied: its screener gave no answer");
                return unanswered(&screener.asks, question, fault);
            }
        };
        let screened = Screened { asks: screener.asks.clone(), question: question.clone(), said, reason };
        if what == For::Sight {
            self.keep(&screened);
        }
        screened
    }

    fn places_of(&self, agent: Option<&AgentName>) -> Arc<Semaphore> {
        let mut of_agents = self.of_agents.lock().unwrap_or_else(PoisonError::into_inner);
        // Those whom nobody uses take no room.
        of_agents.retain(|_, places| places.strong_count() > 0);
        let known = of_agents.get(&agent.cloned()).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let places = Arc::new(Semaphore::new(MAX_OPEN_OF_AGENT));
            of_agents.insert(agent.cloned(), Arc::downgrade(&places));
            places
        })
    }

    fn kept(&self, screener: &Screener, question: &Question, what: For) -> Option<Screened> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (screener.asks.clone(), question.clone());
        let found = match what {
            For::Sight => kept.get(&key).cloned(),
            // INVARIANT: an answer is good for one payment.
            For::Payment => kept.remove(&key),
        };
        found.filter(|(since, _)| since.elapsed() < KEPT_FOR).map(|(_, screened)| screened)
    }

    fn keep(&self, screened: &Screened) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.retain(|_, (since, _)| since.elapsed() < KEPT_FOR);
        }
        // Whoever looks at very much asks again when it pays.
        if kept.len() < MAX_KEPT {
            let key = (screened.asks.clone(), screened.question.clone());
            kept.insert(key, (Instant::now(), screened.clone()));
        }
    }

    async fn post(&self, url: &url::Url, asked: Vec<u8>) -> Result<Vec<u8>, ScreenFault> {
        let client = self.http.get_or_init(client).as_ref().ok_or(ScreenFault::Unavailable)?;
        let question =
            client.post(url.clone()).header(http::header::CONTENT_TYPE, "application/json").body(asked);
        let sent = question.send().await;
        let mut answer = sent.map_err(|_| ScreenFault::Unavailable)?;
        // A redirect is no answer: it would lead the question to somebody whom the owner did not name.
        if !answer.status().is_success() {
            return Err(ScreenFault::Failed);
        }
        let mut said = Vec::new();
        while let Some(piece) = answer.chunk().await.map_err(|_| ScreenFault::Unavailable)? {
            if said.len().saturating_add(piece.len()) > MAX_ANSWER_BYTES {
                return Err(ScreenFault::Unreadable);
            }
            said.extend_from_slice(&piece);
        }
        Ok(said)
    }
}

fn client() -> Option<reqwest::Client> {
    // Fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        // A proxy would hear whom we pay; and ours would have to ask about its own question.
        .no_proxy()
        .user_agent(concat!("farthing/", env!("CARGO_PKG_VERSION")));
    client.build().ok()
}

/// Runs a program: the question is its standard input, the answer its standard output, and it has to end with 0.
async fn run(words: &[String], mut asked: Vec<u8>) -> Result<Vec<u8>, ScreenFault> {
    let (program, arguments) = words.split_first().ok_or(ScreenFault::Unavailable)?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        // What it starts is ended with it.
        .process_group(0)
        // Whoever is late is ended, with the future that waits for it.
        .kill_on_drop(true)
        .spawn()
        .map_err(|_| ScreenFault::Unavailable)?;
    let _group = Group(child.id());
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ScreenFault::Unavailable);
    };
    asked.push(b'\n');
    let tell = async {
        // One that answers without listening has answered.
        let _ = stdin.write_all(&asked).await;
        drop(stdin);
    };
    let mut said = Vec::new();
    let mut first = stdout.take(MAX_ANSWER_BYTES as u64 + 1);
    let ((), heard) = tokio::join!(tell, first.read_to_end(&mut said));
    heard.map_err(|_| ScreenFault::Failed)?;
    if said.len() > MAX_ANSWER_BYTES {
        return Err(ScreenFault::Unreadable);
    }
    let status = child.wait().await.map_err(|_| ScreenFault::Failed)?;
    if status.success() { Ok(said) } else { Err(ScreenFault::Failed) }
}

/// A program and what it started; none of it outlives the question.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // Gone already, most likely.
            let _ = rustix::process::kill_process_group(leader, Signal::KILL);
        }
    }
}

fn unanswered(asks: &Asks, question: &Question, fault: ScreenFault) -> Screened {
    Screened { asks: asks.clone(), question: question.clone(), said: Screening::Failed(fault), reason: None }
}

/// The question as it is asked.
#[derive(Serialize)]
struct QuestionRecord<'a> {
    version: u32,
    payee: &'a str,
    /// CAIP-2.
    network: String,
    /// CAIP-19.
    asset: String,
    /// In atoms, as digits.
    amount: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    usd: Option<String>,
    /// With its port.
    host: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    agent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payer: Option<&'a str>,
}

impl<'a> QuestionRecord<'a> {
    fn of(question: &'a Question) -> Self {
        let asset = question.money.asset();
        Self {
            version: 1,
            payee: question.payee.as_str(),
            network: asset.network().to_string(),
            asset: asset.to_string(),
            amount: question.money.atoms().to_string(),
            usd: question.dollars.map(|dollars| dollars.plain()),
            host: &question.authority,
            agent: question.agent.as_ref().map(|agent| agent.as_str()),
            payer: question.payer.as_ref().map(|payer| payer.as_str()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswerRecord {
    answer: Word,
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Allow,
    Deny,
    Hold,
}

/// An answer, if it is exactly one.
fn read(said: &[u8]) -> Option<(Screening, Option<String>)> {
    let AnswerRecord { answer, reason } = serde_json::from_slice(said).ok()?;
    let plain =
        |reason: &String| reason.chars().count() <= MAX_REASON_CHARS && !reason.chars().any(char::is_control);
    if !reason.as_ref().is_none_or(plain) {
        return None;
    }
    let said = match answer {
        Word::Allow => Screening::Allow,
        Word::Deny => Screening::Deny,
        Word::Hold => Screening::Hold,
    };
    Some((said, reason.filter(|reason| !reason.is_empty())))
}

#[cfg(test)]
mod tests;
