//! The channels that a wallet pays through: their records with the high-water mark, deposits that are on their way, and
//! what vouchers bought.
//!
//! Everything that moves a channel is one transaction that reads its record, steps it and writes it, so that two
//! processes on one wallet never sign for one increment twice, nor less than the other has sent.

use farthing_channel::record::{decode_payer, encode_payer};
use std::sync::Arc;

use farthing_channel::{
    ChannelId, Need, Payer, PayerAction, PayerError, PayerEvent, PayerState, PayerStep, Price, Receipt, Unit,
};
use farthing_payment::{Fault, Reason};
use farthing_policy::{Bucket, Decision, Movement, Request, Source};
use farthing_primitives::{Address, AssetId, AttemptId, PurchaseId, Timestamp};
use rusqlite::{OptionalExtension, Row, params};

use super::{
    Draft, Goods, Header, Journal, JournalError, MAX_HISTORY, Outcome, State, Tx, advance, audit, become_,
    believed, find, key, millis, pin, run, state, wide,
};
use crate::clock::believable;

/// Why an attempt came to nothing that was never signed, or that nobody saw before it lapsed.
const NEVER_SHOWN: &str = "never_shown";

/// The note of a purchase that is a stream, as long as nothing else is known of it.
pub const STREAMS: &str = "stream";

/// Who is tied together by a channel. One channel between them is used at a time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parties {
    pub payer: Address,
    pub payee: Address,
    pub asset: AssetId,
    pub escrow: Address,
}

impl Parties {
    fn text(&self) -> String {
        format!("{} {} {} {}", self.payer, self.payee, self.asset, self.escrow)
    }

    /// The payee, of the parties as they are kept.
    fn payee_of(text: &str, asset: &AssetId) -> Option<Address> {
        Address::parse(asset.network(), text.split(' ').nth(1)?).ok()
    }

    fn of(payer: &Payer) -> Self {
        let terms = payer.terms();
        Self {
            payer: terms.payer.clone(),
            payee: terms.payee.clone(),
            asset: terms.asset.clone(),
            escrow: terms.escrow.clone(),
        }
    }
}

/// A channel that is about to be opened, or that was found again.
#[derive(Debug, Clone)]
pub struct NewChannel {
    pub payer: Payer,
    /// Which of the parties' channels it is.
    pub number: u64,
    /// When the deposit's authorization lapses.
    pub expires: Timestamp,
    /// What one atom counts in dollars, in the policy's unit.
    pub dollar: Option<u128>,
    /// Where the seller is.
    pub authority: String,
    pub method: String,
    pub url: String,
}

/// A channel as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptChannel {
    pub payer: Payer,
    pub number: u64,
    /// `host:port` of the seller.
    pub authority: String,
    pub method: String,
    pub url: String,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// The seller's last receipt, as JSON.
    pub receipt: Option<String>,
    pub note: Option<String>,
    /// What the record's pending attempt needs to be shown again.
    pub attempt: Option<KeptAttempt>,
}

impl KeptChannel {
    pub fn id(&self) -> ChannelId {
        self.payer.terms().id
    }
}

/// How far a deposit, or a transaction of ours, has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptState {
    /// Nothing is signed that anybody could have.
    Intended,
    /// Signed, and nobody has seen it.
    Signed,
    /// Somebody has, and only the chain says what becomes of it.
    Shown,
}

impl AttemptState {
    const fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Signed => "signed",
            Self::Shown => "shown",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Intended, Self::Signed, Self::Shown].into_iter().find(|state| state.name() == text)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAttempt {
    pub id: AttemptId,
    pub state: AttemptState,
    pub expires: Timestamp,
    /// The header that brings the deposit, if it is one.
    pub header: Option<Header>,
    /// Where it is shown; `None` where an older program signed it.
    pub url: Option<String>,
    /// The signed transaction, if it is one of ours.
    pub raw: Option<Vec<u8>>,
    /// The process that works on it is gone.
    pub abandoned: bool,
}

/// What came of a wish to open a channel.
#[derive(Debug, Clone)]
pub enum Begun {
    /// It is written down. Now it may be signed.
    New(Decision),
    Denied(Decision),
    /// The parties have one.
    Exists(Box<KeptChannel>),
}

/// What came of a wish to pay by voucher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raised {
    /// The mark is durable: a voucher for `cumulative` may be signed.
    To {
        cumulative: u128,
        decision: Option<Decision>,
    },
    Denied(Decision),
    /// The deposit is so much too small.
    NeedsTopUp {
        missing: u128,
    },
}

/// What a request costs, and within what.
#[derive(Debug, Clone)]
pub struct NewSpend {
    pub channel: ChannelId,
    /// In atoms; of a stream what its beginning costs.
    pub price: u128,
    /// How much more than the last voucher the seller wants the next to be worth, if it is worth more.
    pub min_delta: u128,
}

/// By how much a voucher is raised at least, and what its purchase may cost at most, in atoms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub min_delta: u128,
    pub most: u128,
}

