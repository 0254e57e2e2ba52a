use super::auth::{Line, Scheme, read_line};
use super::challenge::is_payment;
use super::encoding::{decode_object, encode};
use super::{CREDENTIAL_LIMITS, Challenge, MAX_CREDENTIAL_BYTES, MppError, SCHEME, Source};
use crate::{Json, Object};

/// A payment, or a step of one: the challenge that it answers and the proof.
///
/// Never to be logged: it is worth money until it is consumed.
///
/// Spec: draft-httpauth-payment-00, "Credentials (Authorization)".
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The challenge as the client echoes it. Nothing of it is true before its id is verified.
    pub challenge: Challenge,
    /// What the method defines. See [`Credential::payload`].
    pub payload: Object,
    /// Who says that it pays.
    pub source: Option<Source>,
}

impl Credential {
    pub fn new(challenge: Challenge, payload: Object, source: Option<Source>) -> Self {
        Self { challenge, payload, source }
    }

    /// Finds the one credential of a request, in the values of its `Authorization` and `Payment-Authorization` headers:
    /// `None` if it has none, since other schemes may have the header.
    ///
    /// # Errors
    /// [`MppError::SeveralCredentials`] if there is more than one, whatever they say; else why it cannot be read.
    ///
    /// Spec: draft-httpauth-payment-00: one credential a request.
    pub fn find<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Option<Self>, MppError> {
        let mut found = None;
        for line in lines {
            for token in tokens(line)? {
                if found.replace(token).is_some() {
                    return Err(MppError::SeveralCredentials);
                }
            }
        }
        found.map(Self::from_token).transpose()
    }

    /// Reads a header's value that is a credential, and one alone.
    ///
    /// # Errors
    /// [`MppError`]; [`MppError::NoPaymentScheme`] if it is something else.
    pub fn parse(value: &[u8]) -> Result<Self, MppError> {
        Self::find([value])?.ok_or(MppError::NoPaymentScheme)
    }

    /// Reads what follows the name of the scheme.
    fn from_token(token: &[u8]) -> Result<Self, MppError> {
        Self::from_json(Json::Object(decode_object(token, CREDENTIAL_LIMITS, "credential")?))
    }

    /// Reads a credential as JSON, which is also how JSON-RPC carries it. Unknown members are ignored.
    pub fn from_json(json: Json) -> Result<Self, MppError> {
        let Json::Object(mut object) = json else {
            return Err(MppError::wrong_type("credential", "an object"));
        };
        let challenge = object.remove("challenge").ok_or(MppError::missing("challenge"))?;
        let payload = match object.remove("payload") {
            Some(Json::Object(payload)) => payload,
            None | Some(Json::Null) => return Err(MppError::missing("payload")),
            Some(_) => return Err(MppError::wrong_type("payload", "an object")),
        };
        let source = match object.remove("source") {
            None | Some(Json::Null) => None,
            Some(Json::String(text)) => Some(Source::parse(&text)?),
            Some(_) => return Err(MppError::wrong_type("source", "a string")),
        };
        Ok(Self { challenge: Challenge::from_json(challenge)?, payload, source })
    }

    /// Prints the value of the header that [`Challenge::credential_header`] names.
    ///
    /// # Errors
    /// [`MppError::TooLong`] beyond [`MAX_CREDENTIAL_BYTES`].
    pub fn to_header(&self) -> Result<String, MppError> {
        let json = self.with_challenge(self.challenge.to_echo()).to_string();
        let value = format!("{SCHEME} {}", encode(json));
        if value.len() > MAX_CREDENTIAL_BYTES {
            return Err(MppError::TooLong { limit: MAX_CREDENTIAL_BYTES });
        }
        Ok(value)
    }

    /// As JSON-RPC carries it.
    pub fn to_native(&self) -> Object {
        self.with_challenge(self.challenge.to_native())
    }

    fn with_challenge(&self, challenge: Object) -> Object {
        Object::new()
            .with("challenge", challenge)
            .with("payload", self.payload.clone())
            .with_some("source", self.source.as_ref().map(Source::as_str))
    }
}

/// Without the payload, which is worth money.
impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential")
            .field("challenge", &self.challenge)
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The tokens of the Payment scheme on a line.
fn tokens<'a>(line: &'a [u8]) -> Result<Vec<&'a [u8]>, MppError> {
    // The scheme may stand behind others, so its name is looked for before anything is parsed or refused.
    let mentions = |line: &[u8]| line.windows(SCHEME.len()).any(is_payment);
    if line.len() > MAX_CREDENTIAL_BYTES {
        // Whoever sends so much of another scheme is somebody else's trouble.
        let mentioned = mentions(&line[..MAX_CREDENTIAL_BYTES]);
        return if mentioned {
            Err(MppError::TooLong { limit: MAX_CREDENTIAL_BYTES })
        } else {
            Ok(Vec::new())
        };
    }
    let trimmed = line.trim_ascii();
    if let Some((name, rest)) = trimmed.split_at_checked(SCHEME.len())
        && is_payment(name)
        && let [b' ', token @ ..] = rest
        && token.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
        && !token.is_empty()
    {
        return Ok(vec![token]);
    }
    let Line { schemes, broken } = read_line(trimmed);
    let payments: Vec<Scheme<'a>> = {
        let last = schemes.len().saturating_sub(1);
        let broken = broken.filter(|_| schemes.get(last).is_some_and(|scheme| is_payment(scheme.name)));
        let payments: Vec<_> = schemes.into_iter().filter(|scheme| is_payment(scheme.name)).collect();
        match broken {
            _ if payments.len() > 1 => return Err(MppError::SeveralCredentials),
            Some(error) => return Err(error),
            None => payments,
        }
    };
    let token = |scheme: Scheme<'a>| scheme.token.ok_or(MppError::NotBase64Url { field: "credential" });
    payments.into_iter().map(token).collect()
}
