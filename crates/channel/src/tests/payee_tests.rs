use super::*;

#[test]
fn a_call_is_set_aside_served_and_collected() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(300)));
    assert!(shop.on(call(1, each(100), 3)));
    assert_eq!(shop.payee.spent(), 0);
    assert!(shop.on(PayeeEvent::Served { charge: payment(1), units: 3 }));
    assert_eq!((shop.payee.spent(), shop.payee.units()), (300, 3));
    assert_eq!(shop.net(AccountKind::Receivable), 300);
    shop.on(PayeeEvent::CloseAsked(voucher(300)));
    let PayeeNext::Close { claim, by: None } = shop.payee.next(NOW) else { panic!("not closing") };
    assert_eq!(claim.amount, 300);
    shop.take(1, Taking::Close(claim));
    assert_eq!(shop.payee.next(NOW), PayeeNext::Watch { attempt: attempt(1) });
    shop.worked(1, View { finalized: true, ..view(1000, 300) });
    assert_eq!(shop.payee.state(), &PayeeState::Finalized);
    assert_eq!(shop.net(AccountKind::Treasury), 300);
    assert_eq!(shop.net(AccountKind::Loss), 0);
    assert_eq!(shop.payee.next(NOW), PayeeNext::Rest { wake: None });
    // Finalized is sticky, whatever a node says.
    assert!(!shop.on(deep(view(5000, 300))));
    assert!(!shop.on(head(View { close_requested: Some(NOW), ..view(5000, 300) })));
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(400))), Refusal::Finalized);
}

#[test]
fn nothing_is_served_before_the_deposit_is_deep() {
    let mut shop = Shop::new(Capture::Signed, limits());
    assert_eq!(shop.payee.next(NOW), PayeeNext::WatchOpen);
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(1))), Refusal::NotConfirmed);
    assert_eq!(shop.refused(call(1, each(0), 1)), Refusal::NotConfirmed);
    assert!(!shop.on(head(view(1000, 0))), "a deposit that is not deep gives nothing");
    assert_eq!(shop.refused(call(1, each(0), 1)), Refusal::NotConfirmed);
    shop.on(deep(view(1000, 0)));
    shop.on(call(1, each(0), 1));
    // Its block goes away: no service until it is back.
    shop.on(PayeeEvent::Seen { view: None, deep: false });
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(1))), Refusal::NotConfirmed);
    assert!(shop.try_on(PayeeEvent::OpenFailed(reason())).is_err(), "a deep deposit does not fail");
    shop.on(deep(view(1000, 0)));
    assert_eq!(shop.payee.state(), &PayeeState::Open);
}

#[test]
fn an_open_that_reverts_is_void_until_the_chain_says_otherwise() {
    let mut shop = Shop::new(Capture::Signed, limits());
    let action = PayeeAction::Fund(Funding::Open);
    shop.on(PayeeEvent::Attempted { attempt: attempt(1), action });
    assert_eq!(shop.payee.next(NOW), PayeeNext::Watch { attempt: attempt(1) });
    shop.on(PayeeEvent::Failed { attempt: attempt(1), reason: reason(), fee: None });
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(1))), Refusal::NotFound);
    assert_eq!(shop.payee.next(NOW), PayeeNext::Rest { wake: None });
    shop.on(deep(view(1000, 0)));
    assert_eq!(shop.payee.state(), &PayeeState::Open);
}

#[test]
fn a_voucher_beyond_the_deposit_that_came_with_the_open_is_dropped() {
    let terms = terms(Capture::Signed);
    let new = NewPayee { book: payment(200), tenant: TenantId::local(), terms, limits: limits() };
    let payee = Payee::begin(new, Some(&voucher(2000)), NOW).expect("begins");
    let open = payee.step(deep(view(1000, 0)), NOW).expect("opens").next;
    assert_eq!(open.accepted(), 0);
}

#[test]
fn too_small_a_deposit_waits_for_a_top_up() {
    let mut shop = Shop::new(Capture::Signed, Limits { min_deposit: 100, ..limits() });
    shop.on(deep(view(99, 0)));
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(1))), Refusal::NotConfirmed);
    shop.on(deep(view(100, 0)));
    assert_eq!(shop.payee.state(), &PayeeState::Open);
}

