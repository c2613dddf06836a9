//! A compiled program: a plain path, or jq.
//!
//! In: the text of the configuration. Out: something that shapes any number of payloads, from any thread.
//! Must not know: payloads, tables, PostgreSQL.

use super::path::{GLOBALS, Path};
use super::{depth, json};
use jaq_core::compile::Undefined;
use jaq_core::data::JustLut;
use jaq_core::load::parse::Def;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::native::{self, Fun};
use jaq_core::{Compiler, Error};
use jaq_json::Val;
use serde::{Deserialize, Serialize, Serializer};
use std::fmt;
use std::ops::Range;
use std::sync::LazyLock;

/// jaq's compiled form.
pub(super) type Filter = jaq_core::Filter<JustLut<Val>>;

/// A program of the configuration, compiled once. Kept as its text.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub struct Program {
    source: String,
    pub(super) code: Code,
}

/// How it runs.
pub(super) enum Code {
    Plain(Path),
    Jq(Filter),
}

/// Why a program does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramError {
    /// Lower case, one line.
    pub message: String,
    /// Bytes of the program's text it is about.
    pub span: Range<usize>,
}

/// Filters that a payload's shape must not depend on: process, environment, clock, time zone of the machine.
const LEFT_OUT: [&str; 12] = [
    "env",
    "now",
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "localtime",
    "strflocaltime",
    "input",
    "inputs",
];

/// The definition that a program becomes.
const MAIN: &str = "trackd_main";

impl Program {
    /// Compiles jq text; `$run`, `$vars` and `$response` are known.
    ///
    /// # Errors
    /// `ProgramError` with the place in the text.
    pub fn compile(source: &str) -> Result<Program, ProgramError> {
        match Path::parse(source) {
            Some(path) => Ok(Program { source: source.to_owned(), code: Code::Plain(path) }),
            None => Program::compile_jq(source),
        }
    }

    /// Compiles jq text for the interpreter even where a plain path would do.
    pub(super) fn compile_jq(source: &str) -> Result<Program, ProgramError> {
        // Compiled as written first: its faults have their places.
        compiled(prelude().iter().cloned(), source)?;
        let main = load::parse(source, |parser| parser.term()).ok_or_else(|| {
            let message = "expected a program without module or import".to_owned();
            ProgramError { message, span: 0..source.len() }
        })?;
        let main = depth::guard(Def { name: MAIN, args: Vec::new(), body: main });
        let filter = compiled(prelude().iter().cloned().chain([main]), MAIN)?;
        Ok(Program { source: source.to_owned(), code: Code::Jq(filter) })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }
}

impl TryFrom<String> for Program {
    type Error = String;

    fn try_from(source: String) -> Result<Program, String> {
        Program::compile(&source).map_err(|error| error.message)
    }
}

impl Serialize for Program {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.source)
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Program").field(&self.source).finish()
    }
}

/// jq's own definitions, guarded.
fn prelude() -> &'static [Def<&'static str>] {
    static PRELUDE: LazyLock<Vec<Def<&'static str>>> = LazyLock::new(|| {
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        defs.filter(|def| !LEFT_OUT.contains(&def.name)).map(depth::guard).collect()
    });
    &PRELUDE
}

fn compiled<'s>(defs: impl Iterator<Item = Def<&'s str>>, source: &'s str) -> Result<Filter, ProgramError> {
    let arena = Arena::default();
    let file = File { code: source, path: () };
    let modules = Loader::new(defs).load(&arena, file).map_err(|faults| loading(source, faults))?;
    let compiler = Compiler::default().with_funs(funs()).with_global_vars(GLOBALS);
    compiler.compile(modules).map_err(|faults| compiling(source, faults))
}

fn funs() -> impl Iterator<Item = Fun<JustLut<Val>>> {
    let all = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    // jaq's own fromjson follows hostile nesting until the stack ends.
    all.filter(|(name, ..)| !LEFT_OUT.contains(name) && *name != "fromjson").chain([from_json(), depth::filter()])
}

fn from_json() -> Fun<JustLut<Val>> {
    native::run(("fromjson", native::v(0), |cv| {
        native::bome(match &cv.1 {
            Val::TStr(text) | Val::BStr(text) => match std::str::from_utf8(text).map(json::to_val) {
                Ok(Ok(val)) => Ok(val),
                Ok(Err(flaw)) => {
                    Err(Error::str(format_args!("cannot parse as JSON: {} at byte {}", flaw.what, flaw.at)))
                }
                Err(_) => Err(Error::str("cannot parse as JSON: not UTF-8")),
            },
            other => Err(Error::str(format_args!("cannot parse {other} as JSON: not a string"))),
        })
    }))
}

