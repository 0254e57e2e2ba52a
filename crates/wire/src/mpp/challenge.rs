use std::fmt;
use std::sync::Arc;

use super::auth::{Param, Scheme, is_control, is_token, push_param, read_line};
use super::encoding::{decode_object, encode};
use super::{
    BodyDigest, IntentName, MAX_CHALLENGE_HEADER_BYTES, MAX_REQUEST_BYTES, MethodName, MppError,
    REQUEST_LIMITS, SCHEME, WireTime, digest, header, jcs,
};
use crate::{Json, Object};

/// How many challenges one answer may make.
pub const MAX_CHALLENGES: usize = 32;
/// The longest id, in bytes. Ours have 43.
const MAX_ID_BYTES: usize = 512;
/// The longest realm, in bytes.
const MAX_REALM_BYTES: usize = 1024;
/// The longest digest and the longest name of a header, in bytes.
const MAX_SHORT_BYTES: usize = 256;

/// What a server asks for, in one way to pay; and what a credential echoes.
///
/// Everything that the id binds is kept in the text in which it arrived.
///
/// Spec: draft-httpauth-payment-00, "Challenge (WWW-Authenticate)".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Never empty.
    pub id: String,
    pub realm: String,
    pub method: MethodName,
    pub intent: IntentName,
    pub request: EncodedRequest,
    /// For people. Not bound by the id, and decides nothing.
    pub description: Option<String>,
    /// See [`Challenge::body_digest`].
    pub digest: Option<String>,
    pub expires: Option<WireTime>,
    /// The header that the credential goes into, if it is not `Authorization`.
    pub header: Option<String>,
    /// What the server wants back unchanged. See [`Challenge::opaque_map`].
    pub opaque: Option<String>,
}

/// The `request` of a challenge: its base64url text, which the id binds, beside the object in it.
///
/// `==` compares the text. A copy costs nothing: a route's request is printed once and is in each of its challenges.
#[derive(Clone)]
pub struct EncodedRequest(Arc<Encoded>);

struct Encoded {
    text: Box<str>,
    object: Object,
}

/// The challenges of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenges {
    /// In the order of the server. Never empty.
    pub challenges: Vec<Challenge>,
    /// Payment challenges that we cannot read, each with the reason. A buyer passes over them.
    pub unreadable: Vec<MppError>,
}

impl EncodedRequest {
    /// Prints the object in canonical form.
    ///
    /// # Errors
    /// [`MppError::UnsafeNumber`], or [`MppError::TooLong`] beyond [`MAX_REQUEST_BYTES`].
    pub fn new(object: Object) -> Result<Self, MppError> {
        let text = encode(jcs::print(&object)?);
        if text.len() > MAX_REQUEST_BYTES {
            return Err(MppError::TooLong { limit: MAX_REQUEST_BYTES });
        }
        Ok(Self(Arc::new(Encoded { text: text.into(), object })))
    }

    /// Reads the base64url text. It need not be in canonical form: what is bound is the text.
    pub fn parse(text: &str) -> Result<Self, MppError> {
        let object = decode_object(text.as_bytes(), REQUEST_LIMITS, "request")?;
        Ok(Self(Arc::new(Encoded { text: text.into(), object })))
    }

    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    pub fn object(&self) -> &Object {
        &self.0.object
    }
}

impl PartialEq for EncodedRequest {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for EncodedRequest {}

impl fmt::Debug for EncodedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.object(), f)
    }
}

impl Challenges {
    /// Reads the values of all `WWW-Authenticate` headers of an answer: several challenges in one line, in several, and
    /// other schemes among them.
    ///
    /// # Errors
    /// [`MppError::NoPaymentScheme`] if nobody asks for a payment; the first reason if none of the challenges can be
    /// read; and [`MppError`] for more than [`MAX_CHALLENGE_HEADER_BYTES`] or [`MAX_CHALLENGES`].
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, MppError> {
        let (mut challenges, mut unreadable) = (Vec::new(), Vec::new());
        let mut bytes = 0usize;
        for line in lines {
            bytes = bytes.saturating_add(line.len());
            if bytes > MAX_CHALLENGE_HEADER_BYTES {
                return Err(MppError::TooLong { limit: MAX_CHALLENGE_HEADER_BYTES });
            }
            let read = read_line(line);
            let whole = read.schemes.len() - usize::from(read.broken.is_some() && !read.schemes.is_empty());
            for (at, scheme) in read.schemes.iter().enumerate() {
                if !is_payment(scheme.name) {
                    continue;
                }
                if challenges.len() + unreadable.len() == MAX_CHALLENGES {
                    return Err(MppError::TooManyChallenges { limit: MAX_CHALLENGES });
                }
                // What was being read when the line broke may lack a parameter that changes its meaning.
                match (&read.broken, at < whole) {
                    (Some(error), false) => unreadable.push(error.clone()),
                    _ => match Challenge::of(scheme) {
                        Ok(challenge) => challenges.push(challenge),
                        Err(error) => unreadable.push(error),
                    },
                }
            }
        }
        if !challenges.is_empty() {
            return Ok(Self { challenges, unreadable });
        }
        Err(unreadable.into_iter().next().unwrap_or(MppError::NoPaymentScheme))
    }
}

