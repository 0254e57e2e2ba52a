//! Buyers and their payments. Every buyer has a key of its own, derived from a seed and its number, so that a chain can
//! be given their balances beforehand; every payment has a nonce of its own and is used once.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_evm::{Address, B256, Domain, Key, TransferAuthorization, U256, eip55, to_alloy};
use farthing_primitives::{Asset, Network, Registry};
use sha2::{Digest, Sha256};

use crate::offer::Offer;

/// How long a payment may be presented after it was signed: longer than any run.
pub const VALIDITY: Duration = Duration::from_secs(3600);

/// What is paid, to whom, in which token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub network: Network,
    pub chain_id: u64,
    pub token: Address,
    /// The token's EIP-712 domain.
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

/// What makes a run's payments unlike those of any other, and until when they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub salt: u128,
    pub now_secs: u64,
}

/// Some buyers: number `first` and those after it.
#[derive(Debug)]
pub struct Payers {
    keys: Vec<Key>,
}

impl Payers {
    /// Whoever knows the seed can spend what they hold.
    pub fn new(seed: &str, first: usize, count: usize) -> Self {
        Self { keys: in_parallel(count.max(1), |i| key(seed, first + i)) }
    }

    pub fn addresses(&self) -> impl Iterator<Item = Address> {
        self.keys.iter().map(Key::address)
    }

