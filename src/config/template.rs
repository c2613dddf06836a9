//! `{{ … }}` in strings: minijinja with strict undefined, compiled once.
//!
//! In: the text as written, `vars` and `credential`. Out: a text per run; a template that does not look at `run` is filled once,
//! when it is bound, and costs nothing after. Must not know: HTTP, files, who uses the text.

use super::credential::Credentials;
use minijinja::{Environment, UndefinedBehavior, Value, context, syntax::SyntaxConfig};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

const NAME: &str = "template";

/// A compiled template. `Debug` does not show it: what it becomes may hold a secret.
#[derive(Clone)]
pub struct Template {
    source: String,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Constant(String),
    Live(Arc<Environment<'static>>),
}

impl Template {
    /// Compiles `source`; nothing is looked up yet.
    ///
    /// # Errors
    /// The message and the byte span in `source`.
    pub fn compile(source: &str) -> Result<Template, (String, Range<usize>)> {
        if !["{{", "{%", "{#"].iter().any(|mark| source.contains(mark)) {
            return Ok(Template { source: source.to_owned(), kind: Kind::Constant(source.to_owned()) });
        }
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_debug(true);
        environment.set_syntax(
            SyntaxConfig::builder()
                .keep_trailing_newline(true)
                .build()
                .map_err(|error| (error.to_string(), 0..source.len()))?,
        );
        environment.add_template_owned(NAME, source.to_owned()).map_err(|error| placed(&error, source))?;
        Ok(Template { source: source.to_owned(), kind: Kind::Live(Arc::new(environment)) })
    }

    /// Lets it see secrets, as `credential`.
    pub(super) fn with(mut self, credentials: &Arc<Credentials>) -> Template {
        if let Kind::Live(environment) = &mut self.kind {
            let credential = Value::from_dyn_object(Arc::clone(credentials));
            Arc::make_mut(environment).add_global("credential", credential);
        }
        self
    }

    /// Fixes `vars`, and gives the text for an imagined run, so that its form can be checked.
    ///
    /// A template that does not look at `run` is constant from here on.
    ///
    /// # Errors
    /// The message and the byte span in the source: a value is undefined, a filter fails.
    pub fn bind(self, vars: &Value) -> Result<(Template, String), (String, Range<usize>)> {
        let environment = match &self.kind {
            Kind::Constant(text) => {
                let text = text.clone();
                return Ok((self, text));
            }
            Kind::Live(environment) => environment,
        };
        let template = environment.get_template(NAME).map_err(|error| placed(&error, &self.source))?;
        let run = context! {
            id => "00000000-0000-8000-8000-000000000000",
            tracker => "example",
            scheduled_at => "2025-10-18T00:00:00Z",
            attempt => 1,
        };
        let text =
            template.render(context! { vars => vars, run => run }).map_err(|error| placed(&error, &self.source))?;
        let kind = match template.undeclared_variables(false).contains("run") {
            true => self.kind,
            false => Kind::Constant(text.clone()),
        };
        Ok((Template { source: self.source, kind }, text))
    }

    /// Fills it. `context` has `vars` and `run` (id, tracker, scheduled_at, attempt).
    ///
    /// # Errors
    /// One line: an undefined value, a filter that fails.
    pub fn render(&self, context: &Value) -> Result<String, String> {
        match &self.kind {
            Kind::Constant(text) => Ok(text.clone()),
            Kind::Live(environment) => environment
                .get_template(NAME)
                .and_then(|template| template.render(context))
                .map_err(|error| placed(&error, &self.source).0),
        }
    }

    /// Whether it looks at `name`.
    pub(super) fn sees(&self, name: &str) -> bool {
        match &self.kind {
            Kind::Constant(_) => false,
            Kind::Live(environment) => {
                environment.get_template(NAME).is_ok_and(|template| template.undeclared_variables(false).contains(name))
            }
        }
    }

    /// The text it always gives, if it is the same for every run.
    pub fn constant(&self) -> Option<&str> {
        match &self.kind {
            Kind::Constant(text) => Some(text),
            Kind::Live(_) => None,
        }
    }

    /// The text as written.
    pub fn source(&self) -> &str {
        &self.source
    }
}

/// The empty text.
impl Default for Template {
    fn default() -> Template {
        Template { source: String::new(), kind: Kind::Constant(String::new()) }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[template]")
    }
}

/// JSON as a template sees it.
pub fn value(json: &serde_json::Value) -> Value {
    use serde_json::Value as Json;
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(*yes),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(integer), _) => Value::from(integer),
            (None, Some(float)) => Value::from(float),
            (None, None) => Value::from(number.to_string()),
        },
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(value).collect::<Vec<_>>()),
        Json::Object(pairs) => Value::from_pairs(pairs.iter().map(|(key, json)| (key.as_str(), value(json)))),
    }
}

/// minijinja's error in our words, with the part of the template it is about.
fn placed(error: &minijinja::Error, source: &str) -> (String, Range<usize>) {
    let span = error.range().filter(|range| source.get(range.clone()).is_some_and(|part| !part.is_empty()));
    let kind = error.kind().to_string();
    let message = match (error.kind(), &span) {
        (minijinja::ErrorKind::UndefinedError, Some(range)) => format!("undefined value `{}`", &source[range.clone()]),
        _ => match error.detail() {
            Some(detail) => format!("template {kind}: {detail}"),
            None => format!("template {kind}"),
        },
    };
    (message.replace(['\n', '\r'], " "), span.unwrap_or(0..source.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Value {
        value(&serde_json::json!({"arena": "https://nof1.ai/api", "season": 1.5}))
    }

    #[test]
    fn a_template_of_vars_alone_is_filled_once() {
        let (template, _) =
            Template::compile("{{ vars.arena }}/trades?s={{ vars.season }}").unwrap().bind(&vars()).unwrap();
        assert_eq!(template.constant(), Some("https://nof1.ai/api/trades?s=1.5"));
    }

    #[test]
    fn a_template_that_looks_at_the_run_is_filled_for_each_run() {
        let (template, _) = Template::compile("at={{ run.scheduled_at }}\n").unwrap().bind(&vars()).unwrap();
        assert_eq!(template.constant(), None);
        let context = context! { vars => vars(), run => context! { scheduled_at => "T" } };
        assert_eq!(template.render(&context).unwrap(), "at=T\n");
        assert_eq!(template.render(&context! {}).unwrap_err(), "undefined value `run.scheduled_at`");
    }

    #[test]
    fn an_undefined_var_is_named_with_its_place() {
        let source = "{{ vars.arena }}/{{ vars.seson }}";
        let (message, span) = Template::compile(source).unwrap().bind(&vars()).unwrap_err();
        assert_eq!((message.as_str(), &source[span]), ("undefined value `vars.seson`", "vars.seson"));
    }

    #[test]
    fn nothing_of_a_template_is_printed() {
        assert_eq!(format!("{:?}", Template::compile("token=abc").unwrap()), "[template]");
    }
}
