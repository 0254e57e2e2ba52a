//! Deterministic double entry: accounts; pending, posted and voided transfers.
//!
//! A transfer takes from one account (credit) and gives to another (debit), in one asset. Direction is said by
//! debit and credit, never by a sign, so the sum of all debits is the sum of all credits at every moment: money
//! is neither lost nor invented, and [`Ledger::check`] re-derives that from the entries alone.
//!
//! A transfer is named by the payment it belongs to and by its purpose. The same movement can therefore not be
//! posted twice, however often a step is repeated.

mod account;
mod book;
mod entry;

#[cfg(test)]
mod tests;

pub use account::{Account, AccountKind, UnknownKind};
pub use book::{Balance, CheckError, Ledger, LedgerError, Side};
pub use entry::{Entry, Phase, Purpose, TransferId, UnknownPurpose};
