//! Points the person behind an agent to the page where payments are approved.
//!
//! By URL alone: a form would bring the answer through the agent, and whoever approves signs on a page of the owner's.
//! −32042 is also MPP's number for "payment required"; ours has `elicitations` in its data and never `challenges`.

use std::fmt;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolResponse, ElicitRequest, ElicitRequestParams, ErrorCode, ErrorData, InputRequest, InputRequests,
    InputRequiredResult, ProtocolVersion,
};
use rmcp::service::RequestContext;
use serde_json::{Value, json};
use url::{Host, Url};

/// Spec: MCP 2025-11-25, elicitation, "URL Elicitation Required Error".
const URL_ELICITATION_REQUIRED: ErrorCode = ErrorCode(-32042);
/// Under what the answer of the agent's user comes back.
const ASKED: &str = "approval";
const MESSAGE: &str = "A payment waits for your approval. The wallet's approval page shows what is paid, and to whom; \
                       your passkey answers there, and nothing else does.";

/// The address of the page, without anything that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalPage(Url);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    #[error("it is no URL")]
    NotAUrl,
    #[error("it has to begin with https://, or with http:// on this machine")]
    Scheme,
    /// Spec: elicitation, "Safe URL Handling", 2: no URL that is authenticated already.
    #[error("it has more than an address: what is behind # or ? or before @ may let whoever reads it in")]
    Secret,
}

impl std::str::FromStr for ApprovalPage {
    type Err = PageError;

    fn from_str(text: &str) -> Result<Self, PageError> {
        let url = Url::parse(text).map_err(|_| PageError::NotAUrl)?;
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback(),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => return Err(PageError::NotAUrl),
        };
        if !(url.scheme() == "https" || url.scheme() == "http" && local) {
            return Err(PageError::Scheme);
        }
        let named = !url.username().is_empty() || url.password().is_some();
        if named || url.fragment().is_some() || url.query().is_some() {
            return Err(PageError::Secret);
        }
        Ok(Self(url))
    }
}

impl fmt::Display for ApprovalPage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// How the agent's program takes a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Spec: MCP 2025-11-25, elicitation: the call fails by −32042, and is made again afterwards.
    Error,
    /// Spec: MCP 2026-07-28, "Multi Round-Trip Requests": the call's result says what is needed.
    Result,
}

/// `None`: it did not say that it takes URLs, so it is answered as anybody.
///
/// Spec: elicitation, "Capabilities": servers send no mode that the client did not declare.
fn way(context: &RequestContext<RoleServer>) -> Option<Way> {
    context.client_capabilities()?.elicitation?.url?;
    match context.protocol_version()? {
        version if version >= ProtocolVersion::V_2026_07_28 => Some(Way::Result),
        version if version >= ProtocolVersion::V_2025_11_25 => Some(Way::Error),
        _ => None,
    }
}

impl ApprovalPage {
    /// The same page, which is told what was asked: the name of a request opens nothing.
    fn of(&self, id: &str) -> String {
        let mut url = self.0.clone();
        url.query_pairs_mut().append_pair("approval", id);
        url.into()
    }

    /// What a call is answered with for which people are asked, if the agent's program shows URLs; else `None`.
    ///
    /// `again`: the call came back with what its user said to the URL. It is not shown a second time: that would be
    /// asked and answered by two programs without anybody between them. `approval` are our own facts of the request.
    pub fn point(
        &self,
        context: &RequestContext<RoleServer>,
        again: bool,
        approval: &Value,
    ) -> Option<Result<CallToolResponse, ErrorData>> {
        if approval["status"] != "pending" {
            return None;
        }
        let id = approval["id"].as_str()?;
        match way(context)? {
            Way::Error => Some(Err(self.error(id, approval))),
            Way::Result => (!again).then(|| Ok(self.result(id).into())),
        }
    }