/// What a purchase by voucher brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Got {
    /// The seller's word, from its receipt.
    pub receipt: Option<Receipt>,
    /// What we count ourselves; `None` where the unit cannot be counted here, and the seller's word counts, up to what
    /// was vouched.
    pub atoms: Option<u128>,
    /// What one unit costs: a request is at least one.
    pub price: u128,
    /// Whether that is all: nothing came after the seller's word.
    pub is_whole: bool,
}

impl Journal {
    /// Decides about a deposit and, if it is allowed, writes down that the channel is meant to be opened, in one step.
    pub fn begin_channel(
        &self,
        request: &Request,
        new: &NewChannel,
        clock: &farthing_policy::Clock,
    ) -> Result<Begun, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            let parties = Parties::of(&new.payer);
            if let Some(known) = self.usable(tx, &parties)? {
                return Ok(Begun::Exists(Box::new(known)));
            }
            let decision = self.ruling(tx, request, now, true)?;
            let attempt = new.payer.pending().map(|pending| pending.id);
            audit::deposit(tx, &decision, &self.as_own(request), (&new.payer, attempt, Some(&new.url)))?;
            if !decision.is_allowed() {
                return Ok(Begun::Denied(decision));
            }
            pin(tx, &new.authority, request.charge.money().asset().network(), &request.payee, now)?;
            insert(tx, new, now)?;
            self.assign_channel(tx, &new.payer.terms().id)?;
            let Some(attempt) = new.payer.pending() else { return Err(JournalError::Corrupt("attempt")) };
            intend(tx, &attempt.id, &new.payer.terms().id, new.expires, &self.processes.this)?;
            super::approvals::consume(tx, &decision, request, &attempt.id.to_bytes(), now)?;
            self.vouch(tx, &decision, request)?;
            Ok(Begun::New(decision))
        })
    }

    /// Takes up a channel that was found on the chain and that the journal does not know. It counts against the caps
    /// from now on.
    ///
    /// Returns whether it was new.
    pub fn adopt_channel(
        &self,
        new: &NewChannel,
        clock: &farthing_policy::Clock,
    ) -> Result<bool, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            if load(tx, &new.payer.terms().id)?.is_some() {
                return Ok(false);
            }
            insert(tx, new, now)?;
            self.assign_channel(tx, &new.payer.terms().id)?;
            audit::channel_is(tx, &new.payer)?;
            Ok(true)
        })
    }

    /// Decides about more money for a channel and, if it is allowed, writes down that it is meant, in one step.
    pub fn begin_top_up(
        &self,
        request: &Request,
        channel: &ChannelId,
        attempt: AttemptId,
        expires: Timestamp,
        clock: &farthing_policy::Clock,
    ) -> Result<Decision, JournalError> {
        self.within(|tx| {
            self.own_channel(tx, channel)?;
            let now = advance(tx, clock)?;
            let decision = self.ruling(tx, request, now, true)?;
            let payer = known(tx, channel)?;
            audit::deposit(tx, &decision, &self.as_own(request), (&payer, Some(attempt), None))?;
            if decision.is_allowed() {
                let amount = request.charge.money().atoms();
                let action = PayerAction::TopUp { amount, reaches: 0 };
                write(tx, &payer, payer.step(PayerEvent::Intended { attempt, action }, now)?, now)?;
                intend(tx, &attempt, channel, expires, &self.processes.this)?;
                super::approvals::consume(tx, &decision, request, &attempt.to_bytes(), now)?;
                self.vouch(tx, &decision, request)?;
            }
            Ok(decision)
        })
    }

    /// Writes down that a transaction of ours is about to be sent, with its bytes, so that the same are sent again.
    pub fn begin_transaction(
        &self,
        channel: &ChannelId,
        attempt: AttemptId,
        action: PayerAction,
        raw: &[u8],
        tx_name: farthing_payment::TxRef,
        clock: &farthing_policy::Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own_channel(tx, channel)?;
            let now = advance(tx, clock)?;
            let payer = known(tx, channel)?;
            audit::transaction(tx, &payer, &attempt, &action)?;
            let step = payer
                .step(PayerEvent::Intended { attempt, action }, now)?
                .and(PayerEvent::Named { attempt, tx: tx_name }, now)?;
            write(tx, &payer, step, now)?;
            intend(tx, &attempt, channel, Timestamp::from_millis(u64::MAX >> 1), &self.processes.this)?;
            run(
                tx,
                "UPDATE channel_attempt SET state = 'shown', raw = ?2 WHERE id = ?1",
                params![&attempt.to_bytes()[..], raw],
            )?;
            Ok(())
        })
    }

    /// Writes down what was signed to bring a deposit. Only after this may anybody see it.
    ///
    /// # Errors
    /// [`JournalError::Frozen`] if the owner froze the wallet in between, [`JournalError::SessionKey`] if the payer pays
    /// no more, and [`JournalError::Corrupt`] if the attempt was given up: the signature is to be dropped.
    pub fn attempt_signed(
        &self,
        attempt: &AttemptId,
        header: &Header,
        url: &str,
        clock: &farthing_policy::Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own_attempt(tx, attempt)?;
            self.may_sign(tx)?;
            self.payer_is_there(tx, attempt, clock)?;
            let changed = run(
                tx,
                "UPDATE channel_attempt SET state = 'signed', header_name = ?2, header_value = ?3, url = ?4
                 WHERE id = ?1 AND state = 'intended'",
                params![&attempt.to_bytes()[..], header.name, header.value, url],
            )?;
            if changed == 1 { Ok(()) } else { Err(JournalError::Corrupt("attempt")) }
        })
    }

    /// Writes down that a deposit is about to be shown, and returns the header that brings it.
    ///
    /// # Errors
    /// As [`Self::attempt_signed`], unless it was shown before.
    pub fn attempt_shown(
        &self,
        attempt: &AttemptId,
        clock: &farthing_policy::Clock,
    ) -> Result<Header, JournalError> {
        self.within(|tx| {
            self.own_attempt(tx, attempt)?;
            let found = read_attempt(tx, attempt, |_| false)?.ok_or(JournalError::Corrupt("attempt"))?;
            if found.state == AttemptState::Signed {
                self.may_sign(tx)?;
                self.payer_is_there(tx, attempt, clock)?;
            }
            run(tx, "UPDATE channel_attempt SET state = 'shown', holder = ?2 WHERE id = ?1 AND state <> 'intended'",
                params![&attempt.to_bytes()[..], self.processes.this],
            )?;
            found.header.ok_or(JournalError::Corrupt("header"))
        })
    }

    /// Whether the payer of a deposit still pays for whoever uses this journal.
    fn payer_is_there(
        &self,
        tx: &Tx,
        attempt: &AttemptId,
        clock: &farthing_policy::Clock,
    ) -> Result<(), JournalError> {
        let mut found = tx.prepare_cached("SELECT channel FROM channel_attempt WHERE id = ?1")?;
        let channel: Option<[u8; 32]> =
            found.query_row([&attempt.to_bytes()[..]], |row| row.get(0)).optional()?;
        let channel = ChannelId(channel.ok_or(JournalError::Corrupt("attempt"))?);
        let payer = known(tx, &channel)?;
        let now = believed(tx, clock)?.time;
        self.key_now(tx, &payer.terms().payer, now, clock).map(drop)
    }

    /// Gives up a deposit of which nothing left this process.
    pub fn drop_attempt(
        &self,
        attempt: &AttemptId,
        clock: &farthing_policy::Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            let found = read_attempt(tx, attempt, |_| true)?;
            match found.filter(|found| found.state == AttemptState::Intended) {
                Some(_) => fail(tx, attempt, now),
                None => Ok(()),
            }
        })
    }

    /// Moves a channel, all at once or not at all, and returns it as it is then.
    ///
    /// # Errors
    /// [`JournalError::Channel`] if the step does not fit; [`JournalError::NoChannel`].
    pub fn step_channel(
        &self,
        channel: &ChannelId,
        clock: &farthing_policy::Clock,
        step: impl FnOnce(&KeptChannel, Timestamp) -> Result<PayerStep, PayerError>,
    ) -> Result<KeptChannel, JournalError> {
        self.within(|tx| {
            self.own_channel(tx, channel)?;
            let now = advance(tx, clock)?;
            let kept = self.kept(tx, channel)?.ok_or(JournalError::NoChannel(*channel))?;
            let step = step(&kept, now)?;
            write(tx, &kept.payer, step, now)?;
            self.kept(tx, channel)?.ok_or(JournalError::NoChannel(*channel))
        })
    }

    /// What a process does first that finds a channel: gives up what was never signed and whose process is gone, and
    /// what was signed, never shown, and has lapsed.
    pub fn lapse_attempts(&self, clock: &farthing_policy::Clock) -> Result<usize, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            let wall = believable(clock).wall;
            let attempts: Vec<AttemptId> = {
                let mut found = tx
                    .prepare_cached("SELECT id FROM channel_attempt WHERE state IN ('intended', 'signed')")?;
                let rows = found.query_map([], |row| row.get::<_, Vec<u8>>(0))?;
                rows.map(|row| attempt_id(row?)).collect::<Result<_, _>>()?
            };
            let mut dropped = 0;
            for id in attempts {
                let Some(found) = read_attempt(tx, &id, |holder| (self.processes.is_gone)(holder))? else {
                    continue;
                };
                // Both clocks must agree on the end, so that one that ran ahead for a while releases nothing early.
                let lapsed = found.expires < wall && found.expires < now;
                if lapsed || (found.state == AttemptState::Intended && found.abandoned) {
                    fail(tx, &id, now)?;
                    dropped += 1;
                }
            }
            Ok(dropped)
        })
    }

    pub fn channel(&self, channel: &ChannelId) -> Result<KeptChannel, JournalError> {
        self.within(|tx| {
            self.own_channel(tx, channel)?;
            self.kept(tx, channel)?.ok_or(JournalError::NoChannel(*channel))
        })
    }

    /// All channels, latest first.
    pub fn channels(&self) -> Result<Vec<KeptChannel>, JournalError> {
        self.within(|tx| {
            let ids: Vec<ChannelId> = {
                let mut found =
                    tx.prepare_cached(
                        "SELECT id FROM channel WHERE (?1 IS NULL OR agent = ?1) ORDER BY created_ms DESC, id LIMIT ?2",
                    )?;
                let rows = found.query_map(params![self.agent_name(), MAX_HISTORY], |row| row.get::<_, Vec<u8>>(0))?;
                rows.map(|row| id(row?)).collect::<Result<_, _>>()?
            };
            ids.iter().filter_map(|id| self.kept(tx, id).transpose()).collect()
        })
    }

    /// The channel between these parties that is open, or is being opened.
    pub fn channel_between(&self, parties: &Parties) -> Result<Option<KeptChannel>, JournalError> {
        self.within(|tx| self.usable(tx, parties))
    }

    /// The lowest number that no channel of these parties has yet.
    pub fn next_channel_number(&self, parties: &Parties) -> Result<u64, JournalError> {
        self.within(|tx| {
            let mut found = tx.prepare_cached("SELECT max(number) FROM channel WHERE parties = ?1")?;
            let last: Option<i64> = found.query_row([parties.text()], |row| row.get(0))?;
            Ok(last.map_or(0, |last| last.cast_unsigned().saturating_add(1)))
        })
    }

    /// What [`Journal::spend`] would decide. Changes nothing.
    pub fn preview_spend(
        &self,
        request: &Request,
        clock: &farthing_policy::Clock,
    ) -> Result<Decision, JournalError> {
        self.within(|tx| {
            let now = super::believed(tx, clock)?.time;
            self.ruling(tx, request, now, false)
        })
    }

    /// Decides about a purchase by voucher and, if it is allowed, raises the channel's mark by as much as it needs and
    /// writes the purchase down, in one step: no two purchases share an increment.
    ///
    /// Its amount counts against what a single payment may cost; against the windows its channel's deposit counts.
    pub fn spend(
        &self,
        request: &Request,
        draft: &Draft,
        new: &NewSpend,
        clock: &farthing_policy::Clock,
    ) -> Result<Raised, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            super::lapse(tx, now, believable(clock).wall)?;
            self.own_channel(tx, &new.channel)?;
            let decision = self.ruling(tx, request, now, false)?;
            if !decision.is_allowed() {
                audit::decided(tx, &decision, &self.as_own(request), draft, Some((&new.channel, None)))?;
                return Ok(Raised::Denied(decision));
            }
            let payer = known(tx, &new.channel)?;
            // What other requests that are on their way were promised is theirs.
            let needed = payer
                .closing_amount()
                .checked_add(held(tx, &new.channel)?)
                .and_then(|sum| sum.checked_add(new.price))
                .ok_or(JournalError::Corrupt("amount"))?;
            let cumulative = voucher_for(needed, payer.signed(), new.min_delta);
            // The seller's least step may be more than this call may cost; none of it comes back with certainty.
            let more = cumulative.saturating_sub(payer.signed());
            if let Some(most) = request.max.filter(|most| more > *most) {
                return Err(JournalError::OverMax { most });
            }
            // What was decided about is the price: more is not vouched for where a rule could say otherwise of it.
            if more > new.price {
                let law = self.law_now(tx)?;
                if law.screener().is_some() || law.minds_growth(&self.as_own(request), now) {
                    return Err(JournalError::OverMax { most: new.price });
                }
            }
            let step = match payer.step(PayerEvent::Raised { to: cumulative }, now) {
                Ok(step) => step,
                Err(PayerError::AboveDeposit(missing)) => return Ok(Raised::NeedsTopUp { missing }),
                Err(error) => return Err(error.into()),
            };
            if !cfg!(mutant = "mark") {
                write(tx, &payer, step, now)?;
            }
            self.insert(tx, request, draft, &decision, now)?;
            super::approvals::consume(tx, &decision, request, &key(&draft.id), now)?;
            run(
                tx,
                "UPDATE purchase SET channel = ?2, cumulative = ?3, held = ?4 WHERE id = ?1",
                params![
                    key(&draft.id),
                    &new.channel.0[..],
                    &cumulative.to_be_bytes()[..],
                    &new.price.to_be_bytes()[..],
                ],
            )?;
            let own = self.as_own(request);
            audit::decided(tx, &decision, &own, draft, Some((&new.channel, Some(cumulative))))?;
            Ok(Raised::To { cumulative, decision: Some(decision) })
        })
    }

    /// Writes down the voucher of a purchase. Only after this may anybody see it.
    pub fn voucher_signed(
        &self,
        id: &PurchaseId,
        header: &Header,
        clock: &farthing_policy::Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            self.may_sign(tx)?;
            become_(tx, id, State::Signed, clock)?;
            run(
                tx,
                "UPDATE purchase SET header_name = ?2, header_value = ?3 WHERE id = ?1",
                params![key(id), header.name, header.value],
            )?;
            Ok(())
        })
    }

    /// Puts a greater voucher in the place of a purchase's own. Only after this may anybody see it.
    ///
    /// # Errors
    /// [`JournalError::Frozen`] if the owner froze the wallet in between: the signature is to be dropped.
    pub fn reheader(&self, id: &PurchaseId, header: &Header) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            self.may_sign(tx)?;
            run(
                tx,
                "UPDATE purchase SET header_name = ?2, header_value = ?3
                 WHERE id = ?1 AND state IN ('signed', 'presented', 'unknown')",
                params![key(id), header.name, header.value],
            )?;
            Ok(())
        })
    }

    /// Raises a channel's mark for a purchase that needs more, as far as the seller says. Of a stream that `went_on` it
    /// books what was used so far, by the seller's word, which is never more than was vouched. Returns what to sign.
    pub fn raise(
        &self,
        id: &PurchaseId,
        need: &Need,
        went_on: bool,
        Step { min_delta, most }: Step,
        clock: &farthing_policy::Clock,
    ) -> Result<Raised, JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            let now = advance(tx, clock)?;
            self.may_sign(tx)?;
            let purchase = find(tx, id)?;
            let channel = purchase.channel.ok_or(JournalError::Corrupt("channel"))?;
            let payer = known(tx, &channel)?;
            // What others hold is not this purchase's.
            let requests = held(tx, &channel)?.saturating_sub(held_by(tx, id)?);
            let others = requests.saturating_add(streams_ahead(tx, &channel, id)?);
            // Who does not say what is spent may have taken all that it accepted.
            let spent = need.spent.unwrap_or(need.accepted).min(need.accepted).min(payer.signed());
            let used = spent.saturating_sub(others).saturating_sub(payer.used());
            let used = if went_on { used } else { 0 };
            let mut step = PayerStep { expected: payer.version(), next: payer.clone() };
            if used > 0 {
                step = step.and(received(used)?, now)?;
            }
            // What the purchase costs is what it used so far, and what would be vouched and not used yet: all of that the
            // seller can ask for, whatever it was raised for.
            let had = purchase.money.atoms().saturating_sub(ahead_of(tx, id)?).saturating_add(used);
            let ahead = |next: &Payer, to: u128| to.saturating_sub(others).saturating_sub(next.used());
            let book = |to: u128, ahead: u128| -> Result<(), JournalError> {
                let atoms = had.saturating_add(ahead);
                run(
                    tx,
                    "UPDATE purchase SET cumulative = ?2, atoms = ?3, held = ?4 WHERE id = ?1",
                    params![
                        key(id),
                        &to.to_be_bytes()[..],
                        &atoms.to_be_bytes()[..],
                        &ahead.to_be_bytes()[..]
                    ],
                )?;
                Ok(())
            };
            let deposit = step.next.deposit();
            let signed = payer.signed();
            let least = voucher_for(need.required, signed, min_delta);
            let room = most.checked_sub(had).ok_or(JournalError::OverMax { most })?;
            if ahead(&step.next, least) > room {
                return Err(JournalError::OverMax { most });
            }
            // What others were promised the seller may not have begun, and whoever is first takes it: it is vouched once
            // more, where there is room for it. A request, which they were faster than, asks for as much again as it had.
            let beside = match others {
                0 => 0,
                _ if went_on => others,
                _ => others.saturating_add(held_by(tx, id)?),
            };
            let fitting = room.saturating_add(others).saturating_add(step.next.used()).min(deposit);
            let wanted = voucher_for(need.required.saturating_add(beside), signed, min_delta).min(fitting);
            let is_step = wanted == deposit || wanted >= signed.saturating_add(min_delta);
            let to = if wanted > least && is_step { wanted } else { least };
            if to > deposit {
                // What was used so far is known all the same.
                let missing = to - deposit;
                book(signed, ahead(&step.next, signed))?;
                write(tx, &payer, step, now)?;
                return Ok(Raised::NeedsTopUp { missing });
            }
            let step = step.and(PayerEvent::Raised { to }, now)?;
            book(to, ahead(&step.next, to))?;
            write(tx, &payer, step, now)?;
            Ok(Raised::To { cumulative: to, decision: None })
        })
    }

    /// Writes down what became of a purchase by voucher, and with it what its channel brought, once.
    pub fn conclude_spend(
        &self,
        id: &PurchaseId,
        outcome: &Outcome,
        got: Option<&Got>,
        receipt: Option<&str>,
        clock: &farthing_policy::Clock,
    ) -> Result<KeptChannel, JournalError> {
        let (channel, before) = self.within(|tx| {
            self.own(tx, id)?;
            let now = advance(tx, clock)?;
            let purchase = find(tx, id)?;
            let channel = purchase.channel.ok_or(JournalError::Corrupt("channel"))?;
            let payer = known(tx, &channel)?;
            let before = state(tx, id)?;
            let mut step = PayerStep { expected: payer.version(), next: payer.clone() };
            if let Some(got) = got {
                let first = before != State::Settled;
                // What is vouched for streams that go on is theirs to use, and is booked as theirs.
                let requests = held(tx, &channel)?.saturating_sub(held_by(tx, id)?);
                let others = requests.saturating_add(streams_ahead(tx, &channel, id)?);
                let said = got.receipt.map(|receipt| receipt.spent.min(payer.signed()));
                let by_word = said.map_or(0, |said| said.saturating_sub(payer.used()).saturating_sub(others));
                let atoms = match got.atoms {
                    // It may have been raised for what the seller charged before: that it took all of it is the
                    // seller's to say.
                    Some(counted) if first && said.is_some() => {
                        by_word.clamp(got.price.min(counted), counted)
                    }
                    Some(counted) if first => counted,
                    Some(_) => 0,
                    // The seller's word is about all of it, however often it is heard.
                    None => by_word,
                };
                if atoms > 0 {
                    step = step.and(received(atoms)?, now)?;
                }
                // Now it is known what of the vouched it cost. Without a last word of the seller's it stays at all of it.
                if got.atoms.is_some() || said.is_some() && got.is_whole {
                    let had = purchase.money.atoms().saturating_sub(ahead_of(tx, id)?);
                    run(
                        tx,
                        "UPDATE purchase SET atoms = ?2, held = ?3 WHERE id = ?1",
                        params![
                            key(id),
                            &had.saturating_add(atoms).to_be_bytes()[..],
                            &0u128.to_be_bytes()[..]
                        ],
                    )?;
                }
                if let Some(receipt) = got.receipt {
                    step = step.and(PayerEvent::Told(receipt), now)?;
                }
            }
            write(tx, &payer, step, now)?;
            if let Some(receipt) = receipt {
                run(tx, "UPDATE channel SET receipt = ?2 WHERE id = ?1", params![&channel.0[..], receipt])?;
            }
            // It goes on no more.
            run(
                tx,
                "UPDATE purchase SET note = NULL WHERE id = ?1 AND note = ?2",
                params![key(id), STREAMS],
            )?;
            super::conclude(tx, id, outcome, clock)?;
            Ok((channel, before))
        })?;
        tracing::debug!(%id, ?before, "a purchase by voucher is concluded");
        self.channel(&channel)
    }

    /// Notes a receipt of the seller that belongs to no purchase: of a voucher alone, or of a close.
    pub fn told(
        &self,
        channel: &ChannelId,
        receipt: Receipt,
        json: &str,
        clock: &farthing_policy::Clock,
    ) -> Result<KeptChannel, JournalError> {
        self.within(|tx| {
            self.own_channel(tx, channel)?;
            let now = advance(tx, clock)?;
            let payer = known(tx, channel)?;
            write(tx, &payer, payer.step(PayerEvent::Told(receipt), now)?, now)?;
            run(tx, "UPDATE channel SET receipt = ?2 WHERE id = ?1", params![&channel.0[..], json])?;
            self.kept(tx, channel)?.ok_or(JournalError::NoChannel(*channel))
        })
    }

    fn usable(&self, tx: &Tx, parties: &Parties) -> Result<Option<KeptChannel>, JournalError> {
        let mut found = tx.prepare_cached(
            // A deposit is in the budget of who made it, so nobody else pays from it: IS also compares NULL.
            "SELECT id FROM channel WHERE parties = ?1 AND agent IS ?2 AND state IN ('opening', 'open')
             ORDER BY number DESC LIMIT 1",
        )?;
        let found: Option<Vec<u8>> =
            found.query_row(params![parties.text(), self.agent_name()], |row| row.get(0)).optional()?;
        match found {
            Some(bytes) => self.kept(tx, &id(bytes)?),
            None => Ok(None),
        }
    }

    fn kept(&self, tx: &Tx, id: &ChannelId) -> Result<Option<KeptChannel>, JournalError> {
        let mut found = tx.prepare_cached(
            "SELECT record, number, authority, method, url, created_ms, updated_ms, receipt, note FROM channel
             WHERE id = ?1",
        )?;
        let kept = found.query_row([&id.0[..]], |row| Ok(read(row))).optional()?.transpose()?;
        let Some(mut kept) = kept else { return Ok(None) };
        if let Some(pending) = kept.payer.pending() {
            let is_gone = |holder: &str| (self.processes.is_gone)(holder);
            kept.attempt = read_attempt(tx, &pending.id, is_gone)?;
        }
        Ok(Some(kept))
    }
}

