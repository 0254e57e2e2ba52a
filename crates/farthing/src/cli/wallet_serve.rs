//! `farthing wallet serve`: keys and spend state in a process of their own.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use farthing_approval::PublicKey;
use farthing_guard::socket::Socket;
use farthing_guard::{Guard, HOOK_PATH, Hook, OpenSessionKey, OwnerSocket, TlsFiles, TlsSocket, serve_hook};
use farthing_wallet::journal::Journal;
use farthing_wallet::journal::session_keys::SessionTerms;
use farthing_wallet::signer::Signer;
use farthing_wallet::{Authorizer, Home};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::payer::authorizer;
use super::remote::first_line;
use super::session_key;
use super::wallet::{home, passphrase_unasked, views};
use super::{Failure, print_ready, until_stopped};

/// Where the guard listens if nobody says, in the wallet's home.
const SOCKET: &str = "guard/wallet.sock";
/// Where the owner freezes, in the wallet's home.
pub const OWNER_SOCKET: &str = "guard/owner.sock";
/// Which messages of the webhook were obeyed, in the wallet's home.
const OBEYED: &str = "freeze-webhook.seen";
/// The longest secret of a webhook, as a file has it, in bytes.
const MAX_SECRET_BYTES: usize = 1024;
/// Held by the one guard that a wallet has, in its home.
const LOCK: &str = "guard.lock";

/// Keep keys and limits in a process of their own; agents ask it for payments over a socket
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing agent add acme/buyer                              prints its token, once
  farthing wallet serve --socket /run/farthing/wallet.sock   as a user of its own
  farthing wallet serve --dev                                to try it out, as the same user

An agent, as another user, with what it was given:
  FARTHING_WALLET=unix:/run/farthing/wallet.sock FARTHING_TOKEN=acme/buyer:… \\
    farthing fetch https://api.weather.example/tomorrow --max 0.02

The socket's folder has to have the mode 700 or 710; whoever may pass through it may connect, and needs
a token. Clients of the guard's own user are refused without --dev, since they could read its keys.
farthing freeze and farthing agent revoke hold from the moment in which they return, also on open
connections. Agents of other machines come over TLS:
  farthing wallet serve --listen-tls 0.0.0.0:8405 --cert guard.pem --cert-key guard.key --client-ca agents.pem
and a freeze from elsewhere, signed by a secret or by the owner's key, comes to --freeze-webhook.
docs/operating/wallet-guard.md says more.

Exit codes: 0 stopped as asked; 1 failed; 2 called wrongly; 6 a node does not answer.")]
pub struct ServeArgs {
    /// Where to listen; otherwise guard/wallet.sock in the wallet's home
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Listen for agents of other machines too, over TLS with certificates on both sides
    #[arg(long, value_name = "ADDRESS", requires_all = ["cert", "cert_key", "client_ca"])]
    listen_tls: Option<SocketAddr>,
    /// The guard's certificate, with those up to its authority
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    cert: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    cert_key: Option<PathBuf>,
    /// The authority that signed the certificates of agents' machines
    #[arg(long, value_name = "FILE", requires = "listen_tls")]
    client_ca: Option<PathBuf>,
    /// Take signed messages here that freeze, at /freeze
    #[arg(long, value_name = "ADDRESS")]
    freeze_webhook: Option<SocketAddr>,
    /// The file with the secret that signs them: whsec_ and base64
    #[arg(long, value_name = "FILE", requires = "freeze_webhook")]
    freeze_secret: Option<PathBuf>,
    /// The owner's key that signs them, as "farthing approver new" prints it: ed25519:…
    #[arg(long, value_name = "KEY", requires = "freeze_webhook")]
    freeze_owner: Option<PublicKey>,
    /// Let clients of the same user in, from whom nothing is safe
    #[arg(long)]
    dev: bool,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH")]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A node to ask what became of payments, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
}

