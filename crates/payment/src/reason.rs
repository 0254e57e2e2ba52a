use std::fmt;
use std::sync::Arc;

/// Whose doing a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    Payer,
    Payee,
    Us,
    Chain,
}

/// Why a payment did not go on: a stable code that a peer may see, and whose fault it is.
///
/// Details stay in our log; the code is all that leaves the process.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reason {
    code: Arc<str>,
    fault: Fault,
}

impl Reason {
    /// The longest code that is kept, in bytes.
    pub const MAX_LEN: usize = 96;

    /// Codes are short lower-case words with underscores; anything else a peer sent is cut to that.
    pub fn new(code: &str, fault: Fault) -> Self {
        let clean: String = code
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || c == '_' { c.to_ascii_lowercase() } else { '_' })
            .take(Self::MAX_LEN)
            .collect();
        Self { code: clean.into(), fault }
    }

    pub fn code(&self) -> &str {
        &self.code
    }

    pub fn fault(&self) -> Fault {
        self.fault
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.code)
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:?})", self.code, self.fault)
    }
}
