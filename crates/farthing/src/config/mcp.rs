//! `[mcp]` and `[[tool]]`: an MCP server behind the gateway, and what its tools cost.

use farthing_mcp::sell::{Unpaid, is_tool_name};
use farthing_paywall::Pattern;
use url::Url;

use super::reader::{Problems, Reader};
use super::routes::{self, Defaults};
use super::sections::{secret_headers, web_url};
use super::{RouteConfig, SaleConfig, SecretRef};

/// Where agents reach the tools, unless said otherwise.
pub const DEFAULT_PATH: &str = "/mcp";

/// `[mcp]`.
#[derive(Debug)]
pub struct McpConfig {
    /// Without a slash at its end. Everything below belongs to the tools.
    pub path: String,
    pub source: McpSource,
    /// Whether tools that nobody named are there too, for nothing.
    pub others_free: bool,
    pub unpaid: Unpaid,
    pub tools: Vec<ToolConfig>,
}

/// Where the tools are.
#[derive(Clone, PartialEq, Eq)]
pub enum McpSource {
    Http {
        url: Url,
        headers: Vec<(http::HeaderName, SecretRef)>,
    },
    /// A program and its arguments.
    Command(Vec<String>),
}

/// Arguments may hold what nobody should read in a log.
impl std::fmt::Debug for McpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Http { url, .. } => write!(f, "{}", url.host_str().unwrap_or_default()),
            Self::Command(words) => write!(f, "{:?}", words.first()),
        }
    }
}

/// One `[[tool]]`.
#[derive(Debug)]
pub struct ToolConfig {
    pub name: String,
    /// Where the paywall finds it.
    pub pattern: Pattern,
    /// `None` is free.
    pub sale: Option<SaleConfig>,
}

pub fn read(
    section: Option<Reader<'_>>,
    tools: Vec<Reader<'_>>,
    routes: &[RouteConfig],
    defaults: &Defaults<'_>,
    problems: &Problems,
) -> Option<McpConfig> {
    let Some(mut section) = section else {
        if let Some(tool) = tools.first() {
            tool.problem("", "tools need an [mcp] section");
        }
        return None;
    };
    let path = section.text_as("path", path).unwrap_or_else(|| DEFAULT_PATH.to_owned());
    let below = format!("{path}/");
    let overlaps = |route: &RouteConfig| {
        let pattern = route.pattern.to_string();
        let at = pattern.split(' ').next_back().unwrap_or_default();
        at.eq_ignore_ascii_case(&path) || at.to_ascii_lowercase().starts_with(&below.to_ascii_lowercase())
    };
    if let Some(route) = routes.iter().find(|route| overlaps(route)) {
        section.problem(
            "path",
            format!("{path} belongs to the tools: the route {} is never reached", route.pattern),
        );
    }
    let others_free = section
        .text_as("other_tools", |text| match text {
            "refuse" => Ok(false),
            "free" => Ok(true),
            _ => Err("must be \"refuse\" or \"free\"".to_owned()),
        })
        .unwrap_or(false);
    let unpaid = section
        .text_as("unpaid", |text| match text {
            "result" => Ok(Unpaid::Result),
            "error" => Ok(Unpaid::Error),
            _ => Err("must be \"result\" or \"error\"".to_owned()),
        })
        .unwrap_or_default();
    let source = source(&mut section);
    if tools.is_empty() && !others_free {
        section.problem("", "no tool is for sale: add a [[tool]]");
    }
    let tools: Vec<ToolConfig> = tools.into_iter().filter_map(|tool| one(tool, &path, defaults)).collect();
    let patterns = tools.iter().map(|tool| (tool.pattern.clone(), ())).collect();
    if let Err(error) = farthing_paywall::RouteTable::new(patterns) {
        problems.add(Some(section.place()), "tool", error.to_string());
    }
    section.finish();
    Some(McpConfig { path, source: source?, others_free, unpaid, tools })
}

fn source(section: &mut Reader<'_>) -> Option<McpSource> {
    let has_url = section.has("upstream");
    let url = section.text_as("upstream", web_url);
    let headers = secret_headers(section, "upstream_headers");
    let has_command = section.has("command");
    let words = section.texts("command").unwrap_or_default();
    let command: Vec<String> = words.into_iter().map(|(word, _)| word).collect();
    if has_url == has_command {
        section.problem("", "needs either upstream (a URL) or command (a list: a program and its arguments)");
        return None;
    }
    if has_command && command.first().is_none_or(String::is_empty) {
        section.problem("command", "needs a program");
        return None;
    }
    if has_command && !headers.is_empty() {
        section.problem("upstream_headers", "goes with upstream");
    }
    if has_command { Some(McpSource::Command(command)) } else { Some(McpSource::Http { url: url?, headers }) }
}

fn path(text: &str) -> Result<String, String> {
    let good = |part: &str| is_tool_name(part);
    let parts = text.strip_prefix('/').map(|rest| rest.split('/').collect::<Vec<_>>());
    match parts {
        Some(parts) if parts.iter().all(|part| good(part)) => Ok(text.to_owned()),
        _ => Err("expected a path such as \"/mcp\", of letters, digits, \"_\", \"-\" and \".\"".to_owned()),
    }
}

