//! What does a YAML document say, and where? A tree of nodes, each with its line and column.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use granit_parser::{Event, Parser, ScalarStyle, Tag};

/// Deepest nesting that is accepted.
const MAX_DEPTH: usize = 100;
/// Most nodes of one document, those that aliases repeat included.
const MAX_NODES: usize = 4_000_000;

/// A place in a file; line and column count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Position {
    /// Line, from 1; 0 when unknown.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// A node of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it starts.
    pub at: Position,
    /// What it is.
    pub kind: NodeKind,
}

/// The kinds of nodes.
#[derive(Debug, Clone, PartialEq)]
pub enum NodeKind {
    /// Nothing: an empty value, `~` or `null`.
    Null,
    /// A text or number; only plain ones (written without quotes) may be numbers or booleans.
    Scalar {
        /// The text after unescaping.
        text: String,
        /// Whether it was written without quotes and without a tag.
        plain: bool,
        /// Whether a `!!binary` scalar held bytes that are not UTF-8; `text` then shows them escaped.
        invalid_utf8: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// A mapping in the order of the file, merge keys resolved.
    Mapping(Vec<(Node, Node)>),
}

/// A fault of the document as such.
#[derive(Debug, Clone, PartialEq)]
pub struct SyntaxError {
    /// Where.
    pub at: Position,
    /// What.
    pub message: String,
}

/// A composed document.
#[derive(Debug)]
pub struct Document {
    /// The first document of the stream; null when there is none.
    pub root: Node,
    /// Faults that do not keep the rest from being read: repeated keys, bad merges.
    pub errors: Vec<SyntaxError>,
    /// Where a second document begins, if there is one.
    pub second_document: Option<Position>,
}

impl Node {
    /// A node that says nothing.
    #[must_use]
    pub fn null(at: Position) -> Self {
        Self { at, kind: NodeKind::Null }
    }

    /// Whether it says nothing.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.kind, NodeKind::Null)
    }

    /// The text of a scalar.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping; none for anything else.
    #[must_use]
    pub fn entries(&self) -> &[(Node, Node)] {
        match &self.kind {
            NodeKind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none for anything else.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::Sequence(items) => items,
            _ => &[],
        }
    }

    /// The value under a key of a mapping.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v)
    }

    /// Where the value under `key` stands, or the mapping itself when it has no such key.
    #[must_use]
    pub fn place_of(&self, key: &str) -> Position {
        self.get(key).map_or(self.at, |node| node.at)
    }

    fn count(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Null | NodeKind::Scalar { .. } => 0,
            NodeKind::Sequence(items) => items.iter().map(Node::count).sum(),
            NodeKind::Mapping(entries) => entries.iter().map(|(k, v)| k.count() + v.count()).sum(),
        }
    }

    fn depth(&self) -> usize {
        1 + match &self.kind {
            NodeKind::Null | NodeKind::Scalar { .. } => 0,
            NodeKind::Sequence(items) => items.iter().map(Node::depth).max().unwrap_or(0),
            NodeKind::Mapping(entries) => entries.iter().map(|(_, v)| v.depth()).max().unwrap_or(0),
        }
    }
}

/// A collection that is still open.
struct Frame {
    at: Position,
    anchor: usize,
    /// Items of a list; keys and values in turn of a mapping.
    nodes: Vec<Node>,
    mapping: bool,
}