/// What to sign if `needed` has to be covered: never less than was signed before, since a voucher that was sent cannot
/// be taken back; and if it is more, by what the seller wants as a step at least.
///
/// Spec: draft-evm-session-00, "Voucher Verification" 7.
fn voucher_for(needed: u128, signed: u128, min_delta: u128) -> u128 {
    match needed > signed {
        true => needed.max(signed.saturating_add(min_delta)),
        false => signed,
    }
}

/// What was received, where only its sum is known.
fn received(atoms: u128) -> Result<PayerEvent, JournalError> {
    // Units are counted in 64 bits: what is more is counted in larger ones.
    let units = u64::try_from(atoms).map_err(|_| JournalError::Corrupt("amount"))?;
    Ok(PayerEvent::Received { price: Price::each(1, Unit::Request), units })
}

/// What was vouched for requests that are on their way, or whose outcome is open.
fn held(tx: &Tx, channel: &ChannelId) -> Result<u128, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT held FROM purchase WHERE channel = ?1 AND state IN ('intended', 'signed', 'presented', 'unknown')",
    )?;
    let mut rows = found.query([&channel.0[..]])?;
    let mut sum = 0u128;
    while let Some(row) = rows.next()? {
        sum = sum.checked_add(wide(row.get(0)?)?).ok_or(JournalError::Corrupt("amount"))?;
    }
    Ok(sum)
}

