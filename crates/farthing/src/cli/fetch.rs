//! `farthing fetch`: ask for a URL, and pay for it if that is allowed.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use farthing_approval::GrantAsk;
use farthing_policy::{Decision, Dollars};
use farthing_primitives::{Network, PurchaseId, Registry};
use farthing_wallet::client::{
    Answer, Asked, AskedAnswer, Body, Client, Considered, FetchError, HttpRequest, Objection, Options,
    Outcome, Patience, Payment, Plan, Resumed, SendError, Sessions, Settlement, Step, Watch, printable,
    shown,
};
use farthing_wallet::journal::{Journal, Purchase};
use farthing_wallet::{Denied, Offer};
use farthing_wire::mpp::sse::Event;
use farthing_wire::mpp::ws::Framing;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::{Value, json};
use url::Url;

use super::Failure;
use super::remote::{Buyer, RemoteArgs, Ways};
use super::wallet::{money_json, shown_address, shown_money, shown_network};

/// The longest request body that is read from a file or from standard input, in bytes.
const MAX_DATA_BYTES: u64 = 64 * 1024 * 1024;

/// Ask for a URL; if it has a price that the wallet's owner allows, pay it once, and print the answer
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing fetch https://api.weather.example/tomorrow --max 0.02
  farthing fetch -X POST https://api.example.com/jobs --json '{\"task\":\"sum\"}' -o answer.json
  farthing fetch --dry-run https://api.weather.example/tomorrow
  farthing fetch --cheapest https://a.example/tomorrow https://b.example/tomorrow --max 0.01
  farthing fetch --session https://api.llm.example/complete --max 0.05 --deposit 1
  farthing fetch --session wss://feed.example/prices --max 0.05    each message is a line
  farthing fetch --resume buy_…          show an earlier payment again; nothing is signed

A payment is delivered once its answer is written. If this command is stopped before, the same command
(the same method, URL, body and Idempotency-Key) asks for what was bought with the same payment, says
so (\"bought earlier\"), and pays nothing; so for a day after the settlement, unless --new is given.
How long the seller still has it is the seller's to say: a farthing gateway keeps it for 10 minutes.

The answer goes to standard output and what was paid to standard error. Where standard output is no
terminal it gets one line of JSON with both, unless -o says where the answer goes (\"-o -\" is
standard output).

Exit codes:
   0  an answer with a status of success; paid once, or free
   1  it could not be done, or a stream was not whole: what came of it is paid
   2  called wrongly
   3  the policy denies it, or the wallet cannot pay: nothing was signed
   4  a payment was shown once, and the seller refused it or says that it was not charged; the amount
      stays reserved until the chain proves that it did not move
   5  a payment was shown, and it is unknown what became of it: run the same command again, or
      --resume ID; it never pays twice
   6  nobody answered; nothing was paid
   7  a price was asked that cannot be understood; nothing was paid
  22  the answer is an HTTP error; nothing was paid")]
pub struct FetchArgs {
    /// What to ask for; several with --cheapest
    #[arg(value_name = "URL", required_unless_present = "resume")]
    urls: Vec<String>,

    /// The method; GET, or POST with -d
    #[arg(short = 'X', long = "request", value_name = "METHOD")]
    method: Option<String>,
    /// A header, as \"Name: value\"
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,
    /// A body; @FILE reads it from a file, @- from standard input
    #[arg(short = 'd', long = "data", value_name = "DATA")]
    data: Option<String>,
    /// A body of JSON, with the headers that go with it
    #[arg(long, value_name = "DATA", conflicts_with = "data")]
    json: Option<String>,
    /// Where the answer's body goes; - is standard output
    #[arg(short = 'o', long = "output", value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the answer's status and headers before its body
    #[arg(short = 'i', long = "include")]
    include: bool,
    /// Follow redirects. Credentials and payments stay at their origin
    #[arg(short = 'L', long = "location")]
    location: bool,
    /// Say nothing of what was paid
    #[arg(short = 's', long = "silent", conflicts_with = "verbose")]
    silent: bool,
    /// Say everything that happens
    #[arg(short = 'v', long = "verbose")]
    verbose: bool,
    /// Seconds for everything together
    #[arg(long, value_name = "SECONDS")]
    max_time: Option<u64>,

    /// The most that this may cost, in units of the token asked for: 0.02
    #[arg(long, value_name = "AMOUNT")]
    max: Option<String>,
    /// Where a rule of the policy wants people to approve, ask them
    #[arg(long)]
    ask: bool,
    /// Ask them for a grant, of which this would be the first payment: n=10,total=1.00,until=24h
    #[arg(long, value_name = "BOUNDS")]
    ask_grant: Option<GrantAsk>,
    /// Say what would be paid, and pay nothing
    #[arg(long)]
    dry_run: bool,
    /// The key that pays: a name, or env:NAME, file:PATH, keystore:NAME, kms:REGION/KEY_ID, pkcs11:…, dev:NUMBER
    #[arg(long, visible_alias = "key", value_name = "KEY", env = "FARTHING_PAY_WITH")]
    pay_with: Option<String>,
    /// The file whose first line is the passphrase
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    remote: RemoteArgs,
    /// Pay on this network only: base, base-sepolia, eip155:8453 …
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Pay by the unit, through a channel, and in no other way
    #[arg(long, conflicts_with = "no_session")]
    session: bool,
    /// How payments are framed on a WebSocket: as the published TypeScript package does, or the published Rust one
    #[arg(long, value_name = "FRAMING", value_enum, default_value = "mppx")]
    framing: Frames,
    /// Do not pay through a channel
    #[arg(long)]
    no_session: bool,
    /// What a channel that this opens gets as its deposit, in units of the token; otherwise what the seller suggests,
    /// within --max and the limits
    #[arg(long, value_name = "AMOUNT", conflicts_with = "no_session")]
    deposit: Option<String>,
    /// Ask all the URLs, unpaid, and pay the best offer that is permitted
    #[arg(long)]
    cheapest: bool,
    /// A node to confirm payments by, besides those that the wallet knows
    #[arg(long, value_name = "URL", env = "FARTHING_RPC", value_delimiter = ',')]
    rpc: Vec<String>,
    /// Show this earlier payment again
    #[arg(long, value_name = "ID", conflicts_with_all = ["cheapest", "dry_run"])]
    resume: Option<String>,
    /// Pay anew, also if an earlier payment for the same request has an open outcome
    #[arg(long, conflicts_with = "resume")]
    new: bool,
    /// Reach this machine's own network also where the wallet does not allow it. It is still not paid there
    #[arg(long)]
    allow_private: bool,

    /// Write what was paid to a file, as JSON
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,
    /// Print one line of JSON also on a terminal
    #[arg(long, conflicts_with_all = ["output", "include"])]
    json_report: bool,
}

/// The framings of payments on a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Frames {
    Mppx,
    MppRs,
}

