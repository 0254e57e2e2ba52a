use proptest::prelude::*;

use super::*;

fn price() -> impl Strategy<Value = Price> {
    let per = prop_oneof![Just(1u64), Just(3), Just(7), Just(1000), Just(1_000_000_000_000_000_000)];
    (0u128..2_000_000_000, per)
        .prop_map(|(atoms, per)| Price::new(atoms, per.try_into().expect("not zero"), Unit::Token))
}

#[test]
fn prices_finer_than_an_atom() {
    let price = Price::decimal(25, 4, Unit::Byte).expect("fine");
    let mut meter = Meter::new(price.clone());
    let gained: u128 = (0..1000).map(|_| meter.add(1).expect("fits")).sum();
    assert_eq!((gained, meter.exact()), (2, Exact::from_parts(2, 1, 2).expect("a half")));
    assert_eq!((price.most(1), price.most(400), price.most(401)), (Ok(1), Ok(1), Ok(2)));
    assert_eq!(Price::decimal(1, 19, Unit::Byte), Err(MeterError::TooFine));
    assert!(Price::decimal(1, 18, Unit::Byte).is_ok());
    assert!(each(3).exceeds(&price) && !price.exceeds(&each(3)) && !price.exceeds(&price));
}

#[test]
fn too_much_is_an_error_and_no_wrong_number() {
    let mut meter = Meter::new(each(u128::MAX));
    assert_eq!(meter.add(1), Ok(u128::MAX));
    let before = meter.clone();
    assert_eq!(meter.add(1), Err(MeterError::Overflow));
    assert_eq!(meter.add(2), Err(MeterError::Overflow));
    assert_eq!(meter, before, "and nothing was counted");
}

#[test]
fn units_have_stable_names() {
    for name in ["request", "token", "byte", "millisecond", "watt-hour", "lumen"] {
        assert_eq!(Unit::named(name).map(|unit| unit.as_str().to_owned()).as_deref(), Some(name));
    }
    for bad in ["", "two words", "é", &"x".repeat(Unit::MAX_LEN + 1)] {
        assert_eq!(Unit::named(bad), None);
    }
    assert_eq!(Unit::named("token"), Some(Unit::Token));
}

#[test]
fn channel_ids_have_one_spelling() {
    let id = ChannelId([0xab; 32]);
    assert_eq!(id.to_string().parse(), Ok(id));
    let text = id.to_string();
    for bad in [&text[2..], &text[..65], &text.to_uppercase(), &format!("{text}0"), &text.replace('a', "g")] {
        assert_eq!(bad.parse::<ChannelId>(), Err(NotAChannelId), "{bad}");
    }
}

