use std::sync::Mutex;
use std::time::Duration;

use farthing_payment::{ConsumptionKey, Instruction};
use farthing_policy::{Charge, HostRule, Origin, Request};
use farthing_primitives::{Address, Network, Registry, RequestHash};

use super::*;
use crate::journal::{Draft, Header, Outcome, Proof, State};

const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn clock() -> Clock {
    Clock { wall: NOW, steady: None }
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn credential(n: u8) -> Credential {
    Credential([n; 32])
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

fn add(journal: &Journal, agent: &str, n: u8) -> Journal {
    journal.add_agent(&name(agent), CredentialKind::Token, &credential(n), &clock()).unwrap();
    journal.for_agent(name(agent), Some(credential(n)))
}

fn reserve(journal: &Journal, n: u8) -> Result<Option<PurchaseId>, JournalError> {
    let registry = Registry::builtin();
    let network = Network::eip155(84532);
    let request = Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, registry.dollar(&network).unwrap().atoms(100)).unwrap(),
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
        request_hash: RequestHash([7; 32]),
        payer: Address::from_evm_bytes([2; 20]),
        consumption: ConsumptionKey::new(format!("test:{n}")),
        expires: NOW.plus(Duration::from_secs(60)),
        lag: Duration::ZERO,
        said: Default::default(),
    };
    let allowed = journal.reserve(&request, &draft, &clock())?.decision.is_allowed();
    Ok(allowed.then_some(draft.id))
}

fn sign(journal: &Journal, id: &PurchaseId) -> Result<(), JournalError> {
    let header = Header { name: "payment-signature".to_owned(), value: "x".to_owned() };
    journal.signed(id, &header, &Instruction::new(vec![1]), &clock())
}

#[test]
fn an_agent_sees_and_touches_its_own_alone() {
    let owner = journal();
    let (a, b) = (add(&owner, "acme/a", 1), add(&owner, "acme/b", 2));
    let id = reserve(&a, 1).unwrap().unwrap();
    assert_eq!(owner.get(&id).unwrap().agent, Some(name("acme/a")), "the owner sees whose it is");
    assert_eq!(a.get(&id).unwrap().id, id);
    let parent = owner.for_agent(name("acme"), None);
    let outcome = Outcome::Refused { receipt: None, note: "no".to_owned() };
    for other in [&b, &parent] {
        let missing = |result: Result<(), JournalError>| {
            assert!(matches!(result, Err(JournalError::NotFound(found)) if found == id), "{result:?}");
        };
        missing(other.get(&id).map(drop));
        missing(sign(other, &id));
        missing(other.present(&id, &clock()).map(drop));
        missing(other.conclude(&id, &outcome, &clock()));
        missing(other.received(&id));
        missing(other.finalize(&id));
        missing(other.release(&id, Proof::NeverShown, &clock()));
        missing(other.drop_unsigned(&id, &clock()));
        assert!(other.history(10).unwrap().is_empty());
        assert!(other.latest_for(&RequestHash([7; 32])).unwrap().is_none());
    }
    sign(&a, &id).unwrap();
    a.present(&id, &clock()).unwrap();
    assert_eq!(a.open_purchases().unwrap().len(), 1);
    assert_eq!(a.history(10).unwrap().len(), 1);
    assert!(b.open_purchases().unwrap().is_empty());
    assert!(b.abandoned(None, &clock()).unwrap().is_empty());
    let unknown = Outcome::Unknown {
        tx: None,
        goods: crate::journal::Goods::Missing,
        receipt: None,
        note: "time-out".to_owned(),
    };
    a.conclude(&id, &unknown, &clock()).unwrap();
    assert!(b.abandoned(Some(&RequestHash([7; 32])), &clock()).unwrap().is_empty());
    assert_eq!(a.abandoned(Some(&RequestHash([7; 32])), &clock()).unwrap().len(), 1);
}

#[test]
fn two_agents_may_name_their_calls_alike() {
    let owner = journal();
    let (a, b) = (add(&owner, "a", 1), add(&owner, "b", 2));
    let bound = |journal: &Journal, n| journal.bind_call("errand", &RequestHash([n; 32]), &clock()).unwrap();
    assert_eq!(bound(&a, 1), RequestHash([1; 32]));
    assert_eq!(bound(&b, 2), RequestHash([2; 32]));
    assert_eq!(bound(&a, 3), RequestHash([1; 32]));
}

