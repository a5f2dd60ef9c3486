//! Tests of the dialect, of the shortcuts against the automaton, and of templates.

use proptest::prelude::*;

use super::*;

fn matches(pattern: &str, text: &str) -> bool {
    AnchoredRegex::new(pattern).unwrap_or_else(|e| panic!("{pattern}: {e}")).is_match(text)
}

#[test]
fn the_dialect_is_that_of_go() {
    for (pattern, yes, no) in [
        ("", &[""][..], &["a"][..]),
        ("a", &["a"], &["", "aa", "b"]),
        ("a|bc", &["a", "bc"], &["abc", "b"]),
        (".*", &["", "a\nb"], &[]),
        (".+", &["\n"], &[""]),
        ("a.b", &["a\nb", "aéb"], &["ab"]),
        ("(?-s)a.b", &["axb"], &["a\nb"]),
        (r"[\w-,]", &["-", ",", "a"], &["+", "é"]),
        ("/{gid}", &["/{gid}"], &["/gid"]),
        ("a{,2}", &["a{,2}"], &["aa"]),
        ("a{2}", &["aa"], &["a", "aaa"]),
        ("a{2,}", &["aa", "aaa"], &["a"]),
        ("a{1,2}", &["a", "aa"], &["", "aaa"]),
        ("a{01}", &["a{01}"], &["a"]),
        ("a{x", &["a{x"], &[]),
        ("[[a]", &["[", "a"], &["]", "b"]),
        ("[]a]", &["]", "a"], &["[a]"]),
        ("[^]a]", &["b"], &["]", "a"]),
        (r"\Qa.b\E+", &["a.b", "a.bb"], &["axb"]),
        (r"\Qa.b", &["a.b"], &["axb"]),
        (r"\123\x41\x{42}\0", &["SAB\0"], &[]),
        ("[a&&b]", &["a", "&", "b"], &["c"]),
        ("[+--b]", &["+", ",", "-", "b"], &["."]),
        ("[a~~b]", &["a", "~", "b"], &["c"]),
        (r"\d\w\s", &["1a "], &["٣a ", "1é "]),
        (r"[\d]+", &["12"], &["٣"]),
        (r".*\bfoo\b.*", &["a foo b", "éfoo"], &["afoo"]),
        (r"\<a\>", &["<a>"], &["a"]),
        (r"\_", &["_"], &[]),
        ("(?i)straße", &["STRAßE", "straße"], &["STRASSE"]),
        ("(?i)k", &["k", "K", "\u{212a}"], &["x"]),
        ("(?i:a)b", &["Ab"], &["AB"]),
        ("a(?i)b|c", &["aB", "C"], &["Ab"]),
        ("(a(?i)b)c", &["aBc"], &["aBC"]),
        ("(?i)[^a]", &["b"], &["a", "A"]),
        ("[[:alpha:]_]+", &["ab_"], &["1", "é"]),
        ("[[:^digit:]]", &["a"], &["1"]),
        (r"\pL\p{Greek}\PL", &["éα1"], &["1α1", "éb1"]),
        (r"\p{^L}", &["1"], &["a"]),
        (r"\p{Lu}", &["A"], &["a"]),
        ("^a$", &["a"], &["a\n"]),
        ("(?m)a$\n^b", &["a\nb"], &[]),
        ("a*?b", &["b", "aab"], &[]),
        ("(a*)*", &["", "aaa"], &["b"]),
        ("^*a", &["a"], &[]),
        ("(?P<x>a)(?<y>b)", &["ab"], &[]),
        ("a||b", &["a", "", "b"], &["ab"]),
        ("()", &[""], &["a"]),
        ("[a-c-e]", &["b", "-", "e"], &["d"]),
        (r"[\]\-a]", &["]", "-", "a"], &["\\"]),
    ] {
        for text in yes {
            assert!(matches(pattern, text), "{pattern} should match {text:?}");
        }
        for text in no {
            assert!(!matches(pattern, text), "{pattern} should not match {text:?}");
        }
    }
}

