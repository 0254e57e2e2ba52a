//! The shim between SQLite and [`crate::disk`]: all that is unsafe is in this file.
//!
//! SQLite calls a VFS through tables of C functions. Ours is registered as the default one; it answers for files below
//! a mounted disk, and hands everything else to the VFS that was the default before.
//!
//! Spec: <https://sqlite.org/c3ref/vfs.html>, <https://sqlite.org/c3ref/io_methods.html>.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, Weak};

use rusqlite::ffi;

use crate::disk::{Error, Handle, Kind, Level, Region, Shared};

/// The sector that SQLite is told, as its own VFS tells it.
const SECTOR_TOLD: c_int = 4096;

/// The VFS that was the default before ours.
static REAL: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

static DISKS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// From here on SQLite finds the disk below its root.
pub(crate) fn mount(disk: &Arc<Shared>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    let mut disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.retain(|disk| disk.strong_count() > 0);
    disks.push(Arc::downgrade(disk));
}

/// The disk that a path is on, and the name that the path has there.
fn find(path: &str) -> Option<(Arc<Shared>, String)> {
    let disks = DISKS.lock().unwrap_or_else(PoisonError::into_inner);
    disks.iter().filter_map(Weak::upgrade).find_map(|disk| {
        let name = Path::new(path).strip_prefix(&disk.root).ok()?.to_str()?.to_owned();
        Some((disk, name))
    })
}

