//! The language of the scripts: `clear`, `load`, `eval` and what may stand below them.

use meerkat::model::duration::parse_duration_ms;
use meerkat::query::parse::series::{SequenceValue, SeriesDescription, parse_series};
use meerkat::query::parse::unquote;

/// A command and the line it stands on, from 1.
#[derive(Debug)]
pub struct Command {
    pub line: usize,
    pub kind: Kind,
}

#[derive(Debug)]
pub enum Kind {
    Clear,
    Load { step_ms: i64, nhcb: bool, series: Vec<LoadSeries> },
    Eval(Box<Eval>),
}

/// A series to load; start timestamps relative to the samples, if any.
#[derive(Debug)]
pub struct LoadSeries {
    pub series: SeriesDescription,
    pub starts: Vec<Option<i64>>,
}

#[derive(Debug, Clone, Copy)]
pub enum Times {
    Instant(i64),
    Range { start: i64, end: i64, step: i64 },
}

/// One expectation about a text.
#[derive(Debug, Clone)]
pub enum Text {
    Any,
    Equal(String),
    Matches(String),
}

impl Text {
    pub fn holds(&self, text: &str) -> bool {
        match self {
            Text::Any => true,
            Text::Equal(want) => want == text,
            Text::Matches(pattern) => {
                meerkat::model::regex::GoRegex::new(pattern).is_ok_and(|r| r.is_match(text))
            }
        }
    }
}

/// What an evaluation must come out as.
#[derive(Debug, Default)]
pub struct Eval {
    pub times: Option<Times>,
    pub query: String,
    pub fail: Option<Text>,
    pub warn: Vec<Text>,
    pub info: Vec<Text>,
    pub no_warn: bool,
    pub no_info: bool,
    pub ordered: bool,
    pub string: Option<String>,
    /// Start, end and step of an expected range vector.
    pub range_vector: Option<(i64, i64, i64)>,
    pub scalar: Option<f64>,
    pub series: Vec<SeriesDescription>,
}

type Parsed<T> = Result<T, String>;

/// Reads a whole script.
pub fn parse(text: &str) -> Parsed<Vec<Command>> {
    let lines: Vec<&str> =
        text.split('\n').map(str::trim).map(|l| if l.starts_with('#') { "" } else { l }).collect();
    let mut out = Vec::new();
    let mut i = 0;
    while i < lines.len() {
        let (line, header) = (i + 1, lines[i]);
        i += 1;
        if header.is_empty() {
            continue;
        }
        let first = header.split_whitespace().next().unwrap_or("");
        let kind = if first == "clear" {
            Ok(Kind::Clear)
        } else if first == "load" || first == "load_with_nhcb" {
            let block = block(&lines, &mut i);
            load(header, &block)
        } else if first.starts_with("eval") {
            let start = i;
            let mut rows = block(&lines, &mut i);
            // A bare number ends the block.
            if let Some(at) = rows.iter().position(|row| number(row).is_some()) {
                rows.truncate(at + 1);
                i = start + at + 1;
            }
            eval(first, header, &rows).map(|e| Kind::Eval(Box::new(e)))
        } else {
            Err(format!("unknown command {first:?}"))
        };
        out.push(Command { line, kind: kind.map_err(|e| format!("line {line}: {e}"))? });
    }
    Ok(out)
}

fn block<'a>(lines: &[&'a str], i: &mut usize) -> Vec<&'a str> {
    let start = *i;
    while *i < lines.len() && !lines[*i].is_empty() {
        *i += 1;
    }
    lines[start..*i].to_vec()
}

fn duration(text: &str) -> Parsed<i64> {
    parse_duration_ms(text)
}

fn load(header: &str, rows: &[&str]) -> Parsed<Kind> {
    let mut words = header.split_whitespace();
    let nhcb = words.next() == Some("load_with_nhcb");
    let step_ms = duration(words.next().ok_or("load needs a step")?)?;
    let mut series = Vec::new();
    let mut starts: Option<Vec<Option<i64>>> = None;
    for row in rows {
        let head = row.split_whitespace().next().unwrap_or("");
        if head.ends_with("@st") {
            let at = row.find("@st").ok_or("no @st")?;
            starts = Some(start_times(&row[at + 3..])?);
            continue;
        }
        let parsed = parse_series(row).map_err(|e| format!("{row}: {e}"))?;
        let starts = starts.take().unwrap_or_default();
        if !starts.is_empty() && starts.len() != parsed.values.len() {
            return Err(format!("{row}: {} values but {} start times", parsed.values.len(), starts.len()));
        }
        // Of a series given twice in one block the last line counts.
        series.retain(|s: &LoadSeries| s.series.labels != parsed.labels);
        series.push(LoadSeries { series: parsed, starts });
    }
    Ok(Kind::Load { step_ms, nhcb, series })
}

