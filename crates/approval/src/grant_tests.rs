use std::time::Duration;

use farthing_primitives::{Address, Network, Registry, Timestamp};
use proptest::prelude::*;

use crate::tests::{NOW, key, request};
use crate::*;

fn terms() -> GrantTerms {
    GrantTerms {
        payments: 10,
        each: None,
        total: Some(1_000_000),
        lasts: Duration::from_secs(24 * 60 * 60),
        below: None,
        any_body: false,
    }
}

fn wide() -> GrantTerms {
    GrantTerms {
        below: Some("https://api.weather.example/v1/".to_owned()),
        any_body: true,
        each: Some(400_000),
        ..terms()
    }
}

fn made(terms: &GrantTerms) -> Result<GrantRequest, GrantError> {
    GrantRequest::new(&request().subject, request().max, terms, NOW)
}

fn grant() -> GrantRequest {
    made(&wide()).unwrap()
}

/// The text, the digest and the word of docs/reference/approvals.md, which others check their own by.
#[test]
fn a_grant_has_one_text_and_one_digest() {
    let text = concat!(
        r#"{"agent":"acme/research","asset":"eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913","#,
        r#""body_sha256":"any","expires_ms":"1700086400000","max_atoms":"400000","method":"GET","#,
        r#""payee":"0x0202020202020202020202020202020202020202","#,
        r#""payer":"0x0101010101010101010101010101010101010101","payments":"10","total_atoms":"1000000","#,
        r#""type":"farthing.payment-grant.v1","url":"https://api.weather.example/v1/","url_match":"below"}"#,
    );
    assert_eq!(grant().text(), text);
    assert_eq!(GrantRequest::read(text), Ok(grant()));
    assert_eq!(Asked::read(text), Ok(Asked::Grant(grant())));
    assert_eq!(Asked::read(&request().text()), Ok(Asked::Payment(request())));
    let ballot = Ballot::cast(&key(1), &grant(), Verdict::Approve);
    let page = include_str!("../../../docs/reference/approvals.md");
    for part in [text.to_owned(), grant().digest().to_string(), hex::encode(ballot.proof.signature())] {
        assert!(page.contains(&part), "the page shows another: {part}");
    }
    assert_eq!(made(&terms()).unwrap().text().matches("\"url_match\":\"exact\"").count(), 1);
}

#[test]
fn attack_66_a_word_on_one_payment_is_none_on_a_grant() {
    let has = Credential::Key(key(1).public());
    let (one, many) = (Asked::from(request()), Asked::from(grant()));
    assert_ne!(one.id(), many.id());
    for (asked, other) in [(&one, &many), (&many, &one)] {
        let yes = Ballot::cast(&key(1), asked, Verdict::Approve);
        assert!(yes.check(&has, asked, NOW).is_ok());
        assert_eq!(yes.check(&has, other, NOW), Err(VoteError::Signature));
        let turned = Ballot { verdict: Verdict::Deny, ..yes };
        assert_eq!(turned.check(&has, asked, NOW), Err(VoteError::Signature));
    }
    // Nor if somebody found a grant and a payment of one digest.
    let digest = grant().digest();
    assert_ne!(Verdict::Approve.message(&digest), Verdict::Approve.message_for_grant(&digest));
    assert_ne!(ApprovalId::of(&digest), ApprovalId::of_grant(&digest));
    // The one's text is never read as the other's.
    assert!(GrantRequest::read(&request().text()).is_err());
    assert!(ApprovalRequest::read(&grant().text()).is_err());
    let named = grant().text().replace("payment-grant", "payment-approval");
    assert!(Asked::read(&named).is_err());
}

#[test]
fn attack_66_each_bound_of_a_grant_is_signed() {
    let asked = grant();
    let yes = Ballot::cast(&key(1), &asked, Verdict::Approve);
    let has = Credential::Key(key(1).public());
    let with = |change: fn(&mut GrantRequest)| {
        let mut other = grant();
        change(&mut other);
        other
    };
    for other in [
        with(|g| g.agent = None),
        with(|g| g.payer = Address::from_evm_bytes([9; 20])),
        with(|g| g.payee = Address::from_evm_bytes([9; 20])),
        with(|g| g.method = "POST".to_owned()),
        with(|g| g.place = Place::Below("https://api.weather.example/".to_owned())),
        with(|g| g.place = Place::Exactly("https://api.weather.example/v1/".to_owned())),
        with(|g| g.body = Body::Exactly([7; 32])),
        with(|g| g.asset = Registry::builtin().dollar(&Network::eip155(84532)).unwrap().id.clone()),
        with(|g| g.payments += 1),
        with(|g| g.max += 1),
        with(|g| g.total += 1),
        with(|g| g.expires = Timestamp::from_millis(g.expires.millis() + 1)),
    ] {
        assert_ne!(other.digest(), asked.digest());
        assert_eq!(yes.check(&has, &other, NOW), Err(VoteError::Signature), "{other:?}");
    }
}

