//! The search endpoints: which metric names, label names or label values look like what somebody types? Answers are
//! lines of JSON, best or alphabetically first, so that a client can show some while others come.

use axum::response::{IntoResponse, Response};

use super::context::Services;
use super::error::{ApiError, ErrorKind};
use super::json::{self, Object};
use super::params::Params;
use super::reply::stream;
use super::routes::Call;
use super::selectors;
use crate::model::{METRIC_NAME, Matcher};
use crate::query::CancelToken;
use crate::tsdb::LabelQueryHints;

/// Most search terms of one request.
const MAX_TERMS: usize = 32;
/// Longest search term, bytes; comparing costs the product of both lengths.
const MAX_TERM_BYTES: usize = 1024;
const DEFAULT_LIMIT: usize = 100;
const HOUR_MS: i64 = 3_600_000;
const CONTENT: &str = "application/x-ndjson; charset=utf-8";

/// What is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    MetricNames,
    LabelNames,
    LabelValues,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Subsequence,
    JaroWinkler,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
    Score,
}

struct Search {
    sets: Vec<Vec<Matcher>>,
    terms: Vec<String>,
    threshold: f64,
    algorithm: Algorithm,
    case_sensitive: bool,
    order: Order,
    include_score: bool,
    include_metadata: bool,
    label: String,
    start_ms: i64,
    end_ms: i64,
    limit: usize,
    batch: usize,
}

struct Hit {
    name: String,
    score: f64,
}

fn number(
    params: &Params,
    name: &str,
    range: std::ops::RangeInclusive<usize>,
    must: &str,
) -> Result<usize, ApiError> {
    match params.first(name) {
        "" => Ok(0),
        text => text
            .parse()
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| ApiError::bad_data(format!("invalid {name} {text:?}: must be {must}"))),
    }
}

fn switch(params: &Params, name: &str, default: bool) -> Result<bool, ApiError> {
    match params.first(name) {
        "" => Ok(default),
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(ApiError::bad_data(format!("invalid {name} {other:?}: must be boolean"))),
    }
}

impl Search {
    fn parse(call: &Call, subject: Subject) -> Result<Self, ApiError> {
        let params = &call.params;
        let now_ms = call.api.clock.now_ms();
        let start_ms = params.time("start", now_ms - HOUR_MS)?;
        let end_ms = params.time("end", now_ms)?;
        let sets = selectors::of_params(params)?;
        let terms: Vec<String> = params.all("search[]").map(str::to_owned).collect();
        if terms.len() > MAX_TERMS || terms.iter().any(|t| t.len() > MAX_TERM_BYTES) {
            return Err(ApiError::bad_data(format!(
                "too many or too long search[] values: at most {MAX_TERMS} of at most {MAX_TERM_BYTES} bytes each"
            )));
        }
        let threshold = number(params, "fuzz_threshold", 0..=100, "0-100")? as f64 / 100.0;
        let algorithm = match params.first("fuzz_alg") {
            "" | "subsequence" => Algorithm::Subsequence,
            "jarowinkler" => Algorithm::JaroWinkler,
            other => {
                return Err(ApiError::bad_data(format!(
                    "unsupported fuzz_alg {other:?}: must be one of [subsequence jarowinkler]"
                )));
            }
        };
        let case_sensitive = switch(params, "case_sensitive", true)?;
        let include_score = switch(params, "include_score", false)?;
        let order = Self::order(params, subject, terms.is_empty())?;
        let natural = "non-negative integer";
        let limit = match number(params, "limit", 0..=usize::MAX, natural)? {
            0 => DEFAULT_LIMIT,
            n => n,
        };
        let limit = match call.api.options.search_max_limit {
            0 => limit,
            most => limit.min(most),
        };
        let batch = match number(params, "batch_size", 0..=usize::MAX, natural)? {
            0 => DEFAULT_LIMIT,
            n => n,
        };
        let include_metadata = subject == Subject::MetricNames && switch(params, "include_metadata", false)?;
        let label = params.first("label").to_owned();
        if subject == Subject::LabelValues && label.is_empty() {
            return Err(ApiError::bad_data("missing required parameter \"label\""));
        }
        Ok(Self {
            sets,
            terms: terms.into_iter().map(|t| if case_sensitive { t } else { t.to_lowercase() }).collect(),
            threshold,
            algorithm,
            case_sensitive,
            order,
            include_score,
            include_metadata,
            label,
            start_ms,
            end_ms,
            limit,
            batch,
        })
    }