    fn error(&self, id: &str, approval: &Value) -> ErrorData {
        let elicitation =
            json!({ "mode": "url", "elicitationId": id, "url": self.of(id), "message": MESSAGE });
        let data = json!({ "elicitations": [elicitation], "farthing/approval": approval });
        let text = "nothing was paid; people are asked to approve: make the same call again once they agree";
        ErrorData::new(URL_ELICITATION_REQUIRED, text, Some(data))
    }

    fn result(&self, id: &str) -> InputRequiredResult {
        let params = ElicitRequestParams::UrlElicitationParams {
            meta: None,
            message: MESSAGE.to_owned(),
            url: self.of(id),
            elicitation_id: id.to_owned(),
        };
        let asked = InputRequest::Elicitation(ElicitRequest::new(params));
        InputRequiredResult::from_input_requests(InputRequests::from([(ASKED.to_owned(), asked)]))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use rmcp::model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ContentBlock, ElicitResult,
        ElicitationAction, ElicitationCapability, FormElicitationCapability, Implementation,
        ServerCapabilities, ServerConfig, UrlElicitationCapability,
    };
    use rmcp::service::{ClientLifecycleMode, ClientServiceExt, ServiceError, ServiceExt};
    use rmcp::{ClientHandler, RoleClient, ServerHandler};

    use super::*;

    /// A server whose tool waits for people.
    struct Waits(ApprovalPage);

    impl ServerHandler for Waits {
        fn get_info(&self) -> ServerConfig {
            ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
        }

        async fn call_tool(
            &self,
            request: CallToolRequestParams,
            context: RequestContext<RoleServer>,
        ) -> Result<CallToolResponse, ErrorData> {
            let approval = json!({ "id": "apr_1f", "status": &request.name });
            let pointed = self.0.point(&context, request.input_responses.is_some(), &approval);
            pointed.unwrap_or_else(|| Ok(CallToolResult::error(vec![ContentBlock::text("waits")]).into()))
        }
    }

    /// An agent's program, and the URLs that its user was shown.
    #[derive(Clone)]
    struct Program {
        elicitation: Option<ElicitationCapability>,
        version: ProtocolVersion,
        shown: Arc<Mutex<Vec<String>>>,
    }

    impl ClientHandler for Program {
        fn get_info(&self) -> ClientConfig {
            let mut capabilities = ClientCapabilities::default();
            capabilities.elicitation = self.elicitation.clone();
            ClientConfig::new(capabilities, Implementation::new("agent", "1"))
                .with_protocol_version(self.version.clone())
        }

        async fn create_elicitation(
            &self,
            request: ElicitRequestParams,
            _: RequestContext<RoleClient>,
        ) -> Result<ElicitResult, ErrorData> {
            let ElicitRequestParams::UrlElicitationParams { url, .. } = request else {
                panic!("{request:?}")
            };
            self.shown.lock().unwrap().push(url);
            Ok(ElicitResult::new(ElicitationAction::Accept))
        }
    }

