-- Grants are asked of people like payments, and are for several of them: their names begin with "grt_", and their "subject"
-- is what all that they are for has in common. "used_by" stays NULL.
-- When the owner took a request back, whatever people said of it.
ALTER TABLE approval ADD COLUMN revoked_ms INTEGER;
-- What grants were used for. Each counts until its purchase is released.
CREATE TABLE grant_use (
    approval TEXT NOT NULL,
    purchase BLOB NOT NULL,
    -- 16 bytes, big endian.
    atoms BLOB NOT NULL,
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (approval, purchase)
) STRICT, WITHOUT ROWID;
CREATE INDEX grant_use_by_purchase ON grant_use (purchase);
