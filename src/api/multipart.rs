//! Which texts does a multipart form hold? Go's server takes `multipart/form-data` wherever it takes plain forms, and so
//! scripts with `curl -F query=…` work. Files in a form are left out.

/// The boundary that a content type names, if it is one of multipart forms.
pub fn boundary(content_type: &str) -> Option<&str> {
    let (kind, rest) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    parameter(rest, "boundary").filter(|b| !b.is_empty())
}

/// The value of a parameter of a header, without quotation marks.
fn parameter<'a>(parameters: &'a str, wanted: &str) -> Option<&'a str> {
    parameters.split(';').find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim().eq_ignore_ascii_case(wanted).then(|| value.trim().trim_matches('"'))
    })
}

/// Names and texts in order; `None` if the form is broken.
pub fn texts(body: &[u8], boundary: &str) -> Option<Vec<(String, String)>> {
    let separator = format!("\r\n--{boundary}").into_bytes();
    // The first boundary begins the body; with the line break it looks like all others.
    let body = [b"\r\n", body].concat();
    let mut rest = &body[find(&body, &separator)? + separator.len()..];
    let mut out = Vec::new();
    while !rest.starts_with(b"--") {
        let part = rest.strip_prefix(b"\r\n")?;
        let head = find(part, b"\r\n\r\n")?;
        let end = find(&part[head..], &separator)? + head;
        // The body of an empty part begins where its end is looked for.
        let content = part.get(head + 4..end)?;
        let head = String::from_utf8_lossy(&part[..head]);
        let disposition = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-disposition").then(|| value.to_owned())
        })?;
        if let (Some(name), None) = (parameter(&disposition, "name"), parameter(&disposition, "filename")) {
            out.push((name.to_owned(), String::from_utf8_lossy(content).into_owned()));
        }
        rest = &part[end + separator.len()..];
    }
    Some(out)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORM: &str = "--B\r\nContent-Disposition: form-data; name=\"query\"\r\n\r\nup{a=\"b\"}\r\n--B\r\n\
        content-disposition: form-data; name=file; filename=x\r\nContent-Type: a/b\r\n\r\njunk\r\n--B\r\n\
        Content-Disposition: form-data; name=empty\r\n\r\n\r\n--B--\r\n";

    #[test]
    fn texts_are_found_and_files_are_not() {
        let got = texts(FORM.as_bytes(), "B").expect("a form");
        let want = [("query", "up{a=\"b\"}"), ("empty", "")];
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(texts(b"--B--\r\n", "B"), Some(Vec::new()));
    }

    #[test]
    fn broken_forms_are_none() {
        for end in 0..FORM.len() - "--\r\n".len() {
            assert_eq!(texts(&FORM.as_bytes()[..end], "B"), None, "{end}");
        }
        for body in ["", "--C--", "--B\r\n\r\n\r\n--B--", "--B\r\nno head\r\n\r\nx\r\n--B--"] {
            assert_eq!(texts(body.as_bytes(), "B"), None, "{body}");
        }
    }

    #[test]
    fn boundaries_are_read() {
        for (kind, want) in [
            ("multipart/form-data; boundary=B", Some("B")),
            ("Multipart/Form-Data; charset=x; Boundary=\"a b\"", Some("a b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/mixed; boundary=B", None),
        ] {
            assert_eq!(boundary(kind), want, "{kind}");
        }
    }
}
