//! Buyers and their payments. Every buyer has a key of its own, derived from its number, so that a chain can be given
//! their balances beforehand; every payment has a nonce of its own and is used once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_evm::{Address, B256, Domain, Key, TransferAuthorization, U256, eip55};
use sha2::{Digest, Sha256};

/// How long a payment may be presented after it was signed: longer than any run.
pub const VALIDITY: Duration = Duration::from_secs(3600);

/// What is paid, to whom, in which token.
#[derive(Debug, Clone)]
pub struct Terms {
    pub chain_id: u64,
    pub token: Address,
    pub name: String,
    pub version: String,
    pub pay_to: Address,
    pub atoms: u128,
}

/// The generation of the protocol that a request speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    V1,
    V2,
}

/// Some buyers: number `first` and those after it.
#[derive(Debug)]
pub struct Payers {
    keys: Vec<Key>,
}

impl Payers {
    pub fn new(first: usize, count: usize) -> Self {
        Self { keys: in_parallel(count, |i| key(first + i)) }
    }

    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.keys.iter().map(Key::address)
    }

    /// `count` bodies for `/verify` or `/settle`, each with a payment that `salt` makes unlike that of any other run.
    /// The buyers take turns.
    pub fn requests(
        &self,
        terms: &Terms,
        generation: Generation,
        salt: u128,
        now_secs: u64,
        count: usize,
    ) -> Vec<Bytes> {
        let asked = terms.requirements(generation);
        let domain = terms.domain();
        in_parallel(count, |i| {
            let payload = self.payload(terms, &domain, salt, now_secs, i);
            let payment = match generation {
                Generation::V1 => format!(
                    r#"{{"x402Version":1,"scheme":"exact","network":"{}","payload":{payload}}}"#,
                    terms.network(generation)
                ),
                Generation::V2 => {
                    format!(
                        r#"{{"x402Version":2,"resource":{RESOURCE},"accepted":{asked},"payload":{payload}}}"#
                    )
                }
            };
            let version = generation.number();
            Bytes::from(format!(
                r#"{{"x402Version":{version},"paymentPayload":{payment},"paymentRequirements":{asked}}}"#
            ))
        })
    }

    /// `count` values of `PAYMENT-SIGNATURE` for one offer, which each repeats as the seller wrote it.
    pub fn headers(
        &self,
        terms: &Terms,
        offer: &str,
        resource: &str,
        salt: u128,
        now_secs: u64,
        count: usize,
    ) -> Vec<Bytes> {
        let domain = terms.domain();
        in_parallel(count, |i| {
            let payload = self.payload(terms, &domain, salt, now_secs, i);
            let payment = format!(
                r#"{{"x402Version":2,"resource":{resource},"accepted":{offer},"payload":{payload}}}"#
            );
            Bytes::from(STANDARD.encode(payment))
        })
    }

    fn payload(&self, terms: &Terms, domain: &Domain, salt: u128, now_secs: u64, i: usize) -> String {
        let key = &self.keys[i % self.keys.len()];
        let nonce = hash(&[b"nonce", &salt.to_be_bytes(), &i.to_be_bytes()]);
        let before = now_secs.saturating_add(VALIDITY.as_secs());
        let signed = TransferAuthorization {
            from: key.address(),
            to: terms.pay_to,
            value: U256::from(terms.atoms),
            valid_after: U256::ZERO,
            valid_before: U256::from(before),
            nonce: B256::new(nonce),
        };
        let signature = hex::encode(key.sign(signed.transfer_digest(domain)).to_bytes());
        format!(
            concat!(
                r#"{{"signature":"0x{}","authorization":{{"from":"{}","to":"{}","value":"{}","validAfter":"0","#,
                r#""validBefore":"{}","nonce":"0x{}"}}}}"#
            ),
            signature,
            eip55(key.address()),
            eip55(terms.pay_to),
            terms.atoms,
            before,
            hex::encode(nonce)
        )
    }
}

const RESOURCE: &str =
    r#"{"url":"http://127.0.0.1/weather","description":"The weather","mimeType":"application/json"}"#;

