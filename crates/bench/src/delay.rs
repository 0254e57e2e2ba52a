//! A proxy for TCP that holds back what clients say by a fixed time, so that every call to a chain node takes that much
//! longer. Answers pass at once. It reads no HTTP, so it is never what limits a run, and many calls may be on their way.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Pieces that one connection may have waiting; then the client has to wait too.
const WAITING: usize = 256;
const PIECE_BYTES: usize = 64 * 1024;

/// Accepts connections until the process ends.
pub async fn serve(listener: TcpListener, to: String, delay: Duration) -> std::io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            // A connection that breaks is the client's to notice.
            let _ = relay(client, &to, delay).await;
        });
    }
}

async fn relay(client: TcpStream, to: &str, delay: Duration) -> std::io::Result<()> {
    let node = TcpStream::connect(to).await?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (from_client, mut to_client) = client.into_split();
    let (mut from_node, to_node) = node.into_split();
    let (queue, waiting) = mpsc::channel(WAITING);
    let asks = async {
        tokio::try_join!(hear(from_client, queue, delay), say(waiting, to_node))?;
        Ok(())
    };
    let answers = async {
        copy(&mut from_node, &mut to_client).await?;
        to_client.shutdown().await
    };
    tokio::try_join!(asks, answers)?;
    Ok(())
}

type Piece = (Instant, BytesMut);

async fn hear(mut client: OwnedReadHalf, queue: mpsc::Sender<Piece>, delay: Duration) -> std::io::Result<()> {
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        if client.read_buf(&mut piece).await? == 0
            || queue.send((Instant::now() + delay, piece)).await.is_err()
        {
            return Ok(());
        }
    }
}

async fn say(mut waiting: mpsc::Receiver<Piece>, mut node: OwnedWriteHalf) -> std::io::Result<()> {
    while let Some((due, piece)) = waiting.recv().await {
        tokio::time::sleep_until(due).await;
        node.write_all(&piece).await?;
    }
    node.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    // The clock is the test's own: it moves when everybody waits, so a busy machine changes nothing.
    #[tokio::test(start_paused = true)]
    async fn what_is_asked_waits_and_what_is_answered_does_not() {
        const DELAY: Duration = Duration::from_millis(30);
        let node = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (node_at, proxy_at) = (node.local_addr().unwrap(), proxy.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = node.accept().await.unwrap();
            let mut asked = [0u8; 4];
            while stream.read_exact(&mut asked).await.is_ok() {
                stream.write_all(b"pong").await.unwrap();
            }
        });
        tokio::spawn(serve(proxy, node_at.to_string(), DELAY));

        let mut client = TcpStream::connect(proxy_at).await.unwrap();
        let mut answer = [0u8; 4];
        for _ in 0..2 {
            let began = Instant::now();
            client.write_all(b"ping").await.unwrap();
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"pong");
            assert!(began.elapsed() >= DELAY);
        }
        // Two that are asked together wait together.
        let began = Instant::now();
        client.write_all(b"pingping").await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        client.read_exact(&mut answer).await.unwrap();
        assert!(began.elapsed() >= DELAY && began.elapsed() < DELAY * 2);
    }
}
