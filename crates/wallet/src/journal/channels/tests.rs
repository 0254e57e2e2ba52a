use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{Budget, Capture, Terms, View};
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{Charge, Clock, HostRule, Origin, Rules};
use farthing_primitives::{Money, Network, Registry, RequestHash};
use rusqlite::Connection;

use super::*;
use crate::journal::SCHEMA;
use crate::journal::tests::back_to;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const MICRO: u128 = 1_000_000_000_000;

fn at(secs: u64) -> Clock {
    Clock { wall: NOW.plus(Duration::from_secs(secs)), steady: None }
}

fn usdc() -> AssetId {
    Registry::builtin().dollar(&Network::eip155(84532)).unwrap().id.clone()
}

fn address(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn ready() -> Journal {
    let journal = Journal::in_memory().unwrap();
    allow(&journal);
    journal
}

fn allow(journal: &Journal) {
    let change = |rules: &mut Rules| {
        rules.networks.insert(Network::eip155(84532));
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        rules.schemes.insert("session".to_owned());
        Ok(())
    };
    journal.change_rules(change).unwrap();
}

fn life(journal: &Journal, n: u32) -> Journal {
    let name = format!("process {n}");
    let own = name.clone();
    journal.as_process(&name, move |other| other != own)
}

fn request(atoms: u128) -> Request {
    Request {
        scheme: "session".to_owned(),
        charge: Charge::of(&Registry::builtin(), Money::new(usdc(), atoms)).unwrap(),
        price: None,
        payee: address(1),
        origin: Origin::of(&"https://seller.example/".parse().unwrap()).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: Default::default(),
    }
}

const URL: &str = "https://seller.example/";

fn terms(n: u8) -> Terms {
    Terms {
        id: ChannelId([n; 32]),
        payer: address(2),
        payee: address(1),
        signer: address(2),
        asset: usdc(),
        escrow: address(9),
        grace: Duration::from_secs(900),
        capture: Capture::Signed,
        instruction: Instruction::new(vec![0; 52]),
    }
}

fn new(n: u8, deposit: u128) -> NewChannel {
    let budget = Budget {
        most_deposit: u128::MAX,
        most_price: Price::each(1_000, Unit::Request),
        ahead: 10 * deposit,
        trust: 0,
        patience: Duration::from_secs(60),
        slack: Duration::from_secs(60),
    };
    let attempt = AttemptId::new(NOW, [n; 10]);
    NewChannel {
        payer: Payer::open(terms(n), budget, attempt, deposit, NOW).unwrap(),
        number: u64::from(n),
        expires: NOW.plus(Duration::from_secs(60)),
        dollar: Some(MICRO),
        authority: "seller.example:443".to_owned(),
        method: "GET".to_owned(),
        url: URL.to_owned(),
    }
}

fn begin(journal: &Journal, n: u8, deposit: u128) -> AttemptId {
    let new = new(n, deposit);
    let attempt = new.payer.pending().unwrap().id;
    match journal.begin_channel(&request(deposit), &new, &at(0)).unwrap() {
        Begun::New(_) => attempt,
        other => panic!("{other:?}"),
    }
}

fn see(journal: &Journal, n: u8, deposit: u128, settled: u128, finalized: bool, secs: u64) -> KeptChannel {
    let view = View { block: 1 + secs, deposit, settled, close_requested: None, finalized };
    let seen = PayerEvent::Seen { view: Some(view), deep: true };
    journal.step_channel(&ChannelId([n; 32]), &at(secs), |kept, now| kept.payer.step(seen, now)).unwrap()
}

fn draft(n: u16) -> Draft {
    let mut random = [0; 10];
    random[..2].copy_from_slice(&n.to_be_bytes());
    let id = PurchaseId::new(NOW, random);
    Draft {
        id,
        method: "GET".to_owned(),
        url: "https://seller.example/a".to_owned(),
        request_hash: RequestHash([7; 32]),
        payer: address(2),
        consumption: ConsumptionKey::new(format!("voucher:{id}")),
        expires: NOW.plus(Duration::from_secs(60)),
        lag: Duration::ZERO,
        said: Default::default(),
    }
}

fn spend(journal: &Journal, n: u16, price: u128) -> Raised {
    let spend = NewSpend { channel: ChannelId([1; 32]), price, min_delta: 0 };
    journal.spend(&request(price), &draft(n), &spend, &at(1)).unwrap()
}

fn to(raised: &Raised) -> u128 {
    match raised {
        Raised::To { cumulative, .. } => *cumulative,
        other => panic!("{other:?}"),
    }
}

fn hour(journal: &Journal, secs: u64) -> u128 {
    journal.spent(&Bucket::Dollar, &at(secs)).unwrap()[0].1 / MICRO
}

fn header() -> Header {
    Header { name: "authorization".to_owned(), value: "Payment x".to_owned() }
}

/// A file of the first version, as the program of its time left it, is the wallet's file still.
#[test]
fn a_wallet_of_the_first_version_is_opened_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let db = Connection::open(&path).unwrap();
    db.execute_batch(SCHEMA).unwrap();
    let rules = crate::record::print_rules(&Rules::tight([Network::eip155(8453)]));
    db.execute("INSERT INTO setting (key, value) VALUES ('rules', ?1)", [&rules]).unwrap();
    db.execute(
        "INSERT INTO purchase (id, state, created_ms, updated_ms, counts_until_ms, expires_ms, authority, method, url,
         request_hash, asset, atoms, dollars, payee, payer, consumption, holder)
         VALUES (?1, 'presented', ?2, ?2, ?2, ?2, 'a.example:443', 'GET', 'https://a.example/', ?3, ?4, ?5, ?6, ?7, ?7,
         'key', '')",
        params![
            &[1u8; 16][..],
            millis(NOW),
            &[2u8; 32][..],
            usdc().to_string(),
            &5u128.to_be_bytes()[..],
            &(5 * MICRO).to_be_bytes()[..],
            address(1).as_str()
        ],
    )
    .unwrap();
    db.pragma_update(None, "user_version", 1).unwrap();
    drop(db);
    for _ in 0..2 {
        let journal = Journal::open(&path).unwrap();
        assert_eq!(journal.rules().unwrap(), Rules::tight([Network::eip155(8453)]));
        let history = journal.history(10).unwrap();
        assert_eq!(history.len(), 1);
        assert_eq!((history[0].state, history[0].channel), (State::Presented, None));
        assert_eq!(hour(&journal, 0), 5);
        assert!(journal.channels().unwrap().is_empty());
    }
    let db = Connection::open(&path).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    assert!(matches!(Journal::open(&path), Err(JournalError::Version(99))));
}

