use farthing_ledger::{Account, AccountKind, Ledger};
use farthing_primitives::{AttemptId, RequestHash, TenantId, Timestamp};
use proptest::prelude::*;

use crate::transitions::{events, sample};
use crate::*;

const NOW: Timestamp = Timestamp::from_secs(2);

fn reason() -> Reason {
    Reason::new("sample", Fault::Chain)
}

fn event(name: &str) -> Event {
    events().into_iter().find(|event| event.name() == name).expect("an event of this name")
}

/// Walks the events and returns the payment with its books.
fn walk(role: Role, flow: Flow, names: &[&str]) -> (Payment, Ledger) {
    let (mut payment, entries) = Payment::claim(sample(role, flow), Timestamp::from_secs(1));
    let mut ledger = Ledger::default();
    ledger.apply(&entries).expect("applies");
    for name in names {
        let step = payment.step(event(name), NOW).unwrap_or_else(|error| panic!("{name}: {error}"));
        ledger.apply(&step.entries).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(ledger.check(), Ok(()), "{name}");
        payment = step.next;
    }
    (payment, ledger)
}

fn net(ledger: &Ledger, kind: AccountKind) -> i128 {
    let money = sample(Role::Seller, Flow::Authorization).terms.money;
    let account = Account { tenant: TenantId::local(), kind, asset: money.asset().clone() };
    let balance = ledger.balance(&account);
    i128::try_from(balance.debits_posted).expect("small")
        - i128::try_from(balance.credits_posted).expect("small")
}

#[test]
fn the_authorization_flow_serves_then_settles() {
    let names =
        ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep", "sent"];
    let (payment, ledger) = walk(Role::Seller, Flow::Authorization, &names);
    assert_eq!(
        (payment.state.name(), payment.delivery, payment.next()),
        ("settled", Delivery::Sent, Next::Rest)
    );
    assert_eq!(net(&ledger, AccountKind::Treasury), 1000);
    assert_eq!(net(&ledger, AccountKind::Revenue), -1000);
    assert_eq!(net(&ledger, AccountKind::Receivable), 0);
}

#[test]
fn what_to_do_after_a_restart_in_each_state() {
    let check = |flow, names: &[&str], expected: Next| {
        assert_eq!(walk(Role::Seller, flow, names).0.next(), expected, "{flow:?} {names:?}");
    };
    use Flow::{Authorization as A, Background as B, Upfront as U};
    check(A, &[], Next::CheckFunds);
    check(A, &["funds_confirmed"], Next::CallUpstream);
    check(A, &["funds_confirmed", "call_started"], Next::AwaitUpstream);
    check(A, &["funds_confirmed", "call_started", "call_stored"], Next::Settle);
    check(A, &["funds_confirmed", "call_started", "call_stored", "attempt_started"], Next::Watch);
    check(A, &["funds_confirmed", "call_started", "call_stored", "attempt_started", "unclear"], Next::Watch);
    check(
        A,
        &["funds_confirmed", "call_started", "call_stored", "attempt_started", "included"],
        Next::Confirm,
    );
    check(A, &["funds_confirmed", "call_started", "call_failed"], Next::Rest);
    check(B, &["funds_confirmed", "call_started", "sent"], Next::Settle);
    // Cut off on credit: charged for, and owed to its buyer then.
    let cut_off = ["funds_confirmed", "call_started", "call_lost", "attempt_started", "included_deep"];
    check(B, &cut_off[..3], Next::Settle);
    check(B, &cut_off, Next::CallUpstream);
    check(U, &["funds_confirmed"], Next::Settle);
    check(U, &["funds_confirmed", "attempt_started", "included_deep"], Next::CallUpstream);
    check(U, &["funds_confirmed", "attempt_started", "included_deep", "call_started"], Next::AwaitUpstream);
    check(
        U,
        &["funds_confirmed", "attempt_started", "included_deep", "call_started", "call_failed"],
        Next::CallUpstream,
    );
}

#[test]
fn a_refusal_frees_the_claim_only_before_the_upstream_was_called() {
    let (early, ledger) = walk(Role::Seller, Flow::Authorization, &["funds_refused"]);
    assert!(early.releases_claim());
    assert_eq!(net(&ledger, AccountKind::Receivable), 0);
    let (late, _) =
        walk(Role::Seller, Flow::Authorization, &["funds_confirmed", "call_started", "call_failed"]);
    assert!(!late.releases_claim());
}