/// What was vouched for the streams of a channel that go on and is not known to be used, but for this one's.
///
/// Spec: draft-evm-session-00, "Concurrency Model": there is one at a time; whether its seller keeps to that is not ours
/// to say.
fn streams_ahead(tx: &Tx, channel: &ChannelId, but: &PurchaseId) -> Result<u128, JournalError> {
    let mut found =
        tx.prepare_cached("SELECT held FROM purchase WHERE channel = ?1 AND note = 'stream' AND id <> ?2")?;
    let mut rows = found.query(params![&channel.0[..], key(but)])?;
    let mut sum = 0u128;
    while let Some(row) = rows.next()? {
        let held = row.get::<_, Option<Vec<u8>>>(0)?.map_or(Ok(0), wide)?;
        sum = sum.checked_add(held).ok_or(JournalError::Corrupt("amount"))?;
    }
    Ok(sum)
}

fn held_by(tx: &Tx, id: &PurchaseId) -> Result<u128, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT held FROM purchase WHERE id = ?1 AND state IN ('intended', 'signed', 'presented', 'unknown')",
    )?;
    let held: Option<Option<Vec<u8>>> = found.query_row([key(id)], |row| row.get(0)).optional()?;
    held.flatten().map_or(Ok(0), wide)
}

/// How much of a purchase's amount is vouched and not known to be used, also once a stream has begun.
fn ahead_of(tx: &Tx, id: &PurchaseId) -> Result<u128, JournalError> {
    let mut found = tx.prepare_cached("SELECT held FROM purchase WHERE id = ?1")?;
    let held: Option<Vec<u8>> = found.query_row([key(id)], |row| row.get(0))?;
    held.map_or(Ok(0), wide)
}

