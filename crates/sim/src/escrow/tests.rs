//! The same calls through the transcription and through the bytecode on the embedded chain: outcome, revert data, logs,
//! the channels and all balances have to be the same after each.

use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig, USDC};
use farthing_evm::escrow::{self, Pull};
use farthing_evm::voucher::{ChannelParts, PayeeAuthorization, Voucher, escrow_domain, top_up_nonce};
use farthing_evm::{Key, abi, keccak256};
use serde_json::{Value, json};

use super::*;
use crate::rng::Rng;

/// How many calls one run makes, and how many accounts make them.
const CALLS: u64 = 120;
const ACCOUNTS: usize = 4;
const BEGAN: u64 = 1_900_000_000;

/// Stands for the reason of a call that only came too early.
const TOO_EARLY: &[u8] = b"too early";

/// Both chains.
struct Twins {
    devnet: Devnet,
    http: reqwest::Client,
    chain: Chain,
    state: State,
    keys: Vec<Key>,
    time: u64,
    sent: u64,
}

/// What a call came to.
#[derive(Debug, PartialEq, Eq)]
struct Came {
    reverted: Option<Vec<u8>>,
    logs: Vec<(Address, Vec<B256>, Vec<u8>)>,
}

impl Twins {
    async fn begin() -> Self {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = DevnetConfig { block_time: BlockTime::Instant, ..DevnetConfig::default() };
        let devnet = Devnet::start(config).await.unwrap();
        let keys: Vec<Key> = DEV_ACCOUNTS
            .iter()
            .take(ACCOUNTS)
            .map(|account| Key::from_bytes(account.private_key.0).unwrap())
            .collect();
        let domain = Domain::new("USDC", "2", NETWORK, USDC);
        let chain = Chain::new(USDC, domain, State::default(), 0, 0);
        let http = reqwest::Client::new();
        let mut twins = Self { devnet, http, chain, state: State::default(), keys, time: BEGAN, sent: 0 };
        for n in 0..ACCOUNTS {
            let has = twins.balance(twins.keys[n].address()).await;
            twins.state.token.insert(twins.keys[n].address(), has);
        }
        twins
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self.http.post(self.devnet.rpc_url()).json(&body).send().await.unwrap();
        answer.json().await.unwrap()
    }

    async fn ask(&self, to: Address, data: &[u8]) -> Vec<u8> {
        let call = json!([{"to": to, "data": farthing_evm::Bytes::copy_from_slice(data)}, "latest"]);
        let answer = self.rpc("eth_call", call).await;
        hex(&answer["result"])
    }

    async fn balance(&self, of: Address) -> u128 {
        u128::try_from(U256::from_be_slice(&self.ask(USDC, &abi::balance_of(of)).await)).unwrap()
    }

    /// Makes a call on both, at the same second.
    async fn call(&mut self, from: usize, to: Address, data: farthing_evm::Bytes) -> (Came, Came) {
        self.time += 1;
        self.sent += 1;
        let from = self.keys[from].address();
        let real = {
            let call = json!({"from": from, "to": to, "data": data, "gas": "0x100000"});
            self.rpc("evm_setNextBlockTimestamp", json!([self.time])).await;
            let sent = self.rpc("eth_sendTransaction", json!([call])).await;
            let hash = sent["result"].clone();
            assert!(hash.is_string(), "{sent}");
            let receipt = self.rpc("eth_getTransactionReceipt", json!([hash])).await["result"].clone();
            let block = self.rpc("eth_getBlockByNumber", json!(["latest", false])).await;
            assert_eq!(block["result"]["timestamp"], format!("{:#x}", self.time), "the second");
            let logs = receipt["logs"].as_array().unwrap().iter().map(|log| {
                let topics = log["topics"].as_array().unwrap().iter();
                let topics = topics.map(|topic| B256::from_slice(&hex(topic))).collect();
                (Address::from_slice(&hex(&log["address"])), topics, hex(&log["data"]))
            });
            let logs = logs.collect();
            // Why is asked of the same state at the same second: what reverts changes nothing.
            let reverted = if receipt["status"] == "0x1" {
                None
            } else {
                let answer = self.rpc("eth_call", json!([call, "latest"])).await;
                // The question is asked a little later. What was too early is then not refused any more.
                let early = answer.get("result").is_some();
                Some(if early { TOO_EARLY.to_vec() } else { hex(&answer["error"]["data"]) })
            };
            Came { reverted, logs }
        };
        let tx = Tx::of_owner(from, to, data.0, self.sent);
        let (mut next, mut logs) = (self.state.clone(), Vec::new());
        let done = self.chain.execute(&mut next, &tx, self.time, &mut logs);
        let transcribed = match done {
            Ok(()) => {
                self.state = next;
                // The token's approvals are not transcribed as events.
                let logs = logs.into_iter().map(|log| (log.address, log.topics, log.data.to_vec()));
                Came { reverted: None, logs: logs.collect() }
            }
            Err(why) => {
                let early = [error("CloseNotReady()"), revert("FiatTokenV2: authorization is not yet valid")];
                let told = real.reverted.as_deref() == Some(TOO_EARLY) && early.contains(&why);
                let why = if told { TOO_EARLY.to_vec() } else { why.to_vec() };
                Came { reverted: Some(why), logs: Vec::new() }
            }
        };
        (real, transcribed)
    }

