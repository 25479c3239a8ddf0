//! Which name services a static build asks.

/// Host names are looked up in `/etc/hosts` and in the DNS, and nowhere else.
///
/// These two are in the C library itself. What `/etc/nsswitch.conf` may name besides (`resolve`,
/// `mdns4_minimal`) is a library of the system, which glibc would load, with the system's own C library,
/// into a program that has another one in it: that ends in crashes. To be called at the start.
#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
pub fn use_built_in() {
    use std::ffi::{c_char, c_int};

    unsafe extern "C" {
        /// `nss.h` of glibc.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }
    // SAFETY: both texts end with a zero and live for ever, and no other thread runs yet. It fails only
    // without memory, and changes nothing then.
    unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
}

/// The C library of the system decides, as for every other program.
#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
pub fn use_built_in() {}