pub(super) fn is_payment(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(SCHEME.as_bytes())
}

impl Challenge {
    /// Reads the one challenge of a header.
    ///
    /// # Errors
    /// [`MppError`]; [`MppError::TooManyChallenges`] if there are more.
    pub fn parse(line: &[u8]) -> Result<Self, MppError> {
        let all = Challenges::parse([line])?;
        let mut challenges = all.challenges.into_iter();
        match (challenges.next(), challenges.next(), all.unreadable.is_empty()) {
            (Some(challenge), None, true) => Ok(challenge),
            _ => Err(MppError::TooManyChallenges { limit: 1 }),
        }
    }

    fn of(scheme: &Scheme<'_>) -> Result<Self, MppError> {
        if scheme.token.is_some() {
            return Err(MppError::missing("id"));
        }
        let params = &scheme.params;
        let text = |name: &'static str| optional(params, name);
        let required = |name: &'static str| text(name)?.ok_or(MppError::missing(name));
        let request = required("request")?;
        Self {
            id: required("id")?,
            realm: required("realm")?,
            method: required("method")?.parse()?,
            intent: required("intent")?.parse()?,
            request: EncodedRequest::parse(&request)?,
            description: text("description")?,
            digest: text("digest")?,
            expires: text("expires")?.map(|text| WireTime::read(&text, "expires")).transpose()?,
            header: text("header")?,
            opaque: text("opaque")?,
        }
        .checked()
    }

    /// What holds of every challenge that is read, from whatever transport.
    fn checked(mut self) -> Result<Self, MppError> {
        // Spec: draft-httpauth-payment-00, "Required Parameters": the id is not empty.
        if self.id.is_empty() {
            return Err(MppError::empty("id"));
        }
        let bounded = [
            ("id", Some(&self.id), MAX_ID_BYTES),
            ("realm", Some(&self.realm), MAX_REALM_BYTES),
            ("digest", self.digest.as_ref(), MAX_SHORT_BYTES),
            ("header", self.header.as_ref(), MAX_SHORT_BYTES),
            ("opaque", self.opaque.as_ref(), MAX_REQUEST_BYTES),
        ];
        for (field, text, limit) in bounded {
            if text.is_some_and(|text| text.len() > limit) {
                return Err(MppError::too_many(field, limit));
            }
        }
        if self.digest.as_ref().is_some_and(|text| !text.starts_with(digest::PREFIX)) {
            return Err(MppError::BadForm { field: "digest" });
        }
        if let Some(name) = &self.header {
            if name.is_empty() || !name.bytes().all(is_token) {
                return Err(MppError::BadForm { field: "header" });
            }
            // The default says nothing, and is not bound.
            if name.eq_ignore_ascii_case(header::AUTHORIZATION) {
                self.header = None;
            }
        }
        Ok(self)
    }

    /// Prints the value of `WWW-Authenticate`, in ASCII, with the parameters in the order of the published package.
    ///
    /// # Errors
    /// [`MppError::Unprintable`] for a control character, [`MppError::Member`] for an empty id.
    pub fn to_header(&self) -> Result<String, MppError> {
        if self.id.is_empty() {
            return Err(MppError::empty("id"));
        }
        let mut out = String::with_capacity(256 + self.request.as_str().len());
        out.push_str(SCHEME);
        let params = [
            ("id", Some(self.id.as_str())),
            ("realm", Some(&self.realm)),
            ("method", Some(self.method.as_str())),
            ("intent", Some(self.intent.as_str())),
            ("request", Some(self.request.as_str())),
            ("description", self.description.as_deref()),
            ("digest", self.digest.as_deref()),
            ("expires", self.expires.as_ref().map(WireTime::as_str)),
            ("header", self.header.as_deref()),
            ("opaque", self.opaque.as_deref()),
        ];
        let mut separator = " ";
        for (name, value) in params {
            if let Some(value) = value {
                out.push_str(separator);
                push_param(&mut out, name, value)?;
                separator = ", ";
            }
        }
        Ok(out)
    }

    /// The header that a credential for this challenge goes into, as it was spelled.
    pub fn credential_header(&self) -> &str {
        self.header.as_deref().unwrap_or(header::AUTHORIZATION)
    }

    /// The digest that the body of the paid request must have.
    ///
    /// # Errors
    /// [`MppError::BadForm`] if it is no SHA-256 in either spelling: the challenge cannot be met.
    pub fn body_digest(&self) -> Result<Option<BodyDigest>, MppError> {
        self.digest.as_deref().map(str::parse).transpose()
    }

