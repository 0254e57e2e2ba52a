//! What fits a question, and what of it is worth its price.
//!
//! Relevance is BM25 over the words of an operation and its seller, in whole numbers, so that it comes out the same
//! everywhere. What is about as relevant as the best is then ordered by the price of one answer that arrives: the price
//! that was really asked, times how often this buyer's own purchases there had to be made for one that was delivered.

use std::collections::{BTreeMap, HashMap};

use url::Url;

use crate::read::{Operation, Parameter, Place, Seller};
use crate::text::words;

/// How many words of a question count.
pub const MAX_QUERY_WORDS: usize = 16;
/// The longest question, in bytes.
pub const MAX_QUERY_BYTES: usize = 1024;
/// How many operations of one seller are among the answers: whoever lists a thousand does not fill the page.
pub const MAX_PER_SELLER: usize = 4;

/// What each field's words count.
const TITLE: u64 = 3;
const PATH: u64 = 2;
const TAGS: u64 = 2;
const OTHER: u64 = 1;

/// A question: words, and perhaps a place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    pub words: Vec<String>,
    /// `52.5,13.4`: two numbers in one word. They fill parameters where a document says how, and are words elsewhere.
    pub pair: Option<(String, String)>,
}

impl Query {
    pub fn parse(text: &str) -> Self {
        let mut query = Self::default();
        for word in text.split_whitespace() {
            match pair(word) {
                Some(found) if query.pair.is_none() => query.pair = Some(found),
                _ => query.words.extend(words(word)),
            }
        }
        query.words.dedup();
        query.words.truncate(MAX_QUERY_WORDS);
        query
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.pair.is_none()
    }
}

fn pair(word: &str) -> Option<(String, String)> {
    let (a, b) = word.split_once(',')?;
    (is_number(a) && is_number(b)).then(|| (a.to_owned(), b.to_owned()))
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let number = |part: &str| (1..=18).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    number(whole) && number(fraction)
}

/// An operation with what the document and the question say of its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filled {
    /// Path and query as they are shown; what nobody gave a value for stands there as `{name}`.
    pub shown: String,
    /// The same as it can be asked for: what is open has a stand-in.
    pub asked: String,
    /// The names of the required parameters that nobody gave a value for.
    pub open: Vec<String>,
    /// The question's two numbers are in it.
    pub took_pair: bool,
}

/// What stands for a value that nobody named, when only the price is asked for.
const STAND_IN: &str = "example";
const STAND_IN_NUMBER: &str = "1";

/// Fills what the document says how to fill: two parameters that it calls a latitude and a longitude, one whose example
/// is two numbers with a comma, and otherwise each required one with its own example.
pub fn fill(operation: &Operation, query: &Query) -> Filled {
    let mut given: HashMap<(&str, Place), String> = HashMap::new();
    let mut filled = Filled::default();
    if let Some((a, b)) = &query.pair {
        let named = |names: &[&str]| {
            let name = |p: &&Parameter| names.contains(&p.name.to_ascii_lowercase().as_str());
            operation.parameters.iter().find(name)
        };
        let latitude = named(&["lat", "latitude"]);
        let longitude = named(&["lon", "lng", "long", "longitude"]);
        let both =
            operation.parameters.iter().find(|p| p.example.as_deref().is_some_and(|e| pair(e).is_some()));
        match (latitude, longitude, both) {
            (Some(latitude), Some(longitude), _) => {
                given.insert((&latitude.name, latitude.place), a.clone());
                given.insert((&longitude.name, longitude.place), b.clone());
                filled.took_pair = true;
            }
            (_, _, Some(both)) => {
                given.insert((&both.name, both.place), format!("{a},{b}"));
                filled.took_pair = true;
            }
            _ => {}
        }
    }
    let value = |name: &str, place: Place| -> Option<String> {
        if let Some(value) = given.get(&(name, place)) {
            return Some(value.clone());
        }
        let parameter = operation.parameters.iter().find(|p| p.name == name && p.place == place)?;
        parameter.example.clone().filter(|_| parameter.required)
    };
    let mut put = |name: &str, place: Place, number: bool| match value(name, place) {
        Some(value) => (encoded(&value), encoded(&value)),
        None => {
            filled.open.push(name.to_owned());
            let stand_in = if number { STAND_IN_NUMBER } else { STAND_IN };
            (format!("{{{name}}}"), stand_in.to_owned())
        }
    };
    let (mut shown, mut asked) = (String::new(), String::new());
    let mut rest = operation.path.as_str();
    while let Some((before, name, after)) = next_place(rest) {
        let number =
            operation.parameters.iter().any(|p| p.name == name && p.place == Place::Path && p.number);
        let (as_shown, as_asked) = put(name, Place::Path, number);
        shown.extend([before, as_shown.as_str()]);
        asked.extend([before, as_asked.as_str()]);
        rest = after;
    }
    shown.push_str(rest);
    asked.push_str(rest);
    let mut separator = '?';
    for parameter in operation.parameters.iter().filter(|p| p.place == Place::Query) {
        if !parameter.required && !given.contains_key(&(parameter.name.as_str(), Place::Query)) {
            continue;
        }
        let (as_shown, as_asked) = put(&parameter.name, Place::Query, parameter.number);
        let name = encoded(&parameter.name);
        shown += &format!("{separator}{name}={as_shown}");
        asked += &format!("{separator}{name}={as_asked}");
        separator = '&';
    }
    Filled { shown, asked, ..filled }
}

