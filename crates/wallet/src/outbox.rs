//! One transaction of an account on a chain at a time, written down before anybody sees it.
//!
//! A process that ends in between leaves the signed bytes behind. The next command of the same account finds them, and
//! asks the chain what became of them before it signs another: the same command run again is the same transaction.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use farthing_engine::{ChainError, Fees, Receipt, SignedTx, TxHash, World};
use farthing_evm::keccak256;
use farthing_primitives::{Address, Network};
use serde::{Deserialize, Serialize};

use crate::client::tx_hash;
use crate::keystore::{create_private_dir, write_new};
use crate::transact::{ContractCall, Fate, Prepared, Sender, TransactError};

/// The longest file that is read: a transaction that makes a contract is some 20 kB of hex.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// How often a transaction is made anew whose number another one used.
const MAX_ROUNDS: usize = 3;

/// How long to wait between looks at the chain.
const PAUSE: Duration = Duration::from_millis(200);

/// Why a transaction did not go through, or cannot be told to have.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    #[error(transparent)]
    Transact(#[from] TransactError),
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("{tx} did nothing and never will: run the same command again")]
    Failed { tx: TxHash },
    #[error("{tx} is sent, and in no block yet: run the same command again")]
    Pending { tx: TxHash },
    #[error(
        "{tx} ({what}) was sent before by the same key, and is in no block yet: wait for it, or run that command again"
    )]
    Busy { tx: TxHash, what: String },
    #[error("another process sends a transaction by this key just now")]
    Taken,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is no transaction of ours")]
    Corrupt { path: PathBuf },
}

/// Whether a transaction may take the place of one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    Patient,
    /// It takes the number of one that waits, for more gas: nothing may stand before a freeze.
    Now,
}

/// A transaction as it is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    version: u32,
    hash: String,
    raw: String,
    nonce: u64,
    max_fee: String,
    priority_fee: String,
    /// What a person calls it.
    what: String,
    /// Keccak-256 of the called address and the calldata.
    call: String,
}

const VERSION: u32 = 1;

impl Kept {
    fn of(prepared: &Prepared, what: &str, call: &ContractCall) -> Self {
        Self {
            version: VERSION,
            hash: prepared.signed.hash.to_string(),
            raw: hex::encode(&prepared.signed.raw),
            nonce: prepared.nonce,
            max_fee: prepared.fees.max_fee.to_string(),
            priority_fee: prepared.fees.priority_fee.to_string(),
            what: what.to_owned(),
            call: digest(call),
        }
    }

    fn signed(&self) -> Option<SignedTx> {
        Some(SignedTx { hash: tx_hash(&self.hash)?, raw: hex::decode(&self.raw).ok()?.into() })
    }

    fn fees(&self) -> Option<Fees> {
        Some(Fees { max_fee: self.max_fee.parse().ok()?, priority_fee: self.priority_fee.parse().ok()? })
    }
}

fn digest(call: &ContractCall) -> String {
    let mut bytes = call.to.as_str().to_ascii_lowercase().into_bytes();
    bytes.extend_from_slice(&call.data);
    hex::encode(keccak256(bytes))
}

/// The folder with the transactions that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox(PathBuf);

impl Outbox {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self(dir.into())
    }

    fn path(&self, network: &Network, account: &Address) -> PathBuf {
        let name = format!("{network}-{account}").to_ascii_lowercase().replace(':', "-");
        self.0.join(format!("{name}.json"))
    }

    fn read(path: &Path) -> Result<Option<(Kept, SignedTx)>, OutboxError> {
        let file = match fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(path)(error)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).map_err(io_error(path))?;
        let corrupt = || OutboxError::Corrupt { path: path.to_owned() };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| corrupt())?;
        if kept.version != VERSION {
            return Err(corrupt());
        }
        let signed = kept.signed().ok_or_else(corrupt)?;
        Ok(Some((kept, signed)))
    }

    fn write(&self, path: &Path, kept: &Kept) -> Result<(), OutboxError> {
        create_private_dir(&self.0).map_err(io_error(&self.0))?;
        let bytes = serde_json::to_vec(kept).map_err(|error| io_error(path)(error.into()))?;
        match write_new(path, &bytes) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(OutboxError::Taken),
            written => written.map_err(io_error(path)),
        }
    }

    /// Puts another transaction in the place of one that waits. At any moment one of them is there.
    fn replace(&self, path: &Path, kept: &Kept) -> Result<(), OutboxError> {
        let next = path.with_extension("next");
        forget(&next)?;
        self.write(&next, kept)?;
        fs::rename(&next, path).map_err(io_error(path))?;
        fs::File::open(&self.0).and_then(|dir| dir.sync_all()).map_err(io_error(&self.0))
    }
}

