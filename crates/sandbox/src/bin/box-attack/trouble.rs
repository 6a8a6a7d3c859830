//! Trouble that is no attack on a wall but on a limit: processes, memory, files, and hiding.
//!
//! Absent: any bound of its own but for a few against a box without limits.

/// Starts sleeping processes until the kernel says no, and says how many there were.
pub fn processes() {
    let mut started = 0;
    loop {
        // SAFETY: the child only sleeps.
        let pid = unsafe { libc::fork() };
        if pid < 0 || started >= 5000 {
            break;
        }
        if pid == 0 {
            loop {
                unsafe { libc::pause() };
            }
        }
        started += 1;
    }
    println!("{started}");
    // SAFETY: signals the own process group, this process included.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::kill(0, libc::SIGTERM);
    }
}

/// Forks in every process, for ever, and keeps the processor busy when the kernel says no or somebody
/// asks for an end; each process in a session of its own if `scatter`.
pub fn bomb(scatter: bool) {
    // SAFETY: ignoring a signal touches no memory.
    unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
    loop {
        // SAFETY: the child does what the parent does.
        match unsafe { libc::fork() } {
            // The kernel's shares of processor time are by session where nothing else groups.
            // SAFETY: touches no memory.
            0 if scatter => drop(unsafe { libc::setsid() }),
            // A fork that is under way counts as a process; without pauses half of them would be that.
            ..0 => drop((0..10_000_000_u64).map(std::hint::black_box).sum::<u64>()),
            _ => {}
        }
    }
}

/// Nests so many folders in the working folder, the last of them with a file in it, and locks each.
pub fn nest(depth: usize) {
    for _ in 0..depth {
        std::fs::create_dir("d").unwrap();
        std::env::set_current_dir("d").unwrap();
        std::fs::set_permissions(".", std::os::unix::fs::PermissionsExt::from_mode(0o0)).unwrap();
    }
    std::fs::write("end", "x").unwrap();
}

/// Takes and touches memory up to so many mebibytes.
pub fn memory(mebibytes: usize) {
    let mut held = Vec::new();
    for _ in 0..mebibytes {
        held.push(vec![1_u8; 1 << 20]);
    }
    println!("held {}", held.iter().map(|piece| usize::from(piece[4096])).sum::<usize>());
}

/// Hides from its exec id: wipes the environment, leaves the session twice, is adopted.
pub fn hide(seconds: &str) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: fork and setsid in a process with one thread.
    unsafe {
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        libc::setsid();
        if libc::fork() != 0 {
            libc::_exit(0);
        }
        libc::setsid();
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
    }
    #[expect(clippy::disallowed_methods, reason = "a test program that turns into another")]
    let error = std::process::Command::new("/usr/bin/sleep").arg(seconds).env_clear().exec();
    drop(error);
}

/// Opens files until the kernel says no, and says how many there were and why no more.
pub fn open_files() {
    let mut held = Vec::new();
    let why = loop {
        match std::fs::File::open("/dev/null") {
            Ok(file) if held.len() < 200_000 => held.push(file),
            Ok(_) => break 0,
            Err(error) => break error.raw_os_error().unwrap_or(-1),
        }
    };
    println!("{} {why}", held.len());
}

/// Writes one file of so many mebibytes.
pub fn large_file(mebibytes: usize) {
    use std::io::Write as _;
    let mut file = std::fs::File::create("/tmp/large").unwrap();
    for _ in 0..mebibytes {
        file.write_all(&vec![1_u8; 1 << 20]).unwrap();
    }
    println!("written");
}