#[test]
fn an_escrow_with_too_short_a_grace_period_is_not_trusted() {
    let begin = |grace, margin| {
        let terms = Terms { grace: Duration::from_secs(grace), ..terms(Capture::Signed) };
        let limits = Limits { margin: Duration::from_secs(margin), ..limits() };
        Payee::begin(NewPayee { book: payment(1), tenant: TenantId::local(), terms, limits }, None, NOW)
    };
    assert!(matches!(begin(599, 60), Err(BeginError::GraceTooShort { .. })));
    assert!(begin(600, 60).is_ok());
    assert!(matches!(begin(600, 600), Err(BeginError::GraceTooShort { .. })), "no time is left to look");
}

#[test]
fn vouchers_only_rise_and_stay_within_the_deposit() {
    let mut shop = Shop::open(1000, limits());
    let voucher = |cumulative| voucher_by(100, cumulative);
    assert!(shop.on(PayeeEvent::Voucher(voucher(300))));
    assert!(!shop.on(PayeeEvent::Voucher(voucher(300))), "the same again changes nothing");
    let cases = [
        (299, Refusal::Decreasing { accepted: 300 }, Problem::DeltaTooSmall),
        (0, Refusal::Decreasing { accepted: 300 }, Problem::DeltaTooSmall),
        (399, Refusal::DeltaTooSmall { accepted: 300, least: 100 }, Problem::DeltaTooSmall),
        (1001, Refusal::ExceedsDeposit { deposit: 1000 }, Problem::AmountExceedsDeposit),
        (u128::MAX, Refusal::ExceedsDeposit { deposit: 1000 }, Problem::AmountExceedsDeposit),
    ];
    for (cumulative, expected, problem) in cases {
        let refusal = shop.refused(PayeeEvent::Voucher(voucher(cumulative)));
        assert_eq!((refusal.problem(), &refusal), (Some(problem), &expected));
    }
    assert!(shop.on(PayeeEvent::Voucher(voucher(950))));
    assert!(shop.on(PayeeEvent::Voucher(voucher(1000))), "the last that there is may be less");
}

#[test]
fn what_was_asked_for_is_accepted_however_little_it_adds() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(10)));
    shop.on(stream(1, each(5)));
    shop.on(PayeeEvent::Metered { charge: payment(1), units: 2 });
    let refusal = shop.refused(PayeeEvent::Metered { charge: payment(1), units: 1 });
    let need = Need { required: 15, accepted: 10, deposit: 1000, spent: Some(10) };
    assert_eq!(refusal, Refusal::NeedsVoucher(need));
    assert_eq!(refusal.problem(), Some(Problem::InsufficientBalance));
    assert!(shop.on(PayeeEvent::Paused { charge: payment(1), units: 1 }));
    assert!(!shop.on(PayeeEvent::Paused { charge: payment(1), units: 1 }), "told once");
    let refusal = shop.refused(PayeeEvent::Voucher(voucher_by(50, 14)));
    assert_eq!(refusal, Refusal::DeltaTooSmall { accepted: 10, least: 50 });
    shop.on(PayeeEvent::Voucher(voucher_by(50, 15)));
}

#[test]
fn what_is_asked_for_by_steps_would_be_accepted() {
    let need = Need { required: 15, accepted: 10, deposit: 100, spent: Some(10) };
    for (min_delta, required) in [(0, 15), (5, 15), (50, 60), (90, 100), (91, 100), (u128::MAX, 100)] {
        assert_eq!(need.by_steps(min_delta), Need { required, ..need }, "{min_delta}");
        let mut shop = Shop::open(100, limits());
        shop.on(PayeeEvent::Voucher(voucher(10)));
        assert!(shop.on(PayeeEvent::Voucher(voucher_by(min_delta, required))), "{min_delta}");
    }
    // Beyond the deposit a top-up comes first.
    assert_eq!(Need { required: 120, ..need }.by_steps(50).required, 120);
}

