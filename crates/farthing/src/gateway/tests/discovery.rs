//! The documents, and the proof that they say what the 402 says.

use std::collections::BTreeSet;
use std::sync::Arc;

use farthing_wire::mpp::{Challenges, Terms};
use farthing_wire::x402::{Message, v1, v2};
use serde_json::{Value, json};

use super::support::*;
use crate::config::Config;

const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";

/// What one answer asks for, or one operation of the document says: dialect and intent, amount, token, network.
pub type Prices = BTreeSet<(String, Option<String>, String, String)>;

/// What the document says of an operation.
pub fn said(operation: &Value) -> Prices {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut all = Prices::new();
    for offer in operation["x-payment-info"]["offers"].as_array().into_iter().flatten() {
        let name = format!("{}/{}", offer["method"].as_str().unwrap(), offer["intent"].as_str().unwrap());
        // The draft has no member for the network, so the description names it.
        let network = offer["description"].as_str().unwrap().split(" on ").nth(1).unwrap();
        let network = network.split(';').next().unwrap().to_owned();
        all.insert((name, text(&offer["amount"]), text(&offer["currency"]).unwrap(), network));
    }
    for offer in operation["x-x402"]["accepts"].as_array().into_iter().flatten() {
        for version in offer["x402Version"].as_array().unwrap() {
            let name = format!("x402 v{version} {}", offer["scheme"].as_str().unwrap());
            let (asset, network) = (text(&offer["asset"]).unwrap(), text(&offer["network"]).unwrap());
            all.insert((name, text(&offer["amount"]), asset, network));
        }
    }
    all
}

/// What a 402 really asks for.
pub fn asked(answer: &str) -> Prices {
    let mut all = Prices::new();
    let head = answer.split("\r\n\r\n").next().unwrap();
    let lines = head.lines().filter_map(|line| line.strip_prefix("www-authenticate: ")).map(str::as_bytes);
    // An answer without such a header speaks no MPP.
    let challenges = Challenges::parse(lines).map(|read| read.challenges).unwrap_or_default();
    assert_eq!(challenges.is_empty(), !head.contains("www-authenticate: "), "{head}");
    for challenge in challenges {
        let name = format!("{}/{}", challenge.method.as_str(), challenge.intent.as_str());
        let (amount, currency, network) = match challenge.terms().unwrap() {
            Terms::EvmCharge(charge) => (charge.amount, charge.currency.to_string(), charge.network),
            Terms::EvmSession(session) => (session.amount, session.currency.to_string(), session.network),
            // By a name of ours: the challenge has the profile alone.
            Terms::StripeCharge(stripe) => {
                let network = format!("stripe:{}", stripe.network_id).parse().unwrap();
                (stripe.charge.amount, stripe.charge.currency, network)
            }
            other => panic!("{other:?}"),
        };
        all.insert((name, Some(amount.to_string()), currency, network.to_string()));
    }
    // What is sold by the unit alone is not for x402.
    let v2 = header(answer, "payment-required");
    let v2 = v2.map(|value| v2::PaymentRequired::from_header(value.as_bytes()).unwrap());
    for offer in v2.into_iter().flat_map(|v2| v2.accepts) {
        let network = offer.money().asset().network().to_string();
        let (asset, amount) = (offer.asset.to_string(), offer.money().atoms().to_string());
        all.insert((format!("x402 v2 {}", offer.scheme), Some(amount), asset, network));
    }
    if let Ok(v1) = v1::PaymentRequired::parse(body(answer).as_bytes()) {
        for offer in v1.accepts {
            let network = offer.money().asset().network().to_string();
            let (asset, amount) = (offer.asset.to_string(), offer.money().atoms().to_string());
            all.insert((format!("x402 v1 {}", offer.scheme), Some(amount), asset, network));
        }
    }
    all
}

/// Without amounts, where the document says that each request has its own.
fn bare(prices: &Prices) -> Prices {
    prices
        .iter()
        .map(|(name, _, asset, network)| (name.clone(), None, asset.clone(), network.clone()))
        .collect()
}

async fn document(served: &Served) -> Value {
    let answer = served.get("/openapi.json", "").await;
    assert_eq!((status(&answer), header(&answer, "content-type")), (200, Some("application/json")));
    serde_json::from_str(body(&answer)).unwrap()
}

