//! `/settle`: a payment becomes a sale of the engine, which claims it and settles it once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use farthing_engine::{Sale, SaleOutcome};
use farthing_payment::{Binding, Bound, ConsumptionKey, Dialect, Fault, Flow, Payment, Role, State, Terms};
use farthing_primitives::{PullMethod, RequestHash, TenantId, Timestamp};
use farthing_rails::exact_evm::{Checked, GasCaps, SignatureStatus};
use farthing_wire::x402::ErrorCode;
use farthing_wire::x402::facilitator::SettleResponse;
use futures_channel::oneshot;
use futures_util::FutureExt;
use futures_util::future::Shared;
use http::StatusCode;
use sha2::{Digest, Sha256};

use crate::Facilitator;
use crate::answer::{Answer, COOLING, GAS_BUDGET, RATE_LIMITED, SOON, TOO_MANY_SETTLEMENTS};
use crate::limit::{Gas, Reserved, lock};
use crate::mirror::Verdict;
use crate::read::{Asked, written};
use crate::tenant::{Account, Slot};

/// What became of a settlement, in no dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Settled {
    Done {
        tx: String,
    },
    /// No money moved, or what moved is not this payment.
    Failed {
        code: ErrorCode,
        tx: String,
    },
    /// Sent. It cannot be told yet.
    Pending {
        tx: String,
    },
    /// It cannot even be told whether it was sent.
    Unsure,
    /// Nothing was tried.
    Unavailable,
    /// Nothing was tried, because that would be more than is allowed now.
    Limited {
        status: StatusCode,
        code: &'static str,
        wait: Duration,
    },
}

/// Settlements that wait for the chain, each with all who wait for it.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<FlightKey, Flight>>);

type Flight = Shared<oneshot::Receiver<Settled>>;
type FlightKey = (TenantId, ConsumptionKey, RequestHash);

impl std::fmt::Debug for Flights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flights({})", lock(&self.0).len())
    }
}

/// Ends a flight, also if its task dies.
struct Landing {
    service: Facilitator,
    key: FlightKey,
    tell: Option<oneshot::Sender<Settled>>,
}

impl Drop for Landing {
    fn drop(&mut self) {
        lock(&self.service.0.flights.0).remove(&self.key);
    }
}

/// What a settlement may use while it is in flight. Gas that is not settled stays counted as spent.
#[derive(Debug, Default)]
struct Admission {
    /// Of the tenant, and of all.
    _places: Option<(Slot, Slot)>,
    gas: Option<(Reserved, Reserved)>,
}

impl Facilitator {
    /// Answers `/settle`. The same payment again has the original outcome.
    ///
    /// Spec: x402 v2 section 7.2.
    pub(crate) async fn settle(&self, tenant: &Arc<Account>, body: &[u8]) -> Answer {
        let asked = match self.read(body) {
            Ok(asked) => asked,
            Err(error) => {
                let status = if error.malformed { StatusCode::BAD_REQUEST } else { StatusCode::OK };
                return Answer::settlement(status, &SettleResponse::failed(&error.network, error.code, None));
            }
        };
        let now = self.world().now();
        let (checked, over) = match asked.check(now, &self.0.policy) {
            Ok(checked) => (checked, None),
            // Too late for a new payment, but perhaps it was settled in time.
            Err(refusal) => match asked.check_past(&refusal, &self.0.policy) {
                Some(checked) => (checked, Some(refusal)),
                None => {
                    let code = ErrorCode::from(refusal.code());
                    return asked.answer(&Settled::Failed { code, tx: String::new() });
                }
            },
        };
        let sale = sale(tenant, &asked, &checked);
        let key = (sale.tenant.clone(), sale.key.clone(), sale.binding.request);
        if let Some(flight) = self.under_way(&key) {
            return asked.answer(&wait(flight).await);
        }
        let admitted = match over {
            Some(refusal) => {
                Err(Settled::Failed { code: ErrorCode::from(refusal.code()), tx: String::new() })
            }
            None => self.admit(tenant, &checked).await,
        };
        let admission = match admitted {
            Ok(admission) => admission,
            // A limit must never hide what became of a payment that we have begun to settle.
            Err(refused) => match (self.under_way(&key), self.holds(&sale).await) {
                (Some(flight), _) => return asked.answer(&wait(flight).await),
                (None, Some(true)) => Admission::default(),
                (None, Some(false)) => return asked.answer(&refused),
                (None, None) => return asked.answer(&Settled::Unsure),
            },
        };
        let settled = wait(self.fly(tenant.clone(), key, sale, checked, admission)).await;
        asked.answer(&settled)
    }

