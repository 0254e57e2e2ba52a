use farthing_evm::abi::{self, Call};
use farthing_evm::{Address, B256, Bytes, Read, ReadKind, ReadResult, Revert, U256, known};
use farthing_primitives::PullMethod;

use super::{
    ApprovalFault, Checked, Deployment, Fact, Order, Refusal, SignatureFault, Signer, Sponsored, moment,
};

/// A payment that the chain would settle now.
///
/// INVARIANT: only [`Checked::judge`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Funded {
    settlement: Settlement,
}

impl Funded {
    /// The call that moves the money. Anybody may submit it; the outcome is the same.
    pub fn settlement(&self) -> &Settlement {
        &self.settlement
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub to: Address,
    pub data: Bytes,
    /// The most gas that the call may be given.
    pub gas_cap: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Balance,
    Nonce,
    Allowance,
    Proxy,
    WalletAgrees,
    Settle(Way),
}

/// How the money is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Plain,
    /// With the payer's EIP-2612 allowance submitted first.
    WithApproval,
    /// With the payer's wallet deployed first.
    WithDeployment,
}

impl Checked {
    /// What to ask the chain, in one batch on one state. The answers belong to [`Checked::judge`] in the same order.
    pub fn reads(&self) -> Vec<Read> {
        self.questions().into_iter().map(|question| self.read(question)).collect()
    }

    /// What the answers to [`Checked::reads`] mean. Fails closed: an answer that is missing or unreadable is a refusal.
    ///
    /// # Errors
    /// [`Refusal`] with the first cause in this order: token, nonce, balance, proxy, signature, allowance, simulation.
    ///
    /// Spec: x402 exact on EVM, section 1 phase 2 steps 2 and 5; section 2 phase 3 steps 2, 3 and 7.
    pub fn judge(&self, results: &[ReadResult]) -> Result<Funded, Refusal> {
        self.decide(results)
            .map(|way| Funded { settlement: self.settlement(way) })
            .map_err(|fact| Refusal { method: self.method(), fact })
    }

    /// One read that tells whether the authorization was used (or cancelled), whoever used it.
    pub fn consumed_read(&self) -> Read {
        self.read(Question::Nonce)
    }

    /// What the answer to [`Checked::consumed_read`] means; `None` if it says nothing.
    pub fn consumed(&self, result: &ReadResult) -> Option<bool> {
        let data = result.returned()?;
        match &self.order {
            Order::Eip3009(_) => abi::as_bool(data),
            Order::Permit2 { transfer, .. } => {
                abi::as_uint(data).map(|word| word.bit(usize::from(abi::nonce_place(transfer.nonce).1)))
            }
        }
    }

    /// What the revert of a simulated or submitted settlement means.
    pub fn reverted(&self, data: &[u8]) -> Refusal {
        Refusal { method: self.method(), fact: self.fact_of(Revert::decode(data)) }
    }

    pub(super) fn questions(&self) -> Vec<Question> {
        let mut questions = vec![Question::Balance, Question::Nonce];
        let mut ways = vec![Question::Settle(Way::Plain)];
        if let Order::Permit2 { approval, .. } = &self.order {
            questions.extend([Question::Allowance, Question::Proxy]);
            if matches!(approval, Sponsored::Proven(_)) {
                ways.push(Question::Settle(Way::WithApproval));
            }
        }
        if let Signer::Contract { deployment, .. } = &self.signer {
            questions.push(Question::WalletAgrees);
            if deployment.as_ref().is_some_and(|deployment| deployment.allowed) {
                ways.push(Question::Settle(Way::WithDeployment));
            }
        }
        questions.append(&mut ways);
        questions
    }

    fn read(&self, question: Question) -> Read {
        let (to, data) = match question {
            Question::Balance => (self.token(), abi::balance_of(self.owner())),
            Question::Nonce => match &self.order {
                Order::Eip3009(auth) => (self.token(), abi::authorization_state(auth.from, auth.nonce)),
                Order::Permit2 { owner, transfer, .. } => {
                    (known::PERMIT2, abi::nonce_bitmap(*owner, transfer.nonce))
                }
            },
            Question::Allowance => (self.token(), abi::allowance(self.owner(), known::PERMIT2)),
            Question::Proxy => (known::X402_EXACT_PROXY, abi::proxy_permit2()),
            Question::WalletAgrees => match &self.signer {
                Signer::Contract { digest, signature, .. } => {
                    (self.owner(), abi::is_valid_signature(*digest, signature))
                }
                // INVARIANT: asked of contracts only; a key has nothing to be asked.
                Signer::Key(_) => (self.owner(), Bytes::new()),
            },
            Question::Settle(way) => self.call(way, true),
        };
        let untrusted = matches!(self.signer, Signer::Contract { .. });
        let kind = match question {
            Question::WalletAgrees => ReadKind::Untrusted,
            Question::Settle(_) if untrusted => ReadKind::Untrusted,
            Question::Settle(_) => ReadKind::Simulation { contends: self.contends() },
            _ => ReadKind::View,
        };
        Read { to, data, kind }
    }

