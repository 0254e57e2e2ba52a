//! What strangers, cheats and the chain itself do to the seller's till: each lie has its problem type and changes nothing,
//! whoever comes first changes nothing about who is paid, and what a reorganization takes away comes back.

// In a test a panic is the report.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

#[path = "channels/fate.rs"]
mod fate;
#[path = "channels/yard.rs"]
mod yard;

use std::sync::atomic::Ordering;
use std::time::Duration;

use farthing_channel::*;
use farthing_engine::*;
use farthing_evm::escrow::{self, Pull};
use farthing_evm::{B256, U256};
use farthing_ledger::AccountKind;
use serde_json::json;

use yard::*;

/// An order of the curve, as 32 bytes.
const ORDER: &str = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141";

/// The other signature of the same key for the same digest.
fn high_s(signature: &[u8]) -> Vec<u8> {
    let order: U256 = ORDER.parse().unwrap();
    let s = order - U256::from_be_slice(&signature[32..64]);
    let v = if signature[64] == 27 { 28 } else { 27 };
    [&signature[..32], &s.to_be_bytes::<32>(), &[v]].concat()
}

fn problem<T: std::fmt::Debug>(refused: &Result<T, TillError>) -> Option<&'static str> {
    refused.as_ref().expect_err("refused").problem().map(Problem::as_str)
}

/// No amount of the channel is in what is said to whoever showed this.
fn says_nothing(why: &TillError) {
    let said = format!("{why} {why:?}");
    assert!(matches!(why, TillError::Signature(_)) || !said.contains("5000"), "{said}");
    assert!(["5000", "1000", "2000"].iter().all(|amount| !said.contains(amount)), "{said}");
}

