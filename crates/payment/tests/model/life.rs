//! What is durable: payments and their books, made by the production code and numbered, so that a state of the whole
//! world is a few bytes.

use std::collections::HashMap;
use std::sync::Arc;

use farthing_ledger::{Account, AccountKind, Ledger, Phase};
use farthing_payment::{
    Binding, Bound, ConsumptionKey, Delivery, Dialect, Event, Fault, Flow, Instruction, NewPayment, Next,
    Payment, Proof, Reason, Role, State, Step, StepError, Terms, TxRef, Witness,
};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RefundId, RequestHash, TenantId, Timestamp,
};

pub const PRICE: i128 = 1000;
const FEE: u128 = 21;
/// Time is in the world, not in the records: all of them happen at once.
const NOW: Timestamp = Timestamp::from_secs(2);

/// Whose transaction moved the money, or that only a facilitator says that it moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hand {
    Ours(u8),
    /// A stranger, or the payer itself.
    Other,
    Word,
}

/// [`Event`] without its details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ev {
    FundsConfirmed,
    FundsRefused,
    CallStarted,
    CallStored,
    Sent,
    CallFailed,
    CallLost,
    Represented,
    AttemptStarted(u8),
    AttemptReplaced(u8, u8),
    AttemptDropped(u8),
    /// `fee`: we paid for a transaction.
    Included {
        hand: Hand,
        deep: bool,
        fee: bool,
    },
    Reverted,
    Unclear,
    Reorged,
    Dead,
    RefundStarted,
    RefundIncluded(Hand),
    RefundReplaced,
    RefundDropped,
}

pub type LifeId = u32;

/// The payment that holds the key, or held it last, and its books.
#[derive(Clone, Default)]
pub struct Life {
    payment: Option<Payment>,
    books: Ledger,
}

/// For whom, in which order, and whether the upstream may be called twice.
#[derive(Debug, Clone, Copy)]
pub struct Deal {
    pub role: Role,
    pub flow: Flow,
    pub repeatable: bool,
}

/// Every life that was reached.
pub struct Lives {
    deal: Deal,
    all: Vec<Arc<Life>>,
    ids: HashMap<String, LifeId>,
    steps: HashMap<(LifeId, Vec<Ev>), Result<LifeId, String>>,
}

impl Life {
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_ref()
    }

    pub fn net(&self, kind: AccountKind) -> i128 {
        self.sum(kind, &token(), |b| (b.debits_posted, b.credits_posted))
    }

    pub fn pending(&self, kind: AccountKind) -> i128 {
        self.sum(kind, &token(), |b| (b.debits_pending, b.credits_pending))
    }

    fn gas(&self) -> i128 {
        self.sum(AccountKind::Gas, &native(), |b| (b.debits_posted, b.credits_posted))
    }

    fn sum(
        &self,
        kind: AccountKind,
        asset: &AssetId,
        sides: impl Fn(&farthing_ledger::Balance) -> (u128, u128),
    ) -> i128 {
        let account = Account { tenant: TenantId::local(), kind, asset: asset.clone() };
        let (debits, credits) = sides(&self.books.balance(&account));
        i128::try_from(debits).expect("small") - i128::try_from(credits).expect("small")
    }

    /// What is wrong with the records by themselves, whatever the world is like.
    fn wrong(&self) -> Option<String> {
        if let Err(error) = self.books.check() {
            return Some(format!("the books do not balance: {error}"));
        }
        let mut expected = Expected::default();
        if let Some(payment) = &self.payment {
            if payment.next() == Next::Rest && payment.is_exposed() {
                return Some("a payment at rest counts as exposure".to_owned());
            }
            if payment.releases_claim() && !nothing_pends(self) {
                return Some("a released payment leaves something pending".to_owned());
            }
            expected.add(payment);
        }
        let found = Expected {
            treasury: self.net(AccountKind::Treasury),
            revenue: -self.net(AccountKind::Revenue),
            owed: self.pending(AccountKind::Receivable),
            losses: self.net(AccountKind::Loss),
            refunds: self.net(AccountKind::Refunds),
            relayed: self.net(AccountKind::Payees),
            gas: self.gas(),
        };
        let receivable = self.net(AccountKind::Receivable);
        if found != expected || receivable != 0 {
            return Some(format!(
                "the state says {expected:?}, the books say {found:?} and {receivable} owed"
            ));
        }
        None
    }

    fn key(&self) -> String {
        let transfers: Vec<_> =
            self.books.transfers().map(|(id, _, money, phase)| (id, money.atoms(), phase)).collect();
        format!("{:?}{transfers:?}", self.payment)
    }
}

