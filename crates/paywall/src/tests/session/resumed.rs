//! Streams that go on where they broke off.

use std::time::Duration;

use farthing_channel::{ChannelId, ChargeState};
use farthing_primitives::RequestHash;
use farthing_wire::mpp::sse::Event;
use http::Request;
use http_body_util::Full;

use super::shop::*;
use super::streams::{Streamed, ended, piped, streaming, words};
use crate::MAX_RESUMABLE_OF_CHANNEL;
use crate::tests::support::get;
use tokio::sync::mpsc;

type Asked = Request<Full<bytes::Bytes>>;

fn after(mut request: Asked, id: &str) -> Asked {
    request.headers_mut().insert("last-event-id", id.parse().unwrap());
    request
}

/// The ids that the gateway gave to the events that left.
fn id(n: usize) -> String {
    format!("farthing-{n}")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_charged_and_did_not_arrive_comes_again_for_nothing() {
    let (pipe, pipes) = mpsc::unbounded_channel();
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], piped(vec![pipes])).await;
    let buyer = shop.customer("/words", 10_000).await;
    let asked = || named(buyer.buy("/words", 400), "mine");
    let mut stream = Streamed::new(shop.raw(asked()).await);
    pipe.send(Ok("data: word\n\n")).unwrap();
    stream.word().await;
    // Charged, and lost on the way.
    pipe.send(Ok("data: word\n\ndata: word\n\n")).unwrap();
    while shop.channel(buyer.id()).await.spent() < 300 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(stream);
    let answer = shop.raw(after(asked(), &id(1))).await;
    assert_eq!(answer.headers()["x-farthing-replayed"], "2");
    let mut stream = Streamed::new(answer);
    stream.word().await;
    stream.word().await;
    assert_eq!(shop.channel(buyer.id()).await.spent(), 300);
    // And then what is new.
    pipe.send(Ok("data: word\n\n")).unwrap();
    stream.word().await;
    // A need that nobody heard is told again.
    pipe.send(Ok("data: word\n\n")).unwrap();
    assert_eq!(stream.need().await.required_cumulative, 500);
    drop(stream);
    let mut stream = Streamed::new(shop.raw(after(asked(), &id(4))).await);
    assert_eq!(stream.need().await.required_cumulative, 500);
    assert_eq!(shop.send(buyer.manage("/words", &buyer.voucher(500))).await.status, 204);
    stream.word().await;
    drop(pipe);
    let last = stream.end().await;
    assert_eq!((last.spent, last.units), (500, Some(5)));
    let (channel, state) = ended(&shop, &buyer).await;
    assert_eq!((channel.spent(), state, shop.backend.calls()), (500, ChargeState::Served, 1));
    // Also what was the last of it.
    let mut stream = Streamed::new(shop.raw(after(asked(), &id(3))).await);
    stream.word().await;
    stream.word().await;
    assert_eq!(stream.end().await.spent, 500);
    shop.books_balance().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_buyer_goes_on_and_only_where_it_is_known() {
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(words(2))).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = Streamed::new(shop.raw(named(buyer.buy("/words", 1000), "mine")).await);
    stream.word().await;
    drop(stream);
    let asked = |path: &str| named(buyer.buy(path, 1000), "mine");
    let elsewhere = shop.send(after(asked("/words?other"), &id(1))).await;
    assert_eq!((elsewhere.status, elsewhere.code().as_str()), (409, "idempotency_conflict"));
    let unknown = shop.send(after(asked("/words"), &id(9))).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (409, "stream_not_kept"));
    // Whoever has none of it begins with the first.
    let mut stream = Streamed::new(shop.raw(asked("/words")).await);
    stream.word().await;
    drop(stream);
    // Somebody who knows the name and the channel, and has no signature of it.
    let mut forged = buyer.sign(1000);
    forged[3] ^= 1;
    let forged = farthing_wire::mpp::evm::SessionPayload::Voucher(farthing_wire::mpp::evm::Voucher {
        channel_id: buyer.id().0,
        cumulative: 1000,
        signature: forged,
        deposit: None,
    });
    let stolen = shop.send(after(named(buyer.shows(get("/words"), &forged), "mine"), &id(1))).await;
    assert_eq!(stolen.status, 402, "{}", stolen.body);
    let mut stream = Streamed::new(shop.raw(after(asked("/words"), &id(1))).await);
    stream.word().await;
    assert_eq!(stream.end().await.spent, 200);
}

/// Another process knows nothing of it: where the upstream does, it is asked to go on, and that is charged.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_seller_goes_on_with_what_its_service_knows() {
    let sold_here = || vec![("GET /words", sold(by_event()))];
    let pieces = vec!["id: a1\ndata: word\n\n", "id: a2\ndata: word\n\n"];
    let shop = Shop::open(sold_here(), streaming(pieces)).await;
    let buyer = shop.customer("/words", 1000).await;
    let mut stream = Streamed::new(shop.raw(named(buyer.buy("/words", 1000), "mine")).await);
    stream.word().await;
    stream.word().await;
    assert_eq!(stream.end().await.spent, 200);
    let again = || after(named(buyer.buy("/words", 1000), "mine"), "a1");
    let mut stream = Streamed::new(shop.raw(again()).await);
    stream.word().await;
    assert_eq!(stream.end().await.spent, 200, "known here, it comes for nothing");
    shop.paywall.0.streams.forget_all();
    let mut stream = Streamed::new(shop.raw(again()).await);
    assert_eq!(stream.next().await, Some(Event::Message("word".to_owned())));
    let (_, _, headers, _) = shop.backend.last();
    assert_eq!(headers["last-event-id"], "a1");
    stream.word().await;
    assert_eq!(stream.end().await.spent, 400);
    // Ours mean nothing to anybody else.
    let ours = shop.send(after(named(buyer.buy("/words", 1000), "mine"), &id(1))).await;
    assert_eq!(ours.code(), "stream_not_kept");
}

/// Whoever buys many short streams leaves places for others.
#[tokio::test]
async fn one_channel_does_not_take_all_the_places() {
    let shop = Shop::open(vec![("GET /words", sold(by_event()))], streaming(words(1))).await;
    let begin = |name: u8, channel: u8| {
        let (name, hold) = (RequestHash([name; 32]), shop.paywall.0.memory.hold(None));
        shop.paywall.0.streams.begin(name, ChannelId([channel; 32]), "asked", hold).is_some()
    };
    let most = u8::try_from(MAX_RESUMABLE_OF_CHANNEL).unwrap();
    assert!((0..most).all(|name| begin(name, 1)));
    assert!(!begin(most, 1) && begin(most, 2), "it is full for the one channel alone");
    assert!(begin(0, 1), "a name's own place is free again");
}
