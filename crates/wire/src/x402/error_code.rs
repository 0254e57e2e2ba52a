//! The codes by which x402 peers say why a payment did not go through.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

/// The longest code of a peer's that we keep, in bytes. The longest one in use has 86.
pub const MAX_CODE_BYTES: usize = 128;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a payment was refused, or is not settled yet.
        ///
        /// Spec: x402 v2 section 9, and what the published packages say beyond it.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)*
            /// What a peer said that has no name here, cut to [`MAX_CODE_BYTES`].
            Other(Box<str>),
        }

        impl ErrorCode {
            /// Every code that has a name here.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$name,)*];

            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(text) => text,
                }
            }

            fn named(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    // The list of the specification.
    InsufficientFunds = "insufficient_funds",
    InvalidNetwork = "invalid_network",
    InvalidPayload = "invalid_payload",
    InvalidPaymentRequirements = "invalid_payment_requirements",
    InvalidScheme = "invalid_scheme",
    UnsupportedScheme = "unsupported_scheme",
    InvalidX402Version = "invalid_x402_version",
    InvalidTransactionState = "invalid_transaction_state",
    UnexpectedVerifyError = "unexpected_verify_error",
    UnexpectedSettleError = "unexpected_settle_error",
    InvalidExactEvmPayloadSignature = "invalid_exact_evm_payload_signature",
    InvalidExactEvmPayloadRecipientMismatch = "invalid_exact_evm_payload_recipient_mismatch",
    InvalidExactEvmPayloadAuthorizationValidAfter = "invalid_exact_evm_payload_authorization_valid_after",
    InvalidExactEvmPayloadAuthorizationValidBefore = "invalid_exact_evm_payload_authorization_valid_before",
    InvalidExactEvmPayloadAuthorizationValueMismatch = "invalid_exact_evm_payload_authorization_value_mismatch",

    /// Sent, and not known to be included. Not a failure: ask again with the same payment.
    SettlementPending = "settlement_pending",

    // What version 1 packages say.
    InvalidExactEvmPayloadAuthorizationValue = "invalid_exact_evm_payload_authorization_value",
    InvalidExactEvmPayloadUndeployedSmartWallet = "invalid_exact_evm_payload_undeployed_smart_wallet",
    InvalidPayment = "invalid_payment",
    PaymentExpired = "payment_expired",
    DuplicateSettlement = "duplicate_settlement",

    // Scheme `exact` on EVM, by EIP-3009.
    InvalidExactEvmScheme = "invalid_exact_evm_scheme",
    InvalidExactEvmNetworkMismatch = "invalid_exact_evm_network_mismatch",
    InvalidExactEvmMissingEip712Domain = "invalid_exact_evm_missing_eip712_domain",
    InvalidExactEvmSignature = "invalid_exact_evm_signature",
    InvalidExactEvmFailedToParseSignature = "invalid_exact_evm_failed_to_parse_signature",
    InvalidExactEvmRecipientMismatch = "invalid_exact_evm_recipient_mismatch",
    InvalidExactEvmAuthorizationValue = "invalid_exact_evm_authorization_value",
    InvalidExactEvmNonceAlreadyUsed = "invalid_exact_evm_nonce_already_used",
    InvalidExactEvmInsufficientBalance = "invalid_exact_evm_insufficient_balance",
    InvalidExactEvmTokenNameMismatch = "invalid_exact_evm_token_name_mismatch",
    InvalidExactEvmTokenVersionMismatch = "invalid_exact_evm_token_version_mismatch",
    InvalidExactEvmEip3009NotSupported = "invalid_exact_evm_eip3009_not_supported",
    InvalidExactEvmTransactionSimulationFailed = "invalid_exact_evm_transaction_simulation_failed",
    InvalidExactEvmTransactionFailed = "invalid_exact_evm_transaction_failed",
    InvalidExactEvmTransferEventMismatch = "invalid_exact_evm_transfer_event_mismatch",
    AssetNotDeployedContract = "asset_not_deployed_contract",
    Eip6492FactoryNotAllowed = "eip6492_factory_not_allowed",
    SmartWalletDeploymentFailed = "smart_wallet_deployment_failed",
    UnsupportedPayloadType = "unsupported_payload_type",
    UnsupportedAssetTransferMethod = "unsupported_asset_transfer_method",
    UnsupportedPaymentFlow = "unsupported_payment_flow",

    // Scheme `exact` on EVM, by Permit2.
    InvalidPermit2Spender = "invalid_permit2_spender",
    InvalidPermit2RecipientMismatch = "invalid_permit2_recipient_mismatch",
    InvalidPermit2Signature = "invalid_permit2_signature",
    Permit2DeadlineExpired = "permit2_deadline_expired",
    Permit2NotYetValid = "permit2_not_yet_valid",
    Permit2AmountMismatch = "permit2_amount_mismatch",
    Permit2TokenMismatch = "permit2_token_mismatch",
    /// The one code that goes with HTTP status 412: the payer must approve Permit2 first.
    Permit2AllowanceRequired = "permit2_allowance_required",
    Permit2SimulationFailed = "permit2_simulation_failed",
    Permit2InsufficientBalance = "permit2_insufficient_balance",
    Permit2ProxyNotDeployed = "permit2_proxy_not_deployed",
    Permit2InvalidNonce = "permit2_invalid_nonce",
    Permit2InvalidAmount = "permit2_invalid_amount",
    Permit2InvalidDestination = "permit2_invalid_destination",
    Permit2InvalidOwner = "permit2_invalid_owner",
    Permit2PaymentTooEarly = "permit2_payment_too_early",
    Permit22612AmountMismatch = "permit2_2612_amount_mismatch",

    // Sponsored approvals.
    InvalidEip2612ExtensionFormat = "invalid_eip2612_extension_format",
    Eip2612FromMismatch = "eip2612_from_mismatch",
    Eip2612AssetMismatch = "eip2612_asset_mismatch",
    Eip2612SpenderNotPermit2 = "eip2612_spender_not_permit2",
    Eip2612DeadlineExpired = "eip2612_deadline_expired",
    InvalidErc20ApprovalExtensionFormat = "invalid_erc20_approval_extension_format",
    Erc20ApprovalFromMismatch = "erc20_approval_from_mismatch",
    Erc20ApprovalAssetMismatch = "erc20_approval_asset_mismatch",
    Erc20ApprovalSpenderNotPermit2 = "erc20_approval_spender_not_permit2",
    Erc20ApprovalTxWrongTarget = "erc20_approval_tx_wrong_target",
    Erc20ApprovalTxWrongSelector = "erc20_approval_tx_wrong_selector",
    Erc20ApprovalTxWrongSpender = "erc20_approval_tx_wrong_spender",
    Erc20ApprovalTxInvalidCalldata = "erc20_approval_tx_invalid_calldata",
    Erc20ApprovalTxSignerMismatch = "erc20_approval_tx_signer_mismatch",
    Erc20ApprovalTxInvalidSignature = "erc20_approval_tx_invalid_signature",
    Erc20ApprovalTxParseFailed = "erc20_approval_tx_parse_failed",
    Erc20ApprovalTxFailed = "erc20_approval_tx_failed",
    Erc20ApprovalBroadcastFailed = "erc20_approval_broadcast_failed",

    // Scheme `upto` on EVM.
    InvalidUptoEvmScheme = "invalid_upto_evm_scheme",
    InvalidUptoEvmNetworkMismatch = "invalid_upto_evm_network_mismatch",
    InvalidUptoEvmTransactionFailed = "invalid_upto_evm_transaction_failed",
    InvalidUptoEvmPayloadSettlementExceedsAmount = "invalid_upto_evm_payload_settlement_exceeds_amount",
    UptoFacilitatorMismatch = "upto_facilitator_mismatch",
    UptoUnauthorizedFacilitator = "upto_unauthorized_facilitator",
    UptoAmountExceedsPermitted = "upto_amount_exceeds_permitted",

    // Between client and server.
    ExtensionEchoMismatch = "extension_echo_mismatch",
}

impl From<&str> for ErrorCode {
    fn from(text: &str) -> Self {
        Self::named(text).unwrap_or_else(|| {
            let mut end = text.len().min(MAX_CODE_BYTES);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            Self::Other(text[..end].into())
        })
    }
}

impl From<String> for ErrorCode {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl FromStr for ErrorCode {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::from(text))
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
