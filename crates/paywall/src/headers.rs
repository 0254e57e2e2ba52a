//! Which headers cross the paywall, in which direction, and what is added to them.

use farthing_wire::mpp::Credential;
use farthing_wire::mpp::header::{PAYMENT_AUTHORIZATION, PAYMENT_RECEIPT};
use farthing_wire::x402::header::{
    EXTENSION_RESPONSES, PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, SETTLEMENT_OVERRIDES,
    X_PAYMENT, X_PAYMENT_RESPONSE,
};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// What the upstream is told about a payment that was verified.
pub const X_FARTHING_PAYER: HeaderName = HeaderName::from_static("x-farthing-payer");
pub const X_FARTHING_AMOUNT: HeaderName = HeaderName::from_static("x-farthing-amount");
pub const X_FARTHING_ASSET: HeaderName = HeaderName::from_static("x-farthing-asset");
pub const X_FARTHING_NETWORK: HeaderName = HeaderName::from_static("x-farthing-network");
/// The payment's id: to the upstream, and to the buyer.
pub const X_FARTHING_PAYMENT: HeaderName = HeaderName::from_static("x-farthing-payment");
/// To the buyer: where to ask what became of the payment.
pub const X_FARTHING_STATUS: HeaderName = HeaderName::from_static("x-farthing-status");
/// To the buyer of a stream that goes on where it broke off: how many events come again, for nothing.
pub const X_FARTHING_REPLAYED: HeaderName = HeaderName::from_static("x-farthing-replayed");

const OURS: &str = "x-farthing-";
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// By these some servers let a client say that it meant another method or path than it asked for.
const OVERRIDES: &[&str] = &[
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-forwarded-uri",
    "x-forwarded-path",
];

/// Headers of one connection, which no intermediary passes on.
///
/// Spec: RFC 9110 section 7.6.1.
const HOP_BY_HOP: &[&str] = &[
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

/// What would make the answer partial or absent, and so not what was paid for.
const CONDITIONAL: &[HeaderName] = &[
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Takes out what no client may tell the upstream, on every route.
pub(crate) fn clean_inbound(headers: &mut HeaderMap) {
    remove_where(headers, |name| name.starts_with(OURS) || OVERRIDES.contains(&name));
}

/// Takes out what belongs to one connection, the ones that `Connection` names included.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // Whoever calls these a connection's own means to confuse somebody about where a message ends or goes.
        .filter(|name: &HeaderName| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    // Spec: RFC 9110 section 10.1.4: who passes trailers on may say so, and we do.
    let wants_trailers = headers
        .get_all(header::TE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"));
    for name in named {
        headers.remove(name);
    }
    remove_where(headers, |name| HOP_BY_HOP.contains(&name));
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether an `Authorization` holds a payment, readable or not.
pub(crate) fn pays(value: &HeaderValue) -> bool {
    !matches!(Credential::find([value.as_bytes()]), Ok(None))
}

/// Takes out of a paid request what the upstream must not see or obey: the payment itself, conditions and ranges.
pub(crate) fn clean_paid_request(headers: &mut HeaderMap) {
    for name in CONDITIONAL {
        headers.remove(name);
    }
    for name in [PAYMENT_SIGNATURE, X_PAYMENT, PAYMENT_AUTHORIZATION] {
        headers.remove(name);
    }
    // What logs the buyer in goes on; what pays does not.
    let kept: Vec<HeaderValue> =
        headers.get_all(header::AUTHORIZATION).iter().filter(|value| !pays(value)).cloned().collect();
    headers.remove(header::AUTHORIZATION);
    for value in kept {
        headers.append(header::AUTHORIZATION, value);
    }
    headers.remove(header::EXPECT);
    headers.remove(header::TRAILER);
    strip_hop_by_hop(headers);
}

/// Tells the upstream who paid what. Inbound headers of these names are gone by now.
pub(crate) fn announce_payment(headers: &mut HeaderMap, payment: &farthing_payment::Payment) {
    let terms = &payment.terms;
    let facts = [
        (X_FARTHING_PAYER, terms.payer.to_string()),
        (X_FARTHING_AMOUNT, terms.money.atoms().to_string()),
        (X_FARTHING_ASSET, terms.money.asset().address().to_string()),
        (X_FARTHING_NETWORK, terms.money.asset().network().to_string()),
        (X_FARTHING_PAYMENT, payment.id.to_string()),
    ];
    for (name, text) in facts {
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.insert(name, value);
        }
    }
    // The payment names the purchase, so the upstream can tell a repetition even if the client named nothing.
    if !headers.contains_key(IDEMPOTENCY_KEY)
        && let Ok(value) = HeaderValue::from_str(&payment.id.to_string())
    {
        headers.insert(IDEMPOTENCY_KEY, value);
    }
}

/// Takes out of an upstream's answer what only we may say: receipts, challenges and the connection's own.
pub(crate) fn clean_upstream_response(headers: &mut HeaderMap) {
    const SAID_BY_US: &[&str] = &[
        PAYMENT_REQUIRED,
        PAYMENT_RESPONSE,
        X_PAYMENT_RESPONSE,
        EXTENSION_RESPONSES,
        SETTLEMENT_OVERRIDES,
        PAYMENT_SIGNATURE,
        X_PAYMENT,
        PAYMENT_RECEIPT,
        PAYMENT_AUTHORIZATION,
    ];
    remove_where(headers, |name| name.starts_with(OURS) || SAID_BY_US.contains(&name));
    strip_hop_by_hop(headers);
}

/// Keeps shared caches from giving away what one payer paid for, whatever the upstream said to them.
///
/// Spec: RFC 9111 section 5.2.2; RFC 9213 (targeted cache control).
pub(crate) fn make_private(headers: &mut HeaderMap) {
    const SHARED: &[&str] = &["public", "private", "s-maxage", "proxy-revalidate"];
    let kept: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|directive| {
            let name = directive.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            !name.is_empty() && !SHARED.contains(&name.as_str())
        })
        .map(str::to_owned)
        .collect();
    let merged = std::iter::once("private".to_owned()).chain(kept).collect::<Vec<_>>().join(", ");
    let value = HeaderValue::from_str(&merged).unwrap_or(HeaderValue::from_static("private, no-store"));
    headers.insert(header::CACHE_CONTROL, value);
    remove_where(headers, |name| name.ends_with("cdn-cache-control") || name == "surrogate-control");
    headers.append(
        header::VARY,
        HeaderValue::from_static("PAYMENT-SIGNATURE, X-PAYMENT, Authorization, Payment-Authorization"),
    );
}

/// For answers that are nobody's to keep.
pub(crate) fn no_store(headers: &mut HeaderMap) {
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

fn remove_where(headers: &mut HeaderMap, which: impl Fn(&str) -> bool) {
    let names: Vec<HeaderName> = headers.keys().filter(|name| which(name.as_str())).cloned().collect();
    for name in names {
        headers.remove(name);
    }
}