/// What the books must say of payments in the states that they are in.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    treasury: i128,
    revenue: i128,
    owed: i128,
    losses: i128,
    refunds: i128,
    relayed: i128,
    gas: i128,
}

impl Expected {
    fn add(&mut self, payment: &Payment) {
        let fee = |proof: &Proof| proof.fee.as_ref().map_or(0, |_| i128::try_from(FEE).expect("small"));
        let sells = payment.role == Role::Seller;
        match &payment.state {
            State::Refused { .. } => {}
            State::Settled { proof, .. } | State::Refunding { proof, .. } => {
                self.gas += fee(proof);
                if sells {
                    self.treasury += PRICE;
                    self.revenue += PRICE;
                } else {
                    self.relayed += PRICE;
                }
            }
            State::Refunded { proof, refund_proof, .. } => {
                self.gas += fee(proof) + fee(refund_proof);
                self.revenue += PRICE;
                self.refunds += PRICE;
            }
            // What was served and will never be paid shows as a loss; what was not is simply undone.
            State::Failed { .. } => {
                let cut_off = payment.flow == Flow::Background && payment.delivery == Delivery::Failed;
                if sells && (payment.delivery == Delivery::Sent || cut_off) {
                    self.revenue += PRICE;
                    self.losses += PRICE;
                }
            }
            _ if sells => self.owed += PRICE,
            _ => {}
        }
    }
}

impl Lives {
    pub fn new(deal: Deal) -> Self {
        let mut lives = Self { deal, all: Vec::new(), ids: HashMap::new(), steps: HashMap::new() };
        lives.number(Life::default()).expect("nothing is wrong with nothing");
        lives
    }

    pub fn get(&self, id: LifeId) -> Arc<Life> {
        self.all[id as usize].clone()
    }

    fn number(&mut self, life: Life) -> Result<LifeId, String> {
        let key = life.key();
        if let Some(id) = self.ids.get(&key) {
            return Ok(*id);
        }
        if let Some(wrong) = life.wrong() {
            return Err(wrong);
        }
        let id = LifeId::try_from(self.all.len()).expect("few");
        self.all.push(Arc::new(life));
        self.ids.insert(key, id);
        Ok(id)
    }

    /// Claims the key for a new payment. The store allows that only where nobody holds it.
    pub fn claim(&mut self) -> Result<LifeId, String> {
        let (payment, entries) = Payment::claim(self.new_payment(), NOW);
        let mut life = Life::default();
        life.books.apply(&entries).map_err(|error| error.to_string())?;
        life.payment = Some(payment);
        self.number(life)
    }

    /// Whether the event fits; what it does to the books is another question.
    pub fn fits(&self, id: LifeId, ev: Ev) -> bool {
        self.get(id).payment().is_some_and(|payment| payment.step(event(ev), NOW).is_ok())
    }

    /// Commits some events as one change.
    pub fn commit(&mut self, id: LifeId, events: &[Ev]) -> Result<LifeId, String> {
        let key = (id, events.to_vec());
        if let Some(known) = self.steps.get(&key) {
            return known.clone();
        }
        let result = self.commit_anew(id, events);
        self.steps.insert(key, result.clone());
        result
    }

    fn commit_anew(&mut self, id: LifeId, events: &[Ev]) -> Result<LifeId, String> {
        let mut life = (*self.get(id)).clone();
        let payment = life.payment.take().expect("a claim comes first");
        let step = step(&payment, events).map_err(|error| error.to_string())?;
        life.books.apply(&step.entries).map_err(|error| error.to_string())?;
        let mut next = step.next;
        // Every commit has a number of its own; two lives that differ in nothing else have one future.
        next.version = 0;
        life.payment = Some(next);
        self.number(life)
    }

