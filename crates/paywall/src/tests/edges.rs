//! The edges of the limits, and answers that are neither goods nor challenges.

use bytes::Bytes;
use farthing_payment::Fault;
use http::HeaderValue;
use http_body_util::Full;

use super::support::*;
use crate::{Limits, Paid, Route};

#[tokio::test]
async fn request_bodies_are_taken_up_to_the_limit_and_not_beyond() {
    let paid_route = Paid { max_request: 10, ..fixed("$0.002") };
    let rig = Rig::new(vec![("POST /upload", Route::paid(paid_route))], Backend::ok());
    // Unpaid bodies are hashed for the challenge, within the same limit.
    assert_eq!(rig.send(request("POST", "/upload", "0123456789a")).await.status, 413);
    for (body, status) in [("0123456789", 200), ("0123456789a", 413)] {
        let challenge = rig.send(request("POST", "/upload", "0123456789")).await.challenge();
        let got = rig.send(paid(request("POST", "/upload", body), &pay_v2(&challenge, 1))).await;
        assert_eq!(got.status, status, "{body}");
    }
    assert_eq!(rig.backend.calls(), 1);
    assert_eq!(rig.backend.last().3, Bytes::from_static(b"0123456789"));
}

#[tokio::test]
async fn an_announced_length_beyond_the_limit_is_refused_unread() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    let mut request = paid(request("POST", "/weather", "x"), &pay_v2(&challenge, 1));
    request.headers_mut().insert("content-length", HeaderValue::from_static("999999999999"));
    assert_eq!(rig.send(request).await.status, 413);
    assert_eq!(rig.model.sales(), 0);
}

#[tokio::test]
async fn answers_are_stored_up_to_the_limit_and_not_charged_beyond() {
    for (max_response, status, settlements) in [(5, 200, 1), (4, 502, 0)] {
        let route = Paid { max_response, ..fixed("$0.002") };
        let rig = Rig::new(vec![("/weather", Route::paid(route))], Backend::ok());
        let got = rig.buy("/weather").await;
        assert_eq!((got.status, rig.model.settlements()), (status, settlements));
    }
}

#[tokio::test]
async fn no_more_paid_requests_than_allowed_are_under_way() {
    let limits = Limits { in_flight: 0, ..Limits::default() };
    let rig = Rig::with(terms(vec![("/weather", dollars("$0.002"))]), Backend::ok(), limits);
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (503, "too_many_requests"));
    got.assert_no_challenge();
}

#[tokio::test]
async fn permit2_without_allowance_is_412() {
    let rig = Rig::weather();
    rig.model.forced.lock().unwrap().push_back(Forced::Refused("permit2_allowance_required", Fault::Payer));
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (412, "permit2_allowance_required"));
}

#[tokio::test]
async fn a_refused_payer_is_challenged_again_with_the_reason() {
    let rig = Rig::weather();
    let code = "invalid_exact_evm_insufficient_balance";
    rig.model.forced.lock().unwrap().push_back(Forced::Refused(code, Fault::Payer));
    let got = rig.buy("/weather").await;
    assert_eq!((got.status, got.code().as_str()), (402, code));
    assert_eq!(got.challenge_v1().error.as_deref(), Some(code), "in both dialects");
}

#[tokio::test]
async fn what_nobody_routed_is_404_and_reaches_nobody() {
    let rig = Rig::weather();
    assert_eq!(rig.get("/unknown").await.status, 404);
    assert_eq!(rig.send(request("DELETE", "/weather", "")).await.status, 404);
    assert_eq!(rig.backend.calls(), 0);
}

#[tokio::test]
async fn unmatched_requests_pass_only_where_the_terms_say_so() {
    let mut terms = terms(vec![("GET /weather", dollars("$0.002"))]);
    terms.unmatched = crate::Unmatched::Free;
    let rig = Rig::with(terms, Backend::ok(), Limits::default());
    assert_eq!(rig.get("/unknown").await.status, 200);
    assert_eq!(rig.get("/weather").await.status, 402);
    assert_eq!(rig.get("/weather%2F").await.status, 400, "two readings, one of them priced");
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_408() {
    let rig = Rig::weather();
    let challenge = rig.challenge("/weather").await;
    let request = paid(get("/weather"), &pay_v2(&challenge, 1)).map(|_| Slow);
    rig.world.hurry.store(true, std::sync::atomic::Ordering::SeqCst);
    let service =
        tower::Layer::layer(&crate::PaywallLayer::new(rig.paywall.clone()), SlowBackend(rig.backend.clone()));
    let got = read(tower::ServiceExt::oneshot(service, request).await.unwrap()).await;
    assert_eq!(got.status, 408);
    assert_eq!(rig.model.sales(), 0);
}

struct Slow;

impl From<Bytes> for Slow {
    fn from(_: Bytes) -> Self {
        Self
    }
}

impl http_body::Body for Slow {
    type Data = Bytes;
    type Error = crate::BoxError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, crate::BoxError>>> {
        std::task::Poll::Pending
    }
}

#[derive(Clone)]
struct SlowBackend(Backend);

impl tower::Service<http::Request<Slow>> for SlowBackend {
    type Response = http::Response<crate::PaywallBody>;
    type Error = std::convert::Infallible;
    type Future = <Backend as tower::Service<http::Request<Full<Bytes>>>>::Future;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Slow>) -> Self::Future {
        tower::Service::call(&mut self.0, request.map(|_| Full::default()))
    }
}
