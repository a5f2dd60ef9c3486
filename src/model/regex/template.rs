//! Go's replacement templates (`regexp.Expand`): `$1`, `${1}`, `$name`, `${name}`, `$$`. A name without braces
//! is as long as possible, so `$1x` means the group called `1x`; unknown groups are empty.

/// Appends `template` with its references resolved. `group` answers with the text of a group by index; `names`
/// are the names of the groups.
pub(super) fn expand<'t>(
    template: &str,
    names: &[Option<Box<str>>],
    group: impl Fn(usize) -> Option<&'t str>,
    out: &mut String,
) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let Some((name, after)) = reference(after) else {
            // No reference: the sign stands for itself.
            out.push('$');
            rest = after;
            continue;
        };
        rest = after;
        let text = match index(name) {
            Some(index) => group(index),
            None => names
                .iter()
                .enumerate()
                .filter(|(_, n)| n.as_deref() == Some(name))
                .find_map(|(index, _)| group(index)),
        };
        out.push_str(text.unwrap_or(""));
    }
    out.push_str(rest);
}

/// Splits the name of a reference off the text behind its `$`.
fn reference(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('{');
    let from = inner.unwrap_or(text);
    let end = from.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(from.len());
    let (name, rest) = from.split_at(end);
    if name.is_empty() {
        return None;
    }
    if inner.is_some() { rest.strip_prefix('}').map(|rest| (name, rest)) } else { Some((name, rest)) }
}

/// A number without leading zeros and below 10⁹ is an index.
fn index(name: &str) -> Option<usize> {
    let digits = name.bytes().all(|b| b.is_ascii_digit());
    if !digits || name.len() > 9 || (name.len() > 1 && name.starts_with('0')) {
        return None;
    }
    name.parse().ok()
}
