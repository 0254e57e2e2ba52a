-- The tool that a purchase was made for, and what each rule found when it was decided about, as JSON.
ALTER TABLE purchase ADD COLUMN tool TEXT;
ALTER TABLE purchase ADD COLUMN decision TEXT;
-- People whose word counts. One key has one voice.
CREATE TABLE approver (
    name TEXT PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,
    -- They run this agent and what is part of it, and do not approve what it asks for.
    runs TEXT,
    created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What people are asked.
CREATE TABLE approval (
    id TEXT PRIMARY KEY,
    -- What is to be paid for, without how much and until when.
    subject BLOB NOT NULL,
    -- What is signed.
    text TEXT NOT NULL,
    agent TEXT,
    rule TEXT NOT NULL,
    quorum INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    -- The purchase, or the deposit, that it was used for.
    used_by BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX approval_by_subject ON approval (subject, expires_ms);
CREATE INDEX approval_by_time ON approval (expires_ms);
CREATE TABLE vote (
    approval TEXT NOT NULL, approver TEXT NOT NULL, verdict TEXT NOT NULL, signature BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (approval, approver)
) STRICT, WITHOUT ROWID;
