use std::sync::{Arc, LazyLock};
use std::time::Duration;

use farthing_evm::abi;
use farthing_evm::{
    AuthorizationUsed, Bytes, Key, Log, ReadKind, ReadResult, Revert, Signature, Transfer, Wrapped, to_alloy,
    wrap_erc6492,
};
use farthing_payment::{Fault, Instruction};
use farthing_primitives::{Network, Registry};
use farthing_wire::x402::ErrorCode;
use proptest::prelude::*;

use super::buy::{self, BuyError, Nonce};
use super::judge::{Question, Way};
use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);
const MINUTE: Duration = Duration::from_secs(60);

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| Tokens::new(&Registry::builtin()));

fn payer() -> Key {
    Key::from_bytes([7; 32]).unwrap()
}

fn stranger() -> Key {
    Key::from_bytes([8; 32]).unwrap()
}

fn account(key: &Key) -> Account {
    from_alloy(key.address())
}

fn payee() -> Account {
    Account::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").unwrap()
}

fn usdc() -> Arc<Token> {
    let registry = Registry::builtin();
    TOKENS.get(&registry.dollar(&Network::eip155(84532)).unwrap().id).unwrap().clone()
}

fn usdt() -> Arc<Token> {
    let registry = Registry::builtin();
    TOKENS.get(&registry.by_symbol(&Network::eip155(1), "USDT").unwrap().id).unwrap().clone()
}

fn asked(method: PullMethod) -> Requirement {
    let token = usdc();
    let price = token.asset().atoms(1000);
    Requirement::new(token, &price, &payee(), method, MINUTE).unwrap()
}

const BOTH: [PullMethod; 2] = [PullMethod::Eip3009, PullMethod::Permit2];

/// An honest payment for what is asked.
fn honest(asked: &Requirement) -> Presented {
    let unsigned = buy::authorize(asked, &account(&payer()), Nonce([9; 32]), MINUTE, NOW).unwrap();
    unsigned.signed(&payer().sign(unsigned.digest()), None)
}

fn approved(asked: &Requirement) -> Presented {
    let unsigned = buy::authorize(asked, &account(&payer()), Nonce([9; 32]), MINUTE, NOW).unwrap();
    let approval = buy::approve(asked, &unsigned, U256::from(3)).unwrap();
    let approval = approval.signed(&payer().sign(approval.digest()));
    unsigned.signed(&payer().sign(unsigned.digest()), Some(approval))
}

fn digest(asked: &Requirement, shown: &Presented) -> B256 {
    match shown {
        Presented::Eip3009 { authorization, .. } => {
            authorization.transfer_digest(asked.token.domain.as_ref().unwrap())
        }
        Presented::Permit2 { transfer, .. } => transfer.digest(&asked.token.permit2),
    }
}

fn sign_again(asked: &Requirement, shown: &mut Presented) {
    let bytes = payer().sign(digest(asked, shown)).to_bytes();
    *signature_of(shown) = Bytes::copy_from_slice(&bytes);
}

fn signature_of(shown: &mut Presented) -> &mut Bytes {
    match shown {
        Presented::Eip3009 { signature, .. } | Presented::Permit2 { signature, .. } => signature,
    }
}

fn auth(shown: &mut Presented) -> &mut TransferAuthorization {
    let Presented::Eip3009 { authorization, .. } = shown else { panic!("not by EIP-3009") };
    authorization
}

fn permit(shown: &mut Presented) -> &mut WitnessTransfer {
    let Presented::Permit2 { transfer, .. } = shown else { panic!("not by Permit2") };
    transfer
}

fn approval(shown: &mut Presented) -> &mut Approval {
    let Presented::Permit2 { approval: Some(approval), .. } = shown else { panic!("no approval") };
    approval
}

/// What `check` says, as a code; the empty text is acceptance by the payer's key, `?` that a contract must agree.
fn verdict(asked: &Requirement, shown: &Presented, now: Timestamp, policy: &Policy) -> &'static str {
    match check(asked, shown, now, policy) {
        Ok(checked) => match checked.signature_status() {
            SignatureStatus::Proven => "",
            SignatureStatus::NeedsContract => "?",
        },
        Err(refusal) => refusal.code(),
    }
}

#[test]
fn honest_payments_pass_and_say_what_they_are() {
    for method in BOTH {
        let asked = asked(method);
        let checked = check(&asked, &honest(&asked), NOW, &Policy::default()).unwrap();
        assert_eq!(checked.signature_status(), SignatureStatus::Proven);
        assert_eq!(checked.payer(), account(&payer()));
        assert_eq!(checked.pay_to(), payee());
        assert_eq!(*checked.money(), asked.price());
        assert_eq!(checked.method(), method);
        assert_eq!(checked.network(), &Network::eip155(84532));
    }
}

#[test]
fn a_key_names_what_the_rail_consumes() {
    let nine = "09".repeat(32);
    let owner = account(&payer());
    let by = |method| check(&asked(method), &honest(&asked(method)), NOW, &Policy::default()).unwrap().key();
    assert_eq!(
        by(PullMethod::Eip3009).as_str(),
        format!("eip3009:eip155:84532:0x036cbd53842c5426634e7929541ec2318f3dcf7e:{owner}:0x{nine}")
    );
    let number = U256::from_be_bytes([9; 32]);
    assert_eq!(
        by(PullMethod::Permit2).as_str(),
        format!("permit2:eip155:84532:0x000000000022d473030f116ddee9f6b43ac78ba3:{owner}:{number}")
    );
}

