//! The least that a payment needs: a chain, a seller whose gateway settles itself, and a buyer with a wallet.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};

use super::line::Line;
use super::timeline::{Timeline, Who};
use crate::cli::Failure;
use crate::demo::books::{Party, Settler};
use crate::demo::child::{Service, TempDir, command, output, serve, succeed};
use crate::demo::node::Node;
use crate::demo::sellers::Sellers;
use crate::demo::world::{NETWORK, RELAYER, address, expect_chain, secret};

/// Which development account the buyer has, and which the seller.
const BUYER: usize = 1;
const SELLER: usize = 5;
/// What the seller asks for one forecast, in dollars and in atoms.
const PRICE: &str = "$0.0025";
pub const PRICE_ATOMS: u128 = 2_500;

/// Dropping it ends every process and removes every file.
#[derive(Debug)]
pub struct Shop {
    pub program: PathBuf,
    pub node: Node,
    pub rpc_url: String,
    /// Whether the chain is our own, and not one that was given.
    pub embedded: bool,
    /// Between the gateway and the chain.
    pub line: Line,
    pub service: Sellers,
    /// Where the gateway is, also after it was started again.
    pub url: String,
    gateway: Service,
    // The processes end before their files go: fields are dropped in this order.
    _chain: Option<Service>,
    dir: TempDir,
}

impl Shop {
    /// Starts everything, as people would: by public commands.
    pub async fn open(http: reqwest::Client, rpc: Option<&str>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("the shop cannot be set up: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let dir = TempDir::new().map_err(failed)?;
        let chain = match rpc {
            Some(_) => None,
            None => Some(serve(command(&program, ["devnet", "--listen", "127.0.0.1:0"]), "the chain").await?),
        };
        let rpc_url = chain.as_ref().map_or_else(|| rpc.unwrap_or_default().to_owned(), |c| c.url.clone());
        let node = Node::new(http.clone(), &rpc_url);
        expect_chain(&node).await?;
        let line = Line::to(&rpc_url, http).await.map_err(failed)?;
        let service = Sellers::start().await.map_err(failed)?;
        let port = free_port().await.map_err(failed)?;
        let text = configuration(port, &service.url, &line.url)?;
        std::fs::write(dir.path().join("seller.toml"), text).map_err(failed)?;
        let gateway = gateway(&program, dir.path()).await?;
        let url = gateway.url.clone();
        let embedded = rpc.is_none();
        let shop = Self { program, node, rpc_url, embedded, line, service, url, gateway, _chain: chain, dir };
        shop.make_wallet().await?;
        Ok(shop)
    }

    /// Makes the buyer's wallet. It asks the chain by itself, not over the seller's line.
    async fn make_wallet(&self) -> Result<(), Failure> {
        let number = BUYER.to_string();
        let steps: [&[&str]; 3] = [
            &["wallet", "new", "--devnet", &number],
            &["wallet", "limit", "--per-payment", "0.01", "--hour", "0.10", "--day", "1"],
            &["wallet", "allow", "--network", NETWORK, "--rpc", &self.rpc_url, &self.url],
        ];
        for step in steps {
            let mut command = command(&self.program, step);
            command.env("FARTHING_HOME", self.home());
            succeed(command, &format!("the buyer's wallet: farthing {}", step.join(" "))).await?;
        }
        Ok(())
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("wallet")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("seller.db")
    }

    pub fn buyer() -> Result<String, Failure> {
        address(BUYER)
    }

    pub fn parties(&self) -> Result<Vec<Party>, Failure> {
        let (home, store) = (Some(self.home()), Some(self.store()));
        Ok(vec![
            Party { name: "buyer", address: address(BUYER)?, home, store: None },
            Party { name: "seller", address: address(SELLER)?, home: None, store },
        ])
    }

    pub fn settler(&self) -> Result<Settler, Failure> {
        Ok(Settler { name: "seller", store: self.store(), relayer: address(RELAYER)?, relays: false })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What may be killed.

    pub fn gateway_pid(&self) -> u32 {
        self.gateway.pid().unwrap_or_default()
    }

    pub async fn kill_gateway(&mut self) -> Result<(), Failure> {
        self.gateway.kill().await.map_err(|error| Failure::failed(format!("the gateway lives: {error}")))
    }

    /// Starts the gateway again, at its old address and over its old store.
    pub async fn start_gateway(&mut self) -> Result<(), Failure> {
        self.gateway = gateway(&self.program, self.dir.path()).await?;
        Ok(())
    }

    /// Lets the buyer buy, by the command that people use. What it says of its steps goes to the timeline.
    pub fn buy(&self, url: &str, timeline: &Arc<Timeline>) -> Result<Buyer, Failure> {
        let failed = |why: &str| Failure::failed(format!("farthing fetch cannot be run: {why}"));
        let mut fetch = command(&self.program, ["fetch", url, "--max", "0.01", "--max-time", "20", "-v"]);
        fetch.env("FARTHING_HOME", self.home());
        fetch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = fetch.spawn().map_err(|error| failed(&error.to_string()))?;
        let (Some(stderr), Some(stdout)) = (child.stderr.take(), child.stdout.take()) else {
            return Err(failed("its output cannot be read"));
        };
        timeline.note(
            Who::Buyer,
            format!("runs farthing fetch {url}, process {}", child.id().unwrap_or_default()),
        );
        let timeline = timeline.clone();
        let words = tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Some(what) = step_of(&line) {
                    timeline.note(Who::Buyer, what);
                }
            }
        });
        Ok(Buyer { child, stdout, words })
    }

    // -----------------------------------------------------------------------------------------------------------------
    // What the seller's books say.

    /// The payments for this resource, each with its story.
    pub async fn payments_for(&self, resource: &str) -> Result<Vec<Value>, Failure> {
        let listed = self.ledger(&["payments", "--limit", "1000"]).await?;
        let mut stories = Vec::new();
        for payment in listed.as_array().into_iter().flatten().filter(|p| p["resource"] == resource) {
            let id = payment["payment"].as_str().unwrap_or_default();
            stories.push(self.ledger(&["show", id]).await?);
        }
        Ok(stories)
    }

    async fn ledger(&self, words: &[&str]) -> Result<Value, Failure> {
        let mut asked = command(&self.program, ["ledger"]);
        asked.args(words).args(["--json", "--store"]).arg(self.store());
        let said = output(asked).await?;
        said.json().ok_or_else(|| Failure::failed(format!("farthing ledger: {}", said.stderr.trim())))
    }
}

