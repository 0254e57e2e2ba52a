//! Encrypted key files, as geth and foundry write and read them.
//!
//! Spec: Web3 Secret Storage, version 3.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aes::Aes128;
use alloy_primitives::keccak256;
use ctr::Ctr128BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use farthing_evm::{Key, KeyError, from_alloy};
use farthing_primitives::Address;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::signer::Signer;
use crate::signer::kms::{Access, KmsError, KmsKey, KmsRef, NotAKmsRef};
use crate::signer::pkcs11::{NotAPkcs11Ref, Pkcs11Error, Pkcs11Key, Pkcs11Ref};

/// The longest key file that is read, in bytes. Real ones have about 500.
pub const MAX_KEY_FILE_BYTES: u64 = 16 * 1024;
/// The most memory that a file's scrypt parameters may ask for: geth's own are 256 MiB.
pub const MAX_SCRYPT_BYTES: u64 = 512 * 1024 * 1024;
/// The most passes over that memory.
pub const MAX_SCRYPT_P: u32 = 16;
/// The most rounds of PBKDF2. geth's own are 262 144.
pub const MAX_PBKDF2_ROUNDS: u32 = 10_000_000;
/// The longest name of a key.
pub const MAX_NAME_CHARS: usize = 64;

/// Something to type that opens a key. Erased when dropped, and never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The first line of a file.
    pub fn from_file(path: &Path) -> io::Result<Self> {
        let text = Zeroizing::new(fs::read_to_string(path)?);
        Ok(Self::new(text.lines().next().unwrap_or("").to_owned()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text itself, for what it opens.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        bool::from(self.0.as_bytes().ct_eq(other.0.as_bytes()))
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase")
    }
}

/// How hard a new file is to guess at: memory for scrypt is `2^log_n` KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub log_n: u8,
}

impl Cost {
    /// 128 MiB and about half a second.
    pub const STANDARD: Self = Self { log_n: 17 };
    /// For tests and development keys, whose secrecy is worth nothing.
    pub const LIGHT: Self = Self { log_n: 10 };
}

