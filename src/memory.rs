//! What the process asks of the allocator and the kernel: few arenas, and unused pages given back
//! (mallopt(3), malloc_trim(3), madvise(2)).

use libc::{c_int, c_void, dl_phdr_info, size_t};

/// A larger segment is not split: a program without optimization would become thousands of mappings,
/// each of which costs the kernel some 200 bytes.
const MAX_MAPPINGS: usize = 512;

/// All threads that start from now on share `arenas` arenas. glibc would make eight for each
/// processor, each of which grows page by page, with a system call a page, and gives little back
/// (mallopt(3), `M_ARENA_MAX`). To be called before any thread starts.
pub fn limit_arenas(arenas: c_int) {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers; what it returns only says whether it knew the first.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, arenas);
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    let _ = arenas;
}

/// A block from this size on is a mapping of its own, and goes back to the kernel when it is freed.
/// glibc would raise the limit to 32 MB with the first large block that is freed, and keep as much.
const MAPPED_BLOCK: c_int = 128 * 1024;
/// As much free memory at the end of an arena is kept.
const KEPT_AT_END: c_int = 1024 * 1024;
/// So much free memory that is resident is worth a search for whole pages that are free.
const WORTH_RELEASE: usize = 4 * 1024 * 1024;

/// Large blocks go back to the kernel when they are freed (mallopt(3)): a burst must not be remembered
/// in memory. To be called before any thread starts.
pub fn release_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers; what it returns only says whether it knew the first.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_BLOCK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_AT_END);
    }
}

/// Gives free memory between blocks that are in use back to the kernel, where it is much.
#[derive(Debug, Default)]
pub struct FreeMemory {
    /// How much was left after the last time.
    left: usize,
}

impl FreeMemory {
    /// Gives it back where that is worth it. To be called now and then.
    pub fn release(&mut self) {
        let Some(free) = free_resident() else { return };
        self.left = self.left.min(free);
        if free > self.left + WORTH_RELEASE {
            trim();
            self.left = free_resident().unwrap_or(free);
        }
    }
}

/// How many bytes of this process are resident and no block of the allocator: free ones, mostly (proc(5),
/// mallinfo2(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn free_resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_whitespace().skip(1).map_while(|field| field.parse::<usize>().ok());
    let own = pages.next()?.saturating_sub(pages.next()?);
    // SAFETY: neither takes a pointer.
    let (page, heap) = unsafe { (libc::sysconf(libc::_SC_PAGESIZE), libc::mallinfo2()) };
    let page = usize::try_from(page).ok()?;
    Some((own * page).saturating_sub(heap.uordblks + heap.hblkhd))
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn free_resident() -> Option<usize> {
    None
}

/// Returns to the kernel what is free memory of the allocator (malloc_trim(3)).
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only touches what the allocator knows to be free.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Splits the program's read-only segments into mappings of `size` bytes. On a fault in a page of code
/// the kernel maps up to 64 kB around it that are in the page cache, but never beyond the mapping; the
/// code that runs is spread over the whole program. To be called before most of it has run: no page
/// is given back, which a disk that fails would not give again.
///
/// Its libraries are left alone: other processes share them.
pub fn split_program(size: usize) {
    let mut size = size;
    // SAFETY: the callback takes what it is promised to get, and keeps nothing.
    unsafe {
        libc::dl_iterate_phdr(Some(split_segments), (&raw mut size).cast());
    }
}

unsafe extern "C" fn split_segments(
    object: *mut dl_phdr_info,
    _: size_t,
    size: *mut c_void,
) -> c_int {
    // SAFETY: the loader gives a live object, and the size is passed on.
    let (object, size) = unsafe { (&*object, *size.cast::<usize>()) };
    if !object.dlpi_phdr.is_null() {
        // SAFETY: there are as many headers as it says (dl_iterate_phdr(3)).
        let headers =
            unsafe { std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        // SAFETY: it takes no pointer.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(1) as usize;
        for header in headers {
            if header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0 {
                let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
                let end = start.wrapping_add(header.p_memsz as usize);
                split_mapping(start / page * page, end, size.max(page));
            }
        }
    }
    // The program comes first: no other object is looked at.
    1
}

/// Splits a mapping into mappings of `size` bytes: every other one differs in whether it goes into a
/// core dump, where of code only the first page is looked for (core(5)).
fn split_mapping(start: usize, end: usize, size: usize) {
    if end - start > MAX_MAPPINGS * size {
        return;
    }
    for at in ((start + 1).next_multiple_of(size)..end).step_by(2 * size) {
        let length = end.min(at + size) - at;
        // SAFETY: what is read there afterwards is what was read before.
        unsafe {
            libc::madvise(at as *mut c_void, length, libc::MADV_DONTDUMP);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use super::*;

    /// Maps a file of `pages` pages; its address, and a count of the mappings that it is in.
    fn mapped(pages: usize) -> (usize, impl Fn() -> usize) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let length = pages * 4096;
        file.write_all(&vec![7; length]).unwrap();
        let open = File::open(file.path()).unwrap();
        // SAFETY: a new mapping, which is never unmapped.
        let start = unsafe {
            let (read, private) = (libc::PROT_READ, libc::MAP_PRIVATE);
            libc::mmap(std::ptr::null_mut(), length, read, private, open.as_raw_fd(), 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        let name = file.path().to_str().unwrap().to_owned();
        let count = move || {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            maps.lines().filter(|line| line.contains(&name)).count()
        };
        (start as usize, count)
    }

    #[test]
    fn a_mapping_becomes_many_and_reads_as_before() {
        let (start, count) = mapped(32);
        assert_eq!(count(), 1);
        split_mapping(start, start + 32 * 4096, 4 * 4096);
        assert!((8..=9).contains(&count()), "{}", count());
        // SAFETY: it is mapped, and read-only.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, 32 * 4096) };
        assert!(bytes.iter().all(|byte| *byte == 7));
        split_mapping(start, start + 32 * 4096, 4 * 4096);
        assert!((8..=9).contains(&count()), "twice is as once");
    }

    #[test]
    fn what_would_become_thousands_stays() {
        let (start, count) = mapped(1024);
        split_mapping(start, start + 1024 * 4096, 4096);
        assert_eq!(count(), 1);
    }

    #[test]
    fn a_program_that_is_split_goes_on() {
        split_program(16 * 1024);
        split_program(16 * 1024);
        trim();
        assert_eq!("still here".to_owned(), format!("still {}", "here"));
    }
}