// ---- Vouchers.

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_voucher_has_its_problem_and_changes_nothing() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let other = Buyer::new(&yard, PAYEE, 2, 5_000);
    buyer.open_with(&yard, &house, 5_000, limits()).await.expect("opened");
    buyer.voucher(&yard, &house, 2_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_000).await.expect("served");
    let before = yard.until(buyer.id(), "done with", |payee| payee.attempts().next().is_none()).await;
    let id = buyer.parts.id();

    let good = buyer.sign(3_000);
    let mut flipped = good.clone();
    flipped[7] ^= 1;
    let strangers = buyer.sign_as(&key(STRANGER), id, 3_000, buyer.parts.escrow);
    let elsewhere = buyer.sign_as(&key(PAYER), id, 3_000, farthing_evm::Address::repeat_byte(9));
    let of_other = buyer.sign_as(&key(PAYER), other.parts.id(), 3_000, buyer.parts.escrow);
    let unproven: [(&str, u128, Vec<u8>, &str); 9] = [
        ("nothing", 3_000, Vec::new(), "invalid-signature"),
        ("too short", 3_000, good[..63].to_vec(), "invalid-signature"),
        ("endless", 3_000, vec![1; 5_000], "invalid-signature"),
        ("high s", 3_000, high_s(&good), "invalid-signature"),
        ("tampered amount", 3_001, good.clone(), "signer-mismatch"),
        ("stranger's", 3_000, strangers, "signer-mismatch"),
        ("another escrow's", 3_000, elsewhere, "signer-mismatch"),
        ("another channel's", 3_000, of_other.clone(), "signer-mismatch"),
        ("more than there is, unsigned", u128::MAX, good.clone(), "signer-mismatch"),
    ];
    for (what, amount, signature, expected) in &unproven {
        let shown = buyer.shown(*amount, signature);
        let asked = buyer.asked(&house, shown, 1, price(1), Some(1));
        let voucher = house.till.voucher(&house.seller, &shown).await;
        let receipt = house.till.receipt(&house.seller, &shown).await;
        let close = house.till.close(&house.seller, &shown).await;
        // Also for what was bought before, whose answer is kept.
        let charge = house.till.start_charge(&asked).await;
        assert_eq!(problem(&voucher), Some(*expected), "{what}");
        assert_eq!(problem(&receipt), Some(*expected), "{what}");
        assert_eq!(problem(&close), Some(*expected), "{what}");
        assert_eq!(problem(&charge), Some(*expected), "{what}");
        for why in [voucher.err(), receipt.err(), close.err(), charge.err()].into_iter().flatten() {
            says_nothing(&why);
        }
    }
    // A flipped bit may be no signature, or one of somebody.
    let shown = buyer.shown(3_000, &flipped);
    let why = house.till.voucher(&house.seller, &shown).await;
    assert!(["invalid-signature", "signer-mismatch"].contains(&problem(&why).unwrap()));

    let proven: [(&str, u128, &str); 4] = [
        ("decreasing", 1_000, "delta-too-small"),
        ("decreasing to nothing", 0, "delta-too-small"),
        ("too small a step", 2_099, "delta-too-small"),
        ("over the deposit", 5_001, "amount-exceeds-deposit"),
    ];
    for (what, amount, expected) in proven {
        let signature = buyer.sign(amount);
        let shown = Shown { min_delta: 100, ..buyer.shown(amount, &signature) };
        let refused = house.till.voucher(&house.seller, &shown).await;
        assert_eq!(problem(&refused), Some(expected), "{what}");
    }
    // The same again is the same; so is the compact form of a signature that is good.
    let same = buyer.sign(2_000);
    let receipt = house.till.voucher(&house.seller, &buyer.shown(2_000, &same)).await.expect("known");
    assert_eq!((receipt.accepted, receipt.spent), (2_000, 1_000));

    // Nobody learns of a channel that is not there, or that pays somebody else.
    let shown = Shown { channel: other.id(), cumulative: 3_000, signature: &of_other, min_delta: 0 };
    assert_eq!(problem(&house.till.voucher(&house.seller, &shown).await), Some("channel-not-found"));
    let good = buyer.shown(3_000, &good);
    for seller in [
        Seller { tenant: "other".parse().unwrap(), ..house.seller.clone() },
        Seller { payee: account(STRANGER), ..house.seller.clone() },
    ] {
        let asked = Asked { seller: &seller, ..buyer.asked(&house, good, 9, price(1), Some(1)) };
        assert_eq!(problem(&house.till.voucher(&seller, &good).await), Some("channel-not-found"));
        assert_eq!(problem(&house.till.close(&seller, &good).await), Some("channel-not-found"));
        assert_eq!(problem(&house.till.start_charge(&asked).await), Some("channel-not-found"));
    }
    assert_eq!(yard.payee(buyer.id()).await, before);
    assert_eq!(yard.sent_by(RELAYER).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_close_nothing_is_taken_and_what_was_bought_is_given_again() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    buyer.voucher(&yard, &house, 2_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_500).await.expect("served");
    buyer.step(&yard, PayerEvent::Received { price: price(1_500), units: 1 });
    let closed = buyer.close(&house).await.expect("closed");
    let over = yard.payee(buyer.id()).await;

    let more = buyer.sign(3_000);
    let shown = buyer.shown(3_000, &more);
    assert_eq!(problem(&house.till.voucher(&house.seller, &shown).await), Some("channel-finalized"));
    assert_eq!(problem(&house.till.close(&house.seller, &shown).await), Some("channel-finalized"));
    let asked = buyer.asked(&house, shown, 2, price(1), Some(1));
    assert_eq!(problem(&house.till.start_charge(&asked).await), Some("channel-finalized"));
    let stream = buyer.asked(&house, shown, 3, price(1), None);
    assert_eq!(problem(&house.till.start_charge(&stream).await), Some("channel-finalized"));
    let top_up = house.till.top_up(&buyer.top_up(&house, 1_000)).await;
    assert_eq!(problem(&top_up), Some("channel-finalized"));
    // The id is used up: neither the same opening nor one with fresh money brings it back.
    let first = buyer.sign(0);
    let again = house.till.open(&buyer.opening(&house, buyer.by_pull(5_000), &first)).await;
    assert_eq!(problem(&again), Some("channel-finalized"));
    // What was bought is given again, and the close that was asked for as well.
    let (given, receipt) = buyer.buy(&yard, &house, 1, 1_500).await.expect("given again");
    assert_eq!((given, receipt.spent), (answer("goods"), 1_500));
    assert_eq!(buyer.close(&house).await, Ok(closed));
    assert_eq!(yard.payee(buyer.id()).await, over);
    assert_eq!(yard.sent_by(RELAYER).await, 2);

    // Also by a process that knows of it from the store alone, and where another till has no memory of it at all.
    house.stop().await;
    let house = yard.house(Setup::default()).await;
    let closed = buyer.close(&house).await.expect("known");
    assert!(closed.finalized && closed.tx.is_some());
    let fresh = yard::yard(Kind::Memory).await;
    let amnesiac = yard.with_store_of(&fresh);
    let house = amnesiac.house(Setup::default()).await;
    let again = house.till.open(&buyer.opening(&house, buyer.by_pull(5_000), &first)).await;
    assert_eq!(problem(&again), Some("channel-finalized"));
}

