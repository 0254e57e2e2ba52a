//! A checked payment as bytes, so that a process that restarts can still settle it. Our own format, never a peer's.

use farthing_evm::{TransferAuthorization, U256, WitnessTransfer, from_alloy};
use farthing_payment::Instruction;
use farthing_primitives::{AssetId, Money, Network};

use crate::packed::{Reader, Writer};

use super::{ApprovalFault, Checked, Deployment, GasCaps, Order, ProvenApproval, Signer, Sponsored};

/// The first byte. A change of what follows takes the next number, and reads this one still.
const VERSION: u8 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InstructionError {
    #[error("the stored instruction has version {0}, which this program does not know")]
    Version(u8),
    #[error("the stored instruction is damaged")]
    Damaged,
}

impl Checked {
    /// All that is needed to settle this payment, also after a restart.
    pub fn instruction(&self) -> Instruction {
        let mut out = Writer(vec![VERSION]);
        out.bytes(&self.chain_id.to_be_bytes());
        out.bytes(self.token().as_slice());
        out.bytes(&self.money.atoms().to_be_bytes());
        let gas = &self.gas;
        for cap in [gas.eip3009, gas.permit2, gas.permit2_with_approval, gas.wallet, gas.deployment] {
            out.bytes(&cap.to_be_bytes());
        }
        match &self.order {
            Order::Eip3009(auth) => {
                out.bytes(&[0]);
                out.bytes(auth.from.as_slice());
                out.bytes(auth.to.as_slice());
                out.word(auth.valid_after);
                out.word(auth.valid_before);
                out.bytes(auth.nonce.as_slice());
            }
            Order::Permit2 { owner, transfer, approval } => {
                out.bytes(&[1]);
                out.bytes(owner.as_slice());
                out.bytes(transfer.spender.as_slice());
                out.word(transfer.nonce);
                out.word(transfer.deadline);
                out.bytes(transfer.to.as_slice());
                out.word(transfer.valid_after);
                match approval {
                    Sponsored::No => out.bytes(&[0]),
                    Sponsored::Proven(approval) => {
                        out.bytes(&[1]);
                        out.word(approval.nonce);
                        out.word(approval.deadline);
                        out.bytes(&approval.signature.to_bytes());
                    }
                    Sponsored::Wrong(fault) => out.bytes(&[2, fault_number(*fault)]),
                }
            }
        }
        match &self.signer {
            Signer::Key(signature) => {
                out.bytes(&[0]);
                out.bytes(&signature.to_bytes());
            }
            Signer::Contract { digest, signature, deployment } => {
                out.bytes(&[1]);
                out.bytes(digest.as_slice());
                out.blob(signature);
                out.option(deployment.as_ref(), |out, deployment| {
                    out.bytes(deployment.factory.as_slice());
                    out.blob(&deployment.data);
                    out.bytes(&[u8::from(deployment.allowed)]);
                });
            }
        }
        Instruction::new(out.0)
    }

    /// A payment that was checked before, from what [`Checked::instruction`] made of it. Time is not looked at: it may
    /// have expired since, and the chain says so.
    pub fn recall(instruction: &Instruction) -> Result<Self, InstructionError> {
        let mut input = Reader(instruction.as_bytes());
        match input.byte() {
            Some(VERSION) => input.checked().ok_or(InstructionError::Damaged),
            Some(other) => Err(InstructionError::Version(other)),
            None => Err(InstructionError::Damaged),
        }
    }
}

const FAULTS: [ApprovalFault; 6] = [
    ApprovalFault::From,
    ApprovalFault::Asset,
    ApprovalFault::Spender,
    ApprovalFault::Amount,
    ApprovalFault::Expired,
    ApprovalFault::Signature,
];

/// The number under which a fault is stored.
const fn fault_number(fault: ApprovalFault) -> u8 {
    match fault {
        ApprovalFault::From => 0,
        ApprovalFault::Asset => 1,
        ApprovalFault::Spender => 2,
        ApprovalFault::Amount => 3,
        ApprovalFault::Expired => 4,
        ApprovalFault::Signature => 5,
    }
}

impl Reader<'_> {
    fn checked(&mut self) -> Option<Checked> {
        let chain_id = u64::from_be_bytes(self.array()?);
        let token = self.address()?;
        let atoms = u128::from_be_bytes(self.array()?);
        let mut caps = [0u64; 5];
        for cap in &mut caps {
            *cap = u64::from_be_bytes(self.array()?);
        }
        let [eip3009, permit2, permit2_with_approval, wallet, deployment] = caps;
        let amount = U256::from(atoms);
        let order = match self.byte()? {
            0 => Order::Eip3009(TransferAuthorization {
                from: self.address()?,
                to: self.address()?,
                value: amount,
                valid_after: self.word()?,
                valid_before: self.word()?,
                nonce: self.hash()?,
            }),
            1 => Order::Permit2 {
                owner: self.address()?,
                transfer: WitnessTransfer {
                    token,
                    amount,
                    spender: self.address()?,
                    nonce: self.word()?,
                    deadline: self.word()?,
                    to: self.address()?,
                    valid_after: self.word()?,
                },
                approval: match self.byte()? {
                    0 => Sponsored::No,
                    1 => Sponsored::Proven(ProvenApproval {
                        nonce: self.word()?,
                        deadline: self.word()?,
                        signature: self.signature()?,
                    }),
                    2 => {
                        let number = self.byte()?;
                        Sponsored::Wrong(*FAULTS.iter().find(|fault| fault_number(**fault) == number)?)
                    }
                    _ => return None,
                },
            },
            _ => return None,
        };
        let signer = if self.flag()? {
            Signer::Contract {
                digest: self.hash()?,
                signature: self.blob()?,
                deployment: if self.flag()? {
                    Some(Deployment { factory: self.address()?, data: self.blob()?, allowed: self.flag()? })
                } else {
                    None
                },
            }
        } else {
            Signer::Key(self.signature()?)
        };
        if !self.0.is_empty() {
            return None;
        }
        let asset = AssetId::new(Network::eip155(chain_id), from_alloy(token));
        Some(Checked {
            money: Money::new(asset, atoms),
            chain_id,
            order,
            signer,
            gas: GasCaps { eip3009, permit2, permit2_with_approval, wallet, deployment },
        })
    }
}
