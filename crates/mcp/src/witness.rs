//! Has the wallet know what a server or a seller named before an agent reads it.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use farthing_policy::{Names, named_by};
use farthing_wallet::{Denied, Mentions};
use serde_json::Value;

/// From how many bytes on a text is read beside the threads that carry connections.
const LONG: usize = 64 * 1024;
/// Where a message of the protocol has what only we say, and what that begins with.
const META: &str = "_meta";
const OURS: &str = "farthing/";

/// Who is told what one server says.
#[derive(Clone)]
pub struct Witness {
    wallet: Arc<dyn Mentions>,
    /// `host:port` by which the wallet's rules know the server.
    author: Arc<str>,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Witness of {}", self.author)
    }
}

impl Witness {
    pub fn new(wallet: Arc<dyn Mentions>, author: &str) -> Self {
        Self { wallet, author: author.into() }
    }

    /// Writes down what a message names, in all its texts but those that only we write.
    ///
    /// # Errors
    /// [`Denied`] if that cannot be written down: then the message is not to be passed on.
    pub(crate) async fn hear(&self, said: Value, tool: Option<&str>) -> Result<(), Denied> {
        let work = move || {
            let mut names = Names::default();
            read_all(&said, false, &mut names);
            names
        };
        let names = tokio::task::spawn_blocking(work).await.map_err(|_| Denied::Unavailable)?;
        self.tell(&names, tool).await
    }

    async fn tell(&self, names: &Names, tool: Option<&str>) -> Result<(), Denied> {
        if names.is_empty() {
            Ok(())
        } else {
            self.wallet.mention(names, &named_by(&self.author, tool)).await
        }
    }
}

/// The names in bytes that may be text.
pub(crate) async fn names_in(bytes: &Bytes) -> Names {
    let of = |bytes: &[u8]| match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => Names::of(text),
        Cow::Owned(text) => Names::of(&text),
    };
    if bytes.len() <= LONG {
        return of(bytes);
    }
    let bytes = bytes.clone();
    tokio::task::spawn_blocking(move || of(&bytes)).await.unwrap_or_else(|_| {
        // What could not be read could have named anything.
        let mut names = Names::default();
        names.cut();
        names
    })
}

fn read_all(value: &Value, in_meta: bool, names: &mut Names) {
    match value {
        Value::String(text) => names.read(text),
        Value::Array(items) => items.iter().for_each(|item| read_all(item, false, names)),
        Value::Object(members) => {
            for (key, value) in members {
                if !(in_meta && key.starts_with(OURS)) {
                    names.read(key);
                    read_all(value, key == META, names);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
