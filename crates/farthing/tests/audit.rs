//! `farthing audit` as an owner calls it, and as strangers who were given a copy do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{Charge, Clock, HostRule, Origin, Request};
use farthing_primitives::{Address, Network, PurchaseId, Registry, RequestHash, Timestamp};
use farthing_wallet::Home;
use farthing_wallet::journal::{Draft, Goods, Header, Journal, Outcome, Said};
use serde_json::Value;

struct Answer {
    code: i32,
    out: String,
    err: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    /// The codes of the faults, of a check that did not hold.
    fn faults(&self) -> Vec<String> {
        assert_eq!(self.code, 1, "{}{}", self.out, self.err);
        let json = self.json();
        assert_eq!(json["holds"], false);
        json["faults"].as_array().unwrap().iter().map(|f| f["code"].as_str().unwrap().to_owned()).collect()
    }
}

fn audit(home: &Path, args: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_farthing"));
    let said = command.env("FARTHING_HOME", home).arg("audit").args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Answer { code: said.status.code().unwrap(), out: text(said.stdout), err: text(said.stderr) }
}

fn at(secs: u64) -> Clock {
    Clock { wall: Timestamp::from_secs(1_700_000_000 + secs), steady: None }
}

fn request(atoms: u128) -> Request {
    let registry = Registry::builtin();
    let sepolia = Network::eip155(84532);
    Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, registry.dollar(&sepolia).unwrap().atoms(atoms)).unwrap(),
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin: Origin::of(&"https://seller.example/".parse().unwrap()).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: Default::default(),
    }
}

/// Asks for a purchase, and makes it if it is allowed.
fn buy(journal: &Journal, n: u8, atoms: u128) -> PurchaseId {
    let clock = at(u64::from(n));
    let draft = Draft {
        id: PurchaseId::new(clock.wall, [n; 10]),
        method: "GET".to_owned(),
        url: format!("https://seller.example/report?customer={n}"),
        request_hash: RequestHash([n; 32]),
        payer: Address::from_evm_bytes([2; 20]),
        consumption: ConsumptionKey::new(format!("test:{n}")),
        expires: clock.wall.plus(Duration::from_secs(60)),
        lag: Duration::ZERO,
        said: Said { url: Some("https://seller.example/advertised".to_owned()), challenge: None },
    };
    if journal.reserve(&request(atoms), &draft, &clock).unwrap().decision.is_allowed() {
        let header = Header { name: "payment-signature".to_owned(), value: format!("signed {n}") };
        journal.signed(&draft.id, &header, &Instruction::new(vec![1]), &clock).unwrap();
        journal.present(&draft.id, &clock).unwrap();
        let settled = Outcome::Settled {
            tx: Some(format!("0x{n:064x}")),
            confirmed: true,
            goods: Goods::Delivered,
            receipt: Some(format!("{{\"order\":{n}}}")),
            note: None,
        };
        journal.conclude(&draft.id, &settled, &clock).unwrap();
    }
    draft.id
}

/// A wallet that bought a few things, was refused one, and published that.
fn wallet(dir: &Path) -> (Journal, Vec<PurchaseId>) {
    let journal = Home::new(dir).journal().unwrap();
    journal
        .change_rules(|rules| {
            rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
            Ok(())
        })
        .unwrap();
    let bought = (1..=4).map(|n| buy(&journal, n, 10_000 + u128::from(n))).collect();
    (journal, bought)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &to) } else { fs::copy(&path, &to).map(drop).unwrap() }
    }
}

fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Known attack 68: edit, deletion, truncation and fork of a published log.
#[test]
fn attack_68_a_stranger_notices_each_kind_of_tampering() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (journal, _) = wallet(&home);
    let nobody = dir.path().join("nobody");
    let first = audit(&home, &["publish"]);
    assert_eq!(first.code, 0, "{}", first.err);
    let key = first.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(audit(&home, &["key"]).json()["key"], key.as_str());
    let kept = dir.path().join("kept");
    fs::write(&kept, first.json()["checkpoint"].as_str().unwrap()).unwrap();
    let kept_name = kept.to_str().unwrap().to_owned();
    let size = first.json()["size"].as_u64().unwrap();

    let denied = buy(&journal, 9, 500_000_000);
    let held = audit(&home, &["verify"]);
    assert_eq!((held.code, held.json()["unpublished"].as_u64()), (0, Some(1)), "{}", held.out);
    let second = audit(&home, &["publish"]).json();
    assert_eq!((second["size"].as_u64(), second["new"].as_u64()), (Some(size + 1), Some(1)));
    assert_eq!(audit(&home, &["publish"]).json()["checkpoint"], second["checkpoint"]);

    // A stranger has a copy, the key and an old checkpoint, and no wallet.
    let log = home.join("audit/log");
    let mut copies = 0;
    let mut tampered = |change: &dyn Fn(&Path)| -> Answer {
        copies += 1;
        let copied: PathBuf = dir.path().join(format!("copy-{copies}"));
        copy(&log, &copied);
        change(&copied);
        audit(&nobody, &["verify", "--dir", copied.to_str().unwrap(), "--key", &key, "--since", &kept_name])
    };
    let untouched = tampered(&|_| ());
    assert_eq!((untouched.code, untouched.json()["holds"].as_bool()), (0, Some(true)), "{}", untouched.out);
    let entries = format!("tile/entries/000.p/{}", size + 1);
    let tile = format!("tile/0/000.p/{}", size + 1);
    let last = |bytes: &mut Vec<u8>| *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(tampered(&|copy| edit(&copy.join(&entries), last)).faults(), ["entry_edited"]);
    assert_eq!(tampered(&|copy| edit(&copy.join(&tile), last)).faults(), ["tile_edited"]);
    assert_eq!(tampered(&|copy| fs::remove_file(copy.join(&entries)).unwrap()).faults(), ["entry_missing"]);
    assert_eq!(tampered(&|copy| fs::remove_file(copy.join(&tile)).unwrap()).faults(), ["tile_missing"]);
    let cut = tampered(&|copy| edit(&copy.join(&entries), |bytes| bytes.truncate(bytes.len() - 1)));
    assert_eq!(cut.faults(), ["entry_damaged"]);
    let gone = tampered(&|copy| fs::remove_file(copy.join("checkpoint")).unwrap());
    assert_eq!(gone.faults(), ["checkpoint_missing"]);
    let resized = tampered(&|copy| {
        let note = fs::read_to_string(copy.join("checkpoint")).unwrap();
        let smaller = note.replacen(&format!("\n{}\n", size + 1), &format!("\n{size}\n"), 1);
        assert_ne!(note, smaller);
        fs::write(copy.join("checkpoint"), smaller).unwrap();
    });
    assert_eq!(resized.faults(), ["checkpoint_forged"]);

    // Its own owner, who has the key, starts anew without the beginning: alone it looks right.
    let other = dir.path().join("other");
    let (rewritten, _) = wallet(&other);
    buy(&rewritten, 7, 10_000);
    fs::create_dir_all(other.join("audit")).unwrap();
    fs::copy(home.join("audit/log.key"), other.join("audit/log.key")).unwrap();
    let forked = audit(&other, &["publish"]);
    assert_eq!(forked.code, 0, "{}", forked.err);
    let forked_log = other.join("audit/log");
    let forked_name = forked_log.to_str().unwrap();
    let alone = audit(&nobody, &["verify", "--dir", forked_name, "--key", &key]);
    assert_eq!(alone.code, 0, "{}", alone.out);
    let seen = audit(&nobody, &["verify", "--dir", forked_name, "--key", &key, "--since", &kept_name]);
    assert_eq!(seen.faults(), ["fork"]);
    let newest = log.join("checkpoint");
    let older = dir.path().join("older");
    copy(&log, &older);
    fs::copy(&kept, older.join("checkpoint")).unwrap();
    let newest = newest.to_str().unwrap();
    let short =
        audit(&nobody, &["verify", "--dir", older.to_str().unwrap(), "--key", &key, "--since", newest]);
    assert!(short.faults().contains(&"truncated".to_owned()), "{}", short.out);

    // The journal itself is set back, or changed: the wallet signs no second log, and says why.
    fs::remove_dir_all(&log).unwrap();
    let missing = audit(&home, &["verify"]);
    assert_eq!(missing.faults(), ["checkpoint_missing"]);
    let again = audit(&home, &["publish"]);
    assert_eq!(again.json()["checkpoint"], second["checkpoint"], "the same leaves make the same log");
    fs::copy(home.join("audit/signed"), other.join("audit/signed")).unwrap();
    let refused = audit(&other, &["publish"]);
    assert!(refused.code == 1 && refused.err.contains("(fork)"), "{}", refused.err);
    fs::remove_dir_all(&forked_log).unwrap();
    let refused = audit(&other, &["publish"]);
    assert!(refused.code == 1 && refused.err.contains("(fork)"), "{}", refused.err);
    assert!(!audit(&home, &["show", "--json"]).out.contains("customer="));
    assert_eq!(audit(&home, &["prove", &denied.to_string()]).code, 0, "what was denied is proven too");
}

