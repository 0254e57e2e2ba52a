//! A look at an allowance vault on a chain.

use farthing_engine::{Chain, ChainError, Tag};
use farthing_evm::vault::{self, Limits, State, TokenState};
use farthing_evm::{Bytes, Read, ReadKind, abi, from_alloy, keccak256, to_alloy};
use farthing_primitives::{Address, Timestamp};

/// Why a vault cannot be told of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LookError {
    #[error("no contract is at {0}")]
    Nothing(Address),
    #[error("what is at {0} is no allowance vault: its code is another")]
    OtherCode(Address),
    #[error("the vault at {0} answered what cannot be read")]
    Unreadable(Address),
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// A vault at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultSight {
    pub vault: Address,
    pub state: State,
    pub tokens: Vec<TokenSight>,
    /// The newest block's.
    pub time: Timestamp,
}

/// One token of a vault at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenSight {
    pub token: Address,
    pub state: TokenState,
    /// What the vault holds, in atoms.
    pub float: u128,
    /// What the hot wallet holds, in atoms.
    pub hot: u128,
}

impl VaultSight {
    pub fn token(&self, token: &Address) -> Option<&TokenSight> {
        self.tokens.iter().find(|sight| sight.token == *token)
    }

    /// What a token's limits are; none is nothing.
    pub fn limits(&self, token: &Address) -> Limits {
        self.token(token).map(|sight| sight.state.limits).unwrap_or_default()
    }
}

/// Looks at the vault there, whose code must be the one that is known: an address alone says nothing.
///
/// # Errors
/// [`LookError`].
pub async fn look(chain: &dyn Chain, at: &Address) -> Result<VaultSight, LookError> {
    let code = chain.code(at).await?;
    if code.is_empty() {
        return Err(LookError::Nothing(at.clone()));
    }
    if keccak256(&code) != vault::CODE_HASH {
        return Err(LookError::OtherCode(at.clone()));
    }
    let unreadable = || LookError::Unreadable(at.clone());
    let to = to_alloy(at).ok_or_else(unreadable)?;
    let head = chain.head(Tag::Latest).await?.ok_or_else(unreadable)?;
    // All of it at one block, so that the figures belong together.
    let block = Tag::Number(head.number);
    let ask = async |reads: Vec<Read>| -> Result<Vec<Bytes>, LookError> {
        let wanted = reads.len();
        let answers = chain.read_at(reads, block).await?;
        let answers: Option<Vec<Bytes>> = answers.iter().map(|answer| answer.returned().cloned()).collect();
        answers.filter(|answers| answers.len() == wanted).ok_or_else(unreadable)
    };
    let view = |to, data| Read { to, data, kind: ReadKind::View };
    let answers = ask(vault::state_reads().into_iter().map(|data| view(to, data)).collect()).await?;
    let state = vault::as_state(&answers).ok_or_else(unreadable)?;
    let mut reads = Vec::new();
    for token in &state.tokens {
        reads.extend(vault::token_reads(*token).into_iter().map(|data| view(to, data)));
        reads.push(view(*token, abi::balance_of(to)));
        reads.push(view(*token, abi::balance_of(state.hot_wallet)));
    }
    let each = vault::token_reads(to).len() + 2;
    let answers = ask(reads).await?;
    let tokens: Option<Vec<TokenSight>> = state
        .tokens
        .iter()
        .zip(answers.chunks(each))
        .map(|(token, answers)| {
            let (own, balances) = answers.split_at_checked(each - 2)?;
            let balance = |answer: &Bytes| u128::try_from(abi::as_uint(answer)?).ok();
            Some(TokenSight {
                token: from_alloy(*token),
                state: vault::as_token_state(own)?,
                float: balance(balances.first()?)?,
                hot: balance(balances.get(1)?)?,
            })
        })
        .collect();
    let tokens = tokens.ok_or_else(unreadable)?;
    Ok(VaultSight { vault: at.clone(), state, tokens, time: head.timestamp })
}
