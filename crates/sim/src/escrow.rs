//! The escrow of payment channels on the world's chain: `contracts/src/PaymentChannelEscrow.sol`, transcribed clause by
//! clause. `tests` drives the same calls through the bytecode on the embedded chain, and compares.
//!
//! Left out: Permit2, for which nobody here signs, and vouchers of accounts with code, of which there are none.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use alloy_sol_types::{SolCall, SolEvent, sol};
use bytes::Bytes;
use farthing_evm::voucher::{ChannelParts, PayeeAuthorization, Voucher, escrow_domain, top_up_nonce};
use farthing_evm::{
    Address, AuthorizationUsed, B256, Domain, Log, Signature, TransferAuthorization, U256, escrow,
};

use crate::chain::{Chain, State, Tx, Used, error, revert};
use crate::gateway::NETWORK;

/// Where it is, on every chain.
pub const ESCROW: Address = Address::new(farthing_wallet::escrows::ESCROW);
/// `CLOSE_GRACE_PERIOD`, in seconds.
pub const GRACE: u64 = 900;

mod calls {
    use super::sol;
    sol! {
        struct Claim { bytes32 channelId; uint128 cumulativeAmount; bytes signature; }

        function open(address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner) external;
        function openWithAuthorization(
            address payee, address token, uint128 deposit, bytes32 salt, address authorizedSigner, address from,
            uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature
        ) external;
        function topUp(bytes32 channelId, uint128 additionalDeposit) external;
        function topUpWithAuthorization(
            bytes32 channelId, uint128 additionalDeposit, address from, bytes32 topUpSalt, uint256 validAfter,
            uint256 validBefore, bytes32 nonce, bytes signature
        ) external;
        function settle(bytes32 channelId, uint128 cumulativeAmount, bytes signature) external;
        function settleWithAuthorization(
            bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline, bytes payeeSignature,
            bytes voucherSignature
        ) external;
        function settleMany(address token, Claim[] claims) external;
        function close(bytes32 channelId, uint128 cumulativeAmount, bytes signature) external;
        function closeWithAuthorization(
            bytes32 channelId, uint128 cumulativeAmount, uint256 nonce, uint256 deadline, bytes payeeSignature,
            bytes voucherSignature
        ) external;
        function requestClose(bytes32 channelId) external;
        function withdraw(bytes32 channelId) external;
        function getChannel(bytes32 channelId) external view;
    }
}

mod events {
    use super::sol;
    sol! {
        event ChannelOpened(
            bytes32 indexed channelId, address indexed payer, address indexed payee, address token,
            address authorizedSigner, bytes32 salt, uint256 deposit
        );
        event TopUp(
            bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 additionalDeposit,
            uint256 newDeposit
        );
        event Settled(
            bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 cumulativeAmount,
            uint256 deltaPaid, uint256 newSettled
        );
        event CloseRequested(
            bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 closeGraceEnd
        );
        event CloseRequestCancelled(bytes32 indexed channelId, address indexed payer, address indexed payee);
        event ChannelClosed(
            bytes32 indexed channelId, address indexed payer, address indexed payee, uint256 settledToPayee,
            uint256 refundedToPayer
        );
        event SettlementSkipped(bytes32 indexed channelId, bytes4 reason);
    }
}

/// A channel, as the contract stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    pub payer: Address,
    pub payee: Address,
    pub token: Address,
    /// Zero stands for the payer.
    pub authorized_signer: Address,
    pub deposit: u128,
    pub settled: u128,
    pub close_requested_at: u64,
    pub finalized: bool,
}

impl Record {
    /// What of it is still in the escrow.
    pub fn held(&self) -> u128 {
        if self.finalized { 0 } else { self.deposit - self.settled }
    }

    fn signer(&self) -> Address {
        if self.authorized_signer.is_zero() { self.payer } else { self.authorized_signer }
    }
}

