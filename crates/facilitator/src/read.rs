//! From the bytes of a request to a payment whose fields, window and signature are right. Nothing is asked of the chain.

use farthing_evm::{eip55, to_alloy};
use farthing_payment::Dialect;
use farthing_primitives::{Address, Network, Timestamp};
use farthing_rails::exact_evm::{Checked, Fact, Policy, Presented, Refusal, Requirement, Tokens, check};
use farthing_rails::x402::{self, EXACT};
use farthing_wire::json;
use farthing_wire::x402::facilitator::PaymentRequest;
use farthing_wire::x402::{ErrorCode, Message, WireError, header};

use crate::Versions;

/// How much is kept of a resource's name.
const MAX_RESOURCE_BYTES: usize = 512;

/// A payment as it was asked about.
#[derive(Debug)]
pub(crate) struct Asked {
    pub dialect: Dialect,
    pub requirement: Requirement,
    pub presented: Presented,
    /// What it pays for, as the seller says.
    pub resource: String,
}

/// What cannot even be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub code: ErrorCode,
    /// Not a request at all: its sender has a bug. Everything else is an answer like another.
    pub malformed: bool,
    /// As the request's own version names it; empty if it names none.
    pub network: String,
    pub payer: Option<Address>,
}

impl Asked {
    /// Reads a request and compares its words with what is served.
    pub fn read(body: &[u8], tokens: &Tokens, served: Served<'_>) -> Result<Self, Unreadable> {
        let request = PaymentRequest::parse(body).map_err(|error| Unreadable::of(&error, body))?;
        let (network, scheme, name) = match &request {
            PaymentRequest::V1 { requirements: r, .. } => (r.network.network(), &r.scheme, r.network.name()),
            PaymentRequest::V2 { requirements: r, .. } => (&r.network, &r.scheme, r.network.as_str()),
        };
        let refuse =
            |code: ErrorCode| Unreadable { code, malformed: false, network: name.to_owned(), payer: None };
        let spoken = match request.version() {
            1 => served.versions.v1,
            _ => served.versions.v2,
        };
        if !spoken {
            return Err(refuse(ErrorCode::InvalidX402Version));
        }
        if scheme != EXACT {
            return Err(refuse(ErrorCode::UnsupportedScheme));
        }
        if !(served.network)(network) {
            return Err(refuse(ErrorCode::InvalidNetwork));
        }
        let (dialect, requirement, extra, resource) = match &request {
            PaymentRequest::V1 { requirements, .. } => (
                Dialect::X402V1,
                x402::requirement_v1(requirements, tokens),
                requirements.extra.as_ref(),
                requirements.resource.as_str(),
            ),
            PaymentRequest::V2 { payload, requirements } => (
                Dialect::X402V2,
                x402::requirement_v2(requirements, tokens),
                requirements.extra.as_ref(),
                payload.resource.as_ref().map_or("", |resource| resource.url.as_str()),
            ),
        };
        let requirement = requirement.map_err(|error| refuse(error.code()))?;
        x402::flow(extra).map_err(|error| refuse(error.code()))?;
        let presented = match &request {
            PaymentRequest::V1 { payload, .. } => x402::presented_v1(&requirement, payload),
            PaymentRequest::V2 { payload, .. } => x402::presented_v2(&requirement, payload),
        };
        let presented = presented.map_err(|error| refuse(error.code()))?;
        Ok(Self { dialect, requirement, presented, resource: without_query(resource) })
    }

    pub fn check(&self, now: Timestamp, policy: &Policy) -> Result<Checked, Refusal> {
        check(&self.requirement, &self.presented, now, policy)
    }

    /// The same for a payment that was good once: as of the beginning of its window, whatever the time is now.
    ///
    /// For finding what became of it, and for nothing else.
    pub fn check_past(&self, refusal: &Refusal, policy: &Policy) -> Option<Checked> {
        if !matches!(refusal.fact, Fact::Expired { .. }) {
            return None;
        }
        let begins = match &self.presented {
            Presented::Eip3009 { authorization, .. } => authorization.valid_after,
            Presented::Permit2 { transfer, .. } => transfer.valid_after,
        };
        let then = Timestamp::from_secs(u64::try_from(begins).ok()?);
        let policy = Policy { max_validity: None, ..policy.clone() };
        self.check(then, &policy).ok()
    }

    /// The network as this dialect names it.
    pub fn network_name(&self) -> &str {
        let network = self.requirement.network();
        match self.dialect {
            Dialect::X402V1 => network.v1_name().unwrap_or(network.as_str()),
            Dialect::X402V2 | Dialect::Mpp => network.as_str(),
        }
    }
}

/// What is served, as far as reading needs it.
#[derive(Clone, Copy)]
pub(crate) struct Served<'a> {
    pub versions: Versions,
    pub network: &'a dyn Fn(&Network) -> bool,
}

impl Unreadable {
    fn of(error: &WireError, body: &[u8]) -> Self {
        let malformed = matches!(
            error,
            WireError::Json(_)
                | WireError::NotAnObject
                | WireError::Missing { field: "paymentPayload" | "paymentRequirements" }
        ) || matches!(error, WireError::Requirements(inner) if matches!(**inner, WireError::NotAnObject | WireError::Missing { field: "paymentRequirements" }));
        // Spec: v2 section 5.3.2: a failed settlement names the network too. Read again, because it is rare.
        let network = json::parse(body, header::BODY_LIMITS).ok().and_then(|json| {
            let requirements = json.as_object()?.get("paymentRequirements")?.as_object()?;
            Some(requirements.get_str("network")?.chars().take(64).collect())
        });
        Self { code: error.code(), malformed, network: network.unwrap_or_default(), payer: None }
    }
}

/// As the published packages write addresses.
pub(crate) fn written(address: &Address) -> String {
    to_alloy(address).map_or_else(|| address.as_str().to_owned(), eip55)
}

/// Queries carry what is nobody's business.
fn without_query(resource: &str) -> String {
    let plain = resource.split(['?', '#']).next().unwrap_or_default();
    let mut end = plain.len().min(MAX_RESOURCE_BYTES);
    while !plain.is_char_boundary(end) {
        end -= 1;
    }
    plain[..end].to_owned()
}
