//! What the log says of what the journal does.

use farthing_audit::{Kind, LogDir};

use super::*;
use crate::journal::audit::{EraseError, KeptLeaf, Parties, Refused};

fn leaves(journal: &Journal) -> Vec<KeptLeaf> {
    journal.audit_leaves(0, 1_000).unwrap()
}

fn kinds(journal: &Journal) -> Vec<Kind> {
    leaves(journal).iter().map(|kept| kept.leaf.kind).collect()
}

fn settled(delivered: Goods) -> Outcome {
    Outcome::Settled {
        tx: Some("0xaa".to_owned()),
        confirmed: true,
        goods: delivered,
        receipt: Some("{\"order\":7}".to_owned()),
        note: None,
    }
}

/// A purchase whose request says more than where it goes.
fn buy(journal: &Journal, clock: &Clock) -> PurchaseId {
    let draft = Draft { url: "https://ann:pw@seller.example/a?name=ann#x".to_owned(), ..draft(clock) };
    assert!(journal.reserve(&request(50_000), &draft, clock).unwrap().decision.is_allowed());
    sign(journal, &draft.id, clock);
    journal.present(&draft.id, clock).unwrap();
    draft.id
}

#[test]
fn each_step_of_a_purchase_has_its_leaf() {
    let journal = ready();
    let before = journal.audit_count().unwrap();
    let id = reserve(&journal, 50_000, &at(0)).unwrap();
    let intents = journal.audit_leaves_of(&id.to_bytes()).unwrap();
    assert_eq!(intents.len(), 1, "the intent is there before anything is signed");
    let intent = &intents[0].leaf;
    assert_eq!((intent.kind, intent.at_ms, intents[0].index), (Kind::Intent, NOW.millis(), before));
    let text = |name: &str| intent.text(name).unwrap_or_else(|| panic!("no {name}"));
    assert_eq!(text("purchase"), id.to_string());
    assert_eq!((text("amount"), text("usd"), text("decision")), ("50000", "0.05", "allow"));
    assert_eq!((text("host"), text("url")), ("seller.example:443", "https://seller.example/a"));
    assert_eq!(text("payee"), address(1).as_str());
    let budgets = farthing_audit::Value::read(intents[0].bytes.as_slice()).unwrap().print();
    let hour = "\"dollar hour\":{\"after\":\"50000000000000000\",\"before\":\"0\",\"limit\":\"1000000000000000000\"}";
    assert!(budgets.contains(hour), "{budgets}");

    sign(&journal, &id, &at(0));
    journal.present(&id, &at(1)).unwrap();
    let unknown =
        Outcome::Unknown { tx: None, goods: Goods::Missing, receipt: None, note: "late".to_owned() };
    for again in 2..5 {
        journal.conclude(&id, &unknown, &at(again)).unwrap();
        journal.present(&id, &at(again)).unwrap();
    }
    journal.conclude(&id, &settled(Goods::InHand), &at(5)).unwrap();
    journal.conclude(&id, &settled(Goods::Missing), &at(6)).unwrap();
    journal.conclude(&id, &Outcome::Refused { receipt: None, note: "no".to_owned() }, &at(7)).unwrap();
    journal.received(&id).unwrap();
    journal.finalize(&id).unwrap();
    journal.finalize(&id).unwrap();
    let said: Vec<(Option<String>, bool)> = journal
        .audit_leaves_of(&id.to_bytes())
        .unwrap()
        .iter()
        .map(|kept| {
            let is_final = kept.leaf.fields.get("final") == Some(&farthing_audit::Value::Flag(true));
            (kept.leaf.text("state").map(ToOwned::to_owned), is_final)
        })
        .collect();
    let state = |name: &str, is_final| (Some(name.to_owned()), is_final);
    assert_eq!(
        said,
        [
            (None, false),
            state("unknown", false),
            // In hand, and where it belongs.
            state("settled", false),
            state("settled", false),
            state("settled", true)
        ],
        "what says the same again has no leaf"
    );
    assert!(journal.release(&id, Proof::UnusedAfterExpiry, &at(100)).is_err());
    assert_eq!(journal.audit_count().unwrap(), before + 5, "what was refused left nothing");
}

#[test]
fn what_is_given_up_is_said_to_be() {
    let journal = ready();
    let dropped = reserve(&journal, 1_000, &at(0)).unwrap();
    journal.drop_unsigned(&dropped, &at(0)).unwrap();
    let lapsed = reserve(&journal, 1_000, &at(0)).unwrap();
    sign(&journal, &lapsed, &at(0));
    let shown = reserve(&journal, 1_000, &at(0)).unwrap();
    sign(&journal, &shown, &at(0));
    journal.present(&shown, &at(1)).unwrap();
    assert_eq!(journal.recover(&at(500)).unwrap(), 1);
    journal.release(&shown, Proof::UnusedAfterExpiry, &at(500)).unwrap();
    let proof = |id: &PurchaseId| {
        let kept = journal.audit_leaves_of(&id.to_bytes()).unwrap();
        assert_eq!((kept.len(), kept[1].leaf.kind), (2, Kind::Released));
        kept[1].leaf.text("proof").unwrap().to_owned()
    };
    assert_eq!(proof(&dropped), "never_signed");
    assert_eq!(proof(&lapsed), "never_shown");
    assert_eq!(proof(&shown), "unused_after_expiry");
}

