use farthing_engine::Fees;

/// What a node says about fees, in wei for each unit of gas.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signs {
    /// Of the latest block, or of the next where the node tells.
    pub base_fee: u128,
    /// From `eth_maxPriorityFeePerGas`.
    pub suggested_tip: Option<u128>,
    /// The medians of recent blocks.
    pub recent_tips: Vec<u128>,
}

/// What to offer: room for the base fee to double (six full blocks in a row), and a tip within `floor` and `cap`.
///
/// Spec: EIP-1559: the base fee grows by at most an eighth each block.
pub(crate) fn offer(signs: &Signs, floor: u128, cap: u128) -> Fees {
    let tip = signs.suggested_tip.or_else(|| median(&signs.recent_tips)).unwrap_or(floor);
    // A cap below the floor wins: it bounds what is spent.
    let priority_fee = tip.max(floor).min(cap);
    let max_fee = signs.base_fee.saturating_mul(2).saturating_add(priority_fee);
    Fees { max_fee, priority_fee }
}

fn median(tips: &[u128]) -> Option<u128> {
    let mut sorted = tips.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tip_is_bounded_and_the_base_fee_may_double() {
        let check = |base_fee, suggested_tip, recent_tips: &[u128], max_fee, priority_fee| {
            let signs = Signs { base_fee, suggested_tip, recent_tips: recent_tips.to_vec() };
            assert_eq!(offer(&signs, 10, 100), Fees { max_fee, priority_fee }, "{signs:?}");
        };
        check(1000, Some(20), &[50], 2020, 20);
        check(1000, Some(0), &[], 2010, 10);
        check(1000, Some(5000), &[], 2100, 100);
        check(1000, None, &[90, 30, 40], 2040, 40);
        check(0, None, &[], 10, 10);
        check(u128::MAX, Some(50), &[], u128::MAX, 50);
        assert_eq!(offer(&Signs::default(), 10, 3).priority_fee, 3);
    }
}
