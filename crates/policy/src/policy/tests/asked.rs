//! Rules by expressions, and screeners: neither lets anything through that it did not mean.

use super::*;
use crate::{Asks, Question, ScreenFault, Screened, Screening};

const BASE: &str = "version: 1
budgets: {acme: {rolling: {24h: $500000000000000}}}
allow:
  - {name: all, hosts: ['*']}
";

fn with(rule: &str) -> String {
    format!("{BASE}{rule}\n")
}

fn found(text: &str, request: &Request) -> Vec<String> {
    let decision = Policy::parse(text).unwrap().decide(false, &known(Vec::new()), request, NOW);
    decision.denials().map(|fact| fact.code().to_owned()).collect()
}

#[test]
fn an_expression_decides_in_every_kind_of_rule() {
    let cheap = request("acme", WEATHER, 50_000);
    let dear = request("acme", WEATHER, 50_001);
    let when = "when: 'amount > usd(\"0.05\")'";
    for (rule, code) in [
        (format!("deny:\n  - {{{when}}}"), "denied_by_rule"),
        (format!("approve:\n  - {{{when}}}"), "approval_required"),
    ] {
        assert_eq!(found(&with(&rule), &cheap), Vec::<String>::new());
        assert_eq!(found(&with(&rule), &dear), [code]);
    }
    let allow = BASE.replace("hosts: ['*']", "hosts: ['*'], when: 'amount <= usd(\"0.05\")'");
    assert_eq!(found(&allow, &cheap), Vec::<String>::new());
    assert_eq!(found(&allow, &dear), ["not_allowed"]);
    // The others of its conditions hold, too.
    let elsewhere = with("deny:\n  - {hosts: [other.example], when: 'true'}");
    assert_eq!(found(&elsewhere, &dear), Vec::<String>::new());
}

#[test]
fn an_error_denies_in_every_kind_of_rule() {
    let huge = request("acme", WEATHER, 1 << 63);
    for when in ["amount > 5", "amount <= 5", "!(amount > 5)", "amount * 2 > 5 || true", "amount % 2 == 0"] {
        let when = format!("when: '{when}'");
        for rule in [format!("deny:\n  - {{name: r, {when}}}"), format!("approve:\n  - {{name: r, {when}}}")]
        {
            assert_eq!(found(&with(&rule), &huge), ["expression_failed"], "{rule}");
        }
        // Neither a rule after it nor one before that does not cover it makes up for it.
        let first = BASE
            .replace("  - {name: all", &format!("  - {{name: r, hosts: ['*'], {when}}}\n  - {{name: all"));
        assert_eq!(found(&first, &huge), ["expression_failed"], "{first}");
    }
    let narrow = BASE.replace(
        "  - {name: all",
        "  - {name: r, hosts: [other.example], when: 'amount > 5'}\n  - {name: all",
    );
    assert_eq!(found(&narrow, &huge), Vec::<String>::new(), "a rule for others is not asked");
}

#[test]
fn a_file_with_a_wrong_expression_is_refused() {
    for when in ["amount > 0.05", "spent > 5", "amount", "amount > usd(\"1\") &&", "1 == 1.0"] {
        let error = Policy::parse(&with(&format!("deny:\n  - {{when: '{when}'}}"))).unwrap_err().to_string();
        assert!(error.starts_with("deny[0].when: "), "{error}");
    }
    assert!(Policy::parse(&with("deny:\n  - {when: }")).is_err());
}

