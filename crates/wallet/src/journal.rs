//! The buyer's books: what was meant, signed, shown and settled, and what the owner allows. One small SQLite file that
//! several processes may use at once.
//!
//! Every call is one transaction that has its lock before it reads, and is on the disk when it returns. A reservation
//! counts against the caps from before the signature until it is proven that its money cannot move.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use farthing_channel::ChannelId;
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{
    AgentName, Bucket, Charge, Clock, Decision, History, Law, Mark, Movement, Request, Rules, Source, Window,
};
use farthing_primitives::{Address, AssetId, Money, Network, PurchaseId, RequestHash, Timestamp};
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::clock::believable;
use crate::holder::Processes;
use crate::keystore::{create_private_dir, create_private_file};
use crate::record;

pub mod agents;
pub mod approvals;
pub mod audit;
pub mod channels;
mod disk;
pub mod indexes;
pub mod law;
pub mod mentions;
mod meters;
pub mod session_keys;
mod tx;

use agents::Scope;
use disk::Disk;
pub(crate) use disk::MAX_SHARED as AT_ONE_COMMIT;
use tx::Tx;

/// How long a call waits for another process's transaction.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// How many purchases [`Journal::history`] returns at most.
pub const MAX_HISTORY: u32 = 10_000;

/// How long after a settlement the goods may still be asked for with the same payment instead of being bought anew.
/// For how long sellers keep what they sold is theirs to say: a gateway of ours for ten minutes, unless it is told
/// otherwise. Whoever asks after that, on the same day, learns that it is gone, and pays again only if told to.
pub const GOODS_OWED: Duration = Duration::from_secs(24 * 3600);

/// For how long a name is kept that was bound to a request and came to no purchase: far longer than any call takes.
pub const CALL_NAMES_KEPT: Duration = Duration::from_secs(24 * 3600);

/// What the names of calls begin with, among the settings.
const CALL: &str = "call:";

/// How many statements are kept read: all that a payment takes.
const STATEMENTS: usize = 128;

/// How the file came to be. What is here never changes; later versions append.
const MIGRATIONS: &[&str] = &[
    SCHEMA,
    include_str!("journal/schema-2.sql"),
    include_str!("journal/schema-3.sql"),
    include_str!("journal/schema-4.sql"),
    include_str!("journal/schema-5.sql"),
    include_str!("journal/schema-6.sql"),
    include_str!("journal/schema-7.sql"),
    include_str!("journal/schema-8.sql"),
    include_str!("journal/schema-9.sql"),
    include_str!("journal/schema-10.sql"),
    include_str!("journal/schema-11.sql"),
    include_str!("journal/schema-12.sql"),
];

const SCHEMA: &str = "
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE pin (
    authority TEXT NOT NULL, network TEXT NOT NULL, payee TEXT NOT NULL, since_ms INTEGER NOT NULL,
    PRIMARY KEY (authority, network, payee)
) STRICT, WITHOUT ROWID;
CREATE TABLE purchase (
    id BLOB PRIMARY KEY,
    state TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    -- Until when the amount counts as if it had just moved; the books' time, see Mark.
    counts_until_ms INTEGER NOT NULL,
    -- From when the authorization can move no money; the wall's time.
    expires_ms INTEGER NOT NULL,
    authority TEXT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    asset TEXT NOT NULL,
    -- 16 bytes, big endian: SQLite's own integers have 64 bits.
    atoms BLOB NOT NULL,
    dollars BLOB,
    payee TEXT NOT NULL,
    payer TEXT NOT NULL,
    consumption TEXT NOT NULL UNIQUE,
    header_name TEXT,
    header_value TEXT,
    instruction BLOB,
    -- The process that works on it.
    holder TEXT NOT NULL,
    shown INTEGER NOT NULL DEFAULT 0,
    tx TEXT,
    -- 0: the seller says so. 1: the chain did. 2: the chain does for good.
    confirmed INTEGER NOT NULL DEFAULT 0,
    -- 0: no. 1: the answer is where it belongs. 2: the holder has it, and is putting it there.
    delivered INTEGER NOT NULL DEFAULT 0,
    receipt TEXT,
    note TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX purchase_by_time ON purchase (counts_until_ms);
CREATE INDEX purchase_by_authority ON purchase (authority, updated_ms);
CREATE INDEX purchase_by_request ON purchase (request_hash);
";

/// The note of what was given up before there was a signature.
const NEVER_SIGNED: &str = "never_signed";

/// Where a purchase stands, and what is to be done if the process starts again here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Reserved and written down; nothing is signed that anybody could have: what is, is in its process's memory alone.
    /// Restart: it is released.
    Intended,
    /// Signed and stored; nobody else has seen it. Restart: show it, or let it lapse.
    Signed,
    /// Shown to the seller at least once. Restart: show the same again.
    Presented,
    /// The seller, or the chain if `confirmed`, says that the money moved. Restart: if nothing was delivered, show the
    /// same again.
    Settled,
    /// Shown, and no answer says what became of it. Show the same again; never sign another.
    Unknown,
    /// The seller refused it. It can still settle until it lapses, so it still counts.
    Refused,
    /// Proven to have moved no money, and to be unable to.
    Released,
}

impl State {
    pub const ALL: [Self; 7] = [
        Self::Intended,
        Self::Signed,
        Self::Presented,
        Self::Settled,
        Self::Unknown,
        Self::Refused,
        Self::Released,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Signed => "signed",
            Self::Presented => "presented",
            Self::Settled => "settled",
            Self::Unknown => "unknown",
            Self::Refused => "refused",
            Self::Released => "released",
        }
    }

    /// Whether a purchase may go from `self` to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        use State::{Intended, Presented, Refused, Released, Settled, Signed, Unknown};
        match (self, next) {
            (Intended, Signed | Released)
            | (Signed, Presented | Released)
            | (Presented | Unknown | Refused, Presented | Settled | Unknown | Refused | Released)
            // A seller may say that it settled, and the chain that it did not.
            | (Settled, Settled | Released) => true,
            (Intended | Signed | Presented | Settled | Unknown | Refused | Released, _) => false,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == text)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is written down before anything is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub id: PurchaseId,
    pub method: String,
    pub url: String,
    pub request_hash: RequestHash,
    pub payer: Address,
    pub consumption: ConsumptionKey,
    /// From when the authorization can move no money.
    pub expires: Timestamp,
    /// By how much the chain's clock may be behind ours: so much longer can it move money, by our clock.
    pub lag: Duration,
    pub said: Said,
}