#[test]
fn each_voucher_adds_what_its_own_challenge_asks_for() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher_by(100, 300)));
    // Routes that share a channel ask for steps of their own.
    assert!(shop.on(PayeeEvent::Voucher(voucher_by(1, 301))));
    let refusal = shop.refused(PayeeEvent::Voucher(voucher_by(100, 400)));
    assert_eq!(refusal, Refusal::DeltaTooSmall { accepted: 301, least: 100 });
    assert!(shop.on(PayeeEvent::Voucher(voucher_by(100, 401))));
}

#[test]
fn concurrent_requests_never_share_an_increment() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(250)));
    shop.on(call(1, each(100), 1));
    shop.on(call(2, each(100), 1));
    let need = Need { required: 300, accepted: 250, deposit: 1000, spent: Some(0) };
    assert_eq!(shop.refused(call(3, each(100), 1)), Refusal::NeedsVoucher(need));
    // A stream may use what the calls leave, and no more.
    shop.on(stream(4, each(10)));
    shop.on(PayeeEvent::Metered { charge: payment(4), units: 5 });
    let need = Need { required: 260, accepted: 250, deposit: 1000, spent: Some(50) };
    assert_eq!(
        shop.refused(PayeeEvent::Metered { charge: payment(4), units: 1 }),
        Refusal::NeedsVoucher(need)
    );
    shop.on(PayeeEvent::Lost { charge: payment(1) });
    shop.on(PayeeEvent::Metered { charge: payment(4), units: 10 });
    shop.on(PayeeEvent::Served { charge: payment(2), units: 1 });
    shop.on(PayeeEvent::Served { charge: payment(4), units: 0 });
    assert_eq!(shop.payee.spent(), 250);
    assert_eq!(shop.payee.running().count(), 0);
}

#[test]
fn a_request_is_charged_once_however_often_it_is_asked() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(1000)));
    shop.on(call(1, each(100), 1));
    let again = shop.try_on(call(1, each(100), 1));
    assert_eq!(again, Err(PayeeError::UnderWay(payment(1))));
    assert_eq!(shop.rows[&payment(1)].again(), Again::Wait);
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    assert_eq!(shop.rows[&payment(1)].again(), Again::GiveStored);
    assert_eq!(
        shop.try_on(PayeeEvent::Served { charge: payment(1), units: 1 }),
        Err(PayeeError::Refused(Refusal::StreamEnded))
    );
    // A crash before the answer was durable: nothing is charged, and it may be asked again.
    shop.on(call(2, each(100), 1));
    shop.on(PayeeEvent::Lost { charge: payment(2) });
    assert_eq!(shop.rows[&payment(2)].again(), Again::Start);
    assert_eq!((shop.payee.spent(), shop.rows[&payment(2)].atoms), (100, 0));
}

#[test]
fn a_new_stream_ends_the_one_before() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(100)));
    shop.on(stream(1, each(10)));
    shop.on(PayeeEvent::Metered { charge: payment(1), units: 3 });
    shop.on(stream(2, each(10)));
    assert_eq!((shop.payee.stream(), shop.rows[&payment(1)].state), (Some(payment(2)), ChargeState::Ended));
    assert_eq!(shop.rows[&payment(1)].atoms, 30);
    assert_eq!(shop.refused(PayeeEvent::Metered { charge: payment(1), units: 1 }), Refusal::StreamEnded);
    shop.on(PayeeEvent::Metered { charge: payment(2), units: 7 });
    assert_eq!(shop.payee.spent(), 100);
}

#[test]
fn requests_under_way_are_bounded() {
    let mut shop = Shop::open(1000, Limits { most_in_flight: 2, ..limits() });
    shop.on(PayeeEvent::Voucher(voucher(1000)));
    shop.on(call(1, each(1), 1));
    shop.on(call(2, each(1), 1));
    assert_eq!(shop.refused(call(3, each(1), 1)), Refusal::TooManyInFlight(2));
    let served = shop.try_on(PayeeEvent::Served { charge: payment(1), units: 2 });
    assert_eq!(served, Err(PayeeError::TooManyUnits));
}

