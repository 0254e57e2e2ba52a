//! Tells a URL of the owner's that something waits. Nothing that comes back is an answer: silence is no, and so is noise.
//!
//! Spec: Standard Webhooks 1.0.0.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use farthing_primitives::Timestamp;
use farthing_wallet::journal::approvals::KeptApproval;
use farthing_wallet::system_clock;
use farthing_wire::webhook::{ID, SIGNATURE, Secret, TIMESTAMP};
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use url::Url;

use super::desk::{Board, host, left};
use crate::cli::Failure;
use crate::cli::is_kept_private;
use crate::config::SecretRef;

/// How long an answer may take. Spec: Standard Webhooks, "Request timeouts": 15 to 30 seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// When a message that was not taken is sent again: a request waits for a quarter of an hour, and so does its message.
const AGAIN_AFTER: [Duration; 5] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(120),
    Duration::from_secs(300),
];
/// How many messages are on their way at once.
const MAX_AT_ONCE: usize = 4;

/// Spec: Standard Webhooks, "Payload structure".
const EVENT: &str = "approval.requested";
const GRANT_EVENT: &str = "approval.grant_requested";

#[derive(Debug, Args)]
pub struct WebhookArgs {
    /// A URL of yours that is told of each new request: https, or http on this machine
    #[arg(long, value_name = "URL", requires = "webhook_secret")]
    webhook: Option<Url>,
    /// What the messages are signed with, \"whsec_\" and base64: env:NAME or file:PATH
    #[arg(long, value_name = "REF", requires = "webhook")]
    webhook_secret: Option<SecretRef>,
}

/// Where messages go, and what signs them.
pub struct Webhook {
    url: Url,
    secret: Secret,
    http: reqwest::Client,
    again_after: Vec<Duration>,
}

/// What became of a message.
#[derive(Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    /// Nothing is to be sent there any more.
    Gone,
    Failed,
}

impl Webhook {
    pub fn new(args: WebhookArgs) -> Result<Option<Self>, Failure> {
        let (Some(url), Some(secret)) = (args.webhook, args.webhook_secret) else { return Ok(None) };
        let secret =
            secret.resolve().map_err(|error| Failure::usage(format!("--webhook-secret: {error}")))?;
        Ok(Some(Self::to(url, secret.expose(), AGAIN_AFTER.to_vec())?))
    }

    fn to(url: Url, secret: &str, again_after: Vec<Duration>) -> Result<Self, Failure> {
        // Spec: Standard Webhooks, "Enforcing HTTPS". Who asks whom for how much is nobody else's business.
        if !is_kept_private(&url) {
            return Err(Failure::usage("--webhook: https, or http on this machine"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failure::usage("--webhook: no name and no password belong into a URL"));
        }
        let secret =
            Secret::parse(secret).map_err(|error| Failure::usage(format!("--webhook-secret: {error}")))?;
        let http = reqwest::Client::builder()
            // Spec: Standard Webhooks, "Delivery success and failure": a redirect is a failure.
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A proxy of the environment may be the one that pays.
            .no_proxy()
            .timeout(ANSWER_WITHIN)
            .build()
            .map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Self { url, secret, http, again_after })
    }

    /// Tells of each request once, or as often as it takes. Never ends.
    ///
    /// What waited before this began is told again: whoever gets it knows it by its id.
    pub async fn keep_telling(self, mut board: watch::Receiver<Arc<Board>>, page: String) {
        let webhook = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_AT_ONCE));
        let mut told = BTreeSet::new();
        let mut gone = tokio::task::JoinSet::new();
        loop {
            let requests = board.borrow_and_update().requests.clone();
            told.retain(|id| requests.iter().any(|kept| kept.id == *id));
            for kept in requests {
                if told.insert(kept.id) {
                    let (webhook, places, page) = (webhook.clone(), places.clone(), page.clone());
                    gone.spawn(async move { webhook.tell(&kept, &page, &places).await });
                }
            }
            tokio::select! {
                changed = board.changed() => if changed.is_err() { return },
                Some(sent) = gone.join_next() => {
                    // Spec: Standard Webhooks, "Delivery success and failure": 410 asks to send nothing any more.
                    if matches!(sent, Ok(Sent::Gone)) {
                        tracing::warn!("the webhook is gone: nothing more is sent there");
                        return;
                    }
                }
            }
        }
    }

    async fn tell(&self, kept: &KeptApproval, page: &str, places: &Semaphore) -> Sent {
        let body = message(kept, page);
        let id = kept.id.to_string();
        let mut again_after = self.again_after.iter();
        loop {
            let sent = match places.acquire().await {
                Ok(_place) => self.send(&id, body.clone(), system_clock().wall).await,
                Err(_) => return Sent::Failed,
            };
            let next = match sent {
                Sent::Taken | Sent::Gone => return sent,
                Sent::Failed => again_after.next().copied(),
            };
            // Nobody can answer any more what has expired.
            let Some(next) = next.filter(|next| *next < left(kept.request.expires())) else {
                tracing::warn!(approval = id, "the webhook did not take a message");
                return Sent::Failed;
            };
            tokio::time::sleep(next).await;
        }
    }

    async fn send(&self, id: &str, body: String, now: Timestamp) -> Sent {
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header(ID, id)
            .header(TIMESTAMP, now.secs())
            .header(SIGNATURE, self.secret.sign(id, now.secs(), body.as_bytes()))
            .body(body);
        // What the answer says beside its status is not read.
        match request.send().await.map(|answer| answer.status()) {
            Ok(status) if status.is_success() => Sent::Taken,
            Ok(status) if status.as_u16() == 410 => Sent::Gone,
            Ok(_) | Err(_) => Sent::Failed,
        }
    }
}

