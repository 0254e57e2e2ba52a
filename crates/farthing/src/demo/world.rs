//! The world that the stories happen in: a chain, a facilitator, sellers with their gateways, buyers with their wallets.
//!
//! Everything but the sellers' own services is a process of this binary, started by its public commands.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use farthing_devnet::{DEV_ACCOUNTS, DevAccount};

use super::books::{Party, Settler};
use super::child::{Service, TempDir, command, serve, succeed};
use super::node::Node;
use super::sellers::Sellers;
use crate::cli::Failure;

/// The chain id that every part of this world expects: Base Sepolia's, on a chain that is not it.
const CHAIN_ID: u128 = 84_532;
pub const NETWORK: &str = "base-sepolia";

/// Which development account everybody has. The first is left to whoever set the chain up.
pub const RELAYER: usize = 17;
const ATTACKER: usize = 10;
/// Where a wallet that is to start with nothing leaves what it has.
const DONOR: usize = 11;

/// A buyer, and what its owner allows.
struct Buyer {
    name: &'static str,
    account: usize,
    per_payment: &'static str,
    hour: &'static str,
    day: &'static str,
    /// The sellers it may pay.
    sellers: &'static [&'static str],
    /// Whether it starts without any USDC.
    broke: bool,
}

const BUYERS: [Buyer; 4] = [
    Buyer {
        name: "agent",
        account: 1,
        per_payment: "0.10",
        hour: "1",
        day: "5",
        sellers: &["nimbus", "stratus", "cirrus"],
        broke: false,
    },
    Buyer {
        name: "car",
        account: 2,
        per_payment: "0.20",
        hour: "0.25",
        day: "2",
        sellers: &["volt"],
        broke: false,
    },
    Buyer {
        name: "researcher",
        account: 3,
        per_payment: "0.10",
        hour: "1",
        day: "5",
        sellers: &["coder"],
        broke: false,
    },
    Buyer {
        name: "coder",
        account: 4,
        per_payment: "0.02",
        hour: "0.10",
        day: "1",
        sellers: &["compute"],
        broke: true,
    },
];

/// A seller: its account, and the lines of its `farthing.toml` that say what costs how much. `HERE` is its service.
struct Seller {
    name: &'static str,
    account: usize,
    routes: &'static str,
    /// Whether its own key opens and closes channels, and pays for that. Everything else the facilitator settles.
    sells_by_unit: bool,
}

const SELLERS: [Seller; 6] = [
    Seller {
        name: "nimbus",
        account: 5,
        routes: r#"
[[route]]
match = "GET /tomorrow"
price = "$0.004"

[[route]]
match = "GET /archive"
price = "$2.50"
"#,
        sells_by_unit: false,
    },
    Seller {
        name: "stratus",
        account: 6,
        routes: r#"
[[route]]
match = "GET /today"
price = "$0.0025"

[[route]]
match = "GET /tomorrow"
price = "$0.0025"
"#,
        sells_by_unit: false,
    },
    Seller {
        name: "cirrus",
        account: 7,
        routes: r#"
[[route]]
match = "GET /tomorrow"
accept = [{ asset = "EURC", atoms = "1000" }]
"#,
        sells_by_unit: false,
    },
    Seller {
        name: "volt",
        account: 8,
        routes: r#"
[[route]]
match = "GET /charge"
session = { price = "$0.00018", unit = "watt-hour", meter = "json:wh", stream = true, suggested_deposit = "$0.20", min_voucher_delta = "$0.0036", patience = "5s" }
"#,
        sells_by_unit: true,
    },
    Seller {
        name: "coder",
        account: 4,
        routes: r#"
[[route]]
match = "POST /jobs"
price = "$0.05"
flow = "upfront"
"#,
        sells_by_unit: false,
    },
    Seller {
        name: "compute",
        account: 9,
        routes: r#"
[[route]]
match = "POST /run"
price_hook = "HERE/quote"
"#,
        sells_by_unit: false,
    },
];

/// The running world. Dropping it ends every process and removes every file.
#[derive(Debug)]
pub struct World {
    pub program: PathBuf,
    pub node: Node,
    pub rpc_url: String,
    /// Whether the chain is our own, and not one that was given.
    pub embedded: bool,
    /// Where each seller's gateway is, by name.
    pub urls: BTreeMap<&'static str, String>,
    pub facilitator_url: String,
    pub sellers: Sellers,
    // The services end before their files go: fields are dropped in this order.
    _services: Vec<Service>,
    dir: TempDir,
}

