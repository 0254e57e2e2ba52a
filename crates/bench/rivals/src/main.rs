//! One decision about one payment, by us, by Cedar and by CEL, in turns: a thousand rules of which one allows, and the budgets
//! of an agent who is four levels deep. Prints one line of JSON, in microseconds.
//!
//! The three are not the same work. Ours reads what was spent in twenty rolling windows and names every rule and number that
//! decided. Cedar and CEL count nothing: what is left of each budget is given to them as if it were known.

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet};
use cel::Program;
use farthing_policy::{Bucket, Caller, Charge, History, Law, Meters, Movement, Origin, Policy, Request, Source};
use farthing_primitives::{Address, Network, Registry, Timestamp};
use serde_json::json;

const RULES: usize = 1_000;
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);
const BUDGETS: [&str; 4] = ["acme", "acme/research", "acme/research/weather", "acme/research/weather/scout"];
const ATOMS: i64 = 1_000;
const ROUNDS: usize = 40;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let (mut ours, mut cedar, mut cel) = (ours()?, cedar()?, cel()?);
    let mut took = [Vec::new(), Vec::new(), Vec::new()];
    // In turns, so that whatever else the machine does strikes all of them alike.
    for _ in 0..ROUNDS {
        time(&mut took[0], 500, &mut ours)?;
        time(&mut took[1], 10, &mut cedar)?;
        time(&mut took[2], 10, &mut cel)?;
    }
    let [ours, cedar, cel] = took.map(|mut took| {
        took.sort_unstable();
        let at = |part: usize| took.get((took.len() - 1) * part / 100).map_or(0.0, Duration::as_micros_exact);
        json!({ "p50_us": at(50), "p99_us": at(99), "decisions": took.len() })
    });
    println!("{}", json!({ "rules": RULES, "ours": ours, "cedar": cedar, "cel": cel }));
    Ok(())
}

trait Micros {
    fn as_micros_exact(&self) -> f64;
}

impl Micros for Duration {
    fn as_micros_exact(&self) -> f64 {
        self.as_secs_f64() * 1e6
    }
}

fn time(
    took: &mut Vec<Duration>,
    times: usize,
    decide: &mut impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    for _ in 0..times {
        let began = Instant::now();
        let allowed = black_box(decide()?);
        took.push(began.elapsed());
        if !allowed {
            return Err("the payment is allowed by one rule and all budgets, and was denied".into());
        }
    }
    Ok(())
}

/// By the policy of a file, with a past of ten thousand payments.
fn ours() -> Result<impl FnMut() -> Result<bool, Failure>, Failure> {
    let mut text = "version: 1\nbudgets:\n".to_owned();
    for name in BUDGETS {
        writeln!(text, "  {name}: {{per_payment: $1, rolling: {{1h: $500, 24h: $500}}, per_host: {{24h: $500}}, payments: {{1m: 100000}}}}")?;
    }
    text.push_str("allow:\n");
    for i in 0..RULES {
        writeln!(text, "  - {{hosts: [seller-{i}.example], paths: [/v1/*], methods: [GET], schemes: [exact]}}")?;
    }
    let law = Law::Policy { frozen: false, policy: Arc::new(Policy::parse(&text)?) };
    let (registry, url) = (Registry::builtin(), url::Url::parse("https://seller-999.example/v1/now")?);
    let usdc = registry.dollar(&Network::eip155(8453)).ok_or("no dollar")?;
    let request = Request {
        scheme: "exact".to_owned(),
        charge: Charge::of(&registry, usdc.atoms(ATOMS.unsigned_abs().into()))?,
        price: None,
        payee: Address::from_evm_bytes([1; 20]),
        origin: Origin::of(&url)?,
        private: false,
        max: None,
        only: None,
        validity: Duration::from_secs(60),
        screened: None,
        caller: Caller {
            agent: Some(BUDGETS[3].parse()?),
            method: "GET".to_owned(),
            url: url.to_string(),
            path: url.path().to_owned(),
            ..Caller::default()
        },
    };
    let mut meters = Meters::default();
    for i in 0..10_000 {
        let (until, of) = (NOW.minus(Duration::from_secs(i * 8)), Arc::new(Source::of(&request)));
        meters.add(&law, &Movement { bucket: Bucket::Dollar, amount: 1_000_000_000_000, until, of });
    }
    let pinned = vec![request.payee.clone()];
    Ok(move || {
        let sums = meters.read(&law, &Source::of(black_box(&request)), NOW);
        let history = History { sums, pinned: pinned.clone(), ..History::default() };
        Ok(law.decide(&history, &request, NOW).is_allowed())
    })
}

fn cedar() -> Result<impl FnMut() -> Result<bool, Failure>, Failure> {
    let mut text = String::new();
    for i in 0..RULES {
        writeln!(
            text,
            "permit(principal, action == Action::\"pay\", resource) when {{ context.host == \"seller-{i}.example\" && context.path like \"/v1/*\" \
             && context.method == \"GET\" && context.scheme == \"exact\" }};"
        )?;
    }
    for at in 0..BUDGETS.len() {
        writeln!(text, "forbid(principal, action, resource) when {{ context.atoms > context.remaining_{at} }};")?;
    }
    let policies: PolicySet = text.parse()?;
    let (authorizer, entities) = (Authorizer::new(), Entities::empty());
    let uid = |text: &str| text.parse::<EntityUid>();
    let who = (uid("Agent::\"scout\"")?, uid("Action::\"pay\"")?, uid("Seller::\"seller\"")?);
    Ok(move || {
        let context = Context::from_json_value(
            json!({
                "host": "seller-999.example", "path": "/v1/now", "method": "GET", "scheme": "exact", "atoms": ATOMS,
                "remaining_0": 1_000_000, "remaining_1": 1_000_000, "remaining_2": 1_000_000, "remaining_3": 1_000_000,
            }),
            None,
        )?;
        let (principal, action, resource) = who.clone();
        let asked = cedar_policy::Request::new(principal, action, resource, context, None)?;
        let answer = authorizer.is_authorized(&asked, &policies, &entities);
        Ok(answer.decision() == cedar_policy::Decision::Allow)
    })
}

fn cel() -> Result<impl FnMut() -> Result<bool, Failure>, Failure> {
    let compile = |text: &str| Program::compile(text).map_err(|error| Failure::from(error.to_string()));
    let mut rules = Vec::new();
    for i in 0..RULES {
        rules.push(compile(&format!(
            "host == 'seller-{i}.example' && path.startsWith('/v1/') && method == 'GET' && scheme == 'exact'"
        ))?);
    }
    let budgets = compile("atoms <= r0 && atoms <= r1 && atoms <= r2 && atoms <= r3")?;
    Ok(move || {
        let mut context = cel::Context::default();
        for (name, value) in
            [("host", "seller-999.example"), ("path", "/v1/now"), ("method", "GET"), ("scheme", "exact")]
        {
            context.add_variable_from_value(name, value);
        }
        for (name, value) in
            [("atoms", ATOMS), ("r0", 1_000_000), ("r1", 1_000_000), ("r2", 1_000_000), ("r3", 1_000_000)]
        {
            context.add_variable_from_value(name, value);
        }
        let is_true = |program: &Program| {
            Ok::<_, Failure>(matches!(program.execute(&context).map_err(|error| error.to_string())?, cel::Value::Bool(true)))
        };
        for rule in &rules {
            if is_true(rule)? {
                return is_true(&budgets);
            }
        }
        Ok(false)
    })
}
