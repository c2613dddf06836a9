//! `columns`: `x = "integer"`, or `x = { jq, type, required, default, check, references, index, format }`.
//!
//! In: the node of a table's columns. Out: `Draft`s in the order written. Must not know: other tables.

use super::fault::{Fault, quote};
use super::node::{Entry, Node, Place, Value};
use super::read::{Fields, Sink};
use super::table::{is_identifier, plain, program};
use crate::shape::{Column, History, Program, Scalar, Type};
use serde_json::Value as Json;

/// A column as far as it could be read.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    /// `None` if anything of it is at fault.
    pub(super) column: Option<Column>,
    /// Where `references` stands.
    pub(super) references: Option<Place>,
    /// `required = false` was written.
    pub(super) optional: bool,
}

/// Reads all columns of a table.
pub(super) fn read(node: &Node, history: Option<History>, sink: &Sink) -> Result<Vec<Draft>, Fault> {
    let entries = node.table()?;
    if entries.is_empty() {
        return Err(node.fault("expected at least one column"));
    }
    Ok(entries.iter().map(|entry| column(entry, history, sink)).collect())
}

fn column(entry: &Entry, history: Option<History>, sink: &Sink) -> Draft {
    let named = sink.keep(column_name(entry, history)).is_some();
    let mut draft = Draft { name: entry.key.clone(), column: None, references: None, optional: false };
    let about = format!("columns.{}", entry.key.escape_debug());
    let short = match &entry.node.value {
        Value::Text(_) => true,
        Value::Given(text, _) => !text.trim_start().starts_with('{'),
        _ => false,
    };
    let column = if short {
        let ty = entry.node.text().and_then(|text| parse_type(&entry.node, text));
        sink.keep(ty.map_err(|fault| fault.about(&about))).and_then(|ty| {
            let program = Program::compile(&field(&draft.name)).ok()?;
            let name = draft.name.clone();
            Some(Column {
                name,
                ty,
                program,
                required: false,
                default: None,
                check: None,
                references: None,
                index: false,
            })
        })
    } else {
        let hint = "a column is a type, such as \"integer\", or { jq = …, type = … }";
        let fields = Fields::new("column", &entry.node, sink).map_err(|fault| fault.about(&about).hint(hint));
        sink.keep(fields).and_then(|fields| long(fields, &mut draft))
    };
    draft.column = column.filter(|_| named);
    draft
}

fn long(mut fields: Fields<'_>, draft: &mut Draft) -> Option<Column> {
    let program = match fields.entry("jq") {
        Some(_) => fields.get("jq", program),
        None => Program::compile(&field(&draft.name)).ok(),
    };
    let format = fields.entry("format").map(|entry| entry.node);
    let ty = fields.require("type", |node| typed(node, format.as_ref()));
    let required = fields.get("required", Node::boolean);
    draft.optional = required == Some(false);
    let default = fields.get("default", |node| {
        let json = node.json()?;
        match ty.as_ref().map(|ty| ty.takes(&json)) {
            Some(Err(message)) => Err(node.fault(message)),
            _ => Ok(json),
        }
    });
    let check = fields.get("check", |node| match node.text()? {
        text if text.trim().is_empty() => Err(node.fault("expected an SQL condition, got \"\"")),
        text => Ok(text.to_owned()),
    });
    let references = fields.get("references", |node| {
        draft.references = Some(node.place.clone());
        Ok(plain(node.text()?).to_owned())
    });
    let index = fields.get("index", Node::boolean).unwrap_or(false);
    fields.finish();
    let name = draft.name.clone();
    Some(Column {
        name,
        ty: ty?,
        program: program?,
        required: required == Some(true),
        default,
        check,
        references,
        index,
    })
}

/// The type; what is wrong with `format` is said at `format`.
fn typed(node: &Node, format: Option<&Node>) -> Result<Type, Fault> {
    let text = node.text()?;
    let plain = parse_type(node, text)?;
    let Some(at) = format else { return Ok(plain) };
    let format = at.text().map_err(|fault| fault.about("column.format"))?;
    if !matches!(plain.scalar, Scalar::Timestamptz(_)) {
        return Err(at.fault("only a timestamptz has it").about("column.format"));
    }
    Type::parse(text, Some(format)).map_err(|message| at.fault(message).about("column.format"))
}

fn parse_type(node: &Node, text: &str) -> Result<Type, Fault> {
    Type::parse(text, None).map_err(|message| node.fault(message))
}

fn column_name(entry: &Entry, history: Option<History>) -> Result<(), Fault> {
    const SYSTEM: [&str; 6] = ["ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"];
    let name = entry.key.as_str();
    if !is_identifier(name) {
        return Err(Fault::new(entry.place.clone(), format!("expected the name of a column, got {}", quote(name)))
            .hint("small letters, digits and `_`, no digit first, at most 63"));
    }
    if SYSTEM.contains(&name) {
        return Err(Fault::new(entry.place.clone(), format!("`{name}` is a system column of PostgreSQL")));
    }
    let Some(history) = history else { return Ok(()) };
    let closes = matches!(history, History::Change { .. }) && name == "valid_to";
    if name == "run_id" || name == history.instant_column() || closes {
        let message = format!("`{name}` is a column that history = \"{}\" adds", history.as_str());
        return Err(Fault::new(entry.place.clone(), message).hint("give it another name, and its path in `jq`"));
    }
    Ok(())
}

/// The jq path of a field that has a column's name.
fn field(name: &str) -> String {
    let keyword = [
        "and", "as", "catch", "def", "elif", "else", "end", "foreach", "if", "import", "include", "label", "not", "or",
        "reduce", "then", "try", "__loc__",
    ];
    if keyword.contains(&name) || !is_identifier(name) { format!(".{}", Json::from(name)) } else { format!(".{name}") }
}
