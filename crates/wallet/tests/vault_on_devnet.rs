//! The allowance vault as it is deployed, on the embedded chain: what a thief with the hot key gets, hour after hour, until
//! the owner freezes; and the desk that sends an account's transactions, across crashes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Raw;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig};
use farthing_engine::{
    Broadcast, Chain, ChainError, Fees, Head, LogFilter, Receipt, RelayerKey, SignedTx, Standing, Tag,
    TxHash, UnsignedTx,
};
use farthing_evm::vault::{self, Announcement, Change, Limits, Parts, Refilled, Topic};
use farthing_evm::{Bytes, Key, Log, Read, ReadResult, Revert, U256, abi, from_alloy, to_alloy};
use farthing_primitives::{Address, AssetId, Network, Registry};
use farthing_wallet::outbox::{Desk, Outbox, OutboxError, Urgency};
use farthing_wallet::transact::{ContractCall, Sender, TransactError};
use farthing_wallet::vault::{LookError, VaultSight, look};
use farthing_wallet::{ChainView, EngineView, TokioWorld};

const OWNER: usize = 1;
const THIEF: usize = 2;
const GUARDIAN: usize = 3;
const SHOP: usize = 4;
const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const FLOAT: u128 = 5_000_000_000;
const LIMITS: Limits = Limits { per_hour: 100_000_000, per_day: 500_000_000, target: 40_000_000 };

fn key(index: usize) -> LocalKey {
    LocalKey::new(Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).unwrap())
}

fn account(index: usize) -> Address {
    key(index).address()
}

fn network() -> Network {
    Network::eip155(84532)
}

fn usdc() -> AssetId {
    Registry::builtin().dollar(&network()).unwrap().id.clone()
}

fn token() -> farthing_evm::Address {
    to_alloy(usdc().address()).unwrap()
}

fn parts() -> Parts {
    Parts {
        owner: to_alloy(&account(OWNER)).unwrap(),
        guardian: to_alloy(&account(GUARDIAN)).unwrap(),
        hot_wallet: to_alloy(&account(THIEF)).unwrap(),
        delay: 86_400,
        limits: vec![(token(), LIMITS)],
    }
}

struct House {
    devnet: Devnet,
    chain: Arc<RpcChain>,
    outbox: Outbox,
    world: TokioWorld,
    dir: tempfile::TempDir,
    vault: Address,
}

async fn house() -> House {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let devnet = Devnet::start(DevnetConfig::default()).await.unwrap();
    let config = ChainConfig::new(network(), vec![devnet.rpc_url().parse().unwrap()]);
    let chain = Arc::new(RpcChain::new(config).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let outbox = Outbox::new(dir.path().join("transactions"));
    let vault = from_alloy(parts().address());
    House { devnet, chain, outbox, world: TokioWorld::new(), dir, vault }
}

impl House {
    async fn send_on(
        &self,
        chain: &dyn Chain,
        who: usize,
        call: &ContractCall,
        urgency: Urgency,
    ) -> Result<Receipt, OutboxError> {
        let key = key(who);
        let sender = Sender { chain, key: &key };
        let desk =
            Desk { outbox: &self.outbox, sender, world: &self.world, patience: Duration::from_millis(1) };
        desk.send("a test's", call, urgency).await
    }

    async fn send(&self, who: usize, to: &Address, data: Bytes) -> Result<Receipt, OutboxError> {
        let call = ContractCall { to: to.clone(), data, revert: vault::revert };
        self.send_on(self.chain.as_ref(), who, &call, Urgency::Patient).await
    }

    async fn call(&self, who: usize, data: Bytes) -> Result<Receipt, OutboxError> {
        self.send(who, &self.vault, data).await
    }

    async fn refused(&self, who: usize, data: Bytes) -> String {
        match self.call(who, data).await.unwrap_err() {
            OutboxError::Transact(TransactError::Refused(why)) => why.to_string(),
            other => panic!("{other}"),
        }
    }

    async fn deploy(&self) {
        let deployer = from_alloy(vault::CREATE2_DEPLOYER);
        self.send(OWNER, &deployer, parts().deployment()).await.unwrap();
        let data = abi::transfer(to_alloy(&self.vault).unwrap(), U256::from(FLOAT));
        self.send(OWNER, usdc().address(), data).await.unwrap();
    }

    async fn look(&self) -> VaultSight {
        look(self.chain.as_ref(), &self.vault).await.unwrap()
    }

    async fn balance(&self, of: &Address) -> u128 {
        let view = EngineView::new(self.chain.clone(), true);
        view.balance(&usdc(), of).await.unwrap()
    }

    async fn rpc(&self, method: &str, params: &str) {
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"{method}\",\"params\":{params}}}");
        let sent = reqwest::Client::new()
            .post(self.devnet.rpc_url())
            .header("content-type", "application/json")
            .body(body)
            .send();
        let answer = sent.await.unwrap().text().await.unwrap();
        assert!(!answer.contains("\"error\""), "{method}: {answer}");
    }

    async fn later(&self, seconds: u64) {
        self.rpc("evm_increaseTime", &format!("[{seconds}]")).await;
        self.rpc("evm_mine", "[]").await;
    }

    /// The thief spends all that the hot wallet holds.
    async fn spend(&self) -> u128 {
        let held = self.balance(&account(THIEF)).await;
        if held > 0 {
            let data = abi::transfer(to_alloy(&account(SHOP)).unwrap(), U256::from(held));
            self.send(THIEF, usdc().address(), data).await.unwrap();
        }
        held
    }

    /// Spends and refills until nothing more comes; returns what was refilled.
    async fn rob(&self) -> u128 {
        let mut refilled = 0;
        loop {
            self.spend().await;
            let now = self.look().await.token(usdc().address()).unwrap().state.refillable;
            if now == 0 {
                return refilled;
            }
            let receipt = self.call(THIEF, vault::refill(token())).await.unwrap();
            let said = receipt.logs.iter().find_map(Refilled::decode).unwrap();
            assert_eq!(said.amount, now, "as the view promised");
            refilled += said.amount;
        }
    }
}

