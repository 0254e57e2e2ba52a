//! The same protocol between machines: TLS 1.3 with certificates on both sides, and the token besides. A certificate says
//! which machines may ask at all, the token which agent it is that asks.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use farthing_listener::network_of;
use farthing_wallet::journal::agents::Credential;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::{Dial, Stream};
use crate::guard::Guard;
use crate::protocol::HELLO_PATIENCE;
use crate::serve::{Peer, serve};
use crate::socket::MAX_CONNECTIONS;

/// How many handshakes go on at once, of all and of one peer: an IPv4 address or an IPv6 /64.
pub const MAX_STRANGERS: usize = 256;
pub const MAX_STRANGERS_PER_NETWORK: usize = 32;

/// Why a side of a connection cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{file}: {why}")]
    File { file: PathBuf, why: String },
    #[error("{0} is no host and port, as in guard.example:8405")]
    Address(String),
    #[error("{address}: {error}")]
    Io { address: SocketAddr, error: io::Error },
    #[error("the certificates do not fit: {0}")]
    Setup(String),
}

/// Files of one side, each PEM: its certificates, the key of the first of them, and whom it believes.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The authorities of the other side; none but these.
    pub ca: PathBuf,
}

/// What the files hold.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    others: Arc<RootCertStore>,
}

impl TlsFiles {
    fn read(&self) -> Result<Identity, TlsError> {
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|error| wrong(&self.key, &error))?;
        let mut others = RootCertStore::empty();
        for authority in certificates(&self.ca)? {
            others.add(authority).map_err(|error| wrong(&self.ca, &error))?;
        }
        Ok(Identity { chain: certificates(&self.cert)?, key, others: Arc::new(others) })
    }
}

fn wrong(file: &Path, why: &dyn fmt::Display) -> TlsError {
    TlsError::File { file: file.to_owned(), why: why.to_string() }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_file_iter(file).and_then(|all| all.collect::<Result<Vec<_>, _>>());
    let all = all.map_err(|error| wrong(file, &error))?;
    if all.is_empty() { Err(wrong(file, &"holds no certificate")) } else { Ok(all) }
}

fn setup(error: impl fmt::Display) -> TlsError {
    TlsError::Setup(error.to_string())
}

/// An address that agents of other machines connect to.
pub struct TlsSocket {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("listener", &self.listener).finish_non_exhaustive()
    }
}

impl TlsSocket {
    /// # Errors
    /// [`TlsError`] if the files or the address cannot be used.
    pub async fn bind(address: SocketAddr, files: &TlsFiles) -> Result<Self, TlsError> {
        let Identity { chain, key, others } = files.read()?;
        let provider = Arc::new(ring::default_provider());
        // Nobody is let in without a certificate.
        let verifier = WebPkiClientVerifier::builder_with_provider(others, provider.clone()).build();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(setup)?
            .with_client_cert_verifier(verifier.map_err(setup)?)
            .with_single_cert(chain, key)
            .map_err(setup)?;
        let listener = TcpListener::bind(address).await.map_err(|error| TlsError::Io { address, error })?;
        Ok(Self { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves whoever connects with a certificate of ours; for ever.
    pub async fn serve(&self, guard: &Guard) {
        let (places, strangers) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), Strangers::default());
        loop {
            let (stream, from) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of files, most likely: whoever goes frees some.
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Beyond the bounds nobody waits: a front asks again.
            let Some(stranger) = strangers.enter(from.ip()) else { continue };
            let (guard, acceptor, places) = (guard.clone(), self.acceptor.clone(), places.clone());
            tokio::spawn(async move {
                let Some((stream, peer)) = greet(&acceptor, stream, from).await else { return };
                drop(stranger);
                // Whoever has a certificate takes no place from those that have none, and the other way round.
                if let Ok(_place) = places.try_acquire() {
                    serve(guard, stream, peer).await;
                }
            });
        }
    }
}

/// Finds out which machine it is. `None` lets it in no further.
async fn greet(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
) -> Option<(TlsStream<TcpStream>, Peer)> {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HELLO_PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::info!(%from, %error, "a machine is not let in");
            return None;
        }
        Err(_) => {
            tracing::debug!(%from, "a TLS handshake took too long");
            return None;
        }
    };
    // INVARIANT: the verifier lets nobody through who shows none.
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
    let hash: [u8; 32] = Sha256::digest(shown).into();
    let peer =
        Peer { key: format!("certificate:{}", hex::encode(hash)), certificate: Some(Credential(hash)) };
    Some((stream, peer))
}