    async fn compare(&self, n: u64, channels: &[B256]) {
        for id in channels {
            let data = escrow::get_channel(*id);
            let real = self.ask(ESCROW, &data).await;
            assert_eq!(real, self.chain.ask_escrow(&self.state, &data).unwrap(), "call {n}: {id}");
        }
        let accounts = self.keys.iter().map(Key::address).chain([ESCROW]);
        for account in accounts {
            let transcribed = self.state.token.get(&account).copied().unwrap_or_default();
            assert_eq!(self.balance(account).await, transcribed, "call {n}: {account}");
        }
    }
}

fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap_or("0x");
    text.parse::<farthing_evm::Bytes>().unwrap().to_vec()
}

/// What a run knows of a channel.
#[derive(Clone, Copy)]
struct Known {
    id: B256,
    payer: usize,
    payee: usize,
    /// `None` is the payer.
    signer: Option<usize>,
}

/// Draws calls that mostly fit, and now and then do not: other callers, amounts, signers, nonces and times.
struct Caller {
    rng: Rng,
    known: Vec<Known>,
    salts: u64,
}

impl Caller {
    fn one_of(&mut self, count: usize) -> usize {
        usize::try_from(self.rng.below(count as u64)).unwrap()
    }

    fn amount(&mut self) -> u128 {
        match self.rng.below(20) {
            0 => 0,
            1 => u128::MAX,
            2 => u128::MAX - 5000,
            _ => u128::from(self.rng.between(1, 3000)),
        }
    }

    fn signature(&mut self, key: &Key, digest: B256) -> farthing_evm::Bytes {
        let mut bytes = key.sign(digest).to_bytes().to_vec();
        match self.rng.below(30) {
            0 => bytes.truncate(64),
            1 => bytes[64] -= 27,
            2 => bytes[5] ^= 1,
            3 => bytes.clear(),
            _ => {}
        }
        bytes.into()
    }

    fn pull(&mut self, twins: &Twins, from: usize, value: u128, nonce: B256) -> Pull {
        let time = twins.time;
        let (valid_after, valid_before) = match self.rng.below(12) {
            0 => (U256::from(time + 1), U256::MAX),
            1 => (U256::ZERO, U256::from(time + 1)),
            _ => (U256::ZERO, U256::MAX),
        };
        let nonce = if self.rng.per_mille(40) { B256::repeat_byte(9) } else { nonce };
        let auth = TransferAuthorization {
            from: twins.keys[from].address(),
            to: ESCROW,
            value: U256::from(value),
            valid_after,
            valid_before,
            nonce,
        };
        let signature = self.signature(&twins.keys[from], auth.receive_digest(twins.chain.domain()));
        Pull::Authorization { valid_after, valid_before, nonce, signature }
    }

