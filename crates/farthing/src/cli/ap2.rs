//! `farthing ap2`: AP2 mandates, checked. It pays nothing.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use farthing_ap2::{
    Amount, CheckoutMandate, Expect, Family, Link, MAX_CHAIN_BYTES, Merchant, MerchantKey, PaymentMandate,
    PublicKey, Refused, ReserveError, Root, Trust, Unreserved, Used, family_of, verify_checkout,
    verify_payment,
};
use farthing_policy::policy::length_of;
use farthing_primitives::Timestamp;
use farthing_store::MandateBook;
use farthing_wallet::client::printable;
use farthing_wallet::system_clock;
use farthing_wire::mpp::WireTime;
use serde_json::{Value, json};

use super::Failure;
use super::wallet::{Out, home};

/// The longest file with a key, in bytes.
const MAX_KEY_BYTES: usize = 16 * 1024;
/// The exit code of a mandate that does not count.
const REFUSED: u8 = 3;

/// Check AP2 v0.2 mandates: who was authorized to buy what, from whom, for how much. It pays nothing
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing ap2 verify checkout.txt --root provider.jwk --audience merchant --nonce b9c8… \\
      --merchant merchant_1=merchant.jwk
  farthing ap2 verify payment.txt --root provider.jwk --audience credential-provider --nonce a8b7… \\
      --transaction-id NivW… --open-checkout FzLo…

AP2 payments are not spoken: mandates are checked, and what then moves money is yours to do.
See docs/reference/ap2.md.")]
pub struct Ap2Args {
    #[command(subcommand)]
    command: Command,
    /// Print JSON also on a terminal
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Verify(Verify),
}

/// Say what a chain of mandates authorizes, and use it up; or say which check refuses it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  farthing ap2 verify checkout.txt --root provider.jwk --audience merchant --nonce b9c8… \\
      --merchant merchant_1=merchant.jwk --sent checkout.jwt
  farthing ap2 verify payment.txt --root provider.jwk --audience credential-provider --nonce a8b7… \\
      --checkout checkout.txt --checkout-audience merchant --checkout-nonce b9c8… --merchant merchant_1=merchant.jwk
  farthing ap2 verify payment.txt … --look --at 2026-04-28T02:13:00Z        in a dispute: nothing is used up

A mandate counts once. What was used is in $FARTHING_HOME/ap2.db, and a second time is refused, also
after a restart. Nothing is paid.

Exit codes: 0 authorized; 1 it could not be told; 2 called wrongly; 3 refused, with a code.")]
struct Verify {
    /// The chain, as it was received: <SD-JWT>~~<SD-JWT>~; - is standard input
    file: PathBuf,
    /// A JWK file of an agent provider whose mandates count. May be given several times
    #[arg(long, value_name = "FILE")]
    root: Vec<PathBuf>,
    /// A JWK file of who issues user credentials of that type, whose holders' mandates count. May be given several times
    #[arg(long, value_name = "VCT=FILE", value_parser = named_file)]
    credential: Vec<(String, PathBuf)>,
    /// Whom the mandate has to be for: what you called yourself
    #[arg(long, value_name = "NAME", allow_hyphen_values = true)]
    audience: String,
    // Nonces and hashes in base64url begin with a hyphen now and then.
    /// The nonce that you asked with
    #[arg(long, value_name = "NONCE", allow_hyphen_values = true)]
    nonce: String,
    /// A JWK file of a merchant that signs checkouts, by the merchant's id. May be given several times
    #[arg(long, value_name = "ID=FILE", value_parser = named_file)]
    merchant: Vec<(String, PathBuf)>,
    /// The merchant-signed checkout that you sent for approval, if you are the merchant
    #[arg(long, value_name = "FILE")]
    sent: Option<PathBuf>,
    /// For a payment: the chain of the checkout that it pays for. It is checked, and not used up
    #[arg(long, value_name = "FILE", requires = "checkout_audience", requires = "checkout_nonce")]
    checkout: Option<PathBuf>,
    /// Whom the checkout's chain is for
    #[arg(long, value_name = "NAME", requires = "checkout", allow_hyphen_values = true)]
    checkout_audience: Option<String>,
    /// The nonce that the checkout's chain answers
    #[arg(long, value_name = "NONCE", requires = "checkout", allow_hyphen_values = true)]
    checkout_nonce: Option<String>,
    /// For a payment, without --checkout: the hash of the checkout, from somebody you trust
    #[arg(long, value_name = "HASH", conflicts_with = "checkout", allow_hyphen_values = true)]
    transaction_id: Option<String>,
    /// The hash of the open checkout mandate, from somebody you trust
    #[arg(long, value_name = "HASH", requires = "transaction_id", allow_hyphen_values = true)]
    open_checkout: Option<String>,
    /// Also take a closed mandate that an agent provider signed itself: it is for no audience and answers no nonce
    #[arg(long)]
    direct: bool,
    /// How old the signature may be, such as 10m or 1h
    #[arg(long, value_name = "LENGTH", default_value = "1h")]
    max_age: String,
    /// Only look: nothing is used up, and nothing is authorized
    #[arg(long)]
    look: bool,
    /// Look as it was at that time (RFC 3339)
    #[arg(long, value_name = "TIME", requires = "look")]
    at: Option<String>,
}

fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.rsplit_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_owned(), file.into())),
        _ => Err("expected NAME=FILE".to_owned()),
    }
}

pub fn run(args: Ap2Args) -> Result<ExitCode, Failure> {
    let out = Out { json: args.json || !std::io::stdout().is_terminal() };
    let Command::Verify(verify) = args.command;
    let verdict = verify.judge()?;
    match verdict {
        Ok(told) => {
            out.say(&told.json, &told.text);
            Ok(ExitCode::SUCCESS)
        }
        Err(refused) => {
            let json = json!({
                "authorized": false,
                "kind": refused.family.word(),
                "hop": refused.hop,
                "code": refused.why.code(),
                "ap2_error": refused.why.ap2_error(),
                "reason": refused.why.to_string(),
            });
            out.say(&json, &format!("refused ({}): {refused}", refused.why.code()));
            Ok(ExitCode::from(REFUSED))
        }
    }
}

/// What is said of a mandate.
struct Told {
    json: Value,
    text: String,
}

impl Verify {
    fn judge(&self) -> Result<Result<Told, Refused>, Failure> {
        let chain = text(&self.file, MAX_CHAIN_BYTES)?;
        let family =
            family_of(&chain).unwrap_or(if self.is_payment() { Family::Payment } else { Family::Checkout });
        let roots = self.roots()?;
        let merchants = self.merchants()?;
        let now = self.now()?;
        let max_age = length_of(&self.max_age)
            .ok_or_else(|| Failure::usage(format!("{:?} is no length of time like \"10m\"", self.max_age)))?;
        let expect = Expect {
            roots: &roots,
            audience: &self.audience,
            nonce: &self.nonce,
            now,
            max_age,
            direct: self.direct,
        };
        match family {
            Family::Checkout => {
                if self.is_payment() {
                    return Err(Failure::usage(
                        "this is a checkout mandate; --checkout and --transaction-id are for payments",
                    ));
                }
                let sent = self.sent.as_deref().map(|file| text(file, MAX_CHAIN_BYTES)).transpose()?;
                let judged = verify_checkout(&chain, &expect, &merchants, sent.as_deref());
                self.conclude(judged, now, tell_checkout)
            }
            Family::Payment => {
                // Whoever shows the checkout says whom it was for; its age is its own.
                let of_checkout = Expect {
                    audience: self.checkout_audience.as_deref().unwrap_or_default(),
                    nonce: self.checkout_nonce.as_deref().unwrap_or_default(),
                    ..expect.clone()
                };
                let checkout = match &self.checkout {
                    None => None,
                    Some(file) => {
                        match verify_checkout(&text(file, MAX_CHAIN_BYTES)?, &of_checkout, &merchants, None) {
                            Ok(checkout) => Some(checkout),
                            Err(refused) => return Ok(Err(refused)),
                        }
                    }
                };
                let link = match (&checkout, &self.transaction_id) {
                    (Some(checkout), _) => Link::Checkout(checkout.look()),
                    (None, Some(transaction_id)) => {
                        Link::Told { transaction_id, open_checkout: self.open_checkout.as_deref() }
                    }
                    (None, None) => {
                        return Err(Failure::usage(
                            "say which checkout is paid: --checkout with its chain, or --transaction-id with its hash",
                        ));
                    }
                };
                let mut verdict = self.conclude(verify_payment(&chain, &expect, link), now, tell_payment)?;
                if let Ok(told) = &mut verdict {
                    told.json["checkout"] = json!(if checkout.is_some() { "seen" } else { "told" });
                    if checkout.is_none() {
                        told.text += "\nThe checkout was not seen: its hash is the word of whoever told you.";
                    }
                }
                Ok(verdict)
            }
        }
    }

