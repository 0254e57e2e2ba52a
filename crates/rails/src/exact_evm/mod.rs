//! The `exact` scheme on EVM chains: the payer signs one transfer of exactly the price, somebody else submits it.
//!
//! In the order of use: [`check`] looks at fields, window and signature and reads nothing; [`Checked::key`] is what the
//! rail consumes once; [`Checked::reads`] is what to ask the chain, in one batch, and [`Checked::judge`] what the
//! answers mean; [`Funded::settlement`] is the call that moves the money; [`Checked::proof`] finds in its logs that
//! the money moved. [`buy`] is the payer's side.
//!
//! Spec: x402 `specs/schemes/exact/scheme_exact_evm.md`, sections 1 (EIP-3009) and 2 (Permit2).

pub mod buy;
mod check;
mod instruction;
mod judge;
mod present;
mod proof;
mod refusal;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use farthing_evm::{
    Address, B256, Bytes, Domain, Signature, TransferAuthorization, U256, WitnessTransfer, from_alloy, known,
    to_alloy,
};
use farthing_payment::ConsumptionKey;
use farthing_primitives::{
    Address as Account, Asset, AssetId, Money, Network, PullMethod, Registry, Timestamp,
};

pub use check::check;
pub use instruction::InstructionError;
pub use judge::{Funded, Settlement};
pub use proof::{ProofError, Trace, TransferProof};
pub use refusal::{ApprovalFault, Fact, Refusal, SignatureFault};

/// A token of ours with everything about it that would otherwise be hashed or parsed for each payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    asset: Asset,
    chain_id: u64,
    address: Address,
    domain: Option<Domain>,
    permit2: Domain,
}

/// Why an asset, or an offer in it, cannot be paid by this scheme. Ours to mend: a payer has no part in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementError {
    #[error("{0} is not a token of an EVM chain")]
    NotEvm(AssetId),
    #[error("the payee {0} is not an address of an EVM chain")]
    Payee(Account),
    #[error("the payee is the zero address")]
    ZeroPayee,
    #[error("the price is in {priced}, the token is {token}")]
    OtherAsset { priced: AssetId, token: AssetId },
    #[error("the price is zero")]
    ZeroPrice,
    #[error("{0} has no EIP-712 domain, so it cannot be pulled by EIP-3009")]
    NoDomain(AssetId),
    #[error("the time to pay is zero")]
    NoTime,
}

impl Token {
    pub fn new(asset: &Asset) -> Result<Self, RequirementError> {
        let not_evm = || RequirementError::NotEvm(asset.id.clone());
        let chain_id = asset.id.network().evm_chain_id().ok_or_else(not_evm)?;
        let address = to_alloy(asset.id.address()).ok_or_else(not_evm)?;
        let domain =
            asset.domain.as_ref().map(|domain| Domain::new(&domain.name, &domain.version, chain_id, address));
        Ok(Self { asset: asset.clone(), chain_id, address, domain, permit2: Domain::permit2(chain_id) })
    }

    pub fn asset(&self) -> &Asset {
        &self.asset
    }

    pub fn network(&self) -> &Network {
        self.asset.id.network()
    }

    pub(crate) fn chain_id(&self) -> u64 {
        self.chain_id
    }
}

/// The tokens of a registry that this scheme can move.
#[derive(Debug, Clone, Default)]
pub struct Tokens(HashMap<AssetId, Arc<Token>>);

impl Tokens {
    /// Assets of other kinds of chains are left out.
    pub fn new(registry: &Registry) -> Self {
        let tokens = registry.iter().filter_map(|asset| Token::new(asset).ok());
        Self(tokens.map(|token| (token.asset.id.clone(), Arc::new(token))).collect())
    }

    pub fn get(&self, asset: &AssetId) -> Option<&Arc<Token>> {
        self.0.get(asset)
    }
}

/// What we ask for. It comes from our own configuration, or from an offer that carries our own seal: never from what a
/// payer says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    token: Arc<Token>,
    amount: u128,
    pay_to: Address,
    method: PullMethod,
    max_timeout: Duration,
}

