//! The wallet's channels on the escrow that is deployed, on the embedded chain: a seller relays the deposit and closes by
//! the last voucher, or does not answer, and the wallet gets its money back by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_chain::{ChainConfig, LocalKey, RpcChain};
use farthing_channel::PayerState;
use farthing_devnet::{DEV_ACCOUNTS, Devnet, DevnetConfig};
use farthing_engine::{BoxFuture, Broadcast, Chain, RelayerKey, UnsignedTx, World};
use farthing_evm::escrow::{self, Pull};
use farthing_evm::voucher::{ChannelParts, Voucher, escrow_domain};
use farthing_evm::{B256, Bytes, Key, U256, from_alloy, to_alloy};
use farthing_policy::{Bucket, HostRule, Rules};
use farthing_primitives::{Address, AssetId, Network, Registry, Timestamp};
use farthing_wallet::client::{
    Answer, Body, Client, Exchange, HttpRequest, Options, Outcome, Reach, SendError,
};
use farthing_wallet::escrows::ESCROW;
use farthing_wallet::force::{Force, Forced};
use farthing_wallet::journal::{Header, Journal};
use farthing_wallet::{ChainView, EngineView, LocalAuthorizer, TokioWorld, system_clock};
use farthing_wire::Object;
use farthing_wire::mpp::evm::{CredentialType, Funding, Session, SessionPayload};
use farthing_wire::mpp::{
    self, Challenge, Credential, EncodedRequest, IntentName, MethodName, Payload, SessionReceipt, WireTime,
};
use farthing_wire::x402::WireAddress;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

const PAYER: usize = 1;
const SELLER: usize = 2;
const PRICE: u128 = 1_000;
const DEPOSIT: u128 = 20_000;
const URL: &str = "https://seller.example/forecast";

fn key(index: usize) -> Key {
    Key::from_bytes(DEV_ACCOUNTS[index].private_key.0).unwrap()
}

fn account(index: usize) -> Address {
    from_alloy(key(index).address())
}

fn network() -> Network {
    Network::eip155(84532)
}

fn usdc() -> AssetId {
    Registry::builtin().dollar(&network()).unwrap().id.clone()
}

#[derive(Default)]
struct Books {
    accepted: u128,
    spent: u128,
    transactions: usize,
}

/// A seller who checks a voucher, and sends what its buyers sign.
struct Shop {
    chain: Arc<RpcChain>,
    books: Mutex<Books>,
}

impl Shop {
    fn challenge(&self) -> Challenge {
        let address = |address: &Address| WireAddress::parse(&network(), address.as_str()).unwrap();
        let session = Session {
            network: network(),
            amount: PRICE,
            unit_type: None,
            suggested_deposit: Some(DEPOSIT),
            currency: address(usdc().address()),
            recipient: address(&account(SELLER)),
            description: None,
            external_id: None,
            escrow: address(&Address::from_evm_bytes(ESCROW)),
            channel_id: None,
            min_voucher_delta: 0,
            fee_payer: true,
            credential_types: vec![CredentialType::Authorization],
            permit2: None,
            other_details: Object::new(),
        };
        Challenge {
            id: "challenge".to_owned(),
            realm: "seller.example".to_owned(),
            method: MethodName::evm(),
            intent: IntentName::session(),
            request: EncodedRequest::new(session.to_request().to_object()).unwrap(),
            description: None,
            digest: None,
            expires: Some(WireTime::from(system_clock().wall.plus(Duration::from_secs(300)))),
            header: None,
            opaque: None,
        }
    }

    /// Sends a call of the escrow, and waits for its block.
    async fn send(&self, data: Bytes) {
        let (from, to) = (account(SELLER), Address::from_evm_bytes(ESCROW));
        let data: bytes::Bytes = data.to_vec().into();
        let gas =
            self.chain.estimate_gas(&from, &to, data.clone()).await.unwrap().expect("the escrow takes it");
        let nonce = self.chain.nonce(&from, true).await.unwrap();
        let fees = self.chain.fees().await.unwrap();
        let unsigned = UnsignedTx { chain_id: 84532, nonce, to, data, gas: gas * 5 / 4, fees };
        let signed = LocalKey::new(key(SELLER)).sign(&unsigned);
        assert_eq!(self.chain.broadcast(&signed).await, Broadcast::Accepted);
        let receipts = self.chain.receipts(vec![signed.hash]).await.unwrap();
        assert!(receipts[0].as_ref().unwrap().success, "instant blocks");
        self.books.lock().unwrap().transactions += 1;
    }

