//! Connections: their protocols, their bounds, and their end.

use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;

#[tokio::test]
async fn http2_in_is_served_like_http1() {
    let upstream = RawUpstream::saying("sunny").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let stream = TcpStream::connect(served.address).await.unwrap();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let url = format!("http://{}/paid", served.address);
    let request = || Request::builder().uri(&url).body(Full::<bytes::Bytes>::default()).unwrap();
    let unpaid = client.send_request(request()).await.unwrap();
    assert_eq!(unpaid.status(), 402);
    let payment = pay(unpaid.headers()["payment-required"].to_str().unwrap());
    let mut paid = request();
    paid.headers_mut().insert("payment-signature", payment.parse().unwrap());
    let answer = client.send_request(paid).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "sunny");
    drop(client);
    connection.await.unwrap().unwrap();
    served.stop().await;
}

/// Trusts one certificate and no other.
#[derive(Debug)]
struct Exactly(CertificateDer<'static>);

impl rustls::client::danger::ServerCertVerifier for Exactly {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if *certificate == self.0 {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Asks over TLS, trusting exactly this certificate.
async fn over_tls(served: &Served, pem: &str) -> Result<String, std::io::Error> {
    let trusted = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Exactly(trusted)))
        .with_no_client_auth();
    let stream = TcpStream::connect(served.address).await?;
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    stream.write_all(b"GET /free HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[tokio::test]
async fn certificates_are_replaced_while_it_runs_and_bad_ones_are_not_used() {
    let (one, two) = (include_str!("one.cert.pem"), include_str!("two.cert.pem"));
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, one).unwrap();
    std::fs::write(&key, include_str!("one.key.pem")).unwrap();
    let upstream = RawUpstream::saying("sunny").await;
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let served = Served::start(config(upstream.address, &tls, ROUTES)).await;
    let answer = over_tls(&served, one).await.unwrap();
    assert_eq!(body(&answer), "sunny");
    assert_eq!(header(&upstream.last(), "x-forwarded-proto"), Some("https"));
    // A certificate without its key: the old pair stays.
    std::fs::write(&cert, two).unwrap();
    assert!(served.gateway.certificate().unwrap().reload().is_err());
    assert!(over_tls(&served, one).await.is_ok());
    std::fs::write(&key, include_str!("two.key.pem")).unwrap();
    served.gateway.certificate().unwrap().reload().unwrap();
    assert!(over_tls(&served, one).await.is_err());
    assert_eq!(body(&over_tls(&served, two).await.unwrap()), "sunny");
    served.stop().await;
}

#[tokio::test]
async fn a_client_that_never_ends_its_head_is_cut_off() {
    let upstream = RawUpstream::saying("").await;
    let mut config = config(upstream.address, "", ROUTES);
    config.limits.header_timeout = Duration::from_millis(50);
    let served = Served::start(config).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /free HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
    assert!(ended.is_ok(), "the gateway closes the connection");
    assert_eq!(upstream.count(), 0);
    served.stop().await;
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let upstream = RawUpstream::saying("").await;
    let served = Served::start(config(
        upstream.address,
        "",
        &format!("[limits]\nmax_header_bytes = \"8KiB\"\n{ROUTES}"),
    ))
    .await;
    let long = served.get("/free", &format!("x-long: {}\r\n", "a".repeat(20_000))).await;
    let many = served.get("/free", &"x-one: 1\r\n".repeat(200)).await;
    assert_eq!((status(&long), status(&many)), (431, 431));
    assert_eq!(upstream.count(), 0);
    served.stop().await;
}

#[tokio::test]
async fn tunnels_and_traces_are_refused_and_health_is_free() {
    let upstream = RawUpstream::saying("").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    for method in ["TRACE /free", "CONNECT example.org:443"] {
        let answer = served.raw(&format!("{method} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!(status(&answer), 405, "{method}");
    }
    assert_eq!(body(&served.get(crate::gateway::serve::HEALTH_PATH, "").await), "{\"status\":\"ok\"}");
    assert_eq!(upstream.count(), 0);
    served.stop().await;
}

#[tokio::test]
async fn smuggled_lengths_are_refused() {
    let upstream = RawUpstream::saying("").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    for headers in [
        "content-length: 1\r\ncontent-length: 2\r\n",
        "content-length: -1\r\n",
        "transfer-encoding: gzip\r\n",
    ] {
        let answer = served
            .raw(&format!("POST /free HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\nxx"))
            .await;
        assert_eq!(status(&answer), 400, "{headers}");
    }
    assert_eq!(upstream.count(), 0);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_what_is_under_way_end() {
    let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
    let (reached, mut waiting) = tokio::sync::mpsc::unbounded_channel();
    let held = gate.clone();
    let upstream = RawUpstream::start(move |_| {
        let _ = reached.send(());
        let (open, changed) = &*held;
        let mut open = open.lock().unwrap();
        while !*open {
            open = tokio::task::block_in_place(|| changed.wait(open).unwrap());
        }
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsunny".to_owned()
    });
    let upstream = upstream.await;
    let mut served = Served::start(config(upstream.address, "", ROUTES)).await;
    let mut stream = TcpStream::connect(served.address).await.unwrap();
    stream.write_all(b"GET /free HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    waiting.recv().await.unwrap();
    served.begin_stop();
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(body(&String::from_utf8_lossy(&answer)), "sunny");
    let address = served.address;
    served.stop().await;
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

/// Paid before, and gone before the first byte: whoever paid is owed one.
#[tokio::test(flavor = "multi_thread")]
async fn an_upfront_buyer_that_hangs_up_before_the_first_byte_was_not_served() {
    let (reached, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let (open, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let upstream = RawUpstream::start(move |_| {
        let _ = reached.send(());
        tokio::task::block_in_place(|| gate.lock().unwrap().recv().unwrap());
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nsunny".to_owned()
    })
    .await;
    let routes = "[[route]]\nmatch = \"/paid\"\nprice = \"$0.002\"\nflow = \"upfront\"\n";
    let served = Served::start(config(upstream.address, "", routes)).await;
    let (tell, mut deliveries) = tokio::sync::mpsc::unbounded_channel();
    *served.till.deliveries.lock().unwrap() = Some(tell);
    let unpaid = served.get("/paid", "").await;
    let payment = pay(header(&unpaid, "payment-required").unwrap());
    let request = format!("GET /paid HTTP/1.1\r\nhost: api.example\r\npayment-signature: {payment}\r\n\r\n");
    for (stays, told) in [(true, Ok(())), (false, Err("delivery_interrupted".to_owned()))] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        asked.recv().await.unwrap();
        let stream = stays.then_some(stream);
        open.send(()).unwrap();
        assert_eq!(deliveries.recv().await.unwrap(), told, "stays: {stays}");
        drop(stream);
    }
    served.stop().await;
}

#[tokio::test]
async fn a_request_names_one_host() {
    let upstream = RawUpstream::saying("ok").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let ask = |target: &str, hosts: &str| {
        let request = format!("GET {target} HTTP/1.1\r\nconnection: close\r\n{hosts}\r\n");
        let served = &served;
        async move { served.raw(&request).await }
    };
    let two = ask("/paid", "host: a.example\r\nhost: b.example\r\n").await;
    assert_eq!((status(&two), body(&two)), (400, "{\"error\":\"several_hosts\"}"));
    let none = ask("/paid", "").await;
    assert_eq!((status(&none), body(&none)), (400, "{\"error\":\"no_host\"}"));
    // The target's own host goes before the header's.
    let unpaid = ask("http://c.example/paid", "host: a.example\r\n").await;
    assert!(body(&unpaid).contains("http://c.example/paid"), "{unpaid}");
    assert_eq!(status(&ask("http://c.example/free", "host: a.example\r\n").await), 200);
    assert_eq!(header(&upstream.last(), "x-forwarded-host"), Some("c.example"));
    let credentials = ask("http://u:p@c.example/paid", "host: a.example\r\n").await;
    assert_eq!(status(&credentials), 400);
    served.stop().await;
}

#[tokio::test]
async fn a_tls_handshake_that_never_comes_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, include_str!("one.cert.pem")).unwrap();
    std::fs::write(&key, include_str!("one.key.pem")).unwrap();
    let upstream = RawUpstream::saying("ok").await;
    let tls = format!("tls = {{ cert = \"{}\", key = \"{}\" }}", cert.display(), key.display());
    let routes = format!("{ROUTES}[limits]\nheader_timeout = \"1s\"\n");
    let served = Served::start(config(upstream.address, &tls, &routes)).await;
    for begun in [&b""[..], &[0x16, 3, 1, 2, 0]] {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        let mut said = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut said)).await;
        let _ = ended.expect("the gateway closes it");
    }
    served.stop().await;
}
