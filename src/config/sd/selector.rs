//! Is this a label selector of Kubernetes? Requirements with commas between: `a`, `!a`, `a=b`, `a!=b`, `a in (b, c)`,
//! `a notin (b)`, `a>1`.

/// Longest part of a label name or value.
const MAX_PART: usize = 63;
/// Longest prefix of a label name.
const MAX_PREFIX: usize = 253;

/// Splits into operators and words.
fn tokens(text: &str) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let is_special = |c: char| "(),!=<>".contains(c);
        let len = match first {
            _ if rest.starts_with("==") || rest.starts_with("!=") => 2,
            c if is_special(c) => 1,
            _ => rest.find(|c: char| is_special(c) || c.is_whitespace()).unwrap_or(rest.len()),
        };
        out.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    out
}

fn is_word(token: &str) -> bool {
    !token.starts_with(|c| "(),!=<>".contains(c))
}

/// One part of a name, or a value: letters, digits, `-`, `_`, `.`, with a letter or digit at both ends.
fn is_part(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.len() <= MAX_PART && text.bytes().all(inside) && ends.iter().flatten().all(u8::is_ascii_alphanumeric)
}

fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_domain = |prefix: &str| {
        let parts = prefix.split('.');
        prefix.len() <= MAX_PREFIX
            && parts
                .into_iter()
                .all(|p| !p.is_empty() && is_part(p) && !p.contains('_') && p == p.to_lowercase())
    };
    !name.is_empty() && is_part(name) && prefix.is_none_or(is_domain)
}

struct Parser<'t> {
    tokens: std::iter::Peekable<std::vec::IntoIter<&'t str>>,
}

impl<'t> Parser<'t> {
    fn peek(&mut self) -> &'t str {
        self.tokens.peek().copied().unwrap_or("")
    }

    fn next(&mut self) -> &'t str {
        self.tokens.next().unwrap_or("")
    }

    fn expect(&mut self, what: &str) -> Result<(), String> {
        match self.next() {
            found if found == what => Ok(()),
            found => Err(format!("found '{found}' expected: '{what}'")),
        }
    }

    fn value(&mut self) -> Result<&'t str, String> {
        // A missing value is the empty one.
        if matches!(self.peek(), "" | "," | ")") {
            return Ok("");
        }
        match self.next() {
            value if !is_word(value) => Err(format!("found '{value}', expected: identifier")),
            value if is_part(value) => Ok(value),
            value => Err(format!("invalid label value: {value:?}")),
        }
    }

    fn requirement(&mut self) -> Result<(), String> {
        let negated = self.peek() == "!";
        if negated {
            self.next();
        }
        let key = self.next();
        if key.is_empty() || !is_word(key) {
            return Err(format!("found '{key}', expected: identifier"));
        }
        if !is_key(key) {
            return Err(format!("invalid label key {key:?}"));
        }
        if negated || matches!(self.peek(), "" | ",") {
            return Ok(());
        }
        match self.next() {
            "=" | "==" | "!=" => self.value().map(|_| ()),
            sign @ ("<" | ">") => {
                let value = self.value()?;
                let number = value.parse::<i64>().map(|_| ());
                number.map_err(|_| format!("for '{sign}', the value must be an integer, not {value:?}"))
            }
            "in" | "notin" => {
                self.expect("(")?;
                loop {
                    self.value()?;
                    match self.next() {
                        "," => {}
                        ")" => return Ok(()),
                        found => return Err(format!("found '{found}', expected: ',' or ')'")),
                    }
                }
            }
            found => Err(format!("found '{found}', expected: in, notin, =, ==, !=, >, <")),
        }
    }
}

/// Checks a label selector; an empty one selects everything.
pub(super) fn check_label_selector(text: &str) -> Result<(), String> {
    let mut parser = Parser { tokens: tokens(text).into_iter().peekable() };
    while !parser.peek().is_empty() {
        parser.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
        match parser.next() {
            "" => break,
            "," if parser.peek().is_empty() => {
                return Err("unable to parse requirement: found '', expected: identifier after ','".into());
            }
            "," => {}
            found => {
                return Err(format!(
                    "unable to parse requirement: found '{found}', expected: ',' or end of text"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_judged_as_the_api_server_does() {
        for good in [
            "",
            " ",
            "a",
            "!a",
            "a=b",
            "a==b",
            "a!=b",
            "a=",
            "app.kubernetes.io/name = web , tier!=back-end,!old",
            "a in (b, c),d notin (e)",
            "a in ()",
            "a in (,b)",
            "a>1,b<2",
        ] {
            assert_eq!(check_label_selector(good), Ok(()), "{good:?}");
        }
        for bad in [
            "a in b",
            "a in (b",
            "a,",
            ",a",
            "a b",
            "=b",
            "a=b=c",
            "a=b c",
            "-a=b",
            "a=-b",
            "a/b/c=d",
            "A_B/c=d",
            "a>x",
            "a!b",
            "(a)",
            "a=(b)",
            &format!("{}=b", "a".repeat(64)),
            &format!("a={}", "b".repeat(64)),
        ] {
            let error = check_label_selector(bad).expect_err(bad);
            assert!(error.starts_with("unable to parse requirement: "), "{bad:?}: {error}");
        }
    }
}