fn forget(path: &Path) -> Result<(), OutboxError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path)(error)),
        _ => Ok(()),
    }
}

fn io_error(path: &Path) -> impl Fn(io::Error) -> OutboxError + '_ {
    |error| OutboxError::Io { path: path.to_owned(), error }
}

/// Sends an account's transactions, one after the other.
#[derive(Clone, Copy)]
pub struct Desk<'a> {
    pub outbox: &'a Outbox,
    pub sender: Sender<'a>,
    pub world: &'a (dyn World + 'static),
    /// How long a transaction is waited for.
    pub patience: Duration,
}

impl std::fmt::Debug for Desk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Desk of {:?}", self.sender)
    }
}

impl Desk<'_> {
    /// Makes a call and waits for its block. The same call that an earlier process has sent, and not seen in a block, is
    /// not made a second time.
    ///
    /// # Errors
    /// [`OutboxError`]. After [`OutboxError::Pending`] the transaction may still come.
    pub async fn send(
        &self,
        what: &str,
        call: &ContractCall,
        urgency: Urgency,
    ) -> Result<Receipt, OutboxError> {
        let path = self.outbox.path(self.sender.chain.network(), &self.sender.key.address());
        for _ in 0..MAX_ROUNDS {
            let mut instead = None;
            if let Some((kept, signed)) = Outbox::read(&path)? {
                let same = kept.call == digest(call);
                let patience = if urgency == Urgency::Now && !same { Duration::ZERO } else { self.patience };
                match self.wait(&path, &signed, kept.nonce, patience).await? {
                    Fate::Done(receipt) if same => return Ok(receipt),
                    Fate::Done(_) | Fate::Failed => {}
                    Fate::Sent if same => return Err(OutboxError::Pending { tx: signed.hash }),
                    Fate::Sent if urgency == Urgency::Now => instead = Some(kept),
                    Fate::Sent => return Err(OutboxError::Busy { tx: signed.hash, what: kept.what }),
                }
            }
            let prepared = match &instead {
                None => self.sender.prepare(call).await?,
                Some(kept) => {
                    let waiting = kept.fees().ok_or_else(|| OutboxError::Corrupt { path: path.clone() })?;
                    let asked = self.sender.chain.fees().await?;
                    self.sender.prepare_as(call, kept.nonce, above(asked, waiting)).await?
                }
            };
            let written = Kept::of(&prepared, what, call);
            // INVARIANT: durable before anybody sees it.
            match instead {
                None => self.outbox.write(&path, &written)?,
                Some(_) => self.outbox.replace(&path, &written)?,
            }
            if let Err(error) = self.sender.broadcast(&prepared).await {
                forget(&path)?;
                return Err(error.into());
            }
            match self.wait(&path, &prepared.signed, prepared.nonce, self.patience).await? {
                Fate::Done(receipt) => return Ok(receipt),
                Fate::Sent => return Err(OutboxError::Pending { tx: prepared.signed.hash }),
                // The one whose place it was to take came first. Or it was refused in its block, and then preparing it
                // again says why.
                Fate::Failed if instead.is_some() => {}
                Fate::Failed => return Err(OutboxError::Failed { tx: prepared.signed.hash }),
            }
        }
        Err(OutboxError::Taken)
    }

    /// Waits until a transaction is in a block or never will be, and forgets it then.
    async fn wait(
        &self,
        path: &Path,
        signed: &SignedTx,
        nonce: u64,
        patience: Duration,
    ) -> Result<Fate, OutboxError> {
        let started = self.world.monotonic();
        loop {
            match self.sender.fate(signed, Some(nonce)).await? {
                Fate::Sent if self.world.monotonic().saturating_sub(started) >= patience => {
                    return Ok(Fate::Sent);
                }
                Fate::Sent => self.world.sleep(PAUSE).await,
                fate => {
                    forget(path)?;
                    return Ok(fate);
                }
            }
        }
    }
}

/// Fees that a node takes in the place of those that wait, and that are enough now: nodes ask for a tenth more, some for
/// an eighth.
fn above(asked: Fees, waiting: Fees) -> Fees {
    let more = |fee: u128| fee.saturating_add(fee / 4).saturating_add(1);
    Fees {
        max_fee: asked.max_fee.max(more(waiting.max_fee)),
        priority_fee: asked.priority_fee.max(more(waiting.priority_fee)),
    }
}