impl From<Frames> for Framing {
    fn from(frames: Frames) -> Self {
        match frames {
            Frames::Mppx => Self::Mppx,
            Frames::MppRs => Self::MppRs,
        }
    }
}

/// The exit codes; see the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    Done = 0,
    Failed = 1,
    Denied = 3,
    Refused = 4,
    Unknown = 5,
    Network = 6,
    Challenge = 7,
    Http = 22,
}

/// What is to be told at the end.
struct Told {
    exit: Exit,
    outcome: &'static str,
    url: String,
    answer: Option<Answer>,
    payment: Option<Payment>,
    plan: Option<Plan>,
    sellers: Vec<Value>,
    /// Why a reservation was refused that the comparison of the offers had still permitted.
    denied: Option<Denied>,
    /// Who is told that the answer is where it belongs.
    client: Option<Client>,
    /// For people, one line each.
    lines: Vec<String>,
}

impl Told {
    fn by(self, client: Client) -> Self {
        Self { client: Some(client), ..self }
    }

    fn new(exit: Exit, outcome: &'static str, url: String) -> Self {
        Self {
            exit,
            outcome,
            url,
            answer: None,
            payment: None,
            plan: None,
            sellers: Vec::new(),
            denied: None,
            client: None,
            lines: Vec::new(),
        }
    }
}

pub async fn run(args: FetchArgs) -> ExitCode {
    let started = Instant::now();
    let told = match fetch(&args).await {
        Ok(mut told) => {
            // Some of it is what the seller said.
            told.lines.iter_mut().for_each(|line| *line = printable(line));
            told
        }
        Err(failure) => {
            eprintln!("farthing: {}", failure.message);
            return ExitCode::from(failure.code);
        }
    };
    match tell(&args, &told, started.elapsed()) {
        Ok(written) => {
            // INVARIANT: the answer is where it was to go before the journal says so. Killed in between, the same
            // command asks for it again with the same payment.
            if written == Written::Whole {
                if let Err(failure) = received(&told).await {
                    eprintln!("farthing: {}", failure.message);
                }
                // Whoever finds this command killed from here on has the goods, and would buy them a second time: what is
                // durable needs no tidying, and that time is kept as short as it can be.
                std::process::exit(i32::from(told.exit as u8));
            }
            ExitCode::from(told.exit as u8)
        }
        Err(failure) => {
            eprintln!("farthing: {}", failure.message);
            // That the answer could not be written is less than what became of the money.
            ExitCode::from(if told.exit == Exit::Done { failure.code } else { told.exit as u8 })
        }
    }
}

/// Writes down that what was paid for is delivered.
async fn received(told: &Told) -> Result<(), Failure> {
    let (Some(client), Some(payment)) = (&told.client, &told.payment) else { return Ok(()) };
    if told.outcome != "paid" {
        return Ok(());
    }
    let failed = |error: FetchError| {
        Failure::failed(format!("the answer is written, and that could not be written down: {error}"))
    };
    client.received(&payment.id).await.map_err(failed)
}