/// An answer that is not kept any more is paid for all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_gone_is_not_sold_twice() {
    let yard = yard(Kind::Memory).await;
    let setup = || Setup { answer_ttl: Duration::from_secs(60), ..Setup::default() };
    let house = yard.house(setup()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    buyer.voucher(&yard, &house, 2_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_000).await.expect("served");
    house.stop().await;
    yard.ahead_ms.fetch_add(120_000, Ordering::SeqCst);
    let house = yard.house(setup()).await;
    for _ in 0..6_000 {
        match buyer.buy(&yard, &house, 1, 1_000).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            gone => {
                assert!(matches!(gone, Err(TillError::AnswerGone(_))), "{gone:?}");
                assert_eq!(yard.payee(buyer.id()).await.spent(), 1_000);
                return;
            }
        }
    }
    panic!("it is still given");
}

// ---- Openings.

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_opening_has_its_problem_and_leaves_nothing() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let payer = yard.balance_of(PAYER).await;
    let first = buyer.sign(0);
    let by = || buyer.by_pull(5_000);
    let good = || buyer.opening(&house, by(), &first);
    let check = async |what: &str, opening: Opening<'_>, expected: &str| {
        let refused = house.till.open(&opening).await;
        assert_eq!(problem(&refused), Some(expected), "{what}: {refused:?}");
        assert_eq!(yard.store.channel(opening.shown.channel).await, Ok(None), "{what}");
    };
    let lie = buyer.sign(1_000);
    check("unsigned", Opening { shown: buyer.shown(0, &lie), ..good() }, "signer-mismatch").await;
    let high = high_s(&first);
    check("high s", Opening { shown: buyer.shown(0, &high), ..good() }, "invalid-signature").await;
    check("another salt", Opening { salt: [9; 32], ..good() }, "channel-not-found").await;
    check("another payer", Opening { payer: account(STRANGER), ..good() }, "channel-not-found").await;
    let signer = Some(account(STRANGER));
    check("another signer", Opening { authorized_signer: signer, ..good() }, "channel-not-found").await;
    let over = buyer.sign(5_001);
    let shown = buyer.shown(5_001, &over);
    check("a voucher over the deposit", Opening { shown, ..good() }, "amount-exceeds-deposit").await;
    let poor = Opening { by: buyer.by_pull(999), ..good() };
    check("too small a deposit", poor, "insufficient-balance").await;
    let OpenBy::Pull { pull: Pull::Authorization { valid_after, valid_before, nonce, signature }, .. } = by()
    else {
        panic!("an authorization")
    };
    let pulled = |deposit, nonce, valid_before, signature: Vec<u8>| {
        let signature = signature.into();
        let pull = Pull::Authorization { valid_after, valid_before, nonce, signature };
        Opening { by: OpenBy::Pull { deposit, pull }, ..good() }
    };
    let unbound = pulled(5_000, B256::repeat_byte(7), valid_before, signature.to_vec());
    check("a nonce for something else", unbound, "transaction-reverted").await;
    let more = pulled(6_000, nonce, valid_before, signature.to_vec());
    assert!(house.till.open(&more).await.is_err_and(|why| matches!(why, TillError::Reverted(_))));
    let expired = pulled(5_000, nonce, U256::ONE, signature.to_vec());
    assert!(house.till.open(&expired).await.is_err_and(|why| matches!(why, TillError::Reverted(_))));
    let long = pulled(5_000, nonce, valid_before, vec![1; 5_000]);
    check("an endless signature", long, "invalid-signature").await;
    let poor = 10_000_000_000_000;
    let too_much = Opening { by: buyer.by_pull(poor), ..good() };
    assert!(house.till.open(&too_much).await.is_err_and(|why| matches!(why, TillError::Reverted(_))));
    let unknown = Opening { by: OpenBy::Hash(TxHash([7; 32])), ..good() };
    check("a transaction that nobody knows", unknown, "insufficient-balance").await;
    // It would be collected for whom we do not act.
    let strangers = Seller { payee: account(STRANGER), ..house.seller.clone() };
    let refused = house.till.open(&Opening { seller: &strangers, ..good() }).await;
    assert_eq!(refused, Err(TillError::Unavailable("payee_key")));

    // An escrow of the same address with other code, and one without.
    house.stop().await;
    let house = yard.house(Setup { trusted: [7; 32], ..Setup::default() }).await;
    let refused = house.till.open(&buyer.opening(&house, by(), &first)).await;
    assert_eq!(refused, Err(TillError::UntrustedEscrow));
    let mut lured = Buyer::new(&yard, PAYEE, 1, 5_000);
    lured.parts.escrow = farthing_evm::Address::repeat_byte(9);
    let first = lured.sign(0);
    let refused = house.till.open(&lured.opening(&house, lured.by_pull(5_000), &first)).await;
    assert_eq!(refused, Err(TillError::UntrustedEscrow));
    assert_eq!(problem(&refused), Some("channel-not-found"));

    assert_eq!(yard.balance_of(PAYER).await, payer);
    assert_eq!(yard.sent_by(RELAYER).await, 0);
    assert!(yard.store.channels(ChannelFilter::default()).await.unwrap().is_empty());
    assert!(yard.store.open_slots(&network(), &account(RELAYER)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_does_not_answer_opens_nothing_and_charges_go_on() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    house.fate.chain_down.store(true, Ordering::SeqCst);
    let mut late = Buyer::new(&yard, PAYEE, 2, 5_000);
    assert_eq!(late.open(&yard, &house, 5_000).await, Err(TillError::Unavailable("chain")));
    assert_eq!(yard.store.channel(late.id()).await, Ok(None));
    buyer.voucher(&yard, &house, 1_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_000).await.expect("served");
    house.fate.chain_down.store(false, Ordering::SeqCst);
    late.open(&yard, &house, 5_000).await.expect("opened");
    assert_eq!(yard.sent_by(RELAYER).await, 2);
}

/// Whoever submits the payer's signature first opens the channel that was meant, and pays the gas.
#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_somebody_submits_first_is_the_one_that_was_meant() {
    let yard = yard(Kind::Memory).await;
    let (house, wei) = (yard.house(Setup::default()).await, yard.wei(RELAYER).await);
    // Before us.
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let nonce = buyer.parts.open_nonce();
    let data = escrow::open_with(&buyer.parts, 5_000, &buyer.pull(5_000, nonce)).to_vec();
    yard.send(STRANGER, escrow_address(), data).await;
    let receipt = buyer.open(&yard, &house, 5_000).await.expect("opened");
    assert_eq!(receipt.deposit, 5_000);
    assert_eq!(yard.sent_by(RELAYER).await, 0);

    // In the same block, for a better price: ours reverts.
    yard.rpc("evm_setAutomine", json!([false])).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 2, 5_000);
    let data = escrow::open_with(&buyer.parts, 5_000, &buyer.pull(5_000, buyer.parts.open_nonce())).to_vec();
    let front_run = async {
        loop {
            let pool =
                yard.rpc("eth_getTransactionCount", json!([account(RELAYER).as_str(), "pending"])).await;
            if pool == json!("0x1") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        yard.send(STRANGER, escrow_address(), data).await;
        yard.mine(1).await;
        yard.rpc("evm_setAutomine", json!([true])).await;
    };
    let (receipt, ()) = tokio::join!(buyer.open(&yard, &house, 5_000), front_run);
    assert_eq!(receipt.expect("opened").deposit, 5_000);
    assert_eq!(yard.sent_by(RELAYER).await, 1);
    assert_eq!(yard.escrowed().await, 10_000);
    // It cost gas, and that is booked.
    assert!(yard.wei(RELAYER).await < wei);
    yard.gas_is_booked(wei).await;
    for n in 1..=2 {
        buyer.voucher(&yard, &house, n * 1_000).await.expect("accepted");
    }
    let closed = buyer.close(&house).await.expect("closed");
    assert!(closed.finalized);
    yard.sound().await;
}