#[test]
fn every_wrong_field_has_its_code() {
    type Spoil = fn(&mut Presented);
    let eip3009: &[(&str, Spoil, &str)] = &[
        ("nothing", |_| (), ""),
        ("another payee", |p| auth(p).to = stranger().address(), "invalid_exact_evm_recipient_mismatch"),
        (
            "an atom less",
            |p| auth(p).value = U256::from(999),
            "invalid_exact_evm_payload_authorization_value_mismatch",
        ),
        (
            "an atom more",
            |p| auth(p).value = U256::from(1001),
            "invalid_exact_evm_payload_authorization_value_mismatch",
        ),
        (
            "above 128 bits",
            |p| auth(p).value = U256::MAX,
            "invalid_exact_evm_payload_authorization_value_mismatch",
        ),
        (
            "begins never",
            |p| auth(p).valid_after = U256::MAX,
            "invalid_exact_evm_payload_authorization_valid_after",
        ),
        (
            "ended long ago",
            |p| auth(p).valid_before = U256::ZERO,
            "invalid_exact_evm_payload_authorization_valid_before",
        ),
        ("ends never", |p| auth(p).valid_before = U256::MAX, ""),
        ("another payer", |p| auth(p).from = stranger().address(), "?"),
        ("nobody pays", |p| auth(p).from = Address::ZERO, "invalid_exact_evm_signature"),
        ("another nonce", |p| auth(p).nonce = B256::ZERO, ""),
    ];
    let permit2: &[(&str, Spoil, &str)] = &[
        ("nothing", |_| (), ""),
        ("another spender", |p| permit(p).spender = stranger().address(), "invalid_permit2_spender"),
        ("Permit2 as spender", |p| permit(p).spender = known::PERMIT2, "invalid_permit2_spender"),
        ("another payee", |p| permit(p).to = stranger().address(), "invalid_permit2_recipient_mismatch"),
        ("another token", |p| permit(p).token = known::PERMIT2, "permit2_token_mismatch"),
        ("an atom less", |p| permit(p).amount = U256::from(999), "permit2_amount_mismatch"),
        ("an atom more", |p| permit(p).amount = U256::from(1001), "permit2_amount_mismatch"),
        ("begins never", |p| permit(p).valid_after = U256::MAX, "permit2_not_yet_valid"),
        ("ended long ago", |p| permit(p).deadline = U256::ZERO, "permit2_deadline_expired"),
        ("ends never", |p| permit(p).deadline = U256::MAX, ""),
        ("another nonce", |p| permit(p).nonce = U256::MAX, ""),
    ];
    for (method, rows) in [(PullMethod::Eip3009, eip3009), (PullMethod::Permit2, permit2)] {
        let asked = asked(method);
        for (name, spoil, code) in rows {
            // The payer signs what is wrong, so that only the field itself can be what is refused.
            let mut shown = honest(&asked);
            spoil(&mut shown);
            sign_again(&asked, &mut shown);
            let patient = Policy { max_validity: None, ..Policy::default() };
            assert_eq!(verdict(&asked, &shown, NOW, &patient), *code, "{method:?}: {name}");
        }
        // A payment by the other method is never taken for this one.
        let other = BOTH.into_iter().find(|other| *other != method).unwrap();
        assert_eq!(
            verdict(&asked, &honest(&super::tests::asked(other)), NOW, &Policy::default()),
            "unsupported_payload_type"
        );
    }
}

#[test]
fn windows_have_the_edges_of_the_standard() {
    for method in BOTH {
        let asked = asked(method);
        let window = |begin: i64, end: i64| {
            let at = |offset: i64| U256::from(NOW.secs().checked_add_signed(offset).unwrap());
            let mut shown = honest(&asked);
            match &mut shown {
                Presented::Eip3009 { authorization, .. } => {
                    (authorization.valid_after, authorization.valid_before) = (at(begin), at(end));
                }
                Presented::Permit2 { transfer, .. } => {
                    (transfer.valid_after, transfer.deadline) = (at(begin), at(end));
                }
            }
            sign_again(&asked, &mut shown);
            shown
        };
        let fact = |begin, end, millis, policy: &Policy| {
            let now = Timestamp::from_millis(NOW.millis() + millis);
            check(&asked, &window(begin, end), now, policy).map(|_| ()).map_err(|refusal| refusal.fact)
        };
        let default = Policy::default();
        let at = |offset| Timestamp::from_secs(NOW.secs() + offset);
        // validAfter > now is refused, in whole seconds; not one millisecond of the next second counts before it.
        assert_eq!(fact(-1, 60, 0, &default), Ok(()));
        assert_eq!(fact(0, 60, 0, &default), Ok(()));
        assert_eq!(fact(1, 60, 0, &default), Err(Fact::NotYetValid { from: at(1) }));
        assert_eq!(fact(1, 60, 999, &default), Err(Fact::NotYetValid { from: at(1) }));
        assert_eq!(fact(1, 60, 1000, &default), Ok(()));
        // validBefore < now + 6 is refused.
        assert_eq!(fact(0, 7, 0, &default), Ok(()));
        assert_eq!(fact(0, 6, 0, &default), Ok(()));
        assert_eq!(fact(0, 6, 999, &default), Ok(()));
        assert_eq!(fact(0, 6, 1000, &default), Err(Fact::Expired { at: at(6) }));
        assert_eq!(fact(0, 5, 0, &default), Err(Fact::Expired { at: at(5) }));
        // An operator may ask for more, and never for less.
        let more = Policy { min_remaining: Duration::from_secs(20), ..Policy::default() };
        assert_eq!(fact(0, 20, 0, &more), Ok(()));
        assert_eq!(fact(0, 19, 0, &more), Err(Fact::Expired { at: at(19) }));
        let less = Policy { min_remaining: Duration::ZERO, ..Policy::default() };
        assert_eq!(fact(0, 5, 0, &less), Err(Fact::Expired { at: at(5) }));
        // And may refuse to remember an authorization for years.
        let capped = Policy { max_validity: Some(MINUTE), ..Policy::default() };
        assert_eq!(fact(0, 60, 0, &capped), Ok(()));
        assert_eq!(fact(0, 61, 0, &capped), Err(Fact::TooLong { at: at(61) }));

        // Dead from `validBefore` on by EIP-3009, and from the second after `deadline` by Permit2.
        let checked = check(&asked, &window(0, 60), NOW, &default).unwrap();
        let dead = if method == PullMethod::Eip3009 { 60 } else { 61 };
        assert_eq!(checked.expires(), at(dead));
    }
}

#[test]
fn an_authorization_without_end_expires_at_the_end_of_time() {
    let asked = asked(PullMethod::Permit2);
    let mut shown = honest(&asked);
    permit(&mut shown).deadline = U256::MAX;
    sign_again(&asked, &mut shown);
    assert!(matches!(
        check(&asked, &shown, NOW, &Policy::default()).map_err(|refusal| refusal.fact),
        Err(Fact::TooLong { .. })
    ));
    let patient = Policy { max_validity: None, ..Policy::default() };
    let checked = check(&asked, &shown, NOW, &patient).unwrap();
    assert_eq!(checked.expires().to_string(), "9999-12-31T23:59:59.000Z");
}

