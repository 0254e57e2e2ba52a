//! What waits for people, as the page and the webhook are told of it: read by one task, however many look.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::{ApprovalId, Ballot, Credential, Passkey, Question, Site, Verdict};
use farthing_policy::AgentName;
use farthing_primitives::Timestamp;
use farthing_wallet::journal::approvals::{ApprovalError, Approver, KeptApproval};
use farthing_wallet::journal::{Journal, JournalError};
use farthing_wallet::system_clock;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::{Notify, watch};

/// How often the journal is looked at: others ask, answer and pay.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// All that waits, at one time.
#[derive(Debug, Clone, Default)]
pub struct Board {
    /// Another one for another board.
    pub tag: String,
    pub requests: Vec<KeptApproval>,
    pub shown: Value,
}

pub struct Desk {
    journal: Arc<Journal>,
    site: Site,
    board: watch::Sender<Arc<Board>>,
    changed: Notify,
    closed: watch::Sender<bool>,
}

impl Desk {
    pub fn new(journal: Arc<Journal>, site: Site) -> Result<Self, JournalError> {
        let board = read(&journal, &site)?;
        Ok(Self {
            journal,
            site,
            board: watch::channel(Arc::new(board)).0,
            changed: Notify::new(),
            closed: watch::channel(false).0,
        })
    }

    pub fn board(&self) -> watch::Receiver<Arc<Board>> {
        self.board.subscribe()
    }

    /// Returns when what waits is something else than what was seen, or nobody will say so any more.
    pub async fn news(&self, seen: &str) {
        let (mut board, mut closed) = (self.board(), self.closed.subscribe());
        self.changed.notify_one();
        tokio::select! {
            _ = board.wait_for(|board| board.tag != seen) => {}
            _ = closed.wait_for(|closed| *closed) => {}
        }
    }

    /// Lets whoever waits for news go.
    pub fn close(&self) {
        self.closed.send_replace(true);
    }

    /// Looks at the journal now and then as long as somebody wants to know, and at once when something was said here.
    /// Never ends.
    pub async fn keep_looking(&self) {
        loop {
            let (journal, site) = (self.journal.clone(), self.site.clone());
            match tokio::task::spawn_blocking(move || read(&journal, &site)).await {
                Ok(Ok(board)) => {
                    self.board.send_if_modified(|shown| {
                        let news = shown.tag != board.tag;
                        if news {
                            *shown = Arc::new(board);
                        }
                        news
                    });
                }
                // What was shown stays. An answer is checked against the journal itself.
                Ok(Err(error)) => tracing::warn!(%error, "the wallet's journal could not be read"),
                Err(error) => tracing::warn!(%error, "the wallet's journal could not be read"),
            }
            if self.board.receiver_count() == 0 {
                self.changed.notified().await;
            } else {
                let _ = tokio::time::timeout(LOOK_EVERY, self.changed.notified()).await;
            }
        }
    }

    /// Somebody's word, by their passkey.
    pub async fn vote(
        &self,
        id: ApprovalId,
        approver: String,
        ballot: Ballot,
    ) -> Result<Value, ApprovalError> {
        let journal = self.journal.clone();
        let voted =
            tokio::task::spawn_blocking(move || journal.vote(&id, &approver, &ballot, &system_clock())).await;
        self.changed.notify_one();
        match voted {
            Ok(kept) => Ok(super::facts(&kept?)),
            Err(error) => Err(JournalError::Io(std::io::Error::other(error)).into()),
        }
    }
}

fn read(journal: &Journal, site: &Site) -> Result<Board, JournalError> {
    let requests = journal.approvals(true, &system_clock())?;
    let people = people(journal.approvers()?, site);
    let shown: Vec<Value> = requests.iter().map(|kept| show(kept, &people)).collect();
    let shown = json!({
        "people": people
            .iter()
            .map(|(one, passkey)| {
                json!({ "name": one.name, "credential": URL_SAFE_NO_PAD.encode(passkey.id.as_bytes()) })
            })
            .collect::<Vec<_>>(),
        "rp_id": site.rp_id(),
        "requests": shown,
    });
    let tag = hex::encode(Sha256::digest(shown.to_string()));
    Ok(Board { tag, requests, shown })
}

/// Those whose passkeys are for this page.
fn people(approvers: Vec<Approver>, site: &Site) -> Vec<(Approver, Passkey)> {
    let here = |one: Approver| match one.credential.clone() {
        Credential::Passkey(passkey) if passkey.site == *site => Some((one, passkey)),
        Credential::Passkey(_) | Credential::Key(_) => None,
    };
    approvers.into_iter().filter_map(here).collect()
}

fn show(kept: &KeptApproval, people: &[(Approver, Passkey)]) -> Value {
    let mut shown = super::facts(kept);
    let agent = kept.request.agent();
    let runs = |boss: &AgentName| agent.is_some_and(|agent| agent.is_within(boss));
    let may = |one: &Approver| {
        !one.runs.as_ref().is_some_and(runs) && !kept.votes.iter().any(|vote| vote.approver == one.name)
    };
    let challenge = |verdict: Verdict| URL_SAFE_NO_PAD.encode(kept.request.message(verdict));
    shown["network"] = kept.request.asset().network().to_string().into();
    shown["host"] = host(kept).into();
    shown["voters"] =
        people.iter().filter(|(one, _)| may(one)).map(|(one, _)| Value::from(one.name.clone())).collect();
    shown["challenge"] = json!({ "approve": challenge(Verdict::Approve), "deny": challenge(Verdict::Deny) });
    shown
}

/// The host and port that would be asked.
pub fn host(kept: &KeptApproval) -> String {
    let url = url::Url::parse(kept.request.url()).ok();
    let host = url.as_ref().and_then(|url| {
        let host = url.host_str()?;
        Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
    });
    host.unwrap_or_default()
}

/// How long until then; nothing if that is over.
pub fn left(until: Timestamp) -> Duration {
    Duration::from_millis(until.millis().saturating_sub(system_clock().wall.millis()))
}