#[tokio::test]
async fn a_thief_gets_the_wallet_and_the_refills_before_the_freeze_and_no_more() {
    let house = house().await;
    house.deploy().await;
    let wallet = house.balance(&account(THIEF)).await;
    let shop = house.balance(&account(SHOP)).await;
    // The key is stolen. For nine hours nobody notices.
    let mut refilled = 0;
    for hour in 0..9 {
        refilled += house.rob().await;
        assert!(refilled <= LIMITS.per_hour * (hour + 1), "{refilled} after {hour} hours");
        assert!(refilled <= LIMITS.per_day);
        house.later(HOUR).await;
    }
    assert_eq!(refilled, LIMITS.per_day, "the day's cap was reached, and held");
    // The next day, until the owner freezes.
    house.later(DAY).await;
    refilled += house.rob().await;
    house.call(OWNER, vault::freeze()).await.unwrap();
    for _ in 0..30 {
        assert_eq!(house.refused(THIEF, vault::refill(token())).await, "IsFrozen");
        house.later(DAY).await;
    }
    let lost = house.balance(&account(SHOP)).await - shop;
    assert_eq!(lost, wallet + refilled, "the loss is the wallet and the refills before the freeze");
    assert_eq!(refilled, LIMITS.per_day + LIMITS.per_hour);
    assert_eq!(house.balance(&house.vault).await, FLOAT - refilled);
    // And the owner has the rest.
    let before = house.balance(&account(OWNER)).await;
    let rest = FLOAT - refilled;
    let data = vault::withdraw(token(), to_alloy(&account(OWNER)).unwrap(), rest);
    assert_eq!(house.refused(THIEF, data.clone()).await, "NotOwner");
    house.call(OWNER, data).await.unwrap();
    assert_eq!(house.balance(&account(OWNER)).await, before + rest);
}

