use super::*;
use crate::record::{
    Malformed, RecordError, VERSION, decode_charge, decode_payee, decode_payer, encode_charge, encode_payee,
    encode_payer,
};

/// One that has something in every place.
fn full() -> Shop {
    let limits = Limits { most_unsettled: Some(5), idle: Some(Duration::from_secs(1)), ..limits() };
    let mut shop = Shop::open(1000, limits);
    shop.on(PayeeEvent::Voucher(voucher(500)));
    shop.on(PayeeEvent::CloseAsked(voucher(400)));
    shop.payee.state = PayeeState::Open;
    shop.on(stream(1, Price::decimal(25, 4, Unit::Other("lumen".into())).expect("fine")));
    shop.on(call(2, each(10), 3));
    shop.on(PayeeEvent::Metered { charge: payment(1), units: 7 });
    shop.on(PayeeEvent::Paused { charge: payment(1), units: 1_000_000 });
    let action = PayeeAction::Fund(Funding::TopUp { amount: u128::MAX });
    shop.on(PayeeEvent::Attempted { attempt: attempt(1), action });
    shop.on(PayeeEvent::Named { attempt: attempt(1), tx: TxRef::new("0xabc") });
    let claim = Claim { amount: 400, voucher: shop.payee.last().cloned() };
    shop.take(2, Taking::Settle(claim));
    shop
}

#[test]
fn a_record_is_read_as_it_was_written() {
    // Every step of every other test goes through a record as well.
    let shop = full();
    assert_eq!(decode_payee(&encode_payee(&shop.payee)), Ok(shop.payee.clone()));
    for row in shop.rows.values() {
        assert_eq!(decode_charge(&encode_charge(row)).as_ref(), Ok(row));
    }
}

#[test]
fn the_bytes_of_version_one_stay_what_they_are() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = encode_payee(&full().payee);
    assert_eq!(bytes[0], VERSION);
    // Another text here is another encoding, and asks for a new version that reads the old one.
    assert_eq!(hex(&bytes), include_str!("payee_v1.hex").trim());
}

#[test]
fn unknown_versions_and_other_kinds_are_refused() {
    let mut bytes = encode_payee(&full().payee);
    assert_eq!(decode_payer(&bytes), Err(Malformed("a record of another kind").into()));
    assert_eq!(decode_charge(&bytes), Err(Malformed("a record of another kind").into()));
    for version in [0, VERSION + 1, 255] {
        bytes[0] = version;
        assert_eq!(decode_payee(&bytes), Err(RecordError::UnknownVersion(version)));
        assert_eq!(decode_payer(&bytes), Err(RecordError::UnknownVersion(version)));
        assert_eq!(decode_charge(&bytes), Err(RecordError::UnknownVersion(version)));
    }
}

#[test]
fn broken_bytes_are_an_error_and_no_panic() {
    let shop = full();
    let payer = Payer::open(
        terms(Capture::UpTo),
        Budget {
            most_deposit: u128::MAX,
            most_price: each(1),
            ahead: 1,
            trust: 1,
            patience: Duration::MAX,
            slack: Duration::ZERO,
        },
        attempt(1),
        5,
        NOW,
    )
    .expect("opens");
    let row = encode_charge(shop.rows.values().next().expect("a row"));
    for bytes in [encode_payee(&shop.payee), encode_payer(&payer), row] {
        for end in 0..bytes.len() {
            let cut = &bytes[..end];
            assert!(decode_payee(cut).is_err() && decode_payer(cut).is_err() && decode_charge(cut).is_err());
        }
        let long = [bytes.clone(), vec![0]].concat();
        assert!(
            decode_payee(&long).is_err() && decode_payer(&long).is_err() && decode_charge(&long).is_err()
        );
        for at in 0..bytes.len() {
            for value in [0, 1, 2, 5, 0x7f, 0x80, 0xff] {
                let mut spoiled = bytes.clone();
                spoiled[at] = value;
                // Another record, or none; never a panic, and never one that is written otherwise.
                if let Ok(other) = decode_payee(&spoiled) {
                    assert_eq!(decode_payee(&encode_payee(&other)), Ok(other));
                }
                let _ = decode_payer(&spoiled);
                let _ = decode_charge(&spoiled);
            }
        }
    }
}
