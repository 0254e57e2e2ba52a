//! Programs, the proxy and a seller, over real sockets of this machine.

mod seller;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use farthing_evm::Key;
use farthing_policy::{AgentName, Bucket, Caps, Dollars, HostPattern, HostRule, Rules};
use farthing_primitives::{Network, Registry};
use farthing_wallet::client::{Client, Patience, Transport};
use farthing_wallet::journal::agents::CredentialKind;
use farthing_wallet::journal::{Journal, State};
use farthing_wallet::{AgentToken, Authorizer, Books, LocalAuthorizer, system_clock};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

use self::seller::{PRICE, Seller};
use crate::{Authority, Files, MAX_ANSWER_BYTES, MAX_REQUEST_BYTES, Proxy, Settings, Wallet};

const TOKEN: &str = "abab";
/// `agent:abab`.
const SHOWN: &str = "Basic YWdlbnQ6YWJhYg==";
/// Longer than any of these tests; what is to be shown must happen before.
const LONG: Duration = Duration::from_secs(30);

/// A proxy whose wallet allows one seller on this machine.
struct Stand {
    seller: Seller,
    journal: Arc<Journal>,
    proxy: Proxy,
    address: SocketAddr,
    files: Files,
    _home: TempDir,
    _stop: oneshot::Sender<()>,
}

/// What a program got.
#[derive(Debug)]
struct Got {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The code of an answer of ours.
    fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16());
        problem["code"].as_str().unwrap().to_owned()
    }
}

fn rules(rules: &mut Rules, cents: u128) {
    rules.networks.insert(Network::eip155(84532));
    rules.hosts.push(HostRule::new("127.0.0.1".parse().unwrap()));
    let cent = Dollars::parse("0.01").unwrap().0;
    let caps = Caps { per_payment: 2 * cent, hour: cents * cent, day: cents * cent };
    rules.caps.insert(Bucket::Dollar, caps);
}

impl Stand {
    async fn new() -> Self {
        Self::with(10, Settings::default(), |_| {}, |desk| desk).await
    }

    async fn with(
        cents: u128,
        settings: Settings,
        change: impl Fn(&mut Rules),
        desk: impl Fn(Wallet) -> Wallet,
    ) -> Self {
        let home = tempfile::tempdir().unwrap();
        let journal = Arc::new(Journal::in_memory().unwrap());
        journal
            .change_rules(|all| {
                rules(all, cents);
                change(all);
                Ok(())
            })
            .unwrap();
        let quick = Patience {
            first_pause: Duration::from_millis(1),
            longest_pause: Duration::from_millis(2),
            presentations: 2,
            ..Patience::default()
        };
        let key = Key::from_bytes([7; 32]).unwrap();
        let wallet = LocalAuthorizer::new(key, journal.clone(), Registry::builtin());
        let transport = Arc::new(Transport::new(MAX_ANSWER_BYTES).unwrap());
        let make = move |wallet: Arc<dyn Authorizer>| {
            Client::builder().authorizer(wallet).exchange(transport.clone()).patience(quick).build()
        };
        let hosts = wallet.hosts().await.unwrap();
        let files = Files::within(home.path());
        let authority = Authority::open(files.clone(), &hosts, system_clock().wall).unwrap();
        let desk = desk(Wallet::new(wallet, Box::new(make), TOKEN).unwrap());
        let proxy = Proxy::new(Arc::new(desk), authority, settings).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = proxy.clone();
        tokio::spawn(async move {
            let stop = async {
                let _ = stopped.await;
            };
            serving.serve(listener, stop).await;
        });
        Self { seller: Seller::start().await, journal, proxy, address, files, _home: home, _stop: stop }
    }