#[test]
fn errors_are_those_of_go() {
    for (pattern, message) in [
        ("(", "missing closing ): `(`"),
        ("a)b", "unexpected ): `a)b`"),
        ("[a", "missing closing ]: `[a`"),
        ("[", "missing closing ]: `[`"),
        ("*a", "missing argument to repetition operator: `*`"),
        ("a|+", "missing argument to repetition operator: `+`"),
        ("x**", "invalid nested repetition operator: `**`"),
        ("x*?+", "invalid nested repetition operator: `*?+`"),
        ("x{2}{3}", "invalid nested repetition operator: `{2}{3}`"),
        ("a{1001}", "invalid repeat count: `{1001}`"),
        ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ("((a{100}){100})", "invalid repeat count: `{100}`"),
        ("(?x)a", "invalid or unsupported Perl syntax: `(?x`"),
        ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
        ("(?i", "missing closing ): `(?i`"),
        ("(?P<a", "invalid named capture: `(?P<a`"),
        ("(?P<a->b)", "invalid named capture: `(?P<a->`"),
        ("(?P<a>b)(?P<a>c)", "invalid named capture: `(?P<a>`"),
        (r"\p{Alphabetic}", r"invalid character class range: `\p{Alphabetic}`"),
        (r"\pX", r"invalid character class range: `\pX`"),
        (r"\u{41}", r"invalid escape sequence: `\u`"),
        (r"\1", r"invalid escape sequence: `\1`"),
        (r"\Z", r"invalid escape sequence: `\Z`"),
        (r"a\", "trailing backslash at end of expression: ``"),
        ("[b-a]", "invalid character class range: `b-a`"),
        ("[a--b]", "invalid character class range: `a--`"),
        (r"[a-\d]", r"invalid escape sequence: `\d`"),
        ("[[:foo:]]", "invalid character class range: `[:foo:]`"),
    ] {
        let error = AnchoredRegex::new(pattern).expect_err(pattern);
        assert_eq!(error.to_string(), format!("error parsing regexp: {message}"), "{pattern}");
    }
    let deep = "(".repeat(5000) + &")".repeat(5000);
    assert!(AnchoredRegex::new(&deep).unwrap_err().to_string().contains("nests too deeply"));
    let large = r"(\pL{1000}x)".repeat(200);
    assert!(AnchoredRegex::new(&large).unwrap_err().to_string().contains("too large"));
}

#[test]
fn simple_patterns_are_recognised() {
    let set = |pattern: &str| {
        AnchoredRegex::new(pattern)
            .unwrap()
            .literal_set()
            .map(|texts| texts.iter().map(|t| t.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(set("b|a|b").unwrap(), ["a", "b"]);
    assert_eq!(set("x(a|b[12])y?").unwrap(), ["xa", "xay", "xb1", "xb1y", "xb2", "xb2y"]);
    assert_eq!(set("(?i)ab").unwrap(), ["AB", "Ab", "aB", "ab"]);
    assert_eq!(set("").unwrap(), [""]);
    assert_eq!(set("a.*"), None);
    assert_eq!(set("[a-z]{5}"), None);
    let many = (0..5000).map(|i| format!("host-{i}")).collect::<Vec<_>>().join("|");
    assert_eq!(set(&many).unwrap().len(), 5000);
    let prefix = |pattern: &str| AnchoredRegex::new(pattern).unwrap().prefix().to_owned();
    assert_eq!(prefix("abc.*"), "abc");
    assert_eq!(prefix("abc[0-9]+"), "abc");
    assert_eq!(prefix("(abc).+x"), "abc");
    assert_eq!(prefix(".*abc"), "");
    assert!(AnchoredRegex::new("(.*)").unwrap().matches_everything());
}

#[test]
fn templates_expand_as_in_go() {
    let regex = AnchoredRegex::new("(?P<first>[a-z]+)-([0-9]+)(x)?").unwrap();
    for (template, want) in [
        ("$1", "ab"),
        ("${1}x", "abx"),
        ("$1x", ""),
        ("$first.$2", "ab.12"),
        ("$first_", ""),
        ("${first}_", "ab_"),
        ("$$1", "$1"),
        ("$0", "ab-12"),
        ("$3|$9|$01", "||"),
        ("a$", "a$"),
        ("${1", "${1"),
        ("$-", "$-"),
        ("plain", "plain"),
        ("", ""),
    ] {
        assert_eq!(regex.expand("ab-12", template).as_deref(), Some(want), "{template}");
    }
    assert_eq!(regex.expand("nothing", "$1"), None);
    let any = AnchoredRegex::new("(.*)").unwrap();
    assert_eq!(any.expand("a\nb", "<$1>").as_deref(), Some("<a\nb>"));
    let list = AnchoredRegex::new("(a|b)c").unwrap();
    assert_eq!(list.expand("bc", "$1").as_deref(), Some("b"));
}

#[test]
fn replaces_all_occurrences() {
    let replace = |pattern: &str, text: &str, template: &str| {
        GoRegex::new(pattern).unwrap().replace_all(text, template)
    };
    assert_eq!(replace("a(x*)b", "-ab-axxb-", "${1}W"), "-W-xxW-");
    assert_eq!(replace("x*", "abc", "-"), "-a-b-c-");
    assert_eq!(replace("a.", "a\nab", "!"), "a\n!");
    assert!(GoRegex::new("b").unwrap().is_match("abc"));
    assert!(!GoRegex::new("^b").unwrap().is_match("abc"));
}

proptest! {
    /// Where both dialects agree, the shortcuts agree with the plain automaton.
    #[test]
    fn shortcuts_agree_with_the_automaton(
        pattern in "(\\.\\*|\\.\\+)?[ab]{0,2}(\\(a\\|b\\)|\\[ab\\]|\\(ab\\|b\\|\\)|c\\?)?(\\.\\*|b\\+)?",
        texts in prop::collection::vec("[abc\\n]{0,5}", 1..8),
    ) {
        let ours = AnchoredRegex::new(&pattern).unwrap();
        let twin = Regex::new(&format!("^(?s:{pattern})$")).unwrap();
        for text in &texts {
            prop_assert_eq!(ours.is_match(text), twin.is_match(text.as_str()), "{} {:?}", pattern, text);
            if let Some(set) = ours.literal_set() {
                prop_assert_eq!(set.iter().any(|t| **t == **text), twin.is_match(text.as_str()));
            }
            if twin.is_match(text.as_str()) {
                prop_assert!(text.starts_with(ours.prefix()));
                prop_assert_eq!(ours.expand(text, "$0"), Some(text.clone()));
            }
        }
    }

    #[test]
    fn no_pattern_panics(pattern in "[a-c\\\\(){}\\[\\]?*+|^$.:<>P=!0-9,ipQEdwx-]{0,16}|\\PC{0,12}", text in "\\PC{0,6}") {
        if let Ok(regex) = AnchoredRegex::new(&pattern) {
            let _ = regex.is_match(&text);
            let _ = regex.expand(&text, "$1${x}");
        }
        if let Ok(regex) = GoRegex::new(&pattern) {
            let _ = regex.replace_all(&text, "$1");
        }
    }
}
