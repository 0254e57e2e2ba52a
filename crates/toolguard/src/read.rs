//! From YAML to a policy, with everything that is wrong at its line and column.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::decimal::Decimal;
use crate::node::{Kind, Name, Node, Place, parse};
use crate::policy::{
    Action, Condition, Count, Increment, Path, Pattern, Policy, Posture, Rule, Scalar, Spend, Test,
};
use crate::tally::{Key, MAX_ROLLING, MIN_ROLLING, Unit, Window};
use crate::{GLOBAL, MAX_NAME_BYTES, is_tool_name};

/// The longest policy, in bytes, and how many tools and rules it may name.
pub const MAX_POLICY_BYTES: usize = 512 * 1024;
pub const MAX_TOOLS: usize = 2048;
pub const MAX_RULES: usize = 4096;
/// The longest name of a rule and message of an owner, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
const MAX_CONDITIONS: usize = 64;
const MAX_LIST: usize = 1024;
/// The longest pattern, in bytes, and what it may take once it is compiled.
const MAX_PATTERN_BYTES: usize = 1024;
const MAX_COMPILED_BYTES: usize = 1 << 20;

pub(crate) const POLICY_KEYS: [&str; 6] = ["version", "description", "default", "hide", "tools", "pins"];
pub(crate) const TOOL_KEYS: [&str; 1] = ["rules"];
pub(crate) const RULE_KEYS: [&str; 8] =
    ["name", "action", "conditions", "rate_limit", "on_deny", "state", "approval_timeout", "spend"];
pub(crate) const CONDITION_KEYS: [&str; 3] = ["path", "op", "value"];
pub(crate) const STATE_KEYS: [&str; 5] = ["counter", "window", "rolling", "increment", "increment_from"];
pub(crate) const SPEND_KEYS: [&str; 2] = ["per_call", "daily"];

/// Something that is wrong with a policy, or that another reader would take otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub line: u64,
    pub column: u64,
    pub text: String,
}

/// `line:column: text`.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// What came of reading a policy.
#[derive(Debug, Clone)]
pub struct Read {
    /// `None` if there is a problem.
    pub policy: Option<Policy>,
    pub problems: Vec<Finding>,
    /// Where Intercept would let through what is denied here.
    pub warnings: Vec<Finding>,
}

/// Reads a policy. An unknown key, a value of another kind, a name that is there twice: each is a problem.
pub fn read(text: &str) -> Read {
    let mut reader = Reader::default();
    let policy = if text.len() > MAX_POLICY_BYTES {
        reader
            .problem(Place { line: 1, column: 1 }, format!("a policy has at most {MAX_POLICY_BYTES} bytes"));
        None
    } else {
        match parse(text) {
            Ok(node) => reader.policy(&node),
            Err((place, text)) => {
                reader.problem(place, text);
                None
            }
        }
    };
    let Reader { mut problems, mut warnings, .. } = reader;
    problems.sort_by_key(|one| (one.line, one.column));
    warnings.sort_by_key(|one| (one.line, one.column));
    Read { policy: policy.filter(|_| problems.is_empty()), problems, warnings }
}

#[derive(Default)]
struct Reader {
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
    rules: usize,
    /// The counters that rules add to, by their scope and name.
    counters: BTreeMap<(String, String), Window>,
}

/// What a rule may refer to that stands further down.
struct Pending<'n> {
    scope: String,
    node: &'n Node,
}

/// The members of a map, each asked for once.
struct Members<'n>(BTreeMap<&'n str, (&'n Name, &'n Node)>);

impl<'n> Members<'n> {
    fn get(&self, key: &str) -> Option<&'n Node> {
        self.0.get(key).map(|(_, node)| *node)
    }

    fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

impl Reader {
    fn problem(&mut self, place: Place, text: impl Into<String>) {
        self.problems.push(Finding { line: place.line, column: place.column, text: text.into() });
    }

    fn warning(&mut self, place: Place, text: impl Into<String>) {
        self.warnings.push(Finding { line: place.line, column: place.column, text: text.into() });
    }

    fn wanted(&mut self, node: &Node, what: &str) {
        self.problem(node.place, format!("expected {what}, found {}", node.kind.name()));
    }

