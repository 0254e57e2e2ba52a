//! What the contracts of the embedded chain do, as a payment meets them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use alloy_consensus::TxEip7702;
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Bytes, Signature, U256, hex, keccak256};
use alloy_sol_types::{SolCall, SolError, SolEvent, SolValue, eip712_domain, sol};
use common::*;
use farthing_devnet::{
    DevAccount, MINTER, MULTICALL3, PERMIT2, USDC, WALLET_FACTORY, X402_EXACT_PROXY, payment_channel_escrow,
    smart_wallet,
};
use serde_json::{Value, json};

const USED: &str = "execution reverted: FiatTokenV2: authorization is used or canceled";
const BAD_SIGNATURE: &str = "execution reverted: FiatTokenV2: invalid signature";

fn authorization(from: Address, to: Address, value: u64) -> TransferWithAuthorization {
    TransferWithAuthorization {
        from,
        to,
        value: U256::from(value),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: keccak256(b"one payment"),
    }
}

fn split(
    auth: &TransferWithAuthorization,
    signature: Signature,
) -> SplitSignature::transferWithAuthorizationCall {
    SplitSignature::transferWithAuthorizationCall {
        from: auth.from,
        to: auth.to,
        value: auth.value,
        validAfter: auth.validAfter,
        validBefore: auth.validBefore,
        nonce: auth.nonce,
        v: 27 + u8::from(signature.v()),
        r: signature.r().into(),
        s: signature.s().into(),
    }
}

fn whole(
    auth: &TransferWithAuthorization,
    signature: Bytes,
) -> WholeSignature::transferWithAuthorizationCall {
    WholeSignature::transferWithAuthorizationCall {
        from: auth.from,
        to: auth.to,
        value: auth.value,
        validAfter: auth.validAfter,
        validBefore: auth.validBefore,
        nonce: auth.nonce,
        signature,
    }
}

fn topics(receipt: &Value) -> Vec<String> {
    receipt["logs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|log| log["topics"][0].as_str().unwrap().to_owned())
        .collect()
}

fn topic<E: SolEvent>() -> String {
    E::SIGNATURE_HASH.to_string()
}

#[tokio::test]
async fn the_token_looks_like_usdc_on_base_sepolia() {
    let chain = chain().await;
    assert_eq!(chain.call(USDC, Token::nameCall {}).await.unwrap(), "USDC");
    assert_eq!(chain.call(USDC, Token::versionCall {}).await.unwrap(), "2");
    assert_eq!(chain.call(USDC, Token::decimalsCall {}).await.unwrap(), 6);
    assert_eq!(chain.call(USDC, Token::DOMAIN_SEPARATORCall {}).await.unwrap(), usdc_domain().separator());
    assert_eq!(
        chain.call(PERMIT2, Signed::DOMAIN_SEPARATORCall {}).await.unwrap(),
        permit2_domain().separator()
    );
    assert_eq!(chain.call(X402_EXACT_PROXY, Proxy::PERMIT2Call {}).await.unwrap(), PERMIT2);
    assert_eq!(chain.usdc(dev(0).address).await, 1_000_000_000_000);
    let supply = chain.call(USDC, Token::totalSupplyCall {}).await.unwrap();
    assert_eq!(supply, U256::from(20u64 * 1_000_000_000_000));
}

#[tokio::test]
async fn an_authorization_moves_money_once() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    let auth = authorization(payer.address, payee.address, 1_000);
    let signature = signed(payer, &auth, &usdc_domain());
    let receipt = chain.done(relayer, USDC, split(&auth, signature)).await;
    assert_eq!(topics(&receipt), [topic::<Token::AuthorizationUsed>(), topic::<Token::Transfer>()]);
    assert_eq!(chain.usdc(payer.address).await, 999_999_999_000);
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_000);
    let state = Token::authorizationStateCall { authorizer: payer.address, nonce: auth.nonce };
    assert!(chain.call(USDC, state).await.unwrap());

    // Neither the same overload nor the other one spends it again.
    assert_eq!(chain.refused(relayer, USDC, split(&auth, signature)).await.message, USED);
    assert_eq!(chain.refused(relayer, USDC, whole(&auth, bytes(signature))).await.message, USED);
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_000);

    let other = TransferWithAuthorization { nonce: keccak256(b"another"), ..auth };
    chain.done(relayer, USDC, whole(&other, bytes(signed(payer, &other, &usdc_domain())))).await;
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_002_000);
}

