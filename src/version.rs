//! Which build this is. Pure.

/// The version of the package.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that it was built from, with a `+` behind it when files differed from it;
/// `development` in builds for development, `unknown` where there was no repository.
pub const COMMIT: &str = env!("HEARTBEAT_COMMIT");
/// The machine that it was built for, as Rust calls it.
const TARGET: &str = env!("HEARTBEAT_TARGET");

/// What `--version` prints.
pub fn lines(program: &str, features: &[&str]) -> String {
    format!("{program} {VERSION} ({COMMIT}, {TARGET})\nfeatures: {}\n", features.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_program_version_and_commit() {
        let text = lines("hbd", &["email", "tls"]);
        let (first, second) = text.split_once('\n').unwrap();
        assert!(first.starts_with(&format!("hbd {VERSION} ({COMMIT}, ")), "{first}");
        assert_eq!(second, "features: email tls\n");
    }
}
