//! From text to a tree whose types fit. Spec: cel-spec `doc/langdef.md`, "Syntax"; what is left out there is refused here.

use std::fmt;
use std::sync::Arc;

use farthing_primitives::{Address, AssetId, Network};

use super::{
    Bool, Expression, MAX_EXPRESSION_BYTES, MAX_EXPRESSION_DEPTH, MAX_EXPRESSION_PARTS, Match, Number,
    Operation, Order, Text, TextFact,
};
use crate::policy::Weekday;
use crate::{AgentName, Dollars, Host};

/// Why a text is no expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    #[error("it is longer than {MAX_EXPRESSION_BYTES} bytes")]
    TooLong,
    #[error("its brackets and signs are nested more than {MAX_EXPRESSION_DEPTH} deep")]
    TooDeep,
    #[error("it has more than {MAX_EXPRESSION_PARTS} parts")]
    TooMany,
    #[error(
        "{0:?} is a number with a point or an exponent; dollars are written usd(\"0.05\"), and atoms whole"
    )]
    Float(String),
    #[error("{0:?} is no whole number of 64 bits")]
    Integer(String),
    #[error("{0} can't be read here")]
    Unreadable(String),
    #[error(
        "{0:?} is none of the facts: amount, dollar, hour, minute, port, host, path, method, scheme, network, asset, \
         payee, agent, tool, weekday"
    )]
    UnknownName(String),
    #[error(
        "{0:?} is none of the functions: usd(\"0.05\"), and startsWith, endsWith and contains of host, path, method, \
         scheme, agent and tool"
    )]
    UnknownFunction(String),
    #[error("{0}")]
    Types(String),
    #[error("{text:?} is no {what}, and would fit nothing")]
    Literal { text: String, what: &'static str },
    #[error("it ends too soon")]
    Ends,
}

type Read<T> = Result<T, ExpressionError>;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Name(String),
    Text(String),
    Integer(u64),
    Sign(&'static str),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Sign(sign) => write!(f, "{sign:?}"),
        }
    }
}

/// Longer ones first.
const SIGNS: [&str; 19] =
    ["&&", "||", "==", "!=", "<=", ">=", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]", ","];

fn tokens(text: &str) -> Read<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_whitespace() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace());
            continue;
        }
        // Each token is one part of the tree at most.
        if tokens.len() > 2 * MAX_EXPRESSION_PARTS {
            return Err(ExpressionError::TooMany);
        }
        let token;
        (token, rest) = match first {
            'a'..='z' | 'A'..='Z' | '_' => name(rest),
            '0'..='9' => number(rest)?,
            '.' if rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                return Err(ExpressionError::Float(word(rest).to_owned()));
            }
            '.' => (Token::Sign("."), &rest[1..]),
            '"' | '\'' => quoted(rest, first)?,
            _ => {
                let Some(sign) = SIGNS.into_iter().find(|sign| rest.starts_with(sign)) else {
                    return Err(ExpressionError::Unreadable(format!("{first:?}")));
                };
                (Token::Sign(sign), &rest[sign.len()..])
            }
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn name(text: &str) -> (Token, &str) {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (Token::Name(name.to_owned()), rest)
}

/// What looks like one number, for a message.
fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '.' && c != '_');
    &text[..end.unwrap_or(text.len())]
}

fn number(text: &str) -> Read<(Token, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if rest.starts_with(['.', 'e', 'E']) {
        return Err(ExpressionError::Float(word(text).to_owned()));
    }
    // Spec: langdef, "Numeric Values": `0x1F` and `5u` are CEL, and not here.
    let odd = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let number = digits.parse().ok().filter(|number| !odd && *number <= i64::MIN.unsigned_abs());
    let number = number.ok_or_else(|| ExpressionError::Integer(word(text).to_owned()))?;
    Ok((Token::Integer(number), rest))
}

