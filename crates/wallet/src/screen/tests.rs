use std::path::Path;

use farthing_policy::policy::SCREEN_WITHIN;
use farthing_policy::{Dollars, Policy};
use farthing_primitives::{Address, Network, Registry, Timestamp};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::decisions::{Decider, Ruling, Wish};
use crate::journal::Journal;
use crate::journal::law::Recalled;

const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";
const PAYEE: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

fn question() -> Question {
    let registry = Registry::builtin();
    Question {
        payee: Address::from_evm_bytes([1; 20]),
        money: registry.dollar(&Network::eip155(84532)).unwrap().atoms(50_000),
        dollars: Some(Dollars(5 * 10u128.pow(16))),
        authority: "api.weather.example:443".to_owned(),
        agent: Some("acme/scout".parse().unwrap()),
        payer: None,
    }
}

fn shell(script: &str) -> Asks {
    Asks::Command(vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()])
}

async fn said(asks: Asks, within: Duration) -> (Screening, Option<String>) {
    let screener = Screener { asks: asks.clone(), within, quorum: 1 };
    let screened = Desk::default().ask(&screener, &question(), For::Payment).await;
    assert!(screened.answers(&screener, &question()));
    (screened.said, screened.reason)
}

#[tokio::test]
async fn only_an_answer_of_a_program_is_one() {
    use ScreenFault::{Failed, Timeout, Unavailable, Unreadable};
    let fault = |fault| (Screening::Failed(fault), None);
    let long =
        format!("printf '{{\"answer\":\"allow\",\"reason\":\"{}\"}}'", "x".repeat(MAX_REASON_CHARS + 1));
    for (script, expected) in [
        ("echo '{\"answer\":\"allow\"}'", (Screening::Allow, None)),
        (
            "cat >/dev/null; echo '{\"answer\":\"deny\",\"reason\":\"listed\"}'",
            (Screening::Deny, Some("listed".to_owned())),
        ),
        ("printf '{\"answer\":\"hold\",\"reason\":null}'", (Screening::Hold, None)),
        // What it is asked, and what it sees of us.
        (
            "read q; case $q in '{\"version\":1,'*'\"amount\":\"50000\",\"usd\":\"0.05\",\"host\":\"api.weather.example:443\",\"agent\":\"acme/scout\"}') echo '{\"answer\":\"allow\"}';; esac",
            (Screening::Allow, None),
        ),
        (
            "test -z \"$HOME$CARGO_MANIFEST_DIR\" && test \"$PWD\" = / && echo '{\"answer\":\"allow\"}'",
            (Screening::Allow, None),
        ),
        ("", fault(Unreadable)),
        ("exit 3", fault(Failed)),
        ("echo '{\"answer\":\"allow\"}'; exit 3", fault(Failed)),
        ("echo '{\"answer\":\"allow\"}'; kill -9 $$", fault(Failed)),
        ("echo allow", fault(Unreadable)),
        ("echo '{\"answer\":\"ALLOW\"}'", fault(Unreadable)),
        ("echo '{\"answer\":true}'", fault(Unreadable)),
        ("echo '{\"allow\":true}'", fault(Unreadable)),
        ("echo '{\"answer\":\"allow\",\"until\":1}'", fault(Unreadable)),
        ("echo '{\"answer\":\"allow\",\"answer\":\"allow\"}'", fault(Unreadable)),
        ("echo '{\"answer\":\"allow\"} {\"answer\":\"allow\"}'", fault(Unreadable)),
        ("echo '{\"answer\":\"allow\"'", fault(Unreadable)),
        ("printf '{\"answer\":\"allow\",\"reason\":\"a\\\\nb\"}'", fault(Unreadable)),
        (long.as_str(), fault(Unreadable)),
        ("while :; do echo yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy; done", fault(Unreadable)),
    ] {
        assert_eq!(said(shell(script), Duration::from_secs(10)).await, expected, "{script}");
    }
    let began = Instant::now();
    for script in [
        "sleep 60",
        "echo '{\"answer\":\"allow\"}'; sleep 60",
        "echo '{\"answer\":\"allow\"}'; exec >/dev/null; sleep 60",
    ] {
        assert_eq!(said(shell(script), Duration::from_millis(300)).await, fault(Timeout), "{script}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    let nobody = Asks::Command(vec!["/nowhere/screen".to_owned()]);
    assert_eq!(said(nobody, SCREEN_WITHIN).await, fault(Unavailable));
}

/// A server that says the same to everybody.
#[tokio::test]
async fn one_agent_that_asks_without_end_leaves_room_for_others() {
    let desk = Arc::new(Desk::default());
    let screener =
        |script: &str| Screener { asks: shell(script), within: Duration::from_secs(60), quorum: 1 };
    let of = |agent: &str, n: u128| Question {
        agent: Some(agent.parse().unwrap()),
        money: Registry::builtin().dollar(&Network::eip155(84532)).unwrap().atoms(n),
        ..question()
    };
    let asking: Vec<_> = (0..2 * MAX_OPEN as u128)
        .map(|n| {
            let (desk, slow, asked) = (desk.clone(), screener("sleep 60"), of("acme/loud", n));
            tokio::spawn(async move { desk.ask(&slow, &asked, For::Payment).await })
        })
        .collect();
    // It has all of its own places, and is at none of the others.
    while desk.places.available_permits() > MAX_OPEN - MAX_OPEN_OF_AGENT {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let quick = screener("echo '{\"answer\":\"allow\"}'");
    let other = desk.ask(&quick, &of("acme/quiet", 1), For::Payment).await;
    assert_eq!(other.said, Screening::Allow);
    assert_eq!(desk.places.available_permits(), MAX_OPEN - MAX_OPEN_OF_AGENT);
    assert_eq!(desk.of_agents.lock().unwrap().len(), 2);
    for one in asking {
        one.abort();
        let _ = one.await;
    }
    desk.ask(&quick, &of("acme/quiet", 2), For::Payment).await;
    assert_eq!(desk.of_agents.lock().unwrap().len(), 1);
}

async fn server(answer: &'static str) -> url::Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/screen", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut asked = vec![0; 4096];
                let _ = stream.read(&mut asked).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                // What does not end is not an answer yet.
                if answer.contains("content-length: 99") || answer.is_empty() {
                    tokio::time::sleep(Duration::from_secs(60)).await;
                }
            });
        }
    });
    url
}

