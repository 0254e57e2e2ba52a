use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A host in the one form that we compare: lower case, punycode, no trailing dot, addresses in their usual spelling.
///
/// It prints in that form too, so that a homoglyph is seen for what it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    #[error("not a host: {0:?}")]
    Malformed(String),
}

/// The longest name that DNS carries.
const MAX_HOST_LEN: usize = 253;

fn malformed(text: &str) -> HostError {
    HostError::Malformed(text.chars().take(64).collect())
}

impl Host {
    /// The address, if this is one and not a name.
    pub fn ip(&self) -> Option<IpAddr> {
        let text = self.0.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(&self.0);
        text.parse().ok()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this means the machine itself or its own network by its very spelling.
    pub fn is_local(&self) -> bool {
        match self.ip() {
            Some(ip) => !is_public(ip),
            // Spec: RFC 6761 section 6.3: `localhost` and names below it are loopback.
            None => self.0 == "localhost" || self.0.ends_with(".localhost"),
        }
    }

    /// Whether this is a name below `name`, and not that name itself.
    fn is_below(&self, name: &Self) -> bool {
        let rest = self.as_str().strip_suffix(name.as_str());
        self.ip().is_none() && rest.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
    }

    fn is_loopback(&self) -> bool {
        self.ip().map_or_else(|| self.is_local(), |ip| ip.to_canonical().is_loopback())
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text.is_empty() || text.len() > MAX_HOST_LEN * 4 {
            return Err(malformed(text));
        }
        // `url` maps full-width and other variants to their plain letters, and refuses what no name may contain.
        let parsed = url::Host::parse(text).map_err(|_| malformed(text))?.to_string();
        let name = parsed.strip_suffix('.').unwrap_or(&parsed);
        let is_ip = name.starts_with('[');
        if name.is_empty() || name.len() > MAX_HOST_LEN || (!is_ip && name.split('.').any(str::is_empty)) {
            return Err(malformed(text));
        }
        // No name in DNS has a star, but URLs may; printed, it would read as a pattern for more than itself.
        if name.contains('*') {
            return Err(malformed(text));
        }
        Ok(Self(name.to_owned()))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who is asked: the host and port that a request really goes to, and whether TLS says that it is them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin {
    pub host: Host,
    pub port: u16,
    pub tls: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    #[error("only http and https can be paid for, not {0:?}")]
    Scheme(String),
    #[error("the address has no host")]
    NoHost,
    #[error("the address carries a user name or a password")]
    Credentials,
    #[error(transparent)]
    Host(#[from] HostError),
}

impl Origin {
    pub fn of(url: &url::Url) -> Result<Self, OriginError> {
        let tls = match url.scheme() {
            "https" => true,
            "http" => false,
            other => return Err(OriginError::Scheme(other.chars().take(32).collect())),
        };
        // A credential in a URL ends up in logs and in referrers.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(OriginError::Credentials);
        }
        let host = url.host_str().ok_or(OriginError::NoHost)?.parse()?;
        let port = url.port_or_known_default().ok_or(OriginError::NoHost)?;
        Ok(Self { host, port, tls })
    }

    /// Whether a plain-text request to here stays on the machine.
    pub fn is_loopback(&self) -> bool {
        self.host.is_loopback()
    }

    /// `host:port`, the key under which payees are pinned.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", if self.tls { "https" } else { "http" }, self.host, self.port)
    }
}

/// Which hosts an owner's rule names: one host, one host and port, all below a name, or all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostPattern {
    /// `*`: every public host.
    Any,
    /// `*.example.com`: every name below, not the name itself.
    Below(Host),
    /// `example.com` (any port) or `example.com:8443`.
    Exact(Host, Option<u16>),
}

impl HostPattern {
    pub fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Any => true,
            Self::Below(name) => origin.host.is_below(name),
            Self::Exact(host, port) => *host == origin.host && port.is_none_or(|port| port == origin.port),
        }
    }

    /// Whether every host that `other` names is one that this pattern names.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (Self::Below(name), Self::Below(inner)) => inner == name || inner.is_below(name),
            (Self::Below(name), Self::Exact(host, _)) => host.is_below(name),
            (Self::Exact(..), Self::Below(_)) => false,
            (Self::Exact(host, port), Self::Exact(inner, inner_port)) => {
                host == inner && (port.is_none() || port == inner_port)
            }
        }
    }

    /// Whether the pattern itself spells an address of this machine or its network.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Any => false,
            Self::Below(host) | Self::Exact(host, _) => host.is_local(),
        }
    }
}

impl FromStr for HostPattern {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if let Some(name) = text.strip_prefix("*.") {
            let host: Host = name.parse()?;
            return if host.ip().is_some() { Err(malformed(text)) } else { Ok(Self::Below(host)) };
        }
        let bracketed = text.starts_with('[');
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !bracketed || host.ends_with(']') => {
                let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
                let port = if digits { port.parse::<u16>().ok().filter(|port| *port != 0) } else { None };
                (host, Some(port.ok_or_else(|| malformed(text))?))
            }
            _ => (text, None),
        };
        Ok(Self::Exact(host.parse()?, port))
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Below(host) => write!(f, "*.{host}"),
            Self::Exact(host, None) => write!(f, "{host}"),
            Self::Exact(host, Some(port)) => write!(f, "{host}:{port}"),
        }
    }
}

/// Whether an address is one of the public internet: not this machine, not its network, not a special range, also
/// when a v4 address hides inside a v6 one.
///
/// Spec: the IANA special-purpose address registries (RFC 6890 and its updates).
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = a == 0
        || a == 10
        || a == 127
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 192 && b == 168)
        || (a == 198 && (18..20).contains(&b))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113)
        || a >= 224;
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let low = |hi: u16, lo: u16| {
        let ([a, b], [c, d]) = (hi.to_be_bytes(), lo.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    if let Some(v4) = ip.to_ipv4_mapped() {
        return is_public_v4(v4);
    }
    // NAT64 (RFC 6052) and 6to4 (RFC 3056) lead to the v4 address that they carry.
    if s[..6] == [0x64, 0xff9b, 0, 0, 0, 0] {
        return is_public_v4(low(s[6], s[7]));
    }
    if s[0] == 0x2002 {
        return is_public_v4(low(s[1], s[2]));
    }
    // Only 2000::/3 is handed out; of it, 2001::/23 is for protocols and 2001:db8::/32 and 3fff::/20 for documents.
    let global = s[0] & 0xe000 == 0x2000;
    let special = (s[0] == 0x2001 && (s[1] < 0x200 || s[1] == 0xdb8)) || (s[0] == 0x3fff && s[1] < 0x1000);
    global && !special
}
