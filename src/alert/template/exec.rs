//! Running a parsed template: scopes, pipelines, loops, and the limits that keep a template from running away.

use super::format::print_value;
use super::functions::{self, CallError};
use super::lex::line_of;
use super::methods;
use super::parse::{Base, Command, Node, Operand, Pipeline, Template, TemplateError};
use super::value::Value;
use crate::model::Labels;

/// Longest text a template may produce, bytes.
pub const MAX_OUTPUT_BYTES: usize = 4 << 20;
/// Most nodes a template may run, loops counted.
pub const MAX_STEPS: usize = 1_000_000;
/// Deepest nesting of `{{template}}` calls.
pub const MAX_CALL_DEPTH: usize = 64;

/// Answers the `query` function.
pub trait QuerySource {
    /// The instant vector of `query` at `t_ms`; histograms are left out.
    fn query(&self, query: &str, t_ms: i64) -> Result<Vec<(Labels, f64)>, String>;

    /// `--web.external-url`.
    fn external_url(&self) -> &str {
        ""
    }
}

/// Why a template has no text. Prints as Prometheus does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpandError {
    /// The text is not a template.
    #[error("error parsing template {name}: {error}", name = .0.name, error = .0)]
    Parse(#[from] TemplateError),
    /// It failed while running.
    #[error("error executing template {name}: {message}")]
    Execute {
        /// Name of the template.
        name: String,
        /// Go's text with line, column and the failing part.
        message: String,
    },
}

/// Runs `template` with `data` as dot.
pub fn execute(
    template: &Template,
    data: &Value,
    t_ms: i64,
    source: &dyn QuerySource,
) -> Result<String, ExpandError> {
    let mut run = Run {
        template,
        source,
        t_ms,
        variables: vec![("$".to_owned(), data.clone())],
        out: String::new(),
        steps: 0,
        depth: 0,
    };
    run.nodes(&template.root, data)?;
    Ok(run.out)
}

/// What an executing list of nodes ended with.
#[derive(PartialEq)]
enum Flow {
    Next,
    Break,
    Continue,
}

struct Run<'a> {
    template: &'a Template,
    source: &'a dyn QuerySource,
    t_ms: i64,
    variables: Vec<(String, Value)>,
    out: String,
    steps: usize,
    depth: usize,
}

impl<'a> Run<'a> {
    /// An error at a byte offset, worded as Go words it.
    fn error(&self, offset: usize, part: &str, message: &str) -> ExpandError {
        let name = &self.template.name;
        let text = &self.template.text;
        let line = line_of(text, offset);
        let before = &text.as_bytes()[..offset.min(text.len())];
        let column = before.iter().rev().take_while(|b| **b != b'\n').count();
        let message = format!("template: {name}:{line}:{column}: executing {name:?} at <{part}>: {message}");
        ExpandError::Execute { name: name.clone(), message }
    }

    fn limit(&self, message: String) -> ExpandError {
        ExpandError::Execute { name: self.template.name.clone(), message }
    }

