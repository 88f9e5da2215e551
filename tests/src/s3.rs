//! A store that speaks as much of S3 as keeping files needs, on loopback and in memory.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

/// The key that it knows; the secret is not looked at.
const KEY: &str = "test-key";

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// The store. It lives as long as the process.
pub struct S3 {
    address: String,
    objects: Objects,
}

impl S3 {
    /// Begins to serve any bucket.
    ///
    /// # Panics
    /// When there is no port on loopback.
    #[must_use]
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let address = listener.local_addr().expect("an address").to_string();
        let objects = Objects::default();
        let shared = objects.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let objects = shared.clone();
                thread::spawn(move || serve(stream, &objects));
            }
        });
        Self { address, objects }
    }

    /// Lets a program use it.
    pub fn configure(&self, command: &mut Command) {
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", "test-secret")
            .env("AWS_ENDPOINT", format!("http://{}", self.address))
            .env("AWS_REGION", "test")
            .env("AWS_ALLOW_HTTP", "true");
    }

    /// What it holds, as "bucket/key".
    ///
    /// # Panics
    /// When a thread of it did.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.objects
            .lock()
            .expect("no panic")
            .keys()
            .cloned()
            .collect()
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    authorised: bool,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: "200 OK",
            headers: "ETag: \"1\"\r\nLast-Modified: Mon, 05 Jan 2026 07:12:44 GMT\r\n".to_owned(),
            body: body.into(),
        }
    }

    fn refusal(status: &'static str, code: &str) -> Self {
        Self {
            status,
            headers: String::new(),
            body: format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>").into(),
        }
    }
}

/// One request a connection.
fn serve(stream: TcpStream, objects: &Objects) {
    let Some(request) = read(&stream) else {
        return;
    };
    let answer = match request.authorised {
        true => act(&request, &mut objects.lock().expect("no panic")),
        false => Answer::refusal("403 Forbidden", "InvalidAccessKeyId"),
    };
    let head = format!(
        "HTTP/1.1 {}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
        answer.status,
        answer.body.len(),
        answer.headers
    );
    // A client that is gone needs no answer.
    let _ = (&stream).write_all(&[head.as_bytes(), &answer.body].concat());
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorised) = (0, false);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorised = value.contains(&format!("Credential={KEY}/")),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (!name.is_empty()).then(|| (name.to_owned(), value.replace("%2F", "/")))
    });
    Some(Request {
        method,
        path: path.trim_start_matches('/').to_owned(),
        query: query.collect(),
        authorised,
        body,
    })
}

fn act(request: &Request, objects: &mut BTreeMap<String, Vec<u8>>) -> Answer {
    let asked = |name: &str| request.query.contains_key(name);
    let path = request.path.clone();
    match request.method.as_str() {
        "POST" if asked("uploads") => Answer::ok(
            "<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
        ),
        "PUT" if asked("partNumber") => {
            let part: u32 = request.query["partNumber"].parse().unwrap_or(0);
            objects.insert(format!("{path}#{part:05}"), request.body.clone());
            Answer::ok("")
        }
        "POST" if asked("uploadId") => {
            let parts: Vec<_> = objects
                .keys()
                .filter(|key| key.starts_with(&format!("{path}#")))
                .cloned()
                .collect();
            let whole = parts.iter().filter_map(|part| objects.remove(part));
            let whole: Vec<_> = whole.flatten().collect();
            objects.insert(path, whole);
            Answer::ok(
                "<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>",
            )
        }
        "POST" if asked("delete") => {
            let text = String::from_utf8_lossy(&request.body).into_owned();
            let mut deleted = String::new();
            for piece in text.split("<Key>").skip(1) {
                let key = piece.split("</Key>").next().unwrap_or_default();
                objects.remove(&format!("{}/{key}", path.trim_end_matches('/')));
                deleted += &format!("<Deleted><Key>{key}</Key></Deleted>");
            }
            Answer::ok(format!("<DeleteResult>{deleted}</DeleteResult>"))
        }
        "PUT" => {
            objects.insert(path, request.body.clone());
            Answer::ok("")
        }
        "GET" if asked("list-type") => {
            let bucket = path.trim_end_matches('/');
            let prefix = request.query.get("prefix").cloned().unwrap_or_default();
            let found: String = objects
                .iter()
                .filter_map(|(key, body)| {
                    let key = key.strip_prefix(&format!("{bucket}/"))?;
                    key.starts_with(&prefix).then(|| format!(
                        "<Contents><Key>{key}</Key><LastModified>2026-01-05T07:12:44.000Z</LastModified>\
                         <ETag>1</ETag><Size>{}</Size></Contents>",
                        body.len()
                    ))
                })
                .collect();
            Answer::ok(format!(
                "<ListBucketResult><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
            ))
        }
        "GET" => match objects.get(&path) {
            Some(body) => Answer::ok(body.clone()),
            None => Answer::refusal("404 Not Found", "NoSuchKey"),
        },
        "DELETE" => {
            objects.remove(&path);
            Answer::ok("")
        }
        _ => Answer::refusal("405 Method Not Allowed", "MethodNotAllowed"),
    }
}
