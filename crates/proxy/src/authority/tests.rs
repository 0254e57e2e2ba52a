use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls_pki_types::{ServerName, UnixTime};
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

fn patterns(names: &[&str]) -> Vec<HostPattern> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn host(name: &str) -> Host {
    name.parse().unwrap()
}

fn open_in(dir: &TempDir, hosts: &[&str]) -> Authority {
    Authority::open(Files::within(dir.path()), &patterns(hosts), NOW).unwrap()
}

/// Whether a program that was told of the authority's certificate in its file believes that this leaf is that host.
fn is_believed(
    authority: &CertificateDer<'_>,
    leaf: &CertificateDer<'_>,
    name: &str,
    now: Timestamp,
) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned()).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = name.trim_matches(['[', ']']);
    let name = ServerName::try_from(name).unwrap();
    let at = UnixTime::since_unix_epoch(Duration::from_secs(now.secs()));
    verifier.verify_server_cert(leaf, &[], &name, &[], at).is_ok()
}

fn in_file(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// A leaf by the key, whatever its certificate says.
fn leaf_for(authority: &Authority, name: &str) -> CertificateDer<'static> {
    let state = open(&authority.state);
    authority.leaf(&host(name), &state.current, NOW).unwrap()
}

#[test]
fn leaves_are_believed_for_named_hosts_and_for_no_others() {
    let check = |named: &[&str], believed: &[&str], others: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let authority = open_in(&dir, named);
        let own = in_file(&authority.files().certificate);
        for name in believed {
            assert!(is_believed(&own, &leaf_for(&authority, name), name, NOW), "{name} of {named:?}");
        }
        for name in others {
            assert!(!is_believed(&own, &leaf_for(&authority, name), name, NOW), "{name} of {named:?}");
        }
    };
    let bank = ["bank.example", "example", "1.1.1.1", "[2001:4860:4860::8888]"];
    check(&["shop.example"], &["shop.example", "below.shop.example"], &bank);
    check(&["shop.example:8443", "*.api.example"], &["shop.example", "a.api.example"], &bank);
    check(&["127.0.0.1", "[::1]"], &["127.0.0.1", "[::1]"], &["bank.example", "127.0.0.2", "[::2]"]);
    check(&["127.0.0.1", "shop.example"], &["127.0.0.1", "shop.example"], &bank);
    // What names nobody is good for nobody.
    check(&["*"], &[], &bank);
    check(&[], &[], &bank);
}

#[test]
fn the_key_stays_and_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let first = open_in(&dir, &["a.example"]);
    let before = in_file(&first.files().certificate);
    let again = open_in(&dir, &["a.example", "b.example"]);
    let after = in_file(&again.files().certificate);
    // Programs that began before go on with what they know.
    let leaf = leaf_for(&again, "a.example");
    assert!(is_believed(&before, &leaf, "a.example", NOW) && is_believed(&after, &leaf, "a.example", NOW));
    let other = leaf_for(&again, "b.example");
    assert!(!is_believed(&before, &other, "b.example", NOW) && is_believed(&after, &other, "b.example", NOW));
    assert!(!format!("{again:?}").contains("PRIVATE"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let key = &again.files().key;
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let opened = Authority::open(Files::within(dir.path()), &[], NOW);
        assert!(matches!(opened, Err(AuthorityError::KeyIsOpen(_))));
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(key, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
        let opened = Authority::open(Files::within(dir.path()), &[], NOW);
        assert!(matches!(opened, Err(AuthorityError::NotAKey(_))));
    }
    // Nothing unfinished is left behind.
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
}

#[test]
fn a_host_that_is_named_later_gets_another_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_in(&dir, &["a.example"]);
    let before = in_file(&authority.files().certificate);
    authority.server_config(&host("a.example"), &patterns(&["a.example"]), NOW).unwrap();
    assert_eq!(before, in_file(&authority.files().certificate));
    authority.server_config(&host("b.example"), &patterns(&["a.example", "b.example"]), NOW).unwrap();
    let after = in_file(&authority.files().certificate);
    assert!(is_believed(&after, &leaf_for(&authority, "b.example"), "b.example", NOW));
    // In time also where nothing changed.
    let later = NOW.plus(AUTHORITY_LIFE / 2);
    authority.server_config(&host("b.example"), &patterns(&["b.example"]), later).unwrap();
    assert_ne!(after, in_file(&authority.files().certificate));
}

#[test]
fn leaves_are_kept_for_a_while_and_in_bounded_number() {
    let dir = tempfile::tempdir().unwrap();
    let (authority, named) = (open_in(&dir, &["*.example"]), patterns(&["*.example"]));
    let config = |name: &str, at: Timestamp| authority.server_config(&host(name), &named, at).unwrap();
    let first = config("a.example", NOW);
    assert!(Arc::ptr_eq(&first, &config("a.example", NOW.plus(LEAF_LIFE / 2).minus(Duration::from_secs(1)))));
    assert!(!Arc::ptr_eq(&first, &config("a.example", NOW.plus(LEAF_LIFE / 2))));
    let leaf = leaf_for(&authority, "a.example");
    let own = in_file(&authority.files().certificate);
    assert!(!is_believed(&own, &leaf, "a.example", NOW.plus(LEAF_LIFE).plus(Duration::from_secs(1))));
    for n in 0..MAX_LEAVES {
        config(&format!("a{n}.example"), NOW);
    }
    let state = open(&authority.state);
    assert_eq!((state.leaves.len(), state.order.len()), (MAX_LEAVES, MAX_LEAVES));
    assert!(!state.leaves.contains_key(&host("a.example")));
}

#[test]
fn serials_are_never_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_in(&dir, &["a.example"]);
    // Everything else of the two is equal.
    assert_ne!(leaf_for(&authority, "a.example"), leaf_for(&authority, "a.example"));
}

#[test]
fn the_bundle_holds_what_this_machine_believes_and_ours_once() {
    let dir = tempfile::tempdir().unwrap();
    let authority = open_in(&dir, &["a.example"]);
    let bundle = || -> Vec<CertificateDer<'static>> {
        let certificates = CertificateDer::pem_file_iter(&authority.files().bundle).unwrap();
        certificates.map(|certificate| certificate.unwrap()).collect()
    };
    let known = rustls_native_certs::load_native_certs().certs.len();
    assert_eq!(bundle().len(), known + 1);
    assert_eq!(bundle().first(), Some(&in_file(&authority.files().certificate)));
}
