use super::Problem;
use crate::Object;
use crate::x402::{Message, v1};

/// The body of a 402 that serves readers of MPP and of x402 version 1 alike: the members of a problem, and beside them
/// `x402Version`, `error` and `accepts`. Neither reader minds the other's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequiredBody {
    pub problem: Problem,
    /// What a version 1 client may take. Such a client refuses the whole body for one offer that it does not know, so
    /// this holds only offers that it does; without any, the members of x402 are left out.
    pub x402: Option<v1::PaymentRequired>,
}

impl PaymentRequiredBody {
    pub fn to_object(&self) -> Object {
        let mut object = self.problem.to_object();
        if let Some(x402) = self.x402.as_ref().filter(|x402| !x402.accepts.is_empty())
            && let crate::Json::Object(members) = x402.to_json()
        {
            object.append(&members);
            if !object.contains_key("error") {
                // Spec: x402 v1 section 5.1: a text, which clients print.
                object.insert("error", self.problem.title.as_str());
            }
        }
        object
    }

    pub fn print(&self) -> String {
        self.to_object().to_string()
    }
}
