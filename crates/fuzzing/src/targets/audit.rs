//! The log that proves itself. What is read has one form; a proof proves what is in the log; and a log on a disk that
//! differs from the one that was signed is never taken for it.

use std::convert::Infallible;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use farthing_audit::{
    Check, Checkpoint, Consistency, Cosignature, Disk, Hash, Inclusion, KeyKind, Kind, Leaf, Leaves,
    LeavesError, LogDir, Nodes, Note, Seen, SigningKey, Tile, Tree, Value, VerifierKey, Witness, attach,
    consistency_proof, inclusion_proof, is_consistent, is_included, leaf_hash, publish, root_of, verify,
};

use super::is_short;
use crate::input::Input;

const NAME: &str = "wallet.example/log";
/// One full tile, and a few leaves beside it.
const LEAVES: u64 = 259;
/// How large the log was when somebody looked.
const EARLIER: u64 = 100;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() % 8 {
        0 => leaf(input.rest()),
        1 => note(input.rest()),
        2 => keys(&String::from_utf8_lossy(input.rest())),
        3 => proof(&mut input),
        4 => paths(&mut input),
        5 => witness(&mut input),
        6 => tiles(&mut input),
        _ => THREAD.with(|thread| on_disk(thread, &mut input)),
    }
}

fn key() -> &'static SigningKey {
    static KEY: OnceLock<SigningKey> = OnceLock::new();
    KEY.get_or_init(|| SigningKey::from_seed(NAME, KeyKind::Note, [1; 32]).expect("a key"))
}

/// The leaves of the log that all of this is about.
#[derive(Debug)]
struct Books {
    leaves: Vec<Vec<u8>>,
    hashes: Vec<Hash>,
}

impl Books {
    fn get() -> &'static Self {
        static BOOKS: OnceLock<Books> = OnceLock::new();
        BOOKS.get_or_init(|| {
            let leaf = |n: u64| {
                let kind = Kind::ALL[usize::try_from(n).expect("few") % Kind::ALL.len()];
                Leaf::new(kind, n).with("n", Value::number(n)).encode().expect("a leaf")
            };
            let leaves: Vec<_> = (0..LEAVES).map(leaf).collect();
            let hashes = leaves.iter().map(|leaf| leaf_hash(leaf)).collect();
            Self { leaves, hashes }
        })
    }
}

/// The same, as somebody who publishes it reads it: the first so many.
struct First(u64);

impl Leaves for First {
    fn count(&self) -> Result<u64, LeavesError> {
        Ok(self.0)
    }

    fn read(&self, from: u64, most: usize) -> Result<Vec<Vec<u8>>, LeavesError> {
        let all = usize::try_from(from).expect("few")..usize::try_from(self.0).expect("few");
        Ok(Books::get().leaves[all].iter().take(most).cloned().collect())
    }
}

/// All hashes of the tree, by the definition.
struct Naive;

impl Nodes for Naive {
    type Error = Infallible;

    fn node(&mut self, height: u32, index: u64) -> Result<Hash, Infallible> {
        let from = usize::try_from(index << height).expect("few");
        Ok(root_of(&Books::get().hashes[from..from + (1 << height)]))
    }
}

fn root(size: u64) -> Hash {
    root_of(&Books::get().hashes[..usize::try_from(size).expect("few")])
}

fn sure<T>(done: Result<T, Infallible>) -> T {
    match done {
        Ok(value) => value,
        Err(never) => match never {},
    }
}

fn leaf(bytes: &[u8]) {
    match Value::read(bytes) {
        Ok(value) => assert_eq!(value.print().as_bytes(), bytes, "one value has one form"),
        Err(error) => is_short(&error),
    }
    match Leaf::read(bytes) {
        Ok(leaf) => assert_eq!(leaf.encode().as_deref(), Ok(bytes)),
        Err(error) => is_short(&error),
    }
}

