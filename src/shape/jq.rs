//! Rows by jq: programs run over one document tree; plain paths among them walk it without the interpreter.
//!
//! In: the document and the global variables as jq values, a table. Out: values into a `Pass`.
//! Must not know: bytes of a body, PostgreSQL.

use super::json;
use super::path::{Miss, Path, Root};
use super::program::{Code, Filter, Program};
use super::row::Pass;
use super::table::Table;
use super::value::Value;
use jaq_core::data::JustLut;
use jaq_core::{Ctx, Vars, unwrap_valr};
use jaq_json::Val;
use std::ops::ControlFlow;

/// Why a rows program gave no rows, or none any more.
#[derive(Debug)]
pub(super) enum Stop {
    Miss(Miss),
    /// The program's own words.
    Failed(String),
}

/// Where a column's value comes from.
enum Source<'t> {
    /// The same for all rows.
    Constant(Val),
    /// One step after another into the row.
    Path(&'t Path, Vec<Val>),
    /// Any program, a path that may yield several values included.
    Run(&'t Program),
}

/// Values of `$run`, `$vars`, `$response`, in this order.
pub(super) type Variables = [Val; 3];

/// Makes rows until the program or the sink ends.
///
/// # Errors
/// The rows program failed; rows before that are in the pass.
pub(super) fn walk(document: &Val, globals: &Variables, table: &Table, pass: &mut Pass<'_>) -> Result<(), Stop> {
    let sources: Vec<Source<'_>> = table.columns.iter().map(|c| Source::of(&c.program, globals)).collect();
    let row = |row: &Val, pass: &mut Pass<'_>| {
        pass.begin();
        for (source, column) in sources.iter().zip(&table.columns) {
            if pass.is_bad() {
                break;
            }
            if let Err(why) = source.value(row, globals, &mut |value| pass.field(&value)) {
                pass.fail(column, &why);
            }
        }
        pass.end(|| json::printable_val(row))
    };
    match &table.rows.code {
        Code::Plain(path) => path.walk(&path.names(), start(path, document, globals), &mut |at| row(at, pass)).map_err(Stop::Miss),
        Code::Jq(filter) => {
            for at in run(filter, document, globals) {
                if row(&at.map_err(Stop::Failed)?, pass).is_break() {
                    break;
                }
            }
            Ok(())
        }
    }
}

/// The values of the columns whose plain paths start at a global variable; the others are null.
pub(super) fn constants(table: &Table, globals: &Variables) -> Vec<Result<Val, String>> {
    let constant = |program: &Program| match &program.code {
        Code::Plain(path) if path.root != Root::Input => only(path, &path.names(), start(path, &Val::Null, globals)).cloned(),
        _ => Ok(Val::Null),
    };
    table.columns.iter().map(|column| constant(&column.program)).collect()
}

impl<'t> Source<'t> {
    fn of(program: &'t Program, globals: &Variables) -> Self {
        let Code::Plain(path) = &program.code else { return Source::Run(program) };
        if !path.single() {
            return Source::Run(program);
        }
        let names = path.names();
        match path.root {
            Root::Input => Source::Path(path, names),
            Root::Global(which) => match only(path, &names, &globals[which]) {
                Ok(constant) => Source::Constant(constant.clone()),
                // Told once for each row, as any other fault of a column.
                Err(_) => Source::Run(program),
            },
        }
    }

    /// Hands on the one value for a row; none is null.
    fn value(&self, row: &Val, globals: &Variables, put: &mut dyn FnMut(Value<'_>)) -> Result<(), String> {
        match self {
            Source::Constant(constant) => put(Value::of_val(constant)),
            Source::Path(path, names) => put(Value::of_val(only(path, names, row)?)),
            Source::Run(program) => {
                let value = match &program.code {
                    Code::Plain(path) => each(path, start(path, row, globals))?,
                    Code::Jq(filter) => one(run(filter, row, globals))?,
                };
                put(Value::of_val(&value));
            }
        }
        Ok(())
    }
}

fn start<'v>(path: &Path, input: &'v Val, globals: &'v Variables) -> &'v Val {
    match path.root {
        Root::Input => input,
        Root::Global(which) => &globals[which],
    }
}

/// The value of a path that yields no more than one.
fn only<'v>(path: &Path, names: &[Val], from: &'v Val) -> Result<&'v Val, String> {
    let mut found = None;
    let walked = path.walk(names, from, &mut |at| {
        found = Some(at);
        ControlFlow::Continue(())
    });
    walked.map_err(|miss| miss.told(path))?;
    Ok(found.unwrap_or(super::path::NULL))
}

/// The value of a path with `[]` in it.
fn each(path: &Path, from: &Val) -> Result<Val, String> {
    let mut found = Vec::new();
    let walked = path.walk(&path.names(), from, &mut |at| {
        found.push(Ok(at.clone()));
        if found.len() < 2 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    walked.map_err(|miss| miss.told(path))?;
    one(found.into_iter())
}

fn one(mut values: impl Iterator<Item = Result<Val, String>>) -> Result<Val, String> {
    let first = values.next().transpose()?.unwrap_or_default();
    match values.next() {
        None => Ok(first),
        Some(Err(failed)) => Err(failed),
        Some(Ok(_)) => Err("its program yields more than one value".into()),
    }
}

fn run<'f>(filter: &'f Filter, input: &Val, globals: &Variables) -> impl Iterator<Item = Result<Val, String>> + 'f {
    let context = Ctx::<JustLut<Val>>::new(&filter.lut, Vars::new(globals.iter().cloned()));
    // jaq quotes the values it stumbles over: a whole document has no place in a reason.
    filter.id.run((context, input.clone())).map(|value| unwrap_valr(value).map_err(|failed| told(&failed.to_string())))
}

fn told(failed: &str) -> String {
    const LONGEST: usize = 240;
    let mut line: String = failed.chars().take(LONGEST).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if line.len() < failed.len() {
        line.push('…');
    }
    line
}
