//! What became of payments: asking the chain, and taking up what a process that is gone left behind.

use std::collections::BTreeMap;

use farthing_engine::TxHash;
use farthing_primitives::{Network, PurchaseId, Timestamp};
use farthing_rails::exact_evm::Checked;
use futures_util::StreamExt;

use super::{Client, FetchError, Options, Outcome, tx_hash};
use crate::authorizer::Denied;
use crate::chain_view::{REORG_MARGIN, Sight};
use crate::journal::{self, Goods, Proof, Purchase};

/// How often the chain is asked about a transaction that the seller just named: its node may be a block ahead of ours.
const LOOKS: u32 = 4;

/// How many purchases are asked about at once.
const AT_ONCE: usize = 8;

/// What [`Client::recover`] did.
#[derive(Debug, Default)]
pub struct Recovered {
    /// How many purchases were given up because nobody has, or can ever use, what was signed for them.
    pub dropped: usize,
    /// What the chain says of each purchase that was open.
    pub sights: Sights,
    /// What came of showing again what was shown and brought nothing yet. [`FetchError::OtherRequest`] is a request
    /// that had a body: who has it calls [`Client::resume`].
    pub shown: Vec<(PurchaseId, Result<Outcome, FetchError>)>,
}

/// What the chain says of purchases; or why it could not be asked, or not be written down.
pub type Sights = Vec<(PurchaseId, Result<Sight, Denied>)>;

impl Client {
    /// What a buyer does when it starts again, whenever and wherever it was stopped. It signs nothing. It may itself be
    /// stopped at any step, and called again.
    ///
    /// 1. What was written down and never signed is given up, and so is what was signed, never shown, and has lapsed.
    /// 2. The chain is asked about every purchase that is open: what it shows is settled; what it proves to be unused
    ///    is released.
    /// 3. What was shown, brought no goods, and is not released is shown again, the same bytes.
    ///
    /// What is open after that stays reserved: the seller or the chain could not be asked, or the authorization has
    /// not lapsed yet. Call it again later; [`Client::reconcile_all`] is enough if nobody wants the goods any more.
    ///
    /// ```no_run
    /// # use farthing_wallet::client::{Client, FetchError, Options, Outcome};
    /// # async fn start(client: Client) -> Result<(), FetchError> {
    /// let recovered = client.recover(&Options::default()).await?;
    /// for (id, shown) in recovered.shown {
    ///     match shown {
    ///         Ok(Outcome::Paid { answer, .. }) => println!("{id} was paid for: {:?}", answer.body.complete()),
    ///         Ok(Outcome::Unknown { why, .. }) => println!("{id} is still open: {why}"),
    ///         Ok(other) => println!("{id} came to nothing: {other:?}"),
    ///         Err(error) => println!("{id} was not shown: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`FetchError::Denied`] if the books cannot be used. Nothing is lost: what is open is open.
    pub async fn recover(&self, options: &Options) -> Result<Recovered, FetchError> {
        let dropped = self.inner.authorizer.recover().await?;
        let sights = self.reconcile_all().await?;
        let left = self.inner.authorizer.abandoned(None).await?;
        // What nobody has seen, nobody waits for: the same request takes it up, or it lapses.
        let left = left.into_iter().filter(|purchase| purchase.shown > 0);
        let shown = futures_util::stream::iter(left)
            .map(|purchase| async move { (purchase.id, self.resume(&purchase.id, None, options).await) })
            .buffered(AT_ONCE)
            .collect()
            .await;
        Ok(Recovered { dropped, sights, shown })
    }

    /// Asks the chain about every purchase that is open, and writes down what it proves. Shows nothing to anybody.
    ///
    /// What a chain has confirmed is asked about once more, when the authorization has lapsed: what a reorganization took
    /// away for good is released.
    pub async fn reconcile_all(&self) -> Result<Sights, Denied> {
        let mut times: BTreeMap<Network, Option<Timestamp>> = BTreeMap::new();
        let mut due = Vec::new();
        for purchase in self.inner.authorizer.open().await? {
            let network = purchase.money.asset().network();
            let time = match (times.get(network), self.view(network)) {
                (Some(time), _) => *time,
                (None, None) => None,
                (None, Some(view)) => *times.entry(network.clone()).or_insert(view.settled_time().await),
            };
            let lapsed = time.is_some_and(|time| time >= purchase.expires.plus(REORG_MARGIN));
            if purchase.instruction.is_some() && (lapsed || !purchase.confirmed) {
                due.push((purchase.id, lapsed));
            }
        }
        let sights = futures_util::stream::iter(due)
            .map(|(id, lapsed)| async move { (id, self.reconcile_one(&id, lapsed).await) })
            .buffered(AT_ONCE);
        Ok(sights.collect().await)
    }

    /// Asks the chain what became of a purchase, and writes down what it proves.
    pub async fn reconcile(&self, id: &PurchaseId) -> Result<Sight, Denied> {
        self.reconcile_one(id, false).await
    }

    /// `lapsed` is whether the authorization ended long enough ago that what the chain says now is final.
    async fn reconcile_one(&self, id: &PurchaseId, lapsed: bool) -> Result<Sight, Denied> {
        let purchase = self.inner.authorizer.purchase(id).await?;
        let sight = self.sight(&purchase, purchase.tx.as_deref().and_then(tx_hash)).await;
        match sight {
            Sight::Settled { tx } => {
                let outcome = journal::Outcome::Settled {
                    tx: Some(tx.to_string()),
                    confirmed: true,
                    // It stays what it is.
                    goods: Goods::Missing,
                    receipt: None,
                    note: None,
                };
                self.inner.authorizer.conclude(id, outcome).await?;
                if lapsed {
                    self.inner.authorizer.finalize(id).await?;
                }
            }
            _ if sight.proves_unused(purchase.expires) => {
                self.inner.authorizer.release(id, Proof::UnusedAfterExpiry).await?;
            }
            Sight::Used | Sight::Unused { .. } | Sight::Unavailable => {}
        }
        Ok(sight)
    }

    /// Looks for a transaction that the seller has just named; `None` without a chain to look at.
    pub(super) async fn look(&self, purchase: &Purchase, tx: TxHash) -> Option<Sight> {
        self.view(purchase.money.asset().network())?;
        let mut sight = Sight::Unavailable;
        for n in 0..LOOKS {
            if n > 0 {
                self.inner.world.sleep(self.inner.patience.first_pause).await;
            }
            sight = self.sight(purchase, Some(tx)).await;
            if matches!(sight, Sight::Settled { .. }) {
                break;
            }
        }
        Some(sight)
    }

    pub(super) async fn sight(&self, purchase: &Purchase, tx: Option<TxHash>) -> Sight {
        let Some(view) = self.view(purchase.money.asset().network()) else { return Sight::Unavailable };
        let recall = |purchase: &Purchase| Checked::recall(purchase.instruction.as_ref()?).ok();
        // An authorizer in another process tells what was signed only once it was shown.
        let checked = match recall(purchase) {
            Some(checked) => Some(checked),
            None => self.inner.authorizer.purchase(&purchase.id).await.ok().as_ref().and_then(recall),
        };
        match checked {
            Some(checked) => view.sight(&checked, tx).await,
            None => Sight::Unavailable,
        }
    }
}
