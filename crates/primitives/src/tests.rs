use proptest::prelude::*;

use crate::*;

fn usdc() -> Asset {
    let registry = Registry::builtin();
    registry.by_symbol(&Network::eip155(8453), "USDC").expect("listed").clone()
}

#[test]
fn amounts_of_atoms_have_one_spelling() {
    let check =
        |text: &str, expected: Result<u128, AmountError>| assert_eq!(parse_atoms(text), expected, "{text:?}");
    check("0", Ok(0));
    check("1000", Ok(1000));
    check("340282366920938463463374607431768211455", Ok(u128::MAX));
    check("340282366920938463463374607431768211456", Err(AmountError::TooLarge));
    check("", Err(AmountError::Empty));
    for text in ["-1", "+1", "1e6", "0x10", " 1", "1 ", "1.0", "1_000", "١", "NaN"] {
        check(text, Err(AmountError::NotDecimal));
    }
    for text in ["00", "01", "0001000"] {
        check(text, Err(AmountError::LeadingZeros));
    }
}

#[test]
fn decimal_amounts_are_never_rounded() {
    let check = |text: &str, expected: Result<u128, AmountError>| {
        assert_eq!(usdc().parse(text).map(|m| m.atoms()), expected, "{text:?}");
    };
    check("0.015", Ok(15_000));
    check("1", Ok(1_000_000));
    check("1.000000", Ok(1_000_000));
    check("0.000001", Ok(1));
    check("0.0000001", Err(AmountError::TooPrecise { decimals: 6 }));
    check("1.0000000", Err(AmountError::TooPrecise { decimals: 6 }));
    for text in ["1.", "-1", "1.2.3", "1,5", "1e3", "0.1 "] {
        check(text, Err(AmountError::NotDecimal));
    }
    check(".5", Err(AmountError::Empty));
    check("01.5", Err(AmountError::LeadingZeros));
    check("340282366920938463463374607431768", Ok(340_282_366_920_938_463_463_374_607_431_768_000_000));
    check("340282366920938463463374607431769", Err(AmountError::TooLarge));
}

#[test]
fn money_of_two_assets_does_not_mix() {
    let registry = Registry::builtin();
    let base = Network::eip155(8453);
    let dollar = registry.by_symbol(&base, "USDC").expect("listed").atoms(5);
    let euro = registry.by_symbol(&base, "EURC").expect("listed").atoms(5);
    assert!(matches!(dollar.checked_add(&euro), Err(MoneyError::MixedAssets(..))));
    assert!(matches!(dollar.checked_sub(&euro), Err(MoneyError::MixedAssets(..))));
    assert!(matches!(dollar.exceeds(&euro), Err(MoneyError::MixedAssets(..))));
}

#[test]
fn money_errors_are_named() {
    let asset = usdc();
    assert_eq!(asset.atoms(u128::MAX).checked_add(&asset.atoms(1)), Err(MoneyError::Overflow));
    assert_eq!(asset.atoms(1).checked_sub(&asset.atoms(2)), Err(MoneyError::Overdraft));
    assert_eq!(asset.atoms(1).split(1, 0), Err(MoneyError::DivisionByZero));
    assert_eq!(asset.atoms(1).split(2, 1), Err(MoneyError::Overdraft));
    assert_eq!(asset.atoms(u128::MAX).split(2, 3), Err(MoneyError::Overflow));
}

#[test]
fn networks_have_one_spelling() {
    for text in ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "eip155:0"] {
        assert_eq!(text.parse::<Network>().expect(text).as_str(), text);
    }
    for text in [
        "",
        "base",
        "eip155:",
        ":1",
        "eip155:08453",
        "eip155:0x1",
        "EIP155:1",
        "eip155:1 ",
        "eip155:99999999999999999999",
        "eip155:a:b",
    ] {
        assert!(text.parse::<Network>().is_err(), "{text:?}");
    }
}

#[test]
fn v1_names_map_both_ways() {
    let sepolia = Network::from_v1_name("base-sepolia").expect("known");
    assert_eq!(sepolia, Network::eip155(84532));
    assert_eq!(sepolia.v1_name(), Some("base-sepolia"));
    assert!(sepolia.is_testnet());
    assert_eq!(Network::eip155(8453).v1_name(), Some("base"));
    assert!(!Network::eip155(8453).is_testnet());
    assert_eq!(Network::from_v1_name("Base"), Err(NetworkError::UnknownV1Name("Base".into())));
    assert_eq!(Network::eip155(424_242).v1_name(), None);
}

#[test]
fn evm_addresses_compare_without_case() {
    let network = Network::eip155(1);
    let mixed = Address::parse(&network, "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48").expect("valid");
    let lower = Address::parse(&network, "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48").expect("valid");
    assert_eq!(mixed, lower);
    assert_eq!(Address::from_evm_bytes(mixed.evm_bytes().expect("evm")), mixed);
    for text in [
        "",
        "0x",
        "a0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb4",
        "0xg0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
        "0Xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
    ] {
        assert!(Address::parse(&network, text).is_err(), "{text:?}");
    }
}

