use farthing_evm::{Revert, SigError};
use farthing_payment::{Fault, Reason};
use farthing_primitives::{PullMethod, Timestamp};

/// Why a payment is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{fact}")]
pub struct Refusal {
    /// How the payer wanted to pay; peers spell one fact differently for each.
    pub method: PullMethod,
    pub fact: Fact,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fact {
    #[error("the payload does not pay in the way that was asked for")]
    OtherMethod,
    #[error("the payment is to another payee")]
    Recipient,
    #[error("the payment is not exactly the price")]
    Amount,
    #[error("the payment is in another token")]
    Token,
    #[error("the permit is for another spender than the x402 proxy")]
    Spender,
    #[error("the authorization begins at {from}")]
    NotYetValid { from: Timestamp },
    #[error("the authorization ends at {at}, too soon")]
    Expired { at: Timestamp },
    #[error("the authorization ends at {at}, later than we accept")]
    TooLong { at: Timestamp },
    #[error("the signature is not the payer's: {0}")]
    Signature(SignatureFault),
    #[error("the sponsored approval is wrong: {0}")]
    Approval(ApprovalFault),
    #[error("the wallet is not deployed, and its factory is not allowed here")]
    FactoryNotAllowed,
    #[error("there is no token contract at the asset's address")]
    TokenNotDeployed,
    #[error("the token does not know EIP-3009")]
    Eip3009NotSupported,
    #[error("the x402 proxy is not deployed on this chain")]
    ProxyNotDeployed,
    #[error("the authorization was used or cancelled")]
    NonceUsed,
    #[error("the payer has less than the price")]
    InsufficientBalance,
    #[error("the payer has not approved Permit2 for this token")]
    AllowanceRequired,
    #[error("the transfer would fail: {0}")]
    Simulation(Revert),
    /// Nothing is known about the payment.
    #[error("the chain could not be asked")]
    Unavailable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureFault {
    #[error("it is empty")]
    Empty,
    #[error("it is too long, or wrapped wrongly")]
    Malformed,
    #[error("another key made it, or none ({0:?}), and contracts may not pay here")]
    NotAKey(Option<SigError>),
    #[error("the payer's account does not accept it")]
    NotAccepted,
}

/// What is wrong with an EIP-2612 approval that came with the payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalFault {
    #[error("it is another account's")]
    From,
    #[error("it is for another token")]
    Asset,
    #[error("it is for another spender than Permit2")]
    Spender,
    #[error("it is not for exactly the price")]
    Amount,
    #[error("it ends too soon")]
    Expired,
    #[error("the payer's key did not sign it, or the token has no domain to sign for")]
    Signature,
}

impl Refusal {
    /// The code that x402 peers know this fact by.
    ///
    /// Spec: x402 v2 section 9 (error codes), and the codes that the published packages emit.
    pub fn code(&self) -> &'static str {
        let eip3009 = self.method == PullMethod::Eip3009;
        let either = |on_eip3009, on_permit2| if eip3009 { on_eip3009 } else { on_permit2 };
        match &self.fact {
            Fact::OtherMethod => "unsupported_payload_type",
            Fact::Recipient => {
                either("invalid_exact_evm_recipient_mismatch", "invalid_permit2_recipient_mismatch")
            }
            Fact::Amount => {
                either("invalid_exact_evm_payload_authorization_value_mismatch", "permit2_amount_mismatch")
            }
            Fact::Token => "permit2_token_mismatch",
            Fact::Spender => "invalid_permit2_spender",
            Fact::NotYetValid { .. } => {
                either("invalid_exact_evm_payload_authorization_valid_after", "permit2_not_yet_valid")
            }
            Fact::Expired { .. } | Fact::TooLong { .. } => {
                either("invalid_exact_evm_payload_authorization_valid_before", "permit2_deadline_expired")
            }
            Fact::Signature(_) => either("invalid_exact_evm_signature", "invalid_permit2_signature"),
            Fact::Approval(fault) => match fault {
                ApprovalFault::From => "eip2612_from_mismatch",
                ApprovalFault::Asset => "eip2612_asset_mismatch",
                ApprovalFault::Spender => "eip2612_spender_not_permit2",
                ApprovalFault::Amount => "permit2_2612_amount_mismatch",
                ApprovalFault::Expired => "eip2612_deadline_expired",
                ApprovalFault::Signature => "invalid_eip2612_extension_format",
            },
            Fact::FactoryNotAllowed => "eip6492_factory_not_allowed",
            Fact::TokenNotDeployed => "asset_not_deployed_contract",
            Fact::Eip3009NotSupported => "invalid_exact_evm_eip3009_not_supported",
            Fact::ProxyNotDeployed => "permit2_proxy_not_deployed",
            Fact::NonceUsed => either("invalid_exact_evm_nonce_already_used", "permit2_invalid_nonce"),
            Fact::InsufficientBalance => {
                either("invalid_exact_evm_insufficient_balance", "permit2_insufficient_balance")
            }
            Fact::AllowanceRequired => "permit2_allowance_required",
            Fact::Simulation(_) => {
                either("invalid_exact_evm_transaction_simulation_failed", "permit2_simulation_failed")
            }
            Fact::Unavailable => "unexpected_verify_error",
        }
    }

    /// Whose doing it is.
    pub fn fault(&self) -> Fault {
        match &self.fact {
            Fact::TokenNotDeployed | Fact::Eip3009NotSupported | Fact::ProxyNotDeployed => Fault::Payee,
            Fact::Unavailable => Fault::Chain,
            _ => Fault::Payer,
        }
    }

    /// Whether the very same payment may be accepted later, because what refused it can change by itself or by the
    /// payer's doing on the chain.
    pub fn may_be_sent_again(&self) -> bool {
        matches!(
            self.fact,
            Fact::NotYetValid { .. }
                | Fact::InsufficientBalance
                | Fact::AllowanceRequired
                | Fact::Simulation(_)
                | Fact::Unavailable
        )
    }

    pub fn reason(&self) -> Reason {
        Reason::new(self.code(), self.fault())
    }
}