#[derive(Debug, thiserror::Error)]
pub enum KeystoreError {
    #[error(
        "{0:?} is not a name for a key (letters, digits, \"-\", \"_\" and \".\", at most 64, no \".\" in front)"
    )]
    Name(String),
    /// Says nothing of what it was given.
    #[error("this looks like a key itself, not like the name of one; keys are never given on a command line")]
    NameLooksLikeKey,
    #[error("there is no key {0:?}")]
    NotFound(String),
    #[error("there is a key {0:?} already")]
    Exists(String),
    #[error("the passphrase does not open this key")]
    WrongPassphrase,
    #[error("the key file is not a version 3 keystore: {0}")]
    Malformed(&'static str),
    #[error("the key file asks for more work than we do: {0}")]
    TooCostly(&'static str),
    #[error("the key file says {said} and holds the key of {held}")]
    OtherAddress { said: Address, held: Address },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("a passphrase is needed and nobody is there to type it: set FARTHING_PASSPHRASE")]
    NoPassphrase,
    #[error(
        "not a key reference (expected env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID or pkcs11:…)"
    )]
    Reference,
    #[error(
        "{0} never leaves where it is, and this needs a key that can be read: such a key pays, and does no more"
    )]
    Remote(String),
    #[error(transparent)]
    Kms(#[from] Box<KmsError>),
    #[error(transparent)]
    KmsRef(#[from] NotAKmsRef),
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    #[error(transparent)]
    Pkcs11Ref(#[from] NotAPkcs11Ref),
    #[error("the system gives no random bytes")]
    Random,
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> KeystoreError + '_ {
    |error| KeystoreError::Io { path: path.to_owned(), error }
}

/// A folder of key files.
#[derive(Debug, Clone)]
pub struct Keystore {
    dir: PathBuf,
}

/// A key file, unopened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    pub name: String,
    /// As the file says; foundry leaves it out.
    pub address: Option<Address>,
}

impl Keystore {
    /// The folder is made when the first key is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Encrypts `key` under a new name. Nothing is ever overwritten, and no part of a file is ever seen.
    pub fn create(
        &self,
        name: &str,
        key: &Key,
        passphrase: &Passphrase,
        cost: Cost,
    ) -> Result<KeyInfo, KeystoreError> {
        let path = self.path(name)?;
        if path.exists() {
            return Err(KeystoreError::Exists(name.to_owned()));
        }
        let text = encrypt(key, passphrase, cost)?;
        create_private_dir(&self.dir).map_err(io_error(&self.dir))?;
        match write_new(&path, text.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(KeystoreError::Exists(name.to_owned()));
            }
            written => written.map_err(io_error(&path))?,
        }
        Ok(KeyInfo { name: name.to_owned(), address: Some(from_alloy(key.address())) })
    }

    /// Takes back a key that was made just now and is nobody's yet.
    ///
    /// # Errors
    /// [`KeystoreError`].
    pub fn remove(&self, name: &str) -> Result<(), KeystoreError> {
        let path = self.path(name)?;
        fs::remove_file(&path).map_err(io_error(&path))
    }

    pub fn load(&self, name: &str, passphrase: &Passphrase) -> Result<Key, KeystoreError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(KeystoreError::NotFound(name.to_owned()));
        }
        decrypt(&read_bounded(&path)?, passphrase)
    }

    pub fn info(&self, name: &str) -> Result<KeyInfo, KeystoreError> {
        let path = self.path(name)?;
        if !path.exists() {
            return Err(KeystoreError::NotFound(name.to_owned()));
        }
        let file = File::parse(&read_bounded(&path)?)?;
        Ok(KeyInfo { name: name.to_owned(), address: file.address()? })
    }

    /// The keys in the folder, by name. A file that is no key is left out.
    pub fn list(&self) -> Result<Vec<KeyInfo>, KeystoreError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(io_error(&self.dir)(error)),
        };
        let mut keys = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error(&self.dir))?;
            let file = entry.file_name();
            let name = file.to_str().and_then(|name| name.strip_suffix(".json"));
            if let Some(Ok(info)) = name.map(|name| self.info(name)) {
                keys.push(info);
            }
        }
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(keys)
    }

    fn path(&self, name: &str) -> Result<PathBuf, KeystoreError> {
        // Whoever pastes a key in place of a name must not find it in an error, nor as a file.
        let digits = name.strip_prefix("0x").unwrap_or(name);
        if digits.len() >= 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(KeystoreError::NameLooksLikeKey);
        }
        let fits = (1..=MAX_NAME_CHARS).contains(&name.len()) && !name.starts_with('.');
        if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
            Ok(self.dir.join(format!("{name}.json")))
        } else {
            Err(KeystoreError::Name(name.chars().take(MAX_NAME_CHARS).collect()))
        }
    }
}

/// Where a key is, so that configuration and command lines never hold the key itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRef {
    /// 64 hex digits in an environment variable.
    Env(String),
    /// A file: 64 hex digits, or a version 3 keystore.
    File(PathBuf),
    /// A name in the wallet's own keystore.
    Keystore(String),
    /// In AWS KMS, which signs and never gives it out.
    Kms(KmsRef),
    /// In a device that speaks PKCS #11, of which the same is true.
    Pkcs11(Box<Pkcs11Ref>),
}

impl KeyRef {
    /// Who signs by it, wherever it is. The calling thread waits for a remote one's answer. `passphrase` is also asked for a
    /// device's PIN.
    ///
    /// # Errors
    /// As [`Self::load`]; [`KeystoreError::Kms`] and [`KeystoreError::Pkcs11`] if service or device cannot be asked, or
    /// has no such key to pay with.
    pub fn signer(
        &self,
        keystore: &Keystore,
        passphrase: impl FnOnce() -> Result<Passphrase, KeystoreError>,
    ) -> Result<Arc<dyn Signer>, KeystoreError> {
        match self {
            Self::Kms(name) => {
                let connect = || KmsKey::connect(name.clone(), Access::from_env()?);
                Ok(Arc::new(connect().map_err(Box::new)?))
            }
            Self::Pkcs11(name) => Ok(Arc::new(Pkcs11Key::open(name, passphrase()?)?)),
            _ => Ok(Arc::new(self.load(keystore, passphrase)?)),
        }
    }