#[test]
fn credit_is_lost_at_most() {
    let mut shop = Shop::open(1000, Limits { credit: 30, ..limits() });
    shop.on(stream(1, each(10)));
    shop.on(PayeeEvent::Metered { charge: payment(1), units: 3 });
    assert_eq!(shop.payee.exposure(), 30);
    assert!(matches!(
        shop.refused(PayeeEvent::Metered { charge: payment(1), units: 1 }),
        Refusal::NeedsVoucher(Need { required: 40, .. })
    ));
    shop.on(head(View { close_requested: Some(NOW), ..view(1000, 0) }));
    assert_eq!(shop.payee.closing_claim(), Claim { amount: 0, voucher: None });
    shop.on(deep(View { finalized: true, ..view(1000, 0) }));
    assert_eq!(shop.net(AccountKind::Loss), 30);
}

#[test]
fn a_forced_close_is_answered_in_time() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(stream(1, each(10)));
    shop.on(call(2, each(100), 1));
    shop.on(PayeeEvent::Metered { charge: payment(1), units: 20 });
    let requested = View { block: 20, close_requested: Some(after(10)), ..view(1000, 0) };
    shop.on(head(requested));
    assert_eq!(shop.rows[&payment(1)].state, ChargeState::Ended, "no stream goes on");
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(600))), Refusal::Closing);
    assert_eq!(shop.refused(call(3, each(1), 1)).problem(), Some(Problem::ChannelFinalized));
    // Ten seconds after, and 900 of grace, less the margin of 300.
    let by = after(610);
    assert_eq!(shop.payee.answer_by(), Some(by));
    assert_eq!(shop.payee.next(after(11)), PayeeNext::Drain { until: after(30) });
    assert_eq!(
        shop.payee.next(after(31)),
        PayeeNext::Close { claim: shop.payee.closing_claim(), by: Some(by) },
        "what is under way does not hold it up"
    );
    shop.on(PayeeEvent::Served { charge: payment(2), units: 1 });
    let next = shop.payee.next(after(12));
    let PayeeNext::Close { claim, .. } = next else { panic!("{next:?}") };
    assert_eq!(claim.amount, 500, "an escrow pays out what was signed: the lowest that covers 300");
    // After a restart it is the same; and late is better than never.
    assert!(matches!(shop.payee.next(after(100_000)), PayeeNext::Close { .. }));
    shop.take(1, Taking::Close(claim));
    shop.worked(1, View { finalized: true, block: 30, ..view(1000, 500) });
    assert_eq!(shop.payee.owed_back(), 200);
}

#[test]
fn looks_are_often_enough() {
    // Two looks may fail, and there is still a look before an answer is late.
    let (limits, terms) = (limits(), terms(Capture::Signed));
    let every = limits.look_every(&terms);
    assert_eq!(every, Duration::from_secs(200));
    assert!(every * 3 <= GRACE - limits.margin);
}

#[test]
fn a_forced_close_that_is_taken_back_reopens() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(500)));
    let requested = View { block: 20, close_requested: Some(NOW), ..view(1000, 0) };
    shop.on(head(requested));
    assert!(!shop.on(head(View { block: 19, ..view(1000, 0) })), "an older block says nothing");
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(600))), Refusal::Closing);
    shop.on(deep(View { block: 25, ..view(2000, 0) }));
    assert_eq!(shop.payee.state(), &PayeeState::Open);
    shop.on(PayeeEvent::Voucher(voucher(1500)));
    // Once a close of ours is on its way there is no way back by a top-up.
    shop.on(head(View { block: 30, ..requested }));
    let claim = shop.payee.closing_claim();
    shop.take(1, Taking::Close(claim));
    shop.on(head(View { block: 31, ..view(2000, 0) }));
    assert_eq!(shop.refused(PayeeEvent::Voucher(voucher(1600))), Refusal::Closing);
    shop.on(PayeeEvent::Failed { attempt: attempt(1), reason: reason(), fee: None });
    assert!(matches!(shop.payee.next(after(60)), PayeeNext::Close { .. }), "it is tried again");
}

