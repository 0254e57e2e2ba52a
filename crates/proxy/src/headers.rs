//! Which headers cross the proxy.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

/// What belongs to one connection, or to this proxy.
///
/// Spec: RFC 9110 sections 7.6.1, 10.1.1, 11.7.
const OF_THE_CONNECTION: [&str; 9] = [
    "connection",
    "proxy-connection",
    "keep-alive",
    "te",
    "transfer-encoding",
    "upgrade",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-authentication-info",
];
/// What is written anew from what is asked.
const REWRITTEN: [HeaderName; 3] = [header::HOST, header::CONTENT_LENGTH, header::EXPECT];
/// How our own words to a program begin. No seller says them.
const OURS: &str = "farthing-";
/// By which a program pays itself.
const PAYMENTS: [&str; 3] = ["x-payment", "payment-signature", "payment-authorization"];
/// By what an answer usually differs, beside what is asked for. Our own gateway sells to one set of them at a time.
const DIFFERS_BY: [HeaderName; 6] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::AUTHORIZATION,
    header::CONTENT_ENCODING,
    header::CONTENT_TYPE,
];

const VIA: HeaderValue = HeaderValue::from_static("1.1 farthing");

/// A program's headers as its seller gets them.
pub(crate) fn of_request(headers: &mut HeaderMap) {
    strip(headers);
    for name in REWRITTEN {
        headers.remove(name);
    }
    // Spec: RFC 9110 section 7.6.3: a proxy says that it is there.
    headers.append(header::VIA, VIA);
}

/// A seller's headers as a program gets them.
pub(crate) fn of_answer(headers: &mut HeaderMap) {
    strip(headers);
    headers.append(header::VIA, VIA);
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let ours = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect::<Vec<_>>();
    for name in named.into_iter().chain(ours) {
        headers.remove(name);
    }
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}

/// Whether a program pays itself: then nothing is paid on top.
///
/// Spec: x402 v1 and v2, transport HTTP; draft-httpauth-payment, the scheme `Payment`.
pub(crate) fn pays_itself(headers: &HeaderMap) -> bool {
    let by_scheme = |value: &HeaderValue| {
        let scheme = value.as_bytes().split(|byte| *byte == b' ').next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"payment")
    };
    PAYMENTS.iter().any(|name| headers.contains_key(*name))
        || headers.get_all(header::AUTHORIZATION).iter().any(by_scheme)
}

/// Names what an answer usually differs by: equal for two requests that can share what was bought.
pub(crate) fn likeness(headers: &HeaderMap) -> [u8; 32] {
    let mut hash = Sha256::new();
    for name in &DIFFERS_BY {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        // Counted and measured, so that no two sets make the same bytes.
        hash.update((values.len() as u64).to_be_bytes());
        for value in values {
            hash.update((value.len() as u64).to_be_bytes());
            hash.update(value.as_bytes());
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn what_belongs_to_one_connection_does_not_go_on() {
        let mut sent = headers(&[
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("proxy-authorization", "Basic x"),
            ("proxy-connection", "keep-alive"),
            ("te", "trailers"),
            ("expect", "100-continue"),
            ("host", "a.example"),
            ("content-length", "3"),
            ("farthing-purchase", "buy_x"),
            ("authorization", "Bearer x"),
            ("accept", "a"),
            ("accept", "b"),
        ]);
        of_request(&mut sent);
        let left = [("authorization", "Bearer x"), ("accept", "a"), ("accept", "b"), ("via", "1.1 farthing")];
        assert_eq!(sent, headers(&left));
        let mut came = headers(&[
            ("transfer-encoding", "chunked"),
            ("farthing-denied", "over_day_cap"),
            ("content-length", "3"),
            ("via", "1.0 other"),
        ]);
        of_answer(&mut came);
        assert_eq!(came, headers(&[("content-length", "3"), ("via", "1.0 other"), ("via", "1.1 farthing")]));
    }

    #[test]
    fn what_was_made_for_one_program_is_none_for_another() {
        let one = likeness(&headers(&[("accept", "a"), ("accept-encoding", "gzip"), ("x-request-id", "1")]));
        let again =
            likeness(&headers(&[("x-request-id", "2"), ("accept-encoding", "gzip"), ("accept", "a")]));
        assert_eq!(one, again);
        for other in [
            headers(&[("accept", "a")]),
            headers(&[("accept", "agzip")]),
            headers(&[("accept", "a"), ("accept", ""), ("accept-encoding", "gzip")]),
            headers(&[("accept", "a"), ("accept-encoding", "gzip"), ("authorization", "Bearer x")]),
        ] {
            assert_ne!(one, likeness(&other), "{other:?}");
        }
    }

    #[test]
    fn who_pays_itself_is_seen() {
        for (name, value, expected) in [
            ("payment-signature", "e30=", true),
            ("X-PAYMENT", "e30=", true),
            ("payment-authorization", "x", true),
            ("authorization", "payment id=\"1\"", true),
            ("authorization", "Payment", true),
            ("authorization", "Bearer payment", false),
            ("authorization", "PaymentX y", false),
            ("payment-required", "e30=", false),
        ] {
            assert_eq!(pays_itself(&headers(&[(name, value)])), expected, "{name}: {value}");
        }
    }
}
