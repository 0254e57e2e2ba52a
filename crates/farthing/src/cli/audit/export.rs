//! The log as bookkeepers and other programs take it.

use farthing_audit::{Kind, Value as LeafValue};
use farthing_primitives::{PurchaseId, Registry, Timestamp};
use farthing_wallet::journal::audit::KeptLeaf;
use farthing_wallet::journal::{Journal, JournalError, State};

use super::{each_leaf, print_line};
use crate::cli::Failure;

const COLUMNS: [&str; 15] = [
    "date",
    "purchase",
    "payee",
    "host",
    "asset",
    "symbol",
    "atoms",
    "amount",
    "usd",
    "state",
    "confirmed",
    "tx",
    "agent",
    "cost_centre",
    "channel",
];

/// A leaf as one line of JSON. The leaf itself stays as it is in the log, byte for byte.
pub(super) fn leaf_json(kept: &KeptLeaf) -> String {
    format!("{{\"index\":\"{}\",\"leaf\":{}}}", kept.index, String::from_utf8_lossy(&kept.bytes))
}

pub(super) fn jsonl(journal: &Journal) -> Result<(), Failure> {
    each_leaf(journal, |kept| print_line(&leaf_json(kept)))
}

/// A line for each purchase that was meant, with what is known of it now.
pub(super) fn csv(journal: &Journal) -> Result<(), Failure> {
    let registry = Registry::builtin();
    print_line(&COLUMNS.join(","))?;
    each_leaf(journal, |kept| match row(journal, &registry, kept)? {
        Some(row) => print_line(&row.iter().map(|text| cell(text)).collect::<Vec<_>>().join(",")),
        None => Ok(()),
    })
}

fn row(
    journal: &Journal,
    registry: &Registry,
    kept: &KeptLeaf,
) -> Result<Option<[String; COLUMNS.len()]>, Failure> {
    let leaf = &kept.leaf;
    let purchase = leaf.text("purchase").filter(|_| leaf.kind == Kind::Intent);
    let Some(id) = purchase.and_then(|id| id.parse::<PurchaseId>().ok()) else { return Ok(None) };
    let purchase = match journal.get(&id) {
        Ok(purchase) => purchase,
        Err(JournalError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let asset = registry.get(purchase.money.asset());
    let text = |name: &str| leaf.text(name).unwrap_or_default().to_owned();
    let agents: Vec<&str> = match leaf.fields.get("agents") {
        Some(LeafValue::List(agents)) => agents.iter().filter_map(LeafValue::as_text).collect(),
        _ => Vec::new(),
    };
    let agent = |at: usize| agents.get(at).copied().unwrap_or_default().to_owned();
    // What a voucher paid for may have come to another amount than was meant, and then its dollars are not known here.
    let as_meant = leaf.text("amount") == Some(&purchase.money.atoms().to_string());
    Ok(Some([
        Timestamp::from_millis(leaf.at_ms).to_string(),
        id.to_string(),
        purchase.payee.to_string(),
        text("host"),
        purchase.money.asset().to_string(),
        asset.map(|asset| asset.symbol.clone()).unwrap_or_default(),
        purchase.money.atoms().to_string(),
        asset.map(|asset| asset.format(purchase.money.atoms())).unwrap_or_default(),
        if as_meant { text("usd") } else { String::new() },
        purchase.state.name().to_owned(),
        (purchase.state == State::Settled && purchase.confirmed).to_string(),
        purchase.tx.clone().unwrap_or_default(),
        agent(0),
        // The budget that the agent's is a part of.
        agent(1),
        text("channel"),
    ]))
}

/// Spec: RFC 4180, section 2. A table program takes what begins with one of these for a formula, and a seller may have
/// written it.
fn cell(text: &str) -> String {
    let guarded =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if guarded.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", guarded.replace('"', "\"\""))
    } else {
        guarded
    }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_a_text_whatever_a_seller_wrote() {
        for (text, expected) in [
            ("plain", "plain"),
            ("a,b", "\"a,b\""),
            ("say \"hi\"", "\"say \"\"hi\"\"\""),
            ("=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\""),
            ("-1+2", "'-1+2"),
            ("@cmd", "'@cmd"),
        ] {
            assert_eq!(cell(text), expected);
        }
    }
}
