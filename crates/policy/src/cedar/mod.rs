//! Policies in Cedar's language, so that its symbolic analysis can prove what no number of tests can: that one allows
//! nothing that another does not.
//!
//! [`Comparison`] writes two policies over one schema, as what [`Policy::decide`] says of a payment, and reads a
//! counterexample back into a payment, a past and a time, about which [`Policy::decide`] is asked itself. Nothing here
//! starts a program.
//!
//! What Cedar cannot look into is an attribute of its own, that may be anything and is the same wherever it is the same by
//! its text: an expression, what a screener says, what a limit follows. Everything else is looked into, exactly: amounts of
//! 128 bits are numbered so that no comparison changes, and sums stand in the context as what they would be
//! after the payment, so that nothing is ever added up there.

mod model;
mod scale;
mod term;
#[cfg(test)]
mod tests;
mod witness;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use farthing_primitives::{AssetId, Registry};

use crate::{AgentName, Policy};
use model::{Clause, Model, Side, Who};
use term::{Cond, Kind, Quoted, all, at_least, at_most};
pub use term::{Context, ContextError, Value, read_context};
pub use witness::{Refutation, Unconfirmed};

/// The type of whoever pays, of whoever is paid, and what is done. All that matters is in the context.
pub const PRINCIPAL: &str = "Agent";
pub const RESOURCE: &str = "Payee";
pub const ACTION: &str = "Action::\"pay\"";

/// The most text that one policy may become, in bytes.
pub const MAX_TEXT: usize = 4 * 1024 * 1024;

/// Why a policy cannot be said in Cedar.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Untold {
    #[error("it has too many rules or budgets to be looked at by a solver")]
    TooLarge,
    #[error("{0} has smaller parts than dollars are counted in")]
    Decimals(AssetId),
}

/// Which payments a question is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Those about which nobody was asked.
    Nobody,
    /// Those to which people said yes, however many did.
    People,
    All,
}

/// What is taken for granted when a question is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// What is always true: whatever is proved holds.
    Proof,
    /// Sums add up exactly. A counterexample is sought, and it should be one that can be.
    Counterexample,
    /// Besides, nothing is unusual that need not be.
    Plain,
}

/// Two policies, or one as it is for two agents, of which one is to allow nothing that the other does not.
#[derive(Debug)]
pub struct Comparison<'a> {
    model: Model<'a>,
    narrow: Side<'a>,
    wide: Side<'a>,
    left: Vec<Clause>,
    right: Vec<Clause>,
}