/// What another till served for is not served for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_paid_elsewhere_is_not_taken_up() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let limits = Limits { most_unsettled: Some(500), ..limits() };
    buyer.open_with(&yard, &house, 5_000, limits).await.expect("opened");
    buyer.voucher(&yard, &house, 1_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_000).await.expect("served");
    yard.until(buyer.id(), "settled", |payee| payee.settled() == 1_000).await;
    house.stop().await;
    let fresh = yard::yard(Kind::Memory).await;
    let other = yard.with_store_of(&fresh);
    let house = other.house(Setup::default()).await;
    let refused = buyer.open(&other, &house, 5_000).await;
    assert_eq!(refused, Err(TillError::UsedElsewhere));
    assert_eq!(problem(&refused), Some("channel-not-found"));
    assert_eq!(other.store.channel(buyer.id()).await, Ok(None));
}

// ---- The payer's own transactions.

async fn approve(yard: &Yard, who: usize) {
    let amount = B256::left_padding_from(&1_000_000_u64.to_be_bytes());
    let spender = B256::left_padding_from(escrow_address().as_slice());
    let data = [&[0x09, 0x5e, 0xa7, 0xb3][..], spender.as_slice(), amount.as_slice()].concat();
    yard.send(who, "0x036CbD53842c5426634e7929541eC2318f3dCF7e".parse().unwrap(), data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_payers_own_transactions_are_taken_for_what_they_did() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup { answer_within: Duration::from_secs(5), ..Setup::default() }).await;
    let buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    approve(&yard, PAYER).await;
    let data = escrow::open(&buyer.parts, 5_000).to_vec();
    let opened = yard.send(PAYER, escrow_address(), data.clone()).await;
    let reverted = yard.send(PAYER, escrow_address(), data).await;
    let first = buyer.sign(500);
    let by_hash =
        |tx| Opening { shown: buyer.shown(500, &first), ..buyer.opening(&house, OpenBy::Hash(tx), &first) };
    let refused = house.till.open(&by_hash(reverted)).await;
    assert_eq!(problem(&refused), Some("transaction-reverted"));
    let other = Buyer::new(&yard, PAYEE, 2, 5_000);
    let others = yard.send(PAYER, escrow_address(), escrow::open(&other.parts, 5_000).to_vec()).await;
    assert_eq!(house.till.open(&by_hash(others)).await, Err(TillError::OtherTransaction));
    let receipt = house.till.open(&by_hash(opened)).await.expect("opened");
    assert_eq!((receipt.deposit, receipt.accepted), (5_000, 500));

    // Top-ups: exactly so much, in a transaction that did nothing else of the kind.
    let id = B256::from(buyer.id().0);
    let top_up = |tx, additional| TopUp {
        seller: &house.seller,
        channel: buyer.id(),
        additional,
        by: TopUpBy::Hash(tx),
    };
    assert_eq!(house.till.top_up(&top_up(opened, 5_000)).await, Err(TillError::OtherTransaction));
    let topped = yard.send(PAYER, escrow_address(), escrow::top_up(id, 700).to_vec()).await;
    assert_eq!(house.till.top_up(&top_up(topped, 701)).await, Err(TillError::OtherTransaction));
    house.till.top_up(&top_up(topped, 700)).await.expect("topped up");
    assert_eq!(yard.payee(buyer.id()).await.deposit(), 5_700);

    // The closing of another channel has two amounts as well, and is none.
    let closed =
        yard.send(PAYEE, escrow_address(), escrow::close(id, 500, first.clone().into()).to_vec()).await;
    assert_eq!(house.till.top_up(&top_up(closed, 500)).await, Err(TillError::OtherTransaction));
    yard.until(buyer.id(), "noticed", |payee| *payee.state() == PayeeState::Finalized).await;
    yard.sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_takes_a_forced_close_back_and_the_channel_serves_again() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup { answer_within: Duration::from_secs(5), ..Setup::default() }).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    // Nothing to collect, so that nothing is sent for it.
    let id = B256::from(buyer.id().0);
    approve(&yard, PAYER).await;
    yard.send(PAYER, escrow_address(), escrow::request_close(id).to_vec()).await;
    yard.until(buyer.id(), "noticed", |payee| matches!(payee.state(), PayeeState::Closing { .. })).await;
    let signature = buyer.sign(1_000);
    let shown = buyer.shown(1_000, &signature);
    assert_eq!(problem(&house.till.voucher(&house.seller, &shown).await), Some("channel-finalized"));
    let tx = yard.send(PAYER, escrow_address(), escrow::top_up(id, 700).to_vec()).await;
    let by = TopUpBy::Hash(tx);
    let top_up = TopUp { seller: &house.seller, channel: buyer.id(), additional: 700, by };
    house.till.top_up(&top_up).await.expect("topped up");
    yard.until(buyer.id(), "open again", |payee| *payee.state() == PayeeState::Open).await;
    buyer.look(&yard).await;
    buyer.voucher(&yard, &house, 5_700).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 1_000).await.expect("served");
    assert_eq!(yard.sent_by(RELAYER).await, 1);
    yard.sound().await;
}

