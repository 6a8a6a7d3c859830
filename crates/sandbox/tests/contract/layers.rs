//! What may become a layer, and whose its files are.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use domain::id::Digest;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat};
use sandbox::{Owners, Provider, SandboxError, SnapshotRef};

use crate::world::{World, in_world, is_root, not_run, spec};

/// Stages a tree and makes it a layer.
async fn prepared(world: &World, owners: Owners, fill: impl FnOnce(&Path)) -> Result<SnapshotRef, SandboxError> {
    let key = Digest::of(b"a staged tree");
    let staged = world.provider.stage(&key, Path::new("/workspace")).await?;
    fill(&staged.content);
    world.provider.prepare(&key, staged, owners).await
}

#[test]
fn kept_owners_are_the_boxs_users_of_the_same_numbers_also_under_several_names() {
    in_world(async |world| {
        let fill = |root: &Path| {
            std::fs::create_dir(root.join("dir")).unwrap();
            for name in ["plain", "mine", "dir/inner"] {
                std::fs::write(root.join(name), name).unwrap();
            }
            std::fs::hard_link(root.join("mine"), root.join("dir/again")).unwrap();
            std::os::unix::fs::symlink("plain", root.join("link")).unwrap();
            if is_root() {
                chown(root.join("mine"), Some(1000), Some(50)).unwrap();
                chown(root.join("dir"), Some(33), Some(65_535)).unwrap();
                std::os::unix::fs::lchown(root.join("link"), Some(7), Some(8)).unwrap();
            }
        };
        let snapshot = prepared(world, Owners::Kept, fill).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let ran = world.sh(&sandbox, "stat -c '%n %u:%g %h' plain mine dir dir/again dir/inner link").await;
        let wanted = if is_root() {
            "plain 0:0 1\nmine 1000:50 2\ndir 33:65535 2\ndir/again 1000:50 2\ndir/inner 0:0 1\nlink 7:8 1\n"
        } else {
            "plain 0:0 1\nmine 0:0 2\ndir 0:0 2\ndir/again 0:0 2\ndir/inner 0:0 1\nlink 0:0 1\n"
        };
        assert_eq!(ran.text(), wanted, "{}", ran.err_text());
    });
}

#[test]
fn owners_beyond_a_boxs_users_are_refused_by_name() {
    in_world(async |world| {
        if !is_root() {
            return not_run("owners beyond a box's users are refused", "only root has files of other users");
        }
        for (user, group) in [(65_536, 0), (0, 65_536)] {
            let fill = |root: &Path| {
                std::fs::write(root.join("far"), "").unwrap();
                chown(root.join("far"), Some(user), Some(group)).unwrap();
            };
            let refused = prepared(world, Owners::Kept, fill).await;
            assert!(
                matches!(&refused, Err(SandboxError::BadLayer { path, what }) if path == Path::new("workspace/far") && what.contains("65535")),
                "{refused:?}"
            );
        }
    });
}

#[test]
fn set_user_id_bits_do_not_get_into_a_layer() {
    for owners in [Owners::Root, Owners::Kept] {
        in_world(async |world| {
            let fill = |root: &Path| {
                std::fs::write(root.join("tool"), "#!/bin/sh\n").unwrap();
                std::fs::set_permissions(root.join("tool"), std::fs::Permissions::from_mode(0o6755)).unwrap();
                assert_eq!(std::fs::metadata(root.join("tool")).unwrap().mode() & 0o7777, 0o6755);
            };
            let snapshot = prepared(world, owners, fill).await.unwrap();
            let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
            assert_eq!(world.sh(&sandbox, "stat -c %a tool").await.text(), "755\n");
        });
    }
}

#[test]
fn an_overlays_own_marks_are_refused_in_a_staged_tree() {
    in_world(async |world| {
        let mark = |name: &'static str| {
            move |root: &Path| {
                std::fs::create_dir(root.join("dir")).unwrap();
                rustix::fs::setxattr(root.join("dir"), name, b"y", XattrFlags::empty()).unwrap();
            }
        };
        let mut names = vec!["user.overlay.opaque", "user.overlay.redirect"];
        names.extend(is_root().then_some(["trusted.overlay.opaque", "trusted.overlay.redirect"]).into_iter().flatten());
        for name in names {
            let refused = prepared(world, Owners::Root, mark(name)).await;
            assert!(
                matches!(&refused, Err(SandboxError::BadLayer { path, what }) if path == Path::new("workspace/dir") && what.contains("overlay")),
                "{name}: {refused:?}"
            );
        }
        let whiteout = |root: &Path| mknodat(CWD, root.join("w"), FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        let refused = prepared(world, Owners::Kept, whiteout).await;
        assert!(matches!(&refused, Err(SandboxError::BadLayer { path, .. }) if path == Path::new("workspace/w")));
        // An attribute of a program's own is kept.
        let fill = |root: &Path| {
            std::fs::write(root.join("file"), "").unwrap();
            rustix::fs::setxattr(root.join("file"), "user.note", b"kept", XattrFlags::empty()).unwrap();
        };
        let snapshot = prepared(world, Owners::Kept, fill).await.unwrap();
        let sandbox = world.start(spec("a", &snapshot)).await.sandbox;
        let ran = world.sh(&sandbox, "python3 -c 'import os; print(os.getxattr(\"file\", \"user.note\"))'").await;
        assert_eq!(ran.text(), "b'kept'\n", "{}", ran.err_text());
    });
}
