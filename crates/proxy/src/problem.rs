//! Why a program gets an answer of ours and not its seller's.

use bytes::Bytes;
use farthing_primitives::PurchaseId;
use farthing_wallet::client::{FetchError, SendError, printable};
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::Refusal;
use crate::answer::{Body, PURCHASE, full};

/// After how many seconds it makes sense to ask again.
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("5");
/// The realm that a program's user may be shown. Spec: RFC 9110 section 11.7.1.
const REALM: HeaderValue = HeaderValue::from_static("Basic realm=\"farthing\", charset=\"UTF-8\"");

/// Why a program gets an answer of ours. Nothing was bought by any of these, but for [`Problem::Unknown`] and
/// [`Problem::PaidTooLarge`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("this is a forward proxy: ask it for a whole address, http://host/path")]
    NotForAProxy,
    #[error("{0}")]
    BadTarget(&'static str),
    #[error("the address is too long")]
    TooLongTarget,
    #[error("the request is for another host than the connection")]
    Misdirected,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("{0} is not a host that the wallet's owner names, and others are not passed on")]
    HostNotAllowed(String),
    #[error("{0} is on this machine or its network, which the owner did not allow")]
    HostPrivate(String),
    #[error("tunnels do not lead to port {0}")]
    TunnelPort(u16),
    #[error("CONNECT takes a whole connection of HTTP/1.1")]
    ConnectNeedsHttp1,
    #[error("no other protocol is spoken here; within a CONNECT to a host that is not named, any is")]
    UpgradeNotSupported,
    #[error("the request's body is longer than what is held to be shown again")]
    BodyTooLarge,
    #[error("the request's body broke off, or came too slowly")]
    BodyBroken,
    #[error("too many bodies are held: ask again in a moment")]
    NoRoom,
    #[error("a purchase of this Idempotency-Key is under way: ask again in a moment")]
    InProgress,
    #[error("{host} cannot be reached: {cause}")]
    Unreachable { host: String, cause: String },
    #[error("there was no answer in time, and nothing was paid")]
    Timeout,
    #[error("the answer cannot be read: {0}")]
    AnswerBroken(String),
    #[error("the answer has more than {0} bytes, and nothing was paid")]
    AnswerTooLarge(usize),
    #[error("paid, and the answer has more than {limit} bytes, which is more than is held")]
    PaidTooLarge { id: PurchaseId, limit: usize },
    #[error(
        "a payment was shown, and nothing tells what became of it ({why}): ask for the same again, which pays nothing"
    )]
    Unknown { id: PurchaseId, why: String },
    #[error("no certificate can be made for this host")]
    CertificateUnavailable,
    #[error("the wallet cannot be used just now")]
    WalletUnavailable,
}