#[test]
fn signatures_are_judged_by_what_they_recover_to() {
    let no_contracts = Policy { contract_wallets: false, ..Policy::default() };
    for method in BOTH {
        let asked = asked(method);
        let bad = if method == PullMethod::Eip3009 {
            "invalid_exact_evm_signature"
        } else {
            "invalid_permit2_signature"
        };
        let good = signature_of(&mut honest(&asked)).to_vec();
        let with = |signature: Vec<u8>| {
            let mut shown = honest(&asked);
            *signature_of(&mut shown) = signature.into();
            shown
        };
        let parsed = Signature::parse(&good).unwrap();
        let parity = [&good[..64], &[u8::from(parsed.y_is_odd())]].concat();
        let mut compact = good[..64].to_vec();
        compact[32] |= u8::from(parsed.y_is_odd()) << 7;
        let wrap = |signature: &[u8]| {
            let wrapped = Wrapped {
                factory: stranger().address(),
                factory_data: Bytes::new(),
                signature: Bytes::copy_from_slice(signature),
            };
            wrap_erc6492(&wrapped).to_vec()
        };
        let by_stranger = stranger().sign(digest(&asked, &honest(&asked))).to_bytes().to_vec();
        let broken_wrapper = [&good[..], &[0x64, 0x92].repeat(16)].concat();
        // The verdict where contracts may pay, and where they may not.
        let rows: [(&str, Vec<u8>, &str, &str); 11] = [
            ("canonical", good.clone(), "", ""),
            ("v is 0 or 1", parity, "", ""),
            ("EIP-2098", compact, "", ""),
            ("wrapped for no reason", wrap(&good), "", ""),
            ("another key", by_stranger.clone(), "?", bad),
            ("another key, wrapped", wrap(&by_stranger), "?", bad),
            ("too short", good[..63].to_vec(), "?", bad),
            ("a passkey's", vec![1; 300], "?", bad),
            ("empty", Vec::new(), bad, bad),
            ("too long", vec![1; farthing_evm::MAX_SIGNATURE_LEN + 1], bad, bad),
            ("a broken wrapper", broken_wrapper, bad, bad),
        ];
        for (name, signature, with_contracts, without) in rows {
            let shown = with(signature);
            assert_eq!(
                verdict(&asked, &shown, NOW, &Policy::default()),
                with_contracts,
                "{method:?}: {name}"
            );
            assert_eq!(verdict(&asked, &shown, NOW, &no_contracts), without, "{method:?}: {name}, keys only");
        }
    }
}

#[test]
fn however_it_is_spelled_an_authorization_settles_by_the_same_bytes() {
    for method in BOTH {
        let asked = asked(method);
        let canonical = check(&asked, &honest(&asked), NOW, &Policy::default()).unwrap();
        let mut shown = honest(&asked);
        let mut bytes = signature_of(&mut shown).to_vec();
        bytes[64] -= 27;
        *signature_of(&mut shown) = bytes.into();
        let other = check(&asked, &shown, NOW, &Policy::default()).unwrap();
        assert_eq!(other, canonical);
        assert_eq!(other.key(), canonical.key());
        assert_eq!(other.reads(), canonical.reads());
    }
}

#[test]
fn an_approval_is_checked_like_a_payment() {
    let asked = asked(PullMethod::Permit2);
    type Spoil = fn(&mut Approval);
    let rows: &[(&str, Spoil, &str)] = &[
        ("nothing", |_| (), ""),
        ("another account", |a| a.from = stranger().address(), "eip2612_from_mismatch"),
        ("another token", |a| a.asset = known::PERMIT2, "eip2612_asset_mismatch"),
        ("another spender", |a| a.spender = stranger().address(), "eip2612_spender_not_permit2"),
        ("the proxy as spender", |a| a.spender = known::X402_EXACT_PROXY, "eip2612_spender_not_permit2"),
        ("all there is", |a| a.amount = U256::MAX, "permit2_2612_amount_mismatch"),
        ("too soon over", |a| a.deadline = U256::from(NOW.secs() + 5), "eip2612_deadline_expired"),
        ("another nonce", |a| a.nonce = U256::ZERO, "invalid_eip2612_extension_format"),
        ("a longer life", |a| a.deadline = U256::MAX, "invalid_eip2612_extension_format"),
        ("no signature", |a| a.signature = Bytes::new(), "invalid_eip2612_extension_format"),
        (
            "another key",
            |a| a.signature = stranger().sign(B256::ZERO).to_bytes().to_vec().into(),
            "invalid_eip2612_extension_format",
        ),
    ];
    for (name, spoil, code) in rows {
        let mut shown = approved(&asked);
        spoil(approval(&mut shown));
        let checked = check(&asked, &shown, NOW, &Policy::default()).unwrap();
        let with = |allowance| judged(&checked, |q| (q == Question::Allowance).then(|| word(allowance)));
        assert_eq!(with(999), *code, "{name}");
        // Where the allowance suffices, nobody looks at it.
        assert_eq!(with(1000), "", "{name}");
        assert_eq!(Checked::recall(&checked.instruction()), Ok(checked), "{name}");
    }
    // Tether signs nothing: an approval for it cannot be genuine.
    let token = usdt();
    let price = token.asset().atoms(1000);
    let on_mainnet = Requirement::new(token, &price, &payee(), PullMethod::Permit2, MINUTE).unwrap();
    let unsigned = buy::authorize(&on_mainnet, &account(&payer()), Nonce([1; 32]), MINUTE, NOW).unwrap();
    assert_eq!(buy::approve(&on_mainnet, &unsigned, U256::ZERO), Err(BuyError::NoDomain));
    let forged = Approval { asset: on_mainnet.token.address, ..approval(&mut approved(&asked)).clone() };
    let shown = unsigned.signed(&payer().sign(unsigned.digest()), Some(forged));
    let checked = check(&on_mainnet, &shown, NOW, &Policy::default()).unwrap();
    let short = judged(&checked, |q| (q == Question::Allowance).then(|| word(0)));
    assert_eq!(short, "invalid_eip2612_extension_format");
}

#[test]
fn a_requirement_that_cannot_be_paid_is_ours_to_mend() {
    let token = usdc();
    let price = token.asset().atoms(1);
    let make = |token: &Arc<Token>, price: &Money, payee: &Account, method, time| {
        Requirement::new(token.clone(), price, payee, method, time).map(|_| ()).unwrap_err()
    };
    let solana = Account::parse(
        &Network::from_v1_name("solana").unwrap(),
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    )
    .unwrap();
    let by = PullMethod::Eip3009;
    let foreign = usdt().asset().atoms(1);
    let zero = Account::from_evm_bytes([0; 20]);
    assert!(matches!(make(&token, &foreign, &payee(), by, MINUTE), RequirementError::OtherAsset { .. }));
    assert_eq!(make(&token, &token.asset().atoms(0), &payee(), by, MINUTE), RequirementError::ZeroPrice);
    assert_eq!(make(&token, &price, &solana, by, MINUTE), RequirementError::Payee(solana.clone()));
    assert_eq!(make(&token, &price, &zero, by, MINUTE), RequirementError::ZeroPayee);
    assert_eq!(make(&token, &price, &payee(), by, Duration::from_millis(999)), RequirementError::NoTime);
    assert!(matches!(make(&usdt(), &foreign, &payee(), by, MINUTE), RequirementError::NoDomain(_)));
}