    /// Reads the key. `passphrase` is asked for only if the key is encrypted.
    ///
    /// # Errors
    /// [`KeystoreError`]; [`KeystoreError::Remote`] for a key that cannot be read.
    pub fn load(
        &self,
        keystore: &Keystore,
        passphrase: impl FnOnce() -> Result<Passphrase, KeystoreError>,
    ) -> Result<Key, KeystoreError> {
        match self {
            Self::Env(name) => {
                let text = std::env::var(name).map_err(|_| KeystoreError::NoVariable(name.clone()))?;
                Ok(Key::from_hex(Zeroizing::new(text).trim())?)
            }
            Self::File(path) => {
                let bytes = read_bounded(path)?;
                if bytes.trim_ascii_start().starts_with(b"{") {
                    return decrypt(&bytes, &passphrase()?);
                }
                let text = std::str::from_utf8(&bytes).map_err(|_| KeyError::Malformed)?;
                Ok(Key::from_hex(text.trim())?)
            }
            Self::Keystore(name) => {
                keystore.info(name)?;
                keystore.load(name, &passphrase()?)
            }
            Self::Kms(name) => Err(KeystoreError::Remote(name.to_string())),
            Self::Pkcs11(name) => Err(KeystoreError::Remote(name.to_string())),
        }
    }
}

impl std::str::FromStr for KeyRef {
    type Err = KeystoreError;

    fn from_str(text: &str) -> Result<Self, KeystoreError> {
        match text.split_once(':') {
            Some(("env", name)) if !name.is_empty() => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("keystore", name)) if !name.is_empty() => Ok(Self::Keystore(name.to_owned())),
            Some(("kms", name)) => Ok(Self::Kms(name.parse()?)),
            Some(("arn", _)) => Ok(Self::Kms(text.parse()?)),
            Some(("pkcs11", _)) => Ok(Self::Pkcs11(Box::new(text.parse()?))),
            // Whoever pastes the key itself here must not find any of it in the error.
            _ => Err(KeystoreError::Reference),
        }
    }
}

/// A new key, from the system's randomness.
pub fn generate() -> Result<Key, KeystoreError> {
    loop {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|_| KeystoreError::Random)?;
        // One in 2^128 draws is not below the order of the curve.
        if let Ok(key) = Key::from_bytes(*bytes) {
            return Ok(key);
        }
    }
}

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(alias = "Crypto")]
    crypto: Crypto,
    #[serde(default)]
    id: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Crypto {
    cipher: String,
    cipherparams: CipherParams,
    ciphertext: String,
    kdf: String,
    kdfparams: KdfParams,
    mac: String,
}

#[derive(Serialize, Deserialize)]
struct CipherParams {
    iv: String,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum KdfParams {
    Scrypt { dklen: usize, n: u64, p: u32, r: u32, salt: String },
    Pbkdf2 { c: u32, dklen: usize, prf: String, salt: String },
}

impl File {
    fn parse(bytes: &[u8]) -> Result<Self, KeystoreError> {
        let file: Self = serde_json::from_slice(bytes)
            .map_err(|_| KeystoreError::Malformed("it is not JSON of the right form"))?;
        if file.version != 3 {
            return Err(KeystoreError::Malformed("the version is not 3"));
        }
        Ok(file)
    }

