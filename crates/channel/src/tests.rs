use std::collections::BTreeMap;
use std::time::Duration;

use farthing_ledger::{Account, AccountKind, Ledger, Phase};
use farthing_payment::{Fault, Instruction, Proof, Reason, TxRef, Witness};
use farthing_primitives::{
    Address, AssetId, AttemptId, Money, Network, PaymentId, RequestHash, TenantId, Timestamp,
};

use crate::*;

mod laws;
mod model;
mod payee_tests;
mod payer_tests;
mod records;

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const GRACE: Duration = Duration::from_secs(900);

/// Takes any signature that says so.
struct Willing;

impl Verifier for Willing {
    fn verify(&self, _: &Terms, shown: &Shown<'_>) -> Result<Vec<u8>, BadSignature> {
        match shown.signature {
            b"good" => Ok(b"good".to_vec()),
            b"other" => Err(BadSignature::OtherSigner),
            _ => Err(BadSignature::Malformed),
        }
    }
}

fn after(secs: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(secs))
}

fn address(byte: u8) -> Address {
    Address::from_evm_bytes([byte; 20])
}

fn terms(capture: Capture) -> Terms {
    Terms {
        id: ChannelId([7; 32]),
        payer: address(1),
        payee: address(2),
        signer: address(1),
        asset: AssetId::new(Network::eip155(84532), address(3)),
        escrow: address(4),
        grace: GRACE,
        capture,
        instruction: Instruction::new(vec![1, 2, 3]),
    }
}

fn limits() -> Limits {
    Limits {
        credit: 0,
        most_unsettled: None,
        min_deposit: 1,
        margin: Duration::from_secs(300),
        most_in_flight: 4,
        drain: Duration::from_secs(30),
        idle: None,
    }
}

fn voucher(cumulative: u128) -> VerifiedVoucher {
    voucher_by(0, cumulative)
}

/// One that answers a challenge of such a least step.
fn voucher_by(min_delta: u128, cumulative: u128) -> VerifiedVoucher {
    let terms = terms(Capture::Signed);
    let shown = Shown { channel: terms.id, cumulative, signature: b"good", min_delta };
    VerifiedVoucher::check(&shown, &terms, &Willing).expect("willing")
}

fn view(deposit: u128, settled: u128) -> View {
    View { block: 10, deposit, settled, close_requested: None, finalized: false }
}

fn deep(view: View) -> PayeeEvent {
    PayeeEvent::Seen { view: Some(view), deep: true }
}

fn head(view: View) -> PayeeEvent {
    PayeeEvent::Seen { view: Some(view), deep: false }
}

fn payment(n: u8) -> PaymentId {
    PaymentId::new(NOW, [n; 10])
}

fn attempt(n: u8) -> AttemptId {
    AttemptId::new(NOW, [n; 10])
}

fn request(n: u8) -> RequestHash {
    RequestHash([n; 32])
}

fn reason() -> Reason {
    Reason::new("sample", Fault::Chain)
}

fn proof(fee: Option<u128>) -> Proof {
    let native = AssetId::new(Network::eip155(84532), address(0xee));
    Proof {
        tx: TxRef::new("0x01"),
        witness: Witness::Chain,
        block: 10,
        block_hash: [1; 32],
        log_index: 0,
        fee: fee.map(|atoms| Money::new(native, atoms)),
    }
}

fn call(n: u8, price: Price, most_units: u64) -> PayeeEvent {
    let proven = voucher(0).proven();
    let (id, request) = (payment(n), request(n));
    PayeeEvent::Started(NewCharge { id, request, price, most_units: Some(most_units), proven })
}

fn stream(n: u8, price: Price) -> PayeeEvent {
    let proven = voucher(0).proven();
    PayeeEvent::Started(NewCharge { id: payment(n), request: request(n), price, most_units: None, proven })
}

fn each(atoms: u128) -> Price {
    Price::each(atoms, Unit::Token)
}

/// A payee, its books and its rows: what a store keeps.
#[derive(Debug, Clone)]
struct Shop {
    payee: Payee,
    books: Ledger,
    rows: BTreeMap<PaymentId, Charge>,
}