#[tokio::test]
async fn what_the_vault_says_is_what_was_done() {
    let house = house().await;
    let error = look(house.chain.as_ref(), &house.vault).await.unwrap_err();
    assert_eq!(error, LookError::Nothing(house.vault.clone()));
    house.deploy().await;
    let error = look(house.chain.as_ref(), usdc().address()).await.unwrap_err();
    assert_eq!(error, LookError::OtherCode(usdc().address().clone()));

    let sight = house.look().await;
    let parts = parts();
    assert_eq!((sight.state.owner, sight.state.hot_wallet), (parts.owner, parts.hot_wallet));
    assert_eq!((sight.state.guardian, sight.state.delay), (parts.guardian, parts.delay));
    assert!(!sight.state.frozen && sight.state.announced.is_empty() && sight.state.offered_to.is_zero());
    let now = sight.token(usdc().address()).unwrap();
    assert_eq!((now.float, now.state.limits), (FLOAT, LIMITS));
    assert_eq!(now.state.refillable, 0, "development accounts are rich");

    house.rob().await;
    let now = house.look().await;
    let now = now.token(usdc().address()).unwrap();
    assert_eq!((now.state.used_hour, now.state.used_day), (LIMITS.per_hour, LIMITS.per_hour));
    assert_eq!((now.float, now.hot), (FLOAT - LIMITS.per_hour, 0));

    // The guardian tightens at once; the owner loosens, and waits.
    let tighter = Limits { per_hour: 1, ..LIMITS };
    house.call(GUARDIAN, vault::tighten(token(), tighter)).await.unwrap();
    assert_eq!(house.look().await.limits(usdc().address()), tighter);
    let change = Change::Limits { token: token(), limits: LIMITS };
    assert_eq!(house.refused(GUARDIAN, vault::announce(change)).await, "NotOwner");
    let receipt = house.call(OWNER, vault::announce(change)).await.unwrap();
    let said = receipt.logs.iter().find_map(Announcement::decode).unwrap();
    assert_eq!(said.change, change);
    let shown = house.look().await.token(usdc().address()).unwrap().state.announced;
    assert_eq!(shown, Some(said));
    assert_eq!(house.refused(OWNER, vault::apply(change.topic())).await, "TooEarly");
    house.later(DAY).await;
    house.call(OWNER, vault::apply(change.topic())).await.unwrap();
    assert_eq!(house.look().await.limits(usdc().address()), LIMITS);

    // A hot wallet, cancelled by the guardian.
    let change = Change::HotWallet(to_alloy(&account(5)).unwrap());
    house.call(OWNER, vault::announce(change)).await.unwrap();
    assert_eq!(house.look().await.state.announced.len(), 1);
    house.call(GUARDIAN, vault::cancel(Topic::HotWallet)).await.unwrap();
    assert_eq!(house.look().await.state.announced, []);

    // Another owner.
    house.call(OWNER, vault::offer_ownership(to_alloy(&account(6)).unwrap())).await.unwrap();
    assert_eq!(house.look().await.state.offered_to, to_alloy(&account(6)).unwrap());
    house.call(6, vault::accept_ownership()).await.unwrap();
    assert_eq!(house.look().await.state.owner, to_alloy(&account(6)).unwrap());
    house.call(6, vault::lengthen_delay(2 * 86_400)).await.unwrap();
    assert_eq!(house.look().await.state.delay, 2 * 86_400);
}

/// A chain whose node takes transactions and then is not heard of again, as seen by a process that dies.
struct Silent(Arc<RpcChain>);

#[async_trait]
impl Chain for Silent {
    fn network(&self) -> &Network {
        self.0.network()
    }
    fn block_time(&self) -> Duration {
        self.0.block_time()
    }
    async fn read(&self, reads: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        self.0.read(reads).await
    }
    async fn read_at(&self, reads: Vec<Read>, at: Tag) -> Result<Vec<ReadResult>, ChainError> {
        self.0.read_at(reads, at).await
    }
    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        self.0.head(at).await
    }
    async fn next_head(&self, seen: Option<Head>, patience: Duration) -> Result<Head, ChainError> {
        self.0.next_head(seen, patience).await
    }
    async fn receipts(&self, _: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        Err(ChainError::Down(network()))
    }
    async fn nonce(&self, account: &Address, pending: bool) -> Result<u64, ChainError> {
        self.0.nonce(account, pending).await
    }
    async fn standing(&self, account: &Address, at: Tag, tx: TxHash) -> Result<Standing, ChainError> {
        self.0.standing(account, at, tx).await
    }
    async fn native_balance(&self, account: &Address) -> Result<u128, ChainError> {
        self.0.native_balance(account).await
    }
    async fn fees(&self) -> Result<Fees, ChainError> {
        self.0.fees().await
    }
    async fn estimate_gas(
        &self,
        from: &Address,
        to: &Address,
        data: Raw,
    ) -> Result<Result<u64, Raw>, ChainError> {
        self.0.estimate_gas(from, to, data).await
    }
    async fn broadcast(&self, tx: &SignedTx) -> Broadcast {
        self.0.broadcast(tx).await
    }
    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        self.0.logs(filter).await
    }
}

fn payment(amount: u128) -> ContractCall {
    let data = abi::transfer(to_alloy(&account(SHOP)).unwrap(), U256::from(amount));
    ContractCall { to: usdc().address().clone(), data, revert: Revert::decode }
}