    fn under_way(&self, key: &FlightKey) -> Option<Flight> {
        lock(&self.0.flights.0).get(key).cloned()
    }

    /// Whether this tenant has begun to settle this payment; `None` if it cannot be told.
    async fn holds(&self, sale: &Sale) -> Option<bool> {
        let holder = self.0.engine.store().holder(&sale.key).await.ok()?;
        Some(holder.is_some_and(|held| {
            held.role == Role::Facilitator
                && held.tenant == sale.tenant
                && held.binding.request == sale.binding.request
        }))
    }

    /// Whether a new settlement may begin. Cheap questions first; the last ones may ask the chain.
    async fn admit(&self, tenant: &Account, checked: &Checked) -> Result<Admission, Settled> {
        let now = self.world().monotonic();
        let limited = |status, code, wait| Settled::Limited { status, code, wait };
        if self.0.cooling.is_cooling(checked.network(), &checked.payer(), now) {
            return Err(Settled::Failed { code: ErrorCode::from(COOLING), tx: String::new() });
        }
        let of_tenant = tenant.settlements.take().ok_or(limited(
            StatusCode::TOO_MANY_REQUESTS,
            TOO_MANY_SETTLEMENTS,
            SOON,
        ))?;
        let of_all = self.0.settlements.take().ok_or(limited(
            StatusCode::SERVICE_UNAVAILABLE,
            TOO_MANY_SETTLEMENTS,
            SOON,
        ))?;
        if checked.signature_status() == SignatureStatus::NeedsContract {
            tenant
                .contract_wallets
                .take(now)
                .map_err(|wait| limited(StatusCode::TOO_MANY_REQUESTS, RATE_LIMITED, wait))?;
            // Anybody can write such a signature: the wallet must agree before its authorization is claimed, or a
            // stranger could claim it with garbage.
            match self.verdict(checked, &checked.instruction()).await {
                Verdict::Valid => {}
                Verdict::Refused(code) => {
                    return Err(Settled::Failed { code: ErrorCode::from(code), tx: String::new() });
                }
                Verdict::Unavailable => return Err(Settled::Unavailable),
            }
        }
        let gas = self.reserve_gas(tenant, checked).await?;
        Ok(Admission { _places: Some((of_tenant, of_all)), gas })
    }

    /// Counts the most that this settlement may cost as spent.
    async fn reserve_gas(
        &self,
        tenant: &Account,
        checked: &Checked,
    ) -> Result<Option<(Reserved, Reserved)>, Settled> {
        if tenant.gas.is_unlimited() && self.0.gas.is_unlimited() {
            return Ok(None);
        }
        let net = self.0.networks.get(checked.network()).ok_or(Settled::Unavailable)?;
        let fees = net.chain.fees().await.map_err(|error| {
            tracing::warn!(%error, "no fees");
            Settled::Unavailable
        })?;
        let most = u128::from(most_gas(&self.0.policy.gas, checked)).saturating_mul(fees.max_fee);
        let now = self.world().monotonic();
        let spent = |status| Settled::Limited { status, code: GAS_BUDGET, wait: Duration::from_secs(60) };
        let of_all = self.0.gas.reserve(now, most).ok_or(spent(StatusCode::SERVICE_UNAVAILABLE))?;
        match tenant.gas.reserve(now, most) {
            Some(of_tenant) => Ok(Some((of_tenant, of_all))),
            None => {
                self.0.gas.spend(of_all, 0);
                Err(spent(StatusCode::TOO_MANY_REQUESTS))
            }
        }
    }

    /// Begins a settlement, or joins the one that somebody began just before. It belongs to a task: whoever asked may
    /// hang up.
    fn fly(
        &self,
        tenant: Arc<Account>,
        key: FlightKey,
        sale: Sale,
        checked: Checked,
        admission: Admission,
    ) -> Flight {
        let (tell, told) = oneshot::channel();
        let flight = told.shared();
        {
            let mut flights = lock(&self.0.flights.0);
            if let Some(other) = flights.get(&key) {
                let other = other.clone();
                drop(flights);
                self.give_back(&tenant.gas, &admission, 0);
                return other;
            }
            flights.insert(key.clone(), flight.clone());
        }
        let mut landing = Landing { service: self.clone(), key, tell: Some(tell) };
        self.world().spawn(Box::pin(async move {
            let settled = landing.service.relay(&tenant, sale, &checked, &admission).await;
            let tell = landing.tell.take();
            drop((admission, landing));
            if let Some(tell) = tell {
                // Nobody waiting is no error.
                let _ = tell.send(settled);
            }
        }));
        flight
    }

