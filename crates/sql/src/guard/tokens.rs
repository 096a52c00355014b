//! The first look at a question, before any recursion: length, first word, depth, one statement.

use super::{refused, too_large};
use annals_core::{Error, Result};
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

/// Longest question, in bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Most parentheses and brackets open at once.
pub const OPEN_MAX: usize = 64;
/// Most operators and keywords one expression is nested in: bounds every recursion over it.
pub const DEPTH_MAX: usize = 1_000;

/// The words a question may begin with.
const FIRST_WORDS: [&str; 7] = [
    "SELECT", "WITH", "VALUES", "EXPLAIN", "SHOW", "DESCRIBE", "DESC",
];

/// The tokens of one statement of bounded size that begins like a question.
pub(super) fn read(sql: &str, dialect: &dyn Dialect) -> Result<Vec<TokenWithSpan>> {
    if sql.len() > TEXT_BYTES_MAX {
        return Err(too_large(format!(
            "the question has {} bytes, at most {TEXT_BYTES_MAX} are read",
            sql.len()
        )));
    }
    let tokens = Tokenizer::new(dialect, sql)
        .tokenize_with_location()
        .map_err(|e| Error::invalid(format!("not SQL: {e}")))?;
    check_first_word(&tokens)?;
    check_one_statement(&tokens)?;
    check_depth(&tokens)?;
    Ok(tokens)
}

fn check_first_word(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut words = tokens.iter().map(|t| &t.token).filter(|t| means(t));
    match words.find(|t| **t != Token::LParen && **t != Token::SemiColon) {
        None => Err(Error::invalid("the question is empty: ask a SELECT")),
        Some(Token::Word(word)) if word.quote_style.is_none() => {
            let first = word.value.to_ascii_uppercase();
            if FIRST_WORDS.contains(&first.as_str()) {
                return Ok(());
            }
            let shown: String = first.chars().take(40).collect();
            Err(refused(&shown))
        }
        Some(other) => {
            let shown: String = other.to_string().chars().take(40).collect();
            Err(Error::invalid(format!(
                "not SQL: a question does not begin with {shown}"
            )))
        }
    }
}

fn check_one_statement(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut ended = false;
    for token in tokens.iter().filter(|t| means(&t.token)) {
        if token.token == Token::SemiColon {
            ended = true;
        } else if ended {
            return Err(refused("a second statement"));
        }
    }
    Ok(())
}

/// Counts what can nest: opened brackets, and per bracket the operators and keywords since the
/// last comma. Their sum bounds the depth of whatever tree a parser makes of it.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels: Vec<usize> = vec![0];
    let mut depth = 0;
    for token in tokens {
        let here = levels.last_mut().expect("the outermost level stays");
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                if levels.len() > OPEN_MAX {
                    return Err(at(
                        token,
                        format!("more than {OPEN_MAX} parentheses are open"),
                    ));
                }
                levels.push(0);
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if levels.len() > 1 {
                    depth -= levels.pop().unwrap_or(0);
                }
            }
            Token::Comma | Token::SemiColon => depth -= std::mem::take(here),
            other if nests(other) => {
                *here += 1;
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(at(
                        token,
                        format!("an expression has more than {DEPTH_MAX} operators and keywords"),
                    ));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn means(token: &Token) -> bool {
    !matches!(token, Token::Whitespace(_) | Token::EOF)
}

fn nests(token: &Token) -> bool {
    match token {
        Token::Word(word) => word.keyword != Keyword::NoKeyword,
        Token::Number(..) | Token::Placeholder(_) | Token::Char(_) => false,
        other => means(other) && !is_text(other),
    }
}

fn is_text(token: &Token) -> bool {
    matches!(
        token,
        Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

fn at(token: &TokenWithSpan, what: String) -> Error {
    let start = token.span.start;
    too_large(format!(
        "{what} (line {}, column {})",
        start.line, start.column
    ))
}
