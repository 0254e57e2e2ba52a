//! Policies in force, budgets of a tree under many at once, and people who approve.

use std::sync::Barrier;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use farthing_approval::{
    ApproverKey, Asked, Assertion, Ballot, Credential, CredentialId, GrantRequest, GrantTerms, Passkey,
    PasskeyError, PasskeyKey, Place, Proof, Question, Site, Status, Uses, Verdict, VoteError,
};
use farthing_audit::Leaves;
use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{AgentName, Clock, Window};
use farthing_primitives::RequestHash;
use sha2::{Digest, Sha256};

use super::*;
use crate::journal::approvals::{
    APPROVAL_LASTS, ApprovalError, Approver, KeptApproval, MAX_GRANTS, MAX_PENDING,
};
use crate::journal::tests::back_to;
use crate::journal::{Draft, Header, Outcome, Proof as ReleaseProof};
use crate::offer::SESSION;

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

const POLICY: &str = "
version: 1
owner: acme
budgets:
  acme: {per_payment: $1, rolling: {24h: $2}}
  acme/a: {rolling: {24h: $1}}
  acme/b: {rolling: {24h: $1.50}}
allow:
  - {name: seller, hosts: [seller.example]}
approve:
  - {name: dear, over: $0.50, quorum: 2}
";

fn at(secs: u64) -> Clock {
    Clock { wall: NOW.plus(Duration::from_secs(secs)), steady: None }
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn address(n: u8) -> Address {
    Address::from_evm_bytes([n; 20])
}

fn journal() -> Journal {
    let journal = Journal::in_memory().unwrap();
    journal.apply_policy(POLICY, false).unwrap();
    journal
}

fn request(micros: u128) -> Request {
    let registry = Registry::builtin();
    let money = registry.dollar(&Network::eip155(84532)).unwrap().atoms(micros);
    Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, money).unwrap(),
        price: None,
        payee: address(1),
        origin: Origin::of(&"https://seller.example/".parse().unwrap()).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: Caller {
            payer: Some(address(2)),
            method: "GET".to_owned(),
            url: "https://seller.example/a".to_owned(),
            path: "/a".to_owned(),
            body: Some([0; 32]),
            ..Caller::default()
        },
    }
}

fn reserve_as(journal: &Journal, request: &Request, n: u64, clock: &Clock) -> (PurchaseId, Decision) {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    let draft = Draft {
        id: PurchaseId::new(clock.wall, random),
        method: request.caller.method.clone(),
        url: request.caller.url.clone(),
        request_hash: RequestHash([7; 32]),
        payer: address(2),
        consumption: ConsumptionKey::new(format!("test:{n}")),
        expires: clock.wall.plus(Duration::from_secs(60)),
        lag: Duration::ZERO,
        said: Default::default(),
    };
    (draft.id, journal.reserve(request, &draft, clock).unwrap().decision)
}

fn reserve(journal: &Journal, micros: u128, n: u64) -> bool {
    reserve_as(journal, &request(micros), n, &at(0)).1.is_allowed()
}

fn codes(decision: &Decision) -> Vec<String> {
    decision.denials().map(|fact| fact.code().to_owned()).collect()
}

#[test]
fn a_policy_takes_the_place_of_the_rules_that_are_set_by_hand() {
    let journal = Journal::in_memory().unwrap();
    assert!(!reserve(&journal, 1, 1), "a new wallet allows nothing");
    let kept = journal.apply_policy(POLICY, false).unwrap();
    assert_eq!(journal.policy().unwrap(), Some(kept));
    assert!(reserve(&journal, 500_000, 2), "above the cap that a new wallet has");
    journal
        .change_rules(|rules| {
            rules.frozen = true;
            Ok(())
        })
        .unwrap();
    assert_eq!(codes(&reserve_as(&journal, &request(1), 3, &at(0)).1), ["frozen"]);
    journal
        .change_rules(|rules| {
            rules.frozen = false;
            Ok(())
        })
        .unwrap();
    assert!(matches!(journal.clear_policy(false), Err(ApplyError::Unbound)));
    assert!(reserve(&journal, 1, 4));
    journal.clear_policy(true).unwrap();
    assert!(!reserve(&journal, 1, 5));
    assert!(matches!(journal.clear_policy(true), Err(ApplyError::None)));
}

#[test]
fn attack_26_what_is_no_policy_or_a_looser_one_changes_nothing() {
    let journal = journal();
    let before = journal.policy().unwrap().unwrap();
    for (text, code) in [
        (POLICY.replace("version: 1", "version: 9"), "policy_invalid"),
        (POLICY.replace("rolling: {24h: $1}", "rolling: {24h: $1.60}"), "policy_looser"),
        (POLICY.replace("hosts: [seller.example]", "hosts: [\"*\"]"), "policy_looser"),
        (POLICY.replace("version: 1", "version: 1\nmode: observe"), "policy_observes"),
        (String::new(), "policy_invalid"),
    ] {
        let error = journal.apply_policy(&text, false).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(journal.policy().unwrap().as_ref(), Some(&before));
    }
    // What is tighter needs no word, and what is looser one.
    journal.apply_policy(&POLICY.replace("per_payment: $1", "per_payment: $0.40"), false).unwrap();
    assert!(!reserve(&journal, 400_001, 1));
    assert!(matches!(journal.apply_policy(POLICY, false), Err(ApplyError::Looser(_))));
    journal.apply_policy(POLICY, true).unwrap();
    assert!(reserve(&journal, 400_001, 2));
}

#[test]
fn attack_28_a_policy_that_cannot_be_read_denies_everything() {
    let journal = journal();
    assert!(reserve(&journal, 1, 1));
    for (key, value) in [("policy", "version: 1"), ("policy_id", "00")] {
        let broken = self::journal();
        broken.within(|tx| put(tx, key, value)).unwrap();
        assert!(broken.law().is_err(), "{key}");
        assert!(broken.preview(&request(1), &at(0)).is_err(), "{key}");
    }
}

