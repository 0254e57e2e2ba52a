//! The story of one payment.

use std::process::ExitCode;

use farthing_engine::{Store, StoreError, StoredSlot};
use farthing_ledger::{Entry, Phase, TransferId};
use farthing_payment::{Bound, Event, Fault, Payment, Proof, Reason, Role, SlotState, Witness};
use farthing_primitives::{Money, PaymentId, Timestamp};
use farthing_store::{Chapter, Story};
use farthing_wallet::client::printable;
use serde_json::{Value, json};

use super::{Amounts, StoreArgs, failed, summary};
use crate::cli::Failure;

/// Everything that the store knows of a payment.
struct Known {
    payment: Payment,
    history: Vec<(u64, String, Timestamp)>,
    /// Why it cannot be told, if so.
    story: Result<Story, String>,
    transfers: Vec<(TransferId, Money, Phase)>,
    slots: Vec<StoredSlot>,
    answer: Option<(u16, usize)>,
    amounts: Amounts,
}

/// Prints the story; exit code 1 if the history cannot be true.
pub async fn show(args: StoreArgs, id: PaymentId) -> Result<ExitCode, Failure> {
    let store = args.open()?;
    let payment =
        store.payment(id).await.map_err(failed)?.ok_or_else(|| {
            Failure::failed(format!("there is no payment {id} in {}", args.store.display()))
        })?;
    let story = match store.story(id).await {
        Ok(Some(story)) => Ok(story),
        Ok(None) => Err("it is gone".to_owned()),
        Err(StoreError::Corrupt(why)) => Err(why),
        Err(error) => return Err(failed(error)),
    };
    let answer = store.response(id).await.map_err(failed)?;
    let known = Known {
        history: store.history(id).await.map_err(failed)?,
        transfers: store.transfers_of(id).await.map_err(failed)?,
        slots: store.slots_of(id).await.map_err(failed)?,
        answer: answer.map(|answer| (answer.status, answer.body.len())),
        amounts: Amounts::new(),
        payment,
        story,
    };
    if args.as_json() {
        println!("{}", known.json());
    } else {
        known.print();
    }
    Ok(if known.story.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Known {
    fn json(&self) -> Value {
        let mut value = summary(&self.payment);
        value["money"] = self.amounts.json(&self.payment.terms.money);
        value["expires"] = json!(self.payment.terms.expires.to_string());
        value["round"] = json!(self.payment.round);
        value["answer"] =
            self.answer.map_or(Value::Null, |(status, bytes)| json!({"status": status, "bytes": bytes}));
        value["history"] = self.history.iter().map(|line| self.line_json(line)).collect();
        value["transfers"] = self
            .transfers
            .iter()
            .map(|(id, money, phase)| {
                let (debit, credit) = id.purpose.accounts();
                json!({
                    "purpose": id.purpose.as_str(),
                    "round": id.round,
                    "debit": debit.as_str(),
                    "credit": credit.as_str(),
                    "atoms": money.atoms().to_string(),
                    "asset": money.asset().to_string(),
                    "amount": self.amounts.short(money),
                    "phase": phase_name(*phase),
                })
            })
            .collect();
        value["attempts"] = self.slots.iter().map(slot_json).collect();
        value["problem"] = self.story.as_ref().err().map_or(Value::Null, |why| json!(why));
        value
    }

    /// One line of the history, with who did what and why where the store knows it.
    fn line_json(&self, (version, event, at): &(u64, String, Timestamp)) -> Value {
        let mut value = json!({ "version": version, "event": event, "at": at.to_string() });
        let Ok(story) = &self.story else { return value };
        let entries = match self.chapter(*version) {
            None if *version == 0 => {
                value["told"] = json!([{ "who": "payer", "what": self.claim() }]);
                &story.claimed
            }
            None => return value,
            Some(chapter) => {
                let told = chapter.events.iter().map(|event| {
                    let (who, what) = self.tell(event);
                    json!({ "event": event.name(), "who": who, "what": what })
                });
                value["told"] = told.collect();
                if let Some(after) = &chapter.after {
                    value["state"] = json!(after.state.name());
                    value["delivery"] = json!(after.delivery.name());
                    value["round"] = json!(after.round);
                    value["reason"] = after.reason().map_or(Value::Null, |reason| json!(reason.code()));
                    value["transaction"] = after.tx().map_or(Value::Null, |tx| json!(tx.as_str()));
                }
                &chapter.entries
            }
        };
        value["entries"] = entries.iter().map(|entry| json!(self.entry(entry))).collect();
        value
    }

    fn print(&self) {
        let Payment { terms, binding, .. } = &self.payment;
        println!(
            "{}  {}, delivery {}",
            self.payment.id,
            self.payment.state.name(),
            self.payment.delivery.name()
        );
        let bound = match binding.bound {
            Bound::ByOffer => "bound by our offer",
            Bound::ByFirstUse => "bound by its first use",
        };
        println!("  {} {}, {bound}", binding.method, printable(&binding.resource));
        println!("  {} on {}", self.amounts.long(&terms.money), terms.money.asset().network());
        println!("  from {} to {}", terms.payer, terms.payee);
        println!("  its authorization ends at {}", terms.expires);
        if let Some((status, bytes)) = self.answer {
            println!("  the answer is kept: status {status}, {bytes} bytes");
        }
        println!();
        for (version, event, at) in &self.history {
            self.print_line(*version, event, *at);
        }
        self.print_slots();
        self.print_books();
        if let Err(why) = &self.story {
            println!("\nPROBLEM: its history cannot be true: {why}");
        }
    }

    fn print_line(&self, version: u64, event: &str, at: Timestamp) {
        let took = at.since(self.payment.created).as_millis();
        let when = format!("{at} {:>9}", format!("+{took} ms"));
        let mut lines: Vec<(&str, String)> = match (self.chapter(version), &self.story) {
            (Some(chapter), _) if !chapter.events.is_empty() => {
                chapter.events.iter().map(|event| self.tell(event)).collect()
            }
            _ if version == 0 => vec![("payer", self.claim())],
            // Written before the causes were kept.
            _ => vec![("", event.replace('_', " "))],
        };
        let entries: &[Entry] = match (self.chapter(version), &self.story) {
            (Some(chapter), _) => &chapter.entries,
            (None, Ok(story)) if version == 0 => &story.claimed,
            _ => &[],
        };
        lines.extend(entries.iter().map(|entry| ("books", self.entry(entry))));
        for (index, (who, what)) in lines.into_iter().enumerate() {
            let when = if index == 0 { when.as_str() } else { "" };
            // Some of it is what a facilitator said.
            println!("  {when:<34}  {who:<11} {}", printable(&what));
        }
    }

    fn print_slots(&self) {
        if self.slots.is_empty() {
            return;
        }
        println!("\n  transactions");
        for StoredSlot { slot, .. } in &self.slots {
            println!("    nonce {} of {}: {}", slot.nonce, slot.relayer, slot_state(&slot.state));
            for (index, variant) in slot.variants.iter().enumerate() {
                let again = if index == 0 { "signed" } else { "offered more" };
                println!(
                    "      {}  {again} {}, at most {} wei a gas ({} wei tip)",
                    variant.tx, variant.signed, variant.max_fee, variant.priority_fee
                );
            }
        }
    }

    fn print_books(&self) {
        println!("\n  books");
        for (id, money, phase) in &self.transfers {
            let (debit, credit) = id.purpose.accounts();
            let round = if self.payment.round > 0 { format!(", round {}", id.round) } else { String::new() };
            println!(
                "    {:<14} {:<8} {debit} ← {credit}  {}{round}",
                id.purpose.as_str(),
                phase_name(*phase),
                self.amounts.long(money)
            );
        }
    }

    fn chapter(&self, version: u64) -> Option<&Chapter> {
        self.story.as_ref().ok()?.chapters.iter().find(|chapter| chapter.version == version)
    }

    fn claim(&self) -> String {
        let whose = match self.payment.role {
            Role::Seller => "showed an authorization, which is claimed: it can buy nothing else any more",
            Role::Facilitator => "authorized a payment between others, which is claimed for settlement",
        };
        whose.to_owned()
    }

    /// Who did what, and why.
    fn tell(&self, event: &Event) -> (&'static str, String) {
        match event {
            Event::FundsConfirmed => {
                ("chain", "the payer has the money, and the transfer would work".to_owned())
            }
            Event::FundsRefused(reason) => (fault(reason), format!("refused: {reason}; no money moved")),
            Event::CallStarted => ("us", "the seller's service is called".to_owned()),
            Event::CallStored => ("seller", "answered; the whole answer is stored".to_owned()),
            Event::Sent => ("us", "the answer went to the payer".to_owned()),
            Event::CallFailed(reason) => {
                ("seller", format!("gave nothing worth charging for: {}", because(reason)))
            }
            Event::CallLost(reason) => {
                ("us", format!("it cannot be known what the service did: {}", because(reason)))
            }
            Event::Represented { .. } => {
                ("payer", "showed the same payment again for the same request".to_owned())
            }
            Event::AttemptStarted { attempt, tx } => {
                ("us", format!("attempt {attempt} is durable, and goes out{}", with(tx.as_ref())))
            }
            Event::AttemptReplaced { dropped, attempt, tx } => {
                let with = with(tx.as_ref());
                (
                    "us",
                    format!("attempt {attempt} takes the place of {dropped}, which can move nothing{with}"),
                )
            }
            Event::AttemptDropped { attempt } => {
                ("chain", format!("attempt {attempt} can move nothing: its place was taken"))
            }
            Event::Included { proof, deep } => self.included(proof, *deep),
            Event::Reverted { reason, tx } => {
                (fault(reason), format!("the attempt moved nothing: {reason}{}", with(tx.as_ref())))
            }
            Event::Unclear { tx } => (
                "us",
                format!("it cannot be told yet what became of it{}; nobody pays again", with(tx.as_ref())),
            ),
            Event::Reorged => {
                ("chain", "the block with the transfer is gone; it is watched again".to_owned())
            }
            Event::Dead(reason) => {
                (fault(reason), format!("the authorization can move no money any more: {reason}"))
            }
            Event::RefundStarted { refund, tx } => {
                ("operator", format!("refund {refund} is durable, and goes out{}", with(tx.as_ref())))
            }
            Event::RefundIncluded { proof } => {
                ("chain", format!("the refund is in block {}, transaction {}", proof.block, proof.tx))
            }
            Event::RefundReplaced { tx } => {
                ("us", format!("the refund goes out again, as it had moved nothing{}", with(tx.as_ref())))
            }
            Event::RefundDropped => ("chain", "the refund moved nothing, and cannot any more".to_owned()),
        }
    }

    fn included(&self, proof: &Proof, deep: bool) -> (&'static str, String) {
        let who = match proof.witness {
            Witness::Chain => "chain",
            Witness::Facilitator => "facilitator",
        };
        let depth = if deep { "deep enough: settled" } else { "not yet deep enough" };
        let fee =
            proof.fee.as_ref().map(|fee| format!(", for {}", self.amounts.short(fee))).unwrap_or_default();
        let Proof { tx, block, log_index, .. } = proof;
        (who, format!("the transfer is log {log_index} of block {block}, {depth}; transaction {tx}{fee}"))
    }

    fn entry(&self, entry: &Entry) -> String {
        let id = entry.id();
        let (debit, credit) = id.purpose.accounts();
        let money = match entry {
            Entry::Reserve { money, .. } | Entry::Transfer { money, .. } => Some(money),
            Entry::Post { .. } | Entry::Void { .. } => {
                self.transfers.iter().find(|(other, ..)| *other == id).map(|(_, money, _)| money)
            }
        };
        let amount = money.map(|money| self.amounts.long(money)).unwrap_or_default();
        format!("{} {}: {debit} ← {credit} {amount}", id.purpose, phase_name(entry.phase()))
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "pending",
        Phase::Posted => "posted",
        Phase::Voided => "voided",
    }
}

fn fault(reason: &Reason) -> &'static str {
    match reason.fault() {
        Fault::Payer => "payer",
        Fault::Payee => "seller",
        Fault::Us => "us",
        Fault::Chain => "chain",
    }
}

/// A paid call that failed leaves no reason: the state is the money's.
fn because(reason: &Reason) -> &str {
    if reason.code() == "not_kept" { "the log of that time says why" } else { reason.code() }
}

fn with(tx: Option<&farthing_payment::TxRef>) -> String {
    tx.map(|tx| format!(", transaction {tx}")).unwrap_or_default()
}

fn slot_state(state: &SlotState) -> String {
    match state {
        SlotState::Open => "open, in no block yet".to_owned(),
        SlotState::Included { tx, block, .. } => format!("filled in block {block} by {tx}"),
        SlotState::Final { tx } => format!("filled for good by {tx}"),
        SlotState::Lost => "lost: another transaction took the nonce".to_owned(),
    }
}

fn slot_json(stored: &StoredSlot) -> Value {
    let slot = &stored.slot;
    let variants: Vec<Value> = slot
        .variants
        .iter()
        .map(|variant| {
            json!({
                "transaction": variant.tx.as_str(),
                "signed": variant.signed.to_string(),
                "max_fee_wei": variant.max_fee.to_string(),
                "priority_fee_wei": variant.priority_fee.to_string(),
            })
        })
        .collect();
    json!({
        "attempt": slot.attempt.to_string(),
        "relayer": slot.relayer.as_str(),
        "nonce": slot.nonce,
        "state": slot.state.name(),
        "transactions": slot.variants.iter().map(|variant| variant.tx.as_str()).collect::<Vec<_>>(),
        "variants": variants,
    })
}
