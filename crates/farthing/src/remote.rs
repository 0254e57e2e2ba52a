//! The way to a remote facilitator over HTTP. What its answers mean is for the engine's `RemoteRail` to say.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use farthing_engine::{
    Ask, Facilitator, FacilitatorAnswer, FacilitatorCall, MAX_FACILITATOR_ANSWER, NoAnswer,
};
use url::Url;

/// How long a connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// One remote facilitator, over HTTP.
pub struct HttpFacilitator {
    http: reqwest::Client,
    url: Url,
    /// Sent as `Authorization: Bearer …`.
    api_key: Option<String>,
}

impl HttpFacilitator {
    pub fn new(http: reqwest::Client, url: Url, api_key: Option<String>) -> Self {
        Self { http, url, api_key }
    }

    /// A client for facilitators.
    pub fn client() -> Result<reqwest::Client, reqwest::Error> {
        reqwest::Client::builder()
            // A redirect would send a signed payment to somebody whom nobody chose.
            .redirect(reqwest::redirect::Policy::none())
            // Whether to send a request again is decided where it is known what the first one may have done.
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT_WITHIN)
            .build()
    }

    fn endpoint(&self, ask: Ask) -> Option<Url> {
        let mut url = self.url.clone();
        url.path_segments_mut().ok()?.pop_if_empty().push(ask.path());
        Some(url)
    }
}

#[async_trait]
impl Facilitator for HttpFacilitator {
    fn id(&self) -> &str {
        self.url.as_str()
    }

    fn name(&self) -> &str {
        self.url.host_str().unwrap_or("?")
    }

    async fn ask(&self, call: FacilitatorCall, within: Duration) -> Result<FacilitatorAnswer, NoAnswer> {
        let url = self.endpoint(call.ask).ok_or(NoAnswer::NotSent)?;
        let mut request = match call.ask {
            Ask::Supported => self.http.get(url),
            Ask::Verify | Ask::Settle => {
                self.http.post(url).header("content-type", "application/json").body(call.body)
            }
        };
        request = request.header("accept", "application/json").timeout(within);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(|error| {
            // Without a connection nothing can have left.
            if error.is_connect() { NoAnswer::NotSent } else { NoAnswer::Lost }
        })?;
        let status = answer.status().as_u16();
        let body = read_bounded(answer).await.ok_or(NoAnswer::Lost)?;
        Ok(FacilitatorAnswer { status, body })
    }
}

async fn read_bounded(mut answer: reqwest::Response) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > MAX_FACILITATOR_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}

#[cfg(test)]
mod tests {
    // In a test a panic is the report.
    #![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

    use axum::http::StatusCode;
    use axum::response::Redirect;
    use axum::routing::{get, post};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    async fn facilitator(routes: axum::Router) -> HttpFacilitator {
        // Another test may have installed it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        HttpFacilitator::new(HttpFacilitator::client().unwrap(), url, Some("secret".to_owned()))
    }

    fn settle() -> FacilitatorCall {
        FacilitatorCall { ask: Ask::Settle, body: Bytes::from_static(b"{}") }
    }

    #[tokio::test]
    async fn status_and_body_arrive_as_they_are_whatever_they_say() {
        let says = |request: axum::extract::Request| async move {
            let key = request.headers().get("authorization").unwrap().to_str().unwrap().to_owned();
            (StatusCode::SERVICE_UNAVAILABLE, format!("<html>{key}"))
        };
        let remote = facilitator(axum::Router::new().route("/base/settle", post(says))).await;
        let answer = remote.ask(settle(), SECOND).await.unwrap();
        let body = Bytes::from_static(b"<html>Bearer secret");
        assert_eq!(answer, FacilitatorAnswer { status: 503, body });
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_is_not_followed() {
        let elsewhere = || async { StatusCode::IM_A_TEAPOT };
        let away = || async { Redirect::temporary("/elsewhere") };
        let routes =
            axum::Router::new().route("/base/settle", post(away)).route("/elsewhere", post(elsewhere));
        let remote = facilitator(routes).await;
        assert_eq!(remote.ask(settle(), SECOND).await.unwrap().status, 307);
    }

    #[tokio::test]
    async fn a_body_without_end_is_no_answer() {
        let endless = || async {
            let chunk = Bytes::from(vec![b' '; 64 * 1024]);
            let chunks = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            axum::body::Body::from_stream(chunks)
        };
        let remote = facilitator(axum::Router::new().route("/base/supported", get(endless))).await;
        let call = FacilitatorCall { ask: Ask::Supported, body: Bytes::new() };
        assert_eq!(remote.ask(call, 10 * SECOND).await, Err(NoAnswer::Lost));
    }

    #[tokio::test]
    async fn nobody_there_is_told_from_an_answer_that_is_lost() {
        let hangs = || async { std::future::pending::<String>().await };
        let remote = facilitator(axum::Router::new().route("/base/settle", post(hangs))).await;
        assert_eq!(remote.ask(settle(), Duration::from_millis(50)).await, Err(NoAnswer::Lost));
        // The port of a listener that is gone.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let remote = HttpFacilitator::new(HttpFacilitator::client().unwrap(), url, None);
        assert_eq!(remote.ask(settle(), SECOND).await, Err(NoAnswer::NotSent));
    }
}
