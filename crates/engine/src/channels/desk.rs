//! The till's place on one chain: what the escrow says, and transactions that it shall get.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_channel::{
    BadSignature, Capture, ChannelId, Payee, Refusal, Shown, Taking, Terms, Verifier, View,
};
use farthing_evm::escrow::{self, OnChain};
use farthing_evm::voucher::{self, ChannelParts, PayeeAuthorization, VoucherError};
use farthing_evm::{
    B256, Bytes, Key, Read, ReadKind, Revert, SigError, Signature, U256, keccak256, to_alloy,
};
use farthing_payment::{Instruction, Proof, Slot, SlotState, TxRef, Witness};
use farthing_primitives::{Address, AssetId, AttemptId, Money, PaymentId};

use super::{ChannelStore, TillError, channel_view};
use crate::live::lock;
use crate::native_asset;
use crate::relayer::{at, parse_hash};
use crate::slot_call::call_in;
use crate::{
    Chain, ChainError, Depths, Finality, Head, NotPrepared, Prepared, Receipt, Relayer, SlotCall, Tag, World,
};

/// How much more gas than estimated a call is given, in quarters of the estimate.
const GAS_QUARTERS: u64 = 5;
/// The most gas that one call of the escrow may be estimated to use: about four times what the dearest does.
const GAS_CAP: u64 = 1_000_000;
/// How long the payee's word for a transaction of ours holds. Short, since it cannot be taken back.
const PAYEE_WORD_HOLDS: Duration = Duration::from_secs(3600);
/// The first topic of the log says the event, the second the channel.
const CHANNEL_TOPIC: usize = 1;

/// What somebody else's transaction has to have done for a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    Opened,
    ToppedUp,
}

/// What became of a call of ours that was made before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Made {
    OnItsWay(AttemptId),
    Done(TxRef),
}

/// What a till has on one chain.
pub struct Desk {
    relayer: Arc<Relayer>,
    depths: Depths,
    payees: HashMap<Address, Key>,
    native: AssetId,
    chain_id: u64,
    /// Escrows that were found to be what they should be, with their grace periods. Code never changes.
    trusted: Mutex<HashMap<Address, Duration>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk({:?})", self.relayer)
    }
}

/// What the escrow says now, and what it said as deep in the chain as the amount asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sight {
    pub head: Head,
    pub latest: Option<View>,
    pub deep: Option<View>,
}

impl Desk {
    /// `payees` are keys of payees that are not the relayer itself: they allow it to collect for them. Everything
    /// counts once it is as deep as `depths` ask for the channel's deposit.
    ///
    /// Returns `None` if the relayer's chain is no EVM chain.
    pub fn new(relayer: Arc<Relayer>, depths: Depths, payees: Vec<Key>) -> Option<Self> {
        let network = relayer.chain().network().clone();
        let named = |key: Key| (farthing_evm::from_alloy(key.address()), key);
        Some(Self {
            native: native_asset(&network),
            chain_id: network.evm_chain_id()?,
            payees: payees.into_iter().map(named).collect(),
            relayer,
            depths,
            trusted: Mutex::default(),
        })
    }

    pub(super) fn chain(&self) -> &Arc<dyn Chain> {
        self.relayer.chain()
    }

    pub(super) fn relayer(&self) -> &Relayer {
        &self.relayer
    }

    /// Whether we can collect what is owed to this payee.
    pub(super) fn acts_for(&self, payee: &Address) -> bool {
        self.relayer.address() == *payee || self.payees.contains_key(payee)
    }

    /// The escrow's grace period, if its code is one of those that we trust.
    pub(super) async fn trust(&self, escrow: &Address, hashes: &[[u8; 32]]) -> Result<Duration, TillError> {
        if let Some(grace) = lock(&self.trusted).get(escrow) {
            return Ok(*grace);
        }
        let code = self.chain().code(escrow).await.map_err(chain_error)?;
        if !hashes.contains(&keccak256(&code).0) {
            return Err(TillError::UntrustedEscrow);
        }
        let read = view_of(escrow, escrow::grace_period())?;
        let answer = self.chain().read_at(vec![read], Tag::Latest).await.map_err(chain_error)?;
        let returned = answer.first().and_then(|result| result.returned());
        let secs =
            returned.and_then(|data| escrow::as_grace_period(data)).ok_or(TillError::Unavailable("chain"))?;
        let grace = Duration::from_secs(secs);
        lock(&self.trusted).insert(escrow.clone(), grace);
        Ok(grace)
    }

