//! A socket for the owner alone, by which a freeze comes into the process that signs: there it waits for no other
//! process to leave the books.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Freeze {
    freeze: WhomRecord,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Done {
    frozen: bool,
}

/// Where an owner freezes. It is gone from the disk when this is dropped.
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

    /// Freezes for whoever connects and is the guard's own user, or root; for ever.
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
    let whom = serde_json::from_str::<Freeze>(&line).ok().and_then(|asked| asked.freeze.read());
    let frozen = match whom {
        Some(whom) => guard.freeze(whom).await.is_ok(),
        None => false,
    };
    let mut said = serde_json::to_vec(&Done { frozen })?;
    said.push(b'\n');
    to.write_all(&said).await?;
    to.shutdown().await
}

/// Has the guard freeze that listens at `path`. Returns whether it did; if not, whoever asks has to do it.
pub async fn freeze_at(path: &Path, whom: &Whom) -> bool {
    let asked = async {
        let mut stream = UnixStream::connect(path).await?;
        let mut line = serde_json::to_vec(&Freeze { freeze: WhomRecord::of(whom) })?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut said = String::new();
        stream.take(MAX_BYTES).read_to_string(&mut said).await?;
        Ok::<_, io::Error>(serde_json::from_str::<Done>(&said)?.frozen)
    };
    matches!(tokio::time::timeout(PATIENCE, asked).await, Ok(Ok(true)))
}