    /// For those who sign something else than payments.
    pub fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// `count` bodies for `/verify` or `/settle`. The buyers take turns.
    pub fn requests(&self, terms: &Terms, generation: Generation, run: Run, count: usize) -> Vec<Bytes> {
        let asked = terms.requirements(generation);
        let domain = terms.domain();
        in_parallel(count, |i| {
            let payload = self.payload(terms, &domain, run, i);
            let payment = match generation {
                Generation::V1 => format!(
                    r#"{{"x402Version":1,"scheme":"exact","network":"{}","payload":{payload}}}"#,
                    terms.name_of_network(generation)
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

    /// `count` values of `PAYMENT-SIGNATURE` for one offer.
    pub fn headers(&self, offer: &Offer, run: Run, count: usize) -> Vec<Bytes> {
        in_parallel(count, |i| self.header(offer, run, i))
    }

    /// Payment number `i` for an offer, which it repeats as the seller wrote it.
    pub fn header(&self, offer: &Offer, run: Run, i: usize) -> Bytes {
        let payload = self.payload(offer.terms(), &offer.terms().domain(), run, i);
        let payment = format!(
            r#"{{"x402Version":2,"resource":{},"accepted":{},"payload":{payload}}}"#,
            offer.resource(),
            offer.accepted()
        );
        Bytes::from(STANDARD.encode(payment))
    }

    fn payload(&self, terms: &Terms, domain: &Domain, run: Run, i: usize) -> String {
        let key = &self.keys[i % self.keys.len()];
        let nonce = hash(&[b"nonce", &run.salt.to_be_bytes(), &i.to_be_bytes()]);
        let before = run.now_secs.saturating_add(VALIDITY.as_secs());
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
    /// What stands for dollars on `network`, or the listed token there of which this is the address or symbol; `None`
    /// if it is unknown or nobody can sign a transfer of it.
    pub fn listed(
        registry: &Registry,
        network: &Network,
        token: Option<&str>,
        pay_to: Address,
        atoms: u128,
    ) -> Option<Self> {
        let of = |asset: &Asset| {
            let domain = asset.domain.as_ref()?;
            Some(Self {
                network: network.clone(),
                chain_id: network.evm_chain_id()?,
                token: to_alloy(asset.id.address())?,
                name: domain.name.clone(),
                version: domain.version.clone(),
                pay_to,
                atoms,
            })
        };
        let Some(token) = token else { return of(registry.dollar(network)?) };
        let by_address = || {
            let address = farthing_primitives::Address::evm(token).ok()?;
            registry.get(&farthing_primitives::AssetId::new(network.clone(), address))
        };
        of(registry.by_symbol(network, token).or_else(by_address)?)
    }

    pub fn domain(&self) -> Domain {
        Domain::new(&self.name, &self.version, self.chain_id, self.token)
    }

    /// Version 1 knows networks by their names; one that has none there goes by its identifier.
    fn name_of_network(&self, generation: Generation) -> &str {
        match generation {
            Generation::V1 => self.network.v1_name().unwrap_or(self.network.as_str()),
            Generation::V2 => self.network.as_str(),
        }
    }

    fn requirements(&self, generation: Generation) -> String {
        let network = self.name_of_network(generation);
        let (asset, pay_to) = (eip55(self.token), eip55(self.pay_to));
        let timeout = VALIDITY.as_secs();
        let extra = serde_json::json!({ "name": self.name, "version": self.version });
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

/// The key of buyer number `i`. Anybody who knows the seed can compute it.
fn key(seed: &str, i: usize) -> Key {
    // A hash is above the order of the curve once in 2^128: then the next one is taken.
    (0u8..=u8::MAX)
        .find_map(|again| {
            Key::from_bytes(hash(&[b"farthing-load payer", seed.as_bytes(), &i.to_be_bytes(), &[again]])).ok()
        })
        .unwrap_or_else(|| unreachable!("256 hashes in a row are no keys"))
}

/// Each part with its length, so that no two lists of parts are the same bytes.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part.len().to_be_bytes());
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
pub(crate) mod tests {
    use std::collections::HashSet;

    use farthing_rails::exact_evm::{Policy, SignatureStatus, Tokens, check};
    use farthing_rails::x402::{presented_v1, presented_v2, requirement_v1, requirement_v2};
    use farthing_wire::x402::Message;
    use farthing_wire::x402::facilitator::PaymentRequest;

    use super::*;

    const RUN: Run = Run { salt: 1, now_secs: 1_800_000_000 };

    pub(crate) fn terms() -> Terms {
        let network = Network::eip155(84532);
        Terms::listed(&Registry::builtin(), &network, None, Address::repeat_byte(0x5e), 1000).unwrap()
    }

    #[test]
    fn every_request_is_a_valid_payment_of_another_buyer() {
        let payers = Payers::new("seed", 7, 5);
        let now = farthing_primitives::Timestamp::from_secs(RUN.now_secs);
        let tokens = Tokens::new(&Registry::builtin());
        for generation in [Generation::V1, Generation::V2] {
            let mut keys = HashSet::new();
            let mut from = HashSet::new();
            for body in payers.requests(&terms(), generation, RUN, 10) {
                let (asked, shown) = match PaymentRequest::parse(&body).unwrap() {
                    PaymentRequest::V1 { payload, requirements } => {
                        let asked = requirement_v1(&requirements, &tokens).unwrap();
                        let shown = presented_v1(&asked, &payload).unwrap();
                        (asked, shown)
                    }
                    PaymentRequest::V2 { payload, requirements } => {
                        let asked = requirement_v2(&requirements, &tokens).unwrap();
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
        let payers = Payers::new("seed", 0, 3);
        let make = |salt| payers.requests(&terms(), Generation::V2, Run { salt, ..RUN }, 3);
        assert_eq!(make(1), make(1));
        assert!(make(1).iter().all(|body| !make(2).contains(body)));
    }

    #[test]
    fn another_seed_makes_other_buyers_and_a_later_start_continues_them() {
        let of = |seed, first, count| Payers::new(seed, first, count).addresses().collect::<Vec<_>>();
        assert_eq!(of("a", 0, 4)[2..], of("a", 2, 2));
        assert!(of("a", 0, 4).iter().all(|address| !of("b", 0, 4).contains(address)));
    }

    #[test]
    fn a_token_goes_by_symbol_or_address_and_must_be_one_that_payers_can_sign_for() {
        let base = Network::eip155(8453);
        let token = |token| {
            Terms::listed(&Registry::builtin(), &base, token, Address::ZERO, 1).map(|terms| terms.token)
        };
        assert_eq!(token(Some("USDC")), token(None));
        assert_eq!(token(Some("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913")), token(None));
        assert_eq!(token(Some("USDT")), None);
        assert_eq!(token(Some("0x0000000000000000000000000000000000000001")), None);
    }
}