#[test]
fn a_payment_shown_again_after_a_failed_call_begins_anew_for_the_same_request_only() {
    let (refused, mut ledger) =
        walk(Role::Seller, Flow::Authorization, &["funds_confirmed", "call_started", "call_failed"]);
    assert_eq!(
        refused.step(Event::Represented { request: RequestHash([9; 32]) }, NOW).map(|s| s.next),
        Err(StepError::OtherRequest)
    );
    let step = refused.step(event("represented"), NOW).expect("fits");
    ledger.apply(&step.entries).expect("a new round has entries of its own");
    assert_eq!((step.next.round, step.next.next()), (1, Next::CheckFunds));
}

#[test]
fn served_and_never_paid_is_a_loss_that_shows() {
    let names = ["funds_confirmed", "call_started", "sent", "attempt_started", "unclear", "dead"];
    let (payment, ledger) = walk(Role::Seller, Flow::Background, &names);
    assert_eq!(payment.state.name(), "failed");
    assert_eq!(net(&ledger, AccountKind::Loss), 1000);
    assert_eq!(net(&ledger, AccountKind::Revenue), -1000);
    assert_eq!(net(&ledger, AccountKind::Treasury), 0);
}

#[test]
fn an_answer_that_was_stored_but_never_sent_is_no_loss() {
    let names = ["funds_confirmed", "call_started", "call_stored", "attempt_started", "reverted", "dead"];
    let (payment, ledger) = walk(Role::Seller, Flow::Authorization, &names);
    assert_eq!(payment.state.name(), "failed");
    assert_eq!(net(&ledger, AccountKind::Loss), 0);
    assert_eq!(net(&ledger, AccountKind::Revenue), 0);
}

#[test]
fn an_attempt_that_reverted_may_still_be_paid_by_somebody_else() {
    let names =
        ["funds_confirmed", "call_started", "call_stored", "attempt_started", "reverted", "included_deep"];
    let (payment, ledger) = walk(Role::Seller, Flow::Authorization, &names);
    assert_eq!(payment.state.name(), "settled");
    assert_eq!(net(&ledger, AccountKind::Treasury), 1000);
}

#[test]
fn unknown_never_starts_another_attempt() {
    let (unknown, _) = walk(
        Role::Seller,
        Flow::Authorization,
        &["funds_confirmed", "call_started", "call_stored", "attempt_started", "unclear"],
    );
    let other = AttemptId::new(NOW, [2; 10]);
    for attempt in [other, AttemptId::new(Timestamp::from_secs(1), [1; 10])] {
        assert!(unknown.step(Event::AttemptStarted { attempt, tx: None }, NOW).is_err());
    }
    assert!(unknown.step(Event::FundsRefused(reason()), NOW).is_err());
}

#[test]
fn an_attempt_that_was_dropped_is_never_a_mere_refusal() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    for doubt in [&[][..], &["unclear"]] {
        let names = [&base[..], doubt, &["attempt_dropped"]].concat();
        let (lapsing, _) = walk(Role::Seller, Flow::Authorization, &names);
        assert_eq!((lapsing.state.name(), lapsing.next()), ("lapsing", Next::Watch), "{names:?}");
        assert_eq!(lapsing.tx(), Some(&TxRef::new("0x01")));
        assert_eq!(
            lapsing.reason().map(|reason| (reason.code(), reason.fault())),
            Some(("attempt_dropped", Fault::Us))
        );
        assert!(lapsing.step(event("funds_refused"), NOW).is_err() && !lapsing.releases_claim());
        // Whoever saw the authorization submitted it.
        let (settled, ledger) =
            walk(Role::Seller, Flow::Authorization, &[&names[..], &["included_deep"]].concat());
        assert_eq!((settled.state.name(), net(&ledger, AccountKind::Treasury)), ("settled", 1000));
    }
    let (settling, _) = walk(Role::Seller, Flow::Authorization, &base);
    let other = AttemptId::new(NOW, [9; 10]);
    assert!(settling.step(Event::AttemptDropped { attempt: other }, NOW).is_err());
}

#[test]
fn an_attempt_takes_the_place_of_the_one_that_was_dropped_only() {
    let first = AttemptId::new(Timestamp::from_secs(1), [1; 10]);
    let second = AttemptId::new(NOW, [2; 10]);
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    for doubt in [&[][..], &["unclear"]] {
        let (payment, _) = walk(Role::Seller, Flow::Authorization, &[&base[..], doubt].concat());
        let replace = |dropped, attempt| {
            let tx = Some(TxRef::new("0x02"));
            payment.step(Event::AttemptReplaced { dropped, attempt, tx }, NOW)
        };
        assert!(replace(second, first).is_err());
        let next = replace(first, second).expect("fits").next;
        let tx = Some(TxRef::new("0x02"));
        assert_eq!(next.state, State::Settling { attempt: second, since: NOW, tx });
    }
}

