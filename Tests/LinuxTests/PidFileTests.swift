import Glibc
import SystemPackage
import Testing

@testable import Linux

@Suite("The pid file", .serialized)
struct PidFileTests {
    /// A folder of its own for each test, and a pid file's path in it.
    final class Folder {
        let folder: String
        var path: String { folder + "/pid" }
        init() throws {
            var template = Array("/tmp/tproxy-pid-XXXXXX".utf8CString)
            guard mkdtemp(&template) != nil else { throw Errno(rawValue: errno) }
            folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        }
        deinit {
            for name in ["pid", "pid.oldbin", "other"] { unlink("\(folder)/\(name)") }
            rmdir(folder)
        }
        func write(_ text: String) {
            let raw = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
            _ = Glibc.write(raw, text, text.utf8.count)
            close(raw)
        }
        var text: String? {
            let raw = open(path, O_RDONLY)
            guard raw >= 0 else { return nil }
            defer { close(raw) }
            var buffer = [UInt8](repeating: 0, count: 100)
            return String(decoding: buffer[..<max(0, read(raw, &buffer, buffer.count))], as: UTF8.self)
        }
        /// Nothing is left of temporary files.
        var count: Int {
            guard let folder = opendir(folder) else { return -1 }
            defer { closedir(folder) }
            var count = 0
            while readdir(folder) != nil { count += 1 }
            return count - 2
        }
    }

    /// A number that is no process's.
    static func deadPid() throws -> Int32 {
        var pid: pid_t = 0
        let arguments = [strdup("true"), nil]
        defer { free(arguments[0]) }
        guard posix_spawnp(&pid, "true", nil, nil, arguments, nil) == 0 else { throw Errno(rawValue: errno) }
        waitpid(pid, nil, 0)
        return pid
    }

    @Test("it is written in one piece and removed at the end")
    func life() throws {
        let folder = try Folder()
        let file = try PidFile(writing: folder.path, pid: 12345)
        #expect(folder.text == "12345\n")
        #expect(folder.count == 1)
        file.remove()
        #expect(folder.count == 0)
    }

    @Test("one that a live process holds is refused, with or without a lock")
    func held() throws {
        let folder = try Folder()
        let mine = try PidFile(writing: folder.path)
        #expect(throws: PidFile.Failure.held(folder.path, by: getpid())) { _ = try PidFile(writing: folder.path) }
        mine.remove()
        folder.write("1\n")
        #expect(throws: PidFile.Failure.held(folder.path, by: 1)) { _ = try PidFile(writing: folder.path) }
        #expect(folder.text == "1\n")
        #expect(folder.count == 1)
    }

    @Test("a stale one is replaced, an empty one, too")
    func stale() throws {
        let folder = try Folder()
        for text in ["\(try Self.deadPid())\n", "", "  \n"] {
            folder.write(text)
            let file = try PidFile(writing: folder.path)
            #expect(folder.text == "\(getpid())\n")
            file.remove()
        }
    }

    @Test("what is no pid file is never replaced")
    func foreign() throws {
        let folder = try Folder()
        folder.write("precious\n")
        #expect(throws: PidFile.Failure.notAPidFile(folder.path)) { _ = try PidFile(writing: folder.path) }
        #expect(folder.text == "precious\n")
        unlink(folder.path)
        #expect(symlink("/etc/passwd", folder.path) == 0)
        #expect(throws: PidFile.Failure.notAPidFile(folder.path)) { _ = try PidFile(writing: folder.path) }
        #expect(throws: PidFile.Failure.system("/no/such/pid", .noSuchFileOrDirectory)) {
            _ = try PidFile(writing: "/no/such/pid")
        }
    }

    @Test("another's is never removed")
    func another() throws {
        let folder = try Folder()
        let file = try PidFile(writing: folder.path)
        unlink(folder.path)
        folder.write("1\n")
        let isOurs = file.isOurs
        #expect(!isOurs)
        file.remove()
        #expect(folder.text == "1\n")
    }

    @Test("it moves aside and back, over what a process that was killed has left")
    func moves() throws {
        let folder = try Folder()
        var file = try PidFile(writing: folder.path)
        try file.move(to: folder.path + ".oldbin")
        #expect(folder.text == nil)
        do {
            let newer = try PidFile(writing: folder.path, pid: try Self.deadPid())
            #expect(throws: PidFile.Failure.self) { try file.move(to: folder.path) }
            withExtendedLifetime(newer) {}
        }
        // Not removed, only let go of: what SIGKILL leaves.
        try file.move(to: folder.path)
        #expect(folder.text == "\(getpid())\n")
        file.remove()
        #expect(folder.count == 0)
    }
}

@Suite("How the program was started")
struct InvocationTests {
    static let program = "/proc/self/exe"

