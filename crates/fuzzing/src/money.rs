//! The tokens, the payer and the moment that all targets share.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use farthing_evm::{Domain, known};
use farthing_evm::{Key, Permit, TransferAuthorization, U256, WitnessTransfer, from_alloy, to_alloy};
use farthing_primitives::{Address, Network, PullMethod, Registry, Timestamp};
use farthing_rails::exact_evm::{Approval, Policy, Presented, Requirement, Token, Tokens};

use crate::input::Input;

/// When the published packages made the vectors, by the clock that they were given.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_795_251_263);

/// Whom the vectors pay.
pub(crate) fn payee() -> Address {
    Address::evm("0x209693Bc6afc0C5328bA36FaF03C514EF312287C").expect("an address")
}

/// The tokens that everybody knows.
pub(crate) fn tokens() -> &'static Tokens {
    static TOKENS: OnceLock<Tokens> = OnceLock::new();
    TOKENS.get_or_init(|| Tokens::new(&Registry::builtin()))
}

/// A payer whose key the fuzzer may use, so that it also gets behind the signature.
pub(crate) fn payer() -> &'static Key {
    static PAYER: OnceLock<Key> = OnceLock::new();
    PAYER.get_or_init(|| Key::from_bytes([0x17; 32]).expect("in range"))
}

/// A thousandth of a dollar on Base Sepolia.
pub(crate) fn asked(method: PullMethod) -> Requirement {
    static ASKED: OnceLock<[Requirement; 2]> = OnceLock::new();
    let both = ASKED.get_or_init(|| {
        let registry = Registry::builtin();
        let asset = registry.dollar(&Network::eip155(84532)).expect("listed");
        let token = tokens().get(&asset.id).expect("listed");
        let minute = Duration::from_secs(60);
        [PullMethod::Eip3009, PullMethod::Permit2].map(|method| {
            Requirement::new(token.clone(), &asset.atoms(1000), &payee(), method, minute)
                .expect("well-formed")
        })
    });
    both[usize::from(method == PullMethod::Permit2)].clone()
}

/// What operators may allow: the default, nothing but keys, and everything.
pub(crate) fn policies() -> &'static [Policy; 3] {
    static POLICIES: OnceLock<[Policy; 3]> = OnceLock::new();
    POLICIES.get_or_init(|| {
        let keys_only = Policy { contract_wallets: false, ..Policy::default() };
        let everything = Policy {
            factories: vec![farthing_evm::Address::repeat_byte(0xfa)],
            max_validity: None,
            ..Policy::default()
        };
        [Policy::default(), keys_only, everything]
    })
}

fn domain(token: &Arc<Token>) -> Option<Domain> {
    let asset = token.asset();
    let domain = asset.domain.as_ref()?;
    let (chain, contract) = (asset.id.network().evm_chain_id()?, to_alloy(asset.id.address())?);
    Some(Domain::new(&domain.name, &domain.version, chain, contract))
}

/// The same, signed by [`payer`] as `how` says: in all the spellings of a signature, and with an approval or without.
pub(crate) fn signed(asked: &Requirement, shown: Presented, how: &mut Input<'_>) -> Option<Presented> {
    let key = payer();
    let spell = |digest, how: &mut Input<'_>| {
        let signature = key.sign(digest);
        let mut bytes = signature.to_bytes().to_vec();
        match how.byte() % 8 {
            0 => bytes[64] -= 27,
            // Spec: EIP-2098.
            1 => {
                bytes.truncate(64);
                bytes[32] |= u8::from(signature.y_is_odd()) << 7;
            }
            2 => {
                let wrapped = farthing_evm::Wrapped {
                    factory: farthing_evm::Address::repeat_byte(0xfa),
                    factory_data: how.blob().to_vec().into(),
                    signature: bytes.into(),
                };
                bytes = farthing_evm::wrap_erc6492(&wrapped).to_vec();
            }
            3 => {
                let at = usize::from(how.byte()) % bytes.len();
                bytes[at] ^= how.byte();
            }
            _ => {}
        }
        farthing_evm::Bytes::from(bytes)
    };
    let chain = asked.network().evm_chain_id()?;
    Some(match shown {
        Presented::Eip3009 { authorization, .. } => {
            let authorization = TransferAuthorization { from: key.address(), ..authorization };
            let signature = spell(authorization.transfer_digest(&domain(asked.token())?), how);
            Presented::Eip3009 { authorization, signature }
        }
        Presented::Permit2 { transfer, .. } => {
            let transfer = WitnessTransfer { spender: known::X402_EXACT_PROXY, ..transfer };
            let signature = spell(transfer.digest(&Domain::permit2(chain)), how);
            let approval = if how.flag() { approval(asked, &transfer, how) } else { None };
            Presented::Permit2 { owner: key.address(), transfer, signature, approval }
        }
    })
}

fn approval(asked: &Requirement, transfer: &WitnessTransfer, how: &mut Input<'_>) -> Option<Box<Approval>> {
    let key = payer();
    let permit = Permit {
        owner: key.address(),
        spender: known::PERMIT2,
        value: transfer.amount,
        nonce: U256::from(how.byte()),
        deadline: transfer.deadline,
    };
    let signature = key.sign(permit.digest(&domain(asked.token())?));
    Some(Box::new(Approval {
        from: key.address(),
        asset: transfer.token,
        spender: permit.spender,
        amount: permit.value,
        nonce: permit.nonce,
        deadline: permit.deadline,
        signature: signature.to_bytes().to_vec().into(),
    }))
}

/// The account of [`payer`].
pub(crate) fn account() -> Address {
    from_alloy(payer().address())
}
