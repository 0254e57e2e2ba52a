-- The unique index on consumption keys, in two: of payments that something is left to do for, and of all others.
--
-- Keys are hashes, so each change of an index over all of them writes a page of its own, the more the longer the
-- history is. A claim that comes to nothing is in the small one only, and the large one is but read for it. That the
-- two have no key in common is seen to by the writer, which is one, and by the check.

DROP INDEX payments_key;
CREATE UNIQUE INDEX payments_live_key ON payments (key_hash) WHERE open = 1 AND released = 0;
CREATE UNIQUE INDEX payments_key ON payments (key_hash) WHERE open = 0 AND released = 0;
