use farthing_evm::Key;
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{Charge, HostRule, Origin, Request, Rules, Steady};
use farthing_primitives::{Asset, Network, Registry, RequestHash};

use super::*;
use crate::journal::{Draft, Header, State};
use crate::signer::Signer;
use crate::way_home::{WayHomeError, call_home};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const HOUR: Duration = Duration::from_secs(3600);

fn at(secs: u64) -> Clock {
    Clock { wall: NOW.plus(Duration::from_secs(secs)), steady: None }
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32]).unwrap()
}

fn owners() -> Address {
    Address::from_evm_bytes([9; 20])
}

fn journal() -> Journal {
    let journal = Journal::in_memory().unwrap();
    let allow = |rules: &mut Rules| {
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        Ok(())
    };
    journal.change_rules(allow).unwrap();
    journal
}

fn add(journal: &Journal, n: u8, called: &str, agent: Option<&str>, clock: &Clock) -> SessionKey {
    let agent = agent.map(name);
    journal.add_session_key(&key(n), called, agent.as_ref(), &owners(), HOUR, clock).unwrap()
}

fn usdc() -> Asset {
    Registry::builtin().dollar(&Network::eip155(84532)).unwrap().clone()
}

/// Reserves a payment that ends so many seconds after [`NOW`].
fn reserve(
    journal: &Journal,
    payer: &Address,
    n: u8,
    ends: u64,
    clock: &Clock,
) -> Result<PurchaseId, JournalError> {
    let request = Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&Registry::builtin(), usdc().atoms(100)).unwrap(),
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin: Origin::of(&"https://seller.example/".parse().unwrap()).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: Default::default(),
    };
    let draft = Draft {
        id: PurchaseId::new(NOW, [n; 10]),
        method: "GET".to_owned(),
        url: "https://seller.example/".to_owned(),
        request_hash: RequestHash([n; 32]),
        payer: payer.clone(),
        consumption: ConsumptionKey::new(format!("test:{n}")),
        expires: NOW.plus(Duration::from_secs(ends)),
        lag: Duration::ZERO,
        said: Default::default(),
    };
    let decided = journal.reserve(&request, &draft, clock)?.decision;
    assert!(decided.is_allowed(), "{decided}");
    Ok(draft.id)
}

fn show(journal: &Journal, id: &PurchaseId, clock: &Clock) -> Result<(), JournalError> {
    let header = Header { name: "payment-signature".to_owned(), value: "x".to_owned() };
    journal.present_signed(id, &header, &Instruction::new(vec![1]), clock).map(drop)
}

fn code<T>(done: Result<T, JournalError>) -> &'static str {
    match done {
        Err(JournalError::SessionKey(fault)) => fault.code(),
        Err(error) => panic!("{error}"),
        Ok(_) => "done",
    }
}

#[test]
fn a_session_key_signs_until_its_end_and_nothing_that_outlives_it() {
    let journal = journal();
    let made = add(&journal, 3, "scout", None, &at(0));
    let payer = &made.terms.address;
    assert_eq!(made.ends(), NOW.plus(HOUR));
    assert_eq!(code(reserve(&journal, payer, 1, 3600, &at(3590))), "done", "to the second");
    assert_eq!(code(reserve(&journal, payer, 2, 3601, &at(3590))), "session_key_outlived");
    let before = reserve(&journal, payer, 3, 3599, &at(3598)).unwrap();
    let shown = reserve(&journal, payer, 4, 3599, &at(3598)).unwrap();
    show(&journal, &shown, &at(3599)).unwrap();
    for late in [3600, 3601, 90_000] {
        assert_eq!(code(reserve(&journal, payer, 5, late, &at(late))), "session_key_ended", "{late}");
    }
    assert_eq!(code(show(&journal, &before, &at(3600))), "session_key_ended", "reserved is not signed");
    assert_eq!(journal.get(&before).unwrap().state, State::Intended);
    // What was shown is shown again: the goods are owed, and the bytes are out.
    journal.present(&shown, &at(3600)).unwrap();
    // The wallet's own key has no end.
    assert_eq!(code(reserve(&journal, &owners(), 6, 90_000, &at(89_990))), "done");
}

