use farthing_primitives::{Address, AssetId, Money, Network};

use super::{
    CredentialType, PERMIT2, TokenAmount, chain, chain_id, credential_types, credential_types_json, flag,
    hex_bytes, hex_text, optional_address, wire_address,
};
use crate::mpp::{MppError, SessionRequest};
use crate::x402::exact_evm::{Authorization, MAX_SIGNATURE_BYTES, address, bytes32, number};
use crate::x402::fields::{self, Fields};
use crate::x402::{WireAddress, WireError};
use crate::{Json, Object, Uint256};

/// What a session on an EVM chain asks for.
///
/// Spec: draft-evm-session-00, "Request Schema".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub network: Network,
    /// The price of one unit, in atoms of `currency`.
    pub amount: u128,
    pub unit_type: Option<String>,
    pub suggested_deposit: Option<u128>,
    pub currency: WireAddress,
    pub recipient: WireAddress,
    pub description: Option<String>,
    pub external_id: Option<String>,
    pub escrow: WireAddress,
    /// A channel to go on with.
    pub channel_id: Option<[u8; 32]>,
    /// How much more than the last voucher the next must be worth, in atoms; zero if the server does not say.
    pub min_voucher_delta: u128,
    /// Whether the server sends (and pays for) openings and top-ups.
    pub fee_payer: bool,
    /// What the server takes, the most welcome first. Never empty.
    pub credential_types: Vec<CredentialType>,
    pub permit2: Option<WireAddress>,
    /// Details that this version of ours does not know, e.g. of a published package.
    pub other_details: Object,
}

/// One step of a session.
///
/// Spec: draft-evm-session-00, "Payload Actions".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionPayload {
    Open(Open),
    TopUp(TopUp),
    Voucher(Voucher),
    Close { channel_id: [u8; 32], cumulative: u128, signature: Vec<u8> },
}

/// A channel is open, or to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    pub channel_id: [u8; 32],
    pub funding: Funding,
    /// What the first voucher is worth, typically nothing.
    pub cumulative: u128,
    pub voucher_signature: Vec<u8>,
    /// Who signs vouchers, if not the payer. Absent means the zero address in everything that is hashed.
    pub authorized_signer: Option<Address>,
    pub salt: [u8; 32],
}

/// A channel has got, or is to get, a greater deposit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    pub channel_id: [u8; 32],
    pub funding: Funding,
    pub additional_deposit: u128,
    /// There for EIP-3009 alone, whose nonce it goes into.
    pub salt: Option<[u8; 32]>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    pub channel_id: [u8; 32],
    /// All that was ever authorized on the channel, in atoms.
    pub cumulative: u128,
    pub signature: Vec<u8>,
    /// Money to put in first, in the same breath.
    pub deposit: Option<Deposit>,
}

/// A deposit that comes with a voucher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deposit {
    pub for_what: DepositFor,
    /// Never [`Funding::Hash`].
    pub funding: Funding,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DepositFor {
    Open { salt: [u8; 32], authorized_signer: Option<Address> },
    TopUp { salt: Option<[u8; 32]> },
}

/// How money gets into a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Funding {
    /// The client has sent the transaction.
    Hash([u8; 32]),
    /// The server sends it, with an EIP-3009 signature.
    Authorization { authorization: Authorization, signature: Vec<u8> },
    /// The server sends it, with a signature for Permit2.
    Permit2 { permit: ChannelPermit, signature: Vec<u8> },
}

/// What a Permit2 signature for a channel covers, besides the spender, which is the escrow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelPermit {
    pub from: Address,
    pub permitted: TokenAmount,
    pub nonce: Uint256,
    pub deadline: Uint256,
    pub witness: ChannelWitness,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelWitness {
    Open { payee: Address, salt: [u8; 32], authorized_signer: Address },
    TopUp { channel_id: [u8; 32] },
}

