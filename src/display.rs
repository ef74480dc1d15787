//! Output of notebooks: content in evcxr's protocol, and text in HTML and SVG.

use std::io::{self, Write};

/// Text for XML: escapes markup and drops characters that XML does not allow.
pub(crate) fn escape(text: &str) -> String {
    let mut s = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => s.push_str("&amp;"),
            '<' => s.push_str("&lt;"),
            '>' => s.push_str("&gt;"),
            '"' => s.push_str("&quot;"),
            '\'' => s.push_str("&#39;"),
            '\t' | '\n' | '\r' => s.push(c),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => {}
            c => s.push(c),
        }
    }
    s
}

/// A number of things.
///
/// ```
/// use mem2gen::display::counted;
///
/// assert_eq!([counted(1, "image"), counted(2, "image")], ["1 image", "2 images"]);
/// ```
pub fn counted(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Writes content of one MIME type in evcxr's protocol.
pub(crate) fn write_content(out: &mut dyn Write, mime: &str, content: &str) -> io::Result<()> {
    // The end marker inside the content would end it.
    let content = content.replace("EVCXR_", "EVCXR ");
    writeln!(out, "EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT")
}
