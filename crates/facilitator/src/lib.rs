//! /verify, /settle and /supported over the engine.
