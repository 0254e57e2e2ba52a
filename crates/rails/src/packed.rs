//! Our own bytes, field by field: what is written here is read again by us alone, perhaps by a later version.

use farthing_evm::{Address, B256, Bytes, Signature, U256};

pub(crate) struct Writer(pub Vec<u8>);

impl Writer {
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn word(&mut self, word: U256) {
        self.bytes(&word.to_be_bytes::<32>());
    }

    pub fn blob(&mut self, bytes: &[u8]) {
        // INVARIANT: a blob is part of a signature of at most `MAX_SIGNATURE_LEN`, far below 32 bits.
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.bytes(&len.to_be_bytes());
        self.bytes(bytes);
    }

    pub fn option<T>(&mut self, value: Option<&T>, write: impl FnOnce(&mut Self, &T)) {
        self.bytes(&[u8::from(value.is_some())]);
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// What is left to read. Every reading fails for ever once there is too little.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn take(&mut self, len: usize) -> Option<&[u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Option<bool> {
        match self.byte()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    pub fn word(&mut self) -> Option<U256> {
        self.array().map(U256::from_be_bytes::<32>)
    }

    pub fn hash(&mut self) -> Option<B256> {
        self.array().map(B256::new)
    }

    pub fn address(&mut self) -> Option<Address> {
        self.array().map(Address::new)
    }

    pub fn signature(&mut self) -> Option<Signature> {
        Signature::parse(self.take(65)?).ok()
    }

    pub fn blob(&mut self) -> Option<Bytes> {
        let len = usize::try_from(u32::from_be_bytes(self.array()?)).ok()?;
        self.take(len).map(Bytes::copy_from_slice)
    }
}
