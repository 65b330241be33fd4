//! Tables: two blanks between columns, no lines, so that they can be read, cut and searched.

use comfy_table::{ContentArrangement, Table, presets};

/// Draws rows below a head. Nothing is wrapped: a terminal does that, and a pipe must not get it.
#[must_use]
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| one_line(&cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Draws rows below a head in Markdown, as GitHub reads it.
#[must_use]
pub fn markdown_table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| markdown(&cell))));
    format!("{table}\n")
}

/// A text as it is, in Markdown: nothing in it is a link, a tag or the end of a cell.
#[must_use]
pub fn markdown(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        if "\\`*_[]<>|#!&@~".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Takes out what would break a table or steer a terminal: devices and workloads choose some of these texts.
fn one_line(cell: &str) -> String {
    cell.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
