//! Relabelling: rules that rewrite, keep or drop a label set.
