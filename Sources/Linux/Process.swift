// This process and its children: how they ended, what they may use, what ps shows of them.

import CLinux
import Glibc
public import SystemPackage

/// How a child ended.
public enum ExitStatus: Hashable, Sendable, CustomStringConvertible {
    case exited(Int32)
    case signaled(Int32, coreDumped: Bool)

    /// For messages: "exited with status 3", "died of SIGKILL".
    public var description: String {
        switch self {
        case .exited(let status): "exited with status \(status)"
        case .signaled(let number, let coreDumped):
            "died of SIG\(SignalName.of(number))\(coreDumped ? " (core dumped)" : "")"
        }
    }
}

/// Calls on this process and its children.
public enum Process {
    /// The C function is `getpid`.
    public static var pid: Int32 { getpid() }

    /// The C function is `getppid`.
    public static var parent: Int32 { getppid() }

    /// Keeps the memory of this process, which is about to hold keys, from everybody but root: no core is written, and no other
    /// process of this user can read it or trace this one. Programs that it executes are as always. The C function is
    /// `prctl(PR_SET_DUMPABLE)`.
    public static func hideMemory() throws(Errno) {
        let error = tp_hide_memory()
        guard error == 0 else { throw Errno(rawValue: error) }
    }

    /// Random bytes that nobody can foresee. The C function is `getrandom`.
    public static func randomBytes(_ count: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let start = filled
            filled += try check {
                bytes.withUnsafeMutableBytes {
                    let rest = UnsafeMutableRawBufferPointer(rebasing: $0[start...])
                    return getrandom(rest.baseAddress, rest.count, 0)
                }
            }
        }
        return bytes
    }

    /// What permissions new files do not get. The C function is `umask`.
    public static func setFileModeMask(_ mask: Int) { _ = umask(mode_t(truncatingIfNeeded: mask) & 0o777) }

    /// Whether standard error is a file, which keeps what is written to it. The C function is `fstat`.
    public static var writesErrorsToFile: Bool {
        var status = stat()
        return fstat(STDERR_FILENO, &status) == 0 && status.st_mode & S_IFMT == S_IFREG
    }

    /// Waits until a descriptor is readable. The C function is `poll`.
    public static func waitUntilReadable(_ raw: Int32) {
        var entry = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        while poll(&entry, 1, -1) < 0 && errno == EINTR {}
    }

    /// Waits for the end of a child. The C function is `waitid`, then `wait4`.
    public static func waitForEnd(of pid: Int32) -> ExitStatus? {
        var information = siginfo_t()
        while waitid(P_PID, id_t(pid), &information, WEXITED | WNOWAIT) < 0 && errno == EINTR {}
        return reap(pid)
    }

    /// Whether there is a terminal whose signals this process gets. The C function is `open` of /dev/tty.
    public static var hasTerminal: Bool {
        let raw = Glibc.open("/dev/tty", O_RDONLY | O_NOCTTY | O_CLOEXEC)
        guard raw >= 0 else { return false }
        _ = Descriptor(owning: raw)
        return true
    }

    /// A child that has ended.
    public struct Ended: Hashable, Sendable {
        public let pid: Int32
        public let status: ExitStatus
    }

    /// The next child that has ended, whichever it is; nil when none has. As pid 1 also what others have left behind.
    /// The C function is `wait4(-1, WNOHANG)`.
    public static func reapAny() -> Ended? { reap(which: -1) }

    /// How a child ended, nil while it runs. The C function is `wait4(pid, WNOHANG)`.
    public static func reap(_ pid: Int32) -> ExitStatus? { reap(which: pid)?.status }

    private static func reap(which: Int32) -> Ended? {
        var isSignal: Int32 = 0
        var code: Int32 = 0
        var coreDumped: Int32 = 0
        let pid = tp_reap(which, &isSignal, &code, &coreDumped)
        guard pid > 0 else { return nil }
        let status: ExitStatus = isSignal != 0 ? .signaled(code, coreDumped: coreDumped != 0) : .exited(code)
        return Ended(pid: pid, status: status)
    }

    /// Whether a process has ended, reaped or not; waits for that no longer than told. The C function is `poll`.
    public static func hasEnded(_ pidfd: borrowing Descriptor, withinMilliseconds wait: Int32 = 0) -> Bool {
        var entry = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, wait) == 1
    }

    /// How many descriptors a process may open: what is in force and how far it may be raised (RLIMIT_NOFILE).
    public struct DescriptorLimits: Equatable, Sendable {
        public let soft: UInt64
        public let hard: UInt64
    }

    /// The C function is `getrlimit`.
    public static func descriptorLimits() throws(Errno) -> DescriptorLimits {
        var soft: UInt64 = 0
        var hard: UInt64 = 0
        let error = tp_get_descriptor_limits(&soft, &hard)
        guard error == 0 else { throw Errno(rawValue: error) }
        return DescriptorLimits(soft: soft, hard: hard)
    }

    /// Children inherit it. The C function is `setrlimit`.
    public static func setSoftDescriptorLimit(_ soft: UInt64) throws(Errno) {
        let error = tp_set_soft_descriptor_limit(soft)
        guard error == 0 else { throw Errno(rawValue: error) }
    }

    /// The environment as `NAME=value`, in its order.
    public static func environment() -> [String] {
        var result: [String] = []
        guard var entry = tp_environment() else { return result }
        while let text = entry.pointee {
            result.append(String(cString: text))
            entry += 1
        }
        return result
    }
}

/// What ps and top show of this process.
public enum ProcessTitle {
    /// Replaces the command line that ps shows. The arguments and the environment are kept elsewhere first; call it
    /// from one thread only.
    public static func set(_ title: String) { tp_set_title(title) }

    /// Names the process in `ps -o comm`, top and pgrep; 15 bytes count. A process started anew from
    /// /proc/self/exe is called "exe". The C function is `prctl(PR_SET_NAME)`.
    public static func setName(_ name: String) { tp_set_name(name) }
}
