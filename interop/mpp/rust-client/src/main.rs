//! Buys once: `RESOURCE_SERVER_URL` and `ENDPOINT_PATH` say what, `STRIPE_API` where the stand-in is that grants the token
//! (it is not Stripe), and `PAYMENT_METHOD` with which card. Its last line of output is what came of it, as JSON.

use mpp::client::{Fetch, StripeProvider};
use mpp::protocol::methods::stripe::CreateTokenResult;
use mpp::{MppError, parse_receipt};
use reqwest::Client;
use serde_json::{Value, json};

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"))
}

/// The helper that Stripe has for tests; a real buyer's agent asks for a token of its own account.
async fn token(amount: String, currency: String, expires_at: u64) -> Result<CreateTokenResult, MppError> {
    let failed = |error: reqwest::Error| MppError::Http(error.to_string());
    let url = format!("{}/v1/test_helpers/shared_payment/granted_tokens", env("STRIPE_API"));
    let form = [
        ("payment_method", env("PAYMENT_METHOD")),
        ("usage_limits[currency]", currency),
        ("usage_limits[max_amount]", amount),
        ("usage_limits[expires_at]", expires_at.to_string()),
    ];
    let answer = Client::new().post(url).basic_auth(env("STRIPE_SECRET_KEY"), Some("")).form(&form);
    let granted: Value = answer.send().await.map_err(failed)?.json().await.map_err(failed)?;
    let id = granted["id"].as_str().ok_or_else(|| MppError::Http(granted.to_string()))?;
    Ok(CreateTokenResult::from(id.to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let provider =
        StripeProvider::new(|asked| Box::pin(token(asked.amount, asked.currency, asked.expires_at)));
    let url = format!("{}{}", env("RESOURCE_SERVER_URL"), env("ENDPOINT_PATH"));
    // It pays only where the request says that it may.
    let request = Client::new().get(url).header("accept-payment", "stripe/charge");
    let said = match request.send_with_payment(&provider).await {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let receipt = answer.headers().get("payment-receipt").and_then(|value| value.to_str().ok());
            let receipt = receipt.and_then(|text| parse_receipt(text).ok());
            let reference = receipt.map(|receipt| receipt.reference.to_string());
            json!({"status_code": status, "reference": reference, "body": answer.text().await.unwrap_or_default()})
        }
        Err(error) => json!({"error": error.to_string()}),
    };
    println!("{said}");
}
