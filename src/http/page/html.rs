//! HTML that cannot forget to escape (markup is written in this source, all else is text), and the
//! document around the content of a page. Pure.

use std::fmt::{self, Display, Write};
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};

use crate::clock::Wall;
use crate::escape::{PercentEncoded, hex, push_html};
use crate::event::Level;
use crate::version::VERSION;

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

    /// A link to a page of this site whose last segment may be any text (RFC 3986, section 2.1).
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

/// Writes text so that no browser takes any of it for markup, within an element or quotes.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_html(self.0, text);
        Ok(())
    }
}

/// The script of bars and graphs. It comes by itself, since a page is small without it.
static CHARTS: LazyLock<String> = LazyLock::new(|| strip_comments(include_str!("charts.js")));

/// As it is sent.
pub fn charts_script() -> &'static str {
    &CHARTS
}

/// The page without its content: markup, style and script in one file.
static PAGE: LazyLock<String> = LazyLock::new(|| strip_comments(include_str!("page.html")));

/// The file without comments and indentation.
fn strip_comments(file: &str) -> String {
    let lines = file.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
    lines.fold(String::new(), |page, line| page + line + "\n")
}

/// The icon of the site.
pub const ICON: &str = "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 16 16\">\
    <circle cx=\"8\" cy=\"8\" r=\"7\" fill=\"#777777\"/></svg>\n";

/// What the foot of a page says to programs.
const PROGRAMS: &str = " Also for programs: <a href=\"/api/v1/hosts\">JSON</a>, \
    <a href=\"/metrics\">Prometheus</a>.";

/// The content of a page, and what its head says.
pub struct Document<'a> {
    /// What the browser's tab says.
    pub title: &'a str,
    /// For its icon.
    pub level: Level,
    /// Seconds until the script asks again.
    pub refresh_seconds: usize,
    /// The content.
    pub content: &'a Html,
    /// It is for everybody: it names nothing of the site that is not.
    pub public: bool,
}

/// The parts of [`PAGE`] between its marks.
struct Template {
    before_title: &'static str,
    before_home: &'static str,
    before_live: &'static str,
    before_main: &'static str,
    before_version: &'static str,
    before_programs: &'static str,
    before_charts: &'static str,
    /// The element that loads [`CHARTS`], this and no other one.
    charts: String,
    rest: &'static str,
    policy: String,
    /// Changes with style and script.
    mark: String,
}

static TEMPLATE: LazyLock<Template> = LazyLock::new(|| {
    let split = |text: &'static str, mark: &str| text.split_once(mark).expect("page.html has it");
    let (before_title, rest) = split(&PAGE, "<!--title-->");
    let (before_home, rest) = split(rest, "<!--home-->");
    let (before_live, rest) = split(rest, "<!--live-->");
    let (before_main, rest) = split(rest, "<!--main-->");
    let (before_version, rest) = split(rest, "<!--version-->");
    let (before_programs, rest) = split(rest, "<!--programs-->");
    let (before_charts, rest) = split(rest, "<!--charts-->");
    let within = |open: &str, close: &str| split(split(&PAGE, open).1, close).0;
    let hash = |text: &str| STANDARD.encode(digest(&SHA256, text.as_bytes()));
    let (style, script) = (within("<style>", "</style>"), within("<script>", "</script>"));
    let charts = hash(&CHARTS);
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}' 'sha256-{charts}'; style-src 'sha256-{}'; \
         img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
        hash(script),
        hash(style)
    );
    let mark = hex(&digest(&SHA256, [PAGE.as_str(), &CHARTS].concat().as_bytes()).as_ref()[..4]);
    let charts = format!("<script src=/charts.js integrity=\"sha256-{charts}\"></script>");
    Template {
        before_title,
        before_home,
        before_live,
        before_main,
        before_version,
        before_programs,
        before_charts,
        charts,
        rest,
        policy,
        mark,
    }
});

/// What a browser may do with the page: nothing but what stands in it, and ask here again.
pub fn content_security_policy() -> &'static str {
    &TEMPLATE.policy
}

impl Document<'_> {
    /// The element that the script replaces.
    pub fn main(&self) -> String {
        let mut html = Html::default();
        html.markup(" id=main tabindex=-1").attribute("data-page", &TEMPLATE.mark);
        html.attribute("data-title", self.title);
        html.attribute("data-tone", tone(self.level)).attribute("data-every", self.refresh_seconds);
        html.markup(">").append(self.content).markup("</main>\n");
        format!("<main{}", html.as_str())
    }
}

/// The whole page around an element made by [`Document::main`].
pub fn full_page(document: &Document, main: String, tag: &str, now: Wall) -> String {
    let mut title = Html::default();
    title.text(document.title);
    let now = now.to_string();
    let live = format!("as of {} UTC", now.get(11..19).unwrap_or_default());
    let main = main.strip_prefix("<main").unwrap_or(&main);
    let mut tagged = Html::default();
    tagged.attribute("data-tag", tag);
    let parts = &*TEMPLATE;
    // The script wants the token.
    let (home, version, programs, charts) = match document.public {
        true => ("/public", String::new(), "", ""),
        false => ("/", format!("hbd {VERSION}. "), PROGRAMS, parts.charts.as_str()),
    };
    [
        parts.before_title,
        title.as_str(),
        parts.before_home,
        home,
        parts.before_live,
        &live,
        parts.before_main,
        "<main",
        tagged.as_str(),
        main,
        parts.before_version,
        &version,
        parts.before_programs,
        programs,
        parts.before_charts,
        charts,
        parts.rest,
    ]
    .concat()
}

/// The entity tag of a content (RFC 9110, section 8.8.3).
pub fn tag(main: &str) -> String {
    format!("\"{}\"", hex(&digest(&SHA256, main.as_bytes()).as_ref()[..16]))
}

/// The colour of the icon.
fn tone(level: Level) -> &'static str {
    match level {
        Level::Critical => "cf2f27",
        Level::Warning => "d69a1e",
        Level::Info => "777777",
        Level::Ok => "58a879",
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
        let text = "&lt;script&gt;&#39;&quot;&amp; \n";
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

    #[test]
    fn the_page_has_one_style_one_script_and_nothing_from_elsewhere() {
        assert_eq!(PAGE.matches("<style").count(), 1);
        assert_eq!(PAGE.matches("<script").count(), 1);
        for word in
            ["https:", "src=", "@import", "url(", "eval(", "innerHTML", " style=", " onclick"]
        {
            assert!(!PAGE.contains(word), "{word}");
        }
        assert!(PAGE.matches("http:").count() == 1, "the name space of the icon");
        for word in ["http", "import", "eval(", "innerHTML", " style=", "//"] {
            assert!(!CHARTS.contains(word), "{word}");
        }
    }
}
