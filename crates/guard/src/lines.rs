use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// How much is read at once.
const PIECE: usize = 16 * 1024;

/// Why no line came.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    #[error("a line is longer than {0} bytes")]
    TooLong(usize),
    #[error("a line was begun and not ended in time")]
    Slow,
    #[error("the connection ended in the middle of a line")]
    Cut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Reads lines of a bounded length, each of which has to end a while after it began.
pub(crate) struct Lines<R> {
    from: R,
    read: Vec<u8>,
    /// How much of what was read has no newline.
    looked_at: usize,
    longest: usize,
    patience: Duration,
    /// When the line that is being read began.
    begun: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub fn new(from: R, longest: usize, patience: Duration) -> Self {
        Self { from, read: Vec::new(), looked_at: 0, longest, patience, begun: None }
    }

    /// The next line without its newline; `None` at the end. It may be dropped at any time and called again.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, LineError> {
        loop {
            if let Some(at) = self.read[self.looked_at..].iter().position(|byte| *byte == b'\n') {
                let end = self.looked_at + at;
                if end > self.longest {
                    return Err(LineError::TooLong(self.longest));
                }
                let rest = self.read.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.read, rest);
                line.pop();
                self.looked_at = 0;
                self.begun = None;
                return Ok(Some(line));
            }
            self.looked_at = self.read.len();
            if self.read.len() > self.longest {
                return Err(LineError::TooLong(self.longest));
            }
            let mut piece = [0u8; PIECE];
            // Whoever says nothing may wait; whoever begins has to end, however slowly the bytes come.
            let got = if self.read.is_empty() {
                self.from.read(&mut piece).await?
            } else {
                let end = *self.begun.get_or_insert_with(Instant::now) + self.patience;
                let reading = tokio::time::timeout_at(end, self.from.read(&mut piece));
                reading.await.map_err(|_| LineError::Slow)??
            };
            match got {
                0 if self.read.is_empty() => return Ok(None),
                0 => return Err(LineError::Cut),
                n => self.read.extend_from_slice(&piece[..n]),
            }
        }
    }
}
