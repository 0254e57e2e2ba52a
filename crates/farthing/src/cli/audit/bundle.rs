//! What can be shown about one purchase to somebody who has the log's public key and nothing else.

use std::path::Path;
use std::process::ExitCode;

use farthing_audit::{Checkpoint, Inclusion, Leaf, LogDir, SALT_BYTES, Secret, VerifierKey, inclusion_proof};
use farthing_primitives::{PurchaseId, Timestamp};
use farthing_wallet::client::printable;
use farthing_wallet::journal::audit::{KeptLeaf, MAX_AUDIT_PAGE};
use farthing_wallet::journal::{Journal, JournalError};
use farthing_wallet::{Home, client::shown};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{print_line, read_bounded};
use crate::cli::Failure;
use crate::cli::wallet::Out;

const FORM: &str = "farthing-audit-bundle-v1";
/// How long a bundle may be.
const MAX_BUNDLE_BYTES: usize = 16 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    #[serde(rename = "type")]
    form: String,
    purchase: String,
    leaves: Vec<Shown>,
    /// What the wallet's books say of it. Nothing of this is proven; the leaves are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    books: Option<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shown {
    proof: Value,
    revealed: Vec<Opened>,
}

/// A value that the leaf committed to.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Opened {
    field: String,
    salt: String,
    value: String,
}

/// Prints the proofs of all leaves about a purchase.
pub(super) fn print(
    (home, journal): &(Home, Journal),
    id: &PurchaseId,
    reveal: bool,
    with_books: bool,
) -> Result<(), Failure> {
    let log = home.audit();
    let dir = log.dir();
    let kept = journal.audit_leaves_of(&id.to_bytes())?;
    if kept.is_empty() {
        return Err(Failure::failed(format!("the log says nothing about {id}")));
    }
    let unpublished = || Failure::failed(format!("{id} is not published yet: farthing audit publish"));
    let damaged = |what: String| Failure::failed(format!("{what}: farthing audit verify says more"));
    let note = dir.checkpoint().map_err(|error| damaged(error.to_string()))?.ok_or_else(unpublished)?;
    let key = log.key()?;
    let (checkpoint, _) =
        Checkpoint::open(&note, key.verifier()).map_err(|error| damaged(error.to_string()))?;
    let note = String::from_utf8_lossy(&note).into_owned();
    let mut leaves = Vec::new();
    for kept in &kept {
        if kept.index >= checkpoint.size {
            return Err(unpublished());
        }
        let proof = prove(&dir, kept, &checkpoint, &note).map_err(damaged)?;
        // What is shown is what a stranger would accept.
        proof.verify(key.verifier()).map_err(|error| damaged(error.to_string()))?;
        let revealed = kept.secrets.iter().filter(|_| reveal).map(opened).collect();
        leaves.push(Shown { proof: proof.to_json(), revealed });
    }
    let books = if with_books { books(journal, id)? } else { None };
    let record = Record { form: FORM.to_owned(), purchase: id.to_string(), leaves, books };
    let text = serde_json::to_string(&record).map_err(|error| Failure::failed(error.to_string()))?;
    print_line(&text)
}

fn prove(dir: &LogDir, kept: &KeptLeaf, checkpoint: &Checkpoint, note: &str) -> Result<Inclusion, String> {
    let path = inclusion_proof(&mut dir.nodes(checkpoint.size), kept.index, checkpoint.size)
        .map_err(|error| error.to_string())?;
    let leaf = String::from_utf8(kept.bytes.clone()).map_err(|error| error.to_string())?;
    Ok(Inclusion { index: kept.index, leaf, path, checkpoint: note.to_owned() })
}

fn opened(secret: &Secret) -> Opened {
    Opened {
        field: secret.field.clone(),
        salt: hex::encode(secret.salt),
        value: String::from_utf8_lossy(&secret.value).into_owned(),
    }
}