async fn fetch(args: &FetchArgs) -> Result<Told, Failure> {
    let (requests, options) = (requests(args)?, options(args)?);
    if !args.cheapest && requests.len() > 1 {
        return Err(Failure::usage("several URLs need --cheapest"));
    }
    let ways = Ways {
        remote: &args.remote,
        pay_with: args.pay_with.as_ref(),
        password_file: args.password_file.as_ref(),
        rpc: &args.rpc,
    };
    let Buyer { authorizer, views, local, .. } = ways.buyer().await?;
    let journal = local.as_ref().map(|local| &**local.journal());
    let mut patience = Patience::default();
    if let Some(secs) = args.max_time {
        patience.total = Duration::from_secs(secs);
    }
    let mut builder = Client::builder().authorizer(authorizer).patience(patience);
    for view in views {
        builder = builder.chain(view);
    }
    let client = builder.build().map_err(|error| Failure::failed(error.to_string()))?;

    if let Some(id) = &args.resume {
        let id: PurchaseId = id.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let request = requests.into_iter().next();
        let purchase = client.authorizer().purchase(&id).await;
        let url = purchase.map_err(|error| Failure::failed(error.to_string()))?.url;
        let done = client.resume(&id, request, &options).await;
        return Ok(ended(done, url, journal).by(client));
    }
    if args.cheapest {
        let told = cheapest(&client, requests, &options, journal, args.new).await?;
        return Ok(told.by(client));
    }
    let Some(request) = requests.into_iter().next() else { return Err(Failure::usage("no URL")) };
    let url = request.url.to_string();
    let done = match args.new {
        true => client.fetch(request, &options).await,
        false => client.fetch_once(request, &options).await,
    };
    Ok(ended(done, url, journal).by(client))
}

async fn cheapest(
    client: &Client,
    requests: Vec<HttpRequest>,
    options: &Options,
    journal: Option<&Journal>,
    new: bool,
) -> Result<Told, Failure> {
    // Whoever was paid by the same command before is not compared with anybody.
    if !new && !options.dry_run {
        match client.resume_any(&requests, options).await {
            Ok(None) => {}
            Ok(Some(outcome)) => {
                let url = bought_from(client, &outcome).await;
                return Ok(ended(Ok(outcome), url, journal));
            }
            Err(error) => return Ok(ended(Err(error), String::new(), journal)),
        }
    }
    let (mut asked, best) =
        client.compare(requests, options).await.map_err(|error| Failure::usage(error.to_string()))?;
    let registry = Registry::builtin();
    let sellers: Vec<Value> =
        asked.iter().enumerate().map(|(i, asked)| seller_json(&registry, asked, best == Some(i))).collect();
    let compared: Vec<String> =
        asked.iter().enumerate().map(|(i, asked)| seller_line(&registry, asked, best == Some(i))).collect();
    let mut told = match best {
        Some(best) => {
            let taken = asked.swap_remove(best);
            let url = taken.url.to_string();
            let done = match new {
                true => client.take(taken, options).await,
                false => client.take_once(taken, options).await,
            };
            ended(done, url, journal)
        }
        None => {
            let mut told = Told::new(Exit::Denied, "denied", String::new());
            // Where nobody could even be asked, there was no decision.
            if asked.iter().all(|asked| matches!(asked.answer, AskedAnswer::Failed(_))) {
                (told.exit, told.outcome) = (Exit::Network, "error");
            }
            told.lines.push("no seller makes an offer that is permitted; nothing was paid".to_owned());
            told
        }
    };
    told.sellers = sellers;
    told.lines.splice(0..0, compared);
    Ok(told)
}

/// What an outcome was bought from.
async fn bought_from(client: &Client, outcome: &Outcome) -> String {
    let id = match outcome {
        Outcome::Paid { payment, .. }
        | Outcome::Refused { payment, .. }
        | Outcome::Unknown { payment, .. } => payment.id,
        Outcome::Free(_) | Outcome::Planned(_) | Outcome::Denied { .. } => return String::new(),
    };
    client.authorizer().purchase(&id).await.map(|purchase| purchase.url).unwrap_or_default()
}

// ---------------------------------------------------------------------------------------------------------------------
// What is asked.

fn requests(args: &FetchArgs) -> Result<Vec<HttpRequest>, Failure> {
    let mut headers = HeaderMap::new();
    let body = match (&args.data, &args.json) {
        (Some(data), _) => {
            let form = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form);
            Some(data_of(data)?)
        }
        (None, Some(data)) => {
            let json = HeaderValue::from_static("application/json");
            headers.insert(header::CONTENT_TYPE, json.clone());
            headers.insert(header::ACCEPT, json);
            Some(data_of(data)?)
        }
        (None, None) => None,
    };
    let mut own = HeaderMap::new();
    for text in &args.headers {
        let wrong =
            || Failure::usage(format!("not a header: {:?}", text.split(':').next().unwrap_or_default()));
        let (name, value) = text.split_once(':').ok_or_else(wrong)?;
        let name: HeaderName = name.trim().parse().map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        own.append(name, value);
    }
    for name in own.keys() {
        headers.remove(name);
    }
    headers.extend(own);
    let method = match &args.method {
        Some(method) => method.parse().map_err(|_| Failure::usage(format!("not a method: {method:?}")))?,
        None if body.is_some() => Method::POST,
        None => Method::GET,
    };
    let body: bytes::Bytes = body.unwrap_or_default().into();
    let request = |text: &String| {
        let url: Url = match text.contains("://") {
            true => text.parse(),
            // As curl does; but what is not on this machine is asked by TLS.
            false if text.starts_with("localhost") || text.starts_with("127.") => {
                format!("http://{text}").parse()
            }
            false => format!("https://{text}").parse(),
        }
        .map_err(|error| Failure::usage(format!("not a URL: {error}")))?;
        let (url, socket) = match over_socket(&url) {
            Some(url) if method == Method::GET && body.is_empty() => (url, Some(args.framing.into())),
            Some(_) => return Err(Failure::usage("a WebSocket is asked for by GET, without a body")),
            None => (url, None),
        };
        Ok(HttpRequest { method: method.clone(), url, headers: headers.clone(), body: body.clone(), socket })
    };
    args.urls.iter().map(request).collect()
}