    fn voucher(&mut self, twins: &Twins, known: &Known, cumulative: u128) -> farthing_evm::Bytes {
        let signer = known.signer.unwrap_or(known.payer);
        let signer = if self.rng.per_mille(60) { self.one_of(ACCOUNTS) } else { signer };
        let digest = Voucher { channel: known.id, cumulative }.digest(&domain());
        self.signature(&twins.keys[signer], digest)
    }

    /// A channel to call the escrow about: mostly one that lives. `None` while none does.
    fn channel(&mut self, twins: &Twins) -> Option<Known> {
        let records = &twins.state.escrow.records;
        let lives = |known: &&Known| records.get(&known.id).is_some_and(|record| !record.finalized);
        let living: Vec<Known> = self.known.iter().filter(lives).copied().collect();
        let among = if self.rng.per_mille(120) { self.known.clone() } else { living };
        (!among.is_empty()).then(|| among[self.one_of(among.len())])
    }

    fn next(&mut self, twins: &mut Twins) -> (usize, Address, farthing_evm::Bytes) {
        let Some(mut known) = self.channel(twins).filter(|_| self.rng.below(8) > 0) else {
            return self.opens(twins);
        };
        if self.rng.per_mille(30) {
            known.id = keccak256(b"no channel");
        }
        let anybody = self.one_of(ACCOUNTS);
        let mostly = |rng: &mut Rng, who: usize| if rng.per_mille(880) { who } else { anybody };
        let settled = twins.state.escrow.records.get(&known.id).map_or(0, |record| record.settled);
        let cumulative = match self.rng.below(6) {
            0 => settled,
            1 => self.amount(),
            _ => settled.saturating_add(u128::from(self.rng.between(1, 400))),
        };
        let (from, data) = match self.rng.below(13) {
            0 => {
                let value = U256::from(self.rng.below(5000));
                return (anybody, USDC, abi::approve(ESCROW, value));
            }
            1 => (mostly(&mut self.rng, known.payer), escrow::top_up(known.id, self.amount())),
            2 | 3 => {
                let payer = mostly(&mut self.rng, known.payer);
                let (amount, salt) = (self.amount(), B256::repeat_byte(self.rng.below(4) as u8));
                let from = twins.keys[payer].address();
                let pull = self.pull(twins, payer, amount, top_up_nonce(known.id, amount, from, salt));
                (anybody, escrow::top_up_with(known.id, amount, from, salt, &pull))
            }
            4 => {
                let voucher = self.voucher(twins, &known, cumulative);
                (mostly(&mut self.rng, known.payee), escrow::settle(known.id, cumulative, voucher))
            }
            5 => {
                let voucher = self.voucher(twins, &known, cumulative);
                (mostly(&mut self.rng, known.payee), escrow::close(known.id, cumulative, voucher))
            }
            6 | 7 => {
                let allowed = PayeeAuthorization {
                    channel: known.id,
                    cumulative,
                    nonce: U256::from(self.rng.below(600)),
                    deadline: U256::from(twins.time + self.rng.below(4)),
                };
                let closes = self.rng.below(4) == 0;
                let digest =
                    if closes { allowed.close_digest(&domain()) } else { allowed.settle_digest(&domain()) };
                let payee = mostly(&mut self.rng, known.payee);
                let word = self.signature(&twins.keys[payee], digest);
                let voucher = self.voucher(twins, &known, cumulative);
                let data = if closes {
                    escrow::close_with_authorization(&allowed, word, voucher)
                } else {
                    escrow::settle_with_authorization(&allowed, word, voucher)
                };
                (anybody, data)
            }
            8 => {
                let mut claims = Vec::new();
                for _ in 0..self.rng.between(1, 3) {
                    let known = self.channel(twins).unwrap_or(known);
                    let settled = twins.state.escrow.records.get(&known.id).map_or(0, |r| r.settled);
                    let cumulative = settled + u128::from(self.rng.below(300));
                    claims.push((known.id, cumulative, self.voucher(twins, &known, cumulative)));
                }
                let token = if self.rng.below(10) == 0 { ESCROW } else { USDC };
                (mostly(&mut self.rng, known.payee), escrow::settle_many(token, claims))
            }
            9 | 10 => (mostly(&mut self.rng, known.payer), escrow::request_close(known.id)),
            _ => {
                let asked = twins.state.escrow.records.get(&known.id).map_or(0, |r| r.close_requested_at);
                // The second before it may, that second, and some time.
                if asked > 0 && self.rng.below(3) > 0 {
                    let at = asked + GRACE - 2 + self.rng.below(3);
                    twins.time = twins.time.max(at);
                }
                (mostly(&mut self.rng, known.payer), escrow::withdraw(known.id))
            }
        };
        (from, ESCROW, data)
    }

