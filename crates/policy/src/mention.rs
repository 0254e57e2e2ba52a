//! Names of whom a payment could go to, in what somebody else wrote: hosts and payees. An agent that reads "pay at evil.example"
//! and then does so was told to by a stranger, which is for its owner to know.
//!
//! What is read is read widely: a name that is none does no harm, and one that is missed does. What does not fit is not
//! forgotten quietly either, see [`Names::is_cut`].

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use farthing_primitives::{Address, Network};

use crate::Host;

/// How much of one answer is read, in bytes.
pub const MAX_NAMED_BYTES: usize = 8 * 1024 * 1024;
/// How many names of one answer are kept.
pub const MAX_NAMES: usize = 8_192;
/// The longest text that says who named something, in characters.
pub const MAX_NAMED_BY_CHARS: usize = 200;

/// How many different words may look like names, and be none.
const MAX_WORDS: usize = 8 * MAX_NAMES;
/// The longest name that is tried, in bytes: what DNS carries, as it may be written.
const MAX_NAME_BYTES: usize = 253;
/// How often what is written in escapes is read again.
const ROUNDS: usize = 3;
/// How much work one answer makes at most, in bytes that are looked at to tell whether they name a host: so many times what
/// is read, and some more for what is short.
const WORK_PER_BYTE: usize = 64;
const LEAST_WORK: usize = 4 * 1024 * 1024;
/// The marks that Markdown puts around what it stresses.
const STRESS: [char; 2] = ['_', '*'];

/// What a payment goes by, and who named it first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mention {
    pub what: Named,
    /// `host:port` of whoever wrote it, and the tool, if it was one: see [`named_by`].
    pub by: String,
}

/// Which part of a payment was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The host that is asked.
    Host(Host),
    Payee(Address),
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "the host {host}"),
            Self::Payee(payee) => write!(f, "the payee {payee}"),
        }
    }
}

/// What a policy says of payments to whom something else named first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Taint {
    /// They are payments like others, and nobody keeps what was named.
    Off,
    /// They wait for people.
    #[default]
    Ask,
    /// They are not made.
    Deny,
}

/// Who named something, in one line that moves no cursor: `author`, which is `host:port`, and the tool, if it was one.
pub fn named_by(author: &str, tool: Option<&str>) -> String {
    let words = [Some(author), tool].into_iter().flatten().map(|word| {
        let plain = |c: char| if c.is_ascii_graphic() { c } else { '?' };
        word.chars().take(MAX_NAMED_BY_CHARS / 2 - 1).map(plain).collect::<String>()
    });
    words.collect::<Vec<_>>().join(" ")
}

/// The names in one answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    pub hosts: BTreeSet<Host>,
    pub payees: BTreeSet<Address>,
    cut: bool,
    bytes: usize,
    /// How many bytes were looked at for hosts.
    work: usize,
    /// What was tried.
    words: HashSet<String>,
}

impl Names {
    /// The names in `text`.
    pub fn of(text: &str) -> Self {
        let mut names = Self::default();
        names.read(text);
        names
    }