#[test]
fn attack_26_another_expression_may_allow_more() {
    let rules = with("deny:\n  - {name: d, when: 'hour < 6'}\napprove:\n  - {name: a, when: 'hour > 20'}")
        .replace("hosts: ['*']", "hosts: ['*'], when: 'hour != 12'");
    assert!(!loosens(&rules, &rules));
    for (from, to) in [
        ("when: 'hour < 6'", "when: 'hour < 5'"),
        ("when: 'hour < 6'", "when: 'hour<6'"),
        ("when: 'hour > 20'", "when: 'hour > 21'"),
        ("when: 'hour != 12'", "when: 'hour != 13'"),
        (", when: 'hour != 12'", ""),
        // Where it has no value it denied; now people could say yes.
        ("{name: a, when: 'hour > 20'}", "{name: a}"),
    ] {
        let new = rules.replace(from, to);
        assert_ne!(new, rules, "{from}");
        assert!(loosens(&rules, &new), "{from} to {to}");
    }
    assert!(!loosens(&rules, &rules.replace("{name: d, when: 'hour < 6'}", "{name: d}")), "it denies more");
    let plain = with("");
    assert!(!loosens(&plain, &plain.replace("hosts: ['*']", "hosts: ['*'], when: 'hour != 12'")));
    // One that comes first and has no value denied all that came after it.
    let two =
        BASE.replace("  - {name: all", "  - {name: r, hosts: ['*'], when: 'amount > 5'}\n  - {name: all");
    assert!(loosens(&two, BASE));
}

#[test]
fn what_depends_on_the_amount_does_not_grow_unasked() {
    let law = |text: &str| Law::Policy { frozen: false, policy: Arc::new(Policy::parse(text).unwrap()) };
    let atom = request("acme", WEATHER, 1);
    for (rule, minds) in [
        ("deny:\n  - {when: 'amount > 5'}", true),
        ("approve:\n  - {when: 'usd(\"1\") < amount'}", true),
        ("deny:\n  - {when: 'hour == 3'}", false),
        ("deny:\n  - {hosts: [other.example], when: 'amount > 5'}", false),
    ] {
        assert_eq!(law(&with(rule)).minds_growth(&atom, NOW), minds, "{rule}");
    }
    // What an expression denies whatever the amount, has no room.
    assert_eq!(law(&with("deny:\n  - {when: 'hour == 22'}")).room(None, &atom, NOW), 0);
    assert_eq!(
        law(&BASE.replace("hosts: ['*']", "hosts: ['*'], when: 'hour == 3'")).room(None, &atom, NOW),
        0
    );
    assert!(law(&with("deny:\n  - {when: 'amount > 5'}")).room(Some(&known(Vec::new())), &atom, NOW) > 0);
}

const SCREEN: &str = "screen: {command: [/usr/bin/screen, --strict], within: 3s}";

fn answered(request: &Request, said: Screening) -> Screened {
    let asks = Asks::Command(vec!["/usr/bin/screen".to_owned(), "--strict".to_owned()]);
    Screened { asks, question: Question::of(request), said, reason: None }
}

