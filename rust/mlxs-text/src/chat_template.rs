//! Chat templates: Jinja text rendered by minijinja in the environment that transformers gives them.

use crate::error::{Result, TextError};
use crate::python::{self, JsonStyle};
use chrono::{DateTime, Local};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, from_args};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State};
use minijinja_contrib::pycompat;
use std::fmt::{self, Write};

const NAME: &str = "chat template";

/// Immutable; used by all threads at once.
pub struct ChatTemplate {
    environment: Environment<'static>,
}

/// The text that a template gave to raise_exception.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

impl ChatTemplate {
    /// `bos_token` and `eos_token` are the strings of these names in the template.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| TextError::model(error.to_string(), ""))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(|out, _, value| out.write_str(&python::str_of(value)).map_err(Error::from));
        environment.set_unknown_method_callback(method);
        environment.add_filter("tojson", to_json);
        environment.add_filter("replace", replace);
        environment.add_filter("string", |value: &Value| python::str_of(value));
        // As Python has it: None is neither; strings, dicts and what is undefined are both.
        environment.add_test("iterable", |value: &Value| !value.is_none() && value.try_iter().is_ok());
        environment.add_test("sequence", |value: &Value| value.is_undefined() || value.len().is_some());
        environment.add_function("raise_exception", raise_exception);
        environment.add_global("bos_token", bos_token);
        environment.add_global("eos_token", eos_token);
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(|error| {
            TextError::model(
                format!("the chat template does not parse: {}", describe(&error)),
                "the template is damaged or uses what Jinja does not have",
            )
        })?;
        Ok(Self { environment })
    }

    /// `context`: a JSON object. `unix_seconds`: what strftime_now shows, in the local time zone.
    pub fn render(&self, context: &str, unix_seconds: i64) -> Result<String> {
        let mut context: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(context).map_err(|error| {
                TextError::input(format!("the template context is not a JSON object: {error}"), "")
            })?;
        if let Some(serde_json::Value::Array(messages)) = context.get_mut("messages") {
            messages.iter_mut().for_each(alias_reasoning);
        }
        // What transformers passes even where the caller gave nothing.
        let mut variables = vec![
            ("tools".to_owned(), Value::from(())),
            ("documents".to_owned(), Value::from(())),
            ("add_generation_prompt".to_owned(), Value::from(false)),
            ("strftime_now".to_owned(), strftime_now(unix_seconds)),
        ];
        variables.extend(context.into_iter().map(|(name, value)| (name, from_json(value))));
        let template = self.environment.get_template(NAME);
        template.and_then(|template| template.render(Value::from_pairs(variables))).map_err(|error| {
            match raised(&error) {
                Some(message) => {
                    TextError::input(message, "the model's chat template refuses these messages")
                }
                None => TextError::input(
                    format!("the chat template failed: {}", describe(&error)),
                    "the messages do not have the form that the model's template expects",
                ),
            }
        })
    }
}

/// Clients and templates have three names for a message's reasoning: whatever name it came under, "reasoning_content"
/// holds it, and "thinking" unless the message has its own.
fn alias_reasoning(message: &mut serde_json::Value) {
    const NAMES: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
    let Some(fields) = message.as_object_mut() else { return };
    let Some(reasoning) =
        NAMES.iter().find_map(|name| fields.get(*name).filter(|text| !text.is_null())).cloned()
    else {
        return;
    };
    let mut aliased = serde_json::Map::new();
    aliased.insert("thinking".to_owned(), reasoning.clone());
    aliased.extend(std::mem::take(fields));
    aliased.insert("reasoning_content".to_owned(), reasoning);
    *fields = aliased;
}

fn from_json(json: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(value),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Value::from(value),
            (None, Some(value)) => Value::from(value),
            (None, None) => Value::from(number.as_f64()),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => Value::from(items.into_iter().map(from_json).collect::<Vec<_>>()),
        Json::Object(entries) => {
            Value::from_pairs(entries.into_iter().map(|(key, item)| (key, from_json(item))))
        }
    }
}