#[tokio::test]
async fn the_window_excludes_both_ends() {
    let chain = chain().await;
    let (payer, payee) = (dev(0), dev(1));
    let opens = chain.now().await + 1_000;
    let closes = opens + 60;
    let auth = TransferWithAuthorization {
        validAfter: U256::from(opens),
        validBefore: U256::from(closes),
        ..authorization(payer.address, payee.address, 1)
    };
    let data = hex::encode_prefixed(split(&auth, signed(payer, &auth, &usdc_domain())).abi_encode());
    let at = async |time: u64| {
        let call = json!([{ "to": USDC, "data": data }, "latest", {}, { "time": format!("{time:#x}") }]);
        chain.rpc("eth_call", call).await.map_err(|refusal| refusal.message)
    };
    let early = "execution reverted: FiatTokenV2: authorization is not yet valid".to_owned();
    let late = "execution reverted: FiatTokenV2: authorization is expired".to_owned();
    assert_eq!(at(opens).await, Err(early));
    assert_eq!(at(opens + 1).await, Ok(json!("0x")));
    assert_eq!(at(closes - 1).await, Ok(json!("0x")));
    assert_eq!(at(closes).await, Err(late));
}

#[tokio::test]
async fn only_the_payers_own_signature_counts() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    let auth = authorization(payer.address, payee.address, 1_000);
    let good = signed(payer, &auth, &usdc_domain());

    let foreign = signed(payee, &auth, &usdc_domain());
    assert_eq!(chain.refused(relayer, USDC, split(&auth, foreign)).await.message, BAD_SIGNATURE);
    let dearer = TransferWithAuthorization { value: U256::from(1_001), ..auth.clone() };
    assert_eq!(chain.refused(relayer, USDC, split(&dearer, good)).await.message, BAD_SIGNATURE);
    let mut domain = usdc_domain();
    domain.chain_id = Some(U256::from(8453));
    let elsewhere = signed(payer, &auth, &domain);
    assert_eq!(chain.refused(relayer, USDC, split(&auth, elsewhere)).await.message, BAD_SIGNATURE);
    // The same signature in the upper half of the order, which ecrecover itself would take.
    let order =
        U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16).unwrap();
    let high = Signature::new(good.r(), order - good.s(), !good.v());
    assert_eq!(
        chain.refused(relayer, USDC, split(&auth, high)).await.message,
        "execution reverted: ECRecover: invalid signature 's' value"
    );
    let mut zero_based = split(&auth, good);
    zero_based.v -= 27;
    assert_eq!(
        chain.refused(relayer, USDC, zero_based).await.message,
        "execution reverted: ECRecover: invalid signature 'v' value"
    );
    assert_eq!(
        chain.refused(relayer, USDC, whole(&auth, vec![7; 64].into())).await.message,
        "execution reverted: ECRecover: invalid signature length"
    );
    let state = Token::authorizationStateCall { authorizer: payer.address, nonce: auth.nonce };
    assert!(!chain.call(USDC, state).await.unwrap());
}

