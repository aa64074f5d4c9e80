//! Elements of an XML document, for answers that no client of the SDK reads. Attributes and namespaces are left out.

use quick_xml::Reader;
use quick_xml::events::Event;

/// Deepest nesting that is read.
const DEEPEST: usize = 32;
/// Most elements that are read.
const MOST: usize = 100_000;

/// An element with what is in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) children: Vec<Element>,
}

impl Element {
    /// The root of a document; `None` for text that is no whole document.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        // The first one stands for the document.
        let mut open = vec![Self::default()];
        let mut events = 0;
        loop {
            events += 1;
            if events > 3 * MOST {
                return None;
            }
            match reader.read_event().ok()? {
                Event::Start(start) if open.len() < DEEPEST => {
                    let name = String::from_utf8_lossy(start.local_name().into_inner()).into_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::Start(_) => return None,
                Event::Empty(empty) => {
                    let name = String::from_utf8_lossy(empty.local_name().into_inner()).into_owned();
                    open.last_mut()?.children.push(Self { name, ..Self::default() });
                }
                Event::End(_) => {
                    let done = open.pop()?;
                    open.last_mut()?.children.push(done);
                }
                Event::Text(text) => open.last_mut()?.text.push_str(text.decode().ok()?.trim()),
                Event::Eof => break,
                _ => {}
            }
        }
        let [document] = open.try_into().ok()?;
        document.children.into_iter().next()
    }

    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text of a child; empty when there is none.
    pub(super) fn text_of(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| child.text.as_str())
    }

    /// The items of a list.
    pub(super) fn items(&self, list: &str) -> impl Iterator<Item = &Self> {
        self.child(list).into_iter().flat_map(|list| &list.children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_and_a_part_of_one_is_not() {
        let root = Element::parse("<?xml version=\"1.0\"?>\n<a xmlns=\"x\">\n <b>1</b><c/><d><e>2</e><e>3</e></d></a>")
            .unwrap();
        assert_eq!((root.name.as_str(), root.text_of("b"), root.text_of("c")), ("a", "1", ""));
        assert_eq!(root.items("d").map(|item| item.text.as_str()).collect::<Vec<_>>(), ["2", "3"]);
        let deep = "<a>".repeat(100_000);
        let many = format!("<a>{}</a>", "<b/>".repeat(3 * MOST));
        for text in ["", "text", "<a>", "<a></b>", "</a>", deep.as_str(), many.as_str()] {
            assert_eq!(Element::parse(text), None, "{text}");
        }
    }
}
