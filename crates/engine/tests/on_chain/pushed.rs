//! Transfers that the payer makes itself: what they buy, and all that they do not.

use farthing_evm::{Bytes as EvmBytes, Transfer, U256, abi, to_alloy};
use farthing_ledger::Purpose;
use farthing_rails::pushed_evm::Pushed;

use super::*;

const PRICE: u128 = 1000;
const GENEROUS: Fees = Fees { max_fee: 50_000_000_000, priority_fee: 1_000_000_000 };
/// A token that says that it moved what it was told to, whoever asks, and moves nothing.
const LIAR: &str = "60206024600037600435337fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef60206000a3600160005260206000f3";
/// The same, but that it says one atom less.
const FEE_TAKER: &str = "600160243503600052600435337fddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef60206000a3600160005260206000f3";

fn asked_for(atoms: u128) -> Requirement {
    let token = Arc::new(Token::new(&usdc()).expect("an EVM token"));
    Requirement::new(token, &usdc().atoms(atoms), &account(PAYEE), PullMethod::Eip3009, LONG)
        .expect("a requirement")
}

fn to_payee(atoms: u128) -> EvmBytes {
    abi::transfer(to_alloy(&account(PAYEE)).expect("EVM"), U256::from(atoms))
}

/// A sale of `resource` by a transfer of its payer.
fn sale_by(pushed: &Pushed, resource: u8, flow: Flow) -> Sale {
    Sale {
        tenant: TenantId::local(),
        key: pushed.key(),
        terms: Terms {
            payer: pushed.payer(),
            payee: pushed.pay_to(),
            money: pushed.money().clone(),
            expires: Timestamp::from_secs(4_000_000_000),
            dialect: Dialect::Mpp,
            instruction: pushed.instruction(),
        },
        binding: Binding {
            method: "GET".to_owned(),
            resource: format!("/{resource}"),
            request: RequestHash([resource; 32]),
            bound: Bound::ByOffer,
            repeatable: true,
        },
        flow,
        exposure: None,
        name: None,
    }
}

impl House {
    async fn signed_by(&self, index: usize, to: &Address, data: EvmBytes, fees: Fees) -> SignedTx {
        let nonce = self.chain.nonce(&account(index), false).await.expect("a nonce");
        let key = LocalKey::new(key(index));
        let (chain_id, to, data) = (84532, to.clone(), data.0);
        key.sign(&UnsignedTx { chain_id, nonce, to, data, gas: 200_000, fees })
    }

    /// The payer's own transfer of the price, signed and not sent.
    async fn transfer(&self, atoms: u128) -> SignedTx {
        self.signed_by(PAYER, usdc().id.address(), to_payee(atoms), GENEROUS).await
    }

    async fn sent(&self, tx: SignedTx) -> TxHash {
        assert_eq!(self.chain.broadcast(&tx).await, Broadcast::Accepted);
        tx.hash
    }

    /// What anybody says who shows a hash: this account has paid.
    fn by_hash(&self, hash: TxHash, payer: usize) -> Pushed {
        Pushed::sent(&asked_for(PRICE), hash.0, &account(payer), self.world.now()).expect("fit")
    }

    fn by_transaction(&self, tx: &SignedTx) -> Pushed {
        Pushed::signed(&asked_for(PRICE), &tx.raw).expect("fit")
    }

    async fn show(&self, pushed: &Pushed, resource: u8) -> SaleOutcome {
        self.engine.sell(sale_by(pushed, resource, Flow::Upfront), Arc::new(Shop::default())).await
    }