#[tokio::test]
async fn more_than_the_balance_moves_nothing() {
    let chain = chain().await;
    let (payer, relayer) = (dev(0), dev(2));
    let auth = authorization(payer.address, dev(1).address, 1_000_000_000_001);
    let signature = signed(payer, &auth, &usdc_domain());
    assert_eq!(
        chain.refused(relayer, USDC, split(&auth, signature)).await.message,
        "execution reverted: ERC20: transfer amount exceeds balance"
    );
    // The revert also gave the nonce back.
    let state = Token::authorizationStateCall { authorizer: payer.address, nonce: auth.nonce };
    assert!(!chain.call(USDC, state).await.unwrap());
}

#[tokio::test]
async fn a_cancelled_authorization_is_dead() {
    let chain = chain().await;
    let (payer, relayer) = (dev(0), dev(2));
    let auth = authorization(payer.address, dev(1).address, 1_000);
    let cancel = CancelAuthorization { authorizer: payer.address, nonce: auth.nonce };
    let signature = bytes(signed(payer, &cancel, &usdc_domain()));
    chain
        .done(
            relayer,
            USDC,
            Token::cancelAuthorizationCall { authorizer: payer.address, nonce: auth.nonce, signature },
        )
        .await;
    let signature = signed(payer, &auth, &usdc_domain());
    assert_eq!(chain.refused(relayer, USDC, split(&auth, signature)).await.message, USED);
}

#[tokio::test]
async fn only_the_payee_receives() {
    let chain = chain().await;
    let (payer, payee) = (dev(0), dev(1));
    let auth = ReceiveWithAuthorization {
        from: payer.address,
        to: payee.address,
        value: U256::from(5),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce: B256::repeat_byte(1),
    };
    let signature = signed(payer, &auth, &usdc_domain());
    let call = SplitSignature::receiveWithAuthorizationCall {
        from: auth.from,
        to: auth.to,
        value: auth.value,
        validAfter: auth.validAfter,
        validBefore: auth.validBefore,
        nonce: auth.nonce,
        v: 27 + u8::from(signature.v()),
        r: signature.r().into(),
        s: signature.s().into(),
    };
    assert_eq!(
        chain.refused(dev(2), USDC, call.clone()).await.message,
        "execution reverted: FiatTokenV2: caller must be the payee"
    );
    chain.done(payee, USDC, call).await;
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_000_005);
}

/// Deploys a wallet of this owner through the factory and funds it.
async fn wallet(chain: &Chain, owner: DevAccount) -> Address {
    let salt = B256::repeat_byte(9);
    let wallet =
        chain.call(WALLET_FACTORY, Wallets::walletOfCall { owner: owner.address, salt }).await.unwrap();
    assert_eq!(chain.ok("eth_getCode", json!([wallet, "latest"])).await, "0x");
    chain.done(dev(5), WALLET_FACTORY, Wallets::deployCall { owner: owner.address, salt }).await;
    let code: Bytes =
        serde_json::from_value(chain.ok("eth_getCode", json!([wallet, "latest"])).await).unwrap();
    assert_eq!(code, smart_wallet().unwrap().deployed_bytecode);
    // Whoever comes second finds it there and does not fail.
    chain.done(dev(6), WALLET_FACTORY, Wallets::deployCall { owner: owner.address, salt }).await;
    chain.done(dev(5), USDC, Token::transferCall { to: wallet, value: U256::from(10_000) }).await;
    wallet
}

#[tokio::test]
async fn a_smart_wallet_pays_by_its_owners_signature() {
    let chain = chain().await;
    let (owner, payee, relayer) = (dev(0), dev(1), dev(2));
    let wallet = wallet(&chain, owner).await;
    let auth = authorization(wallet, payee.address, 1_000);
    let foreign = bytes(signed(payee, &auth, &usdc_domain()));
    assert_eq!(chain.refused(relayer, USDC, whole(&auth, foreign)).await.message, BAD_SIGNATURE);
    assert_eq!(chain.refused(relayer, USDC, whole(&auth, Bytes::new())).await.message, BAD_SIGNATURE);
    chain.done(relayer, USDC, whole(&auth, bytes(signed(owner, &auth, &usdc_domain())))).await;
    assert_eq!(chain.usdc(wallet).await, 9_000);

    // The split overload also asks the contract (FiatTokenV2_2).
    let second = TransferWithAuthorization { nonce: B256::repeat_byte(2), ..auth };
    chain.done(relayer, USDC, split(&second, signed(owner, &second, &usdc_domain()))).await;
    assert_eq!(chain.usdc(wallet).await, 8_000);
}

