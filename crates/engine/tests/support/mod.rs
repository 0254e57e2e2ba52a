//! What the tests of the engine against a scripted rail share: a clock, the rail, and a sale.

// Each test uses some of it. In a test a panic is the report.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_engine::*;
use farthing_payment::*;
use farthing_primitives::*;
use farthing_store::MemoryStore;

/// Time that passes when somebody waits, or stands unless it is set.
pub struct TestWorld {
    pub clock: AtomicU64,
    /// How far the wall clock was set ahead, or back.
    pub wall_ahead: AtomicI64,
    pub seed: AtomicU64,
    stands: bool,
}

impl TestWorld {
    /// The wall clock shows this many milliseconds.
    pub fn at(millis: u64, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            clock: AtomicU64::new(millis),
            wall_ahead: AtomicI64::new(0),
            seed: AtomicU64::new(seed),
            stands: false,
        })
    }

    pub fn standing() -> Arc<Self> {
        Arc::new(Self {
            clock: AtomicU64::new(10_000),
            wall_ahead: AtomicI64::new(0),
            seed: AtomicU64::new(0),
            stands: true,
        })
    }
}

impl World for TestWorld {
    fn now(&self) -> Timestamp {
        let ahead = self.wall_ahead.load(Ordering::SeqCst);
        Timestamp::from_millis(self.clock.load(Ordering::SeqCst).saturating_add_signed(ahead))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.clock.load(Ordering::SeqCst))
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // The test's runtime has a paused clock: this waits for everything else first, and takes no time.
        if !self.stands {
            self.clock.fetch_add(u64::try_from(duration.as_millis()).expect("short") / 10, Ordering::SeqCst);
        }
        Box::pin(tokio::time::sleep(duration))
    }
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        tokio::spawn(task);
    }
    fn random(&self, into: &mut [u8]) {
        let seed = self.seed.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        into.iter_mut().zip(seed.iter().cycle()).for_each(|(byte, s)| *byte = *s);
    }
}

/// What the scripted rail answers.
#[derive(Default)]
pub struct Script {
    pub funds: Option<Funds>,
    pub prepare: Option<NotPrepared>,
    pub submit: Option<Progress>,
    pub progress: Option<Progress>,
    pub canonical: Option<bool>,
    /// Blocks that are not in the chain any more.
    pub gone: Vec<u64>,
    /// From which block on any may be replaced; none by default.
    pub replaceable: Option<u64>,
    pub looks: u32,
    /// What is found of a refund, in this order; then what is found of everything.
    pub refund: VecDeque<Progress>,
}

#[derive(Default)]
pub struct ScriptedRail {
    pub script: Mutex<Script>,
    pub prepared: AtomicU32,
    pub submitted: AtomicU32,
    pub transfers: Mutex<HashMap<String, u32>>,
}

impl ScriptedRail {
    pub fn with(self: Arc<Self>, change: impl FnOnce(&mut Script)) -> Arc<Self> {
        change(&mut self.script.lock().expect("whole"));
        self
    }
}

pub fn proof(payment: &Payment) -> Proof {
    Proof {
        tx: TxRef::new(format!("0x{}", payment.id)),
        witness: Witness::Chain,
        block: 7,
        block_hash: [7; 32],
        log_index: 0,
        fee: None,
    }
}