#[test]
fn a_clock_that_is_set_lengthens_no_session_key() {
    let journal = journal();
    let payer = add(&journal, 3, "scout", None, &at(0)).terms.address;
    // Seen late once, it is late from then on.
    journal.note_time(&at(3600)).unwrap();
    assert_eq!(code(reserve(&journal, &payer, 1, 60, &at(0))), "session_key_ended");
    assert_eq!(code(journal.terms(&payer, &at(0)).map(drop)), "session_key_ended");
    // A clock that stands still while the steady one goes on.
    let journal = self::journal();
    let steady = |wall: u64, elapsed: u64| Clock {
        steady: Some(Steady { boot: "boot".to_owned(), elapsed: Duration::from_secs(elapsed) }),
        ..at(wall)
    };
    let payer = add(&journal, 3, "scout", None, &steady(0, 10)).terms.address;
    assert_eq!(
        journal.terms(&payer, &steady(0, 110)).unwrap().key.map(|standing| standing.left),
        Some(HOUR - Duration::from_secs(100))
    );
    assert_eq!(code(reserve(&journal, &payer, 1, 3500, &steady(0, 110))), "done");
    assert_eq!(code(reserve(&journal, &payer, 2, 3501, &steady(0, 110))), "session_key_outlived");
    assert_eq!(code(reserve(&journal, &payer, 3, 60, &steady(0, 3610))), "session_key_ended");
    // One that the books do not believe ends it all the same.
    let journal = self::journal();
    let payer = add(&journal, 3, "scout", None, &steady(0, 10)).terms.address;
    assert_eq!(code(reserve(&journal, &payer, 1, 3660, &steady(3600, 11))), "session_key_ended");
    assert_eq!(code(reserve(&journal, &payer, 2, 60, &steady(0, 12))), "done", "put right, it goes on");
    journal.end_session_key("scout", false, &steady(3600, 13)).unwrap();
    let over = code(reserve(&journal, &payer, 3, 60, &steady(0, 14)));
    assert_eq!(over, "session_key_ended", "what the owner ended stays so");
}

#[test]
fn an_agent_with_a_session_key_pays_with_it_alone_and_nobody_else_does() {
    let owner = journal();
    let bound = add(&owner, 3, "scout", Some("acme/scout"), &at(0));
    let payer = &bound.terms.address;
    let (scout, other) =
        (owner.for_agent(name("acme/scout"), None), owner.for_agent(name("acme/other"), None));
    let part = owner.for_agent(name("acme/scout/part"), None);
    assert_eq!(code(reserve(&scout, payer, 1, 60, &at(0))), "done");
    assert_eq!(code(reserve(&scout, &owners(), 2, 60, &at(0))), "session_key_needed");
    for journal in [&owner, &other, &part] {
        assert_eq!(code(reserve(journal, payer, 3, 60, &at(0))), "session_key_of_another");
        assert_eq!(code(journal.terms(payer, &at(0)).map(drop)), "session_key_of_another");
    }
    assert_eq!(code(reserve(&other, &owners(), 4, 60, &at(0))), "done");
    // While it signs, the agent gets no second one.
    let again = owner.add_session_key(&key(4), "two", Some(&name("acme/scout")), &owners(), HOUR, &at(1));
    assert!(matches!(again, Err(SessionKeyError::HasOne { name, .. }) if name == "scout"));
    let asked = owner.may_add_session_key("two", Some(&name("acme/scout")), HOUR, &at(1));
    assert!(matches!(asked, Err(SessionKeyError::HasOne { name, .. }) if name == "scout"));
    // Its end leaves the agent with nothing, and not with the wallet's own key.
    assert_eq!(code(reserve(&scout, payer, 5, 3660, &at(3600))), "session_key_ended");
    assert_eq!(code(reserve(&scout, &owners(), 5, 3660, &at(3600))), "session_key_needed");
    let next = add(&owner, 4, "two", Some("acme/scout"), &at(3600));
    assert_eq!(code(reserve(&scout, payer, 6, 3660, &at(3600))), "session_key_needed");
    assert_eq!(code(reserve(&scout, &next.terms.address, 6, 3660, &at(3600))), "done");
    assert_eq!(owner.session_key_of(&name("acme/scout")).unwrap(), Some(next));
    // Let go, it pays as the others do.
    let ended = owner.end_session_key("two", false, &at(3601)).unwrap();
    assert!(ended.binds);
    assert_eq!(code(reserve(&scout, &owners(), 7, 3660, &at(3601))), "session_key_needed");
    assert!(!owner.end_session_key("two", true, &at(3602)).unwrap().binds);
    assert_eq!(code(reserve(&scout, &owners(), 7, 3660, &at(3602))), "done");
}