#[tokio::test]
async fn a_delegated_account_pays_through_its_code() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(3), dev(1), dev(2));
    let template = dev(4);
    let code = smart_wallet().unwrap().deployed_bytecode;
    let delegate = Address::repeat_byte(0xde);
    chain.ok("anvil_setCode", json!([delegate, code])).await;
    let authorization_7702 = Authorization { chain_id: U256::from(84_532), address: delegate, nonce: 0 };
    let signature = sign(payer, authorization_7702.signature_hash());
    let tx = TxEip7702 {
        chain_id: 84_532,
        nonce: 0,
        gas_limit: 200_000,
        max_fee_per_gas: 3_000_000_000,
        max_priority_fee_per_gas: 1,
        to: template.address,
        authorization_list: vec![authorization_7702.into_signed(signature)],
        ..TxEip7702::default()
    };
    let hash = chain.raw(&sealed(relayer, tx)).await.unwrap();
    let receipt = chain.ok("eth_getTransactionReceipt", json!([hash])).await;
    assert_eq!((receipt["status"].as_str(), receipt["type"].as_str()), (Some("0x1"), Some("0x4")));
    let designator = chain.ok("eth_getCode", json!([payer.address, "latest"])).await;
    assert_eq!(designator, hex::encode_prefixed([&[0xef, 0x01, 0x00], delegate.as_slice()].concat()));
    assert_eq!(chain.nonce(payer.address, "latest").await, 1);

    let auth = authorization(payer.address, payee.address, 1_000);
    let foreign = signed(payee, &auth, &usdc_domain());
    assert_eq!(chain.refused(relayer, USDC, split(&auth, foreign)).await.message, BAD_SIGNATURE);
    chain.done(relayer, USDC, split(&auth, signed(payer, &auth, &usdc_domain()))).await;
    // An account with a delegation still sends transactions of its own.
    chain.done(payer, USDC, Token::transferCall { to: payee.address, value: U256::from(1) }).await;
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_001);
}

#[tokio::test]
async fn a_permit_allows_once() {
    let chain = chain().await;
    let (owner, spender, relayer) = (dev(0), dev(1), dev(2));
    let permit = Permit {
        owner: owner.address,
        spender: spender.address,
        value: U256::from(500),
        nonce: U256::ZERO,
        deadline: U256::from(chain.now().await + 1_000),
    };
    let call = |signature: Signature, permit: &Permit| WholeSignature::permitCall {
        owner: permit.owner,
        spender: permit.spender,
        value: permit.value,
        deadline: permit.deadline,
        signature: bytes(signature),
    };
    let good = signed(owner, &permit, &usdc_domain());
    let invalid = "execution reverted: EIP2612: invalid signature";
    assert_eq!(
        chain.refused(relayer, USDC, call(signed(spender, &permit, &usdc_domain()), &permit)).await.message,
        invalid
    );
    chain.done(relayer, USDC, call(good, &permit)).await;
    assert_eq!(chain.refused(relayer, USDC, call(good, &permit)).await.message, invalid);
    let expired = Permit { deadline: U256::ONE, nonce: U256::ONE, ..permit };
    assert_eq!(
        chain.refused(relayer, USDC, call(signed(owner, &expired, &usdc_domain()), &expired)).await.message,
        "execution reverted: FiatTokenV2: permit is expired"
    );
    let take = |value: u64| Token::transferFromCall {
        from: owner.address,
        to: relayer.address,
        value: U256::from(value),
    };
    assert_eq!(
        chain.refused(spender, USDC, take(501)).await.message,
        "execution reverted: ERC20: transfer amount exceeds allowance"
    );
    chain.done(spender, USDC, take(500)).await;
    let left = Token::allowanceCall { owner: owner.address, spender: spender.address };
    assert_eq!(chain.call(USDC, left).await.unwrap(), U256::ZERO);
}