    fn is_payment(&self) -> bool {
        self.checkout.is_some() || self.transaction_id.is_some()
    }

    /// Uses the mandate up, unless it is only looked at.
    fn conclude<T>(
        &self,
        judged: Result<Unreserved<T>, Refused>,
        now: Timestamp,
        tell: fn(&T) -> Told,
    ) -> Result<Result<Told, Refused>, Failure> {
        let unreserved = match judged {
            Ok(unreserved) => unreserved,
            Err(refused) => return Ok(Err(refused)),
        };
        if self.look {
            let mut told = tell(unreserved.look());
            told.json["authorized"] = json!(false);
            told.json["used_up"] = json!(false);
            told.json["valid"] = json!(true);
            told.text =
                format!("valid, and only looked at: whether it was used before was not asked\n{}", told.text);
            return Ok(Ok(told));
        }
        let home = home()?;
        home.make().map_err(|error| Failure::failed(error.to_string()))?;
        let book = MandateBook::open(&home.path().join("ap2.db"))
            .map_err(|error| Failure::failed(error.to_string()))?;
        match unreserved.reserve(&book, now) {
            Ok(authorized) => {
                let mut told = tell(authorized.mandate());
                told.json["authorized"] = json!(true);
                told.json["used_up"] = json!(true);
                told.text = format!("authorized, once, and used up now\n{}", told.text);
                Ok(Ok(told))
            }
            Err(ReserveError::Refused(refused)) => Ok(Err(refused)),
            Err(ReserveError::Unknown(error)) => Err(Failure::failed(error.to_string())),
        }
    }

    fn now(&self) -> Result<Timestamp, Failure> {
        match &self.at {
            None => Ok(system_clock().wall),
            Some(at) => at
                .parse::<WireTime>()
                .map(|time| time.at())
                .map_err(|_| Failure::usage(format!("{at:?} is no time like 2026-04-28T02:13:00Z"))),
        }
    }

    fn roots(&self) -> Result<Vec<Root>, Failure> {
        let mut roots = Vec::new();
        for file in &self.root {
            let (key, kid) = key(file)?;
            roots.push(Root { key, kid, trust: Trust::AgentProvider });
        }
        for (vct, file) in &self.credential {
            let (key, kid) = key(file)?;
            roots.push(Root { key, kid, trust: Trust::Credential { vct: vct.clone() } });
        }
        if roots.is_empty() {
            return Err(Failure::usage("nobody is trusted: give --root or --credential"));
        }
        Ok(roots)
    }

    fn merchants(&self) -> Result<Vec<MerchantKey>, Failure> {
        let mut merchants = Vec::new();
        for (merchant, file) in &self.merchant {
            let (key, kid) = key(file)?;
            merchants.push(MerchantKey { merchant: merchant.clone(), kid, key });
        }
        Ok(merchants)
    }
}

fn key(file: &Path) -> Result<(PublicKey, Option<String>), Failure> {
    let text = text(file, MAX_KEY_BYTES)?;
    PublicKey::from_jwk_text(text.as_bytes())
        .map_err(|error| Failure::usage(format!("{}: {error}", file.display())))
}