/// What the seller says of what it sells. It decides nothing, and is written down.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said {
    /// The URL that the offer is for, as the seller writes it.
    pub url: Option<String>,
    /// The id of its challenge.
    pub challenge: Option<String>,
}

/// What holds for whatever is bought now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub law: Law,
    /// See [`Journal::is_devnet`].
    pub devnet: bool,
    /// The time that the books go by.
    pub time: Timestamp,
    /// The payer's key, and how much longer it signs, if it was made for a while.
    pub key: Option<session_keys::Standing>,
}

/// A purchase as the journal knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Purchase {
    pub id: PurchaseId,
    pub state: State,
    pub created: Timestamp,
    pub updated: Timestamp,
    pub expires: Timestamp,
    /// `host:port`.
    pub authority: String,
    pub method: String,
    pub url: String,
    pub request_hash: RequestHash,
    pub money: Money,
    pub payee: Address,
    pub payer: Address,
    pub consumption: ConsumptionKey,
    /// The header that pays, once it is signed.
    pub header: Option<Header>,
    /// What the rail needs to ask the chain about it, once it is signed.
    pub instruction: Option<Instruction>,
    /// How often it was shown.
    pub shown: u32,
    pub tx: Option<String>,
    /// Whether a chain said so, and not only the seller.
    pub confirmed: bool,
    /// Whether it said so when the authorization had lapsed, so that no reorganization can take it back.
    pub finalized: bool,
    /// Whether a complete answer with a status of success came back for it, and is where whoever paid wanted it.
    pub delivered: bool,
    /// The seller's receipt, as JSON.
    pub receipt: Option<String>,
    pub note: Option<String>,
    /// The channel whose voucher pays for it. Its money is in that channel's deposit.
    pub channel: Option<ChannelId>,
    /// All that was signed on that channel with this purchase, in atoms.
    pub cumulative: Option<u128>,
    /// The agent that made it; `None` if the owner did.
    pub agent: Option<AgentName>,
    /// The tool that it was made for.
    pub tool: Option<String>,
}

/// A signed payment as it goes over the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ({} bytes)", self.name, self.value.len())
    }
}

/// What there is of the answer that was paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goods {
    /// Nothing complete came.
    Missing,
    /// It came, and the process that asked for it is putting it in its place: see [`Journal::received`]. If that process
    /// ends before, nothing was delivered.
    InHand,
    /// It is where whoever paid wanted it.
    Delivered,
}

impl Goods {
    const fn code(self) -> i64 {
        match self {
            Self::Missing => 0,
            Self::Delivered => 1,
            Self::InHand => 2,
        }
    }
}

/// What became of a purchase that was shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Settled {
        tx: Option<String>,
        confirmed: bool,
        goods: Goods,
        receipt: Option<String>,
        note: Option<String>,
    },
    Unknown {
        tx: Option<String>,
        goods: Goods,
        receipt: Option<String>,
        note: String,
    },
    Refused {
        receipt: Option<String>,
        note: String,
    },
}

/// Why no money of a purchase moved, nor ever can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The chain says, in a block after the authorization lapsed, that it was never used.
    UnusedAfterExpiry,
    /// What was signed was never shown to anybody, and has lapsed.
    NeverShown,
}

