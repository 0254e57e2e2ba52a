use farthing_channel::{Terms, View};
use farthing_evm::escrow::OnChain;
use farthing_evm::to_alloy;
use farthing_primitives::Timestamp;

/// The escrow's word on a channel after `block`, as both machines take it: the payer's and the payee's. `None` if it is
/// none on this channel.
pub fn channel_view(terms: &Terms, found: &OnChain, block: u64) -> Option<View> {
    let parties = [
        (found.payer, &terms.payer),
        (found.payee, &terms.payee),
        (found.token, terms.asset.address()),
        (found.voucher_signer(), &terms.signer),
    ];
    // The id commits to all of them: a node that says otherwise says nothing.
    if parties.iter().any(|(found, known)| Some(*found) != to_alloy(known)) {
        return None;
    }
    let close_requested =
        (found.close_requested_at > 0).then(|| Timestamp::from_secs(found.close_requested_at));
    let OnChain { deposit, settled, finalized, .. } = *found;
    Some(View { block, deposit, settled, close_requested, finalized })
}
