//! Does the disk bite? A program that is careless must lose, and one that is careful must not.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use farthing_faultdisk::{Crash, Disk, Fault, Kind, Rng};
use rusqlite::{Connection, ErrorCode};

fn open(disk: &Disk, journal: &str, synchronous: &str) -> rusqlite::Result<Connection> {
    let connection = Connection::open(disk.path("a.db"))?;
    connection.pragma_update(None, "journal_mode", journal)?;
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "wal_autocheckpoint", 8)?;
    Ok(connection)
}

/// Makes the table, durably.
fn begin(disk: &Disk, journal: &str) {
    let connection = open(disk, journal, "EXTRA").unwrap();
    connection.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY, filler BLOB)").unwrap();
}

/// Inserts rows until something fails or there are enough; says how many commits were answered.
fn insert(disk: &Disk, journal: &str, synchronous: &str, rows: u32) -> u32 {
    let Ok(connection) = open(disk, journal, synchronous) else { return 0 };
    let done = |n: &u32| {
        let filler = vec![u8::try_from(n % 251).unwrap(); 300 + usize::try_from(n % 7).unwrap() * 400];
        connection.execute("INSERT INTO t VALUES (?1, ?2)", rusqlite::params![n, filler]).is_ok()
    };
    (1..=rows).take_while(done).last().unwrap_or(0)
}

/// How many rows there are; `None` if the file is broken.
fn found(disk: &Disk, journal: &str) -> Option<u32> {
    let connection = open(disk, journal, "FULL").ok()?;
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).ok()?;
    let (rows, last): (u32, u32) = connection
        .query_row("SELECT count(*), ifnull(max(n), 0) FROM t", [], |r| Ok((r.get(0)?, r.get(1)?)))
        .ok()?;
    (sound == "ok" && rows == last).then_some(rows)
}

/// One power cut in the middle of many commits: how many were answered, and what is there afterwards.
fn cut_in_the_middle(seed: u64, journal: &str, synchronous: &str) -> (u32, Option<u32>) {
    let disk = Disk::new(seed);
    begin(&disk, journal);
    disk.inject(Fault::power_cut().after(Rng::new(seed).below(150)));
    let answered = insert(&disk, journal, synchronous, 40);
    disk.heal();
    disk.restart(Crash::Power);
    (answered, found(&disk, journal))
}

#[test]
fn sqlite_with_full_sync_never_loses_a_commit() {
    let mut cut_short = 0;
    for journal in ["WAL", "DELETE"] {
        // A rollback journal's commit is its deletion, which only EXTRA syncs.
        let synchronous = if journal == "WAL" { "FULL" } else { "EXTRA" };
        for seed in 0..200 {
            let (answered, found) = cut_in_the_middle(seed, journal, synchronous);
            let found = found.unwrap_or_else(|| panic!("{journal}, seed {seed}: broken after {answered}"));
            // The one that was cut off may be there or not.
            assert!(
                (answered..=answered + 1).contains(&found),
                "{journal}, seed {seed}: {found} of {answered}"
            );
            cut_short += u64::from(answered < 40);
        }
    }
    assert!(cut_short > 300, "only {cut_short} runs were cut short");
}

#[test]
fn sqlite_without_sync_loses_commits_and_breaks_its_file() {
    let (mut lost, mut broken) = (0, 0);
    for seed in 0..200 {
        match cut_in_the_middle(seed, "WAL", "OFF") {
            (_, None) => broken += 1,
            (answered, Some(found)) => lost += u64::from(found < answered),
        }
    }
    assert!(lost > 20 && broken > 5, "{lost} lost, {broken} broken of 200");
}

#[test]
fn normal_sync_loses_commits_but_keeps_the_file_whole() {
    let mut lost = 0;
    for seed in 0..200 {
        let (answered, found) = cut_in_the_middle(seed, "WAL", "NORMAL");
        let found = found.unwrap_or_else(|| panic!("seed {seed}: broken"));
        lost += u64::from(found < answered);
    }
    assert!(lost > 20, "{lost} lost of 200");
}

#[test]
fn a_process_that_dies_loses_nothing_that_was_written() {
    for seed in 0..50 {
        let disk = Disk::new(seed);
        begin(&disk, "WAL");
        disk.inject(Fault::power_cut().after(Rng::new(seed).below(100)));
        let answered = insert(&disk, "WAL", "OFF", 40);
        disk.heal();
        disk.restart(Crash::Process);
        let found = found(&disk, "WAL").unwrap();
        assert!((answered..=answered + 1).contains(&found), "seed {seed}: {found} of {answered}");
    }
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let image = |seed| {
        let disk = Disk::new(seed);
        disk.put("a.db", &[1; 9000]);
        let name = "a.db";
        let connection = open(&disk, "DELETE", "OFF");
        assert!(connection.is_err(), "that was no database");
        begin_anew(&disk);
        disk.inject(Fault::power_cut().after(60));
        insert(&disk, "DELETE", "OFF", 40);
        disk.restart(Crash::Power);
        (disk.image(name), disk.counts())
    };
    assert_eq!(image(3), image(3));
    assert_ne!(image(3).0, image(4).0);
}

