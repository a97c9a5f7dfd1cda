//! JSON bodies with variables in place of values.
//!
//! A text that is exactly `"{payload}"` becomes the JSON value itself, byte for byte as the caller sent it; a variable
//! within a longer text becomes part of that text. The tree is flattened once, when declared, so rendering is copying.
//! Must never know: HTTP.

use serde_json::Value;

use super::RenderError;
use super::template::{self, BadTemplate, Facts, Into, Part, Site, Variable};

/// A request body: JSON with variables in place of values.
#[derive(Clone, Debug, PartialEq)]
pub struct BodyTemplate {
    source: Value,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq)]
enum Piece {
    /// JSON text that never changes.
    Fixed(String),
    /// A value of its own.
    Whole(Variable),
    /// Part of a text.
    Inside(Variable),
}

impl BodyTemplate {
    pub fn parse(source: Value, site: Site) -> Result<BodyTemplate, BadTemplate> {
        if let Value::String(text) = &source
            && !matches!(template::parts(text, site)?.as_slice(), [Part::Variable(_)])
        {
            let said = "expected a table, an array or exactly one variable as \"{payload}\"";
            return Err(BadTemplate::Body(format!("{said}, got {text:?}")));
        }
        let mut pieces = Vec::new();
        flatten(&source, site, &mut pieces)?;
        Ok(BodyTemplate { source, pieces })
    }

    /// The body as declared.
    pub fn source(&self) -> &Value {
        &self.source
    }

    pub fn uses(&self, variable: &Variable) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::Whole(v) | Piece::Inside(v) if v == variable))
    }

    pub fn bytes(&self, facts: &Facts<'_>) -> Result<Vec<u8>, RenderError> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Fixed(text) => out.push_str(text),
                Piece::Whole(variable) => variable.json_into(&mut out, facts)?,
                Piece::Inside(variable) => variable.text_into(&mut out, facts, Into::JsonText)?,
            }
        }
        Ok(out.into_bytes())
    }
}

fn fixed(pieces: &mut Vec<Piece>, text: &str) {
    match pieces.last_mut() {
        Some(Piece::Fixed(last)) => last.push_str(text),
        _ => pieces.push(Piece::Fixed(text.to_owned())),
    }
}

fn flatten(value: &Value, site: Site, pieces: &mut Vec<Piece>) -> Result<(), BadTemplate> {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => fixed(pieces, &value.to_string()),
        Value::String(text) => flatten_text(text, site, true, pieces)?,
        Value::Array(items) => {
            fixed(pieces, "[");
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    fixed(pieces, ",");
                }
                flatten(item, site, pieces)?;
            }
            fixed(pieces, "]");
        }
        Value::Object(members) => {
            fixed(pieces, "{");
            for (i, (name, member)) in members.iter().enumerate() {
                if i > 0 {
                    fixed(pieces, ",");
                }
                flatten_text(name, site, false, pieces)?;
                fixed(pieces, ":");
                flatten(member, site, pieces)?;
            }
            fixed(pieces, "}");
        }
    }
    Ok(())
}

fn flatten_text(text: &str, site: Site, is_value: bool, pieces: &mut Vec<Piece>) -> Result<(), BadTemplate> {
    let parts = template::parts(text, site)?;
    if let ([Part::Variable(variable)], true) = (parts.as_slice(), is_value) {
        pieces.push(Piece::Whole(variable.clone()));
        return Ok(());
    }
    fixed(pieces, "\"");
    for part in parts {
        match part {
            Part::Text(text) => {
                let mut escaped = String::new();
                template::push_json_inside(&mut escaped, &text);
                fixed(pieces, &escaped);
            }
            Part::Variable(variable) => pieces.push(Piece::Inside(variable)),
        }
    }
    fixed(pieces, "\"");
    Ok(())
}
