//! A TOML document whose every key knows where it was written, with the environment laid over it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The longest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 * 1024 * 1024;

/// What an environment variable that overrides the file begins with. A double underscore stands for a dot.
pub const ENV_PREFIX: &str = "FARTHING__";

/// Where something was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Line(usize),
    Env(String),
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub place: Option<Place>,
    /// The whole key, e.g. `route[0].price`; empty where it is the file.
    pub key: String,
    pub message: String,
}

/// Why a configuration is not used: everything that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: String,
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match &problem.place {
                Some(Place::Line(line)) => write!(f, "{}:{line}: ", self.file)?,
                Some(Place::Env(name)) => write!(f, "environment variable {name}: ")?,
                None => write!(f, "{}: ", self.file)?,
            }
            if !problem.key.is_empty() {
                write!(f, "{}: ", problem.key)?;
            }
            f.write_str(&problem.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// A value and where it is from.
#[derive(Debug, Clone)]
pub struct Node {
    pub value: Value,
    pub place: Place,
}

#[derive(Debug, Clone)]
pub enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// Floats and dates: nothing here is one.
    Other(&'static str),
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a whole number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// Reads a file and lays `env` over it.
pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Node, ConfigError> {
    let file = path.display().to_string();
    let fail = |message: String| ConfigError {
        file: file.clone(),
        problems: vec![Problem { place: None, key: String::new(), message }],
    };
    let size = std::fs::metadata(path).map_err(|error| fail(error.to_string()))?.len();
    if size > MAX_FILE_BYTES {
        return Err(fail(format!("longer than {MAX_FILE_BYTES} bytes")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| fail(error.to_string()))?;
    parse(&file, &text, env)
}

/// Reads a text and lays `env` over it. `file` is only for messages.
pub fn parse(
    file: &str,
    text: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Node, ConfigError> {
    let line_of = |at: usize| text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| ConfigError {
        file: file.to_owned(),
        problems: vec![Problem {
            place: error.span().map(|span| Place::Line(line_of(span.start))),
            key: String::new(),
            message: error.message().to_owned(),
        }],
    })?;
    let mut root =
        Node { value: Value::Table(convert_table(table.get_ref(), &line_of)), place: Place::Line(1) };
    for (name, value) in env {
        if let Some(path) = name.strip_prefix(ENV_PREFIX) {
            let keys: Vec<&str> = path.split("__").collect();
            overlay(&mut root, &keys, &name, &value).map_err(|message| ConfigError {
                file: file.to_owned(),
                problems: vec![Problem {
                    place: Some(Place::Env(name.clone())),
                    key: String::new(),
                    message,
                }],
            })?;
        }
    }
    Ok(root)
}

fn convert_table(table: &DeTable<'_>, line_of: &dyn Fn(usize) -> usize) -> BTreeMap<String, Node> {
    table
        .iter()
        .map(|(key, value)| {
            // A key's own line says more than that of a value that goes on for many.
            let line = line_of(key.span().start);
            (key.get_ref().to_string(), convert(value, line, line_of))
        })
        .collect()
}

fn convert(value: &Spanned<DeValue<'_>>, line: usize, line_of: &dyn Fn(usize) -> usize) -> Node {
    let converted = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => {
            match i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => Value::Other("a number beyond 64 bits"),
            }
        }
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| convert(item, line_of(item.span().start), line_of)).collect())
        }
        DeValue::Table(table) => Value::Table(convert_table(table, line_of)),
        DeValue::Float(_) => Value::Other("a number with a point (write it as a text)"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { value: converted, place: Place::Line(line) }
}

/// Puts an environment variable's value where its name points: `FARTHING__GATEWAY__LISTEN` at `gateway.listen`.
fn overlay(node: &mut Node, keys: &[&str], name: &str, value: &str) -> Result<(), String> {
    let Some((key, rest)) = keys.split_first() else {
        node.value = from_env(value);
        node.place = Place::Env(name.to_owned());
        return Ok(());
    };
    if key.is_empty() {
        return Err("the name does not point at a key".to_owned());
    }
    match &mut node.value {
        Value::Table(table) => {
            // Names of variables know no case, dashes or colons: `BASE_SEPOLIA` means `base-sepolia`.
            let known = table.keys().find(|known| folded(known) == folded(key)).cloned();
            let entry = table.entry(known.unwrap_or_else(|| key.to_ascii_lowercase()));
            let empty = || Node { value: Value::Table(BTreeMap::new()), place: Place::Env(name.to_owned()) };
            overlay(entry.or_insert_with(empty), rest, name, value)
        }
        Value::List(items) => {
            let index = key.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            overlay(index.ok_or("there is no such entry in the list")?, rest, name, value)
        }
        _ => Err("the name points into a value that is no table".to_owned()),
    }
}

fn folded(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
}

/// A variable holds TOML where it reads as such (`true`, `5`, `["a"]`), else plain text.
fn from_env(text: &str) -> Value {
    match DeValue::parse(text) {
        Ok(value) => match convert(&value, 1, &|_| 1).value {
            Value::Other(_) => Value::Text(text.to_owned()),
            value => value,
        },
        Err(_) => Value::Text(text.to_owned()),
    }
}
