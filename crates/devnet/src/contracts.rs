//! The contracts that are there from the first block on, and where.

use alloy_primitives::{Address, B256, Bytes, address, hex};
use alloy_sol_types::sol;
use serde::Deserialize;

/// Where the USDC-like token lives: the address of USDC on Base Sepolia.
pub const USDC: Address = address!("0x036CbD53842c5426634e7929541eC2318f3dCF7e");
/// Where Permit2 lives on every chain.
pub const PERMIT2: Address = address!("0x000000000022D473030F116dDEE9F6B43aC78BA3");
/// Where the x402 `exact` Permit2 proxy lives on every chain.
pub const X402_EXACT_PROXY: Address = address!("0x402085c248EeA27D92E8b30b2C58ed07f9E20001");
/// Where Multicall3 lives on every chain.
pub const MULTICALL3: Address = address!("0xcA11bde05977b3631167028862bE2a173976CA11");
/// Where our own factory of ERC-1271 wallets lives; it exists on embedded chains only.
pub const WALLET_FACTORY: Address = address!("0xFA270000000000000000000000000000FAc70001");

/// The usual CREATE2 deployer, at its usual address: what anybody deploys on a chain lies here where it does there.
pub const CREATE2_DEPLOYER: Address = address!("0x4e59b44847b379578588920cA78FbF26c0B4956C");
/// Its code. It takes a salt and creation code, and answers with the address.
pub const CREATE2_DEPLOYER_CODE: Bytes = Bytes::from_static(&hex!(
    "7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffe03601600081602082378035828234f5801515603957"
    "8182fd5b8082525050506014600cf3"
));

/// One compiled contract. The files are committed; `contracts/build.mjs --check` proves that they match the source.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Artifact {
    /// The name in the source.
    pub contract_name: String,
    /// What runs once, to deploy it.
    pub bytecode: Bytes,
    /// What stays at the address.
    pub deployed_bytecode: Bytes,
    /// Where it comes to be on every chain, if it is one that anybody may deploy.
    pub deployment: Option<Deployment>,
}

/// How a contract is deployed to the same address on every chain, and how its code is known there.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// The usual CREATE2 deployer, which takes the salt and the creation code.
    pub deployer: Address,
    /// The salt to give it.
    pub salt: B256,
    /// Where the contract comes to be.
    pub address: Address,
    /// The keccak-256 of the creation code.
    pub init_code_hash: B256,
    /// The keccak-256 of what stays at the address (EIP-1052): what a registry of escrows lists.
    pub runtime_code_hash: B256,
}

macro_rules! artifact {
    ($name:literal) => {
        include_str!(concat!("../../../contracts/artifacts/", $name, ".json"))
    };
}

const PLACED: [(Address, &str); 5] = [
    (USDC, artifact!("DevUSDC")),
    (PERMIT2, artifact!("Permit2SignatureTransfer")),
    (X402_EXACT_PROXY, artifact!("X402ExactPermit2Proxy")),
    (MULTICALL3, artifact!("Multicall3")),
    (WALLET_FACTORY, artifact!("DevWalletFactory")),
];

/// Returns the contracts of the first block with their addresses.
///
/// # Errors
/// If a committed artifact is not JSON of the expected shape.
pub fn placed() -> Result<Vec<(Address, Artifact)>, serde_json::Error> {
    let mut placed: Vec<(Address, Artifact)> = PLACED
        .iter()
        .map(|(address, text)| Ok((*address, serde_json::from_str(text)?)))
        .collect::<Result<_, serde_json::Error>>()?;
    let escrow = payment_channel_escrow()?;
    if let Some(deployment) = &escrow.deployment {
        placed.push((deployment.address, escrow));
    }
    Ok(placed)
}

/// Returns the escrow of payment channels. It lies where its deployment says, as on any chain.
///
/// # Errors
/// If the committed artifact is not JSON of the expected shape.
pub fn payment_channel_escrow() -> Result<Artifact, serde_json::Error> {
    serde_json::from_str(artifact!("PaymentChannelEscrow"))
}

/// Returns the wallet with one owner key. It is not deployed; its code also serves as an EIP-7702 delegate.
///
/// # Errors
/// If the committed artifact is not JSON of the expected shape.
pub fn smart_wallet() -> Result<Artifact, serde_json::Error> {
    serde_json::from_str(artifact!("DevSmartWallet"))
}

sol! {
    function mint(address to, uint256 amount) external returns (bool);
}