#[tokio::test]
async fn minting_and_blocking_is_for_the_minter() {
    let chain = chain().await;
    let to = Address::repeat_byte(0x11);
    let mint = Token::mintCall { to, value: U256::from(1_000_000) };
    assert_eq!(
        chain.refused(dev(0), USDC, mint).await.message,
        "execution reverted: FiatToken: caller is not a minter"
    );
    let hash = chain.ok("farthing_mintUsdc", json!([to, "0xf4240"])).await;
    assert_eq!(chain.ok("eth_getTransactionReceipt", json!([hash])).await["status"], "0x1");
    assert_eq!(chain.usdc(to).await, 1_000_000);

    chain.done(MINTER, USDC, Token::blacklistCall { account: dev(0).address }).await;
    let auth = authorization(dev(0).address, dev(1).address, 1);
    let signature = signed(dev(0), &auth, &usdc_domain());
    assert_eq!(
        chain.refused(dev(2), USDC, split(&auth, signature)).await.message,
        "execution reverted: Blacklistable: account is blacklisted"
    );
    chain.done(MINTER, USDC, Token::unBlacklistCall { account: dev(0).address }).await;
    chain.done(dev(2), USDC, split(&auth, signature)).await;
}

// ---- Permit2 and the x402 proxy ----

struct Offer {
    permit: PermitWitnessTransferFrom,
}

impl Offer {
    fn new(to: Address, amount: u64, nonce: u64, deadline: u64) -> Self {
        Self {
            permit: PermitWitnessTransferFrom {
                permitted: TokenPermissions { token: USDC, amount: U256::from(amount) },
                spender: X402_EXACT_PROXY,
                nonce: U256::from(nonce),
                deadline: U256::from(deadline),
                witness: Witness { to, validAfter: U256::ZERO },
            },
        }
    }

    fn sign(&self, owner: DevAccount) -> Bytes {
        bytes(signed(owner, &self.permit, &permit2_domain()))
    }

    fn transfer(&self) -> Proxy::Transfer {
        Proxy::Transfer {
            permitted: Proxy::Permitted { token: USDC, amount: self.permit.permitted.amount },
            nonce: self.permit.nonce,
            deadline: self.permit.deadline,
        }
    }

    fn witness(&self) -> Proxy::To {
        Proxy::To { to: self.permit.witness.to, validAfter: self.permit.witness.validAfter }
    }

    fn settle(&self, owner: Address, signature: Bytes) -> Proxy::settleCall {
        Proxy::settleCall { permit: self.transfer(), owner, witness: self.witness(), signature }
    }
}

fn is<E: SolError>(refusal: &Refusal) -> bool {
    let data: Bytes = serde_json::from_value(refusal.data.clone()).unwrap();
    data.get(..4) == Some(&E::SELECTOR)
}

async fn approve_permit2(chain: &Chain, owner: DevAccount) {
    chain.done(owner, USDC, Token::approveCall { spender: PERMIT2, value: U256::MAX }).await;
}

