use std::time::Duration;

use farthing_primitives::{Address, Money, Network, Registry, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{Caller, Charge, Origin};

/// A Tuesday, 22:13:20 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

fn request(symbol: &str, atoms: u128) -> Request {
    let registry = Registry::builtin();
    let id = registry.by_symbol(&Network::eip155(8453), symbol).unwrap().id.clone();
    let url: url::Url = "https://api.weather.example:8443/v1/now?q=1".parse().unwrap();
    Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, Money::new(id, atoms)).unwrap(),
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin: Origin::of(&url).unwrap(),
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(20),
        screened: None,
        caller: Caller {
            agent: Some("acme/scout".parse().unwrap()),
            method: "GET".to_owned(),
            url: url.to_string(),
            path: url.path().to_owned(),
            ..Caller::default()
        },
    }
}

fn value(text: &str, request: &Request) -> Result<bool, Unfit> {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    expression.holds(request, NOW)
}

#[test]
fn what_is_true_of_a_payment() {
    let asked = request("USDC", 50_000);
    for (text, expected) in [
        ("true", true),
        ("!true || false", false),
        ("amount == 50000", true),
        ("amount == usd(\"0.05\")", true),
        ("amount > usd('$0.05')", false),
        ("amount >= usd(\"0.05\") && dollar", true),
        ("usd(\"0.049999\") < amount", true),
        ("amount in [1, 50000]", true),
        ("1 + 2 * 3 == 7", true),
        ("(1 + 2) * 3 == 9", true),
        ("7 - 2 - 1 == 4", true),
        ("-7 / 2 == -3 && -7 % 2 == -1", true),
        ("-9223372036854775808 < 9223372036854775807", true),
        ("- - 1 == 1", true),
        ("--1 == 1 && !!true", true),
        ("1 < 2 == true", true),
        ("(dollar == false) != true", true),
        ("host == \"api.weather.example\"", true),
        ("host == \"API.Weather.Example\"", true),
        ("host != 'api.weather.example'", false),
        ("host.endsWith(\".example\") && port == 8443", true),
        ("path == \"/v1/now\" && path.startsWith(\"/v1/\") && path.contains(\"no\")", true),
        ("method in [\"POST\", \"GET\"]", true),
        ("network == \"eip155:8453\"", true),
        ("asset == \"eip155:8453/erc20:0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913\"", true),
        ("payee == \"0x0101010101010101010101010101010101010101\"", true),
        ("payee in [\"0x0202020202020202020202020202020202020202\"]", false),
        ("agent == \"acme/scout\" && tool == \"\" && scheme == \"exact\"", true),
        ("hour == 22 && minute == 13 && weekday == \"tue\"", true),
        ("weekday in [\"sat\", \"sun\"] || hour < 8 || hour >= 18", true),
        // What is not reached has no error.
        ("amount == 0 && 1 / (amount - 50000) > 0", false),
        ("amount > 0 || 1 / (amount - 50000) > 0", true),
        ("\"/v1/now\" == path", true),
        ("tool != \"a\\\"b\\\\\"", true),
    ] {
        assert_eq!(value(text, &asked), Ok(expected), "{text}");
    }
}

#[test]
fn what_has_no_value_is_an_error() {
    let asked = request("USDC", 50_000);
    let huge = request("USDC", u128::from(i64::MAX.unsigned_abs()) + 1);
    let euro = request("EURC", 50_000);
    let mut disguised = request("USDC", 50_000);
    disguised.caller.path = "/v1/%6eow".to_owned();
    for (text, request, why) in [
        ("amount > 5", &huge, Unfit::AmountTooLarge),
        ("!(amount > 5)", &huge, Unfit::AmountTooLarge),
        ("amount > 5 && true", &huge, Unfit::AmountTooLarge),
        ("amount in [1] || true", &huge, Unfit::AmountTooLarge),
        ("amount * 9223372036854775807 > 0", &asked, Unfit::Overflow),
        ("amount + 9223372036854775807 > 0", &asked, Unfit::Overflow),
        ("-9223372036854775808 - amount < 0", &asked, Unfit::Overflow),
        ("-(-9223372036854775808) > 0", &asked, Unfit::Overflow),
        ("-9223372036854775808 / (0 - 1) > 0", &asked, Unfit::Overflow),
        ("1 / (amount - amount) > 0", &asked, Unfit::DivisionByZero),
        ("1 % (amount - amount) > 0", &asked, Unfit::DivisionByZero),
        ("amount > usd(\"0.05\")", &euro, Unfit::NotDollars),
        ("amount in [50000, usd(\"1\")]", &euro, Unfit::NotDollars),
        ("amount > usd(\"0.0000005\")", &asked, Unfit::NotWhole),
        ("amount < usd(\"99999999999999\")", &asked, Unfit::Overflow),
        ("path == \"/v1/now\"", &disguised, Unfit::PathInDisguise),
        ("!path.startsWith(\"/v1/secret\")", &disguised, Unfit::PathInDisguise),
    ] {
        assert_eq!(value(text, request), Err(why), "{text}");
    }
    assert_eq!(value("dollar && amount > usd(\"0.01\")", &euro), Ok(false));
}

