//! The life of a payment as pure state machines.
