//! How are the fields of a mapping declared? Once, with the [`section!`](crate::config::yaml::section) macro: name,
//! type, default and how it prints; decoding, defaults, the list of known fields and printing follow from it.
//!
//! A field is `name [as "key"]: Type [= default] [; mode],`. Without a mode an empty value is not printed
//! (Go's `omitempty`); `always` prints it in any case; `inline` has the fields of another section as if they
//! were its own; `inner` is a known field that the owner reads by hand; `aside` is no
//! field of the file at all.

use super::decode::Context;
use super::emit::Value;
use super::node::Node;

/// A mapping with known fields.
pub trait Section: Default {
    /// What error messages call it.
    const NAME: &'static str;

    /// Appends the known fields.
    fn keys(out: &mut Vec<&'static str>);

    /// Decodes one field; `false` when the section has none of that name.
    fn set(&mut self, key: &str, node: &Node, cx: &mut Context) -> bool;

    /// Checks the whole after all fields have been read.
    fn check(&mut self, node: &Node, cx: &mut Context);

    /// Appends the fields that are printed.
    fn fields(&self, out: &mut Vec<(String, Value)>);

    /// Reads all fields of `node` over the present values, and checks the whole.
    fn read(&mut self, node: &Node, cx: &mut Context) -> bool {
        let super::node::NodeKind::Mapping(entries) = &node.kind else {
            if node.is_null() {
                self.check(node, cx);
                return true;
            }
            cx.mismatch(node, Self::NAME);
            return false;
        };
        for (key, value) in entries {
            let name = key.text().unwrap_or_default();
            if !self.set(name, value, cx) {
                let mut known = Vec::new();
                Self::keys(&mut known);
                cx.unknown_field(key, Self::NAME, &known);
            }
        }
        self.check(node, cx);
        true
    }
}

/// Declares a section; see the module for the form of a field.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($label:literal) $(check $check:path)? {
            $(
                $(#[$fmeta:meta])*
                $field:ident $(as $key:literal)? : $ty:ty $(= $default:expr)? $(; $mode:ident)?
            ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $ty, )*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: section!(@default $($default)?), )* }
            }
        }

        impl $crate::config::yaml::Section for $name {
            const NAME: &'static str = $label;

            fn keys(out: &mut Vec<&'static str>) {
                $( section!(@keys out, (section!(@key $field $($key)?)), $ty, $($mode)?); )*
                let _ = out;
            }

            fn set(
                &mut self,
                key: &str,
                node: &$crate::config::yaml::Node,
                cx: &mut $crate::config::yaml::Context,
            ) -> bool {
                $( section!(@set self, key, node, cx, $field, (section!(@key $field $($key)?)), $($mode)?); )*
                let _ = (key, node, cx);
                false
            }

            fn check(&mut self, node: &$crate::config::yaml::Node, cx: &mut $crate::config::yaml::Context) {
                $( section!(@check self, node, cx, $field, $($mode)?); )*
                $( $check(self, node, cx); )?
                let _ = (node, cx);
            }

            fn fields(&self, out: &mut Vec<(String, $crate::config::yaml::Value)>) {
                $( section!(@emit self, out, $field, (section!(@key $field $($key)?)), $($mode)?); )*
                let _ = out;
            }
        }

        impl $crate::config::yaml::FromYaml for $name {
            fn from_yaml(
                node: &$crate::config::yaml::Node,
                cx: &mut $crate::config::yaml::Context,
            ) -> Option<Self> {
                let mut value = Self::default();
                $crate::config::yaml::Section::read(&mut value, node, cx).then_some(value)
            }
        }

        impl $crate::config::yaml::ToYaml for $name {
            fn to_value(&self) -> $crate::config::yaml::Value {
                let mut out = Vec::new();
                $crate::config::yaml::Section::fields(self, &mut out);
                $crate::config::yaml::Value::Map(out)
            }

            fn is_empty(&self) -> bool {
                // As Go has it: a section with a default that is not zero is always printed.
                true $( && section!(@zero self, $field, $($mode)?) )*
            }
        }
    };

    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };

    (@keys $out:ident, ($key:expr), $ty:ty, inline) => {
        <$ty as $crate::config::yaml::Section>::keys($out);
    };
    (@keys $out:ident, ($key:expr), $ty:ty, aside) => {};
    (@keys $out:ident, ($key:expr), $ty:ty, $($mode:ident)?) => { $out.push($key); };

    (@set $self:ident, $k:ident, $node:ident, $cx:ident, $field:ident, ($key:expr), inline) => {
        if $crate::config::yaml::Section::set(&mut $self.$field, $k, $node, $cx) {
            return true;
        }
    };
    (@set $self:ident, $k:ident, $node:ident, $cx:ident, $field:ident, ($key:expr), aside) => {};
    (@set $self:ident, $k:ident, $node:ident, $cx:ident, $field:ident, ($key:expr), inner) => {
        if $k == $key {
            return true;
        }
    };
    (@set $self:ident, $k:ident, $node:ident, $cx:ident, $field:ident, ($key:expr), $($mode:ident)?) => {
        if $k == $key {
            $cx.decode_into(&mut $self.$field, $node);
            return true;
        }
    };

    (@check $self:ident, $node:ident, $cx:ident, $field:ident, inline) => {
        $crate::config::yaml::Section::check(&mut $self.$field, $node, $cx);
    };
    (@check $self:ident, $node:ident, $cx:ident, $field:ident, $($mode:ident)?) => {};

    (@emit $self:ident, $out:ident, $field:ident, ($key:expr), inline) => {
        $crate::config::yaml::Section::fields(&$self.$field, $out);
    };
    (@emit $self:ident, $out:ident, $field:ident, ($key:expr), always) => {
        $out.push(($key.to_owned(), $crate::config::yaml::ToYaml::to_value(&$self.$field)));
    };
    (@zero $self:ident, $field:ident, aside) => { true };
    (@zero $self:ident, $field:ident, $($mode:ident)?) => {
        $crate::config::yaml::ToYaml::is_empty(&$self.$field)
    };

    (@emit $self:ident, $out:ident, $field:ident, ($key:expr), aside) => {};
    (@emit $self:ident, $out:ident, $field:ident, ($key:expr), inner) => {
        section!(@emit $self, $out, $field, ($key),);
    };
    (@emit $self:ident, $out:ident, $field:ident, ($key:expr),) => {
        if !$crate::config::yaml::ToYaml::is_empty(&$self.$field) {
            $out.push(($key.to_owned(), $crate::config::yaml::ToYaml::to_value(&$self.$field)));
        }
    };
}
pub(crate) use section;

