-- Which agent made a purchase, or opened a channel; NULL is the owner.
ALTER TABLE purchase ADD COLUMN agent TEXT;
ALTER TABLE channel ADD COLUMN agent TEXT;
CREATE INDEX purchase_by_agent ON purchase (agent, id) WHERE agent IS NOT NULL;
-- Machines that the owner lets spend through a guard.
CREATE TABLE agent (
    name TEXT PRIMARY KEY, created_ms INTEGER NOT NULL, revoked_ms INTEGER
) STRICT, WITHOUT ROWID;
-- What an agent shows to be known: the SHA-256 of a token, or of a certificate. A revoked agent has none.
CREATE TABLE agent_credential (
    hash BLOB PRIMARY KEY, agent TEXT NOT NULL, kind TEXT NOT NULL, created_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX agent_credential_by_agent ON agent_credential (agent);
-- Agents that nothing is signed for, with all that are part of them. They need not be known.
CREATE TABLE agent_frozen (name TEXT PRIMARY KEY, since_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
