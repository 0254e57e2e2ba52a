use std::sync::Mutex;

use bytes::Bytes;
use farthing_engine::{Broadcast, ChainError, Fees, Head, Receipt, SignedTx};
use farthing_evm::{AuthorizationUsed, B256, Key, Log, Transfer, from_alloy};
use farthing_primitives::{PullMethod, Registry};
use farthing_rails::exact_evm::buy::{self, Nonce};
use farthing_rails::exact_evm::{self, Requirement, Tokens};

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const PRICE: u64 = 10_000;

fn sepolia() -> Network {
    Network::eip155(84532)
}

fn payment(method: PullMethod) -> Checked {
    let registry = Registry::builtin();
    let usdc = registry.dollar(&sepolia()).unwrap();
    let token = Tokens::new(&registry).get(&usdc.id).unwrap().clone();
    let minute = Duration::from_secs(60);
    let payee = Address::from_evm_bytes([1; 20]);
    let asked = Requirement::new(token, &usdc.atoms(PRICE.into()), &payee, method, minute).unwrap();
    let key = Key::from_bytes([7; 32]).unwrap();
    let payer = from_alloy(key.address());
    let unsigned = buy::authorize(&asked, &payer, Nonce([9; 32]), minute, NOW).unwrap();
    let presented = unsigned.signed(&key.sign(unsigned.digest()), None);
    exact_evm::check(&asked, &presented, NOW, &exact_evm::Policy::default()).unwrap()
}

/// What the token logs when it settles an authorization of this nonce.
fn logs(payment: &Checked, nonce: u8) -> Vec<Log> {
    let word = |address: &Address| to_alloy(address).unwrap().into_word();
    let token = to_alloy(payment.money().asset().address()).unwrap();
    let (payer, payee) = (word(&payment.payer()), word(&payment.pay_to()));
    let log = |topics, data, index| Log { address: token, topics, data, index };
    vec![
        log(vec![AuthorizationUsed::TOPIC, payer, B256::repeat_byte(nonce)], farthing_evm::Bytes::new(), 0),
        log(vec![Transfer::TOPIC, payer, payee], U256::from(PRICE).to_be_bytes::<32>().to_vec().into(), 1),
    ]
}

/// A node that knows its blocks' times, whether the authorization was used, and some transactions.
#[derive(Default)]
struct Node {
    network: Option<Network>,
    /// Seconds after [`NOW`], by block.
    blocks: Mutex<Vec<u64>>,
    used: Mutex<Option<bool>>,
    receipts: Mutex<Vec<(TxHash, bool, Vec<Log>)>>,
}

impl Node {
    fn view(self) -> (Arc<Self>, EngineView) {
        let node = Arc::new(Self { network: Some(sepolia()), ..self });
        (node.clone(), EngineView::new(node, false))
    }

    fn down(&self) -> ChainError {
        ChainError::Down(sepolia())
    }
}

#[async_trait]
impl Chain for Node {
    fn network(&self) -> &Network {
        self.network.as_ref().unwrap()
    }

    fn block_time(&self) -> Duration {
        Duration::from_secs(2)
    }

    async fn read(&self, _: Vec<Read>) -> Result<Vec<ReadResult>, ChainError> {
        Err(self.down())
    }

    async fn read_at(&self, reads: Vec<Read>, _: Tag) -> Result<Vec<ReadResult>, ChainError> {
        let used = self.used.lock().unwrap().ok_or(self.down())?;
        let word = U256::from(u8::from(used)).to_be_bytes::<32>().to_vec();
        Ok(reads.iter().map(|_| ReadResult::Returned(word.clone().into())).collect())
    }

    async fn head(&self, at: Tag) -> Result<Option<Head>, ChainError> {
        let blocks = self.blocks.lock().unwrap();
        let latest = (blocks.len() as u64).checked_sub(1).ok_or(self.down())?;
        let number = if let Tag::Number(number) = at { number } else { latest };
        let timestamp =
            blocks.get(usize::try_from(number).unwrap()).map(|s| NOW.plus(Duration::from_secs(*s)));
        let head = |timestamp| Head { number, hash: [0; 32], parent: [0; 32], timestamp, base_fee: 1 };
        Ok(timestamp.map(head))
    }

    async fn next_head(&self, _: Option<Head>, _: Duration) -> Result<Head, ChainError> {
        Err(self.down())
    }

    async fn receipts(&self, txs: Vec<TxHash>) -> Result<Vec<Option<Receipt>>, ChainError> {
        let known = self.receipts.lock().unwrap();
        let receipt = |tx: &TxHash| {
            let (tx, success, logs) = known.iter().find(|(known, ..)| known == tx)?.clone();
            Some(Receipt { tx, success, block: 1, block_hash: [0; 32], gas_used: 1, gas_price: 1, logs })
        };
        Ok(txs.iter().map(receipt).collect())
    }

    async fn nonce(&self, _: &Address, _: bool) -> Result<u64, ChainError> {
        Err(self.down())
    }