#[test]
fn an_attempt_that_is_sent_again_stays_the_one_attempt() {
    let (settling, _) = walk(
        Role::Seller,
        Flow::Authorization,
        &["funds_confirmed", "call_started", "call_stored", "attempt_started"],
    );
    let (first, later) = (AttemptId::new(Timestamp::from_secs(1), [1; 10]), Timestamp::from_secs(9));
    let tx = Some(TxRef::new("0x02"));
    let again = settling.step(Event::AttemptStarted { attempt: first, tx: tx.clone() }, later).expect("fits");
    assert_eq!(again.next.state, State::Settling { attempt: first, since: NOW, tx: tx.clone() });
    let second = AttemptId::new(NOW, [2; 10]);
    assert!(settling.step(Event::AttemptStarted { attempt: second, tx }, later).is_err());
}

#[test]
fn a_refusal_after_a_former_call_keeps_the_claim_for_the_same_request() {
    let names = ["funds_confirmed", "call_started", "call_failed", "represented", "funds_refused"];
    let (payment, ledger) = walk(Role::Seller, Flow::Authorization, &names);
    assert_eq!((payment.state.name(), payment.delivery), ("refused", Delivery::Failed));
    assert!(!payment.releases_claim());
    assert_eq!(net(&ledger, AccountKind::Receivable), 0);
    assert_eq!(payment.step(event("represented"), NOW).map(|step| step.next.round), Ok(2));
}

#[test]
fn a_refused_payment_begins_anew_so_often_that_reorganizations_can_still_be_booked() {
    let (mut payment, _) =
        walk(Role::Seller, Flow::Authorization, &["funds_confirmed", "call_started", "call_failed"]);
    payment.round = Payment::MOST_BEGINNINGS - 1;
    let last = payment.step(event("represented"), NOW).expect("once more").next;
    assert_eq!(last.round, Payment::MOST_BEGINNINGS);
    payment.round = last.round;
    assert_eq!(payment.step(event("represented"), NOW).map(|s| s.next), Err(StepError::TooManyRounds));
    let (mut settled, _) = walk(
        Role::Seller,
        Flow::Authorization,
        &["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep"],
    );
    settled.round = last.round;
    assert!(settled.step(event("reorged"), NOW).is_ok());
    settled.round = u16::MAX;
    assert_eq!(settled.step(event("reorged"), NOW).map(|s| s.next), Err(StepError::TooManyRounds));
}

/// A stored answer leaves before that is recorded. If a crash and a reorganization come between, it shows as a loss.
#[test]
fn an_answer_that_may_have_left_before_its_block_went_away_counts_as_served() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    let (payment, ledger) =
        walk(Role::Seller, Flow::Authorization, &[&base[..], &["included_deep", "reorged", "dead"]].concat());
    assert_eq!((payment.state.name(), payment.delivery), ("failed", Delivery::Sent));
    assert_eq!((net(&ledger, AccountKind::Loss), net(&ledger, AccountKind::Revenue)), (1000, -1000));
    // Before it was settled, nothing left.
    let (payment, ledger) =
        walk(Role::Seller, Flow::Authorization, &[&base[..], &["included", "reorged", "dead"]].concat());
    assert_eq!((payment.delivery, net(&ledger, AccountKind::Loss)), (Delivery::Stored, 0));
}

#[test]
fn how_a_delivery_ended_is_kept_whatever_became_of_the_money_meanwhile() {
    let base = ["funds_confirmed", "attempt_started", "included_deep", "call_started"];
    for money in [
        &["reorged"][..],
        &["reorged", "unclear"],
        &["reorged", "reverted"],
        &["reorged", "included"],
        &["refund_started"],
        &["refund_started", "refund_included"],
    ] {
        for (how, delivery) in
            [("sent", Delivery::Sent), ("call_failed", Delivery::Failed), ("call_lost", Delivery::Failed)]
        {
            let before = [&base[..], money].concat();
            let (was, _) = walk(Role::Seller, Flow::Upfront, &before);
            let (is, _) = walk(Role::Seller, Flow::Upfront, &[&before[..], &[how]].concat());
            assert_eq!((is.state, is.delivery), (was.state, delivery), "{before:?} {how}");
        }
    }
    // Delivered or not: what was under way when the money was lost counts as delivered, and shows.
    let (payment, ledger) = walk(Role::Seller, Flow::Upfront, &[&base[..], &["reorged", "dead"]].concat());
    assert_eq!((payment.delivery, net(&ledger, AccountKind::Loss)), (Delivery::Sent, 1000));
}