#[test]
fn assets_print_as_caip19() {
    let id = usdc().id;
    assert_eq!(id.to_string(), "eip155:8453/erc20:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913");
    assert_eq!(id.to_string().parse::<AssetId>(), Ok(id));
    let held: Network = "stripe:profile_1".parse().unwrap();
    let cents = AssetId::new(held.clone(), Address::parse(&held, "usd").unwrap());
    assert_eq!(cents.to_string(), "stripe:profile_1/iso4217:usd");
    assert_eq!(cents.to_string().parse::<AssetId>(), Ok(cents));
    for text in
        ["", "eip155:8453", "eip155:8453/erc721:0x833589fcd6edb6e08f4c7c32d4f71b54bda02913", "x/erc20:0x00"]
    {
        assert!(text.parse::<AssetId>().is_err(), "{text:?}");
    }
}

#[test]
fn builtin_assets_are_listed() {
    let registry = Registry::builtin();
    assert_eq!(registry.iter().count(), 18);
    // The name differs between Base and its test network: the commonest interop bug of the field.
    let name = |chain| {
        let asset = registry.by_symbol(&Network::eip155(chain), "USDC").expect("listed");
        asset.domain.clone().expect("signs").name
    };
    assert_eq!(name(8453), "USD Coin");
    assert_eq!(name(84532), "USDC");
}

#[test]
fn dollars_mean_usdc_and_never_euros() {
    let mut registry = Registry::builtin();
    let base = Network::eip155(8453);
    let price = registry.parse_dollars(&base, "$0.002").expect("priced");
    assert_eq!((price.atoms(), price.asset()), (2000, &usdc().id));
    assert!(matches!(registry.parse_dollars(&base, "0.002"), Err(DollarError::NoSign(_))));
    assert!(matches!(registry.parse_dollars(&Network::eip155(5), "$1"), Err(DollarError::NoDollar(_))));
    let euro = registry.by_symbol(&base, "EURC").expect("listed").id.clone();
    assert!(!registry.is_dollar(&euro));
    let tether = registry.by_symbol(&base, "USDT").expect("listed").id.clone();
    registry.set_dollar(&tether).expect("listed");
    assert_eq!(registry.parse_dollars(&base, "$1").expect("priced").asset(), &tether);
}

#[test]
fn a_registry_refuses_contradictions() {
    let mut registry = Registry::builtin();
    let mut asset = usdc();
    assert_eq!(registry.insert(asset.clone()), Ok(()));
    asset.decimals = 18;
    assert_eq!(registry.insert(asset.clone()), Err(RegistryError::Conflict(asset.id.clone())));
    asset.domain = None;
    assert_eq!(registry.insert(asset.clone()), Err(RegistryError::NoDomain(asset.id)));
}

#[test]
fn ids_do_not_convert_into_each_other() {
    let id = PaymentId::new(Timestamp::from_millis(1_700_000_000_123), [7; 10]);
    let text = id.to_string();
    assert!(text.starts_with("pay_"), "{text}");
    assert_eq!(text.parse::<PaymentId>(), Ok(id));
    assert!(text.parse::<AttemptId>().is_err());
    assert!(text.to_uppercase().parse::<PaymentId>().is_err());
    assert_eq!(PaymentId::from_bytes(id.to_bytes()), id);
}

#[test]
fn tenants_are_plain_names() {
    assert_eq!("acme-1".parse::<TenantId>().expect("valid").as_str(), "acme-1");
    for text in ["", "a b", "a/b", "é", &"x".repeat(65)] {
        assert!(text.parse::<TenantId>().is_err(), "{text:?}");
    }
}

#[test]
fn timestamps_print_as_rfc3339() {
    let check = |millis, text: &str| assert_eq!(Timestamp::from_millis(millis).to_string(), text);
    check(0, "1970-01-01T00:00:00.000Z");
    check(951_782_400_000, "2000-02-29T00:00:00.000Z");
    check(1_795_251_263_042, "2026-11-21T08:54:23.042Z");
    check(4_107_542_399_999, "2100-02-28T23:59:59.999Z");
}