// ---- Time.

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_nobody_uses_is_closed_for_what_it_owes() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let payee = yard.balance_of(PAYEE).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let limits = Limits { idle: Some(Duration::from_millis(400)), ..limits() };
    buyer.open_with(&yard, &house, 5_000, limits).await.expect("opened");
    buyer.voucher(&yard, &house, 1_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 900).await.expect("served");
    yard.until(buyer.id(), "closed", |payee| *payee.state() == PayeeState::Finalized).await;
    assert_eq!(yard.balance_of(PAYEE).await, payee + 1_000);
    yard.sound().await;
}

/// A stream whose payer stops paying is served what it paid for and no more, and another takes its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_where_its_payer_stops_paying() {
    let yard = yard(Kind::Memory).await;
    let house = yard.house(Setup::default()).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    let limits = Limits { credit: 50, ..limits() };
    buyer.open_with(&yard, &house, 5_000, limits).await.expect("opened");
    let signature = buyer.raise(&yard, 100);
    let shown = buyer.shown(100, &signature);
    let asked = buyer.asked(&house, shown, 1, price(10), None);
    let Ok(Started::Serve(stream)) = house.till.start_charge(&asked).await else { panic!("not begun") };
    let mut served = 0;
    let need = loop {
        match stream.meter(1).await {
            Ok(_) => served += 1,
            Err(TillError::Refused(Refusal::NeedsVoucher(need))) => break need,
            Err(other) => panic!("{other:?}"),
        }
    };
    // A hundred that were paid, and the credit that the limits give.
    assert_eq!((served, need.required, need.accepted), (15, 160, 100));
    assert_eq!(stream.wait(Some(1), Duration::from_millis(20)).await, Ok(Woken::TimedOut));
    let other = buyer.asked(&house, shown, 2, price(10), None);
    // The next stream needs its first unit covered.
    assert!(matches!(
        house.till.start_charge(&other).await,
        Err(TillError::Refused(Refusal::NeedsVoucher(_)))
    ));
    assert_eq!(stream.meter(1).await, Err(Refusal::NeedsVoucher(need).into()));
    buyer.voucher(&yard, &house, 200).await.expect("accepted");
    let Ok(Started::Serve(next)) = house.till.start_charge(&other).await else { panic!("not begun") };
    assert_eq!(stream.wait(Some(1), Duration::from_secs(5)).await, Ok(Woken::Over));
    assert_eq!(stream.meter(1).await, Err(Refusal::StreamEnded.into()));
    next.meter(5).await.expect("covered");
    drop(next);
    drop(stream);
    let payee = yard.until(buyer.id(), "over", |payee| payee.running().count() == 0).await;
    assert_eq!((payee.spent(), payee.exposure()), (200, 0));
    yard.sound().await;
}

