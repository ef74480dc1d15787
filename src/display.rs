//! What notebooks show: one representation in evcxr's protocol, and text in HTML and SVG.

use std::io::{self, Write};

/// Text as XML: markup escaped, characters that XML can't hold dropped.
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

/// One representation in evcxr's protocol.
pub(crate) fn write_content(out: &mut dyn Write, mime: &str, content: &str) -> io::Result<()> {
    // A line that looks like the end marker would end the content.
    let content = content.replace("EVCXR_", "EVCXR ");
    writeln!(out, "EVCXR_BEGIN_CONTENT {mime}\n{content}\nEVCXR_END_CONTENT")
}
