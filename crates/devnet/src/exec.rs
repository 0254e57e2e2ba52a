//! Running the EVM over a state.

use alloy_consensus::transaction::{Recovered, Transaction};
use alloy_consensus::{TxEnvelope, Typed2718};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use revm::context::either::Either;
use revm::context::result::{EVMError, ExecutionResult, HaltReason};
use revm::context::{BlockEnv, CfgEnv, Context, TxEnv};
use revm::database_interface::WrapDatabaseRef;
use revm::primitives::hardfork::SpecId;
use revm::state::EvmState;
use revm::{ExecuteEvm, MainBuilder, MainContext};
use std::convert::Infallible;

use crate::state::State;

/// The rules of the chain: EIP-7702 is in, the transaction gas cap of the fork after it is not.
pub const SPEC: SpecId = SpecId::PRAGUE;
/// Gas that `eth_call` may use when the caller names none. Large, so that hundreds of simulations fit in one call.
pub const CALL_GAS_CAP: u64 = 200_000_000;
/// Gas left to a value transfer's recipient, which an estimate must not forget.
const CALL_STIPEND: u64 = 2_300;
/// The estimate may be this many thousandths too high; closer would cost more runs than it saves gas.
const ESTIMATE_SLACK_PER_MILLE: u64 = 15;
const TRANSFER_GAS: u64 = 21_000;

/// What a transaction can see of the block it is in.
#[derive(Debug, Clone, Copy)]
pub struct Env {
    pub chain_id: u64,
    pub number: u64,
    pub timestamp: u64,
    pub base_fee: u64,
    pub gas_limit: u64,
    pub beneficiary: Address,
    pub prevrandao: B256,
}

impl Env {
    pub fn overridden(mut self, overrides: &BlockOverrides) -> Self {
        if let Some(number) = overrides.number {
            self.number = number.saturating_to();
        }
        if let Some(time) = overrides.time {
            self.timestamp = time;
        }
        if let Some(base_fee) = overrides.base_fee {
            self.base_fee = base_fee.saturating_to();
        }
        if let Some(gas_limit) = overrides.gas_limit {
            self.gas_limit = gas_limit;
        }
        if let Some(coinbase) = overrides.coinbase {
            self.beneficiary = coinbase;
        }
        self
    }

    fn block(&self) -> BlockEnv {
        BlockEnv {
            number: U256::from(self.number),
            beneficiary: self.beneficiary,
            timestamp: U256::from(self.timestamp),
            gas_limit: self.gas_limit,
            basefee: self.base_fee,
            prevrandao: Some(self.prevrandao),
            ..BlockEnv::default()
        }
    }
}

/// Whether the rules for senders hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Those of a signed transaction.
    Signed,
    /// Those of a call, which anyone may make in anyone's name, without a nonce and without paying.
    Call,
}

pub type Failure = EVMError<Infallible>;

/// Runs one transaction over the state and returns what it would change.
pub fn run(
    state: &State,
    env: &Env,
    tx: TxEnv,
    rules: Rules,
) -> Result<(ExecutionResult, EvmState), Failure> {
    let mut cfg = CfgEnv::new_with_spec(SPEC).with_chain_id(env.chain_id);
    if rules == Rules::Call {
        cfg.tx_chain_id_check = false;
        cfg.disable_nonce_check = true;
        cfg.disable_base_fee = true;
        cfg.disable_block_gas_limit = true;
        cfg.disable_eip3607 = true;
    }
    let mut evm = Context::mainnet()
        .with_cfg(cfg)
        .with_block(env.block())
        .with_db(WrapDatabaseRef(state))
        .build_mainnet();
    let out = evm.transact(tx)?;
    Ok((out.result, out.state))
}

/// Returns what the EVM takes for a signed transaction.
pub fn signed(tx: &Recovered<TxEnvelope>) -> TxEnv {
    TxEnv {
        tx_type: tx.ty(),
        caller: tx.signer(),
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        authorization_list: tx
            .authorization_list()
            .map(|list| list.iter().cloned().map(Either::Left).collect())
            .unwrap_or_default(),
        ..empty()
    }
}