#[tokio::test]
async fn a_command_that_died_after_it_sent_is_not_sent_a_second_time() {
    let house = house().await;
    let before = house.balance(&account(SHOP)).await;
    let silent = Silent(house.chain.clone());
    let died = house.send_on(&silent, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    assert!(matches!(died, OutboxError::Chain(ChainError::Down(_))), "{died}");
    assert_eq!(house.balance(&account(SHOP)).await, before + 7, "it was sent");
    let found = house.send_on(house.chain.as_ref(), OWNER, &payment(7), Urgency::Patient).await.unwrap();
    assert!(found.success);
    assert_eq!(house.balance(&account(SHOP)).await, before + 7, "and not once more");
    // The same command again is another payment.
    house.send_on(house.chain.as_ref(), OWNER, &payment(7), Urgency::Patient).await.unwrap();
    assert_eq!(house.balance(&account(SHOP)).await, before + 14);
    assert_eq!(std::fs::read_dir(house.dir.path().join("transactions")).unwrap().count(), 0, "nothing waits");
}

#[tokio::test]
async fn what_waits_is_waited_for_but_nothing_stands_before_a_freeze() {
    let house = house().await;
    house.deploy().await;
    house.rpc("evm_setAutomine", "[false]").await;
    let before = house.balance(&account(SHOP)).await;
    let chain = house.chain.as_ref();
    let waits = house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    let OutboxError::Pending { tx } = waits else { panic!("{waits}") };
    // The same command is the same transaction; another one waits.
    let again = house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    assert!(matches!(again, OutboxError::Pending { tx: same } if same == tx), "{again}");
    let other = house.send_on(chain, OWNER, &payment(8), Urgency::Patient).await.unwrap_err();
    assert!(matches!(&other, OutboxError::Busy { tx: first, .. } if *first == tx), "{other}");
    // A freeze takes its number.
    let freeze = ContractCall { to: house.vault.clone(), data: vault::freeze(), revert: vault::revert };
    let waits = house.send_on(chain, OWNER, &freeze, Urgency::Now).await.unwrap_err();
    assert!(matches!(waits, OutboxError::Pending { tx: frozen } if frozen != tx), "{waits}");
    house.rpc("evm_setAutomine", "[true]").await;
    house.rpc("evm_mine", "[]").await;
    let done = house.send_on(chain, OWNER, &freeze, Urgency::Now).await.unwrap();
    assert!(done.success);
    assert!(house.look().await.state.frozen);
    assert_eq!(house.balance(&account(SHOP)).await, before, "what it took the place of never comes");
}

#[tokio::test]
async fn a_number_that_another_tool_used_is_not_waited_for() {
    let house = house().await;
    house.rpc("evm_setAutomine", "[false]").await;
    let chain = house.chain.as_ref();
    let waits = house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    assert!(matches!(waits, OutboxError::Pending { .. }), "{waits}");
    // Another tool puts a transaction of its own in its place.
    let fees = house.chain.fees().await.unwrap();
    let fees = Fees { max_fee: fees.max_fee * 3, priority_fee: fees.priority_fee * 3 };
    let unsigned = UnsignedTx {
        chain_id: 84532,
        nonce: house.chain.nonce(&account(OWNER), false).await.unwrap(),
        to: usdc().address().clone(),
        data: payment(1).data.to_vec().into(),
        gas: 100_000,
        fees,
    };
    assert_eq!(house.chain.broadcast(&key(OWNER).sign(&unsigned)).await, Broadcast::Accepted);
    let before = house.balance(&account(SHOP)).await;
    house.rpc("evm_setAutomine", "[true]").await;
    house.rpc("evm_mine", "[]").await;
    assert_eq!(house.balance(&account(SHOP)).await, before + 1);
    // So the command is made anew.
    house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap();
    assert_eq!(house.balance(&account(SHOP)).await, before + 8);
}

#[tokio::test]
async fn a_file_that_is_no_transaction_is_neither_sent_nor_overwritten() {
    let house = house().await;
    house.rpc("evm_setAutomine", "[false]").await;
    let chain = house.chain.as_ref();
    house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    let folder = house.dir.path().join("transactions");
    let file = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "{}").unwrap();
    let error = house.send_on(chain, OWNER, &payment(7), Urgency::Patient).await.unwrap_err();
    assert!(matches!(error, OutboxError::Corrupt { .. }), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{}");
}
