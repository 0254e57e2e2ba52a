-- The unique index on consumption keys, in two: of payments that something is left to do for, and of all others.
--
-- Keys are hashes, so each change of an index over all of them writes a page of its own, the more the longer the
-- history is. A claim that comes to nothing is in the small one only, and the large one is but read for it. That the
-- two have no key in common is seen to by the writer, which is one, and by the check.

DROP INDEX payments_key;
CREATE UNIQUE INDEX payments_live_key ON payments (key_hash) WHERE open = 1 AND released = 0;
CREATE UNIQUE INDEX payments_key ON payments (key_hash) WHERE open = 0 AND released = 0;

-- Transactions are 32 bytes where they were `0x` and 64 lower-case digits, here and in the index that repeats them.

ALTER TABLE credits RENAME TO credits_as_text;
DROP INDEX credits_payment;
CREATE TABLE credits (
    network   TEXT NOT NULL,
    tx        ANY NOT NULL,
    log_index INTEGER NOT NULL,
    tenant    TEXT NOT NULL,
    payment   BLOB NOT NULL,
    PRIMARY KEY (network, tx, log_index)
) STRICT, WITHOUT ROWID;

INSERT INTO credits (network, tx, log_index, tenant, payment)
    SELECT network,
           CASE WHEN length(tx) = 66 AND substr(tx, 1, 2) = '0x' AND substr(tx, 3) NOT GLOB '*[^0-9a-f]*'
                THEN unhex(substr(tx, 3)) ELSE tx END AS short,
           log_index, tenant, payment
    FROM credits_as_text ORDER BY network, short, log_index;
DROP TABLE credits_as_text;
CREATE INDEX credits_payment ON credits (payment);
