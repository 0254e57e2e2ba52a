-- Hosts and payees that somebody else named, by the agent that read it; '' is the owner. Hosts are written from their end,
-- so that all below one stand together.
CREATE TABLE mention (
    agent TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    source TEXT NOT NULL,
    PRIMARY KEY (agent, kind, name)
) STRICT, WITHOUT ROWID;
-- How many there are, and since when there were more than are kept, and who wrote these.
CREATE TABLE mention_count (
    agent TEXT PRIMARY KEY,
    kept INTEGER NOT NULL,
    lost_ms INTEGER,
    lost_source TEXT
) STRICT, WITHOUT ROWID;
-- Whom people let an agent pay although somebody else had named it first.
CREATE TABLE vouched (
    agent TEXT NOT NULL,
    authority TEXT NOT NULL,
    payee TEXT NOT NULL,
    PRIMARY KEY (agent, authority, payee)
) STRICT, WITHOUT ROWID;
-- Whom a chain says that we paid, and since when.
CREATE INDEX purchase_proven ON purchase (authority, agent, created_ms, payee)
    WHERE state = 'settled' AND confirmed > 0 AND channel IS NULL;