/// A running `farthing fetch`.
#[derive(Debug)]
pub struct Buyer {
    child: Child,
    stdout: tokio::process::ChildStdout,
    words: tokio::task::JoinHandle<()>,
}

impl Buyer {
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub async fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill().await.map_err(|error| Failure::failed(format!("the buyer lives: {error}")))
    }

    /// Waits for its end. Returns its report and its exit code.
    pub async fn end(mut self) -> Result<(Value, i32), Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("farthing fetch: {error}"));
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).await.map_err(failed)?;
        let status = self.child.wait().await.map_err(failed)?;
        // It ends with the process.
        let _ = self.words.await;
        Ok((serde_json::from_str(text.trim()).unwrap_or_default(), status.code().unwrap_or(-1)))
    }
}

/// What a line of `farthing fetch -v` says of a step; `None` for headers, and for what the next line says again.
fn step_of(line: &str) -> Option<String> {
    if let Some(status) = line.strip_prefix("< HTTP/1.1 ") {
        return Some(format!("is answered {status}"));
    }
    if let Some(shows) = line.strip_prefix("> shows ") {
        // It counts for each process.
        return Some(format!("shows {}", shows.split(',').next().unwrap_or(shows)));
    }
    let said = line.strip_prefix("* ").unwrap_or(line);
    if said.contains("is written down and signed;") {
        return said.split(';').next().map(str::to_owned);
    }
    let tells = said.starts_with("asking again for ") || said.contains("; the same payment again in ");
    tells.then(|| said.to_owned())
}

/// A port that nobody uses at this moment: the gateway must be found again after its restart.
async fn free_port() -> std::io::Result<u16> {
    Ok(tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?.local_addr()?.port())
}

fn configuration(port: u16, service: &str, rpc: &str) -> Result<String, Failure> {
    let pay_to = address(SELLER)?;
    Ok(format!(
        r#"[gateway]
listen = "127.0.0.1:{port}"
upstream = "{service}/nimbus"
network = "{NETWORK}"
pay_to = "{pay_to}"

[store]
path = "seller.db"

[networks.{NETWORK}]
rpc = ["{rpc}"]
relayer_key = "env:RELAYER_KEY"

[[route]]
match = "GET /tomorrow"
price = "{PRICE}"
"#
    ))
}

async fn gateway(program: &Path, dir: &Path) -> Result<Service, Failure> {
    let mut command: Command = command(program, ["gateway", "-c"]);
    command.arg(dir.join("seller.toml")).env("RELAYER_KEY", secret(RELAYER)?);
    // What it warns of is what is shown here anyway.
    if std::env::var_os("FARTHING_LOG").is_none() {
        command.env("FARTHING_LOG", "off");
    }
    serve(command, "the gateway").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_headers() {
        let is = |line: &str, step: &str| assert_eq!(step_of(line).as_deref(), Some(step), "{line}");
        is("* buy_1 is written down and signed; allowed", "buy_1 is written down and signed");
        is("> shows buy_1, for the first time", "shows buy_1");
        is("< HTTP/1.1 402 Payment Required", "is answered 402 Payment Required");
        is("asking again for buy_1; nothing new is paid", "asking again for buy_1; nothing new is paid");
        is("* cut off; the same payment again in 250ms", "cut off; the same payment again in 250ms");
        let others = [
            "> GET http://127.0.0.1:1/",
            "> payment-signature: (9 bytes)",
            "< date: today",
            "* cut off",
            "paid",
        ];
        for header in others {
            assert_eq!(step_of(header), None, "{header}");
        }
    }
}
