use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farthing_evm::Key;
use farthing_policy::{HostRule, Origin, Steady};
use farthing_primitives::Registry;

use super::*;

mod audit;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const MICRO: u128 = 1_000_000_000_000;

fn at(secs: u64) -> Clock {
    Clock { wall: NOW.plus(Duration::from_secs(secs)), steady: None }
}

fn sepolia() -> Network {
    Network::eip155(84532)
}

fn address(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn allow(journal: &Journal) {
    let change = |rules: &mut Rules| {
        rules.networks.insert(sepolia());
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        Ok(())
    };
    journal.change_rules(change).unwrap();
}

fn ready() -> Journal {
    let journal = Journal::in_memory().unwrap();
    allow(&journal);
    journal
}

fn request(atoms: u128) -> Request {
    let registry = Registry::builtin();
    Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, registry.dollar(&sepolia()).unwrap().atoms(atoms)).unwrap(),
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

fn draft(clock: &Clock) -> Draft {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    Draft {
        id: PurchaseId::new(clock.wall, random),
        method: "GET".to_owned(),
        url: "https://seller.example/a".to_owned(),
        request_hash: RequestHash([7; 32]),
        payer: address(2),
        consumption: ConsumptionKey::new(format!("test:{n}")),
        expires: clock.wall.plus(Duration::from_secs(60)),
        lag: Duration::ZERO,
        said: Said::default(),
    }
}

fn reserve(journal: &Journal, atoms: u128, clock: &Clock) -> Option<PurchaseId> {
    let draft = draft(clock);
    journal.reserve(&request(atoms), &draft, clock).unwrap().decision.is_allowed().then_some(draft.id)
}

fn header() -> Header {
    Header { name: "payment-signature".to_owned(), value: "x".to_owned() }
}

fn sign(journal: &Journal, id: &PurchaseId, clock: &Clock) {
    journal.signed(id, &header(), &Instruction::new(vec![1]), clock).unwrap();
}

fn hour(journal: &Journal, clock: &Clock) -> u128 {
    journal.spent(&Bucket::Dollar, clock).unwrap()[0].1 / MICRO
}

#[test]
fn a_new_wallet_allows_no_payment() {
    let journal = Journal::in_memory().unwrap();
    assert_eq!(reserve(&journal, 1, &at(0)), None);
    assert!(journal.history(10).unwrap().is_empty());
}

#[test]
fn a_purchase_lives_from_intent_to_settlement() {
    let journal = ready();
    let id = reserve(&journal, 50_000, &at(0)).unwrap();
    assert_eq!(journal.get(&id).unwrap().state, State::Intended);
    assert!(journal.present(&id, &at(0)).is_err(), "nothing is shown before it is signed");
    sign(&journal, &id, &at(0));
    assert_eq!(journal.present(&id, &at(1)).unwrap(), header());
    journal
        .conclude(
            &id,
            &Outcome::Unknown { tx: None, goods: Goods::Missing, receipt: None, note: "time-out".to_owned() },
            &at(2),
        )
        .unwrap();
    assert_eq!(journal.unknown_for(&RequestHash([7; 32])).unwrap().unwrap().id, id);
    assert_eq!(journal.present(&id, &at(3)).unwrap(), header());
    let settled = Outcome::Settled {
        tx: Some("0xaa".to_owned()),
        confirmed: true,
        goods: Goods::Delivered,
        receipt: Some("{}".to_owned()),
        note: None,
    };
    journal.conclude(&id, &settled, &at(4)).unwrap();
    let forged = Outcome::Settled {
        tx: Some("0xbb".to_owned()),
        confirmed: false,
        goods: Goods::Missing,
        receipt: None,
        note: None,
    };
    journal.conclude(&id, &forged, &at(5)).unwrap();
    let refused = Outcome::Refused { receipt: None, note: "no".to_owned() };
    journal.conclude(&id, &refused, &at(6)).unwrap();
    let purchase = journal.get(&id).unwrap();
    assert_eq!((purchase.state, purchase.confirmed, purchase.shown), (State::Settled, true, 2));
    assert_eq!(purchase.tx.as_deref(), Some("0xaa"));
    assert_eq!(purchase.money, request(50_000).charge.money().clone());
    assert!(!purchase.finalized);
    journal.finalize(&id).unwrap();
    assert!(journal.release(&id, Proof::UnusedAfterExpiry, &at(100)).is_err());
    assert_eq!(hour(&journal, &at(7)), 50_000);
    assert_eq!(journal.history(10).unwrap(), [Purchase { finalized: true, ..purchase }]);
    assert!(journal.open_purchases().unwrap().is_empty());
}

/// Known attack 22: a seller answers with an error to get the reservation freed.
#[test]
fn attack_22_a_sellers_error_frees_nothing() {
    let journal = ready();
    let id = reserve(&journal, 60_000, &at(0)).unwrap();
    sign(&journal, &id, &at(0));
    journal.present(&id, &at(0)).unwrap();
    journal.conclude(&id, &Outcome::Refused { receipt: None, note: "no".to_owned() }, &at(1)).unwrap();
    assert_eq!(hour(&journal, &at(1)), 60_000);
    assert_eq!(hour(&journal, &at(3000)), 60_000);
    assert!(journal.release(&id, Proof::NeverShown, &at(1)).is_err(), "it was shown");
    journal.recover(&at(1000)).unwrap();
    assert_eq!(hour(&journal, &at(1000)), 60_000);
    journal.release(&id, Proof::UnusedAfterExpiry, &at(1000)).unwrap();
    assert_eq!(hour(&journal, &at(1000)), 0);
    assert!(
        journal
            .conclude(
                &id,
                &Outcome::Unknown { tx: None, goods: Goods::Missing, receipt: None, note: String::new() },
                &at(1001)
            )
            .is_err()
    );
}

/// Known attack 25: the process dies between the intent, the signature and its record.
#[test]
fn attack_25_a_crash_keeps_the_hold_and_never_signs_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("home/wallet.db");
    let (intended, signed, shown) = {
        let journal = Journal::open(&path).unwrap();
        allow(&journal);
        let ids = [(); 3].map(|()| reserve(&journal, 10_000, &at(0)).unwrap());
        sign(&journal, &ids[1], &at(0));
        sign(&journal, &ids[2], &at(0));
        journal.present(&ids[2], &at(0)).unwrap();
        (ids[0], ids[1], ids[2])
    };
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.recover(&at(59)).unwrap(), 0);
    assert_eq!(hour(&journal, &at(59)), 30_000);
    assert_eq!(journal.get(&signed).unwrap().header, Some(header()), "the same payment can be shown again");
    // Once they have lapsed, what nobody saw is free, and what somebody saw is not.
    assert_eq!(journal.recover(&at(61)).unwrap(), 2);
    assert_eq!(hour(&journal, &at(61)), 10_000);
    assert_eq!(journal.get(&intended).unwrap().state, State::Released);
    assert_eq!(journal.get(&shown).unwrap().state, State::Presented);
    let late = journal.signed(&intended, &header(), &Instruction::new(vec![1]), &at(61));
    assert!(matches!(late, Err(JournalError::Transition { from: State::Released, to: State::Signed })));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

