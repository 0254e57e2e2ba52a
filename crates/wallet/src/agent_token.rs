use std::fmt;
use std::str::FromStr;

use farthing_policy::AgentName;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::journal::agents::Credential;

/// Keeps hashes of tokens apart from any other.
const CONTEXT: &[u8] = b"farthing agent token v1";

/// What an agent shows to be known, `NAME:SECRET`: its own name, and 256 bits that nobody guesses, in hexadecimal.
#[derive(Clone)]
pub struct AgentToken {
    agent: AgentName,
    secret: Zeroizing<[u8; 32]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AgentTokenError {
    #[error("a token is the name of an agent, a colon and 64 hexadecimal digits")]
    Malformed,
    #[error("the operating system gives no random bytes")]
    NoRandomness,
}

impl AgentToken {
    /// Makes a new one.
    pub fn random(agent: AgentName) -> Result<Self, AgentTokenError> {
        let mut secret = Zeroizing::new([0u8; 32]);
        getrandom::fill(&mut secret[..]).map_err(|_| AgentTokenError::NoRandomness)?;
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

impl FromStr for AgentToken {
    type Err = AgentTokenError;

    fn from_str(text: &str) -> Result<Self, AgentTokenError> {
        let (agent, digits) = text.trim().split_once(':').ok_or(AgentTokenError::Malformed)?;
        let mut secret = Zeroizing::new([0u8; 32]);
        hex::decode_to_slice(digits, &mut secret[..]).map_err(|_| AgentTokenError::Malformed)?;
        Ok(Self { agent: agent.parse().map_err(|_| AgentTokenError::Malformed)?, secret })
    }
}

impl fmt::Debug for AgentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AgentToken of {}", self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_is_kept_as_a_hash_of_its_own_agent() {
        let token = AgentToken::random("acme/buyer".parse().unwrap()).unwrap();
        let text = token.reveal();
        let read: AgentToken = text.parse().unwrap();
        assert_eq!(read.credential(), token.credential());
        assert_eq!(text.len(), "acme/buyer:".len() + 64);
        let stolen: AgentToken = text.replace("acme/buyer", "acme/boss").parse().unwrap();
        assert_ne!(stolen.credential(), token.credential());
        assert!(!format!("{token:?}{:?}", token.credential()).contains(&text["acme/buyer:".len()..]));
        for wrong in ["", "a", "a:", ":00", "A:00", "a:zz", "a:00"] {
            assert_eq!(wrong.parse::<AgentToken>().unwrap_err(), AgentTokenError::Malformed);
        }
        assert_ne!(AgentToken::random("a".parse().unwrap()).unwrap().credential(), Credential([0; 32]));
    }
}
