//! Transfers that the payer makes itself, as far as no chain has to be asked.

use std::time::Duration;

use farthing_chain::LocalKey;
use farthing_engine::{ConflictKind, Fees, RelayerKey, UnsignedTx};
use farthing_evm::{U256, abi, from_alloy, to_alloy};
use farthing_payment::{Fault, Flow};
use farthing_primitives::{Address, Network, PullMethod};
use farthing_rails::pushed_evm::Pushed;
use farthing_wire::Object;
use farthing_wire::mpp::evm::{ChargePayload, CredentialType};
use farthing_wire::mpp::{Challenge, Credential, ProblemType, Receipt, Source, Terms as Asked};

use super::mpp::{assert_refused, challenges, problem, shown, with};
use super::support::*;
use crate::{Amount, Paid, Price, Rate, Route};

const ALL: [CredentialType; 3] =
    [CredentialType::Authorization, CredentialType::Transaction, CredentialType::Hash];
const HASH: [u8; 32] = [0xab; 32];

fn route(price: &str, types: &[CredentialType]) -> Route {
    Route::paid(Paid { credential_types: types.to_vec(), ..fixed(price) })
}

fn rig() -> Rig {
    Rig::new(vec![("GET /a", route("$0.002", &ALL)), ("GET /b", route("$0.002", &ALL))], Backend::ok())
}

fn account() -> Address {
    from_alloy(payer().address())
}

fn source(address: Address) -> Option<Source> {
    Source::evm(Network::eip155(84532), address)
}

fn by_hash(challenge: &Challenge) -> Credential {
    Credential::new(challenge.clone(), ChargePayload::Hash(HASH).to_object(), source(account()))
}

fn transaction(challenge: &Challenge, atoms: u128) -> Credential {
    let Ok(Asked::EvmCharge(charge)) = challenge.terms() else { panic!("a charge") };
    let payee = to_alloy(charge.recipient.address()).unwrap();
    let tx = LocalKey::new(payer()).sign(&UnsignedTx {
        chain_id: 84532,
        nonce: 7,
        to: charge.currency.address().clone(),
        data: abi::transfer(payee, U256::from(atoms)).0,
        gas: 100_000,
        fees: Fees { max_fee: 1_000_000_000, priority_fee: 1 },
    });
    let payload = ChargePayload::Transaction(tx.raw.to_vec()).to_object();
    Credential::new(challenge.clone(), payload, source(account()))
}

async fn asked(rig: &Rig, path: &str) -> Challenge {
    challenges(&rig.get(path).await).remove(0)
}

#[tokio::test]
async fn what_a_payer_sends_itself_is_taken_only_where_that_is_said() {
    let rig = Rig::weather();
    let challenge = asked(&rig, "/weather").await;
    let Ok(Asked::EvmCharge(charge)) = challenge.terms() else { panic!("a charge") };
    assert_eq!(charge.credential_types, [CredentialType::Authorization]);
    for mine in [by_hash(&challenge), transaction(&challenge, 2000)] {
        let got = rig.send(shown("/weather", &mine)).await;
        assert_eq!(got.code(), "credential_type_not_accepted");
        assert_refused(&got, &ProblemType::InvalidPayload);
    }
    assert_eq!(rig.model.sales(), 0);
}

