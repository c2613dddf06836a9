//! The Markdown that `docs/` is written in → a manual page's body.
//!
//! Headings, paragraphs, lists, code blocks, tables, and in a line: code, emphasis, links. The first heading is the
//! page's name, which is said elsewhere. Of a table, each row is a term: its first cell, then what the others say.

use clap_mangen::roff::{Inline, Roff, bold, roman};

/// Writes the whole text.
pub(super) fn write(text: &str, page: &mut Roff) {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("### ") {
            page.control("SS", [title]);
        } else if let Some(title) = line.strip_prefix("## ") {
            page.control("SH", [title]);
        } else if line.starts_with("```") {
            code(&mut lines, page);
        } else if line.starts_with('|') {
            let mut rows = vec![cells(line)];
            while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
                rows.push(cells(row));
            }
            table(&rows, page);
        } else if !line.is_empty() && !line.starts_with("# ") {
            let (item, first) = line.strip_prefix("- ").map_or((false, line), |item| (true, item));
            let mut words = first.to_owned();
            while let Some(more) = lines.next_if(|line| continues(line)) {
                words.push(' ');
                words.push_str(more.trim_start());
            }
            if item {
                page.control("IP", ["\u{2022}", "2"])
            } else {
                page.control("PP", [])
            };
            page.text(inlines(&words));
        }
    }
}

/// Whether a line goes on with the paragraph or the list item before it.
fn continues(line: &str) -> bool {
    !(line.is_empty() || ["- ", "|", "#", "```"].iter().any(|start| line.starts_with(start)))
}

fn code<'t>(lines: &mut impl Iterator<Item = &'t str>, page: &mut Roff) {
    page.control("PP", []).control("RS", ["4"]).control("nf", []);
    for line in lines.take_while(|line| !line.starts_with("```")) {
        page.text([roman(line)]);
    }
    page.control("fi", []).control("RE", []);
}

fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split(" |").map(str::trim).collect()
}

/// The head, the line of dashes, and then a row a term: "workers (1–1024, default 16)", and its text.
fn table(rows: &[Vec<&str>], page: &mut Roff) {
    let [head, _, rows @ ..] = rows else { return };
    for row in rows {
        let ([term, between @ .., text], [_, names @ .., _]) = (row.as_slice(), head.as_slice()) else { continue };
        let said = between.iter().zip(names).filter(|(cell, _)| !cell.is_empty());
        let said: Vec<String> =
            said.map(|(cell, name)| {
                if *name == "default" && *cell != "required" { format!("default {cell}") } else { (*cell).to_owned() }
            })
            .collect();
        let mut tag = vec![bold(*term)];
        if !said.is_empty() {
            tag.extend(inlines(&format!(" ({})", said.join(", "))));
        }
        page.control("TP", []);
        page.text(tag);
        page.text(inlines(text));
    }
}

/// Code and emphasis in bold, of a link its text, and the file where it leads to one.
fn inlines(text: &str) -> Vec<Inline> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (plain, marked) = rest.split_at(at);
        let taken = code_span(marked).or_else(|| emphasis(marked)).or_else(|| link(marked));
        // A mark that opens nothing is a character.
        let (inline, length) = taken.unwrap_or_else(|| (vec![roman(&marked[..1])], 1));
        out.push(roman(plain));
        out.extend(inline);
        rest = &marked[length..];
    }
    out.push(roman(rest));
    out
}

fn code_span(text: &str) -> Option<(Vec<Inline>, usize)> {
    let (code, _) = text.strip_prefix('`')?.split_once('`')?;
    Some((vec![bold(code)], code.len() + 2))
}

fn emphasis(text: &str) -> Option<(Vec<Inline>, usize)> {
    let (words, _) = text.strip_prefix("**")?.split_once("**")?;
    Some((vec![bold(words)], words.len() + 4))
}

fn link(text: &str) -> Option<(Vec<Inline>, usize)> {
    let (words, target) = text.strip_prefix('[')?.split_once("](")?;
    let (target, _) = target.split_once(')')?;
    let length = words.len() + target.len() + 4;
    let mut shown = inlines(words);
    if !target.starts_with('#') {
        shown.push(roman(format!(" ({target})")));
    }
    Some((shown, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> String {
        let mut page = Roff::new();
        write(text, &mut page);
        page.to_roff()
    }

    #[test]
    fn a_row_is_a_term_with_type_default_and_text() {
        let table = "| key | type | default | |\n|---|---|---|---|\n| url | text | `\"x\"` | see [there](a.md). R |\n";
        assert_eq!(page(table), ".TP\n\\fBurl\\fR (text, default \\fB\"x\"\\fR)\nsee there (a.md). R\n");
        assert_eq!(page("| key | default | |\n|---|---|---|\n| a | | b |\n"), ".TP\n\\fBa\\fR\nb\n");
    }

    #[test]
    fn paragraphs_items_and_code_keep_their_lines_apart() {
        let text = "# X\n\n## [a] (R)\n\none\ntwo\n\n- three\n  four\n- five\n\n```toml\n.x = 1\n\n'y\n```\n### b\n";
        let bullet = ".IP \u{2022} 2\n";
        assert_eq!(
            page(text),
            format!(
                ".SH \"[a] (R)\"\n.PP\none two\n{bullet}three four\n{bullet}five\n.PP\n.RS 4\n.nf\n\\&.x = 1\n\n\\&'y\n.fi\n.RE\n.SS b\n"
            )
        );
    }

    #[test]
    fn a_mark_that_opens_nothing_is_a_character() {
        assert_eq!(page("2 * 3 [x] `y"), ".PP\n2 * 3 [x] `y\n");
    }
}
