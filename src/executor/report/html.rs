//! HTML that holds no text of others as markup: text is escaped when it is added.

/// A piece of a page.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup of this program.
    pub(super) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, for an element or for a quoted attribute.
    pub(super) fn text(&mut self, text: &str) -> &mut Self {
        for letter in text.chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // Browsers know no other control characters.
                letter if letter.is_control() && letter != '\n' || turns_text(letter) => self.0.push('\u{fffd}'),
                letter => self.0.push(letter),
            }
        }
        self
    }

    /// Adds another piece.
    pub(super) fn add(&mut self, other: &Html) -> &mut Self {
        self.0.push_str(&other.0);
        self
    }

    /// Adds `<tag>text</tag>`.
    pub(super) fn element(&mut self, open: &'static str, text: &str, close: &'static str) -> &mut Self {
        self.raw(open).text(text).raw(close)
    }

    /// A drawing that `chart` has made; its text is escaped already.
    pub(super) fn drawing(svg: String) -> Self {
        Self(svg)
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}

/// Characters without a form that change the direction of the text behind them.
fn turns_text(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_never_markup() {
        let mut html = Html::default();
        html.element("<p title=\"", "\"><script>alert('x')&\u{7}</script>", "\">");
        assert_eq!(
            html.finish(),
            "<p title=\"&quot;&gt;&lt;script&gt;alert(&#39;x&#39;)&amp;\u{fffd}&lt;/script&gt;\">"
        );
        let mut html = Html::default();
        html.text("train \u{202e}lamron\u{2069}\u{200f} שלום");
        assert_eq!(html.finish(), "train \u{fffd}lamron\u{fffd}\u{fffd} שלום");
    }
}