proptest! {
    /// However a stream is cut into pieces, it costs the same; and no atom is asked for that was not used.
    #[test]
    fn pieces_change_nothing(price in price(), pieces in prop::collection::vec(0u64..5000, 0..40)) {
        let mut meter = Meter::new(price.clone());
        let mut asked = 0u128;
        for units in &pieces {
            asked += meter.add(*units).expect("fits");
            // floor(price * units), by one multiplication.
            let exact = price.atoms() * meter.units();
            prop_assert_eq!(asked, exact / u128::from(price.per().get()));
        }
        let whole = Exact::ZERO.plus(&price, pieces.iter().sum()).expect("fits");
        prop_assert_eq!(meter.exact(), whole);
    }

    /// Whatever prices come in whatever order, sums are exact as long as their fractions have a common denominator.
    #[test]
    fn order_changes_nothing(used in prop::collection::vec((price(), 0u64..1000), 0..20)) {
        let sum = |used: &[(Price, u64)]| {
            used.iter().try_fold(Exact::ZERO, |sum, (price, units)| sum.plus(price, *units)).expect("fits")
        };
        let small: Vec<_> = used.into_iter().filter(|(p, _)| p.per().get() <= 1000).collect();
        let mut other = small.clone();
        other.reverse();
        prop_assert_eq!(sum(&small), sum(&other));
        let floors: u128 = small
            .iter()
            .map(|(price, units)| Exact::ZERO.plus(price, *units).expect("fits").floor())
            .sum();
        prop_assert!(floors <= sum(&small).floor(), "the fractions are carried");
    }

    #[test]
    fn fractions_beyond_any_common_denominator_favour_the_payer(units in 1u64..1000) {
        let prime = |per: u64| Price::new(1, per.try_into().expect("not zero"), Unit::Token);
        let (a, b) = (prime(18_446_744_073_709_551_557), prime(18_446_744_073_709_551_533));
        let sum = Exact::ZERO.plus(&a, units).and_then(|sum| sum.plus(&b, units)).expect("fits");
        prop_assert_eq!(sum.floor(), 0);
    }

    /// Whatever happens in whatever order: what holds after each step is in [`Shop::lawful`], and here is the rest.
    #[test]
    fn a_shop_is_lawful(
        capture in prop_oneof![Just(Capture::Signed), Just(Capture::UpTo)],
        credit in 0u128..40,
        min_delta in 0u128..40,
        steps in prop::collection::vec((0u8..18, 0u8..6, 0u64..60), 0..120),
    ) {
        let limits = Limits { credit, most_unsettled: Some(60), idle: None, ..limits() };
        let mut shop = Shop::new(capture, limits);
        let mut chain = view(0, 0);
        let (mut most_signed, mut next_charge) = (0u128, 0u8);
        let third = Price::new(10, 3.try_into().expect("not zero"), Unit::Token);
        for (action, n, amount) in steps {
            chain.block += 1;
            let before = shop.payee.clone();
            let charge = payment(next_charge.saturating_sub(n % 4));
            let wide = u128::from(amount);
            let event = match action {
                0 => { chain.deposit += wide; chain.close_requested = None; deep(chain) }
                1 => head(View { close_requested: Some(NOW), ..chain }),
                2 => head(chain),
                3 => PayeeEvent::Seen { view: None, deep: false },
                4..=6 => {
                    let to = shop.payee.accepted() + wide - u128::from(n).min(wide);
                    PayeeEvent::Voucher(voucher_by(min_delta, to))
                }
                7 | 8 => {
                    next_charge += 1;
                    call(next_charge, third.clone(), amount % 10)
                }
                9 => {
                    next_charge += 1;
                    stream(next_charge, third.clone())
                }
                10 | 11 => PayeeEvent::Metered { charge, units: amount % 12 },
                12 => PayeeEvent::Paused { charge, units: amount % 12 },
                13 => PayeeEvent::Served { charge, units: amount % 10 },
                14 => PayeeEvent::Lost { charge },
                15 => PayeeEvent::CloseAsked(voucher(wide)),
                16 => match shop.payee.next(after(amount)) {
                    PayeeNext::Settle(claim) => {
                        let action = PayeeAction::Take(Taking::Settle(claim));
                        PayeeEvent::Attempted { attempt: attempt(1), action }
                    }
                    PayeeNext::Close { claim, .. } => {
                        let action = PayeeAction::Take(Taking::Close(claim));
                        PayeeEvent::Attempted { attempt: attempt(2), action }
                    }
                    _ => PayeeEvent::CloseDecided,
                },
                _ => match shop.payee.attempts().next() {
                    Some((attempt, PayeeAction::Take(Taking::Settle(claim)), _)) if chain.settled <= claim.amount => {
                        chain.settled = claim.amount;
                        PayeeEvent::Worked { attempt, proof: proof(Some(3)), view: chain }
                    }
                    Some((attempt, PayeeAction::Take(Taking::Close(claim)), _)) => {
                        chain.settled = chain.settled.max(claim.amount);
                        chain.finalized = true;
                        PayeeEvent::Worked { attempt, proof: proof(None), view: chain }
                    }
                    _ => PayeeEvent::Limited(limits),
                },
            };
            let shown = match &event {
                PayeeEvent::Voucher(voucher) | PayeeEvent::CloseAsked(voucher) => voucher.cumulative(),
                _ => 0,
            };
            match shop.try_on(event) {
                Ok(_) => most_signed = most_signed.max(shown),
                Err(_) => prop_assert_eq!(&shop.payee, &before, "a refusal changes nothing"),
            }
            let payee = &shop.payee;
            prop_assert!(payee.exposure() <= credit, "served beyond vouchers and credit");
            prop_assert!(payee.settled() <= most_signed, "took more than was signed");
            prop_assert!(payee.deposit() >= before.deposit() && payee.settled() >= before.settled());
            prop_assert!(payee.spent() >= before.spent() && payee.accepted() >= before.accepted());
            if *before.state() == PayeeState::Finalized {
                prop_assert_eq!(payee.state(), &PayeeState::Finalized);
            }
            let claim = payee.closing_claim();
            prop_assert!(claim.amount <= most_signed.max(payee.settled()) && claim.amount <= payee.deposit());
            prop_assert!(claim.amount + credit >= payee.spent().min(payee.deposit() + credit));
        }
    }
}
