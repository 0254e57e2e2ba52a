//! The seller's terms: routes, prices, keys and limits, shared by all requests and replaced as a whole on reload.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use farthing_engine::{Till, World};
use farthing_primitives::{Registry, TenantId, Timestamp};
use farthing_rails::exact_evm::Tokens;
use farthing_rails::offer::BindingKey;
use farthing_wire::mpp::ChallengeSecrets;

use crate::clock::OfferClock;
use crate::cors::Cors;
use crate::limit::{Answering, Memory, Places, Rate, RateLimiter};
use crate::price::Route;
use crate::route::RouteTable;
use crate::seller::Seller;
use crate::session::resume::Streams;

/// How many replaced tables are remembered for the offers that they made.
pub const MAX_OLD_TABLES: usize = 16;

/// What happens to requests that no route matches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unmatched {
    /// 404. Nothing reaches the upstream that nobody thought of.
    #[default]
    NotFound,
    /// They pass, unpaid.
    Free,
}

/// Bounds on what strangers can make us do. A client is an IPv4 address or an IPv6 /64, where the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Payments that one client may show.
    pub payments: Rate,
    /// Among them, those that come to nothing by the payer's own doing: unreadable, wrongly signed, without funds.
    /// Whoever has shown too many of these is not listened to for a moment, before anything is checked or read.
    pub refused_payments: Rate,
    /// Among them, those whose signature only a contract can vouch for, and deposits into channels. Each costs a chain
    /// read.
    pub contract_payments: Rate,
    /// Questions of one client that cost more than an answer: prices that a hook sets, and the state of payments.
    pub questions: Rate,
    /// How long a paid request's body may take to arrive.
    pub request_timeout: Duration,
    /// How many paid requests may be under way at once, until their answers are sent.
    pub in_flight: usize,
    /// Of those, how many of one client.
    pub in_flight_per_client: usize,
    /// How many unpaid requests may be with the service behind at once, until their answers are sent.
    pub calls: usize,
    /// Of those, how many of one client.
    pub calls_per_client: usize,
    /// How many bytes of paid requests' bodies, and of their answers, may be held at once. One client may hold a quarter
    /// of them, or 32 MiB if that is more.
    pub body_memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            payments: Rate { per_second: 1000, burst: 2000 },
            refused_payments: Rate { per_second: 20, burst: 40 },
            contract_payments: Rate { per_second: 10, burst: 20 },
            questions: Rate { per_second: 1000, burst: 2000 },
            request_timeout: Duration::from_secs(30),
            in_flight: 4096,
            in_flight_per_client: 1024,
            calls: 4096,
            calls_per_client: 512,
            body_memory: 256 * 1024 * 1024,
        }
    }
}

/// What a reload replaces.
#[derive(Debug)]
pub struct Terms {
    pub routes: RouteTable<Route>,
    /// The tokens that an offer of ours may be in.
    pub registry: Registry,
    pub unmatched: Unmatched,
    pub cors: Cors,
    /// Where buyers reach us, e.g. `https://api.example.com`; without it, what each request says in `Host`.
    pub public_url: Option<String>,
    pub mpp: Mpp,
    /// Whether a 402 says in its body what version 1 of x402 reads there.
    pub v1_body: bool,
}

/// How the HTTP `Payment` scheme is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mpp {
    pub spoken: bool,
    /// The protection space that challenges name; without it, the host by which buyers reach us.
    pub realm: Option<String>,
}

impl Default for Mpp {
    fn default() -> Self {
        Self { spoken: true, realm: None }
    }
}

pub(crate) struct Current {
    pub terms: Terms,
    pub tokens: Tokens,
    /// Replaced tables and until when their offers hold, newest first.
    pub old: VecDeque<(Timestamp, Arc<Current>)>,
}

/// The paywall's shared state. Cheap to clone.
#[derive(Clone)]
pub struct Paywall(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub seller: Arc<dyn Seller>,
    pub world: Arc<dyn World>,
    /// What offers and replaced tables are timed by.
    pub clock: OfferClock,
    pub tenant: TenantId,
    pub key: BindingKey,
    pub secrets: ChallengeSecrets,
    pub limits: Limits,
    pub payments: RateLimiter,
    pub refused_payments: RateLimiter,
    pub contract_payments: RateLimiter,
    pub questions: RateLimiter,
    pub in_flight: Arc<Places>,
    pub calls: Arc<Places>,
    pub answering: Answering,
    pub memory: Arc<Memory>,
    /// The streams that go on where they broke off.
    pub streams: Arc<Streams>,
    /// Since when, in milliseconds, strangers may have us write into the log again.
    quiet_until: AtomicU64,
    current: RwLock<Arc<Current>>,
    /// Who keeps the channels of routes that are sold by the unit.
    pub till: OnceLock<Till>,
}

