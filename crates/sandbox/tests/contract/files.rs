//! Files through the hand.

use std::path::Path;

use hand::wire::FailureCode;
use sandbox::{EntryKind, SandboxError};

use crate::world::in_world;

fn refused<T>(result: Result<T, SandboxError>) -> FailureCode {
    match result {
        Err(SandboxError::Refused(failure)) => failure.code,
        Err(other) => panic!("another error: {other}"),
        Ok(_) => panic!("it was not refused"),
    }
}

#[test]
fn what_a_command_writes_is_read_and_what_is_written_a_command_reads() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        world.sh(&sandbox, "printf 'a\\0b\\377' > made.bin").await;
        let read = sandbox.read("/workspace/made.bin".as_ref(), 0, 100).await.unwrap();
        assert_eq!((read.bytes, read.file_bytes), (vec![b'a', 0, b'b', 0xff], 4));
        let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        sandbox.write("deep/er/big.bin".as_ref(), &big, Some(0o755)).await.unwrap();
        assert_eq!(world.sh(&sandbox, "stat -c '%s %a' deep/er/big.bin").await.text(), "3000000 755\n");
        let part = sandbox.read("deep/er/big.bin".as_ref(), 1_000_000, 500_000).await.unwrap();
        assert_eq!((&part.bytes[..], part.file_bytes), (&big[1_000_000..1_500_000], 3_000_000));
        assert_eq!(refused(sandbox.read("none".as_ref(), 0, 1).await), FailureCode::NotFound);
        assert_eq!(refused(sandbox.write("/usr/x".as_ref(), b"", None).await), FailureCode::Denied);
    });
}

#[test]
fn a_folder_is_listed_by_name_with_what_its_entries_are() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        world.sh(&sandbox, "mkdir d; cd d; mkdir sub; echo 12345 > file; ln -s file link; mkfifo pipe").await;
        let listing = sandbox.list("d".as_ref(), 10).await.unwrap();
        let seen: Vec<_> = listing.entries.iter().map(|e| (e.name.to_str().unwrap(), e.kind)).collect();
        let wanted = [
            ("file", EntryKind::File),
            ("link", EntryKind::Link),
            ("pipe", EntryKind::Other),
            ("sub", EntryKind::Folder),
        ];
        assert_eq!(seen, wanted);
        assert_eq!((listing.entries[0].size_bytes, listing.truncated), (6, false));
        assert!(sandbox.list("d".as_ref(), 2).await.unwrap().truncated);
        assert_eq!(refused(sandbox.list("d/file".as_ref(), 2).await), FailureCode::NotFolder);
        assert_eq!(sandbox.stat("d/link".as_ref()).await.unwrap().kind, EntryKind::Link);
    });
}

#[test]
fn names_that_are_not_text_are_listed_read_and_written() {
    use std::os::unix::ffi::OsStrExt as _;
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        let name = std::ffi::OsStr::from_bytes(b"d/\xff\xfe");
        sandbox.write(name.as_ref(), b"x", None).await.unwrap();
        assert_eq!(sandbox.list("d".as_ref(), 10).await.unwrap().entries[0].name.as_bytes(), b"\xff\xfe");
        assert_eq!(sandbox.read(name.as_ref(), 0, 10).await.unwrap().bytes, b"x");
    });
}

#[test]
fn only_regular_files_are_copied_out_and_nothing_is_left_of_a_refusal() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        world
            .sh(
                &sandbox,
                "echo data > file; ln -s /etc/passwd link; mkfifo pipe; mkdir dir; head -c 2000000 /dev/zero > big",
            )
            .await;
        let to = world.folder.path().join("out");
        assert_eq!(sandbox.copy_out("file".as_ref(), &to, 100).await.unwrap(), 5);
        assert_eq!(std::fs::read(&to).unwrap(), b"data\n");
        let again = sandbox.copy_out("file".as_ref(), &to, 100).await;
        assert!(matches!(again, Err(SandboxError::Storage { .. })), "an existing host file was overwritten");
        std::fs::remove_file(&to).unwrap();
        for path in ["link", "pipe", "dir", "/dev/zero", "/dev/null"] {
            assert_eq!(refused(sandbox.copy_out(path.as_ref(), &to, 100).await), FailureCode::NotRegular, "{path}");
            assert!(!to.exists(), "{path} left a file");
        }
        let large = sandbox.copy_out("big".as_ref(), &to, 1_999_999).await;
        assert!(matches!(large, Err(SandboxError::TooLarge { .. })));
        assert!(!to.exists());
        assert_eq!(sandbox.copy_out("big".as_ref(), &to, 2_000_000).await.unwrap(), 2_000_000);
    });
}

#[test]
fn a_copy_that_nobody_waits_for_any_more_leaves_no_file() {
    in_world(async |world| {
        let sandbox = world.sandbox("a").await;
        world.sh(&sandbox, "head -c 200000000 /dev/zero > big").await;
        let to = world.folder.path().join("out");
        {
            let copy = sandbox.copy_out("big".as_ref(), &to, 1 << 30);
            let begun = async {
                while !std::fs::metadata(&to).is_ok_and(|about| about.len() > 0) {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                }
            };
            tokio::select! { done = copy => panic!("it was too quick: {done:?}"), () = begun => {} }
        }
        while to.exists() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert_eq!(sandbox.copy_out("big".as_ref(), &to, 1 << 30).await.unwrap(), 200_000_000);
    });
}

#[test]
fn a_path_that_climbs_out_stays_in_the_box() {
    in_world(async |world| {
        let secret = world.folder.path().join("secret");
        std::fs::write(&secret, "host").unwrap();
        let sandbox = world.sandbox("a").await;
        let climbing = Path::new("/workspace/../../../../..").join(secret.strip_prefix("/").unwrap());
        assert_eq!(refused(sandbox.read(&climbing, 0, 10).await), FailureCode::NotFound);
        world.sh(&sandbox, &format!("ln -s {} escape", secret.display())).await;
        assert_eq!(refused(sandbox.read("escape".as_ref(), 0, 10).await), FailureCode::NotFound);
    });
}