// ---- Reorganizations.

/// Blocks come until the channel is as wanted.
async fn mined_until(yard: &Yard, id: ChannelId, what: &str, wanted: impl Fn(&Payee) -> bool) -> Payee {
    for _ in 0..2_400 {
        let payee = yard.store.channel(id).await.expect("read").expect("there");
        if wanted(&payee) {
            return payee;
        }
        yard.mine(1).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{what}: {:?}", yard.store.channel(id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_or_a_close_that_a_reorganization_takes_away_comes_back() {
    for transactions in ["drop", "pool", "remine"] {
        let yard = yard(Kind::Memory).await;
        let house = yard.house(Setup { beyond_reorgs: 12, ..Setup::default() }).await;
        let (payer, payee, wei) =
            (yard.balance_of(PAYER).await, yard.balance_of(PAYEE).await, yard.wei(RELAYER).await);
        let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
        buyer.open(&yard, &house, 5_000).await.expect("opened");
        buyer.voucher(&yard, &house, 2_000).await.expect("accepted");
        buyer.buy(&yard, &house, 1, 1_500).await.expect("served");
        buyer.step(&yard, PayerEvent::Received { price: price(1_500), units: 1 });

        yard.until(buyer.id(), "done with", |payee| payee.attempts().next().is_none()).await;
        yard.rpc("evm_setAutomine", json!([false])).await;
        yard.reorg(1, transactions).await;
        if transactions != "remine" {
            assert_eq!(yard.on_chain(buyer.id()).await, None);
            // Nobody serves for money that is not there.
            yard.until(buyer.id(), "noticed", |payee| *payee.state() == PayeeState::Opening).await;
            let signature = buyer.sign(2_500);
            let refused = house.till.voucher(&house.seller, &buyer.shown(2_500, &signature)).await;
            assert_eq!(refused, Err(Refusal::NotConfirmed.into()));
        }
        yard.rpc("evm_setAutomine", json!([true])).await;
        let back = |payee: &Payee| *payee.state() == PayeeState::Open;
        let channel = mined_until(&yard, buyer.id(), transactions, back).await;
        assert_eq!((channel.deposit(), channel.accepted(), channel.spent()), (5_000, 2_000, 1_500));

        let closed = buyer.close(&house).await.expect("closed");
        assert!(closed.finalized);
        assert_eq!(yard.balance_of(PAYEE).await, payee + 1_500);
        let height = yard.rpc("eth_blockNumber", json!([])).await;
        let mined = yard.rpc("eth_getTransactionReceipt", json!([closed.tx.unwrap().as_str()])).await;
        let number =
            |value: &serde_json::Value| u64::from_str_radix(&value.as_str().unwrap()[2..], 16).unwrap();
        yard.reorg(number(&height) - number(&mined["blockNumber"]) + 1, transactions).await;
        let mut paid = false;
        for _ in 0..2_400 {
            paid = yard.balance_of(PAYEE).await == payee + 1_500;
            if paid {
                break;
            }
            yard.mine(1).await;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        assert!(paid, "{transactions}: the close came back");
        assert_eq!(yard.balance_of(PAYER).await, payer - 1_500);
        assert_eq!(yard.sent_by(RELAYER).await, 2);
        // What it cost is booked once, of the blocks that stayed.
        for _ in 0..14 {
            yard.mine(1).await;
        }
        yard.gas_is_booked(wei).await;
        let slots = yard.store.live_slots(&network(), &account(RELAYER), 0, 0).await.unwrap();
        assert!(slots.is_empty(), "{slots:?}");
        yard.nothing_pends().await;
        yard.sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_that_goes_away_before_it_is_deep_opens_nothing_until_it_is() {
    let yard = yard(Kind::Memory).await;
    let setup = Setup { depths: 3, beyond_reorgs: 3, ..Setup::default() };
    let house = yard.house(Setup { answer_within: Duration::from_millis(300), ..setup }).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    assert_eq!(buyer.open(&yard, &house, 5_000).await, Err(Refusal::NotConfirmed.into()));
    assert_eq!(yard.payee(buyer.id()).await.deposit(), 0);
    yard.mine(1).await;
    yard.reorg(2, "drop").await;
    assert_eq!(yard.on_chain(buyer.id()).await, None);
    mined_until(&yard, buyer.id(), "open", |payee| *payee.state() == PayeeState::Open).await;
    assert_eq!(yard.sent_by(RELAYER).await, 1);
    let receipt = buyer.open(&yard, &house, 5_000).await.expect("open");
    assert_eq!(receipt.deposit, 5_000);
    assert_eq!(yard.book(AccountKind::Escrow).await, (5_000, 0));
    yard.sound().await;
}

/// A process that starts after a reorganization finds what it took away.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_went_away_while_nothing_ran_is_sent_again_by_the_next_process() {
    let yard = yard(Kind::Sqlite).await;
    let setup = || Setup { beyond_reorgs: 12, ..Setup::default() };
    let house = yard.house(setup()).await;
    let payee = yard.balance_of(PAYEE).await;
    let mut buyer = Buyer::new(&yard, PAYEE, 1, 5_000);
    buyer.open(&yard, &house, 5_000).await.expect("opened");
    buyer.voucher(&yard, &house, 2_000).await.expect("accepted");
    buyer.buy(&yard, &house, 1, 2_000).await.expect("served");
    buyer.step(&yard, PayerEvent::Received { price: price(2_000), units: 1 });
    assert!(buyer.close(&house).await.expect("closed").finalized);
    house.stop().await;
    yard.reorg(1, "drop").await;
    assert_eq!(yard.balance_of(PAYEE).await, payee);
    let _house = yard.house(setup()).await;
    for _ in 0..2_400 {
        if yard.balance_of(PAYEE).await == payee + 2_000 {
            return yard.sound().await;
        }
        yard.mine(1).await;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("it was not sent again");
}
