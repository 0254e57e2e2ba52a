//! Deterministic double entry: accounts; pending, posted and voided transfers.