#[test]
fn a_reorganized_settlement_is_taken_back_and_booked_again() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep"];
    let (payment, ledger) = walk(Role::Seller, Flow::Authorization, &[&base[..], &["reorged"]].concat());
    assert_eq!(payment.next(), Next::Watch);
    assert_eq!((net(&ledger, AccountKind::Treasury), net(&ledger, AccountKind::Revenue)), (0, 0));
    let (payment, ledger) =
        walk(Role::Seller, Flow::Authorization, &[&base[..], &["reorged", "included_deep"]].concat());
    assert_eq!(payment.state.name(), "settled");
    assert_eq!((net(&ledger, AccountKind::Treasury), net(&ledger, AccountKind::Revenue)), (1000, -1000));
    let (_, ledger) =
        walk(Role::Seller, Flow::Authorization, &[&base[..], &["sent", "reorged", "dead"]].concat());
    assert_eq!((net(&ledger, AccountKind::Treasury), net(&ledger, AccountKind::Loss)), (0, 1000));
}

#[test]
fn the_fee_of_a_block_that_is_gone_is_taken_back_with_it() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    let (settling, mut ledger) = walk(Role::Seller, Flow::Authorization, &base);
    let money = settling.terms.money.clone();
    let fee = farthing_primitives::Money::new(money.asset().clone(), 21);
    let Event::Included { mut proof, .. } = event("included_deep") else { panic!("another event") };
    proof.fee = Some(fee);
    let mut payment = settling;
    for happened in [
        Event::Included { proof: proof.clone(), deep: true },
        Event::Reorged,
        Event::Included { proof, deep: true },
    ] {
        let step = payment.step(happened, NOW).expect("fits");
        ledger.apply(&step.entries).expect("applies");
        assert_eq!(ledger.check(), Ok(()));
        payment = step.next;
    }
    assert_eq!((net(&ledger, AccountKind::Gas), net(&ledger, AccountKind::Relayer)), (21, -21));
}

#[test]
fn a_refund_happens_once() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started", "included_deep"];
    let (payment, ledger) = walk(
        Role::Seller,
        Flow::Authorization,
        &[&base[..], &["refund_started", "refund_included"]].concat(),
    );
    assert_eq!((net(&ledger, AccountKind::Treasury), net(&ledger, AccountKind::Refunds)), (0, 1000));
    assert!(payment.step(event("refund_started"), NOW).is_err());
    assert!(payment.step(event("refund_included"), NOW).is_err());
}

#[test]
fn a_facilitator_books_only_what_it_moved() {
    let (payment, ledger) =
        walk(Role::Facilitator, Flow::Upfront, &["funds_confirmed", "attempt_started", "included_deep"]);
    assert_eq!(payment.next(), Next::Rest);
    assert_eq!((net(&ledger, AccountKind::Payees), net(&ledger, AccountKind::Payers)), (1000, -1000));
    assert_eq!(net(&ledger, AccountKind::Revenue), 0);
}

#[test]
fn every_flow_reaches_a_settled_and_a_refused_payment() {
    for (role, flow) in [
        (Role::Seller, Flow::Authorization),
        (Role::Seller, Flow::Upfront),
        (Role::Seller, Flow::Background),
        (Role::Facilitator, Flow::Upfront),
    ] {
        let reached = |name| transitions(role, flow).iter().any(|t| t.to == name);
        assert!(reached("settled") && reached("refused") && reached("unknown"), "{role:?} {flow:?}");
    }
}

/// From the claim on, so that nobody is served on credit whom nobody counted; and no more once it is paid, given back
/// or lost. An answer that is kept back is no credit.
#[test]
fn a_payee_is_exposed_by_what_leaves_before_it_is_settled() {
    let funded = ["funds_confirmed", "call_started"];
    for (then, exposed) in [
        (&["sent"][..], true),
        (&["sent", "attempt_started"], true),
        (&["sent", "attempt_started", "unclear"], true),
        (&["sent", "attempt_started", "reverted"], true),
        (&["sent", "attempt_started", "included"], true),
        (&["call_lost"], true),
        (&["call_stored"], false),
        (&["call_failed"], false),
        (&["sent", "dead"], false),
        (&["sent", "attempt_started", "dead"], false),
        (&["sent", "attempt_started", "included_deep"], false),
        (&["sent", "attempt_started", "included_deep", "refund_started"], false),
        (&["sent", "attempt_started", "included_deep", "reorged"], true),
    ] {
        let names = [&funded[..], then].concat();
        assert_eq!(walk(Role::Seller, Flow::Background, &names).0.is_exposed(), exposed, "{names:?}");
    }
    for (names, exposed) in
        [(&[][..], true), (&funded[..1], true), (&funded, true), (&["funds_refused"], false)]
    {
        assert_eq!(walk(Role::Seller, Flow::Background, names).0.is_exposed(), exposed, "{names:?}");
    }
    // Where the answer waits for the money there is no credit.
    for flow in [Flow::Authorization, Flow::Upfront] {
        assert!(!walk(Role::Seller, flow, &["funds_confirmed"]).0.is_exposed(), "{flow:?}");
    }
}

