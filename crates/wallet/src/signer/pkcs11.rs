//! Keys in a device, or a program, that keeps them and speaks PKCS #11.
//!
//! Spec: OASIS PKCS #11 Specification 3.1; RFC 7512.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use farthing_evm::der::{self, DerError};
use farthing_evm::{B256, Signature, from_alloy};
use farthing_primitives::Address;
use percent_encoding::percent_decode_str;

use super::{SignError, Signer, ToSign};
use crate::keystore::Passphrase;

/// How long a device may take to open, and for one signature. A payment whose signature takes longer is denied.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How many may wait for a signature; more are refused. A session signs one after the other.
pub const MAX_WAITING: usize = 256;
/// The longest URI that is read.
pub const MAX_URI_CHARS: usize = 4096;

/// Which key it is: `pkcs11:token=LABEL;object=LABEL?module-path=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkcs11Ref {
    token: String,
    object: String,
    module: PathBuf,
    text: String,
}

/// A text is no [`Pkcs11Ref`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a key in a device is named pkcs11:token=LABEL;object=LABEL?module-path=PATH, without its PIN")]
pub struct NotAPkcs11Ref;

impl FromStr for Pkcs11Ref {
    type Err = NotAPkcs11Ref;

    fn from_str(text: &str) -> Result<Self, NotAPkcs11Ref> {
        if text.len() > MAX_URI_CHARS {
            return Err(NotAPkcs11Ref);
        }
        // Spec: RFC 7512, 2.3: attributes of the path, a question mark, and those of the query.
        let rest = text.strip_prefix("pkcs11:").ok_or(NotAPkcs11Ref)?;
        let (path, query) = rest.split_once('?').ok_or(NotAPkcs11Ref)?;
        let [mut token, mut object, mut module] = [const { None }; 3];
        for (attribute, separator) in [(path, ';'), (query, '&')] {
            for pair in attribute.split(separator) {
                let (name, value) = pair.split_once('=').ok_or(NotAPkcs11Ref)?;
                let place = match (separator, name) {
                    (';', "token") => &mut token,
                    (';', "object") => &mut object,
                    ('&', "module-path") => &mut module,
                    // Whatever else narrows down a key has to be understood or refused; and a PIN is in no reference.
                    _ => return Err(NotAPkcs11Ref),
                };
                let value = percent_decode_str(value).decode_utf8().map_err(|_| NotAPkcs11Ref)?.into_owned();
                // Spec: RFC 7512, 2.3: an attribute is there once.
                if value.is_empty() || value.contains(char::is_control) || place.replace(value).is_some() {
                    return Err(NotAPkcs11Ref);
                }
            }
        }
        // A name without a path would be looked for wherever the system looks for libraries.
        let module = module.map(PathBuf::from).filter(|module| module.is_absolute());
        Ok(Self {
            token: token.ok_or(NotAPkcs11Ref)?,
            object: object.ok_or(NotAPkcs11Ref)?,
            module: module.ok_or(NotAPkcs11Ref)?,
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for Pkcs11Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Why a key in a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Pkcs11Error {
    #[error("{0} cannot be loaded as a PKCS #11 module: {1}")]
    Module(PathBuf, String),
    #[error("{found} tokens have the label {label:?}, not one")]
    Token { label: String, found: usize },
    #[error("{found} {class} keys for elliptic curves have the label {label:?}, not one")]
    Object { class: &'static str, label: String, found: usize },
    #[error("the key {0:?} is none to pay with: it has to be of the curve secp256k1")]
    Unfit(String),
    #[error("the PIN is wrong, and a token may lock after a few of these")]
    Pin,
    #[error("the token fails: {0}")]
    Device(String),
    #[error("no thread for the token: {0}")]
    Thread(std::io::Error),
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl From<Error> for Pkcs11Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Pkcs11(RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange, _) => Self::Pin,
            error => Self::Device(shown(&error)),
        }
    }
}

/// An error by its name, where it has one: what a library writes at length is not for an agent.
fn shown(error: &Error) -> String {
    match error {
        Error::Pkcs11(code, _) => format!("{code:?}"),
        other => other.to_string(),
    }
}

/// A key in a device.
///
/// Whatever the module does is done on a thread of its own. A module that hangs keeps that thread, and nobody else.
pub struct Pkcs11Key {
    name: String,
    account: farthing_evm::Address,
    within: Duration,
    jobs: SyncSender<Job>,
}

impl fmt::Debug for Pkcs11Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pkcs11Key {} of {}", self.name, self.account)
    }
}

/// What is to be signed, and where the answer goes.
struct Job {
    digest: B256,
    deadline: Instant,
    answer: SyncSender<Result<Vec<u8>, String>>,
}

/// What signs: `r ‖ s`, or why not.
trait Device {
    fn sign(&mut self, digest: &B256) -> Result<Vec<u8>, String>;
}

impl Pkcs11Key {
    /// Opens the token with its PIN and looks whose key it is. The calling thread waits. The PIN is tried once.
    ///
    /// # Errors
    /// [`Pkcs11Error`].
    pub fn open(name: &Pkcs11Ref, pin: Passphrase) -> Result<Self, Pkcs11Error> {
        let wanted = name.clone();
        Self::with(&name.token, ANSWER_WITHIN, move || Token::open(&wanted, &pin))
    }