fn books(journal: &Journal, id: &PurchaseId) -> Result<Option<Value>, Failure> {
    let purchase = match journal.get(id) {
        Ok(purchase) => purchase,
        // It was denied.
        Err(JournalError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let url = purchase.url.parse().map_or_else(|_| purchase.authority.clone(), |url| shown(&url));
    let receipt: Option<Value> = purchase.receipt.as_deref().and_then(|text| serde_json::from_str(text).ok());
    Ok(Some(json!({
        "state": purchase.state.name(),
        "confirmed": purchase.confirmed,
        "final": purchase.finalized,
        "delivered": purchase.delivered,
        "created": purchase.created.to_string(),
        "expires": purchase.expires.to_string(),
        "method": purchase.method,
        "url": url,
        "asset": purchase.money.asset().to_string(),
        "atoms": purchase.money.atoms().to_string(),
        "payee": purchase.payee.to_string(),
        "payer": purchase.payer.to_string(),
        "consumption": purchase.consumption.as_str(),
        "transaction": purchase.tx,
        "receipt": receipt,
    })))
}

/// Checks what somebody else printed, against a key that came from elsewhere.
pub(super) fn check(file: &Path, key: &VerifierKey, out: &Out) -> Result<ExitCode, Failure> {
    let bytes = read_bounded(file, MAX_BUNDLE_BYTES)?;
    let verdict = judge(&bytes, key);
    match &verdict {
        Ok((purchase, leaves)) => {
            let rows: Vec<Value> =
                leaves.iter().map(|(index, leaf, revealed)| row(*index, leaf, revealed)).collect();
            let mut text = format!("{} leaves about {purchase} are in the log\n", leaves.len());
            for (index, leaf, revealed) in leaves {
                let at = Timestamp::from_millis(leaf.at_ms);
                text += &format!("{index:>7}  {at}  {:<9}", leaf.kind.name());
                for name in ["state", "decision", "amount", "asset", "payee", "url", "tx"] {
                    if let Some(value) = leaf.text(name) {
                        text += &format!("  {name} {}", printable(value));
                    }
                }
                text.push('\n');
                for secret in revealed {
                    let value = String::from_utf8_lossy(&secret.value);
                    text += &format!("         {} is {}\n", secret.field, printable(&value));
                }
            }
            out.say(&json!({ "holds": true, "purchase": purchase, "leaves": rows }), &text);
        }
        Err((code, message)) => {
            let text = format!("PROBLEM  {code}: {}", printable(message));
            out.say(&json!({ "holds": false, "code": code, "message": message }), &text);
        }
    }
    Ok(ExitCode::from(u8::from(verdict.is_err())))
}

type Judged = (String, Vec<(u64, Leaf, Vec<Secret>)>);

/// What is proven, or the code and the message of what is not.
fn judge(bytes: &[u8], key: &VerifierKey) -> Result<Judged, (&'static str, String)> {
    let malformed = |what: &str| ("bundle_malformed", what.to_owned());
    let record: Record =
        serde_json::from_slice(bytes).map_err(|error| ("bundle_malformed", error.to_string()))?;
    if record.form != FORM || record.leaves.is_empty() || record.leaves.len() > MAX_AUDIT_PAGE {
        return Err(malformed("it is no bundle"));
    }
    let mut leaves = Vec::new();
    let mut before = None;
    for shown in record.leaves {
        let proof = shown.proof.to_string();
        let proof = Inclusion::read(proof.as_bytes()).map_err(|error| (error.code(), error.to_string()))?;
        let (leaf, _) = proof.verify(key).map_err(|error| (error.code(), error.to_string()))?;
        if leaf.text("purchase") != Some(&record.purchase) {
            return Err(("other_purchase", format!("leaf {} is about another purchase", proof.index)));
        }
        if before.is_some_and(|before| before >= proof.index) {
            return Err(malformed("its leaves are not in the order of the log"));
        }
        before = Some(proof.index);
        let mut revealed = Vec::new();
        for opened in shown.revealed {
            let mut salt = [0; SALT_BYTES];
            hex::decode_to_slice(&opened.salt, &mut salt).map_err(|_| malformed("a salt of it is none"))?;
            let secret = Secret { field: opened.field, salt, value: opened.value.into_bytes() };
            if !secret.opens(&leaf) {
                let message = format!("leaf {} did not commit to this {}", proof.index, secret.field);
                return Err(("commitment_differs", message));
            }
            revealed.push(secret);
        }
        leaves.push((proof.index, leaf, revealed));
    }
    Ok((record.purchase, leaves))
}

fn row(index: u64, leaf: &Leaf, revealed: &[Secret]) -> Value {
    let bytes = leaf.encode().unwrap_or_default();
    let revealed: serde_json::Map<String, Value> = revealed
        .iter()
        .map(|secret| (secret.field.clone(), String::from_utf8_lossy(&secret.value).into_owned().into()))
        .collect();
    json!({
        "index": index,
        "leaf": serde_json::from_slice::<Value>(&bytes).unwrap_or_default(),
        "revealed": revealed,
    })
}
