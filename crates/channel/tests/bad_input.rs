//! What strangers show as vouchers, with real keys and the draft's typed data: each has its problem type, tells nothing
//! about the channel before a signature is proven, and leaves the channel as it was.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use farthing_channel::{
    BadSignature, Capture, ChannelId, Limits, NewPayee, Payee, PayeeError, PayeeEvent, Problem, Shown, Terms,
    VerifiedVoucher, Verifier, View,
};
use farthing_evm::voucher::{ChannelParts, Voucher, VoucherError, escrow_domain};
use farthing_evm::{B256, Domain, Key, SigError, Signature, U256, from_alloy, to_alloy};
use farthing_payment::Instruction;
use farthing_primitives::{AssetId, Network, PaymentId, TenantId, Timestamp};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const CHAIN: u64 = 196;

/// What a rail does: the draft's digest, and the canonical form.
struct Keys;

impl Verifier for Keys {
    fn verify(&self, terms: &Terms, shown: &Shown<'_>) -> Result<Vec<u8>, BadSignature> {
        let chain_id = terms.asset.network().evm_chain_id().ok_or(BadSignature::Malformed)?;
        let alloy = |address| to_alloy(address).ok_or(BadSignature::Malformed);
        let domain = escrow_domain(chain_id, alloy(&terms.escrow)?);
        let voucher = Voucher { channel: B256::from(shown.channel.0), cumulative: shown.cumulative };
        voucher.check(&domain, shown.signature, alloy(&terms.signer)?).map_err(|error| match error {
            VoucherError::OtherSigner => BadSignature::OtherSigner,
            VoucherError::Signature(SigError::HighS) => BadSignature::NotCanonical,
            VoucherError::Signature(_) => BadSignature::Malformed,
        })?;
        let signature = Signature::parse(shown.signature).map_err(|_| BadSignature::Malformed)?;
        Ok(signature.to_bytes().to_vec())
    }
}

struct World {
    payer: Key,
    parts: ChannelParts,
    payee: Payee,
}

impl World {
    fn new(salt: u8) -> Self {
        let payer = Key::from_bytes([7; 32]).expect("a key");
        let address = farthing_evm::Address::repeat_byte;
        let parts = ChannelParts {
            payer: payer.address(),
            payee: address(2),
            token: address(3),
            salt: B256::repeat_byte(salt),
            authorized_signer: address(0),
            escrow: address(4),
            chain_id: CHAIN,
        };
        let terms = Terms {
            id: ChannelId(parts.id().0),
            payer: from_alloy(parts.payer),
            payee: from_alloy(parts.payee),
            signer: from_alloy(parts.voucher_signer()),
            asset: AssetId::new(Network::eip155(CHAIN), from_alloy(parts.token)),
            escrow: from_alloy(parts.escrow),
            grace: Duration::from_secs(900),
            capture: Capture::Signed,
            instruction: Instruction::new(Vec::new()),
        };
        let limits = Limits {
            credit: 0,
            most_unsettled: None,
            min_deposit: 1,
            margin: Duration::from_secs(300),
            most_in_flight: 4,
            drain: Duration::ZERO,
            idle: None,
        };
        let book = PaymentId::new(NOW, [1; 10]);
        let new = NewPayee { book, tenant: TenantId::local(), terms, limits };
        let payee = Payee::begin(new, None, NOW).expect("begins");
        let mut world = Self { payer, parts, payee };
        let view = View { block: 1, deposit: 12_345, settled: 0, close_requested: None, finalized: false };
        world.step(PayeeEvent::Seen { view: Some(view), deep: true }).expect("opens");
        world.show(500, &world.sign(500)).expect("a good voucher");
        world
    }

    fn domain(&self) -> Domain {
        escrow_domain(CHAIN, self.parts.escrow)
    }

    fn sign(&self, cumulative: u128) -> Vec<u8> {
        let voucher = Voucher { channel: self.parts.id(), cumulative };
        self.payer.sign(voucher.digest(&self.domain())).to_bytes().to_vec()
    }

    fn step(&mut self, event: PayeeEvent) -> Result<(), PayeeError> {
        self.payee = self.payee.step(event, NOW)?.next;
        Ok(())
    }

    fn show(&mut self, cumulative: u128, signature: &[u8]) -> Result<(), Problem> {
        self.show_on(self.payee.terms().id, cumulative, signature)
    }

    fn show_on(&mut self, channel: ChannelId, cumulative: u128, signature: &[u8]) -> Result<(), Problem> {
        let shown = Shown { channel, cumulative, signature, min_delta: 100 };
        let verified =
            VerifiedVoucher::check(&shown, self.payee.terms(), &Keys).map_err(BadSignature::problem)?;
        self.step(PayeeEvent::Voucher(verified)).map_err(|error| match error {
            PayeeError::Refused(refusal) => refusal.problem().expect("has a problem type"),
            other => panic!("{other}"),
        })
    }

    #[track_caller]
    fn refuses(&mut self, cumulative: u128, signature: &[u8], problem: Problem) {
        let before = self.payee.clone();
        assert_eq!(self.show(cumulative, signature), Err(problem));
        assert_eq!(self.payee, before, "the channel is as it was");
    }
}