/// What is before the next place of a path, its name, and what is after it.
fn next_place(path: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = path.split_once('{')?;
    let (name, after) = rest.split_once('}')?;
    Some((before, name, after))
}

/// A value as one segment, or one value of a query, can hold it.
fn encoded(value: &str) -> String {
    const PLAIN: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',');
    percent_encoding::utf8_percent_encode(value, PLAIN).to_string()
}

/// Where an operation is, by its path; `None` if that leads off the seller's origin, or to another path there.
pub fn url(origin: &Url, path: &str) -> Option<Url> {
    // No encoding keeps a segment of dots from being resolved.
    if crate::read::has_dots(path.split(['?', '#']).next().unwrap_or_default()) {
        return None;
    }
    let url = origin.join(path).ok()?;
    crate::read::same_origin(&url, origin).then_some(url)
}

/// An operation that fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// The seller and the operation, by their numbers.
    pub seller: usize,
    pub operation: usize,
    pub score: u64,
    pub filled: Filled,
}

/// The operations that fit a question, the most relevant first: those that have at least half of the best one's score,
/// at most [`MAX_PER_SELLER`] of one seller.
pub fn search(sellers: &[&Seller], query: &Query) -> Vec<Hit> {
    let mut documents = Vec::new();
    for (at, seller) in sellers.iter().enumerate() {
        let about = seller_words(seller);
        for (number, operation) in seller.operations.iter().enumerate() {
            let filled = fill(operation, query);
            documents.push(((at, number), operation_words(operation, &about), filled));
        }
    }
    let count = documents.len() as u64;
    let lengths: u64 = documents.iter().map(|(_, words, _)| words.values().sum::<u64>()).sum();
    let average = lengths.checked_div(count).unwrap_or(1).max(1);
    let mut wanted = query.words.clone();
    let numbers: Vec<String> = query.pair.iter().flat_map(|(a, b)| [a.clone(), b.clone()]).collect();
    wanted.extend(numbers.iter().cloned());
    let holds =
        |word: &String| documents.iter().filter(|(_, words, _)| words.contains_key(word)).count() as u64;
    let rare: Vec<(String, u64)> =
        wanted.iter().map(|word| (word.clone(), rarity(count, holds(word)))).collect();
    let fillable = documents.iter().filter(|(_, _, filled)| filled.took_pair).count() as u64;
    let mut hits = Vec::new();
    for ((seller, operation), words, filled) in &documents {
        let length: u64 = words.values().sum();
        let mut score = 0u64;
        for (word, rarity) in &rare {
            // Numbers that are in the address already are no words any more.
            if filled.took_pair && numbers.contains(word) && !query.words.contains(word) {
                continue;
            }
            let times = words.get(word).copied().unwrap_or(0);
            score = score.saturating_add(weight(times, length, average).saturating_mul(*rarity));
        }
        if filled.took_pair && (score > 0 || query.words.is_empty()) {
            score = score.saturating_add(rarity(count, fillable).saturating_mul(SCALE));
        }
        if score > 0 {
            hits.push(Hit { seller: *seller, operation: *operation, score, filled: filled.clone() });
        }
    }
    hits.sort_by_key(|hit| (std::cmp::Reverse(hit.score), hit.seller, hit.operation));
    let best = hits.first().map_or(0, |hit| hit.score);
    hits.retain(|hit| hit.score.saturating_mul(2) >= best);
    let mut shown: HashMap<usize, usize> = HashMap::new();
    hits.retain(|hit| {
        let of = shown.entry(hit.seller).or_default();
        *of += 1;
        *of <= MAX_PER_SELLER
    });
    hits
}

