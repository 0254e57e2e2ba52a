//! The index: what sellers' documents said when they were fetched, one file for each origin, in the wallet's home.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use farthing_discovery::read::Seller;
use farthing_policy::Origin;
use serde::{Deserialize, Serialize};

/// How many sellers are kept.
pub const MAX_SELLERS: usize = 256;
/// The longest file that is read, in bytes. What the bounds of a document let through is shorter.
const MAX_FILE_BYTES: u64 = 16 * 1024 * 1024;
/// The folder in the wallet's home.
const FOLDER: &str = "sellers";
const VERSION: u32 = 1;

/// A seller as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    version: u32,
    /// `https://api.example:443`.
    pub origin: String,
    /// When its documents were fetched, in milliseconds since 1970.
    pub fetched_ms: u64,
    /// Which documents said all this.
    pub sources: Vec<String>,
    pub seller: Seller,
}

impl Kept {
    pub fn new(origin: &Origin, fetched_ms: u64, sources: Vec<String>, seller: Seller) -> Self {
        Self { version: VERSION, origin: origin.to_string(), fetched_ms, sources, seller }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("{path}: {error}")]
    Io { path: String, error: io::Error },
    #[error("the index holds {MAX_SELLERS} sellers already: remove one")]
    Full,
}

/// The folder of the index.
#[derive(Debug, Clone)]
pub struct Index(PathBuf);

impl Index {
    pub fn new(home: &Path) -> Self {
        Self(home.join(FOLDER))
    }

    /// Every seller that can be read, in the order of their origins, and the names of the files that cannot.
    pub fn all(&self) -> Result<(Vec<Kept>, Vec<String>), IndexError> {
        let (mut kept, mut broken) = (Vec::new(), Vec::new());
        for path in self.files()? {
            match read(&path) {
                Some(seller) => kept.push(seller),
                None => broken.push(path.display().to_string()),
            }
        }
        kept.sort_by(|a, b| a.origin.cmp(&b.origin));
        Ok((kept, broken))
    }

    fn files(&self) -> Result<Vec<PathBuf>, IndexError> {
        let entries = match fs::read_dir(&self.0) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(at(&self.0, error)),
        };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        let mut files: Vec<PathBuf> =
            paths.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
        files.sort_unstable();
        files.truncate(MAX_SELLERS);
        Ok(files)
    }

    /// Keeps a seller in place of what was kept of its origin: the whole file, or the old one.
    pub fn put(&self, kept: &Kept) -> Result<(), IndexError> {
        let path = self.file(&kept.origin);
        if !path.exists() && self.files()?.len() >= MAX_SELLERS {
            return Err(IndexError::Full);
        }
        let mut builder = fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
        builder.create(&self.0).map_err(|error| at(&self.0, error))?;
        write(&path, kept).map_err(|error| at(&path, error))
    }

    /// Whether it was there.
    pub fn remove(&self, origin: &Origin) -> Result<bool, IndexError> {
        let path = self.file(&origin.to_string());
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(at(&path, error)),
        }
    }

    /// No two origins have one file.
    fn file(&self, origin: &str) -> PathBuf {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
        let one = |b: u8| if plain(b) { char::from(b).to_string() } else { format!("_{b:02x}") };
        let name: String = origin
            .replace("://", "~")
            .bytes()
            .map(|b| if b == b'~' { "+".to_owned() } else { one(b) })
            .collect();
        self.0.join(format!("{name}.json"))
    }
}

fn at(path: &Path, error: io::Error) -> IndexError {
    IndexError::Io { path: path.display().to_string(), error }
}

fn read(path: &Path) -> Option<Kept> {
    let mut text = Vec::new();
    let file = fs::File::open(path).ok()?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return None;
    }
    serde_json::from_slice::<Kept>(&text).ok().filter(|kept| kept.version == VERSION)
}

fn write(path: &Path, kept: &Kept) -> io::Result<()> {
    let mut random = [0u8; 8];
    getrandom::fill(&mut random).map_err(|_| io::Error::other("no random bytes"))?;
    let draft = path.with_extension(format!("{}.tmp", hex::encode(random)));
    let written = (|| {
        let mut options = fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        let mut file = options.open(&draft)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    })();
    if written.is_err() {
        // The error that matters is the first.
        let _ = fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(text: &str) -> Origin {
        Origin::of(&text.parse().unwrap()).unwrap()
    }

    fn kept(text: &str, title: &str) -> Kept {
        let seller = Seller { title: title.to_owned(), ..Seller::default() };
        Kept::new(&origin(text), 5, vec!["/openapi.json".to_owned()], seller)
    }

    #[test]
    fn sellers_are_kept_replaced_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path());
        assert_eq!(index.all().unwrap(), (Vec::new(), Vec::new()));
        let all = ["https://a.example/", "http://a.example/", "https://a.example:8443/", "http://[::1]:80/"];
        for url in all {
            index.put(&kept(url, url)).unwrap();
        }
        index.put(&kept("https://a.example/", "again")).unwrap();
        let (found, broken) = index.all().unwrap();
        assert_eq!((found.len(), broken.len()), (all.len(), 0));
        assert!(found.contains(&kept("https://a.example/", "again")));
        assert!(index.remove(&origin("https://a.example/x")).unwrap());
        assert!(!index.remove(&origin("https://a.example/")).unwrap());
        assert_eq!(index.all().unwrap().0.len(), all.len() - 1);
    }

    /// A file that somebody else wrote is neither believed nor in the way.
    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path());
        index.put(&kept("https://a.example/", "a")).unwrap();
        fs::write(dir.path().join("sellers/odd.json"), "{\"version\":1}").unwrap();
        fs::write(dir.path().join("sellers/left.0011.tmp"), "half").unwrap();
        let (found, broken) = index.all().unwrap();
        assert_eq!(found.len(), 1);
        assert!(broken.len() == 1 && broken[0].ends_with("odd.json"), "{broken:?}");
    }

    #[test]
    fn the_index_has_an_end() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::new(dir.path());
        fs::create_dir(dir.path().join("sellers")).unwrap();
        for n in 0..MAX_SELLERS {
            fs::write(dir.path().join(format!("sellers/{n}.json")), "").unwrap();
        }
        assert!(matches!(index.put(&kept("https://a.example/", "a")), Err(IndexError::Full)));
    }
}