#[test]
fn a_withdrawal_or_a_close_that_is_reorganized_away_is_not_the_end() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(call(1, each(500), 1));
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    let asked = View { block: 20, close_requested: Some(NOW), ..view(1000, 0) };
    shop.on(head(asked));
    shop.on(head(View { block: 21, finalized: true, close_requested: None, ..asked }));
    assert_eq!(shop.payee.next(after(60)), PayeeNext::Look);
    shop.on(head(View { block: 22, ..asked }));
    assert!(matches!(shop.payee.next(after(60)), PayeeNext::Close { .. }));
    shop.on(deep(View { block: 22, finalized: true, close_requested: None, ..asked }));
    assert_eq!(shop.net(AccountKind::Loss), 500, "what was not answered in time is a loss that shows");
}

#[test]
fn what_is_owed_is_settled_at_the_limit() {
    let mut shop = Shop::open(1000, Limits { most_unsettled: Some(200), ..limits() });
    shop.on(PayeeEvent::Voucher(voucher(250)));
    shop.on(call(1, each(199), 1));
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    assert_eq!(shop.payee.next(NOW), PayeeNext::Rest { wake: None });
    shop.on(call(2, each(1), 1));
    shop.on(PayeeEvent::Served { charge: payment(2), units: 1 });
    let PayeeNext::Settle(claim) = shop.payee.next(NOW) else { panic!("no settlement") };
    assert_eq!(claim.amount, 250);
    shop.take(1, Taking::Settle(claim.clone()));
    assert_eq!(shop.payee.next(NOW), PayeeNext::Watch { attempt: attempt(1) });
    // It is included, and its block goes away; it is not counted before it is deep.
    shop.on(head(View { block: 11, ..view(1000, 250) }));
    assert_eq!(shop.payee.settled(), 0);
    shop.on(PayeeEvent::Failed {
        attempt: attempt(1),
        reason: reason(),
        fee: Some(proof(Some(7)).fee.expect("a fee")),
    });
    assert_eq!(shop.payee.next(NOW), PayeeNext::Settle(claim.clone()), "it is tried again");
    shop.take(2, Taking::Settle(claim));
    shop.worked(2, view(1000, 250));
    assert_eq!((shop.payee.settled(), shop.net(AccountKind::Treasury)), (250, 250));
    assert_eq!(shop.net(AccountKind::Receivable), -50, "fifty were paid ahead");
    assert!(!shop.on(deep(view(1000, 100))), "a node that lags behind tells nothing");
}

#[test]
fn an_idle_channel_is_closed_if_there_is_something_to_collect() {
    let mut shop = Shop::open(1000, Limits { idle: Some(Duration::from_secs(600)), ..limits() });
    assert_eq!(shop.payee.next(after(10_000)), PayeeNext::Rest { wake: None });
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(call(1, each(500), 1));
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    assert_eq!(shop.payee.next(after(599)), PayeeNext::Rest { wake: Some(after(600)) });
    assert_eq!(shop.payee.next(after(600)), PayeeNext::BeginClose);
    shop.on(PayeeEvent::CloseDecided);
    assert!(matches!(shop.payee.next(NOW), PayeeNext::Close { by: None, .. }));
}

#[test]
fn a_fair_close_takes_what_was_spent() {
    let spend = |capture| {
        let mut shop = Shop::new(capture, limits());
        shop.on(deep(view(1000, 0)));
        shop.on(PayeeEvent::Voucher(voucher(900)));
        shop.on(call(1, each(300), 1));
        shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
        shop
    };
    let mut shop = spend(Capture::Signed);
    assert_eq!(shop.payee.closing_claim().amount, 900);
    shop.on(PayeeEvent::CloseAsked(voucher(300)));
    assert_eq!(shop.payee.closing_claim().amount, 300, "the payer signed for what it used");
    let mut shop = spend(Capture::Signed);
    shop.on(PayeeEvent::CloseAsked(voucher(299)));
    assert_eq!(shop.payee.closing_claim().amount, 900, "it does not cover what was served");
    let mut shop = spend(Capture::UpTo);
    shop.on(PayeeEvent::CloseDecided);
    assert_eq!(shop.payee.closing_claim().amount, 300);
    let mut shop = spend(Capture::Signed);
    assert_eq!(
        shop.refused(PayeeEvent::CloseAsked(voucher(1001))),
        Refusal::ExceedsDeposit { deposit: 1000 }
    );
}