impl Requirement {
    pub fn new(
        token: Arc<Token>,
        price: &Money,
        pay_to: &Account,
        method: PullMethod,
        max_timeout: Duration,
    ) -> Result<Self, RequirementError> {
        if *price.asset() != token.asset.id {
            return Err(RequirementError::OtherAsset {
                priced: price.asset().clone(),
                token: token.asset.id.clone(),
            });
        }
        // The proxy refuses a transfer of nothing, and an authorization of nothing buys nothing.
        if price.is_zero() {
            return Err(RequirementError::ZeroPrice);
        }
        let payee = to_alloy(pay_to).ok_or_else(|| RequirementError::Payee(pay_to.clone()))?;
        if payee.is_zero() {
            return Err(RequirementError::ZeroPayee);
        }
        if method == PullMethod::Eip3009 && token.domain.is_none() {
            return Err(RequirementError::NoDomain(token.asset.id.clone()));
        }
        // Spec: x402 v2 section 5.1: `maxTimeoutSeconds` is positive.
        if max_timeout < Duration::from_secs(1) {
            return Err(RequirementError::NoTime);
        }
        Ok(Self { amount: price.atoms(), token, pay_to: payee, method, max_timeout })
    }

    pub fn token(&self) -> &Arc<Token> {
        &self.token
    }

    pub fn network(&self) -> &Network {
        self.token.network()
    }

    pub fn price(&self) -> Money {
        self.token.asset.atoms(self.amount)
    }

    pub fn pay_to(&self) -> Account {
        from_alloy(self.pay_to)
    }

    pub(crate) fn payee(&self) -> Address {
        self.pay_to
    }

    pub fn method(&self) -> PullMethod {
        self.method
    }

    pub fn max_timeout(&self) -> Duration {
        self.max_timeout
    }
}

/// What a payer presented, as it was signed. Any dialect's payload becomes this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presented {
    Eip3009 { authorization: TransferAuthorization, signature: Bytes },
    Permit2 { owner: Address, transfer: WitnessTransfer, signature: Bytes, approval: Option<Box<Approval>> },
}

impl Presented {
    pub fn method(&self) -> PullMethod {
        match self {
            Self::Eip3009 { .. } => PullMethod::Eip3009,
            Self::Permit2 { .. } => PullMethod::Permit2,
        }
    }

    /// Who is said to pay. Proven by nothing yet.
    pub fn claimed_payer(&self) -> Account {
        from_alloy(match self {
            Self::Eip3009 { authorization, .. } => authorization.from,
            Self::Permit2 { owner, .. } => *owner,
        })
    }
}

/// An allowance for Permit2 given by an EIP-2612 signature, for the relayer to submit with the payment.
///
/// Spec: x402 extension `eip2612GasSponsoring`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    pub from: Address,
    pub asset: Address,
    pub spender: Address,
    pub amount: U256,
    pub nonce: U256,
    pub deadline: U256,
    pub signature: Bytes,
}

/// What is left of an authorization's life, at least, when we accept it: less would not reach a block.
///
/// Spec: x402 exact on EVM; the published facilitators refuse `validBefore < now + 6`.
pub const MIN_REMAINING: Duration = Duration::from_secs(6);

/// How long an authorization may still live by default: one that never ends would be watched for ever if its settlement
/// came to nothing.
pub const DEFAULT_MAX_VALIDITY: Duration = Duration::from_secs(7 * 86_400);

/// The most gas that each way of settling may use. Absolute: no estimate raises it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasCaps {
    pub eip3009: u64,
    pub permit2: u64,
    pub permit2_with_approval: u64,
    /// What a wallet that is a contract may use more, to check its signature. A passkey takes 350,000 without a
    /// precompile.
    pub wallet: u64,
    /// What the deployment of such a wallet may use more.
    pub deployment: u64,
}

impl Default for GasCaps {
    fn default() -> Self {
        // Circle's token takes about 90,000 and the proxy about 130,000; the rest is for tokens that do more, and for
        // chains that charge for the parent chain's data in gas (Arbitrum).
        Self {
            eip3009: 300_000,
            permit2: 400_000,
            permit2_with_approval: 500_000,
            wallet: 500_000,
            deployment: 1_500_000,
        }
    }
}

/// What an operator accepts of payers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The factories that a relayer may call to deploy a wallet. Empty by default: the call is the payer's choice.
    ///
    /// Spec: x402 exact on EVM; error `eip6492_factory_not_allowed`.
    pub factories: Vec<Address>,
    /// Whether wallets that are contracts may pay. Each costs reads that a stranger can ask for at will.
    pub contract_wallets: bool,
    /// At least [`MIN_REMAINING`], whatever is set.
    pub min_remaining: Duration,
    /// The longest time to its end that an authorization may have; `None` accepts any.
    pub max_validity: Option<Duration>,
    pub gas: GasCaps,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            factories: Vec::new(),
            contract_wallets: true,
            min_remaining: MIN_REMAINING,
            max_validity: Some(DEFAULT_MAX_VALIDITY),
            gas: GasCaps::default(),
        }
    }
}

