-- The audit log: a leaf is written in the transaction of what it is about. See docs/reference/audit.md.
CREATE TABLE audit_leaf (
    -- From 0 on, without gaps.
    idx INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    -- The purchase or channel that it is about.
    subject BLOB,
    leaf BLOB NOT NULL
) STRICT;
CREATE INDEX audit_leaf_by_subject ON audit_leaf (subject, idx) WHERE subject IS NOT NULL;
CREATE TRIGGER audit_leaf_is_not_changed BEFORE UPDATE ON audit_leaf
    BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
CREATE TRIGGER audit_leaf_is_not_deleted BEFORE DELETE ON audit_leaf
    BEGIN SELECT RAISE(ABORT, 'the audit log only grows'); END;
-- What the commitments of leaves stand for. It may be erased, and the log still verifies.
CREATE TABLE audit_secret (
    idx INTEGER NOT NULL,
    field TEXT NOT NULL,
    salt BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (idx, field)
) STRICT, WITHOUT ROWID;
-- Denials that repeat: so that a loop does not fill the disk, they are counted until `until_ms`.
CREATE TABLE audit_denied (
    reason TEXT PRIMARY KEY,
    until_ms INTEGER NOT NULL,
    window_ms INTEGER NOT NULL,
    repeats INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
