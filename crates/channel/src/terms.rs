use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use farthing_payment::{Instruction, TxRef};
use farthing_primitives::{Address, AssetId, AttemptId, Timestamp};

/// A channel, as its escrow names it. Prints as `0x` and 64 lower-case hex digits, which is its only spelling.
///
/// Spec: draft-evm-session-00, "Hexadecimal Values".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelId(pub [u8; 32]);

/// Why a text is not a channel's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a channel id: 0x and 64 lower-case hex digits are expected")]
pub struct NotAChannelId;

impl FromStr for ChannelId {
    type Err = NotAChannelId;

    fn from_str(text: &str) -> Result<Self, NotAChannelId> {
        let digits = text.strip_prefix("0x").ok_or(NotAChannelId)?.as_bytes();
        if digits.len() != 64 || digits.iter().any(u8::is_ascii_uppercase) {
            return Err(NotAChannelId);
        }
        let mut bytes = [0u8; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |d: u8| char::from(d).to_digit(16).and_then(|n| u8::try_from(n).ok());
            *byte =
                digit(pair[0]).zip(digit(pair[1])).map(|(high, low)| high << 4 | low).ok_or(NotAChannelId)?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How much of a voucher an escrow pays out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capture {
    /// What was signed, and nothing else: EVM sessions.
    ///
    /// Spec: draft-evm-session-00, `close` and `settle` take the amount that the signature covers.
    Signed,
    /// Any amount up to it, as the payee says: x402 batch settlement, and Tempo's `captureAmount`.
    UpTo,
}

/// What both sides agree on when a channel is opened. It never changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub id: ChannelId,
    pub payer: Address,
    pub payee: Address,
    /// Whose signature a voucher needs: the payer's own, or that of a key that it authorized.
    pub signer: Address,
    pub asset: AssetId,
    pub escrow: Address,
    /// How long the payee has to answer once the payer asks the escrow to close.
    pub grace: Duration,
    pub capture: Capture,
    /// What the rail needs to act on the channel, also after a restart: its salt, its descriptor.
    pub instruction: Instruction,
}

/// What the escrow says of the channel, read in one call at one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct View {
    pub block: u64,
    pub deposit: u128,
    /// All that the payee ever took.
    pub settled: u128,
    /// When the payer asked the escrow to close; `None` if it did not, or took that back by a top-up.
    pub close_requested: Option<Timestamp>,
    pub finalized: bool,
}

/// A transaction of ours on its way, durable before anybody else sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt<A> {
    pub id: AttemptId,
    pub action: A,
    pub since: Timestamp,
    /// `None` until it has a name.
    pub tx: Option<TxRef>,
}

impl View {
    /// Whether an escrow that keeps its promises can say this.
    pub fn is_sound(&self) -> bool {
        self.settled <= self.deposit
    }
}
