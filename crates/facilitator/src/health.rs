use std::time::Duration;

use farthing_engine::Tag;
use farthing_wire::Object;
use http::StatusCode;
use tokio::sync::Mutex;

use crate::Facilitator;
use crate::answer::Answer;
use crate::read::written;

/// How long a report is repeated: a stranger who asks often costs the nodes nothing.
const KEPT: Duration = Duration::from_secs(1);
/// How long a report waits for any node.
const NODE_WITHIN: Duration = Duration::from_secs(3);

/// The last report, and when it was made. Whoever finds it old makes the next; the others wait for that.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<Option<(Duration, Answer)>>);

impl Facilitator {
    /// How the chains, the relayers and the store do. 503 only if nothing at all can be settled.
    pub(crate) async fn health(&self) -> Answer {
        let mut last = self.0.health.0.lock().await;
        let now = self.world().monotonic();
        if let Some((made, report)) = &*last
            && now.saturating_sub(*made) < KEPT
        {
            return report.clone();
        }
        let report = self.report().await;
        *last = Some((now, report.clone()));
        report
    }

    async fn report(&self) -> Answer {
        let mut networks = Object::new();
        let mut up = 0;
        let mut names: Vec<_> = self.0.networks.iter().collect();
        names.sort_by(|a, b| a.0.cmp(b.0));
        for (network, net) in names {
            let patience = self.world().sleep(NODE_WITHIN);
            let asking = Box::pin(async {
                let head = net.chain.head(Tag::Latest).await.ok().flatten()?;
                let mut relayers = Object::new();
                for relayer in &net.relayers {
                    let wei = net.chain.native_balance(relayer).await.ok()?;
                    relayers.insert(written(relayer), wei.to_string());
                }
                Some((head, relayers))
            });
            let found = match futures_util::future::select(asking, patience).await {
                futures_util::future::Either::Left((found, _)) => found,
                futures_util::future::Either::Right(_) => None,
            };
            let status = match found {
                Some((head, relayers)) => {
                    up += 1;
                    let status = Object::new().with("status", "ok").with("block", head.number);
                    status.with("relayersWei", relayers)
                }
                None => Object::new().with("status", "down"),
            };
            networks.insert(network.as_str(), status);
        }
        let (word, status) = match up {
            0 => ("down", StatusCode::SERVICE_UNAVAILABLE),
            all if all == self.0.networks.len() => ("ok", StatusCode::OK),
            _ => ("degraded", StatusCode::OK),
        };
        let latency = self.0.engine.store().commit_latency().as_millis();
        let report = Object::new()
            .with("status", word)
            .with("networks", networks)
            .with("paymentsUnderWay", self.0.engine.live() as u64)
            .with("commitMs", u64::try_from(latency).unwrap_or(u64::MAX));
        Answer::json(status, report)
    }
}
