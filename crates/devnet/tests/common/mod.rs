//! A started chain, and the few words the tests speak with it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use alloy_consensus::crypto::secp256k1::sign_message;
use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEnvelope, TypedTransaction};
use alloy_eips::eip2718::Encodable2718;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex};
use alloy_sol_types::{Eip712Domain, SolCall, SolStruct, eip712_domain, sol};
use farthing_devnet::{DEV_ACCOUNTS, DevAccount, Devnet, DevnetConfig, PERMIT2, USDC};
use serde_json::{Value, json};

sol! {
    #[derive(Debug)]
    struct TransferWithAuthorization { address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce; }
    struct ReceiveWithAuthorization { address from; address to; uint256 value; uint256 validAfter; uint256 validBefore; bytes32 nonce; }
    struct CancelAuthorization { address authorizer; bytes32 nonce; }
    struct Permit { address owner; address spender; uint256 value; uint256 nonce; uint256 deadline; }
    struct TokenPermissions { address token; uint256 amount; }
    struct Witness { address to; uint256 validAfter; }
    struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness; }
    struct PermitTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; }

    interface Token {
        event Transfer(address indexed from, address indexed to, uint256 value);
        event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
        function name() external view returns (string);
        function version() external view returns (string);
        function decimals() external view returns (uint8);
        function totalSupply() external view returns (uint256);
        function DOMAIN_SEPARATOR() external view returns (bytes32);
        function balanceOf(address account) external view returns (uint256);
        function allowance(address owner, address spender) external view returns (uint256);
        function nonces(address owner) external view returns (uint256);
        function transfer(address to, uint256 value) external returns (bool);
        function transferFrom(address from, address to, uint256 value) external returns (bool);
        function approve(address spender, uint256 value) external returns (bool);
        function mint(address to, uint256 value) external returns (bool);
        function blacklist(address account) external;
        function unBlacklist(address account) external;
        function authorizationState(address authorizer, bytes32 nonce) external view returns (bool);
        function cancelAuthorization(address authorizer, bytes32 nonce, bytes signature) external;
    }
    interface SplitSignature {
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        function receiveWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external;
        function permit(address owner, address spender, uint256 value, uint256 deadline, uint8 v, bytes32 r, bytes32 s) external;
    }
    interface WholeSignature {
        function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature) external;
        function permit(address owner, address spender, uint256 value, uint256 deadline, bytes signature) external;
    }
    interface Signed {
        struct Permitted { address token; uint256 amount; }
        struct Transfer { Permitted permitted; uint256 nonce; uint256 deadline; }
        struct Details { address to; uint256 requestedAmount; }
        function permitTransferFrom(Transfer permit, Details details, address owner, bytes signature) external;
        function nonceBitmap(address owner, uint256 word) external view returns (uint256);
        function invalidateUnorderedNonces(uint256 word, uint256 mask) external;
        function DOMAIN_SEPARATOR() external view returns (bytes32);
    }
    interface Proxy {
        struct Permitted { address token; uint256 amount; }
        struct Transfer { Permitted permitted; uint256 nonce; uint256 deadline; }
        struct To { address to; uint256 validAfter; }
        struct Permit2612 { uint256 value; uint256 deadline; bytes32 r; bytes32 s; uint8 v; }
        event Settled();
        event SettledWithPermit();
        event EIP2612PermitFailedWithReason(address indexed token, address indexed owner, string reason);
        function settle(Transfer permit, address owner, To witness, bytes signature) external;
        function settleWithPermit(Permit2612 permit2612, Transfer permit, address owner, To witness, bytes signature) external;
        function PERMIT2() external view returns (address);
    }
    interface Errors {
        error InvalidNonce();
        error InvalidSigner();
        error InvalidAmount();
        error InvalidContractSignature();
        error SignatureExpired(uint256 deadline);
        error PaymentTooEarly();
        error InvalidDestination();
        error Permit2612AmountMismatch();
    }
    interface Wallets {
        function deploy(address owner, bytes32 salt) external returns (address);
        function walletOf(address owner, bytes32 salt) external view returns (address);
        function execute(address target, uint256 value, bytes data) external returns (bytes);
        function isValidSignature(bytes32 digest, bytes signature) external view returns (bytes4);
    }
    interface Multi {
        struct Call3 { address target; bool allowFailure; bytes callData; }
        struct Outcome { bool success; bytes returnData; }
        function aggregate3(Call3[] calls) external returns (Outcome[] outcomes);
        function getChainId() external view returns (uint256);
        function getBlockNumber() external view returns (uint256);
        function getCurrentBlockTimestamp() external view returns (uint256);
    }
}

pub struct Chain {
    pub devnet: Devnet,
    client: reqwest::Client,
}

/// An error as JSON-RPC tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub code: i64,
    pub message: String,
    pub data: Value,
}

pub async fn chain() -> Chain {
    chain_with(DevnetConfig::default()).await
}

pub async fn chain_with(config: DevnetConfig) -> Chain {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Chain { devnet: Devnet::start(config).await.unwrap(), client: reqwest::Client::new() }
}

pub fn dev(index: usize) -> DevAccount {
    DEV_ACCOUNTS[index]
}

