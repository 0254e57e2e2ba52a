//! What `farthing dev` prints: three things to try, ready to be pasted.

use std::io::{IsTerminal, Write};

use serde_json::json;

use super::node::balance_request;
use super::world::World;
use crate::cli::Failure;

/// A client of the published packages, in ten lines.
const CLIENT: &str = r#"import { wrapFetchWithPaymentFromConfig, decodePaymentResponseHeader } from "@x402/fetch";
import { ExactEvmScheme } from "@x402/evm";
import { privateKeyToAccount } from "viem/accounts";

const account = privateKeyToAccount("KEY"); // for development
const schemes = [{ network: "eip155:84532", client: new ExactEvmScheme(account) }];
const pay = wrapFetchWithPaymentFromConfig(fetch, { schemes });
const answer = await pay("URL");
console.log(answer.status, await answer.json());
console.log(decodePaymentResponseHeader(answer.headers.get("PAYMENT-RESPONSE")));
"#;

/// Says where everything is, and what to try.
pub fn show(world: &World) -> Result<(), Failure> {
    let script = world.dir().join("pay.mjs");
    let stratus = format!("{}/today", world.url("stratus"));
    let payer = world.attacker()?;
    let text = CLIENT.replace("KEY", &payer.private_key.to_string()).replace("URL", &stratus);
    std::fs::write(&script, &text)
        .map_err(|error| Failure::failed(format!("{}: {error}", script.display())))?;
    let mut out = std::io::stdout();
    // Nobody reads it: then nobody needs it.
    let _ = if out.is_terminal() {
        out.write_all(guide(world, &stratus, &text)?.as_bytes())
    } else {
        let ready = json!({
            "service": "dev",
            "url": world.url("stratus"),
            "rpc": world.rpc_url,
            "facilitator": world.facilitator_url,
            "sellers": world.urls,
            "wallets": world.homes(),
            "environment": world.environment("agent").into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "script": script,
        });
        writeln!(out, "{ready}")
    };
    let _ = out.flush();
    Ok(())
}

fn guide(world: &World, url: &str, script: &str) -> Result<String, Failure> {
    let exports: String = world
        .environment("agent")
        .iter()
        .map(|(name, value)| format!("  export {name}='{value}'\n"))
        .collect();
    let balance = balance_request(&world.address_of("agent")?);
    let rpc = &world.rpc_url;
    let files = world.dir().display();
    Ok(format!(
        "A chain at {rpc}, a facilitator at {facilitator}, and sellers at work. Stop it with Ctrl-C.

In another terminal, buy something as the agent:
{exports}  export PATH='{files}/bin':\"$PATH\"
  farthing fetch \"$STRATUS/today?city=Lisbon\" --max 0.01
  sh examples/weather.sh

Look at the agent's USDC, in atoms, by the chain's own word:
  curl -s {rpc} -H 'content-type: application/json' \\
    -d '{balance}'

Let somebody else's program pay {url} (npm i @x402/fetch @x402/evm viem; also in {files}/pay.mjs):

{script}
Prices and stores of the sellers are in {files}.
",
        facilitator = world.facilitator_url,
    ))
}
