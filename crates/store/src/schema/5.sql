-- What the buyer calls its payment, as a hash that covers the tenant: a name is held as long as the consumption key is.
ALTER TABLE payments ADD COLUMN named BLOB;
CREATE UNIQUE INDEX payments_named ON payments (named) WHERE named IS NOT NULL AND released = 0;

-- From when nothing depends on a refused payment any more. Strangers make as many of these as they like.
ALTER TABLE payments ADD COLUMN forget INTEGER;
UPDATE payments SET forget = updated WHERE state = 'refused' AND released = 1;
-- How long their authorizations live is not in a column. None that is accepted by default lives for more than a week.
UPDATE payments SET forget = updated + 604800000 WHERE state = 'refused' AND released = 0;
CREATE INDEX payments_forget ON payments (forget) WHERE forget IS NOT NULL;
