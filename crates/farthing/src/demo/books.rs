//! The summary: four witnesses to every atom, who have to agree.
//!
//! What the token says of balances; its `Transfer` events; what the wallets wrote down before they signed; what the
//! sellers' and the facilitator's ledgers hold. None of them is derived from another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use farthing_wallet::Home;
use farthing_wallet::journal::channels::is_over;
use farthing_wallet::journal::{MAX_HISTORY, State};
use serde::Serialize;
use serde_json::Value;

use super::child::{command, output};
use super::node::Node;
use crate::cli::Failure;
use crate::config::session::ESCROW;

/// As much of a journal as can be asked for.
pub const EVERYTHING: u32 = MAX_HISTORY;

/// How long the last costs may take to be booked, how many blocks pass at once for that, and how often to look.
const BOOKED_WITHIN: Duration = Duration::from_secs(10);
const BLOCKS_AT_ONCE: u64 = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// Somebody with an address: a buyer with a wallet, a seller with a store, or both.
#[derive(Debug, Clone)]
pub struct Party {
    pub name: &'static str,
    /// In lower case.
    pub address: String,
    pub home: Option<PathBuf>,
    pub store: Option<PathBuf>,
}

/// Who sends the transactions, and pays for their gas.
#[derive(Debug, Clone)]
pub struct Settler {
    pub name: &'static str,
    pub store: PathBuf,
    pub relayer: String,
    /// Whether it settles for others, as a facilitator; else it is one of the sellers.
    pub relays: bool,
}

/// One line of the summary, in atoms of USDC.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub party: &'static str,
    pub address: String,
    /// What the token says, before and after.
    pub balance_before: String,
    pub balance_after: String,
    /// What the token's events say.
    pub received: String,
    pub sent: String,
    /// What the seller's ledger says; absent for those that sell nothing.
    pub ledger_earned: Option<String>,
    /// What the wallet's journal says; absent for those that buy nothing.
    pub journal_spent: Option<String>,
    pub agrees: bool,
}

/// The whole summary.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    pub lines: Vec<Line>,
    pub payments: u64,
    /// Atoms that changed hands.
    pub moved: String,
    /// What the facilitator's ledger says it moved for others; absent where sellers settle themselves.
    pub facilitator_moved: Option<String>,
    /// How many transactions each of those sent who settle.
    pub transactions: BTreeMap<&'static str, u64>,
    /// Gas by the ledgers of those who settle, and by what their keys have less; in wei.
    pub gas_booked: String,
    pub gas_paid: String,
    /// Transfers, payments and problems of each ledger, re-derived.
    pub ledgers: BTreeMap<String, Value>,
    /// Everything that does not agree, in words.
    pub differences: Vec<String>,
}