impl std::fmt::Debug for Paywall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Paywall({} routes)", self.0.current().terms.routes.iter().count())
    }
}

impl Terms {
    /// Terms over these routes, with the built-in assets; everything else is refused.
    pub fn new(routes: RouteTable<Route>) -> Self {
        Self {
            routes,
            registry: Registry::builtin(),
            unmatched: Unmatched::default(),
            cors: Cors::default(),
            public_url: None,
            mpp: Mpp::default(),
            v1_body: true,
        }
    }
}

impl Paywall {
    /// `key` seals the offers: whoever has it can make offers in our name.
    pub fn new(
        terms: Terms,
        seller: Arc<dyn Seller>,
        world: Arc<dyn World>,
        key: BindingKey,
        limits: Limits,
    ) -> Self {
        Self::for_tenant(TenantId::local(), terms, seller, world, key, limits)
    }

    pub fn for_tenant(
        tenant: TenantId,
        terms: Terms,
        seller: Arc<dyn Seller>,
        world: Arc<dyn World>,
        key: BindingKey,
        limits: Limits,
    ) -> Self {
        Self(Arc::new(Shared {
            seller,
            clock: OfferClock::new(world.clone()),
            world,
            tenant,
            secrets: key.challenge_secrets(),
            key,
            payments: RateLimiter::new(limits.payments),
            refused_payments: RateLimiter::new(limits.refused_payments),
            contract_payments: RateLimiter::new(limits.contract_payments),
            questions: RateLimiter::new(limits.questions),
            in_flight: Places::new(limits.in_flight, limits.in_flight_per_client),
            calls: Places::new(limits.calls, limits.calls_per_client),
            memory: Memory::new(limits.body_memory),
            answering: Answering::default(),
            streams: Arc::default(),
            quiet_until: AtomicU64::new(0),
            limits,
            current: RwLock::new(Arc::new(Current::new(terms, VecDeque::new()))),
            till: OnceLock::new(),
        }))
    }

    /// Lets routes be sold by the unit. Before anything is served, and once: a second till is not taken. Without one no
    /// session is offered.
    #[must_use]
    pub fn with_till(self, till: Till) -> Self {
        // What is there already stays.
        let _ = self.0.till.set(till);
        self
    }

    /// Says that it is at least this late: what an earlier process wrote down of the time, so that its offers do not come
    /// to life again where the clock was set back in between.
    pub fn not_before(&self, mark: Timestamp) {
        self.0.clock.not_before(mark);
    }

    /// Replaces the terms at once. Offers made before hold for the time that they were made for.
    pub fn reload(&self, terms: Terms) {
        let now = self.0.clock.now();
        let mut current = self.0.current.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut old: VecDeque<_> = current.old.iter().filter(|(until, _)| *until > now).cloned().collect();
        // The replaced table is kept without its own past, so that the past does not grow with each reload.
        let replaced = Arc::new(Current {
            terms: current.terms.for_memory(),
            tokens: current.tokens.clone(),
            old: VecDeque::new(),
        });
        old.push_front((now.plus(current.terms.longest_offer()), replaced));
        old.truncate(MAX_OLD_TABLES);
        *current = Arc::new(Current::new(terms, old));
    }
}

impl Terms {
    fn longest_offer(&self) -> Duration {
        let longest = self.routes.iter().filter_map(|(_, route)| match route {
            Route::Paid(paid) => Some(
                paid.session.as_ref().map_or(paid.max_timeout, |s| s.terms().holds.max(paid.max_timeout)),
            ),
            Route::Free => None,
        });
        longest.max().unwrap_or_default()
    }

    fn for_memory(&self) -> Self {
        Self {
            routes: self.routes.clone(),
            registry: Registry::empty(),
            unmatched: self.unmatched,
            cors: Cors::default(),
            // Challenges are told apart by the realm, which may come of it.
            public_url: self.public_url.clone(),
            mpp: self.mpp.clone(),
            v1_body: self.v1_body,
        }
    }
}

impl Current {
    fn new(terms: Terms, old: VecDeque<(Timestamp, Arc<Self>)>) -> Self {
        Self { tokens: Tokens::new(&terms.registry), terms, old }
    }
}

/// How often something that a stranger can cause is logged as a warning.
const WARN_EVERY: Duration = Duration::from_secs(1);

impl Shared {
    /// Whether something that a stranger can cause is to be logged as a warning now: a log can be filled too.
    pub fn may_warn(&self) -> bool {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let now = millis(self.world.monotonic());
        let later = now.saturating_add(millis(WARN_EVERY));
        let move_on = |until: u64| (until <= now).then_some(later);
        self.quiet_until.fetch_update(Ordering::AcqRel, Ordering::Acquire, move_on).is_ok()
    }

    pub fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