    /// Shows it, and takes what it buys.
    async fn served(&self, pushed: &Pushed, resource: u8) -> Payment {
        let outcome = self.show(pushed, resource).await;
        let SaleOutcome::Deliver { payment, permit } = outcome else { panic!("{outcome:?}") };
        permit.delivered();
        for _ in 0..6_000 {
            let now = self.payment(payment.id).await;
            if now.delivery == Delivery::Sent {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not sent");
    }

    async fn refused(&self, pushed: &Pushed, code: &str, fault: Fault) {
        let outcome = self.show(pushed, 1).await;
        let SaleOutcome::Refused { reason } = &outcome else { panic!("{code}: {outcome:?}") };
        assert_eq!((reason.code(), reason.fault()), (code, fault));
        // Its buyer is told at once, and its claim is free then.
        for _ in 0..6_000 {
            if self.store.holder(&pushed.key()).await.expect("read").is_none() {
                return self.books_balance().await;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{code}: the claim is kept");
    }

    /// What our books say that we were paid.
    async fn settled_atoms(&self, id: PaymentId) -> u128 {
        let transfers = self.store.transfers_of(id).await.expect("read");
        let of = |purpose| transfers.iter().filter(move |(id, ..)| id.purpose == purpose);
        let sum = |purpose| of(purpose).map(|(_, money, _)| money.atoms()).sum::<u128>();
        sum(Purpose::Settlement) - sum(Purpose::Reversal)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_a_transfer_buys_once_and_costs_us_no_gas() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let hash = house.sent(house.transfer(PRICE).await).await;
    let pushed = house.by_hash(hash, PAYER);
    let payment = house.served(&pushed, 1).await;
    assert_eq!(payment.tx().map(TxRef::as_str), Some(hash.to_string().as_str()));
    assert_eq!(house.settled_atoms(payment.id).await, PRICE);
    let transfers = house.store.transfers_of(payment.id).await.expect("read");
    assert!(transfers.iter().all(|(id, ..)| id.purpose != Purpose::Gas));
    let again = loop {
        match house.show(&pushed, 1).await {
            // The first one's task is about to end.
            SaleOutcome::Conflict { kind: ConflictKind::InProgress, .. } => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            again => break again,
        }
    };
    assert!(matches!(again, SaleOutcome::Conflict { kind: ConflictKind::UsedUp, .. }), "{again:?}");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_transfer_is_sent_by_us_and_buys_once_by_either_name() {
    for flow in [Flow::Upfront, Flow::Authorization] {
        let house = house(BlockTime::Instant, |_, _, _| {}).await;
        let payee = house.balance(&account(PAYEE)).await;
        let tx = house.transfer(PRICE).await;
        let pushed = house.by_transaction(&tx);
        let shop = Arc::new(Shop::default());
        match house.engine.sell(sale_by(&pushed, 1, flow), shop.clone()).await {
            SaleOutcome::Deliver { permit, .. } if flow == Flow::Upfront => permit.delivered(),
            SaleOutcome::Served { .. } if flow == Flow::Authorization => {}
            other => panic!("{other:?}"),
        }
        assert_eq!(house.balance(&account(PAYEE)).await, payee + PRICE);
        // Its hash is the same transfer, and so is the transaction, for whatever else it is shown.
        for (pushed, resource) in [(house.by_hash(tx.hash, PAYER), 2), (pushed, 2)] {
            let again = house.show(&pushed, resource).await;
            let other = ConflictKind::OtherRequest;
            assert!(matches!(&again, SaleOutcome::Conflict { kind, .. } if *kind == other), "{again:?}");
        }
        house.books_balance().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_hash_on_two_routes_at_once_buys_on_one() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let pushed = house.by_hash(house.sent(house.transfer(PRICE).await).await, PAYER);
    let shown = (1..=8).map(|resource| house.show(&pushed, resource));
    let outcomes = futures_util::future::join_all(shown).await;
    let served = outcomes.iter().filter(|outcome| matches!(outcome, SaleOutcome::Deliver { .. })).count();
    assert_eq!(served, 1, "{outcomes:?}");
    let settled = house.store.settled_since(Timestamp::from_millis(0), None, 10).await.expect("read");
    assert_eq!(settled.len(), 1);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hash_of_a_settlement_pays_for_nothing_else() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let id = house.sold(1, LONG).await;
    let settled = house.payment(id).await;
    let digits = settled.tx().expect("settled").as_str().to_owned();
    let mut hash = [0u8; 32];
    for (byte, at) in hash.iter_mut().zip((2..).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).expect("hex");
    }
    // Our relayer's: its log says what the hash should show, and has paid for something.
    house.refused(&house.by_hash(TxHash(hash), PAYER), "source_mismatch", Fault::Payer).await;
    house.refused(&house.by_hash(TxHash(hash), RELAYER), "transaction_not_a_transfer", Fault::Payer).await;
    // A payer's own, of an authorization that it may have shown to us besides.
    let (_, checked) = house.sale(2, LONG);
    let results = house.chain.read(checked.reads()).await.expect("read");
    let call = checked.judge(&results).expect("funded").settlement().clone();
    let tx = house.signed_by(PAYER, &from_alloy(call.to), call.data, GENEROUS).await;
    let hash = house.sent(tx).await;
    house.refused(&house.by_hash(hash, PAYER), "transaction_not_a_transfer", Fault::Payer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_credited_pays_for_no_second_payment() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let hash = house.sent(house.transfer(PRICE).await).await;
    let receipts = house.chain.receipts(vec![hash]).await.expect("read");
    let receipt = receipts[0].clone().expect("in a block");
    let log_index =
        receipt.logs.iter().find(|log| Transfer::decode(log).is_some()).expect("a transfer").index;
    // Another payment, by whatever way, was paid by this very log.
    let (sale, _) = house.sale(1, LONG);
    let now = house.world.now();
    let new = NewPayment {
        id: PaymentId::new(now, [9; 10]),
        tenant: sale.tenant,
        key: sale.key,
        role: Role::Seller,
        flow: Flow::Upfront,
        terms: sale.terms,
        binding: sale.binding,
    };
    let (other, entries) = Payment::claim(new, now);
    let claim = Claim { payment: other.clone(), entries, exposure: None, name: None };
    assert_eq!(house.store.claim(claim).await, Ok(Claimed::New));
    let tx = TxRef::new(hash.to_string());
    let attempt = AttemptId::new(now, [9; 10]);
    let proof = Proof {
        tx: tx.clone(),
        witness: Witness::Chain,
        block: receipt.block,
        block_hash: receipt.block_hash,
        log_index,
        fee: None,
    };
    let credit = Credit::Take { network: network(), tx: hash.to_string(), log_index };
    let events = [
        (Event::FundsConfirmed, None),
        (Event::AttemptStarted { attempt, tx: Some(tx) }, None),
        (Event::Included { proof, deep: true }, Some(credit)),
    ];
    let mut other = other;
    for (event, credit) in events {
        let name = event.name();
        let step = other.step(event, now).expect("fits");
        other = step.next.clone();
        house.store.commit(Commit { credit, ..Commit::new(step, name) }).await.expect("committed");
    }

    let pushed = house.by_hash(hash, PAYER);
    let outcome = house.show(&pushed, 1).await;
    let SaleOutcome::SettlementFailed { payment, reason, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason.code(), "transfer_already_credited");
    house.until(payment.id, "failed").await;
    assert_eq!(house.settled_atoms(payment.id).await, 0);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_transfer_of_the_price_to_us_pays_nothing() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let usdc_at = usdc().id.address().clone();
    let refused = async |to: &Address, data: EvmBytes, by: usize, code| {
        let hash = house.sent(house.signed_by(by, to, data, GENEROUS).await).await;
        house.refused(&house.by_hash(hash, PAYER), code, Fault::Payer).await;
    };
    let elsewhere = abi::transfer(to_alloy(&account(5)).expect("EVM"), U256::from(PRICE));
    refused(&usdc_at, elsewhere, PAYER, "transaction_recipient_mismatch").await;
    refused(&usdc_at, to_payee(PRICE - 1), PAYER, "transaction_amount_mismatch").await;
    refused(&usdc_at, to_payee(PRICE + 1), PAYER, "transaction_amount_mismatch").await;
    // More calldata than a transfer has: it may mean anything to the token.
    let longer = [to_payee(PRICE).to_vec(), vec![0]].concat();
    refused(&usdc_at, longer.into(), PAYER, "transaction_not_a_transfer").await;
    // Of somebody else, said to be the payer's.
    refused(&usdc_at, to_payee(PRICE), 5, "source_mismatch").await;
    // Somebody may move what the payer has allowed it to: the log is right, and the payer has nothing to do with it.
    let spender = to_alloy(&account(5)).expect("EVM");
    house
        .sent(house.signed_by(PAYER, &usdc_at, abi::approve(spender, U256::from(PRICE)), GENEROUS).await)
        .await;
    let (from, to) = (to_alloy(&account(PAYER)).expect("EVM"), to_alloy(&account(PAYEE)).expect("EVM"));
    let mut pull = vec![0x23, 0xb8, 0x72, 0xdd];
    for word in [from.into_word(), to.into_word(), U256::from(PRICE).into()] {
        pull.extend_from_slice(word.as_slice());
    }
    let hash = house.sent(house.signed_by(5, &usdc_at, pull.into(), GENEROUS).await).await;
    assert!(house.chain.receipts(vec![hash]).await.expect("read")[0].as_ref().is_some_and(|r| r.success));
    house.refused(&house.by_hash(hash, PAYER), "source_mismatch", Fault::Payer).await;
    house.refused(&house.by_hash(hash, 5), "transaction_not_a_transfer", Fault::Payer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_counts_only_if_the_token_says_all_of_it() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let set_code = async |at: &str, code: &str| {
        let code = format!("0x{code}");
        house.rpc("anvil_setCode", json!([at, code])).await;
    };
    let fake = "0x00000000000000000000000000000000000fa4e0";
    set_code(fake, LIAR).await;
    let fake = Address::evm(fake).expect("an address");
    let hash = house.sent(house.signed_by(PAYER, &fake, to_payee(PRICE), GENEROUS).await).await;
    let receipts = house.chain.receipts(vec![hash]).await.expect("read");
    let log = receipts[0].as_ref().and_then(|receipt| receipt.logs.first()).expect("a log");
    let said = Transfer::decode(log).expect("a transfer, as it seems");
    assert_eq!((said.from, said.value), (to_alloy(&account(PAYER)).expect("EVM"), U256::from(PRICE)));
    house.refused(&house.by_hash(hash, PAYER), "transaction_of_other_token", Fault::Payer).await;
    // The token itself, were it to keep a part of what it moves.
    set_code(usdc().id.address().as_str(), FEE_TAKER).await;
    let hash = house.sent(house.transfer(PRICE).await).await;
    let code = "invalid_exact_evm_transfer_event_mismatch";
    house.refused(&house.by_hash(hash, PAYER), code, Fault::Payer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reverted_and_what_is_older_than_the_challenge_pays_nothing() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let too_much = 10u128.pow(30);
    let hash = house.sent(house.transfer(too_much).await).await;
    let now = house.world.now();
    let pushed = Pushed::sent(&asked_for(too_much), hash.0, &account(PAYER), now).expect("fit");
    house.refused(&pushed, "transaction_reverted", Fault::Payer).await;
    let hash = house.sent(house.transfer(PRICE).await).await;
    let later = house.world.now().plus(Duration::from_secs(120));
    let pushed = Pushed::sent(&asked_for(PRICE), hash.0, &account(PAYER), later).expect("fit");
    house.refused(&pushed, "transaction_before_challenge", Fault::Payer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_in_a_block_yet_is_neither_bought_with_nor_lost() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let tx = house.transfer(PRICE).await;
    let pushed = house.by_hash(tx.hash, PAYER);
    house.refused(&pushed, "transaction_not_found", Fault::Chain).await;
    house.sent(tx).await;
    house.refused(&pushed, "transaction_pending", Fault::Chain).await;
    house.mine(1).await;
    house.served(&pushed, 1).await;
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_waits_for_the_depth_that_its_amount_asks_for() {
    let house = house(BlockTime::Instant, |_, engine, depths| {
        depths.most = Finality::Blocks(3);
        engine.answer_within = Duration::from_millis(300);
    })
    .await;
    let pushed = house.by_hash(house.sent(house.transfer(PRICE).await).await, PAYER);
    let outcome = house.show(&pushed, 1).await;
    let SaleOutcome::Pending { payment, .. } = outcome else { panic!("{outcome:?}") };
    assert_eq!(house.payment(payment).await.state.name(), "confirming");
    house.mine(2).await;
    house.until(payment, "settled").await;
    house.served(&pushed, 1).await;
}

/// Nothing of this asks anybody.
#[test]
fn only_a_plain_transfer_of_the_price_to_us_is_a_signed_payment() {
    use farthing_rails::pushed_evm::{MAX_GAS, Unfit};
    let good = UnsignedTx {
        chain_id: 84532,
        nonce: 0,
        to: usdc().id.address().clone(),
        data: to_payee(PRICE).0,
        gas: 100_000,
        fees: GENEROUS,
    };
    let judge = |by: usize, tx: &UnsignedTx| {
        let pushed = Pushed::signed(&asked_for(PRICE), &LocalKey::new(key(by)).sign(tx).raw)?;
        assert_eq!(Pushed::recall(&pushed.instruction()).as_ref(), Some(&pushed));
        assert_eq!((pushed.payer(), pushed.pay_to()), (account(by), account(PAYEE)));
        Ok::<_, Unfit>(())
    };
    assert_eq!(judge(PAYER, &good), Ok(()));
    let check = |change: &dyn Fn(&mut UnsignedTx), expected| {
        let mut tx = good.clone();
        change(&mut tx);
        assert_eq!(judge(PAYER, &tx), Err(expected));
    };
    let payee = to_alloy(&account(PAYEE)).expect("EVM");
    check(&|tx| tx.chain_id = 1, Unfit::Chain);
    check(&|tx| tx.to = account(5), Unfit::Token);
    check(&|tx| tx.data = abi::approve(payee, U256::from(PRICE)).0, Unfit::Call);
    check(&|tx| tx.data = Bytes::new(), Unfit::Call);
    check(&|tx| tx.data = [&tx.data[..], &[0]].concat().into(), Unfit::Call);
    check(&|tx| tx.data = to_payee(PRICE + 1).0, Unfit::Amount);
    check(
        &|tx| tx.data = abi::transfer(payee.into_word()[..20].try_into().expect("20"), U256::from(PRICE)).0,
        Unfit::Recipient,
    );
    check(&|tx| tx.gas = MAX_GAS + 1, Unfit::Gas);
    check(&|tx| tx.fees.priority_fee = tx.fees.max_fee + 1, Unfit::Gas);
    check(&|tx| tx.fees.max_fee = u128::MAX, Unfit::Gas);
    assert_eq!(judge(PAYEE, &good), Err(Unfit::ToItself));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_in_vain_is_not_given_to_the_chain() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let refused = async |tx: &SignedTx, code| {
        house.refused(&house.by_transaction(tx), code, Fault::Payer).await;
        assert_eq!(house.chain.transaction(tx.hash).await, Ok(None), "{code}");
    };
    let cheap = Fees { max_fee: 1, priority_fee: 1 };
    let usdc_at = usdc().id.address().clone();
    refused(&house.signed_by(PAYER, &usdc_at, to_payee(PRICE), cheap).await, "transaction_fee_too_low").await;
    let dear = Fees { max_fee: u128::from(u64::MAX) * 1_000_000, priority_fee: 1 };
    refused(&house.signed_by(PAYER, &usdc_at, to_payee(PRICE), dear).await, "insufficient_gas_balance").await;
    let signer = LocalKey::new(key(PAYER));
    let call = |nonce, gas| UnsignedTx {
        chain_id: 84532,
        nonce,
        to: usdc_at.clone(),
        data: to_payee(PRICE).0,
        gas,
        fees: GENEROUS,
    };
    refused(&signer.sign(&call(1, 200_000)), "transaction_nonce_not_next").await;
    refused(&signer.sign(&call(0, 22_000)), "transaction_gas_too_low").await;
    // All but nothing of it is elsewhere by now.
    let left = house.balance(&account(PAYER)).await;
    let away = abi::transfer(to_alloy(&account(5)).expect("EVM"), U256::from(left - PRICE + 1));
    house.sent(house.signed_by(PAYER, &usdc_at, away, GENEROUS).await).await;
    refused(&house.transfer(PRICE).await, "insufficient_balance").await;
}

/// Whoever watches the chain sees it too, and has no better right to it than anybody.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_everybody_has_seen_is_nobodys_to_show() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let tx = house.transfer(PRICE).await;
    house.sent(tx.clone()).await;
    house.refused(&house.by_transaction(&tx), "transaction_nonce_not_next", Fault::Payer).await;
    house.mine(1).await;
    house.refused(&house.by_transaction(&tx), "transaction_already_sent", Fault::Payer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payer_who_replaces_its_transaction_is_never_served() {
    let house = house(BlockTime::Instant, |_, engine, _| {
        engine.answer_within = Duration::from_millis(300);
    })
    .await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let tx = house.transfer(PRICE).await;
    let pushed = house.by_transaction(&tx);
    let outcome = house.show(&pushed, 1).await;
    let SaleOutcome::Pending { payment, .. } = outcome else { panic!("{outcome:?}") };
    // The same nonce, a better offer, and nothing in it for us.
    let better = Fees { max_fee: 100_000_000_000, priority_fee: 50_000_000_000 };
    let nothing = abi::approve(to_alloy(&account(5)).expect("EVM"), U256::ZERO);
    house.sent(house.signed_by(PAYER, usdc().id.address(), nothing, better).await).await;
    house.mine(1).await;
    house.mine_until(payment, "failed").await;
    assert_eq!(house.payment(payment).await.reason().map(Reason::code), Some("transaction_replaced"));
    assert_eq!(house.settled_atoms(payment).await, 0);
    let again = house.show(&pushed, 1).await;
    assert!(matches!(again, SaleOutcome::SettlementFailed { .. }), "{again:?}");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_process_never_sent_of_a_payers_transaction_is_sent_by_the_next() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    house.rpc("evm_setAutomine", json!([false])).await;
    let tx = house.transfer(PRICE).await;
    let pushed = house.by_transaction(&tx);
    let selling = {
        let (engine, sale) = (house.engine.clone(), sale_by(&pushed, 1, Flow::Authorization));
        tokio::spawn(async move { engine.sell(sale, Arc::new(Shop::default())).await })
    };
    let payment = loop {
        let found = house.store.holder(&pushed.key()).await.expect("read");
        match found {
            Some(found) if found.state.name() == "settling" => break found,
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    selling.abort();
    // As if it had been killed between its commit and its sending.
    house.rpc("anvil_dropTransaction", json!([tx.hash.to_string()])).await;
    let next = house.next_process().await;
    for _ in 0..3_000 {
        if house.chain.transaction(tx.hash).await.expect("read").is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    house.rpc("evm_setAutomine", json!([true])).await;
    house.mine(1).await;
    house.until(payment.id, "settled").await;
    // Its answer was kept back until it was paid for.
    let outcome = next.sell(sale_by(&pushed, 1, Flow::Authorization), Arc::new(Shop::default())).await;
    assert!(matches!(outcome, SaleOutcome::Served { .. }), "{outcome:?}");
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shown_transfer_whose_seller_was_killed_before_service_still_buys_once() {
    let house = house(BlockTime::Instant, |_, _, _| {}).await;
    let pushed = house.by_hash(house.sent(house.transfer(PRICE).await).await, PAYER);
    let outcome = house.show(&pushed, 1).await;
    // The process is gone with the permit in its hands.
    let SaleOutcome::Deliver { payment, permit } = outcome else { panic!("{outcome:?}") };
    let next = house.next_process().await;
    drop(permit);
    // What the next process makes of it takes as long as a busy machine takes.
    let mut waited = 0;
    while house.payment(payment.id).await.delivery != Delivery::Failed {
        assert!(waited < 3_000, "the next process gives up what was in nobody's hands");
        waited += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let other = next.sell(sale_by(&pushed, 2, Flow::Upfront), Arc::new(Shop::default())).await;
    assert!(matches!(other, SaleOutcome::Conflict { kind: ConflictKind::OtherRequest, .. }), "{other:?}");
    let again = next.sell(sale_by(&pushed, 1, Flow::Upfront), Arc::new(Shop::default())).await;
    let SaleOutcome::Deliver { permit, .. } = again else { panic!("{again:?}") };
    permit.delivered();
    assert_eq!(house.settled_atoms(payment.id).await, PRICE);
    house.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_that_is_reorganized_away_is_noticed_and_taken_back() {
    // By hash nobody but its payer can send it again; a transaction of ours to send is sent again.
    for (by_us, transactions, then) in [
        (false, "drop", "settling"),
        (false, "pool", "settled"),
        (true, "drop", "settled"),
        (true, "pool", "settled"),
    ] {
        let house = house(BlockTime::Instant, |_, engine, _| {
            engine.unclear_after = Duration::from_secs(60);
        })
        .await;
        let tx = house.transfer(PRICE).await;
        let pushed = match by_us {
            true => house.by_transaction(&tx),
            false => house.by_hash(house.sent(tx.clone()).await, PAYER),
        };
        let payment = house.served(&pushed, 1).await;
        house.reorg(1, transactions).await;
        house.engine.tend_once().await.expect("tended");
        assert!(house.events(payment.id).await.contains(&"reorged".to_owned()), "{by_us} {transactions}");
        house.mine_until(payment.id, then).await;
        let paid = if then == "settled" { PRICE } else { 0 };
        assert_eq!(house.settled_atoms(payment.id).await, paid, "{by_us} {transactions}");
        house.books_balance().await;
        if then == "settling" {
            // The log is free again, and so is the transfer once it is made anew.
            house.sent(tx).await;
            house.mine_until(payment.id, "settled").await;
            assert_eq!(house.settled_atoms(payment.id).await, PRICE);
        }
    }
}
