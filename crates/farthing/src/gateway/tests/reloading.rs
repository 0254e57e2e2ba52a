//! Reload: the new terms if they are good, else the old ones.

use super::super::reload::{Look, reload_config};
use super::support::*;

fn file(upstream: std::net::SocketAddr, price: &str) -> String {
    format!(
        "[gateway]\nupstream = \"http://{upstream}\"\nnetwork = \"base-sepolia\"\n\
         pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n\n[[route]]\nmatch = \"/paid\"\nprice = \"{price}\"\n"
    )
}

#[tokio::test]
async fn a_good_file_is_used_and_a_bad_one_is_not() {
    let (old, new) = (RawUpstream::saying("old").await, RawUpstream::saying("new").await);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("farthing.toml");
    let served =
        Served::start(config(old.address, "", "[[route]]\nmatch = \"/paid\"\nprice = \"$0.002\"\n")).await;
    let before = served.get("/paid", "").await;

    std::fs::write(&path, file(new.address, "$-1")).unwrap();
    let error = reload_config(&served.gateway, &path).unwrap_err();
    assert!(error.contains("farthing.toml:8: route[0].price:"), "{error}");
    assert!(body(&served.get("/paid", "").await).contains("\"2000\""), "the old price stays");

    std::fs::write(&path, file(new.address, "$7")).unwrap();
    reload_config(&served.gateway, &path).unwrap();
    assert!(body(&served.get("/paid", "").await).contains("\"7000000\""));
    // The offer that was made before still holds, and is served by the new upstream.
    let payment = pay(header(&before, "payment-required").unwrap());
    let answer = served.get("/paid", &format!("payment-signature: {payment}\r\n")).await;
    assert_eq!((status(&answer), body(&answer)), (200, "new"));
    assert_eq!(served.till.sold.lock().unwrap()[0].terms.money.atoms(), 2000);
    served.stop().await;
}

#[test]
fn a_changed_file_looks_different() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let absent = Look::at(&[&path]);
    std::fs::write(&path, "1").unwrap();
    let short = Look::at(&[&path]);
    std::fs::write(&path, "12").unwrap();
    assert!(absent != short && short != Look::at(&[&path]));
    assert_eq!(Look::at(&[&path]), Look::at(&[&path]));
}

#[test]
fn the_offer_key_is_kept_beside_the_store_and_a_short_one_is_refused() {
    use farthing_primitives::{Address, Money, PullMethod, TenantId, Timestamp};
    use farthing_rails::offer::{BoundOffer, bind};
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("sub").join("farthing.db");
    let tenant = TenantId::local();
    let registry = farthing_primitives::Registry::builtin();
    let asset = registry.iter().next().unwrap().id.clone();
    let offer = BoundOffer {
        tenant: &tenant,
        route: "r",
        context: b"",
        method: "GET",
        price: Money::new(asset, 1),
        pay_to: Address::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").unwrap(),
        pull: PullMethod::Eip3009,
        max_timeout_secs: 1,
    };
    let seal = |key| bind(&key, &offer, Timestamp::from_secs(9), farthing_rails::offer::Salt([7; 9]));
    let first = seal(crate::gateway::offer_key(None, &store).unwrap());
    assert_eq!(first, seal(crate::gateway::offer_key(None, &store).unwrap()), "offers survive a restart");
    let other = dir.path().join("other.db");
    assert_ne!(first, seal(crate::gateway::offer_key(None, &other).unwrap()));
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "short").unwrap();
    let reference = format!("file:{}", secret.display()).parse().unwrap();
    assert!(crate::gateway::offer_key(Some(&reference), &store).is_err());
}
