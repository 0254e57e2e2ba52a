//! What a browser says that it was asked for.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::{PasskeyError, Site};

/// The longest client data, in bytes: a challenge, an origin, and what browsers may add.
pub(super) const MAX_CLIENT_DATA_BYTES: usize = 8 * 1024;

/// Spec: WebAuthn Level 3 section 5.8.1. Browsers may add members, which say nothing here.
#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(default, rename = "crossOrigin")]
    cross_origin: bool,
    #[serde(rename = "topOrigin")]
    top_origin: Option<String>,
}

/// That a browser was asked `kind` with just this challenge, by a page of the site's own.
pub(super) fn check(
    bytes: &[u8],
    kind: &'static str,
    challenge: &[u8],
    site: &Site,
) -> Result<(), PasskeyError> {
    if bytes.len() > MAX_CLIENT_DATA_BYTES {
        return Err(PasskeyError::TooLong);
    }
    // Spec: section 5.8.1: a dictionary. Of a list serde would take the values by their order, as no browser writes them.
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(PasskeyError::Malformed("client data"));
    }
    let said: ClientData =
        serde_json::from_slice(bytes).map_err(|_| PasskeyError::Malformed("client data"))?;
    // Spec: WebAuthn Level 3 section 7.2 step 10, and section 7.1 step 7.
    if said.kind != kind {
        return Err(PasskeyError::Kind);
    }
    // Spec: section 7.2 step 11, and section 7.1 step 8.
    if said.challenge != URL_SAFE_NO_PAD.encode(challenge) {
        return Err(PasskeyError::Challenge);
    }
    // Spec: section 7.2 step 12, and section 7.1 step 9. Also its port: on a loopback name, another port is another program.
    if said.origin != site.origin {
        return Err(PasskeyError::Origin);
    }
    // Spec: section 7.2 steps 13 and 14, and section 7.1 steps 10 and 11: no page of ours is part of another's.
    if said.cross_origin || said.top_origin.is_some() {
        return Err(PasskeyError::Embedded);
    }
    Ok(())
}