/// Composes the first document of `text`.
pub fn parse(text: &str) -> Result<Document, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut stack: Vec<Frame> = Vec::new();
    let mut anchors: HashMap<usize, Node> = HashMap::new();
    let mut document = Document {
        root: Node::null(Position { line: 1, column: 1 }),
        errors: Vec::new(),
        second_document: None,
    };
    let mut nodes = 0usize;
    let mut documents = 0;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| SyntaxError {
            at: position(e.marker().line(), e.marker().col()),
            message: format!("yaml: {}", e.info()),
        })?;
        let at = position(span.start.line(), span.start.col());
        let done = match event {
            Event::DocumentStart(..) => {
                documents += 1;
                if documents == 2 {
                    document.second_document = Some(at);
                    return Ok(document);
                }
                continue;
            }
            Event::Scalar(text, style, anchor, tag) => {
                let node = Node { at, kind: scalar(at, &text, style, tag.as_deref())? };
                if anchor != 0 {
                    anchors.insert(anchor, node.clone());
                }
                node
            }
            Event::Alias(id) => {
                let mut node = anchors
                    .get(&id)
                    .cloned()
                    .ok_or_else(|| SyntaxError { at, message: "yaml: an anchor contains itself".into() })?;
                nodes += node.count();
                if stack.len() + node.depth() > MAX_DEPTH {
                    return Err(too_deep(at));
                }
                node.at = at;
                node
            }
            Event::SequenceStart(_, anchor, _) | Event::MappingStart(_, anchor, _) => {
                if stack.len() >= MAX_DEPTH {
                    return Err(too_deep(at));
                }
                let mapping = matches!(event, Event::MappingStart(..));
                stack.push(Frame { at, anchor, nodes: Vec::new(), mapping });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(frame) = stack.pop() else { continue };
                let (at, anchor) = (frame.at, frame.anchor);
                let kind = if frame.mapping {
                    NodeKind::Mapping(mapping(frame.nodes, &mut document.errors))
                } else {
                    NodeKind::Sequence(frame.nodes)
                };
                let node = Node { at, kind };
                if anchor != 0 {
                    anchors.insert(anchor, node.clone());
                }
                node
            }
            _ => continue,
        };
        nodes += 1;
        if nodes > MAX_NODES {
            return Err(SyntaxError {
                at,
                message: format!(
                    "yaml: more than {MAX_NODES} nodes, aliases counted as often as they are used"
                ),
            });
        }
        match stack.last_mut() {
            Some(frame) => frame.nodes.push(done),
            None => document.root = done,
        }
    }
    Ok(document)
}

fn too_deep(at: Position) -> SyntaxError {
    SyntaxError { at, message: format!("yaml: nested deeper than {MAX_DEPTH} levels") }
}

fn position(line: usize, column: usize) -> Position {
    Position {
        line: u32::try_from(line).unwrap_or(u32::MAX),
        column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1),
    }
}

fn scalar(at: Position, text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<NodeKind, SyntaxError> {
    let plain = style == ScalarStyle::Plain && tag.is_none();
    if let Some(tag) = tag
        && tag.suffix().ends_with("binary")
    {
        let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed).map_err(|e| SyntaxError {
            at,
            message: format!("yaml: !!binary value contains invalid base64 data: {e}"),
        })?;
        return Ok(match String::from_utf8(bytes) {
            Ok(text) => NodeKind::Scalar { text, plain: false, invalid_utf8: false },
            Err(e) => NodeKind::Scalar {
                text: e.as_bytes().escape_ascii().to_string(),
                plain: false,
                invalid_utf8: true,
            },
        });
    }
    if tag.is_some_and(|t| t.is_yaml_core_schema_tag("null"))
        || (plain && matches!(text, "" | "~" | "null" | "Null" | "NULL"))
    {
        return Ok(NodeKind::Null);
    }
    let numeric_tag =
        tag.is_some_and(|t| ["int", "float", "bool"].iter().any(|n| t.is_yaml_core_schema_tag(n)));
    Ok(NodeKind::Scalar { text: text.into(), plain: plain || numeric_tag, invalid_utf8: false })
}

/// Pairs up keys and values, resolves `<<` and reports repeated keys.
fn mapping(nodes: Vec<Node>, errors: &mut Vec<SyntaxError>) -> Vec<(Node, Node)> {
    let mut entries = Vec::with_capacity(nodes.len() / 2);
    let mut merges = Vec::new();
    let mut seen = HashSet::new();
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        match &key.kind {
            NodeKind::Scalar { text, plain: true, .. } if text == "<<" => merges.push(value),
            NodeKind::Scalar { text, .. } => {
                if seen.insert(text.clone()) {
                    entries.push((key, value));
                } else {
                    errors.push(SyntaxError {
                        at: key.at,
                        message: format!("key {text:?} already set in map"),
                    });
                }
            }
            NodeKind::Null => errors.push(SyntaxError { at: key.at, message: "a key is missing".into() }),
            _ => errors.push(SyntaxError { at: key.at, message: "a key must be a text".into() }),
        }
    }
    for merge in merges {
        let sources = match merge.kind {
            NodeKind::Mapping(_) => vec![merge],
            NodeKind::Sequence(items) if items.iter().all(|i| matches!(i.kind, NodeKind::Mapping(_))) => {
                items
            }
            _ => {
                errors.push(SyntaxError {
                    at: merge.at,
                    message: "map merge requires map or sequence of maps as the value".into(),
                });
                continue;
            }
        };
        for source in sources {
            if let NodeKind::Mapping(merged) = source.kind {
                for (key, value) in merged {
                    if key.text().is_some_and(|text| seen.insert(text.to_owned())) {
                        entries.push((key, value));
                    }
                }
            }
        }
    }
    entries
}
