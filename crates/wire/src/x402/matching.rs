use super::v2::PaymentRequirements;

/// In which member the offer that a client says it takes differs from the one we make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not what was offered")]
pub struct Mismatch {
    pub field: &'static str,
}

/// Whether `accepted` is `ours`: all the same outside `extra`, and in `extra` at least what we wrote.
///
/// The order of keys does not matter; the case of an address does. Members that we did not write are a mismatch
/// outside `extra`, and welcome in it.
///
/// Spec: x402 v2 section 5.2.2, as the published server package compares.
pub fn requirements_match(
    ours: &PaymentRequirements,
    accepted: &PaymentRequirements,
) -> Result<(), Mismatch> {
    let check = |same: bool, field| if same { Ok(()) } else { Err(Mismatch { field }) };
    check(ours.scheme == accepted.scheme, "scheme")?;
    check(ours.network == accepted.network, "network")?;
    check(ours.amount == accepted.amount, "amount")?;
    check(ours.asset == accepted.asset, "asset")?;
    check(ours.pay_to == accepted.pay_to, "payTo")?;
    check(ours.max_timeout_seconds == accepted.max_timeout_seconds, "maxTimeoutSeconds")?;
    check(ours.other == accepted.other, "other")?;
    match (&ours.extra, &accepted.extra) {
        (None, _) => Ok(()),
        (Some(ours), Some(theirs)) => check(ours.is_subset_of(theirs), "extra"),
        // Nothing is in an empty `extra` that an absent one lacks, but the published server tells them apart.
        (Some(_), None) => check(false, "extra"),
    }
}
