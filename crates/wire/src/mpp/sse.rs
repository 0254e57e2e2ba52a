//! Server-sent events of a metered stream.
//!
//! Spec: draft-evm-session-00, "Insufficient Balance During Streaming" and "Receipt Generation"; the format is that of
//! HTML, section 9.2.

use super::{MppError, RECEIPT_LIMITS, Receipt};
use crate::json;
use crate::x402::exact_evm::bytes32;
use crate::x402::fields;
use crate::{Json, Object};

/// The media type of a stream of events.
pub const CONTENT_TYPE: &str = "text/event-stream";
pub const NEED_VOUCHER: &str = "payment-need-voucher";
pub const RECEIPT: &str = "payment-receipt";
const MESSAGE: &str = "message";

/// The longest event that we read, in bytes.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// What was bought. May have several lines.
    Message(String),
    /// The voucher is used up: the stream goes on when a greater one comes.
    NeedVoucher(NeedVoucher),
    /// The last word on the payment.
    Receipt(Receipt),
    /// An event of the application's own.
    Other { event: String, data: String },
}

/// What the server needs to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeedVoucher {
    pub channel_id: [u8; 32],
    /// The least that the next voucher must be worth. Beyond `deposit`, a top-up must come first.
    pub required_cumulative: u128,
    pub accepted_cumulative: u128,
    pub deposit: u128,
    /// What is spent of it: ours, and not in the draft. It tells what is left of the last voucher.
    pub spent: Option<u128>,
}

impl NeedVoucher {
    pub fn from_object(object: &Object) -> Result<Self, MppError> {
        let atoms = |field| Ok::<_, MppError>(fields::atoms(fields::text(object, field)?, field)?);
        Ok(Self {
            channel_id: bytes32(object, "channelId")?,
            required_cumulative: atoms("requiredCumulative")?,
            accepted_cumulative: atoms("acceptedCumulative")?,
            deposit: atoms("deposit")?,
            spent: object.get("spent").map(|_| atoms("spent")).transpose()?,
        })
    }

    pub fn to_object(&self) -> Object {
        Object::new()
            .with("channelId", super::receipt::hex32(&self.channel_id))
            .with("requiredCumulative", self.required_cumulative.to_string())
            .with("acceptedCumulative", self.accepted_cumulative.to_string())
            .with("deposit", self.deposit.to_string())
            .with_some("spent", self.spent.map(|spent| spent.to_string()))
    }
}

impl Event {
    /// Prints the event with the blank line that ends it.
    ///
    /// Each line of the data gets a `data:` of its own, whatever ends it there: what was bought cannot start an event
    /// that it is not. A carriage return therefore arrives as a line feed.
    pub fn print(&self) -> String {
        match self {
            Self::Message(data) => print(MESSAGE, data),
            Self::NeedVoucher(need) => print(NEED_VOUCHER, &need.to_object().to_string()),
            Self::Receipt(receipt) => print(RECEIPT, &receipt.to_object().to_string()),
            Self::Other { event, data } => print(&event.replace(['\r', '\n'], " "), data),
        }
    }

    /// Reads the lines of one event. `None` if there are no data: such an event is not delivered.
    ///
    /// # Errors
    /// [`MppError`] for an event of the payment that cannot be read.
    fn read(event: &str, data: String) -> Result<Self, MppError> {
        match event {
            "" | MESSAGE => Ok(Self::Message(data)),
            NEED_VOUCHER => match json::parse(data.as_bytes(), RECEIPT_LIMITS)? {
                Json::Object(object) => Ok(Self::NeedVoucher(NeedVoucher::from_object(&object)?)),
                _ => Err(MppError::wrong_type(NEED_VOUCHER, "an object")),
            },
            RECEIPT => Ok(Self::Receipt(Receipt::from_json(json::parse(data.as_bytes(), RECEIPT_LIMITS)?)?)),
            other => Ok(Self::Other { event: other.to_owned(), data }),
        }
    }
}

fn print(event: &str, data: &str) -> String {
    let mut out = format!("event: {event}\n");
    let mut rest = data;
    loop {
        let end = rest.find(['\r', '\n']).unwrap_or(rest.len());
        out.push_str("data: ");
        out.push_str(&rest[..end]);
        out.push('\n');
        match rest[end..].strip_prefix("\r\n").or_else(|| rest.get(end + 1..)) {
            Some(next) => rest = next,
            None => break,
        }
    }
    out.push('\n');
    out
}

/// Reads a stream of events piece by piece.
#[derive(Debug, Default)]
pub struct Reader {
    line: Vec<u8>,
    event: String,
    data: String,
    has_data: bool,
    after_cr: bool,
    started: bool,
    failed: bool,
}

impl Reader {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what came next, and gives the events that are now whole.
    ///
    /// # Errors
    /// [`MppError::TooLong`] for an event beyond [`MAX_EVENT_BYTES`]; the stream is then over. An event of the payment
    /// that cannot be read is an `Err` in its place, and the stream goes on.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Result<Event, MppError>>, MppError> {
        let too_long = MppError::TooLong { limit: MAX_EVENT_BYTES };
        if self.failed {
            return Err(too_long);
        }
        let mut events = Vec::new();
        for &byte in bytes {
            let ends = match byte {
                // The second half of a line's end.
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    continue;
                }
                b'\n' | b'\r' => true,
                _ => false,
            };
            self.after_cr = byte == b'\r';
            if ends {
                events.extend(self.end_of_line());
                continue;
            }
            if self.line.len() + self.data.len() + self.event.len() >= MAX_EVENT_BYTES {
                self.failed = true;
                return Err(too_long);
            }
            self.line.push(byte);
        }
        Ok(events)
    }

    fn end_of_line(&mut self) -> Option<Result<Event, MppError>> {
        let bytes = std::mem::take(&mut self.line);
        // Spec: HTML, section 9.2.6: UTF-8, whatever is not being replaced; a mark in front is dropped.
        let text = String::from_utf8_lossy(&bytes);
        let line = if self.started { &*text } else { text.strip_prefix('\u{feff}').unwrap_or(&text) };
        self.started = true;
        if line.is_empty() {
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            return std::mem::take(&mut self.has_data).then(|| Event::read(&event, data));
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                if self.has_data {
                    self.data.push('\n');
                }
                self.data.push_str(value);
                self.has_data = true;
            }
            // Comments, ids, times to wait: none of ours.
            _ => {}
        }
        None
    }
}