/// Who, whom, how much and until when; of the URL only the host, since there may be secrets in the rest.
fn message(kept: &KeptApproval, page: &str) -> String {
    let asked = &kept.request;
    let mut message = json!({
        // Whoever knows payments alone does not take a grant for one.
        "type": if asked.grant().is_some() { GRANT_EVENT } else { EVENT },
        "timestamp": kept.created.to_string(),
        "data": {
            "id": kept.id.to_string(),
            "agent": asked.agent().map(ToString::to_string),
            "method": asked.method(),
            "host": host(kept),
            "payee": asked.payee().to_string(),
            "payer": asked.payer().to_string(),
            "asset": asked.asset().to_string(),
            "max_atoms": asked.max().to_string(),
            "max": super::amount(kept, asked.max()),
            "rule": kept.rule,
            "quorum": kept.quorum,
            "expires": asked.expires().to_string(),
            "page": page,
        },
    });
    if let Some(grant) = asked.grant() {
        message["data"]["payments"] = grant.payments.into();
        message["data"]["total_atoms"] = grant.total.to_string().into();
        message["data"]["total"] = super::amount(kept, grant.total).into();
    }
    message.to_string()
}

#[cfg(test)]
mod tests {
    // In a test a panic is the report.
    #![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

    use std::sync::Mutex;

    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use farthing_approval::{ApprovalId, ApprovalRequest, GrantRequest, Status, Subject, Uses};
    use farthing_primitives::{Address, Network, Registry};

    use super::*;