impl Problem {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotForAProxy => "not_a_proxy_request",
            Self::BadTarget(_) => "bad_target",
            Self::TooLongTarget => "target_too_long",
            Self::Misdirected => "misdirected",
            Self::Refused(refusal) => refusal.code(),
            Self::HostNotAllowed(_) => "host_not_allowed",
            Self::HostPrivate(_) => "host_private",
            Self::TunnelPort(_) => "tunnel_port_not_allowed",
            Self::ConnectNeedsHttp1 => "connect_needs_http1",
            Self::UpgradeNotSupported => "upgrade_not_supported",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyBroken => "body_broken",
            Self::NoRoom => "no_room",
            Self::InProgress => "in_progress",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout => "timeout",
            Self::AnswerBroken(_) => "answer_broken",
            Self::AnswerTooLarge(_) => "answer_too_large",
            Self::PaidTooLarge { .. } => "paid_answer_too_large",
            Self::Unknown { .. } => "outcome_unknown",
            Self::CertificateUnavailable => "certificate_unavailable",
            Self::WalletUnavailable => "wallet_unavailable",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotForAProxy | Self::BadTarget(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::TooLongTarget => StatusCode::URI_TOO_LONG,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Refused(Refusal::CredentialsRequired | Refusal::CredentialsRefused) => {
                StatusCode::PROXY_AUTHENTICATION_REQUIRED
            }
            Self::HostNotAllowed(_) | Self::HostPrivate(_) | Self::TunnelPort(_) => StatusCode::FORBIDDEN,
            Self::ConnectNeedsHttp1 | Self::UpgradeNotSupported => StatusCode::NOT_IMPLEMENTED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::InProgress => StatusCode::CONFLICT,
            Self::Unreachable { .. }
            | Self::AnswerBroken(_)
            | Self::AnswerTooLarge(_)
            | Self::PaidTooLarge { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            // Not 504: what retries by itself should wait, and ask for the very same.
            Self::Refused(Refusal::Unavailable)
            | Self::NoRoom
            | Self::Unknown { .. }
            | Self::CertificateUnavailable
            | Self::WalletUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The error type by which generic tools know it. Spec: RFC 9209 section 2.3.
    fn proxy_error(&self) -> &'static str {
        match self {
            Self::HostPrivate(_) => "destination_ip_prohibited",
            Self::Unreachable { .. } => "destination_unavailable",
            Self::Timeout => "http_response_timeout",
            Self::AnswerBroken(_) => "http_protocol_error",
            Self::AnswerTooLarge(_) | Self::PaidTooLarge { .. } => "http_response_body_size",
            Self::NoRoom
            | Self::CertificateUnavailable
            | Self::WalletUnavailable
            | Self::Refused(Refusal::Unavailable) => "proxy_internal_error",
            Self::Unknown { .. } => "http_response_incomplete",
            Self::Misdirected
            | Self::NotForAProxy
            | Self::BadTarget(_)
            | Self::TooLongTarget
            | Self::BodyTooLarge
            | Self::BodyBroken
            | Self::ConnectNeedsHttp1
            | Self::UpgradeNotSupported => "http_request_error",
            Self::Refused(_) | Self::HostNotAllowed(_) | Self::TunnelPort(_) | Self::InProgress => {
                "http_request_denied"
            }
        }
    }

    fn purchase(&self) -> Option<&PurchaseId> {
        match self {
            Self::Unknown { id, .. } | Self::PaidTooLarge { id, .. } => Some(id),
            _ => None,
        }
    }

    /// The answer that says so.
    ///
    /// Spec: RFC 9457 section 3.
    pub(crate) fn answer(&self) -> Response<Body> {
        let (status, code) = (self.status(), self.code());
        let mut body = json!({
            "type": "about:blank",
            "title": status.canonical_reason(),
            "status": status.as_u16(),
            // Some of it may be a counterparty's word.
            "detail": printable(&self.to_string()),
            "code": code,
        });
        if let Some(id) = self.purchase() {
            body["purchase"] = id.to_string().into();
        }
        let mut answer = Response::new(full(Bytes::from(body.to_string())));
        *answer.status_mut() = status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let told = format!("farthing; error={}; details=\"{code}\"", self.proxy_error());
        if let Ok(told) = HeaderValue::from_str(&told) {
            headers.insert("proxy-status", told);
        }
        if let Some(Ok(id)) = self.purchase().map(|id| HeaderValue::from_str(&id.to_string())) {
            headers.insert(PURCHASE, id);
        }
        match status {
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                headers.insert(header::PROXY_AUTHENTICATE, REALM);
            }
            // Spec: RFC 9110 section 10.2.3.
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::CONFLICT => {
                headers.insert(header::RETRY_AFTER, ASK_AGAIN);
            }
            _ => {}
        }
        answer
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Private(host) => Self::HostPrivate(host),
            SendError::Timeout => Self::Timeout,
            SendError::Connect { host, cause } => Self::Unreachable { host, cause },
            SendError::Broken(why) => Self::AnswerBroken(why),
        }
    }
}

impl From<FetchError> for Problem {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Url(_) => Self::BadTarget("the address carries credentials, or has no host"),
            FetchError::Send(error) => error.into(),
            FetchError::TooLarge { limit } => Self::AnswerTooLarge(limit),
            FetchError::Truncated => Self::AnswerBroken("it broke off".to_owned()),
            other => {
                tracing::warn!(error = %other, "a purchase came to nothing");
                Self::WalletUnavailable
            }
        }
    }
}