    fn write(&mut self, text: &str) -> Result<(), ExpandError> {
        if self.out.len() + text.len() > MAX_OUTPUT_BYTES {
            return Err(self.limit(format!("output is longer than {MAX_OUTPUT_BYTES} bytes")));
        }
        self.out.push_str(text);
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Value) -> Result<Flow, ExpandError> {
        for node in nodes {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return Err(self.limit(format!("ran more than {MAX_STEPS} steps")));
            }
            let flow = self.node(node, dot)?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn node(&mut self, node: &'a Node, dot: &Value) -> Result<Flow, ExpandError> {
        match node {
            Node::Text(text) => self.write(text)?,
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    let text = print_value(&value);
                    self.write(&text)?;
                }
            }
            Node::If { condition, then, otherwise } => {
                let scope = self.variables.len();
                let branch = if self.pipeline(condition, dot)?.is_true() { then } else { otherwise };
                let flow = self.nodes(branch, dot)?;
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::With { value, then, otherwise } => {
                let scope = self.variables.len();
                let value = self.pipeline(value, dot)?;
                let flow =
                    if value.is_true() { self.nodes(then, &value)? } else { self.nodes(otherwise, dot)? };
                self.variables.truncate(scope);
                return Ok(flow);
            }
            Node::Range { over, body, otherwise } => return self.range(over, body, otherwise, dot),
            Node::Template { name, argument, offset } => {
                let argument = match argument {
                    Some(argument) => self.pipeline(argument, dot)?,
                    None => Value::Nil,
                };
                let template: &'a Template = self.template;
                let Some(body) = template.defined.get(name) else {
                    return Err(self.error(
                        *offset,
                        &format!("{{{{template {name:?}}}}}"),
                        &format!("template {name:?} not defined"),
                    ));
                };
                if self.depth == MAX_CALL_DEPTH {
                    return Err(self.limit(format!("exceeded maximum template depth ({MAX_CALL_DEPTH})")));
                }
                self.depth += 1;
                let outer = std::mem::replace(&mut self.variables, vec![("$".to_owned(), argument.clone())]);
                self.nodes(body, &argument)?;
                self.variables = outer;
                self.depth -= 1;
            }
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        over: &'a Pipeline,
        body: &'a [Node],
        otherwise: &'a [Node],
        dot: &Value,
    ) -> Result<Flow, ExpandError> {
        let scope = self.variables.len();
        let value = self.commands(over, dot)?;
        let items: Vec<(Value, Value)> = match &value {
            Value::Samples(samples) => (0i64..)
                .zip(samples.iter())
                .map(|(i, s)| (Value::Int(i), Value::Sample(std::sync::Arc::new(s.clone()))))
                .collect(),
            Value::StringMap(map) => {
                map.iter().map(|l| (Value::string(l.name), Value::string(l.value))).collect()
            }
            Value::Map(map) => map.iter().map(|(k, v)| (Value::string(k), v.clone())).collect(),
            Value::Int(n) if over.variables.len() > 1 => {
                let message = format!("can't use {n} to iterate over more than one variable");
                return Err(self.error(over.offset, &source_of(over), &message));
            }
            Value::Int(n) => {
                let n = usize::try_from(*n).unwrap_or(0).min(MAX_STEPS + 1);
                (0i64..).take(n).map(|i| (Value::Int(i), Value::Int(i))).collect()
            }
            Value::Nil => Vec::new(),
            other => {
                let message = format!("range can't iterate over {}", print_value(other));
                return Err(self.error(over.offset, &source_of(over), &message));
            }
        };
        let mut flow_out = Flow::Next;
        if items.is_empty() {
            flow_out = self.nodes(otherwise, dot)?;
        }
        for (key, item) in items {
            self.variables.truncate(scope);
            match over.variables.as_slice() {
                [one] => self.bind(over, one, item.clone()),
                [index, element] => {
                    self.bind(over, index, key);
                    self.bind(over, element, item.clone());
                }
                _ => {}
            }
            if self.nodes(body, &item)? == Flow::Break {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(flow_out)
    }

    fn bind(&mut self, pipeline: &Pipeline, name: &str, value: Value) {
        if pipeline.assigns {
            if let Some((_, slot)) = self.variables.iter_mut().rev().find(|(n, _)| n == name) {
                *slot = value;
            }
        } else {
            self.variables.push((name.to_owned(), value));
        }
    }

    /// Runs a pipeline and binds its variable, if it names one.
    fn pipeline(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, ExpandError> {
        let value = self.commands(pipeline, dot)?;
        for name in &pipeline.variables {
            self.bind(pipeline, name, value.clone());
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &'a Pipeline, dot: &Value) -> Result<Value, ExpandError> {
        let mut value: Option<Value> = None;
        for command in &pipeline.commands {
            value = Some(self.command(command, dot, value)?);
        }
        Ok(value.unwrap_or(Value::Nil))
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Value, ExpandError> {
        let first = &command.words[0];
        let Base::Function(name) = &first.base else {
            if matches!(first.base, Base::Nil) {
                return Err(self.error(first.offset, "nil", "nil is not a command"));
            }
            if command.words.len() > 1 || piped.is_some() {
                if let Some(value) = self.method(command, dot, piped)? {
                    return Ok(value);
                }
                let end = command.words.get(1).map_or(usize::MAX, |second| second.offset);
                let text = &self.template.text;
                let word =
                    text.get(first.offset..end.min(text.len())).map_or(&*command.source, str::trim_end);
                let word = if command.words.len() > 1 { word } else { &*command.source };
                return Err(self.error(
                    first.offset,
                    word,
                    &format!("can't give argument to non-function {word}"),
                ));
            }
            return self.operand(first, dot, &command.source);
        };
        let mut arguments = Vec::with_capacity(command.words.len());
        // `and` and `or` stop at the first argument that decides.
        if name == "and" || name == "or" {
            let mut last = Value::Nil;
            for word in &command.words[1..] {
                last = self.operand(word, dot, &command.source)?;
                if last.is_true() == (name == "or") {
                    return Ok(last);
                }
            }
            return Ok(piped.unwrap_or(last));
        }
        for word in &command.words[1..] {
            arguments.push(self.operand(word, dot, &command.source)?);
        }
        arguments.extend(piped);
        let context = functions::Context { t_ms: self.t_ms, source: self.source };
        let value = match functions::call(name, &arguments, &context) {
            Ok(value) => value,
            Err(CallError::Signature(message)) => {
                return Err(self.error(first.offset, name, &message));
            }
            Err(CallError::Type(expected, got)) => return Err(self.wrong_type(command, name, expected, got)),
            Err(CallError::Failed(message)) => {
                let message = format!("error calling {name}: {message}");
                return Err(self.error(first.offset, &command.source, &message));
            }
        };
        self.fields(value, &first.fields, first.fields_offset, &command.source)
    }

    /// Calls a method with arguments: `$time.Format "15:04"`. `None` if the first word does not end in a method.
    fn method(
        &mut self,
        command: &'a Command,
        dot: &Value,
        piped: Option<Value>,
    ) -> Result<Option<Value>, ExpandError> {
        let first = &command.words[0];
        let Some((name, fields)) = first.fields.split_last() else { return Ok(None) };
        let base = self.base(first, dot)?;
        let value = self.fields(base, fields, first.fields_offset, &command.source)?;
        if !matches!(value, Value::Time(_) | Value::Duration(_)) {
            return Ok(None);
        }
        let mut arguments = Vec::with_capacity(command.words.len());
        for word in &command.words[1..] {
            arguments.push(self.operand(word, dot, &command.source)?);
        }
        arguments.extend(piped);
        match methods::call(&value, name, &arguments) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(message)) => Err(self.error(first.offset, &command.source, &message)),
        }
    }

    /// A function got a value of a wrong type. Go names the argument if it stands there as a constant.
    fn wrong_type(&self, command: &Command, name: &str, expected: &str, got: &str) -> ExpandError {
        let constant = command.words[1..].iter().find_map(|word| {
            let value = match &word.base {
                Base::Bool(b) => Value::Bool(*b),
                Base::Int(i) => Value::Int(*i),
                Base::Float(f) => Value::Float(*f),
                Base::Str(text) => Value::String(text.clone()),
                _ => return None,
            };
            (value.type_name() == got).then(|| (word.offset, print_value(&value)))
        });
        match constant {
            Some((offset, text)) if expected == "string" => {
                self.error(offset, &text, &format!("expected string; found {text}"))
            }
            Some((offset, text)) => {
                self.error(offset, &text, &format!("can't handle {text} for arg of type {expected}"))
            }
            None => self.error(command.words[0].offset, name, &wrong_value(expected, got)),
        }
    }

    fn operand(&mut self, operand: &'a Operand, dot: &Value, source: &str) -> Result<Value, ExpandError> {
        let base = self.base(operand, dot)?;
        self.fields(base, &operand.fields, operand.fields_offset, source)
    }

    /// The value of an operand without its fields.
    fn base(&mut self, operand: &'a Operand, dot: &Value) -> Result<Value, ExpandError> {
        Ok(match &operand.base {
            Base::Dot => dot.clone(),
            Base::Nil => Value::Nil,
            Base::Bool(b) => Value::Bool(*b),
            Base::Int(i) => Value::Int(*i),
            Base::Float(f) => Value::Float(*f),
            Base::Str(text) => Value::String(text.clone()),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(n, _)| n == name);
                found.map_or(Value::Nil, |(_, value)| value.clone())
            }
            Base::Function(name) => {
                let context = functions::Context { t_ms: self.t_ms, source: self.source };
                functions::call(name, &[], &context).map_err(|e| {
                    let message = match e {
                        CallError::Signature(message) => message,
                        CallError::Type(expected, got) => wrong_value(expected, got),
                        CallError::Failed(message) => format!("error calling {name}: {message}"),
                    };
                    self.error(operand.offset, name, &message)
                })?
            }
            Base::Paren(pipeline) => self.pipeline(pipeline, dot)?,
        })
    }

    fn fields(
        &self,
        mut value: Value,
        fields: &[String],
        offset: usize,
        source: &str,
    ) -> Result<Value, ExpandError> {
        for field in fields {
            value = match &value {
                Value::StringMap(map) => Value::string(map.value(field)),
                Value::Map(map) => map.get(field).cloned().unwrap_or(Value::Nil),
                Value::Struct(map) if map.contains_key(field) => map[field].clone(),
                Value::Sample(sample) if field == "Labels" => Value::from_labels(&sample.0),
                Value::Sample(sample) if field == "Value" => Value::Float(sample.1),
                Value::Nil => {
                    let message = format!("nil data; no entry for key {field:?}");
                    return Err(self.error(offset, source, &message));
                }
                other => {
                    let unknown =
                        || Err(format!("can't evaluate field {field} in type {}", other.type_name()));
                    let called = methods::call(other, field, &[]).unwrap_or_else(unknown);
                    called.map_err(|message| self.error(offset, source, &message))?
                }
            };
        }
        Ok(value)
    }
}

fn wrong_value(expected: &str, got: &str) -> String {
    format!("wrong type for value; expected {expected}; got {got}")
}

fn source_of(pipeline: &Pipeline) -> String {
    pipeline.commands.iter().map(|c| c.source.as_str()).collect::<Vec<_>>().join(" | ")
}
