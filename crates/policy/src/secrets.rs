//! Secrets on their way to a seller in the address that is asked for: a paid request's address is passed on to
//! facilitators and kept by everybody.

use std::fmt;

use url::form_urlencoded;

/// What kind of secret an address seems to hold. The secret itself is in no message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Secret {
    /// The value of a parameter with such a name.
    Parameter(String),
    /// A value that looks like this.
    Value(&'static str),
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(name) => write!(f, "a value for {name}"),
            Self::Value(what) => write!(f, "what looks like {what}"),
        }
    }
}

/// What names of parameters end with whose values are secret, without the signs between their words.
const NAMES: [&str; 15] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secretkey",
    "privatekey",
    "mnemonic",
    "seedphrase",
    "apikey",
    "apitoken",
    "accesskey",
    "accesstoken",
    "refreshtoken",
    "authtoken",
    "subscriptionkey",
];

/// What follows the beginning of a service's key.
#[derive(Clone, Copy)]
enum Tail {
    /// So many capitals and digits, and then the end of the word.
    Capitals(usize),
    /// Letters and digits without a break, at least so many, with one of each among them.
    Run(usize),
}

/// What keys of services begin with, how they go on, and what they are.
const KEYS: [(&str, Tail, &str); 17] = [
    ("sk-", Tail::Run(16), "a key of a model's API"),
    ("sk_live_", Tail::Run(16), "a key of Stripe's"),
    ("sk_test_", Tail::Run(16), "a key of Stripe's"),
    ("rk_live_", Tail::Run(16), "a key of Stripe's"),
    ("whsec_", Tail::Run(16), "a secret of webhooks"),
    ("AKIA", Tail::Capitals(16), "a key of AWS's"),
    ("ASIA", Tail::Capitals(16), "a key of AWS's"),
    ("AIza", Tail::Run(24), "a key of Google's"),
    ("ghp_", Tail::Run(36), "a token of GitHub's"),
    ("gho_", Tail::Run(36), "a token of GitHub's"),
    ("ghs_", Tail::Run(36), "a token of GitHub's"),
    ("github_pat_", Tail::Run(22), "a token of GitHub's"),
    ("glpat-", Tail::Run(16), "a token of GitLab's"),
    ("npm_", Tail::Run(36), "a token of npm's"),
    ("xoxb-", Tail::Run(10), "a token of Slack's"),
    ("xoxp-", Tail::Run(10), "a token of Slack's"),
    ("hf_", Tail::Run(30), "a token of Hugging Face's"),
];

/// What is shorter looks like none of them.
const SHORTEST: usize = 15;

/// The first secret that `url` seems to hold, in its path, its query or its fragment.
pub fn secret_in(url: &str) -> Option<Secret> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if value.is_empty() {
            continue;
        }
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let plain = plain.to_ascii_lowercase();
        if plain == "pwd" || NAMES.iter().any(|ending| plain.ends_with(ending)) {
            return Some(Secret::Parameter(name.chars().take(64).filter(char::is_ascii_graphic).collect()));
        }
        if name.len().max(value.len()) < SHORTEST {
            continue;
        }
        if let Some(what) = looks_like(&value).or_else(|| looks_like(&name)) {
            return Some(Secret::Value(what));
        }
        // Not in paths: there, such numbers are names of things.
        if is_card(&value) {
            return Some(Secret::Value("the number of a payment card"));
        }
    }
    // One value each, with its escapes taken out. A `+` stands for itself here, and is in no secret.
    let parts = place.split('/').skip(1).chain([fragment]).filter(|part| part.len() >= SHORTEST);
    parts.map(|part| part.replace(['&', '='], "%20")).find_map(|part| {
        let (_, value) = form_urlencoded::parse(format!("v={part}").as_bytes()).into_owned().next()?;
        looks_like(&value).map(Secret::Value)
    })
}

fn looks_like(value: &str) -> Option<&'static str> {
    if value.contains("-----BEGIN") && value.contains("PRIVATE KEY") {
        return Some("a private key");
    }
    for (start, tail, what) in KEYS {
        for (at, _) in value.match_indices(start) {
            let before = value.get(..at).and_then(|before| before.chars().next_back());
            let after = value.get(at + start.len()..).unwrap_or_default();
            if !before.is_some_and(is_of_word) && tail.goes_on(after) {
                return Some(what);
            }
        }
    }
    is_web_token(value).then_some("a signed token")
}

const fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

impl Tail {
    fn goes_on(self, after: &str) -> bool {
        match self {
            Self::Capitals(many) => {
                let word = after.split(|c| !is_of_word(c)).next().unwrap_or_default();
                word.len() == many && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            }
            Self::Run(least) => {
                let word = after.split(|c| !is_of_word(c)).next().unwrap_or_default();
                word.split(['-', '_']).any(|run| {
                    run.len() >= least
                        && run.bytes().any(|b| b.is_ascii_digit())
                        && run.bytes().any(|b| b.is_ascii_alphabetic())
                })
            }
        }
    }
}

