use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// What a remote facilitator can be asked.
///
/// Spec: x402 v2 section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    /// `GET /supported`
    Supported,
    /// `POST /verify`
    Verify,
    /// `POST /settle`
    Settle,
}

impl Ask {
    /// What its path ends with.
    pub fn path(self) -> &'static str {
        match self {
            Self::Supported => "supported",
            Self::Verify => "verify",
            Self::Settle => "settle",
        }
    }
}

/// One question to a remote facilitator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacilitatorCall {
    pub ask: Ask,
    /// JSON; empty for [`Ask::Supported`], which is a GET.
    pub body: Bytes,
}

/// What came back, as it came: what it means is for the rail to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FacilitatorAnswer {
    pub status: u16,
    /// The whole body, never a part of it.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoAnswer {
    /// Nobody was reached: the question certainly never left. Only for what is certain.
    #[error("the facilitator was not reached")]
    NotSent,
    /// It left, or may have; and no whole answer came back in time.
    #[error("no whole answer came back")]
    Lost,
}

/// The longest answer of a facilitator that is read, in bytes.
pub const MAX_FACILITATOR_ANSWER: usize = 256 * 1024;

/// A way to one remote facilitator. It carries bytes, and judges nothing.
#[async_trait]
pub trait Facilitator: Send + Sync {
    /// Which one it is, the same after every restart: its URL. An attempt remembers whom it was given to by this.
    fn id(&self) -> &str;

    /// What logs call it. Holds no secret.
    fn name(&self) -> &str;

    /// Asks once: it follows no redirect, sends nothing a second time, and reads no more than
    /// [`MAX_FACILITATOR_ANSWER`] (a longer answer is [`NoAnswer::Lost`]).
    async fn ask(&self, call: FacilitatorCall, within: Duration) -> Result<FacilitatorAnswer, NoAnswer>;
}
