//! A socket for the owner alone, by which a freeze, or the end of an agent's token, comes into the process that signs:
//! there it waits for no other process to leave the books.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use farthing_policy::AgentName;
use farthing_wallet::journal::agents::AgentError;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};

use crate::guard::Guard;
use crate::socket::{Socket, SocketError};
use crate::stop::{Whom, WhomRecord};

/// The longest line, in bytes.
const MAX_BYTES: u64 = 4 * 1024;

/// How long either side waits for the other.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the owner asks for: one of the two.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    freeze: Option<WhomRecord>,
    /// An agent, whose tokens and certificates are to be worth nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    revoke: Option<String>,
}

/// What came of it. What is not said was not done.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    #[serde(default)]
    frozen: bool,
    #[serde(default)]
    revoked: bool,
    /// No agent of that name has anything to show.
    #[serde(default)]
    unknown: bool,
}

/// What a guard made of a wish to revoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// The guard did it: whatever it is asked for from now on, it has forgotten the agent's tokens.
    Done,
    /// There is no such agent, or it was revoked before.
    Unknown,
    /// No guard answered, or it could not: whoever asks has to do it.
    NotDone,
}

/// Where an owner freezes and revokes. It is gone from the disk when this is dropped.
#[derive(Debug)]
pub struct OwnerSocket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
}

impl OwnerSocket {
    /// Listens at `path`, whose folder only the guard's own user may enter.
    ///
    /// # Errors
    /// [`SocketError`] if that cannot be done.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let (listener, own_uid) = Socket::listen(path, OWNER_MODE).await?;
        Ok(Self { listener, path: path.to_owned(), own_uid })
    }

    /// Freezes and revokes for whoever connects and is the guard's own user, or root; for ever.
    pub async fn serve(&self, guard: &Guard) {
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let is_owner = stream.peer_cred().is_ok_and(|peer| peer.uid() == self.own_uid || peer.uid() == 0);
            if is_owner {
                let guard = guard.clone();
                tokio::spawn(async move { tokio::time::timeout(PATIENCE, answer(&guard, stream)).await });
            }
        }
    }
}

/// What others than its owner may do with the socket: nothing.
const OWNER_MODE: u32 = 0o600;

impl Drop for OwnerSocket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn answer(guard: &Guard, mut stream: UnixStream) -> io::Result<()> {
    let (from, mut to) = stream.split();
    let mut line = String::new();
    BufReader::new(from.take(MAX_BYTES)).read_line(&mut line).await?;
    let done = match serde_json::from_str::<Wish>(&line) {
        Ok(Wish { freeze: Some(whom), revoke: None }) => match whom.read() {
            Some(whom) => Done { frozen: guard.freeze(whom).await.is_ok(), ..Done::default() },
            None => Done::default(),
        },
        Ok(Wish { freeze: None, revoke: Some(name) }) => match name.parse::<AgentName>() {
            Ok(name) => match guard.revoke(name).await {
                Ok(()) => Done { revoked: true, ..Done::default() },
                Err(error) => Done { unknown: matches!(error, AgentError::Unknown(_)), ..Done::default() },
            },
            Err(_) => Done::default(),
        },
        _ => Done::default(),
    };
    let mut said = serde_json::to_vec(&done)?;
    said.push(b'\n');
    to.write_all(&said).await?;
    to.shutdown().await
}

/// Has the guard freeze that listens at `path`. Returns whether it did; if not, whoever asks has to do it.
pub async fn freeze_at(path: &Path, whom: &Whom) -> bool {
    let wish = Wish { freeze: Some(WhomRecord::of(whom)), revoke: None };
    ask(path, &wish).await.is_some_and(|done| done.frozen)
}

/// Has the guard that listens at `path` take an agent's tokens and certificates from it. It holds once this returns, also
/// on connections that are open.
pub async fn revoke_at(path: &Path, agent: &AgentName) -> Revocation {
    let wish = Wish { freeze: None, revoke: Some(agent.to_string()) };
    match ask(path, &wish).await {
        Some(Done { revoked: true, .. }) => Revocation::Done,
        Some(Done { unknown: true, .. }) => Revocation::Unknown,
        _ => Revocation::NotDone,
    }
}

/// `None` if nobody answers in time, or not in our words.
async fn ask(path: &Path, wish: &Wish) -> Option<Done> {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(wish)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut said = String::new();
        stream.take(MAX_BYTES).read_to_string(&mut said).await?;
        Ok::<_, io::Error>(serde_json::from_str::<Done>(&said)?)
    };
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()
}
