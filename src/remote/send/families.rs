//! What is known of metric families, for messages that carry metadata: asked from targets and storage now and then,
//! looked up by metric name in between.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::model::metadata::{Metadata, MetricType};
use crate::remote::write_encode::FamilyMetadata;

/// Tells what is known now.
pub trait MetadataSource: Send + Sync {
    /// Metadata by family, each family once.
    fn families(&self) -> Vec<(String, Metadata)>;
}

type Table = HashMap<String, Arc<Metadata>, foldhash::fast::RandomState>;

/// The last answer of a source.
#[derive(Default)]
pub struct Families(ArcSwap<Table>);

impl Families {
    /// Asks again.
    pub fn refresh(&self, source: &dyn MetadataSource) {
        let table = source.families().into_iter().map(|(name, m)| (name, Arc::new(m))).collect();
        self.0.store(Arc::new(table));
    }
}

/// Suffixes of the parts of a family, and of which types they are.
const SUFFIXES: [(&str, &[MetricType]); 6] = [
    ("_bucket", &[MetricType::Histogram, MetricType::GaugeHistogram]),
    ("_count", &[MetricType::Histogram, MetricType::GaugeHistogram, MetricType::Summary]),
    ("_sum", &[MetricType::Histogram, MetricType::GaugeHistogram, MetricType::Summary]),
    ("_total", &[MetricType::Counter]),
    ("_info", &[MetricType::Info]),
    ("_created", &[MetricType::Counter, MetricType::Histogram, MetricType::Summary]),
];

impl FamilyMetadata for Families {
    fn of_metric(&self, metric_name: &str) -> Option<Arc<Metadata>> {
        let table = self.0.load();
        if let Some(found) = table.get(metric_name) {
            return Some(Arc::clone(found));
        }
        SUFFIXES.iter().find_map(|(suffix, types)| {
            let found = table.get(metric_name.strip_suffix(suffix)?)?;
            types.contains(&found.metric_type).then(|| Arc::clone(found))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl MetadataSource for Fixed {
        fn families(&self) -> Vec<(String, Metadata)> {
            let of =
                |name: &str, metric_type| (name.to_owned(), Metadata { metric_type, ..Metadata::default() });
            vec![of("h", MetricType::Histogram), of("g", MetricType::Gauge), of("c", MetricType::Counter)]
        }
    }

    #[test]
    fn parts_belong_to_their_family() {
        let families = Families::default();
        assert!(families.of_metric("h").is_none());
        families.refresh(&Fixed);
        let kind = |name: &str| families.of_metric(name).map(|m| m.metric_type);
        assert_eq!(kind("h_bucket"), Some(MetricType::Histogram));
        assert_eq!(kind("h"), Some(MetricType::Histogram));
        assert_eq!(kind("g_count"), None);
        assert_eq!(kind("c_total"), Some(MetricType::Counter));
    }
}
