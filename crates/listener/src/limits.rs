use std::time::Duration;

/// The most headers of a request over HTTP/1.1; more are 431. Over HTTP/2 their bytes are counted.
pub const MAX_HEADERS: usize = 128;
/// How many requests one HTTP/2 connection may have under way.
pub const MAX_STREAMS: u32 = 256;
/// What one HTTP/2 request may send before we have read it, in bytes: what a stranger can have us hold for a request.
pub const STREAM_WINDOW: u32 = 128 * 1024;
/// The same for a whole HTTP/2 connection.
pub const WINDOW: u32 = 256 * 1024;
/// What we hold of each HTTP/2 answer for a client that does not take it, in bytes, beside the answer itself.
pub const MAX_SEND_BUFFER: usize = 64 * 1024;
/// How many HTTP/2 requests may be taken back before we have looked at them; more end the connection (CVE-2023-44487).
pub const MAX_PENDING_RESETS: usize = 20;
/// How often a silent HTTP/2 connection is asked whether it lives, and how long its answer may take.
pub const PING_EVERY: Duration = Duration::from_secs(30);
pub const PING_WITHIN: Duration = Duration::from_secs(20);
/// The longest piece of an answer that is handed out at once, so that one that nobody takes shows as such.
pub const MAX_FRAME_OF_ANSWER: usize = 64 * 1024;

/// Bounds on connections. `Default` is for a service that anybody can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Open connections, of all peers. For one more, an idle one is closed: one that never asked for anything before
    /// others, and then one of the peer with the most of them.
    pub max_connections: usize,
    /// Open connections of one peer: an IPv4 address, or an IPv6 /64. For one more, its longest idle one is closed.
    pub max_per_peer: usize,
    /// The most bytes of a request's head.
    pub max_head_bytes: usize,
    /// For the TLS handshake, for the first request, for each head, and between two requests over HTTP/1.1.
    pub head_timeout: Duration,
    /// For how long an HTTP/2 connection may be open with nothing asked.
    pub idle_timeout: Duration,
    /// For how long a client may keep us waiting for the body that it sends, or for room for the answer that it gets.
    pub stall_timeout: Duration,
    /// How many bytes a second buy a slow client more time than that; 0: none are needed to go on for ever.
    pub min_rate: u32,
    /// For how long connections may end what is under way when the service stops.
    pub shutdown_timeout: Duration,
    /// Whether a client may close its side over HTTP/1.1 and still get its answer. If not, its request is dropped then.
    pub half_close: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_per_peer: 1_000,
            max_head_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
            min_rate: 1024,
            shutdown_timeout: Duration::from_secs(60),
            half_close: true,
        }
    }
}

impl Limits {
    /// How much longer a client may keep us waiting for having sent or taken so many bytes.
    pub(crate) fn bought_by(&self, bytes: u64) -> Duration {
        match u64::from(self.min_rate) {
            // Any progress at all starts the time anew.
            0 => self.stall_timeout,
            rate => Duration::from_millis(bytes.saturating_mul(1000).checked_div(rate).unwrap_or(u64::MAX)),
        }
    }
}
