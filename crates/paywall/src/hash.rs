//! The request hash: the same payment is answered again only for the same request.

use farthing_primitives::RequestHash;
use http::{HeaderMap, Method};
use sha2::{Digest, Sha256};

/// The headers that a seller's answer usually depends on, and so belong to the request that was paid for.
///
/// Cookies are not among them: they change between two tries of one client, and a buyer who paid must be able to ask
/// again. `Authorization` is: an answer that was made for one account is not shown to another.
const HASHED: [&str; 7] = [
    "accept",
    "accept-encoding",
    "accept-language",
    "authorization",
    "content-encoding",
    "content-type",
    "idempotency-key",
];

/// Hashes what the seller's answer may depend on: method, canonical path and query, some headers, and the body.
///
/// `presenter` is what only the buyer can show again: see [`crate::admit::Shown::presenter`].
pub(crate) fn request_hash(
    presenter: &[u8],
    method: &Method,
    resource: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> RequestHash {
    let mut hash = Sha256::new();
    // Each field goes in after its length, so that no two requests make the same bytes.
    let mut field = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    field(b"farthing request v1");
    field(presenter);
    field(method.as_str().as_bytes());
    field(resource.as_bytes());
    for name in HASHED {
        let values: Vec<_> = headers.get_all(name).iter().collect();
        field(&(values.len() as u64).to_be_bytes());
        values.iter().for_each(|value| field(value.as_bytes()));
    }
    field(body);
    RequestHash(hash.finalize().into())
}
