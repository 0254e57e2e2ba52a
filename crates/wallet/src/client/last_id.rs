//! The id of the last event of a stream that arrived whole: by it a stream that broke off is asked to go on.

/// The longest id that is shown again, in bytes.
const MAX_ID_BYTES: usize = 256;
/// What is looked at of a line: the name of its field, and such an id.
const MAX_LINE_BYTES: usize = MAX_ID_BYTES + 8;

/// Reads a stream beside whoever reads its events.
///
/// Spec: HTML, sections 9.2.4 and 9.2.6: an id counts once its event is whole.
#[derive(Debug, Default)]
pub(super) struct LastId {
    line: Vec<u8>,
    after_cr: bool,
    /// Whether a line came, before which a mark may stand that says nothing.
    started: bool,
    /// Of the event that is not whole yet.
    next: Option<String>,
    last: Option<String>,
}

impl LastId {
    pub fn get(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Another connection goes on after the last whole event.
    pub fn go_on(&mut self) {
        *self = Self { last: self.last.take(), ..Self::default() };
        self.next.clone_from(&self.last);
    }

    pub fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let second_half = byte == b'\n' && self.after_cr;
            self.after_cr = byte == b'\r';
            match byte {
                b'\n' if second_half => {}
                b'\n' | b'\r' => self.end_of_line(),
                byte if self.line.len() <= MAX_LINE_BYTES => self.line.push(byte),
                // A longer line holds no id that could be shown, and with a NUL none at all.
                0 if self.line.len() == MAX_LINE_BYTES + 1 => self.line.push(byte),
                _ => {}
            }
        }
    }

    fn end_of_line(&mut self) {
        let line = std::mem::take(&mut self.line);
        let first = !std::mem::replace(&mut self.started, true);
        let mark = "\u{feff}".as_bytes();
        let line = line.strip_prefix(mark).filter(|_| first).unwrap_or(&line);
        let id = match line {
            [] => return self.last.clone_from(&self.next),
            b"id" => &[],
            line => match line.strip_prefix(b"id:") {
                Some(id) => id.strip_prefix(b" ").unwrap_or(id),
                None => return,
            },
        };
        // Spec: HTML, section 9.2.6: as if it were not there.
        if id.contains(&0) {
            return;
        }
        let fits = id.len() <= MAX_ID_BYTES && id.iter().all(|byte| matches!(byte, b' '..=b'~'));
        // One that cannot be shown leads nowhere.
        self.next = fits.then(|| String::from_utf8_lossy(id).into_owned()).filter(|id| !id.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_counts_once_its_event_is_whole() {
        let mut id = LastId::default();
        let mut check = |text: &str, expected: Option<&str>| {
            id.push(text.as_bytes());
            assert_eq!(id.get(), expected, "{text:?}");
        };
        check("id: 1\ndata: a\n", None);
        check("\n", Some("1"));
        check("data: b\r\n\r\n", Some("1"));
        check("id:2\rdata: c\r\r", Some("2"));
        check(&format!("id: {}\n\n", "x".repeat(300)), None);
        check("id: 2\n\nid: a\0\n\n", Some("2"));
        check(&format!("id: {}\0\n\n", "x".repeat(300)), Some("2"));
        check("id\n\n", None);
        check("id: 3\n\nid: 4\nda", Some("3"));
        id.go_on();
        let mut check = |text: &str, expected: Option<&str>| {
            id.push(text.as_bytes());
            assert_eq!(id.get(), expected, "{text:?}");
        };
        check("data: d\n\n", Some("3"));
        // A mark in front of a stream, and only there, says nothing.
        id.go_on();
        for (text, expected) in [("\u{feff}id: 5\n\n", "5"), ("\u{feff}id: 6\n\n", "5")] {
            id.push(text.as_bytes());
            assert_eq!(id.get(), Some(expected), "{text:?}");
        }
    }
}