impl Generation {
    fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl Terms {
    pub fn domain(&self) -> Domain {
        Domain::new(&self.name, &self.version, self.chain_id, self.token)
    }

    fn network(&self, generation: Generation) -> String {
        match generation {
            // Only Base Sepolia is ever loaded, and v1 knows networks by their names.
            Generation::V1 => "base-sepolia".to_owned(),
            Generation::V2 => format!("eip155:{}", self.chain_id),
        }
    }

    fn requirements(&self, generation: Generation) -> String {
        let network = self.network(generation);
        let (asset, pay_to) = (eip55(self.token), eip55(self.pay_to));
        let timeout = VALIDITY.as_secs();
        let extra = format!(r#"{{"name":"{}","version":"{}"}}"#, self.name, self.version);
        let atoms = self.atoms;
        match generation {
            Generation::V1 => format!(
                concat!(
                    r#"{{"scheme":"exact","network":"{}","maxAmountRequired":"{}","resource":"http://127.0.0.1/weather","#,
                    r#""description":"The weather","mimeType":"application/json","payTo":"{}","maxTimeoutSeconds":{},"#,
                    r#""asset":"{}","extra":{}}}"#
                ),
                network, atoms, pay_to, timeout, asset, extra
            ),
            Generation::V2 => format!(
                concat!(
                    r#"{{"scheme":"exact","network":"{}","amount":"{}","asset":"{}","payTo":"{}","#,
                    r#""maxTimeoutSeconds":{},"extra":{}}}"#
                ),
                network, atoms, asset, pay_to, timeout, extra
            ),
        }
    }
}

/// The key of buyer number `i`. Anybody can compute it.
pub fn key(i: usize) -> Key {
    // A hash is above the order of the curve once in 2^128: then the next one is taken.
    (0u8..=u8::MAX)
        .find_map(|again| Key::from_bytes(hash(&[b"farthing-bench payer", &i.to_be_bytes(), &[again]])).ok())
        .unwrap_or_else(|| unreachable!("256 hashes in a row are no keys"))
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// `make(0)` to `make(count - 1)` in order, on every core.
fn in_parallel<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    let make = &make;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..count)
            .step_by(share)
            .map(|from| scope.spawn(move || (from..count.min(from + share)).map(make).collect::<Vec<_>>()))
            .collect();
        let join = |worker: std::thread::ScopedJoinHandle<'_, Vec<T>>| {
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        workers.into_iter().flat_map(join).collect()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use farthing_rails::exact_evm::{Policy, SignatureStatus, check};
    use farthing_rails::x402::{presented_v1, presented_v2, requirement_v1, requirement_v2};
    use farthing_wire::x402::Message;
    use farthing_wire::x402::facilitator::PaymentRequest;

    use super::*;
    use crate::functions::{NOW_SECS, terms, tokens};

    #[test]
    fn every_request_is_a_valid_payment_of_another_buyer() {
        let payers = Payers::new(7, 5);
        let now = farthing_primitives::Timestamp::from_secs(NOW_SECS);
        for generation in [Generation::V1, Generation::V2] {
            let mut keys = HashSet::new();
            let mut from = HashSet::new();
            for body in payers.requests(&terms(), generation, 1, NOW_SECS, 10) {
                let (asked, shown) = match PaymentRequest::parse(&body).unwrap() {
                    PaymentRequest::V1 { payload, requirements } => {
                        let asked = requirement_v1(&requirements, &tokens()).unwrap();
                        let shown = presented_v1(&asked, &payload).unwrap();
                        (asked, shown)
                    }
                    PaymentRequest::V2 { payload, requirements } => {
                        let asked = requirement_v2(&requirements, &tokens()).unwrap();
                        let shown = presented_v2(&asked, &payload).unwrap();
                        (asked, shown)
                    }
                };
                let checked = check(&asked, &shown, now, &Policy::default()).unwrap();
                assert_eq!(checked.signature_status(), SignatureStatus::Proven);
                from.insert(checked.payer());
                keys.insert(checked.key());
            }
            assert_eq!((from.len(), keys.len()), (5, 10));
        }
    }

    #[test]
    fn another_salt_makes_other_payments_of_the_same_buyers() {
        let payers = Payers::new(0, 3);
        let make = |salt| payers.requests(&terms(), Generation::V2, salt, NOW_SECS, 3);
        assert_eq!(make(1), make(1));
        assert!(make(1).iter().all(|body| !make(2).contains(body)));
    }
}
