//! What an owner allows: policies from files, their expressions, and rules that are set by hand. Whatever a file says,
//! reading it and deciding by it ends, an error denies, and what counts as no looser allows nothing more.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use farthing_policy::policy::{Expression, IndexValue, length_of};
use farthing_policy::{
    Approval, Bucket, Caller, Caps, Charge, Decision, Fact, History, HostRule, Law, Mention, Movement, Named,
    Origin, Policy, Request, Rules, Source, decide, named_by,
};
use farthing_primitives::{Address, AssetId, Network, Registry, Timestamp};

use super::is_short;
use crate::input::Input;

/// A Tuesday, 22:13:20 UTC.
const NOW: Timestamp = Timestamp::from_secs(1_700_000_000);

const URLS: &[&str] = &[
    "https://api.example/v1/now",
    "https://api.example/v1/secret/x",
    "https://sub.api.example/v1/../v1/now",
    "https://api.example:8443/v1/now?apikey=0123456789abcdef",
    "http://api.example/v1/now",
    "https://other.example/",
    "http://127.0.0.1:9/v1/now",
    "https://api.example/v1%2fnow",
];
const AGENTS: &[Option<&str>] = &[None, Some("acme"), Some("acme/a"), Some("acme/a/b"), Some("else")];
const SCHEMES: &[&str] = &["exact", "upto", "session"];
const METHODS: &[&str] = &["GET", "POST", "DELETE"];
const TOOLS: &[Option<&str>] = &[None, Some("forecast"), Some("")];

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 | 1 => file(&mut input),
        2 => expression(&mut input),
        3 => by_hand(&mut input),
        4 => {
            let text = String::from_utf8_lossy(input.rest());
            if let Some(length) = length_of(&text) {
                let unit = &text[text.len() - 1..];
                let each = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];
                let each = each.into_iter().find(|(name, _)| *name == unit).expect("a unit").1;
                assert_eq!(format!("{}{unit}", length.as_secs() / each), text, "one length has one spelling");
            }
        }
        7 => following(&mut input),
        _ => two(&mut input),
    }
}

/// A file as it comes, after what is asked of it.
fn file(input: &mut Input<'_>) {
    let (request, history, frozen) = asked(input);
    let text = String::from_utf8_lossy(input.rest());
    let policy = match Policy::parse(&text) {
        Ok(policy) => policy,
        Err(error) => return is_short(&error),
    };
    holds(policy, &request, &history, frozen);
}

/// What holds of every policy that was read.
fn holds(policy: Policy, request: &Request, history: &History, frozen: bool) {
    let looser = policy.loosens(&policy);
    assert!(looser.is_empty(), "looser than itself: {looser:?}");
    let decision = policy.decide(frozen, history, request, NOW);
    sound(&decision, request, frozen);
    assert_eq!(decision, policy.decide(frozen, history, request, NOW));
    // Less money, where nothing else tells amounts apart, is never more.
    let _ = policy.memory();
    let follows = policy.follows_past() || !history.indexes.is_empty();
    let law = Law::Policy { frozen, policy: Arc::new(policy) };
    let room = law.room(Some(history), request, NOW);
    // Without a past, what follows it is at its floor; and where windows alone bound a payment, there is no room.
    let most = law.room(None, request, NOW);
    assert!(follows || most == 0 || room <= most, "the past leaves more room than none");
    let _ = (law.max_validity(), law.may_reach_private(&request.origin));
}

/// A decision that says what led to it, at no great length, and that allows nothing which is never allowed.
fn sound(decision: &Decision, request: &Request, frozen: bool) {
    assert_eq!(decision.is_allowed(), decision.denials().next().is_none());
    assert!(!decision.findings.is_empty());
    let zero = request.charge.money().atoms() == 0;
    let dear = request.max.is_some_and(|max| request.charge.money().atoms() > max);
    let elsewhere =
        request.only.as_ref().is_some_and(|only| only != request.charge.money().asset().network());
    assert!(!(decision.is_allowed() && (frozen || zero || dear || elsewhere || request.validity.is_zero())));
    for fact in &decision.findings {
        is_short(fact);
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        assert!(!fact.code().is_empty() && fact.code().bytes().all(plain));
    }
    if decision.asks_for_approval().is_some() {
        assert!(!decision.is_allowed());
    }
}