#[tokio::test]
async fn only_an_answer_of_a_server_is_one() {
    use ScreenFault::{Failed, Timeout, Unavailable, Unreadable};
    let within = Duration::from_secs(10);
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 18\r\n\r\n{\"answer\":\"allow\"}",
            Screening::Allow,
        ),
        ("HTTP/1.1 202 Accepted\r\nconnection: close\r\n\r\n{\"answer\":\"hold\"}\n", Screening::Hold),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", Screening::Failed(Unreadable)),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n<html>", Screening::Failed(Unreadable)),
        (
            "HTTP/1.1 403 Forbidden\r\nconnection: close\r\n\r\n{\"answer\":\"allow\"}",
            Screening::Failed(Failed),
        ),
        ("HTTP/1.1 500 No\r\nconnection: close\r\n\r\n{\"answer\":\"allow\"}", Screening::Failed(Failed)),
        ("HTTP/1.1 302 Found\r\nlocation: /\r\nconnection: close\r\n\r\n", Screening::Failed(Failed)),
        ("HTTP/1.1 304 Not Modified\r\nconnection: close\r\n\r\n", Screening::Failed(Failed)),
        ("nonsense\r\n\r\n", Screening::Failed(Unavailable)),
    ] {
        assert_eq!(said(Asks::Url(server(answer).await), within).await.0, expected, "{answer}");
    }
    let brief = Duration::from_millis(300);
    for answer in ["", "HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"answer\":\"allow\"}"] {
        assert_eq!(
            said(Asks::Url(server(answer).await), brief).await.0,
            Screening::Failed(Timeout),
            "{answer}"
        );
    }
    // A port that was just free.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let gone = Asks::Url(format!("http://{gone}/").parse().unwrap());
    assert_eq!(said(gone, within).await.0, Screening::Failed(Unavailable));
}

fn policy(screen: &str) -> String {
    format!(
        "version: 1
budgets: {{acme: {{per_payment: $1, rolling: {{24h: $2}}}}}}
allow: [{{hosts: [api.weather.example]}}]
deny: [{{over: $0.50}}]
{screen}
"
    )
}

/// A screener that leaves a line for each question, and what it answers.
fn counting(log: &Path, answer: &str) -> String {
    let script = format!("cat >> {}; echo '{answer}'", log.display());
    format!("screen: {}", json!({ "command": ["/bin/sh", "-c", script], "within": "10s" }))
}

fn wish(offers: &[(&str, &str)]) -> Wish {
    let offer = |(atoms, payee): &(&str, &str)| -> Value {
        json!({
            "scheme": "exact", "network": "eip155:84532", "asset": USDC, "amount": atoms, "payTo": payee,
            "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
        })
    };
    Wish {
        method: "GET".to_owned(),
        url: "https://api.weather.example/v1/now".parse().unwrap(),
        body: None,
        tool: None,
        max: None,
        x402_version: 2,
        offers: offers.iter().map(offer).collect(),
    }
}

