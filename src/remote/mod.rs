//! Placeholder of the room `remote`.