fn note(bytes: &[u8]) {
    let note = match Note::read(bytes) {
        Ok(note) => note,
        Err(error) => return is_short(&error),
    };
    assert_eq!(note.to_string().as_bytes(), bytes, "one note has one form");
    match Checkpoint::read(&note.text) {
        // What stands below is for others.
        Ok(checkpoint) => assert!(note.text.starts_with(&checkpoint.text())),
        Err(error) => is_short(&error),
    }
    match Checkpoint::open(bytes, key().verifier()) {
        Ok((checkpoint, note)) => {
            assert!(published().iter().any(|known| known.text == note.text), "nobody signed {note}");
            assert!(checkpoint.origin == NAME && checkpoint.root == root(checkpoint.size));
        }
        Err(error) => is_short(&error),
    }
}

fn keys(text: &str) {
    match text.parse::<VerifierKey>() {
        Ok(key) => assert_eq!(key.to_string(), text),
        Err(error) => is_short(&error),
    }
    match SigningKey::from_secret_text(text) {
        Ok(key) => assert_eq!(key.secret_text().trim_end(), text.trim_end_matches('\n')),
        Err(error) => is_short(&error),
    }
}

/// The checkpoints that were signed: an earlier one and the last.
fn published() -> &'static [Note; 2] {
    static NOTES: OnceLock<[Note; 2]> = OnceLock::new();
    NOTES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = LogDir::new(dir.path());
        [EARLIER, LEAVES].map(|size| {
            let done = publish(&dir, key(), None, &First(size), &mut Disk::new()).expect("published");
            Note::read(done.note.as_bytes()).expect("a note")
        })
    })
}

/// A proof as a text: a good one, changed in places, or anything.
fn proof(input: &mut Input<'_>) {
    let [earlier, later] = published();
    let index = u64::from(input.u16()) % LEAVES;
    let inclusion = Inclusion {
        index,
        leaf: String::from_utf8(Books::get().leaves[usize::try_from(index).expect("few")].clone())
            .expect("UTF-8"),
        path: sure(inclusion_proof(&mut Naive, index, LEAVES)),
        checkpoint: later.to_string(),
    };
    let consistency = Consistency {
        path: sure(consistency_proof(&mut Naive, EARLIER, LEAVES)),
        earlier: earlier.to_string(),
        later: later.to_string(),
    };
    let mut text = match input.byte() % 3 {
        0 => inclusion.to_json().to_string().into_bytes(),
        1 => consistency.to_json().to_string().into_bytes(),
        _ => input.take(usize::MAX).to_vec(),
    };
    while !input.is_empty() && !text.is_empty() {
        let at = usize::from(input.u16()) % text.len();
        text[at] = input.byte();
    }
    match Inclusion::read(&text) {
        Ok(read) => {
            assert_eq!(Inclusion::read(read.to_json().to_string().as_bytes()).as_ref(), Ok(&read));
            match read.verify(key().verifier()) {
                Ok((leaf, checkpoint)) => {
                    let there = &Books::get().leaves[usize::try_from(read.index).expect("few")];
                    assert_eq!(leaf.encode().as_ref(), Ok(there), "proven, and not there");
                    assert_eq!(checkpoint.root, root(checkpoint.size));
                }
                Err(error) => is_short(&error),
            }
        }
        Err(error) => is_short(&error),
    }
    match Consistency::read(&text) {
        Ok(read) => {
            assert_eq!(Consistency::read(read.to_json().to_string().as_bytes()).as_ref(), Ok(&read));
            match read.verify(key().verifier()) {
                Ok((one, two)) => {
                    assert!(one.size <= two.size);
                    assert!(one.root == root(one.size) && two.root == root(two.size));
                }
                Err(error) => is_short(&error),
            }
        }
        Err(error) => is_short(&error),
    }
}