/// Asks for every operation of the document and compares; returns how many have a price, and how many are free.
async fn agree(served: &Served, document: &Value) -> (usize, usize) {
    let (mut priced, mut free) = (0, 0);
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters") {
            // Each place may be anything.
            let path = path.split('/').map(|part| if part.contains('{') { "q7" } else { part });
            let path = path.collect::<Vec<_>>().join("/");
            let method = method.to_uppercase();
            let request = format!(
                "{method} {path} HTTP/1.1\r\nhost: api.example\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            );
            let answer = served.raw(&request).await;
            let said = said(operation);
            if status(&answer) != 402 {
                assert!(said.is_empty(), "{method} {path} has a price in the document: {said:?}");
                assert!(operation["responses"].get("402").is_none(), "{method} {path}");
                free += 1;
                continue;
            }
            assert!(operation["responses"].get("402").is_some(), "{method} {path}");
            assert!(!said.is_empty(), "{method} {path} has no price in the document");
            let mut asked = asked(&answer);
            // An answer to HEAD has no body, where version 1 stands.
            let said = match method.as_str() {
                "HEAD" => said.into_iter().filter(|(name, ..)| !name.starts_with("x402 v1")).collect(),
                _ => said,
            };
            if said.iter().any(|(_, amount, ..)| amount.is_none()) {
                asked = bare(&asked);
            }
            assert_eq!(said, asked, "{method} {path}");
            priced += 1;
        }
    }
    (priced, free)
}

/// A price for each request, as long as it is asked for.
async fn hook() -> RawUpstream {
    RawUpstream::start(|_| {
        let body = "{\"price\":\"$0.0123\"}";
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    })
    .await
}

fn routes(hook: std::net::SocketAddr) -> String {
    format!(
        "[[route]]\nmatch = \"GET /Weather/{{city}}\"\nprice = \"$0.002\"\ndescription = \"Weather\"\n\
         [[route]]\nmatch = \"GET /weather/berlin\"\nprice = \"$0.001\"\n\
         [[route]]\nmatch = \"POST|PUT /reports\"\naccept = [{{ network = \"base\", price = \"$0.05\" }}, \
         {{ network = \"base\", asset = \"EURC\", atoms = \"45000\" }}, \
         {{ network = \"base-sepolia\", price = \"$0.06\", method = \"permit2\" }}]\n\
         [[route]]\nmatch = \"/any\"\nprice = \"$0.003\"\n\
         [[route]]\nmatch = \"GET /quoted\"\nprice_hook = \"http://{hook}/\"\n\
         [[route]]\nmatch = \"GET /permit2\"\naccept = [{{ price = \"$0.01\", method = \"permit2\" }}]\n\
         [[route]]\nmatch = \"GET /films/*\"\nprice = \"$0.30\"\nflow = \"upfront\"\n\
         [[route]]\nmatch = \"GET /units\"\nprice = \"$0.01\"\nsession = {{ price = \"$0.001\" }}\n\
         [[route]]\nmatch = \"GET /health\"\nfree = true\n"
    )
}

/// The proof: whatever the document says of an operation, its 402 asks for exactly that, and the other way round.
#[tokio::test]
async fn what_the_document_says_is_what_is_asked() {
    let (upstream, hook) = (RawUpstream::saying("{}").await, hook().await);
    for (more, mpp) in [("", true), ("mpp = false", false), ("v1_body = false", true)] {
        let text = match mpp {
            true => routes(hook.address),
            // A session is of MPP.
            false => routes(hook.address).replace("session = { price = \"$0.001\" }\n", ""),
        };
        let served = Served::start(config(upstream.address, more, &text)).await;
        let document = document(&served).await;
        let (priced, free) = agree(&served, &document).await;
        // One each, two for POST|PUT and five for any method.
        assert_eq!((priced, free), (13, 1), "{more}: {document}");
        assert_eq!(
            document["paths"]["/Weather/{city}"]["get"]["summary"], "Weather",
            "as its owner spells it"
        );
        if mpp {
            let offer = &document["paths"]["/quoted"]["get"]["x-payment-info"]["offers"][0];
            assert!(offer["amount"].is_null(), "{offer}");
        } else {
            assert!(!document.to_string().contains("\"offers\""), "{document}");
        }
        served.stop().await;
    }
}

