//! `farthing refund`: sends a settled payment back, once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use farthing_engine::Refunded;
use farthing_primitives::PaymentId;
use serde_json::json;

use super::Failure;

/// Send a settled payment back to its payer. Asking again never sends a second refund.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing refund pay_0192… -c farthing.toml --key env:PAYEE_KEY

The gateway that owns the store must be stopped: a store has one writer.
Exit codes: 0 refunded, 1 not refunded, 2 wrong call, 5 on its way (ask again).")]
pub struct RefundArgs {
    /// The payment, as `farthing ledger payments` shows it
    payment: PaymentId,
    /// The gateway's configuration
    #[arg(short, long, default_value = "farthing.toml", value_name = "FILE")]
    config: PathBuf,
    /// The key of the address that was paid: env:NAME, file:PATH or keystore:NAME
    #[arg(long, value_name = "REFERENCE")]
    key: String,
}

pub async fn run(args: RefundArgs) -> Result<ExitCode, Failure> {
    let config = crate::config::load(&args.config).map_err(|error| Failure::usage(error.to_string()))?;
    let key = crate::config::read_key(&args.key).map_err(|error| Failure::usage(error.to_string()))?;
    let rig = crate::wiring::from_config(&config, None)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let (code, value) = match rig.engine.refund(args.payment, &key).await {
        Ok(Refunded::Done { refund, proof }) => {
            (0, json!({"refund": refund.to_string(), "state": "refunded", "transaction": proof.tx.as_str()}))
        }
        Ok(Refunded::Pending { refund }) => (5, json!({"refund": refund.to_string(), "state": "pending"})),
        Err(error) => return Err(Failure::failed(error.to_string())),
    };
    println!("{value}");
    Ok(ExitCode::from(code))
}