    /// A program's connection to the proxy.
    async fn program(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    fn request(&self, path: &str) -> http::request::Builder {
        let url = format!("http://{}{path}", self.seller.address);
        Request::builder().uri(url).header("proxy-authorization", SHOWN)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Got {
        let answer = tokio::time::timeout(LONG, async {
            let answer = self.program().await.send_request(request).await.unwrap();
            let (parts, body) = answer.into_parts();
            Got {
                status: parts.status,
                headers: parts.headers,
                body: body.collect().await.unwrap().to_bytes(),
            }
        });
        answer.await.expect("an answer")
    }

    async fn get(&self, path: &str) -> Got {
        self.send(self.request(path).body(Full::default()).unwrap()).await
    }

    /// What the proxy says to these bytes, until it says no more.
    async fn raw(&self, bytes: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await.expect("an end");
        String::from_utf8_lossy(&said).into_owned()
    }

    /// Opens a tunnel, and gives it once it is there.
    async fn tunnel(&self, to: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let connect = format!("CONNECT {to} HTTP/1.1\r\nhost: {to}\r\nproxy-authorization: {SHOWN}\r\n\r\n");
        stream.write_all(connect.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        if head.starts_with("HTTP/1.1 200 ") { Ok(stream) } else { Err(head) }
    }

    /// Waits until the latest purchase is written down as delivered.
    async fn delivered(&self) {
        until("it is written down", || self.journal.history(1).unwrap()[0].delivered).await;
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + LONG;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "in time, {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn what_is_free_passes_as_it_is() {
    let stand = Stand::new().await;
    let request = stand
        .request("/echo?a=%2Fb")
        .method(Method::PUT)
        .header("x-mine", "1")
        .header("authorization", "Bearer mine")
        .header("connection", "x-hop")
        .header("x-hop", "1");
    let got = stand.send(request.body(Full::from("hello")).unwrap()).await;
    assert_eq!(got.status, StatusCode::OK);
    let echo: Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(
        (&echo["method"], &echo["target"], &echo["body"]),
        (&"PUT".into(), &"/echo?a=%2Fb".into(), &"hello".into())
    );
    let headers = &echo["headers"];
    assert_eq!(headers["authorization"], "Bearer mine");
    assert_eq!(headers["x-mine"], "1");
    assert_eq!(headers["via"], "1.1 farthing");
    assert_eq!(headers["host"], stand.seller.address.to_string());
    for absent in ["proxy-authorization", "x-hop", "proxy-connection"] {
        assert!(headers[absent].is_null(), "{absent}: {headers}");
    }
    // What the seller says for us is not believed, and an error is an error.
    assert_eq!(got.header("farthing-purchase"), None);
    assert_eq!(stand.get("/missing").await.status, StatusCode::NOT_FOUND);
    let head = stand.send(stand.request("/echo").method(Method::HEAD).body(Full::default()).unwrap()).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn what_is_free_comes_as_it_is_sent() {
    let stand = Stand::new().await;
    let request = stand.request("/stream").body(Full::default()).unwrap();
    let mut body = stand.program().await.send_request(request).await.unwrap().into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first, "one ");
    // Only now is there more.
    stand.seller.go_on();
    assert_eq!(body.collect().await.unwrap().to_bytes(), "two");
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_seem_whole() {
    let stand = Stand::new().await;
    let request = stand.request("/broken").body(Full::default()).unwrap();
    let mut body = stand.program().await.send_request(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one ");
    stand.seller.go_on();
    assert!(body.collect().await.is_err());
}

#[tokio::test]
async fn a_price_is_paid_and_the_program_gets_the_goods() {
    let stand = Stand::new().await;
    let got = stand.get("/paid").await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"goods"[..]));
    assert_eq!(stand.seller.payments().len(), 1);
    stand.delivered().await;
    let bought = stand.journal.history(10).unwrap();
    assert_eq!(bought.len(), 1);
    assert_eq!(got.header("farthing-purchase"), Some(&*bought[0].id.to_string()));
    assert!(got.header("farthing-paid").unwrap().starts_with(&format!("{PRICE} eip155:84532/")), "{got:?}");
    // The next is a purchase of its own; and one price is asked for once.
    assert_eq!(stand.get("/paid").await.status, StatusCode::OK);
    assert_eq!(stand.seller.payments().len(), 2);
    assert_eq!(stand.seller.asked("/paid"), 2);
    // A body is shown twice.
    let request = stand.request("/paid").method(Method::POST).body(Full::from("task")).unwrap();
    assert_eq!(stand.send(request).await.body, "goods");
    assert_eq!(stand.seller.bodies("/paid"), ["", "", "", "", "task", "task"]);
}

#[tokio::test]
async fn what_the_policy_denies_is_the_sellers_402_and_says_why() {
    let stand = Stand::with(1, Settings::default(), |_| {}, |desk| desk).await;
    assert_eq!(stand.get("/paid").await.status, StatusCode::OK);
    let denied = stand.get("/paid").await;
    assert_eq!(denied.status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(denied.header("farthing-denied"), Some("over_hour_cap"));
    assert!(denied.header("farthing-denied-detail").unwrap().contains("$0.01"), "{denied:?}");
    // As its seller wrote it.
    let price: Value = serde_json::from_slice(&denied.body).unwrap();
    assert_eq!(price["accepts"][0]["maxAmountRequired"], PRICE.to_string());
    assert_eq!(stand.seller.payments().len(), 1);
    // What no wallet can read is passed on too.
    let odd = stand.get("/odd-price").await;
    assert_eq!(
        (odd.status, odd.header("farthing-denied")),
        (StatusCode::PAYMENT_REQUIRED, Some("challenge_unreadable"))
    );
    assert_eq!(odd.body, "pay me");
}

#[tokio::test]
async fn the_most_that_one_request_may_cost_holds_beside_the_policy() {
    let settings = Settings { max: Some("0.009".to_owned()), ..Settings::default() };
    let stand = Stand::with(10, settings, |_| {}, |desk| desk).await;
    assert_eq!(stand.get("/paid").await.header("farthing-denied"), Some("over_max"));
    assert_eq!(stand.seller.payments(), Vec::<String>::new());
}

#[tokio::test]
async fn for_a_program_that_pays_itself_nothing_is_paid_on_top() {
    let stand = Stand::new().await;
    for (name, value) in [("payment-signature", "e30="), ("authorization", "Payment e30")] {
        let request = stand.request("/paid").header(name, value).body(Full::default()).unwrap();
        let got = stand.send(request).await;
        assert_eq!(
            (got.status, got.header("farthing-denied")),
            (StatusCode::PAYMENT_REQUIRED, None),
            "{name}"
        );
    }
    let request = stand.request("/paid").header("x-payment", "e30=").body(Full::default()).unwrap();
    assert_eq!(stand.send(request).await.body, "goods");
    assert!(stand.journal.history(10).unwrap().is_empty());
}

#[tokio::test]
async fn an_unknown_outcome_says_so_and_the_same_request_pays_nothing_more() {
    let stand = Stand::new().await;
    stand.seller.fail(true);
    let unknown = stand.get("/paid").await;
    assert_eq!((unknown.status, &*unknown.code()), (StatusCode::SERVICE_UNAVAILABLE, "outcome_unknown"));
    let id = unknown.header("farthing-purchase").unwrap().to_owned();
    assert!(unknown.header("retry-after").is_some());
    assert_eq!(stand.get("/paid").await.header("farthing-purchase"), Some(&*id));
    stand.seller.fail(false);
    let got = stand.get("/paid").await;
    assert_eq!((got.status, got.header("farthing-purchase")), (StatusCode::OK, Some(&*id)));
    assert_eq!(stand.seller.payments().len(), 1);
    // Now that it is delivered, the next is another.
    stand.delivered().await;
    assert_ne!(stand.get("/paid").await.header("farthing-purchase"), Some(&*id));
}

#[tokio::test]
async fn a_request_with_a_name_is_paid_for_once() {
    let stand = Stand::new().await;
    let named =
        |key: &str| stand.request("/paid").header("idempotency-key", key).body(Full::default()).unwrap();
    let all = (0..8).map(|_| stand.send(named("a")));
    for got in futures_util::future::join_all(all).await {
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"goods"[..]));
    }
    stand.delivered().await;
    assert_eq!(stand.send(named("a")).await.status, StatusCode::OK);
    assert_eq!(stand.seller.payments().len(), 1);
    assert_eq!(stand.send(named("b")).await.status, StatusCode::OK);
    assert_eq!(stand.seller.payments().len(), 2);
    // What its seller refused is not paid anew either.
    stand.seller.refuse(true);
    let refused = stand.send(named("c")).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    assert!(refused.header("farthing-refused").is_some(), "{refused:?}");
    stand.seller.refuse(false);
    assert_eq!(stand.send(named("c")).await.status, StatusCode::OK);
    assert_eq!(stand.seller.payments().len(), 3);
}

#[tokio::test]
async fn who_hangs_up_and_asks_again_pays_once() {
    let stand = Stand::new().await;
    stand.seller.hold(true);
    let asking = tokio::spawn({
        let (request, mut program) =
            (stand.request("/paid").body(Full::default()).unwrap(), stand.program().await);
        async move { program.send_request(request).await.map(|_| ()) }
    });
    stand.seller.shown().await;
    asking.abort();
    assert!(asking.await.unwrap_err().is_cancelled());
    // The purchase is not cancelled with it, and whoever asks for the same gets what it brings.
    until("it is left behind", || stand.proxy.left_behind() == 1).await;
    let release = async {
        until("it is taken up", || stand.proxy.left_behind() == 0).await;
        stand.seller.hold(false);
    };
    let (got, ()) = tokio::join!(stand.get("/paid"), release);
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"goods"[..]));
    assert_eq!(stand.seller.payments().len(), 1);
}

#[tokio::test]
async fn only_who_shows_the_token_is_let_in() {
    let stand = Stand::new().await;
    let ask = |shown: Option<&'static str>| {
        let url = format!("http://{}/echo", stand.seller.address);
        let request = Request::builder().uri(url);
        let request =
            shown.into_iter().fold(request, |request, value| request.header("proxy-authorization", value));
        stand.send(request.body(Full::default()).unwrap())
    };
    let nobody = ask(None).await;
    assert_eq!((nobody.status.as_u16(), &*nobody.code()), (407, "proxy_credentials_required"));
    assert_eq!(nobody.header("proxy-authenticate"), Some("Basic realm=\"farthing\", charset=\"UTF-8\""));
    assert_eq!(ask(Some("Basic YWdlbnQ6YWJhYw==")).await.code(), "proxy_credentials_refused");
    assert_eq!(ask(Some("Bearer abab")).await.code(), "proxy_credentials_refused");
    assert_eq!(ask(Some(SHOWN)).await.status, StatusCode::OK);
    assert_eq!(stand.seller.asked("/echo"), 1);
    let said =
        stand.raw("CONNECT a.example:443 HTTP/1.1\r\nhost: a.example:443\r\nconnection: close\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.1 407 "), "{said}");

    let open = Stand::with(10, Settings::default(), |_| {}, Wallet::with_anonymous).await;
    let url = format!("http://{}/echo", open.seller.address);
    let anonymous = Request::builder().uri(&url).body(Full::default()).unwrap();
    assert_eq!(open.send(anonymous).await.status, StatusCode::OK);
    let wrong = Request::builder().uri(&url).header("proxy-authorization", "Basic YTpi");
    assert_eq!(open.send(wrong.body(Full::default()).unwrap()).await.code(), "proxy_credentials_refused");
}

