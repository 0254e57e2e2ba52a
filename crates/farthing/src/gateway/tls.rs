//! Inbound TLS, with certificates that can be replaced while it runs.

use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::GatewayError;
use crate::config::TlsConfig;

/// The certificate in use.
#[derive(Debug)]
pub struct Certificate {
    config: TlsConfig,
    current: RwLock<Arc<CertifiedKey>>,
}

impl Certificate {
    pub fn load(config: &TlsConfig) -> Result<Arc<Self>, GatewayError> {
        let current = RwLock::new(Arc::new(read(config)?));
        Ok(Arc::new(Self { config: config.clone(), current }))
    }

    /// Reads the files again. What is in use stays in use if they are not good.
    pub fn reload(&self) -> Result<(), GatewayError> {
        let fresh = read(&self.config)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        Ok(())
    }

    pub fn files(&self) -> [&Path; 2] {
        [&self.config.cert, &self.config.key]
    }

    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, GatewayError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| self.fail(error.to_string()))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn fail(&self, why: String) -> GatewayError {
        GatewayError::Tls { file: self.config.cert.clone(), why }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

fn read(config: &TlsConfig) -> Result<CertifiedKey, GatewayError> {
    let fail = |file: &Path| {
        let file = file.to_owned();
        move |why: String| GatewayError::Tls { file, why }
    };
    let chain = CertificateDer::pem_file_iter(&config.cert)
        .and_then(|certs| certs.collect::<Result<Vec<_>, _>>())
        .map_err(|error| fail(&config.cert)(error.to_string()))?;
    if chain.is_empty() {
        return Err(fail(&config.cert)("holds no certificate".to_owned()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&config.key).map_err(|error| fail(&config.key)(error.to_string()))?;
    // Also checks that the key is the certificate's.
    CertifiedKey::from_der(chain, key, &ring::default_provider())
        .map_err(|error| fail(&config.key)(error.to_string()))
}
