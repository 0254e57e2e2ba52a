//! Taking a document apart, with an error for each thing that is wrong and for each key that nobody asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::document::{Node, Place, Problem, Value};

/// All that is wrong, collected so that one run shows everything.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub fn add(&self, place: Option<&Place>, key: &str, message: impl Into<String>) {
        self.0.borrow_mut().push(Problem {
            place: place.cloned(),
            key: key.to_owned(),
            message: message.into(),
        });
    }

    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }

    pub fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

/// One table: keys are taken out of it, and what is left at the end is unknown.
#[derive(Debug)]
pub struct Reader<'p> {
    problems: &'p Problems,
    path: String,
    place: Place,
    left: BTreeMap<String, Node>,
    asked: Vec<&'static str>,
}

impl<'p> Reader<'p> {
    pub fn root(node: Node, problems: &'p Problems) -> Self {
        Self::new(node, String::new(), problems)
    }

    pub fn new(node: Node, path: String, problems: &'p Problems) -> Self {
        let left = match node.value {
            Value::Table(table) => table,
            other => {
                problems.add(Some(&node.place), &path, format!("expected a table, found {}", other.kind()));
                BTreeMap::new()
            }
        };
        Self { problems, path, place: node.place, left, asked: Vec::new() }
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn key(&self, key: &str) -> String {
        match (self.path.as_str(), key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    pub fn take(&mut self, key: &'static str) -> Option<Node> {
        self.asked.push(key);
        self.left.remove(key)
    }

    pub fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// What a key has that was not taken yet.
    pub fn peek(&self, key: &str) -> Option<&Value> {
        self.left.get(key).map(|node| &node.value)
    }

    /// Where a key stands that was not taken yet.
    pub fn place_of(&self, key: &str) -> Option<Place> {
        self.left.get(key).map(|node| node.place.clone())
    }

    pub fn problem(&self, key: &str, message: impl Into<String>) {
        self.problems.add(Some(&self.place), &self.key(key), message);
    }

    pub fn problem_at(&self, place: &Place, key: &str, message: impl Into<String>) {
        self.problems.add(Some(place), &self.key(key), message);
    }

    fn wrong(&self, node: &Node, key: &str, expected: &str) {
        self.problem_at(&node.place, key, format!("expected {expected}, found {}", node.value.kind()));
    }

    pub fn text(&mut self, key: &'static str) -> Option<(String, Place)> {
        let node = self.take(key)?;
        match node.value {
            Value::Text(text) => Some((text, node.place)),
            _ => {
                self.wrong(&node, key, "a text");
                None
            }
        }
    }

    /// A text that is parsed; its own error is the message.
    pub fn parsed<T: FromStr>(&mut self, key: &'static str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        self.text_as(key, |text| text.parse::<T>().map_err(|error| error.to_string()))
    }

    pub fn text_as<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, place) = self.text(key)?;
        match read(&text) {
            Ok(value) => Some(value),
            Err(message) => {
                self.problem_at(&place, key, message);
                None
            }
        }
    }

    pub fn bool(&mut self, key: &'static str, default: bool) -> bool {
        match self.take(key) {
            None => default,
            Some(Node { value: Value::Bool(value), .. }) => value,
            Some(node) => {
                self.wrong(&node, key, "true or false");
                default
            }
        }
    }

    pub fn optional_bool(&mut self, key: &'static str) -> Option<bool> {
        if self.left.contains_key(key) { Some(self.bool(key, false)) } else { self.take(key).map(|_| false) }
    }

    /// A whole number within bounds, both included.
    pub fn number(&mut self, key: &'static str, default: u64, min: u64, max: u64) -> u64 {
        let Some(node) = self.take(key) else { return default };
        let Value::Integer(number) = node.value else {
            self.wrong(&node, key, "a whole number");
            return default;
        };
        match u64::try_from(number) {
            Ok(number) if (min..=max).contains(&number) => number,
            _ => {
                self.problem_at(&node.place, key, format!("must be from {min} to {max}"));
                default
            }
        }
    }

    /// A count of atoms, as a text of digits or a whole number.
    pub fn atoms(&mut self, key: &'static str) -> Option<u128> {
        let node = self.take(key)?;
        let read = match &node.value {
            Value::Integer(number) => u128::try_from(*number).map_err(|_| "must not be negative".to_owned()),
            Value::Text(text) => farthing_primitives::parse_atoms(text).map_err(|error| error.to_string()),
            other => Err(format!("expected a count of atoms such as \"1000\", found {}", other.kind())),
        };
        read.map_err(|message| self.problem_at(&node.place, key, message)).ok()
    }

    /// A time such as `"30s"`, within bounds, both included.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        min: Duration,
        max: Duration,
    ) -> Duration {
        let read = |text: &str| {
            let value = parse_duration(text)?;
            if value < min || value > max {
                return Err(format!("must be from {} to {}", print_duration(min), print_duration(max)));
            }
            Ok(value)
        };
        self.text_as(key, read).unwrap_or(default)
    }

    pub fn optional_duration(&mut self, key: &'static str) -> Option<Duration> {
        self.text_as(key, parse_duration)
    }

