use bytes::Bytes;
use farthing_primitives::{PullMethod, Registry};
use farthing_rails::x402::EXACT;
use farthing_wire::Object;
use farthing_wire::x402::extensions::EIP2612_GAS_SPONSORING;
use farthing_wire::x402::facilitator::{SupportedKind, SupportedResponse};
use farthing_wire::x402::{Message, v1, v2};

use crate::read::written;
use crate::{ServedNetwork, Versions};

/// The answer to `/supported`, which does not change while we run.
///
/// Spec: x402 v2 section 7.3, v1 section 7.3.
pub(crate) fn body(networks: &[ServedNetwork], registry: &Registry, versions: Versions) -> Bytes {
    let mut kinds = Vec::new();
    for served in networks {
        let network = served.chain.network();
        let mut kind = |x402_version, network: &str| {
            let (scheme, network) = (EXACT.to_owned(), network.to_owned());
            kinds.push(SupportedKind { x402_version, scheme, network, extra: None, other: Object::new() });
        };
        // Version 1 has one transfer method, and names for some networks.
        let by_v1 =
            registry.iter().any(|asset| asset.id.network() == network && asset.pull == PullMethod::Eip3009);
        if let Some(name) = network.v1_name().filter(|_| versions.v1 && by_v1) {
            kind(v1::VERSION, name);
        }
        if versions.v2 {
            kind(v2::VERSION, network.as_str());
        }
    }
    // A token with a domain of its own can sign an approval for Permit2, and we submit it.
    let sponsors = versions.v2 && registry.iter().any(|asset| asset.domain.is_some());
    let extensions = if sponsors { vec![EIP2612_GAS_SPONSORING.to_owned()] } else { Vec::new() };
    let mut signers: Vec<String> = Vec::new();
    for relayer in networks.iter().flat_map(|served| &served.relayers) {
        let address = written(relayer);
        if !signers.contains(&address) {
            signers.push(address);
        }
    }
    let signers = vec![("eip155:*".to_owned(), signers)];
    SupportedResponse { kinds, extensions, signers, other: Object::new() }.print().into()
}
