use std::sync::Arc;
use std::time::Duration;

use farthing_wallet::journal::agents::Credential;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, WriteHalf};
use tokio::sync::{Mutex, Semaphore};

use crate::agent::Agent;
use crate::guard::Guard;
use crate::lines::{LineError, Lines};
use crate::protocol::{
    Answering, HELLO_PATIENCE, Hello, LINE_PATIENCE, MAX_IN_FLIGHT, MAX_LINE_BYTES, Refusal, VERSION,
    Welcome, parse,
};

/// How long a peer may take to read an answer.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// Who is at the other end, as the connection itself says.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Tells peers apart whose wrong tokens are counted, e.g. `uid:1000`.
    pub key: String,
    /// The hash of its certificate, if it showed one that our own authority signed.
    pub certificate: Option<Credential>,
}

type Writer<S> = Arc<Mutex<WriteHalf<S>>>;

/// Serves one connection until it ends. What was begun by then is ended.
pub async fn serve<S>(guard: Guard, stream: S, peer: Peer)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(stream);
    let mut lines = Lines::new(from, MAX_LINE_BYTES, LINE_PATIENCE);
    let to = Arc::new(Mutex::new(to));
    let hello = tokio::time::timeout(HELLO_PATIENCE, lines.next()).await;
    let (agent, present) = match hello {
        Ok(Ok(Some(line))) => match welcome(&guard, &line, &peer, &to).await {
            Some(admitted) => admitted,
            None => return,
        },
        Ok(Err(error)) => return refuse(&to, None, &unreadable(&error)).await,
        Ok(Ok(None)) | Err(_) => return,
    };
    let agent = Arc::new(agent);
    tracing::debug!(agent = %agent.name(), peer = %peer.key, "a front is connected");
    let places = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    loop {
        // Nothing is read beyond what is worked on.
        let Ok(place) = places.clone().acquire_owned().await else { break };
        let line = match lines.next().await {
            Ok(Some(line)) => line,
            Ok(None) => break,
            Err(error) => {
                refuse(&to, None, &unreadable(&error)).await;
                break;
            }
        };
        let (id, what, with) = match parse(&line) {
            Ok(asked) => asked,
            // Whoever writes what is no request would be answered at random.
            Err(refusal) => {
                refuse(&to, None, &refusal).await;
                break;
            }
        };
        let (agent, to) = (agent.clone(), to.clone());
        tokio::spawn(async move {
            match agent.answer(&what, with.as_deref()).await {
                Ok(ok) => write(&to, &Answering { id: Some(id), ok: Some(&ok), error: None }).await,
                Err(refusal) => refuse(&to, Some(id), &refusal).await,
            }
            drop(place);
        });
    }
    // INVARIANT: the front is there until the last thing is done that it asked for.
    let all = u32::try_from(MAX_IN_FLIGHT).unwrap_or(u32::MAX);
    let _ = places.acquire_many(all).await;
    drop(present);
}

/// Answers the first line, and says who it is that may go on.
async fn welcome<S: AsyncWrite + Send>(
    guard: &Guard,
    line: &[u8],
    peer: &Peer,
    to: &Writer<S>,
) -> Option<(Agent, crate::front::Present)> {
    let (id, what, with) = match parse(line) {
        Ok(asked) => asked,
        Err(refusal) => {
            refuse(to, None, &refusal).await;
            return None;
        }
    };
    let hello = match (what.as_str(), with) {
        ("hello", Some(with)) => serde_json::from_str::<Hello>(with.get()).map_err(Refusal::malformed),
        _ => Err(Refusal::new("hello_first", "a connection begins with a hello")),
    };
    let admitted = match hello {
        Ok(hello) => guard.admit(&hello, peer).await,
        Err(refusal) => Err(refusal),
    };
    match admitted {
        Ok((agent, present)) => {
            let said = Welcome {
                version: VERSION,
                agent: agent.name().to_string(),
                payer: agent.payer().to_string(),
            };
            write(to, &Answering { id: Some(id), ok: Some(&said), error: None }).await;
            Some((agent, present))
        }
        Err(refusal) => {
            tracing::info!(peer = %peer.key, code = refusal.code, "a front is not let in");
            refuse(to, Some(id), &refusal).await;
            None
        }
    }
}

fn unreadable(error: &LineError) -> Refusal {
    Refusal::malformed(error)
}

async fn refuse<S: AsyncWrite + Send>(to: &Writer<S>, id: Option<u64>, refusal: &Refusal) {
    write(to, &Answering::<()> { id, ok: None, error: Some(refusal) }).await;
}

async fn write<S: AsyncWrite + Send, T: Serialize>(to: &Writer<S>, answer: &Answering<'_, T>) {
    let Ok(mut line) = serde_json::to_vec(answer) else { return };
    line.push(b'\n');
    let mut to = to.lock().await;
    let written = tokio::time::timeout(WRITE_PATIENCE, async {
        to.write_all(&line).await?;
        to.flush().await
    });
    // Whoever does not listen loses its connection, and asks again what became of it.
    if !matches!(written.await, Ok(Ok(()))) {
        let _ = to.shutdown().await;
    }
}
