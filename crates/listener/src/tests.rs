use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::pulse::{Pulse, Verdict};
use crate::table::Table;
use crate::{BoxError, Inbound, Limits, Peer, Server, serve};

const SHORT: Duration = Duration::from_millis(150);
/// Longer than any of these tests; what is to be shown must happen before.
const LONG: Duration = Duration::from_secs(30);
const GOODS: usize = 32 << 20;

/// Limits of which none is met within a test, but for those that it sets.
fn patient() -> Limits {
    Limits { head_timeout: LONG, idle_timeout: LONG, stall_timeout: LONG, ..Limits::default() }
}

struct Serving {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start<H, F, B>(limits: Limits, handler: H) -> Self
    where
        H: Fn(Request<Inbound>, Peer) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = Server { handler, limits, tls: None, stands_for_many: Arc::new(|_| false) };
        let task = tokio::spawn(serve(server, listener, async move {
            let _ = stopped.await;
        }));
        Self { address, stop, task }
    }

    async fn hello(limits: Limits) -> Self {
        Self::start(limits, |_, _| async { Response::new(Full::new(Bytes::from_static(b"hello"))) }).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes this and reads until the server closes.
    async fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        end_of(stream).await
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

async fn end_of(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // Cut off is an end too.
    let _ = tokio::time::timeout(LONG, read).await.expect("the server ends the connection");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn who_asks_for_nothing_is_cut_off_in_whatever_protocol() {
    let serving = Serving::hello(Limits { head_timeout: SHORT, ..patient() }).await;
    for begun in ["", "PRI * HT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nhost: a\r\nx-slow"] {
        let answer = serving.ask(begun.as_bytes()).await;
        assert!(!answer.contains("hello"), "{begun:?}");
    }
    assert!(serving.ask(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.ends_with("hello"));
    serving.stop().await;
}

#[tokio::test]
async fn a_head_that_dribbles_in_has_as_long_as_one_that_does_not_come() {
    let serving = Serving::hello(Limits { head_timeout: SHORT, ..patient() }).await;
    let (mut reader, mut writer) = serving.connect().await.into_split();
    // A byte at a time, for as long as anybody takes it.
    let dribbling = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nx: ".iter().chain(std::iter::repeat(&b'x')) {
            if writer.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LONG, reader.read_to_end(&mut answer)).await.expect("it is cut off");
    assert!(!String::from_utf8_lossy(&answer).contains("hello"));
    dribbling.await.unwrap();
    serving.stop().await;
}

/// Reads the whole body, and says so or why not.
async fn read_it(request: Request<Inbound>, _: Peer) -> Response<Full<Bytes>> {
    let said = match request.into_body().collect().await {
        Ok(body) => format!("read {}", body.to_bytes().len()),
        Err(error) => error.to_string(),
    };
    Response::new(Full::new(said.into()))
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_given_up() {
    let limits = Limits { stall_timeout: SHORT, ..patient() };
    let serving = Serving::start(limits, read_it).await;
    let (mut reader, mut writer) = serving.connect().await.into_split();
    writer
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 100000\r\n\r\n")
        .await
        .unwrap();
    let dribbling = tokio::spawn(async move {
        // Each byte buys a millisecond, and takes five.
        while writer.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LONG, reader.read_to_end(&mut answer)).await.expect("it is answered");
    assert!(String::from_utf8_lossy(&answer).ends_with("too slowly"), "{answer:?}");
    drop(reader);
    dribbling.await.unwrap();
    let whole = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n\r\nhello";
    assert!(serving.ask(whole).await.ends_with("read 5"));
    serving.stop().await;
}

/// As many bytes as are asked for, in one piece; says when it is dropped.
struct Goods {
    body: Full<Bytes>,
    _dropped: mpsc::UnboundedSender<()>,
}

impl Body for Goods {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        std::pin::Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A server of goods that no socket's buffer holds, for so many requests; and a channel that closes when all of them are
/// let go.
async fn goods(limits: Limits, requests: usize) -> (Serving, mpsc::UnboundedReceiver<()>) {
    let (held, gone) = mpsc::unbounded_channel();
    let senders = Arc::new(Mutex::new(vec![held; requests]));
    let handler = move |_: Request<Inbound>, _: Peer| {
        let held = senders.lock().unwrap().pop().expect("no more requests than were announced");
        async move {
            let body = Full::new(Bytes::from(vec![7; GOODS]));
            Response::new(Goods { body, _dropped: held })
        }
    };
    (Serving::start(limits, handler).await, gone)
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_held_for_ever() {
    let (serving, mut gone) = goods(Limits { stall_timeout: SHORT, ..patient() }, 1).await;
    let mut stream = serving.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let ended = tokio::time::timeout(LONG, gone.recv()).await.expect("the answer is let go");
    assert_eq!(ended, None);
    drop(stream);
    serving.stop().await;
}

#[tokio::test]
async fn an_http2_answer_that_gets_no_window_is_not_held_for_ever() {
    let (serving, mut gone) = goods(Limits { stall_timeout: SHORT, ..patient() }, 1).await;
    let stream = TokioIo::new(serving.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    // It answers pings, and takes nothing.
    let connection = tokio::spawn(connection);
    let request = Request::builder().uri("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    let ended = tokio::time::timeout(LONG, gone.recv()).await.expect("the answer is let go");
    assert_eq!(ended, None);
    drop((answer, client));
    let _ = connection.await;
    serving.stop().await;
}

#[tokio::test]
async fn a_long_answer_arrives_whole_in_both_protocols() {
    let (serving, _gone) = goods(patient(), 2).await;
    let answer = serving.ask(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let stream = TokioIo::new(serving.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().uri("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let (answer, other) = tokio::join!(answer, client.send_request(request));
    assert!(answer.contains("content-length: 33554432\r\n"));
    assert_eq!(answer.split_once("\r\n\r\n").unwrap().1.len(), GOODS);
    assert_eq!(other.unwrap().into_body().collect().await.unwrap().to_bytes().len(), GOODS);
    drop(client);
    let _ = connection.await;
    serving.stop().await;
}

#[tokio::test]
async fn an_http2_connection_without_requests_is_asked_to_go() {
    let serving = Serving::hello(Limits { idle_timeout: SHORT, ..patient() }).await;
    let stream = TokioIo::new(serving.connect().await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::builder().uri("http://a/").body(Empty::<Bytes>::new()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "hello");
    let _ = tokio::time::timeout(LONG, connection).await.expect("it was ended");
    serving.stop().await;
}

fn peer(n: u8) -> Option<IpAddr> {
    Some(IpAddr::from([192, 0, 2, n]))
}

/// Whether this connection was asked to go.
async fn is_evicted(pulse: &Pulse) -> bool {
    tokio::time::timeout(Duration::ZERO, pulse.evicted()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn for_one_connection_too_many_the_longest_idle_of_that_peer_goes() {
    let limits = Limits { max_per_peer: 2, ..Limits::default() };
    let table = Table::new(&limits, 100);
    let (a, b, c, other) = (Pulse::new(limits), Pulse::new(limits), Pulse::new(limits), Pulse::new(limits));
    let _other = table.enter(peer(2), &other).expect("a place");
    let place = table.enter(peer(1), &a).expect("a place");
    let busy = a.request();
    tokio::time::advance(Duration::from_secs(1)).await;
    let _b = table.enter(peer(1), &b).expect("a place");
    let _c = table.enter(peer(1), &c).expect("a place, for which another goes");
    assert!(!is_evicted(&a).await, "it is busy");
    assert!(is_evicted(&b).await, "it is not");
    assert!(!is_evicted(&other).await, "it is another peer's");
    // A proxy stands for many.
    for _ in 0..10 {
        std::mem::forget(table.enter(None, &Pulse::new(limits)).expect("a place"));
    }
    // Nobody can go: the newcomer cannot come.
    let all_busy = [b.request(), c.request()];
    assert!(table.enter(peer(1), &Pulse::new(limits)).is_none());
    drop((busy, all_busy, place));
    assert!(table.enter(peer(1), &Pulse::new(limits)).is_some());
}

#[tokio::test(start_paused = true)]
async fn when_all_places_are_taken_the_peer_with_the_most_makes_room() {
    let limits = Limits::default();
    let table = Table::new(&limits, 5);
    let (honest, newcomer) = (Pulse::new(limits), Pulse::new(limits));
    let _honest = table.enter(peer(1), &honest).expect("a place");
    tokio::time::advance(Duration::from_secs(5)).await;
    let crowd: Vec<_> = (0..4).map(|_| Pulse::new(limits)).collect();
    let _crowd: Vec<_> = crowd.iter().map(|pulse| table.enter(peer(2), pulse).expect("a place")).collect();
    let _newcomer = table.enter(peer(3), &newcomer).expect("a place, for which another goes");
    let mut gone = 0;
    for pulse in &crowd {
        gone += usize::from(is_evicted(pulse).await);
    }
    assert_eq!((gone, is_evicted(&honest).await), (1, false));
}

#[tokio::test(start_paused = true)]
async fn whoever_asked_for_something_stays_before_those_who_never_did() {
    let limits = Limits::default();
    let table = Table::new(&limits, 10);
    let honest: Vec<_> = (0..4).map(|_| Pulse::new(limits)).collect();
    let _honest: Vec<_> = honest
        .iter()
        .map(|pulse| {
            drop(pulse.request());
            table.enter(peer(1), pulse).expect("a place")
        })
        .collect();
    tokio::time::advance(Duration::from_secs(5)).await;
    // From an address of its own each, and each for one that goes: in a burst, before any of them is gone.
    let strangers: Vec<_> = (0..12).map(|_| Pulse::new(limits)).collect();
    let places: Vec<_> =
        strangers.iter().zip(10..).map(|(pulse, n)| table.enter(peer(n), pulse).expect("a place")).collect();
    let mut gone = 0;
    for pulse in &strangers {
        gone += usize::from(is_evicted(pulse).await);
    }
    assert_eq!(gone, 6, "as many as are too many");
    for pulse in &honest {
        assert!(!is_evicted(pulse).await);
    }
    drop(places);
}

#[tokio::test(start_paused = true)]
async fn a_table_keeps_nothing_of_those_who_left_and_takes_as_many_again() {
    let limits = Limits { max_per_peer: 3, ..Limits::default() };
    let table = Table::new(&limits, 3);
    for round in 0..100u8 {
        let pulse = Pulse::new(limits);
        let mut places: Vec<_> =
            (0..3).map(|n| table.enter(peer(n % 2 + round), &pulse).expect("a place")).collect();
        // Out of order.
        drop(places.remove(usize::from(round) % 3));
        drop(places);
    }
    tokio::time::timeout(LONG, table.empty()).await.expect("nobody is there");
}

#[tokio::test(start_paused = true)]
async fn ipv6_peers_are_counted_by_their_network() {
    let limits = Limits { max_per_peer: 1, ..Limits::default() };
    let table = Table::new(&limits, 100);
    let (first, second, far) = (Pulse::new(limits), Pulse::new(limits), Pulse::new(limits));
    let _first = table.enter("2001:db8:1:1::1".parse().ok(), &first).expect("a place");
    let _far = table.enter("2001:db8:1:2::1".parse().ok(), &far).expect("a place");
    let _second = table.enter("2001:db8:1:1:ffff::1".parse().ok(), &second).expect("a place");
    assert!(is_evicted(&first).await && !is_evicted(&far).await);
}

#[tokio::test(start_paused = true)]
async fn taking_a_little_at_a_time_buys_as_much_time_as_it_is_worth() {
    let limits = Limits { stall_timeout: Duration::from_secs(10), min_rate: 1000, ..Limits::default() };
    let pulse = Pulse::new(limits);
    let _busy = pulse.request();
    pulse.blocked();
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(pulse.judge(), Verdict::Fine);
    // Two seconds' worth.
    pulse.wrote(2000, false);
    pulse.blocked();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(pulse.judge(), Verdict::Fine);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pulse.judge(), Verdict::Stalled);
    // It takes everything that there is: it is well again.
    pulse.wrote(10, true);
    assert_eq!(pulse.judge(), Verdict::Fine);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_slow_is_not_its_clients_fault() {
    let limits =
        Limits { head_timeout: SHORT, idle_timeout: SHORT, stall_timeout: SHORT, ..Limits::default() };
    let pulse = Pulse::new(limits);
    assert_eq!(pulse.judge(), Verdict::Fine);
    tokio::time::advance(SHORT).await;
    assert_eq!(pulse.judge(), Verdict::Silent);
    let busy = pulse.request();
    tokio::time::advance(LONG).await;
    assert_eq!(pulse.judge(), Verdict::Fine, "the answer is not there yet");
    pulse.handed(1);
    tokio::time::advance(SHORT).await;
    assert_eq!(pulse.judge(), Verdict::Stalled);
    pulse.taken(1);
    drop(busy);
    assert_eq!(pulse.judge(), Verdict::Fine);
    tokio::time::advance(SHORT).await;
    assert_eq!(pulse.judge(), Verdict::Idle);
}
