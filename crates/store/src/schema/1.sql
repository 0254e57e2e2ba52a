-- Ids are 16 bytes, atoms 16 bytes big-endian (never summed by SQL, whose integers have 64 bits), moments
-- milliseconds since 1970. EVM addresses are 20 bytes, others text. Assets are `network/address`.

CREATE TABLE payments (
    seq      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL,
    tenant   TEXT NOT NULL,
    -- SHA-256 of the consumption key: short, so that many fit a page of the index. `terms` has the key itself.
    key_hash BLOB NOT NULL,
    version  INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    state    TEXT NOT NULL,
    delivery TEXT NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    -- Something is left to do.
    open     INTEGER NOT NULL,
    -- Served, or about to be, and not settled.
    exposed  INTEGER NOT NULL,
    -- The consumption key is free again.
    released INTEGER NOT NULL,
    -- `responses` has the upstream's answer.
    answered INTEGER NOT NULL,
    payer    ANY NOT NULL,
    payee    ANY NOT NULL,
    asset    TEXT NOT NULL,
    atoms    BLOB NOT NULL,
    detail   BLOB NOT NULL,
    terms    BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX payments_id ON payments (id);
CREATE UNIQUE INDEX payments_key ON payments (key_hash) WHERE released = 0;
CREATE INDEX payments_open ON payments (id) WHERE open = 1;
CREATE INDEX payments_exposed ON payments (tenant, payee, asset, payer) WHERE exposed = 1;
CREATE INDEX payments_settled ON payments (updated, id) WHERE state = 'settled';
CREATE INDEX payments_answered ON payments (updated)
    WHERE answered = 1 AND state IN ('settled', 'refused', 'failed', 'refunded');

-- What happened after the claim; the claim itself is the payment's row.
CREATE TABLE history (
    payment BLOB NOT NULL,
    version INTEGER NOT NULL,
    tenant  TEXT NOT NULL,
    event   TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (payment, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE responses (
    seq     INTEGER PRIMARY KEY,
    payment BLOB NOT NULL UNIQUE,
    tenant  TEXT NOT NULL,
    head    BLOB NOT NULL,
    body    BLOB NOT NULL
) STRICT;

CREATE TABLE transfers (
    payment BLOB NOT NULL,
    round   INTEGER NOT NULL,
    purpose TEXT NOT NULL,
    tenant  TEXT NOT NULL,
    phase   TEXT NOT NULL,
    asset   TEXT NOT NULL,
    atoms   BLOB NOT NULL,
    PRIMARY KEY (payment, round, purpose)
) STRICT, WITHOUT ROWID;

CREATE TABLE balances (
    tenant          TEXT NOT NULL,
    kind            TEXT NOT NULL,
    asset           TEXT NOT NULL,
    debits_posted   BLOB NOT NULL,
    credits_posted  BLOB NOT NULL,
    debits_pending  BLOB NOT NULL,
    credits_pending BLOB NOT NULL,
    PRIMARY KEY (tenant, kind, asset)
) STRICT, WITHOUT ROWID;

-- Each transfer log pays for one thing, across tenants and dialects.
CREATE TABLE credits (
    network   TEXT NOT NULL,
    tx        TEXT NOT NULL,
    log_index INTEGER NOT NULL,
    tenant    TEXT NOT NULL,
    payment   BLOB NOT NULL,
    PRIMARY KEY (network, tx, log_index)
) STRICT, WITHOUT ROWID;

CREATE INDEX credits_payment ON credits (payment);

-- Relayer keys are the operator's, so a slot's own tenant is `local`, whoever's payments are in it.
CREATE TABLE slots (
    id      BLOB NOT NULL PRIMARY KEY,
    tenant  TEXT NOT NULL DEFAULT 'local',
    version INTEGER NOT NULL,
    network TEXT NOT NULL,
    relayer ANY NOT NULL,
    nonce   INTEGER NOT NULL,
    state   TEXT NOT NULL,
    updated INTEGER NOT NULL,
    body    BLOB NOT NULL
) STRICT;

-- A nonce is filled once; only one that somebody else's transaction took may come back.
CREATE UNIQUE INDEX slots_nonce ON slots (network, relayer, nonce) WHERE state <> 'lost';
CREATE INDEX slots_live ON slots (network, relayer, nonce) WHERE state IN ('open', 'included');
CREATE INDEX slots_relayer ON slots (network, relayer, nonce);

CREATE TABLE slot_payments (
    payment BLOB NOT NULL,
    slot    BLOB NOT NULL,
    tenant  TEXT NOT NULL DEFAULT 'local',
    PRIMARY KEY (payment, slot)
) STRICT, WITHOUT ROWID;

CREATE INDEX slot_payments_slot ON slot_payments (slot);
