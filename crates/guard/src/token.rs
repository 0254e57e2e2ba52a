use std::fmt;
use std::str::FromStr;

use farthing_policy::AgentName;
use farthing_wallet::journal::agents::Credential;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Keeps hashes of tokens apart from any other.
const CONTEXT: &[u8] = b"farthing agent token v1";

/// What an agent shows to be known, `NAME:SECRET`: its own name, and 256 bits that nobody guesses, in hexadecimal.
#[derive(Clone)]
pub struct Token {
    agent: AgentName,
    secret: Zeroizing<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("a token is the name of an agent, a colon and 64 hexadecimal digits")]
    Malformed,
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl Token {
    /// Makes a new one.
    pub fn random(agent: AgentName) -> Result<Self, TokenError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut secret[..]).map_err(|_| TokenError::NoRandomness)?;
        Ok(Self { agent, secret })
    }

    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// What is kept of it. It cannot be turned back, having more to guess than anybody can.
    pub fn credential(&self) -> Credential {
        let mut hash = Sha256::new();
        hash.update(CONTEXT);
        hash.update(self.agent.as_str().as_bytes());
        hash.update([0]);
        hash.update(&self.secret[..]);
        Credential(hash.finalize().into())
    }

    /// The token itself, for the one who is to have it.
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}:{}", self.agent, hex::encode(&self.secret[..])))
    }
}

impl FromStr for Token {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let (agent, digits) = text.trim().split_once(':').ok_or(TokenError::Malformed)?;
        let mut secret = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(digits, &mut secret[..]).map_err(|_| TokenError::Malformed)?;
        Ok(Self { agent: agent.parse().map_err(|_| TokenError::Malformed)?, secret })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of {}", self.agent)
    }
}
