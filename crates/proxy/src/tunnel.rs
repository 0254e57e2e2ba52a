//! Opaque tunnels: what goes through them is neither read nor paid for.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use farthing_policy::{Origin, is_public};
use farthing_wallet::client::Reach;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};

use crate::Problem;
use crate::turns::open;

/// How long the other end may take to be there.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// For how long nothing may come from either side.
const IDLE: Duration = Duration::from_secs(600);
/// What is read ahead of each side, in bytes.
const BUFFER: usize = 16 * 1024;
/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// Connects to the other end of a tunnel.
///
/// Known attack 31: the addresses that were looked at are those that are connected to.
pub(crate) async fn connect(origin: &Origin, reach: Reach) -> Result<TcpStream, Problem> {
    let found: Vec<SocketAddr> = match origin.host.ip() {
        Some(ip) => vec![SocketAddr::new(ip, origin.port)],
        None => {
            let lookup = tokio::net::lookup_host((origin.host.as_str(), origin.port));
            let found = timeout(CONNECT_WITHIN, lookup).await.map_err(|_| Problem::Timeout)?;
            found.map_err(|error| unreachable(origin, &error))?.collect()
        }
    };
    let allowed = |address: &SocketAddr| reach == Reach::Anywhere || is_public(address.ip());
    let allowed: Vec<SocketAddr> = found.into_iter().filter(allowed).take(MAX_ADDRESSES).collect();
    if allowed.is_empty() {
        return Err(Problem::HostPrivate(origin.host.to_string()));
    }
    let stream = timeout(CONNECT_WITHIN, TcpStream::connect(&allowed[..])).await;
    let stream = stream.map_err(|_| Problem::Timeout)?.map_err(|error| unreachable(origin, &error))?;
    // What goes through is often small, and waited for.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

fn unreachable(origin: &Origin, error: &std::io::Error) -> Problem {
    Problem::Unreachable { host: origin.host.to_string(), cause: error.to_string() }
}

/// Carries bytes in both directions until both sides have ended, one of them breaks off, or nothing comes any more.
pub(crate) async fn carry(
    near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
) {
    carry_within(near, far, IDLE).await;
}

async fn carry_within(
    near: impl AsyncRead + AsyncWrite + Unpin,
    far: impl AsyncRead + AsyncWrite + Unpin,
    idle: Duration,
) {
    let seen = Mutex::new(Instant::now());
    let (near_read, near_write) = tokio::io::split(near);
    let (far_read, far_write) = tokio::io::split(far);
    let both =
        async { tokio::try_join!(pump(near_read, far_write, &seen), pump(far_read, near_write, &seen)) };
    let silence = async {
        loop {
            let until = *open(&seen) + idle;
            if Instant::now() >= until {
                return;
            }
            sleep_until(until).await;
        }
    };
    tokio::select! {
        // How it ended is told to nobody: the bytes are not ours.
        _ = both => {}
        () = silence => tracing::debug!("a tunnel was closed: nothing came through it"),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    seen: &Mutex<Instant>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
        *open(seen) = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn bytes_go_both_ways_until_both_have_ended() {
        let ((mut program, near), (far, mut seller)) = (duplex(64), duplex(64));
        let tunnel = tokio::spawn(carry(near, far));
        program.write_all(b"hello").await.unwrap();
        program.shutdown().await.unwrap();
        let mut heard = String::new();
        seller.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "hello");
        // The other direction is still open.
        seller.write_all(b"and back").await.unwrap();
        drop(seller);
        heard.clear();
        program.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "and back");
        tunnel.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_through_which_nothing_comes_is_closed() {
        let ((mut program, near), (far, mut seller)) = (duplex(64), duplex(64));
        let began = Instant::now();
        let tunnel = tokio::spawn(carry(near, far));
        tokio::time::sleep(IDLE / 2).await;
        program.write_all(b"x").await.unwrap();
        seller.read_u8().await.unwrap();
        tunnel.await.unwrap();
        assert!(began.elapsed() >= IDLE * 3 / 2, "{:?}", began.elapsed());
        assert_eq!(seller.read(&mut [0]).await.unwrap(), 0);
    }

    /// Known attack 31: a program, or what talked it into it, asks for this machine's own network.
    #[tokio::test]
    async fn attack_31_a_tunnel_does_not_lead_to_this_machines_network() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "169.254.169.254"] {
            let origin = Origin { host: host.parse().unwrap(), port, tls: true };
            let refused = connect(&origin, Reach::Public).await;
            assert_eq!(refused.unwrap_err().code(), "host_private", "{host}");
        }
        let origin = Origin { host: "127.0.0.1".parse().unwrap(), port, tls: true };
        connect(&origin, Reach::Anywhere).await.unwrap();
    }
}
