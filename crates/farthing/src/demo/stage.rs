//! What a person sees. Colour only on a terminal, and never with `NO_COLOR`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use farthing_primitives::{Network, Registry};
use serde_json::Value;
#[cfg(test)]
use serde_json::json;

use super::books::Summary;
use super::refusals::Attempt;

/// How wide an answer may be before it is cut.
const ANSWER_CHARS: usize = 96;
/// How wide a reason may be.
const REASON_CHARS: usize = 72;

/// Where everything is shown. Silent where only the summary is wanted.
#[derive(Debug, Clone)]
pub struct Stage {
    colour: bool,
    silent: bool,
    /// Where sellers are, so that their names can stand for their addresses.
    names: BTreeMap<String, String>,
}

/// How wide a moment of a timeline may be.
const MOMENT_CHARS: usize = 108;

/// What a word is, for its colour.
#[derive(Debug, Clone, Copy)]
enum Ink {
    Title,
    Good,
    Bad,
    Faint,
}

impl Stage {
    pub fn new(silent: bool) -> Self {
        let wished = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self { colour: wished && !dumb && std::io::stdout().is_terminal(), silent, names: BTreeMap::new() }
    }

    /// Lets `name` stand for what begins with `url`.
    pub fn call(&mut self, url: &str, name: &str) {
        self.names.insert(url.to_owned(), name.to_owned());
    }

