-- A purchase that a voucher pays for names its channel, and all that was signed on it: its money is in the channel's
-- deposit and counts there. `held` is what was vouched for it and not received yet.
ALTER TABLE purchase ADD COLUMN channel BLOB;
ALTER TABLE purchase ADD COLUMN cumulative BLOB;
ALTER TABLE purchase ADD COLUMN held BLOB;
CREATE INDEX purchase_by_channel ON purchase (channel, state) WHERE channel IS NOT NULL;
CREATE TABLE channel (
    id BLOB PRIMARY KEY,
    -- The channel as its payer knows it, with the high-water mark: nothing above it was ever signed.
    record BLOB NOT NULL,
    state TEXT NOT NULL,
    -- Payer, payee, token and escrow: one channel between them is used at a time.
    parties TEXT NOT NULL,
    -- Which of them it is: its salt comes from the number and the payer's key.
    number INTEGER NOT NULL,
    asset TEXT NOT NULL,
    -- What it ties up, which counts against the caps in every window.
    locked BLOB NOT NULL,
    -- What one atom counts in dollars; NULL for what is no dollar.
    dollar BLOB,
    authority TEXT NOT NULL,
    method TEXT NOT NULL,
    url TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    -- The seller's last receipt, as JSON.
    receipt TEXT,
    note TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX channel_by_parties ON channel (parties, number);
-- What payees took, when it was noticed.
CREATE TABLE channel_taken (
    channel BLOB NOT NULL, settled BLOB NOT NULL, atoms BLOB NOT NULL, at_ms INTEGER NOT NULL,
    PRIMARY KEY (channel, settled)
) STRICT, WITHOUT ROWID;
CREATE INDEX channel_taken_by_time ON channel_taken (at_ms);
-- What a channel's record calls its attempt: a deposit that the seller submits, or a transaction of our own.
CREATE TABLE channel_attempt (
    id BLOB PRIMARY KEY,
    channel BLOB NOT NULL,
    -- intended: nothing is signed. signed: nobody has seen it. shown: somebody has.
    state TEXT NOT NULL,
    -- From when on it can move no money; the wall's time.
    expires_ms INTEGER NOT NULL,
    holder TEXT NOT NULL,
    header_name TEXT,
    header_value TEXT,
    raw BLOB
) STRICT, WITHOUT ROWID;