proptest! {
    #[test]
    fn printing_and_parsing_an_amount_is_the_identity(atoms: u128, decimals in 0u8..=36) {
        let mut asset = usdc();
        asset.decimals = decimals;
        match asset.parse(&asset.format(atoms)) {
            Ok(money) => prop_assert_eq!(money.atoms(), atoms),
            Err(error) => prop_assert_eq!(error, AmountError::TooLarge, "{} with {} decimals", atoms, decimals),
        }
        prop_assert!(asset.parse(&asset.format(atoms)).is_ok());
    }

    #[test]
    fn a_split_loses_no_atom(atoms in 0u128..=u128::MAX >> 64, numerator: u64, denominator in 1u64..) {
        let whole = usdc().atoms(atoms);
        let (low, high) = (numerator.min(denominator), numerator.max(denominator));
        let (share, rest) = whole.split(low, high.max(1)).expect("fraction");
        prop_assert_eq!(share.checked_add(&rest), Ok(whole));
    }

    #[test]
    fn addition_undoes_subtraction(a: u128, b: u128) {
        let (low, high) = (usdc().atoms(a.min(b)), usdc().atoms(a.max(b)));
        let difference = high.checked_sub(&low).expect("no overdraft");
        prop_assert_eq!(difference.checked_add(&low), Ok(high));
    }

    /// Money is neither made nor lost by adding it up, in whatever order; and a sum that does not fit is refused.
    #[test]
    fn a_sum_is_the_sum_in_any_order(mut parts in prop::collection::vec(any::<u128>().prop_map(|n| n >> (n % 128)), 0..12), turn: prop::sample::Index) {
        let sum = |parts: &[u128]| {
            parts.iter().try_fold(usdc().atoms(0), |sum, part| sum.checked_add(&usdc().atoms(*part)))
        };
        let expected = parts.iter().try_fold(0u128, |sum, part| sum.checked_add(*part));
        let forward = sum(&parts);
        prop_assert_eq!(forward.as_ref().ok().map(Money::atoms), expected);
        prop_assert!(forward.is_ok() || forward == Err(MoneyError::Overflow));
        if !parts.is_empty() {
            let middle = turn.index(parts.len());
            parts.rotate_left(middle);
        }
        prop_assert_eq!(sum(&parts), forward);
    }

    /// Nothing wraps: each operation is the one on whole numbers, or an error that says why not.
    #[test]
    fn money_never_wraps(a: u128, b: u128, numerator: u64, denominator: u64) {
        let (x, y) = (usdc().atoms(a), usdc().atoms(b));
        prop_assert_eq!(x.checked_add(&y).map(|m| m.atoms()), a.checked_add(b).ok_or(MoneyError::Overflow));
        prop_assert_eq!(x.checked_sub(&y).map(|m| m.atoms()), a.checked_sub(b).ok_or(MoneyError::Overdraft));
        let more = [x.exceeds(&y), y.exceeds(&x), Ok(x == y)];
        prop_assert_eq!(more.iter().filter(|is| **is == Ok(true)).count(), 1);
        match x.split(numerator, denominator) {
            Ok((share, rest)) => prop_assert_eq!(share.checked_add(&rest), Ok(x)),
            Err(MoneyError::Overflow) => prop_assert!(a.checked_mul(u128::from(numerator)).is_none()),
            Err(MoneyError::Overdraft) => prop_assert!(numerator > denominator),
            Err(error) => prop_assert_eq!((error, denominator), (MoneyError::DivisionByZero, 0)),
        }
    }

    /// A share is rounded down, never by a whole atom or more, and a larger part is never a smaller share.
    #[test]
    fn a_share_is_rounded_down(atoms: u64, part in 0u32.., whole in 1u32..) {
        let (part, whole) = (part.min(whole), whole);
        let share = |part: u32| usdc().atoms(atoms.into()).split(part.into(), whole.into()).expect("a fraction").0.atoms();
        let (exact, denominator) = (u128::from(atoms) * u128::from(part), u128::from(whole));
        prop_assert!(share(part) * denominator <= exact && exact < (share(part) + 1) * denominator);
        if part > 0 {
            prop_assert!(share(part - 1) <= share(part));
        }
    }

    #[test]
    fn two_assets_never_meet(a: u128, b: u128) {
        let registry = Registry::builtin();
        let euro = registry.by_symbol(&Network::eip155(8453), "EURC").expect("listed").atoms(b);
        let dollar = usdc().atoms(a);
        let mixed = Err(MoneyError::MixedAssets(dollar.asset().clone(), euro.asset().clone()));
        prop_assert_eq!(dollar.checked_add(&euro), mixed.clone());
        prop_assert_eq!(dollar.checked_sub(&euro), mixed);
        prop_assert!(dollar.exceeds(&euro).is_err() && dollar != euro);
    }

    /// Texts of moments sort as the moments do, up to the year 9999; and spans add up, short of the end of time.
    #[test]
    fn moments_keep_their_order(a in 0u64..253_402_300_800_000, b in 0u64..253_402_300_800_000, more: u64) {
        let (early, late) = (Timestamp::from_millis(a.min(b)), Timestamp::from_millis(a.max(b)));
        prop_assert!(early.to_string() <= late.to_string());
        prop_assert_eq!(early.to_string() == late.to_string(), a == b);
        prop_assert_eq!(early.plus(late.since(early)), late);
        prop_assert_eq!(early.since(late) == std::time::Duration::ZERO, true);
        let span = std::time::Duration::from_millis(more);
        let later = late.plus(span);
        prop_assert!(later >= late && late.minus(span) <= late);
        prop_assert_eq!(later.since(late) == span, later.millis() < u64::MAX || more == u64::MAX - late.millis());
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,80}") {
        let _ = parse_atoms(&text);
        let _ = usdc().parse(&text);
        let _ = text.parse::<Network>();
        let _ = text.parse::<AssetId>();
        let _ = text.parse::<PaymentId>();
        let _ = Address::evm(&text);
    }
}
