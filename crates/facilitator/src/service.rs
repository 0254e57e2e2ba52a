use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_engine::{BoxFuture, Chain, Engine, World};
use farthing_payment::{Fault, Instruction};
use farthing_primitives::{Address, Network, Registry};
use farthing_rails::exact_evm::{Checked, Policy, SignatureStatus, Tokens};
use farthing_wire::x402::ErrorCode;
use futures_util::FutureExt;
use futures_util::future::{Either, select};
use http::StatusCode;

use crate::answer::{Answer, COOLING, GAS_BUDGET, RATE_LIMITED, SOON};
use crate::config::allowed;
use crate::health::Health;
use crate::limit::{Cooling, Gas};
use crate::mirror::{LONGEST, Mirror, Seen, Verdict};
use crate::read::{Asked, Served, written};
use crate::settle::Flights;
use crate::tenant::{Account, Slots, Tenants};
use crate::{FacilitatorConfig, ServedNetwork, SetupError, Versions, supported};

/// How long a verification waits for the chain.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Verifies and settles payments between others. Cheap to clone; all clones share one truth.
#[derive(Clone)]
pub struct Facilitator(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub engine: Engine,
    pub networks: HashMap<Network, Net>,
    pub tokens: Tokens,
    pub policy: Policy,
    pub versions: Versions,
    pub tenants: Tenants,
    /// Of all tenants together.
    pub gas: Gas,
    pub settlements: Slots,
    pub cooling: Cooling,
    pub mirror: Mirror,
    pub flights: Flights,
    pub supported: Bytes,
    pub health: Health,
    reads: Slots,
    contract_reads: Slots,
}

/// One chain that is served.
pub(crate) struct Net {
    pub chain: Arc<dyn Chain>,
    pub relayers: Vec<Address>,
    /// How long a verdict may be repeated: until there may be another block.
    keep: Duration,
}

impl std::fmt::Debug for Facilitator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.networks.keys()).finish()
    }
}

impl Facilitator {
    /// A facilitator that settles through `engine`, which has a rail for each network.
    ///
    /// # Errors
    /// [`SetupError`] names what does not fit.
    pub fn new(
        engine: Engine,
        networks: Vec<ServedNetwork>,
        registry: &Registry,
        config: FacilitatorConfig,
    ) -> Result<Self, SetupError> {
        if networks.is_empty() {
            return Err(SetupError::NoNetwork);
        }
        if !config.versions.v1 && !config.versions.v2 {
            return Err(SetupError::NoVersion);
        }
        let listed = allowed(registry, &networks)?;
        let tokens = Tokens::new(&listed);
        let supported = supported::body(&networks, &listed, config.versions);
        let mut served = HashMap::new();
        for network in networks {
            let name = network.chain.network().clone();
            if engine.rail(&name).is_none() {
                return Err(SetupError::NoRail(name));
            }
            if !listed.iter().any(|asset| asset.id.network() == &name && tokens.get(&asset.id).is_some()) {
                return Err(SetupError::NoToken(name));
            }
            let keep = network.chain.block_time().min(LONGEST);
            let net = Net { chain: network.chain, relayers: network.relayers, keep };
            if served.insert(name.clone(), net).is_some() {
                return Err(SetupError::TwiceServed(name));
            }
        }
        Ok(Self(Arc::new(Inner {
            engine,
            networks: served,
            tokens,
            tenants: Tenants::new(&config.tenants, &config.open)?,
            policy: config.policy,
            versions: config.versions,
            gas: Gas::new(config.gas),
            settlements: Slots::new(config.settlements_in_flight),
            cooling: Cooling::default(),
            mirror: Mirror::default(),
            flights: Flights::default(),
            supported,
            health: Health::default(),
            reads: Slots::new(config.reads),
            contract_reads: Slots::new(config.contract_reads),
        })))
    }

    /// Whether anybody who can connect may use it.
    pub fn is_open(&self) -> bool {
        self.0.tenants.are_open()
    }

    pub fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn world(&self) -> &Arc<dyn World> {
        self.0.engine.world()
    }

    /// Reads what is asked about. Nothing is stored, and the chain is not asked.
    pub(crate) fn read(&self, body: &[u8]) -> Result<Asked, crate::read::Unreadable> {
        let network = |network: &Network| self.0.networks.contains_key(network);
        let served = Served { versions: self.0.versions, network: &network };
        Asked::read(body, &self.0.tokens, served)
    }

