//! The tree against the obvious slow one, the formats against published examples, and a published log against everybody
//! who has a reason to change it.

use std::cell::Cell;
use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proptest::prelude::*;

use super::*;
use crate::merkle::root_at;
use crate::tiles::TILE_HEIGHT;

/// All hashes of a tree, by the definition.
struct Naive(Vec<Hash>);

impl Naive {
    fn of(leaves: &[Vec<u8>]) -> Self {
        Self(leaves.iter().map(|leaf| leaf_hash(leaf)).collect())
    }

    fn numbered(n: usize) -> Self {
        Self((0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect())
    }
}

/// Spec: RFC 9162, section 2.1.1, word for word.
fn mth(hashes: &[Hash]) -> Hash {
    match hashes.len() {
        0 => empty_root(),
        1 => hashes[0],
        n => {
            let mut k = 1;
            while k * 2 < n {
                k *= 2;
            }
            node_hash(&mth(&hashes[..k]), &mth(&hashes[k..]))
        }
    }
}

impl Nodes for Naive {
    type Error = Infallible;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Infallible> {
        let from = usize::try_from(index << height).unwrap();
        Ok(mth(&self.0[from..from + (1 << height)]))
    }
}

fn hash(text: &str) -> Hash {
    hex::decode(text).unwrap().try_into().unwrap()
}

/// The eight leaves and the roots that implementations of Certificate Transparency test each other with.
const CT_LEAVES: [&str; 8] =
    ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
const CT_ROOTS: [&str; 9] = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
];

fn ct_leaves(n: usize) -> Vec<Vec<u8>> {
    CT_LEAVES[..n].iter().map(|text| hex::decode(text).unwrap()).collect()
}

#[test]
fn roots_are_those_of_certificate_transparency() {
    for (n, root) in CT_ROOTS.iter().enumerate() {
        let leaves = ct_leaves(n);
        let mut tree = Tree::new();
        for leaf in &leaves {
            tree.push(leaf_hash(leaf), |_, _| Ok::<_, Infallible>(())).unwrap();
        }
        assert_eq!(tree.root(), hash(root), "{n}");
        assert_eq!(root_at(&mut Naive::of(&leaves), n as u64).unwrap(), hash(root));
    }
    // Of the same tests: the way from the first leaf of eight, and from six leaves to eight.
    let path = [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ];
    let expected: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
    let mut nodes = Naive::of(&ct_leaves(8));
    assert_eq!(inclusion_proof(&mut nodes, 0, 8).unwrap(), expected);
    assert!(is_included(&leaf_hash(b""), 0, 8, &expected, &hash(CT_ROOTS[8])));
    let path = [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ];
    let expected: Vec<Hash> = path.iter().map(|text| hash(text)).collect();
    assert_eq!(consistency_proof(&mut nodes, 6, 8).unwrap(), expected);
    assert!(is_consistent((6, hash(CT_ROOTS[6])), (8, hash(CT_ROOTS[8])), &expected));
}

