import Glibc
import SystemPackage
import Testing

@testable import Linux

@Suite("Starting routers")
struct SpawnTests {
    /// A router with our end of its socket and of its stderr.
    final class Started {
        let pid: Int32
        let pidfd: Descriptor
        let socket: Descriptor
        let errors: Descriptor

        init(_ script: String, environment: [String] = Process.environment(), limit: UInt64 = 100) throws {
            let ends = try Socket.pair().release()
            socket = Descriptor(owning: ends.0)
            let theirs = Descriptor(owning: ends.1)
            var pipe: [Int32] = [-1, -1]
            guard Glibc.pipe(&pipe) == 0 else { throw Errno(rawValue: errno) }
            errors = Descriptor(owning: pipe[0])
            let errorPipe = Descriptor(owning: pipe[1])
            let router = try Spawn.router(
                arguments: ["sh", "-c", script], environment: environment, socket: theirs.raw,
                errorPipe: errorPipe.raw, softDescriptorLimit: limit)
            pid = router.pid
            pidfd = router.take()
        }

        /// Everything it writes until it closes the socket.
        func output() -> String { Self.all(socket.raw) }
        func errorOutput() -> String { Self.all(errors.raw) }

        private static func all(_ raw: Int32) -> String {
            var bytes: [UInt8] = []
            var buffer = [UInt8](repeating: 0, count: 4096)
            while true {
                let count = read(raw, &buffer, buffer.count)
                guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
                bytes += buffer.prefix(count)
            }
        }

        /// Waits for its end; nil after ten seconds.
        func end() -> Linux.ExitStatus? {
            var poller = pollfd(fd: pidfd.raw, events: Int16(POLLIN), revents: 0)
            guard poll(&poller, 1, 10_000) == 1 else { return nil }
            return Process.reap(pid)
        }
    }

    @Test("its socket is its stdin and its stdout, its stderr a pipe")
    func standard() throws {
        let router = try Started("read line; echo \"got $line\"; echo oops >&2; exit 7")
        _ = try "hello\n".utf8.withContiguousStorageIfAvailable {
            try Socket.send(router.socket.raw, from: $0.baseAddress ?? UnsafePointer(bitPattern: 1)!, count: $0.count)
        }
        #expect(router.output() == "got hello\n")
        #expect(router.errorOutput() == "oops\n")
        #expect(router.end() == .exited(7))
    }

    @Test("it has three descriptors, its own group, default signals, and the limit it was given")
    func surroundings() throws {
        // Left open on purpose, without close-on-exec: it must not reach the router.
        let leak = Descriptor(owning: dup(2))
        let previous = signal(SIGPIPE, SIG_IGN)
        defer { signal(SIGPIPE, previous) }
        let router = try Started("ulimit -S -n; cut -d' ' -f5 /proc/$$/stat; exec ls /proc/self/fd", limit: 77)
        // The last one is the folder that ls reads.
        #expect(router.output() == "77\n\(router.pid)\n0\n1\n2\n3\n")
        #expect(router.end() == .exited(0))
        withExtendedLifetime(leak) {}
        let other = try Started("exec grep -E 'SigBlk|SigIgn' /proc/self/status")
        #expect(other.output() == "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n")
        #expect(other.end() == .exited(0))
    }

    @Test("what execve says is thrown, and no process is left")
    func failures() throws {
        let null = Descriptor(owning: open("/dev/null", O_RDWR | O_CLOEXEC))
        func start(_ name: String) throws(Errno) {
            _ = try Spawn.router(
                arguments: [name], environment: ["PATH=/bin:/usr/bin"], socket: null.raw, errorPipe: null.raw,
                softDescriptorLimit: 100)
        }
        #expect(throws: Errno.noSuchFileOrDirectory) { try start("no-such-router") }
        #expect(throws: Errno.noSuchFileOrDirectory) { try start("/no/such/router") }
        #expect(throws: Errno.noSuchFileOrDirectory) { try start("") }
        #expect(throws: Errno.permissionDenied) { try start("/etc/passwd") }
        #expect(throws: Errno.badFileDescriptor) {
            _ = try Spawn.router(
                arguments: ["true"], environment: [], socket: 9999, errorPipe: null.raw, softDescriptorLimit: 100)
        }
    }

    @Test("it is killed when the thread that started it ends, though it ignores TERM")
    func parentDeath() throws {
        final class Box: @unchecked Sendable { var router: Started? }
        let box = Box()
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                let box = Unmanaged<Box>.fromOpaque(argument).takeUnretainedValue()
                box.router = try? Started("trap '' TERM; echo started; while :; do sleep 1000; done")
                // Its death signal is set by now, and so is its trap.
                var byte: UInt8 = 0
                if let router = box.router { _ = read(router.socket.raw, &byte, 1) }
                return nil
            }, Unmanaged.passUnretained(box).toOpaque())
        pthread_join(thread, nil)
        let router = try #require(box.router)
        #expect(router.end() == .signaled(9, coreDumped: false))
        // What its shell started is in its group and goes with it.
        try? Signals.send(.kill, to: -router.pid)
    }

    @Test("a name is searched in the PATH of the router's environment")
    func search() throws {
        #expect(try Spawn.executable("./x", environment: []) == "./x")
        #expect(try Spawn.executable("sh", environment: ["PATH=/nowhere:/bin"]) == "/bin/sh")
        #expect(try Spawn.executable("sh", environment: []).hasSuffix("/sh"))
        #expect(throws: Errno.noSuchFileOrDirectory) { try Spawn.executable("sh", environment: ["PATH=/nowhere"]) }
        #expect(throws: Errno.permissionDenied) { try Spawn.executable("passwd", environment: ["PATH=/etc"]) }
    }

    @Test("its environment is ours without what is meant for tproxy alone")
    func environment() {
        let ours = [
            "PATH=/bin", "TPROXY_BIND=1", "TPROXY_=", "LISTEN_FDS=2", "LISTEN_PID=3", "NOTIFY_SOCKET=/x",
            "WATCHDOG_USEC=1", "PYTHONUNBUFFERED=", "HOME=/a=b", "MY_TPROXY_X=1", "NOTIFY_SOCKETS=1", "odd",
        ]
        #expect(
            Spawn.routerEnvironment(ours) == [
                "PATH=/bin", "HOME=/a=b", "MY_TPROXY_X=1", "NOTIFY_SOCKETS=1", "odd", "PYTHONUNBUFFERED=1",
            ])
    }
}