    /// What a call comes to, and how often a URL was shown to the user meanwhile.
    async fn call(
        elicitation: Option<ElicitationCapability>,
        version: ProtocolVersion,
        status: &'static str,
    ) -> (String, usize) {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let server = Waits("http://localhost:8405".parse().unwrap());
            ServiceExt::<RoleServer>::serve(server, ours).await.unwrap().waiting().await.unwrap();
        });
        let program = Program { elicitation, version: version.clone(), shown: Arc::default() };
        let lifecycle = if version >= ProtocolVersion::V_2026_07_28 {
            ClientLifecycleMode::Discover { preferred_versions: vec![version] }
        } else {
            ClientLifecycleMode::Initialize
        };
        let agent = program.clone().serve_with_lifecycle(theirs, lifecycle).await.unwrap();
        let said = match agent.call_tool(CallToolRequestParams::new(status)).await {
            Ok(result) => result.content[0].as_text().unwrap().text.clone(),
            Err(ServiceError::McpError(error)) => {
                assert_eq!(error.data.unwrap()["elicitations"].as_array().unwrap().len(), 1);
                error.code.0.to_string()
            }
            Err(other) => panic!("{other}"),
        };
        let shown = program.shown.lock().unwrap().clone();
        assert!(shown.iter().all(|url| url == "http://localhost:8405/?approval=apr_1f"), "{shown:?}");
        (said, shown.len())
    }

    #[tokio::test]
    async fn only_who_can_show_a_url_gets_one_in_the_way_of_its_revision() {
        let url = || Some(ElicitationCapability::new().with_url(UrlElicitationCapability::new()));
        let form = || Some(ElicitationCapability::new().with_form(FormElicitationCapability::new()));
        let [old, error, result] =
            [ProtocolVersion::V_2025_06_18, ProtocolVersion::V_2025_11_25, ProtocolVersion::V_2026_07_28];
        for (elicitation, version, status, said, shown) in [
            (url(), &error, "pending", "-32042", 0),
            // Once, however long people take: the call that brings the user's answer is answered as anybody's.
            (url(), &result, "pending", "waits", 1),
            (form(), &error, "pending", "waits", 0),
            (form(), &result, "pending", "waits", 0),
            (Some(ElicitationCapability::new()), &error, "pending", "waits", 0),
            (None, &error, "pending", "waits", 0),
            (None, &result, "pending", "waits", 0),
            // URLs came with the revision after it.
            (url(), &old, "pending", "waits", 0),
            (url(), &error, "denied", "waits", 0),
            (url(), &result, "expired", "waits", 0),
        ] {
            let found = call(elicitation.clone(), version.clone(), status).await;
            assert_eq!(found, (said.to_owned(), shown), "{elicitation:?} {version} {status}");
        }
    }

    #[test]
    fn a_page_is_an_address_and_nothing_that_opens_it() {
        for (text, expected) in [
            ("http://localhost:8405", None),
            ("http://127.0.0.1:8405/", None),
            ("http://[::1]:8405/", None),
            ("https://approve.acme.example/wallet", None),
            ("http://approve.acme.example", Some(PageError::Scheme)),
            ("javascript:alert(1)", Some(PageError::NotAUrl)),
            ("file:///etc/passwd", Some(PageError::NotAUrl)),
            ("ftp://localhost/", Some(PageError::Scheme)),
            ("localhost:8405", Some(PageError::NotAUrl)),
            ("http://localhost:8405/#the-link-that-was-printed", Some(PageError::Secret)),
            ("http://localhost:8405/?key=1", Some(PageError::Secret)),
            ("https://me:word@approve.acme.example/", Some(PageError::Secret)),
        ] {
            assert_eq!(text.parse::<ApprovalPage>().err(), expected, "{text}");
        }
    }

    #[test]
    fn what_asks_for_a_visit_asks_for_no_payment() {
        let page: ApprovalPage = "http://localhost:8405".parse().unwrap();
        let approval = json!({ "id": "apr_1f", "status": "pending" });
        let error = page.error("apr_1f", &approval);
        assert_eq!(error.code.0, -32042);
        let data = error.data.unwrap();
        assert_eq!(data["elicitations"][0]["url"], "http://localhost:8405/?approval=apr_1f");
        assert_eq!(data["elicitations"][0]["mode"], "url");
        assert_eq!(data["farthing/approval"], approval);
        assert!(data.get("challenges").is_none());
        let result = serde_json::to_value(page.result("apr_1f")).unwrap();
        assert_eq!(result["resultType"], "input_required");
        let asked = &result["inputRequests"]["approval"];
        assert_eq!(asked["method"], "elicitation/create");
        assert_eq!(asked["params"]["mode"], "url", "{asked}");
        assert_eq!(asked["params"]["url"], "http://localhost:8405/?approval=apr_1f");
        assert!(asked["params"].get("requestedSchema").is_none(), "no form is ever sent");
    }
}
