//! Who asks, and with whose money.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farthing_wallet::client::{BuildError, Client};
use farthing_wallet::journal::agents::Credential;
use farthing_wallet::{AgentToken, Authorizer, Books, Denied, LocalAuthorizer};
use http::{HeaderMap, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::turns::open;

/// How many agents' clients are kept; then they are made anew.
const MAX_AGENTS: usize = 256;

/// What a program shows of itself.
#[derive(Clone)]
pub struct Credentials {
    /// From where it is connected.
    pub peer: IpAddr,
    /// `Proxy-Authorization: Basic`, if it sent that.
    pub basic: Option<Basic>,
}

/// A name and the token that goes with it.
#[derive(Clone)]
pub struct Basic {
    pub name: String,
    pub token: Zeroizing<String>,
}

/// Shows no token.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.basic.as_ref().map(|basic| &basic.name);
        f.debug_struct("Credentials").field("peer", &self.peer).field("name", &name).finish()
    }
}

impl fmt::Debug for Basic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Basic").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a program is not let in. [`Refusal::code`] is stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("name a token: http://agent:TOKEN@host:port, from \"farthing proxy env\"")]
    CredentialsRequired,
    #[error("the token is neither this proxy's nor an agent's")]
    CredentialsRefused,
    #[error("the wallet cannot be asked")]
    Unavailable,
}

impl Refusal {
    pub const fn code(self) -> &'static str {
        match self {
            Self::CredentialsRequired => "proxy_credentials_required",
            Self::CredentialsRefused => "proxy_credentials_refused",
            Self::Unavailable => "wallet_unavailable",
        }
    }
}

impl Credentials {
    /// Reads what a request shows.
    ///
    /// # Errors
    /// [`Refusal::CredentialsRefused`] for anything that is there and no single `Basic`.
    ///
    /// Spec: RFC 9110 section 11.7.2; RFC 7617 section 2.
    pub fn read(headers: &HeaderMap, peer: IpAddr) -> Result<Self, Refusal> {
        let mut shown = headers.get_all(header::PROXY_AUTHORIZATION).iter();
        let basic = match (shown.next(), shown.next()) {
            (None, _) => None,
            (Some(value), None) => Some(Basic::parse(value).ok_or(Refusal::CredentialsRefused)?),
            (Some(_), Some(_)) => return Err(Refusal::CredentialsRefused),
        };
        Ok(Self { peer, basic })
    }
}

impl Basic {
    fn parse(value: &HeaderValue) -> Option<Self> {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = Zeroizing::new(STANDARD.decode(encoded.trim()).ok()?);
        let (name, token) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some(Self { name: name.to_owned(), token: Zeroizing::new(token.to_owned()) })
    }
}

/// Somebody who was let in.
#[derive(Clone)]
pub struct Customer {
    /// Keeps what different customers leave undone apart.
    pub name: Arc<str>,
    pub client: Arc<Client>,
    pub books: Arc<dyn Books>,
}

impl fmt::Debug for Customer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Customer").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Knows the programs that may come, and what each of them may spend.
#[async_trait]
pub trait Desk: Send + Sync {
    /// The client and the books of whoever shows these. Asked for each request and for each tunnel, so that what is
    /// revoked is over at once.
    async fn admit(&self, who: &Credentials) -> Result<Customer, Refusal>;
}

/// Makes the client that pays by an authorizer.
pub type MakeClient = Box<dyn Fn(Arc<dyn Authorizer>) -> Result<Client, BuildError> + Send + Sync>;

/// A wallet: whoever knows the proxy's token, and, where the wallet is in this process, its agents, each of whom shows what
/// is its own.
pub struct Wallet {
    customer: Customer,
    token: Credential,
    anonymous: bool,
    agents: Option<Agents>,
}

/// The agents of a wallet of this process.
struct Agents {
    authorizer: LocalAuthorizer,
    make: MakeClient,
    /// Those that came, by what they show.
    known: Mutex<HashMap<Credential, Customer>>,
}

impl fmt::Debug for Wallet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wallet").field("anonymous", &self.anonymous).finish_non_exhaustive()
    }
}

impl Wallet {
    /// A wallet of this process: its token is the owner's.
    ///
    /// # Errors
    /// If the owner's client cannot be made.
    pub fn new(authorizer: LocalAuthorizer, make: MakeClient, token: &str) -> Result<Self, BuildError> {
        let customer = customer("", &make, authorizer.clone())?;
        let agents = Some(Agents { authorizer, make, known: Mutex::default() });
        Ok(Self { customer, token: credential(token), anonymous: false, agents })
    }