#[tokio::test]
async fn a_permit2_payment_settles_once_and_only_as_signed() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    let far = chain.now().await + 100_000;
    let offer = Offer::new(payee.address, 1_000, 770, far);
    let signature = offer.sign(payer);

    // Without an allowance for Permit2 nothing moves, and the nonce is not used up.
    assert_eq!(
        chain
            .refused(relayer, X402_EXACT_PROXY, offer.settle(payer.address, signature.clone()))
            .await
            .message,
        "execution reverted: TRANSFER_FROM_FAILED"
    );
    approve_permit2(&chain, payer).await;

    let other_payee = Offer::new(relayer.address, 1_000, 770, far);
    let refusal =
        chain.refused(relayer, X402_EXACT_PROXY, other_payee.settle(payer.address, signature.clone())).await;
    assert!(is::<Errors::InvalidSigner>(&refusal), "{refusal:?}");
    let dearer = Offer::new(payee.address, 1_001, 770, far);
    let refusal =
        chain.refused(relayer, X402_EXACT_PROXY, dearer.settle(payer.address, signature.clone())).await;
    assert!(is::<Errors::InvalidSigner>(&refusal), "{refusal:?}");
    // Signed for the proxy, so nobody else may spend it.
    let direct = Signed::permitTransferFromCall {
        permit: Signed::Transfer {
            permitted: Signed::Permitted { token: USDC, amount: U256::from(1_000) },
            nonce: U256::from(770),
            deadline: U256::from(far),
        },
        details: Signed::Details { to: relayer.address, requestedAmount: U256::from(1_000) },
        owner: payer.address,
        signature: signature.clone(),
    };
    assert!(is::<Errors::InvalidSigner>(&chain.refused(relayer, PERMIT2, direct).await));

    let receipt = chain.done(relayer, X402_EXACT_PROXY, offer.settle(payer.address, signature.clone())).await;
    assert_eq!(topics(&receipt), [topic::<Token::Transfer>(), topic::<Proxy::Settled>()]);
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_000);
    // Nonce 770 is bit 2 of word 3.
    let word = Signed::nonceBitmapCall { owner: payer.address, word: U256::from(3) };
    assert_eq!(chain.call(PERMIT2, word).await.unwrap(), U256::from(4));
    let refusal = chain.refused(relayer, X402_EXACT_PROXY, offer.settle(payer.address, signature)).await;
    assert!(is::<Errors::InvalidNonce>(&refusal), "{refusal:?}");
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_000);
}

#[tokio::test]
async fn permit2_respects_windows_amounts_and_revoked_nonces() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    approve_permit2(&chain, payer).await;
    let now = chain.now().await;
    let far = now + 100_000;
    let attempt = async |offer: Offer| {
        let call = offer.settle(payer.address, offer.sign(payer));
        chain.refused(relayer, X402_EXACT_PROXY, call).await
    };
    assert!(is::<Errors::SignatureExpired>(&attempt(Offer::new(payee.address, 1, 1, now - 1)).await));
    assert!(is::<Errors::InvalidAmount>(&attempt(Offer::new(payee.address, 0, 1, far)).await));
    assert!(is::<Errors::InvalidDestination>(&attempt(Offer::new(Address::ZERO, 1, 1, far)).await));
    let mut early = Offer::new(payee.address, 1, 1, far);
    early.permit.witness.validAfter = U256::from(far);
    assert!(is::<Errors::PaymentTooEarly>(&attempt(early).await));
    chain
        .done(payer, PERMIT2, Signed::invalidateUnorderedNoncesCall { word: U256::ZERO, mask: U256::from(2) })
        .await;
    assert!(is::<Errors::InvalidNonce>(&attempt(Offer::new(payee.address, 1, 1, far)).await));

    // The 64 bytes of EIP-2098 are as good as the 65.
    let offer = Offer::new(payee.address, 7, 2, far);
    let signature = signed(payer, &offer.permit, &permit2_domain());
    let compact = Bytes::from(signature.as_erc2098().to_vec());
    chain.done(relayer, X402_EXACT_PROXY, offer.settle(payer.address, compact)).await;
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_000_007);
}