impl Proof {
    const fn name(self) -> &'static str {
        match self {
            Self::UnusedAfterExpiry => "unused_after_expiry",
            Self::NeverShown => "never_shown",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the wallet's journal cannot be used: {0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("the wallet's journal could not be written: {0}")]
    Undone(String),
    #[error("the wallet's journal cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    #[error("the wallet's journal is of version {0}, which this program does not know")]
    Version(i64),
    #[error("the wallet's journal holds a {0} that cannot be read")]
    Corrupt(&'static str),
    #[error("there is no purchase {0}")]
    NotFound(PurchaseId),
    #[error("the purchase is {from} and cannot become {to}")]
    Transition { from: State, to: State },
    #[error("the wallet is frozen")]
    Frozen,
    #[error("the agent {0} may not spend any more: its token was revoked")]
    Revoked(AgentName),
    #[error("the file is a wallet's journal, and no books of decisions")]
    NotDecisions,
    #[error("a change of the rules was refused: {0}")]
    Rules(String),
    #[error("there is no channel {0}")]
    NoChannel(ChannelId),
    #[error(
        "the voucher that it takes would let the seller ask for more than this call may cost, {most} atoms"
    )]
    OverMax { most: u128 },
    #[error(transparent)]
    Channel(#[from] farthing_channel::PayerError),
    #[error(transparent)]
    SessionKey(#[from] session_keys::SessionKeyFault),
}

/// What [`Journal::reserve`] decided. The purchase is reserved if, and only if, the decision allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    pub decision: Decision,
}

pub struct Journal {
    db: Arc<Disk>,
    processes: Processes,
    /// Whose purchases and channels are seen and made through here; `None` is the owner, who sees all.
    agent: Option<Scope>,
    policies: law::Read,
    meters: meters::Kept,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl Journal {
    /// Opens the journal at `path`, or makes it, readable by its owner alone, with [`Rules::tight`] on
    /// Base Sepolia.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        if let Some(dir) = path.parent() {
            create_private_dir(dir)?;
        }
        // SQLite would make it readable by all; its companions take the mode from it.
        match create_private_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        let journal = Self::over(Connection::open(path)?)?;
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| std::io::Error::other("no random bytes"))?;
        journal.seed_audit(seed)?;
        Ok(journal)
    }

    /// A journal that is gone with the process. For trying things out.
    pub fn in_memory() -> Result<Self, JournalError> {
        Self::over(Connection::open_in_memory()?)
    }

    /// The same journal as another process has it: what is written through one is read through the other. For
    /// simulations, in which a process that is killed and started again is another one over the same disk.
    ///
    /// `process` names the new one, and `is_gone` tells by its name whether another is.
    #[must_use]
    pub fn as_process(&self, process: &str, is_gone: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        let processes = Processes { this: process.to_owned(), is_gone: Arc::new(is_gone) };
        Self {
            db: self.db.clone(),
            processes,
            agent: self.agent.clone(),
            policies: self.policies.clone(),
            // Another process counts for itself.
            meters: meters::Kept::default(),
        }
    }

    /// A journal in an open database, which is made one if it is empty.
    pub fn over(mut db: Connection) -> Result<Self, JournalError> {
        db.busy_timeout(BUSY_TIMEOUT)?;
        db.set_prepared_statement_cache_capacity(STATEMENTS);
        db.pragma_update(None, "journal_mode", "WAL")?;
        // What is decided must survive a power cut, or a signature could be made twice for one cap.
        db.pragma_update(None, "synchronous", "FULL")?;
        // Each step is a savepoint; what undoes it is needed by nobody after a crash.
        db.pragma_update(None, "temp_store", "MEMORY")?;
        // What was moved is to be written over where it was, so that it can be erased where it is.
        db.pragma_update(None, "secure_delete", "ON")?;
        let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let missing = usize::try_from(found).ok().and_then(|done| MIGRATIONS.get(done..));
        for migration in missing.ok_or(JournalError::Version(found))? {
            tx.execute_batch(migration)?;
        }
        if found == 0 {
            // Money of a testnet is worth nothing; the owner names every other network.
            let testnet = Network::eip155(84532);
            tx.execute(
                "INSERT INTO setting (key, value) VALUES (?1, ?2)",
                [tx::RULES, &record::print_rules(&Rules::tight([testnet]))],
            )?;
        }
        tx.pragma_update(None, "user_version", i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX))?;
        tx.commit()?;
        db.pragma_update(None, "secure_delete", "OFF")?;
        Ok(Self {
            db: Arc::new(Disk::new(db)),
            processes: Processes::of_system(),
            agent: None,
            policies: law::Read::default(),
            meters: meters::Kept::default(),
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What the owner allows.

    pub fn rules(&self) -> Result<Rules, JournalError> {
        self.within(Tx::rules)
    }

    /// Changes the rules, all at once or not at all.
    pub fn change_rules(
        &self,
        change: impl FnOnce(&mut Rules) -> Result<(), String>,
    ) -> Result<Rules, JournalError> {
        self.within(|tx| {
            let mut rules = tx.rules()?;
            change(&mut rules).map_err(JournalError::Rules)?;
            audit::rules_changed(tx, &rules)?;
            put(tx, "rules", &record::print_rules(&rules))?;
            Ok(rules)
        })
    }

    /// Whether this wallet is for development: only the built-in development keys sign.
    pub fn is_devnet(&self) -> Result<bool, JournalError> {
        self.within(|tx| Ok(get(tx, "devnet")?.is_some()))
    }

    pub fn set_devnet(&self, devnet: bool) -> Result<(), JournalError> {
        self.within(|tx| {
            audit::setting_changed(tx, "devnet", if devnet { "on" } else { "off" })?;
            if devnet { put(tx, "devnet", "1") } else { forget(tx, "devnet") }
        })
    }

    /// The rules, and the time that they are applied at.
    ///
    /// # Errors
    /// [`JournalError::SessionKey`] if `payer` is no account that pays now for whoever uses this journal.
    pub fn terms(&self, payer: &Address, clock: &Clock) -> Result<Terms, JournalError> {
        self.db.look(|tx| {
            let time = believed(tx, clock)?.time;
            Ok(Terms {
                law: self.law_now(tx)?,
                devnet: get(tx, "devnet")?.is_some(),
                time,
                key: self.key_now(tx, payer, time, clock)?,
            })
        })
    }

    /// The key that pays when none is named.
    pub fn default_key(&self) -> Result<Option<String>, JournalError> {
        self.within(|tx| get(tx, "default_key"))
    }

    pub fn set_default_key(&self, reference: &str) -> Result<(), JournalError> {
        self.within(|tx| put(tx, "default_key", reference))
    }

    /// The nodes that the owner named, by network.
    pub fn rpc_urls(&self) -> Result<Vec<(Network, String)>, JournalError> {
        self.within(|tx| {
            let mut found =
                tx.prepare_cached("SELECT key, value FROM setting WHERE key GLOB 'rpc:*' ORDER BY key")?;
            let rows = found.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut nodes = Vec::new();
            for row in rows {
                let (key, url): (String, String) = row?;
                let network = key.strip_prefix("rpc:").unwrap_or_default().parse();
                nodes.push((network.map_err(|_| JournalError::Corrupt("network"))?, url));
            }
            Ok(nodes)
        })
    }

    /// Names the node by which a network is asked; `None` forgets it.
    pub fn set_rpc_url(&self, network: &Network, url: Option<&str>) -> Result<(), JournalError> {
        let name = format!("rpc:{network}");
        self.within(|tx| match url {
            Some(url) => put(tx, &name, url),
            None => forget(tx, &name),
        })
    }

    /// The payees that are pinned for a host and port.
    pub fn pins(&self, authority: &str) -> Result<Vec<(Network, Address)>, JournalError> {
        self.within(|tx| {
            let mut found =
                tx.prepare_cached("SELECT network, payee FROM pin WHERE authority = ?1 ORDER BY since_ms")?;
            let rows = found.query_map([authority], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let mut pins = Vec::new();
            for row in rows {
                let (network, payee): (String, String) = row?;
                let network: Network = network.parse().map_err(|_| JournalError::Corrupt("network"))?;
                let payee = Address::parse(&network, &payee).map_err(|_| JournalError::Corrupt("payee"))?;
                pins.push((network, payee));
            }
            Ok(pins)
        })
    }

    /// Lets a host and port be paid at one more address.
    pub fn pin(
        &self,
        authority: &str,
        network: &Network,
        payee: &Address,
        clock: &Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            audit::setting_changed(tx, "pin", &format!("{authority} {network} {payee}"))?;
            pin(tx, authority, network, payee, now)
        })
    }

    /// Forgets where a host and port were paid: the next payment pins anew.
    pub fn unpin(&self, authority: &str) -> Result<usize, JournalError> {
        self.within(|tx| {
            audit::setting_changed(tx, "unpin", authority)?;
            run(tx, "DELETE FROM pin WHERE authority = ?1", [authority])
        })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // The life of a purchase.

    /// What [`Journal::reserve`] would decide. Changes nothing.
    pub fn preview(&self, request: &Request, clock: &Clock) -> Result<Decision, JournalError> {
        self.db.look(|tx| {
            let now = believed(tx, clock)?.time;
            self.ruling(tx, request, now, true)
        })
    }

    /// Decides and, if allowed, writes the purchase down as [`State::Intended`], in one step: two processes at the cap
    /// cannot both pass. A payee that is seen for the first time is pinned.
    pub fn reserve(&self, request: &Request, draft: &Draft, clock: &Clock) -> Result<Reserved, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            lapse(tx, now, believable(clock).wall)?;
            self.key_may_sign(tx, &draft.payer, draft.expires, now, clock)?;
            let decision = if cfg!(mutant = "budget") {
                self.law_now(tx)?.decide(&History::default(), request, now)
            } else {
                self.ruling(tx, request, now, true)?
            };
            if decision.is_allowed() {
                let authority = request.origin.authority();
                pin(tx, &authority, request.charge.money().asset().network(), &request.payee, now)?;
                self.insert(tx, request, draft, &decision, now)?;
                approvals::consume(tx, &decision, request, &key(&draft.id), now)?;
                self.vouch(tx, &decision, request)?;
            }
            audit::decided(tx, &decision, &self.as_own(request), draft, None)?;
            Ok(Reserved { decision })
        })
    }

    /// Writes down what was signed, for whoever shows it later.
    ///
    /// # Errors
    /// [`JournalError::Frozen`] if the owner froze the wallet in between: the signature is to be dropped.
    pub fn signed(
        &self,
        id: &PurchaseId,
        header: &Header,
        instruction: &Instruction,
        clock: &Clock,
    ) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            self.sign(tx, id, header, instruction, clock)
        })
    }

    /// Gives up a purchase of which nothing left this process.
    pub fn drop_unsigned(&self, id: &PurchaseId, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            let from = state(tx, id)?;
            if from != State::Intended {
                return Err(JournalError::Transition { from, to: State::Released });
            }
            become_(tx, id, State::Released, clock)?;
            audit::released(tx, id, NEVER_SIGNED)?;
            note(tx, id, NEVER_SIGNED)
        })
    }

    /// Writes down that the payment is about to be shown, and returns it.
    ///
    /// What was shown before may be shown again also by a frozen wallet: its money may be gone already, and the goods
    /// are owed.
    pub fn present(&self, id: &PurchaseId, clock: &Clock) -> Result<Header, JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            self.show(tx, id, clock)
        })
    }

    /// [`Journal::signed`], unless it was, and [`Journal::present`] in one step. Only after this may anybody see it.
    pub fn present_signed(
        &self,
        id: &PurchaseId,
        header: &Header,
        instruction: &Instruction,
        clock: &Clock,
    ) -> Result<Header, JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            if state(tx, id)? != State::Intended {
                return self.show(tx, id, clock);
            }
            self.may_sign(tx)?;
            self.key_is_there(tx, id, clock)?;
            // [`State::Signed`] and then [`State::Presented`]: nobody sees what is between.
            let now = advance(tx, clock)?;
            let changed = run(
                tx,
                "UPDATE purchase SET state = ?2, updated_ms = ?3, header_name = ?4, header_value = ?5, instruction = ?6,
                 shown = shown + 1, holder = ?7 WHERE id = ?1 AND state = 'intended'",
                params![
                    key(id),
                    State::Presented.name(),
                    millis(now),
                    header.name,
                    header.value,
                    instruction.as_bytes(),
                    self.processes.this,
                ],
            )?;
            if changed == 1 { Ok(header.clone()) } else { Err(JournalError::Corrupt("state")) }
        })
    }

    /// Writes down a purchase that was allowed, as the agent's.
    fn insert(
        &self,
        tx: &Tx,
        request: &Request,
        draft: &Draft,
        decision: &Decision,
        now: Timestamp,
    ) -> Result<(), JournalError> {
        // The wall may have been set back, and the books' time not: the later of the two ends counts. And what is dead by
        // our clock lives on where the chain's is behind.
        let counts_until = now.plus(request.validity).max(draft.expires).plus(draft.lag);
        let charge: &Charge = &request.charge;
        run(
            tx,
            "INSERT INTO purchase (id, state, created_ms, updated_ms, counts_until_ms, expires_ms, authority, method, url,
             request_hash, asset, atoms, dollars, payee, payer, consumption, holder, tool, agent, decision)
             VALUES (?1, 'intended', ?2, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
            params![
                key(&draft.id),
                millis(now),
                millis(counts_until),
                millis(draft.expires),
                request.origin.authority(),
                draft.method,
                draft.url,
                &draft.request_hash.0[..],
                charge.money().asset().to_string(),
                &charge.money().atoms().to_be_bytes()[..],
                charge.dollars().map(|dollars| dollars.0.to_be_bytes().to_vec()),
                request.payee.as_str(),
                draft.payer.as_str(),
                draft.consumption.as_str(),
                self.processes.this,
                request.caller.tool,
                self.agent_name(),
                law::print_decision(decision),
            ],
        )?;
        Ok(())
    }

    fn sign(
        &self,
        tx: &Tx,
        id: &PurchaseId,
        header: &Header,
        instruction: &Instruction,
        clock: &Clock,
    ) -> Result<(), JournalError> {
        self.may_sign(tx)?;
        self.key_is_there(tx, id, clock)?;
        become_(tx, id, State::Signed, clock)?;
        run(
            tx,
            "UPDATE purchase SET header_name = ?2, header_value = ?3, instruction = ?4 WHERE id = ?1",
            params![key(id), header.name, header.value, instruction.as_bytes()],
        )?;
        Ok(())
    }

    fn show(&self, tx: &Tx, id: &PurchaseId, clock: &Clock) -> Result<Header, JournalError> {
        if state(tx, id)? == State::Signed {
            self.may_sign(tx)?;
            self.key_is_there(tx, id, clock)?;
        }
        if state(tx, id)? != State::Settled {
            become_(tx, id, State::Presented, clock)?;
        }
        // What another process had in hand when it ended is not here.
        run(
            tx,
            "UPDATE purchase SET shown = shown + 1, holder = ?2, delivered = iif(delivered = 2, 0, delivered)
             WHERE id = ?1",
            params![key(id), self.processes.this],
        )?;
        find(tx, id)?.header.ok_or(JournalError::Corrupt("header"))
    }

    /// Writes down what became of a payment that was shown. None of it frees the reservation.
    pub fn conclude(&self, id: &PurchaseId, outcome: &Outcome, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            conclude(tx, id, outcome, clock)
        })
    }

    /// Writes down that the answer, which was in hand, is where whoever paid wanted it.
    pub fn received(&self, id: &PurchaseId) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            run(tx, "UPDATE purchase SET delivered = 1 WHERE id = ?1 AND delivered = 2", [key(id)])?;
            audit::outcome(tx, id)
        })
    }

    /// Writes down that the chain's word for a settlement is final. Nothing changes that any more.
    pub fn finalize(&self, id: &PurchaseId) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            run(
                tx,
                "UPDATE purchase SET confirmed = 2 WHERE id = ?1 AND state = 'settled' AND confirmed = 1",
                [key(id)],
            )?;
            audit::outcome(tx, id)
        })
    }

    /// Frees the reservation of a purchase, on proof. A chain may so take back what it said before a reorganization.
    pub fn release(&self, id: &PurchaseId, proof: Proof, clock: &Clock) -> Result<(), JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            let purchase = find(tx, id)?;
            let never_shown = matches!(purchase.state, State::Intended | State::Signed);
            if purchase.finalized || (proof == Proof::NeverShown && !never_shown) {
                return Err(JournalError::Transition { from: purchase.state, to: State::Released });
            }
            become_(tx, id, State::Released, clock)?;
            audit::released(tx, id, proof.name())?;
            note(tx, id, proof.name())
        })
    }

    /// What a process that starts does first: releases what was never signed and whose process is gone, and what was
    /// never shown and has lapsed. Returns how many that were.
    ///
    /// Should a process be taken for gone that is not, then what it signs cannot be written down, and is dropped.
    pub fn recover(&self, clock: &Clock) -> Result<usize, JournalError> {
        self.within(|tx| {
            let now = advance(tx, clock)?;
            let mut found = tx.prepare_cached("SELECT id, holder FROM purchase WHERE state = 'intended'")?;
            let rows =
                found.query_map([], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, String>(1)?)))?;
            let intended: Vec<_> = rows.collect::<Result<_, _>>()?;
            let mut dropped = 0;
            for (id, _) in intended.into_iter().filter(|(_, holder)| (self.processes.is_gone)(holder)) {
                let id: [u8; 16] = id.try_into().map_err(|_| JournalError::Corrupt("id"))?;
                let id = PurchaseId::from_bytes(id);
                become_(tx, &id, State::Released, clock)?;
                audit::released(tx, &id, NEVER_SIGNED)?;
                note(tx, &id, NEVER_SIGNED)?;
                dropped += 1;
            }
            Ok(dropped + lapse(tx, now, believable(clock).wall)?)
        })
    }

    pub fn get(&self, id: &PurchaseId) -> Result<Purchase, JournalError> {
        self.within(|tx| {
            self.own(tx, id)?;
            find(tx, id)
        })
    }

    /// Purchases, latest first.
    pub fn history(&self, limit: u32) -> Result<Vec<Purchase>, JournalError> {
        self.within(|tx| {
            let sql = format!("SELECT {COLUMNS} FROM purchase WHERE {OWN} ORDER BY id DESC LIMIT ?2");
            let mut found = tx.prepare_cached(&sql)?;
            let rows =
                found.query_map(params![self.agent_name(), limit.min(MAX_HISTORY)], |row| Ok(read(row)))?;
            rows.map(|row| row?).collect()
        })
    }

    /// Purchases whose outcome is open, or not final yet, oldest first: to be asked about again. What vouchers pay for
    /// is not among them: the chain knows their channels alone.
    pub fn open_purchases(&self) -> Result<Vec<Purchase>, JournalError> {
        self.within(|tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM purchase
                 WHERE {OWN} AND channel IS NULL AND (state IN ('signed', 'presented', 'unknown', 'refused')
                 OR (state = 'settled' AND confirmed < 2)) ORDER BY id LIMIT ?2"
            );
            let mut found = tx.prepare_cached(&sql)?;
            let rows = found.query_map(params![self.agent_name(), MAX_HISTORY], |row| Ok(read(row)))?;
            rows.map(|row| row?).collect()
        })
    }

    /// The latest purchase of exactly this request that brought nothing yet, and whose outcome is unknown.
    pub fn unknown_for(&self, request: &RequestHash) -> Result<Option<Purchase>, JournalError> {
        self.within(|tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM purchase WHERE {OWN} AND request_hash = ?2 AND state = 'unknown' AND delivered = 0
                 ORDER BY id DESC LIMIT 1"
            );
            let mut found = tx.prepare_cached(&sql)?;
            found.query_row(params![self.agent_name(), &request.0[..]], |row| Ok(read(row))).optional()?.transpose()
        })
    }

    /// The latest purchase of exactly this request, whatever became of it.
    pub fn latest_for(&self, request: &RequestHash) -> Result<Option<Purchase>, JournalError> {
        self.within(|tx| {
            let sql = format!(
                "SELECT {COLUMNS} FROM purchase WHERE {OWN} AND request_hash = ?2 ORDER BY id DESC LIMIT 1"
            );
            let mut found = tx.prepare_cached(&sql)?;
            found
                .query_row(params![self.agent_name(), &request.0[..]], |row| Ok(read(row)))
                .optional()?
                .transpose()
        })
    }

    /// Binds a caller's name for a call to the request that it is for, and returns the request that the name is bound to:
    /// another one, if it was used before. In one step, so that of two callers with one name only one gets it.
    pub fn bind_call(
        &self,
        name: &str,
        request: &RequestHash,
        clock: &Clock,
    ) -> Result<RequestHash, JournalError> {
        self.within(|tx| {
            let name = match self.agent_name() {
                Some(agent) => format!("{CALL}{agent}:{name}"),
                None => format!("{CALL}{name}"),
            };
            if let Some(text) = get(tx, &name)? {
                return Ok(record::read_call(&text).ok_or(JournalError::Corrupt("bound call"))?.0);
            }
            put(tx, &name, &record::print_call(request, believed(tx, clock)?.time))?;
            Ok(*request)
        })
    }

    /// Forgets the names of calls that were bound [`CALL_NAMES_KEPT`] ago or earlier and came to no purchase. What was
    /// signed for keeps its name as long as it is in the books. Returns how many were forgotten.
    pub fn forget_calls(&self, clock: &Clock) -> Result<usize, JournalError> {
        self.within(|tx| {
            let before = believed(tx, clock)?.time.minus(CALL_NAMES_KEPT);
            let mut found = tx.prepare_cached("SELECT key, value FROM setting WHERE key GLOB ?1 || '*'")?;
            let rows = found.query_map([CALL], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let rows: Vec<(String, String)> = rows.collect::<Result<_, _>>()?;
            let mut bought =
                tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM purchase WHERE request_hash = ?1)")?;
            let mut forgotten = 0;
            for (name, text) in rows {
                let (request, at) = record::read_call(&text).ok_or(JournalError::Corrupt("bound call"))?;
                if at <= before && !bought.query_row([&request.0[..]], |row| row.get::<_, bool>(0))? {
                    forget(tx, &name)?;
                    forgotten += 1;
                }
            }
            Ok(forgotten)
        })
    }

    /// A secret of this journal's alone, by which callers' names are made unguessable before a seller sees them. `fresh`
    /// becomes it if there is none yet.
    pub fn call_secret(&self, fresh: [u8; 32]) -> Result<[u8; 32], JournalError> {
        self.within(|tx| {
            let Some(text) = get(tx, "call_secret")? else {
                put(tx, "call_secret", &hex::encode(fresh))?;
                return Ok(fresh);
            };
            let mut secret = [0u8; 32];
            hex::decode_to_slice(&text, &mut secret).map_err(|_| JournalError::Corrupt("call secret"))?;
            Ok(secret)
        })
    }

    /// Purchases that brought nothing yet and still may, and that nobody is showing for the first time now, oldest first:
    /// whoever asks for the same again should show that payment, and not make another. Of exactly this request, or of
    /// all.
    ///
    /// That are those whose outcome is unknown, those that are settled, for as long as [`GOODS_OWED`], and those that
    /// were on their way, or whose answer was in the hands of their process, when it ended. Asked for one request, those
    /// too that were refused and can still be settled: a seller that refuses and settles later must not get two.
    pub fn abandoned(
        &self,
        request: Option<&RequestHash>,
        clock: &Clock,
    ) -> Result<Vec<Purchase>, JournalError> {
        self.within(|tx| {
            let owed_since = believed(tx, clock)?.time.minus(GOODS_OWED);
            let wall = believable(clock).wall;
            let of_request = if request.is_some() { "request_hash = ?2" } else { "?2 IS NULL" };
            let sql = format!(
                "SELECT {COLUMNS}, holder, delivered = 2 AS in_hand FROM purchase
                 WHERE {OWN} AND {of_request} AND delivered <> 1 AND (state IN ('signed', 'presented', 'unknown')
                 OR (state = 'settled' AND updated_ms >= ?3)
                 OR (state = 'refused' AND ?2 IS NOT NULL AND channel IS NULL AND expires_ms > ?4))
                 ORDER BY id DESC LIMIT {MAX_HISTORY}"
            );
            let mut found = tx.prepare_cached(&sql)?;
            let hash = request.map(|hash| &hash.0[..]);
            let mut rows = found.query(params![self.agent_name(), hash, millis(owed_since), millis(wall)])?;
            let mut left = Vec::new();
            while let Some(row) = rows.next()? {
                let purchase = read(row)?;
                // What was shown and is open may be shown again by anybody: it is one payment, however often.
                let open = matches!(purchase.state, State::Unknown | State::Settled | State::Refused)
                    && !row.get::<_, bool>("in_hand")?;
                if open || (self.processes.is_gone)(&row.get::<_, String>("holder")?) {
                    left.push(purchase);
                }
            }
            left.reverse();
            Ok(left)
        })
    }

    /// What counts against the caps of `bucket` now, by window.
    pub fn spent(&self, bucket: &Bucket, clock: &Clock) -> Result<Vec<(Window, u128)>, JournalError> {
        self.within(|tx| {
            let now = believed(tx, clock)?.time;
            let movements = movements(tx, now, Some(Window::Day.length()))?;
            let history = History { movements, ..History::default() };
            let sum = |window| history.spent(bucket, window, now).unwrap_or(u128::MAX);
            Ok(Window::ALL.into_iter().map(|window| (window, sum(window))).collect())
        })
    }

    fn within<T>(&self, work: impl FnOnce(&Tx) -> Result<T, JournalError>) -> Result<T, JournalError> {
        self.try_within(work)
    }

    /// The same, for calls that fail in other ways, too. An error undoes all of it.
    fn try_within<T, E: From<JournalError>>(&self, work: impl FnOnce(&Tx) -> Result<T, E>) -> Result<T, E> {
        self.db.step(work)
    }
}