    /// What `opaque` says, in the order in which it was printed.
    ///
    /// # Errors
    /// [`MppError`] if it is not base64url of a flat JSON object of texts. Buyers have no use for it and send it back
    /// unread.
    pub fn opaque_map(&self) -> Result<Vec<(String, String)>, MppError> {
        let field = "opaque";
        let Some(text) = &self.opaque else { return Ok(Vec::new()) };
        let object = decode_object(text.as_bytes(), REQUEST_LIMITS, field)?;
        let entry = |(key, value): (&str, &Json)| {
            let value = value.as_str().ok_or(MppError::wrong_type(field, "an object of strings"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        object.iter().map(entry).collect()
    }

    /// Writes `opaque`.
    pub fn encode_opaque<K: Into<String>>(
        entries: impl IntoIterator<Item = (K, String)>,
    ) -> Result<String, MppError> {
        opaque_of(&entries.into_iter().collect())
    }

    /// Reads a challenge as JSON: as a credential echoes it (`request` in base64url) and as JSON-RPC carries it
    /// (`request` as an object). Both are read everywhere, since both are found.
    ///
    /// # Errors
    /// [`MppError`].
    pub fn from_json(json: Json) -> Result<Self, MppError> {
        let Json::Object(mut object) = json else {
            return Err(MppError::wrong_type("challenge", "an object"));
        };
        let mut text = |field: &'static str| match object.remove(field) {
            None | Some(Json::Null) => Ok(None),
            // What no header can carry was never in a challenge of ours, nor can it be passed on.
            Some(Json::String(text)) if text.chars().any(is_control) => Err(MppError::BadForm { field }),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(_) => Err(MppError::wrong_type(field, "a string")),
        };
        let id = text("id")?.ok_or(MppError::missing("id"))?;
        let realm = text("realm")?.ok_or(MppError::missing("realm"))?;
        let method = text("method")?.ok_or(MppError::missing("method"))?.parse()?;
        let intent = text("intent")?.ok_or(MppError::missing("intent"))?.parse()?;
        let (description, digest, header) = (text("description")?, text("digest")?, text("header")?);
        let expires = text("expires")?.map(|text| WireTime::read(&text, "expires")).transpose()?;
        let request = match object.remove("request") {
            Some(Json::String(text)) => EncodedRequest::parse(&text)?,
            Some(Json::Object(request)) => EncodedRequest::new(request)?,
            None | Some(Json::Null) => return Err(MppError::missing("request")),
            Some(_) => return Err(MppError::wrong_type("request", "base64url or an object")),
        };
        let opaque = match object.remove("opaque") {
            None | Some(Json::Null) => match object.remove("meta") {
                // The published package's own name for it, where it has been read already.
                Some(Json::Object(entries)) => Some(opaque_of(&entries)?),
                _ => None,
            },
            Some(Json::String(text)) if text.chars().any(is_control) => {
                return Err(MppError::BadForm { field: "opaque" });
            }
            Some(Json::String(text)) => Some(text),
            // Old versions of the published package send it as an object.
            Some(Json::Object(entries)) => Some(opaque_of(&entries)?),
            Some(_) => return Err(MppError::wrong_type("opaque", "base64url or an object")),
        };
        Self { id, realm, method, intent, request, description, digest, expires, header, opaque }.checked()
    }

    /// As a credential in a header echoes it: `request` in base64url, members in the order of the published package.
    pub fn to_echo(&self) -> Object {
        let before = self.common();
        before.with_some("opaque", self.opaque.as_deref()).with("request", self.request.as_str())
    }

    /// As JSON-RPC carries it: `request` as an object.
    ///
    /// Spec: draft-payment-transport-mcp-00, "Challenge Structure".
    pub fn to_native(&self) -> Object {
        self.common()
            .with_some("opaque", self.opaque.as_deref())
            .with("request", self.request.object().clone())
    }

    fn common(&self) -> Object {
        Object::new()
            .with_some("description", self.description.as_deref())
            .with_some("digest", self.digest.as_deref())
            .with_some("expires", self.expires.as_ref().map(WireTime::as_str))
            .with_some("header", self.header.as_deref())
            .with("id", self.id.as_str())
            .with("intent", self.intent.as_str())
            .with("method", self.method.as_str())
            .with("realm", self.realm.as_str())
    }
}

fn optional(params: &[Param<'_>], name: &'static str) -> Result<Option<String>, MppError> {
    let param = params.iter().find(|param| param.name.eq_ignore_ascii_case(name.as_bytes()));
    param.map(|param| Ok(param.value.text(name)?.into_owned())).transpose()
}

fn opaque_of(entries: &Object) -> Result<String, MppError> {
    if !entries.iter().all(|(_, value)| value.as_str().is_some()) {
        return Err(MppError::wrong_type("opaque", "an object of strings"));
    }
    Ok(encode(jcs::print(entries)?))
}