fn is_socket(url: &str) -> bool {
    url.parse().is_ok_and(|url| over_socket(&url).is_some())
}

/// Where the price of a WebSocket is asked for: at the same address, by HTTP.
fn over_socket(url: &Url) -> Option<Url> {
    let scheme = match url.scheme() {
        "ws" => "http",
        "wss" => "https",
        _ => return None,
    };
    let mut url = url.clone();
    url.set_scheme(scheme).ok().map(|()| url)
}

fn data_of(data: &str) -> Result<Vec<u8>, Failure> {
    let Some(path) = data.strip_prefix('@') else { return Ok(data.as_bytes().to_vec()) };
    let failed = |error: std::io::Error| Failure::usage(format!("{path}: {error}"));
    let mut source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    let mut read = Vec::new();
    source.by_ref().take(MAX_DATA_BYTES + 1).read_to_end(&mut read).map_err(failed)?;
    if read.len() as u64 > MAX_DATA_BYTES {
        return Err(Failure::usage(format!("{path} has more than {MAX_DATA_BYTES} bytes")));
    }
    Ok(read)
}

fn options(args: &FetchArgs) -> Result<Options, Failure> {
    let only = match &args.network {
        Some(name) => Some(Network::from_name(name).map_err(|error| Failure::usage(error.to_string()))?),
        None => None,
    };
    if let Some(max) = &args.max {
        // Whether it is an amount of the token asked for is known only then; that it is none of any, at once.
        Dollars::parse(max).map_err(|error| Failure::usage(format!("--max {max:?}: {error}")))?;
    }
    if let Some(deposit) = &args.deposit {
        Dollars::parse(deposit).map_err(|error| Failure::usage(format!("--deposit {deposit:?}: {error}")))?;
    }
    let sessions = match (args.session, args.no_session) {
        (true, _) => Sessions::Only,
        // Nothing else pays for a socket.
        (false, false) if args.urls.iter().any(|url| is_socket(url)) => Sessions::Only,
        (false, true) => Sessions::Never,
        (false, false) => Sessions::ByPrice,
    };
    let (verbose, silent, live) = (args.verbose, args.silent, is_live(args));
    let watch: Watch = Arc::new(move |step| match step {
        Step::Streamed(event) if live => put(event.print().as_bytes()),
        Step::Said(bytes) if live => put_message(bytes),
        step if verbose => narrate(step),
        step if !silent => summarize(step),
        _ => {}
    });
    Ok(Options {
        max: args.max.clone(),
        only,
        tool: None,
        ask_people: args.ask || args.ask_grant.is_some(),
        grant: args.ask_grant.clone(),
        follow: args.location,
        allow_private: args.allow_private,
        sessions,
        deposit: args.deposit.clone(),
        dry_run: args.dry_run,
        acknowledged: true,
        watch: Some(watch),
    })
}

/// Whether the events of a stream go to standard output as they come.
fn is_live(args: &FetchArgs) -> bool {
    let to_stdout = args.output.as_deref().is_none_or(|path| path == Path::new("-"));
    to_stdout && !reports(args)
}

