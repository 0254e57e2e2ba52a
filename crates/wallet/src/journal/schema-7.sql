-- Approvers who answer with a passkey, beside their row in "approver".
CREATE TABLE passkey (
    approver TEXT PRIMARY KEY,
    -- How their device finds it. One passkey has one voice.
    credential BLOB NOT NULL UNIQUE,
    -- The page that asks it; no other's question counts.
    origin TEXT NOT NULL,
    -- How often it has signed, as it says.
    sign_count INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
-- What a passkey signs beside the word, so that it can be checked again; nothing for a key.
ALTER TABLE vote ADD COLUMN authenticator_data BLOB;
ALTER TABLE vote ADD COLUMN client_data BLOB;
