//! The way out: one port on loopback that leads to one socket outside, whatever becomes of who
//! listens there. The proxy is played by a few lines that answer HTTP.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sandbox::{Ended, Sandbox, StartSpec};

use crate::world::{World, in_world, spec};

/// Asks for a page through the door and prints what comes, headers included.
const ASK: &str = "perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(\"127.0.0.1:3128\") or die \"$!\\n\"; \
    print $s \"GET http://x/ HTTP/1.0\\r\\n\\r\\n\"; print while <$s>'";

/// Answers every request with the same text until it is dropped.
struct Proxy {
    ending: Arc<AtomicBool>,
    socket: PathBuf,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    fn new(folder: &Path, text: &str) -> Self {
        let socket = folder.join("door.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let (stop, text) = (Arc::clone(&ending), text.to_owned());
        let thread = std::thread::spawn(move || {
            while let Ok((mut stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let mut request = Vec::new();
                let mut space = [0; 1024];
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    match stream.read(&mut space) {
                        Ok(read) if read > 0 => request.extend_from_slice(&space[..read]),
                        _ => break,
                    }
                }
                let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{text}\n");
            }
        });
        Self { ending, socket, thread: Some(thread) }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        let _ = std::os::unix::net::UnixStream::connect(&self.socket);
        let _ = std::fs::remove_file(&self.socket);
        let _ = self.thread.take().unwrap().join();
    }
}

async fn with_door(world: &World) -> (PathBuf, Arc<dyn Sandbox>) {
    let folder = world.folder.path().join("door of a");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let snapshot = world.snapshot(&[]).await;
    let spec = StartSpec { door: Some(folder.clone()), ..spec("a", &snapshot) };
    (folder, world.start(spec).await.sandbox)
}

#[test]
fn a_request_to_the_port_reaches_the_socket_outside_and_nothing_else_is_reached() {
    in_world(async |world| {
        let (folder, sandbox) = with_door(world).await;
        let _proxy = Proxy::new(&folder, "from outside");
        let ran = world.sh(&sandbox, ASK).await;
        assert_eq!(ran.text(), "HTTP/1.0 200 OK\r\n\r\nfrom outside\n", "{}", ran.err_text());
        if Path::new("/usr/bin/curl").exists() {
            let ran = world.sh(&sandbox, "http_proxy=http://127.0.0.1:3128 curl -s http://example.invalid/").await;
            assert_eq!(ran.text(), "from outside\n", "{}", ran.err_text());
        }
        // No sight of the folder, and no other way: the mount table, the tree, the network.
        let ran = world.sh(&sandbox, "cat /proc/self/mountinfo; find / -xdev -name 'door*' 2>/dev/null").await;
        assert!(!ran.text().contains("door"), "{}", ran.text());
        let ran = world.sh(&sandbox, "tail -n +3 /proc/net/dev | wc -l; cat /proc/net/route | wc -l").await;
        assert_eq!(ran.text(), "1\n1\n");
        // The hand's descriptor of the folder can be counted, but neither read nor entered.
        let line =
            "for f in /proc/1/fd/* /proc/1/task/*/fd/*; do readlink $f; ls -d $f/. $f/door.sock; done 2>/dev/null";
        assert_eq!(world.sh(&sandbox, line).await.text(), "");
    });
}

#[test]
fn the_way_out_survives_a_restart_of_the_proxy_and_holds_who_asks_meanwhile() {
    in_world(async |world| {
        let (folder, sandbox) = with_door(world).await;
        let first = Proxy::new(&folder, "first");
        assert!(world.sh(&sandbox, ASK).await.text().ends_with("first\n"));
        drop(first);
        let asks = world.sh(&sandbox, ASK);
        let restarts = async {
            // Exec is not held up by who waits for the way out.
            assert_eq!(world.sh(&sandbox, "echo meanwhile").await.text(), "meanwhile\n");
            Proxy::new(&folder, "second")
        };
        let (asked, second) = tokio::join!(asks, restarts);
        assert!(asked.text().ends_with("second\n"), "{}{}", asked.text(), asked.err_text());
        drop(second);
    });
}

#[test]
fn commands_cannot_close_the_door_and_a_box_without_one_has_no_port() {
    in_world(async |world| {
        let (folder, sandbox) = with_door(world).await;
        let _proxy = Proxy::new(&folder, "still here");
        let line = "for t in /proc/1/task/*; do kill -9 ${t##*/}; done; kill -9 1; pkill -9 door; \
            perl -e 'for (1..300) { socket(my $s, 2, 1, 0); push @s, $s; \
            connect($s, pack(\"S n a4 x8\", 2, 3128, pack(\"C4\", 127,0,0,1))) } sleep 1000' & sleep 0.3; kill $!";
        world.sh(&sandbox, line).await;
        let ran = world.sh(&sandbox, ASK).await;
        assert!(ran.text().ends_with("still here\n"), "{}{}", ran.text(), ran.err_text());

        let closed = world.sandbox("b").await;
        let ran = world.sh(&closed, ASK).await;
        assert_eq!((ran.err_text().as_str(), ran.out.len()), ("Connection refused\n", 0));
        assert_ne!(ran.outcome.ended, Ended::Exited { code: 0 });
    });
}
