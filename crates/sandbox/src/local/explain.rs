//! From a failed step to a sentence that helps: which setting says no, and what changes it.
//!
//! Absent: guessing. What is not known here is reported as the step and the system's words.

use std::fs;

use crate::local::inside::{Failed, Step};
use crate::port::{Problem, SandboxError};

/// Facts about the machine that decide between reasons.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// `kernel.unprivileged_userns_clone`, where the kernel has it.
    pub unprivileged_userns_clone: Option<String>,
    /// `user.max_user_namespaces`.
    pub max_user_namespaces: Option<String>,
    /// `kernel.apparmor_restrict_unprivileged_userns`, where the kernel has it.
    pub apparmor_restrict: Option<String>,
    /// Whether this program runs in a container.
    pub in_container: bool,
    /// Kernel release.
    pub release: String,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Self {
        let setting = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let init = setting("/proc/1/cgroup").unwrap_or_default();
        Self {
            unprivileged_userns_clone: setting("/proc/sys/kernel/unprivileged_userns_clone"),
            max_user_namespaces: setting("/proc/sys/user/max_user_namespaces"),
            apparmor_restrict: setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            in_container: fs::exists("/.dockerenv").unwrap_or(false)
                || fs::exists("/run/.containerenv").unwrap_or(false)
                || init.contains("/docker/")
                || init.contains("/kubepods"),
            release: setting("/proc/sys/kernel/osrelease").unwrap_or_default(),
        }
    }

    /// Kernel release as two numbers.
    pub fn version(&self) -> (u32, u32) {
        let mut numbers = self.release.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }
}

/// The error for a failed step.
pub fn explain(failed: Failed, machine: &Machine) -> SandboxError {
    match problem(&failed, machine) {
        Some(problem) => SandboxError::Unsupported(problem),
        None if failed.step == Step::Root => SandboxError::BadRoot { what: failed.detail },
        None => SandboxError::Start { step: failed.step.to_string(), detail: failed.detail },
    }
}

fn problem(failed: &Failed, machine: &Machine) -> Option<Problem> {
    let denied = matches!(failed.errno, libc::EPERM | libc::EACCES);
    match failed.step {
        Step::Namespaces | Step::IdMaps => Some(namespaces(failed, machine)),
        Step::Overlay if denied && restricted(machine) => Some(namespaces(failed, machine)),
        Step::Pivot | Step::Bind | Step::Dev | Step::Confine | Step::Loopback if denied => {
            Some(namespaces(failed, machine))
        }
        Step::Overlay => Some(overlay(failed, machine)),
        Step::Proc if denied => Some(fatal(
            "a sandbox cannot have its own /proc",
            format!("{}; parts of the outer /proc are masked, as container engines do", failed.detail),
            "Run the server outside of the container, or start the container with `--security-opt systempaths=unconfined` (Docker) or `procMount: Unmasked` (Kubernetes).",
        )),
        Step::Proc
        | Step::Plan
        | Step::Socket
        | Step::Groups
        | Step::PidFile
        | Step::Bind
        | Step::Dev
        | Step::Pivot
        | Step::Root
        | Step::Loopback
        | Step::Confine
        | Step::Hand => None,
    }
}

fn fatal(what: &str, why: impl Into<String>, fix: &str) -> Problem {
    Problem { what: what.into(), why: why.into(), fix: fix.into(), fatal: true }
}

fn restricted(machine: &Machine) -> bool {
    machine.apparmor_restrict.as_deref() == Some("1")
}

