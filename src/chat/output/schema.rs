//! What a request's tools say about the types of their parameters.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;

use super::cast;

/// How many schemas are looked at for one parameter.
const MAX_SCHEMAS: usize = 256;

/// The declared functions.
pub struct Functions(HashMap<String, Arc<Parameters>>);

/// The schema of a function's parameters. It is read only for the parameters that an answer contains.
pub struct Parameters(Value);

/// What a value may be, in the order in which it is tried. Nothing: a string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Kinds(Vec<Kind>);

#[derive(Clone, Debug, PartialEq)]
enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Null,
    Array,
    Object,
    Literal(Value),
}

impl Functions {
    /// The functions of `tools`, in OpenAI's form or bare. One without a name can be called by nobody and is left out.
    pub fn declared(tools: &[Value]) -> Functions {
        let functions = tools.iter().map(|tool| tool.get("function").unwrap_or(tool));
        let named = functions.filter_map(|function| Some((function.get("name")?.as_str()?, function)));
        let schema = |function: &Value| Parameters(function.get("parameters").cloned().unwrap_or_default());
        Functions(named.map(|(name, function)| (name.to_owned(), Arc::new(schema(function)))).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn declares(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The parameters of a function, if it is declared.
    pub fn parameters(&self, name: &str) -> Option<Arc<Parameters>> {
        self.0.get(name).cloned()
    }
}

impl Parameters {
    /// What the value of `key` may be.
    pub fn kinds(&self, key: &str) -> Kinds {
        let schema = self.0.get("properties").and_then(|properties| properties.get(key));
        schema.map(|schema| Kinds::of(schema, &self.0)).unwrap_or_default()
    }
}

impl Kinds {
    /// A text as JSON of the first kind that fits, or as a string.
    pub fn cast(&self, text: &str) -> String {
        self.0.iter().find_map(|kind| kind.cast(text)).unwrap_or_else(|| cast::string(text))
    }

    /// Whether every value that begins with `text` is a string.
    pub fn leave_only_a_string(&self, text: &str) -> bool {
        match self.0[..] {
            [] | [Kind::String, ..] => true,
            [Kind::Null, Kind::String, ..] => text.len() > cast::MAX_NULL_BYTES,
            _ => false,
        }
    }

    fn of(schema: &Value, root: &Value) -> Kinds {
        let mut kinds = Kinds::default();
        kinds.collect(schema, root, &mut Vec::new());
        kinds.put_null_before_string();
        kinds
    }

    /// Adds what `schema` allows. `root` is where its references point to; `seen` ends references in a circle.
    fn collect<'s>(&mut self, schema: &'s Value, root: &'s Value, seen: &mut Vec<&'s Value>) {
        if seen.len() == MAX_SCHEMAS || seen.iter().any(|other| std::ptr::eq(*other, schema)) {
            return;
        }
        seen.push(schema);
        if let Some(target) = schema.get("$ref").and_then(|reference| referred(reference, root)) {
            self.collect(target, root, seen);
        }
        self.collect_literals(schema);
        for name in one_or_many(schema.get("type")) {
            self.add(Kind::named(name));
        }
        for alternatives in ["anyOf", "oneOf", "allOf"] {
            for alternative in schema.get(alternatives).and_then(Value::as_array).into_iter().flatten() {
                self.collect(alternative, root, seen);
            }
        }
        if schema.get("nullable") == Some(&Value::Bool(true)) {
            self.add(Some(Kind::Null));
        }
    }

    /// Adds the values of `enum` and `const`; where they are all strings, any string will do.
    fn collect_literals(&mut self, schema: &Value) {
        let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
        let literals: Vec<&Value> = listed.chain(schema.get("const")).collect();
        if literals.iter().all(|literal| literal.is_string()) {
            return self.add(literals.first().map(|_| Kind::String));
        }
        self.0.extend(literals.into_iter().cloned().map(Kind::Literal));
    }

    fn add(&mut self, kind: Option<Kind>) {
        self.0.extend(kind.filter(|kind| !self.0.contains(kind)));
    }

    /// Any text is a string, so a null behind it would never be tried; but where null is allowed, `null` means it.
    fn put_null_before_string(&mut self) {
        let place = |kind| self.0.iter().position(|other| *other == kind);
        if let (Some(string), Some(null)) = (place(Kind::String), place(Kind::Null))
            && string < null
        {
            self.0[string..=null].rotate_right(1);
        }
    }
}

impl Kind {
    fn named(name: &str) -> Option<Kind> {
        match name {
            "string" => Some(Kind::String),
            "integer" => Some(Kind::Integer),
            "number" => Some(Kind::Number),
            "boolean" => Some(Kind::Boolean),
            "null" => Some(Kind::Null),
            "array" => Some(Kind::Array),
            "object" => Some(Kind::Object),
            _ => None,
        }
    }

    fn cast(&self, text: &str) -> Option<String> {
        match self {
            Kind::String => Some(cast::string(text)),
            Kind::Integer => cast::integer(text),
            Kind::Number => cast::number(text),
            Kind::Boolean => cast::boolean(text),
            Kind::Null => cast::null(text),
            Kind::Array => cast::array(text),
            Kind::Object => cast::object(text),
            Kind::Literal(value) => cast::literal(text, value),
        }
    }
}

/// What `#/$defs/NAME` points to in `root`.
fn referred<'s>(reference: &Value, root: &'s Value) -> Option<&'s Value> {
    root.pointer(reference.as_str()?.strip_prefix('#')?)
}

/// A name, or a list of names.
fn one_or_many(names: Option<&Value>) -> impl Iterator<Item = &str> {
    let many = names.and_then(Value::as_array).into_iter().flatten();
    names.into_iter().chain(many).filter_map(Value::as_str)
}