    async fn native_balance(&self, _: &Address) -> Result<u128, ChainError> {
        Err(self.down())
    }

    async fn fees(&self) -> Result<Fees, ChainError> {
        Err(self.down())
    }

    async fn estimate_gas(
        &self,
        _: &Address,
        _: &Address,
        _: Bytes,
    ) -> Result<Result<u64, Bytes>, ChainError> {
        Err(self.down())
    }

    async fn broadcast(&self, _: &SignedTx) -> Broadcast {
        Broadcast::Rejected("a buyer sends no transactions".to_owned())
    }

    async fn logs(&self, filter: LogFilter) -> Result<Vec<(TxHash, Log)>, ChainError> {
        let known = self.receipts.lock().unwrap();
        let matches = |log: &Log| {
            let topics = filter.topics.iter().zip(&log.topics);
            topics.clone().count() == filter.topics.len()
                && topics.into_iter().all(|(wanted, topic)| wanted.is_none_or(|wanted| wanted == topic.0))
        };
        let all = known.iter().flat_map(|(tx, _, logs)| logs.iter().map(|log| (*tx, log.clone())));
        Ok(all.filter(|(_, log)| matches(log)).collect())
    }
}

#[tokio::test]
async fn the_transaction_that_used_an_authorization_is_found_whoever_names_another_or_none() {
    let payment = payment(PullMethod::Eip3009);
    let [other, failed, ours] = [1, 2, 3].map(|n| TxHash([n; 32]));
    let receipts = vec![
        (other, true, logs(&payment, 8)),
        (failed, false, logs(&payment, 9)),
        (ours, true, logs(&payment, 9)),
    ];
    let (_, view) = Node {
        blocks: Mutex::new(vec![0, 2, 4, 6]),
        used: Mutex::new(Some(true)),
        receipts: Mutex::new(receipts),
        ..Node::default()
    }
    .view();
    for named in [None, Some(other), Some(failed), Some(ours), Some(TxHash([4; 32]))] {
        assert_eq!(view.sight(&payment, named).await, Sight::Settled { tx: ours }, "{named:?}");
    }
}

#[tokio::test]
async fn an_authorization_that_was_cancelled_settled_nothing() {
    let payment = payment(PullMethod::Eip3009);
    let (node, view) = Node {
        blocks: Mutex::new(vec![0, 2, 4]),
        used: Mutex::new(Some(true)),
        receipts: Mutex::new(vec![(TxHash([1; 32]), true, logs(&payment, 9)[..1].to_vec())]),
        ..Node::default()
    }
    .view();
    assert_eq!(view.sight(&payment, None).await, Sight::Used);
    node.receipts.lock().unwrap().clear();
    assert_eq!(view.sight(&payment, None).await, Sight::Used);
}

/// A reorganization may replace the newest blocks, however late they are.
#[tokio::test]
async fn an_unused_authorization_is_proven_dead_by_a_block_with_others_on_top() {
    let payment = payment(PullMethod::Eip3009);
    let end = 60 + REORG_MARGIN.as_secs();
    let (node, view) = Node { used: Mutex::new(Some(false)), ..Node::default() }.view();
    for (blocks, proven) in [
        (vec![0], false),
        (vec![0, end], false),
        (vec![0, end, end + 2], false),
        (vec![0, end - 1, end + 1, end + 3], false),
        (vec![0, end, end + 2, end + 4], true),
    ] {
        *node.blocks.lock().unwrap() = blocks.clone();
        let sight = view.sight(&payment, None).await;
        assert_eq!(sight.proves_unused(payment.expires()), proven, "{blocks:?}: {sight:?}");
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_asked_proves_nothing() {
    let payment = payment(PullMethod::Eip3009);
    let (node, view) = Node::default().view();
    assert_eq!((view.sight(&payment, None).await, view.time().await), (Sight::Unavailable, None));
    *node.blocks.lock().unwrap() = vec![0, 1_000, 2_000, 3_000];
    assert_eq!(view.sight(&payment, None).await, Sight::Unavailable);
    assert_eq!(view.time().await, Some(NOW.plus(Duration::from_secs(3_000))));
}

/// A transfer of the same amount to the same payee may pay for another purchase.
#[tokio::test]
async fn a_permit2_transfer_that_nobody_named_is_not_taken_for_ours() {
    let payment = payment(PullMethod::Permit2);
    let tx = TxHash([1; 32]);
    let (node, view) = Node {
        blocks: Mutex::new(vec![0, 2, 4]),
        receipts: Mutex::new(vec![(tx, true, logs(&payment, 9)[1..].to_vec())]),
        ..Node::default()
    }
    .view();
    // All bits of the word, so also that of the nonce.
    *node.used.lock().unwrap() = Some(true);
    let unnamed = view.sight(&payment, None).await;
    assert!(!matches!(unnamed, Sight::Settled { .. }), "{unnamed:?}");
}