fn insert(tx: &Tx, new: &NewChannel, now: Timestamp) -> Result<(), JournalError> {
    let payer = &new.payer;
    run(tx, "INSERT INTO channel (id, record, state, parties, number, asset, locked, dollar, authority, method, url,
         created_ms, updated_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12)",
        params![
            &payer.terms().id.0[..],
            encode_payer(payer),
            payer.state().name(),
            Parties::of(payer).text(),
            i64::try_from(new.number).map_err(|_| JournalError::Corrupt("number"))?,
            payer.terms().asset.to_string(),
            &payer.locked().to_be_bytes()[..],
            new.dollar.map(|dollar| dollar.to_be_bytes().to_vec()),
            new.authority,
            new.method,
            new.url,
            millis(now),
        ],
    )?;
    Ok(())
}

/// Writes the next state, if it is the next of what is there.
fn write(tx: &Tx, before: &Payer, step: PayerStep, now: Timestamp) -> Result<(), JournalError> {
    if step.is_empty() {
        return Ok(());
    }
    let next = &step.next;
    audit::channel_moved(tx, before, next)?;
    let id = next.terms().id;
    run(
        tx,
        "UPDATE channel SET record = ?2, state = ?3, locked = ?4, updated_ms = ?5 WHERE id = ?1",
        params![
            &id.0[..],
            encode_payer(next),
            next.state().name(),
            &next.locked().to_be_bytes()[..],
            millis(now)
        ],
    )?;
    let taken = next.settled().saturating_sub(before.settled());
    if taken > 0 {
        run(
            tx,
            "INSERT OR IGNORE INTO channel_taken (channel, settled, atoms, at_ms) VALUES (?1, ?2, ?3, ?4)",
            params![&id.0[..], &next.settled().to_be_bytes()[..], &taken.to_be_bytes()[..], millis(now)],
        )?;
    }
    // What is done, or will never be, needs no bytes to be shown again.
    if let Some(done) = before.pending()
        && next.pending().is_none_or(|pending| pending.id != done.id)
    {
        run(tx, "DELETE FROM channel_attempt WHERE id = ?1", [&done.id.to_bytes()[..]])?;
    }
    Ok(())
}

