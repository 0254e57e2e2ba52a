//! The proxy's own certificates: one authority for this wallet, and short-lived leaves for hosts that its owner names.
//!
//! The key stays, for its owner alone. The authority's certificate is made anew at each start, and whenever the owner
//! names another host: it is good for these hosts only, so that a stolen key opens nobody else's connections.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farthing_policy::{Host, HostPattern};
use farthing_primitives::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use crate::turns::open;

/// For how long the authority's certificate is good. It is made anew at each start.
const AUTHORITY_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// For how long a leaf is good.
const LEAF_LIFE: Duration = Duration::from_secs(86_400);
/// How much earlier they begin: clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);
/// How many leaves are kept.
const MAX_LEAVES: usize = 1024;
const SERIAL_BYTES: usize = 16;
/// A name below which there is none (RFC 6761 section 6.4): a list of permitted names that would otherwise be empty, and
/// so permit all.
const NOBODY: &str = "invalid";
/// How many columns PEM has. Spec: RFC 7468 section 2.
const PEM_COLUMNS: usize = 64;

/// Where the authority's files are, all in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The key, for its owner alone.
    pub key: PathBuf,
    /// The certificate, for programs that are told of one more authority: `NODE_EXTRA_CA_CERTS`.
    pub certificate: PathBuf,
    /// The certificate behind all that this machine believes, for programs that are told of a whole set:
    /// `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`.
    pub bundle: PathBuf,
}