/// Every proof that is made holds, and none that was changed.
fn paths(input: &mut Input<'_>) {
    let size = 1 + u64::from(input.u16()) % LEAVES;
    let (index, first) = (u64::from(input.u16()) % size, u64::from(input.u16()) % (size + 1));
    let leaf = Books::get().hashes[usize::try_from(index).expect("few")];
    let included = sure(inclusion_proof(&mut Naive, index, size));
    let consistent = sure(consistency_proof(&mut Naive, first, size));
    assert!(is_included(&leaf, index, size, &included, &root(size)));
    assert!(is_consistent((first, root(first)), (size, root(size)), &consistent));
    let (mut changed, mut moved) = (included.clone(), consistent.clone());
    let (other, at, bit) = (u64::from(input.u16()), usize::from(input.byte()), input.byte());
    for path in [&mut changed, &mut moved] {
        match input.byte() % 4 {
            0 => path.push([bit; 32]),
            1 => drop(path.pop()),
            2 if !path.is_empty() => {
                let len = path.len();
                path[at % len][at % 32] ^= bit;
            }
            _ => path.reverse(),
        }
    }
    assert_eq!(is_included(&leaf, index, size, &changed, &root(size)), changed == included);
    assert_eq!(is_included(&leaf, other, size, &included, &root(size)), other == index);
    assert_eq!(is_consistent((first, root(first)), (size, root(size)), &moved), moved == consistent);
    // No length of a path and no size makes it do more than its length.
    let random: Vec<Hash> = (0..input.byte() % 66).map(|n| [n; 32]).collect();
    let _ = is_included(&leaf, input.u64(), input.u64(), &random, &root(size));
    let _ = is_consistent((input.u64(), leaf), (input.u64(), leaf), &random);
}

/// A witness cosigns what goes on from what it saw, and its word is on that alone.
fn witness(input: &mut Input<'_>) {
    static WITNESS: OnceLock<Witness> = OnceLock::new();
    let witness = WITNESS.get_or_init(|| {
        let key = SigningKey::from_seed("witness.example", KeyKind::Cosignature, [2; 32]).expect("a key");
        Witness::new(key).expect("a witness")
    });
    let [earlier, later] = published();
    let (note, size) = if input.flag() { (earlier, EARLIER) } else { (later, LEAVES) };
    let before = u64::from(input.u16()) % (LEAVES + 1);
    let mut seen = Seen { size: before, root: root(before) };
    seen.root[0] ^= input.byte() & 1;
    let mut path = sure(consistency_proof(&mut Naive, before.min(size), size));
    if input.flag() {
        path = (0..input.byte() % 8).map(|_| input.array()).collect();
    }
    let now = input.u64();
    let mut text = note.to_string().into_bytes();
    if input.flag() {
        let at = usize::from(input.u16()) % text.len();
        text[at] ^= input.byte();
    }
    match witness.cosign(&seen, &text, key().verifier(), &path, now) {
        Ok((cosignature, next)) => {
            assert!(next.size >= seen.size && next.root == root(next.size) && seen.root == root(seen.size));
            let mut cosigned = Note::read(&text).expect("cosigned");
            assert!(attach(&mut cosigned, cosignature));
            assert_eq!(Cosignature::check(&cosigned, witness.verifier()), Ok(now));
            assert_eq!(Note::read(cosigned.to_string().as_bytes()).as_ref(), Ok(&cosigned));
            let line = cosigned.signatures.last_mut().expect("attached");
            let at = usize::from(input.byte()) % line.bytes.len();
            line.bytes[at] ^= 1 + input.byte() % 255;
            assert!(Cosignature::check(&cosigned, witness.verifier()).is_err(), "a changed word counts");
        }
        Err(error) => is_short(&error),
    }
}

/// A tile has one name, and a tree grows to the same root however it was put away.
fn tiles(input: &mut Input<'_>) {
    let (level, index, size) = (u32::from(input.byte()), input.u64(), input.u64());
    for tile in [Tile::of(level, index, size), Tile::entries(index, size)].into_iter().flatten() {
        assert!((1..=256).contains(&tile.width));
        let path = tile.path();
        assert!(path.starts_with("tile/") && !path.contains("..") && path.len() < 64, "{path}");
        assert!(tile.full().path().len() <= path.len());
    }
    let (before, after) = (u64::from(input.u16()) % LEAVES, u64::from(input.byte()) % 8);
    let grown = |tree: &mut Tree, from: u64, to: u64| {
        for hash in
            &Books::get().hashes[usize::try_from(from).expect("few")..usize::try_from(to).expect("few")]
        {
            sure(tree.push(*hash, |_, _| Ok(())));
        }
    };
    let mut tree = Tree::new();
    grown(&mut tree, 0, before);
    assert_eq!(tree.root(), root(before));
    let mut levels: Vec<Vec<Hash>> = Vec::new();
    for (tile, hashes) in tree.partial() {
        let at = usize::try_from(tile.level.expect("of hashes")).expect("few");
        levels.resize(at + 1, Vec::new());
        levels[at] = hashes.to_vec();
    }
    let mut again = Tree::restore(before, levels.clone()).expect("our own");
    let end = (before + after).min(LEAVES);
    grown(&mut again, before, end);
    assert_eq!(again.root(), root(end));
    let other = input.u64();
    if let Some(tree) = Tree::restore(other, levels) {
        assert!(tree.size() == other && tree.partial().all(|(tile, hashes)| tile.width == hashes.len()));
    }
}