fn intend(
    tx: &Tx,
    attempt: &AttemptId,
    channel: &ChannelId,
    expires: Timestamp,
    holder: &str,
) -> Result<(), JournalError> {
    run(
        tx,
        "INSERT INTO channel_attempt (id, channel, state, expires_ms, holder) VALUES (?1, ?2, 'intended', ?3, ?4)",
        params![&attempt.to_bytes()[..], &channel.0[..], millis(expires), holder],
    )?;
    Ok(())
}

/// An attempt that nobody saw comes to nothing.
fn fail(tx: &Tx, attempt: &AttemptId, now: Timestamp) -> Result<(), JournalError> {
    let mut found = tx.prepare_cached("SELECT channel FROM channel_attempt WHERE id = ?1")?;
    let channel: Vec<u8> = found.query_row([&attempt.to_bytes()[..]], |row| row.get(0))?;
    let payer = known(tx, &id(channel)?)?;
    let reason = Reason::new(NEVER_SHOWN, Fault::Us);
    write(tx, &payer, payer.step(PayerEvent::Failed { attempt: *attempt, reason }, now)?, now)
}

fn load(tx: &Tx, id: &ChannelId) -> Result<Option<Payer>, JournalError> {
    let mut found = tx.prepare_cached("SELECT record FROM channel WHERE id = ?1")?;
    let record: Option<Vec<u8>> = found.query_row([&id.0[..]], |row| row.get(0)).optional()?;
    record.map(|bytes| decode_payer(&bytes).map_err(|_| JournalError::Corrupt("channel"))).transpose()
}