#[test]
fn one_purchase_is_proven_revealed_and_erased() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let nobody = dir.path().join("nobody");
    let (_journal, bought) = wallet(&home);
    let id = bought[1].to_string();
    let early = audit(&home, &["prove", &id]);
    assert!(early.code == 1 && early.err.contains("not published yet"), "{}", early.err);
    assert_eq!(audit(&home, &["parties", "--principal", "Example Ltd", "--jurisdiction", "DE"]).code, 0);
    let key = audit(&home, &["publish"]).json()["key"].as_str().unwrap().to_owned();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(home.join("audit/log.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    let check = |text: &str| {
        let file = dir.path().join("proof.json");
        fs::write(&file, text).unwrap();
        audit(&nobody, &["check", file.to_str().unwrap(), "--key", &key])
    };
    let proof = audit(&home, &["prove", &id]);
    let checked = check(&proof.out);
    assert_eq!(checked.code, 0, "{}{}", checked.out, proof.err);
    let leaves = checked.json()["leaves"].clone();
    assert_eq!(
        (&leaves[0]["leaf"]["kind"], &leaves[1]["leaf"]["kind"]),
        (&"intent".into(), &"outcome".into())
    );
    assert_eq!(leaves[0]["leaf"]["amount"], "10002");
    assert_eq!(leaves[0]["revealed"]["query"], "customer=2");
    assert_eq!(leaves[1]["revealed"]["receipt"], "{\"order\":2}");
    let hidden = audit(&home, &["prove", &id, "--hide"]);
    assert!(!hidden.out.contains("customer") && check(&hidden.out).code == 0);
    let bundle = audit(&home, &["bundle", &id]);
    assert_eq!(bundle.json()["books"]["receipt"]["order"], 2);
    assert_eq!(check(&bundle.out).code, 0);
    // What a liar changes.
    for (from, to, code) in [
        ("customer=2", "customer=3", "commitment_differs"),
        ("10002", "10003", "not_included"),
        (&id[..], &bought[2].to_string()[..], "other_purchase"),
        ("farthing-audit-bundle-v1", "farthing-audit-bundle-v2", "bundle_malformed"),
        ("\\n\\n", "\\n", "proof_checkpoint_invalid"),
    ] {
        assert!(proof.out.contains(from), "{from}");
        // The purchase's name is in the leaves too: there it would be another leaf.
        let changed = if code == "other_purchase" {
            let at = proof.out.find(&format!("\"purchase\":\"{from}")).unwrap();
            let (head, tail) = proof.out.split_at(at);
            format!("{head}{}", tail.replacen(from, to, 1))
        } else {
            proof.out.replace(from, to)
        };
        let checked = check(&changed);
        assert_eq!((checked.code, checked.json()["code"].as_str()), (1, Some(code)), "{to}: {}", checked.out);
    }

    let csv = audit(&home, &["export", "--format", "csv"]).out;
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(rows.len(), 5, "{csv}");
    assert!(rows[0].starts_with("date,purchase,payee,host,asset,symbol,atoms,amount,usd,state"), "{csv}");
    assert!(rows[2].contains(&id) && rows[2].contains(",10002,0.010002,0.010002,settled,true,0x"), "{csv}");
    let lines = audit(&home, &["export", "--format", "jsonl"]).out;
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 10, "the rules, four purchases of two leaves, the parties");
    assert_eq!(lines[9]["leaf"]["change"], "parties");

    let erased = audit(&home, &["erase", &id]);
    assert_eq!(erased.json()["erased"], 3, "{}", erased.err);
    assert_eq!(audit(&home, &["verify"]).code, 0);
    let proof = audit(&home, &["prove", &id]);
    assert!(!proof.out.contains("customer"), "{}", proof.out);
    let checked = check(&proof.out);
    assert_eq!((checked.code, checked.json()["leaves"][0]["revealed"].to_string().as_str()), (0, "{}"));
    assert_eq!(check("{").json()["code"], "bundle_malformed");

    let nothing = audit(&nobody, &["show"]);
    assert!(nothing.code == 1 && nothing.err.contains("there is no wallet"), "{}", nothing.err);
    assert!(!nobody.exists(), "looking for a wallet makes none");
}

#[test]
fn a_witness_by_command_sees_one_log_and_its_line_is_demanded() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    let (journal, _) = wallet(&home);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let key = audit(&home, &["publish"]).json()["key"].as_str().unwrap().to_owned();
    let state = path("witness");
    let made = audit(&home, &["witness", "new", "--state", &state, "--name", "witness.example/w1"]);
    let public = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(audit(&home, &["witness", "key", "--state", &state]).json()["key"], public.as_str());
    let twice = audit(&home, &["witness", "new", "--state", &state, "--name", "witness.example/w1"]);
    assert!(twice.code == 1 && twice.err.contains("witness_there"), "{}", twice.err);

    let log = home.join("audit/log");
    copy(&log, &dir.path().join("first"));
    let sign =
        |copied: &str| audit(&home, &["witness", "sign", &path(copied), "--key", &key, "--state", &state]);
    let seen = sign("first");
    assert!(seen.code == 0 && seen.out.contains("witness.example/w1"), "{}{}", seen.out, seen.err);
    assert_eq!(audit(&home, &["verify", "--witness", &public]).code, 1, "it has no line yet");
    fs::write(path("cosigned"), &seen.out).unwrap();
    let attach = || audit(&home, &["attach", &path("cosigned"), "--witness", &public]);
    assert_eq!(attach().json()["witness"], "witness.example/w1");
    assert_eq!(audit(&home, &["verify", "--witness", &public]).code, 0);

    buy(&journal, 9, 10_009);
    assert_eq!(audit(&home, &["publish"]).code, 0);
    let late = attach();
    assert!(late.code == 1 && late.err.contains("other_checkpoint"), "{}", late.err);
    copy(&log, &dir.path().join("second"));
    assert_eq!(sign("second").code, 0);
    let older = sign("first");
    assert!(older.code == 1 && older.err.contains("older_than_seen"), "{}", older.err);
    assert_eq!(older.out, "", "nothing is cosigned");
}
