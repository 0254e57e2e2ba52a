use farthing_engine::{ExposureLimit, StoreError};
use farthing_payment::{Payment, State};
use farthing_primitives::{PaymentId, Timestamp};

/// The most payments or slots that one listing returns.
pub const MAX_LISTED: usize = 1000;

/// How many changes may wait for the writer before the next one is told [`StoreError::Busy`].
pub const QUEUE_LEN: usize = 8192;

/// How many stored answers one commit erases, so that erasing never holds up payments for long.
pub(crate) const ERASE_BATCH: u32 = 64;

/// How many refused payments one commit forgets.
pub(crate) const PRUNE_BATCH: u32 = 64;

/// How many such commits one call makes at most; the next call goes on.
pub(crate) const PRUNE_BATCHES: u32 = 64;

/// A limit of zero asks for nothing in particular, and has the cap.
pub(crate) fn capped(limit: usize) -> usize {
    if limit == 0 { MAX_LISTED } else { limit.min(MAX_LISTED) }
}

/// The same as a number of SQL's.
pub(crate) fn capped_rows(limit: usize) -> i64 {
    i64::try_from(capped(limit)).unwrap_or(i64::MAX)
}

/// Whether what would be owed then is more than the payee allows. A sum that does not fit is more; a limit of
/// zero allows nothing at all, not even a payment of zero.
pub(crate) fn over_exposed(limit: &ExposureLimit, of_payer: Option<u128>, of_all: Option<u128>) -> bool {
    let over = |sum: Option<u128>, limit: u128| limit == 0 || sum.is_none_or(|sum| sum > limit);
    over(of_payer, limit.per_payer) || over(of_all, limit.total)
}

/// Whether a stored answer of a payment in this state is only kept for replays, and expires.
pub(crate) fn answer_expires(state: &State) -> bool {
    matches!(
        state,
        State::Settled { .. } | State::Refused { .. } | State::Failed { .. } | State::Refunded { .. }
    )
}

/// From when nothing depends on a payment that was refused: where it holds its consumption key, as long as the
/// authorization can be used; else from its refusal on. `None` for all others.
pub(crate) fn forget_from(payment: &Payment) -> Option<Timestamp> {
    let refused = matches!(payment.state, State::Refused { .. });
    let dead = if payment.releases_claim() { payment.updated } else { payment.terms.expires };
    refused.then(|| payment.updated.max(dead))
}

/// When an id was made: it begins with that moment.
pub(crate) fn made_at(id: PaymentId) -> Timestamp {
    let [a, b, c, d, e, f, ..] = id.to_bytes();
    Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
}

pub(crate) fn sum_too_large() -> StoreError {
    StoreError::Books("what is owed does not fit 128 bits".to_owned())
}