#[tokio::test]
async fn what_it_costs_by_card_is_said_where_it_is_asked() {
    let upstream = RawUpstream::saying("{}").await;
    let routes = "[stripe]\nsecret_key = \"env:STRIPE_KEY\"\nnetwork_id = \"profile_1\"\n\
         [[route]]\nmatch = \"GET /card\"\nstripe = \"0.50 USD\"\n\
         [[route]]\nmatch = \"GET /both\"\nprice = \"$0.75\"\nstripe = true\n\
         [[route]]\nmatch = \"GET /cheap\"\nprice = \"$0.10\"\nstripe = true\n";
    let served = Served::start(config(upstream.address, "", routes)).await;
    let document = document(&served).await;
    assert_eq!(agree(&served, &document).await, (3, 0), "{document}");
    let offers = |path: &str| document["paths"][path]["get"]["x-payment-info"]["offers"].clone();
    let methods = |path: &str| {
        let offers = offers(path).as_array().unwrap().clone();
        offers.iter().map(|offer| offer["method"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(methods("/card"), ["stripe"]);
    assert_eq!(methods("/both"), ["evm", "stripe"]);
    assert_eq!(methods("/cheap"), ["evm"], "less than Stripe charges is no offer");
    assert_eq!(offers("/card")[0]["currency"], "usd");
    served.stop().await;
}

#[tokio::test]
async fn the_upstreams_paths_are_the_gateways_without_its_prefix() {
    let described = json!({
        "openapi": "3.0.0", "info": { "title": "Up", "version": "3" },
        "servers": [{ "url": "http://10.1.2.3" }],
        "paths": {
            "/v1/films/{id}": { "get": { "summary": "A film" } },
            "/other": { "get": { "summary": "Not behind the gateway" } },
        },
    });
    let hook = hook().await;
    let upstream = RawUpstream::start(move |request| {
        let body =
            if request.starts_with("GET /v1/own.json ") { described.to_string() } else { "{}".to_owned() };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    })
    .await;
    let text = format!("{}[service]\ntitle = \"Ours\"\nopenapi = \"/own.json\"\n", routes(hook.address));
    let mut config = config(upstream.address, "", &text);
    let mut behind = (**config.default_upstream.as_ref().unwrap()).clone();
    behind.url = behind.url.join("/v1").unwrap();
    let behind = Arc::new(behind);
    config.default_upstream = Some(behind.clone());
    config.routes.iter_mut().for_each(|route| route.upstream = behind.clone());
    let served = Served::start(config).await;
    let document = document(&served).await;
    assert!(!document.to_string().contains("10.1.2.3"), "{document}");
    assert_eq!(document["paths"]["/films/{id}"]["get"]["summary"], "A film");
    assert!(document["paths"].get("/v1/films/{id}").is_none() && document["paths"].get("/other").is_none());
    agree(&served, &document).await;
    assert_eq!((&document["info"]["title"], &document["info"]["version"]), (&json!("Ours"), &json!("3")));
    served.stop().await;
}

#[tokio::test]
async fn the_upstreams_words_are_kept_and_its_prices_are_not() {
    let described = json!({
        "openapi": "3.1.0", "info": { "title": "Up", "version": "3" },
        "paths": {
            "/weather/{town}": { "get": { "summary": "By town", "x-payment-info": { "amount": "1" },
                "parameters": [{ "name": "town", "in": "path", "required": true, "schema": { "type": "string" } }] },
                "post": {} },
            "/films/{id}": { "get": {}, "head": {}, "delete": {} },
            "/films/{id}/cast/{n}": { "get": { "responses": { "402": { "description": "no" } } } },
            "/any": { "patch": {} },
            "/nowhere": { "get": {} },
            "/health": { "get": {} },
        },
    });
    let hook = hook().await;
    let upstream = RawUpstream::start(move |request| {
        let body =
            if request.starts_with("GET /own.json ") { described.to_string() } else { "{}".to_owned() };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    })
    .await;
    let text = format!("{}[service]\nopenapi = \"/own.json\"\n", routes(hook.address));
    let served = Served::start(config(upstream.address, "", &text)).await;
    let document = document(&served).await;
    assert_eq!(document["paths"]["/weather/{town}"]["get"]["summary"], "By town");
    assert!(
        document["paths"].get("/Weather/{city}").is_none() && document["paths"].get("/nowhere").is_none()
    );
    assert!(document["paths"]["/films/{id}"].get("delete").is_none(), "no route lets it through");
    let (priced, free) = agree(&served, &document).await;
    // /weather/{town}, /weather/berlin, /reports twice, /any once, /quoted, /permit2, three films, /units; /health.
    assert_eq!((priced, free), (11, 1), "{document}");
    served.stop().await;
}

#[tokio::test]
async fn an_upstream_that_does_not_describe_itself_is_no_harm() {
    let huge = "x".repeat(farthing_discovery::MAX_DESCRIBED_BYTES + 1);
    for answer in [
        "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n",
        "",
        "HTTP/1.1 200 OK\r\n\r\n[[[",
        &format!("HTTP/1.1 200 OK\r\n\r\n{huge}"),
    ] {
        let answer = answer.to_owned();
        let upstream = RawUpstream::start(move |_| answer.clone()).await;
        let text = format!("{ROUTES}[service]\nopenapi = \"/o\"\n");
        let served = Served::start(config(upstream.address, "", &text)).await;
        let document = document(&served).await;
        assert_eq!(agree(&served, &document).await.0, 5, "our own part alone");
        // It is not asked again at once.
        let asked = upstream.requests.lock().unwrap().iter().filter(|r| r.starts_with("GET /o ")).count();
        served.get("/openapi.json", "").await;
        let later = upstream.requests.lock().unwrap().iter().filter(|r| r.starts_with("GET /o ")).count();
        assert_eq!(asked, later);
        served.stop().await;
    }
}

#[tokio::test]
async fn documents_are_free_kept_and_asked_for_again() {
    let upstream = RawUpstream::saying("{}").await;
    let routes = format!("{ROUTES}[service]\ntitle = \"Shop\"\ncategories = [\"data\"]\n");
    let served = Served::start(config(upstream.address, "cors = \"*\"", &routes)).await;
    for (path, kind) in [
        ("/openapi.json", "application/json"),
        ("/llms.txt", "text/plain; charset=utf-8"),
        ("/.well-known/x402", "application/json"),
    ] {
        let answer = served.get(path, "origin: https://page.example\r\n").await;
        assert_eq!((status(&answer), header(&answer, "content-type")), (200, Some(kind)), "{path}");
        assert_eq!(header(&answer, "cache-control"), Some("max-age=300"));
        assert_eq!(header(&answer, "access-control-allow-origin"), Some("*"));
        let tag = header(&answer, "etag").unwrap();
        let again = served.get(path, &format!("if-none-match: \"x\", W/{tag}\r\n")).await;
        assert_eq!((status(&again), body(&again), header(&again, "etag")), (304, "", Some(tag)));
        let head = served.raw(&format!("HEAD {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")).await;
        assert_eq!((status(&head), body(&head)), (200, ""));
        let post =
            format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let before = upstream.count();
        served.raw(&post).await;
        assert_eq!(upstream.count(), before + 1, "another method is the routes' matter");
    }
    let list: Value = serde_json::from_str(body(&served.get("/.well-known/x402", "").await)).unwrap();
    assert_eq!(list["resources"], json!(["http://api.example/paid"]));
    assert!(body(&served.get("/llms.txt", "").await).starts_with("# Shop\n"));
    assert_eq!(document(&served).await["x-service-info"]["docs"]["llms"], "/llms.txt");
    served.stop().await;
}

/// A route of the very path goes before the document, priced or free; one with a star does not.
#[tokio::test]
async fn a_route_of_the_path_itself_goes_before_the_document() {
    let upstream = RawUpstream::saying("from behind").await;
    let routes = "[[route]]\nmatch = \"GET /openapi.json\"\nprice = \"$1\"\n\
         [[route]]\nmatch = \"/LLMS.txt\"\nfree = true\n[[route]]\nmatch = \"/*\"\nprice = \"$2\"\n";
    let served = Served::start(config(upstream.address, "", routes)).await;
    assert_eq!(status(&served.get("/openapi.json", "").await), 402);
    assert_eq!(body(&served.get("/llms.txt", "").await), "from behind");
    assert_eq!(status(&served.get("/.well-known/x402", "").await), 200);
    for odd in ["/.well-known/x402/", "/.WELL-KNOWN/x402", "//.well-known/x402", "/%2Ewell-known/x402"] {
        assert_eq!(status(&served.get(odd, "").await), 402, "{odd}");
    }
    served.stop().await;
    let off =
        Served::start(config(upstream.address, "", &format!("{ROUTES}[service]\nserve = [\"llms\"]\n")))
            .await;
    assert_eq!(body(&off.get("/openapi.json", "").await), "from behind");
    assert_eq!(status(&off.get("/llms.txt", "").await), 200);
    off.stop().await;
}

#[tokio::test]
async fn a_new_configuration_makes_new_documents() {
    let upstream = RawUpstream::saying("{}").await;
    let served = Served::start(config(upstream.address, "", ROUTES)).await;
    let before = served.get("/openapi.json", "").await;
    let text = format!(
        "[gateway]\nupstream = \"http://{}\"\nnetwork = \"base-sepolia\"\npay_to = \"{PAYEE}\"\n\
         [[route]]\nmatch = \"GET /paid\"\nprice = \"$7\"\n",
        upstream.address
    );
    let new = Config::parse("test.toml", &text, std::iter::empty()).unwrap().gateway.unwrap();
    served.gateway.reload(&new).unwrap();
    let after = served.get("/openapi.json", "").await;
    assert_ne!(header(&before, "etag"), header(&after, "etag"));
    let document: Value = serde_json::from_str(body(&after)).unwrap();
    assert_eq!(document["paths"]["/paid"]["get"]["x-payment-info"]["offers"][0]["amount"], "7000000");
    assert_eq!(agree(&served, &document).await, (1, 0));
    served.stop().await;
}
