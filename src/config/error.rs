//! What is wrong with a configuration, and where? Every fault found, each with its place and the line it is on.

use std::fmt;

use super::yaml::Position;

/// One fault.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigError {
    /// The file as it was named, empty for text without a file.
    pub file: String,
    /// Where in the file; line 0 when the fault has no place.
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// The line of the file, secrets blanked out.
    pub excerpt: Option<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, message, excerpt } = self;
        if file.is_empty() {
            write!(f, "{message}")?;
        } else {
            write!(f, "parsing YAML file {file}: {message}")?;
        }
        if at.line == 0 {
            return Ok(());
        }
        let shown = if file.is_empty() { "text" } else { file };
        write!(f, "\n  --> {shown}:{}:{}", at.line, at.column)?;
        if let Some(excerpt) = excerpt {
            let number = at.line.to_string();
            let indent = " ".repeat(number.len());
            let caret = " ".repeat(at.column.saturating_sub(1).min(200) as usize);
            write!(f, "\n{indent} |\n{number} | {excerpt}\n{indent} | {caret}^")?;
        }
        Ok(())
    }
}

/// Why a configuration was refused: all faults that were found, in the order of the file.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// A single fault without a place, for files that cannot be read at all.
    pub fn without_place(file: &str, message: impl Into<String>) -> Self {
        Self(vec![ConfigError {
            file: file.into(),
            at: Position::default(),
            message: message.into(),
            excerpt: None,
        }])
    }
}

const SECRET_WORDS: [&str; 8] =
    ["password", "secret", "token", "credentials", "_key", "key:", "bearer", "authorization"];

/// The line `at` of `text`, with the value blanked out when its key looks like that of a secret and passwords in
/// URLs removed.
pub(super) fn excerpt(text: &str, at: Position) -> Option<String> {
    let line = text.lines().nth(usize::try_from(at.line.checked_sub(1)?).ok()?)?;
    let lower = line.to_ascii_lowercase();
    let secret = SECRET_WORDS.iter().any(|word| lower.contains(word)) && !lower.contains("_file:");
    if secret {
        let key = line.find(':').map_or("", |i| &line[..=i]);
        return Some(format!("{key} <secret>"));
    }
    if let (Some(scheme), Some(host)) = (line.find("://"), line.rfind('@'))
        && scheme < host
    {
        return Some(format!("{}<secret>{}", &line[..scheme + 3], &line[host..]));
    }
    Some(line.chars().take(200).collect())
}