#[test]
fn what_cannot_be_meant_is_refused_when_it_is_read() {
    for text in [
        "",
        " ",
        "amount > 0.05",
        "amount > .5",
        "amount > 5e3",
        "amount > 5u",
        "amount > 0x10",
        "amount > 1_000",
        "amount > 9223372036854775808",
        "amount > -9223372036854775809",
        "amount > 99999999999999999999999",
        "amount",
        "1",
        "\"a\"",
        "amount > \"5\"",
        "amount == true",
        "amount && true",
        "!amount",
        "-true == true",
        "-\"a\" == 1",
        "host > \"a\"",
        "host == 1",
        "host == path",
        "\"a\" == \"a\"",
        "spent > 5",
        "Amount > 5",
        "this.amount > 5",
        "amount > usd(0.05)",
        "amount > usd(5)",
        "amount > usd(\"-1\")",
        "amount > usd(\"1e3\")",
        "amount > usd(\"0.05\", \"1\")",
        "amount > usd(amount)",
        "usd(\"1\")",
        "size(host) > 1",
        "host.size() > 1",
        "host.matches(\"a.*\")",
        "amount.contains(\"1\")",
        "payee.startsWith(\"0x01\")",
        "asset.contains(\"usdc\")",
        "weekday.startsWith(\"s\")",
        "path.startsWith(\"\")",
        "host.endsWith(\".Example\")",
        "host.contains(path)",
        "\"abc\".contains(\"a\")",
        "host == \"\"",
        "host == \"*.example\"",
        "weekday == \"Sunday\"",
        "weekday == \"sunday\"",
        "method == \"get\"",
        "payee == \"0x01\"",
        "network == \"base\"",
        "asset == \"USDC\"",
        "path == \"v1/now\"",
        "path == \"/v1/../now\"",
        "path == \"/v1/%20\"",
        "agent == \"ACME\"",
        "host in []",
        "host in \"a\"",
        "1 in [\"a\"]",
        "host in [1]",
        "true in [true]",
        "host in [path]",
        "\"a\" in [\"a\"]",
        "(amount > 1",
        "amount > 1)",
        "amount > ",
        "> 1",
        "amount >> 1",
        "amount = 1",
        "amount > 1 amount",
        "amount > 1;",
        "true ? true : false",
        "amount > 1 & true",
        "amount > 1 # c",
        "[1, 2].exists(x, x > 1)",
        "{\"a\": 1}",
        "host[0] == 1",
        "null == null",
        "b\"a\" == b\"a\"",
        "tool == \"a",
        "tool == \"\\n\"",
        "tool == \"a\nb\"",
        "amount > 1 // c",
        "host.",
        "host.endsWith",
        "host.endsWith(",
        "usd",
        "[1,]",
        "[,] == 1",
        "dollar < true",
    ] {
        let read = Expression::parse(text);
        assert!(read.is_err(), "{text:?} was read: {read:?}");
    }
    assert!(matches!(Expression::parse("amount > 0.05"), Err(ExpressionError::Float(_))));
    assert!(matches!(Expression::parse("amount > 1.e5"), Err(ExpressionError::Float(_))));
    assert!(matches!(Expression::parse("spent > 5"), Err(ExpressionError::UnknownName(_))));
    assert!(matches!(Expression::parse("exec(\"a\")"), Err(ExpressionError::UnknownFunction(_))));
}