/// The contract's storage, and what it ever did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Escrow {
    // INVARIANT: a record is never deleted, and `finalized` never cleared.
    pub records: BTreeMap<B256, Record>,
    /// "Payee-initiated functions", 3: one used-set for settlements and closes.
    nonces: BTreeSet<(Address, B256, U256)>,
    /// What the token lets it take by `transferFrom`.
    pub allowed: BTreeMap<Address, U256>,
    pub deposited: u128,
    pub paid: u128,
    pub refunded: u128,
}

/// The code there, whose hash sellers and buyers compare.
///
/// # Panics
/// If the artifact is not what the build makes.
#[allow(clippy::expect_used)]
pub fn code() -> &'static [u8] {
    static CODE: OnceLock<Vec<u8>> = OnceLock::new();
    CODE.get_or_init(|| {
        let artifact = include_str!("../../../contracts/artifacts/PaymentChannelEscrow.json");
        let (_, code) = artifact.split_once("\"deployedBytecode\"").expect("an artifact");
        let (_, code) = code.split_once("\"0x").expect("hex");
        let (code, _) = code.split_once('"').expect("hex");
        let digit = |d: u8| char::from(d).to_digit(16).expect("hex") as u8;
        code.as_bytes().chunks_exact(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
    })
}

type Done = Result<(), Bytes>;

/// One call of the contract.
struct Call<'a> {
    chain: &'a Chain,
    state: &'a mut State,
    tx: &'a Tx,
    time: u64,
    logs: &'a mut Vec<Log>,
}

/// Who a deposit is for: the inputs of the channel's id that aren't the contract and the chain.
struct Key {
    payer: Address,
    payee: Address,
    token: Address,
    salt: B256,
    signer: Address,
}

/// What a payer lets the escrow take.
struct Pull {
    after: U256,
    before: U256,
    nonce: B256,
    signature: Vec<u8>,
}

impl Chain {
    /// Calls the escrow. `Err` holds the revert data, and the state is then anything: the caller takes it back.
    pub fn call_escrow(&self, state: &mut State, tx: &Tx, time: u64, logs: &mut Vec<Log>) -> Done {
        Call { chain: self, state, tx, time, logs }.run()
    }

    /// What the escrow's views answer; `None` for anything else.
    pub fn ask_escrow(&self, state: &State, data: &[u8]) -> Option<Bytes> {
        if data.get(..4) == escrow::grace_period().get(..4) {
            return Some(Bytes::copy_from_slice(&U256::from(GRACE).to_be_bytes::<32>()));
        }
        let asked = calls::getChannelCall::abi_decode(data).ok()?;
        let mut words = Vec::with_capacity(8 * 32);
        let record = state.escrow.records.get(&asked.channelId);
        let mut put = |word: B256| words.extend_from_slice(word.as_slice());
        let number = |number: u128| B256::from(U256::from(number));
        put(record.map_or(B256::ZERO, |r| r.payer.into_word()));
        put(record.map_or(B256::ZERO, |r| r.payee.into_word()));
        put(record.map_or(B256::ZERO, |r| r.token.into_word()));
        put(record.map_or(B256::ZERO, |r| r.authorized_signer.into_word()));
        put(number(record.map_or(0, |r| r.deposit)));
        put(number(record.map_or(0, |r| r.settled)));
        put(number(record.map_or(0, |r| u128::from(r.close_requested_at))));
        put(number(record.map_or(0, |r| u128::from(r.finalized))));
        Some(words.into())
    }
}