#[test]
fn attack_24_siblings_never_overdraw_what_they_share() {
    let owner = journal();
    let (a, b) = (owner.for_agent(name("acme/a"), None), owner.for_agent(name("acme/b"), None));
    // A request cannot say whose it is.
    let posing = |micros| {
        let mut request = request(micros);
        request.caller.agent = Some(name("acme/b"));
        request
    };
    assert!(reserve_as(&a, &posing(500_000), 1, &at(0)).1.is_allowed());
    assert!(reserve_as(&a, &posing(500_000), 2, &at(0)).1.is_allowed());
    assert_eq!(codes(&reserve_as(&a, &posing(1), 3, &at(0)).1), ["over_budget"], "its own is used up");
    assert!(reserve(&b, 500_000, 4));
    assert!(reserve(&b, 500_000, 5));
    assert_eq!(codes(&reserve_as(&b, &request(1), 6, &at(0)).1), ["over_budget"], "what they share is");
    assert!(!reserve(&owner, 1, 7));
    let nobody = owner.for_agent(name("other"), None);
    assert!(codes(&reserve_as(&nobody, &request(1), 8, &at(0)).1).contains(&"agent_unknown".to_owned()));
    // A day later there is room again.
    assert!(reserve_as(&a, &request(1), 9, &at(86_461)).1.is_allowed());
}