// What the chain answers.

fn word(n: u64) -> ReadResult {
    ReadResult::Returned(U256::from(n).to_be_bytes::<32>().to_vec().into())
}

fn nothing() -> ReadResult {
    ReadResult::Returned(Bytes::new())
}

fn reverted(reason: &str) -> ReadResult {
    ReadResult::Reverted(error(reason).into())
}

/// `Error(string)`.
fn error(reason: &str) -> Vec<u8> {
    let mut data = vec![0x08, 0xc3, 0x79, 0xa0];
    data.extend(U256::from(32).to_be_bytes::<32>());
    data.extend(U256::from(reason.len()).to_be_bytes::<32>());
    data.extend(reason.as_bytes());
    data.resize(4 + 64 + reason.len().next_multiple_of(32), 0);
    data
}

fn magic() -> ReadResult {
    let mut bytes = vec![0; 32];
    bytes[..4].copy_from_slice(&[0x16, 0x26, 0xba, 0x7e]);
    ReadResult::Returned(bytes.into())
}

/// The answers of a chain where everything is as it should be, but for the questions that `change` answers.
fn answers(checked: &Checked, change: impl Fn(Question) -> Option<ReadResult>) -> Vec<ReadResult> {
    let usual = |question| match question {
        Question::Balance | Question::Allowance => word(1000),
        Question::Nonce => word(0),
        Question::Proxy => ReadResult::Returned(known::PERMIT2.into_word().to_vec().into()),
        Question::WalletAgrees => magic(),
        Question::Settle(_) => nothing(),
    };
    checked.questions().into_iter().map(|q| change(q).unwrap_or_else(|| usual(q))).collect()
}

fn judged(checked: &Checked, change: impl Fn(Question) -> Option<ReadResult>) -> &'static str {
    match checked.judge(&answers(checked, change)) {
        Ok(_) => "",
        Err(refusal) => refusal.code(),
    }
}

fn checked(method: PullMethod) -> Checked {
    let asked = asked(method);
    check(&asked, &honest(&asked), NOW, &Policy::default()).unwrap()
}

const SETTLE: Question = Question::Settle(Way::Plain);

#[test]
fn the_chain_has_its_say() {
    let by_eip3009: &[(&str, Question, ReadResult, &str)] = &[
        ("all is well", Question::Balance, word(1000), ""),
        ("an atom short", Question::Balance, word(999), "invalid_exact_evm_insufficient_balance"),
        ("more than 128 bits", Question::Balance, ReadResult::Returned(vec![0xff; 32].into()), ""),
        ("no token there", Question::Balance, nothing(), "asset_not_deployed_contract"),
        ("a token that fails", Question::Balance, reverted("paused"), "asset_not_deployed_contract"),
        ("used or cancelled", Question::Nonce, word(1), "invalid_exact_evm_nonce_already_used"),
        ("no EIP-3009", Question::Nonce, reverted(""), "invalid_exact_evm_eip3009_not_supported"),
        (
            "no EIP-3009 behind a fallback",
            Question::Nonce,
            nothing(),
            "invalid_exact_evm_eip3009_not_supported",
        ),
        ("no bool", Question::Nonce, word(2), "invalid_exact_evm_eip3009_not_supported"),
        ("no answer", Question::Nonce, ReadResult::Unavailable, "unexpected_verify_error"),
        ("no simulation", SETTLE, ReadResult::Unavailable, "unexpected_verify_error"),
        (
            "some failure",
            SETTLE,
            reverted("Pausable: paused"),
            "invalid_exact_evm_transaction_simulation_failed",
        ),
        (
            "bare failure",
            SETTLE,
            ReadResult::Reverted(Bytes::new()),
            "invalid_exact_evm_transaction_simulation_failed",
        ),
        ("signature", SETTLE, reverted("FiatTokenV2: invalid signature"), "invalid_exact_evm_signature"),
        (
            "expired meanwhile",
            SETTLE,
            reverted("FiatTokenV2: authorization is expired"),
            "invalid_exact_evm_payload_authorization_valid_before",
        ),
        (
            "chain is behind",
            SETTLE,
            reverted("FiatTokenV2: authorization is not yet valid"),
            "invalid_exact_evm_payload_authorization_valid_after",
        ),
        (
            "used meanwhile",
            SETTLE,
            reverted("FiatTokenV2: authorization is used or canceled"),
            "invalid_exact_evm_nonce_already_used",
        ),
        (
            "spent meanwhile",
            SETTLE,
            reverted("ERC20: transfer amount exceeds balance"),
            "invalid_exact_evm_insufficient_balance",
        ),
    ];
    let by_permit2: &[(&str, Question, ReadResult, &str)] = &[
        ("all is well", Question::Balance, word(1000), ""),
        ("an atom short", Question::Balance, word(999), "permit2_insufficient_balance"),
        ("no token there", Question::Balance, nothing(), "asset_not_deployed_contract"),
        // Nonce 0x0909…09: bit 9 of its word.
        ("used", Question::Nonce, word(1 << 9), "permit2_invalid_nonce"),
        (
            "others of the word used",
            Question::Nonce,
            ReadResult::Returned((U256::MAX ^ U256::from(1u64 << 9)).to_be_bytes::<32>().to_vec().into()),
            "",
        ),
        ("no Permit2", Question::Nonce, nothing(), "permit2_proxy_not_deployed"),
        ("no proxy", Question::Proxy, nothing(), "permit2_proxy_not_deployed"),
        ("another Permit2's proxy", Question::Proxy, word(1), "permit2_proxy_not_deployed"),
        ("not approved", Question::Allowance, word(999), "permit2_allowance_required"),
        ("no allowance", Question::Allowance, nothing(), "asset_not_deployed_contract"),
        ("some failure", SETTLE, reverted("TRANSFER_FROM_FAILED"), "permit2_simulation_failed"),
        (
            "used meanwhile",
            SETTLE,
            ReadResult::Reverted(vec![0x75, 0x66, 0x88, 0xfe].into()),
            "permit2_invalid_nonce",
        ),
        ("no answer", Question::Proxy, ReadResult::Unavailable, "unexpected_verify_error"),
    ];
    for (method, rows) in [(PullMethod::Eip3009, by_eip3009), (PullMethod::Permit2, by_permit2)] {
        let checked = checked(method);
        for (name, question, answer, code) in rows {
            let got = judged(&checked, |asked| (asked == *question).then(|| answer.clone()));
            assert_eq!(got, *code, "{method:?}: {name}");
        }
        // Answers that are not as many as the questions are no answers.
        let full = answers(&checked, |_| None);
        for wrong in [&full[1..], &[], &[&full[..], &full[..1]].concat()] {
            assert_eq!(checked.judge(wrong).unwrap_err().fact, Fact::Unavailable);
        }
    }
}