impl Session {
    pub fn from_request(session: &SessionRequest) -> Result<Self, MppError> {
        let details = session.method_details.as_ref().ok_or(MppError::missing("methodDetails"))?;
        let mut fields = Fields::of(Json::Object(details.clone()))?;
        let network = chain(&mut fields)?;
        let channel_id = fields.optional_string("channelId")?.map(|text| read32(&text, "channelId"));
        let delta = fields.optional_string("minVoucherDelta")?;
        let delta = delta.map(|text| fields::atoms(&text, "minVoucherDelta")).transpose()?;
        let escrow = fields.string("escrowContract")?;
        let recipient = session.recipient.as_deref().ok_or(MppError::missing("recipient"))?;
        Ok(Self {
            amount: session.amount,
            unit_type: session.unit_type.clone(),
            suggested_deposit: session.suggested_deposit,
            currency: wire_address(&network, &session.currency, "currency")?,
            recipient: wire_address(&network, recipient, "recipient")?,
            description: session.description.clone(),
            external_id: session.external_id.clone(),
            escrow: wire_address(&network, &escrow, "escrowContract")?,
            channel_id: channel_id.transpose()?,
            min_voucher_delta: delta.unwrap_or(0),
            fee_payer: flag(&mut fields, "feePayer")?,
            // Spec: draft-evm-session-00, "Method Details": without a list it is hashes.
            credential_types: credential_types(&mut fields, &[CredentialType::Hash])?,
            permit2: optional_address(&mut fields, &network, "permit2Contract")?,
            other_details: fields.rest(),
            network,
        })
    }

    pub fn to_request(&self) -> SessionRequest {
        let delta = (self.min_voucher_delta > 0).then(|| self.min_voucher_delta.to_string());
        let mut details = Object::new()
            .with("escrowContract", self.escrow.as_str())
            .with_some("channelId", self.channel_id.map(|id| hex_text(&id)))
            .with_some("minVoucherDelta", delta)
            .with("chainId", chain_id(&self.network))
            .with_some("feePayer", self.fee_payer.then_some(true))
            .with("credentialTypes", credential_types_json(&self.credential_types))
            .with_some("permit2Contract", self.permit2.as_ref().map(WireAddress::as_str));
        details.append(&self.other_details);
        SessionRequest {
            amount: self.amount,
            unit_type: self.unit_type.clone(),
            suggested_deposit: self.suggested_deposit,
            currency: self.currency.as_str().to_owned(),
            recipient: Some(self.recipient.as_str().to_owned()),
            description: self.description.clone(),
            external_id: self.external_id.clone(),
            method_details: Some(details),
            other: Object::new(),
        }
    }

    pub fn asset_id(&self) -> AssetId {
        AssetId::new(self.network.clone(), self.currency.address().clone())
    }

    /// The price of one unit.
    pub fn unit_price(&self) -> Money {
        Money::new(self.asset_id(), self.amount)
    }

    /// Where Permit2 is to be called.
    pub fn permit2_address(&self) -> &str {
        self.permit2.as_ref().map_or(PERMIT2, WireAddress::as_str)
    }
}

impl SessionPayload {
    /// # Errors
    /// [`MppError::Unknown`] for an action or type that the draft does not have; [`MppError::Contradiction`] where two
    /// members that must agree do not.
    pub fn from_object(payload: &Object) -> Result<Self, MppError> {
        match fields::text(payload, "action")? {
            "open" => Ok(Self::Open(Open::read(payload)?)),
            "topUp" => Ok(Self::TopUp(TopUp::read(payload)?)),
            "voucher" => Ok(Self::Voucher(Voucher::read(payload)?)),
            "close" => Ok(Self::Close {
                channel_id: bytes32(payload, "channelId")?,
                cumulative: atoms(payload, "cumulativeAmount")?,
                signature: signature(payload, "signature")?,
            }),
            _ => Err(MppError::Unknown { field: "action" }),
        }
    }

