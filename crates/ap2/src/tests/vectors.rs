//! The encoded tokens of AP2's documentation: `vectors/ap2/README.md` says where they are from.

use std::time::Duration;

use farthing_primitives::Timestamp;

use crate::{Expect, Link, MerchantKey, PublicKey, Root, Trust, verify_checkout, verify_payment};

const CHECKOUT: &str = include_str!("../../../../vectors/ap2/checkout-chain.txt");
const PAYMENT: &str = include_str!("../../../../vectors/ap2/payment-chain.txt");

/// The one key that both root signatures fit.
const PROVIDER: &str = r#"{"kty":"EC","crv":"P-256","x":"vxIBPL4N3Xghx0iqkf8L2esJ5_OldPSAK1zVOmG9s8o","y":"ZjcIzzkmC37FTqV5hXVQwL2cj5BdqxTNcUjqp8p_xbU"}"#;
/// A key that the checkout's signature fits.
const MERCHANT: &str = r#"{"kty":"EC","crv":"P-256","x":"DP3xRGTVERecoZtBGYCbe0KHodLOd1gC07Ymxp8rjq0","y":"R8-rnvxa3M6HetLYH8NYR4gu_Dgh25E5tQG_GnpjcjE"}"#;

fn key(jwk: &str) -> PublicKey {
    PublicKey::from_jwk_text(jwk.as_bytes()).unwrap().0
}

#[test]
fn the_tokens_of_the_documentation_are_what_they_were() {
    let roots = [Root {
        key: key(PROVIDER),
        kid: Some("agent-provider-key-1".to_owned()),
        trust: Trust::AgentProvider,
    }];
    let merchants = [MerchantKey { merchant: "merchant_1".to_owned(), kid: None, key: key(MERCHANT) }];
    let expect = |audience, nonce| Expect {
        roots: &roots,
        audience,
        nonce,
        now: Timestamp::from_secs(1_777_342_380),
        max_age: Duration::from_secs(60),
        direct: false,
    };
    let of_merchant = expect("merchant", "b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4");
    let checkout = verify_checkout(CHECKOUT, &of_merchant, &merchants, None).unwrap();
    let checkout = checkout.look();
    assert_eq!(checkout.checkout_hash, "NivWhuqfzcvZNapvIEJ2-3tsdQLkiuIcye2g46WVgX8");
    assert_eq!(checkout.merchant.name, "Demo Merchant");
    let of_provider = expect("credential-provider", "a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3");
    let payment = verify_payment(PAYMENT, &of_provider, Link::Checkout(checkout)).unwrap();
    assert_eq!(payment.look().amount.to_string(), "19900 USD (minor units)");
    // Without the checkout's chain, from its two hashes.
    let told = Link::Told {
        transaction_id: "NivWhuqfzcvZNapvIEJ2-3tsdQLkiuIcye2g46WVgX8",
        open_checkout: Some("FzLoxbbtgQGYZxoSM2NJYJtkFTSsdfUBoVEQ12k7JN8"),
    };
    assert!(verify_payment(PAYMENT, &of_provider, told).is_ok());
    // An hour later the open mandates have ended.
    let late = Expect {
        now: Timestamp::from_secs(1_777_346_017),
        max_age: Duration::from_secs(9000),
        ..of_provider
    };
    assert_eq!(verify_payment(PAYMENT, &late, told).unwrap_err().why.code(), "ap2_expired");
}
