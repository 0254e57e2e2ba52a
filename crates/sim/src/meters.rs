//! What the shop sells by the unit, from voucher channels; and the checkers at its two doors: what the upstream is called
//! for, and what leaves.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use farthing_channel::{Charge, ChargeState, Limits, Payee, Price, Unit};
use farthing_engine::ChannelFilter;
use farthing_paywall::{
    BoxError, Count, Paid, Pattern, PaywallBody, Route, Session, SessionTerms, Way, X_FARTHING_PAYMENT,
};
use farthing_primitives::{Address, Network, PaymentId, PullMethod, Registry};
use farthing_wire::mpp::evm::CredentialType;
use futures_util::stream;
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};

use crate::escrow::ESCROW;
use crate::exec::lock;
use crate::gateway::{Machine, NETWORK, answer};
use crate::rng::Rng;
use crate::wait;

/// What a unit costs, in atoms.
pub const UNIT: u128 = 100;
/// What one answer that is no stream may take, in units.
pub const MOST_UNITS: u64 = 5;
/// How long before the end of the grace period an answer is late.
pub const MARGIN: Duration = Duration::from_secs(300);
/// In which header the upstream says how many units an answer took.
const UNITS: HeaderName = HeaderName::from_static("x-units");
/// How often, at most, an event of a stream is late, and by how many milliseconds.
const SLOWEST_EVENT: u64 = 1500;

/// How a route is sold by the unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One unit for each request.
    Request,
    /// The upstream says how many.
    Said,
    /// One for each event of a stream.
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meter {
    pub method: &'static str,
    pub path: &'static str,
    pub kind: Kind,
}

pub const METERS: [Meter; 3] = [
    Meter { method: "GET", path: "/meter/request", kind: Kind::Request },
    Meter { method: "POST", path: "/meter/units", kind: Kind::Said },
    Meter { method: "GET", path: "/meter/stream", kind: Kind::Stream },
];

/// How a shop sells by the unit, and to how many wallets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sessions {
    pub patrons: usize,
    /// What may be served beyond what vouchers cover, in atoms: the exposure.
    pub credit: u128,
    pub most_unsettled: Option<u128>,
    pub min_delta: u128,
    /// After how many seconds an unused channel is closed.
    pub idle: Option<u64>,
    /// The payee is the relayer itself, and calls the escrow in its own name.
    pub by_relayer: bool,
}

impl Sessions {
    pub fn draw(rng: &mut Rng) -> Self {
        Self {
            patrons: usize::try_from(rng.between(1, 3)).unwrap_or(1),
            credit: [0, 0, 250][usize::try_from(rng.below(3)).unwrap_or(0)],
            most_unsettled: [None, Some(400), Some(1000)][usize::try_from(rng.below(3)).unwrap_or(0)],
            min_delta: [0, 0, 250][usize::try_from(rng.below(3)).unwrap_or(0)],
            idle: [None, None, Some(150)][usize::try_from(rng.below(3)).unwrap_or(0)],
            by_relayer: rng.per_mille(300),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            credit: self.credit,
            most_unsettled: self.most_unsettled,
            min_deposit: UNIT * u128::from(MOST_UNITS),
            margin: MARGIN,
            most_in_flight: 8,
            drain: Duration::from_secs(5),
            idle: self.idle.map(Duration::from_secs),
        }
    }
}

impl Meter {
    /// The route, paid to this payee.
    pub fn route(&self, sessions: &Sessions, payee: Address) -> Option<(Pattern, Route)> {
        let registry = Registry::builtin();
        let asset = registry.dollar(&Network::eip155(NETWORK))?;
        let (count, unit, most_units) = match self.kind {
            Kind::Request => (Count::Request, Unit::Request, 1),
            Kind::Said => (Count::Header(UNITS), Unit::Token, MOST_UNITS),
            Kind::Stream => (Count::Events, Unit::Token, 1),
        };
        let terms = SessionTerms {
            way: Arc::new(Way::new(&registry, asset, payee, PullMethod::Eip3009).ok()?),
            escrow: farthing_evm::from_alloy(ESCROW),
            price: Price::new(UNIT, NonZeroU64::MIN, unit),
            count,
            stream: self.kind == Kind::Stream,
            most_units,
            suggested_deposit: Some(20 * UNIT),
            limits: sessions.limits(),
            min_voucher_delta: sessions.min_delta,
            credential_types: vec![CredentialType::Authorization],
            holds: Duration::from_secs(3600),
            patience: Duration::from_secs(10),
        };
        let mut paid = Paid::by_the_unit(Session::new(terms).ok()?);
        paid.upstream_timeout = Duration::from_secs(10);
        let pattern = format!("{} {}", self.method, self.path).parse().ok()?;
        Some((pattern, Route::paid(paid)))
    }
}