/// Without a leaf there is no reservation, and so nothing to sign.
#[test]
fn what_cannot_be_written_down_is_not_reserved() {
    let journal = ready();
    journal.db.alone(|db| db.execute_batch("ALTER TABLE audit_leaf RENAME TO gone")).unwrap();
    assert!(journal.reserve(&request(1_000), &draft(&at(0)), &at(0)).is_err());
    assert!(
        journal
            .change_rules(|rules| {
                rules.frozen = true;
                Ok(())
            })
            .is_err()
    );
    journal.db.alone(|db| db.execute_batch("ALTER TABLE gone RENAME TO audit_leaf")).unwrap();
    assert!(journal.history(10).unwrap().is_empty());
    assert!(!journal.rules().unwrap().frozen);
    assert!(reserve(&journal, 1_000, &at(0)).is_some());
    for change in ["DELETE FROM audit_leaf", "UPDATE audit_leaf SET kind = 'outcome'"] {
        assert!(journal.db.alone(|db| db.execute(change, [])).is_err(), "the log only grows");
    }
}

#[test]
fn the_owners_changes_are_leaves_and_what_changes_nothing_is_none() {
    let journal = Journal::in_memory().unwrap();
    let freeze = |frozen| {
        journal
            .change_rules(|rules| {
                rules.frozen = frozen;
                Ok(())
            })
            .unwrap();
    };
    allow(&journal);
    freeze(true);
    freeze(true);
    freeze(false);
    journal.change_rules(|_| Ok(())).unwrap();
    assert!(journal.change_rules(|_| Err("no".to_owned())).is_err());
    journal.pin("seller.example:443", &sepolia(), &address(3), &at(0)).unwrap();
    journal.unpin("seller.example:443").unwrap();
    use Kind::{Frozen, RulesChanged, Unfrozen};
    assert_eq!(kinds(&journal), [RulesChanged, Frozen, Unfrozen, RulesChanged, RulesChanged]);
    let all = leaves(&journal);
    assert_ne!(all[0].leaf.text("before"), all[0].leaf.text("after"));
    assert_eq!(all[0].secrets.len(), 1);
    assert!(all[0].secrets[0].opens(&all[0].leaf), "the rules themselves can be shown");
    // A decision names the rules that it was made by.
    let id = reserve(&journal, 1_000, &at(0)).unwrap();
    let intent = journal.audit_leaves_of(&id.to_bytes()).unwrap().remove(0).leaf;
    assert_eq!(intent.text("policy"), all[0].leaf.text("after"));
}

#[test]
fn a_loop_of_denials_does_not_fill_the_disk_and_is_counted() {
    let journal = ready();
    let start = journal.audit_count().unwrap();
    for _ in 0..500 {
        assert!(reserve(&journal, 60_000_000, &at(0)).is_none());
    }
    assert_eq!(journal.audit_count().unwrap(), start + 1);
    // Another reason is another leaf.
    journal
        .change_rules(|rules| {
            rules.frozen = true;
            Ok(())
        })
        .unwrap();
    assert!(reserve(&journal, 60_000_000, &at(0)).is_none());
    assert_eq!(journal.audit_count().unwrap(), start + 3);
    journal
        .change_rules(|rules| {
            rules.frozen = false;
            Ok(())
        })
        .unwrap();
    // An hour of it, ten times a second: a leaf for ever longer, up to a minute.
    for tick in 10..36_000u64 {
        let clock = Clock { wall: NOW.plus(Duration::from_millis(tick * 100)), steady: None };
        if tick % 10 == 0 {
            assert!(reserve(&journal, 60_000_000, &clock).is_none());
        } else {
            let refused = Refused { code: "clock_absurd", host: "seller.example:443", url: "nonsense" };
            journal.refused(&refused, &clock).unwrap();
        }
    }
    let written = journal.audit_count().unwrap() - start;
    assert!((120..140).contains(&written), "{written} leaves");
    assert_eq!(journal.flush_denied(&at(7_200)).unwrap(), 2, "what was counted is said in the end");
    assert_eq!(journal.flush_denied(&at(7_200)).unwrap(), 0);
    let mut attempts = 0;
    for kept in leaves(&journal).iter().filter(|kept| kept.leaf.kind == Kind::Denied) {
        attempts += 1 + kept.leaf.text("repeats").map_or(0, |n| n.parse::<u64>().unwrap());
        // A leaf that only counts stands for no attempt of its own.
        attempts -= u64::from(kept.leaf.text("host").is_none());
    }
    assert_eq!(attempts, 501 + 35_990);
}