impl<'a> Comparison<'a> {
    /// Whether `new` allows nothing that `old` does not.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn of(new: &'a Policy, old: &'a Policy, registry: &'a Registry) -> Result<Self, Untold> {
        let side = |policy| Side { policy, who: Who::Anybody };
        Self::between(side(new), side(old), registry)
    }

    /// Whether `policy` allows `child` nothing that it does not allow `parent`, all else being the same.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn of_agents(
        policy: &'a Policy,
        child: &'a AgentName,
        parent: &'a AgentName,
        registry: &'a Registry,
    ) -> Result<Self, Untold> {
        let side = |agent| Side { policy, who: Who::Agent(agent) };
        Self::between(side(child), side(parent), registry)
    }

    fn between(narrow: Side<'a>, wide: Side<'a>, registry: &'a Registry) -> Result<Self, Untold> {
        let mut model = Model::new([narrow.policy, wide.policy], registry)?;
        let left = model.clauses(narrow)?;
        let right = model.clauses(wide)?;
        Ok(Self { model, narrow, wide, left, right })
    }

    /// Cedar's schema, in its own language.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn schema(&self) -> Result<String, Untold> {
        let mut attributes = BTreeMap::new();
        let mut note = |cond: &Cond| {
            cond.attributes(&mut |key, kind| {
                attributes.insert(key.to_owned(), kind);
            });
        };
        self.left.iter().chain(&self.right).for_each(|clause| note(&clause.when));
        for search in [Search::Proof, Search::Counterexample, Search::Plain] {
            match self.premises(Asked::People, search) {
                Ok(found) => found.iter().for_each(|(_, cond)| note(cond)),
                // There is no counterexample to be sought then, and there may be a proof all the same.
                Err(_) if search != Search::Proof => {}
                Err(untold) => return Err(untold),
            }
        }
        let mut text = format!(
            "// A payment, and what is known of the past. Sums are what they would be after it.\n\
             entity {PRINCIPAL};\nentity {RESOURCE};\n\
             action \"pay\" appliesTo {{ principal: [{PRINCIPAL}], resource: [{RESOURCE}], context: {{\n"
        );
        for (key, kind) in attributes {
            let kind = match kind {
                Kind::Flag => "Bool",
                Kind::Number => "Long",
                Kind::Text => "String",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {}: {kind},", Quoted(&key));
        }
        text += "} };\n";
        fits(text)
    }

    /// The policy that is to be the narrower one, with what is taken for granted.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn narrower(&self, asked: Asked, search: Search) -> Result<String, Untold> {
        let mut text = printed(&self.left);
        for (n, (name, cond)) in self.premises(asked, search)?.iter().enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(
                text,
                "@id({})\nforbid (principal, action == {ACTION}, resource) unless {{ {cond} }};\n",
                Quoted(&format!("premise {n}: {name}")),
            );
        }
        fits(text)
    }

    /// The policy that is to be the wider one.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn wider(&self) -> Result<String, Untold> {
        fits(printed(&self.right))
    }

    /// One rule that fails if any of either policy, or anything that is taken for granted, does: every member of a list is
    /// evaluated. Cedar skips a rule that fails, and one that forbids would be missing.
    ///
    /// # Errors
    /// [`Untold`]
    pub fn together(&self) -> Result<String, Untold> {
        let premises = self.premises(Asked::People, Search::Proof)?;
        let both = self.left.iter().chain(&self.right).map(|clause| &clause.when);
        let each: BTreeSet<String> =
            both.chain(premises.iter().map(|(_, cond)| cond)).map(ToString::to_string).collect();
        let each: Vec<String> = each.into_iter().collect();
        fits(format!(
            "permit (principal, action == {ACTION}, resource)\nwhen {{ [\n  {}\n].contains(true) }};\n",
            each.join(",\n  ")
        ))
    }

    /// What is not looked into, for people.
    pub fn opaque(&self) -> BTreeSet<&str> {
        self.model.opaque.values().map(String::as_str).collect()
    }

    /// What a counterexample comes to: a payment that the narrower policy allows and the wider one does not, by their own
    /// decisions.
    ///
    /// # Errors
    /// [`Unconfirmed`]: it is none, as far as can be told.
    pub fn refuted(&self, context: &Context) -> Result<Refutation, Unconfirmed> {
        witness::confirm(&self.model, self.narrow, self.wide, context)
    }

    fn premises(&self, asked: Asked, search: Search) -> Result<Vec<(&'static str, Cond)>, Untold> {
        let mut found = self.model.premises(&[self.narrow, self.wide], search != Search::Proof)?;
        match asked {
            Asked::Nobody => found.push(("nobody was asked", at_most(model::name::VOICES, 0))),
            Asked::People => found.push(("people said yes", at_least(model::name::VOICES, 1))),
            Asked::All => {}
        }
        if search == Search::Plain {
            found.extend(self.model.ordinary());
        }
        found.retain(|(_, cond)| *cond != all([]));
        Ok(found)
    }
}

fn fits(text: String) -> Result<String, Untold> {
    if text.len() > MAX_TEXT { Err(Untold::TooLarge) } else { Ok(text) }
}

fn printed(clauses: &[Clause]) -> String {
    let mut text = String::new();
    for (n, Clause { name, permits, when }) in clauses.iter().enumerate() {
        let effect = if *permits { "permit" } else { "forbid" };
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "@id({})\n{effect} (principal, action == {ACTION}, resource) when {{ {when} }};\n",
            Quoted(&format!("{n}: {name}")),
        );
    }
    text
}
