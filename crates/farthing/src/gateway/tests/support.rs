use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use farthing_engine::{BoxFuture, Permit, Sale, SaleOutcome, StoreError, Upstream, UpstreamAnswer, World};
use farthing_evm::Key;
use farthing_payment::{ConsumptionKey, Flow, NewPayment, Payment, Role};
use farthing_paywall::Seller;
use farthing_primitives::{PaymentId, Registry};
use farthing_rails::exact_evm::{Tokens, buy};
use farthing_rails::offer::BindingKey;
use farthing_rails::x402;
use farthing_wire::x402::{Message, v2};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::{Config, GatewayConfig};
use crate::gateway::Gateway;
use crate::world::TokioWorld;

/// Sells to anybody who shows a checked payment, once for each call.
#[derive(Default)]
pub struct Till {
    pub sold: Mutex<Vec<Sale>>,
    /// Who is told how streamed deliveries ended.
    pub deliveries: Mutex<Option<tokio::sync::mpsc::UnboundedSender<Result<(), String>>>>,
}

#[async_trait]
impl Seller for Till {
    async fn sell(&self, sale: Sale, upstream: Arc<dyn Upstream>) -> SaleOutcome {
        self.sold.lock().unwrap().push(sale.clone());
        let now = TokioWorld::new().now();
        let new = NewPayment {
            id: PaymentId::new(now, [1; 10]),
            tenant: sale.tenant,
            key: sale.key,
            role: Role::Seller,
            flow: sale.flow,
            terms: sale.terms,
            binding: sale.binding,
        };
        let payment = Box::new(Payment::claim(new, now).0);
        if payment.flow == Flow::Upfront {
            let told = self.deliveries.lock().unwrap().clone();
            let permit = Permit::new(move |went| {
                let went = went.map_err(|reason| reason.code().to_owned());
                drop(told.map(|told| told.send(went)));
            });
            return SaleOutcome::Deliver { payment, permit };
        }
        match upstream.call(&payment).await {
            UpstreamAnswer::Complete(response) => SaleOutcome::Served { payment, response },
            UpstreamAnswer::Failed { reason, response } => {
                SaleOutcome::NotCharged { payment, reason, response }
            }
        }
    }

    async fn payment(&self, _: PaymentId) -> Result<Option<Payment>, StoreError> {
        Ok(None)
    }

    async fn holder(&self, _: &ConsumptionKey) -> Result<Option<Payment>, StoreError> {
        Ok(None)
    }

    fn sent(&self, _: &Payment) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// An upstream that speaks raw HTTP/1.1: for each connection it reads one request and writes one answer.
pub struct RawUpstream {
    pub address: SocketAddr,
    pub requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl RawUpstream {
    pub async fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (seen.clone(), answer.clone());
                tokio::spawn(async move {
                    let request = read_message(&mut stream).await;
                    let text = answer(&request);
                    seen.lock().unwrap().push(request);
                    let _ = stream.write_all(text.as_bytes()).await;
                    let _ = stream.shutdown().await;
                });
            }
        });
        Self { address, requests, task }
    }

    /// Answers everything with 200 and this body.
    pub async fn saying(body: &'static str) -> Self {
        Self::start(move |_| {
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
        })
        .await
    }

    pub fn last(&self) -> String {
        self.requests.lock().unwrap().last().cloned().unwrap()
    }

    pub fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request's or an answer's head, and as much of a body as it announces.
async fn read_message(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).to_lowercase();
        if let Some(head) = text.find("\r\n\r\n") {
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|length| length.trim().parse::<usize>().ok());
            let complete = match length {
                Some(length) => bytes.len() >= head + 4 + length,
                None => !text.contains("transfer-encoding: chunked") || text.ends_with("\r\n0\r\n\r\n"),
            };
            if complete {
                break;
            }
        }
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(n) => bytes.extend_from_slice(&chunk[..n]),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A gateway that listens on a free port.
pub struct Served {
    pub address: SocketAddr,
    pub gateway: Gateway,
    pub till: Arc<Till>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

pub fn config(upstream: SocketAddr, gateway: &str, routes: &str) -> GatewayConfig {
    let text = format!(
        "[gateway]\nupstream = \"http://{upstream}\"\nnetwork = \"base-sepolia\"\n\
         pay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n{gateway}\n{routes}"
    );
    Config::parse("test.toml", &text, std::iter::empty()).unwrap().gateway.unwrap()
}

/// One priced route and everything else free.
pub const ROUTES: &str =
    "[[route]]\nmatch = \"/paid\"\nprice = \"$0.002\"\n[[route]]\nmatch = \"/*\"\nfree = true\n";

impl Served {
    pub async fn start(config: GatewayConfig) -> Self {
        // As the binary does at its start; the second test to come here finds it done.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let till = Arc::new(Till::default());
        let world = Arc::new(TokioWorld::new());
        let key = BindingKey::new([5; 32], None);
        let gateway = Gateway::build(&config, till.clone(), world, key).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = gateway.clone();
        let task = tokio::spawn(async move {
            let stop = async move {
                let _ = stopped.await;
            };
            serving.serve_on(listener, stop).await.unwrap();
        });
        Self { address, gateway, till, stop: Some(stop), task }
    }

    /// Stops, and returns when everything under way has ended.
    pub async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        self.task.await.unwrap();
    }

    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Writes these bytes and reads until the gateway closes.
    pub async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A request with these further header lines; the connection is closed after it.
    pub async fn get(&self, path: &str, headers: &str) -> String {
        self.raw(&format!("GET {path} HTTP/1.1\r\nhost: api.example\r\nconnection: close\r\n{headers}\r\n"))
            .await
    }

    /// Asks, and pays what is asked.
    pub async fn buy(&self, path: &str, headers: &str) -> String {
        let unpaid = self.get(path, "").await;
        let payment = pay(header(&unpaid, "payment-required").expect("a challenge"));
        self.get(path, &format!("payment-signature: {payment}\r\n{headers}")).await
    }
}

pub fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

pub fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

/// A payment of the first offer.
pub fn pay(challenge: &str) -> String {
    let challenge = v2::PaymentRequired::from_header(challenge.as_bytes()).unwrap();
    let offer = &challenge.accepts[0];
    let asked = x402::requirement_v2(offer, &Tokens::new(&Registry::builtin())).unwrap();
    let key = Key::from_bytes([3; 32]).unwrap();
    let payer = farthing_evm::from_alloy(key.address());
    let now = TokioWorld::new().now();
    let unsigned = buy::authorize(&asked, &payer, buy::Nonce([1; 32]), Duration::from_secs(60), now).unwrap();
    let presented = unsigned.signed(&key.sign(unsigned.digest()), None);
    x402::payment_v2(offer, &presented, None, None).unwrap().to_header()
}