#[test]
fn a_close_takes_nothing_where_nothing_is_owed() {
    for capture in [Capture::Signed, Capture::UpTo] {
        let mut shop = Shop::new(capture, limits());
        shop.on(deep(view(1000, 0)));
        shop.on(PayeeEvent::Voucher(voucher(500)));
        assert_eq!(shop.payee.closing_claim(), Claim { amount: 0, voucher: None });
        shop.on(call(1, each(100), 1));
        shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
        assert!(shop.payee.closing_claim().voucher.is_some());
        shop.on(deep(view(1000, 500)));
        assert_eq!(shop.payee.closing_claim(), Claim { amount: 500, voucher: None });
    }
}

#[test]
fn a_close_does_not_serve_what_it_does_not_claim() {
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(call(1, each(100), 1));
    shop.on(PayeeEvent::CloseDecided);
    let claim = shop.payee.closing_claim();
    shop.take(1, Taking::Close(claim));
    assert_eq!(shop.rows[&payment(1)].state, ChargeState::Lost);
    let served = shop.try_on(PayeeEvent::Served { charge: payment(1), units: 1 });
    assert!(served.is_err(), "and is not delivered");
}

#[test]
fn a_close_takes_the_place_of_a_settlement_that_got_stuck() {
    let mut shop = Shop::open(1000, Limits { most_unsettled: Some(1), ..limits() });
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(call(1, each(100), 1));
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    let PayeeNext::Settle(claim) = shop.payee.next(NOW) else { panic!("no settlement") };
    shop.take(1, Taking::Settle(claim));
    shop.on(head(View { block: 20, close_requested: Some(NOW), ..view(1000, 0) }));
    let PayeeNext::Close { claim, .. } = shop.payee.next(NOW) else { panic!("no close") };
    shop.take(2, Taking::Close(claim));
    assert_eq!(shop.payee.next(NOW), PayeeNext::Watch { attempt: attempt(2) });
}

/// What was sent before the payer asked the escrow to close is followed although there is nothing to claim any more: what
/// it cost is booked once it is known what became of it.
#[test]
fn whatever_was_sent_is_followed_where_a_forced_close_finds_nothing_owed() {
    let mut shop = Shop::open(1000, Limits { most_unsettled: Some(1), credit: 50, ..limits() });
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(call(1, each(550), 1));
    shop.on(PayeeEvent::Served { charge: payment(1), units: 1 });
    let PayeeNext::Settle(claim) = shop.payee.next(NOW) else { panic!("no settlement") };
    shop.take(1, Taking::Settle(claim));
    let action = PayeeAction::Fund(Funding::TopUp { amount: 100 });
    shop.on(PayeeEvent::Attempted { attempt: attempt(2), action });
    // By the time that it looks, the escrow has done both; what is left was served on credit.
    shop.on(deep(View { block: 20, close_requested: Some(NOW), ..view(1100, 500) }));
    assert_eq!(shop.payee.closing_claim(), Claim { amount: 500, voucher: None });
    assert_eq!(shop.payee.next(after(60)), PayeeNext::Watch { attempt: attempt(1) });
    let asked = View { block: 21, close_requested: Some(NOW), ..view(1100, 500) };
    shop.worked(1, asked);
    assert_eq!(shop.payee.next(after(60)), PayeeNext::Watch { attempt: attempt(2) });
    shop.worked(2, asked);
    assert_eq!(shop.payee.next(after(60)), PayeeNext::Rest { wake: Some(after(900)) });
    assert_eq!(shop.payee.next(after(900)), PayeeNext::Rest { wake: None });
}

