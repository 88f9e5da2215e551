//! Whom an image wants its process to be.

use crate::runtime::Security;

/// A user as the kernel knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
}

/// Why a user could not be found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Not in `/etc/passwd`.
    #[error(
        "the image runs as user \"{0}\", which its /etc/passwd does not have: set runAsUser to a number, or take an image that has it"
    )]
    User(String),
    /// Not in `/etc/group`.
    #[error(
        "the image runs as group \"{0}\", which its /etc/group does not have: set runAsGroup to a number, or take an image that has it"
    )]
    Group(String),
    /// The pod forbids root, and the image wants it.
    #[error(
        "runAsNonRoot is true, and the image runs as root (its user is \"{0}\"): set runAsUser, or take an image with another user"
    )]
    Root(String),
}

/// Who a container's processes are: what the pod says, and what it leaves open as the image says it. `image` is the image's "user:group".
pub fn of(security: &Security, image: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let own = security.run_as_user.map(|uid| uid.to_string());
    let mut user = match (own, security.run_as_group) {
        (None, None) => resolve(image, passwd, group)?,
        (Some(uid), _) => resolve(&uid, passwd, group)?,
        // The group that the image names beside its user gives way.
        (None, Some(_)) => {
            let user = image.split_once(':').map_or(image, |(user, _)| user);
            resolve(user, passwd, group)?
        }
    };
    user.gid = security.run_as_group.unwrap_or(user.gid);
    if security.only_these_groups {
        user.groups.clear();
    }
    for group in &security.groups {
        if !user.groups.contains(group) {
            user.groups.push(*group);
        }
    }
    match security.run_as_non_root && user.uid == 0 {
        true => Err(UserError::Root(image.to_owned())),
        false => Ok(user),
    }
}

/// Finds out "user", "uid", "user:group" and so on with the image's own `/etc/passwd` and `/etc/group`.
pub fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, primary) = match wanted.split_once(':') {
        Some((user, primary)) => (user, Some(primary)),
        None => (wanted, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number = user.parse::<u32>().ok();
    let entry = passwd.lines().find_map(|line| {
        let entry = Entry::parse(line)?;
        // A name that is a number is a number, as everywhere else.
        (number.map_or(entry.name == user, |number| entry.uid == number)).then_some(entry)
    });
    let (uid, gid) = match (&entry, number) {
        (Some(entry), _) => (entry.uid, entry.gid),
        (None, Some(number)) => (number, 0),
        (None, None) => return Err(UserError::User(user.to_owned())),
    };
    if let Some(primary) = primary.filter(|primary| !primary.is_empty()) {
        // Who says which group means just that one.
        return Ok(User {
            uid,
            gid: find_group(primary, group)?,
            groups: Vec::new(),
        });
    }
    let name = entry.map(|entry| entry.name);
    let member = |line: &str| {
        let mut fields = line.split(':').skip(2);
        let number = fields.next()?.parse().ok()?;
        let found = fields
            .next()?
            .split(',')
            .any(|member| Some(member.trim()) == name);
        (found && number != gid).then_some(number)
    };
    Ok(User {
        uid,
        gid,
        groups: group.lines().filter_map(member).collect(),
    })
}

fn find_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    if let Ok(number) = wanted.parse() {
        return Ok(number);
    }
    let number = |line: &str| {
        let mut fields = line.split(':');
        let found = fields.next() == Some(wanted);
        fields.nth(1)?.parse().ok().filter(|_| found)
    };
    let found = group.lines().find_map(number);
    found.ok_or_else(|| UserError::Group(wanted.to_owned()))
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        Some(Self {
            name: fields.next()?,
            uid: fields.nth(1)?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nwww:x:33:34::/:/bin/false\n7:x:99:99::/:\n";
    const GROUP: &str = "root:x:0:root\nwww:x:34:\nlogs:x:50:www,other\nbroken\nssl:x:51:www\n";

    #[test]
    fn names_and_numbers() {
        let user = |uid, gid, groups: &[u32]| User {
            uid,
            gid,
            groups: groups.to_vec(),
        };
        for (wanted, expected) in [
            ("", user(0, 0, &[])),
            ("root", user(0, 0, &[])),
            ("www", user(33, 34, &[50, 51])),
            ("33", user(33, 34, &[50, 51])),
            ("7", user(7, 0, &[])),
            ("1000", user(1000, 0, &[])),
            ("1000:logs", user(1000, 50, &[])),
            ("www:1", user(33, 1, &[])),
            ("www:", user(33, 34, &[50, 51])),
        ] {
            assert_eq!(
                resolve(wanted, PASSWD, GROUP).unwrap(),
                expected,
                "{wanted}"
            );
        }
    }

    #[test]
    fn who_is_not_there() {
        assert_eq!(
            resolve("joe", PASSWD, GROUP),
            Err(UserError::User("joe".into()))
        );
        assert_eq!(
            resolve("www:joe", PASSWD, GROUP),
            Err(UserError::Group("joe".into()))
        );
        assert_eq!(resolve("0", "", ""), Ok(User::default()));
    }

    #[test]
    fn the_pod_decides_before_the_image() {
        let of = |security: &Security, image: &str| super::of(security, image, PASSWD, GROUP);
        let security = Security::default();
        assert_eq!(
            of(&security, "www").unwrap(),
            resolve("www", PASSWD, GROUP).unwrap()
        );
        let security = Security {
            run_as_user: Some(33),
            groups: vec![7, 50],
            ..Security::default()
        };
        let user = of(&security, "root:logs").unwrap();
        assert_eq!(
            (user.uid, user.gid, &user.groups[..]),
            (33, 34, &[50, 51, 7][..])
        );
        let security = Security {
            run_as_group: Some(9),
            only_these_groups: true,
            groups: vec![7],
            ..Security::default()
        };
        let user = of(&security, "www:logs").unwrap();
        assert_eq!((user.uid, user.gid, &user.groups[..]), (33, 9, &[7][..]));
    }

    #[test]
    fn root_is_refused_where_the_pod_forbids_it() {
        let security = Security {
            run_as_non_root: true,
            ..Security::default()
        };
        let of = |security: &Security, image: &str| super::of(security, image, PASSWD, GROUP);
        assert_eq!(of(&security, ""), Err(UserError::Root(String::new())));
        assert_eq!(of(&security, "root"), Err(UserError::Root("root".into())));
        assert_eq!(of(&security, "www").unwrap().uid, 33);
        let security = Security {
            run_as_user: Some(1001),
            ..security
        };
        assert_eq!(of(&security, "root").unwrap().uid, 1001);
    }
}
