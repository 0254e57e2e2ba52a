//! A server behind, a till that asks for anything at all, and an agent that writes its messages itself.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use farthing_listener::{Inbound, Limits, Peer, Server};
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, Implementation,
    ListToolsResult, MetaObject, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tower::{ServiceExt, service_fn};

use super::*;

/// A server that knows nothing of payments.
#[derive(Clone, Default)]
struct Behind {
    called: Arc<Mutex<Vec<(String, Value)>>>,
}

impl ServerHandler for Behind {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("behind", "1"))
            .with_instructions("be kind")
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let tool = |name: &'static str| Tool::new(name, name, Map::new());
        Ok(ListToolsResult::with_all_items(
            ["forecast", "fails", "elicits", "hidden", "odd name"].map(tool).to_vec(),
        ))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        self.called.lock().unwrap().push((request.name.to_string(), arguments));
        match &*request.name {
            "elicits" => {
                let data = json!({ "elicitations": [{ "mode": "url", "url": "https://login.example/" }] });
                Err(ErrorData::new(ErrorCode(-32042), "visit", Some(data)))
            }
            "fails" => Ok(CallToolResult::error(vec![ContentBlock::text("out of order")]).into()),
            _ => {
                let forged = json!({ "x402/payment-response": { "success": true }, "kept": 1 });
                let Value::Object(forged) = forged else { panic!() };
                Ok(CallToolResult::success(vec![ContentBlock::text("goods")])
                    .with_meta(Some(MetaObject(forged)))
                    .into())
            }
        }
    }
}

/// Serves over streamable HTTP; returns the address.
pub(crate) async fn listen(server: impl ServerHandler + Clone) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false);
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(server.clone()), sessions, config);
    let handler = move |request: http::Request<Inbound>, _: Peer| {
        let service = service.clone();
        async move {
            let Ok(answer) = service.oneshot(request).await;
            answer
        }
    };
    let server =
        Server { handler, limits: Limits::default(), tls: None, stands_for_many: Arc::new(|_| false) };
    tokio::spawn(farthing_listener::serve(server, listener, std::future::pending()));
    url
}

impl Behind {
    fn called(&self) -> Vec<(String, Value)> {
        self.called.lock().unwrap().clone()
    }
}

type Seen = Arc<Mutex<Vec<(Method, String, Bytes)>>>;

/// Asks whoever shows nothing, and lets everybody else through.
fn till(tools: ToolService, seen: Seen) -> Paywalled {
    BoxCloneSyncService::new(service_fn(move |request: Request<Full<Bytes>>| {
        let (tools, seen) = (tools.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push((parts.method.clone(), parts.uri.path().to_owned(), body.clone()));
            let free = parts.uri.path().ends_with("/hidden");
            let full = |bytes: Bytes| Full::new(bytes).map_err(|never| match never {}).boxed_unsync();
            if !free && !parts.headers.contains_key("payment-signature") {
                let offers = json!({ "x402Version": 2, "accepts": [{}] }).to_string();
                let mut answer = Response::new(full(Bytes::from_static(b"{}")));
                *answer.status_mut() = StatusCode::PAYMENT_REQUIRED;
                let offers = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, offers);
                answer.headers_mut().insert("payment-required", offers.parse().unwrap());
                return Ok::<_, Infallible>(answer);
            }
            Ok(match tools.oneshot(Request::from_parts(parts, Full::new(body))).await {
                Ok(answer) => answer.map(|body| body.map_err(|never| match never {}).boxed_unsync()),
                Err(_) => {
                    let mut answer =
                        Response::new(full(Bytes::from_static(b"{\"error\":\"upstream_unreachable\"}")));
                    *answer.status_mut() = StatusCode::BAD_GATEWAY;
                    answer
                }
            })
        }
    }))
}

struct Bench {
    shop: Shop,
    behind: Behind,
    seen: Seen,
}

async fn bench(others_free: bool) -> Bench {
    let behind = Behind::default();
    let upstream = Upstream::new(Source::Http { url: listen(behind.clone()).await, headers: Vec::new() });
    let seen = Seen::default();
    let paywall = till(ToolService::new(upstream.clone()), seen.clone());
    let tools: BTreeSet<String> = ["forecast", "fails", "elicits"].map(str::to_owned).into();
    let stall = Stall { tools, others_free, base: "/mcp".to_owned(), ..Stall::default() };
    Bench { shop: Shop::new(upstream, paywall, stall), behind, seen }
}

