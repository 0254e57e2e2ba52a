//! How a vault is shown. Every figure says who enforces it.

use std::time::Duration;

use farthing_evm::from_alloy;
use farthing_evm::vault::{APPLY_WINDOW, Announcement, Change, Limits};
use farthing_primitives::{Address, AssetId, Money, Timestamp};
use farthing_wallet::vault::{TokenSight, VaultSight};
use serde_json::{Value, json};

use super::{Place, announced};
use crate::cli::wallet::{self, shown_address, shown_money, shown_network};

/// Who enforces what is shown here: not this program.
const ENFORCED_BY: &str = "contract";

/// How far a change is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting,
    Ready,
    /// It was not applied in time.
    Over,
}

pub(super) fn phase(announcement: &Announcement, now: Timestamp) -> Phase {
    if now < ready(announcement) {
        Phase::Waiting
    } else if now < ends(announcement) {
        Phase::Ready
    } else {
        Phase::Over
    }
}

fn ready(announcement: &Announcement) -> Timestamp {
    Timestamp::from_millis(0).plus(Duration::from_secs(announcement.ready_at))
}

fn ends(announcement: &Announcement) -> Timestamp {
    ready(announcement).plus(Duration::from_secs(APPLY_WINDOW))
}

fn money(place: &Place, token: &Address, atoms: u128) -> Money {
    Money::new(AssetId::new(place.network().clone(), token.clone()), atoms)
}

/// `12.5 USDC`.
pub(super) fn shown_atoms(place: &Place, token: &Address, atoms: u128) -> String {
    shown_money(&place.registry, &money(place, token, atoms))
}

pub(super) fn money_json(place: &Place, token: &Address, atoms: u128) -> Value {
    wallet::money_json(&place.registry, &money(place, token, atoms))
}

/// A cap, and who sees to it.
fn cap_json(place: &Place, token: &Address, atoms: u128) -> Value {
    let mut json = money_json(place, token, atoms);
    json["enforced_by"] = json!(ENFORCED_BY);
    json
}

fn limits_json(place: &Place, token: &Address, limits: Limits) -> Value {
    json!({
        "per_hour": cap_json(place, token, limits.per_hour),
        "per_day": cap_json(place, token, limits.per_day),
        "target": cap_json(place, token, limits.target),
    })
}

fn somebody(address: farthing_evm::Address) -> Option<String> {
    (!address.is_zero()).then(|| shown_address(&from_alloy(address)))
}

pub(super) fn announcement_json(place: &Place, one: &Announcement, now: Timestamp) -> Value {
    let (what, to) = match one.change {
        Change::Limits { token, limits } => ("limits", limits_json(place, &from_alloy(token), limits)),
        Change::HotWallet(who) => ("hot", json!(somebody(who))),
        Change::Guardian(who) => ("guardian", json!(somebody(who))),
        Change::Delay(seconds) => ("delay", json!(seconds)),
        Change::Unfreeze => ("unfreeze", Value::Null),
    };
    let phase = match phase(one, now) {
        Phase::Waiting => "waiting",
        Phase::Ready => "ready",
        Phase::Over => "over",
    };
    json!({
        "what": what,
        "to": to,
        "state": phase,
        "ready_at": ready(one).to_string(),
        "ends_at": ends(one).to_string(),
        "enforced_by": ENFORCED_BY,
    })
}

pub(super) fn announcement_text(place: &Place, one: &Announcement, now: Timestamp) -> String {
    let what = match one.change {
        Change::Limits { token, limits } => {
            let token = from_alloy(token);
            format!(
                "limits of {} an hour, {} a day, target {}",
                shown_atoms(place, &token, limits.per_hour),
                shown_atoms(place, &token, limits.per_day),
                shown_atoms(place, &token, limits.target)
            )
        }
        Change::HotWallet(who) => format!("the hot wallet {}", somebody(who).unwrap_or_default()),
        Change::Guardian(who) => format!("guardian {}", somebody(who).unwrap_or("nobody".to_owned())),
        Change::Delay(seconds) => format!("a delay of {}", shown_delay(seconds)),
        Change::Unfreeze => "the end of the freeze".to_owned(),
    };
    match phase(one, now) {
        Phase::Waiting => format!("{what}, ready at {}", ready(one)),
        Phase::Ready => format!("{what}, can be applied until {}", ends(one)),
        Phase::Over => format!("{what}, not applied by {}: announce it again", ends(one)),
    }
}

fn shown_delay(seconds: u32) -> String {
    let (hours, rest) = (seconds / 3_600, seconds % 3_600);
    if rest == 0 { format!("{hours} hours") } else { format!("{seconds} seconds") }
}

fn token_json(place: &Place, sight: &TokenSight) -> Value {
    let TokenSight { token, state, float, hot } = sight;
    let mut json = limits_json(place, token, state.limits);
    json["token"] = json!(shown_address(token));
    json["float"] = money_json(place, token, *float);
    json["hot_wallet_holds"] = money_json(place, token, *hot);
    json["used_hour"] = cap_json(place, token, state.used_hour);
    json["used_day"] = cap_json(place, token, state.used_day);
    json["refillable"] = cap_json(place, token, state.refillable);
    json
}

pub(super) fn sight_json(place: &Place, sight: &VaultSight) -> Value {
    let state = &sight.state;
    json!({
        "vault": shown_address(&sight.vault),
        "network": place.network().to_string(),
        "as_of": sight.time.to_string(),
        "owner": somebody(state.owner),
        "offered_to": somebody(state.offered_to),
        "guardian": somebody(state.guardian),
        "hot_wallet": somebody(state.hot_wallet),
        "frozen": state.frozen,
        "delay_s": state.delay,
        "enforced_by": ENFORCED_BY,
        "tokens": sight.tokens.iter().map(|token| token_json(place, token)).collect::<Vec<_>>(),
        "announced":
            announced(sight).map(|one| announcement_json(place, one, sight.time)).collect::<Vec<_>>(),
    })
}

pub(super) fn sight_text(place: &Place, sight: &VaultSight) -> String {
    let state = &sight.state;
    let nobody = || "nobody".to_owned();
    let mut text = format!(
        "vault        {} on {}{}\nowner        {}\nguardian     {}\nhot wallet   {}\ndelay        {}, enforced by \
         the contract\n",
        shown_address(&sight.vault),
        shown_network(place.network()),
        if state.frozen { ", FROZEN" } else { "" },
        somebody(state.owner).unwrap_or_else(nobody),
        somebody(state.guardian).unwrap_or_else(nobody),
        somebody(state.hot_wallet).unwrap_or_else(nobody),
        shown_delay(state.delay),
    );
    if let Some(heir) = somebody(state.offered_to) {
        text += &format!("offered to   {heir}\n");
    }
    for TokenSight { token, state, float, hot } in &sight.tokens {
        let shown = |atoms| shown_atoms(place, token, atoms);
        text += &format!(
            "\n{}\n  float        {}\n  hot wallet   {} of a target of {}, enforced by the contract\n  this hour    {} of \
             {}, enforced by the contract\n  this day     {} of {}, enforced by the contract\n  refillable   {}\n",
            shown_address(token),
            shown(*float),
            shown(*hot),
            shown(state.limits.target),
            shown(state.used_hour),
            shown(state.limits.per_hour),
            shown(state.used_day),
            shown(state.limits.per_day),
            shown(state.refillable),
        );
    }
    for one in announced(sight) {
        text += &format!("\nannounced: {}\n", announcement_text(place, one, sight.time));
    }
    text
}
