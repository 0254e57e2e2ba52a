//! A stream of events, cut where one ends and otherwise left as it is.

use bytes::{Buf, Bytes, BytesMut};
use farthing_wire::mpp::sse::{MAX_EVENT_BYTES, NEED_VOUCHER, RECEIPT};

/// The longest id of an event that a client can come back with, in bytes.
pub const MAX_EVENT_ID_BYTES: usize = 256;
/// What says nothing in front of a stream, and is a part of a field's name elsewhere.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// An event is longer than what is held of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts a stream into events, each with the blank line that ends it.
///
/// Marks in front of an event are left out: which of them its client hears first, and what is said before, is not known
/// here, so that it would read another line than we do.
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
        if self.scanned == 0 {
            while self.buffer.starts_with(MARK) {
                self.buffer.advance(MARK.len());
            }
            // Nothing, or a part of one.
            if MARK.starts_with(&self.buffer) {
                return None;
            }
        }
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
        if self.buffer.is_empty() {
            return None;
        }
        self.buffer.extend_from_slice(b"\n\n");
        let last = self.next();
        // The line was ended, or blank, before.
        self.buffer.clear();
        last
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
    /// It says something of ids, so that its reader has another one.
    pub renames: bool,
}

/// Reads an event with the blank line that ends it.
pub(crate) fn read(raw: &[u8]) -> Event {
    let (mut name, mut data): (&[u8], Option<Vec<u8>>) = (b"", None);
    let mut id = None;
    for line in raw.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let (field, value) = match line.iter().position(|byte| *byte == b':') {
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"event" => name = value,
            // Spec: HTML, section 9.2.6: one with a NUL is as if it were not there.
            b"id" if !value.contains(&0) => id = Some(value),
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
    let renames = id.is_some();
    let id = id.filter(known).map(|id| String::from_utf8_lossy(id).into_owned());
    Event { data, ours: name == NEED_VOUCHER.as_bytes() || name == RECEIPT.as_bytes(), id, renames }
}

/// An event with this id, whatever it says of ids itself: the last word counts.
pub(crate) fn named(raw: &[u8], id: &str) -> Bytes {
    let blank = if raw.ends_with(b"\r\n") { 2 } else { 1 };
    let (lines, blank) = raw.split_at(raw.len().saturating_sub(blank));
    [lines, b"id: ", id.as_bytes(), b"\n", blank].concat().into()
}
