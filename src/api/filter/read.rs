//! Tokens of the filter language, each with its position.
//!
//! Must never know: fields and values. Next: `api/filter`, the grammar.

use std::fmt;

use super::BadFilter;
use crate::model::filter::Comparison;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::api) enum Token {
    /// Letters, digits and `_ - . : +`, unquoted.
    Word(String),
    /// Between double quotes.
    Text(String),
    /// `labels.NAME`, without the prefix.
    Label(String),
    Compare(Comparison),
    Open,
    Close,
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(w) => f.write_str(w),
            Token::Text(t) => write!(f, "{t:?}"),
            Token::Label(l) => write!(f, "labels.{l}"),
            Token::Compare(c) => f.write_str(sign(*c)),
            Token::Open => f.write_str("'('"),
            Token::Close => f.write_str("')'"),
            Token::End => f.write_str("the end"),
        }
    }
}

/// Longer signs first, so that `<=` is not read as `<`.
const SIGNS: [(&str, Comparison); 6] = [
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

pub(super) fn sign(comparison: Comparison) -> &'static str {
    SIGNS.iter().find(|(_, c)| *c == comparison).map_or("=", |(sign, _)| sign)
}

/// Reads tokens with one of look-ahead.
pub(in crate::api) struct Reader<'a> {
    text: &'a str,
    at: usize,
    peeked: Option<(usize, Token)>,
}

impl<'a> Reader<'a> {
    pub(in crate::api) fn new(text: &'a str) -> Self {
        Reader { text, at: 0, peeked: None }
    }

    pub(in crate::api) fn peek(&mut self) -> Result<(usize, Token), BadFilter> {
        let token = self.next()?;
        self.peeked = Some(token.clone());
        Ok(token)
    }

    /// Takes the next token if it is this one.
    pub(in crate::api) fn takes(&mut self, token: &Token) -> Result<bool, BadFilter> {
        let found = self.peek()?.1 == *token;
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    pub(in crate::api) fn takes_word(&mut self, word: &str) -> Result<bool, BadFilter> {
        let found = matches!(self.peek()?.1, Token::Word(w) if w == word);
        if found {
            self.peeked = None;
        }
        Ok(found)
    }

    pub(in crate::api) fn next(&mut self) -> Result<(usize, Token), BadFilter> {
        if let Some(token) = self.peeked.take() {
            return Ok(token);
        }
        let rest = self.text[self.at..].trim_start();
        let start = self.text.len() - rest.len();
        self.at = start;
        let Some(first) = rest.chars().next() else { return Ok((start, Token::End)) };
        if let Some((sign, comparison)) = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign)) {
            self.at += sign.len();
            return Ok((start, Token::Compare(*comparison)));
        }
        let token = match first {
            '(' => self.one(Token::Open),
            ')' => self.one(Token::Close),
            '"' => Token::Text(self.quoted()?),
            c if is_word(c) => self.word()?,
            c => return Err(BadFilter { at: start, what: format!("did not expect {c:?}") }),
        };
        Ok((start, token))
    }

    fn one(&mut self, token: Token) -> Token {
        self.at += 1;
        token
    }

    fn word(&mut self) -> Result<Token, BadFilter> {
        let rest = &self.text[self.at..];
        let word = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
        let start = self.at;
        self.at += word.len();
        let Some(label) = word.strip_prefix("labels.") else { return Ok(Token::Word(word.to_owned())) };
        match label {
            "" if self.text[self.at..].starts_with('"') => Ok(Token::Label(self.quoted()?)),
            "" => Err(BadFilter { at: start, what: "expected the name of a label after labels.".to_owned() }),
            name => Ok(Token::Label(name.to_owned())),
        }
    }

    /// A text in double quotes, which stand at the present position.
    fn quoted(&mut self) -> Result<String, BadFilter> {
        let start = self.at;
        let mut text = String::new();
        let mut chars = self.text[start..].char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at = start + i + 1;
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => {
                        let what = "expected \\\" or \\\\ after a backslash".to_owned();
                        return Err(BadFilter { at: start + i, what });
                    }
                },
                c => text.push(c),
            }
        }
        Err(BadFilter { at: start, what: "expected a closing quote".to_owned() })
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '+')
}