#[test]
fn the_transaction_of_a_payment_is_the_one_that_may_have_moved_its_money() {
    let base = ["funds_confirmed", "call_started", "call_stored", "attempt_started"];
    for (then, known) in [
        (&[][..], true),
        (&["unclear"], true),
        (&["reverted"], true),
        (&["included"], true),
        (&["included_deep"], true),
        (&["included_deep", "refund_started"], true),
        (&["included_deep", "refund_started", "refund_included"], true),
        (&["dead"], false),
    ] {
        let (payment, _) = walk(Role::Seller, Flow::Authorization, &[&base[..], then].concat());
        assert_eq!(payment.tx().map(TxRef::as_str), known.then_some("0x01"), "{then:?}");
    }
}

/// What is stored, shown and compared by strangers.
#[test]
fn words_are_stable() {
    let mut words: Vec<_> = events().iter().map(Event::name).collect();
    let count = words.len();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), count, "each kind of event has a word of its own");
    let slots = [
        SlotState::Open,
        SlotState::Included { tx: TxRef::new("0x01"), block: 1, block_hash: [0; 32] },
        SlotState::Final { tx: TxRef::new("0x01") },
        SlotState::Lost,
    ];
    assert_eq!(slots.map(|slot| slot.name()), ["open", "included", "final", "lost"]);
    let deliveries = [Delivery::None, Delivery::Called, Delivery::Stored, Delivery::Sent, Delivery::Failed];
    assert_eq!(deliveries.map(Delivery::name), ["none", "called", "stored", "sent", "failed"]);
}

#[test]
fn names_are_kept_as_they_were_given() {
    let key = ConsumptionKey::new("eip3009/eip155:8453/0x01");
    assert_eq!(key.as_str(), "eip3009/eip155:8453/0x01");
    assert_eq!(key.to_string(), key.as_str());
    let tx = TxRef::new("0x02");
    assert_eq!((tx.as_str(), tx.to_string()), ("0x02", "0x02".to_owned()));
    assert_eq!(Instruction::new(vec![3, 4]).as_bytes(), [3, 4]);
    let reason = Reason::new("no_funds", Fault::Payer);
    assert_eq!((reason.to_string().as_str(), reason.fault()), ("no_funds", Fault::Payer));
}

#[test]
fn reasons_are_plain_codes() {
    assert_eq!(Reason::new("Bad thing: 0x1\r\n", Fault::Payer).code(), "bad_thing__0x1__");
    assert_eq!(Reason::new(&"x".repeat(1000), Fault::Payer).code().len(), Reason::MAX_LEN);
}

proptest! {
    /// Any events in any order: the books balance, a terminal payment moves no more money, and what was settled
    /// is settled once.
    #[test]
    fn no_order_of_events_loses_or_invents_money(
        role in prop_oneof![Just(Role::Seller), Just(Role::Facilitator)],
        flow in prop_oneof![Just(Flow::Authorization), Just(Flow::Upfront), Just(Flow::Background)],
        picks in prop::collection::vec(0usize..20, 0..60),
    ) {
        let (mut payment, entries) = Payment::claim(sample(role, flow), Timestamp::from_secs(1));
        let mut ledger = Ledger::default();
        ledger.apply(&entries).expect("applies");
        for pick in picks {
            let Ok(step) = payment.step(events()[pick].clone(), NOW) else { continue };
            ledger.apply(&step.entries).expect("a step's entries always apply");
            prop_assert_eq!(ledger.check(), Ok(()));
            prop_assert_eq!(step.next.version, payment.version + 1);
            payment = step.next;
            let treasury = net(&ledger, AccountKind::Treasury);
            let expected = match (&payment.state, role) {
                (State::Settled { .. } | State::Refunding { .. }, Role::Seller) => 1000,
                _ => 0,
            };
            prop_assert_eq!(treasury, expected, "in {}", payment.state.name());
        }
    }
}
