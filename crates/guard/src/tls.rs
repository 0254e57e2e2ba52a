//! The same protocol between machines: TLS 1.3 with certificates on both sides, and the token besides. A certificate says
//! which machines may ask at all, the token which agent it is that asks.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
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
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::client::{Dial, Stream};
use crate::guard::Guard;
use crate::protocol::HELLO_PATIENCE;
use crate::serve::{Peer, serve};
use crate::socket::MAX_CONNECTIONS;

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
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
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
            // Beyond the bound nobody waits: a front asks again.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let (guard, acceptor) = (guard.clone(), self.acceptor.clone());
            tokio::spawn(async move {
                admit(guard, acceptor, stream, from).await;
                drop(place);
            });
        }
    }
}

async fn admit(guard: Guard, acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr) {
    let _ = stream.set_nodelay(true);
    let stream = match tokio::time::timeout(HELLO_PATIENCE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%from, %error, "a machine is not let in"),
        Err(_) => return tracing::debug!(%from, "a TLS handshake took too long"),
    };
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    // INVARIANT: the verifier lets nobody through who shows none.
    let Some(shown) = shown else { return };
    let hash: [u8; 32] = Sha256::digest(shown).into();
    let peer =
        Peer { key: format!("certificate:{}", hex::encode(hash)), certificate: Some(Credential(hash)) };
    serve(guard, stream, peer).await;
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