impl Summary {
    pub fn reconciles(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Balances at the beginning, and what to compare them with at the end.
#[derive(Debug)]
pub struct Books {
    node: Node,
    program: PathBuf,
    parties: Vec<Party>,
    /// Balances of the parties, in their order.
    before: Vec<u128>,
    settlers: Vec<Before>,
    /// The first block that counts.
    from_block: u128,
}

/// Somebody who settles, and what its key had and had done before.
#[derive(Debug)]
struct Before {
    settler: Settler,
    wei: u128,
    sent: u128,
}

impl Books {
    /// Notes how things stand. Nothing may have been bought yet.
    pub async fn open(
        node: Node,
        program: &Path,
        parties: Vec<Party>,
        settlers: Vec<Settler>,
    ) -> Result<Self, Failure> {
        let mut before = Vec::with_capacity(parties.len());
        for party in &parties {
            before.push(node.usdc(&party.address).await?);
        }
        let from_block = node.block_number().await?.saturating_add(1);
        let mut keys = Vec::with_capacity(settlers.len());
        for settler in settlers {
            let (wei, sent) = (node.wei(&settler.relayer).await?, node.sent_by(&settler.relayer).await?);
            keys.push(Before { settler, wei, sent });
        }
        let program = program.to_owned();
        Ok(Self { node, program, parties, before, settlers: keys, from_block })
    }

    /// Asks everybody, and compares.
    pub async fn close(&self) -> Result<Summary, Failure> {
        self.let_time_pass().await?;
        let mut summary = Summary::default();
        let moves = self.node.moves_since(self.from_block, ESCROW).await?;
        let flows = moves.flows;
        let mut differ: Vec<String> = Vec::new();
        if moves.escrowed != Some(0) {
            differ.push(format!("the escrow took {:?} atoms more than it paid out", moves.escrowed));
        }
        let (mut sent, mut earned, mut spent, mut by_channel) = (0u128, 0u128, 0u128, 0u128);
        for (party, before) in self.parties.iter().zip(&self.before) {
            let after = self.node.usdc(&party.address).await?;
            let flow = flows.get(&party.address).copied().unwrap_or_default();
            let ledger = match &party.store {
                Some(store) => {
                    let (name, check) =
                        (party.name.to_owned(), self.check(store, party.name, &mut differ).await?);
                    summary.ledgers.insert(name, check);
                    Some(self.balance(store, "treasury", &usdc()).await?.net(party.name)?)
                }
                None => None,
            };
            let journal =
                party.home.as_deref().map(|home| spent_by(home, party.name, &mut differ)).transpose()?;
            let journal = journal.unwrap_or_default();
            let (in_books, out_books) = (ledger.unwrap_or(0), journal.spent);
            let expected = sum(*before, in_books)?.checked_sub(out_books);
            let agrees = flow.received == in_books && flow.sent == out_books && expected == Some(after);
            if !agrees {
                differ.push(format!(
                    "{}: the token says {before} to {after}, its events +{} -{}, the books +{in_books} -{out_books}",
                    party.name, flow.received, flow.sent
                ));
            }
            (sent, earned, spent) = (sum(sent, flow.sent)?, sum(earned, in_books)?, sum(spent, out_books)?);
            by_channel = sum(by_channel, journal.by_channel)?;
            summary.payments = summary.payments.saturating_add(journal.purchases);
            summary.lines.push(Line {
                party: party.name,
                address: party.address.clone(),
                balance_before: before.to_string(),
                balance_after: after.to_string(),
                received: flow.received.to_string(),
                sent: flow.sent.to_string(),
                ledger_earned: ledger.map(|atoms| atoms.to_string()),
                journal_spent: party.home.is_some().then(|| journal.spent.to_string()),
                agrees,
            });
        }
        let mut witnesses = vec![("sellers' ledgers", earned), ("wallets' journals", spent)];
        for Before { settler, .. } in self.settlers.iter().filter(|before| before.settler.relays) {
            let check = self.check(&settler.store, settler.name, &mut differ).await?;
            summary.ledgers.insert(settler.name.to_owned(), check);
            let moved = self.balance(&settler.store, "payees", &usdc()).await?.net(settler.name)?;
            summary.facilitator_moved = Some(moved.to_string());
            // What a channel paid went through no facilitator.
            witnesses.push(("facilitator's ledger and the escrow", sum(moved, by_channel)?));
        }
        for (what, atoms) in witnesses {
            if atoms != sent {
                differ.push(format!("{sent} atoms moved on chain, and {atoms} by the {what}"));
            }
        }
        for (address, flow) in &flows {
            if !self.parties.iter().any(|party| party.address == *address) {
                differ.push(format!("{address}, which nobody knows: +{} -{}", flow.received, flow.sent));
            }
        }
        let (mut all_booked, mut all_paid) = (0u128, 0u128);
        for Before { settler, wei, sent } in &self.settlers {
            let booked = self.balance(&settler.store, "gas", "").await?.net(settler.name)?;
            let paid = wei.checked_sub(self.node.wei(&settler.relayer).await?);
            if paid != Some(booked) {
                differ.push(format!(
                    "the key of {} paid {paid:?} wei of gas, and its ledger says {booked}",
                    settler.name
                ));
            }
            (all_booked, all_paid) = (sum(all_booked, booked)?, sum(all_paid, paid.unwrap_or_default())?);
            let sent = self.node.sent_by(&settler.relayer).await?.saturating_sub(*sent);
            summary.transactions.insert(settler.name, u64::try_from(sent).unwrap_or(u64::MAX));
        }
        summary.moved = sent.to_string();
        summary.gas_booked = all_booked.to_string();
        summary.gas_paid = all_paid.to_string();
        summary.differences = differ;
        Ok(summary)
    }

    /// What opening and closing a channel cost is in the books once no reorganization can undo it, and without blocks no
    /// time passes on a chain for development.
    async fn let_time_pass(&self) -> Result<(), Failure> {
        let began = Instant::now();
        for Before { settler, wei, .. } in self.settlers.iter().filter(|before| !before.settler.relays) {
            loop {
                let booked = self.balance(&settler.store, "gas", "").await?;
                let paid = wei.saturating_sub(self.node.wei(&settler.relayer).await?);
                let is_booked = booked.debits.checked_sub(booked.credits) == Some(paid);
                if is_booked || began.elapsed() > BOOKED_WITHIN {
                    break;
                }
                self.node.mine(BLOCKS_AT_ONCE).await?;
                tokio::time::sleep(BETWEEN_LOOKS).await;
            }
        }
        // And so for the wallets, which look when they are told to.
        for home in self.parties.iter().filter_map(|party| party.home.as_deref()) {
            let journal = Home::new(home).journal().map_err(|error| Failure::failed(error.to_string()))?;
            let channels = journal.channels().map_err(|error| Failure::failed(error.to_string()))?;
            for kept in channels.iter().filter(|kept| !is_over(kept.payer.state())) {
                let mut look = command(&self.program, ["channel", "show", &kept.id().to_string(), "--json"]);
                look.env("FARTHING_HOME", home);
                output(look).await?;
            }
        }
        Ok(())
    }

    /// `farthing ledger check` of one store.
    async fn check(&self, store: &Path, name: &str, differ: &mut Vec<String>) -> Result<Value, Failure> {
        let said = self.ledger("check", store).await?;
        let value = said.json().unwrap_or_default();
        if said.code != 0 || value["problems"].as_array().is_none_or(|problems| !problems.is_empty()) {
            differ.push(format!(
                "the books of {name} do not balance: {}{}",
                said.stdout.trim(),
                said.stderr.trim()
            ));
        }
        Ok(value)
    }

    /// What `farthing ledger balances` says of one kind of account, in assets whose name contains `asset`.
    async fn balance(&self, store: &Path, account: &str, asset: &str) -> Result<Balance, Failure> {
        let said = self.ledger("balances", store).await?;
        let rows = said.json();
        let rows = rows.as_ref().and_then(Value::as_array).ok_or_else(|| {
            Failure::failed(format!(
                "the balances of {} cannot be read: {}",
                store.display(),
                said.stderr.trim()
            ))
        })?;
        let mut balance = Balance::default();
        for row in rows.iter().filter(|row| row["account"] == account) {
            if row["asset"].as_str().is_some_and(|name| name.to_lowercase().contains(asset)) {
                balance.debits = sum(balance.debits, atoms(&row["debits_posted"])?)?;
                balance.credits = sum(balance.credits, atoms(&row["credits_posted"])?)?;
                balance.pending = sum(balance.pending, atoms(&row["debits_pending"])?)?;
                balance.pending = sum(balance.pending, atoms(&row["credits_pending"])?)?;
            }
        }
        Ok(balance)
    }

    async fn ledger(&self, what: &str, store: &Path) -> Result<super::child::Said, Failure> {
        let mut asked = command(&self.program, ["ledger", what, "--json", "--store"]);
        asked.arg(store);
        output(asked).await
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Balance {
    debits: u128,
    credits: u128,
    pending: u128,
}

impl Balance {
    /// Debits less credits. At the end nothing may be pending.
    fn net(self, name: &str) -> Result<u128, Failure> {
        match self.debits.checked_sub(self.credits) {
            Some(net) if self.pending == 0 => Ok(net),
            _ => Err(Failure::failed(format!("the ledger of {name} is not at rest: {self:?}"))),
        }
    }
}

/// What a wallet's journal says.
#[derive(Debug, Clone, Copy, Default)]
struct Spending {
    spent: u128,
    /// What of that sellers took from channels.
    by_channel: u128,
    purchases: u64,
}

/// Anything but settled is a difference: at the end no payment may be open, and no channel.
fn spent_by(home: &Path, name: &str, differ: &mut Vec<String>) -> Result<Spending, Failure> {
    let failed = |error: farthing_wallet::journal::JournalError| {
        Failure::failed(format!("the journal of {name}: {error}"))
    };
    let journal = Home::new(home).journal().map_err(failed)?;
    let mut all = Spending::default();
    let mut vouched = 0u128;
    for purchase in journal.history(MAX_HISTORY).map_err(failed)? {
        if purchase.state != State::Settled {
            differ.push(format!(
                "a purchase of {name} is {}: {} {}",
                purchase.state, purchase.method, purchase.url
            ));
            continue;
        }
        all.purchases = all.purchases.saturating_add(1);
        // What a voucher bought is in what its channel paid.
        let sums = if purchase.channel.is_some() { &mut vouched } else { &mut all.spent };
        *sums = sum(*sums, purchase.money.atoms())?;
    }
    for kept in journal.channels().map_err(failed)? {
        if !is_over(kept.payer.state()) {
            differ.push(format!("a channel of {name} is {}: {}", kept.payer.state().name(), kept.id()));
        }
        all.by_channel = sum(all.by_channel, kept.payer.settled())?;
    }
    // What a stream that broke off was vouched counts for it, and again for the purchase that used it.
    if vouched < all.by_channel {
        differ.push(format!(
            "by its purchases {name} spent {vouched} atoms from channels, and {} were taken",
            all.by_channel
        ));
    }
    all.spent = sum(all.spent, all.by_channel)?;
    Ok(all)
}

fn atoms(value: &Value) -> Result<u128, Failure> {
    let odd = || Failure::failed(format!("not an amount: {value}"));
    value.as_str().and_then(|text| farthing_primitives::parse_atoms(text).ok()).ok_or_else(odd)
}

fn sum(a: u128, b: u128) -> Result<u128, Failure> {
    a.checked_add(b).ok_or_else(|| Failure::failed("an amount beyond 128 bits"))
}

/// How the ledger names the token, without its network.
fn usdc() -> String {
    format!("/erc20:{}", farthing_devnet::USDC).to_lowercase()
}
