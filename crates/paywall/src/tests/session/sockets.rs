//! Streams over WebSocket, in both framings, between a client and an upstream that are scripts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use farthing_channel::ChargeState;
use farthing_engine::ChannelStore;
use farthing_wire::mpp::ws::{Frame, Framing, MAX_QUEUED_FRAMES};
use farthing_wire::mpp::{Problem, ProblemType, SessionReceipt};
use http::{HeaderMap, Request, StatusCode, request::Parts};
use http_body_util::Full;
use tokio::sync::mpsc;

use super::shop::*;
use crate::tests::support::{Backend, dollars, get};
use crate::{
    AcceptedSocket, ConnectError, ConnectedSocket, Count, OpenSocket, SessionTerms, SocketClose, SocketError,
    SocketMessage, Sockets, WebSocket,
};

type Message = Result<SocketMessage, SocketError>;

/// The other end of a socket that the paywall holds.
struct Far {
    to: mpsc::UnboundedSender<Message>,
    from: mpsc::UnboundedReceiver<SocketMessage>,
}

fn socket() -> (OpenSocket, Far) {
    let (to, mut read) = mpsc::unbounded_channel();
    let (write, from) = mpsc::unbounded_channel();
    let read = futures_util::stream::poll_fn(move |cx| read.poll_recv(cx));
    let write = futures_util::sink::unfold(write, |write: mpsc::UnboundedSender<_>, message| async {
        write.send(message).map_err(|_| SocketError::Broken)?;
        Ok(write)
    });
    (OpenSocket { read: Box::pin(read), write: Box::pin(write) }, Far { to, from })
}

impl Far {
    fn say(&self, text: impl Into<String>) {
        self.to.send(Ok(SocketMessage::Text(text.into()))).unwrap();
    }

    fn close(&self) {
        let close = SocketClose { code: 1000, reason: String::new() };
        self.to.send(Ok(SocketMessage::Close(close))).unwrap();
    }

    async fn hear(&mut self) -> SocketMessage {
        let heard = tokio::time::timeout(Duration::from_secs(20), self.from.recv()).await;
        heard.expect("in time").expect("something")
    }
}

/// Both ends of one request's sockets, as a server would offer them.
struct Ends {
    client: Mutex<Option<OpenSocket>>,
    upstreams: Arc<Mutex<VecDeque<(HeaderMap, OpenSocket)>>>,
    heads: Arc<Mutex<Vec<Parts>>>,
}

#[async_trait]
impl Sockets for Ends {
    fn accept(&self) -> Option<AcceptedSocket> {
        let socket = self.client.lock().unwrap().take()?;
        Some(AcceptedSocket { headers: HeaderMap::new(), socket: Box::pin(async { Ok(socket) }) })
    }

    async fn connect(&self, head: Parts) -> Result<ConnectedSocket, ConnectError> {
        self.heads.lock().unwrap().push(head);
        let upstream = self.upstreams.lock().unwrap().pop_front();
        let (headers, socket) = upstream.ok_or(ConnectError::Unreachable)?;
        Ok(ConnectedSocket { headers, socket })
    }

    async fn leaving(&self) {
        std::future::pending().await
    }
}

/// A shop whose upstreams speak over sockets: the next connection gets the next of them.
struct Feed {
    shop: Shop,
    upstreams: Arc<Mutex<VecDeque<(HeaderMap, OpenSocket)>>>,
    heads: Arc<Mutex<Vec<Parts>>>,
}

impl Feed {
    async fn open(terms: SessionTerms) -> Self {
        let routes = vec![
            ("GET /feed", sold(terms)),
            ("GET /once", dollars("$0.002")),
            ("GET /units", sold(by_request())),
        ];
        let shop = Shop::open(routes, Backend::ok()).await;
        Self { shop, upstreams: Arc::default(), heads: Arc::default() }
    }

    /// One with a buyer whose channel is open.
    async fn with_buyer(terms: SessionTerms) -> (Self, Buyer) {
        let feed = Self::open(terms).await;
        let buyer = feed.shop.customer("/feed", 1000).await;
        (feed, buyer)
    }

    /// The next upstream; it says nothing by itself.
    fn upstream(&self) -> Far {
        self.upstream_with(HeaderMap::new())
    }

    fn upstream_with(&self, headers: HeaderMap) -> Far {
        let (socket, far) = socket();
        self.upstreams.lock().unwrap().push_back((headers, socket));
        far
    }

