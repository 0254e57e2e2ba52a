//! What answer is right. Nothing counts but a plain yes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::StatusCode;
use hyper::header::HeaderMap;
use serde::Deserialize;

use crate::http::HttpError;

/// What is asked, and so what answer is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `isValid` is `true`.
    Verify,
    /// `success` is `true` and a transaction is named.
    Settle,
    /// A paid resource: 200 with a receipt that says `success`.
    Paid,
    /// A priced resource without a payment: 402.
    Challenge,
}

/// What was not right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The same word for the same fault: what the server calls it, or `status_…`, or what became of the connection.
    pub code: String,
    /// What came, to be looked at.
    pub sample: String,
}

impl Wrong {
    pub fn new(code: impl Into<String>, sample: impl Into<String>) -> Self {
        Self { code: code.into(), sample: sample.into() }
    }
}

impl From<HttpError> for Wrong {
    fn from(error: HttpError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Codes of servers are words; whatever is longer is their prose.
const MAX_CODE_CHARS: usize = 80;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    is_valid: bool,
    invalid_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    success: bool,
    transaction: Option<String>,
    error_reason: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    error: Option<String>,
}

pub fn judge(kind: Kind, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<(), Wrong> {
    let said = |code: String| {
        let code = code.chars().take(MAX_CODE_CHARS).collect::<String>();
        Wrong::new(code, format!("{status} {}", String::from_utf8_lossy(body)))
    };
    let by_status = || format!("status_{}", status.as_u16());
    match kind {
        Kind::Challenge if status == StatusCode::PAYMENT_REQUIRED => Ok(()),
        Kind::Challenge => Err(said(by_status())),
        Kind::Verify => {
            let Ok(answer) = serde_json::from_slice::<Verified>(body) else { return Err(said(by_status())) };
            if answer.is_valid && status == StatusCode::OK {
                return Ok(());
            }
            Err(said(answer.invalid_reason.unwrap_or_else(by_status)))
        }
        Kind::Settle => {
            let Ok(answer) = serde_json::from_slice(body) else { return Err(said(by_status())) };
            settled(answer, status).map_err(said)
        }
        Kind::Paid => {
            if status != StatusCode::OK {
                return Err(said(refusal(headers).unwrap_or_else(by_status)));
            }
            let receipt = decoded(headers, "payment-response");
            let receipt = receipt.and_then(|json| serde_json::from_slice(&json).ok());
            settled(receipt.ok_or_else(|| said("no_receipt".to_owned()))?, status).map_err(said)
        }
    }
}

fn settled(answer: Settled, status: StatusCode) -> Result<(), String> {
    let named = answer.transaction.is_some_and(|hash| hash.len() == 66);
    if answer.success && named && status == StatusCode::OK {
        return Ok(());
    }
    Err(answer.error_reason.unwrap_or_else(|| format!("no_transaction_status_{}", status.as_u16())))
}

/// Why a gateway refuses, in its own word.
///
/// Spec: x402 v2, HTTP transport: a refused settlement is told in `PAYMENT-RESPONSE`, a refused payment in `error` of
/// `PAYMENT-REQUIRED`.
fn refusal(headers: &HeaderMap) -> Option<String> {
    let settlement = decoded(headers, "payment-response")
        .and_then(|json| serde_json::from_slice::<Settled>(&json).ok())
        .and_then(|settled| settled.error_reason);
    settlement.or_else(|| {
        let json = decoded(headers, "payment-required")?;
        serde_json::from_slice::<Refused>(&json).ok()?.error
    })
}

fn decoded(headers: &HeaderMap, name: &str) -> Option<Vec<u8>> {
    STANDARD.decode(headers.get(name)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, status: u16, body: &str) -> Result<(), String> {
        judge(kind, StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), body.as_bytes())
            .map_err(|wrong| wrong.code)
    }

    #[test]
    fn only_a_plain_yes_counts() {
        let tx = format!("0x{}", "ab".repeat(32));
        let settled = format!(r#"{{"success":true,"transaction":"{tx}","network":"eip155:84532"}}"#);
        let rows = [
            (Kind::Verify, 200, r#"{"isValid":true}"#.to_owned(), Ok(())),
            (Kind::Verify, 500, r#"{"isValid":true}"#.to_owned(), Err("status_500")),
            (Kind::Verify, 200, r#"{"isValid":false,"invalidReason":"a"}"#.to_owned(), Err("a")),
            (Kind::Verify, 200, r#"{"isValid":"true"}"#.to_owned(), Err("status_200")),
            (Kind::Verify, 429, "slow down".to_owned(), Err("status_429")),
            (Kind::Settle, 200, settled.clone(), Ok(())),
            (Kind::Settle, 402, settled, Err("no_transaction_status_402")),
            (
                Kind::Settle,
                200,
                r#"{"success":true,"transaction":""}"#.to_owned(),
                Err("no_transaction_status_200"),
            ),
            (Kind::Settle, 200, r#"{"success":false,"errorReason":"b"}"#.to_owned(), Err("b")),
            (Kind::Paid, 200, String::new(), Err("no_receipt")),
            (Kind::Paid, 402, String::new(), Err("status_402")),
            (Kind::Challenge, 402, String::new(), Ok(())),
            (Kind::Challenge, 200, String::new(), Err("status_200")),
        ];
        for (kind, status, body, expected) in rows {
            assert_eq!(
                verdict(kind, status, &body),
                expected.map_err(str::to_owned),
                "{kind:?} {status} {body}"
            );
        }
    }

    #[test]
    fn a_receipt_in_the_header_counts() {
        let receipt = format!(r#"{{"success":true,"transaction":"0x{}"}}"#, "cd".repeat(32));
        let mut headers = HeaderMap::new();
        headers.insert("payment-response", STANDARD.encode(receipt).parse().unwrap());
        assert_eq!(judge(Kind::Paid, StatusCode::OK, &headers, b"sunny"), Ok(()));
    }

    #[test]
    fn a_refusal_goes_by_the_word_of_who_refuses() {
        let rows = [
            (
                "payment-response",
                r#"{"success":false,"errorReason":"insufficient_funds"}"#,
                "insufficient_funds",
            ),
            ("payment-required", r#"{"error":"invalid_offer","accepts":[]}"#, "invalid_offer"),
            ("payment-required", "{}", "status_402"),
        ];
        for (name, json, expected) in rows {
            let mut headers = HeaderMap::new();
            headers.insert(name, STANDARD.encode(json).parse().unwrap());
            let wrong = judge(Kind::Paid, StatusCode::PAYMENT_REQUIRED, &headers, b"").unwrap_err();
            assert_eq!(wrong.code, expected);
        }
        let long = format!(r#"{{"isValid":false,"invalidReason":"{}"}}"#, "x".repeat(5000));
        assert_eq!(verdict(Kind::Verify, 200, &long).unwrap_err().len(), MAX_CODE_CHARS);
    }
}
