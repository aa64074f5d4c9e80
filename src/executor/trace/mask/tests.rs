//! Tests of the masker against a model of the runner's rules that gets the whole input at once, and with the runner's own examples.

use proptest::prelude::*;

use super::*;

fn mask_all(values: &[&str], writes: &[&str]) -> String {
    let mut masker = Masker::new(values.iter().map(|value| value.as_bytes().to_vec()));
    let mut out = Vec::new();
    for write in writes {
        masker.push(write.as_bytes(), &mut out);
    }
    masker.flush(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn longer_values_go_first_and_masks_are_not_masked_again() {
    assert_eq!(mask_all(&["ab", "abcd"], &["xabcdab"]), "x[MASKED][MASKED]");
    assert_eq!(mask_all(&["xab", "abcd"], &["xabcd"]), "x[MASKED]");
    assert_eq!(mask_all(&["secret", "MASKED"], &["secret MASKED"]), "[MASKED] [MASKED]");
    assert_eq!(mask_all(&["abc", "WXYZ"], &["abWXYZc"]), "ab[MASKED]c");
    assert_eq!(mask_all(&["", "a", "a"], &["banana"]), "b[MASKED]n[MASKED]n[MASKED]");
    assert_eq!(mask_all(&["ab", "bc"], &["abc"]), "a[MASKED]");
    assert_eq!(mask_all(&["key\n", " "], &["a key."]), "a [MASKED].");
    assert_eq!(mask_all(&[], &["plain"]), "plain");
}

#[test]
fn a_value_is_found_over_write_boundaries() {
    assert_eq!(mask_all(&["secret"], &["my s", "ecr", "", "et!"]), "my [MASKED]!");
    assert_eq!(mask_all(&["aaab"], &["aa", "aab"]), "a[MASKED]");
}

#[test]
fn tokens_are_hidden_behind_their_prefix_over_write_boundaries() {
    let mask = |writes: &[&str]| {
        let mut masker = Masker::with_prefixes([b"hunter2".to_vec()], ["mine_".to_owned()]);
        let mut out = Vec::new();
        for write in writes {
            masker.push(write.as_bytes(), &mut out);
        }
        masker.flush(&mut out);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(mask(&["a gl", "pat-a", "b.C", " z"]), "a glpat-[MASKED] z");
    assert_eq!(mask(&["glpat-", "\n"]), "glpat-\n");
    assert_eq!(mask(&["x mine_1=2"]), "x mine_[MASKED]");
    assert_eq!(mask(&["glpat-hunter2 glpat-ahunter2b!"]), "glpat-[MASKED] glpat-[MASKED][MASKED]!");
    assert_eq!(mask(&["glpat-glrt-secret,glrt-x"]), "glpat-[MASKED],glrt-[MASKED]");
    assert_eq!(mask(&["glpa glpat"]), "glpa glpat");
}

#[test]
fn a_possible_match_is_held_back_and_given_back() {
    let mut masker = Masker::new([b"secret".to_vec()]);
    let mut out = Vec::new();
    masker.push(b"a sec", &mut out);
    assert_eq!(out, b"a ");
    masker.push(b"ond", &mut out);
    assert_eq!(out, b"a second");
    masker.push(b"se", &mut out);
    masker.flush(&mut out);
    assert_eq!(out, b"a secondse");
}

#[test]
fn debug_shows_no_value() {
    assert!(!format!("{:?}", Masker::new([b"hunter2".to_vec()])).contains("hunter2"));
}

/// A byte, or a mask.
type Cell = Option<u8>;

/// The runner's rules for parameters, on the whole input at once.
fn model_url(cells: &[Cell]) -> Vec<Cell> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < cells.len() {
        out.push(cells[at]);
        at += 1;
        if !matches!(out.last(), Some(Some(b'?' | b'&'))) {
            continue;
        }
        let is_name = |cell: &&Cell| cell.is_some_and(|byte| !b"=?&".contains(&byte));
        let name: Vec<u8> = cells[at..].iter().take_while(is_name).flatten().copied().collect();
        let behind = at + name.len();
        let is_sensitive = url::NAMES.iter().any(|known| name.to_ascii_lowercase() == known.as_bytes());
        if cells.get(behind) != Some(&Some(b'=')) || !is_sensitive {
            continue;
        }
        out.extend(&cells[at..=behind]);
        out.push(None);
        at = behind + 1;
        while at < cells.len() {
            let bytes: Vec<u8> = cells[at..].iter().take(4).map_while(|cell| *cell).collect();
            let character = (1..=bytes.len()).find_map(|length| std::str::from_utf8(&bytes[..length]).ok());
            let character = character.and_then(|text| text.chars().next());
            if character.is_some_and(|c| "?&".contains(c) || c.is_whitespace() || c.is_control()) {
                break;
            }
            at += character.map_or(1, char::len_utf8);
        }
    }
    out
}

fn model_token(prefix: &[u8], cells: &[Cell]) -> Vec<Cell> {
    let kind: Vec<Cell> = prefix.iter().copied().map(Some).collect();
    let mut out = Vec::new();
    let mut at = 0;
    while at < cells.len() {
        if !cells[at..].starts_with(&kind) {
            out.push(cells[at]);
            at += 1;
            continue;
        }
        out.extend(&kind);
        at += kind.len();
        let mut is_hidden = false;
        while let Some(cell) = cells.get(at) {
            match cell {
                None => out.push(None),
                Some(byte) if byte.is_ascii_alphanumeric() || b"-._=".contains(byte) => is_hidden = true,
                Some(_) => break,
            }
            at += 1;
        }
        if is_hidden {
            out.push(None);
        }
    }
    out
}

fn model_values(values: &[Vec<u8>], input: &[u8]) -> Vec<Cell> {
    let mut values: Vec<&Vec<u8>> = values.iter().filter(|value| !value.is_empty()).collect();
    values.sort_by_key(|value| (value.len(), *value));
    values.reverse();
    let mut cells: Vec<Cell> = input.iter().copied().map(Some).collect();
    for value in values {
        let kind: Vec<Cell> = value.iter().copied().map(Some).collect();
        let mut next = Vec::new();
        let mut at = 0;
        while at < cells.len() {
            if cells[at..].starts_with(&kind) {
                next.push(None);
                at += kind.len();
            } else {
                next.push(cells[at]);
                at += 1;
            }
        }
        cells = next;
    }
    cells
}

fn shown(cells: &[Cell]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.map_or(MASK.to_vec(), |byte| vec![byte])).collect()
}

/// All rules in their simplest form, on the whole input at once.
fn model_all(values: &[Vec<u8>], prefixes: &[&str], input: &[u8]) -> Vec<u8> {
    let mut cells = model_url(&model_values(values, input));
    let mut prefixes: Vec<&str> = prefixes.iter().chain(&TOKEN_PREFIXES).copied().collect();
    prefixes.sort_by_key(|prefix| (prefix.len(), *prefix));
    prefixes.dedup();
    for prefix in prefixes.iter().rev() {
        cells = model_token(prefix.as_bytes(), &cells);
    }
    shown(&cells)
}

fn mask_writes<'w>(values: &[Vec<u8>], prefixes: &[&str], writes: impl IntoIterator<Item = &'w [u8]>) -> Vec<u8> {
    let mut masker = Masker::with_prefixes(values.to_vec(), prefixes.iter().map(|&prefix| prefix.to_owned()));
    let mut out = Vec::new();
    for write in writes {
        masker.push(write, &mut out);
    }
    masker.flush(&mut out);
    out
}

