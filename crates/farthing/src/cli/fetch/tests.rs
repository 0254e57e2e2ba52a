use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::TxHash;
use farthing_evm::Key;
use farthing_policy::HostRule;
use farthing_primitives::{Address, AssetId, Timestamp};
use farthing_rails::exact_evm::Checked;
use farthing_wallet::client::{Exchange, Reach};
use farthing_wallet::journal::Header;
use farthing_wallet::{ChainView, LocalAuthorizer, Permit2State, Sight};
use farthing_wire::x402::{Message, header as names, v2};

use super::*;

const CHALLENGE: &str = r#"{"x402Version":2,"resource":{"url":"https://shop.example/"},"accepts":[{"scheme":"exact",
    "network":"eip155:84532","amount":"60000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
    "payTo":"0x0101010101010101010101010101010101010101","maxTimeoutSeconds":60,
    "extra":{"name":"USDC","version":"2"}}]}"#;

/// A seller who asks everybody for the same, and serves whoever pays.
struct Seller;

#[async_trait]
impl Exchange for Seller {
    async fn send(
        &self,
        request: &HttpRequest,
        payment: Option<&Header>,
        _: Reach,
        _: Duration,
    ) -> Result<Answer, SendError> {
        let mut headers = HeaderMap::new();
        if payment.is_none() {
            let challenge = v2::PaymentRequired::parse(CHALLENGE.as_bytes()).unwrap().to_header();
            headers.insert(names::PAYMENT_REQUIRED, challenge.parse().unwrap());
        }
        Ok(Answer {
            status: http::StatusCode::from_u16(if payment.is_some() { 200 } else { 402 }).unwrap(),
            version: http::Version::HTTP_11,
            headers,
            body: Body::Complete(Bytes::from_static(b"{}")),
            url: request.url.clone(),
            private: false,
        })
    }
}

/// A chain that takes so long to say a balance that another process spends the budget meanwhile.
#[derive(Debug)]
struct SlowChain {
    network: Network,
    other: Client,
}

#[async_trait]
impl ChainView for SlowChain {
    fn network(&self) -> &Network {
        &self.network
    }

    fn is_devnet(&self) -> bool {
        false
    }

    async fn time(&self) -> Option<Timestamp> {
        None
    }

    async fn settled_time(&self) -> Option<Timestamp> {
        None
    }

    async fn balance(&self, _: &AssetId, _: &Address) -> Option<u128> {
        let outcome = self.other.fetch(request(), &Options::default()).await.unwrap();
        assert!(matches!(outcome, Outcome::Paid { .. }), "{outcome:?}");
        None
    }

    async fn permit2(&self, _: &AssetId, _: &Address) -> Option<Permit2State> {
        None
    }

    async fn sight(&self, _: &Checked, _: Option<TxHash>) -> Sight {
        Sight::Unavailable
    }
}

fn request() -> HttpRequest {
    HttpRequest::get("https://shop.example/".parse().unwrap())
}

#[tokio::test]
async fn a_budget_that_another_process_spends_meanwhile_is_a_denial_with_its_code() {
    let journal = Arc::new(Journal::in_memory().unwrap());
    let cents = |n: u128| n * 10u128.pow(16);
    let change = |rules: &mut farthing_policy::Rules| {
        rules.hosts.push(HostRule::new("shop.example".parse().unwrap()));
        rules.caps.values_mut().for_each(|caps| caps.hour = cents(10));
        Ok(())
    };
    journal.change_rules(change).unwrap();
    let wallet =
        || LocalAuthorizer::new(Key::from_bytes([7; 32]).unwrap(), journal.clone(), Registry::builtin());
    let other = Client::builder().wallet(wallet()).exchange(Arc::new(Seller)).build().unwrap();
    let chain = SlowChain { network: Network::eip155(84532), other };
    let client =
        Client::builder().wallet(wallet()).exchange(Arc::new(Seller)).chain(Arc::new(chain)).build().unwrap();
    let done = client.fetch_once(request(), &Options::default()).await;
    let told = ended(done, request().url.to_string(), Some(&journal));
    let json = report(&told, true, Duration::ZERO);
    assert_eq!((&json["outcome"], &json["exit"]), (&"denied".into(), &3.into()), "{json}");
    // The offer itself was permitted when it was looked at.
    assert_eq!(json["offers"][0]["objection"], Value::Null, "{json}");
    assert_eq!(json["denied"]["code"], "over_hour_cap", "{json}");
    assert_eq!(journal.history(10).unwrap().len(), 1, "one purchase, that of the other");
}