fn put(bytes: &[u8]) {
    // Whoever reads no further has what they wanted.
    let mut out = std::io::stdout();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// A message is a line. A terminal gets none of what could move its cursor.
fn put_message(bytes: &[u8]) {
    let mut line = match std::io::stdout().is_terminal() {
        true => printable(&String::from_utf8_lossy(bytes)).into_bytes(),
        false => bytes.to_vec(),
    };
    line.push(b'\n');
    put(&line);
}

/// Whether one line of JSON is all that goes to standard output.
fn reports(args: &FetchArgs) -> bool {
    let piped = !std::io::stdout().is_terminal() && args.output.is_none() && !args.include;
    args.json_report || piped
}

/// Headers whose values are shown to nobody, not even to whoever asked for everything.
const SECRET: [&str; 6] =
    ["authorization", "proxy-authorization", "cookie", "set-cookie", "x-payment", "payment-signature"];

/// What a person should not have to wait for in silence. A program reads it in the report.
fn summarize(step: &Step) {
    match step {
        Step::Resuming(earlier) => eprintln!("{}", resuming(earlier)),
        // What is shorter nobody notices.
        Step::Pausing { why, pause } if pause.as_secs() > 0 && std::io::stderr().is_terminal() => {
            let secs = pause.as_secs();
            eprintln!("{}; asking again in {secs} s, with the same payment", printable(why));
        }
        _ => {}
    }
}

fn resuming(earlier: &Purchase) -> String {
    format!("asking again for {} of {}; nothing new is paid", earlier.id, earlier.created)
}

fn narrate(step: &Step) {
    match step {
        Step::Resuming(earlier) => eprintln!("* {}", resuming(earlier)),
        Step::Asking(request) => {
            eprintln!("> {} {}", request.method, shown(&request.url));
            for (name, value) in &request.headers {
                eprintln!("> {name}: {}", header_text(name, value));
            }
        }
        Step::Answered(answer) | Step::Paid(answer) => {
            eprintln!("< {:?} {}", answer.version, answer.status);
            for (name, value) in &answer.headers {
                eprintln!("< {name}: {}", header_text(name, value));
            }
        }
        Step::Redirected { to, credentials_dropped } => {
            let dropped = if *credentials_dropped { ", without credentials" } else { "" };
            eprintln!("* redirected to {}{dropped}", printable(to));
        }
        Step::Challenged(plan) => {
            let registry = Registry::builtin();
            for line in offer_lines(&registry, plan) {
                eprintln!("* {}", printable(&line));
            }
        }
        Step::Authorized(authorization) => {
            eprintln!("* {} is written down and signed; {}", authorization.id, authorization.decision);
        }
        Step::Presenting { id, time } => eprintln!("> shows {id}, for the {} time", ordinal(*time)),
        Step::Depositing { channel, time } => {
            eprintln!("> brings the deposit of channel {channel}, for the {} time", ordinal(*time));
        }
        Step::Vouching { id, required } => eprintln!("> {id} goes on: a voucher for {required} atoms"),
        Step::NotTaken { id, why } => eprintln!("< {id}: {}; waiting for the stream", printable(why)),
        Step::Streamed(event) => {
            if let Event::Message(data) = event {
                data.lines().for_each(|line| eprintln!("< {}", printable(line)));
            }
        }
        Step::Said(bytes) => eprintln!("< {}", printable(&String::from_utf8_lossy(bytes))),
        Step::NoAnswer(error) => eprintln!("* {}", printable(&error.to_string())),
        Step::Pausing { why, pause } => {
            eprintln!("* {}; the same payment again in {pause:?}", printable(why))
        }
    }
}

fn header_text(name: &HeaderName, value: &HeaderValue) -> String {
    if SECRET.contains(&name.as_str()) {
        return format!("({} bytes)", value.len());
    }
    printable(&String::from_utf8_lossy(value.as_bytes()))
}

fn ordinal(n: u32) -> String {
    match n {
        1 => "first".to_owned(),
        2 => "second".to_owned(),
        3 => "third".to_owned(),
        n => format!("{n}th"),
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// How it ended.

fn ended(done: Result<Outcome, FetchError>, url: String, journal: Option<&Journal>) -> Told {
    let registry = Registry::builtin();
    let mut told = Told::new(Exit::Failed, "error", url);
    match done {
        Ok(Outcome::Free(answer)) => {
            let status = answer.status;
            let fine = !status.is_client_error() && !status.is_server_error();
            (told.exit, told.outcome) = (if fine { Exit::Done } else { Exit::Http }, "free");
            told.lines.push(format!("{status}, and nothing to pay"));
            told.answer = Some(answer);
        }
        Ok(Outcome::Planned(plan)) => {
            (told.exit, told.outcome) = (Exit::Done, "planned");
            told.lines = offer_lines(&registry, &plan);
            if plan.best.is_none() {
                told.exit = Exit::Denied;
            }
            told.lines.push("a dry run: nothing was signed".to_owned());
            told.plan = Some(plan);
        }
        Ok(Outcome::Paid { answer, payment }) => {
            (told.exit, told.outcome) = (Exit::Done, "paid");
            told.lines = payment_lines(&registry, &payment);
            // Whoever reads it on from standard output could not tell that there was to be more.
            if payment.streamed && payment.note.as_deref().is_some_and(|note| note.starts_with("stream_")) {
                told.exit = Exit::Failed;
                told.lines.push("the stream is not whole: what came of it is paid".to_owned());
            }
            told.answer = Some(answer);
            told.payment = Some(payment);
        }
        Ok(Outcome::Denied { plan, denied }) => {
            (told.exit, told.outcome) = (Exit::Denied, "denied");
            told.lines = offer_lines(&registry, &plan);
            told.lines.extend(denied.as_ref().map(|denied| format!("denied: {denied}")));
            told.lines.push("nothing was paid".to_owned());
            told.lines.extend(advice(&plan, denied.as_ref()));
            match &plan.ticket {
                Some(Ok(ticket)) => told.lines.push(format!(
                    "people are asked: farthing approval approve {}; then run the same command again before {}",
                    ticket.id, ticket.expires
                )),
                Some(Err(denied)) => told.lines.push(format!("people cannot be asked: {denied}")),
                None => {}
            }
            told.plan = Some(plan);
            told.denied = denied;
        }
        Ok(Outcome::Refused { answer, payment, reason }) => {
            (told.exit, told.outcome) = (Exit::Refused, "refused");
            told.lines = payment_lines(&registry, &payment);
            let status = answer.status;
            told.lines.push(match status.is_server_error() {
                true => format!("the seller failed, and says that nothing was charged: {reason} ({status})"),
                false => format!("the seller refused: {reason}"),
            });
            told.lines.push(match payment.settlement {
                Settlement::Confirmed | Settlement::Claimed => format!(
                    "it was paid: ask for the goods again with the same command, or with: farthing fetch --resume {}",
                    payment.id
                ),
                Settlement::Unproven | Settlement::Contradicted(_) => format!(
                    "the amount stays reserved: the payment could be settled until {}. \"farthing wallet history \
                     --check\" frees it once the chain proves that it was not",
                    payment.expires
                ),
            });
            told.answer = Some(answer);
            told.payment = Some(payment);
        }
        Ok(Outcome::Unknown { answer, payment, why }) => {
            (told.exit, told.outcome) = (Exit::Unknown, "unknown");
            told.lines = payment_lines(&registry, &payment);
            told.lines.push(format!("UNKNOWN whether it was settled: {why}"));
            told.lines.push(format!(
                "ask again with the same command, or with: farthing fetch --resume {}. It never pays twice",
                payment.id
            ));
            told.answer = answer;
            told.payment = Some(payment);
        }
        Err(error) => failed(error, &mut told, journal),
    }
    told
}

fn failed(error: FetchError, told: &mut Told, journal: Option<&Journal>) {
    told.lines.push(error.to_string());
    told.exit = match &error {
        FetchError::Send(SendError::Private(_)) => {
            told.lines.push("if it is meant to be reached: farthing wallet allow HOST".to_owned());
            Exit::Denied
        }
        FetchError::Send(_) | FetchError::Truncated | FetchError::TooLarge { .. } => Exit::Network,
        FetchError::Challenge { .. } => Exit::Challenge,
        FetchError::Denied(Denied::Journal(_) | Denied::Unavailable) => Exit::Failed,
        FetchError::Denied(_) => Exit::Denied,
        // The same command brings the same deposit, or asks for the same purchase.
        FetchError::Deposit { .. } => {
            told.lines.push("ask again with the same command: the same deposit is brought".to_owned());
            Exit::Unknown
        }
        FetchError::Voucher(_) | FetchError::NothingToShow(_) | FetchError::OtherRequest => Exit::Failed,
        FetchError::Url(_)
        | FetchError::Redirects
        | FetchError::BodyElsewhere
        | FetchError::BadRedirect
        | FetchError::Sellers => Exit::Failed,
    };
    match error {
        FetchError::Challenge { answer, .. } => told.answer = Some(*answer),
        FetchError::Denied(denied) => told.denied = Some(denied),
        _ => {}
    }
    let frozen = journal.is_some_and(|journal| journal.rules().is_ok_and(|rules| rules.frozen));
    if frozen {
        told.lines.push("the wallet is frozen: farthing wallet unfreeze".to_owned());
    }
}

/// What an owner can do about a denial that is easily mended.
fn advice(plan: &Plan, denied: Option<&Denied>) -> Option<String> {
    let objection = || plan.considered.iter().find_map(|c| c.objection.as_ref()).map(Objection::code);
    let code = denied.map(Denied::code).or_else(objection)?;
    match code {
        "host_not_allowed" | "private_address_not_allowed" => {
            Some(format!("to allow it: farthing wallet allow {}", plan.origin.authority()))
        }
        "scheme_not_allowed" => {
            Some("to allow payments through channels: farthing wallet allow --scheme session".to_owned())
        }
        "network_not_allowed" => Some("to allow a network: farthing wallet allow --network NAME".to_owned()),
        "over_payment_cap" | "over_hour_cap" | "over_day_cap" => {
            Some("to allow more: farthing wallet limit --per-payment … --hour … --day …".to_owned())
        }
        "payee_changed" => Some(format!(
            "if the seller says the same elsewhere: farthing wallet allow {} --payee ADDRESS",
            plan.origin.authority()
        )),
        _ => None,
    }
}

fn payment_lines(registry: &Registry, payment: &Payment) -> Vec<String> {
    // Signed is not paid: without any word of a settlement the money may never have moved.
    let verb = if payment.settlement == Settlement::Unproven { "signed" } else { "paid" };
    let mut lines = vec![format!(
        "{verb} {} on {} to {} ({})",
        shown_money(registry, &payment.money),
        shown_network(payment.money.asset().network()),
        shown_address(&payment.payee),
        payment.id,
    )];
    let tx = payment.tx.as_deref().map(|tx| format!("{tx}, ")).unwrap_or_default();
    lines.push(match &payment.settlement {
        Settlement::Contradicted(why) => format!("settlement contradicted: {tx}{why}"),
        settlement => format!("settlement {tx}{}", settlement.name()),
    });
    lines.extend(payment.note.as_ref().map(|note| format!("note: {note}")));
    let Resumed { times, replayed } = payment.resumed;
    if times > 0 {
        lines.push(format!(
            "the stream broke off; asked {times} times to go on, {replayed} events came again for nothing"
        ));
    }
    if let Some(earlier) = payment.earlier {
        lines.insert(0, format!("bought earlier, at {earlier}; nothing was paid by this command"));
    }
    lines
}

fn offer_lines(registry: &Registry, plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    for (i, considered) in plan.considered.iter().enumerate() {
        let offer = &considered.intent.offer;
        let money = offer.money();
        let verdict = match (&considered.objection, plan.best == Some(i)) {
            (Some(objection), _) => format!("no: {objection}"),
            (None, true) => "chosen".to_owned(),
            (None, false) => "permitted".to_owned(),
        };
        lines.push(format!(
            "offer: {}{} on {} to {}: {verdict}",
            shown_money(registry, &money),
            by_the_unit(registry, considered),
            shown_network(money.asset().network()),
            shown_address(offer.payee()),
        ));
    }
    lines.extend(plan.unreadable.iter().map(|error| format!("offer that cannot be read: {error}")));
    lines
}

/// What a price is for, if it is one by the unit, and what a session takes besides.
fn by_the_unit(registry: &Registry, considered: &Considered) -> String {
    let Offer::Session(offer) = &considered.intent.offer else { return String::new() };
    let unit = offer.session().unit_type.as_deref().unwrap_or("request");
    let unit: String = unit.chars().filter(|c| !c.is_control()).take(32).collect();
    match considered.session.as_ref().map(|quote| (&quote.channel, &quote.deposit)) {
        Some((Some(_), _)) => format!(" for each {unit}, from the open channel"),
        Some((None, Some(deposit))) => {
            format!(" for each {unit}, from a new channel with {}", shown_money(registry, deposit))
        }
        _ => format!(" for each {unit}"),
    }
}

fn seller_line(registry: &Registry, asked: &Asked, best: bool) -> String {
    let what = match &asked.answer {
        AskedAnswer::Free(answer) => format!("{}, and nothing to pay", answer.status),
        AskedAnswer::Failed(error) => error.to_string(),
        AskedAnswer::Priced(plan) => match (plan.chosen(), plan.considered.first()) {
            (Some(chosen), _) => shown_money(registry, &chosen.intent.offer.money()),
            (None, Some(first)) => {
                let why = first.objection.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("{}, not permitted: {why}", shown_money(registry, &first.intent.offer.money()))
            }
            (None, None) => "no offer that can be read".to_owned(),
        },
    };
    format!("{} {}: {what}", if best { "*" } else { " " }, shown(&asked.url))
}

// ---------------------------------------------------------------------------------------------------------------------
// The same as JSON.

fn seller_json(registry: &Registry, asked: &Asked, chosen: bool) -> Value {
    let mut json = json!({ "url": shown(&asked.url), "chosen": chosen });
    match &asked.answer {
        AskedAnswer::Free(answer) => json["status"] = answer.status.as_u16().into(),
        AskedAnswer::Failed(error) => json["error"] = error.to_string().into(),
        AskedAnswer::Priced(plan) => {
            json["status"] = 402.into();
            json["offers"] = offers_json(registry, plan);
        }
    }
    json
}

fn offers_json(registry: &Registry, plan: &Plan) -> Value {
    let offers = plan.considered.iter().enumerate().map(|(i, considered)| {
        let offer = &considered.intent.offer;
        json!({
            "dialect": offer.dialect(),
            "x402_version": offer.version(),
            "scheme": offer.scheme(),
            "money": money_json(registry, &offer.money()),
            "payee": offer.payee().to_string(),
            "unit": match offer {
                Offer::Session(session) => Some(session.session().unit_type.as_deref().unwrap_or("request")),
                _ => None,
            },
            "channel": considered.session.as_ref().and_then(|s| s.channel).map(|id| id.to_string()),
            "deposit": considered.session.as_ref().and_then(|s| s.deposit.as_ref()).map(|d| money_json(registry, d)),
            "chosen": plan.best == Some(i),
            "objection": considered.objection.as_ref().map(|o| json!({ "code": o.code(), "text": o.to_string() })),
            "decision": considered.decision.as_ref().map(decision_json),
        })
    });
    offers.collect::<Vec<_>>().into()
}

fn decision_json(decision: &Decision) -> Value {
    let findings: Vec<Value> = decision
        .findings
        .iter()
        .map(|fact| json!({ "rule": fact.code(), "denies": fact.denies(), "text": fact.to_string() }))
        .collect();
    json!({ "allowed": decision.is_allowed(), "findings": findings })
}

fn payment_json(registry: &Registry, payment: &Payment) -> Value {
    json!({
        "id": payment.id.to_string(),
        "money": money_json(registry, &payment.money),
        "payee": payment.payee.to_string(),
        "payer": payment.payer.to_string(),
        "expires": payment.expires.to_string(),
        "bought_earlier": payment.earlier.map(|at| at.to_string()),
        "settlement": payment.settlement.name(),
        "transaction": payment.tx,
        "shown": payment.shown,
        "note": payment.note,
        "resumed": { "times": payment.resumed.times, "replayed": payment.resumed.replayed },
        "decision": payment.decision.as_ref().map(decision_json),
    })
}

/// Why nothing was signed: what refused the reservation, else what stood against the first offer.
fn denial(told: &Told) -> Option<(&str, String)> {
    if let Some(denied) = &told.denied {
        return Some((denied.code(), denied.to_string()));
    }
    let plan = told.plan.as_ref().filter(|plan| plan.best.is_none())?;
    let objection = plan.considered.iter().find_map(|considered| considered.objection.as_ref())?;
    Some((objection.code(), objection.to_string()))
}

fn report(told: &Told, with_body: bool, took: Duration) -> Value {
    let registry = Registry::builtin();
    let payment = told.payment.as_ref();
    let receipt = payment.and_then(|payment| payment.receipt.as_deref());
    let receipt: Option<Value> = receipt.and_then(|text| serde_json::from_str(text).ok());
    let url = told.url.parse().map_or_else(|_| told.url.clone(), |url| shown(&url));
    let mut json = json!({
        "outcome": told.outcome,
        "exit": told.exit as u8,
        "url": url,
        "status": told.answer.as_ref().map(|answer| answer.status.as_u16()),
        "payment": payment.map(|payment| payment_json(&registry, payment)),
        "receipt": receipt,
        "offers": told.plan.as_ref().map(|plan| offers_json(&registry, plan)),
        "denied": denial(told).map(|(code, text)| json!({ "code": code, "text": text })),
        "messages": told.lines,
        "took_ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
    });
    let ticket = told.plan.as_ref().and_then(|plan| plan.ticket.as_ref());
    if let Some(ticket) = ticket {
        json["approval"] = match ticket {
            Ok(ticket) => json!({
                "id": ticket.id.to_string(),
                "status": ticket.status.name(),
                "quorum": ticket.quorum,
                "expires": ticket.expires.to_string(),
                "text": ticket.text,
            }),
            Err(denied) => json!({ "error": denied.code(), "text": denied.to_string() }),
        };
    }
    if !told.sellers.is_empty() {
        json["sellers"] = told.sellers.clone().into();
    }
    if let Some(body) = told.answer.as_ref().filter(|_| with_body).and_then(|answer| answer.body.complete()) {
        match std::str::from_utf8(body) {
            Ok(text) => {
                json["body"] = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text));
            }
            Err(_) => {
                json["body_hex"] = hex::encode(body).into();
            }
        }
    }
    json
}

/// What became of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    /// All of it is where it was to go, as far as the operating system says.
    Whole,
    /// Whoever was to read it closed before the end.
    Broken,
    /// There is none.
    Nothing,
}

