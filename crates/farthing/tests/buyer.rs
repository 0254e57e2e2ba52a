//! `farthing wallet` and `farthing fetch`, as the shipped binary, against sellers on this machine.

// In a test, a panic is the report.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};

use farthing_wire::json;
use farthing_wire::x402::{Message, SettlementResponse, header, v2};
use serde_json::Value;

const KEY: &str = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318";
const PAYER: &str = "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23";
const TX: &str = "0xaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// The binary, with a wallet of its own.
struct Buyer {
    home: tempfile::TempDir,
}

impl Buyer {
    fn new() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farthing"));
        command.args(args).stdin(Stdio::null());
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FARTHING_"))
        {
            command.env_remove(name);
        }
        command.env("FARTHING_HOME", self.home.path()).env("AGENT_KEY", KEY);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        let output = self.command(args).output().unwrap();
        let said = [&output.stdout[..], &output.stderr[..]].concat();
        assert!(!String::from_utf8_lossy(&said).contains(KEY), "nothing ever prints a key");
        output
    }

    /// What a command prints for programs.
    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {output:?}"))
    }

    fn fetch(&self, args: &[&str]) -> (i32, Value) {
        let report = self.json(&[&["fetch", "--pay-with", "env:AGENT_KEY"], args].concat());
        (i32::try_from(report["exit"].as_i64().unwrap()).unwrap(), report)
    }

    fn code(&self, args: &[&str]) -> i32 {
        self.run(args).status.code().unwrap()
    }
}

struct Shop {
    url: String,
    payments: Arc<Mutex<Vec<String>>>,
}

struct Reply(u16, Vec<(&'static str, String)>, &'static str);

impl Shop {
    /// `script` is told the path, the payment, and how many payments there were before. `None` leaves it hanging.
    fn open(script: impl Fn(&str, Option<&str>, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let payments: Arc<Mutex<Vec<String>>> = Arc::default();
        let (log, script) = (payments.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, script) = (log.clone(), script.clone());
                std::thread::spawn(move || serve(stream, &log, &*script));
            }
        });
        Self { url, payments }
    }

    fn honest() -> Self {
        Self::open(|_, payment, _| Some(if payment.is_some() { goods() } else { ask("10000") }))
    }

    fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    fn payments(&self) -> Vec<String> {
        self.payments.lock().unwrap().clone()
    }
}

fn serve(
    mut stream: TcpStream,
    log: &Mutex<Vec<String>>,
    script: &impl Fn(&str, Option<&str>, usize) -> Option<Reply>,
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut payment = None;
    loop {
        line.clear();
        reader.read_line(&mut line).unwrap();
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case(header::PAYMENT_SIGNATURE) => {
                payment = Some(value.to_owned());
            }
            Some(_) => {}
            None => break,
        }
    }
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.len();
        log.extend(payment.clone());
        before
    };
    let Some(Reply(status, headers, body)) = script(&path, payment.as_deref(), before) else {
        // Until the other side is gone.
        let _ = reader.read_to_end(&mut Vec::new());
        return;
    };
    let mut head = format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let _ = stream.write_all(format!("{head}\r\n{body}").as_bytes());
}

fn ask(atoms: &str) -> Reply {
    let text = format!(
        r#"{{"x402Version":2,"resource":{{"url":"https://resource.example/"}},"accepts":[{{"scheme":"exact",
        "network":"eip155:84532","amount":"{atoms}","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo":"0x0101010101010101010101010101010101010101","maxTimeoutSeconds":60,
        "extra":{{"name":"USDC","version":"2"}}}}]}}"#
    );
    let challenge = v2::PaymentRequired::parse(text.as_bytes()).unwrap().to_header();
    Reply(402, vec![(header::PAYMENT_REQUIRED, challenge)], "{}")
}