fn describe(error: &Error) -> String {
    let what = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}

fn raised(error: &Error) -> Option<String> {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Some(message.clone());
        }
        cause = error.source();
    }
    None
}

fn raise_exception(message: &Value) -> std::result::Result<Value, Error> {
    let message = python::str_of(message);
    Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
}

fn strftime_now(unix_seconds: i64) -> Value {
    Value::from_function(move |format: &str| {
        let utc = DateTime::from_timestamp(unix_seconds, 0).unwrap_or_default();
        let mut out = String::new();
        match write!(out, "{}", utc.with_timezone(&Local).format(format)) {
            Ok(()) => Ok(out),
            Err(_) => Err(Error::new(
                ErrorKind::InvalidOperation,
                format!("strftime_now does not know the format '{format}'"),
            )),
        }
    })
}

/// transformers' tojson: json.dumps without HTML escapes.
fn to_json(value: &Value, args: Rest<Value>, options: Kwargs) -> std::result::Result<String, Error> {
    let argument = |index: usize, name: &str| -> std::result::Result<Option<Value>, Error> {
        let given = match args.get(index) {
            Some(value) => Some(value.clone()),
            None => options.get(name)?,
        };
        Ok(given.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let is_set = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = is_set(argument(0, "ensure_ascii")?);
    let indent = match argument(1, "indent")? {
        None => None,
        Some(text) if text.kind() == ValueKind::String => Some(python::str_of(&text)),
        Some(count) => Some(" ".repeat(usize::try_from(count)?)),
    };
    let (item_separator, key_separator) = match argument(2, "separators")? {
        Some(pair) => (pair.get_item_by_index(0)?, pair.get_item_by_index(1)?),
        None if indent.is_some() => (Value::from(","), Value::from(": ")),
        None => (Value::from(", "), Value::from(": ")),
    };
    let style = JsonStyle {
        ensure_ascii,
        indent,
        item_separator: python::str_of(&item_separator),
        key_separator: python::str_of(&key_separator),
        sort_keys: is_set(argument(3, "sort_keys")?),
    };
    options.assert_all_used()?;
    python::json_of(value, &style)
}

/// Jinja's replace: of the first `count` places only, if given.
fn replace(text: &Value, old: &Value, new: &Value, count: Option<usize>) -> String {
    let [text, old, new] = [text, old, new].map(python::str_of);
    text.replacen(&old, &new, count.unwrap_or(usize::MAX))
}

/// Python's methods: those of minijinja-contrib and the string methods that it leaves out.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> std::result::Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, name, args);
    };
    match name {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.split_once(separator).unwrap_or((text, ""));
            let found = &text[before.len()..text.len() - after.len()];
            Ok(Value::from(Tuple::from([before, found, after].map(Value::from))))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(args)?;
            let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
            let found = &text[before.len()..text.len() - after.len()];
            Ok(Value::from(Tuple::from([before, found, after].map(Value::from))))
        }
        "rsplit" => {
            let (separator, limit): (&str, Option<i64>) = from_args(args)?;
            let limit = limit.and_then(|limit| usize::try_from(limit).ok());
            let parts = text.rsplitn(limit.map_or(usize::MAX, |limit| limit.saturating_add(1)), separator);
            let mut parts: Vec<Value> = parts.map(Value::from).collect();
            parts.reverse();
            Ok(Value::from(parts))
        }
        _ => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// `{% generation %}` marks the assistant's tokens for training and renders its body: an `if` that is always taken,
/// which keeps the white-space control of the tags.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let end = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let inner = tag[..end].trim_start_matches("{%").trim_end_matches("%}");
        let statement = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        match statement.trim() {
            "generation" => out.push_str(&tag[..end].replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag[..end].replace("endgeneration", "endif")),
            _ => out.push_str(&tag[..end]),
        }
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str, context: &str) -> Result<String> {
        ChatTemplate::new(source, "<s>", "</s>")?.render(context, 0)
    }

    fn rendered(source: &str) -> String {
        render(source, r#"{"b": [1, 2.0, null, true], "text": "ab,ab", "m": {"z": "é<'", "a": {}}}"#).unwrap()
    }

    #[test]
    fn prints_as_python_does() {
        assert_eq!(
            rendered("{{ b }} {{ b[3] }} {{ none }} {{ missing }}|"),
            "[1, 2.0, None, True] True None |"
        );
        assert_eq!(rendered("{{ m }}{{ bos_token }}"), r#"{'z': "é<'", 'a': {}}<s>"#);
        assert_eq!(rendered("{{ true|string + b[0]|string }}"), "True1");
    }

    #[test]
    fn json_as_python_does() {
        assert_eq!(rendered("{{ m|tojson }}"), r#"{"z": "é<'", "a": {}}"#);
        assert_eq!(
            rendered("{{ m|tojson(ensure_ascii=true, sort_keys=true) }}"),
            r#"{"a": {}, "z": "\u00e9<'"}"#
        );
        assert_eq!(rendered("{{ b|tojson(indent=2) }}"), "[\n  1,\n  2.0,\n  null,\n  true\n]");
        assert_eq!(rendered("{{ b|tojson(separators=(',', ':')) }}"), "[1,2.0,null,true]");
        assert!(render("{{ missing|tojson }}", "{}").is_err());
        assert!(render("{{ 1|tojson(colour=1) }}", "{}").is_err());
    }

    #[test]
    fn string_methods() {
        assert_eq!(rendered("{{ text.partition(',') }}"), "('ab', ',', 'ab')");
        assert_eq!(rendered("{{ text.rpartition('b') }}"), "('ab,a', 'b', '')");
        assert_eq!(
            rendered("{{ text.partition('x') }}{{ text.rpartition('x') }}"),
            "('ab,ab', '', '')('', '', 'ab,ab')"
        );
        assert_eq!(rendered("{{ text.rsplit('a', 1) }}"), "['ab,', 'b']");
        assert_eq!(rendered("{{ text.removeprefix('a').removesuffix('b') }}"), "b,a");
        assert_eq!(rendered("{{ text.split(',')[-1].upper() }}"), "AB");
    }

    #[test]
    fn generation_tags_keep_white_space_control() {
        let source = "a {%- generation -%} b {% endgeneration %}\nc{% if true %}{% endif %}";
        assert_eq!(rendered(source), "ab c");
    }

    #[test]
    fn blocks_are_trimmed() {
        assert_eq!(rendered("x\n  {% if true %}\n  y\n  {% endif %}\nz\n"), "x\n  y\nz");
    }

    #[test]
    fn errors_say_what_and_where() {
        let error = render("a\n{% if %}", "{}").unwrap_err();
        assert!(error.message.contains("line 2"), "{}", error.message);
        assert_eq!(error.fault, crate::error::Fault::Model);
        let error =
            render("{% macro f() %}{{ raise_exception('No ' + 'way') }}{% endmacro %}\n{{ f() }}", "{}")
                .unwrap_err();
        assert_eq!(error.message, "No way");
        assert_eq!(error.fault, crate::error::Fault::Input);
        let error = render("\n{{ a.b.c }}", "{}").unwrap_err();
        assert!(error.message.contains("line 2"), "{}", error.message);
        assert!(render("x", "[]").is_err());
    }

    #[test]
    fn the_time_is_given() {
        let template = ChatTemplate::new("{{ strftime_now('%Y') }}", "", "").unwrap();
        assert_eq!(template.render("{}", 1_750_000_000).unwrap(), "2025");
        let wrong = ChatTemplate::new("{{ strftime_now('%!') }}", "", "").unwrap();
        assert!(wrong.render("{}", 0).is_err());
    }
}