    /// What the escrow has of a channel, after this block.
    async fn read(&self, escrow: &Address, id: ChannelId, block: u64) -> Result<Option<OnChain>, TillError> {
        let read = view_of(escrow, escrow::get_channel(B256::from(id.0)))?;
        let answer = self.chain().read_at(vec![read], at(block)).await.map_err(chain_error)?;
        let returned = answer.first().and_then(|result| result.returned());
        let found =
            returned.and_then(|data| escrow::as_channel(data)).ok_or(TillError::Unavailable("chain"))?;
        Ok(Some(found).filter(OnChain::exists))
    }

    /// The same, as the channel's machine takes it.
    pub(super) async fn view(&self, terms: &Terms, block: u64) -> Result<Option<View>, TillError> {
        let Some(found) = self.read(&terms.escrow, terms.id, block).await? else { return Ok(None) };
        channel_view(terms, &found, block).map(Some).ok_or(TillError::Unavailable("chain"))
    }

    /// What the escrow says now, and what it said deep enough.
    pub(super) async fn look(&self, terms: &Terms) -> Result<Sight, TillError> {
        let head = self.head().await?;
        let latest = self.view(terms, head.number).await?;
        let deposit = latest.map_or(0, |view| view.deposit);
        let deep = match self.deep_block(deposit, &head).await? {
            Some(block) if block == head.number => latest,
            Some(block) => self.view(terms, block).await?,
            None => None,
        };
        Ok(Sight { head, latest, deep })
    }

    pub(super) async fn head(&self) -> Result<Head, TillError> {
        self.chain().head(Tag::Latest).await.map_err(chain_error)?.ok_or(TillError::Unavailable("chain"))
    }

    /// The newest block that is as deep as this deposit asks for; `None` if there is none yet.
    pub(super) async fn deep_block(&self, deposit: u128, head: &Head) -> Result<Option<u64>, TillError> {
        let named = match self.depths.of(deposit) {
            Finality::Blocks(depth) => return Ok(head.number.checked_sub(depth.saturating_sub(1))),
            Finality::Safe => Tag::Safe,
            Finality::Finalized => Tag::Finalized,
        };
        Ok(self.chain().head(named).await.map_err(chain_error)?.map(|block| block.number))
    }

    /// Whether this receipt's block is in the chain; `None` if it cannot be told.
    pub(super) async fn is_canonical(&self, block: u64, hash: [u8; 32], head: &Head) -> Option<bool> {
        match self.chain().head(at(block)).await.ok()? {
            Some(found) => Some(found.hash == hash),
            // A node that is behind knows nothing of that block yet.
            None if head.number < block => None,
            None => Some(false),
        }
    }

    pub(super) fn fee(&self, receipt: &Receipt) -> Option<Money> {
        let wei = receipt.gas_price.checked_mul(u128::from(receipt.gas_used))?;
        Some(Money::new(self.native.clone(), wei))
    }

    pub(super) fn proof(&self, terms: &Terms, receipt: &Receipt) -> Proof {
        Proof {
            tx: TxRef::new(receipt.tx.to_string()),
            witness: Witness::Chain,
            block: receipt.block,
            block_hash: receipt.block_hash,
            log_index: logs_of(receipt, &terms.escrow, terms.id).next().map_or(0, |log| log.index),
            // What it cost is booked with its slot, once nothing can change that any more.
            fee: None,
        }
    }

    /// What a channel of these parts has for its terms.
    pub(super) fn terms(
        &self,
        parts: &ChannelParts,
        asset: AssetId,
        escrow: Address,
        grace: Duration,
    ) -> Terms {
        let ours = |address| farthing_evm::from_alloy(address);
        Terms {
            id: ChannelId(parts.id().0),
            payer: ours(parts.payer),
            payee: ours(parts.payee),
            signer: ours(parts.voucher_signer()),
            asset,
            escrow,
            grace,
            // Spec: draft-evm-session-00, `settle` and `close`: the amount that the signature covers.
            capture: Capture::Signed,
            instruction: Instruction::new(
                [parts.salt.as_slice(), parts.authorized_signer.as_slice()].concat(),
            ),
        }
    }

    /// Spec: draft-evm-session-00, "Channel State".
    pub(super) fn parts(
        &self,
        seller: &super::Seller,
        escrow: &Address,
        payer: &Address,
        salt: [u8; 32],
        signer: Option<&Address>,
    ) -> Result<ChannelParts, TillError> {
        let evm =
            |address: &Address| to_alloy(address).ok_or(TillError::Malformed("not an address of this chain"));
        Ok(ChannelParts {
            payer: evm(payer)?,
            payee: evm(&seller.payee)?,
            token: evm(seller.asset.address())?,
            salt: B256::from(salt),
            authorized_signer: signer.map(evm).transpose()?.unwrap_or_default(),
            escrow: evm(escrow)?,
            chain_id: self.chain_id,
        })
    }