impl World {
    /// Starts everything. `rpc` is a chain with USDC for the development accounts; without it there is our own.
    pub async fn start(http: reqwest::Client, rpc: Option<&str>) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("the world cannot be set up: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let dir = TempDir::new().map_err(failed)?;
        link(&program, dir.path()).map_err(failed)?;
        let mut services = Vec::new();
        let rpc_url = match rpc {
            Some(url) => url.to_owned(),
            None => {
                let devnet =
                    serve(command(&program, ["devnet", "--listen", "127.0.0.1:0"]), "the chain").await?;
                let url = devnet.url.clone();
                services.push(devnet);
                url
            }
        };
        let node = Node::new(http, &rpc_url);
        expect_chain(&node).await?;
        let sellers = Sellers::start().await.map_err(failed)?;
        let facilitator = serve(facilitator(&program, &rpc_url, dir.path())?, "the facilitator").await?;
        let facilitator_url = facilitator.url.clone();
        services.push(facilitator);
        let mut urls = BTreeMap::new();
        let starting = SELLERS.iter().map(|seller| {
            let place = Place {
                rpc: &rpc_url,
                facilitator: &facilitator_url,
                upstream: &sellers.url,
                dir: dir.path(),
            };
            gateway(&program, seller, place)
        });
        for (seller, started) in SELLERS.iter().zip(futures_util::future::join_all(starting).await) {
            let service = started?;
            urls.insert(seller.name, service.url.clone());
            services.push(service);
        }
        let embedded = rpc.is_none();
        let world = Self {
            program,
            node,
            rpc_url,
            embedded,
            urls,
            facilitator_url,
            sellers,
            _services: services,
            dir,
        };
        let wallets = BUYERS.iter().map(|buyer| world.wallet(buyer));
        for done in futures_util::future::join_all(wallets).await {
            done?;
        }
        Ok(world)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The wallet of a buyer.
    pub fn home(&self, buyer: &str) -> PathBuf {
        self.dir.path().join("wallets").join(buyer)
    }

    /// The store of a seller, or of the facilitator.
    pub fn store(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.db"))
    }

    pub fn url(&self, seller: &str) -> String {
        self.urls.get(seller).cloned().unwrap_or_default()
    }

    /// Everybody whose money the summary follows.
    pub fn parties(&self) -> Result<Vec<Party>, Failure> {
        let mut parties: Vec<Party> = Vec::new();
        for buyer in &BUYERS {
            parties.push(Party {
                name: buyer.name,
                address: address(buyer.account)?,
                home: Some(self.home(buyer.name)),
                store: None,
            });
        }
        for seller in &SELLERS {
            let store = Some(self.store(seller.name));
            match parties.iter_mut().find(|party| party.name == seller.name) {
                Some(both) => both.store = store,
                None => parties.push(Party {
                    name: seller.name,
                    address: address(seller.account)?,
                    home: None,
                    store,
                }),
            }
        }
        Ok(parties)
    }

    /// Everybody who sends transactions.
    pub fn settlers(&self) -> Result<Vec<Settler>, Failure> {
        let facilitator = Settler {
            name: "facilitator",
            store: self.store("facilitator"),
            relayer: address(RELAYER)?,
            relays: true,
        };
        let mut settlers = vec![facilitator];
        for seller in SELLERS.iter().filter(|seller| seller.sells_by_unit) {
            let (name, relayer) = (seller.name, address(seller.account)?);
            settlers.push(Settler { name, store: self.store(name), relayer, relays: false });
        }
        Ok(settlers)
    }

    pub fn attacker(&self) -> Result<DevAccount, Failure> {
        account(ATTACKER)
    }

    /// What a story finds in its surroundings, for the wallet of this buyer.
    pub fn environment(&self, buyer: &str) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> =
            self.urls.iter().map(|(name, url)| (name.to_uppercase(), url.clone())).collect();
        env.push(("FARTHING_HOME".to_owned(), self.home(buyer).display().to_string()));
        env
    }

    /// A `PATH` on which `farthing` is this very binary.
    pub fn path(&self) -> std::ffi::OsString {
        let own = self.dir.path().join("bin");
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let all = std::iter::once(own).chain(std::env::split_paths(&rest));
        std::env::join_paths(all).unwrap_or(rest)
    }
}

/// Lets stories say `farthing`, whatever this binary is called and wherever it lies.
fn link(program: &Path, dir: &Path) -> std::io::Result<()> {
    let bin = dir.join("bin");
    std::fs::create_dir(&bin)?;
    std::os::unix::fs::symlink(program, bin.join("farthing"))
}

/// Everything here signs with keys that everybody knows, so a public chain is refused, also one with the right number.
pub async fn expect_chain(node: &Node) -> Result<(), Failure> {
    let chain = node.chain_id().await?;
    if chain != CHAIN_ID {
        return Err(Failure::usage(format!(
            "the demonstration needs a development chain with the id {CHAIN_ID}, and this one has {chain}"
        )));
    }
    if !node.signs_for(&address(RELAYER)?).await? {
        return Err(Failure::usage(
            "this is no development chain: its node does not hold the development accounts",
        ));
    }
    Ok(())
}