    pub fn to_object(&self) -> Object {
        match self {
            Self::Open(open) => open.print(),
            Self::TopUp(top_up) => top_up.print(),
            Self::Voucher(voucher) => voucher.print(),
            Self::Close { channel_id, cumulative, signature } => Object::new()
                .with("action", "close")
                .with("channelId", hex_text(channel_id))
                .with("cumulativeAmount", cumulative.to_string())
                .with("signature", hex_text(signature)),
        }
    }

    pub fn channel_id(&self) -> &[u8; 32] {
        match self {
            Self::Open(open) => &open.channel_id,
            Self::TopUp(top_up) => &top_up.channel_id,
            Self::Voucher(voucher) => &voucher.channel_id,
            Self::Close { channel_id, .. } => channel_id,
        }
    }
}

impl Open {
    fn read(payload: &Object) -> Result<Self, MppError> {
        let open = Self {
            channel_id: bytes32(payload, "channelId")?,
            funding: Funding::read(payload)?,
            cumulative: atoms(payload, "cumulativeAmount")?,
            voucher_signature: signature(payload, "voucherSignature").or_else(|error| {
                // Spec: draft-evm-session-00, "Open Payload": with a hash, `signature` is the voucher's.
                if fields::text(payload, "type")? == "hash" {
                    signature(payload, "signature")
                } else {
                    Err(error)
                }
            })?,
            authorized_signer: optional_signer(payload)?,
            salt: bytes32(payload, "salt")?,
        };
        if let Funding::Permit2 { permit, .. } = &open.funding {
            permit.opens(&open.salt, open.authorized_signer.as_ref())?;
        }
        Ok(open)
    }

    fn print(&self) -> Object {
        let (kind, voucher) = match &self.funding {
            Funding::Hash(_) => ("hash", "signature"),
            other => (other.kind().as_str(), "voucherSignature"),
        };
        let mut object = Object::new()
            .with("action", "open")
            .with("type", kind)
            .with("channelId", hex_text(&self.channel_id));
        object.append(&self.funding.print());
        object
            .with("cumulativeAmount", self.cumulative.to_string())
            .with(voucher, hex_text(&self.voucher_signature))
            .with_some("authorizedSigner", self.authorized_signer.as_ref().map(Address::as_str))
            .with("salt", hex_text(&self.salt))
    }
}

impl TopUp {
    fn read(payload: &Object) -> Result<Self, MppError> {
        let top_up = Self {
            channel_id: bytes32(payload, "channelId")?,
            funding: Funding::read(payload)?,
            additional_deposit: atoms(payload, "additionalDeposit")?,
            salt: optional32(payload, "salt")?,
        };
        top_up.funding.has_salt(top_up.salt.is_some())?;
        if let Funding::Permit2 { permit, .. } = &top_up.funding {
            permit.tops_up(&top_up.channel_id)?;
        }
        // Spec: draft-evm-session-00, "TopUp Payload": both amounts are equal.
        match top_up.funding.amount() {
            Some(amount) if amount != top_up.additional_deposit => {
                Err(MppError::Contradiction { field: "additionalDeposit", other: "authorization" })
            }
            _ => Ok(top_up),
        }
    }

    fn print(&self) -> Object {
        let mut object = Object::new()
            .with("action", "topUp")
            .with("type", self.funding.kind().as_str())
            .with("channelId", hex_text(&self.channel_id))
            .with_some("salt", self.salt.map(|salt| hex_text(&salt)));
        object.append(&self.funding.print());
        object.with("additionalDeposit", self.additional_deposit.to_string())
    }
}

impl Voucher {
    fn read(payload: &Object) -> Result<Self, MppError> {
        let channel_id = bytes32(payload, "channelId")?;
        let deposit = match payload.get("deposit") {
            None | Some(Json::Null) => None,
            Some(Json::Object(deposit)) => Some(Deposit::read(deposit, &channel_id)?),
            Some(_) => return Err(MppError::wrong_type("deposit", "an object")),
        };
        Ok(Self {
            channel_id,
            cumulative: atoms(payload, "cumulativeAmount")?,
            signature: signature(payload, "signature")?,
            deposit,
        })
    }

