//! What browsers need to be told so that a page may pay.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request};

/// Spec: x402 v2 HTTP transport; a browser hides from a page every header that is not named here.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, WWW-Authenticate, Payment-Receipt, \
     X-Farthing-Payment, X-Farthing-Status",
);
const ALLOWED: &str = "PAYMENT-SIGNATURE, X-PAYMENT, Authorization, Payment-Authorization";

/// Which pages may read our answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cors {
    /// The upstream decides: preflights go to it, and our own answers allow nobody.
    #[default]
    Upstream,
    /// Pages of any origin. No credentials.
    Any,
    /// Pages of these origins, e.g. `https://shop.example`.
    Only(Vec<String>),
}

impl Cors {
    fn allowed(&self, origin: Option<&HeaderValue>) -> Option<HeaderValue> {
        match self {
            Self::Upstream => None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Only(origins) => {
                origin.filter(|origin| origins.iter().any(|o| o.as_bytes() == origin.as_bytes())).cloned()
            }
        }
    }

    /// Whether preflights are answered here.
    pub(crate) fn answers(&self) -> bool {
        *self != Self::Upstream
    }

    /// Lets pages read an answer about a paid route.
    pub(crate) fn expose(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        if let Some(allowed) = self.allowed(origin) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
    }

    /// The headers of our own answer to a preflight.
    pub(crate) fn preflight(&self, asked: &HeaderMap, headers: &mut HeaderMap) {
        let Some(allowed) = self.allowed(asked.get(header::ORIGIN)) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(method) = asked.get(header::ACCESS_CONTROL_REQUEST_METHOD) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        }
        let wanted = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok());
        let all = wanted.map_or_else(|| ALLOWED.to_owned(), |wanted| format!("{ALLOWED}, {wanted}"));
        if let Ok(value) = HeaderValue::from_str(&all) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, value);
        }
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    }

    /// Lets a page send payments wherever the upstream lets it send anything.
    pub(crate) fn extend(headers: &mut HeaderMap) {
        if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            headers.append(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(ALLOWED));
        }
    }
}

/// Spec: Fetch standard, CORS-preflight request.
pub(crate) fn is_preflight<B>(request: &Request<B>) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}