fn decider(text: &str) -> (Arc<Journal>, Decider) {
    let journal = Arc::new(Journal::in_memory().unwrap());
    journal.apply_policy(text, true).unwrap();
    (journal.clone(), Decider::new(journal, Registry::builtin(), [7; 32]).unwrap())
}

fn code(ruling: &Ruling) -> Option<&str> {
    match ruling {
        Ruling::Allow { .. } => None,
        Ruling::Deny(objections) => objections.first().map(|objection| objection.code.as_str()),
    }
}

#[tokio::test]
async fn a_payment_is_asked_about_once_and_each_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("asked");
    let (journal, decider) = decider(&policy(&counting(&log, "{\"answer\":\"allow\",\"reason\":\"known\"}")));
    let asked = || std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    assert_eq!(code(&decider.decide(&wish(&[("50000", PAYEE)])).await), None);
    assert_eq!(asked(), 1, "the look at it and the payment share an answer");
    assert_eq!(code(&decider.decide(&wish(&[("50000", PAYEE)])).await), None);
    assert_eq!(asked(), 2, "the next payment has its own");
    assert_eq!(code(&decider.decide(&wish(&[("50001", PAYEE)])).await), None);
    assert_eq!(asked(), 3, "and so has another amount");
    // Nobody hears of what is denied anyway.
    assert_eq!(code(&decider.decide(&wish(&[("500001", PAYEE)])).await), Some("denied_by_rule"));
    assert_eq!(code(&decider.decide(&wish(&[("50000", USDC)])).await), Some("payee_changed"));
    assert_eq!(asked(), 3);

    // What was said is kept, and counts when the past is decided about again.
    let bought = journal.history(1).unwrap().remove(0);
    let found = journal.findings(&bought.id).unwrap().unwrap();
    let kept = found.iter().find(|finding| finding.code == "screen_allowed").unwrap();
    assert!(kept.text.ends_with(": known") && kept.screener.is_some(), "{kept:?}");
    let replayed = |text: &str| {
        let policy = Policy::parse(text).unwrap();
        let replayed = journal.replay(&policy, &Registry::builtin(), Timestamp::from_millis(0)).unwrap();
        replayed.iter().map(|one| (one.screening, one.decision.is_allowed())).collect::<Vec<_>>()
    };
    let same = policy(&counting(&log, "{\"answer\":\"allow\",\"reason\":\"known\"}"));
    assert_eq!(replayed(&same), [(Recalled::Recorded, true); 3]);
    assert_eq!(replayed(&policy(&counting(&log, "{\"answer\":\"deny\"}"))), [(Recalled::Unknown, true); 3]);
    assert_eq!(replayed(&policy("")), [(Recalled::None, true); 3]);
    assert_eq!(asked(), 3, "nobody is asked about the past");
}

#[tokio::test]
async fn what_a_screener_does_not_allow_is_not_paid() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("asked");
    for (answer, expected) in [
        ("{\"answer\":\"deny\"}", "screen_denied"),
        ("{\"answer\":\"hold\"}", "approval_required"),
        ("yes", "screen_unreadable"),
    ] {
        let (journal, decider) = decider(&policy(&counting(&log, answer)));
        assert_eq!(code(&decider.decide(&wish(&[("50000", PAYEE)])).await), Some(expected));
        assert!(journal.history(1).unwrap().is_empty(), "nothing is reserved");
    }
    let silent = "screen: {command: [/bin/sleep, '60'], within: 1s}";
    let began = Instant::now();
    assert_eq!(
        code(&decider(&policy(silent)).1.decide(&wish(&[("50000", PAYEE)])).await),
        Some("screen_timeout")
    );
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn what_is_in_force_when_the_answer_comes_decides() {
    let dir = tempfile::tempdir().unwrap();
    let (log, open) = (dir.path().join("asked"), dir.path().join("open"));
    let script = format!(
        "cat >> {}; while ! test -e {}; do sleep 0.05; done; echo '{{\"answer\":\"allow\"}}'",
        log.display(),
        open.display()
    );
    let screen = format!("screen: {}", json!({ "command": ["/bin/sh", "-c", script], "within": "10s" }));
    let (journal, decider) = decider(&policy(&screen));
    let asking = tokio::spawn(async move { decider.decide(&wish(&[("50000", PAYEE)])).await });
    while !log.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The journal is free in the meantime, and what is written in it counts.
    let freeze = |rules: &mut farthing_policy::Rules| {
        rules.frozen = true;
        Ok(())
    };
    journal.change_rules(freeze).unwrap();
    std::fs::write(&open, "").unwrap();
    assert_eq!(code(&asking.await.unwrap()), Some("frozen"));
    assert!(journal.history(1).unwrap().is_empty());
}