#[test]
fn settlements_are_plain_calls_with_absolute_caps() {
    let gas = GasCaps::default();
    let funded = |checked: &Checked| checked.judge(&answers(checked, |_| None)).unwrap().settlement().clone();

    let by = checked(PullMethod::Eip3009);
    let Presented::Eip3009 { authorization, signature } = honest(&asked(PullMethod::Eip3009)) else {
        panic!()
    };
    let data = abi::transfer_with_authorization(&authorization, &Signature::parse(&signature).unwrap());
    assert_eq!(funded(&by), Settlement { to: usdc().address, data, gas_cap: gas.eip3009 });
    assert_eq!(by.settles_at(), *usdc().asset().id.address());

    let by = checked(PullMethod::Permit2);
    let Presented::Permit2 { owner, transfer, signature, .. } = honest(&asked(PullMethod::Permit2)) else {
        panic!()
    };
    let data = abi::settle(owner, &transfer, &signature);
    assert_eq!(funded(&by), Settlement { to: known::X402_EXACT_PROXY, data, gas_cap: gas.permit2 });
    assert_eq!(by.settles_at(), from_alloy(known::X402_EXACT_PROXY));
    // What is simulated is what is settled.
    assert_eq!(by.reads().last().unwrap().data, funded(&by).data);
}

#[test]
fn an_approval_is_used_only_where_it_is_needed() {
    let asked = asked(PullMethod::Permit2);
    let checked = check(&asked, &approved(&asked), NOW, &Policy::default()).unwrap();
    let with = |allowance: u64| {
        checked.judge(&answers(&checked, |q| (q == Question::Allowance).then(|| word(allowance)))).unwrap()
    };
    let data = |way| {
        checked
            .reads()
            .remove(checked.questions().iter().position(|q| *q == Question::Settle(way)).unwrap())
            .data
    };
    // Submitting it would replace an allowance that suffices by a smaller one.
    assert_eq!(with(1000).settlement().data, data(Way::Plain));
    assert_eq!(with(999).settlement().data, data(Way::WithApproval));
    assert_eq!(with(999).settlement().gas_cap, GasCaps::default().permit2_with_approval);
    assert_ne!(data(Way::Plain), data(Way::WithApproval));
    // Only the simulation of the way that is taken counts.
    let short = |q: Question| match q {
        Question::Allowance => Some(word(0)),
        SETTLE => Some(reverted("TRANSFER_FROM_FAILED")),
        _ => None,
    };
    assert_eq!(judged(&checked, short), "");
    let fails = |q: Question| match q {
        Question::Allowance => Some(word(0)),
        Question::Settle(Way::WithApproval) => Some(reverted("TRANSFER_FROM_FAILED")),
        _ => None,
    };
    assert_eq!(judged(&checked, fails), "permit2_simulation_failed");
}

/// A payment of a wallet that is a contract, owned by the stranger, wrapped or not.
fn by_wallet(method: PullMethod, wrapped: bool, policy: &Policy) -> Checked {
    let asked = asked(method);
    let mut shown = honest(&asked);
    let inner = stranger().sign(digest(&asked, &shown)).to_bytes();
    let wrapper = Wrapped {
        factory: known::MULTICALL3,
        factory_data: vec![1, 2, 3].into(),
        signature: inner.to_vec().into(),
    };
    *signature_of(&mut shown) = if wrapped { wrap_erc6492(&wrapper) } else { inner.to_vec().into() };
    let checked = check(&asked, &shown, NOW, policy).unwrap();
    assert_eq!(checked.signature_status(), SignatureStatus::NeedsContract);
    checked
}

fn deployed(success: bool, data: &[u8]) -> ReadResult {
    // `aggregate3` of two calls: the factory's failed, the transfer's is given.
    let mut out = Vec::new();
    let word = |out: &mut Vec<u8>, n: usize| out.extend(U256::from(n).to_be_bytes::<32>());
    let padded = data.len().next_multiple_of(32);
    for n in [32, 2, 64, 64 + 96, 0, 64, 0, usize::from(success), 64, data.len()] {
        word(&mut out, n);
    }
    out.extend(data);
    out.resize(out.len() + padded - data.len(), 0);
    ReadResult::Returned(out.into())
}

#[test]
fn wallets_are_asked_themselves() {
    let open = Policy { factories: vec![known::MULTICALL3], ..Policy::default() };
    let closed = Policy::default();
    for method in BOTH {
        let bad = if method == PullMethod::Eip3009 {
            "invalid_exact_evm_signature"
        } else {
            "invalid_permit2_signature"
        };
        let refuses = |q| (q == Question::WalletAgrees).then(|| word(0));
        let reverts = |q| (q == Question::WalletAgrees).then(|| reverted("no"));
        let absent = |q: Question| match q {
            Question::WalletAgrees => Some(nothing()),
            // Without code there, the plain way fails.
            SETTLE => Some(reverted("FiatTokenV2: invalid signature")),
            Question::Settle(Way::WithDeployment) => Some(deployed(true, &[])),
            _ => None,
        };
        let absent_and_failing = |q: Question| match q {
            Question::Settle(Way::WithDeployment) => {
                Some(deployed(false, &error("FiatTokenV2: invalid signature")))
            }
            q => absent(q),
        };

        // No wrapper: it is deployed and agrees, or it is nothing.
        let plain = by_wallet(method, false, &closed);
        assert_eq!(judged(&plain, |_| None), "");
        assert_eq!(judged(&plain, refuses), bad);
        assert_eq!(judged(&plain, reverts), bad);
        assert_eq!(judged(&plain, absent), bad);

        // Wrapped: if it is deployed by now, the wrapper does not matter; if not, the factory must be allowed.
        let wrapped = by_wallet(method, true, &closed);
        assert_eq!(judged(&wrapped, |_| None), "");
        assert_eq!(judged(&wrapped, refuses), bad);
        assert_eq!(judged(&wrapped, absent), "eip6492_factory_not_allowed");
        assert!(!wrapped.questions().contains(&Question::Settle(Way::WithDeployment)));

        let allowed = by_wallet(method, true, &open);
        assert_eq!(judged(&allowed, |_| None), "");
        assert_eq!(judged(&allowed, absent), "");
        assert_eq!(judged(&allowed, absent_and_failing), bad);
        let garbled = |q: Question| match q {
            Question::Settle(Way::WithDeployment) => Some(nothing()),
            q => absent(q),
        };
        assert!(judged(&allowed, garbled).ends_with("simulation_failed"));

        // Deployment and transfer are one transaction, with its own cap, and all or nothing.
        let gas = GasCaps::default();
        let base = if method == PullMethod::Eip3009 { gas.eip3009 } else { gas.permit2 };
        let deploying = allowed.judge(&answers(&allowed, absent)).unwrap();
        assert_eq!(deploying.settlement().to, known::MULTICALL3);
        assert_eq!(deploying.settlement().gas_cap, base + gas.wallet + gas.deployment);
        let simulated = allowed.reads().pop().unwrap();
        assert_ne!(simulated.data, deploying.settlement().data);
        let plainly = allowed.judge(&answers(&allowed, |_| None)).unwrap();
        assert_eq!(from_alloy(plainly.settlement().to), allowed.settles_at());
        assert_eq!(plainly.settlement().gas_cap, base + gas.wallet);

        // Code that the payer chose never shares a call with other payments.
        for (question, read) in allowed.questions().into_iter().zip(allowed.reads()) {
            let own = matches!(question, Question::WalletAgrees | Question::Settle(_));
            assert_eq!(read.kind == ReadKind::Untrusted, own, "{question:?}");
        }
    }
}

