use farthing_approval::ApproverKey;
use farthing_policy::{HostRule, Rules};
use farthing_primitives::{Network, Registry};
use farthing_wallet::LocalAuthorizer;
use farthing_wallet::journal::Journal;
use farthing_wire::webhook::{MAX_ID_BYTES, MAX_SIGNATURES};

use super::*;
use crate::whom::Whom;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW: u64 = 1_800_000_000;

fn now() -> Timestamp {
    Timestamp::from_millis(NOW * 1000)
}

fn key() -> ApproverKey {
    ApproverKey::from_seed([7; 32]).unwrap()
}

fn hook(dir: &Path) -> Hook {
    Hook::open(Some(SECRET), Some(key().public()), &dir.join("seen")).unwrap()
}

fn body(data: serde_json::Value) -> String {
    json!({ "type": HOOK_EVENT, "data": data }).to_string()
}

/// Headers of a message that the secret signed.
fn headers(id: &str, at: &str, body: &str) -> HeaderMap {
    // What is no time is signed for another, and not looked at.
    let secs = at.parse().unwrap_or_default();
    let signature = Secret::parse(SECRET).unwrap().sign(id, secs, body.as_bytes());
    named(id, at, &signature)
}

fn named(id: &str, at: &str, signature: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("webhook-id", id.parse().unwrap());
    headers.insert("webhook-timestamp", at.parse().unwrap());
    headers.insert("webhook-signature", signature.parse().unwrap());
    headers
}

fn hears(hook: &Hook, headers: &HeaderMap, body: &[u8], at: Timestamp) -> Result<Heard, HookError> {
    hook.signers.hear(&super::headers(headers, at)?, body)
}

#[test]
fn only_who_has_the_secret_or_the_key_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let hook = hook(dir.path());
    let text = body(json!({ "agent": "acme/a" }));
    let at = NOW.to_string();
    let whom = Whom::Agent("acme/a".parse().unwrap());
    let good = Ok(Heard { id: "msg_1".to_owned(), whom: whom.clone() });
    let signed = headers("msg_1", &at, &text);
    assert_eq!(hears(&hook, &signed, text.as_bytes(), now()), good);
    let owners = Signed::by(&key(), "msg_1", &whom, now());
    let by_owner = named("msg_1", &at, &owners.headers[2].1);
    assert_eq!(hears(&hook, &by_owner, owners.body.as_bytes(), now()), good);
    // A sender that is about to change its secret signs with both.
    let real = signed["webhook-signature"].to_str().unwrap();
    let both = named("msg_1", &at, &format!("v1,AAAA v2,AAAA {real}"));
    assert_eq!(hears(&hook, &both, text.as_bytes(), now()), good);

    let strangers = Signed::by(&ApproverKey::from_seed([8; 32]).unwrap(), "msg_1", &whom, now());
    let hmac = real.trim_start_matches("v1,");
    let late = format!("{}{real}", "v1,AAAA ".repeat(MAX_SIGNATURES));
    for signature in [
        "",
        "v1,",
        "v1,AAAA",
        hmac,
        &format!("v1a,{hmac}"),
        &format!("v2,{hmac}"),
        &strangers.headers[2].1,
        &late,
    ] {
        let headers = named("msg_1", &at, signature);
        assert_eq!(hears(&hook, &headers, text.as_bytes(), now()), Err(HookError::Signature), "{signature}");
    }
    // All that is signed counts.
    let other = body(json!({ "agent": "acme/b" }));
    assert_eq!(hears(&hook, &signed, other.as_bytes(), now()), Err(HookError::Signature));
    let other_id = named("msg_2", &at, real);
    assert_eq!(hears(&hook, &other_id, text.as_bytes(), now()), Err(HookError::Signature));
    let other_time = named("msg_1", &(NOW + 1).to_string(), real);
    assert_eq!(hears(&hook, &other_time, text.as_bytes(), now()), Err(HookError::Signature));
    // Without a secret, or without a key, its kind of signature is nobody's.
    let keyless = Hook::open(Some(SECRET), None, &dir.path().join("keyless")).unwrap();
    assert_eq!(hears(&keyless, &by_owner, owners.body.as_bytes(), now()), Err(HookError::Signature));
    let secretless = Hook::open(None, Some(key().public()), &dir.path().join("secretless")).unwrap();
    assert_eq!(hears(&secretless, &signed, text.as_bytes(), now()), Err(HookError::Signature));
}

#[test]
fn a_message_from_another_time_is_not_heard() {
    let dir = tempfile::tempdir().unwrap();
    let hook = hook(dir.path());
    let text = body(json!({ "all": true }));
    let window = HOOK_WINDOW.as_secs();
    for (sent, expected) in [
        (NOW - window, Ok(Whom::All)),
        (NOW + window, Ok(Whom::All)),
        (NOW - window - 1, Err(HookError::Time)),
        (NOW + window + 1, Err(HookError::Time)),
        (0, Err(HookError::Time)),
    ] {
        let headers = headers("msg_1", &sent.to_string(), &text);
        let heard = hears(&hook, &headers, text.as_bytes(), now()).map(|heard| heard.whom);
        assert_eq!(heard, expected, "{sent}");
    }
    for sent in ["", "-1", "+1800000000", "1800000000.5", "1e9", " 1800000000", "0x6b49d200", "9999999999999"]
    {
        let headers = headers("msg_1", sent, &text);
        assert_eq!(hears(&hook, &headers, text.as_bytes(), now()), Err(HookError::Headers), "{sent:?}");
    }
}