/// A payment whose fields, window and signature are right, as far as can be told without the chain.
///
/// INVARIANT: only [`check`] makes one, and [`Checked::recall`] from the bytes of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    money: Money,
    chain_id: u64,
    order: Order,
    signer: Signer,
    gas: GasCaps,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Eip3009(TransferAuthorization),
    Permit2 { owner: Address, transfer: WitnessTransfer, approval: Sponsored },
}

/// Whether an approval came with the payment. One that is wrong matters only where it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sponsored {
    No,
    Proven(ProvenApproval),
    Wrong(ApprovalFault),
}

/// An allowance that the payer's key signed for the amount that is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ProvenApproval {
    nonce: U256,
    deadline: U256,
    signature: Signature,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Signer {
    /// The payer's own key.
    Key(Signature),
    /// Nobody's key, so it can only be a contract that agrees. `signature` is what the contract is shown.
    Contract { digest: B256, signature: Bytes, deployment: Option<Deployment> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Deployment {
    factory: Address,
    data: Bytes,
    allowed: bool,
}

/// What is known of a signature without the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SignatureStatus {
    /// The payer's key made it.
    ///
    /// An account that delegates to a contract (EIP-7702) has a key *and* code, and tokens then ask the code; the
    /// simulation among [`Checked::reads`] tells.
    Proven,
    /// It is garbage unless the payer is a contract that accepts it. Limit these before asking the chain.
    NeedsContract,
}

impl Checked {
    pub fn method(&self) -> PullMethod {
        match self.order {
            Order::Eip3009(_) => PullMethod::Eip3009,
            Order::Permit2 { .. } => PullMethod::Permit2,
        }
    }

    pub fn payer(&self) -> Account {
        from_alloy(self.owner())
    }

    pub fn pay_to(&self) -> Account {
        from_alloy(self.payee())
    }

    pub fn money(&self) -> &Money {
        &self.money
    }

    pub fn network(&self) -> &Network {
        self.money.asset().network()
    }

    pub fn signature_status(&self) -> SignatureStatus {
        match self.signer {
            Signer::Key(_) => SignatureStatus::Proven,
            Signer::Contract { .. } => SignatureStatus::NeedsContract,
        }
    }

    /// What the rail consumes once. The same for every dialect and every spelling of the same authorization.
    pub fn key(&self) -> ConsumptionKey {
        match &self.order {
            Order::Eip3009(auth) => eip3009_key(self.chain_id, self.token(), auth),
            Order::Permit2 { owner, transfer, .. } => permit2_key(self.chain_id, *owner, transfer.nonce),
        }
    }

    /// From this moment on the authorization can move no money.
    pub fn expires(&self) -> Timestamp {
        self.order.expires()
    }

    fn owner(&self) -> Address {
        match &self.order {
            Order::Eip3009(auth) => auth.from,
            Order::Permit2 { owner, .. } => *owner,
        }
    }

    fn payee(&self) -> Address {
        match &self.order {
            Order::Eip3009(auth) => auth.to,
            Order::Permit2 { transfer, .. } => transfer.to,
        }
    }

    fn token(&self) -> Address {
        // INVARIANT: `check` and `recall` build `money` from the address of an EVM token.
        to_alloy(self.money.asset().address()).unwrap_or_default()
    }

    fn amount(&self) -> U256 {
        U256::from(self.money.atoms())
    }
}

impl Order {
    fn expires(&self) -> Timestamp {
        match self {
            // Spec: EIP-3009: valid while `block.timestamp < validBefore`.
            Self::Eip3009(auth) => moment(auth.valid_before),
            // Permit2 reverts when `block.timestamp > deadline`: the deadline's own second still counts.
            Self::Permit2 { transfer, .. } => moment(transfer.deadline.saturating_add(U256::ONE)),
        }
    }
}

fn eip3009_key(chain_id: u64, token: Address, auth: &TransferAuthorization) -> ConsumptionKey {
    ConsumptionKey::new(format!("eip3009:eip155:{chain_id}:{token:#x}:{:#x}:{:#x}", auth.from, auth.nonce))
}

fn permit2_key(chain_id: u64, owner: Address, nonce: U256) -> ConsumptionKey {
    ConsumptionKey::new(format!("permit2:eip155:{chain_id}:{:#x}:{owner:#x}:{nonce}", known::PERMIT2))
}

/// The last second of the year 9999. Whatever ends later never ends, for us and for what stores it.
const LAST_SECOND: u64 = 253_402_300_799;

/// Moments after [`LAST_SECOND`] become that.
fn moment(secs: U256) -> Timestamp {
    Timestamp::from_secs(u64::try_from(secs).unwrap_or(u64::MAX).min(LAST_SECOND))
}