#[test]
fn a_deposit_counts_from_its_intent_until_it_is_back() {
    let journal = ready();
    begin(&journal, 1, 1_000);
    assert_eq!(hour(&journal, 0), 1_000);
    see(&journal, 1, 1_000, 0, false, 1);
    // As long as it is locked it is in every window, and what vouchers buy counts no second time.
    assert_eq!(hour(&journal, 1_000_000), 1_000);
    assert_eq!(to(&spend(&journal, 1, 100)), 100);
    assert_eq!(hour(&journal, 1_000_000), 1_000);
    // What is taken counts when it is noticed, the rest while it is locked.
    see(&journal, 1, 1_000, 100, false, 2_000_000);
    assert_eq!(hour(&journal, 2_000_000), 1_000);
    see(&journal, 1, 1_000, 150, true, 2_000_001);
    assert_eq!(hour(&journal, 2_000_001), 150);
    assert_eq!(hour(&journal, 2_000_000 + 3_601), 0);
}

#[test]
fn no_deposit_goes_beyond_the_caps() {
    let journal = ready();
    let over = new(1, 200_000);
    let begun = journal.begin_channel(&request(200_000), &over, &at(0)).unwrap();
    assert!(matches!(begun, Begun::Denied(_)), "{begun:?}");
    assert!(journal.channels().unwrap().is_empty());
    assert_eq!(hour(&journal, 0), 0);
}