    async fn does(&self, request: &HttpRequest, credential: &Credential) -> (u16, String) {
        let Ok(Payload::EvmSession(payload)) = credential.payload() else { panic!("no session") };
        let id = B256::from(*payload.channel_id());
        let signed = |cumulative: u128, signature: &[u8]| {
            let payer = to_alloy(&account(PAYER)).unwrap();
            let voucher = Voucher { channel: id, cumulative };
            voucher.check(&escrow_domain(84532, ESCROW.into()), signature, payer).unwrap();
        };
        match *payload {
            SessionPayload::Open(open) => {
                let Funding::Authorization { authorization, signature } = &open.funding else { panic!() };
                let parts = ChannelParts {
                    payer: to_alloy(&authorization.from).unwrap(),
                    payee: to_alloy(&account(SELLER)).unwrap(),
                    token: to_alloy(usdc().address()).unwrap(),
                    salt: B256::from(open.salt),
                    authorized_signer: Default::default(),
                    escrow: ESCROW.into(),
                    chain_id: 84532,
                };
                assert_eq!(parts.id(), id);
                let pull = Pull::Authorization {
                    valid_after: U256::from_be_bytes(authorization.valid_after.to_be_bytes()),
                    valid_before: U256::from_be_bytes(authorization.valid_before.to_be_bytes()),
                    nonce: B256::from(authorization.nonce),
                    signature: signature.clone().into(),
                };
                self.send(escrow::open_with(&parts, authorization.value, &pull)).await;
                let mut books = self.books.lock().unwrap();
                (books.accepted, books.spent) = (0, 0);
                (204, String::new())
            }
            SessionPayload::Voucher(voucher) => {
                signed(voucher.cumulative, &voucher.signature);
                let mut books = self.books.lock().unwrap();
                books.accepted = books.accepted.max(voucher.cumulative);
                if request.method != Method::HEAD {
                    books.spent += PRICE;
                }
                assert!(books.spent <= books.accepted);
                (200, "sunny".to_owned())
            }
            SessionPayload::Close { cumulative, signature, .. } => {
                signed(cumulative, &signature);
                self.send(escrow::close(id, cumulative, signature.into())).await;
                (204, String::new())
            }
            SessionPayload::TopUp(_) => panic!("the deposit is enough"),
        }
    }
}

#[async_trait]
impl Exchange for Shop {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        _: Duration,
    ) -> Result<Answer, SendError> {
        let mut headers = HeaderMap::new();
        let (status, body) = match payment {
            None => {
                let challenge = self.challenge().to_header().unwrap();
                headers.insert(mpp::header::WWW_AUTHENTICATE, HeaderValue::from_str(&challenge).unwrap());
                (402, "{}".to_owned())
            }
            Some(payment) => {
                let credential = Credential::parse(payment.value.as_bytes()).unwrap();
                let (status, body) = self.does(request, &credential).await;
                let Ok(Payload::EvmSession(payload)) = credential.payload() else { panic!() };
                let books = self.books.lock().unwrap();
                let receipt = SessionReceipt {
                    method: "evm".to_owned(),
                    timestamp: WireTime::from(system_clock().wall),
                    challenge_id: "challenge".to_owned(),
                    channel_id: *payload.channel_id(),
                    chain_id: Some(84532),
                    accepted_cumulative: books.accepted,
                    spent: books.spent,
                    units: Some(1),
                    tx_hash: None,
                };
                let value = HeaderValue::from_str(&receipt.to_receipt().to_header()).unwrap();
                headers.insert(mpp::header::PAYMENT_RECEIPT, value);
                (status, body)
            }
        };
        Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            version: Version::HTTP_11,
            headers,
            body: Body::Complete(body.into()),
            url: request.url.clone(),
            private: false,
        })
    }
}

struct House {
    devnet: Devnet,
    chain: Arc<RpcChain>,
    view: Arc<dyn ChainView>,
    shop: Arc<Shop>,
    wallet: LocalAuthorizer,
    journal: Arc<Journal>,
    client: Client,
}

