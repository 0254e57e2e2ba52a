//! What a gateway asks for a resource, in its own words.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farthing_evm::Address;
use farthing_primitives::Network;
use hyper::header::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::http::{Connection, Connector, HttpError, Target};
use crate::payers::Terms;

/// An offer that our buyers can take: scheme `exact` on an EVM chain, by a transfer that the payer signs (EIP-3009).
#[derive(Debug)]
pub struct Offer {
    terms: Terms,
    accepted: Box<RawValue>,
    resource: Box<RawValue>,
}

#[derive(Debug, thiserror::Error)]
pub enum OfferError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("it answers status {0} without an offer: is it a paid resource that speaks x402 version 2?")]
    Unpriced(u16),
    #[error("its offer cannot be read")]
    Unreadable,
    #[error(
        "nothing that it offers is paid by the scheme exact with an EIP-3009 signature on an EVM network"
    )]
    NoneFits,
}

#[derive(Deserialize)]
struct Required {
    resource: Box<RawValue>,
    accepts: Vec<Box<RawValue>>,
}

/// What the load reads of an offer; the rest is only repeated.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accepts {
    scheme: String,
    network: String,
    amount: String,
    asset: Address,
    pay_to: Address,
    extra: Extra,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    name: String,
    version: String,
    asset_transfer_method: Option<String>,
}

/// Asks for a priced resource once, for the offer that all payments of a run then take.
pub async fn ask(target: &Target) -> Result<Offer, OfferError> {
    let mut connection = Connection::new(&Connector::new(target)?, target);
    let (status, headers, _) = connection.exchange(target.get(None)?).await?;
    Offer::read(&headers)?.ok_or(OfferError::Unpriced(status.as_u16()))
}

impl Offer {
    /// The first that fits, of an answer's `PAYMENT-REQUIRED`; `None` if it has no such header.
    ///
    /// Spec: x402 v2, HTTP transport: the header is base64 of the JSON.
    pub fn read(headers: &HeaderMap) -> Result<Option<Self>, OfferError> {
        let Some(header) = headers.get("payment-required") else { return Ok(None) };
        let json = STANDARD.decode(header).map_err(|_| OfferError::Unreadable)?;
        let Required { resource, accepts } =
            serde_json::from_slice(&json).map_err(|_| OfferError::Unreadable)?;
        let fitting = accepts.into_iter().find_map(|accepted| Some((terms(&accepted)?, accepted)));
        let (terms, accepted) = fitting.ok_or(OfferError::NoneFits)?;
        Ok(Some(Self { terms, accepted, resource }))
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    pub fn accepted(&self) -> &str {
        self.accepted.get()
    }

    pub fn resource(&self) -> &str {
        self.resource.get()
    }
}

fn terms(accepted: &RawValue) -> Option<Terms> {
    let asked: Accepts = serde_json::from_str(accepted.get()).ok()?;
    let signed = asked.extra.asset_transfer_method.is_none_or(|method| method == "eip3009");
    if asked.scheme != "exact" || !signed {
        return None;
    }
    let network: Network = asked.network.parse().ok()?;
    Some(Terms {
        chain_id: network.evm_chain_id()?,
        network,
        token: asked.asset,
        name: asked.extra.name,
        version: asked.extra.version,
        pay_to: asked.pay_to,
        atoms: asked.amount.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Option<Offer>, OfferError> {
        let mut headers = HeaderMap::new();
        headers.insert("payment-required", STANDARD.encode(json).parse().unwrap());
        Offer::read(&headers)
    }

    fn accepts(scheme: &str, network: &str, method: &str) -> String {
        format!(
            r#"{{"scheme":"{scheme}","network":"{network}","amount":"250","payTo":"0x5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","maxTimeoutSeconds":60,"extra":{{"name":"USDC","version":"2"{method}}}}}"#
        )
    }

    #[test]
    fn the_first_offer_that_can_be_signed_is_taken_and_repeated_as_it_is() {
        let permit = accepts("exact", "eip155:84532", r#","assetTransferMethod":"permit2""#);
        let good = accepts("exact", "eip155:84532", "");
        let json = format!(
            r#"{{"resource":{{"url":"/w"}},"accepts":[{},{permit},{good}]}}"#,
            accepts("upto", "eip155:84532", "")
        );
        let offer = read(&json).unwrap().unwrap();
        assert_eq!((offer.accepted(), offer.resource()), (good.as_str(), r#"{"url":"/w"}"#));
        assert_eq!((offer.terms().atoms, offer.terms().chain_id), (250, 84532));
        assert_eq!(offer.terms().name, "USDC");
    }

    #[test]
    fn what_cannot_be_taken_is_said() {
        let solana = accepts("exact", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp", "");
        let none = format!(r#"{{"resource":{{}},"accepts":[{solana}]}}"#);
        assert!(matches!(read(&none), Err(OfferError::NoneFits)));
        assert!(matches!(read("[]"), Err(OfferError::Unreadable)));
        assert!(matches!(Offer::read(&HeaderMap::new()), Ok(None)));
    }
}
