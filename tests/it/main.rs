//! Tests that see Meerkat from outside: the real binary over HTTP, conformance data, and the tidiness of the
//! repository itself. One test binary, so that linking is paid once.

mod exposition_conformance;
mod config_conformance;
mod relabel_conformance;
mod tidy;
