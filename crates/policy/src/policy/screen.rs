//! A screener: somebody else's word on a payee, asked before a payment is signed. Whoever asks does so beforehand, and the
//! answer arrives with the request; nothing here waits for anybody.

use std::fmt;
use std::time::Duration;

use farthing_primitives::{Address, Money};

use crate::{AgentName, Dollars, Request};

/// How long an answer may take if a policy does not say.
pub const SCREEN_WITHIN: Duration = Duration::from_secs(2);
/// The longest that a policy may let it take.
pub const MAX_SCREEN_WITHIN: Duration = Duration::from_secs(10);
/// The longest reason that an answer may give, in characters.
pub const MAX_REASON_CHARS: usize = 200;

/// Who is asked, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screener {
    pub asks: Asks,
    pub within: Duration,
    /// How many people have to say yes to what the screener holds.
    pub quorum: u32,
}

/// How a screener is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Asks {
    /// A program, by its whole path, and its arguments.
    Command(Vec<String>),
    /// An address over https, or on this machine.
    Url(url::Url),
}

/// As decisions and replays name it.
impl fmt::Display for Asks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => write!(f, "command {}", words.join(" ")),
            Self::Url(url) => write!(f, "url {url}"),
        }
    }
}

/// What a screener is asked. An answer is good for exactly this, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub payee: Address,
    pub money: Money,
    pub dollars: Option<Dollars>,
    pub authority: String,
    pub agent: Option<AgentName>,
    pub payer: Option<Address>,
}

impl Question {
    pub fn of(request: &Request) -> Self {
        Self {
            payee: request.payee.clone(),
            money: request.charge.money().clone(),
            dollars: request.charge.dollars(),
            authority: request.origin.authority(),
            agent: request.caller.agent.clone(),
            payer: request.caller.payer.clone(),
        }
    }
}

/// What a screener said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Screening {
    Allow,
    Deny,
    /// People have to say yes.
    Hold,
    /// It said nothing that counts, which denies.
    Failed(ScreenFault),
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ScreenFault {
    #[error("it did not answer in time")]
    Timeout,
    #[error("it cannot be asked")]
    Unavailable,
    #[error("it failed: a program has to end with 0, and a server to answer with 2xx")]
    Failed,
    #[error("what it answered cannot be read")]
    Unreadable,
}

impl ScreenFault {
    /// A stable name for programs.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Timeout => "screen_timeout",
            Self::Unavailable => "screen_unavailable",
            Self::Failed => "screen_failed",
            Self::Unreadable => "screen_unreadable",
        }
    }
}

/// An answer, with what it answers and who gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Screened {
    pub asks: Asks,
    pub question: Question,
    pub said: Screening,
    pub reason: Option<String>,
}

impl Screened {
    /// Whether it answers `question`, asked of this screener.
    pub fn answers(&self, screener: &Screener, question: &Question) -> bool {
        self.asks == screener.asks && self.question == *question
    }
}