#[test]
fn a_wallet_is_shown_the_signature_as_it_came() {
    let checked = by_wallet(PullMethod::Eip3009, true, &Policy::default());
    let funded = checked.judge(&answers(&checked, |_| None)).unwrap();
    let asked = asked(PullMethod::Eip3009);
    let mut shown = honest(&asked);
    let inner = stranger().sign(digest(&asked, &shown)).to_bytes();
    assert_eq!(funded.settlement().data, abi::transfer_with_authorization_bytes(auth(&mut shown), &inner));
}

#[test]
fn simulations_of_one_payer_contend_and_of_two_do_not() {
    let kind = |key: &Key, method| {
        let asked = asked(method);
        let unsigned = buy::authorize(&asked, &account(key), Nonce([1; 32]), MINUTE, NOW).unwrap();
        let shown = unsigned.signed(&key.sign(unsigned.digest()), None);
        check(&asked, &shown, NOW, &Policy::default()).unwrap().reads().pop().unwrap().kind
    };
    let by_payer = kind(&payer(), PullMethod::Eip3009);
    assert!(matches!(by_payer, ReadKind::Simulation { .. }));
    assert_eq!(by_payer, kind(&payer(), PullMethod::Permit2));
    assert_ne!(by_payer, kind(&stranger(), PullMethod::Eip3009));
}

#[test]
fn whether_it_was_used_is_asked_apart() {
    for method in BOTH {
        let checked = checked(method);
        assert_eq!(checked.consumed_read(), checked.reads()[1]);
        assert_eq!(checked.consumed(&word(0)), Some(false));
        let used = if method == PullMethod::Eip3009 { 1 } else { 1 << 9 };
        assert_eq!(checked.consumed(&word(used)), Some(true));
        assert_eq!(checked.consumed(&nothing()), None);
        assert_eq!(checked.consumed(&ReadResult::Unavailable), None);
        assert_eq!(checked.consumed(&ReadResult::Reverted(Bytes::new())), None);
    }
}

// Proofs.

fn transfer_log(index: u64, value: u64) -> Log {
    Log {
        address: usdc().address,
        topics: vec![Transfer::TOPIC, payer().address().into_word(), to_alloy(&payee()).unwrap().into_word()],
        data: U256::from(value).to_be_bytes::<32>().into(),
        index,
    }
}

fn used_log(index: u64, nonce: u8) -> Log {
    Log {
        address: usdc().address,
        topics: vec![AuthorizationUsed::TOPIC, payer().address().into_word(), B256::repeat_byte(nonce)],
        data: Bytes::new(),
        index,
    }
}

#[test]
fn only_the_exact_transfer_of_the_token_proves() {
    let by = checked(PullMethod::Eip3009);
    let proof = |logs: &[Log]| by.proof(logs).map(|proof| proof.log_index);
    let (used, moved) = (used_log(4, 9), transfer_log(5, 1000));
    let edit = |log: &Log, edit: fn(&mut Log)| {
        let mut log = log.clone();
        edit(&mut log);
        log
    };
    assert_eq!(proof(&[used.clone(), moved.clone()]), Ok(5));
    assert_eq!(proof(&[moved.clone(), used.clone()]), Ok(5));
    // A token that does not revert: the transaction succeeded, and nothing moved.
    assert_eq!(proof(&[]), Err(ProofError::NoAuthorizationUsed));
    assert_eq!(proof(std::slice::from_ref(&used)), Err(ProofError::NoTransfer));
    assert_eq!(proof(std::slice::from_ref(&moved)), Err(ProofError::NoAuthorizationUsed));
    assert_eq!(proof(&[used.clone(), transfer_log(5, 999)]), Err(ProofError::NoTransfer));
    assert_eq!(proof(&[used_log(4, 8), moved.clone()]), Err(ProofError::NoAuthorizationUsed));
    let elsewhere = edit(&moved, |log| log.address = Address::repeat_byte(1));
    assert_eq!(proof(&[used.clone(), elsewhere]), Err(ProofError::NoTransfer));
    let to_another = edit(&moved, |log| log.topics[2] = log.topics[1]);
    assert_eq!(proof(&[used.clone(), to_another]), Err(ProofError::NoTransfer));
    let from_another = edit(&moved, |log| log.topics[1] = log.topics[2]);
    assert_eq!(proof(&[used.clone(), from_another]), Err(ProofError::NoTransfer));
    let faked = edit(&used, |log| log.address = Address::repeat_byte(1));
    assert_eq!(proof(&[faked, moved.clone()]), Err(ProofError::NoAuthorizationUsed));
    // Two transfers before it: neither is known to be its own.
    assert_eq!(
        proof(&[transfer_log(2, 1000), transfer_log(3, 1000), used.clone()]),
        Err(ProofError::NoTransfer)
    );
    // A neighbour's transfer proves nothing for an authorization that moved nothing.
    let neighbour =
        [used_log(1, 8), transfer_log(2, 1000), used.clone(), used_log(6, 7), transfer_log(7, 1000)];
    assert_eq!(proof(&neighbour), Err(ProofError::NoTransfer));
    // In a batch each authorization has the transfer behind it.
    let batch = [used_log(1, 8), transfer_log(2, 1000), used, moved];
    assert_eq!(proof(&batch), Ok(5));
    assert_eq!(by.proof_besides(&batch, &[5]), Err(ProofError::NoTransfer));
}