    /// Payments of one payer in one token see each other's simulated transfers.
    fn contends(&self) -> B256 {
        let mut bytes = [0u8; 32];
        let (token, owner) = (self.token(), self.owner());
        bytes[..12].copy_from_slice(&token[..12]);
        bytes[12..].copy_from_slice(owner.as_slice());
        bytes.into()
    }

    /// The call of a way of settling. When simulated, a deployment reports the reason of a failed transfer; when
    /// submitted, it is all or nothing.
    fn call(&self, way: Way, simulated: bool) -> (Address, Bytes) {
        let (to, data) = match &self.order {
            Order::Eip3009(auth) => {
                let data = match &self.signer {
                    Signer::Key(signature) => abi::transfer_with_authorization(auth, signature),
                    Signer::Contract { signature, .. } => {
                        abi::transfer_with_authorization_bytes(auth, signature)
                    }
                };
                (self.token(), data)
            }
            Order::Permit2 { owner, transfer, approval } => {
                let canonical;
                let signature: &[u8] = match &self.signer {
                    Signer::Key(signature) => {
                        canonical = signature.to_bytes();
                        &canonical
                    }
                    Signer::Contract { signature, .. } => signature,
                };
                let data = match approval {
                    Sponsored::Proven(approval) if way == Way::WithApproval => abi::settle_with_permit(
                        *owner,
                        transfer,
                        signature,
                        approval.deadline,
                        &approval.signature,
                    ),
                    _ => abi::settle(*owner, transfer, signature),
                };
                (known::X402_EXACT_PROXY, data)
            }
        };
        match self.deployment() {
            Some(deployment) if way == Way::WithDeployment => {
                // The factory may fail because the wallet exists by now; then the transfer decides alone.
                let deploy = Call { to: deployment.factory, data: deployment.data.clone(), may_fail: true };
                let pay = Call { to, data, may_fail: simulated };
                (known::MULTICALL3, abi::aggregate3([deploy, pay]))
            }
            _ => (to, data),
        }
    }

    fn settlement(&self, way: Way) -> Settlement {
        let (to, data) = self.call(way, false);
        let gas = &self.gas;
        let base = match (&self.order, way) {
            (Order::Eip3009(_), _) => gas.eip3009,
            (Order::Permit2 { .. }, Way::WithApproval) => gas.permit2_with_approval,
            (Order::Permit2 { .. }, _) => gas.permit2,
        };
        let wallet = if matches!(self.signer, Signer::Contract { .. }) { gas.wallet } else { 0 };
        let deployment = if way == Way::WithDeployment { gas.deployment } else { 0 };
        Settlement { to, data, gas_cap: base.saturating_add(wallet).saturating_add(deployment) }
    }

    fn deployment(&self) -> Option<&Deployment> {
        match &self.signer {
            Signer::Contract { deployment, .. } => deployment.as_ref(),
            Signer::Key(_) => None,
        }
    }

    fn decide(&self, results: &[ReadResult]) -> Result<Way, Fact> {
        let questions = self.questions();
        if results.len() != questions.len() || results.contains(&ReadResult::Unavailable) {
            return Err(Fact::Unavailable);
        }
        let answer = |question| {
            let at = questions.iter().position(|asked| *asked == question);
            at.and_then(|at| results.get(at)).ok_or(Fact::Unavailable)
        };
        // A call to an address without code returns nothing and succeeds: a transfer there would be a silent no-op.
        let balance = answer(Question::Balance)?.returned().and_then(|data| abi::as_uint(data));
        let balance = balance.ok_or(Fact::TokenNotDeployed)?;
        match self.consumed(answer(Question::Nonce)?) {
            Some(false) => {}
            Some(true) => return Err(Fact::NonceUsed),
            None if self.method() == PullMethod::Eip3009 => return Err(Fact::Eip3009NotSupported),
            // Without Permit2 the proxy can do nothing either.
            None => return Err(Fact::ProxyNotDeployed),
        }
        if balance < self.amount() {
            return Err(Fact::InsufficientBalance);
        }
        if self.method() == PullMethod::Permit2 {
            let permit2 = answer(Question::Proxy)?.returned().and_then(|data| abi::as_uint(data));
            if permit2 != Some(U256::from_be_slice(known::PERMIT2.as_slice())) {
                return Err(Fact::ProxyNotDeployed);
            }
        }
        let way = match &self.signer {
            Signer::Key(_) => Way::Plain,
            Signer::Contract { deployment, .. } => {
                self.agrees(answer(Question::WalletAgrees)?, deployment.as_ref())?
            }
        };
        let way = self.allowed(way, &answer)?;
        match answer(Question::Settle(way))? {
            ReadResult::Returned(data) if way == Way::WithDeployment => {
                match abi::aggregate3_results(data, 2).as_deref() {
                    Some([_, (true, _)]) => Ok(way),
                    Some([_, (false, reason)]) => Err(self.fact_of(Revert::decode(reason))),
                    _ => Err(Fact::Simulation(Revert::Garbage)),
                }
            }
            ReadResult::Returned(_) => Ok(way),
            ReadResult::Reverted(data) => Err(self.fact_of(Revert::decode(data))),
            ReadResult::Unavailable => Err(Fact::Unavailable),
        }
    }

