//! The prompt of `annals sql`: questions over several lines, ended by `;`, with a history.

use super::{Args, Asked, told};
use crate::cli::Context;
use crate::exit::{Exit, Failure, Result};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

const HELP: &str = "\
A question ends with ; and may take several lines. Ctrl-C drops it, Ctrl-D ends.
  .tables           list the tables
  .schema TABLE     the columns of a table
  .help             this
  .quit             end";

/// Asks until told to end.
pub(super) async fn run(asked: &Asked, args: &Args, context: &mut Context) -> Result<()> {
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let history = context.dir.join("sql_history");
    // None yet is no error, and one that cannot be read is none to stop for.
    let _ = editor.load_history(&history);
    context.say("annals sql: .help says more");
    let mut question = String::new();
    loop {
        let prompt = if question.is_empty() {
            "annals> "
        } else {
            "   ...> "
        };
        // Waits for a person: off the runtime's threads.
        let (back, line) = tokio::task::spawn_blocking(move || {
            let line = editor.readline(prompt);
            (editor, line)
        })
        .await
        .map_err(|e| Failure::new(Exit::Failed, format!("the prompt failed: {e}")))?;
        editor = back;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                question.clear();
                continue;
            }
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(failed(error)),
        };
        let Some(sql) = next(&mut question, &line) else {
            continue;
        };
        let _ = editor.add_history_entry(sql.trim());
        let sql = match meta(&sql) {
            Meta::Ask(sql) => sql,
            Meta::Say(text) => {
                context.say(text);
                continue;
            }
            Meta::Quit => break,
        };
        match asked.answer(context, &args.request(sql)).await {
            Ok(summary) => {
                context.out.flush()?;
                context.say(summary);
            }
            Err(failure) => context.say(told(&failure)),
        }
    }
    let _ = editor.save_history(&history);
    Ok(())
}

/// Adds a line; returns the question once it is whole.
fn next(question: &mut String, line: &str) -> Option<String> {
    if question.is_empty() && (line.trim().is_empty() || line.trim_start().starts_with('.')) {
        return Some(line.trim().to_owned()).filter(|line| !line.is_empty());
    }
    question.push_str(line);
    question.push('\n');
    let whole = question.trim_end().ends_with(';');
    whole.then(|| std::mem::take(question))
}

#[derive(Debug, PartialEq)]
enum Meta {
    Ask(String),
    Say(String),
    Quit,
}

/// What a line means that may begin with a dot.
fn meta(line: &str) -> Meta {
    let Some(command) = line.trim().strip_prefix('.') else {
        return Meta::Ask(line.to_owned());
    };
    let (command, rest) = command
        .split_once(char::is_whitespace)
        .unwrap_or((command, ""));
    match (command, rest.trim().trim_end_matches(';')) {
        ("tables", _) => Meta::Ask("SHOW TABLES".to_owned()),
        ("schema", "") => Meta::Say(".schema TABLE: which table? .tables lists them".to_owned()),
        ("schema", table) => Meta::Ask(format!("DESCRIBE {table}")),
        ("help", _) => Meta::Say(HELP.to_owned()),
        ("quit" | "exit", _) => Meta::Quit,
        _ => Meta::Say(format!(".{command} is no command; .help lists them")),
    }
}

fn failed(error: ReadlineError) -> Failure {
    Failure::new(Exit::Failed, format!("the prompt failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_may_take_several_lines() {
        let mut question = String::new();
        assert_eq!(next(&mut question, ""), None);
        assert_eq!(next(&mut question, "SELECT 1"), None);
        assert_eq!(next(&mut question, ", 2;").unwrap(), "SELECT 1\n, 2;\n");
        assert_eq!(next(&mut question, "  .tables").unwrap(), ".tables");
        assert!(question.is_empty());
    }

    #[test]
    fn commands_begin_with_a_dot() {
        assert_eq!(meta("SELECT 1;"), Meta::Ask("SELECT 1;".into()));
        assert_eq!(meta(".tables"), Meta::Ask("SHOW TABLES".into()));
        assert_eq!(meta(".schema a.v1.B;"), Meta::Ask("DESCRIBE a.v1.B".into()));
        assert_eq!(meta(".quit"), Meta::Quit);
        assert!(matches!(meta(".nonsense"), Meta::Say(_)));
    }
}
