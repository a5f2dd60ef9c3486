//! Odd requests to Meerkat and to Prometheus over the same data: endpoints with missing, doubled and strange parameters,
//! wrong methods and content types, careless paths. `testdata/peers/odd.txt` is the table; what differs on purpose is
//! listed there with its reason.

use meerkat::model::regex::AnchoredRegex;

use super::against_prometheus::both;
use super::server::Answer;
use super::world::request;

const HEADERS: &[&str] = &[
    "content-type",
    "location",
    "allow",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
];
const FORM: &str = "application/x-www-form-urlencoded";

#[derive(Default)]
struct Table {
    requests: Vec<Odd>,
    differences: Vec<AnchoredRegex>,
}

struct Odd {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Odd {
    fn new(method: &str, target: String) -> Self {
        Self { method: method.into(), target, headers: Vec::new(), body: Vec::new() }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    fn posting(mut self, content_type: &str, body: String) -> Self {
        self.headers.push(("Content-Type".into(), content_type.into()));
        self.body = body.into_bytes();
        self
    }

    /// `METHOD target | Header: value | … | body`
    fn parse(line: &str) -> Self {
        let mut parts = line.split(" | ");
        let (method, target) = parts.next().and_then(|p| p.split_once(' ')).expect("a method and a target");
        let mut out = Self::new(method, target.trim().to_owned());
        for part in parts {
            let name = part.split_once(": ").filter(|(name, _)| {
                name.starts_with(char::is_uppercase)
                    && name.chars().all(|c| c == '-' || c.is_ascii_alphabetic())
            });
            match name {
                Some((name, value)) => out.headers.push((name.into(), value.into())),
                None => out.body = percent_encoding::percent_decode_str(part).collect(),
            }
        }
        out
    }
}

/// All requests about one endpoint.
fn of_endpoint(path: &str, good: &str, odd: &[&str], values: &[&str], out: &mut Vec<Odd>) {
    let pairs: Vec<(&str, &str)> = good.split('&').filter_map(|p| p.split_once('=')).collect();
    let joined =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| format!("{n}={v}")).collect::<Vec<_>>().join("&");
    let mut get = |query: String| out.push(Odd::new("GET", format!("{path}?{query}")));
    get(String::new());
    get(good.to_owned());
    get(format!("{good}&unknown=1"));
    for name in odd {
        let others: Vec<_> = pairs.iter().copied().filter(|(n, _)| n != name).collect();
        for value in values.iter().chain(&[""]) {
            get(joined(&[others.as_slice(), &[(name, value)]].concat()));
        }
        get(joined(&others));
        get(format!("{good}&{name}=2"));
        get(format!("{name}=2&{good}"));
    }
    let parts = pairs.iter().map(|(name, value)| {
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        format!("--B\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    });
    let multipart = parts.collect::<String>() + "--B--\r\n";
    out.push(Odd::new("POST", path.into()).posting(FORM, good.into()));
    // What a multipart form says is not looked for there, but a reader of forms finds it.
    if path != "/api/v1/series" {
        out.push(Odd::new("POST", path.into()).posting("multipart/form-data; boundary=B", multipart));
    }
    out.push(Odd::new("POST", path.into()).posting("application/json", good.into()));
    for method in ["PUT", "DELETE", "PATCH", "OPTIONS"] {
        out.push(Odd::new(method, format!("{path}?{good}")));
    }
    let mut shared = Odd::new("GET", format!("{path}?{good}"));
    shared.headers.push(("Origin".into(), "http://a.example".into()));
    out.push(shared);
}

fn table() -> Table {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/peers/odd.txt");
    let text = std::fs::read_to_string(path).expect("the table is there");
    let part = |name: &str| {
        let (_, rest) = text.split_once(&format!("[{name}]\n")).expect("the part is there");
        let end = rest.find("\n[").unwrap_or(rest.len());
        rest[..end].lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty()).collect::<Vec<_>>()
    };
    let values = part("values");
    let mut out = Table::default();
    for line in part("endpoints") {
        let fields: Vec<&str> = line.split_whitespace().collect();
        of_endpoint(fields[0], fields[1], &fields[2..], &values, &mut out.requests);
    }
    out.requests.extend(part("requests").into_iter().map(Odd::parse));
    for line in part("differences") {
        let (pattern, _reason) = line.split_once("  ").expect("a reason");
        out.differences.push(AnchoredRegex::new(pattern).expect("a pattern"));
    }
    out
}

/// What is compared.
fn gist(answer: &Answer) -> String {
    let mut out = format!("{}\n", answer.status);
    for name in HEADERS {
        let value = answer.header(name).unwrap_or_default();
        out.push_str(&format!("{name}: {value}\n"));
    }
    match serde_json::from_slice::<serde_json::Value>(&answer.body) {
        Ok(json) => out.push_str(&json.to_string()),
        Err(_) => out.push_str(&answer.text()),
    }
    out
}

#[test]
fn odd_requests_get_the_same_answers() {
    let Some((server, _guard, peer)) = both() else { return };
    let Table { requests, differences } = table();
    let (mut failures, mut excused) = (Vec::new(), 0);
    for odd in &requests {
        let headers: Vec<(&str, &str)> = odd.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let ask = |at: &str| {
            let answer = request(at, &odd.method, &odd.target, &headers, &odd.body);
            gist(&answer.unwrap_or_else(|e| panic!("{} at {at}: {e}", odd.name())))
        };
        let (ours, theirs) = (ask(&server.address), ask(&peer));
        if ours == theirs {
            continue;
        }
        if differences.iter().any(|d| d.is_match(&odd.name())) {
            excused += 1;
            continue;
        }
        let lines = ours.lines().zip(theirs.lines()).filter(|(a, b)| a != b);
        let lines = lines.map(|(a, b)| format!("  ours   {a:.300}\n  theirs {b:.300}\n")).collect::<String>();
        failures.push(format!("{} {headers:?}\n{lines}", odd.name()));
    }
    println!("{} requests, {excused} differ on purpose", requests.len());
    assert!(requests.len() > 1000 && excused * 5 < requests.len());
    assert!(failures.is_empty(), "{} differ:\n{}", failures.len(), failures.join("\n"));
}