#[test]
fn what_is_signed_and_no_freeze_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let hook = hook(dir.path());
    let at = NOW.to_string();
    for text in [
        "",
        "{}",
        "null",
        r#"{"type":"wallet.unfreeze","data":{"all":true}}"#,
        r#"{"type":"wallet.freeze"}"#,
        r#"{"type":"wallet.freeze","data":{}}"#,
        r#"{"type":"wallet.freeze","data":{"all":false}}"#,
        r#"{"type":"wallet.freeze","data":{"all":true,"agent":"a"}}"#,
        r#"{"type":"wallet.freeze","data":{"agent":"A"}}"#,
        r#"{"type":"wallet.freeze","data":{"agent":"a"},"data":{"all":true}}"#,
        r#"{"type":"wallet.freeze","data":{"agent":"a","limit":"1"}}"#,
        r#"{"type":"wallet.freeze","data":["a"]}"#,
        r#"["wallet.freeze",null,{"all":true}]"#,
    ] {
        let headers = headers("msg_1", &at, text);
        assert_eq!(hears(&hook, &headers, text.as_bytes(), now()), Err(HookError::Message), "{text}");
    }
    let text = body(json!({ "all": true }));
    for id in ["", "a.b", "a b", &"x".repeat(MAX_ID_BYTES + 1)] {
        let headers = headers(id, &at, &text);
        assert_eq!(hears(&hook, &headers, text.as_bytes(), now()), Err(HookError::Headers), "{id:?}");
    }
    for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
        let mut missing = headers("msg_1", &at, &text);
        let value = missing.remove(name).unwrap();
        assert_eq!(hears(&hook, &missing, text.as_bytes(), now()), Err(HookError::Headers), "no {name}");
        let mut twice = headers("msg_1", &at, &text);
        twice.append(name, value);
        assert_eq!(hears(&hook, &twice, text.as_bytes(), now()), Err(HookError::Headers), "two of {name}");
    }
}

#[test]
fn a_secret_is_one_and_somebody_can_sign() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in ["", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_c2hvcnQ="] {
        let opened = Hook::open(Some(wrong), None, &dir.path().join("seen"));
        assert!(matches!(opened, Err(HookSetupError::Secret(_))), "{wrong}");
    }
    assert!(matches!(Hook::open(None, None, &dir.path().join("seen")), Err(HookSetupError::Nobody)));
    assert!(!format!("{:?}", hook(dir.path())).contains("whsec"));
}

fn guard(journal: &Arc<Journal>) -> Guard {
    let allow = |rules: &mut Rules| {
        rules.networks.insert(Network::eip155(84_532));
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        Ok(())
    };
    journal.change_rules(allow).unwrap();
    let key = farthing_evm::Key::from_bytes([7; 32]).unwrap();
    let owner = LocalAuthorizer::new(key, journal.clone(), Registry::builtin());
    Guard::new(&owner, Vec::new()).unwrap()
}

#[tokio::test]
async fn a_message_is_obeyed_once_also_after_a_new_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = Arc::new(Journal::in_memory().unwrap());
    let guard = guard(&journal);
    let agent: farthing_policy::AgentName = "acme/a".parse().unwrap();
    let one = || Heard { id: "msg_1".to_owned(), whom: Whom::Agent(agent.clone()) };
    let first = hook(dir.path());
    assert_eq!(first.obey(&guard, one()).await, Ok(true));
    assert_eq!(journal.frozen_agents().unwrap(), std::slice::from_ref(&agent));
    journal.unfreeze_agent(&agent).unwrap();
    assert_eq!(first.obey(&guard, one()).await, Ok(false));
    drop(first);
    assert_eq!(hook(dir.path()).obey(&guard, one()).await, Ok(false), "what was sent again freezes nothing");
    assert!(journal.frozen_agents().unwrap().is_empty());
    let all = Heard { id: "msg_2".to_owned(), whom: Whom::All };
    assert_eq!(hook(dir.path()).obey(&guard, all).await, Ok(true));
    assert!(journal.rules().unwrap().frozen);
}

#[test]
fn ids_are_remembered_as_long_as_they_could_come_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen");
    let mut seen = Seen::open(&path, now()).unwrap();
    seen.remember("one", now()).unwrap();
    let later = now().plus(REMEMBERED);
    assert!(seen.knows("one"));
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"18000").unwrap();
    let just = later.minus(Duration::from_millis(1));
    assert!(Seen::open(&path, just).unwrap().knows("one"), "also beside a line that a crash cut");
    let mut seen = Seen::open(&path, later).unwrap();
    assert!(!seen.knows("one"));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "", "the file does not grow for ever");
    for n in 0..MAX_REMEMBERED {
        seen.times.insert(n.to_string(), later);
        seen.order.push_back(n.to_string());
    }
    seen.remember("one more", later).unwrap();
    assert_eq!((seen.order.len(), seen.times.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
    seen.remember("two", later.plus(REMEMBERED)).unwrap();
    assert_eq!(seen.order, ["two"]);
}