impl Shop {
    fn new(capture: Capture, limits: Limits) -> Self {
        let new = NewPayee { book: payment(200), tenant: TenantId::local(), terms: terms(capture), limits };
        let payee = Payee::begin(new, Some(&voucher(0)), NOW).expect("begins");
        Self { payee, books: Ledger::default(), rows: BTreeMap::new() }
    }

    fn open(deposit: u128, limits: Limits) -> Self {
        let mut shop = Self::new(Capture::Signed, limits);
        shop.on(deep(view(deposit, 0)));
        shop
    }

    fn try_at(&mut self, event: PayeeEvent, now: Timestamp) -> Result<bool, PayeeError> {
        let step = self.payee.step(event, now)?;
        assert_eq!(step.expected, self.payee.version());
        self.books.apply(&step.entries).expect("the entries fit the books");
        self.books.check().expect("the books balance");
        for charge in &step.charges {
            self.rows.insert(charge.id, charge.clone());
        }
        let changed = !step.is_empty();
        // What is stored is what goes on.
        self.payee = record::decode_payee(&record::encode_payee(&step.next)).expect("a record");
        assert_eq!(self.payee, step.next);
        self.lawful();
        Ok(changed)
    }

    fn try_on(&mut self, event: PayeeEvent) -> Result<bool, PayeeError> {
        self.try_at(event, NOW)
    }

    fn on(&mut self, event: PayeeEvent) -> bool {
        let name = event.name();
        self.try_on(event).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Asks for something that is refused, and sees that nothing changed by it.
    fn refused(&mut self, event: PayeeEvent) -> Refusal {
        let before = self.payee.clone();
        match self.try_on(event) {
            Err(PayeeError::Refused(refusal)) => {
                assert_eq!(self.payee, before);
                refusal
            }
            other => panic!("not refused: {other:?}"),
        }
    }

    fn net(&self, kind: AccountKind) -> i128 {
        let account = Account { tenant: TenantId::local(), kind, asset: self.payee.terms().asset.clone() };
        let balance = self.books.balance(&account);
        i128::try_from(balance.debits_posted).expect("small")
            - i128::try_from(balance.credits_posted).expect("small")
    }

    /// What holds after every step.
    fn lawful(&self) {
        let payee = &self.payee;
        let charged: u128 = self.rows.values().map(|row| row.atoms).sum();
        assert_eq!(charged, payee.spent(), "the charges are what was spent");
        let running: Vec<_> = self.rows.values().filter(|r| r.state == ChargeState::Running).collect();
        assert_eq!(running, payee.running().collect::<Vec<_>>(), "the rows know what is running");
        let signed = |atoms: u128| i128::try_from(atoms).expect("small");
        let in_streams: u128 = running.iter().map(|row| row.atoms).sum();
        assert_eq!(-self.net(AccountKind::Revenue), signed(payee.spent() - in_streams), "revenue");
        assert_eq!(self.net(AccountKind::Treasury), signed(payee.settled()), "treasury");
        let finalized = *payee.state() == PayeeState::Finalized;
        let escrow = if finalized { 0 } else { signed(payee.deposit() - payee.settled()) };
        assert_eq!(self.net(AccountKind::Escrow), escrow, "escrow");
        assert!(payee.settled() <= payee.deposit());
        for now in [NOW, after(100_000)] {
            let rests = matches!(payee.next(now), PayeeNext::Rest { .. });
            assert!(!rests || payee.attempts().next().is_none(), "what was sent is followed");
        }
        if finalized {
            let pends = self.books.transfers().any(|(_, _, _, phase)| phase == Phase::Pending);
            assert!(!pends, "nothing pends once it is closed");
            let owed_back = signed(payee.owed_back());
            assert_eq!(self.net(AccountKind::Receivable), -owed_back, "nothing is owed to us");
        }
    }

    fn take(&mut self, n: u8, action: Taking) {
        self.on(PayeeEvent::Attempted { attempt: attempt(n), action: PayeeAction::Take(action) });
    }

    fn worked(&mut self, n: u8, view: View) {
        self.on(PayeeEvent::Worked { attempt: attempt(n), proof: proof(Some(21)), view });
    }
}