#[test]
fn an_authorization_is_spent_otherwise_only_by_its_tokens_word() {
    let by = checked(PullMethod::Eip3009);
    let (used, moved) = (used_log(4, 9), transfer_log(5, 1000));
    let canceled = |nonce| {
        let mut log = used_log(4, nonce);
        log.topics[0] = farthing_evm::AuthorizationCanceled::TOPIC;
        log
    };
    assert_eq!(by.spent_otherwise(&[canceled(9)]), Some("authorization_canceled"));
    assert_eq!(by.spent_otherwise(&[canceled(8)]), None);
    let mut elsewhere = canceled(9);
    elsewhere.address = Address::repeat_byte(1);
    assert_eq!(by.spent_otherwise(&[elsewhere]), None);
    assert_eq!(by.spent_otherwise(&[used.clone(), moved]), None);
    assert_eq!(
        by.spent_otherwise(&[used, transfer_log(5, 999)]),
        Some("invalid_exact_evm_transfer_event_mismatch")
    );
    assert_eq!(by.spent_otherwise(&[]), None);
    assert_eq!(checked(PullMethod::Permit2).spent_otherwise(&[canceled(9)]), None);
}

#[test]
fn permit2_transfers_prove_once_each() {
    let by = checked(PullMethod::Permit2);
    let logs = [transfer_log(2, 1000), transfer_log(5, 1000)];
    assert_eq!(by.proof(&logs), Ok(TransferProof { log_index: 2 }));
    assert_eq!(by.proof_besides(&logs, &[2]), Ok(TransferProof { log_index: 5 }));
    assert_eq!(by.proof_besides(&logs, &[2, 5]), Err(ProofError::NoTransfer));
    assert_eq!(by.proof(&[transfer_log(2, 1001)]), Err(ProofError::NoTransfer));
}

#[test]
fn traces_find_the_user_of_an_authorization() {
    let by = checked(PullMethod::Eip3009);
    // Any event of the token about this authorization: used, or cancelled.
    let mut topics: Vec<_> = used_log(0, 9).topics.iter().map(|topic| Some(topic.0)).collect();
    topics[0] = None;
    assert_eq!(by.trace(), Trace { address: usdc().asset().id.address().clone(), topics });
    assert!(by.trace_is_unambiguous());
    let by = checked(PullMethod::Permit2);
    let topics: Vec<_> = transfer_log(0, 1).topics.iter().map(|topic| Some(topic.0)).collect();
    assert_eq!(by.trace().topics, topics);
    assert!(!by.trace_is_unambiguous());
}

// Instructions.

#[test]
fn a_payment_presented_again_is_the_same_payment() {
    let open = Policy { factories: vec![known::MULTICALL3], ..Policy::default() };
    let permit2 = asked(PullMethod::Permit2);
    let sponsored = check(&permit2, &approved(&permit2), NOW, &Policy::default()).unwrap();
    assert_eq!(check(&permit2, &sponsored.presented(), NOW, &Policy::default()), Ok(sponsored.clone()));
    assert!(matches!(sponsored.presented(), Presented::Permit2 { approval: Some(_), .. }));
    for method in BOTH {
        for (checked, policy) in [
            (checked(method), &Policy::default()),
            (by_wallet(method, false, &open), &open),
            (by_wallet(method, true, &open), &open),
        ] {
            assert_eq!(check(&asked(method), &checked.presented(), NOW, policy), Ok(checked));
        }
    }
}

#[test]
fn instructions_bring_back_all_of_a_payment() {
    let open = Policy { factories: vec![known::MULTICALL3], ..Policy::default() };
    let asked = asked(PullMethod::Permit2);
    let sponsored = check(&asked, &approved(&asked), NOW, &Policy::default()).unwrap();
    let mut all = vec![sponsored];
    for method in BOTH {
        all.extend([checked(method), by_wallet(method, false, &open), by_wallet(method, true, &open)]);
    }
    for checked in all {
        let instruction = checked.instruction();
        assert_eq!(Checked::recall(&instruction), Ok(checked));
        let bytes = instruction.as_bytes();
        for len in 1..bytes.len() {
            assert_eq!(Checked::recall(&Instruction::new(&bytes[..len])), Err(InstructionError::Damaged));
        }
        let longer = [bytes, &[0]].concat();
        assert_eq!(Checked::recall(&Instruction::new(longer)), Err(InstructionError::Damaged));
        let mut newer = bytes.to_vec();
        newer[0] = 2;
        assert_eq!(Checked::recall(&Instruction::new(newer)), Err(InstructionError::Version(2)));
    }
    assert_eq!(Checked::recall(&Instruction::new([])), Err(InstructionError::Damaged));
}

// The buyer.

