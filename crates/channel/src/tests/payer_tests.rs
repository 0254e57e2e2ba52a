use super::*;

fn budget() -> Budget {
    Budget {
        most_deposit: 1000,
        most_price: each(100),
        ahead: 100,
        trust: 50,
        patience: Duration::from_secs(60),
        slack: Duration::from_secs(60),
    }
}

#[derive(Debug, Clone)]
struct Buyer(Payer);

impl Buyer {
    fn new(deposit: u128) -> Self {
        Self(
            Payer::open(terms(Capture::Signed), budget(), attempt(1), deposit, NOW)
                .expect("within the budget"),
        )
    }

    fn open(deposit: u128) -> Self {
        let mut buyer = Self::new(deposit);
        buyer.on(seen(view(deposit, 0)));
        buyer
    }

    fn try_on(&mut self, event: PayerEvent) -> Result<bool, PayerError> {
        let step = self.0.step(event, NOW)?;
        let changed = !step.is_empty();
        self.0 = record::decode_payer(&record::encode_payer(&step.next)).expect("a record");
        assert_eq!(self.0, step.next);
        assert!(self.0.most_lost() <= self.0.most_taken().max(self.0.settled()));
        Ok(changed)
    }

    fn on(&mut self, event: PayerEvent) -> bool {
        let name = event.name();
        self.try_on(event).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn refused(&mut self, event: PayerEvent) -> PayerError {
        let before = self.0.clone();
        let error = self.try_on(event).expect_err("refused");
        assert_eq!(self.0, before);
        error
    }

    fn next(&self) -> PayerNext {
        self.0.next(NOW)
    }

    fn got(&mut self, units: u64) {
        self.on(PayerEvent::Received { price: each(10), units });
    }
}

fn seen(view: View) -> PayerEvent {
    PayerEvent::Seen { view: Some(view), deep: true }
}

fn noticed(view: View) -> PayerEvent {
    PayerEvent::Seen { view: Some(view), deep: false }
}

fn need(required: u128) -> Need {
    Need { required, accepted: 0, deposit: 0, spent: None }
}

fn receipt(accepted: u128, spent: u128) -> Receipt {
    Receipt { accepted, spent, units: 0, deposit: 0, settled: 0 }
}

#[test]
fn no_voucher_is_raised_on_an_unconfirmed_open() {
    let over = Payer::open(terms(Capture::Signed), budget(), attempt(1), 1001, NOW);
    assert_eq!(over, Err(PayerError::OverBudget { most: 1000 }));
    let mut buyer = Buyer::new(500);
    assert_eq!(buyer.next(), PayerNext::Watch { attempt: attempt(1) });
    assert_eq!((buyer.0.locked(), buyer.0.most_lost()), (500, 0));
    assert_eq!(buyer.refused(PayerEvent::Raised { to: 1 }), PayerError::NotConfirmed);
    buyer.on(noticed(view(500, 0)));
    assert_eq!(buyer.refused(PayerEvent::Raised { to: 1 }), PayerError::NotConfirmed);
    buyer.on(seen(view(500, 0)));
    buyer.on(PayerEvent::Raised { to: 1 });
    // Its block goes away.
    buyer.on(PayerEvent::Seen { view: None, deep: false });
    assert_eq!(buyer.refused(PayerEvent::Raised { to: 2 }), PayerError::NotConfirmed);
}

#[test]
fn vouchers_are_bounded_by_deposit_and_by_what_arrived() {
    let mut buyer = Buyer::open(500);
    assert_eq!(buyer.0.answer(&need(100)), Ok(100));
    assert_eq!(buyer.0.answer(&need(101)), Err(PayerError::TooFarAhead { most: 100 }));
    buyer.on(PayerEvent::Raised { to: 100 });
    assert!(!buyer.on(PayerEvent::Raised { to: 100 }), "what was signed may be sent again");
    assert_eq!((buyer.0.most_taken(), buyer.0.most_lost()), (100, 100));
    buyer.got(10);
    assert_eq!(buyer.0.most_lost(), 0);
    assert_eq!(buyer.0.answer(&need(200)), Ok(200));
    assert_eq!(buyer.0.answer(&need(50)), Ok(100), "never below the mark");
    let dear = PayerEvent::Received { price: each(101), units: 1 };
    assert_eq!(buyer.refused(dear), PayerError::TooDear);
    buyer.got(45);
    assert_eq!(buyer.0.answer(&need(501)), Err(PayerError::AboveDeposit(1)));
    assert_eq!(buyer.refused(PayerEvent::Raised { to: 501 }), PayerError::AboveDeposit(1));
}

#[test]
fn an_overclaim_is_noticed_and_nothing_more_is_signed() {
    let cases = [
        (receipt(201, 100), Overclaim::Accepted { said: 201, signed: 200 }),
        (receipt(200, 201), Overclaim::Spent { said: 201, ours: 100 }),
    ];
    for (receipt, overclaim) in cases {
        let mut buyer = Buyer::open(500);
        buyer.got(10);
        buyer.on(PayerEvent::Raised { to: 200 });
        buyer.on(PayerEvent::Told(receipt));
        assert_eq!(buyer.0.overclaim(), Some(overclaim));
        assert_eq!(buyer.refused(PayerEvent::Raised { to: 201 }), PayerError::Disputed(overclaim));
        assert_eq!(buyer.next(), PayerNext::BeginLeave);
        assert_eq!(buyer.0.closing_amount(), 100, "what we count ourselves");
        buyer.on(PayerEvent::Forgiven);
        assert_eq!(buyer.next(), PayerNext::Rest { wake: None });
    }
    let mut buyer = Buyer::open(500);
    buyer.on(PayerEvent::Raised { to: 100 });
    buyer.on(seen(view(500, 101)));
    assert_eq!(buyer.0.overclaim(), Some(Overclaim::Taken { settled: 101, signed: 100 }));
}

#[test]
fn an_honest_payee_may_be_a_little_ahead() {
    let mut buyer = Buyer::open(500);
    buyer.got(10);
    buyer.on(PayerEvent::Raised { to: 200 });
    buyer.on(PayerEvent::Told(receipt(200, 150)));
    buyer.on(PayerEvent::Told(receipt(100, 90)));
    assert_eq!((buyer.0.overclaim(), buyer.0.closing_amount()), (None, 150));
}

#[test]
fn leaving_asks_the_payee_then_the_escrow_then_withdraws() {
    let mut buyer = Buyer::open(500);
    buyer.on(PayerEvent::Raised { to: 100 });
    buyer.got(3);
    buyer.on(PayerEvent::LeaveDecided);
    assert_eq!(buyer.next(), PayerNext::AskClose { amount: 30 });
    buyer.on(PayerEvent::CloseAsked);
    assert_eq!(buyer.next(), PayerNext::Rest { wake: Some(after(60)) });
    assert_eq!(buyer.0.next(after(60)), PayerNext::RequestClose);
    buyer.on(PayerEvent::Intended { attempt: attempt(2), action: PayerAction::RequestClose });
    assert_eq!(buyer.0.next(after(60)), PayerNext::Watch { attempt: attempt(2) });
    let asked = View { block: 20, close_requested: Some(after(61)), ..view(500, 0) };
    buyer.on(noticed(asked));
    // The block goes away, and the escrow is asked again.
    buyer.on(noticed(View { block: 21, close_requested: None, ..asked }));
    buyer.on(PayerEvent::Failed { attempt: attempt(2), reason: reason() });
    assert_eq!(buyer.0.next(after(62)), PayerNext::RequestClose);
    buyer.on(PayerEvent::Intended { attempt: attempt(3), action: PayerAction::RequestClose });
    buyer.on(seen(asked));
    // 900 of grace and 60 of slack.
    assert_eq!(buyer.0.next(after(62)), PayerNext::Rest { wake: Some(after(1021)) });
    assert_eq!(buyer.0.next(after(1021)), PayerNext::Withdraw);
    buyer.on(PayerEvent::Intended { attempt: attempt(4), action: PayerAction::Withdraw });
    buyer.on(noticed(View { block: 40, finalized: true, ..asked }));
    buyer.on(seen(View { block: 40, finalized: true, ..asked }));
    assert_eq!((buyer.0.state(), buyer.0.locked()), (&PayerState::Finalized, 0));
    assert_eq!(buyer.next(), PayerNext::Rest { wake: None });
    assert!(!buyer.on(seen(view(900, 0))), "finalized is sticky");
}

#[test]
fn a_payee_that_closes_ends_the_leaving() {
    let mut buyer = Buyer::open(500);
    buyer.on(PayerEvent::Raised { to: 100 });
    buyer.got(3);
    buyer.on(PayerEvent::LeaveDecided);
    buyer.on(PayerEvent::CloseAsked);
    buyer.on(noticed(View { block: 11, finalized: true, ..view(500, 100) }));
    assert_eq!(buyer.0.next(after(1000)), PayerNext::Look);
    buyer.on(seen(View { block: 11, finalized: true, ..view(500, 100) }));
    assert_eq!(buyer.0.most_lost(), 70, "it took what was signed ahead");
}

#[test]
fn a_top_up_is_meant_before_it_is_sent_and_takes_a_forced_close_back() {
    let mut buyer = Buyer::open(500);
    let top_up = |amount| PayerEvent::Intended {
        attempt: attempt(2),
        action: PayerAction::TopUp { amount, reaches: 0 },
    };
    assert_eq!(buyer.refused(top_up(501)), PayerError::OverBudget { most: 1000 });
    assert_eq!(buyer.refused(top_up(u128::MAX)), PayerError::OverBudget { most: 1000 });
    let asked = View { block: 20, close_requested: Some(NOW), ..view(500, 0) };
    buyer.on(noticed(asked));
    assert_eq!(buyer.next(), PayerNext::Rest { wake: Some(after(960)) });
    buyer.on(top_up(500));
    assert_eq!((buyer.next(), buyer.0.locked()), (PayerNext::Watch { attempt: attempt(2) }, 1000));
    let second = PayerEvent::Intended { attempt: attempt(3), action: PayerAction::Withdraw };
    assert_eq!(buyer.refused(second), PayerError::Pending(attempt(2)));
    buyer.on(noticed(View { block: 21, ..view(1000, 0) }));
    assert_eq!(buyer.0.deposit(), 500, "not deep yet");
    buyer.on(seen(View { block: 21, ..view(1000, 0) }));
    assert_eq!((buyer.0.state(), buyer.0.deposit(), buyer.0.pending()), (&PayerState::Open, 1000, None));
}

#[test]
fn a_lost_record_is_made_anew_from_the_chain_and_a_voucher_of_ours() {
    let recover = |told: Option<Receipt>, shown: Option<u128>| {
        let shown = shown.map(voucher);
        Payer::recover(terms(Capture::Signed), budget(), &view(500, 100), told.as_ref(), shown.as_ref(), NOW)
            .expect("a sound view")
    };
    // A voucher of ours proves what the payee holds at least.
    let proven = recover(Some(receipt(300, 280)), Some(300));
    assert_eq!((proven.state(), proven.signed()), (&PayerState::Open, 300));
    assert_eq!(proven.most_taken(), 500, "it may hold more than anybody tells us");
    assert_eq!(proven.answer(&need(290)), Ok(300), "never below what it holds");
    // A bare word is believed a little.
    assert_eq!(recover(Some(receipt(150, 150)), None).state(), &PayerState::Open);
    let doubted = recover(Some(receipt(151, 150)), None);
    assert_eq!(doubted.next(NOW), PayerNext::AskClose { amount: 100 });
    assert_eq!(doubted.signed(), 100);
    let silent = recover(None, None);
    assert!(matches!(silent.state(), PayerState::Leaving { .. }));
    // A word above its own proof is not believed for the difference.
    let boast = recover(Some(receipt(400, 400)), Some(300));
    assert!(matches!(boast.state(), PayerState::Leaving { .. }));
    assert_eq!(boast.signed(), 300);
}

#[test]
fn what_was_lost_while_a_forced_close_ran_is_found() {
    let asked = View { close_requested: Some(NOW), ..view(500, 100) };
    let payer =
        Payer::recover(terms(Capture::Signed), budget(), &asked, None, None, NOW).expect("a sound view");
    assert_eq!(payer.next(after(960)), PayerNext::Withdraw);
}