#[test]
fn there_is_one_channel_between_the_same_parties_at_a_time() {
    let journal = ready();
    begin(&journal, 1, 1_000);
    let second = journal.begin_channel(&request(1_000), &new(2, 1_000), &at(0)).unwrap();
    assert!(matches!(second, Begun::Exists(ref kept) if kept.id() == ChannelId([1; 32])), "{second:?}");
    assert_eq!(hour(&journal, 0), 1_000);
    let parties = Parties::of(&new(1, 1).payer);
    assert_eq!(journal.next_channel_number(&parties).unwrap(), 2);
}

#[test]
fn a_deposit_that_was_never_signed_is_free_when_its_process_is_gone() {
    let disk = ready();
    let first = life(&disk, 1);
    let attempt = begin(&first, 1, 1_000);
    assert_eq!(first.lapse_attempts(&at(0)).unwrap(), 0, "it is at work");
    let second = life(&disk, 2);
    assert_eq!(second.lapse_attempts(&at(0)).unwrap(), 1);
    assert_eq!(hour(&second, 0), 0);
    // Was it not gone after all: what it signs now is dropped.
    assert!(first.attempt_signed(&attempt, &header(), URL, &at(0)).is_err());
    assert!(first.attempt_shown(&attempt, &at(0)).is_err());
}

/// A deposit that the program of the second version signed is on its way still, and says no place of its own.
#[test]
fn a_wallet_of_the_second_version_keeps_its_deposit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let signed = {
        let journal = Journal::open(&path).unwrap();
        allow(&journal);
        let attempt = begin(&journal, 1, 1_000);
        journal.attempt_signed(&attempt, &header(), URL, &at(0)).unwrap();
        attempt
    };
    let db = Connection::open(&path).unwrap();
    back_to(&db, 2);
    drop(db);
    let journal = Journal::open(&path).unwrap();
    let kept = journal.channel(&ChannelId([1; 32])).unwrap().attempt.unwrap();
    assert_eq!(
        (kept.id, kept.state, kept.header, kept.url),
        (signed, AttemptState::Signed, Some(header()), None)
    );
}

#[test]
fn a_deposit_that_was_shown_is_free_only_by_the_chains_word() {
    let disk = ready();
    let first = life(&disk, 1);
    let attempt = begin(&first, 1, 1_000);
    first.attempt_signed(&attempt, &header(), URL, &at(0)).unwrap();
    assert_eq!(first.attempt_shown(&attempt, &at(0)).unwrap(), header());
    let second = life(&disk, 2);
    assert_eq!(second.lapse_attempts(&at(1_000)).unwrap(), 0);
    assert_eq!(hour(&second, 1_000), 1_000);
    let kept = second.channel(&ChannelId([1; 32])).unwrap();
    let shown = kept.attempt.unwrap();
    assert_eq!((shown.state, shown.header, shown.abandoned), (AttemptState::Shown, Some(header()), true));
    assert_eq!(shown.url.as_deref(), Some(URL));
}

#[test]
fn an_agent_that_was_given_a_session_key_shows_no_deposit_of_another() {
    let name: farthing_policy::AgentName = "acme/scout".parse().unwrap();
    for state in [AttemptState::Intended, AttemptState::Signed, AttemptState::Shown] {
        let owner = ready();
        let scout = owner.for_agent(name.clone(), None);
        let attempt = begin(&scout, 1, 1_000);
        if state != AttemptState::Intended {
            scout.attempt_signed(&attempt, &header(), URL, &at(0)).unwrap();
        }
        if state == AttemptState::Shown {
            scout.attempt_shown(&attempt, &at(0)).unwrap();
        }
        let key = farthing_evm::Key::from_bytes([7; 32]).unwrap();
        let hour = Duration::from_secs(3600);
        owner.add_session_key(&key, "scout", Some(&name), &address(2), hour, &at(0)).unwrap();
        let done = match state {
            AttemptState::Intended => scout.attempt_signed(&attempt, &header(), URL, &at(1)),
            _ => scout.attempt_shown(&attempt, &at(1)).map(drop),
        };
        match done {
            // What was shown may be shown again.
            Ok(()) => assert_eq!(state, AttemptState::Shown),
            Err(JournalError::SessionKey(fault)) => {
                assert_ne!(state, AttemptState::Shown);
                assert_eq!(fault.code(), "session_key_needed");
            }
            Err(error) => panic!("{state:?}: {error}"),
        }
    }
}