impl Call<'_> {
    fn run(mut self) -> Done {
        let data = self.tx.data.clone();
        let selector = data.first_chunk::<4>().copied().ok_or_else(Bytes::new)?;
        macro_rules! read {
            ($call:ident) => {
                calls::$call::abi_decode(&data).map_err(|_| Bytes::new())?
            };
        }
        // What the two calls of each kind have in common.
        macro_rules! pull {
            ($call:ident) => {
                Pull {
                    after: $call.validAfter,
                    before: $call.validBefore,
                    nonce: $call.nonce,
                    signature: $call.signature.to_vec(),
                }
            };
        }
        macro_rules! word {
            ($call:ident) => {
                PayeeAuthorization {
                    channel: $call.channelId,
                    cumulative: $call.cumulativeAmount,
                    nonce: $call.nonce,
                    deadline: $call.deadline,
                }
            };
        }
        match selector {
            calls::openCall::SELECTOR => {
                let c = read!(openCall);
                let key = self.key(self.tx.from, c.payee, c.token, c.salt, c.authorizedSigner);
                self.create(&key, c.deposit)?;
                self.pull(c.token, self.tx.from, c.deposit)
            }
            calls::openWithAuthorizationCall::SELECTOR => {
                let c = read!(openWithAuthorizationCall);
                let key = self.key(c.from, c.payee, c.token, c.salt, c.authorizedSigner);
                // Check: "Front-Running Protection". The signature covers the nonce, and so everything that it covers.
                if c.nonce != parts(&key).open_nonce() {
                    return Err(error("NonceMismatch()"));
                }
                self.create(&key, c.deposit)?;
                self.receive(c.token, c.from, c.deposit, &pull!(c))
            }
            calls::topUpCall::SELECTOR => {
                let c = read!(topUpCall);
                // Check: "topUp", payer only.
                if self.live(c.channelId)?.payer != self.tx.from {
                    return Err(error("NotPayer()"));
                }
                let token = self.add(c.channelId, c.additionalDeposit, self.tx.from)?;
                self.pull(token, self.tx.from, c.additionalDeposit)
            }
            calls::topUpWithAuthorizationCall::SELECTOR => {
                let c = read!(topUpWithAuthorizationCall);
                // Check: "Front-Running Protection", the second formula.
                if c.nonce != top_up_nonce(c.channelId, c.additionalDeposit, c.from, c.topUpSalt) {
                    return Err(error("NonceMismatch()"));
                }
                let token = self.add(c.channelId, c.additionalDeposit, c.from)?;
                self.receive(token, c.from, c.additionalDeposit, &pull!(c))
            }
            calls::settleCall::SELECTOR => {
                let c = read!(settleCall);
                let record = self.live(c.channelId)?;
                // Check: "settle", payee only.
                if record.payee != self.tx.from {
                    return Err(error("NotPayee()"));
                }
                self.settle(c.channelId, c.cumulativeAmount, &c.signature)
            }
            calls::settleWithAuthorizationCall::SELECTOR => {
                let c = read!(settleWithAuthorizationCall);
                let word = word!(c);
                self.authorize(&word, word.settle_digest(&domain()), &c.payeeSignature)?;
                self.settle(c.channelId, c.cumulativeAmount, &c.voucherSignature)
            }
            calls::settleManyCall::SELECTOR => {
                let c = read!(settleManyCall);
                self.settle_many(c.token, &c.claims)
            }
            calls::closeCall::SELECTOR => {
                let c = read!(closeCall);
                // Check: "close", payee only.
                if self.live(c.channelId)?.payee != self.tx.from {
                    return Err(error("NotPayee()"));
                }
                self.close(c.channelId, c.cumulativeAmount, &c.signature)
            }
            calls::closeWithAuthorizationCall::SELECTOR => {
                let c = read!(closeWithAuthorizationCall);
                let word = word!(c);
                self.authorize(&word, word.close_digest(&domain()), &c.payeeSignature)?;
                self.close(c.channelId, c.cumulativeAmount, &c.voucherSignature)
            }
            calls::requestCloseCall::SELECTOR => self.request_close(read!(requestCloseCall).channelId),
            calls::withdrawCall::SELECTOR => self.withdraw(read!(withdrawCall).channelId),
            _ => Err(Bytes::new()),
        }
    }

    fn key(&self, payer: Address, payee: Address, token: Address, salt: B256, signer: Address) -> Key {
        Key { payer, payee, token, salt, signer }
    }

    // ---- Channels.

    fn create(&mut self, key: &Key, deposit: u128) -> Done {
        // Checks: "Contract Errors" for `open*`.
        if deposit == 0 {
            return Err(error("ZeroDeposit()"));
        }
        if key.payee.is_zero() {
            return Err(error("InvalidPayee()"));
        }
        if key.payer.is_zero() {
            return Err(error("InvalidPayer()"));
        }
        let id = parts(key).id();
        // Check: "open". A finalized record stays, so an id that was ever used is refused for good.
        if self.state.escrow.records.contains_key(&id) {
            return Err(error("ChannelAlreadyExists()"));
        }
        let record = Record {
            payer: key.payer,
            payee: key.payee,
            token: key.token,
            authorized_signer: key.signer,
            deposit,
            settled: 0,
            close_requested_at: 0,
            finalized: false,
        };
        self.state.escrow.records.insert(id, record);
        self.emit(&events::ChannelOpened {
            channelId: id,
            payer: key.payer,
            payee: key.payee,
            token: key.token,
            authorizedSigner: key.signer,
            salt: key.salt,
            deposit: U256::from(deposit),
        });
        Ok(())
    }

    fn add(&mut self, id: B256, amount: u128, from: Address) -> Result<Address, Bytes> {
        let mut record = self.live(id)?;
        // Checks: "Contract Errors" for `topUp*`.
        if amount == 0 {
            return Err(error("ZeroDeposit()"));
        }
        record.deposit = record.deposit.checked_add(amount).ok_or_else(|| error("DepositOverflow()"))?;
        let (payer, payee) = (record.payer, record.payee);
        // "topUp": the payer's own money, and nobody else's, takes its request to close back.
        if from == payer && record.close_requested_at != 0 {
            record.close_requested_at = 0;
            self.emit(&events::CloseRequestCancelled { channelId: id, payer, payee });
        }
        self.emit(&events::TopUp {
            channelId: id,
            payer,
            payee,
            additionalDeposit: U256::from(amount),
            newDeposit: U256::from(record.deposit),
        });
        self.state.escrow.records.insert(id, record);
        Ok(record.token)
    }

    /// Books a voucher that was checked, and returns what it adds.
    fn capture(&mut self, id: B256, mut record: Record, cumulative: u128) -> u128 {
        let delta = cumulative - record.settled;
        record.settled = cumulative;
        self.state.escrow.records.insert(id, record);
        self.emit(&events::Settled {
            channelId: id,
            payer: record.payer,
            payee: record.payee,
            cumulativeAmount: U256::from(cumulative),
            deltaPaid: U256::from(delta),
            newSettled: U256::from(cumulative),
        });
        delta
    }

    fn settle(&mut self, id: B256, cumulative: u128, signature: &[u8]) -> Done {
        let record = self.live(id)?;
        if let Some(why) = voucher_refusal(id, &record, cumulative, signature) {
            return Err(error(why));
        }
        let delta = self.capture(id, record, cumulative);
        self.push(record.token, record.payee, delta, false)
    }

    fn settle_many(&mut self, token: Address, claims: &[calls::Claim]) -> Done {
        let mut paid = 0;
        for claim in claims {
            let (id, cumulative) = (claim.channelId, claim.cumulativeAmount);
            let record = self.state.escrow.records.get(&id).copied();
            let refusal = match &record {
                None => Some("ChannelNotFound()"),
                Some(record) if record.finalized => Some("ChannelFinalized()"),
                Some(record) if record.payee != self.tx.from => Some("NotPayee()"),
                Some(record) if record.token != token => Some("TokenMismatch()"),
                Some(record) => voucher_refusal(id, record, cumulative, &claim.signature),
            };
            match (record, refusal) {
                (Some(record), None) => paid += self.capture(id, record, cumulative),
                (_, why) => {
                    let reason = error(why.unwrap_or_default());
                    let reason = reason.first_chunk::<4>().copied().unwrap_or_default().into();
                    self.emit(&events::SettlementSkipped { channelId: id, reason });
                }
            }
        }
        if paid == 0 {
            return Err(error("NothingToSettle()"));
        }
        self.push(token, self.tx.from, paid, false)
    }

    fn close(&mut self, id: B256, cumulative: u128, signature: &[u8]) -> Done {
        let mut record = self.live(id)?;
        let mut delta = 0;
        // "close": an amount that was settled already asks for nothing, so it needs no voucher.
        if cumulative > record.settled {
            if let Some(why) = voucher_refusal(id, &record, cumulative, signature) {
                return Err(error(why));
            }
            delta = cumulative - record.settled;
            record.settled = cumulative;
        }
        self.finalize(id, record);
        // Interactions: "Escrow Guarantees", both or none.
        if delta != 0 {
            self.push(record.token, record.payee, delta, false)?;
        }
        self.refund(&record)
    }

    fn request_close(&mut self, id: B256) -> Done {
        let mut record = self.live(id)?;
        // Check: "requestClose", payer only.
        if record.payer != self.tx.from {
            return Err(error("NotPayer()"));
        }
        // A second request doesn't start the time anew.
        if record.close_requested_at != 0 {
            return Ok(());
        }
        record.close_requested_at = self.time;
        self.state.escrow.records.insert(id, record);
        self.emit(&events::CloseRequested {
            channelId: id,
            payer: record.payer,
            payee: record.payee,
            closeGraceEnd: U256::from(self.time + GRACE),
        });
        Ok(())
    }

    fn withdraw(&mut self, id: B256) -> Done {
        let record = self.live(id)?;
        // Checks: "withdraw", all four.
        if record.payer != self.tx.from {
            return Err(error("NotPayer()"));
        }
        if record.close_requested_at == 0 || self.time < record.close_requested_at + GRACE {
            return Err(error("CloseNotReady()"));
        }
        self.finalize(id, record);
        self.refund(&record)
    }

    fn finalize(&mut self, id: B256, record: Record) {
        self.state.escrow.records.insert(id, Record { finalized: true, ..record });
        self.emit(&events::ChannelClosed {
            channelId: id,
            payer: record.payer,
            payee: record.payee,
            settledToPayee: U256::from(record.settled),
            refundedToPayer: U256::from(record.deposit - record.settled),
        });
    }

    fn refund(&mut self, record: &Record) -> Done {
        match record.deposit - record.settled {
            0 => Ok(()),
            rest => self.push(record.token, record.payer, rest, true),
        }
    }

    fn live(&self, id: B256) -> Result<Record, Bytes> {
        let record = self.state.escrow.records.get(&id).copied();
        let record = record.ok_or_else(|| error("ChannelNotFound()"))?;
        if record.finalized { Err(error("ChannelFinalized()")) } else { Ok(record) }
    }

    // ---- Signatures.

    /// "Payee-initiated functions", 1, 3 and 4.
    fn authorize(&mut self, word: &PayeeAuthorization, digest: B256, signature: &[u8]) -> Done {
        let payee = self.live(word.channel)?.payee;
        if U256::from(self.time) > word.deadline {
            return Err(error("AuthorizationExpired()"));
        }
        let used = (payee, word.channel, word.nonce);
        if self.state.escrow.nonces.contains(&used) {
            return Err(error("NonceAlreadyUsed()"));
        }
        if !signed_by(payee, digest, signature) {
            return Err(error("InvalidSignature()"));
        }
        self.state.escrow.nonces.insert(used);
        Ok(())
    }

    // ---- The token.

    /// Nothing else here is a token: a call of what has no code fails without a word.
    fn token(&self, token: Address) -> Done {
        if token == self.chain.token { Ok(()) } else { Err(Bytes::new()) }
    }

    /// `transferFrom`.
    fn pull(&mut self, token: Address, from: Address, atoms: u128) -> Done {
        self.token(token)?;
        let allowed = self.state.escrow.allowed.get(&from).copied().unwrap_or_default();
        let left = allowed.checked_sub(U256::from(atoms));
        let left = left.ok_or_else(|| revert("ERC20: transfer amount exceeds allowance"))?;
        self.chain.pay(self.state, from, ESCROW, U256::from(atoms), self.logs)?;
        self.state.escrow.allowed.insert(from, left);
        self.state.escrow.deposited += atoms;
        Ok(())
    }

    /// `receiveWithAuthorization`, in the order in which the token looks.
    fn receive(&mut self, token: Address, from: Address, atoms: u128, pull: &Pull) -> Done {
        self.token(token)?;
        let auth = TransferAuthorization {
            from,
            to: ESCROW,
            value: U256::from(atoms),
            valid_after: pull.after,
            valid_before: pull.before,
            nonce: pull.nonce,
        };
        if U256::from(self.time) <= auth.valid_after {
            return Err(revert("FiatTokenV2: authorization is not yet valid"));
        }
        if U256::from(self.time) >= auth.valid_before {
            return Err(revert("FiatTokenV2: authorization is expired"));
        }
        let key = (from, auth.nonce);
        if self.state.used.contains_key(&key) {
            return Err(revert("FiatTokenV2: authorization is used or canceled"));
        }
        token_signature(from, auth.receive_digest(self.chain.domain()), &pull.signature)?;
        let used = Used::Paid { to: ESCROW, value: atoms, tx: B256::new(self.tx.hash) };
        self.state.used.insert(key, used);
        self.logs.push(Log {
            address: token,
            topics: vec![AuthorizationUsed::TOPIC, from.into_word(), auth.nonce],
            data: Default::default(),
            index: 0,
        });
        self.chain.pay(self.state, from, ESCROW, auth.value, self.logs)?;
        self.state.escrow.deposited += atoms;
        Ok(())
    }

    fn push(&mut self, token: Address, to: Address, atoms: u128, back: bool) -> Done {
        self.token(token)?;
        self.chain.pay(self.state, ESCROW, to, U256::from(atoms), self.logs)?;
        let sum = if back { &mut self.state.escrow.refunded } else { &mut self.state.escrow.paid };
        *sum += atoms;
        Ok(())
    }

    fn emit(&mut self, event: &impl SolEvent) {
        let log = event.encode_log_data();
        let topics = log.topics().to_vec();
        self.logs.push(Log { address: ESCROW, topics, data: log.data, index: 0 });
    }
}

