//! Signed notes, and the keys that sign them.
//!
//! Spec: C2SP signed-note.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

/// How long a note may be.
pub const MAX_NOTE_BYTES: usize = 64 * 1024;
/// How many signatures a note may have. Spec: C2SP signed-note, "Format": 16 at least.
pub const MAX_SIGNATURES: usize = 64;
/// How long the name of a key may be.
const MAX_NAME_BYTES: usize = 255;
/// What a private key's text begins with.
const PRIVATE_PREFIX: &str = "PRIVATE+KEY+";
/// What a line of a signature begins with: an em dash and a space.
const SIGNATURE_PREFIX: &str = "\u{2014} ";

/// What a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Notes. Spec: C2SP signed-note, "Ed25519 signatures".
    Note,
    /// Other logs' checkpoints, with a time. Spec: C2SP tlog-cosignature.
    Cosignature,
}

impl KeyKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Note => 0x01,
            Self::Cosignature => 0x04,
        }
    }

    fn of(byte: u8) -> Option<Self> {
        [Self::Note, Self::Cosignature].into_iter().find(|kind| kind.byte() == byte)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error("the key is not written as NAME+ID+KEY")]
    Form,
    #[error("the key's name is empty, too long, or has a space or a plus")]
    Name,
    #[error("the key is of a kind that is not known")]
    Kind,
    #[error("the key's id is not that of its name and its bytes")]
    Id,
    #[error("the key's bytes are none")]
    Bytes,
}

/// The public key of a log, or of a witness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: u32,
    kind: KeyKind,
    public: [u8; 32],
}

/// Spec: C2SP signed-note, "Format": not empty, no Unicode spaces, no plus.
fn check_name(name: &str) -> Result<(), KeyError> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || c == '+';
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.contains(is_bad) {
        return Err(KeyError::Name);
    }
    Ok(())
}

impl VerifierKey {
    /// # Errors
    /// [`KeyError::Name`].
    pub fn new(name: &str, kind: KeyKind, public: [u8; 32]) -> Result<Self, KeyError> {
        check_name(name)?;
        // Spec: C2SP signed-note, "Signatures": SHA-256(name || 0x0A || type || key)[:4].
        let mut hash = Sha256::new();
        hash.update(name.as_bytes());
        hash.update([b'\n', kind.byte()]);
        hash.update(public);
        let hash = hash.finalize();
        let id = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        Ok(Self { name: name.to_owned(), id, kind, public })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Whether the line names this key. The id is no proof: only the signature is.
    pub(crate) fn is_named_by(&self, signature: &Signature) -> bool {
        signature.name == self.name && signature.id == self.id
    }

    pub(crate) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.public[..]).verify(message, signature).is_ok()
    }

    fn line(&self, signature: &[u8]) -> Signature {
        Signature { name: self.name.clone(), id: self.id, bytes: signature.to_vec() }
    }
}

/// Spec: C2SP signed-note, "Verifier keys": `<name>+hex(id)+base64(type || key)`.
impl fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![self.kind.byte()];
        key.extend_from_slice(&self.public);
        write!(f, "{}+{:08x}+{}", self.name, self.id, STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let (name, id, kind, public) = read_key(text)?;
        let key = Self::new(name, kind, public)?;
        if key.id == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

fn read_key(text: &str) -> Result<(&str, u32, KeyKind, [u8; 32]), KeyError> {
    if text.len() > MAX_NAME_BYTES + 64 {
        return Err(KeyError::Form);
    }
    let mut parts = text.splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Form);
    };
    let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if id.len() != 8 || !id.bytes().all(is_hex) {
        return Err(KeyError::Form);
    }
    let id = u32::from_str_radix(id, 16).map_err(|_| KeyError::Form)?;
    let key = STANDARD.decode(key).map_err(|_| KeyError::Bytes)?;
    let (kind, public) = key.split_first().ok_or(KeyError::Bytes)?;
    let kind = KeyKind::of(*kind).ok_or(KeyError::Kind)?;
    Ok((name, id, kind, public.try_into().map_err(|_| KeyError::Bytes)?))
}

/// A key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    seed: [u8; 32],
    verifier: VerifierKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey of {}", self.verifier)
    }
}

