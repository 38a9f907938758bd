import Foundation
import Glibc
import Testing

extension IntegrationTests {
    /// What a service manager tells tproxy, and is told; without one.
    @Suite struct ServiceManagers {
        /// A socket that hears what tproxy says of itself.
        final class Ear {
            let folder = Folder()
            let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
            var environment: [String: String] { ["NOTIFY_SOCKET": folder.path + "/notify"] }
            private(set) var heard: [String] = []

            init() throws {
                let raw = raw
                guard withAddress(unix: folder.path + "/notify", { bind(raw, $0, $1) }) == 0 else {
                    throw Failure("cannot bind")
                }
            }
            deinit { close(raw) }

            /// The next datagram that has this line, as lines.
            func message(with line: String) throws -> [String] {
                let deadline = Deadline(in: patience)
                while deadline.wait(for: raw, POLLIN) {
                    var buffer = [UInt8](repeating: 0, count: 4096)
                    let count = recv(raw, &buffer, buffer.count, 0)
                    let text = String(decoding: buffer[..<max(0, count)], as: UTF8.self)
                    heard.append(text)
                    let lines = text.split(separator: "\n").map(String.init)
                    if lines.contains(where: { $0.hasPrefix(line) }) { return lines }
                }
                throw Failure("no \(line) in \(heard)")
            }
        }

        @Test("it is told when tproxy is ready, reloads, is upgraded, taken back, and stops")
        func told() throws {
            let ear = try Ear()
            let proxy = try TProxy(environment: ear.environment)
            let old = proxy.process.pid
            #expect(try ear.message(with: "READY=1").contains("MAINPID=\(old)"))

            proxy.process.signal(SIGHUP)
            let reloading = try ear.message(with: "RELOADING=1")
            let stamp = reloading.first { $0.hasPrefix("MONOTONIC_USEC=") }.flatMap { UInt64($0.dropFirst(15)) }
            #expect(try #require(stamp) > 0)
            _ = try ear.message(with: "READY=1")

            proxy.process.signal(SIGUSR2)
            let line = try proxy.process.line(with: "is ready; QUIT to this process")
            let new = try #require(line.firstMatch(of: /upgrade: process (\d+)/).flatMap { pid_t($0.1) })
            _ = try ear.message(with: "MAINPID=\(new)")
            kill(new, SIGTERM)
            _ = try ear.message(with: "MAINPID=\(old)")
            try Deadline(in: patience).until("its end") { !Proc.isAlive(new) }

            #expect(try proxy.stop() == 0)
            _ = try ear.message(with: "STOPPING=1")
            #expect(ear.heard.filter { $0.contains("STOPPING=1") }.count == 1)
        }

        @Test("the watchdog hears of it twice as often as it wants")
        func watchdog() throws {
            let ear = try Ear()
            let proxy = try TProxy(environment: ear.environment.merging(["WATCHDOG_USEC": "200000"]) { $1 })
            for _ in 0..<5 { _ = try ear.message(with: "WATCHDOG=1") }
            #expect(try proxy.stop() == 0)
        }

        /// Binds a socket as descriptor 3, blocking and kept over exec, and becomes what follows.
        static let activating = [
            "python3", "-S", "-c",
            """
            import os, socket, sys
            listener = socket.create_server(("127.0.0.1", 0))
            os.dup2(listener.fileno(), 3) if listener.fileno() != 3 else os.set_inheritable(3, True)
            os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="x")
            os.execvp(sys.argv[1], sys.argv[1:])
            """,
        ]

        @Test(
            "a listener that it passes is served instead of the default, also after an upgrade; nobody else hears of it"
        )
        func activation() throws {
            let process = try Subprocess(
                Self.activating + [Repository.binary, "--router", Repository.python("told.py")])
            try process.line(with: "ready: 1 worker")
            let lines = process.lines.filter { $0.contains("listening on") }
            #expect(lines.count == 1)
            let port = try #require(
                lines.first?.firstMatch(of: /listening on 127.0.0.1:(\d+)/).flatMap { UInt16($0.1) })
            #expect(port != 5000)
            func answer() throws -> String {
                let client = try Peer(port: port)
                try client.send(#"{"answer": {"close": "served"}}"# + "\n")
                return try client.text()
            }
            #expect(try answer() == "served")
            let worker = try #require(Proc.children(of: process.pid).first)
            let router = try #require(Proc.children(of: worker).first)
            for pid in [worker, router] {
                let environment = try Proc.text("\(pid)/environ")
                #expect(!environment.contains("LISTEN_"))
            }
            let descriptors = try Proc.descriptors(router)
            // Its socket, which it has copied once more by itself, and its standard error.
            #expect(Set(descriptors.values).count == 2)

            process.signal(SIGUSR2)
            let line = try process.line(with: "is ready; QUIT to this process")
            let new = try #require(line.firstMatch(of: /upgrade: process (\d+)/).flatMap { pid_t($0.1) })
            process.signal(SIGQUIT)
            try process.line(with: "this process serves alone")
            for _ in 0..<5 { #expect(try answer() == "served") }
            kill(new, SIGTERM)
            #expect(try process.end() == 0)
        }

        @Test("it is added to addresses that were given, and reaches a daemon")
        func added() throws {
            let folder = Folder()
            let log = folder.path + "/log"
            let (status, text) = try Subprocess.run(
                Self.activating + [
                    Repository.binary, "--router", Repository.python("told.py"), "-b", "127.0.0.1:0", "-D", "-p",
                    folder.path + "/pid", "--log-file", log,
                ])
            try #require(status == 0, "\(text)")
            let said = try String(contentsOfFile: log, encoding: .utf8)
            let ports = said.matches(of: /listening on 127.0.0.1:(\d+)/).compactMap { UInt16($0.1) }
            #expect(ports.count == 2)
            for port in ports {
                let client = try Peer(port: port)
                try client.send(#"{"answer": {"close": "served"}}"# + "\n")
                #expect(try client.text() == "served")
            }
            let pid = try #require(
                pid_t(String(contentsOfFile: folder.path + "/pid", encoding: .utf8).trimmingCharacters(in: .newlines)))
            kill(pid, SIGTERM)
            try Deadline(in: patience).until("its end") { !Proc.isAlive(pid) }
        }

        @Test("variables that are meant for another process are not believed")
        func foreign() throws {
            try withTProxy(environment: ["LISTEN_FDS": "1", "LISTEN_PID": "1"]) { (proxy) throws in
                #expect(try proxy.answer() == "served")
                #expect(proxy.ports.count == 1)
            }
        }
    }
}