    /// A wallet elsewhere, where this proxy is one agent: so is whoever shows its token, and nobody else is known.
    pub fn elsewhere(client: Client, books: Arc<dyn Books>, token: &str) -> Self {
        let customer = Customer { name: "".into(), client: Arc::new(client), books };
        Self { customer, token: credential(token), anonymous: false, agents: None }
    }

    /// Lets in whoever is on this machine and shows nothing, too.
    #[must_use]
    pub fn with_anonymous(mut self) -> Self {
        self.anonymous = true;
        self
    }
}

impl Agents {
    /// The agent whose token this is. Whether it is known is asked each time.
    async fn customer(&self, token: &str) -> Result<Customer, Refusal> {
        let token: AgentToken = token.parse().map_err(|_| Refusal::CredentialsRefused)?;
        let (name, shown) = (token.agent().clone(), token.credential());
        let journal = self.authorizer.journal().clone();
        let asked = tokio::task::spawn_blocking(move || journal.knows_agent(&name, &shown)).await;
        let known = asked.map_err(|_| Refusal::Unavailable)?.map_err(|error| unavailable(&error.into()))?;
        if !known {
            return Err(Refusal::CredentialsRefused);
        }
        if let Some(known) = open(&self.known).get(&shown) {
            return Ok(known.clone());
        }
        // What is signed for it is its own, within its budgets, and over once what it shows is revoked.
        let own = Arc::new(self.authorizer.journal().for_agent(token.agent().clone(), Some(shown)));
        let made = customer(token.agent().as_str(), &self.make, self.authorizer.over(own));
        let customer = made.map_err(|error| {
            tracing::error!(%error, "an agent's client could not be made");
            Refusal::Unavailable
        })?;
        let mut agents = open(&self.known);
        if agents.len() >= MAX_AGENTS {
            agents.clear();
        }
        agents.insert(shown, customer.clone());
        Ok(customer)
    }
}

fn customer(name: &str, make: &MakeClient, authorizer: LocalAuthorizer) -> Result<Customer, BuildError> {
    let wallet = Arc::new(authorizer);
    Ok(Customer { name: name.into(), client: Arc::new(make(wallet.clone())?), books: wallet })
}

/// What the books do not say. Why is the owner's to know.
pub(crate) fn unavailable(denied: &Denied) -> Refusal {
    tracing::warn!(error = %denied, "the wallet's books cannot be used");
    Refusal::Unavailable
}

/// The proxy's own token, as it is kept.
fn credential(token: &str) -> Credential {
    Credential(Sha256::digest(token).into())
}

#[async_trait]
impl Desk for Wallet {
    async fn admit(&self, who: &Credentials) -> Result<Customer, Refusal> {
        let Some(basic) = &who.basic else {
            let may = self.anonymous && who.peer.to_canonical().is_loopback();
            return if may { Ok(self.customer.clone()) } else { Err(Refusal::CredentialsRequired) };
        };
        // By hash, so that the time says nothing of how much was right.
        if bool::from(credential(&basic.token).0.ct_eq(&self.token.0)) {
            return Ok(self.customer.clone());
        }
        match &self.agents {
            Some(agents) => agents.customer(&basic.token).await,
            None => Err(Refusal::CredentialsRefused),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_basic_credential_is_read() {
        let peer = IpAddr::from([127, 0, 0, 1]);
        let check = |values: &[&str], expected: Result<Option<(&str, &str)>, Refusal>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::PROXY_AUTHORIZATION, value.parse().unwrap());
            }
            let read = Credentials::read(&headers, peer);
            let basic = read.as_ref().map(|who| who.basic.as_ref());
            let found = basic.map(|basic| basic.map(|basic| (&*basic.name, &**basic.token)));
            assert_eq!(found.map_err(|refusal| *refusal), expected, "{values:?}");
        };
        let wrong = Err(Refusal::CredentialsRefused);
        check(&[], Ok(None));
        check(&["Basic YWdlbnQ6YTpi"], Ok(Some(("agent", "a:b"))));
        check(&["basic YWdlbnQ6"], Ok(Some(("agent", ""))));
        check(&["Basic YWdlbnQ6YTpi", "Basic YWdlbnQ6YTpi"], wrong);
        check(&["Basic YWdlbnQ"], wrong);
        check(&["Basic YWdlbnQ="], wrong);
        check(&["Basic /////w=="], wrong);
        check(&["Bearer YWdlbnQ6YTpi"], wrong);
        check(&["Basic"], wrong);
    }
}
