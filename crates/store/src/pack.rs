//! Records in fewer bytes.
//!
//! A record says many things twice: the consumption key spells out in hex digits what the instruction has as bytes, the
//! instruction repeats what the payment's columns say, and amounts are mostly zeros. So a record is stored as literal
//! bytes, runs of zeros, and copies from what came before, which begins with what its reader knows already. What one
//! version packs, every later one must unpack with the same `known`: it is part of the format.
//!
//! Each step begins with a byte that tells its kind and its length: `0xxxxxxx` that many literal bytes and one more;
//! `10xxxxxx` zeros; `110xxxxx` a copy; `111xxxxx` a copy that is spelled in lower-case hex digits. Copies name their
//! distance from here.

use crate::codec::{Decoder, Encoder, Malformed};

const MAX_LITERAL: usize = 0x80;
const ZEROS: u8 = 0x80;
const LEAST_ZEROS: usize = 2;
const MAX_ZEROS: usize = LEAST_ZEROS + 0x3f;
const COPY: u8 = 0xc0;
const LEAST_COPY: usize = 4;
const MAX_COPY: usize = LEAST_COPY + 0x1f;
const HEX: u8 = 0xe0;
/// In bytes of the source, of which each becomes two digits.
const LEAST_HEX: usize = 4;
const MAX_HEX: usize = LEAST_HEX + 0x1f;
/// Places that are remembered by the four bytes that begin there; a newer one takes the place of an older.
const PLACES: usize = 1 << 12;
/// What begins later than this is not copied from, so that a place fits two bytes.
const REACH: usize = 0xffff;

/// Packs `plain` for a reader who knows `known`.
pub(crate) fn pack(known: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut packer = Packer::new(known, plain);
    packer.run(known.len());
    packer.out.finish()
}

