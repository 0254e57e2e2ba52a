//! A checked payment as it was presented: for a remote facilitator, which checks it anew.

use farthing_evm::{Bytes, Wrapped, known, wrap_erc6492};

use super::{Approval, Checked, Order, Presented, Signer, Sponsored};

impl Checked {
    /// What the payer presented, in canonical spelling. Checking it again gives this very payment.
    pub fn presented(&self) -> Presented {
        let signature = match &self.signer {
            Signer::Key(signature) => Bytes::copy_from_slice(&signature.to_bytes()),
            Signer::Contract { signature, deployment: None, .. } => signature.clone(),
            Signer::Contract { signature, deployment: Some(deployment), .. } => wrap_erc6492(&Wrapped {
                factory: deployment.factory,
                factory_data: deployment.data.clone(),
                signature: signature.clone(),
            }),
        };
        match &self.order {
            Order::Eip3009(authorization) => Presented::Eip3009 { authorization: *authorization, signature },
            Order::Permit2 { owner, transfer, approval } => {
                let approval = match approval {
                    Sponsored::Proven(proven) => Some(Box::new(Approval {
                        from: *owner,
                        asset: self.token(),
                        spender: known::PERMIT2,
                        amount: self.amount(),
                        nonce: proven.nonce,
                        deadline: proven.deadline,
                        signature: Bytes::copy_from_slice(&proven.signature.to_bytes()),
                    })),
                    // A wrong approval helps nobody.
                    Sponsored::No | Sponsored::Wrong(_) => None,
                };
                Presented::Permit2 { owner: *owner, transfer: *transfer, signature, approval }
            }
        }
    }
}
