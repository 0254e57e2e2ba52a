//! Amounts in Cedar, whose numbers have 64 bits, and ours 128.

use std::collections::BTreeSet;

/// How amounts of one thing are counted, so that each compares with every amount that a policy names as it does here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scale {
    /// So many at a time, rounded up. Of whatever is named it is a divisor, so rounding changes no comparison.
    Units(u128),
    /// By place among the named ones, where they differ too much in size: nothing, up to the first, up to the second, …
    Places(Vec<u128>),
}

/// What is more than all that a policy can name, and what cannot be counted.
const BEYOND: i64 = i64::MAX;

impl Scale {
    /// For comparisons with these, in units of at most `unit`, a power of ten.
    pub fn new(named: &BTreeSet<u128>, unit: u128) -> Self {
        let divides = |unit: u128| named.iter().all(|one| one.checked_rem(unit) == Some(0));
        let most = named.last().copied().unwrap_or(0);
        let fits =
            |unit: u128| most.checked_div(unit).is_some_and(|most| most < u128::from(BEYOND.unsigned_abs()));
        let mut unit = unit;
        while unit > 1 && !divides(unit) {
            unit /= 10;
        }
        while !fits(unit) {
            match unit.checked_mul(10).filter(|more| divides(*more)) {
                Some(more) => unit = more,
                // With nothing as the first of them, so that more than nothing is told from it.
                None => {
                    return Self::Places(
                        named.iter().copied().chain([0]).collect::<BTreeSet<_>>().into_iter().collect(),
                    );
                }
            }
        }
        Self::Units(unit)
    }

    /// An amount; `None` is one that cannot be counted.
    pub fn number(&self, amount: Option<u128>) -> i64 {
        let Some(amount) = amount else { return BEYOND };
        match self {
            Self::Units(unit) => i64::try_from(amount.div_ceil(*unit)).unwrap_or(BEYOND),
            Self::Places(named) => {
                i64::try_from(named.partition_point(|one| *one < amount)).unwrap_or(BEYOND)
            }
        }
    }

    /// What amounts a number stands for: more than the first, and not more than the second.
    pub fn amounts(&self, number: i64) -> (u128, u128) {
        let number = u128::try_from(number).unwrap_or(0);
        match self {
            Self::Units(unit) => {
                (number.saturating_sub(1).saturating_mul(*unit), number.saturating_mul(*unit))
            }
            Self::Places(named) => {
                let place = usize::try_from(number).unwrap_or(usize::MAX);
                let at = |place: usize| named.get(place).copied();
                let below =
                    place.checked_sub(1).map_or(0, |below| at(below).or(named.last().copied()).unwrap_or(0));
                (below, at(place).unwrap_or(u128::MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Every amount compares with every named one as its number does with the other's.
        #[test]
        fn no_comparison_changes(
            named in proptest::collection::btree_set(prop_oneof![
                0u128..20, any::<u128>(), (0u128..1000).prop_map(|n| n * 1_000_000_000_000), Just(u128::MAX),
            ], 1..6),
            amounts in proptest::collection::vec(prop_oneof![0u128..30, any::<u128>(), (0u128..1000).prop_map(|n| n * 1_000_000_000_000 + 1)], 1..20),
            unit in proptest::sample::select(vec![1, 1_000_000_000_000]),
        ) {
            let scale = Scale::new(&named, unit);
            let around = named.iter().flat_map(|n| [n.saturating_sub(1), *n, n.saturating_add(1)]);
            for amount in amounts.into_iter().chain(around.collect::<Vec<_>>()) {
                let number = scale.number(Some(amount));
                prop_assert_eq!(amount == 0, number == 0);
                for one in &named {
                    prop_assert_eq!(amount <= *one, number <= scale.number(Some(*one)), "{} {}", amount, one);
                }
                let (over, most) = scale.amounts(number);
                prop_assert!(amount == 0 || number == BEYOND || (over < amount && amount <= most), "{} {} {}", over, amount, most);
            }
            for one in &named {
                prop_assert!(scale.number(None) > scale.number(Some(*one)));
            }
        }
    }
}