/// Connections of which nobody knows yet whose they are. They are few, and one peer has few of them, so that whoever has
/// no certificate keeps those out who have one only from many networks at once, and for no longer than a handshake may take.
#[derive(Debug, Clone, Default)]
struct Strangers(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// The place of one of them.
#[derive(Debug)]
struct Stranger {
    all: Strangers,
    network: IpAddr,
}

impl Strangers {
    fn enter(&self, from: IpAddr) -> Option<Stranger> {
        let network = network_of(from);
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all: usize = open.values().sum();
        let of_network = open.get(&network).copied().unwrap_or_default();
        if in_all >= MAX_STRANGERS || of_network >= MAX_STRANGERS_PER_NETWORK {
            return None;
        }
        open.insert(network, of_network + 1);
        Some(Stranger { all: self.clone(), network })
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut open = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = open.entry(self.network) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// A guard on another machine.
#[derive(Clone)]
pub struct TlsDial {
    host: String,
    port: u16,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl fmt::Debug for TlsDial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TlsDial to {}:{}", self.host, self.port)
    }
}

impl TlsDial {
    /// `address` is a host and a port: the host has to be in the guard's certificate.
    ///
    /// # Errors
    /// [`TlsError`] if the files or the address cannot be used.
    pub fn new(address: &str, files: &TlsFiles) -> Result<Self, TlsError> {
        let no_address = || TlsError::Address(address.to_owned());
        let (host, port) = address.rsplit_once(':').ok_or_else(no_address)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = port.parse().map_err(|_| no_address())?;
        let name = ServerName::try_from(host.clone()).map_err(|_| no_address())?;
        let Identity { chain, key, others } = files.read()?;
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(setup)?
            .with_root_certificates(others)
            .with_client_auth_cert(chain, key)
            .map_err(setup)?;
        Ok(Self { host, port, name, connector: TlsConnector::from(Arc::new(config)) })
    }
}

#[async_trait]
impl Dial for TlsDial {
    async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(self.connector.connect(self.name.clone(), stream).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_network_cannot_take_the_places_of_all() {
        let strangers = Strangers::default();
        let from = |n: usize| IpAddr::V4([10, 0, 0, u8::try_from(n).unwrap()].into());
        let mut of_one: Vec<_> =
            (0..MAX_STRANGERS_PER_NETWORK).map(|_| strangers.enter(from(1)).unwrap()).collect();
        assert!(strangers.enter(from(1)).is_none());
        assert!(strangers.enter(from(2)).is_some(), "another is let in, and gone again");
        of_one.pop();
        assert!(strangers.enter(from(1)).is_some());
        drop(of_one);
        assert!(strangers.0.lock().unwrap().is_empty(), "nothing is kept of those that are gone");
        let all: Vec<_> = (0..=255)
            .flat_map(|n| (0..MAX_STRANGERS_PER_NETWORK).map(move |_| n))
            .map_while(|n| strangers.enter(from(n)))
            .collect();
        assert_eq!(all.len(), MAX_STRANGERS);
        // A home with many addresses is one.
        drop(all);
        let six = |n: u16| IpAddr::V6([0x2001, 0xdb8, 0, 0, 0, 0, 0, n].into());
        let home: Vec<_> = (0..1_000).map_while(|n| strangers.enter(six(n))).collect();
        assert_eq!(home.len(), MAX_STRANGERS_PER_NETWORK);
    }
}