fn key(id: &PurchaseId) -> Vec<u8> {
    id.to_bytes().to_vec()
}

/// Executes a statement that is read once.
fn run(tx: &Tx, sql: &str, values: impl Params) -> Result<usize, JournalError> {
    Ok(tx.prepare_cached(sql)?.execute(values)?)
}

fn get(tx: &Tx, name: &str) -> Result<Option<String>, JournalError> {
    tx.setting(name)
}

fn put(tx: &Tx, name: &str, value: &str) -> Result<(), JournalError> {
    tx.set(name, Some(value))
}

fn forget(tx: &Tx, name: &str) -> Result<(), JournalError> {
    tx.set(name, None)
}

/// The time that the books go by, if they are looked at now.
fn believed(tx: &Tx, clock: &Clock) -> Result<Mark, JournalError> {
    Ok(Mark::advance(tx.mark()?.as_ref(), &believable(clock)))
}

/// The same, from now on.
fn advance(tx: &Tx, clock: &Clock) -> Result<Timestamp, JournalError> {
    let next = believed(tx, clock)?;
    let time = next.time;
    tx.set_mark(next)?;
    Ok(time)
}

fn pin(
    tx: &Tx,
    authority: &str,
    network: &Network,
    payee: &Address,
    now: Timestamp,
) -> Result<(), JournalError> {
    run(
        tx,
        "INSERT OR IGNORE INTO pin (authority, network, payee, since_ms) VALUES (?1, ?2, ?3, ?4)",
        params![authority, network.as_str(), payee.as_str(), millis(now)],
    )?;
    Ok(())
}

