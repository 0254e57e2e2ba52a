//! One SD-JWT: its disclosures put in their places, and the places whose disclosures were withheld.
//!
//! Spec: RFC 9901 section 7.1.

use std::collections::{BTreeMap, BTreeSet};

use farthing_wire::{Json, Object};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::jose::{Jwt, encode, json};
use crate::refusal::Refusal;
use crate::{MAX_DEPTH, MAX_DISCLOSURES, MAX_TEXT_BYTES};

/// What digests are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Hash {
    /// Spec: RFC 9901 section 4.1.1: sha-256 if nothing is said.
    fn of(payload: &Object) -> Result<Self, Refusal> {
        match payload.get("_sd_alg") {
            None => Ok(Self::Sha256),
            Some(name) => match name.as_str() {
                Some("sha-256") => Ok(Self::Sha256),
                Some("sha-384") => Ok(Self::Sha384),
                Some("sha-512") => Ok(Self::Sha512),
                _ => Err(Refusal::HashAlgorithm),
            },
        }
    }

    /// The digest of a text as it was received, in base64url.
    pub fn of_text(self, text: &str) -> String {
        match self {
            Self::Sha256 => encode(&Sha256::digest(text)),
            Self::Sha384 => encode(&Sha384::digest(text)),
            Self::Sha512 => encode(&Sha512::digest(text)),
        }
    }
}

/// A step on the way to a place in a payload. The numbers are those of what is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Member(String),
    Element(usize),
}

/// An SD-JWT of a chain, as it was received.
#[derive(Debug)]
pub(crate) struct Hop<'a> {
    /// With its disclosures and the `~` at its end.
    pub text: &'a str,
    pub jwt: Jwt<'a>,
    pub hash: Hash,
    disclosed: BTreeMap<String, Disclosed>,
}

#[derive(Debug)]
struct Disclosed {
    /// The name of a member; none for an element of an array.
    name: Option<String>,
    value: Json,
}

/// A payload with what was disclosed in its place.
#[derive(Debug)]
pub(crate) struct Shown {
    pub claims: Object,
    /// The objects and arrays where something was withheld. A decoy looks the same.
    pub withheld: Vec<Vec<Step>>,
}

impl<'a> Hop<'a> {
    /// Reads `<JWT>~<disclosure>~…~`.
    pub fn parse(text: &'a str) -> Result<Self, Refusal> {
        let mut parts = text.strip_suffix('~').ok_or(Refusal::Form)?.split('~');
        let jwt = Jwt::parse(parts.next().ok_or(Refusal::Form)?)?;
        let hash = Hash::of(&jwt.payload)?;
        let mut disclosed = BTreeMap::new();
        for part in parts {
            if disclosed.len() == MAX_DISCLOSURES {
                return Err(Refusal::TooManyDisclosures { limit: MAX_DISCLOSURES });
            }
            // A disclosure that came twice is one that nothing refers to.
            if disclosed.insert(hash.of_text(part), Disclosed::read(part)?).is_some() {
                return Err(Refusal::UnusedDisclosure);
            }
        }
        Ok(Self { text, jwt, hash, disclosed })
    }

    /// Whether the disclosure with this digest was shown.
    pub fn shows(&self, digest: &str) -> bool {
        self.disclosed.contains_key(digest)
    }

    /// Spec: RFC 9901 section 7.1 step 3.
    pub fn shown(&self) -> Result<Shown, Refusal> {
        let mut resolver =
            Resolver { hop: self, met: BTreeSet::new(), path: Vec::new(), withheld: Vec::new() };
        let claims = resolver.object(&self.jwt.payload, 0)?;
        // Step 3.e (and 4): no disclosure that nothing refers to.
        if self.disclosed.keys().any(|digest| !resolver.met.contains(digest)) {
            return Err(Refusal::UnusedDisclosure);
        }
        Ok(Shown { claims, withheld: resolver.withheld })
    }
}

impl Disclosed {
    /// Spec: RFC 9901 sections 4.2.1 and 4.2.2: `[salt, name, value]` or `[salt, value]`.
    fn read(text: &str) -> Result<Self, Refusal> {
        let Json::Array(parts) = json(text)? else { return Err(Refusal::Disclosure) };
        let mut parts = parts.into_iter();
        let (salt, second, third) = (parts.next(), parts.next(), parts.next());
        if !matches!(salt, Some(Json::String(salt)) if !salt.is_empty()) || parts.next().is_some() {
            return Err(Refusal::Disclosure);
        }
        match (second, third) {
            (Some(value), None) => Ok(Self { name: None, value }),
            // Step 3.c.ii.3: no claim has one of these names.
            (Some(Json::String(name)), Some(value)) if name != "_sd" && name != "..." => {
                Ok(Self { name: Some(name), value })
            }
            _ => Err(Refusal::Disclosure),
        }
    }
}