/// What SQLite allocates for each file that is open: the part that it knows, and ours.
#[repr(C)]
struct OurFile {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

struct Open {
    disk: Arc<Shared>,
    name: String,
    handle: Handle,
    delete_on_close: bool,
    /// Keeps what SQLite has pointers into.
    regions: Vec<Option<Region>>,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 2: shared memory, but no mapped files.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

fn install() {
    // SAFETY: a null name asks for the default VFS; SQLite initializes itself when asked.
    let real = unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) };
    assert!(!real.is_null(), "SQLite has a default VFS");
    REAL.store(real, Ordering::Release);
    // SAFETY: a registered VFS is never freed, and its fields do not change.
    let known = unsafe { &*real };
    let size = c_int::try_from(size_of::<OurFile>()).unwrap_or(c_int::MAX);
    let ours = Box::leak(Box::new(ffi::sqlite3_vfs {
        iVersion: 2,
        szOsFile: known.szOsFile.max(size),
        mxPathname: known.mxPathname,
        pNext: std::ptr::null_mut(),
        zName: c"faultdisk".as_ptr(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(open),
        xDelete: Some(delete),
        xAccess: Some(access),
        xFullPathname: Some(full_pathname),
        // The rest has nothing to do with disks, and SQLite's own VFS does not look at which VFS it is called for.
        xDlOpen: known.xDlOpen,
        xDlError: known.xDlError,
        xDlSym: known.xDlSym,
        xDlClose: known.xDlClose,
        xRandomness: known.xRandomness,
        xSleep: known.xSleep,
        xCurrentTime: known.xCurrentTime,
        xGetLastError: known.xGetLastError,
        xCurrentTimeInt64: known.xCurrentTimeInt64,
        xSetSystemCall: None,
        xGetSystemCall: None,
        xNextSystemCall: None,
    }));
    // SAFETY: `ours` lives for ever, and its functions keep the contract of their types.
    let code = unsafe { ffi::sqlite3_vfs_register(ours, 1) };
    assert_eq!(code, ffi::SQLITE_OK, "the VFS cannot be registered");
}

fn real() -> (*mut ffi::sqlite3_vfs, &'static ffi::sqlite3_vfs) {
    let real = REAL.load(Ordering::Acquire);
    // SAFETY: `install` stored it before it registered the functions that ask; a registered VFS is never freed.
    (real, unsafe { &*real })
}

/// # Safety
/// `name` is null or a C string that lives as long as the call.
unsafe fn on_a_disk(name: *const c_char) -> Option<(Arc<Shared>, String)> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    find(unsafe { CStr::from_ptr(name) }.to_str().ok()?)
}

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a null or a C string.
    let Some((disk, name)) = (unsafe { on_a_disk(name) }) else {
        let (vfs, methods) = real();
        // SAFETY: the file is as large as the real VFS wants (see `install`), and the arguments go on as they came.
        return methods
            .xOpen
            .map_or(ffi::SQLITE_CANTOPEN, |open| unsafe { open(vfs, name, file, flags, out_flags) });
    };
    let create = flags & ffi::SQLITE_OPEN_CREATE != 0;
    let handle = disk.state().open(&name, kind(flags), create);
    let handle = match handle {
        Ok(handle) => handle,
        Err(_) => {
            // SAFETY: `file` is ours to fill in; without methods SQLite does not close it.
            unsafe { (*file).pMethods = std::ptr::null() };
            return ffi::SQLITE_CANTOPEN;
        }
    };
    let delete_on_close = flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0;
    let open = Box::new(Open { disk, name, handle, delete_on_close, regions: Vec::new() });
    // SAFETY: `file` has `szOsFile` bytes, which is enough for `OurFile`, and is aligned as C allocates.
    unsafe {
        file.cast::<OurFile>()
            .write(OurFile { base: ffi::sqlite3_file { pMethods: &METHODS }, open: Box::into_raw(open) });
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

fn kind(flags: c_int) -> Kind {
    if flags & ffi::SQLITE_OPEN_MAIN_DB != 0 {
        Kind::Database
    } else if flags & ffi::SQLITE_OPEN_WAL != 0 {
        Kind::Log
    } else if flags & ffi::SQLITE_OPEN_MAIN_JOURNAL != 0 {
        Kind::Journal
    } else {
        Kind::Other
    }
}

unsafe extern "C" fn delete(_vfs: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite gives a C string.
    let Some((disk, on_disk)) = (unsafe { on_a_disk(name) }) else {
        let (vfs, methods) = real();
        // SAFETY: the arguments go on as they came.
        return methods.xDelete.map_or(ffi::SQLITE_IOERR_DELETE, |delete| unsafe { delete(vfs, name, sync) });
    };
    match disk.state().delete(&on_disk, sync != 0) {
        Ok(()) => ffi::SQLITE_OK,
        Err(Error::Missing) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(_) => ffi::SQLITE_IOERR_DELETE,
    }
}

unsafe extern "C" fn access(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a C string.
    let Some((disk, on_disk)) = (unsafe { on_a_disk(name) }) else {
        let (vfs, methods) = real();
        // SAFETY: the arguments go on as they came.
        return methods
            .xAccess
            .map_or(ffi::SQLITE_IOERR_ACCESS, |access| unsafe { access(vfs, name, flags, out) });
    };
    match disk.state().exists(&on_disk) {
        Ok(there) => {
            // SAFETY: SQLite gives a place for the answer.
            unsafe { *out = c_int::from(there) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_ACCESS,
    }
}

unsafe extern "C" fn full_pathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    let (vfs, methods) = real();
    // SAFETY: the arguments go on as they came. What does not exist for the real VFS still has a full name.
    methods.xFullPathname.map_or(ffi::SQLITE_CANTOPEN, |full| unsafe { full(vfs, name, size, out) })
}

/// # Safety
/// `file` was opened by us and not closed, and nobody else uses it during the call: SQLite gives each file to one
/// thread at a time.
unsafe fn ours<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: the caller's promise; `open` made both parts.
    unsafe { &mut *(*file.cast::<OurFile>()).open }
}

fn code(result: Result<(), Error>, io: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Error::Busy) => ffi::SQLITE_BUSY,
        Err(Error::Full) => ffi::SQLITE_FULL,
        Err(Error::Short) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(Error::Io | Error::Missing) => io,
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` made it with `Box::into_raw`, and SQLite closes a file once.
    let open = unsafe { Box::from_raw((*file.cast::<OurFile>()).open) };
    let mut state = open.disk.state();
    state.close(open.handle);
    if open.delete_on_close {
        let _ = state.delete(&open.name, false);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(len), Ok(offset)) = (usize::try_from(amount), usize::try_from(offset)) else {
        return ffi::SQLITE_IOERR_READ;
    };
    // SAFETY: an open file of ours; SQLite gives room for `amount` bytes, which we only write to once zeroed.
    let (open, out) = unsafe {
        into.cast::<u8>().write_bytes(0, len);
        (ours(file), std::slice::from_raw_parts_mut(into.cast::<u8>(), len))
    };
    code(open.disk.state().read(open.handle, offset, out), ffi::SQLITE_IOERR_READ)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    let (Ok(len), Ok(offset)) = (usize::try_from(amount), usize::try_from(offset)) else {
        return ffi::SQLITE_IOERR_WRITE;
    };
    // SAFETY: an open file of ours; SQLite gives `amount` bytes.
    let (open, bytes) = unsafe { (ours(file), std::slice::from_raw_parts(from.cast::<u8>(), len)) };
    code(open.disk.state().write(open.handle, offset, bytes), ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    let Ok(size) = usize::try_from(size) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    code(open.disk.state().truncate(open.handle, size), ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    code(open.disk.state().sync(open.handle), ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, out: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    match open.disk.state().size(open.handle) {
        Ok(size) => {
            // SAFETY: SQLite gives a place for the answer.
            unsafe { *out = ffi::sqlite3_int64::try_from(size).unwrap_or(ffi::sqlite3_int64::MAX) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_FSTAT,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    code(open.disk.state().lock(open.handle, lock_level(level)), ffi::SQLITE_IOERR_LOCK)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    open.disk.state().unlock(open.handle, lock_level(level));
    ffi::SQLITE_OK
}

fn lock_level(level: c_int) -> Level {
    Level::try_from(level).unwrap_or(crate::disk::EXCLUSIVE)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    match open.disk.state().is_reserved(open.handle) {
        Ok(reserved) => {
            // SAFETY: SQLite gives a place for the answer.
            unsafe { *out = c_int::from(reserved) };
            ffi::SQLITE_OK
        }
        Err(_) => ffi::SQLITE_IOERR_CHECKRESERVEDLOCK,
    }
}

unsafe extern "C" fn file_control(_file: *mut ffi::sqlite3_file, _op: c_int, _arg: *mut c_void) -> c_int {
    // None of what may be asked is needed.
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_file: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_TOLD
}

unsafe extern "C" fn device_characteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    // As SQLite's own VFS says: a write spoils no byte beside it. A power cut here keeps to that.
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    index: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let (Ok(index), Ok(bytes)) = (usize::try_from(index), usize::try_from(bytes)) else {
        return ffi::SQLITE_IOERR_SHMMAP;
    };
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    let region = match open.disk.state().map(open.handle, index, bytes, extend != 0) {
        Ok(region) => region,
        Err(_) => return ffi::SQLITE_IOERR_SHMMAP,
    };
    // Atomics may be written to through a shared pointer, and `open.regions` keeps them until the file is unmapped.
    let pointer = region.as_ref().map_or(std::ptr::null_mut(), |region| region.as_ptr().cast_mut().cast());
    if open.regions.len() <= index {
        open.regions.resize(index + 1, None);
    }
    if let (Some(kept), Some(region)) = (open.regions.get_mut(index), region) {
        *kept = Some(region);
    }
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *out = pointer };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(file: *mut ffi::sqlite3_file, offset: c_int, n: c_int, flags: c_int) -> c_int {
    if offset < 0 || n < 1 || offset + n > ffi::SQLITE_SHM_NLOCK {
        return ffi::SQLITE_IOERR_SHMLOCK;
    }
    let mask = u8::try_from((1u32 << (offset + n)) - (1u32 << offset)).unwrap_or(u8::MAX);
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    let take = flags & ffi::SQLITE_SHM_LOCK != 0;
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    let done = open.disk.state().lock_memory(open.handle, mask, exclusive, take);
    code(done, ffi::SQLITE_IOERR_SHMLOCK)
}

unsafe extern "C" fn shm_barrier(_file: *mut ffi::sqlite3_file) {
    std::sync::atomic::fence(Ordering::SeqCst);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: an open file of ours.
    let open = unsafe { ours(file) };
    open.disk.state().unmap(open.handle);
    open.regions.clear();
    ffi::SQLITE_OK
}