fn goods() -> Reply {
    let receipt = SettlementResponse::settled("eip155:84532", TX, Some(PAYER)).to_header();
    Reply(200, vec![(header::PAYMENT_RESPONSE, receipt)], r#"{"sky":"clear"}"#)
}

/// A gateway whose service failed, and that says so.
fn not_charged() -> Reply {
    let reason = farthing_wire::x402::ErrorCode::from("upstream_timeout");
    let receipt = SettlementResponse::failed("eip155:84532", reason, Some(PAYER)).to_header();
    Reply(502, vec![(header::PAYMENT_RESPONSE, receipt)], "{}")
}

#[test]
fn a_wallet_is_made_limited_and_frozen() {
    let buyer = Buyer::new();
    let password = buyer.home.path().join("password");
    std::fs::write(&password, "correct horse\n").unwrap();
    let password = password.to_str().unwrap();
    let made = buyer.json(&["wallet", "new", "agent", "--password-file", password]);
    assert_eq!(made["rules"]["caps"][0]["per_payment"], "0.1");
    assert_eq!(made["rules"]["networks"], serde_json::json!(["eip155:84532"]));
    assert_eq!(made["rules"]["hosts"], serde_json::json!([]));
    let taken =
        buyer.json(&["wallet", "import", "second", "--from", "env:AGENT_KEY", "--password-file", password]);
    assert_eq!(taken["address"], PAYER);
    let listed = buyer.json(&["wallet", "list"]);
    let keys: Vec<_> = listed.as_array().unwrap().iter().map(|key| (&key["key"], &key["default"])).collect();
    assert_eq!(format!("{keys:?}"), r#"[(String("agent"), Bool(true)), (String("second"), Bool(false))]"#);
    let limited = buyer.json(&["wallet", "limit", "--per-payment", "0.05", "--day", "2.5"]);
    let caps = &limited["rules"]["caps"][0];
    assert_eq!(
        (&caps["per_payment"], &caps["hour"], &caps["day"]),
        (&"0.05".into(), &"1".into(), &"2.5".into())
    );
    let allowed = buyer.json(&["wallet", "allow", "API.Weather.Example.", "--network", "base"]);
    assert_eq!(allowed["rules"]["hosts"][0]["host"], "api.weather.example");
    assert_eq!(allowed["rules"]["networks"], serde_json::json!(["eip155:8453", "eip155:84532"]));
    let removed = buyer.json(&["wallet", "allow", "api.weather.example", "--network", "base", "--remove"]);
    assert_eq!(removed["rules"]["hosts"], serde_json::json!([]));
    assert_eq!(buyer.json(&["wallet", "freeze"])["frozen"], true);
    assert_eq!(buyer.json(&["wallet", "show"])["rules"]["frozen"], true);
    assert_eq!(buyer.json(&["wallet", "unfreeze"])["frozen"], false);
    for (wrong, code) in [
        (&["wallet", "new", "agent", "--password-file", password][..], 1),
        (&["wallet", "new", "../agent", "--password-file", password], 2),
        (&["wallet", "new", "third"], 1),
        (&["wallet", "limit", "--hour", "1e3"], 2),
        (&["wallet", "allow", "a b"], 2),
        (&["wallet", "allow", "x.example", "--remove"], 2),
        (&["wallet", "balance"], 2),
        (&["wallet", "import", "x", "--from", KEY], 2),
        (&["wallet", "sell"], 2),
    ] {
        assert_eq!(buyer.code(wrong), code, "{wrong:?}");
    }
}

#[test]
fn on_a_devnet_wallet_no_other_key_signs() {
    let (buyer, shop) = (Buyer::new(), Shop::honest());
    buyer.json(&["wallet", "new", "--devnet", "3"]);
    buyer.json(&["wallet", "allow", shop.authority()]);
    let (code, report) = buyer.fetch(&[&shop.url]);
    assert_eq!(code, 3, "{report}");
    assert_eq!(report["offers"][0]["objection"]["code"], "not_a_development_key");
    assert!(shop.payments().is_empty());
    let paid = buyer.json(&["fetch", &shop.url]);
    assert_eq!((&paid["outcome"], shop.payments().len()), (&"paid".into(), 1));
    assert_eq!(buyer.code(&["wallet", "import", "x", "--from", "env:AGENT_KEY"]), 2);
}

#[test]
fn what_is_bought_is_reported() {
    let (buyer, shop) = (Buyer::new(), Shop::honest());
    buyer.json(&["wallet", "allow", shop.authority()]);
    let (code, report) = buyer.fetch(&[&shop.url, "--max", "0.02"]);
    assert_eq!(code, 0, "{report}");
    assert_eq!((&report["status"], &report["body"]["sky"]), (&200.into(), &"clear".into()));
    assert_eq!(
        (&report["outcome"], &report["payment"]["settlement"]),
        (&"paid".into(), &"claimed by the seller".into())
    );
    assert_eq!(report["payment"]["money"]["amount"], "0.01");
    assert_eq!((&report["receipt"]["transaction"], &report["payment"]["payer"]), (&TX.into(), &PAYER.into()));
    let history = buyer.json(&["wallet", "history"]);
    assert_eq!((&history[0]["id"], &history[0]["state"]), (&report["payment"]["id"], &"settled".into()));

    let [body, receipt] = ["body", "receipt"].map(|name| buyer.home.path().join(name));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let output = buyer.run(&[
        "fetch",
        "--key",
        "env:AGENT_KEY",
        &shop.url,
        "-o",
        &text(&body),
        "--receipt",
        &text(&receipt),
    ]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("paid 0.01 USDC on base-sepolia"), "{output:?}");
    assert_eq!(std::fs::read_to_string(body).unwrap(), r#"{"sky":"clear"}"#);
    let receipt: Value = serde_json::from_slice(&std::fs::read(receipt).unwrap()).unwrap();
    assert_eq!((&receipt["receipt"]["success"], &receipt["body"]), (&true.into(), &Value::Null));
    let output = buyer.run(&["fetch", "--key", "env:AGENT_KEY", &shop.url, "-i", "-s"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.starts_with("HTTP/1.1 200 ") && printed.ends_with(r#"{"sky":"clear"}"#), "{printed}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn the_exit_code_says_how_it_ended() {
    let buyer = Buyer::new();
    let shop = Shop::open(|path, payment, _| {
        Some(match (path, payment) {
            ("/free", _) => Reply(200, Vec::new(), "free"),
            ("/gone", _) => Reply(404, Vec::new(), "gone"),
            ("/odd", _) => Reply(402, Vec::new(), "send money"),
            ("/dear", None) => ask("2500000"),
            (_, None) => ask("10000"),
            ("/never", Some(_)) => ask("10000"),
            ("/broken", Some(_)) => not_charged(),
            (_, Some(_)) => goods(),
        })
    });
    let at = |path: &str| format!("{}{path}", shop.url);
    let (code, report) = buyer.fetch(&[&at("/paid")]);
    assert_eq!((code, shop.payments().len()), (3, 0), "nobody is allowed yet: {report}");
    buyer.json(&["wallet", "allow", shop.authority()]);
    for (args, code, outcome) in [
        (&[&at("/free")[..]][..], 0, "free"),
        (&[&at("/gone")], 22, "free"),
        (&[&at("/odd")], 7, "error"),
        (&[&at("/dear")], 3, "denied"),
        (&[&at("/paid"), "--max", "0.009"], 3, "denied"),
        (&[&at("/paid"), "--network", "base"], 3, "denied"),
        (&[&at("/paid"), "--dry-run"], 0, "planned"),
        (&["http://127.0.0.1:1/", "--allow-private"], 6, "error"),
        (&["http://127.0.0.1:1/"], 3, "error"),
        (&[&at("/dear"), &at("/paid"), "--cheapest", "--dry-run"], 0, "planned"),
    ] {
        let (got, report) = buyer.fetch(args);
        assert_eq!((got, report["outcome"].as_str().unwrap()), (code, outcome), "{args:?}: {report}");
    }
    assert!(shop.payments().is_empty());
    let (code, report) = buyer.fetch(&[&at("/never")]);
    assert_eq!((code, shop.payments().len()), (4, 1), "{report}");
    let (code, report) = buyer.fetch(&[&at("/broken")]);
    assert_eq!(
        (code, &report["outcome"], &report["status"]),
        (4, &"refused".into(), &502.into()),
        "{report}"
    );
    let shown = shop.payments().len();
    buyer.json(&["wallet", "freeze"]);
    assert_eq!(buyer.fetch(&[&at("/paid")]).0, 3);
    assert_eq!(shop.payments().len(), shown);
    for wrong in [
        &["fetch"][..],
        &["fetch", "https://a.example", "--max", "1e3"],
        &["fetch", "https://a.example", "--max", "-1"],
        &["fetch", "https://a.example", "--max="],
        &["fetch", "http://["],
        &["fetch", "a.example", "b.example"],
        &["fetch", "a.example"],
    ] {
        assert_eq!(buyer.code(wrong), 2, "{wrong:?}");
    }
}

/// Known attack 15, by the binary: no answer, then the same command again.
#[test]
fn attack_15_the_same_command_again_shows_the_same_payment() {
    let buyer = Buyer::new();
    let well = Arc::new(Mutex::new(false));
    let switch = well.clone();
    let shop = Shop::open(move |_, payment, _| {
        Some(match payment {
            None => ask("10000"),
            Some(_) if *switch.lock().unwrap() => goods(),
            Some(_) => Reply(504, Vec::new(), "<html>"),
        })
    });
    buyer.json(&["wallet", "allow", shop.authority()]);
    let (code, report) = buyer.fetch(&[&shop.url, "--max-time", "1"]);
    assert_eq!((code, report["outcome"].as_str()), (5, Some("unknown")), "{report}");
    *well.lock().unwrap() = true;
    let (code, again) = buyer.fetch(&[&shop.url]);
    assert_eq!((code, &again["payment"]["id"]), (0, &report["payment"]["id"]), "{again}");
    let payments = shop.payments();
    assert!(payments.len() > 1 && payments.iter().all(|payment| *payment == payments[0]));
    assert_eq!(buyer.json(&["wallet", "history"]).as_array().unwrap().len(), 1);
    // What is settled is settled: the same command now buys anew, and an id shows the old payment.
    let id = report["payment"]["id"].as_str().unwrap();
    let resumed = buyer.json(&["fetch", "--pay-with", "env:AGENT_KEY", "--resume", id]);
    assert_eq!(resumed["exit"], 0, "{resumed}");
    let (_, new) = buyer.fetch(&[&shop.url]);
    assert_ne!(new["payment"]["id"], report["payment"]["id"]);
}

/// Known attack 25, by the binary: killed after the payment was sent.
#[test]
fn attack_25_after_a_kill_the_same_payment_is_shown() {
    let buyer = Buyer::new();
    let (sent, waiting) = mpsc::channel();
    let sent = Mutex::new(sent);
    let shop = Shop::open(move |_, payment, before| match (payment, before) {
        (None, _) => Some(ask("10000")),
        (Some(_), 0) => {
            sent.lock().unwrap().send(()).unwrap();
            None
        }
        (Some(_), _) => Some(goods()),
    });
    buyer.json(&["wallet", "allow", shop.authority()]);
    let mut killed = buyer
        .command(&["fetch", "--pay-with", "env:AGENT_KEY", &shop.url])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    waiting.recv().unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    let held = buyer.json(&["wallet", "history"]);
    assert_eq!(held[0]["state"], "presented");
    assert_eq!(buyer.json(&["wallet", "show"])["spent"][0]["spent"], "0.01");
    let (code, report) = buyer.fetch(&[&shop.url]);
    assert_eq!((code, &report["payment"]["id"]), (0, &held[0]["id"]), "{report}");
    let payments = shop.payments();
    assert_eq!((payments.len(), &payments[0]), (2, &payments[1]));
    assert_eq!(buyer.json(&["wallet", "show"])["spent"][0]["spent"], "0.01");
}

/// Killed after the journal knew of the settlement, and before the answer was in its place.
#[test]
fn what_was_bought_and_not_written_is_given_again_by_the_same_command() {
    let (buyer, shop) = (Buyer::new(), Shop::honest());
    buyer.json(&["wallet", "allow", shop.authority()]);
    // Opening a pipe that nobody reads waits for a reader.
    let pipe = buyer.home.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut killed = buyer
        .command(&["fetch", "--pay-with", "env:AGENT_KEY", &shop.url, "-s", "-o", pipe.to_str().unwrap()])
        .spawn()
        .unwrap();
    let settled = || buyer.json(&["wallet", "history"])[0].clone();
    let first = std::iter::repeat_with(settled).find(|purchase| purchase["state"] == "settled").unwrap();
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(first["delivered"], false, "{first}");

    // A place that cannot be written to keeps it open as well.
    let nowhere = buyer.home.path().join("no/where");
    let fetch = ["fetch", "--pay-with", "env:AGENT_KEY", &shop.url, "-o"];
    assert_eq!(buyer.code(&[&fetch[..], &[nowhere.to_str().unwrap()]].concat()), 1);
    assert_eq!(settled()["delivered"], false);

    let (code, again) = buyer.fetch(&[&shop.url]);
    assert_eq!((code, &again["payment"]["id"], &again["body"]["sky"]), (0, &first["id"], &"clear".into()));
    assert!(again["payment"]["bought_earlier"].is_string(), "{again}");
    let says = again["messages"][0].as_str().unwrap();
    assert!(says.starts_with("bought earlier, at ") && says.ends_with("nothing was paid by this command"));
    assert_eq!(settled()["delivered"], true);
    let payments = shop.payments();
    assert!(payments.len() == 3 && payments.iter().all(|payment| *payment == payments[0]));
    assert_eq!(buyer.json(&["wallet", "show"])["spent"][0]["spent"], "0.01");

    // It was given once: the same command now buys anew, and says so.
    let (_, new) = buyer.fetch(&[&shop.url]);
    assert_eq!(new["payment"]["bought_earlier"], Value::Null);
    assert_ne!(new["payment"]["id"], first["id"]);
}

/// Today another seller might be the best; the payment is where it was made.
#[test]
fn the_cheapest_of_several_is_not_bought_twice_by_one_command() {
    let buyer = Buyer::new();
    let answered = Arc::new(Mutex::new(false));
    let switch = answered.clone();
    let dear = Shop::open(move |_, payment, _| {
        Some(match payment {
            None => ask("10000"),
            Some(_) if *switch.lock().unwrap() => goods(),
            Some(_) => Reply(504, Vec::new(), ""),
        })
    });
    let later = answered.clone();
    let cheap = Shop::open(move |_, payment, _| {
        Some(match payment {
            None if *later.lock().unwrap() => ask("5000"),
            None => ask("20000"),
            Some(_) => goods(),
        })
    });
    for shop in [&dear, &cheap] {
        buyer.json(&["wallet", "allow", shop.authority()]);
    }
    let both = ["--cheapest", &dear.url, &cheap.url];
    let (code, first) = buyer.fetch(&[&both[..], &["--max-time", "1"]].concat());
    assert_eq!((code, first["outcome"].as_str()), (5, Some("unknown")), "{first}");
    *answered.lock().unwrap() = true;
    let (code, again) = buyer.fetch(&both);
    assert_eq!((code, &again["payment"]["id"]), (0, &first["payment"]["id"]), "{again}");
    assert_eq!((again["url"].as_str(), cheap.payments().len()), (first["url"].as_str(), 0));
    let (_, new) = buyer.fetch(&[&both[..], &["--new"]].concat());
    assert_eq!((new["outcome"].as_str(), cheap.payments().len()), (Some("paid"), 1), "{new}");
}

#[test]
fn what_a_payment_says_is_what_was_asked() {
    let (buyer, shop) = (Buyer::new(), Shop::honest());
    buyer.json(&["wallet", "allow", shop.authority()]);
    buyer.fetch(&[&shop.url]);
    let payments = shop.payments();
    let paid = v2::PaymentPayload::from_header(payments[0].as_bytes()).unwrap();
    let (json::Json::Object(accepted), json::Json::Object(asked)) = (
        paid.accepted.to_json(),
        v2::PaymentRequired::from_header(ask("10000").1[0].1.as_bytes()).unwrap().accepts[0].to_json(),
    ) else {
        panic!()
    };
    assert_eq!(accepted, asked);
}
