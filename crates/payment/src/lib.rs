//! The life of a payment as a pure state machine.
//!
//! [`Payment::claim`] begins it, [`Payment::step`] moves it, and [`Payment::next`] says what is to be done in the
//! state that it is in: the same answer for a process that came here by itself and for one that was restarted
//! here. Nothing in this crate does I/O, knows a chain, or asks for the time.
//!
//! Spec: none outside; `docs/reference/payment.md` has the diagram, generated from [`transitions`].

mod event;
mod machine;
mod payment;
mod reason;
mod slot;
mod transitions;

#[cfg(test)]
mod tests;

pub use event::Event;
pub use machine::{Next, Step, StepError};
pub use payment::{
    Binding, Bound, ConsumptionKey, Delivery, Dialect, Flow, Instruction, NewPayment, Payment, Proof, Role,
    State, Terms, TxRef, Witness,
};
pub use reason::{Fault, Reason};
pub use slot::{Slot, SlotState, Variant};
pub use transitions::{Transition, transitions};
