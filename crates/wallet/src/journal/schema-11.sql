-- Keys that are made for a while. What is said of a key here is signed by the key itself: whoever changes a row in place,
-- to lengthen it or to send its rest elsewhere, is found out when it is read.
CREATE TABLE session_key (
    address TEXT PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- The one agent that pays with it; NULL is whoever is given it.
    agent TEXT,
    -- Where its rest goes, and nowhere else.
    home TEXT NOT NULL,
    -- The books' time, see Mark.
    made_ms INTEGER NOT NULL,
    ends_ms INTEGER NOT NULL,
    signature BLOB NOT NULL,
    -- When the owner ended it, if that was.
    ended_ms INTEGER
) STRICT, WITHOUT ROWID;
-- Agents that pay with one key and no other.
CREATE TABLE session_agent (agent TEXT PRIMARY KEY, address TEXT NOT NULL) STRICT, WITHOUT ROWID;
-- Transfers of what is left to where it came from, written down before they are signed. They are signed again, and are
-- the same.
CREATE TABLE session_sweep (
    nonce BLOB PRIMARY KEY,
    address TEXT NOT NULL,
    asset TEXT NOT NULL,
    -- 16 bytes, big endian.
    atoms BLOB NOT NULL,
    -- From when on it can move nothing; the wall's time.
    expires_ms INTEGER NOT NULL,
    -- 0: may come. 1: it did. 2: it never will.
    state INTEGER NOT NULL DEFAULT 0,
    tx TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX session_sweep_open ON session_sweep (address, asset) WHERE state = 0;
