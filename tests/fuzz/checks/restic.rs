//! Feeds text to what reads restic's output: what is told of it is bounded, on one line, and never says
//! that all is well.

use heartbeat::backup::restic_output::{
    LockFile, RepoError, classify_failure, damage, error_line, had_opened, is_id, parse_lock_ids,
    parse_restore_size, unreadable_snapshots,
};
use heartbeat::clock::Wall;

const NOW: Wall = Wall(1_795_305_600_000);

/// What is told of somebody else's words.
fn check_told(text: &str) {
    assert!(!text.is_empty() && text.chars().count() <= 400, "{text:?}");
    assert!(!text.contains('\n'), "{text:?}");
}

/// Checks one input.
pub fn run(bytes: &[u8]) {
    let Some((code, text)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let (stdout, stderr) = text.split_once('|').unwrap_or(("", &text));
    let code = (*code < 200).then_some(i32::from(*code) % 16);
    check_told(&error_line(stderr));
    match classify_failure(code, stderr) {
        RepoError::Damaged(why) | RepoError::Unreachable(why) | RepoError::Failed(why) => {
            check_told(&why);
        }
        _ => {}
    }
    for (text, _) in [false, true].iter().filter_map(|cut| unreadable_snapshots(stderr, *cut)) {
        check_told(&text);
    }
    if let Some(text) = damage(stderr) {
        check_told(&text);
    }
    let _ = had_opened(stderr);
    if let Some(size) = parse_restore_size(stdout) {
        assert_eq!(parse_restore_size(&format!("{{\"total_size\":{size}}}")), Some(size));
    }
    assert!(parse_lock_ids(stdout).into_iter().all(is_id));
    match LockFile::parse(code, stdout, stderr, NOW) {
        LockFile::Held(_) => assert_eq!(code, Some(0), "restic failed, and there is a lock"),
        LockFile::Unknown(why) => check_told(&why),
        LockFile::Gone | LockFile::Damaged => {}
    }
}
