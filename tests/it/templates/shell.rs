//! The calls of `sagemaker-executor` in scripts of jobs, as words: quotes are removed, variables have sample values, and an
//! optional part `${NAME:+...}` is there. No shell runs.

/// The words of each call in `script`. A variable has the value that `value` gives.
#[track_caller]
pub(super) fn calls(script: &str, value: &dyn Fn(&str) -> String) -> Vec<Vec<String>> {
    let commands = commands(script, value);
    let call = |words: Vec<String>| {
        let (program, arguments) = words.split_first()?;
        (program == "sagemaker-executor").then(|| arguments.to_vec())
    };
    commands.into_iter().filter_map(call).collect()
}

fn commands(script: &str, value: &dyn Fn(&str) -> String) -> Vec<Vec<String>> {
    let mut reader = Reader { rest: script.chars().collect(), at: 0, value };
    let (mut all, mut words) = (Vec::new(), Vec::new());
    while let Some(next) = reader.token() {
        match next {
            Token::Word(word) => words.push(word),
            Token::Words(more) => words.extend(more),
            Token::End => all.push(std::mem::take(&mut words)),
            Token::Redirection => {
                // Its target is no argument.
                let _target = reader.token();
            }
        }
    }
    all.push(words);
    all
}

enum Token {
    Word(String),
    Words(Vec<String>),
    End,
    Redirection,
}

struct Reader<'a> {
    rest: Vec<char>,
    at: usize,
    value: &'a dyn Fn(&str) -> String,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.rest.get(self.at).copied()
    }

    fn token(&mut self) -> Option<Token> {
        while self.peek().is_some_and(|next| next == ' ' || next == '\t') {
            self.at += 1;
        }
        let next = self.peek()?;
        if next == '#' {
            while self.peek().is_some_and(|next| next != '\n') {
                self.at += 1;
            }
            return self.token();
        }
        if "\n;|&(){}".contains(next) {
            self.at += 1;
            return Some(Token::End);
        }
        if next == '>' || next == '<' || (next.is_ascii_digit() && self.rest.get(self.at + 1) == Some(&'>')) {
            while self.peek().is_some_and(|next| next.is_ascii_digit() || "<>&".contains(next)) {
                self.at += 1;
            }
            // `>&2` has its target in itself.
            let is_whole = self.rest[..self.at].iter().rev().take(2).any(char::is_ascii_digit);
            return if is_whole { self.token() } else { Some(Token::Redirection) };
        }
        if next == '$' && self.rest[self.at..].iter().collect::<String>().contains(":+") {
            let text: String = self.rest[self.at..].iter().collect();
            if let Some(inner) = optional(&text) {
                self.at += inner.1;
                let words = commands(&inner.0, self.value).concat();
                return Some(Token::Words(words));
            }
        }
        Some(Token::Word(self.word()))
    }

    fn word(&mut self) -> String {
        let (mut word, mut quote) = (String::new(), None);
        while let Some(next) = self.peek() {
            match (quote, next) {
                (None, ' ' | '\t' | '\n' | ';' | '|' | '&' | ')' | '>' | '<') => break,
                (Some(open), close) if open == close => quote = None,
                (None, '"' | '\'') => quote = Some(next),
                (Some('"') | None, '$') => {
                    word.push_str(&self.variable());
                    continue;
                }
                _ => word.push(next),
            }
            self.at += 1;
        }
        word
    }

    /// The value of `$NAME`, `${NAME}`, `${NAME:-default}` or `$(...)`, which is skipped.
    fn variable(&mut self) -> String {
        self.at += 1;
        let is_name = |next: char| next.is_ascii_alphanumeric() || next == '_' || next == '@';
        match self.peek() {
            Some('{') => {
                let text: String = self.rest[self.at + 1..].iter().take_while(|next| **next != '}').collect();
                self.at += text.chars().count() + 2;
                (self.value)(text.split([':', '-']).next().unwrap_or_default())
            }
            Some('(') => {
                while self.peek().is_some_and(|next| next != ')') {
                    self.at += 1;
                }
                self.at += 1;
                String::new()
            }
            _ => {
                let name: String = self.rest[self.at..].iter().take_while(|next| is_name(**next)).collect();
                self.at += name.chars().count();
                (self.value)(&name)
            }
        }
    }
}

/// Of `${NAME:+INNER}...` the inner text, and the length of the whole.
fn optional(text: &str) -> Option<(String, usize)> {
    let inner = text.strip_prefix("${")?;
    let (name, inner) = inner.split_once(":+")?;
    if !name.chars().all(|next| next.is_ascii_alphanumeric() || next == '_') {
        return None;
    }
    // The inner text may have variables in braces.
    let mut depth = 0_usize;
    for (at, next) in inner.char_indices() {
        match next {
            '{' => depth += 1,
            '}' if depth == 0 => {
                let length = text.len() - inner.len() + at + 1;
                return Some((inner[..at].to_owned(), text[..length].chars().count()));
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[test]
fn words_of_calls_are_found() {
    let value = |name: &str| format!("<{name}>");
    let of = |script: &str| calls(script, &value);
    assert_eq!(
        of("x=1 && sagemaker-executor gate --manifest \"$M\" --to \"${T:-p q}\" > f.json\necho sagemaker-executor"),
        [vec!["gate", "--manifest", "<M>", "--to", "<T>"]]
    );
    assert_eq!(
        of("sagemaker-executor a ${R:+--role-arn \"$R\"} --last 'x y'; sagemaker-executor b >&2"),
        [vec!["a", "--role-arn", "<R>", "--last", "x y"], vec!["b"]]
    );
    assert_eq!(
        of("command -v sagemaker-executor >/dev/null || { echo 'no sagemaker-executor' >&2; exit 1; }").len(),
        0
    );
}
