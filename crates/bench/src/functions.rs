//! Functions of the hot path beside what they cannot beat: libsecp256k1 itself, and a general-purpose JSON reader.
//!
//! A case and its peer are measured in turns of a few milliseconds, and a ratio is the middle of the ratios of
//! neighbouring turns: whatever else the machine does meets both alike.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farthing_evm::{Address, B256, recover};
use farthing_load::payers::{Generation, Payers, Run, Terms};
use farthing_primitives::{Network, Registry, Timestamp};
use farthing_rails::exact_evm::{Policy, Presented, Requirement, Tokens, check};
use farthing_rails::x402::{presented_v2, requirement_v2};
use farthing_wire::x402::Message;
use farthing_wire::x402::facilitator::PaymentRequest;
use secp256k1::ecdsa::{RecoverableSignature, RecoveryId};
use secp256k1::{Message as Digest, SECP256K1};
use serde::Serialize;

use crate::stats::median;

/// The wall clock of payments that no chain ever sees.
pub const NOW_SECS: u64 = 1_800_000_000;

/// Payments that are the same in every run.
pub const RUN: Run = Run { salt: 0, now_secs: NOW_SECS };

/// How many different payments the functions see in turn.
const DIFFERENT: usize = 1024;
const TURN: Duration = Duration::from_millis(5);

/// USDC on Base Sepolia, as the registry has it.
pub fn terms() -> Terms {
    let network = Network::eip155(84532);
    let found = Terms::listed(&Registry::builtin(), &network, None, Address::repeat_byte(0x5e), 1000);
    found.unwrap_or_else(|| unreachable!("the registry has USDC on Base Sepolia"))
}

/// The seed of all buyers here. Anybody can compute their keys.
pub const SEED: &str = "farthing-bench";

pub fn tokens() -> Tokens {
    Tokens::new(&Registry::builtin())
}

/// The same payments in every form in which a function takes them.
#[derive(Debug)]
pub struct Work {
    bodies: Vec<Bytes>,
    shown: Vec<(Requirement, Presented)>,
    signed: Vec<(B256, Bytes)>,
    parsed: Vec<(Digest, RecoverableSignature)>,
    tokens: Tokens,
    policy: Policy,
    now: Timestamp,
}

/// A function to measure: does the `i`th piece of work.
pub type Function = fn(&Work, usize);

/// Every function by name, and the function that it is compared with.
pub const FUNCTIONS: &[(&str, Function, &str)] = &[
    ("recover", |work, i| work.recover(i), "libsecp256k1"),
    ("check", |work, i| work.check(i), "libsecp256k1"),
    ("parse-check", |work, i| work.parse_and_check(i), "libsecp256k1"),
    ("parse", |work, i| work.parse(i), "serde_json"),
];

/// What is compared with.
pub const LIMITS: &[(&str, Function)] =
    &[("libsecp256k1", |work, i| work.libsecp256k1(i)), ("serde_json", |work, i| work.serde_json(i))];

impl Work {
    pub fn new() -> Self {
        let terms = terms();
        let tokens = tokens();
        let bodies = Payers::new(SEED, 0, DIFFERENT).requests(&terms, Generation::V2, RUN, DIFFERENT);
        let shown: Vec<_> = bodies.iter().map(|body| read(body, &tokens)).collect();
        let signed: Vec<_> = shown.iter().map(|(_, shown)| digest_and_signature(shown, &terms)).collect();
        let parsed = signed.iter().map(|(digest, signature)| for_libsecp256k1(*digest, signature)).collect();
        let now = Timestamp::from_secs(NOW_SECS);
        Self { bodies, shown, signed, parsed, tokens, policy: Policy::default(), now }
    }

    fn libsecp256k1(&self, i: usize) {
        let (digest, signature) = &self.parsed[i % DIFFERENT];
        must(SECP256K1.recover_ecdsa(*digest, signature));
    }

    fn recover(&self, i: usize) {
        let (digest, signature) = &self.signed[i % DIFFERENT];
        must(recover(*digest, signature));
    }