    /// Whether there were more than are kept, or more was written than is read.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    /// Says that there was more than is here.
    pub fn cut(&mut self) {
        self.cut = true;
    }

    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.payees.is_empty() && !self.cut
    }

    /// Adds the names in `text`, as it stands, and as it reads once its escapes and what nobody sees are gone.
    pub fn read(&mut self, text: &str) {
        let room = MAX_NAMED_BYTES.saturating_sub(self.bytes);
        self.cut |= text.len() > room;
        let text = &text[..text.floor_char_boundary(room)];
        self.bytes = self.bytes.saturating_add(text.len());
        let mut now = text.to_owned();
        for round in 0..=ROUNDS {
            // What is lost already is lost: nothing is gained by reading on.
            if self.cut {
                return;
            }
            self.scan(&now);
            let seen = seen(&now);
            if seen != now {
                self.scan(&seen);
            }
            if round == ROUNDS {
                self.cut |= unescaped(&one_backslash(&seen)).is_some();
                return;
            }
            match unescaped(&seen) {
                Some(next) => now = next,
                None => return,
            }
        }
    }

    /// Counts work, and says whether there may be more.
    fn may_look(&mut self, bytes: usize) -> bool {
        self.work = self.work.saturating_add(bytes);
        self.cut |= self.work > self.most_work();
        !self.cut
    }

    fn most_work(&self) -> usize {
        self.bytes.saturating_mul(WORK_PER_BYTE).saturating_add(LEAST_WORK)
    }

    fn scan(&mut self, text: &str) {
        self.authorities(text);
        self.dotted(text, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !text.is_ascii() {
            self.dotted(text, |c| c.is_alphanumeric() || matches!(c, '-' | '_') || is_dot(c));
            self.dotted(text, |c| {
                let beyond = !c.is_ascii() && !c.is_whitespace() && !c.is_control();
                c.is_ascii_alphanumeric() || beyond || matches!(c, '-' | '_') || is_dot(c)
            });
        }
        for run in text.split(|c: char| !c.is_ascii_hexdigit() && c != ':' && c != '.') {
            if run.bytes().filter(|b| *b == b':').count() >= 2 && run.len() <= MAX_NAME_BYTES {
                self.host(&format!("[{}]", run.trim_end_matches(['.'])));
            }
        }
        for run in text.split(|c: char| !c.is_ascii_hexdigit()) {
            self.payee(run);
        }
    }

    /// What stands where a URL has its host: also one that is a single word or a number.
    fn authorities(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let slash = |b: &u8| matches!(b, b'/' | b'\\');
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            let behind_scheme = *byte == b':' && {
                let before = &bytes[at.saturating_sub(5)..at];
                let ends = |name: &[u8]| {
                    before.len() >= name.len()
                        && before[before.len() - name.len()..].eq_ignore_ascii_case(name)
                };
                ends(b"http") || ends(b"https")
            };
            let behind_slashes = slash(byte) && bytes.get(at + 1).is_some_and(slash);
            at += 1;
            // Also behind a name and a password, however long these are.
            if !behind_scheme && !behind_slashes && *byte != b'@' {
                continue;
            }
            // Spec: WHATWG URL, "special authority ignore slashes state": any number of either slash.
            let blank = |b: &u8| matches!(b, b'\t' | b'\r' | b'\n');
            while bytes.get(at).is_some_and(|b| slash(b) || blank(b)) {
                at += 1;
            }
            self.authority(&text[at..]);
            if self.cut {
                return;
            }
        }
    }

    fn authority(&mut self, rest: &str) {
        let ends = |c: char| matches!(c, '/' | '\\' | '?' | '#' | '"' | '\'' | '<' | '>' | '`' | ' ' | '@');
        let blank = |c: char| matches!(c, '\t' | '\r' | '\n');
        let rest = &rest[..rest.floor_char_boundary(4 * MAX_NAME_BYTES)];
        let until = rest.find(ends).unwrap_or(rest.len());
        let (text, rest) = rest.split_at(until);
        if !self.may_look(text.len() + 1) {
            return;
        }
        // Spec: WHATWG URL, "basic URL parser": tabs and ends of lines are taken out.
        let line = text.split(blank).next().unwrap_or_default();
        let is_one = line.len() == text.len();
        // What is before an "@" is a name and a password, whatever it looks like. The host behind it has its own turn.
        if !rest.starts_with('@') {
            self.behind_scheme(&text.replace(blank, ""));
        }
        if !is_one {
            self.behind_scheme(line);
        }
    }

    fn behind_scheme(&mut self, text: &str) {
        if let Some(end) = text.find(']').filter(|_| text.starts_with('[')) {
            self.host(&text[..=end]);
            return;
        }
        let host = text.split(':').next().unwrap_or_default();
        self.stressed(host);
        let plain = |c: char| !c.is_alphanumeric() && !matches!(c, '-' | '_' | '%') && !is_dot(c);
        self.stressed(host.split(plain).next().unwrap_or_default());
    }

    /// Names with dots, and all that they begin with: where a sentence goes on without a space, the name ends earlier.
    fn dotted(&mut self, text: &str, is_part: impl Fn(char) -> bool) {
        for run in text.split(|c| !is_part(c)) {
            if !run.contains(is_dot) {
                continue;
            }
            let (mut from, mut at) = (0, 0);
            for part in run.split_inclusive(is_dot) {
                if is_empty(part) {
                    self.labels(&run[from..at]);
                    from = at + part.len();
                }
                at += part.len();
                if self.cut {
                    return;
                }
            }
            self.labels(&run[from..]);
        }
    }

    /// The names in labels of which none is empty.
    fn labels(&mut self, labels: &str) {
        let is_long = labels.len() > MAX_NAME_BYTES;
        let mut at = 0;
        for part in labels.split_inclusive(is_dot) {
            // Of what is longer than any name, each part could be the first, and so could one that is stressed.
            if at == 0 || is_long || part.starts_with(STRESS) {
                self.beginnings(&labels[at..]);
            }
            at += part.len();
            if self.cut {
                return;
            }
        }
    }

    fn beginnings(&mut self, labels: &str) {
        let labels = &labels[..labels.floor_char_boundary(4 * MAX_NAME_BYTES)];
        let (mut name, mut are_numbers) = (String::new(), true);
        for (count, part) in labels.split_inclusive(is_dot).enumerate() {
            let label = label(part);
            if !self.may_look(part.len()) || name.len() + label.len() > MAX_NAME_BYTES {
                return;
            }
            if count > 0 {
                name.push('.');
            }
            name.push_str(label);
            are_numbers &= label.bytes().all(|b| b.is_ascii_digit());
            let number = count == 3 && are_numbers;
            let named = count > 0 && label.chars().nth(1).is_some() && label.chars().any(char::is_alphabetic);
            if number || named {
                self.stressed(&name);
            }
        }
    }

    /// A host as it stands, and without what stresses it.
    fn stressed(&mut self, text: &str) {
        self.host(text);
        let plain = text.trim_matches(STRESS);
        if plain.len() != text.len() {
            self.host(plain);
        }
    }

    fn host(&mut self, text: &str) {
        if text.is_empty() || !self.may_look(text.len()) || !self.is_new(text) {
            return;
        }
        if let Ok(host) = text.trim_matches('.').parse::<Host>() {
            self.hosts.insert(host);
            self.bound();
        }
    }

    /// An address as it is written, in whatever case, or padded to a word of 32 bytes.
    fn payee(&mut self, run: &str) {
        const WORD: usize = 64;
        const ADDRESS: usize = 40;
        let padding = WORD - ADDRESS;
        let digits = match run.len() {
            ADDRESS => run,
            WORD if run.bytes().take(padding).all(|b| b == b'0') => &run[padding..],
            _ => return,
        };
        if !self.cut
            && let Ok(payee) =
                Address::parse(&Network::eip155(1), &format!("0x{}", digits.to_ascii_lowercase()))
        {
            self.payees.insert(payee);
            self.bound();
        }
    }

    fn is_new(&mut self, word: &str) -> bool {
        self.cut |= self.words.len() >= MAX_WORDS;
        !self.cut && self.words.insert(word.to_owned())
    }

    fn bound(&mut self) {
        self.cut |= self.hosts.len().saturating_add(self.payees.len()) > MAX_NAMES;
    }
}