    fn print(&self) -> Object {
        Object::new()
            .with("action", "voucher")
            .with("channelId", hex_text(&self.channel_id))
            .with("cumulativeAmount", self.cumulative.to_string())
            .with("signature", hex_text(&self.signature))
            .with_some("deposit", self.deposit.as_ref().map(Deposit::print))
    }
}

impl Deposit {
    fn read(object: &Object, channel_id: &[u8; 32]) -> Result<Self, MppError> {
        let funding = Funding::read(object)?;
        // Spec: draft-evm-session-00, "Voucher Payload": what the client sent itself needs no deposit.
        if matches!(funding, Funding::Hash(_)) {
            return Err(MppError::Unknown { field: "type" });
        }
        let for_what = match fields::text(object, "action")? {
            "open" => {
                let (salt, authorized_signer) = (bytes32(object, "salt")?, optional_signer(object)?);
                if let Funding::Permit2 { permit, .. } = &funding {
                    permit.opens(&salt, authorized_signer.as_ref())?;
                }
                DepositFor::Open { salt, authorized_signer }
            }
            "topUp" => {
                let salt = optional32(object, "salt")?;
                funding.has_salt(salt.is_some())?;
                if let Funding::Permit2 { permit, .. } = &funding {
                    permit.tops_up(channel_id)?;
                }
                DepositFor::TopUp { salt }
            }
            _ => return Err(MppError::Unknown { field: "action" }),
        };
        Ok(Self { for_what, funding })
    }

    fn print(&self) -> Object {
        let (action, salt, signer) = match &self.for_what {
            DepositFor::Open { salt, authorized_signer } => ("open", Some(salt), authorized_signer.as_ref()),
            DepositFor::TopUp { salt } => ("topUp", salt.as_ref(), None),
        };
        let mut object = Object::new()
            .with("action", action)
            .with("type", self.funding.kind().as_str())
            .with_some("salt", salt.map(|salt| hex_text(salt)))
            .with_some("authorizedSigner", signer.map(Address::as_str));
        object.append(&self.funding.print());
        object
    }
}

impl Funding {
    fn read(object: &Object) -> Result<Self, MppError> {
        match CredentialType::named(fields::text(object, "type")?) {
            Some(CredentialType::Hash) => Ok(Self::Hash(bytes32(object, "hash")?)),
            Some(CredentialType::Authorization) => Ok(Self::Authorization {
                authorization: Authorization::parse(fields::object(object, "authorization")?)?,
                signature: signature(object, "signature")?,
            }),
            Some(CredentialType::Permit2) => Ok(Self::Permit2 {
                permit: ChannelPermit::read(fields::object(object, "authorization")?)?,
                signature: signature(object, "signature")?,
            }),
            Some(CredentialType::Transaction) | None => Err(MppError::Unknown { field: "type" }),
        }
    }

    fn print(&self) -> Object {
        match self {
            Self::Hash(hash) => Object::new().with("hash", hex_text(hash)),
            Self::Authorization { authorization, signature } => Object::new()
                .with("authorization", authorization.to_object())
                .with("signature", hex_text(signature)),
            Self::Permit2 { permit, signature } => {
                Object::new().with("authorization", permit.print()).with("signature", hex_text(signature))
            }
        }
    }

    pub fn kind(&self) -> CredentialType {
        match self {
            Self::Hash(_) => CredentialType::Hash,
            Self::Authorization { .. } => CredentialType::Authorization,
            Self::Permit2 { .. } => CredentialType::Permit2,
        }
    }

    /// What the signature lets be pulled, in atoms; `None` for a hash, about which only the chain can say.
    pub fn amount(&self) -> Option<u128> {
        match self {
            Self::Hash(_) => None,
            Self::Authorization { authorization, .. } => Some(authorization.value),
            Self::Permit2 { permit, .. } => Some(permit.permitted.amount),
        }
    }

