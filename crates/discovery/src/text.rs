//! What strangers write, as a terminal and a reader of JSON may be given it.

/// How many of a text's characters are looked at for each that is kept.
const LOOKED_AT: usize = 8;

/// A text in one line of at most `most` characters, without anything that a reader would not see: control characters,
/// signs that turn the direction of text around, and the invisible ones in which instructions to a model can hide. What
/// is nearly all of it such is looked at for a while and no longer.
pub fn clean(text: &str, most: usize) -> String {
    let mut out = String::new();
    let (mut count, mut blank) = (0, false);
    for c in text.chars().take(most.saturating_mul(LOOKED_AT)) {
        if c.is_whitespace() || c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') {
            blank = !out.is_empty();
            continue;
        }
        if is_invisible(c) {
            continue;
        }
        if count + 1 + usize::from(blank) > most {
            out.push('…');
            return out;
        }
        if blank {
            out.push(' ');
            count += 1;
            blank = false;
        }
        out.push(c);
        count += 1;
    }
    out
}

/// Marks of direction, joiners, variation selectors, tags, and what has no meaning that two readers share.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{e000}'..='\u{f8ff}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' | '\u{f0000}'..='\u{10ffff}')
}

/// The longest word that is indexed, in characters.
const MAX_WORD: usize = 32;

/// The words of a text: runs of letters and digits in lower case, a decimal number as one word, without a plural's `s`.
/// A change from small to capital letters begins a word too, so that names in programs are several.
pub fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let (mut all, mut word) = (Vec::new(), String::new());
    for (at, c) in chars.iter().copied().enumerate() {
        let before = at.checked_sub(1).and_then(|at| chars.get(at)).copied();
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
        let is_point = c == '.' && digit(before) && digit(chars.get(at + 1).copied());
        if !c.is_alphanumeric() && !is_point {
            push(&mut all, &mut word);
            continue;
        }
        if c.is_uppercase() && before.is_some_and(char::is_lowercase) {
            push(&mut all, &mut word);
        }
        word.extend(c.to_lowercase());
    }
    push(&mut all, &mut word);
    all
}

fn push(all: &mut Vec<String>, word: &mut String) {
    let mut done = std::mem::take(word);
    if done.is_empty() {
        return;
    }
    if done.chars().count() > 3 && done.ends_with('s') && !done.ends_with("ss") {
        done.pop();
    }
    all.push(done.chars().take(MAX_WORD).collect());
}