    async fn relay(&self, tenant: &Account, sale: Sale, checked: &Checked, admission: &Admission) -> Settled {
        // A verification that comes after this must see what settlement does.
        self.0.mirror.forget(&sale.terms.instruction);
        let began = self.world().now();
        let (network, payer) = (checked.network().clone(), checked.payer());
        let outcome = self.0.engine.relay(sale).await;
        let failed = || {
            let now = self.world().monotonic();
            self.0.cooling.failed(&network, &payer, now);
        };
        match outcome {
            SaleOutcome::Settled { payment } => match &payment.state {
                State::Settled { proof, .. } => {
                    let fee = proof.fee.as_ref().map_or(0, |fee| fee.atoms());
                    // What was settled before was paid for before.
                    let fee = if is_new(&payment, began) { fee } else { 0 };
                    self.give_back(&tenant.gas, admission, fee);
                    self.0.cooling.settled(&network, &payer);
                    Settled::Done { tx: proof.tx.as_str().to_owned() }
                }
                _ => pending(payment.tx().map(|tx| tx.as_str())),
            },
            SaleOutcome::Refused { reason } => {
                self.give_back(&tenant.gas, admission, 0);
                if reason.code() == INTERRUPTED {
                    return Settled::Unavailable;
                }
                let code = code_of(reason.code(), checked.method());
                // Only what the payer's own key signed counts against the payer.
                if checked.signature_status() == SignatureStatus::Proven && is_drained(&code) {
                    failed();
                }
                Settled::Failed { code, tx: String::new() }
            }
            SaleOutcome::SettlementFailed { payment, reason, tx } => {
                if !is_new(&payment, began) {
                    self.give_back(&tenant.gas, admission, 0);
                } else if matches!(reason.fault(), Fault::Payer | Fault::Chain) {
                    failed();
                }
                let tx = tx.or_else(|| payment.tx().cloned());
                let tx = tx.map_or_else(String::new, |tx| tx.as_str().to_owned());
                Settled::Failed { code: code_of(reason.code(), checked.method()), tx }
            }
            SaleOutcome::Pending { payment, tx } => {
                // A new one keeps its gas counted; an old one was counted when it was new.
                if let Ok(Some(payment)) = self.0.engine.status(payment).await
                    && !is_new(&payment, began)
                {
                    self.give_back(&tenant.gas, admission, 0);
                }
                pending(tx.as_ref().map(|tx| tx.as_str()))
            }
            // Another tenant's, or sold by a gateway of ours: settled once, and not by this request.
            SaleOutcome::Conflict { .. } => {
                self.give_back(&tenant.gas, admission, 0);
                Settled::Failed { code: ErrorCode::DuplicateSettlement, tx: String::new() }
            }
            SaleOutcome::Unavailable { what } if NOTHING_TRIED.contains(&what) => {
                self.give_back(&tenant.gas, admission, 0);
                Settled::Unavailable
            }
            SaleOutcome::Unavailable { .. } => Settled::Unsure,
            other @ (SaleOutcome::Served { .. }
            | SaleOutcome::Deliver { .. }
            | SaleOutcome::NotCharged { .. }
            | SaleOutcome::OverExposed) => {
                tracing::error!(?other, "a relayed payment ended like a sale");
                Settled::Unsure
            }
        }
    }

    fn give_back(&self, of_tenant: &Gas, admission: &Admission, actual: u128) {
        if let Some((tenant, all)) = admission.gas {
            of_tenant.spend(tenant, actual);
            self.0.gas.spend(all, actual);
        }
    }
}

/// The engine was cut off before anything was tried.
const INTERRUPTED: &str = "interrupted";
/// What the engine could not do before it claimed anything, or after it gave the claim back. Anything else may have
/// moved money.
const NOTHING_TRIED: &[&str] = &["too_many_payments", "network", "chain", "instruction", INTERRUPTED];

fn is_new(payment: &Payment, began: Timestamp) -> bool {
    payment.created >= began
}

fn pending(tx: Option<&str>) -> Settled {
    tx.map_or(Settled::Unsure, |tx| Settled::Pending { tx: tx.to_owned() })
}

