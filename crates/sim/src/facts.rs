//! What really happened, as nobody inside the world knows it; and the first thing that was wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use farthing_evm::B256;
use farthing_primitives::PaymentId;

use crate::exec::{Exec, lock};

/// An authorization that a buyer signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub buyer: usize,
    pub intent: usize,
    pub path: &'static str,
    /// What it was signed for, where that is one thing.
    pub url: String,
    pub from: farthing_evm::Address,
    pub to: farthing_evm::Address,
    pub value: u128,
    pub expires_secs: u64,
    pub at: u64,
}

/// One call of the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Service {
    pub payment: PaymentId,
    pub at: u64,
    /// It answered with goods, whole.
    pub complete: bool,
}

#[derive(Debug, Default)]
pub struct Facts {
    pub signed: BTreeMap<B256, Signed>,
    pub services: Vec<Service>,
    /// The payments whose goods reached somebody: how often.
    pub received: BTreeMap<PaymentId, u64>,
    /// The payments that a seller wanted to send back.
    pub refunds: BTreeSet<PaymentId>,
    pub restarts: u64,
    pub faults: u64,
    pub channels: crate::channels::Facts,
}

/// Facts, the timeline, and the first violation.
pub struct Ledger {
    exec: Exec,
    pub facts: Mutex<Facts>,
    timeline: Mutex<Vec<(u64, String)>>,
    broken: Mutex<Option<(u64, String)>>,
    record: bool,
    hash: Mutex<u64>,
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Ledger")
    }
}

impl Ledger {
    pub fn new(exec: Exec, record: bool) -> Self {
        Self {
            exec,
            facts: Mutex::default(),
            timeline: Mutex::default(),
            broken: Mutex::default(),
            record,
            hash: Mutex::new(0xcbf2_9ce4_8422_2325),
        }
    }

    /// Adds a line to the timeline. Two runs of one seed say the same, or something is not deterministic.
    pub fn note(&self, text: impl FnOnce() -> String) {
        let text = text();
        let at = self.exec.micros();
        {
            let mut hash = lock(&self.hash);
            for byte in text.bytes().chain(at.to_le_bytes()) {
                *hash = (*hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        if self.record {
            lock(&self.timeline).push((at, text));
        }
    }

    /// A checker found something wrong. The first one counts.
    pub fn broken(&self, what: String) {
        self.note(|| format!("VIOLATION {what}"));
        let at = self.exec.micros();
        lock(&self.broken).get_or_insert((at, what));
    }

    pub fn violation(&self) -> Option<(u64, String)> {
        lock(&self.broken).clone()
    }

    pub fn timeline(&self) -> Vec<(u64, String)> {
        lock(&self.timeline).clone()
    }

    pub fn fingerprint(&self) -> u64 {
        *lock(&self.hash)
    }
}