pub fn number(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

impl Chain {
    pub async fn post(&self, body: impl Into<reqwest::Body>) -> (u16, String) {
        let answer = self.client.post(self.devnet.rpc_url()).body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    }

    pub async fn rpc(&self, method: &str, params: Value) -> Result<Value, Refusal> {
        let (status, text) = self
            .post(json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string())
            .await;
        assert_eq!(status, 200, "{text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        match answer.get("error") {
            None => Ok(answer["result"].clone()),
            Some(error) => Err(Refusal {
                code: error["code"].as_i64().unwrap(),
                message: error["message"].as_str().unwrap().to_owned(),
                data: error["data"].clone(),
            }),
        }
    }

    pub async fn ok(&self, method: &str, params: Value) -> Value {
        self.rpc(method, params).await.unwrap()
    }

    pub async fn block_number(&self) -> u64 {
        number(&self.ok("eth_blockNumber", json!([])).await)
    }

    pub async fn nonce(&self, address: Address, block: &str) -> u64 {
        number(&self.ok("eth_getTransactionCount", json!([address, block])).await)
    }

    pub async fn now(&self) -> u64 {
        let latest = self.ok("eth_getBlockByNumber", json!(["latest", false])).await;
        number(&latest["timestamp"])
    }

    /// Calls a contract without changing anything.
    pub async fn call<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return, Refusal> {
        let data = self
            .rpc("eth_call", json!([{ "to": to, "data": hex::encode_prefixed(call.abi_encode()) }]))
            .await?;
        let data: Bytes = serde_json::from_value(data).unwrap();
        Ok(C::abi_decode_returns(&data).unwrap())
    }

    /// Sends a call as a transaction of this account and returns the receipt.
    pub async fn send<C: SolCall>(&self, from: DevAccount, to: Address, call: C) -> Value {
        self.send_data(from, to, call.abi_encode()).await
    }

    pub async fn send_data(&self, from: DevAccount, to: Address, data: Vec<u8>) -> Value {
        let request =
            json!({ "from": from.address, "to": to, "data": hex::encode_prefixed(data), "gas": "0x7a120" });
        let hash = self.ok("eth_sendTransaction", json!([request])).await;
        self.ok("eth_getTransactionReceipt", json!([hash])).await
    }

    /// Sends a call that must succeed.
    pub async fn done<C: SolCall>(&self, from: DevAccount, to: Address, call: C) -> Value {
        let receipt = self.send(from, to, call).await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        receipt
    }

    /// Simulates a call that must revert, checks that the mined transaction fails too, and returns why.
    pub async fn refused<C: SolCall + Clone>(&self, from: DevAccount, to: Address, call: C) -> Refusal {
        let data = hex::encode_prefixed(call.abi_encode());
        let refusal = self
            .rpc("eth_call", json!([{ "from": from.address, "to": to, "data": data }]))
            .await
            .unwrap_err();
        assert_eq!(refusal.code, 3, "{refusal:?}");
        let receipt = self.send(from, to, call).await;
        assert_eq!(receipt["status"], "0x0");
        assert_eq!(receipt["logs"], json!([]));
        refusal
    }

    pub async fn usdc(&self, account: Address) -> u64 {
        self.call(USDC, Token::balanceOfCall { account }).await.unwrap().to()
    }

    pub async fn raw(&self, tx: &TxEnvelope) -> Result<Value, Refusal> {
        self.rpc("eth_sendRawTransaction", json!([hex::encode_prefixed(tx.encoded_2718())])).await
    }
}

pub fn sign(account: DevAccount, hash: B256) -> Signature {
    sign_message(account.private_key, hash).unwrap()
}

pub fn bytes(signature: Signature) -> Bytes {
    signature.as_bytes().to_vec().into()
}

pub fn usdc_domain() -> Eip712Domain {
    eip712_domain! { name: "USDC", version: "2", chain_id: 84_532, verifying_contract: USDC, }
}

pub fn permit2_domain() -> Eip712Domain {
    eip712_domain! { name: "Permit2", chain_id: 84_532, verifying_contract: PERMIT2, }
}

pub fn signed<T: SolStruct>(account: DevAccount, message: &T, domain: &Eip712Domain) -> Signature {
    sign(account, message.eip712_signing_hash(domain))
}

/// A plain transfer of one wei.
pub fn transfer(from: DevAccount, nonce: u64, fee: u128) -> TxEnvelope {
    transfer_of(from, nonce, fee, U256::ONE)
}

pub fn transfer_of(from: DevAccount, nonce: u64, fee: u128, value: U256) -> TxEnvelope {
    sealed(
        from,
        TxEip1559 {
            chain_id: 84_532,
            nonce,
            gas_limit: 21_000,
            max_fee_per_gas: fee,
            max_priority_fee_per_gas: fee / 10,
            to: TxKind::Call(dev(18).address),
            value,
            ..TxEip1559::default()
        },
    )
}

pub fn sealed(from: DevAccount, tx: impl Into<TypedTransaction>) -> TxEnvelope {
    let tx: TypedTransaction = tx.into();
    let signature = sign(from, tx.signature_hash());
    TxEnvelope::from(tx.into_signed(signature))
}

pub fn recovered(from: DevAccount, tx: TxEnvelope) -> Recovered<TxEnvelope> {
    Recovered::new_unchecked(tx, from.address)
}
