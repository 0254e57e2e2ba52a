//! The architecture, as a test: which crate may depend on which. Any other edge fails.

// In a test a panic is the report.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// crate → the crates of ours that it may name in `[dependencies]`.
const ALLOWED: &[(&str, &[&str])] = &[
    ("primitives", &[]),
    ("wire", &["primitives"]),
    ("evm", &["primitives"]),
    ("ledger", &["primitives"]),
    ("policy", &["primitives"]),
    // Nothing of ours: it proves what a log says, and does not know what that means.
    ("audit", &[]),
    ("approval", &["primitives", "policy"]),
    ("payment", &["primitives", "ledger"]),
    // `payment` for the words that both use: a transaction's name, a proof, a reason.
    ("channel", &["primitives", "ledger", "payment"]),
    ("rails", &["primitives", "wire", "evm", "payment"]),
    // `wire` for the rail of remote facilitators, whose answers are judged there.
    ("engine", &["primitives", "wire", "evm", "ledger", "payment", "channel", "rails"]),
    // `ap2` for the book of used mandates, which says what has to be kept.
    ("store", &["primitives", "ledger", "payment", "channel", "engine", "ap2"]),
    ("chain", &["primitives", "evm", "engine"]),
    ("devnet", &["primitives", "evm"]),
    ("paywall", &["primitives", "wire", "evm", "payment", "channel", "rails", "engine"]),
    ("facilitator", &["primitives", "wire", "evm", "payment", "rails", "engine", "listener"]),
    ("listener", &[]),
    // Nothing of ours: it describes and reads documents, and knows neither money nor chains.
    ("discovery", &[]),
    (
        "wallet",
        &[
            "primitives",
            "wire",
            "evm",
            "policy",
            "approval",
            "audit",
            "payment",
            "channel",
            "rails",
            "engine",
        ],
    ),
    (
        "guard",
        &[
            "primitives",
            "wire",
            "evm",
            "policy",
            "approval",
            "payment",
            "channel",
            "rails",
            "engine",
            "wallet",
            "listener",
        ],
    ),
    // A method plug-in: what it says is a trait of `rails`, what it does with money one of `engine`.
    ("stripe", &["primitives", "wire", "payment", "rails", "engine"]),
    ("load", &["primitives", "evm"]),
    // It decides on calls of tools, and knows neither wallets nor wires.
    ("toolguard", &["primitives"]),
    // Mandates say who may buy what; what then moves money is no business of theirs. `wire` for its JSON and its times.
    ("ap2", &["primitives", "wire"]),
    ("mcp", &["primitives", "wire", "policy", "approval", "wallet", "listener", "toolguard"]),
    ("proxy", &["primitives", "policy", "wallet", "listener"]),
];

/// Heavy stacks and the only crates that may name them.
const HEAVY: &[(&str, &[&str])] = &[
    ("alloy-provider", &["chain"]),
    ("alloy-rpc-client", &["chain"]),
    ("alloy-transport-http", &["chain"]),
    ("revm", &["devnet"]),
    ("rcgen", &["proxy"]),
    ("rmcp", &["mcp"]),
    // `mcp` for the counters of the calls that its proxy lets through: they belong to a server, not to a wallet.
    ("rusqlite", &["mcp", "store", "wallet"]),
    ("schemars", &["policy"]),
    ("secp256k1", &["evm"]),
    ("serde-saphyr", &["policy", "toolguard"]),
    ("tokio-tungstenite", &["wallet", "farthing"]),
    (
        "tokio",
        &[
            "store",
            "chain",
            "devnet",
            "facilitator",
            "wallet",
            "paywall",
            "load",
            "mcp",
            "farthing",
            "listener",
            "guard",
            "proxy",
        ],
    ),
];

/// Crates that nobody ships and nothing depends on. They may name whatever they measure or test.
const DEVELOPMENT: &[&str] = &["bench", "faultdisk", "fuzzing", "sim"];

#[test]
fn crates_depend_only_on_what_the_architecture_allows() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, dependencies) in manifest_edges() {
        let Some(name) = package.strip_prefix("farthing-") else { continue };
        if DEVELOPMENT.contains(&name) {
            continue;
        }
        let Some(may) = allowed.get(name) else {
            wrong.push(format!("{name} is not in the table of allowed edges"));
            continue;
        };
        for dependency in &dependencies {
            if let Some(ours) = dependency.strip_prefix("farthing-")
                && !may.contains(&ours)
            {
                wrong.push(format!("{name} must not depend on {ours}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn heavy_stacks_live_in_one_place() {
    let mut wrong = Vec::new();
    for (package, dependencies) in manifest_edges() {
        let name = package.strip_prefix("farthing-").unwrap_or(&package);
        for (heavy, homes) in HEAVY {
            if dependencies.contains(*heavy) && !homes.contains(&name) && !DEVELOPMENT.contains(&name) {
                wrong.push(format!("{name} must not depend on {heavy}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Package → its normal dependencies, by cargo's own reading of the manifests.
fn manifest_edges() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    assert!(packages.len() >= 15, "the workspace has fewer crates than the house");
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().expect("a name").to_owned();
            let normal = package["dependencies"].as_array().expect("dependencies").iter();
            let normal = normal
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned());
            (name, normal.collect())
        })
        .collect()
}
