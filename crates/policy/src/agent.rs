use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of a machine that spends, as its owner gave it: `buyer`, or a place in a tree, `acme/research/buyer`.
///
/// It is compared byte for byte, so it has one spelling: lower case, plain letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AgentName(Arc<str>);

/// How deep the tree of agents may be.
pub const MAX_AGENT_LEVELS: usize = 8;

/// The longest name at one level, in characters.
pub const MAX_AGENT_LEVEL_LEN: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentNameError {
    #[error(
        "{0:?} is not the name of an agent: at each level a lower-case letter or a digit, then more of those and \
         \".\", \"_\", \"-\", at most {MAX_AGENT_LEVEL_LEN} in all"
    )]
    Malformed(String),
    #[error("the name of an agent has more than {MAX_AGENT_LEVELS} levels")]
    TooDeep,
}

impl AgentName {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The agent that this one is part of; `None` for one at the top.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.into()))
    }

    /// This agent and all that it is part of, itself first and the one at the top last.
    pub fn lineage(&self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self.clone()), Self::parent)
    }

    /// Whether this agent is `other`, or part of it.
    pub fn is_within(&self, other: &Self) -> bool {
        let rest = self.0.strip_prefix(other.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for AgentName {
    type Err = AgentNameError;

    fn from_str(text: &str) -> Result<Self, AgentNameError> {
        // What is refused is echoed cut short: it may be a stranger's.
        let malformed = || AgentNameError::Malformed(text.chars().take(MAX_AGENT_LEVEL_LEN).collect());
        for (level, name) in text.split('/').enumerate() {
            if level >= MAX_AGENT_LEVELS {
                return Err(AgentNameError::TooDeep);
            }
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            let rest = |b: u8| plain(b) || matches!(b, b'.' | b'_' | b'-');
            if name.len() > MAX_AGENT_LEVEL_LEN
                || !name.bytes().next().is_some_and(plain)
                || !name.bytes().all(rest)
            {
                return Err(malformed());
            }
        }
        Ok(Self(text.into()))
    }
}

/// So that a budget is found by a part of a name.
impl Borrow<str> for AgentName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AgentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AgentName {
        text.parse().unwrap()
    }

    #[test]
    fn a_name_has_one_spelling() {
        let longest = "a".repeat(MAX_AGENT_LEVEL_LEN);
        let deepest = [longest.as_str(); MAX_AGENT_LEVELS].join("/");
        for good in ["a", "0", "buyer-1", "a.b_c-d", "acme/research/buyer", &longest, &deepest] {
            assert_eq!(name(good).to_string(), good);
        }
        let too_long = format!("{longest}a");
        for bad in [
            "", "/", "a/", "/a", "a//b", "A", "ä", "-a", ".a", "_a", "..", "a/..", "a/-b", "a b", "a\n", "*",
            &too_long,
        ] {
            assert!(matches!(bad.parse::<AgentName>(), Err(AgentNameError::Malformed(_))), "{bad:?}");
        }
        assert_eq!(format!("{deepest}/a").parse::<AgentName>(), Err(AgentNameError::TooDeep));
    }

    #[test]
    fn a_tree_is_read_from_its_names() {
        let leaf = name("acme/research/buyer");
        let line: Vec<_> = leaf.lineage().map(|name| name.to_string()).collect();
        assert_eq!(line, ["acme/research/buyer", "acme/research", "acme"]);
        assert_eq!(name("acme").parent(), None);
        for (inner, outer, is_within) in [
            ("acme/research", "acme", true),
            ("acme", "acme", true),
            ("acme2", "acme", false),
            ("acme", "acme/research", false),
            ("acme/research2", "acme/research", false),
        ] {
            assert_eq!(name(inner).is_within(&name(outer)), is_within, "{inner} in {outer}");
        }
    }
}
