//! `[service]`: what the documents say by which machines find what is for sale.

use farthing_discovery::Docs;
use url::Url;

use super::reader::Reader;
use super::sections::web_url;

/// Spec: draft-payment-discovery-00, "Categories": registries should list no more.
pub const MAX_CATEGORIES: usize = 5;
/// The longest category, in bytes.
pub const MAX_CATEGORY: usize = 32;
/// The longest title, in characters.
pub const MAX_TITLE: usize = 100;
/// The longest description, in characters.
pub const MAX_DESCRIPTION: usize = 1000;

/// `[service]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Whether `/openapi.json`, `/llms.txt` and `/.well-known/x402` are served, in this order.
    pub serve: [bool; 3],
    pub title: Option<String>,
    pub version: Option<String>,
    pub description: Option<String>,
    pub categories: Vec<String>,
    pub docs: Docs,
    /// Where the upstream describes itself; nobody asks it otherwise.
    pub openapi: Option<OpenApiSource>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenApiSource {
    /// A path of the gateway's own upstream.
    Path(String),
    Url(Url),
}

const NAMES: [&str; 3] = ["openapi", "llms", "x402"];

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            serve: [true; 3],
            title: None,
            version: None,
            description: None,
            categories: Vec::new(),
            docs: Docs::default(),
            openapi: None,
        }
    }
}

pub fn read(section: Option<Reader<'_>>, has_upstream: bool) -> ServiceConfig {
    let mut config = ServiceConfig::default();
    let Some(mut section) = section else { return config };
    let name = |text: &str| {
        let at = NAMES.iter().position(|name| *name == text);
        at.ok_or_else(|| format!("must be \"{}\"", NAMES.join("\", \"")))
    };
    if let Some(named) = section.list_of("serve", name) {
        config.serve = std::array::from_fn(|at| named.contains(&at));
    }
    config.title = section.text_as("title", |text| line(text, MAX_TITLE));
    config.version = section.text_as("version", |text| line(text, MAX_TITLE));
    config.description = section.text_as("description", |text| line(text, MAX_DESCRIPTION));
    config.categories = section.list_of("categories", category).unwrap_or_default();
    if config.categories.len() > MAX_CATEGORIES {
        section.problem("categories", format!("at most {MAX_CATEGORIES}"));
    }
    if let Some(mut docs) = section.table("docs") {
        config.docs = Docs {
            homepage: docs.text_as("homepage", link),
            api_reference: docs.text_as("reference", link),
            llms: docs.text_as("llms", link),
        };
        docs.finish();
    }
    let place = section.place_of("openapi");
    config.openapi = section.text_as("openapi", source);
    if let (Some(OpenApiSource::Path(_)), Some(place)) = (&config.openapi, place)
        && !has_upstream
    {
        section.problem_at(&place, "openapi", "a path needs an upstream in [gateway]; or give the whole URL");
    }
    section.finish();
    config
}

/// A text in one line that shows what it is.
fn line(text: &str, most: usize) -> Result<String, String> {
    if text.is_empty() || text.chars().count() > most {
        return Err(format!("must have 1 to {most} characters"));
    }
    if farthing_discovery::clean(text, most) != text {
        return Err("must be one line, without control characters or blanks around it".to_owned());
    }
    Ok(text.to_owned())
}

/// Spec: draft-payment-discovery-00, "Categories": lower case, hyphens, concise.
fn category(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    if text.is_empty() || text.len() > MAX_CATEGORY || !text.bytes().all(plain) {
        return Err(format!("a category has 1 to {MAX_CATEGORY} small letters, digits and hyphens"));
    }
    Ok(text.to_owned())
}

fn link(text: &str) -> Result<String, String> {
    match text.starts_with('/') {
        true => path(text),
        false => web_url(text).map(|url| url.to_string()),
    }
}

fn path(text: &str) -> Result<String, String> {
    let plain = text.bytes().all(|b| b.is_ascii_graphic()) && !text.starts_with("//") && !text.contains('\\');
    if plain { Ok(text.to_owned()) } else { Err("expected a path such as \"/docs\", or a URL".to_owned()) }
}

fn source(text: &str) -> Result<OpenApiSource, String> {
    match text.starts_with('/') {
        true => path(text).map(OpenApiSource::Path),
        false => web_url(text).map(OpenApiSource::Url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const GATEWAY: &str =
        "[gateway]\nupstream = \"http://127.0.0.1:8080/\"\n[[route]]\nmatch = \"/\"\nfree = true\n";

    fn read(text: &str) -> Result<ServiceConfig, String> {
        let config =
            Config::parse("test.toml", text, std::iter::empty()).map_err(|error| error.to_string())?;
        Ok(config.gateway.map(|gateway| gateway.service).unwrap_or_default())
    }

    #[test]
    fn a_service_says_what_it_is() {
        assert_eq!(read(GATEWAY).unwrap(), ServiceConfig::default());
        let text = format!(
            "{GATEWAY}[service]\ntitle = \"Weather\"\nversion = \"2\"\ndescription = \"Of today.\"\n\
             categories = [\"data\", \"developer-tools\"]\nserve = [\"x402\"]\nopenapi = \"/openapi.json\"\n\
             docs = {{ homepage = \"https://weather.example\", reference = \"/docs\" }}\n"
        );
        let service = read(&text).unwrap();
        assert_eq!(service.title.as_deref(), Some("Weather"));
        assert_eq!(service.serve, [false, false, true]);
        assert_eq!(service.openapi, Some(OpenApiSource::Path("/openapi.json".to_owned())));
        assert_eq!(service.docs.homepage.as_deref(), Some("https://weather.example/"));
        assert_eq!(service.docs.api_reference.as_deref(), Some("/docs"));
        assert_eq!(read(&format!("{GATEWAY}[service]\nserve = []\n")).unwrap().serve, [false; 3]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let six = "categories = [\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]";
        for (line, why) in [
            ("title = \"\"", "must have 1 to 100"),
            ("title = \"a\\nb\"", "one line"),
            ("title = \"a\\u202Eb\"", "one line"),
            (six, "at most 5"),
            ("categories = [\"Data\"]", "small letters"),
            ("serve = [\"swagger\"]", "\"openapi\", \"llms\", \"x402\""),
            ("openapi = \"file:///etc/passwd\"", "http or https"),
            ("openapi = \"http://u:p@a/\"", "must not hold credentials"),
            ("openapi = \"//a/b\"", "expected a path"),
            ("docs = { llms = \"javascript:alert(1)\" }", "docs.llms"),
            ("docs = { home = \"/\" }", "service.docs.home: unknown key"),
            ("tilte = \"a\"", "did you mean \"title\""),
        ] {
            let said = read(&format!("{GATEWAY}[service]\n{line}\n")).expect_err(line);
            assert!(said.contains(why), "{line}: {said}");
        }
        let said = read("[service]\ntitle = \"a\"\n").unwrap_err();
        assert!(said.contains("need a [gateway]"), "{said}");
        let own = "[gateway]\n[[route]]\nmatch = \"/\"\nfree = true\nupstream = \"http://a\"\n[service]\nopenapi = \"/o\"\n";
        assert!(read(own).unwrap_err().contains("a path needs an upstream"));
    }
}
