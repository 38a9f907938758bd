// Signals as values. No signal is handled in a handler: they are blocked and read from a descriptor.

import CLinux
import Glibc
public import SystemPackage

/// The signals tproxy has to do with.
public enum Signal: Int32, CaseIterable, Sendable, CustomStringConvertible {
    case hangUp = 1
    case interrupt = 2
    case quit = 3
    case kill = 9
    case user1 = 10
    case user2 = 12
    case brokenPipe = 13
    case terminate = 15
    case child = 17
    case terminalInput = 21
    case terminalOutput = 22
    case windowChanged = 28

    /// The name without SIG, as in the manual: HUP, USR2.
    public var description: String { SignalName.of(rawValue) }
}

/// Names of all signals: a child may die of any of them.
public enum SignalName {
    private static let names = [
        "0", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ]

    /// The name of a signal's number without SIG; the number itself when it has none.
    public static func of(_ number: Int32) -> String {
        names.indices.contains(Int(number)) ? names[Int(number)] : String(number)
    }
}

/// A process's dispositions. Children keep what is blocked and what is ignored.
public enum Signals {
    /// Blocks signals: they wait until somebody reads them from a `SignalDescriptor`. The C function is `sigprocmask`.
    public static func block(_ signals: [Signal]) throws(Errno) {
        var set = set(of: signals)
        _ = try check { sigprocmask(SIG_BLOCK, &set, nil) }
    }

    /// Makes signals have no effect. The C function is `signal(SIG_IGN)`.
    public static func ignore(_ signals: [Signal]) {
        for signal in signals { _ = Glibc.signal(signal.rawValue, SIG_IGN) }
    }

    /// Gives signals back their default effect, whatever the process that started us had done. Without it the children
    /// of a process that ignores SIGCHLD vanish unseen. The C function is `signal(SIG_DFL)`.
    public static func restoreDefaults(_ signals: [Signal]) {
        for signal in signals { _ = Glibc.signal(signal.rawValue, SIG_DFL) }
    }

    /// Sends a signal to a process, or to the process group `-pid`. The C function is `kill`.
    public static func send(_ signal: Signal, to pid: Int32) throws(Errno) {
        _ = try check { kill(pid, signal.rawValue) }
    }

    fileprivate static func set(of signals: [Signal]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for signal in signals { sigaddset(&set, signal.rawValue) }
        return set
    }
}

/// Blocked signals, to be read like bytes (signalfd(2)).
public struct SignalDescriptor: ~Copyable {
    private let descriptor: Descriptor

    /// For epoll.
    public var raw: Int32 { descriptor.raw }

    /// Reads these signals, which have to be blocked. The C function is `signalfd`.
    public init(_ signals: [Signal]) throws(Errno) {
        var set = Signals.set(of: signals)
        let raw = try check { signalfd(-1, &set, Int32(SFD_NONBLOCK) | Int32(SFD_CLOEXEC)) }
        descriptor = Descriptor(owning: raw)
    }

    /// Whether a signal waits to be read, now or soon. The C function is `poll`.
    public func waits(withinMilliseconds milliseconds: Int32) -> Bool {
        var entry = pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0)
        return poll(&entry, 1, milliseconds) > 0
    }

    /// The next signal that has come, nil when none waits. One that comes several times before it is read counts once.
    public func next() throws(Errno) -> Signal? {
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        while true {
            guard case .moved(size) = try transfer({ read(descriptor.raw, &information, size) }) else { return nil }
            if let signal = Signal(rawValue: Int32(truncatingIfNeeded: information.ssi_signo)) { return signal }
        }
    }
}
