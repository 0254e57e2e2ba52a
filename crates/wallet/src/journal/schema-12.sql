-- Rows that may be long are kept by number, and found by an index. Without a number, each comparison on the way to a row
-- reads the whole of another one: to move the mark of time, SQLite read all of the policy.
CREATE TABLE setting_by_number (key TEXT NOT NULL UNIQUE, value TEXT NOT NULL) STRICT;
INSERT INTO setting_by_number (key, value) SELECT key, value FROM setting ORDER BY key;
DROP TABLE setting;
ALTER TABLE setting_by_number RENAME TO setting;

CREATE TABLE purchase_by_number (
    id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    counts_until_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    authority TEXT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    request_hash BLOB NOT NULL,
    asset TEXT NOT NULL,
    atoms BLOB NOT NULL,
    dollars BLOB,
    payee TEXT NOT NULL,
    payer TEXT NOT NULL,
    consumption TEXT NOT NULL UNIQUE,
    header_name TEXT,
    header_value TEXT,
    instruction BLOB,
    holder TEXT NOT NULL,
    shown INTEGER NOT NULL DEFAULT 0,
    tx TEXT,
    confirmed INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    receipt TEXT,
    note TEXT,
    channel BLOB,
    cumulative BLOB,
    held BLOB,
    agent TEXT,
    tool TEXT,
    decision TEXT
) STRICT;
INSERT INTO purchase_by_number (id, state, created_ms, updated_ms, counts_until_ms, expires_ms, authority, method, url,
    request_hash, asset, atoms, dollars, payee, payer, consumption, header_name, header_value, instruction, holder, shown,
    tx, confirmed, delivered, receipt, note, channel, cumulative, held, agent, tool, decision)
SELECT id, state, created_ms, updated_ms, counts_until_ms, expires_ms, authority, method, url,
    request_hash, asset, atoms, dollars, payee, payer, consumption, header_name, header_value, instruction, holder, shown,
    tx, confirmed, delivered, receipt, note, channel, cumulative, held, agent, tool, decision FROM purchase ORDER BY id;
DROP TABLE purchase;
ALTER TABLE purchase_by_number RENAME TO purchase;
CREATE INDEX purchase_by_time ON purchase (counts_until_ms);
CREATE INDEX purchase_by_authority ON purchase (authority, updated_ms);
CREATE INDEX purchase_by_request ON purchase (request_hash, id);
CREATE INDEX purchase_by_channel ON purchase (channel, state) WHERE channel IS NOT NULL;
CREATE INDEX purchase_streams ON purchase (channel, created_ms) WHERE note = 'stream';
CREATE INDEX purchase_by_agent ON purchase (agent, id) WHERE agent IS NOT NULL;
CREATE INDEX purchase_unshown ON purchase (counts_until_ms) WHERE state IN ('intended', 'signed');
CREATE INDEX purchase_intended ON purchase (holder) WHERE state = 'intended';
CREATE INDEX purchase_of_thing ON purchase (url, method, asset, id) WHERE state = 'settled';
CREATE INDEX purchase_undelivered ON purchase (state, updated_ms) WHERE delivered <> 1;
CREATE INDEX purchase_unfinished ON purchase (id)
    WHERE channel IS NULL AND (state IN ('signed', 'presented', 'unknown', 'refused') OR (state = 'settled' AND confirmed < 2));
CREATE INDEX purchase_proven ON purchase (authority, agent, created_ms, payee)
    WHERE state = 'settled' AND confirmed > 0 AND channel IS NULL;
