-- What each change led to, so that a payment's story can be told, and derived again by the machine that made it.
-- Changes that version 1 wrote have none of it.

-- The version that the change followed: one change may hold several events, and counts each.
ALTER TABLE history ADD COLUMN follows  INTEGER;
ALTER TABLE history ADD COLUMN round    INTEGER;
ALTER TABLE history ADD COLUMN state    TEXT;
ALTER TABLE history ADD COLUMN delivery TEXT;
ALTER TABLE history ADD COLUMN detail   BLOB;
