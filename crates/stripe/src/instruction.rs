//! What is kept of a payment: everything that its charge says, so that it says the same each time.
//!
//! Under one idempotency key Stripe refuses any request but the first one's. So nothing that a reload or a restart could
//! change may go into a charge beside what is here and the payment's own id.

use farthing_payment::Instruction;
use farthing_wire::json::parse;
use farthing_wire::{Json, Limits, Object};

const LIMITS: Limits = Limits { bytes: 16 * 1024, values: 64, members: 16 };
/// The form of this record.
const VERSION: u64 = 1;

/// The charge of one payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Charge {
    pub token: String,
    pub challenge: String,
    pub realm: String,
    pub amount: u64,
    pub currency: String,
    pub external_id: Option<String>,
}

/// Without the token, which is worth money.
impl std::fmt::Debug for Charge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Charge({} {})", self.amount, self.currency)
    }
}

impl Charge {
    pub fn write(&self) -> Instruction {
        let object = Object::new()
            .with("v", VERSION)
            .with("spt", self.token.as_str())
            .with("challenge", self.challenge.as_str())
            .with("realm", self.realm.as_str())
            .with("amount", self.amount)
            .with("currency", self.currency.as_str())
            .with_some("externalId", self.external_id.as_deref());
        Instruction::new(object.to_string().into_bytes())
    }

    /// `None` for what this version did not write.
    pub fn recall(instruction: &Instruction) -> Option<Self> {
        let Json::Object(object) = parse(instruction.as_bytes(), LIMITS).ok()? else { return None };
        if object.get("v")?.as_u64()? != VERSION {
            return None;
        }
        let text = |key| object.get_str(key).map(str::to_owned);
        Some(Self {
            token: text("spt")?,
            challenge: text("challenge")?,
            realm: text("realm")?,
            amount: object.get("amount")?.as_u64()?,
            currency: text("currency")?,
            external_id: text("externalId"),
        })
    }
}
