//! What stands behind the paywall: `POST …/tools/N` calls tool N, and a result is an answer.

use std::task::{Context, Poll};

use bytes::Bytes;
use farthing_wire::mpp::rpc::{self, RpcError};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use rmcp::model::{CallToolRequestParams, CallToolResponse, CallToolResult};
use rmcp::service::ServiceError;
use serde_json::{Map, Value, json};
use tower::Service;

use super::exchange::{self, RESULT, RPC_ERROR};
use super::{BoxError, Upstream};

/// Calls tools. Put the paywall before it, then give both to a [`super::Shop`].
#[derive(Debug, Clone)]
pub struct ToolService {
    upstream: Upstream,
}

impl ToolService {
    pub fn new(upstream: Upstream) -> Self {
        Self { upstream }
    }

    async fn call_tool(self, request: Request<Full<Bytes>>) -> Result<Response<Full<Bytes>>, BoxError> {
        let (parts, body) = request.into_parts();
        let name = parts.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(never) => match never {},
        };
        let arguments: Map<String, Value> = serde_json::from_slice(&body)?;
        let peer = self.upstream.peer().await?;
        // Nothing of a client's `_meta` goes along: it is no part of what was bought.
        let asked = CallToolRequestParams::new(name).with_arguments(arguments);
        Ok(answer(peer.call_tool_once(asked).await)?)
    }
}

/// A result that is one is a success. A tool that failed is not charged for, and what it said is shown.
fn answer(done: Result<CallToolResponse, ServiceError>) -> Result<Response<Full<Bytes>>, ServiceError> {
    match done {
        Ok(CallToolResponse::Complete(result)) => Ok(of_result(result)),
        // Spec: MCP 2026-07-28, "Multi Round-Trip Requests" and tasks: a payment buys one answer, and these are none.
        Ok(_) => Ok(of_error(json!({
            "code": rpc::INTERNAL_ERROR,
            "message": "the tool wants more rounds than a paid call has",
        }))),
        Err(ServiceError::McpError(error)) => {
            let error = serde_json::to_value(error).unwrap_or_default();
            // A buyer must never pay us and then be asked to pay whom we buy from. An elicitation by URL has the same
            // number, and is what it says.
            let wants_payment = exchange::to_object(&error).is_some_and(|error| {
                matches!(
                    RpcError::classify(&error),
                    RpcError::PaymentRequired(_) | RpcError::VerificationFailed(_) | RpcError::Unclear(_)
                )
            });
            Ok(if wants_payment {
                respond(StatusCode::PAYMENT_REQUIRED, &json!({}))
            } else {
                of_error(error)
            })
        }
        // Not an answer: nobody knows what the tool did. It is not charged for.
        Err(error) => Err(error),
    }
}

fn of_result(mut result: CallToolResult) -> Response<Full<Bytes>> {
    if exchange::asks_for_payment(&result) {
        return respond(StatusCode::PAYMENT_REQUIRED, &json!({}));
    }
    exchange::remove_payment_meta(&mut result);
    let status = match result.is_error {
        Some(true) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::OK,
    };
    respond(status, &json!({ RESULT: result }))
}

fn of_error(error: Value) -> Response<Full<Bytes>> {
    respond(StatusCode::UNPROCESSABLE_ENTITY, &json!({ RPC_ERROR: error }))
}

fn respond(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Service<Request<Full<Bytes>>> for ToolService {
    type Response = Response<Full<Bytes>>;
    type Error = BoxError;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Self::Future {
        Box::pin(self.clone().call_tool(request))
    }
}

#[cfg(test)]
mod tests {
    use rmcp::ErrorData;
    use rmcp::model::{ContentBlock, ErrorCode};

    use super::*;

    fn error(code: i32, data: Value) -> Result<CallToolResponse, ServiceError> {
        Err(ServiceError::McpError(ErrorData::new(ErrorCode(code), "no", Some(data))))
    }

    fn status(done: Result<CallToolResponse, ServiceError>) -> u16 {
        answer(done).unwrap().status().as_u16()
    }

    #[test]
    fn only_a_good_result_is_charged_for() {
        let text = || vec![ContentBlock::text("goods")];
        assert_eq!(status(Ok(CallToolResult::success(text()).into())), 200);
        assert_eq!(status(Ok(CallToolResult::error(text()).into())), 422);
        assert_eq!(status(error(-32602, json!({}))), 422);
        assert!(answer(Err(ServiceError::TransportClosed)).is_err());
    }

    /// One number, two meanings: who wants to be paid is not passed on, who wants a page visited is.
    #[test]
    fn a_servers_own_bill_is_not_passed_on_and_an_elicitation_is() {
        let challenge = json!({
            "id": "a", "realm": "r", "method": "evm", "intent": "charge", "request": { "amount": "1" }
        });
        let elicitations = json!({ "elicitations": [{ "mode": "url", "url": "https://a.example/" }] });
        assert_eq!(status(error(-32042, json!({ "challenges": [challenge] }))), 402);
        assert_eq!(status(error(-32043, json!({ "challenges": [challenge] }))), 402);
        assert_eq!(status(error(-32042, json!({}))), 402);
        assert_eq!(status(error(-32042, elicitations)), 422);
        let mut x402 = CallToolResult::error(vec![ContentBlock::text("pay")]);
        x402.structured_content = Some(json!({ "x402Version": 2, "accepts": [] }));
        assert_eq!(status(Ok(x402.into())), 402);
        let text = json!({ "x402Version": 2, "accepts": [] }).to_string();
        assert_eq!(status(Ok(CallToolResult::error(vec![ContentBlock::text(text)]).into())), 402);
    }
}
