//! What is said of a command or a flag that is none: the nearest, all there are, and for kubectl's verbs what does the same here.

use clap::{
    Command, CommandFactory, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::commands::Cli;

/// Verbs of kubectl that Barge has under another name, or in another way.
const ELSEWHERE: &[(&str, &str)] = &[
    (
        "create",
        "`barge apply -f FILE` creates objects from manifests",
    ),
    (
        "replace",
        "`barge apply -f FILE` changes objects, `barge edit KIND NAME` puts a whole one in place",
    ),
    (
        "run",
        "write a manifest of a Pod, and `barge apply -f FILE`",
    ),
    (
        "expose",
        "write a manifest of a Service, and `barge apply -f FILE`",
    ),
    (
        "autoscale",
        "`barge scale KIND NAME --replicas N` sets the number of replicas",
    ),
    ("cluster-info", "`barge cluster status` shows the managers"),
    (
        "api-resources",
        "`barge explain KIND` explains a kind; `barge get` without a right kind names all",
    ),
    (
        "api-versions",
        "`barge explain KIND` shows the apiVersion of a kind",
    ),
    ("kustomize", "`kubectl kustomize DIR | barge apply -f -`"),
    ("help", "`barge --help`, or --help after any command"),
];

/// What is to be printed below the error of a command line; `words` is the command line without the program's name.
pub fn hint(error: &Error, words: &[String]) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {}
        // With a suggestion, that is enough.
        ErrorKind::UnknownArgument if error.get(ContextKind::SuggestedArg).is_none() => {
            return Some(flags(words));
        }
        _ => return None,
    }
    let Some(ContextValue::String(wrong)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let cli = Cli::command();
    let (at, path) = reached(&cli, words);
    let mut lines = Vec::new();
    if path.is_empty()
        && let Some((_, instead)) = ELSEWHERE.iter().find(|(verb, _)| verb == wrong)
    {
        lines.push(format!("instead: {instead}"));
    }
    let names: Vec<_> = at.get_subcommands().map(Command::get_name).collect();
    let place = match path.as_str() {
        "" => "barge".to_owned(),
        path => format!("barge {path}"),
    };
    lines.push(format!("{place} has: {}", names.join(", ")));
    Some(lines.join("\n"))
}

/// The flags of the command that was meant.
fn flags(words: &[String]) -> String {
    let cli = Cli::command();
    let (at, path) = reached(&cli, words);
    let flags = at.get_arguments().filter(|flag| !flag.is_hide_set());
    let flags = flags.filter_map(|flag| {
        let long = flag.get_long()?;
        Some(match flag.get_short() {
            Some(short) => format!("-{short}/--{long}"),
            None => format!("--{long}"),
        })
    });
    let flags: Vec<_> = flags.collect();
    match path.as_str() {
        "" => format!("barge has the flags: {}", flags.join(", ")),
        path => format!("barge {path} has the flags: {}", flags.join(", ")),
    }
}

/// The command that the words lead to as far as they are commands, and their names.
fn reached<'a>(cli: &'a Command, words: &[String]) -> (&'a Command, String) {
    let (mut at, mut path) = (cli, Vec::new());
    for word in words {
        if let Some(inner) = at.find_subcommand(word) {
            at = inner;
            path.push(word.as_str());
        }
    }
    (at, path.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn hint_of(line: &str) -> (String, Option<String>) {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let error = Cli::try_parse_from(&words).unwrap_err();
        (error.to_string(), hint(&error, &words[1..]))
    }

    #[test]
    fn a_verb_that_is_none_says_what_does() {
        let (error, hint) = hint_of("barge descibe pod web");
        assert!(error.contains("'describe'"), "{error}");
        let hint = hint.unwrap();
        assert!(hint.starts_with("barge has: apply, diff, "), "{hint}");
        let (_, hint) = hint_of("barge create -f web.yaml");
        assert!(hint.unwrap().starts_with("instead: `barge apply"));
        let (_, hint) = hint_of("barge rollout hold deployment/web");
        assert!(hint.unwrap().starts_with("barge rollout has: status, "));
    }

    #[test]
    fn a_flag_that_is_none_is_told_with_the_nearest() {
        let (error, hint) = hint_of("barge get pods --no-header");
        assert!(error.contains("--no-headers"), "{error}");
        assert_eq!(hint, None);
    }

    #[test]
    fn a_flag_like_none_is_told_with_all_there_are() {
        let (error, hint) = hint_of("barge exec web --privileged -- sh");
        assert!(error.contains("--privileged"), "{error}");
        let hint = hint.unwrap();
        assert!(hint.starts_with("barge exec has the flags: "), "{hint}");
        assert!(hint.contains("-i/--stdin, -t/--tty"), "{hint}");
        let (_, hint) = hint_of("barge attach -x web");
        assert!(!hint.unwrap().contains("stdin"));
    }

    #[test]
    fn the_grammar_holds() {
        Cli::command().debug_assert();
        for (verb, _) in ELSEWHERE {
            assert!(Cli::command().find_subcommand(verb).is_none(), "{verb}");
        }
    }
}
