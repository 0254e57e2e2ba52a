-- Where a deposit is shown: the challenge that it answers is good for that place alone.
ALTER TABLE channel_attempt ADD COLUMN url TEXT;
