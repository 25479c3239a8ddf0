//! How the process gets its memory.

/// So many arenas are shared by all threads. glibc would make eight for each processor, each of which grows page
/// by page, with a system call a page, and gives little back (mallopt(3)).
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const ARENAS: libc::c_int = 2;

/// Lets the threads that are started from now on share the memory that others gave back.
pub fn share() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes two numbers; what it returns only says whether it knew the first.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, ARENAS);
    }
}