fn state(tx: &Tx, id: &PurchaseId) -> Result<State, JournalError> {
    let mut found = tx.prepare_cached("SELECT state FROM purchase WHERE id = ?1")?;
    let state: Option<String> = found.query_row([key(id)], |row| row.get(0)).optional()?;
    let state = state.ok_or(JournalError::NotFound(*id))?;
    State::parse(&state).ok_or(JournalError::Corrupt("state"))
}

fn become_(tx: &Tx, id: &PurchaseId, to: State, clock: &Clock) -> Result<(), JournalError> {
    let from = state(tx, id)?;
    if !from.may_become(to) {
        return Err(JournalError::Transition { from, to });
    }
    let now = advance(tx, clock)?;
    run(
        tx,
        "UPDATE purchase SET state = ?2, updated_ms = ?3 WHERE id = ?1",
        params![key(id), to.name(), millis(now)],
    )?;
    Ok(())
}

fn conclude(tx: &Tx, id: &PurchaseId, outcome: &Outcome, clock: &Clock) -> Result<(), JournalError> {
    let from = state(tx, id)?;
    match outcome {
        Outcome::Settled { tx: hash, confirmed, goods, receipt, note: said } => {
            become_(tx, id, State::Settled, clock)?;
            // What a chain confirmed stays so, whatever a seller says later. A chain may correct itself.
            run(tx, "UPDATE purchase SET confirmed = max(confirmed, ?4), tx = iif(confirmed > ?4, tx, coalesce(?2, tx)),
                 receipt = coalesce(?3, receipt), note = coalesce(?5, note),
                 delivered = iif(delivered = 1 OR ?6 = 0, delivered, ?6)
                 WHERE id = ?1",
                params![key(id), hash, receipt, confirmed, said, goods.code()],
            )?;
        }
        // A later and lesser answer does not undo an earlier and better one.
        Outcome::Unknown { .. } | Outcome::Refused { .. } if from == State::Settled => {}
        Outcome::Unknown { tx: hash, goods, receipt, note: said } => {
            become_(tx, id, State::Unknown, clock)?;
            run(tx, "UPDATE purchase SET tx = coalesce(?2, tx), note = ?3,
                 delivered = iif(delivered = 1 OR ?4 = 0, delivered, ?4), receipt = coalesce(?5, receipt) WHERE id = ?1",
                params![key(id), hash, said, goods.code(), receipt],
            )?;
        }
        Outcome::Refused { receipt, note: said } => {
            become_(tx, id, State::Refused, clock)?;
            run(
                tx,
                "UPDATE purchase SET receipt = coalesce(?2, receipt), note = ?3 WHERE id = ?1",
                params![key(id), receipt, said],
            )?;
        }
    }
    audit::outcome(tx, id)
}