    /// A size such as `"1MiB"` or a count of bytes, within bounds, both included.
    pub fn size(&mut self, key: &'static str, default: usize, min: usize, max: usize) -> usize {
        let Some(node) = self.take(key) else { return default };
        let read = match &node.value {
            Value::Integer(number) => usize::try_from(*number).map_err(|_| "must not be negative".to_owned()),
            Value::Text(text) => parse_size(text),
            other => Err(format!("expected a size such as \"1MiB\", found {}", other.kind())),
        };
        match read {
            Ok(size) if (min..=max).contains(&size) => size,
            Ok(_) => {
                self.problem_at(&node.place, key, format!("must be from {min} to {max} bytes"));
                default
            }
            Err(message) => {
                self.problem_at(&node.place, key, message);
                default
            }
        }
    }

    /// A list of texts; a single text counts as a list of one.
    pub fn texts(&mut self, key: &'static str) -> Option<Vec<(String, Place)>> {
        let node = self.take(key)?;
        let items = match node.value {
            Value::Text(text) => return Some(vec![(text, node.place)]),
            Value::List(items) => items,
            _ => {
                self.wrong(&node, key, "a list of texts");
                return None;
            }
        };
        let mut texts = Vec::with_capacity(items.len());
        for item in items {
            match item.value {
                Value::Text(text) => texts.push((text, item.place)),
                _ => self.wrong(&item, key, "a text"),
            }
        }
        Some(texts)
    }

    /// Each text of a list, parsed; those that cannot be are reported and left out.
    pub fn list_of<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let texts = self.texts(key)?;
        let mut all = Vec::with_capacity(texts.len());
        for (text, place) in texts {
            match read(&text) {
                Ok(value) => all.push(value),
                Err(message) => self.problem_at(&place, key, message),
            }
        }
        Some(all)
    }

    pub fn table(&mut self, key: &'static str) -> Option<Reader<'p>> {
        let path = self.key(key);
        self.take(key).map(|node| Reader::new(node, path, self.problems))
    }

    /// The tables of a list (`[[key]]`).
    pub fn tables(&mut self, key: &'static str) -> Vec<Reader<'p>> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let Value::List(items) = node.value else {
            self.wrong(&node, key, "a list of tables");
            return Vec::new();
        };
        let path = |at| format!("{}[{at}]", self.key(key));
        items.into_iter().enumerate().map(|(at, item)| Reader::new(item, path(at), self.problems)).collect()
    }

    /// The same, where a plain text stands for a table with nothing but `short`.
    pub fn tables_or_texts(&mut self, key: &'static str, short: &'static str) -> Vec<Reader<'p>> {
        if let Some(Node { value: Value::List(items), .. }) = self.left.get_mut(key) {
            for item in items {
                if let Value::Text(_) = item.value {
                    let text = Node { value: item.value.clone(), place: item.place.clone() };
                    item.value = Value::Table(BTreeMap::from([(short.to_owned(), text)]));
                }
            }
        }
        self.tables(key)
    }

    /// The entries of a table whose keys are names.
    pub fn entries(&mut self, key: &'static str) -> Vec<(String, Node, String)> {
        let Some(node) = self.take(key) else { return Vec::new() };
        let path = self.key(key);
        match node.value {
            Value::Table(table) => table
                .into_iter()
                .map(|(name, node)| {
                    let path = format!("{path}.{name}");
                    (name, node, path)
                })
                .collect(),
            _ => {
                self.wrong(&node, key, "a table");
                Vec::new()
            }
        }
    }

    pub fn problems(&self) -> &'p Problems {
        self.problems
    }

    /// Reports every key that was not asked for. To be called last.
    pub fn finish(self) {
        for (key, node) in &self.left {
            let message = match nearest(key, &self.asked) {
                Some(known) => format!("unknown key (did you mean \"{known}\"?)"),
                None => "unknown key".to_owned(),
            };
            self.problem_at(&node.place, key, message);
        }
    }
}

/// Reads `"250ms"`, `"30s"`, `"10m"`, `"1h"` or `"1d"`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("not a time: {text:?} (expected e.g. \"30s\"; units are ms, s, m, h, d)");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| refuse())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(refuse()),
    };
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(refuse)
}

fn print_duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (secs, 0) => format!("{secs}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// Reads `"64KiB"`, `"1MiB"`, `"1MB"` or a count of bytes.
pub fn parse_size(text: &str) -> Result<usize, String> {
    let refuse = || format!("not a size: {text:?} (expected e.g. \"1MiB\"; units are B, kB, KiB, MB, MiB)");
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: usize = number.parse().map_err(|_| refuse())?;
    let bytes = match unit {
        "" | "B" => 1,
        "kB" => 1000,
        "KiB" => 1024,
        "MB" => 1_000_000,
        "MiB" => 1024 * 1024,
        _ => return Err(refuse()),
    };
    number.checked_mul(bytes).ok_or_else(refuse)
}

/// The known key that somebody probably meant.
pub(super) fn nearest(key: &str, known: &[&'static str]) -> Option<&'static str> {
    if key.len() > 64 {
        return None;
    }
    let near = |candidate: &&'static str| distance(key, candidate);
    let best = known.iter().min_by_key(|candidate| near(candidate))?;
    // A third of the letters may be wrong; beyond that it is a guess.
    (distance(key, best) <= (key.len().max(best.len()) / 3).max(1)).then_some(*best)
}

/// How many letters are wrong, missing, superfluous or swapped with their neighbour (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut table = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i.max(j)
            } else {
                let same = usize::from(a[i - 1] != b[j - 1]);
                let mut cost = (table[i - 1][j - 1] + same).min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    cost = cost.min(table[i - 2][j - 2] + 1);
                }
                cost
            };
        }
    }
    table[a.len()][b.len()]
}