fn known(tx: &Tx, id: &ChannelId) -> Result<Payer, JournalError> {
    load(tx, id)?.ok_or(JournalError::NoChannel(*id))
}

fn read(row: &Row<'_>) -> Result<KeptChannel, JournalError> {
    let record: Vec<u8> = row.get(0)?;
    let time =
        |i| -> Result<_, JournalError> { Ok(Timestamp::from_millis(row.get::<_, i64>(i)?.cast_unsigned())) };
    Ok(KeptChannel {
        payer: decode_payer(&record).map_err(|_| JournalError::Corrupt("channel"))?,
        number: row.get::<_, i64>(1)?.cast_unsigned(),
        authority: row.get(2)?,
        method: row.get(3)?,
        url: row.get(4)?,
        created: time(5)?,
        updated: time(6)?,
        receipt: row.get(7)?,
        note: row.get(8)?,
        attempt: None,
    })
}

fn read_attempt(
    tx: &Tx,
    attempt: &AttemptId,
    is_gone: impl Fn(&str) -> bool,
) -> Result<Option<KeptAttempt>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT state, expires_ms, holder, header_name, header_value, raw, url FROM channel_attempt WHERE id = ?1",
    )?;
    let found = found.query_row([&attempt.to_bytes()[..]], |row| {
        let header: (Option<String>, Option<String>) = (row.get(3)?, row.get(4)?);
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, i64>(1)?,
            row.get::<_, String>(2)?,
            header.0.zip(header.1).map(|(name, value)| Header { name, value }),
            row.get::<_, Option<Vec<u8>>>(5)?,
            row.get(6)?,
        ))
    });
    let Some((state, expires, holder, header, raw, url)) = found.optional()? else { return Ok(None) };
    Ok(Some(KeptAttempt {
        id: *attempt,
        state: AttemptState::parse(&state).ok_or(JournalError::Corrupt("attempt"))?,
        expires: Timestamp::from_millis(expires.cast_unsigned()),
        header,
        url,
        raw,
        abandoned: is_gone(&holder),
    }))
}