fn begin_anew(disk: &Disk) {
    disk.put("a.db", &[]);
    begin(disk, "DELETE");
}

fn code_of(error: &rusqlite::Error) -> Option<ErrorCode> {
    error.sqlite_error_code()
}

#[test]
fn each_fault_is_told_to_sqlite_as_what_it_is() {
    let check = |fault: Option<Fault>, expected: ErrorCode| {
        let disk = Disk::new(1);
        begin(&disk, "WAL");
        let connection = open(&disk, "WAL", "FULL").unwrap();
        match fault.clone() {
            Some(fault) => disk.inject(fault),
            None => disk.fill_after(10_000),
        }
        let error = (0..50)
            .find_map(|n| connection.execute("INSERT INTO t VALUES (?1, zeroblob(3000))", [n]).err())
            .unwrap_or_else(|| panic!("nothing failed: {fault:?}"));
        assert_eq!(code_of(&error), Some(expected), "{fault:?}: {error}");
        disk.heal();
        // Who heard no can go on.
        connection.execute("INSERT INTO t VALUES (1000, NULL)", []).unwrap();
    };
    check(None, ErrorCode::DiskFull);
    check(Some(Fault::write_fails().on(Kind::Log).after(3)), ErrorCode::SystemIoFailure);
    check(Some(Fault::sync_fails().on(Kind::Log).after(2)), ErrorCode::SystemIoFailure);
}

#[test]
fn a_bit_that_flips_or_a_read_that_ends_early_is_seen_by_who_looks() {
    let disk = Disk::new(1);
    begin(&disk, "WAL");
    insert(&disk, "WAL", "FULL", 30);
    assert_eq!(found(&disk, "WAL"), Some(30));
    let len = disk.image("a.db").unwrap().len();
    let mut rng = Rng::new(1);
    let text = || {
        open(&disk, "WAL", "FULL").and_then(|connection| {
            connection
                .query_row("SELECT group_concat(n || hex(filler)) FROM t", [], |row| row.get::<_, String>(0))
        })
    };
    let truth = text().unwrap();
    let mut differs = 0;
    for _ in 0..40 {
        let offset = usize::try_from(rng.below(len as u64)).unwrap();
        assert!(disk.flip("a.db", offset, 3));
        differs += u32::from(!text().is_ok_and(|text| text == truth));
        assert!(disk.flip("a.db", offset, 3));
    }
    assert!(differs > 20, "only {differs} of 40 bits made a difference");
    assert_eq!(found(&disk, "WAL"), Some(30));
    disk.inject(Fault::short_read().on(Kind::Database).after(1).for_good());
    assert_eq!(found(&disk, "WAL"), None);
    disk.heal();
    disk.inject(Fault::read_fails().for_good());
    assert_eq!(found(&disk, "WAL"), None);
    disk.heal();
    assert_eq!(found(&disk, "WAL"), Some(30));
}

#[test]
fn connections_of_several_threads_share_one_log() {
    let disk = Disk::new(1);
    begin(&disk, "WAL");
    std::thread::scope(|scope| {
        for thread in 0..4u32 {
            let disk = &disk;
            scope.spawn(move || {
                let connection = open(disk, "WAL", "FULL").unwrap();
                connection.busy_timeout(std::time::Duration::from_secs(20)).unwrap();
                for n in 0..50 {
                    connection
                        .execute("INSERT INTO t VALUES (?1, zeroblob(900))", [thread * 1000 + n])
                        .unwrap();
                    let seen: u32 =
                        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
                    assert!(seen > n);
                }
            });
        }
    });
    let connection = open(&disk, "WAL", "FULL").unwrap();
    let rows: u32 = connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 200);
    // A reader keeps its view while another writes and empties the log.
    let reader = open(&disk, "WAL", "FULL").unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM t").unwrap();
    connection.execute("DELETE FROM t", []).unwrap();
    let seen: u32 = reader.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(seen, 200);
}

#[test]
fn two_disks_and_the_real_one_are_apart() {
    let (one, two) = (Disk::new(1), Disk::new(1));
    begin(&one, "WAL");
    begin(&two, "WAL");
    one.cut();
    assert!(
        one.is_cut()
            && Connection::open(one.path("a.db")).and_then(|c| c.execute_batch("SELECT * FROM t")).is_err()
    );
    assert_eq!(found(&two, "WAL"), Some(0));
    let real = tempfile::tempdir().unwrap();
    let path = real.path().join("real.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (n)").unwrap();
    assert!(std::fs::metadata(&path).unwrap().len() > 0);
    assert!(!two.path("a.db").exists(), "it should be in memory only");
}