#[test]
fn tampered() {
    let mut world = World::new(1);
    let signature = world.sign(1000);
    world.refuses(1001, &signature, Problem::SignerMismatch);
    for at in 0..65 {
        let mut spoiled = signature.clone();
        spoiled[at] ^= 1;
        let before = world.payee.clone();
        let problem = world.show(1000, &spoiled).expect_err("spoiled");
        assert!(matches!(problem, Problem::SignerMismatch | Problem::InvalidSignature), "{at}");
        assert_eq!(world.payee, before);
    }
}

#[test]
fn malformed_and_oversized() {
    let mut world = World::new(1);
    for signature in [vec![], vec![0; 64], vec![0; 65], vec![0xff; 65], vec![1; 66], vec![1; 1 << 20]] {
        world.refuses(1000, &signature, Problem::InvalidSignature);
    }
}

#[test]
fn foreign() {
    let mut world = World::new(1);
    let stranger = Key::from_bytes([8; 32]).expect("a key");
    let voucher = Voucher { channel: world.parts.id(), cumulative: 1000 };
    let signature = stranger.sign(voucher.digest(&world.domain())).to_bytes();
    world.refuses(1000, &signature, Problem::SignerMismatch);
    // A stale amount says as little to a stranger as a new one: the signature comes first.
    let stale = Voucher { cumulative: 500, ..voucher };
    world.refuses(500, &stranger.sign(stale.digest(&world.domain())).to_bytes(), Problem::SignerMismatch);
    let beyond = Voucher { cumulative: u128::MAX, ..voucher };
    world.refuses(
        u128::MAX,
        &stranger.sign(beyond.digest(&world.domain())).to_bytes(),
        Problem::SignerMismatch,
    );
}

#[test]
fn high_s() {
    let mut world = World::new(1);
    let mut signature = world.sign(1000);
    let order = "0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141".parse::<U256>().unwrap();
    let s = U256::from_be_slice(&signature[32..64]);
    signature[32..64].copy_from_slice(&(order - s).to_be_bytes::<32>());
    signature[64] = 55 - signature[64];
    world.refuses(1000, &signature, Problem::InvalidSignature);
}

#[test]
fn wrong_chain_wrong_escrow_wrong_protocol() {
    let mut world = World::new(1);
    let escrow = world.parts.escrow;
    let domains = [
        escrow_domain(1, escrow),
        escrow_domain(CHAIN, farthing_evm::Address::repeat_byte(5)),
        Domain::new("Tempo Stream Channel", "1", CHAIN, escrow),
        Domain::new("EVM Payment Channel", "2", CHAIN, escrow),
    ];
    for domain in domains {
        let voucher = Voucher { channel: world.parts.id(), cumulative: 1000 };
        let signature = world.payer.sign(voucher.digest(&domain)).to_bytes();
        world.refuses(1000, &signature, Problem::SignerMismatch);
    }
}

#[test]
fn of_another_channel_or_of_the_one_before() {
    let mut world = World::new(1);
    // The same two parties have another channel: another salt, another id, and the voucher of one is none of the other.
    let other = World::new(2);
    world.refuses(1000, &other.sign(1000), Problem::SignerMismatch);
    let id = other.payee.terms().id;
    let before = world.payee.clone();
    assert_eq!(world.show_on(id, 1000, &other.sign(1000)), Err(Problem::ChannelNotFound));
    assert_eq!(world.payee, before);
}

#[test]
fn stale_decreasing_too_small_and_beyond_the_deposit() {
    let mut world = World::new(1);
    let before = world.payee.clone();
    assert_eq!(world.show(500, &world.sign(500)), Ok(()), "shown twice");
    assert_eq!(world.payee, before);
    for (cumulative, problem) in [
        (499, Problem::DeltaTooSmall),
        (0, Problem::DeltaTooSmall),
        (599, Problem::DeltaTooSmall),
        (12_346, Problem::AmountExceedsDeposit),
        (u128::MAX, Problem::AmountExceedsDeposit),
    ] {
        let signature = world.sign(cumulative);
        world.refuses(cumulative, &signature, problem);
    }
    assert_eq!(world.show(600, &world.sign(600)), Ok(()));
}

#[test]
fn after_a_close() {
    let mut world = World::new(1);
    let view = View { block: 2, deposit: 12_345, settled: 0, close_requested: Some(NOW), finalized: false };
    world.step(PayeeEvent::Seen { view: Some(view), deep: false }).expect("seen");
    let signature = world.sign(1000);
    world.refuses(1000, &signature, Problem::ChannelFinalized);
    let closed = View { finalized: true, ..view };
    world.step(PayeeEvent::Seen { view: Some(closed), deep: true }).expect("seen");
    world.refuses(1000, &signature, Problem::ChannelFinalized);
    // And whatever a node says, it stays so: a finalized id never comes again.
    let reopened = View { block: 9, deposit: 99_999, finalized: false, close_requested: None, ..view };
    world.step(PayeeEvent::Seen { view: Some(reopened), deep: true }).expect("seen");
    world.refuses(1000, &signature, Problem::ChannelFinalized);
}

#[test]
fn what_is_kept_is_what_the_escrow_accepts() {
    let mut world = World::new(1);
    let mut signature = world.sign(1000);
    // A careless signer writes the recovery bit as 0 or 1.
    signature[64] -= 27;
    assert_eq!(world.show(1000, &signature), Ok(()));
    assert_eq!(world.payee.best().expect("kept").signature(), world.sign(1000));
}
