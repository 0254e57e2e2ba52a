//! What was spent on gas before this process began, from the books: a restart must not give anybody a new budget.

use std::collections::HashMap;
use std::time::Duration;

use farthing_engine::{PaymentFilter, StoreError};
use farthing_payment::{Payment, Role, State};
use farthing_primitives::{PaymentId, TenantId};
use farthing_rails::exact_evm::GasCaps;

use crate::Facilitator;
use crate::tenant::Account;

/// How old a payment may be whose gas still counts: the longest window, and the time from a payment's beginning to its
/// settlement.
const LOOK_BACK: Duration = Duration::from_secs(25 * 3600);
/// How many payments are read at a time.
const PAGE: usize = 500;

impl Facilitator {
    /// Counts as spent what the books say that settlements of the last day cost, by tenant and in all. What was tried
    /// and is not in a block counts at the most that it can have cost.
    ///
    /// [`crate::serve`] does this before it listens; whoever serves [`crate::router`] alone does it once, before.
    ///
    /// # Errors
    /// If the books cannot be read. What is left of a budget is not known then.
    pub async fn recall_spending(&self) -> Result<(), StoreError> {
        let accounts: HashMap<&TenantId, &Account> = self.0.tenants.iter().map(|a| (&a.id, &**a)).collect();
        if self.0.gas.is_unlimited() && accounts.values().all(|account| account.gas.is_unlimited()) {
            return Ok(());
        }
        let (store, now) = (self.0.engine.store(), self.world().now());
        let mut after = Some(PaymentId::new(now.minus(LOOK_BACK), [0; 10]));
        loop {
            let filter = PaymentFilter { after, limit: PAGE, ..PaymentFilter::default() };
            let page = store.payments(filter).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            for payment in &page {
                if payment.role != Role::Facilitator {
                    continue;
                }
                let wei = self.cost_of(payment).await?;
                if wei == 0 {
                    continue;
                }
                let (monotonic, ago) = (self.world().monotonic(), now.since(payment.updated));
                self.0.gas.recall(monotonic, ago, wei);
                if let Some(account) = accounts.get(&payment.tenant) {
                    account.gas.recall(monotonic, ago, wei);
                }
            }
        }
    }

    /// What a payment has cost us in wei, or can have.
    async fn cost_of(&self, payment: &Payment) -> Result<u128, StoreError> {
        match &payment.state {
            State::Claimed | State::Funded | State::Refused { .. } => Ok(0),
            State::Confirming { proof, .. }
            | State::Settled { proof, .. }
            | State::Refunding { proof, .. }
            | State::Refunded { proof, .. } => Ok(proof.fee.as_ref().map_or(0, |fee| fee.atoms())),
            State::Settling { .. } | State::Lapsing { .. } | State::Unknown { .. } | State::Failed { .. } => {
                let slots = self.0.engine.store().slots_of(payment.id).await?;
                let offered =
                    slots.iter().flat_map(|stored| &stored.slot.variants).map(|variant| variant.max_fee);
                // One nonce is filled once, however many variants it has.
                Ok(u128::from(most_gas_of_any(&self.0.policy.gas)).saturating_mul(offered.max().unwrap_or(0)))
            }
        }
    }
}

/// The most gas that any settlement may use.
fn most_gas_of_any(caps: &GasCaps) -> u64 {
    let call = caps.eip3009.max(caps.permit2).max(caps.permit2_with_approval);
    call.saturating_add(caps.wallet).saturating_add(caps.deployment)
}