    // The example of the Standard Webhooks libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    fn secret() -> Secret {
        Secret::parse(SECRET).unwrap()
    }

    fn kept(n: u8, lasts: Duration) -> KeptApproval {
        let request = ApprovalRequest {
            subject: Subject {
                agent: Some("acme/research".parse().unwrap()),
                payer: Address::from_evm_bytes([1; 20]),
                method: "GET".to_owned(),
                url: format!("https://api.weather.example:8443/v1/now?api_key=hush&n={n}"),
                body: [7; 32],
                payee: Address::from_evm_bytes([2; 20]),
                asset: Registry::builtin().dollar(&Network::eip155(8453)).unwrap().id.clone(),
            },
            max: 350_000,
            expires: system_clock().wall.plus(lasts),
        };
        KeptApproval {
            id: ApprovalId::of(&request.digest()),
            request: request.into(),
            rule: "dear".to_owned(),
            quorum: 2,
            created: Timestamp::from_secs(1_700_000_000),
            votes: Vec::new(),
            used: false,
            uses: Uses::default(),
            revoked: false,
            status: Status::Pending { voices: 0, quorum: 2 },
        }
    }

    #[test]
    fn a_message_says_what_waits_and_no_secret_of_the_url() {
        let text = message(&kept(1, Duration::from_secs(900)), "http://localhost:8405");
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(said["type"], EVENT);
        assert_eq!(said["timestamp"], "2023-11-14T22:13:20.000Z");
        assert_eq!(said["data"]["host"], "api.weather.example:8443");
        assert_eq!(said["data"]["max"], "0.35 USDC");
        assert_eq!(said["data"]["agent"], "acme/research");
        assert!(!text.contains("hush") && !text.contains("api_key"), "{text}");
    }

    #[test]
    fn a_message_about_a_grant_is_of_another_type_and_says_its_bounds() {
        let one = kept(1, Duration::from_secs(900));
        let terms = "n=10,total=1.00,until=1h,body=any".parse::<farthing_approval::GrantAsk>().unwrap();
        let payment = one.request.payment().unwrap();
        let terms = terms.terms(Registry::builtin().get(&payment.subject.asset).unwrap()).unwrap();
        let grant = GrantRequest::new(&payment.subject, payment.max, &terms, system_clock().wall).unwrap();
        let text = message(
            &KeptApproval { id: ApprovalId::of_grant(&grant.digest()), request: grant.into(), ..one },
            "http://localhost:8405",
        );
        let said: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(said["type"], "approval.grant_requested");
        let data = &said["data"];
        assert!(data["id"].as_str().unwrap().starts_with("grt_"), "{data}");
        assert_eq!(
            (&data["payments"], &data["total"], &data["max"]),
            (&10.into(), &"1 USDC".into(), &"0.35 USDC".into())
        );
        assert!(!text.contains("hush"), "{text}");
    }

    #[test]
    fn a_webhook_is_ours_over_tls_or_here_and_its_secret_is_one() {
        let made = |url: &str, secret: &str| {
            let _ = rustls::crypto::ring::default_provider().install_default();
            Webhook::to(url.parse().unwrap(), secret, Vec::new())
                .map(|_| ())
                .map_err(|failure| failure.message)
        };
        for url in ["https://hooks.example/x", "http://127.0.0.1:1/x", "http://localhost/", "http://[::1]:1/"]
        {
            assert_eq!(made(url, SECRET), Ok(()), "{url}");
        }
        for url in [
            "http://hooks.example/x",
            "http://127.0.0.1.example/",
            "ftp://localhost/",
            "https://a:b@c.example/",
        ] {
            assert!(made(url, SECRET).is_err(), "{url}");
        }
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_", "whsec_c2hvcnQ=", "whsec_!"] {
            let why = made("https://hooks.example/", bad).unwrap_err();
            assert!(bad.len() < 8 || !why.contains(&bad[6..]), "{why}");
        }
    }

    type Got = (String, u64, String, String);

    /// A service that gives these answers, one after the other, and then the last one always.
    async fn service(answers: &'static [u16]) -> (Url, Arc<Mutex<Vec<Got>>>) {
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let seen = got.clone();
        let hear = move |headers: HeaderMap, body: String| async move {
            let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
            let mut seen = seen.lock().unwrap();
            let status = answers.get(seen.len()).or(answers.last()).copied().unwrap();
            let secs = header("webhook-timestamp").parse().unwrap();
            seen.push((header("webhook-id"), secs, header("webhook-signature"), body));
            (StatusCode::from_u16(status).unwrap(), [("location", "/elsewhere")])
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap()).parse().unwrap();
        let routes = axum::Router::new().route("/hook", post(hear));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (url, got)
    }

    fn webhook(url: Url, tries: usize) -> Webhook {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Webhook::to(url, SECRET, vec![Duration::ZERO; tries]).unwrap()
    }

    #[tokio::test]
    async fn a_message_is_sent_until_it_is_taken_and_not_for_ever() {
        let waiting = kept(1, Duration::from_secs(900));
        let places = Semaphore::new(1);
        for (answers, sent, tries) in [
            (&[204][..], Sent::Taken, 1),
            (&[500, 302, 200], Sent::Taken, 3),
            (&[500], Sent::Failed, 4),
            (&[302], Sent::Failed, 4),
            (&[500, 410], Sent::Gone, 2),
        ] {
            let (url, got) = service(answers).await;
            assert_eq!(webhook(url, 3).tell(&waiting, "page", &places).await, sent, "{answers:?}");
            let got = got.lock().unwrap();
            assert_eq!(got.len(), tries, "{answers:?}");
            for (id, secs, signature, body) in got.iter() {
                assert_eq!(*id, waiting.id.to_string());
                assert_eq!(*signature, secret().sign(id, *secs, body.as_bytes()));
                assert_eq!(*body, message(&waiting, "page"));
            }
        }
        // What nobody can answer any more is not sent again.
        let (url, got) = service(&[500]).await;
        let over = kept(2, Duration::ZERO);
        assert_eq!(webhook(url, 3).tell(&over, "page", &places).await, Sent::Failed);
        assert_eq!(got.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn each_request_is_told_of_once_and_a_webhook_that_is_gone_of_none() {
        let board = |requests: Vec<KeptApproval>| Arc::new(Board { requests, ..Board::default() });
        let [first, second, third] = [1, 2, 3].map(|n| kept(n, Duration::from_secs(900)));
        let (url, got) = service(&[200, 410]).await;
        let (shown, seen) = watch::channel(board(vec![first.clone()]));
        let telling = tokio::spawn(webhook(url, 3).keep_telling(seen, "page".to_owned()));
        let heard = |count| {
            let got = got.clone();
            async move {
                while got.lock().unwrap().len() < count {
                    tokio::task::yield_now().await;
                }
            }
        };
        heard(1).await;
        shown.send_replace(board(vec![second.clone(), first.clone()]));
        heard(2).await;
        telling.await.unwrap();
        shown.send_replace(board(vec![third]));
        let ids: Vec<String> = got.lock().unwrap().iter().map(|(id, ..)| id.clone()).collect();
        assert_eq!(ids, [first.id.to_string(), second.id.to_string()]);
    }
}