async fn wait(flight: Flight) -> Settled {
    // A task that died without a word may have moved money.
    flight.await.unwrap_or(Settled::Unsure)
}

/// The engine's own reasons by the names that peers know; a rail's have those already.
fn code_of(reason: &str, method: PullMethod) -> ErrorCode {
    match (reason, method) {
        ("authorization_expired", PullMethod::Eip3009) => {
            ErrorCode::InvalidExactEvmPayloadAuthorizationValidBefore
        }
        ("authorization_expired", PullMethod::Permit2) => ErrorCode::Permit2DeadlineExpired,
        ("authorization_canceled", _) => ErrorCode::InvalidExactEvmNonceAlreadyUsed,
        (other, _) => ErrorCode::from(other),
    }
}

/// Whether the payer no longer has, or no longer allows, what it signed for.
fn is_drained(code: &ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidExactEvmInsufficientBalance
            | ErrorCode::Permit2InsufficientBalance
            | ErrorCode::Permit2AllowanceRequired
    )
}

/// The most gas that this settlement may use.
fn most_gas(caps: &GasCaps, checked: &Checked) -> u64 {
    let call = match checked.method() {
        PullMethod::Eip3009 => caps.eip3009,
        PullMethod::Permit2 => caps.permit2.max(caps.permit2_with_approval),
    };
    match checked.signature_status() {
        SignatureStatus::Proven => call,
        SignatureStatus::NeedsContract => call.saturating_add(caps.wallet).saturating_add(caps.deployment),
    }
}

fn sale(tenant: &Account, asked: &Asked, checked: &Checked) -> Sale {
    let key = checked.key();
    let terms = Terms {
        payer: checked.payer(),
        payee: checked.pay_to(),
        money: checked.money().clone(),
        expires: checked.expires(),
        dialect: asked.dialect,
        instruction: checked.instruction(),
    };
    // What is signed, and nothing of how it was carried: v1 or v2, it is one payment.
    let mut request = Sha256::new();
    for part in [key.as_str(), terms.payer.as_str(), terms.payee.as_str(), &terms.money.asset().to_string()] {
        request.update((part.len() as u64).to_be_bytes());
        request.update(part);
    }
    request.update(terms.money.atoms().to_be_bytes());
    request.update(terms.expires.millis().to_be_bytes());
    let binding = Binding {
        method: "SETTLE".to_owned(),
        resource: asked.resource.clone(),
        request: RequestHash(request.finalize().into()),
        bound: Bound::ByFirstUse,
        repeatable: true,
    };
    Sale { tenant: tenant.id.clone(), key, terms, binding, flow: Flow::Upfront, exposure: None, name: None }
}

impl Asked {
    /// The settlement's outcome in the words of this dialect.
    ///
    /// Spec: x402 v1 section 7.2, v2 section 5.3.2: `transaction` and `network` are there whatever happened. What is
    /// decided goes with status 200, also a failure: v1 servers take any other for an outage.
    fn answer(&self, settled: &Settled) -> Answer {
        let network = self.network_name();
        let payer = written(&self.presented.claimed_payer());
        let failed = |code| SettleResponse::failed(network, code, Some(&payer));
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match settled {
            Settled::Done { tx } => {
                let mut response = SettleResponse::settled(network, tx, Some(&payer));
                if self.dialect == Dialect::X402V2 {
                    response.amount = Some(self.requirement.price().atoms().to_string());
                }
                Answer::settlement(StatusCode::OK, &response)
            }
            Settled::Failed { code, tx } => {
                let response = SettleResponse { transaction: tx.clone(), ..failed(code.clone()) };
                Answer::settlement(StatusCode::OK, &response)
            }
            Settled::Pending { tx } => {
                Answer::settlement(StatusCode::OK, &SettleResponse::pending(network, tx, Some(&payer)))
            }
            // Not an invitation to pay again: the same payment must be shown again.
            Settled::Unsure => {
                let response = SettleResponse::pending(network, "", Some(&payer));
                Answer::settlement(unavailable, &response).retry(SOON)
            }
            Settled::Unavailable => {
                Answer::settlement(unavailable, &failed(ErrorCode::UnexpectedSettleError)).retry(SOON)
            }
            Settled::Limited { status, code, wait } => {
                Answer::settlement(*status, &failed(ErrorCode::from(*code))).retry(*wait)
            }
        }
    }
}