#[tokio::test]
async fn an_agents_purchases_are_its_own_and_end_with_its_token() {
    let stand = Stand::new().await;
    let (ann, ben): (AgentName, AgentName) = ("ann".parse().unwrap(), "ben".parse().unwrap());
    let clock = system_clock();
    let added = |name: &AgentName| {
        let token = AgentToken::random(name.clone()).unwrap();
        stand.journal.add_agent(name, CredentialKind::Token, &token.credential(), &clock).unwrap();
        token.reveal()
    };
    let (anns, bens) = (added(&ann), added(&ben));
    let ask = |token: &str| {
        let shown = format!("Basic {}", STANDARD.encode(format!("agent:{token}")));
        let request = Request::builder().uri(format!("http://{}/paid", stand.seller.address));
        let request = request.header("proxy-authorization", shown).header("idempotency-key", "one");
        stand.send(request.body(Full::default()).unwrap())
    };
    // One name, and two agents: each pays for itself, once.
    for token in [&anns, &bens, &anns] {
        assert_eq!(ask(token).await.status, StatusCode::OK);
    }
    assert_eq!(stand.seller.payments().len(), 2);
    for name in [&ann, &ben] {
        assert_eq!(stand.journal.for_agent(name.clone(), None).history(10).unwrap().len(), 1, "{name}");
    }
    stand.journal.revoke_agent(&ann, &clock).unwrap();
    assert_eq!(ask(&anns).await.code(), "proxy_credentials_refused");
    assert_eq!(ask(&bens).await.status, StatusCode::OK);
}