#[test]
fn a_frozen_wallet_signs_no_deposit_and_no_voucher() {
    let journal = ready();
    let attempt = begin(&journal, 1, 1_000);
    let freeze = |frozen| {
        journal.change_rules(|rules| {
            rules.frozen = frozen;
            Ok(())
        })
    };
    freeze(true).unwrap();
    assert!(matches!(journal.attempt_signed(&attempt, &header(), URL, &at(0)), Err(JournalError::Frozen)));
    freeze(false).unwrap();
    see(&journal, 1, 1_000, 0, false, 1);
    assert_eq!(to(&spend(&journal, 1, 100)), 100);
    freeze(true).unwrap();
    assert!(matches!(spend(&journal, 2, 100), Raised::Denied(_)));
    let signed = journal.voucher_signed(&draft(1).id, &header(), &at(1));
    assert!(matches!(signed, Err(JournalError::Frozen)));
    let need = Need { required: 200, accepted: 100, deposit: 1_000, spent: None };
    let step = Step { min_delta: 0, most: 1_000 };
    let raised = journal.raise(&draft(1).id, &need, true, step, &at(1));
    assert!(matches!(raised, Err(JournalError::Frozen)));
    assert_eq!(journal.channel(&ChannelId([1; 32])).unwrap().payer.signed(), 100);
}

/// A seller may use all that was vouched, whatever it was vouched for, and so all of it counts.
#[test]
fn a_stream_costs_no_more_than_its_call_may_however_large_the_sellers_steps_are() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    let new = NewSpend { channel: ChannelId([1; 32]), price: 10, min_delta: 90 };
    let most = |most| Request { max: Some(most), ..request(10) };
    // Not even the first step is signed for less.
    let denied = journal.spend(&most(89), &draft(1), &new, &at(1));
    assert!(matches!(denied, Err(JournalError::OverMax { most: 89 })), "{denied:?}");
    assert_eq!(to(&journal.spend(&most(1_000), &draft(1), &new, &at(1)).unwrap()), 90);
    journal.voucher_signed(&draft(1).id, &header(), &at(1)).unwrap();
    let step = Step { min_delta: 90, most: 1_000 };
    let ask = |accepted: u128| {
        let need = Need { required: accepted + 10, accepted, deposit: 10_000, spent: None };
        journal.raise(&draft(1).id, &need, true, step, &at(2))
    };
    for steps in 1..11 {
        assert_eq!(to(&ask(steps * 90).unwrap()), (steps + 1) * 90);
        assert_eq!(journal.get(&draft(1).id).unwrap().money.atoms(), (steps + 1) * 90);
    }
    let over = ask(990);
    assert!(matches!(over, Err(JournalError::OverMax { most: 1_000 })), "{over:?}");
    assert_eq!(journal.channel(&ChannelId([1; 32])).unwrap().payer.signed(), 990);
    // In the end it costs what the seller says that was used.
    let receipt = Receipt { accepted: 990, spent: 985, units: 98, deposit: 10_000, settled: 0 };
    let settled =
        Outcome::Settled { tx: None, confirmed: false, goods: Goods::Missing, receipt: None, note: None };
    let got = Got { receipt: Some(receipt), atoms: None, price: 0, is_whole: true };
    journal.present(&draft(1).id, &at(2)).unwrap();
    journal.conclude_spend(&draft(1).id, &settled, Some(&got), None, &at(3)).unwrap();
    assert_eq!(journal.get(&draft(1).id).unwrap().money.atoms(), 985);
    // The five that were vouched and not used pay for the next, and count for that.
    let next = NewSpend { price: 5, ..new };
    assert_eq!(
        to(&journal.spend(&Request { max: Some(5), ..request(5) }, &draft(2), &next, &at(4)).unwrap()),
        990
    );
}

