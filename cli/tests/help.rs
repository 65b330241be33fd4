//! Every command explains itself.

use std::fmt::Write as _;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory as _};
use expect_test::expect_file;
use fleetd::command::Cli;

/// Gives each command that people call, with its whole name (`fleetd rollout start`).
fn leaves(command: &Command, name: &str, found: &mut Vec<(String, Command)>) {
    let children: Vec<&Command> =
        command.get_subcommands().filter(|child| child.get_name() != "help" && !child.is_hide_set()).collect();
    if children.is_empty() {
        found.push((name.to_owned(), command.clone()));
    }
    for child in children {
        leaves(child, &format!("{name} {}", child.get_name()), found);
    }
}

fn all() -> Vec<(String, Command)> {
    let mut command = Cli::command().term_width(100);
    command.build();
    let mut found = Vec::new();
    leaves(&command, "fleetd", &mut found);
    found
}

#[test]
fn every_command_has_an_example_that_calls_it() {
    for (name, command) in all() {
        let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(after.starts_with("Examples:\n"), "{name} has no examples");
        assert!(after.contains(&name), "no example of {name} calls it:\n{after}");
    }
}

/// Examples that a shell would run are examples that clap takes.
#[test]
fn every_example_is_understood() {
    let mut seen = 0;
    for (name, command) in all() {
        let after = command.get_after_help().unwrap().to_string().replace("\\\n", " ");
        for line in after.lines().skip(1).filter(|line| line.trim_start().starts_with("fleetd ")) {
            let line = line.split(" | ").next().unwrap().split(" > ").next().unwrap();
            let line = line.split(" < ").next().unwrap();
            if line.contains("$(") || line.contains("\"$") {
                continue;
            }
            let words = words(line);
            if let Err(error) = Cli::command().try_get_matches_from(&words) {
                panic!("an example of {name} is not understood: {words:?}\n{error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} examples were tried");
}

/// Commands in the pages about errors are commands that clap takes, up to values that only their reader knows.
#[test]
fn every_command_of_an_error_page_is_understood() {
    let mut seen = 0;
    for (code, page) in fleetd_server::error_page::pages() {
        for line in page.lines().filter_map(|line| line.strip_prefix("    ")) {
            let words: Vec<String> =
                words(line).into_iter().skip_while(|word| word.contains('=') || word == "sudo").collect();
            if words.first().is_none_or(|program| program != "fleetd") {
                continue;
            }
            if let Err(error) = Cli::command().try_get_matches_from(&words)
                && error.kind() != ErrorKind::DisplayHelp
            {
                panic!("a command of the page {code} is not understood: {words:?}\n{error}");
            }
            seen += 1;
        }
    }
    assert!(seen > 200, "only {seen} commands were tried");
}

/// Splits a line as a shell does that knows single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for character in line.trim().chars() {
        match character {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    words
}

#[test]
fn help_reads_as_it_was_written() {
    let mut text = format!("{}\n", Cli::command().term_width(100).render_help());
    for (name, mut command) in all() {
        writeln!(text, "=== {name}\n{}", command.render_help()).unwrap();
    }
    let trimmed: String = text.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    expect_file!["help.txt"].assert_eq(&trimmed);
}
