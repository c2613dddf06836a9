//! Recursion that ends in an error, where jaq's would end the process or never end.
//!
//! jaq follows calls on the thread's own stack, and a stack that overflows takes the whole process with it: a
//! recursive program over a response that grew would stop every tracker. So each definition that calls itself, jq's
//! own loops among them, first asks how much of the stack is left, and whether anybody still waits. Tail calls stay
//! tail calls.
//!
//! In: jq definitions as parsed. Out: the same, guarded; the filter that asks. Must not know: payloads, tables.

use jaq_core::Error;
use jaq_core::data::JustLut;
use jaq_core::load::lex::StrPart;
use jaq_core::load::parse::{BinaryOp, Def, Pattern, Term};
use jaq_core::native::{self, Fun};
use jaq_core::path::Part;
use jaq_json::Val;
use std::cell::{Cell, RefCell};

/// No program can name it: it is no word of jq.
const GUARD: &str = "!deep";
/// What one step between two guards may take at most.
const RESERVE: usize = 1 << 20;

thread_local! {
    /// The address below which nothing recurses further; 0 where the size of the stack is not known.
    static FLOOR: Cell<usize> = const { Cell::new(0) };
    /// Whether nobody waits for what this thread does.
    static GONE: RefCell<Option<Box<dyn Fn() -> bool>>> = const { RefCell::new(None) };
}

/// Says what programs on this thread may take: all of its stack, of so many bytes, and time until `gone`.
///
/// To be called where the thread begins; it holds for the rest of its life.
pub fn bound_thread(stack: usize, gone: impl Fn() -> bool + 'static) {
    FLOOR.set(here().saturating_sub(stack.saturating_sub(RESERVE)));
    GONE.set(Some(Box::new(gone)));
}

/// About where the stack ends now; it grows downwards on all that trackd runs on.
fn here() -> usize {
    let local = 0_u8;
    std::ptr::from_ref(&local).addr()
}

/// The filter that asks.
pub(super) fn filter() -> Fun<JustLut<Val>> {
    native::run((GUARD, native::v(0), |_| {
        let gone = GONE.with_borrow(|gone| gone.as_ref().is_some_and(|gone| gone()));
        native::bome(match here() < FLOOR.get() {
            true => Err(Error::str("the program calls itself too deeply")),
            false if gone => Err(Error::str("the program took too long")),
            false => Ok(Val::Null),
        })
    }))
}

/// Guards the definition, and those inside it, as far as they call themselves.
pub(super) fn guard(mut def: Def<&str>) -> Def<&str> {
    guard_inside(&mut def.body);
    if calls(&mut def.body, def.name, def.args.len()) {
        let body = Box::new(std::mem::take(&mut def.body));
        // Bound, not piped: in a path or an update the body must still see its own input.
        let bound = BinaryOp::Pipe(Some(Pattern::Var("$!deep")));
        def.body = Term::BinOp(Box::new(Term::Call(GUARD, Vec::new())), bound, body);
    }
    def
}

fn guard_inside(term: &mut Term<&str>) {
    if let Term::Def(defs, rest) = term {
        *defs = std::mem::take(defs).into_iter().map(guard).collect();
        return guard_inside(rest);
    }
    each(term, &mut guard_inside);
}

/// Whether a term calls a filter of this name. One of the same name that stands for another is guarded in vain.
fn calls(term: &mut Term<&str>, name: &str, arity: usize) -> bool {
    let mut found = matches!(term, Term::Call(called, args) if *called == name && args.len() == arity);
    each(term, &mut |inner| found = found || calls(inner, name, arity));
    found
}

/// Visits the terms that a term is made of.
fn each<'s>(term: &mut Term<&'s str>, visit: &mut dyn FnMut(&mut Term<&'s str>)) {
    match term {
        Term::Id | Term::Recurse | Term::Num(_) | Term::Break(_) | Term::Var(_) | Term::Arr(None) => {}
        Term::Arr(Some(inner)) | Term::Neg(inner) | Term::Label(_, inner) => visit(inner),
        Term::Str(_, parts) => parts.iter_mut().for_each(|part| {
            if let StrPart::Term(inner) = part {
                visit(inner);
            }
        }),
        Term::Obj(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            visit(key);
            value.iter_mut().for_each(&mut *visit);
        }),
        Term::BinOp(left, op, right) => {
            visit(left);
            if let BinaryOp::Pipe(Some(pattern)) = op {
                each_of(pattern, visit);
            }
            visit(right);
        }
        Term::Fold(_, over, pattern, steps) => {
            visit(over);
            each_of(pattern, visit);
            steps.iter_mut().for_each(visit);
        }
        Term::TryCatch(tried, caught) => {
            visit(tried);
            caught.iter_mut().for_each(|caught| visit(caught));
        }
        Term::IfThenElse(branches, last) => {
            branches.iter_mut().for_each(|(condition, then)| {
                visit(condition);
                visit(then);
            });
            last.iter_mut().for_each(|last| visit(last));
        }
        Term::Def(defs, rest) => {
            defs.iter_mut().for_each(|def| visit(&mut def.body));
            visit(rest);
        }
        Term::Call(_, args) => args.iter_mut().for_each(visit),
        Term::Path(head, path) => {
            visit(head);
            path.0.iter_mut().for_each(|(part, _)| match part {
                Part::Index(index) => visit(index),
                Part::Range(from, to) => from.iter_mut().chain(to).for_each(&mut *visit),
            });
        }
    }
}

fn each_of<'s>(pattern: &mut Pattern<&'s str>, visit: &mut dyn FnMut(&mut Term<&'s str>)) {
    match pattern {
        Pattern::Var(_) => {}
        Pattern::Arr(items) => items.iter_mut().for_each(|item| each_of(item, visit)),
        Pattern::Obj(pairs) => pairs.iter_mut().for_each(|(key, value)| {
            visit(key);
            each_of(value, visit);
        }),
    }
}