    fn opens(&mut self, twins: &Twins) -> (usize, Address, farthing_evm::Bytes) {
        let (payer, payee) = (self.one_of(ACCOUNTS), self.one_of(ACCOUNTS));
        let signer = if self.rng.below(3) == 0 { Some(self.one_of(ACCOUNTS)) } else { None };
        self.salts += u64::from(self.rng.below(6) > 0);
        let parts = ChannelParts {
            payer: twins.keys[payer].address(),
            payee: if self.rng.per_mille(40) { Address::ZERO } else { twins.keys[payee].address() },
            token: if self.rng.per_mille(30) { Address::repeat_byte(7) } else { USDC },
            salt: B256::from(U256::from(self.salts)),
            authorized_signer: signer.map_or(Address::ZERO, |signer| twins.keys[signer].address()),
            escrow: ESCROW,
            chain_id: NETWORK,
        };
        let deposit = self.amount();
        let known = Known { id: parts.id(), payer, payee, signer };
        if !self.known.iter().any(|other| other.id == known.id) {
            self.known.push(known);
        }
        if self.rng.below(3) == 0 {
            return (payer, ESCROW, escrow::open(&parts, deposit));
        }
        let pull = self.pull(twins, payer, deposit, parts.open_nonce());
        (self.one_of(ACCOUNTS), ESCROW, escrow::open_with(&parts, deposit, &pull))
    }
}

/// Seeds are new in each run; a failure names its own.
#[tokio::test]
async fn the_transcription_does_what_the_bytecode_does() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    for seed in [1, since.as_secs()] {
        let mut twins = Twins::begin().await;
        let mut caller = Caller { rng: Rng::stream(seed, "escrow"), known: Vec::new(), salts: 0 };
        for n in 0..ACCOUNTS {
            let (real, _) = twins.call(n, USDC, abi::approve(ESCROW, U256::from(4000))).await;
            assert_eq!(real.reverted, None);
        }
        let (mut worked, mut refused) = (0, BTreeSet::new());
        for n in 0..CALLS {
            let (from, to, data) = caller.next(&mut twins);
            let (real, mut transcribed) = twins.call(from, to, data.clone()).await;
            if to == USDC {
                transcribed.logs =
                    real.logs.iter().map(|log| (log.0, log.1.clone(), log.2.clone())).collect();
            }
            assert_eq!(real, transcribed, "seed {seed}, call {n}: {from} sends {data}");
            match real.reverted {
                None => worked += 1,
                Some(why) => {
                    refused.insert(escrow::revert(&why).to_string());
                }
            }
            let ids: Vec<B256> = caller.known.iter().map(|known| known.id).collect();
            if n % 10 == 9 {
                twins.compare(n, &ids).await;
            }
        }
        assert!(
            worked > CALLS / 4 && refused.len() >= 5,
            "seed {seed}: {worked} worked, refused {refused:?}"
        );
        let held: u128 = twins.state.escrow.records.values().map(Record::held).sum();
        assert_eq!(twins.balance(ESCROW).await, held, "seed {seed}");
        twins.devnet.shutdown().await;
    }
}

#[test]
fn what_is_there_is_what_sellers_and_buyers_compare() {
    assert_eq!(keccak256(code()).0, farthing_wallet::escrows::ESCROW_CODE);
    assert_eq!(escrow_domain(NETWORK, ESCROW), domain());
}
