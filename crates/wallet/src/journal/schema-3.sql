-- Where a deposit is shown: the challenge that it answers is good for that place alone.
ALTER TABLE channel_attempt ADD COLUMN url TEXT;
-- The stream of a channel that goes on is found however much was bought through it.
CREATE INDEX purchase_streams ON purchase (channel, created_ms) WHERE note = 'stream';
