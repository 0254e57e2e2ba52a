//! Signatures of smart wallets: those that do not exist yet (ERC-6492), and accounts with delegated code (EIP-7702).

use alloy_primitives::{Address, B256, Bytes, b256};

use crate::abi::as_len;

/// What an ERC-6492 signature ends in.
const MAGIC: B256 = b256!("6492649264926492649264926492649264926492649264926492649264926492");

/// The longest signature that we look at, wrapped or not, in bytes. A passkey's signature through a wallet factory
/// takes about two thousand.
pub const MAX_SIGNATURE_LEN: usize = 8192;

/// What the code of an account that delegates to a contract starts with.
///
/// Spec: EIP-7702.
const DELEGATION_PREFIX: [u8; 3] = [0xef, 0x01, 0x00];

/// A signature that says how to deploy the wallet that will accept it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// Whom to call so that the wallet comes to exist.
    pub factory: Address,
    pub factory_data: Bytes,
    /// What the wallet itself is shown.
    pub signature: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    #[error("the signature has {0} bytes, more than the {MAX_SIGNATURE_LEN} that are read")]
    TooLong(usize),
    #[error("the signature ends as a wrapped one does, but does not decode")]
    Malformed,
}

/// Takes apart a signature for a wallet that may not be deployed; `None` if it is not wrapped.
///
/// Spec: ERC-6492: `abi.encode(address factory, bytes factoryCalldata, bytes signature) ‖ magic`.
///
/// # Errors
/// [`WrapError`]; nothing is read outside of the bytes given, and nothing longer than they are is allocated.
pub fn unwrap_erc6492(signature: &[u8]) -> Result<Option<Wrapped>, WrapError> {
    if signature.len() > MAX_SIGNATURE_LEN {
        return Err(WrapError::TooLong(signature.len()));
    }
    let Some(body) = signature.strip_suffix(MAGIC.as_slice()) else { return Ok(None) };
    let head = body.get(..96).ok_or(WrapError::Malformed)?;
    let factory = word_as_address(&head[..32]).ok_or(WrapError::Malformed)?;
    let factory_data = tail(body, &head[32..64])?;
    let inner = tail(body, &head[64..96])?;
    // A wrapper in a wrapper has no meaning, and would let one payload be read in two ways.
    if inner.ends_with(MAGIC.as_slice()) {
        return Err(WrapError::Malformed);
    }
    Ok(Some(Wrapped {
        factory,
        factory_data: Bytes::copy_from_slice(factory_data),
        signature: Bytes::copy_from_slice(inner),
    }))
}

/// The opposite of [`unwrap_erc6492`].
pub fn wrap_erc6492(wrapped: &Wrapped) -> Bytes {
    let mut bytes = crate::abi::encode_wrapped(wrapped);
    bytes.extend_from_slice(MAGIC.as_slice());
    bytes.into()
}

/// To which contract an account has delegated, if this is the code of such an account.
pub fn delegation(code: &[u8]) -> Option<Address> {
    let rest = code.strip_prefix(&DELEGATION_PREFIX)?;
    (rest.len() == 20).then(|| Address::from_slice(rest))
}

fn word_as_address(word: &[u8]) -> Option<Address> {
    let (high, low) = word.split_at_checked(12)?;
    high.iter().all(|byte| *byte == 0).then(|| Address::from_slice(low))
}

/// The bytes at the offset that `word` holds.
fn tail<'a>(body: &'a [u8], word: &[u8]) -> Result<&'a [u8], WrapError> {
    let find = || {
        let start = as_len(word)?;
        let data = start.checked_add(32)?;
        let len = as_len(body.get(start..data)?)?;
        body.get(data..data.checked_add(len)?)
    };
    find().ok_or(WrapError::Malformed)
}