/// Dots that names are written with; IDNA reads all of them as one.
///
/// Spec: UTS #46, section 4; RFC 3490 section 3.1.
fn is_dot(c: char) -> bool {
    matches!(c, '.' | '\u{3002}' | '\u{ff0e}' | '\u{ff61}')
}

/// Whether people see nothing of a character where it stands. A model may read over it.
///
/// Spec: Unicode 17, DerivedCoreProperties, `Default_Ignorable_Code_Point`; UAX #9, 2.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        | '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// A label without its dot, and without hyphens that no name begins or ends with.
fn label(part: &str) -> &str {
    part.trim_end_matches(is_dot).trim_matches('-')
}

fn is_empty(part: &str) -> bool {
    label(part).is_empty()
}

/// A text without what nobody sees; and once more without its colours, if it has some: a terminal takes them out.
fn seen(text: &str) -> String {
    let mut seen: String = text.chars().filter(|c| !is_unseen(*c)).collect();
    let (mut plain, mut rest, mut changed) = (String::new(), text, false);
    while let Some(at) = rest.find(['\u{1b}', '\u{9b}']) {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = colour(rest);
        changed |= length.is_some();
        // What is none is taken out with all else that nobody sees.
        rest = &rest[length.unwrap_or_else(|| rest.chars().next().map_or(0, char::len_utf8))..];
    }
    if changed {
        plain.push_str(rest);
        seen.push('\n');
        seen.extend(plain.chars().filter(|c| !is_unseen(*c)));
    }
    seen
}

