//! Messages that are nearly right: a published one, changed in a few places as a script of bytes says.

use farthing_wire::{Json, Limits, Object, json};

use crate::input::Input;

/// The most changes to one message. More of them only make it more wrong.
const MAX_EDITS: usize = 8;

/// What stands in a place until it is swept away.
const GONE: &str = "\u{0}gone";

/// Values that readers treat differently, or that have a meaning somewhere in the protocol.
const VALUES: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-1",
    "60",
    "60.0",
    "1e2",
    "18446744073709551615",
    "18446744073709551616",
    "[]",
    "{}",
    "\"\"",
    "\"0\"",
    "\"1\"",
    "\"00\"",
    "\"1000\"",
    "\"1e4\"",
    "\"340282366920938463463374607431768211455\"",
    "\"340282366920938463463374607431768211456\"",
    "\"115792089237316195423570985008687907853269984665640564039457584007913129639935\"",
    "\"115792089237316195423570985008687907853269984665640564039457584007913129639936\"",
    "\"1795251264\"",
    "\"1795251268\"",
    "\"1795251269\"",
    "\"1795251270\"",
    "\"eip155:84532\"",
    "\"eip155:8453\"",
    "\"eip155:0\"",
    "\"solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp\"",
    "\"base-sepolia\"",
    "\"base\"",
    "\"exact\"",
    "\"upto\"",
    "\"eip3009\"",
    "\"permit2\"",
    "\"upfront\"",
    "\"0x\"",
    "\"0x00\"",
    "\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\"",
    "\"0x833589fcd6edb6e08f4c7c32d4f71b54bda02913\"",
    "\"0xdAC17F958D2ee523a2206206994597C13D831ec7\"",
    "\"0x000000000022D473030F116dDEE9F6B43aC78BA3\"",
    "\"0x0000000000000000000000000000000000000000\"",
    "\"0x0000000000000000000000000000000000000000000000000000000000000000\"",
    "\"USDC\"",
    "\"USD Coin\"",
    "\"settlement_pending\"",
    "\"\\u20ac\"",
];

/// Names that readers look for.
const NAMES: &[&str] = &[
    "x402Version",
    "scheme",
    "network",
    "amount",
    "maxAmountRequired",
    "asset",
    "payTo",
    "maxTimeoutSeconds",
    "extra",
    "name",
    "version",
    "assetTransferMethod",
    "paymentFlow",
    "farthing",
    "extensions",
    "payment-identifier",
    "eip2612GasSponsoring",
    "builder-code",
    "info",
    "schema",
    "id",
    "required",
    "a",
    "s",
    "payload",
    "accepted",
    "authorization",
    "permit2Authorization",
    "signature",
    "resource",
    "url",
    "tags",
    "serviceName",
    "iconUrl",
    "error",
    "errorReason",
    "payer",
    "transaction",
    "validAfter",
    "validBefore",
    "nonce",
    "deadline",
    "x-unknown",
    "",
];

/// Changes `message` as `script` says.
pub(crate) fn edit(mut message: Json, script: &mut Input<'_>) -> Json {
    for _ in 0..MAX_EDITS {
        if script.is_empty() {
            break;
        }
        let at = usize::from(script.u16()) % count(&message);
        let kind = script.byte();
        change(&mut message, &mut at.clone(), &mut |value| *value = changed(value, kind, script));
    }
    swept(message)
}

fn changed(value: &Json, kind: u8, script: &mut Input<'_>) -> Json {
    match kind % 8 {
        0 | 1 => any_value(script),
        2 => Json::from(script.text()),
        3 => Json::from(GONE),
        4 => spliced(value, script),
        5 => Json::from(vec![value.clone()]),
        6 => with_member(value, script),
        _ => Json::from(script.u64()),
    }
}

/// Another member or item, or a member under another name.
fn with_member(value: &Json, script: &mut Input<'_>) -> Json {
    let name = *script.pick(NAMES);
    let more = any_value(script);
    match value {
        Json::Object(object) => object.clone().with(name, more).into(),
        Json::Array(items) => {
            let mut items = items.clone();
            items.push(items.first().cloned().unwrap_or(more));
            items.into()
        }
        other => Object::new().with(name, other.clone()).into(),
    }
}

/// A text with some of its characters replaced.
fn spliced(value: &Json, script: &mut Input<'_>) -> Json {
    let Json::String(text) = value else { return any_value(script) };
    let mut characters: Vec<char> = text.chars().collect();
    let at = usize::from(script.byte()) % (characters.len() + 1);
    let out = usize::from(script.byte() % 4).min(characters.len() - at);
    let with: Vec<char> = String::from_utf8_lossy(script.take(2)).chars().collect();
    characters.splice(at..at + out, with);
    characters.into_iter().collect::<String>().into()
}

fn any_value(script: &mut Input<'_>) -> Json {
    let text: &&str = script.pick(VALUES);
    parsed(text)
}

fn parsed(text: &str) -> Json {
    const ROOMY: Limits = Limits { bytes: 1 << 20, values: 1 << 16, members: 1 << 12 };
    json::parse(text.as_bytes(), ROOMY).expect("JSON")
}

fn count(json: &Json) -> usize {
    1 + match json {
        Json::Array(items) => items.iter().map(count).sum(),
        Json::Object(object) => object.iter().map(|(_, value)| count(value)).sum::<usize>(),
        _ => 0,
    }
}

/// Applies `f` to the value that is `at` places behind the first, in the order of the text.
fn change(json: &mut Json, at: &mut usize, f: &mut dyn FnMut(&mut Json)) -> bool {
    if *at == 0 {
        f(json);
        return true;
    }
    *at -= 1;
    match json {
        Json::Array(items) => items.iter_mut().any(|item| change(item, at, f)),
        Json::Object(object) => {
            let names: Vec<String> = object.iter().map(|(name, _)| name.to_owned()).collect();
            names.into_iter().any(|name| {
                let Some(value) = object.get(&name) else { return false };
                let inside = count(value);
                if *at >= inside {
                    *at -= inside;
                    return false;
                }
                let mut value = value.clone();
                let found = change(&mut value, at, f);
                object.insert(name, value);
                found
            })
        }
        _ => false,
    }
}

fn swept(json: Json) -> Json {
    let kept = |json: &Json| json.as_str() != Some(GONE);
    match json {
        Json::Array(items) => items.into_iter().filter(kept).map(swept).collect::<Vec<_>>().into(),
        Json::Object(object) => object
            .iter()
            .filter(|(_, value)| kept(value))
            .map(|(name, value)| (name, swept(value.clone())))
            .collect::<Object>()
            .into(),
        other => other,
    }
}