#[test]
fn attack_66_a_grant_covers_what_it_names_and_no_more() {
    let (narrow, wide) = (made(&terms()).unwrap(), grant());
    let subject = request().subject;
    assert!(narrow.covers(&subject, 350_000, NOW) && wide.covers(&subject, 400_000, NOW));
    assert!(!narrow.covers(&subject, 350_001, NOW) && !wide.covers(&subject, 400_001, NOW));
    assert!(!wide.covers(&subject, 1, wide.expires));
    let with = |change: fn(&mut Subject)| {
        let mut other = request().subject;
        change(&mut other);
        other
    };
    for other in [
        with(|s| s.agent = None),
        with(|s| s.agent = Some("acme/research/scout".parse().unwrap())),
        with(|s| s.payer = Address::from_evm_bytes([9; 20])),
        with(|s| s.payee = Address::from_evm_bytes([9; 20])),
        with(|s| s.method = "POST".to_owned()),
        with(|s| s.asset = Registry::builtin().dollar(&Network::eip155(84532)).unwrap().id.clone()),
    ] {
        assert!(!wide.covers(&other, 1, NOW), "{other:?}");
        assert_ne!(other.grant_scope(), subject.grant_scope());
    }
    for (body, narrowly) in [([7; 32], true), ([8; 32], false)] {
        let other = Subject { body, ..subject.clone() };
        assert_eq!((narrow.covers(&other, 1, NOW), wide.covers(&other, 1, NOW)), (narrowly, true));
        assert_eq!(other.grant_scope(), wide.scope());
    }
    let at = |url: &str| Subject { url: url.to_owned(), ..request().subject };
    for below in ["", "now", "now/", "a/b?x=1", "?x=../..", "#x"] {
        assert!(wide.covers(&at(&format!("https://api.weather.example/v1/{below}")), 1, NOW), "{below}");
    }
    for elsewhere in [
        "https://api.weather.example/v1",
        "https://api.weather.example/v2/now",
        "https://api.weather.example/v1/../admin",
        "https://api.weather.example/v1/./now",
        "https://api.weather.example/v1/%2e%2e/admin",
        "https://api.weather.example/v1/..%2fadmin",
        "https://api.weather.example/v1/a\\..\\admin",
        "https://api.weather.example/v1//now",
        "https://api.weather.example/v1/a//b",
        "https://api.weather.example/v1/a;b",
        "https://api.weather.example.evil.example/v1/now",
        "https://api.weather.example@evil.example/v1/now",
        "https://api.weather.example:8443/v1/now",
        "http://api.weather.example/v1/now",
        "https://other.example/?https://api.weather.example/v1/",
    ] {
        assert!(!wide.covers(&at(elsewhere), 1, NOW), "{elsewhere}");
    }
}

#[test]
fn what_a_grant_says_is_what_it_can_come_to() {
    let with = |change: fn(&mut GrantTerms)| {
        let mut other = wide();
        change(&mut other);
        made(&other).map(|grant| grant.total)
    };
    assert_eq!(with(|_| ()), Ok(1_000_000));
    assert_eq!(with(|t| t.total = None), Ok(4_000_000));
    assert_eq!(with(|t| t.total = Some(400_000)), Ok(400_000));
    for (change, error) in [
        ((|t| t.payments = 0) as fn(&mut GrantTerms), GrantError::Payments),
        (|t| t.payments = MAX_GRANT_PAYMENTS + 1, GrantError::Payments),
        (|t| t.total = Some(399_999), GrantError::Amounts),
        (|t| t.total = Some(4_000_001), GrantError::Amounts),
        // Not even the payment that it is asked for with.
        (|t| t.each = Some(349_999), GrantError::Amounts),
        (|t| t.each = Some(0), GrantError::Amounts),
        (|t| t.lasts = Duration::ZERO, GrantError::Length),
        (|t| t.lasts = LONGEST_GRANT + Duration::from_secs(1), GrantError::Length),
    ] {
        assert_eq!(with(change), Err(error));
    }
    let below = |url: &str| made(&GrantTerms { below: Some(url.to_owned()), ..wide() }).map(|_| ());
    assert_eq!(below("https://api.weather.example/"), Ok(()));
    for bad in [
        "",
        "/",
        "https://",
        "https:///",
        "https://api.weather.example",
        "https://api.weather.example/v1",
        "https://api.weather.example/v2/",
        "https://API.weather.example/v1/",
        "https://u@api.weather.example/v1/",
        "https://api.weather.example/v1/?x=/",
        "https://api.weather.example/../v1/",
        "https://api.weather.example//v1/",
        "https://api.weather.example/%76/",
        "ftp://api.weather.example/v1/",
        "https://*.example/",
    ] {
        assert_eq!(below(bad), Err(GrantError::Place), "{bad}");
    }
}

