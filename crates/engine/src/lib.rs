//! The only driver: runs effects, timers, waiters and the reconciler.