    /// Signs a call of the escrow into a slot, if it would work now. Nothing of it is visible or durable yet.
    pub(super) async fn prepare(
        &self,
        book: PaymentId,
        escrow: &Address,
        data: Bytes,
    ) -> Result<Prepared, TillError> {
        let data: bytes::Bytes = data.to_vec().into();
        let estimate = self.chain().estimate_gas(&self.relayer.address(), escrow, data.clone()).await;
        let gas = match estimate.map_err(chain_error)? {
            Ok(gas) if gas <= GAS_CAP => gas,
            Ok(_) => return Err(TillError::Reverted(Revert::Empty)),
            Err(why) => return Err(TillError::Reverted(escrow::revert(&why))),
        };
        let call = SlotCall { to: escrow.clone(), data, gas: gas.saturating_mul(GAS_QUARTERS) / 4 };
        self.relayer.prepare(vec![book], call).await.map_err(|why| match why {
            NotPrepared::Unavailable(what) => TillError::Unavailable(what),
            NotPrepared::Refused(_) => TillError::Unavailable("relayer"),
        })
    }

    /// The transaction that takes from the escrow, by the payee or for it.
    pub(super) async fn prepare_taking(
        &self,
        payee: &Payee,
        taking: &Taking,
        world: &(dyn World + 'static),
    ) -> Result<Prepared, TillError> {
        let terms = payee.terms();
        let (Taking::Settle(claim) | Taking::Close(claim)) = taking;
        let voucher: Bytes =
            claim.voucher.as_ref().map(|voucher| voucher.signature().to_vec()).unwrap_or_default().into();
        let channel = B256::from(terms.id.0);
        let data = if self.relayer.address() == terms.payee {
            match taking {
                Taking::Settle(_) => escrow::settle(channel, claim.amount, voucher),
                Taking::Close(_) => escrow::close(channel, claim.amount, voucher),
            }
        } else {
            // Spec: draft-evm-session-00, "Payee-initiated functions".
            let key = self.payees.get(&terms.payee).ok_or(TillError::Unavailable("payee_key"))?;
            let now = self.head().await?.timestamp.max(world.now());
            let nonce = PaymentId::new(now, world.random10()).to_bytes();
            let allowed = PayeeAuthorization {
                channel,
                cumulative: claim.amount,
                nonce: U256::from_be_slice(&nonce),
                deadline: U256::from(now.plus(PAYEE_WORD_HOLDS).millis() / 1000),
            };
            let domain = self.domain(terms).ok_or(TillError::Unavailable("payee_key"))?;
            let sign = |digest| Bytes::from(key.sign(digest).to_bytes().to_vec());
            match taking {
                Taking::Settle(_) => {
                    escrow::settle_with_authorization(&allowed, sign(allowed.settle_digest(&domain)), voucher)
                }
                Taking::Close(_) => {
                    escrow::close_with_authorization(&allowed, sign(allowed.close_digest(&domain)), voucher)
                }
            }
        };
        self.prepare(payee.book(), &terms.escrow, data).await
    }

    /// Whether this very call was made for the channel before, and did not fail.
    ///
    /// # Errors
    /// [`Refusal::NotConfirmed`] if it cannot be told yet.
    pub(super) async fn made(
        &self,
        payee: &Payee,
        data: &Bytes,
        store: &Arc<dyn ChannelStore>,
    ) -> Result<Option<Made>, TillError> {
        for stored in store.slots_of(payee.book()).await? {
            let slot = stored.slot;
            if slot.state == SlotState::Lost || called(&slot).is_none_or(|call| call.data[..] != data[..]) {
                continue;
            }
            if payee.attempts().any(|(attempt, ..)| attempt == slot.attempt) {
                return Ok(Some(Made::OnItsWay(slot.attempt)));
            }
            // A reorganization may have taken it away; it is given again.
            let receipt = self.receipt_of(&slot).await?.ok_or(Refusal::NotConfirmed)?;
            if receipt.success {
                return Ok(Some(Made::Done(TxRef::new(receipt.tx.to_string()))));
            }
        }
        Ok(None)
    }

    /// Our transaction that closes a channel, or closed it.
    pub(super) async fn closed_by(
        &self,
        payee: &Payee,
        store: &Arc<dyn ChannelStore>,
    ) -> Result<Option<TxRef>, TillError> {
        let none = Bytes::new();
        let nothing = PayeeAuthorization {
            channel: B256::ZERO,
            cumulative: 0,
            nonce: U256::ZERO,
            deadline: U256::ZERO,
        };
        let closes = [
            escrow::close(B256::ZERO, 0, none.clone()),
            escrow::close_with_authorization(&nothing, none.clone(), none),
        ];
        let closes = |call: SlotCall| closes.iter().any(|close| close.get(..4) == call.data.get(..4));
        let mut slots = store.slots_of(payee.book()).await?;
        slots.retain(|stored| {
            stored.slot.state != SlotState::Lost && called(&stored.slot).is_some_and(closes)
        });
        for stored in slots.into_iter().rev() {
            match self.receipt_of(&stored.slot).await? {
                Some(receipt) if receipt.success => return Ok(Some(TxRef::new(receipt.tx.to_string()))),
                Some(_) => {}
                None => return Ok(stored.slot.variants.last().map(|variant| variant.tx.clone())),
            }
        }
        Ok(None)
    }

    /// The receipt of whichever of a slot's transactions is in a block.
    pub(super) async fn receipt_of(&self, slot: &Slot) -> Result<Option<Receipt>, TillError> {
        let variants = slot.variants.iter().filter_map(|variant| parse_hash(&variant.tx)).collect();
        let found = self.chain().receipts(variants).await.map_err(chain_error)?;
        Ok(found.into_iter().flatten().next())
    }

    fn domain(&self, terms: &Terms) -> Option<farthing_evm::Domain> {
        Some(voucher::escrow_domain(self.chain_id, to_alloy(&terms.escrow)?))
    }
}

/// Vouchers of keys. An account with code, which would have to be asked, is none: its word may change any time.
impl Verifier for Desk {
    fn verify(&self, terms: &Terms, shown: &Shown<'_>) -> Result<Vec<u8>, BadSignature> {
        let (Some(domain), Some(signer)) = (self.domain(terms), to_alloy(&terms.signer)) else {
            return Err(BadSignature::OtherChannel);
        };
        let voucher = voucher::Voucher { channel: B256::from(shown.channel.0), cumulative: shown.cumulative };
        voucher.check(&domain, shown.signature, signer).map_err(|error| match error {
            VoucherError::Signature(SigError::HighS) => BadSignature::NotCanonical,
            VoucherError::Signature(_) => BadSignature::Malformed,
            VoucherError::OtherSigner => BadSignature::OtherSigner,
        })?;
        // Spec: draft-evm-session-00, "Hexadecimal Values": the escrow takes 65 bytes, however it was spelled.
        let parsed = Signature::parse(shown.signature).map_err(|_| BadSignature::Malformed)?;
        Ok(parsed.to_bytes().to_vec())
    }
}

impl Deed {
    /// Spec: the events of `contracts/src/IPaymentChannelEscrow.sol`.
    fn event(self) -> &'static str {
        match self {
            Self::Opened => "ChannelOpened(bytes32,address,address,address,address,bytes32,uint256)",
            Self::ToppedUp => "TopUp(bytes32,address,address,uint256,uint256)",
        }
    }

    /// Whether a log says that it was done.
    pub fn is(self, log: &farthing_evm::Log) -> bool {
        log.topics.first() == Some(&keccak256(self.event()))
    }
}

/// The escrow's logs about this channel.
pub(super) fn logs_of<'a>(
    receipt: &'a Receipt,
    escrow: &Address,
    id: ChannelId,
) -> impl Iterator<Item = &'a farthing_evm::Log> {
    let emitter = to_alloy(escrow);
    receipt.logs.iter().filter(move |log| {
        emitter == Some(log.address) && log.topics.get(CHANNEL_TOPIC) == Some(&B256::from(id.0))
    })
}

/// The call that a slot makes.
fn called(slot: &Slot) -> Option<SlotCall> {
    call_in(&slot.variants.last()?.raw)
}

fn view_of(escrow: &Address, data: Bytes) -> Result<Read, TillError> {
    let to = to_alloy(escrow).ok_or(TillError::Malformed("not an address of this chain"))?;
    Ok(Read { to, data, kind: ReadKind::View })
}

pub(super) fn chain_error(error: ChainError) -> TillError {
    tracing::warn!(%error, "the chain cannot be asked about a channel");
    TillError::Unavailable("chain")
}