thread_local! {
    static THREAD: OnDisk = OnDisk::new();
}

/// A published log, one for each thread, and its files.
#[derive(Debug)]
struct OnDisk {
    home: tempfile::TempDir,
    files: Vec<(PathBuf, Vec<u8>)>,
}

impl OnDisk {
    fn new() -> Self {
        // In memory where there is such a place: nothing here has to last.
        let shm = Path::new("/dev/shm");
        let home = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let home = home.expect("a directory");
        let dir = LogDir::new(home.path());
        publish(&dir, key(), None, &First(LEAVES), &mut Disk::new()).expect("published");
        let mut files = Vec::new();
        let mut folders = vec![home.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.file_name().is_some_and(|name| name != ".lock") {
                    files.push((path.clone(), fs::read(&path).expect("a file")));
                }
            }
        }
        files.sort();
        Self { home, files }
    }
}

/// A log whose files were changed is the one that was signed only if nothing was changed, but for words of others
/// below its checkpoint.
fn on_disk(thread: &OnDisk, input: &mut Input<'_>) {
    let dir = LogDir::new(thread.home.path());
    let mut changed: Vec<(PathBuf, Option<Vec<u8>>)> = Vec::new();
    for _ in 0..=input.byte() % 3 {
        let (path, good) = input.pick(&thread.files);
        let mut bytes = good.clone();
        let at = usize::from(input.u16()) % (bytes.len() + 1);
        let (how, with) = (input.byte() % 6, input.blob());
        let bytes = match how {
            0 => None,
            1 => {
                bytes.truncate(at);
                Some(bytes)
            }
            2 => {
                bytes.splice(at..at, with.iter().copied());
                Some(bytes)
            }
            3 => Some(with.to_vec()),
            // Another file in its place.
            4 => Some(input.pick(&thread.files).1.clone()),
            _ => {
                let end = (at + with.len()).min(bytes.len());
                let len = end - at;
                bytes[at..end].copy_from_slice(&with[..len]);
                Some(bytes)
            }
        };
        match &bytes {
            Some(bytes) => fs::write(path, bytes).expect("written"),
            None => drop(fs::remove_file(path)),
        }
        changed.retain(|(other, _)| other != path);
        changed.push((path.clone(), bytes));
    }
    let known = published()[usize::from(input.flag())].to_string().into_bytes();
    let check =
        Check { key: key().verifier(), witnesses: &[], known: &[known], leaves: Some(&First(LEAVES)) };
    let report = verify(&dir, &check);
    let good = |path: &Path| &thread.files.iter().find(|(other, _)| other == path).expect("known").1;
    let is_same = |path: &Path, bytes: &Option<Vec<u8>>| match bytes {
        Some(bytes) if path.ends_with("checkpoint") => {
            let text = |bytes: &[u8]| Note::read(bytes).ok().map(|note| note.text);
            text(bytes) == text(good(path)) && Checkpoint::open(bytes, key().verifier()).is_ok()
        }
        Some(bytes) => bytes == good(path),
        None => false,
    };
    let same = changed.iter().all(|(path, bytes)| is_same(path, bytes));
    for (path, _) in &changed {
        fs::write(path, good(path)).expect("restored");
    }
    report.faults.iter().for_each(is_short);
    assert_eq!(report.holds(), same, "{:?} after {:?}", report.faults, changed.iter().map(|(path, _)| path));
}

/// The signed checkpoints, for seeds.
pub(crate) fn notes() -> [String; 2] {
    published().clone().map(|note| note.to_string())
}

/// A public and a private key, as they are written.
pub(crate) fn written_keys() -> [String; 2] {
    [key().verifier().to_string(), key().secret_text()]
}
