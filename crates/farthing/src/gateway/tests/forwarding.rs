//! What reaches the upstream, and what comes back.

use super::support::*;

#[tokio::test]
async fn a_paid_request_reaches_the_upstream_once_and_its_answer_comes_back() {
    let upstream = RawUpstream::saying("sunny").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let unpaid = served.get("/paid?city=Bern", "").await;
    assert_eq!((status(&unpaid), upstream.count()), (402, 0));
    let answer = served.buy("/paid?city=Bern", "").await;
    assert_eq!((status(&answer), body(&answer)), (200, "sunny"));
    assert_eq!(upstream.count(), 1);
    let request = upstream.last();
    assert!(request.starts_with("GET /paid?city=Bern HTTP/1.1\r\n"), "{request}");
    assert!(header(&request, "x-farthing-payer").is_some());
    assert_eq!(header(&request, "x-farthing-amount"), Some("2000"));
    assert!(header(&request, "payment-signature").is_none());
    assert_eq!(header(&request, "host"), Some(upstream.address.to_string().as_str()));
    served.stop().await;
}

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let upstream = RawUpstream::start(|_| {
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
         proxy-authenticate: Basic\r\nx-end: 1\r\n\r\nok"
            .to_owned()
    })
    .await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let answer = served
        .raw(
            "GET /free HTTP/1.1\r\nhost: a\r\nconnection: close, x-mine\r\nx-mine: 1\r\nupgrade: websocket\r\n\
             proxy-authorization: Basic eA==\r\nte: trailers, deflate\r\nx-through: 1\r\n\r\n",
        )
        .await;
    assert_eq!(body(&answer), "ok");
    for gone in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(header(&answer, gone), None, "{gone}");
    }
    assert_eq!(header(&answer, "x-end"), Some("1"));
    let request = upstream.last();
    for gone in ["x-mine", "upgrade", "proxy-authorization"] {
        assert_eq!(header(&request, gone), None, "{gone}");
    }
    assert_eq!((header(&request, "te"), header(&request, "x-through")), (Some("trailers"), Some("1")));
    served.stop().await;
}

#[tokio::test]
async fn trailers_pass_through_free_and_paid() {
    let upstream = RawUpstream::start(|_| {
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nconnection: close\r\n\r\n\
         5\r\nsunny\r\n0\r\nx-sum: 42\r\n\r\n"
            .to_owned()
    })
    .await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let free = served.get("/free", "te: trailers\r\n").await;
    assert!(free.contains("sunny") && free.contains("x-sum: 42"), "{free}");
    let paid = served.buy("/paid", "te: trailers\r\n").await;
    assert!(paid.contains("sunny") && paid.contains("x-sum: 42"), "{paid}");
    served.stop().await;
}

#[tokio::test]
async fn an_answer_whose_end_is_the_connections_end_is_not_charged() {
    let upstream = RawUpstream::start(|_| "HTTP/1.1 200 OK\r\n\r\nsunny".to_owned()).await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    assert!(body(&served.get("/free", "").await).contains("sunny"), "free routes do not mind");
    let paid = served.buy("/paid", "").await;
    assert_eq!(status(&paid), 502);
    assert!(paid.contains("upstream_end_unknown") && !paid.contains("sunny"));
    served.stop().await;
}

