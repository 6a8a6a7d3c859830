//! The last steps before the hand: limits, identity, capabilities, walls.
//!
//! Order matters: what takes a right comes after what needs it, and the filter is last. Absent: what
//! is behind each wall (see `filter` and `landlock`).

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::plan::{AtStep as _, Failed, Plan, Step};
use super::{filter, landlock, sys};

/// What root in the box can do. All of it ends at the box's own users and namespaces.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP);
/// The kernel has 41 capabilities; asking for one it does not have ends the loop.
const CAPABILITIES: u32 = 64;

/// Closes the door to further user namespaces, and names the box.
pub fn namespaces() -> Result<(), Failed> {
    rustix::system::sethostname(b"box").at(Step::Confine, || "setting the host name".into())?;
    // A second wall behind the filter; every other kind of namespace needs this one first. Kernels
    // without the setting have the filter alone.
    let _ = std::fs::write("/proc/sys/user/max_user_namespaces", "0");
    Ok(())
}

/// Takes on the box's limits and gives up everything that it need not have.
pub fn confine(plan: &Plan) -> Result<(), Failed> {
    // The launcher may be a session leader of a terminal's session; the box has no terminal.
    let _ = rustix::process::setsid();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::empty_keyring();
    // Where a control group counts the processes it tells of a refusal; this limit then only stands by.
    let counted = plan.groups.iter().flat_map(|group| &group.settings).any(|(file, _)| file == "pids.max");
    limit(Resource::Nproc, u64::from(plan.pids) + if counted { 64 } else { 0 })?;
    limit(Resource::Nofile, u64::from(plan.open_files))?;
    // One and not zero: a crash handler of the host that is fed through a pipe starts even at zero.
    limit(Resource::Core, 1)?;
    sys::reset_signals();
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if !KEPT.contains(capability) && rustix::thread::remove_capability_from_bounding_set(capability).is_err() {
            break;
        }
    }
    rustix::thread::clear_ambient_capability_set().at(Step::Confine, || "clearing ambient capabilities".into())?;
    let sets = CapabilitySets { effective: KEPT, permitted: KEPT, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).at(Step::Confine, || "dropping capabilities".into())?;
    rustix::thread::set_no_new_privs(true).at(Step::Confine, || "setting no_new_privs".into())?;
    landlock::around_the_box()?;
    sys::install_filter(&filter::program()).at(Step::Confine, || "installing the system call filter".into())
}

/// Sets a limit, as far as this process's own allows.
fn limit(resource: Resource, value: u64) -> Result<(), Failed> {
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let value = Some(value.min(most));
    setrlimit(resource, Rlimit { current: value, maximum: value })
        .at(Step::Confine, || format!("setting the limit {resource:?}"))
}