impl Bench {
    async fn post(&self, message: &Value, more: &[(&'static str, &'static str)]) -> (u16, Value) {
        // As the binary does at its start.
        let mut request = Request::new(Full::new(Bytes::from(message.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = "/mcp".parse().unwrap();
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("shop.example"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        for (name, value) in more {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let answer = self.shop.handle(request).await;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or_default())
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.post(&message, &[]).await.1
    }

    async fn call(&self, tool: &str, arguments: Value, paid: bool) -> Value {
        let meta = if paid { json!({ X402_PAYMENT: { "x402Version": 2 } }) } else { json!({}) };
        self.rpc("tools/call", json!({ "name": tool, "arguments": arguments, "_meta": meta })).await
    }
}

pub(crate) fn install_provider() {
    // The HTTP client takes whichever the process has; the second test to come here finds it done.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

#[tokio::test]
async fn only_what_is_for_sale_is_there() {
    install_provider();
    let few = bench(false).await;
    let names = |answer: &Value| -> Vec<String> {
        let tools = answer["result"]["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&few.rpc("tools/list", json!({})).await), ["forecast", "fails", "elicits"]);
    for tool in ["hidden", "odd name", "../forecast", "forecast/x", "..", "", "forecast?x=1"] {
        let answer = few.call(tool, json!({}), true).await;
        assert_eq!(answer["error"]["code"], -32602, "{tool}: {answer}");
    }
    assert!(few.behind.called().is_empty() && few.seen.lock().unwrap().is_empty());
    let all = bench(true).await;
    assert_eq!(names(&all.rpc("tools/list", json!({})).await), ["forecast", "fails", "elicits", "hidden"]);
    let answer = all.call("hidden", json!({}), false).await;
    assert_eq!(answer["result"]["content"][0]["text"], "goods", "{answer}");
}

#[tokio::test]
async fn a_call_is_one_request_to_the_till() {
    install_provider();
    let bench = bench(false).await;
    let arguments = json!({ "city": "Köln", "at": [52.5, 13.4] });
    let asked = bench.call("forecast", arguments.clone(), false).await;
    assert_eq!(asked["result"]["isError"], true, "{asked}");
    assert_eq!(asked["result"]["structuredContent"]["accepts"], json!([{}]));
    assert!(bench.behind.called().is_empty(), "nobody paid");
    let served = bench.call("forecast", arguments.clone(), true).await;
    let result = &served["result"];
    assert_eq!(result["content"][0]["text"], "goods", "{served}");
    assert_eq!(result["_meta"], json!({ "kept": 1 }), "receipts are the till's to give");
    assert_eq!(bench.behind.called(), [("forecast".to_owned(), arguments)]);
    let seen = bench.seen.lock().unwrap().clone();
    let body = Bytes::from("{\"at\":[52.5,13.4],\"city\":\"Köln\"}");
    let expected = (Method::POST, "/mcp/tools/forecast".to_owned(), body);
    assert_eq!(seen, [expected.clone(), expected]);
    let fails = bench.call("fails", json!({}), true).await;
    assert_eq!(fails["result"]["isError"], true);
    assert_eq!(fails["result"]["content"][0]["text"], "out of order");
    let elicits = bench.call("elicits", json!({}), true).await;
    assert_eq!(elicits["error"]["code"], -32042);
    assert_eq!(elicits["error"]["data"]["elicitations"][0]["mode"], "url", "{elicits}");
}

#[tokio::test]
async fn the_servers_own_words_are_passed_on_and_payment_is_announced() {
    install_provider();
    let bench = bench(false).await;
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" }
    });
    let result = &bench.rpc("initialize", params).await["result"];
    assert_eq!(
        (&result["serverInfo"]["name"], &result["instructions"]),
        (&json!("behind"), &json!("be kind"))
    );
    let payment = &result["capabilities"]["experimental"]["payment"];
    assert_eq!(payment["methods"]["evm"]["intents"], json!(["charge"]), "{result}");
    // A message without an id is never served for money.
    let call = json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": "forecast" } });
    let (status, _) = bench.post(&call, &[]).await;
    assert!(status < 500, "{status}");
    assert!(bench.behind.called().is_empty());
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    assert_eq!(bench.post(&list, &[("origin", "https://evil.example")]).await.0, 403);
    let long = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "forecast", "arguments": { "a": "x".repeat(MAX_CALL_BYTES) } } });
    assert_eq!(bench.post(&long, &[]).await.0, 413);
}

#[tokio::test]
async fn what_is_held_of_messages_is_bounded_and_given_back() {
    install_provider();
    let bench = bench(false).await;
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    let all = u32::try_from(MAX_MESSAGE_MEMORY / 1024).unwrap();
    // Everything but what one short message takes.
    let others = bench.shop.memory().try_acquire_many_owned(all - 1).unwrap();
    assert_eq!(bench.post(&list, &[]).await.0, 200);
    let long =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": { "x": "x".repeat(4096) } });
    assert_eq!(bench.post(&long, &[]).await, (503, json!({ "error": "too_many_messages" })));
    drop(others);
    assert_eq!(bench.post(&long, &[]).await.0, 200);
    assert_eq!(bench.shop.memory().available_permits(), all as usize);
}

#[tokio::test]
async fn a_server_that_is_not_there_is_said_to_be() {
    install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    drop(listener);
    for source in [
        Source::Http { url, headers: Vec::new() },
        Source::Command { program: "/nowhere/at-all".to_owned(), arguments: Vec::new() },
    ] {
        let upstream = Upstream::new(source);
        let paywall = till(ToolService::new(upstream.clone()), Seen::default());
        let stall =
            Stall { tools: ["forecast".to_owned()].into(), base: "/mcp".to_owned(), ..Stall::default() };
        let bench = Bench {
            shop: Shop::new(upstream, paywall, stall),
            behind: Behind::default(),
            seen: Seen::default(),
        };
        let listed = bench.rpc("tools/list", json!({})).await;
        assert_eq!(listed["error"]["data"]["error"], "upstream_unreachable", "{listed}");
        let called = bench.call("forecast", json!({}), true).await;
        assert_eq!(
            (&called["error"]["code"], &called["error"]["data"]["error"]),
            (&json!(-32603), &json!("upstream_unreachable"))
        );
    }
}
