//! The little of CBOR (RFC 8949) that passkeys are written in: definite lengths, shortest forms, no tags, no floats.
//!
//! Spec: FIDO CTAP 2.1 section 8, the canonical CBOR encoding form. What has a second spelling is refused.

/// How deep what is skipped may nest. Spec: CTAP 2.1 section 8: at most four levels.
const MAX_DEPTH: u32 = 4;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SIMPLE: u8 = 7;

/// The values "false", "true", "null" and "undefined".
const SIMPLE_VALUES: std::ops::RangeInclusive<u64> = 20..=23;

/// Reads from the front. `None` is anything that is not as asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A major type and its argument, in the shortest form that says it.
    fn head(&mut self) -> Option<(u8, u64)> {
        let first = *self.take(1)?.first()?;
        let (major, info) = (first >> 5, first & 0x1f);
        let width = match info {
            0..=23 => return Some((major, u64::from(info))),
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            // Reserved, or of no definite length.
            _ => return None,
        };
        let value = self.take(width)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let least = match width {
            1 => 24,
            2 => 1 << 8,
            4 => 1 << 16,
            _ => 1 << 32,
        };
        (value >= least).then_some((major, value))
    }

    fn sized(&mut self, wanted: u8) -> Option<&'a [u8]> {
        let (major, length) = self.head()?;
        if major != wanted {
            return None;
        }
        self.take(usize::try_from(length).ok()?)
    }

    pub(super) fn int(&mut self) -> Option<i64> {
        match self.head()? {
            (UNSIGNED, value) => i64::try_from(value).ok(),
            (NEGATIVE, value) => i64::try_from(value).ok().map(|value| -1 - value),
            _ => None,
        }
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        self.sized(BYTES)
    }

    pub(super) fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.sized(TEXT)?).ok()
    }

    /// How many pairs follow.
    pub(super) fn map(&mut self) -> Option<u64> {
        match self.head()? {
            (MAP, pairs) => Some(pairs),
            _ => None,
        }
    }

    /// Passes over one map, whatever is in it.
    pub(super) fn skip_map(&mut self) -> Option<()> {
        let mut ahead = *self;
        ahead.map()?;
        self.skip(MAX_DEPTH)
    }

    fn skip(&mut self, depth: u32) -> Option<()> {
        let (major, value) = self.head()?;
        match major {
            UNSIGNED | NEGATIVE => Some(()),
            BYTES => self.take(usize::try_from(value).ok()?).map(|_| ()),
            TEXT => std::str::from_utf8(self.take(usize::try_from(value).ok()?)?).ok().map(|_| ()),
            ARRAY | MAP => {
                let below = depth.checked_sub(1)?;
                // Each item takes a byte at least, so that the bytes bound the loop.
                for _ in 0..if major == MAP { value.checked_mul(2)? } else { value } {
                    self.skip(below)?;
                }
                Some(())
            }
            SIMPLE => SIMPLE_VALUES.contains(&value).then_some(()),
            _ => None,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
