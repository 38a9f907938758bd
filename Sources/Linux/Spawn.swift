// Starting processes: workers, which are this program again, and routers, which are anybody's.

import CLinux
import Glibc
public import SystemPackage

/// Starting processes from this one. Swift cannot fork safely, and need not.
public enum Spawn {
    /// The first descriptor a worker inherits beyond the standard three.
    public static let firstInherited: Int32 = 3

    /// Starts this program again with `descriptors` as its descriptors 3, 4, … and no others beyond the standard three.
    /// Blocked signals stay blocked in it, so none is lost before it looks for them.
    ///
    /// It is the running version even when the file has been replaced: /proc/self/exe. `arguments[0]` is what ps shows.
    /// Returns the pid; the caller reaps it. The C function is `posix_spawn`.
    public static func worker(
        arguments: [String], environment: [String], descriptors: [Int32]
    ) throws(Errno) -> Int32 {
        try start("/proc/self/exe", arguments, environment, descriptors, flags: 0)
    }

    /// Starts the program at `path`, a later version of this one, in the same way.
    public static func successor(
        path: String, arguments: [String], environment: [String], descriptors: [Int32]
    ) throws(Errno) -> Int32 {
        try start(path, arguments, environment, descriptors, flags: 0)
    }

    /// Starts this program again in a session of its own, without a terminal and with /dev/null for the standard
    /// descriptors; its standard error is ours if `keepsErrors`.
    public static func daemon(
        arguments: [String], environment: [String], descriptors: [Int32], keepsErrors: Bool
    ) throws(Errno) -> Int32 {
        var flags = TP_SPAWN_SESSION | TP_SPAWN_NULL_INPUT_OUTPUT
        if !keepsErrors { flags |= TP_SPAWN_NULL_ERRORS }
        return try start("/proc/self/exe", arguments, environment, descriptors, flags: Int32(flags))
    }

    private static func start(
        _ path: String, _ arguments: [String], _ environment: [String], _ descriptors: [Int32], flags: Int32
    ) throws(Errno) -> Int32 {
        var pid: pid_t = 0
        let error = withSpawn(path, arguments, environment) { spawn in
            descriptors.withUnsafeBufferPointer {
                tp_spawn_self(&spawn, $0.baseAddress, Int32($0.count), firstInherited, flags, &pid)
            }
        }
        guard error == 0 else { throw Errno(rawValue: error) }
        return pid
    }

    /// A router that has been started. The caller reaps it and may signal the group `-pid`.
    public struct Router: ~Copyable {
        public let pid: Int32
        /// Readable when it has ended.
        public let pidfd: Descriptor

        /// The descriptor alone.
        public consuming func take() -> Descriptor { pidfd }
    }

    /// Starts a router with `socket` as its stdin and stdout, which should be blocking, and `errorPipe` as its stderr.
    ///
    /// It is the leader of its own process group, has default signals, no other descriptor, and is killed when the
    /// thread that calls this ends. `arguments[0]` is searched in the PATH of `environment`. Throws what execve said:
    /// then no process is left. Both descriptors stay the caller's. The C functions are `vfork` and `execve`.
    public static func router(
        arguments: [String], environment: [String], socket: Int32, errorPipe: Int32, softDescriptorLimit: UInt64
    ) throws(Errno) -> Router {
        guard let name = arguments.first, !name.isEmpty else { throw .noSuchFileOrDirectory }
        let path = try executable(name, environment: environment)
        var pid: pid_t = 0
        var pidfd: Int32 = -1
        let error = withSpawn(path, arguments, environment) { spawn in
            tp_spawn_router(&spawn, socket, errorPipe, softDescriptorLimit, &pid, &pidfd)
        }
        guard error == 0, pidfd >= 0 else { throw Errno(rawValue: error) }
        return Router(pid: pid, pidfd: Descriptor(owning: pidfd))
    }

    /// The file that a command's name stands for: itself when it has a slash, else the first executable file of that
    /// name in the PATH. One that is there but may not be executed is EACCES, else ENOENT. The C function is `access`.
    public static func executable(_ name: String, environment: [String]) throws(Errno) -> String {
        if name.utf8.contains(UInt8(ascii: "/")) { return name }
        let path = environment.last { $0.hasPrefix("PATH=") }.map { $0.dropFirst(5) } ?? "/usr/local/bin:/usr/bin:/bin"
        var error = Errno.noSuchFileOrDirectory
        for folder in path.split(separator: ":", omittingEmptySubsequences: false) {
            let candidate = folder.isEmpty ? name : "\(folder)/\(name)"
            var status = stat()
            guard stat(candidate, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { continue }
            if access(candidate, X_OK) == 0 { return candidate }
            error = .permissionDenied
        }
        throw error
    }

    /// What a router gets of our environment: all but what is meant for tproxy or for the service manager's direct
    /// child, and PYTHONUNBUFFERED=1, without which a Python router's answers stay in its buffer.
    public static func routerEnvironment(_ ours: [String]) -> [String] {
        let kept = withoutServiceManager(ours).filter { entry in
            let name = entry.prefix { $0 != "=" }
            return !(name.hasPrefix("TPROXY_") || name == "PYTHONUNBUFFERED" || entry == noBacktrace)
        }
        return kept + ["PYTHONUNBUFFERED=1"]
    }

    /// What a worker gets of our environment. A backtrace shows registers and memory, which may hold keys, and the log
    /// tells of what it died: so none, unless somebody asked for it.
    public static func workerEnvironment(_ ours: [String]) -> [String] {
        let kept = withoutServiceManager(ours)
        return kept.contains { $0.hasPrefix("SWIFT_BACKTRACE=") } ? kept : kept + [noBacktrace]
    }

    private static let noBacktrace = "SWIFT_BACKTRACE=enable=no"

    /// The environment without what a service manager has told its direct child and nobody else.
    private static func withoutServiceManager(_ ours: [String]) -> [String] {
        ours.filter { entry in
            let name = entry.prefix { $0 != "=" }
            return !(name.hasPrefix("LISTEN_") || name == "NOTIFY_SOCKET" || name.hasPrefix("WATCHDOG_"))
        }
    }

    /// Lends the strings to C for the time of a call.
    private static func withSpawn(
        _ path: String, _ arguments: [String], _ environment: [String], _ body: (inout tp_spawn) -> Int32
    ) -> Int32 {
        let argumentPointers = arguments.map { strdup($0) } + [nil]
        let environmentPointers = environment.map { strdup($0) } + [nil]
        defer {
            for pointer in argumentPointers + environmentPointers { free(pointer) }
        }
        return path.withCString { path in
            argumentPointers.withUnsafeBufferPointer { arguments in
                environmentPointers.withUnsafeBufferPointer { environment in
                    var spawn = tp_spawn(
                        path: path, arguments: arguments.baseAddress, environment: environment.baseAddress)
                    return body(&spawn)
                }
            }
        }
    }
}
