//! Placeholder of the room `scrape`.
