//! `PATH` and `[NAMESPACE/]POD:PATH`

use std::{path::PathBuf, str::FromStr};

/// An end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Here(PathBuf),
    There(Remote),
}

/// A path in a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// That of the command line where none is named.
    pub namespace: Option<String>,
    pub pod: String,
    pub path: RemotePath,
}

/// A path in a container. Not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemotePath(String);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a path is missing".to_owned());
        }
        let here = || Ok(Self::Here(text.into()));
        // A path, also when it has a colon.
        if text.starts_with(['.', '/', '~']) {
            return here();
        }
        let Some((pod, path)) = text.split_once(':') else {
            return here();
        };
        let (namespace, pod) = match pod.split_once('/') {
            Some((namespace, pod)) => (Some(namespace), pod),
            None => (None, pod),
        };
        if pod.is_empty() || pod.contains('/') || namespace.is_some_and(str::is_empty) {
            return Err(format!(
                "\"{text}\" should be PATH, POD:PATH or NAMESPACE/POD:PATH; a path of this machine that has a colon begins with ./"
            ));
        }
        if path.is_empty() {
            return Err(format!("\"{text}\" lacks the path in the container"));
        }
        Ok(Self::There(Remote {
            namespace: namespace.map(str::to_owned),
            pod: pod.to_owned(),
            path: RemotePath(path.to_owned()),
        }))
    }
}

impl RemotePath {
    /// As an argument that no program takes for an option.
    pub fn whole(&self) -> String {
        plain(&self.0)
    }

    /// Whether it can only be a folder: it ends with a slash.
    pub fn is_folder(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The folder that it is in, and its name there; nothing when what is in a folder is meant: `DIR/.`, `.`, `..`, `/`.
    pub fn split(&self) -> Option<(String, &str)> {
        let path = self.0.trim_end_matches('/');
        let (folder, name) = match path.rsplit_once('/') {
            Some(("", name)) => ("/", name),
            Some((folder, name)) => (folder, name),
            None => (".", path),
        };
        (!matches!(name, "" | "." | "..")).then(|| (plain(folder), name))
    }
}

/// A path that does not begin with a dash.
pub fn plain(path: &str) -> String {
    match path.starts_with('-') {
        true => format!("./{path}"),
        false => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(text: &str) -> (Option<String>, String, String) {
        match text.parse() {
            Ok(Place::There(it)) => (it.namespace, it.pod, it.path.0),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_colon_separates_pod_and_path() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(there("web:/a"), (None, "web".into(), "/a".into()));
        assert_eq!(there("web:a:b"), (None, "web".into(), "a:b".into()));
        assert_eq!(
            there("shop/web:/a"),
            (some("shop"), "web".into(), "/a".into())
        );
        for text in ["a/b", "./a:b", "/a:b", "../x:y", "a", "~/a:b"] {
            assert_eq!(text.parse(), Ok(Place::Here(text.into())), "{text}");
        }
        for text in ["", ":/a", "web:", "a/b/c:/x", "shop/:/x"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_path_in_a_container_has_a_folder_and_a_name() {
        let split = |text: &str| {
            let path = RemotePath(text.to_owned());
            path.split().map(|(folder, name)| (folder, name.to_owned()))
        };
        let some = |folder: &str, name: &str| Some((folder.to_owned(), name.to_owned()));
        assert_eq!(split("/a/b"), some("/a", "b"));
        assert_eq!(split("/a/b//"), some("/a", "b"));
        assert_eq!(split("/a"), some("/", "a"));
        assert_eq!(split("a"), some(".", "a"));
        assert_eq!(split("-x/-a"), some("./-x", "-a"));
        for text in ["/", ".", "..", "/a/.", "a/.."] {
            assert_eq!(split(text), None, "{text}");
        }
    }
}