/// How long the sequence is that `text` begins with and that sets a colour.
///
/// Spec: ECMA-48, 5.4 and 8.3.117.
fn colour(text: &str) -> Option<usize> {
    let body = text.strip_prefix("\u{1b}[").or_else(|| text.strip_prefix('\u{9b}'))?;
    let behind = body.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, ';' | ':'));
    Some(text.len() - behind.strip_prefix('m')?.len())
}

/// A text with one backslash for each row of them: a row is often drawn, and says nothing by itself.
fn one_backslash(text: &str) -> String {
    let mut last = ' ';
    text.chars().filter(|c| std::mem::replace(&mut last, *c) != '\\' || *c != '\\').collect()
}

/// A text with what stands in escapes written out; `None` if there are none. URLs, JSON, HTML and Markdown have some, and
/// "evil[.]example" is how people keep a name from being a link.
fn unescaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut changed = false;
    while let Some(c) = rest.chars().next() {
        if let Some((bytes, length)) = escape(rest) {
            out.extend(bytes);
            rest = &rest[length..];
            changed = true;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[c.len_utf8()..];
        }
    }
    changed.then(|| String::from_utf8_lossy(&out).into_owned())
}

/// What the escape stands for that `text` begins with, and how long it is.
fn escape(text: &str) -> Option<(Vec<u8>, usize)> {
    let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let coded = |code: u32| char::from_u32(code).map(|c| c.to_string().into_bytes());
    let bytes = text.as_bytes();
    match bytes.first()? {
        b'%' => Some((vec![u8::try_from(hex(text.get(1..3)?)?).ok()?], 3)),
        b'\\' => match bytes.get(1)? {
            b'u' if bytes.get(2) == Some(&b'{') => {
                let end = text.get(3..)?.find('}').filter(|end| *end <= 6)?;
                Some((coded(hex(text.get(3..3 + end)?)?)?, end + 4))
            }
            b'u' => {
                let high = hex(text.get(2..6)?)?;
                let low = || text.get(6..)?.strip_prefix("\\u").and_then(|rest| hex(rest.get(..4)?));
                // Spec: RFC 8259 section 7, two surrogates for one character.
                match low().filter(|low| matches!(high, 0xd800..0xdc00) && matches!(low, 0xdc00..0xe000)) {
                    Some(low) => Some((coded(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))?, 12)),
                    None => Some((coded(high)?, 6)),
                }
            }
            b'0' if text.starts_with("\\033[") => Some((vec![0x1b], 4)),
            b'e' if bytes.get(2) == Some(&b'[') => Some((vec![0x1b], 2)),
            // Ends of lines stay some: in a URL they are nothing, and elsewhere they part two words.
            b'n' => Some((vec![b'\n'], 2)),
            b'r' => Some((vec![b'\r'], 2)),
            b't' => Some((vec![b'\t'], 2)),
            b'b' | b'f' | b'v' | b'0' => Some((vec![b' '], 2)),
            b'x' => Some((coded(hex(text.get(2..4)?)?)?, 4)),
            // Markdown and JSON: what stands behind it is meant.
            other if other.is_ascii_punctuation() => Some((vec![*other], 2)),
            _ => None,
        },
        b'&' => {
            let end = text.as_bytes().iter().take(12).position(|b| *b == b';')?;
            let name = text.get(1..end)?;
            let code = match name.strip_prefix('#') {
                Some(number) => match number.strip_prefix(['x', 'X']) {
                    Some(digits) => hex(digits)?,
                    None => number.parse().ok()?,
                },
                None => u32::from(match name {
                    "period" => '.',
                    "sol" => '/',
                    "colon" => ':',
                    "commat" => '@',
                    "amp" => '&',
                    _ => return None,
                }),
            };
            Some((coded(code)?, end + 1))
        }
        b'[' | b'(' | b'{' => {
            let closes = |at: usize| bytes.get(at).is_some_and(|b| matches!(b, b']' | b')' | b'}'));
            let dot = text.get(1..4).is_some_and(|word| word.eq_ignore_ascii_case("dot"));
            if bytes.get(1) == Some(&b'.') && closes(2) {
                Some((vec![b'.'], 3))
            } else if dot && closes(4) {
                Some((vec![b'.'], 5))
            } else {
                None
            }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
