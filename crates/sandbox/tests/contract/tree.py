# Run in a box. `play SEED COUNT` changes /workspace at random; `show` prints everything that a
# program can see of the box's own files.
import hashlib, os, random, stat, sys

HERE = "/workspace"


def under(kinds):
    found = []
    for folder, names, files in os.walk(HERE):
        for name in names + files:
            path = os.path.join(folder, name)
            mode = os.lstat(path).st_mode
            if any(kind(mode) for kind in kinds):
                found.append(path)
    return sorted(found)


def play(seed, count):
    rng = random.Random(seed)
    anything = [stat.S_ISREG, stat.S_ISDIR, stat.S_ISLNK, stat.S_ISFIFO]

    def pick(*kinds):
        return rng.choice(under(kinds) or [HERE + "/none"])

    def place():
        folder = rng.choice(under([stat.S_ISDIR]) + [HERE])
        return os.path.join(folder, rng.choice("abcdefgh"))

    def write(path, how):
        with open(path, how) as file:
            file.write(str(rng.random()) * rng.choice([0, 1, 500]))

    def forget(path):
        if os.path.isdir(path) and not os.path.islink(path):
            for folder, names, files in os.walk(path, topdown=False):
                for name in files:
                    os.unlink(os.path.join(folder, name))
                for name in names:
                    inner = os.path.join(folder, name)
                    os.unlink(inner) if os.path.islink(inner) else os.rmdir(inner)
            os.rmdir(path)
        else:
            os.unlink(path)

    def move_folder():
        source, target = pick(stat.S_ISDIR), place()
        try:
            os.rename(source, target)
        except OSError as error:
            if error.errno != 18:
                raise
            # What `mv` does where a folder cannot be renamed in one step.
            if os.path.lexists(target) or target.startswith(source + "/"):
                return
            os.system("mv -T '%s' '%s'" % (source, target))

    deeds = [
        lambda: write(place(), "x"),
        lambda: write(pick(stat.S_ISREG), "a"),
        lambda: write(pick(stat.S_ISREG), "w"),
        lambda: os.mkdir(place()),
        lambda: os.mkdir(place()),
        lambda: forget(pick(*anything)),
        lambda: os.rename(pick(stat.S_ISREG, stat.S_ISLNK), place()),
        move_folder,
        move_folder,
        lambda: os.link(pick(stat.S_ISREG), place()),
        lambda: os.symlink(pick(*anything), place()),
        lambda: os.mkfifo(place()),
        lambda: os.chmod(pick(stat.S_ISREG, stat.S_ISDIR), rng.choice([0o700, 0o755, 0o750, 0o1777, 0o644 | 0o111])),
        lambda: os.setxattr(pick(stat.S_ISREG, stat.S_ISDIR), "user.note", str(rng.random()).encode()),
        lambda: os.utime(pick(stat.S_ISREG, stat.S_ISDIR), ns=(1, rng.randrange(1 << 60))),
    ]
    done = 0
    for _ in range(count):
        try:
            rng.choice(deeds)()
            done += 1
        except OSError:
            pass
    print(done > count // 4)


def show():
    first_names = {}
    skipped = ("/proc", "/dev", "/sys", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/nix", "/tmp", "/run")
    lines = []
    for folder, names, files in os.walk("/"):
        names[:] = sorted(name for name in names if os.path.join(folder, name) not in skipped)
        for name in sorted(names + files) if folder != "/" else names:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            line = [path, oct(about.st_mode), about.st_uid, about.st_gid, about.st_mtime_ns]
            if stat.S_ISREG(about.st_mode):
                line += [about.st_size, hashlib.sha256(open(path, "rb").read()).hexdigest()[:16]]
                line.append("like " + first_names.setdefault(about.st_ino, path))
            if stat.S_ISLNK(about.st_mode):
                line.append("to " + os.readlink(path))
            else:
                line += [(key, os.getxattr(path, key)) for key in sorted(os.listxattr(path))]
            lines.append(repr(line))
    print("\n".join(lines))


if sys.argv[1] == "play":
    play(int(sys.argv[2]), int(sys.argv[3]))
else:
    show()