    fn order(params: &Params, subject: Subject, without_terms: bool) -> Result<Order, ApiError> {
        let by = params.first("sort_by");
        let direction = params.first("sort_dir");
        if !direction.is_empty() && by.is_empty() {
            return Err(ApiError::bad_data("sort_dir is only valid when sort_by is set"));
        }
        if !direction.is_empty() && by == "score" {
            return Err(ApiError::bad_data("sort_dir is not supported for sort_by=score"));
        }
        if !["", "asc", "dsc"].contains(&direction) {
            let text = format!("invalid sort_dir {direction:?}: must be \"asc\" or \"dsc\"");
            return Err(ApiError::bad_data(text));
        }
        match by {
            "score" if without_terms => Err(ApiError::bad_data("sort_by=score requires search[] to be set")),
            "score" => Ok(Order::Score),
            "" | "alpha" if direction == "dsc" => Ok(Order::Descending),
            "" | "alpha" => Ok(Order::Ascending),
            other => {
                let what = match subject {
                    Subject::MetricNames => "metric_names",
                    Subject::LabelNames => "label_names",
                    Subject::LabelValues => "label_values",
                };
                Err(ApiError::bad_data(format!(
                    "invalid sort_by {other:?} for {what}: must be \"alpha\" or \"score\""
                )))
            }
        }
    }

    /// The best score of any term; `None` if no term accepts the text.
    fn score(&self, text: &str) -> Option<f64> {
        if self.terms.is_empty() {
            return Some(1.0);
        }
        let lower;
        let text = if self.case_sensitive {
            text
        } else {
            lower = text.to_lowercase();
            &lower
        };
        let scores = self.terms.iter().filter_map(|term| match self.algorithm {
            _ if term.is_empty() || text.starts_with(term.as_str()) => Some(1.0),
            Algorithm::Subsequence => {
                subsequence(term, text).filter(|score| *score > 0.0 && *score >= self.threshold)
            }
            Algorithm::JaroWinkler if text.contains(term.as_str()) => Some(0.9),
            Algorithm::JaroWinkler => {
                let score = jaro_winkler(term, text);
                (self.threshold > 0.0 && score >= self.threshold).then_some(score)
            }
        });
        scores.max_by(f64::total_cmp)
    }

    /// The hits in order, one more than the limit if there are more.
    fn hits(&self, services: &Services, subject: Subject) -> Result<Vec<Hit>, ApiError> {
        let querier = services.queryable.querier(self.start_ms, self.end_ms)?;
        let hints = LabelQueryHints { limit: 0 };
        let ask = |matchers: &[Matcher]| match subject {
            Subject::MetricNames => querier.label_values(METRIC_NAME, matchers, &hints),
            Subject::LabelNames => querier.label_names(matchers, &hints),
            Subject::LabelValues => querier.label_values(&self.label, matchers, &hints),
        };
        let mut names = Vec::new();
        if self.sets.is_empty() {
            names = ask(&[])?;
        }
        for matchers in &self.sets {
            names.append(&mut ask(matchers)?);
        }
        if self.sets.len() > 1 {
            names.sort_unstable();
            names.dedup();
        }
        if self.order == Order::Descending {
            names.reverse();
        }
        let scored = names.into_iter().filter_map(|name| self.score(&name).map(|score| Hit { name, score }));
        if self.order == Order::Score {
            let mut hits: Vec<Hit> = scored.collect();
            hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.name.cmp(&b.name)));
            hits.truncate(self.limit.saturating_add(1));
            return Ok(hits);
        }
        Ok(scored.take(self.limit.saturating_add(1)).collect())
    }

    fn write_hit(&self, services: &Services, hit: &Hit, out: &mut Vec<u8>) {
        let mut object = Object::open(out);
        object.text("name", &hit.name);
        if self.include_score {
            object.float("score", hit.score);
        }
        if self.include_metadata
            && let Some(found) = services.targets.metadata(Some(&hit.name)).first()
        {
            let texts = [
                ("type", found.metadata.metric_type.as_str()),
                ("help", &found.metadata.help),
                ("unit", &found.metadata.unit),
            ];
            for (name, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
                object.text(name, text);
            }
        }
        object.close();
    }
}