    fn address(&self) -> Result<Option<Address>, KeystoreError> {
        let Some(text) = self.address.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        // geth writes it without 0x.
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let address = Address::evm(&format!("0x{digits}"));
        address.map(Some).map_err(|_| KeystoreError::Malformed("the address is none"))
    }
}

fn encrypt(key: &Key, passphrase: &Passphrase, cost: Cost) -> Result<String, KeystoreError> {
    let mut salt = [0u8; 32];
    let mut iv = [0u8; 16];
    let mut id = [0u8; 16];
    for bytes in [&mut salt[..], &mut iv[..], &mut id[..]] {
        getrandom::fill(bytes).map_err(|_| KeystoreError::Random)?;
    }
    let n = 1u64 << cost.log_n;
    let derived = derive_scrypt(passphrase, &salt, n, 8, 1)?;
    let mut text = Zeroizing::new(key.expose_secret());
    apply_cipher(&derived, &iv, text.as_mut())?;
    let file = File {
        address: Some(from_alloy(key.address()).as_str().trim_start_matches("0x").to_owned()),
        id: uuid::Builder::from_random_bytes(id).into_uuid().to_string(),
        version: 3,
        crypto: Crypto {
            cipher: "aes-128-ctr".to_owned(),
            cipherparams: CipherParams { iv: hex::encode(iv) },
            ciphertext: hex::encode(text.as_ref()),
            kdf: "scrypt".to_owned(),
            kdfparams: KdfParams::Scrypt { dklen: 32, n, p: 1, r: 8, salt: hex::encode(salt) },
            mac: hex::encode(mac(&derived, text.as_ref())),
        },
    };
    serde_json::to_string(&file).map_err(|_| KeystoreError::Malformed("it cannot be written"))
}

fn decrypt(bytes: &[u8], passphrase: &Passphrase) -> Result<Key, KeystoreError> {
    let file = File::parse(bytes)?;
    let crypto = &file.crypto;
    if crypto.cipher != "aes-128-ctr" {
        return Err(KeystoreError::Malformed("the cipher is not aes-128-ctr"));
    }
    let hex = |text: &str, what| hex::decode(text).map_err(|_| KeystoreError::Malformed(what));
    let derived = match (crypto.kdf.as_str(), &crypto.kdfparams) {
        ("scrypt", KdfParams::Scrypt { dklen: 32, n, p, r, salt }) => {
            derive_scrypt(passphrase, &hex(salt, "the salt is not hex")?, *n, *r, *p)?
        }
        ("pbkdf2", KdfParams::Pbkdf2 { c, dklen: 32, prf, salt }) if prf == "hmac-sha256" => {
            if *c > MAX_PBKDF2_ROUNDS {
                return Err(KeystoreError::TooCostly("pbkdf2 rounds"));
            }
            let salt = hex(salt, "the salt is not hex")?;
            let mut derived = Zeroizing::new([0u8; 32]);
            pbkdf2::pbkdf2_hmac::<sha2::Sha256>(passphrase.0.as_bytes(), &salt, *c, derived.as_mut());
            derived
        }
        _ => return Err(KeystoreError::Malformed("the key derivation is none that we know")),
    };
    let mut text = Zeroizing::new(hex(&crypto.ciphertext, "the ciphertext is not hex")?);
    let said = hex(&crypto.mac, "the mac is not hex")?;
    if !bool::from(mac(&derived, &text).ct_eq(&said)) {
        return Err(KeystoreError::WrongPassphrase);
    }
    let iv: [u8; 16] = hex(&crypto.cipherparams.iv, "the iv is not hex")?
        .try_into()
        .map_err(|_| KeystoreError::Malformed("the iv is not 16 bytes"))?;
    apply_cipher(&derived, &iv, &mut text)?;
    let secret: Zeroizing<[u8; 32]> = Zeroizing::new(
        text.as_slice().try_into().map_err(|_| KeystoreError::Malformed("the key is not 32 bytes"))?,
    );
    let key = Key::from_bytes(*secret)?;
    let held = from_alloy(key.address());
    match file.address()? {
        Some(said) if said != held => Err(KeystoreError::OtherAddress { said, held }),
        _ => Ok(key),
    }
}

fn derive_scrypt(
    passphrase: &Passphrase,
    salt: &[u8],
    n: u64,
    r: u32,
    p: u32,
) -> Result<Zeroizing<[u8; 32]>, KeystoreError> {
    let memory = u64::from(r).checked_mul(128).and_then(|block| block.checked_mul(n));
    if memory.is_none_or(|memory| memory > MAX_SCRYPT_BYTES) || p > MAX_SCRYPT_P {
        return Err(KeystoreError::TooCostly("scrypt memory or passes"));
    }
    if !n.is_power_of_two() {
        return Err(KeystoreError::Malformed("scrypt's n is not a power of two"));
    }
    let log_n = u8::try_from(n.trailing_zeros()).unwrap_or(u8::MAX);
    let params = scrypt::Params::new(log_n, r, p, 32)
        .map_err(|_| KeystoreError::Malformed("scrypt does not take these parameters"))?;
    let mut derived = Zeroizing::new([0u8; 32]);
    scrypt::scrypt(passphrase.0.as_bytes(), salt, &params, derived.as_mut())
        .map_err(|_| KeystoreError::Malformed("scrypt does not take these parameters"))?;
    Ok(derived)
}

/// The first half of the derived key encrypts, the second authenticates.
fn apply_cipher(derived: &[u8; 32], iv: &[u8; 16], text: &mut [u8]) -> Result<(), KeystoreError> {
    let mut cipher = Ctr128BE::<Aes128>::new_from_slices(&derived[..16], iv)
        .map_err(|_| KeystoreError::Malformed("the cipher does not take this key"))?;
    cipher.apply_keystream(text);
    Ok(())
}

fn mac(derived: &[u8; 32], ciphertext: &[u8]) -> [u8; 32] {
    let mut input = Zeroizing::new(Vec::with_capacity(16 + ciphertext.len()));
    input.extend_from_slice(&derived[16..]);
    input.extend_from_slice(ciphertext);
    keccak256(&*input).0
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeystoreError> {
    let file = fs::File::open(path).map_err(io_error(path))?;
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io_error(path))?;
    if bytes.len() as u64 > MAX_KEY_FILE_BYTES {
        return Err(KeystoreError::Malformed("the file is too long"));
    }
    Ok(bytes)
}

/// Makes a folder that only its owner can enter.
pub(crate) fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Opens a new file that only its owner can read.
pub fn create_private_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Writes a whole new file or none. A link, unlike a rename, does not replace what is there.
pub(crate) fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let draft = path.with_extension(format!("{}.tmp", hex::encode(random)));
    let written = (|| {
        let mut file = create_private_file(&draft)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&draft, path)
    })();
    let removed = fs::remove_file(&draft);
    written?;
    removed?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";

    /// Made by `cast wallet import` of foundry 1.7.1.
    const CAST: &str = include_str!("../testdata/keystore-cast-1.7.1.json");
    /// From the Web3 Secret Storage definition, whose other example has parameters that RFC 7914 forbids.
    const PBKDF2: &str = include_str!("../testdata/keystore-v3-pbkdf2.json");

    fn pass(text: &str) -> Passphrase {
        Passphrase::new(text.to_owned())
    }

    #[test]
    fn files_of_others_open() {
        let cast = decrypt(CAST.as_bytes(), &pass("correct horse")).unwrap();
        assert_eq!(from_alloy(cast.address()).as_str(), "0x2c7536e3605d9c16a7a3d7b1898e529396a65c23");
        let key = decrypt(PBKDF2.as_bytes(), &pass("testpassword")).unwrap();
        assert_eq!(hex::encode(key.expose_secret()), SECRET);
    }

    #[test]
    fn what_is_written_opens_with_its_passphrase_only() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::new(dir.path().join("keys"));
        let key = generate().unwrap();
        let info = keys.create("agent", &key, &pass("p"), Cost::LIGHT).unwrap();
        assert_eq!(keys.list().unwrap(), std::slice::from_ref(&info));
        assert_eq!(keys.load("agent", &pass("p")).unwrap().expose_secret(), key.expose_secret());
        assert!(matches!(keys.load("agent", &pass("q")), Err(KeystoreError::WrongPassphrase)));
        assert!(matches!(keys.load("other", &pass("p")), Err(KeystoreError::NotFound(_))));
        assert!(matches!(keys.create("agent", &key, &pass("p"), Cost::LIGHT), Err(KeystoreError::Exists(_))));
        let path = dir.path().join("keys/agent.json");
        assert!(!fs::read_to_string(&path).unwrap().contains(&hex::encode(key.expose_secret())));
        assert_eq!(fs::read_dir(dir.path().join("keys")).unwrap().count(), 1, "no draft stays behind");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::metadata(dir.path().join("keys")).unwrap().permissions().mode() & 0o777, 0o700);
        }
    }

    #[test]
    fn names_stay_in_the_folder() {
        let keys = Keystore::new("/nowhere");
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\0b", &"x".repeat(65)] {
            assert!(matches!(keys.info(bad), Err(KeystoreError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn bad_files_are_errors() {
        let p = pass("correct horse");
        let change = |from: &str, to: &str| {
            assert!(CAST.contains(from), "{from}");
            decrypt(CAST.replace(from, to).as_bytes(), &p).unwrap_err()
        };
        assert!(matches!(change("8192", "1073741824"), KeystoreError::TooCostly(_)));
        assert!(matches!(change("8192", "8191"), KeystoreError::Malformed(_)));
        assert!(matches!(change("\"p\":1", "\"p\":4000000000"), KeystoreError::TooCostly(_)));
        assert!(matches!(change("aes-128-ctr", "aes-256-ctr"), KeystoreError::Malformed(_)));
        assert!(matches!(change("\"version\":3", "\"version\":1"), KeystoreError::Malformed(_)));
        assert!(matches!(change("abebeca2", "zzebeca2"), KeystoreError::Malformed(_)));
        assert!(matches!(decrypt(b"[]", &p).unwrap_err(), KeystoreError::Malformed(_)));
        let other = CAST.replacen('{', "{\"address\":\"0000000000000000000000000000000000000001\",", 1);
        let other = decrypt(other.as_bytes(), &pass("correct horse")).unwrap_err();
        assert!(matches!(other, KeystoreError::OtherAddress { .. }));
    }

    #[test]
    fn references_lead_to_keys_and_never_show_them() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keystore::new(dir.path());
        let raw = dir.path().join("raw");
        fs::write(&raw, format!("0x{SECRET}\n")).unwrap();
        let cast = dir.path().join("cast");
        fs::write(&cast, CAST).unwrap();
        let never = || -> Result<Passphrase, KeystoreError> { panic!("nothing is encrypted") };
        let file: KeyRef = format!("file:{}", raw.display()).parse().unwrap();
        assert_eq!(hex::encode(file.load(&keys, never).unwrap().expose_secret()), SECRET);
        let file: KeyRef = format!("file:{}", cast.display()).parse().unwrap();
        file.load(&keys, || Ok(pass("correct horse"))).unwrap();
        let unset: KeyRef = "env:FARTHING_TEST_NO_SUCH_VARIABLE".parse().unwrap();
        assert!(matches!(unset.load(&keys, never), Err(KeystoreError::NoVariable(_))));
        let pasted = SECRET.parse::<KeyRef>().unwrap_err().to_string();
        assert!(!pasted.contains(&SECRET[..16]), "{pasted}");
        for name in [SECRET.to_owned(), format!("0x{SECRET}")] {
            assert!(matches!(keys.info(&name), Err(KeystoreError::NameLooksLikeKey)));
        }
        for bad in ["env:", "file:", "keystore:", "key"] {
            assert!(bad.parse::<KeyRef>().is_err());
        }
    }
}