/// The seller's steps need not be whole units: what is left of one buys nothing, and is the buyer's.
#[test]
fn what_the_seller_has_not_spent_of_a_voucher_is_not_counted_as_used() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    let new = NewSpend { channel: ChannelId([1; 32]), price: 100, min_delta: 250 };
    assert_eq!(to(&journal.spend(&request(100), &draft(1), &new, &at(1)).unwrap()), 250);
    journal.voucher_signed(&draft(1).id, &header(), &at(1)).unwrap();
    let step = Step { min_delta: 250, most: 10_000 };
    let ask = |accepted: u128, spent: Option<u128>| {
        let need = Need { required: accepted + 250, accepted, deposit: 10_000, spent };
        to(&journal.raise(&draft(1).id, &need, true, step, &at(2)).unwrap())
    };
    let used = || journal.channel(&ChannelId([1; 32])).unwrap().payer.used();
    assert_eq!((ask(250, Some(200)), used()), (500, 200));
    assert_eq!((ask(500, Some(500)), used()), (750, 500));
    // It has no more than it was given, whatever it says; and whoever says nothing may have taken all of that.
    assert_eq!((ask(750, Some(u128::MAX)), used()), (1_000, 750));
    assert_eq!((ask(1_000, None), used()), (1_250, 1_000));
    let kept = journal.channel(&ChannelId([1; 32])).unwrap();
    assert_eq!(kept.payer.closing_amount(), 1_000);
}

/// A stream takes whatever is vouched on its channel, and so may leave nothing of what a request vouched for.
#[test]
fn what_others_on_the_channel_may_take_first_is_vouched_besides() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    assert_eq!(to(&spend(&journal, 1, 25)), 25);
    assert_eq!(to(&spend(&journal, 2, 107)), 132);
    let raise = |n: u16, required: u128, accepted: u128, most: u128| {
        let need = Need { required, accepted, deposit: 10_000, spent: Some(accepted) };
        let step = Step { min_delta: 0, most };
        journal.raise(&draft(n).id, &need, n == 1, step, &at(2))
    };
    for n in [1, 2] {
        journal.voucher_signed(&draft(n).id, &header(), &at(1)).unwrap();
        journal.present(&draft(n).id, &at(1)).unwrap();
    }
    let begun = Outcome::Settled {
        tx: None,
        confirmed: false,
        goods: Goods::Delivered,
        receipt: None,
        note: Some(STREAMS.to_owned()),
    };
    journal.conclude(&draft(1).id, &begun, &at(1)).unwrap();
    // The stream took all of it, and asks for a unit: what the request was promised is vouched again beside it.
    let stream = to(&raise(1, 157, 132, 10_000).unwrap());
    assert!(stream >= 157 + 107, "{stream}");
    // It took that as well, and the request needs more: what the stream may take meanwhile is vouched, too.
    let request = to(&raise(2, stream + 107, stream, 10_000).unwrap());
    let ahead = stream - 107 - 25;
    assert!(request >= stream + 107 + ahead, "{request}");
    // They were faster once more: it asks for more each time, so that it is not outrun for long.
    let again = to(&raise(2, request + 50, request, 10_000).unwrap());
    assert!(again - (request + 50) >= 2 * 107 + ahead, "{again}");
    // A purchase that may not cost so much gets what there is room for, and no more than it may cost.
    let had = journal.get(&draft(2).id).unwrap().money.atoms();
    assert_eq!(to(&raise(2, again + 100, again, had + 110).unwrap()), again + 110);
    let over = raise(2, again + 111, again + 110, had + 110);
    assert!(matches!(over, Err(JournalError::OverMax { .. })), "{over:?}");
    // Nor does it make anybody deposit more.
    let Raised::To { cumulative, .. } = raise(2, 9_990, again + 110, u128::MAX).unwrap() else { panic!() };
    assert_eq!(cumulative, 10_000);
}