#[test]
fn sensitive_parameters_are_hidden_however_they_are_divided() {
    let cases = [
        ("get http://h/?page=2&private_token=s3cret done", "get http://h/?page=2&private_token=[MASKED] done"),
        ("?X-Amz-Signature=0a&X-AMZ-CREDENTIAL=b\n", "?X-Amz-Signature=[MASKED]&X-AMZ-CREDENTIAL=[MASKED]\n"),
        ("&x-amz-security-token=abc", "&x-amz-security-token=[MASKED]"),
        ("?rss_token=", "?rss_token=[MASKED]"),
        ("?rss_token=&&authenticity_token=1??", "?rss_token=[MASKED]&&authenticity_token=[MASKED]??"),
        (
            "?private_token=a\u{1b}[0m ?private_token=b\u{2003}c",
            "?private_token=[MASKED]\u{1b}[0m ?private_token=[MASKED]\u{2003}c",
        ),
        ("?private_token=größe&", "?private_token=[MASKED]&"),
        ("private_token=shown ?a_private_token=shown", "private_token=shown ?a_private_token=shown"),
        ("?x-amz-security-token-and-more=shown", "?x-amz-security-token-and-more=shown"),
        ("?private_to\u{212a}en=k", "?private_to\u{212a}en=[MASKED]"),
        ("?private_token=hunter2 ?private_hunter2=a", "?private_token=[MASKED] ?private_[MASKED]=a"),
        ("?private_token=glpat-abc ?t=glpat-abc", "?private_token=[MASKED] ?t=glpat-[MASKED]"),
    ];
    for (input, expected) in cases {
        let values = [b"hunter2".to_vec()];
        for cut in 0..input.len() {
            let (one, other) = input.as_bytes().split_at(cut);
            let out = mask_writes(&values, &[], [one, other]);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "cut at {cut}");
        }
        let out = mask_writes(&values, &[], input.as_bytes().chunks(1));
        assert_eq!(String::from_utf8(out).unwrap(), expected, "byte by byte");
        assert_eq!(mask_writes(&values, &[], [expected.as_bytes()]), expected.as_bytes(), "masked twice");
    }
}

