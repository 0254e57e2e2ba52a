-- Channels: one row each, with the record that the `channel` crate prints, sealed. What is queried has a column.

CREATE TABLE channels (
    seq     INTEGER PRIMARY KEY,
    tenant  TEXT NOT NULL,
    -- 32 bytes. They say the chain and the escrow, so that no two tenants can have the same.
    channel BLOB NOT NULL,
    -- The name of its transfers, and in slots.
    book    BLOB NOT NULL,
    version INTEGER NOT NULL,
    state   TEXT NOT NULL,
    -- Something may be left to do.
    work    INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    record  BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX channels_channel ON channels (channel);
CREATE UNIQUE INDEX channels_book ON channels (book);
CREATE INDEX channels_work ON channels (channel) WHERE work = 1;

-- What was asked for and charged. A request that is started again has a new row, which is the current one.
CREATE TABLE charges (
    seq     INTEGER PRIMARY KEY,
    id      BLOB NOT NULL,
    tenant  TEXT NOT NULL,
    channel BLOB NOT NULL,
    request BLOB NOT NULL,
    current INTEGER NOT NULL,
    state   TEXT NOT NULL,
    record  BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX charges_id ON charges (id);
CREATE UNIQUE INDEX charges_request ON charges (channel, request) WHERE current = 1;
CREATE INDEX charges_channel ON charges (channel, id);

-- Answers of charges, for those that got lost on the way. They expire, and a channel has only so many.
CREATE TABLE charge_answers (
    seq     INTEGER PRIMARY KEY,
    charge  BLOB NOT NULL UNIQUE,
    tenant  TEXT NOT NULL,
    channel BLOB NOT NULL,
    stored  INTEGER NOT NULL,
    head    BLOB NOT NULL,
    body    BLOB NOT NULL
) STRICT;

CREATE INDEX charge_answers_channel ON charge_answers (channel, seq);
CREATE INDEX charge_answers_stored ON charge_answers (stored);
