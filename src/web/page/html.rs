//! HTML that cannot forget to escape: markup is written in this source, all else is text. Pure.

use std::fmt::{self, Display, Write};

use crate::escape::{PercentEncoded, html_entity};

/// A piece of a page. Markup gets into it as a literal only; whatever else is put in is escaped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Html(String);

impl Html {
    /// Markup, as it stands in the source.
    pub fn markup(&mut self, literal: &'static str) -> &mut Html {
        self.0.push_str(literal);
        self
    }

    /// Text, escaped.
    pub fn text(&mut self, text: impl Display) -> &mut Html {
        write!(Escaped(&mut self.0), "{text}").expect("a string takes everything");
        self
    }

    /// An attribute of the tag that was begun, its value quoted and escaped.
    pub fn attribute(&mut self, name: &'static str, value: impl Display) -> &mut Html {
        self.markup(" ").markup(name).markup("=\"").text(value).markup("\"")
    }

    /// A link to a page of this site whose last segment is somebody's word (RFC 3986, section 2.1).
    pub fn link(&mut self, path: &'static str, segment: &str) -> &mut Html {
        self.attribute("href", format_args!("{path}{}", PercentEncoded(segment)))
    }

    /// Another piece, after this one.
    pub fn append(&mut self, piece: &Html) -> &mut Html {
        self.0.push_str(&piece.0);
        self
    }

    /// What was written so far.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Letters that are read for what they do and not for what they are: controls, and those that turn
/// the direction of what follows; and those that XML does not take (XML 1.0, section 2.2).
fn misleads(letter: char) -> bool {
    let turns = matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    let letters = !matches!(letter, '\u{fffe}' | '\u{ffff}');
    turns || !letters || letter.is_control() && letter != '\n'
}

/// Text as it stands in HTML and XML.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    Escaped(&mut safe).write_str(text).expect("a string takes everything");
    safe
}

/// Writes text so that no browser takes any of it for markup, within an element or quotes.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '\t' => self.0.push(' '),
                other if misleads(other) => self.0.push('\u{fffd}'),
                other => match html_entity(other) {
                    Some(entity) => self.0.push_str(entity),
                    None => self.0.push(other),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_in_the_source_is_never_markup() {
        let evil = "<script>'\"&\u{0}\u{1b}\u{202e}\t\n";
        let mut html = Html::default();
        html.markup("<p").attribute("title", evil).markup(">").text(evil).markup("</p>");
        let text = "&lt;script&gt;&#39;&quot;&amp;\u{fffd}\u{fffd}\u{fffd} \n";
        assert_eq!(html.as_str(), format!("<p title=\"{text}\">{text}</p>"));
    }

    #[test]
    fn a_link_leads_to_this_site_whatever_the_name() {
        for (name, path) in [
            ("web-1.example", "/hosts/web-1.example"),
            ("a/b?c#d\"<", "/hosts/a%2Fb%3Fc%23d%22%3C"),
            ("m\u{fc}nster", "/hosts/m%C3%BCnster"),
            ("javascript:x", "/hosts/javascript%3Ax"),
        ] {
            let mut html = Html::default();
            html.link("/hosts/", name);
            assert_eq!(html.as_str(), format!(" href=\"{path}\""));
        }
    }
}
