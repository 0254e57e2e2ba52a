//! Has the wallet know what a server or a seller named before an agent reads it.

use std::sync::Arc;

use farthing_policy::{Names, named_by};
use farthing_wallet::{Denied, Mentions};
use serde_json::Value;

use crate::untrusted::Untrusted;

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

    /// Writes down what a message names, in all its texts. What we say ourselves is put in later.
    ///
    /// # Errors
    /// [`Denied`] if that cannot be written down: then the message is not to be passed on.
    pub(crate) async fn hear(&self, said: Value, tool: Option<&str>) -> Result<(), Denied> {
        let work = move || {
            let mut names = Names::default();
            read_all(&said, &mut names);
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

/// The names in what is shown of something, if it is shown as text. Read beside the threads that carry connections.
pub(crate) async fn names_in(one: &Untrusted) -> Names {
    let one = one.clone();
    tokio::task::spawn_blocking(move || one.text_around().map(Names::of).unwrap_or_default())
        .await
        .unwrap_or_else(|_| {
            // What could not be read could have named anything.
            let mut names = Names::default();
            names.cut();
            names
        })
}

fn read_all(value: &Value, names: &mut Names) {
    match value {
        Value::String(text) => names.read(text),
        Value::Array(items) => items.iter().for_each(|item| read_all(item, names)),
        Value::Object(members) => {
            for (key, value) in members {
                names.read(key);
                read_all(value, names);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