impl Files {
    pub fn within(dir: &Path) -> Self {
        Self {
            key: dir.join("proxy-ca.key"),
            certificate: dir.join("proxy-ca.pem"),
            bundle: dir.join("proxy-ca-bundle.pem"),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("{0} can be read by others: remove it and its certificates, and a new one is made")]
    KeyIsOpen(String),
    #[error("{0} does not hold a key of ours: remove it, and a new one is made")]
    NotAKey(String),
    #[error("the operating system gives no random bytes")]
    Random,
    #[error("a certificate cannot be made: {0}")]
    Make(String),
}

fn at(path: &Path) -> impl Fn(io::Error) -> AuthorityError {
    move |error| AuthorityError::Io { path: path.display().to_string(), error }
}

fn make(error: impl fmt::Display) -> AuthorityError {
    AuthorityError::Make(error.to_string())
}

/// The proxy's own certificate authority.
pub struct Authority {
    key: KeyPair,
    /// Of all leaves. It is never on the disk.
    leaf_key: KeyPair,
    files: Files,
    state: Mutex<State>,
}

struct State {
    current: Certificate,
    leaves: HashMap<Host, Leaf>,
    /// The oldest first.
    order: VecDeque<Host>,
}

/// The authority's certificate, as it is just now.
struct Certificate {
    params: CertificateParams,
    der: CertificateDer<'static>,
    hosts: Vec<HostPattern>,
    renew: Timestamp,
}

struct Leaf {
    config: Arc<ServerConfig>,
    renew: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Authority {
    /// Takes the key that is there, or makes one, and writes a certificate for `hosts`.
    pub fn open(files: Files, hosts: &[HostPattern], now: Timestamp) -> Result<Self, AuthorityError> {
        let key = load_or_make(&files.key)?;
        let leaf_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let current = certify(&key, hosts, now)?;
        publish(&files, &current.der, &key)?;
        let state = Mutex::new(State { current, leaves: HashMap::new(), order: VecDeque::new() });
        Ok(Self { key, leaf_key, files, state })
    }

    pub fn files(&self) -> &Files {
        &self.files
    }

    /// How TLS is spoken for a host that the owner names in `hosts`.
    ///
    /// Where the certificate is too old or does not hold for that host, it is made anew. Programs that began earlier
    /// believe the one before, and for a new host nothing of ours until they begin again.
    pub fn server_config(
        &self,
        host: &Host,
        hosts: &[HostPattern],
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut state = open(&self.state);
        if now >= state.current.renew || !state.current.covers(host) {
            state.current = certify(&self.key, hosts, now)?;
            publish(&self.files, &state.current.der, &self.key)?;
            state.leaves.clear();
            state.order.clear();
        }
        if let Some(leaf) = state.leaves.get(host).filter(|leaf| now < leaf.renew) {
            return Ok(leaf.config.clone());
        }
        let config = self.speak_as(host, &state.current, now)?;
        let leaf = Leaf { config: config.clone(), renew: now.plus(LEAF_LIFE / 2) };
        if state.leaves.insert(host.clone(), leaf).is_none() {
            state.order.push_back(host.clone());
        }
        if state.order.len() > MAX_LEAVES
            && let Some(oldest) = state.order.pop_front()
        {
            state.leaves.remove(&oldest);
        }
        Ok(config)
    }

    fn speak_as(
        &self,
        host: &Host,
        current: &Certificate,
        now: Timestamp,
    ) -> Result<Arc<ServerConfig>, AuthorityError> {
        let leaf = self.leaf(host, current, now)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(make)?
            .with_no_client_auth()
            .with_single_cert(vec![leaf, current.der.clone()], key)
            .map_err(make)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each host has its own; what each kept of its clients would add up.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }

    fn leaf(
        &self,
        host: &Host,
        current: &Certificate,
        now: Timestamp,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let name = match host.ip() {
            Some(ip) => SanType::IpAddress(ip),
            None => SanType::DnsName(host.as_str().try_into().map_err(make)?),
        };
        let mut params = params("farthing proxy", now, LEAF_LIFE)?;
        params.subject_alt_names = vec![name];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Spec: RFC 5280 section 4.2.1.1: all but the authority's own have it; strict checkers ask for it.
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_params(&current.params, &self.key);
        let leaf = params.signed_by(&self.leaf_key, &issuer).map_err(make)?;
        Ok(leaf.der().clone())
    }
}

impl Certificate {
    /// Whether a leaf for `host` is believed by whoever believes this.
    fn covers(&self, host: &Host) -> bool {
        self.hosts.iter().any(|pattern| match pattern {
            HostPattern::Any => false,
            // Spec: RFC 5280 section 4.2.1.10: a name permits itself and all below.
            HostPattern::Exact(name, _) | HostPattern::Below(name) => {
                let below = host.as_str().strip_suffix(name.as_str());
                let is_below = below.is_some_and(|rest| rest.ends_with('.'));
                name == host || (host.ip().is_none() && is_below)
            }
        })
    }
}

fn params(name: &str, now: Timestamp, life: Duration) -> Result<CertificateParams, AuthorityError> {
    let mut serial = [0u8; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(|_| AuthorityError::Random)?;
    // Spec: RFC 5280 section 4.1.2.2: positive.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    // What comes after the last year that a certificate can name is an error, not a panic.
    let date = |at: Timestamp| epoch.checked_add(Duration::from_secs(at.secs()).try_into().ok()?);
    params.not_before = date(now.minus(EARLIER)).ok_or_else(|| make("the clock is wrong"))?;
    params.not_after = date(now.plus(life)).ok_or_else(|| make("the clock is wrong"))?;
    Ok(params)
}

/// The authority's certificate for these hosts, by its key.
fn certify(key: &KeyPair, hosts: &[HostPattern], now: Timestamp) -> Result<Certificate, AuthorityError> {
    let id: String =
        Sha256::digest(key.public_key_raw()).iter().take(4).map(|b| format!("{b:02x}")).collect();
    // The same name for the same key: whoever believes an older certificate of it can still build the chain.
    let mut params = params(&format!("farthing proxy authority {id}"), now, AUTHORITY_LIFE)?;
    // It makes leaves and no other authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.name_constraints = Some(constraints(hosts)?);
    let der = params.self_signed(key).map_err(make)?.der().clone();
    let renew = now.plus(AUTHORITY_LIFE / 2);
    Ok(Certificate { params, der, hosts: hosts.to_vec(), renew })
}

/// Names and addresses of these hosts, and no others. `*` names nobody.
///
/// Spec: RFC 5280 section 4.2.1.10: a kind of name that is not mentioned is not constrained, so both are.
fn constraints(hosts: &[HostPattern]) -> Result<NameConstraints, AuthorityError> {
    let (mut names, mut addresses) = (Vec::new(), Vec::new());
    for pattern in hosts {
        let (HostPattern::Exact(host, _) | HostPattern::Below(host)) = pattern else { continue };
        match host.ip() {
            Some(ip) => {
                let bits = if ip.is_ipv4() { 32 } else { 128 };
                addresses.push(GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(ip, bits)));
            }
            None => names.push(GeneralSubtree::DnsName(host.as_str().to_owned())),
        }
    }
    let mut excluded = Vec::new();
    if addresses.is_empty() {
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([0; 4], 0)));
        excluded.push(GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix([0; 16], 0)));
    }
    if names.is_empty() {
        names.push(GeneralSubtree::DnsName(NOBODY.to_owned()));
    }
    names.append(&mut addresses);
    Ok(NameConstraints { permitted_subtrees: names, excluded_subtrees: excluded })
}