fn note(tx: &Tx, id: &PurchaseId, text: &str) -> Result<(), JournalError> {
    run(tx, "UPDATE purchase SET note = ?2 WHERE id = ?1", params![key(id), text])?;
    Ok(())
}

/// Nobody has what was only intended or only signed, and after its end nobody could use it. Both clocks must agree on
/// the end, so that a clock that ran ahead for a while releases nothing early.
fn lapse(tx: &Tx, now: Timestamp, wall: Timestamp) -> Result<usize, JournalError> {
    let mut lapsed = tx.prepare_cached(
        "UPDATE purchase SET state = 'released', note = 'never_shown', updated_ms = ?1
         WHERE state IN ('intended', 'signed') AND counts_until_ms < ?1 AND expires_ms < ?2 RETURNING id",
    )?;
    let rows = lapsed.query_map([millis(now), millis(wall)], |row| row.get::<_, Vec<u8>>(0))?;
    let mut changed = 0;
    for id in rows.collect::<Result<Vec<_>, _>>()? {
        let id: [u8; 16] = id.try_into().map_err(|_| JournalError::Corrupt("id"))?;
        audit::released(tx, &PurchaseId::from_bytes(id), Proof::NeverShown.name())?;
        changed += 1;
    }
    Ok(changed)
}

