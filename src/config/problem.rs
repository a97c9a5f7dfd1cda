//! What is wrong with a configuration, and showing it: all of it at once, each with file, line, column and a caret.
//!
//! Must never know: what the keys mean. Next: `tree.rs`, where places come from.

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};

use super::redact::redacted;

/// Most problems shown; a file of another kind would otherwise fill the screen.
const PROBLEMS_SHOWN_MAX: usize = 50;

/// A text that settings come from.
#[derive(Debug)]
pub struct Source {
    /// Path of the file, or `environment TIDEGATE__X`, or `--flag`.
    pub name: String,
    pub text: String,
}

/// A place in a source. Bytes.
#[derive(Clone, Debug)]
pub struct At {
    pub source: Arc<Source>,
    pub span: Range<usize>,
}

impl At {
    /// Line and column, from 1; columns count characters.
    pub fn line_column(&self) -> (usize, usize) {
        let start = self.source.text.floor_char_boundary(self.span.start);
        let before = &self.source.text[..start];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (line, column) = self.line_column();
        write!(f, "{}:{line}:{column}", self.source.name)
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    /// What was expected and what came, one sentence.
    pub message: String,
    /// Where; `None` for a file that cannot be read at all.
    pub at: Option<At>,
    /// What to do.
    pub help: Option<String>,
    /// Another place that has to do with it, and how.
    pub also: Option<(At, String)>,
}

impl Problem {
    pub fn new(message: impl Into<String>) -> Self {
        Problem { message: message.into(), at: None, help: None, also: None }
    }

    pub fn at(mut self, at: &At) -> Self {
        self.at = Some(at.clone());
        self
    }

    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn also(mut self, at: &At, label: impl Into<String>) -> Self {
        self.also = Some((at.clone(), label.into()));
        self
    }
}

/// One line, for where no caret can be drawn: `providers.d/crm.toml:4:9: expected ...; do ...`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = &self.at {
            write!(f, "{at}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong, in the order of the files. Displays like the messages of a compiler.
#[derive(Debug, thiserror::Error)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// In reading order. At least one.
    pub fn new(mut list: Vec<Problem>) -> Self {
        debug_assert!(!list.is_empty());
        let mut files: Vec<String> = Vec::new();
        for at in list.iter().filter_map(|p| p.at.as_ref()) {
            if !files.contains(&at.source.name) {
                files.push(at.source.name.clone());
            }
        }
        list.sort_by_key(|p| match &p.at {
            None => (0, 0),
            Some(at) => (1 + files.iter().position(|f| *f == at.source.name).unwrap_or(0), at.span.start),
        });
        Problems(list)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// With carets, for a terminal (`color`) or a log.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let shown: Vec<String> = self.0.iter().take(PROBLEMS_SHOWN_MAX).map(|p| render(p, &renderer)).collect();
        let more = self.0.len() - shown.len();
        let rest = if more > 0 { format!("\n\nand {more} more") } else { String::new() };
        shown.join("\n\n") + &rest
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

fn render(problem: &Problem, renderer: &Renderer) -> String {
    let title = Level::ERROR.primary_title(problem.message.as_str());
    let mut group = annotate_snippets::Group::with_title(title);
    if let Some(at) = &problem.at {
        let mut snippet = snippet(at).annotation(AnnotationKind::Primary.span(visible(at)));
        match &problem.also {
            Some((other, label)) if Arc::ptr_eq(&other.source, &at.source) => {
                snippet = snippet.annotation(AnnotationKind::Context.span(visible(other)).label(label.as_str()));
                group = group.element(snippet);
            }
            Some((other, label)) => {
                let there = AnnotationKind::Context.span(visible(other)).label(label.as_str());
                group = group.element(snippet).element(self::snippet(other).annotation(there));
            }
            None => group = group.element(snippet),
        }
    }
    if let Some(help) = &problem.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    renderer.render(&[group])
}

fn snippet(at: &At) -> Snippet<'_, annotate_snippets::Annotation<'_>> {
    Snippet::source(redacted(&at.source.name, &at.source.text)).path(at.source.name.as_str())
}

/// The span within one line: a caret under a table of fifty lines shows nothing.
fn visible(at: &At) -> Range<usize> {
    let text = &at.source.text;
    let start = text.floor_char_boundary(at.span.start.min(text.len()));
    let end = text.ceil_char_boundary(at.span.end.min(text.len())).max(start);
    start..text[start..end].find('\n').map_or(end, |i| start + i)
}

/// Collects problems while a configuration is read.
#[derive(Debug, Default)]
pub struct Found(RefCell<Vec<Problem>>);

impl Found {
    pub fn add(&self, problem: Problem) {
        self.0.borrow_mut().push(problem);
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// `value` when nothing is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Problems> {
        let list = self.0.into_inner();
        if list.is_empty() { Ok(value) } else { Err(Problems::new(list)) }
    }
}
