use axum::body::Body;
use axum::extract::Request;
use http_body_util::BodyExt;

use super::*;

fn page() -> Arc<LocalPage> {
    Arc::new(LocalPage::new(8405).unwrap())
}

fn app(page: &Arc<LocalPage>) -> Router {
    let routes = Router::new()
        .route("/waiting", get(|| async { "what waits" }))
        .route("/answer", post(|| async { "heard" }));
    page.app(Router::new().route("/", get(file(HTML, "<p>the page</p>"))), routes)
}

/// A request as the page itself sends it, with something else about it.
fn request(method: &str, path: &str, others: &[(&str, &str)]) -> Request {
    let mut builder = Request::builder().method(method).uri(path);
    let ours = [
        ("host", "localhost:8405"),
        ("origin", "http://localhost:8405"),
        ("content-type", "application/json"),
    ];
    let other = |name: &str| others.iter().any(|(other, _)| *other == name);
    for (name, value) in ours.iter().filter(|(name, _)| !other(name)).chain(others) {
        if !value.is_empty() {
            builder = builder.header(*name, *value);
        }
    }
    builder.body(Body::empty()).unwrap()
}

async fn status(page: &Arc<LocalPage>, request: Request) -> u16 {
    app(page).oneshot(request).await.unwrap().status().as_u16()
}

async fn log_in(page: &Arc<LocalPage>, link: &str) -> Result<String, u16> {
    let mut asked = request("POST", "/login", &[]);
    *asked.body_mut() = Body::from(json!({ "link": link }).to_string());
    let answer = app(page).oneshot(asked).await.unwrap();
    if !answer.status().is_success() {
        return Err(answer.status().as_u16());
    }
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    Ok(format!("Bearer {}", said["session"].as_str().unwrap()))
}

fn secret(page: &LocalPage) -> String {
    page.link().split_once('#').unwrap().1.to_owned()
}

#[tokio::test]
async fn the_link_works_once_and_what_it_is_changed_for_opens_the_rest() {
    let page = page();
    assert!(page.link().starts_with("http://localhost:8405/#"));
    let link = secret(&page);
    for path in ["/waiting", "/answer"] {
        let method = if path == "/answer" { "POST" } else { "GET" };
        assert_eq!(status(&page, request(method, path, &[])).await, 401, "{path}");
        let wrong = format!("Bearer {link}");
        assert_eq!(status(&page, request(method, path, &[("authorization", &wrong)])).await, 401, "{path}");
    }
    assert_eq!(log_in(&page, "").await, Err(403));
    assert_eq!(log_in(&page, &link[1..]).await, Err(403));
    let session = log_in(&page, &link).await.unwrap();
    assert_eq!(log_in(&page, &link).await, Err(403), "once");
    assert_eq!(log_in(&page, "").await, Err(403), "and not with nothing, after that");
    let known = [("authorization", session.as_str())];
    assert_eq!(status(&page, request("GET", "/waiting", &known)).await, 200);
    assert_eq!(status(&page, request("POST", "/answer", &known)).await, 200);
    assert_eq!(
        status(&super::tests::page(), request("GET", "/waiting", &known)).await,
        401,
        "of another run"
    );
}

#[tokio::test]
async fn another_name_for_this_machine_is_another_machine() {
    let page = page();
    assert_eq!(status(&page, request("GET", "/", &[])).await, 200);
    for host in [
        "127.0.0.1:8405",
        "localhost",
        "localhost:80",
        "rebound.example:8405",
        "localhost:8405.evil.example",
        "",
    ] {
        assert_eq!(status(&page, request("GET", "/", &[("host", host)])).await, 421, "{host}");
    }
    let mut two = request("GET", "/", &[]);
    two.headers_mut().append("host", HeaderValue::from_static("rebound.example"));
    assert_eq!(status(&page, two).await, 421);
}

#[tokio::test]
async fn no_other_page_can_answer() {
    let page = page();
    let session = log_in(&page, &secret(&page)).await.unwrap();
    let answer = |name: &'static str, value: &'static str| {
        request("POST", "/answer", &[("authorization", session.as_str()), (name, value)])
    };
    assert_eq!(status(&page, answer("sec-fetch-site", "same-origin")).await, 200);
    for origin in ["", "null", "http://localhost:9999", "http://localhost", "https://evil.example"] {
        assert_eq!(status(&page, answer("origin", origin)).await, 403, "{origin}");
    }
    for site in ["cross-site", "same-site"] {
        assert_eq!(status(&page, answer("sec-fetch-site", site)).await, 403, "{site}");
    }
    for kind in ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"] {
        assert_eq!(status(&page, answer("content-type", kind)).await, 415, "{kind}");
    }
}

#[tokio::test]
async fn whatever_is_answered_is_inert() {
    let page = page();
    for (path, expected) in
        [("/", 200), ("/page.css", 200), ("/common.js", 200), ("/waiting", 401), ("/nowhere", 404)]
    {
        let answer = app(&page).oneshot(request("GET", path, &[])).await.unwrap();
        assert_eq!(answer.status().as_u16(), expected, "{path}");
        let policy = answer.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    }
}

#[tokio::test]
async fn a_page_is_served_on_loopback_alone() {
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let failure = open(listen.parse().unwrap()).await.unwrap_err();
        assert_eq!(failure.code, 2, "{listen}: {}", failure.message);
    }
    let opened = open("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let port = opened.listeners[0].local_addr().unwrap().port();
    // Nobody else has the port in either family, whichever a browser tries first.
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse().unwrap();
        assert!(std::net::TcpListener::bind((address, port)).is_err(), "{address}");
    }
}

/// What is not in the page cannot be put there by what somebody wrote: no script makes markup of a text.
#[test]
fn our_scripts_make_no_markup_of_texts() {
    for script in [
        include_str!("common.js"),
        include_str!("../approval/page.js"),
        include_str!("../approver/register.js"),
    ] {
        for way in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "Function(",
            ".href",
            ".src",
            "style",
        ] {
            assert!(!script.contains(way), "{way}");
        }
    }
    for html in [include_str!("../approval/page.html"), include_str!("../approver/register.html")] {
        assert!(!html.contains("http://") && !html.contains("https://") && !html.contains("style="));
        assert!(!html.contains("onclick") && !html.contains("onload") && !html.contains("javascript:"));
    }
}