/// Everything that counts or may count, of as far back as is asked for; `None` is for ever.
fn movements(tx: &Tx, now: Timestamp, memory: Option<Duration>) -> Result<Vec<Movement>, JournalError> {
    let since = memory.map(|memory| now.minus(memory));
    let mut movements = purchase_movements(tx, since)?;
    channels::movements(tx, since, now, &mut movements)?;
    Ok(movements)
}

/// The columns that [`movements_of`] reads.
const PURCHASE_MOVEMENT: &str = "asset, atoms, dollars, counts_until_ms, agent, authority, payee, tool";

/// What purchases count, but for those that a channel pays for.
fn purchase_movements(tx: &Tx, since: Option<Timestamp>) -> Result<Vec<Movement>, JournalError> {
    let mut found = tx.prepare_cached(&format!(
        "SELECT {PURCHASE_MOVEMENT} FROM purchase
         WHERE counts_until_ms >= ?1 AND state <> 'released' AND channel IS NULL"
    ))?;
    let mut rows = found.query([millis(since.unwrap_or(Timestamp::from_millis(0)))])?;
    let mut movements = Vec::new();
    while let Some(row) = rows.next()? {
        movements.extend(movements_of(row)?);
    }
    Ok(movements)
}

/// One for the bucket of its asset, and another for dollars. What may still move has a moment to come, and so is in every
/// window.
fn movements_of(row: &Row<'_>) -> Result<Vec<Movement>, JournalError> {
    let asset: AssetId = row.get::<_, String>(0)?.parse().map_err(|_| JournalError::Corrupt("asset"))?;
    let until = Timestamp::from_millis(row.get::<_, i64>(3)?.cast_unsigned());
    let amount = wide(row.get(1)?)?;
    let payee = Address::parse(asset.network(), &row.get::<_, String>(6)?);
    let of = Arc::new(Source {
        agent: agents::read(row.get(4)?)?,
        authority: row.get(5)?,
        payee: Some(payee.map_err(|_| JournalError::Corrupt("payee"))?),
        tool: row.get(7)?,
    });
    let mut movements = vec![Movement { bucket: Bucket::Asset(asset), amount, until, of: of.clone() }];
    if let Some(dollars) = row.get::<_, Option<Vec<u8>>>(2)? {
        movements.push(Movement { bucket: Bucket::Dollar, amount: wide(dollars)?, until, of });
    }
    Ok(movements)
}