/// Declares an enum of words: variant, its text, and the message for other texts.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$vmeta:meta])* $variant:ident = $text:literal ),* $(,)? }
        else $message:expr
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $( $(#[$vmeta])* $variant, )* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The text as it stands in a configuration.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $( Self::$variant => $text, )* }
            }

            /// Finds the word; the error is the message for an unknown one.
            pub fn parse(text: &str) -> Result<Self, String> {
                let message: fn(&str) -> String = $message;
                Self::ALL.iter().copied().find(|v| v.as_str() == text).ok_or_else(|| message(text))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $crate::config::yaml::FromYaml for $name {
            fn from_yaml(
                node: &$crate::config::yaml::Node,
                cx: &mut $crate::config::yaml::Context,
            ) -> Option<Self> {
                let text = String::from_yaml(node, cx)?;
                match Self::parse(&text) {
                    Ok(word) => Some(word),
                    Err(message) => {
                        cx.error(node.at, message);
                        None
                    }
                }
            }
        }

        impl $crate::config::yaml::ToYaml for $name {
            fn to_value(&self) -> $crate::config::yaml::Value {
                $crate::config::yaml::Value::Text(self.as_str().into())
            }

            fn is_empty(&self) -> bool {
                false
            }
        }
    };
}
pub(crate) use words;
