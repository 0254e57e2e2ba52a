//! Streams that are paid as they go.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use farthing_channel::{ChargeState, Payee};
use farthing_engine::ChannelStore;
use farthing_wire::mpp::SessionReceipt;
use farthing_wire::mpp::sse::{Event, NeedVoucher, Reader};
use futures_util::StreamExt;
use http::Response;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc;

use super::shop::*;
use crate::tests::support::{Backend, body, get, request};
use crate::{BoxError, PaywallBody, SessionTerms};

/// An upstream that streams these pieces.
pub(super) fn streaming(pieces: Vec<&'static str>) -> Backend {
    Backend::new(move || {
        let frames = pieces.clone().into_iter().map(|text| Ok::<_, BoxError>(Frame::data(Bytes::from(text))));
        events(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync())
    })
}

fn events(body: PaywallBody) -> Response<PaywallBody> {
    let mut answer = Response::new(body);
    answer.headers_mut().insert("content-type", "text/event-stream; charset=utf-8".parse().unwrap());
    answer
}

/// An upstream that streams what it is handed, each time it is called the next of these.
pub(super) fn piped(mut pipes: Vec<mpsc::UnboundedReceiver<Result<&'static str, BoxError>>>) -> Backend {
    pipes.reverse();
    let pipes = Mutex::new(pipes);
    Backend::new(move || {
        let mut pipe = pipes.lock().unwrap().pop().expect("so many calls");
        let frames = futures_util::stream::poll_fn(move |cx| pipe.poll_recv(cx));
        events(
            StreamBody::new(
                frames.map(|piece| -> Result<_, BoxError> { Ok(Frame::data(Bytes::from(piece?))) }),
            )
            .boxed_unsync(),
        )
    })
}

pub(super) fn words(count: usize) -> Vec<&'static str> {
    std::iter::repeat_n("data: word\n\n", count).collect()
}

/// A stream as its client reads it.
pub(super) struct Streamed {
    body: PaywallBody,
    reader: Reader,
    read: std::collections::VecDeque<Event>,
}

impl Streamed {
    pub fn new(answer: Response<PaywallBody>) -> Self {
        assert_eq!(answer.status(), 200);
        assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
        assert!(answer.headers()["cache-control"].to_str().unwrap().contains("private"));
        assert!(answer.headers().contains_key("payment-receipt"), "in the first headers");
        Self { body: answer.into_body(), reader: Reader::new(), read: std::collections::VecDeque::new() }
    }

    async fn try_next(&mut self) -> Result<Option<Event>, BoxError> {
        while self.read.is_empty() {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let data = frame?.into_data().unwrap();
            let events = self.reader.push(&data).unwrap();
            self.read.extend(events.into_iter().map(Result::unwrap));
        }
        Ok(self.read.pop_front())
    }

    pub async fn next(&mut self) -> Option<Event> {
        self.try_next().await.unwrap()
    }

    pub async fn word(&mut self) {
        assert_eq!(self.next().await, Some(Event::Message("word".to_owned())));
    }

    pub async fn need(&mut self) -> NeedVoucher {
        match self.next().await {
            Some(Event::NeedVoucher(need)) => need,
            other => panic!("{other:?}"),
        }
    }

    /// The last event, and the end.
    pub async fn end(mut self) -> SessionReceipt {
        let last = self.next().await;
        let Some(Event::Receipt(receipt)) = last else { panic!("{last:?}") };
        assert_eq!(self.next().await, None);
        receipt.session().unwrap().unwrap()
    }
}

async fn streams(shop: &Shop, buyer: &Buyer, cumulative: u128) -> Streamed {
    Streamed::new(shop.raw(buyer.buy("/words", cumulative)).await)
}

