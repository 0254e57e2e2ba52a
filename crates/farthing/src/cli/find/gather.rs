//! Fetching a seller's documents: bounded in number, bytes and time, from its own origin, and never by redirect.

use std::time::Duration;

use bytes::Bytes;
use farthing_discovery::read::{self, MAX_DOCUMENT_BYTES, Seller};
use farthing_discovery::{LLMS_PATH, OPENAPI_PATH, WELL_KNOWN_PATH};
use farthing_wallet::client::{Body, Exchange, HttpRequest, Reach, Transport};
use http::{StatusCode, header};
use url::Url;

/// How long one document may take. Spec: draft-payment-discovery-00, "Registries".
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// How many documents that an `llms.txt` links to are fetched.
const MAX_LINKED: usize = 2;

/// Reads documents, and no more of each than may be.
pub fn transport() -> Result<Transport, String> {
    Transport::new(MAX_DOCUMENT_BYTES)
}

/// What was found, and by which documents; or why each of them said nothing.
pub async fn gather(
    transport: &impl Exchange,
    start: &Url,
    reach: Reach,
) -> Result<(Seller, Vec<String>), Vec<String>> {
    let mut said = Said { transport, start, reach, seller: None, sources: Vec::new(), problems: Vec::new() };
    let first = if start.path() == "/" { OPENAPI_PATH } else { start.path() };
    said.openapi(first).await;
    if said.seller.is_none() && first != OPENAPI_PATH {
        said.openapi(OPENAPI_PATH).await;
    }
    let page = match said.get(LLMS_PATH).await {
        Ok(bytes) => read::llms(&bytes, start).unwrap_or_default(),
        Err(_) => read::Page::default(),
    };
    if said.seller.is_none() {
        for url in page.documents.iter().filter(|url| url.path() != first).take(MAX_LINKED) {
            if said.seller.is_none() {
                said.openapi(url.path()).await;
            }
        }
    }
    said.well_known().await;
    let Some(mut seller) = said.seller else { return Err(said.problems) };
    if seller.title.is_empty() {
        seller.title = page.title;
    }
    if seller.description.is_empty() {
        seller.description = page.description;
    }
    Ok((seller, said.sources))
}

/// What the documents of one seller have said so far.
struct Said<'a, E> {
    transport: &'a E,
    start: &'a Url,
    reach: Reach,
    seller: Option<Seller>,
    sources: Vec<String>,
    problems: Vec<String>,
}

impl<E: Exchange> Said<'_, E> {
    async fn openapi(&mut self, path: &str) {
        match self
            .get(path)
            .await
            .and_then(|bytes| read::openapi(&bytes, self.start).map_err(|error| error.to_string()))
        {
            Ok(seller) => {
                self.seller = Some(seller);
                self.sources.push(path.to_owned());
            }
            Err(why) => self.problems.push(format!("{path}: {why}")),
        }
    }

    async fn well_known(&mut self) {
        match self
            .get(WELL_KNOWN_PATH)
            .await
            .and_then(|bytes| read::well_known(&bytes, self.start).map_err(|error| error.to_string()))
        {
            Ok(listed) => {
                match &mut self.seller {
                    Some(seller) => seller.merge(listed),
                    None => self.seller = Some(listed),
                }
                self.sources.push(WELL_KNOWN_PATH.to_owned());
            }
            Err(why) => self.problems.push(format!("{WELL_KNOWN_PATH}: {why}")),
        }
    }

    /// A document of the seller's own origin.
    async fn get(&self, path: &str) -> Result<Bytes, String> {
        let url = farthing_discovery::rank::url(self.start, path).ok_or("it leads to another origin")?;
        let mut request = HttpRequest::get(url);
        let accept = http::HeaderValue::from_static("application/json, text/plain;q=0.5");
        request.headers.insert(header::ACCEPT, accept);
        let answer = self.transport.send(&request, None, self.reach, FETCH_TIMEOUT).await;
        let answer = answer.map_err(|error| error.to_string())?;
        match (answer.status, answer.body) {
            (StatusCode::OK, Body::Complete(bytes)) => Ok(bytes),
            (StatusCode::OK, Body::TooLarge { limit }) => Err(format!("it has more than {limit} bytes")),
            (StatusCode::OK, Body::Truncated(_)) => Err("it broke off".to_owned()),
            (status, _) if status.is_redirection() => Err("it redirects, which is not followed".to_owned()),
            (status, _) => Err(format!("it answers {}", status.as_u16())),
        }
    }
}
