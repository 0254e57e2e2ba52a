use crate::Object;
use crate::x402::WireError;
use crate::x402::extensions::{
    BAZAAR, EIP2612_GAS_SPONSORING, Extensions, MAX_EXTENSIONS, PAYMENT_IDENTIFIER, payment_id,
};

fn with_identifier(info: Object) -> Extensions {
    let mut extensions = Extensions::new();
    extensions.insert(PAYMENT_IDENTIFIER, info, Object::new());
    extensions
}

#[test]
fn a_payment_id_has_16_to_128_plain_characters() {
    let check = |id: &str, expected: Result<(), WireError>| {
        assert_eq!(payment_id(id).map(|_| ()), expected, "{id:?}");
        let info = Object::new().with("required", true).with("id", id);
        let read = with_identifier(info).payment_identifier();
        assert_eq!(read.map(|found| assert_eq!(found.expect("there").id.as_deref(), Some(id))), expected);
    };
    check("pay_-0123456789A", Ok(()));
    check(&"x".repeat(128), Ok(()));
    check(&"x".repeat(15), Err(WireError::WrongLength { field: "id", bytes: 16 }));
    check(&"x".repeat(129), Err(WireError::TooMany { field: "id", limit: 128 }));
    for id in ["pay 0123456789AB", "pay_0123456789.é", "pay/0123456789AB"] {
        check(id, Err(WireError::BadCharacters { field: "id" }));
    }
}

#[test]
fn a_payment_identifier_is_read_with_its_default() {
    let read = |info: Object| with_identifier(info).payment_identifier();
    let found = read(Object::new()).expect("readable").expect("there");
    assert_eq!((found.required, found.id), (false, None));
    assert_eq!(Extensions::new().payment_identifier(), Ok(None));
    assert!(matches!(
        read(Object::new().with("required", "yes")),
        Err(WireError::WrongType { field: "required", .. })
    ));
    assert!(matches!(read(Object::new().with("id", 7u64)), Err(WireError::WrongType { field: "id", .. })));
}

#[test]
fn a_client_answers_only_what_was_announced_and_changes_nothing() {
    let announced = with_identifier(Object::new().with("required", true));
    let id = || Object::new().with("id", "pay_0123456789AB");
    let mut echoed = announced.clone();
    assert_eq!(echoed.answer(PAYMENT_IDENTIFIER, id()), Ok(()));
    assert_eq!(announced.check_echo(&echoed), Ok(()));
    assert!(echoed.answer(PAYMENT_IDENTIFIER, Object::new().with("required", false)).is_err());
    assert!(echoed.answer(PAYMENT_IDENTIFIER, id()).is_ok(), "the same again changes nothing");
    assert_eq!(echoed.answer(BAZAAR, id()).expect_err("not announced").extension, BAZAAR);
    assert_eq!(
        announced.check_echo(&with_identifier(id())).expect_err("deleted").extension,
        PAYMENT_IDENTIFIER
    );
}

#[test]
fn a_sponsored_permit_is_whole_or_absent() {
    let read = |info: Object| {
        let mut extensions = Extensions::new();
        extensions.insert(EIP2612_GAS_SPONSORING, info, Object::new());
        extensions.eip2612_gas_sponsoring()
    };
    assert_eq!(read(Object::new().with("version", "1")), Ok(None));
    let address = format!("0x{}", "ab".repeat(20));
    let whole = ["from", "asset", "spender"]
        .into_iter()
        .fold(Object::new(), |info, key| info.with(key, address.as_str()));
    let whole = ["amount", "nonce", "deadline"].into_iter().fold(whole, |info, key| {
        info.with(key, "115792089237316195423570985008687907853269984665640564039457584007913129639935")
    });
    let whole = whole.with("signature", "0xabcd").with("version", "1");
    let permit = read(whole.clone()).expect("well-formed").expect("signed");
    assert_eq!((permit.amount, &permit.to_info()), (crate::Uint256::MAX, &whole));
    for key in ["asset", "spender", "amount", "nonce", "deadline", "version"] {
        let mut part = whole.clone();
        part.remove(key);
        assert_eq!(read(part), Err(WireError::Missing { field: key }));
    }
}

#[test]
fn extensions_are_counted() {
    let many = |n: usize| (0..n).map(|n| (n.to_string(), Object::new())).collect::<Object>();
    assert!(Extensions::from_object(many(MAX_EXTENSIONS)).is_ok());
    assert!(Extensions::from_object(many(MAX_EXTENSIONS + 1)).is_err());
}

#[test]
fn what_we_announce_is_what_we_read() {
    let mut announced = Extensions::new();
    announced.announce_payment_identifier(true);
    announced.announce_eip2612_gas_sponsoring();
    let identifier = announced.payment_identifier().expect("readable").expect("there");
    assert_eq!((identifier.required, identifier.id), (true, None));
    assert_eq!(announced.eip2612_gas_sponsoring(), Ok(None));
}