fn loading(source: &str, faults: load::Errors<&str, ()>) -> ProgramError {
    let first = faults.into_iter().next().map(|(_, fault)| match fault {
        load::Error::Io(imports) => {
            imports.first().map(|(path, _)| (String::from("modules cannot be imported"), span(source, path)))
        }
        load::Error::Lex(faults) => faults.first().map(|(expected, found)| {
            let unclosed = matches!(expected, load::lex::Expect::Delim(_));
            // An unclosed delimiter reports all that follows it: its first character is the place.
            let span = if unclosed { first_char(source, span(source, found)) } else { span(source, found) };
            (format!("expected {}", expected.as_str()), first_char(source, span))
        }),
        load::Error::Parse(faults) => faults.first().map(|(expected, found)| {
            let got = if found.is_empty() { "the end".into() } else { format!("`{found}`") };
            (format!("expected {}, got {got}", expected.as_str()), span(source, found))
        }),
    });
    fault(source, first.flatten())
}

fn compiling(source: &str, faults: jaq_core::compile::Errors<&str, ()>) -> ProgramError {
    let first = faults.into_iter().flat_map(|(_, faults)| faults).next().map(|(name, undefined)| {
        let message = match undefined {
            Undefined::Var if name == "$ENV" => "no $ENV: the environment is kept from programs".into(),
            Undefined::Var => format!("no variable {name}: there are {}", GLOBALS.join(", ")),
            Undefined::Filter(_) if LEFT_OUT.contains(&name) => {
                format!("no filter {name}: a program sees the response and its variables, nothing else")
            }
            Undefined::Filter(0) => format!("no filter {name}"),
            Undefined::Filter(arity) => format!("no filter {name} with {arity} arguments"),
            other => format!("no {} {name}", other.as_str()),
        };
        (message, span(source, name))
    });
    fault(source, first)
}

fn fault(source: &str, found: Option<(String, Range<usize>)>) -> ProgramError {
    let (message, span) = found.unwrap_or_else(|| ("not a jq program".into(), 0..source.len()));
    ProgramError { message, span }
}

/// Where a part lies in the text; all of the text when it is no part of it.
fn span(source: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(source.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= source.len() => start..end,
        _ => 0..source.len(),
    }
}

fn first_char(source: &str, span: Range<usize>) -> Range<usize> {
    let width = source[span.start..].chars().next().map_or(0, char::len_utf8);
    span.start..span.start + width
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_of(source: &str) -> (String, String) {
        let fault = Program::compile(source).unwrap_err();
        (fault.message, source[fault.span].to_owned())
    }

    #[test]
    fn a_program_is_shared_between_threads() {
        fn shared<T: Send + Sync + 'static>() {}
        shared::<Program>();
    }

    #[test]
    fn plain_paths_need_no_interpreter() {
        for text in [
            ".",
            ".a.b",
            ".a[]",
            ".leaderboard[]",
            ".\"x y\"",
            ".[\"x\"]",
            ".[0]",
            ".[]",
            ".a[0].b",
            ".a[].b",
            "$vars.season",
            "$run.id",
            "$vars.seasons[]",
            " .a ",
            ".[\"a\"].b",
            ".a.\"b\"[]",
            "$vars",
        ] {
            assert!(matches!(Program::compile(text).unwrap().code, Code::Plain(_)), "{text}");
        }
        for text in ["..", ".a?", ".a | .b", ".[-1]", ".\"\\(1)\"", ".a // 1", ".[1:2]", ". a", ".a.[0]"] {
            assert!(!matches!(Program::compile(text).map(|p| p.code), Ok(Code::Plain(_))), "{text}");
        }
    }

    #[test]
    fn faults_say_what_and_where() {
        assert_eq!(
            fault_of(".a + $seson"),
            ("no variable $seson: there are $run, $vars, $response".into(), "$seson".into())
        );
        assert_eq!(fault_of(".a | toint"), ("no filter toint".into(), "toint".into()));
        assert_eq!(fault_of(".a | map(.b"), ("expected closing parenthesis".into(), "".into()));
        assert_eq!(fault_of("if . then 1"), ("expected else or end, got the end".into(), "".into()));
        assert_eq!(fault_of(".a | )"), ("expected token".into(), ")".into()));
        assert_eq!(fault_of("import \"m\" as m; m::f").0, "modules cannot be imported");
        assert!(Program::compile("").is_err());
    }

    #[test]
    fn programs_see_neither_environment_nor_clock() {
        for text in [
            "env",
            "$ENV",
            "$ENV.HOME",
            "now",
            "input",
            "inputs",
            "input_filename",
            "debug",
            "stderr",
            "halt",
            "halt(1)",
            "halt_error",
            "localtime",
            "strflocaltime(\"%Y\")",
            "get_search_list",
        ] {
            assert!(Program::compile(text).is_err(), "{text}");
        }
    }
}
