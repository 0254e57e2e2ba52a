//! One agent, let in: every request that it may make, and what is believed of it. `docs/reference/guard.md` has the
//! table of what a hostile one could want from each.

use farthing_channel::ChannelId;
use farthing_evm::U256;
use farthing_policy::AgentName;
use farthing_primitives::{Address, PullMethod, PurchaseId};
use farthing_rails::exact_evm::Tokens;
use farthing_wallet::journal::agents::Credential;
use farthing_wallet::journal::channels::KeptChannel;
use farthing_wallet::journal::{JournalError, Proof, Purchase, State};
use farthing_wallet::{
    Authorizer, Books, Denied, Intent, LocalAuthorizer, Mentions, Offer, OfferSession, Purse, SessionDenied,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::guard::{Guard, in_time, wall};
use crate::protocol::{
    self, AnsweredRecord, AuthorizationRecord, Bound, BudgetRecord, Candidate, ChannelRecord, Channels,
    DecisionRecord, DepositRecord, Detail, Done, HeaderRecord, Hosts, IntentRecord, MAX_AMOUNT_CHARS,
    MAX_CALL_NAME_BYTES, MAX_CALL_NAMES, MAX_HISTORY_ROWS, MAX_LISTED, May, MaybeChannel, MaybeDeposit,
    MaybePurchase, Nothing, PurchaseRecord, Purchases, QuoteRecord, Refusal, Secret, SpentRecord,
    TicketRecord, WithBrought, WithChannel, WithGrant, WithHash, WithHistory, WithId, WithIntent,
    WithIntentAndChannel, WithIntentFrom, WithName, WithNames, WithNeed, WithOffer, WithOutcome, WithReceipt,
    WithRequest, WithTopUp, WithUrl, channel_id, print_channel, purchase_id,
};

/// How many channels of the same parties are looked at for a number that is free on the chain.
const MOST_NUMBERS: u64 = 64;

pub(crate) struct Agent {
    guard: Guard,
    name: AgentName,
    credential: Credential,
    /// The owner's key over what is this agent's alone.
    wallet: LocalAuthorizer,
    tokens: Tokens,
}

type Answer = Result<Box<RawValue>, Refusal>;

impl Agent {
    pub fn new(guard: Guard, name: AgentName, credential: Credential, wallet: LocalAuthorizer) -> Self {
        let tokens = Tokens::new(wallet.registry());
        Self { guard, name, credential, wallet, tokens }
    }

    pub fn name(&self) -> &AgentName {
        &self.name
    }

    /// Whose money it spends: the wallet's, or that of a session key of its own.
    pub fn payer(&self) -> &Address {
        self.wallet.payer()
    }

    /// Does what a line asks for.
    pub async fn answer(&self, what: &str, with: Option<&RawValue>) -> Answer {
        // A revoked token is worth nothing from the next request on; a signature asks once more, in its transaction.
        if !self.guard.knows(self.name.clone(), self.credential).await? {
            return Err(Denied::from(JournalError::Revoked(self.name.clone())).into());
        }
        match what {
            "preview" => ok(&self.preview(read(with)?).await?),
            "authorize" => ok(&self.authorize(read(with)?).await?),
            "present" => ok(&self.present(read(with)?).await?),
            "conclude" => ok(&self.conclude(read(with)?).await?),
            "release" => ok(&self.release(read(with)?).await?),
            "received" => ok(&self.received(read(with)?).await?),
            "finalize" => ok(&self.finalize(read(with)?).await?),
            "purchase" => ok(&self.purchase(read(with)?).await?),
            "open_purchases" => ok(&self.open_purchases(read(with)?).await?),
            "abandoned" => ok(&self.abandoned(read(with)?).await?),
            "may_reach_private" => ok(&self.may_reach_private(read(with)?).await?),
            "quote" => ok(&self.quote(read(with)?).await?),
            "usable" => ok(&self.usable(read(with)?).await?),
            "candidate" => ok(&self.candidate(read(with)?).await?),
            "open" => ok(&self.open(read(with)?).await?),
            "top_up" => ok(&self.top_up(read(with)?).await?),
            "show_deposit" => ok(&self.show_deposit(read(with)?).await?),
            "spend" => ok(&self.spend(read(with)?).await?),
            "raise" => ok(&self.raise(read(with)?).await?),
            "conclude_spend" => ok(&self.conclude_spend(read(with)?).await?),
            "look" => ok(&self.look(read(with)?).await?),
            "told" => ok(&self.told(read(with)?).await?),
            "leave" => ok(&self.leave(read(with)?).await?),
            "channel" => ok(&self.channel(read(with)?).await?),
            "channels" => ok(&self.channels(read(with)?).await?),
            "ask_people" => ok(&self.ask_people(read(with)?).await?),
            "ask_for_grant" => ok(&self.ask_for_grant(read(with)?).await?),
            "ticket" => ok(&self.ticket(read(with)?).await?),
            "hosts" => ok(&self.hosts(read(with)?).await?),
            "latest" => ok(&self.latest(read(with)?).await?),
            "history" => ok(&self.history(read(with)?).await?),
            "budget" => ok(&self.budget(read(with)?).await?),
            "bind_call" => ok(&self.bind_call(read(with)?).await?),
            "mention" => ok(&self.mention(read(with)?).await?),
            "call_secret" => ok(&self.call_secret(read(with)?).await?),
            _ => Err(Refusal::new("method_unknown", "there is no such request")),
        }
    }

    /// What an agent wants, with what the guard itself knows of the chain.
    async fn intent(&self, record: &IntentRecord) -> Result<Intent, Refusal> {
        let mut intent = record.read(wall())?;
        let money = intent.offer.money();
        let network = money.asset().network();
        if let Some(view) = self.guard.view(network) {
            intent.devnet = view.is_devnet();
            intent.chain_time = self.guard.chain_time(network).await;
            intent.permit_nonce = self.permit_nonce(&intent).await;
        }
        Ok(intent)
    }

    /// The nonce of an approval, if the chain says that one is needed: it is signed beside the payment.
    async fn permit_nonce(&self, intent: &Intent) -> Option<U256> {
        let needs = intent.offer.requirement(&self.tokens).ok()?;
        if needs.method() != PullMethod::Permit2 || !intent.offer.sponsors_approval() {
            return None;
        }
        let money = intent.offer.money();
        let view = self.guard.view(money.asset().network())?;
        let state = in_time(view.permit2(money.asset(), self.wallet.payer())).await?;
        state.nonce.filter(|_| state.allowance < U256::from(money.atoms()))
    }

    async fn preview(&self, with: WithIntent) -> Result<DecisionRecord, Refusal> {
        let intent = self.intent(&with.intent).await?;
        Ok(DecisionRecord::of(&self.wallet.preview(&intent).await?))
    }

    async fn authorize(&self, with: WithIntent) -> Result<AuthorizationRecord, Refusal> {
        let intent = self.intent(&with.intent).await?;
        Ok(AuthorizationRecord::of(&self.wallet.authorize(intent).await?))
    }

    async fn present(&self, with: WithId) -> Result<HeaderRecord, Refusal> {
        Ok(HeaderRecord::of(&self.wallet.present(&purchase_id(&with.id)?).await?))
    }

    async fn conclude(&self, with: WithOutcome) -> Result<Done, Refusal> {
        // What the record holds is unconfirmed, whoever wrote it.
        Authorizer::conclude(&self.wallet, &purchase_id(&with.id)?, with.outcome.read()?).await?;
        self.guard.nudge();
        Ok(Done {})
    }

    /// Frees what nobody has seen; of anything else the chain is asked.
    async fn release(&self, with: WithId) -> Result<Done, Refusal> {
        let id = purchase_id(&with.id)?;
        let purchase = self.wallet.purchase(&id).await?;
        if matches!(purchase.state, State::Intended | State::Signed) {
            // INVARIANT: what pays leaves by `present` alone, which fails from now on.
            self.wallet.release(&id, Proof::NeverShown).await?;
            return Ok(Done {});
        }
        match self.ask_chain(&id).await? {
            State::Released => Ok(Done {}),
            _ => Err(not_proven()),
        }
    }

    async fn finalize(&self, with: WithId) -> Result<Done, Refusal> {
        let id = purchase_id(&with.id)?;
        self.wallet.purchase(&id).await?;
        // The guard's own rounds say when a word of the chain's is final.
        self.guard.nudge();
        Ok(Done {})
    }

    /// Asks the chain about a purchase of this agent's, and says where it stands then.
    async fn ask_chain(&self, id: &PurchaseId) -> Result<State, Refusal> {
        self.guard.client().reconcile(id).await?;
        Ok(self.wallet.purchase(id).await?.state)
    }

    async fn received(&self, with: WithId) -> Result<Done, Refusal> {
        self.wallet.received(&purchase_id(&with.id)?).await?;
        Ok(Done {})
    }

    async fn purchase(&self, with: WithId) -> Result<PurchaseRecord, Refusal> {
        let purchase = self.wallet.purchase(&purchase_id(&with.id)?).await?;
        Ok(PurchaseRecord::of(&purchase, Detail::Whole))
    }

    async fn open_purchases(&self, with: WithRequest) -> Result<Purchases, Refusal> {
        after(&Authorizer::open(&self.wallet).await?, with.after.as_deref())
    }

    async fn abandoned(&self, with: WithRequest) -> Result<Purchases, Refusal> {
        let request = with.request_hash.as_deref().map(protocol::request_hash).transpose()?;
        after(&self.wallet.abandoned(request.as_ref()).await?, with.after.as_deref())
    }

    async fn may_reach_private(&self, with: WithUrl) -> Result<May, Refusal> {
        let url: url::Url = with.url.parse().map_err(|_| Refusal::malformed("the URL cannot be read"))?;
        let origin = farthing_policy::Origin::of(&url).map_err(Refusal::malformed)?;
        Ok(May { may: self.wallet.may_reach_private(&origin).await? })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // Channels. What they hold, what is at the address of an escrow and what the wallet has the guard reads itself.

    async fn funds(&self, intent: &Intent) -> Option<u128> {
        let money = intent.offer.money();
        let view = self.guard.view(money.asset().network())?;
        in_time(view.balance(money.asset(), self.wallet.payer())).await
    }

    async fn quote(&self, with: WithIntent) -> Result<QuoteRecord, Refusal> {
        let intent = self.intent(&with.intent).await?;
        let funds = self.funds(&intent).await;
        Ok(QuoteRecord::of(&self.wallet.quote(&intent, funds).await?))
    }

    async fn usable(&self, with: WithIntent) -> Result<MaybeChannel, Refusal> {
        let intent = self.intent(&with.intent).await?;
        let kept = self.wallet.usable(&intent).await?;
        Ok(MaybeChannel { channel: kept.map(|kept| ChannelRecord::of(&kept, Detail::Whole)) })
    }

    async fn candidate(&self, with: WithIntentFrom) -> Result<Candidate, Refusal> {
        let intent = self.intent(&with.intent).await?;
        let (number, channel) = self.wallet.candidate(&intent, with.from).await?;
        Ok(Candidate { number, channel: print_channel(&channel) })
    }

    async fn open(&self, with: WithIntent) -> Result<MaybeDeposit, Refusal> {
        let intent = self.intent(&with.intent).await?;
        let no_chain = || Refusal::from(Denied::from(SessionDenied::NoChain));
        let Offer::Session(offer) = &intent.offer else {
            return Err(Denied::from(SessionDenied::NoSession).into());
        };
        let view = self.guard.view(&offer.session().network).ok_or_else(no_chain)?;
        let escrow = offer.session().escrow.address();
        let facts = in_time(view.escrow(escrow)).await.ok_or_else(no_chain)?;
        let mut from = 0;
        let number = loop {
            let (number, id) = self.wallet.candidate(&intent, from).await?;
            let sight = in_time(view.channel(escrow, &id)).await.ok_or_else(no_chain)?;
            // The id of a channel that ended never comes again, also where our memory of it is lost.
            if sight.latest.is_none() {
                break number;
            }
            if from >= MOST_NUMBERS {
                let why = "too many channels are on the chain that the wallet lost";
                return Err(Refusal::new("channel_not_usable", why));
            }
            from = number.saturating_add(1);
        };
        let funds = self.funds(&intent).await;
        let deposit = Purse::open(&self.wallet, &intent, number, facts, funds).await?;
        Ok(MaybeDeposit { deposit: deposit.as_ref().map(DepositRecord::of) })
    }

    /// Whether a channel is the one that pays for what is wanted: otherwise the rules would be asked about one payee, and
    /// the voucher be another's.
    async fn fits(&self, intent: &Intent, channel: &ChannelId) -> Result<(), Refusal> {
        match self.wallet.usable(intent).await? {
            Some(kept) if kept.id() == *channel => Ok(()),
            _ => Err(Refusal::new("channel_not_usable", "the channel does not pay for that offer")),
        }
    }

    async fn top_up(&self, with: WithTopUp) -> Result<DepositRecord, Refusal> {
        let (intent, channel) = (self.intent(&with.intent).await?, channel_id(&with.channel)?);
        self.fits(&intent, &channel).await?;
        let missing = farthing_primitives::parse_atoms(&with.missing)
            .map_err(|_| Refusal::malformed("an amount cannot be read"))?;
        Ok(DepositRecord::of(&self.wallet.top_up(&intent, &channel, missing).await?))
    }

    async fn show_deposit(&self, with: WithId) -> Result<HeaderRecord, Refusal> {
        let attempt = protocol::attempt_id(&with.id)?;
        Ok(HeaderRecord::of(&self.wallet.show_deposit(&attempt).await?))
    }

    async fn spend(&self, with: WithIntentAndChannel) -> Result<SpentRecord, Refusal> {
        let (intent, channel) = (self.intent(&with.intent).await?, channel_id(&with.channel)?);
        self.fits(&intent, &channel).await?;
        Ok(SpentRecord::of(&self.wallet.spend(&intent, &channel).await?))
    }

    async fn raise(&self, with: WithNeed) -> Result<AnsweredRecord, Refusal> {
        if with.most.as_ref().is_some_and(|most| most.len() > MAX_AMOUNT_CHARS) {
            return Err(Refusal::malformed("an amount cannot be read"));
        }
        let (id, need) = (purchase_id(&with.id)?, with.need.read()?);
        let answered = self.wallet.raise(&id, &need, with.went_on, with.most.as_deref()).await?;
        Ok(AnsweredRecord::of(&answered))
    }

    async fn conclude_spend(&self, with: WithBrought) -> Result<ChannelRecord, Refusal> {
        let (id, brought) = (purchase_id(&with.id)?, with.brought.read()?);
        let kept = Purse::conclude(&self.wallet, &id, brought).await?;
        Ok(ChannelRecord::of(&kept, Detail::Whole))
    }

    /// Asks the chain about a channel. What an agent saw is not asked for.
    async fn look(&self, with: WithChannel) -> Result<ChannelRecord, Refusal> {
        let id = channel_id(&with.channel)?;
        let kept = self.wallet.channel(&id).await?;
        let terms = kept.payer.terms();
        let Some(view) = self.guard.view(terms.asset.network()) else {
            return Err(Denied::from(SessionDenied::NoChain).into());
        };
        let kept = match in_time(view.channel(&terms.escrow, &id)).await {
            Some(sight) => self.wallet.saw(&id, sight).await?,
            None => kept,
        };
        Ok(ChannelRecord::of(&kept, Detail::Whole))
    }

    async fn told(&self, with: WithReceipt) -> Result<ChannelRecord, Refusal> {
        let (id, (receipt, json)) = (channel_id(&with.channel)?, with.receipt.read()?);
        Ok(ChannelRecord::of(&self.wallet.told(&id, receipt, &json).await?, Detail::Whole))
    }

    async fn leave(&self, with: WithOffer) -> Result<HeaderRecord, Refusal> {
        let id = channel_id(&with.channel)?;
        let Offer::Session(offer) = with.offer.read(wall())? else {
            return Err(Denied::from(SessionDenied::NoSession).into());
        };
        if !is_for(&offer, &self.wallet.channel(&id).await?) {
            return Err(Refusal::new("channel_not_usable", "the channel does not pay for that offer"));
        }
        let header = self.wallet.leave(&id, &offer).await?;
        // It gives nothing away that was not vouched before. Still it is a signature: who is frozen gets none.
        let journal = self.wallet.journal().clone();
        let may = tokio::task::spawn_blocking(move || journal.may_sign_now());
        may.await.map_err(|_| Refusal::unavailable())?.map_err(Denied::from)?;
        Ok(HeaderRecord::of(&header))
    }

    async fn channel(&self, with: WithChannel) -> Result<ChannelRecord, Refusal> {
        let kept = self.wallet.channel(&channel_id(&with.channel)?).await?;
        Ok(ChannelRecord::of(&kept, Detail::Whole))
    }

    async fn channels(&self, with: WithRequest) -> Result<Channels, Refusal> {
        let after = with.after.as_deref().map(channel_id).transpose()?;
        let all = self.wallet.channels().await?;
        let from = match after {
            Some(after) => all.iter().position(|kept| kept.id() == after).map_or(all.len(), |at| at + 1),
            None => 0,
        };
        let rest = &all[from..];
        let channels = rest.iter().take(MAX_LISTED).map(|kept| ChannelRecord::of(kept, Detail::Listed));
        Ok(Channels { channels: channels.collect(), more: rest.len() > MAX_LISTED })
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// People, and the books.

impl Agent {
    /// Has people asked. Whose word counts, and how many of them it takes, is the owner's to say.
    async fn ask_people(&self, with: WithIntent) -> Result<TicketRecord, Refusal> {
        let intent = self.intent(&with.intent).await?;
        Ok(TicketRecord::of(&self.wallet.ask_people(&intent).await?))
    }

    /// Has people asked for a grant. An agent's word on it is none.
    async fn ask_for_grant(&self, with: WithGrant) -> Result<TicketRecord, Refusal> {
        let ask = with.grant.read()?;
        let intent = self.intent(&with.intent).await?;
        Ok(TicketRecord::of(&self.wallet.ask_for_grant(&intent, &ask).await?))
    }

    async fn ticket(&self, with: WithId) -> Result<TicketRecord, Refusal> {
        let id = with.id.parse().map_err(|_| Refusal::malformed("an approval's id cannot be read"))?;
        Ok(TicketRecord::of(&self.wallet.ticket(&id).await?))
    }

    async fn hosts(&self, _: Nothing) -> Result<Hosts, Refusal> {
        let hosts = self.wallet.hosts().await?;
        Ok(Hosts { hosts: hosts.iter().map(ToString::to_string).collect() })
    }

    async fn latest(&self, with: WithHash) -> Result<MaybePurchase, Refusal> {
        let latest = self.wallet.latest_for(&protocol::request_hash(&with.request_hash)?).await?;
        Ok(MaybePurchase { purchase: latest.map(|one| PurchaseRecord::of(&one, Detail::Whole)) })
    }

    async fn history(&self, with: WithHistory) -> Result<Purchases, Refusal> {
        let before = with.before.as_deref().map(purchase_id).transpose()?;
        let all = Books::history(&self.wallet, with.limit.min(MAX_HISTORY_ROWS)).await?;
        let rest = all.iter().filter(|purchase| before.is_none_or(|before| purchase.id < before));
        Ok(listed(rest))
    }

    async fn budget(&self, _: Nothing) -> Result<BudgetRecord, Refusal> {
        Ok(BudgetRecord::of(self.wallet.budget().await?))
    }

    async fn bind_call(&self, with: WithName) -> Result<Bound, Refusal> {
        let request = protocol::request_hash(&with.request_hash)?;
        if with.name.is_empty() || with.name.len() > MAX_CALL_NAME_BYTES {
            return Err(Refusal::malformed("the name of the call cannot be read"));
        }
        if !self.guard.may_name(&self.name) {
            let why = format!("{MAX_CALL_NAMES} calls of this agent were named within the hour");
            return Err(Refusal::new("too_many_calls", why));
        }
        let bound = self.wallet.bind_call(&with.name, &request).await?;
        Ok(Bound { request_hash: protocol::print_hash(&bound) })
    }

    /// Writes down what somebody else named. An agent can add to it, and take nothing back.
    async fn mention(&self, with: WithNames) -> Result<Done, Refusal> {
        self.wallet.mention(&with.read()?, &with.by).await?;
        Ok(Done {})
    }

    async fn call_secret(&self, _: Nothing) -> Result<Secret, Refusal> {
        Ok(Secret { secret: hex::encode(self.wallet.call_secret().await?) })
    }
}

/// Whether an offer is one that a channel pays.
fn is_for(offer: &OfferSession, kept: &KeptChannel) -> bool {
    let (asked, terms) = (offer.session(), kept.payer.terms());
    *asked.recipient.address() == terms.payee
        && asked.asset_id() == terms.asset
        && *asked.escrow.address() == terms.escrow
}

fn not_proven() -> Refusal {
    Refusal::new("not_proven", "the chain does not prove that no money can move")
}

/// What comes after a purchase, oldest first.
fn after(all: &[Purchase], after: Option<&str>) -> Result<Purchases, Refusal> {
    let after = after.map(purchase_id).transpose()?;
    Ok(listed(all.iter().filter(|purchase| after.is_none_or(|after| purchase.id > after))))
}

/// As many as one answer may list.
fn listed<'a>(mut rest: impl Iterator<Item = &'a Purchase>) -> Purchases {
    let purchases =
        rest.by_ref().take(MAX_LISTED).map(|purchase| PurchaseRecord::of(purchase, Detail::Listed)).collect();
    Purchases { purchases, more: rest.next().is_some() }
}

fn read<T: DeserializeOwned>(with: Option<&RawValue>) -> Result<T, Refusal> {
    let text = with.map_or("{}", RawValue::get);
    serde_json::from_str(text)
        .map_err(|error| Refusal::malformed(format!("the request cannot be read: {error}")))
}

fn ok<T: Serialize>(answer: &T) -> Answer {
    serde_json::value::to_raw_value(answer).map_err(|_| Refusal::unavailable())
}
