//! Archives and folders from strangers: what they may be, and what never comes of them.

use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use sandbox::environment::import::{Bomb, ImportError, ImportLimits, ImportReport, Imported, import};
use sandbox::environment::recipe::Base;
use tar::EntryType;

use crate::archive::{Tar, gzip, save, zstd};
use crate::world::{World, in_world, is_root, not_run};

/// Imports an archive; every one gets a file of its own.
pub async fn imported(world: &World, bytes: &[u8]) -> Result<Imported, ImportError> {
    within(world, bytes, ImportLimits::default()).await
}

async fn within(world: &World, bytes: &[u8], limits: ImportLimits) -> Result<Imported, ImportError> {
    let file = save(world.folder.path(), &format!("{}.tar", world.exec_id()), bytes);
    Ok(import(&world.provider, &Base::Tarball { file }, limits).await?.expect("an archive is no host"))
}

/// The tree of the layer on disk.
pub fn tree(world: &World, imported: &Imported) -> PathBuf {
    world.folder.path().join("data/layers").join(&imported.key.as_str()[..32]).join("root")
}

fn nothing_is_left(world: &World) {
    let left = std::fs::read_dir(world.folder.path().join("data/staging")).unwrap().count();
    assert_eq!(left, 0, "a failed import left something");
}

#[test]
fn an_archive_becomes_a_layer_with_its_modes_times_links_and_owners_in_any_packing() {
    in_world(async |world| {
        let long = "d/".repeat(30) + &"n".repeat(80);
        let plain = Tar::default()
            .folder("./")
            .folder("./etc/")
            .file("./etc/hosts", "x\n")
            .with_mode("run.sh", 0o750, 33)
            .link("lib", "usr/lib")
            .file("usr/lib/a", "a")
            .hard("usr/lib/b", "./usr/lib/a")
            .file(&long, "deep")
            .pax(&[("path", b"pax name \xc3\xa9"), ("mtime", b"2000000.5"), ("comment", b"x")])
            .file("short", "pax")
            .done();
        for (kind, bytes) in [("plain", plain.clone()), ("gzip", gzip(&plain)), ("zstd", zstd(&plain))] {
            let imported = imported(world, &bytes).await.unwrap_or_else(|error| panic!("{kind}: {error}"));
            let root = tree(world, &imported);
            assert_eq!(std::fs::read(root.join("etc/hosts")).unwrap(), b"x\n");
            assert_eq!(std::fs::read(root.join(&long)).unwrap(), b"deep");
            assert_eq!(std::fs::metadata(root.join("pax name é")).unwrap().mtime(), 2_000_000);
            assert_eq!(std::fs::read_link(root.join("lib")).unwrap(), Path::new("usr/lib"));
            let run = std::fs::metadata(root.join("run.sh")).unwrap();
            assert_eq!((run.mode() & 0o7777, run.mtime()), (0o750, 1_000_000));
            if is_root() {
                assert_eq!(run.uid(), 100_033, "user 33 of the archive is user 33 of the box");
            }
            let inode = |name: &str| std::fs::metadata(root.join(name)).unwrap().ino();
            assert_eq!(inode("usr/lib/a"), inode("usr/lib/b"));
            let report = imported.report.unwrap();
            assert_eq!((report.files, report.links, report.hard_links, report.bytes), (5, 1, 1, 11));
            assert!(report.notes[0].contains("no shell"));
        }
        let again = imported(world, &plain).await.unwrap();
        assert_eq!(again.report, None, "the same archive is not imported twice");
    });
}