    /// Answers `/verify`: would this payment settle now?
    ///
    /// Spec: x402 v2 section 7.1.
    pub(crate) async fn verify(&self, tenant: &Account, body: &[u8]) -> Answer {
        let asked = match self.read(body) {
            Ok(asked) => asked,
            Err(error) => {
                let status = if error.malformed { StatusCode::BAD_REQUEST } else { StatusCode::OK };
                return Answer::invalid(status, error.code, None);
            }
        };
        let payer = written(&asked.presented.claimed_payer());
        let invalid = |status, code: &str| Answer::invalid(status, ErrorCode::from(code), Some(&payer));
        let checked = match asked.check(self.world().now(), &self.0.policy) {
            Ok(checked) => checked,
            Err(refusal) => return invalid(StatusCode::OK, refusal.code()),
        };
        let now = self.world().monotonic();
        if self.0.cooling.is_cooling(checked.network(), &checked.payer(), now) {
            return invalid(StatusCode::OK, COOLING);
        }
        // What could not be settled must not be served.
        if tenant.gas.is_spent(now) {
            return invalid(StatusCode::TOO_MANY_REQUESTS, GAS_BUDGET).retry(Duration::from_secs(60));
        }
        if self.0.gas.is_spent(now) {
            return invalid(StatusCode::SERVICE_UNAVAILABLE, GAS_BUDGET).retry(Duration::from_secs(60));
        }
        if checked.signature_status() == SignatureStatus::NeedsContract
            && let Err(wait) = tenant.contract_wallets.take(now)
        {
            return invalid(StatusCode::TOO_MANY_REQUESTS, RATE_LIMITED).retry(wait);
        }
        match self.verdict(&checked, &checked.instruction()).await {
            Verdict::Valid => Answer::valid(&payer),
            Verdict::Refused(code) => invalid(StatusCode::OK, code),
            Verdict::Unavailable => {
                let code = ErrorCode::UnexpectedVerifyError;
                Answer::invalid(StatusCode::SERVICE_UNAVAILABLE, code, Some(&payer)).retry(SOON)
            }
        }
    }

    /// What the chain says of a payment: now, or less than a block ago.
    pub(crate) async fn verdict(&self, checked: &Checked, instruction: &Instruction) -> Verdict {
        let Some(net) = self.0.networks.get(checked.network()) else { return Verdict::Unavailable };
        let now = self.world().monotonic();
        let ask = || {
            let slots = match checked.signature_status() {
                SignatureStatus::Proven => &self.0.reads,
                SignatureStatus::NeedsContract => &self.0.contract_reads,
            };
            let slot = slots.take().ok_or(())?;
            let (chain, world, checked) = (net.chain.clone(), self.world().clone(), checked.clone());
            let reading: BoxFuture<'static, Verdict> = async move {
                let verdict = read(&*chain, &*world, &checked).await;
                drop(slot);
                verdict
            }
            .boxed();
            Ok(reading)
        };
        match self.0.mirror.see(instruction, now, ask) {
            Ok(Seen::Verdict(verdict)) => verdict,
            Ok(Seen::Asking(reading)) => {
                let verdict = reading.await;
                if verdict != Verdict::Unavailable {
                    self.0.mirror.tell(instruction, verdict, now.saturating_add(net.keep));
                }
                verdict
            }
            // As many as we can bear are asking.
            Err(()) => Verdict::Unavailable,
        }
    }
}

async fn read(chain: &dyn Chain, world: &dyn World, checked: &Checked) -> Verdict {
    let results = match select(chain.read(checked.reads()), world.sleep(READ_WITHIN)).await {
        Either::Left((Ok(results), _)) => results,
        Either::Left((Err(error), _)) => {
            tracing::warn!(%error, "the chain cannot be read");
            return Verdict::Unavailable;
        }
        Either::Right(_) => return Verdict::Unavailable,
    };
    match checked.judge(&results) {
        Ok(_) => Verdict::Valid,
        // An answer that did not come is no refusal.
        Err(refusal) if refusal.fault() == Fault::Chain => Verdict::Unavailable,
        Err(refusal) => Verdict::Refused(refusal.code()),
    }
}