    fn members<'n>(&mut self, node: &'n Node, keys: &[&str]) -> Option<Members<'n>> {
        let Kind::Map(map) = &node.kind else {
            self.wanted(node, "a map");
            return None;
        };
        let mut members = BTreeMap::new();
        for (name, value) in map {
            if !keys.contains(&name.text.as_str()) {
                let text = format!("unknown key {:?}; known here: {}", name.text, keys.join(", "));
                self.problem(name.place, text);
            }
            if members.insert(name.text.as_str(), (name, value)).is_some() {
                self.problem(name.place, format!("{:?} is there twice", name.text));
            }
        }
        Some(Members(members))
    }

    fn text<'n>(&mut self, node: &'n Node, what: &str) -> Option<&'n str> {
        match &node.kind {
            Kind::Text(text) if text.is_empty() => {
                self.problem(node.place, format!("{what} must not be empty"));
                None
            }
            Kind::Text(text) if text.len() > MAX_TEXT_BYTES => {
                self.problem(node.place, format!("{what} has at most {MAX_TEXT_BYTES} bytes"));
                None
            }
            Kind::Text(text) => Some(text),
            _ => {
                self.wanted(node, "a text");
                None
            }
        }
    }

    fn list<'n>(&mut self, node: &'n Node, most: usize) -> &'n [Node] {
        match &node.kind {
            Kind::List(items) if items.len() <= most => items,
            Kind::List(_) => {
                self.problem(node.place, format!("more than {most} entries"));
                &[]
            }
            _ => {
                self.wanted(node, "a list");
                &[]
            }
        }
    }

    fn policy(&mut self, node: &Node) -> Option<Policy> {
        let members = self.members(node, &POLICY_KEYS)?;
        match members.get("version") {
            Some(Node { kind: Kind::Text(version), .. }) if version == "1" => {}
            Some(version) => self.problem(version.place, "version must be \"1\", as a text"),
            None => self.problem(node.place, "version is missing: version: \"1\""),
        }
        let description = members.get("description").and_then(|node| match &node.kind {
            // An empty one says nothing, and nothing follows from it.
            Kind::Text(text) => Some(text.clone()),
            _ => {
                self.wanted(node, "a text");
                None
            }
        });
        let default = match members.get("default").map(|node| (node, &node.kind)) {
            None => {
                let text =
                    "default is missing, which denies here: Intercept allows every tool that no entry names";
                self.warning(node.place, text);
                Posture::Deny
            }
            Some((_, Kind::Text(text))) if text == "deny" => Posture::Deny,
            Some((_, Kind::Text(text))) if text == "allow" => Posture::Allow,
            Some((node, _)) => {
                self.problem(node.place, "default must be \"allow\" or \"deny\"");
                Posture::Deny
            }
        };
        let (hide_all, hide) = self.hide(members.get("hide"));
        let pins = self.pins(members.get("pins"));
        let mut policy =
            Policy { description, default, hide_all, hide, tools: BTreeMap::new(), all: Vec::new(), pins };
        match members.get("tools") {
            Some(tools) => self.tools(tools, &mut policy),
            None => self.problem(node.place, "tools is missing: a map from names of tools to their rules"),
        }
        Some(policy)
    }

    fn hide(&mut self, node: Option<&Node>) -> (bool, BTreeSet<String>) {
        let (mut all, mut hide) = (false, BTreeSet::new());
        let Some(node) = node else { return (all, hide) };
        for entry in self.list(node, MAX_TOOLS) {
            let Some(name) = self.text(entry, "an entry of hide") else { continue };
            if name == "*" {
                all = true;
            } else if !is_tool_name(name) {
                self.problem(entry.place, not_a_name(name));
            }
            if !hide.insert(name.to_owned()) {
                self.problem(entry.place, format!("{name:?} is there twice"));
            }
        }
        hide.remove("*");
        (all, hide)
    }

    fn pins(&mut self, node: Option<&Node>) -> BTreeMap<String, [u8; 32]> {
        let mut pins = BTreeMap::new();
        let Some(node) = node else { return pins };
        let Kind::Map(map) = &node.kind else {
            self.wanted(node, "a map from names of tools to \"sha256:…\"");
            return pins;
        };
        for (name, value) in map {
            if !is_tool_name(&name.text) {
                self.problem(name.place, not_a_name(&name.text));
            }
            let mut hash = [0; 32];
            let read = match &value.kind {
                Kind::Text(text) => text
                    .strip_prefix("sha256:")
                    .is_some_and(|hex| hex::decode_to_slice(hex, &mut hash).is_ok()),
                _ => false,
            };
            if !read {
                self.problem(
                    value.place,
                    "expected \"sha256:\" and 64 hex digits, as farthing mcp scan writes them",
                );
            }
            if pins.insert(name.text.clone(), hash).is_some() {
                self.problem(name.place, format!("{:?} is there twice", name.text));
            }
        }
        pins
    }

    fn tools(&mut self, node: &Node, policy: &mut Policy) {
        let Kind::Map(map) = &node.kind else {
            return self.wanted(node, "a map from names of tools to rules");
        };
        if map.len() > MAX_TOOLS {
            return self.problem(node.place, format!("more than {MAX_TOOLS} tools"));
        }
        // Counters first: a condition may name one that is counted further down.
        let mut pending = Vec::new();
        for (name, value) in map {
            let scope = if name.text == "*" { GLOBAL } else { &name.text };
            if name.text != "*" && !is_tool_name(&name.text) {
                self.problem(name.place, not_a_name(&name.text));
            }
            let Some(members) = self.members(value, &TOOL_KEYS) else { continue };
            let Some(rules) = members.get("rules") else {
                self.problem(value.place, "rules is missing: rules: [] checks nothing");
                continue;
            };
            self.list(rules, MAX_RULES).iter().for_each(|rule| self.declare(scope, rule));
            pending.push(Pending { scope: scope.to_owned(), node: rules });
        }
        for Pending { scope, node } in pending {
            let mut rules = Vec::new();
            for rule in self.list_again(node) {
                self.rules += 1;
                rules.extend(self.rule(&scope, rule));
            }
            if scope == GLOBAL {
                policy.all = rules;
            } else if policy.tools.insert(scope.clone(), rules).is_some() {
                self.problem(node.place, format!("{scope:?} is there twice"));
            }
        }
        if self.rules > MAX_RULES {
            self.problem(node.place, format!("more than {MAX_RULES} rules"));
        }
    }

    /// The same list, whose problems were told before.
    fn list_again<'n>(&self, node: &'n Node) -> &'n [Node] {
        match &node.kind {
            Kind::List(items) if items.len() <= MAX_RULES => items,
            _ => &[],
        }
    }

    /// Notes which counter a rule adds to.
    fn declare(&mut self, scope: &str, rule: &Node) {
        let Kind::Map(members) = &rule.kind else { return };
        let find = |key: &str| members.iter().find(|(name, _)| name.text == key).map(|(_, node)| node);
        let counter = match (find("rate_limit"), find("state")) {
            (Some(node), _) => match rate(node) {
                Some((_, unit)) => (rate_counter(unit), Window::Calendar(unit), node.place),
                None => return,
            },
            (None, Some(node)) => {
                let Kind::Map(state) = &node.kind else { return };
                let find =
                    |key: &str| state.iter().find(|(name, _)| name.text == key).map(|(_, node)| &node.kind);
                let (Some(Kind::Text(counter)), Ok(window)) =
                    (find("counter"), window(find("window"), find("rolling")))
                else {
                    return;
                };
                (counter.clone(), window, node.place)
            }
            (None, None) => return,
        };
        let (name, window, place) = counter;
        if self.counters.insert((scope.to_owned(), name.clone()), window).is_some() {
            self.problem(place, format!("the counter {name:?} is counted by two rules of this tool"));
        }
    }

    fn rule(&mut self, scope: &str, node: &Node) -> Option<Rule> {
        let members = self.members(node, &RULE_KEYS)?;
        let name = match members.get("name") {
            Some(name) => self.text(name, "the name of a rule").unwrap_or_default().to_owned(),
            None => {
                self.problem(node.place, "a rule needs a name");
                String::new()
            }
        };
        let mut on_deny =
            members.get("on_deny").and_then(|node| self.text(node, "on_deny")).map(str::to_owned);
        let action = match members.get("action").map(|node| (node, &node.kind)) {
            None => "evaluate",
            Some((_, Kind::Text(text))) if text == "evaluate" => "evaluate",
            Some((_, Kind::Text(text))) if text == "deny" => "deny",
            Some((_, Kind::Text(text))) if text == "require_approval" => "require_approval",
            Some((node, _)) => {
                self.problem(node.place, "action must be \"evaluate\", \"deny\" or \"require_approval\"");
                "deny"
            }
        };
        let forbidden: &[&str] = match action {
            "deny" => &["conditions", "rate_limit", "state", "spend", "approval_timeout"],
            "require_approval" => &["rate_limit", "state", "spend"],
            _ => &["approval_timeout"],
        };
        for key in forbidden {
            if let Some(value) = members.get(key) {
                self.problem(value.place, format!("{key} does not go with action {action:?}"));
            }
        }
        let mut conditions = Vec::new();
        if let Some(list) = members.get("conditions") {
            for condition in self.list(list, MAX_CONDITIONS) {
                conditions.extend(self.condition(condition));
            }
        }
        let action = match action {
            "deny" => Action::Deny,
            "require_approval" => {
                let timeout = members.get("approval_timeout").and_then(|node| self.duration(node));
                Action::Approve { conditions, timeout }
            }
            _ => {
                let mut count = None;
                if let Some(limit) = members.get("rate_limit") {
                    if members.has("conditions") || members.has("state") {
                        self.problem(limit.place, "rate_limit does not go with conditions or state");
                    }
                    match rate(limit) {
                        Some((most, unit)) => {
                            let key = Key {
                                scope: scope.to_owned(),
                                counter: rate_counter(unit),
                                window: Window::Calendar(unit),
                            };
                            let test = Test::Lte(Decimal::from(most));
                            conditions.push(Condition { path: Path::State(key.clone()), test });
                            count = Some(Box::new(Count { key, increment: Increment::Fixed(1) }));
                            on_deny.get_or_insert_with(|| {
                                format!("Rate limit of {most} per {} reached. Try again later.", unit.name())
                            });
                        }
                        None => self.problem(
                            limit.place,
                            "rate_limit must be a whole number from 1 and a window, e.g. \"5/hour\": minute, hour or day",
                        ),
                    }
                } else if let Some(state) = members.get("state") {
                    count = self.state(scope, state, &conditions).map(Box::new);
                }
                let spend = members.get("spend").and_then(|node| self.spend(scope, node)).map(Box::new);
                let empty = |list: &Node| matches!(&list.kind, Kind::List(items) if items.is_empty());
                let checks = members.get("conditions").is_some_and(|list| !empty(list));
                if !checks && !members.has("rate_limit") && !members.has("spend") {
                    self.problem(node.place, "a rule needs a condition, a rate_limit or a spend");
                }
                Action::Evaluate { conditions, count, spend }
            }
        };
        Some(Rule { name, action, on_deny })
    }

    fn condition(&mut self, node: &Node) -> Option<Condition> {
        let members = self.members(node, &CONDITION_KEYS)?;
        let (Some(path_node), Some(op)) = (members.get("path"), members.get("op")) else {
            self.problem(node.place, "a condition needs a path, an op and a value");
            return None;
        };
        let Some(value) = members.get("value") else {
            self.problem(node.place, "a condition needs a path, an op and a value");
            return None;
        };
        let path = self.path(path_node);
        let test = self.test(op, value);
        let (path, test) = (path?, test?);
        if matches!(path, Path::State(_)) {
            match &test {
                Test::Regex(_) | Test::Contains(_) | Test::Exists(_) => {
                    self.problem(
                        op.place,
                        "a counter is a number, and always there: this op says nothing of it",
                    );
                    return None;
                }
                Test::Eq(scalar) | Test::Neq(scalar) => self.number_for_counter(value, scalar),
                Test::In(list) | Test::NotIn(list) => {
                    list.iter().for_each(|scalar| self.number_for_counter(value, scalar));
                }
                _ => {}
            }
        }
        Some(Condition { path, test })
    }

    fn number_for_counter(&mut self, node: &Node, scalar: &Scalar) {
        if !matches!(scalar, Scalar::Number(_)) {
            self.problem(node.place, "a counter compares with a number");
        }
    }

    fn path(&mut self, node: &Node) -> Option<Path> {
        let text = self.text(node, "a path")?;
        if let Some(rest) = text.strip_prefix("args.") {
            let parts: Vec<String> = rest.split('.').map(str::to_owned).collect();
            if parts.iter().any(String::is_empty) {
                self.problem(node.place, format!("{text:?} has an empty part"));
                return None;
            }
            return Some(Path::Args(parts));
        }
        let Some((scope, counter)) = text.strip_prefix("state.").and_then(|rest| rest.rsplit_once('.'))
        else {
            self.problem(
                node.place,
                "a path is args.NAME or state.TOOL.COUNTER (state._global.COUNTER for \"*\")",
            );
            return None;
        };
        match self.counters.get(&(scope.to_owned(), counter.to_owned())) {
            Some(window) => {
                let (scope, counter) = (scope.to_owned(), counter.to_owned());
                Some(Path::State(Key { scope, counter, window: *window }))
            }
            None => {
                self.problem(node.place, format!("no rule counts {text:?}: a state of that tool must"));
                None
            }
        }
    }

    fn test(&mut self, op: &Node, value: &Node) -> Option<Test> {
        let name = self.text(op, "an op")?;
        let test = match name {
            "eq" => Test::Eq(self.scalar(value)?),
            "neq" => Test::Neq(self.scalar(value)?),
            "in" | "not_in" => {
                let items = self.list(value, MAX_LIST);
                let list: Vec<Scalar> = items.iter().filter_map(|item| self.scalar(item)).collect();
                if name == "in" { Test::In(list) } else { Test::NotIn(list) }
            }
            "lt" => Test::Lt(self.number(value)?),
            "lte" => Test::Lte(self.number(value)?),
            "gt" => Test::Gt(self.number(value)?),
            "gte" => Test::Gte(self.number(value)?),
            "contains" => Test::Contains(self.scalar(value)?),
            "exists" => match value.kind {
                Kind::Bool(expected) => Test::Exists(expected),
                _ => {
                    self.wanted(value, "true or false");
                    return None;
                }
            },
            "regex" => {
                let text = self.text(value, "a pattern")?;
                if text.len() > MAX_PATTERN_BYTES {
                    self.problem(value.place, format!("a pattern has at most {MAX_PATTERN_BYTES} bytes"));
                    return None;
                }
                let built = regex::RegexBuilder::new(text).size_limit(MAX_COMPILED_BYTES).build();
                match built {
                    Ok(pattern) => {
                        if !(text.starts_with('^') && text.ends_with('$')) {
                            let text = "this pattern is not bound to both ends (^…$): a text that has it anywhere matches";
                            self.warning(value.place, text);
                        }
                        Test::Regex(Pattern(pattern))
                    }
                    Err(error) => {
                        let why = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                        self.problem(value.place, format!("the pattern cannot be used: {why}"));
                        return None;
                    }
                }
            }
            _ => {
                let known = "eq, neq, in, not_in, lt, lte, gt, gte, regex, contains, exists";
                self.problem(op.place, format!("unknown op {name:?}; there are {known}"));
                return None;
            }
        };
        Some(test)
    }

    fn scalar(&mut self, node: &Node) -> Option<Scalar> {
        match &node.kind {
            Kind::Bool(value) => Some(Scalar::Bool(*value)),
            Kind::Text(text) => Some(Scalar::Text(text.clone())),
            Kind::Number(_) | Kind::OddNumber(_) => self.number(node).map(Scalar::Number),
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                self.wanted(node, "a text, a number, true or false");
                None
            }
        }
    }

    fn number(&mut self, node: &Node) -> Option<Decimal> {
        match &node.kind {
            Kind::Number(number) => Some(number.clone()),
            Kind::OddNumber(text) => {
                let text =
                    format!("{text:?} is no plain decimal: digits and a point, without padding or exponent");
                self.problem(node.place, text);
                None
            }
            _ => {
                self.wanted(node, "a number");
                None
            }
        }
    }

    fn duration(&mut self, node: &Node) -> Option<Duration> {
        let read = match &node.kind {
            Kind::Text(text) => duration(text),
            _ => None,
        };
        if read.is_none() {
            self.problem(node.place, DURATION);
        }
        read
    }

    fn state(&mut self, scope: &str, node: &Node, conditions: &[Condition]) -> Option<Count> {
        let members = self.members(node, &STATE_KEYS)?;
        let counter = match members.get("counter") {
            Some(counter) => self.text(counter, "a counter").map(|text| (counter, text)),
            None => {
                self.problem(node.place, "state needs a counter");
                None
            }
        };
        if let Some((node, name)) = counter {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
            if name.len() > MAX_NAME_BYTES || !name.bytes().all(good) {
                self.problem(node.place, "a counter's name has letters, digits, \"_\" and \"-\"");
            } else if ["_rate_", "_spend"].iter().any(|ours| name.starts_with(ours)) {
                self.problem(node.place, "names that begin with _rate_ or _spend are taken");
            }
        }
        let kind = |key: &str| members.get(key).map(|node| &node.kind);
        let window = match window(kind("window"), kind("rolling")) {
            Ok(window) => Some(window),
            Err(text) => {
                let place =
                    members.get("window").or(members.get("rolling")).map_or(node.place, |node| node.place);
                self.problem(place, text);
                None
            }
        };
        let increment = match (members.get("increment"), members.get("increment_from")) {
            (Some(_), Some(both)) => {
                self.problem(both.place, "increment or increment_from, not both");
                None
            }
            (None, None) => Some(Increment::Fixed(1)),
            (Some(fixed), None) => match self.number(fixed).map(|number| number.units(0)) {
                Some(Some(amount)) if amount > 0 => Some(Increment::Fixed(amount)),
                Some(_) => {
                    self.problem(fixed.place, "increment must be a whole number from 1");
                    None
                }
                None => None,
            },
            (None, Some(from)) => match self.path(from) {
                Some(Path::Args(path)) => Some(Increment::From(path)),
                Some(Path::State(_)) => {
                    self.problem(from.place, "increment_from is a path of the arguments: args.NAME");
                    None
                }
                None => None,
            },
        };
        let (counter, window) = (counter?.1.to_owned(), window?);
        let key = Key { scope: scope.to_owned(), counter, window };
        let limited = |condition: &Condition| {
            matches!(&condition.path, Path::State(of) if *of == key)
                && matches!(condition.test, Test::Lt(_) | Test::Lte(_))
        };
        if !conditions.iter().any(limited) {
            let text = "this rule has no lt or lte of its own counter: Intercept never counts it then, and it is counted here";
            self.warning(node.place, text);
        }
        Some(Count { key, increment: increment? })
    }

    fn spend(&mut self, scope: &str, node: &Node) -> Option<Spend> {
        let members = self.members(node, &SPEND_KEYS)?;
        if members.0.is_empty() {
            self.problem(node.place, "spend needs per_call, daily or both");
        }
        let mut dollars = |key: &str| {
            let node = members.get(key)?;
            let number = match &node.kind {
                Kind::Text(text) => Decimal::parse(text.strip_prefix('$').unwrap_or(text)),
                Kind::Number(number) => Some(number.clone()),
                _ => None,
            };
            let read = number.and_then(|number| number.units(Spend::DECIMALS));
            if read.is_none() {
                self.problem(node.place, format!("{key} must be dollars as a plain decimal, e.g. 0.50"));
            }
            read
        };
        let (per_call, daily) = (dollars("per_call"), dollars("daily"));
        Some(Spend { per_call, daily, key: Spend::key(scope) })
    }
}