const SCALE: u64 = 1000;

/// BM25's share of a word in a document, with k1 = 1.2 and b = 0.75, in thousandths. It saturates: a word that is
/// repeated without end counts little more than twice.
fn weight(times: u64, length: u64, average: u64) -> u64 {
    if times == 0 {
        return 0;
    }
    let around = 300u64.saturating_add(900u64.saturating_mul(length) / average);
    times.saturating_mul(2200).saturating_mul(SCALE) / times.saturating_mul(1000).saturating_add(around)
}

/// BM25's inverse document frequency, log2(1 + (N - n + 0.5) / (n + 0.5)), in 1024ths.
fn rarity(count: u64, holding: u64) -> u64 {
    let (above, below) = (count.saturating_mul(2).saturating_add(2), holding.saturating_mul(2) + 1);
    // A fixed-point logarithm: the place of the highest bit, then one bit of the fraction for each squaring.
    let mut x = (u128::from(above) << 32) / u128::from(below);
    let whole = x.checked_ilog2().unwrap_or(0).saturating_sub(32);
    x >>= whole;
    let mut fraction = 0u64;
    for bit in (0..10).rev() {
        x = (x * x) >> 32;
        if x >= 2 << 32 {
            x >>= 1;
            fraction |= 1 << bit;
        }
    }
    (u64::from(whole) * 1024 + fraction).max(1)
}

type Words = BTreeMap<String, u64>;

fn count(all: &mut Words, text: &str, weight: u64) {
    for word in words(text) {
        *all.entry(word).or_default() += weight;
    }
}

fn seller_words(seller: &Seller) -> Words {
    let mut all = Words::new();
    count(&mut all, &seller.title, OTHER);
    count(&mut all, &seller.description, OTHER);
    seller.categories.iter().for_each(|category| count(&mut all, category, TAGS));
    all
}

fn operation_words(operation: &Operation, about: &Words) -> Words {
    let mut all = about.clone();
    count(&mut all, &operation.title, TITLE);
    count(&mut all, &operation.path, PATH);
    count(&mut all, &operation.description, OTHER);
    operation.tags.iter().for_each(|tag| count(&mut all, tag, TAGS));
    for parameter in &operation.parameters {
        count(&mut all, &parameter.name, OTHER);
    }
    all
}

/// What this buyer's own books say of an origin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Paid, and the whole answer came.
    pub delivered: u64,
    /// Paid, and it did not.
    pub undelivered: u64,
    /// A payment was shown, and the seller would not take it.
    pub refused: u64,
    /// A payment was shown, and nothing says what became of it.
    pub unknown: u64,
    /// How long the delivered ones took, from the decision to the answer, in milliseconds.
    pub latencies_ms: Vec<u64>,
}

impl Record {
    pub fn failed(&self) -> u64 {
        self.undelivered.saturating_add(self.refused).saturating_add(self.unknown)
    }

    pub fn median_latency_ms(&self) -> Option<u64> {
        let mut all = self.latencies_ms.clone();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    /// The price of one answer that arrives, rounded up: the price times all tries over the successful ones, with one of
    /// each that is made up, so that nobody is perfect and nobody is lost.
    pub fn cost_of_one(&self, price: u128) -> u128 {
        let good = u128::from(self.delivered) + 1;
        let all = good + u128::from(self.failed()) + 1;
        price.saturating_mul(all).div_ceil(good)
    }
}