pub fn account(index: usize) -> Result<DevAccount, Failure> {
    DEV_ACCOUNTS
        .get(index)
        .copied()
        .ok_or_else(|| Failure::failed("there are not so many development accounts"))
}

pub fn address(index: usize) -> Result<String, Failure> {
    Ok(account(index)?.address.to_string().to_lowercase())
}

pub fn secret(index: usize) -> Result<String, Failure> {
    Ok(account(index)?.private_key.to_string())
}

fn facilitator(program: &Path, rpc: &str, dir: &Path) -> Result<tokio::process::Command, Failure> {
    let mut command =
        command(program, ["facilitator", "--listen", "127.0.0.1:0", "--network", "eip155:84532"]);
    command
        .args(["--rpc", rpc, "--relayer-key", "env:RELAYER_KEY", "--store"])
        .arg(dir.join("facilitator.db"));
    command.env("RELAYER_KEY", secret(RELAYER)?);
    Ok(command)
}

#[derive(Clone, Copy)]
struct Place<'a> {
    rpc: &'a str,
    facilitator: &'a str,
    upstream: &'a str,
    dir: &'a Path,
}

/// Writes what a seller would write, and starts its gateway.
async fn gateway(program: &Path, seller: &Seller, place: Place<'_>) -> Result<Service, Failure> {
    let Place { rpc, facilitator, upstream, dir } = place;
    let Seller { name, account, routes, sells_by_unit } = seller;
    let here = format!("{upstream}/{name}");
    let pay_to = address(*account)?;
    let routes = routes.replace("HERE", &here);
    // Blocks pass quickly where nothing is at stake: what the key paid for gas is booked some of them later.
    let key = match sells_by_unit {
        true => "relayer_key = \"env:RELAYER_KEY\"\nblock_time = \"50ms\"\n",
        false => "",
    };
    let text = format!(
        r#"# What {name} sells, and for how much.
[gateway]
listen = "127.0.0.1:0"
upstream = "{here}"
network = "{NETWORK}"
pay_to = "{pay_to}"

[store]
path = "{name}.db"

[facilitator]
remote = ["{facilitator}"]

[networks.{NETWORK}]
rpc = ["{rpc}"]
{key}{routes}"#
    );
    let file = dir.join(format!("{name}.toml"));
    std::fs::write(&file, text).map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    let mut command = command(program, ["gateway", "-c"]);
    command.arg(&file);
    if *sells_by_unit {
        command.env("RELAYER_KEY", secret(*account)?);
    }
    serve(command, &format!("the gateway of {name}")).await
}

// ---------------------------------------------------------------------------------------------------------------------
// Wallets.

impl World {
    /// Makes a buyer's wallet by the commands that an owner would use.
    async fn wallet(&self, buyer: &Buyer) -> Result<(), Failure> {
        let number = buyer.account.to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let mut allow = words(&["wallet", "allow", "--network", NETWORK, "--rpc", &self.rpc_url]);
        if SELLERS.iter().any(|seller| seller.sells_by_unit && buyer.sellers.contains(&seller.name)) {
            allow.extend(words(&["--scheme", "session"]));
        }
        allow.extend(buyer.sellers.iter().map(|seller| self.url(seller)));
        let steps = [
            words(&["wallet", "new", "--devnet", &number]),
            words(&[
                "wallet",
                "limit",
                "--per-payment",
                buyer.per_payment,
                "--hour",
                buyer.hour,
                "--day",
                buyer.day,
            ]),
            allow,
        ];
        for step in steps {
            let mut command = command(&self.program, &step);
            command.env("FARTHING_HOME", self.home(buyer.name));
            succeed(command, &format!("the wallet of {}: farthing {}", buyer.name, step.join(" "))).await?;
        }
        Ok(())
    }

    /// Every buyer's home, by its name.
    pub fn homes(&self) -> BTreeMap<&'static str, PathBuf> {
        BUYERS.iter().map(|buyer| (buyer.name, self.home(buyer.name))).collect()
    }

    pub fn address_of(&self, buyer: &str) -> Result<String, Failure> {
        let known = BUYERS.iter().find(|known| known.name == buyer);
        address(known.ok_or_else(|| Failure::failed(format!("there is no buyer called {buyer}")))?.account)
    }

    /// Takes their USDC from those that are to start with nothing.
    pub async fn empty_broke_wallets(&self) -> Result<(), Failure> {
        let donor = address(DONOR)?;
        for buyer in BUYERS.iter().filter(|buyer| buyer.broke) {
            let from = address(buyer.account)?;
            let has = self.node.usdc(&from).await?;
            if has > 0 {
                self.node.move_usdc(&from, &donor, has).await?;
            }
        }
        Ok(())
    }
}