/// A signed duration of one number and one unit at the front of `text`, and the rest.
fn signed_duration(text: &str) -> Parsed<(i64, &str)> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let letters = rest[digits..].bytes().take_while(|b| b.is_ascii_alphabetic() && *b != b'x').count();
    let (duration_text, rest) = rest.split_at(digits + letters);
    let ms = duration(duration_text)?;
    Ok((if negative { -ms } else { ms }, rest))
}

fn start_times(text: &str) -> Parsed<Vec<Option<i64>>> {
    let mut out = Vec::new();
    let times = |text: &str| text.parse::<usize>().map_err(|e| format!("{text}: {e}"));
    for item in text.split_whitespace() {
        if let Some(rest) = item.strip_prefix('_') {
            let n = if rest.is_empty() { 1 } else { times(rest.trim_start_matches('x'))? };
            out.extend(std::iter::repeat_n(None, n));
            continue;
        }
        let (mut value, rest) = signed_duration(item)?;
        let (step, rest) = if rest.starts_with(['+', '-']) { signed_duration(rest)? } else { (0, rest) };
        let n = match rest.strip_prefix('x') {
            Some(n) => times(n)?,
            None => 0,
        };
        out.push(Some(value));
        for _ in 0..n {
            value += step;
            out.push(Some(value));
        }
    }
    Ok(out)
}

fn number(row: &str) -> Option<f64> {
    let lower = row.to_ascii_lowercase();
    let (negative, unsigned) = match lower.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, lower.strip_prefix('+').unwrap_or(&lower)),
    };
    let value = match unsigned {
        "inf" => f64::INFINITY,
        "nan" => f64::NAN,
        other if other.starts_with(|c: char| c.is_ascii_digit() || c == '.') => other.parse().ok()?,
        _ => return None,
    };
    Some(if negative { -value } else { value })
}

fn eval(command: &str, header: &str, rows: &[&str]) -> Parsed<Eval> {
    let mut eval = Eval { ordered: command == "eval_ordered", ..Eval::default() };
    match command {
        "eval" | "eval_ordered" => {}
        "eval_fail" => eval.fail = Some(Text::Any),
        "eval_warn" => eval.warn.push(Text::Any),
        "eval_info" => eval.info.push(Text::Any),
        other => return Err(format!("unknown command {other:?}")),
    }
    let mut rest = header;
    let mut word = || -> &str {
        let trimmed = rest.trim_start();
        let end = trimmed.find(char::is_whitespace).unwrap_or(trimmed.len());
        rest = &trimmed[end..];
        &trimmed[..end]
    };
    word();
    let times = match (word(), word()) {
        ("instant", "at") => Times::Instant(duration(word())?),
        ("range", "from") => {
            let start = duration(word())?;
            word();
            let end = duration(word())?;
            word();
            Times::Range { start, end, step: duration(word())? }
        }
        other => return Err(format!("cannot read {other:?}")),
    };
    eval.times = Some(times);
    eval.query = rest.trim().to_owned();
    for row in rows {
        if let Some(text) = row.strip_prefix("expected_fail_message") {
            eval.fail = Some(Text::Equal(text.trim().to_owned()));
        } else if let Some(text) = row.strip_prefix("expected_fail_regexp") {
            eval.fail = Some(Text::Matches(text.trim().to_owned()));
        } else if row.split_whitespace().next() == Some("expect") {
            expect(&mut eval, row["expect".len()..].trim())?;
        } else if let Some(value) = number(row) {
            eval.scalar = Some(value);
        } else {
            eval.series.push(parse_series(row).map_err(|e| format!("{row}: {e}"))?);
        }
    }
    Ok(eval)
}

fn expect(eval: &mut Eval, text: &str) -> Parsed<()> {
    let (what, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let condition = || -> Parsed<Text> {
        if rest.is_empty() {
            Ok(Text::Any)
        } else if let Some(text) = rest.strip_prefix("msg:") {
            Ok(Text::Equal(text.trim().to_owned()))
        } else if let Some(text) = rest.strip_prefix("regex:") {
            Ok(Text::Matches(text.trim().to_owned()))
        } else {
            Err(format!("cannot read expect {text}"))
        }
    };
    match what {
        "fail" => eval.fail = Some(condition()?),
        "warn" => eval.warn.push(condition()?),
        "info" => eval.info.push(condition()?),
        "no_warn" => eval.no_warn = true,
        "no_info" => eval.no_info = true,
        "ordered" => eval.ordered = true,
        "string" => eval.string = Some(unquote(rest).ok_or_else(|| format!("cannot read {rest}"))?),
        "range" => {
            let words: Vec<&str> = rest.split_whitespace().collect();
            let ["vector", "from", start, "to", end, "step", step] = words.as_slice() else {
                return Err(format!("cannot read expect {text}"));
            };
            eval.range_vector = Some((duration(start)?, duration(end)?, duration(step)?));
        }
        _ => return Err(format!("cannot read expect {text}")),
    }
    Ok(())
}

/// Whether a sequence position asks for a point.
pub fn is_point(value: &SequenceValue) -> bool {
    !matches!(value, SequenceValue::Omitted)
}