#[test]
fn every_proof_of_small_trees_holds_and_no_other_does() {
    for size in 1..=17u64 {
        let mut nodes = Naive::numbered(usize::try_from(size).unwrap());
        let root = mth(&nodes.0);
        for index in 0..size {
            let leaf = nodes.0[usize::try_from(index).unwrap()];
            let path = inclusion_proof(&mut nodes, index, size).unwrap();
            assert!(is_included(&leaf, index, size, &path, &root), "{index} of {size}");
            for other in (0..=size).filter(|other| *other != index) {
                assert!(!is_included(&leaf, other, size, &path, &root), "{index} as {other} of {size}");
            }
            for i in 0..path.len() {
                let mut wrong = path.clone();
                wrong[i][0] ^= 1;
                assert!(!is_included(&leaf, index, size, &wrong, &root));
                wrong.remove(i);
                assert!(!is_included(&leaf, index, size, &wrong, &root));
            }
            let mut longer = path.clone();
            longer.push(root);
            assert!(!is_included(&leaf, index, size, &longer, &root));
        }
        for first in 0..=size {
            let earlier = mth(&nodes.0[..usize::try_from(first).unwrap()]);
            let path = consistency_proof(&mut nodes, first, size).unwrap();
            let (one, two) = ((first, earlier), (size, root));
            assert!(is_consistent(one, two, &path), "{first} of {size}");
            let another = node_hash(&earlier, &earlier);
            assert!(!is_consistent((first, another), two, &path), "{first} of {size}");
            if first > 0 {
                assert!(!is_consistent(one, (size, another), &path), "{first} of {size}");
                assert!(first == size || !is_consistent(two, one, &path), "{first} of {size}");
            }
            for i in 0..path.len() {
                let mut wrong = path.clone();
                wrong[i][31] ^= 1;
                assert!(!is_consistent(one, two, &wrong), "{first} of {size}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_tree_in_tiles_is_the_obvious_tree(size in 0usize..1400, first in 0usize..1400, index in 0usize..1400) {
        let mut nodes = Naive::numbered(size);
        let mut tree = Tree::new();
        let mut tiles = 0u64;
        for leaf in &nodes.0 {
            tree.push(*leaf, |tile, hashes| {
                let below = TILE_HEIGHT * tile.level.unwrap();
                for (i, hash) in (0..).zip(hashes) {
                    let from = usize::try_from((tile.index * 256 + i) << below).unwrap();
                    prop_assert_eq!(*hash, mth(&nodes.0[from..from + (1 << below)]));
                }
                tiles += 1;
                Ok(())
            })?;
        }
        prop_assert_eq!(tree.root(), mth(&nodes.0));
        prop_assert_eq!(tiles, size as u64 / 256 + size as u64 / 65_536);
        let partial: Vec<Vec<Hash>> = tree.partial().map(|(_, hashes)| hashes.to_vec()).collect();
        for (tile, hashes) in tree.partial() {
            prop_assert_eq!(Tile::of(tile.level.unwrap(), tile.index, size as u64), Some(tile));
            prop_assert_eq!(tile.width, hashes.len());
        }
        if size % 256 > 0 {
            prop_assert_eq!(Tree::restore(size as u64, partial), Some(tree.clone()));
        }
        if size > 0 {
            let (index, first) = (index % size, first % (size + 1));
            let path = inclusion_proof(&mut nodes, index as u64, size as u64).unwrap();
            prop_assert!(is_included(&nodes.0[index], index as u64, size as u64, &path, &tree.root()));
            let path = consistency_proof(&mut nodes, first as u64, size as u64).unwrap();
            let one = (first as u64, mth(&nodes.0[..first]));
            prop_assert!(is_consistent(one, (size as u64, tree.root()), &path));
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in ".{0,200}") {
        let _ = Note::read(&bytes);
        let _ = Note::read(text.as_bytes());
        let _ = Checkpoint::read(&text);
        let _ = text.parse::<VerifierKey>();
        let _ = SigningKey::from_secret_text(&text);
        let _ = Inclusion::read(&bytes);
        let _ = Consistency::read(text.as_bytes());
        let _ = Leaf::read(&bytes);
    }
}

#[test]
fn tiles_are_named_as_the_specification_does() {
    let tile = |level, index, width| Tile { level, index, width }.path();
    assert_eq!(tile(Some(0), 1_234_067, 256), "tile/0/x001/x234/067");
    assert_eq!(tile(None, 0, 7), "tile/entries/000.p/7");
    // Spec: C2SP tlog-tiles, "Partial Tiles": the example of 70,000 leaves, and of 256.
    let width = |level, index| Tile::of(level, index, 70_000).map(|tile| tile.width);
    assert_eq!([width(0, 272), width(0, 273), width(0, 274)], [Some(256), Some(112), None]);
    assert_eq!([width(1, 0), width(1, 1), width(2, 0), width(2, 1)], [Some(256), Some(17), Some(1), None]);
    assert_eq!(Tile::of(0, 0, 256).map(|tile| tile.width), Some(256));
    assert_eq!(Tile::of(1, 0, 256).map(|tile| tile.width), Some(1));
    assert_eq!(Tile::of(40, u64::MAX, u64::MAX), None);
}

/// Spec: C2SP signed-note, "Example".
#[test]
fn the_example_of_a_signed_note_verifies() {
    let key: VerifierKey =
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k".parse().unwrap();
    let text = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
    let note = Note::read(text.as_bytes()).unwrap();
    assert_eq!(note.check(&key), Ok(()));
    assert_eq!(note.to_string(), text);
    assert_eq!(key.to_string(), "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k");
    let edited = Note::read(text.replace("example m", "Example m").as_bytes()).unwrap();
    assert_eq!(edited.check(&key), Err(SignatureError::Wrong));
    // Spec: C2SP tlog-checkpoint: the example's text.
    let checkpoint = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let read = Checkpoint::read(checkpoint).unwrap();
    assert_eq!((read.size, read.text().as_str()), (20_852_163, checkpoint));
    for wrong in ["020852163", "+20852163", "", "9223372036854775808", "99999999999999999999999"] {
        assert!(Checkpoint::read(&checkpoint.replace("20852163", wrong)).is_err(), "{wrong}");
    }
    assert!(Checkpoint::read(&format!("{checkpoint}\n")).is_err(), "an empty extension line");
    assert!(Checkpoint::read(&format!("{checkpoint}more\n")).is_ok());
}

#[test]
fn notes_and_keys_have_one_form() {
    let key = log_key();
    let vkey = key.verifier().to_string();
    assert_eq!(vkey.parse(), Ok(key.verifier().clone()));
    assert_eq!(SigningKey::from_secret_text(&key.secret_text()).unwrap().verifier(), key.verifier());
    assert!(!format!("{key:?}").contains(&hex::encode([1; 32])));
    for (from, to, why) in [
        ("log.example", "log.exampl", KeyError::Id),
        ("log.example", "log example", KeyError::Name),
        ("log.example", "", KeyError::Name),
        ("+A", "+B", KeyError::Kind),
        ("=", "==", KeyError::Bytes),
    ] {
        if vkey.contains(from) {
            assert_eq!(vkey.replacen(from, to, 1).parse::<VerifierKey>(), Err(why), "{to}");
        }
    }
    let note =
        Checkpoint { origin: "log.example".to_owned(), size: 0, root: empty_root() }.sign(&key).to_string();
    for (from, to, why) in [
        ("\n\n", "\n", NoteError::NoSignatures),
        ("\u{2014}", "-", NoteError::Line),
        ("log.example\n", "log.example\r\n", NoteError::Text),
    ] {
        assert_eq!(Note::read(note.replacen(from, to, 1).as_bytes()), Err(why), "{to:?}");
    }
    assert_eq!(Note::read(note.trim_end().as_bytes()), Err(NoteError::Line));
    assert_eq!(Note::read(&vec![b'a'; MAX_NOTE_BYTES + 1]), Err(NoteError::TooLong));
    let line = note.lines().last().unwrap();
    let many = format!("{note}{}", format!("{line}\n").repeat(MAX_SIGNATURES));
    assert_eq!(Note::read(many.as_bytes()), Err(NoteError::TooMany));
}

// ---------------------------------------------------------------------------------------------------------------------
// Published logs.

fn log_key() -> SigningKey {
    SigningKey::from_seed("log.example", KeyKind::Note, [1; 32]).unwrap()
}

#[derive(Clone)]
struct Kept(Vec<Vec<u8>>);

impl Kept {
    fn numbered(n: usize) -> Self {
        let leaf = |i| Leaf::new(Kind::Outcome, i as u64).with("purchase", Value::number(i as u64)).encode();
        Self((0..n).map(|i| leaf(i).unwrap()).collect())
    }
}

impl Leaves for Kept {
    fn count(&self) -> Result<u64, LeavesError> {
        Ok(self.0.len() as u64)
    }

    fn read(&self, from: u64, most: usize) -> Result<Vec<Vec<u8>>, LeavesError> {
        Ok(self.0.iter().skip(usize::try_from(from).unwrap()).take(most).cloned().collect())
    }
}

fn publish_all(dir: &LogDir, leaves: &Kept) -> Published {
    publish(dir, &log_key(), None, leaves, &mut Disk::new()).unwrap()
}

fn codes(dir: &LogDir, known: &[Vec<u8>], leaves: Option<&dyn Leaves>) -> Vec<&'static str> {
    let key = log_key();
    let check = Check { key: key.verifier(), witnesses: &[], known, leaves };
    verify(dir, &check).faults.iter().map(Fault::code).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(self::files(&path)) } else { files.push(path) }
    }
    files.retain(|path| !path.ends_with(".lock"));
    files.sort();
    files
}

#[test]
fn a_log_grows_by_pieces_to_what_it_would_be_at_once() {
    let all = Kept::numbered(1_100);
    let whole = tempfile::tempdir().unwrap();
    let whole = LogDir::new(whole.path());
    publish_all(&whole, &all);
    let pieces = tempfile::tempdir().unwrap();
    let pieces = LogDir::new(pieces.path());
    let mut notes = Vec::new();
    for size in [0, 1, 2, 255, 256, 257, 600, 1_023, 1_024, 1_100, 1_100] {
        let so_far = Kept(all.0[..size].to_vec());
        let before = pieces.checkpoint().unwrap();
        let published = publish_all(&pieces, &so_far);
        assert_eq!(published.checkpoint.size, size as u64);
        assert_eq!(codes(&pieces, &notes, Some(&so_far)), [""; 0], "{size}");
        notes.push(published.note.into_bytes());
        if before.as_ref() == notes.last() {
            assert_eq!(size, 1_100, "what did not grow is not signed again");
        }
        // Each leaf is proven to whoever has the key, and each earlier log to be the beginning.
        let (checkpoint, _) = Checkpoint::open(notes.last().unwrap(), log_key().verifier()).unwrap();
        for index in (0..size as u64).step_by(97) {
            let path = inclusion_proof(&mut pieces.nodes(size as u64), index, size as u64).unwrap();
            let leaf = pieces.entry(index, size as u64).unwrap();
            let proof = Inclusion {
                index,
                leaf: String::from_utf8(leaf).unwrap(),
                path,
                checkpoint: String::from_utf8(notes.last().unwrap().clone()).unwrap(),
            };
            let read = Inclusion::read(proof.to_json().to_string().as_bytes()).unwrap();
            assert_eq!(read.verify(log_key().verifier()).unwrap().1, checkpoint);
        }
        for note in &notes {
            let (earlier, _) = Checkpoint::open(note, log_key().verifier()).unwrap();
            let path =
                consistency_proof(&mut pieces.nodes(checkpoint.size), earlier.size, checkpoint.size).unwrap();
            let text = |note: &[u8]| String::from_utf8(note.to_vec()).unwrap();
            let proof = Consistency { path, earlier: text(note), later: text(notes.last().unwrap()) };
            let read = Consistency::read(proof.to_json().to_string().as_bytes()).unwrap();
            read.verify(log_key().verifier()).unwrap();
        }
    }
    let relative = |dir: &LogDir| -> Vec<(PathBuf, Vec<u8>)> {
        let full = files(dir.path()).into_iter().filter(|path| !path.to_string_lossy().contains(".p/"));
        full.map(|path| (path.strip_prefix(dir.path()).unwrap().to_owned(), fs::read(&path).unwrap()))
            .collect()
    };
    assert_eq!(relative(&whole), relative(&pieces));
}

#[test]
fn a_crash_anywhere_leaves_a_log_that_holds_and_goes_on() {
    let all = Kept::numbered(300);
    for first in [0, 3, 254] {
        for stop in 0.. {
            let home = tempfile::tempdir().unwrap();
            let dir = LogDir::new(home.path());
            let before = publish_all(&dir, &Kept(all.0[..first].to_vec()));
            let left = Rc::new(Cell::new(stop));
            let disk = left.clone();
            let mut disk = Disk::stopping(move || {
                disk.set(disk.get() - 1);
                if disk.get() < 0 { Err(std::io::Error::other("power is gone")) } else { Ok(()) }
            });
            let done = publish(&dir, &log_key(), None, &all, &mut disk);
            let note = [before.note.into_bytes()];
            assert_eq!(codes(&dir, &note, Some(&all)), [""; 0], "{first}, stopped at {stop}");
            publish_all(&dir, &all);
            assert_eq!(codes(&dir, &note, Some(&all)), [""; 0], "{first}, stopped at {stop}");
            assert_eq!(
                verify(
                    &dir,
                    &Check { key: log_key().verifier(), witnesses: &[], known: &note, leaves: None }
                )
                .checkpoint
                .unwrap()
                .size,
                300
            );
            if done.is_ok() {
                assert!(stop > 8, "{stop} steps cannot be all");
                break;
            }
        }
    }
}

/// Known attack 68: the log is edited, a part of it deleted, its end cut off, or another put in its place.
#[test]
fn attack_68_every_change_of_a_published_log_is_found() {
    for (size, step) in [(1, 1), (3, 2), (8, 17), (260, 1999)] {
        let home = tempfile::tempdir().unwrap();
        let dir = LogDir::new(home.path());
        let all = Kept::numbered(size);
        publish_all(&dir, &all);
        // A change of each byte of the small ones.
        for path in files(dir.path()) {
            let whole = fs::read(&path).unwrap();
            let name = path.strip_prefix(dir.path()).unwrap().display().to_string();
            for at in (0..whole.len()).step_by(step) {
                let mut edited = whole.clone();
                edited[at] ^= 1;
                fs::write(&path, &edited).unwrap();
                let found = codes(&dir, &[], None);
                assert!(!found.is_empty(), "byte {at} of {name}");
                let expected: &[&str] = match name.as_str() {
                    "checkpoint" => {
                        &["checkpoint_forged", "checkpoint_unsigned", "checkpoint_malformed", "other_log"]
                    }
                    name if name.contains("entries") => &["entry_edited", "entry_damaged"],
                    _ => &["tile_edited"],
                };
                assert!(found.iter().any(|code| expected.contains(code)), "byte {at} of {name}: {found:?}");
            }
            for cut in (0..whole.len()).step_by(step) {
                fs::write(&path, &whole[..cut]).unwrap();
                assert!(!codes(&dir, &[], None).is_empty(), "{name} cut to {cut}");
            }
            fs::write(&path, [&whole[..], b"x"].concat()).unwrap();
            assert!(!codes(&dir, &[], None).is_empty(), "{name} with more");
            fs::remove_file(&path).unwrap();
            let found = codes(&dir, &[], None);
            let expected = match name.as_str() {
                "checkpoint" => "checkpoint_missing",
                name if name.contains("entries") => "entry_missing",
                _ => "tile_missing",
            };
            assert_eq!(found, [expected], "{name} deleted");
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(codes(&dir, &[], Some(&all)), [""; 0]);
    }
}

/// Of known attack 68: who has no key edits an entry, its hash, and the tiles above it, so that all of it fits together.
#[test]
fn attack_68_a_change_that_fits_together_is_found_by_the_root() {
    let home = tempfile::tempdir().unwrap();
    let (dir, other) = (LogDir::new(home.path().join("a")), LogDir::new(home.path().join("b")));
    let all = Kept::numbered(9);
    publish_all(&dir, &all);
    for index in 0..9 {
        let mut forged = all.clone();
        forged.0[index] = Leaf::new(Kind::Outcome, 77).encode().unwrap();
        let _ = fs::remove_dir_all(other.path());
        publish_all(&other, &forged);
        fs::copy(dir.path().join("checkpoint"), other.path().join("checkpoint")).unwrap();
        assert_eq!(codes(&other, &[], None), ["root_mismatch"], "{index}");
        assert_eq!(codes(&other, &[], Some(&all)), ["journal_differs", "root_mismatch"], "{index}");
    }
}

/// Of known attack 68: who has the log's key signs another log. Whoever kept a checkpoint, or asked a witness, or has the
/// journal, notices.
#[test]
fn attack_68_another_log_of_the_same_key_is_found_by_who_kept_a_checkpoint() {
    for kept in 1usize..=9 {
        let home = tempfile::tempdir().unwrap();
        let dir = |name: &str| LogDir::new(home.path().join(name));
        let all = Kept::numbered(9);
        let note = publish_all(&dir("kept"), &Kept(all.0[..kept].to_vec())).note.into_bytes();
        for index in 0..kept {
            let mut forged = all.clone();
            forged.0[index] = Leaf::new(Kind::Outcome, 77).encode().unwrap();
            let forked = dir(&format!("fork-{index}"));
            publish_all(&forked, &forged);
            assert_eq!(codes(&forked, &[], None), [""; 0], "alone it holds");
            assert_eq!(codes(&forked, std::slice::from_ref(&note), None), ["fork"], "{index} of {kept}");
            assert_eq!(codes(&forked, &[], Some(&all)), ["journal_differs"]);
        }
        for cut in 0..kept {
            let short = dir(&format!("cut-{cut}"));
            let less = Kept(all.0[..cut].to_vec());
            publish_all(&short, &less);
            assert_eq!(codes(&short, std::slice::from_ref(&note), None), ["truncated"]);
            // And the honest program signs nothing that contradicts what it signed.
            let (last, _) = Checkpoint::open(&note, log_key().verifier()).unwrap();
            let refused = publish(&short, &log_key(), Some(&last), &less, &mut Disk::new()).unwrap_err();
            assert_eq!(refused.code(), "journal_truncated");
            let refused = publish(&dir("kept"), &log_key(), None, &less, &mut Disk::new()).unwrap_err();
            assert_eq!(refused.code(), "journal_truncated");
            assert_eq!(codes(&dir("kept"), &[], Some(&less)), ["journal_truncated"]);
        }
    }
    assert_eq!(codes(&LogDir::new("/nonexistent"), &[], None), ["checkpoint_missing"]);
}

#[test]
fn a_journal_that_was_rewritten_is_not_signed() {
    let home = tempfile::tempdir().unwrap();
    let dir = LogDir::new(home.path().join("log"));
    let all = Kept::numbered(20);
    let (last, _) = Checkpoint::open(
        publish_all(&dir, &Kept(all.0[..10].to_vec())).note.as_bytes(),
        log_key().verifier(),
    )
    .unwrap();
    for index in 0..10 {
        let mut forged = all.clone();
        forged.0[index] = Leaf::new(Kind::Outcome, 77).encode().unwrap();
        let refused = publish(&dir, &log_key(), None, &forged, &mut Disk::new()).unwrap_err();
        assert_eq!(refused.code(), "journal_differs");
        let elsewhere = LogDir::new(home.path().join(format!("new-{index}")));
        let refused = publish(&elsewhere, &log_key(), Some(&last), &forged, &mut Disk::new()).unwrap_err();
        assert_eq!(refused.code(), "fork");
    }
    let long = Kept(vec![vec![b'x'; MAX_LEAF_BYTES + 1]]);
    let refused = publish(&LogDir::new(home.path().join("long")), &log_key(), None, &long, &mut Disk::new());
    assert_eq!(refused.unwrap_err().code(), "leaf_too_long");
    let another = SigningKey::from_seed("log.example", KeyKind::Note, [2; 32]).unwrap();
    let refused = publish(&dir, &another, None, &all, &mut Disk::new()).unwrap_err();
    assert_eq!(refused.code(), "published_damaged");
    assert_eq!(codes(&dir, &[b"nonsense".to_vec()], None), ["known_checkpoint_malformed"]);
}

#[test]
fn a_size_that_is_a_lie_is_not_counted_through() {
    let home = tempfile::tempdir().unwrap();
    let dir = LogDir::new(home.path());
    let lie = Checkpoint { origin: "log.example".to_owned(), size: 1 << 62, root: empty_root() };
    fs::write(home.path().join("checkpoint"), lie.sign(&log_key()).to_string()).unwrap();
    let found = codes(&dir, &[], None);
    assert!(found.len() <= MAX_FAULTS && found.contains(&"entry_missing"), "{found:?}");
}

#[test]
fn a_witness_cosigns_what_goes_on_from_what_it_saw_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let dir = |name: &str| LogDir::new(home.path().join(name));
    let log = log_key();
    let log = log.verifier();
    assert_eq!(Witness::new(log_key()).unwrap_err().code(), "witness_key");
    let witness =
        Witness::new(SigningKey::from_seed("witness.example/w1", KeyKind::Cosignature, [3; 32]).unwrap())
            .unwrap();
    let all = Kept::numbered(30);
    let mut seen = Seen::default();
    for size in [4usize, 4, 11, 30] {
        let published = publish_all(&dir("log"), &Kept(all.0[..size].to_vec()));
        let note = published.note.as_bytes();
        let path = consistency_proof(&mut dir("log").nodes(size as u64), seen.size, size as u64).unwrap();
        let (cosignature, next) = witness.cosign(&seen, note, log, &path, 1_700_000_000).unwrap();
        if size > 4 {
            assert_eq!(witness.cosign(&seen, note, log, &[], 0).unwrap_err().code(), "fork");
        }
        seen = next;
        let mut note = Note::read(note).unwrap();
        assert!(attach(&mut note, cosignature.clone()) && attach(&mut note, cosignature));
        assert_eq!(note.signatures.len(), 2, "one line for each witness");
        // It reads back, and the log's own signature still holds.
        let (_, note) = Checkpoint::open(note.to_string().as_bytes(), log).unwrap();
        assert_eq!(Cosignature::check(&note, witness.verifier()), Ok(1_700_000_000));
        assert_eq!(witness.verifier().to_string().parse(), Ok(witness.verifier().clone()));
        fs::write(home.path().join("log/checkpoint"), note.to_string()).unwrap();
        let witnesses = [witness.verifier().clone()];
        let check = Check { key: log, witnesses: &witnesses, known: &[], leaves: Some(&all) };
        assert!(verify(&dir("log"), &check).holds());
        let mut later = note.clone();
        later.signatures[1].bytes[7] ^= 1;
        assert_eq!(
            Cosignature::check(&later, witness.verifier()),
            Err(SignatureError::Wrong),
            "another time"
        );
        later.signatures.truncate(1);
        fs::write(home.path().join("log/checkpoint"), later.to_string()).unwrap();
        assert_eq!(verify(&dir("log"), &check).faults[0].code(), "witness_missing");
    }
    let older = publish_all(&dir("older"), &Kept(all.0[..20].to_vec())).note;
    assert_eq!(witness.cosign(&seen, older.as_bytes(), log, &[], 0).unwrap_err().code(), "older_than_seen");
    let mut forged = Kept::numbered(40);
    forged.0[2] = Leaf::new(Kind::Outcome, 77).encode().unwrap();
    let forked = publish_all(&dir("forked"), &forged).note;
    let path = consistency_proof(&mut dir("forked").nodes(40), seen.size, 40).unwrap();
    assert_eq!(witness.cosign(&seen, forked.as_bytes(), log, &path, 0).unwrap_err().code(), "fork");
    let unsigned = forked.replace("log.example", "log.exampl\u{e9}");
    assert_eq!(
        witness.cosign(&seen, unsigned.as_bytes(), log, &path, 0).unwrap_err().code(),
        "checkpoint_invalid"
    );
}

#[test]
fn a_proof_shows_one_leaf_at_one_place_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let dir = LogDir::new(home.path());
    let all = Kept::numbered(7);
    let note = publish_all(&dir, &all).note;
    let path = inclusion_proof(&mut dir.nodes(7), 3, 7).unwrap();
    let leaf = String::from_utf8(all.0[3].clone()).unwrap();
    let proof = Inclusion { index: 3, leaf, path, checkpoint: note };
    let log = log_key();
    let code = |proof: &Inclusion| proof.verify(log.verifier()).unwrap_err().code();
    assert_eq!(proof.verify(log.verifier()).unwrap().0.text("purchase"), Some("3"));
    assert_eq!(code(&Inclusion { index: 4, ..proof.clone() }), "not_included");
    assert_eq!(code(&Inclusion { leaf: proof.leaf.replace('3', "4"), ..proof.clone() }), "not_included");
    assert_eq!(code(&Inclusion { path: Vec::new(), ..proof.clone() }), "not_included");
    let edited = proof.checkpoint.replace("\n7\n", "\n8\n");
    assert_eq!(code(&Inclusion { checkpoint: edited, ..proof.clone() }), "proof_checkpoint_invalid");
    let json = proof.to_json().to_string();
    for (from, to) in
        [("inclusion-v1", "inclusion-v2"), ("\"index\":\"3\"", "\"index\":3"), ("\"leaf\"", "\"laef\"")]
    {
        assert!(json.contains(from), "{from}");
        assert_eq!(Inclusion::read(json.replace(from, to).as_bytes()), Err(ProofError::Form), "{to}");
    }
    assert_eq!(Inclusion::read(&vec![b' '; MAX_PROOF_BYTES + 1]), Err(ProofError::TooLong));
}