    /// An upstream that says so many words and ends.
    fn words(&self, count: usize) -> Far {
        let far = self.upstream();
        (0..count).for_each(|_| far.say("word"));
        far.close();
        far
    }

    fn upgrade(&self, request: Request<Full<Bytes>>) -> (Request<Full<Bytes>>, Far) {
        let (client, far) = socket();
        let mut request = request;
        let ends = Ends {
            client: Mutex::new(Some(client)),
            upstreams: self.upstreams.clone(),
            heads: self.heads.clone(),
        };
        request.extensions_mut().insert(WebSocket(Arc::new(ends)));
        (request, far)
    }

    /// A client whose upgrade shows nothing.
    async fn client(&self, framing: Framing) -> Client {
        let (request, far) = self.upgrade(get("/feed"));
        assert_eq!(self.shop.raw(request).await.status(), StatusCode::SWITCHING_PROTOCOLS);
        Client { far, framing }
    }

    /// A client that has vouched for so much, and whose stream has begun.
    async fn buying(&self, framing: Framing, buyer: &Buyer, cumulative: u128) -> Client {
        let mut client = self.client(framing).await;
        client.pay(buyer, cumulative);
        client.receipt().await;
        client
    }

    async fn ended(&self, buyer: &Buyer) -> (u128, u128, ChargeState) {
        for _ in 0..30_000 {
            let channel = self.shop.channel(buyer.id()).await;
            if channel.running().next().is_none() {
                let charges = self.shop.store.charges(buyer.id(), None, 10).await.unwrap();
                return (channel.spent(), channel.units(), charges.last().unwrap().state);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("the stream's charge does not end");
    }
}

struct Client {
    far: Far,
    framing: Framing,
}

impl Client {
    fn say(&self, frame: &Frame) {
        self.far.say(frame.print(self.framing).unwrap());
    }

    fn pay(&self, buyer: &Buyer, cumulative: u128) {
        self.say(&Frame::Credential(buyer.header(&buyer.voucher(cumulative))));
    }

    async fn frame(&mut self) -> Frame {
        match self.far.hear().await {
            SocketMessage::Text(text) => {
                let (framing, frame) = Frame::parse(text.as_bytes()).unwrap();
                assert_eq!(framing, self.framing);
                frame
            }
            other => panic!("{other:?}"),
        }
    }

    async fn receipt(&mut self) -> SessionReceipt {
        match self.frame().await {
            Frame::Receipt(receipt) => receipt.session().unwrap().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn word(&mut self) {
        assert_eq!(self.frame().await, Frame::Message("word".into()));
    }

    /// What the next voucher must be worth.
    async fn need(&mut self) -> u128 {
        match self.frame().await {
            Frame::NeedVoucher(need) => need.required_cumulative,
            other => panic!("{other:?}"),
        }
    }

    async fn error(&mut self) -> String {
        match self.frame().await {
            Frame::Error { message, .. } => message,
            other => panic!("{other:?}"),
        }
    }

    async fn status(&mut self) -> u16 {
        match self.frame().await {
            Frame::Error { status, .. } => status.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    /// The last receipt of a stream.
    async fn last(&mut self) -> SessionReceipt {
        match (self.framing, self.frame().await) {
            (Framing::Mppx, Frame::CloseReady(receipt)) | (Framing::MppRs, Frame::Receipt(receipt)) => {
                receipt.session().unwrap().unwrap()
            }
            (_, other) => panic!("{other:?}"),
        }
    }

    async fn closed(&mut self) -> u16 {
        match self.far.hear().await {
            SocketMessage::Close(close) => close.code,
            other => panic!("{other:?}"),
        }
    }
}

const BOTH: [Framing; 2] = [Framing::Mppx, Framing::MppRs];

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_pauses_for_vouchers_in_band_and_ends_with_a_receipt() {
    for framing in BOTH {
        let feed = Feed::open(by_event()).await;
        let buyer = feed.shop.customer("/feed", 1000).await;
        let _upstream = feed.words(12);
        let mut client = feed.client(framing).await;
        client.pay(&buyer, UNIT);
        assert_eq!(client.receipt().await.accepted_cumulative, UNIT);
        client.word().await;
        for got in 1..12 {
            let need = client.need().await;
            assert_eq!(need, (got + 1) * UNIT);
            if need > 1000 && got == 10 {
                let top_up = buyer.top_up(1000);
                client.say(&Frame::Credential(buyer.header(&top_up)));
                client.receipt().await;
            }
            client.pay(&buyer, need);
            assert_eq!(client.receipt().await.accepted_cumulative, need);
            client.word().await;
        }
        let last = client.last().await;
        assert_eq!((last.spent, last.accepted_cumulative, last.units), (1200, 1200, Some(12)));
        if framing == Framing::Mppx {
            client.far.close();
        }
        assert_eq!(client.closed().await, 1000);
        assert_eq!(feed.ended(&buyer).await, (1200, 12, ChargeState::Served));
        feed.shop.books_balance().await;
        // The service sees who pays, and not what pays.
        let heads = feed.heads.lock().unwrap();
        assert_eq!(heads[0].headers["x-farthing-payer"].to_str().unwrap(), buyer.address().as_str());
        assert!(!heads[0].headers.contains_key("authorization"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_shows_its_voucher_needs_no_first_frame() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let _upstream = feed.words(2);
    let (request, far) = feed.upgrade(buyer.buy("/feed", 200));
    let answer = feed.shop.raw(request).await;
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(answer.headers().contains_key("payment-receipt"));
    let mut client = Client { far, framing: Framing::Mppx };
    client.word().await;
    client.word().await;
    assert_eq!(client.last().await.spent, 200);
    // One that pays too little, or not at all, is answered as any request is.
    let refused = feed.upgrade(buyer.buy("/feed", 200)).0;
    let refused = feed.shop.send(refused).await;
    assert_eq!((refused.status, problem(&refused)), (402, ProblemType::InsufficientBalance));
    assert!(!challenges(&refused).is_empty());
    let forged =
        Buyer { key: farthing_evm::Key::from_bytes([5; 32]).unwrap(), ..Buyer::new(buyer.challenge.clone()) };
    let refused = feed.shop.send(feed.upgrade(forged.buy("/feed", 100)).0).await;
    assert_eq!((refused.status, problem(&refused)), (410, ProblemType::ChannelNotFound));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_speaks_before_it_pays_is_not_served() {
    let feed = Feed::open(by_event()).await;
    for first in ["hello", "{\"mpp\":\"message\",\"data\":\"hello\"}", "{\"mpp\":\"authorization\"}", "{", ""]
    {
        let mut client = feed.client(Framing::Mppx).await;
        client.far.say(first);
        assert_eq!(client.status().await, 402, "{first}");
        assert_eq!(client.closed().await, 1008, "{first}");
    }
    let mut client = feed.client(Framing::Mppx).await;
    client.far.to.send(Ok(SocketMessage::Binary(Bytes::from_static(b"x")))).unwrap();
    assert_eq!((client.status().await, client.closed().await), (402, 1008));
    let mut client = feed.client(Framing::Mppx).await;
    client.far.to.send(Err(SocketError::TooLong)).unwrap();
    assert_eq!(client.closed().await, 1009);
    // The other framing has a word for it: the price is said, and then it pays.
    let buyer = feed.shop.customer("/feed", 1000).await;
    let _upstream = feed.words(1);
    let mut client = feed.client(Framing::MppRs).await;
    client.far.say("{\"type\":\"message\",\"data\":{\"prompt\":\"hello\"}}");
    let Frame::Challenge { challenge, .. } = client.frame().await else { panic!("a challenge") };
    assert_eq!(asked(&challenge).amount, UNIT);
    client.pay(&buyer, UNIT);
    client.receipt().await;
    client.word().await;
    assert_eq!(client.last().await.spent, UNIT);
    assert_eq!(feed.heads.lock().unwrap().len(), 1, "nobody else reached the service");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_voucher_that_covers_too_little_is_told_what_it_takes() {
    for framing in BOTH {
        let feed = Feed::open(by_event()).await;
        let buyer = feed.shop.customer("/feed", 1000).await;
        let _upstream = feed.words(1);
        let mut client = feed.client(framing).await;
        client.pay(&buyer, UNIT - 1);
        match framing {
            Framing::Mppx => {
                let told = Problem::parse(client.error().await.as_bytes()).unwrap();
                assert_eq!(told.kind, ProblemType::InsufficientBalance);
                assert_eq!(told.other.get_str("requiredCumulative"), Some("100"));
                assert_eq!(client.closed().await, 1008);
            }
            // On the same socket, as its framing has it.
            Framing::MppRs => {
                assert!(matches!(client.frame().await, Frame::Challenge { error: Some(_), .. }));
                client.pay(&buyer, UNIT);
                client.receipt().await;
                client.word().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_ends_cleanly_when_nobody_pays_any_more() {
    let impatient = SessionTerms { patience: Duration::from_millis(20), ..by_event() };
    let (feed, buyer) = Feed::with_buyer(impatient).await;
    let _upstream = feed.words(12);
    let mut client = feed.buying(Framing::MppRs, &buyer, 2 * UNIT).await;
    client.word().await;
    client.word().await;
    assert_eq!(client.need().await, 300);
    let last = client.last().await;
    assert_eq!((last.spent, last.accepted_cumulative, client.closed().await), (200, 200, 1000));
    assert_eq!(feed.ended(&buyer).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_socket_ends_the_old_one() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let first = feed.upstream();
    let second = feed.upstream();
    let mut old = feed.buying(Framing::MppRs, &buyer, 1000).await;
    first.say("word");
    old.word().await;
    // With the very same voucher.
    let mut new = feed.buying(Framing::MppRs, &buyer, 1000).await;
    assert_eq!((old.last().await.spent, old.closed().await), (100, 1000));
    second.say("word");
    new.word().await;
    second.close();
    assert_eq!(new.last().await.spent, 200);
    assert_eq!(feed.ended(&buyer).await.0, 200);
    feed.shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_says_reaches_the_upstream_within_bounds() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let mut upstream = feed.upstream();
    let mut client = feed.buying(Framing::Mppx, &buyer, 1000).await;
    client.say(&Frame::Message("wrapped".into()));
    client.far.say("bare");
    client.far.say("{\"type\":\"subscribe\"}");
    client.far.to.send(Ok(SocketMessage::Binary(Bytes::from_static(b"bytes")))).unwrap();
    for text in ["wrapped", "bare", "{\"type\":\"subscribe\"}"] {
        assert_eq!(upstream.hear().await, SocketMessage::Text(text.to_owned()));
    }
    assert_eq!(upstream.hear().await, SocketMessage::Binary(Bytes::from_static(b"bytes")));
    // What only we say is not taken from a client.
    client.far.say("{\"mpp\":\"payment-need-voucher\"}");
    assert_eq!((client.status().await, client.last().await.spent, client.closed().await), (400, 0, 1008));
}

/// A client that says more than the upstream takes.
#[tokio::test(flavor = "multi_thread")]
async fn messages_for_an_upstream_that_takes_none_are_bounded() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let (socket, _far) = socket();
    // It never has room.
    let stuck = futures_util::sink::unfold((), |(), _| std::future::pending());
    let upstream = OpenSocket { write: Box::pin(stuck), ..socket };
    feed.upstreams.lock().unwrap().push_back((HeaderMap::new(), upstream));
    let mut client = feed.buying(Framing::Mppx, &buyer, 1000).await;
    for _ in 0..MAX_QUEUED_FRAMES + 2 {
        client.far.say("more");
    }
    assert_eq!((client.status().await, client.last().await.spent, client.closed().await), (429, 0, 1008));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_breaks_off_is_paid_for_what_left() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    for (n, broken) in [SocketError::Broken, SocketError::TooLong].into_iter().enumerate() {
        let upstream = feed.upstream();
        let mut client = feed.buying(Framing::Mppx, &buyer, 1000).await;
        upstream.say("word");
        client.word().await;
        upstream.to.send(Err(broken)).unwrap();
        let spent = (u128::try_from(n).unwrap() + 1) * UNIT;
        assert_eq!((client.status().await, client.last().await.spent), (502, spent));
        assert_eq!(client.closed().await, 1011);
    }
    // Nothing is charged where there is no upstream at all.
    let mut client = feed.client(Framing::Mppx).await;
    client.pay(&buyer, 1000);
    assert_eq!(client.status().await, 502);
    drop(client);
    assert_eq!(feed.ended(&buyer).await.0, 200);
    feed.shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_frames_in_a_stream_end_it_and_cost_nothing() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let mut forged = buyer.sign(200);
    forged[10] ^= 1;
    let forged = farthing_wire::mpp::evm::SessionPayload::Voucher(farthing_wire::mpp::evm::Voucher {
        channel_id: buyer.id().0,
        cumulative: 200,
        signature: forged,
        deposit: None,
    });
    let forged = Frame::Credential(buyer.header(&forged)).print(Framing::Mppx).unwrap();
    let over = Frame::Credential(buyer.header(&buyer.voucher(9999))).print(Framing::Mppx).unwrap();
    let frames = ["{\"mpp\":\"authorization\"}", "{\"mpp\":7}", &forged, &over];
    for bad in frames {
        let upstream = feed.upstream();
        let mut client = feed.buying(Framing::Mppx, &buyer, UNIT).await;
        client.far.say(bad);
        assert!((400..=402).contains(&client.status().await), "{bad}");
        assert_eq!((client.last().await.spent, client.closed().await), (0, 1008), "{bad}");
        drop(upstream);
    }
    let mut client = feed.client(Framing::Mppx).await;
    let _upstream = feed.upstream();
    client.pay(&buyer, UNIT);
    client.receipt().await;
    client.far.to.send(Err(SocketError::TooLong)).unwrap();
    assert_eq!((client.status().await, client.last().await.spent, client.closed().await), (413, 0, 1009));
    let channel = feed.shop.channel(buyer.id()).await;
    assert_eq!((channel.accepted(), channel.spent()), (UNIT, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_closed_in_band() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let _upstream = feed.words(3);
    let mut client = feed.buying(Framing::Mppx, &buyer, 1000).await;
    for _ in 0..3 {
        client.word().await;
    }
    assert_eq!(client.last().await.spent, 300);
    client.say(&Frame::Credential(buyer.header(&buyer.close(300))));
    assert_eq!(client.receipt().await.spent, 300);
    assert_eq!(client.closed().await, 1000);
    // A client may also ask for the end before it is there.
    let other = feed.shop.customer_again(&buyer, "/feed", 1000).await;
    let upstream = feed.upstream();
    let mut client = feed.buying(Framing::Mppx, &other, 1000).await;
    upstream.say("word");
    client.word().await;
    client.say(&Frame::CloseRequest);
    assert_eq!(client.last().await.spent, 100);
    feed.shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_counted_as_the_route_says() {
    let by = |count| SessionTerms { count, ..by_event() };
    let cases = [
        (Count::Bytes, 4 + 4),
        ("json:n".parse().unwrap(), 3),
        (Count::Request, 1),
        (Count::Header("x-worth".parse().unwrap()), 2 * 5),
    ];
    for (count, units) in cases {
        let feed = Feed::open(by(count.clone())).await;
        let buyer = feed.shop.customer("/feed", 10_000).await;
        let mut headers = HeaderMap::new();
        headers.insert("x-worth", "5".parse().unwrap());
        let upstream = feed.upstream_with(headers);
        if matches!(count, Count::Json(_)) {
            upstream.say("{\"n\":3}");
            upstream.say("{\"m\":3}");
        } else {
            upstream.say("word");
            upstream.to.send(Ok(SocketMessage::Binary(Bytes::from_static(b"word")))).unwrap();
        }
        // Only we say what is paid.
        let ours = Frame::CloseRequest.print(Framing::Mppx).unwrap();
        upstream.to.send(Ok(SocketMessage::Binary(Bytes::from(ours)))).unwrap();
        upstream.close();
        let mut client = feed.buying(Framing::MppRs, &buyer, 10_000).await;
        for _ in 0..2 {
            client.far.hear().await;
        }
        assert_eq!(client.last().await.units, Some(units), "{count}");
    }
}

/// An upgrade is an HTTP request like any other wherever no session streams: it is asked to pay, and nothing is upgraded.
#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_of_a_route_that_streams_nothing_is_a_request() {
    let feed = Feed::open(by_event()).await;
    for path in ["/once", "/units"] {
        let (request, mut far) = feed.upgrade(get(path));
        assert_eq!(feed.shop.send(request).await.status, 402, "{path}");
        assert!(far.from.recv().await.is_none(), "nobody took the connection over");
    }
    // Paid for, it is the plain answer.
    let buyer = feed.shop.customer("/units", 1000).await;
    let got = feed.shop.send(feed.upgrade(buyer.buy("/units", UNIT)).0).await;
    assert_eq!((got.status, got.body.as_str()), (200, "sunny"));
    assert!(feed.heads.lock().unwrap().is_empty());
}

/// Killed at any point: what left is charged, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_pays_for_what_left() {
    let (feed, buyer) = Feed::with_buyer(by_event()).await;
    let upstream = feed.upstream();
    let mut client = feed.buying(Framing::Mppx, &buyer, 1000).await;
    upstream.say("word");
    client.word().await;
    drop(client);
    let (spent, _, state) = feed.ended(&buyer).await;
    assert_eq!((spent, state), (100, ChargeState::Served));
    feed.shop.books_balance().await;
}