#[test]
fn a_session_key_that_is_ended_signs_nothing_from_then_on() {
    let journal = journal();
    let made = add(&journal, 3, "scout", None, &at(0));
    let payer = &made.terms.address;
    let reserved = reserve(&journal, payer, 1, 60, &at(0)).unwrap();
    assert_eq!(
        journal.end_session_key("scout", false, &at(5)).unwrap().ends(),
        NOW.plus(Duration::from_secs(5))
    );
    assert_eq!(code(show(&journal, &reserved, &at(6))), "session_key_ended");
    assert_eq!(code(reserve(&journal, payer, 2, 60, &at(6))), "session_key_ended");
    let first = journal.end_session_key("scout", false, &at(50)).unwrap();
    assert_eq!(first.ended, Some(NOW.plus(Duration::from_secs(5))), "once is enough");
    assert!(matches!(journal.end_session_key("none", false, &at(6)), Err(SessionKeyError::Unknown(_))));
    let standing = journal.session_keys(&at(6)).unwrap();
    assert_eq!((standing.len(), standing[0].left), (1, Duration::ZERO));
}

#[test]
fn whoever_changes_a_session_key_in_the_file_is_found_out() {
    let changes = [
        "UPDATE session_key SET ends_ms = ends_ms + 1",
        "UPDATE session_key SET made_ms = made_ms + 1",
        "UPDATE session_key SET home = '0x0101010101010101010101010101010101010101'",
        "UPDATE session_key SET agent = NULL",
        "UPDATE session_key SET name = 'other'",
        "UPDATE session_key SET signature = zeroblob(65)",
    ];
    for change in changes {
        let journal = journal();
        let payer = add(&journal, 3, "scout", Some("a"), &at(0)).terms.address;
        let agent = journal.for_agent(name("a"), None);
        journal.within(|tx| run(tx, change, []).map(drop)).unwrap();
        let corrupt = |done: Result<(), JournalError>| {
            assert!(matches!(done, Err(JournalError::Corrupt("session key"))), "{change}: {done:?}");
        };
        corrupt(reserve(&agent, &payer, 1, 60, &at(0)).map(drop));
        corrupt(agent.terms(&payer, &at(0)).map(drop));
        corrupt(reserve(&agent, &owners(), 2, 60, &at(0)).map(drop));
        corrupt(journal.session_keys(&at(0)).map(drop));
    }
    // One that is gone leaves its agent with nothing.
    let journal = journal();
    add(&journal, 3, "scout", Some("a"), &at(0));
    journal.within(|tx| run(tx, "DELETE FROM session_key", []).map(drop)).unwrap();
    let agent = journal.for_agent(name("a"), None);
    let gone = reserve(&agent, &owners(), 1, 60, &at(0));
    assert!(matches!(gone, Err(JournalError::Corrupt("session key"))), "{gone:?}");
}