    /// Whether the payer's contract agrees, or could once it is deployed.
    fn agrees(&self, answer: &ReadResult, deployment: Option<&Deployment>) -> Result<Way, Fact> {
        match answer {
            ReadResult::Returned(data) if abi::is_magic(data) => Ok(Way::Plain),
            // No code at the payer's address.
            ReadResult::Returned(data) if data.is_empty() => match deployment {
                Some(deployment) if deployment.allowed => Ok(Way::WithDeployment),
                Some(_) => Err(Fact::FactoryNotAllowed),
                None => Err(Fact::Signature(SignatureFault::NotAccepted)),
            },
            ReadResult::Returned(_) | ReadResult::Reverted(_) => {
                Err(Fact::Signature(SignatureFault::NotAccepted))
            }
            ReadResult::Unavailable => Err(Fact::Unavailable),
        }
    }

    /// Spec: x402 exact on EVM, section 2 phase 3 step 2.
    fn allowed<'a>(
        &self,
        way: Way,
        answer: &impl Fn(Question) -> Result<&'a ReadResult, Fact>,
    ) -> Result<Way, Fact> {
        let Order::Permit2 { approval, .. } = &self.order else { return Ok(way) };
        let allowance = answer(Question::Allowance)?.returned().and_then(|data| abi::as_uint(data));
        let allowance = allowance.ok_or(Fact::TokenNotDeployed)?;
        if allowance >= self.amount() {
            // Submitting the approval as well would lower what the payer allowed before.
            return Ok(way);
        }
        match approval {
            Sponsored::Proven(_) if way == Way::Plain => Ok(Way::WithApproval),
            Sponsored::Wrong(fault) => Err(Fact::Approval(*fault)),
            Sponsored::Proven(_) | Sponsored::No => Err(Fact::AllowanceRequired),
        }
    }

    fn fact_of(&self, revert: Revert) -> Fact {
        let says = |words: &[&str]| match &revert {
            Revert::Text(text) => {
                let text = text.to_ascii_lowercase();
                words.iter().any(|word| text.contains(word))
            }
            Revert::Named(name) => words.contains(name),
            _ => false,
        };
        // Circle's texts, OpenZeppelin's and Permit2's names.
        if says(&[
            "authorization is used",
            "AuthorizationAlreadyUsed",
            "AuthorizationUsedOrCanceled",
            "InvalidNonce",
        ]) {
            Fact::NonceUsed
        } else if says(&["authorization is expired", "AuthorizationExpired", "SignatureExpired"]) {
            Fact::Expired { at: self.expires() }
        } else if says(&["authorization is not yet valid", "AuthorizationNotYetValid", "PaymentTooEarly"]) {
            Fact::NotYetValid { from: self.begins() }
        } else if says(&["exceeds balance", "ERC20InsufficientBalance"]) {
            Fact::InsufficientBalance
        } else if says(&[
            "invalid signature",
            "InvalidSignature",
            "InvalidSignatureLength",
            "InvalidSigner",
            "InvalidContractSignature",
        ]) {
            Fact::Signature(SignatureFault::NotAccepted)
        } else if says(&["Permit2612AmountMismatch"]) {
            Fact::Approval(ApprovalFault::Amount)
        } else {
            Fact::Simulation(revert)
        }
    }

    fn begins(&self) -> farthing_primitives::Timestamp {
        moment(match &self.order {
            Order::Eip3009(auth) => auth.valid_after,
            Order::Permit2 { transfer, .. } => transfer.valid_after,
        })
    }
}