#[tokio::test]
async fn a_smart_wallet_pays_over_permit2() {
    let chain = chain().await;
    let (owner, payee, relayer) = (dev(0), dev(1), dev(2));
    let wallet = wallet(&chain, owner).await;
    let approve = Token::approveCall { spender: PERMIT2, value: U256::MAX }.abi_encode();
    let execute = Wallets::executeCall { target: USDC, value: U256::ZERO, data: approve.into() };
    assert_eq!(chain.send(relayer, wallet, execute.clone()).await["status"], "0x0");
    chain.done(owner, wallet, execute).await;
    let offer = Offer::new(payee.address, 300, 0, chain.now().await + 1_000);
    let refusal = chain.refused(relayer, X402_EXACT_PROXY, offer.settle(wallet, offer.sign(payee))).await;
    assert!(is::<Errors::InvalidContractSignature>(&refusal), "{refusal:?}");
    chain.done(relayer, X402_EXACT_PROXY, offer.settle(wallet, offer.sign(owner))).await;
    assert_eq!(chain.usdc(wallet).await, 9_700);
}

#[tokio::test]
async fn a_gas_sponsored_permit_settles_without_an_earlier_approval() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    let deadline = chain.now().await + 1_000;
    let offer = Offer::new(payee.address, 1_000, 5, deadline);
    let permit = Permit {
        owner: payer.address,
        spender: PERMIT2,
        value: U256::from(1_000),
        nonce: U256::ZERO,
        deadline: U256::from(deadline),
    };
    let signature = signed(payer, &permit, &usdc_domain());
    let permit2612 = Proxy::Permit2612 {
        value: permit.value,
        deadline: permit.deadline,
        r: signature.r().into(),
        s: signature.s().into(),
        v: 27 + u8::from(signature.v()),
    };
    let call = |offer: &Offer, permit2612: Proxy::Permit2612| Proxy::settleWithPermitCall {
        permit2612,
        permit: offer.transfer(),
        owner: payer.address,
        witness: offer.witness(),
        signature: offer.sign(payer),
    };
    let wrong = Proxy::Permit2612 { value: U256::from(999), ..permit2612.clone() };
    let refusal = chain.refused(relayer, X402_EXACT_PROXY, call(&offer, wrong)).await;
    assert!(is::<Errors::Permit2612AmountMismatch>(&refusal), "{refusal:?}");

    let receipt = chain.done(relayer, X402_EXACT_PROXY, call(&offer, permit2612.clone())).await;
    assert_eq!(topics(&receipt).last(), Some(&topic::<Proxy::SettledWithPermit>()));
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_001_000);

    // A used-up permit is only a remark where the allowance is there already.
    approve_permit2(&chain, payer).await;
    let next = Offer::new(payee.address, 1_000, 6, deadline);
    let receipt = chain.done(relayer, X402_EXACT_PROXY, call(&next, permit2612)).await;
    assert_eq!(topics(&receipt).first(), Some(&topic::<Proxy::EIP2612PermitFailedWithReason>()));
    assert_eq!(chain.usdc(payee.address).await, 1_000_000_002_000);
}

#[tokio::test]
async fn multicall_answers_each_call_for_itself() {
    let chain = chain().await;
    let good = Multi::Call3 {
        target: USDC,
        allowFailure: true,
        callData: Token::balanceOfCall { account: dev(0).address }.abi_encode().into(),
    };
    let bad = Multi::Call3 {
        target: USDC,
        allowFailure: true,
        callData: Token::mintCall { to: dev(0).address, value: U256::ONE }.abi_encode().into(),
    };
    let outcomes =
        chain.call(MULTICALL3, Multi::aggregate3Call { calls: vec![good.clone(), bad.clone()] }).await;
    let outcomes = outcomes.unwrap();
    assert!(outcomes[0].success);
    assert_eq!(U256::from_be_slice(&outcomes[0].returnData), U256::from(1_000_000_000_000u64));
    assert!(!outcomes[1].success);
    let strict = Multi::Call3 { allowFailure: false, ..bad };
    let refusal = chain.call(MULTICALL3, Multi::aggregate3Call { calls: vec![good, strict] }).await;
    assert_eq!(refusal.err().unwrap().message, "execution reverted: Multicall3: call failed");
    assert_eq!(chain.call(MULTICALL3, Multi::getChainIdCall {}).await.unwrap(), U256::from(84_532));
    assert_eq!(chain.call(MULTICALL3, Multi::getBlockNumberCall {}).await.unwrap(), U256::ZERO);
}