#[test]
fn an_expression_has_bounds() {
    let nested = |n: usize| format!("{}true{}", "(".repeat(n), ")".repeat(n));
    assert!(Expression::parse(&nested(MAX_EXPRESSION_DEPTH)).is_ok());
    assert_eq!(Expression::parse(&nested(MAX_EXPRESSION_DEPTH + 1)), Err(ExpressionError::TooDeep));
    for (open, close) in [("!", ""), ("-", ""), ("[", "]")] {
        for n in [33, 100, 500] {
            assert!(
                Expression::parse(&format!("{}1{}", open.repeat(n), close.repeat(n))).is_err(),
                "{n} of {open}"
            );
        }
    }
    // Each takes two parts, and one more for what stands between.
    let long = |n: usize| vec!["true"; n].join("||");
    assert!(Expression::parse(&long(128)).is_ok());
    assert_eq!(Expression::parse(&long(129)), Err(ExpressionError::TooMany));
    assert_eq!(Expression::parse(&" ".repeat(MAX_EXPRESSION_BYTES + 1)), Err(ExpressionError::TooLong));
    let whole = format!("true{}", " ".repeat(MAX_EXPRESSION_BYTES - 4));
    assert!(Expression::parse(&whole).is_ok());
}

#[test]
fn two_are_one_if_their_texts_are() {
    let read = |text| Expression::parse(text).unwrap();
    assert_eq!(read("amount > 5"), read("amount > 5"));
    assert_ne!(read("amount > 5"), read("amount>5"));
    assert!(read("dollar || usd(\"1\") < 5").names_amount());
    assert!(read("amount > 5").names_amount());
    assert!(!read("hour > 5").names_amount());
}

/// Sums over whole numbers, as text and by a wider type.
fn sums() -> impl Strategy<Value = (String, Option<i128>)> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| (n.to_string(), Some(i128::from(n)))),
        (-9i64..9).prop_map(|n| (n.to_string(), Some(i128::from(n)))),
    ];
    let fits = |n: i128| i64::try_from(n).ok().map(i128::from);
    leaf.prop_recursive(4, 24, 2, move |inner| {
        (inner.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), inner).prop_map(
            move |((a_text, a), sign, (b_text, b))| {
                let done = a.zip(b).and_then(|(a, b)| match sign {
                    "+" => fits(a + b),
                    "-" => fits(a - b),
                    "*" => fits(a * b),
                    // As hardware does it, the least number has no quotient by -1, nor a rest.
                    "/" => (b != 0).then(|| a / b).and_then(fits),
                    _ => (b != 0 && !(a == i128::from(i64::MIN) && b == -1)).then(|| a % b).and_then(fits),
                });
                (format!("({a_text} {sign} {b_text})"), done)
            },
        )
    })
}

proptest! {
    /// Arithmetic is exact or an error, by numbers that are twice as wide.
    #[test]
    fn arithmetic_is_exact_or_an_error((text, expected) in sums(), bound in any::<i64>()) {
        let asked = request("USDC", 1);
        prop_assume!(text.len() < 900);
        let said = value(&format!("{text} <= {bound}"), &asked);
        match expected {
            Some(number) => prop_assert_eq!(said, Ok(number <= i128::from(bound))),
            None => prop_assert!(matches!(said, Err(Unfit::Overflow | Unfit::DivisionByZero)), "{:?}", said),
        }
    }

    #[test]
    fn whatever_is_read_does_not_panic(
        text in "[a-z0-9 .,()\\[\\]!<>=&|+*/%\"'\\\\_$-]{0,120}", any in "\\PC{0,60}",
        words in prop::collection::vec(prop::sample::select(vec![
            "amount", "host", "usd(\"0.05\")", "==", "<", "in", "[", "]", "(", ")", "&&", "||", "!", "-", "1", "\"GET\"", ",", ".", "endsWith",
        ]), 0..40),
    ) {
        let asked = request("USDC", 7);
        for text in [text, any, words.join(" ")] {
            if let Ok(expression) = Expression::parse(&text) {
                let _ = expression.holds(&asked, NOW);
            }
        }
    }
}