#[test]
fn a_beginning_at_the_end_of_the_quick_search_is_not_missed() {
    for ahead in 0..600 {
        let input = [&b"x".repeat(ahead)[..], b"hunter2 ", &b"y".repeat(ahead), b"glrt-a"].concat();
        let values = [b"hunter2".to_vec(), b"y!".to_vec()];
        assert_eq!(mask_writes(&values, &[], [&input[..]]), model_all(&values, &[], &input));
    }
}

/// Inputs made of pieces that the rules match.
fn fragments() -> impl Strategy<Value = Vec<u8>> {
    let words = [
        "?",
        "&",
        "=",
        "private_token",
        "private_token=",
        "X-Amz-Signature=",
        "x-amz-security-token=",
        "glpat-",
        "glrt-",
        "glrtr-",
        "mine-",
        "secret",
        "ab",
        "aab",
        " ",
        "\n",
        "\u{1b}",
        "\u{2028}",
        "\u{a0}",
        "ü",
        "[MASKED]",
        "gl",
        "x-amz-",
    ];
    prop_oneof![
        4 => prop::sample::select(words.to_vec()).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..3),
        1 => prop::collection::vec(b'a'..=b'c', 0..4),
    ]
}

proptest! {
    #[test]
    fn the_result_is_the_models_however_the_input_is_divided(
        values in prop::collection::vec(prop::collection::vec(b'a'..=b'c', 0..5), 0..6),
        writes in prop::collection::vec(prop::collection::vec(b'a'..=b'd', 0..9), 0..20),
    ) {
        let mut masker = Masker::new(values.clone());
        let mut out = Vec::new();
        for write in &writes {
            masker.push(write, &mut out);
        }
        masker.flush(&mut out);
        prop_assert_eq!(out, shown(&model_values(&values, &writes.concat())));
    }

    #[test]
    fn all_rules_together_give_the_models_result_however_the_input_is_divided(
        values in prop::collection::vec(fragments(), 0..4),
        pieces in prop::collection::vec(fragments(), 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let values: Vec<Vec<u8>> = values.iter().map(|value| trimmed(value)).collect();
        let input = pieces.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(input.len());
        let mut from = 0;
        let writes = cuts.into_iter().map(|to| &input[std::mem::replace(&mut from, to)..to]);
        let out = mask_writes(&values, &["mine-"], writes);
        prop_assert_eq!(
            String::from_utf8_lossy(&out).into_owned(),
            String::from_utf8_lossy(&model_all(&values, &["mine-"], &input)).into_owned()
        );
    }
}