async fn house() -> House {
    // Another test may have installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let devnet = Devnet::start(DevnetConfig::default()).await.unwrap();
    let config = ChainConfig::new(network(), vec![devnet.rpc_url().parse().unwrap()]);
    let chain = Arc::new(RpcChain::new(config).unwrap());
    let view: Arc<dyn ChainView> = Arc::new(EngineView::new(chain.clone(), true));
    let shop = Arc::new(Shop { chain: chain.clone(), books: Mutex::default() });
    let journal = Arc::new(Journal::in_memory().unwrap());
    let change = |rules: &mut Rules| {
        rules.networks.insert(network());
        rules.hosts.push(HostRule::new("seller.example".parse().unwrap()));
        rules.schemes.insert("session".to_owned());
        Ok(())
    };
    journal.change_rules(change).unwrap();
    let wallet = LocalAuthorizer::new(key(PAYER), journal.clone(), Registry::builtin())
        .with_dev_keys(|address| to_alloy(address).is_some_and(farthing_devnet::is_dev_key));
    let client =
        Client::builder().wallet(wallet.clone()).exchange(shop.clone()).chain(view.clone()).build().unwrap();
    House { devnet, chain, view, shop, wallet, journal, client }
}

impl House {
    async fn buy(&self, n: u32) {
        let request = HttpRequest::get(format!("{URL}?day={n}").parse().unwrap());
        let outcome = self.client.fetch_once(request, &Options::default()).await.unwrap();
        assert!(matches!(outcome, Outcome::Paid { .. }), "{outcome:?}");
    }

    async fn balance(&self, index: usize) -> u128 {
        self.view.balance(&usdc(), &account(index)).await.unwrap()
    }

    fn counted(&self) -> u128 {
        self.journal.spent(&Bucket::Dollar, &system_clock()).unwrap()[0].1 / 1_000_000_000_000
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
}

/// A world that is so much later.
struct Later(TokioWorld, Duration);

impl World for Later {
    fn now(&self) -> Timestamp {
        self.0.now().plus(self.1)
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }

    fn random(&self, into: &mut [u8]) {
        self.0.random(into);
    }
}

#[tokio::test]
async fn many_requests_are_two_transactions_and_every_atom_is_accounted_for() {
    let house = house().await;
    let before = (house.balance(PAYER).await, house.balance(SELLER).await);
    for n in 0..10 {
        house.buy(n).await;
    }
    assert_eq!(house.balance(PAYER).await, before.0 - DEPOSIT);
    assert_eq!(house.counted(), DEPOSIT);
    let id = house.journal.channels().unwrap()[0].id();
    let closed = house.client.close_channel(&id, &Options::default()).await.unwrap();
    assert_eq!(*closed.payer.state(), PayerState::Finalized);
    assert_eq!(house.balance(PAYER).await, before.0 - 10 * PRICE);
    assert_eq!(house.balance(SELLER).await, before.1 + 10 * PRICE);
    assert_eq!((house.shop.books.lock().unwrap().transactions, house.counted()), (2, 10 * PRICE));
}

#[tokio::test]
async fn a_deposit_comes_back_from_a_seller_that_answers_no_more() {
    let house = house().await;
    let before = house.balance(PAYER).await;
    house.buy(0).await;
    let id = house.journal.channels().unwrap()[0].id();
    let own = LocalKey::new(key(PAYER));
    let force = |world| Force {
        wallet: &house.wallet,
        chain: house.chain.as_ref(),
        view: house.view.as_ref(),
        key: &own,
        world,
        patience: Duration::from_secs(10),
    };
    let now = Later(TokioWorld::new(), Duration::ZERO);
    let Forced::Requested { until, .. } = force(&now).step(&id).await.unwrap() else { panic!() };
    assert_eq!(force(&now).step(&id).await.unwrap(), Forced::Waiting { until });
    // No voucher is signed while it closes: another channel is opened for what is bought now.
    house.buy(1).await;
    assert_eq!(house.journal.channels().unwrap().len(), 2);
    house.rpc("evm_increaseTime", "[1000]").await;
    house.rpc("evm_mine", "[]").await;
    let later = Later(TokioWorld::new(), Duration::from_secs(1_000));
    let withdrawn = force(&later).step(&id).await.unwrap();
    assert!(matches!(withdrawn, Forced::Withdrawn { .. }), "{withdrawn:?}");
    assert_eq!(force(&later).step(&id).await.unwrap(), Forced::Over);
    assert_eq!(house.balance(PAYER).await, before - DEPOSIT, "the second channel's");
    assert_eq!(house.counted(), DEPOSIT);
}