impl SigningKey {
    /// The key with that seed, which has to be random.
    ///
    /// # Errors
    /// [`KeyError::Name`].
    pub fn from_seed(name: &str, kind: KeyKind, seed: [u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| KeyError::Bytes)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Bytes)?;
        Ok(Self { verifier: VerifierKey::new(name, kind, public)?, pair, seed })
    }

    /// Reads what [`SigningKey::secret_text`] wrote.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_secret_text(text: &str) -> Result<Self, KeyError> {
        let text = text.trim_end_matches('\n').strip_prefix(PRIVATE_PREFIX).ok_or(KeyError::Form)?;
        let (name, id, kind, seed) = read_key(text)?;
        let key = Self::from_seed(name, kind, seed)?;
        if key.verifier.id == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// The private key as one line, in the form that tools for signed notes commonly use. Whoever has it can sign for
    /// this log.
    pub fn secret_text(&self) -> String {
        let mut key = vec![self.verifier.kind.byte()];
        key.extend_from_slice(&self.seed);
        format!("{PRIVATE_PREFIX}{}+{:08x}+{}\n", self.verifier.name, self.verifier.id, STANDARD.encode(key))
    }

    pub fn verifier(&self) -> &VerifierKey {
        &self.verifier
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes.copy_from_slice(self.pair.sign(message).as_ref());
        bytes
    }

    /// Signs a text as a note.
    pub(crate) fn sign_note(&self, text: String) -> Note {
        let signature = self.verifier.line(&self.sign(text.as_bytes()));
        Note { text, signatures: vec![signature] }
    }

    /// The line of a signature that was made with this key.
    pub(crate) fn line(&self, bytes: &[u8]) -> Signature {
        self.verifier.line(bytes)
    }
}

/// One line below a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    pub name: String,
    pub id: u32,
    /// What follows the key's id.
    pub bytes: Vec<u8>,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = self.id.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.bytes);
        write!(f, "{SIGNATURE_PREFIX}{} {}", self.name, STANDARD.encode(bytes))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    #[error("the note is longer than {MAX_NOTE_BYTES} bytes")]
    TooLong,
    #[error("the note is no text, or has control characters in it")]
    Text,
    #[error("the note has no empty line before its signatures")]
    NoSignatures,
    #[error("a line below the note is no signature")]
    Line,
    #[error("the note has more than {MAX_SIGNATURES} signatures")]
    TooMany,
}

/// Why a note does not count as signed by a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the note is not signed by this key")]
    Missing,
    #[error("the signature of this key is wrong")]
    Wrong,
}

/// A text and who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// With its last newline.
    pub text: String,
    pub signatures: Vec<Signature>,
}

impl Note {
    /// # Errors
    /// [`NoteError`].
    pub fn read(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > MAX_NOTE_BYTES {
            return Err(NoteError::TooLong);
        }
        // Spec: C2SP signed-note, "Format": UTF-8, no control characters but the newline.
        let note = std::str::from_utf8(bytes).map_err(|_| NoteError::Text)?;
        if note.bytes().any(|byte| byte < 0x20 && byte != b'\n') {
            return Err(NoteError::Text);
        }
        // The last empty line separates.
        let (text, lines) = note.rsplit_once("\n\n").ok_or(NoteError::NoSignatures)?;
        let lines = lines.strip_suffix('\n').ok_or(NoteError::Line)?;
        let mut signatures = Vec::new();
        for line in lines.split('\n') {
            if signatures.len() == MAX_SIGNATURES {
                return Err(NoteError::TooMany);
            }
            signatures.push(read_signature(line).ok_or(NoteError::Line)?);
        }
        Ok(Self { text: format!("{text}\n"), signatures })
    }

    /// Checks that a log's own key signed this.
    ///
    /// # Errors
    /// [`SignatureError`]; a note with a wrong signature of the key counts as one without it at best.
    pub fn check(&self, key: &VerifierKey) -> Result<(), SignatureError> {
        let mut found = Err(SignatureError::Missing);
        for signature in self.signatures.iter().filter(|signature| key.is_named_by(signature)) {
            if key.kind != KeyKind::Note || !key.has_signed(self.text.as_bytes(), &signature.bytes) {
                return Err(SignatureError::Wrong);
            }
            found = Ok(());
        }
        found
    }
}

fn read_signature(line: &str) -> Option<Signature> {
    let (name, bytes) = line.strip_prefix(SIGNATURE_PREFIX)?.split_once(' ')?;
    check_name(name).ok()?;
    let bytes = STANDARD.decode(bytes).ok()?;
    let (id, bytes) = bytes.split_first_chunk::<4>()?;
    if bytes.is_empty() {
        return None;
    }
    Some(Signature { name: name.to_owned(), id: u32::from_be_bytes(*id), bytes: bytes.to_vec() })
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.signatures.iter().try_for_each(|signature| writeln!(f, "{signature}"))
    }
}
