//! A guard's socket on this machine: who may reach it is a matter of its folder, and who is at the other end one of the
//! kernel's word.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use crate::guard::Guard;
use crate::protocol::Refusal;
use crate::serve::{Peer, serve};

/// How many connections there may be at once.
pub const MAX_CONNECTIONS: usize = 1_024;

/// What others may do in the socket's folder: pass through it, if they are of its group. Nobody but its owner may put
/// another socket there.
const FOLDER_MODES: [u32; 2] = [0o700, 0o710];

/// What they may do with the socket itself: whoever may pass may connect.
const SOCKET_MODE: u32 = 0o666;

#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(
        "{0} has to have a folder of its own with the mode 700 or 710, so that nobody else puts a socket there"
    )]
    Folder(PathBuf),
    #[error("another guard listens at {0}")]
    Taken(PathBuf),
    #[error("{0} is something else than a socket")]
    NotASocket(PathBuf),
}

/// A socket that agents connect to. It is gone from the disk when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    own_uid: u32,
    /// Clients of the guard's own user are let in too.
    dev: bool,
}

impl Socket {
    /// Listens at `path`. Its folder is made if there is none, for its owner alone.
    ///
    /// `dev` lets clients of the same user in, which could as well read the keys themselves.
    pub async fn bind(path: &Path, dev: bool) -> Result<Self, SocketError> {
        let (listener, own_uid) = Self::listen(path, SOCKET_MODE).await?;
        Ok(Self { listener, path: path.to_owned(), own_uid, dev })
    }

    /// A new socket with that mode in a folder that is safe, and whose it is.
    pub(crate) async fn listen(path: &Path, mode: u32) -> Result<(UnixListener, u32), SocketError> {
        let failed = |error| SocketError::Io { path: path.to_owned(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.ok_or_else(|| SocketError::Folder(path.to_owned()))?;
        if !folder.exists() {
            fs::create_dir_all(folder).map_err(failed)?;
            fs::set_permissions(folder, fs::Permissions::from_mode(FOLDER_MODES[0])).map_err(failed)?;
        }
        let is = fs::metadata(folder).map_err(failed)?;
        if !FOLDER_MODES.contains(&(is.mode() & 0o7777)) {
            return Err(SocketError::Folder(path.to_owned()));
        }
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(SocketError::NotASocket(path.to_owned()));
            }
            // One that nobody listens at was left behind.
            Ok(_) if UnixStream::connect(path).await.is_ok() => {
                return Err(SocketError::Taken(path.to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(_) => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
        // Who made the socket is who we are.
        let own_uid = fs::symlink_metadata(path).map_err(failed)?.uid();
        Ok((listener, own_uid))
    }

    /// Serves whoever connects, until `stop` is done.
    pub async fn serve(&self, guard: &Guard, stop: impl Future<Output = ()>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut stop = std::pin::pin!(stop);
        loop {
            let (stream, _) = tokio::select! {
                () = &mut stop => return,
                accepted = self.listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        // Out of files, most likely: whoever goes frees some.
                        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            // Beyond the bound nobody waits: a front asks again.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let Ok(peer) = stream.peer_cred() else { continue };
            if peer.uid() == self.own_uid && !self.dev {
                tokio::spawn(async move {
                    turn_away(stream).await;
                    drop(place);
                });
                continue;
            }
            let guard = guard.clone();
            let peer = Peer { key: format!("uid:{}", peer.uid()), certificate: None };
            tokio::spawn(async move {
                serve(guard, stream, peer).await;
                drop(place);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

async fn turn_away(mut stream: UnixStream) {
    let refusal = Refusal::new(
        "same_user",
        "the guard runs as the same user, which could read its keys: run it as another, or with --dev to try it out",
    );
    let line = serde_json::json!({ "id": null, "error": refusal });
    let _ = stream.write_all(format!("{line}\n").as_bytes()).await;
    let _ = stream.shutdown().await;
}
