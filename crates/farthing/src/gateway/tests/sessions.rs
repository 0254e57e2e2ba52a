//! A session through everything that a gateway is made of: its file, its till, a socket, and the embedded chain.

use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{ChannelId, PayeeState};
use farthing_devnet::{BlockTime, DEV_ACCOUNTS, Devnet, DevnetConfig, payment_channel_escrow};
use farthing_engine::ChannelStore;
use farthing_evm::voucher::{self, ChannelParts};
use farthing_evm::{B256, Domain, Key, TransferAuthorization, U256, from_alloy, to_alloy};
use farthing_primitives::Registry;
use farthing_rails::offer::BindingKey;
use farthing_wire::Uint256;
use farthing_wire::mpp::evm::{Funding, Open, Session, SessionPayload, Voucher};
use farthing_wire::mpp::{Challenge, Challenges, Credential, Receipt, Terms};
use farthing_wire::x402::exact_evm::Authorization;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::discovery;
use super::support::{RawUpstream, body, header, status};
use crate::config::Config;
use crate::gateway::{Gateway, bind};
use crate::wiring::{self, Rig, WiringError};

/// Its key is not here.
const NOBODY: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// Five events, in chunks.
fn five_words(_: &str) -> String {
    let event = "data: word\n\n";
    let chunks: String = (0..5).map(|_| format!("{:x}\r\n{event}\r\n", event.len())).collect();
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    )
}

/// The gateway of a file that sells these words for a tenth of a cent each.
fn config(devnet: &Devnet, upstream: std::net::SocketAddr, folder: &std::path::Path, pay_to: &str) -> Config {
    let key = folder.join("relayer.key");
    std::fs::write(&key, DEV_ACCOUNTS[0].private_key.to_string()).unwrap();
    let text = format!(
        "[gateway]\nupstream = \"http://{upstream}\"\nnetwork = \"base-sepolia\"\npay_to = \"{pay_to}\"\n\
         [store]\npath = \"{}\"\n\
         [networks.base-sepolia]\nrpc = [\"{}\"]\nrelayer_key = \"file:{}\"\nblock_time = \"50ms\"\n\
         [[route]]\nmatch = \"GET /words\"\n\
         session = {{ price = \"$0.001\", unit = \"token\", meter = \"event\", suggested_deposit = \"$0.1\" }}\n",
        folder.join("farthing.db").display(),
        devnet.rpc_url(),
        key.display(),
    );
    Config::parse("farthing.toml", &text, std::iter::empty()).unwrap()
}

async fn devnet() -> Devnet {
    // As the binary does at its start; another test may have done it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Devnet::start(DevnetConfig { block_time: BlockTime::Instant, ..DevnetConfig::default() }).await.unwrap()
}

struct Buyer {
    key: Key,
    challenge: Challenge,
    asked: Session,
}

impl Buyer {
    fn new(unpaid: &str) -> Self {
        let value = header(unpaid, "www-authenticate").unwrap();
        let challenge = Challenges::parse([value.as_bytes()]).unwrap().challenges.remove(0);
        let Terms::EvmSession(asked) = challenge.terms().unwrap() else { panic!("a session") };
        Self { key: Key::from_bytes(DEV_ACCOUNTS[1].private_key.0).unwrap(), asked: *asked, challenge }
    }

    fn parts(&self) -> ChannelParts {
        let evm = |address| to_alloy(address).unwrap();
        ChannelParts {
            payer: self.key.address(),
            payee: evm(self.asked.recipient.address()),
            token: evm(self.asked.currency.address()),
            salt: B256::from([8; 32]),
            authorized_signer: farthing_evm::Address::ZERO,
            escrow: evm(self.asked.escrow.address()),
            chain_id: self.asked.network.evm_chain_id().unwrap(),
        }
    }

    fn sign(&self, cumulative: u128) -> Vec<u8> {
        let parts = self.parts();
        let domain = voucher::escrow_domain(parts.chain_id, parts.escrow);
        self.key
            .sign(voucher::Voucher { channel: parts.id(), cumulative }.digest(&domain))
            .to_bytes()
            .to_vec()
    }

    fn open(&self, value: u128) -> SessionPayload {
        let parts = self.parts();
        let eip712 = Registry::builtin().dollar(&self.asked.network).unwrap().domain.clone().unwrap();
        let domain = Domain::new(&eip712.name, &eip712.version, parts.chain_id, parts.token);
        let signed = TransferAuthorization {
            from: parts.payer,
            to: parts.escrow,
            value: U256::from(value),
            valid_after: U256::ZERO,
            valid_before: U256::from(u64::MAX),
            nonce: parts.open_nonce(),
        };
        let authorization = Authorization {
            from: from_alloy(parts.payer),
            to: from_alloy(parts.escrow),
            value,
            valid_after: Uint256::ZERO,
            valid_before: Uint256::from(u64::MAX),
            nonce: parts.open_nonce().0,
        };
        SessionPayload::Open(Open {
            channel_id: parts.id().0,
            funding: Funding::Authorization {
                authorization,
                signature: self.key.sign(signed.receive_digest(&domain)).to_bytes().to_vec(),
            },
            cumulative: 0,
            voucher_signature: self.sign(0),
            authorized_signer: None,
            salt: parts.salt.0,
        })
    }

