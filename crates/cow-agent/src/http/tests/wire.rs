//! Clients that behave badly, over TCP, with short limits.

use super::*;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// Longer than anything may take here.
const LONG: Duration = Duration::from_secs(20);

struct Server {
    place: Place,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start(limits: Limits) -> Self {
        let place = Place::within(limits.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let ended = tokio::spawn(serve_within(listener, place.app.clone(), limits, shutdown));
        Self { place, address, stop, ended }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn head(&self, first: &str, rest: &str) -> String {
        format!(
            "{first} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n{rest}\r\n",
            self.place.token
        )
    }

    fn get(&self) -> String {
        self.head("GET /api/v1/servers/", "")
    }

    /// A client that behaves well is served at once.
    async fn assert_serves(&self) {
        let begun = Instant::now();
        let mut client = self.connect().await;
        let request = self.head("GET /api/v1/servers/", "connection: close\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let text = read_all(&mut client).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    }
}

/// All that comes until the other side has ended; a reset is an end as well.
async fn read_all(client: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    match timeout(LONG, client.read_to_end(&mut bytes)).await.expect("the server never ends") {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
    String::from_utf8(bytes).unwrap()
}

/// Sends a byte now and then until that is impossible; what was answered.
async fn drip(client: TcpStream, text: &str) -> String {
    let (mut read, mut write) = client.into_split();
    let text = text.to_owned();
    let writer = tokio::spawn(async move {
        for byte in text.bytes() {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
    });
    let mut bytes = Vec::new();
    let _ = timeout(LONG, read.read_to_end(&mut bytes)).await.expect("the server never ends");
    writer.abort();
    String::from_utf8(bytes).unwrap()
}

fn assert_refused(text: &str, status: u16) {
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json"), "{text}");
    assert!(head.contains("connection: close"), "{text}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!(problem["status"], status);
}

#[tokio::test]
async fn slow_heads_and_bodies_are_cut_off_and_harm_nobody() {
    let server = Server::start(short()).await;
    let (head, body) = (server.connect().await, server.connect().await);
    let begun = Instant::now();
    let slow_body = server.head("POST /api/v1/snapshots/", "content-length: 1000\r\n");
    let mut body = body;
    body.write_all(slow_body.as_bytes()).await.unwrap();
    let text = " ".repeat(1000);
    let request = server.get().repeat(10);
    let (head, body, ()) =
        tokio::join!(drip(head, &request), drip(body, &text), server.assert_serves());
    assert_eq!(head, "", "what is no request has no answer");
    assert_refused(&body, 408);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_connection_is_kept_for_a_while() {
    let server = Server::start(short()).await;
    let mut client = server.connect().await;
    let begun = Instant::now();
    let restore = server.head("POST /api/v1/snapshots/7/restore/", "content-length: 3\r\n");
    client
        .write_all(format!("{}{restore}abc{}", server.get(), server.get()).as_bytes())
        .await
        .unwrap();
    let text = read_all(&mut client).await;
    let statuses: Vec<_> =
        text.match_indices("HTTP/1.1 ").map(|(at, _)| &text[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "404", "200"], "ignored bodies are read");
    let idle = begun.elapsed();
    assert!(idle >= Duration::from_millis(400) && idle < Duration::from_secs(5), "{idle:?}");
}

#[tokio::test]
async fn floods_of_head_are_refused() {
    let server = Server::start(short()).await;
    for (rest, status) in [
        (format!("x: {}\r\n", "y".repeat(40 << 10)), 431),
        (format!("x: {}\r\n", "y".repeat(1 << 20)), 431),
        ((0..150).map(|n| format!("x-{n}: y\r\n")).collect(), 431),
        ((0..5000).map(|n| format!("x-{n}: y\r\n")).collect(), 431),
        (": no name\r\n".to_owned(), 400),
    ] {
        let client = server.connect().await;
        let request = server.head("GET /api/v1/servers/", &rest);
        let (mut read, mut write) = client.into_split();
        let writer = tokio::spawn(async move { write.write_all(request.as_bytes()).await });
        let mut bytes = Vec::new();
        timeout(LONG, read.read_to_end(&mut bytes)).await.unwrap().unwrap();
        let text = String::from_utf8(bytes).unwrap();
        if rest.len() > 64 << 10
            || status == 400
            || rest.len() > 20 << 10 && rest.starts_with("x-0")
        {
            assert_refused(&text, status);
        } else {
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        }
        let _ = writer.await;
    }
    let mut long = server.connect().await;
    let request = server.head(&format!("GET /api/v1/servers/?{}", "y".repeat(60 << 10)), "");
    long.write_all(request.as_bytes()).await.unwrap();
    assert!(read_all(&mut long).await.starts_with("HTTP/1.1 431 "));
    let mut garbage = server.connect().await;
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\r\n\r\n").await.unwrap();
    assert_refused(&read_all(&mut garbage).await, 400);
    server.assert_serves().await;
}

#[tokio::test]
async fn a_large_body_does_not_keep_its_client_from_the_answer() {
    let server = Server::start(short()).await;
    let large = "x".repeat(8 << 20);
    let chunk = format!("800000\r\n{large}\r\n0\r\n\r\n");
    let with_token = |rest: &str| server.head("POST /api/v1/snapshots/", rest);
    let without = "POST /api/v1/snapshots/ HTTP/1.1\r\ncontent-length: 8388608\r\n\r\n".to_owned();
    for (head, body, status) in [
        (with_token("content-length: 8388608\r\n"), &large, 413),
        (with_token("transfer-encoding: chunked\r\n"), &chunk, 413),
        (without, &large, 401),
    ] {
        // As simple clients do: all of it is sent before anything is read.
        let mut client = server.connect().await;
        client.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        // The connection ends in good order: a reset could take the answer away.
        timeout(LONG, client.read_to_string(&mut text)).await.unwrap().unwrap();
        assert_refused(&text, status);
    }
    // A client that asks first need not send it.
    let mut client = server.connect().await;
    let head = with_token("content-length: 8388608\r\nexpect: 100-continue\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    assert_refused(&read_all(&mut client).await, 413);
}

#[tokio::test]
async fn bodies_that_lie_about_their_length_harm_themselves() {
    let server = Server::start(short()).await;
    let body = r#"{"server_id": 12345, "name": "s"}"#;
    let post = |length: usize| {
        server.head("POST /api/v1/snapshots/", &format!("content-length: {length}\r\n")) + body
    };
    let mut more = server.connect().await;
    more.write_all((post(body.len()) + "and more\r\n\r\n").as_bytes()).await.unwrap();
    let text = read_all(&mut more).await;
    assert!(text.starts_with("HTTP/1.1 201 ") && text.contains("HTTP/1.1 400 "), "{text}");
    let mut less = server.connect().await;
    less.write_all(post(body.len() + 1).as_bytes()).await.unwrap();
    assert_refused(&read_all(&mut less).await, 408);
    let mut gone = server.connect().await;
    gone.write_all(post(body.len() + 1).as_bytes()).await.unwrap();
    drop(gone);
    let mut both = server.connect().await;
    let rest = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
    let request = server.head("POST /api/v1/snapshots/", rest) + "0\r\n\r\n" + &server.get();
    both.write_all(request.as_bytes()).await.unwrap();
    let text = read_all(&mut both).await;
    assert!(text.starts_with("HTTP/1.1 400 "), "{text}");
    server.assert_serves().await;
    assert_eq!(server.place.get(SNAPSHOTS).await.json()["count"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_is_cut_off() {
    // There is one place: the second client is served when the first has lost it.
    let server = Server::start(Limits { connections: 1, ..short() }).await;
    let mut client = server.connect().await;
    let request = server.head("GET /api/v1/openapi.json", "");
    let flood = async {
        for _ in 0..10_000 {
            if client.write_all(request.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    // It is cut off, or it sends nothing more because nobody takes it.
    let _ = timeout(Duration::from_secs(2), flood).await;
    server.assert_serves().await;
    drop(client);
}

#[tokio::test]
async fn there_are_so_many_connections_and_no_more() {
    let server =
        Server::start(Limits { connections: 2, head_time: Duration::from_secs(2), ..short() })
            .await;
    let (mut one, two) = (server.connect().await, server.connect().await);
    let mut three = server.connect().await;
    three.write_all(server.get().as_bytes()).await.unwrap();
    let mut byte = [0];
    let early = timeout(Duration::from_millis(200), three.read(&mut byte)).await;
    assert!(early.is_err(), "it waits");
    // The idle ones lose their places.
    assert_eq!(timeout(LONG, three.read(&mut byte)).await.unwrap().unwrap(), 1);
    assert_eq!(read_all(&mut one).await, "");
    drop(two);
}

#[tokio::test]
async fn the_end_waits_for_what_is_being_answered() {
    let server =
        Server::start(Limits { head_time: LONG, body_time: LONG, shutdown_time: LONG, ..short() })
            .await;
    let body = r#"{"server_id": 12345, "name": "s"}"#;
    let rest = format!("content-length: {}\r\n", body.len());
    let head = server.head("POST /api/v1/snapshots/", &rest);
    let (mut busy, mut idle) = (server.connect().await, server.connect().await);
    idle.write_all(server.get().as_bytes()).await.unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 1);
    busy.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    sleep(Duration::from_millis(100)).await;
    assert!(!server.ended.is_finished());
    busy.write_all(body.as_bytes()).await.unwrap();
    assert!(read_all(&mut busy).await.starts_with("HTTP/1.1 201 "));
    timeout(LONG, server.ended).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing was left to wait for");
    assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    read_all(&mut idle).await;
}

#[tokio::test]
async fn the_end_comes_even_if_a_client_does_not_go() {
    let limits = Limits { body_time: LONG, head_time: LONG, ..short() };
    let server = Server::start(limits).await;
    let mut client = server.connect().await;
    let head = server.head("POST /api/v1/snapshots/", "content-length: 9\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    server.stop.send(()).unwrap();
    timeout(LONG, server.ended).await.unwrap().unwrap().unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(1400));
    assert_eq!(read_all(&mut client).await, "");
}