#[test]
fn a_session_key_is_made_for_a_while_and_once() {
    let journal = journal();
    let make = |length: Duration| journal.add_session_key(&key(3), "scout", None, &owners(), length, &at(0));
    let tick = Duration::from_millis(1);
    for length in [Duration::ZERO, SHORTEST - tick, LONGEST + tick] {
        let asked = journal.may_add_session_key("scout", None, length, &at(0));
        assert!(matches!(asked, Err(SessionKeyError::Length)), "{length:?}");
        assert!(matches!(make(length), Err(SessionKeyError::Length)), "{length:?}");
    }
    let asked = || journal.may_add_session_key("scout", None, LONGEST, &at(0));
    asked().unwrap();
    make(LONGEST).unwrap();
    assert!(matches!(asked(), Err(SessionKeyError::Exists(_))));
    assert!(matches!(make(SHORTEST), Err(SessionKeyError::Exists(_))));
    assert!(matches!(journal.session_key("other"), Err(SessionKeyError::Unknown(_))));
    let leaves = journal.audit_leaves(0, 100).unwrap();
    let said: Vec<String> =
        leaves.iter().map(|leaf| String::from_utf8_lossy(&leaf.bytes).into_owned()).collect();
    assert!(said.iter().any(|leaf| leaf.contains("session_key_made")), "{said:?}");
}

#[test]
fn an_ended_session_key_signs_the_way_home_and_it_is_the_same_each_time() {
    let journal = journal();
    let made = add(&journal, 3, "scout", None, &at(0));
    let payer = made.terms.address.clone();
    let (out, unsigned) = (
        reserve(&journal, &payer, 1, 60, &at(0)).unwrap(),
        reserve(&journal, &payer, 2, 60, &at(0)).unwrap(),
    );
    show(&journal, &out, &at(1)).unwrap();
    journal.end_session_key("scout", false, &at(2)).unwrap();
    let asset = usdc();
    // What was shown may still be taken, what was not will never be.
    let held = journal.may_still_move(&payer, &asset.id, &at(3)).unwrap();
    assert_eq!(held, (100, Some(NOW.plus(Duration::from_secs(60)))));
    assert_eq!(journal.may_still_move(&payer, &asset.id, &at(60)).unwrap(), (0, None));
    assert_eq!(journal.get(&unsigned).unwrap().state, State::Intended);

    assert_eq!(journal.open_sweep(&made, &asset.id).unwrap(), None);
    let sweep = journal.begin_sweep(&made, &asset.id, 700, [5; 32], &at(90_000)).unwrap();
    assert_eq!(journal.open_sweep(&made, &asset.id).unwrap().as_ref(), Some(&sweep));
    // While it may come there is no second one.
    assert_eq!(journal.begin_sweep(&made, &asset.id, 900, [6; 32], &at(90_001)).unwrap(), sweep);
    let call = call_home(&key(3), &made.terms, &sweep, &asset).unwrap();
    assert_eq!(call_home(&key(3), &made.terms, &sweep, &asset).unwrap(), call);
    let goes_to = &call[4 + 32..4 + 64];
    assert_eq!(goes_to[12..], [9; 20], "to where it was made, and nowhere else");
    assert_eq!(call_home(&key(4), &made.terms, &sweep, &asset), Err(WayHomeError::OtherKey));
    assert_ne!(Signer::address(&key(4)), payer);
    journal.end_sweep(&sweep.nonce, true, Some("0x1")).unwrap();
    assert_eq!(journal.open_sweep(&made, &asset.id).unwrap(), None);
    let next = journal.begin_sweep(&made, &asset.id, 200, [6; 32], &at(90_001)).unwrap();
    assert_eq!((next.nonce, next.atoms), ([6; 32], 200));
}

#[test]
fn what_was_shown_stays_for_as_long_as_it_counts() {
    let journal = journal();
    let payer = add(&journal, 3, "scout", None, &at(0)).terms.address;
    let asset = usdc().id;
    // It lapses after 20 seconds, and counts for the 60 of the request.
    let shown = reserve(&journal, &payer, 1, 20, &at(0)).unwrap();
    show(&journal, &shown, &at(1)).unwrap();
    let until = Some(NOW.plus(Duration::from_secs(60)));
    for secs in [2, 20, 59] {
        assert_eq!(journal.may_still_move(&payer, &asset, &at(secs)).unwrap(), (100, until), "{secs}");
    }
    assert_eq!(journal.may_still_move(&payer, &asset, &at(60)).unwrap(), (0, None));
}
