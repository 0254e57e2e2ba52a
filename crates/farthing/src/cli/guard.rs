//! `farthing guard`: decisions for programs that pay by themselves.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use farthing_policy::{AgentName, AgentNameError};
use farthing_primitives::Registry;
use farthing_wallet::decisions::{Decider, Ruling, Wish};
use farthing_wallet::journal::Journal;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

use super::Failure;

/// The longest line that is read, in bytes.
const MAX_LINE: usize = 1024 * 1024;
/// How long a decision may take; after that it is a denial.
const DECIDE_WITHIN: Duration = Duration::from_secs(5);
/// The dialect of the lines.
const VERSION: u64 = 1;

/// Decide for another program, by a policy, line by line; nothing is signed
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing guard --stdio --policy policy.yaml
  farthing guard --stdio --policy policy.yaml --state guard.db    budgets outlive the process

A line in, a line out (JSON), in order:
  {\"type\":\"hello\",\"id\":1,\"version\":1}
  {\"type\":\"payment\",\"id\":2,\"method\":\"GET\",\"url\":\"https://…\",\"x402Version\":2,\"offers\":[…]}
  {\"type\":\"allow\",\"id\":2,\"offer\":0,…}   or   {\"type\":\"deny\",\"id\":2,\"code\":\"over_budget\",\"reasons\":[…]}
What is allowed counts as spent. Transfers and bare signatures are denied always.
docs/reference/guard-stdio.md has every field. Exit codes: 0 the input ended; 1 it could not be done; 2 called wrongly.")]
pub struct GuardArgs {
    /// Read questions from standard input, answer on standard output
    #[arg(long, required = true)]
    stdio: bool,
    /// The policy that decides
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Where what was allowed is kept; otherwise it is forgotten with the process
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Question {
    Hello(Hello),
    Payment(Box<Payment>),
    /// Money to somebody, for nothing that was asked.
    Transfer(IgnoredAny),
    /// Bytes that nobody can read.
    Sign(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hello {
    version: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Payment {
    method: String,
    url: String,
    #[serde(rename = "x402Version")]
    x402_version: u64,
    offers: Vec<Value>,
    agent: Option<String>,
    tool: Option<String>,
    max: Option<String>,
    body_sha256: Option<String>,
}

pub async fn run(args: GuardArgs) -> Result<ExitCode, Failure> {
    let text = std::fs::read_to_string(&args.policy)
        .map_err(|error| Failure::failed(format!("{}: {error}", args.policy.display())))?;
    let journal = match &args.state {
        Some(path) => Journal::open(path)?,
        None => Journal::in_memory()?,
    };
    journal.for_decisions()?;
    // The file is the owner's word for this process.
    journal.apply_policy(&text, true)?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| Failure::failed(error.to_string()))?;
    let decider = Decider::new(Arc::new(journal), Registry::builtin(), seed)
        .map_err(|error| Failure::failed(error.to_string()))?;
    let mut lines = BufReader::new(tokio::io::stdin());
    loop {
        let mut line = Vec::new();
        let limit = u64::try_from(MAX_LINE + 1).unwrap_or(u64::MAX);
        let read = (&mut lines).take(limit).read_until(b'\n', &mut line).await;
        match read {
            Ok(0) => return Ok(ExitCode::SUCCESS),
            Ok(_) if line.len() > MAX_LINE => {
                say(&denied(&Value::Null, "line_too_long", &[json!({ "code": "line_too_long" })]))?;
                return Err(Failure::failed(format!("a line of more than {MAX_LINE} bytes")));
            }
            Ok(_) if line.trim_ascii().is_empty() => continue,
            Ok(_) => say(&answer(&decider, &line).await)?,
            Err(error) => return Err(Failure::failed(error.to_string())),
        }
    }
}

fn say(answer: &Value) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}").and_then(|()| out.flush()).map_err(|error| Failure::failed(error.to_string()))
}

fn denied(id: &Value, code: &str, reasons: &[Value]) -> Value {
    json!({ "type": "deny", "id": id, "code": code, "reasons": reasons })
}

async fn answer(decider: &Decider, line: &[u8]) -> Value {
    let because =
        |id: &Value, code: &str, text: String| denied(id, code, &[json!({ "code": code, "text": text })]);
    let mut object = match serde_json::from_slice::<Value>(line) {
        Ok(Value::Object(object)) => object,
        Ok(_) => return because(&Value::Null, "malformed", "a line is one JSON object".to_owned()),
        Err(error) => return because(&Value::Null, "malformed", error.to_string()),
    };
    // What answers to it is the asker's, whatever it looks like.
    let id = object.remove("id").unwrap_or(Value::Null);
    let question = match serde_json::from_value::<Question>(Value::Object(object)) {
        Ok(question) => question,
        Err(error) => return because(&id, "malformed", error.to_string()),
    };
    match question {
        Question::Hello(Hello { version: VERSION }) => {
            json!({ "type": "hello", "id": id, "version": VERSION, "enforced_by": "process" })
        }
        Question::Hello(Hello { version }) => {
            because(&id, "version", format!("version {version} is not spoken: 1 is"))
        }
        Question::Transfer(_) => {
            let why =
                "no rule allows a transfer: what is paid for is a request, by an offer that its seller made";
            because(&id, "transfer_not_allowed", why.to_owned())
        }
        Question::Sign(_) => {
            let why = "nothing is signed that does not say what it pays";
            because(&id, "signature_not_allowed", why.to_owned())
        }
        Question::Payment(payment) => match wish(*payment) {
            Err(text) => because(&id, "malformed", text),
            Ok((agent, wish)) => {
                let decider = agent.map_or_else(|| decider.clone(), |agent| decider.for_agent(agent));
                match tokio::time::timeout(DECIDE_WITHIN, decider.decide(&wish)).await {
                    Ok(ruling) => ruled(&id, ruling),
                    Err(_) => because(&id, "timeout", "no decision in time".to_owned()),
                }
            }
        },
    }
}

fn wish(payment: Payment) -> Result<(Option<AgentName>, Wish), String> {
    if !matches!(payment.x402_version, 1 | 2) {
        return Err(format!("x402Version {} is not spoken: 1 and 2 are", payment.x402_version));
    }
    // Methods are told apart by case (RFC 9110 section 9.1), and rules name them in capitals.
    if payment.method.is_empty() || !payment.method.bytes().all(|b| b.is_ascii_uppercase() || b == b'-') {
        return Err("method is written in capitals".to_owned());
    }
    let body = payment.body_sha256.map(|text| {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash)
            .map(|()| hash)
            .map_err(|_| "body_sha256 has 64 hexadecimal digits")
    });
    let agent = payment.agent.map(|name| name.parse()).transpose();
    let wish = Wish {
        method: payment.method,
        url: payment.url.parse().map_err(|error| format!("url: {error}"))?,
        body: body.transpose()?,
        tool: payment.tool,
        max: payment.max,
        x402_version: payment.x402_version,
        offers: payment.offers,
    };
    Ok((agent.map_err(|error: AgentNameError| error.to_string())?, wish))
}

fn ruled(id: &Value, ruling: Ruling) -> Value {
    match ruling {
        Ruling::Allow { offer, charge, payee, decision } => json!({
            "type": "allow",
            "id": id,
            "offer": offer,
            "amount_atoms": charge.money().atoms().to_string(),
            "asset": charge.money().asset().to_string(),
            "payee": payee,
            "reasons": decision
                .findings
                .iter()
                .map(|fact| json!({ "code": fact.code(), "text": fact.to_string() }))
                .collect::<Vec<_>>(),
        }),
        Ruling::Deny(objections) => {
            let code = objections.first().map_or("denied", |first| first.code.as_str());
            let reasons: Vec<Value> = objections
                .iter()
                .map(|one| json!({ "offer": one.offer, "code": one.code, "text": one.text }))
                .collect();
            denied(id, code, &reasons)
        }
    }
}

#[cfg(test)]
mod tests;
