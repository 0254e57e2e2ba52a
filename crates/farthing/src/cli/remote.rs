//! Who pays, as the commands that buy find it: the wallet in this process, or one in another.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use farthing_guard::{Dial, RemoteAuthorizer, TlsDial, TlsFiles, UnixDial};
use farthing_wallet::{Authorizer, Books, ChainView, LocalAuthorizer};
use zeroize::Zeroizing;

use super::Failure;
use super::payer::authorizer;
use super::wallet::{home, views, views_by};

/// The longest file that a token is read from, in bytes.
const MAX_TOKEN_BYTES: usize = 4 * 1024;

// No doc comment: clap would make it the description of every command that has these.
#[derive(Debug, Args)]
pub struct RemoteArgs {
    /// A guard to ask instead of the wallet in $FARTHING_HOME, with the token in $FARTHING_TOKEN or
    /// $FARTHING_TOKEN_FILE: unix:/run/farthing/wallet.sock, or tls://guard.example:8405 with the files that
    /// $FARTHING_WALLET_CERT, $FARTHING_WALLET_KEY and $FARTHING_WALLET_CA name
    #[arg(long, value_name = "ADDRESS", env = "FARTHING_WALLET")]
    wallet: Option<String>,
}

/// The files of this machine's certificate, and of the authority of the guard's.
fn tls_files() -> Result<TlsFiles, Failure> {
    let file = |name: &str| {
        let set = std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        set.ok_or_else(|| Failure::usage(format!("a guard over TLS needs the file that {name} names")))
    };
    Ok(TlsFiles {
        cert: file("FARTHING_WALLET_CERT")?,
        key: file("FARTHING_WALLET_KEY")?,
        ca: file("FARTHING_WALLET_CA")?,
    })
}

impl RemoteArgs {
    /// Connects to the guard that is named; `None` if none is.
    pub async fn connect(&self) -> Result<Option<RemoteAuthorizer>, Failure> {
        let Some(address) = self.wallet.as_deref().filter(|address| !address.is_empty()) else {
            return Ok(None);
        };
        let dial: Arc<dyn Dial> = match address.split_once(':') {
            Some(("unix", path)) if path.starts_with('/') => Arc::new(UnixDial(PathBuf::from(path))),
            Some(("tls", rest)) if rest.starts_with("//") => {
                let dial = TlsDial::new(rest.trim_start_matches('/').trim_end_matches('/'), &tls_files()?);
                Arc::new(dial.map_err(|error| Failure::usage(format!("{address}: {error}")))?)
            }
            _ => {
                return Err(Failure::usage(
                    "a wallet is named by where its guard listens: unix:/run/farthing/wallet.sock, or \
                     tls://guard.example:8405",
                ));
            }
        };
        let token = token()?;
        let connected = RemoteAuthorizer::connect(dial, Some(&token)).await;
        connected.map(Some).map_err(|error| Failure::failed(format!("{address}: {error}")))
    }
}

/// Who pays, and what it can ask about.
pub struct Buyer {
    pub authorizer: Arc<dyn Authorizer>,
    pub books: Arc<dyn Books>,
    pub views: Vec<Arc<dyn ChainView>>,
    /// The wallet itself, if it is in this process.
    pub local: Option<LocalAuthorizer>,
}

/// How a command that buys was called.
pub struct Ways<'a> {
    pub remote: &'a RemoteArgs,
    pub pay_with: Option<&'a String>,
    pub password_file: Option<&'a PathBuf>,
    pub rpc: &'a [String],
}

impl Ways<'_> {
    /// The guard that is named, else the wallet in its home, with the key that is named or its default.
    pub async fn buyer(&self) -> Result<Buyer, Failure> {
        if let Some(remote) = self.remote.connect().await? {
            let remote = Arc::new(remote);
            // The guard asks chains of its own; what is named here is asked for this process's own settlements besides.
            let views = views_by(self.rpc).await?;
            return Ok(Buyer { authorizer: remote.clone(), books: remote, views, local: None });
        }
        let home = home()?;
        let journal = Arc::new(home.journal()?);
        let local = authorizer(&home, &journal, self.pay_with, self.password_file).await?;
        let views = views(&journal, self.rpc).await?;
        let shared = Arc::new(local.clone());
        Ok(Buyer { authorizer: shared.clone(), books: shared, views, local: Some(local) })
    }
}

/// What this agent shows.
fn token() -> Result<String, Failure> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(token) = set("FARTHING_TOKEN") {
        return Ok(token);
    }
    let path = set("FARTHING_TOKEN_FILE").ok_or_else(|| {
        Failure::usage(
            "an agent shows its token: set FARTHING_TOKEN, or FARTHING_TOKEN_FILE to the file with it",
        )
    })?;
    Ok(first_line(path.as_ref(), MAX_TOKEN_BYTES)?.to_string())
}

/// The first line of a file with a secret, of so many bytes at most.
pub(super) fn first_line(path: &Path, most: usize) -> Result<Zeroizing<String>, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let mut text = Zeroizing::new(String::new());
    let file = std::fs::File::open(path).map_err(failed)?;
    std::io::Read::read_to_string(&mut std::io::Read::take(file, most as u64), &mut text).map_err(failed)?;
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().trim().to_owned()))
}