/// Returns what the EVM takes for a call, without a gas limit.
pub fn call(request: &TransactionRequest) -> TxEnv {
    let priority = request.max_priority_fee_per_gas;
    let access_list = request.access_list.clone().unwrap_or_default();
    let authorizations = request.authorization_list.clone().unwrap_or_default();
    let tx_type = if !authorizations.is_empty() {
        4
    } else if priority.is_some() || request.max_fee_per_gas.is_some() {
        2
    } else {
        u8::from(!access_list.is_empty())
    };
    TxEnv {
        tx_type,
        caller: request.from.unwrap_or_default(),
        gas_price: request.max_fee_per_gas.or(request.gas_price).unwrap_or_default(),
        kind: request.to.unwrap_or(TxKind::Create),
        value: request.value.unwrap_or_default(),
        data: request.input.input().cloned().unwrap_or_default(),
        access_list,
        gas_priority_fee: priority.or((tx_type == 2).then_some(0)),
        authorization_list: authorizations.into_iter().map(Either::Left).collect(),
        ..empty()
    }
}

/// Returns a call by the chain itself, used to build the first block.
pub fn system_call(from: Address, to: Address, data: Bytes) -> TxEnv {
    TxEnv { caller: from, kind: TxKind::Call(to), data, gas_limit: CALL_GAS_CAP, ..empty() }
}

fn empty() -> TxEnv {
    TxEnv {
        tx_type: 0,
        caller: Address::ZERO,
        gas_limit: 0,
        gas_price: 0,
        kind: TxKind::Call(Address::ZERO),
        value: U256::ZERO,
        data: Bytes::new(),
        nonce: 0,
        chain_id: None,
        access_list: Default::default(),
        gas_priority_fee: None,
        blob_hashes: Vec::new(),
        max_fee_per_blob_gas: 0,
        authorization_list: Vec::new(),
    }
}

/// Sets the gas of a call: what the request names, at most `cap`, and no more than the sender could pay for at the
/// price the request names.
pub fn set_gas(tx: &mut TxEnv, state: &State, wanted: Option<u64>, cap: u64) {
    tx.gas_limit = wanted.unwrap_or(cap).min(cap);
    if tx.gas_price > 0 {
        let spendable = state.balance(tx.caller).saturating_sub(tx.value);
        let affordable: u64 = (spendable / U256::from(tx.gas_price)).saturating_to();
        tx.gas_limit = tx.gas_limit.min(affordable);
    }
}

/// Why there is no estimate.
#[derive(Debug)]
pub enum NoEstimate {
    Invalid(Failure),
    Failed(ExecutionResult),
}

/// Returns the gas with which the call succeeds, a little more than the least possible.
///
/// The gas a call uses is not the gas it needs: refunds come after the end, and a call passes on only 63/64 of what
/// is left (EIP-150). So the answer is searched for between what was used and what was offered.
pub fn estimate(state: &State, env: &Env, mut tx: TxEnv) -> Result<u64, NoEstimate> {
    let mut high = tx.gas_limit;
    if tx.data.is_empty()
        && let TxKind::Call(to) = tx.kind
        && state.account(to).is_none_or(|info| info.is_empty_code_hash())
        && tx.access_list.0.is_empty()
        && tx.authorization_list.is_empty()
        && high >= TRANSFER_GAS
    {
        high = TRANSFER_GAS;
    }
    let mut attempt = |gas: u64| {
        tx.gas_limit = gas;
        run(state, env, tx.clone(), Rules::Call).map(|(result, _)| result)
    };
    let first = attempt(high).map_err(NoEstimate::Invalid)?;
    if !first.is_success() {
        return Err(NoEstimate::Failed(first));
    }
    if high == TRANSFER_GAS {
        return Ok(high);
    }
    let enough = |result: Result<ExecutionResult, Failure>| result.is_ok_and(|result| result.is_success());
    let mut low = first.tx_gas_used().saturating_sub(1);
    // Usually right at the first try: what was spent before refunds, plus the stipend, scaled by 64/63.
    let likely =
        (first.gas().total_gas_spent().max(first.tx_gas_used()) + CALL_STIPEND).saturating_mul(64) / 63;
    if likely < high {
        if enough(attempt(likely)) {
            high = likely;
        } else {
            low = likely;
        }
    }
    while low + 1 < high && (high - low).saturating_mul(1000) > high.saturating_mul(ESTIMATE_SLACK_PER_MILLE)
    {
        // The answer is usually near the lower end.
        let middle = (low + (high - low) / 2).min(low.saturating_mul(2));
        if enough(attempt(middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    Ok(high)
}

/// Returns whether a halt means that more gas might have helped.
pub fn out_of_gas(reason: &HaltReason) -> bool {
    matches!(reason, HaltReason::OutOfGas(_))
}
