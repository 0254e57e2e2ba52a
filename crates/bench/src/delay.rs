//! A proxy for TCP that holds back what clients say by a fixed time, so that every call to a chain node takes that much
//! longer. Answers pass at once. It reads no HTTP, so it is never what limits a run, and many calls may be on their way.
//!
//! Threads, not tasks: the system wakes a thread within a tenth of a millisecond of its time, an asynchronous timer
//! within one or two.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

/// Pieces that one connection may have waiting; then the client has to wait too.
const WAITING: usize = 256;
const PIECE_BYTES: usize = 64 * 1024;

/// Accepts connections until the process ends.
pub fn serve(listener: &TcpListener, to: &str, delay: Duration) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept()?;
        // A connection that cannot be made, or breaks, is the client's to notice.
        let _ = relay(client, to, delay);
    }
}

fn relay(client: TcpStream, to: &str, delay: Duration) -> io::Result<()> {
    let node = TcpStream::connect(to)?;
    client.set_nodelay(true)?;
    node.set_nodelay(true)?;
    let (mut to_client, mut from_node) = (client.try_clone()?, node.try_clone()?);
    let (queue, waiting) = sync_channel(WAITING);
    thread::spawn(move || hear(client, &queue, delay));
    thread::spawn(move || say(&waiting, node));
    thread::spawn(move || {
        let _ = io::copy(&mut from_node, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    Ok(())
}

type Piece = (Instant, Vec<u8>);

fn hear(mut client: TcpStream, queue: &SyncSender<Piece>, delay: Duration) {
    let mut buffer = vec![0; PIECE_BYTES];
    while let Ok(read @ 1..) = client.read(&mut buffer) {
        if queue.send((Instant::now() + delay, buffer[..read].to_vec())).is_err() {
            return;
        }
    }
}

fn say(waiting: &Receiver<Piece>, mut node: TcpStream) {
    while let Ok((due, piece)) = waiting.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if node.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = node.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_waits_and_what_is_on_its_way_waits_together() {
        const DELAY: Duration = Duration::from_millis(20);
        const TOGETHER: u32 = 50;
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (node_at, proxy_at) = (node.local_addr().unwrap(), proxy.local_addr().unwrap());
        thread::spawn(move || {
            let (mut stream, _) = node.accept().unwrap();
            let mut echo = stream.try_clone().unwrap();
            io::copy(&mut stream, &mut echo)
        });
        thread::spawn(move || serve(&proxy, &node_at.to_string(), DELAY));

        let mut client = TcpStream::connect(proxy_at).unwrap();
        client.set_nodelay(true).unwrap();
        let mut answer = [0u8; 4];
        let began = Instant::now();
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
        assert!(began.elapsed() >= DELAY);

        let began = Instant::now();
        for _ in 0..TOGETHER {
            client.write_all(b"ping").unwrap();
        }
        for _ in 0..TOGETHER {
            client.read_exact(&mut answer).unwrap();
        }
        assert!(began.elapsed() >= DELAY && began.elapsed() < DELAY * TOGETHER);
    }

    #[test]
    fn an_end_is_passed_on() {
        let node = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (node_at, proxy_at) = (node.local_addr().unwrap(), proxy.local_addr().unwrap());
        thread::spawn(move || serve(&proxy, &node_at.to_string(), Duration::ZERO));
        let mut client = TcpStream::connect(proxy_at).unwrap();
        client.write_all(b"bye").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut heard = Vec::new();
        node.accept().unwrap().0.read_to_end(&mut heard).unwrap();
        assert_eq!(heard, b"bye");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert!(rest.is_empty());
    }
}