/// What was packed with the same `known`.
pub(crate) fn unpack(known: &[u8], packed: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(known.len() + packed.len() * 3);
    out.extend_from_slice(known);
    let mut from = Decoder::new(packed);
    while !from.is_empty() {
        let step = from.byte()?;
        let low = |bits: u8| usize::from(step & bits);
        match step {
            0..ZEROS => out.extend_from_slice(from.take(low(0x7f) + 1)?),
            ZEROS..COPY => out.resize(out.len() + LEAST_ZEROS + low(0x3f), 0),
            COPY..HEX => {
                let at = place(&mut from, out.len())?;
                // One by one: a copy may go on into what it has written.
                for i in at..at + LEAST_COPY + low(0x1f) {
                    out.push(*out.get(i).ok_or(OUTSIDE)?);
                }
            }
            HEX.. => {
                let at = place(&mut from, out.len())?;
                let end = at + LEAST_HEX + low(0x1f);
                for i in at..end {
                    let byte = *out.get(i).ok_or(OUTSIDE)?;
                    out.extend([digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
    }
    Ok(out.split_off(known.len()))
}

const OUTSIDE: Malformed = Malformed("a copy of what is not there");

fn place(from: &mut Decoder<'_>, here: usize) -> Result<usize, Malformed> {
    let distance = usize::try_from(from.number()?).map_err(|_| OUTSIDE)?;
    here.checked_sub(distance).ok_or(OUTSIDE)
}

fn digit(nibble: u8) -> u8 {
    if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

struct Packer {
    /// What is known, and then the record.
    all: Vec<u8>,
    places: Box<[u16; PLACES]>,
    out: Encoder,
}

enum Found {
    Zeros(usize),
    Copy { at: usize, len: usize },
    Hex { at: usize, len: usize },
}

impl Packer {
    fn new(known: &[u8], plain: &[u8]) -> Self {
        let out = Encoder::with_capacity(plain.len());
        Self { all: [known, plain].concat(), places: Box::new([u16::MAX; PLACES]), out }
    }

    fn run(&mut self, begin: usize) {
        for at in 0..begin {
            self.remember(at);
        }
        let (mut at, mut literal) = (begin, begin);
        while at < self.all.len() {
            let Some(found) = self.find(at) else {
                self.remember(at);
                at += 1;
                continue;
            };
            self.literal(literal, at);
            let covered = self.put(&found, at);
            for covered in at..at + covered {
                self.remember(covered);
            }
            at += covered;
            literal = at;
        }
        self.literal(literal, at);
    }

    fn literal(&mut self, from: usize, to: usize) {
        for part in self.all.get(from..to).unwrap_or_default().chunks(MAX_LITERAL) {
            self.out.byte(length(part.len() - 1));
            self.out.fixed(part);
        }
    }

    /// Writes the step; how many bytes of the record it stands for.
    fn put(&mut self, found: &Found, here: usize) -> usize {
        match *found {
            Found::Zeros(len) => {
                self.out.byte(ZEROS | length(len - LEAST_ZEROS));
                len
            }
            Found::Copy { at, len } => {
                self.out.byte(COPY | length(len - LEAST_COPY));
                self.out.number((here - at) as u64);
                len
            }
            Found::Hex { at, len } => {
                self.out.byte(HEX | length(len - LEAST_HEX));
                self.out.number((here - at) as u64);
                len * 2
            }
        }
    }

    fn find(&self, at: usize) -> Option<Found> {
        let rest = self.all.get(at..)?;
        let zeros = rest.iter().take(MAX_ZEROS).take_while(|byte| **byte == 0).count();
        if zeros >= LEAST_ZEROS {
            return Some(Found::Zeros(zeros));
        }
        self.copy(at, rest).or_else(|| self.hex(at, rest))
    }

    fn copy(&self, at: usize, rest: &[u8]) -> Option<Found> {
        let from = self.place_of(rest.first_chunk()?)?;
        // What is copied may reach into the copy itself.
        let source = self.all.get(from..)?;
        let same = |(a, b): (&u8, &u8)| a == b;
        let len = source.iter().zip(rest).take(MAX_COPY).take_while(|pair| same(*pair)).count();
        (from < at && len >= LEAST_COPY).then_some(Found::Copy { at: from, len })
    }

    fn hex(&self, at: usize, rest: &[u8]) -> Option<Found> {
        let mut bytes = rest.chunks_exact(2).map_while(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?));
        let first: [u8; LEAST_HEX] = [bytes.next()?, bytes.next()?, bytes.next()?, bytes.next()?];
        let from = self.place_of(&first)?;
        // Spelled digits are only made of bytes that are there before.
        let source = self.all.get(from..at)?;
        let all = first.into_iter().chain(bytes);
        let len = source.iter().zip(all).take(MAX_HEX).take_while(|(a, b)| **a == *b).count();
        (len >= LEAST_HEX).then_some(Found::Hex { at: from, len })
    }

    fn remember(&mut self, at: usize) {
        let Some(first) = self.all.get(at..).and_then(|rest| rest.first_chunk()) else { return };
        if at < REACH
            && let Some(place) = self.places.get_mut(slot(first))
        {
            *place = u16::try_from(at).unwrap_or(u16::MAX);
        }
    }

    fn place_of(&self, first: &[u8; 4]) -> Option<usize> {
        self.places.get(slot(first)).filter(|place| **place != u16::MAX).map(|place| usize::from(*place))
    }
}

fn slot(first: &[u8; 4]) -> usize {
    let mixed = u32::from_le_bytes(*first).wrapping_mul(0x9e37_79b1);
    (mixed >> 20) as usize % PLACES
}

#[allow(clippy::cast_possible_truncation)]
fn length(number: usize) -> u8 {
    // INVARIANT: the caller keeps it below the bits that its step has.
    (number & 0x7f) as u8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_repeated_is_stored_once() {
        let nonce: Vec<u8> = (0..32u8).map(|i| i.wrapping_mul(37) ^ 0x5a).collect();
        let digits: Vec<u8> = nonce.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        let plain =
            [&[0; 40], nonce.as_slice(), &[0; 300], b"key:0x", digits.as_slice(), b"eeeeeeeeeeeeeeeee"]
                .concat();
        let packed = pack(b"", &plain);
        assert!(packed.len() < 32 + 7 + 24, "{} bytes", packed.len());
        assert_eq!(unpack(b"", &packed).unwrap(), plain);
        // The same bytes are known already.
        assert!(pack(&nonce, &nonce).len() <= 5);
    }

    #[test]
    fn a_copy_of_what_is_not_there_is_refused() {
        for packed in [&[COPY, 1][..], &[COPY, 0], &[HEX, 9], &[HEX, 0], &[COPY], &[5, 1, 2], &[COPY, 0xff]] {
            assert!(unpack(b"", packed).is_err(), "{packed:?}");
        }
    }

    fn records() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            prop::collection::vec(0..2u8, 0..200),
            prop::collection::vec(prop::sample::select(b"0123456789abcdefABx/:".to_vec()), 0..90),
        ];
        // Some pieces come again, as they are or spelled out.
        (prop::collection::vec(piece, 1..6), prop::collection::vec((0..6usize, any::<bool>()), 0..8))
            .prop_map(|(pieces, again)| {
                let mut all = pieces.concat();
                for (which, spelled) in again {
                    for byte in pieces.get(which).into_iter().flatten() {
                        if spelled {
                            all.extend([digit(byte >> 4), digit(byte & 15)]);
                        } else {
                            all.push(*byte);
                        }
                    }
                }
                all
            })
    }

    proptest! {
        #[test]
        fn whatever_is_packed_is_unpacked(known in records(), plain in records()) {
            let packed = pack(&known, &plain);
            prop_assert_eq!(unpack(&known, &packed), Ok(plain.clone()));
            // At worst a byte for each run of literals.
            prop_assert!(packed.len() <= plain.len() + plain.len() / MAX_LITERAL + 1);
        }

        #[test]
        fn whatever_is_unpacked_ends(known in records(), packed in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(plain) = unpack(&known, &packed) {
                prop_assert!(plain.len() <= packed.len() * MAX_HEX * 2);
            }
        }
    }
}
