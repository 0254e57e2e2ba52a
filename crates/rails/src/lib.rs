//! One module per scheme: a dialect's payload into checks, a consumption key, attempts and proofs.
//!
//! What the engine needs of `exact_evm`, besides `check`:
//! - `Checked::key() -> farthing_payment::ConsumptionKey`, `Checked::terms(dialect) -> farthing_payment::Terms`
//!   whose `instruction: farthing_payment::Instruction` is a versioned, compact, self-made encoding from which
//!   `Order::decode(&Instruction) -> Result<Order, BadInstruction>` gives back, after a restart, everything that
//!   reads, settlement, proof and the consumed-check need (so `Checked` is little more than a fresh `Order`);
//! - on `Order` (all pure): `network()`, `reads(relayer)`, `judge(results) -> Result<(), Refusal>`,
//!   `settlement() -> Call { to, data, gas_cap }`, `proof(logs) -> Result<log index in the receipt, ProofError>`,
//!   `consumed_read() -> Read`, `consumed(&ReadResult) -> Option<bool>` (None: cannot be told),
//!   `used_filter() -> (address, topics)` to find the transaction that used the authorization,
//!   `expires()`, `judge_revert(data) -> Refusal` for a settlement call that would revert;
//! - `Refusal::reason() -> farthing_payment::Reason` (the stable x402 code and the fault).
