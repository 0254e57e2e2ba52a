//! What the guard itself answers, and what it takes out of a server's answers: marks that are the guard's to give.

use farthing_primitives::Registry;
use farthing_toolguard::Reason;
use farthing_wallet::client::Payment;
use rmcp::model::{
    Annotations, CallToolResponse, CallToolResult, ContentBlock, ErrorData, MetaObject, TextContent,
};
use serde_json::{Value, json};

use super::forward::Said;
use crate::facts;
use crate::tools::fence;
use crate::untrusted::{Untrusted, meta_of};

/// The key of a result's `_meta` with why the guard denied the call, as JSON.
pub const DENIED: &str = "farthing/denied";
/// The key of a result's `_meta` with what was paid for it.
pub const PAYMENT: &str = "farthing/payment";
/// In a denial: what people were asked.
pub const APPROVAL: &str = "approval";
/// What all keys of ours begin with.
pub(super) const OURS: &str = "farthing/";

/// A denial in the guard's words, and apart from them what a server or a seller wrote.
#[derive(Debug, Clone)]
pub struct Denial {
    code: &'static str,
    facts: Value,
    notes: Vec<Untrusted>,
}

impl Denial {
    pub fn new(code: &'static str, text: &str) -> Self {
        let reason = Reason { code, rule: None, text: text.to_owned(), retry_after: None };
        Self::of(vec![reason])
    }

    /// The first reason's code is the denial's.
    pub fn of(reasons: Vec<Reason>) -> Self {
        let code = reasons.first().map_or("denied", |reason| reason.code);
        // The call fares better once all of them are over, if time alone helps each.
        let waits = reasons.iter().map(|reason| reason.retry_after);
        let wait = waits.collect::<Option<Vec<_>>>().and_then(|waits| waits.into_iter().max());
        let seconds = |wait: std::time::Duration| wait.as_millis().div_ceil(1000);
        let reasons: Vec<Value> = reasons
            .iter()
            .map(|reason| {
                json!({
                    "code": reason.code,
                    "rule": reason.rule,
                    "text": reason.text,
                    "retry_after_s": reason.retry_after.map(|wait| u64::try_from(seconds(wait)).unwrap_or(u64::MAX)),
                })
            })
            .collect();
        let facts = json!({
            "denied_by": "farthing mcp proxy",
            "code": code,
            "reasons": reasons,
            "retry_after_s": wait.map(|wait| u64::try_from(seconds(wait)).unwrap_or(u64::MAX)),
        });
        Self { code, facts, notes: Vec::new() }
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.facts[key] = value;
        self
    }

    /// What people were asked before the wallet may pay.
    pub fn approval(&self) -> Option<&Value> {
        self.facts.get(APPROVAL)
    }

    /// What somebody else wrote, marked as theirs.
    pub fn with_note(mut self, author: &str, kind: &'static str, text: &str) -> Self {
        self.notes.push(Untrusted::note(author, kind, text));
        self
    }

    /// What somebody else wrote of it.
    pub fn words(&self) -> Vec<String> {
        self.notes.iter().map(|note| String::from_utf8_lossy(&note.bytes).into_owned()).collect()
    }

    pub fn code(&self) -> &'static str {
        self.code
    }

    /// As a result that is an error. Nothing is structured: a tool's own schema is for the tool's own results.
    pub fn into_result(self) -> CallToolResult {
        let fence = fence();
        let own = TextContent::new(self.facts.to_string())
            .with_meta(meta_of(json!({ crate::UNTRUSTED: false, "farthing/author": "guard" })))
            .with_annotations(Annotations::default().with_priority(1.0));
        let mut content = vec![ContentBlock::Text(own)];
        content.extend(self.notes.iter().map(|one| one.to_content(&fence)));
        let mut result = CallToolResult::error(content);
        result.meta = Some(meta_of(json!({ DENIED: self.facts })));
        result
    }
}

/// What a server answered, as it is passed on: all of it but what only we say.
pub fn passed_on(said: Said) -> Result<CallToolResponse, ErrorData> {
    match said {
        Said::Error(error) => Err(error),
        Said::Result(CallToolResponse::Complete(mut result)) => {
            strip(result.meta.as_mut());
            for block in &mut result.content {
                strip(match block {
                    ContentBlock::Text(text) => text.meta.as_mut(),
                    ContentBlock::Image(image) => image.meta.as_mut(),
                    ContentBlock::Audio(audio) => audio.meta.as_mut(),
                    ContentBlock::Resource(resource) => resource.meta.as_mut(),
                    ContentBlock::ResourceLink(link) => link.meta.as_mut(),
                    _ => None,
                });
            }
            Ok(CallToolResponse::Complete(result))
        }
        Said::Result(other) => Ok(other),
    }
}

fn strip(meta: Option<&mut MetaObject>) {
    if let Some(meta) = meta {
        meta.0.retain(|key, _| !key.starts_with(OURS));
    }
}

/// Says what was paid, in our words, beside what was bought.
pub fn with_payment(
    mut response: CallToolResponse,
    registry: &Registry,
    payment: &Payment,
) -> CallToolResponse {
    if let CallToolResponse::Complete(result) = &mut response {
        let meta = result.meta.get_or_insert_with(MetaObject::new);
        meta.0.insert(PAYMENT.to_owned(), facts::payment(registry, payment));
    }
    response
}