/// Known attack 31: a program is talked into asking for this machine's own network through the proxy.
#[tokio::test]
async fn attack_31_the_proxy_does_not_lead_to_this_machines_network() {
    let stand =
        Stand::with(10, Settings { tunnel_ports: vec![1], ..Settings::default() }, |_| {}, |desk| desk).await;
    for host in ["localhost", "127.0.0.2", "[::1]", "0.0.0.0", "169.254.169.254", "2130706434"] {
        let url = format!("http://{host}:{}/echo", stand.seller.address.port());
        let request = Request::builder().uri(url).header("proxy-authorization", SHOWN);
        let got = stand.send(request.body(Full::default()).unwrap()).await;
        assert_eq!((got.status, &*got.code()), (StatusCode::FORBIDDEN, "host_private"), "{host}");
        let refused = stand.tunnel(&format!("{host}:1")).await.unwrap_err();
        assert!(refused.starts_with("HTTP/1.1 403 "), "{host}: {refused}");
    }
    assert_eq!(stand.seller.asked("/echo"), 0);
}

#[tokio::test]
async fn only_hosts_that_the_owner_allows_if_that_is_asked_for() {
    let settings = Settings { only_allowed: true, ..Settings::default() };
    let stand = Stand::with(10, settings, |_| {}, |desk| desk).await;
    assert_eq!(stand.get("/paid").await.status, StatusCode::OK);
    let other = Request::builder().uri("http://other.example/").header("proxy-authorization", SHOWN);
    let got = stand.send(other.body(Full::default()).unwrap()).await;
    assert_eq!((got.status, &*got.code()), (StatusCode::FORBIDDEN, "host_not_allowed"));
    let refused = stand.tunnel("other.example:443").await.unwrap_err();
    assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
    assert!(refused.contains("host_not_allowed"), "{refused}");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_others_go_on() {
    let stand = Stand::new().await;
    let auth = format!("proxy-authorization: {SHOWN}\r\nconnection: close\r\n");
    let host = stand.seller.address;
    for (bytes, expected) in [
        (format!("GET /echo HTTP/1.1\r\nhost: a\r\n{auth}\r\n"), "HTTP/1.1 400 "),
        (format!("GET ftp://a/ HTTP/1.1\r\nhost: a\r\n{auth}\r\n"), "HTTP/1.1 400 "),
        (format!("GET http://u:p@a.example/ HTTP/1.1\r\nhost: a\r\n{auth}\r\n"), "HTTP/1.1 400 "),
        (
            format!("GET http://{host}/{} HTTP/1.1\r\nhost: a\r\n{auth}\r\n", "x".repeat(20_000)),
            "HTTP/1.1 414 ",
        ),
        (
            format!("GET http://{host}/echo HTTP/1.1\r\nhost: a\r\nx: {}\r\n{auth}\r\n", "x".repeat(70_000)),
            "HTTP/1.1 431 ",
        ),
        (
            format!("GET http://{host}/echo HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\n{auth}\r\n"),
            "HTTP/1.1 501 ",
        ),
        (
            format!(
                "POST http://{host}/echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n{auth}\r\nzz\r\n"
            ),
            "HTTP/1.1 400 ",
        ),
        (format!("CONNECT {host}/ HTTP/1.1\r\nhost: a\r\n{auth}\r\n"), "HTTP/1.1 400 "),
        (format!("CONNECT other.example:25 HTTP/1.1\r\nhost: a\r\n{auth}\r\n"), "HTTP/1.1 403 "),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), "HTTP/1.1 400 "),
    ] {
        let said = stand.raw(&bytes).await;
        assert!(said.starts_with(expected), "{:?}: {said:?}", &bytes[..bytes.len().min(80)]);
    }
    assert_eq!(stand.seller.asked("/echo"), 0);
    let long = stand.request("/echo").method(Method::POST);
    let got = stand.send(long.body(Full::from(vec![0; MAX_REQUEST_BYTES + 1])).unwrap()).await;
    assert_eq!((got.status, &*got.code()), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    assert_eq!(stand.get("/echo").await.status, StatusCode::OK);
}