#[tokio::test]
async fn a_hash_is_sold_for_after_its_money_and_a_transaction_as_the_route_says() {
    let rig = rig();
    let challenge = asked(&rig, "/a").await;
    let Ok(Asked::EvmCharge(charge)) = challenge.terms() else { panic!("a charge") };
    assert_eq!(charge.credential_types, ALL);
    let got = rig.send(shown("/a", &by_hash(&challenge))).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    let receipt = Receipt::parse(got.headers["payment-receipt"].as_bytes()).unwrap();
    assert_eq!(receipt.challenge_id.as_deref(), Some(challenge.id.as_str()));
    let mine = transaction(&asked(&rig, "/a").await, 2000);
    assert_eq!(rig.send(shown("/a", &mine)).await.status, 200);
    let seen = rig.model.seen.lock().unwrap().clone();
    assert_eq!((seen[0].flow, seen[1].flow), (Flow::Upfront, Flow::Authorization));
    for sale in &seen {
        let pushed = Pushed::recall(&sale.terms.instruction).unwrap();
        assert_eq!((pushed.key(), pushed.money()), (sale.key.clone(), &sale.terms.money));
        assert_eq!((&sale.terms.payer, sale.terms.payee.as_str()), (&account(), PAYEE));
        assert_eq!(sale.terms.money.atoms(), 2000);
    }
    // What was sent before it was asked for was sent for something else.
    let pushed = Pushed::recall(&seen[0].terms.instruction).unwrap();
    assert_eq!((pushed.not_before(), pushed.hash()), (Some(NOW), HASH));
}

#[tokio::test]
async fn a_shown_transfer_opens_only_what_its_challenge_was_made_for() {
    let rig = rig();
    let mine = asked(&rig, "/a").await;
    for credential in [by_hash(&mine), transaction(&mine, 2000)] {
        assert_refused(&rig.send(shown("/b", &credential)).await, &ProblemType::InvalidChallenge);
        let elsewhere = with(shown("/a", &credential), "host", "other.example");
        assert_refused(&rig.send(elsewhere).await, &ProblemType::InvalidChallenge);
        // Of another price, or one that takes what ours does not.
        let mut forged = credential.clone();
        let mut cheap = mine.request.object().clone();
        cheap.insert("amount", "1");
        forged.challenge.request = farthing_wire::mpp::EncodedRequest::new(cheap).unwrap();
        assert_refused(&rig.send(shown("/a", &forged)).await, &ProblemType::InvalidChallenge);
    }
    let short = transaction(&mine, 1999);
    let got = rig.send(shown("/a", &short)).await;
    assert_eq!(got.code(), "transaction_amount_mismatch");
    assert_refused(&got, &ProblemType::VerificationFailed);
    rig.world.advance(Duration::from_secs(3600));
    assert_refused(&rig.send(shown("/a", &by_hash(&mine))).await, &ProblemType::PaymentExpired);
    assert_eq!(rig.model.sales(), 0);
}

#[tokio::test]
async fn who_pays_is_said_and_is_who_signed() {
    let rig = rig();
    let challenge = asked(&rig, "/a").await;
    let refused = async |credential: Credential, code| {
        let got = rig.send(shown("/a", &credential)).await;
        assert_eq!(got.code(), code);
        assert_refused(&got, &ProblemType::VerificationFailed);
    };
    let other = Address::evm(PAYEE).unwrap();
    refused(Credential { source: None, ..by_hash(&challenge) }, "source_missing").await;
    let elsewhere = Source::evm(Network::eip155(1), account());
    refused(Credential { source: elsewhere, ..by_hash(&challenge) }, "source_mismatch").await;
    let named = Some(Source::parse("did:key:z6Mk").unwrap());
    refused(Credential { source: named, ..by_hash(&challenge) }, "source_mismatch").await;
    // The payee moves nothing to itself.
    refused(Credential { source: source(other.clone()), ..by_hash(&challenge) }, "transaction_to_its_payer")
        .await;
    refused(Credential { source: source(other), ..transaction(&challenge, 2000) }, "source_mismatch").await;
    assert_eq!(rig.model.sales(), 0);
    let unnamed = Credential { source: None, ..transaction(&challenge, 2000) };
    assert_eq!(rig.send(shown("/a", &unnamed)).await.status, 200);
}

#[tokio::test]
async fn one_transfer_in_two_challenges_and_two_transfers_for_one_buy_once() {
    let rig = rig();
    let (one, two) = (asked(&rig, "/a").await, asked(&rig, "/b").await);
    assert_eq!(rig.send(shown("/a", &by_hash(&one))).await.status, 200);
    let got = rig.send(shown("/b", &by_hash(&two))).await;
    assert_ne!(got.status, 200);
    got.assert_no_goods();
    // A challenge is paid once.
    let got = rig.send(shown("/a", &transaction(&one, 2000))).await;
    assert_eq!(got.code(), ConflictKind::NameTaken.code());
    got.assert_no_goods();
    assert_eq!(rig.backend.calls(), 1);
}