/// Known attack 20: a hundred purchases at once, with a cap for ten, from several connections.
#[test]
fn attack_20_a_hundred_at_once_never_exceed_the_cap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    allow(&Journal::open(&path).unwrap());
    let journals: Vec<_> = (0..4).map(|_| Arc::new(Journal::open(&path).unwrap())).collect();
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for n in 0..100 {
            let (journal, passed) = (journals[n % journals.len()].clone(), &passed);
            scope.spawn(move || {
                if reserve(&journal, 100_000, &at(0)).is_some() {
                    passed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!(passed.into_inner(), 10, "the hour's cap is $1");
    assert_eq!(hour(&journals[0], &at(0)), 1_000_000);
}

/// Known attack 23: the clock is set back, so that what is reserved then would seem long past.
#[test]
fn attack_23_a_clock_set_back_resets_nothing() {
    let journal = ready();
    for _ in 0..5 {
        reserve(&journal, 100_000, &at(400_000)).unwrap();
    }
    for _ in 0..5 {
        reserve(&journal, 100_000, &at(0)).unwrap();
    }
    assert_eq!(reserve(&journal, 100_000, &at(0)), None);
    assert_eq!(reserve(&journal, 100_000, &at(400_000)), None);
    let steady = |secs, elapsed| Clock {
        wall: NOW.plus(Duration::from_secs(secs)),
        steady: Some(Steady { boot: "a".to_owned(), elapsed: Duration::from_secs(elapsed) }),
    };
    assert_eq!(reserve(&journal, 100_000, &steady(400_001, 10)), None);
    assert_eq!(reserve(&journal, 100_000, &steady(900_000, 12)), None, "set to tomorrow");
    assert!(reserve(&journal, 100_000, &steady(900_000, 10 + 86_400)).is_some(), "a day went by");
}

/// Known attack 27: the owner freezes while a payment is on its way.
#[test]
fn attack_27_after_a_freeze_nothing_new_leaves() {
    let journal = ready();
    let ids = [(); 3].map(|()| reserve(&journal, 10_000, &at(0)).unwrap());
    sign(&journal, &ids[1], &at(0));
    sign(&journal, &ids[2], &at(0));
    journal.present(&ids[2], &at(0)).unwrap();
    let freeze = |rules: &mut Rules| {
        rules.frozen = true;
        Ok(())
    };
    journal.change_rules(freeze).unwrap();
    assert_eq!(reserve(&journal, 10_000, &at(1)), None);
    let signing = journal.signed(&ids[0], &header(), &Instruction::new(vec![1]), &at(1));
    assert!(matches!(signing, Err(JournalError::Frozen)));
    assert!(matches!(journal.present(&ids[1], &at(1)), Err(JournalError::Frozen)));
    journal.present(&ids[2], &at(1)).unwrap();
}

/// Known attack 28: the rules or the books cannot be read.
#[test]
fn attack_28_unreadable_books_pay_nothing() {
    let journal = ready();
    journal.db.alone(|db| db.execute("UPDATE setting SET value = '{}' WHERE key = 'rules'", [])).unwrap();
    let clock = at(0);
    assert!(matches!(
        journal.reserve(&request(1), &draft(&clock), &clock),
        Err(JournalError::Corrupt("rule set"))
    ));
    let journal = ready();
    journal.db.alone(|db| db.execute("DROP TABLE purchase", [])).unwrap();
    assert!(matches!(journal.reserve(&request(1), &draft(&clock), &clock), Err(JournalError::Sqlite(_))));
    let journal = ready();
    journal.db.alone(|db| db.pragma_update(None, "query_only", true)).unwrap();
    assert!(matches!(journal.reserve(&request(1), &draft(&clock), &clock), Err(JournalError::Sqlite(_))));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wallet.db"), "not a database, but long enough to be taken for one")
        .unwrap();
    assert!(Journal::open(&dir.path().join("wallet.db")).is_err());
}

#[test]
fn payees_are_pinned_with_the_first_reservation() {
    let journal = ready();
    reserve(&journal, 1, &at(0)).unwrap();
    assert_eq!(journal.pins("seller.example:443").unwrap(), [(sepolia(), address(1))]);
    let mut other = request(1);
    other.payee = address(9);
    let clock = at(1);
    let denied = journal.reserve(&other, &draft(&clock), &clock).unwrap().decision;
    assert_eq!(denied.denials().map(|fact| fact.code()).collect::<Vec<_>>(), ["payee_changed"]);
    journal.pin("seller.example:443", &sepolia(), &address(9), &clock).unwrap();
    assert!(journal.preview(&other, &clock).unwrap().is_allowed());
    assert_eq!(journal.unpin("seller.example:443").unwrap(), 2);
    assert!(journal.preview(&other, &clock).unwrap().is_allowed());
}

/// Known attack 14: a seller that takes payments and refuses the goods.
#[test]
fn attack_14_the_breaker_opens_after_three_refusals() {
    let journal = ready();
    for n in 0..3 {
        let id = reserve(&journal, 1, &at(n)).unwrap();
        sign(&journal, &id, &at(n));
        journal.present(&id, &at(n)).unwrap();
        journal.conclude(&id, &Outcome::Refused { receipt: None, note: "no".to_owned() }, &at(n)).unwrap();
    }
    assert_eq!(reserve(&journal, 1, &at(3)), None);
    assert!(reserve(&journal, 1, &at(3 + 600)).is_some());
}

#[test]
fn one_authorization_is_written_once() {
    let journal = ready();
    let clock = at(0);
    let first = draft(&clock);
    journal.reserve(&request(1), &first, &clock).unwrap();
    let again = Draft { id: draft(&clock).id, ..first };
    assert!(journal.reserve(&request(1), &again, &clock).is_err());
}

/// One process after another over the same journal, named by their order.
fn life(journal: &Journal, n: u32) -> Journal {
    let this = format!("life {n}");
    let own = this.clone();
    journal.as_process(&this, move |other| other != own)
}

fn left(journal: &Journal, clock: &Clock) -> Vec<PurchaseId> {
    let hash = RequestHash([7; 32]);
    let of_request = journal.abandoned(Some(&hash), clock).unwrap();
    assert_eq!(journal.abandoned(None, clock).unwrap(), of_request);
    assert!(journal.abandoned(Some(&RequestHash([8; 32])), clock).unwrap().is_empty());
    of_request.into_iter().map(|purchase| purchase.id).collect()
}

#[test]
fn a_payment_that_a_process_left_behind_is_found_by_its_request() {
    let first = life(&ready(), 1);
    let id = reserve(&first, 1, &at(0)).unwrap();
    sign(&first, &id, &at(0));
    assert!(left(&first, &at(0)).is_empty(), "its process is at work");
    let second = life(&first, 2);
    assert_eq!(left(&second, &at(0)), [id]);
    second.present(&id, &at(1)).unwrap();
    assert!(left(&second, &at(1)).is_empty(), "this process took it over");
    let third = life(&second, 3);
    assert_eq!(left(&third, &at(1)), [id]);
    let delivered =
        Outcome::Unknown { tx: None, goods: Goods::Delivered, receipt: None, note: String::new() };
    second.conclude(&id, &delivered, &at(2)).unwrap();
    assert!(left(&third, &at(2)).is_empty(), "it brought its goods");
}

/// Known attack 15: the owner looks at what was paid, and then runs the same command again.
#[test]
fn attack_15_what_is_settled_and_was_not_delivered_is_not_bought_again() {
    let first = life(&ready(), 1);
    let id = reserve(&first, 1, &at(0)).unwrap();
    sign(&first, &id, &at(0));
    first.present(&id, &at(0)).unwrap();
    let second = life(&first, 2);
    let settled = Outcome::Settled {
        tx: Some("0xaa".to_owned()),
        confirmed: true,
        goods: Goods::Missing,
        receipt: None,
        note: None,
    };
    second.conclude(&id, &settled, &at(10)).unwrap();
    assert_eq!(left(&second, &at(10)), [id]);
    let day = GOODS_OWED.as_secs();
    assert_eq!(left(&second, &at(10 + day)), [id]);
    assert!(left(&second, &at(11 + day)).is_empty(), "nobody keeps goods for ever");
}

/// Known attack 25: nobody has what a process that is gone did not sign, so its amount is free at once.
#[test]
fn attack_25_what_was_never_signed_is_free_when_its_process_is_gone() {
    let first = life(&ready(), 1);
    let ids = [(); 3].map(|()| reserve(&first, 10_000, &at(0)).unwrap());
    sign(&first, &ids[1], &at(0));
    sign(&first, &ids[2], &at(0));
    first.present(&ids[2], &at(0)).unwrap();
    assert_eq!(first.recover(&at(0)).unwrap(), 0, "it is at work");
    let second = life(&first, 2);
    assert_eq!((second.recover(&at(0)).unwrap(), second.recover(&at(0)).unwrap()), (1, 0));
    let states = ids.map(|id| second.get(&id).unwrap().state);
    assert_eq!(states, [State::Released, State::Signed, State::Presented]);
    assert_eq!(hour(&second, &at(0)), 20_000);
    // Was it not gone after all: what it signs now is dropped, and cannot be shown.
    let late = first.signed(&ids[0], &header(), &Instruction::new(vec![1]), &at(0));
    assert!(matches!(late, Err(JournalError::Transition { from: State::Released, to: State::Signed })));
    assert!(first.present(&ids[0], &at(0)).is_err());
}

/// A process that is killed is another one over the same file, and finds the same.
#[test]
fn a_journal_in_an_open_database_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Journal::over(Connection::open(dir.path().join("wallet.db")).unwrap()).unwrap();
    let id = {
        let journal = life(&open(), 1);
        allow(&journal);
        let id = reserve(&journal, 1, &at(0)).unwrap();
        sign(&journal, &id, &at(0));
        id
    };
    assert_eq!(left(&life(&open(), 2), &at(0)), [id]);
}

/// A caller's name is for one request, for as long as that was signed for; what came to no purchase is forgotten.
#[test]
fn a_name_of_a_call_belongs_to_one_request() {
    let journal = ready();
    // What the drafts here ask for, and what nobody buys.
    let (bought, unpaid) = (RequestHash([7; 32]), RequestHash([8; 32]));
    assert_eq!(journal.bind_call("a", &bought, &at(0)).unwrap(), bought);
    assert_eq!(journal.bind_call("a", &unpaid, &at(1)).unwrap(), bought, "the name was used");
    assert_eq!(journal.bind_call("b", &unpaid, &at(1)).unwrap(), unpaid);
    assert!(journal.latest_for(&bought).unwrap().is_none());
    let first = reserve(&journal, 1, &at(2)).unwrap();
    let second = reserve(&journal, 1, &at(3)).unwrap();
    assert_eq!(journal.latest_for(&bought).unwrap().map(|purchase| purchase.id), Some(second));
    assert_ne!(first, second);
    let kept = CALL_NAMES_KEPT.as_secs();
    assert_eq!(journal.forget_calls(&at(kept)).unwrap(), 0, "a call may be under way");
    assert_eq!(journal.forget_calls(&at(kept + 1)).unwrap(), 1);
    assert_eq!(journal.bind_call("a", &unpaid, &at(kept + 2)).unwrap(), bought, "it was paid for");
    assert_eq!(journal.bind_call("b", &bought, &at(kept + 2)).unwrap(), bought, "it was not");
}

#[test]
fn a_journal_keeps_its_secret() {
    let journal = ready();
    assert_eq!(journal.call_secret([1; 32]).unwrap(), [1; 32]);
    assert_eq!(journal.call_secret([2; 32]).unwrap(), [1; 32]);
}

/// Makes a journal of an earlier version: undoes what was added since, the latest first.
pub(super) fn back_to(db: &Connection, version: usize) {
    const ADDED: [&str; 9] = [
        "ALTER TABLE channel_attempt DROP COLUMN url; DROP INDEX purchase_streams",
        "DROP INDEX purchase_by_agent; ALTER TABLE purchase DROP COLUMN agent; ALTER TABLE channel DROP COLUMN agent;
         DROP TABLE agent; DROP TABLE agent_credential; DROP TABLE agent_frozen",
        "ALTER TABLE purchase DROP COLUMN tool; ALTER TABLE purchase DROP COLUMN decision;
         DROP TABLE approver; DROP TABLE approval; DROP TABLE vote",
        "DROP TABLE audit_leaf; DROP TABLE audit_secret; DROP TABLE audit_denied",
        "DROP TABLE passkey; ALTER TABLE vote DROP COLUMN authenticator_data; ALTER TABLE vote DROP COLUMN client_data",
        "DROP INDEX purchase_unshown; DROP INDEX purchase_intended; DROP INDEX purchase_of_thing;
         DROP INDEX purchase_undelivered; DROP INDEX purchase_unfinished",
        "DROP TABLE grant_use; ALTER TABLE approval DROP COLUMN revoked_ms",
        "DROP TABLE mention; DROP TABLE mention_count; DROP TABLE vouched; DROP INDEX purchase_proven",
        "DROP TABLE session_key; DROP TABLE session_agent; DROP TABLE session_sweep",
    ];
    // The first of these came with the third version. The last version kept by number what was kept without one.
    assert_eq!(ADDED.len() + 3, MIGRATIONS.len(), "what the latest version added is to be undone here, too");
    if version < MIGRATIONS.len() {
        let without_number = include_str!("schema-12.sql")
            .replace("NOT NULL UNIQUE, value", "PRIMARY KEY, value")
            .replace("id BLOB NOT NULL UNIQUE", "id BLOB PRIMARY KEY")
            .replace(") STRICT;", ") STRICT, WITHOUT ROWID;");
        db.execute_batch(&without_number).unwrap();
    }
    for added in ADDED.iter().skip(version - 2).rev() {
        db.execute_batch(added).unwrap();
    }
    db.pragma_update(None, "user_version", i64::try_from(version).unwrap()).unwrap();
}

/// All rows of the tables that the twelfth version moved, and what finds them.
fn moved(db: &Connection) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["setting ORDER BY key", "purchase ORDER BY id"] {
        let mut found = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns: Vec<String> = found.column_names().map(ToOwned::to_owned).collect();
        let mut rows = found.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            let value = |(i, name): (usize, &String)| format!("{name}={:?}", row.get_ref(i).unwrap());
            all.push(columns.iter().enumerate().map(value).collect::<Vec<_>>().join(" "));
        }
    }
    let indexes = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'purchase' AND sql IS NOT NULL ORDER BY name";
    let mut found = db.prepare(indexes).unwrap();
    let sql = found.query_map([], |row| row.get::<_, String>(0)).unwrap();
    all.extend(sql.map(|sql| sql.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")));
    all
}

#[test]
fn rows_that_are_kept_by_number_lose_nothing_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let journal = Journal::open(&path).unwrap();
    allow(&journal);
    let agent = journal.for_agent("acme/scout".parse().unwrap(), None);
    for (i, journal) in [&journal, &agent, &journal].into_iter().enumerate() {
        let id = reserve(journal, 5, &at(i as u64)).unwrap();
        if i > 0 {
            sign(journal, &id, &at(i as u64));
        }
    }
    let open = || Connection::open(&path).unwrap();
    let before = moved(&open());
    assert!(before.iter().any(|row| row.contains("agent=Text")) && before.len() > 15, "{before:?}");
    drop((journal, agent));
    back_to(&open(), 11);
    let sql: String = open()
        .query_row("SELECT sql FROM sqlite_schema WHERE name = 'purchase'", [], |row| row.get(0))
        .unwrap();
    assert!(sql.contains("WITHOUT ROWID"), "{sql}");
    assert_eq!(moved(&open()), before);
    drop(Journal::open(&path).unwrap());
    assert_eq!(moved(&open()), before);
    // What is erased where it is now is nowhere.
    let holds =
        |needle: &[u8]| std::fs::read(&path).unwrap().windows(needle.len()).any(|bytes| bytes == needle);
    assert!(holds(b"\"denies\":"));
    let db = open();
    db.pragma_update(None, "secure_delete", "ON").unwrap();
    db.execute("DELETE FROM purchase", []).unwrap();
    drop(db);
    assert!(!holds(b"\"denies\":"), "as it was before it was moved");
}

/// What one process keeps in memory another may have changed.
#[test]
fn nothing_that_is_kept_outlives_what_another_process_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let owner = Journal::open(&path).unwrap();
    allow(&owner);
    let scout: AgentName = "acme/scout".parse().unwrap();
    let guard = Journal::open(&path).unwrap().for_agent(scout.clone(), None);
    let pays = |secs| reserve(&guard, 5, &at(secs)).is_some();
    let signs = || guard.may_sign_now().is_ok();
    assert!(pays(0) && signs());

    let freeze = |frozen| {
        owner.change_rules(|rules| {
            rules.frozen = frozen;
            Ok(())
        })
    };
    freeze(true).unwrap();
    assert!(!signs() && !pays(1));
    freeze(false).unwrap();
    assert!(signs() && pays(2));

    owner.freeze_agent(&"acme".parse().unwrap(), &at(3)).unwrap();
    assert!(!signs() && !pays(3));
    owner.unfreeze_agent(&"acme".parse().unwrap()).unwrap();
    assert!(signs() && pays(4));

    let policy = "version: 1\nallow:\n  - {hosts: [other.example]}\n";
    owner.apply_policy(policy, true).unwrap();
    assert!(!pays(5));
    owner.clear_policy(true).unwrap();
    assert!(pays(6));

    // The books' time, and the place of the next leaf.
    owner.note_time(&at(5_000)).unwrap();
    assert_eq!(guard.note_time(&at(7)).unwrap(), at(5_000).wall);
    owner.set_devnet(true).unwrap();
    assert!(guard.is_devnet().unwrap());
    assert!(pays(5_001));
    let leaves = guard.audit_count().unwrap();
    assert_eq!(
        (owner.audit_leaves(0, 1_000).unwrap().len() as u64, owner.audit_count().unwrap()),
        (leaves, leaves)
    );

    let key = Key::from_bytes([9; 32]).unwrap();
    let day = Duration::from_secs(86_400);
    let added = owner.add_session_key(&key, "trip", Some(&scout), &address(3), day, &at(5_002));
    added.unwrap();
    assert!(guard.terms(&address(2), &at(5_003)).is_err(), "it pays with its session key alone");
}

#[test]
fn what_an_undone_step_wrote_is_not_kept() {
    let journal = ready();
    journal.note_time(&at(10)).unwrap();
    let undone = journal.within(|tx| {
        advance(tx, &at(1_000))?;
        put(tx, "devnet", "1")?;
        super::audit::setting_changed(tx, "test", "it")?;
        Err::<(), _>(JournalError::Frozen)
    });
    assert!(undone.is_err());
    assert_eq!(journal.note_time(&at(20)).unwrap(), at(20).wall);
    assert!(!journal.is_devnet().unwrap());
    let leaves = journal.audit_count().unwrap();
    assert!(reserve(&journal, 1, &at(30)).is_some());
    assert_eq!(journal.audit_count().unwrap(), leaves + 1);
    let undone = journal.change_rules(|rules| {
        rules.frozen = true;
        Err("no".to_owned())
    });
    assert!(undone.is_err() && journal.may_sign_now().is_ok());
}