/// What became of the channel's only charge.
pub(super) async fn ended(shop: &Shop, buyer: &Buyer) -> (Payee, ChargeState) {
    for _ in 0..30_000 {
        let channel = shop.channel(buyer.id()).await;
        if channel.running().next().is_none() {
            let charges = shop.store.charges(buyer.id(), None, 10).await.unwrap();
            return (channel, charges.last().unwrap().state);
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("the stream's charge does not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_pauses_for_vouchers_and_ends_with_a_receipt() {
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(words(12))).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, UNIT).await;
    stream.word().await;
    for got in 1..12 {
        let need = stream.need().await;
        let required = (got + 1) * UNIT;
        assert_eq!((need.required_cumulative, need.accepted_cumulative), (required, got * UNIT));
        if need.required_cumulative > need.deposit {
            assert_eq!(shop.patiently(|| buyer.manage("/words", &buyer.top_up(1000))).await.status, 204);
        }
        let paid = shop.send(buyer.manage("/words", &buyer.voucher(required))).await;
        assert_eq!((paid.status, receipt(&paid).accepted_cumulative), (204, required), "{}", paid.body);
        stream.word().await;
    }
    let last = stream.end().await;
    assert_eq!((last.spent, last.accepted_cumulative, last.units), (1200, 1200, Some(12)));
    assert_eq!(shop.backend.calls(), 1);
    let (channel, state) = ended(&shop, &buyer).await;
    assert_eq!((channel.spent(), channel.deposit(), state), (1200, 2000, ChargeState::Served));
    shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paid_ahead_streams_without_a_pause() {
    // All in one piece, or in pieces that know nothing of events.
    for pieces in [
        vec!["data: word\n\ndata: word\n\ndata: word\n\n"],
        vec!["data: w", "ord\n", "\ndata: word\n\nda", "ta: word\n", "\n"],
    ] {
        let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(pieces)).await;
        let buyer = shop.customer("/words", 1000).await;
        let mut stream = streams(&shop, &buyer, 1000).await;
        for _ in 0..3 {
            stream.word().await;
        }
        let last = stream.end().await;
        assert_eq!((last.spent, last.units), (300, Some(3)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_together_leaves_as_far_as_it_is_paid() {
    let shop = Shop::open(
        vec![("GET /words", sold(by_event()))],
        streaming(vec!["data: word\n\ndata: word\n\ndata: word\n\n"]),
    )
    .await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 200).await;
    stream.word().await;
    stream.word().await;
    assert_eq!(stream.need().await.required_cumulative, 300);
    assert_eq!(shop.send(buyer.manage("/words", &buyer.voucher(300))).await.status, 204);
    stream.word().await;
    assert_eq!(stream.end().await.spent, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_cleanly_when_nobody_pays_any_more() {
    let impatient = SessionTerms { patience: Duration::from_millis(20), ..by_event() };
    let shop = Shop::open(vec![("GET /words", sold(impatient))], streaming(words(12))).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 2 * UNIT).await;
    stream.word().await;
    stream.word().await;
    stream.need().await;
    let last = stream.end().await;
    assert_eq!((last.spent, last.accepted_cumulative), (200, 200));
    assert_eq!(ended(&shop, &buyer).await.0.exposure(), 0, "nothing was given on credit");
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_goes_as_far_as_the_exposure_and_not_further() {
    let trusting = SessionTerms {
        limits: farthing_channel::Limits { credit: 250, ..by_event().limits },
        patience: Duration::from_millis(20),
        ..by_event()
    };
    let shop = Shop::open(vec![("GET /words", sold(trusting))], streaming(words(12))).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 100).await;
    for _ in 0..3 {
        stream.word().await;
    }
    assert_eq!(stream.need().await.required_cumulative, 400);
    assert_eq!(stream.end().await.spent, 300);
    assert_eq!(ended(&shop, &buyer).await.0.exposure(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_stream_ends_the_one_before() {
    let (first, from_first) = mpsc::unbounded_channel();
    let (second, from_second) = mpsc::unbounded_channel();
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], piped(vec![from_first, from_second])).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut before = streams(&shop, &buyer, 500).await;
    first.send(Ok("data: word\n\n")).unwrap();
    before.word().await;
    let mut after = Streamed::new(shop.raw(buyer.buy("/words", 600)).await);
    // It need not say anything more to be ended.
    assert_eq!(before.end().await.spent, 100);
    second.send(Ok("data: word\n\n")).unwrap();
    after.word().await;
    drop(second);
    assert_eq!(after.end().await.spent, 200);
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_the_channel_ends_its_stream() {
    let (pipe, from_pipe) = mpsc::unbounded_channel();
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], piped(vec![from_pipe])).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 500).await;
    pipe.send(Ok("data: word\n\n")).unwrap();
    stream.word().await;
    let closed = shop.send(buyer.manage("/words", &buyer.close(100))).await;
    assert_eq!((closed.status, receipt(&closed).spent), (204, 100), "{}", closed.body);
    assert_eq!(stream.end().await.spent, 100);
    drop(pipe);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_hung_up_on_is_charged_for_what_left() {
    let (pipe, from_pipe) = mpsc::unbounded_channel();
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], piped(vec![from_pipe])).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 500).await;
    for _ in 0..2 {
        pipe.send(Ok("data: word\n\n")).unwrap();
        stream.word().await;
    }
    drop(stream);
    let (channel, state) = ended(&shop, &buyer).await;
    assert_eq!((channel.spent(), state), (200, ChargeState::Ended));
    shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_charged_for_what_left_and_breaks() {
    let (pipe, from_pipe) = mpsc::unbounded_channel();
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], piped(vec![from_pipe])).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 500).await;
    pipe.send(Ok("data: word\n\ndata: half of")).unwrap();
    pipe.send(Err("cut off".into())).unwrap();
    stream.word().await;
    let Some(Event::Receipt(last)) = stream.next().await else { panic!("a receipt") };
    assert_eq!(last.session().unwrap().unwrap().spent, 100);
    assert!(stream.try_next().await.is_err(), "a client must see that it is not whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_paywall_speaks_of_payment() {
    let pieces = vec![
        ": hello\n\n",
        "event: payment-receipt\ndata: {\"status\":\"success\"}\n\n",
        "event: payment-need-voucher\ndata: {\"requiredCumulative\":\"999999\"}\n\n",
        "id: 7\nevent: token\ndata: a\ndata: b\n\n",
    ];
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(pieces)).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = streams(&shop, &buyer, 1000).await;
    assert_eq!(
        stream.next().await,
        Some(Event::Other { event: "token".to_owned(), data: "a\nb".to_owned() })
    );
    assert_eq!(stream.end().await.spent, 100, "what is no event costs nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_counted_as_its_route_says() {
    let upstream = || {
        Backend::new(|| {
            let mut answer = events(body("data: {\"n\": 2}\n\ndata: {\"n\": 3}\n\ndata: [DONE]\n\n"));
            answer.headers_mut().insert("x-worth", "4".parse().unwrap());
            answer.headers_mut().insert("content-length", "999".parse().unwrap());
            answer
        })
    };
    for (count, units) in [("event", 3), ("json:n", 5), ("header:x-worth", 12), ("request", 1), ("bytes", 46)]
    {
        let counted = SessionTerms { count: count.parse().unwrap(), ..by_event() };
        let shop = Shop::open(vec![("GET /words", sold(counted))], upstream()).await;
        let buyer = shop.customer("/words", 10_000).await;
        let answer = shop.raw(buyer.buy("/words", 10_000)).await;
        assert!(!answer.headers().contains_key("content-length"), "more is said than the upstream does");
        let mut stream = Streamed::new(answer);
        let mut last = None;
        while let Some(event) = stream.next().await {
            last = Some(event);
        }
        let Some(Event::Receipt(last)) = last else { panic!("{last:?}") };
        let last = last.session().unwrap().unwrap();
        assert_eq!((last.units, last.spent), (Some(units), u128::from(units) * UNIT), "{count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_is_charged_as_it_goes_and_stands_while_nobody_pays() {
    let (pipe, from_pipe) = mpsc::unbounded_channel();
    let timed = SessionTerms {
        count: crate::Count::Elapsed,
        price: farthing_channel::Price::each(1, farthing_channel::Unit::Millisecond),
        ..by_event()
    };
    let shop = Shop::open(vec![("GET /words", sold(timed))], piped(vec![from_pipe])).await;
    let buyer = shop.customer("/words", 1_000_000).await;
    let mut stream = streams(&shop, &buyer, 60_000).await;
    shop.world.advance(Duration::from_secs(50));
    pipe.send(Ok("data: word\n\n")).unwrap();
    stream.word().await;
    let spent = shop.channel(buyer.id()).await.spent();
    assert!((50_000..60_000).contains(&spent), "{spent}");
    shop.world.advance(Duration::from_secs(50));
    pipe.send(Ok("data: word\n\n")).unwrap();
    let need = stream.need().await;
    assert!(need.required_cumulative >= 100_000, "{need:?}");
    // An hour of waiting for the voucher costs nothing.
    shop.world.advance(Duration::from_secs(3));
    assert_eq!(shop.send(buyer.manage("/words", &buyer.voucher(500_000))).await.status, 204);
    stream.word().await;
    drop(pipe);
    let last = stream.end().await;
    assert!((100_000..103_000).contains(&last.spent), "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_stream_is_sold_whole_on_a_route_that_streams() {
    let by_json = SessionTerms { count: "json:n".parse().unwrap(), ..by_event() };
    let upstream = Backend::new(|| Response::new(body("{\"n\": 4}")));
    let shop = Shop::open(vec![("GET|POST /words", sold(by_json))], upstream).await;
    let buyer = shop.customer("/words", 1000).await;
    let refused = shop.send(buyer.buy("/words", 399)).await;
    assert_eq!(
        (refused.status, problem(&refused)),
        (402, farthing_wire::mpp::ProblemType::InsufficientBalance)
    );
    assert!(!refused.body.contains("\"n\""), "{}", refused.body);
    let got = shop.send(buyer.buy("/words", 400)).await;
    assert_eq!((got.status, got.body.as_str(), receipt(&got).units), (200, "{\"n\": 4}", Some(4)));
    // And kept for whom it did not reach.
    let again = shop.send(buyer.buy("/words", 400)).await;
    assert_eq!((again.status, again.body.as_str(), receipt(&again).spent), (200, "{\"n\": 4}", 400));
    assert_eq!(shop.backend.calls(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_named_stream_is_not_charged_twice() {
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(words(2))).await;
    let buyer = shop.customer("/words", 1000).await;
    let stream = Streamed::new(shop.raw(named(buyer.buy("/words", 1000), "mine")).await);
    let mut stream = stream;
    stream.word().await;
    stream.word().await;
    assert_eq!(stream.end().await.spent, 200);
    // While it is remembered it comes again, for nothing.
    let mut again = Streamed::new(shop.raw(named(buyer.buy("/words", 1000), "mine")).await);
    again.word().await;
    again.word().await;
    assert_eq!(again.end().await.spent, 200);
    shop.paywall.0.streams.forget_all();
    let again = shop.send(named(buyer.buy("/words", 1000), "mine")).await;
    assert_eq!((again.status, again.code().as_str()), (409, "stream_not_kept"));
    assert_eq!((shop.backend.calls(), shop.channel(buyer.id()).await.spent()), (1, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_cannot_be_counted_are_not_sold() {
    let packed = || {
        Backend::new(|| {
            let mut answer = events(body("data: word\n\n"));
            answer.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            answer
        })
    };
    let failing = Backend::new(|| {
        let mut answer = events(body("data: no\n\n"));
        *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        answer
    });
    let worth = SessionTerms { count: "header:x-worth".parse().unwrap(), ..by_event() };
    for (terms, backend, status, code) in [
        (by_event(), packed(), 502, "upstream_packed"),
        (worth, streaming(words(1)), 502, "upstream_units_unknown"),
        (by_event(), failing, 503, ""),
    ] {
        let shop = Shop::open(vec![("GET /words", sold(terms))], backend).await;
        let buyer = shop.customer("/words", 1000).await;
        let mut asked = buyer.buy("/words", 1000);
        asked.headers_mut().insert("accept-encoding", "gzip".parse().unwrap());
        let got = shop.send(asked).await;
        assert_eq!(got.status, status, "{}", got.body);
        if !code.is_empty() {
            assert_eq!(got.code(), code);
        }
        assert!(got.header("payment-receipt").is_none());
        assert!(!shop.backend.last().2.contains_key("accept-encoding"), "nobody asked for it");
        assert_eq!(shop.channel(buyer.id()).await.spent(), 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_units_and_two_streams_come_out_to_the_atom() {
    let shop = Arc::new(Shop::open(vec![("GET|POST /words", sold(by_event()))], streaming(words(500))).await);
    let buyer = shop.customer("/words", 200_000).await;
    let mine = shop.balance(&buyer.address()).await;
    let mut signed = 0;
    for _ in 0..2 {
        signed += 1000;
        let mut stream = Streamed::new(shop.raw(buyer.buy("/words", signed)).await);
        let mut heard = 0;
        loop {
            match stream.next().await {
                Some(Event::Message(_)) => heard += 1,
                Some(Event::NeedVoucher(need)) => {
                    // Thirty words at a time.
                    signed = need.required_cumulative + 29 * UNIT;
                    assert_eq!(shop.send(buyer.manage("/words", &buyer.voucher(signed))).await.status, 204);
                }
                Some(Event::Receipt(_)) => {}
                None => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(heard, 500);
    }
    let spent = shop.channel(buyer.id()).await.spent();
    assert_eq!(spent, 1000 * UNIT);
    let closed = shop.send(buyer.shows(request("HEAD", "/words", ""), &buyer.close(spent))).await;
    assert_eq!(closed.status, 204);
    assert_eq!(shop.balance(&buyer.address()).await, mine + 200_000 - spent);
    shop.books_balance().await;
    assert_eq!(shop.send(get("/words")).await.status, 402);
}