    fn check(&self, i: usize) {
        let (asked, shown) = &self.shown[i % DIFFERENT];
        must(check(asked, shown, self.now, &self.policy));
    }

    fn parse(&self, i: usize) {
        must(PaymentRequest::parse(&self.bodies[i % DIFFERENT]));
    }

    fn serde_json(&self, i: usize) {
        must(serde_json::from_slice::<serde_json::Value>(&self.bodies[i % DIFFERENT]));
    }

    /// From the bytes of `/verify` to a payment that only the chain can still refuse.
    fn parse_and_check(&self, i: usize) {
        let (asked, shown) = read(&self.bodies[i % DIFFERENT], &self.tokens);
        must(check(&asked, &shown, self.now, &self.policy));
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}

/// A measurement of something that fails would be worth nothing.
pub(crate) fn must<T, E: std::fmt::Debug>(result: Result<T, E>) -> T {
    black_box(result).unwrap_or_else(|error| unreachable!("what is measured works: {error:?}"))
}

pub(crate) fn read(body: &[u8], tokens: &Tokens) -> (Requirement, Presented) {
    let PaymentRequest::V2 { payload, requirements } = must(PaymentRequest::parse(body)) else {
        unreachable!("the bodies are of version 2")
    };
    let asked = must(requirement_v2(&requirements, tokens));
    let shown = must(presented_v2(&asked, &payload));
    (asked, shown)
}

fn digest_and_signature(shown: &Presented, terms: &Terms) -> (B256, Bytes) {
    let Presented::Eip3009 { authorization, signature } = shown else {
        unreachable!("the payments are authorizations")
    };
    (authorization.transfer_digest(&terms.domain()), Bytes::copy_from_slice(signature))
}

fn for_libsecp256k1(digest: B256, signature: &[u8]) -> (Digest, RecoverableSignature) {
    let id = if signature[64] == 28 { RecoveryId::One } else { RecoveryId::Zero };
    (Digest::from_digest(digest.0), must(RecoverableSignature::from_compact(&signature[..64], id)))
}

/// One function beside what it is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    pub name: &'static str,
    pub rate: f64,
    pub peer: &'static str,
    pub peer_rate: f64,
    /// Our rate in units of the peer's.
    pub ratio: f64,
}

/// Measures every function for about `each`, on one core.
pub fn compare(each: Duration) -> Vec<Compared> {
    let work = Arc::new(Work::new());
    let turns = (each.as_micros() / TURN.as_micros() / 2).max(3);
    let one = |name, function: Function, peer| {
        let limit = LIMITS.iter().find(|(known, _)| *known == peer);
        let (_, limit) = *limit.unwrap_or_else(|| unreachable!("{peer} is in the list"));
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let mut at = 0;
        for turn in 0..=turns {
            let (a, b) = (rate(&work, function, &mut at), rate(&work, limit, &mut at));
            // The first turn fills the caches.
            if turn > 0 {
                ours.push(a);
                theirs.push(b);
                ratios.push(a / b);
            }
        }
        Compared {
            name,
            rate: median(&mut ours),
            peer,
            peer_rate: median(&mut theirs),
            ratio: median(&mut ratios),
        }
    };
    FUNCTIONS.iter().map(|(name, function, peer)| one(*name, *function, peer)).collect()
}

fn rate(work: &Work, function: Function, at: &mut usize) -> f64 {
    let began = Instant::now();
    let mut done = 0u32;
    loop {
        for _ in 0..8 {
            function(work, *at);
            *at = at.wrapping_add(1);
        }
        done += 8;
        let took = began.elapsed();
        if took >= TURN {
            return f64::from(done) / took.as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_measured_works() {
        let work = Work::new();
        let functions = FUNCTIONS.iter().map(|(_, function, _)| function);
        for function in functions.chain(LIMITS.iter().map(|(_, function)| function)) {
            for i in 0..3 {
                function(&work, i);
            }
        }
    }
}