pub async fn run(args: ServeArgs) -> Result<ExitCode, Failure> {
    let home = home()?;
    let journal = Arc::new(home.journal()?);
    let _alone = alone(&home.path().join(LOCK))?;
    let owner = authorizer(&home, &journal, args.pay_with.as_ref(), args.password_file.as_ref()).await?;
    let views = views(&journal, &args.rpc).await?;
    let guard = Guard::with_session_keys(&owner, views, Some(args.session_keys(&home, &journal)))
        .map_err(|error| Failure::failed(error.to_string()))?;
    let path = args.socket.clone().unwrap_or_else(|| home.path().join(SOCKET));
    let socket = Socket::bind(&path, args.dev).await.map_err(|error| Failure::failed(error.to_string()))?;
    let failed = |error: &dyn std::fmt::Display| Failure::failed(error.to_string());
    let owners = match OwnerSocket::bind(&home.path().join(OWNER_SOCKET)).await {
        Ok(owners) => Some(owners),
        // A home with a path that is too long for a socket: a freeze goes by the books then.
        Err(error) => {
            tracing::warn!(%error, "freezes wait for the books");
            None
        }
    };
    let tls = match args.tls() {
        Some((address, files)) => {
            Some(TlsSocket::bind(address, &files).await.map_err(|error| failed(&error))?)
        }
        None => None,
    };
    let hook = match args.freeze_webhook {
        Some(address) => Some((args.hook(&home)?, TcpListener::bind(address).await.map_err(|e| failed(&e))?)),
        None => None,
    };
    let mut facts = vec![("payer", owner.payer().to_string())];
    if let Some(tls) = &tls {
        facts.push(("tls", format!("tls://{}", tls.address().map_err(|error| failed(&error))?)));
    }
    if let Some((_, listener)) = &hook {
        let address = listener.local_addr().map_err(|error| failed(&error))?;
        facts.push(("freeze_webhook", format!("http://{address}{HOOK_PATH}")));
    }
    // Whatever is begun beside the socket ends with it: what is written down is whole, or not there, and whoever waits
    // for a node is not waited for.
    let mut beside = JoinSet::new();
    beside.spawn({
        let guard = guard.clone();
        async move { guard.keep_sweeping().await }
    });
    if let Some(owners) = owners {
        let guard = guard.clone();
        beside.spawn(async move { owners.serve(&guard).await });
    }
    if let Some(tls) = tls {
        let guard = guard.clone();
        beside.spawn(async move { tls.serve(&guard).await });
    }
    if let Some((hook, listener)) = hook {
        beside.spawn(serve_hook(guard.clone(), hook, listener, until_stopped()));
    }
    let facts: Vec<_> = facts.iter().map(|(name, fact)| (*name, fact.as_str())).collect();
    print_ready("guard", &format!("unix:{}", path.display()), &facts);
    socket.serve(&guard, until_stopped()).await;
    guard.stop();
    beside.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

impl ServeArgs {
    /// Opens session keys as agents come that pay with them: by the passphrase that is in a file, the environment or the
    /// keyring, since nobody is asked then.
    fn session_keys(&self, home: &Home, journal: &Arc<Journal>) -> OpenSessionKey {
        let (home, journal, file) = (home.clone(), journal.clone(), self.password_file.clone());
        Arc::new(move |terms: &SessionTerms| -> Result<Arc<dyn Signer>, String> {
            let key = session_key::open(&home, &journal, &terms.name, || passphrase_unasked(file.as_ref()));
            Ok(Arc::new(key.map_err(|failure| failure.message)?))
        })
    }

    fn tls(&self) -> Option<(SocketAddr, TlsFiles)> {
        let (cert, key, ca) = (self.cert.clone()?, self.cert_key.clone()?, self.client_ca.clone()?);
        Some((self.listen_tls?, TlsFiles { cert, key, ca }))
    }

    fn hook(&self, home: &Home) -> Result<Hook, Failure> {
        let secret =
            self.freeze_secret.as_deref().map(|path| first_line(path, MAX_SECRET_BYTES)).transpose()?;
        let hook =
            Hook::open(secret.as_deref().map(String::as_str), self.freeze_owner, &home.path().join(OBEYED));
        hook.map_err(|error| Failure::usage(format!("--freeze-webhook: {error}")))
    }
}

/// Makes sure that no other guard serves this wallet: each would take the other's fronts for gone.
fn alone(path: &Path) -> Result<File, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Failure::failed("another guard serves this wallet already")),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
