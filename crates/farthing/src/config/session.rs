//! `session` of a `[[route]]`: what is sold by the unit; and `[sessions]`, which is for all of them.

use std::sync::Arc;
use std::time::Duration;

use farthing_channel::{Limits, Price, Unit};
use farthing_paywall::{Count, DEFAULT_HOLDS, DEFAULT_PATIENCE, Session, SessionTerms, Way};
use farthing_primitives::{Address, Asset, PullMethod, Registry};
use farthing_wire::mpp::evm::CredentialType;

use super::Asked;
use super::SecretRef;
use super::document::{Place, Value};
use super::reader::Reader;
use super::routes::{Defaults, Line, address, checksum_holds, way};
use super::sections::network_key;

/// Where anybody who deploys `PaymentChannelEscrow` finds it: `docs/reference/channels-contract.md`.
pub const ESCROW: &str = "0xE8693A0b6b6Ba2238aCeb8a052A5d5dE1BDF8E29";
/// The Keccak-256 of its runtime code.
pub const ESCROW_CODE: &str = "0xc3bef4bb5ad7190dc8ae71cc0fa62106941ded43d495096ea8ba7623bb5c0d71";

/// The most units that one price may be for.
pub const MAX_PER: u64 = 1_000_000_000;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `[sessions]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionsConfig {
    /// For routes that name none.
    pub escrow: Address,
    /// Keccak-256 of the code of escrows that deposits are accepted in.
    pub escrow_code: Vec<[u8; 32]>,
    /// Keys of payees that are not the relayer of their network.
    pub payee_keys: Vec<SecretRef>,
    pub answer_within: Duration,
    pub replay_ttl: Duration,
}

pub fn sessions(root: &mut Reader<'_>) -> SessionsConfig {
    // INVARIANT: both are spelled right above; a test reads them.
    let escrow = Address::evm(ESCROW).unwrap_or_else(|_| Address::from_evm_bytes([0; 20]));
    let mut config = SessionsConfig {
        escrow,
        escrow_code: code_hash(ESCROW_CODE).into_iter().collect(),
        payee_keys: Vec::new(),
        answer_within: Duration::from_secs(30),
        replay_ttl: Duration::from_secs(600),
    };
    let Some(mut section) = root.table("sessions") else { return config };
    if let Some(escrow) = escrow_key(&mut section) {
        config.escrow = escrow;
    }
    let hash = |text: &str| {
        code_hash(text)
            .map_err(|()| "expected the Keccak-256 of a contract's code: 0x and 64 hex digits".to_owned())
    };
    if let Some(hashes) = section.list_of("escrow_code", hash) {
        config.escrow_code = hashes;
    }
    let key = |text: &str| text.parse::<SecretRef>().map_err(|error| error.to_string());
    config.payee_keys = section.list_of("payee_keys", key).unwrap_or_default();
    config.answer_within = section.duration("answer_within", config.answer_within, SECOND, HOUR);
    config.replay_ttl = section.duration("replay_ttl", config.replay_ttl, Duration::ZERO, DAY * 30);
    section.finish();
    config
}

fn code_hash(text: &str) -> Result<[u8; 32], ()> {
    let digits = text.strip_prefix("0x").ok_or(())?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).map_err(|_| ())?;
    Ok(hash)
}

fn escrow_key(section: &mut Reader<'_>) -> Option<Address> {
    section.text_as("escrow", |text| {
        let address = Address::evm(text).map_err(|error| error.to_string())?;
        if checksum_holds(text, &address) {
            Ok(address)
        } else {
            Err("the checksum in its capitals is wrong: is there a typing error?".to_owned())
        }
    })
}

/// What a route says of itself that its session needs.
#[derive(Debug, Clone, Copy)]
pub struct Around {
    pub upstream_timeout: Duration,
    pub max_response: usize,
}

/// The session of a route. What is wrong with it is reported.
pub fn session(route: &mut Reader<'_>, defaults: &Defaults<'_>, around: Around) -> Option<Arc<Session>> {
    let mut section = route.table("session")?;
    let read = terms(&mut section, defaults, around);
    if !defaults.mpp {
        section.problem("", "sessions are spoken in MPP, and [gateway] says mpp = false");
    }
    let place = section.place().clone();
    let problem = |message: String| route.problem_at(&place, "session", message);
    section.finish();
    match Session::new(read?) {
        Ok(session) => Some(Arc::new(session)),
        Err(error) => {
            problem(error.to_string());
            None
        }
    }
}

fn terms(section: &mut Reader<'_>, defaults: &Defaults<'_>, around: Around) -> Option<SessionTerms> {
    let way = paid_by(section, defaults);
    let escrow = escrow_key(section).unwrap_or_else(|| defaults.escrow.clone());
    // Amounts can be read once it is known in what.
    let asset = way.as_ref().map(|way| way.asset());
    let (price, count) = (price(section, asset, defaults.registry), count(section));
    let stream = section.bool("stream", count == Some(Count::Events));
    let most_units = most_units(section, count.as_ref(), stream, around);
    let suggested_deposit = money(section, "suggested_deposit", asset, defaults.registry);
    let tenth = suggested_deposit.map_or(1, |deposit| deposit.div_ceil(10).max(1));
    let cost = match (&price, most_units) {
        (Some(price), Some(units)) => price.most(if stream { 1 } else { units }).ok(),
        _ => None,
    };
    let min_deposit = money(section, "min_deposit", asset, defaults.registry);
    let limits = Limits {
        credit: money(section, "exposure", asset, defaults.registry).unwrap_or(0),
        most_unsettled: money(section, "settle_at", asset, defaults.registry),
        min_deposit: min_deposit.unwrap_or_else(|| tenth.max(cost.unwrap_or(0))),
        margin: section.duration("margin", MINUTE * 5, MINUTE, MINUTE * 9),
        most_in_flight: u16::try_from(section.number("in_flight", 16, 1, 1000)).unwrap_or(16),
        drain: section.duration("drain", SECOND * 30, Duration::ZERO, MINUTE * 10),
        idle: Some(section.duration("idle", DAY, MINUTE, DAY * 365)),
    };
    let min_voucher_delta = money(section, "min_voucher_delta", asset, defaults.registry).unwrap_or(0);
    let holds = section.duration("holds", DEFAULT_HOLDS, SECOND * 10, DAY);
    let patience = section.duration("patience", DEFAULT_PATIENCE, SECOND, HOUR);
    let credential_types = deposit_by(section, way.as_deref());
    Some(SessionTerms {
        way: way?,
        escrow,
        price: price?,
        count: count?,
        stream,
        most_units: most_units?,
        suggested_deposit,
        limits,
        min_voucher_delta,
        credential_types,
        holds,
        patience,
    })
}

/// The token and the payee: as an `accept` line says them.
fn paid_by(section: &mut Reader<'_>, defaults: &Defaults<'_>) -> Option<Arc<Way>> {
    let network = network_key(section, "network").or_else(|| defaults.network.clone());
    let asset = section.text("asset").map(|(text, _)| text);
    let pay_to = section.text("pay_to").and_then(|(text, at)| address(section, network.as_ref(), &text, &at));
    let line = Line {
        place: section.place().clone(),
        asked: Asked { amount: None, pay_to },
        network,
        asset,
        method: None,
        wrong_price: false,
    };
    way(section, &line, defaults, false)
}

/// `price = "$0.0001"` or `atoms = "100"`, for `per` of `unit`.
fn price(section: &mut Reader<'_>, asset: Option<&Asset>, registry: &Registry) -> Option<Price> {
    let unit = section.text_as("unit", |text| {
        Unit::named(text)
            .ok_or_else(|| format!("must be 1 to {} printable characters without blanks", Unit::MAX_LEN))
    });
    let unit = unit.unwrap_or(Unit::Request);
    let per = section.number("per", 1, 1, MAX_PER);
    let (has_price, has_atoms) = (section.has("price"), section.has("atoms"));
    if has_price == has_atoms {
        section.problem("price", "a session needs either price (dollars) or atoms, for its unit");
    }
    let read = |text: &str| match asset {
        // Why there is none was reported.
        None => Ok(None),
        Some(asset) if !registry.is_dollar(&asset.id) => {
            Err(format!("{} does not stand for dollars: price it in atoms", asset.id))
        }
        Some(asset) => finer_than_atoms(text, asset.decimals, per, unit.clone()).map(Some),
    };
    let dollars = section.text_as("price", read).flatten();
    let place = section.place_of("atoms");
    let atoms = section.atoms("atoms");
    if let Some(0) = atoms
        && let Some(place) = place
    {
        section.problem_at(&place, "atoms", "a price of nothing sells nothing");
        return None;
    }
    let per = std::num::NonZeroU64::new(per)?;
    dollars.or_else(|| atoms.map(|atoms| Price::new(atoms, per, unit)))
}

/// Dollars in plain decimals, also finer than the asset's smallest unit: then the price is for more units.
fn finer_than_atoms(text: &str, decimals: u8, per: u64, unit: Unit) -> Result<Price, String> {
    let refuse = || "expected dollars such as \"$0.0001\" (for other assets use atoms)".to_owned();
    let digits = text.strip_prefix('$').ok_or_else(refuse)?;
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let fraction = fraction.trim_end_matches('0');
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(refuse());
    }
    let too_fine = || "the price is too fine, or too large".to_owned();
    let number: u128 = format!("{whole}{fraction}").parse().map_err(|_| too_fine())?;
    if number == 0 {
        return Err("a price of nothing sells nothing".to_owned());
    }
    let scale = u32::try_from(fraction.len()).map_err(|_| too_fine())?;
    let power = |exponent: u32| 10u128.checked_pow(exponent).ok_or_else(too_fine);
    let (atoms, per) = match u32::from(decimals).checked_sub(scale) {
        Some(more) => (number.checked_mul(power(more)?).ok_or_else(too_fine)?, u128::from(per)),
        None => {
            let finer = power(scale - u32::from(decimals))?;
            (number, u128::from(per).checked_mul(finer).ok_or_else(too_fine)?)
        }
    };
    let per = u64::try_from(per).ok().and_then(std::num::NonZeroU64::new).ok_or_else(too_fine)?;
    Ok(Price::new(atoms, per, unit))
}

fn count(section: &mut Reader<'_>) -> Option<Count> {
    if !section.has("meter") {
        return Some(Count::Request);
    }
    section.parsed::<Count>("meter")
}

/// What is set aside for an answer before it is known what it took.
fn most_units(section: &mut Reader<'_>, count: Option<&Count>, stream: bool, around: Around) -> Option<u64> {
    let said = section.has("most_units");
    let place = section.place_of("most_units");
    let most = section.number("most_units", 1, 1, u64::from(u32::MAX));
    let count = count?;
    let out_of_place = |why: &str| {
        if let Some(place) = &place {
            section.problem_at(place, "most_units", why);
        }
    };
    if stream {
        out_of_place("a stream is paid as it goes: most_units is for answers that are read whole");
        return Some(1);
    }
    match count {
        Count::Request | Count::Events => {
            out_of_place("a request is one unit");
            Some(1)
        }
        _ if said => Some(most),
        Count::Bytes => Some(around.max_response as u64),
        Count::Elapsed => u64::try_from(around.upstream_timeout.as_millis()).ok(),
        Count::Header(_) | Count::Json(_) => {
            section.problem(
                "most_units",
                format!("meter = \"{count}\" needs most_units: what an answer may take at most is set aside before it is asked for"),
            );
            None
        }
    }
}

/// Dollars of an asset that stands for them, or atoms.
fn money(
    section: &mut Reader<'_>,
    key: &'static str,
    asset: Option<&Asset>,
    registry: &Registry,
) -> Option<u128> {
    if !matches!(section.peek(key), Some(Value::Text(text)) if text.starts_with('$')) {
        return section.atoms(key);
    }
    let read = |text: &str| {
        // Why there is no asset was reported.
        let Some(asset) = asset else { return Ok(0) };
        if !registry.is_dollar(&asset.id) {
            return Err(format!("{} does not stand for dollars: say it in atoms", asset.id));
        }
        asset
            .parse(text.trim_start_matches('$'))
            .map(|money| money.atoms())
            .map_err(|error| error.to_string())
    };
    section.text_as(key, read)
}

/// How deposits may come. By default by the token's own signature (or Permit2's), which we submit, or by a transaction
/// of the buyer's.
fn deposit_by(section: &mut Reader<'_>, way: Option<&Way>) -> Vec<CredentialType> {
    let own = match way.map(Way::pull) {
        Some(PullMethod::Permit2) => CredentialType::Permit2,
        _ => CredentialType::Authorization,
    };
    let place: Option<Place> = section.place_of("deposit_by");
    let named = section.list_of("deposit_by", |text| match CredentialType::named(text) {
        Some(CredentialType::Transaction) | None => {
            Err("must be \"authorization\", \"permit2\" or \"hash\"".to_owned())
        }
        Some(kind) => Ok(kind),
    });
    let Some(types) = named else { return vec![own, CredentialType::Hash] };
    let has_domain = way.is_none_or(|way| way.asset().domain.is_some());
    if let Some(place) = place {
        if types.contains(&CredentialType::Authorization) && !has_domain {
            section.problem_at(&place, "deposit_by", "\"authorization\" needs a token with EIP-3009");
        }
        let twice = types.iter().enumerate().any(|(at, kind)| types[..at].contains(kind));
        if types.is_empty() || twice {
            section.problem_at(&place, "deposit_by", "must name at least one way, and each once");
        }
    }
    types
}