fn not_a_name(name: &str) -> String {
    format!(
        "{:?} is not the name of a tool: letters, digits, \"_\", \"-\" and \".\", at most {MAX_NAME_BYTES}",
        name.chars().take(64).collect::<String>()
    )
}

fn rate_counter(unit: Unit) -> String {
    format!("_rate_{}", unit.name())
}

/// `5/hour`.
fn rate(node: &Node) -> Option<(u128, Unit)> {
    let Kind::Text(text) = &node.kind else { return None };
    let (count, unit) = text.split_once('/')?;
    let count = Decimal::parse(count)?.units(0).filter(|count| *count > 0)?;
    Some((count, Unit::parse(unit)?))
}

const DURATION: &str = "expected a time such as \"90s\", \"30m\", \"1h\" or \"7d\"";

fn window(calendar: Option<&Kind>, rolling: Option<&Kind>) -> Result<Window, &'static str> {
    match (calendar, rolling) {
        (Some(_), Some(_)) => Err("window or rolling, not both"),
        (Some(Kind::Text(text)), None) => {
            Unit::parse(text).map(Window::Calendar).ok_or("window must be \"minute\", \"hour\" or \"day\"")
        }
        (None, Some(Kind::Text(text))) => match duration(text) {
            Some(length) if (MIN_ROLLING..=MAX_ROLLING).contains(&length) => Ok(Window::Rolling(length)),
            Some(_) => Err("a rolling window has from 1s to 366d"),
            None => Err(DURATION),
        },
        (None, None) => Err("state needs a window (minute, hour or day) or rolling (e.g. \"1h\")"),
        _ => Err("window must be \"minute\", \"hour\" or \"day\", rolling a time such as \"1h\""),
    }
}

/// A whole number and a unit.
fn duration(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    let count = u64::try_from(Decimal::parse(digits)?.units(0)?).ok()?;
    count.checked_mul(seconds).filter(|seconds| *seconds > 0).map(Duration::from_secs)
}
