//! `[stripe]`, and `stripe` of a `[[route]]`: what it costs by card.

use std::sync::Arc;

use farthing_paywall::{Amount, MethodOffer};
use farthing_primitives::Money;
use farthing_rails::method::Method as _;
use farthing_stripe::{Currency, DEFAULT_API, StripeCharge};
use url::Url;

use super::SecretRef;
use super::document::Value;
use super::reader::Reader;
use super::routes::Defaults;

/// The longest reference of a merchant's, in characters: it goes into Stripe's metadata.
const MAX_EXTERNAL_ID: usize = 255;

/// `[stripe]`.
#[derive(Debug, Clone)]
pub struct StripeConfig {
    pub secret_key: SecretRef,
    pub api_base: Url,
    /// Whether a token is looked at before the service behind is called.
    pub check_tokens: bool,
    /// What challenges say.
    pub method: Arc<StripeCharge>,
}

pub fn stripe(root: &mut Reader<'_>) -> Option<StripeConfig> {
    let mut section = root.table("stripe")?;
    for key in ["secret_key", "network_id"] {
        if !section.has(key) {
            section.problem(key, "[stripe] needs it");
        }
    }
    let secret_key = section.text_as("secret_key", |text| {
        match text.parse::<SecretRef>().map_err(|error| error.to_string())? {
            SecretRef::Keystore(_) => Err("the keystore holds keys of chains: use env: or file:".to_owned()),
            reference => Ok(reference),
        }
    });
    let network_id = section.text("network_id");
    let types = section.list_of("payment_method_types", |text| Ok::<_, String>(text.to_owned()));
    let types = types.unwrap_or_else(|| vec!["card".to_owned()]);
    // INVARIANT: the default is a URL; a test reads it.
    let default = Url::parse(DEFAULT_API).ok();
    let api_base = section.text_as("api_base", api_base).or(default);
    let check_tokens = section.bool("check_tokens", true);
    let method = network_id.and_then(|(network_id, place)| {
        StripeCharge::new(&network_id, types)
            .map_err(|error| section.problem_at(&place, "network_id", error.to_string()))
            .ok()
    });
    section.finish();
    Some(StripeConfig {
        secret_key: secret_key?,
        api_base: api_base?,
        check_tokens,
        method: Arc::new(method?),
    })
}

/// The secret key goes there with each call, so that it is never sent in the clear but to this machine.
fn api_base(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "not a URL".to_owned())?;
    let here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err("a URL with a host is needed".to_owned()),
    };
    if url.scheme() == "https" || (url.scheme() == "http" && here) {
        Ok(url)
    } else {
        Err("the secret key is sent there: use https (http only on this machine)".to_owned())
    }
}

/// `stripe = "0.50 USD"`, `stripe = true` (the route's price in dollars, exactly), or
/// `stripe = { price = "0.50 USD", external_id = "order_1" }`.
pub fn offer(
    route: &mut Reader<'_>,
    defaults: &Defaults<'_>,
    amount: Option<&Amount>,
) -> Option<MethodOffer> {
    let place = route.place_of("stripe")?;
    let problem = |message: String| route.problem_at(&place, "stripe", message);
    if !defaults.mpp {
        problem("stripe is spoken in MPP, and [gateway] says mpp = false".to_owned());
    }
    let Some(config) = defaults.stripe else {
        problem("needs a [stripe] section".to_owned());
        route.take("stripe");
        return None;
    };
    let network = config.method.network();
    let priced = |text: &str| Currency::price(text, network).map_err(|error| error.to_string());
    let (money, external_id) = match route.peek("stripe") {
        Some(Value::Table(_)) => {
            let mut section = route.table("stripe")?;
            if !section.has("price") {
                section.problem("price", "a price such as \"0.50 USD\" is needed");
            }
            let money = section.text_as("price", priced);
            let external_id = section.text_as("external_id", |text| {
                if text.is_empty()
                    || text.chars().count() > MAX_EXTERNAL_ID
                    || text.chars().any(char::is_control)
                {
                    return Err("must be short and printable".to_owned());
                }
                Ok(text.to_owned())
            });
            section.finish();
            (money?, external_id)
        }
        Some(Value::Bool(_)) => {
            let wanted = route.bool("stripe", false);
            if !wanted {
                return None;
            }
            let money =
                dollars(amount, config).map_err(|error| route.problem_at(&place, "stripe", error)).ok()?;
            (money, None)
        }
        _ => (route.text_as("stripe", priced)?, None),
    };
    Some(MethodOffer { method: config.method.clone(), money, external_id })
}

/// A price in dollars as cents. Nothing is rounded; what is less than Stripe charges is no offer, and the route is sold
/// by its other ways alone.
fn dollars(amount: Option<&Amount>, config: &StripeConfig) -> Result<Money, String> {
    let Some(Amount::Dollars(digits)) = amount else {
        return Err(
            "true needs a price of the route in dollars; or say it here, e.g. \"0.50 USD\"".to_owned()
        );
    };
    let usd = Currency::named("usd").and_then(|usd| usd.asset(config.method.network()));
    let usd = usd.ok_or("dollars are not known")?;
    usd.parse(digits).map_err(|error| format!("${digits} has no exact amount in cents: {error}"))
}