    @Test("a path stays what it is, links included, when it leads to this program")
    func absolute() {
        #expect(
            Invocation(arguments: [Self.program, "-b", "1"], environment: []).arguments == [Self.program, "-b", "1"])
    }

    @Test("a name that leads elsewhere, or nowhere, is replaced by the file that runs")
    func liar() throws {
        let running = try #require(realpath("/proc/self/exe", nil))
        defer { free(running) }
        for name in ["/bin/sh", "sh", "no such program", ""] {
            #expect(
                Invocation(arguments: [name, "x"], environment: ["PATH=/bin"]).arguments == [
                    String(cString: running), "x",
                ])
        }
    }

    @Test("a name is searched in PATH")
    func path() throws {
        #expect(Invocation(arguments: ["exe"], environment: ["PATH=/nowhere:/proc/self"]).path == "/proc/self/exe")
    }
}

@Suite("The service manager")
struct ServiceManagerTests {
    @Test("it is told in one datagram, by path or by abstract name", arguments: [true, false])
    func told(_ isAbstract: Bool) throws {
        let path = "/tmp/tproxy-notify-\(getpid())"
        defer { unlink(path) }
        let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
        defer { close(raw) }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        var name = Array(path.utf8)
        if isAbstract { name[0] = 0 }
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name) }
        let bound = withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(raw, $0, socklen_t(2 + name.count + (isAbstract ? 0 : 1)))
            }
        }
        #expect(bound == 0)
        let text = isAbstract ? "@" + path.dropFirst() : path
        guard let manager = ServiceManager(environment: ["NOTIFY_SOCKET=\(text)"]) else {
            Issue.record("no service manager")
            return
        }
        manager.tell(["READY=1", "STATUS=all is well"])
        var buffer = [UInt8](repeating: 0, count: 100)
        let count = recv(raw, &buffer, buffer.count, Int32(MSG_DONTWAIT))
        #expect(String(decoding: buffer[..<max(0, count)], as: UTF8.self) == "READY=1\nSTATUS=all is well")
    }

    @Test("without a socket there is none; the watchdog is meant for whom WATCHDOG_PID says")
    func watchdog() {
        for environment in [[], ["NOTIFY_SOCKET="], ["NOTIFY_SOCKET=relative"], ["NOTIFY_SOCKET=@"]] {
            if ServiceManager(environment: environment) != nil { Issue.record("there is one: \(environment)") }
        }
        func interval(_ more: [String]) -> UInt64? {
            ServiceManager(environment: ["NOTIFY_SOCKET=/x"] + more, pid: 7)?.watchdogMicroseconds
        }
        #expect(interval([]) == nil)
        #expect(interval(["WATCHDOG_USEC=3000000"]) == 3_000_000)
        #expect(interval(["WATCHDOG_USEC=3000000", "WATCHDOG_PID=7"]) == 3_000_000)
        #expect(interval(["WATCHDOG_USEC=3000000", "WATCHDOG_PID=8"]) == nil)
        #expect(interval(["WATCHDOG_USEC=0"]) == nil)
        #expect(interval(["WATCHDOG_USEC=soon"]) == nil)
    }
}

@Suite("Whom workers become")
struct UserIdentityTests {
    @Test("nobody asked for is nobody, and what is unknown is refused")
    func find() throws {
        #expect(try UserIdentity.find(user: nil, group: nil) == nil)
        #expect(throws: UserIdentity.Failure.noSuchUser) { try UserIdentity.find(user: "no such user", group: nil) }
        #expect(throws: UserIdentity.Failure.noSuchUser) { try UserIdentity.find(user: "4294967295", group: nil) }
        #expect(throws: UserIdentity.Failure.noSuchGroup) { try UserIdentity.find(user: nil, group: "no such group") }
        #expect(throws: UserIdentity.Failure.noGroup) { try UserIdentity.find(user: "4000000", group: nil) }
    }

    @Test("names and numbers are the same; a number without an entry needs a group", .enabled(if: geteuid() == 0))
    func numbers() throws {
        let entry = try #require(getpwnam("nobody")).pointee
        let (user, group) = (entry.pw_uid, entry.pw_gid)
        let byName = try UserIdentity.find(user: "nobody", group: nil)
        #expect(byName?.user == user)
        #expect(byName?.group == group)
        #expect(byName?.groups.contains(group) == true)
        #expect(try UserIdentity.find(user: String(user), group: nil) == byName)
        #expect(
            try UserIdentity.find(user: "4000000", group: "4000001")
                == UserIdentity(user: 4_000_000, group: 4_000_001, groups: [4_000_001]))
        #expect(try UserIdentity.find(user: nil, group: String(getegid())) == nil)
    }

    @Test("only root becomes somebody else; to stay what one is, is nothing", .enabled(if: geteuid() != 0))
    func notRoot() throws {
        #expect(try UserIdentity.find(user: String(geteuid()), group: nil) == nil)
        #expect(throws: UserIdentity.Failure.notRoot) { try UserIdentity.find(user: "root", group: nil) }
    }
}