#[test]
fn a_frozen_agent_signs_nothing_not_even_what_was_reserved() {
    let owner = journal();
    for frozen in ["acme/team/buyer", "acme/team", "acme"] {
        let n = u8::try_from(frozen.len()).unwrap();
        let agent = owner.for_agent(name("acme/team/buyer"), None);
        let other = owner.for_agent(name("acme2"), None);
        let reserved = reserve(&agent, n).unwrap().unwrap();
        let signed = reserve(&agent, n + 50).unwrap().unwrap();
        sign(&agent, &signed).unwrap();
        let shown = reserve(&agent, n + 100).unwrap().unwrap();
        sign(&agent, &shown).unwrap();
        agent.present(&shown, &clock()).unwrap();

        owner.freeze_agent(&name(frozen), &clock()).unwrap();
        assert!(matches!(sign(&agent, &reserved), Err(JournalError::Frozen)), "in the middle");
        assert!(
            matches!(agent.present(&signed, &clock()), Err(JournalError::Frozen)),
            "signed, and not seen"
        );
        assert!(agent.present(&shown, &clock()).is_ok(), "what is out may be shown again");
        assert_eq!(reserve(&agent, n + 150).unwrap(), None);
        assert!(reserve(&other, n + 200).unwrap().is_some(), "others go on");

        assert!(owner.unfreeze_agent(&name(frozen)).unwrap());
        assert!(!owner.unfreeze_agent(&name(frozen)).unwrap());
        sign(&agent, &reserved).unwrap();
    }
    assert!(owner.frozen_agents().unwrap().is_empty());
}

#[test]
fn a_credential_is_good_until_it_is_revoked_or_rotated() {
    let owner = journal();
    let a = add(&owner, "a", 1);
    assert!(owner.knows_agent(&name("a"), &credential(1)).unwrap());
    assert!(!owner.knows_agent(&name("a"), &credential(2)).unwrap());
    assert!(!owner.knows_agent(&name("b"), &credential(1)).unwrap(), "a token is one agent's");
    assert_eq!(owner.agent_by(&credential(1)).unwrap(), Some(name("a")));
    let again = owner.add_agent(&name("a"), CredentialKind::Token, &credential(3), &clock());
    assert!(matches!(again, Err(AgentError::Exists(_))));

    let reserved = reserve(&a, 1).unwrap().unwrap();
    owner.rotate_agent(&name("a"), CredentialKind::Token, &credential(2), &clock()).unwrap();
    assert!(matches!(sign(&a, &reserved), Err(JournalError::Revoked(_))), "in the middle of a request");
    assert!(matches!(reserve(&a, 2), Err(JournalError::Revoked(_))));
    let a = owner.for_agent(name("a"), Some(credential(2)));
    sign(&a, &reserved).unwrap();

    owner.revoke_agent(&name("a"), &clock()).unwrap();
    assert!(matches!(a.present(&reserved, &clock()), Err(JournalError::Revoked(_))));
    assert!(!owner.knows_agent(&name("a"), &credential(2)).unwrap());
    assert_eq!(owner.agent_by(&credential(2)).unwrap(), None);
    let revoked = owner.agents().unwrap();
    assert_eq!((revoked[0].tokens, revoked[0].revoked), (0, Some(NOW)));
    for change in [
        owner.revoke_agent(&name("a"), &clock()),
        owner.rotate_agent(&name("a"), CredentialKind::Token, &credential(4), &clock()),
        owner.revoke_agent(&name("nobody"), &clock()),
    ] {
        assert!(matches!(change, Err(AgentError::Unknown(_))));
    }
    owner.add_agent(&name("a"), CredentialKind::Certificate, &credential(5), &clock()).unwrap();
    let known = owner.agents().unwrap();
    assert_eq!((known[0].certificates, known[0].revoked), (1, None));
}

#[test]
fn a_front_is_alive_as_long_as_its_guard_says_so() {
    let owner = journal();
    let alive = std::sync::Arc::new(Mutex::new(vec!["a/1".to_owned()]));
    let is_alive = {
        let alive = alive.clone();
        move |front: &str| alive.lock().unwrap().iter().any(|one| one == front)
    };
    let guard = owner.as_front("", is_alive.clone());
    let front = owner.as_front("a/1", is_alive).for_agent(name("a"), None);
    let id = reserve(&front, 1).unwrap().unwrap();
    assert_eq!(guard.recover(&clock()).unwrap(), 0, "its front is there");
    assert_eq!(owner.recover(&clock()).unwrap(), 0, "another process cannot know, and leaves it alone");
    alive.lock().unwrap().clear();
    assert_eq!(guard.recover(&clock()).unwrap(), 1);
    assert_eq!(owner.get(&id).unwrap().state, State::Released);
}
