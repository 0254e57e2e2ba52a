use crate::template::Template;

/// What a seller says of itself and of its routes. No clock, no chain: amounts are what its configuration says.
#[derive(Debug, Clone, Default)]
pub struct Service {
    pub title: Option<String>,
    pub version: Option<String>,
    pub description: Option<String>,
    pub categories: Vec<String>,
    pub docs: Docs,
    /// Where buyers reach it, without a slash at its end; documents speak of paths alone if it is absent.
    pub public_url: Option<String>,
    /// Whether what no route matches passes for nothing.
    pub unmatched_free: bool,
    /// In the order in which they are matched: the first that covers a request is its route.
    pub routes: Vec<Route>,
    pub tools: Option<Tools>,
}

/// Links for people and models.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Docs {
    pub homepage: Option<String>,
    pub api_reference: Option<String>,
    pub llms: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Route {
    pub template: Template,
    pub description: Option<String>,
    pub mime_type: Option<String>,
    /// Each way to pay; none is free.
    pub ways: Vec<Way>,
    /// Whether the document of the service behind speaks of what this route leads to.
    pub described: bool,
}

/// One way to pay for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// CAIP-2.
    pub network: String,
    /// The token's contract.
    pub asset: String,
    /// In the token's smallest unit; `None` where each request has its own price.
    pub atoms: Option<u128>,
    /// The same for people: `0.002 USDC`; without an amount, the token's symbol.
    pub shown: String,
    /// The same in dollars, if the token stands for them: `0.002`.
    pub dollars: Option<String>,
    /// What the amount is for, if not for a request: `token`.
    pub per: Option<String>,
    /// Absent where each request may have its own.
    pub pay_to: Option<String>,
    pub max_timeout_secs: Option<u64>,
    pub dialects: Vec<Dialect>,
}

/// How a way to pay is said in a 402.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    X402V1,
    X402V2,
    MppCharge,
    MppSession,
    /// A charge of MPP by Stripe: its asset is a currency.
    StripeCharge,
}

impl Dialect {
    /// The version of x402.
    pub fn x402(self) -> Option<u64> {
        match self {
            Self::X402V1 => Some(1),
            Self::X402V2 => Some(2),
            Self::MppCharge | Self::MppSession | Self::StripeCharge => None,
        }
    }

    /// The intent of MPP.
    pub fn intent(self) -> Option<&'static str> {
        match self {
            Self::X402V1 | Self::X402V2 => None,
            Self::MppCharge | Self::StripeCharge => Some("charge"),
            Self::MppSession => Some("session"),
        }
    }

    /// The method of MPP.
    pub fn method(self) -> Option<&'static str> {
        match self {
            Self::X402V1 | Self::X402V2 => None,
            Self::MppCharge | Self::MppSession => Some("evm"),
            Self::StripeCharge => Some("stripe"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::X402V1 => "x402 v1",
            Self::X402V2 => "x402 v2",
            Self::MppCharge => "MPP charge",
            Self::MppSession => "MPP session",
            Self::StripeCharge => "card (Stripe)",
        }
    }
}

/// Tools of an MCP server that are sold beside the routes.
#[derive(Debug, Clone)]
pub struct Tools {
    pub path: String,
    pub tools: Vec<Tool>,
}

#[derive(Debug, Clone)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    pub ways: Vec<Way>,
}