#[test]
fn a_buyer_signs_no_more_than_the_offer_and_the_cap() {
    let end = |offer: &Requirement, cap: u64| {
        let unsigned =
            buy::authorize(offer, &account(&payer()), Nonce([1; 32]), Duration::from_secs(cap), NOW)?;
        Ok(unsigned.expires().secs() - NOW.secs())
    };
    let too_short = |secs| Err(BuyError::TooShort(Duration::from_secs(secs)));
    let offer = asked(PullMethod::Eip3009);
    assert_eq!(end(&offer, 30), Ok(30));
    assert_eq!(end(&offer, 60), Ok(60));
    assert_eq!(end(&offer, 1_000_000), Ok(60));
    assert_eq!(end(&offer, 7), Ok(7));
    assert_eq!(end(&offer, 6), too_short(6));
    assert_eq!(end(&asked(PullMethod::Permit2), 30), Ok(31));
    let nobody = Account::parse(
        &Network::from_v1_name("solana").unwrap(),
        "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    )
    .unwrap();
    let refused = buy::authorize(&offer, &nobody, Nonce([1; 32]), MINUTE, NOW);
    assert_eq!(refused, Err(BuyError::Payer(nobody)));
    let unsigned = buy::authorize(&offer, &account(&payer()), Nonce([1; 32]), MINUTE, NOW).unwrap();
    assert_eq!(buy::approve(&offer, &unsigned, U256::ZERO), Err(BuyError::NoApproval));
}

#[test]
fn what_a_buyer_makes_a_seller_takes() {
    for method in BOTH {
        let offer = asked(method);
        let unsigned = buy::authorize(&offer, &account(&payer()), Nonce([5; 32]), MINUTE, NOW).unwrap();
        let shown = unsigned.signed(&payer().sign(unsigned.digest()), None);
        let checked = check(&offer, &shown, NOW, &Policy::default()).unwrap();
        assert_eq!(checked.key(), *unsigned.key());
        assert_eq!(checked.expires(), unsigned.expires());
        assert_eq!(checked.money(), unsigned.money());
        // At the last moment at which a seller of the shortest patience takes it, and one second later.
        let last = Timestamp::from_secs(NOW.secs() + 54);
        assert_eq!(verdict(&offer, &shown, last, &Policy::default()), "");
        let late = Timestamp::from_secs(NOW.secs() + 55);
        assert_ne!(verdict(&offer, &shown, late, &Policy::default()), "");
    }
}

// Refusals.

#[test]
fn every_refusal_has_a_code_that_peers_know() {
    let facts = [
        Fact::OtherMethod,
        Fact::Recipient,
        Fact::Amount,
        Fact::Token,
        Fact::Spender,
        Fact::NotYetValid { from: NOW },
        Fact::Expired { at: NOW },
        Fact::TooLong { at: NOW },
        Fact::Signature(SignatureFault::NotAccepted),
        Fact::Approval(ApprovalFault::From),
        Fact::Approval(ApprovalFault::Asset),
        Fact::Approval(ApprovalFault::Spender),
        Fact::Approval(ApprovalFault::Amount),
        Fact::Approval(ApprovalFault::Expired),
        Fact::Approval(ApprovalFault::Signature),
        Fact::FactoryNotAllowed,
        Fact::TokenNotDeployed,
        Fact::Eip3009NotSupported,
        Fact::ProxyNotDeployed,
        Fact::NonceUsed,
        Fact::InsufficientBalance,
        Fact::AllowanceRequired,
        Fact::Simulation(Revert::Empty),
        Fact::Unavailable,
    ];
    for method in BOTH {
        for fact in &facts {
            let refusal = Refusal { method, fact: fact.clone() };
            assert!(!matches!(ErrorCode::from(refusal.code()), ErrorCode::Other(_)), "{}", refusal.code());
            assert_eq!(refusal.reason().code(), refusal.code());
            let text = refusal.to_string();
            assert!(text.starts_with(|c: char| c.is_lowercase()) && !text.ends_with('.'), "{text}");
        }
    }
    let refusal = |fact| Refusal { method: PullMethod::Permit2, fact };
    assert_eq!(refusal(Fact::Unavailable).fault(), Fault::Chain);
    assert_eq!(refusal(Fact::ProxyNotDeployed).fault(), Fault::Payee);
    assert_eq!(refusal(Fact::NonceUsed).fault(), Fault::Payer);
    assert!(refusal(Fact::AllowanceRequired).may_be_sent_again());
    assert!(!refusal(Fact::NonceUsed).may_be_sent_again());
    assert!(!matches!(ErrorCode::from(ProofError::NoTransfer.code()), ErrorCode::Other(_)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever single bit of what was signed is changed afterwards, no key has signed that.
    #[test]
    fn a_tampered_payment_is_refused(field in 0usize..8, bit in 0usize..256, permit2 in any::<bool>()) {
        let method = if permit2 { PullMethod::Permit2 } else { PullMethod::Eip3009 };
        let asked = asked(method);
        let mut shown = honest(&asked);
        let mask = U256::from(1u64) << bit;
        let account_mask = |address: &mut Address| address.0[bit % 20] ^= 1 << (bit % 8);
        match &mut shown {
            Presented::Eip3009 { authorization: auth, signature } => match field {
                0 => account_mask(&mut auth.from),
                1 => account_mask(&mut auth.to),
                2 => auth.value ^= mask,
                3 => auth.valid_after ^= mask,
                4 => auth.valid_before ^= mask,
                5 => auth.nonce.0[bit / 8] ^= 1 << (bit % 8),
                _ => tamper(signature, field, bit),
            },
            Presented::Permit2 { owner, transfer, signature, .. } => match field {
                0 => account_mask(owner),
                1 => account_mask(&mut transfer.to),
                2 => transfer.amount ^= mask,
                3 => transfer.valid_after ^= mask,
                4 => transfer.deadline ^= mask,
                5 => transfer.nonce ^= mask,
                _ => tamper(signature, field, bit),
            },
        }
        let keys_only = Policy { contract_wallets: false, ..Policy::default() };
        prop_assert!(check(&asked, &shown, NOW, &keys_only).is_err());
        // Where contracts may pay it is not proven either, and an account without code does not agree.
        if let Ok(checked) = check(&asked, &shown, NOW, &Policy::default()) {
            prop_assert_eq!(checked.signature_status(), SignatureStatus::NeedsContract);
            prop_assert_ne!(judged(&checked, |q| (q == Question::WalletAgrees).then(nothing)), "");
        }
    }

    /// An honest payment is for one offer: another price, payee, token or chain refuses it.
    #[test]
    fn a_payment_is_for_one_offer(amount in 1u128.., other in 1u128.., permit2 in any::<bool>()) {
        let method = if permit2 { PullMethod::Permit2 } else { PullMethod::Eip3009 };
        let make = |token: &Arc<Token>, atoms: u128, to: &Account| {
            Requirement::new(token.clone(), &token.asset().atoms(atoms), to, method, MINUTE).unwrap()
        };
        let asked = make(&usdc(), amount, &payee());
        let shown = honest(&asked);
        prop_assert_eq!(verdict(&asked, &shown, NOW, &Policy::default()), "");
        let keys_only = Policy { contract_wallets: false, ..Policy::default() };
        if other != amount {
            prop_assert!(check(&make(&usdc(), other, &payee()), &shown, NOW, &keys_only).is_err());
        }
        prop_assert!(check(&make(&usdc(), amount, &account(&stranger())), &shown, NOW, &keys_only).is_err());
        for token in TOKENS.0.values().filter(|token| token.domain.is_some() && token.asset != usdc().asset) {
            prop_assert!(check(&make(token, amount, &payee()), &shown, NOW, &keys_only).is_err());
        }
    }

    #[test]
    fn stored_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Checked::recall(&Instruction::new(bytes.clone()));
        let _ = Checked::recall(&Instruction::new([&[1][..], &bytes].concat()));
    }

    #[test]
    fn answers_of_the_chain_never_panic(data in prop::collection::vec(any::<u8>(), 0..200), at in 0usize..8) {
        for method in BOTH {
            let checked = by_wallet(method, true, &Policy { factories: vec![known::MULTICALL3], ..Policy::default() });
            let mut results = answers(&checked, |_| None);
            let at = at % results.len();
            results[at] = ReadResult::Returned(data.clone().into());
            let _ = checked.judge(&results);
            results[at] = ReadResult::Reverted(data.clone().into());
            let _ = checked.judge(&results);
        }
    }
}

/// Flips a bit of `r` or `s` or, now and then, of `v`.
fn tamper(signature: &mut Bytes, field: usize, bit: usize) {
    let mut bytes = signature.to_vec();
    match (field, bit) {
        (6, _) => bytes[bit / 8] ^= 1 << (bit % 8),
        (_, 0..8) => bytes[64] ^= 1 << bit,
        _ => bytes[32 + bit / 8] ^= 1 << (bit % 8),
    }
    *signature = bytes.into();
}
