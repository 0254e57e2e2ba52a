//! The engine's own reasons. Codes of a protocol come from its rail.

use farthing_payment::{Fault, Reason};

pub(crate) const INTERRUPTED: &str = "interrupted";

/// We were cut off in the middle, and what we had begun is not known to have ended.
pub(crate) fn interrupted() -> Reason {
    Reason::new(INTERRUPTED, Fault::Us)
}

/// The authorization expired before it could be settled.
pub(crate) fn expired() -> Reason {
    Reason::new("authorization_expired", Fault::Us)
}

pub(crate) const ALREADY_CREDITED: &str = "transfer_already_credited";

/// The one transfer that was seen has paid for something else.
pub(crate) fn already_credited() -> Reason {
    Reason::new(ALREADY_CREDITED, Fault::Payer)
}