fn quoted(text: &str, quote: char) -> Read<(Token, &str)> {
    let mut read = String::new();
    let mut rest = text[1..].chars();
    loop {
        match rest.next().ok_or(ExpressionError::Ends)? {
            c if c == quote => return Ok((Token::Text(read), rest.as_str())),
            '\\' => match rest.next().ok_or(ExpressionError::Ends)? {
                c @ ('\\' | '"' | '\'') => read.push(c),
                c => return Err(ExpressionError::Unreadable(format!("\"\\{c}\""))),
            },
            c if c.is_control() => return Err(ExpressionError::Unreadable(format!("{c:?}"))),
            c => read.push(c),
        }
    }
}

/// A part, of whatever type it is.
#[derive(Debug)]
enum Part {
    Bool(Bool),
    Number(Number),
    Text(Text),
    List(Vec<Self>),
}

impl Part {
    fn kind(&self) -> &'static str {
        match self {
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(Text::Is(_)) => "a text",
            Self::Text(Text::Of(fact)) => fact.name(),
            Self::List(_) => "a list",
        }
    }

    fn bool(self, at: &str) -> Read<Bool> {
        match self {
            Self::Bool(inner) => Ok(inner),
            other => Err(ExpressionError::Types(format!(
                "{at} is of what is true or false, not of {}",
                other.kind()
            ))),
        }
    }

    fn number(self, at: &str) -> Read<Number> {
        match self {
            Self::Number(inner) => Ok(inner),
            other => Err(ExpressionError::Types(format!("{at} is of numbers, not of {}", other.kind()))),
        }
    }
}

impl TextFact {
    fn of(name: &str) -> Option<Self> {
        let all = [
            Self::Host,
            Self::Path,
            Self::Method,
            Self::Scheme,
            Self::Network,
            Self::Asset,
            Self::Payee,
            Self::Agent,
            Self::Tool,
            Self::Weekday,
        ];
        all.into_iter().find(|fact| fact.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Path => "path",
            Self::Method => "method",
            Self::Scheme => "scheme",
            Self::Network => "network",
            Self::Asset => "asset",
            Self::Payee => "payee",
            Self::Agent => "agent",
            Self::Tool => "tool",
            Self::Weekday => "weekday",
        }
    }

    /// What is compared with a fact is written as the fact is: a deny for another spelling would deny nothing.
    fn literal(self, text: String) -> Read<String> {
        let plain = |what, is_plain: bool| {
            if is_plain {
                Ok(text.clone())
            } else {
                Err(ExpressionError::Literal { text: text.clone(), what })
            }
        };
        let read =
            |what, read: Option<String>| read.ok_or(ExpressionError::Literal { text: text.clone(), what });
        match self {
            Self::Host => read("host", text.parse::<Host>().ok().map(|host| host.to_string())),
            Self::Path => {
                plain("path that can be read in one way", text.starts_with('/') && super::is_plain(&text))
            }
            Self::Method => {
                let capital = |b: u8| b.is_ascii_uppercase() || b == b'-';
                plain("method in capitals", !text.is_empty() && text.bytes().all(capital))
            }
            Self::Network => read("network (CAIP-2)", text.parse::<Network>().ok().map(|n| n.to_string())),
            Self::Asset => read("asset (CAIP-19)", text.parse::<AssetId>().ok().map(|id| id.to_string())),
            Self::Payee => {
                let address = Address::parse(&Network::eip155(1), &text).ok();
                read("address", address.map(|address| address.as_str().to_owned()))
            }
            Self::Agent => plain("name of an agent", text.is_empty() || text.parse::<AgentName>().is_ok()),
            Self::Weekday => plain("day like \"mon\"", Weekday::ALL.iter().any(|day| day.name() == text)),
            Self::Scheme | Self::Tool => Ok(text),
        }
    }

    /// Whether it may be taken apart. The others are names that are the same or not.
    const fn has_parts(self) -> bool {
        matches!(self, Self::Host | Self::Path | Self::Method | Self::Scheme | Self::Agent | Self::Tool)
    }
}

struct Parser {
    tokens: std::iter::Peekable<std::vec::IntoIter<Token>>,
    depth: usize,
    parts: usize,
    names_amount: bool,
}