/// A charge, as it is durable, and its channel.
fn charge(machine: &Machine, id: PaymentId) -> Option<(Payee, Charge)> {
    let all = ChannelFilter { limit: 1000, ..ChannelFilter::default() };
    wait(machine.platter.channels(all)).unwrap_or_default().into_iter().find_map(|payee| {
        let charges = wait(machine.platter.charges(payee.terms().id, None, 1000)).unwrap_or_default();
        let charge = charges.into_iter().find(|charge| charge.id == id)?;
        Some((payee, charge))
    })
}

/// Checker: the upstream is called for what is durably begun, and covered by a durable voucher and the exposure.
fn called(machine: &Machine, id: PaymentId) {
    let Some((payee, charge)) = charge(machine, id) else {
        return machine.ledger.broken(format!("the upstream was called for {id}, which no channel has"));
    };
    machine.ledger.note(|| format!("upstream is called for {id}, paid by the unit"));
    let begun = payee.running().filter_map(|running| running.price.most(running.most_units?).ok());
    let needed = payee.spent() + begun.sum::<u128>();
    if charge.state == ChargeState::Running && needed > payee.accepted() + payee.limits().credit {
        let (accepted, channel) = (payee.accepted(), payee.terms().id);
        machine.ledger.broken(format!("{channel} serves for {needed} atoms, and {accepted} are vouched for"));
    }
    lock(&machine.ledger.facts).channels.services += 1;
}

/// The upstream of a route that is sold by the unit.
pub async fn serve(machine: &Arc<Machine>, meter: &Meter, id: PaymentId, uri: &Uri) -> Response<PaywallBody> {
    called(machine, id);
    let wanted = |part: &str| part.strip_prefix("u=")?.parse::<u64>().ok();
    let units = uri.query().unwrap_or_default().split('&').find_map(wanted).unwrap_or(1);
    let mut rng = Rng::stream(machine.seed, &format!("meter-{id}-{}", machine.exec.micros()));
    let mood = *lock(&machine.mood);
    let latency = Duration::from_micros(rng.below(mood.latency * 1000 + 500));
    let (fails, breaks, hangs) =
        (rng.per_mille(mood.fails), rng.per_mille(mood.breaks_off), rng.per_mille(mood.hangs));
    machine.exec.sleep(latency).await;
    if fails {
        return answer(StatusCode::INTERNAL_SERVER_ERROR, Bytes::from_static(b"sorry"));
    }
    if meter.kind != Kind::Stream {
        if hangs {
            machine.exec.sleep(Duration::from_secs(3600)).await;
        }
        let mut response = answer(StatusCode::OK, Bytes::from(format!("1 of {id}\n")));
        response.headers_mut().insert(UNITS, HeaderValue::from(units.min(MOST_UNITS + 1)));
        return response;
    }
    // After so many events something goes wrong, if it does.
    let wrong_at = rng.below(units.max(1));
    let exec = machine.exec.clone();
    let events = stream::unfold((0, rng), move |(n, mut rng)| {
        let exec = exec.clone();
        async move {
            if n == units {
                return None;
            }
            exec.sleep(Duration::from_micros(rng.below(SLOWEST_EVENT * 1000))).await;
            if hangs && n == wrong_at {
                exec.sleep(Duration::from_secs(3600)).await;
            }
            if breaks && n == wrong_at {
                return Some((Err(BoxError::from("broken off")), (units, rng)));
            }
            let event = Bytes::from(format!("data: {} of {id}\n\n", n + 1));
            Some((Ok(Frame::data(event)), (n + 1, rng)))
        }
    });
    let mut response = Response::new(StreamBody::new(events).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// Checker: goods leave once what they cost is durably charged, to the unit.
pub fn leaves(machine: &Arc<Machine>, path: &str, response: Response<PaywallBody>) -> Response<PaywallBody> {
    let Some(meter) = METERS.iter().find(|meter| meter.path == path) else { return response };
    let id = response.headers().get(X_FARTHING_PAYMENT).and_then(|id| id.to_str().ok()?.parse().ok());
    let Some(id) = id.filter(|_| response.status().is_success()) else { return response };
    if meter.kind != Kind::Stream {
        match charge(machine, id) {
            Some((_, charge)) if charge.state == ChargeState::Served => {}
            other => {
                let state = other.map(|(_, charge)| charge.state);
                machine.ledger.broken(format!("the goods of {id} leave, and its charge is {state:?}"));
            }
        }
        return response;
    }
    let machine = machine.clone();
    let mut left = 0;
    response.map(|body| {
        body.map_frame(move |frame| {
            let data = frame.data_ref().map(|data| String::from_utf8_lossy(data).into_owned());
            let events = data.unwrap_or_default().lines().filter(|line| line.contains(" of pay_")).count();
            left += events as u128;
            let charged = if events == 0 { left } else { charge(&machine, id).map_or(0, |(_, c)| c.units) };
            if charged < left {
                machine.ledger.broken(format!("{left} units of {id} leave, and {charged} are charged"));
            }
            frame
        })
        .boxed_unsync()
    })
}