fn namespaces(failed: &Failed, machine: &Machine) -> Problem {
    const WHAT: &str = "user namespaces cannot be used, so no sandbox can start";
    if machine.max_user_namespaces.as_deref() == Some("0") || failed.errno == libc::ENOSPC {
        let now = machine.max_user_namespaces.as_deref().unwrap_or("exhausted");
        return fatal(
            WHAT,
            format!("the setting user.max_user_namespaces is {now}"),
            "Run `sudo sysctl -w user.max_user_namespaces=15000` and keep it in /etc/sysctl.d/.",
        );
    }
    if machine.unprivileged_userns_clone.as_deref() == Some("0") {
        return fatal(
            WHAT,
            "the setting kernel.unprivileged_userns_clone is 0",
            "Run `sudo sysctl -w kernel.unprivileged_userns_clone=1` and keep it in /etc/sysctl.d/, or run the server as root.",
        );
    }
    if restricted(machine) {
        return fatal(
            WHAT,
            format!("AppArmor restricts them: kernel.apparmor_restrict_unprivileged_userns is 1 ({})", failed.detail),
            "Add an AppArmor profile for the server's binary with the rule `userns,`, or run `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or run the server as root.",
        );
    }
    if machine.in_container {
        return fatal(
            WHAT,
            format!("the container that the server runs in forbids them ({})", failed.detail),
            "Start the container with `--security-opt seccomp=unconfined --security-opt apparmor=unconfined`, or run the server on the host.",
        );
    }
    fatal(
        WHAT,
        format!("the system said: {} at the step `{}`", failed.detail, failed.step),
        "The kernel needs CONFIG_USER_NS, and no security module that forbids user namespaces to this user.",
    )
}

fn overlay(failed: &Failed, machine: &Machine) -> Problem {
    if machine.version() < (5, 12) {
        return fatal(
            "the kernel is too old for sandboxes",
            format!("it is {}; overlays in user namespaces and mount attributes need 5.12", machine.release),
            "Use a newer kernel, or run the server in a virtual machine that has one.",
        );
    }
    fatal(
        "the data folder cannot hold the writable side of a sandbox",
        failed.detail.clone(),
        "Put the data folder on ext4, xfs, btrfs or tmpfs (not on an overlay or a network filesystem); in a container that means a volume.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn why(step: Step, errno: i32, machine: Machine) -> Problem {
        problem(&Failed { step, errno, detail: "no".into() }, &machine).unwrap()
    }

    #[test]
    fn each_way_to_switch_namespaces_off_is_named_with_its_fix() {
        let machine = |f: &dyn Fn(&mut Machine)| {
            let mut machine = Machine { max_user_namespaces: Some("9000".into()), ..Machine::default() };
            f(&mut machine);
            machine
        };
        let off = why(Step::Namespaces, libc::ENOSPC, machine(&|m| m.max_user_namespaces = Some("0".into())));
        assert!(
            off.why.contains("user.max_user_namespaces") && off.fix.contains("sysctl -w user.max_user_namespaces=")
        );
        let debian = why(Step::Namespaces, libc::EPERM, machine(&|m| m.unprivileged_userns_clone = Some("0".into())));
        assert!(debian.why.contains("kernel.unprivileged_userns_clone") && debian.fix.contains("=1"));
        let ubuntu = why(Step::Overlay, libc::EPERM, machine(&|m| m.apparmor_restrict = Some("1".into())));
        assert!(ubuntu.why.contains("apparmor_restrict_unprivileged_userns") && ubuntu.fix.contains("AppArmor"));
        let docker = why(Step::Namespaces, libc::EPERM, machine(&|m| m.in_container = true));
        assert!(docker.fix.contains("seccomp=unconfined"));
        let unknown = why(Step::Namespaces, libc::EPERM, machine(&|_| {}));
        assert!(unknown.fix.contains("CONFIG_USER_NS"));
    }

    #[test]
    fn an_overlay_that_is_refused_names_the_filesystem_or_the_kernel() {
        let new = Machine { release: "6.1.0-9-amd64".into(), ..Machine::default() };
        assert!(why(Step::Overlay, libc::EINVAL, new).fix.contains("volume"));
        let old = Machine { release: "5.4.0-1".into(), ..Machine::default() };
        assert!(why(Step::Overlay, libc::EPERM, old).why.contains("5.12"));
    }
}