    pub fn say(&self, text: &str) {
        if self.silent {
            return;
        }
        let mut out = std::io::stdout();
        // Nobody listens any more: the work goes on, and its exit code still counts.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    }

    pub fn title(&self, title: &str, about: &str) {
        self.say("");
        self.say(&format!("{}  {about}", self.ink(Ink::Title, title)));
    }

    /// A line of a story. What `farthing fetch` reports is laid out; everything else is the story's own words.
    pub fn line(&self, who: &str, line: &str) {
        match serde_json::from_str::<Value>(line) {
            Ok(report) if report.is_object() => self.report(who, &report),
            _ => self.say(&format!("  {line}")),
        }
    }

    /// What `farthing fetch` reported: what was asked, what it cost, why it was allowed, what became of it.
    pub fn report(&self, who: &str, report: &Value) {
        for line in self.layout(who, report) {
            self.say(&line);
        }
    }

    fn layout(&self, who: &str, report: &Value) -> Vec<String> {
        let mut lines = Vec::new();
        for seller in report["sellers"].as_array().into_iter().flatten() {
            lines.push(self.seller(seller));
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let url = self.named(&text(&report["url"]));
        let took = report["took_ms"].as_u64().map_or(String::new(), |took| format!("{took} ms"));
        match report["outcome"].as_str() {
            Some("paid") => {
                let payment = &report["payment"];
                let paid = self.ink(Ink::Good, "paid");
                let by = match report["receipt"]["channelId"].as_str() {
                    Some(channel) => format!("vouchers of channel {}", short_hash(channel)),
                    None => {
                        let tx = short_hash(payment["transaction"].as_str().unwrap_or_default());
                        format!("tx {tx}, {}", text(&payment["settlement"]))
                    }
                };
                lines.push(format!(
                    "  {who:<10} {paid}   {url:<18} {:>12}  {by}, {took}",
                    money(&payment["money"])
                ));
                let why = decided(&payment["decision"]).map(|why| format!("allowed: {why}"));
                let goods =
                    report.get("body").map(|body| format!("got: {}", short(&goods(body), ANSWER_CHARS)));
                let ended =
                    payment["note"].as_str().map(|note| format!("ended: {}", short(note, ANSWER_CHARS)));
                for more in why.into_iter().chain(goods).chain(ended) {
                    lines.push(self.ink(Ink::Faint, &format!("             {more}")));
                }
            }
            Some("denied") => {
                let denied = self.ink(Ink::Bad, "denied");
                let price = report["offers"][0]["money"].clone();
                lines.push(format!(
                    "  {who:<10} {denied} {url:<18} {:>12}  {}",
                    money(&price),
                    objection(report)
                ));
            }
            _ => {
                let outcome = self.ink(Ink::Bad, report["outcome"].as_str().unwrap_or("no report"));
                let messages = report["messages"].as_array().map_or(String::new(), |messages| {
                    messages.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")
                });
                let said = if messages.is_empty() { report.to_string() } else { messages };
                lines.push(format!("  {who:<10} {outcome} {url} {said}"));
            }
        }
        lines
    }

    /// One of several sellers that were asked, unpaid.
    fn seller(&self, seller: &Value) -> String {
        let url = self.named(seller["url"].as_str().unwrap_or_default());
        let offer = &seller["offers"][0];
        let verdict = match (&offer["objection"]["text"], seller["chosen"].as_bool()) {
            (Value::String(why), _) => {
                format!("denied: {}", short(why.split(" (").next().unwrap_or(why), REASON_CHARS))
            }
            (_, Some(true)) => self.ink(Ink::Good, "the cheapest that is permitted"),
            _ => "permitted".to_owned(),
        };
        format!("  {:<10} asked  {url:<18} {:>12}  {verdict}", "", money(&offer["money"]))
    }

    pub fn attempt(&self, attempt: &Attempt) {
        let verdict =
            if attempt.held { self.ink(Ink::Good, "refused") } else { self.ink(Ink::Bad, "NOT REFUSED") };
        let status = if attempt.status == 0 { "   ".to_owned() } else { attempt.status.to_string() };
        self.say(&format!("  {verdict} {status}  {:<12} {}", attempt.name, attempt.tried));
        self.say(&self.ink(Ink::Faint, &format!("               {}", attempt.answer)));
    }

    /// One line of a timeline.
    pub fn moment(&self, ms: u64, who: &str, what: &str, is_kill: bool) {
        let line = format!("  {ms:>6} ms  {who:<8} {}", short(what, MOMENT_CHARS));
        self.say(&if is_kill { self.ink(Ink::Bad, &line) } else { line });
    }

    /// What is to be learnt from it.
    pub fn verdict(&self, good: bool, text: &str) {
        let ink = if good { Ink::Good } else { Ink::Bad };
        self.say(&format!("             {}", self.ink(ink, text)));
    }

    pub fn summary(&self, summary: &Summary) {
        let rows = summary.lines.iter();
        self.say(&format!(
            "  {:<11} {:>16} {:>16} {:>11} {:>11} {:>11}",
            "", "before", "after", "difference", "ledger", "journal"
        ));
        for row in rows {
            let difference = difference(&row.balance_before, &row.balance_after);
            let ledger = row.ledger_earned.as_deref().map_or(String::new(), |atoms| signed('+', atoms));
            let journal = row.journal_spent.as_deref().map_or(String::new(), |atoms| signed('-', atoms));
            let mark = if row.agrees { self.ink(Ink::Good, "=") } else { self.ink(Ink::Bad, "DIFFERS") };
            self.say(&format!(
                "  {:<11} {:>16} {:>16} {difference:>11} {ledger:>11} {journal:>11}  {mark}",
                row.party,
                padded(&row.balance_before),
                padded(&row.balance_after),
            ));
        }
        let whose = match &summary.facilitator_moved {
            Some(moved) => format!("the facilitator's ledger has {}, and its gas", usdc(moved)),
            None => "the seller's ledger has the gas of its transactions".to_owned(),
        };
        self.say(&format!(
            "  {} payments moved {} USDC; {whose} to the wei ({}).",
            summary.payments,
            usdc(&summary.moved),
            summary.gas_booked,
        ));
        let sent = summary.transactions.iter().map(|(name, count)| format!("{count} by {name}"));
        self.say(&format!("  Transactions: {}.", sent.collect::<Vec<_>>().join(", ")));
        for difference in &summary.differences {
            self.say(&format!("  {} {difference}", self.ink(Ink::Bad, "DIFFERS")));
        }
        let verdict = if summary.reconciles() {
            self.ink(Ink::Good, "Balances, events, ledgers and journals agree to the atom.")
        } else {
            self.ink(Ink::Bad, "The books do not agree.")
        };
        self.say(&format!("  {verdict}"));
    }

    fn ink(&self, ink: Ink, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match ink {
            Ink::Title => "1",
            Ink::Good => "32",
            Ink::Bad => "1;31",
            Ink::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A seller's name in place of its address.
    pub fn named(&self, url: &str) -> String {
        let url = url.trim_end_matches("?…");
        let known = self
            .names
            .iter()
            .find_map(|(base, name)| url.strip_prefix(base).map(|rest| format!("{name}{rest}")));
        known.unwrap_or_else(|| url.to_owned())
    }
}

/// What came; of a stream its last event.
fn goods(body: &Value) -> String {
    let events = |text: &str| text.lines().filter(|line| line.starts_with("data: ")).count();
    match body.as_str().map(|text| (text, events(text))) {
        Some((text, count @ 1..)) => {
            let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
            format!("{last}, after {count} events")
        }
        _ => body.to_string(),
    }
}

/// The answer's body in a report, read as JSON where it is some.
pub fn body_of(report: &Value) -> Value {
    match &report["body"] {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.clone())),
        other => other.clone(),
    }
}

/// Atoms as whole dollars.
pub fn usdc(atoms: &str) -> String {
    let registry = Registry::builtin();
    let asset = registry.dollar(&Network::eip155(farthing_devnet::DEFAULT_CHAIN_ID));
    match (asset, farthing_primitives::parse_atoms(atoms)) {
        (Some(asset), Ok(atoms)) => asset.format(atoms),
        _ => atoms.to_owned(),
    }
}

/// The same with all six digits, so that points stand under points.
fn padded(atoms: &str) -> String {
    let text = usdc(atoms);
    let (whole, digits) = text.split_once('.').unwrap_or((&text, ""));
    format!("{whole}.{digits:0<6}")
}

fn signed(sign: char, atoms: &str) -> String {
    if atoms == "0" { "0".to_owned() } else { format!("{sign}{}", padded(atoms)) }
}

fn difference(before: &str, after: &str) -> String {
    let (Ok(before), Ok(after)) =
        (farthing_primitives::parse_atoms(before), farthing_primitives::parse_atoms(after))
    else {
        return String::new();
    };
    let sign = if after >= before { '+' } else { '-' };
    signed(sign, &after.abs_diff(before).to_string())
}

/// The beginning of a text, on one line.
pub fn short(text: &str, chars: usize) -> String {
    let text = text.replace(['\n', '\r'], " ");
    if text.chars().count() <= chars {
        return text;
    }
    let cut: String = text.chars().take(chars.saturating_sub(1)).collect();
    format!("{cut}…")
}

/// With what `farthing fetch` ends when the wallet's owner does not allow a payment.
pub const EXIT_DENIED: i32 = 3;

/// Why a wallet's policy said no, by the report.
pub fn objection(report: &Value) -> String {
    report["offers"][0]["objection"]["text"].as_str().unwrap_or_default().to_owned()
}

/// The finding that says how much was left.
fn decided(decision: &Value) -> Option<String> {
    let findings = decision["findings"].as_array()?;
    let told =
        findings.iter().find(|finding| finding["rule"] == "within_hour_cap").or_else(|| findings.last())?;
    told["text"].as_str().map(str::to_owned)
}

fn money(value: &Value) -> String {
    match (value["amount"].as_str(), value["symbol"].as_str()) {
        (Some(amount), Some(symbol)) => format!("{amount} {symbol}"),
        _ => "no price".to_owned(),
    }
}

/// Enough of a hash to know it by.
pub fn short_hash(hash: &str) -> String {
    match (hash.get(..8), hash.get(hash.len().saturating_sub(4)..)) {
        (Some(head), Some(tail)) if hash.len() > 16 => format!("{head}…{tail}"),
        _ => "none".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_stand_under_each_other() {
        assert_eq!(padded("0"), "0.000000");
        assert_eq!(padded("1500000"), "1.500000");
        assert_eq!(difference("5", "5"), "0");
        assert_eq!(difference("5", "4"), "-0.000001");
        assert_eq!(difference("5", "1000005"), "+1.000000");
    }

    #[test]
    fn reports_are_laid_out() {
        let mut stage = Stage { colour: false, silent: true, names: BTreeMap::new() };
        stage.call("http://127.0.0.1:1", "volt");
        let paid = json!({
            "outcome": "paid", "url": "http://127.0.0.1:1/slices?…", "took_ms": 7, "body": { "goods": 1 },
            "payment": {
                "money": { "amount": "0.01", "symbol": "USDC" }, "settlement": "confirmed on chain",
                "transaction": format!("0x{}", "ab".repeat(32)),
                "decision": { "findings": [{ "rule": "within_hour_cap", "text": "within" }] },
            },
        });
        let lines = stage.layout("car", &paid);
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(
            lines[0].contains("volt/slices ")
                && lines[0].contains("tx 0xababab…abab, confirmed on chain, 7 ms")
        );
        assert!(lines[1].ends_with("allowed: within") && lines[2].ends_with(r#"got: {"goods":1}"#));

        let denied = json!({
            "outcome": "denied", "url": "http://127.0.0.1:2/",
            "offers": [{ "money": {}, "objection": { "text": "too dear" } }],
        });
        assert!(stage.layout("car", &denied)[0].ends_with("no price  too dear"));
        // What has no known form is shown as it is, and hides nothing.
        assert!(stage.layout("car", &json!({ "odd": true }))[0].contains(r#"{"odd":true}"#));
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(short("añb\nc", 9), "añb c");
        assert_eq!(short("ñññññ", 3), "ññ…");
    }
}
