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
/// Most operators, keywords and brackets one expression is nested in: bounds all recursion over it.
pub const DEPTH_MAX: usize = 1_000;

/// What reading may cost: each token as often as the parser comes by, which reads the arguments
/// of each call twice.
const READING_MAX: usize = 1 << 20;

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
    check_reading(&tokens)?;
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

/// Counts what can nest: brackets that are open, and in each of them the operators, keywords and
/// further brackets since the last comma. Their sum bounds the depth of any tree made of it.
fn check_depth(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut levels: Vec<usize> = vec![0];
    let mut depth = 0;
    for token in tokens {
        let here = levels.last_mut().expect("the outermost level stays");
        match &token.token {
            Token::RParen | Token::RBracket | Token::RBrace => {
                // What closes more than was opened is left to the parser to say.
                depth -= std::mem::take(here);
                if levels.len() > 1 {
                    levels.pop();
                }
            }
            Token::Comma | Token::SemiColon => depth -= std::mem::take(here),
            other if nests(other) => {
                *here += 1;
                depth += 1;
                if depth > DEPTH_MAX {
                    let what = "operators, keywords and brackets";
                    return Err(at(
                        token,
                        format!("an expression has more than {DEPTH_MAX} {what}"),
                    ));
                }
                if matches!(other, Token::LParen | Token::LBracket | Token::LBrace) {
                    if levels.len() > OPEN_MAX {
                        let what = format!("more than {OPEN_MAX} parentheses are open");
                        return Err(at(token, what));
                    }
                    levels.push(0);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Adds up tokens, doubled by each call they are an argument of.
fn check_reading(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut open: Vec<bool> = Vec::new();
    let mut calls = 0_u32;
    let mut cost = 0_usize;
    let mut after_word = false;
    for token in tokens.iter().filter(|t| means(&t.token)) {
        match &token.token {
            Token::LParen => {
                open.push(after_word);
                calls += u32::from(after_word);
            }
            Token::RParen => calls -= u32::from(open.pop().unwrap_or(false)),
            _ => {}
        }
        after_word = matches!(&token.token, Token::Word(w) if !precedes_parenthesis(w.keyword));
        cost = cost.saturating_add(1_usize << calls.min(30));
        if cost > READING_MAX {
            let what = "calls of functions are nested too deeply".to_owned();
            return Err(at(token, what));
        }
    }
    Ok(())
}

/// Whether a parenthesis after this word is no list of arguments.
fn precedes_parenthesis(word: Keyword) -> bool {
    use Keyword as K;
    matches!(
        word,
        K::AND
            | K::OR
            | K::NOT
            | K::IN
            | K::AS
            | K::FROM
            | K::WHERE
            | K::SELECT
            | K::EXISTS
            | K::VALUES
            | K::OVER
            | K::ON
            | K::ANY
            | K::ALL
            | K::SOME
            | K::WHEN
            | K::THEN
            | K::ELSE
            | K::CASE
            | K::BETWEEN
            | K::LIKE
            | K::BY
            | K::HAVING
            | K::UNION
            | K::EXCEPT
            | K::INTERSECT
            | K::JOIN
            | K::LATERAL
            | K::USING
            | K::DISTINCT
            | K::FILTER
    )
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