/// TLS with whoever is at the other end of a tunnel, as `name`.
async fn tls(
    stand: &Stand,
    tunnel: TcpStream,
    name: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&stand.files.certificate).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tunnel).await
}

#[tokio::test]
async fn hosts_that_are_named_are_opened_with_a_certificate_of_ours() {
    let stand = Stand::new().await;
    // Nobody speaks TLS there, so what is asked for comes to nothing; who is asked, and for whom, is seen all the same.
    let host = stand.seller.address.to_string();
    let ask = async |head: String| {
        let tunnel = stand.tunnel(&host).await.unwrap();
        let mut stream = tls(&stand, tunnel, "127.0.0.1").await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut said = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut said)).await.expect("an end");
        String::from_utf8(said).unwrap()
    };
    let said = ask(format!("GET /paid HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
    assert!(said.starts_with("HTTP/1.1 502 ") && said.contains("\"code\":\"unreachable\""), "{said}");
    for (line, host, expected) in [
        ("GET / HTTP/1.1", "other.example", "misdirected"),
        ("GET http://other.example/ HTTP/1.1", &*host, "misdirected"),
        ("CONNECT other.example:443 HTTP/1.1", &*host, "bad_target"),
    ] {
        let said = ask(format!("{line}\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
        assert!(said.contains(&format!("\"code\":\"{expected}\"")), "{line}: {said}");
    }
    // Two hosts are none.
    let said =
        ask(format!("GET / HTTP/1.1\r\nhost: {host}\r\nhost: {host}\r\nconnection: close\r\n\r\n")).await;
    assert!(said.contains("\"code\":\"bad_target\""), "{said}");
    // It is good for that host, and for no other.
    let tunnel = stand.tunnel(&host).await.unwrap();
    assert!(tls(&stand, tunnel, "other.example").await.is_err());
}

#[tokio::test]
async fn hosts_that_are_not_named_are_not_opened() {
    // Everything is allowed, and nothing is named.
    let anything = |rules: &mut Rules| {
        rules.hosts = vec![HostRule { pattern: HostPattern::Any, private: true, plaintext: true }];
    };
    let far = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = far.local_addr().unwrap();
    let settings = Settings { tunnel_ports: vec![address.port()], ..Settings::default() };
    let stand = Stand::with(10, settings, anything, |desk| desk).await;
    let mut near = stand.tunnel(&address.to_string()).await.unwrap();
    let (mut far, _) = far.accept().await.unwrap();
    // Byte for byte, whatever they are.
    near.write_all(b"\x16\x03\x01secret").await.unwrap();
    let mut heard = [0; 9];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"\x16\x03\x01secret");
    far.write_all(b"back").await.unwrap();
    drop(far);
    let mut back = String::new();
    near.read_to_string(&mut back).await.unwrap();
    assert_eq!(back, "back");
}

#[tokio::test]
async fn a_frozen_wallet_pays_for_nobody() {
    let stand = Stand::with(10, Settings::default(), |rules| rules.frozen = true, |desk| desk).await;
    assert_eq!(stand.get("/paid").await.header("farthing-denied"), Some("frozen"));
    assert_eq!(stand.get("/echo").await.status, StatusCode::OK);
    assert!(stand.journal.history(1).unwrap().is_empty());
}

#[tokio::test]
async fn many_at_once_are_paid_for_up_to_the_cap_and_no_further() {
    const CAP: usize = 7;
    let stand = Stand::with(CAP as u128, Settings::default(), |_| {}, |desk| desk).await;
    let all = (0..40).map(|_| stand.get("/paid"));
    let got = futures_util::future::join_all(all).await;
    let paid = got.iter().filter(|got| got.status == StatusCode::OK).count();
    let denied = got.iter().filter(|got| got.header("farthing-denied") == Some("over_hour_cap")).count();
    assert_eq!((paid, denied), (CAP, 40 - CAP));
    assert_eq!(stand.seller.payments().len(), CAP);
    let bought = stand.journal.history(100).unwrap();
    assert_eq!(bought.len(), CAP);
    assert!(bought.iter().all(|purchase| purchase.state != State::Released));
}
