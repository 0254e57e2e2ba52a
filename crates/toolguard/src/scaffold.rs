//! A first policy for a server: deny by default, what only reads permitted, what writes with a limit, what destroys denied.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// What a server says that a tool does. A hint, and never a fact.
///
/// Spec: MCP, "ToolAnnotations": without hints a tool may write and destroy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    Reads,
    Writes,
    Destroys,
}

impl Effect {
    pub fn of(read_only: Option<bool>, destructive: Option<bool>) -> Self {
        match (read_only, destructive) {
            (Some(true), _) => Self::Reads,
            (_, Some(false)) => Self::Writes,
            _ => Self::Destroys,
        }
    }
}

/// A tool of a server.
#[derive(Debug, Clone)]
pub struct Listed {
    pub name: String,
    pub effect: Effect,
    /// Of its definition: see [`Listed::hash`].
    pub hash: [u8; 32],
    /// The names of its arguments.
    pub arguments: Vec<String>,
}

impl Listed {
    /// SHA-256 of a definition in one form, however it was written: members in the order of their names.
    pub fn hash(definition: &Value) -> [u8; 32] {
        let mut text = String::new();
        print(&mut text, definition);
        Sha256::digest(text.as_bytes()).into()
    }
}

fn print(out: &mut String, value: &Value) {
    match value {
        Value::Object(map) => {
            let mut members: Vec<_> = map.iter().collect();
            members.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in members {
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                print(out, value);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for item in items {
                print(out, item);
                out.push(',');
            }
            out.push(']');
        }
        plain => out.push_str(&plain.to_string()),
    }
}

/// A policy as YAML. `tools` have names that [`crate::is_tool_name`] takes; of what a server says of itself only they and
/// the names of arguments get in, and those only where they are plain.
pub fn scaffold(server: &str, tools: &[Listed]) -> String {
    let mut out = String::new();
    let plain: String = server.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(100).collect();
    // INVARIANT: writing to a String never fails.
    let _ = writeln!(
        out,
        "# Made by farthing mcp scan. The groups are what the server says of its tools: hints, not facts.\n\
         version: \"1\"\ndescription: {}\ndefault: deny\n\ntools:",
        Value::from(plain)
    );
    let mut tools: Vec<&Listed> = tools.iter().collect();
    tools.sort_by(|a, b| (a.effect, &a.name).cmp(&(b.effect, &b.name)));
    let mut group = None;
    for tool in &tools {
        if group.replace(tool.effect) != Some(tool.effect) {
            let title = match tool.effect {
                Effect::Reads => "Tools that say they only read: permitted",
                Effect::Writes => "Tools that change things: permitted, with a limit",
                Effect::Destroys => "Tools that may destroy, or say nothing of it: denied until you decide",
            };
            let _ = writeln!(out, "  # {title}.");
        }
        let arguments: Vec<&str> = tool
            .arguments
            .iter()
            .map(String::as_str)
            .filter(|name| crate::is_tool_name(name))
            .take(16)
            .collect();
        let _ = writeln!(out, "  {}:", Value::from(tool.name.as_str()));
        if !arguments.is_empty() {
            let _ = writeln!(out, "    # args: {}", arguments.join(", "));
        }
        let _ = match tool.effect {
            Effect::Reads => writeln!(out, "    rules: []"),
            Effect::Writes => {
                writeln!(out, "    rules:\n      - name: hourly limit\n        rate_limit: 60/hour")
            }
            Effect::Destroys => {
                writeln!(out, "    rules:\n      - name: not decided yet\n        action: deny")
            }
        };
    }
    let _ = writeln!(
        out,
        "  \"*\":\n    rules:\n      - name: all tools together\n        rate_limit: 60/minute"
    );
    if !tools.is_empty() {
        let _ = writeln!(
            out,
            "\n# What the tools say of themselves now; one that says something else later is refused.\npins:"
        );
        for tool in &tools {
            let _ = writeln!(out, "  {}: sha256:{}", Value::from(tool.name.as_str()), hex::encode(tool.hash));
        }
    }
    out
}