/// The key in a file, which is made if it is not there, for its owner alone.
fn load_or_make(path: &Path) -> Result<KeyPair, AuthorityError> {
    if !path.try_exists().map_err(at(path))? {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)?;
        let pem = zeroize::Zeroizing::new(pem("PRIVATE KEY", &key.serialize_der()));
        let fresh = beside(path)?;
        write(&fresh, pem.as_bytes(), 0o600)?;
        // Whoever was faster made the key that all use.
        let linked = std::fs::hard_link(&fresh, path);
        std::fs::remove_file(&fresh).map_err(at(&fresh))?;
        match linked {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(path)(error)),
            Err(_) | Ok(()) => {}
        }
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = path.metadata().map_err(at(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(AuthorityError::KeyIsOpen(path.display().to_string()));
        }
    }
    let wrong = || AuthorityError::NotAKey(path.display().to_string());
    let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|_| wrong())?;
    KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ECDSA_P256_SHA256).map_err(|_| wrong())
}

/// Writes the certificate, alone and behind what this machine believes.
fn publish(files: &Files, der: &CertificateDer<'_>, key: &KeyPair) -> Result<(), AuthorityError> {
    let own = pem("CERTIFICATE", der);
    replace(&files.certificate, own.as_bytes())?;
    let mut bundle = own;
    let known = rustls_native_certs::load_native_certs();
    if known.certs.is_empty() {
        tracing::warn!("this machine's certificates cannot be read, so the bundle holds none of them");
    }
    // An environment that was made for programs names this very bundle: it does not go into itself.
    let ours = |der: &[u8]| der.windows(key.public_key_raw().len()).any(|part| part == key.public_key_raw());
    let others = known.certs.iter().filter(|certificate| !ours(certificate));
    others.for_each(|certificate| bundle.push_str(&pem("CERTIFICATE", certificate)));
    replace(&files.bundle, bundle.as_bytes())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), AuthorityError> {
    let fresh = beside(path)?;
    write(&fresh, bytes, 0o644)?;
    std::fs::rename(&fresh, path).map_err(at(path))
}

/// A path in the same folder that nobody uses.
fn beside(path: &Path) -> Result<PathBuf, AuthorityError> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|_| AuthorityError::Random)?;
    Ok(path.with_extension(format!("{:016x}", u64::from_be_bytes(random))))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    let mut file: File = options.open(path).map_err(at(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(at(path))
}

/// Spec: RFC 7468 section 3.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in encoded.as_bytes().chunks(PEM_COLUMNS) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests;
