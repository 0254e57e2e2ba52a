//! A stream of events, cut where one ends and otherwise left as it is.

use super::resume::MAX_EVENT_ID_BYTES;
use bytes::{Bytes, BytesMut};
use farthing_wire::mpp::sse::{MAX_EVENT_BYTES, NEED_VOUCHER, RECEIPT};

/// An event is longer than what is held of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts a stream into events, each with the blank line that ends it.
///
/// Spec: HTML, section 9.2.5: a line ends with CRLF, LF or CR.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// Up to where no event ends.
    scanned: usize,
    /// Where the line begins that `scanned` is in.
    line: usize,
}

impl Splitter {
    /// Takes what came next.
    ///
    /// # Errors
    /// [`TooLong`] once more than [`MAX_EVENT_BYTES`] wait for their end.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        // What came in one piece may hold many events; only what is left of the piece before is held.
        if self.buffer.len() > MAX_EVENT_BYTES {
            return Err(TooLong);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// How many bytes wait.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next whole event.
    pub fn next(&mut self) -> Option<Bytes> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            let end = match byte {
                b'\n' => self.scanned + 1,
                b'\r' => match self.buffer.get(self.scanned + 1) {
                    Some(b'\n') => self.scanned + 2,
                    Some(_) => self.scanned + 1,
                    // Whether it is a line's whole end shows with the next byte.
                    None => return None,
                },
                _ => {
                    self.scanned += 1;
                    continue;
                }
            };
            let blank = self.line == self.scanned;
            (self.scanned, self.line) = (end, end);
            if blank {
                (self.scanned, self.line) = (0, 0);
                return Some(self.buffer.split_to(end).freeze());
            }
        }
        None
    }

    /// What is left when nothing comes any more, ended as an event is.
    pub fn rest(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.buffer);
        (self.scanned, self.line) = (0, 0);
        if rest.is_empty() {
            return None;
        }
        let mut whole = rest;
        whole.extend_from_slice(b"\n\n");
        Some(whole.freeze())
    }
}

/// What an event is, as far as its price goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// Its data, if it has any. One without is not delivered to anybody, and costs nothing.
    pub data: Option<Vec<u8>>,
    /// It has a name that only we may give.
    pub ours: bool,
    /// The last id in it, if a client can come back with it.
    pub id: Option<String>,
}

/// Reads an event with the blank line that ends it.
pub(crate) fn read(raw: &[u8]) -> Event {
    let (mut name, mut data): (&[u8], Option<Vec<u8>>) = (b"", None);
    let mut id = None;
    let raw = raw.strip_prefix("\u{feff}".as_bytes()).unwrap_or(raw);
    for line in raw.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value,
            b"id" => id = Some(value),
            b"data" => match &mut data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                None => data = Some(value.to_vec()),
            },
            _ => {}
        }
    }
    let known = |id: &&[u8]| {
        !id.is_empty() && id.len() <= MAX_EVENT_ID_BYTES && id.iter().all(|byte| matches!(byte, b' '..=b'~'))
    };
    let id = id.filter(known).map(|id| String::from_utf8_lossy(id).into_owned());
    Event { data, ours: name == NEED_VOUCHER.as_bytes() || name == RECEIPT.as_bytes(), id }
}