#[test]
fn an_archive_that_wants_out_is_refused_by_name_and_nothing_of_it_is_left() {
    in_world(async |world| {
        let outside = world.folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("canary"), "alive").unwrap();
        std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o777)).unwrap();
        let out = outside.to_str().unwrap();
        let t = Tar::default;
        type Wanted = fn(&ImportError) -> bool;
        let bad_name: Wanted = |e| matches!(e, ImportError::BadName { .. });
        let link: Wanted = |e| matches!(e, ImportError::ThroughLink { .. });
        let hard: Wanted = |e| matches!(e, ImportError::HardLink { .. });
        let header: Wanted = |e| matches!(e, ImportError::BadHeader { .. });
        let broken: Wanted = |e| matches!(e, ImportError::NotAnArchive { .. });
        let sparse: Wanted = |e| matches!(e, ImportError::Sparse { .. });
        let cases: Vec<(&str, Tar, Wanted)> = vec![
            ("upwards", t().file("../canary", "x"), bad_name),
            ("upwards in the middle", t().file("a/../../canary", "x"), bad_name),
            ("absolute and upwards", t().file("/../../etc/passwd", "x"), bad_name),
            ("pax path upwards", t().pax(&[("path", b"../../x")]).file("a", "x"), bad_name),
            ("a NUL in a pax path", t().pax(&[("path", b"a\0b")]).file("a", "x"), bad_name),
            ("a newline", t().file("a\nb", "x"), bad_name),
            ("an empty name", t().file("", "x"), bad_name),
            ("a name too long", t().file(&"n".repeat(300), "x"), bad_name),
            ("too deep", t().file(&("d/".repeat(101) + "f"), "x"), bad_name),
            ("a link to nothing", t().link("a", ""), bad_name),
            ("through an absolute link", t().link("a", out).file("a/canary", "x"), link),
            ("through a relative link", t().folder("d").link("d/a", "..").file("d/a/x", "x"), link),
            ("through links through links", t().link("a", out).link("b", "a").file("b/canary", "x"), link),
            ("a folder through a link", t().link("a", out).folder("a/new"), link),
            ("a folder over a link, then below", t().link("a", out).folder("a"), |e| {
                matches!(e, ImportError::Conflict { .. })
            }),
            ("a file over a folder", t().folder("a").file("a", "x"), |e| matches!(e, ImportError::Conflict { .. })),
            ("below a file", t().file("a", "x").file("a/b", "x"), |e| matches!(e, ImportError::Conflict { .. })),
            ("a hard link out", t().hard("a", "../outside/canary"), bad_name),
            ("a hard link to an absolute path", t().hard("a", &format!("{out}/canary")), hard),
            ("a hard link through a link", t().link("a", out).hard("b", "a/canary"), hard),
            ("a hard link to a folder", t().folder("a").hard("b", "a"), hard),
            ("a hard link to itself", t().file("a", "x").hard("a", "a"), hard),
            ("a sparse file", t().entry(EntryType::GNUSparse, b"a", b"", b""), sparse),
            ("a pax sparse file", t().pax(&[("GNU.sparse.major", b"1")]).file("a", "x"), sparse),
            ("a size of its own", t().pax(&[("size", b"4096")]).file("a", "x"), header),
            ("a global path", t().pax_of(EntryType::XGlobalHeader, &[("path", b"x")]).file("a", "x"), header),
            (
                "a pax record of no length",
                t().entry(EntryType::XHeader, b"x", b"", b"99 path=x\n").file("a", ""),
                header,
            ),
            ("an endless extension", t().entry(EntryType::XHeader, b"x", b"", &vec![b' '; (1 << 20) + 1]), header),
            ("a whiteout", t().file("a/.wh.b", ""), |e| matches!(e, ImportError::Whiteout { .. })),
            ("an unknown kind", t().entry(EntryType::new(b'V'), b"a", b"", b""), |e| {
                matches!(e, ImportError::UnknownKind { kind: 'V', .. })
            }),
            ("nothing", t(), broken),
        ];
        for (name, tar, wanted) in cases {
            let error = imported(world, &tar.file("after", "x").done()).await;
            // An archive that is refused only for being empty got an entry by this.
            let error = if name == "nothing" { imported(world, &Tar::default().done()).await } else { error };
            let error = error.err().unwrap_or_else(|| panic!("{name} was taken"));
            assert!(wanted(&error), "{name}: {error:?}");
            nothing_is_left(world);
        }
        for (name, bytes) in
            [("text", b"hello".to_vec()), ("cut off", Tar::default().file("a", "x").bytes[..600].to_vec())]
        {
            let error = imported(world, &bytes).await.expect_err(name);
            assert!(matches!(error, ImportError::NotAnArchive { .. }), "{name}: {error:?}");
        }
        let left: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(left, ["canary"]);
        assert_eq!(std::fs::read(outside.join("canary")).unwrap(), b"alive");
    });
}