/// An expression alone, and in each kind of rule. Where it has no value, every kind denies.
fn expression(input: &mut Input<'_>) {
    let (request, history, _) = asked(input);
    let text = String::from_utf8_lossy(input.rest()).into_owned();
    let read = match Expression::parse(&text) {
        Ok(read) => read,
        Err(error) => return is_short(&error),
    };
    assert_eq!(read.source(), text);
    assert_eq!(Expression::parse(read.source()).as_ref(), Ok(&read));
    let value = read.holds(&request, NOW);
    assert_eq!(value, read.holds(&request, NOW));
    if !read.names_amount() {
        let dearer = Request { charge: charge(true, u128::from(u64::MAX)), ..request.clone() };
        // Whether it is dollars is a fact of the asset, not of the amount.
        if request.charge.money().asset() == dearer.charge.money().asset() {
            assert_eq!(read.holds(&dearer, NOW), value, "{text:?} depends on the amount");
        }
    }
    // In YAML's own escapes, so that a file can hold whatever an expression can.
    let escaped = |c: char| match c {
        ' '..='~' if c != '"' && c != '\\' => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    let when = format!("\"{}\"", text.chars().map(escaped).collect::<String>());
    let all = r#"{"hosts":["*"],"private":true,"plaintext":true}"#;
    let with = |allow: &str, rest: &str| {
        let file = format!(
            r#"{{"version":1,"secrets_in_url":"allow","max_validity":"1d","budgets":{{"acme":{{"lifetime":"$1000000000000"}},"else":{{"lifetime":"$1000000000000"}}}},"owner":"acme","allow":[{allow}]{rest}}}"#
        );
        Policy::parse(&file).unwrap_or_else(|error| panic!("{error}: {file}"))
    };
    let plain = with(all, "").decide(false, &history, &request, NOW).is_allowed();
    let allowed = |policy: Policy| {
        let decision = policy.decide(false, &history, &request, NOW);
        let failed = decision.findings.iter().any(|fact| matches!(fact, Fact::ExpressionFailed { .. }));
        assert!(!(failed && decision.is_allowed()), "{decision}");
        decision.is_allowed()
    };
    let allow = format!(r#"{{"hosts":["*"],"private":true,"plaintext":true,"when":{when}}}"#);
    assert_eq!(allowed(with(&allow, "")), plain && value == Ok(true), "allow if {text:?}");
    let deny = format!(r#","deny":[{{"when":{when}}}]"#);
    assert_eq!(allowed(with(all, &deny)), plain && value == Ok(false), "deny if {text:?}");
    if history.approval.is_none() {
        let approve = format!(r#","approve":[{{"when":{when}}}]"#);
        assert_eq!(allowed(with(all, &approve)), plain && value == Ok(false), "ask if {text:?}");
    }
    let policy = with(&allow, &deny);
    assert!(policy.loosens(&policy).is_empty());
}

const BUDGETS: &[&str] = &[
    r#""acme":{"lifetime":"$5"}"#,
    r#""acme":{"lifetime":"$0.01","per_payment":"$0.005"}"#,
    r#""acme":{"rolling":{"1h":"$0.02","24h":"$1"},"payments":{"1m":2}}"#,
    r#""acme/a":{"per_payment":"$0.002"}"#,
    r#""acme/a":{"per_host":{"1h":"$0.004"},"per_payee":{"1h":"$0.003"}}"#,
    r#""acme/a/b":{"calendar":{"day":"$0.002","month":"$0.003"},"per_tool":{"1h":"$0.001"}}"#,
    r#""else":{"lifetime":{"eip155:84532/erc20:0x036cbd53842c5426634e7929541ec2318f3dcf7e":"5000"}}"#,
    r#""else":{"lifetime":"$1"}"#,
    r#""acme":{"lifetime":"$5","per_payment":"$2"}"#,
    r#""acme":{"lifetime":"$5","per_payment":{"follow":"index","index":"fx","percent":150,"floor":"$0.001","ceiling":"$1"}}"#,
    r#""acme":{"lifetime":"$5","per_payment":{"follow":"index","index":"fx","percent":50,"floor":"$0.001","ceiling":"$2"}}"#,
    r#""acme/a":{"per_payment":{"follow":"price","last":"30d","percent":200,"floor":"$0.001","ceiling":"$0.01"}}"#,
    r#""acme/a":{"rolling":{"1h":{"follow":"spend","last":"24h","percent":200,"floor":"$0.002","ceiling":"$0.02"}}}"#,
];
const INDEXES: &[&str] = &[
    r#""fx":{"least":"$0.001","most":"$0.02","stale_after":"7d"}"#,
    r#""fx":{"least":"$0.01","most":"$0.02","stale_after":"7d"}"#,
    r#""fx":{"least":"$0.001","most":"$0.02","stale_after":"1d"}"#,
    r#""fx":{"least":"$0.001","most":"$0.01","stale_after":"30d"},"other":{"least":"$1","most":"$2","stale_after":"1h"}"#,
];
const MATCHES: &[&str] = &[
    r#""hosts":["*"]"#,
    r#""hosts":["api.example"]"#,
    r#""hosts":["api.example:8443","*.api.example"]"#,
    r#""hosts":["127.0.0.1"],"private":true"#,
    r#""hosts":["*"],"plaintext":true"#,
    r#""hosts":["*"],"paths":["/v1/*"]"#,
    r#""hosts":["*"],"paths":["/v1/now"],"methods":["GET"]"#,
    r#""hosts":["*"],"agents":["acme/a"]"#,
    r#""hosts":["*"],"tools":["forecast"]"#,
    r#""hosts":["*"],"schemes":["exact"],"networks":["eip155:84532"]"#,
    r#""hosts":["*"],"hours":{"from":"22:00","to":"24:00"}"#,
    r#""hosts":["*"],"hours":{"days":["mon"],"from":"00:00","to":"24:00","offset":"+02:00"}"#,
    r#""hosts":["*"],"payees":["0x0101010101010101010101010101010101010101"]"#,
    r#""hosts":["*"],"when":"amount > 1000""#,
    r#""hosts":["*"],"when":"amount / (amount - 1000) > 0""#,
    r#""hosts":["*"],"when":"path.startsWith(\"/v1/\")""#,
];
const ALLOWS: &[&str] = &[
    "",
    r#","max":"$0.001""#,
    r#","max":"$0.01","max_validity":"1m""#,
    r#","max_validity":"10s""#,
    r#","pay_to":"pin""#,
    r#","pay_to":["0x0101010101010101010101010101010101010101"]"#,
    r#","pay_to":["0x0101010101010101010101010101010101010101","0x0202020202020202020202020202020202020202"]"#,
];
const OVERS: &[&str] = &["", r#","over":"$0.001""#, r#","over":"$0.1""#];
const ASKS: &[&str] = &["", r#","quorum":2"#, r#","new_payee":true"#];
const HEADS: &[&str] = &[
    "",
    r#","secrets_in_url":"allow""#,
    r#","max_validity":"1m""#,
    r#","max_validity":"1h""#,
    r#","breaker":{"refusals":2,"within":"10m","price_jump":2,"velocity_jump":3}"#,
    r#","breaker":{"refusals":5,"within":"10m"}"#,
    r#","owner":"acme""#,
    r#","screen":{"command":["/bin/screen"]}"#,
    r#","taint":"off""#,
    r#","taint":"deny""#,
];

/// A file that is put together from parts that mean something.
fn made(input: &mut Input<'_>) -> String {
    let (head, indexes) = (input.pick(HEADS), input.pick(INDEXES));
    let mut budgets: Vec<(&str, &str)> = Vec::new();
    for _ in 0..input.byte() % 4 {
        let budget = *input.pick(BUDGETS);
        let name = budget.split(':').next().unwrap_or_default();
        if !budgets.iter().any(|(other, _)| *other == name) {
            budgets.push((name, budget));
        }
    }
    let budgets: Vec<&str> = budgets.into_iter().map(|(_, text)| text).collect();
    // What stands beside hosts in a rule that allows is known to those alone.
    let bare = |text: &str| text.replace(r#","private":true"#, "").replace(r#","plaintext":true"#, "");
    let mut lists: [Vec<String>; 3] = Default::default();
    for (kind, list) in lists.iter_mut().enumerate() {
        for _ in 0..input.byte() % 3 {
            let matcher = *input.pick(MATCHES);
            list.push(match kind {
                0 => format!("{{{matcher}{}}}", input.pick(ALLOWS)),
                1 => format!("{{{}{}}}", bare(matcher), input.pick(OVERS)),
                _ => format!("{{{}{}{}}}", bare(matcher), input.pick(OVERS), input.pick(ASKS)),
            });
        }
    }
    let [allow, deny, approve] = lists.map(|list| list.join(","));
    format!(
        r#"{{"version":1{head},"indexes":{{{indexes}}},"budgets":{{{}}},"allow":[{allow}],"deny":[{deny}],"approve":[{approve}]}}"#,
        budgets.join(",")
    )
}

/// Two files: if one is no looser than the other, it allows nothing that the other does not.
fn two(input: &mut Input<'_>) {
    let (request, history, frozen) = asked(input);
    let (first, second) = (made(input), made(input));
    let [Ok(old), Ok(new)] = [&first, &second].map(|text| Policy::parse(text)) else { return };
    if new.loosens(&old).is_empty() {
        let before = old.decide(frozen, &history, &request, NOW);
        let after = new.decide(frozen, &history, &request, NOW);
        assert!(
            before.is_allowed() || !after.is_allowed(),
            "no looser, and allows what was denied ({before}):\n{first}\n{second}"
        );
    }
    holds(old, &request, &history, frozen);
    holds(new, &request, &history, frozen);
}

/// What a limit can follow: where it stands, what closes that, and what it says beside its numbers.
const FOLLOWS: &[(&str, &str, &str)] = &[
    (r#""per_payment":"#, "", r#""follow":"index","index":"fx""#),
    (r#""per_payment":"#, "", r#""follow":"price","last":"30d""#),
    (r#""per_payment":"#, "", r#""follow":"price","last":"1h","after":"1h","per":"payee""#),
    (r#""per_payment":"#, "", r#""follow":"price","last":"7d","after":"2h","per":"all""#),
    (r#""rolling":{"1h":"#, "}", r#""follow":"spend","last":"24h""#),
    (r#""rolling":{"24h":"#, "}", r#""follow":"index","index":"fx""#),
    (r#""per_host":{"24h":"#, "}", r#""follow":"spend","last":"30d""#),
    (r#""per_payee":{"1h":"#, "}", r#""follow":"spend","last":"2h""#),
    (r#""calendar":{"day":"#, "}", r#""follow":"index","index":"fx""#),
];

/// A limit that follows something is never below its floor nor above its ceiling, whatever was paid and whatever is set.
fn following(input: &mut Input<'_>) {
    let (request, history, frozen) = asked(input);
    let (begin, end, follow) = input.pick(FOLLOWS);
    let percent = 1 + input.u16() % 10_000;
    let floor = 1 + u32::from(input.u16());
    let ceiling = floor + u32::from(input.u16());
    let dollars = |millionths: u32| format!(r#""${}.{:06}""#, millionths / 1_000_000, millionths % 1_000_000);
    let [floor, ceiling] = [floor, ceiling].map(dollars);
    let followed = format!(r#"{{{follow},"percent":{percent},"floor":{floor},"ceiling":{ceiling}}}"#);
    let [low, middle, high] = [&floor, &followed, &ceiling].map(|bound| {
        let file = format!(
            r#"{{"version":1,"secrets_in_url":"allow","taint":"off","max_validity":"1d","owner":"acme","indexes":{{"fx":{{"least":"$0.001","most":"$0.05","stale_after":"7d"}}}},"budgets":{{"acme":{{"lifetime":"$1000000000000",{begin}{bound}{end}}}}},"allow":[{{"hosts":["*"],"private":true,"plaintext":true}}]}}"#
        );
        Policy::parse(&file).unwrap_or_else(|error| panic!("{error}: {file}"))
    });
    assert!(low.loosens(&middle).is_empty(), "the floor of {followed} is looser");
    let allows = |policy: &Policy| policy.decide(frozen, &history, &request, NOW).is_allowed();
    assert!(!allows(&low) || allows(&middle), "below its floor: {followed}");
    assert!(!allows(&middle) || allows(&high), "above its ceiling: {followed}");
    holds(middle, &request, &history, frozen);
}

/// Rules that an owner sets by hand: less of anything never allows more.
fn by_hand(input: &mut Input<'_>) {
    let (request, history, frozen) = asked(input);
    let cap = |input: &mut Input<'_>| u128::from(input.u16()) * 10u128.pow(12);
    let mut rules = Rules::tight([request.charge.money().asset().network().clone()]);
    rules.frozen = frozen;
    let caps = Caps { per_payment: cap(input), hour: cap(input), day: cap(input) };
    rules.caps.insert(Bucket::Dollar, caps);
    rules.max_validity = Duration::from_secs(input.byte().into());
    while !input.is_empty() && rules.hosts.len() < 8 {
        if let Ok(pattern) = input.text().parse() {
            let mut rule = HostRule::new(pattern);
            rule.plaintext |= input.flag();
            rules.hosts.push(rule);
        }
    }
    let decision = decide(&rules, &history, &request, NOW);
    sound(&decision, &request, frozen);
    let law = Law::Rules(rules.clone());
    assert_eq!(law.decide(&history, &request, NOW), decision);
    assert!(law.room(Some(&history), &request, NOW) <= law.room(None, &request, NOW));
    let lowered = Caps { per_payment: caps.per_payment / 2, ..caps };
    let mut fewer = rules.clone();
    fewer.hosts.pop();
    let mut lower = rules.clone();
    lower.caps.insert(Bucket::Dollar, lowered);
    for tighter in [fewer, lower, Rules { frozen: true, ..rules.clone() }, Rules::default()] {
        let allowed = decide(&tighter, &history, &request, NOW).is_allowed();
        assert!(decision.is_allowed() || !allowed, "tighter, and allows what was denied: {decision}");
    }
    if decision.is_allowed() {
        assert!(rules.hosts.iter().any(|rule| rule.pattern.matches(&request.origin)));
    }
}

fn asset() -> &'static AssetId {
    static ASSET: OnceLock<AssetId> = OnceLock::new();
    ASSET.get_or_init(|| Registry::builtin().dollar(&Network::eip155(84532)).expect("listed").id.clone())
}

fn registry() -> &'static Registry {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    REGISTRY.get_or_init(Registry::builtin)
}

/// So many atoms of a dollar, on a testnet or on its mainnet.
fn charge(test: bool, atoms: u128) -> Charge {
    let dollar = registry().dollar(&Network::eip155(if test { 84532 } else { 8453 })).expect("listed");
    Charge::of(registry(), dollar.atoms(atoms)).expect("countable")
}

/// What somebody wants to pay, and what went before.
fn asked(input: &mut Input<'_>) -> (Request, History, bool) {
    let url: url::Url = input.pick(URLS).parse().expect("a URL");
    let payee = |n: u8| Address::from_evm_bytes([n; 20]);
    let bits = input.byte();
    let agent = input.pick(AGENTS).map(|name| name.parse().expect("a name"));
    let tool = input.pick(TOOLS).map(str::to_owned);
    let atoms = u128::from(input.u16());
    let to = payee(1 + input.byte() % 3);
    let request = Request {
        scheme: (*input.pick(SCHEMES)).to_owned(),
        charge: charge(bits & 1 == 0, atoms),
        price: (bits & 2 == 2).then_some(atoms / 2),
        payee: to.clone(),
        origin: Origin::of(&url).expect("an origin"),
        private: bits & 4 == 4,
        max: (bits & 8 == 8).then(|| u128::from(input.u16())),
        only: (bits & 16 == 16).then(|| Network::eip155(84532)),
        validity: Duration::from_secs(input.byte().into()),
        caller: Caller {
            agent: agent.clone(),
            tool: tool.clone(),
            payer: None,
            method: (*input.pick(METHODS)).to_owned(),
            url: url.to_string(),
            path: url.path().to_owned(),
            body: None,
        },
        screened: None,
    };
    let mut history = History::default();
    if bits & 32 == 32 {
        let of =
            Arc::new(Source { agent, authority: request.origin.authority(), payee: Some(to.clone()), tool });
        let until = NOW.minus(Duration::from_secs(u64::from(input.u16()) * 60));
        let spent = u128::from(input.u16());
        history.movements = vec![
            Movement { bucket: Bucket::Asset(asset().clone()), amount: spent, until, of: of.clone() },
            Movement { bucket: Bucket::Dollar, amount: spent * 10u128.pow(12), until, of },
        ];
        history.usual_price = Some(u128::from(input.u16()));
        history.refusals = u32::from(input.byte() % 8);
    }
    if bits & 64 == 64 {
        history.pinned = vec![payee(1 + input.byte() % 3)];
    }
    if bits & 128 == 128 {
        let (voices, grant) = (u32::from(input.byte() % 4), input.flag());
        history.approval = Some(Approval { id: "apr_1".to_owned(), voices, grant });
    }
    let frozen = input.byte() == 1;
    let said = input.byte();
    if said & 1 == 1 {
        let set = NOW.minus(Duration::from_secs(u64::from(input.u16()) * 60));
        let bucket = if said & 8 == 8 { Bucket::Asset(asset().clone()) } else { Bucket::Dollar };
        let value = u128::from(input.u16()) * 10u128.pow(12);
        history.indexes.insert("fx".to_owned(), IndexValue { bucket, value, set });
    }
    let by = |input: &mut Input<'_>| named_by("mcp.example:443", Some(&input.text()));
    if said & 2 == 2 {
        let what = Named::Host(request.origin.host.clone());
        history.mentions.push(Mention { what, by: by(input) });
    }
    if said & 4 == 4 {
        history.mentions.push(Mention { what: Named::Payee(to), by: by(input) });
    }
    (request, history, frozen)
}
