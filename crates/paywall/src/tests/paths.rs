use http::Method;

use crate::{PathError, Pattern, RequestPath, RouteError, RouteTable};

fn canonical(raw: &str) -> Result<String, PathError> {
    RequestPath::parse(raw).map(|path| path.canonical())
}

#[test]
fn paths_have_one_spelling() {
    for (raw, expected) in [
        ("/", "/"),
        ("//", "/"),
        ("/a", "/a"),
        ("/a/", "/a/"),
        ("//a///b//", "/a/b/"),
        ("/%61", "/a"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2fb", "/a%2Fb"),
        ("/%E2%82%AC", "/%E2%82%AC"),
        ("/a b", "/a%20b"),
        ("/a%3Fb", "/a%3Fb"),
        ("/a:b@c;d=e,f", "/a:b@c;d=e,f"),
        ("/100%25", "/100%25"),
        ("/...", "/..."),
    ] {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
    }
}

#[test]
fn paths_that_servers_read_differently_are_refused() {
    for (raw, expected) in [
        ("", PathError::NotAbsolute),
        ("*", PathError::NotAbsolute),
        ("/%", PathError::BadEncoding),
        ("/%4", PathError::BadEncoding),
        ("/%gg", PathError::BadEncoding),
        ("/%ff", PathError::NotUtf8),
        ("/%c0%ae", PathError::NotUtf8),
        ("/%00", PathError::ControlCharacter),
        ("/a%0Ab", PathError::ControlCharacter),
        ("/.", PathError::DotSegment),
        ("/..", PathError::DotSegment),
        ("/%2e%2E", PathError::DotSegment),
        ("/..;a", PathError::DotSegment),
        ("/a%2F..", PathError::DotSegment),
        ("/a\\b", PathError::Backslash),
        ("/a%5Cb", PathError::Backslash),
    ] {
        assert_eq!(canonical(raw), Err(expected), "{raw}");
    }
    assert_eq!(canonical(&format!("/{}", "a".repeat(5000))), Err(PathError::TooLong));
    assert_eq!(canonical(&"/a".repeat(129)), Err(PathError::TooManySegments));
}

/// Spec: the canonical form of a canonical form is itself; what is sent upstream is read there as it was read here.
#[test]
fn canonical_is_stable() {
    for raw in ["/a%2Fb/%25/c;d/%E2%82%AC//x/", "/%7Euser/%5Bx%5D/a+b", "/%2525"] {
        let once = canonical(raw).unwrap();
        assert_eq!(canonical(&once).unwrap(), once);
        assert_eq!(RequestPath::parse(&once), RequestPath::parse(raw));
    }
}

fn find(routes: &[&str], method: &str, path: &str) -> Result<Option<usize>, RouteError> {
    let routes = routes.iter().enumerate().map(|(at, text)| (text.parse::<Pattern>().unwrap(), at)).collect();
    let table = RouteTable::new(routes).unwrap();
    table.find(&method.parse::<Method>().unwrap(), path).map(|found| found.route.map(|(_, at)| *at))
}

#[test]
fn the_most_specific_route_wins_whatever_the_order() {
    let routes = ["* /*", "GET /a/{id}", "GET /a/b", "GET /a/*", "/a/b"];
    for (method, path, expected) in [
        ("GET", "/a/b", 2),
        ("POST", "/a/b", 4),
        ("GET", "/a/c", 1),
        ("GET", "/a/c/d", 3),
        ("GET", "/a", 3),
        ("POST", "/a/c", 0),
        ("GET", "/", 0),
        ("HEAD", "/A/B/", 2),
    ] {
        assert_eq!(find(&routes, method, path), Ok(Some(expected)), "{method} {path}");
    }
}

#[test]
fn ambiguous_readings_are_refused_and_harmless_ones_are_not() {
    let routes = ["GET /paid/x", "GET /free/*"];
    assert_eq!(find(&routes, "GET", "/free/a%2Fb"), Ok(Some(1)));
    assert_eq!(find(&routes, "GET", "/free/a;v=1"), Ok(Some(1)));
    assert_eq!(find(&routes, "GET", "/paid%2Fx"), Err(RouteError::AmbiguousPath));
    assert_eq!(find(&routes, "GET", "/paid/x;v=1"), Err(RouteError::AmbiguousPath));
    assert_eq!(find(&routes, "GET", "/paid/%2578"), Err(RouteError::AmbiguousPath));
    assert_eq!(find(&routes, "GET", "/%25252570aid%25252Fx"), Err(RouteError::AmbiguousPath));
}

/// Found by fuzzing: servers that rewrite (Apache's among them) end a path at an encoded question mark.
#[test]
fn an_encoded_query_does_not_hide_a_priced_path() {
    let routes = ["GET /paid/x", "* /*"];
    for path in ["/paid/x%3Fy", "/paid/x%23", "/paid/x%3F/more/of%20it", "/paid/x%253Fy", "/paid%2Fx%3F"] {
        assert_eq!(find(&routes, "GET", path), Err(RouteError::AmbiguousPath), "{path}");
    }
    assert_eq!(find(&routes, "GET", "/free%3Fx"), Ok(Some(1)));
}

/// Found by fuzzing: one malformed encoding must not keep us from seeing the well-formed ones beside it.
#[test]
fn a_stray_percent_sign_hides_nothing() {
    let routes = ["GET /paid/*", "* /*"];
    assert_eq!(find(&routes, "GET", "/x%252F..%252Fpaid%252F%25zz"), Err(PathError::DotSegment.into()));
    assert_eq!(find(&routes, "GET", "/%2570aid/%25zz"), Err(RouteError::AmbiguousPath));
    assert_eq!(find(&routes, "GET", "/%2570aid%25252F%25zz"), Err(RouteError::AmbiguousPath));
    assert_eq!(find(&routes, "GET", "/100%25"), Ok(Some(1)));
}

/// Found by fuzzing: the normal form is the name under which offers are sealed, so two patterns never share one.
#[test]
fn a_patterns_normal_form_is_that_pattern() {
    for (text, shown) in [
        ("GET /a%2Fb", "GET /a%2Fb"),
        ("GET /a%20b/%7Bid%7D", "GET /a%20b/{id}"),
        ("/100%25", "* /100%25"),
        ("/caf\u{e9}", "* /caf\u{e9}"),
        ("/a%3Fb%23c", "* /a%3Fb%23c"),
    ] {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.to_string(), shown);
        assert_eq!(shown.parse::<Pattern>().unwrap(), pattern);
    }
    assert_ne!(
        "/a%2Fb".parse::<Pattern>().unwrap().to_string(),
        "/a/b".parse::<Pattern>().unwrap().to_string()
    );
}

#[test]
fn patterns_say_what_is_wrong_with_them() {
    for bad in [
        "",
        "GET",
        "GET weather",
        "get /x",
        "HEAD /x",
        "OPTIONS /x",
        "GET /a*",
        "GET /*/b",
        "GET /{",
        "GET /{a b}",
        "GET /x y z",
        "GET /../x",
    ] {
        assert!(bad.parse::<Pattern>().is_err(), "{bad}");
    }
    for (text, shown) in [
        ("GET /Weather/", "GET /weather"),
        ("/x", "* /x"),
        ("POST|GET|GET /x/{id}/*", "GET|POST /x/{id}/*"),
        ("* /*", "* /*"),
        ("GET /", "GET /"),
    ] {
        assert_eq!(text.parse::<Pattern>().unwrap().to_string(), shown);
    }
}

#[test]
fn two_routes_for_the_same_requests_are_refused() {
    for (a, b) in [("GET /x/{a}", "GET /X/{b}/"), ("GET|POST /x", "POST|PUT /x"), ("/x/*", "* /x/*")] {
        let routes = vec![(a.parse::<Pattern>().unwrap(), ()), (b.parse().unwrap(), ())];
        assert!(RouteTable::new(routes).is_err(), "{a} and {b}");
    }
}
