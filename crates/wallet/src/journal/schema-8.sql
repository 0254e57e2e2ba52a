-- What is asked at each payment is found without looking at all that came before.
CREATE INDEX purchase_unshown ON purchase (counts_until_ms) WHERE state IN ('intended', 'signed');
CREATE INDEX purchase_intended ON purchase (holder) WHERE state = 'intended';
CREATE INDEX purchase_of_thing ON purchase (url, method, asset, id) WHERE state = 'settled';
CREATE INDEX purchase_undelivered ON purchase (state, updated_ms) WHERE delivered <> 1;
CREATE INDEX purchase_unfinished ON purchase (id)
    WHERE channel IS NULL AND (state IN ('signed', 'presented', 'unknown', 'refused') OR (state = 'settled' AND confirmed < 2));