sol! {
    interface Escrow {
        struct State { address payer; address payee; address token; address authorizedSigner; uint128 deposit; uint128 settled; uint64 closeRequestedAt; bool finalized; }
        function openWithAuthorization(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner, address from, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external returns (bytes32);
        function close(bytes32 channelId, uint128 cumulativeAmount, bytes signature) external;
        function getChannel(bytes32 channelId) external view returns (State memory);
        function computeChannelId(address payer, address payee, address token, bytes32 salt, address authorizedSigner) external view returns (bytes32);
        error ChannelFinalized();
    }
    struct Voucher { bytes32 channelId; uint128 cumulativeAmount; }
}

#[tokio::test]
async fn the_escrow_lies_where_its_artifact_says_and_pays_by_voucher() {
    let chain = chain().await;
    let (payer, payee, relayer) = (dev(0), dev(1), dev(2));
    let deployment =
        payment_channel_escrow().unwrap().deployment.expect("the escrow can be deployed by anybody");
    let escrow = deployment.address;
    let code: Bytes =
        serde_json::from_value(chain.ok("eth_getCode", json!([escrow, "latest"])).await).unwrap();
    assert_eq!(keccak256(&code), deployment.runtime_code_hash);

    // Opened by a relayer with the payer's EIP-3009 signature, whose nonce is bound to the channel.
    let salt = keccak256(b"a channel");
    let nonce = keccak256((payer.address, payee.address, USDC, salt, Address::ZERO).abi_encode());
    let deposit = ReceiveWithAuthorization {
        from: payer.address,
        to: escrow,
        value: U256::from(5_000_000),
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce,
    };
    let open = Escrow::openWithAuthorizationCall {
        payee: payee.address,
        token: USDC,
        deposit: 5_000_000,
        salt,
        authorizedSigner: Address::ZERO,
        from: payer.address,
        validAfter: U256::ZERO,
        validBefore: U256::MAX,
        nonce,
        signature: bytes(signed(payer, &deposit, &usdc_domain())),
    };
    chain.done(relayer, escrow, open).await;
    let id = Escrow::computeChannelIdCall {
        payer: payer.address,
        payee: payee.address,
        token: USDC,
        salt,
        authorizedSigner: Address::ZERO,
    };
    let id = chain.call(escrow, id).await.unwrap();
    assert_eq!(chain.usdc(escrow).await, 5_000_000);

    // One close pays the payee the last voucher and the payer the rest.
    let domain = eip712_domain! {
        name: "EVM Payment Channel",
        version: "1",
        chain_id: 84_532,
        verifying_contract: escrow,
    };
    let voucher = Voucher { channelId: id, cumulativeAmount: 3_750_100 };
    let close = Escrow::closeCall {
        channelId: id,
        cumulativeAmount: 3_750_100,
        signature: bytes(signed(payer, &voucher, &domain)),
    };
    chain.done(payee, escrow, close.clone()).await;
    assert_eq!(chain.usdc(payee.address).await, 1_000_003_750_100);
    assert_eq!(chain.usdc(payer.address).await, 1_000_000_000_000 - 3_750_100);
    assert_eq!(chain.usdc(escrow).await, 0);
    let state = chain.call(escrow, Escrow::getChannelCall { channelId: id }).await.unwrap();
    assert!(state.finalized);
    assert_eq!((state.deposit, state.settled), (5_000_000, 3_750_100));
    let refusal = chain.refused(payee, escrow, close).await;
    assert_eq!(refusal.data, json!(hex::encode_prefixed(Escrow::ChannelFinalized::SELECTOR)));
}