/// A stream whose call may cost `max`: it got 10, and all the rest is vouched for it.
fn stream(journal: &Journal, n: u16, max: u128) {
    let most = Request { max: Some(max), ..request(10) };
    let new = NewSpend { channel: ChannelId([1; 32]), price: 10, min_delta: 0 };
    assert_eq!(to(&journal.spend(&most, &draft(n), &new, &at(1)).unwrap()), 10);
    journal.voucher_signed(&draft(n).id, &header(), &at(1)).unwrap();
    journal.present(&draft(n).id, &at(1)).unwrap();
    journal.conclude(&draft(n).id, &settled(Some(STREAMS.to_owned())), &at(1)).unwrap();
    let need = Need { required: 20, accepted: 10, deposit: 10_000, spent: Some(10) };
    let step = Step { min_delta: max - 10, most: max };
    assert_eq!(to(&journal.raise(&draft(n).id, &need, true, step, &at(1)).unwrap()), max);
}

fn settled(note: Option<String>) -> Outcome {
    Outcome::Settled { tx: None, confirmed: false, goods: Goods::Delivered, receipt: None, note }
}

/// A request whose unit only the seller counts, with what its receipt says.
fn by_the_unit(journal: &Journal, n: u16, max: u128, spent: u128) -> u128 {
    let new = NewSpend { channel: ChannelId([1; 32]), price: 10, min_delta: 0 };
    let most = Request { max: Some(max), ..request(10) };
    let to = to(&journal.spend(&most, &draft(n), &new, &at(2)).unwrap());
    journal.voucher_signed(&draft(n).id, &header(), &at(2)).unwrap();
    journal.present(&draft(n).id, &at(2)).unwrap();
    let receipt = Receipt { accepted: to, spent: spent.min(to), units: 1, deposit: 0, settled: 0 };
    let got = Got { receipt: Some(receipt), atoms: None, price: 10, is_whole: true };
    journal.conclude_spend(&draft(n).id, &settled(None), Some(&got), None, &at(2)).unwrap();
    to
}

/// What a stream was vouched is the stream's: a seller that counts it in another purchase's receipt gets no room by that.
#[test]
fn a_streams_share_is_no_room_for_a_later_call() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    stream(&journal, 1, 1_000);
    let got = Got { receipt: None, atoms: None, price: 10, is_whole: true };
    journal.conclude_spend(&draft(1).id, &settled(None), Some(&got), None, &at(1)).unwrap();
    assert_eq!(by_the_unit(&journal, 2, 100, u128::MAX), 1_000);
    assert_eq!(journal.get(&draft(2).id).unwrap().money.atoms(), 990);
    let new = NewSpend { channel: ChannelId([1; 32]), price: 10, min_delta: 0 };
    let most = Request { max: Some(20), ..request(10) };
    assert_eq!(to(&journal.spend(&most, &draft(3), &new, &at(3)).unwrap()), 1_010);
    let need = Need { required: 2_000, accepted: 1_010, deposit: 10_000, spent: Some(1_010) };
    let raised = journal.raise(&draft(3).id, &need, false, Step { min_delta: 0, most: 20 }, &at(3));
    assert!(matches!(raised, Err(JournalError::OverMax { .. })), "{raised:?}");
}

#[test]
fn a_streams_share_in_anothers_receipt_is_no_room_for_the_stream() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    stream(&journal, 1, 1_000);
    assert_eq!(by_the_unit(&journal, 2, 100, u128::MAX), 1_000);
    let need = Need { required: 1_010, accepted: 1_000, deposit: 10_000, spent: Some(1_000) };
    let raised = journal.raise(&draft(1).id, &need, true, Step { min_delta: 980, most: 1_000 }, &at(3));
    assert!(matches!(raised, Err(JournalError::OverMax { .. })), "{raised:?}");
}