#[test]
fn what_gives_power_is_left_out_and_counted() {
    in_world(async |world| {
        let bytes = Tar::default()
            .with_mode("suid", 0o6755, 0)
            .with_mode("high", 0o644, 70_000)
            .entry(EntryType::Char, b"dev/whiteout", b"", b"")
            .entry(EntryType::Block, b"dev/sda", b"", b"")
            .entry(EntryType::Fifo, b"pipe", b"", b"")
            .pax(&[
                ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
                ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ])
            .file("capable", "x")
            .pax(&[("SCHILY.xattr.user.overlay.redirect", b"/etc")])
            .folder("redirected")
            .file("/etc/absolute", "x")
            .file("twice", "first")
            .file("twice", "second")
            .link("loop", "loop")
            .link("out", "../../../../etc/shadow")
            .done();
        let imported = imported(world, &bytes).await.unwrap();
        let root = tree(world, &imported);
        assert_eq!(std::fs::metadata(root.join("suid")).unwrap().mode() & 0o7777, 0o755);
        assert!(!root.join("dev/whiteout").exists() && !root.join("dev/sda").exists() && !root.join("pipe").exists());
        for name in ["capable", "redirected"] {
            let mut names = Vec::with_capacity(4096);
            let spare = rustix::buffer::spare_capacity(&mut names);
            rustix::fs::llistxattr(root.join(name), spare).unwrap();
            assert_eq!(names, b"", "{name} has attributes");
        }
        assert_eq!(std::fs::read(root.join("etc/absolute")).unwrap(), b"x");
        assert_eq!(std::fs::read(root.join("twice")).unwrap(), b"second");
        let report = imported.report.unwrap();
        let wanted = ImportReport {
            files: 6,
            folders: 1,
            links: 2,
            bytes: 4 + 5 + 6,
            devices_dropped: 2,
            pipes_dropped: 1,
            rights_dropped: 1,
            attributes_dropped: 3,
            foreign_owners: 1,
            absolute_names: 1,
            replaced: 1,
            notes: report.notes.clone(),
            ..ImportReport::default()
        };
        assert_eq!(report, wanted);
    });
}

#[test]
fn bombs_are_stopped_while_they_grow() {
    in_world(async |world| {
        let mut big = Tar::default();
        big.push(EntryType::Regular, b"zeros", b"", &vec![0; 80 << 20], |_| {});
        let big = big.done();
        for (packing, packed) in [("gzip", gzip(&big)), ("zstd", zstd(&big))] {
            let ratio = within(world, &packed, ImportLimits { ratio: 50, ..ImportLimits::default() }).await;
            assert!(matches!(ratio, Err(ImportError::Bomb(Bomb::Ratio { .. }))), "{packing}: {ratio:?}");
            let size = within(world, &packed, ImportLimits { bytes: 1 << 20, ..ImportLimits::default() }).await;
            assert!(matches!(size, Err(ImportError::Bomb(Bomb::TooLarge { .. }))), "{packing}: {size:?}");
        }
        // A gigantic size in a header alone makes nothing.
        let mut lie = Tar::default();
        lie.push(EntryType::Regular, b"lie", b"", b"", |header| header.set_size(1 << 40));
        assert!(matches!(imported(world, &lie.done()).await, Err(ImportError::NotAnArchive { .. })));
        let many = (0..100).fold(Tar::default(), |tar, n| tar.file(&format!("f{n}"), "")).done();
        let few = ImportLimits { entries: 50, ..ImportLimits::default() };
        assert!(matches!(within(world, &many, few).await, Err(ImportError::TooMany { limit: 50 })));
        nothing_is_left(world);
    });
}