@Suite("What workers get of the environment")
struct WorkerEnvironmentTests {
    @Test("all but what the service manager told its child; and no backtraces, unless somebody wants them")
    func environment() {
        let ours = ["PATH=/bin", "LISTEN_FDS=2", "NOTIFY_SOCKET=/x", "WATCHDOG_PID=1", "TPROXY_BIND=1"]
        #expect(Spawn.workerEnvironment(ours) == ["PATH=/bin", "TPROXY_BIND=1", "SWIFT_BACKTRACE=enable=no"])
        #expect(Spawn.workerEnvironment(["SWIFT_BACKTRACE=enable=yes"]) == ["SWIFT_BACKTRACE=enable=yes"])
        let inherited = Spawn.workerEnvironment(["HOME=/"])
        #expect(Spawn.routerEnvironment(inherited) == ["HOME=/", "PYTHONUNBUFFERED=1"])
    }
}

@Suite("Processes, signals and the clock")
struct ProcessTests {
    @Test("how a child ended reads as a sentence's end")
    func statuses() {
        #expect(Linux.ExitStatus.exited(3).description == "exited with status 3")
        #expect(Linux.ExitStatus.signaled(9, coreDumped: false).description == "died of SIGKILL")
        #expect(Linux.ExitStatus.signaled(4, coreDumped: true).description == "died of SIGILL (core dumped)")
        #expect(Linux.ExitStatus.signaled(40, coreDumped: false).description == "died of SIG40")
    }

    @Test("the environment holds what the C library has")
    func environment() {
        let path = getenv("PATH").map { "PATH=" + String(cString: $0) }
        #expect(Process.environment().contains(path ?? ""))
    }

    @Test("moments are compared and moved without trapping")
    func instants() {
        let start = Instant(milliseconds: 1000)
        #expect(start.advanced(byMilliseconds: 500).milliseconds(since: start) == 500)
        #expect(start.milliseconds(since: start.advanced(byMilliseconds: 500)) == -500)
        #expect(start.advanced(byMilliseconds: -2000) == Instant(nanoseconds: 0))
        #expect(start.advanced(byMilliseconds: .max) == Instant(nanoseconds: .max))
        #expect(start.advanced(byMilliseconds: .min) == Instant(nanoseconds: 0))
        #expect(Instant.now() <= Instant.now())
    }

    @Test("a segment cannot be made smaller under its readers")
    func sealed() throws {
        let descriptor = try SharedMemory.create(name: "sealed", size: 4096)
        #expect(ftruncate(descriptor.raw, 0) == -1)
        #expect(ftruncate(descriptor.raw, 8192) == -1)
        let one = try SharedMemory(mapping: descriptor.raw)
        let other = try SharedMemory(mapping: descriptor.raw)
        one.base.storeBytes(of: 7, as: UInt64.self)
        #expect(other.base.load(as: UInt64.self) == 7)
    }

    @Test("a file in memory gives back what it holds, and no more than was asked for")
    func file() throws {
        let bytes = (0..<40_000).map { UInt8(truncatingIfNeeded: $0) }
        let file = try SharedMemory.file(name: "file", holding: bytes)
        #expect(try SharedMemory.contents(of: file.raw, bytesMax: 40_000) == bytes)
        #expect(throws: Errno.fileTooLarge) { try SharedMemory.contents(of: file.raw, bytesMax: 39_999) }
    }
}
