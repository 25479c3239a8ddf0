//! An agent shall not be felt on a small machine: the allocator of the C library is told to save.

/// All threads share one arena: by default each gets one of its own, with pages of its own, for a
/// speed that nobody needs here (mallopt(3), M_ARENA_MAX). To be called before any thread starts.
pub fn share_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only sets a parameter of the allocator.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives back what reading the configuration took (malloc_trim(3)).
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it only touches what the allocator knows to be free.
    unsafe {
        libc::malloc_trim(0);
    }
}
