use crate::Tag;

/// When a settlement counts: the seller's choice between waiting and the risk of a reorganization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finality {
    /// In a block with this many blocks from there to the tip, itself included. One is: in a block.
    Blocks(u64),
    /// In a block that the chain calls safe.
    Safe,
    /// In a block that the chain calls final.
    Finalized,
}

impl Finality {
    /// The block that must have reached the settlement's, where the chain names one.
    pub(crate) fn tag(self) -> Option<Tag> {
        match self {
            Self::Blocks(_) => None,
            Self::Safe => Some(Tag::Safe),
            Self::Finalized => Some(Tag::Finalized),
        }
    }
}

/// As it is written in a configuration: a count of blocks, `safe` or `finalized`.
impl std::fmt::Display for Finality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Blocks(blocks) => write!(f, "{blocks}"),
            Self::Safe => f.write_str("safe"),
            Self::Finalized => f.write_str("finalized"),
        }
    }
}

/// How deep a settlement must be before it counts, by amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Depths {
    /// For amounts that no step covers.
    pub most: Finality,
    /// (up to this many atoms, this depth), ascending.
    pub steps: Vec<(u128, Finality)>,
}

impl Default for Depths {
    fn default() -> Self {
        Self { most: Finality::Blocks(1), steps: Vec::new() }
    }
}

impl Depths {
    /// The same for every amount.
    pub fn blocks(blocks: u64) -> Self {
        Self { most: Finality::Blocks(blocks), steps: Vec::new() }
    }

    /// How deep a settlement of `atoms` must be.
    pub fn of(&self, atoms: u128) -> Finality {
        let step = self.steps.iter().find(|(up_to, _)| atoms <= *up_to);
        match step.map_or(self.most, |(_, depth)| *depth) {
            // What is in no block is not settled.
            Finality::Blocks(blocks) => Finality::Blocks(blocks.max(1)),
            named => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_step_that_covers_an_amount_decides() {
        let depths = Depths {
            most: Finality::Finalized,
            steps: vec![
                (100, Finality::Blocks(0)),
                (1000, Finality::Blocks(5)),
                (u128::from(u64::MAX), Finality::Safe),
            ],
        };
        let check = |atoms, expected| assert_eq!(depths.of(atoms), expected, "{atoms}");
        check(0, Finality::Blocks(1));
        check(100, Finality::Blocks(1));
        check(101, Finality::Blocks(5));
        check(1000, Finality::Blocks(5));
        check(1001, Finality::Safe);
        check(u128::MAX, Finality::Finalized);
    }
}