#[test]
fn a_screener_has_the_last_word_but_not_the_only_one() {
    let text = with(SCREEN);
    let asked = request("acme", WEATHER, 50_000);
    let of = |said| Request { screened: Some(answered(&asked, said)), ..asked.clone() };
    assert_eq!(found(&text, &asked), ["screen_not_asked"]);
    assert_eq!(found(&text, &of(Screening::Allow)), Vec::<String>::new());
    assert_eq!(found(&text, &of(Screening::Deny)), ["screen_denied"]);
    assert_eq!(found(&text, &of(Screening::Hold)), ["approval_required"]);
    for (fault, code) in [
        (ScreenFault::Timeout, "screen_timeout"),
        (ScreenFault::Unavailable, "screen_unavailable"),
        (ScreenFault::Failed, "screen_failed"),
        (ScreenFault::Unreadable, "screen_unreadable"),
    ] {
        assert_eq!(found(&text, &of(Screening::Failed(fault))), [code]);
    }
    // Its yes lifts nothing.
    let denied = with(&format!("{SCREEN}\ndeny: [{{hosts: ['*']}}]"));
    assert_eq!(found(&denied, &of(Screening::Allow)), ["denied_by_rule"]);
    // People lift its hold, and nothing else of it.
    let policy = Policy::parse(&text).unwrap();
    let people = History {
        approval: Some(Approval { id: "apr_1".to_owned(), voices: 1, grant: false }),
        ..known(Vec::new())
    };
    let codes = |request: &Request| {
        let decision = policy.decide(false, &people, request, NOW);
        denials(&decision).into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(codes(&of(Screening::Hold)), Vec::<String>::new());
    assert_eq!(codes(&of(Screening::Deny)), ["screen_denied"]);
    assert_eq!(codes(&asked), ["screen_not_asked"]);
    let two = Policy::parse(&text.replace("within: 3s", "quorum: 2")).unwrap();
    assert_eq!(denials(&two.decide(false, &people, &of(Screening::Hold), NOW)), ["approval_required"]);
}

#[test]
fn an_answer_is_good_for_what_was_asked() {
    let text = with(SCREEN);
    let asked = request("acme", WEATHER, 50_000);
    let said = Some(answered(&asked, Screening::Allow));
    let others = [
        Request { payee: payee(2), ..request("acme", WEATHER, 50_000) },
        request("acme", WEATHER, 50_001),
        request("acme/scout", WEATHER, 50_000),
        request("acme", "https://other.example/v1/now", 50_000),
    ];
    for other in others {
        let codes = found(&text, &Request { screened: said.clone(), ..other });
        assert!(codes.iter().any(|code| code == "screen_of_another"), "{codes:?}");
    }
    let elsewhere = text.replace("--strict", "--lax");
    assert_eq!(found(&elsewhere, &Request { screened: said, ..asked }), ["screen_of_another"]);
}

#[test]
fn a_screener_is_asked_about_what_nothing_else_stops() {
    let missing = |text: &str| {
        let asked = request("acme", WEATHER, 50_000);
        Policy::parse(text).unwrap().decide(false, &known(Vec::new()), &asked, NOW).asks_for_screening()
    };
    assert!(missing(&with(SCREEN)));
    assert!(missing(&with(&format!("{SCREEN}\napprove: [{{hosts: ['*']}}]"))));
    assert!(!missing(&with(&format!("{SCREEN}\ndeny: [{{hosts: ['*']}}]"))));
    assert!(!missing(BASE));
}

#[test]
fn attack_26_a_screener_that_goes_or_changes_is_looser() {
    let text = with(SCREEN);
    assert!(!loosens(BASE, &text), "one more who is asked");
    for to in [
        "",
        "screen: {command: [/usr/bin/screen], within: 3s}",
        "screen: {command: [/bin/true], within: 3s}",
        "screen: {url: 'https://screen.example/', within: 3s}",
        "screen: {command: [/usr/bin/screen, --strict], within: 4s}",
    ] {
        assert!(loosens(&text, &with(to)), "{to}");
    }
    assert!(!loosens(&text, &with("screen: {command: [/usr/bin/screen, --strict], within: 1s, quorum: 2}")));
    assert!(loosens(&text.replace("within: 3s", "quorum: 2"), &text.replace("within: 3s", "quorum: 1")));
}

#[test]
fn a_screener_is_named_exactly() {
    let long = format!("screen: {{command: [/usr/bin/screen, {}]}}", "a".repeat(1008));
    assert!(Policy::parse(&with(&long)).is_err());
    assert!(Policy::parse(&with(&long.replace("aa]", "a]"))).is_ok());
    for bad in [
        "screen: {}",
        "screen:",
        "screen: {within: 2s}",
        "screen: {command: []}",
        "screen: {command: [screen]}",
        "screen: {command: [./screen]}",
        "screen: {command: /usr/bin/screen}",
        "screen: {command: [/usr/bin/screen], url: 'https://screen.example/'}",
        "screen: {command: [/usr/bin/screen], within: 11s}",
        "screen: {command: [/usr/bin/screen], within: 0s}",
        "screen: {command: [/usr/bin/screen], within: 2}",
        "screen: {command: [/usr/bin/screen], quorum: 0}",
        "screen: {command: [\"/usr/bin/screen\\n\"]}",
        "screen: {url: 'http://screen.example/'}",
        "screen: {url: 'https://name:word@screen.example/'}",
        "screen: {url: 'file:///etc/passwd'}",
        "screen: {url: 'https://screen.example/#a'}",
        "screen: {url: 'screen'}",
        "screen: {command: [/usr/bin/screen], shell: true}",
    ] {
        assert!(Policy::parse(&with(bad)).is_err(), "{bad}");
    }
    for good in [
        "screen: {url: 'https://screen.example/v1?list=eu'}",
        "screen: {url: 'http://127.0.0.1:8080/'}",
        "screen: {url: 'http://[::1]/', within: 10s}",
    ] {
        assert!(Policy::parse(&with(good)).is_ok(), "{good}");
    }
}