/// How well `term` is spread over `text`, in order, greedily from the left: 1 when it stands there in one piece and
/// is all there is, less for gaps and for a longer text; `None` when a character is missing.
fn subsequence(term: &str, text: &str) -> Option<f64> {
    let mut wanted = term.chars().peekable();
    let (mut length, mut matched, mut runs) = (0usize, 0usize, 0usize);
    let mut in_run = false;
    // In one piece somewhere beats a scattered first match.
    let whole = text.contains(term);
    for c in text.chars() {
        length += 1;
        if wanted.next_if_eq(&c).is_some() {
            matched += 1;
            runs += usize::from(!in_run);
            in_run = true;
        } else {
            in_run = false;
        }
    }
    if wanted.peek().is_some() {
        return None;
    }
    let runs = if whole { 1 } else { runs };
    let cohesion = 1.0 / runs.max(1) as f64;
    let coverage = matched as f64 / length.max(1) as f64;
    Some(0.75 * cohesion + 0.25 * coverage)
}

/// Similarity of Jaro and Winkler: 1 for equal texts, 0 for texts without common characters.
fn jaro_winkler(a: &str, b: &str) -> f64 {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.is_empty() || b.is_empty() {
        return f64::from(u8::from(a.len() == b.len()));
    }
    let reach = (a.len().max(b.len()) / 2).saturating_sub(1);
    let mut taken = vec![false; b.len()];
    let mut from_a = Vec::new();
    for (i, c) in a.iter().enumerate() {
        let range = i.saturating_sub(reach)..(i + reach + 1).min(b.len());
        if let Some(j) = range.into_iter().find(|j| !taken[*j] && b[*j] == *c) {
            taken[j] = true;
            from_a.push(*c);
        }
    }
    if from_a.is_empty() {
        return 0.0;
    }
    let from_b = b.iter().zip(&taken).filter(|(_, taken)| **taken).map(|(c, _)| c);
    let moved = from_a.iter().zip(from_b).filter(|(x, y)| x != y).count() as f64 / 2.0;
    let m = from_a.len() as f64;
    let jaro = (m / a.len() as f64 + m / b.len() as f64 + (m - moved) / m) / 3.0;
    let prefix = a.iter().zip(&b).take(4).take_while(|(x, y)| x == y).count() as f64;
    jaro + prefix * 0.1 * (1.0 - jaro)
}

async fn search(call: Call, subject: Subject) -> Response {
    if !call.api.options.search_api {
        return ApiError::new(ErrorKind::Unavailable, "search API disabled").into_response();
    }
    let search = match Search::parse(&call, subject) {
        Ok(search) => search,
        Err(error) => return error.into_response(),
    };
    stream(CONTENT, CancelToken::default(), move |out| {
        let mut hits = search.hits(&call.services, subject)?;
        let more = hits.len() > search.limit;
        hits.truncate(search.limit);
        // Without hits there is one empty batch.
        let batches = hits.chunks(search.batch.max(1)).chain(hits.is_empty().then_some(&[][..]));
        for batch in batches {
            let mut object = Object::open(&mut out.buf);
            json::list(object.key("results"), batch, |out, hit| {
                search.write_hit(&call.services, hit, out);
            });
            object.close();
            out.raw("\n");
            out.flush_if_full();
        }
        let mut object = Object::open(&mut out.buf);
        object.text("status", "success").boolean("has_more", more);
        object.close();
        out.raw("\n");
        Ok(())
    })
    .await
}

/// `/api/v1/search/metric_names`
pub async fn metric_names(call: Call) -> Response {
    search(call, Subject::MetricNames).await
}

/// `/api/v1/search/label_names`
pub async fn label_names(call: Call) -> Response {
    search(call, Subject::LabelNames).await
}

/// `/api/v1/search/label_values`
pub async fn label_values(call: Call) -> Response {
    search(call, Subject::LabelValues).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn better_matches_score_higher() {
        let score = |text: &str| subsequence("cpu", text);
        assert_eq!(score("memory"), None);
        assert_eq!(score("up"), None);
        let one_piece = score("node_cpu_seconds").expect("contained");
        let scattered = score("container_processes_usage").expect("in order");
        assert!(one_piece > scattered, "{one_piece} {scattered}");
        assert!(score("cpu_x").expect("contained") > one_piece, "shorter is closer");
    }

    #[test]
    fn jaro_winkler_of_the_literature() {
        for (a, b, want) in [
            ("martha", "marhta", 0.961_111),
            ("dwayne", "duane", 0.84),
            ("dixon", "dicksonx", 0.813_333),
            ("a", "b", 0.0),
            ("same", "same", 1.0),
        ] {
            let got = jaro_winkler(a, b);
            assert!((got - want).abs() < 1e-5, "{a} {b}: {got}");
        }
    }
}
