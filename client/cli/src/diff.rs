//! Two texts side by side, as `diff -u` shows them.

use std::fmt::Write;

/// Lines around a change that are shown with it.
const CONTEXT: usize = 3;
/// Texts whose product of lines is larger are compared as a whole: a table of this many numbers is made.
const TABLE: usize = 16_000_000;

/// A line of the result: from one of the texts, or in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Both(&'a str),
    Old(&'a str),
    New(&'a str),
}

/// The unified difference under a header with both names; empty when the texts are the same.
pub fn unified(names: (&str, &str), old: &str, new: &str) -> String {
    let old: Vec<_> = old.lines().collect();
    let new: Vec<_> = new.lines().collect();
    let lines = compare(&old, &new);
    let mut text = String::new();
    for (begin, end) in hunks(&lines) {
        if text.is_empty() {
            text.push_str(&format!("--- {}\n+++ {}\n", names.0, names.1));
        }
        hunk(&mut text, &lines, begin, end);
    }
    text
}

/// By the longest common subsequence, between what begins and ends alike.
fn compare<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (rest_old, rest_new) = (&old[head..], &new[head..]);
    let ends = rest_old.iter().rev().zip(rest_new.iter().rev());
    let tail = ends.take_while(|(a, b)| a == b).count();
    let (middle_old, end) = rest_old.split_at(rest_old.len() - tail);
    let middle_new = &rest_new[..rest_new.len() - tail];
    let mut lines: Vec<_> = old[..head].iter().map(|line| Line::Both(line)).collect();
    lines.extend(middle(middle_old, middle_new));
    lines.extend(end.iter().map(|line| Line::Both(line)));
    lines
}

fn middle<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Line<'a>> {
    let width = new.len() + 1;
    let mut lines = Vec::new();
    if (old.len() + 1).saturating_mul(width) > TABLE {
        lines.extend(old.iter().map(|line| Line::Old(line)));
        lines.extend(new.iter().map(|line| Line::New(line)));
        return lines;
    }
    // The length of the longest common subsequence of what follows, for each pair of places.
    let mut common = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = match old[i] == new[j] {
                true => common[(i + 1) * width + j + 1] + 1,
                false => common[(i + 1) * width + j].max(common[i * width + j + 1]),
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            lines.push(Line::Both(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1])
        {
            lines.push(Line::Old(old[i]));
            i += 1;
        } else {
            lines.push(Line::New(new[j]));
            j += 1;
        }
    }
    lines
}

/// Stretches of lines with changes, each with its context.
fn hunks(lines: &[Line<'_>]) -> Vec<(usize, usize)> {
    let mut hunks: Vec<(usize, usize)> = Vec::new();
    let changes = lines.iter().enumerate();
    for (at, _) in changes.filter(|(_, line)| !matches!(line, Line::Both(_))) {
        let (begin, end) = (
            at.saturating_sub(CONTEXT),
            (at + CONTEXT + 1).min(lines.len()),
        );
        match hunks.last_mut() {
            Some(last) if begin <= last.1 => last.1 = end,
            _ => hunks.push((begin, end)),
        }
    }
    hunks
}

fn hunk(text: &mut String, lines: &[Line<'_>], begin: usize, end: usize) {
    let count = |lines: &[Line<'_>]| {
        let old = lines.iter().filter(|line| !matches!(line, Line::New(_)));
        let new = lines.iter().filter(|line| !matches!(line, Line::Old(_)));
        (old.count(), new.count())
    };
    let (old_before, new_before) = count(&lines[..begin]);
    let (old, new) = count(&lines[begin..end]);
    // An empty range is named by the line before it.
    let first = |before: usize, count: usize| if count == 0 { before } else { before + 1 };
    let _ = writeln!(
        text,
        "@@ -{},{old} +{},{new} @@",
        first(old_before, old),
        first(new_before, new)
    );
    for line in &lines[begin..end] {
        let _ = match line {
            Line::Both(line) => writeln!(text, " {line}"),
            Line::Old(line) => writeln!(text, "-{line}"),
            Line::New(line) => writeln!(text, "+{line}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_has_no_difference() {
        assert_eq!(unified(("a", "b"), "x\ny\n", "x\ny\n"), "");
    }

    #[test]
    fn a_change_is_shown_with_its_surroundings() {
        let old: String = (1..=12).map(|n| format!("{n}\n")).collect();
        let new = old.replace("6\n", "six\n6.5\n");
        assert_eq!(
            unified(("live", "merged"), &old, &new),
            "--- live\n+++ merged\n@@ -3,7 +3,8 @@\n 3\n 4\n 5\n-6\n+six\n+6.5\n 7\n 8\n 9\n"
        );
    }

    #[test]
    fn what_is_new_is_added_to_nothing() {
        assert_eq!(
            unified(("a", "b"), "", "x\n"),
            "--- a\n+++ b\n@@ -0,0 +1,1 @@\n+x\n"
        );
    }

    #[test]
    fn changes_far_apart_are_shown_apart() {
        let old: String = (1..=30).map(|n| format!("{n}\n")).collect();
        let new = old.replace("\n5\n", "\n").replace("\n25\n", "\n25\nx\n");
        let text = unified(("a", "b"), &old, &new);
        assert_eq!(text.matches("@@ -").count(), 2, "{text}");
        assert!(
            text.contains("@@ -2,7 +2,6 @@") && text.contains("@@ -23,6 +22,7 @@"),
            "{text}"
        );
    }
}
