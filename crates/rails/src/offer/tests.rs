use std::time::Duration;

use farthing_primitives::Registry;
use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const SALT: Salt = Salt([7; 9]);
const ENDS: Timestamp = Timestamp::from_secs(1_800_000_060);

fn payee(byte: u8) -> Address {
    Address::from_evm_bytes([byte; 20])
}

fn price(chain: u64, atoms: u128) -> Money {
    let registry = Registry::builtin();
    registry.dollar(&farthing_primitives::Network::eip155(chain)).unwrap().atoms(atoms)
}

fn offer(tenant: &TenantId) -> BoundOffer<'_> {
    BoundOffer {
        tenant,
        route: "/weather/*",
        context: b"",
        method: "GET",
        price: price(84532, 1000),
        pay_to: payee(1),
        pull: PullMethod::Eip3009,
        max_timeout_secs: 60,
    }
}

#[test]
fn a_seal_covers_every_field() {
    let key = BindingKey::new([1; 32], None);
    let (local, other) = (TenantId::local(), "other".parse().unwrap());
    let sealed = offer(&local);
    let seal = bind(&key, &sealed, ENDS, SALT);
    assert_eq!(verify(&key, &sealed, &seal, NOW), Ok(ENDS));
    let changed = [
        BoundOffer { tenant: &other, ..sealed.clone() },
        BoundOffer { route: "/weather/x", ..sealed.clone() },
        BoundOffer { context: b"q", ..sealed.clone() },
        BoundOffer { method: "POST", ..sealed.clone() },
        BoundOffer { price: price(84532, 1001), ..sealed.clone() },
        BoundOffer { price: price(8453, 1000), ..sealed.clone() },
        BoundOffer { pay_to: payee(2), ..sealed.clone() },
        BoundOffer { pull: PullMethod::Permit2, ..sealed.clone() },
        BoundOffer { max_timeout_secs: 61, ..sealed.clone() },
        // A boundary that moves between two fields makes another offer.
        BoundOffer { route: "/weather/*G", method: "ET", ..sealed.clone() },
    ];
    for offer in changed {
        assert_eq!(verify(&key, &offer, &seal, NOW), Err(SealError::NotOurs), "{offer:?}");
    }
}

#[test]
fn a_seal_ends_when_it_says() {
    let key = BindingKey::new([1; 32], None);
    let local = TenantId::local();
    let seal = bind(&key, &offer(&local), ENDS, SALT);
    let at = |now| verify(&key, &offer(&local), &seal, now);
    assert_eq!(at(Timestamp::from_millis(ENDS.millis() - 1)), Ok(ENDS));
    assert_eq!(at(ENDS), Err(SealError::Ended(ENDS)));
    assert_eq!(at(ENDS.plus(Duration::from_secs(1))), Err(SealError::Ended(ENDS)));
    // A longer life is not to be had by writing it there.
    let longer = seal.replace("1800000060", "1800009999");
    assert_ne!(longer, seal);
    assert_eq!(verify(&key, &offer(&local), &longer, NOW), Err(SealError::NotOurs));
}

#[test]
fn a_changed_secret_keeps_the_one_before() {
    let local = TenantId::local();
    let first = BindingKey::new([1; 32], None);
    let second = first.rotated([2; 32]);
    let third = second.rotated([3; 32]);
    let seal = bind(&first, &offer(&local), ENDS, SALT);
    assert_eq!(verify(&second, &offer(&local), &seal, NOW), Ok(ENDS));
    assert_eq!(verify(&third, &offer(&local), &seal, NOW), Err(SealError::NotOurs));
    let newer = bind(&second, &offer(&local), ENDS, SALT);
    assert_ne!(newer, seal);
    assert_eq!(verify(&second, &offer(&local), &newer, NOW), Ok(ENDS));
    assert_eq!(verify(&first, &offer(&local), &newer, NOW), Err(SealError::NotOurs));
}

#[test]
fn malformed_seals_are_refused() {
    let key = BindingKey::new([1; 32], None);
    let local = TenantId::local();
    let seal = bind(&key, &offer(&local), ENDS, SALT);
    assert!(seal.len() <= MAX_SEAL_LEN);
    assert!(seal.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{seal}");
    let tag = seal.rsplit_once('.').unwrap().1;
    let rows = [
        String::new(),
        "1.".to_owned(),
        "1..".to_owned(),
        format!("2.1800000060.{tag}"),
        format!("1.01800000060.{tag}"),
        format!("1.+1800000060.{tag}"),
        format!("1.18446744073709551616.{tag}"),
        format!("1.1800000060.{tag}="),
        format!("1.1800000060.{}+", &tag[1..]),
        "1".repeat(MAX_SEAL_LEN + 1),
    ];
    for row in rows {
        assert_eq!(verify(&key, &offer(&local), &row, NOW), Err(SealError::Malformed), "{row}");
    }
    for short in [String::new(), tag[..42].to_owned()] {
        let verdict = verify(&key, &offer(&local), &format!("1.1800000060.{short}"), NOW);
        assert!(verdict.is_err(), "{short}");
    }
}

#[test]
fn secrets_do_not_print() {
    assert_eq!(format!("{:?}", BindingKey::new([0xab; 32], None)), "BindingKey");
}

proptest! {
    #[test]
    fn no_text_but_the_seal_holds(text in "[ -~]{0,96}", at in 0usize..55, byte in any::<u8>()) {
        let key = BindingKey::new([1; 32], None);
        let local = TenantId::local();
        let seal = bind(&key, &offer(&local), ENDS, SALT);
        prop_assert!(verify(&key, &offer(&local), &text, NOW).is_err());
        let mut bytes = seal.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        prop_assert_eq!(verify(&key, &offer(&local), &changed, NOW).is_ok(), changed == seal);
    }
}
