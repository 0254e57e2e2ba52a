//! The seller's side: a tower layer that asks for payment, takes it, and only then lets an answer through.
//!
//! [`PaywallLayer`] stands in front of any HTTP service. It matches requests to routes ([`RouteTable`]), asks for the
//! route's [`Price`] in both versions of x402, checks what payers show, and leaves the sale to a [`Seller`] (the
//! engine). It reads no files and opens no sockets.

mod admit;
mod answer;
mod body;
mod clock;
mod cors;
mod hash;
mod headers;
mod limit;
mod offer;
mod path;
mod paywall;
mod price;
mod route;
mod seller;
mod service;
mod session;
mod socket;
mod upstream;

#[cfg(test)]
mod tests;

pub use answer::{RETRY_PENDING_SECS, RETRY_UNAVAILABLE_SECS, STATUS_PATH};
pub use body::{BoxError, ClientExit, PaywallBody};
pub use cors::Cors;
pub use farthing_rails::method::MethodOffer;
pub use headers::{
    X_FARTHING_AMOUNT, X_FARTHING_ASSET, X_FARTHING_NETWORK, X_FARTHING_PAYER, X_FARTHING_PAYMENT,
    X_FARTHING_REPLAYED, X_FARTHING_STATUS, strip_hop_by_hop,
};
pub use limit::{MAX_CLIENTS, Rate};
pub use path::{MAX_PATH_LEN, MAX_SEGMENTS, PathError, RequestPath};
pub use paywall::{Limits, MAX_OLD_TABLES, Mpp, Paywall, Terms, Unmatched};
pub use price::{
    Amount, DEFAULT_MAX_REQUEST, DEFAULT_MAX_RESPONSE, DEFAULT_MAX_TIMEOUT, DEFAULT_UPSTREAM_TIMEOUT,
    HookError, MAX_WAYS, Offer, Paid, Price, PriceError, PriceHook, Quote, QuoteRequest, Route, Way,
    price_fn, price_fn_of,
};
pub use route::{MAX_ROUTES, Match, Pattern, PatternError, RouteError, RouteTable, TableError};
pub use seller::Seller;
pub use service::{ClientAddr, ClientScheme, MAX_PAID_TARGET, MatchedRoute, PaywallLayer, PaywallService};
pub use session::events::MAX_EVENT_ID_BYTES;
pub use session::resume::{
    MAX_REPLAYED_BYTES, MAX_REPLAYED_EVENTS, MAX_RESUMABLE, MAX_RESUMABLE_OF_CHANNEL, RESUME_WITHIN,
};
pub use session::socket::{
    MAX_QUEUED_BYTES, SOCKET_FAREWELL, SOCKET_HANDSHAKE, SOCKET_IDLE, SOCKET_LINGER, SOCKET_PING_EVERY,
    SOCKET_PING_WITHIN, SOCKET_SILENCE, SOCKET_STALL,
};
pub use session::{
    Count, CountError, DEFAULT_HOLDS, DEFAULT_PATIENCE, MAX_JSON_PATH, Session, SessionError, SessionTerms,
};
pub use socket::{
    AcceptedSocket, ConnectError, ConnectedSocket, OpenSocket, SocketClose, SocketError, SocketMessage,
    SocketRead, SocketWrite, Sockets, WebSocket,
};
pub use upstream::{MAX_RESPONSE_HEADERS, Unframed};