#[test]
fn a_streams_share_in_another_streams_receipt_is_no_room_for_it() {
    let journal = ready();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    stream(&journal, 1, 1_000);
    // Another stream, of a call that may cost 20, whose last word claims what the first had.
    let new = NewSpend { channel: ChannelId([1; 32]), price: 10, min_delta: 0 };
    let most = Request { max: Some(20), ..request(10) };
    assert_eq!(to(&journal.spend(&most, &draft(2), &new, &at(2)).unwrap()), 1_000);
    journal.voucher_signed(&draft(2).id, &header(), &at(2)).unwrap();
    journal.present(&draft(2).id, &at(2)).unwrap();
    journal.conclude(&draft(2).id, &settled(Some(STREAMS.to_owned())), &at(2)).unwrap();
    let receipt = Receipt { accepted: 1_000, spent: 1_000, units: 1, deposit: 0, settled: 0 };
    let got = Got { receipt: Some(receipt), atoms: None, price: 10, is_whole: true };
    journal.conclude_spend(&draft(2).id, &settled(None), Some(&got), None, &at(2)).unwrap();
    let need = Need { required: 1_010, accepted: 1_000, deposit: 10_000, spent: Some(1_000) };
    let raised = journal.raise(&draft(1).id, &need, true, Step { min_delta: 980, most: 1_000 }, &at(3));
    assert!(matches!(raised, Err(JournalError::OverMax { .. })), "{raised:?}");
}

/// Two processes on one wallet, at the same moment and over the same file.
#[test]
fn two_processes_never_sign_for_the_same_increment() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let journal = Journal::open(&path).unwrap();
    allow(&journal);
    begin(&journal, 1, 10_000);
    see(&journal, 1, 10_000, 0, false, 1);
    let path = Arc::new(path);
    let threads: Vec<_> = (0..2u16)
        .map(|n| {
            let path = path.clone();
            std::thread::spawn(move || {
                let journal = Journal::open(&path).unwrap();
                (0..20).map(|i| to(&spend(&journal, n * 100 + i, 100))).collect::<Vec<u128>>()
            })
        })
        .collect();
    let mut signed: Vec<u128> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    signed.sort_unstable();
    assert_eq!(signed, (1..=40).map(|n| n * 100).collect::<Vec<u128>>());
    assert_eq!(journal.channel(&ChannelId([1; 32])).unwrap().payer.signed(), 4_000);
}

#[test]
fn what_was_vouched_and_not_used_pays_for_the_next_and_no_voucher_goes_back() {
    let journal = ready();
    begin(&journal, 1, 1_000);
    see(&journal, 1, 1_000, 0, false, 1);
    assert_eq!(to(&spend(&journal, 1, 300)), 300);
    let id = draft(1).id;
    journal.voucher_signed(&id, &header(), &at(1)).unwrap();
    journal.present(&id, &at(1)).unwrap();
    let refused = Outcome::Refused { receipt: None, note: "no".to_owned() };
    let kept = journal.conclude_spend(&id, &refused, None, None, &at(1)).unwrap();
    assert_eq!((kept.payer.signed(), kept.payer.used()), (300, 0));
    // Less than was sent is never signed again; and what is there is used first.
    assert_eq!(to(&spend(&journal, 2, 100)), 300);
    assert_eq!(to(&spend(&journal, 3, 250)), 350);
    // Beyond the deposit, a top-up comes first.
    assert_eq!(spend(&journal, 4, 800), Raised::NeedsTopUp { missing: 150 });
    assert_eq!(journal.channel(&ChannelId([1; 32])).unwrap().payer.signed(), 350);
}

#[test]
fn an_answer_that_comes_twice_is_counted_once() {
    let journal = ready();
    begin(&journal, 1, 1_000);
    see(&journal, 1, 1_000, 0, false, 1);
    spend(&journal, 1, 100);
    let id = draft(1).id;
    journal.voucher_signed(&id, &header(), &at(1)).unwrap();
    journal.present(&id, &at(1)).unwrap();
    let settled =
        Outcome::Settled { tx: None, confirmed: false, goods: Goods::Delivered, receipt: None, note: None };
    let receipt = Receipt { accepted: 100, spent: 100, units: 1, deposit: 0, settled: 0 };
    let got = Got { receipt: Some(receipt), atoms: Some(100), price: 100, is_whole: true };
    for _ in 0..2 {
        let kept = journal.conclude_spend(&id, &settled, Some(&got), Some("{}"), &at(2)).unwrap();
        assert_eq!((kept.payer.used(), kept.payer.overclaim()), (100, None));
        assert_eq!(kept.receipt.as_deref(), Some("{}"));
    }
}