pub(super) fn id(bytes: Vec<u8>) -> Result<ChannelId, JournalError> {
    bytes.try_into().map(ChannelId).map_err(|_| JournalError::Corrupt("channel"))
}

fn attempt_id(bytes: Vec<u8>) -> Result<AttemptId, JournalError> {
    bytes.try_into().map(AttemptId::from_bytes).map_err(|_| JournalError::Corrupt("attempt"))
}

/// What channels count against the caps: what they tie up, as long as they do, and what was taken from them.
pub(super) fn movements(
    tx: &Tx,
    since: Option<Timestamp>,
    now: Timestamp,
    movements: &mut Vec<Movement>,
) -> Result<(), JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT asset, locked, dollar, ?2, agent, authority, parties FROM channel
         WHERE state NOT IN ('finalized', 'void')
         UNION ALL
         SELECT asset, atoms, dollar, at_ms, agent, authority, parties FROM channel_taken JOIN channel ON channel.id = channel_taken.channel
         WHERE at_ms >= ?1",
    )?;
    let mut rows = found.query([since.map_or(0, millis), millis(now)])?;
    while let Some(row) = rows.next()? {
        let asset: AssetId = row.get::<_, String>(0)?.parse().map_err(|_| JournalError::Corrupt("asset"))?;
        let atoms = wide(row.get(1)?)?;
        let until = Timestamp::from_millis(row.get::<_, i64>(3)?.cast_unsigned()).min(now);
        let payee = Parties::payee_of(&row.get::<_, String>(6)?, &asset);
        let of = Arc::new(Source {
            agent: super::agents::read(row.get(4)?)?,
            authority: row.get(5)?,
            payee: Some(payee.ok_or(JournalError::Corrupt("payee"))?),
            tool: None,
        });
        movements.push(Movement { bucket: Bucket::Asset(asset), amount: atoms, until, of: of.clone() });
        if let Some(dollar) = row.get::<_, Option<Vec<u8>>>(2)? {
            let amount = atoms.saturating_mul(wide(dollar)?);
            movements.push(Movement { bucket: Bucket::Dollar, amount, until, of });
        }
    }
    Ok(())
}

/// Whether nothing of a channel can be used any more, nor ever again.
pub fn is_over(state: &PayerState) -> bool {
    matches!(state, PayerState::Finalized | PayerState::Void { .. })
}

/// What there is of an answer, for whoever concludes.
pub(crate) const fn delivered(whole: bool, acknowledged: bool) -> Goods {
    match (whole, acknowledged) {
        (false, _) => Goods::Missing,
        (true, true) => Goods::InHand,
        (true, false) => Goods::Delivered,
    }
}

#[cfg(test)]
mod tests;
