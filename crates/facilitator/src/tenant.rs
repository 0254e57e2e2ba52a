use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use farthing_primitives::TenantId;

use crate::limit::{Bucket, Gas};
use crate::{KeyDigest, SetupError, Tenant, TenantLimits};

/// A tenant with what it has used up of its limits.
#[derive(Debug)]
pub(crate) struct Account {
    pub id: TenantId,
    keys: Vec<KeyDigest>,
    pub requests: Option<Bucket>,
    pub contract_wallets: Bucket,
    pub settlements: Slots,
    pub gas: Gas,
}

/// Everybody who may ask.
#[derive(Debug)]
pub(crate) enum Tenants {
    /// No keys: whoever can connect is `local`.
    Open(Arc<Account>),
    Keyed(Vec<Arc<Account>>),
}

impl Account {
    fn new(id: TenantId, keys: Vec<KeyDigest>, limits: &TenantLimits) -> Arc<Self> {
        Arc::new(Self {
            id,
            keys,
            requests: limits.requests_per_second.map(Bucket::new),
            contract_wallets: Bucket::new(limits.contract_wallets_per_second),
            settlements: Slots::new(limits.settlements_in_flight),
            gas: Gas::new(limits.gas),
        })
    }
}

impl Tenants {
    pub fn new(tenants: &[Tenant], open: &TenantLimits) -> Result<Self, SetupError> {
        if tenants.is_empty() {
            return Ok(Self::Open(Account::new(TenantId::local(), Vec::new(), open)));
        }
        let mut ids = HashSet::new();
        let mut keys: Vec<&KeyDigest> = Vec::new();
        for tenant in tenants {
            if !ids.insert(&tenant.id) {
                return Err(SetupError::TwiceTenant(tenant.id.clone()));
            }
            if tenant.keys.is_empty() {
                return Err(SetupError::NoKey(tenant.id.clone()));
            }
            if tenant.keys.iter().any(|key| keys.iter().any(|known| known.matches(key))) {
                return Err(SetupError::SharedKey(tenant.id.clone()));
            }
            keys.extend(&tenant.keys);
        }
        let account = |tenant: &Tenant| Account::new(tenant.id.clone(), tenant.keys.clone(), &tenant.limits);
        Ok(Self::Keyed(tenants.iter().map(account).collect()))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        match self {
            Self::Open(account) => std::slice::from_ref(account).iter(),
            Self::Keyed(accounts) => accounts.iter(),
        }
    }

    pub fn are_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    /// Who asks, by the value of `Authorization`.
    ///
    /// Digests are compared, all of them and each in constant time: how long it takes tells nothing of any key.
    pub fn find(&self, authorization: Option<&[u8]>) -> Option<&Arc<Account>> {
        let accounts = match self {
            Self::Open(account) => return Some(account),
            Self::Keyed(accounts) => accounts,
        };
        let (scheme, key) = authorization?.split_at_checked(7)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return None;
        }
        let shown = KeyDigest::digest(key);
        let mut found = None;
        for account in accounts {
            for key in &account.keys {
                if key.matches(&shown) {
                    found = Some(account);
                }
            }
        }
        found
    }
}

/// So many at once.
#[derive(Debug)]
pub(crate) struct Slots {
    free: Arc<AtomicUsize>,
}

/// Gives its place back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Slots {
    pub fn new(most: usize) -> Self {
        Self { free: Arc::new(AtomicUsize::new(most)) }
    }

    pub fn take(&self) -> Option<Slot> {
        let less = |free: usize| free.checked_sub(1);
        self.free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, less)
            .ok()
            .map(|_| Slot(self.free.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}
