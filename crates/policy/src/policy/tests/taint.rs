//! Payments to whom something else named first.

use super::*;

const DATA: &str = "https://eu.data.example/x";

fn mention(what: Named) -> Mention {
    Mention { what, by: "tools.example:443 search".to_owned() }
}

fn host(name: &str) -> Mention {
    mention(Named::Host(name.parse().unwrap()))
}

fn with(mentions: Vec<Mention>) -> History {
    History { mentions, ..known(Vec::new()) }
}

fn policy(taint: &str) -> Policy {
    Policy::parse(&ACME.replace("owner: acme\n", &format!("owner: acme\n{taint}"))).unwrap()
}

fn decide(policy: &Policy, history: &History, request: &Request) -> Decision {
    policy.decide(false, history, request, NOW)
}

#[test]
fn attack_13_what_a_tools_output_named_first_waits_for_people() {
    let (request, tainted) = (request("acme/research", DATA, 100), with(vec![host("eu.data.example")]));
    for (text, denials) in [
        ("", &["approval_required"][..]),
        ("taint: ask\n", &["approval_required"]),
        ("taint: deny\n", &["named_first"]),
        ("taint: off\n", &[]),
    ] {
        let decision = decide(&policy(text), &tainted, &request);
        assert_eq!(decision.denials().map(Fact::code).collect::<Vec<_>>(), denials, "{text:?}");
        // What nobody named is paid as ever.
        assert!(decide(&policy(text), &with(Vec::new()), &request).is_allowed(), "{text:?}");
    }
    let decision = decide(&policy(""), &tainted, &request);
    assert_eq!(decision.asks_for_approval(), Some(1));
    let said = "the host eu.data.example was first named in what tools.example:443 search wrote";
    assert!(decision.findings.iter().any(|fact| fact.to_string() == said), "{decision:?}");
}

#[test]
fn people_lift_it_and_a_denial_nobody() {
    let request = request("acme/research", DATA, 100);
    for grant in [false, true] {
        let approval = Some(Approval { id: "apr_1".to_owned(), voices: 1, grant });
        let history = History { approval, ..with(vec![host("eu.data.example")]) };
        assert!(decide(&policy(""), &history, &request).is_allowed());
        assert!(!decide(&policy("taint: deny\n"), &history, &request).is_allowed());
    }
}

#[test]
fn what_the_owner_named_exactly_is_known() {
    // The rule names this host, and the payee for all below the other.
    let weather = request("acme/research", WEATHER, 100);
    assert!(decide(&policy(""), &with(vec![host("api.weather.example")]), &weather).is_allowed());
    let pinned = with(vec![mention(Named::Payee(payee(1)))]);
    assert!(decide(&policy(""), &pinned, &request("acme/research", DATA, 100)).is_allowed());
    // A payee whom the owner did not name is not known by its host.
    let mut other = request("acme/research", WEATHER, 100);
    other.payee = payee(2);
    let history = History { pinned: Vec::new(), ..with(vec![mention(Named::Payee(payee(2)))]) };
    assert_eq!(decide(&policy(""), &history, &other).asks_for_approval(), Some(1));
}

#[test]
fn rules_that_are_set_by_hand_mind_nothing_that_was_named() {
    assert!(!Law::Rules(crate::Rules::default()).minds_mentions());
    let law = |text| Law::Policy { frozen: false, policy: Arc::new(policy(text)) };
    assert!(law("").minds_mentions() && law("taint: deny\n").minds_mentions());
    assert!(!law("taint: off\n").minds_mentions());
}

#[test]
fn less_of_it_is_looser() {
    let loosens = |old: &str, new: &str| !policy(new).loosens(&policy(old)).is_empty();
    let in_order = ["taint: off\n", "taint: ask\n", "taint: deny\n"];
    for (i, old) in in_order.iter().enumerate() {
        for (j, new) in in_order.iter().enumerate() {
            assert_eq!(loosens(old, new), j < i, "{old} to {new}");
        }
    }
    assert!(loosens("", "taint: off\n") && !loosens("", "taint: ask\n"));
    // Who is named is not asked about any more.
    let named = ACME.replace("\"*.data.example\"", "\"*.data.example\", x.data.example");
    let found = Policy::parse(&named).unwrap().loosens(&acme());
    assert!(found.iter().any(|one| one.to_string().contains("x.data.example")), "{found:?}");
    let off =
        |text: &str| Policy::parse(&text.replace("owner: acme\n", "owner: acme\ntaint: off\n")).unwrap();
    assert!(off(&named).loosens(&off(ACME)).is_empty());
}

#[test]
fn its_spelling_is_exact() {
    for bad in ["taint: no\n", "taint: true\n", "taint: Ask\n", "taint:\n"] {
        assert!(
            Policy::parse(&ACME.replace("owner: acme\n", &format!("owner: acme\n{bad}"))).is_err(),
            "{bad}"
        );
    }
}