/// What is wrong with a voucher.
fn voucher_refusal(id: B256, record: &Record, cumulative: u128, signature: &[u8]) -> Option<&'static str> {
    // Checks: "settle", "Rollback Prevention", "Deposit Cap".
    if cumulative <= record.settled {
        return Some("AmountNotIncreasing()");
    }
    if cumulative > record.deposit {
        return Some("AmountExceedsDeposit()");
    }
    // Check: "Signature Verification", 2. Who may sign was fixed when the channel was opened.
    let voucher = Voucher { channel: id, cumulative };
    let signed = signed_by(record.signer(), voucher.digest(&domain()), signature);
    (!signed).then_some("InvalidSignature()")
}

/// A canonical signature of 65 bytes, with `v` of 27 or 28.
fn signed_by(signer: Address, digest: B256, signature: &[u8]) -> bool {
    if signature.len() != 65 || !matches!(signature[64], 27 | 28) {
        return false;
    }
    Signature::parse(signature).is_ok_and(|parsed| parsed.recover(digest).ok() == Some(signer))
}

/// The same for the token, which says more of what is wrong.
fn token_signature(signer: Address, digest: B256, signature: &[u8]) -> Done {
    if signature.len() != 65 {
        return Err(revert("ECRecover: invalid signature length"));
    }
    if !matches!(signature[64], 27 | 28) {
        return Err(revert("ECRecover: invalid signature 'v' value"));
    }
    let parsed = Signature::parse(signature).map_err(|_| revert("ECRecover: invalid signature 's' value"))?;
    let recovered = parsed.recover(digest).map_err(|_| revert("ECRecover: invalid signature"))?;
    if recovered == signer { Ok(()) } else { Err(revert("FiatTokenV2: invalid signature")) }
}

fn parts(key: &Key) -> ChannelParts {
    ChannelParts {
        payer: key.payer,
        payee: key.payee,
        token: key.token,
        salt: key.salt,
        authorized_signer: key.signer,
        escrow: ESCROW,
        chain_id: NETWORK,
    }
}

fn domain() -> Domain {
    escrow_domain(NETWORK, ESCROW)
}

#[cfg(test)]
mod tests;
