//! Numbers that the owner sets, and that limits of the policy in force may follow.

use std::collections::BTreeMap;

use farthing_policy::policy::{Index, IndexValue};
use farthing_policy::{Bucket, Clock, Dollars, Law};
use farthing_primitives::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Journal, JournalError, Tx, audit, get, put};

/// What names a value among the settings.
const INDEX: &str = "index:";

/// Why an index was not set. Its value is what it was.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the policy in force has no index {0:?}: add it under indexes, and apply the policy")]
    Unknown(String),
    #[error("the index {name} may be from {least} to {most}, as the policy in force says")]
    OutOfBounds { name: String, least: String, most: String },
    #[error("only the owner sets an index")]
    NotOwner,
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// An index of the policy in force, and what it was set to, if it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownIndex {
    pub name: String,
    pub index: Index,
    pub value: Option<IndexValue>,
    /// It counts now: it is set, within its bounds, and not too old.
    pub counts: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueRecord {
    /// `dollar`, or an asset by CAIP-19.
    of: String,
    /// In the unit of that, as digits.
    value: String,
    set_ms: u64,
}

impl Journal {
    /// Sets an index of the policy in force, for everybody who uses this wallet, from the next decision on.
    ///
    /// `value` is in atoms of what the index is of, or in [`Dollars`].
    ///
    /// # Errors
    /// [`IndexError`]; nothing changes. A value that the policy does not let it be takes another policy.
    pub fn set_index(&self, name: &str, value: u128, clock: &Clock) -> Result<IndexValue, IndexError> {
        // An agent that sets what it is limited by is not limited.
        if self.agent().is_some() {
            return Err(IndexError::NotOwner);
        }
        self.within(|tx| {
            let index = match self.law_now(tx)? {
                Law::Policy { policy, .. } => policy.indexes.get(name).cloned(),
                Law::Rules(_) => None,
            };
            let Some(index) = index else { return Ok(Err(IndexError::Unknown(name.to_owned()))) };
            if !index.permits(&index.bucket, value) {
                let [least, most] = [index.least, index.most].map(|n| shown(&index.bucket, n));
                return Ok(Err(IndexError::OutOfBounds { name: name.to_owned(), least, most }));
            }
            let now = super::advance(tx, clock)?;
            let known = IndexValue { bucket: index.bucket, value, set: now };
            let record = ValueRecord {
                of: known.bucket.to_string(),
                value: value.to_string(),
                set_ms: known.set.millis(),
            };
            audit::setting_changed(tx, "index", &format!("{name} {value} {}", known.bucket))?;
            // INVARIANT: texts and a number always serialize.
            put(tx, &format!("{INDEX}{name}"), &serde_json::to_string(&record).unwrap_or_default())?;
            Ok(Ok(known))
        })?
    }

    /// The indexes of the policy in force.
    pub fn indexes(&self, clock: &Clock) -> Result<Vec<KnownIndex>, JournalError> {
        self.within(|tx| {
            let now = super::believed(tx, clock)?.time;
            let law = self.law_now(tx)?;
            let mut values = known(tx, &law)?;
            let Law::Policy { policy, .. } = law else { return Ok(Vec::new()) };
            let each = policy.indexes.iter().map(|(name, index)| {
                let value = values.remove(name);
                let counts = value.as_ref().is_some_and(|value| index.counts(value, now));
                KnownIndex { name: name.clone(), index: index.clone(), value, counts }
            });
            Ok(each.collect())
        })
    }
}

/// What the indexes of a law are set to.
pub(super) fn known(tx: &Tx, law: &Law) -> Result<BTreeMap<String, IndexValue>, JournalError> {
    let mut values = BTreeMap::new();
    let Law::Policy { policy, .. } = law else { return Ok(values) };
    for (name, index) in &policy.indexes {
        let Some(text) = get(tx, &format!("{INDEX}{name}"))? else { continue };
        let value = read(&text, index).ok_or(JournalError::Corrupt("index"))?;
        values.insert(name.clone(), value);
    }
    Ok(values)
}

fn read(text: &str, index: &Index) -> Option<IndexValue> {
    let record: ValueRecord = serde_json::from_str(text).ok()?;
    let bucket = match record.of.as_str() {
        of if of == index.bucket.to_string() => index.bucket.clone(),
        "dollar" => Bucket::Dollar,
        of => Bucket::Asset(of.parse().ok()?),
    };
    let value = record.value.parse().ok()?;
    Some(IndexValue { bucket, value, set: Timestamp::from_millis(record.set_ms) })
}

/// For a person.
fn shown(bucket: &Bucket, n: u128) -> String {
    match bucket {
        Bucket::Dollar => Dollars(n).to_string(),
        Bucket::Asset(id) => format!("{n} atoms of {id}"),
    }
}

#[cfg(test)]
mod tests;