#[tokio::test]
async fn nobody_is_told_to_pay_anew_while_its_transfer_may_be_under_way() {
    let rig = rig();
    let mine = by_hash(&asked(&rig, "/a").await);
    for code in ["transaction_pending", "transaction_not_found"] {
        rig.model.forced.lock().unwrap().push_back(Forced::Refused(code, Fault::Chain));
        let got = rig.send(shown("/a", &mine)).await;
        assert_eq!((got.status, got.code().as_str()), (503, code));
        assert!(got.header("retry-after").is_some() && got.header("www-authenticate").is_none());
    }
    assert_eq!(rig.send(shown("/a", &mine)).await.status, 200);
}

/// Anybody can make up hashes, and each costs us a question to our node.
#[tokio::test]
async fn made_up_hashes_are_looked_up_only_so_often() {
    let limits =
        crate::Limits { contract_payments: Rate { per_second: 1, burst: 3 }, ..crate::Limits::default() };
    let rig = Rig::with(terms(vec![("GET /a", route("$0.002", &ALL))]), Backend::ok(), limits);
    let challenge = asked(&rig, "/a").await;
    let mut answers = Vec::new();
    for n in 0..5 {
        rig.model.forced.lock().unwrap().push_back(Forced::Refused("transaction_not_found", Fault::Chain));
        let payload = ChargePayload::Hash([n; 32]).to_object();
        let made_up = Credential::new(challenge.clone(), payload, source(account()));
        answers.push(rig.send(shown("/a", &made_up)).await.status);
    }
    assert_eq!((answers, rig.model.sales()), (vec![503, 503, 503, 429, 429], 3));
}

/// A token without EIP-3009 can be sold for in MPP too, by those who send it themselves.
#[tokio::test]
async fn a_token_without_signatures_is_sold_for_by_transfer() {
    let offer = way(PullMethod::Permit2).offer(&Amount::parse("$0.002").unwrap()).unwrap();
    let paid = || Paid::new(Price::Fixed(vec![offer.clone()]));
    let rig = Rig::new(vec![("GET /a", Route::paid(paid()))], Backend::ok());
    assert!(rig.get("/a").await.header("www-authenticate").is_none());
    let route = Route::paid(Paid { credential_types: ALL.to_vec(), ..paid() });
    let rig = Rig::new(vec![("GET /a", route)], Backend::ok());
    let challenge = asked(&rig, "/a").await;
    let Ok(Asked::EvmCharge(charge)) = challenge.terms() else { panic!("a charge") };
    assert_eq!(charge.credential_types, ALL[1..]);
    assert_eq!(rig.send(shown("/a", &transaction(&challenge, 2000))).await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_read_is_malformed_whatever_its_type() {
    let rig = rig();
    let challenge = asked(&rig, "/a").await;
    let payloads = [
        Object::new().with("type", "hash"),
        Object::new().with("type", "hash").with("hash", "0x12"),
        Object::new().with("type", "transaction").with("signature", "0x"),
    ];
    for payload in payloads {
        let odd = Credential::new(challenge.clone(), payload, source(account()));
        let got = rig.send(shown("/a", &odd)).await;
        assert_eq!((got.status, got.header("payment-receipt")), (402, None));
        let kinds = [ProblemType::InvalidPayload, ProblemType::MalformedCredential];
        assert!(kinds.contains(&problem(&got)), "{}", got.body);
    }
    let empty = ChargePayload::Transaction(vec![2, 0xc0]).to_object();
    let got = rig.send(shown("/a", &Credential::new(challenge, empty, source(account())))).await;
    assert_eq!(got.code(), "transaction_malformed");
    assert_refused(&got, &ProblemType::VerificationFailed);
    assert_eq!(rig.model.sales(), 0);
}
