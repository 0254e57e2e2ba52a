//! Store on SQLite, and the in-memory model.