fn tell(args: &FetchArgs, told: &Told, took: Duration) -> Result<Written, Failure> {
    if let Some(path) = &args.receipt {
        let text = format!("{}\n", report(told, false, took));
        std::fs::write(path, text)
            .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    if reports(args) {
        // What a program reads on standard output, a person may still want to see beside it.
        return write_out(None, format!("{}\n", report(told, true, took)).as_bytes());
    }
    if !args.silent {
        for line in &told.lines {
            eprintln!("{line}");
        }
        if told.payment.is_some() {
            eprintln!("took {} ms", took.as_millis());
        }
    }
    let Some(answer) = &told.answer else { return Ok(Written::Nothing) };
    // The events of a stream are out already.
    if is_live(args) && told.payment.as_ref().is_some_and(|payment| payment.streamed) {
        return Ok(Written::Whole);
    }
    let mut bytes = Vec::new();
    if args.include {
        bytes.extend_from_slice(format!("{:?} {}\r\n", answer.version, answer.status).as_bytes());
        for (name, value) in &answer.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.extend_from_slice(b": ");
            bytes.extend_from_slice(value.as_bytes());
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"\r\n");
    }
    match &answer.body {
        Body::Complete(body) => bytes.extend_from_slice(body),
        Body::Truncated(_) => return Err(Failure::failed("the answer broke off")),
        Body::TooLarge { limit } => {
            return Err(Failure::failed(format!("the answer has more than {limit} bytes")));
        }
    }
    write_out(args.output.as_deref().filter(|path| *path != Path::new("-")), &bytes)
}

fn write_out(path: Option<&Path>, bytes: &[u8]) -> Result<Written, Failure> {
    match path {
        Some(path) => {
            let written = write_file(path, bytes);
            written.map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
            Ok(Written::Whole)
        }
        None => {
            let mut out = std::io::stdout();
            match out.write_all(bytes).and_then(|()| out.flush()) {
                // Whoever reads no further has what they wanted.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Written::Broken),
                Err(error) => Err(Failure::failed(error.to_string())),
                Ok(()) => Ok(Written::Whole),
            }
        }
    }
}

/// Writes a file, down to the disk where it is one: what was paid for survives what the journal survives.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    if file.metadata()?.is_file() { file.sync_all() } else { file.flush() }
}

#[cfg(test)]
mod tests;