#[test]
fn a_grant_has_so_many_places_and_so_much_money() {
    let grant = GrantRequest { payments: 3, max: 400, total: 1000, ..grant() };
    let used = |payments, atoms| Uses { payments, atoms };
    assert!(grant.has_room(&used(0, 0), 400) && grant.has_room(&used(2, 600), 400));
    assert!(!grant.has_room(&used(2, 601), 400) && !grant.has_room(&used(3, 3), 1));
    assert!(!grant.has_room(&used(1, 1), u128::MAX));
    assert_eq!(grant.left(&used(1, 400)), used(2, 600));
    assert_eq!(grant.left(&used(9, 9999)), used(0, 0));
}

#[test]
fn what_is_not_exactly_a_grant_is_none() {
    let text = grant().text();
    for (from, to) in [
        ("{\"agent\"", "{ \"agent\""),
        ("\"payments\":\"10\"", "\"payments\":\"010\""),
        ("\"payments\":\"10\"", "\"payments\":10"),
        ("\"payments\":\"10\"", "\"payments\":\"0\""),
        ("\"payments\":\"10\"", "\"payments\":\"1001\""),
        ("\"payments\":\"10\"", "\"payments\":\"4294967306\""),
        ("\"1000000\"", "\"4000001\""),
        ("\"any\"", "\"ANY\""),
        ("\"any\"", "\"\""),
        ("\"below\"", "\"regex\""),
        ("/v1/\"", "/v1\""),
        ("payment-grant.v1", "payment-grant.v2"),
        ("\"method\":\"GET\",", ""),
        ("\"method\":\"GET\"", "\"method\":\"GET\",\"note\":\"x\""),
        ("\"type\"", "\"type\":\"x\",\"type\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Asked::read(&text.replacen(from, to, 1)).is_err(), "{to}");
    }
    let id = Asked::from(grant()).id();
    assert!(id.is_grant() && id.to_string().starts_with("grt_"));
    assert_eq!(id.to_string().parse(), Ok(id));
    assert_ne!(id.to_string().replace("grt_", "apr_").parse(), Ok(id));
}

#[test]
fn the_words_for_a_grant_are_read_strictly() {
    let read = |text: &str| text.parse::<GrantAsk>();
    let ask = read("n=10,total=1.00,until=24h").unwrap();
    let usdc = Registry::builtin().dollar(&Network::eip155(8453)).unwrap().clone();
    assert_eq!(ask.terms(&usdc), Ok(terms()));
    let ask = read("until=24h,n=10,each=0.4,total=1,below=https://api.weather.example/v1/,body=any").unwrap();
    assert_eq!(ask.terms(&usdc), Ok(wide()));
    for bad in [
        "",
        "n=10",
        "until=24h",
        "n=10,until=24h,",
        "n=10,until=24h,n=10",
        "n=10,until=24h,body=some",
        "n=10,until=24h,body=any,body=any",
        "n=10,until=24h,more=1",
        "n=-1,until=24h",
        "n=1e3,until=24h",
        "n=4294967296,until=24h",
        "n=10,until=tomorrow",
        "n=10,until=0h",
    ] {
        assert!(matches!(read(bad), Err(GrantError::Words(_))), "{bad}");
    }
    for bad in ["1.0000001", "-1", "1e3", "$1", ""] {
        let ask = GrantAsk { total: Some(bad.to_owned()), ..ask.clone() };
        assert_eq!(ask.terms(&usdc), Err(GrantError::Amount(bad.to_owned())));
    }
}

proptest! {
    #[test]
    fn whatever_grant_is_printed_reads_back(path in "[a-z0-9/?=&]{0,40}", n in 1..=MAX_GRANT_PAYMENTS, max in 1..u128::MAX / 1000, ms in 0..u64::MAX / 2) {
        let asked = GrantRequest {
            place: Place::Exactly(format!("https://x.example/{path}")),
            payments: n,
            max,
            total: max,
            expires: Timestamp::from_millis(ms),
            ..grant()
        };
        prop_assert_eq!(Asked::read(&asked.text()), Ok(Asked::Grant(asked)));
    }
}