    /// A request as it goes over the wire.
    fn request(&self, method: &str, payload: &SessionPayload) -> String {
        let credential = Credential::new(self.challenge.clone(), payload.to_object(), None);
        let credential = credential.to_header().unwrap();
        format!(
            "{method} /words HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\nauthorization: {credential}\r\n\r\n"
        )
    }

    fn voucher(&self, cumulative: u128) -> SessionPayload {
        let (channel_id, signature) = (self.parts().id().0, self.sign(cumulative));
        SessionPayload::Voucher(Voucher { channel_id, cumulative, signature, deposit: None })
    }

    fn close(&self, cumulative: u128) -> SessionPayload {
        let (channel_id, signature) = (self.parts().id().0, self.sign(cumulative));
        SessionPayload::Close { channel_id, cumulative, signature }
    }
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

async fn till(config: &mut Config) -> Result<(Rig, Gateway), WiringError> {
    let gateway = config.gateway.take().unwrap();
    let rig = wiring::from_config(config, None).await?;
    let (till, collectors) = wiring::till(config, &rig, &gateway).await?;
    let key = BindingKey::new([5; 32], None);
    let built = Gateway::build(&gateway, Arc::new(rig.engine.clone()), rig.world.clone(), key).unwrap();
    Ok((rig, built.with_till(till, collectors)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_sold_over_a_socket_and_collected_on_the_chain() {
    let (devnet, folder) = (devnet().await, tempfile::tempdir().unwrap());
    let upstream = RawUpstream::start(five_words).await;
    let payee = from_alloy(Key::from_bytes(DEV_ACCOUNTS[0].private_key.0).unwrap().address());
    let mut config = config(&devnet, upstream.address, folder.path(), payee.as_str());
    let (rig, gateway) = till(&mut config).await.unwrap();
    let mut other = self::config(&devnet, upstream.address, folder.path(), NOBODY);
    let refused = gateway.reload(&other.gateway.take().unwrap());
    assert!(refused.unwrap_err().to_string().contains("whom nobody here can collect for"));
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stop = async move {
            let _ = stopped.await;
        };
        gateway.serve_on(listener, stop).await.unwrap();
    });

    let unpaid = ask(address, "GET /words HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n\r\n").await;
    assert_eq!(status(&unpaid), 402, "{unpaid}");
    let document = ask(address, "GET /openapi.json HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let document: serde_json::Value = serde_json::from_str(body(&document)).unwrap();
    let said = discovery::said(&document["paths"]["/words"]["get"]);
    assert!(said.iter().any(|(name, amount, ..)| name == "evm/session" && amount.as_deref() == Some("1000")));
    assert_eq!(said, discovery::asked(&unpaid));
    let buyer = Buyer::new(&unpaid);
    let escrow = payment_channel_escrow().unwrap().deployment.unwrap().address;
    assert_eq!((buyer.asked.amount, buyer.parts().escrow), (1000, escrow));
    let opened = ask(address, &buyer.request("POST", &buyer.open(100_000))).await;
    assert_eq!(status(&opened), 204, "{opened}");
    assert_eq!(upstream.count(), 0);

    let streamed = ask(address, &buyer.request("GET", &buyer.voucher(5000))).await;
    assert_eq!(status(&streamed), 200, "{streamed}");
    assert_eq!(body(&streamed).matches("data: word\n").count(), 5, "{streamed}");
    assert!(body(&streamed).contains("event: payment-receipt\n"), "{streamed}");
    assert!(!upstream.last().contains("Payment "), "the service never sees what pays");

    let closed = ask(address, &buyer.request("POST", &buyer.close(5000))).await;
    assert_eq!(status(&closed), 204, "{closed}");
    let receipt = Receipt::parse(header(&closed, "payment-receipt").unwrap().as_bytes()).unwrap();
    let receipt = receipt.session().unwrap().unwrap();
    assert_eq!((receipt.spent, receipt.tx_hash.is_some()), (5000, true));
    let channel = rig.store.channel(ChannelId(buyer.parts().id().0)).await.unwrap().unwrap();
    assert_eq!((channel.settled(), channel.state()), (5000, &PayeeState::Finalized));
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(60), serving).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payee_that_nobody_can_collect_for_is_found_at_the_start() {
    let (devnet, folder) = (devnet().await, tempfile::tempdir().unwrap());
    let mut config = config(&devnet, "127.0.0.1:1".parse().unwrap(), folder.path(), NOBODY);
    let Err(error) = till(&mut config).await else { panic!("nobody has its key") };
    assert!(error.to_string().contains("whom nobody here can collect for"), "{error}");
}