#[test]
fn personal_data_is_committed_to_and_can_be_erased() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let journal = Journal::open(&path).unwrap();
    allow(&journal);
    let parties = Parties {
        principal: Some("Ann Example".to_owned()),
        operator: None,
        jurisdiction: Some("DE".to_owned()),
    };
    journal.name_parties(&parties, &at(0)).unwrap();
    let named = leaves(&journal).pop().unwrap();
    let id = buy(&journal, &at(0));
    let intent = journal.audit_leaves_of(&id.to_bytes()).unwrap().remove(0);
    assert_eq!(intent.leaf.text("url"), Some("https://seller.example/a"));
    assert_eq!(intent.leaf.text("jurisdiction"), Some("DE"));
    assert!(named.secrets[0].opens(&intent.leaf), "the principal of the intent is the one that was named");
    let fields: Vec<&str> = intent.secrets.iter().map(|secret| secret.field.as_str()).collect();
    assert_eq!(fields, ["query", "request"]);
    assert!(intent.secrets.iter().all(|secret| secret.opens(&intent.leaf)));
    assert_eq!(intent.secrets[0].value, b"name=ann");
    for kept in leaves(&journal) {
        let text = String::from_utf8(kept.bytes).unwrap();
        assert!(!text.contains("ann") && !text.contains("Ann"), "{text}");
    }

    let refused = journal.erase(&id, &at(1)).unwrap_err();
    assert!(matches!(refused, EraseError::Open(State::Presented)), "{refused}");
    journal.conclude(&id, &settled(Goods::Delivered), &at(2)).unwrap();
    let key = farthing_audit::SigningKey::from_seed("log", farthing_audit::KeyKind::Note, [1; 32]).unwrap();
    let log = LogDir::new(dir.path().join("log"));
    let publish = |journal: &Journal| {
        farthing_audit::publish(&log, &key, None, journal, &mut farthing_audit::Disk::new()).unwrap().note
    };
    let note = publish(&journal);
    assert_eq!(journal.erase(&id, &at(3)).unwrap(), 3, "query, request and receipt");
    let kept = journal.audit_leaves_of(&id.to_bytes()).unwrap();
    assert!(kept.iter().all(|kept| kept.secrets.is_empty()));
    assert_eq!(kept[0].bytes, intent.bytes);
    let purchase = journal.get(&id).unwrap();
    assert_eq!((purchase.state, purchase.header, purchase.receipt), (State::Settled, None, None));
    drop(journal);
    // Not a byte of it is left in the files.
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for needle in [&b"name=ann"[..], b"{\"order\":7}", &intent.secrets[0].salt] {
                assert!(
                    !bytes.windows(needle.len()).any(|w| w == needle),
                    "{} in {path:?}",
                    needle.escape_ascii()
                );
            }
        }
    }
    let journal = Journal::open(&path).unwrap();
    let check = farthing_audit::Check {
        key: key.verifier(),
        witnesses: &[],
        known: &[note.into_bytes()],
        leaves: Some(&journal),
    };
    assert!(farthing_audit::verify(&log, &check).holds(), "the log still verifies");
}

#[test]
fn salts_follow_from_the_seed_and_not_from_what_is_left_of_it() {
    let run = |seed: [u8; 32]| {
        let journal = ready();
        // Of a journal in memory, which was not given one.
        journal.db.alone(|db| db.execute("DELETE FROM setting WHERE key = 'audit_ratchet'", [])).unwrap();
        journal.seed_audit(seed).unwrap();
        let id = PurchaseId::new(NOW, [9; 10]);
        let draft = Draft {
            id,
            consumption: ConsumptionKey::new("test:same".to_owned()),
            url: "https://seller.example/?q".to_owned(),
            ..draft(&at(0))
        };
        assert!(journal.reserve(&request(1_000), &draft, &at(0)).unwrap().decision.is_allowed());
        let ratchet = "SELECT value FROM setting WHERE key = 'audit_ratchet'";
        let left: String = journal.db.alone(|db| db.query_row(ratchet, [], |row| row.get(0))).unwrap();
        (journal.audit_leaves_of(&id.to_bytes()).unwrap().remove(0), left)
    };
    let (one, left) = run([1; 32]);
    assert_eq!(run([1; 32]), (one.clone(), left.clone()), "a simulation replays");
    assert_ne!(run([2; 32]).0.bytes, one.bytes);
    assert_ne!(one.secrets[0].salt, one.secrets[1].salt);
    assert!(one.secrets.iter().all(|secret| hex::encode(secret.salt) != left));
    assert_ne!(left, hex::encode([1; 32]), "the seed is gone");
}
