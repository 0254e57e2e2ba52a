//! Whom a request is for, by its first line.

use farthing_policy::{Host, Origin};
use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};
use url::Url;

use crate::Problem;

/// The longest address that is asked for, in bytes. More is 414 (RFC 9110 section 15.5.15).
pub(crate) const MAX_URL_BYTES: usize = 16 * 1024;

/// The address of a request that came in absolute form.
///
/// Spec: RFC 9112 section 3.2.2: a request to a proxy, other than CONNECT, names the whole address.
pub(crate) fn absolute(uri: &Uri) -> Result<Url, Problem> {
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => url(&uri.to_string()),
        Some(_) => Err(Problem::BadTarget("only http and https are asked for")),
        // Also what a web page makes a browser send here: it cannot choose this form.
        None => Err(Problem::NotForAProxy),
    }
}

/// The address of a request within a CONNECT to `origin`.
pub(crate) fn within(origin: &Origin, uri: &Uri) -> Result<Url, Problem> {
    // Spec: RFC 9112 section 3.2.2: a server takes the absolute form too.
    if let Some(authority) = uri.authority()
        && !names(origin, authority.as_str())
    {
        return Err(Problem::Misdirected);
    }
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    if !path.starts_with('/') {
        return Err(Problem::BadTarget("the address has no path"));
    }
    url(&format!("{origin}{path}"))
}

fn url(text: &str) -> Result<Url, Problem> {
    if text.len() > MAX_URL_BYTES {
        return Err(Problem::TooLongTarget);
    }
    text.parse().map_err(|_| Problem::BadTarget("the address cannot be read"))
}

/// Where a CONNECT leads.
///
/// Spec: RFC 9112 section 3.2.3: host and port, and both are there.
pub(crate) fn authority(uri: &Uri) -> Result<Origin, Problem> {
    const WRONG: Problem = Problem::BadTarget("CONNECT names a host and a port");
    let authority = uri.authority().filter(|_| uri.scheme().is_none() && uri.path_and_query().is_none());
    let authority = authority.ok_or(WRONG)?;
    // A user's name is for origins, and never for a tunnel.
    if authority.as_str().contains('@') {
        return Err(WRONG);
    }
    let port = authority.port_u16().filter(|port| *port != 0).ok_or(WRONG)?;
    let host: Host = authority.host().parse().map_err(|_| WRONG)?;
    Ok(Origin { host, port, tls: true })
}

/// Whether a `Host` names this origin.
///
/// Spec: RFC 9110 section 7.4: a request that is for somebody else is not answered on this connection.
pub(crate) fn names(origin: &Origin, host: &str) -> bool {
    // Spec: RFC 9110 section 7.2: a host and a port, and nothing else.
    let Some(authority) =
        host.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'))
    else {
        return false;
    };
    let scheme = if origin.tls { "https" } else { "http" };
    let meant = format!("{scheme}://{authority}/").parse::<Url>().ok().and_then(|url| Origin::of(&url).ok());
    meant.as_ref() == Some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn only_whole_addresses_of_http_are_asked_for() {
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = absolute(&uri(text));
            let found = found.as_ref().map(Url::as_str).map_err(Problem::code);
            assert_eq!(found, expected, "{text}");
        };
        check("http://a.example/b?c=%2F", Ok("http://a.example/b?c=%2F"));
        check("http://a.example", Ok("http://a.example/"));
        check("https://a.example:8443/", Ok("https://a.example:8443/"));
        check("ftp://a.example/", Err("bad_target"));
        check("/b", Err("not_a_proxy_request"));
        check("*", Err("not_a_proxy_request"));
        check(&format!("http://a.example/{}", "x".repeat(MAX_URL_BYTES)), Err("target_too_long"));
    }

    #[test]
    fn a_connect_names_host_and_port() {
        let check = |text: &str, expected: Option<(&str, u16)>| {
            let found = authority(&uri(text)).ok();
            let found = found.as_ref().map(|origin| (origin.host.as_str(), origin.port));
            assert_eq!(found, expected, "{text}");
        };
        check("a.example:443", Some(("a.example", 443)));
        check("A.Example.:8443", Some(("a.example", 8443)));
        check("[::1]:443", Some(("[::1]", 443)));
        check("127.1:443", Some(("127.0.0.1", 443)));
        check("a.example:0", None);
        check("a.example", None);
        check("user@a.example:443", None);
        check("http://a.example:443/", None);
        check("/", None);
    }

    #[test]
    fn within_a_connect_nobody_else_is_asked() {
        let origin = authority(&uri("a.example:443")).unwrap();
        let check = |text: &str, expected: Result<&str, &str>| {
            let found = within(&origin, &uri(text));
            assert_eq!(found.as_ref().map(Url::as_str).map_err(Problem::code), expected, "{text}");
        };
        check("/b?c", Ok("https://a.example/b?c"));
        check("//evil.example/b", Ok("https://a.example//evil.example/b"));
        check("https://a.example/b", Ok("https://a.example/b"));
        check("https://b.example/b", Err("misdirected"));
        check("*", Err("bad_target"));
        assert!(names(&origin, "a.example"));
        assert!(names(&origin, "A.example:443"));
        for other in ["b.example", "a.example:8443", "a.example@b.example", "", "a.example/x", "x@a.example"]
        {
            assert!(!names(&origin, other), "{other}");
        }
    }
}
