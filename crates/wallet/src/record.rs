//! How rules and clock marks are stored: versioned records of their own, apart from the types that decide.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use farthing_policy::{Breaker, Bucket, Caps, HostRule, Mark, Rules, Steady};
use farthing_primitives::{RequestHash, Timestamp};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RulesRecord {
    version: u32,
    frozen: bool,
    schemes: BTreeSet<String>,
    networks: BTreeSet<String>,
    /// Amounts are texts: JSON numbers lose digits in careless readers.
    caps: BTreeMap<String, CapsRecord>,
    hosts: Vec<HostRecord>,
    max_validity_secs: u64,
    breaker: Option<BreakerRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CapsRecord {
    per_payment: String,
    hour: String,
    day: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HostRecord {
    pattern: String,
    private: bool,
    plaintext: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BreakerRecord {
    refusals: u32,
    within_secs: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MarkRecord {
    time_ms: u64,
    boot: Option<String>,
    elapsed_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallRecord {
    version: u32,
    request: String,
    at_ms: u64,
}

const VERSION: u32 = 1;

pub(crate) fn print_rules(rules: &Rules) -> String {
    let caps = rules.caps.iter().map(|(bucket, caps)| {
        let text = |n: u128| n.to_string();
        let record =
            CapsRecord { per_payment: text(caps.per_payment), hour: text(caps.hour), day: text(caps.day) };
        (bucket.to_string(), record)
    });
    let record = RulesRecord {
        version: VERSION,
        frozen: rules.frozen,
        schemes: rules.schemes.clone(),
        networks: rules.networks.iter().map(ToString::to_string).collect(),
        caps: caps.collect(),
        hosts: rules
            .hosts
            .iter()
            .map(|rule| HostRecord {
                pattern: rule.pattern.to_string(),
                private: rule.private,
                plaintext: rule.plaintext,
            })
            .collect(),
        max_validity_secs: rules.max_validity.as_secs(),
        breaker: rules
            .breaker
            .map(|b| BreakerRecord { refusals: b.refusals, within_secs: b.within.as_secs() }),
    };
    // INVARIANT: a struct of texts and numbers always serializes; were it not so, the text would not read back and
    // every payment would be denied.
    serde_json::to_string(&record).unwrap_or_default()
}

/// `None` if the text is not exactly what we write: unreadable rules allow nothing.
pub(crate) fn read_rules(text: &str) -> Option<Rules> {
    let record: RulesRecord =
        serde_json::from_str(text).ok().filter(|r: &RulesRecord| r.version == VERSION)?;
    let mut caps = BTreeMap::new();
    for (bucket, record) in record.caps {
        let bucket = if bucket == "dollar" { Bucket::Dollar } else { Bucket::Asset(bucket.parse().ok()?) };
        let atoms = |text: &str| farthing_primitives::parse_atoms(text).ok();
        let record = Caps {
            per_payment: atoms(&record.per_payment)?,
            hour: atoms(&record.hour)?,
            day: atoms(&record.day)?,
        };
        caps.insert(bucket, record);
    }
    let mut hosts = Vec::new();
    for host in record.hosts {
        let pattern = host.pattern.parse().ok()?;
        hosts.push(HostRule { pattern, private: host.private, plaintext: host.plaintext });
    }
    Some(Rules {
        frozen: record.frozen,
        schemes: record.schemes,
        networks: record.networks.iter().map(|n| n.parse().ok()).collect::<Option<_>>()?,
        caps,
        hosts,
        max_validity: Duration::from_secs(record.max_validity_secs),
        breaker: record
            .breaker
            .map(|b| Breaker { refusals: b.refusals, within: Duration::from_secs(b.within_secs) }),
    })
}

pub(crate) fn print_mark(mark: &Mark) -> String {
    let record = MarkRecord {
        time_ms: mark.time.millis(),
        boot: mark.steady.as_ref().map(|steady| steady.boot.clone()),
        elapsed_ms: mark
            .steady
            .as_ref()
            .map(|steady| u64::try_from(steady.elapsed.as_millis()).unwrap_or(u64::MAX)),
    };
    serde_json::to_string(&record).unwrap_or_default()
}

pub(crate) fn read_mark(text: &str) -> Option<Mark> {
    let record: MarkRecord = serde_json::from_str(text).ok()?;
    let steady = record
        .boot
        .zip(record.elapsed_ms)
        .map(|(boot, elapsed)| Steady { boot, elapsed: Duration::from_millis(elapsed) });
    Some(Mark { time: Timestamp::from_millis(record.time_ms), steady })
}

/// The request that a caller's name is bound to, and since when.
pub(crate) fn print_call(request: &RequestHash, at: Timestamp) -> String {
    let record = CallRecord { version: VERSION, request: hex::encode(request.0), at_ms: at.millis() };
    serde_json::to_string(&record).unwrap_or_default()
}

pub(crate) fn read_call(text: &str) -> Option<(RequestHash, Timestamp)> {
    let record: CallRecord = serde_json::from_str(text).ok().filter(|r: &CallRecord| r.version == VERSION)?;
    let mut hash = [0u8; 32];
    hex::decode_to_slice(&record.request, &mut hash).ok()?;
    Some((RequestHash(hash), Timestamp::from_millis(record.at_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use farthing_primitives::Network;

    #[test]
    fn rules_read_back_as_they_were() {
        let mut rules = Rules::tight([Network::eip155(84532)]);
        rules.hosts.push(HostRule::new("127.0.0.1:4021".parse().unwrap()));
        rules.hosts.push(HostRule::new("*".parse().unwrap()));
        let euro = "eip155:8453/erc20:0x60a3e35cc302bfa44cb288bc5a4f316fdb1adb42".parse().unwrap();
        rules.caps.insert(Bucket::Asset(euro), Caps { per_payment: u128::MAX, hour: 2, day: 3 });
        let text = print_rules(&rules);
        assert_eq!(read_rules(&text), Some(rules));
        assert_eq!(read_rules(""), None);
        assert_eq!(read_rules(&text.replace("\"version\":1", "\"version\":2")), None);
        assert_eq!(read_rules(&text.replace("\"frozen\"", "\"frozzen\"")), None);
    }
}