#[test]
fn a_fraction_of_an_atom_is_carried_from_request_to_request() {
    let third = Price::new(1, 3.try_into().expect("not zero"), Unit::Request);
    let mut shop = Shop::open(1000, limits());
    shop.on(PayeeEvent::Voucher(voucher(3)));
    for n in 1..=9 {
        shop.on(call(n, third.clone(), 1));
        shop.on(PayeeEvent::Served { charge: payment(n), units: 1 });
    }
    assert_eq!(shop.payee.spent_exactly(), Exact::atoms(3));
    // Less than another atom costs nothing yet.
    shop.on(call(10, third.clone(), 2));
    shop.on(PayeeEvent::Served { charge: payment(10), units: 2 });
    assert!(matches!(shop.refused(call(11, third, 1)), Refusal::NeedsVoucher(Need { required: 4, .. })));
}

#[test]
fn no_amount_is_told_without_a_proof() {
    let shop = Shop::open(1000, limits());
    let terms = shop.payee.terms();
    let check = |signature, channel| {
        let shown = Shown { channel, cumulative: 500, signature, min_delta: 0 };
        VerifiedVoucher::check(&shown, terms, &Willing).map_err(|bad| (bad, bad.problem()))
    };
    let bad = [
        (check(b"bad", terms.id), BadSignature::Malformed, Problem::InvalidSignature),
        (check(b"other", terms.id), BadSignature::OtherSigner, Problem::SignerMismatch),
        (check(b"good", ChannelId([8; 32])), BadSignature::OtherChannel, Problem::ChannelNotFound),
        (check(&[0; MAX_SIGNATURE_LEN + 1], terms.id), BadSignature::Malformed, Problem::InvalidSignature),
    ];
    for (found, expected, problem) in bad {
        assert_eq!(found, Err((expected, problem)));
        assert!(!expected.to_string().bytes().any(|b| b.is_ascii_digit()), "{expected}");
    }
    let other = Terms { id: ChannelId([8; 32]), ..terms.clone() };
    let stranger = Proven::check(&other, |_| Ok(())).expect("proves the other");
    assert_eq!(shop.payee.receipt(&stranger), Err(BadSignature::OtherChannel));
    let rekeyed =
        Proven::check(&Terms { signer: address(9), ..terms.clone() }, |_| Ok(())).expect("another key");
    assert!(shop.payee.receipt(&rekeyed).is_err());
    let receipt = shop.payee.receipt(&voucher(0).proven()).expect("its payer");
    assert_eq!(receipt, Receipt { accepted: 0, spent: 0, units: 0, deposit: 1000, settled: 0 });
}

#[test]
fn events_of_other_channels_change_nothing() {
    let mut shop = Shop::open(1000, limits());
    let other = Terms { id: ChannelId([8; 32]), ..terms(Capture::Signed) };
    let shown = Shown { channel: other.id, cumulative: 5, signature: b"good", min_delta: 0 };
    let foreign = VerifiedVoucher::check(&shown, &other, &Willing).expect("of the other");
    let proven = foreign.proven();
    let start = NewCharge { id: payment(1), request: request(1), price: each(0), most_units: None, proven };
    for event in
        [PayeeEvent::Voucher(foreign.clone()), PayeeEvent::CloseAsked(foreign), PayeeEvent::Started(start)]
    {
        assert_eq!(shop.try_on(event), Err(PayeeError::OtherChannel));
    }
    let unsound = deep(view(10, 11));
    assert_eq!(shop.try_on(unsound), Err(PayeeError::Unsound));
}

#[test]
fn a_price_that_overflows_is_an_error_and_changes_nothing() {
    let most = u128::MAX / 2;
    let mut shop = Shop::open(most, limits());
    shop.on(PayeeEvent::Voucher(voucher(most)));
    let before = shop.payee.clone();
    let huge = shop.try_on(call(1, each(u128::MAX), 2));
    assert_eq!(huge, Err(PayeeError::Meter(MeterError::Overflow)));
    assert_eq!(shop.payee, before);
}

#[test]
fn a_worn_channel_is_closed() {
    let mut shop = Shop::open(1000, limits());
    shop.payee.round = Payee::MOST_ROUNDS;
    assert_eq!(shop.payee.next(NOW), PayeeNext::BeginClose);
}