impl Expression {
    /// Reads an expression, all of it, or says what is wrong with it.
    ///
    /// # Errors
    /// [`ExpressionError`]: it is beyond the limits, none of the language, or of types that do not fit.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        if text.len() > MAX_EXPRESSION_BYTES {
            return Err(ExpressionError::TooLong);
        }
        let tokens = tokens(text)?.into_iter().peekable();
        let mut parser = Parser { tokens, depth: 0, parts: 0, names_amount: false };
        let root = parser.either()?.bool("an expression")?;
        if let Some(left) = parser.tokens.next() {
            return Err(ExpressionError::Unreadable(left.to_string()));
        }
        Ok(Self { source: text.into(), root: Arc::new(root), names_amount: parser.names_amount })
    }
}

impl Parser {
    /// Takes the next token if it is one of these signs.
    fn sign(&mut self, signs: &[&'static str]) -> Option<&'static str> {
        match self.tokens.peek() {
            Some(Token::Sign(sign)) if signs.contains(sign) => {
                let sign = *sign;
                self.tokens.next();
                Some(sign)
            }
            _ => None,
        }
    }

    fn expect(&mut self, sign: &'static str) -> Read<()> {
        match self.tokens.next() {
            Some(Token::Sign(found)) if found == sign => Ok(()),
            Some(other) => Err(ExpressionError::Unreadable(other.to_string())),
            None => Err(ExpressionError::Ends),
        }
    }

    fn part(&mut self) -> Read<()> {
        self.parts += 1;
        if self.parts > MAX_EXPRESSION_PARTS { Err(ExpressionError::TooMany) } else { Ok(()) }
    }

    /// Reads what is nested.
    fn within<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.depth += 1;
        if self.depth > MAX_EXPRESSION_DEPTH {
            return Err(ExpressionError::TooDeep);
        }
        let done = read(self);
        self.depth -= 1;
        done
    }

    // Spec: langdef, "Syntax": Expr, ConditionalOr, ConditionalAnd, Relation, Addition, Multiplication, Unary, Member.

    fn either(&mut self) -> Read<Part> {
        let mut left = self.both()?;
        while let Some(at) = self.sign(&["||"]) {
            self.part()?;
            let right = self.both()?.bool(at)?;
            left = Part::Bool(Bool::Or(Box::new(left.bool(at)?), Box::new(right)));
        }
        Ok(left)
    }

    fn both(&mut self) -> Read<Part> {
        let mut left = self.relation()?;
        while let Some(at) = self.sign(&["&&"]) {
            self.part()?;
            let right = self.relation()?.bool(at)?;
            left = Part::Bool(Bool::And(Box::new(left.bool(at)?), Box::new(right)));
        }
        Ok(left)
    }

    fn relation(&mut self) -> Read<Part> {
        let mut left = self.sum()?;
        loop {
            if let Some(at) = self.sign(&["<", "<=", "==", "!=", ">=", ">"]) {
                self.part()?;
                let right = self.sum()?;
                left = Part::Bool(compare(left, at, right)?);
            } else if self.tokens.peek() == Some(&Token::Name("in".to_owned())) {
                self.tokens.next();
                self.part()?;
                let right = self.sum()?;
                left = Part::Bool(is_in(left, right)?);
            } else {
                return Ok(left);
            }
        }
    }

    fn sum(&mut self) -> Read<Part> {
        self.arithmetic(&["+", "-"], Self::product)
    }

    fn product(&mut self) -> Read<Part> {
        self.arithmetic(&["*", "/", "%"], Self::unary)
    }

    fn arithmetic(&mut self, signs: &[&'static str], operand: fn(&mut Self) -> Read<Part>) -> Read<Part> {
        let mut left = operand(self)?;
        while let Some(at) = self.sign(signs) {
            self.part()?;
            let operation = match at {
                "+" => Operation::Plus,
                "-" => Operation::Minus,
                "*" => Operation::Times,
                "/" => Operation::Over,
                _ => Operation::Rest,
            };
            let right = operand(self)?.number(at)?;
            left = Part::Number(Number::Arithmetic(Box::new(left.number(at)?), operation, Box::new(right)));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Read<Part> {
        if let Some(at) = self.sign(&["!"]) {
            self.part()?;
            let inner = self.within(Self::unary)?.bool(at)?;
            return Ok(Part::Bool(Bool::Not(Box::new(inner))));
        }
        if let Some(at) = self.sign(&["-"]) {
            self.part()?;
            // The least number has no positive that it is the negative of.
            if let Some(Token::Integer(digits)) = self.tokens.peek() {
                let number = 0i64.checked_sub_unsigned(*digits);
                let number = number.ok_or_else(|| ExpressionError::Integer(format!("-{digits}")))?;
                self.tokens.next();
                return Ok(Part::Number(Number::Is(number)));
            }
            let inner = self.within(Self::unary)?.number(at)?;
            return Ok(Part::Number(Number::Minus(Box::new(inner))));
        }
        self.member()
    }

    fn member(&mut self) -> Read<Part> {
        let mut left = self.primary()?;
        while self.sign(&["."]).is_some() {
            let name = match self.tokens.next() {
                Some(Token::Name(name)) => name,
                Some(other) => return Err(ExpressionError::Unreadable(other.to_string())),
                None => return Err(ExpressionError::Ends),
            };
            let how = match name.as_str() {
                "startsWith" => Match::Begins,
                "endsWith" => Match::Ends,
                "contains" => Match::Contains,
                _ => return Err(ExpressionError::UnknownFunction(name)),
            };
            self.part()?;
            self.expect("(")?;
            let argument = self.within(Self::either)?;
            self.expect(")")?;
            left = Part::Bool(match (left, argument) {
                (Part::Text(Text::Of(fact)), Part::Text(Text::Is(part)))
                    if fact.has_parts() && !part.is_empty() =>
                {
                    // A host has no capitals, and a part with one would be part of none.
                    if fact == TextFact::Host && part.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii())
                    {
                        return Err(ExpressionError::Literal { text: part, what: "part of a host" });
                    }
                    Bool::Text(Text::Of(fact), how, Text::Is(part))
                }
                (left, argument) => {
                    let what = format!(
                        "{name} is of a fact and a written text, not of {} and {}",
                        left.kind(),
                        argument.kind()
                    );
                    return Err(ExpressionError::Types(what));
                }
            });
        }
        Ok(left)
    }

    fn primary(&mut self) -> Read<Part> {
        self.part()?;
        match self.tokens.next().ok_or(ExpressionError::Ends)? {
            Token::Integer(digits) => {
                let number =
                    i64::try_from(digits).map_err(|_| ExpressionError::Integer(digits.to_string()))?;
                Ok(Part::Number(Number::Is(number)))
            }
            Token::Text(text) => Ok(Part::Text(Text::Is(text))),
            Token::Sign("(") => {
                let inner = self.within(Self::either)?;
                self.expect(")")?;
                Ok(inner)
            }
            Token::Sign("[") => {
                let mut all = Vec::new();
                while self.sign(&["]"]).is_none() {
                    if !all.is_empty() {
                        self.expect(",")?;
                    }
                    all.push(self.within(Self::either)?);
                }
                Ok(Part::List(all))
            }
            Token::Name(name) => self.named(name),
            other @ Token::Sign(_) => Err(ExpressionError::Unreadable(other.to_string())),
        }
    }

    fn named(&mut self, name: String) -> Read<Part> {
        if self.sign(&["("]).is_some() {
            if name != "usd" {
                return Err(ExpressionError::UnknownFunction(name));
            }
            let said = self.tokens.next().ok_or(ExpressionError::Ends)?;
            self.expect(")")?;
            let Token::Text(text) = said else {
                return Err(ExpressionError::Types(
                    "usd() is of a written text, like usd(\"0.05\")".to_owned(),
                ));
            };
            let dollars = Dollars::parse(&text)
                .map_err(|_| ExpressionError::Literal { text, what: "amount of dollars like \"0.05\"" })?;
            // It stands for atoms, which are compared with the amount or are of no use.
            self.names_amount = true;
            return Ok(Part::Number(Number::Usd(dollars.0)));
        }
        Ok(match name.as_str() {
            "true" => Part::Bool(Bool::Is(true)),
            "false" => Part::Bool(Bool::Is(false)),
            "dollar" => Part::Bool(Bool::Dollar),
            "amount" => {
                self.names_amount = true;
                Part::Number(Number::Amount)
            }
            "hour" => Part::Number(Number::Hour),
            "minute" => Part::Number(Number::Minute),
            "port" => Part::Number(Number::Port),
            other => match TextFact::of(other) {
                Some(fact) => Part::Text(Text::Of(fact)),
                None => return Err(ExpressionError::UnknownName(name)),
            },
        })
    }
}

fn compare(left: Part, at: &str, right: Part) -> Read<Bool> {
    let order = match at {
        "<" => Order::Less,
        "<=" => Order::AtMost,
        "==" => Order::Same,
        "!=" => Order::Other,
        ">=" => Order::AtLeast,
        _ => Order::More,
    };
    match (left, right) {
        (Part::Number(a), Part::Number(b)) => Ok(Bool::Number(Box::new(a), order, Box::new(b))),
        (Part::Bool(a), Part::Bool(b)) if order == Order::Same => Ok(Bool::Same(Box::new(a), Box::new(b))),
        (Part::Bool(a), Part::Bool(b)) if order == Order::Other => {
            Ok(Bool::Not(Box::new(Bool::Same(Box::new(a), Box::new(b)))))
        }
        (Part::Text(a), Part::Text(b)) if matches!(order, Order::Same | Order::Other) => {
            let (a, b) = texts(a, b)?;
            Ok(Bool::Text(a, if order == Order::Same { Match::Same } else { Match::Other }, b))
        }
        (a, b) => {
            Err(ExpressionError::Types(format!("{at} does not compare {} with {}", a.kind(), b.kind())))
        }
    }
}

/// A fact and what it is compared with, as the fact is written.
fn texts(a: Text, b: Text) -> Read<(Text, Text)> {
    match (a, b) {
        (Text::Of(fact), Text::Is(text)) | (Text::Is(text), Text::Of(fact)) => {
            Ok((Text::Of(fact), Text::Is(fact.literal(text)?)))
        }
        // Two facts are never of one kind, and two written texts need no expression.
        (a, b) => {
            let kind = |text: Text| Part::Text(text).kind();
            Err(ExpressionError::Types(format!("{} is not compared with {}", kind(a), kind(b))))
        }
    }
}

fn is_in(one: Part, all: Part) -> Read<Bool> {
    let Part::List(all) = all else {
        return Err(ExpressionError::Types(format!("\"in\" is of a list, not of {}", all.kind())));
    };
    // What is in nothing is never true, and a rule by it does nothing.
    if all.is_empty() {
        return Err(ExpressionError::Types("the list is empty, and nothing is in it".to_owned()));
    }
    match one {
        Part::Number(one) => {
            let all = all.into_iter().map(|each| each.number("a list that a number is in"));
            Ok(Bool::NumberIn(Box::new(one), all.collect::<Read<_>>()?))
        }
        Part::Text(Text::Of(fact)) => {
            let each = |each: Part| match each {
                Part::Text(Text::Is(text)) => Ok(Text::Is(fact.literal(text)?)),
                other => {
                    let what = format!(
                        "a list that {} is in is of written texts, not of {}",
                        fact.name(),
                        other.kind()
                    );
                    Err(ExpressionError::Types(what))
                }
            };
            Ok(Bool::TextIn(Text::Of(fact), all.into_iter().map(each).collect::<Read<_>>()?))
        }
        other => Err(ExpressionError::Types(format!("{} is in no list", other.kind()))),
    }
}