fn one(mut tool: Reader<'_>, path: &str, defaults: &Defaults<'_>) -> Option<ToolConfig> {
    if !tool.has("name") {
        tool.problem("name", "a tool needs its name");
    }
    let name = tool.text_as("name", |name| match is_tool_name(name) {
        true => Ok(name.to_owned()),
        false => Err("a tool's name has letters, digits, \"_\", \"-\" and \".\", at most 128".to_owned()),
    });
    // A voucher needs somewhere to go between two calls.
    if tool.has("session") {
        tool.problem("session", "is for routes: a tool is sold by the call");
    }
    let free = tool.bool("free", false);
    let sale = routes::sale(&mut tool, defaults, free);
    let pattern = name.as_ref().and_then(|name| format!("POST {path}/tools/{name}").parse::<Pattern>().ok());
    tool.finish();
    Some(ToolConfig { name: name?, pattern: pattern?, sale })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, GatewayConfig};

    const GATEWAY: &str =
        "[gateway]\nnetwork = \"base-sepolia\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\n";

    fn read(text: &str) -> Result<GatewayConfig, String> {
        let text = format!("{GATEWAY}{text}");
        let config =
            Config::parse("test.toml", &text, std::iter::empty()).map_err(|error| error.to_string())?;
        Ok(config.gateway.unwrap())
    }

    #[test]
    fn tools_have_prices_like_routes() {
        let text = "[mcp]\ncommand = [\"node\", \"server.mjs\"]\n\
            [[tool]]\nname = \"forecast\"\nprice = \"$0.01\"\n[[tool]]\nname = \"about\"\nfree = true\n";
        let mcp = read(text).unwrap().mcp.unwrap();
        assert_eq!(mcp.path, "/mcp");
        assert_eq!(mcp.source, McpSource::Command(vec!["node".to_owned(), "server.mjs".to_owned()]));
        assert_eq!((mcp.others_free, mcp.unpaid), (false, Unpaid::Result));
        assert_eq!(mcp.tools[0].pattern.to_string(), "POST /mcp/tools/forecast");
        assert!(mcp.tools[0].sale.is_some() && mcp.tools[1].sale.is_none());
        let text = "[mcp]\nupstream = \"http://127.0.0.1:9000/mcp\"\npath = \"/x/y\"\nother_tools = \"free\"\n\
            unpaid = \"error\"\nupstream_headers = { authorization = \"env:TOKEN\" }\n";
        let mcp = read(text).unwrap().mcp.unwrap();
        assert!(matches!(&mcp.source, McpSource::Http { headers, .. } if headers.len() == 1));
        assert_eq!((mcp.path.as_str(), mcp.others_free, mcp.unpaid), ("/x/y", true, Unpaid::Error));
        assert!(read("").unwrap().mcp.is_none());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let tool = "[[tool]]\nname = \"forecast\"\nprice = \"$0.01\"\n";
        let command = "[mcp]\ncommand = \"serve\"\n";
        for (text, why) in [
            (tool.to_owned(), "tools need an [mcp] section"),
            (format!("[mcp]\n{tool}"), "needs either upstream"),
            (format!("[mcp]\ncommand = \"a\"\nupstream = \"http://a/\"\n{tool}"), "needs either upstream"),
            (format!("[mcp]\ncommand = []\n{tool}"), "needs a program"),
            (command.to_owned(), "no tool is for sale"),
            (format!("{command}path = \"mcp\"\n{tool}"), "expected a path"),
            (format!("{command}path = \"/a/../b\"\n{tool}"), "expected a path"),
            (format!("{command}path = \"/\"\n{tool}"), "expected a path"),
            (format!("{command}unpaid = \"both\"\n{tool}"), "\"result\" or \"error\""),
            (format!("{command}{tool}{tool}"), "POST /mcp/tools/forecast"),
            (format!("{command}[[tool]]\nname = \"a/b\"\nprice = \"$0.01\"\n"), "a tool's name"),
            (format!("{command}[[tool]]\nname = \"..\"\nprice = \"$0.01\"\n"), "a tool's name"),
            (format!("{command}[[tool]]\nprice = \"$0.01\"\n"), "a tool needs its name"),
            (format!("{command}[[tool]]\nname = \"a\"\n"), "needs a price"),
            (format!("{command}[[tool]]\nname = \"a\"\nsession = {{}}\n"), "sold by the call"),
            (format!("{command}[[tool]]\nname = \"a\"\nprice = \"$0.01\"\nmatch = \"/\"\n"), "match"),
            (
                format!(
                    "{command}{tool}[[route]]\nmatch = \"GET /MCP/x\"\nupstream = \"http://a\"\nfree = true\n"
                ),
                "belongs to the tools",
            ),
        ] {
            let said = read(&text).expect_err(&text);
            assert!(said.contains(why), "{text}: {said}");
        }
    }
}
