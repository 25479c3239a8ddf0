//! What the allocator keeps. Alone in its process: others would allocate meanwhile.

use std::fs;

use heartbeat::memory::FreeMemory;

/// The anonymous pages of this process that are resident (proc(5)).
fn anonymous_pages() -> usize {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    let fields: Vec<usize> = text.split_whitespace().map(|field| field.parse().unwrap()).collect();
    fields[1] - fields[2]
}

#[test]
fn memory_between_blocks_that_are_in_use_was_kept() {
    // Every hundredth of many small blocks stays.
    let blocks: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; 1000]).collect();
    let kept: Vec<_> = blocks.into_iter().step_by(100).collect();
    let before = anonymous_pages();
    FreeMemory::default().release();
    let after = anonymous_pages();
    assert!(after < before / 2, "{before} {after} pages, {} blocks in use", kept.len());
}