    fn with<D: Device>(
        token: &str,
        within: Duration,
        open: impl FnOnce() -> Result<(D, farthing_evm::Address), Pkcs11Error> + Send + 'static,
    ) -> Result<Self, Pkcs11Error> {
        let name = format!("the token {token:?}");
        let (jobs, waiting) = sync_channel(MAX_WAITING);
        let (tell, told) = sync_channel(1);
        let work = move || match open() {
            Ok((device, account)) => {
                // Whoever wanted the key may have given up.
                if tell.send(Ok(account)).is_ok() {
                    serve(device, &waiting);
                }
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        thread::Builder::new().name("pkcs11".to_owned()).spawn(work).map_err(Pkcs11Error::Thread)?;
        let late = |_| SignError::Late { signer: name.clone(), within };
        let account = told.recv_timeout(within).map_err(late)??;
        Ok(Self { name, account, within, jobs })
    }

    fn signed(&self, what: &ToSign) -> Result<Vec<u8>, SignError> {
        let signer = || self.name.clone();
        let (answer, answered) = sync_channel(1);
        let deadline = Instant::now() + self.within;
        self.jobs.try_send(Job { digest: what.digest(), deadline, answer }).map_err(|error| match error {
            TrySendError::Full(_) => SignError::Busy { signer: signer() },
            TrySendError::Disconnected(_) => SignError::Unreachable { signer: signer() },
        })?;
        let answer = answered.recv_timeout(self.within).map_err(|error| match error {
            RecvTimeoutError::Disconnected if Instant::now() < deadline => {
                SignError::Unreachable { signer: signer() }
            }
            _ => SignError::Late { signer: signer(), within: self.within },
        })?;
        answer.map_err(|why| SignError::Refused { signer: signer(), why })
    }
}

/// Until nobody can ask any more.
fn serve(mut device: impl Device, waiting: &Receiver<Job>) {
    while let Ok(job) = waiting.recv() {
        // Nobody waits for it any more.
        if Instant::now() < job.deadline {
            let signed = device.sign(&job.digest);
            // Whoever asked may have given up in between.
            let _ = job.answer.send(signed);
        }
    }
}

impl Signer for Pkcs11Key {
    fn address(&self) -> Address {
        from_alloy(self.account)
    }

    fn sign(&self, what: &ToSign) -> Result<Signature, SignError> {
        let signed = self.signed(what)?;
        der::signature_of_plain(&signed, what.digest(), self.account).map_err(|error| match error {
            DerError::OfSomethingElse => {
                SignError::OfSomethingElse { signer: self.name.clone(), address: self.address() }
            }
            DerError::NotAKey | DerError::NotASignature => {
                SignError::Malformed { signer: self.name.clone(), why: "not r and s" }
            }
        })
    }

    /// None: a device signs one message in another way each time.
    fn secret(&self, _: &[u8]) -> Option<B256> {
        None
    }
}

/// A session of a token whose user is logged in.
struct Token {
    session: Session,
    key: ObjectHandle,
}

impl Token {
    fn open(name: &Pkcs11Ref, pin: &Passphrase) -> Result<(Self, farthing_evm::Address), Pkcs11Error> {
        let module = load(&name.module)?;
        let mut slots = Vec::new();
        for slot in module.get_slots_with_initialized_token()? {
            // Spec: PKCS #11 3.1, 3.2, `CK_TOKEN_INFO`: a label is padded with blanks.
            if module.get_token_info(slot)?.label().trim_end() == name.token {
                slots.push(slot);
            }
        }
        let [slot] = slots.as_slice() else {
            return Err(Pkcs11Error::Token { label: name.token.clone(), found: slots.len() });
        };
        let session = module.open_ro_session(*slot)?;
        match session.login(UserType::User, Some(&AuthPin::from(pin.expose().to_owned()))) {
            // By this process, for another key of the same token.
            Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            done => done?,
        }
        let public = one(&session, ObjectClass::PUBLIC_KEY, "public", &name.object)?;
        let mut params = Vec::new();
        let mut point = Vec::new();
        for attribute in session.get_attributes(public, &[AttributeType::EcParams, AttributeType::EcPoint])? {
            match attribute {
                Attribute::EcParams(bytes) => params = bytes,
                Attribute::EcPoint(bytes) => point = bytes,
                _ => {}
            }
        }
        let account =
            der::account_of_point(&params, &point).map_err(|_| Pkcs11Error::Unfit(name.object.clone()))?;
        let key = one(&session, ObjectClass::PRIVATE_KEY, "private", &name.object)?;
        Ok((Self { session, key }, account))
    }
}

impl Device for Token {
    fn sign(&mut self, digest: &B256) -> Result<Vec<u8>, String> {
        // Spec: PKCS #11 3.1, 6.3.12, `CKM_ECDSA`: of a digest that was made outside; `r ‖ s`.
        self.session.sign(&Mechanism::Ecdsa, self.key, digest.as_slice()).map_err(|error| {
            tracing::warn!(%error, "a token does not sign");
            shown(&error)
        })
    }
}

fn load(path: &Path) -> Result<Pkcs11, Pkcs11Error> {
    let wrong = |error: Error| Pkcs11Error::Module(path.to_owned(), shown(&error));
    let module = Pkcs11::new(path).map_err(wrong)?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // By this process, for another key.
        Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        done => done.map_err(wrong)?,
    }
    Ok(module)
}

/// The one object of a class with this label.
fn one(
    session: &Session,
    class: ObjectClass,
    named: &'static str,
    label: &str,
) -> Result<ObjectHandle, Pkcs11Error> {
    let found = session.find_objects(&[
        Attribute::Class(class),
        Attribute::KeyType(KeyType::EC),
        Attribute::Label(label.as_bytes().to_vec()),
    ])?;
    match found.as_slice() {
        [only] => Ok(*only),
        several => {
            let label = label.to_owned();
            Err(Pkcs11Error::Object { class: named, label, found: several.len() })
        }
    }
}

#[cfg(test)]
mod tests;