#[async_trait]
impl Rail for ScriptedRail {
    async fn funds(&self, _: &Payment) -> Funds {
        tokio::task::yield_now().await;
        self.script.lock().expect("whole").funds.clone().unwrap_or(Funds::Confirmed)
    }
    async fn prepare(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        if let Some(why) = self.script.lock().expect("whole").prepare.clone() {
            return Err(why);
        }
        self.prepared.fetch_add(1, Ordering::SeqCst);
        let attempt = AttemptId::new(payment.created, [9; 10]);
        Ok(Prepared { attempt, tx: Some(TxRef::new("0xabc")), slots: Vec::new() })
    }
    fn abandon(&self, _: Prepared) {}
    async fn submit(&self, payment: &Payment, _: Prepared) -> Progress {
        self.submitted.fetch_add(1, Ordering::SeqCst);
        *self.transfers.lock().expect("whole").entry(payment.key.to_string()).or_default() += 1;
        let scripted = self.script.lock().expect("whole").submit.clone();
        scripted.unwrap_or(Progress::Included { proof: proof(payment), deep: true, slots: Vec::new() })
    }
    async fn progress(&self, payment: &Payment, patience: Duration) -> Progress {
        // Whoever has news does not wait, and an outcome that stays unclear is news each time.
        if !matches!(self.script.lock().expect("whole").progress, Some(Progress::Unclear { .. })) {
            tokio::time::sleep(patience).await;
        }
        self.script.lock().expect("whole").looks += 1;
        let scripted = self.script.lock().expect("whole").progress.clone();
        scripted.unwrap_or(Progress::Included { proof: proof(payment), deep: true, slots: Vec::new() })
    }
    fn release(&self, _: &Payment) {}
    async fn still_included(&self, proof: &Proof) -> Option<bool> {
        let script = self.script.lock().expect("whole");
        script.canonical.map(|canonical| canonical && !script.gone.contains(&proof.block))
    }
    async fn unreplaceable(&self) -> Option<u64> {
        Some(self.script.lock().expect("whole").replaceable.map_or(u64::MAX, |from| from - 1))
    }
    async fn prepare_refund(
        &self,
        payment: &Payment,
        _: &farthing_evm::Key,
    ) -> Result<Prepared, NotPrepared> {
        self.prepare(payment).await
    }
    async fn submit_refund(&self, _: Prepared) {
        // A node takes its time; whoever asked may be gone before it answers.
        tokio::task::yield_now().await;
        self.submitted.fetch_add(1, Ordering::SeqCst);
    }
    async fn prepare_refund_again(&self, payment: &Payment) -> Result<Prepared, NotPrepared> {
        self.prepare(payment).await
    }
    async fn refund_progress(&self, payment: &Payment, patience: Duration) -> Progress {
        let scripted = self.script.lock().expect("whole").refund.pop_front();
        match scripted {
            Some(found) => found,
            None => self.progress(payment, patience).await,
        }
    }
    async fn resume(&self) -> Result<(), String> {
        Ok(())
    }
}

pub fn network() -> Network {
    Network::eip155(84532)
}

pub fn sale_of(key: &str, request: [u8; 32], flow: Flow) -> Sale {
    Sale {
        tenant: TenantId::local(),
        key: ConsumptionKey::new(key),
        terms: Terms {
            payer: Address::from_evm_bytes([1; 20]),
            payee: Address::from_evm_bytes([2; 20]),
            money: Registry::builtin().dollar(&network()).expect("listed").atoms(1000),
            expires: Timestamp::from_secs(1_000_000),
            dialect: Dialect::X402V2,
            instruction: Instruction::new(Vec::new()),
        },
        binding: Binding {
            method: "GET".to_owned(),
            resource: "/weather".to_owned(),
            request: RequestHash(request),
            bound: Bound::ByOffer,
            repeatable: true,
        },
        flow,
        exposure: None,
        name: None,
    }
}

/// A process over what a former one left.
pub fn engine_on(
    store: &Arc<MemoryStore>,
    world: &Arc<TestWorld>,
    rail: &Arc<ScriptedRail>,
    config: EngineConfig,
) -> Engine {
    let rails: HashMap<_, Arc<dyn Rail>> = HashMap::from([(network(), rail.clone() as Arc<dyn Rail>)]);
    Engine::new(store.clone(), world.clone(), rails, config)
}

/// What a shop answers.
pub fn goods() -> UpstreamAnswer {
    UpstreamAnswer::Complete(StoredResponse {
        status: 200,
        headers: vec![("content-type".to_owned(), b"text/plain".to_vec())],
        body: Bytes::from_static(b"goods"),
        trailers: Vec::new(),
    })
}