/// A file, up to a byte more than is taken: then whoever reads it says so. Blanks around it are the file's.
fn text(file: &Path, most: usize) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", file.display()));
    let mut bytes = Vec::new();
    let limit = most as u64 + 1;
    if file == Path::new("-") {
        std::io::stdin().take(limit).read_to_end(&mut bytes).map_err(failed)?;
    } else {
        File::open(file).map_err(failed)?.take(limit).read_to_end(&mut bytes).map_err(failed)?;
    }
    // What is no UTF-8 is no chain either, and is refused as one.
    Ok(String::from_utf8_lossy(&bytes).trim_ascii().to_owned())
}

fn tell_checkout(mandate: &CheckoutMandate) -> Told {
    let lines: Vec<Value> =
        mandate.lines.iter().map(|line| json!({ "item": line.id, "quantity": line.quantity })).collect();
    let mut text =
        format!("checkout   {}\nmerchant   {}\n", mandate.checkout_hash, merchant_text(&mandate.merchant));
    for line in &mandate.lines {
        text += &format!("           {} × {}\n", line.quantity, printable(&line.id));
    }
    if let Some(total) = &mandate.total {
        text += &format!("total      {total}\n");
    }
    text += &ending(&mandate.constraints, mandate.opens.is_empty());
    Told {
        json: json!({
            "kind": "checkout",
            "mandate": mandate.id.to_string(),
            "open_mandates": mandate.opens.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "merchant": merchant_json(&mandate.merchant),
            "lines": lines,
            "total": mandate.total.as_ref().map(amount_json),
            "checkout_hash": mandate.checkout_hash,
            "constraints": constraints_json(&mandate.constraints),
            "reference": mandate.reference,
            "signed_at": mandate.signed_at.map(|at| at.to_string()),
            "paid": false,
        }),
        text,
    }
}

fn tell_payment(mandate: &PaymentMandate) -> Told {
    let instrument = &mandate.instrument;
    let mut text = format!(
        "payee      {}\namount     {}\ninstrument {} ({})\nfor        {}\n",
        merchant_text(&mandate.payee),
        mandate.amount,
        printable(&instrument.id),
        printable(&instrument.kind),
        printable(&mandate.transaction_id),
    );
    if let Some(at) = mandate.execution_date {
        text += &format!("at         {at}\n");
    }
    text += &ending(&mandate.constraints, mandate.opens.is_empty());
    Told {
        json: json!({
            "kind": "payment",
            "mandate": mandate.id.to_string(),
            "open_mandates": mandate.opens.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "payee": merchant_json(&mandate.payee),
            "amount": amount_json(&mandate.amount),
            "instrument": {
                "id": instrument.id, "type": instrument.kind, "description": instrument.description,
            },
            "pisp": mandate.pisp.as_ref().map(|pisp| json!({
                "legal_name": pisp.legal_name, "brand_name": pisp.brand_name, "domain_name": pisp.domain_name,
            })),
            "execution_date": mandate.execution_date.map(|at| at.to_string()),
            "transaction_id": mandate.transaction_id,
            "constraints": constraints_json(&mandate.constraints),
            "reference": mandate.reference,
            "signed_at": mandate.signed_at.map(|at| at.to_string()),
            "paid": false,
        }),
        text,
    }
}

fn ending(constraints: &[Used], direct: bool) -> String {
    let mut text = String::new();
    if direct {
        text += "by         the user, who approved exactly this\n";
    }
    for used in constraints {
        text += &format!("met        {}: {}\n", used.constraint, printable(&used.how));
    }
    text + "Nothing was paid: mandates are checked here, AP2 payments are not spoken."
}

fn constraints_json(constraints: &[Used]) -> Vec<Value> {
    constraints.iter().map(|used| json!({ "constraint": used.constraint, "how": used.how })).collect()
}

fn merchant_text(merchant: &Merchant) -> String {
    let id = merchant.id.as_deref().unwrap_or("no id");
    format!("{} ({})", printable(&merchant.name), printable(id))
}

fn merchant_json(merchant: &Merchant) -> Value {
    json!({ "id": merchant.id, "name": merchant.name, "website": merchant.website })
}

fn amount_json(amount: &Amount) -> Value {
    // As text: not every reader of JSON has whole numbers of this size.
    json!({ "minor_units": amount.minor.to_string(), "currency": amount.currency })
}