    /// Spec: draft-evm-session-00, "TopUp Payload": a salt is there for EIP-3009, and for nothing else.
    fn has_salt(&self, salt: bool) -> Result<(), MppError> {
        if matches!(self, Self::Authorization { .. }) && !salt {
            Err(MppError::missing("salt"))
        } else {
            Ok(())
        }
    }
}

impl ChannelPermit {
    fn read(object: &Object) -> Result<Self, MppError> {
        let witness = fields::object(object, "witness")?;
        let witness = if witness.contains_key("channelId") {
            ChannelWitness::TopUp { channel_id: bytes32(witness, "channelId")? }
        } else {
            ChannelWitness::Open {
                payee: address(witness, "payee")?,
                salt: bytes32(witness, "salt")?,
                authorized_signer: address(witness, "authorizedSigner")?,
            }
        };
        Ok(Self {
            from: address(object, "from")?,
            permitted: TokenAmount::from_object(fields::object(object, "permitted")?)?,
            nonce: number(object, "nonce")?,
            deadline: number(object, "deadline")?,
            witness,
        })
    }

    fn print(&self) -> Object {
        let witness = match &self.witness {
            ChannelWitness::Open { payee, salt, authorized_signer } => Object::new()
                .with("payee", payee.as_str())
                .with("salt", hex_text(salt))
                .with("authorizedSigner", authorized_signer.as_str()),
            ChannelWitness::TopUp { channel_id } => Object::new().with("channelId", hex_text(channel_id)),
        };
        Object::new()
            .with("from", self.from.as_str())
            .with("permitted", self.permitted.to_object())
            .with("nonce", self.nonce.to_string())
            .with("deadline", self.deadline.to_string())
            .with("witness", witness)
    }

    /// Spec: draft-evm-session-00, "Open Payload": the witness says what the payload says. (Its payee is for whoever
    /// knows the challenge to compare.)
    fn opens(&self, salt: &[u8; 32], signer: Option<&Address>) -> Result<(), MppError> {
        let zero = [0; 20];
        match &self.witness {
            ChannelWitness::Open { salt: signed, authorized_signer, .. }
                if signed == salt
                    && authorized_signer.evm_bytes()
                        == Some(signer.and_then(Address::evm_bytes).unwrap_or(zero)) =>
            {
                Ok(())
            }
            _ => Err(MppError::Contradiction { field: "witness", other: "payload" }),
        }
    }

    fn tops_up(&self, channel: &[u8; 32]) -> Result<(), MppError> {
        match &self.witness {
            ChannelWitness::TopUp { channel_id } if channel_id == channel => Ok(()),
            _ => Err(MppError::Contradiction { field: "witness", other: "payload" }),
        }
    }
}

fn atoms(object: &Object, field: &'static str) -> Result<u128, MppError> {
    Ok(fields::atoms(fields::text(object, field)?, field)?)
}

fn signature(object: &Object, field: &'static str) -> Result<Vec<u8>, MppError> {
    hex_bytes(object, field, MAX_SIGNATURE_BYTES)
}

fn optional32(object: &Object, field: &'static str) -> Result<Option<[u8; 32]>, MppError> {
    match object.get(field) {
        None | Some(Json::Null) => Ok(None),
        Some(_) => Ok(Some(bytes32(object, field)?)),
    }
}

fn read32(text: &str, field: &'static str) -> Result<[u8; 32], MppError> {
    Ok(bytes32(&Object::new().with(field, text), field)?)
}

fn optional_signer(object: &Object) -> Result<Option<Address>, MppError> {
    let field = "authorizedSigner";
    match object.get(field) {
        None | Some(Json::Null) => Ok(None),
        Some(Json::String(text)) => {
            Ok(Some(Address::evm(text).map_err(|error| WireError::Address { field, error })?))
        }
        Some(_) => Err(MppError::wrong_type(field, "a string")),
    }
}