/// Many processes of several agents at once, over one file.
#[test]
fn attack_20_many_agents_at_once_stay_within_the_budget_they_share() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    Journal::open(&path).unwrap().apply_policy(POLICY, false).unwrap();
    let start = Barrier::new(8);
    let signed: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8u64)
            .map(|thread| {
                let (path, start) = (&path, &start);
                scope.spawn(move || {
                    let agent = name(if thread % 2 == 0 { "acme/a" } else { "acme/b" });
                    let journal = Journal::open(path).unwrap().for_agent(agent, None);
                    start.wait();
                    (0..40).filter(|n| reserve(&journal, 20_000, thread * 1000 + n)).count()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(signed, 100, "$2 are a hundred times two cents");
}

fn with_people(journal: &Journal) -> [ApproverKey; 3] {
    let keys = [1, 2, 3].map(|n| ApproverKey::from_seed([n; 32]).unwrap());
    for (key, person) in keys.iter().zip(["ada", "bob", "eve"]) {
        let runs = (person == "eve").then(|| name("acme"));
        journal.add_approver(person, &key.public(), runs.as_ref(), &at(0)).unwrap();
    }
    keys
}

fn say(
    journal: &Journal,
    request: &Asked,
    person: &str,
    key: &ApproverKey,
    verdict: Verdict,
    clock: &Clock,
) -> Result<Status, ApprovalError> {
    let id = request.id();
    let ballot = Ballot::cast(key, request, verdict);
    journal.vote(&id, person, &ballot, clock).map(|kept| kept.status)
}

#[test]
fn attack_66_an_approval_is_for_one_payment_of_what_it_names() {
    let owner = journal();
    let [ada, bob, eve] = with_people(&owner);
    let agent = owner.for_agent(name("acme/b"), None);
    let dear = request(600_000);
    assert_eq!(codes(&reserve_as(&agent, &dear, 1, &at(0)).1), ["approval_required"]);
    let asked = agent.ask_people(&dear, &at(1)).unwrap();
    assert_eq!(agent.ask_people(&dear, &at(2)).unwrap().id, asked.id, "the same again is the same request");
    let vote = |person, key: &ApproverKey, verdict, secs| {
        say(&owner, &asked.request, person, key, verdict, &at(secs))
    };
    assert_eq!(vote("ada", &ada, Verdict::Approve, 3).unwrap(), Status::Pending { voices: 1, quorum: 2 });
    assert_eq!(vote("ada", &ada, Verdict::Approve, 3).unwrap(), Status::Pending { voices: 1, quorum: 2 });
    // Whoever runs what asks does not approve, nor does anybody with another's key, nor a stranger.
    let refused = |error: ApprovalError| match error {
        ApprovalError::Vote(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(refused(vote("eve", &eve, Verdict::Approve, 3).unwrap_err()), VoteError::OwnRequest);
    assert_eq!(refused(vote("bob", &ada, Verdict::Approve, 3).unwrap_err()), VoteError::Signature);
    assert_eq!(refused(vote("mallory", &eve, Verdict::Approve, 3).unwrap_err()), VoteError::UnknownApprover);
    assert!(!reserve_as(&agent, &dear, 2, &at(4)).1.is_allowed());
    assert_eq!(vote("bob", &bob, Verdict::Approve, 4).unwrap(), Status::Approved { voices: 2 });

    // Not for another agent, more money, another thing, payee or body.
    let mut others = vec![request(600_001)];
    for change in [
        |r: &mut Request| r.caller.url.push('b'),
        |r: &mut Request| r.caller.method = "POST".to_owned(),
        |r: &mut Request| r.caller.body = Some([1; 32]),
        |r: &mut Request| r.caller.body = None,
        |r: &mut Request| r.caller.payer = Some(address(9)),
    ] {
        let mut other = dear.clone();
        change(&mut other);
        others.push(other);
    }
    for (n, other) in others.iter().enumerate() {
        assert!(!reserve_as(&agent, other, 100 + n as u64, &at(5)).1.is_allowed(), "{other:?}");
    }
    let sibling = owner.for_agent(name("acme/a"), None);
    assert!(!reserve_as(&sibling, &dear, 200, &at(5)).1.is_allowed());
    assert!(matches!(sibling.approval(&asked.id, &at(5)), Err(ApprovalError::NotFound(_))));

    let (id, decision) = reserve_as(&agent, &dear, 3, &at(5));
    assert!(decision.is_allowed(), "{decision}");
    let why = agent.findings(&id).unwrap().unwrap();
    assert!(
        why.iter().any(|finding| finding.code == "approved" && finding.text.contains(&asked.id.to_string()))
    );
    assert!(!reserve_as(&agent, &dear, 4, &at(6)).1.is_allowed(), "it is used up");
    assert!(owner.approval(&asked.id, &at(6)).unwrap().used);
    assert_eq!(refused(vote("ada", &ada, Verdict::Deny, 7).unwrap_err()), VoteError::Decided);
}

#[test]
fn attack_66_silence_and_one_no_are_no_and_no_approval_lifts_a_cap() {
    let owner = journal();
    let [ada, bob, _] = with_people(&owner);
    let agent = owner.for_agent(name("acme/b"), None);
    let dear = request(600_000);
    let asked = agent.ask_people(&dear, &at(0)).unwrap();
    let vote = |person, key: &ApproverKey, verdict, secs| {
        say(&owner, &asked.request, person, key, verdict, &at(secs))
    };
    vote("ada", &ada, Verdict::Approve, 1).unwrap();
    vote("bob", &bob, Verdict::Approve, 1).unwrap();
    let late = APPROVAL_LASTS.as_secs();
    assert!(!agent.preview(&dear, &at(late)).unwrap().is_allowed(), "it has expired");
    assert!(agent.preview(&dear, &at(late - 1)).unwrap().is_allowed());
    // The rules are asked again: what was spent meanwhile counts.
    for n in 0..3 {
        assert!(reserve(&agent, 500_000, 10 + n));
    }
    assert_eq!(codes(&reserve_as(&agent, &dear, 2, &at(2)).1), ["over_budget", "over_budget"]);
    assert!(
        matches!(agent.ask_people(&dear, &at(2)), Err(ApprovalError::NotAsked(_))),
        "people could not help"
    );

    let owner = self::journal();
    let [ada, bob, _] = with_people(&owner);
    let asked = owner.ask_people(&dear, &at(0)).unwrap();
    say(&owner, &asked.request, "ada", &ada, Verdict::Approve, &at(1)).unwrap();
    assert_eq!(say(&owner, &asked.request, "bob", &bob, Verdict::Deny, &at(1)).unwrap(), Status::Denied);
    assert!(say(&owner, &asked.request, "bob", &bob, Verdict::Approve, &at(2)).is_err(), "a no stays");
    assert!(!owner.preview(&dear, &at(2)).unwrap().is_allowed());
    // A no stays also when whoever said it is no approver any more.
    owner.remove_approver("bob").unwrap();
    assert_eq!(owner.approval(&asked.id, &at(2)).unwrap().status, Status::Denied);
    owner.add_approver("bob", &bob.public(), None, &at(2)).unwrap();
    // Whoever is no approver any more has no word in what is open.
    let again = owner.ask_people(&dear, &at(3)).unwrap();
    assert_ne!(again.id, asked.id);
    say(&owner, &again.request, "ada", &ada, Verdict::Approve, &at(4)).unwrap();
    owner.remove_approver("ada").unwrap();
    assert_eq!(
        say(&owner, &again.request, "bob", &bob, Verdict::Approve, &at(4)).unwrap(),
        Status::Pending { voices: 1, quorum: 2 }
    );
}

#[test]
fn attack_67_an_agent_can_ask_for_so_much_and_its_words_are_bounded() {
    let owner = journal();
    let agent = owner.for_agent(name("acme/b"), None);
    let other = |n: u32| {
        let mut dear = request(600_000);
        dear.caller.url = format!("https://seller.example/{n}");
        dear
    };
    assert!(matches!(agent.ask_people(&other(0), &at(0)), Err(ApprovalError::Nobody)));
    with_people(&owner);
    for n in 0..MAX_PENDING {
        agent.ask_people(&other(n), &at(0)).unwrap();
    }
    assert!(matches!(agent.ask_people(&other(MAX_PENDING), &at(0)), Err(ApprovalError::TooMany)));
    assert_eq!(owner.approvals(true, &at(1)).unwrap().len(), MAX_PENDING as usize);
    // The same again is no new one, others are not held up, and what has expired makes room.
    agent.ask_people(&other(1), &at(1)).unwrap();
    owner.for_agent(name("acme"), None).ask_people(&other(1), &at(1)).unwrap();
    agent.ask_people(&other(MAX_PENDING), &at(APPROVAL_LASTS.as_secs())).unwrap();
}

#[test]
fn one_key_has_one_voice() {
    let journal = journal();
    let [ada, ..] = with_people(&journal);
    assert!(matches!(
        journal.add_approver("ada2", &ada.public(), None, &at(0)),
        Err(ApprovalError::Exists(_))
    ));
    let key = ApproverKey::from_seed([9; 32]).unwrap().public();
    assert!(matches!(journal.add_approver("ada", &key, None, &at(0)), Err(ApprovalError::Exists(_))));
    assert!(matches!(journal.add_approver("Ada", &key, None, &at(0)), Err(ApprovalError::Name(_))));
    assert!(matches!(journal.remove_approver("nobody"), Err(ApprovalError::Unknown(_))));
    assert_eq!(journal.approvers().unwrap().len(), 3);
}

const PAGE: &str = "http://localhost:8405";

fn passkey(n: u8, key: &ApproverKey) -> Passkey {
    Passkey {
        id: CredentialId::new(&[n; 16]).unwrap(),
        key: PasskeyKey::Ed25519(key.public().0),
        site: Site::of(PAGE).unwrap(),
        count: 0,
    }
}

/// What a device says that counts, as a browser passes it on.
fn answered(key: &ApproverKey, request: &Asked, verdict: Verdict, count: u32) -> Ballot {
    let challenge = URL_SAFE_NO_PAD.encode(request.message(verdict));
    let client_data =
        format!(r#"{{"type":"webauthn.get","challenge":"{challenge}","origin":"{PAGE}"}}"#).into_bytes();
    let present_and_verified = [0b101];
    let authenticator_data =
        [&Sha256::digest("localhost")[..], &present_and_verified, &count.to_be_bytes()].concat();
    let signature = key.sign(&[&authenticator_data[..], &Sha256::digest(&client_data)].concat());
    Ballot { verdict, proof: Proof::Passkey(Assertion { authenticator_data, client_data, signature }) }
}

#[test]
fn attack_66_a_passkeys_word_counts_like_a_keys_and_its_counter_is_kept() {
    let owner = journal();
    let [ada, bob, _] = with_people(&owner);
    let [carol, eve] = [4, 5].map(|n| ApproverKey::from_seed([n; 32]).unwrap());
    owner.add_passkey("carol", &passkey(4, &carol), None, &at(0)).unwrap();
    owner.add_passkey("dan", &passkey(5, &eve), Some(&name("acme")), &at(0)).unwrap();
    let agent = owner.for_agent(name("acme/b"), None);
    let asked = agent.ask_people(&request(600_000), &at(1)).unwrap();
    let vote = |person: &str, ballot: &Ballot| {
        owner.vote(&asked.id, person, ballot, &at(2)).map(|kept| kept.status).map_err(|error| match error {
            ApprovalError::Vote(error) => error,
            other => panic!("{other}"),
        })
    };
    let counted = || match owner.approvers().unwrap().into_iter().find(|one| one.name == "carol") {
        Some(Approver { credential: Credential::Passkey(passkey), .. }) => passkey.count,
        other => panic!("{other:?}"),
    };
    let yes = answered(&carol, &asked.request, Verdict::Approve, 3);
    let other_kind = Err(VoteError::Passkey(PasskeyError::OtherKind));
    assert_eq!(vote("ada", &yes), other_kind);
    assert_eq!(vote("carol", &Ballot::cast(&carol, &asked.request, Verdict::Approve)), other_kind);
    assert_eq!(
        vote("carol", &Ballot { verdict: Verdict::Deny, ..yes.clone() }),
        Err(VoteError::Passkey(PasskeyError::Challenge))
    );
    let for_agents_boss = answered(&eve, &asked.request, Verdict::Approve, 1);
    assert_eq!(vote("dan", &for_agents_boss), Err(VoteError::OwnRequest));
    assert_eq!(counted(), 0, "what did not count, counts nothing");
    assert_eq!(vote("carol", &yes), Ok(Status::Pending { voices: 1, quorum: 2 }));
    assert_eq!(counted(), 3);
    assert_eq!(vote("carol", &yes), Err(VoteError::Passkey(PasskeyError::Counter)), "a copy, or said again");
    assert_eq!(
        vote("bob", &Ballot::cast(&bob, &asked.request, Verdict::Approve)),
        Ok(Status::Approved { voices: 2 })
    );
    assert!(reserve_as(&agent, &request(600_000), 1, &at(3)).1.is_allowed());

    // One passkey has one voice, and a name that is free again is another's.
    let again = |person: &str, made: &Passkey| owner.add_passkey(person, made, None, &at(4));
    assert!(matches!(again("carol2", &passkey(4, &ada)), Err(ApprovalError::Exists(_))));
    assert!(matches!(again("carol2", &passkey(9, &carol)), Err(ApprovalError::Exists(_))));
    assert!(matches!(again("carol", &passkey(9, &ada)), Err(ApprovalError::Exists(_))));
    assert_eq!(owner.approvers().unwrap().len(), 5);
    owner.remove_approver("carol").unwrap();
    again("carol", &passkey(4, &carol)).unwrap();
    assert_eq!(counted(), 0);
}

/// What people said before there were passkeys is what they said.
#[test]
fn a_wallet_of_the_sixth_version_keeps_its_approvers_and_their_words() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let (people, asked) = {
        let journal = Journal::open(&path).unwrap();
        journal.apply_policy(POLICY, false).unwrap();
        let [ada, ..] = with_people(&journal);
        let asked = journal.for_agent(name("acme/b"), None).ask_people(&request(600_000), &at(1)).unwrap();
        say(&journal, &asked.request, "ada", &ada, Verdict::Approve, &at(2)).unwrap();
        (journal.approvers().unwrap(), journal.approval(&asked.id, &at(3)).unwrap())
    };
    let db = rusqlite::Connection::open(&path).unwrap();
    back_to(&db, 6);
    drop(db);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.approvers().unwrap(), people);
    assert_eq!(journal.approval(&asked.id, &at(3)).unwrap(), asked);
    assert_eq!(asked.status, Status::Pending { voices: 1, quorum: 2 });
    let carol = ApproverKey::from_seed([4; 32]).unwrap();
    journal.add_passkey("carol", &passkey(4, &carol), None, &at(3)).unwrap();
    let word = answered(&carol, &asked.request, Verdict::Approve, 0);
    let now = journal.vote(&asked.id, "carol", &word, &at(4)).unwrap();
    assert_eq!(now.status, Status::Approved { voices: 2 });
}

/// What was approved before there were grants is what it was, and there can be grants beside it.
#[test]
fn a_wallet_of_the_eighth_version_keeps_its_approvals_and_gets_grants() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let [used, open] = {
        let journal = Journal::open(&path).unwrap();
        journal.apply_policy(POLICY, false).unwrap();
        let keys = with_people(&journal);
        let approved = |micros| {
            let asked = journal.ask_people(&request(micros), &at(1)).unwrap();
            assert_eq!(yes(&journal, &asked, &keys, &at(2)), Status::Approved { voices: 2 });
            asked.id
        };
        let used = approved(600_000);
        assert!(reserve_as(&journal, &request(600_000), 1, &at(2)).1.is_allowed());
        [used, approved(700_000)]
    };
    let db = rusqlite::Connection::open(&path).unwrap();
    back_to(&db, 8);
    drop(db);
    let journal = Journal::open(&path).unwrap();
    assert_eq!(journal.approval(&used, &at(3)).unwrap().state(), "used");
    assert_eq!(journal.approval(&open, &at(3)).unwrap().state(), "approved");
    assert!(reserve_as(&journal, &request(700_000), 2, &at(3)).1.is_allowed());
    assert!(!reserve_as(&journal, &request(700_000), 3, &at(3)).1.is_allowed());
    let keys = [1, 2, 3].map(|n| ApproverKey::from_seed([n; 32]).unwrap());
    let terms = GrantTerms { each: None, total: None, ..terms() };
    let asked = journal.ask_for_grant(&request(600_000), &terms, &at(4)).unwrap();
    assert_eq!(yes(&journal, &asked, &keys, &at(4)), Status::Approved { voices: 2 });
    assert!(reserve_as(&journal, &request(600_000), 4, &at(5)).1.is_allowed());
}

#[test]
fn the_past_is_decided_again_by_another_policy() {
    let owner = journal();
    let (a, b) = (owner.for_agent(name("acme/a"), None), owner.for_agent(name("acme/b"), None));
    for n in 0..4 {
        let journal = if n % 2 == 0 { &a } else { &b };
        assert!(reserve_as(journal, &request(300_000), n, &at(n * 10)).1.is_allowed());
    }
    let replay = |text: &str| {
        let replayed = owner.replay(&Policy::parse(text).unwrap(), &Registry::builtin(), NOW).unwrap();
        replayed.iter().map(|one| one.decision.is_allowed()).collect::<Vec<_>>()
    };
    assert_eq!(replay(POLICY), [true; 4]);
    // What the other policy denies does not count in it.
    let less = POLICY.replace("acme/a: {rolling: {24h: $1}}", "acme/a: {rolling: {24h: $0.20}}");
    assert_eq!(replay(&less), [false, true, false, true]);
    let total = POLICY.replace("rolling: {24h: $2}", "rolling: {24h: $0.95}");
    let total = total.replace("{24h: $1}", "{24h: $0.95}").replace("{24h: $1.50}", "{24h: $0.95}");
    assert_eq!(replay(&total), [true, true, true, false]);
    let later = owner.replay(
        &Policy::parse(POLICY).unwrap(),
        &Registry::builtin(),
        NOW.plus(Duration::from_secs(15)),
    );
    assert_eq!(later.unwrap().len(), 2);
    assert_eq!(owner.policy().unwrap().unwrap().text, POLICY, "nothing has changed");
}

#[test]
fn room_is_what_a_payment_could_be() {
    let owner = journal();
    let a = owner.for_agent(name("acme/a"), None);
    let atom = request(1);
    assert_eq!(a.room(&atom, false, &at(0)).unwrap(), 500_000, "what needs nobody's approval");
    assert!(reserve_as(&a, &request(500_000), 1, &at(0)).1.is_allowed());
    assert!(reserve_as(&a, &request(300_000), 2, &at(0)).1.is_allowed());
    assert_eq!(a.room(&atom, true, &at(0)).unwrap(), 200_000);
    assert_eq!(a.room(&atom, false, &at(0)).unwrap(), 500_000);
    // By the rules that are set by hand it is as ever: ten cents, and a dollar in an hour.
    let plain = Journal::in_memory().unwrap();
    assert_eq!(plain.room(&atom, true, &at(0)).unwrap(), 100_000);
    assert_eq!(Window::ALL.len(), 2);
}

/// Every kind of sum that there is.
const SUMS: &str = "
version: 1
owner: acme
breaker: {refusals: 1000, within: 10m, velocity_jump: 1000}
budgets:
  acme: {per_payment: $1, rolling: {1h: $20, 24h: $60}, calendar: {day: $50}, lifetime: $300, payments: {1m: 40}}
  acme/a: {rolling: {1h: $10}, per_host: {1h: $6}, per_payee: {24h: $30}}
  acme/a/inner: {per_tool: {1h: $3}, payments: {1h: 90}}
  acme/b: {rolling: {24h: $25}}
allow:
  - {hosts: [\"*.example\"]}
";

/// What a decision is if everything that was ever spent is looked at for it.
fn by_everything(journal: &Journal, request: &Request, clock: &Clock) -> Decision {
    let decided = journal.within(|tx| {
        let now = super::super::believed(tx, clock)?.time;
        let law = journal.law_now(tx)?;
        let request = journal.as_own(request);
        let mut history = super::super::history(tx, &law, &request, now)?;
        history.movements = super::super::movements(tx, now, law.memory())?;
        Ok(law.decide(&history, &request, now))
    });
    decided.unwrap()
}

#[test]
fn what_several_processes_count_as_it_comes_is_what_the_books_say() {
    for seed in 1..=3u64 {
        let mut chance = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |most: u64| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (chance >> 33) % most
        };
        let first = Journal::in_memory().unwrap();
        first.apply_policy(SUMS, false).unwrap();
        let second = first.as_process("second", |_| false);
        let mut fronts = Vec::new();
        for process in [&first, &second] {
            fronts.push(process.as_process("owner", |_| false));
            for agent in ["acme/a", "acme/a/inner", "acme/b"] {
                fronts.push(process.for_agent(name(agent), None));
            }
        }
        let (mut secs, mut live) = (0, Vec::new());
        let (mut allowed, mut denied) = (0, 0);
        for n in 0..250 {
            secs += below(240);
            let clock = at(secs);
            let which = usize::try_from(below(8)).unwrap();
            let front = &fronts[which];
            let mut asked = request(u128::from(below(900_000)) + 1);
            let host = format!("https://seller-{}.example/", below(3));
            asked.origin = Origin::of(&host.parse().unwrap()).unwrap();
            asked.payee = address(asked.origin.authority().as_bytes()[7]);
            asked.caller.tool = [None, Some("one".to_owned()), Some("two".to_owned())]
                [usize::try_from(below(3)).unwrap()]
            .clone();
            let check = |when: &str| {
                let expected = by_everything(front, &asked, &clock);
                assert_eq!(front.preview(&asked, &clock).unwrap(), expected, "seed {seed}, step {n}, {when}");
                expected
            };
            check("before");
            // What lapses does so in the step that reserves, or before it.
            let lapsed = below(2) == 0;
            if lapsed {
                fronts[0].recover(&clock).unwrap();
            }
            let expected = check("after what lapsed");
            let (id, decision) = reserve_as(front, &asked, n, &clock);
            assert!(!lapsed || decision == expected, "seed {seed}, step {n}: {decision}");
            check("afterwards");
            if decision.is_allowed() {
                allowed += 1;
                // What is shown no longer lapses.
                if below(8) > 0 {
                    let header = Header { name: "X-PAYMENT".to_owned(), value: "signed".to_owned() };
                    front.signed(&id, &header, &Instruction::new(Vec::new()), &clock).unwrap();
                    front.present(&id, &clock).unwrap();
                }
                live.push((which, id));
            } else {
                denied += 1;
            }
            // Some are given up, some lapse, and the others stay; a policy that reads otherwise begins to count anew.
            if below(6) == 0
                && let Some((which, id)) = (!live.is_empty()).then(|| live.swap_remove(live.len() / 2))
            {
                // It may have lapsed before.
                let _ = fronts[which].release(&id, crate::journal::Proof::UnusedAfterExpiry, &clock);
            }
            match below(60) {
                0 => first.apply_policy(&format!("{SUMS}# {n}\n"), false).map(drop).unwrap(),
                // What fails is undone, and what was counted of it, too.
                1 => assert!(
                    first
                        .within(|tx| first
                            .ruling(tx, &asked, clock.wall, true)
                            .and(Err::<(), _>(JournalError::Frozen)))
                        .is_err()
                ),
                _ => {}
            }
        }
        assert!(allowed > 50 && denied > 20, "{allowed} allowed, {denied} denied");
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Grants.

/// Ten cheap things or three dear ones, of one host, within an hour.
fn terms() -> GrantTerms {
    GrantTerms {
        payments: 3,
        each: Some(300_000),
        total: Some(700_000),
        lasts: Duration::from_secs(3600),
        below: Some("https://seller.example/".to_owned()),
        any_body: true,
    }
}

/// A wallet whose agents ask for whatever is over a tenth of a dollar.
fn granting() -> (Journal, [ApproverKey; 3]) {
    let owner = Journal::in_memory().unwrap();
    owner.apply_policy(&POLICY.replace("over: $0.50", "over: $0.10"), false).unwrap();
    let keys = with_people(&owner);
    (owner, keys)
}

fn yes(owner: &Journal, asked: &KeptApproval, keys: &[ApproverKey; 3], clock: &Clock) -> Status {
    say(owner, &asked.request, "ada", &keys[0], Verdict::Approve, clock).unwrap();
    say(owner, &asked.request, "bob", &keys[1], Verdict::Approve, clock).unwrap()
}

fn for_path(path: &str, micros: u128) -> Request {
    let mut request = request(micros);
    request.caller.url = format!("https://seller.example{path}");
    request.caller.path = path.to_owned();
    request
}

fn vote_error(error: ApprovalError) -> VoteError {
    match error {
        ApprovalError::Vote(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn attack_66_a_grant_is_good_for_its_payments_its_money_and_its_time() {
    let (owner, keys) = granting();
    let agent = owner.for_agent(name("acme/b"), None);
    let asked = agent.ask_for_grant(&for_path("/a", 200_000), &terms(), &at(0)).unwrap();
    assert!(asked.id.is_grant());
    assert_eq!(
        agent.ask_for_grant(&for_path("/b", 300_000), &terms(), &at(1)).unwrap().id,
        asked.id,
        "what waits is not asked for again"
    );
    let one = agent.ask_people(&for_path("/b", 300_000), &at(1)).unwrap();
    assert!(!one.id.is_grant(), "one payment can be asked for beside it");
    owner.revoke_approval(&one.id, &at(1)).unwrap();
    // Whoever runs what asks does not agree to it.
    let own = say(&owner, &asked.request, "eve", &keys[2], Verdict::Approve, &at(1)).unwrap_err();
    assert_eq!(vote_error(own), VoteError::OwnRequest);
    say(&owner, &asked.request, "ada", &keys[0], Verdict::Approve, &at(1)).unwrap();
    assert!(!reserve_as(&agent, &for_path("/a", 200_000), 1, &at(1)).1.is_allowed(), "one of two");
    assert_eq!(yes(&owner, &asked, &keys, &at(2)), Status::Approved { voices: 2 });

    let left = |secs| owner.approval(&asked.id, &at(secs)).unwrap().left().unwrap();
    assert_eq!(left(2), Uses { payments: 3, atoms: 700_000 });
    // Another path, query and body, but not another agent, method, payee, payer or host, nor more for one.
    let mut bodied = for_path("/b/c", 300_000);
    bodied.caller.url.push_str("?x=1");
    bodied.caller.body = Some([9; 32]);
    assert!(reserve_as(&agent, &bodied, 2, &at(3)).1.is_allowed());
    assert_eq!(left(3), Uses { payments: 2, atoms: 400_000 });
    let sibling = owner.for_agent(name("acme/a"), None);
    assert!(!reserve_as(&sibling, &for_path("/a", 200_000), 3, &at(3)).1.is_allowed());
    for (n, change) in [
        (|r: &mut Request| r.caller.method = "POST".to_owned()) as fn(&mut Request),
        |r| r.caller.payer = Some(address(9)),
        |r| r.caller.url = "https://seller.example:8443/a".to_owned(),
        |r| r.caller.body = None,
        |r| r.scheme = SESSION.to_owned(),
        |r| *r = for_path("/a", 300_001),
    ]
    .into_iter()
    .enumerate()
    {
        let mut other = for_path("/a", 200_000);
        change(&mut other);
        assert!(!reserve_as(&agent, &other, 100 + n as u64, &at(3)).1.is_allowed(), "{other:?}");
    }
    // What needs nobody's word uses nothing up.
    assert!(reserve_as(&agent, &for_path("/a", 100_000), 4, &at(3)).1.is_allowed());
    assert_eq!(left(3), Uses { payments: 2, atoms: 400_000 });
    // Together no more than the total, though there is a place.
    let (second, decision) = reserve_as(&agent, &for_path("/a", 250_000), 5, &at(4));
    assert!(decision.is_allowed(), "{decision}");
    assert_eq!(codes(&reserve_as(&agent, &for_path("/a", 150_001), 6, &at(4)).1), ["approval_required"]);
    assert!(reserve_as(&agent, &for_path("/a", 150_000), 7, &at(4)).1.is_allowed());
    let kept = owner.approval(&asked.id, &at(4)).unwrap();
    assert_eq!((kept.left(), kept.used), (Some(Uses::default()), true));
    assert!(!reserve_as(&agent, &for_path("/a", 100_001), 8, &at(4)).1.is_allowed(), "no place and no money");
    // A place comes back only with the proof that no money can move.
    owner.drop_unsigned(&second, &at(5)).unwrap();
    assert_eq!(left(5), Uses { payments: 1, atoms: 250_000 });
    assert!(!agent.preview(&for_path("/a", 200_000), &at(3600)).unwrap().is_allowed(), "it has expired");
    assert!(reserve_as(&agent, &for_path("/a", 200_000), 10, &at(3599)).1.is_allowed());
}

/// What was shown may still move, whatever the seller says of it.
#[test]
fn attack_66_a_refused_payment_keeps_its_place_in_a_grant() {
    let (owner, keys) = granting();
    let asked = owner.ask_for_grant(&request(300_000), &terms(), &at(0)).unwrap();
    yes(&owner, &asked, &keys, &at(1));
    let (id, _) = reserve_as(&owner, &request(300_000), 1, &at(2));
    let header = Header { name: "payment".to_owned(), value: "x".to_owned() };
    owner.signed(&id, &header, &Instruction::new(vec![1]), &at(2)).unwrap();
    owner.present(&id, &at(2)).unwrap();
    let refused = Outcome::Refused { receipt: None, note: "no".to_owned() };
    owner.conclude(&id, &refused, &at(3)).unwrap();
    let left = |secs| owner.approval(&asked.id, &at(secs)).unwrap().left().unwrap().payments;
    assert_eq!(left(200), 2, "it was shown");
    owner.release(&id, ReleaseProof::UnusedAfterExpiry, &at(200)).unwrap();
    assert_eq!(left(200), 3);
}

#[test]
fn attack_66_no_grant_lifts_a_cap_and_the_policy_is_asked_each_time() {
    let (owner, keys) = granting();
    let agent = owner.for_agent(name("acme/a"), None);
    let terms = GrantTerms { payments: 1000, each: Some(1_000_000), total: None, ..terms() };
    let asked = agent.ask_for_grant(&request(600_000), &terms, &at(0)).unwrap();
    yes(&owner, &asked, &keys, &at(1));
    assert!(reserve_as(&agent, &request(600_000), 1, &at(2)).1.is_allowed());
    assert_eq!(codes(&reserve_as(&agent, &request(600_000), 2, &at(2)).1), ["over_budget"]);
    // A policy that asks more people than agreed is not satisfied by those who did.
    let stricter = POLICY.replace("over: $0.50, quorum: 2", "over: $0.10, quorum: 3");
    owner.apply_policy(&stricter, false).unwrap();
    assert_eq!(codes(&reserve_as(&agent, &request(200_000), 3, &at(3)).1), ["approval_required"]);
    owner.apply_policy(&POLICY.replace("over: $0.50", "over: $0.10"), true).unwrap();
    owner
        .change_rules(|rules| {
            rules.frozen = true;
            Ok(())
        })
        .unwrap();
    assert!(codes(&reserve_as(&agent, &request(200_000), 4, &at(3)).1).contains(&"frozen".to_owned()));
}

#[test]
fn attack_66_a_grant_ends_at_once_by_the_owner_or_one_no() {
    for end in ["owner", "ada", "removed"] {
        let (owner, keys) = granting();
        let asked = owner.ask_for_grant(&request(200_000), &terms(), &at(0)).unwrap();
        yes(&owner, &asked, &keys, &at(1));
        assert!(reserve_as(&owner, &request(200_000), 1, &at(2)).1.is_allowed());
        assert_eq!(owner.open_grants(&at(2)).unwrap().len(), 1);
        let (before, audited) = (owner.audit_count().unwrap(), end != "removed");
        match end {
            "owner" => assert!(owner.revoke_approval(&asked.id, &at(3)).unwrap().revoked),
            "ada" => {
                let said = say(&owner, &asked.request, "ada", &keys[0], Verdict::Deny, &at(3));
                assert_eq!(said.unwrap(), Status::Denied);
            }
            _ => owner.remove_approver("bob").unwrap(),
        }
        let leaves = Leaves::read(&owner, before, 10).unwrap();
        let said = String::from_utf8(leaves.concat()).unwrap();
        assert!(!audited || said.contains(&asked.id.to_string()), "{end}: {said}");
        assert_eq!(
            codes(&reserve_as(&owner, &request(200_000), 2, &at(3)).1),
            ["approval_required"],
            "{end}"
        );
        assert!(owner.open_grants(&at(3)).unwrap().is_empty());
        if audited {
            let again = say(&owner, &asked.request, "bob", &keys[1], Verdict::Approve, &at(4));
            assert_eq!(vote_error(again.unwrap_err()), VoteError::Decided, "{end}: it is over for good");
            assert!(owner.revoke_approval(&asked.id, &at(4)).is_err());
        }
    }
}

#[test]
fn attack_66_a_grant_in_the_place_of_a_request_is_about_the_same() {
    let (owner, keys) = granting();
    let agent = owner.for_agent(name("acme/b"), None);
    let asked = agent.ask_people(&request(200_000), &at(0)).unwrap();
    let one = asked.request.payment().unwrap().clone();
    let grant = GrantRequest::new(&one.subject, one.max, &terms(), at(1).wall).unwrap();
    let offer = |grant: &GrantRequest, who: &str, key: &ApproverKey| {
        let ballot = Ballot::cast(key, grant, Verdict::Approve);
        owner.offer_grant(&asked.id, grant, Some((who, &ballot)), &at(1))
    };
    // Not for another agent, thing or body, nor less, nor by somebody whose word does not count: and then it is not even
    // asked for.
    for change in [
        (|g: &mut GrantRequest| g.agent = None) as fn(&mut GrantRequest),
        |g| g.payee = address(9),
        |g| g.method = "POST".to_owned(),
        |g| g.place = Place::Exactly("https://seller.example/b".to_owned()),
        |g| g.max = 199_999,
        |g| g.expires = Timestamp::from_secs(0),
        |g| g.payments = 0,
    ] {
        let mut other = grant.clone();
        change(&mut other);
        assert!(offer(&other, "ada", &keys[0]).is_err(), "{other:?}");
    }
    assert_eq!(vote_error(offer(&grant, "eve", &keys[2]).unwrap_err()), VoteError::OwnRequest);
    assert_eq!(vote_error(offer(&grant, "bob", &keys[0]).unwrap_err()), VoteError::Signature);
    assert_eq!(owner.approvals(false, &at(1)).unwrap().len(), 1);
    let offered = offer(&grant, "ada", &keys[0]).unwrap();
    assert_eq!(offered.status, Status::Pending { voices: 1, quorum: 2 });
    assert_eq!((offered.rule.as_str(), offered.request.agent()), ("dear", Some(&name("acme/b"))));
    assert!(!reserve_as(&agent, &request(200_000), 1, &at(2)).1.is_allowed());
    say(&owner, &offered.request, "bob", &keys[1], Verdict::Approve, &at(2)).unwrap();
    for n in 2..5 {
        assert!(reserve_as(&agent, &request(200_000), n, &at(3)).1.is_allowed());
    }
    assert!(!reserve_as(&agent, &request(200_000), 5, &at(3)).1.is_allowed());
    // The leaf of each use has what was signed.
    let leaves = Leaves::read(&owner, 0, 1000).unwrap();
    let digest = format!("sha256:{}", grant.digest());
    let uses = leaves.iter().filter(|leaf| {
        let leaf = std::str::from_utf8(leaf).unwrap();
        leaf.contains("\"approval_used\"") && leaf.contains(&digest)
    });
    assert_eq!(uses.count(), 3);
    // What is denied is not granted by another question.
    say(&owner, &asked.request, "ada", &keys[0], Verdict::Deny, &at(4)).unwrap();
    let later = GrantRequest { payments: 4, ..grant };
    assert_eq!(vote_error(offer(&later, "ada", &keys[0]).unwrap_err()), VoteError::Decided);
}

#[test]
fn attack_67_an_agent_has_so_many_grants_and_no_channel() {
    let (owner, keys) = granting();
    let mut agent = owner.for_agent(name("acme/b"), None);
    let narrow = GrantTerms { below: None, ..terms() };
    let ask =
        |agent: &Journal, n: u32| agent.ask_for_grant(&for_path(&format!("/{n}"), 200_000), &narrow, &at(0));
    for n in 0..MAX_PENDING {
        ask(&agent, n).unwrap();
    }
    assert!(matches!(ask(&agent, MAX_PENDING), Err(ApprovalError::TooMany)));
    // Those that people agreed to wait for nobody, and are bounded by themselves.
    for asked in owner.approvals(true, &at(0)).unwrap() {
        yes(&owner, &asked, &keys, &at(0));
    }
    for n in MAX_PENDING..MAX_GRANTS {
        let asked = ask(&agent, n).unwrap();
        yes(&owner, &asked, &keys, &at(0));
    }
    assert!(matches!(ask(&agent, MAX_GRANTS), Err(ApprovalError::TooManyGrants)));
    assert_eq!(owner.open_grants(&at(0)).unwrap().len(), MAX_GRANTS as usize);
    agent = owner.for_agent(name("acme/a"), None);
    let session = Request { scheme: SESSION.to_owned(), ..request(200_000) };
    let refused = agent.ask_for_grant(&session, &terms(), &at(0));
    assert!(matches!(refused, Err(ApprovalError::NoGrantForChannels)));
    assert!(ask(&agent, 0).is_ok());
    let cheap = agent.ask_for_grant(&request(1), &terms(), &at(0));
    assert!(matches!(cheap, Err(ApprovalError::NotAsked(_))), "nobody has to agree");
}

/// Many processes at once, over one file: as many pass as the grant has places.
#[test]
fn attack_20_two_at_once_do_not_both_have_the_last_place_of_a_grant() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.db");
    let owner = Journal::open(&path).unwrap();
    owner.apply_policy(&POLICY.replace("over: $0.50", "over: $0.01"), false).unwrap();
    let keys = with_people(&owner);
    let agent = owner.for_agent(name("acme/b"), None);
    for (payments, total, passes) in [(7, 140_000, 7), (50, 100_000, 5)] {
        let url = format!("/{passes}/");
        let terms = GrantTerms {
            payments,
            each: Some(20_000),
            total: Some(total),
            below: Some(format!("https://seller.example{url}")),
            ..terms()
        };
        let asked = agent.ask_for_grant(&for_path(&url, 20_000), &terms, &at(0)).unwrap();
        yes(&owner, &asked, &keys, &at(0));
        let start = Barrier::new(8);
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8u64)
                .map(|thread| {
                    let (path, start, url) = (&path, &start, &url);
                    scope.spawn(move || {
                        let journal = Journal::open(path).unwrap().for_agent(name("acme/b"), None);
                        start.wait();
                        let buys = |n: &u64| {
                            let n = passes as u64 * 10_000 + thread * 100 + n;
                            reserve_as(&journal, &for_path(url, 20_000), n, &at(1)).1.is_allowed()
                        };
                        (0..5).filter(buys).count()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, passes);
        let uses = owner.approval(&asked.id, &at(1)).unwrap().uses;
        assert_eq!((uses.payments as usize, uses.atoms), (passes, passes as u128 * 20_000));
    }
}

/// What is asked for is forgotten with the last payment, once the grant is over.
#[test]
fn a_grant_is_forgotten_with_what_it_was_used_for() {
    let (owner, keys) = granting();
    let asked = owner.ask_for_grant(&request(200_000), &terms(), &at(0)).unwrap();
    yes(&owner, &asked, &keys, &at(1));
    let ids = [1, 2].map(|n| reserve_as(&owner, &request(200_000), n, &at(2)).0);
    for id in &ids {
        owner.drop_unsigned(id, &at(3)).unwrap();
    }
    let known = |secs| owner.approval(&asked.id, &at(secs)).is_ok();
    owner.erase(&ids[0], &at(4)).unwrap();
    owner.erase(&ids[1], &at(4)).unwrap();
    assert!(known(4), "it is good for more");
    owner.erase(&ids[0], &at(3600)).unwrap();
    assert!(!known(3600));
}

#[test]
fn what_a_screener_holds_waits_for_people_and_what_it_denies_does_not() {
    let screened = POLICY
        .replace("approve:\n  - {name: dear, over: $0.50, quorum: 2}", "screen: {command: [/bin/true]}");
    assert_ne!(screened, POLICY);
    let journal = Journal::in_memory().unwrap();
    let kept = journal.apply_policy(&screened, false).unwrap();
    let [ada, ..] = with_people(&journal);
    let said = |micros, said| {
        let mut asked = request(micros);
        let question = farthing_policy::Question::of(&journal.as_own(&asked));
        let asks = kept.policy.screen.as_ref().unwrap().asks.clone();
        asked.screened = Some(Screened { asks, question, said, reason: Some("new".to_owned()) });
        asked
    };
    let held = said(20_000, Screening::Hold);
    assert_eq!(codes(&reserve_as(&journal, &held, 1, &at(0)).1), ["approval_required"]);
    let asked = journal.ask_people(&held, &at(1)).unwrap();
    say(&journal, &asked.request, "ada", &ada, Verdict::Approve, &at(2)).unwrap();
    // It lifts no other word of the screener's, nor its silence.
    for other in [
        said(20_000, Screening::Deny),
        request(20_000),
        Request { screened: said(20_001, Screening::Allow).screened, ..held.clone() },
    ] {
        assert!(!reserve_as(&journal, &other, 2, &at(3)).1.is_allowed());
    }
    let (id, decision) = reserve_as(&journal, &held, 3, &at(4));
    assert!(decision.is_allowed(), "{decision}");
    let found: Vec<_> =
        journal.findings(&id).unwrap().unwrap().into_iter().map(|finding| finding.code).collect();
    assert!(found.contains(&"screen_held".to_owned()) && found.contains(&"approved".to_owned()), "{found:?}");
    assert_eq!(codes(&reserve_as(&journal, &held, 5, &at(5)).1), ["approval_required"], "it is used up");
    let denied = said(20_000, Screening::Deny);
    assert!(matches!(journal.ask_people(&denied, &at(6)), Err(ApprovalError::NotAsked(_))));
    // The log has what was said, and only commits to why.
    let logged: Vec<String> = journal
        .within(|tx| {
            let mut found = tx.prepare("SELECT CAST(leaf AS TEXT) FROM audit_leaf ORDER BY idx")?;
            let rows = found.query_map([], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .unwrap();
    let all = logged.join("\n");
    assert!(
        all.contains("\"screen\":\"hold\"") && all.contains("\"screener\":\"command /bin/true\""),
        "{all}"
    );
    assert!(all.contains("\"screen_reason\":\"salted-sha256:"), "{all}");
}

/// By the sums that a process keeps, by those of one that starts, and where the windows themselves do not count.
#[test]
fn a_limit_follows_what_the_books_say_was_paid() {
    let limit = "{follow: price, last: 30d, percent: 150, floor: $0.05, ceiling: $1}";
    let journal = Journal::in_memory().unwrap();
    journal
        .apply_policy(&POLICY.replace("per_payment: $1", &format!("per_payment: {limit}")), false)
        .unwrap();
    let asked = |micros, secs| journal.preview(&request(micros), &at(secs)).unwrap().is_allowed();
    let (id, decision) = reserve_as(&journal, &request(50_000), 1, &at(0));
    assert!(decision.is_allowed(), "{decision}");
    let header = Header { name: "x-payment".to_owned(), value: "1".to_owned() };
    journal.signed(&id, &header, &Instruction::new(vec![1]), &at(1)).unwrap();
    journal.present(&id, &at(1)).unwrap();
    // What was paid today is no price yet.
    assert!(asked(50_000, 3600) && !asked(50_001, 3600));
    let later = 86_400 + 120;
    assert!(asked(75_000, later) && !asked(75_001, later));
    let voucher = |micros| journal.preview_spend(&request(micros), &at(later)).unwrap().is_allowed();
    assert!(voucher(75_000) && !voucher(75_001));
    *journal.meters.lock().unwrap() = None;
    assert!(asked(75_000, later) && !asked(75_001, later));
    let room = |spent| journal.room(&request(1), spent, &at(later)).unwrap();
    assert_eq!((room(true), room(false)), (75_000, 50_000));
}