#[tokio::test]
async fn a_truncated_answer_is_not_charged() {
    let upstream =
        RawUpstream::start(|_| "HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nsunny".to_owned()).await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let paid = served.buy("/paid", "").await;
    assert_eq!(status(&paid), 502);
    assert!(paid.contains("upstream_truncated") && !paid.contains("sunny"));
    served.stop().await;
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_502_and_not_charged() {
    let gone = RawUpstream::saying("").await.address;
    let served = Served::start(config(gone, "", ROUTES)).await;
    assert_eq!(status(&served.buy("/paid", "").await), 502);
    assert_eq!(status(&served.get("/free", "").await), 502);
    served.stop().await;
}

#[tokio::test]
async fn a_stranger_cannot_say_who_it_is_and_a_trusted_proxy_can() {
    let upstream = RawUpstream::saying("ok").await;
    let forged = "x-forwarded-for: 1.1.1.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil.example\r\nforwarded: for=1.1.1.1\r\n";
    let strange = Served::start(config(upstream.address, "", ROUTES)).await;
    strange.get("/free", forged).await;
    let request = upstream.last();
    assert_eq!(header(&request, "x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(header(&request, "x-forwarded-proto"), Some("http"));
    assert_eq!(header(&request, "x-forwarded-host"), Some("api.example"));
    assert_eq!(header(&request, "forwarded"), None);
    strange.stop().await;
    let trusting =
        Served::start(config(upstream.address, "trusted_proxies = [\"127.0.0.1\", \"10.0.0.0/8\"]", ROUTES))
            .await;
    let said = "x-forwarded-for: 6.6.6.6, 2.2.2.2, 10.1.1.1\r\nx-forwarded-proto: https\r\nx-forwarded-host: shop.example\r\n";
    trusting.get("/free", said).await;
    let request = upstream.last();
    assert_eq!(
        header(&request, "x-forwarded-for"),
        Some("2.2.2.2, 10.1.1.1, 127.0.0.1"),
        "6.6.6.6 is hearsay"
    );
    assert_eq!(header(&request, "x-forwarded-proto"), Some("https"));
    let unpaid = trusting.get("/paid", said).await;
    assert!(body(&unpaid).contains("https://shop.example/paid"), "{unpaid}");
    trusting.stop().await;
}

#[tokio::test]
async fn upstream_credentials_come_from_references_and_replace_the_clients() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Bearer inner\n").unwrap();
    let upstream = RawUpstream::saying("ok").await;
    let routes = format!(
        "[[upstream]]\nname = \"api\"\nurl = \"http://{}/v1/\"\npreserve_host = true\n\
         headers = {{ authorization = \"file:{}\" }}\n[[route]]\nmatch = \"/*\"\nupstream = \"api\"\nfree = true\n",
        upstream.address,
        file.path().display()
    );
    let served = Served::start(config(upstream.address, "", &routes)).await;
    served.get("/x/y?z=1", "authorization: Bearer mine\r\n").await;
    let request = upstream.last();
    assert!(request.starts_with("GET /v1/x/y?z=1 HTTP/1.1\r\n"), "{request}");
    assert_eq!(header(&request, "authorization"), Some("Bearer inner"));
    assert_eq!(header(&request, "host"), Some("api.example"));
    served.stop().await;
}

#[tokio::test]
async fn bodies_reach_the_upstream_free_and_paid() {
    let upstream = RawUpstream::saying("ok").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let post = |path: &str, headers: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 5\r\n{headers}\r\nhello"
        )
    };
    assert_eq!(status(&served.raw(&post("/free", "")).await), 200);
    assert!(upstream.last().ends_with("hello"));
    let unpaid = served.raw(&post("/paid", "")).await;
    let payment = pay(header(&unpaid, "payment-required").unwrap());
    let paid = served.raw(&post("/paid", &format!("payment-signature: {payment}\r\n"))).await;
    assert_eq!(status(&paid), 200);
    assert!(upstream.last().ends_with("hello"));
    assert_eq!(header(&upstream.last(), "content-length"), Some("5"));
    served.stop().await;
}

#[tokio::test]
async fn a_price_hook_behind_a_url_sets_the_price() {
    let hook = RawUpstream::start(|request| {
        let price = if request.contains("\"query\":\"slices=3\"") { "$0.03" } else { "$0.01" };
        let body = format!("{{\"price\":\"{price}\"}}");
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    })
    .await;
    let upstream = RawUpstream::saying("charged").await;
    let routes = format!("[[route]]\nmatch = \"GET /kwh\"\nprice_hook = \"http://{}/\"\n", hook.address);
    let served = Served::start(config(upstream.address, "", &routes)).await;
    assert!(body(&served.get("/kwh?slices=3", "").await).contains("\"maxAmountRequired\":\"30000\""));
    let answer = served.buy("/kwh?slices=1", "cookie: a=b\r\nauthorization: secret\r\n").await;
    assert_eq!(body(&answer), "charged");
    let asked = hook.requests.lock().unwrap().join("\n");
    assert!(!asked.contains("secret") && !asked.contains("a=b"), "hooks are told no credentials");
    served.stop().await;
}

#[tokio::test]
async fn a_hook_that_misspells_sets_no_price() {
    for answer in [
        "{}",
        "[]",
        "{\"prise\":\"$1\"}",
        "{\"price\":\"1\"}",
        "{\"price\":\"$1\",\"atoms\":\"1\"}",
        "{\"atoms\":1}",
        "{\"price\":\"$1e3\"}",
        "{\"atoms\":\"1\",\"pay_to\":\"0x1\"}",
        "{\"atoms\":\"1\",\"valid_for_seconds\":0}",
    ] {
        assert!(crate::gateway::hook::read(answer.as_bytes()).is_err(), "{answer}");
    }
}