/// Spec: RFC 7519 section 3.1: three parts of base64url, the first two JSON objects.
fn is_web_token(value: &str) -> bool {
    let parts: Vec<&str> = value.trim().split('.').collect();
    let plain = |part: &&str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    matches!(parts[..], [head, body, signature] if head.starts_with("eyJ") && body.starts_with("eyJ") && signature.len() > 16)
        && parts.iter().all(plain)
}

/// Spec: ISO/IEC 7812-1: the check digit is Luhn's. Only what issuers of cards for people begin with.
fn is_card(value: &str) -> bool {
    let digits: Vec<u8> =
        value.bytes().filter(|b| !matches!(b, b' ' | b'-')).map(|b| b.wrapping_sub(b'0')).collect();
    if digits.iter().any(|digit| *digit > 9) {
        return false;
    }
    let issued = matches!(
        (digits.len(), digits.first(), digits.get(1)),
        (16, Some(4), _)
            | (16, Some(5), Some(1..=5))
            | (16, Some(2), Some(2..=7))
            | (16, Some(6), Some(0 | 5))
            | (15, Some(3), Some(4 | 7))
    );
    let doubled = |(place, digit): (usize, &u8)| match (place % 2, digit * 2) {
        (0, _) => u32::from(*digit),
        (_, twice) => u32::from(twice / 10 + twice % 10),
    };
    issued && digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_33_secrets_in_an_address_are_seen() {
        let token = format!("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{}", "a".repeat(43));
        for (url, what) in [
            ("https://a.example/x?api_key=1".to_owned(), "a value for api_key"),
            ("https://a.example/x?q=1&Client-Secret=x".to_owned(), "a value for Client-Secret"),
            ("https://a.example/x?p%61ssword=x".to_owned(), "a value for password"),
            (
                format!("https://a.example/x?q=sk-{}", "a1".repeat(12)),
                "what looks like a key of a model's API",
            ),
            (
                format!("https://a.example/sk%2D{}/x", "a1".repeat(12)),
                "what looks like a key of a model's API",
            ),
            (
                format!("https://a.example/x?q=use+sk-proj-{}+now", "a1".repeat(12)),
                "what looks like a key of a model's API",
            ),
            (format!("https://a.example/x?{token}=1"), "what looks like a signed token"),
            (format!("https://a.example/x#{token}"), "what looks like a signed token"),
            ("https://a.example/x?q=AKIAIOSFODNN7EXAMPLE".to_owned(), "what looks like a key of AWS's"),
            ("https://a.example/x?X-Api-Key=1".to_owned(), "a value for X-Api-Key"),
            ("https://a.example/x?user_password=1".to_owned(), "a value for user_password"),
            ("https://a.example/x?subscription-key=1".to_owned(), "a value for subscription-key"),
            ("https://a.example/x?mnemonic=test+test+junk".to_owned(), "a value for mnemonic"),
            (
                "https://a.example/x?k=-----BEGIN%20EC%20PRIVATE%20KEY-----".to_owned(),
                "what looks like a private key",
            ),
            (
                "https://a.example/x?n=4111+1111-1111+1111".to_owned(),
                "what looks like the number of a payment card",
            ),
        ] {
            let found = secret_in(&url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(found.to_string(), what, "{url}");
        }
    }

    #[test]
    fn what_machines_ask_for_otherwise_is_none() {
        for url in [
            "https://a.example/",
            "https://a.example/v1/tomorrow?city=Lisbon&days=3",
            "https://a.example/tx/0x88df016429689c079f3b2f6ad39fa052532c56795b733da78a91ebe6a713944b?full",
            "https://a.example/x?token=0x036cbd53842c5426634e7929541ec2318f3dcf7e&key=weather&secret=",
            "https://a.example/x?id=4111111111111112&at=1700000000000&n=123456789012345",
            "https://a.example/x?q=the+quick+brown+fox+jumps+over+a+lazy+dog+and+runs+away",
            "https://a.example/risk-analysis-of-very-long-names-in-a-path/task-0123456789abcdefghij",
            "https://a.example/x?symbols=btc,eth,sol,ada,dot,link,uni,aave,matic,avax,atom,near",
            "https://a.example/x?region=ASIA_PACIFIC_SOUTHEAST&zone=AKIAIOSFODNN7EXAMPLELONG",
            "https://a.example/docs/sk-learn-tutorial-for-beginners-2024",
            "https://a.example/posts/4111111111111111",
            "not a url?q=%ff%fe#%",
            "",
        ] {
            assert_eq!(secret_in(url), None, "{url}");
        }
    }
}