    fn new_payment(&self) -> NewPayment {
        NewPayment {
            id: PaymentId::new(NOW, [1; 10]),
            tenant: TenantId::local(),
            key: ConsumptionKey::new("one"),
            role: self.deal.role,
            flow: self.deal.flow,
            terms: Terms {
                payer: Address::from_evm_bytes([1; 20]),
                payee: Address::from_evm_bytes([2; 20]),
                money: Money::new(token(), u128::try_from(PRICE).expect("positive")),
                expires: Timestamp::from_secs(60),
                dialect: Dialect::X402V2,
                instruction: Instruction::new(Vec::new()),
            },
            binding: Binding {
                method: "GET".to_owned(),
                resource: "/".to_owned(),
                request: RequestHash([0; 32]),
                bound: Bound::ByOffer,
                repeatable: self.deal.repeatable,
            },
        }
    }
}

/// Whether each transfer that was ever reserved has come to an end.
pub fn nothing_pends(life: &Life) -> bool {
    life.books.transfers().all(|(_, _, _, phase)| phase != Phase::Pending)
}

fn step(payment: &Payment, events: &[Ev]) -> Result<Step, StepError> {
    let (first, rest) = events.split_first().expect("a change has an event");
    rest.iter().try_fold(payment.step(event(*first), NOW)?, |step, ev| step.and(event(*ev), NOW))
}

fn event(ev: Ev) -> Event {
    let reason = || Reason::new("sample", Fault::Chain);
    let attempt = |n: u8| AttemptId::new(NOW, [n; 10]);
    let refund = RefundId::new(NOW, [1; 10]);
    let tx = |n: u8| Some(TxRef::new(format!("0x{n:02}")));
    match ev {
        Ev::FundsConfirmed => Event::FundsConfirmed,
        Ev::FundsRefused => Event::FundsRefused(reason()),
        Ev::CallStarted => Event::CallStarted,
        Ev::CallStored => Event::CallStored,
        Ev::Sent => Event::Sent,
        Ev::CallFailed => Event::CallFailed(reason()),
        Ev::CallLost => Event::CallLost(reason()),
        Ev::Represented => Event::Represented { request: RequestHash([0; 32]) },
        Ev::AttemptStarted(n) => Event::AttemptStarted { attempt: attempt(n), tx: tx(n) },
        Ev::AttemptReplaced(dropped, n) => {
            Event::AttemptReplaced { dropped: attempt(dropped), attempt: attempt(n), tx: tx(n) }
        }
        Ev::AttemptDropped(n) => Event::AttemptDropped { attempt: attempt(n) },
        Ev::Included { hand, deep, fee } => Event::Included { proof: proof(hand, fee), deep },
        Ev::Reverted => Event::Reverted { reason: reason(), tx: None },
        Ev::Unclear => Event::Unclear { tx: None },
        Ev::Reorged => Event::Reorged,
        Ev::Dead => Event::Dead(reason()),
        Ev::RefundStarted => Event::RefundStarted { refund, tx: tx(9) },
        Ev::RefundIncluded(hand) => Event::RefundIncluded { proof: proof(hand, hand == Hand::Ours(9)) },
        Ev::RefundReplaced => Event::RefundReplaced { tx: tx(9) },
        Ev::RefundDropped => Event::RefundDropped,
    }
}

fn proof(hand: Hand, fee: bool) -> Proof {
    let tx = match hand {
        Hand::Ours(n) => format!("0x{n:02}"),
        Hand::Other => "0x51".to_owned(),
        Hand::Word => "0x52".to_owned(),
    };
    Proof {
        tx: TxRef::new(tx),
        witness: if hand == Hand::Word { Witness::Facilitator } else { Witness::Chain },
        block: 1,
        block_hash: [1; 32],
        log_index: 0,
        fee: fee.then(|| Money::new(native(), FEE)),
    }
}

fn token() -> AssetId {
    AssetId::new(Network::eip155(84532), Address::from_evm_bytes([3; 20]))
}

fn native() -> AssetId {
    AssetId::new(Network::eip155(84532), Address::from_evm_bytes([0xee; 20]))
}