/// What the same thing cost when it was last paid for, in atoms.
fn usual_price(tx: &Tx, request: &Request) -> Result<Option<u128>, JournalError> {
    let mut found = tx.prepare_cached(
        "SELECT atoms FROM purchase WHERE url = ?1 AND method = ?2 AND asset = ?3 AND tool IS ?4 AND state = 'settled'
         ORDER BY id DESC LIMIT 1",
    )?;
    let caller = &request.caller;
    let asset = request.charge.money().asset().to_string();
    let atoms: Option<Vec<u8>> = found
        .query_row(params![caller.url, caller.method, asset, caller.tool], |row| row.get(0))
        .optional()?;
    atoms.map(wide).transpose()
}

/// What the rules need to know of the past, but for what was spent.
fn history(tx: &Tx, law: &Law, request: &Request, now: Timestamp) -> Result<History, JournalError> {
    let authority = request.origin.authority();
    let network = request.charge.money().asset().network();
    let mut found = tx.prepare_cached("SELECT payee FROM pin WHERE authority = ?1 AND network = ?2")?;
    let rows = found.query_map([authority.as_str(), network.as_str()], |row| row.get::<_, String>(0))?;
    let mut pinned = Vec::new();
    for payee in rows {
        pinned.push(Address::parse(network, &payee?).map_err(|_| JournalError::Corrupt("payee"))?);
    }
    let refusals = match law.breaker() {
        None => 0,
        Some(breaker) => {
            let since = now.minus(breaker.within);
            let mut count = tx.prepare_cached(
                "SELECT count(*) FROM purchase WHERE authority = ?1 AND state = 'refused' AND updated_ms > ?2",
            )?;
            count.query_row(params![authority, millis(since)], |row| row.get(0))?
        }
    };
    let usual_price = if law.minds_prices() { usual_price(tx, request)? } else { None };
    let indexes = indexes::known(tx, law)?;
    Ok(History { pinned, refusals, usual_price, indexes, ..History::default() })
}

const COLUMNS: &str = "id, state, created_ms, updated_ms, expires_ms, authority, method, url, request_hash, asset, \
     atoms, payee, payer, consumption, header_name, header_value, instruction, shown, tx, confirmed, receipt, note, delivered, \
     channel, cumulative, agent, tool";

/// Whose a row is: everybody's for the owner, whose name is NULL; else the agent's own.
const OWN: &str = "(?1 IS NULL OR agent = ?1)";

fn find(tx: &Tx, id: &PurchaseId) -> Result<Purchase, JournalError> {
    let sql = format!("SELECT {COLUMNS} FROM purchase WHERE id = ?1");
    let mut found = tx.prepare_cached(&sql)?;
    let purchase = found.query_row([key(id)], |row| Ok(read(row))).optional()?;
    purchase.ok_or(JournalError::NotFound(*id))?
}

fn read(row: &Row<'_>) -> Result<Purchase, JournalError> {
    let corrupt = JournalError::Corrupt;
    let time =
        |i| -> Result<_, JournalError> { Ok(Timestamp::from_millis(row.get::<_, i64>(i)?.cast_unsigned())) };
    let id: [u8; 16] = row.get::<_, Vec<u8>>(0)?.try_into().map_err(|_| corrupt("id"))?;
    let hash: [u8; 32] = row.get::<_, Vec<u8>>(8)?.try_into().map_err(|_| corrupt("hash"))?;
    let asset: AssetId = row.get::<_, String>(9)?.parse().map_err(|_| corrupt("asset"))?;
    let address = |i| -> Result<_, JournalError> {
        Address::parse(asset.network(), &row.get::<_, String>(i)?).map_err(|_| corrupt("address"))
    };
    let header: (Option<String>, Option<String>) = (row.get(14)?, row.get(15)?);
    Ok(Purchase {
        id: PurchaseId::from_bytes(id),
        state: State::parse(&row.get::<_, String>(1)?).ok_or(corrupt("state"))?,
        created: time(2)?,
        updated: time(3)?,
        expires: time(4)?,
        authority: row.get(5)?,
        method: row.get(6)?,
        url: row.get(7)?,
        request_hash: RequestHash(hash),
        payee: address(11)?,
        payer: address(12)?,
        money: Money::new(asset, wide(row.get(10)?)?),
        consumption: ConsumptionKey::new(row.get::<_, String>(13)?),
        header: header.0.zip(header.1).map(|(name, value)| Header { name, value }),
        instruction: row.get::<_, Option<Vec<u8>>>(16)?.map(Instruction::new),
        shown: row.get(17)?,
        tx: row.get(18)?,
        confirmed: row.get::<_, i64>(19)? > 0,
        finalized: row.get::<_, i64>(19)? > 1,
        receipt: row.get(20)?,
        note: row.get(21)?,
        delivered: row.get::<_, i64>(22)? == 1,
        channel: row.get::<_, Option<Vec<u8>>>(23)?.map(channels::id).transpose()?,
        cumulative: row.get::<_, Option<Vec<u8>>>(24)?.map(wide).transpose()?,
        agent: agents::read(row.get(25)?)?,
        tool: row.get(26)?,
    })
}

fn wide(bytes: Vec<u8>) -> Result<u128, JournalError> {
    bytes.try_into().map(u128::from_be_bytes).map_err(|_| JournalError::Corrupt("amount"))
}

/// Times beyond 63 bits are the last that SQLite holds.
fn millis(time: Timestamp) -> i64 {
    i64::try_from(time.millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