#[test]
fn a_folder_becomes_a_layer_and_its_devices_pipes_and_rights_do_not() {
    in_world(async |world| {
        let folder = world.folder.path().join("rootfs");
        std::fs::create_dir_all(folder.join("usr/bin")).unwrap();
        std::fs::create_dir_all(folder.join("locked")).unwrap();
        std::fs::copy("/bin/sh", folder.join("usr/bin/sh")).unwrap();
        std::os::unix::fs::symlink("usr/bin", folder.join("bin")).unwrap();
        std::fs::write(folder.join("a"), "a").unwrap();
        std::fs::hard_link(folder.join("a"), folder.join("b")).unwrap();
        std::fs::set_permissions(folder.join("a"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::set_permissions(folder.join("locked"), std::fs::Permissions::from_mode(0o555)).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, folder.join("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        drop(std::os::unix::net::UnixListener::bind(folder.join("socket")).unwrap());
        let base = Base::Rootfs { folder: folder.clone() };
        let first = import(&world.provider, &base, ImportLimits::default()).await.unwrap().unwrap();
        let root = tree(world, &first);
        assert_eq!(std::fs::metadata(root.join("a")).unwrap().mode() & 0o7777, 0o755);
        assert_eq!(std::fs::metadata(root.join("a")).unwrap().ino(), std::fs::metadata(root.join("b")).unwrap().ino());
        assert_eq!(std::fs::read_link(root.join("bin")).unwrap(), Path::new("usr/bin"));
        let report = first.report.unwrap();
        assert_eq!((report.pipes_dropped, report.rights_dropped, report.notes.len()), (2, 1, 0), "{report:?}");
        let same = import(&world.provider, &base, ImportLimits::default()).await.unwrap().unwrap();
        assert_eq!((same.key.clone(), same.report), (first.key.clone(), None));
        std::fs::write(folder.join("new"), "").unwrap();
        let other = import(&world.provider, &base, ImportLimits::default()).await.unwrap().unwrap();
        assert_ne!(other.key, first.key, "a changed folder is another base");
        std::fs::set_permissions(folder.join("locked"), std::fs::Permissions::from_mode(0o755)).unwrap();
    });
}

#[test]
fn a_base_for_another_machine_is_told_before_anything_runs() {
    in_world(async |world| {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0];
        elf.resize(64, 0);
        elf[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
        let mut tar = Tar::default().link("bin", "/usr/bin").link("usr/bin/sh", "../../usr/./bin/dash");
        tar.push(EntryType::Regular, b"usr/bin/dash", b"", &elf, |header| header.set_mode(0o755));
        let error = imported(world, &tar.done()).await.unwrap_err();
        assert!(matches!(error, ImportError::OtherArchitecture { .. }), "{error:?}");
        assert!(error.to_string().contains("64 bit"), "{error}");
        nothing_is_left(world);
    });
}

#[test]
fn a_pipe_in_place_of_an_archive_does_not_hang() {
    in_world(async |world| {
        let file = world.folder.path().join("pipe.tar");
        rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let error = import(&world.provider, &Base::Tarball { file }, ImportLimits::default()).await.unwrap_err();
        assert!(error.to_string().contains("no regular file"), "{error}");
    });
}

#[test]
fn an_imported_system_runs_on_its_own_programs() {
    const NAME: &str = "an imported system runs on its own programs";
    // The contract suite unpacks one there.
    let unpacked = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox-static/bin/busybox");
    let known = ["/bin/busybox".into(), "/usr/bin/busybox".into(), unpacked];
    let Some(busybox) = known.iter().find(|path| path.exists()) else {
        return not_run(NAME, "there is no busybox");
    };
    in_world(async |world| {
        let mut tar = Tar::default();
        tar.push(EntryType::Regular, b"bin/busybox", b"", &std::fs::read(busybox).unwrap(), |h| h.set_mode(0o755));
        let names = ["sh", "cat", "rm", "mkdir", "ls", "id"];
        let tar = names.iter().fold(tar, |tar, name| tar.link(&format!("bin/{name}"), "/bin/busybox"));
        let bytes = tar.file("etc/mine", "mine\n").with_mode("etc/of-33", 0o640, 33).done();
        let imported = imported(world, &gzip(&bytes)).await.unwrap();
        let mut setup = crate::builds::build_spec(
            "own",
            &imported.snapshot,
            &["mkdir -p /opt/x && cat /etc/mine > /opt/x/made && echo x > /tmp/x"],
        );
        setup.root = sandbox::Root::Own;
        let built = sandbox::environment::build::build(&world.provider, &setup, &mut <[u8]>::to_vec).await.unwrap();
        assert_eq!(built.notes, [] as [String; 0]);
        let spec = sandbox::StartSpec { root: sandbox::Root::Own, ..crate::world::spec("own", &built.snapshot) };
        let sandbox = world.start(spec).await.sandbox;
        let ran =
            world.sh(&sandbox, "cat /opt/x/made; ls /tmp; ls -ln /etc/of-33; test -e /usr/bin/env || echo alone").await;
        let text = ran.text();
        assert!(text.starts_with("mine\n-rw-r-----") && text.ends_with("alone\n"), "{ran:?}");
        if is_root() {
            assert!(text.contains(" 33       33 "), "{text}");
        }
    });
}

/// Names that are made of what is difficult.
fn any_name() -> impl Strategy<Value = Vec<u8>> {
    let plain = ["a", "b", "c", "d/e", "a/b", "link"];
    let difficult = [
        "a",
        "b",
        "c",
        "..",
        ".",
        "",
        "/",
        "etc",
        ".wh.a",
        ".wh..wh..opq",
        ".wh...",
        "a/b",
        "../outside",
        "x\u{301}",
        "d\n",
        "link",
    ];
    let part = prop_oneof![12 => prop::sample::select(plain.to_vec()), 1 => prop::sample::select(difficult.to_vec())];
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/").into_bytes())
}

fn any_entry() -> impl Strategy<Value = (u8, Vec<u8>, Vec<u8>, u32)> {
    let kinds = prop::sample::select(b"000000111222222345555555567SgxLKV".to_vec());
    let targets = prop_oneof![any_name(), Just(b"/tmp".to_vec()), Just(b"../../outside".to_vec())];
    (kinds, any_name(), targets, prop::num::u32::ANY)
}

#[test]
fn whatever_an_archive_says_nothing_outside_changes_and_no_power_comes_in() {
    in_world(async |world| {
        let outside = world.folder.path().join("data/staging/outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("a"), "alive").unwrap();
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let archives = prop::collection::vec(any_entry(), 1..9);
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..if is_root() { 300 } else { 80 } {
            let entries = archives.new_tree(&mut runner).unwrap().current();
            let mut tar = Tar::default();
            for (kind, name, link, mode) in &entries {
                let content: &[u8] = if *kind == b'0' { b"content" } else { b"" };
                tar.push(EntryType::new(*kind), name, link, content, |header| header.set_mode(*mode & 0o7777));
            }
            match imported(world, &tar.done()).await {
                Ok(imported) => {
                    taken += 1;
                    harmless(&tree(world, &imported));
                }
                Err(ImportError::Sandbox(error)) => panic!("{entries:?}: {error}"),
                Err(_) => refused += 1,
            }
            let left: Vec<_> = std::fs::read_dir(&outside).unwrap().flatten().map(|entry| entry.file_name()).collect();
            assert_eq!(left, ["a"], "{entries:?}");
            assert_eq!(std::fs::read(outside.join("a")).unwrap(), b"alive", "{entries:?}");
            assert_eq!(std::fs::metadata(outside.join("a")).unwrap().nlink(), 1, "{entries:?}");
        }
        assert!(taken > 5 && refused > 5, "the generator is too tame or too wild: {taken}, {refused}");
    });
}

#[test]
fn an_archive_with_damaged_bytes_is_refused_or_taken_and_never_more() {
    in_world(async |world| {
        let mut whole = Tar::default().folder("d").pax(&[("path", b"d/long")]).file("d/short", "text").link("l", "d");
        whole.push(EntryType::Regular, b"big", b"", &[7; 3000], |_| {});
        let whole = whole.hard("h", "big").done();
        let packings = [whole.clone(), gzip(&whole), zstd(&whole)];
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let (mut taken, mut refused) = (0, 0);
        for round in 0..if is_root() { 240 } else { 60 } {
            let mut bytes = packings[round % 3].clone();
            let places = (0..bytes.len(), 0..=255_u8);
            for (place, byte) in prop::collection::vec(places, 1..4).new_tree(&mut runner).unwrap().current() {
                bytes[place] = byte;
            }
            match imported(world, &bytes).await {
                Ok(imported) => {
                    taken += 1;
                    harmless(&tree(world, &imported));
                }
                Err(ImportError::Sandbox(error)) => panic!("{error}"),
                Err(_) => refused += 1,
            }
        }
        assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
        nothing_is_left(world);
    });
}

pub fn harmless(root: &Path) {
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            let about = entry.metadata().unwrap();
            let kind = about.file_type();
            let device = kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket();
            assert!(!device, "{:?} is no file", entry.path());
            assert!(kind.is_symlink() || about.mode() & 0o6000 == 0, "{:?} has rights", entry.path());
            assert!(!entry.file_name().as_bytes().contains(&b'\n'));
            if kind.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
}
