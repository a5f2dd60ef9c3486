//! How does the allocator treat memory that was given back? It returns it to the system soon.

/// `mi_option_purge_delay` of mimalloc 2 and 3, which the crate does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
/// Milliseconds. The default, a second, keeps what one large query left behind while the next one already takes its own;
/// over dashboard-like queries that was half again as much memory, for no processor time that could be measured.
const DELAY_MS: std::ffi::c_long = 10;

/// Sets what differs from the defaults; called before anything large is allocated.
#[expect(unsafe_code, reason = "options of the allocator can only be set through its C interface")]
pub fn set_up() {
    // SAFETY: the function writes one integer into the allocator's table of options, for an option within that table;
    // no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, DELAY_MS) }
}

#[cfg(test)]
mod tests {
    #[test]
    #[expect(unsafe_code, reason = "options of the allocator can only be read through its C interface")]
    fn the_option_is_the_one_meant() {
        // SAFETY: reads one integer out of the allocator's table of options.
        let delay = || unsafe { libmimalloc_sys::mi_option_get(super::PURGE_DELAY) };
        assert_eq!(delay(), 1000, "the default of the delay, by which the option is recognised");
        super::set_up();
        assert_eq!(delay(), super::DELAY_MS);
    }
}