struct Resolver<'a, 'b> {
    hop: &'b Hop<'a>,
    met: BTreeSet<String>,
    path: Vec<Step>,
    withheld: Vec<Vec<Step>>,
}

impl<'b> Resolver<'_, 'b> {
    fn value(&mut self, value: &Json, depth: usize) -> Result<Json, Refusal> {
        Ok(match value {
            Json::Object(object) => Json::Object(self.object(object, deeper(depth)?)?),
            Json::Array(items) => Json::Array(self.array(items, deeper(depth)?)?),
            plain => plain.clone(),
        })
    }

    fn object(&mut self, object: &Object, depth: usize) -> Result<Object, Refusal> {
        let mut out = Object::new();
        for (name, value) in object.iter() {
            match name {
                "_sd" => {}
                "_sd_alg" if depth == 0 => {}
                "..." => return Err(Refusal::Disclosure),
                name => {
                    self.enter(name)?;
                    out.insert(name, self.value(value, depth)?);
                    self.path.pop();
                }
            }
        }
        let Some(digests) = object.get("_sd") else { return Ok(out) };
        let mut hides = false;
        for digest in digests.as_array().ok_or(Refusal::Disclosure)? {
            let Some(disclosed) = self.meet(digest)? else {
                hides = true;
                continue;
            };
            let name = disclosed.name.as_deref().ok_or(Refusal::Disclosure)?;
            // Step 3.c.ii.4: what is disclosed takes nothing's place.
            if out.contains_key(name) {
                return Err(Refusal::Disclosure);
            }
            self.enter(name)?;
            out.insert(name, self.value(&disclosed.value, depth)?);
            self.path.pop();
        }
        if hides {
            self.hide()?;
        }
        Ok(out)
    }

    fn array(&mut self, items: &[Json], depth: usize) -> Result<Vec<Json>, Refusal> {
        let mut out = Vec::new();
        let mut hides = false;
        for item in items {
            self.path.push(Step::Element(out.len()));
            // Step 3.c.iii: `{"...": digest}`, and nothing beside it.
            let place = item.as_object().filter(|object| object.contains_key("..."));
            match place {
                None => out.push(self.value(item, depth)?),
                Some(place) if place.len() != 1 => return Err(Refusal::Disclosure),
                Some(place) => {
                    match place.get("...").map(|digest| self.meet(digest)).transpose()?.flatten() {
                        Some(disclosed) if disclosed.name.is_some() => return Err(Refusal::Disclosure),
                        Some(disclosed) => out.push(self.value(&disclosed.value, depth)?),
                        None => hides = true,
                    }
                }
            }
            self.path.pop();
        }
        if hides {
            self.hide()?;
        }
        Ok(out)
    }

    fn enter(&mut self, name: &str) -> Result<(), Refusal> {
        if name.len() > MAX_TEXT_BYTES {
            return Err(Refusal::TooLong { limit: MAX_TEXT_BYTES });
        }
        self.path.push(Step::Member(name.to_owned()));
        Ok(())
    }

    /// Notes that something was withheld here: in no more places than could have been shown.
    fn hide(&mut self) -> Result<(), Refusal> {
        if self.withheld.len() == MAX_DISCLOSURES {
            return Err(Refusal::TooManyDisclosures { limit: MAX_DISCLOSURES });
        }
        self.withheld.push(self.path.clone());
        Ok(())
    }

    /// Step 4: no digest occurs twice, shown or not. So nothing is put into two places, and none into itself.
    fn meet(&mut self, digest: &Json) -> Result<Option<&'b Disclosed>, Refusal> {
        let digest = digest.as_str().ok_or(Refusal::Disclosure)?;
        if !self.met.insert(digest.to_owned()) {
            return Err(Refusal::RepeatedDigest);
        }
        Ok(self.hop.disclosed.get(digest))
    }
}

fn deeper(depth: usize) -> Result<usize, Refusal> {
    if depth == MAX_DEPTH { Err(Refusal::TooDeep { limit: MAX_DEPTH }) } else { Ok(depth + 1) }
}
