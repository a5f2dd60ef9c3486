//! How much memory do those hold who ask for a page and do not read it? A page that was made belongs to all who ask while
//! many are on their way, so that clients who do not read cannot pile up copies.

use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

/// Pages on their way, read slowly or not at all, until newcomers share.
const FREE: usize = 16;
/// How long a page is shared: with writes that stall for a minute at most, a few dozen pages are held.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// The pages that are on their way.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Vec<(Instant, Bytes)>>);

impl Pages {
    /// A page: a new one, or a young one when many are on their way.
    pub fn get(&self, render: impl FnOnce() -> String) -> Bytes {
        let mut pages = self.0.lock();
        pages.retain(|(_, page)| !page.is_unique());
        if pages.len() >= FREE
            && let Some((_, page)) = pages.last().filter(|(made, _)| made.elapsed() < SHARED_FOR)
        {
            return page.clone();
        }
        drop(pages);
        let page = Bytes::from(render());
        self.0.lock().push((Instant::now(), page.clone()));
        page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_do_not_read_share() {
        let pages = Pages::default();
        let mut made = 0;
        let mut get = |pages: &Pages| {
            pages.get(|| {
                made += 1;
                format!("page {made}")
            })
        };
        for number in 1..=FREE {
            assert_eq!(get(&pages), format!("page {number}"), "read at once");
        }
        let held: Vec<Bytes> = (0..10 * FREE).map(|_| get(&pages)).collect();
        assert_eq!(held.last().map(|p| &p[..]), Some(format!("page {}", 2 * FREE).as_bytes()));
        assert_eq!(pages.0.lock().len(), FREE);
        drop(held);
        assert_eq!(get(&pages), format!("page {}", 2 * FREE + 1));
        assert_eq!(pages.0.lock().len(), 1);
    }
}
